"""Snapshots as directories, merged: each kind of snapshotter."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from forensics_lib.engines.containerd.snapshotter import Snapshotter
from forensics_lib.engines.containerd.usage import Blocks, fitting_blocks
from forensics_lib.errors import PathNotFound, UnsupportedFormat
from forensics_lib.model import ProblemLog
from forensics_lib.trees.base import Tree
from forensics_lib.trees.documents import DocumentReader
from tests.engines.docker.dataroot import bolt
from tests.trees.layers import Entry, file, folder, shown, tree, whiteout

CTR = "/var/lib/containerd"
BASE, TOP = "moby/1/sha256:aa", "moby/2/web"


def record(number: int, kind: int, parent: str = "", size: int = 0) -> dict[str, bytes]:
    made = {"id": bytes([number]), "kind": bytes([kind])}
    if parent:
        made["parent"] = parent.encode()
    if size:
        made |= {"size": varint(2 * size), "inodes": b"\6"}
    return made


def varint(value: int) -> bytes:
    data = b""
    while value > 0x7F:
        data += bytes([value & 0x7F | 0x80])
        value >>= 7
    return data + bytes([value])


def snapshotter(
    name: str, files: Mapping[str, Entry | bytes], records: Mapping[str, dict[str, bytes]], problems: ProblemLog
) -> Snapshotter:
    home = f"{CTR}/io.containerd.snapshotter.v1.{name}"
    entries = {f"{home}/{path}": made for path, made in files.items()}
    entries[f"{home}/metadata.db"] = bolt({"v1": {"snapshots": records}})
    return Snapshotter(name, DocumentReader(tree("host", entries), problems), CTR)


CHAIN = {BASE: record(1, 3), TOP: record(2, 2, BASE)}
OVERLAY: dict[str, Entry | bytes] = {
    "snapshots/1/fs/a": b"a", "snapshots/1/fs/b": b"b", "snapshots/2/fs/c": b"c", "snapshots/2/fs/b": whiteout(),
    "snapshots/2/work": folder(),
}  # fmt: skip


def test_an_overlay_is_merged_by_its_records() -> None:
    one = snapshotter("overlayfs", OVERLAY, CHAIN, ProblemLog(strict=True))
    assert shown(one.tree("2")) == {"/a": b"a", "/c": b"c"}
    assert "/b" in one.alone("2")
    assert [found.name for found in one.chain(one.by_id["2"])] == [TOP, BASE]
    assert (list(one.directories()), one.exists("2"), one.exists("3"), one.shares) == (["1", "2"], True, False, True)


def test_a_native_snapshot_is_a_whole_copy() -> None:
    files = {"snapshots/1/a": b"a", "snapshots/2/a": b"a", "snapshots/2/c": b"c"}
    one = snapshotter("native", files, CHAIN, ProblemLog(strict=True))
    assert (shown(one.tree("2")), one.shares) == ({"/a": b"a", "/c": b"c"}, False)


def test_btrfs_has_a_folder_for_each_kind() -> None:
    files = {"snapshots/1/a": b"a", "active/2/c": b"c"}
    one = snapshotter("btrfs", files, CHAIN, ProblemLog(strict=True))
    assert (shown(one.tree("1")), shown(one.tree("2"))) == ({"/a": b"a"}, {"/c": b"c"})
    assert sorted(one.directories()) == ["1", "2"]


@pytest.mark.parametrize("name", ["devmapper", "erofs", "stargz", "zfs", "unknown"])
def test_others_keep_files_elsewhere(name: str) -> None:
    one = snapshotter(name, {}, CHAIN, ProblemLog(strict=True))
    with pytest.raises(UnsupportedFormat, match=f"snapshotter {name} keeps the files of snapshot 2 in"):
        one.tree("2")


@pytest.mark.parametrize("directory", ["", ".", "..", "../1", "7"])
def test_what_is_no_directory(directory: str) -> None:
    one = snapshotter("overlayfs", OVERLAY, CHAIN, ProblemLog(strict=True))
    with pytest.raises(PathNotFound):
        one.tree(directory)
    assert not one.exists(directory)


def test_a_missing_directory_below_is_a_problem_and_the_rest_is_merged() -> None:
    problems = ProblemLog()
    one = snapshotter("overlayfs", {"snapshots/2/fs/c": b"c"}, CHAIN, problems)
    assert shown(one.tree("2")) == {"/c": b"c"}
    assert not one.is_whole(one.by_id["2"])
    assert [row.message for row in problems.rows] == [
        f"snapshot 2: the directory 1 of {BASE} below it is missing; the rest is merged"
    ]


def test_something_else_can_take_the_place_of_what_is_missing() -> None:
    problems = ProblemLog()
    one = snapshotter("overlayfs", {"snapshots/2/fs/c": b"c"}, CHAIN, problems)
    one.substitute = lambda snapshot: tree("archive", {"/a": b"a"}) if snapshot.name == BASE else None
    assert shown(one.tree("2")) == {"/a": b"a", "/c": b"c"}


@pytest.mark.parametrize(
    ("records", "why"),
    [({TOP: record(2, 2, BASE)}, "has no record"), ({TOP: record(2, 2, TOP)}, "leads in a circle")],
)
def test_chains_end_where_they_are_broken(records: dict[str, dict[str, bytes]], why: str) -> None:
    problems = ProblemLog()
    one = snapshotter("overlayfs", OVERLAY, records, problems)
    assert shown(one.tree("2")) == {"/c": b"c"}
    assert [why in row.message for row in problems.rows] == [True]


def test_without_its_database() -> None:
    problems = ProblemLog()
    reader = DocumentReader(
        tree("host", {f"{CTR}/io.containerd.snapshotter.v1.overlayfs/snapshots/1/fs/a": b""}), problems
    )
    assert Snapshotter("overlayfs", reader, CTR).snapshots == {}
    assert [row.message.startswith("metadata.db is missing") for row in problems.rows] == [True]
    assert Snapshotter("native", reader, CTR).snapshots == {}  # nothing was there either


# Sizes ---------------------------------------------------------------------------------------------------------------


def test_blocks_of_ext() -> None:
    files = tree("files", {"/a": b"x", "/d/e": bytes(1025), "/long": file(xattrs={"user.a": bytes(100)})})
    assert Blocks(1024, directories=True).usage(files) == 1024 * (1 + 1 + 1 + 2 + 1)
    assert Blocks(4096, directories=False).usage(files) == 4096 * 2


def test_a_file_with_several_names_counts_once() -> None:
    one = file(b"x", inode=7, nlink=2)
    assert Blocks(1024, directories=True).usage(tree("files", {"/a": one, "/b": one})) == 2048


def test_rules_are_those_that_fit_what_is_recorded() -> None:
    def files(count: int) -> Callable[[], Tree]:
        return lambda: tree("files", {f"/{number}": b"x" for number in range(count)})

    known = [(1024 * (count + 1), count + 1, files(count)) for count in range(5)]
    assert fitting_blocks(known) == Blocks(1024, directories=True)
    assert fitting_blocks([(4096 * count, count + 1, files(count)) for count in range(1, 5)]) == Blocks(
        4096, directories=False
    )
    assert fitting_blocks([(size + 1, count, files) for size, count, files in known]) is None
    assert fitting_blocks([]) is None


def test_usage_is_recorded_or_counted() -> None:
    records = {BASE: record(1, 3, size=3072), TOP: record(2, 2, BASE)}
    one = snapshotter("overlayfs", OVERLAY, records, ProblemLog(strict=True))
    assert (one.usage("1"), one.usage_below("2")) == (3072, 3072)
    assert (one.blocks, one.usage("2")) == (Blocks(1024, directories=True), 2048)


def test_usage_below_is_not_known_where_a_record_is_missing() -> None:
    one = snapshotter("overlayfs", OVERLAY, {TOP: record(2, 2, BASE)}, ProblemLog())
    assert (one.usage_below("2"), one.usage("2"), one.usage_below("9")) == (None, None, None)
