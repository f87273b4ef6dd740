"""The subvolumes of a btrfs file system and their places, deleted ones included."""

from __future__ import annotations

from dataclasses import dataclass

from forensics_lib.errors import DamagedData
from forensics_lib.formats.btrfs import TOP_LEVEL, BtrfsVolume
from forensics_lib.formats.btrfs_history import NOW, ROOT_TREE, NodeHistory
from forensics_lib.formats.btrfs_items import ItemKind, NameReference, parse_root, parse_root_reference
from forensics_lib.formats.btrfs_node import BtrfsNode, Key
from forensics_lib.model import ProblemLog
from forensics_lib.sources.base import Source

__all__ = ["OldSubvolume", "OldSubvolumes", "is_file_tree"]

_FIRST_FREE, _LAST_FREE = 256, (1 << 64) - 256
_MAX_ANCESTORS = 512
_NO_UUID = bytes(16)
_KINDS = (ItemKind.ROOT, ItemKind.ROOT_BACKREF, ItemKind.ROOT_REF)


def is_file_tree(number: int) -> bool:
    """Whether a tree is one of files."""
    return number == TOP_LEVEL or _FIRST_FREE <= number <= _LAST_FREE


@dataclass(slots=True)
class OldSubvolume:
    """A subvolume that is or was there.

    Attributes:
        number: its number.
        root: address and transaction of the newest root that is known.
        level: height of that root.
        created: the transaction that made it; 0 when unknown.
        created_ns: when it was made, nanoseconds since 1970; None when unknown.
        uuid: its 16 bytes.
        parent_uuid: of the subvolume that it is a snapshot of; zeros for none.
        last: the last transaction that is known to have had it; `NOW` when it is there.
        device: where its root item lies.
        at: offset on that device.
        gone: the first transaction that is known not to have it; None when it is there or unknown.
    """

    number: int
    root: tuple[int, int]
    level: int
    created: int
    created_ns: int | None
    uuid: bytes
    parent_uuid: bytes
    last: int
    device: Source
    at: int
    gone: int | None = None

    @property
    def alive(self) -> bool:
        """Whether it is still there."""
        return self.last == NOW


class OldSubvolumes:
    """All subvolumes that any root tree still tells of.

    Args:
        volume: the file system.
        history: its tree blocks.
        problems: gets items that contradict themselves.

    Attributes:
        known: by number.
    """

    def __init__(self, volume: BtrfsVolume, history: NodeHistory, problems: ProblemLog) -> None:
        """Read every leaf of every root tree."""
        self.known: dict[int, OldSubvolume] = {}
        self._problems = problems
        self._mounts: dict[int, tuple[int, int, NameReference]] = {}
        seen: list[tuple[int, int, Key | None, Key | None, set[int]]] = []
        for leaf in history.leaves(ROOT_TREE):
            try:
                numbers = self._read(history.read(leaf), leaf.until)
            except DamagedData as error:
                problems.add(volume.origin, error)
                continue
            seen.append((leaf.generation, leaf.until, leaf.first, leaf.last, numbers))
        for one in self.known.values():
            if one.alive:
                continue
            key = Key(one.number, ItemKind.ROOT, 0)
            without = [
                generation
                for generation, _, first, last, numbers in seen
                if generation > one.last and one.number not in numbers
                if first is not None and last is not None and first <= key <= last
            ]
            one.gone = min(without, default=None)
        self._by_uuid = {one.uuid: one.number for one in self.known.values() if one.uuid != _NO_UUID}

    def owner(self, number: int, transaction: int, changed: tuple[int, int] | None = None) -> int:
        """The subvolume that something was changed in last: a snapshot holds what its source held when it was made.

        Args:
            number: the subvolume that it was found in.
            transaction: the last one that wrote it.
            changed: of an inode the transaction that made it, and the time of its last change; that it was read may
                have written it since.
        """
        for _ in range(_MAX_ANCESTORS):
            one = self.known.get(number)
            if one is None:
                break
            unchanged = changed is not None and changed[0] <= one.created and changed[1] < (one.created_ns or 0)
            if transaction > one.created and not unchanged:
                break
            source = self._by_uuid.get(one.parent_uuid)
            if source is None or source == number:
                break
            number = source
        return number

    def source(self, number: int) -> int | None:
        """The subvolume that one is a snapshot of; None when it is none, or of an unknown one."""
        one = self.known.get(number)
        return self._by_uuid.get(one.parent_uuid) if one is not None else None

    def mount(self, number: int) -> tuple[int, NameReference] | None:
        """The subvolume that one was mounted in last, and where; None when that is unknown."""
        found = self._mounts.get(number)
        return found[1:] if found is not None else None

    def note_mount(self, number: int, parent: int, place: NameReference, until: int) -> None:
        """Remember where a subvolume was mounted; the newest counts."""
        if until >= self._mounts.get(number, (0,))[0]:
            self._mounts[number] = (until, parent, place)

    def _read(self, block: BtrfsNode, until: int) -> set[int]:
        """Take what a leaf tells; gives the subvolumes that it has and that are not deleted."""
        numbers: set[int] = set()
        for index, (objectid, kind, offset) in enumerate(block.keys):
            if not is_file_tree(objectid) or kind not in _KINDS:
                continue
            item = block.item(index)
            try:
                if kind != ItemKind.ROOT:
                    below, above = (objectid, offset) if kind == ItemKind.ROOT_BACKREF else (offset, objectid)
                    self.note_mount(below, above, parse_root_reference(item.data), until)
                    continue
                root = parse_root(item.data)
            except DamagedData as error:
                self._problems.add(item.device.origin, error)
                continue
            there = root.references > 0 and not root.dead
            if there:
                numbers.add(objectid)
            before = self.known.get(objectid)
            if before is None or (there and root.generation >= before.root[1]):
                self.known[objectid] = OldSubvolume(
                    objectid,
                    (root.logical, root.generation),
                    root.level,
                    root.created,
                    root.otime_ns,
                    root.uuid,
                    root.parent_uuid,
                    max(until if there else 0, before.last if before is not None else 0),
                    item.device,
                    item.at,
                )
            elif there:
                before.last = max(before.last, until)
        return numbers
