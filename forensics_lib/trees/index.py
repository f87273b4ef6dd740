"""A tree held in memory by path: what archives, layers and merged layers build."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace

from forensics_lib.errors import LimitExceeded
from forensics_lib.model import Origin
from forensics_lib.trees.base import Node, NodeKind, Tree, join, parent_of

__all__ = ["IndexTree", "implied_directory"]

_MAX_DEPTH = 2048  # as deep as a path of Linux (4,096 bytes) can be
_MAX_PATH = 64 << 10
_MAX_IMPLIED = 256 << 20


class IndexTree(Tree):
    """Nodes by path. It always has a root; parents that no entry describes are directories of root with mode 0755.

    Attributes:
        linked: whether names that share a file were placed.
    """

    def __init__(self, origin: Origin) -> None:
        """Start with an empty root."""
        self.origin = origin
        self._nodes: dict[str, Node] = {"/": implied_directory("/", origin)}
        self._children_of: dict[str, dict[str, None]] = {"/": {}}
        self._implied = 0
        self.linked = False

    def __len__(self) -> int:
        """Number of nodes, the root included."""
        return len(self._nodes)

    def _lookup(self, path: str) -> Node | None:
        return self._nodes.get(path)

    def _names(self, path: str) -> Iterable[str]:
        return self._children_of.get(path, ())

    def copy(self) -> IndexTree:
        """An independent tree of the same nodes."""
        other = IndexTree(self.origin)
        other._nodes = dict(self._nodes)
        other.linked = self.linked
        other._children_of = {path: dict(names) for path, names in self._children_of.items()}
        return other

    def put(self, node: Node, implied: list[str] | None = None) -> list[Node]:
        """Place a node; the nodes it displaces are returned.

        A directory over a directory keeps what is below it; anything else takes the place of the whole subtree. A
        parent that is missing is implied, a parent that is no directory gives way to an implied one.

        Args:
            node: what to place.
            implied: gets the paths of the parents that are implied.

        Raises:
            LimitExceeded: the path is longer or deeper than any file system allows, or paths of that kind would fill
                the memory with implied parents.
        """
        path = node.path
        parent, _, name = path.rpartition("/")
        siblings = self._children_of.get(parent or "/")
        if siblings is not None and path not in self._nodes and len(path) <= _MAX_PATH:
            siblings[name] = None
            self._nodes[path] = node
            if node.kind is NodeKind.DIR:
                self._children_of[path] = {}
            return []
        if len(path) > _MAX_PATH or path.count("/") > _MAX_DEPTH:
            message = f"path of {len(path)} characters and {path.count('/')} levels: {path[:100]}…"
            raise LimitExceeded(message, origin=node.origin)
        old = self._nodes.get(path)
        displaced: list[Node] = []
        if old is None:
            displaced = self._make_parents(path, node.origin, [] if implied is None else implied)
            self._children_of[parent_of(path)][path.rpartition("/")[2]] = None
        elif old.kind is NodeKind.DIR and node.kind is not NodeKind.DIR:
            displaced = self.remove(path)
            self._children_of[parent_of(path)][path.rpartition("/")[2]] = None
        else:
            displaced = [old]
        self._nodes[path] = node
        if node.kind is NodeKind.DIR:
            self._children_of.setdefault(path, {})
        return displaced

    def remove(self, path: str) -> list[Node]:
        """Take a path and everything below it away; what was there is returned, parents first."""
        node = self._nodes.get(path)
        if node is None or path == "/":
            return []
        del self._children_of[parent_of(path)][path.rpartition("/")[2]]
        removed = []
        stack = [path]
        while stack:
            current = stack.pop()
            removed.append(self._nodes.pop(current))
            stack.extend(join(current, name) for name in self._children_of.pop(current, ()))
        return removed

    def remove_children(self, path: str) -> list[Node]:
        """Empty a directory; what was below it is returned."""
        return [node for name in list(self._children_of.get(path, ())) for node in self.remove(join(path, name))]

    def has_directory(self, path: str) -> bool:
        """Whether exactly this path is a directory."""
        return path in self._children_of

    def count_links(self) -> None:
        """Set `nlink` of names that share one file."""
        if not self.linked:
            return
        names = Counter(_file_of(node) for node in self.files() if node.inode)
        for node in list(self.files()):
            count = names[_file_of(node)] if node.inode else 1
            if count != node.nlink:
                self._nodes[node.path] = replace(node, nlink=count)

    def files(self) -> Iterator[Node]:
        """Every node but directories, in no order."""
        return (node for node in self._nodes.values() if node.kind is not NodeKind.DIR)

    def _make_parents(self, path: str, origin: Origin, implied: list[str]) -> list[Node]:
        displaced: list[Node] = []
        missing = []
        parent = parent_of(path)
        while not self.has_directory(parent):
            self._implied += len(parent)
            if self._implied > _MAX_IMPLIED:
                raise LimitExceeded(f"too many directories that no member names, at {path[:100]}", origin=origin)
            missing.append(parent)
            parent = parent_of(parent)
        implied += missing
        for directory in reversed(missing):
            displaced += self.remove(directory)
            self._nodes[directory] = implied_directory(directory, origin)
            self._children_of[directory] = {}
            self._children_of[parent_of(directory)][directory.rpartition("/")[2]] = None
        return displaced


def _file_of(node: Node) -> tuple[int, int]:
    """What names of one file share and others do not, also where numbers of several archives meet."""
    return id(node.content or node.origin.parent), node.inode


def implied_directory(path: str, origin: Origin) -> Node:
    """The directory that extracting tools make where an archive names none."""
    return Node(path, NodeKind.DIR, 0o755, 0, 0, 0, None, origin)
