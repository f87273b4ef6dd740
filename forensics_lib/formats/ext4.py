"""ext2, ext3 and ext4 on-disk structures: superblock, group descriptors, inodes and extended attributes.

Format: Linux Documentation/filesystems/ext4.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence

from forensics_lib.errors import DamagedData
from forensics_lib.formats.ext4_inode import INLINE_DATA, XATTR_MAGIC, ExtInode, InodeFields, inode_fields, named
from forensics_lib.formats.ext4_map import Run, runs
from forensics_lib.formats.posix_acl import acl_of_ext
from forensics_lib.model import Origin
from forensics_lib.sources.base import BytesSource, ExtentSource, Source

__all__ = ["ExtGeometry", "is_ext"]

_SUPERBLOCK = 1024
_MAGIC = 0xEF53
_GOOD_OLD_SIZE = 128
_WINDOW, _MAX_WINDOWS = 32 << 10, 256  # 8 MiB of inodes are kept
_META_BG, _64BIT = 0x10, 0x80
_SPARSE, _SPARSE_2 = 0x1, 0x200
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
_ACLS = (2, 3)
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
        maps: blocks of files by inode number, which count instead of what their inodes say.

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
        (compat, self.incompat, read_only) = struct.unpack_from("<III", data, 92)
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
        self.uuid = data[104:120]
        self.label = data[120:136].split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
        self.last_mounted = data[136:200].split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
        self.needs_recovery = bool(self.incompat & _RECOVER)
        (self._first_meta,) = struct.unpack_from("<I", data, 260) if self.incompat & _META_BG else (None,)
        self._first_block: int = first_block
        self._sparse = bool(read_only & _SPARSE)
        self._backups = struct.unpack_from("<II", data, 588) if compat & _SPARSE_2 else None
        self.maps: Mapping[int, Sequence[Run]] = {}
        self._tables: dict[int, int] = {}
        most = max(_WINDOW // self.inode_size, 1)
        self._together = next(count for count in range(most, 0, -1) if self._inodes_per_group % count == 0)
        self._windows: dict[int, tuple[bytes, int]] = {}

    def inode_offset(self, number: int) -> int:
        """Where an inode lies.

        Raises:
            DamagedData: there is no such inode.
        """
        if not 1 <= number <= self.inode_count:
            raise DamagedData(f"inode {number} does not exist", origin=self._source.origin)
        group, index = divmod(number - 1, self._inodes_per_group)
        table = self._tables.get(group)
        return (self._table(group) if table is None else table) + index * self.inode_size

    def _table(self, group: int) -> int:
        """Where the inodes of a group lie."""
        data = self._source.read_at(self.descriptor_offset(group), self._descriptor_size)
        if len(data) < self._descriptor_size:
            raise DamagedData(f"group {group} has no descriptor", origin=self._source.origin)
        low, high = struct.unpack_from("<I", data, 8)[0], 0
        if self._descriptor_size >= 64:
            high = struct.unpack_from("<I", data, 40)[0]
        self._tables[group] = int(high << 32 | low) * self.block_size
        return self._tables[group]

    def descriptor_offset(self, group: int) -> int:
        """Where the descriptor of a group lies: behind the superblock, or with `meta_bg` in the groups themselves."""
        index, inside = divmod(group, self.block_size // self._descriptor_size)
        superblock = _SUPERBLOCK // self.block_size
        block = superblock + 1 + index
        if self._first_meta is not None and index >= self._first_meta:
            first = group - inside
            block = self._first_block + first * self._blocks_per_group + self._has_superblock(first)
            if not index and superblock > self._first_block:  # as with clusters of blocks of 1024 bytes
                block += 1
        return block * self.block_size + inside * self._descriptor_size

    def _has_superblock(self, group: int) -> bool:
        """Whether a copy of the superblock lies in front of a group."""
        if self._backups is not None:
            return group == 0 or group in self._backups
        if group <= 1 or not self._sparse:
            return True
        return any(base ** round(math.log(group, base)) == group for base in (3, 5, 7))

    def inode(self, number: int) -> ExtInode:
        """An inode.

        Raises:
            DamagedData: there is no such inode, or it cannot be read.
        """
        return named(self.fields(number))

    def fields(self, number: int) -> InodeFields:
        """What `inode` gives, as a plain tuple.

        Raises:
            DamagedData: there is no such inode, or it cannot be read.
        """
        part, index = divmod(number - 1, self._together)
        window, start = self._windows.get(part) or self._window(part)
        size = self.inode_size
        at = index * size
        if at < len(window):
            return inode_fields(number, window, start + at, at, size)
        offset = self.inode_offset(number)  # there is none, or there is damage near it
        data = self._source.read_at(offset, size)
        if len(data) < size:
            raise DamagedData(f"inode {number} lies beyond the end", origin=self._source.origin, offset=offset)
        return inode_fields(number, data, offset, 0, size)

    def _window(self, part: int) -> tuple[bytes, int]:
        """Some inodes of a table that lie together, and where; fewer in front of damage, and no bytes but inodes."""
        first = part * self._together + 1
        count = min(self._together, self.inode_count - part * self._together)
        try:
            start = self.inode_offset(first)
            data = self._source.read_some(start, count * self.inode_size)
        except DamagedData:
            return b"", 0
        if len(self._windows) >= _MAX_WINDOWS:
            self._windows.clear()
        self._windows[part] = data[: len(data) // self.inode_size * self.inode_size], start
        return self._windows[part]

    def runs(self, inode: ExtInode, lost: list[tuple[int, int]] | None = None) -> tuple[Run, ...]:
        """The blocks of an inode in the order of the file; none for inline content and short links.

        Args:
            inode: which one.
            lost: gets (first, number behind the last) of blocks of the file whose place cannot be told; without it the
                first of them raises.

        Raises:
            DamagedData: their map contradicts itself.
        """
        known = self.maps.get(inode.number)
        return runs(inode, self.block, self.block_size, self.block_count, lost, known)

    def content(self, inode: ExtInode, size: int, origin: Origin) -> Source:
        """The bytes of an inode; holes and what was never written read as zeros, what the map has lost raises.

        Raises:
            DamagedData: the map of its blocks is larger than any real one.
        """
        if inode.flags & INLINE_DATA:
            data = (inode.block + self.xattrs(inode).get("system.data", b""))[:size]
            whole = BytesSource(data, origin)
            return whole if len(data) == size else ExtentSource(whole, [(0, 0, len(data))], size, origin)
        block = self.block_size
        lost: list[tuple[int, int]] = []
        runs = self.runs(inode, lost)
        extents = [(run.logical * block, run.block * block, run.count * block) for run in runs if run.written]
        if lost:
            extents = _with_gaps(extents, [(start * block, end * block) for start, end in lost], self._source.size)
        return ExtentSource(self._source, extents, size, origin)

    def block(self, number: int) -> bytes:
        """A block by its number; short or empty at the end.

        Raises:
            DamagedData: it cannot be read.
        """
        return self._source.read_at(number * self.block_size, self.block_size)

    def xattrs(self, inode: ExtInode) -> dict[str, bytes]:
        """The extended attributes of an inode, by full name; access control lists as Linux gives them to programs.

        Raises:
            DamagedData: they contradict themselves; those read before are lost.
        """
        found: dict[str, bytes] = {}
        if inode.tail:
            found |= self._entries(inode.tail, 4, 4, inode)
        if inode.acl_block:
            block = self.block(inode.acl_block)
            if block[:4] != XATTR_MAGIC or len(block) < self.block_size:
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
            found[prefix + name] = acl_of_ext(value) if index in _ACLS else value
            position += (16 + length + 3) & ~3
        return found

    def _value_in_inode(self, number: int, size: int) -> bytes:
        """A large value, which has an inode of its own (feature ea_inode)."""
        holder = self.inode(number)
        if size > _MAX_XATTR_BLOCKS * self.block_size:
            raise self._damaged(holder)
        return self.content(holder, size, self._source.origin).read_at(0, size)

    def _damaged(self, inode: ExtInode) -> DamagedData:
        return DamagedData(f"inode {inode.number} contradicts itself", origin=self._source.origin, offset=inode.offset)


def _with_gaps(
    extents: list[tuple[int, int, int]], lost: list[tuple[int, int]], behind: int
) -> list[tuple[int, int, int]]:
    """Extents, and in between such as lie behind the end of everything, so that reading them is damage."""
    found: list[tuple[int, int, int]] = []
    done = 0
    for start, place, length in sorted((*extents, *((start, behind, end - start) for start, end in lost))):
        skipped = max(done - start, 0)
        if skipped < length:
            found.append((start + skipped, place if place == behind else place + skipped, length - skipped))
            done = start + length
    return found
