"""CRC-32C (Castagnoli), with which XFS, btrfs and ext4 protect their metadata.

By google-crc32c where it is installed (extra ``disk``), which takes a hundredth of the time; else in plain Python:

A message is a polynomial over GF(2), and its checksum the remainder of a division. Instead of going byte by byte, the
message is taken as one large integer whose front is folded onto its back, again and again; that takes a few shifts of
large integers, and is some twenty times as fast as a table of bytes.

Source of the polynomial and the bit order: RFC 3720, section 12.1 and appendix B.4.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

__all__ = ["crc32c"]

_POLYNOMIAL = 0x82F63B78  # the coefficient of the highest power in the lowest bit, as everywhere here
_STEP_LOG = 18
_STEP = 1 << _STEP_LOG  # bytes folded at a time
_SHORT = 128  # bits; below this a table is quicker


def crc32c(data: bytes | bytearray | memoryview, value: int = 0) -> int:
    """The checksum of some bytes.

    Args:
        data: the bytes.
        value: checksum of the bytes before them, to go on from there.
    """
    if _in_c is not None:
        return _in_c(value, bytes(data))
    return _in_python(data, value)


def _in_python(data: bytes | bytearray | memoryview, value: int = 0) -> int:
    for start in range(0, len(data), _STEP):
        value = _checksum(data[start : start + _STEP], value)
    return value


def _checksum(data: bytes | bytearray | memoryview, value: int) -> int:
    message = int.from_bytes(data, "little") ^ value ^ 0xFFFFFFFF
    bits = len(data) * 8 + 32
    while bits > _SHORT:
        power = (bits - 1).bit_length() - 1
        front = bits - (1 << power)
        bits = max(1 << power, front + 32)
        folded = _multiply(message & ((1 << front) - 1), _POWERS[power])
        message = (folded << bits - front - 32) ^ (message >> front << bits - (1 << power))
    return _remainder(message, bits) ^ 0xFFFFFFFF


def _remainder(message: int, bits: int) -> int:
    for _ in range((bits - 32) // 8):
        message = _TABLE[message & 0xFF] ^ message >> 8
    return message


def _multiply(left: int, right: int) -> int:
    """Product with a remainder of 32 bits; 32 bits longer than `left`."""
    product = 0
    while right:
        lowest = right & -right
        product ^= left << lowest.bit_length()
        right ^= lowest
    return product


def _byte(value: int) -> int:
    for _ in range(8):
        value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
    return value


def _installed() -> Callable[[int, bytes], int] | None:
    """The function of google-crc32c, if it is there and compiled."""
    with warnings.catch_warnings():  # it warns where it is in plain Python itself
        warnings.simplefilter("ignore")
        try:
            import google_crc32c
        except ImportError:
            return None
    return google_crc32c.extend if google_crc32c.implementation == "c" else None


_in_c = _installed()
_TABLE = tuple(map(_byte, range(256)))
_POWERS = [1 << 30]  # x, x**2, x**4, x**8 …
while len(_POWERS) < _STEP_LOG + 4:
    _POWERS.append(_remainder(_multiply(_POWERS[-1], _POWERS[-1]), 64))
