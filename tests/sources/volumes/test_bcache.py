"""bcache against the kernel, and devices with integrity against integritysetup."""

from __future__ import annotations

import contextlib
import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forensics_lib.errors import ForensicsError
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.sources.base import BytesSource
from forensics_lib.sources.volumes import VolumeKind, find_volumes, sniff_filesystem
from forensics_lib.sources.volumes.bcache import backing_device
from tests.diskmaker import DISKS, fixture, numbered, stored

BACKING = stored("bcache.img")[1 << 20 :][: 6 << 20]


def read(data: bytes) -> tuple[int, list[str]]:
    """How many bytes a backing device holds, and what is wrong with it."""
    problems = ProblemLog()
    source = backing_device(BytesSource(data, Origin("x")), problems)
    assert source.read_at(0, 100) == data[source.offset :][:100]
    return source.size, [row.message for row in problems.rows]


def test_what_lies_behind_a_cache_and_what_is_only_named() -> None:
    problems = ProblemLog()
    volumes = find_volumes(fixture("bcache.img"), problems)
    (device,) = (one for one in volumes if one.kind is VolumeKind.BCACHE)
    size = json.loads((DISKS / "arrays.json").read_text())["bcache"]["size"]
    assert (device.size, device.title) == (size, "partition 1")
    assert device.source.read_at(0, size) == numbered(size)
    assert [row.message for row in problems.rows] == [
        "this is the cache of a bcache device; only what lies behind it is read"
    ]
    kinds = [sniff_filesystem(one.source) for one in volumes if one.kind is VolumeKind.GPT]
    assert kinds == ["bcache", "bcache", "DM_integrity"]


def with_field(offset: int, value: int) -> bytes:
    data = bytearray(BACKING)
    struct.pack_into("<Q", data, 4096 + offset, value)
    return bytes(data)


def test_a_cache_with_newer_bytes() -> None:
    (flags,) = struct.unpack_from("<Q", BACKING, 4096 + 104)
    assert read(with_field(104, flags & ~(3 << 61) | 1 << 61))[1] == []
    for state, name in ((2, "dirty"), (3, "stale")):
        _, (problem,) = read(with_field(104, flags & ~(3 << 61) | state << 61))
        assert problem == f"the bcache device is {name}: its cache has newer bytes, which are not read"


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [
        (8, 9, "is damaged"),
        (16, 3, "the cache of a bcache device"),
        (184, 1 << 50, "which is impossible"),
        (184, 1, "which is impossible"),
    ],
)
def test_what_is_not_read_is_named(offset: int, value: int, message: str) -> None:
    data = with_field(offset, value) if offset != 184 else with_field(16, 4)
    if offset == 184:
        data = data[: 4096 + 184] + struct.pack("<Q", value) + data[4096 + 192 :]
    with pytest.raises(ForensicsError, match=message):
        read(data)


@given(
    st.lists(st.tuples(st.integers(4096, 4096 + 300), st.integers(1, 255)), min_size=1, max_size=5),
    st.integers(0, 9000),
)
def test_any_damage_is_named(flips: list[tuple[int, int]], end: int) -> None:
    data = bytearray(BACKING[: 1 << 16])
    for place, bits in flips:
        data[place] ^= bits
    for part in (bytes(data), bytes(data[:end])):
        with contextlib.suppress(ForensicsError):
            read(part)
