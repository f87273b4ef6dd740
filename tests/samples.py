"""The fixtures, and what the daemons that made them said of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from forensics_lib.model import ProblemLog
from forensics_lib.sources.decompress import Compression, Limits, sniff
from forensics_lib.sources.file import FileSource
from forensics_lib.sources.spool import SpoolSource
from forensics_lib.trees.archive import tar_tree
from forensics_lib.trees.base import NodeKind, Tree

FIXTURES = Path(__file__).parents[1] / "fixtures"
WEB = FIXTURES / "web.tar"
PLATFORMS = FIXTURES / "platforms.tar"
DOCKER_SAVE = FIXTURES / "docker-save.tar.xz"
EXPORT = FIXTURES / "export.tar.zst"
OCI = FIXTURES / "oci.tar"
OCI_ZSTD = FIXTURES / "oci-zstd.tar"
DIR = FIXTURES / "dir.tar.xz"
DIR_GZIP = FIXTURES / "dir-gzip.tar"
UMOCI = FIXTURES / "umoci.tar"
CHANGESETS = FIXTURES / "changesets.tar.zst"
DOCKER_ROOT = FIXTURES / "docker-root.tar.zst"
DOCKER_CONTAINERD = FIXTURES / "docker-containerd.tar.zst"


def inspected(identity: str) -> dict[str, Any]:
    """What ``docker image inspect`` said of an image."""
    path = FIXTURES / "truth" / "images" / f"{identity.removeprefix('sha256:')}.json"
    answer: dict[str, Any] = json.loads(path.read_text())[0]
    return answer


def history_lines(identity: str) -> list[dict[str, str]]:
    """What ``docker history --no-trunc`` said of an image, newest first."""
    path = FIXTURES / "truth" / "history" / f"{identity.removeprefix('sha256:')}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


@contextmanager
def archive_tree(archive: Path) -> Iterator[Tree]:
    """The files of an archive, whatever it is, compressed or not."""
    file = FileSource(archive)
    compression = sniff(file.read_at(0, 16))
    source = file if compression is Compression.NONE else SpoolSource(file, compression, file.origin)
    try:
        yield tar_tree(source, ProblemLog(strict=True), Limits())
    finally:
        source.close()
        file.close()


def unpack(archive: Path, to: Path) -> Path:
    """Write the folders and regular files of an archive below a folder."""
    with archive_tree(archive) as tree:
        for node in tree.walk():
            target = to / node.path.lstrip("/")
            if node.kind is NodeKind.DIR:
                target.mkdir(parents=True, exist_ok=True)
            elif node.kind is NodeKind.FILE:
                target.write_bytes(node.read())
    return to
