"""containerd's content store: blobs in files that are named by their digest.

Format: containerd ``plugins/content/local``: ``blobs/<algorithm>/<hex>``, unfinished downloads in ``ingest``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from forensics_lib.engines.containerd.root import CONTENT
from forensics_lib.errors import DamagedData, ForensicsError, PathNotFound
from forensics_lib.formats.jsondoc import parse
from forensics_lib.images.digest import parse_digest
from forensics_lib.images.layer import LayerBlob, SpoolPool
from forensics_lib.images.store import Descriptor, Document, ImageStore
from forensics_lib.model import ProblemLog
from forensics_lib.sources.decompress import Limits
from forensics_lib.trees.base import Node, NodeKind, Tree, join

__all__ = ["ContentStore"]

_MAX_DOCUMENT = 4 << 20


class ContentStore(ImageStore):
    """The blobs of a root.

    A store holds what was needed: of an index often only the host's platform, of an image that was unpacked perhaps
    not the layers. So a blob that is missing is no fault of the evidence unless a record says that it was there.

    Attributes:
        home: the directory of the store.
        recorded: digests that the metadata has records of; None when there is no metadata to be read.
    """

    def __init__(
        self,
        tree: Tree,
        root: str,
        problems: ProblemLog,
        limits: Limits,
        pool: SpoolPool,
        recorded: Collection[str] | None,
    ) -> None:
        """Look blobs up below the root of containerd."""
        super().__init__(tree, problems, limits, pool)
        self.home = join(root, CONTENT)
        self.recorded = recorded

    def blob(self, digest: str) -> Node | None:
        """The file of a digest; None when it is missing."""
        try:
            algorithm, encoded = parse_digest(digest)
        except DamagedData as error:
            self.problems.add(self.origin.to(self.home.lstrip("/")), error)
            return None
        return self.find(f"{self.home}/blobs/{algorithm}/{encoded}")

    def described(self, descriptor: Descriptor, role: str) -> Document | None:
        """The JSON document that a descriptor names; None when it is not there (`lost` tells which should be)."""
        if descriptor.data is None and self.recorded is not None and self.blob(descriptor.digest) is None:
            self.references.append((role, descriptor))
            return None
        return super().described(descriptor, role)

    def layer(self, path: str, descriptor: Descriptor | None = None) -> LayerBlob:
        """The stored layer of a descriptor; one that is not there is unreadable (`lost` tells which should be)."""
        digest = descriptor.digest if descriptor is not None else ""
        key = path or digest
        if key in self.layers or path or self.recorded is None or self.blob(digest) is not None:
            return super().layer(path, descriptor)
        origin = self.origin.to(self.home.lstrip("/")).to(digest)
        absent = PathNotFound(f"layer {digest} is not in the content store")
        self.layers[key] = LayerBlob(
            key, None, origin, problems=self.problems, limits=self.limits, pool=self.pool, unreadable=absent
        )
        return self.layers[key]

    def lost(self) -> Iterator[str]:
        """Digests that a record says are there, and that are not."""
        return (digest for digest in self.recorded or () if self.blob(digest) is None)

    def files(self) -> Iterator[Node]:
        """The files of all blobs."""
        return (node for _, node in self.digests())

    def digests(self) -> Iterator[tuple[str, Node]]:
        """Each blob by the digest that it is named after."""
        for algorithm in self.folder(f"{self.home}/blobs"):
            for node in self.folder(algorithm.path):
                digest = f"{algorithm.name}:{node.name}"
                if node.kind is NodeKind.FILE and _is_digest(digest):
                    yield digest, node

    def small(self, node: Node) -> Document | None:
        """A blob that is a JSON document; None for all others."""
        origin = node.origin.to(node.path.lstrip("/"))
        try:
            if node.size > _MAX_DOCUMENT or node.source().read_at(0, 64).lstrip()[:1] != b"{":
                return None
            raw = node.read()
        except ForensicsError as error:
            self.problems.add(origin, error)
            return None
        try:
            return Document(raw, parse(raw, origin), origin)
        except ForensicsError:
            return None  # lines of several documents, such as the trace of a build


def _is_digest(text: str) -> bool:
    try:
        parse_digest(text)
    except DamagedData:
        return False
    return True
