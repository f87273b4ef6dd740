"""What a name of containerd's image store stands for: a manifest, or an index of several, as far as they are there.

Rules of what counts: containerd ``core/images``; moby ``daemon/containerd/image_list.go`` for sizes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from forensics_lib.engines.containerd.content import ContentStore
from forensics_lib.errors import DamagedData, ForensicsError
from forensics_lib.formats.containerd_meta import ImageEntry
from forensics_lib.formats.jsondoc import JsonObject, JsonValue, parse_object
from forensics_lib.images.image import Artifact, ImageParts
from forensics_lib.images.manifests import ManifestReader
from forensics_lib.images.reference import Reference
from forensics_lib.images.store import Descriptor, Document
from forensics_lib.model import Origin

__all__ = ["PlatformImage", "Target", "descriptor_of", "platform_rank", "read_target", "references_of"]

_DANGLING = "moby-dangling@"
"""What Docker puts before the digest of an image without a name."""
_MAX_DEPTH = 16
_MAX_MANIFESTS = 10_000
_ARM = ("", "v8", "v7", "v6", "v5")
_RUNS = {"amd64": ("amd64", "386"), "arm64": ("arm64", "arm")}


@dataclass(frozen=True, slots=True)
class PlatformImage:
    """One platform's image of a target.

    Attributes:
        parts: the image, its id being the digest of the configuration.
        descriptor: how the index, or the name itself, describes the manifest (JSON).
        packed_size: bytes of all blobs on the way from the target to the layers, as their descriptors say.
        content_size: bytes of manifest, configuration and layers, those that are there.
    """

    parts: ImageParts
    descriptor: Mapping[str, JsonValue]
    packed_size: int
    content_size: int


@dataclass(frozen=True, slots=True)
class Target:
    """What a digest leads to.

    Attributes:
        images: one for each platform whose manifest is there, in the order of the index.
        artifacts: manifests that are no images: attestations and the like.
        artifact_size: bytes of their manifests and blobs, those that are there.
        absent: digests of the manifests that the index lists and that are not there.
        origin: the target's blob.
    """

    images: tuple[PlatformImage, ...]
    artifacts: tuple[Artifact, ...]
    artifact_size: int
    absent: tuple[str, ...]
    origin: Origin


@dataclass(frozen=True, slots=True)
class _Step:
    """A manifest on the way from the target: its descriptor and the bytes of the indexes above it."""

    value: JsonObject
    above: int


def read_target(content: ContentStore, entry: ImageEntry) -> Target:
    """Follow an image's descriptor; what was never fetched is left out, what is lost becomes a problem."""
    descriptor = descriptor_of(entry)
    target = Descriptor.parse(JsonObject(dict(descriptor)), entry.origin)
    document = content.described(target, "manifest")
    if document is None:
        return Target((), (), 0, (target.digest,), entry.origin)
    reader = ManifestReader(content)
    reader.manifest(document, descriptor=target)
    steps = {step.value.text("digest"): step for step in _steps(content, JsonObject(dict(descriptor)), document)}
    found = []
    for digest, parts in reader.images.items():
        step = steps.get(digest, _Step(JsonObject({}), 0))
        named, present = _sizes(content, parts.raw_manifest or b"", parts.origin)
        own = step.value.integer("size") or 0
        found.append(PlatformImage(parts, step.value.raw, step.above + own + named, own + present))
    artifacts = tuple(reader.artifacts.values())
    size = sum(len(one.raw_manifest) + _sizes(content, one.raw_manifest, one.origin)[1] for one in artifacts)
    known = {*reader.images, *reader.artifacts}
    absent = tuple(d for d, step in steps.items() if d not in known and not _is_index(step.value))
    return Target(tuple(found), artifacts, size, absent, document.origin)


def descriptor_of(entry: ImageEntry) -> Mapping[str, JsonValue]:
    """The descriptor of what a name stands for (JSON)."""
    descriptor: dict[str, JsonValue] = {"mediaType": entry.media_type, "digest": entry.digest, "size": entry.size}
    return descriptor | ({"annotations": dict(entry.annotations)} if entry.annotations else {})


def references_of(names: Sequence[ImageEntry]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names with a tag and names with a digest; a dangling image has none of either."""
    tags: dict[str, None] = {}
    digests: dict[str, None] = {}
    for entry in names:
        if entry.name.startswith(_DANGLING) or not entry.name:
            continue
        try:
            reference = Reference.parse(entry.name)
        except DamagedData:
            tags[entry.name] = None
            continue
        if reference.digest is None:
            tags[reference.familiar] = None
        digest = reference.digest or entry.digest
        shown = replace(reference, tag=reference.tag if reference.digest else None, digest=digest)
        digests[shown.familiar] = None
    return tuple(tags), tuple(digests)


def platform_rank(platform: str, host: str) -> int:
    """How well an image's platform suits a host, 0 best; as containerd orders them (``platforms.Only``).

    >>> platform_rank("linux/amd64", "linux/amd64"), platform_rank("linux/arm/v7", "linux/arm64")
    (0, 12)
    """
    system, _, machine = platform.partition("/")
    architecture, _, variant = machine.partition("/")
    host_system, _, host_machine = host.partition("/")
    runs = _RUNS.get(host_machine.partition("/")[0], (host_machine.partition("/")[0],))
    if system != host_system or architecture not in runs:
        return 100
    return 10 * runs.index(architecture) + (_ARM.index(variant) if variant in _ARM else 0)


def _steps(content: ContentStore, target: JsonObject, document: Document) -> Iterator[_Step]:
    """Every descriptor on the way from the target down, the target first."""
    pending: list[tuple[JsonObject, Document | None, int, int]] = [(target, document, 0, 0)]
    seen: set[str] = set()
    while pending and len(seen) < _MAX_MANIFESTS:
        value, found, above, depth = pending.pop(0)
        if value.text("digest") in seen:
            continue
        seen.add(value.text("digest"))
        yield _Step(value, above)
        if found is None and _is_index(value) and (node := content.blob(value.text("digest"))) is not None:
            found = content.parse(node)
        if found is not None and depth < _MAX_DEPTH:
            size = above + (value.integer("size") or 0)
            pending += [(child, None, size, depth + 1) for child in found.object.objects("manifests")]


def _is_index(value: JsonObject) -> bool:
    return value.text("mediaType").endswith(("image.index.v1+json", "manifest.list.v2+json"))


def _sizes(content: ContentStore, manifest: bytes, origin: Origin) -> tuple[int, int]:
    """Bytes of what a manifest names: all of it, and what is there."""
    try:
        document = parse_object(manifest, origin)
    except ForensicsError:
        return 0, 0  # the reader of manifests has told why
    children: Sequence[JsonObject] = [document.object("config"), *document.objects("layers")]
    sizes = [(child.text("digest"), child.integer("size") or 0) for child in children if child.text("digest")]
    return sum(size for _, size in sizes), sum(size for digest, size in sizes if content.blob(digest) is not None)
