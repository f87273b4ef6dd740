"""Docker's layers in containerd's store, in the form of those of its graph drivers.

Format: moby ``daemon/containerd/image_snapshot.go``: an image layer is the committed snapshot of its chain id, a
container the active one of its own id on a committed ``<id>-init``, on its image's top layer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cached_property

from forensics_lib.engines.containerd.snapshotter import Snapshotter
from forensics_lib.engines.containerd.space import Archives, SnapshotKeys, directory_of
from forensics_lib.engines.docker.drivers import GraphDriver
from forensics_lib.engines.docker.layerdb import LayerDb, LayerRecord, MountRecord
from forensics_lib.formats.containerd_meta import Namespace
from forensics_lib.formats.containerd_snapshots import Snapshot, SnapshotKind
from forensics_lib.images.layer import LayerBlob
from forensics_lib.trees.base import Tree
from forensics_lib.trees.documents import DocumentReader

__all__ = ["SnapshotDb", "SnapshotDriver"]

_OWNED = re.compile(r"[0-9a-f]{64}(?!-(?:init|init-key)$|-parent-view-)")
_UNFINISHED = re.compile(r"extract-|[0-9a-f]{64}-init-key$")
_INIT = "-init"


class SnapshotDriver(GraphDriver):
    """A snapshotter in the place of a storage driver; a directory's name is the snapshot's number."""

    def __init__(self, snapshotter: Snapshotter, reader: DocumentReader) -> None:
        """Read through the snapshotter; `reader` reads the tree that it lies in."""
        self.name = snapshotter.name
        self.shares = snapshotter.shares
        self.home = snapshotter.home
        self.snapshotter = snapshotter
        self._reader = reader

    def tree(self, cache_id: str) -> Tree:
        """The merged file system of a snapshot and all below it."""
        return self.snapshotter.tree(cache_id)

    def alone(self, cache_id: str) -> Tree:
        """What the snapshot's own directory holds."""
        return self.snapshotter.alone(cache_id)

    def directories(self) -> Iterator[str]:
        """Names of all directories of snapshots, whoever they belong to."""
        return self.snapshotter.directories()

    def folder(self, cache_id: str) -> str:
        """The directory of a snapshot."""
        return self.snapshotter.folder(cache_id)

    def exists(self, cache_id: str) -> bool:
        """Whether the directory of a snapshot is in the evidence."""
        return self.snapshotter.exists(cache_id)


class SnapshotDb(SnapshotKeys, LayerDb):
    """The snapshots that a namespace has in one snapshotter, as records of layers."""

    def __init__(
        self, snapshotter: Snapshotter, namespace: Namespace, reader: DocumentReader, archives: Callable[[], Archives]
    ) -> None:
        """Nothing is read yet."""
        SnapshotKeys.__init__(self, snapshotter, namespace)
        self._reader = reader
        self.driver = snapshotter.name
        self.path = snapshotter.home
        self._archives = archives

    @cached_property
    def layers(self) -> dict[str, LayerRecord]:
        """The image layers by chain id."""
        return {key: self._record(key, one) for key, one in self.images.items()}

    @cached_property
    def removing(self) -> list[LayerRecord]:
        """None: a snapshot's record is removed before its files."""
        return []

    @cached_property
    def unfinished(self) -> list[LayerRecord]:
        """Layers that were being unpacked, and init layers that were being filled."""
        return [self._record("", one) for key, one in self.keys.items() if _UNFINISHED.match(key)]

    @cached_property
    def mounts(self) -> dict[str, MountRecord]:
        """Writable layers by container id (image mounts have ids of their own)."""
        found = {}
        for key, one in self.keys.items():
            if one.kind is SnapshotKind.ACTIVE and _OWNED.match(key):
                init = self.snapshotter.snapshots.get(one.parent)
                below = init
                if init is not None and init.key == f"{key}{_INIT}":
                    below = self.snapshotter.snapshots.get(init.parent)
                else:
                    init = None
                parent = below.key if below is not None else ""
                found[key] = MountRecord(key, directory_of(one), directory_of(init), parent, one.origin)
        return found

    def archive(self, record: LayerRecord) -> LayerBlob | None:
        """The archive that a layer was unpacked from; None when it is not there."""
        return self._archives().blobs.get(record.diff_id)

    def _record(self, chain_id: str, snapshot: Snapshot) -> LayerRecord:
        parent = self.layer_below(snapshot)
        return LayerRecord(
            chain_id,
            self._archives().diff_id(chain_id, parent) if chain_id else "",
            parent,
            directory_of(snapshot),
            snapshot.size,
            self.snapshotter.folder(directory_of(snapshot)),
            snapshot.origin,
        )
