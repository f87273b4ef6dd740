"""Blocks of deleted files of XFS that living files share.

A copy that was made as a reference has the blocks of the original until one of both is written to: what overlay file
systems copy into a container's layer is such a copy. When the copy is deleted, the blocks stay with the original.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from forensics_lib.errors import DamagedData
from forensics_lib.formats.run import Run
from forensics_lib.formats.xfs import XfsGeometry
from forensics_lib.formats.xfs_fork import fork_extents
from forensics_lib.formats.xfs_inode import InodeTable
from forensics_lib.recovery.intervals import Intervals

__all__ = ["SharedBlocks", "is_shared"]

_SHARED = 0x2
_MAX_FOUND = 1 << 20


def is_shared(flags2: int) -> bool:
    """Whether an inode shares blocks, or once did, by its second flags."""
    return bool(flags2 & _SHARED)


class SharedBlocks:
    """Those of some blocks that living files have, and since when these were not changed.

    Args:
        geometry: of the file system.
        numbers: of the inodes that share blocks.
        wanted: gives the parts of an interval that matter.
    """

    def __init__(
        self, geometry: XfsGeometry, numbers: Iterator[int], wanted: Callable[[int, int], Iterator[tuple[int, int]]]
    ) -> None:
        """Read the extents of the living files."""
        self._found: list[tuple[int, int, int]] = []
        table = InodeTable(geometry)
        for number in numbers:
            try:
                inode = table.inode(number)
                if inode.mode & 0xF000 != 0x8000 or not inode.nlink:
                    continue
                for extent in fork_extents(geometry, inode, _ignore):
                    if extent.block is None or extent.unwritten or len(self._found) >= _MAX_FOUND:
                        continue
                    place = geometry.block_offset(extent.block, extent.length) // geometry.block_size
                    for start, end in wanted(place, place + extent.length):
                        self._found.append((start, end, inode.ctime_ns))
            except DamagedData:
                continue

    def parts(self, start: int, end: int, before_ns: int) -> list[tuple[int, int]]:
        """The parts of an interval that a file has which was not changed since a time, ascending and apart.

        Args:
            start: first block.
            end: the one behind the last.
            before_ns: nanoseconds since 1970.
        """
        covered = Intervals()
        runs = [
            Run(0, max(first, start), min(last, end) - max(first, start))
            for first, last, changed_ns in self._found
            if first < end and start < last and changed_ns < before_ns
        ]
        covered.add(tuple(runs))
        return list(covered.inside(start, end))


def _ignore(fault: str) -> None:
    """Living files are read, and their faults reported, elsewhere."""
