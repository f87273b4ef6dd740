"""A tree whose owners are those that a user namespace shows: numbers of the host, shifted back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from forensics_lib.trees.base import Node, Tree

__all__ = ["IdMap", "OwnersTree"]

_CAPABILITY = "security.capability"
_CAPABILITY_BYTES = 20


@dataclass(frozen=True, slots=True)
class IdMap:
    """Which numbers of the host stand for which inside a user namespace.

    Attributes:
        ranges: (first number inside, first number on the host, how many); None for no end.
        other: what stands for every other number, by default the kernel's ``nobody``; None keeps the host's.
    """

    ranges: tuple[tuple[int, int, int | None], ...]
    other: int | None = 65534

    def inside(self, number: int) -> int:
        """The number as the namespace shows it."""
        for start, host, count in self.ranges:
            if number >= host and (count is None or number < host + count):
                return start + number - host
        return number if self.other is None else self.other


class OwnersTree(Tree):
    """A tree with other owners, the rest being the same.

    File capabilities that belong to the root of a namespace (revision 3) are shown as Docker exports them: as revision
    2, since that root's number means nothing elsewhere.
    """

    def __init__(self, tree: Tree, users: IdMap, groups: IdMap) -> None:
        """Show `tree`; nothing is read yet."""
        self.tree = tree
        self.origin = tree.origin
        self._users = users
        self._groups = groups

    def _lookup(self, path: str) -> Node | None:
        node = self.tree.find(path)
        return None if node is None else self._shown(node)

    def _names(self, path: str) -> Iterable[str]:
        return self.tree.names(path)

    def _children(self, path: str) -> Iterator[Node]:
        return map(self._shown, self.tree.entries(path))

    def _shown(self, node: Node) -> Node:
        capability = node.xattrs.get(_CAPABILITY)
        xattrs = node.xattrs
        if capability is not None and capability[3:4] == b"\3":
            value = capability[:3] + b"\2" + capability[4:_CAPABILITY_BYTES]
            xattrs = {**node.xattrs, _CAPABILITY: value}
        return replace(node, uid=self._users.inside(node.uid), gid=self._groups.inside(node.gid), xattrs=xattrs)
