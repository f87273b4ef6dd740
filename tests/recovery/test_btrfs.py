"""Deleted files of btrfs: what the kernel deleted comes back, and nothing that it overwrote is called whole."""

from __future__ import annotations

import json
from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forensics_lib.errors import ForensicsError
from forensics_lib.formats.btrfs_checksum import CHECKSUMS
from forensics_lib.formats.btrfs_chunks import Piece
from forensics_lib.formats.btrfs_content import BtrfsContent
from forensics_lib.formats.btrfs_history import LOG_TREE, NOW, NodeHistory
from forensics_lib.formats.btrfs_items import ExtentKind
from forensics_lib.formats.btrfs_space import BtrfsSpace
from forensics_lib.model import ProblemLog
from forensics_lib.recovery.assemble import deleted_containers
from forensics_lib.recovery.btrfs import undelete
from forensics_lib.recovery.btrfs_free import free_spaces
from forensics_lib.recovery.btrfs_lives import Lives
from forensics_lib.recovery.btrfs_owners import extents_of
from forensics_lib.recovery.btrfs_subvolumes import OldSubvolumes
from forensics_lib.recovery.remnant import Confidence, Remnant
from forensics_lib.sources.base import Source
from forensics_lib.trees.btrfs import BtrfsTree
from tests.trees.btrfs_disks import DEVICES, DISKS, SparseDisk

CONTAINER, LAYER, BASE = "4b" * 32, "9c" * 32, "ba" * 32
Row = dict[str, str | int]
TRUTH: dict[str, list[Row]] = json.loads((DISKS / "btrfs-deleted.json").read_text())
KNOWN = {row["sha256"] for rows in TRUTH.values() for row in rows if "sha256" in row}
NODE = 4096


@cache
def disk() -> SparseDisk:
    return SparseDisk("btrfs-deleted")


def found_on(source: Source, problems: ProblemLog | None = None) -> list[Remnant]:
    log = problems or ProblemLog()
    tree = BtrfsTree(source, log)
    return list(undelete(tree, BtrfsSpace(tree.volume, log), log))


@cache
def remnants() -> tuple[Remnant, ...]:
    return tuple(found_on(disk()))


@cache
def history() -> NodeHistory:
    tree = BtrfsTree(disk(), ProblemLog())
    return NodeHistory(tree.volume, BtrfsSpace(tree.volume, ProblemLog()).without_files(), ProblemLog())


def at(path: str | int) -> list[Remnant]:
    return [one for one in remnants() if one.path == path]


@pytest.mark.parametrize("row", TRUTH["whole"], ids=lambda row: row["path"][-30:])
def test_deleted_and_replaced_content_is_whole_and_proven(row: Row) -> None:
    found = [one for one in at(row["path"]) if one.sha256 == row["sha256"]]
    sure = Confidence.INTACT if "no-checksums" in str(row["path"]) else Confidence.VERIFIED
    assert [(one.complete, one.confidence, one.size) for one in found] == [(True, sure, row["size"])]


@pytest.mark.parametrize("row", TRUTH["gone"], ids=lambda row: row["path"][-30:])
def test_overwritten_content_is_not_whole_though_its_space_is_free(row: Row) -> None:
    (found,) = at(row["path"])
    assert (found.complete, found.confidence, found.size) == (False, Confidence.METADATA_ONLY, row["size"])
    assert "overwritten" in found.detail


def test_whole_content_is_never_wrong() -> None:
    assert [one.path for one in remnants() if one.complete and one.size and one.sha256 not in KNOWN] == []


def test_links_have_their_target() -> None:
    (row,) = TRUTH["links"]
    (found,) = at(row["path"])
    assert (found.read().decode(), found.size, found.confidence) == (row["target"], 0, Confidence.VERIFIED)


def test_open_files_are_whole() -> None:
    (row,) = TRUTH["open"]
    (found,) = at(row["path"])
    assert (found.complete, found.sha256) == (True, row["sha256"])
    assert "open" in found.detail


def test_deleted_subvolumes_are_named_with_what_they_were_snapshots_of() -> None:
    rows = {one.path: one for one in remnants() if one.detail.startswith("subvolume ")}
    assert set(rows) == {row["path"] for row in TRUTH["subvolumes"]}
    assert rows[f"/btrfs/subvolumes/{LAYER}"].kind == "layer"
    assert rows[f"/btrfs/subvolumes/{LAYER}"].detail.endswith(f"snapshot of /btrfs/subvolumes/{LAYER}-init")
    assert rows[f"/btrfs/subvolumes/{LAYER}-init"].detail.endswith(f"snapshot of /btrfs/subvolumes/{BASE}")
    assert all(one.deleted_ns for one in rows.values())


def test_what_a_snapshot_shares_is_not_deleted_with_it() -> None:
    assert [one.path for one in remnants() if one.path.endswith(".so")] == []


def test_files_of_a_container_tell_when_they_were_deleted() -> None:
    mine = [one for one in remnants() if one.container_id == CONTAINER and one.path.endswith("-json.log")]
    assert [one.kind for one in mine] == ["log"]
    assert mine[0].deleted_ns is not None
    assert mine[0].modified_ns is not None
    assert mine[0].deleted_ns > mine[0].modified_ns


def test_a_container_of_the_btrfs_driver_is_put_together() -> None:
    one = {found.id: found for found in deleted_containers(remnants(), [], ProblemLog())}[CONTAINER]
    assert (one.id, one.name, one.inspect()["Driver"]) == (CONTAINER, "gone", "btrfs")
    assert len(list(one.logs())) == 40 * 90
    prefix = f"/btrfs/subvolumes/{LAYER}"
    mine = {str(row["path"]).removeprefix(prefix): row for row in TRUTH["whole"] if prefix in str(row["path"])}
    tree = one.tree()
    assert {path: tree.node(path).size for path in mine} == {path: row["size"] for path, row in mine.items()}
    assert set(mine) <= {change.path for change in one.diff()}


def test_the_origin_leads_to_the_inode() -> None:
    (one,) = at(f"/btrfs/subvolumes/{LAYER}/tmp/loot.bin")
    raw = disk().read_at(one.origin.offset or 0, 160)
    assert int.from_bytes(raw[16:24], "little") == one.size


def test_extent_trees_tell_where_content_lay_whose_own_block_is_gone() -> None:
    tree = BtrfsTree(disk(), ProblemLog())
    subvolumes = OldSubvolumes(tree.volume, history(), ProblemLog())
    lives = [life for life in Lives(tree.volume, history(), subvolumes, ProblemLog()) if life.states]
    owned = extents_of({(life.subvolume, life.number) for life in lives}, history(), ProblemLog())
    told = 0
    for life in lives:
        last = life.states[-1]
        plain = [one for one in last.extents if one[1].kind is ExtentKind.REGULAR and not one[1].compression]
        if len(plain) == len(last.extents) == 1 and (life.subvolume, life.number) in owned:
            position, extent = owned[life.subvolume, life.number][-1]
            assert (position, extent.logical, extent.stored) == (plain[0][0], plain[0][1].logical, plain[0][1].stored)
            told += 1
    assert told > 3


def test_progress_is_told() -> None:
    told: list[tuple[int, int]] = []
    tree = BtrfsTree(disk(), ProblemLog())
    space = BtrfsSpace(tree.volume, ProblemLog())
    list(undelete(tree, space, ProblemLog(), lambda done, total: told.append((done, total))))
    assert told[-1][0] == told[-1][1] == sum(length for *_, length in space.without_files())


def test_blocks_in_use_are_those_that_the_trees_reach() -> None:
    found = history()
    live = {node.address for node in found.nodes.values() if node.until == NOW}
    reached: set[tuple[int, int]] = set()
    waiting = list(found.live_roots.values())
    while waiting:
        address = waiting.pop()
        reached.add(address)
        waiting += found.nodes[address].children if address in found.nodes else ()
    assert live == reached
    assert any(node.owner == LOG_TREE for node in found.nodes.values())
    assert all(node.until >= node.generation for node in found.nodes.values())


def test_free_space_is_disjoint_from_what_is_in_use() -> None:
    tree = BtrfsTree(disk(), ProblemLog())
    space = BtrfsSpace(tree.volume, ProblemLog())
    (free,) = free_spaces(tree, space)
    used = [(piece.offset, piece.length) for node in tree.walk() for piece in pieces(tree, node.path)]
    ranges = list(free.ranges)
    assert ranges == sorted(ranges)
    assert used
    assert not [
        1 for start, size in used for begin, length in ranges if start < begin + length and begin < start + size
    ]


def test_packed_content_that_is_known_is_not_carved() -> None:
    problems = ProblemLog()
    tree = BtrfsTree(disk(), problems)
    space = BtrfsSpace(tree.volume, problems)

    def magics() -> int:
        (free,) = free_spaces(tree, space)
        starts = (at for start, length in free.ranges for at in range(start, start + length, NODE))
        return sum(disk().read_at(at, 4) == b"\x28\xb5\x2f\xfd" for at in starts)

    assert magics()
    list(undelete(tree, space, problems))
    assert not magics()


def pieces(tree: BtrfsTree, path: str) -> list[Piece]:
    node = tree.node(path)
    content = node.source() if node.content is not None else None
    if not isinstance(content, BtrfsContent):
        return []
    return [piece for place in content.stored() for piece in tree.volume.chunks.pieces(*place)]


@pytest.mark.parametrize("name", sorted(DEVICES))
def test_disks_of_every_profile_are_searched(name: str) -> None:
    first, *others = [SparseDisk(part) for part in DEVICES[name]]
    problems = ProblemLog()
    tree = BtrfsTree(first, problems, devices=others)
    space = BtrfsSpace(tree.volume, problems)
    found = list(undelete(tree, space, problems))
    assert any(one.complete and one.size for one in found)
    known = len(problems.rows)
    assert sum(length for one in free_spaces(tree, space) for _, length in one.ranges) > 30 << 20
    assert len(problems.rows) == known


def with_blocks(source: SparseDisk, changes: dict[int, bytes]) -> SparseDisk:
    """The same disk with other blocks, by offset; checksums of tree blocks are put right."""
    other = source.changed({})
    other.blocks_of = dict(source.blocks_of)
    for offset, data in changes.items():
        fixed = CHECKSUMS[0](data[32:]).ljust(32, b"\0") + data[32:]
        other.blocks_of[offset // NODE] = fixed
    return other


def test_a_torn_block_is_left_out() -> None:
    nodes = [node for node in history().nodes.values() if node.until < NOW and not node.level]
    source = disk().changed({node.at + 200: 1 ^ disk().read_at(node.at + 200, 1)[0] for node in nodes})
    assert {one.path for one in found_on(source)} <= {one.path for one in remnants()}


def test_blocks_that_name_each_other_as_child_end() -> None:
    old = [node for node in history().nodes.values() if node.until < NOW]
    inner = [node for node in old if node.level]
    assert inner
    changes = {}
    for node in inner:
        data = bytearray(disk().read_at(node.at, NODE))
        for slot in range(len(node.children)):
            place = 101 + slot * 33 + 17
            data[place : place + 16] = inner[slot % len(inner)].logical.to_bytes(8, "little") + inner[
                slot % len(inner)
            ].generation.to_bytes(8, "little")
        changes[node.at] = bytes(data)
    found_on(with_blocks(disk(), changes))


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_damage_behind_a_right_checksum_is_survived(data: st.DataObject) -> None:
    nodes = sorted((node for node in history().nodes.values() if node.until < NOW), key=lambda node: node.at)
    changes = {}
    for node in data.draw(st.lists(st.sampled_from(nodes), min_size=1, max_size=30)):
        block = bytearray(disk().read_at(node.at, NODE))
        for place, value in data.draw(st.lists(st.tuples(st.integers(48, NODE - 1), st.integers(0, 255)), max_size=20)):
            block[place] = value
        changes[node.at] = bytes(block)
    try:
        for one in found_on(with_blocks(disk(), changes)):
            if one.content is not None:
                one.content.read_some(0, 1 << 16)
    except ForensicsError:
        pass


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.integers(0, (32 << 20) - 1), st.integers(1, 255)), min_size=1, max_size=200))
def test_damage_anywhere_is_survived_and_proves_nothing_wrong(flips: list[tuple[int, int]]) -> None:
    changes = {place: value ^ disk().read_at(place, 1)[0] for place, value in flips}
    try:
        found = found_on(disk().changed(changes))
    except ForensicsError:
        return
    for one in found:
        if one.confidence is Confidence.VERIFIED and one.size:
            assert one.sha256 in KNOWN
