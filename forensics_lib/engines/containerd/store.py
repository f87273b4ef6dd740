"""One root of containerd: its namespaces, its content and its snapshotters."""

from __future__ import annotations

from functools import cached_property

from forensics_lib.engines.containerd.content import ContentStore
from forensics_lib.engines.containerd.database import open_database
from forensics_lib.engines.containerd.root import METADATA, ContainerdRoot
from forensics_lib.engines.containerd.snapshotter import FOLDER, Snapshotter
from forensics_lib.errors import DamagedData
from forensics_lib.formats.bbolt import Bolt
from forensics_lib.formats.containerd_meta import ContentEntry, Namespace, read_namespaces
from forensics_lib.images.layer import SpoolPool
from forensics_lib.sources.decompress import Limits
from forensics_lib.trees.base import NodeKind
from forensics_lib.trees.documents import DocumentReader

__all__ = ["Containerd"]


class Containerd:
    """What lies below one root; each part is read when it is first asked for. It is no engine of its own.

    Attributes:
        reader: reads the tree that the root lies in.
        root: where it lies.
        limits: bounds on what the evidence may ask for.
    """

    def __init__(self, reader: DocumentReader, root: ContainerdRoot, limits: Limits, pool: SpoolPool) -> None:
        """Nothing is read yet."""
        self.reader = reader
        self.root = root
        self.limits = limits
        self._pool = pool
        self._snapshotters: dict[str, Snapshotter] = {}

    @cached_property
    def database(self) -> Bolt | None:
        """The metadata; None, with a problem, when it is missing or unreadable."""
        path = self.root.at(METADATA)
        database = open_database(self.reader, path)
        if database is None or not database.root.is_sound:
            origin = self.reader.origin.to(path.lstrip("/"))
            state = "missing or unreadable" if database is None else "damaged"
            message = f"containerd's meta.db is {state}: names of images and records of blobs and snapshots are lost"
            self.reader.problems.add(origin, DamagedData(message, origin=origin))
        return database

    @property
    def is_whole(self) -> bool:
        """Whether all of the metadata can be read."""
        return self.database is not None and self.database.root.is_sound

    @cached_property
    def namespaces(self) -> dict[str, Namespace]:
        """The namespaces by name."""
        if self.database is None:
            return {}
        origin = self.reader.origin.to(self.root.at(METADATA).lstrip("/"))
        return read_namespaces(self.database.root, origin, self.reader.problems)

    @cached_property
    def recorded(self) -> dict[str, ContentEntry]:
        """The records of blobs in any namespace, by digest."""
        return {digest: entry for space in self.namespaces.values() for digest, entry in space.content.items()}

    @cached_property
    def content(self) -> ContentStore:
        """The blobs of all namespaces."""
        recorded = self.recorded if self.is_whole else None
        return ContentStore(self.reader.tree, self.root.path, self.reader.problems, self.limits, self._pool, recorded)

    @cached_property
    def snapshotter_names(self) -> list[str]:
        """The snapshotters that there are directories of, used or not."""
        nodes = self.reader.folder(self.root.path)
        return [
            node.name.removeprefix(FOLDER)
            for node in nodes
            if node.kind is NodeKind.DIR and node.name.startswith(FOLDER)
        ]

    def snapshotter(self, name: str) -> Snapshotter:
        """A snapshotter by name."""
        if name not in self._snapshotters:
            self._snapshotters[name] = Snapshotter(name, self.reader, self.root.path)
        return self._snapshotters[name]
