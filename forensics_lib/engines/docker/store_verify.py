"""Are the layers in containerd's store still what was pulled or built? Counts, blobs, and every unpacked file."""

from __future__ import annotations

from collections.abc import Iterator

from forensics_lib.engines.containerd.unpacked import verify_unpacked
from forensics_lib.engines.containerd.verify import verify_content
from forensics_lib.engines.docker.containerd import ContainerdStore
from forensics_lib.engines.docker.engine import DockerRoot
from forensics_lib.model import Check

__all__ = ["verify_store"]


def verify_store(docker: DockerRoot, store: ContainerdStore) -> Iterator[Check]:
    """The blobs, the images' counts, then each unpacked layer against its archive."""
    for image in docker.images:
        if image.config.diff_ids:
            expected, count = len(image.config.diff_ids), len(image.layers)
            yield Check(f"image {image.id} layer count", str(expected), str(count), count == expected, image.origin)
    yield from verify_content(store.containerd)
    yield from verify_unpacked(store)
