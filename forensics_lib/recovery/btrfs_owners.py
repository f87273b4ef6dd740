"""Extents of files by what the extent trees say of their owners.

An extent tree holds for each extent which subvolume, inode and position uses it. So its older blocks tell where the
content of a file lay when the block that told it is gone.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator

from forensics_lib.errors import DamagedData
from forensics_lib.formats.btrfs_history import NodeHistory
from forensics_lib.formats.btrfs_items import ExtentKind, FileExtent, ItemKind
from forensics_lib.formats.btrfs_node import BtrfsNode
from forensics_lib.model import ProblemLog

__all__ = ["extents_of"]

_EXTENT_TREE = 2
_EXTENT = struct.Struct("<QQQ")
_REFERENCE = struct.Struct("<BQQQI")
_DATA, _DATA_REFERENCE = 1, 178


def extents_of(
    wanted: Collection[tuple[int, int]], history: NodeHistory, problems: ProblemLog
) -> dict[tuple[int, int], list[tuple[int, FileExtent]]]:
    """(position, extent) of all extents that ever belonged to some inodes, the oldest first; as if none were packed.

    Args:
        wanted: subvolume and number of the inodes.
        history: the tree blocks.
        problems: gets blocks that cannot be read.
    """
    found: dict[tuple[int, int], dict[tuple[int, int, int], FileExtent]] = {}
    for leaf in history.leaves(_EXTENT_TREE) if wanted else ():
        try:
            block = history.read(leaf)
        except DamagedData as error:
            problems.add(leaf.device.origin, error)
            continue
        for owner, position, extent in _owned(block):
            if owner in wanted:
                found.setdefault(owner, {})[position, extent.logical, extent.generation] = extent
    return {
        owner: sorted(((key[0], extent) for key, extent in extents.items()), key=lambda one: one[1].generation)
        for owner, extents in found.items()
    }


def _owned(block: BtrfsNode) -> Iterator[tuple[tuple[int, int], int, FileExtent]]:
    """((subvolume, inode), position, extent) of each extent of a leaf that has one owner."""
    for index, (address, kind, length) in enumerate(block.keys):
        data = block.item(index).data
        if kind != ItemKind.EXTENT or len(data) < _EXTENT.size + _REFERENCE.size:
            continue
        _, generation, flags = _EXTENT.unpack_from(data)
        reference, tree, number, position, _count = _REFERENCE.unpack_from(data, _EXTENT.size)
        if flags & _DATA and reference == _DATA_REFERENCE and position < 1 << 63:
            extent = FileExtent(generation, ExtentKind.REGULAR, 0, False, length, b"", address, length, 0, length)
            yield (tree, number), position, extent
