"""The lives of inodes: what each number of a file system was, one file after the other, as far as is remembered."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from forensics_lib.formats.run import Run

__all__ = ["NOW", "STOOD_NS", "AnyInode", "Inode", "Life", "LifeTable", "State", "continues"]

NOW = 1 << 62
"""The file system as it is, later than every transaction."""
_COMPARED = 8
"""How many later states a state is compared with."""
STOOD_NS = 5 * 10**9
"""How long content has to stand before what is added to it makes it an earlier state worth a row."""


class Inode(Protocol):
    """What every kind of inode tells."""

    @property
    def mode(self) -> int:
        """Type and permission bits."""

    @property
    def size(self) -> int:
        """Bytes."""

    @property
    def nlink(self) -> int:
        """Number of names."""

    @property
    def mtime_ns(self) -> int:
        """Last change of the content, nanoseconds since 1970."""

    @property
    def ctime_ns(self) -> int:
        """Last change of the inode, nanoseconds since 1970."""


AnyInode = TypeVar("AnyInode", bound=Inode)


@dataclass(frozen=True, slots=True)
class State(Generic[AnyInode]):
    """Content that an inode had.

    Attributes:
        inode: as it was then.
        runs: the blocks with its content.
        last: the last transaction that knew it so; `NOW` for the file system itself.
        at: where this copy of the inode lies: in the log, or in the file system when `last` is `NOW`.
        data: content that lies in the inode itself; None when it lies in blocks.
        is_sized: whether its size is known; else it is the one of its blocks.
    """

    inode: AnyInode
    runs: tuple[Run, ...]
    last: int
    at: int
    data: bytes | None = None
    is_sized: bool = True


@dataclass(slots=True)
class Life(Generic[AnyInode]):
    """One file, directory or other object from its creation to its deletion.

    Attributes:
        number: of its inode.
        order: which life of this number it is, from 0 on.
        first: the first transaction that knew it.
        last: the last transaction in which it was alive; -1 when only its deletion is known.
        inode: its newest copy while it was alive, else its deleted one.
        at: where that copy lies, as in `State`.
        ended: the first transaction that knew it deleted; None while it lives.
        deleted_ns: when it was deleted, nanoseconds since 1970; None when unknown or alive.
        states: its contents, newest first, without those that only grew.
        grown: contents that stood for a while before something was added at their end, newest first.
    """

    number: int
    order: int
    first: int
    last: int
    inode: AnyInode
    at: int
    ended: int | None = None
    deleted_ns: int | None = None
    states: list[State[AnyInode]] = field(default_factory=list)
    grown: list[State[AnyInode]] = field(default_factory=list)

    @property
    def alive(self) -> bool:
        """Whether it is still there."""
        return self.ended is None

    @property
    def is_dir(self) -> bool:
        """Whether it is a directory."""
        return stat.S_ISDIR(self.inode.mode)

    def sort_in(self, contents: Iterable[tuple[State[AnyInode] | None, int]]) -> None:
        """Sort contents into those that were replaced and those that grew; these count if they stood for a while.

        Args:
            contents: newest first, None for what is not known; each with the nanoseconds since 1970 of its writing.
        """
        next_ns = self.deleted_ns
        for state, written_ns in contents:
            if state is not None:
                later = next((one for one in self.states[-_COMPARED:] if continues(one, state)), None)
                if later is None:
                    self.states.append(state)
                elif state.inode.size < later.inode.size and next_ns and next_ns - written_ns >= STOOD_NS:
                    self.grown.append(state)
            next_ns = written_ns


class LifeTable(Generic[AnyInode]):
    """Lives by the number of their inode."""

    def __init__(self) -> None:
        """Start with none."""
        self._lives: dict[int, list[Life[AnyInode]]] = {}

    def __iter__(self) -> Iterator[Life[AnyInode]]:
        """All of them, by number and time."""
        for lives in self._lives.values():
            yield from lives

    def of(self, number: int) -> list[Life[AnyInode]]:
        """The lives of one number, oldest first."""
        return self._lives.get(number, [])

    def at(self, number: int, sequence: int) -> Life[AnyInode] | None:
        """What a number was when a transaction was committed; None when nothing but its present is known."""
        found: Life[AnyInode] | None = None
        for life in self._lives.get(number, ()):
            if found is None or life.first <= sequence or (found.ended is not None and found.ended <= sequence):
                found = life
        return found

    def gone(self, number: int, sequence: int) -> Life[AnyInode] | None:
        """What a number was last until a transaction was committed, also when it had ended by then."""
        found: Life[AnyInode] | None = None
        for life in self._lives.get(number, ()):
            if found is None or life.first <= sequence:
                found = life
        return found


def continues(later: State[AnyInode], earlier: State[AnyInode]) -> bool:
    """Whether a later content is the earlier one, perhaps with more at its end."""
    if later.data is not None or earlier.data is not None:
        return later.data == earlier.data
    if later.inode.size < earlier.inode.size:
        return False
    index = 0
    for run in earlier.runs:
        while index < len(later.runs) and later.runs[index].logical + later.runs[index].count <= run.logical:
            index += 1
        logical, block, left = run.logical, run.block, run.count
        while left:
            if index == len(later.runs):
                return False
            other = later.runs[index]
            shift = logical - other.logical
            if shift < 0 or other.block + shift != block:
                return False
            step = min(left, other.count - shift)
            logical, block, left = logical + step, block + step, left - step
            if left:
                index += 1
    return True
