"""Thin volumes and snapshots: what the kernel made is in ``test_lvm``; here is what contradicts the format."""

from __future__ import annotations

import contextlib
import pickle
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forensics_lib._crc32c import crc32c
from forensics_lib.errors import DamagedData, ForensicsError, LimitExceeded, UnsupportedFormat
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.sources.base import BytesSource, Source
from forensics_lib.sources.volumes import find_volumes
from forensics_lib.sources.volumes.snapshot import SnapshotSource
from forensics_lib.sources.volumes.thin import ThinPool, ThinSource
from tests.diskmaker import fixture, numbered

BLOCK = 4096
UNIT = 512


def source(data: bytes, name: str = "x") -> BytesSource:
    return BytesSource(data, Origin(name))


def sealed(block: bytes, salt: int) -> bytes:
    return struct.pack("<I", crc32c(block[4:]) ^ 0xFFFFFFFF ^ salt) + block[4:]


def node(place: int, entries: dict[int, int], *, leaf: bool, own: int | None = None, size: int = 8) -> bytes:
    keys = struct.pack("<252Q", *[*entries, *[0] * (252 - len(entries))])
    values = struct.pack("<252Q", *[*entries.values(), *[0] * (252 - len(entries))])
    head = struct.pack("<IIQIIII", 0, 2 if leaf else 1, place if own is None else own, len(entries), 252, size, 0)
    return sealed((head + keys + values).ljust(BLOCK, b"\0"), 121107)


def superblock(*, magic: int = 27022010, version: int = 2, sectors: int = 1, root: int = 1) -> bytes:
    head = struct.pack("<IIQ16xQI12xQ256xQQII", 0, 0, 0, magic, version, 0, root, 0, sectors, 8)
    return sealed(head.ljust(BLOCK, b"\0"), 160774)


DATA = b"".join(bytes([65 + unit]) * UNIT for unit in range(20))
NODES = [
    superblock(),
    node(1, {1: 2, 7: 5}, leaf=True),  # the volumes
    node(2, {0: 3, 10: 4}, leaf=False),
    node(3, {0: 3 << 24 | 9, 1: 4 << 24, 5: 0}, leaf=True),
    node(4, {12: 19 << 24, 13: 20 << 24}, leaf=True),
    node(5, {}, leaf=True),
]


def pool(nodes: list[bytes]) -> ThinPool:
    return ThinPool(source(b"".join(nodes), "metadata"), source(DATA, "data"), Origin("pool"))


def changed(place: int, block: bytes) -> list[bytes]:
    return [*NODES[:place], block, *NODES[place + 1 :]]


def test_blocks_and_holes() -> None:
    volume = pool(NODES).volume(1, 15 * UNIT + 100, Origin("thin"))
    expected = bytearray(volume.size)
    for block, letter in {0: b"D", 1: b"E", 5: b"A", 12: b"T"}.items():
        expected[block * UNIT : (block + 1) * UNIT] = letter * UNIT
    good = 13 * UNIT
    assert volume.read_at(0, good) == bytes(expected[:good])
    for place in range(0, good, 100):
        length = min(700, good - place)
        assert volume.read_at(place, length) == bytes(expected[place : place + length])
    with pytest.raises(DamagedData, match="a block of a thin volume lies beyond the end"):
        volume.read_at(good, 1)
    assert volume.read_at(14 * UNIT, 5000) == bytes(UNIT + 100)
    assert pool(NODES).volume(7, UNIT * 4, Origin("x")).read_at(0, 1 << 20) == bytes(UNIT * 4)
    assert volume.stored_size == volume.size
    again: ThinSource = pickle.loads(pickle.dumps(volume))
    assert again.read_at(0, 2000) == bytes(expected[:2000])


def test_holes_over_another_volume() -> None:
    below = source(b"o" * (3 * UNIT + 1))
    volume = pool(NODES).volume(1, 12 * UNIT, Origin("thin"), below)
    assert volume.read_at(0, 5 * UNIT) == b"D" * UNIT + b"E" * UNIT + (b"o" * (UNIT + 1)).ljust(3 * UNIT, b"\0")


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([bytes(BLOCK), *NODES[1:]], "no superblock"),
        ([superblock()[:-1] + b"x", *NODES[1:]], "checksum of the superblock"),
        ([superblock(version=9), *NODES[1:]], "of version 9"),
        ([superblock(sectors=0), *NODES[1:]], "blocks of 0 sectors"),
        (NODES[:1], "a node of the thin pool lies beyond the end"),
        (changed(1, node(1, {2: 2}, leaf=True)), "has no volume 1"),
        (changed(1, NODES[1][:-1] + b"x"), "a node of the thin pool is damaged"),
        (changed(1, node(1, {1: 2}, leaf=True, own=2)), "a node of the thin pool is damaged"),
        (changed(1, node(1, {1: 2}, leaf=True, size=24)), "contradicts the format"),
        (changed(2, node(2, {}, leaf=False)), "is empty"),
        (changed(2, node(2, {0: 2}, leaf=False)), "too deep"),
    ],
)
def test_metadata_that_contradict_the_format(nodes: list[bytes], message: str) -> None:
    with pytest.raises((DamagedData, UnsupportedFormat, LimitExceeded), match=message):
        pool(nodes).volume(1, 15 * UNIT, Origin("thin")).read_at(0, 100)


@given(
    st.integers(0, len(NODES) - 1), st.lists(st.tuples(st.integers(4, 600), st.integers(0, 255)), max_size=4), st.data()
)
def test_any_metadata_are_read_or_refused(place: int, bits: list[tuple[int, int]], data: st.DataObject) -> None:
    block = bytearray(NODES[place])
    for at, value in bits:
        block[at] = value
    nodes = changed(place, sealed(bytes(block), 121107 if place else 160774))
    whole = (
        b"".join(nodes)[: data.draw(st.integers(0, len(nodes) * BLOCK))]
        if data.draw(st.booleans())
        else b"".join(nodes)
    )
    with contextlib.suppress(ForensicsError):
        opened = ThinPool(source(whole), source(DATA), Origin("pool"))
        volume = opened.volume(1, 1 << 40, Origin("thin"))
        for offset in (0, 12 * UNIT, (1 << 40) - 100):
            with contextlib.suppress(ForensicsError):
                volume.read_at(offset, 3000)


# --- snapshots --------------------------------------------------------------------------------------------------------

BELOW = b"".join(bytes([97 + unit]) * UNIT for unit in range(100 % 26))


def store(
    *exceptions: tuple[int, int], magic: bytes = b"SnAp", valid: int = 1, version: int = 1, sectors: int = 1
) -> bytes:
    """A store with chunks of one sector; an area has 32 exceptions."""
    data = bytearray(struct.pack("<4sIII", magic, valid, version, sectors).ljust(UNIT, b"\0"))
    data += bytes(UNIT * 80)
    for number, pair in enumerate(exceptions):
        area, index = divmod(number, 32)
        struct.pack_into("<QQ", data, (1 + area * 33) * UNIT + 16 * index, *pair)
    for chunk in range(2, 34):
        data[chunk * UNIT : (chunk + 1) * UNIT] = bytes([chunk]) * UNIT
    return bytes(data)


def snapshot(data: bytes) -> Source:
    return SnapshotSource(source(BELOW), source(data), Origin("snapshot"))


def test_chunks_that_differ() -> None:
    opened = snapshot(store((3, 2), (0, 3), (21, 4)))
    expected = bytearray(BELOW)
    for old, new in ((3, 2), (0, 3), (21, 4)):
        expected[old * UNIT : (old + 1) * UNIT] = bytes([new]) * UNIT
    assert opened.size == len(BELOW)
    assert opened.read_at(0, 1 << 20) == expected
    for place in range(0, len(BELOW), 300):
        assert opened.read_at(place, 900) == expected[place : place + 900]


def test_a_second_table() -> None:
    opened = snapshot(store(*[(1, 2)] * 32, (5, 7)))
    assert opened.read_at(5 * UNIT, 3) == b"\7\7\7"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (store(magic=b"xxxx"), "no header"),
        (store(valid=0), "its store was too small"),
        (store(version=2), "of version 2"),
        (store(sectors=0), "chunks of 0 bytes"),
        (b"SnAp", "lies beyond the end"),
        (store((1, 1 << 60)), "a chunk of the snapshot lies beyond the end"),
    ],
)
def test_stores_that_contradict_the_format(data: bytes, message: str) -> None:
    with pytest.raises((DamagedData, UnsupportedFormat), match=message):
        snapshot(data).read_at(0, 1 << 20)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 700), st.integers(0, 255)), max_size=5), st.integers(0, 1 << 15))
def test_any_store_is_read_or_refused(bits: list[tuple[int, int]], end: int) -> None:
    data = bytearray(store((3, 2), (0, 3)))
    for at, value in bits:
        data[at] = value
    for part in (bytes(data), bytes(data[:end])):
        with contextlib.suppress(ForensicsError):
            snapshot(part).read_at(0, 1 << 20)


def test_what_the_kernel_made_can_go_to_another_process() -> None:
    volumes = {one.name: one for one in find_volumes(fixture("lvm-raid.img"), ProblemLog())}
    thin = volumes["vg/thin"]
    assert pickle.loads(pickle.dumps(thin.source)).read_at(8192, 8192) == numbered(16384)[8192:]
