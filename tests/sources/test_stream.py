"""Forward reading, over blocks of any size and over sources."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forensics_lib.errors import DamagedData
from forensics_lib.model import Origin
from forensics_lib.sources.base import BytesSource
from forensics_lib.sources.stream import BlockStream, SourceStream, Stream

DATA = bytes(range(251)) * 9
ORIGIN = Origin("bytes")


class Counting(BytesSource):
    """Bytes that count how many of them were asked for."""

    asked = 0

    def read_at(self, offset: int, length: int) -> bytes:
        data = super().read_at(offset, length)
        self.asked += len(data)
        return data


@st.composite
def streams(draw: st.DrawFn) -> Stream:
    if draw(st.booleans()):
        return SourceStream(BytesSource(DATA, ORIGIN), 0, draw(st.integers(1, 3000)))
    cuts = sorted(draw(st.lists(st.integers(0, len(DATA)), max_size=12)))
    return BlockStream(DATA[a:b] for a, b in zip([0, *cuts], [*cuts, len(DATA)], strict=True))


@given(streams(), st.lists(st.tuples(st.sampled_from("rpsc"), st.integers(0, 700)), max_size=12))
@settings(deadline=None)
def test_whatever_is_asked_for_in_whatever_order(stream: Stream, steps: list[tuple[str, int]]) -> None:
    position = 0
    for what, length in steps:
        expected = DATA[position : position + length]
        if what == "r":
            assert stream.read(length) == expected
        elif what == "p":
            assert stream.peek(length) == expected
        elif what == "s":
            assert stream.skip(length) == len(expected)
        else:
            assert b"".join(stream.chunks(length)) == expected
        position += len(expected) if what != "p" else 0
        assert stream.position == position
    assert stream.read(1 << 40) == DATA[position:]
    assert (stream.read(1), stream.peek(1), stream.skip(1), list(stream.chunks(1))) == (b"", b"", 0, [])
    assert stream.position == len(DATA)


@given(streams(), st.integers(0, 700))
@settings(deadline=None)
def test_chunks_that_are_left_half_way(stream: Stream, length: int) -> None:
    first = next(stream.chunks(length), b"")
    assert stream.position == len(first)
    assert stream.read(50) == DATA[len(first) : len(first) + 50]


def test_reading_starts_where_it_was_told() -> None:
    stream = SourceStream(BytesSource(DATA, ORIGIN), 100)
    assert (stream.position, stream.read(5), stream.position) == (100, DATA[100:105], 105)


def test_skipping_over_a_source_costs_nothing() -> None:
    source = Counting(DATA, ORIGIN)
    stream = SourceStream(source, readahead=100)
    assert stream.skip(2000) == 2000
    assert stream.read(10) == DATA[2000:2010]
    assert source.asked <= 101


@pytest.mark.parametrize("length", [10_000, 1 << 63, 1 << 90])
def test_skipping_beyond_the_end(length: int) -> None:
    for stream in (SourceStream(BytesSource(DATA, ORIGIN)), BlockStream(iter([DATA, b"", DATA[:0]]))):
        assert stream.read(5) == DATA[:5]
        assert stream.skip(length) == len(DATA) - 5
        assert (stream.position, stream.read(1)) == (len(DATA), b"")


def test_blocks_are_taken_only_when_they_are_needed() -> None:
    taken: list[bytes] = []

    def blocks() -> Iterator[bytes]:
        for block in (b"ab", b"", b"cd", b"ef"):
            taken.append(block)
            yield block

    stream = BlockStream(blocks())
    assert (stream.read(2), taken) == (b"ab", [b"ab"])
    assert (stream.peek(1), taken) == (b"c", [b"ab", b"", b"cd"])


def test_damage_is_reached_only_after_everything_before_it() -> None:
    part = BytesSource(DATA, ORIGIN).slice(100, 9000, "cut off")
    stream = SourceStream(part)
    there = (len(DATA) - 100) // 64
    assert b"".join(stream.read(64) for _ in range(there)) == DATA[100 : 100 + 64 * there]
    with pytest.raises(DamagedData, match="9000 bytes are declared"):
        stream.read(64)


def test_a_bare_stream_reads_nothing() -> None:
    with pytest.raises(NotImplementedError):
        Stream().read(1)
