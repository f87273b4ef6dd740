"""What lay on missing devices, from what the others have of RAID 5 and 6.

P is the sum of the pieces of a row, Q the sum of each times a power of 2, in the field of 256 elements with the
polynomial 0x11D. Format: H. P. Anvin, "The mathematics of RAID-6"; Linux ``lib/raid6``.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence

__all__ = ["rebuilt"]

_POLYNOMIAL = 0x11D
_ORDER = 255  # of 2: its powers come again after as many


def rebuilt(data: Sequence[bytes | None], parity: Sequence[bytes | None], wanted: int) -> bytes | None:
    """A piece of a row by the others; nothing when too many are missing.

    Args:
        data: the pieces of the row, all of one length; None for those that cannot be read.
        parity: P, and Q with RAID 6.
        wanted: index of the piece.
    """
    first = parity[0]
    second = parity[1] if len(parity) > 1 else None
    there = [(index, piece) for index, piece in enumerate(data) if piece is not None and index != wanted]
    missing = [index for index, piece in enumerate(data) if piece is None and index != wanted]
    if not missing and first is not None:
        return _sum([first, *(piece for _, piece in there)])
    if second is None:
        return None
    weighed = _sum([second, *(_times(piece, _power(index)) for index, piece in there)])
    if not missing:
        return _times(weighed, _power(-wanted))
    if len(missing) > 1 or first is None:
        return None
    both = _sum([first, *(piece for _, piece in there)])
    other = _power(missing[0])
    return _times(_sum([weighed, _times(both, other)]), _inverse(_power(wanted) ^ other))


def _sum(pieces: Iterable[bytes]) -> bytes:
    total = size = 0
    for piece in pieces:
        total ^= int.from_bytes(piece, "little")
        size = len(piece)
    return total.to_bytes(size, "little")


def _times(data: bytes, factor: int) -> bytes:
    return data.translate(_table(factor))


@functools.cache
def _table(factor: int) -> bytes:
    """Every byte times a factor."""
    return bytes(_product(byte, factor) for byte in range(256))


def _product(left: int, right: int) -> int:
    result = 0
    while right:
        if right & 1:
            result ^= left
        left <<= 1
        if left & 0x100:
            left ^= _POLYNOMIAL
        right >>= 1
    return result


@functools.cache
def _power(exponent: int) -> int:
    """A power of 2; negative ones as well."""
    result = 1
    for _ in range(exponent % _ORDER):
        result = _product(result, 2)
    return result


def _inverse(value: int) -> int:
    return next(one for one in range(1, 256) if _product(one, value) == 1)
