"""Fast commits of ext4: small records behind the log of what changed since the last transaction.

Each carries copies of inodes and the names that were made and removed. The area is written from its start on after
every transaction, so that records of older ones are left behind the newest.

Format: Linux ``fs/ext4/fast_commit.h``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from forensics_lib.formats.crc32c import crc32c

__all__ = ["FastInode", "FastName", "read_fast_commits"]

_TAG = struct.Struct("<HH")
_CREATE, _LINK, _UNLINK, _INODE, _TAIL = 3, 4, 5, 6, 8
_KNOWN = range(1, 10)
_SMALLEST_INODE = 128
_NO_SEED = 0xFFFFFFFF  # the checksum begins with 0, without the inversion that is usual


@dataclass(frozen=True, slots=True)
class FastInode:
    """A copy of an inode.

    Attributes:
        number: of the inode.
        data: its bytes, without what its table has behind the extra fields.
        sequence: number of the transaction that was under way.
        at: where it lies in the area.
    """

    number: int
    data: bytes
    sequence: int
    at: int


@dataclass(frozen=True, slots=True)
class FastName:
    """A name that was made or removed.

    Attributes:
        parent: inode number of the directory.
        inode: number that the name stands for.
        name: as bytes.
        removed: whether it was removed.
        sequence: number of the transaction that was under way.
        data: the inode as the same commit has it; empty when that has none.
    """

    parent: int
    inode: int
    name: bytes
    removed: bool
    sequence: int
    data: bytes = b""


def read_fast_commits(area: bytes, block_size: int) -> Iterator[FastInode | FastName]:
    """The records of all fast commits whose checksum is right, in the order of their places.

    Args:
        area: the blocks behind the log.
        block_size: bytes of a block; each commit begins with one.
    """
    for start in range(0, len(area), block_size):
        yield from _commit(area, start)


def _commit(area: bytes, at: int) -> list[FastInode | FastName]:
    """The records of the commit that begins at a place; none when none does, or it is torn."""
    parts: list[tuple[int, int, int]] = []
    checksum = _NO_SEED
    while at + _TAG.size <= len(area):
        tag, length = _TAG.unpack_from(area, at)
        start, end = at + _TAG.size, at + _TAG.size + length
        if tag not in _KNOWN or end > len(area):
            return []
        if tag == _TAIL:
            if length < 8 or not parts:
                return []
            sequence, stored = struct.unpack_from("<II", area, start)
            right = crc32c(area[at : start + 4], checksum) ^ 0xFFFFFFFF == stored
            return list(_records(area, parts, sequence)) if right else []
        checksum = crc32c(area[at:end], checksum)
        parts.append((tag, start, end))
        at = end
    return []


def _records(area: bytes, parts: list[tuple[int, int, int]], sequence: int) -> Iterator[FastInode | FastName]:
    inodes = [
        FastInode(struct.unpack_from("<I", area, start)[0], area[start + 4 : end], sequence, start + 4)
        for tag, start, end in parts
        if tag == _INODE and end - start >= 4 + _SMALLEST_INODE
    ]
    yield from inodes
    newest = {one.number: one.data for one in inodes}
    for tag, start, end in parts:
        if tag in (_CREATE, _LINK, _UNLINK) and end - start > 8:
            parent, number = struct.unpack_from("<II", area, start)
            yield FastName(parent, number, area[start + 8 : end], tag == _UNLINK, sequence, newest.get(number, b""))
