"""What was pulled and pushed: digests and repositories that outlive the removal of their images.

Docker notes every layer that it gets from a registry or sends to one, and ``docker rmi`` leaves the notes alone.
Containerd's store has none.

Format: moby ``daemon/internal/distribution/metadata``: in ``image/<driver>/distribution`` a file for each uncompressed
layer lists the compressed ones and their repositories, and a file for each of those names the uncompressed one.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from forensics_lib.formats.jsondoc import JsonObject, iter_objects, to_bytes
from forensics_lib.model import Origin, utc_from_ns
from forensics_lib.trees.base import Node, NodeKind, join

if TYPE_CHECKING:
    from forensics_lib.engines.docker.engine import DockerRoot

__all__ = ["PullKind", "PullRecord", "read_pulls"]

_HEX = re.compile(r"[0-9a-f]{64}")
_ANONYMOUS = f"sha256:{hashlib.sha256(b'{}').hexdigest()}".encode()
"""Key of the authentication code when there was neither name nor password: the digest of an empty JSON object."""


class PullKind(StrEnum):
    """How Docker came to know a layer of a registry."""

    PULL = "pull"
    """``docker pull``, or ``docker run`` of an image that was not there."""
    BUILD = "build"
    """A build with BuildKit needed it; the repository is not noted then."""
    PUSH = "push"
    """``docker push``: the layer was sent, or found to be there already."""
    UNKNOWN = "unknown"
    """Only the digest is left, because a push could not make use of the rest of the note."""


@dataclass(frozen=True, slots=True)
class PullRecord:
    """One layer that was pulled from a repository or pushed to it.

    Attributes:
        kind: which of them.
        repository: full name, e.g. ``docker.io/library/alpine``; empty where it is not noted.
        digest: of the compressed layer, as the registry has it.
        diff_id: of the uncompressed layer.
        with_credentials: whether the push gave a name and password or a token; None for pulls, which do not note it.
        recorded_ns: when Docker last noted the digest, nanoseconds since 1970; the same layer of another repository
            counts too, so that this record may be older.
        images: ids of the images in the store that have the layer; none when they were removed.
        origin: the note.
    """

    kind: PullKind
    repository: str
    digest: str
    diff_id: str
    with_credentials: bool | None
    recorded_ns: int | None
    images: tuple[str, ...]
    origin: Origin

    __table_columns__ = ("kind", "repository", "digest", "diff_id", "with_credentials", "recorded", "images", "origin")

    @property
    def recorded(self) -> datetime | None:
        """When Docker last noted the digest (aware UTC)."""
        return utc_from_ns(self.recorded_ns)


def read_pulls(docker: DockerRoot) -> list[PullRecord]:
    """Every note of a data root, oldest first."""
    images = _images_by_layer(docker)
    found: list[PullRecord] = []
    for driver in docker.storage_drivers:
        folder = docker.root.at("image", driver, "distribution")
        digests = {f"sha256:{node.name}": node for node in _files(docker, join(folder, "diffid-by-digest"))}
        for node in _files(docker, join(folder, "v2metadata-by-diffid")):
            found += _notes(docker, node, digests, images)
        known = {record.digest for record in found}
        for digest, node in digests.items():
            if digest not in known:
                found.append(_bare(docker, digest, node, images))
    return sorted(found, key=lambda record: record.recorded_ns or 0)


def _notes(
    docker: DockerRoot, node: Node, digests: Mapping[str, Node], images: Mapping[str, tuple[str, ...]]
) -> Iterator[PullRecord]:
    """The notes of one file, which is named after an uncompressed layer."""
    document = docker.reader.parse(node)
    if document is None:
        return
    if not isinstance(document.value, list):
        docker.reader.problems.add(document.origin, "no list of digests and repositories")
    diff_id = f"sha256:{node.name}"
    for entry in iter_objects(document.value):
        digest = entry.text("Digest")
        kind, with_credentials = _kind(entry)
        yield PullRecord(
            kind=kind,
            repository=entry.text("SourceRepository"),
            digest=digest,
            diff_id=diff_id,
            with_credentials=with_credentials,
            recorded_ns=digests.get(digest, node).mtime_ns,
            images=images.get(diff_id, ()),
            origin=document.origin,
        )


def _bare(docker: DockerRoot, digest: str, node: Node, images: Mapping[str, tuple[str, ...]]) -> PullRecord:
    """What a file tells that is named after a compressed layer."""
    diff_id = docker.reader.text(node.path) or ""
    origin = node.origin.to(node.path.lstrip("/"))
    return PullRecord(PullKind.UNKNOWN, "", digest, diff_id, None, node.mtime_ns, images.get(diff_id, ()), origin)


def _kind(entry: JsonObject) -> tuple[PullKind, bool | None]:
    """Only a push writes an authentication code, and it always does: its key are the credentials, or that of none."""
    digest, repository, code = entry.text("Digest"), entry.text("SourceRepository"), entry.text("HMAC")
    if code:
        anonymous = hmac.new(_ANONYMOUS, to_bytes(digest + repository), hashlib.sha256).hexdigest()
        return PullKind.PUSH, code != anonymous
    return (PullKind.PULL if repository else PullKind.BUILD), None


def _images_by_layer(docker: DockerRoot) -> dict[str, tuple[str, ...]]:
    """Ids of images by the digests of their uncompressed layers."""
    found: dict[str, dict[str, None]] = {}
    for image in docker.images:
        for layer in image.layers:
            found.setdefault(layer.diff_id or "", {})[image.id] = None
    return {diff_id: tuple(ids) for diff_id, ids in found.items()}


def _files(docker: DockerRoot, folder: str) -> Iterator[Node]:
    for node in docker.reader.folder(join(folder, "sha256")):
        if node.kind is NodeKind.FILE and _HEX.fullmatch(node.name):
            yield node
