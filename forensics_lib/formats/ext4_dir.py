"""Directory blocks of ext2, ext3 and ext4, with what was deleted from them.

Format: Linux Documentation/filesystems/ext4/directory.rst. Deleting joins an entry to the one before it; kernels before
5.13 leave its bytes there. Interior blocks of hashed directories look like one empty entry.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["TAIL", "DirEntry", "dir_entries", "is_dir_block"]

TAIL = b"\0\0\0\0\x0c\0\0\xde"
"""What stands in front of a directory block's checksum, which takes its last four bytes."""
_NUL, _SLASH = 0, 0x2F


@dataclass(frozen=True, slots=True)
class DirEntry:
    """A name in a directory block.

    Attributes:
        inode: number it points to.
        name: as bytes.
        kind: file type as the directory notes it; 0 when it does not.
        deleted: whether it lies in space that is free.
    """

    inode: int
    name: bytes
    kind: int
    deleted: bool


def is_dir_block(data: bytes, inode_count: int) -> bool:
    """Whether the entries of a block fit together to its very end, and name something."""
    position = names = 0
    size = len(data)
    while position < size:
        if position + 8 > size:
            return False
        inode, length, name, kind = struct.unpack_from("<IHBB", data, position)
        length = _length(length, size)
        if length < 8 or length % 4 or position + length > size or inode > inode_count or 8 + name > length:
            return False
        if inode:
            text = data[position + 8 : position + 8 + name]
            if not name or kind > 7 or _NUL in text or _SLASH in text:
                return False
            names += 1
        position += length
    return names > 0


def dir_entries(data: bytes, inode_count: int) -> Iterator[DirEntry]:
    """The entries of a directory block, and those in the gaps between them that were deleted; ``.`` and ``..`` too."""
    position, size = 0, len(data)
    while position + 8 <= size:
        inode, length, name, kind = struct.unpack_from("<IHBB", data, position)
        length = _length(length, size)
        if length < 8 or length % 4 or position + length > size:
            return
        if inode and 8 + name <= length:
            yield DirEntry(inode, data[position + 8 : position + 8 + name], kind, False)
            gap = position + (8 + name + 3 & ~3)
        else:
            gap = position
        yield from _deleted(data, gap, position + length, inode_count)
        position += length


def _deleted(data: bytes, start: int, end: int, inode_count: int) -> Iterator[DirEntry]:
    """Entries in a gap, as far as they look like some."""
    position = start
    while position + 12 <= end:
        inode, length, name, kind = struct.unpack_from("<IHBB", data, position)
        needed = 8 + name + 3 & ~3
        text = data[position + 8 : position + 8 + name]
        fits = 0 < inode <= inode_count and name and needed <= length and length % 4 == 0 and 0 < kind <= 7
        if fits and position + needed <= end and _NUL not in text and _SLASH not in text:
            yield DirEntry(inode, text, kind, True)
            position += needed
        else:
            position += 4


def _length(stored: int, block_size: int) -> int:
    """Length of an entry; blocks of 64 KiB need more than the field holds."""
    if block_size < 1 << 16:
        return stored
    return block_size if stored in (0, 0xFFFF) else stored & 0xFFFC | (stored & 3) << 16
