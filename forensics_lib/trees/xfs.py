"""XFS file systems, read from their bytes: no mount, no root."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from forensics_lib.errors import DamagedData, UnsupportedFormat
from forensics_lib.formats.xfs import XfsGeometry
from forensics_lib.formats.xfs_attr import linux_xattrs, read_attributes
from forensics_lib.formats.xfs_dir import read_directory
from forensics_lib.formats.xfs_fork import fork_extents, fork_source
from forensics_lib.formats.xfs_inode import InodeDecoder, XfsInode
from forensics_lib.formats.xfs_remote import link_target
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.sources.base import Source
from forensics_lib.trees.base import NO_XATTRS, Node, NodeKind, Tree, device_number, parent_of

__all__ = ["XfsTree"]

_KINDS = {
    stat.S_IFREG: NodeKind.FILE,
    stat.S_IFDIR: NodeKind.DIR,
    stat.S_IFLNK: NodeKind.SYMLINK,
    stat.S_IFCHR: NodeKind.CHAR,
    stat.S_IFBLK: NodeKind.BLOCK,
    stat.S_IFIFO: NodeKind.FIFO,
    stat.S_IFSOCK: NodeKind.SOCKET,
}
_FILE, _DIR = NodeKind.FILE, NodeKind.DIR
_WINDOW = 32 << 10  # bytes of inodes read at a time: the 64 that are allocated together, at 512 bytes each
_KNOWN_WINDOWS = 256
_KNOWN_ENTRIES = 200_000  # names of directories that are kept
_KNOWN_PATHS = 50_000


@dataclass(slots=True)
class XfsContent:
    """The bytes of a file of the file system."""

    tree: XfsTree
    inode: int
    origin: Origin

    def source(self) -> Source:
        """The bytes, holes as zeros."""
        return self.tree.content(self.inode)


class XfsTree(Tree):
    """An XFS file system of version 4 or 5.

    Names, metadata, extended attributes and content are read from the disk's structures; nothing is executed and
    nothing is mounted. Changes that only the log holds are laid over the file system in memory.

    Not supported: content on a realtime device, directories of version 1, logs on another device.

    Args:
        source: the file system's bytes.
        problems: gets damage, and what the replay of the log did.
        replay: whether the log may be replayed.

    Attributes:
        geometry: the superblock.

    Raises:
        DamagedData: no such file system, or damaged beyond opening.
    """

    def __init__(self, source: Source, problems: ProblemLog, *, replay: bool = True) -> None:
        """Read the superblock, and the log when it has to be replayed."""
        self.origin = source.origin
        self._problems = problems
        self.geometry = XfsGeometry(source)
        for fault in self.geometry.faults:
            problems.add(source.origin, fault)
        self._decode = InodeDecoder(self.geometry).decode
        self._windows: dict[int, bytes] = {}
        self._folders: dict[int, dict[bytes, int]] = {}
        self._known_entries = 0
        self._numbers: dict[str, int] = {}

    @property
    def label(self) -> str:
        """Name of the file system; empty for none."""
        return self.geometry.label

    @property
    def uuid(self) -> str:
        """Identifier of the file system."""
        return self.geometry.uuid

    def inode(self, number: int) -> XfsInode:
        """An inode by its number, whether a name leads to it or not.

        Raises:
            DamagedData: there is none.
        """
        geometry = self.geometry
        offset = geometry.inode_offset(number)
        start = offset & -_WINDOW
        window = self._windows.get(start)
        if window is None:
            window = geometry.source.read_at(start, _WINDOW)
            if len(self._windows) >= _KNOWN_WINDOWS:
                self._windows.clear()
            self._windows[start] = window
        return self._decode(window, offset - start, number, offset)

    def content(self, number: int) -> Source:
        """The bytes of a regular file by inode number; holes and what was never written read as zeros.

        Raises:
            UnsupportedFormat: they are on a realtime device.
            DamagedData: the inode contradicts itself.
        """
        inode = self.inode(number)
        origin = self._origin(inode)
        if inode.is_realtime:
            raise UnsupportedFormat(f"inode {number}: its content is on a realtime device, which is not read")
        extents = fork_extents(self.geometry, inode, lambda fault: self._problems.add(origin, fault))
        return fork_source(self.geometry, extents, inode.size, origin)

    def _children(self, path: str) -> Iterator[Node]:
        number = self._number(path)
        if number is None:
            return
        prefix = path if path == "/" else f"{path}/"
        folder = self._folder(number)
        for name in sorted(folder):
            node = self._node(prefix + name.decode("utf-8", "surrogateescape"), folder[name])
            if node is not None:
                yield node

    def _names(self, path: str) -> Iterable[str]:
        number = self._number(path)
        return () if number is None else [name.decode("utf-8", "surrogateescape") for name in self._folder(number)]

    def _lookup(self, path: str) -> Node | None:
        number = self._number(path)
        return None if number is None else self._node(path, number)

    def _number(self, path: str) -> int | None:
        if path == "/":
            return self.geometry.root
        number = self._numbers.get(path)
        if number is None:
            above = self._number(parent_of(path))
            number = None if above is None else self._folder(above).get(path.rpartition("/")[2].encode("utf-8", "surrogateescape"))
        return number

    def _folder(self, number: int) -> dict[bytes, int]:
        known = self._folders.get(number)
        if known is None:
            inode = self.inode(number)
            known = read_directory(self.geometry, inode, lambda fault: self._problems.add(self._origin(inode), fault)).entries
            self._known_entries += len(known)
            if self._known_entries > _KNOWN_ENTRIES:
                self._folders.clear()
                self._known_entries = len(known)
            self._folders[number] = known
        return known

    def _node(self, path: str, number: int) -> Node | None:
        inode = self.inode(number)
        mode = inode.mode
        origin = Origin(f"inode {number}", self.origin, inode.offset)
        kind = _KINDS[mode & 0xF000]
        if kind is _DIR:
            self._numbers[path] = number
        is_file = kind is _FILE
        atime, mtime, ctime, btime = inode.times
        return Node(
            path,
            kind,
            mode & 0xFFF,
            inode.uid,
            inode.gid,
            inode.size if is_file else 0,
            mtime,
            origin,
            atime,
            ctime,
            btime,
            None,
            0,
            inode.nlink,
            number,
            NO_XATTRS,
            XfsContent(self, number, origin) if is_file else None,
        )

    def _origin(self, inode: XfsInode) -> Origin:
        return self.origin.to(f"inode {inode.number}", inode.offset)
