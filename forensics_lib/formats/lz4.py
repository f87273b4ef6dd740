"""Unpacking one LZ4 block, as the systemd journal stores it.

Source: the LZ4 block format description (``doc/lz4_Block_format.md`` of the lz4 project).
"""

from __future__ import annotations

from forensics_lib.errors import DamagedData

__all__ = ["lz4_block"]

_SHORTEST_MATCH = 4


def lz4_block(data: bytes, size: int) -> bytes:
    """The bytes of one block.

    Args:
        data: the block.
        size: bytes that it gives, which is stored beside it.

    Raises:
        DamagedData: it is no such block, or gives more or fewer.
    """
    out = bytearray()
    position = 0
    try:
        while True:
            token = data[position]
            length, position = _length(data, position + 1, token >> 4)
            if position + length > len(data):
                raise DamagedData("LZ4 block is cut off")
            out += data[position : position + length]
            position += length
            if position == len(data):
                break
            distance = data[position] | data[position + 1] << 8
            length, position = _length(data, position + 2, token & 15)
            if not 0 < distance <= len(out):
                raise DamagedData("LZ4 block refers to bytes before its start")
            if len(out) + length > size:
                break
            _repeat(out, distance, length + _SHORTEST_MATCH)
    except IndexError:
        raise DamagedData("LZ4 block is cut off") from None
    if len(out) != size:
        raise DamagedData(f"LZ4 block gives other than {size} bytes")
    return bytes(out)


def _length(data: bytes, position: int, nibble: int) -> tuple[int, int]:
    """A length that, when its bits are all set, goes on in further bytes; and the position behind them."""
    length = nibble
    if nibble == 15:
        while (more := data[position]) == 255:
            length += 255
            position += 1
        length += more
        position += 1
    return length, position


def _repeat(out: bytearray, distance: int, length: int) -> None:
    start = len(out) - distance
    if distance >= length:
        out += out[start : start + length]
    else:
        out += (out[start:] * (length // distance + 1))[:length]
