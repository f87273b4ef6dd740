"""Trees of numbered inodes, whose directories give names to numbers: what ext and XFS have in common."""

from __future__ import annotations

import stat
from abc import abstractmethod
from collections.abc import Iterable, Iterator

from forensics_lib.errors import DamagedData
from forensics_lib.formats.directory import Directory, Report
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.trees.base import Node, NodeKind, Tree, parent_of

__all__ = ["KINDS", "InodeTree"]

KINDS = {
    stat.S_IFREG: NodeKind.FILE,
    stat.S_IFDIR: NodeKind.DIR,
    stat.S_IFLNK: NodeKind.SYMLINK,
    stat.S_IFCHR: NodeKind.CHAR,
    stat.S_IFBLK: NodeKind.BLOCK,
    stat.S_IFIFO: NodeKind.FIFO,
    stat.S_IFSOCK: NodeKind.SOCKET,
}
"""Kinds by the type bits of a mode."""
_DIR = NodeKind.DIR  # looked up once: a walk asks for every node
_MAX_NAMES = 200_000  # of directories that are kept
_MAX_PATHS = 50_000
_MAX_NODES, _MAX_XATTRS = 2000, 1024  # of what paths lead through, which is looked up again and again
_PASSED = (NodeKind.DIR, NodeKind.SYMLINK)
_MAX_STRAYS = 10_000


class InodeTree(Tree):
    """A tree of inodes. A directory is listed under the one name that its own entry ".." agrees with.

    What was read of directories is kept within a bound, whatever the size of the file system.

    Args:
        origin: of the file system.
        problems: gets damage.
        root: inode number of the root directory.
    """

    def __init__(self, origin: Origin, problems: ProblemLog, root: int) -> None:
        """Nothing is read yet."""
        self.origin = origin
        self._problems = problems
        self._root_inode = root
        self._directories: dict[int, Directory] = {}
        self._names_kept = 0
        self._numbers: dict[str, int] = {}
        self._nodes: dict[str, Node] = {}
        self._strays: dict[int, str] = {}

    @abstractmethod
    def _node(self, path: str, number: int) -> Node | None:
        """The node of an inode; None, and a problem, when it cannot be read."""

    @abstractmethod
    def _mode(self, number: int) -> int:
        """Type and permissions of an inode.

        Raises:
            DamagedData: it cannot be read.
        """

    @abstractmethod
    def _read_directory(self, number: int) -> Directory | None:
        """What the inode of a number lists; None when it is no directory.

        Raises:
            DamagedData: nothing of it can be read.
        """

    @abstractmethod
    def _reporter(self, number: int) -> Report:
        """Makes problems of what an inode breaks."""

    def _children(self, path: str) -> Iterator[Node]:
        entries = self._entries(path)
        prefix = path if path == "/" else f"{path}/"
        make = self._node
        ordered = sorted(entries)
        for name, text in zip(ordered, _texts(ordered), strict=True):
            number = entries[name]
            node = make(prefix + text, number)
            if node is not None:
                if node.kind is _DIR:
                    if len(self._numbers) >= _MAX_PATHS:
                        self._numbers.clear()
                    self._numbers[node.path] = number
                yield node

    def _names(self, path: str) -> Iterable[str]:
        return _texts(list(self._entries(path)))

    def _lookup(self, path: str) -> Node | None:
        node = self._nodes.get(path)
        if node is None:
            number = self._number(path)
            node = None if number is None else self._node(path, number)
            if node is not None and node.kind in _PASSED and sum(map(len, node.xattrs.values())) < _MAX_XATTRS:
                if len(self._nodes) >= _MAX_NODES:
                    self._nodes.clear()
                self._nodes[path] = node
        return node

    def _number(self, path: str) -> int | None:
        """The inode number of exactly this path."""
        number = self._numbers.get(path)
        if number is not None:
            return number
        known = path
        while known != "/" and (number := self._numbers.get(known)) is None:
            known = parent_of(known)
        if number is None:
            number = self._root_inode
        for name in filter(None, path[len(known) :].split("/")):
            directory = self._directory(number)
            number = directory and directory.entries.get(name.encode("utf-8", "surrogateescape"))
            if number is None:
                return None
        return number

    def _entries(self, path: str) -> dict[bytes, int]:
        """Inode numbers by name of a directory, if it is to be listed at this path."""
        number = self._number(path)
        directory = None if number is None else self._directory(number)
        if number is None or directory is None:
            return {}
        above = self._number(parent_of(path))
        at_home = directory.parent == above and (number != self._root_inode or path == "/")
        return directory.entries if at_home or self._may_stray(path, number, directory.parent) else {}

    def _may_stray(self, path: str, number: int, parent: int) -> bool:
        """Whether a directory whose parent is another one is listed here: at the first path that leads to it.

        Without this rule, directories that name each other would make an endless tree, or one of endless breadth.
        """
        self._problems.add(self.origin.to(path), f"inode {number} is a directory whose parent is inode {parent}")
        above = path
        while above != "/":
            above = parent_of(above)
            if self._number(above) == number:
                return False
        if number not in self._strays and len(self._strays) < _MAX_STRAYS:
            self._strays[number] = path
        return self._strays.get(number) == path

    def _directory(self, number: int) -> Directory | None:
        """What a directory lists; None where it cannot be read."""
        known = self._directories.get(number)
        if known is None:
            try:
                known = self._read_directory(number)
            except DamagedData as error:
                self._problems.add(self.origin.to(f"inode {number}"), error)
            if known is None:
                return None
            if len(set(known.entries.values())) < len(known.entries):
                self._leave_out_twins(number, known.entries)
            self._names_kept += len(known.entries)
            if self._names_kept > _MAX_NAMES:
                self._directories.clear()
                self._names_kept = len(known.entries)
            self._directories[number] = known
        return known

    def _leave_out_twins(self, directory: int, entries: dict[bytes, int]) -> None:
        """Take all names but one of a directory away, which can have no hard links."""
        first: dict[int, bytes] = {}
        for name in sorted(entries):
            number = entries[name]
            if first.setdefault(number, name) != name and self._is_directory(number):
                message = f"{name!r} is a second name of a directory, of inode {number}; it is left out"
                self._reporter(directory)(message)
                del entries[name]

    def _is_directory(self, number: int) -> bool:
        try:
            return stat.S_ISDIR(self._mode(number))
        except DamagedData:
            return False


def _texts(names: list[bytes]) -> list[str]:
    """Names as text, all decoded at once; none holds a NUL."""
    return b"\0".join(names).decode("utf-8", "surrogateescape").split("\0") if names else []
