"""Logical volumes of LVM2.

Format: lib/format_text of LVM2 (layout.h, format-text.c) and the text that it keeps; lvm(8), vgcfgbackup(8).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from struct import Struct

from forensics_lib.errors import DamagedData, ForensicsError, UnsupportedFormat
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.sources._bounds import end_of, read_exactly
from forensics_lib.sources.base import Source
from forensics_lib.sources.joined import JoinedSource, MissingSource
from forensics_lib.sources.volumes.lvm_text import Section, parse
from forensics_lib.sources.volumes.volume import Volume, VolumeKind

__all__ = ["PhysicalVolume", "StripedSource", "logical_volumes"]

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


class StripedSource(Source):
    """Several sources that take turns, a stripe at a time.

    Args:
        parts: in their order, all of the same size.
        stripe: bytes before the next part's turn.
        origin: of the whole.
    """

    def __init__(self, parts: Sequence[Source], stripe: int, origin: Origin) -> None:
        """Serve the parts as one run of bytes."""
        self.parts = tuple(parts)
        self.stripe = stripe
        self.origin = origin
        self.size = sum(part.size for part in parts)

    def read_at(self, offset: int, length: int) -> bytes:
        """The bytes at a position; short only at the end.

        Raises:
            DamagedData: a part cannot be read there.
        """
        end = end_of(self, offset, length)
        pieces = []
        while offset < end:
            number, inside = divmod(offset, self.stripe)
            row, column = divmod(number, len(self.parts))
            count = min(end - offset, self.stripe - inside)
            pieces.append(read_exactly(self.parts[column], row * self.stripe + inside, count, "a stripe"))
            offset += count
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def logical_volumes(physical: Iterable[PhysicalVolume], problems: ProblemLog) -> Iterator[Volume]:
    """The visible logical volumes of every group that the physical volumes belong to.

    Linear and striped segments are read, also over several physical volumes. Snapshots, thin volumes, caches, RAID and
    mirrors are listed, and raise where they are read; each is a problem that says why. The same holds for extents on a
    physical volume that is missing.

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
        yield from _Group(name, group, members, origin.to(f"LVM group {name}"), problems).volumes()


class _Group:
    """One volume group, as its newest metadata describes it."""

    def __init__(
        self, name: str, section: Section, members: dict[str, Source], origin: Origin, problems: ProblemLog
    ) -> None:
        self.name = name
        self.section = section
        self.origin = origin
        self.problems = problems
        self.extent = section.number("extent_size") * _SECTOR
        self.physical = {
            key: (members.get(entry.text("id").replace("-", "")), entry)
            for key, entry in section.section("physical_volumes").sections.items()
        }
        for key, (source, entry) in self.physical.items():
            if source is None:
                device = f" (it was {entry.text('device')})" if entry.text("device") else ""
                problems.add(origin, f"physical volume {entry.text('id') or key}{device} is missing")

    def volumes(self) -> Iterator[Volume]:
        if not self.extent:
            self.problems.add(self.origin, "the LVM group declares no extent size")
            return
        described = self.section.section("logical_volumes").sections
        stores = {
            segment.text("cow_store")
            for volume in described.values()
            for segment in volume.sections.values()
            if segment.text("type") == "snapshot"
        }
        visible = [(name, volume) for name, volume in described.items() if "VISIBLE" in volume.list("status")]
        for index, (name, volume) in enumerate(visible, 1):
            origin = self.origin.to(name)
            kind, source = self._volume(volume, origin, is_snapshot=name in stores)
            full_name = f"{self.name}/{name}"
            yield Volume(index, VolumeKind.LVM, None, source.size, kind, full_name, volume.text("id"), source, origin)

    def _volume(self, volume: Section, origin: Origin, *, is_snapshot: bool) -> tuple[str, Source]:
        segments = sorted(
            (section for name, section in volume.sections.items() if name.startswith("segment")),
            key=lambda segment: segment.number("start_extent"),
        )
        if len(segments) > _MAX_SEGMENTS:
            reason = f"a logical volume of {len(segments)} segments"
            return "", self._unreadable(0, origin, reason)
        parts: list[Source] = []
        kinds: list[str] = []
        position = 0
        for segment in segments:
            start, count = segment.number("start_extent"), segment.number("extent_count")
            if start < position:
                reason = "its segments overlap"
                return "", self._unreadable((start + count) * self.extent, origin, reason)
            if start > position:
                parts.append(self._unreadable((start - position) * self.extent, origin, "a segment is missing"))
            kinds.append("snapshot" if is_snapshot else _kind(segment))
            parts.append(self._segment(segment, kinds[-1], count * self.extent, origin))
            position = start + count
        return ", ".join(dict.fromkeys(kinds)), JoinedSource(parts, origin)

    def _segment(self, segment: Section, kind: str, size: int, origin: Origin) -> Source:
        if kind not in ("linear", "striped"):
            return self._unreadable(size, origin, f"logical volumes of the type {kind!r} are not read", supported=False)
        stripes = segment.list("stripes")
        count = len(stripes) // 2
        width = segment.number("stripe_size") * _SECTOR
        if not 0 < count <= _MAX_STRIPES or (count > 1 and not width) or size // self.extent % count:
            return self._unreadable(size, origin, "a segment has no stripes, or an impossible number of them")
        parts = [self._area(stripes[2 * i], stripes[2 * i + 1], size // count, origin) for i in range(count)]
        return parts[0] if count == 1 else StripedSource(parts, width, origin)

    def _area(self, name: object, start: object, size: int, origin: Origin) -> Source:
        source, entry = self.physical.get(str(name), (None, None))
        if entry is None or not isinstance(start, int) or start < 0:
            return self._unreadable(
                size, origin, f"a segment lies on {name!r}, which is no physical volume of the group"
            )
        if source is None:
            return MissingSource(
                size, origin, f"these bytes lie on physical volume {entry.text('id')}, which is missing"
            )
        place = entry.number("pe_start") * _SECTOR + start * self.extent
        if place + size > source.size:
            self.problems.add(origin, f"a segment ends behind the end of physical volume {entry.text('id')}")
        return source.slice(place, size, f"LVM extents of {origin.label}")

    def _unreadable(self, size: int, origin: Origin, reason: str, *, supported: bool = True) -> Source:
        self.problems.add(origin, reason if supported else UnsupportedFormat(reason))
        return MissingSource(size, origin, reason)


def _kind(segment: Section) -> str:
    kind = segment.text("type")
    return "linear" if kind == "striped" and len(segment.list("stripes")) == 2 else kind


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
