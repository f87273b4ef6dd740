"""OCI image layouts (image-layout.md) and skopeo's ``dir:`` folders, as a folder or inside a tar archive."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from forensics_lib.errors import DamagedData, ForensicsError
from forensics_lib.formats.jsondoc import JsonObject
from forensics_lib.images.digest import parse_digest
from forensics_lib.images.image import Artifact, ImageParts
from forensics_lib.images.manifests import ManifestReader
from forensics_lib.images.store import Document, ImageStore
from forensics_lib.trees.base import NodeKind, Tree

__all__ = [
    "is_cut_layout",
    "is_image_dir",
    "is_oci_layout",
    "kept_apart",
    "ordered",
    "read_image_dir",
    "read_oci_layout",
]

_MANIFEST_LIMIT = 4 << 20


def is_oci_layout(tree: Tree) -> bool:
    """Whether the tree has the shape of a layout; the ``oci-layout`` file itself may be missing."""
    return ("/index.json" in tree and "/blobs" in tree) or "/oci-layout" in tree


def is_cut_layout(tree: Tree) -> bool:
    """Whether the tree holds blobs by digest, as a layout whose index is lost: archives have that behind the blobs."""
    for algorithm in ("sha256", "sha512"):
        folder = f"/blobs/{algorithm}"
        if folder in tree and any(_is_digest(f"{algorithm}:{node.name}") for node in islice(tree.children(folder), 9)):
            return True
    return False


def _is_digest(text: str) -> bool:
    try:
        parse_digest(text)
    except DamagedData:
        return False
    return True


def is_image_dir(tree: Tree) -> bool:
    """Whether the tree is one manifest with its blobs beside it."""
    return "/manifest.json" in tree and "/version" in tree and "/blobs" not in tree


def read_oci_layout(store: ImageStore) -> ManifestReader:
    """Follow ``index.json``; where that is missing or unreadable, every blob that is a manifest itself."""
    reader = ManifestReader(store)
    index = store.document("/index.json")
    if index is not None:
        reader.index(index)
    if "/oci-layout" not in store.tree:
        store.problems.add(store.origin, "the layout has no oci-layout file")
    elif (layout := store.document("/oci-layout")) is not None:
        version = layout.object.text("imageLayoutVersion")
        if version != "1.0.0":
            store.problems.add(layout.origin, f"image layout version {version!r}; 1.0.0 is read")
    if index is None:
        found = list(_manifests_among_blobs(store))
        for document in sorted(found, key=lambda document: "manifests" not in document.object):
            if document.digest not in reader.images and document.digest not in reader.artifacts:
                reader.manifest(document)  # indexes first: they tell what their manifests are
    return reader


def read_image_dir(store: ImageStore) -> ManifestReader:
    """Read ``manifest.json``, which is an image's manifest or an index of several."""
    reader = ManifestReader(store)
    document = store.document("/manifest.json")
    if document is None:
        return reader
    for child in document.object.objects("manifests"):
        digest = child.text("digest")
        node = store.find(f"/{digest.rpartition(':')[2]}.manifest.json") if "/" not in digest else None
        if node is not None and (found := store.parse(node)) is not None:
            reader.manifest(found, child.text("mediaType"))
        else:
            store.problems.add(document.origin, f"manifest {digest} is missing from the evidence")
    if not document.object.objects("manifests"):
        reader.manifest(document)
    for digest, image in reader.images.items():
        reader.images[digest] = _as_engine_shows(image)
    return reader


def ordered(images: Iterable[ImageParts]) -> list[ImageParts]:
    """Images of one index with the platform most hosts have first, else in the order of the evidence."""
    return sorted(images, key=lambda image: (image.platform or _platform(image)) != "linux/amd64")


def kept_apart(reader: ManifestReader) -> list[Artifact]:
    """The artifacts that hang on none of the images."""
    hung = {artifact.digest for image in reader.images.values() for artifact in image.attestations}
    return [artifact for artifact in reader.artifacts.values() if artifact.digest not in hung]


def _platform(image: ImageParts) -> str:
    return f"{image.config.os}/{image.config.architecture}"


def _as_engine_shows(image: ImageParts) -> ImageParts:
    """A configuration with fields that only Docker's classic builder wrote came from an engine that shows them all."""
    from dataclasses import replace

    old = "container_config" in image.config.raw or bool(image.config.docker_version)
    return replace(image, legacy=image.legacy or old)


def _manifests_among_blobs(store: ImageStore) -> Iterable[Document]:
    try:
        nodes = [node for node in store.tree.walk("/blobs") if node.kind is NodeKind.FILE]
    except ForensicsError:
        return
    for node in nodes:
        try:
            if node.size > _MANIFEST_LIMIT or node.source().read_at(0, 64).lstrip()[:1] != b"{":
                continue
        except ForensicsError as error:
            store.problems.add(node.origin, error)
            continue
        document = store.parse(node)
        if document is not None and _is_manifest(document.object):
            yield document


def _is_manifest(value: JsonObject) -> bool:
    of_image = "config" in value and "layers" in value
    return value.integer("schemaVersion") == 2 and (of_image or bool(value.objects("manifests")))
