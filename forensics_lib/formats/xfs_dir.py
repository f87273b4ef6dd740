"""XFS directories: names and inode numbers, from the inode itself or from data blocks.

Only what holds names is read; the hash index and the lists of free space, which repeat it, are not.

Format: XFS Algorithms & Data Structures (kernel.org), "Directories"; version 2 and, with checksums, version 3.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from forensics_lib.errors import DamagedData
from forensics_lib.formats.directory import Directory, Report, tidied
from forensics_lib.formats.xfs import XfsGeometry
from forensics_lib.formats.xfs_fork import Extent, fork_extents, fork_source
from forensics_lib.formats.xfs_inode import ForkFormat, XfsInode
from forensics_lib.model import Origin

__all__ = ["decode_block", "read_directory"]

_LEAF_OFFSET = 1 << 35  # bytes: where the part of a directory starts that only indexes it
_HEADERS = {b"XD2B": 16, b"XD2D": 16, b"XDB3": 64, b"XDD3": 64}
_SINGLE = (b"XD2B", b"XDB3")  # these keep their index in the same block
_UNUSED = 0xFFFF << 48
_ENTRY = struct.Struct(">QB")
_MAX_ENTRIES = 1 << 24
_MAX_BAD_BLOCKS = 64


def read_directory(geometry: XfsGeometry, inode: XfsInode, report: Report) -> Directory:
    """The names in a directory; what breaks a rule is reported and left out.

    Raises:
        DamagedData: nothing of it can be read.
    """
    entries: dict[bytes, int] = {}
    if inode.format == ForkFormat.LOCAL:
        count = _short_form(inode.data_fork[: inode.size], entries, report, has_ftype=geometry.has_ftype)
    else:
        count = _blocks(geometry, inode, entries, report)
    return tidied(entries, count, report)


def decode_block(data: bytes, entries: dict[bytes, int], report: Report, *, has_ftype: bool) -> int:
    """Collect the entries of a data block, "." and ".." included.

    Args:
        data: the block.
        entries: gets inode numbers by name.
        report: gets what breaks a rule; the rest of the block is not listed then.
        has_ftype: whether a file type follows each name.

    Returns:
        Number of entries.

    Raises:
        DamagedData: it is no data block.
    """
    at = _HEADERS.get(data[:4])
    if at is None:
        raise DamagedData("no directory block is there")
    end = len(data)
    if data[:4] in _SINGLE:
        (indexed,) = struct.unpack_from(">I", data, end - 8)
        end -= 8 + min(8 * indexed, end - 8 - at)
    data += b"\0"  # the smallest unused part is shorter than what is unpacked
    tail = 19 if has_ftype else 18  # all of an entry but its name, and what rounding up to 8 bytes takes
    count = 0
    unpack = _ENTRY.unpack_from
    while at < end:
        number, length = unpack(data, at)
        if number < _UNUSED:
            name = data[at + 9 : at + 9 + length]
            entries[name] = number
            at = at + length + tail & ~7
            count += 1
        elif free := number >> 32 & 0xFFF8:
            at += free
        else:
            report(f"an unused part without a length, at byte {at} of a block; what follows it is not listed")
            return count
    if at > end and count:
        report("the last entry of a block does not end inside it; it is not listed")
        entries.pop(name, None)
    return count


def _short_form(data: bytes, entries: dict[bytes, int], report: Report, *, has_ftype: bool) -> int:
    declared, wide = struct.unpack_from("BB", data.ljust(2, b"\0"))
    size = 8 if wide else 4
    at = 2 + size
    entries[b".."] = int.from_bytes(data[2:at], "big")
    gap = size + 1 if has_ftype else size
    from_bytes = int.from_bytes
    count = 1
    end = len(data)
    for _ in range(declared):
        name_end = at + 3 + (data[at] if at < end else 0)
        start, at = at + 3, name_end + gap
        if at > end:
            report("its entries do not end inside the inode; what follows is not listed")
            break
        entries[data[start:name_end]] = from_bytes(data[at - size : at], "big")
        count += 1
    return count


def _blocks(geometry: XfsGeometry, inode: XfsInode, entries: dict[bytes, int], report: Report) -> int:
    extents = fork_extents(geometry, inode, report)
    source = fork_source(geometry, extents, _LEAF_OFFSET, Origin(f"inode {inode.number}", None, inode.offset))
    size = geometry.dir_block_size
    count = bad = 0
    for number in _numbers(extents, size // geometry.block_size, _LEAF_OFFSET // size):
        try:
            data = source.read_at(number * size, size)
            count += decode_block(data, entries, report, has_ftype=geometry.has_ftype)
        except DamagedData as error:
            report(f"block {number} of the directory cannot be used: {error}")
            bad += 1
        if count > _MAX_ENTRIES or bad > _MAX_BAD_BLOCKS:
            report(f"{count} names and {bad} bad blocks; the rest of the directory is not read")
            break
    return count


def _numbers(extents: Sequence[Extent], scale: int, end: int) -> Iterator[int]:
    """The numbers of the directory's blocks that the extents cover, each once."""
    done = 0
    for extent in extents:
        first = max(extent.offset // scale, done)
        done = min(-(-(extent.offset + extent.length) // scale), end)
        yield from range(first, done)
        done = max(done, first)
