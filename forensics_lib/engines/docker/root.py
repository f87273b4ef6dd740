"""Finding Docker data roots in a tree: by the daemon's configuration, by default path, and by their shape."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from forensics_lib.errors import DamagedData, ForensicsError
from forensics_lib.trees.base import NodeKind, Tree, join
from forensics_lib.trees.documents import DocumentReader

__all__ = ["DataRoot", "find_roots"]

CONTAINER_ID = re.compile(r"[0-9a-f]{64}")
_USERNS = re.compile(r"\d+\.\d+")
_DEFAULTS = ("/var/lib/docker", "/var/snap/docker/common/var-lib-docker")
_SETTINGS = (
    "/etc/docker/daemon.json",
    "/var/snap/docker/current/config/daemon.json",
    "/root/.config/docker/daemon.json",
)
_UNITS = (
    "/etc/systemd/system/docker.service",
    "/etc/systemd/system/docker.service.d",
    "/lib/systemd/system/docker.service",
    "/usr/lib/systemd/system/docker.service",
    "/etc/default/docker",
    "/etc/sysconfig/docker",
)
_ROOT_OPTION = re.compile(r"(?:--data-root|--graph|(?<!\S)-g)[=\s]+[\"']?(/[^\s\"']+)")
_STORES = ("containers", "image", "volumes", "network", "buildkit", "plugins", "swarm", "graph", "runtimes", "trust")
_DRIVERS = ("overlay2", "overlay", "aufs", "vfs", "btrfs", "devicemapper", "zfs", "fuse-overlayfs")
_PARTS = frozenset((*_STORES, *_DRIVERS, "tmp"))
_MAX_DEPTH = 8
_MAX_FOLDERS = 50_000


@dataclass(frozen=True, slots=True)
class DataRoot:
    """Where a Docker data root lies in a tree.

    Attributes:
        path: the folder that holds ``containers``, ``image`` and the rest.
        found_by: how it was found: ``daemon.json``, ``systemd``, ``default path`` or ``shape``.
        parts: paths of parts that lie elsewhere, when only a part of a data root was copied.
    """

    path: str
    found_by: str
    parts: dict[str, str] = field(default_factory=dict)

    def at(self, *names: str) -> str:
        """The path of something in the root."""
        path = self.parts.get(names[0], join(self.path, names[0]))
        for name in names[1:]:
            path = join(path, name)
        return path


def find_roots(reader: DocumentReader) -> list[DataRoot]:
    """All data roots of a tree, those that the daemon's configuration names first.

    The configuration may name a root that is not in the tree; that is a problem, and the search goes on.
    """
    found: dict[str, DataRoot] = {}
    tree = reader.tree
    for path, how in _configured(reader):
        if is_root(tree, path):
            _add(found, tree, path, how)
        else:
            reader.problems.add(tree.origin, f"{how} names {path} as data root; no Docker data is there")
    for path in _DEFAULTS:
        if is_root(tree, path):
            _add(found, tree, path, "default path")
    for path in _by_shape(tree, set(found)):
        _add(found, tree, path, "shape")
    if not found and (part := _partial(tree)) is not None:
        found["/"] = part
    if not found:
        _report_locked(reader)
    return list(found.values())


def _add(found: dict[str, DataRoot], tree: Tree, path: str, how: str) -> None:
    """Take a root and the roots that user namespaces put inside it (``<uid>.<gid>``)."""
    real = tree.resolve(path).path
    if real in found:
        return
    found[real] = DataRoot(real, how)
    for node in tree.children(real):
        if node.kind is NodeKind.DIR and _USERNS.fullmatch(node.name) and is_root(tree, node.path):
            found[node.path] = DataRoot(node.path, f"user namespace of {how}")


def is_root(tree: Tree, path: str) -> bool:
    """Whether a folder has the shape of a data root."""
    try:
        names = {node.name for node in tree.children(path) if node.kind is NodeKind.DIR}
    except ForensicsError:
        return False
    if "image" in names and any(f"{node.path}/layerdb" in tree for node in tree.children(join(path, "image"))):
        return True
    if "containers" in names and _holds_containers(tree, join(path, "containers")):
        return True
    evidence = (("volumes", "metadata.db"), ("network", "files"), ("buildkit", "cache.db"), ("graph", "_tmp"))
    return any(join(join(path, one), two) in tree for one, two in evidence) and len(names & _PARTS) >= 3


def _holds_containers(tree: Tree, path: str) -> bool:
    for node in tree.children(path):
        if CONTAINER_ID.fullmatch(node.name) and node.kind is NodeKind.DIR:
            names = {child.name for child in tree.children(node.path)}
            if names & {"config.v2.json", "config.json", "hostconfig.json"}:
                return True
    return False


def _configured(reader: DocumentReader) -> Iterator[tuple[str, str]]:
    for path in (*_SETTINGS, *_home_settings(reader)):
        if reader.find(path) is not None and (document := reader.document(path)) is not None:
            for key in ("data-root", "graph"):
                if document.object.text(key).startswith("/"):
                    yield document.object.text(key), "daemon.json"
    for path in _UNITS:
        files = [path, *(node.path for node in reader.folder(path))]
        for file in files:
            for option in _ROOT_OPTION.findall(reader.text(file) or ""):
                yield option, "systemd"


def _home_settings(reader: DocumentReader) -> Iterator[str]:
    for home in reader.folder("/home"):
        yield f"{home.path}/.config/docker/daemon.json"


def _by_shape(tree: Tree, known: set[str]) -> Iterator[str]:
    """Folders of the right shape, breadth first; nothing below a root is searched, for it holds whole file systems."""
    folders = ["/"]
    looked_at = 0
    for depth in range(_MAX_DEPTH):
        below: list[str] = []
        for folder in folders:
            if folder in known or any(folder.startswith(f"{root}/") for root in known if root != "/"):
                continue
            looked_at += 1
            if looked_at > _MAX_FOLDERS:
                return
            if is_root(tree, folder):
                known = known | {folder}
                yield folder
            elif depth + 1 < _MAX_DEPTH and folder not in ("/proc", "/sys", "/dev"):
                try:
                    below += [node.path for node in tree.children(folder) if node.kind is NodeKind.DIR]
                except ForensicsError:
                    continue
        folders = below


def _report_locked(reader: DocumentReader) -> None:
    """Say so when a data root was there, but the copy was made without the right to look into it."""
    tree = reader.tree
    for path in ("/docker", *_DEFAULTS):
        node = tree.node(path) if path in tree else None
        if node is not None and node.kind is NodeKind.DIR and not node.mode & 0o4 and not any(tree.children(path)):
            message = (
                f"{path.lstrip('/')} is empty and closed to others (mode {node.mode:04o}): a Docker data root that "
            )
            message += "was copied without the right to read it; everything in it is lost"
            reader.problems.add(node.origin, DamagedData(message, origin=node.origin))


def _partial(tree: Tree) -> DataRoot | None:
    """A copy that starts inside a data root: at its ``containers`` or its ``image`` folder."""
    if _holds_containers(tree, "/"):
        return DataRoot("/", "shape", {"containers": "/"})
    if any(f"{node.path}/layerdb" in tree for node in tree.children("/")):
        return DataRoot("/", "shape", {"image": "/"})
    return None
