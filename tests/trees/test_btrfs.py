"""btrfs as the kernel shows it: every kind of file, subvolumes, several devices, damage and hostile trees."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fixtures.disks.make_btrfs import contents, listing, names
from forensics_lib.errors import DamagedData, ForensicsError, NotFound
from forensics_lib.formats import btrfs_checksum
from forensics_lib.formats.btrfs import TOP_LEVEL
from forensics_lib.formats.btrfs_checksum import CHECKSUMS
from forensics_lib.formats.btrfs_content import BtrfsContent
from forensics_lib.formats.btrfs_items import ItemKind
from forensics_lib.formats.btrfs_node import MAX_OFFSET, Item, Key
from forensics_lib.formats.btrfs_space import BtrfsSpace
from forensics_lib.model import ProblemLog
from forensics_lib.sources.base import Source
from forensics_lib.sources.file import FileSource
from forensics_lib.trees.base import NodeKind
from forensics_lib.trees.btrfs import BtrfsTree
from tests.trees.btrfs_disks import DEVICES, SparseDisk, differences, truth

SUPERBLOCKS = (64 << 10, 64 << 20)
LAYERS = "/btrfs/subvolumes"
BASE, UPPER, FROZEN = (f"{LAYERS}/{letter * 64}" for letter in "abc")


@pytest.fixture(scope="module")
def disks() -> dict[str, list[SparseDisk]]:
    return {name: [SparseDisk(device) for device in devices] for name, devices in DEVICES.items()}


@pytest.fixture(scope="module")
def disk(disks: dict[str, list[SparseDisk]]) -> SparseDisk:
    return disks["btrfs"][0]


@pytest.fixture(scope="module")
def tree(disk: SparseDisk) -> BtrfsTree:
    return BtrfsTree(disk, ProblemLog(strict=True))


@pytest.fixture
def any_checksum(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever forges a tree forges its checksums, too."""
    for kind in btrfs_checksum.CHECKSUMS:
        monkeypatch.setitem(btrfs_checksum.CHECKSUMS, kind, lambda data: b"")


def messages(problems: ProblemLog) -> str:
    return "\n".join(f"{problem.origin}: {problem.message}" for problem in problems.rows)


@pytest.mark.parametrize("name", DEVICES)
def test_every_path_is_as_the_kernel_said(disks: dict[str, list[SparseDisk]], name: str) -> None:
    problems = ProblemLog()
    for first in range(len(disks[name])):  # whichever device is named first
        devices = disks[name][first:] + disks[name][:first]
        tree = BtrfsTree(devices[0], problems, devices=devices[1:], replay=name != "btrfs-log")
        assert differences(tree, truth(name)) == []
    assert tree.label == name
    assert [problem for problem in problems.rows if "log tree" not in problem.message] == []


def test_a_log_tree_is_named(disks: dict[str, list[SparseDisk]]) -> None:
    problems = ProblemLog()
    tree = BtrfsTree(disks["btrfs-log"][0], problems, replay=False)
    assert "log tree is not replayed" in messages(problems)
    assert "/late" not in tree


def test_a_log_tree_is_replayed(disks: dict[str, list[SparseDisk]]) -> None:
    problems = ProblemLog()
    tree = BtrfsTree(disks["btrfs-log"][0], problems)
    assert "log tree was replayed in memory" in messages(problems)
    assert tree.read("/late") == b"only in the log tree"
    assert tree.volume.replayed > 2


def test_data_of_a_log_agrees_with_the_checksums_of_the_log(disks: dict[str, list[SparseDisk]]) -> None:
    tree = BtrfsTree(disks["btrfs-crash"][0], ProblemLog())
    assert tree.check("/grown").ok
    assert tree.check("/grown").expected != "0 sectors"
    space = BtrfsSpace(tree.volume, ProblemLog())
    logged = [extent for extent in tree.volume.logged() if extent.logical]
    assert logged
    assert not any(list(space.free(one.logical, one.logical + one.stored)) for one in logged)


def test_a_damaged_log_is_left_out_whole(disks: dict[str, list[SparseDisk]]) -> None:
    disk = disks["btrfs-crash"][0]
    tree = BtrfsTree(disk, ProblemLog())
    item = next(item for item in tree.volume._overlaid[TOP_LEVEL].changes.values() if item is not None)
    hurt = disk
    for place in copies(tree, item):
        hurt = hurt.written(place, b"\xff")
    problems = ProblemLog()
    damaged = BtrfsTree(hurt, problems)
    assert "a log tree cannot be read" in messages(problems)
    assert {"/deleted", "/gone"} <= {node.path for node in damaged.walk()}
    wanted = {path for path in truth("btrfs-crash") if path.startswith("/subvolume/")}
    assert len(wanted) == 2  # another log
    assert [one for one in differences(damaged, truth("btrfs-crash"), wanted) if "/subvolume/" in one] == []


def test_subvolumes_are_listed(tree: BtrfsTree) -> None:
    rows = {row.path: row for row in tree.subvolumes if row.path is not None}
    assert list(rows) == ["/", BASE, UPPER, f"{UPPER}/inner", FROZEN]
    assert [row.id for row in rows.values()] == [5, 256, 257, 258, 259]
    assert [row.name for row in rows.values()] == ["", "a" * 64, "b" * 64, "inner", "c" * 64]
    assert [row.parent for row in rows.values()] == [None, 5, 5, 257, 5]
    assert [row.read_only for row in rows.values()] == [False, False, False, False, True]
    assert rows[UPPER].parent_uuid == rows[BASE].uuid
    assert rows[FROZEN].parent_uuid == rows[UPPER].uuid
    assert rows[BASE].parent_uuid == ""
    base = truth("btrfs")[BASE]
    created = rows[BASE].created_ns
    assert created is not None
    assert abs(created - base["ctime_ns"]) < 10 * 10**9
    assert tree.default_subvolume == 5
    assert len(tree.uuid) == 36


def test_a_deleted_subvolume_can_be_read(tree: BtrfsTree, disk: SparseDisk) -> None:
    (gone,) = (row for row in tree.subvolumes if row.deleted)
    assert (gone.path, gone.parent, gone.name) == (None, None, "")
    deleted = BtrfsTree(disk, ProblemLog(strict=True), subvolume=gone.id)
    assert [node.path for node in deleted.walk()] == ["/", "/file"]
    assert deleted.read("/file") == b"deleted"


def test_a_subvolume_can_be_the_root(disk: SparseDisk) -> None:
    tree = BtrfsTree(disk, ProblemLog(strict=True), subvolume=257)
    assert [node.path for node in tree.walk()] == ["/", "/base-file", "/inner", "/inner/file", "/upper-file"]
    assert tree.read("/inner/file") == b"of a subvolume in a subvolume"
    with pytest.raises(NotFound):
        BtrfsTree(disk, ProblemLog(), subvolume=4000)


def test_a_snapshot_does_not_reach_into_other_subvolumes(tree: BtrfsTree) -> None:
    inner = tree.node(f"{FROZEN}/inner")
    assert (inner.kind, inner.mode, inner.mtime_ns, list(tree.children(inner.path))) == (NodeKind.DIR, 0o755, None, [])


def test_inode_numbers_of_subvolumes_do_not_meet(tree: BtrfsTree) -> None:
    files = [node for node in tree.walk() if node.kind is NodeKind.FILE]
    by_number: dict[int, list[str]] = {}
    for node in files:
        by_number.setdefault(node.inode, []).append(node.path)
    assert all(len(paths) == tree.node(paths[0]).nlink for paths in by_number.values())
    assert tree.node(f"{BASE}/base-file").inode != tree.node(f"{UPPER}/base-file").inode


def test_an_origin_leads_to_the_inode(tree: BtrfsTree, disk: SparseDisk) -> None:
    node = tree.node(f"{UPPER}/upper-file")
    steps = str(node.origin).split(" > ")
    assert steps[:2] == ["btrfs.img", "subvolume 257"]
    assert steps[2].startswith("inode ")
    assert node.origin.offset is not None
    item = disk.read_at(node.origin.offset, 160)
    assert int.from_bytes(item[16:24], "little") == node.size == 18
    assert int.from_bytes(item[52:56], "little") == 0o100644


def test_creation_is_known(tree: BtrfsTree) -> None:
    node = tree.node("/owner")
    assert node.mtime_ns == -86400 * 10**9 + 123456789
    assert node.btime_ns is not None
    assert 0 <= (node.ctime_ns or 0) - node.btime_ns < 10**9


@pytest.mark.parametrize("method", ["zlib", "lzo", "zstd", "none"])
def test_any_range_can_be_read(tree: BtrfsTree, method: str) -> None:
    chance = random.Random(method)
    for name in ("text", "reflink", "sparse", "preallocated", "punched", "cut", "inline"):
        source = tree.node(f"/{method}/{name}").source()
        whole = tree.read(f"/{method}/{name}")
        for _ in range(30):
            offset, length = chance.randrange(len(whole) + 9), chance.randrange(150_000)
            assert source.read_at(offset, length) == whole[offset : offset + length]


def test_a_second_superblock_serves_when_the_first_is_damaged(disk: SparseDisk) -> None:
    problems = ProblemLog()
    tree = BtrfsTree(disk.changed({SUPERBLOCKS[0] + 0x48: 0xEE}), problems)
    assert "the first superblock is damaged; the copy at 67108864 was used" in messages(problems)
    assert tree.read("/etc/hostname") == b"seized\n"
    with pytest.raises(DamagedData, match="wrong checksum"):
        BtrfsTree(disk.changed({place + 0x48: 0xEE for place in SUPERBLOCKS}), ProblemLog())


def copies(tree: BtrfsTree, item: Item) -> list[int]:
    """Where each copy of an item lies."""
    volume = tree.volume
    size = volume.superblock.node_size
    for logical in list(volume.nodes._kept):
        chunk = volume.chunks.chunk(logical)
        places = [next(volume.chunks.pieces(logical, size, mirror)).offset for mirror in range(chunk.mirrors)]
        if places[0] <= item.at < places[0] + size:
            return [place + item.at - places[0] for place in places]
    raise AssertionError("not a tree block that was read")


def item_of(tree: BtrfsTree, path: str, kind: ItemKind) -> Item:
    """The first item of a kind of the inode of a path in the top level."""
    number = tree.node(path).inode
    return next(tree.volume.files(5).tree.items(Key(number, kind, 0), Key(number, kind, MAX_OFFSET)))


def test_a_damaged_copy_of_a_tree_block_is_passed_over(tree: BtrfsTree, disk: SparseDisk) -> None:
    first, second = copies(tree, item_of(tree, "/many", ItemKind.INODE))
    assert first != second
    problems = ProblemLog()
    assert differences(BtrfsTree(disk.changed({first: 0xEE}), problems), truth("btrfs")) == []
    assert "wrong checksum" in messages(problems)


def test_damage_costs_only_what_it_hits(tree: BtrfsTree, disk: SparseDisk) -> None:
    number = tree.node("/many").inode
    folder = [
        *tree.volume.files(5).tree.items(
            Key(number, ItemKind.DIR_INDEX, 0), Key(number, ItemKind.DIR_INDEX, MAX_OFFSET)
        )
    ]
    damaged = disk.changed(dict.fromkeys(copies(tree, folder[100]), 0xEE))
    problems = ProblemLog()
    wanted = truth("btrfs")
    found = {node.path for node in BtrfsTree(damaged, problems).walk()}
    assert "wrong checksum" in messages(problems)
    assert found == wanted.keys()  # names are kept twice


def test_unreadable_extents_are_no_holes(tree: BtrfsTree, disk: SparseDisk) -> None:
    number = tree.node("/none/sparse").inode
    kind = ItemKind.EXTENT_DATA
    item = next(tree.volume.files(5).tree.items(Key(number, kind, 0), Key(number, kind, MAX_OFFSET)))
    damaged = disk.changed(dict.fromkeys(copies(tree, item), item.data[0] ^ 0xFF))
    files = BtrfsTree(damaged, ProblemLog()).volume.files(5)
    content = files.content(number, 3_000_007, damaged.origin)
    with pytest.raises(DamagedData, match="cannot be read"):
        content.read_at(1_000_001, 10)


def test_an_earlier_root_serves_when_the_newest_is_damaged(tree: BtrfsTree, disk: SparseDisk) -> None:
    volume = tree.volume
    root = volume.superblock.roots.root
    places = [next(volume.chunks.pieces(root, 4096, mirror)).offset for mirror in (0, 1)]
    problems = ProblemLog()
    older = BtrfsTree(disk.changed(dict.fromkeys(places, 0xEE)), problems)
    assert "the newest roots are damaged; those of transaction" in messages(problems)
    assert older.node("/").kind is NodeKind.DIR


def test_a_missing_device_costs_what_lies_on_it(disks: dict[str, list[SparseDisk]]) -> None:
    problems = ProblemLog()
    first, _, third = disks["btrfs-raid0"]
    tree = BtrfsTree(first, problems, devices=[third])
    assert "device 2 is missing" in messages(problems)
    wanted = truth("btrfs-raid0")
    assert {node.path for node in tree.walk()} == wanted.keys()
    unreadable = set()
    for node in tree.walk():
        if node.kind is NodeKind.FILE:
            try:
                node.read()
            except DamagedData:
                unreadable.add(node.path)
    assert unreadable
    assert unreadable <= {path for path, row in wanted.items() if row.get("size", 0) > 2048}


def test_mirrors_stand_in_for_a_missing_device(disks: dict[str, list[SparseDisk]]) -> None:
    for missing in range(4):
        devices = [device for index, device in enumerate(disks["btrfs-raid10"]) if index != missing]
        problems = ProblemLog()
        tree = BtrfsTree(devices[0], problems, devices=devices[1:])
        assert differences(tree, truth("btrfs-raid10")) == []
        assert {problem.message for problem in problems.rows} == {f"device {missing + 1} is missing"}


def test_devices_that_do_not_belong_are_named(disks: dict[str, list[SparseDisk]], disk: SparseDisk) -> None:
    problems = ProblemLog()
    BtrfsTree(disk, problems, devices=[disk.changed({}), disks["btrfs-log"][0]])
    assert "is device 1, which was given already" in messages(problems)
    assert "belongs to another btrfs file system" in messages(problems)


@pytest.mark.usefixtures("any_checksum")
def test_a_device_that_fell_behind_is_read_last(disks: dict[str, list[SparseDisk]]) -> None:
    first, *others = disks["btrfs-raid10"]
    generation = int.from_bytes(first.read_at(SUPERBLOCKS[0] + 0x48, 8), "little")
    behind = first
    for place in SUPERBLOCKS:
        behind = behind.written(place + 0x48, (generation - 1).to_bytes(8, "little"))
    tree = BtrfsTree(others[0], ProblemLog(), devices=[first, *others[1:]])
    content = tree.node("/none/text").source() if "/none/text" in tree else tree.node("/text").source()
    assert isinstance(content, BtrfsContent)
    (logical, length), *_ = content.stored()
    piece = next(tree.volume.chunks.pieces(logical, length))
    problems = ProblemLog()
    if piece.device == 1:  # its copy is another one's first choice
        behind = behind.written(piece.offset, b"OLD")
    shown = BtrfsTree(behind, problems, devices=others)
    assert "device 1 missed the last transactions" in messages(problems)
    assert differences(shown, truth("btrfs-raid10")) == []


def test_a_seed_is_found_by_what_lies_on_it(disks: dict[str, list[SparseDisk]], disk: SparseDisk) -> None:
    """A file system that has grown of another one's device names that in its chunks only."""
    first, second, third = disks["btrfs-raid0"]
    seed = second
    for place in SUPERBLOCKS:
        data = bytearray(second.read_at(place, 4096))
        if len(data) == 4096 and any(data):
            data[0x20:0x30] = b"of another fs..."
            digest = CHECKSUMS[int.from_bytes(data[0xC4:0xC6], "little")](bytes(data[32:]))
            data[: len(digest)] = digest
            seed = seed.written(place, bytes(data))
    problems = ProblemLog()
    tree = BtrfsTree(first, problems, devices=[third], seeds=[disk, seed])
    assert differences(tree, truth("btrfs-raid0")) == []
    assert problems.rows == []
    assert tree.volume.nodes.fsids == {tree.volume.superblock.metadata_fsid, b"of another fs..."}


@pytest.mark.parametrize("method", ["none", "zlib", "lzo", "zstd"])
def test_checksums_of_data(tree: BtrfsTree, disk: SparseDisk, method: str) -> None:
    path = f"/{method}/reflink"
    good = tree.check(path)
    assert good.ok
    assert good.expected == good.actual
    content = tree.node(path).source()
    assert isinstance(content, BtrfsContent)
    if method == "none":
        size = tree.node(path).size
        assert good.expected == f"{size // 4096 + 1} sectors"
    logical, _ = max(content.stored(), key=lambda part: part[1])
    at = next(tree.volume.chunks.pieces(logical, 1)).offset + 100
    bad = BtrfsTree(disk.changed({at: disk.read_at(at, 1)[0] ^ 1}), ProblemLog()).check(path)
    assert not bad.ok
    assert int(bad.actual.split()[0]) == int(bad.expected.split()[0]) - 1
    assert tree.check(f"/{method}/inline").expected == "0 sectors"


@pytest.mark.usefixtures("any_checksum")
def test_names_outlast_a_damaged_root_inode(tree: BtrfsTree, disk: SparseDisk) -> None:
    hostile = disk
    for place in copies(tree, item_of(tree, "/", ItemKind.INODE)):
        hostile = hostile.written(place + 52, bytes(4))
    problems = ProblemLog()
    shown = BtrfsTree(hostile, problems)
    assert (shown.node("/").kind, shown.node("/").mtime_ns) == (NodeKind.DIR, None)
    assert shown.read("/etc/hostname") == b"seized\n"
    assert "inode of unknown type" in messages(problems)


@pytest.mark.usefixtures("any_checksum")
@pytest.mark.parametrize("target", ["/", "/level-0", "/level-0/level-1"])
def test_a_directory_inside_itself_is_refused(tree: BtrfsTree, disk: SparseDisk, target: str) -> None:
    number = tree.node(target).inode
    item = item_of(tree, "/level-0/level-1", ItemKind.DIR_INDEX)
    hostile = disk
    for place in copies(tree, item):
        hostile = hostile.written(place, number.to_bytes(8, "little"))
    problems = ProblemLog()
    paths = [node.path for node in BtrfsTree(hostile, problems).walk("/level-0")]
    assert paths == ["/level-0", "/level-0/level-1"]
    assert "belongs to another place" in messages(problems)


@pytest.mark.usefixtures("any_checksum")
def test_a_subvolume_inside_itself_is_refused(tree: BtrfsTree, disk: SparseDisk) -> None:
    files = tree.volume.files(257)
    entries = files.tree.items(Key(256, ItemKind.DIR_INDEX, 0), Key(256, ItemKind.DIR_INDEX, MAX_OFFSET))
    item = next(entry for entry in entries if entry.data.endswith(b"inner"))
    hostile = disk
    for place in copies(tree, item):
        hostile = hostile.written(place, (257).to_bytes(8, "little"))
    shown = BtrfsTree(hostile, ProblemLog(), subvolume=257)
    assert [node.path for node in shown.walk()] == ["/", "/base-file", "/inner", "/upper-file"]


@pytest.mark.usefixtures("any_checksum")
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_gives_errors_of_the_library(disks: dict[str, list[SparseDisk]], data: st.DataObject) -> None:
    base = disks[data.draw(st.sampled_from(["btrfs-log", "btrfs-crash"]))][0]
    blocks = sorted(base.blocks_of)
    changes = data.draw(
        st.dictionaries(
            st.tuples(st.sampled_from(blocks), st.integers(0, 4095)).map(lambda at: at[0] * 4096 + at[1]),
            st.integers(0, 255),
            max_size=40,
        )
    )
    header = data.draw(st.dictionaries(st.integers(0x40, 0x500).map(lambda at: at + (64 << 10)), st.integers(0, 255)))
    problems = ProblemLog()
    try:
        tree = BtrfsTree(base.changed(changes | (header if len(header) < 4 else {})), problems)
    except ForensicsError:
        return
    for count, node in enumerate(tree.walk()):
        assert count < 2000
        if node.kind is NodeKind.FILE:
            try:
                node.source().read_at(0, 1 << 20)
            except ForensicsError:
                continue
    assert tree.subvolumes


def test_a_cut_off_disk_gives_errors_of_the_library(disk: SparseDisk) -> None:
    for size in (0, 100, 65536, 70000, 1 << 20, 20 << 20, 60 << 20):
        short = disk.changed({})
        short.size = size
        try:
            list(BtrfsTree(short, ProblemLog()).walk())
        except DamagedData:
            continue


def can_mount() -> str:
    """Why this machine cannot mount btrfs; empty when it can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "needs root on Linux"
    if not shutil.which("mkfs.btrfs") or "btrfs" not in Path("/proc/filesystems").read_text():
        return "needs btrfs-progs and a kernel with btrfs"
    if not Path("/dev/loop-control").exists():
        return "needs loop devices"
    return ""


@contextmanager
def mounted(image: Path, options: str) -> Iterator[Path]:
    """Where an image is mounted meanwhile."""
    mount = image.parent / "mnt"
    mount.mkdir(exist_ok=True)
    done = subprocess.run(["mount", "-o", f"loop,noatime,{options}", image, mount], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"mounting failed: {done.stderr!r}")
    try:
        yield mount
    finally:
        subprocess.run(["umount", mount], check=True)


@pytest.mark.skipif(bool(can_mount()), reason=can_mount() or "it can")
@pytest.mark.parametrize("options", [["-n", "4096", "-O", "^no-holes"], ["-M", "--csum", "xxhash"]], ids=" ".join)
def test_the_running_kernel_agrees(tmp_path: Path, options: list[str]) -> None:
    image = tmp_path / "disk.img"
    with image.open("wb") as file:
        file.truncate(200 << 20)
    subprocess.run(["mkfs.btrfs", "-q", *options, image], check=True, capture_output=True)
    with mounted(image, "nodiscard,compress=lzo") as mount:
        names(mount)
        contents(mount, random.Random(2))
        (mount / "many").mkdir()
        for number in range(700):
            (mount / f"many/{number}").write_bytes(b"%d" % number * (number % 900))
    with mounted(image, "ro") as mount:  # no change to read-only while it is mounted: some kernels never return from it
        wanted = listing(mount)
    source: Source = FileSource(image)
    assert differences(BtrfsTree(source, ProblemLog(strict=True)), wanted) == []


@pytest.mark.skipif(not shutil.which("mkfs.btrfs"), reason="needs btrfs-progs")
def test_what_mkfs_copied_is_there(tmp_path: Path) -> None:
    source, image = tmp_path / "source", tmp_path / "disk.img"
    (source / "dir").mkdir(parents=True)
    (source / "dir/file").write_bytes(b"0123456789" * 30_000)
    (source / os.fsdecode(b"caf\xe9")).write_bytes(b"small")
    (source / "link").symlink_to("dir/file")
    with image.open("wb") as file:
        file.truncate(200 << 20)
    done = subprocess.run(["mkfs.btrfs", "-q", "--rootdir", source, image], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"mkfs.btrfs failed: {done.stderr!r}")
    tree = BtrfsTree(FileSource(image), ProblemLog(strict=True))
    assert [node.path for node in tree.walk()] == ["/", "/caf\udce9", "/dir", "/dir/file", "/link"]
    assert tree.read("/link") == b"0123456789" * 30_000
    assert tree.read("/caf\udce9") == b"small"
