"""XFS of versions 4 and 5 as the kernel shows it, and what is made of damage and of hostile structures."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fixtures.disks.make_xfs import TEXT, break_off, fill, listing, mounted
from forensics_lib.errors import DamagedData, ForensicsError, PathNotFound, UnsupportedFormat
from forensics_lib.formats.xfs_inode import ForkFormat, XfsInode
from forensics_lib.formats.xfs_log import XfsLog
from forensics_lib.model import ProblemLog
from forensics_lib.sources.base import Source
from forensics_lib.sources.file import FileSource
from forensics_lib.trees.base import NodeKind
from forensics_lib.trees.xfs import LogState, XfsTree
from tests.trees.btrfs_disks import SparseDisk
from tests.trees.xfs_disks import NAMES, described, differences, disk, messages, truth

CRASHES = [name for name in NAMES if name.endswith("crash")]


def opened(source: Source) -> tuple[XfsTree, ProblemLog]:
    problems = ProblemLog()
    return XfsTree(source, problems), problems


def entry_at(name: str, entry: bytes, *, ftype: bool = True) -> int:
    """Where the inode number of an entry of the root directory lies, which is one block of eight-byte numbers."""
    tree, _ = opened(disk(name))
    root = tree.inode(tree.geometry.root)
    assert root.format == ForkFormat.EXTENTS
    for number, block in disk(name).blocks_of.items():
        at = block.find(bytes((len(entry),)) + entry + (b"\x02" if ftype else b""))
        if at > 0 and block[:4] in (b"XDB3", b"XDD3", b"XD2B", b"XD2D"):
            return number * 4096 + at - 8
    raise AssertionError(f"no entry {entry!r}")


@pytest.mark.parametrize("name", NAMES)
def test_every_path_is_as_the_kernel_said(name: str) -> None:
    tree, problems = opened(disk(name))
    assert differences(tree, truth(name)) == []
    assert tree.label == name
    if name in CRASHES:
        assert tree.log_state is LogState.REPLAYED
        (problem,) = problems.rows
        assert "the log was replayed in memory: " in problem.message
    else:
        assert tree.log_state is LogState.CLEAN
        assert problems.rows == []


@pytest.mark.parametrize("name", NAMES)
def test_every_format_of_fork_and_directory_is_among_the_fixtures(name: str) -> None:
    tree, _ = opened(disk(name))

    def inode_of(path: str) -> XfsInode:
        return tree.inode(tree.node(path).inode)

    assert inode_of("/contents/pieces-900").format == ForkFormat.BTREE
    assert inode_of("/contents/text").format == ForkFormat.EXTENTS
    assert inode_of("/directories/1").format == ForkFormat.LOCAL
    assert inode_of("/directories/60").format == ForkFormat.EXTENTS
    assert inode_of("/attributes/bytes").attribute_format == ForkFormat.LOCAL
    assert inode_of("/attributes/node").attribute_format in (ForkFormat.EXTENTS, ForkFormat.BTREE)
    assert inode_of("/link-12").format == ForkFormat.LOCAL
    assert inode_of("/link-1023").format == ForkFormat.EXTENTS


@pytest.mark.parametrize("name", ["xfs-v5", "xfs-v4"])
def test_what_is_known_of_a_file_system(name: str) -> None:
    tree, _ = opened(disk(name))
    assert tree.uuid.replace("-", "") == disk(name).read_at(32, 16).hex()
    assert tree.size == 300 << 20
    assert tree.geometry.version == (4 if name == "xfs-v4" else 5)
    if name == "xfs-v4":
        assert tree.created_ns is None
        assert tree.node("/etc").btime_ns is None
    else:
        assert tree.created_ns is not None
        assert tree.created_ns <= (tree.node("/etc").btime_ns or 0)
        assert "bigtime" in tree.geometry.features
    assert tree.geometry.has_ftype == (name != "xfs-v4")


def test_groups_agree_with_the_superblock() -> None:
    tree, _ = opened(disk("xfs-v5"))
    groups = [tree.geometry.group(number) for number in range(tree.geometry.group_count)]
    assert [group.faults for group in groups] == [()] * 4
    assert sum(group.blocks for group in groups) == tree.geometry.block_count
    assert sum(group.inodes for group in groups) == tree.geometry.inode_count
    assert sum(group.free_inodes for group in groups) == tree.geometry.free_inodes
    with pytest.raises(DamagedData):
        tree.geometry.group(4)
    offset = groups[1].offset + 512
    damaged, _ = opened(disk("xfs-v5").written(offset, b"XXXX").written(offset + 512 + 16, b"\x7f"))
    assert damaged.geometry.group(1).faults == ("no XAGF header", "the checksum of the XAGI header does not fit")


def test_paths_are_looked_up_without_a_walk() -> None:
    tree, _ = opened(disk("xfs-1k"))
    assert tree.read("/caf\udce9") == b"caf\xe9"
    assert tree.read("/link-12") == b"seized\n"
    assert described(tree.node("/level-0/level-1/level-2")) == truth("xfs-1k")["/level-0/level-1/level-2"]
    assert [node.name for node in tree.children("/directories")] == [
        "0",
        "1",
        "12",
        "2500",
        "300",
        "60",
        "base",
        "left",
    ]
    assert "/directories/2500/name-01234-z-z" in tree
    assert "/directories/2500/name-01234" not in tree
    assert "/etc/hostname/below-a-file" not in tree
    assert tree.node("/whiteout").rdev == 0
    assert (os.major(tree.node("/big-device").rdev), os.minor(tree.node("/big-device").rdev)) == (300, 70000)
    assert {tree.node(path).inode for path in ("/etc/hostname", "/etc/hardlink", "/another-hardlink")} == {
        tree.node("/etc/hostname").inode
    }
    origin = str(tree.node("/etc/hostname").origin)
    assert origin.startswith("xfs-1k.img > inode ")
    assert disk("xfs-1k").read_at(int(origin.rpartition("@")[2]), 2) == b"IN"


@pytest.mark.parametrize("name", NAMES)
def test_content_at_any_place(name: str) -> None:
    tree, _ = opened(disk(name))
    far = tree.node("/contents/far").source()
    assert far.size == (1 << 36) + 8
    assert far.read_at((1 << 36) - 2, 100) == b"\0\0far away"
    assert far.read_at(12345, 10) == bytes(10)
    pieces = tree.node("/contents/pieces-900")
    data = pieces.read()
    assert data[9000 * 899 :] == b"piece 899 of it"
    chance = random.Random(1)
    for _ in range(200):
        offset, length = chance.randrange(len(data)), chance.randrange(20_000)
        assert pieces.source().read_at(offset, length) == data[offset : offset + length]
    preallocated = tree.read("/contents/preallocated")
    assert preallocated == bytes(50_000) + TEXT[:10_000] + bytes(240_000)


@pytest.mark.parametrize("name", CRASHES)
def test_without_its_log_a_file_system_is_older(name: str) -> None:
    problems = ProblemLog()
    tree = XfsTree(disk(name), problems, replay=False)
    assert tree.log_state is LogState.DIRTY
    assert "was not written back; the file system is shown without it" in messages(problems)
    assert "/new-001" not in {node.path for node in tree.walk()}


# Structures that the kernel would not write.


def test_a_directory_below_itself_is_not_walked_again() -> None:
    tree, _ = opened(disk("xfs-v5"))
    root = struct.pack(">Q", tree.geometry.root)
    hostile, problems = opened(disk("xfs-v5").written(entry_at("xfs-v5", b"etc"), root))
    paths = [node.path for node in hostile.walk()]
    assert "/etc" in paths
    assert not any(path.startswith("/etc/") for path in paths)
    assert "is a directory whose parent is inode" in messages(problems)


def test_directories_that_hold_each_other_end() -> None:
    tree, _ = opened(disk("xfs-v5"))
    inside, outside = (tree.node(path).inode for path in ("/level-0/level-1", "/level-0"))
    at = tree.inode(inside)
    # level-1 keeps its only entry, level-2, in the inode; it is made to lead to level-0 again
    raw = disk("xfs-v5").read_at(at.offset, 512)
    place = raw.index(b"level-2") + 7 + 1
    hostile, problems = opened(disk("xfs-v5").written(at.offset + place, struct.pack(">I", outside)))
    paths = [node.path for node in hostile.walk("/level-0")]
    assert paths == ["/level-0", "/level-0/level-1", "/level-0/level-1/level-2"]
    assert f"inode {outside} is a directory whose parent is inode" in messages(problems)


def test_a_second_name_of_a_directory_is_left_out() -> None:
    tree, _ = opened(disk("xfs-v5"))
    etc = struct.pack(">Q", tree.node("/etc").inode)
    hostile, problems = opened(disk("xfs-v5").written(entry_at("xfs-v5", b"sticky"), etc))
    names = [node.name for node in hostile.children("/")]
    assert "etc" in names
    assert "sticky" not in names
    assert "b'sticky' is a second name of a directory" in messages(problems)


def test_a_directory_with_another_parent_is_listed_once() -> None:
    tree, _ = opened(disk("xfs-v5"))
    stray = struct.pack(">Q", tree.node("/directories/12").inode)
    disk_with = disk("xfs-v5").written(entry_at("xfs-v5", b"etc"), stray).written(entry_at("xfs-v5", b"sticky"), stray)
    hostile, problems = opened(disk_with)
    paths = [node.path for node in hostile.walk()]
    assert "/directories/12/name-00000" in paths
    assert "/etc/name-00000" in paths
    assert "/sticky" not in paths
    assert "whose parent is inode" in messages(problems)


@pytest.mark.parametrize("number", [1 << 56, 5, 0])
def test_an_entry_that_leads_nowhere_is_a_problem(number: int) -> None:
    place = entry_at("xfs-v4", b"etc", ftype=False)
    hostile, problems = opened(disk("xfs-v4").written(place, struct.pack(">Q", number)))
    paths = {node.path for node in hostile.walk()}
    assert paths == {path for path in truth("xfs-v4") if path != "/etc" and not path.startswith("/etc/")}
    (problem,) = problems.rows
    assert str(problem.origin) == "xfs-v4.img > etc"
    assert f"inode {number}" in problem.message


def test_names_that_cannot_be() -> None:
    place = entry_at("xfs-v5", b"etc") + 9
    hostile, problems = opened(disk("xfs-v5").written(place, b"e/c"))
    assert "/e/c" not in {node.path for node in hostile.walk()}
    assert "b'e/c'" in messages(problems)


def test_content_on_a_realtime_device_is_not_read() -> None:
    tree, _ = opened(disk("xfs-v5"))
    offset = tree.inode(tree.node("/contents/text").inode).offset
    other, _ = opened(disk("xfs-v5").written(offset + 90, b"\0\1"))
    with pytest.raises(UnsupportedFormat, match="realtime device"):
        other.read("/contents/text")


@pytest.mark.parametrize("name", ["xfs-v5", "xfs-v4"])
def test_a_lost_part_of_the_tree_of_extents_is_not_shown_as_a_hole(name: str) -> None:
    tree, _ = opened(disk(name))
    whole = tree.read("/contents/pieces-900")
    inode = tree.inode(tree.node("/contents/pieces-900").inode)
    children = struct.unpack_from(">H", inode.data_fork, 2)[0]
    room = (len(inode.data_fork) - 4) // 16
    core = 176 if name == "xfs-v5" else 100
    pointers = inode.offset + core + 4 + 8 * room
    assert children > 1
    cyclic = disk(name).written(pointers + 8, disk(name).read_at(pointers, 8))
    hostile, problems = opened(cyclic)
    (second,) = struct.unpack_from(">Q", inode.data_fork, 12)
    source = hostile.node("/contents/pieces-900").source()
    start = second * tree.geometry.block_size
    assert source.read_at(0, start) == whole[:start]
    with pytest.raises(DamagedData):
        source.read_at(start, 4096)
    assert "it is there twice" in messages(problems)
    assert "extents are declared" in messages(problems)


def test_other_damage_of_extents() -> None:
    tree, _ = opened(disk("xfs-v5"))
    inode = tree.inode(tree.node("/contents/text").inode)
    other, problems = opened(disk("xfs-v5").written(inode.offset + 176, bytes(16)))
    assert other.read("/contents/text") == bytes(inode.size)
    assert "is empty, or overlaps the one before it" in messages(problems)
    other, problems = opened(disk("xfs-v5").written(inode.offset + 176, bytes(8) + b"\xff" * 8))
    with pytest.raises(DamagedData):
        other.read("/contents/text")
    assert "not inside the file system" in messages(problems)
    other, problems = opened(disk("xfs-v5").written(inode.offset + 5, b"\x01"))
    with pytest.raises(DamagedData, match="has no extents"):
        other.read("/contents/text")


def test_a_file_system_that_was_cut_off() -> None:
    source = disk("xfs-v5").slice(0, 100 << 20, "part")
    tree, problems = opened(source)
    assert "314572800 bytes are declared, only 104857600 are there" in messages(problems)
    assert "the log cannot be used" in messages(problems)
    assert tree.log_state is LogState.UNKNOWN
    found = {node.path for node in tree.walk()}
    assert "/etc/hostname" in found
    assert found <= truth("xfs-v5").keys()


@pytest.mark.parametrize("name", NAMES)
def test_a_lost_superblock_is_taken_from_its_copy(name: str) -> None:
    tree, problems = opened(disk(name).written(0, bytes(512)))
    assert differences(tree, truth(name)) == []
    assert "the superblock is damaged; the copy at byte" in messages(problems)


def test_the_checksum_of_the_superblock_is_verified() -> None:
    tree, problems = opened(disk("xfs-v5").written(108, b"forged"))
    assert tree.label == "forged"
    (problem,) = problems.rows
    assert problem.message == "the checksum of the superblock does not fit"
    with pytest.raises(DamagedData, match="checksum"):
        XfsTree(disk("xfs-v5").written(108, b"forged"), ProblemLog(strict=True))


def test_what_is_no_sound_file_system_is_refused() -> None:
    with pytest.raises(DamagedData, match="no XFS superblock"):
        opened(disk("xfs-v5").slice(0, 200, "start"))
    with pytest.raises(DamagedData, match="no copy was found"):
        opened(disk("xfs-v5").written(4, bytes(4)).slice(0, 1 << 20, "start"))


def test_flags_and_features_are_told() -> None:
    tree, problems = opened(disk("xfs-v5").written(216, struct.pack(">I", 0x80000000 | 0x1B)))
    told = messages(problems)
    assert "incompatible features 0x80000000 are not known" in told
    assert "in need of repair" in told
    assert "needs repair" in tree.geometry.features


# Logs.


@pytest.mark.parametrize("name", CRASHES)
def test_a_torn_last_record_is_left_out(name: str) -> None:
    tree, _ = opened(disk(name))
    log = XfsLog(XfsTree(disk(name), ProblemLog(), replay=False).geometry, lambda fault: None)
    *_, last = log.records()
    start = tree.geometry.block_offset(tree.geometry.log_start)
    torn = disk(name).written(start + last.block * 512 + 1024, b"\0\1\2\3\4\5\6\7" * 8)
    problems = ProblemLog()
    again = XfsTree(torn, problems)
    assert again.log_state is LogState.REPLAYED
    assert f"the log ends before block {last.block}" in messages(problems)
    assert {node.path for node in again.walk()} != truth(name).keys()


def test_an_empty_log_is_clean() -> None:
    tree, _ = opened(disk("xfs-v5"))
    start = tree.geometry.block_offset(tree.geometry.log_start)
    size = tree.geometry.log_blocks * tree.geometry.block_size

    class Emptied(SparseDisk):
        def __init__(self) -> None:
            self.__dict__.update(disk("xfs-v5").__dict__)

        def read_at(self, offset: int, length: int) -> bytes:
            data = bytearray(super().read_at(offset, length))
            for at in range(max(offset, start), min(offset + len(data), start + size)):
                data[at - offset] = 0
            return bytes(data)

    assert opened(Emptied())[0].log_state is LogState.CLEAN


def test_a_log_of_another_file_system_or_device_is_not_replayed() -> None:
    tree, problems = opened(disk("xfs-v5-crash").written(32, b"another uuid 16b"))
    assert tree.log_state is LogState.UNKNOWN
    assert "the log belongs to another file system" in messages(problems)
    tree, problems = opened(disk("xfs-v5").written(48, bytes(8)))
    assert tree.log_state is LogState.UNKNOWN
    assert "the log is on another device" in messages(problems)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_damage_gives_errors_of_the_library_only(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(NAMES))
    blocks = sorted(disk(name).blocks_of)
    damage: dict[int, int] = {}
    for _ in range(data.draw(st.integers(1, 30))):
        place = data.draw(st.sampled_from(blocks)) * 4096 + data.draw(st.integers(0, 4095) | st.integers(0, 80))
        for index, byte in enumerate(data.draw(st.binary(min_size=1, max_size=8))):
            damage[place + index] = byte
    try:
        tree = XfsTree(disk(name).changed(damage), ProblemLog())
        for count, node in enumerate(tree.walk()):
            assert count < 2 * len(truth(name))
            if node.kind is NodeKind.FILE and node.size < 200_000:
                with contextlib.suppress(ForensicsError):
                    node.read()
    except (PathNotFound, DamagedData) as error:
        assert isinstance(error, DamagedData) or "no root" in str(error)  # noqa: PT017


def test_the_running_kernel_agrees(tmp_path: Path) -> None:
    if sys.platform != "linux" or os.geteuid() != 0 or not shutil.which("mkfs.xfs"):
        pytest.skip("needs Linux, root and xfsprogs")
    image, mount = tmp_path / "disk.img", tmp_path / "mnt"
    mount.mkdir()
    for options, work in (("-b size=2048", fill), ("-n size=16384", break_off)):
        with image.open("wb") as file:
            file.truncate(300 << 20)
        subprocess.run(["mkfs.xfs", "-q", "-f", *options.split(), image], check=True, capture_output=True)
        try:
            mounted(image, mount, "noatime", work)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"cannot mount here: {error.stderr}")
        crashed = tmp_path / "crashed.img"
        subprocess.run(["cp", "--sparse=always", image, crashed], check=True)
        mounted(image, mount, "noatime", lambda folder: None)
        rows = mounted(image, mount, "ro,noatime", listing)
        assert isinstance(rows, dict)
        assert differences(opened(FileSource(crashed))[0], rows) == []
