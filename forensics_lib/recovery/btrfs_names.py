"""Paths of deleted inodes of btrfs, up to the top level, through subvolumes that may be deleted as well."""

from __future__ import annotations

from forensics_lib.errors import DamagedData
from forensics_lib.formats.btrfs import TOP_LEVEL
from forensics_lib.formats.btrfs_history import NOW
from forensics_lib.recovery.btrfs_lives import Lives
from forensics_lib.recovery.btrfs_subvolumes import OldSubvolumes
from forensics_lib.recovery.paths import DEEPEST, TEMPORARY, Name

__all__ = ["ROOT_DIRECTORY", "Names"]

ROOT_DIRECTORY = 256


class Names:
    """Paths.

    Args:
        lives: the inodes.
        subvolumes: where they lie.
    """

    def __init__(self, lives: Lives, subvolumes: OldSubvolumes) -> None:
        """Nothing is looked up yet."""
        self._lives = lives
        self._subvolumes = subvolumes
        self._folders: dict[tuple[int, int, int], str] = {}

    def of(self, subvolume: int, number: int, transaction: int) -> list[Name]:
        """The names of what an inode's number was at a time, the likeliest first: final ones, then the newest."""
        found: list[tuple[bool, bool, int, Name]] = []
        final: set[str] = set()
        for (directory, name), last in self._places(subvolume, number, transaction):
            folder = self._place(subvolume) + self._folder(subvolume, directory, last, 0)
            text = name.decode("utf-8", "surrogateescape")
            temporary = TEMPORARY.fullmatch(text)
            one = Name(f"{folder}/{temporary[1]}", text) if temporary else Name(f"{folder}/{text}")
            if temporary is None:
                final.add(one.path)
            found.append((temporary is None, "<" not in folder, last, one))
        found.sort(key=lambda one: one[:3], reverse=True)
        return [one for *_, one in found if not one.written_as or one.path not in final]

    def subvolume(self, number: int) -> str:
        """Path of a subvolume."""
        return self._place(number) or "/"

    def _places(self, subvolume: int, number: int, transaction: int) -> list[tuple[tuple[int, bytes], int]]:
        """(directory, name) and the last transaction that knew it, the newest first."""
        born, next_born = self._lives.born(subvolume, number, transaction)
        found: dict[tuple[int, bytes], int] = {}
        for (directory, name, at), last in self._lives.names.get((subvolume, number), {}).items():
            if born <= at < next_born:
                found[directory, name] = max(found.get((directory, name), 0), min(last, next_born - 1))
        files = self._lives.present.files(subvolume)
        if files is not None and next_born > NOW:
            try:
                for reference in files.references(number):
                    found[reference.directory, reference.name] = NOW
            except DamagedData:
                pass
        return sorted(found.items(), key=lambda item: (item[1], item[0]), reverse=True)

    def _folder(self, subvolume: int, number: int, transaction: int, depth: int) -> str:
        """Path of a directory within its subvolume at a time, without a slash at its end."""
        if number == ROOT_DIRECTORY:
            return ""
        key = subvolume, number, self._lives.born(subvolume, number, transaction)[0]
        known = self._folders.get(key)
        if known is not None:
            return known
        self._folders[key] = path = f"<inode {number}>"  # for directories that lie in each other
        if depth < DEEPEST:
            places, above = self._places(subvolume, number, transaction), subvolume
            for _ in range(DEEPEST):  # what was not changed since a snapshot was made has its name in the source
                source = None if places else self._subvolumes.source(above)
                if source is None:
                    break
                above = source
                places = self._places(above, number, transaction)
            if places:
                (directory, name), last = places[0]
                folder = self._folder(subvolume, directory, min(last, transaction), depth + 1)
                path = f"{folder}/{name.decode('utf-8', 'surrogateescape')}"
        self._folders[key] = path
        return path

    def _place(self, number: int) -> str:
        """Path of a subvolume, without a slash at its end."""
        path, seen = "", set[int]()
        while number != TOP_LEVEL:
            one, mount = self._subvolumes.known.get(number), self._subvolumes.mount(number)
            at = one.last if one is not None else NOW
            if mount is None or number in seen:
                return f"<subvolume {number}>{path}"
            seen.add(number)
            number, place = mount
            path = (
                f"{self._folder(number, place.directory, at, 0)}/{place.name.decode('utf-8', 'surrogateescape')}{path}"
            )
        return path
