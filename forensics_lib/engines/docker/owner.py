"""Whose a directory, a file or an id of a data root is: from what was found on the disk back to who put it there."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from forensics_lib.engines.containerd.root import CONTENT
from forensics_lib.engines.containerd.snapshotter import FOLDER
from forensics_lib.engines.docker.drivers import DRIVERS, GraphDriver
from forensics_lib.engines.docker.ownership import Owner, OwnerKind, Ownership, container_owner, interrupted
from forensics_lib.engines.docker.snapshots import SnapshotDriver
from forensics_lib.errors import AmbiguousName, ForensicsError
from forensics_lib.model import Origin
from forensics_lib.trees.base import Node, NodeKind, join, parent_of

if TYPE_CHECKING:
    from forensics_lib.engines.docker.engine import DockerRoot

__all__ = ["OrphanLayer", "Owners", "find_owners"]

_ID = re.compile(r"[0-9a-f]{64}|[0-9a-z]{25}|[A-Z2-7]{26}")
_BUILD_ID = re.compile(r"[0-9a-z]{25}")
_LOGS = ("local-logs", "container-cached.log")
_SUBFOLDERS = frozenset(["diff", "layers", "mnt", "dir", "subvolumes", "quotas", "metadata", "graph"])
_DRIVERS = frozenset([*DRIVERS, "devicemapper", "zfs"])
_ENGINE = {
    "buildkit": "data of BuildKit",
    "containerd": "data of the containerd that the daemon runs",
    "containers": "the containers' records",
    "engine-id": "id of the daemon",
    "graph": "the records of images before Docker 1.10",
    "image": "the records of images and layers",
    "linkgraph.db": "the names of containers before Docker 1.10",
    "network": "the records of networks",
    "plugins": "plugins",
    "rootfs": "mount points of containers",
    "runtimes": "scripts of runtimes",
    "swarm": "state of the swarm",
    "tmp": "scratch of pulls, builds and imports",
    "tmp-old": "scratch of pulls, builds and imports",
    "trust": "keys of content trust",
    "volumes": "the volumes and their records",
}


@dataclass(frozen=True, slots=True)
class OrphanLayer:
    """A directory of a storage driver that no record names; its files are whole unless the removal was under way.

    Attributes:
        driver: the storage driver.
        id: the directory's name.
        path: where it lies in the tree.
        likely: what it was, as far as the directory itself tells.
        origin: the directory.
    """

    driver: str
    id: str
    path: str
    likely: str
    origin: Origin


def find_owners(dockers: Iterable[DockerRoot], path_or_id: str) -> list[Owner]:
    """The owners in any of several data roots; what one of them knows is no orphan.

    Raises:
        AmbiguousName: it is the start of several ids.
    """
    found = [owner for docker in dockers for owner in docker.owners.of(path_or_id)]
    return [owner for owner in found if owner.kind is not OwnerKind.ORPHAN] or found


class Owners:
    """Answers for one data root."""

    def __init__(self, docker: DockerRoot) -> None:
        """Nothing is read yet."""
        self._docker = docker
        self._tree = docker.reader.tree
        self._known = Ownership(docker)

    def of(self, path_or_id: str) -> list[Owner]:
        """Everybody to whom something belongs, the closest first; nobody when nothing of it is known.

        Args:
            path_or_id: a path in the tree, on the host, or below the data root; or the id or its unique start of a
                container, image, layer (chain id, diff id, directory, short link), network, volume, BuildKit record or
                build; or a name.

        Raises:
            AmbiguousName: it is the start of several ids.
        """
        parts = self._below_containerd(path_or_id)
        if parts is not None:
            return _distinct(self._in_containerd(parts))
        parts = self._below_root(path_or_id)
        if parts is not None:
            return _distinct(self._of_path(parts))
        return _distinct(self._binds(path_or_id) if "/" in path_or_id else self._of_id(path_or_id))

    @cached_property
    def orphans(self) -> list[OrphanLayer]:
        """The directories of the storage drivers that no record names: neither Docker's nor BuildKit's."""
        found = []
        for name in self._drivers:
            driver = self._docker.driver(name)
            names = set(driver.directories())
            if isinstance(driver, SnapshotDriver):
                known = driver.snapshotter.snapshots
                found += [self._orphan(driver, one, names) for one in self._without_owner(driver, names) if known]
                continue
            places = [self._docker.root.at("image", name), self._docker.root.at("graph")]
            if names and not any(place in self._tree for place in places):
                message = f"image/{name} is missing, so that nothing tells whose the {len(names)} layers of {name} are"
                self._docker.reader.problems.add(self._tree.origin.to(driver.home.lstrip("/")), message)
            found += [self._orphan(driver, one, names) for one in self._without_owner(driver, names)]
        return found

    def _without_owner(self, driver: GraphDriver, names: Iterable[str]) -> Iterator[str]:
        return (one for one in sorted(names) if not self._known.folders.get(driver.folder(one)))

    @property
    def _drivers(self) -> list[str]:
        """Storage drivers with records, then those that left nothing but layers."""
        present = [name for name in DRIVERS if self._docker.root.at(name) in self._tree]
        return list(dict.fromkeys([*self._docker.storage_drivers, *self._docker.drivers_before_1_10, *present]))

    def _orphan(self, driver: GraphDriver, name: str, names: set[str]) -> OrphanLayer:
        path = driver.folder(name)
        if isinstance(driver, SnapshotDriver):
            snapshot = driver.snapshotter.by_id.get(name)
            likely = f"snapshot {snapshot.key}" if snapshot is not None else ""
        elif name.endswith("-init"):
            likely = "init layer of a container"
        elif f"{name}-init" in names:
            likely = "writable layer of a container"
        elif _BUILD_ID.fullmatch(name):
            likely = "build step"
        elif join(path, "committed") in self._tree:
            likely = "layer below others"
        else:
            likely = ""
        return OrphanLayer(driver.name, name, path, likely, self._tree.origin.to(path.lstrip("/")))

    def _below_containerd(self, text: str) -> list[str] | None:
        """The path below containerd's root; None for what does not lie there, and for ids."""
        store = self._docker.store
        if store is None or "/" not in text:
            return None
        path = posixpath.normpath(f"/{text.lstrip('/')}")
        own, docker, real = store.containerd.root.path, self._docker.root.path, self._docker.real_root
        bases = [own]
        for start, host in ((docker, real), (parent_of(docker), parent_of(real))):
            if _inside(own, start) is not None:
                bases.append(posixpath.normpath(f"{host}/{own.removeprefix(start)}"))
        found = (_inside(path, base) for base in bases)
        return next((parts for parts in found if parts is not None), None)

    def _in_containerd(self, parts: Sequence[str]) -> Iterable[Owner]:
        store = self._docker.store
        if store is None:
            return ()
        root = store.containerd.root
        origin = store.containerd.reader.origin.to("/".join((root.path, *parts)).lstrip("/"))
        match parts:
            case [folder, "snapshots" | "active" | "view", name, *_] if (
                folder.removeprefix(FOLDER) in store.snapshotters
            ):
                return self._in_driver(folder.removeprefix(FOLDER), name)
            case [folder, "blobs", _, name, *_] if folder == CONTENT:
                unused = Owner(OwnerKind.ORPHAN, name, "", "blob that no image and no build has", origin)
                return self._known.ids.get(name) or [unused]
        return [Owner(OwnerKind.ENGINE, "", "", "data of containerd", origin)]

    def _below_root(self, text: str) -> list[str] | None:
        """The path below the data root; None for what does not lie there, and for ids."""
        if "/" not in text:
            return [text] if _known(text) else None
        path = posixpath.normpath(f"/{text.lstrip('/')}")
        root = self._docker.root
        for name, folder in root.parts.items():
            if path in self._tree and (inside := _inside(path, folder)) is not None:
                return [name, *inside]
        for base in (root.path, self._docker.real_root):
            inside = _inside(path, base)
            if inside is not None and (base != "/" or not inside or _known(inside[0])):
                return inside
        if not text.startswith("/") and _known(path.split("/")[1]):
            return path.split("/")[1:]
        try:  # by way of a symbolic link of the host
            return _inside(self._tree.resolve(path).path, root.path) if root.path != "/" else None
        except ForensicsError:
            return None

    def _of_path(self, parts: Sequence[str]) -> Iterable[Owner]:
        ids = self._known.ids
        match parts:
            case ["containers", name, *rest]:
                return self._in_container(name, rest)
            case ["image", driver, "layerdb", "sha256" | "tmp", name, *_]:
                return self._in_layer_records(driver, name)
            case ["image", _, "layerdb", "mounts", name, *_]:
                return ids.get(name, ())
            case ["image", _, "imagedb" | "distribution", _, "sha256", name, *_]:
                return ids.get(name) or [self._engine(parts, "record of a digest that nothing in the store has")]
            case ["buildkit", "content", "blobs", "sha256", name] | ["graph", name, *_] if name in ids:
                return ids[name]
            case ["rootfs", _, *rest] if rest:
                starts = ("/".join(rest[:length]) for length in range(1, len(rest) + 1))
                return next((ids[start] for start in starts if start in ids), ())
            case ["volumes", name, *rest] if name != "metadata.db":
                return self._in_volumes(name, rest)
            case [driver, "l", link, *_] if driver in _DRIVERS:
                return self._behind_link(driver, link)
            case [driver, folder, name, *_] if driver in _DRIVERS and folder in _SUBFOLDERS:
                return self._in_driver(driver, name.removesuffix("-removing"))
            case [driver, name, *_] if driver in _DRIVERS and name != "l":
                return self._in_driver(driver, name)
            case [driver, *_] if driver in _DRIVERS:
                return [self._engine(parts, f"the layers of the storage driver {driver}")]
            case [name, *_] if name in _ENGINE:
                return [self._engine(parts, _ENGINE[name])]
            case []:
                return [self._engine(parts, "the data root")]
        return ()

    def _of_id(self, text: str) -> Iterable[Owner]:
        wanted = text.removeprefix("sha256:")
        if wanted in self._known.ids:
            return self._known.ids[wanted]
        fits = [name for name in self._known.ids if wanted and name.startswith(wanted) and _ID.fullmatch(name)]
        if len(fits) > 1:
            raise AmbiguousName(f"{text!r} fits {len(fits)} ids", tuple(sorted(fits)))
        if fits:
            return self._known.ids[fits[0]]
        links = (self._behind_link(name, wanted) for name in self._drivers) if _ID.fullmatch(wanted) else ()
        return [owner for owners in links for owner in owners]

    def _in_container(self, name: str, rest: Sequence[str]) -> Iterable[Owner]:
        record = self._known.containers.get(name)
        if record is None:
            known = self._known.ids.get(name)
            if not known and self._is_folder(self._docker.root.at("containers", name)):
                origin = self._origin(["containers", name])
                return [Owner(OwnerKind.CONTAINER, name, "", "its records cannot be read", origin)]
            return known or ()
        if rest and rest[0].startswith((f"{name}-json.log", *_LOGS)):
            path = join(record.folder, "/".join(rest))
            detail = f"log of the driver {record.parts.log_driver}" if record.parts.log_driver else "log"
            return [Owner(OwnerKind.LOG, name, record.parts.name, detail, self._tree.origin.to(path.lstrip("/")))]
        is_read = record.config.raw or record.host_config.raw
        return [
            container_owner(record, "its records" if is_read else "its records cannot be read", record.config_origin)
        ]

    def _in_volumes(self, name: str, rest: Sequence[str]) -> Iterable[Owner]:
        if name in self._known.volumes:
            return self._known.volumes[name]
        if self._is_folder(self._docker.root.at("volumes", name)):
            return [Owner(OwnerKind.ORPHAN, name, "", "a folder that is no volume", self._origin(["volumes", name]))]
        return () if rest else [self._engine(["volumes", name], _ENGINE["volumes"])]

    def _in_driver(self, driver_name: str, name: str) -> Iterable[Owner]:
        driver = self._docker.driver(driver_name)
        known = self._known.folders.get(driver.folder(name))
        if known:
            return known
        is_folder = driver.exists(name)
        is_name = isinstance(driver, SnapshotDriver) or _ID.fullmatch(name.removesuffix("-init")) is not None
        if not is_folder and not is_name:
            return [self._engine([driver_name, name], f"a file of the storage driver {driver_name}")]
        orphan = self._orphan(driver, name, set(driver.directories()))
        why = "no record names it" if is_folder else "no record names it, and it is not in the evidence"
        detail = f"{orphan.likely}: {why}" if orphan.likely else why
        return [Owner(OwnerKind.ORPHAN, name, "", detail, orphan.origin)]

    def _behind_link(self, driver_name: str, link: str) -> Iterable[Owner]:
        """Owners of the directory that overlay2's short name stands for, by the link or by the directory's own word."""
        driver = self._docker.driver(driver_name)
        node = self._node(join(join(driver.home, "l"), link))
        parts = (node.target or "").split("/") if node is not None else []
        if len(parts) == 3 and parts[0] == "..":
            return self._in_driver(driver_name, parts[1])
        for name in driver.directories():
            if self._docker.reader.text(join(driver.folder(name), "link")) == link:
                return self._in_driver(driver_name, name)
        return ()

    def _in_layer_records(self, driver: str, name: str) -> Iterator[Owner]:
        """Owners of a layer by its record, also one that is being written or removed."""
        records = self._docker.layer_db(driver)
        if f"sha256:{name}" in records.layers:
            yield from self._known.of_layer(records, records.layers[f"sha256:{name}"])
        for layer in (*records.removing, *records.unfinished):
            if layer.path.rpartition("/")[2] == name:
                yield interrupted(layer)

    def _binds(self, text: str) -> Iterator[Owner]:
        """Containers that a folder of the host was mounted into."""
        path = posixpath.normpath(f"/{text.lstrip('/')}")
        for record in self._docker.records:
            for mount in record.parts.mounts:
                if mount.type == "bind" and mount.source and _inside(path, mount.source) is not None:
                    yield container_owner(record, f"mounts it at {mount.destination}", record.config_origin)

    def _node(self, path: str) -> Node | None:
        try:
            return self._tree.node(path)
        except ForensicsError:
            return None

    def _is_folder(self, path: str) -> bool:
        node = self._node(path)
        return node is not None and node.kind is NodeKind.DIR

    def _engine(self, parts: Sequence[str], detail: str) -> Owner:
        return Owner(OwnerKind.ENGINE, "", "", detail, self._origin(parts))

    def _origin(self, parts: Sequence[str]) -> Origin:
        path = self._docker.root.at(*parts) if parts else self._docker.root.path
        return self._tree.origin.to(path.lstrip("/"))


def _inside(path: str, folder: str) -> list[str] | None:
    """The rest of a path below a folder; None when it does not lie there."""
    start = folder.rstrip("/")
    if path != folder and not path.startswith(f"{start}/"):
        return None
    return [part for part in path[len(start) :].split("/") if part]


def _known(name: str) -> bool:
    return name in _ENGINE or name in _DRIVERS


def _distinct(owners: Iterable[Owner]) -> list[Owner]:
    return list(dict.fromkeys(owners))
