"""The inodes, directories and extents of one subvolume of a btrfs file system."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from forensics_lib._frozen import quick
from forensics_lib.errors import DamagedData
from forensics_lib.formats.btrfs_chunks import ChunkMap
from forensics_lib.formats.btrfs_content import BtrfsContent
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
from forensics_lib.formats.btrfs_node import MAX_OFFSET, BTree, Key, located
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.sources.base import Source

__all__ = ["BtrfsFiles", "BtrfsInode"]

_LONGEST_LINK = 4096


@quick
@dataclass(frozen=True, slots=True)
class BtrfsInode:
    """An inode, and where it lies.

    Attributes:
        number: its number, unique in the subvolume.
        item: its fixed fields.
        device: where the fixed fields were read.
        at: offset on that device.
    """

    number: int
    item: InodeItem
    device: Source
    at: int


class BtrfsFiles:
    """One subvolume.

    Args:
        tree: its tree.
        chunks: reads the extents.
        sector_size: bytes of a sector of the file system.
        origin: of the subvolume.
        problems: gets what is damaged inside of directories and attributes.
    """

    def __init__(self, tree: BTree, chunks: ChunkMap, sector_size: int, origin: Origin, problems: ProblemLog) -> None:
        """Remember where to read; nothing is read yet."""
        self.tree = tree
        self.origin = origin
        self._chunks = chunks
        self._sector_size = sector_size
        self._problems = problems

    def inode(self, number: int) -> BtrfsInode | None:
        """An inode; None when there is none of that number.

        Raises:
            DamagedData: it cannot be read.
        """
        item = self.tree.get(number, ItemKind.INODE, 0)
        if item is None:
            return None
        with located(item):
            return BtrfsInode(number, parse_inode(item.data), item.device, item.at)

    def references(self, number: int) -> Iterator[NameReference]:
        """The names that lead to an inode.

        Raises:
            DamagedData: some cannot be read; those before them were given.
        """
        for item in self.tree.items(Key(number, ItemKind.INODE_REF, 0), Key(number, ItemKind.INODE_EXTREF, MAX_OFFSET)):
            with located(item):
                if item.key.kind == ItemKind.INODE_REF:
                    yield from parse_references(item.key.offset, item.data)
                elif item.key.kind == ItemKind.INODE_EXTREF:
                    yield from parse_extended_references(item.data)

    def xattrs(self, number: int) -> dict[str, bytes]:
        """The extended attributes of an inode, by full name; those that are damaged are left out."""
        damages: list[DamagedData] = []
        found = self._entries(number, ItemKind.XATTR, damages)
        self._say(number, damages)
        return {name.decode("utf-8", "surrogateescape"): entry.value for name, entry in found.items()}

    def folder(self, number: int) -> dict[bytes, DirectoryEntry]:
        """The names of a directory; empty when the inode is none.

        They are kept twice, by position and by hash; the second is read where the first is damaged.
        """
        damages: list[DamagedData] = []
        found = self._entries(number, ItemKind.DIR_INDEX, damages)
        if damages:
            found = self._entries(number, ItemKind.DIR_ITEM, damages) | found
        self._say(number, damages)
        return found

    def _entries(self, number: int, kind: ItemKind, damages: list[DamagedData]) -> dict[bytes, DirectoryEntry]:
        found: dict[bytes, DirectoryEntry] = {}
        for item in self.tree.items(Key(number, kind, 0), Key(number, kind, MAX_OFFSET), damages.append):
            try:
                with located(item):
                    for entry in parse_directory(item.data):
                        found[entry.name] = entry
            except DamagedData as error:
                damages.append(error)
        return found

    def content(self, number: int, size: int, origin: Origin) -> BtrfsContent:
        """The bytes of a file or symbolic link."""
        damages: list[DamagedData] = []
        extents: list[tuple[int, FileExtent]] = []
        kind = ItemKind.EXTENT_DATA
        for item in self.tree.items(Key(number, kind, 0), Key(number, kind, MAX_OFFSET), damages.append):
            try:
                with located(item):
                    extents.append((item.key.offset, parse_extent(item.data)))
            except DamagedData as error:
                damages.append(error)
        damage = damages[0] if damages else None
        return BtrfsContent(self._chunks, extents, size, self._sector_size, origin, damage)

    def target(self, inode: BtrfsInode, origin: Origin) -> bytes:
        """Where a symbolic link leads.

        Raises:
            DamagedData: it cannot be read.
        """
        return self.content(inode.number, inode.item.size, origin).read_at(0, _LONGEST_LINK)

    def path_of(self, number: int, root: int) -> str | None:
        """The path of a directory from the subvolume's root on; None where its names lead nowhere.

        Args:
            number: inode number of the directory.
            root: inode number of the subvolume's root.

        Raises:
            DamagedData: an inode on the way cannot be read.
        """
        names: list[bytes] = []
        seen = set()
        while number != root:
            above = None if number in seen else next(self.references(number), None)
            if above is None:
                return None
            seen.add(number)
            names.append(above.name)
            number = above.directory
        return _joined(reversed(names))

    def _say(self, number: int, damages: Iterable[DamagedData]) -> None:
        for error in damages:
            self._problems.add(self.origin.to(f"inode {number}"), error)


def _joined(names: Iterable[bytes]) -> str:
    return "".join("/" + name.decode("utf-8", "surrogateescape") for name in names)
