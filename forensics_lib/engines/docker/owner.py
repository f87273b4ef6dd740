"""Whose a directory, a file or an id of a data root is: from what was found on the disk back to who put it there."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING

from forensics_lib.engines.docker.containers import ContainerRecord
from forensics_lib.engines.docker.drivers import DRIVERS, GraphDriver
from forensics_lib.engines.docker.layerdb import LayerDb, LayerRecord, MountRecord
from forensics_lib.errors import AmbiguousName, NotFound
from forensics_lib.model import Origin
from forensics_lib.trees.base import NodeKind, join

if TYPE_CHECKING:
    from forensics_lib.engines.docker.engine import DockerRoot
    from forensics_lib.images.image import Image

__all__ = ["OrphanLayer", "Owner", "OwnerKind", "Owners", "find_owners"]

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


class OwnerKind(StrEnum):
    """What kind of thing an owner is."""

    CONTAINER = "container"
    CONTAINER_INIT = "container-init"
    """The layer below a container's own that holds what Docker puts into every container."""
    IMAGE = "image"
    IMAGE_LAYER = "image-layer"
    IMAGE_MOUNT = "image-mount"
    """A layer over an image that is mounted into a container, or was in a build."""
    BUILD_CACHE = "build-cache"
    VOLUME = "volume"
    NETWORK = "network"
    LOG = "log"
    ORPHAN = "orphan"
    """A directory that no record names."""
    ENGINE = "engine"
    """The engine itself."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Somebody to whom a path or id belongs.

    Attributes:
        kind: what it is.
        id: full id; of a layer that of the image, or its chain id where no image has it.
        name: names; empty where there are none.
        detail: in which way it is the owner's.
        origin: the record that says so; for orphans the directory.
    """

    kind: OwnerKind
    id: str
    name: str
    detail: str
    origin: Origin


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

    def of(self, path_or_id: str) -> list[Owner]:
        """Everybody to whom something belongs, the closest first; nobody when nothing of it is known.

        Args:
            path_or_id: a path in the tree, on the host, or below the data root; or the id or its unique start of a
                container, image, layer (chain id, diff id, directory, short link), network, volume, BuildKit record or
                build; or a name.

        Raises:
            AmbiguousName: it is the start of several ids.
        """
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
            places = [self._docker.root.at("image", name), self._docker.root.at("graph")]
            if names and not any(place in self._tree for place in places):
                message = f"image/{name} is missing, so that nothing tells whose the {len(names)} layers of {name} are"
                self._docker.reader.problems.add(self._tree.origin.to(driver.home.lstrip("/")), message)
            found += [
                self._orphan(driver, one, names) for one in sorted(names) if not self._by_folder.get(driver.folder(one))
            ]
        return found

    @property
    def _drivers(self) -> list[str]:
        """Storage drivers with records, then those that left nothing but layers."""
        present = [name for name in DRIVERS if self._docker.root.at(name) in self._tree]
        return list(dict.fromkeys([*self._docker.storage_drivers, *self._docker._drivers_before_1_10, *present]))

    def _orphan(self, driver: GraphDriver, name: str, names: set[str]) -> OrphanLayer:
        path = driver.folder(name)
        if name.endswith("-init"):
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
        try:
            return _inside(self._tree.resolve(path).path, root.path) if root.path != "/" else None
        except NotFound:
            return None

    def _of_path(self, parts: Sequence[str]) -> Iterable[Owner]:
        match parts:
            case ["containers", name, *rest]:
                return self._in_container(name, rest)
            case ["image", driver, "layerdb", "sha256" | "tmp", name, *_] if not _ID.fullmatch(name):
                return self._interrupted(driver, name)
            case ["image", _, "layerdb", "sha256" | "mounts", name, *_]:
                return self._by_id.get(name, ())
            case ["image", _, "imagedb" | "distribution", _, "sha256", name, *_]:
                return self._by_id.get(name) or [self._engine(parts, "a digest that nothing in the store has")]
            case ["buildkit", "content", "blobs", "sha256", name]:
                return self._by_id.get(name) or [self._engine(parts, _ENGINE["buildkit"])]
            case ["rootfs", _, name, *_] | ["graph", name, *_] if name in self._by_id:
                return self._by_id[name]
            case ["volumes", name, *_] if name in self._by_id:
                return self._by_id[name]
            case ["volumes", name, *_] if self._is_folder(parts[:2]):
                return [Owner(OwnerKind.ORPHAN, name, "", "a folder that is no volume", self._origin(parts[:2]))]
            case [driver, folder, name, *_] if driver in _DRIVERS and folder in _SUBFOLDERS:
                return self._in_driver(driver, name.removesuffix("-removing"))
            case [driver, "l", link, *_] if driver in _DRIVERS:
                return self._behind_link(driver, link)
            case [driver, name, *_] if driver in _DRIVERS:
                return self._in_driver(driver, name)
            case [driver] if driver in _DRIVERS:
                return [self._engine(parts, f"the layers of the storage driver {driver}")]
            case [name, *_] if name in _ENGINE:
                return [self._engine(parts, _ENGINE[name])]
            case []:
                return [self._engine(parts, "the data root")]
        return ()

    def _of_id(self, text: str) -> Iterable[Owner]:
        wanted = text.removeprefix("sha256:")
        if wanted in self._by_id:
            return self._by_id[wanted]
        fits = [name for name in self._by_id if wanted and name.startswith(wanted) and _ID.fullmatch(name)]
        if len(fits) > 1:
            raise AmbiguousName(f"{text!r} fits {len(fits)} ids", tuple(sorted(fits)))
        if fits:
            return self._by_id[fits[0]]
        links = (self._behind_link(name, wanted) for name in self._drivers) if _ID.fullmatch(wanted) else ()
        return [owner for owners in links for owner in owners]

    def _in_container(self, name: str, rest: Sequence[str]) -> Iterable[Owner]:
        record = self._containers.get(name)
        if record is None:
            known = self._by_id.get(name)
            if not known and self._is_folder(["containers", name]):
                origin = self._origin(["containers", name])
                return [Owner(OwnerKind.CONTAINER, name, "", "its records cannot be read", origin)]
            return known or ()
        if rest and rest[0].startswith((f"{name}-json.log", *_LOGS)):
            path = join(record.folder, "/".join(rest))
            detail = f"log of the driver {record.parts.log_driver}" if record.parts.log_driver else "log"
            return [Owner(OwnerKind.LOG, name, record.parts.name, detail, self._tree.origin.to(path.lstrip("/")))]
        return [_container(record, "its records", record.config_origin)]

    def _in_driver(self, driver_name: str, name: str) -> Iterable[Owner]:
        driver = self._docker.driver(driver_name)
        known = self._by_folder.get(driver.folder(name))
        if known:
            return known
        origin = self._tree.origin.to(driver.folder(name).lstrip("/"))
        node = self._tree._lookup(driver.folder(name))
        if node is not None and node.kind is not NodeKind.DIR:
            return [Owner(OwnerKind.ENGINE, "", "", f"a file of the storage driver {driver_name}", origin)]
        orphan = self._orphan(driver, name, set(driver.directories()))
        detail = "no record names it" if node is not None else "no record names it, and it is not in the evidence"
        return [Owner(OwnerKind.ORPHAN, name, "", f"{orphan.likely}: {detail}" if orphan.likely else detail, origin)]

    def _behind_link(self, driver_name: str, link: str) -> Iterable[Owner]:
        """Owners of the directory that overlay2's short name stands for, by the link or by the directory's own word."""
        driver = self._docker.driver(driver_name)
        node = self._tree._lookup(join(join(driver.home, "l"), link))
        parts = (node.target or "").split("/") if node is not None else []
        if len(parts) == 3 and parts[0] == "..":
            return self._in_driver(driver_name, parts[1])
        for name in driver.directories():
            if self._docker.reader.text(join(driver.folder(name), "link")) == link:
                return self._in_driver(driver_name, name)
        return ()

    def _interrupted(self, driver: str, name: str) -> Iterator[Owner]:
        """Owners of a layer's record that is being written or removed."""
        records = self._docker.layer_db(driver)
        for layer in (*records.removing, *records.unfinished):
            if layer.path.rpartition("/")[2] == name:
                yield self._unfinished(layer)

    def _binds(self, text: str) -> Iterator[Owner]:
        """Containers that a folder of the host was mounted into."""
        path = posixpath.normpath(f"/{text.lstrip('/')}")
        for record in self._docker.records:
            for mount in record.parts.mounts:
                if mount.type == "bind" and mount.source and _inside(path, mount.source) is not None:
                    yield _container(record, f"mounts it at {mount.destination}", record.config_origin)

    @cached_property
    def _containers(self) -> dict[str, ContainerRecord]:
        return {record.id: record for record in self._docker.records}

    @cached_property
    def _by_folder(self) -> dict[str, list[Owner]]:
        """Owners by the path of a storage driver's directory."""
        found: dict[str, list[Owner]] = {}
        for name in self._docker.storage_drivers:
            driver, records = self._docker.driver(name), self._docker.layer_db(name)
            for mount in records.mounts.values():
                owner = self._mount_owner(mount)
                found.setdefault(driver.folder(mount.mount_id), []).append(owner)
                found.setdefault(driver.folder(mount.init_id), []).append(_init(owner))
            for layer in records.layers.values():
                found.setdefault(driver.folder(layer.cache_id), []).extend(self._layer_owners(records, layer))
            for layer in (*records.removing, *records.unfinished):
                found.setdefault(driver.folder(layer.cache_id), []).append(self._unfinished(layer))
            found.pop(driver.folder(""), None)  # of records whose name of the directory is missing
        for name in self._docker._drivers_before_1_10:
            for folder, owner in self._before_1_10(self._docker.driver(name)):
                found.setdefault(folder, []).append(owner)
        for record in self._docker.build_cache.records:
            if record.directory and not record.equal_mutable:
                owner = Owner(OwnerKind.BUILD_CACHE, record.id, "", record.description, record.origin)
                found.setdefault(record.directory, []).append(owner)
        for snapshot in self._docker.build_cache.snapshots.values():
            if snapshot.directory and snapshot.directory not in found:
                owner = Owner(OwnerKind.BUILD_CACHE, snapshot.key, "", "snapshot without a record", snapshot.origin)
                found[snapshot.directory] = [owner]
        return found

    def _before_1_10(self, driver: GraphDriver) -> Iterator[tuple[str, Owner]]:
        """Directories that have the id of the image or container they belong to; each layer was an image itself."""
        images = {image.id: image for image in self._docker.images}
        for image in images.values():
            below: Image | None = image
            seen: set[str] = set()
            while below is not None and below.id not in seen and (image.tags or below is image):
                seen.add(below.id)
                detail = "its own layer" if below is image else "layer below it"
                owner = Owner(OwnerKind.IMAGE_LAYER, image.id, _names(image.tags), detail, below.origin)
                yield driver.folder(below.id), owner
                below = images.get(below.parent)
        for record in self._docker.records:
            mount = self._docker.mount(record) if record.parts.storage_driver == driver.name else None
            if mount is not None and mount.mount_id == record.id:
                owner = self._mount_owner(mount)
                yield driver.folder(mount.mount_id), owner
                if mount.init_id:
                    yield driver.folder(mount.init_id), _init(owner)

    @cached_property
    def _by_id(self) -> dict[str, list[Owner]]:
        """Owners by id and name, without the name of the digest's algorithm."""
        found: dict[str, list[Owner]] = {}

        def add(key: str, owners: Iterable[Owner]) -> None:
            if key:
                found.setdefault(key.removeprefix("sha256:"), []).extend(owners)

        docker = self._docker
        for record in docker.records:
            for key in (record.id, record.parts.name):
                add(key, [_container(record, "", record.config_origin)])
        for volume in docker.volumes:
            add(volume.name, [Owner(OwnerKind.VOLUME, volume.name, volume.name, volume.driver, volume.origin)])
            add(volume.name, self._users_of(volume.name))
        for network in docker.networks:
            for key in (network.id, network.name):
                add(key, [Owner(OwnerKind.NETWORK, network.id, network.name, network.driver, network.origin)])
        for image in docker.images:
            add(image.id, [Owner(OwnerKind.IMAGE, image.id, _names(image.tags, image.digests), "", image.origin)])
        for name in docker.storage_drivers:
            records = docker.layer_db(name)
            for mount in records.mounts.values():
                if mount.container_id not in self._containers:
                    add(mount.container_id, [self._mount_owner(mount)])
            for layer in records.layers.values():
                owners = self._layer_owners(records, layer)
                for key in (layer.chain_id, layer.diff_id):
                    add(key, owners)
        for folder, owners in self._by_folder.items():
            add(folder.rpartition("/")[2], owners)
        for cached in docker.build_cache.records:
            owner = Owner(OwnerKind.BUILD_CACHE, cached.id, "", cached.description, cached.origin)
            for key in dict.fromkeys((cached.id, cached.snapshot)):
                add(key, [owner])
        for build in docker.build_history:
            owner = Owner(OwnerKind.BUILD_CACHE, build.ref, _names(build.images), "build", build.origin)
            add(build.ref, [owner])
            add(build.log_digest, [replace(owner, detail="log of a build")])
            add(build.trace_digest, [replace(owner, detail="timings of a build")])
            for digest in build.results:
                add(digest, [replace(owner, detail="result of a build")])
            for digest in build.attestations:
                add(digest, [replace(owner, detail="statement of how a build was made")])
        return found

    def _layer_owners(self, records: LayerDb, layer: LayerRecord) -> list[Owner]:
        """The images that have a layer, and the containers of these or of images that are gone."""
        owners = [
            Owner(OwnerKind.IMAGE_LAYER, image, name, detail, layer.origin)
            for image, name, detail in self._images_by_chain.get(layer.chain_id, ())
        ]
        if not owners:
            owners = [Owner(OwnerKind.IMAGE_LAYER, layer.chain_id, "", "no image of the store has it", layer.origin)]
        for mount in self._mounts_by_chain(records).get(layer.chain_id, ()):
            owner = self._mount_owner(mount)
            owners.append(replace(owner, detail="layer of its image"))
        return owners

    @cached_property
    def _images_by_chain(self) -> dict[str, list[tuple[str, str, str]]]:
        """Id, names and place of each image that has a layer, by the layer's chain id."""
        found: dict[str, list[tuple[str, str, str]]] = {}
        for image in self._docker.images:
            for layer in image.layers:
                place = f"layer {layer.index + 1} of {len(image.layers)}"
                entry = (image.id, _names(image.tags, image.digests), place)
                found.setdefault(layer.chain_id or "", []).append(entry)
        return found

    def _mounts_by_chain(self, records: LayerDb) -> dict[str, list[MountRecord]]:
        """Writable layers by the chain ids of all layers below them."""
        if records.driver not in self._mounts:
            found: dict[str, list[MountRecord]] = {}
            for mount in records.mounts.values():
                for layer in records.chain(mount.parent):
                    found.setdefault(layer.chain_id, []).append(mount)
            self._mounts[records.driver] = found
        return self._mounts[records.driver]

    @cached_property
    def _mounts(self) -> dict[str, dict[str, list[MountRecord]]]:
        return {}

    def _mount_owner(self, mount: MountRecord) -> Owner:
        """Whose a writable layer is; a mounted image has one too, and its id is no container's."""
        record = self._containers.get(mount.container_id)
        if record is not None:
            return _container(record, "its writable layer", mount.origin)
        for record in self._docker.records:
            points = record.config.object("MountPoints")
            for point in (points.object(key) for key in points.raw):
                if point.text("ID") == mount.container_id:
                    detail = f"mounted at {point.text('Destination')} in container {record.parts.name or record.id}"
                    return Owner(OwnerKind.IMAGE_MOUNT, mount.container_id, point.text("Name"), detail, mount.origin)
        if mount.init_id:
            return Owner(OwnerKind.CONTAINER, mount.container_id, "", "its records are missing", mount.origin)
        detail = "of a container or a build that is not recorded"
        return Owner(OwnerKind.IMAGE_MOUNT, mount.container_id, "", detail, mount.origin)

    def _users_of(self, volume: str) -> Iterator[Owner]:
        for record in self._docker.records:
            for mount in record.parts.mounts:
                if mount.type == "volume" and mount.name == volume:
                    yield _container(record, f"mounts it at {mount.destination}", record.config_origin)

    def _unfinished(self, layer: LayerRecord) -> Owner:
        what = "removal" if layer.chain_id else "registration"
        return Owner(OwnerKind.IMAGE_LAYER, layer.chain_id, "", f"its {what} was interrupted", layer.origin)

    def _is_folder(self, parts: Sequence[str]) -> bool:
        node = self._tree._lookup(self._docker.root.at(*parts))
        return node is not None and node.kind is NodeKind.DIR

    def _engine(self, parts: Sequence[str], detail: str) -> Owner:
        return Owner(OwnerKind.ENGINE, "", "", detail, self._origin(parts))

    def _origin(self, parts: Sequence[str]) -> Origin:
        path = self._docker.root.at(*parts) if parts else self._docker.root.path
        return self._tree.origin.to(path.lstrip("/"))


def _container(record: ContainerRecord, detail: str, origin: Origin) -> Owner:
    return Owner(OwnerKind.CONTAINER, record.id, record.parts.name, detail, origin)


def _init(owner: Owner) -> Owner:
    return replace(owner, kind=OwnerKind.CONTAINER_INIT, detail="what Docker puts into every container")


def _names(*groups: Sequence[str]) -> str:
    """The first group that has any names, as one text."""
    return ", ".join(next((group for group in groups if group), ()))


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
