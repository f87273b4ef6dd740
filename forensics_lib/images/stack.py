"""The layers of one image as a stack: what each changes, what is left at the top, and every version on the way."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO

from forensics_lib.errors import ForensicsError, PathNotFound
from forensics_lib.images.layer import LayerBlob
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.trees.archive import Member, clean_path, resolve_link
from forensics_lib.trees.base import Node, NodeKind, byte_order
from forensics_lib.trees.index import IndexTree
from forensics_lib.trees.layered import Change, ChangeKind, apply

__all__ = ["FileVersion", "HiddenFile", "LayerStack"]


@dataclass(frozen=True, slots=True)
class HiddenFile:
    """A file of a layer that no container of the image can see, because a later layer deletes or replaces it.

    Attributes:
        path: its path.
        size: bytes that it takes up.
        layer: index of the layer that stores it.
        hidden_by: index of the layer that hides it (the same layer when it stores the path twice).
        node: the file; its content can be read.
    """

    path: str
    size: int
    layer: int
    hidden_by: int
    node: Node


@dataclass(frozen=True, slots=True)
class FileVersion:
    """What one layer did to one path.

    Attributes:
        layer: index of the layer.
        kind: added, changed or deleted.
        path: the path.
        node: what the layer stores; None where it deletes.
        visible: whether this is what a container of the image sees.
        note: how a path was deleted, or that the layer stores it more than once.
        origin: where it is recorded.
    """

    layer: int
    kind: ChangeKind
    path: str
    node: Node | None
    visible: bool
    note: str
    origin: Origin

    @property
    def size(self) -> int | None:
        """Bytes of a file; None for a deletion."""
        return None if self.node is None else self.node.size

    @property
    def sha256(self) -> str | None:
        """Digest of a file's bytes, computed when asked for; None for what has no bytes."""
        if self.node is None or self.node.kind is not NodeKind.FILE:
            return None
        return self.node.source().sha256()

    def open(self) -> BinaryIO:
        """The bytes of this version.

        Raises:
            PathNotFound: the layer deletes the path.
            NotAFile: it is no regular file.
        """
        if self.node is None:
            raise PathNotFound(f"{self.path} is deleted by layer {self.layer}")
        return self.node.open()

    def read(self) -> bytes:
        """All bytes of this version.

        Raises:
            PathNotFound: the layer deletes the path.
            NotAFile: it is no regular file.
        """
        with self.open() as file:
            return file.read()


class LayerStack:
    """Applies the layers once, from the base up, and remembers what each did."""

    def __init__(self, blobs: Sequence[LayerBlob], origin: Origin, problems: ProblemLog) -> None:
        """Nothing is read before it is asked for."""
        self.blobs = tuple(blobs)
        self._origin = origin
        self._problems = problems
        self._lock = threading.RLock()
        self._merged: IndexTree | None = None
        self._changes: list[list[Change]] = []
        self._sizes: list[int] | None = None
        self._hidden: list[HiddenFile] | None = None
        self._by_path: dict[str, list[tuple[int, Change]]] | None = None

    def read(self) -> None:
        """Read all layers; compressed ones side by side, because inflating releases the interpreter."""
        blobs = list({id(blob): blob for blob in self.blobs}.values())
        if len(blobs) > 1:
            from concurrent.futures import ThreadPoolExecutor

            with ThreadPoolExecutor(min(os.cpu_count() or 1, len(blobs))) as pool:
                list(pool.map(LayerBlob.changeset, blobs))

    def tree(self, count: int | None = None) -> IndexTree:
        """The merged tree of all layers, or of the first `count`."""
        with self._lock:
            if count is None or count >= len(self.blobs):
                return self._top()
            tree = IndexTree(self._origin)
            for blob in self.blobs[:count]:
                apply(blob.changeset(), tree, self._problems)
            tree.count_links()
            return tree

    def alone(self, index: int) -> IndexTree:
        """What one layer holds; hard links to lower layers find their content there."""
        with self._lock:
            changeset = self.blobs[index].changeset()
            tree = IndexTree(self.blobs[index].origin)
            below = self.tree(index) if any(member.link for member in changeset.members) else None
            apply(changeset, tree, self._problems, below)
            tree.count_links()
            return tree

    def changes(self, index: int) -> list[Change]:
        """What one layer adds, changes and deletes."""
        with self._lock:
            self._top()
            return self._changes[index]

    def unreadable(self, index: int) -> ForensicsError | None:
        """Why one layer cannot be read; None when it can."""
        return self.blobs[index].unreadable

    def content_size(self, index: int) -> int | None:
        """Bytes of one layer's files (hard-linked ones once) and of its symbolic links' targets, as Docker counts."""
        if self.unreadable(index) is not None:
            return None
        with self._lock:
            if self._sizes is None:
                self.read()
                self._sizes = [
                    sum({member.node.path: _counted(member.node) for member in blob.changeset().members}.values())
                    for blob in self.blobs
                ]
            return self._sizes[index]

    def hidden(self) -> list[HiddenFile]:
        """Files that take up space and that no container sees, in the order of the layers."""
        with self._lock:
            if self._hidden is None:
                self._hidden = list(self._find_hidden())
            return self._hidden

    def versions(self, path: str) -> Iterator[FileVersion]:
        """Every version of a path, base first; nothing when no layer ever held it."""
        path = clean_path(path)[0]
        with self._lock:
            final = self.tree().find(path)
            changes = dict(self._changes_of().get(path, ()))
        found: list[FileVersion] = []
        below: NodeKind | None = None
        for index, blob in enumerate(self.blobs):
            stored = [self._resolved(index, member) for member in blob.changeset().members if member.node.path == path]
            change = changes.get(index)
            kept = None if change is None else change.node
            for node in stored:
                if kept is None or node.origin != kept.origin:
                    same = change is None and node is stored[-1] and node.kind is below
                    note = "as in the layer below" if same else "replaced by a later member of the same layer"
                    found.append(FileVersion(index, ChangeKind.CHANGED, path, node, False, note, node.origin))
            if change is not None:
                note, origin = _deletion(blob, path) if kept is None else ("", kept.origin)
                found.append(FileVersion(index, change.kind, path, kept, False, note, origin))
                below = None if kept is None else kept.kind
        visible = _visible(found, final)
        yield from (replace(version, visible=version is visible) for version in found)

    def _resolved(self, index: int, member: Member) -> Node:
        """What a member stores; a hard link has the content of the file it names."""
        if member.link is None:
            return member.node
        target = self.tree(index + 1).find(member.link) or self.tree(index).find(member.link)
        return resolve_link(member, target)

    def _top(self) -> IndexTree:
        if self._merged is None:
            self.read()
            tree = IndexTree(self._origin)
            self._changes = [apply(blob.changeset(), tree, self._problems) for blob in self.blobs]
            tree.count_links()
            self._merged = tree
        return self._merged

    def _changes_of(self) -> dict[str, list[tuple[int, Change]]]:
        if self._by_path is None:
            self._by_path = {}
            for index, changes in enumerate(self._changes):
                for change in changes:
                    self._by_path.setdefault(change.path, []).append((index, change))
        return self._by_path

    def _find_hidden(self) -> Iterator[HiddenFile]:
        visible = {id(node.content) for node in self.tree().files() if node.content is not None}
        changes = self._changes_of()
        for index, blob in enumerate(self.blobs):
            for member in blob.changeset().members:
                node = member.node
                if node.size and id(node.content) not in visible:
                    later = (at for at, _ in changes.get(node.path, ()) if at > index)
                    yield HiddenFile(node.path, node.size, index, next(later, index), node)


def _visible(versions: list[FileVersion], final: Node | None) -> FileVersion | None:
    """The version at the top of all layers; of a directory that a later layer only implies anew, the last one."""
    if final is None:
        return None
    alike = [v for v in reversed(versions) if v.node is not None and v.node.kind is final.kind]
    return next((version for version in alike if version.origin == final.origin), alike[0] if alike else None)


def _deletion(blob: LayerBlob, path: str) -> tuple[str, Origin]:
    """How a layer deletes a path, and where that is recorded."""
    changeset = blob.changeset()
    for mark in changeset.marks:
        if mark.opaque and path.startswith(mark.path.rstrip("/") + "/"):
            return f"opaque directory {mark.path}", mark.origin
        if not mark.opaque and path == mark.path:
            return "whiteout", mark.origin
        if not mark.opaque and path.startswith(mark.path + "/"):
            return f"whiteout of {mark.path}", mark.origin
    for member in reversed(changeset.members):
        if path.startswith(member.node.path + "/") and member.node.kind is not NodeKind.DIR:
            return f"{member.node.path} is a {member.node.kind} now", member.node.origin
    return "", blob.origin


def _counted(node: Node) -> int:
    return len(byte_order(node.target)) if node.target is not None else node.size
