"""The files beside an image: its segments, extents, backing files and parents."""

from __future__ import annotations

import os
import re
from pathlib import Path

from forensics_lib.errors import ForensicsError
from forensics_lib.model import Origin
from forensics_lib.sources.base import Source
from forensics_lib.sources.file import FileSource

__all__ = ["Siblings"]

_MAX_NAMES = 100_000
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+:", re.IGNORECASE)


class Siblings:
    """Opens what an image refers to by name, without ever leaving the folder that the image lies in.

    Names that are recorded in evidence are not to be trusted: followed as they stand, ``../../etc/shadow`` would be
    read from the examiner's own disk. So a relative name is followed below the folder of the image, and of any other
    name only the last part is looked for beside the image. Symbolic links are not followed.

    An image that is no file on disk has no siblings; a subclass can find them elsewhere, for example in a tree.

    Args:
        source: the image.
        opened: gets every file that is opened; shared with the siblings of images below this one.
    """

    def __init__(self, source: Source, opened: list[FileSource] | None = None) -> None:
        """Look beside `source`."""
        self.opened: list[FileSource] = [] if opened is None else opened
        self.source = source
        self.folder = source.path.parent if isinstance(source, FileSource) else None
        self.name = source.path.name if isinstance(source, FileSource) else source.origin.label

    def names(self) -> tuple[str, ...]:
        """Names of the files in the folder, sorted."""
        if self.folder is None:
            return ()
        try:
            with os.scandir(self.folder) as entries:
                return tuple(sorted(entry.name for _, entry in zip(range(_MAX_NAMES), entries, strict=False)))
        except OSError:
            return ()

    def open(self, recorded: str) -> Source | None:
        """The file that a recorded name means, or None when it is not there or cannot be opened."""
        for parts in _candidates(recorded):
            path = self._inside(parts)
            if path is None:
                continue
            try:
                file = FileSource(path, Origin("/".join(parts), self.source.origin.parent), follow=False)
            except ForensicsError:
                continue
            self.opened.append(file)
            return file
        return None

    def _inside(self, parts: tuple[str, ...]) -> Path | None:
        if self.folder is None:
            return None
        try:
            folder = self.folder.resolve()
            path = folder.joinpath(*parts)
            return path if path.parent.resolve() == path.parent else None
        except (OSError, ValueError, RuntimeError):  # a name no file can have, or links in a circle
            return None


def _candidates(recorded: str) -> list[tuple[str, ...]]:
    """The places to look in, as parts of a relative path: below the folder first, then beside the image."""
    parts = tuple(part for part in re.split(r"[/\\]", recorded) if part not in ("", "."))
    if not parts or parts[-1] == "..":
        return []
    relative = recorded[0] not in "/\\" and ".." not in parts and not _SCHEME.match(recorded)
    return [parts, parts[-1:]] if relative and len(parts) > 1 else [parts[-1:]]
