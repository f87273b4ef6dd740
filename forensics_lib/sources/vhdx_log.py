"""The log of a VHDX image: changes to its tables that were promised but not carried out when the image was left.

Format: [MS-VHDX] 2.2.2 (headers) and 2.3 (log).
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple

from forensics_lib.errors import DamagedData, LimitExceeded
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.sources.base import Source
from forensics_lib.sources.patched import PAGE, PatchedSource

__all__ = ["replayed"]

_HEADER_PLACES = (64 << 10, 128 << 10)
_HEADER = Struct("<4sIQ16s16s16sHHIQ")  # signature, checksum, sequence, three GUIDs, versions, log length and offset
_ENTRY = Struct("<4sIIIQII16sQQ")  # signature, checksum, length, tail, sequence, descriptors, reserved, GUID, sizes
_DATA = Struct("<4s4s8sQQ")  # signature, last 4 bytes, first 8 bytes (of zeros: length), offset in the file, sequence
_MAX_LOG = 16 << 20
_MAX_PAGES = 65_536
_MAX_OFFSET = 1 << 46
_ZEROS = bytes(PAGE)


class _Entry(NamedTuple):
    sequence: int
    tail: int
    length: int
    descriptors: int
    data: bytes


def replayed(source: Source, problems: ProblemLog) -> Source:
    """The image with the changes of its log carried out; the image itself when there are none.

    Args:
        source: the image file, which is not changed.
        problems: told that there were changes, or that the log cannot be read.
    """
    header = _current_header(source)
    if header is None or not any(header[5]):
        return source
    guid, length, offset = header[5], header[8], header[9]
    origin = source.origin.to("log", offset)
    if length > _MAX_LOG or not length or length % PAGE:
        problems.add(origin, f"the log of the VHDX image cannot be read: it has {length} bytes")
        return source
    entries = _active(source.read_at(offset, length).ljust(length, b"\0"), guid)
    if not entries:
        problems.add(
            origin, "the VHDX image was not closed properly, and its log has no valid entry; tables may be old"
        )
        return source
    pages: dict[int, bytes] = {}
    try:
        for entry in entries:
            for page, content in _changes(entry, origin):
                pages[page] = content
                if len(pages) > _MAX_PAGES:
                    raise LimitExceeded(f"the log changes more than {_MAX_PAGES} pages", origin=origin)
    except DamagedData as error:
        problems.add(origin, error)
    problems.add(
        origin, f"the VHDX image was not closed properly; {len(pages)} pages of its log were replayed in memory"
    )
    return PatchedSource(source, pages, source.origin)


def _current_header(source: Source) -> tuple[bytes, int, int, bytes, bytes, bytes, int, int, int, int] | None:
    """The valid header with the higher sequence number."""
    best = None
    for place in _HEADER_PLACES:
        data = source.read_at(place, PAGE)
        if len(data) == PAGE and data.startswith(b"head") and _checked(data):
            fields = _HEADER.unpack_from(data)
            if best is None or fields[2] > best[2]:
                best = fields
    return best


def _active(log: bytes, guid: bytes) -> list[_Entry]:
    """The newest row of entries without a gap, from its tail to its head."""
    found: dict[int, _Entry] = {}
    budget = 4 * len(log)  # bytes to compute checksums of: entries overlap only where older ones are left over
    for start in range(0, len(log), PAGE):
        entry = _entry(log, start, guid, budget)
        if entry is not None:
            budget -= entry.length
            if _checked(entry.data):
                found[start] = entry
    best: list[_Entry] = []
    for entry in found.values():
        row = list(_row(entry, found, len(log)))
        if row and row[-1] is entry and (not best or entry.sequence > best[-1].sequence):
            best = row
    return best


def _row(head: _Entry, found: dict[int, _Entry], size: int) -> Iterator[_Entry]:
    """From the tail that a head names forward to it, each entry's number one above that before."""
    place = head.tail
    before: _Entry | None = None
    for _ in range(len(found)):
        entry = found.get(place)
        if entry is None or (before is not None and entry.sequence != before.sequence + 1):
            return
        yield entry
        if entry is head:
            return
        before = entry
        place = (place + entry.length) % size


def _entry(log: bytes, start: int, guid: bytes, budget: int) -> _Entry | None:
    """What looks like an entry that starts here; the log is a ring."""
    if log[start : start + 4] != b"loge":
        return None
    _, _, length, tail, sequence, descriptors, _, entry_guid, _, _ = _ENTRY.unpack_from(log, start)
    if entry_guid != guid or not sequence or length % PAGE or not PAGE <= length <= min(len(log), budget):
        return None
    if tail % PAGE or tail >= len(log) or _ENTRY.size + descriptors * _DATA.size > length:
        return None
    data = (log + log)[start : start + length] if start + length > len(log) else log[start : start + length]
    return _Entry(sequence, tail, length, descriptors, data)


def _changes(entry: _Entry, origin: Origin) -> Iterator[tuple[int, bytes]]:
    """New content of pages."""
    position = -(-(_ENTRY.size + entry.descriptors * _DATA.size) // PAGE) * PAGE  # the data begins at a page
    for number in range(entry.descriptors):
        place = _ENTRY.size + number * _DATA.size
        signature, last, first, offset, sequence = _DATA.unpack_from(entry.data, place)
        length = int.from_bytes(first, "little") if signature == b"zero" else PAGE
        if sequence != entry.sequence or offset % PAGE or length % PAGE or offset + length > _MAX_OFFSET:
            raise DamagedData("a descriptor of the log contradicts the format", origin=origin)
        if signature == b"zero":
            for page in range(offset // PAGE, (offset + length) // PAGE):
                yield page, _ZEROS
        elif signature == b"desc":
            page_data = entry.data[position : position + PAGE]
            if len(page_data) < PAGE or not page_data.startswith(b"data"):
                raise DamagedData("a page of the log is missing", origin=origin)
            yield offset // PAGE, first + page_data[8 : PAGE - 4] + last
            position += PAGE
        else:
            raise DamagedData("an unknown descriptor in the log", origin=origin)


def _checked(data: bytes) -> bool:
    """Whether the checksum at byte 4 fits; it is computed with its own bytes as zeros."""
    return _crc32c(data[:4] + bytes(4) + data[8:]) == int.from_bytes(data[4:8], "little")


def _crc32c(data: bytes) -> int:
    crc = 0xFFFF_FFFF
    for byte in data:
        crc = _CRC32C[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFF_FFFF


def _crc_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F6_3B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)


_CRC32C = _crc_table()
