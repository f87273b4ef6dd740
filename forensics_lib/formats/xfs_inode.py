"""XFS inodes: the fixed fields of versions 1 to 3, and the two forks behind them.

Format: XFS Algorithms & Data Structures (kernel.org), "On-disk Inode" and "Timestamps".
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

from forensics_lib.errors import DamagedData
from forensics_lib.formats.inode_windows import InodeWindows
from forensics_lib.formats.xfs import XfsGeometry

__all__ = ["ForkFormat", "InodeTable", "XfsInode"]

_FIELDS = ">HHBBHIII4xQQQQQQ4xIHBb6xHI4x"
_FIELDS_3 = "12xQQ16xQQ16x"  # of version 3 only
_FIELDS_COUNT_3 = 25
_MAGIC = 0x494E
_REALTIME = 0x1
_BIGTIME, _LARGE_COUNTS = 0x8, 0x10
_BIGTIME_EPOCH = (1 << 31) * 10**9


class ForkFormat(IntEnum):
    """How the space of a fork inside the inode is used."""

    DEVICE = 0
    LOCAL = 1
    EXTENTS = 2
    BTREE = 3


_EXTENTS = 2  # not to look it up for every inode of a walk


class XfsInode(NamedTuple):
    """One inode as it lies on disk.

    Attributes:
        magic: what every inode starts with.
        mode: type and permission bits; 0 in an inode that is free.
        version: 1 or 2 in file systems of version 4, 3 in those of version 5.
        format: of the data fork, as a `ForkFormat`.
        old_links: number of names in version 1.
        uid: owner's number.
        gid: group's number.
        links: number of names since version 2.
        large_extents: number of extents of the data fork, where large counts are used.
        atime: last access, as stored; `times` are easier to use.
        mtime: last change of the content.
        ctime: last change of the inode.
        size: bytes.
        blocks: blocks of all content and attributes.
        small_extents: number of extents of the data fork; where large counts are used, of the attribute fork.
        small_attribute_extents: number of extents of the attribute fork, where large counts are not used.
        fork_words: where the attribute fork starts behind the data fork's start, in units of 8 bytes; 0 for none.
        attribute_format: of the attribute fork, as a `ForkFormat`.
        flags: as the format defines them.
        generation: counts reuses of the number.
        lsn: position in the log of its last change; 0 before version 3.
        flags2: as the format defines them; 0 before version 3.
        btime: creation, as stored; 0 before version 3.
        own_number: the number that it keeps itself; not kept before version 3.
        forks: the bytes of both forks inside the inode.
        number: its number.
        offset: where it lies in the file system.
    """

    magic: int
    mode: int
    version: int
    format: int
    old_links: int
    uid: int
    gid: int
    links: int
    large_extents: int
    atime: int
    mtime: int
    ctime: int
    size: int
    blocks: int
    small_extents: int
    small_attribute_extents: int
    fork_words: int
    attribute_format: int
    flags: int
    generation: int
    lsn: int
    flags2: int
    btime: int
    own_number: int
    forks: bytes
    number: int
    offset: int

    @property
    def nlink(self) -> int:
        """Number of names."""
        return self.links if self.version > 1 else self.old_links

    @property
    def times(self) -> tuple[int, int, int, int | None]:
        """Last access, change of the content, change of the inode, and creation, in nanoseconds since 1970.

        The creation is None before version 3.
        """
        if self.flags2 & _BIGTIME:
            epoch = _BIGTIME_EPOCH
            return self.atime - epoch, self.mtime - epoch, self.ctime - epoch, self.btime - epoch
        created = _seconds(self.btime) if self.version > 2 else None
        return _seconds(self.atime), _seconds(self.mtime), _seconds(self.ctime), created

    @property
    def mtime_ns(self) -> int:
        """Last change of the content, in nanoseconds since 1970."""
        return self.mtime - _BIGTIME_EPOCH if self.flags2 & _BIGTIME else _seconds(self.mtime)

    @property
    def ctime_ns(self) -> int:
        """Last change of the inode, in nanoseconds since 1970."""
        return self.ctime - _BIGTIME_EPOCH if self.flags2 & _BIGTIME else _seconds(self.ctime)

    @property
    def extents(self) -> int:
        """Number of extents of the data fork."""
        return self.large_extents if self.flags2 & _LARGE_COUNTS else self.small_extents

    @property
    def attribute_extents(self) -> int:
        """Number of extents of the attribute fork."""
        return self.small_extents if self.flags2 & _LARGE_COUNTS else self.small_attribute_extents

    @property
    def has_attributes(self) -> bool:
        """Whether it has extended attributes; room for them is often kept where there are none."""
        if not self.fork_words:
            return False
        return self.attribute_format != _EXTENTS or self.attribute_extents > 0

    @property
    def data_fork(self) -> bytes:
        """The data fork's bytes inside the inode."""
        return self.forks[: 8 * self.fork_words] if self.fork_words else self.forks

    @property
    def attribute_fork(self) -> bytes:
        """The attribute fork's bytes inside the inode; empty without one."""
        return self.forks[8 * self.fork_words :] if self.fork_words else b""

    @property
    def device(self) -> tuple[int, int]:
        """Major and minor number of a device, which are packed as System V does."""
        value = int.from_bytes(self.forks[:4], "big")
        return value >> 18 & 0x3FFF, value & 0x3FFFF

    @property
    def is_realtime(self) -> bool:
        """Whether the content is on the realtime device."""
        return bool(self.flags & _REALTIME)


class InodeTable:
    """The inodes of a file system, by number. Those that lie together are read together, and kept for a while.

    Args:
        geometry: of the file system.
    """

    def __init__(self, geometry: XfsGeometry) -> None:
        """Prepare; nothing is read yet."""
        self._versions = (3,) if geometry.version == 5 else (1, 2)
        fields = _FIELDS + _FIELDS_3 if geometry.version == 5 else _FIELDS
        self._room = geometry.inode_size - struct.calcsize(fields)
        self._most_words = (self._room - 1) // 8
        self._unpack = struct.Struct(f"{fields}{self._room}s").unpack_from
        self._offset = geometry.inode_offset
        self._at = InodeWindows(geometry.source, geometry.inode_size).at

    def inode(self, number: int) -> XfsInode:
        """The inode of a number, in use or not.

        Raises:
            DamagedData: there is none, or it contradicts itself.
        """
        offset = self._offset(number)
        try:
            fields = self._unpack(*self._at(offset))
        except struct.error:
            raise DamagedData(f"inode {number} is not there", offset=offset) from None
        if len(fields) == _FIELDS_COUNT_3:
            inode = _new(XfsInode, fields + (number, offset))  # noqa: RUF005 - quicker
        else:
            inode = _new(XfsInode, (*fields[:-1], 0, 0, 0, number, fields[-1], number, offset))
        if (
            fields[0] != _MAGIC
            or inode.own_number != number
            or inode.fork_words > self._most_words
            or fields[2] not in self._versions
        ):
            raise _fault(inode)
        return inode

    def decode(self, number: int, data: bytes, at: int, offset: int) -> XfsInode:
        """An inode from bytes, whatever they are; `inode` says what has to be true of one.

        Args:
            number: what it is to be called.
            data: bytes with the inode.
            at: where in them it starts.
            offset: where it lies in the file system.

        Raises:
            DamagedData: the bytes are too few.
        """
        try:
            fields = self._unpack(data, at)
        except struct.error:
            raise DamagedData(f"inode {number} is not there", offset=offset) from None
        if len(fields) == _FIELDS_COUNT_3:
            return _new(XfsInode, (*fields, number, offset))
        return _new(XfsInode, (*fields[:-1], 0, 0, 0, number, fields[-1], number, offset))


def _fault(inode: XfsInode) -> DamagedData:
    place = f"where inode {inode.number} has to be"
    if inode.magic != _MAGIC:
        message = f"no inode is {place}"
    elif inode.own_number != inode.number:
        message = f"inode {inode.own_number} is {place}"
    else:
        message = f"inode {inode.number} is of version {inode.version}, its attributes start at {8 * inode.fork_words}"
    return DamagedData(message, offset=inode.offset)


_new = tuple.__new__


def _seconds(stored: int) -> int:
    """A time of 32 bits of seconds, signed, and 32 bits of nanoseconds."""
    return ((stored >> 32 ^ 0x80000000) - 0x80000000) * 1_000_000_000 + (stored & 0xFFFFFFFF)
