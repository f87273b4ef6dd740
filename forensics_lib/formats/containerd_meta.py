"""containerd's metadata database ``meta.db``: images, content, snapshots, containers and leases of each namespace.

Format: containerd ``core/metadata/buckets.go``, schema ``v1`` (versions 1 to 4 of the database).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from forensics_lib.formats.bbolt import Bucket
from forensics_lib.formats.containerd import Folder, load, text
from forensics_lib.model import Origin, ProblemLog

__all__ = [
    "ContainerEntry",
    "ContentEntry",
    "ImageEntry",
    "IngestEntry",
    "LeaseEntry",
    "Namespace",
    "SnapshotEntry",
    "read_namespaces",
]


@dataclass(frozen=True, slots=True)
class ImageEntry:
    """A name and what it stands for.

    Attributes:
        name: full, e.g. ``docker.io/library/debian:12``.
        digest: of the index or manifest it stands for.
        media_type: of that.
        size: its bytes.
        created_ns: when the name was given, nanoseconds since 1970.
        updated_ns: when it was last given.
        labels: notes of the client.
        annotations: of the descriptor.
        origin: the record.
    """

    name: str
    digest: str
    media_type: str
    size: int | None
    created_ns: int | None
    updated_ns: int | None
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    origin: Origin


@dataclass(frozen=True, slots=True)
class ContentEntry:
    """A blob that a namespace may use.

    Attributes:
        digest: its digest.
        size: its bytes.
        created_ns: when it came, nanoseconds since 1970.
        updated_ns: when its labels were last changed.
        labels: what it refers to (``containerd.io/gc.ref.…``), where it came from (``…/distribution.source.…``).
        origin: the record.
    """

    digest: str
    size: int | None
    created_ns: int | None
    updated_ns: int | None
    labels: Mapping[str, str]
    origin: Origin


@dataclass(frozen=True, slots=True)
class SnapshotEntry:
    """A snapshot by the name that a namespace has for it.

    Attributes:
        snapshotter: which one keeps it.
        key: its name here: a chain id, a container's id …
        name: the snapshotter's name for it, ``<namespace>/<number>/<key>``.
        parent: key of the one below it; empty for a base.
        children: keys of those above it.
        created_ns: when it was made, nanoseconds since 1970.
        labels: notes of the client.
        origin: the record.
    """

    snapshotter: str
    key: str
    name: str
    parent: str
    children: tuple[str, ...]
    created_ns: int | None
    labels: Mapping[str, str]
    origin: Origin


@dataclass(frozen=True, slots=True)
class ContainerEntry:
    """A container as containerd's client described it.

    Attributes:
        id: its id.
        image: name of its image; empty where the client does not say.
        runtime: e.g. ``io.containerd.runc.v2``.
        snapshotter: which one keeps its files.
        snapshot_key: its snapshot.
        sandbox_id: the pod it belongs to.
        created_ns: when it was made, nanoseconds since 1970.
        updated_ns: when the record was last changed.
        labels: notes of the client.
        spec: runtime specification (JSON).
        extensions: type and content of further records, by name.
        origin: the record.
    """

    id: str
    image: str
    runtime: str
    snapshotter: str
    snapshot_key: str
    sandbox_id: str
    created_ns: int | None
    updated_ns: int | None
    labels: Mapping[str, str]
    spec: bytes
    extensions: Mapping[str, tuple[str, bytes]]
    origin: Origin


@dataclass(frozen=True, slots=True)
class LeaseEntry:
    """What keeps things from being collected as garbage.

    Attributes:
        id: its name; Docker gives it the id of the container.
        created_ns: when it was made, nanoseconds since 1970.
        labels: e.g. when it ends (``containerd.io/gc.expire``).
        resources: (type, key) of what it keeps, e.g. ``snapshots/overlayfs``.
        origin: the record.
    """

    id: str
    created_ns: int | None
    labels: Mapping[str, str]
    resources: tuple[tuple[str, str], ...]
    origin: Origin


@dataclass(frozen=True, slots=True)
class IngestEntry:
    """A download that was not completed.

    Attributes:
        ref: the client's name for it, e.g. ``layer-sha256:…``.
        name: the content store's name for it.
        expected: digest it was to have; empty when unknown.
        origin: the record.
    """

    ref: str
    name: str
    expected: str
    origin: Origin


@dataclass(frozen=True, slots=True)
class Namespace:
    """Everything that one client of containerd keeps.

    Attributes:
        name: ``moby`` (Docker), ``k8s.io`` (Kubernetes), ``default`` …
        labels: of the namespace.
        images: by name.
        content: blobs by digest.
        snapshots: by snapshotter and key.
        containers: by id.
        leases: by id.
        ingests: unfinished downloads by their ref.
        origin: where it is recorded.
    """

    name: str
    origin: Origin
    labels: Mapping[str, str] = field(default_factory=dict)
    images: Mapping[str, ImageEntry] = field(default_factory=dict)
    content: Mapping[str, ContentEntry] = field(default_factory=dict)
    snapshots: Mapping[tuple[str, str], SnapshotEntry] = field(default_factory=dict)
    containers: Mapping[str, ContainerEntry] = field(default_factory=dict)
    leases: Mapping[str, LeaseEntry] = field(default_factory=dict)
    ingests: Mapping[str, IngestEntry] = field(default_factory=dict)


def read_namespaces(root: Bucket, origin: Origin, problems: ProblemLog) -> dict[str, Namespace]:
    """The namespaces of a database by name.

    Args:
        root: its root bucket.
        origin: the database.
        problems: told of values that are not what they should be.
    """
    top = load(root, origin, problems).folder(b"v1")
    return {name: _namespace(name, folder) for name, folder in top.named()}


def _namespace(name: str, folder: Folder) -> Namespace:
    ingests = folder.folder(b"content", b"ingests").folders or folder.folder(b"content", b"ingest").folders
    return Namespace(
        name=name,
        origin=folder.origin,
        labels=folder.mapping(b"labels"),
        images={key: _image(key, one) for key, one in folder.folder(b"images").named()},
        content={key: _content(key, one) for key, one in folder.folder(b"content", b"blob").named()},
        snapshots={(one.snapshotter, one.key): one for one in _snapshots(folder.folder(b"snapshots"))},
        containers={key: _container(key, one) for key, one in folder.folder(b"containers").named()},
        leases={key: _lease(key, one) for key, one in folder.folder(b"leases").named()},
        ingests={text(key): _ingest(text(key), one) for key, one in ingests.items()},
    )


def _image(name: str, folder: Folder) -> ImageEntry:
    target = folder.folder(b"target")
    return ImageEntry(
        name=name,
        digest=target.text(b"digest"),
        media_type=target.text(b"mediatype"),
        size=target.signed(b"size"),
        created_ns=folder.time_ns(b"createdat"),
        updated_ns=folder.time_ns(b"updatedat"),
        labels=folder.mapping(b"labels"),
        annotations=folder.mapping(b"annotations"),
        origin=folder.origin,
    )


def _content(digest: str, folder: Folder) -> ContentEntry:
    return ContentEntry(
        digest=digest,
        size=folder.signed(b"size"),
        created_ns=folder.time_ns(b"createdat"),
        updated_ns=folder.time_ns(b"updatedat"),
        labels=folder.mapping(b"labels"),
        origin=folder.origin,
    )


def _snapshots(folder: Folder) -> Iterator[SnapshotEntry]:
    for snapshotter, snapshots in folder.named():
        for key, one in snapshots.named():
            yield SnapshotEntry(
                snapshotter=snapshotter,
                key=key,
                name=one.text(b"name"),
                parent=one.text(b"parent"),
                children=tuple(map(text, one.folder(b"children").values)),
                created_ns=one.time_ns(b"createdat"),
                labels=one.mapping(b"labels"),
                origin=one.origin,
            )


def _container(container_id: str, folder: Folder) -> ContainerEntry:
    extensions = folder.folder(b"extensions")
    return ContainerEntry(
        id=container_id,
        image=folder.text(b"image"),
        runtime=folder.folder(b"runtime").text(b"name"),
        snapshotter=folder.text(b"snapshotter"),
        snapshot_key=folder.text(b"snapshotKey"),
        sandbox_id=folder.text(b"sandboxid"),
        created_ns=folder.time_ns(b"createdat"),
        updated_ns=folder.time_ns(b"updatedat"),
        labels=folder.mapping(b"labels"),
        spec=folder.typed(b"spec")[1],
        extensions={text(key): extensions.typed(key) for key in extensions.values},
        origin=folder.origin,
    )


def _lease(lease_id: str, folder: Folder) -> LeaseEntry:
    resources = [("content", text(key)) for key in folder.folder(b"content").values]
    resources += [("images", text(key)) for key in folder.folder(b"images").values]
    resources += [("ingests", text(key)) for key in folder.folder(b"ingests").values]
    for snapshotter, snapshots in folder.folder(b"snapshots").named():
        resources += [(f"snapshots/{snapshotter}", text(key)) for key in snapshots.values]
    return LeaseEntry(
        lease_id, folder.time_ns(b"createdat"), folder.mapping(b"labels"), tuple(resources), folder.origin
    )


def _ingest(ref: str, folder: Folder) -> IngestEntry:
    return IngestEntry(ref, folder.text(b"ref"), folder.text(b"expected"), folder.origin)
