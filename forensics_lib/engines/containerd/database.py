"""Opening one of containerd's databases of a tree."""

from __future__ import annotations

from forensics_lib.errors import ForensicsError
from forensics_lib.formats.bbolt import Bolt
from forensics_lib.sources.base import SliceSource
from forensics_lib.trees.documents import DocumentReader

__all__ = ["open_database"]


def open_database(reader: DocumentReader, path: str) -> Bolt | None:
    """A database by path; None when there is none or, with a problem, when it is none that can be read."""
    node = reader.find(path)
    if node is None:
        return None
    origin = node.origin.to(node.path.lstrip("/"))
    try:
        source = node.source()
        return Bolt(SliceSource(source, 0, source.size, origin), reader.problems)
    except ForensicsError as error:
        reader.problems.add(origin, error)
        return None
