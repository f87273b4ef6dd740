"""Slices, extents and file objects over any source."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forensics_lib.errors import DamagedData, LimitExceeded
from forensics_lib.model import Origin
from forensics_lib.sources.base import BLOCK, BytesSource, ExtentSource, SliceSource, Source

ORIGIN = Origin("disk.img")
DATA = bytes(range(256)) * 40


class Broken(Source):
    """Bytes that cannot be read from some position on."""

    def __init__(self, data: bytes, good: int) -> None:
        self.data = data
        self.good = good
        self.size = len(data)
        self.origin = ORIGIN
        self.calls = 0

    def read_at(self, offset: int, length: int) -> bytes:
        self.calls += 1
        if min(offset + length, self.size) > self.good:
            raise DamagedData("bad sector", origin=self.origin, offset=self.good)
        return self.data[offset : offset + length]


def whole(data: bytes = DATA) -> BytesSource:
    return BytesSource(data, ORIGIN)


def drain(blocks: Iterator[bytes], got: bytearray) -> None:
    for block in blocks:
        got += block


# --- positional reads -------------------------------------------------------------------------------------------------


@given(st.binary(max_size=300), st.integers(0, 400), st.integers(-5, 400))
@settings(deadline=None)
def test_bytes_at_a_position(data: bytes, offset: int, length: int) -> None:
    assert whole(data).read_at(offset, length) == data[offset : offset + max(length, 0)]


@given(st.data())
@settings(deadline=None)
def test_a_slice_of_a_slice_equals_the_slice_of_the_bytes(draws: st.DataObject) -> None:
    numbers = st.integers(0, len(DATA))
    first, second = draws.draw(numbers), draws.draw(numbers)
    outer = whole().slice(first, len(DATA) - first, "partition")
    inner = outer.slice(second, max(0, outer.size - second), "file")
    expected = DATA[first:][second:]
    offset, length = draws.draw(numbers), draws.draw(numbers)
    assert inner.size == len(expected)
    assert inner.read_at(offset, length) == expected[offset : offset + length]
    assert b"".join(inner.blocks(offset)) == expected[offset:]
    assert b"".join(inner.blocks(offset, length)) == expected[offset : offset + length]


def test_a_slice_names_where_it_lies() -> None:
    inner = whole().slice(512, 1000, "partition 1").slice(10, 5, "file")
    assert str(inner.origin) == "disk.img > partition 1 @512 > file @10"


@st.composite
def layouts(draw: st.DrawFn) -> tuple[list[tuple[int, int, int]], int]:
    extents = []
    end = 0
    for _ in range(draw(st.integers(0, 12))):
        logical = end + draw(st.integers(0, 200))
        length = draw(st.integers(0, 200))
        extents.append((logical, draw(st.integers(0, len(DATA) - length)), length))
        end = logical + length
    return extents, end + draw(st.integers(0, 200))


@given(layouts(), st.integers(0, 5000), st.integers(0, 5000))
@settings(deadline=None)
def test_extents_and_the_holes_between_them(
    layout: tuple[list[tuple[int, int, int]], int], offset: int, length: int
) -> None:
    extents, size = layout
    expected = bytearray(size)
    for logical, physical, count in extents:
        expected[logical : logical + count] = DATA[physical : physical + count]
    source = ExtentSource(whole(), extents, size, ORIGIN)
    assert source.read_at(offset, length) == expected[offset : offset + length]
    assert b"".join(source.blocks()) == expected


def test_an_extent_may_be_longer_than_the_file() -> None:
    source = ExtentSource(whole(), [(0, 100, 512)], 300, ORIGIN)
    assert b"".join(source.blocks()) == DATA[100:400]


def test_a_million_extents_are_not_copied_for_every_read() -> None:
    extents = [(step * 4, 0, 1) for step in range(200_000)]
    source = ExtentSource(whole(b"x"), extents, 800_000, ORIGIN)
    for offset in range(0, 800_000, 997):
        assert source.read_at(offset, 4).count(b"x") == 1


@pytest.mark.parametrize(
    "source",
    [whole(), whole().slice(10, 50, "part"), ExtentSource(whole(), [(0, 0, 5)], 50, ORIGIN)],
    ids=["bytes", "slice", "extents"],
)
def test_nothing_before_the_start_is_read(source: Source) -> None:
    with pytest.raises(DamagedData, match="position -1 lies before the start"):
        source.read_at(-1, 5)
    assert source.read_at(source.size, 5) == b""
    assert source.read_at(1 << 80, 5) == b""


# --- damage -----------------------------------------------------------------------------------------------------------


def test_a_slice_that_is_declared_longer_than_its_parent() -> None:
    part = whole().slice(len(DATA) - 100, 500, "layer.tar")
    assert part.size == 500
    assert part.read_at(0, 100) == DATA[-100:]
    with pytest.raises(DamagedData, match="500 bytes are declared, only 100 are there") as caught:
        part.read_at(90, 20)
    assert str(caught.value.origin) == f"disk.img > layer.tar @{len(DATA) - 100}"
    assert caught.value.offset == 90


@pytest.mark.parametrize("nested", [0, 1, 2])
def test_blocks_hand_out_everything_before_the_damage(nested: int) -> None:
    data = os.urandom(BLOCK + 12_345)
    part: Source = whole(data)
    for level in range(nested + 1):
        part = part.slice(1, len(data) + 1000, f"level {level}")
    got = bytearray()
    with pytest.raises(DamagedData):
        drain(part.blocks(), got)
    assert got == data[nested + 1 :]


@given(st.integers(0, 3000), st.integers(0, 3000), st.integers(1, 3000))
@settings(deadline=None)
def test_as_much_as_can_be_read_in_front_of_damage(good: int, offset: int, length: int) -> None:
    source = Broken(DATA[:3000], good)
    got = bytearray()
    position = offset
    try:
        while data := source.read_some(position, length):
            assert len(data) <= length
            got += data
            position += len(data)
    except DamagedData:
        assert position >= good
        assert source.calls < 200 + 3000 // length * 3
    assert got == (DATA[offset:good] if good < 3000 else DATA[offset:3000])


def test_an_extent_beyond_its_parent_is_no_zeros() -> None:
    source = ExtentSource(whole(b"abc"), [(0, 0, 2), (10, 2, 5)], 20, ORIGIN)
    assert source.read_at(0, 10) == b"ab" + bytes(8)
    with pytest.raises(DamagedData, match="an extent lies beyond the end") as caught:
        source.read_at(5, 10)
    assert caught.value.offset == 11


def test_a_limit_is_damage_too() -> None:
    class Bomb(Broken):
        def read_at(self, offset: int, length: int) -> bytes:
            if offset + length > 10:
                raise LimitExceeded("a bomb", origin=self.origin)
            return bytes(length)

    with pytest.raises(LimitExceeded):
        list(Bomb(bytes(100), 0).blocks())


# --- as a file --------------------------------------------------------------------------------------------------------


@given(st.data())
@settings(deadline=None)
def test_a_source_as_a_file(draws: st.DataObject) -> None:
    ours, real = whole().open(), io.BytesIO(DATA)
    for _ in range(draws.draw(st.integers(1, 8))):
        whence = draws.draw(st.sampled_from([os.SEEK_SET, os.SEEK_CUR, os.SEEK_END]))
        offset = draws.draw(st.integers(0 if whence == os.SEEK_SET else -100, 11_000))
        if whence == os.SEEK_CUR and real.tell() + offset < 0:
            continue
        assert ours.seek(offset, whence) == real.seek(offset, whence)
        count = draws.draw(st.integers(-1, 9000))
        assert ours.read(count) == real.read(count)
        assert ours.tell() == real.tell()


def test_a_file_is_read_only() -> None:
    with whole().open() as file:
        assert (file.readable(), file.seekable(), file.writable()) == (True, True, False)
        with pytest.raises(io.UnsupportedOperation):
            file.write(b"x")
        with pytest.raises(ValueError, match="negative"):
            file.seek(-1)
        assert list(file)[0] == DATA[: DATA.index(b"\n") + 1]  # noqa: RUF015 - iterating it is what is tested


def test_a_file_over_damage_reads_up_to_it() -> None:
    with Broken(DATA, 5000).open() as file:
        assert file.read(5000) == DATA[:5000]
        with pytest.raises(DamagedData, match="bad sector"):
            file.read(1)


def test_threads_do_not_disturb_each_other() -> None:
    part = whole().slice(0, len(DATA), "part")

    def read(start: int) -> bool:
        return all(part.read_at(offset, 7) == DATA[offset : offset + 7] for offset in range(start, len(DATA), 97))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read, range(20)))


def test_a_slice_with_an_absurd_size_is_a_fault_and_no_memory() -> None:
    part = SliceSource(whole(), 5, 1 << 62, ORIGIN)
    with pytest.raises(DamagedData, match="only 10235 are there"):
        part.read_at(0, 1 << 61)


def test_holes_without_end_are_not_read_through() -> None:
    stored = BytesSource(b"abc", ORIGIN)
    endless = ExtentSource(stored, [(5, 0, 3)], 1 << 62, ORIGIN)
    assert (endless.stored_size, stored.stored_size) == (3, 3)
    with pytest.raises(LimitExceeded, match="3 stored bytes stand for"):
        next(endless.blocks())
    assert endless.read_at(0, 10) == b"\0\0\0\0\0abc\0\0"
    assert b"".join(endless.blocks(1 << 40, 1 << 20)) == bytes(1 << 20)
    large = ExtentSource(stored, [(5, 0, 3)], 1 << 30, ORIGIN)  # a gibibyte is read in a second, whatever is in it
    assert next(large.blocks())[:9] == b"\0\0\0\0\0abc\0"
