"""The log tree of a btrfs file system, replayed in memory.

Between two transactions a log tree takes what is synced: inodes, their names, attributes and extents. After a crash
Linux puts it into the trees when it mounts the file system; here it is laid over them. What Linux would stamp with the
time of that mount keeps the time that it had.

Source: Linux ``fs/btrfs/tree-log.c`` for what is logged and in which order it is put back.
"""

from __future__ import annotations

import stat
import struct
from bisect import bisect_right
from collections.abc import Iterable, Iterator

from forensics_lib._crc32c import crc32c
from forensics_lib.errors import LimitExceeded
from forensics_lib.formats.btrfs_items import (
    DirectoryEntry,
    ExtentKind,
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
from forensics_lib.formats.btrfs_node import MAX_OFFSET, BTree, Item, Key, located
from forensics_lib.formats.btrfs_overlay import OverlaidTree

__all__ = ["replay"]

_MAX_ITEMS, _MAX_STEPS = 1 << 20, 1 << 24
_LAST_KIND = 255
_FIRST_INODE, _LAST_INODE = 256, (1 << 64) - 256
_NBYTES_AT, _SIZE_AT, _NLINK_AT = 24, 16, 40
_FILE_TYPES = {
    stat.S_IFREG: 1,
    stat.S_IFDIR: 2,
    stat.S_IFCHR: 3,
    stat.S_IFBLK: 4,
    stat.S_IFIFO: 5,
    stat.S_IFSOCK: 6,
    stat.S_IFLNK: 7,
}
_REFERENCES = (ItemKind.INODE_REF, ItemKind.INODE_EXTREF)
_CHECKSUMS = (1 << 64) - 10


def replay(log: BTree, below: BTree, sector_size: int) -> tuple[OverlaidTree, list[Item]]:
    """A subvolume with its log laid over it, and the checksums of data that the log holds.

    Args:
        log: the subvolume's log tree.
        below: its tree of the last transaction.
        sector_size: bytes of a sector.

    Raises:
        DamagedData: the log or what it changes cannot be read; nothing of it should be shown then.
        LimitExceeded: it has more items than are kept in memory.
    """
    replaying = _Replay(log, below, sector_size)
    replaying.run()
    return replaying.tree, replaying.checksums


class _Replay:
    """One log tree, and what it was put into so far."""

    def __init__(self, log: BTree, below: BTree, sector_size: int) -> None:
        self.tree = OverlaidTree(below)
        self.checksums: list[Item] = []
        self._sector = sector_size
        self._log: dict[int, dict[Key, Item]] = {}
        self._touched: set[int] = set()
        self._steps = 0
        for count, item in enumerate(log.items(Key(0, 0, 0), Key(MAX_OFFSET, _LAST_KIND, MAX_OFFSET))):
            if count >= _MAX_ITEMS:
                raise LimitExceeded(f"a log tree of more than {_MAX_ITEMS} items")
            if item.key.kind == ItemKind.EXTENT_CSUM:
                self.checksums.append(item)
            elif _FIRST_INODE <= item.key.objectid <= _LAST_INODE:
                self._log.setdefault(item.key.objectid, {})[item.key] = item

    def run(self) -> None:
        """Inodes first, then the names of directories, then all else; link counts at the end."""
        for number, items in list(self._log.items()):
            item = items.get(Key(number, ItemKind.INODE, 0))
            if item is None:
                continue
            if not _inode(item).nlink:  # it never got a name
                del self._log[number]
            else:
                self._put_inode(item, items.values())
        for item in self._of_kinds(ItemKind.DIR_INDEX):
            for entry in _entries(item):
                self._put_entry(item.key, entry)
        for item in self._of_kinds(ItemKind.XATTR):
            if self._has(item.key.objectid):
                self.tree.put(item)
        for item in self._of_kinds(*_REFERENCES):
            self._put_references(item)
        for number in self._log:
            if self._has(number):
                self._put_extents(number)
        left = self._touched | self._log.keys()
        while left:
            self._touched = set()
            for number in sorted(left):
                self._count(number)
            left = self._touched

    def _of_kinds(self, *kinds: ItemKind) -> list[Item]:
        return [item for items in self._log.values() for item in items.values() if item.key.kind in kinds]

    # Inodes ----------------------------------------------------------------------------------------------------------

    def _put_inode(self, item: Item, items: Iterable[Item]) -> None:
        number = item.key.objectid
        kept = {one.key for one in items if one.key.kind == ItemKind.XATTR}
        for one in list(self.tree.items(Key(number, ItemKind.XATTR, 0), Key(number, ItemKind.XATTR, MAX_OFFSET))):
            if one.key not in kept:
                self.tree.remove(one.key)
        inode = _inode(item)
        if stat.S_ISDIR(inode.mode):
            self._delete_names(number)
        before = self.tree.get(*item.key)
        if not inode.generation and before is not None:  # logged only to say that it exists
            if stat.S_ISREG(inode.mode) and stat.S_ISREG(_inode(before).mode) and inode.size:
                self.tree.put(_with(before, _SIZE_AT, inode.size))
        else:
            self.tree.put(item)
        if stat.S_ISREG(inode.mode):
            size = _inode(self.tree.get(*item.key) or item).size
            self._drop(number, [(size + -size % self._sector, MAX_OFFSET)])

    def _has(self, number: int) -> bool:
        return self.tree.get(number, ItemKind.INODE, 0) is not None

    def _count(self, number: int) -> None:
        """Set what an inode counts: its names and its bytes; without a name it is gone, with the names in it."""
        item = self.tree.get(number, ItemKind.INODE, 0)
        if item is None:
            return
        inode = _inode(item)
        names = len(list(self._references(number)))
        if number != _FIRST_INODE and not names:
            self.tree.remove(item.key)
            if stat.S_ISDIR(inode.mode):
                low, high = Key(number, ItemKind.DIR_INDEX, 0), Key(number, ItemKind.DIR_INDEX, MAX_OFFSET)
                for one in list(self.tree.items(low, high)):
                    for entry in _entries(one):
                        if entry.kind == ItemKind.INODE and self._matters(entry.objectid):
                            self._unlink(number, entry.name, entry.objectid)
            return
        if not stat.S_ISDIR(inode.mode):
            item = _with(item, _NLINK_AT, names, 4)
        if stat.S_ISREG(inode.mode):
            extents = self._extents(number)
            count = sum(one.length for _, one in extents if one.kind is ExtentKind.INLINE or one.logical)
            item = _with(item, _NBYTES_AT, count & MAX_OFFSET)
        self.tree.put(item)

    def _matters(self, number: int) -> bool:
        """Whether an inode has other names, or names in it."""
        item = self.tree.get(number, ItemKind.INODE, 0)
        inode = None if item is None else _inode(item)
        return inode is not None and (inode.nlink > 1 or stat.S_ISDIR(inode.mode))

    # Names -----------------------------------------------------------------------------------------------------------

    def _delete_names(self, directory: int) -> None:
        """In the ranges that the log says it has all names of, those that it does not have are gone."""
        items = self._log[directory]
        for key, item in items.items():
            if key.kind != ItemKind.DIR_LOG_INDEX or len(item.data) < 8:
                continue
            low = Key(directory, ItemKind.DIR_INDEX, key.offset)
            high = Key(directory, ItemKind.DIR_INDEX, int.from_bytes(item.data[:8], "little"))
            for one in list(self.tree.items(low, high)):
                logged = {entry.name for entry in _entries(items[one.key])} if one.key in items else set()
                for entry in _entries(one):
                    if entry.kind == ItemKind.INODE and entry.name not in logged:
                        self._unlink(directory, entry.name, entry.objectid)

    def _put_entry(self, key: Key, entry: DirectoryEntry) -> None:
        """A name that a directory's log has; those that come with the log of their inode are put in there."""
        directory, index = key.objectid, key.offset
        if entry.kind != ItemKind.INODE or not self._has(directory):
            return
        exists = self._has(entry.objectid)
        named = self._named(directory, entry.name)
        at_index = self._indexed(directory, index)
        if named is not None and named[0] == index and named[1].objectid == entry.objectid:
            return
        if not exists:
            return
        if any((one.directory, one.name) == (directory, entry.name) for one in self._logged(entry.objectid)):
            return
        for one in (named[1] if named is not None else None, at_index):
            if one is not None:
                self._unlink(directory, one.name, one.objectid)
        self._link(directory, index, entry.name, entry.objectid)

    def _put_references(self, item: Item) -> None:
        """The names of an inode in one directory: those that are not logged are gone."""
        number = item.key.objectid
        wanted = list(_names(item))
        if number == _FIRST_INODE or not self._has(number):  # the topmost directory names itself
            return
        for reference in wanted:
            directory = reference.directory
            if not self._has(directory):
                continue
            named = self._named(directory, reference.name)
            if named is not None and named == (reference.index, named[1]) and named[1].objectid == number:
                continue
            self._drop_old_names(number, item, wanted)
            at_index = self._indexed(directory, reference.index)
            for one in (named[1] if named is not None else None, at_index):
                if one is not None:
                    self._unlink(directory, one.name, one.objectid)
            self._link(directory, reference.index, reference.name, number)
        self._drop_old_names(number, item, wanted)

    def _drop_old_names(self, number: int, item: Item, wanted: list[NameReference]) -> None:
        names = {(one.directory, one.name) for one in wanted}
        before = self.tree.get(*item.key)
        for reference in list(_names(before)) if before is not None else ():
            if (reference.directory, reference.name) not in names:
                self._unlink(reference.directory, reference.name, number)

    def _logged(self, number: int) -> Iterator[NameReference]:
        for item in self._log.get(number, {}).values():
            if item.key.kind in _REFERENCES:
                yield from _names(item)

    def _references(self, number: int) -> Iterator[NameReference]:
        low, high = Key(number, ItemKind.INODE_REF, 0), Key(number, ItemKind.INODE_EXTREF, MAX_OFFSET)
        for item in self.tree.items(low, high):
            for name in _names(item):
                self._steps += 1
                if self._steps > _MAX_STEPS:
                    raise LimitExceeded("a log tree that takes too long to replay")
                yield name

    def _named(self, directory: int, name: bytes) -> tuple[int, DirectoryEntry] | None:
        """Position and entry of a name in a directory."""
        item = self.tree.get(directory, ItemKind.DIR_ITEM, _hash(name))
        found = [one for one in _entries(item) if one.name == name] if item is not None else []
        if not found:
            return None
        for reference in self._references(found[0].objectid):
            if (reference.directory, reference.name) == (directory, name):
                return reference.index, found[0]
        return -1, found[0]

    def _indexed(self, directory: int, index: int) -> DirectoryEntry | None:
        item = self.tree.get(directory, ItemKind.DIR_INDEX, index)
        return next(_entries(item), None) if item is not None else None

    def _link(self, directory: int, index: int, name: bytes, number: int) -> None:
        """Give an inode a name."""
        inode = self.tree.get(number, ItemKind.INODE, 0)
        if inode is None:
            return
        kind = _FILE_TYPES.get(stat.S_IFMT(_inode(inode).mode), 0)
        transaction = int.from_bytes(inode.data[8:16], "little")
        entry = struct.pack("<QBQQHHB", number, ItemKind.INODE, 0, transaction, 0, len(name), kind) + name
        self.tree.put(inode._replace(key=Key(directory, ItemKind.DIR_INDEX, index), data=entry))
        self._append(Key(directory, ItemKind.DIR_ITEM, _hash(name)), entry, inode)
        reference = struct.pack("<QH", index, len(name)) + name
        self._append(Key(number, ItemKind.INODE_REF, directory), reference, inode)
        self._touched.add(number)

    def _append(self, key: Key, data: bytes, where: Item) -> None:
        before = self.tree.get(*key)
        self.tree.put(where._replace(key=key, data=(before.data if before is not None else b"") + data))

    def _unlink(self, directory: int, name: bytes, number: int) -> None:
        """Take a name from an inode."""
        indexes = set()
        low, high = Key(number, ItemKind.INODE_REF, 0), Key(number, ItemKind.INODE_EXTREF, MAX_OFFSET)
        for item in list(self.tree.items(low, high)):
            names = list(_names(item))
            gone = [one for one in names if (one.directory, one.name) == (directory, name)]
            if not gone:
                continue
            indexes |= {one.index for one in gone}
            left = [one for one in names if one not in gone]
            self._put_or_remove(item, b"".join(_reference(item.key.kind, one) for one in left))
        for index in indexes:
            item_ = self.tree.get(directory, ItemKind.DIR_INDEX, index)
            if item_ is not None and any(one.name == name for one in _entries(item_)):
                self.tree.remove(item_.key)
        by_hash = self.tree.get(directory, ItemKind.DIR_ITEM, _hash(name))
        if by_hash is not None:
            left_ = [one for one in _entries(by_hash) if one.name != name]
            self._put_or_remove(by_hash, b"".join(map(_entry, left_)))
        self._touched.add(number)

    def _put_or_remove(self, item: Item, data: bytes) -> None:
        if data:
            self.tree.put(item._replace(data=data))
        else:
            self.tree.remove(item.key)

    # Extents ---------------------------------------------------------------------------------------------------------

    def _put_extents(self, number: int) -> None:
        """The extents that an inode's log has, in place of what was there."""
        items = [item for item in self._log[number].values() if item.key.kind == ItemKind.EXTENT_DATA]
        ranges = []
        for item in items:
            with located(item):
                extent = parse_extent(item.data)
            length = extent.length
            if extent.kind is ExtentKind.INLINE:
                length += -length % self._sector
            ranges.append((item.key.offset, item.key.offset + length))
        if ranges:
            self._drop(number, ranges)
        for item in items:
            self.tree.put(item)

    def _extents(self, number: int) -> list[tuple[Item, FileExtent]]:
        low, high = Key(number, ItemKind.EXTENT_DATA, 0), Key(number, ItemKind.EXTENT_DATA, MAX_OFFSET)
        found = []
        for item in self.tree.items(low, high):
            with located(item):
                found.append((item, parse_extent(item.data)))
        return found

    def _drop(self, number: int, ranges: list[tuple[int, int]]) -> None:
        """Take ranges of a file's extents away; they are ascending."""
        starts = [start for start, _ in ranges]
        for item, extent in self._extents(number):
            begin = item.key.offset
            stop = begin + extent.length
            index = max(0, bisect_right(starts, begin) - 1)
            left, position = [], begin
            while index < len(ranges) and ranges[index][0] < stop:
                start, end = ranges[index]
                if start > position:
                    left.append((position, start))
                position = max(position, end)
                index += 1
            if position < stop:
                left.append((position, stop))
            if left == [(begin, stop)]:
                continue
            self.tree.remove(item.key)
            for first, last in left if extent.kind is not ExtentKind.INLINE else ():
                data = _part(item.data, extent, first - begin, last - first)
                self.tree.put(item._replace(key=item.key._replace(offset=first), data=data))


def _inode(item: Item) -> InodeItem:
    with located(item):
        return parse_inode(item.data)


def _entries(item: Item) -> Iterator[DirectoryEntry]:
    with located(item):
        yield from parse_directory(item.data)


def _names(item: Item) -> Iterator[NameReference]:
    with located(item):
        if item.key.kind == ItemKind.INODE_REF:
            yield from parse_references(item.key.offset, item.data)
        elif item.key.kind == ItemKind.INODE_EXTREF:
            yield from parse_extended_references(item.data)


def _reference(kind: int, one: NameReference) -> bytes:
    if kind == ItemKind.INODE_REF:
        return struct.pack("<QH", one.index, len(one.name)) + one.name
    return struct.pack("<QQH", one.directory, one.index, len(one.name)) + one.name


def _entry(one: DirectoryEntry) -> bytes:
    head = (one.objectid, one.kind, 0, one.transaction, len(one.value), len(one.name), one.file_type)
    return struct.pack("<QBQQHHB", *head) + one.name + one.value


def _hash(name: bytes) -> int:
    """What names are sorted by: CRC-32C of another start and without the final inversion."""
    return crc32c(name, 1) ^ 0xFFFFFFFF


def _with(item: Item, at: int, value: int, size: int = 8) -> Item:
    """An item with another number in it."""
    return item._replace(data=item.data[:at] + value.to_bytes(size, "little") + item.data[at + size :])


def _part(data: bytes, extent: FileExtent, offset: int, length: int) -> bytes:
    """The item of a part of an extent's run."""
    return data[:37] + struct.pack("<QQ", extent.offset + offset, length) + data[53:]
