"""A btrfs file system: its devices and its trees.

Format: Linux ``include/uapi/linux/btrfs_tree.h``; the btrfs on-disk format documentation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from forensics_lib.errors import DamagedData, ForensicsError, NotFound, UnsupportedFormat
from forensics_lib.formats.btrfs_checksum import CHECKSUMS
from forensics_lib.formats.btrfs_chunks import ChunkMap, parse_chunk
from forensics_lib.formats.btrfs_files import BtrfsFiles
from forensics_lib.formats.btrfs_items import (
    FileExtent,
    ItemKind,
    NameReference,
    RootItem,
    parse_directory,
    parse_extent,
    parse_root,
    parse_root_reference,
)
from forensics_lib.formats.btrfs_log import replay
from forensics_lib.formats.btrfs_node import MAX_OFFSET, BTree, Item, Key, NodeReader, located
from forensics_lib.formats.btrfs_overlay import OverlaidTree
from forensics_lib.formats.btrfs_super import PLACES, BtrfsRoots, BtrfsSuperblock, is_btrfs, read_superblock
from forensics_lib.model import ProblemLog
from forensics_lib.sources.base import Source

__all__ = ["TOP_LEVEL", "BtrfsVolume", "is_btrfs"]

TOP_LEVEL = 5
"""Number of the subvolume that holds all others."""

_FIRST_FREE, _LAST_FREE = 256, (1 << 64) - 256
_CHUNK_OBJECT, _LOG_OBJECT = 256, (1 << 64) - 6
_CHECKSUM_OBJECT, _CHECKSUM_TREE = (1 << 64) - 10, 7
_KEY = 17
_SUPPORTED = 0x10FFF
_FEATURES = {0x1000: "zoned devices", 0x2000: "extent tree v2", 0x4000: "RAID stripe tree"}


class BtrfsVolume:
    """A file system on one or several devices: single, DUP, RAID 0, 1, 10, 1C3, 1C4, 5 and 6.

    After a crash the log tree is replayed in memory. Not supported: zoned devices, extent tree v2, RAID stripe trees.

    Args:
        source: one of the devices.
        problems: gets damage, devices that are missing, and what the replay of the log did.
        devices: the others.
        seeds: devices of other file systems, of which this one may have grown; those that it needs are used.
        replay: whether to replay the log.

    Attributes:
        superblock: the newest of all devices.
        chunks: where logical addresses lie.
        nodes: reads tree blocks.
        root_tree: the tree of all trees.
        replayed: items that were taken from the log.

    Raises:
        DamagedData: no such file system, or neither the current nor an earlier root can be read.
    """

    def __init__(
        self,
        source: Source,
        problems: ProblemLog,
        devices: Iterable[Source] = (),
        *,
        seeds: Iterable[Source] = (),
        replay: bool = True,
    ) -> None:
        """Read the superblocks, the chunk tree and the top of the root tree."""
        self.origin = source.origin
        self._problems = problems
        self._seeds = list(seeds)
        self._seed_fsids: set[bytes] = set()
        self._sources, superblocks = self._assemble(source, devices)
        self.superblock = max(superblocks.values(), key=lambda superblock: superblock.generation)
        newest = self.superblock.generation
        self._stale = {number for number, superblock in superblocks.items() if superblock.generation < newest}
        self._say_what_is_not_shown()
        self.chunks, self.nodes, self.root_tree = self._open()
        used = {stripe.device for chunk in self.chunks.chunks.values() for stripe in chunk.stripes}
        for missing in sorted(used - self._sources.keys()):
            self._damage(f"device {missing} is missing")
        self.replayed = 0
        self._overlaid: dict[int, OverlaidTree] = {}
        if self.superblock.log_root:
            self._read_log(replay)

    def subvolumes(self) -> Iterator[tuple[int, Item]]:
        """Number and root item of the top level and of every subvolume, deleted ones that are still there included."""
        for low, high in ((TOP_LEVEL, TOP_LEVEL), (_FIRST_FREE, _LAST_FREE)):
            keys = Key(low, ItemKind.ROOT, 0), Key(high, ItemKind.ROOT, MAX_OFFSET)
            for item in self.root_tree.items(*keys, self._note):
                if item.key.kind == ItemKind.ROOT:
                    yield item.key.objectid, item

    def root(self, number: int) -> RootItem:
        """The root of a tree or subvolume by its number.

        Raises:
            NotFound: there is none of that number.
            DamagedData: its root item cannot be read.
        """
        item = self._root_item(number)
        if item is None:
            raise NotFound(f"there is no tree or subvolume {number}")
        with located(item):
            return parse_root(item.data)

    def tree(self, number: int) -> BTree:
        """A tree by its number.

        Raises:
            NotFound: there is no such tree.
            DamagedData: its root item cannot be read.
        """
        if (overlaid := self._overlaid.get(number)) is not None:
            return overlaid
        root = self.root(number)
        return BTree(self.nodes, root.logical, root.level, root.generation)

    def files(self, number: int) -> BtrfsFiles:
        """The files of a subvolume by its number.

        Raises:
            NotFound: there is no such subvolume.
            DamagedData: its root item cannot be read.
        """
        origin = self.origin.to(f"subvolume {number}")
        return BtrfsFiles(self.tree(number), self.chunks, self.superblock.sector_size, origin, self._problems)

    def mount(self, number: int) -> tuple[int, NameReference] | None:
        """The subvolume that another one is mounted in, and where; None where it is mounted nowhere.

        Raises:
            DamagedData: that cannot be read.
        """
        low, high = Key(number, ItemKind.ROOT_BACKREF, 0), Key(number, ItemKind.ROOT_BACKREF, MAX_OFFSET)
        item = next(self.root_tree.items(low, high), None)  # Linux writes only one
        if item is None:
            return None
        with located(item):
            return item.key.offset, parse_root_reference(item.data)

    def checked(self, logical: int, length: int) -> Iterator[tuple[int, bool]]:
        """Address of each sector of a range that has a checksum, and whether its bytes agree with it.

        Files that may not be copied on write (``chattr +C``), and preallocated space, have none.

        Raises:
            DamagedData: the checksums or the sectors cannot be read.
        """
        checksum, sector = CHECKSUMS[self.superblock.checksum_kind], self.superblock.sector_size
        size = len(checksum(b""))
        reach = self.superblock.node_size // size * sector  # of one item
        low = Key(_CHECKSUM_OBJECT, ItemKind.EXTENT_CSUM, max(0, logical - reach))
        high = Key(_CHECKSUM_OBJECT, ItemKind.EXTENT_CSUM, logical + length - 1)
        for item in self.tree(_CHECKSUM_TREE).items(low, high):
            first = max(0, logical - item.key.offset) // sector
            for index in range(first, len(item.data) // size):
                address = item.key.offset + index * sector
                if address >= logical + length:
                    break
                wanted = item.data[index * size : (index + 1) * size]
                yield address, checksum(self.chunks.read(address, sector)) == wanted

    def logged(self) -> Iterator[FileExtent]:
        """The extents of files that were taken from the log; the extent tree does not have them.

        Raises:
            DamagedData: one contradicts itself.
        """
        for tree in self._overlaid.values():
            for key, item in tree.changes.items():
                if key.kind == ItemKind.EXTENT_DATA and item is not None:
                    yield parse_extent(item.data)

    @property
    def default_subvolume(self) -> int:
        """Number of the subvolume that is mounted unless another one is asked for."""
        directory = self.superblock.root_directory
        low, high = Key(directory, ItemKind.DIR_ITEM, 0), Key(directory, ItemKind.DIR_ITEM, MAX_OFFSET)
        for item in self.root_tree.items(low, high, self._note):
            try:
                with located(item):
                    for entry in parse_directory(item.data):
                        if entry.name == b"default" and entry.kind == ItemKind.ROOT:
                            return entry.objectid
            except DamagedData as error:
                self._note(error)
        return TOP_LEVEL

    def _assemble(
        self, source: Source, others: Iterable[Source]
    ) -> tuple[dict[int, Source], dict[int, BtrfsSuperblock]]:
        """The devices and their superblocks, by number."""
        first = read_superblock(source)
        devices, superblocks = {first.device_id: source}, {first.device_id: first}
        for device in (source, *others):
            try:
                superblock = read_superblock(device)
            except DamagedData as error:
                self._problems.add(device.origin, error)
                continue
            if superblock.offset != PLACES[0]:
                message = f"the first superblock is damaged; the copy at {superblock.offset} was used"
                self._problems.add(device.origin, message)
            if superblock.fsid != first.fsid:
                self._problems.add(device.origin, f"belongs to another btrfs file system: {superblock.uuid}")
            elif devices.setdefault(superblock.device_id, device) is not device:
                self._problems.add(device.origin, f"is device {superblock.device_id}, which was given already")
            else:
                superblocks[superblock.device_id] = superblock
        return devices, superblocks

    def _say_what_is_not_shown(self) -> None:
        superblock = self.superblock
        for number in sorted(self._stale):
            self._damage(f"device {number} missed the last transactions; it is read only where there is no other copy")
        unknown = superblock.incompat & ~_SUPPORTED
        for bit in (1 << index for index in range(64) if unknown >> index & 1):
            name = _FEATURES.get(bit, f"feature {bit:#x}")
            message = f"{name} is not supported; what depends on it cannot be read"
            self._problems.add(self.origin, UnsupportedFormat(message))

    def _open(self) -> tuple[ChunkMap, NodeReader, BTree]:
        """The chunk map and the root tree; those of an earlier transaction where the current ones are damaged."""
        failure: DamagedData | None = None
        for roots in (self.superblock.roots, *self.superblock.backups):
            try:
                opened = self._open_at(roots)
            except DamagedData as error:
                failure = failure or error
                continue
            if failure is not None:
                self._problems.add(self.origin, failure)
                self._damage(f"the newest roots are damaged; those of transaction {roots.generation} are shown")
            return opened
        raise failure or self._damaged("no root tree")

    def _open_at(self, roots: BtrfsRoots) -> tuple[ChunkMap, NodeReader, BTree]:
        chunks = ChunkMap(self._sources, self.origin, self._stale)
        nodes = NodeReader(self.superblock, chunks, self._problems)
        for start, data in _system_chunks(self.superblock.system_chunks):
            chunks.add(parse_chunk(start, data)[0])
        self._take_seeds(chunks)
        nodes.fsids |= self._seed_fsids
        tree = BTree(nodes, roots.chunk_root, roots.chunk_root_level, roots.chunk_root_generation)
        nodes.read(roots.chunk_root, roots.chunk_root_level, roots.chunk_root_generation)
        low, high = Key(_CHUNK_OBJECT, ItemKind.CHUNK, 0), Key(_CHUNK_OBJECT, ItemKind.CHUNK, MAX_OFFSET)
        for item in tree.items(low, high, self._note):
            try:
                with located(item):
                    chunks.add(parse_chunk(item.key.offset, item.data)[0])
            except DamagedData as error:
                self._note(error)
        self._take_seeds(chunks)
        nodes.fsids |= self._seed_fsids
        nodes.read(roots.root, roots.root_level, roots.generation)
        return chunks, nodes, BTree(nodes, roots.root, roots.root_level, roots.generation)

    def _take_seeds(self, chunks: ChunkMap) -> None:
        """Use those seeds that chunks lie on; their tree blocks carry the number of their own file system."""
        needed = {
            stripe.device_uuid: stripe.device
            for chunk in chunks.chunks.values()
            for stripe in chunk.stripes
            if stripe.device not in self._sources
        }
        for seed in self._seeds if needed else ():
            try:
                superblock = read_superblock(seed)
            except DamagedData:
                continue  # is told where that file system is opened
            number = needed.get(superblock.device_uuid)
            if number is not None:
                self._sources[number] = seed
                self._seed_fsids.add(superblock.metadata_fsid)

    def _read_log(self, replay_it: bool) -> None:
        """Lay the logs over their subvolumes; one that cannot be read is left out whole."""
        if not replay_it:
            self._damage("the log tree is not replayed: what was synced after the last transaction is not shown")
            return
        superblock = self.superblock
        log = BTree(self.nodes, superblock.log_root, superblock.log_root_level, superblock.generation + 1)
        low, high = Key(_LOG_OBJECT, ItemKind.ROOT, 0), Key(_LOG_OBJECT, ItemKind.ROOT, MAX_OFFSET)
        checksums: list[Item] = []
        for item in log.items(low, high, self._note_log):
            number = item.key.offset
            try:
                with located(item):
                    root = parse_root(item.data)
                own = BTree(self.nodes, root.logical, root.level, root.generation)
                self._overlaid[number], more = replay(own, self.tree(number), superblock.sector_size)
            except (DamagedData, NotFound) as error:
                self._note_log(error)
                continue
            self.replayed += len(self._overlaid[number].changes)
            checksums += more
        count = len(self._overlaid)
        if checksums:
            try:
                overlaid = OverlaidTree(self.tree(_CHECKSUM_TREE))
            except (DamagedData, NotFound) as error:
                self._note_log(error)
                return
            for item in checksums:
                overlaid.put(item)
            self._overlaid[_CHECKSUM_TREE] = overlaid
        self._damage(f"the log tree was replayed in memory: {self.replayed} items of {count} subvolumes")

    def _note_log(self, error: ForensicsError) -> None:
        message = f"a log tree cannot be read; what was synced after the last transaction is not shown: {error}"
        self._problems.add(self.origin.to("log tree"), DamagedData(message, origin=self.origin))

    def _root_item(self, number: int) -> Item | None:
        """The root item of a tree; of several the last."""
        low, high = Key(number, ItemKind.ROOT, 0), Key(number, ItemKind.ROOT, MAX_OFFSET)
        item = None
        for item in self.root_tree.items(low, high):  # noqa: B007 - the last one is wanted
            pass
        return item

    def _note(self, error: DamagedData) -> None:
        self._problems.add(error.origin or self.origin, error)

    def _damage(self, message: str) -> None:
        self._problems.add(self.origin, self._damaged(message))

    def _damaged(self, message: str) -> DamagedData:
        return DamagedData(message, origin=self.origin)


def _system_chunks(data: bytes) -> Iterator[tuple[int, bytes]]:
    """First address and item of each chunk that the superblock itself tells."""
    position = 0
    while position + _KEY < len(data):
        start = int.from_bytes(data[position + 9 : position + _KEY], "little")
        position += _KEY
        yield start, data[position:]
        position += parse_chunk(start, data[position:])[1]
