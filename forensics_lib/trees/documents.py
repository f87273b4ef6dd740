"""Small text and JSON files of a tree, read so that one bad file never hides the others."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from forensics_lib.errors import ForensicsError, LimitExceeded, PathNotFound
from forensics_lib.formats.jsondoc import MAX_BYTES, JsonObject, JsonValue, parse
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.trees.base import Node, NodeKind, Tree

__all__ = ["Document", "DocumentReader"]

_MAX_TEXT = 1 << 20


@dataclass(frozen=True, slots=True)
class Document:
    """A JSON document of the evidence, parsed, with the exact bytes that digests are made of."""

    raw: bytes
    value: JsonValue
    origin: Origin

    @property
    def object(self) -> JsonObject:
        """The document as an object; an empty one when it is something else."""
        return JsonObject(self.value if isinstance(self.value, dict) else {})

    @property
    def digest(self) -> str:
        """sha256 of the bytes, as images name them."""
        return f"sha256:{hashlib.sha256(self.raw).hexdigest()}"


class DocumentReader:
    """Reads documents of a tree; what cannot be read becomes a problem and None.

    Attributes:
        tree: where the documents are.
        problems: where faults go.
    """

    def __init__(self, tree: Tree, problems: ProblemLog) -> None:
        """Read from `tree`."""
        self.tree = tree
        self.problems = problems

    @property
    def origin(self) -> Origin:
        """Where the tree was read from."""
        return self.tree.origin

    def find(self, path: str) -> Node | None:
        """The regular file a path leads to, symbolic links followed inside the tree only; None if there is none."""
        node = self._resolve(path)
        return node if node is not None and node.kind is NodeKind.FILE else None

    def folder(self, path: str) -> Iterator[Node]:
        """The nodes of a directory; none when there is no such directory."""
        node = self._resolve(path)
        if node is not None and node.kind is NodeKind.DIR:
            yield from self.tree.children(node.path)

    def document(self, path: str) -> Document | None:
        """A JSON document by path; None, with a problem, when it is missing or unreadable."""
        node = self.find(path)
        if node is None:
            self.problems.add(self.origin.to(path.lstrip("/")), self._why_not(path))
            return None
        return self.parse(node)

    def parse(self, node: Node) -> Document | None:
        """A JSON document by node; None, with a problem, when it is unreadable."""
        origin = node.origin.to(node.path.lstrip("/"))
        try:
            if node.size > MAX_BYTES:
                raise LimitExceeded(f"JSON document of {node.size} bytes; the limit is {MAX_BYTES}", origin=origin)
            raw = node.read()
            return Document(raw, parse(raw, origin), origin)
        except ForensicsError as error:
            self.problems.add(origin, error)
            return None

    def text(self, path: str) -> str | None:
        """A short text without the white space around it; None when the file is missing or unreadable."""
        node = self.find(path)
        if node is None:
            return None
        try:
            return node.source().read_at(0, _MAX_TEXT).decode("utf-8", "surrogateescape").strip()
        except ForensicsError as error:
            self.problems.add(node.origin.to(path.lstrip("/")), error)
            return None

    def _resolve(self, path: str) -> Node | None:
        try:
            return self.tree.resolve(path)
        except PathNotFound:
            return None
        except ForensicsError as error:
            self.problems.add(self.origin.to(path.lstrip("/")), error)
            return None

    def _why_not(self, path: str) -> PathNotFound:
        node = self._resolve(path)
        name = path.lstrip("/")
        return PathNotFound(f"{name} is missing" if node is None else f"{name} is a {node.kind}, not a file")
