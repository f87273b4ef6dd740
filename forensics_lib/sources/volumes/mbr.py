"""The master boot record and the chain of extended boot records behind it.

Format: the de-facto standard of IBM PC compatibles; extended partitions as Linux' block/partitions/msdos.c reads them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct

from forensics_lib.errors import DamagedData
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.sources.base import Source

__all__ = ["Mbr", "MbrEntry"]

_ENTRY = Struct("<B3xB3xII")
_TABLE, _SIGNATURE = 446, 510
_EXTENDED = (0x05, 0x0F, 0x85)
_PROTECTIVE = 0xEE
_MAX_LOGICAL = 1024


@dataclass(frozen=True, slots=True)
class MbrEntry:
    """One partition.

    Attributes:
        index: as Linux counts: 1 to 4 by the place in the table, logical partitions from 5 on.
        type: partition type.
        active: whether the boot flag is set.
        start: first sector.
        sectors: how many.
    """

    index: int
    type: int
    active: bool
    start: int
    sectors: int

    @property
    def is_extended(self) -> bool:
        """Whether it only holds logical partitions."""
        return self.type in _EXTENDED


@dataclass(frozen=True, slots=True)
class Mbr:
    """The table in the first sector of a disk.

    Attributes:
        disk_id: the disk's signature; Linux makes partition UUIDs of it.
        entries: the partitions in the table; empty places are left out.
    """

    disk_id: int
    entries: tuple[MbrEntry, ...]

    @property
    def is_protective(self) -> bool:
        """Whether an entry announces a GPT."""
        return any(entry.type == _PROTECTIVE for entry in self.entries)

    @classmethod
    def read(cls, disk: Source) -> Mbr | None:
        """The table, or None when the first sector holds none that makes sense."""
        try:
            sector = disk.read_at(0, 512)
        except DamagedData:
            return None
        entries = _entries(sector)
        if not entries:
            return None
        return cls(int.from_bytes(sector[440:444], "little"), entries)

    def partitions(self, disk: Source, sector_size: int, origin: Origin, problems: ProblemLog) -> Iterator[MbrEntry]:
        """All partitions, the logical ones behind the primary ones; extended ones hold no data and are left out.

        Args:
            disk: whose first sector this is.
            sector_size: bytes of a sector; all numbers count in it.
            origin: of the disk.
            problems: told of a chain of extended boot records that is damaged or runs in a circle.
        """
        yield from (entry for entry in self.entries if not entry.is_extended and entry.type != _PROTECTIVE)
        index = 5
        seen: set[int] = set()
        for extended in (entry for entry in self.entries if entry.is_extended):
            place = extended.start
            while place:
                if place in seen or len(seen) > _MAX_LOGICAL:
                    reason = "the chain of extended boot records runs in a circle, or is too long"
                    problems.add(origin.to("extended boot record", place * sector_size), reason)
                    break
                seen.add(place)
                here = origin.to("extended boot record", place * sector_size)
                following = 0
                for entry in self._extended(disk, place * sector_size, here, problems):
                    if entry.is_extended:
                        following = following or extended.start + entry.start
                    else:
                        yield MbrEntry(index, entry.type, entry.active, place + entry.start, entry.sectors)
                        index += 1
                place = following

    def _extended(self, disk: Source, position: int, origin: Origin, problems: ProblemLog) -> tuple[MbrEntry, ...]:
        try:
            sector = disk.read_at(position, 512)
        except DamagedData as error:
            problems.add(origin, error)
            return ()
        if sector[_SIGNATURE:] != b"\x55\xaa":
            problems.add(origin, "the extended boot record has no signature; logical partitions behind it are lost")
            return ()
        return _entries(sector, places=2)


def _entries(sector: bytes, places: int = 4) -> tuple[MbrEntry, ...]:
    """The entries of a boot record; none when the bytes are code or text rather than a table."""
    if len(sector) < 512 or sector[_SIGNATURE:] != b"\x55\xaa":
        return ()
    found = []
    for place in range(places):
        status, kind, start, sectors = _ENTRY.unpack_from(sector, _TABLE + place * _ENTRY.size)
        if status not in (0, 0x80):
            return ()
        if kind and sectors:
            found.append(MbrEntry(place + 1, kind, bool(status), start, sectors))
    return tuple(found)
