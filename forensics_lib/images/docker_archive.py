"""``docker save`` archives of every age, and what podman, skopeo and containerd write in their likeness.

Up to Docker 1.9: ``repositories`` and a folder for each layer (``VERSION``, ``json``, ``layer.tar``). From 1.10 on:
``manifest.json`` beside them. From 25 on: an OCI layout with ``manifest.json`` beside ``index.json``; when the two
disagree ``manifest.json`` is followed, as the loader does, and the disagreement is a problem.
"""

from __future__ import annotations

import posixpath
from dataclasses import replace
from enum import Enum
from functools import cached_property
from itertools import islice

from forensics_lib.errors import DamagedData, ForensicsError, LimitExceeded
from forensics_lib.formats.jsondoc import JsonObject, iter_objects
from forensics_lib.images.config import HistoryEntry, ImageConfig
from forensics_lib.images.digest import parse_digest
from forensics_lib.images.image import ImageParts, LayerSpec
from forensics_lib.images.manifests import ManifestReader, familiar, parse_config
from forensics_lib.images.oci_layout import is_oci_layout
from forensics_lib.images.store import Descriptor, Document, ImageStore
from forensics_lib.trees.base import NodeKind, Tree

__all__ = ["DockerArchive", "is_docker_archive"]

_MAX_CHAIN = 1000
_V1_RECORD, _MAX_LOOKED_AT = 8192, 4096


def is_docker_archive(tree: Tree) -> bool:
    """Whether the tree has a ``manifest.json`` of Docker, or the files of an older archive."""
    if "/manifest.json" in tree and not ("/version" in tree and "/blobs" not in tree):
        return True
    if "/repositories" in tree:
        return True
    return not is_oci_layout(tree) and any(f"{layer}/layer.tar" in tree for layer in _v1_layers(tree))


class _Writer(Enum):
    """What wrote an archive that is an OCI layout as well; the version is not in it, but its details changed."""

    DOCKER_25 = "Docker 25 to 27"
    DOCKER_28 = "Docker 28"
    OTHER = "Docker 29 or another engine"


def _writer_of(tree: Tree) -> _Writer:
    """Whose ``docker save`` it was, with a graph driver (moby ``image/tarexport/save.go`` by tag).

    ``manifest.json`` never has a time of its own, ``index.json`` has none since 28; since 29 the configuration in the
    records of the layers leaves out what is not set.
    """
    if "/repositories" not in tree or "/blobs/sha256" not in tree:
        return _Writer.OTHER
    index, manifest = tree.find("/index.json"), tree.find("/manifest.json")
    if index is not None and manifest is not None and not manifest.mtime_ns and index.mtime_ns:
        return _Writer.DOCKER_25
    small = (node for node in tree.children("/blobs/sha256") if node.kind is NodeKind.FILE and node.size < _V1_RECORD)
    for node in islice(small, _MAX_LOOKED_AT):
        try:
            data = node.read()
        except ForensicsError:
            continue
        if b'"container_config":{' in data and b'"rootfs"' not in data:
            return _Writer.DOCKER_28 if b'"OnBuild":null' in data else _Writer.OTHER
    return _Writer.OTHER


class DockerArchive:
    """Reads the images of one archive.

    Attributes:
        images: in the order of ``manifest.json``, then those that only the index names.
        reader: what the index of a later archive led to.
    """

    def __init__(self, store: ImageStore) -> None:
        """Read all documents; no layer is read."""
        self.store = store
        self.reader = ManifestReader(store)
        self.images: list[ImageParts] = []
        hybrid = "/index.json" in store.tree
        if hybrid and (index := store.document("/index.json")) is not None:
            self.reader.index(index)
        self._repositories = self._read_repositories()
        manifest = store.document("/manifest.json") if "/manifest.json" in store.tree else None
        if manifest is not None:
            self._read_manifest(manifest, hybrid)
        elif not hybrid:
            self._read_v1()
        named = {image.config_digest for image in self.images}
        others = [image for image in self.reader.images.values() if image.config_digest not in named]
        if manifest is not None:
            self._report_unnamed(others, manifest)
        self.images += [self._as_store_shows(image) for image in others]

    @cached_property
    def _writer(self) -> _Writer:
        return _writer_of(self.store.tree)

    def _read_manifest(self, manifest: Document, hybrid: bool) -> None:
        listed = manifest.value if isinstance(manifest.value, list) else []
        entries = list(iter_objects(listed))
        if manifest.value is not listed:
            self.store.problems.add(manifest.origin, "manifest.json is no list of images")
        elif not listed:
            self.store.problems.add(manifest.origin, "manifest.json names no image")
        elif len(entries) < len(listed):
            self.store.problems.add(
                manifest.origin, f"{len(listed) - len(entries)} entries of manifest.json are no images"
            )
        by_config: dict[str, list[ImageParts]] = {}
        for image in self.reader.images.values():
            by_config.setdefault(image.config_digest or "", []).append(image)
        images = [self._image(entry, manifest, hybrid) for entry in entries]
        if hybrid:
            shared = self._compare_tags(images, by_config, manifest)
            twins = [by_config.get(image.config_digest or "", []) for image in images]
            images = [self._with_index(image, own, shared, manifest) for image, own in zip(images, twins, strict=True)]
        self.images += images

    def _report_unnamed(self, others: list[ImageParts], manifest: Document) -> None:
        """Images that only the index names, but for further platforms, of which ``manifest.json`` names the first."""
        indexes = {image.index_digest for image in self.images if image.index_digest}
        for image in others:
            if image.index_digest not in indexes:
                message = f"index.json names image {image.config_digest}, manifest.json does not"
                self.store.problems.add(manifest.origin, message)

    def _image(self, entry: JsonObject, manifest: Document, hybrid: bool) -> ImageParts:
        store = self.store
        path = entry.text("Config")
        config = store.document("/" + path.lstrip("/")) if path else None
        if not path:
            store.problems.add(manifest.origin, "an image of manifest.json names no configuration")
        digest = _named_digest(path) or (config.digest if config is not None else None)
        if config is not None and digest is not None:
            reference = Descriptor(digest, None, "", manifest.origin)
            store.references.append((f"configuration {path}", reference))
        parsed = parse_config(config, manifest.origin, store.problems)
        sources = entry.object("LayerSources")
        layers = []
        for index, layer in enumerate(entry.texts("Layers")):
            layers.append(self._layer(layer, index, parsed, sources, manifest))
        return ImageParts(
            id=digest or "",
            config=parsed,
            raw_config=config.raw if config is not None else None,
            config_digest=digest,
            layers=tuple(layers),
            origin=manifest.origin,
            tags=tuple(familiar(tag) for tag in entry.texts("RepoTags")),
            parent=entry.text("Parent"),
            legacy=not hybrid or self._writer is _Writer.DOCKER_25,
            without_container=hybrid,
            shows_unset=hybrid and self._writer is _Writer.DOCKER_28,
        )

    def _layer(self, path: str, index: int, config: ImageConfig, sources: JsonObject, manifest: Document) -> LayerSpec:
        diff_id = config.diff_ids[index] if index < len(config.diff_ids) else ""
        described = Descriptor.parse(sources.object(diff_id), manifest.origin) if diff_id in sources else None
        blob = self.store.layer("/" + path.lstrip("/"), described)
        digest = _named_digest(path)
        if digest is None and blob.stored is not None and blob.compression == "none":
            digest = diff_id or None  # stored uncompressed: both digests are over the same bytes
        size = None if blob.stored is None else blob.stored.size
        return LayerSpec(blob, digest, size, described.media_type if described is not None else "", blob.origin)

    def _with_index(
        self, image: ImageParts, twins: list[ImageParts], shared: set[str], manifest: Document
    ) -> ImageParts:
        """Add what the index of the same archive says of the image, when it says the same."""
        problems = self.store.problems
        if not twins:
            problems.add(manifest.origin, f"manifest.json names image {image.id}, index.json does not")
            return image
        for twin in twins:
            if [spec.origin for spec in twin.layers] != [spec.origin for spec in image.layers]:
                message = f"image {image.id}: manifest.json names {len(image.layers)} layers, the OCI manifest "
                message += f"{len(twin.layers)} or others; manifest.json is followed"
                problems.add(twin.origin, message)
        twin = twins[0]
        indexed = [tag for one in twins for tag in one.tags if not image.tags or tag in shared]
        tags = tuple(dict.fromkeys((*image.tags, *indexed)))
        agree = [spec.origin for spec in twin.layers] == [spec.origin for spec in image.layers]
        shown = self._as_store_shows(replace(twin, tags=tags))
        return replace(
            image,
            layers=twin.layers if agree else image.layers,
            tags=shown.tags,
            digests=shown.digests,
            raw_manifest=twin.raw_manifest,
            manifest_media_type=twin.manifest_media_type,
            manifest_digest=twin.manifest_digest,
            index_digest=twin.index_digest,
            platform=twin.platform,
            content_size=shown.content_size,
            annotations=twin.annotations,
            attestations=twin.attestations,
        )

    def _compare_tags(
        self, images: list[ImageParts], by_config: dict[str, list[ImageParts]], manifest: Document
    ) -> set[str]:
        """Report the names on which the two documents disagree; the others are returned.

        These may stand for several platforms in the index, of which ``manifest.json`` names the first.
        """
        listed = {(tag, image.config_digest or "") for image in images for tag in image.tags}
        indexed = {(tag, config) for config, twins in by_config.items() for one in twins for tag in one.tags}
        indexed = {(tag, config) for tag, config in indexed if ":" in tag or "/" in tag}  # not a tag without its name
        shared = {tag for tag, _ in listed & indexed}
        known = {image.config_digest or "" for image in images} & set(by_config)  # other images are reported as such
        for one, other, names in (("manifest", "index", listed if indexed else set()), ("index", "manifest", indexed)):
            for tag, config in sorted(names):
                if tag not in shared and config in known:
                    message = f"{one}.json names image {config} {tag}, {other}.json does not; manifest.json is followed"
                    self.store.problems.add(manifest.origin, message)
        return shared

    def _as_store_shows(self, image: ImageParts) -> ImageParts:
        """An image of the index with the names and size that Docker's containerd store shows of it."""
        if "/repositories" in self.store.tree:
            return image  # written from a graph driver's store
        names = _with_digest(image.tags, image.index_digest or image.manifest_digest)
        return replace(image, digests=names, content_size=self._content_size(image))

    def _content_size(self, image: ImageParts) -> int:
        """What Docker's containerd store shows as size: the bytes of everything that the image is made of."""
        index = self.store.blob(image.index_digest) if image.index_digest else None
        documents = len(image.raw_manifest or b"") + len(image.raw_config or b"") + (index.size if index else 0)
        return documents + sum(spec.size or 0 for spec in image.layers)

    def _read_repositories(self) -> dict[str, list[str]]:
        """Names by v1 id of the top layer, from ``repositories``."""
        names: dict[str, list[str]] = {}
        node = self.store.find("/repositories")
        document = self.store.parse(node) if node is not None else None
        if document is not None:
            if not isinstance(document.value, dict):
                self.store.problems.add(document.origin, "repositories is no object")
            wrong = 0
            for name, tags in document.object.raw.items():
                for tag, layer in tags.items() if isinstance(tags, dict) else [("", None)]:
                    if isinstance(layer, str):
                        names.setdefault(layer, []).append(familiar(f"{name}:{tag}"))
                    else:
                        wrong += 1
            if wrong:
                self.store.problems.add(document.origin, f"{wrong} names of repositories stand for no layer")
        return names

    def _read_v1(self) -> None:
        """Images of an archive without ``manifest.json``: a chain of layers from each named one down to its base."""
        store = self.store
        configs: dict[str, tuple[Document, ImageConfig]] = {}
        for layer in _v1_layers(store.tree):
            document = store.document(f"/{layer}/json")
            if document is not None:
                configs[layer] = (document, parse_config(document, document.origin, store.problems))
        parents = {config.parent_id for _, config in configs.values()}
        tops = [layer for layer in self._repositories if layer in configs]
        tops += [layer for layer in configs if layer not in parents and layer not in self._repositories]
        for layer in self._repositories:
            if layer not in configs:
                store.problems.add(store.origin.to("repositories"), f"names layer {layer}, which is missing")
        reached = [layer for top in tops for layer in self._read_chain(top, configs)]
        while rest := [layer for layer in configs if layer not in reached]:  # parents in a circle: none is the top
            reached += self._read_chain(rest[0], configs)

    def _read_chain(self, top: str, configs: dict[str, tuple[Document, ImageConfig]]) -> list[str]:
        """Read the image whose top layer this is; returns its layers."""
        store = self.store
        chain: list[str] = []
        layer = top
        while layer:
            if layer in chain or len(chain) >= _MAX_CHAIN:
                store.problems.add(store.origin, LimitExceeded(f"the parents of layer {top} lead in a circle"))
                break
            if layer not in configs:
                store.problems.add(store.origin, DamagedData(f"parent layer {layer} of {top} is missing"))
                break
            chain.append(layer)
            layer = configs[layer][1].parent_id
        chain.reverse()
        document, config = configs[top]
        history: tuple[HistoryEntry, ...] = ()
        for one in chain:
            history += configs[one][1].history
        layers = []
        for one in chain:
            blob = store.layer(f"/{one}/layer.tar")
            layers.append(LayerSpec(blob, None, None if blob.stored is None else blob.stored.size, "", blob.origin))
        self.images.append(
            ImageParts(
                id=top,
                config=replace(config, history=history),
                raw_config=document.raw,
                layers=tuple(layers),
                origin=document.origin,
                tags=tuple(self._repositories.get(top, ())),
                parent=config.parent_id,
                legacy=True,
            )
        )
        return chain


def _v1_layers(tree: Tree) -> list[str]:
    """Folders that describe a layer of the oldest archives; its bytes may be missing."""
    return [
        node.name
        for node in tree.children("/")
        if node.kind is NodeKind.DIR
        and f"{node.path}/json" in tree
        and (f"{node.path}/layer.tar" in tree or f"{node.path}/VERSION" in tree)
    ]


def _named_digest(path: str) -> str | None:
    """The digest that a file's name states: ``<hex>.json``, ``<hex>.tar`` or ``blobs/sha256/<hex>``."""
    name = posixpath.basename(path)
    stem, _, suffix = name.partition(".")
    try:
        parse_digest(f"sha256:{stem}")
    except DamagedData:
        return None
    in_blobs = posixpath.dirname(path).endswith("blobs/sha256")
    return f"sha256:{stem}" if suffix in ("json", "tar") or (in_blobs and not suffix) else None


def _with_digest(tags: tuple[str, ...], digest: str | None) -> tuple[str, ...]:
    names = dict.fromkeys(tag.rpartition(":")[0] for tag in tags if ":" in tag)
    return tuple(f"{name}@{digest}" for name in names) if digest else ()
