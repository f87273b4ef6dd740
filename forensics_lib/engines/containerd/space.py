"""One namespace of one containerd: its images, its layers as they are unpacked and as archives."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice

from forensics_lib.engines.containerd.images import Target, read_target
from forensics_lib.engines.containerd.snapshotter import Snapshotter
from forensics_lib.engines.containerd.store import Containerd
from forensics_lib.errors import ForensicsError, PathNotFound
from forensics_lib.formats.containerd_meta import ImageEntry, Namespace
from forensics_lib.formats.containerd_snapshots import Snapshot, SnapshotKind
from forensics_lib.formats.jsondoc import JsonObject
from forensics_lib.images.digest import chain_ids
from forensics_lib.images.layer import LayerBlob
from forensics_lib.trees.base import Tree
from forensics_lib.trees.index import IndexTree
from forensics_lib.trees.layered import apply

__all__ = ["Archives", "SnapshotKeys", "Space", "directory_of"]

_CHAIN = re.compile(r"sha256:[0-9a-f]{64}")
_MAX_LAYERS = 512
_MAX_TRIED = 1_000
_UNCOMPRESSED = "containerd.io/uncompressed"
_INDEX = "application/vnd.oci.image.index.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@dataclass(frozen=True, slots=True)
class Archives:
    """What the content store tells of layers.

    Attributes:
        chains: digest of a layer's archive (diff id) by chain id, as the images say.
        below: chain id of the layer below by chain id; empty for a base.
        blobs: the archives by diff id; None for one that is not there.
    """

    chains: Mapping[str, str]
    below: Mapping[str, str]
    blobs: Mapping[str, LayerBlob | None]

    def diff_id(self, chain_id: str, parent: str) -> str:
        """The digest of a layer's archive: what its image says, else the one of all known that gives its chain id.

        Args:
            chain_id: of the layer.
            parent: chain id of the layer below; empty for a base.
        """
        if not parent:
            return chain_id
        known = self.chains.get(chain_id)
        if known is not None:
            return known
        candidates = islice(self.blobs, _MAX_TRIED)
        return next((one for one in candidates if chain_ids([parent, one])[-1] == chain_id), "")


class SnapshotKeys:
    """The snapshots that a namespace has in one snapshotter.

    Attributes:
        snapshotter: keeps them.
        namespace: whose they are.
    """

    def __init__(self, snapshotter: Snapshotter, namespace: Namespace) -> None:
        """Nothing is read yet."""
        self.snapshotter = snapshotter
        self.namespace = namespace

    @cached_property
    def keys(self) -> dict[str, Snapshot]:
        """The snapshots by the names that the namespace has for them; those without a record of it by their own."""
        known = self.snapshotter.snapshots
        own = [one for one in known.values() if one.namespace == self.namespace.name]
        found = {one.key: one for one in sorted(own, key=lambda one: one.number)}
        for (snapshotter, key), entry in self.namespace.snapshots.items():
            if snapshotter == self.snapshotter.name and entry.name in known:
                found[key] = known[entry.name]
        return found

    @cached_property
    def images(self) -> dict[str, Snapshot]:
        """The snapshots of image layers, by chain id."""
        whole = (SnapshotKind.COMMITTED, SnapshotKind.UNKNOWN)
        return {key: one for key, one in self.keys.items() if _CHAIN.fullmatch(key) and one.kind in whole}

    def layer_below(self, snapshot: Snapshot) -> str:
        """Chain id of the image layer that a snapshot lies on; empty for a base.

        There may be others between: a committed container lies on its init layer.
        """
        below = (one.key for one in self.snapshotter.chain(snapshot)[1:])
        return next((key for key in below if _CHAIN.fullmatch(key)), "")

    @cached_property
    def forgotten(self) -> set[str]:
        """Keys of snapshots that the namespace has no record of any more; their files were about to be removed."""
        recorded = {key for name, key in self.namespace.snapshots if name == self.snapshotter.name}
        return set(self.keys) - recorded if recorded else set()

    def directory(self, key: str) -> str:
        """The directory of a snapshot by its key; empty when there is no such snapshot."""
        return directory_of(self.keys.get(key))


class Space:
    """One namespace of one containerd.

    Attributes:
        containerd: the whole of it.
        namespace: the records of the namespace; without any where the metadata is lost.
    """

    def __init__(self, containerd: Containerd, namespace: Namespace) -> None:
        """Nothing is read yet."""
        self.containerd = containerd
        self.namespace = namespace
        self._keys: dict[str, SnapshotKeys] = {}

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

    def keys_in(self, name: str) -> SnapshotKeys:
        """The namespace's snapshots in one snapshotter."""
        if name not in self._keys:
            self._keys[name] = self._made(self.containerd.snapshotter(name))
            self.containerd.snapshotter(name).substitute = partial(self._substitute, self._keys[name])
        return self._keys[name]

    def _made(self, snapshotter: Snapshotter) -> SnapshotKeys:
        return SnapshotKeys(snapshotter, self.namespace)

    def merged(self, keys: SnapshotKeys | None, chain_id: str) -> Tree:
        """A layer with all below it: what is unpacked, with the archives of the layers that are not on top of it.

        Raises:
            PathNotFound: a layer is neither unpacked nor there as an archive.
        """
        known = keys.keys if keys is not None else {}
        blobs: list[LayerBlob] = []
        current = chain_id
        while current and not (current in known and keys is not None and keys.snapshotter.is_whole(known[current])):
            blob = self.archives.blobs.get(self.archives.chains.get(current, ""))
            if blob is None or current not in self.archives.below or len(blobs) >= _MAX_LAYERS:
                raise PathNotFound(f"layer {current} is neither unpacked nor in the content store")
            blobs.append(blob)
            current = self.archives.below[current]
        tree = IndexTree(self.containerd.content.origin)
        if current and keys is not None:
            for node in keys.snapshotter.tree(keys.directory(current)).walk():
                tree.put(node)
        for blob in reversed(blobs):
            apply(blob.changeset(), tree, self.containerd.reader.problems)
        tree.count_links()
        return tree

    def _substitute(self, keys: SnapshotKeys, snapshot: Snapshot) -> Tree | None:
        try:
            return self.merged(keys, snapshot.key)
        except ForensicsError:
            return None

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


def directory_of(snapshot: Snapshot | None) -> str:
    """The name of a snapshot's directory; empty when that is not known."""
    return "" if snapshot is None or snapshot.id is None else str(snapshot.id)


def _media_type(document: JsonObject) -> str:
    """The media type of an index or manifest, as it says or as its fields tell; empty for anything else."""
    if document.integer("schemaVersion") != 2:
        return ""
    stated = document.text("mediaType")
    if document.objects("manifests"):
        return stated or _INDEX
    return (stated or _MANIFEST) if "config" in document and "layers" in document else ""
