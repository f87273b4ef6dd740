"""Free space of an ext file system by its bitmaps."""

from __future__ import annotations

import shutil
import struct
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import forensics_lib as fl
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.recovery.ext4_free import _clear_bits, free_ranges
from forensics_lib.sources.base import BytesSource
from forensics_lib.trees.ext import ExtTree
from tests.diskmaker import stored
from tests.samples import FIXTURES

ORIGIN = Origin("disk")


@given(st.binary(max_size=64) | st.lists(st.sampled_from([b"\0", b"\xff", b"\x0f"]), max_size=40).map(b"".join))
def test_runs_of_clear_bits(bitmap: bytes) -> None:
    clear = {first + step for first, length in _clear_bits(bitmap) for step in range(length)}
    assert clear == {bit for bit in range(8 * len(bitmap)) if not bitmap[bit // 8] >> bit % 8 & 1}
    runs = list(_clear_bits(bitmap))
    assert all(first + length < following for (first, length), (following, _) in pairwise(runs))


def free_blocks(tree: ExtTree) -> tuple[int, int]:
    """Free blocks by the bitmaps, and as the superblock of a clean file system counts them."""
    superblock = tree.source.read_at(1024, 1024)
    (counted,) = struct.unpack_from("<I", superblock, 12)
    found = sum(length for _, length in free_ranges(tree, ProblemLog())) // tree.geometry.block_size
    return found, counted


def test_groups_that_were_never_written_hold_copies_of_the_superblock() -> None:
    with fl.open(FIXTURES / "docker-disk.raw.zst") as evidence:
        tree = evidence.filesystems[0].tree
        assert isinstance(tree, ExtTree)
        found, counted = free_blocks(tree)
        assert found == counted


def test_a_superblock_that_counts_more_blocks_than_there_are() -> None:
    data = stored("ext2.img")
    whole = ExtTree(BytesSource(data, ORIGIN), ProblemLog())
    damaged = bytearray(data)
    struct.pack_into("<I", damaged, 1024 + 4, 0xFFFFFFF0)
    tree = ExtTree(BytesSource(bytes(damaged), ORIGIN), ProblemLog())
    assert tree.geometry.block_count == 0xFFFFFFF0
    problems = ProblemLog()
    assert list(free_ranges(tree, problems)) == list(free_ranges(whole, ProblemLog()))
    assert not problems.rows


@pytest.mark.skipif(not shutil.which("mkfs.ext4"), reason="needs e2fsprogs")
@pytest.mark.parametrize(
    "options",
    [
        "-b 4096",
        "-b 1024 -O ^flex_bg",
        "-b 4096 -O sparse_super2",
        "-b 4096 -O bigalloc",
        "-b 1024 -O ^sparse_super,^resize_inode",
    ],
)
def test_free_space_of_an_empty_file_system(tmp_path: Path, options: str) -> None:
    image = tmp_path / "disk.img"
    with image.open("wb") as file:
        file.truncate(300 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", *options.split(), image], check=True, capture_output=True)
    with fl.open(image) as evidence:
        tree = evidence.filesystems[0].tree
        assert isinstance(tree, ExtTree)
        found, counted = free_blocks(tree)
        assert found == counted
        assert list(evidence.remnants()) == []
        assert [problem.message for problem in evidence.problems] == [
            "there are only zeros: never written, wiped or discarded"
        ]
