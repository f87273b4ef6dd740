"""Read-only file systems: what a path holds, whatever it was read from."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import BinaryIO, Protocol

from forensics_lib._cells import shown
from forensics_lib._frozen import maker, quick
from forensics_lib.errors import LimitExceeded, NotAFile, PathNotFound
from forensics_lib.model import Origin
from forensics_lib.sources.base import BytesSource, Source

__all__ = [
    "NO_XATTRS",
    "Content",
    "Node",
    "NodeKind",
    "Tree",
    "byte_order",
    "device_number",
    "join",
    "make_node",
    "moved",
    "parent_of",
]

NO_XATTRS: Mapping[str, bytes] = {}  # one for all; typed so that nobody writes to it
_MAX_LINKS = 40  # as Linux: MAXSYMLINKS


class NodeKind(StrEnum):
    """What a node is."""

    FILE = "file"
    DIR = "dir"
    SYMLINK = "symlink"
    CHAR = "char"
    BLOCK = "block"
    FIFO = "fifo"
    SOCKET = "socket"


_DIR = NodeKind.DIR  # looked up once: a walk asks for every node


class Content(Protocol):
    """Where a file's bytes are; asked only when somebody reads them."""

    def source(self) -> Source:
        """The bytes."""
        ...


@quick
@dataclass(frozen=True, slots=True)
class Node:
    """One name in a tree, with everything that is recorded of it.

    Attributes:
        path: absolute, undecodable bytes as surrogates.
        kind: what it is.
        mode: permission bits, set-user-ID and the like included, file type excluded.
        uid: owner's number.
        gid: group's number.
        size: bytes of a regular file, else 0.
        mtime_ns: last change of the content, nanoseconds since 1970; None where it is not recorded.
        atime_ns: last access.
        ctime_ns: last change of the inode.
        btime_ns: creation.
        target: what a symbolic link says.
        rdev: a device's number as Linux encodes it (`os.major` and `os.minor` take it apart); 0 for others.
        nlink: how many names of this tree share the content; 1 where it is unknown.
        inode: a number that only names of the same file share; 0 where it is unknown.
        xattrs: extended attributes by full name.
        origin: where this is recorded.
        content: where the bytes of a regular file are.
    """

    path: str
    kind: NodeKind
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int | None
    origin: Origin
    atime_ns: int | None = None
    ctime_ns: int | None = None
    btime_ns: int | None = None
    target: str | None = None
    rdev: int = 0
    nlink: int = 1
    inode: int = 0
    xattrs: Mapping[str, bytes] = field(default_factory=lambda: NO_XATTRS, hash=False)
    content: Content | None = field(default=None, repr=False, compare=False)

    @property
    def name(self) -> str:
        """The last component of the path; empty for the root."""
        return self.path.rpartition("/")[2]

    def source(self) -> Source:
        """The bytes of a regular file.

        Raises:
            NotAFile: it is something else.
        """
        if self.kind is not NodeKind.FILE:
            raise NotAFile(f"{self.path} is a {self.kind}, not a file")
        return BytesSource(b"", self.origin) if self.content is None else self.content.source()

    def open(self) -> BinaryIO:
        """The bytes of a regular file as a binary file.

        Raises:
            NotAFile: it is something else.
        """
        return self.source().open()

    def read(self) -> bytes:
        """All bytes of a regular file.

        Raises:
            NotAFile: it is something else.
            DamagedData: some of them cannot be read.
        """
        buffer = io.BytesIO()
        for block in self.source().blocks():
            buffer.write(block)
        return buffer.getvalue()


make_node = maker(Node)
"""`Node`, made in half the time: for walks."""


def moved(node: Node, path: str) -> Node:
    """The same at another path; a few times quicker than `dataclasses.replace`."""
    return make_node(
        path,
        node.kind,
        node.mode,
        node.uid,
        node.gid,
        node.size,
        node.mtime_ns,
        node.origin,
        node.atime_ns,
        node.ctime_ns,
        node.btime_ns,
        node.target,
        node.rdev,
        node.nlink,
        node.inode,
        node.xattrs,
        node.content,
    )


class Tree(ABC):
    """A read-only file system.

    Paths are absolute ("/etc/passwd"; a missing leading slash is added). Symbolic links are followed inside the tree
    only: an absolute target starts at the tree's root, ".." stops there.

    Attributes:
        origin: where the tree was read from.
    """

    origin: Origin

    def __repr__(self) -> str:
        """What kind of tree it is, and where it was read from."""
        return shown(f"{type(self).__name__}({self.origin})", 300)

    @abstractmethod
    def _lookup(self, path: str) -> Node | None:
        """The node of exactly this normalised path, no link followed."""

    @abstractmethod
    def _names(self, path: str) -> Iterable[str]:
        """The names in the directory of exactly this path."""

    def find(self, path: str) -> Node | None:
        """The node of exactly this normalised path, no link followed; None where there is nothing."""
        return self._lookup(path)

    def names(self, path: str) -> Iterable[str]:
        """The names in the directory of exactly this normalised path, in no order; none where it is no directory."""
        return self._names(path)

    def entries(self, path: str) -> Iterator[Node]:
        """The nodes in the directory of exactly this normalised path, in byte order of their names."""
        return self._children(path)

    def node(self, path: str) -> Node:
        """What a path holds; links are followed in its parents but not in its last component.

        Raises:
            PathNotFound: there is nothing.
            LimitExceeded: a loop of symbolic links.
        """
        return self._walk_to(path, follow=False)

    def resolve(self, path: str) -> Node:
        """What a path leads to, all symbolic links followed.

        Raises:
            PathNotFound: there is nothing, or a link leads nowhere.
            LimitExceeded: a loop of symbolic links.
        """
        return self._walk_to(path, follow=True)

    def __contains__(self, path: object) -> bool:
        """Whether `node` finds the path."""
        try:
            return isinstance(path, str) and self.node(path) is not None
        except (PathNotFound, LimitExceeded):
            return False

    def children(self, path: str = "/") -> Iterator[Node]:
        """The nodes of one directory, in byte order of their names.

        Raises:
            PathNotFound: there is no such directory.
        """
        directory = self.resolve(path)
        if directory.kind is not NodeKind.DIR:
            raise PathNotFound(f"{path} is no directory")
        yield from self._children(directory.path)

    def _children(self, path: str) -> Iterator[Node]:
        for name in sorted(self._names(path), key=byte_order):
            node = self._lookup(join(path, name))
            if node is not None:
                yield node

    def walk(self, path: str = "/") -> Iterator[Node]:
        """The node of a path, then everything below it, depth first in byte order. Links are not followed.

        Raises:
            PathNotFound: there is no such path.
        """
        stack = [iter((self.node(path),))]
        while stack:
            for node in stack[-1]:
                yield node
                if node.kind is _DIR:
                    stack.append(self._children(node.path))
                    break
            else:
                stack.pop()

    def open(self, path: str) -> BinaryIO:
        """The content of a file, links followed, as a binary file.

        Raises:
            PathNotFound: there is no such file.
            NotAFile: the path leads to something else.
        """
        return self.resolve(path).open()

    def read(self, path: str) -> bytes:
        """The content of a file, links followed.

        Raises:
            PathNotFound: there is no such file.
            NotAFile: the path leads to something else.
            DamagedData: the content cannot be read.
        """
        return self.resolve(path).read()

    def _walk_to(self, path: str, *, follow: bool) -> Node:
        wanted = [part for part in path.split("/") if part]
        done: list[Node] = [self._root()]
        links = 0
        while wanted:
            part = wanted.pop(0)
            if part == ".":
                continue
            if part == "..":
                if len(done) > 1:
                    done.pop()
                continue
            node = self._lookup(join(done[-1].path, part)) if done[-1].kind is NodeKind.DIR else None
            if node is None:
                raise PathNotFound(f"{path} does not exist")
            if node.kind is NodeKind.SYMLINK and (wanted or follow):
                links += 1
                if links > _MAX_LINKS:
                    raise LimitExceeded(f"{path}: more than {_MAX_LINKS} symbolic links", origin=node.origin)
                target = node.target or ""
                wanted = [step for step in target.split("/") if step] + wanted
                if target.startswith("/"):
                    del done[1:]
                continue
            done.append(node)
        return done[-1]

    def _root(self) -> Node:
        root = self._lookup("/")
        if root is None:
            raise PathNotFound("the tree has no root")
        return root


def byte_order(name: str) -> bytes:
    """Sort key: the name's bytes."""
    return name.encode("utf-8", "surrogateescape")


def join(directory: str, name: str) -> str:
    """The path of a name in a directory."""
    return f"/{name}" if directory == "/" else f"{directory}/{name}"


def parent_of(path: str) -> str:
    """The directory of a path; the root's is the root."""
    return path.rpartition("/")[0] or "/"


def device_number(major: int, minor: int) -> int:
    """A device's number as Linux encodes it, on any system."""
    major, minor = major & 0xFFFFFFFF, minor & 0xFFFFFFFF
    return (major & 0xFFFFF000) << 32 | (major & 0xFFF) << 8 | (minor & 0xFFFFFF00) << 12 | minor & 0xFF
