"""Names of deleted inodes: from older copies of directories in the journal, and from freed directory blocks."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import islice

from forensics_lib.errors import DamagedData
from forensics_lib.formats.crc32c import crc32c
from forensics_lib.formats.ext4 import ExtGeometry
from forensics_lib.formats.ext4_dir import TAIL, DirEntry, dir_entries, is_dir_block
from forensics_lib.formats.ext4_fast_commit import FastInode, FastName
from forensics_lib.formats.ext4_groups import BlockGroups
from forensics_lib.formats.ext4_inode import INLINE_DATA, ExtInode
from forensics_lib.formats.ext4_map import runs
from forensics_lib.formats.jbd2_history import JournalHistory
from forensics_lib.formats.run import Run
from forensics_lib.model import Progress
from forensics_lib.recovery.ext4_lives import Life, Lives
from forensics_lib.recovery.lives import NOW
from forensics_lib.recovery.paths import IN_LOG, KINDS, LEFT_OVER, Paths
from forensics_lib.sources.base import Source

__all__ = ["Names"]

_ROOT = 2
_DEEPEST = 256
_MAX_DIR_BLOCKS = 1 << 16
_WINDOW = 4 << 20
_DOT = b"\x0c\x00\x01\x02.\0\0\0"


class Names(Paths):
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
        self._source = source
        self._geometry = geometry
        self._history = history
        self._groups = groups
        self._lives = lives
        self._present = lru_cache(maxsize=1024)(self._read_present)
        self._owners = self._dir_blocks()
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

    def _living(self, number: int) -> str | None:
        """Path of a directory or file in the file system as it is; None when the way to the root is broken."""
        parts: list[str] = []
        while number != _ROOT:
            parent = self._present(number).get("..")
            if parent is None or len(parts) > _DEEPEST:
                return None
            name = next(
                (name for name, child in self._present(parent).items() if child == number and name not in _DOTS), None
            )
            if name is None:
                return None
            parts.append(name)
            number = parent
        return "".join(f"/{part}" for part in reversed(parts))

    def _read_present(self, number: int) -> dict[str, int]:
        """Inode numbers by name in a directory as it is."""
        found: dict[str, int] = {}
        for block in self._dir_data(number):
            for entry in dir_entries(block, self._geometry.inode_count):
                if not entry.deleted:
                    found.setdefault(_text(entry.name), entry.inode)
        return found

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
            for block in _blocks(runs(inode, self._block, size, self._groups.block_count)):
                yield self._block(block)
        except DamagedData:
            return

    def _block(self, number: int) -> bytes:
        return self._source.read_at(number * self._groups.block_size, self._groups.block_size)

    def _dir_blocks(self) -> dict[int, list[tuple[int, int]]]:
        """(last transaction, inode number) of the directories that a block belonged to, by block, oldest first."""
        owners: dict[int, list[tuple[int, int]]] = {}
        for life in self._lives:
            if life.is_dir:
                for state in life.states:
                    for block in _blocks(state.runs):
                        owners.setdefault(block, []).append((state.last, life.number))
        for known in owners.values():
            known.sort()
        return owners

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
        if data[4:12] == _DOT:
            return int.from_bytes(data[:4], "little")
        known = self._owners.get(block, [])
        return next((number for last, number in known if last >= sequence), known[-1][1] if known else None)

    def _read_freed(self, data: bytes) -> None:
        """A block of free space that starts like a directory; what it names lived when the directory did."""
        if is_dir_block(data, self._geometry.inode_count):
            owner = int.from_bytes(data[:4], "little")
            for life in self._lives.of(owner):
                if life.is_dir and self._fits(life, data):
                    self._read_entries(data, owner, life.last if life.last >= 0 else life.first)

    def _read_known(self) -> None:
        """Blocks of deleted directories that lie where they lay, beyond the first, which tells itself what it is."""
        for life in self._lives:
            if not life.is_dir or life.alive or not life.states:
                continue
            for number in islice(_blocks(life.states[0].runs), 1, None):
                try:
                    data = self._block(number)
                except DamagedData:
                    continue
                if is_dir_block(data, self._geometry.inode_count) and data[-12:-4] == TAIL and self._fits(life, data):
                    self._read_entries(data, life.number, life.last)

    def _fits(self, life: Life, data: bytes) -> bool:
        """Whether a block was that directory's; without checksums every directory of its number may have written it."""
        if not self._groups.checksums or data[-12:-4] != TAIL:
            return True
        seed = crc32c(struct.pack("<II", life.number, life.inode.generation), self._groups.seed)
        return bool(crc32c(data[:-12], seed) ^ 0xFFFFFFFF == int.from_bytes(data[-4:], "little"))

    def _read_entries(self, data: bytes, owner: int, sequence: int) -> None:
        for entry in dir_entries(data, self._geometry.inode_count):
            self._note(entry, owner, sequence, LEFT_OVER)

    def _note(self, entry: DirEntry, parent: int, sequence: int, rank: int, child: Life | None = None) -> None:
        child, folder = child or self._lives.at(entry.inode, sequence), self._lives.at(parent, sequence)
        above = (parent, folder.order if folder else 0)
        if entry.name == b"..":
            self._parents[above] = (entry.inode, child.order if child else 0)
        if entry.name in (b".", b".."):
            return
        if child is not None and entry.kind and KINDS.get(child.inode.mode & 0xF000, 0) != entry.kind:
            return
        self._enter((entry.inode, child.order if child else 0), above, entry.name, rank, sequence)


_DOTS = (".", "..")


def _dots(number: int, inode: ExtInode) -> bytes:
    """The entry that a directory inside its inode leaves out: of the one above it."""
    return inode.block[:4] + _DOTDOT


_DOTDOT = b"\x0c\x00\x02\x02..\0\0"


def _blocks(of: tuple[Run, ...]) -> Iterator[int]:
    """The numbers of the blocks of a directory, as many as the largest real one has."""
    return islice((block for run in of for block in range(run.block, run.block + run.count)), _MAX_DIR_BLOCKS)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
