"""The time zone of a host, out of its own files."""

from __future__ import annotations

import io
import struct
from datetime import UTC, tzinfo
from zoneinfo import ZoneInfo

from forensics_lib.errors import ForensicsError
from forensics_lib.trees.documents import DocumentReader

__all__ = ["host_zone", "zone_name"]

_MAX_ZONE = 64 << 10


def zone_name(reader: DocumentReader) -> str:
    """The zone's name, e.g. ``Europe/Vienna``, by ``/etc/localtime`` or ``/etc/timezone``; empty when unknown."""
    if "/etc/localtime" in reader.tree:
        _, found, name = (reader.tree.node("/etc/localtime").target or "").partition("zoneinfo/")
        if found:
            return name
    return next(iter((reader.text("/etc/timezone") or "").split()), "")


def host_zone(reader: DocumentReader) -> tuple[tzinfo, bool]:
    """(the zone, whether the host tells it): by its rules in the evidence, else by those known here; else UTC."""
    node = reader.find("/etc/localtime")
    if node is not None:
        try:
            return ZoneInfo.from_file(io.BytesIO(node.source().read_at(0, _MAX_ZONE))), True
        except (ForensicsError, ValueError, LookupError, EOFError, OverflowError, struct.error) as error:
            reader.problems.add(node.origin.to("etc/localtime"), f"no time zone that can be read: {error}")
    if name := zone_name(reader):
        try:
            return ZoneInfo(name), True
        except (LookupError, ValueError, OSError) as error:
            reader.problems.add(reader.origin.to("etc/timezone"), f"the rules of the zone are not known here: {error}")
    return UTC, False
