"""XFS inodes: the fixed fields of versions 1 to 3, and where their two forks lie.

Format: XFS Algorithms & Data Structures (kernel.org), "On-disk Inode" and "Timestamps".
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

from forensics_lib.errors import DamagedData

__all__ = ["ForkFormat", "XfsInode", "decode_inode"]

_FIELDS = struct.Struct(">HHBBHIII4xQqqqQQ4xIHBb6xHI4x" + "12xQQ16xqQ")  # versions 1 and 2 end where the gap is
_MAGIC = 0x494E
_FORKS = 100
_FORKS_3 = 176
_REALTIME = 0x1
_REFLINK, _BIGTIME, _LARGE_COUNTS = 0x2, 0x8, 0x10
_BIGTIME_EPOCH = (1 << 31) * 10**9


class ForkFormat(IntEnum):
    """How the space of a fork inside the inode is used."""

    DEVICE = 0
    LOCAL = 1
    EXTENTS = 2
    BTREE = 3


class XfsInode(NamedTuple):
    """One inode as it lies on disk.

    Attributes:
        number: its number.
        offset: where it lies in the file system.
        mode: type and permission bits; 0 in an inode that is free.
        version: 1 or 2 in file systems of version 4, 3 in those of version 5.
        format: of the data fork, as a `ForkFormat`.
        uid: owner's number.
        gid: group's number.
        nlink: number of names.
        atime_ns: last access, nanoseconds since 1970.
        mtime_ns: last change of the content.
        ctime_ns: last change of the inode.
        btime_ns: creation; None before version 3.
        size: bytes.
        blocks: blocks of all content and attributes.
        extents: number of extents of the data fork.
        attribute_extents: number of extents of the attribute fork.
        fork_offset: where the attribute fork starts behind the start of the data fork; 0 for none.
        attribute_format: of the attribute fork, as a `ForkFormat`.
        flags: as the format defines them.
        flags2: further ones of version 3.
        generation: counts reuses of the number.
        lsn: when it was last written, as a position in the log; 0 before version 3.
        own_number: the number it keeps itself; its own one before version 3.
        raw: all bytes of the inode.
    """

    number: int
    offset: int
    mode: int
    version: int
    format: int
    uid: int
    gid: int
    nlink: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    btime_ns: int | None
    size: int
    blocks: int
    extents: int
    attribute_extents: int
    fork_offset: int
    attribute_format: int
    flags: int
    flags2: int
    generation: int
    lsn: int
    own_number: int
    raw: bytes

    @property
    def data_fork(self) -> bytes:
        """The data fork's bytes inside the inode."""
        start = _FORKS_3 if self.version > 2 else _FORKS
        return self.raw[start : start + self.fork_offset] if self.fork_offset else self.raw[start:]

    @property
    def attribute_fork(self) -> bytes:
        """The attribute fork's bytes inside the inode; empty without one."""
        start = _FORKS_3 if self.version > 2 else _FORKS
        return self.raw[start + self.fork_offset :] if self.fork_offset else b""

    @property
    def device(self) -> tuple[int, int]:
        """Major and minor number of a device, which are kept as System V does."""
        (value,) = struct.unpack_from(">I", self.data_fork.ljust(4, b"\0"))
        return value >> 18 & 0x3FFF, value & 0x3FFFF

    @property
    def is_realtime(self) -> bool:
        """Whether the content is on the realtime device."""
        return bool(self.flags & _REALTIME)

    @property
    def is_shared(self) -> bool:
        """Whether blocks of the content may be shared with other files."""
        return bool(self.flags2 & _REFLINK)


def decode_inode(data: bytes, at: int, size: int, number: int, offset: int) -> XfsInode:
    """The inode at a position.

    Args:
        data: bytes around it.
        at: its position in them.
        size: bytes of an inode in this file system.
        number: its number.
        offset: where it lies in the file system, which it only remembers.

    Raises:
        DamagedData: there is no inode, or its forks cannot be where it says.
    """
    raw = data[at : at + size]
    if len(raw) < size:
        raise DamagedData(f"inode {number} is not there", offset=offset)
    (
        magic, mode, version, format_, old_nlink, uid, gid, nlink, large_extents, atime, mtime, ctime, length, blocks,
        extents, attribute_extents, fork_offset, attribute_format, flags, generation, lsn, flags2, btime, own_number,
    ) = _FIELDS.unpack_from(raw)  # fmt: skip
    created: int | None = None
    if version > 2:
        if flags2 & _BIGTIME:
            mask = 0xFFFFFFFFFFFFFFFF
            atime, mtime, ctime, created = (
                (atime & mask) - _BIGTIME_EPOCH,
                (mtime & mask) - _BIGTIME_EPOCH,
                (ctime & mask) - _BIGTIME_EPOCH,
                (btime & mask) - _BIGTIME_EPOCH,
            )
        else:
            atime, mtime, ctime, created = _seconds(atime), _seconds(mtime), _seconds(ctime), _seconds(btime)
        if flags2 & _LARGE_COUNTS:
            extents, attribute_extents = large_extents, extents
        room = size - _FORKS_3
    else:
        atime, mtime, ctime = _seconds(atime), _seconds(mtime), _seconds(ctime)
        lsn, flags2, own_number = 0, 0, number
        nlink = old_nlink if version == 1 else nlink
        room = size - _FORKS
    if magic != _MAGIC or not 1 <= version <= 3 or fork_offset * 8 >= room:
        reason = "no inode is there" if magic != _MAGIC else "it contradicts itself"
        raise DamagedData(f"inode {number}: {reason}", offset=offset)
    return XfsInode(
        number, offset, mode, version, format_, uid, gid, nlink, atime, mtime, ctime, created, length, blocks,
        extents, attribute_extents, fork_offset * 8, attribute_format, flags, flags2, generation, lsn, own_number, raw,
    )  # fmt: skip


def _seconds(stored: int) -> int:
    return (stored >> 32) * 1_000_000_000 + (stored & 0xFFFFFFFF)
