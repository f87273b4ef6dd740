"""ext2, ext3 and ext4 file systems, read from their bytes: no mount, no root."""

from __future__ import annotations

import stat
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from forensics_lib.errors import DamagedData, UnsupportedFormat
from forensics_lib.formats.directory import Directory, Report
from forensics_lib.formats.ext4 import ExtGeometry
from forensics_lib.formats.ext4_dir import read_directory
from forensics_lib.formats.ext4_fast_commit import pending_commits
from forensics_lib.formats.ext4_fast_replay import FastReplay
from forensics_lib.formats.ext4_inode import INLINE_DATA, ExtInode, named
from forensics_lib.formats.ext4_map import is_short_link
from forensics_lib.formats.jbd2 import Journal, JournalBlock
from forensics_lib.model import Origin, ProblemLog, make_origin
from forensics_lib.sources.base import Source
from forensics_lib.sources.patched import PAGE, PatchedSource
from forensics_lib.trees.base import NO_XATTRS, Node, NodeKind, device_number, make_node
from forensics_lib.trees.inodes import KINDS, InodeTree

__all__ = ["ExtTree", "ReplayedSource"]

_ROOT = 2
_ENCRYPTED = 0x800
_KNOWN_FEATURES = 0x3F7D6  # all incompatible ones but compression, a device for a journal only, and reserved ones
_INNER_XATTRS = ("system.data", "unknown9.c", "unknown11.v")  # content, encryption, verity: the file system's own
_MAX_FAULTS = 20  # that become problems of their own
_MAX_FAST_COMMITS = 64 << 20  # bytes
_FILE = NodeKind.FILE  # looked up once: a walk asks for every node


@dataclass(slots=True)
class ExtContent:
    """The bytes of a file of the file system."""

    tree: ExtTree
    inode: int

    def source(self) -> Source:
        """The bytes, holes as zeros."""
        inode = self.tree.geometry.inode(self.inode)
        origin = self.tree.origin.to(f"inode {self.inode}", inode.offset)
        return self.tree.geometry.content(inode, inode.size, origin)


class ExtTree(InodeTree):
    """A file system of the ext family.

    Names, metadata, extended attributes and content come from the structures on disk. A journal that was not written
    back is replayed in memory, its fast commits as well. A directory is listed under the one name that its own entry
    ".." agrees with.

    Not supported: encrypted files (their names and content are shown as stored), orphan inodes (see the recovery).

    Args:
        source: the file system's bytes.
        problems: gets damage, and what the replay of the journal did.

    Attributes:
        source: the file system's bytes, the replayed journal laid over them.
        geometry: the superblock.
        replayed: blocks that were taken from the journal.
        fast_commits: number of fast commits that were replayed.

    Raises:
        DamagedData: no such file system, or damaged beyond opening.
    """

    def __init__(self, source: Source, problems: ProblemLog) -> None:
        """Read the superblock, and the journal when it has to be replayed."""
        super().__init__(source.origin, problems, _ROOT)
        self.geometry = ExtGeometry(source)
        if unknown := self.geometry.incompat & ~_KNOWN_FEATURES:
            message = f"incompatible features {unknown:#x} are not known; what they change is misread"
            problems.add(source.origin, UnsupportedFormat(message))
        self.replayed = self.fast_commits = 0
        self._fast: FastReplay | None = None
        self.source = self._replay(source) if self.geometry.needs_recovery else source
        if self.source is not source:
            self.geometry = ExtGeometry(self.source)
        if self._fast is not None:
            self.geometry.maps = self._fast.maps
        self._inode = self.geometry.inode
        self._fields = self.geometry.fields

    @property
    def held(self) -> Sequence[tuple[int, int]]:
        """(first, number) of blocks that files use since the fast commits, ascending; bitmaps do not know of them."""
        return () if self._fast is None else self._fast.held

    @property
    def freed(self) -> Sequence[tuple[int, int]]:
        """(first, number) of blocks that files had before the fast commits and no other one got, or `held` has them."""
        return () if self._fast is None else self._fast.freed

    @property
    def label(self) -> str:
        """Name of the file system."""
        return self.geometry.label

    def content(self, number: int, size: int, origin: Origin) -> Source:
        """The bytes of a file by inode number.

        Raises:
            DamagedData: the inode contradicts itself.
        """
        return self.geometry.content(self.geometry.inode(number), size, origin)

    def _mode(self, number: int) -> int:
        return self.geometry.inode(number).mode

    def _read_directory(self, number: int) -> Directory | None:
        inode = self._inode(number)
        if not stat.S_ISDIR(inode.mode):
            return None
        if self._fast is not None and number in self._fast.touched:
            return self._fast.directory(number, inode, self._reporter(number))
        return read_directory(self.geometry, inode, self._reporter(number))

    def _reporter(self, number: int) -> Report:
        def report(fault: str) -> None:
            self._problems.add(self.origin.to(f"inode {number}", self.geometry.inode_offset(number)), fault)

        return report

    def _node(self, path: str, number: int) -> Node | None:
        try:
            fields = self._fields(number)
        except DamagedData as error:
            self._problems.add(self.origin.to(path.lstrip("/")), error)
            return None
        _, mode, uid, gid, size, atime, ctime, mtime, btime, _, nlink, flags, _, _, acl_block, tail, offset = fields
        origin = make_origin(f"inode {number}", self.origin, offset)
        kind = KINDS.get(mode & 0xF000)
        content, target, rdev = None, None, 0
        if kind is _FILE:
            content = ExtContent(self, number)
        else:
            size = 0
            if kind is NodeKind.SYMLINK:
                target = self._target(named(fields), origin)
            elif kind is NodeKind.CHAR or kind is NodeKind.BLOCK:
                rdev = device_number(*named(fields).rdev)
            elif kind is None:
                self._problems.add(origin, f"{path}: inode of unknown type {mode:o}")
                return None
        if flags & _ENCRYPTED:
            message = f"{path} is encrypted; names and content are shown as stored"
            self._problems.add(origin, UnsupportedFormat(message))
        return make_node(
            path,
            kind,
            mode & 0xFFF,
            uid,
            gid,
            size,
            mtime,
            origin,
            atime,
            ctime,
            btime,
            target,
            rdev,
            nlink,
            number,
            self._xattrs(named(fields), origin) if tail or acl_block else NO_XATTRS,
            content,
        )

    def _xattrs(self, inode: ExtInode, origin: Origin) -> Mapping[str, bytes]:
        try:
            found = self.geometry.xattrs(inode)
        except DamagedData as error:
            self._problems.add(origin, error)
            return NO_XATTRS
        return {name: value for name, value in found.items() if name not in _INNER_XATTRS}

    def _target(self, inode: ExtInode, origin: Origin) -> str:
        if is_short_link(inode) and not inode.flags & INLINE_DATA:
            data = inode.block[: inode.size]
        else:
            try:
                data = self.content(inode.number, inode.size, origin).read_at(0, min(inode.size, 4096))
            except DamagedData as error:
                self._problems.add(origin, error)
                data = b""
        return data.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")

    def _replay(self, source: Source) -> Source:
        geometry = self.geometry
        try:
            if not geometry.journal_inode:
                raise DamagedData("it is on another device")
            inode = geometry.inode(geometry.journal_inode)
            size = geometry.block_size
            log = geometry.content(inode, inode.size, source.origin.to("journal"))
            journal = Journal(lambda number: log.read_at(number * size, size), log.origin)
        except (DamagedData, struct.error) as error:
            message = (
                f"the journal was not written back and cannot be read ({error}); the file system is shown without it"
            )
            self._problems.add(source.origin, DamagedData(message, origin=source.origin))
            return source
        for fault in journal.faults[:_MAX_FAULTS]:
            damage = DamagedData(f"not replayed from the journal: {fault}", origin=log.origin)
            self._problems.add(log.origin, damage)
        if len(journal.faults) > _MAX_FAULTS:
            rest = len(journal.faults) - _MAX_FAULTS
            self._problems.add(log.origin, f"{rest} more blocks are not replayed from the journal")
        self.replayed = len(journal.blocks)
        replayed = ReplayedSource(source, log, journal.blocks, size)
        message = f"the journal was replayed in memory: {journal.transactions} transactions, {self.replayed} blocks"
        whole = self._replay_fast(replayed, log, journal) if journal.fast_blocks else replayed
        if self._fast is not None:
            message += f", {self.fast_commits} fast commits"
            if self._fast.touched:
                message += (
                    "; they do not tell times of directories: "
                    f"those of {len(self._fast.touched)} are older than their names"
                )
        self._problems.add(source.origin, message)
        return whole

    def _replay_fast(self, source: Source, log: Source, journal: Journal) -> Source:
        """The file system with the fast commits behind the last transaction."""
        geometry = ExtGeometry(source)
        size, blocks = geometry.block_size, journal.fast_blocks
        origin = log.origin.to("fast commits", blocks.start * size)

        def report(fault: str) -> None:
            self._problems.add(origin, DamagedData(fault, origin=origin))

        try:
            area = log.read_some(blocks.start * size, min(len(blocks) * size, _MAX_FAST_COMMITS))
        except DamagedData as error:
            report(f"they cannot be read; the file system is shown without them: {error}")
            return source
        commits, fault = pending_commits(area, size, geometry.inode_size, journal.next_sequence)
        if fault:
            report(f"fast commit {len(commits) + 1} and those behind it are not replayed: {fault}")
        if not commits:
            return source
        self.fast_commits = len(commits)
        self._fast = FastReplay(source, geometry, commits, report)
        pages: dict[int, bytearray] = {}
        for number, data in self._fast.inodes.items():
            offset = geometry.inode_offset(number)
            for start in range(offset - offset % PAGE, offset + len(data), PAGE):
                page = start // PAGE
                if page not in pages:
                    pages[page] = bytearray(source.read_at(start, PAGE).ljust(PAGE, b"\0"))
                begin, end = max(offset, start), min(offset + len(data), start + PAGE)
                pages[page][begin - start : end - start] = data[begin - offset : end - offset]
        return PatchedSource(source, {page: bytes(data) for page, data in pages.items()}, source.origin)


class ReplayedSource(Source):
    """A file system with the newer blocks of its journal laid over it."""

    def __init__(self, parent: Source, log: Source, blocks: dict[int, JournalBlock], block_size: int) -> None:
        """Lay `blocks`, which lie in `log`, over `parent`."""
        self._parent = parent
        self._log = log
        self._blocks = blocks
        self._block_size = block_size
        self.size = parent.size
        self.origin = parent.origin

    def read_at(self, offset: int, length: int) -> bytes:
        """The bytes at a position; short only at the end."""
        data = self._parent.read_at(offset, length)
        size = self._block_size
        numbers = range(offset // size, -(-(offset + len(data)) // size))
        newer = [number for number in numbers if number in self._blocks]
        if not newer:
            return data
        changed = bytearray(data)
        for number in newer:
            block = self._blocks[number]
            content = self._log.read_at(block.at * size, size)
            if block.escaped:
                content = b"\xc0\x3b\x39\x98" + content[4:]
            start = number * size - offset
            begin, end = max(start, 0), min(start + size, len(data))
            changed[begin:end] = content[begin - start : end - start]
        return bytes(changed)
