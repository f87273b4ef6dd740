"""Which addresses of a btrfs file system are in use, since when, and which parts of its devices are not.

Format: Linux ``include/uapi/linux/btrfs_tree.h`` (struct btrfs_extent_item).
"""

from __future__ import annotations

import bisect
import struct
from array import array
from collections.abc import Iterable, Iterator

from forensics_lib.errors import DamagedData, NotFound
from forensics_lib.formats.btrfs import BtrfsVolume
from forensics_lib.formats.btrfs_chunks import Chunk
from forensics_lib.formats.btrfs_items import ItemKind
from forensics_lib.formats.btrfs_node import MAX_OFFSET, Key
from forensics_lib.model import ProblemLog

__all__ = ["BtrfsSpace"]

_EXTENT_TREE = 2
_EXTENT = struct.Struct("<QQQ")
_DATA = 1
_RESERVED = 1 << 20  # at the start of every device
_MAX_EXTENTS = 1 << 25


class BtrfsSpace:
    """The extents that are in use, by the extent tree.

    What lies next to a part of that tree that cannot be read counts as in use.

    Args:
        volume: the file system.
        problems: gets damage of the extent tree.
    """

    def __init__(self, volume: BtrfsVolume, problems: ProblemLog) -> None:
        """Read the extent tree."""
        self._volume = volume
        self._starts, self._ends, self._since, self._data = array("Q"), array("Q"), array("Q"), array("B")
        self._damaged: list[DamagedData] = []
        self._left_out: list[tuple[int, int]] = []
        try:
            self._read()
            self._read_log()
        except (DamagedData, NotFound) as error:
            damage = error if isinstance(error, DamagedData) else DamagedData(str(error), origin=volume.origin)
            self._damaged.append(damage)
            self._add(self._ends[-1] if self._ends else 0, MAX_OFFSET, MAX_OFFSET, True)
        for damage in self._damaged:
            problems.add(volume.origin.to("extent tree"), damage)

    def _read(self) -> None:
        node_size, known = self._volume.superblock.node_size, 0
        tree = self._volume.tree(_EXTENT_TREE)
        for item in tree.items(Key(0, 0, 0), Key(MAX_OFFSET, 255, MAX_OFFSET), self._damaged.append):
            start, kind, length = item.key
            if kind not in (ItemKind.EXTENT, ItemKind.METADATA):
                continue
            if len(self._damaged) > known:
                known = len(self._damaged)
                self._add(self._ends[-1] if self._ends else 0, start, MAX_OFFSET, True)
            if len(item.data) < _EXTENT.size or len(self._starts) > _MAX_EXTENTS:
                raise DamagedData("the extent tree is damaged", origin=self._volume.origin)
            _, generation, flags = _EXTENT.unpack_from(item.data)
            size = node_size if kind == ItemKind.METADATA else length
            self._add(start, start + size, generation, bool(flags & _DATA))
        if len(self._damaged) > known:
            self._add(self._ends[-1] if self._ends else 0, MAX_OFFSET, MAX_OFFSET, True)

    def _read_log(self) -> None:
        """Put what only the log has in its place among the others."""
        logged = {one.logical: one for one in self._volume.logged() if one.logical}
        if not logged:
            return
        rows = [*zip(self._starts, self._ends, self._since, self._data, strict=True)]
        rows += [(one.logical, one.logical + one.stored, one.generation, 1) for one in logged.values()]
        self._starts, self._ends, self._since, self._data = array("Q"), array("Q"), array("Q"), array("B")
        for start, end, since, data in sorted(rows):
            self._add(start, end, since, bool(data))

    def _add(self, start: int, end: int, since: int, data: bool) -> None:
        end = min(end, MAX_OFFSET)
        start = max(start, self._ends[-1] if self._ends else 0)
        if start < end:
            self._starts.append(start)
            self._ends.append(end)
            self._since.append(since)
            self._data.append(data)

    def used(self, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """(first address, end, transaction that allocated it) of what is in use in a range."""
        for index in range(bisect.bisect_right(self._ends, start), len(self._starts)):
            if self._starts[index] >= end:
                return
            yield max(start, self._starts[index]), min(end, self._ends[index]), self._since[index]

    def leave_out(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Take (first address, end) of ranges from the free space: what they hold is known."""
        self._left_out = sorted({*self._left_out, *ranges})

    def free(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """(first address, end) of the gaps in a range."""
        first = max(0, bisect.bisect_left(self._left_out, (start, 0)) - 1)
        last = bisect.bisect_left(self._left_out, (end, 0))
        taken = [(begin, stop) for begin, stop, _ in self.used(start, end)]
        for begin, stop in sorted([*taken, *self._left_out[first:last]]):
            if start < begin < end:
                yield start, begin
            start = max(start, stop)
        if start < end:
            yield start, end

    def free_of_devices(self) -> Iterator[tuple[int, int, int]]:
        """(device, offset, length) of what holds nothing: free space of data chunks, and what belongs to no chunk.

        Of mirrored chunks the first copy. Chunks that are striped over devices are left out; see `free_stripes`.
        """
        yield from self.unassigned()
        for chunk in self._chunks_of_data():
            if not chunk.is_striped:
                stripe = chunk.stripes[0]
                for start, end in self.free(chunk.start, chunk.start + chunk.length):
                    yield stripe.device, stripe.offset + start - chunk.start, end - start

    def free_stripes(self) -> Iterator[tuple[int, int]]:
        """(first address, length) of the free space of data chunks that are striped over devices."""
        for chunk in self._chunks_of_data():
            if chunk.is_striped:
                for start, end in self.free(chunk.start, chunk.start + chunk.length):
                    yield start, end - start

    def unassigned(self) -> Iterator[tuple[int, int, int]]:
        """(device, offset, length) of what belongs to no chunk."""
        yield from self._gaps(
            (stripe.device, stripe.offset, chunk.device_length)
            for chunk in self._volume.chunks.chunks.values()
            for stripe in chunk.stripes
        )

    def without_files(self) -> Iterator[tuple[int, int, int]]:
        """(device, offset, length) of everything but the content of files that is in use."""
        yield from self._gaps(self._files())

    def _files(self) -> Iterator[tuple[int, int, int]]:
        for index in range(len(self._starts)):
            if not self._data[index] or self._since[index] == MAX_OFFSET:
                continue
            try:
                chunk = self._volume.chunks.chunk(self._starts[index])
            except DamagedData:
                continue
            if not chunk.is_striped:
                shift = self._starts[index] - chunk.start
                length = min(self._ends[index] - self._starts[index], chunk.length - shift)
                for stripe in chunk.stripes:
                    yield stripe.device, stripe.offset + shift, length

    def _gaps(self, taken: Iterator[tuple[int, int, int]]) -> Iterator[tuple[int, int, int]]:
        """What is left of the devices."""
        by_device: dict[int, list[tuple[int, int]]] = {}
        for device, offset, length in taken:
            by_device.setdefault(device, []).append((offset, offset + length))
        for device, source in sorted(self._volume.chunks.devices.items()):
            position = _RESERVED
            for start, end in [*sorted(by_device.get(device, [])), (source.size, source.size)]:
                stop = min(start, source.size)
                if stop > position:
                    yield device, position, stop - position
                position = max(position, end)

    def _chunks_of_data(self) -> Iterator[Chunk]:
        for chunk in sorted(self._volume.chunks.chunks.values(), key=lambda one: one.start):
            if chunk.kind & _DATA:
                yield chunk
