"""Names of deleted inodes of XFS: from directories in the log, from names taken out, and from freed blocks."""

from __future__ import annotations

from collections.abc import Iterator

from forensics_lib.errors import DamagedData
from forensics_lib.formats.directory import Directory
from forensics_lib.formats.xfs import XfsGeometry
from forensics_lib.formats.xfs_dir import read_directory
from forensics_lib.formats.xfs_dir_remains import Name as DirName
from forensics_lib.formats.xfs_dir_remains import dir_block, names_in_block, names_in_inode, names_left_in_inode
from forensics_lib.formats.xfs_fork import fork_extents
from forensics_lib.formats.xfs_inode import ForkFormat, InodeTable, XfsInode
from forensics_lib.recovery.lives import NOW
from forensics_lib.recovery.paths import IN_LOG, LEFT_OVER, Paths
from forensics_lib.recovery.xfs_lives import Lives
from forensics_lib.recovery.xfs_past import Entry, Past
from forensics_lib.recovery.xfs_remains import Remains

__all__ = ["Names"]

_MAX_DIR_BLOCKS = 1 << 16
_LEAF_OFFSET = 1 << 35
_NOBODY = Directory(0, {})


class Names(Paths[XfsInode]):
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
        self._lives: Lives = lives
        self._geometry = geometry
        self._past = past
        self._remains = remains
        self._table = InodeTable(geometry)
        for entry, sequences in past.names.items():
            for sequence in sequences:
                owner = entry.owner if entry.owner > 0 else self._owner(-entry.owner, sequence)
                if owner:
                    self._note(entry, owner, sequence, LEFT_OVER if entry.deleted else IN_LOG)

    def read_remains(self) -> None:
        """Look for names in living directories, also for those that were taken out, and in freed blocks."""
        for number in self._lives.directories:
            for entry in self._present(number).entries.items():
                if self._lives.of(entry[1]):
                    self._note(DirName(entry[0], entry[1], 0, deleted=False), number, NOW, IN_LOG)
            for data in self._dir_data(number):
                self._read_entries(data, number, NOW)
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
                self._read_entries(data, header.owner, sequence)
        self._read_known()
        self._folders.clear()

    def _read_entries(self, data: bytes, owner: int, sequence: int) -> None:
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
        if self._geometry.version == 5:
            return
        for life, data in self._left_where_they_lay():
            header = dir_block(self._geometry, data)
            if header is not None and not header.owner:
                self._read_entries(data, life.number, life.last)

    def _read_present(self, number: int) -> Directory:
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

    def _read_block(self, number: int) -> bytes:
        return self._geometry.source.read_at(number * self._geometry.block_size, self._geometry.dir_block_size)

    def _owner(self, block: int, sequence: int) -> int:
        """The directory that a block belonged to when a transaction wrote it; 0 when that is not known."""
        owner = self._owner_of(block, sequence)
        if owner is None:
            try:
                header = dir_block(self._geometry, self._read_block(block))
            except DamagedData:
                return 0
            return header.owner if header is not None else 0
        return owner

    def _note(self, entry: Entry | DirName, parent: int, sequence: int, rank: int) -> None:
        numbers = self._lives.numbers(entry.inode) if entry.deleted else [entry.inode]
        for number in numbers[:1] if len(numbers) == 1 else []:
            find = self._lives.before if entry.deleted else self._lives.at
            child = find(number, sequence)
            if child is not None or not entry.deleted:
                self._enter(number, child, entry.name, entry.kind, parent, sequence, rank)


def _ignore(fault: str) -> None:
    """Living directories are read, and their faults reported, elsewhere."""
