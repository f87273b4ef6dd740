"""Superblocks against mkfs and blkid."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forensics_lib.errors import DamagedData
from forensics_lib.model import Origin
from forensics_lib.sources.base import BytesSource, Source
from forensics_lib.sources.file import FileSource
from forensics_lib.sources.volumes import Superblock, read_superblock, sniff_filesystem
from tests.diskmaker import MIB, noise, run, tool

KINDS = {
    "ext2": ("mke2fs", "-q -F -t ext2 -L two", 4),
    "ext3": ("mke2fs", "-q -F -t ext3 -L three", 8),
    "ext4": ("mke2fs", "-q -F -t ext4 -O ^has_journal -b 4096 -L vier", 8),
    "xfs": ("mkfs.xfs", "-q -f -L log", 320),
    "btrfs": ("mkfs.btrfs", "-q -L leaf", 120),
    "vfat": ("mkfs.fat", "-F 32 -n DATA", 40),
    "vfat 12": ("mkfs.fat", "-F 12", 1),
    "vfat 16": ("mkfs.fat", "-F 16 -n SIXTEEN", 20),
    "ntfs": ("mkntfs", "-q -F -Q", 10),
    "swap": ("mkswap", "-q -L swapped", 4),
}


@pytest.mark.parametrize("kind", KINDS)
def test_file_systems_of_mkfs(tmp_path: Path, kind: str) -> None:
    program, options, size = KINDS[kind]
    blkid = tool("blkid")
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(size * MIB)
    run(program, *options.split(), image)
    output = subprocess.run([blkid, "-p", "-o", "export", image], check=True, capture_output=True, text=True).stdout
    said = dict(line.split("=", 1) for line in output.splitlines())
    found = read_superblock(FileSource(image))
    assert found is not None
    assert (found.type, found.label, found.uuid) == (said["TYPE"], said.get("LABEL", ""), said["UUID"])
    assert found.type == kind.split(" ", maxsplit=1)[0]
    assert found.size == size * MIB


def with_magic(*places: tuple[int, bytes], size: int = 300 << 10) -> BytesSource:
    data = bytearray(size)
    for place, magic in places:
        data[place : place + len(magic)] = magic
    return BytesSource(bytes(data), Origin("volume"))


@pytest.mark.parametrize(
    ("kind", "places"),
    [
        ("squashfs", [(0, b"hsqs")]),
        ("iso9660", [(0x8001, b"CD001")]),
        ("hfsplus", [(1024, b"H+\0\4")]),
        ("hfsplus", [(1024, b"HX\0\5")]),
        ("exfat", [(3, b"EXFAT   ")]),
        ("zfs_member", [(128 << 10, b"\x0c\xb1\xba\0\0\0\0\0")]),
        ("zfs_member", [((128 << 10) + 5 * 1024, b"\0\0\0\0\0\xba\xb1\x0c")]),
        ("linux_raid_member", [(4096, b"\xfc\x4e\x2b\xa9\1"), (4096 + 144, b"\x08")]),
        ("isw_raid_member", [((300 << 10) - 1024, b"Intel Raid ISM Cfg Sig. 1.3.00")]),
        ("ddf_raid_member", [((300 << 10) - 512, b"\xde\x11\xde\x11")]),
        ("crypto_LUKS", [(32 << 10, b"SKUL\xba\xbe\0\2"), ((32 << 10) + 262, b"\x80")]),
        ("DM_integrity", [(0, b"integrt\0")]),
        ("DM_verity_hash", [(0, b"verity\0\0")]),
        ("LVM1_member", [(0, b"HM\2\0")]),
        ("ceph_bluestore", [(0, b"bluestore block device")]),
        ("gfs2", [(0x10000, b"\x01\x16\x19\x70")]),
        ("ocfs2", [(8192, b"OCFSV2")]),
        ("stratis", [(512, b"!Stra0tis\x86\xff\x02")]),
        ("vdo", [(0, b"dmvdo001")]),
        ("BitLocker", [(3, b"-FVE-FS-")]),
        ("apfs", [(32, b"NXSB")]),
        ("f2fs", [(1024, b"\x10\x20\xf5\xf2")]),
        ("swap", [(65_526, b"SWAPSPACE2")]),
        ("LVM2_member", [(0, b"LABELONE"), (24, b"LVM2 001")]),
        ("jbd", [(1024, b"\x40\0\0\0\0\4\0\0"), (1024 + 56, b"\x53\xef"), (1024 + 96, b"\x08")]),
    ],
)
def test_magic_numbers(kind: str, places: list[tuple[int, bytes]]) -> None:
    assert sniff_filesystem(with_magic(*places)) == kind


def pair(name: bytes, kind: int, value: bytes) -> bytes:
    """A pair of ZFS' lists, as XDR writes it."""
    padded = name.ljust(-(-len(name) // 4) * 4, b"\0")
    return struct.pack(">III", 0, 0, len(name)) + padded + struct.pack(">II", kind, 1) + value


@pytest.mark.parametrize("length", [4, 1 << 31])
def test_the_name_of_a_zfs_pool(length: int) -> None:
    description = pair(b"version", 8, struct.pack(">Q", 5000)) + pair(b"name", 9, struct.pack(">I", length) + b"tank")
    description += pair(b"pool_guid", 8, struct.pack(">Q", 12345678901234567890))
    source = with_magic((16 << 10, description), (128 << 10, b"\x0c\xb1\xba\0\0\0\0\0"))
    assert read_superblock(source) == Superblock("zfs_member", "tank" if length == 4 else "", "12345678901234567890")


def test_a_magic_number_far_from_the_beginning() -> None:
    assert sniff_filesystem(with_magic((MIB, b"\x0d\xd0\x01\xc0"), size=2 * MIB)) == "VMFS_volume_member"
    assert sniff_filesystem(with_magic((32 << 10, b"SKUL\xba\xbe\0\2"))) is None  # it lies elsewhere, so it is a copy


def test_two_bytes_of_magic_are_too_few() -> None:
    assert sniff_filesystem(with_magic((1024 + 56, b"\x53\xef"))) is None
    assert sniff_filesystem(BytesSource(noise("volume", 300 << 10), Origin("x"))) is None


def test_a_volume_that_cannot_be_read() -> None:
    class Broken(Source):
        origin = Origin("x")
        size = 1 << 30

        def read_at(self, offset: int, length: int) -> bytes:
            raise DamagedData("bad sector", origin=self.origin)

    assert sniff_filesystem(Broken()) is None


def test_a_volume_that_is_cut_off() -> None:
    whole = with_magic((0, b"XFSB"), (4, b"\0\0\x10\0"), (15, b"\5"))
    assert read_superblock(whole) == Superblock("xfs", size=5 * 4096)
    part = whole.slice(0, 1 << 30, "partition")
    assert read_superblock(part) == Superblock("xfs", size=5 * 4096)


@given(st.lists(st.tuples(st.integers(0, 0x1100), st.binary(max_size=40)), max_size=5), st.integers(0, 5000))
def test_any_bytes_have_a_type_or_none(places: list[tuple[int, bytes]], size: int) -> None:
    magics = [(0, b"XFSB"), (0, b"LUKS\xba\xbe"), (1024 + 56, b"\x53\xef"), (510, b"\x55\xaa"), (0, b"\xeb")]
    for magic in magics:
        source = with_magic(*places, magic)
        sniff_filesystem(BytesSource(source.data[:size], Origin("x")))
        sniff_filesystem(source)
