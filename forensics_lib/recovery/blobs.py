"""Blobs that nothing names: what is left of images that were removed or replaced in a layout, an archive or a store."""

from __future__ import annotations

import re
from collections.abc import Iterator

from forensics_lib.errors import ForensicsError
from forensics_lib.formats.jsondoc import parse_object
from forensics_lib.images.store import ImageStore
from forensics_lib.model import ProblemLog
from forensics_lib.recovery.remnant import Confidence, Remnant
from forensics_lib.sources.base import Source
from forensics_lib.sources.decompress import Compression, sniff
from forensics_lib.trees.base import Node

__all__ = ["orphan_blob", "unnamed_blobs"]

_HEAD = 512
_LARGEST_DOCUMENT = 4 << 20
_BLOB = re.compile(
    r"/(?:blobs/(?P<algorithm>[a-z0-9+._-]+)/)?(?P<encoded>[0-9a-f]{64,128})(?:\.json|\.tar|/layer\.tar)?"
)


def unnamed_blobs(store: ImageStore) -> Iterator[Remnant]:
    """Manifests, configurations and layers of image evidence that none of its documents leads to.

    A tool that replaces an image in a layout, such as umoci, leaves the manifest and the configuration of the former
    one. What is no part of an image, such as the ``json`` and ``VERSION`` files of old archives, is not told.
    """
    named = {descriptor.digest for _, descriptor in store.references}
    for node in store.files():
        found = _BLOB.fullmatch(node.path)
        if found is None or node.path in store.layers:
            continue
        digest = f"{found['algorithm'] or 'sha256'}:{found['encoded']}"
        if digest in named:
            continue
        remnant = orphan_blob(node, digest, "nothing in the evidence names it", store.problems)
        if remnant is not None and remnant.kind != "record":
            yield remnant


def orphan_blob(node: Node, digest: str, what: str, problems: ProblemLog) -> Remnant | None:
    """A remnant of a blob; None, with a problem, when it cannot be read.

    Args:
        node: its file.
        digest: by which it is stored; where it is of sha256 the bytes are compared with it.
        what: why it is a remnant, in words.
        problems: gets what cannot be read.
    """
    try:
        source = node.source()
        kind, form = _kind(source)
        actual = f"sha256:{source.sha256()}" if digest.startswith("sha256:") else ""
    except ForensicsError as error:
        problems.add(node.origin, error)
        return None
    is_intact = actual == digest
    return Remnant(
        kind=kind,
        path=node.path,
        container_id="",
        image_id=digest if kind == "image" else "",
        method="orphan",
        confidence=Confidence.VERIFIED if is_intact else Confidence.INTACT,
        complete=is_intact or not actual,
        size=source.size,
        origin=node.origin.to(node.path.lstrip("/")),
        detail=f"{what}: {form}" + ("" if is_intact or not actual else "; its digest is another"),
        modified_ns=node.mtime_ns,
        content=source,
    )


def _kind(source: Source) -> tuple[str, str]:
    """The kind of remnant that a blob is, and what it looks like."""
    head = source.read_at(0, _HEAD)
    if head.lstrip()[:1] == b"{":
        try:
            whole = source.read_at(0, source.size) if source.size < _LARGEST_DOCUMENT else b""
            document = parse_object(whole, source.origin)
        except ForensicsError:
            return "record", "JSON"
        if "manifests" in document or "layers" in document:
            return "image", document.text("mediaType") or "manifest"
        return ("image", "configuration of an image") if "rootfs" in document else ("record", "JSON")
    if sniff(head) is not Compression.NONE or head[257:262] == b"ustar":
        return "layer", "archive of a layer"
    return "record", "data"
