"""Deleted files of ext4: what the kernel deleted comes back, and nothing that it overwrote is called whole."""

from __future__ import annotations

import json
import struct
from contextlib import suppress
from functools import cache
from itertools import islice

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from forensics_lib._crc32c import crc32c
from forensics_lib.errors import DamagedData, ForensicsError
from forensics_lib.formats.ext4_dir import dir_entries, is_dir_block
from forensics_lib.formats.ext4_groups import BlockGroups
from forensics_lib.formats.ext4_inode import decode_inode
from forensics_lib.formats.ext4_map import Run, runs
from forensics_lib.formats.jbd2_history import JournalHistory
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.recovery.ext4 import undelete
from forensics_lib.recovery.ext4_free import free_ranges, without
from forensics_lib.recovery.ext4_lives import Lives
from forensics_lib.recovery.ext4_names import Names
from forensics_lib.recovery.remnant import Confidence, Remnant
from forensics_lib.sources.base import BytesSource, ExtentSource
from forensics_lib.trees.ext import ExtTree
from tests.diskmaker import DISKS, stored

CONTAINER = "4b" * 32
Row = dict[str, str | int]
TRUTH: dict[str, list[Row]] = json.loads((DISKS / "ext4-deleted.json").read_text())


@cache
def disk() -> bytes:
    return stored("ext4-deleted.img")


def tree_of(data: bytes) -> ExtTree:
    return ExtTree(BytesSource(data, Origin("disk")), ProblemLog())


@cache
def remnants() -> tuple[Remnant, ...]:
    return tuple(undelete(tree_of(disk()), ProblemLog()))


@pytest.mark.parametrize("row", TRUTH["whole"], ids=lambda row: row["path"][-30:])
def test_deleted_and_replaced_content_is_whole(row: Row) -> None:
    found = [one for one in remnants() if one.path == row["path"] and one.sha256 == row["sha256"]]
    assert [(one.complete, one.confidence, one.size) for one in found] == [(True, Confidence.INTACT, row["size"])]


def test_overwritten_content_is_not_whole_though_its_blocks_are_free() -> None:
    (row,) = TRUTH["gone"]
    (found,) = [one for one in remnants() if one.path == row["path"]]
    assert not found.complete
    assert found.confidence is Confidence.METADATA_ONLY
    assert found.size == row["size"]
    assert found.sha256 != row["sha256"]
    assert "blocks" in found.detail


def test_whole_content_is_never_wrong() -> None:
    known = {row["sha256"] for rows in TRUTH.values() for row in rows if "sha256" in row}
    wrong = [one.path for one in remnants() if one.complete and one.size and one.sha256 not in known]
    assert set(wrong) <= {"/usurper"}  # what overwrote the other


def test_long_links_have_their_target_from_the_journal() -> None:
    (row,) = TRUTH["links"]
    (found,) = [one for one in remnants() if one.path == row["path"]]
    assert found.read().decode() == row["target"]
    assert (found.size, found.complete, found.confidence) == (0, True, Confidence.VERIFIED)


def test_open_files_are_whole() -> None:
    (row,) = TRUTH["open"]
    (found,) = [one for one in remnants() if one.path == row["path"]]
    assert (found.complete, found.sha256) == (True, row["sha256"])
    assert "open" in found.detail


def test_a_container_is_known_by_its_paths() -> None:
    mine = [one for one in remnants() if one.container_id == CONTAINER]
    assert sorted(one.kind for one in mine if one.complete) == ["config", "config", "config", "log"]
    assert [one.detail for one in mine if one.path == f"/containers/{CONTAINER}"] == ["directory"]


def test_generations_end_in_their_order() -> None:
    path = f"/containers/{CONTAINER}/config.v2.json"
    ends = {one.size: one.deleted_ns or 0 for one in remnants() if one.path == path}
    created, running, exited = (int(row["size"]) for row in TRUTH["whole"] if row["path"] == path)
    assert 0 < ends[created] < ends[running] < ends[exited]


def test_the_origin_leads_to_the_copy_of_the_inode() -> None:
    tree = tree_of(disk())
    (one,) = [one for one in remnants() if one.path.endswith("drop.bin")]
    inode, transaction = one.origin, one.origin.parent
    assert transaction is not None
    assert transaction.label.startswith("journal transaction ")
    journal = tree.geometry.inode(tree.geometry.journal_inode)
    log = tree.content(journal.number, journal.size, tree.origin)
    copy = decode_inode(int(inode.label.removeprefix("inode ")), log.read_at(inode.offset or 0, 256), 0)
    assert copy.size == one.size == 5000


def test_the_first_come_early_and_progress_is_told() -> None:
    told: list[tuple[int, int]] = []
    found = list(islice(undelete(tree_of(disk()), ProblemLog(), lambda done, total: told.append((done, total))), 1))
    assert len(found) == 1
    assert told[-1][0] == told[-1][1]


def test_without_a_journal_metadata_is_left() -> None:
    data = bytearray(disk())
    data[1024 + 224 : 1024 + 228] = bytes(4)
    data[1024 + 96] &= ~4  # needs no recovery
    found = list(undelete(tree_of(bytes(data)), ProblemLog()))
    assert found
    assert not any(one.complete and one.kind == "log" for one in found)


def test_a_journal_that_is_none_is_a_problem() -> None:
    tree = tree_of(disk())
    data = bytearray(disk())
    journal = tree.geometry.inode(tree.geometry.journal_inode)
    start = tree.geometry.runs(journal)[0].block
    data[start * 1024 : start * 1024 + 4] = b"none"
    data[1024 + 96] &= ~4
    problems = ProblemLog()
    list(undelete(tree_of(bytes(data)), problems))
    assert "superblock" in problems.rows[0].message


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.integers(0, 1 << 19), st.integers(1, 255)), min_size=1, max_size=200), st.booleans())
@example([(43, 18)], True)  # the journal says that it has no checksums
def test_damage_is_survived(flips: list[tuple[int, int]], in_journal: bool) -> None:
    tree = tree_of(disk())
    journal = tree.geometry.inode(tree.geometry.journal_inode)
    start = tree.geometry.runs(journal)[0].block
    data = bytearray(disk())
    base = start * 1024 if in_journal else 2048
    for place, value in flips:
        data[base + place] ^= value
    known = {row["sha256"] for rows in TRUTH.values() for row in rows if "sha256" in row}
    try:
        found = list(undelete(tree_of(bytes(data)), ProblemLog()))
        if in_journal:
            assert all(one.sha256 in known or one.path == "/usurper" for one in found if one.complete and one.size)
    except ForensicsError:
        pass


# --- the parts ----------------------------------------------------------------------------------------------------


def test_inodes_are_decoded_as_the_reader_of_the_file_system_does() -> None:
    geometry = tree_of(disk()).geometry
    source = BytesSource(disk(), Origin("disk"))
    for number in range(1, 60):
        inode = geometry.inode(number)
        assert decode_inode(number, source.read_at(inode.offset, geometry.inode_size), inode.offset) == inode


def test_free_blocks_are_those_of_the_bitmaps() -> None:
    tree = tree_of(disk())
    groups = BlockGroups(BytesSource(disk(), Origin("disk")))
    mine = {at for start, count in groups.free_parts(0, groups.block_count) for at in range(start, start + count)}
    ranges = free_ranges(tree, ProblemLog())
    assert mine == {at for start, size in ranges for at in range(start // 1024, (start + size) // 1024)}
    assert list(groups.free_parts(groups.block_count, 5)) == []


def test_nothing_with_a_block_that_is_used_again_is_complete() -> None:
    free = {
        at
        for start, size in free_ranges(tree_of(disk()), ProblemLog())
        for at in range(start // 1024, (start + size) // 1024)
    }
    checked = 0
    for one in remnants():
        if isinstance(one.content, ExtentSource):
            blocks = {at // 1024 for _, start, size in one.content.extents for at in range(start, start + size, 1024)}
            if one.complete and "still open" not in one.detail:
                assert blocks <= free, one.path
                checked += 1
    assert checked > 5


def test_what_only_fast_commits_know() -> None:
    problems = ProblemLog()
    tree = ExtTree(BytesSource(stored("ext4-fast-commit.img"), Origin("disk")), problems)
    found = {one.path: one for one in undelete(tree, problems)}
    secret = found["/dir/secret"]
    assert (secret.read(), secret.complete) == (b"secret content\n" * 300, True)
    assert found.keys() == {"/dir/secret"}  # the others are there again since the fast commits were replayed
    assert tree.read("/dir/config.json") == b'{"a":1}'
    assert tree.node("/dir/two").size == 5000


def test_what_fast_commits_hold_is_not_free() -> None:
    tree = ExtTree(BytesSource(stored("ext4-fast-commit.img"), Origin("disk")), ProblemLog())
    held = {block for start, count in tree.held for block in range(start, start + count)}
    free = {
        block
        for start, size in free_ranges(tree, ProblemLog())
        for block in range(start // 1024, (start + size) // 1024)
    }
    assert len(held) >= 5
    assert not held & free
    assert held & {
        at for start, count in BlockGroups(tree.source).free_parts(0, 1 << 20) for at in range(start, start + count)
    }


def test_ranges_are_taken_away() -> None:
    parts, held = [(0, 10), (20, 5), (30, 10), (50, 2)], [(3, 2), (5, 1), (18, 3), (24, 10), (60, 5)]
    left = {at for start, count in without(parts, held) for at in range(start, start + count)}
    assert left == {0, 1, 2, *range(6, 10), 21, 22, 23, *range(34, 40), 50, 51}


UUID = bytes(range(16))


def log_of(blocks: dict[int, bytes], *, incompat: int = 0x12, length: int = 16, first: int = 1) -> BytesSource:
    """A journal of blocks of 1 KiB: by default with 64-bit numbers and checksums of version 3."""
    head = struct.pack(">IIIIIIIII", 0xC03B3998, 4, 0, 1024, length, first, 1, 0, 0) + struct.pack(
        ">III", 0, incompat, 0
    )
    blocks = {0: head + UUID, **blocks}
    return BytesSource(b"".join(blocks.get(at, b"").ljust(1024, b"\0") for at in range(length)), Origin("log"))


def descriptor(sequence: int, blocks: list[tuple[int, bytes]], *, flags: int = 0) -> bytes:
    """A descriptor with tags of version 3."""
    data = struct.pack(">III", 0xC03B3998, 1, sequence)
    for index, (number, content) in enumerate(blocks):
        crc = crc32c(UUID + struct.pack(">I", sequence) + content.ljust(1024, b"\0")) ^ 0xFFFFFFFF
        last = 8 if index == len(blocks) - 1 else 0
        data += struct.pack(">IIII", number & 0xFFFFFFFF, last | flags | (2 if index else 0), number >> 32, crc)
        data += b"" if index else UUID
    data = data.ljust(1020, b"\0")
    return data + struct.pack(">I", crc32c(UUID + data + bytes(4)) ^ 0xFFFFFFFF)


def commit(sequence: int, seconds: int) -> bytes:
    return struct.pack(">III", 0xC03B3998, 2, sequence).ljust(48, b"\0") + struct.pack(">QI", seconds, 7)


def test_copies_are_found_across_the_end_of_the_log() -> None:
    history = JournalHistory(
        log_of({14: descriptor(7, [(5, b"a"), (1 << 33, b"b")]), 15: b"a", 1: b"b", 2: commit(7, 1000)})
    )
    assert [(copy.block, copy.at, copy.sequence) for copy in history.copies] == [(5, 15, 7), (1 << 33, 1, 7)]
    assert history.committed_ns == {7: 1000 * 10**9 + 7}
    assert [(history.content(copy) or b"")[:1] for copy in history.copies] == [b"a", b"b"]


def test_versions_are_chosen_by_time() -> None:
    blocks = {1: descriptor(3, [(5, b"old")]), 2: b"old", 4: descriptor(9, [(5, b"new")]), 5: b"new"}
    history = JournalHistory(log_of(blocks))
    texts = [(history.as_of(5, sequence) or b"").rstrip(b"\0") for sequence in (1, 3, 8, 9, 50)]
    assert texts == [b"old", b"old", b"old", b"new", b"new"]
    assert history.as_of(6, 9) is None
    assert list(history.written_after(0, 10, 3)) == [5]
    assert list(history.written_after(0, 10, 9)) == []
    assert history.between(5, 4, 8) is None


def test_copies_that_do_not_fit_their_checksum_are_left_out() -> None:
    history = JournalHistory(log_of({1: descriptor(3, [(5, b"was"), (6, b"is")]), 2: b"overwritten", 3: b"is"}))
    assert [history.content(copy) is not None for copy in history.copies] == [False, True]
    broken = bytearray(descriptor(3, [(5, b"x")]))
    broken[20] ^= 1
    assert JournalHistory(log_of({1: bytes(broken), 2: b"x"})).copies == []


def test_escaped_blocks_get_their_magic_back() -> None:
    content = b"\0\0\0\0rest"
    (copy,) = (history := JournalHistory(log_of({1: descriptor(3, [(5, content)], flags=1), 2: content}))).copies
    assert (history.content(copy) or b"")[:8] == b"\xc0\x3b\x39\x98rest"


def test_without_checksums_the_later_transaction_has_the_block() -> None:
    def plain(sequence: int, numbers: list[int]) -> bytes:
        data = struct.pack(">III", 0xC03B3998, 1, sequence)
        for index, number in enumerate(numbers):
            data += struct.pack(">II", number, 2 | (8 if index == len(numbers) - 1 else 0))
        return data

    history = JournalHistory(log_of({1: plain(3, [50, 51, 52]), 2: b"a", 3: plain(9, [60]), 4: b"b"}, incompat=0))
    assert [(copy.block, copy.at) for copy in history.copies] == [(50, 2), (60, 4)]


@given(st.binary(max_size=6000), st.sampled_from([0, 0x2, 0x8, 0xA, 0x12, 0x32]))
def test_any_log_is_survived(data: bytes, incompat: int) -> None:
    blocks = {1 + at // 1024: data[at : at + 1024] for at in range(0, len(data), 1024)}
    blocks[7] = struct.pack(">III", 0xC03B3998, 1, 1) + data[:1000]
    history = JournalHistory(log_of(blocks, incompat=incompat))
    for copy in history.copies:
        history.content(copy)


@given(st.binary(max_size=1024))
def test_any_superblock_of_a_journal_is_survived(data: bytes) -> None:
    with suppress(DamagedData):
        JournalHistory(BytesSource(struct.pack(">II", 0xC03B3998, 4) + data, Origin("log")))


def entry(inode: int, name: bytes, length: int, kind: int = 1) -> bytes:
    return (struct.pack("<IHBB", inode, length, len(name), kind) + name).ljust(length, b"\0")


def test_deleted_names_are_found_in_the_gaps() -> None:
    gone = entry(12, b"gone", 12)
    data = entry(2, b".", 12, 2) + entry(2, b"..", 12, 2) + (entry(11, b"kept", 12) + gone).ljust(1000, b"\0")
    data = data[:24] + struct.pack("<IH", 11, 1000) + data[30:]
    assert is_dir_block(data, 100)
    found = [(one.inode, one.name, one.deleted) for one in dir_entries(data, 100)]
    assert found == [(2, b".", False), (2, b"..", False), (11, b"kept", False), (12, b"gone", True)]


@given(st.binary(max_size=1024))
def test_any_block_is_survived_as_directory(data: bytes) -> None:
    is_dir_block(data, 1000)
    assert all(len(one.name) <= 255 for one in dir_entries(data, 1000))


def inode_with(block: bytes, *, extents: bool, size: int = 1 << 40) -> bytes:
    data = bytearray(256)
    struct.pack_into("<H", data, 0, 0x8180)
    struct.pack_into("<I", data, 4, size & 0xFFFFFFFF)
    struct.pack_into("<I", data, 108, size >> 32)
    struct.pack_into("<I", data, 32, 0x80000 if extents else 0)
    data[40:100] = block.ljust(60, b"\0")[:60]
    return bytes(data)


def test_extent_trees_and_block_numbers_become_runs() -> None:
    leaf = struct.pack("<HHHHI", 0xF30A, 2, 4, 0, 0) + struct.pack("<IHHI", 0, 2, 0, 100)
    leaf += struct.pack("<IHHI", 5, 0x8003, 1, 7)
    inode = decode_inode(12, inode_with(leaf, extents=True), 0)
    expected = (Run(0, 100, 2), Run(5, 1 << 32 | 7, 3, written=False))
    assert runs(inode, lambda _: b"", 1024, 1 << 40) == expected
    index = struct.pack("<HHHHI", 0xF30A, 1, 4, 1, 0) + struct.pack("<IIHH", 0, 55, 0, 0)
    deep = decode_inode(12, inode_with(index, extents=True), 0)
    assert runs(deep, {55: leaf}.__getitem__, 1024, 1 << 40) == expected
    numbers = struct.pack("<15I", *range(20, 32), 40, 0, 0)
    table = struct.pack("<256I", 32, 33, *[0] * 254)
    old = decode_inode(12, inode_with(numbers, extents=False, size=14 * 1024), 0)
    assert runs(old, {40: table}.__getitem__, 1024, 1000) == (Run(0, 20, 14),)


@settings(deadline=None)
@given(st.binary(max_size=60), st.binary(max_size=1024), st.booleans())
def test_any_map_is_survived(block: bytes, node: bytes, extents: bool) -> None:
    try:
        inode = decode_inode(12, inode_with(block, extents=extents), 0)
        found = runs(inode, lambda _: node.ljust(1024, b"\0"), 1024, 1000)
    except DamagedData:
        return
    assert all(0 < run.block <= 1000 - run.count for run in found)


def test_a_freed_directory_is_known_whatever_its_padding_holds() -> None:
    tree = tree_of(disk())
    groups = BlockGroups(tree.source)
    size, data, patched = groups.block_size, bytearray(disk()), 0
    for offset, length in free_ranges(tree, ProblemLog()):
        for at in range(offset, offset + length, size):
            number, head = int.from_bytes(data[at : at + 4], "little"), data[at + 4 : at + 10]
            if head != b"\x0c\x00\x01\x02.\0" or not is_dir_block(bytes(data[at : at + size]), 1 << 20):
                continue
            generation = tree.geometry.inode(number).generation
            seed = crc32c(struct.pack("<II", number, generation), groups.seed)
            data[at + 10 : at + 12] = b"xy"
            data[at + size - 4 : at + size] = struct.pack(
                "<I", crc32c(bytes(data[at : at + size - 12]), seed) ^ 0xFFFFFFFF
            )
            patched += 1
    assert patched
    known = left_over(disk())
    assert any(known)
    assert left_over(bytes(data)) == known


def left_over(data: bytes) -> list[str]:
    """The names that are known without the journal."""
    tree, history = tree_of(data), JournalHistory(None)
    groups = BlockGroups(tree.source)
    lives = Lives(tree.source, history, groups, ProblemLog())
    names = Names(tree.source, tree.geometry, history, groups, lives)
    names.read_remains(free_ranges(tree, ProblemLog()))
    return sorted(name.path for life in lives for name in names.of(life))
