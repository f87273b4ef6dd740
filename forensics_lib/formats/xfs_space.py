"""What the B+trees of XFS's allocation groups say: which blocks are free, and where inodes lie.

Format: XFS Algorithms & Data Structures (kernel.org), "Allocation Groups": free space and inode B+trees.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from forensics_lib.errors import DamagedData
from forensics_lib.formats.directory import Report
from forensics_lib.formats.xfs import XfsGeometry

__all__ = ["InodeChunk", "free_extents", "inode_chunks"]

_FREE_MAGICS = {b"ABTB": 16, b"AB3B": 56}  # and the bytes of the header
_INODE_MAGICS = {b"IABT": 16, b"IAB3": 56}
_FREE_SIZES, _INODE_SIZES = (8, 8), (16, 4)  # of a record and of a key
_FREE_ROOT_AT, _FREE_LEVELS_AT = 16, 28  # in the header of a group's free space
_LIST_FIRST_AT = 40
_LIST_SECTOR = 3
_LIST_HEADERS = {5: 36, 4: 0}
_MAX_LEVELS = 16
_PER_CHUNK = 64
_PER_HOLE = 4
_TREES = (b"ABTB", b"AB3B", b"ABTC", b"AB3C", b"IABT", b"IAB3", b"FIBT", b"FIB3", b"RMB3", b"R3FC")


class InodeChunk(NamedTuple):
    """Inodes that lie together.

    Attributes:
        first: number of the first one.
        inodes: how many they are.
        offset: where they lie in the file system, in bytes.
    """

    first: int
    inodes: int
    offset: int


def free_extents(geometry: XfsGeometry, report: Report) -> Iterator[tuple[int, int]]:
    """(first block, number of blocks) of the free space, ascending and apart; blocks are counted from the start.

    Blocks that a group keeps for its own trees count as free unless they look like a part of one. What cannot be read
    is reported, and counts as used.
    """
    for number in range(geometry.group_count):
        start = number * geometry.group_blocks
        blocks = min(geometry.group_blocks, geometry.block_count - start)
        found: list[tuple[int, int]] = []
        try:
            header = _header(geometry, number, 1, b"XAGF")
            root, _, _, levels = struct.unpack_from(">4I", header, _FREE_ROOT_AT)
            tree = _Tree(geometry, number, _FREE_MAGICS, _FREE_SIZES, report)
            found += [struct.unpack(">II", record) for record in tree.records(root, levels)]
            found += [(block, 1) for block in _list(geometry, number, header)]
        except DamagedData as error:
            report(f"the free space of allocation group {number} is not known: {error}")
        end = 0
        for block, count in sorted(found):
            if block < end or not count or block + count > blocks:
                report(f"free space at block {block} of allocation group {number} contradicts itself; it is left out")
                continue
            end = block + count
            yield start + block, count


def inode_chunks(geometry: XfsGeometry, report: Report) -> Iterator[InodeChunk]:
    """Where inodes lie, in use or not; what cannot be read is reported."""
    for number in range(geometry.group_count):
        try:
            group = geometry.group(number)
            records = _Tree(geometry, number, _INODE_MAGICS, _INODE_SIZES, report).records(
                group.inode_root, group.inode_levels
            )
            above = geometry.inode_at(group.offset)
            for record in records:
                first, holes = struct.unpack_from(">IH", record)
                sparse = "sparse inodes" in geometry.features
                yield from _chunk(geometry, above | first, holes if sparse else 0)
        except DamagedData as error:
            report(f"the inodes of allocation group {number} are not known: {error}")


def _chunk(geometry: XfsGeometry, first: int, holes: int) -> Iterator[InodeChunk]:
    """The parts of a chunk of 64 inodes that are there."""
    index = 0
    while index < _PER_CHUNK:
        end = index
        while end < _PER_CHUNK and not holes >> end // _PER_HOLE & 1:
            end += _PER_HOLE
        if end > index:
            yield InodeChunk(first + index, end - index, geometry.inode_offset(first + index))
        index = end + _PER_HOLE


def _header(geometry: XfsGeometry, group: int, sector: int, magic: bytes) -> bytes:
    """A header of an allocation group."""
    offset = geometry.group_offset(group) + sector * geometry.sector_size
    data = geometry.source.read_at(offset, geometry.sector_size)
    if len(data) < geometry.sector_size or data[:4] != magic:
        raise DamagedData(f"no {magic.decode()} header is there", offset=offset)
    return data


def _list(geometry: XfsGeometry, group: int, header: bytes) -> Iterator[int]:
    """The blocks that are kept for the trees, but for those that still hold what a tree left behind."""
    first, _, count = struct.unpack_from(">III", header, _LIST_FIRST_AT)
    at = _LIST_HEADERS[geometry.version]
    offset = geometry.group_offset(group) + _LIST_SECTOR * geometry.sector_size
    data = geometry.source.read_at(offset, geometry.sector_size)
    room = (len(data) - at) // 4
    seen = set()
    for index in range(first, first + min(count, room)):
        (block,) = struct.unpack_from(">I", data, at + index % room * 4)
        if block < geometry.group_blocks and block not in seen:
            seen.add(block)
            place = geometry.group_offset(group) + block * geometry.block_size
            if geometry.source.read_at(place, 4) not in _TREES:
                yield block


class _Tree:
    """A B+tree of an allocation group. Every block is read once, and levels only go down, so cycles end."""

    def __init__(
        self, geometry: XfsGeometry, group: int, magics: dict[bytes, int], sizes: tuple[int, int], report: Report
    ) -> None:
        self._geometry = geometry
        self._start = geometry.group_offset(group)
        self._group = group
        self._magics = magics
        self._size, self._key = sizes
        self._report = report
        self._seen: set[int] = set()

    def records(self, root: int, levels: int) -> Iterator[bytes]:
        """All records, from the left to the right."""
        if not 0 < levels <= _MAX_LEVELS:
            raise DamagedData(f"a tree of {levels} levels")
        yield from self._block(root, levels - 1)

    def _block(self, block: int, level: int) -> Iterator[bytes]:
        geometry = self._geometry
        try:
            if block in self._seen or block >= geometry.group_blocks:
                raise DamagedData("it is there twice" if block in self._seen else "it is not inside the group")
            self._seen.add(block)
            data = geometry.source.read_at(self._start + block * geometry.block_size, geometry.block_size)
            header = self._magics.get(data[:4])
            found, count = struct.unpack_from(">HH", data.ljust(8, b"\0"), 4)
            if header is None or found != level:
                raise DamagedData("it is none" if header is None else f"it is on level {found} instead of {level}")
            width = self._size if not level else self._key + 4
            room = (len(data) - header) // width
            if count > room:
                raise DamagedData(f"it declares {count} entries and has room for {room}")
        except DamagedData as error:
            self._report(f"block {block} of a tree of allocation group {self._group} cannot be used: {error}")
            return
        if level:
            for child in struct.unpack_from(f">{count}I", data, header + room * self._key):
                yield from self._block(child, level - 1)
        else:
            for at in range(header, header + count * self._size, self._size):
                yield data[at : at + self._size]
