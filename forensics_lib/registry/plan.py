"""What belongs to an image: found by following descriptors from its manifest or index. Nothing here uses a network.

Specifications: OCI Image 1.1 (descriptor, manifest, index), Docker Image Manifest V2 Schema 2.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from oras import defaults

from forensics_lib.errors import DamagedData, LimitExceeded, NotFound, UnsupportedFormat
from forensics_lib.formats.jsondoc import JsonObject, parse_object
from forensics_lib.images.digest import parse_digest
from forensics_lib.model import Origin

__all__ = ["DOCUMENTS", "INDEX", "INDEXES", "MANIFEST", "Descriptor", "Plan", "digest_of", "media_type_of", "to_json"]

MANIFEST: str = defaults.default_manifest_media_type
INDEX: str = defaults.default_index_media_type
INDEXES = frozenset({INDEX, defaults.docker_manifest_list_media_type})
_MANIFESTS = frozenset({MANIFEST, defaults.docker_manifest_media_type})
DOCUMENTS = _MANIFESTS | INDEXES

_SAYS_NOTHING = frozenset({"", "application/json", "application/octet-stream", "text/plain"})
_ATTESTS = "vnd.docker.reference.digest"
_MAX_DEPTH = 8
_MAX_MANIFESTS = 4096


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A pointer to a blob.

    Attributes:
        media_type: of the blob.
        digest: of the blob; where it was parsed, a valid one.
        size: bytes of the blob.
        platform: ``os/architecture[/variant]``, where an index tells it.
        attests: digest of the manifest that an attestation manifest is about.
    """

    media_type: str
    digest: str
    size: int
    platform: str = ""
    attests: str = ""

    @classmethod
    def parse(cls, document: JsonObject, origin: Origin) -> Descriptor:
        """A descriptor as evidence or a registry gives it.

        Raises:
            DamagedData: its digest or size is impossible.
        """
        digest, size = document.text("digest"), document.integer("size")
        parse_digest(digest, origin=origin)
        if size is None or size < 0:
            raise DamagedData(f"{digest} has no possible size", origin=origin)
        attests = document.mapping("annotations").get(_ATTESTS, "")
        return cls(document.text("mediaType"), digest, size, _platform(document.object("platform")), attests)

    @property
    def entry(self) -> dict[str, object]:
        """The same as JSON, without what only an index says."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size}

    @property
    def is_foreign(self) -> bool:
        """Whether it is a layer that registries need not hold, as the base layers of Windows were."""
        return "nondistributable" in self.media_type or "foreign" in self.media_type


class Plan:
    """The manifests and blobs of an image.

    Args:
        top: its manifest or index.
        read: gives the verified bytes of a manifest, index or configuration.
        platform: keep only what is for this platform, and what attests it.

    Attributes:
        manifests: by digest; what an index lists comes before it.
        blobs: by digest: configurations, layers and whatever else an index lists.

    Raises:
        NotFound: there is nothing for that platform.
        UnsupportedFormat: the top is neither a manifest nor an index.
        DamagedData: a document is malformed or ambiguous.
        LimitExceeded: too many manifests, or nested too deep.
    """

    def __init__(self, top: Descriptor, read: Callable[[Descriptor], bytes], platform: str | None = None) -> None:
        """Read all manifests."""
        if top.media_type not in DOCUMENTS:
            raise UnsupportedFormat(f"{top.digest} is no image manifest or index but {top.media_type[:200]!r}")
        self.manifests: dict[str, Descriptor] = {}
        self.blobs: dict[str, Descriptor] = {}
        self._read = read
        self._platform = _usual(platform) if platform else None
        self._seen: set[str] = set()
        self._found = platform is None
        for chosen in self._choose([top]):
            self._add(chosen, 0)
        if not self._found:
            raise NotFound(f"no image for {platform}; there is {', '.join(sorted(self._seen)) or 'none'}")

    def _add(self, descriptor: Descriptor, depth: int) -> None:
        if descriptor.digest in self.manifests:
            return
        if depth > _MAX_DEPTH or len(self.manifests) >= _MAX_MANIFESTS:
            raise LimitExceeded(f"more than {_MAX_DEPTH} nested indexes or {_MAX_MANIFESTS} manifests")
        children = _children(descriptor, self._read(descriptor))
        is_index = descriptor.media_type in INDEXES
        for child in self._choose(children) if is_index else children:
            if is_index and child.media_type in DOCUMENTS:
                self._add(child, depth + 1)
            elif self.blobs.setdefault(child.digest, child).size != child.size:
                raise DamagedData(f"{child.digest} is said to have different sizes", origin=Origin(descriptor.digest))
        self.manifests[descriptor.digest] = descriptor

    def _choose(self, children: list[Descriptor]) -> list[Descriptor]:
        if self._platform is None:
            return children
        chosen = [child for child in children if child.media_type in INDEXES or self._fits(child, self._platform)]
        digests = {child.digest for child in chosen}
        return chosen + [child for child in children if child.attests in digests]

    def _fits(self, child: Descriptor, wanted: str) -> bool:
        if child.media_type not in _MANIFESTS or child.attests:
            return False
        platform = child.platform
        if not platform:
            config = _children(child, self._read(child))[0]
            platform = _platform(parse_object(self._read(config), Origin(config.digest)))
        self._seen.add(platform)
        fits = platform == wanted or platform.startswith(f"{wanted}/")
        self._found = self._found or fits
        return fits


def digest_of(raw: bytes, like: str | None = None) -> str:
    """The digest of some bytes, by the algorithm of another digest, or by SHA-256."""
    algorithm = "sha512" if like is not None and like.startswith("sha512:") else "sha256"
    return f"{algorithm}:{hashlib.new(algorithm, raw).hexdigest()}"


def media_type_of(raw: bytes, content_type: str, origin: Origin) -> str:
    """The media type of a manifest or index: as it says itself, else as its sender says, else by its shape.

    Raises:
        UnsupportedFormat: it is neither.
        DamagedData: it is no JSON object.
    """
    document = parse_object(raw, origin)
    stated = document.text("mediaType") or content_type.partition(";")[0].strip()
    if stated in DOCUMENTS:
        return stated
    if stated in _SAYS_NOTHING:
        if "manifests" in document:
            return INDEX
        if "config" in document and "layers" in document:
            return MANIFEST
    raise UnsupportedFormat(f"{origin} is no image manifest or index but {stated[:200]!r}")


def to_json(document: Mapping[str, object]) -> bytes:
    """A document as it is stored.

    Raises:
        LimitExceeded: what it carries over from another document is nested too deep.
    """
    try:
        return json.dumps(document).encode("ascii")
    except RecursionError as error:
        raise LimitExceeded("JSON document is nested too deep") from error


def _children(descriptor: Descriptor, raw: bytes) -> list[Descriptor]:
    """What an index lists, or a manifest's configuration and layers."""
    origin = Origin(descriptor.digest)
    document = parse_object(raw, origin)
    if "manifests" in document and ("layers" in document or "config" in document):
        raise DamagedData("a manifest and an index at once: readers would not agree what it is", origin=origin)
    if descriptor.media_type in INDEXES:
        children = document.objects("manifests")
    else:
        children = [document.object("config"), *document.objects("layers")]
    return [Descriptor.parse(child, origin) for child in children]


def _platform(document: JsonObject) -> str:
    parts = (document.text("os"), document.text("architecture"), document.text("variant"))
    return _usual("/".join(part for part in parts if part))


def _usual(platform: str) -> str:
    return "linux/arm64" if platform == "linux/arm64/v8" else platform
