"""Missing pieces of RAID 5 and 6 come back from the others."""

from __future__ import annotations

import itertools
import random

import pytest

from forensics_lib.errors import DamagedData
from forensics_lib.formats.btrfs_chunks import Chunk, ChunkMap, Stripe
from forensics_lib.formats.btrfs_parity import rebuilt
from forensics_lib.model import Origin
from forensics_lib.sources.base import BytesSource

SIZE, STRIPE = 64, 4096


def doubled(value: int) -> int:
    return value << 1 ^ (0x11D if value & 0x80 else 0)


def parities(data: list[bytes]) -> list[bytes]:
    """P and Q, byte by byte and by Horner's rule."""
    first, second = bytearray(len(data[0])), bytearray(len(data[0]))
    for at in range(len(data[0])):
        for piece in reversed(data):
            first[at] ^= piece[at]
            second[at] = doubled(second[at]) ^ piece[at]
    return [bytes(first), bytes(second)]


@pytest.mark.parametrize("count", [1, 2, 3, 6])
@pytest.mark.parametrize("level", [1, 2])
def test_whatever_is_missing(count: int, level: int) -> None:
    data = [random.Random(index).randbytes(SIZE) for index in range(count)]
    whole: list[bytes | None] = [*data, *parities(data)[:level]]
    for lost in itertools.combinations(range(count + level), 3):
        for some in range(1, 4):
            gone = set(lost[:some])
            left = [None if index in gone else piece for index, piece in enumerate(whole)]
            for wanted in gone & set(range(count)):
                found = rebuilt(left[:count], left[count:], wanted)
                assert found == (data[wanted] if len(gone) <= level else None)


@pytest.mark.parametrize(("kind", "level"), [(0x80, 1), (0x100, 2)])
def test_a_chunk_is_read_without_some_of_its_devices(kind: int, level: int) -> None:
    devices, rows = 4, 5
    count = devices - level
    disks = [bytearray(rows * STRIPE) for _ in range(devices)]
    content = b""
    for row in range(rows):
        data = [random.Random(row * 10 + column).randbytes(STRIPE) for column in range(count)]
        content += b"".join(data)
        for column, piece in enumerate([*data, *parities(data)[:level]]):
            disks[(row + column) % devices][row * STRIPE : (row + 1) * STRIPE] = piece
    stripes = tuple(Stripe(number + 1, 0, bytes(16)) for number in range(devices))
    chunk = Chunk(1 << 20, len(content), kind, STRIPE, stripes, 1)
    for lost in itertools.combinations(range(devices), level):
        there = {i + 1: BytesSource(bytes(disk), Origin("disk")) for i, disk in enumerate(disks) if i not in lost}
        chunks = ChunkMap(there, Origin("disks"))
        chunks.add(chunk)
        assert chunks.read(1 << 20, len(content)) == content
        assert chunks.read((1 << 20) + 4000, 9000) == content[4000:13000]
    all_ = {i + 1: BytesSource(bytes(disk), Origin("disk")) for i, disk in enumerate(disks)}
    chunks = ChunkMap({number: all_[number] for number in range(1, devices - level)}, Origin("disks"))
    chunks.add(chunk)
    with pytest.raises(DamagedData, match="is missing"):
        chunks.read(1 << 20, len(content))
    old = BytesSource(bytes(rows * STRIPE), Origin("old"))
    chunks = ChunkMap({**all_, 2: old}, Origin("disks"), stale={2})
    chunks.add(chunk)
    assert chunks.read(1 << 20, len(content)) == content
    wrong = ChunkMap({**all_, 1: old}, Origin("disks"))
    wrong.add(chunk)
    assert wrong.read_copy(1 << 20, STRIPE, 0) == bytes(STRIPE)
    assert wrong.read_copy(1 << 20, STRIPE, 1) == content[:STRIPE]
