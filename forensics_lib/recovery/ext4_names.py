"""Names of deleted inodes: from older copies of directories in the journal, and from freed directory blocks."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

from forensics_lib._crc32c import crc32c
from forensics_lib.errors import DamagedData
from forensics_lib.formats.directory import Directory
from forensics_lib.formats.ext4 import ExtGeometry
from forensics_lib.formats.ext4_dir import TAIL, DirEntry, dir_entries, is_dir_block
from forensics_lib.formats.ext4_fast_commit import FastInode, FastName
from forensics_lib.formats.ext4_groups import BlockGroups
from forensics_lib.formats.ext4_inode import INLINE_DATA, ExtInode
from forensics_lib.formats.ext4_map import runs
from forensics_lib.formats.jbd2_history import JournalHistory
from forensics_lib.model import Progress
from forensics_lib.recovery.ext4_lives import Life, Lives
from forensics_lib.recovery.lives import NOW
from forensics_lib.recovery.paths import IN_LOG, LEFT_OVER, Paths, blocks_of
from forensics_lib.sources.base import Source

__all__ = ["Names"]

_ROOT = 2
_WINDOW = 4 << 20
_DOT = b"\x0c\x00\x01\x02.\0"  # the two bytes behind it keep what the block held before


class Names(Paths[ExtInode]):
    """Paths of lives.

    Args:
        source: the file system as it is.
        geometry: its superblock.
        history: its journal.
        groups: its block groups.
        lives: what its inodes were.
        fast: the records of its fast commits.
    """

    def __init__(
        self,
        source: Source,
        geometry: ExtGeometry,
        history: JournalHistory,
        groups: BlockGroups,
        lives: Lives,
        fast: Iterable[FastInode | FastName] = (),
    ) -> None:
        """Read the directories in the journal."""
        super().__init__(_ROOT, lives)
        self._lives: Lives = lives
        self._source = source
        self._geometry = geometry
        self._history = history
        self._groups = groups
        self._read_journal()
        for one in fast:
            if isinstance(one, FastName) and not one.removed and one.data:
                life = self._lives.like(one.inode, one.data)
                if life is not None:
                    self._note(DirEntry(one.inode, one.name, 0, False), one.parent, one.sequence, IN_LOG, life)

    def read_remains(self, free: Iterator[tuple[int, int]], progress: Progress | None = None) -> None:
        """Look for names in living directories, also deleted ones, and for directories in free space.

        Args:
            free: (offset, length) of the free space, ascending.
            progress: called with the bytes of the file system that were passed.
        """
        for number in self._lives.directories:
            for block in self._dir_data(number):
                for entry in dir_entries(block, self._geometry.inode_count):
                    if self._lives.of(entry.inode):
                        self._note(entry, number, NOW, LEFT_OVER if entry.deleted else IN_LOG)
        size = self._groups.block_size
        self._read_known()
        for offset, length in free:
            for start in range(offset, offset + length, _WINDOW):
                try:
                    data = self._source.read_at(start, min(_WINDOW, offset + length - start))
                except DamagedData:
                    continue
                position = data.find(_DOT, 4)
                while position >= 0:
                    if (position - 4) % size == 0:
                        self._read_freed(data[position - 4 : position - 4 + size])
                    position = data.find(_DOT, position + 1)
                if progress is not None:
                    progress(start + len(data), self._source.size)
        self._folders.clear()

    def _read_present(self, number: int) -> Directory:
        entries: dict[bytes, int] = {}
        for block in self._dir_data(number):
            for entry in dir_entries(block, self._geometry.inode_count):
                if not entry.deleted:
                    entries.setdefault(entry.name, entry.inode)
        entries.pop(b".", None)
        return Directory(entries.pop(b"..", 0), entries)

    def _dir_data(self, number: int) -> Iterator[bytes]:
        """The blocks of a directory as it is."""
        size = self._groups.block_size
        try:
            inode = self._geometry.inode(number)
            if inode.mode & 0xF000 != 0x4000:
                return
            if inode.flags & INLINE_DATA:
                yield _dots(number, inode)
                yield inode.block[4:]
                yield self._geometry.xattrs(inode).get("system.data", b"")
                return
            for block in blocks_of(runs(inode, self._read_block, size, self._groups.block_count)):
                yield self._read_block(block)
        except DamagedData:
            return

    def _read_block(self, number: int) -> bytes:
        return self._source.read_at(number * self._groups.block_size, self._groups.block_size)

    def _read_journal(self) -> None:
        seen: dict[int, bytes] = {}
        for copy in self._history.copies:
            if self._groups.table_of(copy.block) is not None:
                continue
            data = self._history.content(copy)
            if data is None or not is_dir_block(data, self._geometry.inode_count):
                continue
            owner = self._owner(copy.block, data, copy.sequence)
            if owner is None:
                continue
            for entry in dir_entries(data, self._geometry.inode_count):
                self._note(entry, owner, copy.sequence, LEFT_OVER if entry.deleted else IN_LOG)
            seen[copy.block] = data

    def _owner(self, block: int, data: bytes, sequence: int) -> int | None:
        """The directory that a block belonged to when a transaction wrote it."""
        if data[4:10] == _DOT:
            return int.from_bytes(data[:4], "little")
        return self._owner_of(block, sequence)

    def _read_freed(self, data: bytes) -> None:
        """A block of free space that starts like a directory; what it names lived when the directory did."""
        if is_dir_block(data, self._geometry.inode_count):
            owner = int.from_bytes(data[:4], "little")
            for life in self._lives.of(owner):
                if life.is_dir and self._fits(life, data):
                    self._read_entries(data, life)

    def _read_known(self) -> None:
        """Blocks of deleted directories that lie where they lay; they do not tell whose they are."""
        for life, data in self._left_where_they_lay():
            if is_dir_block(data, self._geometry.inode_count) and data[-12:-4] == TAIL and self._fits(life, data):
                self._read_entries(data, life)

    def _fits(self, life: Life, data: bytes) -> bool:
        """Whether a block was that directory's; without checksums every directory of its number may have written it."""
        if not self._groups.checksums or data[-12:-4] != TAIL:
            return True
        seed = crc32c(struct.pack("<II", life.number, life.inode.generation), self._groups.seed)
        return bool(crc32c(data[:-12], seed) ^ 0xFFFFFFFF == int.from_bytes(data[-4:], "little"))

    def _read_entries(self, data: bytes, folder: Life) -> None:
        """What is left in a directory of a certain life: all that it names ended before it did."""
        end = NOW if folder.ended is None else folder.ended
        for entry in dir_entries(data, self._geometry.inode_count):
            if entry.name == b"..":
                self._note(entry, folder.number, end - 1, LEFT_OVER, folder=folder)
                continue
            child = self._lives.gone(entry.inode, end)
            if child is not None and not _is_later(child, folder):
                self._note(entry, folder.number, end, LEFT_OVER, child, folder)

    def _note(
        self,
        entry: DirEntry,
        parent: int,
        sequence: int,
        rank: int,
        child: Life | None = None,
        folder: Life | None = None,
    ) -> None:
        if child is None:
            find = self._lives.gone if entry.deleted else self._lives.at
            child = find(entry.inode, sequence)
        self._enter(entry.inode, child, entry.name, entry.kind, parent, sequence, rank, folder)


def _is_later(child: Life, folder: Life) -> bool:
    """Whether something was made after a directory was gone, so that it never was in there."""
    made, gone = child.inode.btime_ns, folder.deleted_ns
    return made is not None and gone is not None and made > gone


def _dots(number: int, inode: ExtInode) -> bytes:
    """The entry that a directory inside its inode leaves out: of the one above it."""
    return inode.block[:4] + _DOTDOT


_DOTDOT = b"\x0c\x00\x02\x02..\0\0"
