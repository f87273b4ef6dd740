"""How many bytes of a disk a directory takes up, in the evidence's copy of it.

containerd counts the blocks of every file and directory (continuity ``fs/du_unix.go``). A copy does not have them, so
they are worked out from the sizes by the rules of the file system that the recorded sizes of snapshots fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from forensics_lib.errors import ForensicsError
from forensics_lib.sources.base import ExtentSource
from forensics_lib.trees.base import Node, NodeKind, Tree, byte_order, parent_of

__all__ = ["Blocks", "fitting_blocks"]

_SIZES = (1024, 2048, 4096, 8192, 16384, 65536)
_SHORT_LINK = 60
_IN_INODE = 92  # bytes for attributes in ext's inodes of 256 bytes
_DOTS, _TAIL = 24, 12  # bytes of the names . and .., and of the checksum of a directory's block
_MAX_INODES = 20_000
_MAX_SNAPSHOTS = 64
_ENOUGH = 0.8


@dataclass(frozen=True, slots=True)
class Blocks:
    """Rules of a file system.

    Attributes:
        size: bytes of a block.
        directories: whether even a small directory takes up a block (ext), or none (XFS).
    """

    size: int
    directories: bool

    def usage(self, tree: Tree) -> int:
        """Bytes of everything in a tree, its root counted too, a file with several names once.

        Raises:
            ForensicsError: a directory or the map of a sparse file cannot be read.
        """
        total, seen = 0, set[int]()
        entries: dict[str, int] = {}
        for node in tree.walk():
            entries[parent_of(node.path)] = entries.get(parent_of(node.path), _DOTS) + _entry(node.name)
            if node.nlink > 1 and node.inode and node.kind is not NodeKind.DIR:
                if node.inode in seen:
                    continue
                seen.add(node.inode)
            total += self._of(node)
        if self.directories:
            large = [size for size in entries.values() if size > self.size - _TAIL]
            total += sum(max(2, self._whole(size) // self.size) * self.size for size in large)  # leaves of a tree
        return total

    def _of(self, node: Node) -> int:
        attributes = self.size if self.directories and _attributes(node) > _IN_INODE else 0
        return attributes + self._content(node)

    def _content(self, node: Node) -> int:
        if node.kind is NodeKind.DIR:
            return self.size if self.directories else 0
        if node.kind is NodeKind.SYMLINK:
            return self._whole(len(byte_order(node.target or ""))) if len(node.target or "") >= _SHORT_LINK else 0
        if node.kind is not NodeKind.FILE or not node.size:
            return 0
        source = node.source() if node.size > self.size else None
        if isinstance(source, ExtentSource):
            return self._of_extents((start, length) for start, _, length in source.extents)
        return self._whole(node.size)

    def _of_extents(self, extents: Iterable[tuple[int, int]]) -> int:
        blocks = end = 0
        for start, length in sorted(extents):
            first = max(start // self.size, end)
            end = max(-(-(start + length) // self.size), end)
            blocks += max(end - first, 0)
        return blocks * self.size

    def _whole(self, size: int) -> int:
        return -(-size // self.size) * self.size


def _entry(name: str) -> int:
    """Bytes of a name in a directory of ext."""
    return 8 + -(-len(byte_order(name)) // 4) * 4


def _attributes(node: Node) -> int:
    """Bytes that extended attributes take up as ext stores them: an entry and a value each, and an end."""
    total = 4 if node.xattrs else 0
    for name, value in node.xattrs.items():
        short = name.partition(".")[2] or name
        total += 16 + -(-len(byte_order(short)) // 4) * 4 + -(-len(value) // 4) * 4
    return total


def fitting_blocks(known: Sequence[tuple[int, int, Callable[[], Tree]]]) -> Blocks | None:
    """The rules that give most of the sizes which are recorded; None where none give nearly all of them.

    Args:
        known: (bytes, files and directories, files) of snapshots whose size is recorded.
    """
    trees: list[tuple[int, Tree]] = []
    inodes = 0
    for size, count, tree in sorted(known, key=lambda one: one[1])[:_MAX_SNAPSHOTS]:
        inodes += count
        if inodes > _MAX_INODES and trees:
            break
        try:
            trees.append((size, tree()))
        except ForensicsError:
            continue
    candidates = [Blocks(size, directories) for directories in (True, False) for size in _SIZES]
    fits = [(sum(_fits(one, tree, size) for size, tree in trees), one) for one in candidates]
    count, best = max(fits, key=lambda fit: fit[0])
    return best if trees and count >= _ENOUGH * len(trees) else None


def _fits(blocks: Blocks, tree: Tree, size: int) -> bool:
    try:
        return blocks.usage(tree) == size
    except ForensicsError:
        return False
