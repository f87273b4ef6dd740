"""The shapes by which a Docker data root is known where nothing names it, and each of its parts when copied alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping

from forensics_lib.errors import ForensicsError
from forensics_lib.formats.jsondoc import JsonObject, parse
from forensics_lib.trees.base import Node, NodeKind, Tree, join

__all__ = ["CONTAINER_ID", "container_id_at", "is_root", "part_at", "parts_in"]

CONTAINER_ID = re.compile(r"[0-9a-f]{64}")
_LOG = re.compile(r"([0-9a-f]{64})-json\.log")
_STORES = ("containers", "image", "volumes", "network", "buildkit", "plugins", "swarm", "graph", "runtimes", "trust")
_DRIVERS = ("overlay2", "overlay", "aufs", "vfs", "btrfs", "devicemapper", "zfs", "fuse-overlayfs")
_NAMES = frozenset((*_STORES, *_DRIVERS, "tmp"))
_RECORDS = frozenset(("config.v2.json", "config.json", "hostconfig.json"))
_OF_PODMAN = ("storage.lock", "libpod", "overlay-images", "vfs-images", "btrfs-images", "overlay-layers")
_MAX_LOOKED_AT = 64


def is_root(tree: Tree, path: str) -> bool:
    """Whether a folder has the shape of a data root."""
    if not _has_names(tree, path):
        return False
    names = {node.name for node in _folders(tree, path)}
    if "image" in names and _holds_images(tree, join(path, "image")):
        return True
    if "containers" in names and _holds_containers(tree, join(path, "containers")):
        return True
    evidence = (("volumes", "metadata.db"), ("network", "files"), ("buildkit", "cache.db"), ("graph", "_tmp"))
    return any(join(join(path, one), two) in tree for one, two in evidence) and len(names & _NAMES) >= 3


def parts_in(tree: Tree, path: str) -> list[str]:
    """The parts of a data root that a folder holds under their own names."""
    if not _has_names(tree, path):
        return []
    found = [node.name for node in _folders(tree, path) if node.name in _PARTS and _PARTS[node.name](tree, node.path)]
    return found if found and not any(join(path, name) in tree for name in _OF_PODMAN) else []


def _has_names(tree: Tree, path: str) -> bool:
    """Whether anything in a folder is called like a part of a data root, which most folders are spared by."""
    try:
        directory = tree.resolve(path)
        return directory.kind is NodeKind.DIR and not _NAMES.isdisjoint(tree.names(directory.path))
    except ForensicsError:
        return False


def part_at(tree: Tree, path: str, name: str) -> dict[str, str]:
    """The part of a data root that a folder is, as `DataRoot.parts` has it; empty when it is none.

    Args:
        tree: holds the folder.
        path: of the folder.
        name: what the folder was called where it was copied from, as far as that is known.
    """
    container = container_id_at(tree, path, name)
    if container:
        return {f"containers/{container}": path}
    likely = sorted(_PARTS, key=lambda part: not name.startswith(part))
    return next(({part: path} for part in likely if _PARTS[part](tree, path)), {})


def container_id_at(tree: Tree, path: str, name: str) -> str:
    """The id of the container whose folder this is; empty when it is none, or when nothing tells the id."""
    nodes = {node.name: node for node in _children(tree, path)}
    logs = [match[1] for one in nodes if (match := _LOG.match(one))]
    if not logs and not {"config.v2.json", "hostconfig.json"} & nodes.keys():
        return ""
    stated = [_stated(nodes[one]) for one in ("config.v2.json", "config.json") if one in nodes]
    return next((one for one in (name, *stated, *logs) if CONTAINER_ID.fullmatch(one)), "")


def _stated(node: Node) -> str:
    try:
        value = parse(node.read(), node.origin) if node.kind is NodeKind.FILE else None
    except ForensicsError:  # whoever reads the record says so
        return ""
    return JsonObject(value if isinstance(value, dict) else {}).text("ID")


def _holds_containers(tree: Tree, path: str) -> bool:
    for node in _folders(tree, path):
        if CONTAINER_ID.fullmatch(node.name):
            names = {child.name for child in _children(tree, node.path)}
            if names & {*_RECORDS, f"{node.name}-json.log", "local-logs", "container-cached.log"}:
                return True
    return False


def _holds_images(tree: Tree, path: str) -> bool:
    return any(f"{node.path}/{name}" in tree for node in _folders(tree, path) for name in ("layerdb", "imagedb"))


def _holds_overlays(tree: Tree, path: str) -> bool:
    """overlay2's directories: Podman's look the same, but for marks that only Docker sets."""
    names = [node.name for node in _folders(tree, path)]
    if join(path, "l") not in tree or not any(_is_layer(tree, join(path, one)) for one in _first(names)):
        return False
    committed = any(f"{join(path, one)}/committed" in tree for one in _first(names))
    return path.endswith("/overlay2") or committed or any(one.endswith("-init") for one in names)


def _holds_volumes(tree: Tree, path: str) -> bool:
    is_named = path.endswith("/volumes") or any(f"{node.path}/_data" in tree for node in _folders(tree, path))
    return is_named and join(path, "metadata.db") in tree


def _is_layer(tree: Tree, path: str) -> bool:
    return f"{path}/diff" in tree and any(f"{path}/{name}" in tree for name in ("link", "lower", "work"))


def _ids_in(folder: str) -> Callable[[Tree, str], bool]:
    def hold(tree: Tree, path: str) -> bool:
        return any(CONTAINER_ID.match(node.name) for node in _children(tree, join(path, folder)))

    return hold


def _having(*names: str) -> Callable[[Tree, str], bool]:
    def hold(tree: Tree, path: str) -> bool:
        return all(join(path, name) in tree for name in names)

    return hold


_PARTS: Mapping[str, Callable[[Tree, str], bool]] = {
    "containers": _holds_containers,
    "image": _holds_images,
    "overlay2": _holds_overlays,
    "fuse-overlayfs": _holds_overlays,
    "aufs": _ids_in("layers"),
    "vfs": _ids_in("dir"),
    "btrfs": _ids_in("subvolumes"),
    "devicemapper": _having("devicemapper", "metadata"),
    "volumes": _holds_volumes,
    "network": _having("files/local-kv.db"),
}


def _first(names: Iterable[str]) -> list[str]:
    return [name for name in names if name != "l"][:_MAX_LOOKED_AT]


def _folders(tree: Tree, path: str) -> Iterator[Node]:
    return (node for node in _children(tree, path) if node.kind is NodeKind.DIR)


def _children(tree: Tree, path: str) -> Iterator[Node]:
    try:
        yield from tree.children(path)
    except ForensicsError:
        return
