"""The part of a containerd that a Docker daemon keeps its images and containers' files in (the default since 29)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from forensics_lib.engines.containerd.root import find_containerd
from forensics_lib.engines.containerd.snapshotter import Snapshotter
from forensics_lib.engines.containerd.space import Space
from forensics_lib.engines.containerd.store import Containerd
from forensics_lib.engines.docker.snapshots import SnapshotDb, SnapshotDriver
from forensics_lib.formats.containerd_meta import Namespace
from forensics_lib.images.layer import SpoolPool
from forensics_lib.sources.decompress import Limits
from forensics_lib.trees.base import join, parent_of
from forensics_lib.trees.documents import DocumentReader

if TYPE_CHECKING:
    from forensics_lib.engines.docker.engine import DockerRoot
    from forensics_lib.engines.docker.root import DataRoot

__all__ = ["ContainerdStore", "choose_store", "find_stores"]

_NAMESPACE = "moby"
_USERNS = re.compile(r"\d+\.\d+")
_MANAGED = "containerd/daemon"


class ContainerdStore(Space):
    """One namespace of one containerd, as one daemon uses it."""

    def layer_db(self, name: str) -> SnapshotDb:
        """The namespace's snapshots in one snapshotter, as records of layers."""
        found = self.keys_in(name)
        assert isinstance(found, SnapshotDb)
        return found

    def _made(self, snapshotter: Snapshotter) -> SnapshotDb:
        return SnapshotDb(snapshotter, self.namespace, self.containerd.reader, lambda: self.archives)

    def driver(self, name: str) -> SnapshotDriver:
        """The reader of one snapshotter's directories."""
        return SnapshotDriver(self.containerd.snapshotter(name), self.containerd.reader)


def find_stores(
    readers: Sequence[DocumentReader], roots: Sequence[DataRoot], limits: Limits, pool: SpoolPool
) -> list[Containerd]:
    """Every containerd of the evidence, those at the places where a daemon of these data roots has it first.

    Args:
        readers: one for each file system.
        roots: the data roots that were found in any of them.
        limits: bounds on what the evidence may ask for.
        pool: disk space for random access to compressed layers.
    """
    near = [(root.at(*_MANAGED.split("/")), "inside the data root") for root in roots]
    near += [(join(parent_of(root.path), "containerd"), "beside the data root") for root in roots]
    return [
        Containerd(reader, root, limits, pool) for reader in readers for root in find_containerd(reader, tuple(near))
    ]


def choose_store(docker: DockerRoot, stores: Sequence[Containerd]) -> ContainerdStore | None:
    """The containerd and namespace that a daemon used: that which has its containers, else by name and place."""
    own_name = docker.root.path.rpartition("/")[2]
    wanted = f"{_NAMESPACE}-{own_name}" if _USERNS.fullmatch(own_name) else _NAMESPACE
    wanted = _configured(docker) or wanted
    best: tuple[tuple[int, bool, bool], ContainerdStore] | None = None
    for containerd in stores:
        inside = containerd.root.path.startswith(f"{docker.root.path.rstrip('/')}/")
        for namespace in _namespaces(containerd, wanted):
            keys = _keys(containerd, namespace)
            held = sum(record.id in keys for record in docker.records)
            if not held and namespace.name != wanted:
                continue
            if not (held or keys or namespace.images or not containerd.is_whole):
                continue
            rank = (held, inside, namespace.name == wanted)
            if best is None or rank > best[0]:
                best = rank, ContainerdStore(containerd, namespace)
    return best[1] if best is not None else None


def _configured(docker: DockerRoot) -> str:
    """The namespace that the daemon's configuration names; empty when it names none."""
    path = "/etc/docker/daemon.json"
    document = docker.reader.document(path) if docker.reader.find(path) is not None else None
    return document.object.text("containerd-namespace") if document is not None else ""


def _namespaces(containerd: Containerd, wanted: str) -> list[Namespace]:
    """Those of the metadata; where that is lost, also those that the snapshotters know, and the one looked for."""
    known = list(containerd.namespaces.values())
    if containerd.is_whole:
        return known
    names = {
        one.namespace
        for name in containerd.snapshotter_names
        for one in containerd.snapshotter(name).snapshots.values()
    }
    origin = containerd.reader.origin.to(containerd.root.path.lstrip("/"))
    return [*known, *(Namespace(name, origin) for name in sorted((names | {wanted}) - {one.name for one in known}))]


def _keys(containerd: Containerd, namespace: Namespace) -> set[str]:
    """Names of a namespace's snapshots, by either database."""
    found = {key for _, key in namespace.snapshots}
    for name in containerd.snapshotter_names:
        snapshots = containerd.snapshotter(name).snapshots.values()
        found |= {one.key for one in snapshots if one.namespace == namespace.name}
    return found
