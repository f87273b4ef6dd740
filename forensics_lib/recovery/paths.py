"""Paths of lives, from every name that directories of the past and of today have for them."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass

from forensics_lib.recovery.lives import AnyInode, Life, LifeTable

__all__ = ["DEEPEST", "IN_LOG", "KINDS", "LEFT_OVER", "TEMPORARY", "Key", "Name", "Paths"]

Key = tuple[int, int]
"""A life: number of its inode, and which life of this number it is."""
IN_LOG, LEFT_OVER = 1, 0
"""How well a name is known: from a directory that had it, or from what is left of one."""
KINDS = {0x8000: 1, 0x4000: 2, 0x2000: 3, 0x6000: 4, 0x1000: 5, 0xC000: 6, 0xA000: 7}
"""Types as directories number them, by the type bits of an inode's mode."""
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


class Paths(ABC):
    """Paths of lives.

    Args:
        root: number of the root directory.
        lives: what the inodes were.
    """

    def __init__(self, root: int, lives: LifeTable[AnyInode]) -> None:
        """No name is known yet."""
        self._root = root
        self._of = lives.of
        self._found: dict[Key, dict[_Place, tuple[int, int]]] = {}
        self._parents: dict[Key, Key] = {}
        self._folders: dict[Key, str] = {}

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
    def _living(self, number: int) -> str | None:
        """Path of a directory in the file system as it is; None when the way to the root is broken."""

    def _enter(self, life: Key, parent: Key, name: bytes, rank: int, sequence: int) -> None:
        """Note a name of a life, and the transaction that knew it."""
        where = _Place(*parent, name.decode("utf-8", "surrogateescape"))
        known = self._found.setdefault(life, {})
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
        lives = self._of(number)
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
