"""Overlay file systems as their mount would show them, computed from the layer directories alone.

Rules: Documentation/filesystems/overlayfs.rst and fs/overlayfs of Linux; the marks of fuse-overlayfs and AUFS as those
file systems write them. Nothing is mounted, and no link of the evidence is followed on the examiner's system.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import StrEnum

from forensics_lib.model import Origin, ProblemLog
from forensics_lib.trees.base import Node, NodeKind, Tree, byte_order, device_number, join
from forensics_lib.trees.union import UnionTree, find_directories
from forensics_lib.trees.union_layer import GONE, Gone, Layer

__all__ = ["AufsTree", "Marks", "OverlayTree", "detect_marks"]

_TRUSTED = "trusted.overlay."
_USER = "user.overlay."
_FUSE = "user.fuseoverlayfs."
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_MAX_NAME = 255  # bytes of a name in Linux
_OVERRIDE = "user.containers.override_"
_OVERRIDE_STAT = ("security.fuseoverlayfs.override_stat", _OVERRIDE + "stat", _FUSE + "override_stat")


class Marks(StrEnum):
    """How the layers of an overlay say what they delete, hide and move."""

    TRUSTED = "trusted"
    """The kernel's overlay: devices 0:0 and attributes ``trusted.overlay.*``."""
    USER = "user"
    """The kernel's overlay mounted with ``userxattr`` (rootless): attributes ``user.overlay.*``."""
    FUSE = "fuse"
    """fuse-overlayfs: devices 0:0, ``.wh.`` files and any of the attributes; owner and mode may be in an attribute."""


class OverlayTree(UnionTree):
    """The merged view of an overlay mount.

    Supported: whiteouts (devices 0:0, and empty files with the attribute ``whiteout`` in a directory marked for them),
    opaque directories, relative and absolute redirects, files whose content stays in a lower layer (metacopy) or in a
    data-only one, overlays inside overlays (attributes are shown unescaped by one level), fuse-overlayfs.
    Not supported: the index directory (hard links that stay together over a copy-up, ``index=on``) and checking
    fs-verity digests of metacopy files.

    Redirects and metacopy are followed whatever the mount options said: a mount that refused to follow them would show
    an error in the same place.

    Args:
        layers: the directories, topmost (upper) first, each as a tree and a path in it. A missing one is a problem, the
            others are merged; the numbers of the layers count it.
        data_only: directories that are reached by the absolute redirect of a metacopy file only.
        problems: gets missing layers, marks that contradict themselves and content that is nowhere.
        origin: what the layers belong to.
        marks: how the layers are marked. Pass it where it is known: a process in the container can write
            ``user.overlay.*`` attributes that mean nothing to a ``trusted.overlay.*`` mount. None looks at the root
            directories only (`detect_marks`).

    Attributes:
        marks: how the layers were read.

    Raises:
        PathNotFound: not one layer is there.
    """

    def __init__(
        self,
        layers: Sequence[tuple[Tree, str]],
        *,
        data_only: Sequence[tuple[Tree, str]] = (),
        problems: ProblemLog,
        origin: Origin,
        marks: Marks | None = None,
    ) -> None:
        """Only the root directories are looked at."""
        found = find_directories(layers, problems)
        self.marks = marks or detect_marks([layer[1] for layer in found if layer is not None])
        super().__init__(
            [None if layer is None else _layer(*layer, self.marks, problems) for layer in found],
            data_only=[layer for layer in find_directories(data_only, problems) if layer is not None],
            problems=problems,
            origin=origin,
        )


class AufsTree(UnionTree):
    """The merged view of an AUFS mount: ``.wh.`` files delete, ``.wh..wh..opq`` hides, all other bookkeeping is hidden.

    Args:
        layers: the branches, topmost (writable) first, each as a tree and a path in it. A missing one is a problem.
        problems: gets missing branches.
        origin: what the branches belong to.

    Raises:
        PathNotFound: not one branch is there.
    """

    def __init__(self, layers: Sequence[tuple[Tree, str]], *, problems: ProblemLog, origin: Origin) -> None:
        """Only the root directories are looked at."""
        found = find_directories(layers, problems)
        branches = [None if layer is None else _NamedMarks(*layer) for layer in found]
        super().__init__(branches, problems=problems, origin=origin)


def detect_marks(roots: Sequence[Node]) -> Marks:
    """How an overlay is marked, by the attributes of its layers' root directories; TRUSTED where they say nothing.

    The kernel marks the root of an upper directory (``uuid``, ``impure``), fuse-overlayfs only one that stores owners.
    """
    names = [name for root in roots for name in root.xattrs]
    for prefix, marks in ((_TRUSTED, Marks.TRUSTED), (_USER, Marks.USER)):
        if any(name.startswith(prefix) for name in names):
            return marks
    return Marks.FUSE if any(name in _OVERRIDE_STAT for name in names) else Marks.TRUSTED


def _layer(tree: Tree, root: Node, marks: Marks, problems: ProblemLog) -> Layer:
    if marks is Marks.FUSE:
        return _FuseMarks(tree, root, problems)
    return _KernelMarks(tree, root, _TRUSTED if marks is Marks.TRUSTED else _USER, problems)


class _KernelMarks(Layer):
    """A layer of the kernel's overlay file system."""

    def __init__(self, tree: Tree, root: Node, prefix: str, problems: ProblemLog) -> None:
        super().__init__(tree, root)
        self.prefix = prefix
        self._problems = problems

    def listing(self, directory: Node) -> dict[str, Node | Gone]:
        marked = self._has_whiteout_files(directory)
        return {node.name: self._judge(node, marked) for node in self.tree.entries(directory.path)}

    def find(self, directory: Node, name: str) -> Node | Gone | None:
        node = self.tree.find(join(directory.path, name))
        return None if node is None else self._judge(node, self._has_whiteout_files(directory))

    def opaque(self, directory: Node) -> bool:
        return directory.xattrs.get(self.prefix + "opaque") == b"y"

    def redirect(self, node: Node) -> str | None:
        value = node.xattrs.get(self.prefix + "redirect")
        return None if value is None else value.split(b"\0")[0].decode("utf-8", "surrogateescape")

    def borrows(self, node: Node) -> bool:
        value = node.xattrs.get(self.prefix + "metacopy") if node.xattrs else None
        if value is None:
            return False
        if value and (len(value) < 4 or struct.unpack_from("BB", value) != (0, len(value))):
            self._problems.add(node.origin, f"{node.path}: metacopy attribute {value[:40].hex()} is damaged")
        return True

    def shown(self, node: Node) -> Node:
        if not any(name.startswith(self.prefix) for name in node.xattrs):
            return node
        escaped = self.prefix + "overlay."
        xattrs = {}
        for name, value in node.xattrs.items():
            if name.startswith(escaped):
                xattrs[self.prefix + name[len(escaped) :]] = value
            elif not name.startswith(self.prefix):
                xattrs[name] = value
        return replace(node, xattrs=xattrs)

    def same(self, other: Layer) -> bool:
        return isinstance(other, _KernelMarks) and self.prefix == other.prefix and super().same(other)

    def _has_whiteout_files(self, directory: Node) -> bool:
        xattrs = directory.xattrs
        return bool(xattrs) and (xattrs.get(self.prefix + "opaque") == b"x" or self.prefix + "whiteouts" in xattrs)

    def _judge(self, node: Node, marked: bool) -> Node | Gone:
        if _is_whiteout_device(node):
            return GONE
        if marked and node.kind is NodeKind.FILE and not node.size and self.prefix + "whiteout" in node.xattrs:
            return GONE
        return node


class _NamedMarks(Layer):
    """A branch of AUFS: files whose names start with ``.wh.`` are marks."""

    def listing(self, directory: Node) -> dict[str, Node | Gone]:
        nodes = {node.name: node for node in self.tree.entries(directory.path)}
        found: dict[str, Node | Gone] = {
            name: GONE if self._is_whiteout(node) else node
            for name, node in nodes.items()
            if not name.startswith(_WHITEOUT)
        }
        deleted = (name[len(_WHITEOUT) :] for name in nodes if name.startswith(_WHITEOUT))
        found.update((name, GONE) for name in deleted if name and not name.startswith(_WHITEOUT))
        return found

    def find(self, directory: Node, name: str) -> Node | Gone | None:
        if name.startswith(_WHITEOUT):
            return None
        room = len(byte_order(name)) <= _MAX_NAME - len(_WHITEOUT)
        if room and self.tree.find(join(directory.path, _WHITEOUT + name)) is not None:
            return GONE
        node = self.tree.find(join(directory.path, name))
        return GONE if node is not None and self._is_whiteout(node) else node

    def opaque(self, directory: Node) -> bool:
        return self.tree.find(join(directory.path, _OPAQUE)) is not None

    def hides_all_below(self) -> bool:
        return self.opaque(self.root)

    def _is_whiteout(self, node: Node) -> bool:
        return False


class _FuseMarks(_NamedMarks):
    """A layer of fuse-overlayfs: it makes marks of every kind, and keeps owners and modes it may not set."""

    def __init__(self, tree: Tree, root: Node, problems: ProblemLog) -> None:
        super().__init__(tree, root)
        self._problems = problems
        self._overrides = next((name for name in _OVERRIDE_STAT if name in root.xattrs), "")

    def opaque(self, directory: Node) -> bool:
        marks = (directory.xattrs.get(prefix + "opaque", b"") for prefix in (_TRUSTED, _USER, _FUSE))
        return any(mark.startswith(b"y") for mark in marks) or super().opaque(directory)

    def shown(self, node: Node) -> Node:
        hide_security = self._overrides == _OVERRIDE + "stat"
        xattrs = {}
        for name, value in node.xattrs.items():
            inner = name.removeprefix(_OVERRIDE)
            if inner != name and _is_internal(inner, hide_security):
                xattrs[inner] = value
            elif not _is_internal(name, hide_security) and name not in _OVERRIDE_STAT:
                xattrs[name] = value
        return self._with_status(replace(node, xattrs=xattrs), node.xattrs)

    def _with_status(self, node: Node, xattrs: Mapping[str, bytes]) -> Node:
        """The node with the owner, mode and kind that an attribute records (``uid:gid:mode[:type]``)."""
        value = next((xattrs[name] for name in _OVERRIDE_STAT if name in xattrs), None)
        if not self._overrides or value is None or node.kind not in (NodeKind.FILE, NodeKind.DIR):
            return node
        text = value.rstrip(b"\0").decode("ascii", "replace")
        try:
            uid, gid, mode, *kind = text.split(":", 3)
            node = replace(node, uid=int(uid), gid=int(gid), mode=int(mode, 8) & 0o7777)
            return _with_kind(node, kind[0]) if kind else node
        except ValueError:
            self._problems.add(node.origin, f"{node.path}: owner and mode recorded as {text[:40]!r} cannot be read")
            return node

    def _is_whiteout(self, node: Node) -> bool:
        return _is_whiteout_device(node)


def _is_whiteout_device(node: Node) -> bool:
    return node.kind is NodeKind.CHAR and not node.rdev


def _is_internal(name: str, hide_security: bool) -> bool:
    """Whether fuse-overlayfs keeps an attribute to itself."""
    return name.startswith((_TRUSTED, _USER, _FUSE)) or (hide_security and name.startswith("security."))


def _with_kind(node: Node, text: str) -> Node:
    """A node of the recorded kind: ``file``, ``dir``, ``pipe``, ``socket``, ``block-8-0``, ``char-1-3``.

    Raises:
        ValueError: the kind is unknown, or contradicts what is stored.
    """
    name, *numbers = text.split("-")
    if name == node.kind:
        return node
    kind = {"pipe": NodeKind.FIFO, "socket": NodeKind.SOCKET, "block": NodeKind.BLOCK, "char": NodeKind.CHAR}.get(name)
    if kind is None or node.kind is not NodeKind.FILE:
        raise ValueError(text)
    rdev = 0
    if kind in (NodeKind.BLOCK, NodeKind.CHAR):
        major, minor = numbers
        rdev = device_number(int(major), int(minor))
    return replace(node, kind=kind, size=0, rdev=rdev, content=None)
