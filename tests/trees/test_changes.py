"""What `docker diff` lists, and what it hides."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forensics_lib.errors import DamagedData
from forensics_lib.model import ProblemLog
from forensics_lib.trees.base import Node, NodeKind, Tree
from forensics_lib.trees.changes import diff, hidden_changes
from forensics_lib.trees.layered import Change, ChangeKind
from forensics_lib.trees.subtree import Subtree
from forensics_lib.trees.union import UnionTree
from tests.trees import evidence
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
    redirect,
    tree,
    whiteout,
)

SECOND = 10**9


def listed(old: Mapping[str, Entry | bytes], new: Mapping[str, Entry | bytes]) -> list[str]:
    """The rows of `docker diff` for two plain trees."""
    return [f"{row.kind} {row.path}" for row in diff(tree("old", old), tree("new", new))]


def change(old: Entry | bytes, new: Entry | bytes) -> Change | None:
    """The row for one path, if there is one."""
    rows = list(diff(tree("old", {"/p": old}), tree("new", {"/p": new})))
    assert len(rows) < 2
    return rows[0] if rows else None


def hidden(old: Tree, new: Tree) -> dict[str, tuple[str, ...]]:
    return {row.path: row.what for row in hidden_changes(old, new)}


# docker diff


def test_nothing_changed() -> None:
    same: dict[str, Entry | bytes] = {"/d/f": b"f", "/d/l": link("f"), "/null": device(1, 3)}
    assert listed(same, same) == []


def test_all_that_is_in_a_new_directory_is_added() -> None:
    assert listed({}, {"/d/sub/f": b"", "/d/e": folder()}) == ["A /d", "A /d/e", "A /d/sub", "A /d/sub/f"]


def test_of_a_deleted_directory_only_itself_is_listed() -> None:
    assert listed({"/d/sub/f": b"", "/d/e": folder()}, {}) == ["D /d"]


def test_directories_with_changes_are_changed_but_never_the_root() -> None:
    assert listed({"/a/b/old": b"", "/x": b""}, {"/a/b/new": b""}) == [
        "C /a",
        "C /a/b",
        "A /a/b/new",
        "D /a/b/old",
        "D /x",
    ]
    assert listed({"/": folder(mode=0o755)}, {"/": folder(mode=0o700)}) == []


def test_rows_are_in_byte_order_of_their_paths() -> None:
    new = {f"/{name}": b"" for name in ("a/x", "a-b", "a", "B", "é", "\udce9")} | {"/a": folder()}
    assert listed({}, new) == ["A /B", "A /a", "A /a-b", "A /a/x", "A /é", "A /\udce9"]


@pytest.mark.parametrize(
    ("new", "what"),
    [
        (file(b"f", mode=0o600), ("mode",)),
        (file(b"f", mode=0o4644), ("mode",)),
        (file(b"f", uid=1), ("owner",)),
        (file(b"f", gid=1), ("owner",)),
        (file(b"ff"), ("content",)),
        (file(b"f", mtime_ns=MTIME + SECOND), ("content", "mtime")),
        (file(b"f", {"security.capability": b"cap"}), ("xattrs",)),
        (link("f"), ("kind",)),
        (folder(), ("kind",)),
        (device(1, 3), ("kind",)),
        (file(b"f", {"user.k": b"v"}, gid=1), ("owner", "xattrs")),
    ],
)
def test_what_makes_a_file_changed(new: Entry, what: tuple[str, ...]) -> None:
    row = change(file(b"f"), new)
    assert row is not None
    assert (row.kind, row.what) == (ChangeKind.CHANGED, what)
    assert row.node is not None
    assert row.previous is not None
    assert row.previous.read() == b"f"


@pytest.mark.parametrize(
    "new",
    [
        file(b"f", {"user.k": b"v"}),
        file(b"f", inode=5, nlink=2),
        file(b"f", atime_ns=1, ctime_ns=2, btime_ns=3),
        file(b"g"),
        file(b"f", mtime_ns=MTIME),
    ],
)
def test_what_docker_does_not_look_at(new: Entry) -> None:
    assert change(file(b"f"), new) is None


def test_fractions_of_a_second_count_only_where_both_have_one() -> None:
    def times(old: int | None, new: int | None) -> bool:
        return change(file(b"", mtime_ns=old), file(b"", mtime_ns=new)) is not None

    assert not times(5 * SECOND, 5 * SECOND + 1)
    assert not times(5 * SECOND + 1, 5 * SECOND)
    assert times(5 * SECOND + 1, 5 * SECOND + 2)
    assert times(5 * SECOND, 6 * SECOND)
    assert times(-1, 0)
    assert not times(-SECOND, -1)
    assert not times(None, 5)


def test_directories_are_compared_without_size_and_time() -> None:
    assert change(folder(mtime_ns=1), folder(mtime_ns=2 * SECOND)) is None
    for new in (folder(mode=0o700), folder(uid=1), folder({"security.capability": b""})):
        expected = new.xattrs == {}
        assert (change(folder(), new) is not None) is expected


def test_links_and_devices() -> None:
    row = change(link("one"), link("three"))
    assert row is not None
    assert row.what == ("target",)
    assert change(link("one"), link("two")) is None, "same length, same time"
    assert change(link("e"), link("é")) is not None, "lengths are those of the bytes"
    row = change(device(1, 3), device(1, 5))
    assert row is not None
    assert row.what == ("rdev",)


def test_files_become_directories_and_the_other_way_round() -> None:
    assert listed({"/p": b""}, {"/p/a/b": b""}) == ["C /p", "A /p/a", "A /p/a/b"]
    assert listed({"/p/a/b": b""}, {"/p": b""}) == ["C /p"]


def test_a_directory_that_was_made_anew() -> None:
    base: dict[str, Entry | bytes] = {"/d/kept": b"k", "/d/gone": b"", "/d/sub/x": b""}
    new, _ = overlay({"/d": folder(OPAQUE), "/d/kept": b"k", "/d/added": b""}, base)
    assert [f"{row.kind} {row.path}" for row in diff(new.below(1), new)] == [
        "C /d",
        "A /d/added",
        "D /d/gone",
        "D /d/sub",
    ]


def test_the_rows_of_a_container() -> None:
    image: dict[str, Entry | bytes] = {"/etc/passwd": b"root", "/etc/motd": b"m", "/var/log/old": b"", "/usr/x": b""}
    init: dict[str, Entry | bytes] = {"/etc/hosts": b"", "/.dockerenv": b""}
    upper: dict[str, Entry | bytes] = {
        "/etc/passwd": file(b"root+", mtime_ns=MTIME + SECOND),
        "/etc/motd": file(b"m"),  # copied up, but the same
        "/var/log/old": whiteout(),
        "/tmp/payload": b"x",
    }
    new, _ = overlay(upper, init, image)
    rows = {row.path: row for row in diff(new.below(1), new)}
    assert [f"{row.kind} {row.path}" for row in rows.values()] == [
        "C /etc",
        "C /etc/passwd",
        "A /tmp",
        "A /tmp/payload",
        "C /var",
        "C /var/log",
        "D /var/log/old",
    ]
    passwd = rows["/etc/passwd"]
    assert passwd.previous is not None
    assert passwd.node is not None
    assert (passwd.previous.read(), passwd.node.read(), passwd.what) == (b"root", b"root+", ("content", "mtime"))
    assert (rows["/tmp"].previous, rows["/var/log/old"].node) == (None, None)


def test_a_diff_reads_no_content() -> None:
    unread = file(b"?", content=Unread())
    assert len(list(diff(tree("old", {"/a": unread, "/b": unread}), tree("new", {"/a": unread, "/c": unread})))) == 2


# Shared layers


def test_directories_of_shared_layers_are_not_visited(monkeypatch: pytest.MonkeyPatch) -> None:
    image = {f"/usr/{name}/f": b"" for name in "abc"} | {"/etc/f": b"", "/etc/d/f": b""}
    new, _ = overlay({"/etc/new": b""}, {"/init": b""}, image)
    visited = []
    children = UnionTree._children

    def spy(self: UnionTree, path: str) -> Any:
        visited.append(path)
        return children(self, path)

    monkeypatch.setattr(UnionTree, "_children", spy)
    assert [row.path for row in diff(new.below(1), new)] == ["/etc", "/etc/new"]
    assert sorted(set(visited)) == ["/", "/etc"]


def test_a_tree_and_itself() -> None:
    view, _ = overlay({"/a": b""}, {"/b/c": b""})
    assert view.shared_with(view)("/")
    assert list(diff(view, view)) == []


def test_layers_are_shared_only_from_the_bottom_up() -> None:
    base, middle, other = tree("base", {"/d/x": b""}), tree("middle", {"/m/y": b""}), tree("other", {"/d/x": b"1"})
    one, _ = overlay({"/n": folder(redirect("/d"))}, base)
    two, _ = overlay(tree("again", {}), base)
    assert one.shared_with(two)("/d")
    assert not one.shared_with(two)("/n")
    assert not one.shared_with(two)("/")
    three, _ = overlay(base, middle)
    four, _ = overlay(base, other, middle)
    assert not three.shared_with(four)("/d"), "the same place, but other layers below it"
    five, _ = overlay(base, marks=None)
    six, _ = overlay(base, data_only={"/f": b""})
    assert not five.shared_with(six)("/"), "content may come from elsewhere"
    assert not five.shared_with(five)("/none")
    assert not five.shared_with(five)("/d/x"), "no directory"


def compared(old: Tree, new: Tree) -> tuple[list[Any], list[Any]]:
    """Every row of both answers, without the origins that say in what words the trees were read."""

    def plain(node: Node | None) -> Any:
        return None if node is None else (node.path, node.kind, node.mode, node.size, node.content)

    def all_of(rows: Any) -> list[Any]:
        return [(row.kind, row.path, plain(row.node), plain(row.previous), row.what) for row in rows]

    problems = ProblemLog()
    return all_of(diff(old, new)), all_of(hidden_changes(old, new, problems=problems))


@settings(max_examples=120, deadline=None)
@given(LAYERS, LAYERS, st.integers(0, 3))
def test_shared_layers_make_no_difference(top: list[Any], rest: list[Any], shared: int) -> None:
    low = [tree(f"low{index}", each) for index, each in enumerate(rest)]
    high = [tree(f"high{index}", each) for index, each in enumerate(top)]
    new, _ = overlay(*high, *low)
    for old in (overlay(*low)[0], overlay(*high[1:], *low[shared:], tree("other", {}))[0], new.below(1)):
        slow = compared(Subtree(old, "/"), Subtree(new, "/"))
        assert compared(old, new) == slow
        assert compared(new, old) == compared(Subtree(new, "/"), Subtree(old, "/"))


@settings(max_examples=200, deadline=None)
@given(st.lists(LAYERS.map(lambda layers: layers[0]), min_size=2, max_size=2))
def test_the_rows_follow_from_the_definition(both: list[dict[str, Entry]]) -> None:
    old, new = (tree(name, each) for name, each in zip(("old", "new"), both, strict=True))
    before, after = ({node.path: node for node in each.walk() if node.path != "/"} for each in (old, new))
    directories = {"", *(path for path, node in after.items() if node.kind is NodeKind.DIR)}
    expected = dict.fromkeys(after.keys() - before.keys(), "A")
    for path in before.keys() - after.keys():
        if path.rpartition("/")[0] in directories:
            expected[path] = "D"
    for path in before.keys() & after.keys():
        one, two = before[path], after[path]
        same = (one.kind, one.mode, one.rdev, one.size) == (two.kind, two.mode, two.rdev, two.size)
        if not same and not (one.kind is two.kind is NodeKind.DIR and one.mode == two.mode):
            expected[path] = "C"
    for path in list(expected):
        parts = path.split("/")
        for length in range(2, len(parts)):
            expected.setdefault("/".join(parts[:length]), "C")
    assert {row.path: str(row.kind) for row in diff(old, new)} == expected


# What docker diff hides


def test_content_that_was_replaced_without_a_trace() -> None:
    new, _ = overlay({"/bin/ls": b"evil"}, {"/bin/ls": b"good", "/bin/cat": b"good"})
    assert list(diff(new.below(1), new)) == []
    (row,) = hidden_changes(new.below(1), new)
    assert (row.kind, row.path, row.what) == (ChangeKind.CHANGED, "/bin/ls", ("content",))
    assert row.previous is not None
    assert row.node is not None
    assert (row.previous.read(), row.node.read()) == (b"good", b"evil")


def test_content_is_compared_even_where_the_mode_is_listed() -> None:
    new, _ = overlay({"/f": file(b"evil", mode=0o755)}, {"/f": b"good"})
    assert hidden(new.below(1), new) == {"/f": ("content",)}
    new, _ = overlay({"/f": file(b"evil", mtime_ns=1)}, {"/f": b"good"})
    assert hidden(new.below(1), new) == {}, "docker diff says so"


def test_only_files_that_are_stored_twice_are_read() -> None:
    unread = file(b"?", content=Unread())
    lower: dict[str, Entry | bytes] = {"/d/a": unread, "/d/b": unread, "/e/c": unread, "/d/m": unread}
    upper: dict[str, Entry | bytes] = {"/d/new": unread, "/d/m": file(b"\0", METACOPY, mode=0o600)}
    new, _ = overlay(upper, lower)
    assert hidden(new.below(1), new) == {}


def test_long_content_is_compared_to_its_end() -> None:
    long = bytes(700_000)
    for other in (long[:-1] + b"x", b"x" + long[1:], long[:400_000] + b"x" + long[400_001:]):
        assert hidden(tree("old", {"/f": long}), tree("new", {"/f": other})) == {"/f": ("content",)}
    assert hidden(tree("old", {"/f": long}), tree("new", {"/f": long})) == {}


def test_content_that_cannot_be_read() -> None:
    lower: dict[str, Entry | bytes] = {"/f": b"abc", "/g": b"good"}
    new, _ = overlay({"/f": file(b"\0\0\0", METACOPY | redirect("/none")), "/g": b"evil"}, lower)
    old = new.below(1)
    with pytest.raises(DamagedData):
        list(hidden_changes(old, new))
    problems = ProblemLog()
    assert [row.path for row in hidden_changes(old, new, problems=problems)] == ["/g"]
    assert len(problems.rows) == 1


def test_times_and_attributes_of_paths_that_are_not_listed() -> None:
    lower: dict[str, Entry | bytes] = {
        "/tmp": folder(ctime_ns=1),
        "/f": file(b"f", ctime_ns=1, btime_ns=1, atime_ns=1),
        "/x": file(b"x", {"security.capability": b"c"}),
        "/l": link("one"),
        "/t": file(b"", mtime_ns=5 * SECOND),
    }
    upper: dict[str, Entry | bytes] = {
        "/tmp": folder(mtime_ns=MTIME + 1, ctime_ns=2),
        "/f": file(b"f", ctime_ns=2, btime_ns=2, atime_ns=2),
        "/x": file(b"x", {"security.capability": b"c", "user.k": b"v"}),
        "/l": link("two"),
        "/t": file(b"", mtime_ns=5 * SECOND + 7),
    }
    new, _ = overlay(upper, lower)
    old = new.below(1)
    assert list(diff(old, new)) == []
    assert hidden(old, new) == {
        "/f": ("atime", "ctime", "btime"),
        "/l": ("target",),
        "/t": ("mtime",),
        "/tmp": ("mtime", "ctime"),
        "/x": ("xattrs",),
    }
    assert hidden(tree("old", lower), tree("new", upper)) == {
        "/l": ("target",),
        "/t": ("mtime",),
        "/tmp": ("mtime",),
        "/x": ("xattrs",),
    }, "a full copy has inode times of its own"


def test_paths_that_are_listed_are_not_hidden() -> None:
    new, _ = overlay({"/d": folder(mtime_ns=1), "/d/new": b""}, {"/d": folder(mtime_ns=2), "/e": b""})
    assert hidden(new.below(1), new) == {}


def test_the_root_is_never_listed() -> None:
    root = folder({"user.k": b"v"}, mode=0o777, uid=5, mtime_ns=1)
    new, _ = overlay({"/": root}, {"/": folder()})
    assert list(diff(new.below(1), new)) == []
    assert hidden(new.below(1), new) == {"/": ("xattrs", "mode", "owner")}


# Real stores


@pytest.mark.skipif(not all(path.is_dir() for path in evidence.NEEDED), reason=evidence.REASON)
def test_containers_changed_as_their_engines_said() -> None:
    compared_rows = 0
    for case in evidence.cases():
        said = {(row["kind"], evidence.path_of(row)) for row in evidence.rows(case.diff)}
        rows = list(diff(case.before, case.after))
        # the API is JSON: every byte of a name that is no UTF-8 is printed as U+FFFD
        assert {(str(row.kind), re.sub("[\udc80-\udcff]", "\ufffd", row.path)) for row in rows} == said, case.name
        slow = compared(Subtree(case.before, "/"), Subtree(case.after, "/"))
        assert compared(case.before, case.after)[0] == slow[0], case.name
        compared_rows += len(rows)
    assert compared_rows > 130
