"""A btrfs tree with other items laid over it, in memory."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterator

from forensics_lib.errors import DamagedData
from forensics_lib.formats.btrfs_node import BTree, Item, Key

__all__ = ["OverlaidTree"]


class OverlaidTree(BTree):
    """A tree whose items were changed since its blocks were written.

    Args:
        written: the tree as its blocks have it.

    Attributes:
        changes: the items that differ, by key; None for one that is gone.
    """

    def __init__(self, written: BTree) -> None:
        """Begin without changes."""
        self._written = written
        self.changes: dict[Key, Item | None] = {}
        self._keys: list[Key] = []

    def put(self, item: Item) -> None:
        """Lay an item over the tree."""
        self._change(item.key, item)

    def remove(self, key: Key) -> None:
        """Take an item away."""
        self._change(key, None)

    def get(self, objectid: int, kind: int, offset: int) -> Item | None:
        """The item of a key.

        Raises:
            DamagedData: a block on the way to it cannot be read.
        """
        key = Key(objectid, kind, offset)
        return self.changes[key] if key in self.changes else self._written.get(objectid, kind, offset)

    def items(self, low: Key, high: Key, on_damage: Callable[[DamagedData], None] | None = None) -> Iterator[Item]:
        """The items of a range of keys, both ends included, in order; as they are when this is asked for.

        Raises:
            DamagedData: a block cannot be read, and there is no `on_damage`.
        """
        waiting = self._keys[bisect_left(self._keys, low) : bisect_right(self._keys, high)]
        changed = [(key, self.changes[key]) for key in waiting]
        position = 0
        for item in self._written.items(low, high, on_damage):
            while position < len(changed) and changed[position][0] < item.key:
                if (own := changed[position][1]) is not None:
                    yield own
                position += 1
            if position == len(changed) or changed[position][0] != item.key:
                yield item
        for _, own in changed[position:]:
            if own is not None:
                yield own

    def _change(self, key: Key, item: Item | None) -> None:
        if key not in self.changes:
            insort(self._keys, key)
        self.changes[key] = item
