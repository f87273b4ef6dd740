"""VDI images against the disk that is inside them, and against qemu-img."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forensics_lib.errors import DamagedData, ForensicsError, UnsupportedFormat
from forensics_lib.model import Origin
from forensics_lib.sources.base import BytesSource
from forensics_lib.sources.file import FileSource
from forensics_lib.sources.vdi import Vdi
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


def patched(*patches: tuple[int, bytes], name: str = "dynamic.vdi") -> BytesSource:
    data = bytearray(stored(name))
    for place, new in patches:
        data[place : place + len(new)] = new
    return BytesSource(bytes(data), Origin(name))


@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_both_kinds(kind: str) -> None:
    disk = Vdi(fixture(f"{kind}.vdi"))
    assert (disk.kind, disk.size, disk.block_size, disk.parent_uuid) == (kind, SIZE, MIB, None)
    assert len(disk.uuid) == 36
    assert_same(disk, content(), border=MIB)


@pytest.mark.parametrize("options", [[], ["-o", "static=on"]])
def test_images_of_qemu_img(tmp_path: Path, options: list[str]) -> None:
    disk = big_content()
    assert_same(
        Vdi(FileSource(convert(raw_file(tmp_path, disk), tmp_path / "disk.vdi", "vdi", *options))), disk, border=MIB
    )


def test_blocks_in_any_order(tmp_path: Path) -> None:
    image = tmp_path / "disk.vdi"
    run("qemu-img", "create", "-q", "-f", "vdi", image, str(10 * MIB))
    commands = [f"write -P {number} {place}M 3000" for number, place in enumerate((7, 2, 9, 0, 4), 1)]
    run("qemu-io", *(part for command in commands for part in ("-c", command)), image)
    raw = tmp_path / "disk.raw"
    run("qemu-img", "convert", "-O", "raw", image, raw)
    assert_same(Vdi(FileSource(image)), raw.read_bytes(), border=MIB)


def test_blocks_with_extra_data_in_front() -> None:
    disk = BytesSource(patched((0x17C, struct.pack("<I", 512))).data + bytes(4096), Origin("extra"))
    start = struct.unpack_from("<I", disk.data, 0x158)[0]
    assert Vdi(disk).read_at(0, 100) == disk.data[start + 512 : start + 612]


def test_discarded_blocks_are_zeros() -> None:
    place = struct.unpack_from("<I", stored("dynamic.vdi"), 0x154)[0]
    disk = Vdi(patched((place, b"\xfe\xff\xff\xff")))
    assert disk.read_at(0, MIB) == bytes(MIB)


def differencing(*blocks: int) -> BytesSource:
    """A differencing image whose blocks are not stored, but for those that are given."""
    data = stored("dynamic.vdi")
    place = struct.unpack_from("<I", data, 0x154)[0]
    empty = [(place + 4 * block, b"\xff" * 4) for block in range(4) if block not in blocks]
    return patched((0x4C, b"\4"), (0x1A8, bytes(range(16))), *empty)


def test_a_differencing_image_shows_its_parent() -> None:
    parent = BytesSource(b"p" * (2 * MIB + 10), Origin("parent"))
    disk = Vdi(differencing(0), parent)
    assert disk.kind == "differencing"
    assert disk.parent_uuid == "03020100-0504-0706-0809-0a0b0c0d0e0f"
    assert disk.read_at(MIB - 100, 200) == content()[MIB - 100 : MIB] + b"p" * 100
    assert disk.read_at(2 * MIB, 20) == b"p" * 10 + bytes(10)


def test_a_parent_that_is_missing_is_no_zeros() -> None:
    disk = Vdi(differencing(0))
    assert disk.read_at(0, 100) == content()[:100]
    with pytest.raises(DamagedData, match="parent image 03020100-0504-0706-0809-0a0b0c0d0e0f is missing"):
        disk.read_at(MIB, 1)


def test_it_can_be_sent_to_another_process() -> None:
    assert pickle.loads(pickle.dumps(Vdi(fixture("dynamic.vdi")))).read_at(0, SIZE) == content()


@pytest.mark.parametrize(
    ("place", "new", "error", "message"),
    [
        (0x40, b"\0", UnsupportedFormat, "signature"),
        (0x44, b"\1\0\0\0", UnsupportedFormat, r"version 0\.1"),
        (0x4C, b"\x09", UnsupportedFormat, "unknown kind 9"),
        (0x178, b"\0\0\0\0", DamagedData, "blocks of 0 bytes"),
        (0x178, b"\1\2\0\0", DamagedData, "blocks of 513 bytes"),
    ],
)
def test_headers_that_make_no_sense(place: int, new: bytes, error: type[ForensicsError], message: str) -> None:
    with pytest.raises(error, match=message):
        Vdi(patched((place, new)))


def test_a_block_map_that_is_too_short() -> None:
    disk = Vdi(patched((0x180, b"\2\0\0\0")))
    assert disk.read_at(0, 2 * MIB) == content()[: 2 * MIB]
    with pytest.raises(DamagedData, match="block map is too short"):
        disk.read_at(2 * MIB, 1)


def test_a_cut_image_shows_what_is_left() -> None:
    data = stored("static.vdi")
    disk = Vdi(BytesSource(data[: len(data) - MIB], Origin("cut")))
    assert disk.read_at(0, 2 * MIB) == content()[: 2 * MIB]
    with pytest.raises(DamagedData, match="beyond the end of the file"):
        disk.read_at(SIZE - 10, 10)
    with pytest.raises(DamagedData, match="block map is cut off"):
        Vdi(BytesSource(data[:514], Origin("cut"))).read_at(0, 1)


SMALL = stored("dynamic.vdi")[: 3 * MIB]


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(0x40, 0x240), st.integers(0, 255)), max_size=6), st.integers(0, len(SMALL)))
def test_any_damage_gives_bytes_or_an_error_of_ours(flips: list[tuple[int, int]], end: int) -> None:
    data = bytearray(SMALL[:end])
    for place, value in flips:
        if place < len(data):
            data[place] = value
    try:
        disk = Vdi(BytesSource(bytes(data), Origin("fuzz")))
    except ForensicsError:
        return
    read_or_damage(disk, MIB)
