"""Inodes of a btrfs file system as they are today, to compare older ones with."""

from __future__ import annotations

import stat
from collections.abc import Iterator

from forensics_lib.errors import DamagedData, NotFound
from forensics_lib.formats.btrfs import BtrfsVolume
from forensics_lib.formats.btrfs_files import BtrfsFiles
from forensics_lib.formats.btrfs_history import NOW, NodeHistory
from forensics_lib.formats.btrfs_items import ItemKind
from forensics_lib.formats.btrfs_node import MAX_OFFSET, Key
from forensics_lib.model import ProblemLog
from forensics_lib.recovery.btrfs_states import Extents, State, counted
from forensics_lib.recovery.btrfs_subvolumes import is_file_tree

__all__ = ["KEPT", "Present"]

KEPT = 1 << 17
"""Inodes that are kept in memory to be compared with."""
_ORPHANS = (1 << 64) - 5


class Present:
    """What the newest trees say.

    Args:
        volume: the file system.
        history: which subvolumes there are.
        problems: gets what cannot be read.
    """

    def __init__(self, volume: BtrfsVolume, history: NodeHistory, problems: ProblemLog) -> None:
        """Nothing is read yet."""
        self._volume = volume
        self._history = history
        self._problems = problems
        self._states: dict[tuple[int, int], State | None] = {}
        self._files: dict[int, BtrfsFiles | None] = {}

    def files(self, subvolume: int) -> BtrfsFiles | None:
        """The files of a subvolume as they are; None when it is not there."""
        if subvolume not in self._files:
            self._files[subvolume] = None
            if subvolume in self._history.live_roots:
                try:
                    self._files[subvolume] = self._volume.files(subvolume)
                except (DamagedData, NotFound) as error:
                    self._problems.add(self._volume.origin, error)
        return self._files[subvolume]

    def inode(self, subvolume: int, number: int) -> State | None:
        """What an inode is; None when it is not there."""
        key = subvolume, number
        if key not in self._states:
            if len(self._states) >= KEPT:
                self._states.clear()
            self._states[key] = self._read(subvolume, number)
        return self._states[key]

    def _read(self, subvolume: int, number: int) -> State | None:
        files = self.files(subvolume)
        if files is None:
            return None
        try:
            found = files.inode(number)
            if found is None:
                return None
            extents: Extents = ()
            if stat.S_ISREG(found.item.mode) or stat.S_ISLNK(found.item.mode):
                extents = files.content(number, found.item.size, files.origin).extents
        except DamagedData as error:
            self._problems.add(files.origin.to(f"inode {number}"), error)
            return None
        whole = counted(extents) == found.item.allocated
        return State(found.item, extents, NOW, found.device, found.at, whole, found.item.mtime_ns, False)

    def open_without_name(self) -> Iterator[tuple[int, int, State]]:
        """(subvolume, number, state) of inodes without a name, which are only there since something had them open."""
        for subvolume in filter(is_file_tree, list(self._history.live_roots)):
            files = self.files(subvolume)
            if files is None:
                continue
            keys = Key(_ORPHANS, ItemKind.ORPHAN, 0), Key(_ORPHANS, ItemKind.ORPHAN, MAX_OFFSET)
            for item in files.tree.items(*keys, lambda error: None):
                state = self.inode(subvolume, item.key.offset)
                if state is not None and not state.inode.nlink:
                    yield subvolume, item.key.offset, state
