"""File systems that The Sleuth Kit reads, made by the tools of their systems."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path
from unicodedata import normalize

import pytest

import forensics_lib as fl
from forensics_lib.errors import DamagedData, UnsupportedFormat
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.sources.base import BytesSource
from forensics_lib.trees.base import NodeKind
from forensics_lib.trees.sleuthkit import KitTree
from tests.diskmaker import stored, unpack

pytest.importorskip("pytsk3")

STAMP = 1_709_618_828 * 10**9
BIG = b"".join(b"line %d\n" % number for number in range(5000))
FILES = {
    "/a.txt": b"hello\n",
    "/dir/big.txt": BIG,
    "/dir/sub/deep.txt": b"deep\n",
    "/empty": b"",
    "/\u00fcn\u00efcode n\u00e4me.txt": b"u\n",
}
IMAGES = {
    "fat12.img": ("vfat", "LABEL12", "1234-ABCD", FILES),
    "fat16.img": ("vfat", "LABEL16", "1234-ABCD", FILES),
    "fat32.img": ("vfat", "LABEL32", "1234-ABCD", FILES),
    "exfat.img": ("exfat", "EXLABEL", None, {"/a.txt": b"hello\n"}),
    "ntfs.img": ("ntfs", "NTLABEL", None, {"/a.txt": b"hello\n", "/a.txt:stream": b"deep\n", "/big.txt": BIG}),
    "hfsplus.img": ("hfsplus", "", None, {normalize("NFD", path): data for path, data in FILES.items()}),
    "disc.iso": ("iso9660", "ISOLABEL", None, FILES | {"/link": b""}),
}


def tree_of(name: str, problems: ProblemLog | None = None) -> KitTree:
    return KitTree(BytesSource(stored(name), Origin(name)), problems or ProblemLog(), IMAGES[name][0])


@pytest.mark.parametrize("name", IMAGES)
def test_files_as_evidence(name: str, tmp_path: Path) -> None:
    kind, label, uuid, files = IMAGES[name]
    path = unpack(tmp_path, name)
    with fl.open(path) as ev:
        (found,) = ev.filesystems
        assert (found.type, found.label, found.state) == (kind, label, "clean")
        assert uuid in (None, found.uuid)
        assert found.size is not None
        assert found.size <= path.stat().st_size
        nodes = {node.path: node for node in found.tree.walk()}
        own = {place: node.read() for place, node in nodes.items() if node.kind is NodeKind.FILE and "$" not in place}
        assert own == files
        assert {row.path for row in ev.hashes(kinds=["file"]) if "$" not in row.path} == set(files)
        assert nodes["/a.txt"].origin.label == f"inode {nodes['/a.txt'].inode}"
        assert [problem.message for problem in ev.problems if kind != "iso9660"] == []
        assert found.tree.node("/a.txt") == nodes["/a.txt"]
        assert "/gone.txt" not in found.tree


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Kolkata"])
@pytest.mark.parametrize("name", ["fat32.img", "exfat.img", "disc.iso", "hfsplus.img"])
def test_times_do_not_depend_on_the_examiners_zone(name: str, zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not hasattr(time, "tzset"):
        pytest.skip("this system cannot change the zone of a process")
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        node = tree_of(name).node("/a.txt")
        assert STAMP in (node.mtime_ns, node.btime_ns)
    finally:
        monkeypatch.undo()
        time.tzset()


def test_symbolic_links_of_hfsplus() -> None:
    node = tree_of("hfsplus.img").node("/link")
    assert (node.kind, node.target) == (NodeKind.SYMLINK, "a.txt")


def test_rock_ridge_is_said_to_be_read_in_part() -> None:
    problems = ProblemLog()
    tree_of("disc.iso", problems)
    assert "Rock Ridge" in problems.rows[0].message


def test_parts_of_content() -> None:
    source = tree_of("fat12.img").node("/dir/big.txt").source()
    assert source.read_at(1000, 5000) == BIG[1000:6000]
    assert source.read_at(len(BIG) - 5, 100) == BIG[-5:]
    assert source.read_at(len(BIG), 1) == b""
    with pytest.raises(DamagedData):
        source.read_at(-1, 1)


def test_what_is_none() -> None:
    source = BytesSource(bytes(1 << 20), Origin("zeros"))
    with pytest.raises(DamagedData, match="cannot be opened"):
        KitTree(source, ProblemLog(), "ntfs")
    with pytest.raises(UnsupportedFormat):
        KitTree(source, ProblemLog(), "zfs")


@pytest.mark.parametrize("size", [100_000, 180_000])
def test_an_image_that_ends_too_early(size: int, tmp_path: Path) -> None:
    path = tmp_path / "short.img"
    path.write_bytes(stored("fat16.img")[:size])
    with fl.open(path) as ev:
        tree = ev.filesystems[0].tree
        names = {node.path for node in tree.walk() if node.kind is NodeKind.FILE}
        if size > 150_000:  # the root directory is there
            assert names >= {"/a.txt", "/empty"}
            assert tree.read("/a.txt") == b"hello\n"
        messages = [problem.message for problem in ev.problems]
        assert f"the file system takes up 16777216 bytes, only {size} are there" in messages
        assert any("cannot be read" in message for message in messages)


SURVIVE = """
import random, sys
from forensics_lib.errors import ForensicsError
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.sources.base import BytesSource
from forensics_lib.trees.sleuthkit import KitTree
from tests.diskmaker import stored
name, kind, first, last = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
whole = stored(name)
used = [at for at in range(0, len(whole), 512) if any(whole[at : at + 512])][:400]
for seed in range(first, last):
    print(seed, flush=True)
    draw = random.Random(seed)
    data = bytearray(whole)
    for _ in range(draw.choice((1, 5, 30, 200))):
        data[draw.choice(used) + draw.randrange(512)] ^= 1 << draw.randrange(8)
    if draw.random() < 0.2:
        del data[draw.randrange(len(data)) :]
    try:
        tree = KitTree(BytesSource(bytes(data), Origin("damaged")), ProblemLog(), kind)
        for node, _ in zip(tree.walk(), range(300)):
            try:
                if node.kind == "file":
                    node.source().read_at(0, 100_000)
            except ForensicsError:
                pass
    except ForensicsError:
        pass
"""


@pytest.mark.parametrize("name", [name for name in IMAGES if name != "fat32.img"])
def test_damage_is_survived(name: str) -> None:
    first = random.randrange(1 << 30)
    command = [sys.executable, "-c", SURVIVE, name, IMAGES[name][0], str(first), str(first + 25)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"seed {done.stdout.split()[-1:]}: {done.stderr[-2000:]}"
