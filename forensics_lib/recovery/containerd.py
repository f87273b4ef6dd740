"""What containerd's store shows of removed things: blobs and directories without a record, records without either.

Sources of what each step of a removal leaves: containerd ``core/metadata/db.go`` (records go first, then what they
named), moby ``daemon/containerd/identitycache`` (images whose signature was looked up), BuildKit's history.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from forensics_lib.engines.containerd.engine import ContainerdEngine
from forensics_lib.engines.containerd.snapshotter import Snapshotter
from forensics_lib.engines.containerd.store import Containerd
from forensics_lib.engines.docker.engine import DockerRoot
from forensics_lib.engines.docker.snapshots import SnapshotDb
from forensics_lib.errors import ForensicsError
from forensics_lib.formats.jsondoc import JsonObject, parse_object, parse_time
from forensics_lib.images.manifests import familiar
from forensics_lib.recovery.blobs import orphan_blob
from forensics_lib.recovery.forms import CONTAINER_ID
from forensics_lib.recovery.remnant import Confidence, Remnant, trace
from forensics_lib.trees.base import NodeKind, join

__all__ = ["node_remnants", "store_remnants"]

_METHOD = "orphan"
_PODS = "var/log/pods"
_LOG = re.compile(r"\d+\.log")
_INTO_THE_STORE = ("image", "moby")
"""Exporters of builds whose images are put into the store; others write files."""


def store_remnants(docker: DockerRoot) -> Iterator[Remnant]:
    """Everything in a daemon's containerd store that lost its owner, and what still names removed images."""
    store = docker.store
    if store is None:
        return
    yield from _blobs(store.containerd)
    yield from _ingests(store.containerd)
    for name in store.snapshotters:
        yield from _records(store.layer_db(name))
    yield from _names(docker)


def node_remnants(engine: ContainerdEngine) -> Iterator[Remnant]:
    """What lost its owner in a containerd without Docker, and the logs of pods that it does not know any more."""
    containerd = engine.containerd
    yield from _blobs(containerd)
    yield from _ingests(containerd)
    for name in containerd.snapshotter_names:
        yield from _directories(containerd.snapshotter(name))
    if containerd.is_whole:  # else nothing tells which pods are there
        yield from _pod_logs(engine)


def _directories(snapshotter: Snapshotter) -> Iterator[Remnant]:
    """Directories of snapshots that were removed, or whose making was broken off."""
    for directory in snapshotter.directories() if snapshotter.snapshots else ():
        if directory not in snapshotter.by_id:
            path = snapshotter.folder(directory)
            yield Remnant(
                kind="layer",
                path=path,
                container_id="",
                image_id="",
                method=_METHOD,
                confidence=Confidence.INTACT,
                complete=False,
                size=None,
                origin=snapshotter.origin,
                detail=f"directory of a snapshot of {snapshotter.name} that no record names",
            )


def _pod_logs(engine: ContainerdEngine) -> Iterator[Remnant]:
    """Logs in kubelet's folder that are of no container there is: ``<pod>/<container>/<n>.log``."""
    reader = engine.containerd.reader
    live = {path.lstrip("/") for path in engine.log_paths}
    home = join(engine.host, _PODS)
    nodes = (
        (pod, container, node)
        for pod in reader.folder(home)
        for container in reader.folder(pod.path)
        for node in reader.folder(container.path)
    )
    for pod, container, node in nodes:
        found = _LOG.match(node.name)
        own = f"{_PODS}/{pod.name}/{container.name}/{found[0]}" if found else ""
        if node.kind is not NodeKind.FILE or not own or own in live:
            continue
        space, _, rest = pod.name.partition("_")
        name, _, uid = rest.rpartition("_")
        yield Remnant(
            kind="log",
            path=node.path,
            container_id="",
            image_id="",
            method=_METHOD,
            confidence=Confidence.INTACT,
            complete=True,
            size=node.size,
            origin=node.origin.to(node.path.lstrip("/")),
            detail=f"log of container {container.name} of the pod {name} in {space} ({uid}), which no record names",
            modified_ns=node.mtime_ns,
            content=node.source(),
        )


def _blobs(containerd: Containerd) -> Iterator[Remnant]:
    """Blobs that no namespace has a record of: what they were part of was removed, or a download was not noted."""
    content, recorded = containerd.content, containerd.recorded
    if not containerd.is_whole:
        return  # without the records nothing tells which blobs have none
    for digest, node in content.digests():
        if digest in recorded:
            continue
        remnant = orphan_blob(node, digest, "blob that no record names", containerd.reader.problems)
        if remnant is not None:
            yield remnant


def _ingests(containerd: Containerd) -> Iterator[Remnant]:
    """Downloads that were not completed: what they were to be, and what had come of it."""
    reader, home = containerd.reader, containerd.content.home
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
            detail = f"{snapshot.kind} snapshot {key} whose directory is gone"
            path = snapshotter.folder(str(snapshot.id))
            yield trace(
                "layer",
                path,
                _METHOD,
                snapshot.origin,
                detail,
                container_id=_container(key),
                modified_ns=snapshot.created_ns,
            )
    if not snapshotter.snapshots:
        return
    for (name, key), entry in db.namespace.snapshots.items():
        if name == db.driver and entry.name not in snapshotter.snapshots:
            detail = f"snapshot {key} that the snapshotter does not have any more"
            container_id, created_ns = _container(key), entry.created_ns
            yield trace("layer", "", _METHOD, entry.origin, detail, container_id=container_id, modified_ns=created_ns)


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
                made = build.created_ns
                yield trace("image", "", "build history", build.origin, detail, image_id=digest, modified_ns=made)
    for key, value, origin in docker.bucket("image/identity-cache.db", b"image-identity-cache-v1"):
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
            detail += f" at {document.text('CachedAt')}"
            yield trace("image", "", "identity cache", origin, detail, image_id=digest, modified_ns=cached)
