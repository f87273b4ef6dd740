"""Hosts written to a folder, and their readers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from forensics_lib.engines.host.files import HostFiles
from forensics_lib.engines.journals import Journals
from forensics_lib.model import ProblemLog
from forensics_lib.sources.decompress import Limits
from forensics_lib.trees.directory import DirectoryTree
from forensics_lib.trees.documents import DocumentReader

WRITTEN = 1_764_000_000
"""When the files were written last: 24 November 2025, 16:00 UTC."""


def write(folder: Path, files: Mapping[str, str | bytes], written: int = WRITTEN) -> Path:
    """Files of a host."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        os.utime(path, (written, written))
    return folder


def host_at(folder: Path) -> tuple[HostFiles, Journals, ProblemLog]:
    """The host in a folder, its journals, and its problems."""
    problems = ProblemLog()
    reader = DocumentReader(DirectoryTree(folder, problems), problems)
    return HostFiles(reader, Limits()), Journals([reader]), problems
