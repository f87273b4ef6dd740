"""What a copy of a data root shows of removed things without any deleted byte: directories and records without owner.

Sources of what each step of a removal leaves: moby ``daemon/delete.go``, ``layer/layer_store.go``,
``daemon/images/image_delete.go``, ``volume/service``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain

from forensics_lib.engines.container_parts import ContainerState
from forensics_lib.engines.docker.containers import ContainerRecord
from forensics_lib.engines.docker.engine import DockerRoot
from forensics_lib.engines.docker.layerdb import LayerRecord, MountRecord
from forensics_lib.engines.docker.ownership import OwnerKind
from forensics_lib.engines.docker.volumes import decode_volumes
from forensics_lib.errors import ForensicsError
from forensics_lib.model import Origin
from forensics_lib.recovery.forms import CONTAINER_ID
from forensics_lib.recovery.remnant import Confidence, Remnant
from forensics_lib.trees.base import Node, NodeKind, Tree, join

__all__ = ["orphans"]

_METHOD = "orphan"
_MAX_COUNTED = 100_000
_SHOWN = 3
_GENERATION = re.compile(r"\.tmp-.+")
_ID_IN_NAME = re.compile(r"[0-9a-f]{64}")


def orphans(docker: DockerRoot) -> Iterator[Remnant]:
    """Everything in a data root that lost its owner or whose removal was not completed, with what is left of it."""
    yield from _half_removed(docker)
    yield from _folders_without_record(docker)
    yield from _generations(docker)
    for name in docker.storage_drivers:
        yield from _layer_records(docker, name)
        yield from _images(docker, name)
    yield from _layers(docker)
    yield from _volumes(docker)
    yield from _pulls(docker)


def _remnant(
    kind: str,
    path: str,
    detail: str,
    origin: Origin,
    *,
    container_id: str = "",
    image_id: str = "",
    node: Node | None = None,
    whole: bool = True,
) -> Remnant:
    """A remnant that lies where it always lay: a file with its content, anything else as what is known of it."""
    is_file = node is not None and node.kind is NodeKind.FILE
    content = node.source() if node is not None and is_file else None
    return Remnant(
        kind=kind,
        path=path,
        container_id=container_id,
        image_id=image_id,
        method=_METHOD,
        confidence=Confidence.INTACT if is_file else Confidence.METADATA_ONLY,
        complete=is_file and whole,
        size=node.size if node is not None and is_file else None,
        origin=origin,
        detail=detail,
        modified_ns=node.mtime_ns if node is not None else None,
        content=content,
    )


# Containers ---------------------------------------------------------------------------------------------------------


def _half_removed(docker: DockerRoot) -> Iterator[Remnant]:
    """Containers whose removal was begun."""
    for record in docker.records:
        if record.parts.state in (ContainerState.REMOVING, ContainerState.DEAD):
            detail = f"container {record.parts.name} is half removed ({record.parts.state}); {_left(docker, record)}"
            yield _remnant(
                "container",
                record.folder,
                detail,
                record.config_origin,
                container_id=record.id,
                image_id=record.parts.image_id,
            )


def _left(docker: DockerRoot, record: ContainerRecord) -> str:
    names = sorted(node.name for node in docker.reader.folder(record.folder) if node.kind is NodeKind.FILE)
    mount = docker.mount(record)
    if mount is None:
        return f"left are {', '.join(names)}; the record of its writable layer is gone"
    return f"left are {', '.join(names)}; {_count(docker, record.parts.storage_driver, mount.mount_id)}"


def _folders_without_record(docker: DockerRoot) -> Iterator[Remnant]:
    """Folders of containers without any record, and the files in them: logs and what Docker made for the container."""
    known = {record.folder for record in docker.records}
    for folder in docker.reader.folder(docker.root.at("containers")):
        if folder.kind is not NodeKind.DIR or folder.path in known or not CONTAINER_ID.fullmatch(folder.name):
            continue
        files = [node for node in _walk(docker.reader.tree, folder.path) if node.kind is NodeKind.FILE]
        detail = f"folder of a removed container without its records; {len(files)} files are left"
        origin = folder.origin.to(folder.path.lstrip("/"))
        yield _remnant("container", folder.path, detail, origin, container_id=folder.name)
        for node in files:
            is_log = "-json.log" in node.name or "/local-logs/" in node.path or node.name.startswith("container-cached")
            what = "log of a removed container" if is_log else "file of a removed container's folder"
            place = node.origin.to(node.path.lstrip("/"))
            yield _remnant("log" if is_log else "file", node.path, what, place, container_id=folder.name, node=node)


def _generations(docker: DockerRoot) -> Iterator[Remnant]:
    """Newer versions of records that were being written when the daemon ended."""
    images = (node.path for node in docker.reader.folder(docker.root.at("image")))
    folders = (record.folder for record in docker.records)
    for folder in chain(folders, images, (docker.root.at("volumes"), docker.root.path)):
        for node in docker.reader.folder(folder):
            if node.kind is NodeKind.FILE and _GENERATION.fullmatch(node.name):
                owner = _ID_IN_NAME.search(folder.rpartition("/")[2])
                yield _remnant(
                    "config" if "config" in node.name else "record",
                    node.path,
                    "a newer version that was being written" + ("" if node.size else "; it is empty"),
                    node.origin.to(node.path.lstrip("/")),
                    container_id=owner[0] if owner else "",
                    node=node,
                    whole=False,
                )


# Layers and images --------------------------------------------------------------------------------------------------


def _layer_records(docker: DockerRoot, driver: str) -> Iterator[Remnant]:
    """Records of layers and of writable layers that nobody needs any more."""
    db = docker.layer_db(driver)
    for layer in db.removing:
        what = f"layer of a removed image, half removed; {_layer_words(docker, driver, layer)}"
        yield _remnant("layer", layer.path, what, layer.origin)
    for layer in db.unfinished:
        what = f"layer of an interrupted pull or build; {_layer_words(docker, driver, layer)}"
        yield _remnant("layer", layer.path, what, layer.origin)
    known = {record.id for record in docker.records}
    for mount in db.mounts.values():
        if not {mount.container_id, mount.mount_id} & known and not _is_image_mount(docker, mount):
            what = f"writable layer of a removed container; {_count(docker, driver, mount.mount_id)}"
            is_id = CONTAINER_ID.fullmatch(mount.container_id) is not None and bool(mount.init_id)
            yield _remnant(
                "layer",
                join(join(db.path, "mounts"), mount.container_id),
                what + _marks(docker, driver, mount.mount_id),
                mount.origin,
                container_id=mount.container_id if is_id else "",
                image_id=_image_of(docker, mount.parent),
            )
    for layer in db.layers.values():
        owners = docker.owners.of(layer.chain_id)
        used = [owner for owner in owners if owner.kind is not OwnerKind.IMAGE_LAYER or owner.id != layer.chain_id]
        if not any(owner.kind in (OwnerKind.IMAGE, OwnerKind.IMAGE_LAYER) for owner in used):
            users = ", ".join(dict.fromkeys(f"{owner.kind} {owner.name or owner.id}" for owner in used[:_SHOWN]))
            what = f"layer of a removed image{f', still used by {users}' if users else ''}"
            yield _remnant("layer", layer.path, f"{what}; {_layer_words(docker, driver, layer)}", layer.origin)


def _is_image_mount(docker: DockerRoot, mount: MountRecord) -> bool:
    return any(
        owner.kind is OwnerKind.IMAGE_MOUNT and "mounted at" in owner.detail
        for owner in docker.owners.of(mount.container_id)
    )


def _image_of(docker: DockerRoot, chain_id: str) -> str:
    """The image whose top layer a layer is."""
    for image in docker.images:
        if chain_id and image.layers and image.layers[-1].chain_id == chain_id:
            return image.id
    return ""


def _layers(docker: DockerRoot) -> Iterator[Remnant]:
    """Directories of the storage drivers that no record names."""
    for orphan in docker.orphans():
        what = orphan.likely or "layer"
        detail = f"{what} that no record names; {_count(docker, orphan.driver, orphan.id)}"
        image_id = _image_below(docker, orphan.driver, orphan.id)
        detail += _marks(docker, orphan.driver, orphan.id)
        yield _remnant("layer", orphan.path, detail, orphan.origin, image_id=image_id)


def _image_below(docker: DockerRoot, driver: str, directory: str) -> str:
    """The image that an orphaned writable layer lies on, by the layers below it."""
    reader, folder = docker.reader, docker.driver(driver).folder(directory)
    for link in (reader.text(join(folder, "lower")) or "").split(":")[:2]:
        record = docker.layer_of_link(driver, link)
        if record is not None:
            return _image_of(docker, record.chain_id)
    return ""


def _images(docker: DockerRoot, driver: str) -> Iterator[Remnant]:
    """Notes on images whose config is gone."""
    folder = docker.root.at("image", driver, "imagedb")
    for node in docker.reader.folder(join(folder, "metadata/sha256")):
        if docker.reader.find(join(folder, f"content/sha256/{node.name}")) is None:
            names = ", ".join(child.name for child in docker.reader.folder(node.path)) or "nothing"
            detail = f"image whose config is gone; left are its notes: {names}"
            origin = node.origin.to(node.path.lstrip("/"))
            yield _remnant("image", node.path, detail, origin, image_id=f"sha256:{node.name}")


def _layer_words(docker: DockerRoot, driver: str, layer: LayerRecord) -> str:
    known = [f"{name} {value}" for name, value in (("chain", layer.chain_id), ("diff_id", layer.diff_id)) if value]
    return "; ".join([*known, _count(docker, driver, layer.cache_id)])


def _count(docker: DockerRoot, driver: str, directory: str) -> str:
    """How many files a directory of a driver still holds."""
    if not directory:
        return "which directory held its files is not recorded"
    try:
        files = size = 0
        for node in docker.driver(driver).alone(directory).walk():
            if node.kind is NodeKind.FILE:
                files, size = files + 1, size + node.size
            if files >= _MAX_COUNTED:
                break
    except ForensicsError:
        return f"its directory {directory} is gone"
    return f"its directory {directory} holds {files} files of {size} bytes"


def _marks(docker: DockerRoot, driver: str, directory: str) -> str:
    """What in a writable layer tells whose it was: the host name, by default the start of the id, and newest files."""
    try:
        tree = docker.driver(driver).alone(directory) if directory else None
        nodes = [node for node in _walk(tree, "/") if node.kind is NodeKind.FILE] if tree is not None else []
        if tree is None or not nodes:
            return ""
        name = tree.read("/etc/hostname").decode("utf-8", "replace").strip() if "/etc/hostname" in tree else ""
    except ForensicsError:
        return ""
    host = f"; host name {name}" if name else ""
    newest = sorted(nodes, key=lambda node: -(node.mtime_ns or 0))[:_SHOWN]
    return f"{host}; newest {', '.join(node.path for node in newest)}"


def _walk(tree: Tree, path: str) -> Iterator[Node]:
    for count, node in enumerate(tree.walk(path)):
        if count >= _MAX_COUNTED:
            return
        yield node


# Volumes and pulls --------------------------------------------------------------------------------------------------


def _volumes(docker: DockerRoot) -> Iterator[Remnant]:
    """Volumes with a folder and no record, and the other way round."""
    items = list(docker.bucket("volumes/metadata.db", b"volumes"))
    if not items and docker.reader.find(docker.root.at("volumes", "metadata.db")) is None:
        return  # Docker before 17.06 had no records, and a copy may lack the file
    records = decode_volumes(items, docker.reader)
    folders = {node.name: node for node in docker.reader.folder(docker.root.at("volumes"))}
    for name, (document, origin) in records.items():
        if name not in folders and document.text("Driver") in ("local", ""):
            path = docker.root.at("volumes", name)
            yield _remnant("volume", path, f"volume {name} has a record, but no folder: it was removed", origin)
    for name, node in folders.items():
        if name not in records and node.kind is NodeKind.DIR:
            files = [one for one in _walk(docker.reader.tree, node.path) if one.kind is NodeKind.FILE]
            detail = f"volume {name} has a folder with {len(files)} files, but no record"
            yield _remnant("volume", node.path, detail, node.origin.to(node.path.lstrip("/")))


def _pulls(docker: DockerRoot) -> Iterator[Remnant]:
    """Layers that were pulled or pushed and that no image of the store has."""
    for pull in docker.pull_history:
        if not pull.images:
            label = pull.origin.label
            where = f" {'to' if pull.kind == 'push' else 'from'} {pull.repository}" if pull.repository else ""
            detail = f"{pull.kind}{where} of {pull.digest} (diff_id {pull.diff_id}); no image has the layer any more"
            node = docker.reader.find(f"/{label.lstrip('/')}")
            yield _remnant("record", f"/{label.lstrip('/')}", detail, pull.origin, node=node)
