"""A container image: its configuration, its layers, and what can be answered from them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property

from forensics_lib._cells import shown
from forensics_lib.errors import AmbiguousName, DamagedData, NotFound, PathNotFound
from forensics_lib.images.config import ImageConfig
from forensics_lib.images.digest import chain_ids
from forensics_lib.images.history import Alignment, HistoryStep, align
from forensics_lib.images.inspect import inspect_config
from forensics_lib.images.layer import Layer, LayerBlob, Stack
from forensics_lib.images.stack import FileVersion, HiddenFile, LayerStack
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.sources.base import Source
from forensics_lib.table import Table
from forensics_lib.trees.base import Tree

__all__ = ["Artifact", "Image", "ImageParts", "LayerSpec"]


@dataclass(frozen=True, slots=True)
class Artifact:
    """A manifest that is no image: an attestation, a signature, a report, a chart.

    Attributes:
        digest: digest of the manifest.
        media_type: of the manifest.
        artifact_type: what it says it is; where it says nothing, the media type of its configuration or, if that is an
            image's, of its first blob.
        subject: digest of the manifest it is about; None where it names none.
        contents: (media type or predicate type, digest) of each blob.
        blobs: the bytes of each blob, in the same order; missing ones are left out.
        raw_manifest: exact bytes of the manifest.
        origin: where the manifest lies.
    """

    digest: str
    media_type: str
    artifact_type: str
    subject: str | None
    contents: tuple[tuple[str, str], ...]
    blobs: tuple[Source, ...]
    raw_manifest: bytes
    origin: Origin

    __table_columns__ = ("digest", "media_type", "artifact_type", "subject", "contents", "origin")


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """What a reader knows of one layer of an image."""

    blob: LayerBlob | None
    digest: str | None
    size: int | None
    media_type: str
    origin: Origin


@dataclass(frozen=True, slots=True)
class ImageParts:
    """What a reader of an archive found of one image.

    Attributes:
        id: what the tool of that store shows; for archives the configuration's digest.
        config: the parsed configuration; an empty one when it is missing.
        raw_config: exact bytes of it; None when it is missing.
        layers: base first.
        origin: the document that names the image.
        tags: names with a tag, as ``docker images`` shows them.
        digests: names with a digest.
        raw_manifest: exact bytes of the manifest; None where the archive has none.
        manifest_media_type: declared or implied.
        index_digest: digest of the index that lists the manifest.
        platform: as the index states it.
        content_size: bytes of index, manifest, configuration and stored layers together, where the engine that wrote
            the archive counts an image's size so.
        shown_size: bytes that the engine's own list shows for it, where that is not the size of its files.
        parent: id of the image it was built on, where the archive states it.
        legacy: the engine that wrote it shows every field, as Docker did before 28.2.
        without_container: it shows nothing of the container that the image was made from, as Docker since 25.
        shows_unset: it shows what is set, and some fields even when they are not, as Docker 28.2 to 28.5.
        annotations: of the manifest and its descriptor.
        attestations: what is about the image.
        stack: the layers, where they are no archives.
        store_facts: what only the engine's store knows, as (field of ``docker image inspect``, value).
    """

    id: str
    config: ImageConfig
    raw_config: bytes | None
    layers: tuple[LayerSpec, ...]
    origin: Origin
    config_digest: str | None = None
    tags: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()
    raw_manifest: bytes | None = None
    manifest_media_type: str = ""
    manifest_digest: str | None = None
    index_digest: str | None = None
    platform: str = ""
    content_size: int | None = None
    shown_size: int | None = None
    parent: str = ""
    legacy: bool = False
    without_container: bool = False
    shows_unset: bool = False
    annotations: tuple[tuple[str, str], ...] = ()
    attestations: tuple[Artifact, ...] = ()
    stack: Stack | None = None
    store_facts: tuple[tuple[str, object], ...] = ()


class Image:
    """One image of one platform.

    Attributes:
        config: the configuration, typed.
        layers: base first.
        attestations: provenance, SBOMs and the like that are about this image.
    """

    __table_columns__ = ("id", "tags", "platform", "created", "stored_size", "origin")

    def __init__(self, parts: ImageParts, problems: ProblemLog) -> None:
        """Combine what a reader found; no layer is read yet."""
        self._parts = parts
        self._problems = problems
        self.config = parts.config
        self.attestations = parts.attestations
        blobs = [spec.blob for spec in parts.layers if spec.blob is not None]
        self.stack: Stack = parts.stack or LayerStack(blobs, parts.origin, problems)
        self.layers = self._build_layers()

    def __repr__(self) -> str:
        """Name and id."""
        name = ", ".join(self.tags) or "<none>"
        return shown(f"Image({name}, {self.id[:19]}, {self.platform}, {len(self.layers)} layers)", 300)

    @property
    def id(self) -> str:
        """The id that the tool of that store shows; for archives the digest of the configuration."""
        return self._parts.id

    @property
    def origin(self) -> Origin:
        """The document of the evidence that names the image."""
        return self._parts.origin

    @property
    def tags(self) -> tuple[str, ...]:
        """Names with a tag, as ``docker images`` shows them."""
        return self._parts.tags

    @property
    def digests(self) -> tuple[str, ...]:
        """Names with a digest, as ``docker images --digests`` shows them."""
        return self._parts.digests

    @property
    def config_digest(self) -> str | None:
        """Digest that names the configuration; None where nothing states it."""
        return self._parts.config_digest

    @property
    def manifest_digest(self) -> str | None:
        """Digest of the manifest; None where the archive has none."""
        return self._parts.manifest_digest

    @property
    def index_digest(self) -> str | None:
        """Digest of the index that lists the manifest; None where there is none."""
        return self._parts.index_digest

    @property
    def raw_config(self) -> bytes | None:
        """Exact bytes of the configuration; None when it is missing."""
        return self._parts.raw_config

    @property
    def raw_manifest(self) -> bytes | None:
        """Exact bytes of the manifest; None where the archive has none."""
        return self._parts.raw_manifest

    @property
    def manifest_media_type(self) -> str:
        """Media type of the manifest; empty where the archive has none."""
        return self._parts.manifest_media_type

    @property
    def annotations(self) -> tuple[tuple[str, str], ...]:
        """Annotations of the manifest, then those of the descriptor that names it."""
        return self._parts.annotations

    @property
    def architecture(self) -> str:
        """CPU architecture by Go's name, e.g. ``amd64``."""
        return self.config.architecture

    @property
    def os(self) -> str:
        """Operating system by Go's name."""
        return self.config.os

    @property
    def platform(self) -> str:
        """``os/architecture[/variant]``, from the configuration, else from the index."""
        parts = (self.config.os, self.config.architecture, self.config.variant)
        return "/".join(part for part in parts if part) or self._parts.platform

    @property
    def created(self) -> datetime | None:
        """When the image was made (aware UTC)."""
        return self.config.created

    @property
    def created_ns(self) -> int | None:
        """When the image was made, nanoseconds since 1970."""
        return self.config.created_ns

    @property
    def stored_size(self) -> int:
        """Bytes of all layers as stored."""
        return sum(layer.size or 0 for layer in self.layers)

    @property
    def size(self) -> int:
        """Bytes as ``docker images`` shows them: of all files in all layers, for which it reads the layers.

        In containerd's store the list counts the blobs and, in blocks of the disk, what is unpacked: of all platforms
        for the one that the host would run, which stands for them, else of its own.
        """
        if self._parts.shown_size is not None:
            return self._parts.shown_size
        return sum(layer.content_size or 0 for layer in self.layers)

    @property
    def wasted(self) -> int:
        """Bytes of files that later layers delete or replace; `hidden` lists them."""
        return sum(hidden.size for hidden in self.stack.hidden())

    @cached_property
    def _aligned(self) -> tuple[Alignment, list[HistoryStep]]:
        return align(self.config.history, [layer.diff_id or layer.digest or str(layer.origin) for layer in self.layers])

    @property
    def alignment(self) -> Alignment:
        """Whether history and layers can be paired: ``exact``, ``missing`` or ``mismatch``."""
        return self._aligned[0]

    def history(self) -> Table[HistoryStep]:
        """The steps the image was built by, newest first; sizes are those of the layers' files."""
        return Table(HistoryStep, self._history, name="history")

    def _history(self) -> list[HistoryStep]:
        alignment, steps = self._aligned
        if alignment is Alignment.MISMATCH:
            made = sum(not step.empty for step in steps)
            self._problems.add(
                self.origin,
                f"history names {made} layers, the image has {len(self.layers)}: steps and layers are not paired",
            )
            return steps[::-1]
        layers = iter(self.layers)
        return [step if step.empty else replace(step, size=next(layers).content_size) for step in steps][::-1]

    def dockerfile(self) -> str:
        """A Dockerfile that would build the image as its history tells; guesses are marked as such."""
        from forensics_lib.images.dockerfile import dockerfile

        return dockerfile(self.config, self._aligned[1], annotations=dict(self.annotations))

    def layer(self, name: str | int) -> Layer:
        """A layer by index, digest, diff_id or a unique start of one of these.

        Raises:
            NotFound: there is no such layer.
            AmbiguousName: the start fits several.
        """
        if isinstance(name, int):
            if -len(self.layers) <= name < len(self.layers):
                return self.layers[name]
            raise NotFound(f"no layer {name}: the image has {len(self.layers)}")
        wanted = name if ":" in name else f"sha256:{name}"
        found = [x for x in self.layers if (x.digest or "").startswith(wanted) or (x.diff_id or "").startswith(wanted)]
        if not found:
            raise NotFound(f"no layer {name}")
        if len(names := dict.fromkeys(layer.diff_id or layer.digest or "" for layer in found)) > 1:
            raise AmbiguousName(f"{name!r} fits {len(names)} layers", tuple(names))
        return found[0]

    def tree(self, layers: int | None = None) -> Tree:
        """What a container of the image would see: all layers merged, or only the first `layers`."""
        return self.stack.tree(layers)

    def versions(self, path: str) -> Table[FileVersion]:
        """Every version of a path through the layers, base first, also overwritten and deleted ones, each readable.

        Raises:
            PathNotFound: no layer ever held the path.
        """
        versions = list(self.stack.versions(path))
        if not versions:
            raise PathNotFound(f"no layer of the image ever held {path}")
        return Table(FileVersion, versions, name=f"versions of {path}")

    def hidden(self) -> Table[HiddenFile]:
        """Files that layers store but later layers delete or replace, so that no container sees them."""
        return Table(HiddenFile, self.stack.hidden, name="hidden files")

    def inspect(self) -> dict[str, object]:
        """The image as ``docker image inspect`` shows it, as far as an archive can tell.

        What only the daemon's store knows (GraphDriver, LastTagTime) is left out for an archive. The shape is that of
        the engine that wrote it: Docker before 28.2 shows every field, Docker 29 only those that are set.
        """
        config, parts = self.config, self._parts
        comment = config.comment or (config.history[-1].comment if config.history else "")
        shown = inspect_config(config, legacy=parts.legacy)
        answer: dict[str, object] = {
            "Id": self.id,
            "RepoTags": list(self.tags),
            "RepoDigests": list(self.digests),
            "Parent": parts.parent or config.parent_id,
            "Comment": comment,
            "Created": config.raw.text("created"),
            "DockerVersion": config.docker_version,
            "Author": config.author,
            "Config": {**_UNSET_CONFIG, **shown} if parts.shows_unset else shown,
            "Architecture": config.architecture,
            "Variant": config.variant,
            "Os": config.os,
            "OsVersion": config.os_version,
            "Size": self.size if parts.content_size is None else parts.content_size,
            "RootFS": {"Type": "layers", "Layers": [layer.diff_id for layer in self.layers if layer.diff_id]},
        }
        if parts.legacy and not parts.without_container:
            answer["ContainerConfig"] = inspect_config(self._container_config(), legacy=True)
            answer["VirtualSize"] = answer["Size"]
            answer["Container"] = config.container
        answer |= dict(parts.store_facts)
        optional = {"Variant", "OsVersion"} if parts.legacy or parts.shows_unset else _ONLY_WHEN_SET
        if parts.without_container or not parts.legacy:
            optional = optional | {"Created"}
        return {key: value for key, value in answer.items() if value or key not in optional}

    def _container_config(self) -> ImageConfig:
        """The configuration of the container that the image was committed from."""
        document = json.dumps({"config": self.config.raw.get("container_config")}).encode()
        return ImageConfig.parse(document, self.origin, ProblemLog())

    def _build_layers(self) -> tuple[Layer, ...]:
        specs = self._parts.layers
        diff_ids: Sequence[str] = self.config.diff_ids
        if diff_ids and len(diff_ids) != len(specs):
            self._problems.add(
                self.origin, f"configuration names {len(diff_ids)} layers, the manifest {len(specs)}; not paired"
            )
            diff_ids = ()
        try:
            chains = chain_ids(diff_ids, origin=self.origin)
        except DamagedData as error:
            self._problems.add(self.origin, error)
            chains = []
        return tuple(
            Layer(
                index,
                spec.digest,
                diff_ids[index] if diff_ids else None,
                chains[index] if chains else None,
                spec.size,
                spec.media_type,
                spec.origin,
                spec.blob,
                self.stack,
            )
            for index, spec in enumerate(specs)
        )


_UNSET_CONFIG: Mapping[str, object] = {
    **dict.fromkeys(("Cmd", "Entrypoint", "Env", "Labels", "OnBuild", "Volumes")), "User": "", "WorkingDir": "",
}  # fmt: skip
_ONLY_WHEN_SET = {"Parent", "DockerVersion", "Author", "Variant", "OsVersion", "Comment"}
