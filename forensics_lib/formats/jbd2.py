"""The journal of ext3 and ext4 (jbd2): which blocks its committed transactions hold.

Format: Linux Documentation/filesystems/ext4/journal.rst. A transaction counts when its commit block is there with the
right sequence number and checksums (of version 2 and 3; those of version 1 are not verified).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from forensics_lib._crc32c import crc32c
from forensics_lib.errors import DamagedData
from forensics_lib.model import Origin

__all__ = ["Journal", "JournalBlock"]

_MAGIC = 0xC03B3998
_DESCRIPTOR, _COMMIT, _SUPER_V1, _SUPER_V2, _REVOKE = 1, 2, 3, 4, 5
_INCOMPAT_64BIT, _CSUM_V2, _CSUM_V3, _FAST_COMMIT = 0x2, 0x8, 0x10, 0x20
_ESCAPE, _SAME_UUID, _LAST = 0x1, 0x2, 0x8
_COMMIT_SIZE = 64
_FAST_COMMIT_BLOCKS, _MAX_FAST_BLOCKS = 256, 1 << 14
_SMALLEST_LOG = 1024  # blocks; with fewer there is no area for fast commits


@dataclass(frozen=True, slots=True)
class JournalBlock:
    """A block of the file system as a transaction holds it.

    Attributes:
        block: its number in the file system.
        at: its number in the journal.
        sequence: of the transaction.
        escaped: its first four bytes were the journal's magic, and are zeros in the journal.
        checksum: of the block, as its tag says; None where the journal has none.
    """

    block: int
    at: int
    sequence: int
    escaped: bool
    checksum: int | None = None


class Journal:
    """The transactions that were committed and not yet written to their places.

    Args:
        read: gives one block of the journal by number.
        origin: where the journal lies.

    Attributes:
        block_size: bytes of a block.
        blocks: newest content of each block, by its number in the file system; revoked ones left out.
        transactions: number of committed transactions.
        faults: what was left out because its checksum is wrong; a kernel refuses to mount such a file system.
        next_sequence: number of the transaction behind the last committed one.
        fast_blocks: blocks of the journal that hold fast commits of that transaction; none where there is no area.

    Raises:
        DamagedData: there is no journal superblock.
    """

    def __init__(self, read: Callable[[int], bytes], origin: Origin) -> None:
        """Walk the log from its start to the last complete transaction."""
        self._read = read
        data = read(0)
        magic, kind, _ = struct.unpack_from(">III", data)
        if magic != _MAGIC or kind not in (_SUPER_V1, _SUPER_V2):
            raise DamagedData("no journal superblock", origin=origin)
        self.block_size, self._length, self._first, self._sequence, self._start = struct.unpack_from(">5I", data, 12)
        self._incompat = struct.unpack_from(">I", data, 40)[0] if kind == _SUPER_V2 else 0
        self.fast_blocks = range(0)
        if self._incompat & _FAST_COMMIT:
            end = self._length
            count = struct.unpack_from(">I", data, 84)[0] or _FAST_COMMIT_BLOCKS
            if end - count >= _SMALLEST_LOG:
                self._length -= count
                self.fast_blocks = range(self._length + 1, min(end, self._length + _MAX_FAST_BLOCKS))
        self.next_sequence = self._sequence
        self.blocks: dict[int, JournalBlock] = {}
        self.transactions = 0
        self.faults: list[str] = []
        self._uuid = data[48:64]
        self._checked = bool(self._incompat & (_CSUM_V2 | _CSUM_V3))
        if self._start and self._first < self._length and self.block_size >= 1024:
            self._walk()

    def _walk(self) -> None:
        position, sequence, newest = self._start, self._sequence, 0
        revoked: dict[int, int] = {}
        found: dict[int, list[JournalBlock]] = {}
        pending: list[JournalBlock] = []
        pending_revokes: list[int] = []
        sound = True
        for _ in range(self._length):
            data = self._read(position)
            if len(data) < 12:
                break
            magic, kind, number = struct.unpack_from(">III", data)
            if magic != _MAGIC or number != sequence & 0xFFFFFFFF:
                break
            here, position = position, self._after(position)
            if kind == _DESCRIPTOR:
                sound = sound and self._has_tail(data)
                for block, escaped, checksum in self._tags(data):
                    pending.append(JournalBlock(block, position, sequence, escaped, checksum))
                    position = self._after(position)
            elif kind == _REVOKE:
                sound = sound and self._has_tail(data)
                pending_revokes += self._revokes(data)
            elif kind == _COMMIT:
                (seconds,) = struct.unpack_from(">Q", data.ljust(_COMMIT_SIZE, b"\0"), 48)
                if not sound or not self._is_whole(data):
                    if seconds >= newest:  # else it was left by an earlier pass over the log
                        self.faults.append(f"transaction {sequence} and those behind it: a checksum of it is wrong")
                    break
                for one in pending:
                    found.setdefault(one.block, []).append(one)
                revoked |= dict.fromkeys(pending_revokes, sequence)
                pending, pending_revokes, newest = [], [], seconds
                sequence += 1
                self.transactions += 1
            else:
                break
            if here == position:
                break
        self.next_sequence = sequence & 0xFFFFFFFF
        for copies in found.values():
            for one in reversed(copies):
                if revoked.get(one.block, -1) >= one.sequence:
                    break
                if self._is_sound(one):
                    self.blocks[one.block] = one
                    break
                self.faults.append(f"block {one.block} of transaction {one.sequence}: its checksum is wrong")

    def _has_tail(self, data: bytes) -> bool:
        """Whether the checksum of a block of tags or of revoked blocks is right."""
        if not self._checked:
            return True
        (tail,) = struct.unpack_from(">I", data, len(data) - 4)
        return bool(tail == self._checksum(data[:-4] + b"\0\0\0\0"))

    def _is_whole(self, data: bytes) -> bool:
        """Whether the checksum of a commit block is right; some systems count only what is in use of it."""
        if not self._checked:
            return True
        (stored,) = struct.unpack_from(">I", data, 16)
        zeroed = data[:16] + b"\0\0\0\0" + data[20:]
        return stored in (self._checksum(zeroed), self._checksum(zeroed[:_COMMIT_SIZE].ljust(len(data), b"\0")))

    def _is_sound(self, one: JournalBlock) -> bool:
        if one.checksum is None:
            return True
        found = self._checksum(struct.pack(">I", one.sequence & 0xFFFFFFFF) + self._read(one.at))
        return one.checksum == (found if self._incompat & _CSUM_V3 else found & 0xFFFF)

    def _checksum(self, data: bytes) -> int:
        return crc32c(self._uuid + data) ^ 0xFFFFFFFF

    def _after(self, position: int) -> int:
        return position + 1 if position + 1 < self._length else self._first

    def _tags(self, data: bytes) -> list[tuple[int, bool, int | None]]:
        tags: list[tuple[int, bool, int | None]] = []
        v3, wide = bool(self._incompat & _CSUM_V3), bool(self._incompat & _INCOMPAT_64BIT)
        size = 16 if v3 else (12 if wide else 8) + (2 if self._incompat & _CSUM_V2 else 0)
        end = len(data) - (4 if self._incompat & (_CSUM_V2 | _CSUM_V3) else 0)
        position = 12
        while position + size <= end:
            if v3:
                low, flags, high, checksum = struct.unpack_from(">IIII", data, position)
            else:
                low, checksum, flags = struct.unpack_from(">IHH", data, position)
                high = struct.unpack_from(">I", data, position + 8)[0] if wide else 0
            escaped = bool(flags & _ESCAPE)
            tags.append(((high << 32 if wide else 0) | low, escaped, checksum if self._checked else None))
            position += size + (0 if flags & _SAME_UUID else 16)
            if flags & _LAST:
                break
        return tags

    def _revokes(self, data: bytes) -> list[int]:
        (used,) = struct.unpack_from(">I", data, 12)
        size, code = (8, ">Q") if self._incompat & _INCOMPAT_64BIT else (4, ">I")
        end = min(used, len(data))
        return [struct.unpack_from(code, data, at)[0] for at in range(16, end - size + 1, size)]
