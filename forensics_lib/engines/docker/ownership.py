"""Whose each layer directory and each id of a data root is, by the records of Docker and BuildKit."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING

from forensics_lib.engines.docker.containers import ContainerRecord
from forensics_lib.engines.docker.drivers import GraphDriver
from forensics_lib.engines.docker.layerdb import LayerDb, LayerRecord, MountRecord
from forensics_lib.engines.docker.snapshots import SnapshotDb
from forensics_lib.model import Origin

if TYPE_CHECKING:
    from forensics_lib.engines.docker.engine import DockerRoot
    from forensics_lib.images.image import Image

__all__ = ["Owner", "OwnerKind", "Ownership", "container_owner", "interrupted"]

_MAX_LAYERS = 512
_BUILD_KEY = re.compile(r"[0-9a-z]{25}(?:-view)?")


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
        found: dict[str, dict[Owner, None]] = {}
        for name in self._docker.storage_drivers:
            driver = self._docker.driver(name)
            records = self._docker.layer_db(name)
            for directory, owner in self._directories(records):
                if directory:
                    found.setdefault(driver.folder(directory), {})[owner] = None
            if isinstance(records, SnapshotDb):
                for directory, owner in self._other_snapshots(records):
                    found.setdefault(driver.folder(directory), {owner: None})
        for name in self._docker.drivers_before_1_10:
            for folder, owner in self._before_1_10(self._docker.driver(name)):
                found.setdefault(folder, {})[owner] = None
        for record in self._docker.build_cache.records:
            if record.directory and not record.equal_mutable:
                owner = Owner(OwnerKind.BUILD_CACHE, record.id, "", record.description, record.origin)
                found.setdefault(record.directory, {})[owner] = None
        for snapshot in self._docker.build_cache.snapshots.values():
            if snapshot.directory and snapshot.directory not in found:
                owner = Owner(OwnerKind.BUILD_CACHE, snapshot.key, "", "snapshot without a record", snapshot.origin)
                found[snapshot.directory] = {owner: None}
        return {folder: list(owners) for folder, owners in found.items()}

    def _directories(self, records: LayerDb) -> Iterator[tuple[str, Owner]]:
        """Names of directories by the layer records."""
        forgotten = records.forgotten if isinstance(records, SnapshotDb) else set[str]()
        for mount in records.mounts.values():
            if mount.container_id in forgotten and mount.container_id not in self.containers:
                continue
            owner = self._mount_owner(mount)
            yield mount.mount_id, owner
            yield mount.init_id, _init(owner)
        for layer in records.layers.values():
            if layer.chain_id in forgotten and layer.chain_id not in self._images_by_chain:
                continue
            for owner in self.of_layer(records, layer):
                yield layer.cache_id, owner
        for layer in (*records.removing, *records.unfinished):
            yield layer.cache_id, interrupted(layer)

    def _other_snapshots(self, records: SnapshotDb) -> Iterator[tuple[str, Owner]]:
        """Directories of snapshots that are neither layers nor containers: of builds, and views of others."""
        builds = {record.snapshot: record for record in self._docker.build_cache.records}
        for key, snapshot in records.keys.items():
            if key in records.forgotten or snapshot.id is None:
                continue
            build = builds.get(key) or builds.get(key.removesuffix("-view"))
            if build is not None:
                owner = Owner(OwnerKind.BUILD_CACHE, build.id, "", build.description, build.origin)
            elif _BUILD_KEY.fullmatch(key):
                owner = Owner(OwnerKind.BUILD_CACHE, key, "", "snapshot without a record", snapshot.origin)
            else:
                owner = Owner(OwnerKind.ENGINE, key, "", f"{snapshot.kind} snapshot", snapshot.origin)
            yield str(snapshot.id), owner

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
        found: dict[str, dict[Owner, None]] = {}
        for key, owner in chain(self._objects(), self._layers(), self._builds()):
            if key:
                found.setdefault(key.removeprefix("sha256:"), {})[owner] = None
        layers: dict[str, dict[Owner, None]] = {}
        for pull in self._docker.pull_history:
            gone = Owner(OwnerKind.IMAGE_LAYER, pull.diff_id, pull.repository, "not in the store any more", pull.origin)
            diff_id, digest = pull.diff_id.removeprefix("sha256:"), pull.digest.removeprefix("sha256:")
            for key in (diff_id, digest):
                layers.setdefault(key, {}).update(found.get(diff_id, {gone: None}))
        for key, owners in layers.items():
            if key:
                found.setdefault(key, {}).update(owners)
        return {key: list(owners) for key, owners in found.items()}

    def _objects(self) -> Iterator[tuple[str, Owner]]:
        """Ids and names of what the engine lists."""
        for record in self._docker.records:
            for key in (record.id, record.parts.name):
                yield key, container_owner(record, "", record.config_origin)
        for name, owners in self.volumes.items():
            for owner in owners:
                yield name, owner
        for network in self._docker.networks:
            for key in (network.id, network.name):
                yield key, Owner(OwnerKind.NETWORK, network.id, network.name, network.driver, network.origin)
        for image in self._docker.images:
            owner = Owner(OwnerKind.IMAGE, image.id, _names(image.tags, image.digests), "", image.origin)
            yield image.id, owner
            yield from self._blobs(image, owner)

    def _blobs(self, image: Image, owner: Owner) -> Iterator[tuple[str, Owner]]:
        """Digests of the blobs of an image in containerd's store."""
        if image.manifest_digest is None:
            return
        if image.manifest_digest != image.id:
            yield image.manifest_digest, replace(owner, detail=f"its manifest for {image.platform}")
        yield image.config_digest or "", replace(owner, detail="its configuration")
        for layer in image.layers:
            detail = f"archive of layer {layer.index + 1} of {len(image.layers)}"
            yield layer.digest or "", replace(owner, kind=OwnerKind.IMAGE_LAYER, detail=detail)
        for artifact in image.attestations:
            detail = f"statement about it ({artifact.artifact_type})"
            yield artifact.digest, replace(owner, detail=detail)
            for _, digest in artifact.contents:
                yield digest, replace(owner, detail=detail)

    def _layers(self) -> Iterator[tuple[str, Owner]]:
        """Chain ids, diff ids, directories and the ids of writable layers."""
        mounts = dict(self._image_mounts)
        for name in self._docker.storage_drivers:
            records = self._docker.layer_db(name)
            for mount in records.mounts.values():
                if mount.container_id not in self.containers:
                    mounts[mount.container_id] = self._mount_owner(mount)
            for layer in records.layers.values():
                for owner in self.of_layer(records, layer):
                    yield layer.chain_id, owner
                    yield layer.diff_id, owner
        yield from mounts.items()
        for folder, owners in self.folders.items():
            name = folder.rpartition("/")[2]
            for owner in () if name.isdecimal() else owners:  # snapshots have numbers
                yield name, owner

    def _builds(self) -> Iterator[tuple[str, Owner]]:
        """Ids of the build cache, of builds, and digests of what builds made."""
        for cached in self._docker.build_cache.records:
            owner = Owner(OwnerKind.BUILD_CACHE, cached.id, "", cached.description, cached.origin)
            for key in (cached.id, cached.snapshot, cached.chain_id, cached.diff_id):
                yield key, owner
        for build in self._docker.build_history:
            owner = Owner(OwnerKind.BUILD_CACHE, build.ref, _names(build.images), "build", build.origin)
            yield build.ref, owner
            yield build.log_digest, replace(owner, detail="log of a build")
            yield build.trace_digest, replace(owner, detail="timings of a build")
            for digest in build.results:
                yield digest, replace(owner, detail="result of a build")
            for digest in build.attestations:
                yield digest, replace(owner, detail="statement of how a build was made")

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
