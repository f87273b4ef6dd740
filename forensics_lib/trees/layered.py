"""Layers of an image, applied one over the other: what each added, changed and deleted, and what is left.

The rules are those of the OCI image specification (layer.md, "Representing Changes"): a changeset does not depend on
the order of its members; whiteouts hide what lower layers hold and nothing else. Names are taken literally, as overlay
file systems take them: a symbolic link of a lower layer is not followed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from forensics_lib.errors import LimitExceeded
from forensics_lib.formats.tar_entry import TarEntry
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.sources.base import Source
from forensics_lib.trees.archive import Member, MissingContent, read_members, resolve_link
from forensics_lib.trees.base import Node, NodeKind
from forensics_lib.trees.index import IndexTree, implied_directory

__all__ = ["Change", "ChangeKind", "Changeset", "Mark", "apply", "differences", "read_changeset"]

_PREFIX = ".wh."
_OPAQUE = ".wh..wh..opq"
_BOOKKEEPING = ".wh..wh."


class ChangeKind(StrEnum):
    """What happened to a path, in the letters of `docker diff`."""

    ADDED = "A"
    CHANGED = "C"
    DELETED = "D"


@dataclass(frozen=True, slots=True)
class Change:
    """What one layer did to one path.

    Attributes:
        kind: added, changed or deleted.
        path: the path.
        node: what the path holds afterwards; None when it was deleted.
        previous: what it held before; None when it was added.
        what: which properties differ: ``kind``, ``content``, ``mode``, ``owner``, ``mtime``, ``target``, ``rdev``,
            ``xattrs``. A file that a layer stores anew has ``content``, whether or not the bytes are the same.
    """

    kind: ChangeKind
    path: str
    node: Node | None
    previous: Node | None
    what: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Mark:
    """A whiteout: a path that the layer deletes, or a directory whose lower content it hides.

    Attributes:
        path: the deleted path, or the directory.
        opaque: whether it hides the directory's content instead of deleting the path.
        origin: where it is recorded.
    """

    path: str
    opaque: bool
    origin: Origin


@dataclass(slots=True)
class Changeset:
    """One layer, read but not yet applied.

    Attributes:
        members: files, directories and the rest, in the order of the archive, duplicates included.
        marks: whiteouts.
        bookkeeping: files that AUFS kept for itself; no engine shows them.
    """

    members: list[Member] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    bookkeeping: list[Member] = field(default_factory=list)


def read_changeset(
    decoder: Iterable[TarEntry], archive: Source, origin: Origin, problems: ProblemLog, changeset: Changeset
) -> None:
    """Sort a layer's members into content, whiteouts and bookkeeping; everything unusual becomes a problem.

    The changeset is filled as reading goes on, so that it holds what came before any damage.
    """
    seen: set[str] = set()
    for path, member in read_members(decoder, archive, origin, problems):
        if "/.wh." in path:
            _read_mark(path, member, changeset, problems)
            continue
        node = member.node
        if path in seen and node.kind is not NodeKind.DIR:
            problems.add(node.origin, f"{path} is stored more than once in the layer; the last one counts")
        seen.add(path)
        if node.kind is NodeKind.CHAR and node.rdev == 0:
            problems.add(node.origin, f"{path}: an overlay whiteout (device 0:0) in a layer archive deletes nothing")
        for name in node.xattrs:
            if name.startswith("trusted.overlay."):
                problems.add(node.origin, f"{path}: {name} in a layer archive has no effect")
        changeset.members.append(member)


def _read_mark(path: str, member: Member, changeset: Changeset, problems: ProblemLog) -> None:
    parent, _, name = path.rpartition("/")
    node = member.node
    if name == _OPAQUE and "/.wh." not in parent:
        changeset.marks.append(Mark(parent or "/", True, node.origin))
    elif "/.wh..wh." in path:
        changeset.bookkeeping.append(member)
        problems.add(node.origin, f"{path}: bookkeeping of AUFS, hidden")
    elif "/.wh." in parent:
        changeset.bookkeeping.append(member)
        problems.add(node.origin, f"{path} lies below a whiteout and is left out")
    elif name[len(_PREFIX) :] in ("", ".", ".."):
        problems.add(node.origin, f"{path}: a whiteout without a name is ignored")
    else:
        if node.size:
            problems.add(node.origin, f"{path}: a whiteout that holds {node.size} bytes")
        changeset.marks.append(Mark(f"{parent}/{name[len(_PREFIX) :]}", False, node.origin))


def apply(changeset: Changeset, tree: IndexTree, problems: ProblemLog, links: IndexTree | None = None) -> list[Change]:
    """Apply a layer to the tree of the layers below it, in place.

    Args:
        changeset: the layer.
        tree: what the layers below hold; changed in place.
        problems: gets what contradicts itself.
        links: where hard links that `tree` has no target for are looked up.

    Returns:
        The changes, in byte order of their paths; what goes with a deleted directory is listed too.
    """
    before: dict[str, Node | None] = {}
    hidden: dict[str, Node] = {}
    for mark in changeset.marks:
        for node in tree.remove_children(mark.path) if mark.opaque else tree.remove(mark.path):
            hidden[node.path] = node
            before.setdefault(node.path, node)
    for mark in changeset.marks:  # only now: a whiteout hides nothing of its own layer, whichever comes first
        if mark.opaque and not tree.has_directory(mark.path):  # it stands in one, whatever a lower layer has there
            try:
                _put(implied_directory(mark.path, mark.origin), tree, before)
            except LimitExceeded as error:
                problems.add(mark.origin, error)
    stored: set[str] = set()
    for member in changeset.members:
        node = member.node
        path = node.path
        if member.link is not None:
            target = tree.find(member.link) or hidden.get(member.link)
            if target is None and links is not None:
                target = links.find(member.link)
            node = resolve_link(member, target)
            tree.linked = True
            if isinstance(node.content, MissingContent):
                problems.add(node.origin, f"{path}: {node.content.message}")
        if path == "/" and node.kind is not NodeKind.DIR:
            problems.add(node.origin, "a member would replace the root itself; it is left out")
            continue
        try:
            gone = _put(node, tree, before)
        except LimitExceeded as error:
            problems.add(node.origin, error)
            continue
        for displaced in gone:
            if displaced.path != path and path.startswith(displaced.path + "/"):
                problems.add(node.origin, f"{displaced.path} ({displaced.kind}) gives way to a directory for {path}")
        stored.add(path)
    return _changes(before, stored, tree)


def _put(node: Node, tree: IndexTree, before: dict[str, Node | None]) -> list[Node]:
    """Place a node and remember what was there before, also in place of its parents; returns what it displaces."""
    implied: list[str] = []
    old = tree.find(node.path)
    gone = tree.put(node, implied)
    for displaced in gone:
        before.setdefault(displaced.path, displaced)
    for parent in implied:
        before.setdefault(parent, None)
    before.setdefault(node.path, old)
    return gone


def _changes(before: dict[str, Node | None], stored: set[str], tree: IndexTree) -> list[Change]:
    changes = []
    for path, old in before.items():
        new = tree.find(path)
        if new is None:
            if old is not None:
                changes.append(Change(ChangeKind.DELETED, path, None, old))
        elif old is None:
            changes.append(Change(ChangeKind.ADDED, path, new, None))
        elif old is not new and (what := differences(old, new, path in stored)):
            changes.append(Change(ChangeKind.CHANGED, path, new, old, what))
    return sorted(changes, key=lambda change: change.path.encode("utf-8", "surrogateescape"))


def differences(old: Node, new: Node, stored: bool) -> tuple[str, ...]:
    """Which properties of two nodes differ; `stored` says that a layer holds the file anew."""
    if old.kind is not new.kind:
        return ("kind",)
    found = []
    if old.kind is NodeKind.FILE and (stored or old.size != new.size):
        found.append("content")
    if old.mode != new.mode:
        found.append("mode")
    if (old.uid, old.gid) != (new.uid, new.gid):
        found.append("owner")
    if old.mtime_ns != new.mtime_ns:
        found.append("mtime")
    if old.target != new.target:
        found.append("target")
    if old.rdev != new.rdev:
        found.append("rdev")
    if old.xattrs != new.xattrs:
        found.append("xattrs")
    return tuple(found)
