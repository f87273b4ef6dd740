"""What differs between two trees, written as the layer of an image that turns the one into the other.

Format: OCI image-spec ``layer.md`` ("Representing Changes"): changed and added paths complete, ``.wh.<name>`` for what
is deleted. Opaque marks are not needed, because each deleted path is named.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from forensics_lib.errors import DamagedData, ForensicsError, LimitExceeded, UnsupportedFormat
from forensics_lib.formats.tar_write import END_OF_ARCHIVE, TarMember, archive, header, padding
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.trees.base import Node, NodeKind, Tree, byte_order
from forensics_lib.trees.changes import diff, hidden_changes

__all__ = ["LayerArchive", "layer_between"]

_WHITEOUT = ".wh."
_OVERLAY_MARK = "trusted.overlay."
_TYPES = {
    NodeKind.FILE: "0",
    NodeKind.SYMLINK: "2",
    NodeKind.CHAR: "3",
    NodeKind.BLOCK: "4",
    NodeKind.DIR: "5",
    NodeKind.FIFO: "6",
}


@dataclass(frozen=True, slots=True)
class LayerArchive:
    """A layer that is planned, but not yet written.

    Attributes:
        members: headers in the order of the archive, each with the file whose content follows.
    """

    members: tuple[tuple[TarMember, Node | None], ...]

    @property
    def size(self) -> int:
        """Bytes of the archive."""
        stored = (len(header(member)) + member.size + len(padding(member.size)) for member, _ in self.members)
        return sum(stored) + len(END_OF_ARCHIVE)

    def chunks(self) -> Iterator[bytes]:
        """The archive, piece by piece; the same at every call.

        Raises:
            DamagedData: the evidence cannot be read any more.
        """
        return archive((member, node.source().blocks() if node else ()) for member, node in self.members)


def layer_between(old: Tree, new: Tree, problems: ProblemLog, *, room: int) -> LayerArchive:
    """The layer that makes `new` out of `old`.

    It holds what `docker diff` lists and what `hidden_changes` finds beside it, all names of a hard-linked file when
    one of them is changed, and the root with its owner, mode and time. Times keep their nanoseconds, extended
    attributes are kept.

    Left out, with a problem: sockets, marks of overlay file systems, names that begin with ``.wh.`` (in a layer they
    would delete something), files that do not fit into the room, and files that cannot be read to their end. What `old`
    has in their place is deleted by the layer, so that nothing false shows.

    Args:
        old: the file system below the layer; an empty tree for a layer that holds everything.
        new: the file system with it.
        problems: gets what is left out.
        room: most bytes that the files may have together.
    """
    doubts = ProblemLog()
    changes = [*diff(old, new), *hidden_changes(old, new, problems=doubts)]
    nodes = {change.path: change.node for change in changes} | {"/": new.node("/")}
    unread = {problem.origin for problem in doubts.rows}
    nodes |= {node.path: node for node in _beside(new, [node for node in nodes.values() if node is not None], unread)}
    return _Plan(old, problems, room).make([(path, nodes[path]) for path in sorted(nodes, key=byte_order)])


def _beside(tree: Tree, nodes: list[Node], unread: set[Origin]) -> Iterator[Node]:
    """All names of the files among the nodes, and the files that could not be compared with their older version."""
    inodes = {node.inode for node in nodes if node.kind is NodeKind.FILE and node.nlink > 1 and node.inode}
    if inodes or unread:
        for node in tree.walk():
            if node.kind is NodeKind.FILE and (node.inode in inodes or node.origin in unread):
                yield node


class _Plan:
    """Decides for each path what the layer holds of it."""

    def __init__(self, old: Tree, problems: ProblemLog, room: int) -> None:
        self._old = old
        self._problems = problems
        self._room = room
        self._stored: dict[tuple[int | None, ...], str] = {}

    def make(self, paths: list[tuple[str, Node | None]]) -> LayerArchive:
        members = []
        for path, node in paths:
            try:
                if f"/{_WHITEOUT}" in path:
                    raise UnsupportedFormat(f"{path} is left out: in a layer this name would delete another one")
                members.append((_whiteout(path), None) if node is None else self._member(node))
            except ForensicsError as error:
                self._problems.add(node.origin if node else self._old.origin, error)
                if f"/{_WHITEOUT}" not in path and self._old.find(path) is not None:
                    members.append((_whiteout(path), None))
        return LayerArchive(tuple(members))

    def _member(self, node: Node) -> tuple[TarMember, Node | None]:
        """A member, and the file that has its content.

        Raises:
            ForensicsError: no archive can hold it, or it cannot be read.
        """
        name = node.path.lstrip("/") or "."
        if node.kind is NodeKind.SOCKET:
            raise UnsupportedFormat(f"{node.path} is left out: no archive can hold a socket")
        member = TarMember(
            f"{name}/" if node.kind is NodeKind.DIR else name,
            _TYPES[node.kind],
            mode=node.mode,
            uid=node.uid,
            gid=node.gid,
            mtime_ns=node.mtime_ns or 0,
            linkname=node.target or "",
            rdev=_major_minor(node.rdev),
            xattrs={key: value for key, value in node.xattrs.items() if not key.startswith(_OVERLAY_MARK)},
        )
        header(member)  # raises where no header can hold the name
        if len(member.xattrs) < len(node.xattrs):
            self._problems.add(node.origin, f"{node.path}: its marks of another overlay are no part of the archive")
        if node.kind is not NodeKind.FILE:
            return member, None
        identity = (node.inode, node.size, node.mtime_ns, node.mode, node.uid, node.gid)
        shared = node.inode and node.nlink > 1
        if shared and identity in self._stored:
            return replace(member, typeflag="1", linkname=self._stored[identity]), None
        size = self._readable(node)
        self._room -= size
        if shared:
            self._stored[identity] = name
        return replace(member, size=size), node if size else None

    def _readable(self, node: Node) -> int:
        """How many bytes of a file there are; found out by reading them, before a header says that they follow.

        Raises:
            ForensicsError: they cannot be read, or do not fit.
        """
        if node.size > self._room:
            raise LimitExceeded(f"{node.path} is left out: {node.size} bytes do not fit here", origin=node.origin)
        try:
            size = sum(len(block) for block in node.source().blocks())
        except ForensicsError as error:
            raise DamagedData(f"{node.path} is left out: {error}", origin=node.origin) from error
        if size > self._room:
            raise LimitExceeded(f"{node.path} is left out: {size} bytes do not fit here", origin=node.origin)
        if size != node.size:
            message = f"{node.path} is stored with the {size} bytes that there are instead of {node.size}"
            self._problems.add(node.origin, message)
        return size


def _whiteout(path: str) -> TarMember:
    """The mark that deletes a path.

    Raises:
        UnsupportedFormat: no archive can hold the name.
    """
    parent, _, name = path.lstrip("/").rpartition("/")
    return TarMember(f"{parent}/{_WHITEOUT}{name}" if parent else f"{_WHITEOUT}{name}", mode=0)


def _major_minor(rdev: int) -> tuple[int, int]:
    """A device's number taken apart, as Linux encodes it, on any system."""
    return rdev >> 32 & 0xFFFFF000 | rdev >> 8 & 0xFFF, rdev >> 12 & 0xFFFFFF00 | rdev & 0xFF
