"""Which blocks of free space something starts in, told by a few bytes of each: the first, fast pass of carving.

The same byte of all blocks of a window is looked at in one go, so that nearly all blocks cost nothing by themselves.
"""

from __future__ import annotations

import re
from enum import Enum

__all__ = ["Start", "starts"]

_TEXT = frozenset([*range(9, 14), 0x1B, *range(0x20, 0x7F), *range(0x80, 0x100)])
_IS_TEXT = bytes(byte in _TEXT for byte in range(256))
_IS_TEXT_OR_ZERO = b"\x01" + _IS_TEXT[1:]
_COLUMNS = 12
"""Bytes of each block that are looked at before it counts as text: random bytes seldom pass so many."""
_SEEN = 64
_HEAD = re.compile(rb"[\t-\r\x1b\x20-\x7e\x80-\xff]{2,}\0*\Z")  # a text, and zeros behind it
_FIRST = re.compile(rb"[\x1f\x28S]")


class Start(Enum):
    """What starts in a block."""

    TEXT = b""
    GZIP = b"\x1f\x8b\x08"
    ZSTD = b"\x28\xb5\x2f\xfd"
    SQLITE = b"SQLite format 3\0"
    TAR = b"ustar"
    BOLT = b"\xed\xda\x0c\xed"


_AT_FIRST = (Start.GZIP, Start.ZSTD, Start.SQLITE)
_ELSEWHERE = ((257, Start.TAR), (16, Start.BOLT))


def starts(data: bytes, size: int, block: int) -> list[tuple[int, Start]]:
    """(position, what) of each block that something known may start in, ascending.

    Args:
        data: bytes from the start of a block on.
        size: how many of them are looked at; the rest is there to be looked into.
        block: bytes of a block.
    """
    firsts = data[:size:block]
    found: dict[int, Start] = {}
    for place, start in _ELSEWHERE:
        for match in re.finditer(re.escape(start.value[:1]), data[place:size:block]):
            at = match.start() * block
            if data.startswith(start.value, at + place):
                found[at] = start
    for match in _FIRST.finditer(firsts):
        at = match.start() * block
        for start in _AT_FIRST:
            if data.startswith(start.value, at):
                found.setdefault(at, start)
    for index in _marked(data, size, block, firsts):
        at = index * block
        if _HEAD.match(data, at, at + min(_SEEN, block)):
            found.setdefault(at, Start.TEXT)
    return sorted(found.items())


def _marked(data: bytes, size: int, block: int, firsts: bytes) -> list[int]:
    """The blocks whose first byte is that of a text, and the following ones, too, or zero."""
    count = len(firsts)
    marks = int.from_bytes(firsts.translate(_IS_TEXT), "big")
    for column in range(1, min(_COLUMNS, block)):
        if not marks:
            return []
        column_bytes = data[column:size:block].ljust(count, b"\0")
        marks &= int.from_bytes(column_bytes.translate(_IS_TEXT_OR_ZERO), "big")
    return [match.start() for match in re.finditer(b"\x01", marks.to_bytes(count, "big"))]
