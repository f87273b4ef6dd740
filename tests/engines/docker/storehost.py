"""The fixture of a Docker 29 host with containerd's store in memory, whole or spoiled in one place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

from forensics_lib.custody import Custody
from forensics_lib.engines.docker.containerd import find_stores
from forensics_lib.engines.docker.engine import DockerRoot
from forensics_lib.engines.docker.leftovers import report_leftovers
from forensics_lib.engines.docker.root import find_roots
from forensics_lib.engines.docker.verify import verify_root
from forensics_lib.images.layer import SpoolPool
from forensics_lib.model import Check, Origin, ProblemLog
from forensics_lib.sources.base import BytesSource
from forensics_lib.sources.decompress import Compression, Limits, decompress
from forensics_lib.trees.archive import tar_tree
from forensics_lib.trees.base import Node, NodeKind
from forensics_lib.trees.documents import DocumentReader
from forensics_lib.trees.index import IndexTree
from forensics_lib.trees.outlet import Outlet
from tests.samples import DOCKER_CONTAINERD

STORE = "/var/lib/containerd"
META = f"{STORE}/io.containerd.metadata.v1.bolt/meta.db"
OVERLAY = f"{STORE}/io.containerd.snapshotter.v1.overlayfs"
BLOBS = f"{STORE}/io.containerd.content.v1.content/blobs/sha256"
WEB = "705bcb0c9d7afb37422ce0f050bfeace7c8bf1cba2e317907843ef7ceb94833c"
WEB_IMAGE = "sha256:818260240f72b852732a729c6240849b281396b44e979c8305cbd978d47637aa"


class Bytes:
    """A file's content in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def source(self) -> BytesSource:
        return BytesSource(self._data, Origin("memory"))


class Host:
    """The files of the host; each change is made in place."""

    def __init__(self) -> None:
        self.tree = _fixture().copy()
        self.problems = ProblemLog()

    def read(self, path: str) -> bytes:
        return self.tree.read(path)

    def write(self, path: str, data: bytes, **changes: object) -> None:
        """Put a file; the properties of one that is there stay."""
        old = self.tree.find(path)
        node = old or Node(path, NodeKind.FILE, 0o644, 0, 0, 0, 0, Origin("memory"))
        self.tree.put(replace(node, size=len(data), content=Bytes(data), **changes))  # type: ignore[arg-type]

    def change(self, path: str, **changes: object) -> None:
        """Other properties of a node."""
        self.tree.put(replace(self.tree.node(path), **changes))  # type: ignore[arg-type]

    def remove(self, path: str) -> None:
        assert self.tree.remove(path), path

    def copy(self, path: str, to: str) -> None:
        for node in list(self.tree.walk(path)):
            self.tree.put(replace(node, path=to + node.path.removeprefix(path)))

    def move(self, path: str, to: str) -> None:
        self.copy(path, to)
        self.remove(path)

    def docker(self) -> DockerRoot:
        """The engine over it."""
        reader = DocumentReader(self.tree, self.problems)
        roots = find_roots(reader)
        stores = find_stores([reader], roots, Limits(), SpoolPool(1 << 30))
        outlet = Outlet(Path("host.tar"), None, Custody(), self.problems)
        return DockerRoot(reader, roots[0], Limits(), outlet, stores)

    def failed(self) -> list[Check]:
        """The checks that fail."""
        return [check for check in verify_root(self.docker(), Limits()) if not check.ok]

    def said(self, docker: DockerRoot) -> list[str]:
        """What is reported of the store as a whole, without what the fixture itself lacks."""
        report_leftovers(docker)
        return [one.message for one in self.problems.rows if one.message not in _lacking()]


@cache
def _fixture() -> IndexTree:
    data = DOCKER_CONTAINERD.read_bytes()
    origin = Origin(DOCKER_CONTAINERD.name)
    content = b"".join(decompress(BytesSource(data, origin).blocks(), Compression.ZSTD, origin, Limits()))
    return tar_tree(BytesSource(content, origin), ProblemLog(strict=True), Limits())


@cache
def _lacking() -> frozenset[str]:
    host = Host()
    report_leftovers(host.docker())
    return frozenset(_messages(host.problems))


def _messages(problems: ProblemLog) -> Iterator[str]:
    return (one.message for one in problems.rows)
