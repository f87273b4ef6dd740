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
