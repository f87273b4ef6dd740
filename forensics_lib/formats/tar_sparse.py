"""Sparse members of tar archives: which parts of the file are stored, in GNU's old format and pax 0.0, 0.1 and 1.0."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from forensics_lib.errors import DamagedData
from forensics_lib.sources.stream import Stream

if TYPE_CHECKING:
    from forensics_lib.formats.tar import TarEntry

__all__ = ["expand", "extents", "read_map"]

_MAX_PARTS = 1 << 20
_ZEROS = bytes(256 << 10)


def read_map(entry: TarEntry, stream: Stream, faults: list[str]) -> None:
    """Read the map of a sparse member, from its header, its records or the head of its content.

    Sets the member's `sparse`, `size` and `stored_size` and leaves the stream at its content. A map that contradicts
    itself is a fault, and the member's stored bytes are then its content.
    """
    pax = entry.pax
    start = stream.position
    try:
        if entry.typeflag == "S":
            parts, size = _old_map(entry.header, stream)
            stored = entry.stored_size
        elif pax.get(b"GNU.sparse.major") == b"1" and pax.get(b"GNU.sparse.minor", b"0") == b"0":
            parts = _map_in_content(stream, entry.stored_size)
            stored = entry.stored_size - (stream.position - start)
            size = _decimal(pax.get(b"GNU.sparse.realsize") or pax.get(b"GNU.sparse.size") or b"")
        elif b"GNU.sparse.map" in pax:
            numbers = [_decimal(number) for number in pax[b"GNU.sparse.map"].split(b",") if number]
            parts = list(zip(numbers[::2], numbers[1::2], strict=True))
            stored = entry.stored_size
            size = _decimal(pax.get(b"GNU.sparse.size") or pax.get(b"GNU.sparse.realsize") or b"")
        else:
            return
        _validate(parts, size, stored)
    except ValueError as error:
        faults.append(f"sparse map is wrong: {error}; the stored bytes are shown as they are")
        if entry.typeflag != "S":
            entry.stored_size = max(0, entry.stored_size - (stream.position - start))
        entry.size = entry.stored_size
        return
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


def _validate(parts: Sequence[tuple[int, int]], size: int, stored: int) -> None:
    if size < 0 or size >= 1 << 63:
        raise ValueError(f"impossible size {size}")
    end = total = 0
    for offset, length in parts:
        if offset < end or length < 0 or offset + length > size:
            raise ValueError(f"part of {length} bytes at {offset} overlaps another or lies beyond {size}")
        end = offset + length
        total += length
    if total != stored:
        raise ValueError(f"the parts add up to {total} bytes, {stored} are stored")


def _old_map(header: bytes, stream: Stream) -> tuple[list[tuple[int, int]], int]:
    from forensics_lib.formats.tar import _number

    def number(field: bytes) -> int:
        value = _number(field)
        if value is None or value < 0:
            raise ValueError(f"no number: {field!r}")
        return value

    parts: list[tuple[int, int]] = []
    table, room, more = header[386:482], 4, header[482]
    while True:
        for index in range(room):
            field = table[24 * index : 24 * index + 24]
            if not field[0] and not field[12]:
                break
            parts.append((number(field[:12]), number(field[12:])))
        if not more:
            return parts, number(header[483:495])
        block = stream.read(512)
        if len(block) < 512 or len(parts) > _MAX_PARTS:
            raise ValueError("the map is cut off or endless")
        table, room, more = block, 21, block[504]


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
        numbers.append(_decimal(text[:newline]))
        text = text[newline + 1 :]
        if len(numbers) == 1:
            wanted = 1 + 2 * numbers[0]
            if wanted > _MAX_PARTS:
                raise ValueError(f"a map of {numbers[0]} parts")
    return list(zip(numbers[1::2], numbers[2::2], strict=True))


def _decimal(text: bytes) -> int:
    if not text.isdigit() or len(text) > 20:
        raise ValueError(f"no number: {text[:40]!r}")
    return int(text)
