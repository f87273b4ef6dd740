"""Are the blobs of a content store still what their names say? Digests and sizes, recomputed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from forensics_lib.engines.containerd.content import ContentStore
from forensics_lib.engines.containerd.store import Containerd
from forensics_lib.errors import ForensicsError
from forensics_lib.images.digest import parse_digest
from forensics_lib.model import Check
from forensics_lib.trees.base import Node

__all__ = ["verify_content"]

_MISSING = "missing"


def verify_content(containerd: Containerd) -> Iterator[Check]:
    """Every blob against its name, every record of one, and what manifests say of those they name."""
    content = containerd.content
    sizes: dict[str, int] = {}
    for digest, node in content.digests():
        actual, sizes[digest] = _digest(content, digest, node)
        origin = node.origin.to(node.path.lstrip("/"))
        yield Check(f"blob {digest} digest", digest, actual, actual == digest, origin)
    for digest, entry in containerd.recorded.items():
        found = sizes.get(digest)
        if found is None:
            yield Check(f"blob {digest} present", digest, _MISSING, False, entry.origin)
        elif entry.size is not None and entry.size != found:
            yield Check(f"blob {digest} size", str(entry.size), str(found), False, entry.origin)
    seen: set[tuple[str, int | None]] = set()
    for role, descriptor in content.references:
        key = (descriptor.digest, descriptor.size)
        if key in seen or descriptor.size is None or descriptor.digest not in sizes:
            continue
        seen.add(key)
        expected, found = descriptor.size, sizes[descriptor.digest]
        subject = f"{role} {descriptor.digest} size"
        yield Check(subject, str(expected), str(found), expected == found, descriptor.origin)


def _digest(content: ContentStore, digest: str, node: Node) -> tuple[str, int]:
    """The digest of a blob by the algorithm of its name, and its size."""
    algorithm, _ = parse_digest(digest)
    state, size = hashlib.new(algorithm), 0
    try:
        for block in node.source().blocks():
            state.update(block)
            size += len(block)
    except ForensicsError as error:
        content.problems.add(node.origin, error)
        return f"unreadable: {error}", node.size
    return f"{algorithm}:{state.hexdigest()}", size
