"""Copies of ext superblocks: what is taken for one, and what is put back."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forensics_lib.model import Origin
from forensics_lib.sources._zstd import ZstdDecompressor
from forensics_lib.sources.base import BytesSource
from forensics_lib.sources.volumes import by_backup, sniff_filesystem
from tests.samples import FIXTURES

ORIGIN = Origin("disk")


@pytest.fixture(scope="module")
def disk() -> bytes:
    """The first groups of an ext4 file system with blocks of 1024 bytes."""
    return ZstdDecompressor().decompress((FIXTURES / "docker-disk.raw.zst").read_bytes(), 10 << 20)


def test_nothing_is_mended_where_the_superblock_is(disk: bytes) -> None:
    assert by_backup(BytesSource(disk, ORIGIN)) is None


def test_superblock_and_descriptors_are_put_back(disk: bytes) -> None:
    found = by_backup(BytesSource(bytes(8192) + disk[8192:], ORIGIN))
    assert found is not None
    mended, copy = found
    assert (str(mended.origin), str(copy)) == ("disk", "disk > superblock @8389632")
    assert sniff_filesystem(mended) == "ext4"
    head = mended.read_at(0, 8192)
    assert head[1024 + 104 : 1024 + 136] == disk[1024 + 104 : 1024 + 136]  # UUID and label
    assert struct.unpack_from("<H", head, 1024 + 90) == (0,)
    for at in range(2048, 2048 + 32 * 64, 64):  # where bitmaps and inodes of each group lie, and no flags
        assert head[at : at + 12] == disk[at : at + 12]
        assert head[at + 18 : at + 20] == bytes(2)


def test_descriptors_that_are_there_are_kept(disk: bytes) -> None:
    found = by_backup(BytesSource(bytes(2048) + disk[2048:], ORIGIN))
    assert found is not None
    assert found[0].read_at(2048, 6144) == disk[2048:8192]


def test_a_copy_with_a_wrong_checksum_is_none(disk: bytes) -> None:
    damaged = bytearray(bytes(2048) + disk[2048:])
    damaged[8193 * 1024 + 120] ^= 1
    assert by_backup(BytesSource(bytes(damaged), ORIGIN)) is None


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_damage_raises_nothing(disk: bytes, draws: st.DataObject) -> None:
    damaged = bytearray(bytes(2048) + disk[2048:])
    copy = 8193 * 1024
    struct.pack_into("<I", damaged, copy + 100, 0)  # no checksum that would protect it
    for _ in range(draws.draw(st.integers(1, 6))):
        damaged[draws.draw(st.integers(copy, copy + 2048))] = draws.draw(st.integers(0, 255))
    found = by_backup(BytesSource(bytes(damaged[: draws.draw(st.integers(copy, len(damaged)))]), ORIGIN))
    if found is not None:
        found[0].read_at(0, 1 << 16)
        sniff_filesystem(found[0])
