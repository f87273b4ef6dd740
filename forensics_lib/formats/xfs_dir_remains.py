"""Names in blocks of XFS directories, also those that were taken out.

A name that is taken out stays where it is: only its first four bytes are overwritten, and if the space in front of it
is unused, too, its last two. Every entry and every unused part ends with its own position, which tells entries from
anything else.

Format: XFS Algorithms & Data Structures (kernel.org), "Directories".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from forensics_lib.errors import DamagedData
from forensics_lib.formats.xfs import XfsGeometry

__all__ = ["DirBlock", "Name", "dir_block", "names_in_block", "names_in_inode", "names_left_in_inode"]

_HEADERS = {b"XD2B": 16, b"XD2D": 16, b"XDB3": 64, b"XDD3": 64}
_UNUSED = b"\xff\xff"
_MAX_KIND = 7
_DOT = b"\x01."
_NUMBER = 8


class Name(NamedTuple):
    """A name in a directory.

    Attributes:
        name: its bytes.
        inode: the inode that it names; of one that was taken out perhaps only the low 32 bits.
        kind: type of the inode, as directories number it; 0 where that is not told.
        deleted: whether it was taken out.
    """

    name: bytes
    inode: int
    kind: int
    deleted: bool

    @property
    def is_possible(self) -> bool:
        """Whether a file system can have such a name."""
        return b"\0" not in self.name and b"/" not in self.name and self.kind <= _MAX_KIND and self.inode > 0


class DirBlock(NamedTuple):
    """What the header of a directory's data block tells.

    Attributes:
        owner: inode of the directory; 0 where it is not told.
        lsn: of the log's record with its last change; 0 where it is not told.
    """

    owner: int
    lsn: int


def dir_block(geometry: XfsGeometry, data: bytes) -> DirBlock | None:
    """The header of a data block; None when it is none of this file system.

    Args:
        geometry: of the file system.
        data: the block; its checksum is not looked at.
    """
    if data[:4] not in _HEADERS or (geometry.version == 5) != (data[:4] in (b"XDB3", b"XDD3")):
        return None
    if geometry.version == 5:
        if data[24:40] != geometry.meta_uuid:
            return None
        return DirBlock(int.from_bytes(data[40:48], "big"), int.from_bytes(data[16:24], "big"))
    return DirBlock(int.from_bytes(data[16:24], "big") if data[24:26] == _DOT else 0, 0)


def names_in_block(data: bytes, start: int, end: int, *, has_ftype: bool) -> Iterator[Name]:
    """The names that start in a part of a data block, in the order of their places.

    Args:
        data: the block from its start; what is not known of it is zeros.
        start: first byte of the part, a multiple of 8.
        end: where it ends.
        has_ftype: whether a file type follows each name.
    """
    fixed = 19 if has_ftype else 18  # all of an entry but its name, and what rounding up to 8 bytes takes
    size = len(data)
    unused = unused_end = 0
    for at in range(start, min(end, size - 15), 8):
        is_unused = data[at : at + 2] == _UNUSED
        if is_unused and at >= unused_end:
            unused, unused_end = at, at + int.from_bytes(data[at + 2 : at + 4], "big")
        length = data[at + 8]
        after = at + length + fixed & ~7
        if not length or after > size:
            continue
        tag = int.from_bytes(data[after - 2 : after], "big")
        if tag != at and not (at < unused_end and tag == unused):
            continue
        number = int.from_bytes(data[at + 4 if is_unused else at : at + 8], "big")
        kind = data[at + 9 + length] if has_ftype else 0
        name = Name(data[at + 9 : at + 9 + length], number, kind, is_unused or at < unused_end)
        if name.is_possible:
            yield name


def names_in_inode(data: bytes, *, has_ftype: bool) -> tuple[int, list[Name]]:
    """The directory above, and the names, of a directory that lies in its inode.

    Args:
        data: the data fork.
        has_ftype: whether a file type follows each name.

    Raises:
        DamagedData: they do not end inside the fork.
    """
    count, wide = data[:2] if len(data) > 1 else (0, 0)
    size = 8 if wide else 4
    at = 2 + size
    parent = int.from_bytes(data[2:at], "big")
    found = []
    for _ in range(count):
        name, at = _short_entry(data, at, size, has_ftype=has_ftype, deleted=False)
        if name is None:
            raise DamagedData("the names of a directory do not end inside its inode")
        found.append(name)
    return parent, found


def names_left_in_inode(data: bytes, known: Callable[[int], bool], *, has_ftype: bool) -> list[Name]:
    """Names that a directory had in its inode, behind those that it has: those after a name move up when it goes.

    Args:
        data: the data fork.
        known: whether an inode of a number can be meant; bytes that happen to look like an entry fail here.
        has_ftype: whether a file type follows each name.
    """
    count, wide = data[:2] if len(data) > 1 else (0, 0)
    size = 8 if wide else 4
    at = 2 + size
    for _ in range(count):
        name, at = _short_entry(data, at, size, has_ftype=has_ftype, deleted=False)
        if name is None:
            return []
    found: list[Name] = []
    found_end = 0
    while at + 4 + size < len(data):
        name, end = _short_entry(data, at, size, has_ftype=has_ftype, deleted=True)
        at += 1
        if name is not None and name.is_possible and known(name.inode):
            if end == found_end:  # what was taken for the start of an entry is the end of the one before
                found.pop()
            elif at <= found_end:
                continue
            found.append(name)
            found_end = end
    return found


def _short_entry(data: bytes, at: int, size: int, *, has_ftype: bool, deleted: bool) -> tuple[Name | None, int]:
    """The entry of a directory in its inode, and where it ends; None when it does not end inside."""
    length = data[at] if at < len(data) else 0
    end = at + 3 + length + has_ftype + size
    if not length or end > len(data):
        return None, at
    kind = data[at + 3 + length] if has_ftype else 0
    return Name(data[at + 3 : at + 3 + length], int.from_bytes(data[end - size : end], "big"), kind, deleted), end
