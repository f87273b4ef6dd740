"""Which parts of an XFS file system are free."""

from __future__ import annotations

import bisect
from collections.abc import Iterator

from forensics_lib.formats.xfs import XfsGeometry
from forensics_lib.formats.xfs_space import free_extents
from forensics_lib.model import ProblemLog
from forensics_lib.recovery.free import FreeSpace
from forensics_lib.trees.xfs import XfsTree

__all__ = ["FreeMap", "free_space"]


class FreeMap:
    """The free blocks of a file system, counted from its start.

    Args:
        geometry: of the file system.
        problems: gets what contradicts itself; it counts as used.
    """

    def __init__(self, geometry: XfsGeometry, problems: ProblemLog) -> None:
        """Read the trees of all allocation groups."""

        def report(fault: str) -> None:
            problems.add(geometry.source.origin, fault)

        self._block_size = geometry.block_size
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, count in free_extents(geometry, report):
            if self._ends and self._ends[-1] == start:
                self._ends[-1] = start + count
            else:
                self._starts.append(start)
                self._ends.append(start + count)

    def parts(self, block: int, count: int) -> Iterator[tuple[int, int]]:
        """(first block, number of blocks) of those of some blocks that are free, in order."""
        end = block + count
        index = bisect.bisect_right(self._ends, block)
        while index < len(self._starts) and self._starts[index] < end:
            start, stop = max(self._starts[index], block), min(self._ends[index], end)
            yield start, stop - start
            index += 1

    def ranges(self) -> Iterator[tuple[int, int]]:
        """(offset, length) in bytes of each free range, ascending."""
        for start, end in zip(self._starts, self._ends, strict=True):
            yield start * self._block_size, (end - start) * self._block_size


def free_space(tree: XfsTree, problems: ProblemLog) -> FreeSpace:
    """The free space of an XFS file system, its log replayed."""
    geometry = tree.geometry
    return FreeSpace(geometry.source, FreeMap(geometry, problems).ranges(), geometry.block_size)
