from __future__ import annotations

import os
import random
import struct
from pathlib import Path

import pytest

import forensics_lib as fl
from forensics_lib.errors import DamagedData
from forensics_lib.formats.ext4 import ExtGeometry, is_ext
from forensics_lib.formats.ext4_inode import EXTENTS
from forensics_lib.formats.jbd2 import Journal
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.sources.base import BytesSource
from forensics_lib.sources.file import FileSource
from forensics_lib.trees import inodes
from forensics_lib.trees.base import Node, NodeKind
from forensics_lib.trees.ext import ExtTree
from tests.diskmaker import run
from tests.trees.kernel_disks import assert_as_the_kernel_said, truth, unpacked

IMAGES = ("ext2", "ext4", "ext4-crash")


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
