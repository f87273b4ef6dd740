"""Whose each layer directory and each id of a data root is, by the records of Docker and BuildKit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING

from forensics_lib.engines.docker.containers import ContainerRecord
from forensics_lib.engines.docker.drivers import GraphDriver
from forensics_lib.engines.docker.layerdb import LayerDb, LayerRecord, MountRecord
from forensics_lib.model import Origin

if TYPE_CHECKING:
    from forensics_lib.engines.docker.engine import DockerRoot
    from forensics_lib.images.image import Image

__all__ = ["Owner", "OwnerKind", "Ownership", "container_owner", "interrupted"]

_MAX_LAYERS = 512


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


class Ownership:
    """The records of one data root, turned around: from a directory or id to everybody who uses it."""

    def __init__(self, docker: DockerRoot) -> None:
        """Nothing is read yet."""
        self._docker = docker
        self._mounts: dict[str, dict[str, list[MountRecord]]] = {}

    @cached_property
    def containers(self) -> dict[str, ContainerRecord]:
        """The containers' records by id."""
        return {record.id: record for record in self._docker.records}

    @cached_property
    def folders(self) -> dict[str, list[Owner]]:
        """Owners by the path of a storage driver's directory."""
        found: dict[str, list[Owner]] = {}
        for name in self._docker.storage_drivers:
            driver, records = self._docker.driver(name), self._docker.layer_db(name)
            for mount in records.mounts.values():
                owner = self._mount_owner(mount)
                found.setdefault(driver.folder(mount.mount_id), []).append(owner)
                found.setdefault(driver.folder(mount.init_id), []).append(_init(owner))
            for layer in records.layers.values():
                found.setdefault(driver.folder(layer.cache_id), []).extend(self.of_layer(records, layer))
            for layer in (*records.removing, *records.unfinished):
                found.setdefault(driver.folder(layer.cache_id), []).append(interrupted(layer))
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
                below = images.get(below.config.parent_id)
        for record in self._docker.records:
            mount = self._docker.mount(record) if record.parts.storage_driver == driver.name else None
            if mount is not None and mount.mount_id == record.id:
                owner = self._mount_owner(mount)
                yield driver.folder(mount.mount_id), owner
                if mount.init_id:
                    yield driver.folder(mount.init_id), _init(owner)

    @cached_property
    def ids(self) -> dict[str, list[Owner]]:
        """Owners by id and name, without the name of the digest's algorithm."""
        found: dict[str, list[Owner]] = {}

        def add(key: str, owners: Iterable[Owner]) -> None:
            if key:
                found.setdefault(key.removeprefix("sha256:"), []).extend(owners)

        docker = self._docker
        for record in docker.records:
            for key in (record.id, record.parts.name):
                add(key, [container_owner(record, "", record.config_origin)])
        for name, owners in self.volumes.items():
            add(name, owners)
        for network in docker.networks:
            for key in (network.id, network.name):
                add(key, [Owner(OwnerKind.NETWORK, network.id, network.name, network.driver, network.origin)])
        for image in docker.images:
            add(image.id, [Owner(OwnerKind.IMAGE, image.id, _names(image.tags, image.digests), "", image.origin)])
        for name in docker.storage_drivers:
            records = docker.layer_db(name)
            for mount in records.mounts.values():
                if mount.container_id not in self.containers:
                    add(mount.container_id, [self._mount_owner(mount)])
            for layer in records.layers.values():
                owners = self.of_layer(records, layer)
                for key in (layer.chain_id, layer.diff_id):
                    add(key, owners)
        for mount_id, owner in self._image_mounts.items():
            if mount_id not in found:
                add(mount_id, [owner])
        for folder, owners in self.folders.items():
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
        for pull in docker.pull_history:
            gone = Owner(OwnerKind.IMAGE_LAYER, pull.diff_id, pull.repository, "not in the store any more", pull.origin)
            if pull.diff_id.removeprefix("sha256:") not in found:
                add(pull.diff_id, [gone])
            add(pull.digest, found.get(pull.diff_id.removeprefix("sha256:"), [gone]))
        return found

    @cached_property
    def volumes(self) -> dict[str, list[Owner]]:
        """Volumes by name, each with the containers that mount it."""
        found = {
            volume.name: [Owner(OwnerKind.VOLUME, volume.name, volume.name, volume.driver, volume.origin)]
            for volume in self._docker.volumes
        }
        for record in self._docker.records:
            for mount in record.parts.mounts:
                if mount.type == "volume" and mount.name in found:
                    owner = container_owner(record, f"mounts it at {mount.destination}", record.config_origin)
                    found[mount.name].append(owner)
        return found

    def of_layer(self, records: LayerDb, layer: LayerRecord) -> list[Owner]:
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
                for layer in records.chain(mount.parent)[:_MAX_LAYERS]:
                    found.setdefault(layer.chain_id, []).append(mount)
            self._mounts[records.driver] = found
        return self._mounts[records.driver]

    def _mount_owner(self, mount: MountRecord) -> Owner:
        """Whose a writable layer is; a mounted image has one too, and its id is no container's."""
        record = self.containers.get(mount.container_id)
        if record is not None:
            return container_owner(record, "its writable layer", mount.origin)
        if mount.container_id in self._image_mounts:
            return replace(self._image_mounts[mount.container_id], origin=mount.origin)
        if mount.init_id:
            return Owner(OwnerKind.CONTAINER, mount.container_id, "", "its records are missing", mount.origin)
        detail = "of a container or a build that is not recorded"
        return Owner(OwnerKind.IMAGE_MOUNT, mount.container_id, "", detail, mount.origin)

    @cached_property
    def _image_mounts(self) -> dict[str, Owner]:
        """Images that are mounted into containers, by the id of their writable layer."""
        found = {}
        for record in self._docker.records:
            points = record.config.object("MountPoints")
            for point in (points.object(key) for key in points.raw):
                if point.text("Type") == "image" and point.text("ID"):
                    detail = f"mounted at {point.text('Destination')} in container {record.parts.name or record.id}"
                    owner = Owner(
                        OwnerKind.IMAGE_MOUNT, point.text("ID"), point.text("Name"), detail, record.config_origin
                    )
                    found[owner.id] = owner
        return found


def container_owner(record: ContainerRecord, detail: str, origin: Origin) -> Owner:
    """A container as an owner."""
    return Owner(OwnerKind.CONTAINER, record.id, record.parts.name, detail, origin)


def interrupted(layer: LayerRecord) -> Owner:
    """The owner of a layer whose record is unfinished or half removed."""
    what = "removal" if layer.chain_id else "registration"
    return Owner(OwnerKind.IMAGE_LAYER, layer.chain_id, "", f"its {what} was interrupted", layer.origin)


def _init(owner: Owner) -> Owner:
    return replace(owner, kind=OwnerKind.CONTAINER_INIT, detail="what Docker puts into every container")


def _names(*groups: Sequence[str]) -> str:
    """The first group that has any names, as one text."""
    return ", ".join(next((group for group in groups if group), ()))
