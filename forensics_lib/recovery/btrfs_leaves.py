"""Leaves of btrfs trees of all times, read inode by inode."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from forensics_lib.errors import DamagedData
from forensics_lib.formats.btrfs_history import FoundNode, NodeHistory
from forensics_lib.formats.btrfs_items import (
    DirectoryEntry,
    FileExtent,
    InodeItem,
    ItemKind,
    NameReference,
    parse_directory,
    parse_extended_references,
    parse_extent,
    parse_inode,
    parse_references,
)
from forensics_lib.formats.btrfs_node import BtrfsNode
from forensics_lib.model import ProblemLog
from forensics_lib.recovery.btrfs_states import Extents, State, counted

__all__ = ["HIGHEST", "LOWEST", "InodeItems", "Latest", "LeafReader"]

LOWEST, HIGHEST = 256, (1 << 64) - 256
"""Numbers that inodes have."""
_MAX_LEAVES = 1 << 10
"""Leaves that the extents of one inode may lie in."""
_ENTRIES = (ItemKind.DIR_ITEM, ItemKind.DIR_INDEX)

Latest = dict[int, tuple[bytes, State | None]]
"""The inode item that was read last, and the content it was taken for, by number."""


@dataclass(slots=True)
class InodeItems:
    """The items of one inode in one leaf.

    Attributes:
        number: of the inode.
        inode: its own item; None when another leaf has it.
        raw: the same as stored.
        at: offset of it on the device.
        references: its names, as it knows them itself.
        entries: what it lists, if it is a directory.
        extents: (offset in the file, extent), as they lie in the leaf.
    """

    number: int
    inode: InodeItem | None = None
    raw: bytes = b""
    at: int = 0
    references: list[NameReference] = field(default_factory=list)
    entries: list[DirectoryEntry] = field(default_factory=list)
    extents: list[tuple[int, FileExtent]] = field(default_factory=list)


class LeafReader:
    """Reads leaves, and notes when transactions were.

    Args:
        history: the tree blocks.
        problems: gets items that cannot be read.

    Attributes:
        changed_ns: the newest change that is known of each transaction, nanoseconds since 1970.
    """

    def __init__(self, history: NodeHistory, problems: ProblemLog) -> None:
        """Nothing is read yet."""
        self._history = history
        self._problems = problems
        self.changed_ns: dict[int, int] = {}

    def by_inode(self, block: BtrfsNode, latest: Latest | None = None, until: int = 0) -> Iterator[InodeItems]:
        """The items of a leaf by the inode they belong to.

        Whatever changes of an inode, its names and its extents, changes the inode as well.

        Args:
            block: the leaf.
            latest: inodes as they were in another leaf, which are left out where they are the same.
            until: the last transaction that used the leaf; noted for the inodes that are left out.
        """
        group: InodeItems | None = None
        same = 0
        for index, (objectid, kind, offset) in enumerate(block.keys):
            if not LOWEST <= objectid <= HIGHEST or objectid == same:
                continue
            if latest is not None and kind == ItemKind.INODE and objectid in latest:
                raw, state = latest[objectid]
                if raw == block.item(index).data:
                    same = objectid
                    if state is not None:
                        state.last = max(state.last, until)
                    continue
            if group is None or group.number != objectid:
                if group is not None:
                    yield group
                group = InodeItems(objectid)
            try:
                self._sort(group, kind, offset, block, index)
            except DamagedData as error:
                self._problems.add(block.device.origin.to("tree block", block.at), error)
        if group is not None:
            yield group

    def _sort(self, group: InodeItems, kind: int, offset: int, block: BtrfsNode, index: int) -> None:
        start, size = block.places[index]
        data = block.data[start : start + size]
        if kind == ItemKind.INODE:
            inode = parse_inode(data)
            group.inode, group.raw, group.at = inode, data, block.at + start
            changed = max(self.changed_ns.get(inode.transaction, 0), inode.ctime_ns)
            self.changed_ns[inode.transaction] = changed
        elif kind == ItemKind.INODE_REF:
            group.references += parse_references(offset, data)
        elif kind == ItemKind.INODE_EXTREF:
            group.references += parse_extended_references(data)
        elif kind in _ENTRIES:
            group.entries += parse_directory(data)
        elif kind == ItemKind.EXTENT_DATA:
            group.extents.append((offset, parse_extent(data)))

    def continued(
        self, inode: InodeItem, leaf: FoundNode, extents: Extents, starts: dict[int, list[FoundNode]]
    ) -> Extents:
        """The extents of the last inode of a leaf, with those in the leaves behind it.

        Args:
            inode: its item.
            leaf: where it lies.
            extents: those in the same leaf.
            starts: the leaves of the tree that start with extents, by the inode that these belong to.
        """
        count = counted(extents)
        for _ in range(_MAX_LEAVES):
            if count >= inode.allocated:
                break
            following = self._next(leaf, extents[-1][0] if extents else -1, starts)
            if following is None:
                break
            try:
                group = next(self.by_inode(self._history.read(following)), None)
            except DamagedData:
                break
            if group is None or not group.extents:
                break
            extents += tuple(group.extents)
            count += counted(tuple(group.extents))
            if following.last is None or following.last.objectid != group.number:
                break
            leaf = following
        return extents

    def _next(self, leaf: FoundNode, position: int, starts: dict[int, list[FoundNode]]) -> FoundNode | None:
        """The leaf that the extents of the last inode of a leaf go on in."""
        if leaf.last is None:
            return None
        number = leaf.last.objectid

        def fits(one: FoundNode) -> bool:
            first = one.first
            return first is not None and first[:2] == (number, ItemKind.EXTENT_DATA) and first.offset > position

        for one in self._history.following(leaf):
            if fits(one):
                return one
        fitting = [one for one in starts.get(number, ()) if fits(one)]
        if not fitting:
            return None
        nearest = min(one.first.offset for one in fitting if one.first is not None)
        nearby = [one for one in fitting if one.first is not None and one.first.offset == nearest]
        before = [one for one in nearby if one.generation <= leaf.until]
        return max(before, key=lambda one: one.generation) if before else min(nearby, key=lambda one: one.generation)
