"""Finding containerd's root in a tree: by its configuration, by default path, and by its shape."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from forensics_lib.errors import ForensicsError
from forensics_lib.trees.base import NodeKind, Tree, join
from forensics_lib.trees.documents import DocumentReader

__all__ = ["CONTENT", "METADATA", "ContainerdRoot", "find_containerd", "is_containerd"]

METADATA = "io.containerd.metadata.v1.bolt/meta.db"
CONTENT = "io.containerd.content.v1.content"
_SNAPSHOTTER = "io.containerd.snapshotter.v1."
_CONFIGS = ("/etc/containerd/config.toml", "/usr/local/etc/containerd/config.toml")
_UNITS = (
    "/etc/systemd/system/containerd.service",
    "/etc/systemd/system/containerd.service.d",
    "/lib/systemd/system/containerd.service",
    "/usr/lib/systemd/system/containerd.service",
)
_DEFAULTS = (
    "/var/lib/containerd",
    "/var/lib/rancher/k3s/agent/containerd",
    "/var/lib/rancher/rke2/agent/containerd",
    "/var/snap/microk8s/common/var/lib/containerd",
    "/var/lib/k0s/containerd",
)
_ROOT_LINE = re.compile(r"""^\s*root\s*=\s*["'](/[^"']+)["']""", re.MULTILINE)
_SECTION = re.compile(r"^\s*\[", re.MULTILINE)
_ROOT_OPTION = re.compile(r"containerd\b[^\n]*?--root[=\s]+[\"']?(/[^\s\"']+)")


@dataclass(frozen=True, slots=True)
class ContainerdRoot:
    """Where containerd's root lies in a tree.

    Attributes:
        path: the folder that holds ``io.containerd.…``.
        found_by: how it was found: ``config.toml``, ``systemd``, ``default path``, ``rootless``, ``shape`` of what was
            copied alone, or a place beside something else.
    """

    path: str
    found_by: str

    def at(self, name: str) -> str:
        """The path of something in the root."""
        return join(self.path, name)


def find_containerd(reader: DocumentReader, near: tuple[tuple[str, str], ...] = ()) -> list[ContainerdRoot]:
    """The roots in a tree, those at likely places first.

    The configuration may name a root that is not in the tree; that is a problem, and the search goes on.

    Args:
        reader: reads the tree.
        near: (path, what it is) of places to look at before all others.
    """
    found: dict[str, ContainerdRoot] = {}
    tree = reader.tree
    for path, how in near:
        _add(found, tree, path, how)
    for path, how in _configured(reader):
        if not _add(found, tree, path, how):
            reader.problems.add(tree.origin, f"{how} names {path} as containerd's root; nothing of containerd is there")
    for path in _DEFAULTS:
        _add(found, tree, path, "default path")
    for home in reader.folder("/home"):
        _add(found, tree, join(home.path, ".local/share/containerd"), "rootless")
    _add(found, tree, "/root/.local/share/containerd", "rootless")
    for path in ("/containerd", "/"):
        _add(found, tree, path, "shape")
    return list(found.values())


def is_containerd(tree: Tree, path: str) -> bool:
    """Whether a folder has the shape of containerd's root: its metadata, its content or a snapshotter."""
    try:
        names = {node.name for node in tree.children(path) if node.kind is NodeKind.DIR}
    except ForensicsError:
        return False
    return (
        join(path, METADATA) in tree
        or CONTENT in names
        or any(name.startswith(_SNAPSHOTTER) and f"{join(path, name)}/metadata.db" in tree for name in names)
    )


def _add(found: dict[str, ContainerdRoot], tree: Tree, path: str, how: str) -> bool:
    if not is_containerd(tree, path):
        return False
    real = tree.resolve(path).path
    found.setdefault(real, ContainerdRoot(real, how))
    return True


def _configured(reader: DocumentReader) -> Iterator[tuple[str, str]]:
    for path in _CONFIGS:
        text = reader.text(path) or ""
        top = text[: section.start()] if (section := _SECTION.search(text)) else text
        for root in _ROOT_LINE.findall(top):
            yield root, "config.toml"
    for path in _UNITS:
        for file in (path, *(node.path for node in reader.folder(path))):
            for root in _ROOT_OPTION.findall(reader.text(file) or ""):
                yield root, "systemd"
