"""Thin volumes of the device mapper, as LVM2 and Docker's devicemapper driver make them.

Format: drivers/md/dm-thin-metadata.c and drivers/md/persistent-data of Linux.
"""

from __future__ import annotations

import bisect
from struct import Struct

from forensics_lib._crc32c import crc32c
from forensics_lib.errors import DamagedData, LimitExceeded, UnsupportedFormat
from forensics_lib.model import Origin
from forensics_lib.sources._bounds import end_of, read_exactly
from forensics_lib.sources._cache import Cache
from forensics_lib.sources.base import Source

__all__ = ["ThinPool", "ThinSource"]

_SUPERBLOCK = Struct("<IIQ16xQI12xQ256xQQII")
_MAGIC, _VERSIONS = 27022010, (1, 2)
_SUPERBLOCK_SALT, _NODE_SALT = 160774, 121107
_BLOCK = 4096
_NODE = Struct("<IIQIIII")
_INTERNAL, _LEAF = 1, 2
_MAX_DEPTH = 20
_CACHE = 16 << 20
_TIME_BITS = 24
_SECTOR = 512


class ThinPool:
    """The store that thin volumes share.

    Args:
        metadata: the device that tells where blocks are.
        data: the device that has them.
        origin: of the pool.

    Attributes:
        block: bytes of a block.

    Raises:
        DamagedData: the superblock contradicts the format.
        UnsupportedFormat: of another version.
    """

    def __init__(self, metadata: Source, data: Source, origin: Origin) -> None:
        """Read the superblock."""
        self.metadata = metadata
        self.data = data
        self.origin = origin
        head = read_exactly(metadata, 0, _BLOCK, "the superblock of a thin pool")
        checksum, _, place, magic, version, _, root, _, sectors, size = _SUPERBLOCK.unpack_from(head)
        if magic != _MAGIC or place:
            raise DamagedData("the metadata of the thin pool have no superblock", origin=metadata.origin)
        if _checksum(head, _SUPERBLOCK_SALT) != checksum:
            raise DamagedData("the checksum of the superblock of the thin pool is wrong", origin=metadata.origin)
        if version not in _VERSIONS or size * _SECTOR != _BLOCK or not sectors:
            raise UnsupportedFormat(f"a thin pool of version {version}, with blocks of {sectors} sectors, is not read")
        self.block = sectors * _SECTOR
        self._root = root
        self._nodes: Cache[int, _Node] = Cache(_CACHE)

    def volume(self, device: int, size: int, origin: Origin, below: Source | None = None) -> ThinSource:
        """A thin volume.

        Args:
            device: its number in the pool.
            size: bytes, which the pool itself does not know.
            origin: of the volume.
            below: a volume outside the pool that shows where nothing was written.

        Raises:
            DamagedData: the pool has no such volume, or is damaged.
        """
        node = self._leaf(self._root, device)
        index = bisect.bisect_left(node.keys, device)
        if index == len(node.keys) or node.keys[index] != device:
            raise DamagedData(f"the thin pool has no volume {device}", origin=self.metadata.origin)
        return ThinSource(self, node.values[index], size, origin, below)

    def find(self, root: int, block: int) -> tuple[int | None, int]:
        """Where a block of a volume lies in the data, None for a hole; and the number of the block to ask for next.

        Raises:
            DamagedData: a node of the tree is damaged.
        """
        node = self._leaf(root, block)
        index = bisect.bisect_left(node.keys, block)
        if index == len(node.keys):
            return None, max(node.end, block + 1)
        if node.keys[index] > block:
            return None, node.keys[index]
        return node.values[index] >> _TIME_BITS, block + 1

    def _leaf(self, place: int, key: int) -> _Node:
        end = 1 << 64
        for _ in range(_MAX_DEPTH):
            node = self._node(place)
            if node.is_leaf:
                return node if end == node.end else _Node(node.keys, node.values, True, end)
            index = max(0, bisect.bisect_right(node.keys, key) - 1)
            if index + 1 < len(node.keys):
                end = min(end, node.keys[index + 1])
            place = node.values[index]
        raise LimitExceeded("a tree of the thin pool is too deep", origin=self.metadata.origin)

    def _node(self, place: int) -> _Node:
        known = self._nodes.get(place)
        if known is not None:
            return known
        data = read_exactly(self.metadata, place * _BLOCK, _BLOCK, "a node of the thin pool")
        checksum, flags, own, count, most, size, _ = _NODE.unpack_from(data)
        if own != place or _checksum(data, _NODE_SALT) != checksum:
            raise DamagedData("a node of the thin pool is damaged", origin=self.metadata.origin, offset=place * _BLOCK)
        if flags & 3 not in (_INTERNAL, _LEAF) or size != 8 or count > most or most > (_BLOCK - _NODE.size) // 16:
            message = "a node of the thin pool contradicts the format"
            raise DamagedData(message, origin=self.metadata.origin, offset=place * _BLOCK)
        keys = Struct(f"<{count}Q").unpack_from(data, _NODE.size)
        values = Struct(f"<{count}Q").unpack_from(data, _NODE.size + 8 * most)
        if not count and flags & _INTERNAL:
            raise DamagedData("an inner node of the thin pool is empty", origin=self.metadata.origin)
        node = _Node(keys, values, bool(flags & _LEAF), 1 << 64)
        self._nodes.put(place, node)
        return node


class ThinSource(Source):
    """The bytes of a thin volume; blocks that were never written, or discarded, are zeros.

    Args:
        pool: that has the blocks.
        root: of its tree.
        size: bytes.
        origin: of the volume.
        below: shows in place of those zeros.
    """

    def __init__(self, pool: ThinPool, root: int, size: int, origin: Origin, below: Source | None = None) -> None:
        """Serve the volume."""
        self.pool = pool
        self.root = root
        self.size = size
        self.origin = origin
        self.below = below

    @property
    def stored_size(self) -> int:
        """Bytes that the pool can have for it."""
        return min(self.size, self.pool.data.size + (self.below.stored_size if self.below is not None else 0))

    def read_at(self, offset: int, length: int) -> bytes:
        """The bytes at a position; short only at the end.

        Raises:
            DamagedData: the metadata are damaged, or a block lies beyond the end of the data.
        """
        end = end_of(self, offset, length)
        unit = self.pool.block
        pieces = []
        while offset < end:
            block, inside = divmod(offset, unit)
            place, following = self.pool.find(self.root, block)
            if place is None:
                count = min(end, following * unit) - offset
                hole = self.below.read_at(offset, count) if self.below is not None else b""
                pieces.append(hole.ljust(count, b"\0"))
            else:
                count = min(end - offset, unit - inside)
                pieces.append(read_exactly(self.pool.data, place * unit + inside, count, "a block of a thin volume"))
            offset += count
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def close(self) -> None:
        """Close the devices of the pool."""
        self.pool.metadata.close()
        self.pool.data.close()


class _Node:
    """A node of a tree; `end` is the first key that lies behind it."""

    __slots__ = ("end", "is_leaf", "keys", "values")

    def __init__(self, keys: tuple[int, ...], values: tuple[int, ...], is_leaf: bool, end: int) -> None:
        self.keys = keys
        self.values = values
        self.is_leaf = is_leaf
        self.end = end

    def __len__(self) -> int:
        return _BLOCK  # for the cache


def _checksum(block: bytes, salt: int) -> int:
    return crc32c(block[4:]) ^ 0xFFFF_FFFF ^ salt
