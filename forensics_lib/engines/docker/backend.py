"""What only a data root can tell of one of its containers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from forensics_lib.engines.container import ContainerBackend
from forensics_lib.engines.docker.containers import ContainerRecord
from forensics_lib.engines.docker.drivers import GRAPH_DRIVERS
from forensics_lib.engines.docker.inspect import inspect_container
from forensics_lib.engines.docker.layerdb import MountRecord
from forensics_lib.engines.docker.logs import container_logs
from forensics_lib.engines.findings import Finding, findings_of
from forensics_lib.engines.logs import LogRecord, Pattern
from forensics_lib.errors import DamagedData, ForensicsError, PathNotFound
from forensics_lib.trees.base import Tree, join
from forensics_lib.trees.changes import diff, hidden_changes
from forensics_lib.trees.layered import Change
from forensics_lib.trees.outlet import Outlet

if TYPE_CHECKING:
    from forensics_lib.engines.docker.engine import DockerRoot
    from forensics_lib.engines.save import Saving

__all__ = ["backend_of"]

_IN_CONTAINERD = "its files lie in containerd's store (snapshotter {}), which is not in the evidence"


def backend_of(docker: DockerRoot, record: ContainerRecord) -> ContainerBackend:
    """Answers of one container that need its data root."""
    return _Backend(docker, record)


class _Backend:
    def __init__(self, docker: DockerRoot, record: ContainerRecord) -> None:
        self._docker = docker
        self._record = record

    def inspect(self) -> dict[str, object]:
        docker, record = self._docker, self._record
        graph_driver: dict[str, object] | None = None
        name = record.parts.storage_driver
        if docker.is_snapshotter(name) or (name and name not in GRAPH_DRIVERS):
            if not docker.engine.at_least(29):
                graph_driver = {"Data": None, "Name": record.parts.storage_driver}
        else:
            mount = docker.mount(record)
            shown_id = record.id if docker.engine.at_least(28) else None
            driver = docker.driver(record.parts.storage_driver)
            if mount is not None and mount.mount_id:
                graph_driver = driver.shown(mount.mount_id, shown_id)
            else:
                graph_driver = {"Data": None, "Name": record.parts.storage_driver}
        return inspect_container(
            record,
            docker.engine,
            docker.real_root,
            graph_driver,
            self._log_path(),
            reloaded=(docker.daemon_started_ns or 0) > (record.parts.created_ns or 0),
            find=docker.find,
            default_ulimits=docker.default_ulimits,
        )

    def tree(self) -> Tree:
        mount = self._mount()
        return self._docker.driver(self._record.parts.storage_driver).tree(mount.mount_id)

    def base(self) -> Tree:
        """The file system the container started from: its image with what Docker puts into every container."""
        mount = self._mount()
        driver = self._docker.driver(self._record.parts.storage_driver)
        if mount.init_id:
            return driver.tree(mount.init_id)
        record = self._docker.layer_db(driver.name).layers.get(mount.parent)
        if record is None:
            raise DamagedData(f"container {self._record.id}: its init layer is not recorded", origin=mount.origin)
        return driver.tree(record.cache_id)

    def diff(self) -> Iterator[Change]:
        for change in diff(self.base(), self.tree()):
            shown = _as_json(change.path)
            yield change if shown == change.path else replace(change, path=shown)

    def hidden_changes(self) -> Iterator[Change]:
        yield from hidden_changes(self.base(), self.tree())

    def logs(self, pattern: Pattern | None, since: datetime | None, until: datetime | None) -> Iterator[LogRecord]:
        docker, record = self._docker, self._record
        return container_logs(
            docker.reader.tree,
            record.folder,
            record.id,
            record.parts.log_driver,
            record.config.text("LogPath"),
            docker.reader.problems,
            docker.limits,
            docker.journal_log(record.id),
            pattern=pattern,
            since=since,
            until=until,
        )

    def findings(self) -> Iterator[Finding]:
        yield from findings_of(self._record.parts, self._record.config_origin, self._record.host_origin)

    @property
    def outlet(self) -> Outlet:
        return self._docker.outlet

    def mount(self, destination: str) -> Tree:
        from forensics_lib.engines.docker.mounts import mount_tree

        return mount_tree(self._docker, self._record, destination)

    def sizes(self) -> tuple[int | None, int | None]:
        from forensics_lib.engines.docker.sizes import root_size, written_size

        docker = self._docker
        try:
            mount = self._mount()
            driver = docker.driver(self._record.parts.storage_driver)
            written = written_size(driver, mount, self.base, self.tree)
            return written, root_size(docker.layer_db(driver.name), mount, written)
        except ForensicsError as error:
            docker.reader.problems.add(self._record.config_origin, error)
            return None, None

    def saving(self) -> Saving:
        from forensics_lib.engines.docker.save import saving_of

        return saving_of(self._docker, self._record, self._mount(), self.base, self.tree, self._docker.limits)

    def _log_path(self) -> str:
        """Where the log lies when the record does not say so, as the daemon finds out when it is asked for it."""
        record = self._record
        name = f"{record.id}-json.log"
        if record.parts.log_driver == "json-file" and join(record.folder, name) in self._docker.reader.tree:
            return f"{self._docker.real_root}/containers/{record.id}/{name}"
        return ""

    def _mount(self) -> MountRecord:
        mount = self._docker.mount(self._record)
        if mount is None or not mount.mount_id:
            driver = self._record.parts.storage_driver
            if driver not in GRAPH_DRIVERS and self._docker.store is None:
                raise PathNotFound(f"container {self._record.id}: {_IN_CONTAINERD.format(driver)}")
            message = f"container {self._record.id}: its writable layer is not recorded by the driver {driver}"
            raise DamagedData(message, origin=self._record.config_origin)
        return mount


def _as_json(path: str) -> str:
    """A path as Docker's answers hold it: bytes that are no UTF-8 are lost there (a change's nodes still have them)."""
    return "".join("\ufffd" if "\udc80" <= character <= "\udcff" else character for character in path)
