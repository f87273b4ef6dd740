from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forensics_lib import _crc32c as module
from forensics_lib._crc32c import crc32c

EVERY = [module._in_python, crc32c]  # the second one is in C where google-crc32c is installed


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
    ],
)
def test_published_values(data: bytes, value: int) -> None:
    assert [compute(data) for compute in EVERY] == [value, value]  # RFC 3720, B.4


def _bit_by_bit(data: bytes) -> int:
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


@given(st.binary(max_size=700), st.integers(0, 700))
def test_any_bytes_in_one_piece_or_two(data: bytes, cut: int) -> None:
    value = _bit_by_bit(data)
    for compute in EVERY:
        assert compute(data) == value
        assert compute(memoryview(data)[cut:], compute(bytearray(data[:cut]))) == value


def test_long_data_is_taken_in_steps() -> None:
    data = bytes(range(256)) * 2049
    for compute in EVERY:
        assert compute(data) == compute(data[300_000:], compute(data[:300_000]))
