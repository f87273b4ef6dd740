from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forensics_lib.formats.utmp import LoginRecord, read_utmp, utmp_size

FORMS = {384: "<hxxi32s4s32s256shhiii16s20x", 400: "<hxxi32s4s32s256shhqqq16s20x4x"}


def record(size: int, kind: int, user: bytes, line: bytes, host: bytes, seconds: int, micros: int = 5) -> bytes:
    return struct.pack(FORMS[size], kind, 42, line, b"", user, host, 0, 0, 0, seconds, micros, b"")


@pytest.mark.parametrize("size", FORMS)
def test_records(size: int) -> None:
    data = record(size, 2, b"reboot", b"~", b"6.1.0-40", 1_700_000_000) + bytes(size)
    data += record(size, 7, b"ana", b"pts/0", b"192.0.2.7", 1_700_000_100) + b"torn"
    assert utmp_size(data) == size
    expected = [
        LoginRecord("boot", 42, "~", "reboot", "6.1.0-40", 1_700_000_000_000_005_000, 0),
        LoginRecord("login", 42, "pts/0", "ana", "192.0.2.7", 1_700_000_100_000_005_000, 2 * size),
    ]
    assert list(read_utmp([data], size)) == expected
    assert list(read_utmp([data[i : i + 7] for i in range(0, len(data), 7)], size)) == expected


@given(st.binary(max_size=2000))
def test_any_bytes(junk: bytes) -> None:
    size = utmp_size(junk)
    for found in read_utmp([junk], size):
        assert found.offset % size == 0
