"""One inode of ext2, ext3 or ext4 from its bytes, wherever they lie.

Format: Linux Documentation/filesystems/ext4/inodes.rst.
"""

from __future__ import annotations

import struct

from forensics_lib.formats.ext4 import ExtInode

__all__ = ["decode_inode"]

_OLD_SIZE = 128
_EPOCH_BITS = 0x3
_SIZED = (0x4000, 0x8000)


def decode_inode(number: int, data: bytes, offset: int) -> ExtInode:
    """An inode from its 128 bytes or more.

    Args:
        number: its number.
        data: its bytes.
        offset: where they lie; kept for the origin.
    """
    mode, uid, size, atime, ctime, mtime, dtime, gid, nlink = struct.unpack_from("<HHIIIIIHH", data)
    (flags,) = struct.unpack_from("<I", data, 32)
    generation, acl, size_high = struct.unpack_from("<III", data, 100)
    acl_high, uid_high, gid_high = struct.unpack_from("<HHH", data, 118)
    extra = struct.unpack_from("<H", data, _OLD_SIZE)[0] if len(data) >= _OLD_SIZE + 4 else 0
    extra = extra if extra <= len(data) - _OLD_SIZE else 0

    def nanoseconds(seconds: int, field: int) -> int:
        signed = seconds - (1 << 32) if seconds & 0x80000000 else seconds
        if extra < field + 4 - _OLD_SIZE:
            return signed * 10**9
        (more,) = struct.unpack_from("<I", data, field)
        return int((signed + ((more & _EPOCH_BITS) << 32)) * 10**9 + (more >> 2))

    return ExtInode(
        number=number,
        mode=mode,
        uid=uid | uid_high << 16,
        gid=gid | gid_high << 16,
        size=size | (size_high << 32 if mode & 0xF000 in _SIZED else 0),
        atime_ns=nanoseconds(atime, 140),
        ctime_ns=nanoseconds(ctime, 132),
        mtime_ns=nanoseconds(mtime, 136),
        btime_ns=nanoseconds(struct.unpack_from("<I", data, 144)[0], 148) if extra >= 24 else None,
        dtime=dtime,
        nlink=nlink,
        flags=flags,
        generation=generation,
        block=data[40:100],
        acl_block=acl | acl_high << 32,
        tail=data[_OLD_SIZE + extra :] if extra else b"",
        offset=offset,
    )
