"""Are the layers in containerd's store still what was pulled or built? Chain ids, archives, and every unpacked file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

from forensics_lib.engines.containerd.verify import verify_content
from forensics_lib.engines.docker.archive import members_of
from forensics_lib.engines.docker.containerd import ContainerdStore
from forensics_lib.engines.docker.departures import departures
from forensics_lib.engines.docker.engine import DockerRoot
from forensics_lib.engines.docker.layerdb import LayerRecord
from forensics_lib.engines.docker.snapshots import SnapshotDb
from forensics_lib.errors import ForensicsError, PathNotFound
from forensics_lib.images.digest import chain_ids
from forensics_lib.images.layer import LayerBlob
from forensics_lib.model import Check
from forensics_lib.sources.base import BLOCK, Source
from forensics_lib.sources.decompress import Limits
from forensics_lib.trees.archive import Member
from forensics_lib.trees.base import NodeKind, Tree, join, parent_of

__all__ = ["verify_store"]

_WHITEOUT = ".wh."
_BOOKKEEPING = ".wh..wh."


def verify_store(docker: DockerRoot, store: ContainerdStore, limits: Limits) -> Iterator[Check]:
    """The blobs, the images' counts, then each unpacked layer against its archive."""
    for image in docker.images:
        if image.config.diff_ids:
            expected, count = len(image.config.diff_ids), len(image.layers)
            yield Check(f"image {image.id} layer count", str(expected), str(count), count == expected, image.origin)
    yield from verify_content(store.containerd)
    for name in store.snapshotters:
        db = store.layer_db(name)
        for record in db.layers.values():
            yield from _check_layer(docker, db, record, limits)


def _check_layer(docker: DockerRoot, db: SnapshotDb, record: LayerRecord, limits: Limits) -> Iterator[Check]:
    subject = f"layer {record.chain_id}"
    if not record.diff_id:
        message = f"{subject}: no image and no blob tells the digest of its archive, so that nothing proves its files"
        docker.reader.problems.add(record.origin, PathNotFound(message))
        return
    chain = chain_ids([*([record.parent] if record.parent else []), record.diff_id])[-1]
    yield Check(f"{subject} chain id", record.chain_id, chain, chain == record.chain_id, record.origin)
    blob = db.archive(record)
    if blob is None:
        message = f"{subject}: its archive is not in the content store, so that nothing proves its files"
        docker.reader.problems.add(record.origin, PathNotFound(message))
        return
    try:
        digest = hashlib.sha256()
        for piece in blob.stream():
            digest.update(piece)
        actual = f"sha256:{digest.hexdigest()}"
    except ForensicsError as error:
        actual = f"undecodable: {error}"
    yield Check(f"{subject} archive", record.diff_id, actual, actual == record.diff_id, blob.origin)
    yield from _check_count(db, record, subject)
    for what in _differences(docker, db, record, blob, limits):
        yield Check(f"{subject} file", "as in the archive", what, False, record.origin)


def _check_count(db: SnapshotDb, record: LayerRecord, subject: str) -> Iterator[Check]:
    """How many files and directories there are, one with several names once; the directory itself counts."""
    snapshot = db.snapshotter.by_id.get(record.cache_id)
    if snapshot is None or snapshot.inodes is None or not db.snapshotter.shares:
        return
    try:
        nodes = list(db.snapshotter.alone(record.cache_id).walk())
    except ForensicsError:
        return  # told when its files are compared
    shared = {node.inode for node in nodes if node.nlink > 1 and node.inode and node.kind is not NodeKind.DIR}
    single = sum(not (node.nlink > 1 and node.inode and node.kind is not NodeKind.DIR) for node in nodes)
    expected, actual = snapshot.inodes, single + len(shared)
    yield Check(f"{subject} files", str(expected), str(actual), expected == actual, snapshot.origin)


def _differences(
    docker: DockerRoot, db: SnapshotDb, record: LayerRecord, blob: LayerBlob, limits: Limits
) -> Iterator[str]:
    """What in a layer's directory is not as in its archive."""
    driver = docker.driver(db.driver)
    try:
        own = driver.alone(record.cache_id)
        members = members_of(blob)
        yield from _content(own, members)
        if db.snapshotter.shares:
            yield from _marks(own, members)
        for departure in departures(docker, driver, record, limits):
            what = "is not in the archive" if "added" in departure.what else f"has another {', '.join(departure.what)}"
            yield f"{departure.node.path} {what}"
    except ForensicsError as error:
        docker.reader.problems.add(record.origin, error)


def _content(own: Tree, members: Mapping[str, Member]) -> Iterator[str]:
    """Files that are missing, or whose bytes are others."""
    for path, member in members.items():
        if "/.wh." in path:
            continue
        node = own._lookup(path)
        if node is None:
            yield f"{path} is missing"
            continue
        said = members.get(member.link, member).node if member.link is not None else member.node
        if node.kind is not NodeKind.FILE or said.kind is not NodeKind.FILE or said.content is None:
            continue  # another kind is told with the attributes
        if node.size != said.size:
            yield f"{path} has {node.size} bytes instead of {said.size}"
        elif node.size:
            try:
                if not _same(node.source(), said.source()):
                    yield f"{path} has another content"
            except ForensicsError as error:
                yield f"{path} cannot be read: {error}"


def _marks(own: Tree, members: Mapping[str, Member]) -> Iterator[str]:
    """Deletions of the archive that the directory does not have."""
    for path in members:
        folder, name = parent_of(path), path.rpartition("/")[2]
        if not name.startswith(_WHITEOUT) or name.startswith(_BOOKKEEPING) or "/.wh." in folder:
            continue
        deleted = join(folder, name.removeprefix(_WHITEOUT))
        node = own._lookup(deleted)
        if node is None and deleted not in members:
            yield f"{deleted} is deleted by the archive, but not in the directory"


def _same(one: Source, other: Source) -> bool:
    """Whether two sources of the same size have the same bytes."""
    starts = range(0, one.size, BLOCK)
    return all(one.read_at(start, BLOCK) == other.read_at(start, BLOCK) for start in starts)
