"""What there is to examine in a piece of evidence, without regard to which engine it came from."""

from __future__ import annotations

from dataclasses import dataclass

from forensics_lib.errors import ForensicsError
from forensics_lib.holdings import Holdings
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.sources.base import Source
from forensics_lib.sources.decompress import Compression, Limits
from forensics_lib.trees.base import Node, Tree

__all__ = ["Inventory", "TarStream", "TextDocument", "inventory_of"]


@dataclass(frozen=True, slots=True)
class TarStream:
    """A tar archive, compressed or not, that is examined in one pass: a layer, or the evidence itself.

    Attributes:
        owner: what its files belong to; a layer's digest.
        path: where it lies in the evidence.
        stored: its bytes as stored.
        compression: of these.
        origin: the same place as a chain.
        limits: bounds on what it may ask for.
        kind: what its stored bytes are called among the artifacts: ``blob``, or ``evidence`` for the evidence itself.
        is_layer: whether its uncompressed bytes are an artifact of their own (a diff_id).
    """

    owner: str
    path: str
    stored: Source
    compression: Compression
    origin: Origin
    limits: Limits
    kind: str = "blob"
    is_layer: bool = True

    @property
    def inside(self) -> Origin:
        """Where its uncompressed bytes are."""
        return self.origin if self.compression is Compression.NONE else self.origin.to(self.compression)


@dataclass(frozen=True, slots=True)
class TextDocument:
    """A text that is no file of a layer, to be searched beside them.

    Attributes:
        owner: what it belongs to: an image's id.
        kind: ``config``, ``env``, ``history`` or ``label``.
        name: which one of its kind.
        text: the text, undecodable bytes as surrogates.
        origin: where it is recorded.
    """

    owner: str
    kind: str
    name: str
    text: str
    origin: Origin


@dataclass(frozen=True, slots=True)
class Inventory:
    """Everything of one piece of evidence, each thing once.

    Attributes:
        name: the evidence's name.
        streams: archives whose members are artifacts.
        blobs: other files that are artifacts as a whole.
        trees: (owner, tree) whose files are artifacts.
        evidence: the evidence files; none for a folder, or when it is among the streams.
        media: the disk in each of them, which is the file itself for a raw image; none where they are no disks.
        unreadable: what cannot be examined, and why.
        problems: where faults go.
        documents: what can be searched beside files: configuration, environment, history, labels.
    """

    name: str
    problems: ProblemLog
    streams: tuple[TarStream, ...] = ()
    blobs: tuple[Node, ...] = ()
    trees: tuple[tuple[str, Tree], ...] = ()
    evidence: tuple[Source, ...] = ()
    media: tuple[Source, ...] = ()
    unreadable: tuple[tuple[Origin, ForensicsError], ...] = ()
    documents: tuple[TextDocument, ...] = ()


def inventory_of(holdings: Holdings, name: str) -> Inventory:
    """The inventory of opened evidence.

    Args:
        holdings: what was found in it.
        name: the evidence's name.
    """
    opened, store = holdings.opened, holdings.store
    if holdings.is_image_evidence:
        return _of_images(holdings, name)
    if opened.file is not None and not opened.disks:
        file, limits = opened.file, store.limits
        stream = TarStream(name, name, file, opened.compression, file.origin, limits, "evidence", False)
        return Inventory(name, store.problems, streams=(stream,))
    trees = tuple((filesystem.name, filesystem.tree) for filesystem in opened.filesystems)
    return Inventory(name, store.problems, trees=trees, evidence=tuple(opened.files), media=tuple(opened.disks))


def _of_images(holdings: Holdings, name: str) -> Inventory:
    store = holdings.store
    readable = {path: blob for path, blob in store.layers.items() if blob.unreadable is None}
    owners = {
        layer.blob.path: layer.digest or layer.diff_id
        for image in holdings.travelling
        for layer in image.layers
        if layer.blob is not None
    }
    streams = tuple(
        TarStream(
            owners.get(blob.path) or blob.path, blob.path, blob.stored, blob.compression, blob.origin, store.limits
        )
        for blob in readable.values()
        if blob.stored is not None
    )
    return Inventory(
        name,
        store.problems,
        streams=streams,
        blobs=tuple(node for node in store.files() if node.path not in readable),
        evidence=tuple(holdings.opened.files),
        unreadable=tuple((b.origin, b.unreadable) for b in store.layers.values() if b.unreadable is not None),
    )
