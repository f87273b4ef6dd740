"""What an inode of btrfs was at a time, and how its states from different places are put together."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field, replace

from forensics_lib.formats.btrfs_items import ExtentKind, FileExtent, InodeItem
from forensics_lib.sources.base import Source

__all__ = ["Extents", "Life", "State", "complete", "counted", "covered", "distinct", "overlaid"]

Extents = tuple[tuple[int, FileExtent], ...]
"""(offset in the file, extent), ascending."""


@dataclass(slots=True)
class State:
    """Content that an inode had.

    Attributes:
        inode: as it was then.
        extents: (offset in the file, extent), ascending.
        last: the last transaction that is known to have had it so; `NOW` for the file system as it is.
        device: where this copy of the inode lies.
        at: offset on that device.
        whole: whether the extents are all that the inode counts.
        since_ns: when it was written: the inode's first time with it, for a time may change before the content does.
        in_log: whether it was found only in a log tree, which holds what was synced between two transactions.
    """

    inode: InodeItem
    extents: Extents
    last: int
    device: Source
    at: int
    whole: bool
    since_ns: int
    in_log: bool

    @property
    def order(self) -> tuple[int, int, int]:
        """Sort key, oldest first."""
        return self.inode.transaction, self.inode.sequence, self.inode.ctime_ns


@dataclass(slots=True)
class Life:
    """One file, directory or other object from its creation to its deletion.

    Attributes:
        subvolume: the one it was changed in last.
        number: of its inode.
        born: the transaction that made it.
        states: its contents, oldest first.
        alive: whether it is still there and has a name.
        is_open: whether it is deleted, but was open when the disk was copied.
        gone: the first transaction that is known not to have it; None when it is there or unknown.
        deleted_ns: when it was deleted, nanoseconds since 1970; None when unknown or alive.
    """

    subvolume: int
    number: int
    born: int
    states: list[State] = field(default_factory=list)
    alive: bool = False
    is_open: bool = False
    gone: int | None = None
    deleted_ns: int | None = None

    @property
    def last(self) -> int:
        """The last transaction that is known to have had it."""
        return max((state.last for state in self.states), default=0)


def counted(extents: Extents) -> int:
    """Bytes as an inode counts them."""
    return sum(extent.length for _, extent in extents if extent.kind is ExtentKind.INLINE or extent.logical)


def covered(extents: Extents, size: int) -> bool:
    """Whether extents leave no gap; what inodes in a log count is not kept up."""
    end = 0
    for start, extent in extents:
        if start > end:
            return False
        end = max(end, start + extent.length)
    return end >= size


def complete(state: State, others: list[State]) -> None:
    """Put what a log holds of an inode over what it was before."""
    for other in reversed(others):
        extents = overlaid(other.extents, state.extents)
        if covered(extents, state.inode.size):
            state.extents, state.whole = extents, True
            return


def distinct(states: list[State], now: State | None) -> list[State]:
    """States without those that are the same as a later one or as what is there, and without lesser copies of one."""
    whole = {(state.inode.size, state.inode.mtime_ns): state for state in states if state.whole}
    for state in states:
        other = whole.get((state.inode.size, state.inode.mtime_ns))
        if not state.whole and other is not None:
            other.last = max(other.last, state.last)
    states = [one for one in states if one.whole or (one.inode.size, one.inode.mtime_ns) not in whole]
    found: dict[tuple[int, Extents], State] = {}
    for state in reversed(states):
        key = state.inode.size, state.extents
        if key in found:
            found[key].last = max(found[key].last, state.last)
        elif now is None or key != (now.inode.size, now.extents):
            found[key] = state
    return list(reversed(found.values()))


def overlaid(below: Extents, above: Extents) -> Extents:
    """Extents with others in their place; both ascending."""
    found = list(above)
    starts = [start for start, _ in above]
    for start, extent in below:
        position, stop = start, start + extent.length
        for index in range(max(0, bisect_right(starts, start) - 1), bisect_left(starts, stop)):
            other, over = above[index]
            if other > position:
                found += _part_of(start, extent, position, other)
            position = max(position, other + over.length)
        if position < stop:
            found += _part_of(start, extent, position, stop)
    return tuple(sorted(found, key=lambda one: one[0]))


def _part_of(start: int, extent: FileExtent, begin: int, end: int) -> Extents:
    """A part of an extent; none of what lies in the tree itself, which is written anew as a whole."""
    if (begin, end) == (start, start + extent.length):
        return ((start, extent),)
    if extent.kind is ExtentKind.INLINE:
        return ()
    return ((begin, replace(extent, offset=extent.offset + begin - start, length=end - begin)),)
