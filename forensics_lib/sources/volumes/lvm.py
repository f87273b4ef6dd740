"""Logical volumes of LVM2.

Format: lib/format_text of LVM2 (layout.h, format-text.c) and the text that it keeps; lvm(8), vgcfgbackup(8).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from struct import Struct

from forensics_lib.errors import DamagedData, ForensicsError
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.sources._bounds import read_exactly
from forensics_lib.sources.base import Source
from forensics_lib.sources.volumes.lvm_group import Group
from forensics_lib.sources.volumes.lvm_text import Section, parse
from forensics_lib.sources.volumes.volume import Volume

__all__ = ["PhysicalVolume", "logical_volumes"]

_LABEL = Struct("<8sQII8s")
_AREA = Struct("<QQ")
_MDA = Struct("<I16sIQQ")
_LOCATION = Struct("<QQII")
_MDA_MAGIC = b" LVM2 x[5A%r0N*>"
_SECTOR = 512
_MDA_HEADER = 512
_CRC_START = 0xF597A6CF
_MAX_AREAS = 64
_MAX_TEXT = 64 << 20
_IGNORED = 1
_MAX_SEGMENTS = 1_000_000
_MAX_STRIPES = 1024
_MAX_DEPTH = 6


@dataclass(frozen=True, slots=True)
class PhysicalVolume:
    """One physical volume, and what it knows of its group.

    Attributes:
        uuid: without dashes, as it is stored.
        source: its bytes.
        group: name of the group; empty when no metadata can be read (other members may have it).
        metadata: the description of the group; None when none can be read here.
    """

    uuid: str
    source: Source
    group: str
    metadata: Section | None

    @classmethod
    def read(cls, source: Source, problems: ProblemLog) -> PhysicalVolume | None:
        """The physical volume, or None when the bytes are none.

        Args:
            source: a partition or disk.
            problems: told of a damaged label or metadata.
        """
        try:
            sectors = source.read_at(0, 4 * _SECTOR)
        except DamagedData:
            return None
        for position in range(0, len(sectors), _SECTOR):
            label = sectors[position : position + _SECTOR]
            if label.startswith(b"LABELONE") and label[24:32] == b"LVM2 001" and len(label) == _SECTOR:
                return cls._from_label(source, label, position, problems)
        return None

    @classmethod
    def _from_label(cls, source: Source, label: bytes, position: int, problems: ProblemLog) -> PhysicalVolume:
        origin = source.origin.to("LVM label", position)
        _, _, crc, start, _ = _LABEL.unpack_from(label)
        if _crc(label[20:]) != crc:
            problems.add(origin, "checksum of the label of an LVM physical volume is wrong")
        uuid = label[start : start + 32].decode("ascii", "replace")
        _, end = _areas(label, start + 40)
        metadata_areas, _ = _areas(label, end)
        best: Section | None = None
        for place, size in metadata_areas:
            try:
                found = _metadata(source, place, size)
            except ForensicsError as error:
                problems.add(source.origin.to("LVM metadata", place), error)
                continue
            if found is not None and (best is None or _sequence(found) > _sequence(best)):
                best = found
        return cls(uuid, source, next(iter(best.sections), "") if best is not None else "", best)


def logical_volumes(physical: Iterable[PhysicalVolume], problems: ProblemLog) -> Iterator[Volume]:
    """The visible logical volumes of every group that the physical volumes belong to.

    Linear, striped, mirrored and RAID segments are read, also over several physical volumes, snapshots, thin volumes
    and what lies behind a cache. Other types are listed, and raise where they are read; each is a problem that says
    why. The same holds for extents on a physical volume that is missing, unless a mirror or parity stands in for them.

    Args:
        physical: of all disks that are there.
        problems: told of what is missing or not supported.
    """
    members: dict[str, Source] = {}
    for volume in physical:
        if members.setdefault(volume.uuid, volume.source) is not volume.source:
            message = f"LVM physical volume {volume.uuid} is there already, as {members[volume.uuid].origin}"
            problems.add(volume.source.origin, f"{message}; this one is not used")
    newest: dict[str, tuple[str, Section, Origin]] = {}
    for volume in physical:
        if volume.metadata is None:
            continue
        group = volume.metadata.section(volume.group)
        key = group.text("id")
        if key not in newest or group.number("seqno") > newest[key][1].number("seqno"):
            newest[key] = (volume.group, group, volume.source.origin)
    for name, group, origin in newest.values():
        yield from Group(name, group, members, origin.to(f"LVM group {name}"), problems).volumes()


def _areas(label: bytes, position: int) -> tuple[list[tuple[int, int]], int]:
    """A list of (offset, size) that ends with zeros, and where it ends."""
    found: list[tuple[int, int]] = []
    while position + _AREA.size <= len(label) and len(found) < _MAX_AREAS:
        offset, size = _AREA.unpack_from(label, position)
        position += _AREA.size
        if not offset:
            break
        found.append((offset, size))
    return found, position


def _metadata(source: Source, place: int, size: int) -> Section | None:
    """The text of one metadata area; None when the area is not in use."""
    head = read_exactly(source, place, _MDA_HEADER, "the LVM metadata")
    crc, magic, _, _, area_size = _MDA.unpack_from(head)
    if magic != _MDA_MAGIC or _crc(head[4:]) != crc:
        raise DamagedData("the header of the LVM metadata is damaged", origin=source.origin, offset=place)
    offset, length, text_crc, flags = _LOCATION.unpack_from(head, _MDA.size)
    area_size = min(area_size, size) if size else area_size
    if not offset or not length or flags & _IGNORED:
        return None
    if not _MDA_HEADER <= offset < area_size or length > min(area_size - _MDA_HEADER, _MAX_TEXT):
        raise DamagedData("the LVM metadata lies outside its area", origin=source.origin, offset=place)
    first = min(length, area_size - offset)  # the area is a ring
    data = read_exactly(source, place + offset, first, "the LVM metadata")
    if first < length:
        data += read_exactly(source, place + _MDA_HEADER, length - first, "the LVM metadata")
    if _crc(data) != text_crc:
        raise DamagedData("checksum of the LVM metadata is wrong", origin=source.origin, offset=place + offset)
    return parse(data.rstrip(b"\0").decode("utf-8", "surrogateescape"))


def _sequence(metadata: Section) -> int:
    return max((section.number("seqno") for section in metadata.sections.values()), default=0)


def _crc(data: bytes) -> int:
    """CRC-32 without the usual inversions, from LVM's own start value."""
    return zlib.crc32(data, _CRC_START ^ 0xFFFF_FFFF) ^ 0xFFFF_FFFF
