"""Image evidence as a tree of files: finds documents, blobs and layers in it, whatever their arrangement."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from dataclasses import dataclass, field

from forensics_lib.errors import DamagedData, ForensicsError, PathNotFound, UnsupportedFormat
from forensics_lib.formats.jsondoc import JsonObject, parse
from forensics_lib.images.digest import parse_digest
from forensics_lib.images.layer import LayerBlob, SpoolPool
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.sources.base import Source
from forensics_lib.sources.decompress import Limits
from forensics_lib.trees.base import Node, NodeKind, Tree
from forensics_lib.trees.documents import Document, DocumentReader

__all__ = ["Descriptor", "Document", "ImageStore"]


@dataclass(frozen=True, slots=True)
class Descriptor:
    """How one document names a blob.

    Attributes:
        digest: as stated; not checked yet.
        size: bytes as stated; None where nothing is.
        media_type: as stated.
        platform: ``os/architecture[/variant]``; empty where nothing is stated.
        annotations: as stated.
        urls: where a foreign layer has to be fetched from.
        artifact_type: as stated.
        data: the blob itself, embedded.
        origin: the document that holds the descriptor.
    """

    digest: str
    size: int | None
    media_type: str
    origin: Origin
    platform: str = ""
    annotations: dict[str, str] = field(default_factory=dict)
    urls: tuple[str, ...] = ()
    artifact_type: str = ""
    data: bytes | None = None

    @classmethod
    def parse(cls, value: JsonObject, origin: Origin) -> Descriptor:
        """Read a descriptor, tolerant of missing and wrong fields."""
        platform = value.object("platform")
        parts = (platform.text("os"), platform.text("architecture"), platform.text("variant"))
        try:
            data = base64.b64decode(value.text("data"), validate=True) if value.text("data") else None
        except (binascii.Error, ValueError):
            data = None
        return cls(
            digest=value.text("digest"),
            size=value.integer("size"),
            media_type=value.text("mediaType"),
            origin=origin,
            platform="/".join(part for part in parts if part),
            annotations=value.mapping("annotations"),
            urls=value.texts("urls"),
            artifact_type=value.text("artifactType"),
            data=data,
        )


class ImageStore(DocumentReader):
    """Looks things up for the readers of all archive shapes and keeps what they found for verification.

    Attributes:
        tree: the archive's or layout's files.
        problems: where faults go.
        limits: bounds on what the evidence may ask for.
        references: every descriptor that the documents hold, with what it describes.
        layers: the distinct stored layers, in the order they were met.
    """

    def __init__(
        self, tree: Tree, problems: ProblemLog, limits: Limits, pool: SpoolPool, shared: Tree | None = None
    ) -> None:
        """Look things up in `tree`, and blobs also in `shared`, a blob folder that several layouts use."""
        super().__init__(tree, problems)
        self.limits = limits
        self.pool = pool
        self.references: list[tuple[str, Descriptor]] = []
        self.layers: dict[str, LayerBlob] = {}
        self._shared = shared

    def blob(self, digest: str) -> Node | None:
        """The file of a digest: ``blobs/<algorithm>/<hex>``, or ``<hex>`` as skopeo's dir: has it; None if missing."""
        try:
            algorithm, encoded = parse_digest(digest)
        except DamagedData as error:
            self.problems.add(self.origin, error)
            return None
        found = self.find(f"/blobs/{algorithm}/{encoded}") or self.find(f"/{encoded}")
        if found is None and self._shared is not None:
            for path in (f"/{algorithm}/{encoded}", f"/blobs/{algorithm}/{encoded}"):
                try:
                    return self._shared.resolve(path)
                except ForensicsError:
                    continue
        return found

    def described(self, descriptor: Descriptor, role: str) -> Document | None:
        """The JSON document that a descriptor names; None, with a problem, when it is missing or unreadable."""
        self.references.append((role, descriptor))
        node = self.blob(descriptor.digest)
        if node is not None:
            return self.parse(node)
        if descriptor.data is not None:
            embedded = Document(descriptor.data, None, descriptor.origin.to(f"{role} embedded in its descriptor"))
            if embedded.digest == descriptor.digest:
                return self._parse_embedded(embedded)
        message = f"{role} {descriptor.digest} is missing from the evidence"
        self.problems.add(descriptor.origin, PathNotFound(message))
        return None

    def _parse_embedded(self, document: Document) -> Document | None:
        try:
            return Document(document.raw, parse(document.raw, document.origin), document.origin)
        except ForensicsError as error:
            self.problems.add(document.origin, error)
            return None

    def layer(self, path: str, descriptor: Descriptor | None = None) -> LayerBlob:
        """The stored layer at a path, or of a descriptor when the path is empty; one object for one file."""
        node = self.find(path) if path else self.blob(descriptor.digest) if descriptor is not None else None
        key = node.path if node is not None else path or (descriptor.digest if descriptor is not None else "")
        if key not in self.layers:
            unreadable = _unreadable(descriptor, node is None)
            origin = self.origin.to(key.lstrip("/")) if node is None else node.origin.to(key.lstrip("/"))
            stored = None
            if node is None:
                unreadable = unreadable or PathNotFound(f"layer {key} is missing from the evidence")
            else:
                try:
                    stored = node.source()
                except ForensicsError as error:  # a folder's file that may not be opened
                    unreadable = unreadable or error
            if unreadable is not None:
                self.problems.add(origin, unreadable)
            self.layers[key] = LayerBlob(
                key.lstrip("/"),
                stored,
                origin,
                problems=self.problems,
                limits=self.limits,
                pool=self.pool,
                unreadable=unreadable,
            )
        return self.layers[key]

    def content(self, node: Node) -> Source | None:
        """The bytes of a file; None, with a problem, when it cannot be opened."""
        try:
            return node.source()
        except ForensicsError as error:
            self.problems.add(node.origin, error)
            return None

    def files(self) -> Iterator[Node]:
        """Every regular file of the evidence, and of the shared blob folder."""
        for tree in (self.tree, self._shared):
            if tree is not None:
                yield from (node for node in tree.walk() if node.kind is NodeKind.FILE)


def _unreadable(descriptor: Descriptor | None, missing: bool) -> ForensicsError | None:
    if descriptor is None:
        return None
    media_type = descriptor.media_type
    if media_type.endswith("+encrypted"):
        return UnsupportedFormat(f"layer {descriptor.digest} is encrypted ({media_type}); its key is not in the image")
    if missing and ("foreign" in media_type or "nondistributable" in media_type):
        where = ", ".join(descriptor.urls) or "a place that is not named"
        return UnsupportedFormat(
            f"foreign layer {descriptor.digest} is not part of the image; it is fetched from {where}"
        )
    return None
