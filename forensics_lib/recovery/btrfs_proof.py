"""Whether what lies at an address of btrfs is still what a file had there.

Every sector of a file has a checksum in a tree of its own, of which older blocks are left as well. A checksum that was
there while the file was proves its bytes, also where the space was given away since. Files may be excluded from
checksums (``chattr +C``); of them, and where the checksums are lost, the space has to be free still.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator
from dataclasses import replace
from enum import IntEnum

from forensics_lib.errors import DamagedData, LimitExceeded
from forensics_lib.formats.btrfs import BtrfsVolume
from forensics_lib.formats.btrfs_checksum import CHECKSUMS
from forensics_lib.formats.btrfs_chunks import ChunkMap, parse_chunk
from forensics_lib.formats.btrfs_history import LOG_TREE, NOW, NodeHistory
from forensics_lib.formats.btrfs_items import ExtentKind, FileExtent, ItemKind
from forensics_lib.formats.btrfs_space import BtrfsSpace
from forensics_lib.model import ProblemLog

__all__ = ["Proof", "Standing", "chunks_of_all_times", "kept"]

_CHUNK_TREE, _CHECKSUM_TREE = 3, 7
_MAX_BYTES = 256 << 20
_READ = 1 << 20


class Standing(IntEnum):
    """How sure it is that bytes are what they were; the lower the worse."""

    LOST = 0
    """Something else was written there, or may have been."""
    FREE = 1
    """Nothing is known to have been written there since."""
    PROVEN = 2
    """A checksum of that time, or their place inside a checked tree block, proves them."""


def chunks_of_all_times(volume: BtrfsVolume, history: NodeHistory) -> ChunkMap:
    """Where addresses lie or lay: the chunks as they are, and those that were removed where no other is now."""
    found = ChunkMap(volume.chunks.devices, volume.chunks.origin)
    for chunk in volume.chunks.chunks.values():
        found.add(chunk)
    for leaf in reversed(history.leaves(_CHUNK_TREE)):
        try:
            block = history.read(leaf)
        except DamagedData:
            continue
        for index, (_, kind, start) in enumerate(block.keys):
            if kind == ItemKind.CHUNK and start not in found.chunks:
                try:
                    found.add(parse_chunk(start, block.item(index).data)[0])
                except DamagedData:  # it gave way to another one
                    continue
    return found


class Proof:
    """Judges extents.

    Args:
        volume: the file system.
        history: its tree blocks.
        space: what is in use.
        chunks: where addresses lie and lay.
        problems: gets that there are more checksums than are kept.
    """

    def __init__(
        self,
        volume: BtrfsVolume,
        history: NodeHistory,
        space: BtrfsSpace,
        chunks: ChunkMap,
        problems: ProblemLog,
    ) -> None:
        """Read all checksums of all times."""
        self._space = space
        self._chunks = chunks
        self._present = volume.chunks
        self._checksum = CHECKSUMS[volume.superblock.checksum_kind]
        self._size = len(self._checksum(b""))
        self._sector = volume.superblock.sector_size
        self._later: list[tuple[int, int, int]] = []
        self._read(history, problems)

    def note_uses(self, uses: Iterable[tuple[int, int, int]]) -> None:
        """Tell what is known to have been written: (address, bytes, transaction)."""
        self._later = sorted(set(uses))
        self._longest = max((length for _, length, _ in self._later), default=0)

    def judge(self, extent: FileExtent, last: int) -> Iterator[tuple[int, int, Standing]]:
        """(offset, bytes, standing) of each part of an extent's run, the whole run for compressed ones.

        Args:
            extent: what an inode had.
            last: the last transaction that is known to have had it.
        """
        if extent.kind is not ExtentKind.REGULAR or not extent.logical:
            yield 0, extent.length, Standing.PROVEN
            return
        if extent.compression:
            stands = [standing for *_, standing in self._sectors(extent, extent.logical, extent.stored, last)]
            yield 0, extent.length, min(stands, default=Standing.LOST)
            return
        start = end = 0
        before = Standing.LOST
        for offset, length, standing in self._sectors(extent, extent.logical + extent.offset, extent.length, last):
            if standing != before:
                if end > start:
                    yield start, end - start, before
                start, before = offset, standing
            end = offset + length
        if end > start:
            yield start, end - start, before

    def _sectors(self, extent: FileExtent, address: int, length: int, last: int) -> Iterator[tuple[int, int, Standing]]:
        """(offset, bytes, standing) of each sector."""
        end = address + length
        used = list(self._space.used(address, end))
        for start in range(address, end, _READ):
            stop = min(start + _READ, end)
            try:
                data = self._chunks.read(start, stop - start)
            except DamagedData:
                yield start - address, stop - start, Standing.LOST
                continue
            sums = self._sums(start, stop, extent.generation)
            for at in range(start, stop, self._sector):
                size = min(self._sector, stop - at)
                since = next((since for begin, ending, since in used if begin <= at < ending), None)
                until = NOW if since is not None and since <= extent.generation else last
                stored = sums.get(at)
                found = self._checksum(data[at - start : at - start + size])
                yield at - address, size, self._standing(extent, at, found, stored, since, until)

    def _standing(
        self,
        extent: FileExtent,
        at: int,
        found: bytes,
        stored: list[tuple[int, bytes]] | None,
        since: int | None,
        until: int,
    ) -> Standing:
        wanted = next((checksum for generation, checksum in stored or () if generation <= until), None)
        if wanted is not None:
            return Standing.PROVEN if found == wanted else Standing.LOST
        if since is not None:
            return Standing.FREE if since <= extent.generation else Standing.LOST
        if stored and all(checksum != found for _, checksum in stored):
            return Standing.LOST
        return Standing.LOST if self._used_after(at, extent.generation) else Standing.FREE

    def _used_after(self, at: int, generation: int) -> bool:
        """Whether an address is known to have been written to in a later transaction, or belongs to no chunk now."""
        try:
            self._present.chunk(at)
        except DamagedData:
            return True
        index = bisect.bisect_right(self._later, (at, 1 << 64, 0)) - 1
        while index >= 0 and self._later[index][0] >= at - self._longest:
            start, length, written = self._later[index]
            if start <= at < start + length and written > generation:
                return True
            index -= 1
        return False

    def _sums(self, start: int, end: int, first: int) -> dict[int, list[tuple[int, bytes]]]:
        """(transaction, checksum) of each sector of a range, the oldest that is not before a transaction first."""
        found: dict[int, list[tuple[int, bytes]]] = {}
        index = bisect.bisect_left(self._starts, start - self._reach)
        while index < len(self._items) and self._starts[index] < end:
            at, data, generation = self._items[index]
            index += 1
            count = len(data) // self._size
            if generation < first or at + count * self._sector <= start:
                continue
            low, high = max(start, at), min(end, at + count * self._sector)
            for sector in range(low, high, self._sector):
                place = (sector - at) // self._sector * self._size
                found.setdefault(sector, []).append((generation, data[place : place + self._size]))
        for known in found.values():
            known.sort()
        return found

    def _read(self, history: NodeHistory, problems: ProblemLog) -> None:
        seen: dict[tuple[int, bytes], list[int]] = {}
        room = _MAX_BYTES
        for leaf in (*history.leaves(_CHECKSUM_TREE), *history.leaves(LOG_TREE)):
            try:
                block = history.read(leaf)
            except DamagedData as error:
                problems.add(leaf.device.origin, error)
                continue
            for index, (_, kind, start) in enumerate(block.keys):
                if kind != ItemKind.EXTENT_CSUM or start % self._sector:
                    continue
                data = block.item(index).data
                generations = seen.setdefault((start, data), [])
                if not generations:
                    room -= len(data) + 128
                generations.append(leaf.generation)
            if room < 0:
                message = f"more than {_MAX_BYTES >> 20} MiB of checksums; the others are not used"
                problems.add(leaf.device.origin.to("checksum tree"), LimitExceeded(message))
                break
        items = [(start, data, one) for (start, data), all_of in seen.items() for one in sorted(set(all_of))]
        self._items = sorted(items, key=lambda one: (one[0], one[2]))
        self._starts = [start for start, _, _ in self._items]
        self._reach = max((len(data) for _, data in seen), default=0) // self._size * self._sector


def kept(extent: FileExtent, offset: int, length: int) -> FileExtent:
    """A part of an extent's run."""
    return replace(extent, offset=extent.offset + offset, length=length)
