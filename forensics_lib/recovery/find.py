"""Every method of recovery over everything that the evidence has."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from forensics_lib.engines.containerd.engine import ContainerdEngine
from forensics_lib.engines.docker.engine import DockerRoot
from forensics_lib.errors import ForensicsError
from forensics_lib.formats.btrfs_space import BtrfsSpace
from forensics_lib.images.store import ImageStore
from forensics_lib.model import ProblemLog, Progress
from forensics_lib.recovery import btrfs, btrfs_free, ext4, ext4_free, xfs, xfs_free
from forensics_lib.recovery.agree import agreed
from forensics_lib.recovery.blobs import unnamed_blobs
from forensics_lib.recovery.carve import carve
from forensics_lib.recovery.containerd import node_remnants, store_remnants
from forensics_lib.recovery.databases import containerd_remnants, copied_records, database_remnants
from forensics_lib.recovery.free import FreeSpace
from forensics_lib.recovery.layers import named_by_layers
from forensics_lib.recovery.orphans import orphans
from forensics_lib.recovery.remnant import Remnant
from forensics_lib.recovery.sqlite import copied_rows, journal_rows, sqlite_remnants
from forensics_lib.trees.base import Tree
from forensics_lib.trees.btrfs import BtrfsTree
from forensics_lib.trees.ext import ExtTree
from forensics_lib.trees.xfs import XfsTree

__all__ = ["Found", "find_remnants"]


class Found(NamedTuple):
    """What was found.

    Attributes:
        remnants: each thing once, with every method that found it.
        sightings: the same before equal ones were joined, which keeps what lay beside what.
    """

    remnants: list[Remnant]
    sightings: list[Remnant]


def find_remnants(
    store: ImageStore,
    trees: Sequence[Tree],
    disks: Sequence[Tree],
    dockers: Sequence[DockerRoot],
    problems: ProblemLog,
    progress: Progress | None = None,
    found: Found | None = None,
    containerds: Sequence[ContainerdEngine] = (),
) -> Found:
    """What was deleted or lost its owner: of image evidence, of data roots, their databases, and file systems of disks.

    Args:
        store: image evidence.
        trees: everything that can be walked, in which databases of engines may lie.
        disks: file systems whose blocks are there; a kind in which deleted files are not looked for is a problem.
        dockers: the data roots.
        problems: gets what could not be read or searched.
        progress: called with bytes done and in total of one file system's journal and free space after another's.
        containerds: those that no data root keeps its images in.
        found: filled as the search goes on, so that what was found is there when it is broken off.
    """
    found = Found([], []) if found is None else found
    if store.references:
        found.sightings.extend(unnamed_blobs(store))
    for docker in dockers:
        for find in (orphans, store_remnants, database_remnants):
            found.sightings.extend(find(docker))
    for engine in containerds:
        if engine.is_used:
            found.sightings.extend(node_remnants(engine))
        found.sightings.extend(containerd_remnants(engine.containerd))
    found.remnants.extend(found.sightings)
    found.remnants.extend(sqlite_remnants(trees, problems))
    digests = {image.id for docker in dockers for image in docker.images}
    for tree in disks:
        described: list[Remnant] = []
        carved: list[Remnant] = []
        try:
            deleted = _deleted(tree, problems, progress)
            if deleted is None:
                problems.add(tree.origin, "deleted files of this kind of file system are not looked for")
                continue
            described.extend(deleted.described)
            for space in deleted.spaces:
                carved.extend(carve(space, problems, progress, known=digests))
        except ForensicsError as error:
            problems.add(tree.origin, error)
        finally:
            found.sightings.extend((*described, *carved))
            found.remnants.extend(named_by_layers(list(agreed(described, carved, problems)), problems))
    copies = [one for one in found.remnants if one.content is not None]
    found.remnants.extend(copied_records(copies, dockers, problems, [one.containerd for one in containerds]))
    found.remnants.extend(copied_rows(copies, trees, problems))
    found.remnants.extend(journal_rows(copies, trees, problems))
    return found


class _Deleted(NamedTuple):
    """What a file system still describes, and what it does not describe any more."""

    described: Iterable[Remnant]
    spaces: Iterable[FreeSpace]


def _deleted(tree: Tree, problems: ProblemLog, progress: Progress | None) -> _Deleted | None:
    """How deleted files of one kind of file system are found; None when that is not known."""
    match tree:
        case ExtTree():
            return _Deleted(ext4.undelete(tree, problems, progress), [ext4_free.free_space(tree)])
        case XfsTree():
            return _Deleted(xfs.undelete(tree, problems, progress), [xfs_free.free_space(tree, problems)])
        case BtrfsTree():
            used = BtrfsSpace(tree.volume, problems)
            return _Deleted(btrfs.undelete(tree, used, problems, progress), btrfs_free.free_spaces(tree, used))
        case _:
            return None
