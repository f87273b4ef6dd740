"""What a path tells of a deleted file, and content that cannot be its own."""

from __future__ import annotations

import gzip
import hashlib
import json

import pytest

from forensics_lib.model import Origin
from forensics_lib.recovery.judge import container_of, judged, kind_of
from forensics_lib.recovery.remnant import Confidence
from forensics_lib.sources.base import BytesSource, SliceSource

ID = "4b" * 32
CONTENT = b'{"ID":"%s"}' % ID.encode()
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.mark.parametrize(
    ("path", "kind", "container"),
    [
        (f"/var/lib/docker/containers/{ID}/config.v2.json", "config", ID),
        (f"containers/{ID}/{ID}-json.log.1.gz", "log", ID),
        (f"/d/image/overlay2/layerdb/mounts/{ID}/mount-id", "layer", ID),
        (f"/d/containers/{ID[:12]}/x", "file", ""),
        ("/d/overlay2/abc/diff/etc/config.json", "file", ""),
        ("/d/volumes/v/_data/a-json.log", "file", ""),
        (f"/d/image/overlay2/imagedb/content/sha256/{DIGEST}", "image", ""),
        ("", "file", ""),
    ],
)
def test_paths(path: str, kind: str, container: str) -> None:
    assert (kind_of(path), container_of(path)) == (kind, container)


@pytest.mark.parametrize(
    ("path", "content", "grade"),
    [
        ("", b"anything", Confidence.INTACT),
        (f"/i/blobs/sha256/{DIGEST}", CONTENT, Confidence.VERIFIED),
        (f"/i/blobs/sha256/{DIGEST}", CONTENT + b" ", Confidence.METADATA_ONLY),
        (f"/containers/{ID}/config.v2.json", CONTENT, Confidence.INTACT),
        (f"/containers/{'5' * 64}/config.v2.json", CONTENT, Confidence.METADATA_ONLY),
        ("/a/b.json", json.dumps([1]).encode(), Confidence.INTACT),
        ("/a/b.json", b"[" * 100_000, Confidence.METADATA_ONLY),
        ("/a/b.tgz", gzip.compress(b"x"), Confidence.INTACT),
        ("/a/b.tgz", b"x", Confidence.METADATA_ONLY),
        ("/a/x-json.log", b"x", Confidence.METADATA_ONLY),
        ("/a/zeros", bytes(100_000), Confidence.METADATA_ONLY),
        ("/a/nearly", bytes(100_000) + b"1", Confidence.INTACT),
    ],
)
def test_content_fits_its_name_or_is_none(path: str, content: bytes, grade: Confidence) -> None:
    found, words = judged(path, BytesSource(content, Origin("disk")))
    assert found is grade
    assert bool(words) is (grade is Confidence.METADATA_ONLY)


def test_content_that_cannot_be_read_is_none() -> None:
    source = SliceSource(BytesSource(b"1234", Origin("disk")), 0, 600, Origin("file"))
    assert judged("/a", source)[0] is Confidence.METADATA_ONLY
