"""A tree with changes laid over it answers as one that holds them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from hypothesis import given
from hypothesis import strategies as st

from forensics_lib.errors import DamagedData
from forensics_lib.formats.btrfs_node import BTree, Item, Key
from forensics_lib.formats.btrfs_overlay import OverlaidTree
from forensics_lib.model import Origin
from forensics_lib.sources.base import BytesSource

DEVICE = BytesSource(b"", Origin("device"))
KEYS = st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 5)).map(lambda parts: Key(*parts))
ITEMS = st.dictionaries(KEYS, st.binary(max_size=3), max_size=20)


class Written(BTree):
    """A tree of items in memory."""

    def __init__(self, items: dict[Key, bytes]) -> None:
        self.rows = items

    def get(self, objectid: int, kind: int, offset: int) -> Item | None:
        key = Key(objectid, kind, offset)
        return Item(key, self.rows[key], DEVICE, 0) if key in self.rows else None

    def items(self, low: Key, high: Key, on_damage: Callable[[DamagedData], None] | None = None) -> Iterator[Item]:
        for key in sorted(self.rows):
            if low <= key <= high:
                yield Item(key, self.rows[key], DEVICE, 0)


@given(ITEMS, st.dictionaries(KEYS, st.none() | st.binary(max_size=3), max_size=20), KEYS, KEYS)
def test_changes_are_seen_and_nothing_else_changes(
    written: dict[Key, bytes], changes: dict[Key, bytes | None], one: Key, other: Key
) -> None:
    tree, wanted = OverlaidTree(Written(written)), dict(written)
    for key, data in changes.items():
        if data is None:
            tree.remove(key)
            wanted.pop(key, None)
        else:
            tree.put(Item(key, data, DEVICE, 1))
            wanted[key] = data
    low, high = min(one, other), max(one, other)
    found = [(item.key, item.data) for item in tree.items(low, high)]
    assert found == sorted((key, data) for key, data in wanted.items() if low <= key <= high)
    for key in {*written, *changes}:
        item = tree.get(*key)
        assert (item.data if item is not None else None) == wanted.get(key)
