"""Every method of recovery over everything that the evidence has."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from functools import cached_property
from typing import NamedTuple

from forensics_lib.engines.container import Container
from forensics_lib.engines.containerd.engine import ContainerdEngine
from forensics_lib.engines.host.audit import audit_events
from forensics_lib.engines.host.commands import host_commands
from forensics_lib.engines.host.daemon_log import daemon_log
from forensics_lib.errors import ForensicsError
from forensics_lib.formats.btrfs_space import BtrfsSpace
from forensics_lib.holdings import Holdings
from forensics_lib.model import ProblemLog, Progress
from forensics_lib.recovery import btrfs, btrfs_free, ext4, ext4_free, xfs, xfs_free
from forensics_lib.recovery.agree import agreed
from forensics_lib.recovery.assemble import deleted_containers
from forensics_lib.recovery.blobs import unnamed_blobs
from forensics_lib.recovery.carve import carve
from forensics_lib.recovery.containerd import node_remnants, store_remnants
from forensics_lib.recovery.databases import containerd_remnants, copied_records, database_remnants
from forensics_lib.recovery.folders import named_by_contents
from forensics_lib.recovery.free import FreeSpace
from forensics_lib.recovery.host_names import named_by_host_names
from forensics_lib.recovery.journaled import journaled_containers
from forensics_lib.recovery.layers import named_by_layers
from forensics_lib.recovery.libpod import PodmanStates
from forensics_lib.recovery.members import archive_members
from forensics_lib.recovery.orphans import orphans
from forensics_lib.recovery.podman import podman_containers
from forensics_lib.recovery.records import Records, named_by_records
from forensics_lib.recovery.remnant import Remnant
from forensics_lib.recovery.sqlite import copied_rows, journal_rows, sqlite_remnants
from forensics_lib.recovery.witnesses import Witnesses
from forensics_lib.trees.base import Tree
from forensics_lib.trees.btrfs import BtrfsTree
from forensics_lib.trees.ext import ExtTree
from forensics_lib.trees.outlet import Outlet
from forensics_lib.trees.xfs import XfsTree

__all__ = ["Recovery"]


class _Found(NamedTuple):
    """What was found.

    Attributes:
        remnants: each thing once, with every method that found it.
        sightings: the same before equal ones were joined, which keeps what lay beside what.
    """

    remnants: list[Remnant]
    sightings: list[Remnant]


class Recovery:
    """What was deleted from evidence or lost its owner in it; searched for once, when it is first asked for.

    Args:
        holdings: what the evidence holds.
        outlet: the way for copies out of it; told of the search.
        progress: called with bytes done and in total of one file system's journal and free space after another's.
    """

    def __init__(self, holdings: Holdings, outlet: Outlet, progress: Progress | None) -> None:
        """Nothing is searched yet."""
        self._holdings = holdings
        self._outlet = outlet
        self._progress = progress
        self._problems = holdings.store.problems

    @property
    def remnants(self) -> list[Remnant]:
        """Everything that was found, each thing once, with every method that found it."""
        return self._found.remnants

    def containers(self) -> Iterator[Container]:
        """Removed containers, put together again from the remnants, the newest first; then those only journals know."""
        dockers, journals = self._holdings.dockers, self._holdings.journals
        known = {record.id for docker in dockers for record in docker.records}
        remnants = [*self._found.sightings, *self._found.remnants]
        podman = podman_containers(remnants, self._podman, self._problems, self._outlet)
        others = self._podman.live | {container.id for container in podman}
        others |= {container.id for engine in self._containerds() for container in engine.containers}
        told = self._witnesses()
        for container in deleted_containers(self._found.sightings, dockers, self._problems, self._outlet, told):
            known.add(container.id)
            if container.id not in others:
                yield container
        yield from podman
        if journals is not None:
            docker = next(iter(dockers), None)
            yield from journaled_containers(journals, known, docker, self._outlet, self._problems)

    @cached_property
    def _podman(self) -> PodmanStates:
        trees = [filesystem.tree for filesystem in self._holdings.opened.filesystems]
        return PodmanStates(trees, self._holdings.journals, self._problems)

    def _witnesses(self) -> Witnesses:
        """What the hosts' logs and the commands that were typed there tell."""
        hosts, journals = self._holdings.host_files, self._holdings.journals
        return Witnesses(
            daemon_log(hosts, journals), host_commands(hosts, journals), audit_events(hosts, journals), journals
        )

    @cached_property
    def _found(self) -> _Found:
        found = _Found([], [])
        try:
            self._search(found)
        except BaseException:
            self.__dict__["_found"] = found  # a second question gets what there is, and does not search again
            if not self._problems.strict:
                message = "the search for what was deleted was broken off; what was found before is kept"
                self._problems.add(self._holdings.opened.origin, message)
            raise
        self._outlet.done("recover", remnants=len(found.remnants))
        return found

    def _search(self, found: _Found) -> None:
        """Of image evidence, of data roots, their databases, and file systems of disks."""
        holdings, problems = self._holdings, self._problems
        trees = [filesystem.tree for filesystem in holdings.opened.filesystems]
        containerds = self._containerds()
        if holdings.store.references:
            found.sightings.extend(unnamed_blobs(holdings.store))
        for docker in holdings.dockers:
            for find in (orphans, store_remnants, database_remnants):
                found.sightings.extend(find(docker))
        for engine in containerds:
            if engine.is_used:
                found.sightings.extend(node_remnants(engine))
            found.sightings.extend(containerd_remnants(engine.containerd))
        found.remnants.extend(found.sightings)
        found.remnants.extend(sqlite_remnants(trees, problems))
        found.remnants.extend(self._podman.remnants())
        digests = {image.id for docker in holdings.dockers for image in docker.images}
        for tree in trees if holdings.opened.disks else ():
            self._search_disk(tree, digests, found)
        copies = [remnant for remnant in found.remnants if remnant.content is not None]
        stores = [engine.containerd for engine in containerds]
        found.remnants.extend(copied_records(copies, holdings.dockers, problems, stores))
        found.remnants.extend(copied_rows(copies, trees, problems))
        found.remnants.extend(journal_rows(copies, trees, problems))
        members = list(archive_members(found.remnants, problems))
        found.remnants.extend(members)
        found.remnants.extend(archive_members(members, problems))  # a saved image is an archive of archives

    def _containerds(self) -> list[ContainerdEngine]:
        """Those whose own records are searched: where Docker keeps its images in one, it is searched with its root."""
        holdings = self._holdings
        if not holdings.dockers:
            return holdings.containerds
        own = holdings.docker_stores
        return [engine for engine in holdings.containerds if engine.is_used and engine.containerd not in own]

    def _search_disk(self, tree: Tree, digests: Collection[str], found: _Found) -> None:
        """A file system whose blocks are there; a kind in which deleted files are not looked for is a problem."""
        described: list[Remnant] = []
        carved: list[Remnant] = []
        block = 0
        try:
            deleted = _deleted(tree, self._problems, self._progress)
            if deleted is None:
                self._problems.add(tree.origin, "deleted files of this kind of file system are not looked for")
                return
            described.extend(deleted.described)
            for space in deleted.spaces:
                block = space.block
                carved.extend(carve(space, self._problems, self._progress, known=digests))
        except ForensicsError as error:
            self._problems.add(tree.origin, error)
        finally:
            described = list(named_by_contents(described))
            ids = {remnant.container_id for remnant in (*described, *carved)}
            ids |= {record.id for docker in self._holdings.dockers for record in docker.records}
            carved = list(named_by_host_names(carved, ids))
            found.sightings.extend((*described, *carved))
            remnants = named_by_layers(list(agreed(described, carved, self._problems)), self._problems)
            known = Records.of(remnants, self._holdings.dockers)
            found.remnants.extend(named_by_records(remnants, carved, known, block))


class _Deleted(NamedTuple):
    """What a file system still describes, and what it does not describe any more."""

    described: Iterable[Remnant]
    spaces: Iterable[FreeSpace]


def _deleted(tree: Tree, problems: ProblemLog, progress: Progress | None) -> _Deleted | None:
    """How deleted files of one kind of file system are found; None when that is not known."""
    match tree:
        case ExtTree():
            return _Deleted(ext4.undelete(tree, problems, progress), [ext4_free.free_space(tree, problems)])
        case XfsTree():
            return _Deleted(xfs.undelete(tree, problems, progress), [xfs_free.free_space(tree, problems)])
        case BtrfsTree():
            used = BtrfsSpace(tree.volume, problems)
            return _Deleted(btrfs.undelete(tree, used, problems, progress), btrfs_free.free_spaces(tree, used))
        case _:
            return None
