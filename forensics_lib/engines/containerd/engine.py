"""containerd as an engine of its own: the containers and images of ctr, nerdctl and Kubernetes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cached_property, partial
from typing import TYPE_CHECKING

from forensics_lib.engines.container import Container
from forensics_lib.engines.containerd.containers import ContainerRecord, read_containers
from forensics_lib.engines.containerd.images import references_of
from forensics_lib.engines.containerd.logs import container_logs
from forensics_lib.engines.containerd.space import SnapshotKeys, Space, directory_of
from forensics_lib.engines.containerd.stack import stack_of
from forensics_lib.engines.containerd.store import Containerd
from forensics_lib.engines.findings import Finding, findings_of
from forensics_lib.engines.logs import LogRecord, Pattern, filter_logs
from forensics_lib.errors import DamagedData, ForensicsError, PathNotFound
from forensics_lib.formats.containerd_meta import ImageEntry
from forensics_lib.formats.containerd_snapshots import Snapshot
from forensics_lib.formats.jsondoc import JsonValue, format_time
from forensics_lib.images.image import Image
from forensics_lib.trees.base import Tree, join
from forensics_lib.trees.changes import diff, hidden_changes
from forensics_lib.trees.index import IndexTree
from forensics_lib.trees.layered import Change
from forensics_lib.trees.outlet import Outlet
from forensics_lib.trees.subtree import Subtree

if TYPE_CHECKING:
    from forensics_lib.engines.save import ImageLayer, Saving

__all__ = ["ContainerdEngine"]

_KUBERNETES = "k8s.io"
_DEFAULT_ROOT = "/var/lib/containerd"


class ContainerdEngine:
    """Answers for one root of containerd, namespace after namespace.

    Attributes:
        containerd: the store.
        outlet: the way for copies out of the evidence.
    """

    def __init__(self, containerd: Containerd, outlet: Outlet, others: Callable[[], Collection[str]]) -> None:
        """Nothing is read yet; `others` gives the namespaces that another engine answers for."""
        self.containerd = containerd
        self.outlet = outlet
        self._others = others

    @cached_property
    def spaces(self) -> list[Space]:
        """The namespaces that nobody else answers for, by name."""
        others = self._others()
        named = sorted(self.containerd.namespaces.items())
        return [Space(self.containerd, namespace) for name, namespace in named if name not in others]

    @property
    def is_used(self) -> bool:
        """Whether there is any image or container."""
        return any(space.namespace.images or space.namespace.containers for space in self.spaces)

    @cached_property
    def _records(self) -> list[tuple[Space, ContainerRecord]]:
        return [(space, record) for space in self.spaces for record in read_containers(space)]

    @property
    def log_paths(self) -> set[str]:
        """Where kubelet keeps the logs of the containers: paths on the host."""
        return {record.cri.text("LogPath") for _, record in self._records}

    @cached_property
    def containers(self) -> list[Container]:
        """All containers, newest first in each namespace."""
        return [Container(record.parts, _Backend(self, space, record)) for space, record in self._records]

    @cached_property
    def images(self) -> list[Image]:
        """All images; one that several namespaces have is listed for each."""
        return [image for space in self.spaces for image in _images(space)]

    @property
    def host(self) -> str:
        """Where the host's root lies in the tree, as far as the place of containerd's own root tells."""
        path = self.containerd.root.path
        return path.removesuffix(_DEFAULT_ROOT) or "/" if path.endswith(_DEFAULT_ROOT) else "/"


def _images(space: Space) -> Iterator[Image]:
    """The images of a namespace, by name; their id is what its client shows: crictl the configuration's digest."""
    name = next(iter(space.snapshotters), "")
    keys = space.keys_in(name) if name else None
    for digest, names in space.entries.items():
        tags, digests = references_of([one for one in names if not one.name.startswith("sha256:")])
        target = space.targets[digest]
        if not target.images:
            _report_no_image(space, names, digest)
        for image in target.images:
            parts = image.parts
            shown = parts.config_digest if space.namespace.name == _KUBERNETES else None
            yield Image(
                replace(
                    parts,
                    id=shown or digest,
                    tags=tags,
                    digests=digests,
                    origin=names[0].origin if names[0].name else parts.origin,
                    content_size=image.content_size,
                    shown_size=image.content_size,
                    stack=stack_of(space, parts, keys),
                ),
                space.containerd.reader.problems,
            )


def _report_no_image(space: Space, names: Sequence[ImageEntry], digest: str) -> None:
    message = f"{', '.join(one.name for one in names)} stands for {digest}, of which no image is in the content store"
    space.containerd.reader.problems.add(names[0].origin, DamagedData(message, origin=names[0].origin))


class _Backend:
    """Answers of one container that need its store."""

    def __init__(self, engine: ContainerdEngine, space: Space, record: ContainerRecord) -> None:
        self._engine = engine
        self._space = space
        self._record = record

    @property
    def outlet(self) -> Outlet:
        return self._engine.outlet

    def inspect(self) -> dict[str, object]:
        """As ``ctr containers info``, with the record of the Kubernetes plugin read."""
        entry, record = self._record.entry, self._record
        return {
            "ID": entry.id,
            "Labels": dict(entry.labels),
            "Image": entry.image,
            "Runtime": {"Name": entry.runtime},
            "Spec": record.spec.raw,
            "SnapshotKey": entry.snapshot_key,
            "Snapshotter": entry.snapshotter,
            "CreatedAt": format_time(entry.created_ns),
            "UpdatedAt": format_time(entry.updated_ns),
            "SandboxID": entry.sandbox_id,
            "Extensions": {"io.cri-containerd": record.cri.raw} if record.cri.raw else {},
        }

    def tree(self) -> Tree:
        keys, snapshot = self._snapshot()
        return keys.snapshotter.tree(directory_of(snapshot))

    def base(self) -> Tree:
        """The file system that it was started from: its image's."""
        keys, snapshot = self._snapshot()
        below = keys.snapshotter.snapshots.get(snapshot.parent)
        if below is None:
            if snapshot.parent:
                raise DamagedData(f"snapshot {snapshot.parent} has no record", origin=snapshot.origin)
            return IndexTree(snapshot.origin)
        return keys.snapshotter.tree(directory_of(below))

    def diff(self) -> Iterator[Change]:
        yield from diff(self.base(), self.tree())

    def hidden_changes(self) -> Iterator[Change]:
        yield from hidden_changes(self.base(), self.tree())

    def logs(self, pattern: Pattern | None, since: datetime | None, until: datetime | None) -> Iterator[LogRecord]:
        containerd = self._engine.containerd
        name = self._space.namespace.name
        records = container_logs(containerd.reader, self._engine.host, name, self._record, containerd.limits)
        return filter_logs(records, pattern, since, until)

    def findings(self) -> Iterator[Finding]:
        origin = self._record.entry.origin
        yield from findings_of(self._record.parts, origin, origin)

    def mount(self, destination: str) -> Tree:
        wanted = destination.rstrip("/")
        for mount in self._record.parts.mounts:
            if mount.destination.rstrip("/") == wanted and mount.source:
                return Subtree(self._engine.containerd.reader.tree, join(self._engine.host, mount.source.lstrip("/")))
        known = ", ".join(mount.destination for mount in self._record.parts.mounts) or "none"
        raise PathNotFound(f"nothing of the host was mounted at {destination}; mount points: {known}")

    def sizes(self) -> tuple[int | None, int | None]:
        try:
            keys, snapshot = self._snapshot()
            written = keys.snapshotter.usage(directory_of(snapshot))
            below = keys.snapshotter.usage_below(directory_of(snapshot))
        except ForensicsError as error:
            self._engine.containerd.reader.problems.add(self._record.entry.origin, error)
            return None, None
        return written, None if written is None or below is None else written + below

    def saving(self) -> Saving:
        from forensics_lib.engines.save import Saving

        parts = self._record.parts
        image = next((one for one in self._engine.images if parts.image_id in (one.id, one.config_digest)), None)
        config = image.config.raw.object("config") if image is not None else self._record.spec.object("process")
        platform: dict[str, JsonValue] = {"os": "linux", "architecture": ""}
        return Saving(
            container_id=parts.id,
            command=(parts.path, *parts.args) if parts.path else parts.args,
            changed_ns=parts.finished_ns or parts.created_ns,
            config=config,
            platform=image.config.raw if image is not None else type(config)(platform),
            history=image.config.history if image is not None else (),
            layers=partial(self._layers, image),
            base=self.base,
            tree=self.tree,
            origin=parts.origin,
        )

    def _layers(self, image: Image | None) -> list[ImageLayer]:
        """The layers of its image, base first.

        Raises:
            DamagedData: they are not those that it lies on.
        """
        from forensics_lib.engines.save import ImageLayer

        keys, snapshot = self._snapshot()
        below = keys.snapshotter.snapshots.get(snapshot.parent)
        top = image.layers[-1].chain_id if image is not None and image.layers else None
        if image is None or below is None or below.key != top:
            raise DamagedData("the layers of its image are not known", origin=snapshot.origin)

        def archive(index: int) -> tuple[int, Iterator[bytes]]:
            blob = image.layers[index].blob
            if blob is None:
                raise PathNotFound("its archive is not in the content store")
            return blob.archive().size, blob.stream()

        return [
            ImageLayer(layer.diff_id or "", partial(archive, layer.index), partial(image.tree, layer.index + 1))
            for layer in image.layers
        ]

    def _snapshot(self) -> tuple[SnapshotKeys, Snapshot]:
        entry = self._record.entry
        if not entry.snapshotter:
            raise PathNotFound(f"container {entry.id}: its record names no snapshotter, its files lie elsewhere")
        keys = self._space.keys_in(entry.snapshotter)
        snapshot = keys.keys.get(entry.snapshot_key)
        if snapshot is None:
            message = f"container {entry.id}: its snapshot {entry.snapshot_key} is not recorded by {entry.snapshotter}"
            raise DamagedData(message, origin=entry.origin)
        return keys, snapshot
