"""What the log of XFS says of a buffer: which of its parts were changed, and to what.

Format: XFS Algorithms & Data Structures (kernel.org), "Buffer Log Item".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from forensics_lib.errors import DamagedData
from forensics_lib.formats.xfs_log_record import LogItem

__all__ = ["CANCEL", "BufferHeader", "buffer_header", "buffer_regions"]

CANCEL = 0x02
"""Flag of a buffer that was freed, so that nothing of it counts."""
_HEADER = "HHHHqI"
_CHUNK = 128  # bytes of a buffer that one bit stands for


class BufferHeader(NamedTuple):
    """What a change of a buffer is about.

    Attributes:
        flags: as the format defines them; the type of what is in it is in the upper five bits.
        length: of the buffer, in basic blocks.
        block: where it lies, in basic blocks of the file system.
    """

    flags: int
    length: int
    block: int


def buffer_header(item: LogItem) -> BufferHeader:
    """What a change is about."""
    layout = struct.Struct(f"{item.order}{_HEADER}")
    _, _, flags, length, block, _ = layout.unpack_from(item.regions[0].ljust(layout.size, b"\0"))
    return BufferHeader(flags, length, block)


def buffer_regions(item: LogItem, size: int) -> Iterator[tuple[int, bytes]]:
    """(offset, bytes) of what was changed: a run of bits stands for it, and may be logged as several regions.

    Args:
        item: the change.
        size: bytes of the buffer.

    Raises:
        DamagedData: it does not fit its place.
    """
    layout = struct.Struct(f"{item.order}{_HEADER}")
    if len(item.regions[0]) < layout.size:
        raise DamagedData("a buffer of the log is not complete")
    (words,) = layout.unpack_from(item.regions[0])[5:]
    if layout.size + 4 * words > len(item.regions[0]):
        raise DamagedData("the map of a buffer of the log is not complete")
    map_ = struct.unpack_from(f"{item.order}{words}I", item.regions[0], layout.size)
    bits = sum(word << 32 * index for index, word in enumerate(map_))
    chunk = 0
    for region in item.regions[1:]:
        while bits and not bits & 1:
            skip = (bits & -bits).bit_length() - 1
            bits >>= skip
            chunk += skip
        run = (~bits & bits + 1).bit_length() - 1  # number of ones in front
        count = min(run, len(region) // _CHUNK)
        if not count or (chunk + count) * _CHUNK > size:
            raise DamagedData("a buffer of the log does not fit its place")
        yield chunk * _CHUNK, region[: count * _CHUNK]
        bits >>= count
        chunk += count
