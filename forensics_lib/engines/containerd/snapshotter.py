"""containerd's snapshotters: where the files of a snapshot lie, and which snapshots it lies on.

Formats: containerd ``plugins/snapshots/*``, ``core/snapshots/storage``; fuse-overlayfs-snapshotter. The chain of a
snapshot is in the database only: nothing in a directory tells what lies below it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property, partial

from forensics_lib.engines.containerd.database import open_database
from forensics_lib.engines.containerd.usage import Blocks, fitting_blocks
from forensics_lib.errors import DamagedData, PathNotFound, UnsupportedFormat
from forensics_lib.formats.containerd_snapshots import Snapshot, SnapshotKind, read_snapshots
from forensics_lib.model import Origin
from forensics_lib.trees.base import NodeKind, Tree, join
from forensics_lib.trees.documents import DocumentReader
from forensics_lib.trees.overlay import Marks, OverlayTree
from forensics_lib.trees.subtree import Subtree

__all__ = ["FOLDER", "Snapshotter"]

FOLDER = "io.containerd.snapshotter.v1."
_MAX_LAYERS = 512
_OVERLAYS = ("overlayfs", "fuse-overlayfs")
_COPIES = ("native", "btrfs")
_BTRFS_FOLDERS = {SnapshotKind.ACTIVE: "active", SnapshotKind.VIEW: "view", SnapshotKind.COMMITTED: "snapshots"}
_WHERE = {
    "blockfile": "images of file systems",
    "devmapper": "thin volumes of a block device pool",
    "erofs": "EROFS images",
    "nydus": "a registry and its cache",
    "overlaybd": "a registry and its cache",
    "soci": "a registry and its cache",
    "stargz": "a registry and its cache",
    "zfs": "datasets of a ZFS pool",
}


class Snapshotter:
    """One snapshotter of one root.

    Supported: overlayfs and fuse-overlayfs (``snapshots/<id>/fs`` over those of the parents), native and btrfs (each
    snapshot is a whole copy). Others keep their files where a tree does not reach.

    Attributes:
        name: as containerd calls it.
        home: its directory.
        shares: whether a snapshot stores only what it changes; otherwise it is a whole copy.
        origin: its database.
        substitute: gives the merged tree up to a snapshot whose directory is missing; None where nothing replaces it.
    """

    def __init__(self, name: str, reader: DocumentReader, root: str) -> None:
        """Nothing is read yet."""
        self.name = name
        self.home = join(root, f"{FOLDER}{name}")
        self.shares = name not in _COPIES
        self._reader = reader
        self._path = join(self.home, "metadata.db")
        self.substitute: Callable[[Snapshot], Tree | None] = lambda _: None
        self.origin = reader.origin.to(self._path.lstrip("/"))

    @cached_property
    def snapshots(self) -> dict[str, Snapshot]:
        """All snapshots by their full name; none, with a problem, when the database cannot be read."""
        database = open_database(self._reader, self._path)
        if database is None:
            if any(True for _ in self.directories()):
                message = "is missing or unreadable, so that nothing tells whose the directories of the snapshots are"
                self._reader.problems.add(self.origin, DamagedData(f"metadata.db {message}", origin=self.origin))
            return {}
        return read_snapshots(database.root, self.origin, self._reader.problems)

    @cached_property
    def by_id(self) -> dict[str, Snapshot]:
        """Snapshots by the name of their directory."""
        return {str(one.id): one for one in self.snapshots.values() if one.id is not None}

    def chain(self, snapshot: Snapshot) -> list[Snapshot]:
        """A snapshot and all that it lies on, topmost first; cut, with a problem, where one is missing."""
        found = [snapshot]
        seen = {snapshot.name}
        while found[-1].parent:
            below = self.snapshots.get(found[-1].parent)
            if below is None or below.name in seen or len(found) >= _MAX_LAYERS:
                what = "has no record" if below is None else "leads in a circle"
                message = f"snapshot {found[-1].parent} below {found[-1].name} {what}"
                self._reader.problems.add(found[-1].origin, DamagedData(message, origin=found[-1].origin))
                break
            seen.add(below.name)
            found.append(below)
        return found

    def tree(self, directory: str) -> Tree:
        """The merged file system of a snapshot and all below it.

        Raises:
            PathNotFound: its directory is not in the evidence.
            UnsupportedFormat: this snapshotter keeps files where the evidence does not reach.
        """
        self._existing(directory)
        if not self.shares:
            return self.alone(directory)
        snapshot = self.by_id.get(directory)
        layers = [(self._reader.tree, self._files(directory))]
        for below in self.chain(snapshot)[1:] if snapshot is not None else ():
            path = self._files(str(below.id))
            if path in self._reader.tree:
                layers.append((self._reader.tree, path))
                continue
            instead = self.substitute(below)
            rest = "the rest is merged" if instead is None else "its archive and those of the layers below are read"
            message = f"snapshot {directory}: the directory {below.id} of {below.name} below it is missing; {rest}"
            self._reader.problems.add(self._origin(directory), DamagedData(message, origin=below.origin))
            if instead is not None:
                layers.append((instead, "/"))
                break
        return OverlayTree(layers, problems=self._reader.problems, origin=self._origin(directory), marks=self._marks)

    def alone(self, directory: str) -> Tree:
        """What the snapshot's own directory holds, whiteouts as the snapshotter stores them.

        Raises:
            PathNotFound: its directory is not in the evidence.
            UnsupportedFormat: as `tree`.
        """
        return Subtree(self._reader.tree, self._existing(directory))

    @cached_property
    def blocks(self) -> Blocks | None:
        """How the file system under the snapshots counts; None when the recorded sizes do not tell."""
        known = [
            (one.size, one.inodes or 0, partial(self.alone, str(one.id)))
            for one in self.snapshots.values()
            if one.size is not None and one.id is not None
        ]
        return fitting_blocks(known) if self.name != "btrfs" else None

    def usage(self, directory: str) -> int | None:
        """Bytes that a snapshot takes up on the disk, as recorded or, of a writable one, as its file system counts.

        Raises:
            ForensicsError: its files cannot be reached.
        """
        snapshot = self.by_id.get(directory)
        if snapshot is not None and snapshot.size is not None and snapshot.kind is SnapshotKind.COMMITTED:
            return snapshot.size
        tree = self.alone(directory)
        return self.blocks.usage(tree) if self.blocks is not None else None

    def usage_below(self, directory: str) -> int | None:
        """Bytes of all snapshots that one lies on, as recorded; None where one has no record."""
        snapshot = self.by_id.get(directory)
        chain = self.chain(snapshot) if snapshot is not None else []
        sizes = [one.size for one in chain[1:]]
        if not chain or chain[-1].parent or None in sizes:
            return None
        return sum(size or 0 for size in sizes)

    def is_whole(self, snapshot: Snapshot) -> bool:
        """Whether the directories of a snapshot and of all that it lies on are in the evidence."""
        chain = self.chain(snapshot)
        return not chain[-1].parent and all(self.exists(str(one.id)) for one in chain)

    def folder(self, directory: str) -> str:
        """The directory of a snapshot."""
        if self.name == "btrfs":
            snapshot = self.by_id.get(directory)
            kind = snapshot.kind if snapshot is not None else SnapshotKind.COMMITTED
            return join(join(self.home, _BTRFS_FOLDERS.get(kind, "snapshots")), directory)
        return join(join(self.home, "snapshots"), directory)

    def directories(self) -> Iterator[str]:
        """Names of all directories of snapshots, whoever they belong to."""
        folders = set(_BTRFS_FOLDERS.values()) if self.name == "btrfs" else {"snapshots"}
        for folder in sorted(folders):
            for node in self._reader.folder(join(self.home, folder)):
                if node.kind is NodeKind.DIR:
                    yield node.name

    @property
    def is_reachable(self) -> bool:
        """Whether it keeps files in directories, which a tree has."""
        return self.name in (*_OVERLAYS, *_COPIES)

    def exists(self, directory: str) -> bool:
        """Whether a snapshot's directory is in the evidence."""
        return directory.isdecimal() and self._files(directory) in self._reader.tree

    def _files(self, directory: str) -> str:
        folder = self.folder(directory)
        return join(folder, "fs") if self.name in _OVERLAYS else folder

    def _existing(self, directory: str) -> str:
        if not self.is_reachable:
            where = _WHERE.get(self.name, "places that only it knows")
            raise UnsupportedFormat(f"the snapshotter {self.name} keeps the files of snapshot {directory} in {where}")
        path = self._files(directory)
        if not directory or "/" in directory or directory in (".", "..") or path not in self._reader.tree:
            raise PathNotFound(f"{path.lstrip('/')} is not in the evidence")
        return path

    def _origin(self, directory: str) -> Origin:
        return self._reader.origin.to(self.folder(directory).lstrip("/"))

    @property
    def _marks(self) -> Marks | None:
        """How its overlays are marked; rootless containerd mounts them with ``userxattr``."""
        if self.name == "fuse-overlayfs":
            return Marks.FUSE
        return Marks.USER if "/.local/share/" in self.home else Marks.TRUSTED
