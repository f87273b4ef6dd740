"""Read-only random-access bytes: the lowest idea of the library."""

from __future__ import annotations

import bisect
import hashlib
import io
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, BinaryIO, cast

from forensics_lib.errors import DamagedData, LimitExceeded
from forensics_lib.model import Origin

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["BLOCK", "BytesSource", "ExtentSource", "SliceSource", "Source"]

BLOCK = 256 << 10
"""Bytes read at a time: large enough to make calls cheap, small enough to stay in a core's cache while it is hashed."""


_HOLES_FROM = 1 << 30
_HOLES_RATIO = 1000


class Source(ABC):
    """Read-only random-access bytes: a file, a part of one, or what is inside a compressed one.

    Reads are positional, so threads and nested sources never disturb each other.

    Attributes:
        origin: where these bytes come from.
        size: their number.
    """

    origin: Origin
    size: int

    @property
    def stored_size(self) -> int:
        """Bytes that are stored, at most: the size without its holes, where it has any."""
        return self.size

    @abstractmethod
    def read_at(self, offset: int, length: int) -> bytes:
        """The bytes at a position; short only at the end.

        Raises:
            DamagedData: the range exists but cannot be read, or lies before the start.
        """

    def read_some(self, offset: int, length: int) -> bytes:
        """The bytes at a position, fewer in front of damage; empty only at the end.

        Raises:
            DamagedData: not even the first byte can be read.
        """
        while True:
            try:
                return self.read_at(offset, length)
            except DamagedData:
                if length <= 1:
                    raise
                length //= 2

    def blocks(self, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """The bytes from a position on, block by block.

        Raises:
            DamagedData: some cannot be read; those before them were yielded.
            LimitExceeded: more than a thousand times as many zeros for holes as stored bytes, beyond 1 GiB: a damaged
                or hostile size would take years to read. A part that is asked for is read all the same.
        """
        if length is None and self.size > _HOLES_FROM:
            stored = self.stored_size
            if self.size > _HOLES_RATIO * max(stored, 1 << 20):
                message = f"{stored} stored bytes stand for {self.size}; the holes are not read through"
                raise LimitExceeded(message, origin=self.origin)
        end = self.size if length is None else min(self.size, offset + length)
        while offset < end:
            length = min(BLOCK, end - offset)
            try:
                data = self.read_at(offset, length)
            except DamagedData:
                data = self.read_some(offset, length)
            if not data:
                return
            yield data
            offset += len(data)

    def sha256(self) -> str:
        """The digest of all bytes, in hexadecimal.

        Raises:
            DamagedData: as `blocks`.
            LimitExceeded: as `blocks`.
        """
        digest = hashlib.sha256()
        for block in self.blocks():
            digest.update(block)
        return digest.hexdigest()

    def slice(self, offset: int, length: int, label: str) -> SliceSource:
        """A part of these bytes as a source of its own."""
        return SliceSource(self, offset, length, self.origin.to(label, offset))

    def open(self) -> BinaryIO:
        """The bytes as a seekable, read-only binary file."""
        return cast("BinaryIO", io.BufferedReader(_RawReader(self), 64 << 10))

    def close(self) -> None:  # noqa: B027 - most sources hold nothing
        """Release what the source holds; reading it afterwards is an error."""


class BytesSource(Source):
    """Bytes that are in memory already."""

    def __init__(self, data: bytes, origin: Origin) -> None:
        """Serve `data`."""
        self.data = data
        self.size = len(data)
        self.origin = origin

    def read_at(self, offset: int, length: int) -> bytes:
        """The bytes at a position; short only at the end."""
        _check_offset(self, offset)
        return self.data[offset : offset + max(length, 0)]


class SliceSource(Source):
    """A contiguous part of another source.

    The part may be declared longer than what is there (a truncated archive, a partition beyond the end of its disk):
    what is there can be read, reading on raises.
    """

    def __init__(self, parent: Source, offset: int, length: int, origin: Origin) -> None:
        """Serve `length` bytes of `parent` from `offset` on."""
        self.parent = parent
        self.offset = offset
        self.size = length
        self.origin = origin

    def read_at(self, offset: int, length: int) -> bytes:
        """The bytes at a position; short only at the end.

        Raises:
            DamagedData: the parent ends before the declared length of this part.
        """
        _check_offset(self, offset)
        length = min(length, self.size - offset)
        if length <= 0:
            return b""
        data = self.parent.read_at(self.offset + offset, length)
        if len(data) < length:
            raise DamagedData(
                f"{self.size} bytes are declared, only {offset + len(data)} are there",
                origin=self.origin,
                offset=offset,
            )
        return data


class ExtentSource(Source):
    """Scattered extents of another source, with zeros in the holes between them.

    Args:
        parent: where the extents lie.
        extents: (logical offset, offset in the parent, length), ascending and not overlapping.
        size: logical size in bytes.
    """

    def __init__(self, parent: Source, extents: Sequence[tuple[int, int, int]], size: int, origin: Origin) -> None:
        """Serve the extents as one run of bytes."""
        self.parent = parent
        self.extents = tuple(extents)
        self.size = size
        self.origin = origin
        self._starts = [logical for logical, _, _ in self.extents]

    @property
    def stored_size(self) -> int:
        """Bytes in the extents."""
        return sum(length for _, _, length in self.extents)

    def read_at(self, offset: int, length: int) -> bytes:
        """The bytes at a position, holes as zeros; short only at the end.

        Raises:
            DamagedData: the parent ends inside an extent.
        """
        end = min(offset + length, self.size)
        first = bisect.bisect_right(self._starts, offset) - 1
        if first >= 0 and offset < end:
            logical, physical, size = self.extents[first]
            if end <= logical + size:  # most reads: nothing is to be put together
                data = self.parent.read_at(physical + offset - logical, end - offset)
                if len(data) == end - offset:
                    return data
        _check_offset(self, offset)
        return self._pieces(max(first, 0), offset, end) if offset < end else b""

    def _pieces(self, first: int, offset: int, end: int) -> bytes:
        data = bytearray(end - offset)
        for index in range(first, bisect.bisect_left(self._starts, end)):
            logical, physical, size = self.extents[index]
            start, stop = max(logical, offset), min(logical + size, end)
            if start < stop:
                part = self.parent.read_at(physical + start - logical, stop - start)
                if len(part) < stop - start:
                    raise DamagedData("an extent lies beyond the end", origin=self.origin, offset=start + len(part))
                data[start - offset : stop - offset] = part
        return bytes(data)


class _RawReader(io.RawIOBase):
    """Cursor over a source for callers that want a file object."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_CUR:
            offset += self._position
        elif whence == io.SEEK_END:
            offset += self._source.size
        if offset < 0:
            raise ValueError("negative seek position")
        self._position = offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        done = 0
        while done < len(view):  # block by block, as large buffers of short life are slow
            try:
                data = self._source.read_some(self._position, min(BLOCK, len(view) - done))
            except DamagedData:
                if done:
                    break
                raise
            if not data:
                break
            view[done : done + len(data)] = data
            self._position += len(data)
            done += len(data)
        return done


def _check_offset(source: Source, offset: int) -> None:
    if offset < 0:
        raise DamagedData(f"position {offset} lies before the start", origin=source.origin, offset=offset)
