"""A directory of a tree as a tree of its own: a volume, a snapshot, the upper directory of a container."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from forensics_lib.errors import PathNotFound
from forensics_lib.model import Origin
from forensics_lib.trees.base import Node, NodeKind, Tree, join, moved

__all__ = ["Subtree"]


class Subtree(Tree):
    """One directory of another tree, with paths that start at it; or one file, which is then the whole tree.

    Symbolic links are followed inside the directory only: an absolute target starts at it, ".." stops there.

    Args:
        tree: the whole tree.
        path: the directory; links that lead to it are followed inside the whole tree.
        origin: where the directory comes from; by default what the tree says of it.
        or_file: whether it may be something else than a directory.

    Attributes:
        tree: the whole tree.
        path: where the directory really lies in it, no link left.

    Raises:
        PathNotFound: there is no such directory.
        LimitExceeded: a loop of symbolic links.
    """

    def __init__(self, tree: Tree, path: str, origin: Origin | None = None, *, or_file: bool = False) -> None:
        """Find the directory; nothing below it is read yet."""
        root = tree.resolve(path)
        if root.kind is not NodeKind.DIR and not or_file:
            raise PathNotFound(f"{path} is no directory")
        self.tree = tree
        self.path = root.path
        self.origin = origin or root.origin

    def _lookup(self, path: str) -> Node | None:
        node = self.tree.find(self._outside(path))
        return None if node is None else moved(node, path)

    def _names(self, path: str) -> Iterable[str]:
        return self.tree.names(self._outside(path))

    def _children(self, path: str) -> Iterator[Node]:
        for node in self.tree.entries(self._outside(path)):
            yield moved(node, join(path, node.name))

    def _outside(self, path: str) -> str:
        if self.path == "/":
            return path
        return self.path if path == "/" else self.path + path
