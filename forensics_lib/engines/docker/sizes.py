"""How large a container is, as ``docker ps --size`` shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from forensics_lib.engines.docker.drivers import GraphDriver
from forensics_lib.engines.docker.layerdb import LayerDb, MountRecord
from forensics_lib.engines.docker.snapshots import SnapshotDb, SnapshotDriver
from forensics_lib.errors import DamagedData
from forensics_lib.trees.base import Node, NodeKind, Tree, byte_order
from forensics_lib.trees.changes import diff

__all__ = ["layer_size", "root_size", "written_size"]

_COUNTED_AS_STORED = frozenset(["overlay2", "aufs"])
_HEX_LENGTH = 64
_LAYERS_COUNTED_AS_STORED = _COUNTED_AS_STORED | {"fuse-overlayfs"}


def layer_size(driver: GraphDriver, cache_id: str, archived: int) -> int:
    """What the engine records as size of an image layer.

    overlay2, fuse-overlayfs and aufs count all that its directory holds (moby ``ApplyDiff``), other drivers what its
    archive held; so does BuildKit, whose directories have shorter names.

    Args:
        driver: the storage driver.
        cache_id: the directory.
        archived: bytes of the files in the archive.

    Raises:
        ForensicsError: the directory cannot be reached.
    """
    looked_into = driver.name in _LAYERS_COUNTED_AS_STORED and len(cache_id) == _HEX_LENGTH
    return _bytes_of(driver.alone(cache_id).walk()) if looked_into else archived


def written_size(driver: GraphDriver, mount: MountRecord, base: Callable[[], Tree], tree: Callable[[], Tree]) -> int:
    """``SizeRw``: bytes of what the container wrote, hard-linked files once, directories and deletions not.

    overlay2 and aufs count all that their upper directory holds, the other drivers what ``docker diff`` lists (moby
    ``pkg/directory`` and go-archive ``ChangesSize``); snapshotters the blocks on the disk, directories included.

    Raises:
        ForensicsError: the files cannot be reached, or the copy does not tell how many blocks they took up.
    """
    if isinstance(driver, SnapshotDriver):
        size = driver.snapshotter.usage(mount.mount_id)
        if size is None or _lost_attributes(driver.alone(mount.mount_id), base):
            message = "how many blocks of the disk its files took up does not show in a copy of this file system"
            raise DamagedData(f"container {mount.container_id}: {message}", origin=mount.origin)
        return size
    if driver.name in _COUNTED_AS_STORED:
        return _bytes_of(driver.alone(mount.mount_id).walk())
    return _bytes_of(change.node for change in diff(base(), tree()) if change.node is not None)


def _lost_attributes(upper: Tree, base: Callable[[], Tree]) -> bool:
    """Whether a directory that was copied up lacks the attribute that says so; attributes take up blocks."""
    lower: Tree | None = None
    for node in upper.walk():
        if node.kind is NodeKind.DIR and node.path != "/" and not any(".overlay." in key for key in node.xattrs):
            lower = lower or base()
            below = lower.find(node.path)
            if below is not None and below.kind is NodeKind.DIR:
                return True
    return False


def root_size(layers: LayerDb, mount: MountRecord, written: int) -> int | None:
    """``SizeRootFs``: these bytes and those of the image's layers as recorded; None where that is not recorded."""
    if isinstance(layers, SnapshotDb):
        below = layers.snapshotter.usage_below(mount.mount_id)
        return None if below is None else below + written
    if mount.container_id not in layers.mounts:
        return None  # Docker before 1.10
    chain = layers.chain(mount.parent)
    sizes = [record.size for record in chain]
    if None in sizes or (mount.parent and (not chain or chain[-1].parent)):
        return None
    return sum(size or 0 for size in sizes) + written if chain else 0


def _bytes_of(nodes: Iterable[Node]) -> int:
    total, seen = 0, set[int]()
    for node in nodes:
        if node.kind is NodeKind.DIR or node.inode in seen:
            continue
        if node.nlink > 1 and node.inode:
            seen.add(node.inode)
        total += node.size if node.target is None else len(byte_order(node.target))
    return total
