"""Which bytes of a btrfs file system nothing uses."""

from __future__ import annotations

from collections.abc import Iterator

from forensics_lib.formats.btrfs_chunks import ChunkMap
from forensics_lib.formats.btrfs_space import BtrfsSpace
from forensics_lib.model import Origin
from forensics_lib.recovery.free import FreeSpace
from forensics_lib.sources.base import Source
from forensics_lib.trees.btrfs import BtrfsTree

__all__ = ["free_spaces"]


class _Addresses(Source):
    """The logical addresses of a file system as one run of bytes."""

    def __init__(self, chunks: ChunkMap, origin: Origin) -> None:
        self._chunks = chunks
        self.origin = origin
        self.size = max((chunk.start + chunk.length for chunk in chunks.chunks.values()), default=0)

    def read_at(self, offset: int, length: int) -> bytes:
        return self._chunks.read(offset, max(0, min(length, self.size - offset)))


def free_spaces(tree: BtrfsTree, space: BtrfsSpace) -> Iterator[FreeSpace]:
    """The free space of each device, then that of what is striped over devices, by logical addresses.

    Space for tree blocks is left out: files do not start there.

    Args:
        tree: the file system.
        space: what of it is in use.
    """
    ranges: dict[int, list[tuple[int, int]]] = {}
    for device, offset, length in space.free_of_devices():
        ranges.setdefault(device, []).append((offset, length))
    block = tree.volume.superblock.sector_size
    for device, free in sorted(ranges.items()):
        source = tree.volume.chunks.devices.get(device)
        if source is not None:
            yield FreeSpace(source, sorted(free), block)
    striped = list(space.free_stripes())
    if striped:
        yield FreeSpace(_Addresses(tree.volume.chunks, tree.origin.to("logical addresses")), striped, block)
