"""btrfs file systems, read from their bytes: no mount, no root."""

from __future__ import annotations

import stat
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from forensics_lib.errors import DamagedData, NotFound
from forensics_lib.formats.btrfs import TOP_LEVEL, BtrfsVolume
from forensics_lib.formats.btrfs_content import BtrfsContent
from forensics_lib.formats.btrfs_files import BtrfsFiles, BtrfsInode
from forensics_lib.formats.btrfs_items import DirectoryEntry, ItemKind
from forensics_lib.formats.btrfs_subvolumes import Subvolume, list_subvolumes
from forensics_lib.model import Check, Origin, ProblemLog
from forensics_lib.sources.base import Source
from forensics_lib.trees.base import NO_XATTRS, Node, NodeKind, Tree, byte_order, device_number, join, make_node
from forensics_lib.trees.inodes import KINDS

__all__ = ["BtrfsTree"]

_ROOT_DIRECTORY = 256
_MINOR_BITS = 20  # as the kernel keeps device numbers in memory
_KNOWN_FOLDERS = 4096
_MAX_NAMES = 100_000  # of directories that are kept


class _Place(NamedTuple):
    """An inode, and where its name stands.

    Attributes:
        subvolume: number of the subvolume that it belongs to.
        inode: its number; of the directory above, for an empty place.
        parent: number of the directory that holds the name; None for the root of a subvolume.
        empty: a snapshot does not reach into other subvolumes; where they were mounted it has empty directories.
    """

    subvolume: int
    inode: int
    parent: int | None = None
    empty: bool = False


@dataclass(frozen=True, slots=True)
class _BtrfsFileContent:
    """The bytes of a file of the file system."""

    files: BtrfsFiles
    inode: int
    size: int
    origin: Origin

    def source(self) -> Source:
        """The bytes, holes as zeros."""
        return self.files.content(self.inode, self.size, self.origin)


class BtrfsTree(Tree):
    """A btrfs file system: one subvolume, and those that are mounted below it as directories.

    Starting at the top level everything that is not deleted can be reached, whichever subvolume is the default one.

    Names, metadata, attributes and content are as Linux shows them. What `BtrfsVolume` does not support is named there.
    A node's `inode` is unique in the whole tree: numbers of subvolumes other than the starting one begin above 2**64.

    Args:
        source: the file system's bytes, or one of its devices.
        problems: gets damage, what cannot be shown, and what the replay of the log did.
        devices: the other devices.
        seeds: devices of other file systems, of which this one may have grown.
        subvolume: number of the subvolume to start at, also of a deleted one; None for the top level.
        replay: whether to replay the log of a crash.

    Attributes:
        volume: the superblock, the chunks and the trees.
        label: name of the file system.
        uuid: as people write it.
        subvolume: number of the subvolume at the root.

    Raises:
        DamagedData: no such file system, or damaged beyond opening.
        NotFound: there is no such subvolume.
    """

    def __init__(
        self,
        source: Source,
        problems: ProblemLog,
        *,
        devices: Iterable[Source] = (),
        seeds: Iterable[Source] = (),
        subvolume: int | None = None,
        replay: bool = True,
    ) -> None:
        """Read the superblocks and the trees that lead to all others."""
        self._problems = problems
        self.volume = BtrfsVolume(source, problems, devices, seeds=seeds, replay=replay)
        self.origin = source.origin
        self.label = self.volume.superblock.label
        self.uuid = self.volume.superblock.uuid
        self.subvolume = TOP_LEVEL if subvolume is None else subvolume
        self._lock = threading.RLock()
        self._files: dict[int, BtrfsFiles] = {}
        self._folders: dict[_Place, dict[str, DirectoryEntry]] = {}
        self._names_kept = 0
        self._top = _Place(self.subvolume, self._root_of(self.subvolume))
        self._places = {"/": self._top}

    @cached_property
    def subvolumes(self) -> tuple[Subvolume, ...]:
        """The top level, then all subvolumes and snapshots by number, deleted ones that are still there included."""
        return tuple(list_subvolumes(self.volume, self._problems))

    @property
    def default_subvolume(self) -> int:
        """Number of the subvolume that Linux mounts unless another one is asked for."""
        return self.volume.default_subvolume

    def check(self, path: str) -> Check:
        """Whether what is stored of a file agrees with the checksums that the file system keeps of its data.

        Small files lie in the trees, whose blocks are checked whenever they are read; they have no sectors here, as
        files that are excluded from checksums (``chattr +C``).

        Raises:
            PathNotFound: there is no such file.
            NotAFile: the path leads to something else.
            DamagedData: the data or the checksums cannot be read.
        """
        node = self.resolve(path)
        content = node.source()
        sectors = wrong = 0
        for logical, length in content.stored() if isinstance(content, BtrfsContent) else ():
            for _, right in self.volume.checked(logical, length):
                sectors += 1
                wrong += not right
        subject = f"{node.path} data checksums"
        return Check(subject, f"{sectors} sectors", f"{sectors - wrong} sectors", not wrong, node.origin)

    def _lookup(self, path: str) -> Node | None:
        place = self._locate(path)
        return None if place is None else self._shown(path, place)

    def _children(self, path: str) -> Iterator[Node]:
        above = self._locate(path)
        entries = {} if above is None else self._folder(above)
        for name in sorted(entries, key=byte_order):
            place = None if above is None else self._entered(above, name, entries[name])
            node = None if place is None else self._shown(join(path, name), place)
            if node is not None:
                yield node

    def _shown(self, path: str, place: _Place) -> Node | None:
        """The node of a place."""
        try:
            node = self._node(path, place)
        except (DamagedData, NotFound) as error:
            self._problems.add(self._origin(place), error)
            node = None
        if node is None and place.parent is None:  # the names below it may be readable still
            node = Node(path, NodeKind.DIR, 0o755, 0, 0, 0, None, self._origin(place))
        if node is not None and node.kind is NodeKind.DIR:
            with self._lock:
                if len(self._places) >= _KNOWN_FOLDERS:
                    self._places = {"/": self._top}
                self._places[path] = place
        return node

    def _names(self, path: str) -> Iterable[str]:
        place = self._locate(path)
        return () if place is None else self._folder(place)

    def _locate(self, path: str) -> _Place | None:
        """Whose name exactly this path is."""
        missing: list[str] = []
        place: _Place | None
        while (place := self._places.get(path)) is None:
            path, _, name = path.rpartition("/")
            path = path or "/"
            missing.append(name)
        for name in reversed(missing):
            entry = self._folder(place).get(name)
            place = None if entry is None else self._entered(place, name, entry)
            if place is None:
                return None
        return place

    def _entered(self, folder: _Place, name: str, entry: DirectoryEntry) -> _Place | None:
        """What a name of a directory leads to."""
        if entry.kind != ItemKind.ROOT:
            return _Place(folder.subvolume, entry.objectid, folder.inode)
        try:
            above, place = self.volume.mount(entry.objectid) or (None, None)
            here = place is not None and (place.directory, place.name) == (folder.inode, entry.name)
            if above != folder.subvolume or not here:
                return _Place(folder.subvolume, folder.inode, folder.inode, empty=True)
            if entry.objectid in (TOP_LEVEL, self.subvolume):
                raise DamagedData(f"subvolume {entry.objectid} is mounted below itself", origin=self.origin)
            return _Place(entry.objectid, self._root_of(entry.objectid))
        except (DamagedData, NotFound) as error:
            self._problems.add(self._origin(folder).to(name), error)
            return None

    def _files_of(self, subvolume: int) -> BtrfsFiles:
        with self._lock:
            files = self._files.get(subvolume)
            if files is None:
                files = self._files[subvolume] = self.volume.files(subvolume)
            return files

    def _root_of(self, subvolume: int) -> int:
        """Inode number of a subvolume's root directory."""
        return self.volume.root(subvolume).directory or _ROOT_DIRECTORY

    def _folder(self, place: _Place) -> dict[str, DirectoryEntry]:
        """The names of a directory."""
        with self._lock:
            known = self._folders.get(place)
            if known is None:
                known = {} if place.empty else self._read_folder(place)
                self._names_kept += 1 + len(known)
                if self._names_kept > _MAX_NAMES:
                    self._folders.clear()
                    self._names_kept = 1 + len(known)
                self._folders[place] = known
            return known

    def _read_folder(self, place: _Place) -> dict[str, DirectoryEntry]:
        found: dict[str, DirectoryEntry] = {}
        for name, entry in self._files_of(place.subvolume).folder(place.inode).items():
            if not name or b"/" in name or b"\0" in name or name in (b".", b".."):
                self._problems.add(self._origin(place), f"directory with an impossible name {name!r}")
            else:
                found[name.decode("utf-8", "surrogateescape")] = entry
        return found

    def _node(self, path: str, place: _Place) -> Node | None:
        files = self._files_of(place.subvolume)
        inode = files.inode(place.inode)
        if inode is None:
            self._problems.add(self._origin(place), f"{path}: there is no inode of this number")
            return None
        if place.empty:
            return self._empty(path, inode, place)
        item = inode.item
        origin = self._origin(place, inode)
        kind = KINDS.get(stat.S_IFMT(item.mode))
        if kind is None:
            self._problems.add(origin, f"{path}: inode of unknown type {item.mode:o}")
            return None
        if kind is NodeKind.DIR and not self._belongs(path, place):
            self._problems.add(origin, f"{path}: this directory belongs to another place")
            return None
        is_file = kind is NodeKind.FILE
        return make_node(
            path,
            kind,
            stat.S_IMODE(item.mode),
            item.uid,
            item.gid,
            item.size if is_file else 0,
            item.mtime_ns,
            origin,
            item.atime_ns,
            item.ctime_ns,
            item.otime_ns or None,
            self._target(files, inode, origin) if kind is NodeKind.SYMLINK else None,
            _device(item.rdev) if kind in (NodeKind.CHAR, NodeKind.BLOCK) else 0,
            item.nlink,
            self._number(place),
            files.xattrs(place.inode) or NO_XATTRS,
            _BtrfsFileContent(files, inode.number, item.size, origin) if is_file else None,
        )

    def _empty(self, path: str, above: BtrfsInode, place: _Place) -> Node:
        """The directory that Linux shows where a snapshot does not reach into another subvolume; it has no times."""
        item = above.item
        origin = self._origin(place, above)
        return Node(path, NodeKind.DIR, 0o755, item.uid, item.gid, 0, None, origin)

    def _belongs(self, path: str, place: _Place) -> bool:
        """Whether a directory names this place as its first one; so a hostile tree cannot hold a directory twice."""
        if place.parent is None:
            return True
        first = next(self._files_of(place.subvolume).references(place.inode), None)
        name = path.rpartition("/")[2].encode("utf-8", "surrogateescape")
        return first is not None and first.directory == place.parent and first.name == name

    def _target(self, files: BtrfsFiles, inode: BtrfsInode, origin: Origin) -> str:
        try:
            data = files.target(inode, origin)
        except DamagedData as error:
            self._problems.add(origin, error)
            data = b""
        return data.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")

    def _number(self, place: _Place) -> int:
        return place.inode if place.subvolume == self.subvolume else place.subvolume << 64 | place.inode

    def _origin(self, place: _Place, inode: BtrfsInode | None = None) -> Origin:
        return Origin(
            f"inode {place.inode}", self._files_of(place.subvolume).origin, None if inode is None else inode.at
        )


def _device(number: int) -> int:
    """A device's number as user space encodes it, from the kernel's own form."""
    return device_number(number >> _MINOR_BITS & 0xFFF, number & (1 << _MINOR_BITS) - 1)
