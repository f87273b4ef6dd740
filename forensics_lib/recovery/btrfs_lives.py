"""The lives of inodes: what each was in all transactions of a btrfs file system that are still remembered.

btrfs counts inodes up; but after a mount it goes on with the highest number that is there, so that those of the newest
deleted files are given again. The transaction that made an inode tells them apart.
"""

from __future__ import annotations

import stat
from bisect import bisect_left, bisect_right, insort
from collections import defaultdict, deque
from collections.abc import Iterator

from forensics_lib.errors import DamagedData, LimitExceeded
from forensics_lib.formats.btrfs import BtrfsVolume
from forensics_lib.formats.btrfs_history import LOG_TREE, NOW, FoundNode, NodeHistory
from forensics_lib.formats.btrfs_items import ItemKind, NameReference
from forensics_lib.formats.btrfs_node import BtrfsNode, Key
from forensics_lib.model import ProblemLog
from forensics_lib.recovery.btrfs_leaves import HIGHEST, LOWEST, InodeItems, Latest, LeafReader
from forensics_lib.recovery.btrfs_owners import extents_of
from forensics_lib.recovery.btrfs_present import KEPT, Present
from forensics_lib.recovery.btrfs_states import Extents, Life, State, complete, counted, covered, distinct, overlaid
from forensics_lib.recovery.btrfs_subvolumes import OldSubvolumes, is_file_tree

__all__ = ["Lives"]

_MAX_STATES = 1 << 20
_MAX_EXTENTS = 1 << 22
_MAX_OWNED = 2048
_GUESSED = 16
_Key = tuple[int, int, int]


class Lives:
    """All lives that older tree blocks know of, except those of inodes that simply live on.

    Args:
        volume: the file system.
        history: its tree blocks.
        subvolumes: its subvolumes.
        problems: gets what contradicts itself.

    Attributes:
        present: the inodes as they are.
        names: (directory, name, transaction) that led to an inode at that transaction, and the last one that knew it,
            by subvolume and number.
        changed_ns: the newest change that is known of each transaction, nanoseconds since 1970.
    """

    def __init__(
        self, volume: BtrfsVolume, history: NodeHistory, subvolumes: OldSubvolumes, problems: ProblemLog
    ) -> None:
        """Read every leaf that is no longer used."""
        self._volume = volume
        self._history = history
        self._subvolumes = subvolumes
        self._problems = problems
        self._leaves = LeafReader(history, problems)
        self.present = Present(volume, history, problems)
        self._lives: dict[_Key, Life] = {}
        self._contents: dict[_Key, dict[tuple[int, Extents], State]] = {}
        self._born: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
        self._left = _MAX_STATES
        self._extents_left = _MAX_EXTENTS
        self.names: defaultdict[tuple[int, int], dict[tuple[int, bytes, int], int]] = defaultdict(dict)
        self.changed_ns = self._leaves.changed_ns
        for number in sorted(filter(is_file_tree, history.owners())):
            self._read_tree(number)
        self._changed: defaultdict[int, set[int]] = defaultdict(set)
        for node in history.nodes.values():
            if is_file_tree(node.owner):
                self._changed[node.generation].add(node.owner)
        for leaf in history.leaves(LOG_TREE):
            self._read_log(leaf)
        self._take_orphans()
        self._finish()

    def __iter__(self) -> Iterator[Life]:
        """All of them, by subvolume and number."""
        for _, life in sorted(self._lives.items()):
            yield life

    def born(self, subvolume: int, number: int, transaction: int) -> tuple[int, int]:
        """The transaction that made what a number was at a time, and the one that made what it was next.

        0 where nothing is known of that time.
        """
        known = list(self._born.get((subvolume, number), ()))
        now = self.present.inode(subvolume, number)
        if now is not None and now.inode.generation not in known:
            insort(known, now.inode.generation)
        index = bisect_right(known, transaction)
        return known[index - 1] if index else 0, known[index] if index < len(known) else NOW + 1

    # Reading leaves --------------------------------------------------------------------------------------------------

    def _read_tree(self, number: int) -> None:
        """The leaves of one subvolume, oldest first; those in use only tell what they no longer have."""
        known: list[tuple[int, int]] = []  # inodes that were there and are not known to be gone
        latest: Latest = {}
        leaves = self._history.leaves(number)
        starts: defaultdict[int, list[FoundNode]] = defaultdict(list)
        for leaf in leaves:
            if leaf.first is not None and leaf.first.kind == ItemKind.EXTENT_DATA:
                starts[leaf.first.objectid].append(leaf)
        gaps = deque(self._history.gaps(number))
        for leaf in leaves:
            while gaps and gaps[0][0] < leaf.generation:
                self._lose(number, known, *gaps.popleft())
            if leaf.first is None or leaf.last is None:
                continue
            low = leaf.first.objectid + (leaf.first > Key(leaf.first.objectid, ItemKind.INODE, 0))
            begin, end = bisect_left(known, (low, 0)), bisect_left(known, (leaf.last.objectid, 0))
            if leaf.until == NOW and begin == end:
                continue
            try:
                block = self._history.read(leaf)
            except DamagedData as error:
                self._problems.add(leaf.device.origin, error)
                continue
            here = set(_inodes(block))
            for inode in known[begin:end]:
                if inode not in here:
                    self._lives[number, *inode].gone = leaf.generation
            known[begin:end] = [inode for inode in known[begin:end] if inode in here]
            if leaf.until == NOW:
                continue
            for group in self._leaves.by_inode(block, latest, leaf.until):
                life, state = self._take(number, group, leaf, starts)
                if len(latest) >= KEPT:
                    latest.clear()
                if state is None or state.whole or not stat.S_ISREG(state.inode.mode):
                    latest[group.number] = group.raw, state
                if life is not None and life.subvolume == number:
                    life.gone = None
                    index = bisect_left(known, (life.number, life.born))
                    if index == len(known) or known[index] != (life.number, life.born):
                        known.insert(index, (life.number, life.born))
        for gap in gaps:
            self._lose(number, known, *gap)

    def _lose(self, number: int, known: list[tuple[int, int]], transaction: int, low: int, high: int) -> None:
        """Note that a transaction did not have a range of inodes."""
        begin, end = bisect_left(known, (low, 0)), bisect_left(known, (high + 1, 0))
        for inode in known[begin:end] if begin < end else ():
            self._lives[number, *inode].gone = transaction
        del known[begin:end]

    def _read_log(self, leaf: FoundNode) -> None:
        """A leaf of a log tree: what was synced, of inodes only as far as they were changed."""
        try:
            block = self._history.read(leaf)
        except DamagedData as error:
            self._problems.add(leaf.device.origin, error)
            return
        groups = list(self._leaves.by_inode(block))
        number = self._history.log_trees.get(leaf.address)
        if number is None:
            number = self._guess(groups, leaf.generation)
        if number is not None and is_file_tree(number):
            for group in groups:
                self._take(number, group, leaf, {})

    def _guess(self, groups: list[InodeItems], generation: int) -> int | None:
        """The subvolume whose inodes a leaf of a log names, when nothing says so: the one that has most of them.

        The transaction that followed the log changed the subvolume, too.
        """
        wanted = {(one.number, one.inode.generation) for one in groups[:_GUESSED] if one.inode and one.inode.generation}
        folders = {reference.directory for one in groups[:_GUESSED] for reference in one.references[:1]}
        changed = [number for number in self._changed.get(generation, ()) if number in self._subvolumes.known]
        fitting = []
        for number in changed or list(self._subvolumes.known)[:_GUESSED]:
            fits = sum(self._knows(number, inode, generation) for inode, generation in wanted)
            fits += sum(self._knows(number, folder, 0) for folder in folders)
            fitting.append((fits, number))
        fitting.sort(reverse=True)
        if fitting and fitting[0][0] and (len(fitting) == 1 or fitting[0][0] > fitting[1][0]):
            return fitting[0][1]
        return None

    def _knows(self, number: int, inode: int, generation: int) -> bool:
        known, state = list(self._born.get((number, inode), ())), self.present.inode(number, inode)
        known += [state.inode.generation] if state is not None else []
        return generation in known if generation else bool(known) and inode != LOWEST

    # Lives -----------------------------------------------------------------------------------------------------------

    def _take(
        self, number: int, group: InodeItems, leaf: FoundNode, starts: dict[int, list[FoundNode]]
    ) -> tuple[Life | None, State | None]:
        """Add what a leaf tells of an inode; gives its life and content if it is none that simply lives on."""
        self._take_entries(number, group, leaf.until)
        if group.inode is None:
            return None, None
        inode, until = group.inode, leaf.until
        if inode.generation:
            number = self._subvolumes.owner(number, inode.transaction, (inode.generation, inode.ctime_ns))
        now = self.present.inode(number, group.number)
        if now is not None and (not now.inode.nlink or inode.generation not in (0, now.inode.generation)):
            now = None  # the number was given anew
        if now is None:
            names = self.names[number, group.number]
            for reference in group.references:
                place = reference.directory, reference.name, inode.generation or inode.transaction
                names[place] = max(names.get(place, 0), until)
        if not inode.generation or inode.mode == 0:
            return None, None  # a log that tells only that there is such an inode
        in_log = leaf.owner == LOG_TREE
        extents = tuple(group.extents)
        is_last = leaf.last is not None and leaf.last.objectid == group.number
        if is_last and not in_log and (stat.S_ISREG(inode.mode) or stat.S_ISLNK(inode.mode)):
            extents = self._leaves.continued(inode, leaf, extents, starts)
        whole = covered(extents, inode.size) if in_log else counted(extents) == inode.allocated
        if now is not None and (now.inode.size, now.extents) == (inode.size, extents):
            return None, None
        if now is not None and not stat.S_ISREG(inode.mode):
            return None, None
        key = number, group.number, inode.generation
        life = self._lives.get(key)
        if life is None:
            life = self._lives[key] = Life(*key, alive=now is not None)
            insort(self._born[number, group.number], inode.generation)
        contents = self._contents.setdefault(key, {})
        state = contents.get((inode.size, extents))
        if state is None:
            if self._left <= 0 or self._extents_left <= 0:
                self._say_limit()
                return life, None
            self._left -= 1
            self._extents_left -= len(extents)
            state = State(inode, extents, until, leaf.device, group.at, whole, inode.mtime_ns, in_log)
            contents[inode.size, extents] = state
            life.states.append(state)
        else:
            state.last = max(state.last, until)
            state.in_log = state.in_log and in_log
            state.since_ns = min(state.since_ns, inode.mtime_ns)
            if inode.transaction >= state.inode.transaction:
                state.inode, state.device, state.at = inode, leaf.device, group.at
        return life, state

    def _take_entries(self, number: int, group: InodeItems, until: int) -> None:
        for entry in group.entries:
            owner = self._subvolumes.owner(number, entry.transaction)
            if entry.kind == ItemKind.ROOT:
                place = NameReference(group.number, 0, entry.name)
                self._subvolumes.note_mount(entry.objectid, owner, place, min(until, entry.transaction))
            elif entry.kind == ItemKind.INODE and LOWEST <= entry.objectid <= HIGHEST:
                now = self.present.inode(owner, entry.objectid)
                if now is not None and now.inode.nlink and now.inode.generation <= entry.transaction:
                    continue
                names = self.names[owner, entry.objectid]
                where = group.number, entry.name, entry.transaction
                names[where] = max(names.get(where, 0), until)

    def _take_orphans(self) -> None:
        """Inodes without a name, which are only there since something had them open."""
        for subvolume, number, state in self.present.open_without_name():
            key = subvolume, number, state.inode.generation
            life = self._lives.setdefault(key, Life(*key))
            life.is_open, life.gone, life.deleted_ns = True, None, state.inode.ctime_ns
            same = self._contents.get(key, {}).get((state.inode.size, state.extents))
            if same is not None:
                life.states.remove(same)
            life.states.append(state)

    def _finish(self) -> None:
        """Put states in order, complete those of logs, and find out when lives ended."""
        wanted: set[int] = set()
        self._find_extents()
        for life in self._lives.values():
            life.states.sort(key=lambda state: state.order)
            now = self.present.inode(life.subvolume, life.number) if life.alive else None
            for index, state in enumerate(life.states):
                if state.in_log and not state.whole:
                    earlier = [*life.states[:index], *([now] if now is not None else [])]
                    complete(state, [one for one in earlier if one.whole])
            life.states = distinct(life.states, now)
            subvolume = self._subvolumes.known.get(life.subvolume)
            if subvolume is not None and not subvolume.alive and subvolume.gone is not None:
                life.gone = min(life.gone or subvolume.gone, subvolume.gone)
            if life.gone is not None:
                wanted.add(life.gone)
        self._find_times(wanted - self.changed_ns.keys())
        for life in self._lives.values():
            last = life.states[-1].inode if life.states else None
            if life.alive or life.is_open:
                continue
            if last is not None and not last.nlink:
                life.deleted_ns = last.ctime_ns
            elif life.gone is not None:
                life.deleted_ns = self.changed_ns.get(life.gone)

    def _find_extents(self) -> None:
        """Complete states whose extents are lost with the leaf that they were in."""
        lacking = [
            (life, state)
            for life in self._lives.values()
            for state in life.states
            if state.inode.size and stat.S_ISREG(state.inode.mode) and not state.whole and not state.in_log
        ]
        owned = extents_of({(life.subvolume, life.number) for life, _ in lacking}, self._history, self._problems)
        for life, state in lacking:
            extents: Extents = ()
            for place in owned.get((life.subvolume, life.number), ())[-_MAX_OWNED:]:
                if life.born <= place[1].generation <= state.inode.transaction:
                    extents = overlaid(extents, (place,))
            extents = overlaid(extents, state.extents)
            if counted(extents) == state.inode.allocated and covered(extents, state.inode.size):
                state.extents, state.whole = extents, True

    def _find_times(self, wanted: set[int]) -> None:
        """Read what transactions wrote of which only blocks in use are left, for the times."""
        for node in self._history.nodes.values():
            if not node.level and node.generation in wanted and node.until == NOW and is_file_tree(node.owner):
                try:
                    for _ in self._leaves.by_inode(self._history.read(node)):
                        pass
                except DamagedData as error:
                    self._problems.add(node.device.origin, error)

    def _say_limit(self) -> None:
        message = f"more than {_MAX_STATES} contents of inodes or {_MAX_EXTENTS} extents; the others are not looked for"
        self._problems.add(self._volume.origin, LimitExceeded(message))


def _inodes(block: BtrfsNode) -> Iterator[tuple[int, int]]:
    """Number and transaction of birth of each inode in a leaf."""
    for index, (objectid, kind, _) in enumerate(block.keys):
        if kind == ItemKind.INODE:
            start = block.places[index][0]
            yield objectid, int.from_bytes(block.data[start : start + 8], "little")
