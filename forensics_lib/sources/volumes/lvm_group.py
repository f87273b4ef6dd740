"""The logical volumes of one volume group of LVM2, as its metadata describe them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from forensics_lib.errors import ForensicsError, UnsupportedFormat
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.sources._bounds import end_of, read_exactly
from forensics_lib.sources.base import Source
from forensics_lib.sources.joined import JoinedSource, MissingSource
from forensics_lib.sources.volumes.lvm_raid import RAID_TYPES, left_behind, raid_names, raid_source
from forensics_lib.sources.volumes.lvm_text import Section
from forensics_lib.sources.volumes.snapshot import SnapshotSource
from forensics_lib.sources.volumes.thin import ThinPool
from forensics_lib.sources.volumes.volume import Volume, VolumeKind

__all__ = ["Group", "StripedSource"]

_SECTOR = 512
_MAX_SEGMENTS = 1_000_000
_MAX_STRIPES = 1024
_MAX_DEPTH = 6
_WITHOUT_CONTENT = {"thin-pool", "cache-pool", "snapshot"}
"""Types of what others are made of; a snapshot is listed by the name of its store."""


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


class Group:
    """One volume group, as its newest metadata describes it.

    Args:
        name: of the group.
        section: its description.
        members: its physical volumes that are there, by UUID without dashes.
        origin: of the group.
        problems: told of what is missing or not read.
    """

    def __init__(
        self, name: str, section: Section, members: dict[str, Source], origin: Origin, problems: ProblemLog
    ) -> None:
        """Find out which physical volumes are missing."""
        self.name = name
        self.section = section
        self.origin = origin
        self.problems = problems
        self.extent = section.number("extent_size") * _SECTOR
        self.described = section.section("logical_volumes").sections
        self.physical = {
            key: (members.get(entry.text("id").replace("-", "")), entry)
            for key, entry in section.section("physical_volumes").sections.items()
        }
        self._made: dict[str, Source | None] = {}
        self._pools: dict[str, ThinPool] = {}
        for key, (source, entry) in self.physical.items():
            if source is None:
                device = f" (it was {entry.text('device')})" if entry.text("device") else ""
                problems.add(origin, f"physical volume {entry.text('id') or key}{device} is missing")

    def volumes(self) -> Iterator[Volume]:
        """Every volume that the system shows; snapshots by the name of their store."""
        if not self.extent:
            self.problems.add(self.origin, "the LVM group declares no extent size")
            return
        snapshots = {
            segment.text("cow_store"): segment
            for volume in self.described.values()
            for segment in volume.sections.values()
            if segment.text("type") == "snapshot"
        }
        visible = [
            (name, volume)
            for name, volume in self.described.items()
            if (name in snapshots or "VISIBLE" in volume.list("status"))
            and not {segment.text("type") for segment in volume.sections.values()} & _WITHOUT_CONTENT
        ]
        for index, (name, volume) in enumerate(visible, 1):
            origin = self.origin.to(name)
            if name in snapshots:
                kind, source = "snapshot", self._snapshot(snapshots[name], name, origin)
            else:
                kind, source = self._volume(volume, origin)
            full_name = f"{self.name}/{name}"
            yield Volume(index, VolumeKind.LVM, None, source.size, kind, full_name, volume.text("id"), source, origin)

    def _volume(self, volume: Section, origin: Origin, depth: int = 0) -> tuple[str, Source]:
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
            kinds.append(_kind(segment))
            parts.append(self._segment(segment, kinds[-1], count * self.extent, origin, depth))
            position = start + count
        return ", ".join(dict.fromkeys(kinds)), JoinedSource(parts, origin)

    def _segment(self, segment: Section, kind: str, size: int, origin: Origin, depth: int) -> Source:
        if depth > _MAX_DEPTH:
            return self._unreadable(size, origin, "logical volumes lie too deep inside each other")
        if kind in RAID_TYPES:
            return self._raid(segment, kind, size, origin, depth)
        if kind in ("cache", "writecache"):
            return self._cached(segment, kind, size, origin, depth)
        if kind == "thin":
            return self._thin(segment, size, origin, depth)
        if kind not in ("linear", "striped"):
            return self._unreadable(size, origin, f"logical volumes of the type {kind!r} are not read", supported=False)
        stripes = segment.list("stripes")
        count = len(stripes) // 2
        width = segment.number("stripe_size") * _SECTOR
        if not 0 < count <= _MAX_STRIPES or (count > 1 and not width) or size // self.extent % count:
            return self._unreadable(size, origin, "a segment has no stripes, or an impossible number of them")
        parts = [self._area(stripes[2 * i], stripes[2 * i + 1], size // count, origin) for i in range(count)]
        return parts[0] if count == 1 else StripedSource(parts, width, origin)

    def _raid(self, segment: Section, kind: str, size: int, origin: Origin, depth: int) -> Source:
        try:
            if segment.number("data_offset") or segment.number("reshape_count"):
                raise UnsupportedFormat("it was being reshaped")
            names, metadata = raid_names(segment)
            stale = left_behind([self._inner(name, origin, depth) for name in metadata])
            inner = [self._inner(name, origin, depth) for name in names]
            images = [None if i in stale or not image.size else image for i, image in enumerate(inner)]
            for index in sorted(stale & set(range(len(names)))):
                self.problems.add(origin, f"its image {names[index]} is not in sync, and not used")
            return raid_source(kind, images, segment, size, origin)
        except ForensicsError as error:
            reason = f"a segment of the type {kind!r} is not read: {error}"
            return self._unreadable(size, origin, reason, supported=not isinstance(error, UnsupportedFormat))

    def _cached(self, segment: Section, kind: str, size: int, origin: Origin, depth: int) -> Source:
        """What lies behind a cache: all of it, unless the cache was allowed to keep changes to itself."""
        names = (segment.text("cache_pool"), segment.text("writecache"))
        pools = [self.described[name] for name in names if name in self.described]
        modes = {one.text("cache_mode") for pool in pools for one in pool.sections.values()} | {
            segment.text("cache_mode")
        }
        if kind == "writecache" or not modes & {"writethrough", "passthrough"}:
            self.problems.add(origin, f"a {kind} may hold changes of this volume that are not read")
        inner = self._inner(segment.text("origin"), origin, depth)
        return inner if inner.size == size else inner.slice(0, size, "segment")

    def _thin(self, segment: Section, size: int, origin: Origin, depth: int) -> Source:
        name, outside = segment.text("thin_pool"), segment.text("external_origin")
        try:
            if name not in self._pools:
                about = next(iter(self.described.get(name, Section()).sections.values()), Section())
                parts = [self._inner(about.text(key), origin, depth) for key in ("metadata", "pool")]
                self._pools[name] = ThinPool(parts[0], parts[1], self.origin.to(name))
            below = self._inner(outside, origin, depth) if outside else None
            return self._pools[name].volume(segment.number("device_id"), size, origin, below)
        except ForensicsError as error:
            return self._unreadable(size, origin, f"this thin volume is not read: {error}")

    def _snapshot(self, segment: Section, store: str, origin: Origin) -> Source:
        below = self._inner(segment.text("origin"), origin, 0)
        try:
            return SnapshotSource(below, self._inner(store, origin, 0), origin)
        except ForensicsError as error:
            return self._unreadable(below.size, origin, f"this snapshot is not read: {error}")

    def _inner(self, name: str, origin: Origin, depth: int) -> Source:
        """A logical volume that another one is made of."""
        if name not in self.described:
            return self._unreadable(0, origin, f"it is made of {name!r}, which the group does not have")
        if name not in self._made:
            self._made[name] = None
            self._made[name] = self._volume(self.described[name], origin.to(name), depth + 1)[1]
        return self._made[name] or self._unreadable(0, origin, f"{name!r} is made of itself")

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
