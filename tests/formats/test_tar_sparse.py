"""Sparse members: six ways to write the map, wrong maps, and files that GNU tar and bsdtar made."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forensics_lib.errors import DamagedData
from forensics_lib.formats.tar import TarDecoder
from forensics_lib.formats.tar_sparse import expand, extents
from forensics_lib.sources.stream import BlockStream
from tests.tarmaker import TarMaker, base256, octal
from tests.tarreader import ORIGIN, by_position, entries, gnu_tar, in_blocks, one, streamed, tool

WAYS = ["gnu", "star", "0.0", "0.1", "1.0"]
Parts = list[tuple[int, int]]


def sparse(way: str, parts: Parts, total: int, data: bytes) -> TarMaker:
    if way == "gnu":
        return TarMaker("gnu").gnu_sparse("sparse", parts, total, data)
    if way == "star":
        return TarMaker("star").star_sparse("sparse", parts, total, data)
    return TarMaker("pax").pax_sparse("sparse", parts, total, data, way)


def expanded(parts: Parts, total: int, data: bytes) -> bytes:
    content = bytearray(total)
    for offset, length in parts:
        content[offset : offset + length], data = data[:length], data[length:]
    return bytes(content)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("parts", "total"),
    [
        ([(0, 2), (5, 3)], 8),
        ([(0, 2), (5, 3)], 10),
        ([(1, 3), (6, 2)], 8),
        ([(1, 3), (6, 0), (6, 0), (6, 2), (8, 0), (8, 0)], 10),
        ([(0, 1000)], 1000),  # no hole at all
        ([(1000, 0)], 1000),  # nothing but a hole
        ([(0, 0)], 0),
        ([(i, 1) for i in range(1, 190, 2)], 200),  # 95 parts: 4 in the header, five blocks of 21 behind it
        ([(i * 1024, 512) for i in range(25)], 25 * 1024),  # the blocks are exactly full
        ([(i * 1024, 512) for i in range(26)], 26 * 1024),
    ],
)
def test_content_of_sparse_members(way: str, parts: Parts, total: int) -> None:
    data = random.Random(2).randbytes(sum(length for _, length in parts))
    archive = sparse(way, parts, total, data).file("after", b"1").end()
    entry, after = entries(archive)
    assert (entry.name, entry.size, entry.stored_size, entry.anomalies) == ("sparse", total, len(data), ())
    assert entry.sparse == tuple(parts)
    assert entry.is_file
    assert entry.open().read() == expanded(parts, total, data)
    assert (after.name, after.anomalies) == ("after", ())
    assert streamed(archive) == by_position(archive)


@pytest.mark.parametrize("way", WAYS)
def test_a_part_of_a_sparse_member_is_read_without_the_rest(way: str) -> None:
    total = 60_000_000_000
    parts = [(step * 10**10 - 512, 512) for step in range(1, 7)]
    data = b"".join(bytes([step]) * 512 for step in range(1, 7))
    entry = one(sparse(way, parts, total, data).end())
    assert (entry.size, entry.stored_size, entry.anomalies) == (total, 3072, ())
    source = entry.content()
    assert source.read_at(10**10 - 514, 5) == b"\0\0\1\1\1"
    assert source.read_at(total - 3, 100) == b"\6\6\6"
    assert source.read_at(total, 1) == b""
    with entry.open() as content:
        content.seek(-512, os.SEEK_END)
        assert content.read() == b"\6" * 512


def test_sparse_1_0_keeps_its_map_in_blocks_of_its_own() -> None:
    parts = [(i * 4096, 512) for i in range(200)]
    data = random.Random(3).randbytes(512 * 200)
    entry = one(sparse("1.0", parts, 200 * 4096, data).end())
    assert entry.data_offset - entry.header_offset == 512 + 5 * 512
    assert entry.open().read() == expanded(parts, 200 * 4096, data)


def test_comments_in_the_map_of_sparse_1_0() -> None:
    table = b"#!gnu-sparse-format\n1\n#comment\n2\n3\n".ljust(512, b"\0")
    archive = TarMaker().pax({"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9"})
    entry = one(archive.file("x", table + b"abc").end())
    assert (entry.sparse, entry.open().read(), entry.anomalies) == (((2, 3),), b"\0\0abc\0\0\0\0", ())


def test_the_real_name_of_a_sparse_member() -> None:
    archive = TarMaker().pax({"path": "dir/GNUSparseFile.7/x", "GNU.sparse.name": "dir/x", "GNU.sparse.map": "0,1"})
    assert one(archive.file("short", b"1").end()).name == "dir/x"


def test_size_records_of_large_sparse_members() -> None:
    records = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "1000", "size": "000001512"}
    table = b"1\n0\n1000\n".ljust(512, b"\0")
    entry, after = entries(TarMaker().pax(records).file("x", table + b"a" * 1000, size=0).file("after").end())
    assert (entry.size, entry.stored_size, entry.open().read()) == (1000, 1000, b"a" * 1000)
    assert after.name == "after"


def test_star_keeps_the_whole_map_behind_the_header_when_it_has_a_prefix() -> None:
    table = octal(512, 12) + octal(3, 12) + bytes(480) + bytes(8)
    extra = {345: b"dir", 452: octal(600, 12), 476: b"00000000001 00000000001 "}
    archive = TarMaker("star").member("x", "S", size=3, extra=extra).raw(table).content(b"abc")
    entry = one(archive.end())
    assert (entry.sparse, entry.size) == (((512, 3),), 600)
    assert entry.open().read() == bytes(512) + b"abc" + bytes(85)


# --- wrong maps -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("parts", "total"),
    [
        ([(1, 3), (6, 5)], 10),  # beyond the end
        ([(1, 3), (2, 5)], 35),  # overlap
        ([(6, 3), (1, 5)], 35),  # not in order
        ([(0, 9)], 35),  # more than is stored
        ([(1 << 62, 3), (6, 5)], 35),
    ],
)
def test_a_map_that_contradicts_itself_is_an_anomaly(way: str, parts: Parts, total: int) -> None:
    archive = sparse(way, parts, total, b"abcdefgh").file("after", b"1").end()
    entry, after = entries(archive)
    assert entry.sparse is None
    assert (entry.size, entry.open().read()) == (8, b"abcdefgh")
    assert entry.anomalies[0].startswith("sparse map is wrong: ")
    assert (after.name, after.anomalies) == ("after", ())
    assert streamed(archive) == by_position(archive)


@pytest.mark.parametrize("way", WAYS)
def test_stored_bytes_that_no_part_names_are_an_anomaly(way: str) -> None:
    entry, after = entries(sparse(way, [(1, 3)], 10, b"abcde").file("after").end())
    assert (entry.size, entry.open().read()) == (10, b"\0abc\0\0\0\0\0\0")
    assert entry.anomalies == ("sparse map leaves 2 stored bytes out",)
    assert after.name == "after"


@pytest.mark.parametrize(
    "table",
    [b"", b"x\n", b"1\n", b"1\n0\n", b"2\n0\n3\n", b"1\n0\n-3\n", b"1\n0\n+3\n", b"9" * 600, b"9999999\n", b"1\n\n3\n"],
)
def test_a_map_in_the_content_that_cannot_be_read(table: bytes) -> None:
    archive = TarMaker().pax({"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "3"})
    entry, after = entries(archive.file("x", table.ljust(512, b"\0") + b"abc").file("after").end())
    assert entry.sparse is None
    assert entry.anomalies[0].startswith("sparse map is wrong: ")
    assert after.name == "after"


@pytest.mark.parametrize(
    "records",
    [
        {"GNU.sparse.map": "0,3,5"},
        {"GNU.sparse.map": "0,x"},
        {"GNU.sparse.map": "0,-3"},
        {"GNU.sparse.map": "0,3", "GNU.sparse.size": "x"},
        {"GNU.sparse.map": "0,3", "GNU.sparse.size": "-3"},
        {"GNU.sparse.map": "0,3", "GNU.sparse.size": "9" * 19},
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"},
    ],
)
def test_records_that_make_no_map(records: dict[str, str]) -> None:
    archive = TarMaker().pax({"GNU.sparse.size": "3"} | records).file("x", b"abc").file("after").end()
    entry, after = entries(archive)
    assert entry.sparse is None
    assert entry.anomalies[0].startswith("sparse map is wrong: ")
    assert (entry.open().read(), after.name) == (b"abc", "after")


def test_an_unknown_version_of_sparse_files() -> None:
    archive = TarMaker().pax({"GNU.sparse.major": "2", "GNU.sparse.minor": "0", "GNU.sparse.name": "real"})
    entry = one(archive.file("GNUSparseFile.1/real", b"stored").end())
    assert (entry.name, entry.open().read()) == ("real", b"stored")
    assert "version b'2.0' is unknown" in entry.anomalies[0]


@pytest.mark.parametrize("value", [b"fewa\0", base256(-1, 12), base256(1 << 70, 12)])
def test_an_old_map_without_numbers(value: bytes) -> None:
    extra = {386: value.ljust(12, b"\0") + octal(3, 12), 483: octal(9, 12)}
    entry, after = entries(TarMaker("gnu").member("x", "S", b"abc", extra=extra).file("after").end())
    assert (entry.sparse, entry.open().read(), after.name) == (None, b"abc", "after")
    assert entry.anomalies[0].startswith("sparse map is wrong: ")


def test_an_old_map_that_is_cut_off() -> None:
    parts = [(i * 2, 1) for i in range(60)]
    archive = bytes(TarMaker("gnu").gnu_sparse("x", parts, 200, b"y" * 60))
    for cut in (512, 700, 1024, 1300):
        reading = by_position(archive[:cut])
        assert reading.names == ["x"]
        assert "the map is cut off or endless" in reading.members[0].anomalies[0]


def test_an_old_map_without_end() -> None:
    head = TarMaker("gnu").member("x", "S", extra={482: b"\1", 483: octal(9, 12)})
    reading = by_position(bytes(head) + (bytes(504) + b"\1" + bytes(7)) * 2000)
    assert "the map is cut off or endless" in reading.members[0].anomalies[0]


def test_maps_are_bounded() -> None:
    many = ",".join(["0,0"] * 1_100_000)
    entry = one(TarMaker().pax({"GNU.sparse.map": many, "GNU.sparse.size": "0"}).file("x").end())
    assert "a map without end" in entry.anomalies[0]


def test_content_that_ends_early() -> None:
    archive = bytes(sparse("gnu", [(0, 600), (2000, 600)], 4000, b"x" * 1200))[:1400]
    entry = one(archive)
    with pytest.raises(DamagedData):
        entry.open().read()
    stream = BlockStream(in_blocks(archive, 100))
    found = next(iter(TarDecoder(stream, origin=ORIGIN)))
    with pytest.raises(DamagedData, match="content is cut off at byte 2288"):
        list(found.chunks(stream))


def test_extents_leave_empty_parts_out() -> None:
    assert extents([(0, 2), (5, 0), (7, 3), (20, 0)]) == [(0, 0, 2), (7, 2, 3)]


@st.composite
def maps(draw: st.DrawFn) -> tuple[Parts, int, bytes]:
    parts: Parts = []
    end = 0
    for _ in range(draw(st.integers(0, 60))):
        offset = end + draw(st.integers(0, 300))
        length = draw(st.integers(0, 300))
        parts.append((offset, length))
        end = offset + length
    data = draw(st.randoms(use_true_random=False)).randbytes(sum(length for _, length in parts))
    return parts, end + draw(st.integers(0, 3000)), data


@given(maps(), st.sampled_from(WAYS), st.integers(1, 900), st.data())
@settings(deadline=None)
def test_any_map_however_it_is_written(
    made: tuple[Parts, int, bytes], way: str, step: int, draws: st.DataObject
) -> None:
    parts, total, data = made
    if way != "1.0" and not parts:
        parts = [(total, 0)]
    archive = sparse(way, parts, total, data).end()
    content = expanded(parts, total, data)
    entry = one(archive)
    assert (entry.size, entry.anomalies) == (total, ())
    assert entry.open().read() == content
    assert streamed(archive, step).members[0].content == content
    assert b"".join(expand(BlockStream(in_blocks(data, step)), parts, total)) == content
    offset, length = draws.draw(st.integers(0, total + 10)), draws.draw(st.integers(0, total + 10))
    assert entry.content().read_at(offset, length) == content[offset : offset + length]


# --- other tools ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def holes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if sys.platform == "win32":
        pytest.skip("POSIX files")
    root = tmp_path_factory.mktemp("holes")
    random_bytes = random.Random(4).randbytes

    def make(name: str, size: int, parts: dict[int, int]) -> None:
        with (root / name).open("wb") as file:
            file.truncate(size)
            for offset, length in parts.items():
                file.seek(offset)
                file.write(random_bytes(length))

    make("begin", 1 << 20, {0: 5000})
    make("end", 1 << 20, {(1 << 20) - 5000: 5000})
    make("middle", 3 << 20, {1 << 20: 70_000})
    make("nothing", 1 << 20, {})
    make("many", 8 << 20, {step * 65536: 4096 + step for step in range(100)})
    make("odd", 1_000_001, {500_000: 1})
    make("a-long-name-" * 12, 1 << 20, {4096: 10})
    return root


@pytest.mark.parametrize(
    "format",
    [
        ["oldgnu"],
        ["gnu"],
        ["pax", "--sparse-version=0.0"],
        ["pax", "--sparse-version=0.1"],
        ["pax", "--sparse-version=1.0"],
    ],
    ids=" ".join,
)
def test_sparse_files_of_gnu_tar(format: list[str], holes: Path) -> None:
    command = [gnu_tar(), "--sparse", f"--format={format[0]}", *format[1:], "-C", str(holes), "-cf", "-", "."]
    data = subprocess.run(command, capture_output=True, check=True).stdout
    found = {entry.name.removeprefix("./"): entry for entry in entries(data) if entry.typeflag != "5"}
    assert set(found) == {path.name for path in holes.iterdir()}
    if (holes / "many").stat().st_blocks * 512 < 8 << 20:
        assert len(found["many"].sparse or ()) >= 50
    for name, entry in found.items():
        path = holes / name
        assert (entry.size, entry.anomalies) == (path.stat().st_size, ())
        assert entry.open().read() == path.read_bytes()
    assert streamed(data, 4096) == by_position(data)


def test_sparse_files_of_bsdtar(holes: Path) -> None:
    command = [tool("bsdtar"), "--format=pax", "-C", str(holes), "-cf", "-", "."]
    data = subprocess.run(command, capture_output=True, check=True).stdout
    found = {entry.name.removeprefix("./"): entry for entry in entries(data) if entry.typeflag != "5"}
    for path in holes.iterdir():
        entry = found[path.name]
        assert (entry.size, entry.anomalies) == (path.stat().st_size, ())
        assert entry.open().read() == path.read_bytes()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("count", [3, 4, 5, 30])
def test_gnu_tar_reads_the_same_from_what_the_tests_make(way: str, count: int, tmp_path: Path) -> None:
    """The only independent reader of star's sparse format at hand is GNU tar."""
    total = 1024 * count + 512
    parts = [*((1024 * step, 512) for step in range(count)), (total, 0)]
    archive = sparse(way, parts, total, random.Random(count).randbytes(512 * count)).end()
    subprocess.run([gnu_tar(), "-xf", "-", "-C", tmp_path], input=archive, check=True, capture_output=True)
    assert (tmp_path / "sparse").read_bytes() == one(archive).open().read()
