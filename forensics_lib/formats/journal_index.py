"""The index of a systemd journal file: which entries there are, and which of them have a value.

Format: systemd ``docs/JOURNAL_FILE_FORMAT.md``. Objects are only ever added at the end, so that every chain has an
order by which a loop is told.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import chain

from forensics_lib.errors import LimitExceeded
from forensics_lib.formats.journal_header import JournalHeader
from forensics_lib.formats.journal_objects import JournalObjects, ObjectKind

__all__ = ["LONGEST_LOOKED_FOR", "BadIndex", "JournalIndex"]

LONGEST_LOOKED_FOR = 4096
"""Bytes of the longest field that entries are looked for by."""

_DATA = struct.Struct("<16xQQQQQQ")  # hash, next with that hash, next of that field, first entry, array, number
_FIELD = struct.Struct("<24xQQ")  # next with that hash, first data
_PAIR = struct.Struct("<QQ")
_MAX_TABLE = 1 << 20


class BadIndex(Exception):
    """The index contradicts itself."""


class JournalIndex:
    """The index of one journal file.

    Its methods raise `BadIndex`, or DamagedData, where the index does not hold together.
    """

    def __init__(self, objects: JournalObjects, header: JournalHeader) -> None:
        """Nothing is read yet."""
        self._objects = objects
        self._header = header
        self._place = struct.Struct("<I" if header.compact else "<Q")

    def entries(self) -> Iterator[int]:
        """Places of all entries, ascending as they were written."""
        return self._array(self._header.entry_array_offset)

    def values(self, field: str) -> Iterator[tuple[int, bytes]]:
        """(place, value) of the data objects of a field."""
        start = f"{field}=".encode("ascii", "surrogateescape")
        offset, before = self._field(field.encode("ascii", "surrogateescape")), self._objects.size
        while offset:
            if offset >= before:  # every new one is put in front of the older ones
                raise BadIndex(f"the values of {field} are not in order")
            try:
                payload = self._objects.payload(offset, LONGEST_LOOKED_FOR)
                if not payload.startswith(start):
                    raise BadIndex(f"a value of {field} is none")
                yield offset, payload[len(start) :]
            except LimitExceeded:
                pass  # longer than anything that is looked for
            before, offset = offset, self._data(offset)[2]

    def _field(self, name: bytes) -> int:
        """Place of the newest data object of a field; 0 when the file has no such field."""
        table, size = self._header.field_table_offset, self._header.field_table_size
        if size % _PAIR.size or size > _MAX_TABLE:
            raise BadIndex(f"a table of {size} bytes")
        _, length = self._objects.head(table - 16, ObjectKind.FIELD_HASH_TABLE)  # the header names its first bucket
        if length - 16 != size:
            raise BadIndex(f"a table of {length - 16} bytes instead of {size}")
        for head, _ in _PAIR.iter_unpack(self._objects.read(table, size)):
            offset, before = head, 0
            while offset:
                if offset <= before:
                    raise BadIndex("the fields are not in order")
                _, length = self._objects.head(offset, ObjectKind.FIELD)
                following, data = _FIELD.unpack(self._objects.read(offset, _FIELD.size))
                if length - 40 == len(name) and self._objects.read(offset + 40, len(name)) == name:
                    return int(data)
                before, offset = offset, following
        return 0

    def _data(self, offset: int) -> tuple[int, ...]:
        self._objects.head(offset, ObjectKind.DATA)
        return _DATA.unpack(self._objects.read(offset, _DATA.size))

    def entries_of(self, data: int) -> Iterator[int]:
        """Places of the entries that have a value."""
        _, _, _, first, more, number = self._data(data)
        count = 0
        for offset in chain((first,) if first else (), self._array(more)):
            count += 1
            yield offset
        if count != number:
            raise BadIndex(f"it names {count} entries for a value that is said to be in {number}")

    def _array(self, offset: int) -> Iterator[int]:
        """Places of entries in a chain of arrays, ascending as they were written."""
        before = last = 0
        while offset:
            if offset <= before:
                raise BadIndex("its arrays are not in order")
            _, size = self._objects.head(offset, ObjectKind.ENTRY_ARRAY)
            start, end = offset + 24, offset + size - size % self._place.size
            before, (offset,) = offset, struct.unpack("<Q", self._objects.read(offset + 16, 8))
            while start < end:
                part = self._objects.read(start, min(end - start, 8192))
                start += len(part)
                for (place,) in self._place.iter_unpack(part):
                    if not place:
                        break  # room for later entries
                    if place <= last:
                        raise BadIndex("its entries are not in order")
                    last = place
                    yield place
