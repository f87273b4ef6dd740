"""The layers of an image that an engine unpacked into directories."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from forensics_lib.errors import ForensicsError
from forensics_lib.images.stack import FileVersion, HiddenFile
from forensics_lib.trees.archive import clean_path
from forensics_lib.trees.base import Node, NodeKind, Tree
from forensics_lib.trees.changes import diff
from forensics_lib.trees.layered import Change, ChangeKind, differences

__all__ = ["UnpackedLayer", "UnpackedStack"]


@dataclass(frozen=True, slots=True)
class UnpackedLayer:
    """One unpacked layer.

    Attributes:
        merged: gives the tree of this layer on top of those below it.
        alone: gives what this layer holds.
        size: bytes of its files as recorded; None when not recorded.
        shares: whether a file that the layer does not change is stored in a lower layer only.
    """

    merged: Callable[[], Tree]
    alone: Callable[[], Tree]
    size: int | None
    shares: bool = True


class UnpackedStack:
    """Answers from the merged trees of an engine's storage driver."""

    def __init__(self, layers: Sequence[UnpackedLayer], empty: Tree) -> None:
        """The layers, base first; `empty` is what lies below them."""
        self._layers = tuple(layers)
        self._empty = empty
        self._merged: dict[int, Tree] = {0: empty}

    def unreadable(self, index: int) -> ForensicsError | None:
        """Why one layer cannot be read; None when it can."""
        try:
            self.tree(index + 1).node("/")
        except ForensicsError as error:
            return error
        return None

    def content_size(self, index: int) -> int | None:
        """Bytes of one layer's files, as recorded when it was unpacked; None when they were not recorded."""
        return self._layers[index].size

    def alone(self, index: int) -> Tree:
        """What one layer holds, in the form of the storage driver: its whiteouts are part of it."""
        return self._layers[index].alone()

    def tree(self, count: int | None = None) -> Tree:
        """All layers merged, or the first `count`."""
        wanted = len(self._layers) if count is None else min(count, len(self._layers))
        if wanted not in self._merged:
            self._merged[wanted] = self._layers[wanted - 1].merged()
        return self._merged[wanted]

    def changes(self, index: int) -> list[Change]:
        """What one layer adds, changes and deletes."""
        return list(diff(self.tree(index), self.tree(index + 1)))

    def hidden(self) -> list[HiddenFile]:
        """Files that take up space and that no container sees."""
        final = self.tree()
        found = []
        for index, layer in enumerate(self._layers):
            if not layer.shares:
                continue
            for node in layer.alone().walk():
                if node.kind is not NodeKind.FILE or not node.size:
                    continue
                own = self.tree(index + 1).find(node.path)  # None for what is no file but a mark
                if own is not None and not _same(final.find(node.path), own):
                    by = next((at for at in range(index + 1, len(self._layers)) if self._hides(at, own)), index)
                    found.append(HiddenFile(node.path, node.size, index, by, node))
        return found

    def versions(self, path: str) -> Iterator[FileVersion]:
        """Every version of a path, base first; nothing when no layer ever held it."""
        path = clean_path(path)[0]
        before: Node | None = None
        final = self.tree().find(path)
        for index in range(len(self._layers)):
            tree = self.tree(index + 1)
            node = tree.find(path)
            if node is None and before is not None:
                yield FileVersion(index, ChangeKind.DELETED, path, None, False, "", tree.origin)
            elif node is not None and (before is None or self._differs(index, before, node)):
                kind = ChangeKind.ADDED if before is None else ChangeKind.CHANGED
                yield FileVersion(index, kind, path, node, _same(final, node), "", node.origin)
            before = node

    def _hides(self, index: int, node: Node) -> bool:
        return not _same(self.tree(index + 1).find(node.path), node)

    def _differs(self, index: int, before: Node, node: Node) -> bool:
        return not _same(before, node) if self._layers[index].shares else bool(differences(before, node, False))


def _same(one: Node | None, other: Node) -> bool:
    return one is not None and one.origin == other.origin
