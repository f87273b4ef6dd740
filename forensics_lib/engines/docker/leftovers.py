"""What interrupted removals, pulls and builds left behind in a data root, in words for the examiner."""

from __future__ import annotations

from forensics_lib.engines.container_parts import ContainerState
from forensics_lib.engines.docker.containerd import ContainerdStore
from forensics_lib.engines.docker.containers import ContainerRecord
from forensics_lib.engines.docker.drivers import GraphDriver
from forensics_lib.engines.docker.engine import DockerRoot
from forensics_lib.engines.docker.layerdb import LayerRecord
from forensics_lib.engines.docker.snapshots import SnapshotDb
from forensics_lib.errors import DamagedData, ForensicsError
from forensics_lib.trees.base import NodeKind, join

__all__ = ["report_leftovers"]

_REMOVED = (ContainerState.REMOVING, ContainerState.DEAD)
_MAX_COUNTED = 100_000


def report_leftovers(docker: DockerRoot) -> None:
    """Add a problem for each half-removed container or layer and each unfinished one, with what is left of it."""
    problems = docker.reader.problems
    for record in docker.records:
        if record.parts.state in _REMOVED:
            name = record.parts.name or record.id
            problems.add(
                record.config_origin, f"container {name} is half removed; {_left_of_container(docker, record)}"
            )
    known = {record.id for record in docker.records}
    whole = {record.id for record in docker.records if record.parts.state not in _REMOVED}
    for record in docker.records:  # an image that is mounted into a container has a writable layer of its own
        points = record.config.object("MountPoints")
        known |= {
            points.object(place).text("ID") for place in points.raw if points.object(place).text("Type") == "image"
        }
    if docker.store is not None:
        _report_lost_blobs(docker, docker.store)
    for name in docker.storage_drivers:
        driver, layers = docker.driver(name), docker.layer_db(name)
        for layer in layers.removing:
            what = f"layer {layer.chain_id} of an image is half removed"
            problems.add(layer.origin, f"{what}; {_left_of_layer(driver, layer)}")
        for layer in layers.unfinished:
            problems.add(layer.origin, f"a pull or build was interrupted; {_left_of_layer(driver, layer)}")
        if isinstance(layers, SnapshotDb):
            _report_snapshots(docker, layers)
        for mount in layers.mounts.values() if docker.root.at("containers") in docker.reader.tree else ():
            name = join(join(join(layers.path, "mounts"), mount.container_id), "mount-id")
            if mount.container_id in whole and not mount.mount_id and not docker.reader.text(name):
                problems.add(
                    mount.origin,
                    f"container {mount.container_id}: its mount-id is missing, empty or no file: "
                    "which directory holds its files is not known",
                )
            if not {mount.container_id, mount.mount_id} & known:
                left = _count(driver, mount.mount_id)
                what = f"writable layer {mount.container_id} has no container: it was removed"
                problems.add(mount.origin, f"{what}; {left}")


def _report_snapshots(docker: DockerRoot, layers: SnapshotDb) -> None:
    """Snapshots of the store of which one of the two records, or the directory, is missing."""
    problems, snapshotter = docker.reader.problems, layers.snapshotter
    for (name, key), entry in layers.namespace.snapshots.items():
        if name == layers.driver and snapshotter.snapshots and entry.name not in snapshotter.snapshots:
            message = f"snapshot {key} has no record in the snapshotter's database: its directory is not known"
            problems.add(entry.origin, DamagedData(message, origin=entry.origin))
    if not snapshotter.is_reachable:
        return
    missing = {key: one for key, one in layers.keys.items() if not snapshotter.exists(str(one.id))}
    if len(missing) == len(layers.keys) > 1:
        message = f"none of the {len(missing)} snapshots of {layers.driver} that have a record has a directory"
        problems.add(snapshotter.origin, DamagedData(message, origin=snapshotter.origin))
    else:
        for key, snapshot in missing.items():
            message = f"snapshot {key} has a record, but its directory {snapshot.id} is missing"
            problems.add(snapshot.origin, DamagedData(message, origin=snapshot.origin))


def _report_lost_blobs(docker: DockerRoot, store: ContainerdStore) -> None:
    """Blobs that the namespace has records of and that are not there, with what they are to the images."""
    content = store.containerd.content
    lost = list(content.lost())
    if len(lost) == len(store.containerd.recorded) > 1:
        message = f"none of the {len(lost)} blobs that have a record is in the content store"
        docker.reader.problems.add(content.origin, DamagedData(message, origin=content.origin))
        return
    users: dict[str, dict[str, None]] = {}
    for image in docker.images:
        name = ", ".join(image.tags) or image.id
        for role, digest in (
            ("index", image.index_digest), ("manifest", image.manifest_digest), ("configuration", image.config_digest),
        ):  # fmt: skip
            users.setdefault(digest or "", {})[f"{role} of {name}"] = None
        for layer in image.layers:
            users.setdefault(layer.digest or "", {})[f"layer {layer.index + 1} of {name}"] = None
    for digest in lost:
        entry = store.containerd.recorded[digest]
        what = f" ({'; '.join(users[digest])})" if digest in users else ""
        message = f"blob {digest} of {entry.size} bytes has a record, but is not in the content store{what}"
        docker.reader.problems.add(entry.origin, DamagedData(message, origin=entry.origin))


def _left_of_container(docker: DockerRoot, record: ContainerRecord) -> str:
    parts = [node.name for node in docker.reader.folder(record.folder) if node.kind is NodeKind.FILE]
    left = f"left are {', '.join(sorted(parts)) or 'no files of its folder'}"
    mount = docker.mount(record)
    if mount is None:
        return f"{left}; the record of its writable layer is gone"
    return f"{left}; {_count(docker.driver(record.parts.storage_driver), mount.mount_id)}"


def _left_of_layer(driver: GraphDriver, layer: LayerRecord) -> str:
    known = [f"diff_id {layer.diff_id}"] if layer.diff_id else []
    return "; ".join([*known, _count(driver, layer.cache_id)])


def _count(driver: GraphDriver, cache_id: str) -> str:
    """How many files a directory of the driver still holds."""
    if not cache_id:
        return "which directory held its files is not recorded"
    try:
        files = size = 0
        for node in driver.alone(cache_id).walk():
            if node.kind is NodeKind.FILE:
                files, size = files + 1, size + node.size
            if files >= _MAX_COUNTED:
                break
    except ForensicsError:
        return f"its directory {cache_id} is gone"
    return f"its directory {cache_id} still holds {files} files of {size} bytes"
