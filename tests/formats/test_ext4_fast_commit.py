"""Fast commits of ext4, as the kernel wrote them."""

from __future__ import annotations

import struct
from functools import cache

from hypothesis import given, settings
from hypothesis import strategies as st

from forensics_lib._crc32c import crc32c
from forensics_lib.formats.ext4_fast_commit import (
    FastInode,
    FastName,
    FastRange,
    Pending,
    pending_commits,
    read_fast_commits,
)
from forensics_lib.formats.ext4_inode import decode_inode
from forensics_lib.formats.jbd2_history import JournalHistory
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.sources.base import BytesSource
from forensics_lib.trees.ext import ExtTree
from tests.diskmaker import stored

SIZE = 1024


@cache
def area() -> bytes:
    """The area of a journal that was copied right after the commits."""
    source = BytesSource(stored("ext4-fast-commit.img"), Origin("disk"))
    tree = ExtTree(source, ProblemLog())
    number = tree.geometry.journal_inode
    log = tree.content(number, tree.geometry.inode(number).size, Origin("journal"))
    history = JournalHistory(log)
    assert history.fast_size == len(history.fast_area())
    return history.fast_area()


def test_names_that_were_made_and_removed() -> None:
    found = [one for one in read_fast_commits(area(), SIZE) if isinstance(one, FastName)]
    assert [(one.name, one.removed) for one in found] == [
        (b"secret", False),
        (b".tmp-config.json5", False),
        (b"config.json", False),
        (b".tmp-config.json5", True),
        (b"one", False),
        (b"secret", True),
        (b"two", False),
    ]
    assert len({one.parent for one in found}) == 1
    assert found[0].inode == found[5].inode
    assert found[0].data
    assert not found[5].data or found[5].data != found[0].data


def test_copies_of_inodes() -> None:
    found = [one for one in read_fast_commits(area(), SIZE) if isinstance(one, FastInode)]
    sizes = {decode_inode(one.number, one.data.ljust(256, b"\0"), 0).size for one in found}
    assert sizes == {4500, 7, 1, 5000}
    for one in found:
        assert area()[one.at : one.at + len(one.data)] == one.data


def tag(kind: int, value: bytes) -> bytes:
    return struct.pack("<HH", kind, len(value)) + value


def commit(parts: list[bytes], sequence: int = 7, size: int = SIZE) -> bytes:
    """A fast commit: its records, a tail and what fills up its block."""
    body = b"".join(parts)
    body += struct.pack("<HHI", 8, -(len(body) + 4) % size, sequence)
    return (body + struct.pack("<I", crc32c(body, 0xFFFFFFFF) ^ 0xFFFFFFFF)).ljust(-(-len(body) // size) * size, b"\0")


HEAD = tag(9, struct.pack("<II", 0, 7))
NAME = tag(4, struct.pack("<II", 2, 12) + b"name")


def test_what_mounting_takes() -> None:
    added = tag(1, struct.pack("<IIHHI", 12, 5, 0x8003, 1, 99))
    removed = tag(2, struct.pack("<III", 12, 1, 4))
    found = pending_commits(commit([HEAD, NAME, added]) + commit([removed]) + bytes(SIZE), SIZE, 256, 7)
    assert found == Pending(
        [
            [FastName(2, 12, b"name", False, 7), FastRange(12, 5, 3, 1 << 32 | 99, False)],
            [FastRange(12, 1, 4, 0, True)],
        ],
        "",
    )


def test_what_mounting_does_not_take() -> None:
    first, second = commit([HEAD, NAME]), commit([tag(5, struct.pack("<II", 2, 12) + b"name")])
    torn = bytearray(first + second)
    torn[20] ^= 1
    assert pending_commits(bytes(torn), SIZE, 256, 7) == Pending([], "it is torn or its checksum is wrong")
    torn = bytearray(first + second)
    torn[SIZE + 13] ^= 1
    found = pending_commits(bytes(torn), SIZE, 256, 7)
    assert (len(found.commits), found.fault) == (1, "it is torn or its checksum is wrong")
    assert pending_commits(first + second, SIZE, 256, 8) == Pending([], "")  # of an older transaction
    found = pending_commits(first + commit([NAME], 6), SIZE, 256, 7)
    assert (len(found.commits), found.fault) == (1, "")
    assert pending_commits(second, SIZE, 256, 7) == Pending([], "")  # does not begin with a head
    odd = commit([tag(9, struct.pack("<II", 1, 7)), NAME])
    assert pending_commits(odd, SIZE, 256, 7) == Pending([], "it has features that are not known")
    long = commit([HEAD, tag(4, struct.pack("<II", 2, 12) + b"n" * 256)])
    assert pending_commits(long, SIZE, 256, 7) == Pending([], "its records contradict themselves")
    assert pending_commits(b"", SIZE, 256, 7) == Pending([], "")


def test_a_commit_of_several_blocks() -> None:
    """Older kernels leave a byte at the end of a block, in which no record has room."""
    body = HEAD + NAME
    filled = body + tag(7, bytes(SIZE - len(body) - 5)) + b"\xff"
    checksum = crc32c(filled[:-1], 0xFFFFFFFF)
    tail = NAME + struct.pack("<HHI", 8, SIZE - len(NAME) - 4, 7)
    tail += struct.pack("<I", crc32c(tail, checksum) ^ 0xFFFFFFFF)
    found = pending_commits(filled + tail.ljust(SIZE, b"\0"), SIZE, 256, 7)
    [records] = found.commits
    assert [one.name for one in records if isinstance(one, FastName)] == [b"name"] * 2


@given(st.binary(max_size=3000), st.sampled_from([b"", HEAD, HEAD + NAME, commit([HEAD, NAME])]))
def test_any_bytes_are_not_taken(data: bytes, start: bytes) -> None:
    assert pending_commits(start + data, SIZE, 256, 7).commits == (
        [[FastName(2, 12, b"name", False, 7)]] if len(start) == SIZE else []
    )


@settings(deadline=None)
@given(st.data())
def test_torn_commits_give_nothing(data: st.DataObject) -> None:
    whole = list(read_fast_commits(area(), SIZE))
    torn = bytearray(area())
    end = data.draw(st.integers(1, 4)) * SIZE
    place = data.draw(st.integers(0, end - 1))
    torn[place] ^= 1 << data.draw(st.integers(0, 7))
    found = list(read_fast_commits(bytes(torn[: data.draw(st.integers(0, len(torn)))]), SIZE))
    assert [one for one in found if one not in whole] == []


@given(st.binary(max_size=3000))
def test_any_bytes(data: bytes) -> None:
    assert list(read_fast_commits(data, SIZE)) == []
