"""Names of deleted inodes of XFS: from directories in the log, from names taken out, and from freed blocks."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import islice

from forensics_lib.errors import DamagedData
from forensics_lib.formats.directory import Directory
from forensics_lib.formats.run import Run
from forensics_lib.formats.xfs import XfsGeometry
from forensics_lib.formats.xfs_dir import read_directory
from forensics_lib.formats.xfs_dir_remains import Name as DirName
from forensics_lib.formats.xfs_dir_remains import dir_block, names_in_block, names_in_inode, names_left_in_inode
from forensics_lib.formats.xfs_fork import fork_extents
from forensics_lib.formats.xfs_inode import ForkFormat, InodeTable
from forensics_lib.recovery.lives import NOW
from forensics_lib.recovery.paths import IN_LOG, KINDS, LEFT_OVER, Paths
from forensics_lib.recovery.xfs_lives import Lives
from forensics_lib.recovery.xfs_past import Entry, Past
from forensics_lib.recovery.xfs_remains import Remains

__all__ = ["Names"]

_DEEPEST = 256
_MAX_DIR_BLOCKS = 1 << 16
_LEAF_OFFSET = 1 << 35
_NOBODY = Directory(0, {})


class Names(Paths):
    """Paths of lives.

    Args:
        geometry: of the file system.
        past: what its log tells.
        lives: what its inodes were.
        remains: what free space holds.
    """

    def __init__(self, geometry: XfsGeometry, past: Past, lives: Lives, remains: Remains) -> None:
        """Sort the names of the log by the lives that they name."""
        super().__init__(geometry.root, lives)
        self._geometry = geometry
        self._past = past
        self._lives = lives
        self._remains = remains
        self._table = InodeTable(geometry)
        self._present = lru_cache(maxsize=1024)(self._read_present)
        owners = self._dir_blocks()
        for entry, sequences in past.names.items():
            for sequence in sequences:
                owner = entry.owner if entry.owner > 0 else self._owner(owners, -entry.owner, sequence)
                if owner:
                    self._note(entry, owner, sequence, LEFT_OVER if entry.deleted else IN_LOG)

    def read_remains(self) -> None:
        """Look for names in living directories, also for those that were taken out, and in freed blocks."""
        for number in self._lives.directories:
            for entry in self._present(number).entries.items():
                if self._lives.of(entry[1]):
                    self._note(DirName(entry[0], entry[1], 0, deleted=False), number, NOW, IN_LOG)
            for data in self._dir_data(number):
                self._read_block(data, number, NOW)
            self._read_inode(number)
        for number, fork in self._lives.former.items():
            self._read_former(fork, number, NOW)
        for inode in self._remains.inodes:
            if inode.data[2] & 0xF0 == 0x40 and inode.data[5] == ForkFormat.LOCAL:
                fork = inode.data[176 if self._geometry.version == 5 else 100 :]
                self._read_former(fork, inode.number, self._past.sequence_of(inode.lsn) if inode.lsn else NOW)
        for at, header in self._remains.directories:
            try:
                data = self._geometry.source.read_at(at, self._geometry.dir_block_size)
            except DamagedData:
                continue
            sequence = self._past.sequence_of(header.lsn) if header.lsn else NOW
            if header.owner:
                self._read_block(data, header.owner, sequence)
        self._read_known()
        self._folders.clear()

    def _read_block(self, data: bytes, owner: int, sequence: int) -> None:
        for name in names_in_block(data, 0, len(data), has_ftype=self._geometry.has_ftype):
            self._note(name, owner, sequence, LEFT_OVER)

    def _read_inode(self, number: int) -> None:
        """What a living directory in its inode has left of names that were taken out."""
        try:
            inode = self._table.inode(number)
        except DamagedData:
            return
        if inode.format == ForkFormat.LOCAL:
            self._read_fork(inode.data_fork, number, NOW)

    def _read_fork(self, fork: bytes, owner: int, sequence: int) -> None:
        known = lambda number: bool(self._lives.of(number))  # noqa: E731
        for name in names_left_in_inode(fork, known, has_ftype=self._geometry.has_ftype):
            self._note(name, owner, sequence, LEFT_OVER)

    def _read_former(self, fork: bytes, owner: int, sequence: int) -> None:
        """The names that a directory had in its inode, which keeps them when it is freed."""
        try:
            parent, names = names_in_inode(fork, has_ftype=self._geometry.has_ftype)
            self._geometry.inode_offset(parent)
        except DamagedData:
            return
        if parent and all(name.is_possible for name in names):
            self._note(DirName(b"..", parent, 2, deleted=False), owner, sequence, LEFT_OVER)
            for name in names:
                self._note(name._replace(deleted=True), owner, sequence, LEFT_OVER)
            self._read_fork(fork, owner, sequence)

    def _read_known(self) -> None:
        """Blocks of deleted directories that lie where they lay, and do not tell themselves whose they are."""
        for life in self._lives:
            if not life.is_dir or life.alive or not life.states or self._geometry.version == 5:
                continue
            for number in islice(_blocks(life.states[0].runs), 1, None):
                try:
                    data = self._block(number)
                except DamagedData:
                    continue
                header = dir_block(self._geometry, data)
                if header is not None and not header.owner:
                    self._read_block(data, life.number, life.last)

    def _living(self, number: int) -> str | None:
        """Path of a directory in the file system as it is; None when the way to the root is broken."""
        parts: list[str] = []
        while number != self._geometry.root:
            parent = self._present(number).parent
            if not parent or len(parts) > _DEEPEST:
                return None
            name = next((name for name, child in self._present(parent).entries.items() if child == number), None)
            if name is None:
                return None
            parts.append(_text(name))
            number = parent
        return "".join(f"/{part}" for part in reversed(parts))

    def _read_present(self, number: int) -> Directory:
        """What a directory lists today."""
        try:
            inode = self._table.inode(number)
            if inode.mode & 0xF000 != 0x4000:
                return _NOBODY
            return read_directory(self._geometry, inode, _ignore)
        except DamagedData:
            return _NOBODY

    def _dir_data(self, number: int) -> Iterator[bytes]:
        """The data blocks of a directory as it is."""
        size, scale = self._geometry.dir_block_size, self._geometry.dir_block_size // self._geometry.block_size
        try:
            inode = self._table.inode(number)
            if inode.format == ForkFormat.LOCAL:
                return
            for extent in fork_extents(self._geometry, inode, _ignore):
                if extent.block is None or extent.offset * self._geometry.block_size >= _LEAF_OFFSET:
                    return
                for index in range(0, min(extent.length, _MAX_DIR_BLOCKS), scale):
                    place = self._geometry.block_offset(extent.block + index)
                    yield self._geometry.source.read_at(place, size)
        except DamagedData:
            return

    def _block(self, number: int) -> bytes:
        return self._geometry.source.read_at(number * self._geometry.block_size, self._geometry.dir_block_size)

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

    def _owner(self, owners: dict[int, list[tuple[int, int]]], block: int, sequence: int) -> int:
        """The directory that a block belonged to when a transaction wrote it; 0 when that is not known."""
        known = owners.get(block, [])
        if not known:
            try:
                header = dir_block(self._geometry, self._block(block))
            except DamagedData:
                return 0
            return header.owner if header is not None else 0
        return next((number for last, number in known if last >= sequence), known[-1][1])

    def _note(self, entry: Entry | DirName, parent: int, sequence: int, rank: int) -> None:
        numbers = self._lives.numbers(entry.inode) if entry.deleted else [entry.inode]
        for number in numbers[:1] if len(numbers) == 1 else []:
            find = self._lives.before if entry.deleted else self._lives.at
            child, folder = find(number, sequence), self._lives.at(parent, sequence)
            if entry.deleted and child is None:
                continue
            above = (parent, folder.order if folder else 0)
            if entry.name == b"..":
                self._parents[above] = (number, child.order if child else 0)
            if entry.name in (b".", b".."):
                continue
            if child is not None and entry.kind and KINDS.get(child.inode.mode & 0xF000, 0) not in (0, entry.kind):
                continue
            self._enter((number, child.order if child else 0), above, entry.name, rank, sequence)


def _blocks(of: tuple[Run, ...]) -> Iterator[int]:
    """The numbers of the blocks of a directory, as many as the largest real one has."""
    return islice((block for run in of for block in range(run.block, run.block + run.count)), _MAX_DIR_BLOCKS)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _ignore(fault: str) -> None:
    """Living directories are read, and their faults reported, elsewhere."""
