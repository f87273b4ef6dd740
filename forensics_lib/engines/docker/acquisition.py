"""What the copy of a data root lost: whole parts, layers, attributes, owners, times – and what that means for answers.

The layers' tar-split records hold the headers of the original archives, so for image layers this is no guess: each
file's metadata is compared with what the archive said it was.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from forensics_lib.engines.container_parts import ContainerState
from forensics_lib.engines.docker.archive import archive_headers
from forensics_lib.engines.docker.drivers import DRIVERS, GraphDriver
from forensics_lib.engines.docker.engine import DockerRoot
from forensics_lib.engines.docker.layerdb import LayerRecord
from forensics_lib.errors import DamagedData, ForensicsError
from forensics_lib.formats.tar_entry import TarEntry
from forensics_lib.sources.decompress import Limits
from forensics_lib.trees.archive import clean_path
from forensics_lib.trees.base import Node, NodeKind, Tree, join

__all__ = ["report_losses"]

_MAX_MEMBERS = 200_000
_MAX_STORED = 256 << 20
_OVERLAYS = ("overlay2", "overlayfs", "fuse-overlayfs")
_REMOVED = (ContainerState.DEAD, ContainerState.REMOVING)
_PARTS = {
    "containers": "containers with their settings and logs",
    "image": "images, and which files belong to which container",
    "volumes": "",
    "network": "networks",
}
_MEANING = {
    "directories": "directories of layers are missing or empty: asking for their files fails",
    "attributes": "extended attributes are lost: directories that replaced lower ones show the lower files again, and "
    "file capabilities are missing from every answer",
    "whiteouts": "whiteouts are lost: files that were deleted are shown as if they were still there",
    "devices": "device nodes are lost",
    "modes": "permissions are lost: those of files are those of the copy",
    "owners": "owners are lost: user and group of files are those of the copy",
    "times": "times of change are lost: they are those of the copy",
    "set-id bits": "set-user-ID and set-group-ID bits are lost",
    "files": "files of image layers are missing",
}


@dataclass(slots=True)
class _Tally:
    """How many members were looked at for a property, how many lack it, and one of them."""

    seen: int = 0
    lost: int = 0
    example: str = ""

    def add(self, lost: bool, example: str) -> None:
        self.seen += 1
        if lost:
            self.lost += 1
            self.example = self.example or example


@dataclass(slots=True)
class _Losses:
    tallies: dict[str, _Tally] = field(default_factory=lambda: {name: _Tally() for name in _MEANING})
    members: int = 0
    stored: int = 0


def report_losses(docker: DockerRoot, limits: Limits) -> None:
    """Add one problem for each kind of metadata that the acquisition lost."""
    _report_missing(docker)
    losses = _Losses()
    for name in docker.storage_drivers:
        driver = docker.driver(name)
        _look_for_directories(docker, driver, losses)
        for record in docker.layer_db(name).layers.values():
            blob = docker.layer_db(name).archive(record)
            size = blob.stored.size if blob is not None and blob.stored is not None else 0
            if losses.members < _MAX_MEMBERS and losses.stored + size <= _MAX_STORED:
                losses.stored += size
                _compare_layer(docker, driver, record, limits, losses)
        if name in ("overlay2", "overlayfs") and not losses.tallies["attributes"].lost:
            _look_for_attributes(docker, driver, losses)
    for kind, tally in losses.tallies.items():
        # single files may have been changed on the host; an acquisition that loses something loses it everywhere
        if tally.lost and (tally.lost * 2 > tally.seen or kind == "directories"):
            message = f"the copy lost metadata: {_MEANING[kind]} ({tally.lost} of {tally.seen} looked at, "
            message += f"e.g. {tally.example})"
            docker.reader.problems.add(docker.reader.origin, DamagedData(message, origin=docker.reader.origin))


def _report_missing(docker: DockerRoot) -> None:
    """Say which parts are not in the evidence, of a data root that was not copied as a whole."""
    tree, root = docker.reader.tree, docker.root
    drivers = dict.fromkeys([*docker.storage_drivers, *(record.parts.storage_driver for record in docker.records)])
    has_containers = bool(docker.records) or root.at("containers") in tree
    has_images = root.at("image") in tree or root.at("graph") in tree
    needs_images = any(name in DRIVERS for name in drivers) or not has_containers
    is_part = not has_containers or (needs_images and not has_images)
    missing = [] if has_containers else ["containers"]
    missing += ["image"] if needs_images and not has_images else []
    mounts = (mount.type for record in docker.records for mount in record.parts.mounts)
    networks = (bool(record.parts.networks) for record in docker.records)
    missing += ["volumes"] if root.at("volumes") not in tree and (is_part or "volume" in mounts) else []
    has_networks = root.at("network") in tree or root.at("graph") in tree  # from 1.9 on, one release before images
    missing += ["network"] if not has_networks and (is_part or any(networks)) else []
    told = [f"{name} ({_PARTS[name]})" if _PARTS[name] else name for name in missing]
    told += [f"{name} (files of containers and images)" for name in drivers if _is_missing(docker, name)]
    if told:
        message = f"not all of the Docker data root is in the evidence; missing: {', '.join(told)}"
        origin = docker.reader.origin.to(root.path.lstrip("/")) if root.path != "/" else docker.reader.origin
        docker.reader.problems.add(origin, DamagedData(message, origin=origin))


def _is_missing(docker: DockerRoot, driver: str) -> bool:
    return driver in DRIVERS and docker.root.at(driver) not in docker.reader.tree


def _look_for_directories(docker: DockerRoot, driver: GraphDriver, losses: _Losses) -> None:
    if driver.name not in DRIVERS or _is_missing(docker, driver.name):
        return
    layers = docker.layer_db(driver.name)
    names = [layer.cache_id for layer in layers.layers.values() if layer.size != 0]
    removed = {record.id for record in docker.records if record.parts.state in _REMOVED}
    mounts = [mount for mount in layers.mounts.values() if mount.container_id not in removed]
    names += [name for mount in mounts for name in (mount.init_id, mount.mount_id)]
    for name in filter(None, names):
        losses.tallies["directories"].add(not driver.holds(name), driver.folder(name).lstrip("/"))


def _compare_layer(
    docker: DockerRoot, driver: GraphDriver, record: LayerRecord, limits: Limits, losses: _Losses
) -> None:
    try:
        tree = driver.alone(record.cache_id)
        for entry in archive_headers(docker, driver, record, limits):
            losses.members += 1
            _compare(tree, driver, entry, losses.tallies)
            if losses.members >= _MAX_MEMBERS:
                return
    except ForensicsError:
        return  # a layer that cannot be read is reported by whoever asks for its files


def _compare(tree: Tree, driver: GraphDriver, entry: TarEntry, tallies: dict[str, _Tally]) -> None:
    path = clean_path(entry.name)[0]
    folder, _, name = path.rpartition("/")
    if name.startswith(".wh."):
        if driver.name in _OVERLAYS:
            _compare_mark(tree, folder, name, tallies)
        return
    node = tree.find(path)
    if entry.typeflag in "34":
        kind = NodeKind.CHAR if entry.typeflag == "3" else NodeKind.BLOCK
        tallies["devices"].add(node is None or node.kind is not kind, path)
        return
    if entry.typeflag not in "0157":
        return
    tallies["files"].add(node is None, path)
    if node is not None:
        _compare_node(node, entry, tallies)


def _compare_mark(tree: Tree, folder: str, name: str, tallies: dict[str, _Tally]) -> None:
    if name == ".wh..wh..opq":
        node = tree.find(folder or "/")
        marked = node is not None and any(key.endswith(".opaque") for key in node.xattrs)
        tallies["attributes"].add(not marked, folder or "/")
    elif not name.startswith(".wh..wh."):
        path = join(folder or "/", name[4:])
        node = tree.find(path)
        tallies["whiteouts"].add(node is None, path)


def _compare_node(node: Node, entry: TarEntry, tallies: dict[str, _Tally]) -> None:
    if "security.capability" in entry.xattrs:
        tallies["attributes"].add("security.capability" not in node.xattrs, node.path)
    owners = (node.uid, node.gid), (entry.uid, entry.gid)
    if owners != ((0, 0), (0, 0)):  # root's files prove nothing: a copy made by root has them too
        tallies["owners"].add(owners[0] != owners[1], node.path)
    if entry.typeflag in "07" and node.mtime_ns is not None:
        tallies["times"].add(node.mtime_ns // 10**9 != entry.mtime_ns // 10**9, node.path)
    changed = bool((node.mode ^ entry.mode) & 0o777)
    if changed or entry.mode & 0o777 not in (0o644, 0o755):  # what a copy gives to files by itself proves nothing
        tallies["modes"].add(changed, node.path)
    if entry.mode & 0o6000:
        tallies["set-id bits"].add((node.mode & 0o6000) != (entry.mode & 0o6000), node.path)


def _look_for_attributes(docker: DockerRoot, driver: GraphDriver, losses: _Losses) -> None:
    """Without a member that proves it: a directory that was copied up into a container has an attribute that says so.

    Files are no proof: one that a program wrote anew in place of a lower one has none.
    """
    for mount in docker.layer_db(driver.name).mounts.values():
        try:
            upper, lower = driver.alone(mount.mount_id), driver.tree(mount.init_id)
            for node in upper.walk():
                if node.path != "/" and node.kind is NodeKind.DIR and node.path in lower:
                    marked = any(".overlay." in key for key in node.xattrs)
                    losses.tallies["attributes"].add(not marked, node.path)
        except ForensicsError:
            continue
