"""Write-ahead logs of SQLite: versions of pages, the newest of which count until they are written back.

Specification: https://www.sqlite.org/fileformat2.html, "The Write-Ahead Log".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from forensics_lib.errors import UnsupportedFormat
from forensics_lib.sources.base import Source

__all__ = ["Frame", "Wal"]

_HEADER = struct.Struct(">8I")
_FRAME = struct.Struct(">6I")
_MAGIC = 0x377F0682
_MAX_FRAMES = 1 << 20


@dataclass(frozen=True, slots=True)
class Frame:
    """A version of one page.

    Attributes:
        page: its number, from 1 on.
        offset: where its bytes lie in the log.
        committed: size of the database in pages after a transaction that ends with it; 0 for others.
        valid: whether it belongs to the log as it is: its salt and checksum say so. Others are of an earlier round.
    """

    page: int
    offset: int
    committed: int
    valid: bool


class Wal:
    """One log.

    Attributes:
        page_size: in bytes.
        frames: all of them, in the order of the file.
        pages: place of the newest committed version of each page, by its number.
        page_count: of the database after the last commit; 0 when there is none.
    """

    def __init__(self, source: Source) -> None:
        """Read the headers and check the checksums.

        Raises:
            UnsupportedFormat: this is no write-ahead log.
        """
        head = source.read_at(0, _HEADER.size)
        if len(head) < _HEADER.size:
            raise UnsupportedFormat("this is no write-ahead log: it is too short")
        magic, _, self.page_size, _, *self._salt, first, second = _HEADER.unpack(head)
        if magic & ~1 != _MAGIC or self.page_size < 512 or self.page_size & (self.page_size - 1):
            raise UnsupportedFormat("this is no write-ahead log of SQLite")
        self._order = ">" if magic & 1 else "<"
        self._sums = _add(self._order, head[:24], (0, 0))
        self._sound = self._sums == (first, second)
        self.frames = tuple(self._read(source))
        self.pages: dict[int, int] = {}
        self.page_count = 0
        waiting: dict[int, int] = {}
        for frame in self.frames:
            if not frame.valid:
                break
            waiting[frame.page] = frame.offset
            if frame.committed:
                self.pages |= waiting
                self.page_count = frame.committed
                waiting = {}

    def _read(self, source: Source) -> Iterator[Frame]:
        at, size = _HEADER.size, _FRAME.size + self.page_size
        while at + size <= source.size and (at - _HEADER.size) // size < _MAX_FRAMES:
            data = source.read_at(at, size)
            if len(data) < size:
                return
            page, committed, *salt, first, second = _FRAME.unpack_from(data)
            valid = self._sound and salt == self._salt
            if valid:
                sums = _add(self._order, data[_FRAME.size :], _add(self._order, data[:8], self._sums))
                valid = sums == (first, second)
                self._sums = sums
            self._sound = valid
            if page:
                yield Frame(page, at + _FRAME.size, committed, valid)
            at += size


def _add(order: str, data: bytes, sums: tuple[int, int]) -> tuple[int, int]:
    """The checksum of some more bytes."""
    first, second = sums
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for index in range(0, len(words) - 1, 2):
        first = first + words[index] + second & 0xFFFFFFFF
        second = second + words[index + 1] + first & 0xFFFFFFFF
    return first, second
