"""The way out for copies of evidence: never into the evidence itself, and each of them on record."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from forensics_lib.custody import Custody, Detail
from forensics_lib.errors import ForensicsError
from forensics_lib.model import ProblemLog
from forensics_lib.sources.file import FileSource
from forensics_lib.table import Table
from forensics_lib.trees.base import Tree
from forensics_lib.trees.extract import Extracted, extract

__all__ = ["Outlet"]


class Outlet:
    """Copies things out of one piece of evidence.

    Args:
        evidence: what was opened.
        files: the files that it consists of; none for a folder.
        custody: gets an entry for each copy.
        problems: gets what could not be copied, and whether the evidence changed meanwhile.

    Attributes:
        problems: the same.
    """

    def __init__(
        self, evidence: Path, files: Sequence[FileSource] | None, custody: Custody, problems: ProblemLog
    ) -> None:
        """Nothing is copied yet."""
        self._evidence = evidence
        self._files = tuple(files or ())
        self._custody = custody
        self.problems = problems

    def place(self, to: str | os.PathLike[str]) -> Path:
        """A path that may be written to.

        Raises:
            ValueError: it lies inside the evidence.
        """
        if self._evidence.is_dir() and Path(to).resolve().is_relative_to(self._evidence.resolve()):
            raise ValueError(f"{to} lies inside the evidence, where nothing is ever written")
        return Path(to)

    def done(self, action: str, **details: Detail) -> None:
        """Record what was done, and look whether the evidence is still the same."""
        for file in self._files:
            try:
                file.check_unchanged()
            except ForensicsError as error:
                self.problems.add(file.origin, error)
        self._custody.record(action, str(self._evidence), **details)

    def extract(self, tree: Tree, path: str, to: str | os.PathLike[str], *, symlinks: bool = False) -> Table[Extracted]:
        """Copy a file or folder out to the disk, now; see `trees.extract.extract`. The custody records each file.

        Raises:
            PathNotFound: no such path in the tree.
            FileExistsError: the folder is not empty.
            ValueError: the folder lies inside the evidence.
        """
        rows = []
        for row in extract(tree, path, self.place(to), self.problems, symlinks=symlinks):
            rows.append(row)
            if row.sha256 is not None:
                self._custody.record(
                    "extract",
                    row.path,
                    to=str(row.to),
                    size=row.size,
                    sha256=row.sha256,
                    note=row.note,
                    origin=str(row.origin),
                )
        files = sum(row.sha256 is not None for row in rows)
        self.done("extract", tree=str(tree.origin), path=path, to=str(to), files=files)
        return Table(Extracted, rows, name="extracted files")
