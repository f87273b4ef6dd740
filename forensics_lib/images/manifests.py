"""OCI and Docker manifests and indexes: followed from a descriptor to the images and artifacts they describe."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from forensics_lib.errors import DamagedData, ForensicsError, LimitExceeded
from forensics_lib.formats.jsondoc import JsonObject, to_bytes
from forensics_lib.images.config import HistoryEntry, ImageConfig
from forensics_lib.images.image import Artifact, ImageParts, LayerSpec
from forensics_lib.images.reference import Reference
from forensics_lib.images.store import Descriptor, Document, ImageStore
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.sources.base import Source

__all__ = ["IMAGE_NAME", "REF_NAME", "ManifestReader", "familiar", "parse_config", "tags_of"]

IMAGE_NAME = "io.containerd.image.name"
REF_NAME = "org.opencontainers.image.ref.name"
_REFERENCE_TYPE = "vnd.docker.reference.type"
_REFERENCE_DIGEST = "vnd.docker.reference.digest"
_PREDICATE = "in-toto.io/predicate-type"
_CONFIGS = (
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
    "application/vnd.docker.plugin.v1+json",
    "",
)
_ARTIFACT_MANIFEST = "application/vnd.oci.artifact.manifest.v1+json"
_FILES_OF_IMAGES = ("layer", "rootfs", "tar", "octet-stream", "gzip", "zstd")
"""Words of which the media type of a layer has one; those of signatures, SBOMs and other documents have none."""
_ABOUT = re.compile(r"(?:.*:)?(sha256|sha512)-([0-9a-f]+)\.(?:sig|att|sbom)", re.ASCII)
"""Tags by which cosign tells what a signature, attestation or SBOM is about."""
_MAX_DEPTH = 16
_MAX_MANIFESTS = 10_000
_MAX_CHECKED = 4 << 20  # what registries take; a check costs a second for each MiB


@dataclass(slots=True)
class ManifestReader:
    """Follows descriptors and collects what they lead to.

    Attributes:
        store: where blobs are looked up.
        images: one for each platform manifest that is present; names of the same manifest are put together.
        artifacts: manifests that are no image and belong to none of the images.
    """

    store: ImageStore
    images: dict[str, ImageParts] = field(default_factory=dict)
    artifacts: dict[str, Artifact] = field(default_factory=dict)
    _documents: int = 0
    _followed: set[tuple[object, ...]] = field(default_factory=set)

    def index(self, document: Document, *, names: bool = True) -> None:
        """Follow every entry of an index; `names` says whether its annotations name the images."""
        self._check(document, "index")
        for value in document.object.objects("manifests"):
            descriptor = Descriptor.parse(value, document.origin)
            self._follow(descriptor, tags_of(descriptor) if names else (), (), None)
        self.assign_attestations()

    def manifest(self, document: Document, media_type: str = "", descriptor: Descriptor | None = None) -> None:
        """Read one manifest, which may also be an index; nothing describes that of skopeo's dir:."""
        declared = document.object.text("mediaType") or media_type
        own = descriptor or Descriptor(document.digest, len(document.raw), declared, document.origin)
        self._document(document, own, (), (), None)
        self.assign_attestations()

    def _check(self, document: Document, kind: str) -> None:
        problems = self.store.problems
        problems.defer(lambda: _check_schema(document, kind, problems))

    def _follow(
        self, descriptor: Descriptor, tags: tuple[str, ...], above: tuple[str, ...], index_digest: str | None
    ) -> None:
        if descriptor.digest in above:
            error = LimitExceeded(f"manifest {descriptor.digest} leads to itself", origin=descriptor.origin)
            self.store.problems.add(descriptor.origin, error)
            return
        said = frozenset(descriptor.annotations.items())
        key = (descriptor.digest, descriptor.size, descriptor.media_type, tags, said)
        if key in self._followed:
            return  # a few indexes that name each other twice would make millions of ways
        self._followed.add(key)
        known = self.images.get(descriptor.digest)
        if known is not None:
            self.images[descriptor.digest] = replace(known, tags=_merged(known.tags, tags))
            return
        self._documents += 1
        if len(above) > _MAX_DEPTH or self._documents > _MAX_MANIFESTS:
            error = LimitExceeded("too many or too deeply nested manifests", origin=descriptor.origin)
            self.store.problems.add(descriptor.origin, error)
            return
        document = self.store.described(descriptor, "manifest")
        if document is not None:
            self._document(document, descriptor, tags, above, index_digest)

    def _document(
        self,
        document: Document,
        descriptor: Descriptor,
        tags: tuple[str, ...],
        above: tuple[str, ...],
        index_digest: str | None,
    ) -> None:
        value = document.object
        if value.objects("manifests") or (value.get("manifests") == [] and "config" not in value):
            self._check(document, "index")
            for child in value.objects("manifests"):
                entry = Descriptor.parse(child, document.origin)
                self._follow(entry, tags, (*above, descriptor.digest), descriptor.digest)
            return
        if value.integer("schemaVersion") == 1:
            self._schema_one(document, descriptor, tags)
            return
        if value.text("mediaType") != _ARTIFACT_MANIFEST:  # oras has no schema for these
            self._check(document, "manifest")
        config = Descriptor.parse(value.object("config"), document.origin)
        attests = descriptor.annotations.get(_REFERENCE_TYPE)
        no_image = value.text("artifactType") or "config" not in value or _holds_documents(value)
        if attests or no_image or config.media_type not in _CONFIGS:
            self.artifacts[descriptor.digest] = self._artifact(document, descriptor, config)
            return
        self.images[descriptor.digest] = self._image(document, descriptor, config, tags, index_digest)

    def _image(
        self,
        document: Document,
        descriptor: Descriptor,
        config: Descriptor,
        tags: tuple[str, ...],
        index_digest: str | None,
    ) -> ImageParts:
        store, value = self.store, document.object
        found = store.described(config, "configuration") if config.digest else None
        layers = []
        for entry in value.objects("layers"):
            layer = Descriptor.parse(entry, document.origin)
            store.references.append(("layer", layer))
            blob = store.layer("", layer)
            layers.append(LayerSpec(blob, layer.digest or None, _size(blob.stored), layer.media_type, blob.origin))
            _compare_media_type(layer, blob.compression.value, blob.unreadable, store.problems)
        annotations = (*value.mapping("annotations").items(), *descriptor.annotations.items())
        return ImageParts(
            id=config.digest,
            config=parse_config(found, document.origin, store.problems),
            raw_config=found.raw if found is not None else None,
            config_digest=config.digest or None,
            layers=tuple(layers),
            origin=document.origin,
            tags=tags,
            raw_manifest=document.raw,
            manifest_media_type=value.text("mediaType") or descriptor.media_type or _implied(value),
            manifest_digest=descriptor.digest,
            index_digest=index_digest,
            platform=descriptor.platform,
            annotations=annotations,
        )

    def _artifact(self, document: Document, descriptor: Descriptor, config: Descriptor) -> Artifact:
        value = document.object
        contents = []
        blobs: list[Source] = []
        for entry in value.objects("layers") or value.objects("blobs"):
            blob = Descriptor.parse(entry, document.origin)
            self.store.references.append(("artifact blob", blob))
            contents.append((blob.annotations.get(_PREDICATE) or blob.media_type, blob.digest))
            node = self.store.blob(blob.digest)
            content = self.store.content(node) if node is not None else None
            if content is not None:
                blobs.append(content)
        if config.digest:
            self.store.references.append(("artifact configuration", config))
        subject = value.object("subject").text("digest") or descriptor.annotations.get(_REFERENCE_DIGEST)
        about = _ABOUT.fullmatch(descriptor.annotations.get(REF_NAME) or descriptor.annotations.get(IMAGE_NAME) or "")
        if not subject and about is not None:
            subject = f"{about[1]}:{about[2]}"
        kind = config.media_type
        if kind in _CONFIGS:  # of an image, which this is not
            kind = next((layer.text("mediaType") for layer in value.objects("layers")), kind)
        return Artifact(
            digest=descriptor.digest,
            media_type=value.text("mediaType") or descriptor.media_type,
            artifact_type=descriptor.annotations.get(_REFERENCE_TYPE) or value.text("artifactType") or kind,
            subject=subject or None,
            contents=tuple(contents),
            blobs=tuple(blobs),
            raw_manifest=document.raw,
            origin=document.origin,
        )

    def _schema_one(self, document: Document, descriptor: Descriptor, tags: tuple[str, ...]) -> None:
        """Docker's schema 1 of before 2016: layers newest first, each with its own configuration as text."""
        store, value = self.store, document.object
        texts = [entry.text("v1Compatibility") for entry in value.objects("history")]
        layers = []
        for entry in reversed(value.objects("fsLayers")):
            layer = Descriptor(entry.text("blobSum"), None, "", document.origin)
            store.references.append(("layer", layer))
            blob = store.layer("", layer)
            layers.append(LayerSpec(blob, layer.digest, _size(blob.stored), "", blob.origin))
        newest = to_bytes(texts[0]) if texts else b"{}"
        config = ImageConfig.parse(newest, document.origin, store.problems)
        history: list[HistoryEntry] = []
        for text in reversed(texts):
            older = ImageConfig.parse(to_bytes(text), document.origin, store.problems)
            history += older.history
        name = value.text("name")
        own = (f"{name}:{value.text('tag')}",) if name and value.text("tag") else ()
        self.images[descriptor.digest] = ImageParts(
            id=config.id or descriptor.digest,
            config=replace(config, history=tuple(history)),
            raw_config=newest,
            layers=tuple(layers),
            origin=document.origin,
            tags=tags or own,
            raw_manifest=document.raw,
            manifest_media_type=value.text("mediaType") or descriptor.media_type,
            manifest_digest=descriptor.digest,
            legacy=True,
        )

    def assign_attestations(self) -> None:
        """Hang attestations on the images they are about, those of an index on all of its images."""
        for digest, image in self.images.items():
            own = tuple(a for a in self.artifacts.values() if a.subject and a.subject in (digest, image.index_digest))
            self.images[digest] = replace(image, attestations=own)


def _holds_documents(manifest: JsonObject) -> bool:
    """Whether a manifest's layers are documents and not files: cosign stores them beside an image's configuration."""
    types = [layer.text("mediaType") for layer in manifest.objects("layers")]
    return bool(types) and not any(not kind or any(word in kind for word in _FILES_OF_IMAGES) for kind in types)


def parse_config(document: Document | None, origin: Origin, problems: ProblemLog) -> ImageConfig:
    """The configuration of an image; an empty one when the document is missing or no configuration."""
    if document is not None:
        try:
            return ImageConfig.parse(document.raw, document.origin, problems)
        except ForensicsError as error:
            if problems.strict:
                raise
            problems.add(document.origin, error)
    return ImageConfig(JsonObject({}))


def tags_of(descriptor: Descriptor) -> tuple[str, ...]:
    """The names that a descriptor of an index gives its image, as ``docker images`` would show them."""
    names = [descriptor.annotations[key] for key in (IMAGE_NAME, REF_NAME) if descriptor.annotations.get(key)]
    if not names:
        return ()
    return (familiar(names[0]),)


def familiar(name: str) -> str:
    """A name as ``docker images`` shows it; what is no valid name, or only a tag, stays as it is."""
    if "/" not in name and ":" not in name:
        return name
    try:
        return Reference.parse(name).familiar
    except DamagedData:
        return name


def _check_schema(document: Document, kind: str, problems: ProblemLog) -> None:
    """Compare a document with oras's JSON schema; findings are problems and never stop the reading."""
    if len(document.raw) > _MAX_CHECKED:
        problems.add(
            document.origin, f"{kind} of {len(document.raw)} bytes: too large to be compared with the OCI schema"
        )
        return
    import jsonschema
    import oras.schemas

    validator = jsonschema.Draft7Validator(oras.schemas.manifest if kind == "manifest" else oras.schemas.index)
    try:
        for count, error in enumerate(validator.iter_errors(document.value)):
            if count == 10:
                break
            where = "/".join(str(step) for step in error.absolute_path) or "the document"
            problems.add(document.origin, f"{kind} breaks the OCI schema at {where}: {error.message[:300]}")
    except RecursionError:
        problems.add(document.origin, f"{kind} is nested too deep to be checked")


def _compare_media_type(layer: Descriptor, found: str, unreadable: ForensicsError | None, problems: ProblemLog) -> None:
    names = ("gzip", "zstd", "xz", "bzip2")
    declared = next((name for name in names if layer.media_type.endswith((f"+{name}", f".{name}"))), "none")
    if unreadable is None and layer.media_type and declared != found and "+encrypted" not in layer.media_type:
        message = f"layer {layer.digest} is declared as {layer.media_type}, but its compression is {found}"
        problems.add(layer.origin, message)


def _implied(value: JsonObject) -> str:
    import oras.defaults

    config_type = value.object("config").text("mediaType")
    docker = "vnd.docker" in config_type
    chosen: str = oras.defaults.docker_manifest_media_type if docker else oras.defaults.default_manifest_media_type
    return chosen


def _size(stored: Source | None) -> int | None:
    return None if stored is None else stored.size


def _merged(one: Sequence[str], other: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*one, *other)))
