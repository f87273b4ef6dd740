"""What a directory of any file system with numbered inodes lists."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

__all__ = ["Directory", "Report", "tidied"]

Report = Callable[[str], None]
"""Takes what breaks a rule, for a person."""


class Directory(NamedTuple):
    """What a directory lists.

    Attributes:
        parent: inode number of ".."; 0 where it is not known.
        entries: inode number by name, in the order of the disk; without "." and "..".
    """

    parent: int
    entries: dict[bytes, int]


def tidied(entries: dict[bytes, int], count: int, report: Report) -> Directory:
    """A directory of the entries that were read, without names that none can have; each of those is reported.

    Args:
        entries: inode number by name, "." and ".." included.
        count: how many were read; more than there are names when some are there twice.
        report: gets what breaks a rule.
    """
    if len(entries) < count:
        report("some of its names are there twice; one of each is shown")
    joined = b"".join(entries)
    if b"/" in joined or b"\0" in joined or b"" in entries:
        for name in [name for name in entries if not name or b"/" in name or b"\0" in name]:
            report(f"it has a name that none can have: {name!r}")
            del entries[name]
    parent = entries.pop(b"..", 0)
    entries.pop(b".", None)
    return Directory(parent, entries)
