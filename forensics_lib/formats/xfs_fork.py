"""The forks of XFS inodes: extents, in the inode or in a B+tree, and the blocks they map.

Format: XFS Algorithms & Data Structures (kernel.org), "Data Extents".
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from forensics_lib.errors import DamagedData, LimitExceeded
from forensics_lib.formats.directory import Report
from forensics_lib.formats.xfs import XfsGeometry
from forensics_lib.formats.xfs_inode import ForkFormat, XfsInode
from forensics_lib.model import Origin
from forensics_lib.sources.base import ExtentSource

__all__ = ["Extent", "decode_extents", "fork_extents", "fork_source"]

_RECORD = 16
_ROOT_HEADER = 4
_MAX_LEVELS = 16  # a file of 2**54 blocks needs less with blocks of 512 bytes
_MAX_EXTENTS = 1 << 24
_MAX_OFFSET = 1 << 54
_MAGICS = {b"BMAP": 24, b"BMA3": 72}  # and the bytes of the header


class Extent(NamedTuple):
    """A run of a fork's blocks.

    Attributes:
        offset: its first block, counted in the fork.
        block: where it lies, as the structures number blocks; None where the record of it is lost.
        length: number of blocks.
        unwritten: whether it reads as zeros, whatever its blocks hold.
    """

    offset: int
    block: int | None
    length: int
    unwritten: bool


def decode_extents(data: bytes, count: int) -> Iterator[Extent]:
    """The extents of packed records; fewer where the data ends."""
    end = min(count, len(data) // _RECORD) * _RECORD
    for high, low in struct.iter_unpack(">QQ", data[:end]):
        yield Extent(high >> 9 & _MAX_OFFSET - 1, (high & 0x1FF) << 43 | low >> 21, low & 0x1FFFFF, bool(high >> 63))


def fork_extents(
    geometry: XfsGeometry,
    inode: XfsInode,
    report: Report,
    *,
    attribute: bool = False,
    read: Callable[[int], bytes] | None = None,
) -> list[Extent]:
    """The extents of a fork, ascending and not overlapping.

    Where a part of their B+tree cannot be read, an extent without a block stands for what may be lost.

    Args:
        geometry: of the file system.
        inode: whose fork it is.
        report: gets what breaks a rule.
        attribute: the attribute fork instead of the data fork.
        read: gives a block of the tree by its number; by default what lies there today.

    Raises:
        DamagedData: the fork has no extents.
        LimitExceeded: there are more than 16 million.
    """
    data = inode.attribute_fork if attribute else inode.data_fork
    format_ = inode.attribute_format if attribute else inode.format
    count = inode.attribute_extents if attribute else inode.extents
    if format_ == ForkFormat.EXTENTS:
        found = decode_extents(data, count)
    elif format_ == ForkFormat.BTREE:
        found = _Tree(geometry, report, read or geometry.read_blocks).root(data)
    else:
        raise DamagedData(f"inode {inode.number}: a fork of format {format_} has no extents", offset=inode.offset)
    extents: list[Extent] = []
    end = records = 0
    for extent in found:
        records += extent.block is not None
        if extent.offset < end or not extent.length or extent.offset + extent.length > _MAX_OFFSET:
            report(f"an extent at block {extent.offset} of the fork is empty, or overlaps the one before it; left out")
            continue
        end = extent.offset + extent.length
        if extent.block is not None and not _lies_inside(geometry, extent):
            report(f"an extent of {extent.length} blocks at {extent.block} is not inside the file system")
            extent = extent._replace(block=None)
        extents.append(extent)
        if len(extents) > _MAX_EXTENTS:
            raise LimitExceeded(f"inode {inode.number}: more than {_MAX_EXTENTS} extents", offset=inode.offset)
    if records != count:
        report(f"{count} extents are declared, {records} are there")
    return extents


def fork_source(geometry: XfsGeometry, extents: Sequence[Extent], size: int, origin: Origin) -> ExtentSource:
    """The bytes of a fork: holes and unwritten extents as zeros; what is lost raises when it is read."""
    scale = geometry.block_size
    places = []
    for extent in extents:
        if not extent.unwritten and extent.offset * scale < size:
            at = geometry.source.size if extent.block is None else geometry.block_offset(extent.block, extent.length)
            places.append((extent.offset * scale, at, extent.length * scale))
    return ExtentSource(geometry.source, places, size, origin)


class _Tree:
    """The B+tree of a fork's extents. Every block is read once, and levels only go down, so cycles end."""

    def __init__(self, geometry: XfsGeometry, report: Report, read: Callable[[int], bytes]) -> None:
        self._geometry = geometry
        self._read = read
        self._report = report
        self._seen: set[int] = set()

    def root(self, data: bytes) -> Iterator[Extent]:
        """The extents below the root, which lies in the inode."""
        level, count = struct.unpack_from(">HH", data.ljust(_ROOT_HEADER, b"\0"))
        if not 0 < level <= _MAX_LEVELS:
            self._report(f"the root of the extents' tree is on level {level}")
            yield _lost(0, _MAX_OFFSET)
        else:
            yield from self._children(data, _ROOT_HEADER, level, count, _MAX_OFFSET)

    def _children(self, data: bytes, header: int, level: int, count: int, end: int) -> Iterator[Extent]:
        room = (len(data) - header) // _RECORD
        if count > room:
            self._report(f"a node of the extents' tree declares {count} children and has room for {room}")
            count = room
        keys = struct.unpack_from(f">{count}Q", data, header)
        blocks = struct.unpack_from(f">{count}Q", data, header + room * 8)
        for key, after, block in zip(keys, (*keys[1:], end), blocks, strict=True):
            yield from self._block(block, level - 1, key, after)

    def _block(self, block: int, level: int, start: int, end: int) -> Iterator[Extent]:
        try:
            if block in self._seen:
                raise DamagedData("it is there twice")
            self._seen.add(block)
            data = self._read(block)
            header = _MAGICS.get(data[:4])
            found, count = struct.unpack_from(">HH", data.ljust(8, b"\0"), 4)
            if header is None or found != level:
                raise DamagedData("it is none" if header is None else f"it is on level {found} instead of {level}")
        except DamagedData as error:
            self._report(f"block {block} of the extents' tree cannot be used: {error}")
            yield _lost(start, end)
            return
        if level:
            yield from self._children(data, header, level, count, end)
        else:
            yield from decode_extents(data[header:], count)


def _lost(start: int, end: int) -> Extent:
    return Extent(start, None, max(end - start, 0), unwritten=False)


def _lies_inside(geometry: XfsGeometry, extent: Extent) -> bool:
    try:
        geometry.block_offset(extent.block or 0, extent.length)
    except DamagedData:
        return False
    return True
