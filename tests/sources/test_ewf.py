"""E01 images against the disk that is inside them, and against ewfacquire and libewf."""

from __future__ import annotations

import hashlib
import importlib
import pickle
import zlib
from array import array
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forensics_lib.errors import DamagedData, ForensicsError, UnsupportedFormat
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.sources import ewf
from forensics_lib.sources.base import BytesSource, Source
from forensics_lib.sources.ewf import Ewf, segments_beside
from forensics_lib.sources.file import FileSource
from tests.diskmaker import (
    SIZE,
    assert_same,
    big_content,
    content,
    fixture,
    raw_file,
    read_or_damage,
    run,
    stored,
    unpack,
)

SPLIT = ("split.E01", "split.E02", "split.E03", "split.E04")
CHUNK = 32_768
MD5, SHA1 = hashlib.md5(content()).hexdigest(), hashlib.sha1(content()).hexdigest()


def opened(*segments: str | Source) -> tuple[Ewf, list[str]]:
    problems = ProblemLog()
    sources = [fixture(segment) if isinstance(segment, str) else segment for segment in segments]
    disk = Ewf(sources, problems)
    return disk, [problem.message for problem in problems.rows]


def changed(name: str, *flips: int, end: int | None = None) -> BytesSource:
    data = bytearray(stored(name)[:end])
    for place in flips:
        data[place] ^= 0xFF
    return BytesSource(bytes(data), Origin(name))


def chunks(disk: Ewf) -> tuple[list[int], list[int]]:
    """Numbers of the chunks that are right, and of those that raise; nothing may be wrong."""
    right, lost = [], []
    for number in range(-(-disk.size // CHUNK)):
        try:
            assert disk.read_at(number * CHUNK, CHUNK) == content()[number * CHUNK : (number + 1) * CHUNK]
            right.append(number)
        except DamagedData:
            lost.append(number)
    return right, lost


# --- the disk inside --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("segments", [SPLIT, ("best.E01",), ("smart.s01",)], ids=["split", "compressed", "smart"])
def test_the_disk_inside(segments: tuple[str, ...]) -> None:
    disk, problems = opened(*segments)
    assert problems == []
    assert_same(disk, content(), border=CHUNK)
    assert disk.size == SIZE
    assert disk.chunk_size == CHUNK
    assert disk.read_errors == ()
    assert str(disk.origin) == f"{segments[0]} > ewf"


def test_what_was_noted_at_acquisition() -> None:
    disk, _ = opened(*SPLIT)
    assert disk.stored_hashes == (("md5", MD5), ("sha1", SHA1))
    assert (
        dict(disk.acquisition).items()
        >= {
            "case_number": "2024-17",
            "evidence_number": "disk 1",
            "examiner": "A. Examiner",
            "description": "test disk",
            "notes": "none",
            "software_version": "20140813",
        }.items()
    )


def test_segments_in_any_order() -> None:
    disk, problems = opened(*reversed(SPLIT))
    assert problems == []
    assert disk.read_at(0, SIZE) == content()


OPTIONS = [
    "-f encase6 -c none",
    "-f encase6 -c best -S 1MiB",
    "-f encase7 -c empty-block -b 16 -d sha1",
    "-f encase2 -c fast",
    "-f ewf -c best",
    "-f ftk -c fast -d sha1 -S 1MiB",
    "-f smart -c none -S 2MiB",
    "-f linen7 -c none -b 512",
    "-f ewfx -c fast",
]


@pytest.mark.parametrize("options", OPTIONS)
def test_images_of_ewfacquire(tmp_path: Path, options: str) -> None:
    disk = big_content()
    run("ewfacquire", "-u", "-q", *options.split(), "-t", tmp_path / "image", raw_file(tmp_path, disk))
    problems = ProblemLog()
    image = Ewf(segments_beside(FileSource(min(tmp_path.glob("image.*01")))), problems)
    assert problems.rows == []
    assert_same(image, disk, border=image.chunk_size)
    assert dict(image.stored_hashes)["md5"] == hashlib.md5(disk).hexdigest()


def test_images_of_ewfacquirestream(tmp_path: Path) -> None:
    disk = big_content(5_000_000 // 512 * 512)
    run("ewfacquirestream", "-q", "-c", "best", "-t", tmp_path / "image", stdin=disk)
    problems = ProblemLog()
    image = Ewf(segments_beside(FileSource(tmp_path / "image.E01")), problems)
    assert_same(image, disk, border=CHUNK)


def test_libewf_agrees(tmp_path: Path) -> None:
    pyewf = pytest.importorskip("pyewf")
    first = unpack(tmp_path, *SPLIT)
    handle = pyewf.handle()
    handle.open(pyewf.glob(str(first)))
    disk, _ = opened(*SPLIT)
    assert handle.get_media_size() == disk.size
    for place in range(0, SIZE, 99_991):
        assert handle.read_buffer_at_offset(70_000, place) == disk.read_at(place, 70_000)


def test_it_can_be_sent_to_another_process(tmp_path: Path) -> None:
    disk = Ewf(segments_beside(FileSource(unpack(tmp_path, *SPLIT))), ProblemLog())
    assert pickle.loads(pickle.dumps(disk)).read_at(0, SIZE) == content()


# --- finding segments -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["split.E01", "split.E03"])
def test_segments_are_found_from_any_of_them(tmp_path: Path, name: str) -> None:
    unpack(tmp_path, *SPLIT, "best.E01")
    (tmp_path / "split.E05").write_bytes(b"no segment")
    (tmp_path / "split.txt").write_bytes(b"text")
    found = segments_beside(FileSource(tmp_path / name))
    assert sorted(source.origin.label for source in found) == list(SPLIT)


def test_segments_beyond_99_and_small_letters(tmp_path: Path) -> None:
    data = stored("split.E02")
    names = ["case 1.e01", "case 1.e99", "case 1.eaa", "case 1.ezz", "case 1.faa"]
    for name in names:
        (tmp_path / name).write_bytes(data)
    for name in ("case 1.dat", "case 1.1aa", "case 2.e02"):
        (tmp_path / name).write_bytes(data)
    for start in ("case 1.e01", "case 1.faa"):
        found = segments_beside(FileSource(tmp_path / start))
        assert sorted(source.origin.label for source in found) == names


def test_other_files_of_the_format() -> None:
    logical = BytesSource(b"LVF\x09\x0d\x0a\xff\x00" + bytes(100), Origin("files.L01"))
    for source, message in ((logical, "logical evidence"), (BytesSource(bytes(100), Origin("x")), "magic")):
        with pytest.raises(UnsupportedFormat, match=message):
            opened(source)
    with pytest.raises(UnsupportedFormat, match="at least one"):
        opened()


# --- missing and damaged parts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("present", "lost", "message"),
    [
        ((0, 1, 2), range(93, 97), "segment 4 is missing, and all after it"),
        ((0, 1, 3), range(62, 93), "segment 3 is missing"),
        ((0, 3), range(31, 93), "segments 2 to 3 are missing"),
        ((1, 2, 3), range(31), "segment 1 is missing"),
        ((3,), range(93), "segments 1 to 3 are missing"),
    ],
)
def test_missing_segments(present: tuple[int, ...], lost: range, message: str) -> None:
    disk, problems = opened(*(SPLIT[number] for number in present))
    assert message in problems
    assert chunks(disk)[1] == list(lost)
    size = disk.size
    assert size == SIZE
    last = -(-SIZE // CHUNK) - 1
    numbers = f"chunks {lost[0]} to {lost[-1]} of {last + 1} are missing"
    assert any(text.startswith(numbers) for text in problems)


def test_tables_between_two_gaps_cannot_be_placed() -> None:
    disk, problems = opened(SPLIT[0], SPLIT[2])
    assert chunks(disk)[0] == list(range(31))
    assert "1 tables of chunks lie between missing parts and cannot be placed" in problems


def test_a_cut_segment_keeps_the_chunks_that_are_there() -> None:
    disk, problems = opened(SPLIT[0], changed(SPLIT[1], end=500_000), *SPLIT[2:])
    _, lost = chunks(disk)
    assert lost == list(range(46, 62))
    assert "an index of chunks is lost; 15 chunks were found without it" in problems
    assert any("beyond the end of the file" in text for text in problems)


def test_a_cut_compressed_image() -> None:
    disk, problems = opened(changed("best.E01", end=9000))
    right, _ = chunks(disk)
    assert right
    assert right == list(range(len(right)))
    assert f"an index of chunks is lost; {len(right)} chunks were found without it" in problems


def test_a_compressed_chunk_that_is_damaged() -> None:
    disk, _ = opened("best.E01")
    place = disk._index(0, disk._tables[0][1])[5] >> 1
    disk, problems = opened(changed("best.E01", place + 20))
    assert problems == []
    assert chunks(disk)[1] == [5]
    with pytest.raises(DamagedData, match="chunk 5 is damaged") as caught:
        disk.read_at(5 * CHUNK + 7, 1)
    assert caught.value.offset == place
    assert str(caught.value.origin) == f"best.E01 > chunk 5 @{place}"


def test_a_plain_chunk_that_is_damaged_is_handed_out_and_named() -> None:
    disk, _ = opened(*SPLIT)
    place = disk._index(0, disk._tables[0][1])[5] >> 1
    problems = ProblemLog()
    disk = Ewf([changed(SPLIT[0], place + 20), *map(fixture, SPLIT[1:])], problems)
    data = disk.read_at(5 * CHUNK, CHUNK)
    assert data[20] == content()[5 * CHUNK + 20] ^ 0xFF
    assert [problem.message for problem in problems.rows] == [
        "checksum of chunk 5 is wrong; its bytes are used as they are stored"
    ]
    with pytest.raises(DamagedData, match="checksum of chunk 5"):
        Ewf([changed(SPLIT[0], place + 20), *map(fixture, SPLIT[1:])], ProblemLog(strict=True)).read_at(5 * CHUNK, 1)


def test_the_second_table_stands_in_for_the_first() -> None:
    data = stored("best.E01")
    place = data.index(b"table\0") + 76 + 24
    disk, problems = opened(changed("best.E01", place + 9))
    assert problems == []
    assert chunks(disk)[1] == []
    again = data.index(b"table2\0") + 76 + 24
    disk, problems = opened(changed("best.E01", place + 9, again + 9))
    assert problems == ["checksum of a table of chunks is wrong"]
    assert len(chunks(disk)[0]) > 90


def test_a_second_segment_of_the_same_number() -> None:
    disk, problems = opened(*SPLIT, BytesSource(stored(SPLIT[2]), Origin("copy.E03")))
    assert problems == ["a second segment with number 3; it is not used"]
    assert chunks(disk)[1] == []


def test_no_geometry() -> None:
    data = stored("best.E01")
    with pytest.raises(DamagedData, match="no segment holds the geometry"):
        opened(BytesSource(data[: data.index(b"volume\0")], Origin("cut.E01")))


def test_sectors_that_could_not_be_read_at_acquisition() -> None:
    data = stored("best.E01")
    hashes = data.index(b"digest\0\0\0")
    errors = (2).to_bytes(4, "little") + bytes(516) + b"".join(n.to_bytes(4, "little") for n in (7, 1, 64, 16))
    following = hashes + 76 + len(errors)
    head = b"error2".ljust(16, b"\0") + following.to_bytes(8, "little") + (76 + len(errors)).to_bytes(8, "little")
    head += bytes(40)
    section = head + zlib.adler32(head).to_bytes(4, "little") + errors
    done = b"done".ljust(16, b"\0") + following.to_bytes(8, "little") + bytes(48)
    disk, problems = opened(
        BytesSource(data[:hashes] + section + done + zlib.adler32(done).to_bytes(4, "little"), Origin("bad.E01"))
    )
    assert disk.read_errors == ((7, 1), (64, 16))
    assert problems == ["17 sectors could not be read at acquisition; the image has filler for them"]


# --- pure helpers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "base", "expected"),
    [
        ([0, 100, 0x8000_00C8], 0, [(0, 0), (100, 0), (200, 1)]),
        ([0x8000_0000, 50], 1000, [(1000, 1), (1050, 0)]),
        # beyond 2 GiB the highest bit belongs to the place
        ([0x7FFF_0000, 0x7FFF_8004, 0x8000_0008, 0x8000_800C], 76, [
            (0x7FFF_0000 + 76, 0), (0x7FFF_8004 + 76, 0), (0x8000_0008 + 76, 0), (0x8000_800C + 76, 0)]),
        # a damaged entry is no reason to read all behind it differently
        ([0x8000_0100, 0x80FF_0200, 0x8000_0300], 0, [(0x100, 1), (0xFF_0200, 1), (0x300, 1)]),
    ],
)  # fmt: skip
def test_places_in_a_table(raw: list[int], base: int, expected: list[tuple[int, int]]) -> None:
    assert [(entry >> 1, entry & 1) for entry in ewf._positions(array("I", raw), base)] == expected


SMALL = {name: stored(name) for name in ("best.E01", "smart.s01", "split.E04", "split.E02")}


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(sorted(SMALL)), st.data())
def test_any_damage_gives_bytes_or_an_error_of_ours(name: str, draws: st.DataObject) -> None:
    whole = SMALL[name]
    data = bytearray(whole[: draws.draw(st.integers(0, len(whole)))])
    for _ in range(draws.draw(st.integers(0, 5))):
        if data:
            place = draws.draw(st.one_of(st.integers(0, min(2000, len(data) - 1)), st.integers(0, len(data) - 1)))
            data[place] = draws.draw(st.integers(0, 255))
    if draws.draw(st.booleans()):
        mend(data)
    try:
        disk = Ewf([BytesSource(bytes(data), Origin("fuzz"))], ProblemLog())
    except ForensicsError:
        return
    read_or_damage(disk, CHUNK)


def test_a_table_whose_base_lies_beyond_everything_leaves_its_chunks_missing() -> None:
    data = bytearray(SMALL["smart.s01"])
    place = 13
    while data[place : place + 6] != b"table\0":
        place = int.from_bytes(data[place + 16 : place + 24], "little")
    data[place + 76 + 8 : place + 76 + 16] = (1 << 63).to_bytes(8, "little")
    mend(data)
    disk = Ewf([BytesSource(bytes(data), Origin("fuzz"))], ProblemLog())
    with pytest.raises(DamagedData):
        disk.read_at(0, CHUNK)


def mend(data: bytearray) -> None:
    """Make the checksums of all sections right again, so that damage reaches what is behind them."""
    place = 13
    for _ in range(50):
        if place + 76 > len(data):
            return
        data[place + 72 : place + 76] = zlib.adler32(data[place : place + 72]).to_bytes(4, "little")
        following = int.from_bytes(data[place + 16 : place + 24], "little")
        if following <= place:
            return
        place = following


def test_the_reader_needs_no_library() -> None:
    assert "pyewf" not in vars(importlib.import_module("forensics_lib.sources.ewf"))
