"""Layers that are written from two trees: applied to the first they give the second."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hypothesis import given, settings

from forensics_lib.formats.tar import TarDecoder
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.sources.base import BytesSource
from forensics_lib.sources.stream import SourceStream
from forensics_lib.trees.base import Node, NodeKind, Tree
from forensics_lib.trees.changeset import LayerArchive, layer_between
from forensics_lib.trees.index import IndexTree
from forensics_lib.trees.layered import Changeset, apply, read_changeset
from tests.tarreader import entries
from tests.trees.layers import (
    LAYERS,
    METACOPY,
    MTIME,
    OPAQUE,
    Entry,
    Unread,
    device,
    file,
    folder,
    link,
    overlay,
    shown,
    tree,
    whiteout,
)

ROOM = 1 << 20
CAPABILITY = {"security.capability": b"\x01\0\0\x02" + bytes(16)}


def planned(old: Tree, new: Tree, *, room: int = ROOM) -> tuple[LayerArchive, list[str]]:
    problems = ProblemLog()
    return layer_between(old, new, problems, room=room), [problem.message for problem in problems.rows]


def applied(layer: LayerArchive, below: IndexTree) -> IndexTree:
    """The tree below with the layer on it, as images are read."""
    data = b"".join(layer.chunks())
    assert len(data) == layer.size
    source, problems = BytesSource(data, Origin("layer")), ProblemLog(strict=True)
    decoder, changeset, merged = TarDecoder(SourceStream(source)), Changeset(), below.copy()
    read_changeset(decoder, source, source.origin, problems, changeset)
    assert decoder.faults == []
    apply(changeset, merged, problems)
    merged.count_links()
    return merged


def flat(tree: Tree) -> IndexTree:
    """A tree as an image of one layer."""
    return applied(planned(IndexTree(Origin("empty")), tree)[0], IndexTree(Origin("empty")))


def facts(tree: Tree) -> dict[str, tuple[object, ...]]:
    """All that a layer keeps of each node; files that cannot be read are left out."""
    content = shown(tree)

    def fact(node: Node) -> tuple[object, ...]:
        kept = (node.kind, node.mode, node.uid, node.gid, node.target, node.rdev, dict(node.xattrs))
        return (*kept, node.mtime_ns or 0, content.get(node.path))

    return {node.path: fact(node) for node in tree.walk() if content.get(node.path) != "unreadable"}


def names(layer: LayerArchive) -> list[str]:
    return [entry.name for entry in entries(b"".join(layer.chunks()))]


def check(old: Tree, new: Tree) -> None:
    layer, problems = planned(old, new)
    assert problems == []
    assert facts(applied(layer, flat(old))) == facts(new)


# what differs


def test_added_changed_and_deleted() -> None:
    old = tree("old", {"/a": b"1", "/d/gone": b"2", "/d/kept": b"3", "/e/x/y": b"4", "/f": b"5"})
    new = tree("new", {"/a": b"one", "/b": b"6", "/d/kept": b"3", "/f/g": b"7"})
    layer, problems = planned(old, new)
    assert problems == []
    assert names(layer) == ["./", "a", "b", "d/", "d/.wh.gone", ".wh.e", "f/", "f/g"]
    assert facts(applied(layer, flat(old))) == facts(new)
    check(new, old)


def test_the_same_twice_gives_the_root_only() -> None:
    old = tree("old", {"/a": b"1", "/d": folder()})
    assert names(planned(old, old)[0]) == ["./"]


def test_everything_that_a_node_can_have() -> None:
    new = tree(
        "new",
        {
            "/": folder(mode=0o700, uid=5, mtime_ns=MTIME + 1),
            "/c": device(1, 3),
            "/b": device(259, 70_000, NodeKind.BLOCK),
            "/p": folder(mode=0o1777, gid=1 << 22, mtime_ns=-5),
            "/p/" + "n" * 200: file(b"x", {"user.a=b": b"", "user.x": b"\n"}, mode=0o4755, mtime_ns=MTIME + 123),
            "/s": link("/caf\udce9/" + "t" * 120),
            "/caf\udce9": file(b"y" * 5000, CAPABILITY, uid=1 << 31),
            "/pipe": replace(device(0, 0), kind=NodeKind.FIFO),
        },
    )
    check(IndexTree(Origin("empty")), new)
    check(tree("old", {"/s/t": b"1", "/p": b"2", "/pipe": link("x")}), new)


def test_what_docker_diff_does_not_list() -> None:
    base: dict[str, Entry | bytes] = {"/bin/ls": b"good", "/etc": folder(mtime_ns=MTIME), "/etc/passwd": b"x"}
    new, _ = overlay({"/bin/ls": b"evil", "/etc": folder({"user.x": b"1"}, mtime_ns=MTIME + 5)}, base)
    layer, problems = planned(new.below(1), new)
    assert problems == []
    assert names(layer) == ["./", "bin/ls", "etc/"]
    check(new.below(1), new)


def test_all_names_of_a_file_stay_one_file() -> None:
    same: dict[str, Any] = {"inode": 7, "nlink": 3}
    old = tree("old", {"/a": file(b"1", **same), "/d/b": file(b"1", **same), "/z": b"2"})
    content = old.node("/a").content
    new = old.copy()
    new.put(replace(old.node("/a"), path="/d/c", content=content))
    layer, _ = planned(old, new)
    found = entries(b"".join(layer.chunks()))
    assert [(entry.name, entry.typeflag, entry.linkname) for entry in found] == [
        ("./", "5", ""),
        ("a", "0", ""),
        ("d/", "5", ""),
        ("d/b", "1", "a"),
        ("d/c", "1", "a"),
    ]
    merged = applied(layer, flat(old))
    assert {merged.node(path).nlink for path in ("/a", "/d/b", "/d/c")} == {3}


def test_files_of_different_systems_with_the_same_number_are_no_links() -> None:
    new = tree("new", {"/a": file(b"1", inode=7, nlink=2), "/b": file(b"22", inode=7, nlink=2)})
    check(IndexTree(Origin("empty")), new)


# what no layer can hold


def test_names_that_would_delete_something() -> None:
    old = tree("old", {"/passwd": b"1", "/d/.wh.old": b"2"})
    new = tree("new", {"/passwd": b"1", "/.wh.passwd": b"evil", "/d": folder(), "/.wh.x/y": b"3"})
    layer, problems = planned(old, new)
    assert names(layer) == ["./", "d/"]
    assert [message.split(" ", 1)[0] for message in problems] == ["/.wh.passwd", "/.wh.x", "/.wh.x/y", "/d/.wh.old"]


def test_sockets_and_names_with_nul() -> None:
    new = tree("new", {"/run/sock": replace(device(0, 0), kind=NodeKind.SOCKET), "/a\0b": b"1", "/c": b"2"})
    layer, problems = planned(tree("old", {"/run/sock": b"1"}), new)
    assert names(layer) == ["./", "c", "run/", "run/.wh.sock"]
    assert any("no archive can hold a socket" in message for message in problems)
    assert any("no archive can hold this name" in message for message in problems)


def test_files_that_cannot_be_read_do_not_show_an_older_version() -> None:
    old = tree("old", {"/a": b"old", "/b": b"old", "/keep": b"1"})
    unread = file(b"new!", content=Unread())
    short = replace(file(b"new!"), size=9)
    new = tree("new", {"/a": unread, "/b": short, "/c": unread, "/keep": b"1"})
    layer, problems = planned(old, new)
    assert names(layer) == ["./", ".wh.a", "b"]
    assert problems == [
        "/a is left out: this content must not be read",
        "/b is stored with the 4 bytes that there are instead of 9",
        "/c is left out: this content must not be read",
    ]
    assert shown(applied(layer, flat(old))) == {"/b": b"new!", "/keep": b"1"}


def test_files_that_do_not_fit() -> None:
    new = tree("new", {"/a": bytes(60), "/b": replace(file(b"", content=Unread()), size=1 << 60), "/c": bytes(50)})
    layer, problems = planned(IndexTree(Origin("empty")), new, room=100)
    assert names(layer) == ["./", "a"]
    assert problems == [
        f"/b is left out: {1 << 60} bytes do not fit here",
        "/c is left out: 50 bytes do not fit here",
    ]


def test_marks_of_an_inner_overlay_are_no_part_of_it() -> None:
    new = tree("new", {"/d": folder({"trusted.overlay.opaque": b"y", "user.x": b"1"})})
    layer, problems = planned(IndexTree(Origin("empty")), new)
    assert entries(b"".join(layer.chunks()))[1].xattrs == {"user.x": b"1"}
    assert problems == ["/d: its marks of another overlay are no part of the archive"]


# any trees


def test_opaque_whiteout_and_borrowed_content() -> None:
    base = {"/d/a": b"1", "/d/b": b"2", "/e/f": b"3", "/m": b"data"}
    new, _ = overlay({"/d": folder(OPAQUE), "/d/a": b"1", "/e": whiteout(), "/m": file(b"\0\0\0\0", METACOPY)}, base)
    check(new.below(1), new)


@settings(max_examples=150, deadline=None)
@given(LAYERS, LAYERS)
def test_the_layer_turns_one_tree_into_the_other(
    top: list[Mapping[str, Entry]], rest: list[Mapping[str, Entry]]
) -> None:
    low = [tree(f"low{index}", each) for index, each in enumerate(rest)]
    high = [tree(f"high{index}", each) for index, each in enumerate(top)]
    old, new = overlay(*low)[0], overlay(*high, *low)[0]
    layer, _ = planned(old, new)
    assert facts(applied(layer, flat(old))) == facts(new)
    assert b"".join(layer.chunks()) == b"".join(planned(old, new)[0].chunks())
