"""Block groups of ext2, ext3 and ext4: which blocks are in use, and where inodes lie.

Format: Linux Documentation/filesystems/ext4/blockgroup.rst, bitmaps.rst and group_descr.rst.
"""

from __future__ import annotations

import bisect
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from forensics_lib._crc32c import crc32c
from forensics_lib.errors import DamagedData
from forensics_lib.formats.ext4 import ExtGeometry
from forensics_lib.sources.base import Source

__all__ = ["BlockGroups", "InodeTable"]

_INODE_UNINIT, _BLOCK_UNINIT = 0x1, 0x2
_64BIT, _CSUM_SEED = 0x80, 0x2000
_GDT_CSUM, _BIGALLOC, _METADATA_CSUM = 0x10, 0x200, 0x400
_META_BG, _SPARSE_SUPER, _RESIZE_INODE, _SPARSE_SUPER2 = 0x10, 0x1, 0x10, 0x200
_MAX_GROUPS = 1 << 24
_ALL = -1


@dataclass(frozen=True, slots=True)
class InodeTable:
    """The inodes of a group.

    Attributes:
        first: number of the first inode.
        used: how many from the first on were ever used.
        block: where the table starts.
        blocks: its length.
    """

    first: int
    used: int
    block: int
    blocks: int


class BlockGroups:
    """The groups of a file system: allocation and inode tables.

    Attributes:
        checksums: whether metadata carries checksums.
        seed: what checksums of metadata start with.

    Raises:
        DamagedData: the superblock or a descriptor contradicts itself.
    """

    def __init__(self, source: Source) -> None:
        """Read the superblock and all group descriptors."""
        self._source = source
        data = source.read_at(1024, 1024)
        if len(data) < 1024:
            raise DamagedData("no ext superblock", origin=source.origin, offset=1024)
        inodes, blocks, _, _, _, self._first_block, log_size, log_cluster = struct.unpack_from("<8I", data)
        per_group, _, inodes_per_group = struct.unpack_from("<III", data, 32)
        revision = struct.unpack_from("<I", data, 76)[0]
        optional, incompat, compatible = struct.unpack_from("<III", data, 92)
        inode_size = struct.unpack_from("<H", data, 88)[0] if revision else 128
        size = struct.unpack_from("<H", data, 254)[0] if incompat & _64BIT else 32
        if log_size > 6 or not per_group or not inodes_per_group or not 128 <= inode_size <= 1024 << log_size:
            raise DamagedData("ext superblock with impossible geometry", origin=source.origin, offset=1024)
        self.block_size = 1024 << log_size
        self.block_count = blocks | (struct.unpack_from("<I", data, 336)[0] << 32 if incompat & _64BIT else 0)
        self.checksums = bool(compatible & _METADATA_CSUM)
        self.seed: int = (
            struct.unpack_from("<I", data, 624)[0] ^ 0xFFFFFFFF if incompat & _CSUM_SEED else crc32c(data[104:120])
        )
        self.inode_size: int = inode_size
        self._per_group = per_group
        self._inodes_per_group: int = inodes_per_group
        self._cluster_log = min(max(log_cluster - log_size, 0), 20) if compatible & _BIGALLOC else 0
        self._lazy = bool(compatible & (_GDT_CSUM | _METADATA_CSUM))
        count = min(max(self.block_count - self._first_block, 0) // per_group + 1, _MAX_GROUPS)
        self._descriptors = self._read(count, max(size, 32))
        reserved = struct.unpack_from("<H", data, 206)[0] if optional & _RESIZE_INODE else 0
        described = (count * max(size, 32) + self.block_size - 1) // self.block_size
        self._copied = 2 if incompat & _META_BG else 1 + described + reserved
        self._sparse = bool(compatible & _SPARSE_SUPER)
        self._backups = struct.unpack_from("<II", data, 588) if optional & _SPARSE_SUPER2 else None
        table_blocks = (inodes_per_group * inode_size + self.block_size - 1) // self.block_size
        self.tables: list[InodeTable] = []
        for group, (_, _, table, flags, unused) in enumerate(self._descriptors):
            first = group * inodes_per_group + 1
            if first > inodes:
                break
            used = inodes_per_group
            if self._lazy:
                used = 0 if flags & _INODE_UNINIT else max(inodes_per_group - unused, 0)
            self.tables.append(InodeTable(first, used, table, table_blocks))
        self._by_block = sorted(self.tables, key=lambda table: table.block)
        self._starts = [table.block for table in self._by_block]
        self._bits = lru_cache(maxsize=512)(self._bitmap)

    def table_of(self, block: int) -> tuple[InodeTable, int] | None:
        """The inode table a block belongs to, and the number of the block's first inode; None for other blocks."""
        index = bisect.bisect_right(self._starts, block) - 1
        if index < 0 or block >= self._starts[index] + self._by_block[index].blocks:
            return None
        table = self._by_block[index]
        return table, table.first + (block - table.block) * (self.block_size // self.inode_size)

    def group_of(self, number: int) -> int:
        """The group of an inode."""
        return (number - 1) // self._inodes_per_group

    def free_parts(self, block: int, count: int) -> Iterator[tuple[int, int]]:
        """(first block, number of blocks) of those of some blocks that are unallocated, in order."""
        end = min(block + count, self.block_count)
        block = max(block, self._first_block)
        while block < end:
            group, index = divmod(block - self._first_block, self._per_group)
            here = min(end - block, self._per_group - index)
            for start, stop in self._clear(group, index, index + here):
                yield block + start - index, stop - start
            block += here

    def _clear(self, group: int, start: int, end: int) -> Iterator[tuple[int, int]]:
        """The unallocated parts of a range of blocks of a group."""
        log = self._cluster_log
        first, last = start >> log, (end - 1 >> log) + 1
        width = last - first
        bits = self._bits(group) >> first & (1 << width) - 1
        if not bits:
            yield start, end
            return
        text = format(bits, f"0{width}b")[::-1]
        position = text.find("0")
        while position >= 0:
            stop = text.find("1", position)
            stop = width if stop < 0 else stop
            yield max(first + position << log, start), min(first + stop << log, end)
            position = text.find("0", stop)

    def _bitmap(self, group: int) -> int:
        """Allocation of a group as bits; all set when it cannot be read, so that nothing in it counts as free."""
        if group >= len(self._descriptors):
            return _ALL
        bitmap, _, _, flags, _ = self._descriptors[group]
        if self._lazy and flags & _BLOCK_UNINIT:
            return self._untouched(group)
        try:
            data = self._source.read_at(bitmap * self.block_size, self.block_size)
        except DamagedData:
            return _ALL
        return int.from_bytes(data, "little") if len(data) == self.block_size else _ALL

    def _untouched(self, group: int) -> int:
        """Allocation of a group whose bitmap was never written: nothing but the file system's own blocks."""
        first = self._first_block + group * self._per_group
        bitmap, inode_bitmap, table, _, _ = self._descriptors[group]
        inode_blocks = self.tables[group].blocks if group < len(self.tables) else 0
        own = [(bitmap, 1), (inode_bitmap, 1), (table, inode_blocks)]
        own += [(first, self._copied)] if self._has_copy(group) else []
        bits = 0
        for block, count in own:
            start = max(block - first, 0) >> self._cluster_log
            stop = (min(block + count - first, self._per_group) - 1 >> self._cluster_log) + 1
            bits |= (1 << stop) - (1 << start) if start < stop else 0
        return bits

    def _has_copy(self, group: int) -> bool:
        """Whether a copy of superblock and descriptors starts the group."""
        if self._backups is not None:
            return group == 0 or group in self._backups
        if not self._sparse or group <= 1:
            return True
        return any(base**power == group for base in (3, 5, 7) for power in range(1, 16))

    def _read(self, count: int, size: int) -> list[tuple[int, int, int, int, int]]:
        """(block bitmap, inode bitmap, inode table, flags, inodes never used) of every group."""
        per_block = self.block_size // size
        if not per_block:
            raise DamagedData("group descriptors larger than a block", origin=self._source.origin, offset=1024)
        geometry = ExtGeometry(self._source)
        found: list[tuple[int, int, int, int, int]] = []
        for start in range(0, count, per_block):
            data = self._source.read_at(geometry.descriptor_offset(start), self.block_size)
            for position in range(0, min(per_block, count - start) * size, size):
                if position + size > len(data):
                    return found
                bitmap, inodes, table = struct.unpack_from("<III", data, position)
                (flags,) = struct.unpack_from("<H", data, position + 18)
                (unused,) = struct.unpack_from("<H", data, position + 28)
                if size >= 64:
                    bitmap_high, inodes_high, table_high = struct.unpack_from("<III", data, position + 32)
                    bitmap, inodes, table = (
                        bitmap | bitmap_high << 32,
                        inodes | inodes_high << 32,
                        table | table_high << 32,
                    )
                    unused |= struct.unpack_from("<H", data, position + 50)[0] << 16
                found.append((bitmap, inodes, table, flags, unused))
        return found
