"""Free blocks and inodes of allocation groups, against what the superblock counts and what xfs_db says."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forensics_lib.errors import DamagedData
from forensics_lib.formats.xfs import XfsGeometry
from forensics_lib.formats.xfs_space import free_extents, inode_chunks
from forensics_lib.model import Origin
from forensics_lib.sources.base import BytesSource
from tests.diskmaker import stored
from tests.formats.test_xfs import BLOCK, ignore, superblock

DISKS = ["xfs", "xfs-1k", "xfs-v4", "xfs-v5"]


@cache
def disk(name: str) -> bytes:
    return stored(f"{name}.img")


def geometry_of(data: bytes) -> XfsGeometry:
    return XfsGeometry(BytesSource(data, Origin("disk")))


@pytest.mark.parametrize("name", DISKS)
def test_the_superblock_counts_as_many(name: str) -> None:
    geometry = geometry_of(disk(name))
    faults: list[str] = []
    free = list(free_extents(geometry, faults.append))
    assert geometry.free_blocks - 8 * geometry.group_count <= sum(count for _, count in free) <= geometry.free_blocks
    assert all(start + count <= after for (start, count), (after, _) in pairwise(free))
    chunks = list(inode_chunks(geometry, faults.append))
    assert sum(chunk.inodes for chunk in chunks) == geometry.inode_count
    assert faults == []
    for chunk in chunks:
        assert geometry.source.read_at(chunk.offset, 2) == b"IN"
        assert geometry.inode_offset(chunk.first) == chunk.offset


@pytest.mark.skipif(shutil.which("xfs_db") is None, reason="needs xfs_db")
def test_free_extents_are_those_that_xfs_db_lists(tmp_path: Path) -> None:
    data = disk("xfs-v5")
    (tmp_path / "disk").write_bytes(data)
    geometry = geometry_of(data)
    command = ["xfs_db", "-r", "-c", "freesp -d", str(tmp_path / "disk")]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    rows = re.findall(r"^ +(\d+) +(\d+) +(\d+)$", text, re.MULTILINE)
    told = {int(group) * geometry.group_blocks + int(block) + at for group, block, n in rows for at in range(int(n))}
    mine = {start + at for start, count in free_extents(geometry, ignore) for at in range(count)}
    assert mine == told


def group(*, root: int = 4, levels: int = 1, blocks: dict[int, bytes], inode_root: int = 5) -> XfsGeometry:
    """One group with a tree of free space, one of inodes, and an empty list of spare blocks."""
    data = bytearray(64 * BLOCK)
    data[:512] = superblock()
    struct.pack_into(">4s4xII", data, 512, b"XAGF", 0, 64)
    struct.pack_into(">I8xI", data, 512 + 16, root, levels)
    struct.pack_into(">4s4x6I", data, 1024, b"XAGI", 0, 64, 64, inode_root, 1, 0)
    data[1536:1540] = b"XAFL"
    for number, content in blocks.items():
        data[number * BLOCK : number * BLOCK + len(content)] = content
    return geometry_of(bytes(data))


def leaf(magic: bytes, *records: tuple[int, ...], level: int = 0) -> bytes:
    words = "".join(f"{len(record)}I" for record in records)
    packed = struct.pack(f">{words}", *(word for record in records for word in record))
    return struct.pack(">4sHH", magic, level, len(records)).ljust(56, b"\0") + packed


def node(magic: bytes, level: int, keys: list[int], children: list[int]) -> bytes:
    room = (BLOCK - 56) // 12
    head = struct.pack(">4sHH", magic, level, len(children)).ljust(56, b"\0")
    return (head + b"".join(struct.pack(">II", key, 0) for key in keys)).ljust(56 + 8 * room, b"\0") + struct.pack(
        f">{len(children)}I", *children
    )


def test_trees_of_several_levels() -> None:
    blocks = {
        4: node(b"AB3B", 1, [10, 30], [6, 7]),
        6: leaf(b"AB3B", (10, 3), (20, 1)),
        7: leaf(b"AB3B", (30, 30)),
    }
    found = group(blocks=blocks, levels=2)
    assert list(free_extents(found, ignore)) == [(10, 3), (20, 1), (30, 30)]


def test_what_cannot_be_read_counts_as_used() -> None:
    faults: list[str] = []
    cyclic = {4: node(b"AB3B", 1, [10, 30], [4, 7]), 7: leaf(b"AB3B", (30, 30), (50, 20), (62, 9))}
    assert list(free_extents(group(blocks=cyclic, levels=2), faults.append)) == [(30, 30)]
    assert len(faults) == 3
    assert "there twice" in faults[0]
    for root, levels in ((99, 1), (4, 0), (4, 99), (9, 1)):
        faults.clear()
        assert list(free_extents(group(root=root, levels=levels, blocks={}), faults.append)) == []
        assert len(faults) == 1


def test_sparse_chunks_have_holes() -> None:
    geometry = group(blocks={5: leaf(b"IAB3", (128, 0x00FF3020, 0, 0))})
    geometry.features = ("sparse inodes",)
    assert [(chunk.first, chunk.inodes) for chunk in inode_chunks(geometry, ignore)] == [(160, 32)]
    geometry.features = ()
    assert [(chunk.first, chunk.inodes) for chunk in inode_chunks(geometry, ignore)] == [(128, 64)]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(512, 8 * BLOCK - 1), st.integers(0, 255)), max_size=40))
def test_any_group(changes: list[tuple[int, int]]) -> None:
    blocks = {
        4: node(b"AB3B", 1, [10, 30], [6, 7]),
        5: leaf(b"IAB3", (128, 0x40, 0, 0)),
        6: leaf(b"AB3B", (10, 3), (20, 1)),
        7: leaf(b"AB3B", (30, 30)),
    }
    data = bytearray(group(blocks=blocks, levels=2).source.read_at(0, 64 * BLOCK))
    for at, value in changes:
        data[at] = value
    geometry = geometry_of(bytes(data))
    end = 0
    for start, count in free_extents(geometry, ignore):
        assert end <= start < start + count <= 64
        end = start + count
    try:
        chunks = list(inode_chunks(geometry, ignore))
    except DamagedData:
        pytest.fail("damage of one group has to be a report")
    assert all(chunk.inodes <= 64 for chunk in chunks)
