"""The part of a containerd that a Docker daemon keeps its images and containers' files in (the default since 29)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING

from forensics_lib.engines.containerd.images import Target, read_target
from forensics_lib.engines.containerd.root import find_containerd
from forensics_lib.engines.containerd.store import Containerd
from forensics_lib.engines.docker.snapshots import Archives, SnapshotDb, SnapshotDriver
from forensics_lib.errors import ForensicsError, PathNotFound
from forensics_lib.formats.containerd_meta import ImageEntry, Namespace
from forensics_lib.formats.containerd_snapshots import Snapshot
from forensics_lib.formats.jsondoc import JsonObject
from forensics_lib.images.digest import chain_ids
from forensics_lib.images.layer import LayerBlob, SpoolPool
from forensics_lib.sources.decompress import Limits
from forensics_lib.trees.base import Tree, join, parent_of
from forensics_lib.trees.documents import DocumentReader
from forensics_lib.trees.index import IndexTree
from forensics_lib.trees.layered import apply

if TYPE_CHECKING:
    from forensics_lib.engines.docker.engine import DockerRoot
    from forensics_lib.engines.docker.root import DataRoot

__all__ = ["ContainerdStore", "choose_store", "find_stores"]

_NAMESPACE = "moby"
_MAX_LAYERS = 512
_USERNS = re.compile(r"\d+\.\d+")
_MANAGED = "containerd/daemon"
_UNCOMPRESSED = "containerd.io/uncompressed"
_INDEX = "application/vnd.oci.image.index.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


class ContainerdStore:
    """One namespace of one containerd, as one daemon uses it.

    Attributes:
        containerd: the whole of it.
        namespace: the records of the namespace; without any where the metadata is lost.
    """

    def __init__(self, containerd: Containerd, namespace: Namespace) -> None:
        """Nothing is read yet."""
        self.containerd = containerd
        self.namespace = namespace
        self._dbs: dict[str, SnapshotDb] = {}

    @cached_property
    def snapshotters(self) -> list[str]:
        """The snapshotters that the namespace uses, the one with most snapshots first."""
        counts = {}
        for name in self.containerd.snapshotter_names:
            snapshots = self.containerd.snapshotter(name).snapshots.values()
            own = sum(one.namespace == self.namespace.name for one in snapshots)
            recorded = sum(snapshotter == name for snapshotter, _ in self.namespace.snapshots)
            if own or recorded:
                counts[name] = max(own, recorded)
        return sorted(counts, key=lambda name: (-counts[name], name))

    def layer_db(self, name: str) -> SnapshotDb:
        """The namespace's snapshots in one snapshotter."""
        if name not in self._dbs:
            snapshotter = self.containerd.snapshotter(name)
            self._dbs[name] = SnapshotDb(snapshotter, self.namespace, self.containerd.reader, lambda: self.archives)
            snapshotter.substitute = partial(self._substitute, self._dbs[name])
        return self._dbs[name]

    def merged(self, db: SnapshotDb | None, chain_id: str) -> Tree:
        """A layer with all below it: what is unpacked, with the archives of the layers that are not on top of it.

        Raises:
            PathNotFound: a layer is neither unpacked nor there as an archive.
        """
        known = db.keys if db is not None else {}
        blobs: list[LayerBlob] = []
        current = chain_id
        while current and not (current in known and db is not None and db.snapshotter.is_whole(known[current])):
            blob = self.archives.blobs.get(self.archives.chains.get(current, ""))
            if blob is None or current not in self.archives.below or len(blobs) >= _MAX_LAYERS:
                raise PathNotFound(f"layer {current} is neither unpacked nor in the content store")
            blobs.append(blob)
            current = self.archives.below[current]
        tree = IndexTree(self.containerd.content.origin)
        if current and db is not None:
            for node in db.snapshotter.tree(db.directory(current)).walk():
                tree.put(node)
        for blob in reversed(blobs):
            apply(blob.changeset(), tree, self.containerd.reader.problems)
        tree.count_links()
        return tree

    def _substitute(self, db: SnapshotDb, snapshot: Snapshot) -> Tree | None:
        try:
            return self.merged(db, snapshot.key)
        except ForensicsError:
            return None

    def driver(self, name: str) -> SnapshotDriver:
        """The reader of one snapshotter's directories."""
        return SnapshotDriver(self.containerd.snapshotter(name), self.containerd.reader)

    @cached_property
    def entries(self) -> dict[str, list[ImageEntry]]:
        """The names of images by what they stand for; without metadata the manifests themselves, which have no names.

        Of manifests that an index lists only the index counts.
        """
        found: dict[str, list[ImageEntry]] = {}
        for entry in self.namespace.images.values():
            found.setdefault(entry.digest, []).append(entry)
        if not self.containerd.is_whole:
            for entry in self._nameless():
                found.setdefault(entry.digest, [entry])
        return found

    def _nameless(self) -> Iterable[ImageEntry]:
        content = self.containerd.content
        entries: dict[str, ImageEntry] = {}
        listed: set[str] = set()
        for digest, node in content.digests():
            document = content.small(node)
            media_type = _media_type(document.object) if document is not None else ""
            if document is not None and media_type:
                listed |= {child.text("digest") for child in document.object.objects("manifests")}
                origin = document.origin
                entries[digest] = ImageEntry("", digest, media_type, node.size, None, None, {}, {}, origin)
        return [entry for digest, entry in entries.items() if digest not in listed]

    @cached_property
    def targets(self) -> dict[str, Target]:
        """What the names of images stand for, by digest."""
        return {digest: read_target(self.containerd.content, names[0]) for digest, names in self.entries.items()}

    @cached_property
    def archives(self) -> Archives:
        """The archives of layers, from the images and from the labels of the blobs."""
        chains: dict[str, str] = {}
        below: dict[str, str] = {}
        blobs: dict[str, LayerBlob | None] = {}
        for target in self.targets.values():
            for image in target.images:
                diff_ids, layers = image.parts.config.diff_ids, image.parts.layers
                try:
                    names = chain_ids(diff_ids)
                except ForensicsError:
                    continue  # told with the image
                chains.update(zip(names, diff_ids, strict=True))
                below.update(zip(names, ["", *names], strict=False))
                if len(layers) == len(diff_ids):
                    for diff_id, layer in zip(diff_ids, layers, strict=True):
                        present = layer.blob is not None and layer.blob.stored is not None
                        blobs[diff_id] = blobs.get(diff_id) or (layer.blob if present else None)
        content = self.containerd.content
        for entry in self.namespace.content.values():
            diff_id = entry.labels.get(_UNCOMPRESSED, "")
            if diff_id and blobs.get(diff_id) is None and (node := content.blob(entry.digest)) is not None:
                blobs[diff_id] = content.layer(node.path)
        return Archives(chains, below, blobs)


def find_stores(
    readers: Sequence[DocumentReader], roots: Sequence[DataRoot], limits: Limits, pool: SpoolPool
) -> list[Containerd]:
    """Every containerd of the evidence, those at the places where a daemon of these data roots has it first.

    Args:
        readers: one for each file system.
        roots: the data roots that were found in any of them.
        limits: bounds on what the evidence may ask for.
        pool: disk space for random access to compressed layers.
    """
    near = [(root.at(*_MANAGED.split("/")), "inside the data root") for root in roots]
    near += [(join(parent_of(root.path), "containerd"), "beside the data root") for root in roots]
    return [
        Containerd(reader, root, limits, pool) for reader in readers for root in find_containerd(reader, tuple(near))
    ]


def choose_store(docker: DockerRoot, stores: Sequence[Containerd]) -> ContainerdStore | None:
    """The containerd and namespace that a daemon used: that which has its containers, else by name and place."""
    own_name = docker.root.path.rpartition("/")[2]
    wanted = f"{_NAMESPACE}-{own_name}" if _USERNS.fullmatch(own_name) else _NAMESPACE
    wanted = _configured(docker) or wanted
    best: tuple[tuple[int, bool, bool], ContainerdStore] | None = None
    for containerd in stores:
        inside = containerd.root.path.startswith(f"{docker.root.path.rstrip('/')}/")
        for namespace in _namespaces(containerd, wanted):
            keys = _keys(containerd, namespace)
            held = sum(record.id in keys for record in docker.records)
            if not held and namespace.name != wanted:
                continue
            if not (held or keys or namespace.images or not containerd.is_whole):
                continue
            rank = (held, inside, namespace.name == wanted)
            if best is None or rank > best[0]:
                best = rank, ContainerdStore(containerd, namespace)
    return best[1] if best is not None else None


def _configured(docker: DockerRoot) -> str:
    """The namespace that the daemon's configuration names; empty when it names none."""
    path = "/etc/docker/daemon.json"
    document = docker.reader.document(path) if docker.reader.find(path) is not None else None
    return document.object.text("containerd-namespace") if document is not None else ""


def _namespaces(containerd: Containerd, wanted: str) -> list[Namespace]:
    """Those of the metadata; where that is lost, also those that the snapshotters know, and the one looked for."""
    known = list(containerd.namespaces.values())
    if containerd.is_whole:
        return known
    names = {
        one.namespace
        for name in containerd.snapshotter_names
        for one in containerd.snapshotter(name).snapshots.values()
    }
    origin = containerd.reader.origin.to(containerd.root.path.lstrip("/"))
    return [*known, *(Namespace(name, origin) for name in sorted((names | {wanted}) - {one.name for one in known}))]


def _keys(containerd: Containerd, namespace: Namespace) -> set[str]:
    """Names of a namespace's snapshots, by either database."""
    found = {key for _, key in namespace.snapshots}
    for name in containerd.snapshotter_names:
        snapshots = containerd.snapshotter(name).snapshots.values()
        found |= {one.key for one in snapshots if one.namespace == namespace.name}
    return found


def _media_type(document: JsonObject) -> str:
    """The media type of an index or manifest, as it says or as its fields tell; empty for anything else."""
    if document.integer("schemaVersion") != 2:
        return ""
    stated = document.text("mediaType")
    if document.objects("manifests"):
        return stated or _INDEX
    return (stated or _MANIFEST) if "config" in document and "layers" in document else ""
