"""XFS file systems, read from their bytes: no mount, no root."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from forensics_lib.errors import DamagedData, UnsupportedFormat
from forensics_lib.formats.xfs import XfsGeometry
from forensics_lib.formats.xfs_attr import linux_xattrs, read_attributes
from forensics_lib.formats.xfs_dir import Directory, read_directory
from forensics_lib.formats.xfs_fork import Report, fork_extents, fork_source
from forensics_lib.formats.xfs_inode import InodeTable, XfsInode
from forensics_lib.formats.xfs_log import XfsLog
from forensics_lib.formats.xfs_remote import link_target
from forensics_lib.formats.xfs_replay import XfsReplayed
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.sources.base import Source
from forensics_lib.trees.base import NO_XATTRS, Node, NodeKind, Tree, device_number, parent_of

__all__ = ["LogState", "XfsTree"]

_KINDS = {
    stat.S_IFREG: NodeKind.FILE,
    stat.S_IFDIR: NodeKind.DIR,
    stat.S_IFLNK: NodeKind.SYMLINK,
    stat.S_IFCHR: NodeKind.CHAR,
    stat.S_IFBLK: NodeKind.BLOCK,
    stat.S_IFIFO: NodeKind.FIFO,
    stat.S_IFSOCK: NodeKind.SOCKET,
}
_FILE, _DIR = NodeKind.FILE, NodeKind.DIR  # looked up once: a walk asks for every node
_MAX_NAMES = 200_000  # of directories that are kept
_MAX_PATHS = 50_000
_MAX_STRAYS = 10_000


class LogState(StrEnum):
    """Whether changes were waiting in the log."""

    CLEAN = "clean"
    """None: it was unmounted."""
    REPLAYED = "replayed"
    """Some, and they are shown as if they had been written back."""
    DIRTY = "dirty"
    """Some, which are not shown."""
    UNKNOWN = "unknown"
    """The log cannot be read."""


@dataclass(slots=True)
class XfsContent:
    """The bytes of a file of the file system."""

    tree: XfsTree
    inode: int

    def source(self) -> Source:
        """The bytes, holes as zeros."""
        return self.tree.content(self.inode)


class XfsTree(Tree):
    """An XFS file system of version 4 or 5.

    Names, metadata, extended attributes and content come from the structures on disk. Changes that only the log holds
    are laid over them in memory. A directory is listed under the one name that its own entry ".." agrees with.

    Not supported: content on a realtime device, directories of version 1, a log on another device.

    Args:
        source: the file system's bytes.
        problems: gets damage, and what the replay of the log did.
        replay: whether to replay the log.

    Attributes:
        geometry: the superblock, with label, identifier, sizes and features.
        log_state: whether changes were waiting in the log.

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
        self.log_state = LogState.UNKNOWN
        self._open_log(replay=replay)
        self._inodes = InodeTable(self.geometry)
        self._directories: dict[int, Directory] = {}
        self._names_kept = 0
        self._numbers: dict[str, int] = {}
        self._strays: dict[int, str] = {}

    @property
    def label(self) -> str:
        """Name of the file system; empty for none."""
        return self.geometry.label

    @property
    def uuid(self) -> str:
        """Identifier of the file system."""
        return self.geometry.uuid

    @property
    def size(self) -> int:
        """Bytes of the file system."""
        return self.geometry.block_count * self.geometry.block_size

    @property
    def created_ns(self) -> int | None:
        """When it was made, as its root directory tells, in nanoseconds since 1970; None before version 5.

        XFS keeps neither when nor where it was mounted.
        """
        try:
            return self.inode(self.geometry.root).times[3]
        except DamagedData:
            return None

    def inode(self, number: int) -> XfsInode:
        """An inode by its number, whether a name leads to it or not.

        Raises:
            DamagedData: there is none.
        """
        return self._inodes.inode(number)

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
        return fork_source(self.geometry, fork_extents(self.geometry, inode, self._reporter(inode)), inode.size, origin)

    def _children(self, path: str) -> Iterator[Node]:
        entries = self._entries(path)
        prefix = path if path == "/" else f"{path}/"
        for name in sorted(entries):
            node = self._node(prefix + name.decode("utf-8", "surrogateescape"), entries[name])
            if node is not None:
                yield node

    def _names(self, path: str) -> Iterable[str]:
        return [name.decode("utf-8", "surrogateescape") for name in self._entries(path)]

    def _lookup(self, path: str) -> Node | None:
        number = self._number(path)
        return None if number is None else self._node(path, number)

    def _number(self, path: str) -> int | None:
        """The inode number of exactly this path."""
        known, number = path, None
        while known != "/" and (number := self._numbers.get(known)) is None:
            known = parent_of(known)
        if number is None:
            number = self.geometry.root
        for name in filter(None, path[len(known) :].split("/")):
            directory = self._directory(number)
            number = directory and directory.entries.get(name.encode("utf-8", "surrogateescape"))
            if number is None:
                return None
        return number

    def _entries(self, path: str) -> dict[bytes, int]:
        """Inode numbers by name of a directory, if it is to be listed at this path."""
        number = self._number(path)
        directory = None if number is None else self._directory(number)
        if number is None or directory is None:
            return {}
        above = self._number(parent_of(path))
        at_home = directory.parent == above and (number != self.geometry.root or path == "/")
        return directory.entries if at_home or self._may_stray(path, number, directory.parent) else {}

    def _may_stray(self, path: str, number: int, parent: int) -> bool:
        """Whether a directory whose parent is another one is listed here: at the first path that leads to it.

        Without this rule, directories that name each other would make an endless tree, or one of endless breadth.
        """
        self._problems.add(self.origin.to(path), f"inode {number} is a directory whose parent is inode {parent}")
        above = path
        while above != "/":
            above = parent_of(above)
            if self._number(above) == number:
                return False
        if number not in self._strays and len(self._strays) < _MAX_STRAYS:
            self._strays[number] = path
        return self._strays.get(number) == path

    def _directory(self, number: int) -> Directory | None:
        """What a directory lists; None where it cannot be read."""
        known = self._directories.get(number)
        if known is None:
            try:
                inode = self.inode(number)
                if _KINDS.get(inode.mode & 0xF000) is not _DIR:
                    return None
                known = read_directory(self.geometry, inode, self._reporter(inode))
            except DamagedData as error:
                self._problems.add(self.origin.to(f"inode {number}"), error)
                return None
            if len(set(known.entries.values())) < len(known.entries):
                self._leave_out_twins(known.entries, self._reporter(inode))
            self._names_kept += len(known.entries)
            if self._names_kept > _MAX_NAMES:
                self._directories.clear()
                self._names_kept = len(known.entries)
            self._directories[number] = known
        return known

    def _leave_out_twins(self, entries: dict[bytes, int], report: Report) -> None:
        """Take all names but one of a directory away, which can have no hard links."""
        first: dict[int, bytes] = {}
        for name in sorted(entries):
            number = entries[name]
            if first.setdefault(number, name) != name and self._is_directory(number):
                report(f"{name!r} is a second name of a directory, of inode {number}; it is left out")
                del entries[name]

    def _is_directory(self, number: int) -> bool:
        try:
            return _KINDS.get(self.inode(number).mode & 0xF000) is _DIR
        except DamagedData:
            return False

    def _node(self, path: str, number: int) -> Node | None:
        try:
            inode = self._inodes.inode(number)
        except DamagedData as error:
            self._problems.add(self.origin.to(path.lstrip("/")), error)
            return None
        mode = inode.mode
        kind = _KINDS.get(mode & 0xF000)
        content, target, rdev, size = None, None, 0, 0
        if kind is _FILE:
            content, size = XfsContent(self, number), inode.size
        elif kind is _DIR:
            if len(self._numbers) >= _MAX_PATHS:
                self._numbers.clear()
            self._numbers[path] = number
        elif kind is NodeKind.SYMLINK:
            target = self._target(inode)
        elif kind is NodeKind.CHAR or kind is NodeKind.BLOCK:
            rdev = device_number(*inode.device)
        elif kind is None:
            self._problems.add(self._origin(inode), f"{path}: an inode of unknown type (mode {mode:o})")
            return None
        atime, mtime, ctime, btime = inode.times
        return Node(
            path,
            kind,
            mode & 0xFFF,
            inode.uid,
            inode.gid,
            size,
            mtime,
            Origin(f"inode {number}", self.origin, inode.offset),
            atime,
            ctime,
            btime,
            target,
            rdev,
            inode.nlink,
            number,
            self._xattrs(inode) if inode.has_attributes else NO_XATTRS,
            content,
        )

    def _xattrs(self, inode: XfsInode) -> Mapping[str, bytes]:
        try:
            return linux_xattrs(read_attributes(self.geometry, inode, self._reporter(inode)))
        except DamagedData as error:
            self._problems.add(self._origin(inode), error)
            return NO_XATTRS

    def _target(self, inode: XfsInode) -> str:
        try:
            return link_target(self.geometry, inode, self._reporter(inode)).decode("utf-8", "surrogateescape")
        except DamagedData as error:
            self._problems.add(self._origin(inode), error)
            return ""

    def _origin(self, inode: XfsInode) -> Origin:
        return self.origin.to(f"inode {inode.number}", inode.offset)

    def _reporter(self, inode: XfsInode) -> Report:
        return lambda fault: self._problems.add(self._origin(inode), fault)

    def _open_log(self, *, replay: bool) -> None:
        origin = self.origin.to("log")

        def report(fault: str) -> None:
            self._problems.add(origin, fault)

        try:
            log = XfsLog(self.geometry, report)
            if log.is_clean:
                self.log_state = LogState.CLEAN
                return
            self.log_state = LogState.DIRTY
            if not replay:
                report("the log was not written back; the file system is shown without it")
                return
            replayed = XfsReplayed(self.geometry, log, report)
            self.geometry = XfsGeometry(replayed)
        except (DamagedData, UnsupportedFormat) as error:
            report(f"the log cannot be used ({error}); the file system is shown without it")
            return
        self.log_state = LogState.REPLAYED
        report(replayed.summary())
