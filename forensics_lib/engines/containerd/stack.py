"""The layers of an image in containerd's store, unpacked or as archives, and the sizes that are recorded of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from forensics_lib.engines.containerd.space import SnapshotKeys, Space, directory_of
from forensics_lib.engines.stack import UnpackedLayer, UnpackedStack
from forensics_lib.errors import DamagedData, ForensicsError
from forensics_lib.images.digest import chain_ids
from forensics_lib.images.image import ImageParts
from forensics_lib.images.stack import FileVersion, HiddenFile, LayerStack
from forensics_lib.trees.base import Tree
from forensics_lib.trees.index import IndexTree
from forensics_lib.trees.layered import Change

__all__ = ["StoreStack", "chains_of", "stack_of", "unpacked_size", "unpacked_sizes"]


def chains_of(parts: ImageParts) -> list[str]:
    """Chain ids of an image's layers, base first; none when its configuration does not tell them."""
    try:
        return chain_ids(parts.config.diff_ids)
    except DamagedData:
        return []  # told with the image


def unpacked_sizes(parts: ImageParts, keys: SnapshotKeys | None) -> list[int]:
    """Bytes that each layer takes up unpacked, as recorded; 0 for one that is not unpacked."""
    known = keys.keys if keys is not None else {}
    found = [known.get(chain) for chain in chains_of(parts)]
    return [one.size or 0 if one is not None else 0 for one in found]


def unpacked_size(parts: ImageParts, keys: SnapshotKeys | None) -> int:
    """Bytes of an image's top snapshot and all that it lies on; 0 when it is not unpacked.

    A committed image has the init layer of its container among them.
    """
    chains = chains_of(parts)
    top = keys.keys.get(chains[-1]) if keys is not None and chains else None
    if keys is None or top is None:
        return 0
    return (top.size or 0) + (keys.snapshotter.usage_below(directory_of(top)) or 0)


def stack_of(space: Space, parts: ImageParts, keys: SnapshotKeys | None) -> StoreStack:
    """The layers as they are unpacked; where not all are, their archives; where not all of these are there, both.

    Args:
        space: the namespace that has the image.
        parts: the image.
        keys: the snapshots of the snapshotter that images are unpacked into; None where there is none.
    """
    sizes = unpacked_sizes(parts, keys)
    blobs = [layer.blob for layer in parts.layers if layer.blob is not None]
    archives = LayerStack(blobs, parts.origin, space.containerd.reader.problems)
    chains = chains_of(parts)
    found: list[UnpackedLayer] = []
    unpacked = bool(chains)
    for index, chain in enumerate(chains):
        directory = keys.directory(chain) if keys is not None else ""
        if keys is not None and keys.snapshotter.exists(directory):
            snapshotter = keys.snapshotter
            merged, alone = partial(snapshotter.tree, directory), partial(snapshotter.alone, directory)
            found.append(UnpackedLayer(merged, alone, sizes[index], snapshotter.shares))
        else:
            unpacked = False
            found.append(UnpackedLayer(partial(space.merged, keys, chain), partial(archives.alone, index), None))
    if not chains or (not unpacked and all(blob.stored is not None for blob in blobs)):
        return StoreStack(archives, sizes)
    return StoreStack(UnpackedStack(found, IndexTree(parts.origin)), sizes)


class StoreStack:
    """Layers of containerd's store: answers of another stack, with the sizes that the daemon shows."""

    def __init__(self, layers: UnpackedStack | LayerStack, sizes: Sequence[int]) -> None:
        """`sizes`: bytes that each layer takes up unpacked."""
        self._layers = layers
        self._sizes = tuple(sizes)

    def unreadable(self, index: int) -> ForensicsError | None:
        """Why one layer cannot be read; None when it can."""
        return self._layers.unreadable(index)

    def content_size(self, index: int) -> int:
        """Bytes that one layer takes up on the disk, unpacked, its directories counted; 0 when it is not unpacked."""
        return self._sizes[index] if index < len(self._sizes) else 0

    def alone(self, index: int) -> Tree:
        """What one layer holds."""
        return self._layers.alone(index)

    def tree(self, count: int | None = None) -> Tree:
        """All layers merged, or the first `count`."""
        return self._layers.tree(count)

    def changes(self, index: int) -> list[Change]:
        """What one layer adds, changes and deletes."""
        return self._layers.changes(index)

    def hidden(self) -> list[HiddenFile]:
        """Files that take up space and that no container sees."""
        return self._layers.hidden()

    def versions(self, path: str) -> Iterator[FileVersion]:
        """Every version of a path, base first."""
        return self._layers.versions(path)
