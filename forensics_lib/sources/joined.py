"""Bytes that are put together from several sources, and the holes where one of them is not there."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence

from forensics_lib.errors import DamagedData
from forensics_lib.model import Origin
from forensics_lib.sources._bounds import end_of
from forensics_lib.sources.base import Source

__all__ = ["JoinedSource", "MissingSource", "ZeroSource"]


class JoinedSource(Source):
    """Several sources one behind the other: the segments of a split image, the extents of a volume.

    Args:
        parts: in their order.
        origin: of the whole.
    """

    def __init__(self, parts: Sequence[Source], origin: Origin) -> None:
        """Serve the parts as one run of bytes."""
        self.parts = tuple(part for part in parts if part.size)
        self.origin = origin
        self._starts = [0, *itertools.accumulate(part.size for part in self.parts)]
        self.size = self._starts.pop()

    def read_at(self, offset: int, length: int) -> bytes:
        """The bytes at a position; short only at the end.

        Raises:
            DamagedData: a part cannot be read there, or lies before the start.
        """
        end = end_of(self, offset, length)
        pieces = []
        index = bisect.bisect_right(self._starts, offset) - 1
        while offset < end:
            part, start = self.parts[index], self._starts[index]
            piece = part.read_at(offset - start, min(end, start + part.size) - offset)
            if not piece:
                raise DamagedData("a part ends before its size", origin=part.origin, offset=offset - start)
            pieces.append(piece)
            offset += len(piece)
            index += offset == start + part.size
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def close(self) -> None:
        """Close every part."""
        for part in self.parts:
            part.close()


class MissingSource(Source):
    """Bytes that belong to the evidence but were not found; their number may be a guess.

    Args:
        size: how many bytes are missing.
        origin: where they should be.
        reason: what to tell whoever reads them.
    """

    def __init__(self, size: int, origin: Origin, reason: str) -> None:
        """Stand in for `size` bytes."""
        self.size = size
        self.origin = origin
        self.reason = reason

    def read_at(self, offset: int, length: int) -> bytes:
        """Nothing at and behind the end.

        Raises:
            DamagedData: always inside, with the reason.
        """
        if end_of(self, offset, length) <= offset:
            return b""
        raise DamagedData(self.reason, origin=self.origin, offset=offset)


class ZeroSource(Source):
    """Zeros that are stored nowhere."""

    def __init__(self, size: int, origin: Origin) -> None:
        """Serve `size` zeros."""
        self.size = size
        self.origin = origin

    def read_at(self, offset: int, length: int) -> bytes:
        """Zeros; short only at the end."""
        return bytes(max(0, end_of(self, offset, length) - offset))
