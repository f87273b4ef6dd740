"""XFS superblocks and allocation group headers, and with them the place of every block and inode.

Format: XFS Algorithms & Data Structures (kernel.org, Filesystem Disk Structures), chapters 13 to 15; versions 4 and 5.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from forensics_lib.errors import DamagedData
from forensics_lib.formats.crc32c import crc32c
from forensics_lib.sources.base import Source

__all__ = ["NO_BLOCK", "XfsGeometry", "XfsGroup", "checksum_fits", "is_xfs"]

NO_BLOCK = 0xFFFFFFFF
"""A block or inode number inside an allocation group that means none."""

_MAGIC = b"XFSB"
_SUPERBLOCK = struct.Struct(">4sIQQQ16sQQQQIIIII4H12s12B4Q2QH2BIII2BHI2I4IIIQQ16s")
_SMALLEST = 512  # bytes of a sector, and of the part of a superblock that is in use
_SECTOR_SIZES = tuple(1 << log for log in range(9, 16))
_BLOCK_SIZES = tuple(1 << log for log in range(9, 17))
_INODE_SIZES = (256, 512, 1024, 2048)
_COMMON_GROUPS = (4, 1, 2, 8, 16, 32, 3, 5, 6, 7)

_V4_DIRV2, _V4_MOREBITS = 0x2000, 0x8000
_FEATURES2_FTYPE = 0x200
_INCOMPAT = {
    0x1: "ftype",
    0x2: "sparse inodes",
    0x4: "meta uuid",
    0x8: "bigtime",
    0x10: "needs repair",
    0x20: "large extent counts",
    0x40: "exchange range",
    0x80: "parent pointers",
    0x100: "metadata directory",
    0x200: "zoned",
    0x400: "zone gaps",
}
_FTYPE, _META_UUID, _NEEDS_REPAIR = 0x1, 0x4, 0x10

_AGF = struct.Struct(">4s13I16s")
_AGI = struct.Struct(">4s9I64I")


def is_xfs(source: Source) -> bool:
    """Whether a source starts with the superblock of XFS."""
    return source.read_at(0, 4) == _MAGIC


def checksum_fits(data: bytes, at: int) -> bool:
    """Whether the checksum that a structure keeps at a position, little-endian, is the one of its other bytes."""
    (stored,) = struct.unpack_from("<I", data, at)
    return stored == crc32c(data[at + 4 :], crc32c(bytes(4), crc32c(data[:at])))


@dataclass(frozen=True, slots=True)
class XfsGroup:
    """The headers of one allocation group.

    Attributes:
        number: counted from 0.
        offset: where the group lies in the file system, in bytes.
        blocks: blocks of the group.
        free_blocks: those that are free.
        inodes: inodes that are allocated, in use or not.
        free_inodes: those not in use.
        inode_root: block of the root of the inode B+tree.
        inode_level: its height.
        unlinked: first inode of each of the 64 lists of files that were deleted while they were open, counted in the
            group; `NO_BLOCK` for none.
        faults: what breaks a rule, for a person.
    """

    number: int
    offset: int
    blocks: int
    free_blocks: int
    inodes: int
    free_inodes: int
    inode_root: int
    inode_level: int
    unlinked: tuple[int, ...]
    faults: tuple[str, ...]


class XfsGeometry:
    """The superblock, and with it the place of every block and inode.

    A superblock that cannot be true is replaced by the copy in another allocation group where one is found. Sizes are
    bytes.

    Args:
        source: the file system's bytes.

    Attributes:
        source: as given.
        version: 4, or 5 with checksums.
        block_size: size of a block.
        sector_size: size of a sector; headers of allocation groups have one each.
        inode_size: size of an inode.
        dir_block_size: size of a directory's block.
        block_count: number of blocks.
        group_blocks: blocks of an allocation group; the last one may have less.
        group_count: number of allocation groups.
        root: inode number of the root directory.
        inode_count: inodes that are allocated, in use or not.
        free_inodes: those not in use.
        free_blocks: blocks that are free.
        label: name of the file system.
        uuid: as people write it.
        meta_uuid: the 16 bytes that every structure of version 5 repeats.
        log_start: block of the log; 0 when it is on another device.
        log_blocks: its length in blocks.
        in_progress: it was being made or copied when it was left.
        needs_repair: it was marked as damaged.
        has_ftype: directories tell the type of what they name.
        has_realtime: a part of the files' content is on another device.
        features: names of its incompatible features.
        faults: what breaks a rule, for a person.

    Raises:
        DamagedData: there is no such file system, or no sound superblock.
    """

    def __init__(self, source: Source) -> None:
        """Read the superblock."""
        self.source = source
        self.faults: list[str] = []
        try:
            self._decode(0)
        except DamagedData as error:
            self._decode_copy(error)

    def _decode(self, at: int) -> None:
        data = self.source.read_at(at, _SUPERBLOCK.size)
        if len(data) < _SUPERBLOCK.size or data[:4] != _MAGIC:
            raise DamagedData("no XFS superblock", origin=self.source.origin, offset=at)
        fields = _SUPERBLOCK.unpack(data)
        (_, self.block_size, self.block_count, realtime_blocks, _, uuid_bytes, self.log_start, self.root) = fields[:8]
        (self.group_blocks, self.group_count, _, self.log_blocks, flags, self.sector_size, self.inode_size) = fields[
            11:18
        ]
        label, block_log, _, inode_log, per_block_log, group_log = fields[19:25]
        progress, (self.inode_count, self.free_inodes, self.free_blocks) = fields[26], fields[32:35]
        self.version = flags & 0xF
        dir_log, features2 = fields[46], fields[50]
        incompat, _, _ = fields[54:57]
        if not self._is_sound(dir_log):
            raise DamagedData("the superblock contradicts itself", origin=self.source.origin, offset=at)
        if self.version == 5:
            self._check_sum(at)
        else:
            incompat = 0
        self.dir_block_size = self.block_size << dir_log
        self.label = label.rstrip(b"\0").decode("utf-8", "surrogateescape")
        self.uuid = str(uuid.UUID(bytes=uuid_bytes))
        self.meta_uuid = fields[60] if incompat & _META_UUID else uuid_bytes
        self.in_progress = bool(progress)
        self.needs_repair = bool(incompat & _NEEDS_REPAIR)
        more = bool(flags & _V4_MOREBITS and features2 & _FEATURES2_FTYPE)
        self.has_ftype = bool(incompat & _FTYPE) if self.version == 5 else more
        self.has_realtime = realtime_blocks > 0
        self.features = tuple(name for bit, name in _INCOMPAT.items() if incompat & bit)
        self._derive()
        logs = (block_log, inode_log, per_block_log, group_log)
        if logs != (self._block_log, self._inode_log, self._per_block_log, self._group_log):
            self.faults.append("the superblock gives wrong logarithms of its sizes")
        if self.version == 4 and not flags & _V4_DIRV2:
            self.faults.append("directories are of version 1, which is not read here")
        unknown = incompat & ~sum(_INCOMPAT)
        if unknown:
            self.faults.append(f"unknown incompatible features 0x{unknown:x}: what they change is read wrongly")

    def _is_sound(self, dir_log: int) -> bool:
        groups = self.group_count * self.group_blocks
        return (
            self.version in (4, 5)
            and self.block_size in _BLOCK_SIZES
            and self.sector_size in _SECTOR_SIZES
            and self.inode_size in _INODE_SIZES
            and self.inode_size <= self.block_size
            and self.block_size << dir_log <= _BLOCK_SIZES[-1]
            and 0 < groups - self.group_blocks < self.block_count <= groups
            or self.group_count == 1
            and 0 < self.block_count <= self.group_blocks
        )

    def _check_sum(self, at: int) -> None:
        if not checksum_fits(self.source.read_at(at, self.sector_size).ljust(_SMALLEST, b"\0"), 224):
            self.faults.append("the checksum of the superblock does not fit")

    def _decode_copy(self, error: DamagedData) -> None:
        for at in self._places_of_copies():
            try:
                self._decode(at)
            except DamagedData:
                continue
            if self.group_blocks * self.block_size in (at, at // 2, at // 3):
                self.faults.append(f"{error}; the copy at byte {at} is used")
                return
        raise error

    def _places_of_copies(self) -> Iterator[int]:
        """Where the second group starts, if the number of groups is a common one."""
        for block_size in (4096, 1024, 512, 2048, 8192, 16384, 32768, 65536):
            blocks = self.source.size // block_size
            for groups in _COMMON_GROUPS:
                group = -(-blocks // groups)
                for place in (group, group - 1, group + 1):
                    if place > 16 and place < blocks and self.source.read_at(place * block_size, 4) == _MAGIC:
                        yield place * block_size
