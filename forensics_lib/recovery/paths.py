"""Paths of lives, from every name that directories of the past and of today have for them."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Generic

from forensics_lib.errors import DamagedData
from forensics_lib.formats.directory import Directory
from forensics_lib.formats.run import Run
from forensics_lib.recovery.lives import AnyInode, Life, LifeTable

__all__ = ["DEEPEST", "IN_LOG", "LEFT_OVER", "TEMPORARY", "Key", "Name", "Paths", "blocks_of"]

Key = tuple[int, int]
"""A life: number of its inode, and which life of this number it is."""
IN_LOG, LEFT_OVER = 1, 0
"""How well a name is known: from a directory that had it, or from what is left of one."""
_KINDS = {0x8000: 1, 0x4000: 2, 0x2000: 3, 0x6000: 4, 0x1000: 5, 0xC000: 6, 0xA000: 7}
"""Types as directories number them, by the type bits of an inode's mode."""
_MAX_DIR_BLOCKS = 1 << 16
DEEPEST = 256
"""How many directories a path is followed through."""
TEMPORARY = re.compile(r"\.tmp-(.+?)\d+")
"""Name of a file that is written aside, to be renamed to what the group holds."""


@dataclass(frozen=True, slots=True)
class Name:
    """A name that an inode had.

    Attributes:
        path: as far as it is known; ``<inode N>`` stands for a directory whose own name is not known, ``<subvolume N>``
            for such a subvolume.
        written_as: the temporary name of a file of which only that is known; its final name is in `path`.
        is_left_over: whether it was found in what is left of a directory only.
    """

    path: str
    written_as: str = ""
    is_left_over: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether the path goes up to the root."""
        return self.path.startswith("/") and "<inode " not in self.path


@dataclass(frozen=True, slots=True)
class _Place:
    parent: int
    order: int
    name: str


class Paths(ABC, Generic[AnyInode]):
    """Paths of lives.

    Args:
        root: number of the root directory.
        lives: what the inodes were.
    """

    def __init__(self, root: int, lives: LifeTable[AnyInode]) -> None:
        """No name is known yet."""
        self._root = root
        self._lives = lives
        self._found: dict[Key, dict[_Place, tuple[int, int]]] = {}
        self._parents: dict[Key, Key] = {}
        self._folders: dict[Key, str] = {}
        self._present = lru_cache(maxsize=1024)(self._read_present)
        self._owners = self._dir_blocks()

    def of(self, life: Life[AnyInode]) -> list[Name]:
        """The names of a life, the most likely first."""
        found: list[Name] = []
        final: list[str] = []
        key = (life.number, life.order)
        for place, rank in self._ranked(key):
            folder = self._folder((place.parent, place.order), frozenset({key}))
            temporary = TEMPORARY.fullmatch(place.name)
            if temporary is None:
                final.append(f"{folder}/{place.name}")
                found.append(Name(f"{folder}/{place.name}", "", rank[0] == LEFT_OVER))
            elif f"{folder}/{temporary[1]}" not in final:
                found.append(Name(f"{folder}/{temporary[1]}", place.name, rank[0] == LEFT_OVER))
        if not found and life.alive and life.is_dir:
            path = self._living(life.number)
            found += [Name(path)] if path is not None else []
        found.sort(key=lambda name: (bool(name.written_as), not name.is_whole))
        return found

    @abstractmethod
    def _read_present(self, number: int) -> Directory:
        """What a directory lists in the file system as it is; nothing where it is none."""

    @abstractmethod
    def _read_block(self, number: int) -> bytes:
        """A block of a directory as it is.

        Raises:
            DamagedData: it cannot be read.
        """

    def _living(self, number: int) -> str | None:
        """Path of a directory in the file system as it is; None when the way to the root is broken."""
        parts: list[str] = []
        while number != self._root:
            parent = self._present(number).parent
            if not parent or len(parts) > DEEPEST:
                return None
            name = next((name for name, child in self._present(parent).entries.items() if child == number), None)
            if name is None:
                return None
            parts.append(_text(name))
            number = parent
        return "".join(f"/{part}" for part in reversed(parts))

    def _dir_blocks(self) -> dict[int, list[tuple[int, int]]]:
        """(last transaction, inode number) of the directories that a block belonged to, by block, oldest first."""
        owners: dict[int, list[tuple[int, int]]] = {}
        for life in self._lives:
            if life.is_dir:
                for state in life.states:
                    for block in blocks_of(state.runs):
                        owners.setdefault(block, []).append((state.last, life.number))
        for known in owners.values():
            known.sort()
        return owners

    def _owner_of(self, block: int, sequence: int) -> int | None:
        """The directory that a block belonged to when a transaction wrote it; None when no life tells."""
        known = self._owners.get(block, [])
        return next((number for last, number in known if last >= sequence), known[-1][1] if known else None)

    def _left_where_they_lay(self) -> Iterator[tuple[Life[AnyInode], bytes]]:
        """The blocks of deleted directories, as they are now, beyond the first, which tells itself what it is."""
        for life in self._lives:
            if life.is_dir and not life.alive and life.states:
                for number in islice(blocks_of(life.states[0].runs), 1, None):
                    try:
                        data = self._read_block(number)
                    except DamagedData:
                        continue
                    yield life, data

    def _enter(
        self,
        number: int,
        child: Life[AnyInode] | None,
        name: bytes,
        kind: int,
        parent: int,
        sequence: int,
        rank: int,
        folder: Life[AnyInode] | None = None,
    ) -> None:
        """Note a name in a directory.

        Args:
            number: the inode that it points to.
            child: which of its lives; None when none is known.
            name: as bytes.
            kind: of the inode as the directory says; 0 when it does not.
            parent: number of the directory.
            sequence: the transaction that knew it.
            rank: how well it is known.
            folder: which life of the directory; by default that at the time of the transaction.
        """
        folder = folder or self._lives.at(parent, sequence)
        key, above = (number, child.order if child else 0), (parent, folder.order if folder else 0)
        if name == b"..":
            self._parents[above] = key
        if name in (b".", b".."):
            return
        if child is not None and kind and _KINDS.get(child.inode.mode & 0xF000, 0) not in (0, kind):
            return
        where = _Place(*above, _text(name))
        known = self._found.setdefault(key, {})
        known[where] = max(known.get(where, (rank, sequence)), (rank, sequence))

    def _ranked(self, life: Key) -> list[tuple[_Place, tuple[int, int]]]:
        """Where an inode was entered, the newest first; what is left in free space comes last."""
        found = self._found.get(life, {})
        return sorted(found.items(), key=lambda item: (*item[1], item[0].name), reverse=True)

    def _folder(self, key: Key, above: frozenset[Key]) -> str:
        """Path of a directory, without a slash at its end."""
        number, order = key
        if number == self._root:
            return ""
        known = self._folders.get(key)
        if known is not None:
            return known
        path: str | None = None
        lives = self._lives.of(number)
        if not lives or (order == lives[-1].order and lives[-1].alive):
            path = self._living(number)
        if path is None and len(above) < DEEPEST and key not in above:
            for place, _ in self._ranked(key):
                path = f"{self._folder((place.parent, place.order), above | {key})}/{place.name}"
                if path.startswith("/"):
                    break
        if path is None:
            path = f"<inode {number}>"
            parent = self._parents.get(key)
            if parent is not None and len(above) < DEEPEST and key not in above:
                path = f"{self._folder(parent, above | {key})}/{path}"
        if key not in above:
            self._folders[key] = path
        return path


def blocks_of(runs: tuple[Run, ...]) -> Iterator[int]:
    """The numbers of the blocks of a directory, as many as the largest real one has."""
    return islice((block for run in runs for block in range(run.block, run.block + run.count)), _MAX_DIR_BLOCKS)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
