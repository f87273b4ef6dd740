"""The space of a file system that belongs to nothing, whatever file system it is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from forensics_lib.sources.base import Source

__all__ = ["FreeSpace"]


@dataclass(frozen=True, slots=True)
class FreeSpace:
    """What nothing in a file system uses, and what may be carved therefore.

    Attributes:
        source: the bytes that the ranges count in.
        ranges: (offset, length) of each free range, ascending, in whole blocks.
        block: bytes of a block: where files can start.
    """

    source: Source
    ranges: Iterable[tuple[int, int]]
    block: int
