"""The four checksums that btrfs can protect its blocks with: CRC-32C, xxHash64, SHA-256 and BLAKE2b-256.

Source: the btrfs manual, *checksum algorithms*; the xxHash specification (XXH64, seed 0).
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable

from forensics_lib._crc32c import crc32c

__all__ = ["CHECKSUMS", "xxhash64"]

_MASK = (1 << 64) - 1
_PRIMES = (
    0x9E3779B185EBCA87,
    0xC2B2AE3D27D4EB4F,
    0x165667B19E3779F9,
    0x85EBCA77C2B2AE63,
    0x27D4EB2F165667C5,
)


def xxhash64(data: bytes) -> int:
    """XXH64 of some bytes with seed 0."""
    first, second, third, fourth, fifth = _PRIMES
    striped = len(data) & ~31
    if striped:
        lanes = [(first + second) & _MASK, second, 0, -first & _MASK]
        for words in struct.iter_unpack("<4Q", data[:striped]):
            lanes = [_round(lane, word) for lane, word in zip(lanes, words, strict=True)]
        value = sum(_rotated(lane, by) for lane, by in zip(lanes, (1, 7, 12, 18), strict=True)) & _MASK
        for lane in lanes:
            value = ((value ^ _round(0, lane)) * first + fourth) & _MASK
    else:
        value = fifth
    value = (value + len(data)) & _MASK
    position = striped
    while position + 8 <= len(data):
        (word,) = struct.unpack_from("<Q", data, position)
        value = (_rotated(value ^ _round(0, word), 27) * first + fourth) & _MASK
        position += 8
    if position + 4 <= len(data):
        (word,) = struct.unpack_from("<I", data, position)
        value = (_rotated(value ^ (word * first & _MASK), 23) * second + third) & _MASK
        position += 4
    for byte in data[position:]:
        value = _rotated(value ^ (byte * fifth & _MASK), 11) * first & _MASK
    value = (value ^ value >> 33) * second & _MASK
    value = (value ^ value >> 29) * third & _MASK
    return value ^ value >> 32


def _round(lane: int, word: int) -> int:
    return _rotated((lane + word * _PRIMES[1]) & _MASK, 31) * _PRIMES[0] & _MASK


def _rotated(value: int, by: int) -> int:
    return (value << by | value >> 64 - by) & _MASK


CHECKSUMS: dict[int, Callable[[bytes], bytes]] = {
    0: lambda data: crc32c(data).to_bytes(4, "little"),
    1: lambda data: xxhash64(data).to_bytes(8, "little"),
    2: lambda data: hashlib.sha256(data).digest(),
    3: lambda data: hashlib.blake2b(data, digest_size=32).digest(),
}
"""Functions by the number that the superblock names; each gives the bytes as they are stored."""
