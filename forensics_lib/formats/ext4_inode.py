"""One inode of ext2, ext3 or ext4 from its bytes, wherever they lie.

Format: Linux Documentation/filesystems/ext4/inodes.rst.
"""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

__all__ = ["ExtInode", "decode_inode"]

_OLD_SIZE = 128
_FIXED = Struct("<HHIIIIIHH4xI4x60sIII6xHHH4x")
_TIMES = Struct("<H2xIIIII")
_DEVICE = Struct("<II")
_ALL_TIMES = 24  # bytes of them, as extra_isize counts
_SIZED = (0x4000, 0x8000)


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
        tail: bytes behind the fixed fields, which hold extended attributes.
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
        offset: where they lie; kept for the origin.
    """
    fixed = _FIXED.unpack_from(data)
    mode, uid, size, atime, ctime, mtime, dtime, gid, nlink, flags, block, generation, acl = fixed[:13]
    size_high, acl_high, uid_high, gid_high = fixed[13:]
    extra, ctime_more, mtime_more, atime_more, btime, btime_more = 0, 0, 0, 0, 0, 0
    if len(data) >= _OLD_SIZE + _TIMES.size:
        extra, ctime_more, mtime_more, atime_more, btime, btime_more = _TIMES.unpack_from(data, _OLD_SIZE)
    if extra > len(data) - _OLD_SIZE:
        extra = 0
    if extra < _ALL_TIMES:  # a part of the fields is something else
        ctime_more, mtime_more, atime_more = (
            more if extra >= end else 0 for more, end in ((ctime_more, 8), (mtime_more, 12), (atime_more, 16))
        )
    return ExtInode(
        number,
        mode,
        uid | uid_high << 16,
        gid | gid_high << 16,
        size | size_high << 32 if mode & 0xF000 in _SIZED else size,
        _nanoseconds(atime, atime_more),
        _nanoseconds(ctime, ctime_more),
        _nanoseconds(mtime, mtime_more),
        _nanoseconds(btime, btime_more) if extra >= _ALL_TIMES else None,
        dtime,
        nlink,
        flags,
        generation,
        block,
        acl | acl_high << 32,
        data[_OLD_SIZE + extra :] if extra else b"",
        offset,
    )


def _nanoseconds(seconds: int, more: int) -> int:
    """A time from its seconds, signed, and its field of two bits of epoch and the nanoseconds."""
    signed = seconds - (1 << 32) if seconds & 0x80000000 else seconds
    return (signed + ((more & 0x3) << 32)) * 1_000_000_000 + (more >> 2)
