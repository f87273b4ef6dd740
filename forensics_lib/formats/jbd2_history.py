"""Everything the log of a journal (jbd2) still holds, also long after it was written back.

Mounting reads a log from its tail to its head. Behind them lie older transactions until new ones overwrite them, and
with them older copies of inodes and directories. They are found by looking at every block of the log; checksums tell
which copies are whole.

Format: Linux Documentation/filesystems/ext4/journal.rst and include/linux/jbd2.h.
"""

from __future__ import annotations

import bisect
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from forensics_lib._crc32c import crc32c
from forensics_lib.errors import DamagedData
from forensics_lib.formats.run import Run
from forensics_lib.model import Origin, Progress
from forensics_lib.sources.base import ExtentSource, Source

__all__ = ["JournalCopy", "JournalHistory"]

_MAGIC = 0xC03B3998
_DESCRIPTOR, _COMMIT, _SUPER_V1, _SUPER_V2, _REVOKE = 1, 2, 3, 4, 5
_64BIT, _CSUM_V2, _CSUM_V3, _FAST_COMMIT = 0x2, 0x8, 0x10, 0x20
_ESCAPE, _SAME_UUID, _LAST = 0x1, 0x2, 0x8
_FAST_COMMIT_BLOCKS = 256
_CRC32C = 4  # the type of checksum in the superblock of a journal that has them
_MAX_FAST = 1 << 14
_MAX_DATA = 1 << 14
_MAX_LOG = 1 << 24
"""Blocks of a log; the largest that mkfs makes has 2**18 of 4 KiB."""


@dataclass(frozen=True, slots=True)
class JournalCopy:
    """A block of the file system as one transaction left it.

    Attributes:
        block: its number in the file system.
        at: where the copy lies, as a block of the log.
        sequence: number of the transaction; larger is later.
        escaped: its first four bytes were the journal's magic, and are zeros in the log.
        checksum: of the copy, as its tag says; None where the journal has none.
    """

    block: int
    at: int
    sequence: int
    escaped: bool
    checksum: int | None


class JournalHistory:
    """All copies of blocks in a log, of transactions that are written back or not.

    Checksums of version 2 and 3 are used; a journal without them gives the copies that no later transaction can have
    overwritten.

    Args:
        log: the journal's bytes; None for a file system that has none.
        progress: called with the bytes of the log that were looked at.

    Attributes:
        block_size: bytes of a block.
        copies: the copies, oldest first.
        committed_ns: when a transaction was committed, nanoseconds since 1970, by its number.
        fast_at: where the area for fast commits begins in the log, in bytes.
        fast_size: its bytes; 0 when there is none.

    Raises:
        DamagedData: there is no journal superblock, or it contradicts itself.
    """

    block_size: int

    def __init__(self, log: Source | None, progress: Progress | None = None) -> None:
        """Look at every block of the log."""
        self.committed_ns: dict[int, int] = {}
        self.copies: list[JournalCopy] = []
        self.block_size = self.fast_at = self.fast_size = 0
        self._by_block: dict[int, list[int]] = {}
        self._blocks: list[int] = []
        if log is None:
            return
        self._log = log
        data = log.read_at(0, 1024)
        if len(data) < 1024:
            raise DamagedData("the journal has no superblock", origin=log.origin)
        magic, kind, _, size, length, self._first = struct.unpack_from(">6I", data)
        if magic != _MAGIC or kind not in (_SUPER_V1, _SUPER_V2):
            raise DamagedData("the journal has no superblock", origin=log.origin)
        if size not in (1024, 2048, 4096, 8192, 16384, 32768, 65536) or not 0 < self._first < length:
            raise DamagedData("the journal's superblock contradicts itself", origin=log.origin)
        self.block_size = size
        self._incompat = struct.unpack_from(">I", data, 40)[0] if kind == _SUPER_V2 else 0
        if data[80] == _CRC32C and any(data[252:256]) and not self._incompat & (_CSUM_V2 | _CSUM_V3):
            self._incompat |= _64BIT | _CSUM_V3  # the field is damaged: nothing is taken without its checksum
        self._uuid = data[48:64]
        self._checked = bool(self._incompat & (_CSUM_V2 | _CSUM_V3))
        self._length = min(length, log.size // size, _MAX_LOG)
        blocks = struct.unpack_from(">I", data, 84)[0] if kind == _SUPER_V2 else 0
        if self._incompat & _FAST_COMMIT:
            blocks = blocks or _FAST_COMMIT_BLOCKS
        blocks = min(blocks, _MAX_FAST, self._length - self._first)
        if blocks > 0:  # the feature goes with unmounting, what lies in the area stays
            self.fast_at, self.fast_size = (self._length - blocks) * size, blocks * size
            self._length -= blocks if self._incompat & _FAST_COMMIT else 0
        self._scan(progress)
        for index, copy in enumerate(self.copies):
            self._by_block.setdefault(copy.block, []).append(index)
        self._blocks = sorted(self._by_block)

    def fast_area(self) -> bytes:
        """The blocks of the area for fast commits, as far as they can be read."""
        try:
            return self._log.read_some(self.fast_at, self.fast_size) if self.fast_size else b""
        except DamagedData:
            return b""

    def content(self, copy: JournalCopy) -> bytes | None:
        """The bytes of a copy; None when it was overwritten or cannot be read."""
        try:
            data = self._log.read_at(copy.at * self.block_size, self.block_size)
        except DamagedData:
            return None
        if len(data) < self.block_size:
            return None
        if copy.checksum is not None:
            found = self._checksum(copy.sequence, data)
            if (found if self._incompat & _CSUM_V3 else found & 0xFFFF) != copy.checksum:
                return None
        return struct.pack(">I", _MAGIC) + data[4:] if copy.escaped else data

    def offset(self, copy: JournalCopy) -> int:
        """Where a copy lies in the log, in bytes."""
        return copy.at * self.block_size

    def as_of(self, block: int, sequence: int) -> bytes | None:
        """A block as a transaction left it or found it; None when the log says nothing about it.

        Without a copy of that time or before it, the next later one is the nearest there is.
        """
        indexes = self._by_block.get(block, [])
        split = bisect.bisect_right(indexes, sequence, key=lambda index: self.copies[index].sequence)
        for index in (*reversed(indexes[:split]), *indexes[split:]):
            data = self.content(self.copies[index])
            if data is not None:
                return data
        return None

    def between(self, block: int, first: int, last: int) -> bytes | None:
        """The newest copy of a block that transactions from `first` to `last` wrote; None when the log has none."""
        copy = self._newest(block, first, last)
        return None if copy is None else self.content(copy)

    @property
    def is_checked(self) -> bool:
        """Whether each copy has a checksum."""
        return self.block_size != 0 and self._checked

    def data(self, runs: Iterable[Run], size: int, first: int, last: int, origin: Origin) -> Source | None:
        """The content of a file whose own blocks went through the log; None unless the log has all of them.

        Args:
            runs: its blocks.
            size: its bytes.
            first: the earliest transaction that can have written it.
            last: the latest.
            origin: the file.
        """
        extents: list[tuple[int, int, int]] = []
        for run in runs:
            for index in range(run.count if run.written else 0):
                copy = self._newest(run.block + index, first, last)
                if copy is None or copy.escaped or len(extents) >= _MAX_DATA:
                    return None
                extents.append(((run.logical + index) * self.block_size, self.offset(copy), self.block_size))
        return ExtentSource(self._log, extents, size, origin) if extents else None

    def _newest(self, block: int, first: int, last: int) -> JournalCopy | None:
        for index in reversed(self._by_block.get(block, [])):
            copy = self.copies[index]
            if first <= copy.sequence <= last and self.content(copy) is not None:
                return copy
        return None

    def written_after(self, block: int, count: int, sequence: int) -> Iterator[int]:
        """Those of some blocks that were metadata in a transaction after this one, in order."""
        first = bisect.bisect_left(self._blocks, block)
        for index in range(first, bisect.bisect_left(self._blocks, block + count)):
            number = self._blocks[index]
            if self.copies[self._by_block[number][-1]].sequence > sequence:
                yield number

    def _scan(self, progress: Progress | None) -> None:
        size, step = self.block_size, max(1, (1 << 20) // self.block_size)
        descriptors: list[tuple[int, int]] = []
        headers: dict[int, int] = {}
        magic = struct.pack(">I", _MAGIC)
        for start in range(self._first, self._length, step):
            try:
                data = self._log.read_at(start * size, min(step, self._length - start) * size)
            except DamagedData:
                continue
            for position in range(0, len(data) - 63, size):
                if data[position : position + 4] != magic:
                    continue
                kind, sequence = struct.unpack_from(">II", data, position + 4)
                at = start + position // size
                if kind == _DESCRIPTOR:
                    descriptors.append((sequence, at))
                elif kind == _COMMIT:
                    seconds, nanoseconds = struct.unpack_from(">QI", data, position + 48)
                    if seconds < 1 << 34 and nanoseconds < 10**9:
                        self.committed_ns[sequence] = seconds * 10**9 + nanoseconds
                elif kind != _REVOKE:
                    continue
                headers[at] = sequence
            if progress is not None:
                progress(min(start + step, self._length) * size, self._length * size)
        taken: dict[int, int] = {} if self._checked else dict(headers)
        for sequence, at in sorted(descriptors, reverse=True):
            self._describe(at, sequence, taken)
        self.copies.sort(key=lambda copy: copy.sequence)

    def _describe(self, position: int, sequence: int, taken: dict[int, int]) -> None:
        """Collect what one descriptor describes; `taken` are blocks of the log that later transactions wrote."""
        data = self._log.read_at(position * self.block_size, self.block_size)
        if self._checked and not self._has_tail(data):
            return
        at = position
        for block, escaped, checksum in self._tags(data):
            at = at + 1 if at + 1 < self._length else self._first
            if not self._checked:
                if taken.get(at, -1) >= 0:
                    continue
                taken[at] = sequence
            self.copies.append(JournalCopy(block, at, sequence, escaped, checksum))

    def _has_tail(self, data: bytes) -> bool:
        (tail,) = struct.unpack_from(">I", data, len(data) - 4)
        return bool(tail == crc32c(self._uuid + data[:-4] + b"\0\0\0\0") ^ 0xFFFFFFFF)

    def _checksum(self, sequence: int, data: bytes) -> int:
        return crc32c(self._uuid + struct.pack(">I", sequence) + data) ^ 0xFFFFFFFF

    def _tags(self, data: bytes) -> list[tuple[int, bool, int | None]]:
        wide, v3 = bool(self._incompat & _64BIT), bool(self._incompat & _CSUM_V3)
        size = 16 if v3 else 8 + (4 if wide else 0) + (2 if self._incompat & _CSUM_V2 else 0)
        end = len(data) - (4 if self._checked else 0)
        tags: list[tuple[int, bool, int | None]] = []
        position, high = 12, 0
        while position + size <= end and len(tags) < self._length:
            checksum: int | None = None
            if v3:
                low, flags, high, checksum = struct.unpack_from(">IIII", data, position)
            else:
                low, short, flags = struct.unpack_from(">IHH", data, position)
                checksum = short if self._checked else None
                if wide:
                    (high,) = struct.unpack_from(">I", data, position + 8)
            tags.append((low | (high << 32 if wide else 0), bool(flags & _ESCAPE), checksum))
            position += size + (0 if flags & _SAME_UUID else 16)
            if flags & _LAST:
                break
        return tags
