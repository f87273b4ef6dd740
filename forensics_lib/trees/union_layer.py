"""One directory of a stack that is shown as one file system, and what its marks say; overlay.py reads them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import Enum

from forensics_lib.trees.base import Node, Tree

__all__ = ["GONE", "Gone", "Layer"]


class Gone(Enum):
    """What a layer holds for a name that it deletes."""

    GONE = "whiteout"


GONE = Gone.GONE


class Layer(ABC):
    """One directory of the stack, and what its marks say.

    Args:
        tree: the file system that holds the directory.
        root: the directory.
    """

    def __init__(self, tree: Tree, root: Node) -> None:
        """Nothing below the directory is read yet."""
        self.tree = tree
        self.root = root

    @abstractmethod
    def listing(self, directory: Node) -> dict[str, Node | Gone]:
        """What a directory of this layer holds and deletes, by name; bookkeeping is left out."""

    @abstractmethod
    def find(self, directory: Node, name: str) -> Node | Gone | None:
        """One entry of `listing`; None where the layer says nothing of the name."""

    @abstractmethod
    def opaque(self, directory: Node) -> bool:
        """Whether a directory hides what the layers below hold under its name."""

    def hides_all_below(self) -> bool:
        """Whether the layer as a whole hides the layers below it."""
        return False

    def redirect(self, node: Node) -> str | None:
        """Where the layers below hold what belongs to a node, if not under its own name."""
        return None

    def borrows(self, node: Node) -> bool:
        """Whether a regular file has its content in a layer below."""
        return False

    def shown(self, node: Node) -> Node:
        """A node as the mounted file system shows it: the layer's own marks applied and hidden."""
        return node

    def same(self, other: Layer) -> bool:
        """Whether another layer is the same directory, read by the same rules."""
        return self.tree is other.tree and self.root.path == other.root.path and type(self) is type(other)
