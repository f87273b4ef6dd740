"""A btrfs file system: its devices, its trees and its subvolumes.

Format: Linux ``include/uapi/linux/btrfs_tree.h``; the btrfs on-disk format documentation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from forensics_lib.errors import DamagedData, UnsupportedFormat
from forensics_lib.formats.btrfs_chunks import ChunkMap, parse_chunk
from forensics_lib.formats.btrfs_content import BtrfsContent
from forensics_lib.formats.btrfs_items import (
    FileExtent,
    ItemKind,
    NameReference,
    RootItem,
    parse_directory,
    parse_extended_references,
    parse_extent,
    parse_inode,
    parse_references,
    parse_root,
    parse_root_reference,
)
from forensics_lib.formats.btrfs_node import MAX_OFFSET, BTree, Item, Key, NodeReader
from forensics_lib.formats.btrfs_super import BtrfsSuperblock, is_btrfs, read_superblock
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.sources.base import Source

__all__ = ["TOP_LEVEL", "BtrfsInode", "BtrfsVolume", "Subvolume", "is_btrfs"]

TOP_LEVEL = 5
"""Number of the subvolume that holds all others."""

_FIRST_FREE, _LAST_FREE = 256, (1 << 64) - 256
_CHUNK_OBJECT, _DEVICE_OBJECT = 256, 1
_KNOWN_FEATURES = 0x10FFF
_FEATURES = {0x1000: "zoned devices", 0x2000: "extent tree v2", 0x4000: "RAID stripe tree"}
_MAX_DEPTH = 4096


@dataclass(frozen=True, slots=True)
class Subvolume:
    """A subvolume or snapshot.

    Attributes:
        id: its number; 5 is the top level.
        name: in the directory that it is mounted in; empty for the top level, and for deleted ones.
        path: from the top level on; None where it is mounted nowhere, as deleted ones are.
        parent: number of the subvolume that it is mounted in; None for the top level, and for deleted ones.
        generation: the transaction that changed it last.
        created_ns: nanoseconds since 1970; None where it is not recorded.
        uuid: as people write it; empty where it has none.
        parent_uuid: of the subvolume that it is a snapshot of; empty for others.
        received_uuid: of the subvolume that it was sent from; empty for others.
        read_only: it may not be written to.
        deleted: it was deleted, and what it held is not all given back yet.
        origin: where its root item lies.
    """

    id: int
    name: str
    path: str | None
    parent: int | None
    generation: int
    created_ns: int | None
    uuid: str
    parent_uuid: str
    received_uuid: str
    read_only: bool
    deleted: bool
    origin: Origin
