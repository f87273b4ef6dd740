"""The bridge to registries: pull an image as evidence, push a report or a recovered image, list what refers to one.

The only part of the library that uses a network. Nothing else imports it, so ask for it by name:

    from forensics_lib import registry

    registry.pull("ubuntu:22.04", "evidence/ubuntu")

oras carries the bytes: credentials (those of ``~/.docker/config.json`` unless a user name is given), tokens, redirects
and uploads. A registry is as hostile as any evidence, so what oras leaves open is closed here: every wait, answer and
blob has a limit, a digest is checked before a path or an address is made of it, and a blob gets its name in the folder
only after its size and digest were found right on disk.

Specifications: OCI Distribution 1.1 (uploads, referrers and their fallback tag), OCI Image 1.1 (layout, index,
manifest, subject), Docker Image Manifest V2 Schema 2.
"""

from __future__ import annotations

import mimetypes
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from oras import defaults

from forensics_lib.errors import AmbiguousName, NotFound
from forensics_lib.formats.jsondoc import JsonObject
from forensics_lib.images.reference import Reference
from forensics_lib.model import Check, Origin, Progress
from forensics_lib.registry.layout import Layout, measure
from forensics_lib.registry.plan import INDEX, MANIFEST, Descriptor, Plan, digest_of, to_json
from forensics_lib.registry.remote import Remote
from forensics_lib.table import Table

__all__ = ["HasManifest", "Pushed", "Referrer", "pull", "push", "push_layout", "referrers"]

_EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
_EMPTY = b"{}"


class HasManifest(Protocol):
    """What a referrer can point to: an image of the library, or what was pushed before."""

    @property
    def raw_manifest(self) -> bytes | None:
        """The exact bytes of its manifest or index; None where there is none, as in old archives."""

    @property
    def manifest_media_type(self) -> str:
        """The media type of those bytes."""


@dataclass(frozen=True, slots=True)
class Pushed:
    """What a registry took; itself a possible subject of the next push.

    Attributes:
        reference: registry, repository and digest: the name that never moves.
        digest: of the manifest or index.
        manifest_media_type: of the manifest or index.
        raw_manifest: its exact bytes.
    """

    reference: str
    digest: str
    manifest_media_type: str
    raw_manifest: bytes


@dataclass(frozen=True, slots=True)
class Referrer:
    """One manifest whose subject is the image that was asked about: a report, a signature, an SBOM.

    Attributes:
        reference: registry, repository and digest; `pull` takes it.
        digest: of the referring manifest.
        size: bytes of the referring manifest.
        media_type: of the referring manifest.
        artifact_type: what it is.
        annotations: (key, value) pairs of it.
    """

    reference: str
    digest: str
    size: int
    media_type: str
    artifact_type: str
    annotations: tuple[tuple[str, str], ...]


def pull(
    reference: str,
    to: str | Path,
    *,
    platform: str | None = None,
    insecure: bool = False,
    username: str | None = None,
    password: str | None = None,
    progress: Progress | None = None,
) -> Table[Check]:
    """Pull an image into an OCI image layout, and verify every byte of it.

    Manifests, indexes and configurations are kept exactly as the registry serves them. A blob that is already in the
    folder and right is not fetched again, so a broken pull goes on where it stopped.

    Args:
        reference: as `docker pull` takes it; ``ubuntu:22.04`` is Docker Hub's ``library/ubuntu``.
        to: a folder that is new, empty, or an OCI image layout to which the image is added. If the layout has an image
            of that name already, the name moves on to the new one, as in an engine.
        platform: ``os/architecture[/variant]``: of an index, fetch only the manifests of that platform and what attests
            them. The index itself is kept whole, because its digest is the one that people quote and sign.
        insecure: speak plain HTTP.
        username: for the registry.
        password: for the registry.
        progress: called with (bytes done, bytes in total) of the blobs.

    Returns:
        A size and a digest check of each blob. A foreign layer that the registry does not hold is one that is not ok.

    Raises:
        NotFound: the registry has no such image, or none for that platform.
        VerificationFailed: a size or digest is not what it should be; the bytes that came are removed. A wrong blob
            that was in the folder before is left as it is.
        UnsupportedFormat: the manifest is of no known kind, or the folder is in other use.
        DamagedData: a manifest is malformed, or names impossible digests or sizes.
        ForensicsError: the registry cannot be reached or refuses; or the disk has too little room.
    """
    with Remote(Reference.parse(reference, default_tag=True), insecure, username, password) as remote:
        top, raw = remote.top()
        layout = Layout.create(Path(to))
        layout.take(top, lambda _: iter((raw,)))

        def read(descriptor: Descriptor) -> bytes:
            layout.take(descriptor, remote.chunks)
            return layout.read(descriptor)

        plan = Plan(top, read, platform)
        layout.reserve(plan.blobs)
        meter = _Meter(plan.blobs, progress)
        for descriptor in plan.blobs.values():
            try:
                layout.take(descriptor, remote.chunks, meter)
            except NotFound:
                if not descriptor.is_foreign:
                    raise
                layout.miss(descriptor)
        layout.name(top, remote.reference)
    return Table(Check, layout.checked(), name=f"pull of {reference}")


def push(
    files: Mapping[str, str | Path] | Sequence[str | Path],
    reference: str,
    *,
    artifact_type: str,
    subject: HasManifest | None = None,
    annotations: Mapping[str, str] | None = None,
    insecure: bool = False,
    username: str | None = None,
    password: str | None = None,
    progress: Progress | None = None,
) -> Pushed:
    """Push files, such as a report, as one OCI artifact, and let it refer to the image that was examined.

    Args:
        files: title and path of each, or paths whose names are the titles.
        reference: where to; without a tag the artifact is found by its digest and as a referrer only.
        artifact_type: what it is, e.g. ``application/vnd.example.report``.
        subject: the examined image; should be in the same repository, because referrers are listed per repository.
        annotations: of the artifact, e.g. ``org.opencontainers.image.created``.
        insecure: speak plain HTTP.
        username: for the registry.
        password: for the registry.
        progress: called with (bytes done, bytes in total).

    Raises:
        PathNotFound: there is no such file.
        NotFound: the subject is of an old archive and has no manifest.
        AmbiguousName: two paths have the same name.
        VerificationFailed: the reference has a digest that the artifact has not, or the registry stored other bytes.
        ForensicsError: the registry cannot be reached or refuses.
    """
    paths = _titled(files)
    blobs = {title: Descriptor(_media_type(title), *measure(path)) for title, path in paths.items()}
    empty = Descriptor(_EMPTY_TYPE, digest_of(_EMPTY), len(_EMPTY))
    layers = [{**blob.entry, "annotations": {defaults.annotation_title: title}} for title, blob in blobs.items()]
    manifest: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": artifact_type,
        "config": empty.entry,
        "layers": layers or [empty.entry],
    }
    if subject is not None:
        manifest["subject"] = _subject(subject)
    if annotations:
        manifest["annotations"] = dict(annotations)
    raw = to_json(manifest)
    meter = _Meter({blob.digest: blob for blob in blobs.values()}, progress)
    target = Reference.parse(reference)
    with Remote(target, insecure, username, password) as remote, tempfile.TemporaryDirectory() as folder:
        remote.require_digest(raw)
        empty_file = Path(folder, "empty.json")
        empty_file.write_bytes(_EMPTY)
        remote.upload(empty_file, empty)
        for title, blob in blobs.items():
            remote.upload(paths[title], blob)
            meter(blob.size)
        return _put(remote, raw, MANIFEST)


def push_layout(
    layout: str | Path,
    reference: str,
    *,
    name: str | None = None,
    subject: HasManifest | None = None,
    insecure: bool = False,
    username: str | None = None,
    password: str | None = None,
    progress: Progress | None = None,
) -> Pushed:
    """Push an image, such as a recovered one, from an OCI image layout; all its platforms, every byte unchanged.

    Everything is verified before the first byte is sent, and the tag is set last.

    Args:
        layout: the folder.
        reference: where to; without a tag the image is found by its digest only.
        name: which image, where the layout holds several: its tag, its full name or its digest.
        subject: what the image refers to. A manifest that was changed would be another image, so an index with that
            subject is put around it.
        insecure: speak plain HTTP.
        username: for the registry.
        password: for the registry.
        progress: called with (bytes done, bytes in total) of the blobs.

    Raises:
        NotFound: the folder is no layout, has no image of that name or lacks a blob.
        AmbiguousName: the layout holds several images, and no name or one that fits several was given.
        VerificationFailed: a blob of the layout is not what its digest says, and nothing was sent; or as `push`.
        UnsupportedFormat: the layout's entry is no image.
        DamagedData: a manifest is malformed.
        ForensicsError: the registry cannot be reached or refuses.
    """
    source = Layout(Path(layout))
    top = source.entry(name)
    plan = Plan(top, source.read)
    blobs = {blob.digest: blob for blob in plan.blobs.values() if not (blob.is_foreign and not source.has(blob))}
    for blob in blobs.values():
        source.verify(blob, source.path(blob))
    raw, media_type = source.read(top), top.media_type
    parts = [part for part in plan.manifests.values() if part != top]
    if subject is not None:
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [top.entry], "subject": _subject(subject)}
        raw, media_type = to_json(index), INDEX
        parts.append(top)
    meter = _Meter(blobs, progress)
    with Remote(Reference.parse(reference), insecure, username, password) as remote:
        remote.require_digest(raw)
        for blob in blobs.values():
            remote.upload(source.path(blob), blob)
            meter(blob.size)
        for part in parts:
            remote.put(source.read(part), part.media_type, part.digest)
        return _put(remote, raw, media_type)


def referrers(
    reference: str,
    *,
    artifact_type: str | None = None,
    insecure: bool = False,
    username: str | None = None,
    password: str | None = None,
) -> Table[Referrer]:
    """The manifests that refer to an image: by the registry's own list, else by the fallback tag ``sha256-…``.

    Args:
        reference: the image; one with a digest needs not be in the registry any more.
        artifact_type: only those of this type.
        insecure: speak plain HTTP.
        username: for the registry.
        password: for the registry.

    Raises:
        NotFound: the reference has a tag that the registry does not know.
        DamagedData: the list is malformed.
        ForensicsError: the registry cannot be reached or refuses.
    """
    with Remote(Reference.parse(reference, default_tag=True), insecure, username, password) as remote:
        digest = remote.reference.digest or remote.top()[0].digest
        rows = [_referrer(remote.name, entry) for entry in remote.referrers(digest)]
    found = [row for row in rows if artifact_type in (None, row.artifact_type)]
    return Table(Referrer, found, name=f"referrers of {reference}")


class _Meter:
    """Adds up the bytes of several blobs."""

    def __init__(self, blobs: Mapping[str, Descriptor], progress: Progress | None) -> None:
        self.done, self.total = 0, sum(blob.size for blob in blobs.values())
        self.progress = progress

    def __call__(self, size: int) -> None:
        self.done += size
        if self.progress is not None:
            self.progress(self.done, self.total)


def _put(remote: Remote, raw: bytes, media_type: str) -> Pushed:
    digest = remote.put(raw, media_type)
    return Pushed(f"{remote.name}@{digest}", digest, media_type, raw)


def _subject(image: HasManifest) -> dict[str, object]:
    # oras.oci.Subject.from_manifest serialises the manifest anew, so its digest is that of other bytes.
    raw = image.raw_manifest
    if raw is None:
        raise NotFound("nothing can refer to an image without a manifest; its archive has none")
    return Descriptor(image.manifest_media_type, digest_of(raw), len(raw)).entry


def _referrer(repository: str, entry: JsonObject) -> Referrer:
    found = Descriptor.parse(entry, Origin(f"referrers in {repository}"))
    annotations = tuple(entry.mapping("annotations").items())
    reference = f"{repository}@{found.digest}"
    return Referrer(reference, found.digest, found.size, found.media_type, entry.text("artifactType"), annotations)


def _titled(files: Mapping[str, str | Path] | Sequence[str | Path]) -> dict[str, Path]:
    if isinstance(files, Mapping):
        return {title: Path(path) for title, path in files.items()}
    paths = [Path(path) for path in files]
    titled = {path.name: path for path in paths}
    if len(titled) < len(paths):
        raise AmbiguousName("two files have the same name; give each a title", tuple(str(path) for path in paths))
    return titled


def _media_type(title: str) -> str:
    kind, encoding = mimetypes.guess_type(title)
    return kind if kind and not encoding else "application/octet-stream"
