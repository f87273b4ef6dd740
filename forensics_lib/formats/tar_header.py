"""The fixed fields of a tar header block: numbers and the checksum, as writers of all ages have written them."""

from __future__ import annotations

import re
from zlib import adler32

__all__ = ["BLOCK_SIZE", "checksum_ok", "has_gnu_prefix", "number", "sum_is"]

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


# The field counts as eight spaces (256 in all). adler32's low half is 1 + the sum modulo 65521, which the sum of 512
# ASCII bytes stays below: a loop in C over what nearly all headers are.


def checksum_ok(block: bytes) -> bool:
    """Whether the header's checksum (of unsigned or, by old writers, signed bytes) is right."""
    field = block[148:156]
    stored = number(field)
    if stored is None:
        return False
    if block.isascii():
        return stored == (adler32(block) & 0xFFFF) - 1 - sum(field) + 256
    unsigned = sum(block) - sum(field) + 256
    return stored == unsigned or stored == unsigned - 256 * sum(byte >> 7 for byte in block[:148] + block[156:])


def sum_is(block: bytes, digits: bytes) -> bool:
    """`checksum_ok` for a header whose checksum field is six digits, NUL and space, as nearly all are.

    Raises:
        ValueError: the digits are not octal.
    """
    if not block.isascii() or not digits.isdigit():
        return checksum_ok(block)
    return int(digits, 8) == (adler32(block) & 0xFFFF) - 1 - sum(digits) + 224


def has_gnu_prefix(block: bytes) -> bool:
    """Whether the fields that hold GNU's access and change times hold text instead, as an old Go writer left it."""
    no_times = number(block[345:357]) is None or number(block[357:369]) is None
    return no_times and block[345:500].split(b"\0", 1)[0].isascii()
