"""XFS directories: names and inode numbers, from the inode itself or from data blocks.

Only what holds names is read; the hash index and the lists of free space, which repeat it, are not.

Format: XFS Algorithms & Data Structures (kernel.org), "Directories"; version 2 and, with checksums, version 3.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from forensics_lib.errors import DamagedData, LimitExceeded
from forensics_lib.formats.xfs import XfsGeometry
from forensics_lib.formats.xfs_fork import Extent, Report, fork_extents, fork_source
from forensics_lib.formats.xfs_inode import ForkFormat, XfsInode
from forensics_lib.model import Origin

__all__ = ["Directory", "decode_block", "read_directory"]

_LEAF_OFFSET = 1 << 35  # bytes: where the part of a directory starts that only indexes it
_HEADERS = {b"XD2B": 16, b"XD2D": 16, b"XDB3": 64, b"XDD3": 64}
_SINGLE = (b"XD2B", b"XDB3")  # these keep their index in the same block
_UNUSED = 0xFFFF
_ENTRY = struct.Struct(">QB")
_MAX_ENTRIES = 1 << 24
_MAX_BAD_BLOCKS = 64


class Directory(NamedTuple):
    """What a directory lists.

    Attributes:
        parent: inode number of ".."; 0 where it is not known.
        entries: inode number by name, in byte order; without "." and "..".
    """

    parent: int
    entries: dict[bytes, int]


def read_directory(geometry: XfsGeometry, inode: XfsInode, report: Report) -> Directory:
    """The names in a directory; what breaks a rule is reported and left out.

    Raises:
        DamagedData: nothing of it can be read.
        LimitExceeded: it has more than 16 million names.
    """
    if inode.format == ForkFormat.LOCAL:
        names = _short_form(inode.data_fork[: inode.size], report, has_ftype=geometry.has_ftype)
    else:
        names = _blocks(geometry, inode, report)
    found = sorted(names)
    entries = dict(found)
    parent = entries.pop(b"..", 0)
    entries.pop(b".", None)
    if len(entries) + 2 < len(found):
        report("some of its names are there twice; one of each is shown")
    return Directory(parent, entries)


def decode_block(data: bytes, report: Report, *, has_ftype: bool) -> Iterator[tuple[bytes, int]]:
    """Name and inode number of the entries in a data block, "." and ".." included.

    Raises:
        DamagedData: it is no data block.
    """
    at = _HEADERS.get(data[:4])
    if at is None:
        raise DamagedData("no directory block is there")
    end = len(data)
    if data[:4] in _SINGLE:
        (count,) = struct.unpack_from(">I", data, end - 8)
        end -= 8 + min(8 * count, end - 8 - at)
    tail = 3 if has_ftype else 2  # file type and the entry's own position
    while at < end:
        number, length = _ENTRY.unpack_from(data, at)
        if number >> 48 == _UNUSED:
            free = number >> 32 & 0xFFFF
            if not free or free % 8:
                report(f"an unused part of {free} bytes at byte {at} of a block; what follows it is not listed")
                return
            at += free
            continue
        after = at + (9 + length + tail + 7 & ~7)
        name = data[at + 9 : at + 9 + length]
        if not length or after > end:
            report(f"an entry that does not end inside its block at byte {at}; what follows it is not listed")
            return
        if _is_name(name):
            yield name, number
        else:
            report(f"an entry at byte {at} of a block has a name that none can have: {name!r}")
        at = after


def _short_form(data: bytes, report: Report, *, has_ftype: bool) -> Iterator[tuple[bytes, int]]:
    count, wide = struct.unpack_from("BB", data.ljust(2, b"\0"))
    size = 8 if wide else 4
    at = 2 + size
    yield b"..", int.from_bytes(data[2:at], "big")
    gap = 1 if has_ftype else 0
    for _ in range(count):
        name_end = at + 3 + (data[at] if at < len(data) else 0)
        after = name_end + gap + size
        name = data[at + 3 : name_end]
        if not name or after > len(data):
            report("its entries do not end inside the inode; what follows is not listed")
            return
        if _is_name(name):
            yield name, int.from_bytes(data[after - size : after], "big")
        else:
            report(f"it has a name that none can have: {name!r}")
        at = after


def _blocks(geometry: XfsGeometry, inode: XfsInode, report: Report) -> Iterator[tuple[bytes, int]]:
    extents = fork_extents(geometry, inode, report)
    source = fork_source(geometry, extents, _LEAF_OFFSET, Origin(f"inode {inode.number}", None, inode.offset))
    size = geometry.dir_block_size
    total = bad = 0
    for number in _numbers(extents, size // geometry.block_size, _LEAF_OFFSET // size):
        try:
            for entry in decode_block(source.read_at(number * size, size), report, has_ftype=geometry.has_ftype):
                yield entry
                total += 1
        except DamagedData as error:
            report(f"block {number} of the directory cannot be used: {error}")
            bad += 1
        if total > _MAX_ENTRIES or bad > _MAX_BAD_BLOCKS:
            what = f"{_MAX_ENTRIES} names" if total > _MAX_ENTRIES else f"{_MAX_BAD_BLOCKS} bad blocks"
            raise LimitExceeded(f"inode {inode.number}: a directory of more than {what}", offset=inode.offset)


def _numbers(extents: Sequence[Extent], scale: int, end: int) -> Iterator[int]:
    """The numbers of the directory's blocks that the extents cover, each once."""
    done = 0
    for extent in extents:
        first = max(extent.offset // scale, done)
        done = min(-(-(extent.offset + extent.count) // scale), end)
        yield from range(first, done)
        done = max(done, first)


def _is_name(name: bytes) -> bool:
    return b"/" not in name and b"\0" not in name
