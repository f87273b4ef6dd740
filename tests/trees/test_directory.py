"""Folders on the examiner's disk: nothing outside is reached, nothing that could block is opened."""

from __future__ import annotations

import os
import socket
import stat
import sys
import threading
from pathlib import Path

import pytest

import forensics_lib as fl
from forensics_lib.model import ProblemLog
from forensics_lib.trees.base import NodeKind
from forensics_lib.trees.directory import DirectoryTree

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX files")


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A file of the examiner that evidence must never lead to."""
    secret = tmp_path / "examiner" / "secret"
    secret.parent.mkdir()
    secret.write_bytes(b"the examiner's own")
    return secret


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    evidence = tmp_path / "evidence"
    (evidence / "etc").mkdir(parents=True)
    (evidence / "etc" / "passwd").write_bytes(b"root:x:0:0\n")
    return evidence


def tree_of(folder: Path, problems: ProblemLog | None = None) -> DirectoryTree:
    return DirectoryTree(folder, problems or ProblemLog(strict=True))


def test_walk_lists_everything_in_byte_order(folder: Path) -> None:
    (folder / "a").write_bytes(b"1")
    (folder / "Z").mkdir()
    (folder / "ä").write_bytes(b"")
    (folder / "\udcff").mkdir()
    paths = [node.path for node in tree_of(folder).walk()]
    assert paths == ["/", "/Z", "/a", "/etc", "/etc/passwd", "/ä", "/\udcff"]


def test_properties_are_those_of_the_disk(folder: Path) -> None:
    file = folder / "etc" / "passwd"
    file.chmod(0o4640)
    os.utime(file, ns=(1_600_000_000_000_000_001, 1_600_000_000_123_456_789))
    (folder / "link").hardlink_to(file)
    node, status = tree_of(folder).node("/etc/passwd"), file.stat()
    assert (node.kind, node.mode, node.size, node.nlink) == (NodeKind.FILE, 0o4640, 11, 2)
    assert (node.uid, node.gid) == (status.st_uid, status.st_gid)
    assert (node.atime_ns, node.mtime_ns) == (1_600_000_000_000_000_001, 1_600_000_000_123_456_789)
    assert node.ctime_ns == status.st_ctime_ns
    assert node.inode == tree_of(folder).node("/link").inode == status.st_ino
    assert tree_of(folder).node("/etc").size == 0
    assert node.read() == b"root:x:0:0\n"


def test_a_relative_link_out_of_the_folder_stays_inside(folder: Path, outside: Path) -> None:
    (folder / "link").symlink_to("../examiner/secret")
    assert (folder / "link").read_bytes() == outside.read_bytes()  # the system would follow it
    tree = tree_of(folder)
    assert (tree.node("/link").kind, tree.node("/link").target) == (NodeKind.SYMLINK, "../examiner/secret")
    assert tree.node("/link").size == 0
    with pytest.raises(fl.PathNotFound):
        tree.read("/link")


def test_an_absolute_link_starts_at_the_evidence(folder: Path, outside: Path) -> None:
    (folder / "out").symlink_to(outside)
    (folder / "passwd").symlink_to("/etc/passwd")
    (folder / "up").symlink_to("../../../../etc/passwd")
    tree = tree_of(folder)
    with pytest.raises(fl.PathNotFound):
        tree.read("/out")
    assert tree.read("/passwd") == tree.read("/up") == b"root:x:0:0\n"


def test_a_linked_folder_out_of_the_evidence_is_not_entered(folder: Path, outside: Path) -> None:
    (folder / "dir").symlink_to(outside.parent)
    tree = tree_of(folder)
    assert "/dir/secret" not in tree
    with pytest.raises(fl.PathNotFound):
        list(tree.children("/dir"))
    assert [node.path for node in tree.walk()] == ["/", "/dir", "/etc", "/etc/passwd"]


def test_dots_in_a_path_do_not_leave_the_folder(folder: Path, outside: Path) -> None:
    tree = tree_of(folder)
    assert outside.exists()
    for path in ("/../examiner/secret", "../examiner/secret", "/etc/../../examiner/secret"):
        with pytest.raises(fl.PathNotFound):
            tree.node(path)
    assert tree.read("/etc/../../../etc/./passwd") == b"root:x:0:0\n"


def test_a_link_that_takes_a_files_place_after_listing_is_refused(folder: Path, outside: Path) -> None:
    node = tree_of(folder).node("/etc/passwd")
    (folder / "etc" / "passwd").unlink()
    (folder / "etc" / "passwd").symlink_to(outside)
    with pytest.raises(fl.ForensicsError):
        node.read()


def test_loops_end_at_a_limit(folder: Path) -> None:
    (folder / "a").symlink_to("b")
    (folder / "b").symlink_to("a")
    (folder / "self").symlink_to("self/x")
    for path in ("/a", "/self"):
        with pytest.raises(fl.LimitExceeded):
            tree_of(folder).resolve(path)
        assert tree_of(folder).node(path).kind is NodeKind.SYMLINK


def test_a_fifo_is_listed_and_never_opened(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    done = threading.Event()

    def examine() -> None:
        tree = tree_of(folder)
        assert tree.node("/pipe").kind is NodeKind.FIFO
        with pytest.raises(fl.NotAFile):
            tree.read("/pipe")
        done.set()

    thread = threading.Thread(target=examine, daemon=True)
    thread.start()
    thread.join(10)
    assert done.is_set(), "reading a FIFO blocks"


def test_a_fifo_that_takes_a_files_place_is_not_opened(folder: Path) -> None:
    node = tree_of(folder).node("/etc/passwd")
    (folder / "etc" / "passwd").unlink()
    os.mkfifo(folder / "etc" / "passwd")
    with pytest.raises(fl.NotAFile):
        node.read()


def test_a_socket_is_listed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)  # the path of a socket is short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        node = tree_of(folder).node("/socket")
    assert node.kind is NodeKind.SOCKET
    with pytest.raises(fl.NotAFile):
        node.read()


@pytest.mark.skipif(not hasattr(os, "setxattr"), reason="no extended attributes")
def test_extended_attributes(folder: Path) -> None:
    file = folder / "etc" / "passwd"
    try:
        os.setxattr(file, "user.note", b"\x00\xff")
    except OSError:
        pytest.skip("the file system has no extended attributes")
    (folder / "link").symlink_to("etc/passwd")
    tree = tree_of(folder)
    assert tree.node("/etc/passwd").xattrs["user.note"] == b"\x00\xff"
    assert "user.note" not in tree.node("/link").xattrs


@pytest.mark.skipif(not Path("/dev/null").is_char_device(), reason="no devices")
def test_a_device_is_listed_with_its_number_and_has_no_content() -> None:
    tree = tree_of(Path("/dev"), ProblemLog())
    node = tree.node("/null")
    assert node.kind is NodeKind.CHAR
    assert (os.major(node.rdev), os.minor(node.rdev)) == (1, 3)
    with pytest.raises(fl.NotAFile):
        node.read()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads everything")
def test_what_may_not_be_read_is_a_problem(folder: Path) -> None:
    (folder / "locked").mkdir()
    (folder / "locked").chmod(0)
    problems = ProblemLog()
    paths = [node.path for node in tree_of(folder, problems).walk()]
    (folder / "locked").chmod(stat.S_IRWXU)
    assert paths == ["/", "/etc", "/etc/passwd", "/locked"]
    assert ["cannot be listed" in problem.message for problem in problems.rows] == [True]


def test_a_name_that_no_disk_has_is_not_found(folder: Path) -> None:
    tree = tree_of(folder)
    for path in ("/no\0name", "/etc/passwd/below", "/" + "n" * 5000):
        with pytest.raises(fl.PathNotFound):
            tree.node(path)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(fl.PathNotFound):
        tree_of(tmp_path / "nothing")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(fl.PathNotFound):
        tree_of(tmp_path / "file")


def test_nothing_below_the_folder_is_changed(folder: Path) -> None:
    def stamps() -> dict[str, tuple[int, int]]:
        return {str(path): (path.lstat().st_mtime_ns, path.lstat().st_ctime_ns) for path in folder.rglob("*")}

    before = stamps()
    tree = tree_of(folder)
    for node in tree.walk():
        if node.kind is NodeKind.FILE:
            node.read()
    assert stamps() == before
