"""Owners as a user namespace shows them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forensics_lib.trees.owners import IdMap, OwnersTree
from forensics_lib.trees.subtree import Subtree
from tests.trees.layers import file, folder, link, tree

REMAPPED = IdMap(((0, 100_000, None),))


@pytest.mark.parametrize(
    ("ranges", "number", "shown"),
    [
        (REMAPPED.ranges, 100_000, 0),
        (REMAPPED.ranges, 2_600_000, 2_500_000),
        (REMAPPED.ranges, 99_999, 65534),
        (((0, 1000, 1), (1, 100_000, 65_536)), 1000, 0),
        (((0, 1000, 1), (1, 100_000, 65_536)), 100_999, 1000),
        (((0, 1000, 1), (1, 100_000, 65_536)), 165_536, 65534),
        (((0, 1000, 1), (1, 100_000, 65_536)), 0, 65534),
    ],
)
def test_a_number(ranges: tuple[tuple[int, int, int | None], ...], number: int, shown: int) -> None:
    assert IdMap(ranges).inside(number) == shown


def test_a_number_that_is_not_known_to_be_mapped_stays() -> None:
    assert IdMap(((0, 1000, 1),), other=None).inside(100_999) == 100_999


@given(st.integers(0, 1 << 32), st.integers(0, 1 << 32))
def test_no_two_mapped_numbers_become_one(one: int, two: int) -> None:
    ranges = IdMap(((0, 1000, 1), (1, 100_000, 65_536), (65_537, 300_000, None)), other=None)
    mapped = [number for number in (one, two) if number == 1000 or 100_000 <= number < 165_536 or number >= 300_000]
    assert len({ranges.inside(number) for number in mapped}) == len(set(mapped))


def test_a_tree() -> None:
    own = replace(folder(), uid=100_000, gid=100_007)
    whole = tree("host", {"/a": own, "/a/b": replace(file(b"1"), uid=101_000, gid=0), "/a/l": link("b"), "/c": b""})
    shown = OwnersTree(whole, REMAPPED, IdMap(((5, 100_005, 3),)))
    assert [(node.path, node.uid, node.gid) for node in shown.walk("/a")] == [
        ("/a", 0, 7), ("/a/b", 1000, 65534), ("/a/l", 65534, 65534),
    ]  # fmt: skip
    assert (shown.read("/a/l"), shown.origin) == (b"1", whole.origin)
    assert [node.uid for node in Subtree(shown, "/a").children("/")] == [1000, 65534]
    assert "/a/x" not in shown


@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        (b"\1\0\0\3" + bytes(16) + b"\xa0\x86\1\0", b"\1\0\0\2" + bytes(16)),
        (b"\1\0\0\2" + b"\0\x20" + bytes(14), b"\1\0\0\2" + b"\0\x20" + bytes(14)),
        (b"\3", b"\3"),
        (b"", b""),
    ],
)
def test_capabilities_are_shown_without_their_namespace(stored: bytes, shown: bytes) -> None:
    whole = tree("host", {"/ping": file(b"", {"security.capability": stored, "user.x": b"1"})})
    xattrs = OwnersTree(whole, REMAPPED, REMAPPED).node("/ping").xattrs
    assert dict(xattrs) == {"security.capability": shown, "user.x": b"1"}
