"""Layers one over the other: merged tree, single layers, versions, hidden files, sizes."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import forensics_lib as fl
from forensics_lib.images.layer import LayerBlob, SpoolPool
from forensics_lib.images.stack import LayerStack
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.sources.base import BytesSource
from forensics_lib.trees.base import Tree
from tests.tarmaker import TarMaker


def stack_of(layers: Sequence[TarMaker | bytes], problems: ProblemLog | None = None) -> LayerStack:
    problems = problems or ProblemLog(strict=True)
    blobs = []
    for index, layer in enumerate(layers):
        origin = Origin(f"layer {index}")
        data = layer if isinstance(layer, bytes) else layer.end()
        source, pool = BytesSource(data, origin), SpoolPool(1)
        blobs.append(LayerBlob(str(index), source, origin, problems=problems, limits=fl.Limits(), pool=pool))
    return LayerStack(blobs, Origin("image"), problems)


def files(tree: Tree) -> dict[str, bytes]:
    return {node.path: node.read() for node in tree.walk() if node.kind is fl.NodeKind.FILE}


def test_no_layers() -> None:
    stack = stack_of([])
    assert [node.path for node in stack.tree().walk()] == ["/"]
    assert (stack.hidden(), list(stack.versions("/x"))) == ([], [])


def test_prefixes_of_the_stack() -> None:
    stack = stack_of([TarMaker().file("a", b"1"), TarMaker().file("a", b"2"), TarMaker().file(".wh.a").file("b", b"3")])
    assert [files(stack.tree(count)) for count in range(5)] == [
        {},
        {"/a": b"1"},
        {"/a": b"2"},
        {"/b": b"3"},
        {"/b": b"3"},
    ]
    assert files(stack.tree()) == {"/b": b"3"}


def test_a_prefix_does_not_disturb_the_whole() -> None:
    stack = stack_of([TarMaker().dir("d/").file("d/a", b"1"), TarMaker().file(".wh.d")])
    assert files(stack.tree()) == {}
    assert files(stack.tree(1)) == {"/d/a": b"1"}
    assert files(stack.tree()) == {}


def test_a_layer_alone() -> None:
    stack = stack_of(
        [TarMaker().file("a", b"1").file("b", b"2"), TarMaker().file(".wh.a").hardlink("c", "b").file("d", b"3")]
    )
    assert files(stack.alone(1)) == {"/c": b"2", "/d": b"3"}  # the content of the link lies below
    assert files(stack.alone(0)) == {"/a": b"1", "/b": b"2"}


def test_a_hard_link_to_a_file_that_its_own_layer_deletes() -> None:
    """Moving a file is a link and a whiteout in one layer; the order of the two does not matter."""
    for layer in (TarMaker().hardlink("new", "old").file(".wh.old"), TarMaker().file(".wh.old").hardlink("new", "old")):
        stack = stack_of([TarMaker().file("old", b"content"), layer])
        assert files(stack.tree()) == {"/new": b"content"}
        assert stack.hidden() == []  # the content is still there under another name


def test_a_hard_link_to_nothing() -> None:
    problems = ProblemLog()
    stack = stack_of([TarMaker().hardlink("a", "nowhere")], problems)
    with pytest.raises(fl.DamagedData):
        stack.tree().read("/a")
    assert ["hard link to /nowhere" in problem.message for problem in problems.rows] == [True]


def test_versions_with_one_path_twice_in_a_layer() -> None:
    problems = ProblemLog()
    stack = stack_of([TarMaker().file("a", b"0"), TarMaker().file("a", b"first").file("a", b"second")], problems)
    found = [(v.layer, v.kind.value, v.read(), v.visible, v.note) for v in stack.versions("a")]
    assert found == [
        (0, "A", b"0", False, ""),
        (1, "C", b"first", False, "replaced by a later member of the same layer"),
        (1, "C", b"second", True, ""),
    ]
    assert [(row.path, row.size, row.layer, row.hidden_by) for row in stack.hidden()] == [
        ("/a", 1, 0, 1),
        ("/a", 5, 1, 1),
    ]


def test_versions_of_hard_links() -> None:
    problems = ProblemLog()
    lower = TarMaker().file("a", b"old").symlink("l", "a").hardlink("b", "a").hardlink("m", "l")
    upper = TarMaker().hardlink("b", "a").file("b", b"new").hardlink("m", "l")
    stack = stack_of([lower, upper], problems)
    assert [(v.layer, v.read(), v.visible) for v in stack.versions("b")] == [
        (0, b"old", False),
        (1, b"old", False),
        (1, b"new", True),
    ]
    assert [(v.node.kind.value, v.node.target, v.visible) for v in stack.versions("m") if v.node] == [
        ("symlink", "a", False),
        ("symlink", "a", True),
    ]


def test_versions_of_what_was_deleted_and_came_back() -> None:
    stack = stack_of([TarMaker().file("a", b"1"), TarMaker().file(".wh.a"), TarMaker().file("a", b"3")])
    found = [(v.layer, v.kind.value, v.size, v.visible, v.note) for v in stack.versions("//a/")]
    assert found == [(0, "A", 1, False, ""), (1, "D", None, False, "whiteout"), (2, "A", 1, True, "")]


def test_versions_of_a_directory_that_a_layer_repeats() -> None:
    stack = stack_of([TarMaker().dir("d/"), TarMaker().dir("d/").file("d/x"), TarMaker().dir("d/", mode=0o700)])
    found = [(v.layer, v.kind.value, v.visible, v.note) for v in stack.versions("/d")]
    assert found == [(0, "A", False, ""), (1, "C", False, "as in the layer below"), (2, "C", True, "")]


@pytest.mark.parametrize(
    ("layer", "note", "origin"),
    [
        (TarMaker().file("d/.wh.a"), "whiteout", "layer 1 > tar header @0"),
        (TarMaker().file("x").file(".wh.d"), "whiteout of /d", "layer 1 > tar header @512"),
        (TarMaker().file("d/.wh..wh..opq"), "opaque directory /d", "layer 1 > tar header @0"),
        (TarMaker().file(".wh..wh..opq"), "opaque directory /", "layer 1 > tar header @0"),
        (TarMaker().file("d", b"file"), "/d is a file now", "layer 1 > tar header @0"),
        (TarMaker().symlink("d", "e"), "/d is a symlink now", "layer 1 > tar header @0"),
    ],
    ids=["whiteout", "parent", "opaque", "root", "file", "symlink"],
)
def test_how_a_path_was_deleted(layer: TarMaker, note: str, origin: str) -> None:
    stack = stack_of([TarMaker().dir("d/").file("d/a", b"1"), layer])
    added, deleted = stack.versions("/d/a")
    assert (added.kind.value, deleted.kind.value, deleted.node) == ("A", "D", None)
    assert (deleted.note, str(deleted.origin)) == (note, origin)
    assert added.read() == b"1"


def test_sizes_count_content_once_and_targets_of_links() -> None:
    stack = stack_of([TarMaker().file("a", b"12345").hardlink("b", "a").symlink("l", "ünï").dir("d/").fifo("p")])
    assert stack.content_size(0) == 5 + len("ünï".encode())


def test_what_is_hidden() -> None:
    lower = TarMaker().file("kept", b"1").file("deleted", b"22").file("replaced", b"333").file("empty")
    upper = TarMaker().file(".wh.deleted").file("replaced", b"new").file("d/.wh..wh..opq").file("empty", b"now")
    stack = stack_of([lower.dir("d/").file("d/x", b"4444"), upper])
    assert [(row.path, row.size, row.layer, row.hidden_by, row.node.read()) for row in stack.hidden()] == [
        ("/deleted", 2, 0, 1, b"22"),
        ("/replaced", 3, 0, 1, b"333"),
        ("/d/x", 4, 0, 1, b"4444"),
    ]


def test_a_missing_layer_in_the_middle() -> None:
    problems = ProblemLog()
    whole = stack_of([TarMaker().file("a", b"1"), TarMaker().file("b", b"2"), TarMaker().file("c", b"3")], problems)
    missing = LayerBlob("1", None, Origin("1"), problems=problems, limits=fl.Limits(), pool=SpoolPool(1))
    stack = LayerStack([whole.blobs[0], missing, whole.blobs[2]], Origin("image"), problems)
    assert files(stack.tree()) == {"/a": b"1", "/c": b"3"}
    assert stack.changes(1) == []
    assert isinstance(stack.unreadable(1), fl.NotFound)


def test_the_same_layer_twice() -> None:
    stack = stack_of([TarMaker().file("a", b"1").file(".wh.b")])
    twice = LayerStack([stack.blobs[0]] * 2, Origin("image"), ProblemLog(strict=True))
    assert files(twice.tree()) == {"/a": b"1"}
    assert [[str(c.kind) for c in twice.changes(index)] for index in (0, 1)] in ([["A"], []], [["A"], ["C"]])
    assert twice.hidden() == []


def test_threads_may_share_a_stack() -> None:
    stack = stack_of([TarMaker().file(f"f{n}", b"x").file("same", bytes([n])) for n in range(20)])

    def ask(number: int) -> tuple[int, int, int]:
        return len(files(stack.tree())), len(stack.hidden()), len(stack.changes(number % 20))

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, range(40))) == {(21, 19, 2)}


_NAMES = ("a", "b", "a/x", "a/y", "b/x", "b/x/z")
_members = st.lists(
    st.one_of(
        st.tuples(st.just("file"), st.sampled_from(_NAMES), st.binary(min_size=1, max_size=3)),
        st.tuples(st.just("dir"), st.sampled_from(_NAMES), st.just(b"")),
        st.tuples(st.just("wh"), st.sampled_from(_NAMES), st.just(b"")),
        st.tuples(st.just("opq"), st.sampled_from(("a", "b", "b/x")), st.just(b"")),
        st.tuples(st.just("link"), st.sampled_from(_NAMES), st.sampled_from([name.encode() for name in _NAMES])),
        st.tuples(st.just("symlink"), st.sampled_from(_NAMES), st.just(b"a")),
    ),
    max_size=5,
)


def layer_of(members: list[tuple[str, str, bytes]]) -> TarMaker:
    maker = TarMaker()
    for kind, name, data in members:
        parent, _, last = name.rpartition("/")
        if kind == "file":
            maker.file(name, data)
        elif kind == "dir":
            maker.dir(name + "/")
        elif kind == "wh":
            maker.file(f"{parent}/.wh.{last}".lstrip("/"))
        elif kind == "opq":
            maker.file(f"{name}/.wh..wh..opq")
        elif kind == "link":
            maker.hardlink(name, data)
        else:
            maker.symlink(name, data)
    return maker


@settings(max_examples=60, deadline=None)
@given(st.lists(_members, min_size=1, max_size=4))
def test_changes_versions_and_tree_tell_one_story(layers: list[list[tuple[str, str, bytes]]]) -> None:
    stack = stack_of([layer_of(members) for members in layers], ProblemLog())
    present = {"/"}
    for index in range(len(layers)):
        for change in stack.changes(index):
            assert (change.path in present) == (change.kind is not fl.ChangeKind.ADDED)
            present.discard(change.path)
            if change.kind is not fl.ChangeKind.DELETED:
                present.add(change.path)
        assert present == {node.path for node in stack.tree(index + 1).walk()}
    tree = stack.tree()
    for name in ("a", "b", "a/x", "a/y", "b/x", "b/x/z"):
        versions = list(stack.versions(name))
        node = tree.find("/" + name)
        assert sum(version.visible for version in versions) == (node is not None)
        assert [version.layer for version in versions] == sorted(version.layer for version in versions)
        seen = next((version.node for version in versions if version.visible), None)
        if seen is not None and node is not None:
            assert node.kind is seen.kind
            assert node.kind is fl.NodeKind.DIR or node.origin == seen.origin  # a later layer may imply one anew
        if versions and versions[-1].kind is fl.ChangeKind.DELETED:
            assert node is None
    paths = {node.path for node in tree.walk() if node.kind is fl.NodeKind.FILE}
    stored = {member.node.path for blob in stack.blobs for member in blob.changeset().members}
    assert paths <= stored
    assert {row.path for row in stack.hidden()} <= stored


def test_links_of_different_layers_are_no_names_of_one_file() -> None:
    """Members without content at the same place of their archives: their numbers are equal, the files are not."""
    lower = TarMaker().file("a", b"1").symlink("b", "a")
    upper = TarMaker().file("c", b"1").symlink("d", "a").hardlink("e", "d")
    assert {node.path: node.nlink for node in stack_of([lower, upper]).tree().walk() if node.kind != "dir"} == {
        "/a": 1,
        "/b": 1,
        "/c": 1,
        "/d": 2,
        "/e": 2,
    }


@pytest.mark.parametrize("marks", [("d/x", "d"), ("d", "d/x")])
def test_an_opaque_directory_below_another_one(marks: tuple[str, str]) -> None:
    """Each stands in a directory of the layer, which the other one does not hide, whichever comes first."""
    upper = TarMaker()
    for name in marks:
        upper.file(f"{name}/.wh..wh..opq")
    stack = stack_of([TarMaker().file("d/old", b"1"), upper])
    assert [node.path for node in stack.tree().walk()] == ["/", "/d", "/d/x"]
    assert [(change.kind, change.path) for change in stack.changes(1)] == [("D", "/d/old"), ("A", "/d/x")]


def test_versions_of_a_path_in_a_deleted_directory() -> None:
    lower = TarMaker().file("d/e/f", b"1").file("d/e/g", b"2")
    for mark, note in ((".wh.d", "whiteout of /d"), ("d/.wh.e", "whiteout of /d/e"), ("d/e/.wh.f", "whiteout")):
        added, deleted = stack_of([lower, TarMaker().file(mark)]).versions("/d/e/f")
        assert (added.kind, added.read(), added.visible) == ("A", b"1", False)
        assert (deleted.kind, deleted.layer, deleted.node, deleted.note) == ("D", 1, None, note)
    _, deleted = stack_of([lower, TarMaker().file("d/.wh..wh..opq")]).versions("/d/e/f")
    assert (deleted.kind, deleted.note) == ("D", "opaque directory /d")
    _, deleted = stack_of([lower, TarMaker().file("d", b"")]).versions("/d/e/f")
    assert (deleted.kind, deleted.note) == ("D", "/d is a file now")


def test_versions_of_a_directory_that_a_later_layer_implies_anew() -> None:
    stack = stack_of([TarMaker().file("d/old", b"1"), TarMaker().file(".wh.d").file("d/new", b"2")])
    assert [(version.layer, version.kind, version.visible) for version in stack.versions("/d")] == [(0, "A", True)]


def test_versions_of_an_image_that_lists_a_layer_twice() -> None:
    stack = stack_of([TarMaker().file("a", b"1"), TarMaker().file("a", b"2")])
    stack = LayerStack([*stack.blobs, stack.blobs[0]], Origin("image"), ProblemLog(strict=True))
    versions = list(stack.versions("/a"))
    assert [(version.layer, version.read(), version.visible) for version in versions] == [
        (0, b"1", False),
        (1, b"2", False),
        (2, b"1", True),
    ]
    assert [(row.path, row.layer, row.hidden_by) for row in stack.hidden()] == [("/a", 1, 2)]


def test_versions_of_a_file_that_gives_way_in_its_own_layer() -> None:
    stack = stack_of([TarMaker().file("d/old", b"1"), TarMaker().file("d", b"2").file("d/old", b"3")], ProblemLog())
    versions = list(stack.versions("/d"))
    assert [(version.layer, version.kind, version.visible) for version in versions] == [(0, "A", True), (1, "C", False)]
    assert (versions[1].read(), versions[1].note) == (b"2", "replaced by a later member of the same layer")


@settings(max_examples=60, deadline=None)
@given(_members, _members)
def test_the_order_of_members_does_not_matter_between_content_and_marks(
    lower: list[tuple[str, str, bytes]], upper: list[tuple[str, str, bytes]]
) -> None:
    """OCI layer.md: whiteouts hide what lies below, wherever in the changeset they stand."""
    marks = [member for member in upper if member[0] in ("wh", "opq")]
    content = [member for member in upper if member[0] not in ("wh", "opq")]

    def listing(members: list[tuple[str, str, bytes]]) -> list[tuple[object, ...]]:
        tree = stack_of([layer_of(lower), layer_of(members)], ProblemLog()).tree()
        return [(node.path, node.kind, node.size, node.target, node.nlink) for node in tree.walk()]

    assert listing(marks + content) == listing(content + marks) == listing(upper)
