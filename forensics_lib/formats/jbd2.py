"""The journal of ext3 and ext4 (jbd2): which blocks its committed transactions hold.

Format: Linux Documentation/filesystems/ext4/journal.rst. Checksums of single blocks are not verified; a transaction
counts when its commit block is there with the right sequence number, as mounting does.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from forensics_lib.errors import DamagedData
from forensics_lib.model import Origin

__all__ = ["Journal", "JournalBlock"]

_MAGIC = 0xC03B3998
_DESCRIPTOR, _COMMIT, _SUPER_V1, _SUPER_V2, _REVOKE = 1, 2, 3, 4, 5
_INCOMPAT_64BIT, _CSUM_V2, _CSUM_V3, _FAST_COMMIT = 0x2, 0x8, 0x10, 0x20
_ESCAPE, _SAME_UUID, _LAST = 0x1, 0x2, 0x8
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
    """

    block: int
    at: int
    sequence: int
    escaped: bool


class Journal:
    """The transactions that were committed and not yet written to their places.

    Args:
        read: gives one block of the journal by number.
        origin: where the journal lies.

    Attributes:
        block_size: bytes of a block.
        blocks: newest content of each block, by its number in the file system; revoked ones left out.
        transactions: number of committed transactions.
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
        if self._start and self._first < self._length and self.block_size >= 1024:
            self._walk()

    def _walk(self) -> None:
        position, sequence = self._start, self._sequence
        revoked: dict[int, int] = {}
        found: list[JournalBlock] = []
        pending: list[JournalBlock] = []
        pending_revokes: list[int] = []
        for _ in range(self._length):
            data = self._read(position)
            if len(data) < 12:
                break
            magic, kind, number = struct.unpack_from(">III", data)
            if magic != _MAGIC or number != sequence & 0xFFFFFFFF:
                break
            here, position = position, self._after(position)
            if kind == _DESCRIPTOR:
                for block, escaped in self._tags(data):
                    pending.append(JournalBlock(block, position, sequence, escaped))
                    position = self._after(position)
            elif kind == _REVOKE:
                pending_revokes += self._revokes(data)
            elif kind == _COMMIT:
                found += pending
                revoked |= dict.fromkeys(pending_revokes, sequence)
                pending, pending_revokes = [], []
                sequence += 1
                self.transactions += 1
            else:
                break
            if here == position:
                break
        self.next_sequence = sequence & 0xFFFFFFFF
        for one in found:
            if revoked.get(one.block, -1) < one.sequence:
                self.blocks[one.block] = one

    def _after(self, position: int) -> int:
        return position + 1 if position + 1 < self._length else self._first

    def _tags(self, data: bytes) -> list[tuple[int, bool]]:
        tags = []
        v3, wide = bool(self._incompat & _CSUM_V3), bool(self._incompat & _INCOMPAT_64BIT)
        size = 16 if v3 else (12 if wide else 8) + (2 if self._incompat & _CSUM_V2 else 0)
        end = len(data) - (4 if self._incompat & (_CSUM_V2 | _CSUM_V3) else 0)
        position = 12
        while position + size <= end:
            if v3:
                low, flags, high, _ = struct.unpack_from(">IIII", data, position)
            else:
                low, _, flags = struct.unpack_from(">IHH", data, position)
                high = struct.unpack_from(">I", data, position + 8)[0] if wide else 0
            tags.append(((high << 32 if wide else 0) | low, bool(flags & _ESCAPE)))
            position += size + (0 if flags & _SAME_UUID else 16)
            if flags & _LAST:
                break
        return tags

    def _revokes(self, data: bytes) -> list[int]:
        (used,) = struct.unpack_from(">I", data, 12)
        size, code = (8, ">Q") if self._incompat & _INCOMPAT_64BIT else (4, ">I")
        end = min(used, len(data))
        return [struct.unpack_from(code, data, at)[0] for at in range(16, end - size + 1, size)]
