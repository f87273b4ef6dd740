"""Fast commits of ext4, as the kernel wrote them."""

from __future__ import annotations

from functools import cache

from hypothesis import given, settings
from hypothesis import strategies as st

from forensics_lib.formats.ext4_fast_commit import FastInode, FastName, read_fast_commits
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
