from __future__ import annotations

import itertools
import os
import random
import runpy
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import forensics_lib as fl
from forensics_lib._crc32c import crc32c
from forensics_lib.errors import DamagedData
from forensics_lib.formats.ext4 import ExtGeometry, is_ext
from forensics_lib.formats.ext4_fast_commit import FastInode, FastName, FastRange, FastRecord
from forensics_lib.formats.ext4_fast_replay import FastReplay
from forensics_lib.formats.ext4_inode import EXTENTS, INLINE_DATA, decode_inode
from forensics_lib.formats.jbd2 import Journal
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.sources.base import BytesSource
from forensics_lib.sources.file import FileSource
from forensics_lib.trees import inodes
from forensics_lib.trees.base import Node, NodeKind
from forensics_lib.trees.ext import ExtTree
from tests.diskmaker import run, stored
from tests.trees.kernel_disks import DISKS, assert_as_listed, assert_as_the_kernel_said, truth, unpacked

IMAGES = ("ext2", "ext4", "ext4-crash")


def records() -> st.SearchStrategy[FastRecord]:
    numbers, names = st.integers(1, 40), st.sampled_from([b"f0", b"f1", b"new", b"sub", b"x"])
    inode = bytes(BytesSource(stored("ext4-fast-replay.img"), Origin("disk")).read_at(0, 160))
    return st.one_of(
        st.builds(FastInode, numbers, st.binary(min_size=128, max_size=160) | st.just(inode), st.just(3), st.just(0)),
        st.builds(FastName, numbers, numbers, names, st.booleans(), st.just(3), st.just(b""), st.booleans()),
        st.builds(
            FastRange,
            numbers,
            st.integers(0, 100) | st.integers(0, 0xFFFFFFFF),
            st.integers(0, 20) | st.integers(0, 0xFFFFFFFF),
            st.just(0) | st.integers(0, 1 << 48),
            st.booleans(),
        ),
    )


@pytest.fixture(scope="module", params=IMAGES)
def disk(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    return request.param, unpacked(request.param, tmp_path_factory.mktemp("disk"))


def test_every_path_is_as_the_kernel_said(disk: tuple[str, Path]) -> None:
    name, path = disk
    assert_as_the_kernel_said(name, ExtTree(FileSource(path), ProblemLog()))


def test_the_journal_of_a_crash_is_replayed(tmp_path: Path) -> None:
    path = unpacked("ext4-crash", tmp_path)
    problems = ProblemLog()
    tree = ExtTree(FileSource(path), problems)
    assert tree.read("/late/arrival") == b"only in the journal"
    assert "/etc/empty" not in tree
    assert tree.replayed > 0
    assert any("journal was replayed in memory" in problem.message for problem in problems.rows)


def test_fast_commits_are_replayed(tmp_path: Path) -> None:
    problems = ProblemLog()
    tree = ExtTree(FileSource(unpacked("ext4-fast-replay", tmp_path)), problems)
    assert tree.fast_commits == 15
    rows = truth("ext4-fast-replay")
    changed = {"/", "/old", "/sub", "/made", "/made/deeper"}
    for place in changed:  # which fast commits do not tell
        node = tree.node(place)
        assert node.mtime_ns is not None
        assert node.mtime_ns <= rows[place]["mtime_ns"]
        rows[place] |= {"mtime_ns": node.mtime_ns, "ctime_ns": node.ctime_ns}
    assert_as_listed(rows, tree)
    [problem] = problems.rows
    assert "15 fast commits" in problem.message
    assert "times of directories: those of 5 are older" in problem.message


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_fast_commits_give_errors_of_the_library_only(data: st.DataObject) -> None:
    disk = bytearray(stored("ext4-fast-replay.img"))
    start = disk.index(b"\x09\0\x08\0")  # the head of the first one
    for _ in range(data.draw(st.integers(1, 3))):
        disk[start + data.draw(st.integers(0, 15 << 10))] ^= 1 << data.draw(st.integers(0, 7))
    problems = ProblemLog()
    tree = ExtTree(BytesSource(bytes(disk), Origin("disk")), problems)
    assert tree.fast_commits <= 15
    assert len(list(tree.walk())) > 10
    if tree.fast_commits < 15:
        assert any("replayed" in problem.message for problem in problems.rows)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(records(), max_size=10), max_size=5))
def test_any_records_of_fast_commits_can_be_applied(commits: list[list[FastRecord]]) -> None:
    source = BytesSource(stored("ext4-fast-replay.img"), Origin("disk"))
    geometry = ExtGeometry(source)
    replay = FastReplay(source, geometry, commits, lambda _: None)
    for number in replay.touched:
        replay.directory(number, geometry.inode(number), lambda _: None)
    geometry.maps = replay.maps
    for number, raw in replay.inodes.items():
        try:
            found = geometry.runs(decode_inode(number, bytes(raw), 0), [])
        except DamagedData:
            continue
        assert all(one.logical + one.count <= two.logical for one, two in itertools.pairwise(found))


def test_whiteouts_and_opaque_marks_are_there(tmp_path: Path) -> None:
    tree = ExtTree(FileSource(unpacked("ext4", tmp_path)), ProblemLog())
    assert (tree.node("/whiteout").kind, tree.node("/whiteout").rdev) == (NodeKind.CHAR, 0)
    assert tree.node("/opaque").xattrs == {"trusted.overlay.opaque": b"y"}


@pytest.mark.parametrize("name", ["ext2", "ext4"])
def test_the_sleuth_kit_finds_the_same(name: str, tmp_path: Path) -> None:
    pytsk3 = pytest.importorskip("pytsk3")
    path = unpacked(name, tmp_path)
    kit = pytsk3.FS_Info(pytsk3.Img_Info(str(path)))
    for node in ExtTree(FileSource(path), ProblemLog()).walk():
        if node.kind is NodeKind.FILE and node.size:
            assert kit.open_meta(inode=node.inode).read_random(0, node.size) == node.read(), node.path
        if node.kind is NodeKind.DIR:
            names = {entry.info.name.name for entry in kit.open_dir(inode=node.inode) if int(entry.info.name.flags) & 1}
            listed = {child.path.rpartition("/")[2].encode("utf-8", "surrogateescape") for child in tree_of(path, node)}
            assert listed == names - {b".", b"..", b"$OrphanFiles"}, node.path


def tree_of(path: Path, node: Node) -> list[Node]:
    return list(ExtTree(FileSource(path), ProblemLog()).children(node.path))


def folder_of(path: Path) -> int:
    """A folder of directories in directories, with long names; returns how many names there are."""
    count = 0
    for number in range(40):
        place = path / f"d{number}" / "inner"
        place.mkdir(parents=True)
        for name in range(number):
            (place / (f"{name:03}" * (1 + name % 60))[:250]).write_bytes(b"%d" % name)
        count += 2 + number
    for number in range(600):
        (path / "d0" / f"many-{number:040}").touch()
    return count + 600


@pytest.mark.parametrize("options", ["-I 256", "-I 128", "-b 1024 -O inline_data"])
def test_access_control_lists_are_as_linux_gives_them(options: str, tmp_path: Path) -> None:
    source, image = tmp_path / "source", tmp_path / "disk.img"
    (source / "folder").mkdir(parents=True)
    entries = [(1, 7, 0xFFFFFFFF), (2, 6, 70000), (4, 5, 0xFFFFFFFF), (16, 7, 0xFFFFFFFF), (32, 4, 0xFFFFFFFF)]
    wanted = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    names = {"system.posix_acl_access", "system.posix_acl_default"}
    try:
        for name in names:
            os.setxattr(source / "folder", name, wanted)
    except (OSError, AttributeError) as error:
        pytest.skip(f"no access control lists here: {error}")
    image.write_bytes(b"")
    run("mkfs.ext4", "-q", "-F", *options.split(), "-d", source, image, "8M")
    assert ExtTree(FileSource(image), ProblemLog()).node("/folder").xattrs == dict.fromkeys(names, wanted)


@pytest.mark.parametrize(
    "options",
    [
        "-O inline_data -I 256",
        "-O meta_bg,^resize_inode -b 1024",
        "-O ^extents,^64bit,^has_journal -b 1024",
        "-O bigalloc -C 16384",
        "-O ^filetype,^dir_index -b 1024 -I 128",
        "-O sparse_super2 -E num_backup_sb=1 -b 4096",
        "-O ^sparse_super,^resize_inode -b 1024",
        "-O metadata_csum,64bit -b 2048",
    ],
)
def test_file_systems_of_every_shape(options: str, tmp_path: Path) -> None:
    source, image = tmp_path / "source", tmp_path / "disk.img"
    count = folder_of(source)
    image.write_bytes(b"")
    run("mkfs.ext4", "-q", "-F", *options.split(), "-d", source, image, "64M")
    problems = ProblemLog()
    tree = ExtTree(FileSource(image), problems)
    nodes = {node.path: node for node in tree.walk()}
    assert len(nodes) == count + 2  # the root and lost+found
    for path in source.rglob("*"):
        node = nodes["/" + path.relative_to(source).as_posix()]
        assert node.read() == path.read_bytes() if path.is_file() else node.kind is NodeKind.DIR
    assert not problems.rows


@pytest.mark.parametrize("options", ["-O extents", "-O ^extents,^64bit,^has_journal"])
def test_what_a_damaged_map_still_finds_is_read(options: str, tmp_path: Path) -> None:
    source, image = tmp_path / "source", tmp_path / "disk.img"
    source.mkdir()
    content = bytearray(4 << 20)
    for at in range(0, len(content), 8192):  # every other block is a hole
        content[at : at + 1024] = f"block {at}".encode().ljust(1024, b".")
    (source / "file").write_bytes(content)
    image.write_bytes(b"")
    run("mkfs.ext4", "-q", "-F", "-b", "1024", *options.split(), "-d", source, image, "16M")
    node = ExtTree(FileSource(image), ProblemLog()).node("/file")
    assert node.read() == content
    inode = ExtGeometry(FileSource(image)).inode(node.inode)
    if inode.flags & EXTENTS:
        (block,) = struct.unpack_from("<I", inode.block, 12 + 12 + 4)  # of the second child of the root
    else:
        (block,) = struct.unpack_from("<I", inode.block, 48)  # of the single indirect block
    data = bytearray(image.read_bytes())
    data[block * 1024 : (block + 1) * 1024] = b"?" * 1024
    image.write_bytes(data)
    damaged = ExtTree(FileSource(image), ProblemLog()).node("/file").source()
    good = bad = 0
    for at in range(0, len(content), 1024):
        try:
            assert damaged.read_at(at, 1024) == content[at : at + 1024]
            good += 1
        except DamagedData:
            bad += 1
    assert good > 1000
    assert bad > 100
    with pytest.raises(DamagedData):
        b"".join(damaged.blocks())


def test_directories_that_hold_each_other_end(tmp_path: Path) -> None:
    source, image = tmp_path / "source", tmp_path / "disk.img"
    (source / "outer" / "inner").mkdir(parents=True)
    (source / "outer" / "other").mkdir()
    image.write_bytes(b"")
    run("mkfs.ext4", "-q", "-F", "-O", "^metadata_csum", "-d", source, image, "8M")
    tree = ExtTree(FileSource(image), ProblemLog())
    outer, inner = tree.node("/outer").inode, tree.node("/outer/inner").inode
    data = bytearray(image.read_bytes())

    def point(name: bytes, old: int, new: int) -> None:
        at = data.index(struct.pack("<I", old) + data[data.index(name) - 4 : data.index(name)] + name)
        struct.pack_into("<I", data, at, new)

    point(b"inner", inner, outer)  # the directory lies in itself
    point(b"other", tree.node("/outer/other").inode, 2)  # and the root too
    image.write_bytes(data)
    problems = ProblemLog()
    paths = [node.path for node in ExtTree(FileSource(image), problems).walk()]
    assert paths == ["/", "/lost+found", "/outer", "/outer/inner", "/outer/other"]
    assert any("a directory whose parent is inode" in problem.message for problem in problems.rows)


def test_what_is_kept_of_directories_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inodes, "_MAX_NAMES", 50)
    monkeypatch.setattr(inodes, "_MAX_PATHS", 3)
    tree = ExtTree(FileSource(unpacked("ext4", tmp_path)), ProblemLog())
    wanted = truth("ext4").keys()
    kept = 0
    paths = set()
    for node in tree.walk():
        paths.add(node.path)
        kept = max(kept, sum(len(one.entries) for one in list(tree._directories.values())[:-1]))
    assert paths == set(wanted)
    assert kept <= 50
    assert len(tree._numbers) <= 3


@pytest.mark.parametrize("most", [3, 2000])
def test_what_paths_lead_through_is_kept_within_a_bound(
    most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inodes, "_MAX_NODES", most)
    path = unpacked("ext4", tmp_path)
    tree = ExtTree(FileSource(path), ProblemLog())
    walked = {node.path: node for node in ExtTree(FileSource(path), ProblemLog()).walk()}
    for _ in range(2):
        for place, node in walked.items():
            assert tree.find(place) == node
            assert len(tree._nodes) <= most
    assert tree.find("/nothing") is None
    assert {node.kind for node in tree._nodes.values()} <= {NodeKind.DIR, NodeKind.SYMLINK}


def test_large_attributes_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inodes, "_MAX_XATTRS", 1)
    tree = ExtTree(FileSource(unpacked("ext4", tmp_path)), ProblemLog())
    assert tree.node("/opaque").xattrs == tree.node("/opaque").xattrs == {"trusted.overlay.opaque": b"y"}
    assert "/" in tree._nodes
    assert "/opaque" not in tree._nodes


def test_a_disk_opens_as_evidence(tmp_path: Path) -> None:
    path = unpacked("ext4", tmp_path)
    with fl.open(path) as ev:
        assert ev.kind is fl.EvidenceKind.DISK_IMAGE
        (filesystem,) = ev.filesystems
        assert (filesystem.type, filesystem.size) == ("ext4", 16 << 20)
        assert filesystem.tree.read("/etc/hostname") == b"seized\n"
        hashes = {row.path: row.sha256 for row in ev.hashes(kinds={"file"})}
        wanted = {place: row["sha256"] for place, row in truth("ext4").items() if "sha256" in row}
        assert hashes == wanted
        assert [row.kind for row in ev.hashes(kinds={"evidence"})] == ["evidence"]


def test_content_in_an_inode_that_is_shorter_than_its_size_goes_on_with_zeros() -> None:
    """As mke2fs leaves files that end in a hole."""
    geometry = ExtGeometry(BytesSource(stored("ext4-fast-commit.img"), Origin("disk")))
    inode = geometry.inode(12)._replace(flags=INLINE_DATA, size=1 << 40, block=b"x" * 60, tail=b"", acl_block=0)
    content = geometry.content(inode, inode.size, Origin("inode"))
    assert content.size == 1 << 40
    assert content.read_at(0, 100) == b"x" * 60 + bytes(40)
    assert content.read_at((1 << 40) - 5, 100) == bytes(5)
    assert geometry.content(inode, 30, Origin("inode")).read_at(0, 100) == b"x" * 30


def test_features_that_are_not_known_are_named() -> None:
    data = bytearray(stored("ext4-fast-commit.img"))
    data[1024 + 96 + 3] |= 0x40
    problems = ProblemLog()
    ExtTree(BytesSource(bytes(data), Origin("disk")), problems)
    assert problems.rows[0].message == "incompatible features 0x40000000 are not known; what they change is misread"


def test_something_else_is_no_ext_file_system() -> None:
    source = BytesSource(bytes(4096), Origin("zeros"))
    assert not is_ext(source)
    with pytest.raises(DamagedData, match="no ext superblock"):
        ExtGeometry(source)


@pytest.mark.parametrize("seed", range(6))
def test_flipped_bits_are_problems_and_never_crashes(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    data = bytearray(unpacked("ext4-crash", tmp_path).read_bytes())
    used = [at for at in range(0, len(data), 1024) if any(data[at : at + 1024])]
    for _ in range(200):
        at = rng.choice(used) + rng.randrange(1024)
        data[at] ^= 1 << rng.randrange(8)
    path = tmp_path / "damaged.img"
    path.write_bytes(data)
    problems = ProblemLog()
    try:
        tree = ExtTree(FileSource(path), problems)
        for count, node in enumerate(tree.walk()):
            if node.kind is NodeKind.FILE and node.size < 1 << 20:
                try:
                    node.read()
                except fl.ForensicsError:
                    continue
            if count > 5000:
                break
    except fl.ForensicsError:
        pass


def checked_log(damage: int | None = None, *, seconds: int = 50) -> Journal:
    """Two transactions with checksums of version 3, the second one at a time; a byte of a block may be changed."""
    uuid = b"sixteen byte ids"

    def checksum(data: bytes) -> int:
        return crc32c(uuid + data) ^ 0xFFFFFFFF

    def described(sequence: int, number: int, content: bytes) -> list[bytes]:
        at = struct.pack(">I", sequence)
        tags = struct.pack(">III", 0xC03B3998, 1, sequence)
        tags += struct.pack(">IIII", number, 2 | 8, 0, checksum(at + content))
        tags = tags.ljust(1020, b"\0")
        return [tags + struct.pack(">I", checksum(tags + bytes(4))), content]

    def commit(sequence: int, when: int) -> bytes:
        block = struct.pack(">III", 0xC03B3998, 2, sequence).ljust(48, b"\0") + struct.pack(">QI", when, 0)
        block = block.ljust(1024, b"\0")
        return block[:16] + struct.pack(">I", checksum(block)) + block[20:]

    head = struct.pack(">III", 0xC03B3998, 4, 0) + struct.pack(">5I", 1024, 16, 1, 7, 1)
    head += struct.pack(">IIII", 0, 0, 0x10, 0) + uuid
    content = [bytes([number]) * 1024 for number in (1, 2)]
    blocks = [head.ljust(1024, b"\0"), *described(7, 40, content[0]), commit(7, 40)]
    blocks += [*described(8, 40, content[1]), commit(8, seconds)]
    if damage is not None:
        blocks[damage] = blocks[damage][:30] + b"!" + blocks[damage][31:]
    return Journal(lambda number: blocks[number] if number < len(blocks) else b"", Origin("log"))


@pytest.mark.parametrize(
    ("damage", "seconds", "at", "transactions", "fault"),
    [
        (None, 50, 5, 2, ""),
        (5, 50, 2, 2, "block 40 of transaction 8"),
        (4, 50, 2, 1, "transaction 8 and those behind it"),
        (6, 50, 2, 1, "transaction 8 and those behind it"),
        (6, 30, 2, 1, ""),  # older than the one before it: left by an earlier pass over the log
        (3, 50, None, 0, "transaction 7 and those behind it"),
    ],
)
def test_what_has_a_wrong_checksum_is_not_replayed(
    damage: int | None, seconds: int, at: int | None, transactions: int, fault: str
) -> None:
    journal = checked_log(damage, seconds=seconds)
    assert {number: one.at for number, one in journal.blocks.items()} == ({} if at is None else {40: at})
    assert journal.transactions == transactions
    assert [text.startswith(fault) for text in journal.faults] == ([True] if fault else [])


def test_a_revoked_block_is_not_replayed() -> None:
    def header(kind: int, sequence: int) -> bytes:
        return struct.pack(">III", 0xC03B3998, kind, sequence)

    superblock = header(4, 0) + struct.pack(">5I", 1024, 16, 1, 7, 1) + struct.pack(">IIII", 0, 0, 0x1, 0)
    tags = struct.pack(">IHH", 40, 0, 0x2) + struct.pack(">IHH", 41, 0, 0x2 | 0x8)
    blocks = [
        superblock,
        header(1, 7) + tags,
        b"forty",
        b"forty-one",
        header(2, 7),
        header(5, 8) + struct.pack(">I", 20) + struct.pack(">I", 40),
        header(2, 8),
        header(1, 9) + struct.pack(">IHH", 42, 0, 0x2 | 0x8),
        b"never committed",
    ]
    journal = Journal(lambda number: blocks[number].ljust(1024, b"\0") if number < len(blocks) else b"", Origin("log"))
    assert set(journal.blocks) == {41}
    assert journal.blocks[41].at == 3
    assert journal.transactions == 2


def can_mount() -> str:
    """Why this machine cannot mount ext4; empty when it can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "needs root on Linux"
    if not shutil.which("mkfs.ext4") or not Path("/dev/loop-control").exists():
        return "needs e2fsprogs and loop devices"
    return ""


@contextmanager
def mounted(image: Path) -> Iterator[Path]:
    """Where an image is mounted meanwhile."""
    mount = image.with_suffix(".mnt")
    mount.mkdir(exist_ok=True)
    done = subprocess.run(["mount", "-o", "loop,noatime", image, mount], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"mounting failed: {done.stderr!r}")
    try:
        yield mount
    finally:
        subprocess.run(["umount", mount], check=True)


@pytest.mark.skipif(bool(can_mount()), reason=can_mount() or "it can")
@pytest.mark.parametrize(
    "options",
    [
        "-b 1024 -I 128",
        "-b 1024 -O ^extent,^64bit",
        "-b 4096 -O bigalloc,ea_inode,inline_data",
        "-O meta_bg,^resize_inode",
    ],
)
def test_the_running_kernel_agrees(options: str, tmp_path: Path) -> None:
    """On a file system that was unmounted, and on what it makes of a copy that was taken while it was mounted."""
    made = runpy.run_path(str(DISKS / "make_filled.py"))
    image, copy, other = tmp_path / "disk.img", tmp_path / "copy.img", tmp_path / "other.img"
    with image.open("wb") as file:
        file.truncate(64 << 20)
    run("mkfs.ext4", "-q", "-F", *options.split(), image)
    with mounted(image) as root:
        made["fill"](root)
        subprocess.run(["sync", "-f", root], check=True)
        shutil.rmtree(root / "many")
        for number in range(30):
            (root / f"late-{number}").write_bytes(b"late %d " % number * 200 * number)
            os.link(root / f"late-{number}", root / f"deep/{number}")
        (root / "etc").rename(root / "deep/etc")
        descriptor = os.open(root / "late-29", os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
        subprocess.run(["cp", "--sparse=always", image, copy], check=True)
    shutil.copy(copy, other)
    with mounted(image) as root:
        clean = made["listing"](root)
    with mounted(other) as root:
        replayed = made["listing"](root)
    assert_as_listed(clean, ExtTree(FileSource(image), ProblemLog(strict=True)))
    tree = ExtTree(FileSource(copy), ProblemLog())
    assert_as_listed(replayed, tree)
    assert tree.replayed > 0
