"""The blocks of btrfs trees, and searching them.

Every kind of metadata lies in the same kind of tree: items that are sorted by a key of three numbers. Format: Linux
``include/uapi/linux/btrfs_tree.h`` (struct btrfs_header, btrfs_item, btrfs_key_ptr).
"""

from __future__ import annotations

import struct
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

from forensics_lib.errors import DamagedData
from forensics_lib.formats.btrfs_checksum import CHECKSUMS
from forensics_lib.formats.btrfs_chunks import ChunkMap
from forensics_lib.formats.btrfs_super import BtrfsSuperblock
from forensics_lib.model import ProblemLog
from forensics_lib.sources.base import Source

__all__ = ["MAX_OFFSET", "BTree", "BtrfsNode", "Item", "Key", "NodeReader", "located"]

MAX_OFFSET = (1 << 64) - 1
_HEADER = struct.Struct("<32s16sQQ16sQQIB")
_ITEM = struct.Struct("<QBQII")
_POINTER = struct.Struct("<QBQQQ")
_MAX_LEVEL = 7
_KEPT_NODES = 256


class Key(NamedTuple):
    """What items are sorted by.

    Attributes:
        objectid: whom the item belongs to, e.g. an inode number.
        kind: what the item is.
        offset: which of several; its meaning depends on the kind.
    """

    objectid: int
    kind: int
    offset: int


class Item(NamedTuple):
    """One item of a tree, and where its bytes lie.

    Attributes:
        key: what it is sorted by.
        data: its bytes.
        device: the device it was read from.
        at: offset of the bytes on that device.
    """

    key: Key
    data: bytes
    device: Source
    at: int


class BtrfsNode:
    """One block of a tree.

    Args:
        data: the whole block.
        device: where it was read.
        at: offset on that device.

    Attributes:
        fsid: the UUID of the file system it was written for.
        logical: the address it was written for.
        generation: the transaction that wrote it.
        owner: the tree it was written for.
        level: 0 for a leaf.
        keys: of the items, or the first ones of the children.
        places: (offset in `data`, size) of each item of a leaf.
        children: (logical address, generation) of each child of an inner block.

    Raises:
        DamagedData: it contradicts itself.
    """

    __slots__ = (
        "at",
        "children",
        "data",
        "device",
        "fsid",
        "generation",
        "keys",
        "level",
        "logical",
        "owner",
        "places",
    )

    def __init__(self, data: bytes, device: Source, at: int) -> None:
        """Read the header and the keys."""
        self.data = data
        self.device = device
        self.at = at
        if len(data) < _HEADER.size:
            raise self._damaged("is cut off")
        _sum, self.fsid, self.logical, _flags, _chunks, self.generation, self.owner, count, self.level = (
            _HEADER.unpack_from(data)
        )
        self.keys: list[tuple[int, int, int]] = []
        self.places: list[tuple[int, int]] = []
        self.children: list[tuple[int, int]] = []
        row = _POINTER if self.level else _ITEM
        end = _HEADER.size + count * row.size
        if end > len(data) or self.level > _MAX_LEVEL:
            raise self._damaged("is no tree block")
        rows = row.iter_unpack(data[_HEADER.size : end])
        if self.level:
            for objectid, kind, offset, child, generation in rows:
                self.keys.append((objectid, kind, offset))
                self.children.append((child, generation))
        else:
            room = len(data) - _HEADER.size
            for objectid, kind, offset, start, size in rows:
                if start + size > room or start < end - _HEADER.size:
                    raise self._damaged("has an item outside of itself")
                self.keys.append((objectid, kind, offset))
                self.places.append((_HEADER.size + start, size))
        if any(first >= second for first, second in pairwise(self.keys)):
            raise self._damaged("has keys out of order")

    def item(self, index: int) -> Item:
        """An item of a leaf."""
        start, size = self.places[index]
        return Item(Key(*self.keys[index]), self.data[start : start + size], self.device, self.at + start)

    def _damaged(self, what: str) -> DamagedData:
        return DamagedData(f"tree block {what}", origin=self.device.origin, offset=self.at)


class NodeReader:
    """Reads tree blocks by logical address; every copy is tried until one is right.

    Args:
        superblock: tells sizes and the checksum.
        chunks: where addresses lie.
        problems: gets copies that are damaged, while another one is not.

    Attributes:
        fsids: the UUIDs that tree blocks may carry: of the file system, and of those that it grew from.
    """

    def __init__(self, superblock: BtrfsSuperblock, chunks: ChunkMap, problems: ProblemLog) -> None:
        """Begin with nothing kept."""
        self.fsids = {superblock.metadata_fsid}
        self._superblock = superblock
        self._chunks = chunks
        self._problems = problems
        self._kept: dict[int, BtrfsNode] = {}
        self._lock = threading.Lock()

    def read(self, logical: int, level: int, generation: int) -> BtrfsNode:
        """The block at an address.

        Args:
            logical: the address.
            level: the height that it must have.
            generation: the transaction that must have written it.

        Raises:
            DamagedData: no copy of it can be read, or none is the block that should be there.
        """
        with self._lock:
            node = self._kept.pop(logical, None)
            if node is not None:
                self._kept[logical] = node
        if node is not None and (node.level, node.generation) == (level, generation):
            return node
        node = self._read(logical, level, generation)
        with self._lock:
            self._kept[logical] = node
            if len(self._kept) > _KEPT_NODES:
                del self._kept[next(iter(self._kept))]
        return node

    def _read(self, logical: int, level: int, generation: int) -> BtrfsNode:
        errors: list[DamagedData] = []
        for mirror in range(self._chunks.chunk(logical).copies):
            try:
                node = self._copy(logical, mirror)
                if (node.level, node.generation) != (level, generation):
                    message = (
                        f"tree block {logical} is of level {node.level} and generation {node.generation},"
                        f" not {level} and {generation}"
                    )
                    raise DamagedData(message, origin=node.device.origin, offset=node.at)
            except DamagedData as error:
                errors.append(error)
                continue
            for damage in errors:
                self._problems.add(self._chunks.origin, damage)
            return node
        raise errors[0]

    def _copy(self, logical: int, mirror: int) -> BtrfsNode:
        data = self._chunks.read_copy(logical, self._superblock.node_size, mirror)
        piece = next(self._chunks.pieces(logical, 1, mirror))
        if piece.device not in self._chunks.devices:  # parity told it: the place of the first other one of its row
            chunk = self._chunks.chunk(logical)
            row = chunk.row(logical - chunk.start, 1)
            piece = next(one for one in row.data + row.parity if one.device in self._chunks.devices)
        device, at = self._chunks.devices[piece.device], piece.offset
        if not data.startswith(CHECKSUMS[self._superblock.checksum_kind](data[32:])):
            raise DamagedData(f"tree block {logical} has a wrong checksum", origin=device.origin, offset=at)
        node = BtrfsNode(data, device, at)
        if node.logical != logical or node.fsid not in self.fsids:
            raise DamagedData(f"tree block {logical} belongs elsewhere", origin=device.origin, offset=at)
        return node


class BTree:
    """One tree.

    A block may not hold a key outside of the range that its parent gives it; with that no hostile tree can lead in a
    circle, or to the same block twice.

    Args:
        nodes: reads the blocks.
        root: logical address of the topmost block.
        level: its height.
        generation: the transaction that wrote it.
    """

    def __init__(self, nodes: NodeReader, root: int, level: int, generation: int) -> None:
        """Remember the root; nothing is read yet."""
        self._nodes = nodes
        self._root = (root, level, generation)
        self._leaf: BtrfsNode | None = None  # the last one

    def get(self, objectid: int, kind: int, offset: int) -> Item | None:
        """The item of a key.

        Raises:
            DamagedData: a block on the way to it cannot be read.
        """
        key = Key(objectid, kind, offset)
        return next(self.items(key, key), None)

    def items(self, low: Key, high: Key, on_damage: Callable[[DamagedData], None] | None = None) -> Iterator[Item]:
        """The items of a range of keys, both ends included, in order.

        Args:
            low: first key.
            high: last key.
            on_damage: told of blocks that cannot be read, which are then passed over.

        Raises:
            DamagedData: a block cannot be read, and there is no `on_damage`.
        """
        leaf = self._leaf
        if leaf is not None and leaf.keys[0] <= low and high <= leaf.keys[-1]:  # as mostly when one walks
            for index in range(bisect_left(leaf.keys, low), bisect_right(leaf.keys, high)):
                yield leaf.item(index)
        else:
            yield from self._below(*self._root, None, None, (low, high), on_damage)

    def _below(
        self,
        logical: int,
        level: int,
        generation: int,
        first: tuple[int, int, int] | None,
        bound: tuple[int, int, int] | None,
        wanted: tuple[Key, Key],
        on_damage: Callable[[DamagedData], None] | None,
    ) -> Iterator[Item]:
        """Items of a block whose first key must be `first`, and whose last one must be below `bound`."""
        try:
            node = self._nodes.read(logical, level, generation)
            keys = node.keys
            if (first is not None and (not keys or keys[0] != first)) or (bound is not None and keys[-1] >= bound):
                message = f"tree block {logical} has other keys than its parent says"
                raise DamagedData(message, origin=node.device.origin, offset=node.at)
        except DamagedData as error:
            if on_damage is None:
                raise
            on_damage(error)
            return
        low, high = wanted
        stop = bisect_right(keys, high)
        if not level:
            self._leaf = node if keys else None
            for index in range(bisect_left(keys, low), stop):
                yield node.item(index)
            return
        for index in range(max(0, bisect_right(keys, low) - 1), stop):
            child, written = node.children[index]
            following = keys[index + 1] if index + 1 < len(keys) else bound
            yield from self._below(child, level - 1, written, keys[index], following, wanted, on_damage)


class located:
    """Gives damage that is found inside an item its place.

    Args:
        item: the one.
    """

    __slots__ = ("_item",)

    def __init__(self, item: Item) -> None:
        """Nothing is found yet."""
        self._item = item

    def __enter__(self) -> None:
        """Begin to look inside."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        """End, with the place in the damage."""
        if isinstance(error, DamagedData):
            raise DamagedData(str(error), origin=self._item.device.origin, offset=self._item.at) from error
