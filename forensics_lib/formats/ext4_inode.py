"""One inode of ext2, ext3 or ext4 from its bytes, wherever they lie.

Format: Linux Documentation/filesystems/ext4/inodes.rst.
"""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple, TypeAlias

__all__ = ["EXTENTS", "INLINE_DATA", "XATTR_MAGIC", "ExtInode", "InodeFields", "decode_inode", "inode_fields", "named"]

InodeFields: TypeAlias = tuple[
    int, int, int, int, int, int, int, int, int | None, int, int, int, int, bytes, int, bytes, int
]
"""What an `ExtInode` holds, without the names."""

INLINE_DATA, EXTENTS = 0x10000000, 0x80000
"""Flags of inodes: content in the inode itself, and a tree of extents."""
XATTR_MAGIC = b"\0\0\x02\xea"
"""What extended attributes begin with."""
_LAST_OF_MAGIC = XATTR_MAGIC[3]

_OLD_SIZE = 128
_OLD_FIELDS = Struct("<HHIiiiIHH4xI4x60sIII6xHHH4x")
_FIELDS = Struct(_OLD_FIELDS.format + "H2xIIIiI")
_unpack = _FIELDS.unpack_from
_NO_TIMES = (0, 0, 0, 0, 0, 0)
_DEVICE = Struct("<II")
_ALL_TIMES = 24  # bytes of them, as extra_isize counts
_SIZED = (0x4000, 0x8000)
_EPOCH = 3  # the bits in front of 30 bits of nanoseconds that carry seconds on beyond 2038
_SECOND = 1_000_000_000


class ExtInode(NamedTuple):
    """One inode as it lies on disk.

    Attributes:
        number: its number.
        mode: type and permission bits.
        uid: owner's number.
        gid: group's number.
        size: bytes.
        atime_ns: last access, nanoseconds since 1970.
        ctime_ns: last change of the inode.
        mtime_ns: last change of the content.
        btime_ns: creation; None in inodes of 128 bytes.
        dtime: seconds since 1970 of the deletion; 0 for inodes in use.
        nlink: number of names.
        flags: as Linux defines them.
        generation: counts reuses of the number.
        block: the 60 bytes that hold extents, block numbers, a short link or a device.
        acl_block: block of further extended attributes; 0 for none.
        tail: extended attributes behind the fixed fields; empty where there are none.
        offset: where the inode lies in the file system.
    """

    number: int
    mode: int
    uid: int
    gid: int
    size: int
    atime_ns: int
    ctime_ns: int
    mtime_ns: int
    btime_ns: int | None
    dtime: int
    nlink: int
    flags: int
    generation: int
    block: bytes
    acl_block: int
    tail: bytes
    offset: int

    @property
    def rdev(self) -> tuple[int, int]:
        """Major and minor number of a device: the old 16-bit form, else the new one."""
        old, new = _DEVICE.unpack_from(self.block)
        if old:
            return (old >> 8) & 0xFF, old & 0xFF
        return (new & 0xFFF00) >> 8, (new & 0xFF) | ((new >> 12) & 0xFFF00)


def decode_inode(number: int, data: bytes, offset: int) -> ExtInode:
    """An inode from its 128 bytes or more.

    Args:
        number: its number.
        data: its bytes.
        offset: where they lie in the file system; kept for the origin.
    """
    return named(inode_fields(number, data, offset, 0, len(data)))


def named(fields: InodeFields) -> ExtInode:
    """An inode of its fields."""
    return _new(ExtInode, fields)


def inode_fields(number: int, data: bytes, offset: int, at: int, length: int) -> InodeFields:
    """What an `ExtInode` holds, as a plain tuple: a walk takes it apart at once.

    Args:
        number: its number.
        data: holds its bytes.
        offset: where they lie in the file system; kept for the origin.
        at: where they begin in `data`.
        length: how many they are, 128 or more.
    """
    room = length - _OLD_SIZE
    (
        mode,
        uid,
        size,
        atime,
        ctime,
        mtime,
        dtime,
        gid,
        nlink,
        flags,
        block,
        generation,
        acl,
        size_high,
        acl_high,
        uid_high,
        gid_high,
        extra,
        ctime_more,
        mtime_more,
        atime_more,
        btime,
        btime_more,
    ) = _unpack(data, at) if room >= _ALL_TIMES else _OLD_FIELDS.unpack_from(data, at) + _NO_TIMES
    created: int | None = None
    if _ALL_TIMES <= extra <= room:
        created = (btime + ((btime_more & _EPOCH) << 32)) * _SECOND + (btime_more >> 2)
    else:
        extra = extra if extra <= room else 0
        ctime_more, mtime_more, atime_more = (  # a part of the fields is something else
            more if extra >= needed else 0 for more, needed in ((ctime_more, 8), (mtime_more, 12), (atime_more, 16))
        )
    if (ctime_more | mtime_more | atime_more) & _EPOCH:
        ctime += (ctime_more & _EPOCH) << 32
        mtime += (mtime_more & _EPOCH) << 32
        atime += (atime_more & _EPOCH) << 32
    tail = b""
    if extra and extra + 4 <= room and data[at + _OLD_SIZE + extra + 3] == _LAST_OF_MAGIC:  # few have any
        tail = data[at + _OLD_SIZE + extra : at + length]
        tail = tail if tail.startswith(XATTR_MAGIC) else b""
    return (
        number,
        mode,
        uid | uid_high << 16 if uid_high else uid,
        gid | gid_high << 16 if gid_high else gid,
        size | size_high << 32 if size_high and mode & 0xF000 in _SIZED else size,
        atime * _SECOND + (atime_more >> 2),
        ctime * _SECOND + (ctime_more >> 2),
        mtime * _SECOND + (mtime_more >> 2),
        created,
        dtime,
        nlink,
        flags,
        generation,
        block,
        acl | acl_high << 32 if acl_high else acl,
        tail,
        offset,
    )


_new = tuple.__new__
