"""Finding Docker data roots in a tree: by the daemon's configuration, by default path, and by their shape."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from forensics_lib.engines.docker.shape import CONTAINER_ID, is_root, part_at, parts_in
from forensics_lib.engines.docker.usernamespace import USERNS
from forensics_lib.errors import DamagedData, ForensicsError
from forensics_lib.trees.base import Node, NodeKind, Tree, join
from forensics_lib.trees.documents import DocumentReader

__all__ = ["DataRoot", "find_roots"]

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
_PART = "shape of a part"
_ELSEWHERE = "/not in the evidence"
_MAX_DEPTH = 8
_MAX_FOLDERS = 50_000


@dataclass(frozen=True, slots=True)
class DataRoot:
    """Where a Docker data root lies in a tree.

    Attributes:
        path: the folder that holds ``containers``, ``image`` and the rest.
        found_by: how it was found: ``daemon.json``, ``systemd``, ``default path``, ``shape`` or, where only parts of a
            data root were copied, ``shape of a part``.
        parts: where parts lie that are not in the folder under their own names: a copy may start at ``containers``, at
            ``containers/<id>`` or at ``image``.
    """

    path: str
    found_by: str
    parts: dict[str, str] = field(default_factory=dict)

    def at(self, *names: str) -> str:
        """The path of something in the root."""
        whole = "/".join(names)
        for part, path in self.parts.items():
            if whole == part or whole.startswith(f"{part}/"):
                return join(path, whole[len(part) + 1 :]) if len(whole) > len(part) else path
        # where the copy starts at a part, what has the name of another lies inside it
        return join(_ELSEWHERE if self.path in self.parts.values() else self.path, whole)

    def containers(self, reader: DocumentReader) -> dict[str, Node]:
        """The folders of containers by id."""
        nodes = [node for node in reader.folder(self.at("containers")) if CONTAINER_ID.fullmatch(node.name)]
        alone = [part for part in self.parts if part.startswith("containers/")]
        return {node.name: node for node in nodes if node.kind is NodeKind.DIR} | {
            part.removeprefix("containers/"): reader.tree.node(self.parts[part]) for part in alone
        }


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
    if not found and not is_root(tree, "/") and (part := part_at(tree, "/", tree.origin.label)):
        return [DataRoot("/", _PART, part)]  # what lies below may be whole file systems of containers
    partial: dict[str, DataRoot] = {}
    for path in _by_shape(tree, set(found), partial):
        _add(found, tree, path, "shape")
    if not found and not partial:
        _report_locked(reader)
    return list((found or partial).values())


def _add(found: dict[str, DataRoot], tree: Tree, path: str, how: str) -> None:
    """Take a root and the roots that user namespaces put inside it (``<uid>.<gid>``)."""
    real = tree.resolve(path).path
    if real in found:
        return
    found[real] = DataRoot(real, how)
    for node in tree.children(real):
        if node.kind is NodeKind.DIR and USERNS.fullmatch(node.name) and is_root(tree, node.path):
            found[node.path] = DataRoot(node.path, f"user namespace of {how}")


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


def _by_shape(tree: Tree, known: set[str], partial: dict[str, DataRoot]) -> Iterator[str]:
    """Folders of the right shape, breadth first; nothing below a root is searched, for it holds whole file systems.

    Folders that hold but parts of a root go to `partial`.
    """
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
            elif parts_in(tree, folder):
                partial[folder] = DataRoot(folder, _PART)
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
