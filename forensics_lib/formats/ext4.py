"""ext2, ext3 and ext4 on-disk structures: superblock, group descriptors, inodes and extended attributes.

Format: Linux Documentation/filesystems/ext4. Only what a reader of metadata needs; directories and file content are
read by The Sleuth Kit.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from forensics_lib.errors import DamagedData
from forensics_lib.formats.ext4_inode import ExtInode, decode_inode
from forensics_lib.sources.base import Source

__all__ = ["ExtGeometry", "is_ext"]

_SUPERBLOCK = 1024
_MAGIC = 0xEF53
_XATTR_MAGIC = 0xEA020000
_GOOD_OLD_SIZE = 128
_64BIT, _EXTRA_ISIZE_MIN = 0x80, 32
INLINE_DATA, EXTENTS = 0x10000000, 0x80000
_RECOVER = 0x4
_PREFIXES = {
    0: "",
    1: "user.",
    2: "system.posix_acl_access",
    3: "system.posix_acl_default",
    4: "trusted.",
    6: "security.",
    7: "system.",
    8: "system.richacl",
}
_WINDOW = 4096
_MAX_XATTR_BLOCKS = 64


def is_ext(source: Source) -> bool:
    """Whether a source starts with the superblock of this family."""
    return source.read_at(_SUPERBLOCK + 56, 2) == struct.pack("<H", _MAGIC)


class ExtGeometry:
    """The superblock, and with it the place of every inode.

    Attributes:
        block_size: bytes of a block.
        inode_count: number of inodes.
        label: name of the file system.
        uuid: 16 bytes.
        needs_recovery: the journal holds changes that are not in their places yet.
        last_mounted: where it was mounted last.
        mounted_s: seconds since 1970 of the last mount.
        written_s: seconds since 1970 of the last write.
        journal_inode: inode of the journal; 0 for none.

    Raises:
        DamagedData: the superblock contradicts itself.
    """

    inode_count: int
    mounted_s: int
    written_s: int
    incompat: int
    state: int
    journal_inode: int
    _blocks_per_group: int
    _inodes_per_group: int

    def __init__(self, source: Source) -> None:
        """Read the superblock."""
        self._source = source
        data = source.read_at(_SUPERBLOCK, 1024)
        if len(data) < 1024 or data[56:58] != struct.pack("<H", _MAGIC):
            raise DamagedData("no ext superblock", origin=source.origin, offset=_SUPERBLOCK)
        (self.inode_count, blocks) = struct.unpack_from("<II", data)
        (first_block, log_size) = struct.unpack_from("<II", data, 20)
        (self._blocks_per_group,) = struct.unpack_from("<I", data, 32)
        (self._inodes_per_group, self.mounted_s, self.written_s) = struct.unpack_from("<III", data, 40)
        (revision,) = struct.unpack_from("<I", data, 76)
        (_compat, self.incompat, _ro) = struct.unpack_from("<III", data, 92)
        (inode_size,) = struct.unpack_from("<H", data, 88)
        (self.state,) = struct.unpack_from("<H", data, 58)
        (descriptor_size,) = struct.unpack_from("<H", data, 254)
        (self.journal_inode,) = struct.unpack_from("<I", data, 224)
        if log_size > 6 or not self._inodes_per_group or not self._blocks_per_group:
            raise DamagedData("ext superblock with impossible geometry", origin=source.origin, offset=_SUPERBLOCK)
        self.block_size: int = 1024 << log_size
        self.block_count = blocks | (struct.unpack_from("<I", data, 336)[0] << 32 if self.incompat & _64BIT else 0)
        self.inode_size: int = inode_size if revision and inode_size >= _GOOD_OLD_SIZE else _GOOD_OLD_SIZE
        if self.inode_size > self.block_size:
            raise DamagedData("ext inodes larger than blocks", origin=source.origin, offset=_SUPERBLOCK)
        self._descriptor_size = max(32, descriptor_size) if self.incompat & _64BIT else 32
        self._descriptors = (first_block + 1) * self.block_size
        self.uuid = data[104:120]
        self.label = data[120:136].split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
        self.last_mounted = data[136:200].split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
        self.needs_recovery = bool(self.incompat & _RECOVER)
        self._tables: dict[int, int] = {}
        self._window = (0, b"")

    def inode_offset(self, number: int) -> int:
        """Where an inode lies.

        Raises:
            DamagedData: there is no such inode.
        """
        if not 1 <= number <= self.inode_count:
            raise DamagedData(f"inode {number} does not exist", origin=self._source.origin)
        group, index = divmod(number - 1, self._inodes_per_group)
        table = self._tables.get(group)
        if table is None:
            data = self._source.read_at(self._descriptors + group * self._descriptor_size, self._descriptor_size)
            if len(data) < self._descriptor_size:
                raise DamagedData(f"group {group} has no descriptor", origin=self._source.origin)
            low, high = struct.unpack_from("<I", data, 8)[0], 0
            if self._descriptor_size >= 64:
                high = struct.unpack_from("<I", data, 40)[0]
            table = self._tables[group] = int(high << 32 | low)
        return table * self.block_size + index * self.inode_size

    def inode(self, number: int) -> ExtInode:
        """An inode.

        Raises:
            DamagedData: there is no such inode, or it cannot be read.
        """
        offset = self.inode_offset(number)
        start, window = self._window
        if not start <= offset <= start + len(window) - self.inode_size:
            start, window = self._window = offset, self._source.read_at(offset, _WINDOW)
        data = window[offset - start : offset - start + self.inode_size]
        if len(data) < self.inode_size:
            raise DamagedData(f"inode {number} lies beyond the end", origin=self._source.origin, offset=offset)
        return decode_inode(number, data, offset)

    def xattrs(self, inode: ExtInode) -> dict[str, bytes]:
        """The extended attributes of an inode, by full name.

        Raises:
            DamagedData: they contradict themselves; those read before are lost.
        """
        found: dict[str, bytes] = {}
        if inode.tail[:4] == struct.pack("<I", _XATTR_MAGIC):
            found |= self._entries(inode.tail, 4, 4, inode)
        if inode.acl_block:
            block = self._source.read_at(inode.acl_block * self.block_size, self.block_size)
            if block[:4] != struct.pack("<I", _XATTR_MAGIC) or len(block) < self.block_size:
                raise self._damaged(inode)
            found |= self._entries(block, 32, 0, inode)
        return found

    def _entries(self, area: bytes, start: int, base: int, inode: ExtInode) -> dict[str, bytes]:
        """Attributes of an area; values lie relative to `base`, or in an inode of their own."""
        found: dict[str, bytes] = {}
        position = start
        while position + 4 <= len(area) and area[position : position + 4] != b"\0\0\0\0":
            if position + 16 > len(area):
                raise self._damaged(inode)
            length, index, offset, value_inode, size, _hash = struct.unpack_from("<BBHIII", area, position)
            name = area[position + 16 : position + 16 + length].decode("utf-8", "surrogateescape")
            if value_inode:
                value = self._value_in_inode(value_inode, size)
            else:
                value = area[base + offset : base + offset + size]
                if len(value) < size:
                    raise self._damaged(inode)
            prefix = _PREFIXES.get(index, f"unknown{index}.")
            found[prefix + name] = value
            position += (16 + length + 3) & ~3
        return found

    def _value_in_inode(self, number: int, size: int) -> bytes:
        """A large value, which has an inode of its own (feature ea_inode)."""
        holder = self.inode(number)
        if size > _MAX_XATTR_BLOCKS * self.block_size or not holder.flags & EXTENTS:
            raise self._damaged(holder)
        data = b"".join(
            self._source.read_at(physical * self.block_size, length * self.block_size)
            for _, physical, length in self.extents(holder)
        )
        return data[:size]

    def extents(self, inode: ExtInode) -> Iterator[tuple[int, int, int]]:
        """(logical block, physical block, number of blocks) of an inode with an extent tree; unwritten ones left out.

        Raises:
            DamagedData: the tree contradicts itself.
        """
        stack = [(inode.block, 5)]
        nodes = 0
        while stack:
            node, depth_left = stack.pop()
            magic, entries, _max, depth = struct.unpack_from("<HHHH", node)
            nodes += 1
            if magic != 0xF30A or depth > depth_left or 12 + 12 * entries > len(node) or nodes > 1 << 20:
                raise self._damaged(inode)
            if depth == 0:
                for index in range(entries):
                    logical, length, high, low = struct.unpack_from("<IHHI", node, 12 + 12 * index)
                    if length <= 0x8000:
                        yield logical, high << 32 | low, length
                continue
            for index in reversed(range(entries)):
                _logical, low, high = struct.unpack_from("<IIH", node, 12 + 12 * index)
                child = self._source.read_at((high << 32 | low) * self.block_size, self.block_size)
                if len(child) < self.block_size:
                    raise self._damaged(inode)
                stack.append((child, depth - 1))

    def _damaged(self, inode: ExtInode) -> DamagedData:
        return DamagedData(f"inode {inode.number} contradicts itself", origin=self._source.origin, offset=inode.offset)
