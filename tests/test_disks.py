"""Disk images opened as a whole: file systems in, containers out, the removed ones too."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

import forensics_lib as fl
from forensics_lib.sources.decompress import decompress, sniff
from forensics_lib.sources.file import FileSource
from tests.diskmaker import stored, unpack
from tests.samples import FIXTURES

DISK = FIXTURES / "docker-disk.raw.zst"
DISKS = FIXTURES / "disks"
DELETED: list[dict[str, Any]] = json.loads((FIXTURES / "truth" / "docker-disk" / "deleted.json").read_text())[
    "containers"
]


def unpacked(name: str, folder: Path) -> Path:
    """A compressed fixture as the file that it was."""
    source = FileSource(DISKS / f"{name}.zst" if not name.startswith("docker") else FIXTURES / f"{name}.zst")
    path = folder / name
    with path.open("wb") as file:
        for block in decompress(source.blocks(), sniff(source.read_at(0, 16)), source.origin, fl.Limits()):
            if block.strip(b"\0"):
                file.write(block)
            else:
                file.seek(len(block), 1)
        file.truncate()
    return path


@pytest.fixture(scope="module")
def disk() -> fl.Evidence:
    return fl.open(DISK)


def test_a_disk_leads_to_its_containers(disk: fl.Evidence) -> None:
    assert disk.kind is fl.EvidenceKind.DISK_IMAGE
    (filesystem,) = disk.filesystems
    assert (filesystem.type, filesystem.label, filesystem.state) == ("ext4", "fs-lab", "clean")
    assert filesystem.size == 256 << 20
    assert filesystem.uuid == "6e2c5dfe-d727-4f1c-b568-8d8ed1c37ba6"
    assert {"web", "state", "norw"} & {container.name for container in disk.containers}
    assert len(disk.containers) == 17
    assert "inode" in str(disk.containers[0].origin)


@pytest.mark.parametrize("want", DELETED, ids=lambda want: want["name"])
def test_a_removed_container_answers(disk: fl.Evidence, want: dict[str, Any]) -> None:
    found = {container.id: container for container in disk.deleted_containers}[want["id"]]
    inspected = want["inspect"]
    assert (found.name, found.image_id) == (want["name"].lstrip("/"), inspected["Image"])
    have = found.inspect()
    assert (have["Config"], have["HostConfig"]) == (inspected["Config"], inspected["HostConfig"])
    for stream in ("stdout", "stderr"):
        said = [line.partition(" ")[2] for line in (want[f"log_{stream}"] or "").splitlines()]
        assert [record.text for record in found.logs() if record.stream == stream] == said
    digests = {remnant.sha256 for remnant in disk.remnants() if remnant.complete}
    changed = [entry for change in want["changes"] if (entry := change.get("entry")) and entry.get("size")]
    assert {entry["sha256"] for entry in changed if "sha256" in entry} <= digests


def test_containers_that_are_there_are_not_called_deleted(disk: fl.Evidence) -> None:
    assert not {one.id for one in disk.containers} & {one.id for one in disk.deleted_containers}


def test_nothing_complete_is_only_metadata(disk: fl.Evidence) -> None:
    rows = list(disk.remnants())
    assert len(rows) > 500
    assert not [row for row in rows if row.complete and (row.content is None or row.size is None)]
    assert {row.confidence.value for row in rows} == {"verified", "intact", "carved", "metadata-only"}


def test_a_search_that_is_broken_off_keeps_what_was_found() -> None:
    steps: list[int] = []

    def stop(done: int, total: int) -> None:
        steps.append(done)
        if len(steps) > 1 and done < steps[-2]:  # the next part of the search begins
            raise KeyboardInterrupt

    with fl.open(DISK, progress=stop) as ev:
        with pytest.raises(KeyboardInterrupt):
            list(ev.remnants())
        count = len(steps)
        assert any("ext4 journal" in row.method for row in ev.remnants())
        assert ev.deleted_containers
        assert len(steps) == count
        assert any("broken off" in problem.message for problem in ev.problems)


@pytest.mark.parametrize(("name", "type_"), [("ext2.img", "ext4"), ("ext4.img", "ext4"), ("btrfs.img", "btrfs")])
def test_file_systems_without_a_partition_table(name: str, type_: str, tmp_path: Path) -> None:
    with fl.open(unpacked(name, tmp_path)) as ev:
        (filesystem,) = ev.filesystems
        assert filesystem.type == type_  # as blkid says, by the features
        assert [node.path for node in filesystem.tree.walk()]
        assert {row.kind for row in ev.hashes()} == {"evidence", "media", "file"}
    with fl.open(DISKS / f"{name}.zst") as ev:
        assert [row.sha256 for row in ev.hashes(kinds=["media"])]


def test_partitions_that_are_devices_of_one_file_system(tmp_path: Path) -> None:
    parts = [unpacked(f"btrfs-raid0-{number}.img", tmp_path).read_bytes() for number in (1, 2, 3)]
    table, disk = bytearray(512), bytearray(1 << 20)
    for index, part in enumerate(parts):
        struct.pack_into("<B3xB3xII", table, 446 + 16 * index, 0, 0x83, len(disk) >> 9, len(part) >> 9)
        disk += part
    disk[:512] = table[:510] + b"\x55\xaa"
    path = tmp_path / "disk.img"
    path.write_bytes(disk)
    with fl.open(path) as ev:
        (filesystem,) = ev.filesystems
        assert (filesystem.name, filesystem.type) == ("partition 1", "btrfs")
        assert not [row for row in ev.hashes(kinds=["file"]) if row.sha256 is None]
        assert not list(ev.problems)


def test_a_disk_without_a_readable_file_system_says_why(tmp_path: Path) -> None:
    path = tmp_path / "swap.img"
    path.write_bytes(b"\0" * 4086 + b"SWAPSPACE2" + b"\0" * 8192)
    with pytest.raises(fl.UnsupportedFormat, match="without a file system"):
        fl.open(path)


def with_table(*parts: tuple[int, bytes], beyond: int = 0, size: int = 0) -> bytes:
    """A disk with an MBR and the contents of partitions, each of a type."""
    table, disk = bytearray(512), bytearray(1 << 20)
    for index, (kind, part) in enumerate(parts):
        part = part.ljust(-(-len(part) // 512) * 512, b"\0")
        struct.pack_into("<B3xB3xII", table, 446 + 16 * index, 0, kind, len(disk) >> 9, len(part) >> 9)
        disk += part
    if beyond:
        struct.pack_into("<B3xB3xII", table, 446 + 16 * len(parts), 0, 0x83, beyond >> 9, size >> 9)
    disk[:512] = table[:510] + b"\x55\xaa"
    return bytes(disk)


def opened(disk: bytes, folder: Path) -> tuple[list[tuple[str, str]], list[str]]:
    """(name, type) of the file systems of a disk, and what is wrong with it."""
    path = folder / "disk.img"
    path.write_bytes(disk)
    with fl.open(path) as ev:
        found = [(one.name, one.type) for one in ev.filesystems]
        assert (found[0][1], ev.filesystems[0].tree.read("/etc/hostname")) == ("ext4", b"seized\n")
        return found, [problem.message for problem in ev.problems]


def magic(size: int, *places: tuple[int, bytes]) -> bytes:
    data = bytearray(size)
    for at, value in places:
        data[at : at + len(value)] = value
    return bytes(data)


EXT4 = 0x83, stored("ext4.img")
MIB = 1 << 20
BCACHE = b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81"
RAID = b"\xfc\x4e\x2b\xa9"
UNREAD = {
    "mdraid at the start": (magic(MIB, (4096, RAID + b"\1"), (4096 + 144, b"\x08")), "the array raid0 ("),
    "mdraid at the end": (
        magic(MIB, (MIB - 0x2000, RAID + b"\1"), (MIB - 0x2000 + 144, struct.pack("<Q", 0x7F0))),
        "has 0 devices",
    ),
    "old mdraid": (
        magic(MIB, (MIB - 0x10000, RAID), (MIB - 0x10000 + 28, struct.pack("<II", 5, 960))),
        "the array raid5 (",
    ),
    "zfs": (magic(MIB, (0x21000, b"\x0c\xb1\xba\x00\x00\x00\x00\x00")), "partition 2 holds zfs_member"),
    "ufs": (magic(MIB, (65536 + 1372, b"\x19\x01\x54\x19")), "partition 2 holds ufs"),
    "bitlocker": (magic(MIB, (3, b"-FVE-FS-")), "partition 2 holds BitLocker"),
    "dm-integrity": (magic(MIB, (0, b"integrt\0")), "partition 2 holds DM_integrity"),
    "bcache": (magic(MIB, (4096 + 24, BCACHE)), "the superblock of bcache is damaged"),
    "luks 2": (stored("luks2.img"), "LUKS version 2"),
    "zeros": (bytes(MIB), "partition 2 (type 0x83) of 1048576 bytes begins with zeros"),
    "noise": (b"?" * MIB, "partition 2 (type 0x83) of 1048576 bytes holds nothing that is recognised"),
    "apfs": (magic(MIB, (32, b"NXSB")), "partition 2 holds apfs"),
}


@pytest.mark.parametrize("case", UNREAD)
def test_what_is_not_read_is_named_and_the_rest_is_read(case: str, tmp_path: Path) -> None:
    data, message = UNREAD[case]
    found, problems = opened(with_table(EXT4, (0x83, data)), tmp_path)
    assert [name for name, _ in found] == ["partition 1"]
    assert len(problems) == 1
    assert message in problems[0]


def test_swap_is_listed_and_holds_no_files(tmp_path: Path) -> None:
    swap = magic(MIB, (4086, b"SWAPSPACE2"), (1028, b"\xff\x00\x00\x00"), (1052, b"label"))
    found, problems = opened(with_table(EXT4, (0x82, swap)), tmp_path)
    assert found == [("partition 1", "ext4"), ("partition 2", "swap")]
    assert problems == []


def test_partitions_beyond_the_end_and_over_others(tmp_path: Path) -> None:
    disk = with_table(EXT4, beyond=64 * MIB, size=MIB)
    found, problems = opened(disk, tmp_path)
    assert found == [("partition 1", "ext4")]
    assert any("ends at byte 68157440" in message for message in problems)
    found, problems = opened(with_table(EXT4, beyond=2 * MIB, size=MIB), tmp_path)
    assert found[0] == ("partition 1", "ext4")
    assert "partitions 1 and 2 overlap" in problems


def test_extended_partitions_in_a_circle(tmp_path: Path) -> None:
    disk = bytearray(with_table(EXT4, (0x05, bytes(MIB))))
    start = MIB + len(EXT4[1])
    struct.pack_into("<B3xB3xII", disk, start + 446 + 16, 0, 0x05, 0, 8)
    disk[start + 510 : start + 512] = b"\x55\xaa"
    found, problems = opened(bytes(disk), tmp_path)
    assert found == [("partition 1", "ext4")]
    assert any("circle" in message for message in problems)


@pytest.mark.parametrize("lost", [1024, 2048, 4096, 64 << 10])
def test_a_lost_superblock_is_replaced_by_its_copy(lost: int, disk: fl.Evidence, tmp_path: Path) -> None:
    path = unpacked("docker-disk.raw", tmp_path)
    with path.open("r+b") as file:
        file.seek(0 if lost > 1024 else 1024)
        file.write(bytes(lost))
    with fl.open(path) as evidence:
        (filesystem,), (expected,) = evidence.filesystems, disk.filesystems
        assert (filesystem.uuid, filesystem.size) == (expected.uuid, expected.size)
        assert [c.id for c in evidence.containers] == [c.id for c in disk.containers]
        nodes = [(n.path, n.inode, n.size, n.mtime_ns) for n in filesystem.tree.walk()]
        assert nodes == [(n.path, n.inode, n.size, n.mtime_ns) for n in expected.tree.walk()]
        assert [str(p.origin) for p in evidence.problems if "superblock is lost" in p.message] == [
            "docker-disk.raw > superblock @8389632"
        ]


def test_a_lost_superblock_without_a_copy_is_no_disk(tmp_path: Path) -> None:
    path = unpacked("docker-disk.raw", tmp_path)
    with path.open("r+b") as file:
        for group in range(32):
            file.seek((group * 8192 + 1) * 1024)
            file.write(bytes(1024))
    with pytest.raises(fl.UnsupportedFormat):
        fl.open(path)


def test_a_disk_cut_inside_a_file_system(tmp_path: Path) -> None:
    disk = with_table(EXT4)
    found, problems = opened(disk[: MIB + 12 * MIB], tmp_path)
    assert found == [("partition 1", "ext4")]
    assert any("ends at byte" in message for message in problems)


def test_a_folder_of_disk_images_is_one_evidence(tmp_path: Path) -> None:
    folder = tmp_path / "case"
    folder.mkdir()
    (folder / "one.img").write_bytes(with_table(EXT4))
    for name in ("btrfs-raid0-1.img", "btrfs-raid0-2.img", "btrfs-raid0-3.img"):
        unpack(folder, name)
    unpack(folder, "split.E01", "split.E02", "split.E03", "split.E04", "top.qcow2", "middle.qcow2", "base.qcow2")
    (folder / "notes.txt").write_text("seized on Monday")
    with fl.open(folder) as ev:
        assert ev.kind is fl.EvidenceKind.DISK_IMAGE
        assert str(ev.origin) == "case"
        assert [(one.name, one.type) for one in ev.filesystems] == [
            ("btrfs-raid0-1.img", "btrfs"),
            ("one.img partition 1", "ext4"),
        ]
        hashed = {(row.kind, row.path) for row in ev.hashes(kinds=["evidence", "media"])}
        images = {"btrfs-raid0-1.img", "btrfs-raid0-2.img", "btrfs-raid0-3.img", "one.img", "split.E01", "top.qcow2"}
        assert hashed == {(kind, f"case/{name}") for kind in ("evidence", "media") for name in images}
        assert str(ev.filesystems[1].tree.node("/etc/hostname").origin).startswith(
            "case/one.img > partition 1 @1048576"
        )
        said = {str(problem.origin): problem.message for problem in ev.problems}
        assert said["case/notes.txt"] == "this is no disk image that is read; it is not examined"
        assert len([row for row in ev.hashes(kinds=["file"]) if row.owner == "one.img partition 1"]) > 10
        with pytest.raises(ValueError, match="inside the evidence"):
            ev.extract(ev.filesystems[1].tree, "/etc", folder / "out")


def test_volume_groups_span_images_of_a_folder(tmp_path: Path) -> None:
    image = stored("ext4.img")[: 4 * MIB]  # as much as fits into the first logical volume
    disks = {name: bytearray(stored(name)) for name in ("pv0.img", "pv1.img")}
    place = MIB  # where the extents of the first physical volume begin
    disks["pv0.img"][place : place + len(image)] = image[: len(disks["pv0.img"]) - place]
    folder = tmp_path / "case"
    folder.mkdir()
    for name, data in disks.items():
        (folder / name).write_bytes(data)
    with fl.open(folder) as ev:
        assert [(one.name, one.type) for one in ev.filesystems] == [("pv0.img forensic/root", "ext4")]
        assert not [problem for problem in ev.problems if "missing" in problem.message]
    (folder / "copy.img").write_bytes(disks["pv1.img"])
    with fl.open(folder) as ev:
        assert any("is there already" in problem.message for problem in ev.problems)


def test_other_folders_stay_folders(tmp_path: Path) -> None:
    folder = tmp_path / "case"
    (folder / "inside").mkdir(parents=True)
    (folder / "one.img").write_bytes(EXT4[1])
    with fl.open(folder) as ev:
        assert ev.filesystems[0].type == "folder"
    (folder / "inside").rmdir()
    (folder / "one.img").write_bytes(b"text")
    with fl.open(folder) as ev:
        assert ev.filesystems[0].type == "folder"
        assert not list(ev.problems)


def test_the_media_hash_of_an_ewf_image(tmp_path: Path) -> None:
    if shutil.which("ewfacquire") is None:
        pytest.skip("needs ewfacquire")
    image = unpacked("ext4.img", tmp_path)
    command = ["ewfacquire", "-u", "-c", "best", "-t", str(tmp_path / "disk"), str(image)]
    subprocess.run(command, check=True, capture_output=True)
    with fl.open(tmp_path / "disk.E01") as ev, fl.open(image) as raw:
        (check,) = [check for check in ev.verify() if "md5" in check.subject]
        assert check.ok
        ours, theirs = ({(row.path, row.sha256) for row in one.hashes(kinds=["file"])} for one in (ev, raw))
        assert ours == theirs
        media = [row.sha256 for one in (ev, raw) for row in one.hashes(kinds=["media"])]
        assert media[0] == media[1]
