"""The fixed fields of a tar header block: numbers and the checksum, as writers of all ages have written them."""

from __future__ import annotations

import re
from functools import lru_cache
from zlib import adler32

__all__ = ["BLOCK_SIZE", "checksum_ok", "has_gnu_prefix", "number"]

BLOCK_SIZE = 512
_OCTAL = re.compile(rb"[ \0]*(-?[0-7]*)[ \0]*(?:\0.*)?", re.DOTALL)


def number(field: bytes) -> int | None:
    """A header number: octal text padded with spaces or NUL, or base-256 as GNU and star write it; None if neither."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big") & ((1 << (8 * len(field) - 1)) - 1)
        return value - (1 << (8 * len(field) - 1)) if field[0] & 0x40 else value
    digits = field.strip(b"\0 ")
    if digits.isdigit():  # `int` alone would take 0o17 and 1_0 too
        try:
            return int(digits, 8)
        except ValueError:
            return None
    found = _OCTAL.fullmatch(field)
    if found is None:
        return None
    return int(found[1], 8) if found[1].strip(b"-") else 0


def checksum_ok(block: bytes) -> bool:
    """Whether the header's checksum (of unsigned or, by old writers, signed bytes) is right."""
    stored, own = _checksum(block[148:156])
    if stored is None:
        return False
    if block.isascii():
        # adler32's low half is 1 + the sum modulo 65521, which the sum of 512 ASCII bytes stays below
        return (adler32(block) & 0xFFFF) - own == stored
    rest = block[:148] + b"        " + block[156:]
    unsigned = sum(rest)
    return stored in (unsigned, unsigned - 256 * sum(byte >> 7 for byte in rest))


@lru_cache(8192)
def _checksum(field: bytes) -> tuple[int | None, int]:
    """What a checksum field says, and what it adds itself to 1 + the sum of its header, where it counts as spaces."""
    return number(field), 1 + sum(field) - 8 * 0x20


def has_gnu_prefix(block: bytes) -> bool:
    """Whether the fields that hold GNU's access and change times hold text instead, as an old Go writer left it."""
    no_times = number(block[345:357]) is None or number(block[357:369]) is None
    return no_times and block[345:500].split(b"\0", 1)[0].isascii()
