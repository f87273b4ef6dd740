"""What free space still holds of the structures of XFS: inodes whose place was given back, blocks of directories."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from forensics_lib.errors import DamagedData
from forensics_lib.formats.xfs import XfsGeometry, checksum_fits
from forensics_lib.formats.xfs_dir_remains import DirBlock, dir_block
from forensics_lib.model import Progress

__all__ = ["FreedInode", "Remains"]

_WINDOW = 4 << 20
_FIRST = re.compile(rb"[IX]")  # of an inode and of a directory's block
_CHECKSUM_AT, _LSN_AT, _NUMBER_AT, _UUID_AT = 100, 112, 152, 160
_TYPES = (0x1000, 0x2000, 0x4000, 0x6000, 0x8000, 0xA000, 0xC000)
_MAX_FOUND = 1 << 20


@dataclass(frozen=True, slots=True)
class FreedInode:
    """An inode in free space.

    Attributes:
        number: of the inode.
        at: where it lies, in bytes.
        data: its bytes.
        lsn: of the log's record with its last change; 0 where it is not told.
    """

    number: int
    at: int
    data: bytes
    lsn: int


@dataclass(slots=True)
class Remains:
    """Structures in free space, found by one pass over it.

    Attributes:
        inodes: those that tell of a file.
        directories: where blocks of directories lie, in bytes, and what their headers tell.
        is_cut: whether there were more than are kept.
    """

    inodes: list[FreedInode] = field(default_factory=list)
    directories: list[tuple[int, DirBlock]] = field(default_factory=list)
    is_cut: bool = False

    @classmethod
    def of(cls, geometry: XfsGeometry, free: Iterable[tuple[int, int]], progress: Progress | None) -> Remains:
        """Search free space.

        Args:
            geometry: of the file system.
            free: (offset, length) in bytes of the free space, ascending.
            progress: called with the bytes of the file system that were passed.
        """
        remains = cls()
        for offset, length in free:
            for start in range(offset, offset + length, _WINDOW):
                try:
                    data = geometry.source.read_at(start, min(_WINDOW, offset + length - start))
                except DamagedData:
                    continue
                for match in _FIRST.finditer(data[:: geometry.inode_size]):  # of all inodes in one go
                    at = match.start() * geometry.inode_size
                    if data.startswith(b"IN", at):
                        inode = _inode(geometry, start + at, data[at : at + geometry.inode_size])
                        if inode is not None:
                            remains._keep(inode)
                    elif at % geometry.block_size == 0:
                        header = dir_block(geometry, data[at : at + geometry.block_size])
                        if header is not None:
                            remains._keep((start + at, header))
                if progress is not None:
                    progress(start + len(data), geometry.source.size)
        return remains

    def _keep(self, found: FreedInode | tuple[int, DirBlock]) -> None:
        if len(self.inodes) + len(self.directories) >= _MAX_FOUND:
            self.is_cut = True
        elif isinstance(found, FreedInode):
            self.inodes.append(found)
        else:
            self.directories.append(found)


def _inode(geometry: XfsGeometry, offset: int, data: bytes) -> FreedInode | None:
    """An inode that was in use when it was last written, if it belongs to where it lies."""
    mode = int.from_bytes(data[2:4], "big")
    if len(data) < geometry.inode_size or mode & 0xF000 not in _TYPES:
        return None
    number = geometry.inode_at(offset)
    if geometry.version < 5:
        return FreedInode(number, offset, data, 0) if data[4] in (1, 2) and data[5] <= 3 else None
    if data[4] != 3 or data[_UUID_AT : _UUID_AT + 16] != geometry.meta_uuid:
        return None
    if int.from_bytes(data[_NUMBER_AT : _NUMBER_AT + 8], "big") != number or not checksum_fits(data, _CHECKSUM_AT):
        return None
    return FreedInode(number, offset, data, int.from_bytes(data[_LSN_AT : _LSN_AT + 8], "big"))
