"""Merging the layers of overlay, fuse-overlayfs and AUFS: one test a rule, a model of the rules, and a real kernel."""

from __future__ import annotations

import base64
import errno
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forensics_lib.errors import DamagedData, ForensicsError, PathNotFound
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.trees import union
from forensics_lib.trees.base import Node, NodeKind, Tree, join
from forensics_lib.trees.directory import DirectoryTree
from forensics_lib.trees.index import IndexTree
from forensics_lib.trees.overlay import AufsTree, Marks, OverlayTree, detect_marks
from tests.trees import evidence
from tests.trees.layers import (
    LAYERS,
    METACOPY,
    OPAQUE,
    Entry,
    Unread,
    device,
    file,
    folder,
    link,
    overlay,
    redirect,
    shown,
    tree,
    whiteout,
)


def merged(*layers: Mapping[str, Entry | bytes], **options: Any) -> dict[str, bytes | str]:
    """What layers show that have nothing wrong with them."""
    view, problems = overlay(*layers, **options)
    found = shown(view)
    assert [problem.message for problem in problems.rows] == []
    return found


# Merging


def test_layers_are_merged_topmost_first() -> None:
    assert merged(
        {"/etc/motd": b"new", "/etc/added": b"a"},
        {"/etc/motd": b"middle", "/usr/lib/x": b"x"},
        {"/etc/motd": b"old", "/etc/kept": b"k"},
    ) == {
        "/etc": "dir",
        "/etc/added": b"a",
        "/etc/kept": b"k",
        "/etc/motd": b"new",
        "/usr": "dir",
        "/usr/lib": "dir",
        "/usr/lib/x": b"x",
    }


def test_children_are_in_byte_order() -> None:
    view, _ = overlay({"/d/b": b"", "/d/\udce9": b""}, {"/d/a": b"", "/d/é": b"", "/d/B": b""})
    assert [node.name for node in view.children("/d")] == ["B", "a", "b", "é", "\udce9"]
    assert sorted(view.names("/d")) == sorted(["B", "a", "b", "é", "\udce9"])


def test_a_directorys_metadata_is_that_of_the_topmost() -> None:
    view, _ = overlay(
        {"/": folder(mode=0o711, uid=7), "/d": folder({"user.k": b"up"}, mode=0o700, mtime_ns=5)},
        {"/": folder(mode=0o755), "/d": folder({"user.low": b"low"}, mode=0o777)},
    )
    assert (view.node("/").mode, view.node("/").uid, view.node("/").path) == (0o711, 7, "/")
    node = view.node("/d")
    assert (node.mode, node.mtime_ns, dict(node.xattrs)) == (0o700, 5, {"user.k": b"up"})


def test_what_is_no_directory_takes_the_place_of_one_and_the_other_way_round() -> None:
    assert merged({"/p": b"file"}, {"/p/below": b""}) == {"/p": b"file"}
    assert merged({"/p/new": b"n"}, {"/p": b"file"}) == {"/p": "dir", "/p/new": b"n"}


def test_a_lower_file_ends_the_merge_of_a_directory() -> None:
    assert merged({"/p/a": b"1"}, {"/p": b"file"}, {"/p/b": b"hidden"}) == {"/p": "dir", "/p/a": b"1"}


def test_every_kind_of_file_is_shown() -> None:
    layer: dict[str, Entry | bytes] = {
        "/file": b"x",
        "/link": link("file"),
        "/null": device(1, 3),
        "/disk": device(8, 0, NodeKind.BLOCK),
        "/zero-block": device(0, 0, NodeKind.BLOCK),
        "/pipe": device(0, 0, NodeKind.FIFO),
        "/socket": device(0, 0, NodeKind.SOCKET),
    }
    assert merged({}, layer) == {
        "/disk": "block",
        "/file": b"x",
        "/link": "symlink",
        "/null": "char",
        "/pipe": "fifo",
        "/socket": "socket",
        "/zero-block": "block",
    }


def test_links_are_followed_in_the_merged_tree() -> None:
    view, _ = overlay({"/real/new": b"upper"}, {"/way": link("/real"), "/real/old": b"lower"})
    assert view.read("/way/new") == b"upper"
    assert view.read("/way/old") == b"lower"
    assert "/way/none" not in view


def test_only_what_is_asked_for_is_read() -> None:
    unread = replace(file(b"?"), content=Unread())
    view, _ = overlay({"/d/a": unread}, {"/d/b": unread})
    assert [node.size for node in view.walk() if node.kind is NodeKind.FILE] == [1, 1]


# Whiteouts


def test_a_whiteout_hides_what_is_below() -> None:
    assert merged({"/d/f": whiteout(), "/e": whiteout()}, {"/d/f": b"", "/d/g": b"g", "/e/x/y": b""}) == {
        "/d": "dir",
        "/d/g": b"g",
    }


def test_a_whiteout_of_a_middle_layer() -> None:
    assert merged({"/d/new": b"n"}, {"/d": whiteout()}, {"/d/old": b"o"}) == {"/d": "dir", "/d/new": b"n"}
    assert merged({"/f": b"again"}, {"/f": whiteout()}, {"/f": b"old"}) == {"/f": b"again"}


def test_a_whiteout_without_anything_below_is_never_shown() -> None:
    assert merged({"/only": whiteout()}, {"/pure/gone": whiteout(), "/pure/x": b""}) == {
        "/pure": "dir",
        "/pure/x": b"",
    }


def test_the_mode_of_a_whiteout_does_not_matter() -> None:
    assert merged({"/f": device(0, 0)}, {"/f": b""}) == {}


def test_names_that_aufs_uses_are_ordinary() -> None:
    layer: dict[str, Entry | bytes] = {"/.wh.f": b"", "/d/.wh..wh..opq": b""}
    assert merged(layer, {"/f": b"f", "/d/x": b"x"}) == {
        "/.wh.f": b"",
        "/d": "dir",
        "/d/.wh..wh..opq": b"",
        "/d/x": b"x",
        "/f": b"f",
    }


@pytest.mark.parametrize("mark", [{"trusted.overlay.opaque": b"x"}, {"trusted.overlay.whiteouts": b"y"}])
def test_whiteout_files_count_in_a_marked_directory(mark: dict[str, bytes]) -> None:
    gone = file(b"", {"trusted.overlay.whiteout": b""})
    lower = {"/d/f": b"f", "/d/g": b"g", "/d/sub/f": b"s"}
    assert merged({"/d": folder(mark), "/d/f": gone}, lower) == {
        "/d": "dir",
        "/d/g": b"g",
        "/d/sub": "dir",
        "/d/sub/f": b"s",
    }
    assert merged({"/": folder(mark), "/d": gone}, lower) == {}


def test_whiteout_files_do_not_count_elsewhere() -> None:
    gone = file(b"", {"trusted.overlay.whiteout": b"", "user.k": b"v"})
    view, _ = overlay({"/d/f": gone}, {"/d/f": b"f"})
    assert shown(view) == {"/d": "dir", "/d/f": b""}
    assert dict(view.node("/d/f").xattrs) == {"user.k": b"v"}
    marked = folder({"trusted.overlay.opaque": b"x"})
    full = file(b"full", {"trusted.overlay.whiteout": b""})
    assert merged({"/d": marked, "/d/f": full}, {"/d/f": b"f"}) == {"/d": "dir", "/d/f": b"full"}


# Opaque directories


def test_an_opaque_directory_hides_what_is_below() -> None:
    assert merged(
        {"/d": folder(OPAQUE), "/d/new": b"n"},
        {"/d/old": b"", "/d/sub/x": b"", "/e": b"e"},
    ) == {"/d": "dir", "/d/new": b"n", "/e": b"e"}


def test_an_opaque_directory_of_a_middle_layer() -> None:
    assert merged({"/d/a": b"a"}, {"/d": folder(OPAQUE), "/d/b": b"b"}, {"/d/c": b"c"}) == {
        "/d": "dir",
        "/d/a": b"a",
        "/d/b": b"b",
    }


@pytest.mark.parametrize("value", [b"x", b"n", b"", b"yes"])
def test_only_y_makes_a_directory_opaque(value: bytes) -> None:
    assert merged({"/d": folder({"trusted.overlay.opaque": value})}, {"/d/x": b"x"}) == {"/d": "dir", "/d/x": b"x"}


def test_the_root_is_never_opaque() -> None:
    assert merged({"/": folder(OPAQUE)}, {"/x": b"x"}) == {"/x": b"x"}


def test_opaque_says_nothing_of_a_file() -> None:
    assert merged({"/f": file(b"f", OPAQUE)}, {"/f": b"old"}) == {"/f": b"f"}


# Redirects


def test_a_relative_redirect_names_a_sibling() -> None:
    upper: dict[str, Entry | bytes] = {"/p/new": folder(redirect("old")), "/p/old": whiteout(), "/p/new/added": b"a"}
    assert merged(upper, {"/p/old/kept": b"k", "/p/new/never": b""}) == {
        "/p": "dir",
        "/p/new": "dir",
        "/p/new/added": b"a",
        "/p/new/kept": b"k",
    }


def test_an_absolute_redirect_starts_at_the_root() -> None:
    upper = {"/a/b": folder(redirect("/x/y")), "/x": whiteout()}
    assert merged(upper, {"/x/y/z/f": b"f"}) == {
        "/a": "dir",
        "/a/b": "dir",
        "/a/b/z": "dir",
        "/a/b/z/f": b"f",
    }


def test_what_is_below_a_redirect_is_found_by_its_path() -> None:
    view, _ = overlay({"/a/b": folder(redirect("/x/y"))}, {"/x/y/z/f": b"f"})
    assert view.read("/a/b/z/f") == b"f"
    assert "/a/b/y" not in view


def test_each_layer_redirects_the_next() -> None:
    assert merged(
        {"/c": folder(redirect("b")), "/c/1": b"1", "/b": whiteout()},
        {"/b": folder(redirect("/a")), "/b/2": b"2", "/a": whiteout()},
        {"/a/3": b"3"},
    ) == {"/c": "dir", "/c/1": b"1", "/c/2": b"2", "/c/3": b"3"}


def test_a_redirect_passes_a_layer_that_does_not_have_the_directory() -> None:
    assert merged({"/n": folder(redirect("o"))}, {"/else": b""}, {"/o/x": b"x"}) == {
        "/else": b"",
        "/n": "dir",
        "/n/x": b"x",
        "/o": "dir",
        "/o/x": b"x",
    }


def test_a_directory_on_the_way_of_an_absolute_redirect_may_be_redirected_itself() -> None:
    assert merged(
        {"/n": folder(redirect("/p/d"))},
        {"/p": folder(redirect("q")), "/p/d/1": b"1", "/q": whiteout()},
        {"/q/d/2": b"2", "/p/d/never": b""},
    ) == {
        "/n": "dir",
        "/n/1": b"1",
        "/n/2": b"2",
        "/p": "dir",
        "/p/d": "dir",
        "/p/d/1": b"1",
        "/p/d/2": b"2",
    }


def test_a_whiteout_or_a_file_on_the_way_of_an_absolute_redirect_ends_it() -> None:
    for obstacle in (whiteout(), file(b"")):
        view, _ = overlay({"/n": folder(redirect("/p/d"))}, {"/p": obstacle}, {"/p/d/x": b""})
        assert list(view.children("/n")) == []


def test_an_opaque_directory_on_the_way_ends_the_merge_after_its_layer() -> None:
    view, _ = overlay({"/n": folder(redirect("/p/d"))}, {"/p": folder(OPAQUE), "/p/d/1": b"1"}, {"/p/d/2": b"hidden"})
    assert [node.name for node in view.children("/n")] == ["1"]


def test_an_absolute_redirect_below_an_opaque_directory_goes_on() -> None:
    upper = {"/p": folder(OPAQUE), "/p/d": folder(redirect("/old"))}
    assert merged(upper, {"/old/x": b"x", "/p/d/hidden": b""}) == {
        "/old": "dir",
        "/old/x": b"x",
        "/p": "dir",
        "/p/d": "dir",
        "/p/d/x": b"x",
    }
    view, _ = overlay(
        {"/n": folder(redirect("/p/d"))},
        {"/p": folder(OPAQUE), "/p/d": folder(redirect("/old")), "/p/d/1": b"1"},
        {"/old/2": b"2"},
    )
    assert [node.name for node in view.children("/n")] == ["1", "2"]


def test_a_relative_redirect_below_an_opaque_directory_leads_nowhere() -> None:
    upper = {"/p": folder(OPAQUE), "/p/n": folder(redirect("o"))}
    assert merged(upper, {"/p/o/x": b""}) == {"/p": "dir", "/p/n": "dir"}


def test_opaque_wins_over_a_redirect() -> None:
    assert merged({"/n": folder(redirect("/o", opaque=b"y")), "/o": whiteout()}, {"/o/x": b""}) == {"/n": "dir"}


def test_a_redirect_may_end_with_a_zero_byte() -> None:
    view, _ = overlay({"/n": folder({"trusted.overlay.redirect": b"/o\0"})}, {"/o/x": b""})
    assert "/n/x" in view


@pytest.mark.parametrize("value", [b"", b"/", b"a/b", b"/a//b", b"/a/", b"..", b"/../o", b"/o/.", b"."])
def test_a_redirect_that_no_kernel_writes_merges_nothing(value: bytes) -> None:
    view, problems = overlay(
        {"/n": folder({"trusted.overlay.redirect": value}), "/n/own": b""},
        {"/n/x": b"", "/o/x": b"", "/a/b/x": b"", "/x": b""},
    )
    assert [node.name for node in view.children("/n")] == ["own"]
    (problem,) = problems.rows
    assert "redirect" in problem.message
    assert str(problem.origin) == "layer0 > member /n"


@pytest.mark.skipif(os.name != "posix", reason="symbolic links of the examiner's system")
def test_a_redirect_does_not_leave_the_layer(tmp_path: Path) -> None:
    (tmp_path / "outside/d").mkdir(parents=True)
    (tmp_path / "outside/d/secret").write_bytes(b"examiner")
    (tmp_path / "lower").mkdir()
    (tmp_path / "lower/way").symlink_to(tmp_path / "outside")
    (tmp_path / "layers").mkdir()
    (tmp_path / "layers/one").symlink_to(tmp_path / "outside")
    lower = DirectoryTree(tmp_path / "lower", ProblemLog(strict=True))
    upper = {
        "/n": folder(redirect("/way/d")),
        "/m": folder(redirect("/../outside/d")),
        "/f": file(b"\0" * 8, redirect("/way/d/secret", metacopy=b"")),
    }
    view, problems = overlay(upper, lower)
    assert shown(view) == {"/f": "unreadable", "/m": "dir", "/n": "dir", "/way": "symlink"}
    assert len(problems.rows) == 2
    with pytest.raises(PathNotFound):
        OverlayTree([(DirectoryTree(tmp_path, problems), "/layers/one")], problems=problems, origin=Origin("container"))


def test_redirects_that_multiply_a_directory_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(union, "_MAX_DIRECTORIES", 100)
    layers = [
        {f"/{level}/{n}": folder(redirect(f"/{level + 1}")) for n in range(4)} | {f"/{level}/file": b""}
        for level in range(12)
    ]
    view, problems = overlay(*layers)
    assert sum(1 for _ in view.walk("/0")) < 600
    assert any("beyond 100 directories" in problem.message for problem in problems.rows)
    assert sum(1 for _ in view.walk("/0")) < 600  # what is known stays as it was


def test_a_path_that_redirects_make_too_deep_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(union, "_MAX_DEPTH", 10)
    upper = {"/1/2/3/4/5/6": folder(redirect("/deep"))}
    view, problems = overlay(upper, {"/deep/1/2/3/4/5/6/7": b""})
    assert max(node.path.count("/") for node in view.walk()) <= 11
    assert any("depth" in problem.message for problem in problems.rows)


# Content that stays in a lower layer


def meta(size: int, **more: Any) -> Entry:
    return replace(file(b"\0" * size, {**METACOPY, **more.pop("xattrs", {})}), **more)


def test_a_metacopy_file_has_the_content_of_the_layer_below() -> None:
    view, problems = overlay({"/f": meta(3, mode=0o600, uid=5)}, {"/f": b"abc"})
    node = view.node("/f")
    assert (node.read(), node.size, node.mode, node.uid, dict(node.xattrs)) == (b"abc", 3, 0o600, 5, {})
    assert problems.rows == []


def test_a_metacopy_file_follows_its_redirect() -> None:
    lower = {"/d/old": b"abc", "/d/new": b"not this"}
    assert merged({"/d/new": meta(3, xattrs=redirect("old"))}, lower)["/d/new"] == b"abc"
    assert merged({"/n": meta(3, xattrs=redirect("/d/old"))}, lower)["/n"] == b"abc"
    opaque = {"/p": folder(OPAQUE), "/p/n": meta(3, xattrs=redirect("/d/old"))}
    assert merged(opaque, lower)["/p/n"] == b"abc"


def test_a_chain_of_metacopy_files() -> None:
    layers: list[dict[str, Entry | bytes]] = [
        {"/c": meta(3, xattrs=redirect("b"))},
        {"/b": meta(3, xattrs=redirect("/d/a"))},
        {"/unrelated": b""},
        {"/d/a": b"abc"},
    ]
    assert merged(*layers)["/c"] == b"abc"


def test_the_digest_in_a_metacopy_attribute_is_allowed() -> None:
    value = bytes([0, 36, 0, 1]) + bytes(32)
    upper = {"/f": file(b"\0\0\0", {"trusted.overlay.metacopy": value})}
    assert merged(upper, {"/f": b"abc"}) == {"/f": b"abc"}


@pytest.mark.parametrize("value", [b"\0", b"\0\x08\0\0", b"\x01\x04\0\0"])
def test_a_damaged_metacopy_attribute_is_a_problem_but_still_no_zeros(value: bytes) -> None:
    view, problems = overlay({"/f": file(b"\0\0\0", {"trusted.overlay.metacopy": value})}, {"/f": b"abc"})
    assert view.read("/f") == b"abc"
    assert "metacopy attribute" in problems.rows[0].message


@pytest.mark.parametrize(
    "lower",
    [
        {},
        {"/f": folder()},
        {"/f": link("g"), "/g": b"abc"},
        {"/f": whiteout()},
        {"/f": meta(3)},
        {"/f": meta(3, xattrs=redirect("/f/../g")), "/g": b"abc"},
    ],
)
def test_content_that_is_nowhere_is_never_zeros(lower: dict[str, Entry | bytes]) -> None:
    view, problems = overlay({"/f": meta(3)}, lower)
    node = view.node("/f")
    assert node.size == 3
    with pytest.raises(DamagedData, match="layer below"):
        node.read()
    assert any("/f: the layer below" in problem.message for problem in problems.rows)


def test_a_size_that_contradicts_the_content_is_a_problem() -> None:
    view, problems = overlay({"/f": meta(7)}, {"/f": b"abc"})
    assert view.read("/f") == b"abc"
    assert "7 bytes by its own record, 3" in problems.rows[0].message


def test_metacopy_says_nothing_of_what_is_no_file() -> None:
    assert merged({"/d": folder(METACOPY)}, {"/d/x": b"x"}) == {"/d": "dir", "/d/x": b"x"}


def test_data_only_layers_are_reached_by_absolute_redirects_only() -> None:
    data: dict[str, Entry | bytes] = {"/ab/cdef": b"object", "/f": b"not by path", "/link": link("ab"), "/dir/x": b""}
    upper: dict[str, Entry | bytes] = {
        "/usr/bin/tool": meta(6, xattrs=redirect("/ab/cdef")),
        "/f": meta(11),
        "/ab": meta(11, xattrs=redirect("f")),
        "/through-link": meta(6, xattrs=redirect("/link/cdef")),
        "/directory": meta(0, xattrs=redirect("/dir")),
        "/below-file": meta(0, xattrs=redirect("/f/x")),
    }
    view, problems = overlay(upper, {}, data_only=data)
    assert shown(view) == {
        "/ab": "unreadable",
        "/below-file": "unreadable",
        "/directory": "unreadable",
        "/f": "unreadable",
        "/through-link": "unreadable",
        "/usr": "dir",
        "/usr/bin": "dir",
        "/usr/bin/tool": b"object",
    }
    assert len(problems.rows) == 5


# Attributes


def test_own_attributes_are_hidden_and_nested_ones_unescaped() -> None:
    xattrs = {
        "trusted.overlay.origin": b"\0\xfb",
        "trusted.overlay.impure": b"y",
        "trusted.overlay.uuid": b"0" * 16,
        "trusted.overlay.nlink": b"U+1",
        "trusted.overlay.protattr": b"i",
        "trusted.overlay.overlay.opaque": b"y",
        "trusted.overlay.overlay.overlay.redirect": b"z",
        "trusted.other": b"1",
        "user.overlay.opaque": b"y",
        "security.capability": b"cap",
    }
    view, problems = overlay({"/d": folder(xattrs)}, {"/d/x": b"x"})
    assert dict(view.node("/d").xattrs) == {
        "trusted.overlay.opaque": b"y",
        "trusted.overlay.overlay.redirect": b"z",
        "trusted.other": b"1",
        "user.overlay.opaque": b"y",
        "security.capability": b"cap",
    }
    assert "/d/x" in view, "an escaped or user attribute does not hide"
    assert problems.rows == []


def test_a_userxattr_mount_has_its_own_names() -> None:
    upper: dict[str, Entry | bytes] = {
        "/o": folder({"user.overlay.opaque": b"y", "trusted.overlay.foo": b"1"}),
        "/t": folder(OPAQUE),
        "/n": folder({"user.overlay.redirect": b"/t"}),
    }
    view, _ = overlay(upper, {"/o/x": b"", "/t/x": b"x"}, marks=Marks.USER)
    assert shown(view) == {"/n": "dir", "/n/x": b"x", "/o": "dir", "/t": "dir", "/t/x": b"x"}
    assert dict(view.node("/o").xattrs) == {"trusted.overlay.foo": b"1"}


@pytest.mark.parametrize(
    ("roots", "expected"),
    [
        ([{}, {}], Marks.TRUSTED),
        ([{"user.overlay.impure": b"y"}, {}], Marks.USER),
        ([{}, {"user.overlay.uuid": b"0"}], Marks.USER),
        ([{"user.overlay.opaque": b"y"}, {"trusted.overlay.impure": b"y"}], Marks.TRUSTED),
        ([{"user.fuseoverlayfs.override_stat": b"0:0:755"}, {}], Marks.FUSE),
        ([{}, {"user.containers.override_stat": b"0:0:755"}], Marks.FUSE),
        ([{"user.other": b""}], Marks.TRUSTED),
    ],
)
def test_the_roots_tell_how_an_overlay_is_marked(roots: list[dict[str, bytes]], expected: Marks) -> None:
    assert detect_marks([folder(xattrs) for xattrs in roots]) is expected
    view, _ = overlay(*({"/": folder(xattrs)} for xattrs in roots), marks=None)
    assert view.marks is expected


# Hard links


def test_hard_links_inside_a_layer_keep_their_numbers() -> None:
    lower = tree("disk", {"/l/a": file(b"x", inode=9, nlink=2), "/l/b": file(b"x", inode=9, nlink=2), "/u/c": b""})
    problems = ProblemLog(strict=True)
    view = OverlayTree([(lower, "/u"), (lower, "/l")], problems=problems, origin=Origin("container"))
    assert [(view.node(path).inode, view.node(path).nlink) for path in ("/a", "/b")] == [(9, 2), (9, 2)]


def test_numbers_of_different_file_systems_do_not_meet() -> None:
    view, _ = overlay({"/up": file(b"", inode=9)}, {"/a": file(b"x", inode=9), "/b": file(b"x", inode=9)}, {"/c": b""})
    up, a, b, c = (view.node(path).inode for path in ("/up", "/a", "/b", "/c"))
    assert a == b
    assert len({0, up, a}) == 3
    assert c == 0


# Where a node comes from


def test_layer_of_and_origin() -> None:
    disk = tree("disk", {"/o/1/diff/d/a": b"", "/o/2/diff/d/b": b"", "/o/2/diff/way": link("/d"), "/o/3/diff/d/a": b""})
    layers = [(disk, f"/o/{number}/diff") for number in (1, 2, 3)]
    view = OverlayTree(layers, problems=ProblemLog(strict=True), origin=Origin("container"))
    assert [view.layer_of(path) for path in ("/", "/d", "/d/a", "/d/b", "/way/b")] == [0, 0, 0, 1, 1]
    assert str(view.node("/d/b").origin) == "disk > member /o/2/diff/d/b > /o/2/diff/d/b"
    with pytest.raises(PathNotFound):
        view.layer_of("/none")


def test_previous_is_what_the_layers_below_show() -> None:
    view, _ = overlay(
        {"/changed": b"3", "/new": b"", "/deleted": whiteout(), "/dir": folder(OPAQUE, mode=0o700), "/again": b"2"},
        {"/changed": b"2", "/middle": whiteout(), "/again": whiteout()},
        {
            "/changed": b"1",
            "/deleted": b"d",
            "/dir/x": b"x",
            "/middle/m": b"m",
            "/unchanged": b"",
            "/again": b"1",
        },
    )

    def content(path: str) -> bytes | None:
        node = view.previous(path)
        return None if node is None else node.read()

    assert content("/changed") == b"2"
    assert content("/deleted") == b"d"
    assert content("/dir/x") == b"x"
    assert content("/middle/m") == b"m"
    assert [content(path) for path in ("/new", "/unchanged", "/never", "/again")] == [None] * 4
    directory = view.previous("/dir")
    assert directory is not None
    assert directory.mode == 0o755
    assert view.previous("/") is not None


def test_the_tree_without_its_topmost_layers() -> None:
    view, _ = overlay({"/a": whiteout()}, {"/a": b"2"}, {"/a": b"1"})
    assert [shown(view.below(count)) for count in range(3)] == [{}, {"/a": b"2"}, {"/a": b"1"}]
    assert view.below(1) is view.below(1)
    with pytest.raises(PathNotFound):
        view.below(3)


def test_missing_layers_are_problems_and_the_rest_is_merged() -> None:
    disk = tree("disk", {"/1/a": b"a", "/3/b": b"b", "/file": b"", "/l/X": link("../3")})
    problems = ProblemLog()
    layers = [(disk, path) for path in ("/1", "/2", "/file", "/l/X")]
    view = OverlayTree(layers, problems=problems, origin=Origin("container"))
    assert shown(view) == {"/a": b"a", "/b": b"b"}
    assert view.layer_of("/b") == 3
    assert [str(problem.origin) for problem in problems.rows] == ["disk > /2", "disk > /file"]
    with pytest.raises(PathNotFound):
        OverlayTree([(disk, "/2")], problems=problems, origin=Origin("container"))
    with pytest.raises(PathNotFound):
        OverlayTree([], problems=problems, origin=Origin("container"))


def test_what_is_not_there() -> None:
    view, _ = overlay({"/f": b""}, {"/d/x": b""})
    for path in ("/none", "/f/below", "/d/none/deeper"):
        assert path not in view
    with pytest.raises(PathNotFound):
        list(view.children("/f"))
    assert list(view.entries("/none")) == []


# fuse-overlayfs


def test_every_kind_of_mark_counts_for_fuse_overlayfs() -> None:
    upper: dict[str, Entry | bytes] = {
        "/.wh.f": b"",
        "/g": whiteout(),
        "/.wh.d": b"",
        "/o1": folder({"user.fuseoverlayfs.opaque": b"y"}),
        "/o2/.wh..wh..opq": b"",
        "/o2/.wh..opq": whiteout(),
        "/o2/new": b"n",
        "/o3": folder({"user.overlay.opaque": b"y"}),
        "/o4": folder({"trusted.overlay.opaque": b"y"}),
        "/m": folder(redirect("/d")),
    }
    lower = dict.fromkeys(("/f", "/g", "/h", "/d/x", "/o1/x", "/o2/x", "/o3/x", "/o4/x"), b"low")
    assert merged(upper, lower, marks=Marks.FUSE) == {
        "/h": b"low",
        "/m": "dir",
        "/o1": "dir",
        "/o2": "dir",
        "/o2/new": b"n",
        "/o3": "dir",
        "/o4": "dir",
    }
    view, _ = overlay(upper, lower, marks=Marks.FUSE)
    assert [path in view for path in ("/f", "/g", "/h", "/d/x", "/o2/x", "/.wh.f")] == [False, False, True] + [
        False
    ] * 3


def test_bookkeeping_of_fuse_overlayfs_is_hidden() -> None:
    xattrs = {
        "user.fuseoverlayfs.origin": b"etc/passwd\0",
        "trusted.overlay.origin": b"",
        "user.overlay.impure": b"y",
        "user.k": b"v",
        "security.capability": b"cap",
    }
    view, _ = overlay({"/f": file(b"", xattrs)}, {}, marks=Marks.FUSE)
    assert dict(view.node("/f").xattrs) == {"user.k": b"v", "security.capability": b"cap"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"1000:1001:0644", (NodeKind.FILE, 0o644, 1000, 1001, 0)),
        (b"0:0:104755", (NodeKind.FILE, 0o4755, 0, 0, 0)),
        (b"0:0:755:file", (NodeKind.FILE, 0o755, 0, 0, 0)),
        (b"0:6:0660:block-8-1", (NodeKind.BLOCK, 0o660, 0, 6, 0x801)),
        (b"0:0:666:char-1-3", (NodeKind.CHAR, 0o666, 0, 0, 0x103)),
        (b"5:5:600:pipe", (NodeKind.FIFO, 0o600, 5, 5, 0)),
        (b"5:5:600:socket", (NodeKind.SOCKET, 0o600, 5, 5, 0)),
    ],
)
@pytest.mark.parametrize("name", ["user.containers.override_stat", "user.fuseoverlayfs.override_stat"])
def test_owner_and_mode_from_an_attribute(name: str, value: bytes, expected: tuple[object, ...]) -> None:
    root = folder({name: b"0:0:0700"})
    view, problems = overlay({"/": root, "/f": file(b"abc", {name: value})}, {}, marks=Marks.FUSE)
    node = view.node("/f")
    assert (node.kind, node.mode, node.uid, node.gid, node.rdev) == expected
    assert node.size == (3 if node.kind is NodeKind.FILE else 0)
    assert dict(node.xattrs) == {}
    assert view.node("/").mode == 0o700
    assert problems.rows == []


@pytest.mark.parametrize(
    "value", [b"", b"1:2", b"a:0:644", b"0:0:999", b"0:0:644:bogus", b"0:0:644:char", b"0:0:644:dir", b"\xff:0:1"]
)
def test_an_attribute_that_is_no_owner_and_mode_is_a_problem(value: bytes) -> None:
    name = "user.containers.override_stat"
    view, problems = overlay({"/": folder({name: b"0:0:0700"}), "/f": file(b"x", {name: value})}, marks=Marks.FUSE)
    assert view.read("/f") == b"x"
    assert "owner and mode" in problems.rows[0].message


def test_owner_and_mode_count_only_in_a_layer_that_stores_them() -> None:
    name = "user.containers.override_stat"
    layer = {"/f": file(b"x", {name: b"7:7:0777"})}
    view, _ = overlay(layer, {"/": folder({name: b"0:0:0755"})}, marks=Marks.FUSE)
    assert (view.node("/f").uid, view.node("/f").mode) == (0, 0o644)
    view, _ = overlay({"/": folder({name: b"0:0:0755"}), **layer})
    assert (view.node("/f").uid, dict(view.node("/f").xattrs)) == (0, {name: b"7:7:0777"}), "a kernel's overlay"


def test_security_attributes_that_were_put_aside() -> None:
    xattrs = {
        "user.containers.override_stat": b"0:0:0755",
        "user.containers.override_security.capability": b"real",
        "security.capability": b"of the host",
    }
    view, _ = overlay({"/": folder(xattrs), "/f": file(b"", xattrs)}, marks=Marks.FUSE)
    assert dict(view.node("/f").xattrs) == {"security.capability": b"real"}


def test_an_opaque_root_of_fuse_overlayfs() -> None:
    assert merged({"/": folder(OPAQUE), "/a": b"a"}, {"/b": b""}, marks=Marks.FUSE) == {"/a": b"a"}


# AUFS


def aufs(*branches: Mapping[str, Entry | bytes]) -> AufsTree:
    layers: list[tuple[Tree, str]] = [(tree(f"branch{index}", each), "/") for index, each in enumerate(branches)]
    return AufsTree(layers, problems=ProblemLog(strict=True), origin=Origin("container"))


def test_the_marks_of_aufs() -> None:
    view = aufs(
        {
            "/.wh.f": b"",
            "/d/.wh.x": b"",
            "/o/.wh..wh..opq": b"",
            "/o/new": b"n",
            "/.wh..wh.aufs": b"",
            "/.wh..wh.plnk/1.2": b"",
            "/.wh..wh.orph/gone": b"",
            "/char": device(0, 0),
            "/t": folder(OPAQUE),
            "/.wh.": b"",
        },
        {"/f": b"", "/d/x/y": b"", "/d/z": b"z", "/o/old": b"", "/t/x": b"x", "/.wh.e": b""},
        {"/e": b"", "/d/x/deeper": b"", "/g": b"g"},
    )
    assert shown(view) == {
        "/char": "char",
        "/d": "dir",
        "/d/z": b"z",
        "/g": b"g",
        "/o": "dir",
        "/o/new": b"n",
        "/t": "dir",
        "/t/x": b"x",
    }
    assert [path in view for path in ("/f", "/d/x", "/d/z", "/o/old", "/.wh.f", "/e")] == [
        False,
        False,
        True,
        False,
        False,
        False,
    ]
    assert dict(view.node("/t").xattrs) == OPAQUE
    hidden = view.previous("/f")
    assert hidden is not None


def test_a_name_that_leaves_no_room_for_a_mark(tmp_path: Path) -> None:
    (tmp_path / ("n" * 255)).write_bytes(b"long")
    problems = ProblemLog(strict=True)
    view = AufsTree([(DirectoryTree(tmp_path, problems), "/")], problems=problems, origin=Origin("container"))
    assert view.read("/" + "n" * 255) == b"long"


def test_missing_branches_of_aufs() -> None:
    problems = ProblemLog()
    disk = tree("disk", {"/rw/a": b"", "/ro/b": b""})
    view = AufsTree([(disk, "/rw"), (disk, "/none"), (disk, "/ro")], problems=problems, origin=Origin("container"))
    assert sorted(shown(view)) == ["/a", "/b"]
    assert len(problems.rows) == 1


# A second, simple model of the rules: layers are merged two at a time, from the bottom


Seen = dict[str, tuple[Node, bytes | None]]  # each path's topmost node and, for a file, its content


def model(layers: list[IndexTree]) -> Seen:
    if not layers:
        return {}
    upper, lower = layers[0], model(layers[1:])
    result: Seen = {}

    def copy(source: str, to: str) -> None:
        for path, seen in lower.items():
            if path == source or path.startswith(source.rstrip("/") + "/"):
                result[to + path.removeprefix(source)] = seen

    def target(node: Node, below: str | None) -> str | None:
        value = node.xattrs.get("trusted.overlay.redirect", b"").decode()
        if value.startswith("/"):
            return value
        return None if below is None else join(below, value or node.name)

    def merge(here: str, to: str, below: str | None) -> None:
        node = upper.node(here)
        result[to] = (node, None)
        names = {child.name for child in upper.children(here)}
        if below is not None:
            for path in list(lower):
                parent, _, name = path.rpartition("/")
                if path != "/" and (parent or "/") == below and name not in names:
                    copy(path, join(to, name))
        for child in upper.children(here):
            marked = node.xattrs.get("trusted.overlay.opaque") == b"x" and "trusted.overlay.whiteout" in child.xattrs
            if (child.kind is NodeKind.CHAR and child.rdev == 0) or marked:
                continue
            path, beneath = join(to, child.name), target(child, below)
            found = None if beneath is None else lower.get(beneath)
            if child.kind is NodeKind.DIR:
                goes_on = found and found[0].kind is NodeKind.DIR and child.xattrs.get("trusted.overlay.opaque") != b"y"
                merge(child.path, path, beneath if goes_on else None)
            elif "trusted.overlay.metacopy" in child.xattrs:
                result[path] = (child, found[1] if found and found[0].kind is NodeKind.FILE else None)
            else:
                result[path] = (child, child.read())

    merge("/", "/", "/" if lower else None)
    return result


@settings(max_examples=300, deadline=None)
@given(LAYERS)
def test_the_merged_tree_is_that_of_the_simple_model(layers: list[dict[str, Entry]]) -> None:
    trees = [tree(f"layer{index}", each) for index, each in enumerate(layers)]
    view, _ = overlay(*trees)
    expected = model(trees)
    found = {node.path: node for node in view.walk()}
    assert list(found) == [node.path for node in view.walk()], "a second walk, from the cache"
    assert found.keys() == expected.keys()
    for path, (top, content) in expected.items():
        node = found[path]
        alone, _ = overlay(*trees)
        assert alone.node(path) == node, "the same without its siblings"
        assert (node.kind, node.mode, node.origin.parent or node.origin) in (
            (top.kind, top.mode, top.origin),
            (top.kind, top.mode, top.origin.parent or top.origin),
        )
        if node.kind is NodeKind.FILE:
            try:
                assert node.read() == content
            except DamagedData:
                assert content is None


@settings(max_examples=150, deadline=None)
@given(LAYERS, st.sampled_from(Marks), st.binary(max_size=12), st.binary(max_size=24))
def test_no_mark_is_too_strange(layers: list[dict[str, Entry]], marks: Marks, value: bytes, status: bytes) -> None:
    prefix = "user.overlay." if marks is Marks.USER else "trusted.overlay."
    strange = {
        "/": folder({"user.containers.override_stat": status}),
        "/a": folder({prefix + "redirect": value, prefix + "opaque": value}),
        "/b": file(b"\0", {prefix + "redirect": b"/" + value, prefix + "metacopy": value}),
        "/c": file(b"", {"user.containers.override_stat": status}),
        "/.wh.": file(),
        "/.wh..": file(),
        "/.wh.../x": file(),
    }
    view, _ = overlay(strange, *layers, marks=marks)
    for node in view.walk():
        try:
            if node.kind is NodeKind.FILE:
                node.read()
            view.previous(node.path)
        except ForensicsError:
            pass


# The kernel's own answer


EIO = os.strerror(errno.EIO)
KERNEL = Path(__file__).with_name("kernel_overlay.py")


def kernel(job: str, *arguments: str | Path) -> Any:
    """What a mounted overlay shows, from a process with mounts of its own."""
    command = ["unshare", "--mount", sys.executable, str(KERNEL), job, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def kernel_mounts(folder: Path) -> str:
    """Why this machine cannot compare with its kernel; empty if it can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "needs Linux and root"
    try:
        kernel("probe", folder)
    except (AssertionError, OSError, ValueError, subprocess.TimeoutExpired) as error:
        return f"no overlay mounts here: {error}"
    return ""


@pytest.fixture
def room(tmp_path: Path) -> Path:
    if reason := kernel_mounts(tmp_path / "probe"):
        pytest.skip(reason)
    return tmp_path


def facts(node: Node) -> dict[str, Any]:
    """A node in the words of `kernel_overlay.py`."""
    row: dict[str, Any] = {
        "kind": str(node.kind),
        "mode": node.mode,
        "owner": [node.uid, node.gid],
        "mtime": node.mtime_ns,
        "target": node.target,
        "rdev": node.rdev,
        "xattrs": {name: value.hex() for name, value in sorted(node.xattrs.items())},
    }
    if node.kind is NodeKind.FILE:
        row |= {"size": node.size, "nlink": node.nlink, "content": base64.b64encode(node.read()).decode()}
    return row


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("options", "marks"),
    [
        ("redirect_dir=off,metacopy=off,index=off", Marks.TRUSTED),
        ("redirect_dir=on,metacopy=on,index=off", Marks.TRUSTED),
        ("userxattr", Marks.USER),
    ],
)
def test_random_work_on_a_mounted_overlay(room: Path, options: str, marks: Marks, seed: int) -> None:
    expected = kernel("work", room, options, str(seed))
    problems = ProblemLog(strict=True)
    whole = DirectoryTree(room, problems)
    layers: list[tuple[Tree, str]] = [(whole, f"/{name}") for name in ("upper2", "upper1", "lower")]
    view = OverlayTree(layers, problems=problems, origin=Origin("container"), marks=marks)
    assert {node.path: facts(node) for node in view.walk()} == expected
    assert OverlayTree(layers, problems=problems, origin=Origin("container")).marks is marks


@pytest.mark.parametrize("seed", range(8))
def test_random_layers_mounted(room: Path, seed: int) -> None:
    expected = kernel("layers", room, "redirect_dir=on,metacopy=on,index=off", str(seed))
    problems = ProblemLog()
    whole = DirectoryTree(room, problems)
    layers: list[tuple[Tree, str]] = [(whole, f"/layer{index}") for index in range(4)]
    view = OverlayTree(layers, problems=problems, origin=Origin("container"))
    found = {}
    for node in view.walk():
        try:
            found[node.path] = facts(node)
        except DamagedData:  # no content below: the kernel refuses the file, or leaves it out
            assert expected.get(node.path, {"error": EIO})["error"] == EIO
    refused = tuple(path for path, row in expected.items() if "error" in row)  # stale redirects and whiteouts, mostly
    below = tuple(f"{path}/" for path in refused)
    assert {path: row for path, row in found.items() if path not in refused and not path.startswith(below)} == {
        path: row for path, row in expected.items() if path not in refused
    }
    for path in refused:
        assert expected[path]["error"] != EIO or found.get(path, {"kind": "dir"})["kind"] == "dir", "of what is in it"
        assert expected[path]["error"] != os.strerror(errno.ENOENT) or path not in view, "a whiteout"


# Real stores


@pytest.mark.skipif(not all(path.is_dir() for path in evidence.NEEDED), reason=evidence.REASON)
def test_containers_are_what_their_engines_exported() -> None:
    compared = 0
    for case in evidence.cases():
        if not case.export.exists():
            continue
        said = {evidence.path_of(row): evidence.exported(row) for row in evidence.rows(case.export)}
        nodes = {node.path: node for node in case.after.walk() if node.path != "/"}
        assert nodes.keys() == said.keys() - {"/"}, case.name
        for path, node in nodes.items():
            assert evidence.shown(node, said[path]) == said[path], f"{case.name} {path}"
        compared += len(nodes)
    assert compared > 3500
