"""The bytes of a file of a btrfs file system, put together from its extents."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from forensics_lib.errors import DamagedData, ForensicsError, UnsupportedFormat
from forensics_lib.formats.btrfs_chunks import ChunkMap
from forensics_lib.formats.btrfs_compression import LARGEST_EXTENT, unpack
from forensics_lib.formats.btrfs_items import ExtentKind, FileExtent
from forensics_lib.model import Origin
from forensics_lib.sources.base import BytesSource, Source

__all__ = ["BtrfsContent"]


class _Run(NamedTuple):
    """A part of a file that lies together on a device."""

    start: int
    stop: int
    device: Source
    at: int


_NO_RUN = _Run(0, 0, BytesSource(b"", Origin("nothing")), 0)


class BtrfsContent(Source):
    """A file: holes and preallocated space as zeros, compressed extents unpacked when they are read.

    Args:
        chunks: reads logical addresses.
        extents: (offset in the file, extent), ascending.
        size: bytes of the file.
        sector_size: bytes of a sector of the file system.
        origin: the inode.
        damage: why extents may be missing; the places where there are none are then no holes.
    """

    def __init__(
        self,
        chunks: ChunkMap,
        extents: Sequence[tuple[int, FileExtent]],
        size: int,
        sector_size: int,
        origin: Origin,
        damage: DamagedData | None = None,
    ) -> None:
        """Serve the extents as one run of bytes."""
        self.extents = tuple(extents)
        self.size = size
        self.origin = origin
        self._chunks = chunks
        self._sector_size = sector_size
        self._damage = damage
        self._starts = [start for start, _ in self.extents]
        self._run = _NO_RUN  # the last one
        self._unpacked: tuple[FileExtent | None, bytes] = (None, b"")  # the last one, for reads in small steps

    @property
    def stored_size(self) -> int:
        """Bytes in extents that are no holes, unpacked."""
        return sum(extent.length for _, extent in self.extents if extent.logical or extent.kind is ExtentKind.INLINE)

    def read_at(self, offset: int, length: int) -> bytes:
        """The bytes at a position, holes as zeros; short only at the end.

        Raises:
            DamagedData: an extent cannot be read, contradicts itself, or lies on a device that is missing.
            UnsupportedFormat: an extent is compressed or encrypted in an unknown way.
        """
        if offset < 0:
            raise DamagedData(f"position {offset} lies before the start", origin=self.origin, offset=offset)
        end = min(offset + length, self.size)
        if offset >= end:
            return b""
        run = self._run
        if run.start <= offset and end <= run.stop:
            try:
                part = run.device.read_at(run.at + offset - run.start, end - offset)
            except DamagedData:
                part = b""  # there may be another copy
            if len(part) == end - offset:
                return part
        first = max(0, bisect.bisect_right(self._starts, offset) - 1)
        last = bisect.bisect_left(self._starts, end)
        if last - first == 1:
            start, extent = self.extents[first]
            if start <= offset and end <= start + extent.length:
                self._run = self._run_of(first)
                return self._bytes(start, extent, offset - start, end - offset)
        data = bytearray(end - offset)
        covered = offset
        for start, extent in self.extents[first:last]:
            begin, stop = max(start, offset), min(start + extent.length, end)
            if begin < stop:
                if begin > covered:
                    self._check_hole(covered)
                covered = stop
                data[begin - offset : stop - offset] = self._bytes(start, extent, begin - start, stop - begin)
        if covered < end:
            self._check_hole(covered)
        return bytes(data)

    def _run_of(self, index: int) -> _Run:
        """Where an extent lies, with those that follow it there too, for the reads to come; empty if that is no use."""
        start, extent = self.extents[index]
        if not extent.is_plain:
            return _NO_RUN
        logical, length = extent.logical + extent.offset, extent.length
        try:
            place = self._chunks.place(logical)
        except DamagedData:  # whoever reads it is told
            place = None
        if place is None or place[2] < length:
            return _NO_RUN
        for following in range(index + 1, len(self.extents)):
            after, extent = self.extents[following]
            joined = extent.is_plain and (after, extent.logical + extent.offset) == (start + length, logical + length)
            if not joined or place[2] < length + extent.length:
                break
            length += extent.length
        return _Run(start, start + length, *place[:2])

    def stored(self) -> Iterator[tuple[int, int]]:
        """(logical address, bytes) of everything that is stored outside of the tree itself, each once."""
        seen = set()
        for _, extent in self.extents:
            if extent.kind is not ExtentKind.REGULAR or not extent.logical:
                continue
            place = (extent.logical + extent.offset, extent.length)
            if extent.compression:  # it is kept whole, also where a part of it is used
                place = (extent.logical, extent.stored)
            if place not in seen:
                seen.add(place)
                yield place

    def _check_hole(self, offset: int) -> None:
        if self._damage is not None:
            message = f"the extents of this part cannot be read: {self._damage}"
            raise DamagedData(message, origin=self.origin, offset=offset) from self._damage

    def _bytes(self, start: int, extent: FileExtent, offset: int, length: int) -> bytes:
        """Part of an extent that begins at `start` of the file."""
        try:
            return self._part(extent, offset, length)
        except ForensicsError as error:
            message = f"extent at {start} cannot be read: {error}"
            if isinstance(error, DamagedData):
                raise DamagedData(message, origin=self.origin, offset=start + offset) from error
            raise UnsupportedFormat(message) from error

    def _part(self, extent: FileExtent, offset: int, length: int) -> bytes:
        if extent.encoded:
            raise UnsupportedFormat("it is encrypted or encoded in an unknown way")
        hole = extent.kind is not ExtentKind.INLINE and not extent.logical
        if hole or extent.kind is ExtentKind.PREALLOCATED:
            return bytes(length)
        at = extent.offset + offset
        if extent.compression:
            data = self._unpack(extent)[at : at + length]
        elif extent.kind is ExtentKind.INLINE:
            data = extent.inline[at : at + length]
        elif at + length > extent.stored:
            raise DamagedData("it is longer than what is stored")
        else:
            return self._chunks.read(extent.logical + at, length)
        if len(data) < length:
            raise DamagedData("it is longer than what is stored")
        return data

    def _unpack(self, extent: FileExtent) -> bytes:
        known, data = self._unpacked
        if known is extent:
            return data
        packed = extent.inline
        if extent.kind is not ExtentKind.INLINE:
            if extent.stored > LARGEST_EXTENT:
                raise DamagedData(f"it is compressed and of {extent.stored} bytes")
            packed = self._chunks.read(extent.logical, extent.stored)
        data = unpack(packed, extent.compression, extent.unpacked, self._sector_size)
        self._unpacked = (extent, data)
        return data
