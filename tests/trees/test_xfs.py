from __future__ import annotations

import random
from pathlib import Path

import pytest

import forensics_lib as fl
from forensics_lib.errors import DamagedData, ForensicsError
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.sources.base import BytesSource
from forensics_lib.sources.file import FileSource
from forensics_lib.trees.base import NodeKind
from forensics_lib.trees.xfs import LogState, XfsTree
from tests.trees.kernel_disks import assert_as_the_kernel_said, truth, unpacked


@pytest.mark.parametrize("name", ["xfs", "xfs-crash"])
def test_every_path_is_as_the_kernel_said(name: str, tmp_path: Path) -> None:
    problems = ProblemLog()
    tree = XfsTree(FileSource(unpacked(name, tmp_path)), problems)
    assert_as_the_kernel_said(name, tree)
    replayed = ["the log was replayed in memory" in problem.message for problem in problems.rows]
    assert replayed == ([True] if name == "xfs-crash" else [])


def test_the_log_of_a_crash(tmp_path: Path) -> None:
    source = FileSource(unpacked("xfs-crash", tmp_path))
    tree = XfsTree(source, ProblemLog())
    assert tree.log_state is LogState.REPLAYED
    assert tree.read("/late/arrival") == b"only in the journal"
    assert "/etc/empty" not in tree
    problems = ProblemLog()
    before = XfsTree(source, problems, replay=False)
    assert before.log_state is LogState.DIRTY
    assert "/late/arrival" not in before
    assert "was not written back" in problems.rows[0].message


def test_an_xfs_disk_opens_as_evidence(tmp_path: Path) -> None:
    with fl.open(unpacked("xfs", tmp_path)) as ev:
        (filesystem,) = ev.filesystems
        assert (filesystem.type, filesystem.size, filesystem.state) == ("xfs", 300 << 20, "clean")
        hashes = {row.path: row.sha256 for row in ev.hashes(kinds={"file"})}
        assert hashes == {place: row["sha256"] for place, row in truth("xfs").items() if "sha256" in row}


def test_whiteouts_opaque_marks_and_bytes_as_names(tmp_path: Path) -> None:
    tree = XfsTree(FileSource(unpacked("xfs", tmp_path)), ProblemLog())
    assert (tree.node("/whiteout").kind, tree.node("/whiteout").rdev) == (NodeKind.CHAR, 0)
    assert tree.node("/opaque").xattrs == {"trusted.overlay.opaque": b"y"}
    assert tree.read("/caf\udce9") == b"not UTF-8"


def test_something_else_is_no_xfs() -> None:
    with pytest.raises(DamagedData):
        XfsTree(BytesSource(bytes(4096), Origin("zeros")), ProblemLog())


@pytest.mark.parametrize("name", ["xfs", "xfs-crash"])
@pytest.mark.parametrize("seed", range(8))
def test_damage_is_told_and_nothing_else_happens(name: str, seed: int, tmp_path: Path) -> None:
    data = bytearray(_metadata(unpacked(name, tmp_path)))
    chance = random.Random(seed)
    used = [at for at in range(0, len(data), 512) if any(data[at : at + 512])]
    for _ in range(chance.randrange(1, 60)):
        at = chance.choice(used) + chance.randrange(512)
        data[at] = chance.randrange(256)
    if seed % 4 == 0:
        del data[chance.randrange(len(data)) :]
    try:
        tree = XfsTree(BytesSource(bytes(data), Origin("damaged")), ProblemLog())
        for node in tree.walk():
            if node.kind is NodeKind.FILE:
                node.source().read_some(0, 1 << 16)
    except ForensicsError:
        pass


def _metadata(path: Path) -> bytes:
    """The start of the disk, which holds all that is in use but the log."""
    with path.open("rb") as file:
        return file.read(24 << 20)
