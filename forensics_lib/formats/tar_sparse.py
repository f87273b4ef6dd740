"""Sparse members of tar archives: which parts of the file are stored, in GNU's old format and pax 0.0, 0.1 and 1.0."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from forensics_lib.errors import DamagedData
from forensics_lib.formats import tar_header
from forensics_lib.sources.stream import Stream

if TYPE_CHECKING:
    from forensics_lib.formats.tar_entry import TarEntry

__all__ = ["expand", "extents", "read_map"]

_MAX_PARTS = 1 << 20
_ZEROS = bytes(256 << 10)


def read_map(entry: TarEntry, records: Mapping[bytes, bytes], stream: Stream, faults: list[str]) -> None:
    """Read the map of a sparse member, from its header, its records or the head of its content.

    Sets the member's `sparse`, `size` and `stored_size` and leaves the stream at its content. A map that contradicts
    itself is a fault, and the member's stored bytes are then its content.
    """
    version = records.get(b"GNU.sparse.major", b""), records.get(b"GNU.sparse.minor", b"0")
    start = stream.position
    stored = entry.stored_size
    try:
        if entry.typeflag == "S":
            parts, size = _old_map(entry.header, stream)
        elif version == (b"1", b"0"):
            parts = _map_in_content(stream, stored)
            stored -= stream.position - start
            size = _decimal(records.get(b"GNU.sparse.realsize") or records.get(b"GNU.sparse.size") or b"")
        elif version[0] not in (b"", b"0"):
            raise ValueError(f"version {b'.'.join(version)[:20]!r} is unknown")
        elif b"GNU.sparse.map" in records:
            parts = _map_in_records(records)
            size = _decimal(records.get(b"GNU.sparse.size") or records.get(b"GNU.sparse.realsize") or b"")
        else:
            return
        surplus = stored - _validate(parts, size, stored)
    except ValueError as error:
        faults.append(f"sparse map is wrong: {error}; the bytes stored after it are shown as they are")
        if entry.typeflag != "S":
            entry.stored_size = max(0, entry.stored_size - (stream.position - start))
        entry.size = entry.stored_size
        return
    if surplus:
        faults.append(f"sparse map leaves {surplus} stored bytes out")
    entry.sparse = tuple(parts)
    entry.size = size
    entry.stored_size = stored


def extents(parts: Sequence[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """The parts as (logical offset, offset in the stored bytes, length)."""
    found = []
    stored = 0
    for offset, length in parts:
        if length:
            found.append((offset, stored, length))
        stored += length
    return found


def expand(stream: Stream, parts: Sequence[tuple[int, int]], size: int) -> Iterator[bytes | memoryview]:
    """The content of a sparse member from a stream that stands at its stored bytes.

    Raises:
        DamagedData: the stream ends before the stored bytes do.
    """
    position = 0
    for offset, length in (*parts, (size, 0)):
        while position < offset:
            hole = _ZEROS[: min(len(_ZEROS), offset - position)]
            position += len(hole)
            yield hole
        for chunk in stream.chunks(length):
            position += len(chunk)
            yield chunk
        if position < offset + length:
            raise DamagedData(f"content is cut off at byte {position}")


def _validate(parts: Sequence[tuple[int, int]], size: int, stored: int) -> int:
    if size < 0 or size >= 1 << 63:
        raise ValueError(f"impossible size {size}")
    end = total = 0
    for offset, length in parts:
        if offset < end or length < 0 or offset + length > size:
            raise ValueError(f"part of {length} bytes at {offset} overlaps another or lies beyond {size}")
        end = offset + length
        total += length
    if total > stored:
        raise ValueError(f"the parts add up to {total} bytes, {stored} are stored")
    return total


def _old_map(header: bytes, stream: Stream) -> tuple[list[tuple[int, int]], int]:
    def number(field: bytes) -> int:
        value = tar_header.number(field)
        if value is None or value < 0:
            raise ValueError(f"no number: {field!r}")
        return value

    parts: list[tuple[int, int]] = []
    table, room, more, size = header[386:482], 4, header[482], header[483:495]
    if header[257:263] == b"ustar\0" and header[508:512] == b"tar\0":
        table, more, size = header[356:452], header[355], header[452:464]
        if header[345] or not table[:12].strip(b"\0"):  # newer star keeps the whole map in the blocks that follow
            room, more = 0, 1
    while True:
        for index in range(room):
            field = table[24 * index : 24 * index + 24]
            if not field[0] and not field[12]:
                break
            parts.append((number(field[:12]), number(field[12:])))
        if not more:
            return parts, number(size)
        block = stream.read(512)
        if len(block) < 512 or len(parts) > _MAX_PARTS:
            raise ValueError("the map is cut off or endless")
        table, room, more = block, 21, block[504]


def _map_in_records(records: Mapping[bytes, bytes]) -> list[tuple[int, int]]:
    text = records[b"GNU.sparse.map"]
    if text.count(b",") > 2 * _MAX_PARTS:
        raise ValueError("a map without end")
    numbers = [_decimal(number) for number in text.split(b",") if number]
    if len(numbers) % 2:
        raise ValueError("a part without a length")
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def _map_in_content(stream: Stream, available: int) -> list[tuple[int, int]]:
    text = b""
    numbers: list[int] = []
    wanted = 1
    while len(numbers) < wanted:
        newline = text.find(b"\n")
        if newline < 0:
            block = stream.read(512) if available >= 512 else b""
            available -= 512
            if len(block) < 512 or len(text) > 64:
                raise ValueError("the map in the content is cut off")
            text += block
            continue
        line, text = text[:newline], text[newline + 1 :]
        if line.startswith(b"#"):  # a comment, which libarchive passes over as well
            continue
        numbers.append(_decimal(line))
        if len(numbers) == 1:
            wanted = 1 + 2 * numbers[0]
            if numbers[0] > _MAX_PARTS:
                raise ValueError(f"a map of {numbers[0]} parts")
    return list(zip(numbers[1::2], numbers[2::2], strict=True))


def _decimal(text: bytes) -> int:
    if not text.isdigit() or len(text) > 20:
        raise ValueError(f"no number: {text[:40]!r}")
    return int(text)
