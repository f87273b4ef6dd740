"""Sets of blocks."""

from __future__ import annotations

import bisect
from collections.abc import Iterator

from forensics_lib.formats.run import Run

__all__ = ["Intervals"]


class Intervals:
    """A set of blocks, as sorted intervals that do not touch."""

    def __init__(self) -> None:
        """Start with none."""
        self._starts: list[int] = []
        self._ends: list[int] = []

    def add(self, runs: tuple[Run, ...]) -> None:
        """Mark the blocks of some runs."""
        for run in runs:
            start, end = run.block, run.block + run.count
            first = bisect.bisect_left(self._ends, start)
            last = bisect.bisect_right(self._starts, end)
            if first < last:
                start, end = min(start, self._starts[first]), max(end, self._ends[last - 1])
            self._starts[first:last] = [start]
            self._ends[first:last] = [end]

    def cover(self, runs: tuple[Run, ...]) -> bool:
        """Whether all blocks of some runs are marked."""
        return not any(True for run in runs for _ in self.gaps(run.block, run.block + run.count))

    def inside(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """The marked parts of an interval."""
        for index in range(bisect.bisect_right(self._ends, start), len(self._starts)):
            if self._starts[index] >= end:
                return
            yield max(self._starts[index], start), min(self._ends[index], end)

    def gaps(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """The unmarked parts of an interval."""
        index = bisect.bisect_right(self._ends, start)
        while start < end:
            if index == len(self._starts) or self._starts[index] >= end:
                yield start, end
                return
            if self._starts[index] > start:
                yield start, self._starts[index]
            start = self._ends[index]
            index += 1
