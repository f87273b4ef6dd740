"""The time zone of a host, out of its own files."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from datetime import UTC, tzinfo
from zoneinfo import ZoneInfo

from forensics_lib.errors import ForensicsError
from forensics_lib.trees.documents import DocumentReader

__all__ = ["host_zone", "zone_name", "zones_of"]

_MAX_ZONE = 64 << 10


def zone_name(reader: DocumentReader) -> str:
    """The zone's name, e.g. ``Europe/Vienna``, by ``/etc/localtime`` or ``/etc/timezone``; empty when unknown."""
    if "/etc/localtime" in reader.tree:
        _, found, name = (reader.tree.node("/etc/localtime").target or "").partition("zoneinfo/")
        if found:
            return name
    return next(iter((reader.text("/etc/timezone") or "").split()), "")


def zones_of(readers: Sequence[DocumentReader]) -> list[tuple[tzinfo, bool]]:
    """(zone, whether its own files tell it) of each file system: one without any has the only one that is known."""
    found = [host_zone(reader) for reader in readers]
    names = {str(zone): zone for zone, is_known in found if is_known}
    only = next(iter(names.values())) if len(names) == 1 else UTC
    return [(zone if is_known else only, is_known) for zone, is_known in found]


def host_zone(reader: DocumentReader) -> tuple[tzinfo, bool]:
    """(the zone, whether the host tells it): by its rules in the evidence, else by those known here; else UTC."""
    node = reader.find("/etc/localtime")
    if node is not None:
        try:
            rules = io.BytesIO(node.source().read_at(0, _MAX_ZONE))
            return ZoneInfo.from_file(rules, zone_name(reader) or "localtime"), True
        except (ForensicsError, ValueError, LookupError, EOFError, OverflowError, struct.error) as error:
            reader.problems.add(node.origin.to("etc/localtime"), f"no time zone that can be read: {error}")
    if name := zone_name(reader):
        try:
            return ZoneInfo(name), True
        except (LookupError, ValueError, OSError) as error:
            reader.problems.add(reader.origin.to("etc/timezone"), f"the rules of the zone are not known here: {error}")
    return UTC, False
