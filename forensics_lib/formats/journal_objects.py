"""The objects of a systemd journal file: read one by one by their places, or all in a row.

Format: systemd ``docs/JOURNAL_FILE_FORMAT.md``. An object starts at a multiple of 8 with its type, flags and size.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from enum import IntEnum

from forensics_lib.errors import DamagedData, LimitExceeded
from forensics_lib.formats.lz4 import lz4_block
from forensics_lib.sources._cache import Cache
from forensics_lib.sources.base import BLOCK, Source

__all__ = ["LARGEST_VALUE", "JournalObjects", "ObjectKind"]

LARGEST_VALUE = 64 << 20
"""Bytes that one field of an entry may have here."""

_HEAD = struct.Struct("<BB6sQ")
_NO_BYTES = bytes(6)
_XZ, _LZ4, _ZSTD = 1, 2, 4
_FLAGS = (0, _XZ, _LZ4, _ZSTD)
_CANDIDATE = re.compile(rb"(?=[\x01-\x07][\x00\x01\x02\x04]\x00{6})")
_NOT_ZERO = re.compile(rb"[^\0]")
_ZSTD_WINDOW_LOG = 27
_XZ_MEMORY = 256 << 20
_CACHED = 4 << 20
_STEP = 4096
_RATIO, _RATIO_FROM = 1000, 1 << 30


class ObjectKind(IntEnum):
    """What an object is."""

    DATA = 1
    FIELD = 2
    ENTRY = 3
    DATA_HASH_TABLE = 4
    FIELD_HASH_TABLE = 5
    ENTRY_ARRAY = 6
    TAG = 7


_SMALLEST = (0, 65, 41, 68, 32, 32, 24, 64)  # bytes by kind


class JournalObjects:
    """The objects of one journal file. Every place and size is checked before it is used.

    Attributes:
        size: bytes of the file.
        skipped: (first place, bytes in all) of what `scan` passed over because it is no object; None when nothing.
    """

    def __init__(self, source: Source, start: int, *, compact: bool) -> None:
        """Read from `source`; the first object is expected at `start`."""
        self.size = source.size
        self.skipped: tuple[int, int] | None = None
        self._source = source
        self._start = start
        self._payload_at = 72 if compact else 64
        self._blocks: Cache[int, bytes] = Cache(_CACHED)
        self._block = (-1, b"")
        self._unpacked = 0

    def read(self, offset: int, length: int) -> bytes:
        """Exactly the bytes at a place.

        Raises:
            DamagedData: they are not all there.
        """
        number, start = divmod(offset, BLOCK)
        if start + length <= BLOCK and offset >= 0:
            held, block = self._block
            if held != number:
                block = self._load(number)
                self._block = (number, block)
            if len(block) >= start + length:
                return block[start : start + length]
        data = self._source.read_at(offset, length)
        if len(data) < length:
            raise DamagedData(f"the journal ends {length - len(data)} bytes too early", offset=offset)
        return data

    def head(self, offset: int, kind: ObjectKind) -> tuple[int, int]:
        """(flags, size) of the object at a place.

        Raises:
            DamagedData: no object of that kind is there.
        """
        found = self._plausible(offset)
        if found is None or found[0] != kind:
            raise DamagedData(f"no {kind.name.lower().replace('_', ' ')} object is at {offset}", offset=offset)
        return found[1], found[2]

    def payload(self, offset: int, limit: int = LARGEST_VALUE) -> bytes:
        """The content of a data object, unpacked: ``FIELD=value``.

        Args:
            offset: where it lies.
            limit: bytes that it may have.

        Raises:
            DamagedData: no such object is there, or it does not unpack.
            LimitExceeded: it is too large, or all values of the file together are.
        """
        flags, size = self.head(offset, ObjectKind.DATA)
        if size - self._payload_at > limit:
            raise LimitExceeded(f"a field of {size} bytes; the limit is {limit}", offset=offset)
        value = self.read(offset + self._payload_at, max(size - self._payload_at, 0))
        if flags:
            value = _unpack(value, flags, limit, offset)
            self._unpacked += len(value)
            if self._unpacked > max(_RATIO_FROM, _RATIO * self.size):
                raise LimitExceeded(f"fields of more than {self._unpacked} bytes in all", offset=offset)
        return value

    def may_start(self, offset: int, starts: tuple[bytes, ...]) -> bool:
        """Whether the content of the data object at a place can start with one of these; packed content always can.

        Raises:
            DamagedData: its start cannot be read.
        """
        if self.read(offset + 1, 1) != b"\0":
            return True
        start = offset + self._payload_at
        return self.read(start, min(max(map(len, starts)), self.size - start)).startswith(starts)

    def scan(self) -> Iterator[tuple[ObjectKind, int, int]]:
        """(kind, place, size) of every object, found one behind the other; damage is passed over and counted."""
        offset = self._start
        first, total = -1, 0
        found = self._plausible(offset)
        while offset + _HEAD.size <= self.size:
            following = offset + (-(-found[2] // 8) * 8 if found is not None else 8)
            ahead = self._plausible(following) if found is not None else None
            if found is not None:
                yield ObjectKind(found[0]), offset, found[2]
            if found is not None and (ahead is not None or self._is_end(following)):
                offset, found = following, ahead
                continue
            # The size of the last object may be wrong when nothing follows it, so what it covers is searched as well.
            searched = offset + 8 if found is not None else offset
            offset, lost = self._next(searched)
            if lost:
                first = searched if first < 0 else first
                total += lost
            found = self._plausible(offset)
        self.skipped = (first, total) if total else None

    def _plausible(self, offset: int) -> tuple[int, int, int] | None:
        """(kind, flags, size) where an object may start."""
        if offset < self._start or offset % 8 or offset + _HEAD.size > self.size:
            return None
        try:
            kind, flags, reserved, size = _HEAD.unpack(self.read(offset, _HEAD.size))
        except DamagedData:
            return None
        if not 0 < kind < len(_SMALLEST) or reserved != _NO_BYTES or size < _SMALLEST[kind]:
            return None
        if size > self.size - offset or flags not in _FLAGS or (flags and kind != ObjectKind.DATA):
            return None
        return kind, flags, size

    def _is_end(self, offset: int) -> bool:
        """Whether nothing was written from a place on: the end, or room that was only reserved."""
        try:
            return offset + _HEAD.size > self.size or not any(self.read(offset, _HEAD.size))
        except DamagedData:
            return False

    def _next(self, offset: int) -> tuple[int, int]:
        """(place of the next object from a place on, bytes other than zero that lie before it)."""
        lost = 0
        while offset < self.size:
            length = min(_STEP - offset % _STEP, self.size - offset)
            try:
                data = self.read(offset, min(length + 8, self.size - offset))
            except DamagedData:
                lost += length
                offset += length
                continue
            if _NOT_ZERO.search(data):
                for match in _CANDIDATE.finditer(data, 0, length + 7):
                    place = match.start()
                    if (offset + place) % 8 == 0 and self._plausible(offset + place) is not None:
                        return offset + place, lost + place - data.count(0, 0, place)
                lost += length - data.count(0, 0, length)
            offset += length
        return offset, lost

    def _load(self, number: int) -> bytes:
        block = self._blocks.get(number)
        if block is None:
            try:
                block = self._source.read_at(number * BLOCK, BLOCK)
            except DamagedData:
                return b""  # a part of it may be there: the exact read tells
            self._blocks.put(number, block)
        return block


def _unpack(data: bytes, flags: int, limit: int, offset: int) -> bytes:
    """A compressed value."""
    try:
        if flags == _LZ4:
            size = int.from_bytes(data[:8], "little")
            value = lz4_block(data[8:], size) if size <= limit else None
        else:
            value = (_zstd if flags == _ZSTD else _xz)(data, limit)
    except DamagedData as error:
        raise DamagedData(f"a compressed field is damaged: {error}", offset=offset) from error
    if value is None:
        raise LimitExceeded(f"a compressed field of more than {limit} bytes", offset=offset)
    return value


def _zstd(data: bytes, limit: int) -> bytes | None:
    from forensics_lib.sources._zstd import DecompressionParameter, ZstdDecompressor, ZstdError

    decoder = ZstdDecompressor(options={DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG})
    try:
        value = decoder.decompress(data, limit + 1)
    except ZstdError as error:
        raise DamagedData(str(error)) from error
    return _whole(value, decoder.eof, limit)


def _xz(data: bytes, limit: int) -> bytes | None:
    import lzma

    try:
        decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, _XZ_MEMORY)
        value = decoder.decompress(data, limit + 1)
    except lzma.LZMAError as error:
        raise DamagedData(str(error)) from error
    return _whole(value, decoder.eof, limit)


def _whole(value: bytes, ended: bool, limit: int) -> bytes | None:
    """The value; None when it is longer than the limit."""
    if len(value) > limit:
        return None
    if not ended:
        raise DamagedData("it is cut off")
    return value
