"""VHD images against the disk that is inside them, and against qemu-img and libvhdi."""

from __future__ import annotations

import pickle
import random
import struct
import uuid
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forensics_lib.errors import DamagedData, ForensicsError, UnsupportedFormat
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.sources.base import BytesSource, Source
from forensics_lib.sources.file import FileSource
from forensics_lib.sources.vhd import Vhd
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

BLOCK = 2 * MIB


def opened(source: Source, parent: Source | None = None) -> tuple[Vhd, list[str]]:
    problems = ProblemLog()
    disk = Vhd(source, problems, parent)
    return disk, [problem.message for problem in problems.rows]


def checked(footer: bytes) -> bytes:
    """A footer with its checksum made right."""
    total = ~(sum(footer) - sum(footer[64:68])) & 0xFFFF_FFFF
    return footer[:64] + total.to_bytes(4, "big") + footer[68:]


def differencing() -> bytes:
    """The dynamic image as a differencing one: of its first block only every third sector is stored."""
    data = bytearray(stored("dynamic.vhd"))
    for place in (0, len(data) - 512):
        data[place + 60 : place + 64] = (4).to_bytes(4, "big")
        data[place : place + 512] = checked(bytes(data[place : place + 512]))
    data[512 + 40 : 512 + 56] = uuid.UUID(int=7).bytes
    data[512 + 64 : 512 + 64 + 20] = "parent.vhd".encode("utf-16-be")
    (first,) = struct.unpack_from(">I", data, 1536)
    bits = "".join("1" if sector % 3 == 0 else "0" for sector in range(4096))
    data[first * 512 : first * 512 + 512] = int(bits, 2).to_bytes(512, "big")
    return bytes(data)


@pytest.mark.parametrize("kind", ["dynamic", "fixed"])
def test_the_disk_inside(kind: str) -> None:
    disk, problems = opened(fixture(f"{kind}.vhd"))
    assert problems == []
    assert (disk.kind, disk.parent_uuid, disk.parent_name) == (kind, None, None)
    assert len(disk.uuid) == 36
    assert disk.size == SIZE
    assert_same(disk, content(), border=BLOCK)
    assert pickle.loads(pickle.dumps(disk)).read_at(0, SIZE) == content()


@pytest.mark.parametrize("options", ["subformat=dynamic", "subformat=fixed", "subformat=dynamic,force_size=on"])
def test_images_of_qemu_img(tmp_path: Path, options: str) -> None:
    disk = big_content()
    image = convert(raw_file(tmp_path, disk), tmp_path / "disk.vhd", "vpc", "-o", options)
    assert_same(opened(FileSource(image))[0], disk, border=BLOCK)


def test_blocks_in_any_order(tmp_path: Path) -> None:
    image, raw = tmp_path / "disk.vhd", tmp_path / "disk.raw"
    run("qemu-img", "create", "-q", "-f", "vpc", "-o", "force_size=on", image, str(40 * MIB))
    draw = random.Random(2)
    commands = [f"write -P {number} {draw.randrange(39 * MIB)} 100000" for number in range(1, 30)]
    run("qemu-io", *(part for command in commands for part in ("-c", command)), image)
    run("qemu-img", "convert", "-O", "raw", image, raw)
    assert_same(opened(FileSource(image))[0], raw.read_bytes(), border=BLOCK)


def test_a_differencing_image_takes_turns_with_its_parent() -> None:
    parent = BytesSource(bytes(range(256)) * (3 * MIB // 256), Origin("parent.vhd"))
    disk, problems = opened(BytesSource(differencing(), Origin("diff.vhd")), parent)
    assert problems == []
    assert (disk.kind, disk.parent_name) == ("differencing", "parent.vhd")
    assert disk.parent_uuid == str(uuid.UUID(int=7))
    expected = bytearray(content())
    for sector in range(4096):
        if sector % 3:
            expected[sector * 512 : sector * 512 + 512] = parent.data[sector * 512 : sector * 512 + 512]
    assert_same(disk, bytes(expected), border=512)


def test_a_parent_that_is_missing_is_no_zeros() -> None:
    disk, _ = opened(BytesSource(differencing(), Origin("diff.vhd")))
    assert disk.read_at(100, 200) == content()[100:300]
    with pytest.raises(DamagedData, match=r"parent image 'parent\.vhd' is missing"):
        disk.read_at(500, 20)


def test_libvhdi_agrees(tmp_path: Path) -> None:
    pyvhdi = pytest.importorskip("pyvhdi")
    (tmp_path / "parent.vhd").write_bytes(stored("dynamic.vhd"))
    (tmp_path / "diff.vhd").write_bytes(differencing())
    parent, child = pyvhdi.file(), pyvhdi.file()
    parent.open(str(tmp_path / "parent.vhd"))
    child.open(str(tmp_path / "diff.vhd"))
    disk, _ = opened(fixture("dynamic.vhd"))
    assert (parent.get_media_size(), child.parent_filename) == (disk.size, "parent.vhd")
    for place in range(0, SIZE, 99_991):
        assert parent.read_buffer_at_offset(70_000, place) == disk.read_at(place, 70_000)


def test_an_image_whose_end_is_cut_off() -> None:
    data = stored("dynamic.vhd")
    disk, problems = opened(BytesSource(data[: -3 * MIB // 2], Origin("cut.vhd")))
    assert problems == ["the image is cut off: its footer is missing, the copy in front was used"]
    assert disk.read_at(0, BLOCK) == content()[:BLOCK]
    with pytest.raises(DamagedData, match="block 1 lies beyond the end"):
        disk.read_at(SIZE - 10, 10)
    with pytest.raises(UnsupportedFormat, match="no footer"):
        opened(BytesSource(stored("fixed.vhd")[:-600], Origin("cut.vhd")))


def test_a_footer_of_511_bytes() -> None:
    disk, _ = opened(BytesSource(stored("fixed.vhd")[:-1], Origin("old.vhd")))
    assert disk.read_at(0, SIZE) == content()


def test_a_wrong_checksum() -> None:
    data = bytearray(stored("fixed.vhd"))
    data[-512 + 30] ^= 1
    assert opened(BytesSource(bytes(data), Origin("x.vhd")))[1] == ["checksum of the VHD footer is wrong"]
    assert not Vhd.fits(BytesSource(bytes(data), Origin("x.vhd")))
    assert Vhd.fits(fixture("fixed.vhd"))
    assert Vhd.fits(fixture("dynamic.vhd"))


@pytest.mark.parametrize(
    ("place", "new", "error", "message"),
    [
        (512, b"x", DamagedData, "header of a dynamic disk is missing"),
        (512 + 32, b"\0\0\0\0", DamagedData, "blocks of 0 bytes"),
        (512 + 32, b"\0\0\3\0", DamagedData, "blocks of 768 bytes"),
        (-452, b"\0\0\0\x09", UnsupportedFormat, "unknown kind 9"),
        (-496, b"\x7f", DamagedData, "header lies beyond the end"),
    ],
)
def test_headers_that_make_no_sense(place: int, new: bytes, error: type[ForensicsError], message: str) -> None:
    data = bytearray(stored("dynamic.vhd"))
    place %= len(data)
    data[place : place + len(new)] = new
    with pytest.raises(error, match=message):
        opened(BytesSource(bytes(data), Origin("x.vhd")))


def test_a_block_table_that_is_too_short() -> None:
    data = bytearray(stored("dynamic.vhd"))
    data[512 + 28 : 512 + 32] = (1).to_bytes(4, "big")
    disk, _ = opened(BytesSource(bytes(data), Origin("x.vhd")))
    assert disk.read_at(0, BLOCK) == content()[:BLOCK]
    with pytest.raises(DamagedData, match="block table is too short"):
        disk.read_at(BLOCK, 1)


DYNAMIC = differencing()


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2100), st.integers(0, 255)), max_size=6), st.integers(0, len(DYNAMIC)))
def test_any_damage_gives_bytes_or_an_error_of_ours(flips: list[tuple[int, int]], end: int) -> None:
    data = bytearray(DYNAMIC[:end])
    for place, value in flips:
        if place < len(data):
            data[place] = value
    try:
        disk, _ = opened(BytesSource(bytes(data), Origin("fuzz.vhd")))
    except ForensicsError:
        return
    read_or_damage(disk, MIB)
