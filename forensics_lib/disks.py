"""The file systems of a disk: its container format, its partitions and volumes, and what each of them holds."""

from __future__ import annotations

import uuid

from forensics_lib.errors import ForensicsError
from forensics_lib.formats.ext4 import is_ext
from forensics_lib.model import ProblemLog
from forensics_lib.opening import FileSystem
from forensics_lib.sources.base import Source
from forensics_lib.sources.decompress import Limits

__all__ = ["find_filesystems"]


def find_filesystems(source: Source, problems: ProblemLog, limits: Limits) -> list[FileSystem]:
    """Every file system that can be read; what cannot is a problem."""
    found = []
    try:
        one = _mount(source.origin.label, source, problems)
        if one is not None:
            found.append(one)
    except ForensicsError as error:
        problems.add(source.origin, error)
    return found


def _mount(name: str, source: Source, problems: ProblemLog) -> FileSystem | None:
    if is_ext(source):
        from forensics_lib.trees.ext import ExtTree

        tree = ExtTree(source, problems)
        geometry = tree.geometry
        state = f"journal replayed ({tree.replayed} blocks)" if tree.replayed else "clean"
        mounted = geometry.mounted_s * 10**9 or None
        identifier = str(uuid.UUID(bytes=geometry.uuid))
        size = geometry.block_count * geometry.block_size
        return FileSystem(name, "ext", tree, source.origin, size, geometry.label, identifier, mounted, state)
    return None
