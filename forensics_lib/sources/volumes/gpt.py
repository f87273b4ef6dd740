"""GUID partition tables.

Format: UEFI specification 2.10, chapter 5.3.
"""

from __future__ import annotations

import uuid
import zlib
from dataclasses import dataclass
from struct import Struct

from forensics_lib.errors import DamagedData
from forensics_lib.model import ProblemLog
from forensics_lib.sources.base import Source

__all__ = ["Gpt", "GptEntry", "has_header"]

_HEADER = Struct("<8sIIIIQQQQ16sQIII")
_ENTRY = Struct("<16s16sQQQ72s")
_MAGIC = b"EFI PART"
_SECTOR_SIZES = (512, 4096, 2048, 1024)
_MAX_TABLE = 4 << 20


@dataclass(frozen=True, slots=True)
class GptEntry:
    """One partition.

    Attributes:
        index: place in the table, from 1 on, as Linux counts.
        type: GUID of what the partition is for.
        uuid: GUID of the partition itself.
        first: first sector.
        last: last sector, which belongs to it.
        attributes: 64 flags.
        name: given by whoever made it.
    """

    index: int
    type: str
    uuid: str
    first: int
    last: int
    attributes: int
    name: str


@dataclass(frozen=True, slots=True)
class _Header:
    place: int
    other: int
    entries_at: int
    entry_count: int
    entry_size: int
    entries_crc: int
    disk_id: str
    entries: bytes | None  # None when their checksum is wrong or they cannot be read


@dataclass(frozen=True, slots=True)
class Gpt:
    """The table of a disk.

    Attributes:
        sector_size: bytes of a sector, as the place of the header tells; all numbers count in it.
        disk_id: GUID of the disk.
        entries: the partitions; empty places are left out.
        is_backup: whether the table at the end of the disk was used.
    """

    sector_size: int
    disk_id: str
    entries: tuple[GptEntry, ...]
    is_backup: bool

    @classmethod
    def read(cls, disk: Source, problems: ProblemLog) -> Gpt | None:
        """The table in front, or else the one at the end of the disk; None when there is neither.

        Args:
            disk: the whole disk.
            problems: told of a table that is missing or damaged while the other one is there.
        """
        for size in _SECTOR_SIZES:
            first = _header(disk, size, size)
            if first is not None and first.entries is not None:
                return _gpt(first, first.entries, size)
            last = _header(disk, disk.size // size * size - size, size)
            if last is None and first is not None:
                last = _header(disk, first.other * size, size)  # the disk grew since
            if last is not None and last.entries is not None:
                state = "missing or damaged" if first is None else "damaged (its entries have a wrong checksum)"
                message = f"the first partition table is {state}; the backup at the end of the disk was used"
                problems.add(disk.origin.to("GPT", size), message)
                return _gpt(last, last.entries, size, is_backup=True)
            header = first or last
            if header is not None:
                message = "the entries of the partition table have a wrong checksum, and there is no good backup"
                problems.add(disk.origin.to("GPT", header.place), message)
                return _gpt(header, _entries(disk, header), size, is_backup=first is None)
        return None


def has_header(disk: Source) -> bool:
    """Whether a header is where that of a disk with 512-byte sectors would be, announced by an MBR or not."""
    return _read(disk, 512, len(_MAGIC)) == _MAGIC


def _header(disk: Source, place: int, sector_size: int) -> _Header | None:
    """A header whose own checksum is right."""
    data = _read(disk, place, sector_size) if place > 0 else b""
    if not data.startswith(_MAGIC) or len(data) < 512:
        return None
    _, _, length, crc, _, here, other, _, _, disk_id, entries_at, count, size, entries_crc = _HEADER.unpack_from(data)
    if not _HEADER.size <= length <= len(data):
        return None
    if zlib.crc32(data[:16] + bytes(4) + data[20:length]) != crc or here * sector_size != place:
        return None
    if size < _ENTRY.size or count * size > _MAX_TABLE:
        return None
    header = _Header(place, other, entries_at * sector_size, count, size, entries_crc, _guid(disk_id), None)
    entries = _entries(disk, header)
    if len(entries) < count * size or zlib.crc32(entries) != entries_crc:
        return header
    return _Header(place, other, header.entries_at, count, size, entries_crc, header.disk_id, entries)


def _entries(disk: Source, header: _Header) -> bytes:
    return _read(disk, header.entries_at, header.entry_count * header.entry_size)


def _read(disk: Source, place: int, length: int) -> bytes:
    try:
        return disk.read_at(place, length)
    except DamagedData:
        return b""


def _gpt(header: _Header, data: bytes, sector_size: int, *, is_backup: bool = False) -> Gpt:
    found = []
    for index in range(len(data) // header.entry_size):
        kind, own, first, last, attributes, name = _ENTRY.unpack_from(data, index * header.entry_size)
        if any(kind):
            text = name.decode("utf-16-le", "replace").split("\0", 1)[0]
            found.append(GptEntry(index + 1, _guid(kind), _guid(own), first, last, attributes, text))
    return Gpt(sector_size, header.disk_id, tuple(found), is_backup)


def _guid(data: bytes) -> str:
    return str(uuid.UUID(bytes_le=data))
