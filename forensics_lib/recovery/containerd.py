"""What containerd's store shows of removed things: blobs and directories without a record, records without either.

Sources of what each step of a removal leaves: containerd ``core/metadata/db.go`` (records go first, then what they
named), moby ``daemon/containerd/identitycache`` (images whose signature was looked up), BuildKit's history.
"""

from __future__ import annotations

from collections.abc import Iterator

from forensics_lib.engines.docker.containerd import ContainerdStore
from forensics_lib.engines.docker.engine import DockerRoot
from forensics_lib.engines.docker.snapshots import SnapshotDb
from forensics_lib.errors import ForensicsError
from forensics_lib.formats.jsondoc import JsonObject, parse_object, parse_time
from forensics_lib.images.manifests import familiar
from forensics_lib.model import Origin
from forensics_lib.recovery.blobs import orphan_blob
from forensics_lib.recovery.forms import CONTAINER_ID
from forensics_lib.recovery.remnant import Confidence, Remnant
from forensics_lib.trees.base import NodeKind

__all__ = ["store_remnants"]

_METHOD = "orphan"
_INTO_THE_STORE = ("image", "moby")
"""Exporters of builds whose images are put into the store; others write files."""


def store_remnants(docker: DockerRoot) -> Iterator[Remnant]:
    """Everything in a daemon's containerd store that lost its owner, and what still names removed images."""
    store = docker.store
    if store is None:
        return
    yield from _blobs(docker, store)
    yield from _ingests(store)
    for name in store.snapshotters:
        yield from _records(store.layer_db(name))
    yield from _names(docker)


def _blobs(docker: DockerRoot, store: ContainerdStore) -> Iterator[Remnant]:
    """Blobs that no namespace has a record of: what they were part of was removed, or a download was not noted."""
    content, recorded = store.containerd.content, store.containerd.recorded
    if not store.containerd.is_whole:
        return  # without the records nothing tells which blobs have none
    for digest, node in content.digests():
        if digest in recorded:
            continue
        remnant = orphan_blob(node, digest, "blob that no record names", docker.reader.problems)
        if remnant is not None:
            yield remnant


def _ingests(store: ContainerdStore) -> Iterator[Remnant]:
    """Downloads that were not completed: what they were to be, and what had come of it."""
    reader, home = store.containerd.reader, store.containerd.content.home
    for folder in reader.folder(f"{home}/ingest"):
        if folder.kind is not NodeKind.DIR:
            continue
        node = reader.find(f"{folder.path}/data")
        ref, total = reader.text(f"{folder.path}/ref") or "", reader.text(f"{folder.path}/total") or ""
        started = reader.text(f"{folder.path}/startedat") or ""
        detail = f"download that was not completed: {ref.split('/', 2)[-1] or 'unknown'}"
        detail += f", {node.size if node is not None else 0} of {total or 'an unknown number of'} bytes"
        yield Remnant(
            kind="layer" if "layer-" in ref else "image" if "manifest-" in ref or "index-" in ref else "record",
            path=node.path if node is not None else folder.path,
            container_id="",
            image_id="",
            method=_METHOD,
            confidence=Confidence.INTACT if node is not None and node.size else Confidence.METADATA_ONLY,
            complete=node is not None and total == str(node.size),
            size=node.size if node is not None else None,
            origin=folder.origin.to(folder.path.lstrip("/")),
            detail=detail + (f", begun {started}" if started else ""),
            modified_ns=node.mtime_ns if node is not None else folder.mtime_ns,
            content=node.source() if node is not None and node.size else None,
        )


def _records(db: SnapshotDb) -> Iterator[Remnant]:
    """Snapshots whose directory is gone, and those that the namespace still names without their being recorded."""
    snapshotter = db.snapshotter
    for key, snapshot in db.keys.items() if snapshotter.is_reachable else ():
        if not snapshotter.exists(str(snapshot.id)):
            yield Remnant(
                kind="layer",
                path=snapshotter.folder(str(snapshot.id)),
                container_id=_container(key),
                image_id="",
                method=_METHOD,
                confidence=Confidence.METADATA_ONLY,
                complete=False,
                size=None,
                origin=snapshot.origin,
                detail=f"{snapshot.kind} snapshot {key} whose directory is gone",
                modified_ns=snapshot.created_ns,
            )
    if not snapshotter.snapshots:
        return
    for (name, key), entry in db.namespace.snapshots.items():
        if name == db.driver and entry.name not in snapshotter.snapshots:
            yield Remnant(
                kind="layer",
                path="",
                container_id=_container(key),
                image_id="",
                method=_METHOD,
                confidence=Confidence.METADATA_ONLY,
                complete=False,
                size=None,
                origin=entry.origin,
                detail=f"snapshot {key} that the snapshotter does not have any more",
                modified_ns=entry.created_ns,
            )


def _container(key: str) -> str:
    return key[:64] if CONTAINER_ID.fullmatch(key[:64]) else ""


def _names(docker: DockerRoot) -> Iterator[Remnant]:
    """Images that were removed and that the history of builds or the cache of signatures still names."""
    present = {digest for image in docker.images for digest in (image.id, image.manifest_digest, image.index_digest)}
    for build in docker.build_history:
        stored = any(exporter.type in _INTO_THE_STORE for exporter in build.exporters)
        for digest in build.results if stored else ():
            if digest not in present:
                names = ", ".join(familiar(name) for name in build.images) or "without a name"
                detail = f"image {names} that build {build.ref} made and that is not in the store any more"
                yield _named(digest, detail, "build history", build.origin, build.created_ns)
    for key, value, origin in docker._bucket("image/identity-cache.db", b"image-identity-cache-v1"):
        digest, _, rest = key.decode("utf-8", "surrogateescape").partition("|")
        if digest not in present:
            manifest, _, platform = rest.partition("|")
            try:
                document = parse_object(value, origin)
            except ForensicsError as error:
                docker.reader.problems.add(origin, error)
                document = JsonObject({})
            detail = f"image of {platform or 'an unknown platform'} (manifest {manifest}) that was in the store"
            cached = parse_time(document.text("CachedAt"))[1]
            yield _named(digest, f"{detail} at {document.text('CachedAt')}", "identity cache", origin, cached)


def _named(digest: str, detail: str, method: str, origin: Origin, modified_ns: int | None) -> Remnant:
    return Remnant(
        kind="image",
        path="",
        container_id="",
        image_id=digest,
        method=method,
        confidence=Confidence.METADATA_ONLY,
        complete=False,
        size=None,
        origin=origin,
        detail=detail,
        modified_ns=modified_ns,
    )
