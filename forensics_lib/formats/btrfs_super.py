"""The btrfs superblock, which every device holds in up to three places.

Format: Linux ``include/uapi/linux/btrfs_tree.h``; the btrfs on-disk format documentation.
"""

from __future__ import annotations

import struct
import uuid
from dataclasses import dataclass

from forensics_lib.errors import DamagedData
from forensics_lib.formats.btrfs_checksum import CHECKSUMS
from forensics_lib.sources.base import Source

__all__ = ["PLACES", "BtrfsRoots", "BtrfsSuperblock", "is_btrfs", "read_superblock"]

PLACES = (64 << 10, 64 << 20, 256 << 30)
_SIZE = 4096
_MAGIC = b"_BHRfS_M"
_MAGIC_AT = 64
_SYSTEM_CHUNKS_AT, _SYSTEM_CHUNKS_SIZE = 0x32B, 2048
_BACKUPS_AT, _BACKUP_SIZE, _BACKUPS = 0xB2B, 168, 4
_METADATA_UUID = 0x400
_NODE_SIZES = {4096 << power for power in range(5)}
_SECTOR_SIZES = {512 << power for power in range(8)}
_FIELDS = struct.Struct("<QQ8sQQQQQQQQQIIIIIQQQQHBBB")  # from byte 0x30 on
_DEVICE_AT = 0xC9


@dataclass(frozen=True, slots=True)
class BtrfsRoots:
    """Where the two trees begin that lead to all others.

    Attributes:
        generation: the transaction.
        root: logical address of the root tree.
        root_level: its height.
        chunk_root: logical address of the chunk tree.
        chunk_root_level: its height.
        chunk_root_generation: the transaction that wrote it.
    """

    generation: int
    root: int
    root_level: int
    chunk_root: int
    chunk_root_level: int
    chunk_root_generation: int


@dataclass(frozen=True, slots=True)
class BtrfsSuperblock:
    """One superblock.

    Attributes:
        offset: where on its device it was read.
        fsid: the file system's UUID as 16 bytes.
        metadata_fsid: the UUID that its tree blocks carry.
        label: name of the file system.
        generation: number of the last transaction.
        roots: the trees of that transaction.
        log_root: logical address of the log tree, which holds what was synced since the last transaction; 0 for none.
        log_root_level: its height.
        total_bytes: size of all devices together.
        bytes_used: bytes that hold something.
        root_directory: object of the root tree that names the default subvolume.
        device_count: number of devices.
        device_id: which of them this is.
        device_uuid: its 16 bytes.
        sector_size: bytes of a data block.
        node_size: bytes of a tree block.
        incompat: feature bits without which nothing may be read.
        checksum_kind: number of the checksum's algorithm.
        system_chunks: keys and chunk items of the chunk tree's own place.
        backups: the trees of the last transactions, for when the newest ones are damaged; the newest first.
    """

    offset: int
    fsid: bytes
    metadata_fsid: bytes
    label: str
    generation: int
    roots: BtrfsRoots
    log_root: int
    log_root_level: int
    total_bytes: int
    bytes_used: int
    root_directory: int
    device_count: int
    device_id: int
    device_uuid: bytes
    sector_size: int
    node_size: int
    incompat: int
    checksum_kind: int
    system_chunks: bytes
    backups: tuple[BtrfsRoots, ...]

    @property
    def uuid(self) -> str:
        """The file system's UUID as people write it."""
        return str(uuid.UUID(bytes=self.fsid))


def is_btrfs(source: Source) -> bool:
    """Whether a source holds a superblock in its first or second place."""
    return any(
        source.size >= place + _SIZE and source.read_at(place + _MAGIC_AT, len(_MAGIC)) == _MAGIC
        for place in PLACES[:2]
    )


def read_superblock(source: Source) -> BtrfsSuperblock:
    """The newest superblock of a device whose checksum is right.

    Raises:
        DamagedData: none is.
    """
    errors: list[DamagedData] = []
    found: list[BtrfsSuperblock] = []
    for place in PLACES:
        if place + _SIZE > source.size:
            break
        try:
            found.append(_superblock(source, place))
        except DamagedData as error:
            errors.append(error)
    if found:
        return max(found, key=lambda superblock: superblock.generation)  # of equal ones the first
    raise errors[0] if errors else DamagedData("too small for a btrfs file system", origin=source.origin)


def _superblock(source: Source, place: int) -> BtrfsSuperblock:
    data = source.read_at(place, _SIZE)

    def damaged(message: str) -> DamagedData:
        return DamagedData(message, origin=source.origin, offset=place)

    if len(data) < _SIZE or data[_MAGIC_AT : _MAGIC_AT + len(_MAGIC)] != _MAGIC:
        raise damaged("no btrfs superblock")
    (
        address,
        _flags,
        _magic,
        generation,
        root,
        chunk_root,
        log_root,
        _log_transaction,
        total_bytes,
        bytes_used,
        root_directory,
        device_count,
        sector_size,
        node_size,
        _leaf_size,
        _stripe_size,
        chunks_size,
        chunk_root_generation,
        _compat,
        _compat_read_only,
        incompat,
        checksum_kind,
        root_level,
        chunk_root_level,
        log_level,
    ) = _FIELDS.unpack_from(data, 0x30)
    checksum = CHECKSUMS.get(checksum_kind)
    if checksum is None:
        raise damaged(f"btrfs superblock names an unknown checksum algorithm {checksum_kind}")
    if not data.startswith(checksum(data[32:])):
        raise damaged("btrfs superblock with a wrong checksum")
    if (
        address != place
        or sector_size not in _SECTOR_SIZES
        or node_size not in _NODE_SIZES
        or chunks_size > _SYSTEM_CHUNKS_SIZE
    ):
        raise damaged("btrfs superblock with impossible sizes")
    fsid = data[0x20:0x30]
    return BtrfsSuperblock(
        offset=place,
        fsid=fsid,
        metadata_fsid=data[0x23B:0x24B] if incompat & _METADATA_UUID else fsid,
        label=data[0x12B:0x22B].split(b"\0", 1)[0].decode("utf-8", "surrogateescape"),
        generation=generation,
        roots=BtrfsRoots(generation, root, root_level, chunk_root, chunk_root_level, chunk_root_generation),
        log_root=log_root,
        log_root_level=log_level,
        total_bytes=total_bytes,
        bytes_used=bytes_used,
        root_directory=root_directory,
        device_count=device_count,
        device_id=struct.unpack_from("<Q", data, _DEVICE_AT)[0],
        device_uuid=data[_DEVICE_AT + 66 : _DEVICE_AT + 82],
        sector_size=sector_size,
        node_size=node_size,
        incompat=incompat,
        checksum_kind=checksum_kind,
        system_chunks=data[_SYSTEM_CHUNKS_AT : _SYSTEM_CHUNKS_AT + chunks_size],
        backups=tuple(sorted(_backups(data), key=lambda backup: -backup.generation)),
    )


def _backups(data: bytes) -> list[BtrfsRoots]:
    found = []
    for index in range(_BACKUPS):
        at = _BACKUPS_AT + index * _BACKUP_SIZE
        root, generation, chunk_root, chunk_generation = struct.unpack_from("<4Q", data, at)
        root_level, chunk_level = struct.unpack_from("<BB", data, at + 152)
        if root:
            found.append(BtrfsRoots(generation, root, root_level, chunk_root, chunk_level, chunk_generation))
    return found
