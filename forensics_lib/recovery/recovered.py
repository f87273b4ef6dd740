"""What a removed container still answers: from its recovered record, logs and files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from forensics_lib.engines.docker.containers import ContainerRecord
from forensics_lib.engines.docker.drivers import DRIVERS
from forensics_lib.engines.docker.engine import DockerRoot
from forensics_lib.engines.docker.inspect import inspect_container
from forensics_lib.engines.docker.journald import JournalLog
from forensics_lib.engines.docker.logs import container_logs
from forensics_lib.engines.docker.version import Engine, engine_of
from forensics_lib.engines.findings import Finding, findings_of
from forensics_lib.engines.logs import LogRecord, Pattern, filter_logs
from forensics_lib.engines.save import Saving
from forensics_lib.errors import ForensicsError, PathNotFound, UnsupportedFormat
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.recovery.logs import merged
from forensics_lib.recovery.remnant import Remnant
from forensics_lib.sources.base import Source
from forensics_lib.sources.decompress import Limits
from forensics_lib.trees.base import Node, NodeKind, Tree
from forensics_lib.trees.changes import diff, hidden_changes
from forensics_lib.trees.index import IndexTree
from forensics_lib.trees.layered import Change
from forensics_lib.trees.outlet import Outlet
from forensics_lib.trees.overlay import OverlayTree

__all__ = ["DEFAULT_ROOT", "Recovered", "RecoveredLayer", "RecoveredParts", "recovered_tree"]

_LIMITS = Limits()
DEFAULT_ROOT = "/var/lib/docker"
_SNAPSHOT_DRIVERS = frozenset([*DRIVERS, "devicemapper", "zfs", "windowsfilter", "lcow", ""])
_MOUNT = ("Type", "Name", "Source", "Destination", "Driver", "RW", "Propagation")
_RUNTIME = ("Env", "WorkingDir")
"""What a runtime specification has with the daemon's additions and in an order of its own."""
_WRITTEN_AS = {"Mounts": "MountPoints", "ExecIDs": "State"}
_HOST_PATHS = ("HostnamePath", "ResolvConfPath", "LogPath", "HostsPath")


@dataclass(frozen=True, slots=True)
class RecoveredLayer:
    """A layer of a removed image.

    Attributes:
        chain_id: its name.
        parent: chain id of the layer below; empty for a base, and when it is not known.
        files: its recovered files by their path in it.
    """

    chain_id: str
    parent: str
    files: dict[str, Remnant]


@dataclass(slots=True)
class RecoveredParts:
    """All that was found of one removed container.

    Attributes:
        record: its documents.
        named: files of its folder by their path in it, the best version of each.
        fragments: pieces of its logs that have no name.
        mount_id: directory of its writable layer; empty when it is not known.
        driver: its storage driver; empty when it is not known.
        top: chain id of its image's top layer; empty when it is not known.
        files: recovered files of the writable layer by their path in it.
        lower: the layers of its image whose records were recovered, topmost first.
        is_whole: whether its record is all there, not torn and not put together from what others tell.
        is_specified: whether its runtime specification stands in for the record.
    """

    record: ContainerRecord
    named: dict[str, Remnant] = field(default_factory=dict)
    fragments: list[Remnant] = field(default_factory=list)
    mount_id: str = ""
    driver: str = ""
    top: str = ""
    files: dict[str, Remnant] = field(default_factory=dict)
    lower: list[RecoveredLayer] = field(default_factory=list)
    is_whole: bool = True
    is_specified: bool = False


@dataclass(frozen=True, slots=True)
class _Recovered:
    """Content of a recovered file."""

    bytes: Source

    def source(self) -> Source:
        """The bytes."""
        return self.bytes


class Recovered:
    """Answers of one removed container, as far as they were recovered.

    Args:
        parts: what was found.
        docker: the data root it belonged to; None when that is gone.
        outlet: the way for copies out of the evidence; None when there is none.
        problems: gets what cannot be read.
        journal: its log in the journals of the evidence; by default in those of the data root.
    """

    def __init__(
        self,
        parts: RecoveredParts,
        docker: DockerRoot | None,
        outlet: Outlet | None,
        problems: ProblemLog,
        journal: JournalLog | None = None,
    ) -> None:
        """Nothing is read yet."""
        self._parts = parts
        self._journal = journal or (docker.journal_log(parts.record.id) if docker is not None else None)
        self._record = parts.record
        self._docker = docker
        self._outlet = outlet
        self._problems = problems

    @property
    def outlet(self) -> Outlet:
        """The way for copies out of the evidence."""
        if self._outlet is None:
            raise UnsupportedFormat("nothing can be copied out: no data root of Docker is left in the evidence")
        return self._outlet

    def inspect(self) -> dict[str, object]:
        """What ``docker inspect`` said when the record was written; without the keys of which nothing is known."""
        record, driver = self._record, self._record.parts.storage_driver
        graph_driver: dict[str, object] | None = {"Data": None, "Name": driver}
        answer = inspect_container(
            record,
            self._engine,
            self._real_root,
            graph_driver if driver in _SNAPSHOT_DRIVERS else None,
            self._log_path,
            reloaded=False,
            default_ulimits=self._docker.default_ulimits if self._docker is not None else None,
        )
        if self._parts.is_whole:
            return answer
        told = {key: answer[key] for key in answer if self._is_told(key)}
        if self._parts.is_specified:
            own = record.config.object("Config").raw
            told["Config"] = {key: own[key] for key in own if key not in _RUNTIME}
        points = record.config.object("MountPoints")
        if points.raw:
            mounts = [points.object(name) for name in points.raw]
            told["Mounts"] = [{key: one.get(key) for key in _MOUNT if key in one} for one in mounts]
        return told

    def _is_told(self, key: str) -> bool:
        """Whether a key of the answer comes from what was recovered, and is no default."""
        record = self._record
        match key:
            case "HostConfig":
                return bool(record.host_config.raw)
            case "GraphDriver" | "Storage":
                return bool(record.parts.storage_driver)
            case "Platform":
                return any(name in record.config for name in ("OS", "ImagePlatform", "Platform"))
            case "LogPath":
                return bool(record.config.text("LogPath") or self._log_path)
            case _:
                return key == "Id" or _WRITTEN_AS.get(key, key) in record.config

    @property
    def _engine(self) -> Engine:
        own = engine_of([self._record.config], engine_id=False)
        if self._docker is not None and self._docker.engine.at_least(own.major, own.minor):
            return self._docker.engine
        return own

    @property
    def _real_root(self) -> str:
        for key in _HOST_PATHS:
            start, found, _ = self._record.config.text(key).partition(f"/containers/{self._record.id}/")
            if found and start.startswith("/"):
                return start
        return self._docker.real_root if self._docker is not None else DEFAULT_ROOT

    @property
    def _log_path(self) -> str:
        name = f"{self._record.id}-json.log"
        if self._record.parts.started_ns is None:  # Docker notes the path when the container starts
            return ""
        return f"{self._real_root}/containers/{self._record.id}/{name}" if name in self._parts.named else ""

    def logs(self, pattern: Pattern | None, since: datetime | None, until: datetime | None) -> Iterator[LogRecord]:
        """What it wrote, as far as it was recovered; from pieces each record once."""
        record = self._record
        named = container_logs(
            recovered_tree(self._parts.named, record.config_origin),
            "/",
            record.id,
            record.parts.log_driver,
            "",
            self._problems,
            _LIMITS,
            self._journal,
        )
        if self._parts.fragments:
            return filter_logs(merged(named, self._parts.fragments, self._problems), pattern, since, until)
        return filter_logs(named, pattern, since, until)

    def tree(self) -> Tree:
        """Its image with the files it wrote, as far as both were recovered.

        Deletions of its own are not known, and owners and modes of recovered files neither.
        """
        upper = recovered_tree(self._parts.files, self._record.config_origin)
        if not self._parts.mount_id:
            message = "which directory held the files of the removed container is not known"
            raise UnsupportedFormat(f"container {self._record.id}: {message}")
        layers: list[tuple[Tree, str]] = [(upper, "/"), *self._lower()]
        return OverlayTree(layers, problems=self._problems, origin=self._record.config_origin)

    def base(self) -> Tree:
        """The file system of its image as far as it is left; without it, what it changed shows as added."""
        lower = self._lower()
        if not lower:
            self._problems.add(self._record.config_origin, "no layer of the removed container's image is left")
            return IndexTree(self._record.config_origin)
        return OverlayTree(lower, problems=self._problems, origin=self._record.config_origin)

    def _lower(self) -> list[tuple[Tree, str]]:
        """The layers of its image, topmost first: those that were recovered, then those that are in the evidence."""
        name, found = self._parts.driver, list[tuple[Tree, str]]()
        top = self._parts.top or self._top_of_image()
        for removed in self._parts.lower:
            found.append((recovered_tree(removed.files, self._record.config_origin), "/"))
            top = removed.parent
        if self._docker is None or not (name in DRIVERS or self._docker.is_snapshotter(name)):
            return found
        driver = self._docker.driver(name)
        for layer in self._docker.layer_db(name).chain(top):
            try:
                found.append((driver.alone(layer.cache_id), "/"))
            except ForensicsError as error:
                self._problems.add(layer.origin, error)
            if not driver.shares:  # it is a copy of everything below it
                break
        return found

    def _top_of_image(self) -> str:
        images = self._docker.images if self._docker is not None else []
        for image in images:
            if image.id == self._record.parts.image_id and image.layers:
                return image.layers[-1].chain_id or ""
        return ""

    def diff(self) -> Iterator[Change]:
        """What it added and changed, as far as the files were recovered."""
        yield from diff(self.base(), self.tree())

    def hidden_changes(self) -> Iterator[Change]:
        """What ``docker diff`` would not show of that."""
        yield from hidden_changes(self.base(), self.tree())

    def findings(self) -> Iterator[Finding]:
        """What to look at first."""
        yield from findings_of(self._record.parts, self._record.config_origin, self._record.host_origin)

    def mount(self, destination: str) -> Tree:
        """What was mounted at a path, where that is still in the evidence."""
        from forensics_lib.engines.docker.mounts import mount_tree

        if self._docker is None:
            raise PathNotFound("no data root of Docker is left in the evidence")
        return mount_tree(self._docker, self._record, destination)

    def sizes(self) -> tuple[int | None, int | None]:
        """Not known of a removed container."""
        return None, None

    def saving(self) -> Saving:
        """A removed container cannot be written as an image: its owners, modes and deletions are not known."""
        raise UnsupportedFormat(f"container {self._record.id} was removed; too little is left for an image of it")


def recovered_tree(files: dict[str, Remnant], origin: Origin) -> IndexTree:
    """Recovered files as a tree; owners and modes are not known (0)."""
    tree = IndexTree(origin)
    for path, remnant in files.items():
        if remnant.content is not None:
            place = f"/{path.lstrip('/')}"
            content, size = _Recovered(remnant.content), remnant.content.size
            node = Node(place, NodeKind.FILE, 0, 0, 0, size, remnant.modified_ns, remnant.origin, content=content)
            try:
                tree.put(node)
            except ForensicsError:
                continue
    return tree
