"""What interrupted removals, pulls and builds left behind in a data root, in words for the examiner."""

from __future__ import annotations

from forensics_lib.engines.container import ContainerState
from forensics_lib.engines.docker.containers import ContainerRecord
from forensics_lib.engines.docker.drivers import GraphDriver
from forensics_lib.engines.docker.engine import DockerRoot
from forensics_lib.engines.docker.layerdb import LayerRecord
from forensics_lib.errors import ForensicsError
from forensics_lib.trees.base import NodeKind

__all__ = ["report_leftovers"]

_MAX_COUNTED = 100_000


def report_leftovers(docker: DockerRoot) -> None:
    """Add a problem for each half-removed container or layer and each unfinished one, with what is left of it."""
    problems = docker.reader.problems
    for record in docker.records:
        if record.parts.state in (ContainerState.REMOVING, ContainerState.DEAD):
            name = record.parts.name or record.id
            problems.add(
                record.config_origin, f"container {name} is half removed; {_left_of_container(docker, record)}"
            )
    known = {record.id for record in docker.records}
    for record in docker.records:  # an image that is mounted into a container has a writable layer of its own
        points = record.config.object("MountPoints")
        known |= {
            points.object(place).text("ID") for place in points.raw if points.object(place).text("Type") == "image"
        }
    for name in docker.storage_drivers:
        driver, layers = docker.driver(name), docker.layer_db(name)
        for layer in layers.removing:
            what = f"layer {layer.chain_id} of an image is half removed"
            problems.add(layer.origin, f"{what}; {_left_of_layer(driver, layer)}")
        for layer in layers.unfinished:
            problems.add(layer.origin, f"a pull or build was interrupted; {_left_of_layer(driver, layer)}")
        for mount in layers.mounts.values() if docker.root.at("containers") in docker.reader.tree else ():
            if not {mount.container_id, mount.mount_id} & known:
                left = _count(driver, mount.mount_id)
                what = f"writable layer {mount.container_id} has no container: it was removed"
                problems.add(mount.origin, f"{what}; {left}")


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
