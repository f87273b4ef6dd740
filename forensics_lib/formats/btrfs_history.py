"""Tree blocks of a btrfs file system that its newest trees no longer use, and how long each was used.

btrfs never writes a block in place: each transaction writes the blocks that it changes anew, and what they were lies
where it lay until something else is written there. A block tells itself what it is: the file system, its address, the
transaction that wrote it, the tree it was written for, and a checksum of all that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from forensics_lib.errors import DamagedData, LimitExceeded
from forensics_lib.formats.btrfs import BtrfsVolume
from forensics_lib.formats.btrfs_checksum import CHECKSUMS
from forensics_lib.formats.btrfs_items import ItemKind, parse_root
from forensics_lib.formats.btrfs_node import BtrfsNode, Key
from forensics_lib.model import ProblemLog, Progress
from forensics_lib.sources.base import Source

__all__ = ["LOG_TREE", "NOW", "ROOT_TREE", "FoundNode", "NodeHistory"]

NOW = 1 << 62
"""The file system as it is, later than every transaction."""
ROOT_TREE, LOG_TREE = 1, (1 << 64) - 6
_CHUNK_TREE = 3
_WINDOW = 4 << 20
_FSID_AT = 32
_MAX_NODES = 1 << 19
_LAST_KIND = 255
_MOST_PARENTS = 64
_DEEPEST = 8
_Address = tuple[int, int]


@dataclass(slots=True)
class FoundNode:
    """A tree block that was found.

    Attributes:
        logical: the address it was written for.
        generation: the transaction that wrote it.
        owner: the tree it was written for; a snapshot uses blocks of the tree that it is a snapshot of.
        level: 0 for a leaf.
        device: where it lies.
        at: offset on that device.
        first: its first key; None for an empty one.
        last: its last key.
        children: address and transaction of each child, for an inner block.
        starts: the first key of each child.
        until: the last transaction that is known to have used it; `NOW` when the newest trees do.
    """

    logical: int
    generation: int
    owner: int
    level: int
    device: Source
    at: int
    first: Key | None
    last: Key | None
    children: tuple[_Address, ...]
    starts: tuple[Key, ...]
    until: int

    @property
    def address(self) -> _Address:
        """What its parent calls it: address and transaction."""
        return self.logical, self.generation


class NodeHistory:
    """All tree blocks of all transactions that are still there.

    Args:
        volume: the file system.
        ranges: (device, offset, length) of what is searched.
        problems: gets what cannot be read, and that there are more blocks than are looked at.
        progress: called with the bytes that were searched.

    Attributes:
        nodes: by address and transaction.
        live_roots: address and transaction of the root of each tree that is in use, by its number.
        roots: those of all trees of all times.
        log_trees: the subvolume that a block of a log tree belongs to, by the block's address and transaction.
    """

    def __init__(
        self,
        volume: BtrfsVolume,
        ranges: Iterable[tuple[int, int, int]],
        problems: ProblemLog,
        progress: Progress | None = None,
    ) -> None:
        """Search, and find out which blocks were used how long."""
        self._volume = volume
        self._problems = problems
        self.nodes: dict[_Address, FoundNode] = {}
        self.live_roots: dict[int, _Address] = {}
        self.log_trees: dict[_Address, int] = {}
        self.roots: set[_Address] = set()
        self._parents: dict[_Address, list[_Address]] = {}
        self._search(list(ranges), progress)
        self._mark_present()
        self._mark_past()

    def read(self, node: FoundNode) -> BtrfsNode:
        """The block itself.

        Raises:
            DamagedData: it cannot be read any more.
        """
        return BtrfsNode(node.device.read_at(node.at, self._volume.superblock.node_size), node.device, node.at)

    def leaves(self, owner: int) -> list[FoundNode]:
        """The leaves of a tree, oldest first."""
        found = [node for node in self.nodes.values() if node.owner == owner and not node.level]
        return sorted(found, key=lambda node: (node.generation, node.logical))

    def gaps(self, owner: int) -> Iterator[tuple[int, int, int]]:
        """(transaction, first, last) of each range of objects that a tree had none of, oldest first.

        A leaf reaches up to the next one, whatever its last key is.
        """
        above = [node for node in self.nodes.values() if node.owner == owner and node.level <= 1]
        for node in sorted(above, key=lambda node: node.generation):
            end = (1 << 64) if node.address in self.roots else 0
            if not node.level:
                yield node.generation, node.last.objectid + 1 if node.last else 0, end - 1
                continue
            ends = [start.objectid for start in node.starts[1:]] + [end]
            for address, stop in zip(node.children, ends, strict=True):
                child = self.nodes.get(address)
                if child is not None and child.last is not None and not child.level:
                    yield node.generation, child.last.objectid + 1, stop - 1

    def owners(self) -> set[int]:
        """Numbers of the trees that leaves were found of."""
        return {node.owner for node in self.nodes.values() if not node.level}

    def following(self, node: FoundNode) -> Iterator[FoundNode]:
        """The leaves that can have come directly after a leaf, the likeliest first, as far as blocks above it tell."""
        seen = set()
        for address in self._following(node.address, 0):
            found = self.nodes.get(address)
            if found is not None and not found.level and address not in seen:
                seen.add(address)
                yield found

    def _following(self, address: _Address, depth: int) -> Iterator[_Address]:
        for above in self._parents.get(address, ())[:_MOST_PARENTS]:
            parent = self.nodes[above]
            index = parent.children.index(address) + 1
            if index < len(parent.children):
                yield self._leftmost(parent.children[index])
            elif depth < _DEEPEST:
                yield from self._following(above, depth + 1)

    def _leftmost(self, address: _Address) -> _Address:
        for _ in range(_DEEPEST):
            node = self.nodes.get(address)
            if node is None or not node.children:
                break
            address = node.children[0]
        return address

    def _search(self, ranges: list[tuple[int, int, int]], progress: Progress | None) -> None:
        step, total, done = self._volume.superblock.sector_size, sum(length for _, _, length in ranges), 0
        fsid = self._volume.superblock.metadata_fsid
        for number, start, length in ranges:
            device = self._volume.chunks.devices[number]
            start, end = start - start % step, start + length
            for offset in range(start, end, _WINDOW):
                size = min(_WINDOW, end - offset)
                try:
                    data = device.read_at(offset, size)
                except DamagedData as error:
                    self._problems.add(device.origin, error)
                    data = b""
                firsts = data[_FSID_AT::step]  # of what would be the identifier's place
                index = firsts.find(fsid[:1])
                while index >= 0:
                    at = index * step
                    if data.startswith(fsid, at + _FSID_AT):
                        self._note(device, offset + at, data[at : at + self._volume.superblock.node_size])
                    index = firsts.find(fsid[:1], index + 1)
                if len(self.nodes) >= _MAX_NODES:
                    message = f"more than {_MAX_NODES} tree blocks; what lies behind them is not looked at"
                    self._problems.add(device.origin.to("tree blocks", offset), LimitExceeded(message))
                    return
                done += size
                if progress is not None:
                    progress(done, total)

    def _note(self, device: Source, at: int, data: bytes) -> None:
        """Keep what may be a tree block, if it is one and no copy of it was kept."""
        superblock = self._volume.superblock
        address = (int.from_bytes(data[48:56], "little"), int.from_bytes(data[80:88], "little"))
        if address in self.nodes or not 0 < address[1] <= superblock.generation + 1:
            return
        try:
            if len(data) < superblock.node_size:
                data = device.read_at(at, superblock.node_size)
            if not data.startswith(CHECKSUMS[superblock.checksum_kind](data[_FSID_AT:])):
                return
            node = BtrfsNode(data, device, at)
        except DamagedData:
            return
        first, last = (Key(*node.keys[0]), Key(*node.keys[-1])) if node.keys else (None, None)
        children = tuple(node.children)
        starts = tuple(Key(*key) for key in node.keys) if node.level else ()
        self.nodes[address] = FoundNode(
            *address, node.owner, node.level, device, at, first, last, children, starts, node.generation
        )

    def _mark_present(self) -> None:
        """Mark the blocks of the trees that are in use; those of deleted subvolumes are not."""
        roots = self._volume.superblock.roots
        waiting = [(roots.root, roots.generation), (roots.chunk_root, roots.chunk_root_generation)]
        self.live_roots[ROOT_TREE], self.live_roots[_CHUNK_TREE] = waiting
        low, high = Key(0, ItemKind.ROOT, 0), Key((1 << 64) - 1, _LAST_KIND, (1 << 64) - 1)
        for item in self._volume.root_tree.items(low, high, lambda error: None):  # noted when it was opened
            if item.key.kind != ItemKind.ROOT:
                continue
            try:
                root = parse_root(item.data)
            except DamagedData:
                continue
            if root.references and not root.dead:
                waiting.append((root.logical, root.generation))
                self.live_roots[item.key.objectid] = waiting[-1]
        self.roots.update(waiting)
        self._spread(dict.fromkeys(waiting, NOW))

    def _mark_past(self) -> None:
        """A block was used as long as one above it is known to be, a root as long as an item of a root tree."""
        known: dict[_Address, int] = {}
        for node in self.nodes.values():
            for child in node.children:
                self._parents.setdefault(child, []).append(node.address)
        self._spread({})
        for node in list(self.nodes.values()):
            if node.level or node.owner not in (ROOT_TREE, LOG_TREE):
                continue
            for number, address in self._roots_in(node):
                if node.owner == LOG_TREE:
                    self.log_trees[address] = number
                else:
                    known[address] = max(known.get(address, 0), node.until)
        self.roots.update(known)
        self._spread(known)
        waiting = list(self.log_trees)
        while waiting:
            address = waiting.pop()
            found = self.nodes.get(address)
            for child in found.children if found is not None else ():
                if child not in self.log_trees:
                    self.log_trees[child] = self.log_trees[address]
                    waiting.append(child)

    def _roots_in(self, node: FoundNode) -> Iterator[tuple[int, _Address]]:
        """Number and address of each root that a leaf names."""
        try:
            block = self.read(node)
            for index, (objectid, kind, offset) in enumerate(block.keys):
                if kind == ItemKind.ROOT:
                    root = parse_root(block.item(index).data)
                    number = offset if node.owner == LOG_TREE else objectid
                    if root.references or node.owner == LOG_TREE:
                        yield number, (root.logical, root.generation)
        except DamagedData as error:
            self._problems.add(node.device.origin, error)

    def _spread(self, known: dict[_Address, int]) -> None:
        """Note until when blocks were used, and with them those below them."""
        for address, until in known.items():
            if (node := self.nodes.get(address)) is not None:
                node.until = max(node.until, until)
        inner = sorted((node for node in self.nodes.values() if node.level), key=lambda node: -node.level)
        for node in inner:  # from the top down, whatever they say of each other
            for address in node.children:
                child = self.nodes.get(address)
                if child is not None and child.level == node.level - 1:
                    child.until = max(child.until, node.until)
