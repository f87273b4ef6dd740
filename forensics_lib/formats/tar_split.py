"""tar-split: all of a layer's archive but the content of its files, so that the archive can be put together again.

Format: vbatts/tar-split, ``tar/storage``: gzip of JSON objects, one a line. A segment holds raw bytes of the archive
(headers, padding, trailer); a file entry stands where the content of a file belongs, with its CRC-64/ISO.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from forensics_lib.errors import DamagedData, LimitExceeded
from forensics_lib.formats.jsondoc import parse_object
from forensics_lib.model import Origin

__all__ = ["Segment", "SplitFile", "crc64", "decode"]

_MAX_LINE = 64 << 20
_SEGMENT, _FILE = 2, 1


@dataclass(frozen=True, slots=True)
class Segment:
    """Raw bytes of the archive."""

    data: bytes


@dataclass(frozen=True, slots=True)
class SplitFile:
    """The place of one file's content.

    Attributes:
        name: the member's name as bytes.
        size: bytes of its content.
        crc: CRC-64/ISO of its content; None when it is not recorded.
    """

    name: bytes
    size: int
    crc: int | None


def decode(blocks: Iterable[bytes], origin: Origin) -> Iterator[Segment | SplitFile]:
    """The entries of the decompressed stream.

    Raises:
        DamagedData: a line is no entry.
        LimitExceeded: a line is longer than any header can make it.
    """
    rest = b""
    offset = 0
    for block in blocks:
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            if line.strip():
                yield _entry(line, origin, offset)
            offset += len(line) + 1
        if len(rest) > _MAX_LINE:
            raise LimitExceeded(f"a line of more than {_MAX_LINE} bytes", origin=origin, offset=offset)
    if rest.strip():
        yield _entry(rest, origin, offset)


def _entry(line: bytes, origin: Origin, offset: int) -> Segment | SplitFile:
    value = parse_object(line, origin, limit=_MAX_LINE)
    kind = value.integer("type")
    try:
        payload = base64.b64decode(value.text("payload"), validate=True)
        if kind == _SEGMENT:
            return Segment(payload)
        if kind == _FILE:
            raw = value.text("name_raw")
            name = (
                base64.b64decode(raw, validate=True) if raw else value.text("name").encode("utf-8", "surrogateescape")
            )
            crc = int.from_bytes(payload, "big") if len(payload) == 8 else None
            size = value.integer("size") or 0
            if size < 0:
                raise DamagedData(f"a file of {size} bytes", origin=origin, offset=offset)
            return SplitFile(name, size, crc)
    except ValueError as error:  # no base64, or a name that no bytes make
        raise DamagedData(f"entry cannot be decoded: {error}", origin=origin, offset=offset) from error
    raise DamagedData(f"entry of unknown type {kind}", origin=origin, offset=offset)


def _table() -> tuple[int, ...]:
    rows = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0xD800000000000000 if value & 1 else 0)
        rows.append(value)
    return tuple(rows)


_TABLE = _table()


def crc64(blocks: Iterable[bytes]) -> int:
    """CRC-64/ISO as Go computes it. Slow: for the few files whose archive turned out to be another.

    >>> hex(crc64([b"123456789"]))
    '0xb90956c775a41001'
    """
    crc = 0xFFFFFFFFFFFFFFFF
    for block in blocks:
        for byte in block:
            crc = _TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFFFFFFFFFF
