"""What differs between two trees: the answer of `docker diff`, and what that answer hides.

The rules are those of the changes Docker computes by comparing a container's whole file system with the one it was
started from (go-archive, changes.go and changes_linux.go), not by reading its upper directory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from forensics_lib.errors import ForensicsError
from forensics_lib.model import ProblemLog
from forensics_lib.sources.base import BLOCK
from forensics_lib.trees.base import Node, NodeKind, Tree, byte_order, parent_of
from forensics_lib.trees.layered import Change, ChangeKind, differences
from forensics_lib.trees.union import UnionTree

__all__ = ["diff", "hidden_changes"]

_Pair = tuple[Node | None, Node | None]  # before and after
_CAPABILITY = "security.capability"
_SECOND = 10**9


def diff(old: Tree, new: Tree) -> Iterator[Change]:
    """What `docker diff` shows for a container that was started from `old` and is now `new`.

    A path is changed if its type, mode, owner or device number differ or its `security.capability` attribute, and for
    all but directories if size or modification time do. A directory that holds changes is changed as well. Of a deleted
    directory only the directory itself is listed, of a new one all that is in it. The root is never listed. Content is
    not read: ``content`` in `what` says that a file's size or modification time differ. See `hidden_changes` for what
    these rules leave out.

    Args:
        old: the file system before; for Docker the one with the container's ``-init`` layer on top.
        new: the file system after. Where both are merged of the same lower layers, directories that come from those
            alone are not compared, being the same.

    Returns:
        The changes in byte order of their paths.
    """
    return _in_order(_listed(_pairs(old, new)))


def hidden_changes(old: Tree, new: Tree, *, problems: ProblemLog | None = None) -> Iterator[Change]:
    """What changed although `docker diff` does not say so.

    * Files whose bytes differ though size and modification time do not. Both versions are read, but only where they are
      stored in different places: in a container on an overlay file system those that were copied up.
    * Paths that `diff` does not list, whose link target, times or extended attributes differ: a directory in which
      something was made and removed again, a file that was opened for writing and put back. Of the root, which `diff`
      never lists, owner, mode and attributes count.

    Args:
        old: the file system before.
        new: the file system after.
        problems: gets files whose content cannot be read; without it they raise.

    Returns:
        Rows of kind CHANGED in byte order of their paths, both versions readable. `what` holds ``content``, ``xattrs``,
        ``target``, ``mtime``, ``atime``, ``ctime``, ``btime``; of the root ``mode`` and ``owner`` too. A time counts
        only where both trees record it, and the last three only between merged trees: a full copy has its own
        everywhere.

    Raises:
        ForensicsError: content cannot be read, and no `problems` was given.
    """
    pairs = _pairs(old, new)
    listed = _listed(pairs)
    merged = isinstance(old, UnionTree) and isinstance(new, UnionTree)
    hidden: dict[str, Change] = {}
    for path, (before, after) in pairs.items():
        if before is None or after is None or before.kind is not after.kind:
            continue
        what = _disguised(before, after, problems)
        if path not in listed:
            what += _unlisted(before, after, merged)
        if what:
            hidden[path] = Change(ChangeKind.CHANGED, path, after, before, what)
    return _in_order(hidden)


def _in_order(changes: dict[str, Change]) -> Iterator[Change]:
    return (changes[path] for path in sorted(changes, key=byte_order))


def _pairs(old: Tree, new: Tree) -> dict[str, _Pair]:
    """Every path with its nodes before and after, but for what is the same by construction and below what is gone."""
    shared: Callable[[str], bool] | None = None
    if isinstance(old, UnionTree) and isinstance(new, UnionTree):
        shared = new.shared_with(old)
    pairs: dict[str, _Pair] = {"/": (old.node("/"), new.node("/"))}
    pending = ["/"]
    while pending:
        directory = pending.pop()
        if shared is not None and shared(directory):
            continue
        before = {node.path: node for node in old.entries(directory)}
        for after in new.entries(directory):
            path = after.path
            previous = before.pop(path, None)
            pairs[path] = (previous, after)
            if after.kind is NodeKind.DIR:
                if previous is not None and previous.kind is NodeKind.DIR:
                    pending.append(path)
                else:
                    pairs.update((node.path, (None, node)) for node in new.walk(path) if node.path != path)
        pairs.update((path, (gone, None)) for path, gone in before.items())
    return pairs


def _listed(pairs: dict[str, _Pair]) -> dict[str, Change]:
    """The rows of `docker diff`."""
    changes: dict[str, Change] = {}
    for path, (before, after) in pairs.items():
        if path == "/":
            continue
        if before is None:
            changes[path] = Change(ChangeKind.ADDED, path, after, None)
        elif after is None:
            changes[path] = Change(ChangeKind.DELETED, path, None, before)
        elif _differs(before, after):
            changes[path] = _changed(before, after)
    for path in list(changes):
        while (path := parent_of(path)) != "/" and path not in changes:
            before, after = pairs[path]
            assert before is not None, "what is in a new directory was added with it"
            assert after is not None, "nothing below a deleted directory is compared"
            changes[path] = _changed(before, after)
    return changes


def _changed(before: Node, after: Node) -> Change:
    written = before.kind is NodeKind.FILE and not _same_time(before, after)
    return Change(ChangeKind.CHANGED, after.path, after, before, differences(before, after, written))


def _differs(before: Node, after: Node) -> bool:
    """Whether Docker calls a path changed (statDifferent)."""
    if (before.kind, before.mode, before.uid, before.gid, before.rdev) != (
        after.kind,
        after.mode,
        after.uid,
        after.gid,
        after.rdev,
    ):
        return True
    if before.kind is not NodeKind.DIR and (_size(before) != _size(after) or not _same_time(before, after)):
        return True
    return before.xattrs.get(_CAPABILITY, b"") != after.xattrs.get(_CAPABILITY, b"")


def _size(node: Node) -> int:
    """What the system calls the size: for a symbolic link the length of its target."""
    return len(byte_order(node.target or "")) if node.kind is NodeKind.SYMLINK else node.size


def _same_time(before: Node, after: Node) -> bool:
    """Whether Docker calls two modification times equal: fractions count only where both have one (sameFsTime)."""
    if before.mtime_ns is None or after.mtime_ns is None or before.mtime_ns == after.mtime_ns:
        return True
    (second, fraction), (other, other_fraction) = divmod(before.mtime_ns, _SECOND), divmod(after.mtime_ns, _SECOND)
    return second == other and not (fraction and other_fraction)


def _disguised(before: Node, after: Node, problems: ProblemLog | None) -> tuple[str, ...]:
    """Content that was replaced without a trace in size and modification time."""
    if before.kind is not NodeKind.FILE or before.size != after.size or not _same_time(before, after):
        return ()
    if before.origin == after.origin or before.content == after.content:
        return ()
    try:
        return () if _same_bytes(before, after) else ("content",)
    except ForensicsError as error:
        if problems is None:
            raise
        problems.add(after.origin, error)
        return ()


def _same_bytes(before: Node, after: Node) -> bool:
    one, two = before.source(), after.source()
    return all(one.read_at(offset, BLOCK) == two.read_at(offset, BLOCK) for offset in range(0, before.size, BLOCK))


def _unlisted(before: Node, after: Node, merged: bool) -> tuple[str, ...]:
    """Properties that differ without Docker looking at them."""
    properties: list[tuple[str, object, object]] = [("xattrs", before.xattrs, after.xattrs)]
    if after.path == "/":  # not looked at at all; each upper directory has times of its own
        properties += [("mode", before.mode, after.mode)]
        properties += [("owner", (before.uid, before.gid), (after.uid, after.gid))]
    else:
        properties += [("target", before.target, after.target), ("mtime", before.mtime_ns, after.mtime_ns)]
        if merged:
            properties += [
                ("atime", before.atime_ns, after.atime_ns),
                ("ctime", before.ctime_ns, after.ctime_ns),
                ("btime", before.btime_ns, after.btime_ns),
            ]
    return tuple(name for name, one, two in properties if one is not None and two is not None and one != two)
