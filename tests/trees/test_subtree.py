"""A directory of a tree as a tree of its own."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from forensics_lib.errors import LimitExceeded, PathNotFound
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.trees.base import Node, NodeKind, moved
from forensics_lib.trees.directory import DirectoryTree
from forensics_lib.trees.subtree import Subtree
from tests.trees.layers import file, folder, link, overlay, shown, tree

WHOLE = tree(
    "disk",
    {
        "/etc/passwd": b"host",
        "/var/lib/vol/_data/etc/passwd": b"volume",
        "/var/lib/vol/_data/absolute": link("/etc/passwd"),
        "/var/lib/vol/_data/upwards": link("../../../../etc/passwd"),
        "/var/lib/vol/_data/sub": folder(mode=0o700),
        "/var/lib/current": link("vol"),
        "/var/lib/file": b"",
    },
)


def test_a_moved_node_is_the_same_at_another_path() -> None:
    content = WHOLE.node("/etc/passwd").content
    origin, xattrs = Origin("disk"), {"user.name": b"value"}
    node = Node("/here", NodeKind.FILE, 1, 2, 3, 4, 5, origin, 6, 7, 8, "target", 9, 10, 11, xattrs, content)
    there = moved(node, "/there")
    assert there == replace(node, path="/there")
    assert there.content is content is not None


def test_paths_start_at_the_directory() -> None:
    part = Subtree(WHOLE, "/var/lib/vol/_data")
    assert [node.path for node in part.walk()] == [
        "/",
        "/absolute",
        "/etc",
        "/etc/passwd",
        "/sub",
        "/upwards",
    ]
    assert part.read("/etc/passwd") == b"volume"
    assert part.node("/sub").mode == 0o700
    assert [node.path for node in part.children("/etc")] == ["/etc/passwd"]
    assert list(part.names("/etc")) == ["passwd"]


def test_links_are_followed_inside_only() -> None:
    part = Subtree(WHOLE, "/var/lib/vol/_data")
    assert part.read("/absolute") == b"volume"
    assert part.read("/upwards") == b"volume"


def test_nodes_say_where_they_are_recorded() -> None:
    part = Subtree(WHOLE, "/var/lib/vol/_data")
    assert str(part.node("/etc/passwd").origin) == "disk > member /var/lib/vol/_data/etc/passwd"
    assert str(Subtree(WHOLE, "/etc", Origin("here")).origin) == "here"


def test_links_that_lead_to_the_directory_are_followed() -> None:
    part = Subtree(WHOLE, "/var/lib/current/_data/etc")
    assert part.path == "/var/lib/vol/_data/etc"
    assert part.read("/passwd") == b"volume"


def test_the_root_and_a_subtree_of_a_subtree() -> None:
    assert shown(Subtree(WHOLE, "/")) == shown(WHOLE)
    assert Subtree(Subtree(WHOLE, "/var"), "/lib/vol/_data").read("/etc/passwd") == b"volume"


def test_a_merged_tree_has_subtrees() -> None:
    merged, _ = overlay({"/d/new": b"n"}, {"/d/old": b"o", "/e/x": b""})
    assert shown(Subtree(merged, "/d")) == {"/new": b"n", "/old": b"o"}


def test_what_is_no_directory() -> None:
    for path in ("/var/lib/file", "/nowhere"):
        with pytest.raises(PathNotFound):
            Subtree(WHOLE, path)
    loop = tree("loop", {"/a": link("b"), "/b": link("a")})
    with pytest.raises(LimitExceeded):
        Subtree(loop, "/a")
    with pytest.raises(PathNotFound):
        Subtree(WHOLE, "/etc").node("/missing")


@pytest.mark.skipif(os.name != "posix", reason="symbolic links of the examiner's system")
def test_links_on_disk_are_not_followed_by_the_system(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_bytes(b"examiner")
    (tmp_path / "evidence").mkdir()
    (tmp_path / "evidence/way").symlink_to(tmp_path / "outside")
    whole = DirectoryTree(tmp_path / "evidence", ProblemLog(strict=True))
    with pytest.raises(PathNotFound):
        Subtree(whole, "/way")
    assert "/way/secret" not in Subtree(whole, "/")


def test_hard_links_keep_their_numbers() -> None:
    whole = tree("disk", {"/d/a": file(b"x", inode=7, nlink=2), "/d/b": file(b"x", inode=7, nlink=2)})
    part = Subtree(whole, "/d")
    assert [(node.inode, node.nlink) for node in part.children()] == [(7, 2), (7, 2)]
