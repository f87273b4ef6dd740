"""What the items of btrfs trees say: inodes, names, attributes, extents and subvolumes.

Format: Linux ``include/uapi/linux/btrfs_tree.h``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from forensics_lib._frozen import quick
from forensics_lib.errors import DamagedData

__all__ = [
    "DirectoryEntry",
    "ExtentKind",
    "FileExtent",
    "InodeItem",
    "ItemKind",
    "NameReference",
    "RootItem",
    "parse_directory",
    "parse_extended_references",
    "parse_extent",
    "parse_inode",
    "parse_references",
    "parse_root",
    "parse_root_reference",
]

_INODE = struct.Struct("<QQQQQIIIIQQQ32xqIqIqIqI")
_ENTRY = struct.Struct("<QBQQHHB")
_REFERENCE = struct.Struct("<QH")
_EXTENDED_REFERENCE = struct.Struct("<QQH")
_ROOT = struct.Struct("<160xQQQQQQQI17xBB")
_ROOT_V2 = struct.Struct("<Q16s16s16sQQQQqIqI")
_ROOT_REFERENCE = struct.Struct("<QQH")
_EXTENT = struct.Struct("<QQBBHB")
_EXTENT_PLACE = struct.Struct("<QQQQ")
_READ_ONLY, _DEAD = 1, 1 << 48
_SECOND = 1_000_000_000


class ItemKind(IntEnum):
    """The kinds of items that a reader of files needs."""

    INODE = 1
    INODE_REF = 12
    INODE_EXTREF = 13
    XATTR = 24
    ORPHAN = 48
    DIR_LOG_INDEX = 72
    DIR_ITEM = 84
    DIR_INDEX = 96
    EXTENT_DATA = 108
    EXTENT_CSUM = 128
    ROOT = 132
    ROOT_BACKREF = 144
    ROOT_REF = 156
    EXTENT = 168
    METADATA = 169
    DEVICE = 216
    CHUNK = 228


class ExtentKind(IntEnum):
    """How the bytes of a file's extent are kept."""

    INLINE = 0
    REGULAR = 1
    PREALLOCATED = 2


@quick
@dataclass(frozen=True, slots=True)
class InodeItem:
    """One inode.

    Attributes:
        generation: the transaction that made it.
        transaction: the one that changed it last.
        size: bytes.
        allocated: bytes that it takes.
        nlink: number of names.
        uid: owner's number.
        gid: group's number.
        mode: type and permission bits.
        rdev: a device's number as the kernel keeps it (major << 20 | minor).
        flags: e.g. without checksums, compressed, immutable.
        sequence: counts changes.
        atime_ns: last access, nanoseconds since 1970.
        ctime_ns: last change of the inode.
        mtime_ns: last change of the content.
        otime_ns: creation.
    """

    generation: int
    transaction: int
    size: int
    allocated: int
    nlink: int
    uid: int
    gid: int
    mode: int
    rdev: int
    flags: int
    sequence: int
    atime_ns: int
    ctime_ns: int
    mtime_ns: int
    otime_ns: int


@quick
@dataclass(frozen=True, slots=True)
class DirectoryEntry:
    """A name in a directory, or an extended attribute.

    Attributes:
        objectid: inode number, or the subvolume's number.
        kind: ItemKind.INODE or ItemKind.ROOT; tells which.
        transaction: the one that wrote it.
        name: bytes of the name.
        value: of an extended attribute.
        file_type: as in a directory entry of Linux; 8 for extended attributes.
    """

    objectid: int
    kind: int
    transaction: int
    name: bytes
    value: bytes
    file_type: int


@quick
@dataclass(frozen=True, slots=True)
class NameReference:
    """A name that leads to an inode or subvolume.

    Attributes:
        directory: inode number of the directory.
        index: position in it.
        name: bytes of the name.
    """

    directory: int
    index: int
    name: bytes


@dataclass(frozen=True, slots=True)
class RootItem:
    """The root of a tree.

    Attributes:
        generation: the transaction that wrote its topmost block.
        directory: inode number of its root directory.
        logical: address of the topmost block.
        level: its height.
        references: 0 once the subvolume is deleted.
        last_snapshot: the transaction of the last snapshot of it.
        read_only: it may not be written to.
        dead: it is being deleted.
        uuid: its 16 bytes; zeros where it has none.
        parent_uuid: of the subvolume that it is a snapshot of.
        received_uuid: of the subvolume that it was sent from.
        ctime_ns: last change, nanoseconds since 1970.
        otime_ns: creation.
        created: the transaction that made it; 0 where it is not recorded.
    """

    generation: int
    directory: int
    logical: int
    level: int
    references: int
    last_snapshot: int
    read_only: bool
    dead: bool
    uuid: bytes
    parent_uuid: bytes
    received_uuid: bytes
    ctime_ns: int | None
    otime_ns: int | None
    created: int = 0


@quick
@dataclass(frozen=True, slots=True)
class FileExtent:
    """A run of a file's bytes.

    Attributes:
        generation: the transaction that wrote it.
        kind: how it is kept.
        compression: 0 none, 1 zlib, 2 LZO, 3 zstd.
        encoded: it is encrypted or otherwise encoded, which no released Linux does.
        unpacked: bytes of the whole extent after decompression.
        inline: the bytes themselves, for an inline extent.
        logical: address of the whole extent; 0 for a hole.
        stored: bytes that the whole extent takes.
        offset: where in the unpacked extent the run begins.
        length: bytes of the run.
    """

    generation: int
    kind: ExtentKind
    compression: int
    encoded: bool
    unpacked: int
    inline: bytes
    logical: int
    stored: int
    offset: int
    length: int

    @property
    def is_plain(self) -> bool:
        """Whether the run's bytes lie on disk as they are, and are as many as it says."""
        whole = self.offset + self.length <= self.stored
        return whole and self.kind is ExtentKind.REGULAR and self.logical > 0 and not (self.compression or self.encoded)


def parse_inode(data: bytes) -> InodeItem:
    """An inode.

    Raises:
        DamagedData: it is cut off.
    """
    values = _unpacked(_INODE, data, "inode")
    generation, transaction, size, allocated, _group, nlink, uid, gid, mode, rdev, flags, sequence = values[:12]
    atime, atime_more, ctime, ctime_more, mtime, mtime_more, otime, otime_more = values[12:]
    return InodeItem(
        generation,
        transaction,
        size,
        allocated,
        nlink,
        uid,
        gid,
        mode,
        rdev,
        flags,
        sequence,
        atime * _SECOND + atime_more,
        ctime * _SECOND + ctime_more,
        mtime * _SECOND + mtime_more,
        otime * _SECOND + otime_more,
    )


def parse_directory(data: bytes) -> Iterator[DirectoryEntry]:
    """The entries of one item: names whose hashes are equal share one.

    Raises:
        DamagedData: an entry is cut off; those before it were given.
    """
    position = 0
    while position < len(data):
        objectid, kind, _offset, transaction, value_size, name_size, file_type = _unpacked(
            _ENTRY, data, "directory entry", position
        )
        start = position + _ENTRY.size
        middle, position = start + name_size, start + name_size + value_size
        if position > len(data):
            raise DamagedData("directory entry is cut off")
        yield DirectoryEntry(objectid, kind, transaction, data[start:middle], data[middle:position], file_type)


def parse_references(directory: int, data: bytes) -> Iterator[NameReference]:
    """The names that one directory has for an inode.

    Args:
        directory: its inode number, which is the offset of the item's key.
        data: the item.

    Raises:
        DamagedData: a name is cut off; those before it were given.
    """
    position = 0
    while position < len(data):
        index, size = _unpacked(_REFERENCE, data, "name reference", position)
        position += _REFERENCE.size + size
        if position > len(data):
            raise DamagedData("name reference is cut off")
        yield NameReference(directory, index, data[position - size : position])


def parse_extended_references(data: bytes) -> Iterator[NameReference]:
    """Names that an inode has beyond those that fit into the usual item.

    Raises:
        DamagedData: a name is cut off; those before it were given.
    """
    position = 0
    while position < len(data):
        directory, index, size = _unpacked(_EXTENDED_REFERENCE, data, "name reference", position)
        position += _EXTENDED_REFERENCE.size + size
        if position > len(data):
            raise DamagedData("name reference is cut off")
        yield NameReference(directory, index, data[position - size : position])


def parse_root(data: bytes) -> RootItem:
    """The root of a tree.

    Raises:
        DamagedData: it is cut off.
    """
    generation, directory, logical, _limit, _used, last_snapshot, flags, references, _drop, level = _unpacked(
        _ROOT, data, "root item"
    )
    newer: tuple[Any, ...] = ()
    if len(data) >= _ROOT.size + _ROOT_V2.size:
        newer = _ROOT_V2.unpack_from(data, _ROOT.size)
    known = bool(newer) and newer[0] == generation  # else written by a kernel that did not know these fields
    empty = bytes(16)
    uuid, parent, received = newer[1:4] if known else (empty, empty, empty)
    ctime, otime = (newer[at] * 10**9 + newer[at + 1] or None if known else None for at in (8, 10))
    return RootItem(
        generation,
        directory,
        logical,
        level,
        references,
        last_snapshot,
        bool(flags & _READ_ONLY),
        bool(flags & _DEAD),
        uuid,
        parent,
        received,
        ctime,
        otime,
        newer[5] if known else 0,
    )


def parse_root_reference(data: bytes) -> NameReference:
    """Where a subvolume is mounted in another one.

    Raises:
        DamagedData: it is cut off.
    """
    directory, index, size = _unpacked(_ROOT_REFERENCE, data, "subvolume reference")
    name = data[_ROOT_REFERENCE.size : _ROOT_REFERENCE.size + size]
    if len(name) < size:
        raise DamagedData("subvolume reference is cut off")
    return NameReference(directory, index, name)


def parse_extent(data: bytes) -> FileExtent:
    """A run of a file's bytes.

    Raises:
        DamagedData: it is cut off, or of an unknown kind.
    """
    generation, unpacked, compression, encryption, other, number = _unpacked(_EXTENT, data, "extent")
    try:
        kind = ExtentKind(number)
    except ValueError:
        raise DamagedData(f"extent of unknown kind {number}") from None
    encoded = bool(encryption or other)
    if kind is ExtentKind.INLINE:
        inline = data[_EXTENT.size :]
        return FileExtent(generation, kind, compression, encoded, unpacked, inline, 0, len(inline), 0, unpacked)
    place = _unpacked(_EXTENT_PLACE, data, "extent", _EXTENT.size)
    return FileExtent(generation, kind, compression, encoded, unpacked, b"", *place)


def _unpacked(layout: struct.Struct, data: bytes, what: str, position: int = 0) -> tuple[Any, ...]:
    if len(data) < position + layout.size:
        raise DamagedData(f"{what} is cut off")
    return layout.unpack_from(data, position)
