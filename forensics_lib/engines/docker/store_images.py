"""Docker's images in containerd's store, as ``docker images``, ``docker inspect`` and ``docker history`` show them.

Rules: moby ``daemon/containerd``: ``image_inspect.go``, ``image_list.go``, ``image_identity.go``, ``image_history.go``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from forensics_lib.engines.containerd.images import PlatformImage, Target, descriptor_of, platform_rank, references_of
from forensics_lib.engines.containerd.stack import chains_of, stack_of, unpacked_size
from forensics_lib.engines.docker.containerd import ContainerdStore
from forensics_lib.errors import DamagedData, ForensicsError
from forensics_lib.formats.containerd_meta import ImageEntry
from forensics_lib.formats.jsondoc import format_time, parse_object, to_bytes
from forensics_lib.images.image import Image, ImageParts

if TYPE_CHECKING:
    from forensics_lib.engines.docker.engine import DockerRoot

__all__ = ["store_images"]

_PARENT = "org.mobyproject.image.parent"
_BUILD = "moby/build.ref."
_SOURCE = "containerd.io/distribution.source."


def store_images(docker: DockerRoot, store: ContainerdStore) -> list[Image]:
    """All images of the store, also dangling ones, newest first; of one index the host's platform first."""
    found: list[Image] = []
    host = _host_platform(docker, store)
    for digest, names in store.entries.items():
        target = store.targets[digest]
        if not target.images:
            _report_no_image(docker, names, target)
        images = sorted(target.images, key=lambda one: platform_rank(_platform(one.parts), host))
        for index, image in enumerate(images):
            found.append(_image(docker, store, names, target, image, chosen=not index))
    return sorted(found, key=lambda image: -(_created(image, found) or 0))


def _created(image: Image, images: Sequence[Image]) -> int | None:
    """When the first platform of an image was made, so that those of one index stay together."""
    first = next(one for one in images if one.id == image.id)
    return first.created_ns


def _report_no_image(docker: DockerRoot, names: Sequence[ImageEntry], target: Target) -> None:
    """Say so when a name stands for nothing that could be shown."""
    entry = names[0]
    what = ", ".join(one.name for one in names if one.name) or entry.digest
    if target.absent:
        message = f"{what} stands for {entry.digest}, of which no manifest of an image is in the content store"
    elif target.artifacts:
        kinds = ", ".join(dict.fromkeys(one.artifact_type for one in target.artifacts))
        message = f"{what} stands for {entry.digest}, which is no image ({kinds})"
    else:
        message = f"{what} stands for {entry.digest}, which lists no manifests"
    docker.reader.problems.add(entry.origin, DamagedData(message, origin=entry.origin))


def _image(
    docker: DockerRoot,
    store: ContainerdStore,
    names: Sequence[ImageEntry],
    target: Target,
    image: PlatformImage,
    *,
    chosen: bool,
) -> Image:
    """One image; `chosen` is the platform that the daemon takes when it is asked for none."""
    entry, parts, engine = names[0], image.parts, docker.engine
    tags, digests = references_of(names)
    descriptor = descriptor_of(entry) if chosen else image.descriptor
    snapshotter = _snapshotter(docker, store)
    layers = store.layer_db(snapshotter) if snapshotter else None
    comment = parts.config.history[-1].comment if parts.config.history else ""
    parent = next((one.labels[_PARENT] for one in names if one.labels.get(_PARENT)), "")
    facts: list[tuple[str, object]] = [
        ("Id", entry.digest if chosen else parts.manifest_digest),
        ("RepoTags", [*tags, *(name for name in digests if _has_own_digest(name, names))]),
        ("Parent", parent),
        ("Comment", comment),
        ("DockerVersion", ""),
        ("Metadata", {"LastTagTime": format_time(max((one.updated_ns or 0 for one in names), default=0))}),
    ]
    if not engine.at_least(29):
        facts.append(("GraphDriver", {"Data": None, "Name": snapshotter or "overlayfs"}))
    if engine.at_least(28):
        facts.append(("Descriptor", dict(descriptor)))
    identity = _identity(store, entry.digest)
    if identity and engine.at_least(29):
        facts.append(("Identity", identity))
    total = sum(one.content_size for one in target.images) + target.artifact_size
    total += sum(unpacked_size(one.parts, layers) for one in target.images)
    return Image(
        replace(
            parts,
            id=entry.digest,
            tags=tags,
            digests=digests,
            origin=entry.origin if entry.name else parts.origin,
            content_size=image.packed_size,
            shown_size=total if chosen else image.content_size + unpacked_size(parts, layers),
            parent=parent,
            legacy=engine.is_legacy,
            without_container=engine.at_least(25),
            shows_unset=engine.shows_unset,
            stack=stack_of(store, parts, layers),
            store_facts=tuple(facts),
        ),
        docker.reader.problems,
    )


def _has_own_digest(familiar: str, names: Sequence[ImageEntry]) -> bool:
    """Whether a name with a digest is the name itself; the daemon lists it among the tags too."""
    return any("@" in entry.name and entry.name.endswith(familiar) for entry in names)


def _identity(store: ContainerdStore, digest: str) -> dict[str, object]:
    """Where an image came from, by the labels of its blob: the builds that made it, repositories of the registry."""
    record = store.namespace.content.get(digest)
    builds: list[dict[str, object]] = []
    repositories: dict[str, None] = {}
    for key, value in sorted(record.labels.items()) if record is not None else ():
        if key.startswith(_BUILD):
            try:
                created = parse_object(to_bytes(value), store.namespace.origin).text("createdAt")
            except ForensicsError:
                continue
            builds.append({"Ref": key.removeprefix(_BUILD), "CreatedAt": created or "0001-01-01T00:00:00Z"})
        elif key.startswith(_SOURCE):
            repositories.update((f"{key.removeprefix(_SOURCE)}/{one}", None) for one in value.split(",") if one)
    identity: dict[str, object] = {"Pull": [{"Repository": name} for name in repositories], "Build": builds}
    return {key: value for key, value in identity.items() if value}


def _host_platform(docker: DockerRoot, store: ContainerdStore) -> str:
    """The platform of the host: what most containers run on, else what most unpacked images are for."""
    counts: Counter[str] = Counter()
    for record in docker.records:
        platform = record.config.object("ImagePlatform")
        if platform.text("architecture"):
            counts[f"{platform.text('os') or 'linux'}/{platform.text('architecture')}"] += 1
    snapshotter = _snapshotter(docker, store)
    if not counts and snapshotter:
        known = store.layer_db(snapshotter).keys
        for target in store.targets.values():
            for image in target.images:
                chains = chains_of(image.parts)
                if chains and chains[-1] in known:
                    counts[f"{image.parts.config.os}/{image.parts.config.architecture}"] += 1
    return counts.most_common(1)[0][0] if counts else "linux/amd64"


def _snapshotter(docker: DockerRoot, store: ContainerdStore) -> str:
    """The snapshotter that images are unpacked into: that of most containers, else of most snapshots."""
    used = Counter(record.parts.storage_driver for record in docker.records)
    return next(iter(sorted(store.snapshotters, key=lambda name: -used[name])), "")


def _platform(parts: ImageParts) -> str:
    config = parts.config
    return parts.platform or "/".join(one for one in (config.os, config.architecture, config.variant) if one)
