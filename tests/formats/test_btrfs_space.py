"""Space that is in use and space that is free make up all space there is."""

from __future__ import annotations

from itertools import pairwise

import pytest

from forensics_lib.formats.btrfs import BtrfsVolume
from forensics_lib.formats.btrfs_space import BtrfsSpace
from forensics_lib.model import ProblemLog
from tests.trees.btrfs_disks import DEVICES, SparseDisk


def space_of(name: str) -> tuple[BtrfsVolume, BtrfsSpace]:
    first, *others = [SparseDisk(part) for part in DEVICES[name]]
    volume = BtrfsVolume(first, ProblemLog(), others)
    return volume, BtrfsSpace(volume, ProblemLog())


@pytest.mark.parametrize("name", sorted(DEVICES))
def test_used_and_free_fill_every_chunk(name: str) -> None:
    volume, space = space_of(name)
    for chunk in volume.chunks.chunks.values():
        end = chunk.start + chunk.length
        used = [(begin, stop) for begin, stop, _ in space.used(chunk.start, end)]
        ranges = sorted([*used, *space.free(chunk.start, end)])
        assert ranges[0][0] == chunk.start
        assert ranges[-1][1] == end
        assert all(before[1] == after[0] for before, after in pairwise(ranges))


@pytest.mark.parametrize("name", sorted(DEVICES))
def test_as_much_is_used_as_the_superblock_says(name: str) -> None:
    volume, space = space_of(name)
    logged = sum({one.logical: one.stored for one in volume.logged() if one.logical}.values())
    assert sum(stop - begin for begin, stop, _ in space.used(0, 1 << 63)) == volume.superblock.bytes_used + logged


def test_what_is_left_out_is_not_free() -> None:
    volume, space = space_of("btrfs")
    chunk = next(one for one in volume.chunks.chunks.values() if list(space.free(one.start, one.start + one.length)))
    (begin, end), *_ = space.free(chunk.start, chunk.start + chunk.length)
    space.leave_out([(begin, begin + 4096)])
    found = list(space.free(chunk.start, chunk.start + chunk.length))
    assert found[0] == (begin + 4096, end) or found[0][0] >= end
    assert sum(one[1] - one[0] for one in space.free(begin, end)) == end - begin - 4096


def test_an_extent_tree_that_cannot_be_read_leaves_nothing_free() -> None:
    volume, space = space_of("btrfs")
    root = volume.root(2)
    piece = next(volume.chunks.pieces(root.logical, 1))
    other = next(volume.chunks.pieces(root.logical, 1, mirror=1))
    disk = SparseDisk("btrfs").changed({piece.offset + 100: 77, other.offset + 100: 77})
    problems = ProblemLog()
    damaged = BtrfsSpace(BtrfsVolume(disk, ProblemLog()), problems)
    assert [row.origin.label for row in problems.rows] == ["extent tree"]
    assert list(damaged.free(0, 1 << 62)) == []
    assert list(space.free(0, 1 << 62))
