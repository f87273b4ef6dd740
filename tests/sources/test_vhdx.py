"""VHDX images against the disk that is inside them, and against qemu-img; and the log below them."""

from __future__ import annotations

import pickle
import random
import shutil
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forensics_lib.errors import DamagedData, ForensicsError, UnsupportedFormat
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.sources import vhdx_log
from forensics_lib.sources.base import BytesSource, Source
from forensics_lib.sources.file import FileSource
from forensics_lib.sources.patched import PatchedSource
from forensics_lib.sources.vhdx import Vhdx
from forensics_lib.sources.vhdx_log import replayed
from tests.diskmaker import (
    MIB,
    SIZE,
    assert_same,
    big_content,
    content,
    convert,
    fixture,
    raw_file,
    read_or_damage,
    run,
    stored,
)

pytest.importorskip("pyvhdi")

PAGE = 4096
GUID = bytes(range(1, 17))


def opened(source: Source) -> tuple[Vhdx, list[str]]:
    problems = ProblemLog()
    disk = Vhdx(source, problems)
    return disk, [problem.message for problem in problems.rows]


def test_the_disk_inside() -> None:
    disk, problems = opened(fixture("dynamic.vhdx"))
    assert problems == []
    assert (disk.parent_uuid, disk.parent_name) == (None, None)
    assert disk.size == SIZE
    assert_same(disk, content(), border=MIB)
    assert pickle.loads(pickle.dumps(disk)).read_at(0, SIZE) == content()


@pytest.mark.parametrize("options", ["block_size=1M", "block_size=2M", "block_size=8M", "subformat=fixed"])
def test_images_of_qemu_img(tmp_path: Path, options: str) -> None:
    disk = big_content()
    image = convert(raw_file(tmp_path, disk), tmp_path / "disk.vhdx", "vhdx", "-o", options)
    assert_same(opened(FileSource(image))[0], disk, border=MIB, count=300)


def test_blocks_in_any_order(tmp_path: Path) -> None:
    image, raw = tmp_path / "disk.vhdx", tmp_path / "disk.raw"
    run("qemu-img", "create", "-q", "-f", "vhdx", "-o", "block_size=1M", image, str(20 * MIB))
    draw = random.Random(4)
    commands = [f"write -P {number} {draw.randrange(19 * MIB)} 100000" for number in range(1, 30)]
    run("qemu-io", *(part for command in commands for part in ("-c", command)), image)
    run("qemu-img", "convert", "-O", "raw", image, raw)
    assert_same(opened(FileSource(image))[0], raw.read_bytes(), border=MIB)


def test_a_cut_image_shows_what_is_left() -> None:
    data = stored("dynamic.vhdx")
    disk, _ = opened(BytesSource(data[: len(data) - MIB], Origin("cut.vhdx")))
    assert disk.read_at(0, MIB) == content()[:MIB]
    with pytest.raises(DamagedData, match="cannot be decoded"):
        b"".join(disk.blocks())


def test_what_is_no_image() -> None:
    with pytest.raises(UnsupportedFormat, match="magic"):
        opened(BytesSource(bytes(100), Origin("x")))
    with pytest.raises(DamagedData, match="cannot be opened"):
        opened(BytesSource(stored("dynamic.vhdx")[: 1 << 20], Origin("x")))


# --- the log ----------------------------------------------------------------------------------------------------------


def sealed(data: bytes) -> bytes:
    """A structure with its checksum at byte 4 made right."""
    empty = data[:4] + bytes(4) + data[8:]
    return data[:4] + vhdx_log._crc32c(empty).to_bytes(4, "little") + data[8:]


def entry(
    pages: dict[int, bytes], sequence: int, tail: int, zeros: tuple[int, int] | None = None, size: int = 4 * MIB
) -> bytes:
    """One log entry that changes pages, and zeros (offset, length)."""
    descriptors, data = b"", b""
    for page, new in pages.items():
        descriptors += struct.pack("<4s4s8sQQ", b"desc", new[-4:], new[:8], page * PAGE, sequence)
        data += struct.pack("<4sI", b"data", sequence >> 32) + new[8:-4] + struct.pack("<I", sequence & 0xFFFF_FFFF)
    if zeros is not None:
        descriptors += struct.pack("<4s4xQQQ", b"zero", zeros[1], zeros[0], sequence)
    count = len(descriptors) // 32
    head_pages = -(-(64 + len(descriptors)) // PAGE)
    length = head_pages * PAGE + len(data)
    head = struct.pack("<4sIIIQII16sQQ", b"loge", 0, length, tail, sequence, count, 0, GUID, size, size)
    return sealed((head + descriptors).ljust(head_pages * PAGE, b"\0") + data)


def with_log(image: bytes, log: bytes, at: int = 0) -> bytes:
    """An image that was not closed, with entries at a place of its log."""
    data = bytearray(image)
    for place in (64 << 10, 128 << 10):
        header = bytearray(data[place : place + PAGE])
        header[48:64] = GUID
        data[place : place + PAGE] = sealed(bytes(header))
    length, offset = struct.unpack_from("<IQ", data, (64 << 10) + 68)
    for place in range(0, len(log), PAGE):
        target = offset + (at + place) % length
        data[target : target + PAGE] = log[place : place + PAGE]
    return bytes(data)


def before_and_after(image: bytes, changed: bytes) -> tuple[bytes, dict[int, bytes]]:
    """The changed image with its tables as they were before, and the pages that differ: what a log would hold."""
    mixed, pages = bytearray(changed), {}
    for place in range(2 * MIB, 4 * MIB, PAGE):
        if image[place : place + PAGE] != changed[place : place + PAGE]:
            pages[place // PAGE] = changed[place : place + PAGE]
            mixed[place : place + PAGE] = image[place : place + PAGE]
    return bytes(mixed), pages


def test_a_log_is_replayed_as_qemu_does(tmp_path: Path) -> None:
    image, raw = tmp_path / "disk.vhdx", tmp_path / "disk.raw"
    run("qemu-img", "create", "-q", "-f", "vhdx", "-o", "block_size=1M", image, str(20 * MIB))
    run("qemu-io", "-c", "write -P 1 0 3M", image)
    before = image.read_bytes()
    run("qemu-io", "-c", "write -P 2 2M 5M", image)
    mixed, pages = before_and_after(before, image.read_bytes())
    assert pages
    image.write_bytes(with_log(mixed, entry(pages, 9, 0, size=len(mixed))))
    disk, problems = opened(FileSource(image))
    assert problems == [
        f"the VHDX image was not closed properly; {len(pages)} pages of its log were replayed in memory"
    ]
    copy = tmp_path / "copy.vhdx"
    shutil.copy(image, copy)
    run("qemu-img", "check", "-r", "all", copy)  # which replays the log
    run("qemu-img", "convert", "-O", "raw", copy, raw)
    assert raw.read_bytes()[3 * MIB : 7 * MIB] == b"\2" * (4 * MIB)
    assert_same(disk, raw.read_bytes(), border=MIB)
    assert image.read_bytes()[2 * MIB :] == mixed[2 * MIB :]


def pages_of(source: Source) -> dict[int, bytes]:
    return source.pages if isinstance(source, PatchedSource) else {}


def test_the_newest_row_of_entries_counts() -> None:
    one, two, three = ({7: bytes([number]) * PAGE} for number in (1, 2, 3))
    length = 1 << 20
    old = entry({9: b"o" * PAGE}, 4, 0)
    row = entry(one, 5, length - 2 * PAGE) + entry(two, 6, length - 2 * PAGE)
    data = with_log(with_log(stored("dynamic.vhdx"), old, 5 * PAGE), row, length - 2 * PAGE)
    problems = ProblemLog()
    assert pages_of(replayed(BytesSource(data, Origin("x")), problems)) == two
    assert len(problems.rows) == 1
    gap = entry(one, 5, 0) + entry(three, 7, 0)
    data = with_log(stored("dynamic.vhdx"), gap)
    assert pages_of(replayed(BytesSource(data, Origin("x")), ProblemLog())) == one


def test_zeros_of_the_log() -> None:
    data = with_log(stored("dynamic.vhdx"), entry({8: b"n" * PAGE}, 5, 0, zeros=(16 * PAGE, 2 * PAGE)))
    pages = pages_of(replayed(BytesSource(data, Origin("x")), ProblemLog()))
    assert pages == {8: b"n" * PAGE, 16: bytes(PAGE), 17: bytes(PAGE)}


def test_a_log_without_a_valid_entry() -> None:
    damaged = bytearray(entry({7: b"n" * PAGE}, 5, 0))
    damaged[5000] ^= 1
    data = with_log(stored("dynamic.vhdx"), bytes(damaged))
    disk, problems = opened(BytesSource(data, Origin("x")))
    assert problems == ["the VHDX image was not closed properly, and its log has no valid entry; tables may be old"]
    assert disk.read_at(0, SIZE) == content()


def test_a_log_that_zeros_everything() -> None:
    problems = ProblemLog()
    data = with_log(stored("dynamic.vhdx"), entry({}, 5, 0, zeros=(0, 1 << 44)))
    assert replayed(BytesSource(data, Origin("x")), problems).size < 1 << 30
    assert any("changes more than 65536 pages" in problem.message for problem in problems.rows)


@given(
    st.dictionaries(st.integers(0, 6), st.integers(0, 255), max_size=4), st.integers(0, 40_000), st.integers(-1, 9000)
)
def test_pages_on_top_of_a_source(new: dict[int, int], offset: int, length: int) -> None:
    below = bytes(range(250)) * 50
    size = max(len(below), (max(new, default=-1) + 1) * PAGE)
    expected = bytearray(below.ljust(size, b"\0"))
    for page, value in new.items():
        expected[page * PAGE : page * PAGE + PAGE] = bytes([value]) * PAGE
    pages = {page: bytes([value]) * PAGE for page, value in new.items()}
    source = PatchedSource(BytesSource(below, Origin("x")), pages, Origin("y"))
    assert source.size == size
    assert source.read_at(offset, length) == expected[offset : offset + max(0, length)]


def test_the_checksum() -> None:
    assert vhdx_log._crc32c(b"123456789") == 0xE306_9283  # of RFC 3720


SMALL = stored("dynamic.vhdx")


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4 * MIB), st.integers(0, 255)), max_size=4), st.integers(0, len(SMALL)))
def test_any_damage_gives_bytes_or_an_error_of_ours(flips: list[tuple[int, int]], end: int) -> None:
    data = bytearray(SMALL[:end])
    for place, value in flips:
        if place < len(data):
            data[place] = value
    try:
        disk, _ = opened(BytesSource(bytes(data), Origin("fuzz.vhdx")))
    except ForensicsError:
        return
    read_or_damage(disk, MIB)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_log_gives_a_source(draws: st.DataObject) -> None:
    log = bytearray(entry({7: b"n" * PAGE}, 5, 0, zeros=(16 * PAGE, PAGE)) + entry({8: b"m" * PAGE}, 6, 0))
    for _ in range(draws.draw(st.integers(0, 4))):
        place = draws.draw(st.one_of(st.integers(0, 160), st.integers(3 * PAGE, 3 * PAGE + 100)))
        log[place] = draws.draw(st.integers(0, 255))
    for start in (0, 2 * PAGE):
        (length,) = struct.unpack_from("<I", log, start + 8)
        if draws.draw(st.booleans()) and length <= len(log) - start:
            log[start : start + length] = sealed(bytes(log[start : start + length]))
    source = replayed(BytesSource(with_log(SMALL, bytes(log)), Origin("fuzz")), ProblemLog())
    assert len(source.read_at(0, PAGE)) == PAGE
