"""Are the files of unpacked layers those of the layers' archives? Chain ids, archives, and every file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

from forensics_lib.engines.containerd.space import SnapshotKeys, Space, directory_of
from forensics_lib.errors import ForensicsError, PathNotFound
from forensics_lib.formats.containerd_snapshots import Snapshot
from forensics_lib.images.departures import departures_from, members_of
from forensics_lib.images.digest import chain_ids
from forensics_lib.images.layer import LayerBlob
from forensics_lib.model import Check
from forensics_lib.sources.base import BLOCK, Source
from forensics_lib.trees.archive import Member
from forensics_lib.trees.base import NodeKind, Tree, join, parent_of

__all__ = ["verify_unpacked"]

_WHITEOUT = ".wh."
_BOOKKEEPING = ".wh..wh."
_ATTRIBUTES_ELSEWHERE = "fuse-overlayfs"


def verify_unpacked(space: Space) -> Iterator[Check]:
    """Each unpacked layer of a namespace against its archive."""
    for name in space.snapshotters:
        keys = space.keys_in(name)
        for chain_id, snapshot in keys.images.items():
            yield from _check_layer(space, keys, chain_id, snapshot)


def _check_layer(space: Space, keys: SnapshotKeys, chain_id: str, snapshot: Snapshot) -> Iterator[Check]:
    subject, origin, problems = f"layer {chain_id}", snapshot.origin, space.containerd.reader.problems
    parent = keys.layer_below(snapshot)
    diff_id = space.archives.diff_id(chain_id, parent)
    if not diff_id:
        message = f"{subject}: no image and no blob tells the digest of its archive, so that nothing proves its files"
        problems.add(origin, PathNotFound(message))
        return
    chain = chain_ids([*([parent] if parent else []), diff_id])[-1]
    yield Check(f"{subject} chain id", chain_id, chain, chain == chain_id, origin)
    blob = space.archives.blobs.get(diff_id)
    if blob is None:
        message = f"{subject}: its archive is not in the content store, so that nothing proves its files"
        problems.add(origin, PathNotFound(message))
        return
    try:
        digest = hashlib.sha256()
        for piece in blob.stream():
            digest.update(piece)
        actual = f"sha256:{digest.hexdigest()}"
    except ForensicsError as error:
        actual = f"undecodable: {error}"
    yield Check(f"{subject} archive", diff_id, actual, actual == diff_id, blob.origin)
    yield from _check_count(keys, snapshot, subject)
    try:
        for what in _differences(keys, snapshot, keys.images.get(parent), blob):
            yield Check(f"{subject} file", "as in the archive", what, False, origin)
    except ForensicsError as error:
        problems.add(origin, error)


def _check_count(keys: SnapshotKeys, snapshot: Snapshot, subject: str) -> Iterator[Check]:
    """How many files and directories there are, one with several names once; the directory itself counts."""
    if snapshot.inodes is None or not keys.snapshotter.shares:
        return
    try:
        nodes = list(keys.snapshotter.alone(directory_of(snapshot)).walk())
    except ForensicsError:
        return  # told when its files are compared
    shared = {node.inode for node in nodes if node.nlink > 1 and node.inode and node.kind is not NodeKind.DIR}
    single = sum(not (node.nlink > 1 and node.inode and node.kind is not NodeKind.DIR) for node in nodes)
    expected, actual = snapshot.inodes, single + len(shared)
    yield Check(f"{subject} files", str(expected), str(actual), expected == actual, snapshot.origin)


def _differences(keys: SnapshotKeys, snapshot: Snapshot, parent: Snapshot | None, blob: LayerBlob) -> Iterator[str]:
    """What in a layer's directory is not as in its archive."""
    snapshotter = keys.snapshotter
    own, members = snapshotter.alone(directory_of(snapshot)), members_of(blob)
    yield from _content(own, members)
    if snapshotter.shares:
        yield from _marks(own, members)
    below = snapshotter.tree(directory_of(parent)) if parent is not None else None
    attributes = snapshotter.name != _ATTRIBUTES_ELSEWHERE
    for departure in departures_from(members, own, below, attributes=attributes):
        what = "is not in the archive" if "added" in departure.what else f"has another {', '.join(departure.what)}"
        yield f"{departure.node.path} {what}"


def _content(own: Tree, members: Mapping[str, Member]) -> Iterator[str]:
    """Files that are missing, or whose bytes are others."""
    for path, member in members.items():
        if "/.wh." in path:
            continue
        node = own.find(path)
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
        node = own.find(deleted)
        if node is None and deleted not in members:
            yield f"{deleted} is deleted by the archive, but not in the directory"


def _same(one: Source, other: Source) -> bool:
    """Whether two sources of the same size have the same bytes."""
    starts = range(0, one.size, BLOCK)
    return all(one.read_at(start, BLOCK) == other.read_at(start, BLOCK) for start in starts)
