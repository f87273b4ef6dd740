"""Names that XFS took out of directories."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forensics_lib.errors import DamagedData
from forensics_lib.formats.xfs_dir_remains import Name, dir_block, names_in_block, names_in_inode, names_left_in_inode
from tests.formats.test_xfs import geometry

UUID = b"identifier of it"


def entry(at: int, inode: int, name: bytes, kind: int = 1) -> bytes:
    size = len(name) + 19 & ~7
    body = struct.pack(">QB", inode, len(name)) + name + bytes([kind])
    return body.ljust(size - 2, b"\0") + struct.pack(">H", at)


def block(*entries: tuple[int, bytes], owner: int = 130, lsn: int = 7) -> bytearray:
    data = bytearray(struct.pack(">4sIQQ16sQ", b"XDD3", 0, 0, lsn, UUID, owner).ljust(64, b"\0"))
    for inode, name in entries:
        data += entry(len(data), inode, name)
    return data.ljust(4096, b"\0")


def free(data: bytearray, at: int, size: int, start: int | None = None) -> None:
    """What the kernel writes when it frees an entry; `start` is an unused part in front of it that grows."""
    start = at if start is None else start
    struct.pack_into(">HH", data, start, 0xFFFF, at + size - start)
    struct.pack_into(">H", data, at + size - 2, start)


def found(data: bytearray, start: int = 64) -> list[Name]:
    return list(names_in_block(bytes(data), start, len(data), has_ftype=True))


def test_names_that_were_taken_out_stay() -> None:
    data = block((1 << 33 | 5, b"kept"), (1 << 33 | 6, b"gone"), (1 << 33 | 7, b"gone too"), (1 << 33 | 8, b"last"))
    free(data, 80, 16)
    assert found(data) == [
        Name(b"kept", 1 << 33 | 5, 1, deleted=False),
        Name(b"gone", 6, 1, deleted=True),
        Name(b"gone too", 1 << 33 | 7, 1, deleted=False),
        Name(b"last", 1 << 33 | 8, 1, deleted=False),
    ]
    free(data, 96, 24, 80)  # the part in front of it grows, and nothing but the end of this one is overwritten
    assert found(data)[1:3] == [Name(b"gone", 6, 1, deleted=True), Name(b"gone too", 1 << 33 | 7, 1, deleted=True)]


def test_a_part_of_a_block_is_enough() -> None:
    data = block((5, b"one"), (6, b"two"))
    data[:64] = bytes(64)
    assert [name.name for name in found(data, 80)] == [b"two"]


def test_headers_tell_the_owner() -> None:
    header = dir_block(geometry(), bytes(block(owner=131, lsn=9)))
    assert header is not None
    assert (header.owner, header.lsn) == (131, 9)
    assert dir_block(geometry(), b"XDD3" + bytes(4092)) is None  # of another file system
    assert dir_block(geometry(version=4), bytes(block())) is None
    old = b"XD2B".ljust(16, b"\0") + struct.pack(">QB", 77, 1) + b"."
    header = dir_block(geometry(version=4), old.ljust(4096, b"\0"))
    assert header is not None
    assert header.owner == 77


def short(parent: int, *entries: tuple[int, bytes]) -> bytes:
    data = struct.pack(">BBI", len(entries), 0, parent)
    for inode, name in entries:
        data += struct.pack(">BH", len(name), 0x60) + name + b"\1" + struct.pack(">I", inode)
    return data


def test_names_in_an_inode() -> None:
    parent, names = names_in_inode(short(128, (5, b"one"), (6, b"two")).ljust(300, b"\0"), has_ftype=True)
    assert parent == 128
    assert names == [Name(b"one", 5, 1, deleted=False), Name(b"two", 6, 1, deleted=False)]
    wide = struct.pack(">BBQ", 1, 1, 1 << 40) + struct.pack(">BH", 1, 0) + b"x" + struct.pack(">Q", 1 << 41)
    assert names_in_inode(wide, has_ftype=False) == (1 << 40, [Name(b"x", 1 << 41, 0, deleted=False)])
    with pytest.raises(DamagedData):
        names_in_inode(short(128, (5, b"one"))[:-1], has_ftype=True)


def test_names_behind_those_that_are_left() -> None:
    before = short(128, (5, b"first name"), (6, b"second"), (7, b"third"))
    after = short(128, (6, b"second"), (7, b"third"))
    data = (after + before[len(after) :]).ljust(300, b"\0")
    left = names_left_in_inode(data, {5, 6, 7}.__contains__, has_ftype=True)
    assert [(name.name, name.inode, name.deleted) for name in left] == [(b"third", 7, True)]
    emptied = (short(128) + before[6:]).ljust(300, b"\0")
    left = names_left_in_inode(emptied, {5, 6, 7}.__contains__, has_ftype=True)
    assert [name.name for name in left] == [b"first name", b"second", b"third"]
    assert names_left_in_inode(emptied, {6}.__contains__, has_ftype=True) == [Name(b"second", 6, 1, deleted=True)]


@given(st.binary(max_size=600), st.integers(0, 80), st.booleans())
def test_any_block(data: bytes, start: int, has_ftype: bool) -> None:
    dir_block(geometry(), data)
    for name in names_in_block(data, start * 8, len(data), has_ftype=has_ftype):
        assert name.is_possible


@given(st.binary(max_size=400), st.booleans())
def test_any_inode(data: bytes, has_ftype: bool) -> None:
    assert all(name.is_possible for name in names_left_in_inode(data, lambda _: True, has_ftype=has_ftype))
    try:
        names_in_inode(data, has_ftype=has_ftype)
    except DamagedData:
        return
