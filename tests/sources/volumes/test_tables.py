"""Partition tables against sfdisk and sgdisk, which made them, and damaged ones."""

from __future__ import annotations

import struct
import uuid
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forensics_lib.errors import DamagedData
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.sources.base import BytesSource
from forensics_lib.sources.volumes import Volume, VolumeKind, find_volumes, has_volumes, sniff_filesystem
from tests.diskmaker import MIB, noise, stored

LINUX = "0fc63daf-8483-4772-8e79-3d69d8477de4"
GPT_EXPECTED = [  # as sgdisk was told: number, first sector, sectors, type, name
    (1, 2048, 2048, "c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "boot"),
    (2, 8192, 16_351, LINUX, ""),
    (3, 4096, 4096, LINUX, "Daten ü"),
]
MBR_EXPECTED = [  # as sfdisk was told
    (1, 2048, 2048, "0x83"),
    (2, 4096, 2048, "0x82"),
    (5, 8192, 1024, "0x83"),
    (6, 11_264, 1024, "0x8e"),
    (7, 14_336, 2048, "0x0c"),
]


def found(disk: bytes | bytearray) -> tuple[list[Volume], list[str]]:
    problems = ProblemLog()
    volumes = find_volumes(BytesSource(bytes(disk), Origin("disk.raw")), problems)
    return volumes, [problem.message for problem in problems.rows]


def places(volumes: list[Volume], sector: int = 512) -> list[tuple[int, int, int]]:
    return [(volume.index, (volume.offset or 0) // sector, volume.size // sector) for volume in volumes]


# --- MBR --------------------------------------------------------------------------------------------------------------


def mbr(*entries: tuple[int, int, int], size: int = 4 * MIB, disk_id: int = 0) -> bytearray:
    """A disk with a table of (type, start, sectors)."""
    disk = bytearray(size)
    boot_record(disk, 0, *entries)
    disk[440:444] = disk_id.to_bytes(4, "little")
    return disk


def boot_record(disk: bytearray, sector: int, *entries: tuple[int, int, int]) -> None:
    start = sector * 512
    for number, (kind, first, count) in enumerate(entries):
        struct.pack_into("<BxxxBxxxII", disk, start + 446 + 16 * number, 0, kind, first, count)
    disk[start + 510 : start + 512] = b"\x55\xaa"


def test_primary_and_logical_partitions() -> None:
    disk = stored("mbr.img")
    volumes, problems = found(disk)
    assert problems == []
    assert [(*place, volume.type) for place, volume in zip(places(volumes), volumes, strict=True)] == MBR_EXPECTED
    assert [volume.uuid for volume in volumes][:3] == ["1234abcd-01", "1234abcd-02", "1234abcd-05"]
    assert {volume.kind for volume in volumes} == {VolumeKind.MBR}
    assert str(volumes[2].origin) == f"disk.raw > partition 5 @{8192 * 512}"
    for volume in volumes:
        start = volume.offset or 0
        assert volume.source.read_at(0, volume.size) == disk[start : start + volume.size]


def test_a_chain_in_a_circle() -> None:
    disk = mbr((0x05, 10, 1000))
    boot_record(disk, 10, (0x83, 1, 5), (0x05, 20, 10))
    for start in (0, 20):
        boot_record(disk, 30, (0x83, 1, 5), (0x05, start, 10))
        volumes, problems = found(disk)
        assert places(volumes) == [(5, 11, 5), (6, 31, 5)]
        assert problems == ["the chain of extended boot records runs in a circle, or is too long"]


def test_a_chain_that_is_broken() -> None:
    disk = mbr((0x83, 2, 4), (0x0F, 10, 1000))
    boot_record(disk, 10, (0x83, 1, 5), (0x05, 20, 10))
    volumes, problems = found(disk)
    assert places(volumes) == [(1, 2, 4), (5, 11, 5)]
    assert problems == ["the extended boot record has no signature; logical partitions behind it are lost"]


def test_partitions_of_a_disk_with_sectors_of_4096_bytes() -> None:
    disk = mbr((0x83, 16, 100), (0x0F, 128, 100))
    boot_record(disk, 128 * 8, (0x83, 4, 10))
    disk[16 * 4096 + 0x438 : 16 * 4096 + 0x43A] = b"\x53\xef"
    struct.pack_into("<II", disk, 16 * 4096 + 1024, 100, 100)
    volumes, problems = found(disk)
    assert places(volumes, 4096) == [(1, 16, 100), (5, 132, 10)]
    assert sniff_filesystem(volumes[0].source) == "ext2"
    assert problems == []


def test_partitions_beyond_the_end_and_over_each_other() -> None:
    disk = mbr((0x83, 2, 100), (0x83, 50, 100), (0x83, 8000, 1000), (0x83, 1 << 31, 5))
    disk[8000 * 512 : 8000 * 512 + 4] = b"data"
    volumes, problems = found(disk)
    assert len(volumes) == 4
    assert problems == [
        "partitions 1 and 2 overlap",
        f"partition 3 ends at byte {9000 * 512}, the disk at {4 * MIB}",
        f"partition 4 ends at byte {((1 << 31) + 5) * 512}, the disk at {4 * MIB}",
    ]
    assert volumes[2].source.read_at(0, 4) == b"data"
    for volume in volumes[2:]:
        assert volume.source.size == volume.size
        with pytest.raises(DamagedData, match="are declared, only"):
            volume.source.read_at(volume.size - 1, 1)


@pytest.mark.parametrize("status", [1, 0x7F, 0xFF])
def test_code_in_place_of_a_table_is_no_table(status: int) -> None:
    disk = mbr((0x83, 2, 4))
    disk[446 + 16] = status
    volumes, problems = found(disk)
    assert [(volume.kind, volume.size) for volume in volumes] == [(VolumeKind.DISK, len(disk))]
    assert problems == []


# --- GPT --------------------------------------------------------------------------------------------------------------


def gpt(sector: int = 512, size: int = 4 * MIB, count: int = 128) -> bytearray:
    """A disk with three partitions; the second place of the table is empty."""
    disk = bytearray(size)
    boot_record(disk, 0, (0xEE, 1, 0xFFFF_FFFF))
    table = bytearray(count * 128)
    for place, (first, last, name) in {0: (40, 99, "one"), 2: (100, 199, "três"), 3: (200, 250, "")}.items():
        struct.pack_into(
            "<16s16sQQQ72s", table, place * 128, uuid.UUID(LINUX).bytes_le, uuid.UUID(int=place + 1).bytes_le,
            first, last, 0, name.encode("utf-16-le"),
        )  # fmt: skip
    end = size // sector
    table_sectors = -(-len(table) // sector)
    for here, other, entries in ((1, end - 1, 2), (end - 1, 1, end - 1 - table_sectors)):
        disk[entries * sector : entries * sector + len(table)] = table
        header = struct.pack(
            "<8sIIIIQQQQ16sQIII", b"EFI PART", 0x10000, 92, 0, 0, here, other, 2 + table_sectors, entries - 1,
            uuid.UUID(int=99).bytes_le, entries, count, 128, zlib.crc32(table),
        )  # fmt: skip
        header = header[:16] + zlib.crc32(header).to_bytes(4, "little") + header[20:]
        disk[here * sector : here * sector + 92] = header
    return disk


EXPECTED = [(1, 40, 60), (3, 100, 100), (4, 200, 51)]
BACKUP_USED = "the backup at the end of the disk was used"


def test_a_table_of_sgdisk() -> None:
    volumes, problems = found(stored("gpt.img"))
    assert problems == []
    rows = [(*place, volume.type, volume.name) for place, volume in zip(places(volumes), volumes, strict=True)]
    assert rows == GPT_EXPECTED
    assert {volume.kind for volume in volumes} == {VolumeKind.GPT}
    assert all(len(volume.uuid) == 36 for volume in volumes)


@pytest.mark.parametrize("sector", [512, 4096])
def test_both_sizes_of_sectors(sector: int) -> None:
    volumes, problems = found(gpt(sector))
    assert problems == []
    assert places(volumes, sector) == EXPECTED
    assert [volume.name for volume in volumes] == ["one", "três", ""]
    assert volumes[1].uuid == str(uuid.UUID(int=3))


@pytest.mark.parametrize("sector", [512, 4096])
@pytest.mark.parametrize("damage", [0, 16, 40, 90])
def test_the_backup_stands_in_for_a_damaged_header(sector: int, damage: int) -> None:
    disk = gpt(sector)
    disk[sector + damage] ^= 0xFF
    volumes, problems = found(disk)
    assert places(volumes, sector) == EXPECTED
    assert problems == [f"the first partition table is missing or damaged; {BACKUP_USED}"]


def test_the_backup_stands_in_for_damaged_entries() -> None:
    disk = gpt()
    disk[1024 + 300] ^= 0xFF
    volumes, problems = found(disk)
    assert places(volumes) == EXPECTED
    assert problems == [f"the first partition table is damaged (its entries have a wrong checksum); {BACKUP_USED}"]


def test_a_wiped_start() -> None:
    disk = gpt()
    disk[: 34 * 512] = bytes(34 * 512)
    volumes, problems = found(disk)
    assert places(volumes) == EXPECTED
    assert problems == [f"the first partition table is missing or damaged; {BACKUP_USED}"]


def test_a_disk_that_grew_keeps_its_backup_in_the_middle() -> None:
    disk = gpt()
    disk[1024 + 300] ^= 0xFF
    volumes, problems = found(disk + bytes(MIB))
    assert places(volumes) == EXPECTED
    assert BACKUP_USED in problems[0]


def test_damaged_entries_without_a_backup_are_used_and_named() -> None:
    disk = gpt()
    disk[-512:] = bytes(512)
    disk[1024 + 60] ^= 1
    volumes, problems = found(disk)
    assert places(volumes) == EXPECTED
    assert "the entries of the partition table have a wrong checksum, and there is no good backup" in problems


def test_neither_table_can_be_read() -> None:
    disk = gpt()
    disk[512:1024] = disk[-512:] = bytes(512)
    volumes, problems = found(disk)
    assert [volume.kind for volume in volumes] == [VolumeKind.DISK]
    assert problems == ["neither of the two partition tables can be read"]


def test_a_cut_disk_is_read_by_its_first_table() -> None:
    volumes, problems = found(stored("gpt.img")[: 3 * MIB])
    assert [volume.index for volume in volumes] == [1, 2, 3]
    assert problems == [
        f"partition 3 ends at byte {4 * MIB}, the disk at {3 * MIB}",
        f"partition 2 ends at byte {(8192 + 16_351) * 512}, the disk at {3 * MIB}",
    ]
    assert volumes[0].source.read_at(0, 10) == bytes(10)


def test_a_hybrid_mbr() -> None:
    """sgdisk put partitions 1 and 3 into the MBR as well; they are not listed twice."""
    volumes, problems = found(stored("hybrid.img"))
    assert [(volume.index, volume.kind) for volume in volumes] == [(number, VolumeKind.GPT) for number in (1, 2, 3)]
    assert problems == []
    disk = bytearray(stored("hybrid.img"))
    struct.pack_into("<BxxxBxxxII", disk, 446 + 48, 0, 0x0B, 3000, 10)
    volumes, problems = found(disk)
    assert [volume.kind for volume in volumes] == [VolumeKind.GPT] * 3 + [VolumeKind.MBR]
    assert "the MBR lists a partition that the GPT does not know" in problems


def test_a_gpt_that_the_mbr_does_not_announce_is_left_over() -> None:
    disk = gpt()
    boot_record(disk, 0, (0x83, 300, 100))
    volumes, problems = found(disk)
    assert [(volume.kind, volume.index) for volume in volumes] == [(VolumeKind.MBR, 1)]
    assert problems == [
        "a GPT is there as well, but the MBR does not announce it, so it is not used (nor by the kernel)"
    ]


# --- a file system on the whole disk ----------------------------------------------------------------------------------


def with_ext(disk: bytearray, at: int = 0) -> bytearray:
    struct.pack_into("<II", disk, at + 1024, 64, 1024)
    disk[at + 0x438 : at + 0x43A] = b"\x53\xef"
    return disk


def test_a_file_system_without_a_table() -> None:
    volumes, problems = found(with_ext(bytearray(MIB)))
    assert problems == []
    assert volumes == [volumes[0]]
    (volume,) = volumes
    assert (volume.index, volume.kind, volume.offset, volume.size) == (0, "whole disk", 0, MIB)
    assert str(volume.origin) == "disk.raw"
    assert sniff_filesystem(volume.source) == "ext2"


def test_a_backup_table_left_over_behind_a_file_system() -> None:
    disk = gpt()
    disk[: 34 * 512] = bytes(34 * 512)
    volumes, problems = found(with_ext(disk))
    assert [volume.kind for volume in volumes] == [VolumeKind.DISK]
    assert problems == []


def test_a_table_and_a_file_system() -> None:
    volumes, problems = found(with_ext(mbr((0x83, 100, 100))))
    assert [volume.kind for volume in volumes] == [VolumeKind.DISK, VolumeKind.MBR]
    assert problems == [
        "there is a partition table, and a file system (ext2) on the whole disk: one of them is left over"
    ]


def test_a_boot_sector_of_fat_is_no_table() -> None:
    disk = mbr((0x83, 100, 100))
    disk[:3] = b"\xeb\x3c\x90"
    struct.pack_into("<HBHBHHB", disk, 11, 512, 4, 1, 2, 512, 8192, 0xF8)
    volumes, _ = found(disk)
    assert [volume.kind for volume in volumes] == [VolumeKind.DISK]


@pytest.mark.parametrize("name", ["gpt.img", "mbr.img", "hybrid.img", "pv0.img"])
def test_disks_are_recognised(name: str) -> None:
    assert has_volumes(BytesSource(stored(name), Origin(name)))


@pytest.mark.parametrize("data", [b"", b"x" * 600, bytes(100_000), noise("x", 300_000)])
def test_other_files_are_no_disks(data: bytes) -> None:
    assert not has_volumes(BytesSource(data, Origin("file")))


# --- any bytes --------------------------------------------------------------------------------------------------------


DISKS = (bytes(gpt()), bytes(gpt(4096)), stored("mbr.img"))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_damage_gives_volumes(draws: st.DataObject) -> None:
    disk = bytearray(DISKS[draws.draw(st.integers(0, 2))])
    del disk[draws.draw(st.integers(0, len(disk))) :]
    for _ in range(draws.draw(st.integers(0, 8))):
        if disk:
            place = draws.draw(st.one_of(st.integers(0, 8191), st.integers(0, len(disk) - 1))) % len(disk)
            disk[place] = draws.draw(st.integers(0, 255))
    volumes, _ = found(disk)
    for volume in volumes[:20]:
        assert volume.size >= 0
        sniff_filesystem(volume.source)
