"""What a path tells of a deleted file, and whether the bytes that were found can be those of a file of that name."""

from __future__ import annotations

import json
import re

from forensics_lib.errors import DamagedData
from forensics_lib.recovery.remnant import Confidence
from forensics_lib.sources.base import Source

__all__ = ["container_of", "judged", "kind_of"]

_LARGEST_DOCUMENT = 16 << 20
_ZEROS_READ = 64 << 20
_CONTAINER = re.compile(r"(?:^|/)(?:containers|layerdb/mounts|overlay-containers)/([0-9a-f]{64})(?:/|$)")
_DIGEST = re.compile(r"/(?:blobs|imagedb/content)/sha256/([0-9a-f]{64})$")
_KINDS = (
    (re.compile(r"/diff/|/volumes/[^/]+/_data/|/snapshots/\d+/fs/|/(?:btrfs/subvolumes|vfs/dir)/[^/]+/."), "file"),
    (re.compile(r"/(?:config\.v2|hostconfig|config|state)\.json$"), "config"),
    (re.compile(r"-json\.log(?:\.\d+)?(?:\.gz)?$|/local-logs/|/ctr\.log$|/pods/.*\.log$"), "log"),
    (re.compile(r"/imagedb/|/repositories\.json$|/images/"), "image"),
    (re.compile(r"/layerdb/|/(?:overlay2?|btrfs/subvolumes|vfs/dir)/[^/]+(?:/[^/]+)?$"), "layer"),
    (re.compile(r"/volumes/"), "volume"),
)


def kind_of(path: str) -> str:
    """The kind of a remnant by where it lay; ``file`` for what is no engine's own."""
    return next((kind for pattern, kind in _KINDS if pattern.search(path)), "file")


def container_of(path: str) -> str:
    """The id of the container to whose folder a path belongs; empty for none."""
    match = _CONTAINER.search(path)
    return match[1] if match else ""


def judged(path: str, content: Source) -> tuple[Confidence, str]:
    """How sure content is of which all bytes are there, and what has to be said about it (empty for nothing).

    A digest in the path proves or refutes it. Else its form has to fit its name: what contradicts it is the content of
    something else that was written to the same place, and is no more than metadata.

    Args:
        path: as far as it is known; empty when it is not.
        content: all bytes of the file.
    """
    try:
        if digest := _DIGEST.search(path):
            if content.sha256() == digest[1]:
                return Confidence.VERIFIED, ""
            return Confidence.METADATA_ONLY, "the blocks do not hold what the digest in the name says"
        wrong = _contradiction(path, content)
    except DamagedData as error:
        wrong = str(error)
    return Confidence.METADATA_ONLY if wrong else Confidence.INTACT, wrong


def _contradiction(path: str, content: Source) -> str:
    """Why content cannot be that of a file of this name; empty when it can."""
    head = content.read_at(0, 512)
    if not head.strip(b"\0") and _only_zeros(content):
        return "its blocks hold nothing but zeros: written so, discarded, or never written"
    name = path.rpartition("/")[2]
    if name.endswith((".gz", ".tgz")) and head[:2] != b"\x1f\x8b":
        return "the blocks hold no gzip data"
    if name.endswith("-json.log") and head[:1] != b"{":
        return "the blocks hold no records of a log"
    if name.endswith(".json") and content.size <= _LARGEST_DOCUMENT:
        try:
            value = json.loads(content.read_at(0, content.size))
        except (ValueError, RecursionError):
            return "the blocks hold no JSON document"
        folder = container_of(path)
        if name == "config.v2.json" and folder and isinstance(value, dict) and value.get("ID") != folder:
            return f"the blocks hold the configuration of {value.get('ID')}"
    return ""


def _only_zeros(content: Source) -> bool:
    read = 0
    for block in content.blocks():
        read += len(block)
        if block.strip(b"\0"):
            return False
        if read > _ZEROS_READ:
            break
    return True
