"""The two hashes of values in systemd journals: Jenkins' lookup3, and SipHash-2-4 with the file's id as key.

Sources: Bob Jenkins, ``lookup3.c`` (``hashlittle2``); Aumasson and Bernstein, "SipHash: a fast short-input PRF".
"""

from __future__ import annotations

import struct

__all__ = ["jenkins64", "siphash24"]

_MASK32, _MASK64 = (1 << 32) - 1, (1 << 64) - 1
_WORDS = struct.Struct("<III")


def jenkins64(data: bytes) -> int:
    """The 64 bits of `hashlittle2` as the journal puts them together."""
    a = b = c = (0xDEADBEEF + len(data)) & _MASK32
    whole = (len(data) - 1) // 12 * 12 if data else 0
    x: int
    y: int
    z: int
    for x, y, z in _WORDS.iter_unpack(data[:whole]):
        a, b, c = (a + x) & _MASK32, (b + y) & _MASK32, (c + z) & _MASK32
        a = ((a - c) & _MASK32) ^ ((c << 4 | c >> 28) & _MASK32)
        c = (c + b) & _MASK32
        b = ((b - a) & _MASK32) ^ ((a << 6 | a >> 26) & _MASK32)
        a = (a + c) & _MASK32
        c = ((c - b) & _MASK32) ^ ((b << 8 | b >> 24) & _MASK32)
        b = (b + a) & _MASK32
        a = ((a - c) & _MASK32) ^ ((c << 16 | c >> 16) & _MASK32)
        c = (c + b) & _MASK32
        b = ((b - a) & _MASK32) ^ ((a << 19 | a >> 13) & _MASK32)
        a = (a + c) & _MASK32
        c = ((c - b) & _MASK32) ^ ((b << 4 | b >> 28) & _MASK32)
        b = (b + a) & _MASK32
    if not data:
        return c << 32 | b
    x, y, z = _WORDS.unpack(data[whole:].ljust(12, b"\0"))
    a, b, c = (a + x) & _MASK32, (b + y) & _MASK32, (c + z) & _MASK32
    c = ((c ^ b) - (b << 14 | b >> 18)) & _MASK32
    a = ((a ^ c) - ((c << 11 | c >> 21) & _MASK32)) & _MASK32
    b = ((b ^ a) - ((a << 25 | a >> 7) & _MASK32)) & _MASK32
    c = ((c ^ b) - ((b << 16 | b >> 16) & _MASK32)) & _MASK32
    a = ((a ^ c) - ((c << 4 | c >> 28) & _MASK32)) & _MASK32
    b = ((b ^ a) - ((a << 14 | a >> 18) & _MASK32)) & _MASK32
    c = ((c ^ b) - ((b << 24 | b >> 8) & _MASK32)) & _MASK32
    return c << 32 | b


def siphash24(data: bytes, key: bytes) -> int:
    """SipHash-2-4 of some bytes with a key of 16 bytes."""
    first, second = int.from_bytes(key[:8], "little"), int.from_bytes(key[8:16], "little")
    v0, v1 = first ^ 0x736F6D6570736575, second ^ 0x646F72616E646F6D
    v2, v3 = first ^ 0x6C7967656E657261, second ^ 0x7465646279746573
    padded = data + bytes(-(len(data) + 1) % 8) + bytes([len(data) & 0xFF])
    words: list[int] = [word for (word,) in struct.iter_unpack("<Q", padded)]
    for word, rounds in (*((word, 2) for word in words), (0, 4)):
        if rounds == 4:
            v2 ^= 0xFF
        v3 ^= word
        for _ in range(rounds):
            v0 = (v0 + v1) & _MASK64
            v1 = ((v1 << 13 | v1 >> 51) & _MASK64) ^ v0
            v0 = (v0 << 32 | v0 >> 32) & _MASK64
            v2 = (v2 + v3) & _MASK64
            v3 = ((v3 << 16 | v3 >> 48) & _MASK64) ^ v2
            v0 = (v0 + v3) & _MASK64
            v3 = ((v3 << 21 | v3 >> 43) & _MASK64) ^ v0
            v2 = (v2 + v1) & _MASK64
            v1 = ((v1 << 17 | v1 >> 47) & _MASK64) ^ v2
            v2 = (v2 << 32 | v2 >> 32) & _MASK64
        v0 ^= word
    return v0 ^ v1 ^ v2 ^ v3
