"""Directory blocks of ext2, ext3 and ext4, with what was deleted from them.

Format: Linux Documentation/filesystems/ext4/directory.rst. Deleting joins an entry to the one before it; kernels before
5.13 leave its bytes there. Interior blocks of hashed directories look like one empty entry.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from forensics_lib.errors import DamagedData
from forensics_lib.formats.directory import Directory, Report, tidied
from forensics_lib.formats.ext4 import ExtGeometry
from forensics_lib.formats.ext4_inode import INLINE_DATA, ExtInode

__all__ = ["TAIL", "DirEntry", "dir_entries", "is_dir_block", "read_block", "read_directory"]

TAIL = b"\0\0\0\0\x0c\0\0\xde"
"""What stands in front of a directory block's checksum, which takes its last four bytes."""
_NUL, _SLASH = 0, 0x2F
_ENTRY = struct.Struct("<IHB")
_MAX_ENTRIES = 1 << 24
_MAX_BAD_BLOCKS = 64


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


def read_block(data: bytes, entries: dict[bytes, int]) -> tuple[int, bool]:
    """Collect the entries of a directory block that are in use, "." and ".." included.

    Args:
        data: the block.
        entries: gets inode numbers by name.

    Returns:
        Number of entries, and whether they fit together to the very end.
    """
    position = count = 0
    size = len(data)
    large = size >= 1 << 16
    unpack = _ENTRY.unpack_from
    while position + 8 <= size:
        inode, length, name = unpack(data, position)
        if large:
            length = _length(length, size)
        start = position + 8
        end = start + name
        position += length
        if length & 3 or not end <= position <= size:  # lengths below 8 too
            return count, False
        if inode:
            entries[data[start:end]] = inode
            count += 1
    return count, size > 0 and position == size


def read_directory(geometry: ExtGeometry, inode: ExtInode, report: Report) -> Directory:
    """The names in a directory; what breaks a rule is reported and left out.

    Raises:
        DamagedData: nothing of it can be read.
    """
    entries: dict[bytes, int] = {}
    count = 0
    if inode.flags & INLINE_DATA:
        for part in filter(None, (inode.block[4:], geometry.xattrs(inode).get("system.data"))):
            found, whole = read_block(part, entries)
            count += found
            if not whole:
                report("its entries do not end inside the inode; what follows is not listed")
        entries[b".."] = int.from_bytes(inode.block[:4], "little")
        return tidied(entries, max(count, len(entries) - 1), report)
    bad = 0
    for number, block in _blocks(geometry, inode):
        try:
            found, whole = read_block(geometry.block(block) if block else b"", entries)
            count += found
            reason = "" if whole else "its entries do not fit together; what follows in it is not listed"
        except DamagedData as error:
            reason = f"it cannot be read: {error}"
        if reason:
            report(f"block {number} of the directory: {reason}")
            bad += 1
        if count > _MAX_ENTRIES or bad > _MAX_BAD_BLOCKS:
            report(f"{count} names and {bad} bad blocks; the rest of the directory is not read")
            break
    return tidied(entries, count, report)


def _blocks(geometry: ExtGeometry, inode: ExtInode) -> Iterator[tuple[int, int]]:
    """(number in the directory, number in the file system) of a directory's blocks; 0 for the first of a hole."""
    end = -(-inode.size // geometry.block_size)
    done = 0
    for run in geometry.runs(inode, []):  # what is lost is a hole as well
        if run.logical > done < end:
            yield done, 0
        for index in range(min(run.count, end - run.logical)):
            yield run.logical + index, run.block + index
        done = run.logical + run.count
    if done < end:
        yield done, 0


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
