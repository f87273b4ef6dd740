"""XFS superblocks and allocation group headers, and with them the place of every block and inode.

Format: XFS Algorithms & Data Structures (kernel.org), "Allocation Groups"; versions 4 and 5.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from forensics_lib._crc32c import crc32c
from forensics_lib.errors import DamagedData
from forensics_lib.sources.base import Source

__all__ = ["XfsGeometry", "XfsGroup", "checksum_fits", "is_xfs"]

_MAGIC = b"XFSB"
_LAYOUT = struct.Struct(">4sIQQ8x16sQQ20xII4xIHHH2x12sBxBBBxBxQQQ40xB7xI8xII28x16s")
_CHECKSUM_AT = 224
_BLOCK_SIZES = tuple(1 << log for log in range(9, 17))
_INODE_SIZES = (256, 512, 1024, 2048)
_COMMON_GROUPS = (4, 1, 2, 8, 16, 32, 3, 5, 6, 7)

_DIRV2, _MOREBITS = 0x2000, 0x8000
_FEATURES2_FTYPE = 0x200
_FTYPE, _META_UUID, _NEEDS_REPAIR = 0x1, 0x4, 0x10
_INCOMPAT = {
    _FTYPE: "ftype",
    0x2: "sparse inodes",
    _META_UUID: "meta uuid",
    0x8: "bigtime",
    _NEEDS_REPAIR: "needs repair",
    0x20: "large extent counts",
    0x40: "exchange range",
    0x80: "parent pointers",
    0x100: "metadata directory",
    0x200: "zoned",
    0x400: "zone gaps",
}
_RO_COMPAT = {0x1: "free inode tree", 0x2: "reverse mapping", 0x4: "reflink", 0x8: "inode tree counters"}

_AGF = struct.Struct(">4s4xII36xI")
_AGI = struct.Struct(">4s4xIIIIII8x64I")


def is_xfs(source: Source) -> bool:
    """Whether a source starts with the superblock of XFS."""
    return source.read_at(0, 4) == _MAGIC


def checksum_fits(data: bytes, at: int) -> bool:
    """Whether the checksum that a structure keeps at a position, little-endian, is the one of its other bytes."""
    (stored,) = struct.unpack_from("<I", data, at)
    return bool(stored == crc32c(data[at + 4 :], crc32c(bytes(4), crc32c(data[:at]))))


class _Superblock(NamedTuple):
    """The fields that are read, in the order of the disk; the names are those of the format."""

    magic: bytes
    blocksize: int
    dblocks: int
    rblocks: int
    uuid: bytes
    logstart: int
    rootino: int
    agblocks: int
    agcount: int
    logblocks: int
    versionnum: int
    sectsize: int
    inodesize: int
    fname: bytes
    blocklog: int
    inodelog: int
    inopblog: int
    agblklog: int
    inprogress: int
    icount: int
    ifree: int
    fdblocks: int
    dirblklog: int
    features2: int
    ro_compat: int
    incompat: int
    meta_uuid: bytes

    def is_sound(self) -> bool:
        """Whether sizes and counts can be true."""
        return (
            self.magic == _MAGIC
            and self.versionnum & 0xF in (4, 5)
            and self.blocksize in _BLOCK_SIZES
            and self.sectsize in _BLOCK_SIZES
            and self.inodesize in _INODE_SIZES
            and self.inodesize <= self.blocksize
            and self.dirblklog < 8
            and self.blocksize << self.dirblklog <= _BLOCK_SIZES[-1]
            and (self.agcount - 1) * self.agblocks < self.dblocks <= self.agcount * self.agblocks
        )


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
        inode_root: block, counted in the group, of the root of the inode B+tree.
        inode_levels: its height.
        unlinked: inode numbers that head the lists of files which were deleted while they were open.
        faults: what breaks a rule, for a person.
    """

    number: int
    offset: int
    blocks: int
    free_blocks: int
    inodes: int
    free_inodes: int
    inode_root: int
    inode_levels: int
    unlinked: tuple[int, ...]
    faults: tuple[str, ...]


class XfsGeometry:
    """The superblock, and with it the place of every block and inode. All sizes are bytes.

    A superblock that cannot be true gives way to the copy in another allocation group, where one is found.

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
        log_uuid: the 16 bytes that records of the log repeat.
        meta_uuid: the 16 bytes that the structures of version 5 repeat.
        log_start: block of the log; 0 when it is on another device.
        log_blocks: its length in blocks.
        in_progress: it was being made or copied when it was left.
        needs_repair: it was marked as damaged.
        has_ftype: directories tell the type of what they name.
        has_realtime: content of some files is on another device.
        features: names of its optional features.
        faults: what breaks a rule, for a person.

    Raises:
        DamagedData: there is no such file system, or no sound superblock.
    """

    def __init__(self, source: Source) -> None:
        """Read the superblock."""
        self.source = source
        self.faults: list[str] = []
        at, raw = self._find()
        self.version = raw.versionnum & 0xF
        self.block_size = raw.blocksize
        self.sector_size = raw.sectsize
        self.inode_size = raw.inodesize
        self.dir_block_size = raw.blocksize << raw.dirblklog
        self.block_count = raw.dblocks
        self.group_blocks = raw.agblocks
        self.group_count = raw.agcount
        self.root = raw.rootino
        self.inode_count, self.free_inodes, self.free_blocks = raw.icount, raw.ifree, raw.fdblocks
        self.label = raw.fname.rstrip(b"\0").decode("utf-8", "surrogateescape")
        self.uuid = str(uuid.UUID(bytes=raw.uuid))
        self.log_uuid = raw.uuid
        self.log_start = raw.logstart
        self.log_blocks = raw.logblocks
        self.in_progress = bool(raw.inprogress)
        self.has_realtime = raw.rblocks > 0
        incompat = raw.incompat if self.version == 5 else 0
        ro_compat = raw.ro_compat if self.version == 5 else 0
        self.meta_uuid = raw.meta_uuid if incompat & _META_UUID else raw.uuid
        self.needs_repair = bool(incompat & _NEEDS_REPAIR)
        has_ftype = incompat & _FTYPE or (raw.versionnum & _MOREBITS and raw.features2 & _FEATURES2_FTYPE)
        self.has_ftype = bool(has_ftype)
        self.features = tuple(
            name
            for names, bits in ((_INCOMPAT, incompat), (_RO_COMPAT, ro_compat))
            for bit, name in names.items()
            if bits & bit
        )
        self._block_log = self.block_size.bit_length() - 1
        self._inode_log = self.inode_size.bit_length() - 1
        self._group_log = (self.group_blocks - 1).bit_length()
        self._per_block_log = self._block_log - self._inode_log
        self._group_mask = (1 << self._group_log) - 1
        self._inode_mask = (1 << self._per_block_log) - 1
        self._note_faults(raw, at, incompat)

    def _find(self) -> tuple[int, _Superblock]:
        """The superblock that is believed, and where it lies."""
        first = self._read_superblock(0)
        if first is not None and first.is_sound():
            return 0, first
        for at in self._places_of_copies():
            copy = self._read_superblock(at)
            if copy is not None and copy.is_sound() and at % (copy.agblocks * copy.blocksize) == 0:
                self.faults.append(f"the superblock is damaged; the copy at byte {at} is used")
                return at, copy
        message = "no XFS superblock" if first is None else "the superblock contradicts itself, and no copy was found"
        raise DamagedData(message, origin=self.source.origin, offset=0)

    def _read_superblock(self, at: int) -> _Superblock | None:
        data = self.source.read_at(at, _LAYOUT.size)
        return _Superblock._make(_LAYOUT.unpack(data)) if len(data) == _LAYOUT.size else None

    def _places_of_copies(self) -> Iterator[int]:
        """Where the second group starts, if the number of groups is a common one."""
        for block_size in sorted(_BLOCK_SIZES, key=lambda size: size != 4096):
            blocks = self.source.size // block_size
            for groups in _COMMON_GROUPS:
                for place in range(blocks // groups - 1, blocks // groups + 2):
                    if place > 0 and self.source.read_at(place * block_size, 4) == _MAGIC:
                        yield place * block_size

    def _note_faults(self, raw: _Superblock, at: int, incompat: int) -> None:
        note = self.faults.append
        if self.version == 5 and not checksum_fits(self.source.read_at(at, self.sector_size), _CHECKSUM_AT):
            note("the checksum of the superblock does not fit")
        logs = (self._block_log, self._inode_log, self._per_block_log, self._group_log)
        if logs != (raw.blocklog, raw.inodelog, raw.inopblog, raw.agblklog):
            note("the superblock gives wrong logarithms of its sizes")
        if self.version == 4 and not raw.versionnum & _DIRV2:
            note("directories of version 1 are not read")
        if unknown := incompat & ~sum(_INCOMPAT):
            note(f"incompatible features 0x{unknown:x} are not known; what they change is misread")
        if self.in_progress:
            note("it was being made or copied when it was left")
        if self.needs_repair:
            note("it is marked as in need of repair")
        if self.source.size < self.block_count << self._block_log:
            note(f"{self.block_count << self._block_log} bytes are declared, only {self.source.size} are there")

    def group(self, number: int) -> XfsGroup:
        """The headers of an allocation group.

        Raises:
            DamagedData: there is no such group, or its headers cannot be read.
        """
        offset = self.group_offset(number)
        agf, agi = (self._read(offset + index * self.sector_size, self.sector_size) for index in (1, 2))
        faults = []
        for data, magic, checksum in (agf, b"XAGF", 216), (agi, b"XAGI", 312):
            if data[:4] != magic:
                faults.append(f"no {magic.decode()} header")
            elif self.version == 5 and not checksum_fits(data, checksum):
                faults.append(f"the checksum of the {magic.decode()} header does not fit")
        _, _, blocks, free_blocks = _AGF.unpack_from(agf)
        _, _, _, inodes, root, levels, free_inodes, *heads = _AGI.unpack_from(agi)
        above = number << self._group_log + self._per_block_log
        unlinked = tuple(above | head for head in heads if head != 0xFFFFFFFF)
        return XfsGroup(number, offset, blocks, free_blocks, inodes, free_inodes, root, levels, unlinked, tuple(faults))

    def block_offset(self, block: int, count: int = 1) -> int:
        """Where blocks of the file system, numbered as its structures do, lie.

        Raises:
            DamagedData: they are outside the file system, or span allocation groups.
        """
        group, inside = block >> self._group_log, block & self._group_mask
        place = group * self.group_blocks + inside
        if not (0 <= group < self.group_count and inside + count <= self.group_blocks):
            raise DamagedData(f"block {block} (of {count}) is in no allocation group", origin=self.source.origin)
        if place + count > self.block_count:
            raise DamagedData(f"block {block} (of {count}) lies beyond the end", origin=self.source.origin)
        return place << self._block_log

    def inode_offset(self, number: int) -> int:
        """Where an inode lies.

        Raises:
            DamagedData: it is outside the file system.
        """
        block = number >> self._per_block_log
        blocks = self.group_blocks
        inside = block & self._group_mask
        place = (block >> self._group_log) * blocks + inside
        if inside >= blocks or place >= self.block_count:
            raise DamagedData(f"inode {number} is in no allocation group", origin=self.source.origin)
        return (place << self._block_log) + ((number & self._inode_mask) << self._inode_log)

    def group_offset(self, number: int) -> int:
        """Where an allocation group lies.

        Raises:
            DamagedData: there is no such group.
        """
        return self.block_offset(number << self._group_log)

    def inode_at(self, offset: int) -> int:
        """The number of the inode that lies at a position, or would."""
        group, inside = divmod(offset >> self._block_log, self.group_blocks)
        block = group << self._group_log | inside
        return block << self._per_block_log | (offset >> self._inode_log) & self._inode_mask

    def read_blocks(self, block: int, count: int = 1) -> bytes:
        """The bytes of blocks.

        Raises:
            DamagedData: they are outside the file system, or not there.
        """
        return self._read(self.block_offset(block, count), count << self._block_log)

    def _read(self, offset: int, length: int) -> bytes:
        data = self.source.read_at(offset, length)
        if len(data) < length:
            raise DamagedData(
                f"{length} bytes are declared, only {len(data)} are there", origin=self.source.origin, offset=offset
            )
        return data
