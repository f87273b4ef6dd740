"""Deleted files of XFS: what the kernel deleted comes back, and nothing that it overwrote is called whole."""

from __future__ import annotations

import json
from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forensics_lib.errors import ForensicsError
from forensics_lib.formats.run import Run
from forensics_lib.formats.xfs import XfsGeometry
from forensics_lib.formats.xfs_inode import ForkFormat, InodeTable
from forensics_lib.formats.xfs_log_history import LogHistory
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.recovery.intervals import Intervals
from forensics_lib.recovery.remnant import Confidence, Remnant
from forensics_lib.recovery.xfs import undelete
from forensics_lib.recovery.xfs_past import Past
from forensics_lib.recovery.xfs_shared import SharedBlocks
from forensics_lib.sources.base import BytesSource
from forensics_lib.trees.xfs import XfsTree
from tests.diskmaker import DISKS, stored

CONTAINER = "4b" * 32
Row = dict[str, str | int]
TRUTH: dict[str, list[Row]] = json.loads((DISKS / "xfs-deleted.json").read_text())


@cache
def disk() -> bytes:
    return stored("xfs-deleted.img")


def tree_of(data: bytes) -> XfsTree:
    return XfsTree(BytesSource(data, Origin("disk")), ProblemLog())


@cache
def remnants() -> tuple[Remnant, ...]:
    return tuple(undelete(tree_of(disk()), ProblemLog()))


@cache
def later() -> bytes:
    """The disk as it is after all was written back and the log was overwritten."""
    geometry = tree_of(disk()).geometry
    data = bytearray(geometry.source.read_at(0, geometry.source.size))
    start, size = log_of(geometry)
    data[start : start + size] = bytes(size)
    return bytes(data)


def log_of(geometry: XfsGeometry) -> tuple[int, int]:
    return geometry.block_offset(geometry.log_start), geometry.log_blocks * geometry.block_size


@pytest.mark.parametrize("row", TRUTH["whole"] + TRUTH["crowd"], ids=lambda row: row["path"][-30:])
def test_deleted_and_replaced_content_is_whole(row: Row) -> None:
    found = [one for one in remnants() if one.path == row["path"] and one.sha256 == row["sha256"]]
    assert [(one.complete, one.confidence, one.size) for one in found] == [(True, Confidence.INTACT, row["size"])]


@pytest.mark.parametrize("row", TRUTH["gone"], ids=lambda row: row["path"][-30:])
def test_overwritten_content_is_not_whole(row: Row) -> None:
    assert not any(one.complete for one in remnants() if one.path == row["path"] and one.size == row["size"])


def test_whole_content_is_never_wrong() -> None:
    known = {row["sha256"] for rows in TRUTH.values() for row in rows if "sha256" in row}
    wrong = [one.path for one in remnants() if one.complete and one.size and one.sha256 not in known]
    assert {path for path in wrong if "member" not in path} <= {"/usurper"}  # what overwrote the other


@pytest.mark.parametrize("row", TRUTH["links"], ids=lambda row: row["path"][-12:])
def test_links_have_their_target_from_the_log(row: Row) -> None:
    (found,) = [one for one in remnants() if one.path == row["path"]]
    assert found.read().decode() == row["target"]
    assert (found.size, found.complete) == (0, True)


def test_open_files_are_whole() -> None:
    (row,) = TRUTH["open"]
    (found,) = [one for one in remnants() if one.path == row["path"]]
    assert (found.complete, found.sha256) == (True, row["sha256"])
    assert "open" in found.detail


def test_blocks_that_a_living_file_shares_are_still_those_of_a_deleted_copy() -> None:
    (row,) = [row for row in TRUTH["whole"] if str(row["path"]).endswith("upper/diff/database")]
    (found,) = [one for one in remnants() if one.path == row["path"]]
    assert (found.complete, found.sha256) == (True, row["sha256"])
    assert "of 49 blocks are shared with a file that still exists" in found.detail


def test_blocks_of_a_file_that_was_changed_since_are_not() -> None:
    tree = tree_of(disk())
    (node,) = [node for node in tree.walk("/overlay2/lower") if node.path.endswith("database")]
    number, changed_ns = node.inode or 0, node.ctime_ns or 0
    everything = Intervals()
    everything.add((Run(0, 0, tree.geometry.block_count),))
    shared = SharedBlocks(tree.geometry, iter([number, tree.geometry.root, 1 << 40]), everything.inside)
    (part,) = shared.parts(0, tree.geometry.block_count, changed_ns + 1)
    assert part[1] - part[0] == 49
    assert shared.parts(part[0] + 1, part[1] - 1, changed_ns + 1) == [(part[0] + 1, part[1] - 1)]
    assert shared.parts(0, tree.geometry.block_count, changed_ns) == []
    assert list(SharedBlocks(tree.geometry, iter([number]), Intervals().inside).parts(0, 1 << 40, 1 << 62)) == []


def test_a_file_in_many_pieces_is_mapped_by_a_tree_that_is_gone() -> None:
    geometry = tree_of(disk()).geometry
    table = InodeTable(geometry)
    past = Past(geometry, LogHistory(geometry, lambda _: None).transactions(), lambda _: None)
    inodes = [table.decode(number, one.data, 0, 0) for number, found in past.versions.items() for one in found]
    (row,) = [row for row in TRUTH["whole"] if str(row["path"]).endswith("app.log")]
    assert ForkFormat.BTREE in {inode.format for inode in inodes if inode.mode and inode.size == row["size"]}


def test_a_container_is_known_by_its_paths() -> None:
    mine = [one for one in remnants() if one.container_id == CONTAINER]
    assert sorted(one.kind for one in mine if one.complete and one.size) == ["config", "log"]
    assert [one.detail for one in mine if one.path == f"/containers/{CONTAINER}"] == ["directory"]


def test_generations_end_in_their_order() -> None:
    path = f"/containers/{CONTAINER}/config.v2.json"
    ends = {one.size: one.deleted_ns or 0 for one in remnants() if one.path == path}
    created, running, exited = sorted(ends, key=lambda size: size or 0)
    assert 0 < ends[created] < ends[running] < ends[exited]


def test_the_origin_leads_to_the_item_of_the_log() -> None:
    (one,) = [one for one in remnants() if one.path.endswith("app.log")]
    inode, transaction = one.origin, one.origin.parent
    assert transaction is not None
    assert transaction.label.startswith("log transaction 1:")
    item = tree_of(disk()).geometry.source.read_at(inode.offset or 0, 24)
    assert int.from_bytes(item[:2], "little") == 0x123B
    assert int.from_bytes(item[16:24], "little") == int(inode.label.removeprefix("inode "))


def test_progress_is_told() -> None:
    told: list[tuple[int, int]] = []
    list(undelete(tree_of(disk()), ProblemLog(), lambda done, total: told.append((done, total))))
    assert all(done <= total for done, total in told)
    assert told[-1][0] == told[-1][1]


def test_without_a_log_freed_inodes_have_content_and_freed_names_its_path() -> None:
    found = {one.path: one for one in undelete(tree_of(later()), ProblemLog())}
    for row in TRUTH["crowd"]:
        one = found[str(row["path"])]
        assert one.sha256 == row["sha256"]
        assert "name from remains" in one.detail
        if one.complete:  # its inode was given back with its place, so that it still has its size
            assert one.confidence is Confidence.INTACT
        else:
            assert one.confidence is Confidence.CARVED
            assert "size is not known" in one.detail
    assert {found[str(row["path"])].complete for row in TRUTH["crowd"]} == {True, False}


def test_a_log_on_another_device_is_a_problem() -> None:
    data = bytearray(later())
    data[48:56] = bytes(8)
    problems = ProblemLog()
    list(undelete(tree_of(bytes(data)), problems))
    assert any("another device" in row.message for row in problems.rows)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(1, 255)), min_size=1, max_size=200), st.booleans())
def test_damage_is_survived(flips: list[tuple[int, int]], in_log: bool) -> None:
    start, _ = log_of(tree_of(disk()).geometry)
    data = bytearray(disk())
    for place, value in flips:
        data[(start if in_log else 1024) + place] ^= value
    known = {row["sha256"] for rows in TRUTH.values() for row in rows if "sha256" in row}
    try:
        found = list(undelete(tree_of(bytes(data)), ProblemLog()))
    except ForensicsError:
        return
    if in_log:
        whole = [one for one in found if one.complete and one.size and not one.path.startswith("/usurper")]
        assert all(one.sha256 in known or "member" in one.path for one in whole)


@pytest.mark.parametrize("name", ["xfs", "xfs-crash", "xfs-1k", "xfs-v4", "xfs-v4-crash", "xfs-v5", "xfs-v5-crash"])
def test_no_disk_has_more_than_its_free_space_allows(name: str) -> None:
    tree = tree_of(stored(f"{name}.img"))
    for one in undelete(tree, ProblemLog()):
        if one.complete:
            assert one.content is not None
            assert "/" not in one.path.rpartition("/")[2]
            list(one.content.blocks())
