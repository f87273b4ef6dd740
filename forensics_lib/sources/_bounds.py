"""Bounds that every reader checks before it reads."""

from __future__ import annotations

from forensics_lib.errors import DamagedData
from forensics_lib.sources.base import Source

__all__ = ["end_of", "read_exactly"]


def end_of(source: Source, offset: int, length: int) -> int:
    """Where a read of `length` bytes ends inside a source; not behind `offset` when there is nothing to read.

    Raises:
        DamagedData: the position lies before the start.
    """
    if offset < 0:
        raise DamagedData(f"position {offset} lies before the start", origin=source.origin, offset=offset)
    return min(offset + length, source.size)


def read_exactly(source: Source, offset: int, length: int, what: str) -> bytes:
    """The bytes at a position, all of them.

    Raises:
        DamagedData: the source ends before; `what` is named in the message.
    """
    data = source.read_at(offset, length)
    if len(data) < length:
        message = f"{what} lies beyond the end of the file: {length} bytes at {offset}, the file has {source.size}"
        raise DamagedData(message, origin=source.origin, offset=offset)
    return data
