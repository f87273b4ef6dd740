"""One Docker data root: its containers, images, volumes and networks, as its daemon would have answered."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from forensics_lib.engines.container import Container
from forensics_lib.engines.containerd.store import Containerd
from forensics_lib.engines.docker.backend import backend_of
from forensics_lib.engines.docker.buildcache import BuildCache
from forensics_lib.engines.docker.buildhistory import BuildRecord, read_builds
from forensics_lib.engines.docker.containerd import ContainerdStore, choose_store
from forensics_lib.engines.docker.containers import ContainerRecord, read_containers
from forensics_lib.engines.docker.drivers import DRIVERS, GRAPH_DRIVERS, GraphDriver, driver_of
from forensics_lib.engines.docker.graph import Graph
from forensics_lib.engines.docker.images import ImageDb
from forensics_lib.engines.docker.journald import JournalLog
from forensics_lib.engines.docker.layerdb import LayerDb, LayerRecord, MountRecord
from forensics_lib.engines.docker.links import Find, finder, links_of
from forensics_lib.engines.docker.networks import NetworkStore, decode_networks
from forensics_lib.engines.docker.owner import OrphanLayer, Owners
from forensics_lib.engines.docker.pulls import PullRecord, read_pulls
from forensics_lib.engines.docker.root import DataRoot
from forensics_lib.engines.docker.version import Engine, engine_of
from forensics_lib.engines.docker.volumes import decode_volumes, list_volumes
from forensics_lib.engines.journals import Journals
from forensics_lib.engines.network import Network
from forensics_lib.engines.volume import Volume
from forensics_lib.errors import ForensicsError, PathNotFound
from forensics_lib.formats.bbolt import Bolt
from forensics_lib.formats.jsondoc import JsonObject
from forensics_lib.images.image import Image
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.sources.base import SliceSource
from forensics_lib.sources.decompress import Limits
from forensics_lib.trees.base import Node, NodeKind, join
from forensics_lib.trees.documents import DocumentReader
from forensics_lib.trees.outlet import Outlet

if TYPE_CHECKING:
    pass

__all__ = ["DockerRoot"]

_DEFAULT_ROOT = "/var/lib/docker"
_LINK = re.compile(r"l/[A-Z0-9]{1,32}")
_TRACES = ("rootfs", "buildkit/history_c8d.db", "image/identity-cache.db")
"""What a daemon that keeps its images in containerd leaves in the data root."""


class DockerRoot:
    """Answers for one data root; each store is read when it is first asked for.

    Attributes:
        reader: reads the evidence's tree.
        root: where the data root lies.
        outlet: the way for copies out of the evidence.
        journals: the journals of the evidence, which the log driver ``journald`` writes to.
        hosts: the file systems of hosts in the evidence.
        limits: bounds on what the evidence may ask for.
    """

    def __init__(
        self,
        reader: DocumentReader,
        root: DataRoot,
        limits: Limits,
        outlet: Outlet,
        containerds: Sequence[Containerd] = (),
        journals: Journals | None = None,
        hosts: Sequence[DocumentReader] = (),
    ) -> None:
        """Nothing is read yet; `containerds` are those of the evidence."""
        self.hosts = hosts
        self.reader = reader
        self.root = root
        self.outlet = outlet
        self.journals = journals or Journals([reader])
        self._containerds = containerds
        self.limits = limits
        self._layer_dbs: dict[str, LayerDb] = {}
        self._drivers: dict[str, GraphDriver] = {}

    @cached_property
    def records(self) -> list[ContainerRecord]:
        """The containers' records, newest first."""
        return read_containers(self.reader, self.root)

    @cached_property
    def real_root(self) -> str:
        """The data root's path on the host, as its own records tell."""
        for record in self.records:
            for key in ("HostnamePath", "ResolvConfPath", "LogPath", "HostsPath"):
                start, found, _ = record.config.text(key).partition(f"/containers/{record.id}/")
                if found and start.startswith("/"):
                    return start
        return self.root.path if self.root.path.count("/") > 1 else _DEFAULT_ROOT

    @cached_property
    def engine(self) -> Engine:
        """The release of the engine, as far as the records tell."""
        configs = [record.config for record in self.records]
        has_id = self.reader.find(self.root.at("engine-id")) is not None
        engine = engine_of(configs, engine_id=has_id, networks=self.network_store.networks)
        identities = self.reader.find(self.root.at("image", "identity-cache.db")) is not None
        return Engine(29) if identities and not engine.at_least(29) else engine

    @cached_property
    def store(self) -> ContainerdStore | None:
        """What the daemon keeps in containerd; None when that is nothing, or not in the evidence."""
        return choose_store(self, self._containerds)

    @cached_property
    def graph_drivers(self) -> list[str]:
        """Drivers that this root's own image store was used with, the one with most containers first."""
        return self._by_use(node.name for node in self.reader.folder(self.root.at("image")) if _is_folder(node))

    @cached_property
    def storage_drivers(self) -> list[str]:
        """Graph drivers and snapshotters that layers are recorded of, the one with most containers first."""
        snapshotters = self.store.snapshotters if self.store is not None else []
        return self._by_use(dict.fromkeys([*self.graph_drivers, *snapshotters]))

    def _by_use(self, drivers: Iterable[str]) -> list[str]:
        used = [record.parts.storage_driver for record in self.records]
        return sorted(drivers, key=lambda name: (-used.count(name), name))

    @cached_property
    def containers(self) -> list[Container]:
        """All containers, newest first as ``docker ps -a``."""
        names = self._link_names
        self._note_store()
        found = []
        for record in self.records:
            self._note_state(record)
            parts = replace(record.parts, other_names=names.get(record.id, ()))
            found.append(Container(parts, backend_of(self, record)))
        return found

    @cached_property
    def images(self) -> list[Image]:
        """All images of containerd's store and of the graph drivers' stores, also dangling and intermediate ones."""
        self._note_store()
        found: list[Image] = []
        if self.store is not None:
            from forensics_lib.engines.docker.store_images import store_images

            found += store_images(self, self.store)
        for name in self.graph_drivers:
            store = ImageDb(self.reader, self.root, self.layer_db(name), self.driver(name), self.engine)
            known = {image.id for image in found}
            found += [image for image in store.images() if image.id not in known]
        for name in self.drivers_before_1_10:
            known = {image.id for image in found}
            found += [i for i in Graph(self.reader, self.root, self.driver(name)).images() if i.id not in known]
        return found

    @cached_property
    def drivers_before_1_10(self) -> list[str]:
        """Storage drivers of the image store that Docker had before 1.10."""
        names = [node.name for node in self.reader.folder(self.root.path)]
        drivers = [name.removeprefix("repositories-") for name in names if name.startswith("repositories-")]
        return drivers or [name for name in names if "graph" in names and name in DRIVERS]

    @cached_property
    def volumes(self) -> list[Volume]:
        """All volumes, by name."""
        items, complete = self._read_bucket("volumes/metadata.db", b"volumes")
        records = decode_volumes(items, self.reader)
        return list_volumes(
            self.reader, self.root, self.real_root, records, self.engine, self.last_written_ns, complete=complete
        )

    @cached_property
    def networks(self) -> list[Network]:
        """All networks, by name."""
        return self.network_store.list(self.engine, self.reader.problems)

    @cached_property
    def network_store(self) -> NetworkStore:
        """The documents of the network store."""
        return decode_networks(self.bucket("network/files/local-kv.db", b"libnetwork"), self.reader.problems)

    @cached_property
    def build_cache(self) -> BuildCache:
        """What BuildKit's builds left behind."""
        return BuildCache(self)

    @cached_property
    def build_history(self) -> list[BuildRecord]:
        """The builds that BuildKit remembers, newest first."""
        return read_builds(self)

    @cached_property
    def pull_history(self) -> list[PullRecord]:
        """The layers that were pulled and pushed, oldest first."""
        return read_pulls(self)

    @cached_property
    def owners(self) -> Owners:
        """Whose paths and ids are."""
        return Owners(self)

    def orphans(self) -> list[OrphanLayer]:
        """The layers on the disk that no record names."""
        return self.owners.orphans

    @cached_property
    def daemon_started_ns(self) -> int | None:
        """When the daemon last started, nanoseconds since 1970: it then makes its default network anew."""
        times = [network.created_ns for network in self.networks if network.name == "bridge"]
        return max((time for time in times if time is not None), default=None)

    @cached_property
    def last_written_ns(self) -> int:
        """When the daemon last wrote one of its records, nanoseconds since 1970."""
        paths = [self.root.at("network", "files", "local-kv.db"), self.root.at("volumes", "metadata.db")]
        for record in self.records:
            paths += [join(record.folder, "config.v2.json"), join(record.folder, "hostconfig.json")]
        nodes = [self.reader.find(path) for path in paths]
        return max((node.mtime_ns or 0 for node in nodes if node is not None), default=0)

    def layer_db(self, driver: str) -> LayerDb:
        """The layer records of a storage driver."""
        if driver not in self._layer_dbs:
            db = self.store.layer_db(driver) if self.store is not None and self.is_snapshotter(driver) else None
            self._layer_dbs[driver] = db or LayerDb(self.reader, self.root, driver)
        return self._layer_dbs[driver]

    def layer_of_link(self, driver: str, link: str) -> LayerRecord | None:
        """The layer to whose directory a link of overlay2 leads (``l/ABC``, as a file ``lower`` has it)."""
        path = self.root.at(driver, link)
        if _LINK.fullmatch(link) is None or path not in self.reader.tree:
            return None
        name = (self.reader.tree.node(path).target or "").split("/")
        return self.layer_db(driver).by_cache_id.get(name[1]) if len(name) == 3 else None

    def driver(self, name: str) -> GraphDriver:
        """The reader of a storage driver's directories."""
        if name not in self._drivers:
            snapshots = self.store.driver(name) if self.store is not None and self.is_snapshotter(name) else None
            self._drivers[name] = snapshots or driver_of(
                name, self.reader, self.root, self.layer_db(name), self.real_root
            )
        return self._drivers[name]

    def is_snapshotter(self, name: str) -> bool:
        """Whether a name of a storage driver is that of a snapshotter; some are names of both."""
        return self.store is not None and name in self.store.snapshotters and name not in self.graph_drivers

    def mount(self, record: ContainerRecord) -> MountRecord | None:
        """The record of a container's writable layer; None where there is none."""
        mount = self.layer_db(record.parts.storage_driver).mounts.get(record.id)
        if mount is None and self.drivers_before_1_10:  # the directory then had the container's id
            driver = self.driver(record.parts.storage_driver)
            init = f"{record.id}-init"
            if driver.folder(record.id) in self.reader.tree:
                found = init if driver.folder(init) in self.reader.tree else ""
                return MountRecord(record.id, record.id, found, "", record.config_origin)
        return mount

    def journal_log(self, container_id: str) -> JournalLog:
        """The log of a container in the journals of the evidence."""
        return JournalLog(self.journals, container_id, self.engine.at_least(23))

    def bucket(self, path: str, name: bytes) -> Iterable[tuple[bytes, bytes, Origin]]:
        """Key, value and origin of each record of a bucket; none when the database is missing or unreadable."""
        return self._read_bucket(path, name)[0]

    def _read_bucket(self, path: str, name: bytes) -> tuple[list[tuple[bytes, bytes, Origin]], bool]:
        """The records of a bucket, and whether the database is there and without a fault."""
        node = self.reader.find(self.root.at(*path.split("/")))
        if node is None:
            return [], False
        origin = node.origin.to(node.path.lstrip("/"))
        found: list[tuple[bytes, bytes, Origin]] = []
        faults = ProblemLog()
        try:
            source = node.source()
            database = Bolt(SliceSource(source, 0, source.size, origin), faults)
            bucket = database.root.bucket(name)
            if bucket is not None:
                records = (record for record in bucket.walk() if len(record.path) == len(bucket.path))
                found += [(one.key, one.value, one.origin) for one in records if one.value is not None]
        except ForensicsError as error:
            faults.add(origin, error)
        for fault in faults.rows:
            self.reader.problems.add(fault.origin, fault.error)
        return found, not faults.rows

    def _note_store(self) -> None:
        """Say once when containers or images lie in a store that is not in the evidence."""
        drivers = {record.parts.storage_driver for record in self.records} - GRAPH_DRIVERS - {""}
        traces = any(self.root.at(*path.split("/")) in self.reader.tree for path in _TRACES)
        if self.store is None and (drivers or (traces and not self.graph_drivers)):
            names = ", ".join(sorted(drivers)) or "overlayfs"
            message = f"images and containers' files lie in containerd's store (snapshotter {names}), which is not in "
            message += "the evidence: its root is /var/lib/containerd by default; they are not listed"
            self.reader.problems.add(self.reader.origin.to(self.root.path.lstrip("/")), PathNotFound(message))

    def _note_state(self, record: ContainerRecord) -> None:
        if record.config.object("State").flag("Running"):
            message = f"container {record.parts.name or record.id}: {record.parts.state_note}"
            self.reader.problems.add(record.config_origin, message)

    @cached_property
    def _link_names(self) -> dict[str, tuple[str, ...]]:
        """Further names by container id, from the links of other containers (``parent/alias``)."""
        names: dict[str, tuple[str, ...]] = {}
        for record in self.records:
            for name, alias in links_of(record.host_config):
                child = self.find(name)
                if child is not None:
                    names[child.id] = (*names.get(child.id, ()), f"{record.parts.name}/{alias}")
        return names

    @cached_property
    def default_ulimits(self) -> JsonObject:
        """``default-ulimits`` of the daemon's configuration; empty where that is not in the evidence."""
        path = "/etc/docker/daemon.json"
        if self.root.found_by == "shape" or self.reader.find(path) is None:
            return JsonObject({})
        document = self.reader.document(path)
        return document.object.object("default-ulimits") if document is not None else JsonObject({})

    @cached_property
    def find(self) -> Find:
        """Finds a container's record by name, id or the beginning of its id."""
        return finder(self.records)


def _is_folder(node: Node) -> bool:
    return node.kind is NodeKind.DIR
