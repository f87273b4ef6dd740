"""Which blocks something starts in, against looking at each block by itself."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forensics_lib.recovery.carve_starts import Start, starts

BLOCK = 512
TEXT = re.compile(rb"[\t-\r\x1b\x20-\x7e\x80-\xff]{2,}\0*\Z")
KINDS = [
    bytes(BLOCK),
    b"\x1f\x8b\x08\0" + bytes(range(256)),
    b"\x28\xb5\x2f\xfd" + bytes(range(200)),
    b"SQLite format 3\0\x10\0" + bytes(80),
    b"name\0" + bytes(252) + b"ustar\x0000",
    bytes(16) + b"\xed\xda\x0c\xed",
    b"a short text\n",
    b"a text that fills its block " * 20,
    "\u00fcber".encode(),
    b"te\0xt",
    b"\x01binary",
    b"S",
]


def expected(block: bytes) -> Start | None:
    for place, start in ((257, Start.TAR), (16, Start.BOLT)):
        if block[place:].startswith(start.value):
            return start
    for start in (Start.GZIP, Start.ZSTD, Start.SQLITE):
        if block.startswith(start.value):
            return start
    return Start.TEXT if TEXT.match(block[:64]) else None


@settings(deadline=None)
@given(st.lists(st.sampled_from(KINDS) | st.binary(max_size=BLOCK), max_size=20), st.integers(0, 3))
def test_all_blocks_at_once_as_one_by_one(pieces: list[bytes], behind: int) -> None:
    blocks = [piece[:BLOCK].ljust(BLOCK, b"\0") for piece in pieces]
    data = b"".join(blocks)
    wanted = [(number * BLOCK, what) for number, block in enumerate(blocks) if (what := expected(block)) is not None]
    assert starts(data + bytes(behind * BLOCK), len(data), BLOCK) == wanted


@pytest.mark.parametrize("block", [512, 1024, 4096])
def test_a_window_that_ends_inside_a_block(block: int) -> None:
    data = bytes(block) + b"text"
    assert starts(data, len(data), block) == [(block, Start.TEXT)]
    assert starts(b"", 0, block) == []
