"""XFS file systems, read from their bytes: no mount, no root."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from forensics_lib.errors import DamagedData, UnsupportedFormat
from forensics_lib.formats.directory import Directory, Report
from forensics_lib.formats.xfs import XfsGeometry
from forensics_lib.formats.xfs_attr import linux_xattrs, read_attributes
from forensics_lib.formats.xfs_dir import read_directory
from forensics_lib.formats.xfs_fork import fork_extents, fork_source
from forensics_lib.formats.xfs_inode import InodeTable, XfsInode
from forensics_lib.formats.xfs_log import XfsLog
from forensics_lib.formats.xfs_remote import link_target
from forensics_lib.formats.xfs_replay import XfsReplayed
from forensics_lib.model import Origin, ProblemLog, make_origin
from forensics_lib.sources.base import Source
from forensics_lib.trees.base import NO_XATTRS, Node, NodeKind, device_number, make_node
from forensics_lib.trees.inodes import KINDS, InodeTree

__all__ = ["LogState", "XfsTree"]

_FILE = NodeKind.FILE  # looked up once: a walk asks for every node


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
class _XfsContent:
    """The bytes of a file of the file system."""

    tree: XfsTree
    inode: int

    def source(self) -> Source:
        """The bytes, holes as zeros."""
        return self.tree.content(self.inode)


class XfsTree(InodeTree):
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
        self.geometry = XfsGeometry(source)
        super().__init__(source.origin, problems, self.geometry.root)
        for fault in self.geometry.faults:
            problems.add(source.origin, fault)
        self.log_state = LogState.UNKNOWN
        self._open_log(replay=replay)
        self._inode = InodeTable(self.geometry).inode

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
        return self._inode(number)

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
        extents = fork_extents(self.geometry, inode, self._reporter(number))
        return fork_source(self.geometry, extents, inode.size, origin)

    def _mode(self, number: int) -> int:
        return self.inode(number).mode

    def _read_directory(self, number: int) -> Directory | None:
        inode = self._inode(number)
        if not stat.S_ISDIR(inode.mode):
            return None
        return read_directory(self.geometry, inode, self._reporter(number))

    def _node(self, path: str, number: int) -> Node | None:
        try:
            inode = self._inode(number)
        except DamagedData as error:
            self._problems.add(self.origin.to(path.lstrip("/")), error)
            return None
        _, mode, version, _, _, uid, gid, links, _, _, _, _, size, *_, offset = inode
        kind = KINDS.get(mode & 0xF000)
        content, target, rdev = None, None, 0
        if kind is _FILE:
            content = _XfsContent(self, number)
        else:
            size = 0
            if kind is NodeKind.SYMLINK:
                target = self._target(inode)
            elif kind is NodeKind.CHAR or kind is NodeKind.BLOCK:
                rdev = device_number(*inode.device)
            elif kind is None:
                self._problems.add(self._origin(inode), f"{path}: an inode of unknown type (mode {mode:o})")
                return None
        atime, mtime, ctime, btime = inode.times
        return make_node(
            path,
            kind,
            mode & 0xFFF,
            uid,
            gid,
            size,
            mtime,
            make_origin(f"inode {number}", self.origin, offset),
            atime,
            ctime,
            btime,
            target,
            rdev,
            links if version > 1 else inode.nlink,
            number,
            self._xattrs(inode) if inode.fork_words and inode.has_attributes else NO_XATTRS,
            content,
        )

    def _xattrs(self, inode: XfsInode) -> Mapping[str, bytes]:
        try:
            return linux_xattrs(read_attributes(self.geometry, inode, self._reporter(inode.number)))
        except DamagedData as error:
            self._problems.add(self._origin(inode), error)
            return NO_XATTRS

    def _target(self, inode: XfsInode) -> str:
        try:
            return link_target(self.geometry, inode, self._reporter(inode.number)).decode("utf-8", "surrogateescape")
        except DamagedData as error:
            self._problems.add(self._origin(inode), error)
            return ""

    def _origin(self, inode: XfsInode) -> Origin:
        return self.origin.to(f"inode {inode.number}", inode.offset)

    def _reporter(self, number: int) -> Report:
        def report(fault: str) -> None:
            self._problems.add(self.origin.to(f"inode {number}", self.geometry.inode_offset(number)), fault)

        return report

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
