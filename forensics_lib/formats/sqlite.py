"""SQLite databases, read for evidence: the tables as they are; what they were is `sqlite_stale`'s business.

Reads a database with its write-ahead log, without opening either for writing and without recovering them in place.

Specification: https://www.sqlite.org/fileformat2.html.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

from forensics_lib.errors import DamagedData, UnsupportedFormat
from forensics_lib.formats.sqlite_record import Column, Value, columns_of, local_size, size_of, value_of, varint
from forensics_lib.formats.sqlite_wal import Wal
from forensics_lib.sources.base import Source

__all__ = ["INTERIOR", "LEAF", "MAGIC", "Reader", "Row", "Sqlite", "SqliteTable", "cells", "values_at"]

MAGIC = b"SQLite format 3\0"
INTERIOR, LEAF = 0x05, 0x0D
_INDEX_INTERIOR, _INDEX_LEAF = 0x02, 0x0A
_ENCODINGS = {1: "utf-8", 2: "utf-16-le", 3: "utf-16-be"}
_SCHEMA = "CREATE TABLE sqlite_schema(type TEXT, name TEXT, tbl_name TEXT, rootpage INTEGER, sql TEXT)"
_MAX_DEPTH = 64
_MAX_VALUES = 2000

Reader = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class SqliteTable:
    """A table.

    Attributes:
        name: of the table.
        root: page of its tree.
        columns: as declared.
    """

    name: str
    root: int
    columns: tuple[Column, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table.

    Attributes:
        number: the row's own number; None when it was overwritten.
        values: in the order of the columns; short when not all of them are there.
        page: of the leaf that holds it.
        offset: where its cell begins in that page.
        complete: whether all its bytes are there.
    """

    number: int | None
    values: tuple[Value, ...]
    page: int
    offset: int
    complete: bool = True


class Sqlite:
    """One database file with its write-ahead log.

    Not supported: encrypted databases; tables WITHOUT ROWID are passed over.

    Attributes:
        origin: of the database.
        page_size: in bytes.
        usable: bytes of a page without what is reserved at its end.
        page_count: pages of the database.
        encoding: of texts.
        wal: its log; None without one.
        faults: pages that contradict the format, in words.
    """

    def __init__(self, source: Source, wal: Source | None = None) -> None:
        """Read the header, and the log when there is one.

        Raises:
            UnsupportedFormat: this is no SQLite database.
        """
        self.source = source
        self.origin = source.origin
        self.wal = Wal(wal) if wal is not None and wal.size else None
        self.wal_source = wal
        head = source.read_at(0, 100)
        if self.wal is not None and 1 in self.wal.pages and wal is not None:
            head = wal.read_at(self.wal.pages[1], 100)
        if len(head) < 100 or not head.startswith(MAGIC):
            raise UnsupportedFormat("this is no SQLite database")
        size = int.from_bytes(head[16:18], "big")
        self.page_size = 65_536 if size == 1 else size
        self.usable = self.page_size - head[20]
        if self.page_size < 512 or self.page_size & (self.page_size - 1) or self.usable < 480:
            raise UnsupportedFormat("this is no SQLite database: its pages have an impossible size")
        self.page_count = -(-source.size // self.page_size)
        if self.wal is not None and self.wal.page_size == self.page_size:
            self.page_count = max(self.page_count, self.wal.page_count)
        elif self.wal is not None:
            self.wal = None
        self.encoding = _ENCODINGS.get(int.from_bytes(head[56:60], "big"), "utf-8")
        self._first_free = int.from_bytes(head[32:36], "big")
        self.faults: list[str] = []

    def page(self, number: int) -> bytes:
        """The newest committed version of a page.

        Raises:
            DamagedData: there is none, or it cannot be read.
        """
        if self.wal is not None and self.wal_source is not None and number in self.wal.pages:
            return self.wal_source.read_at(self.wal.pages[number], self.page_size)
        return self.stored(number)

    def stored(self, number: int) -> bytes:
        """A page as it stands in the database file, whatever the log says.

        Raises:
            DamagedData: there is none, or it cannot be read.
        """
        if not 0 < number <= self.page_count:
            raise DamagedData(f"there is no page {number}", origin=self.origin)
        data = self.source.read_at((number - 1) * self.page_size, self.page_size)
        if len(data) < self.page_size:
            raise DamagedData(f"page {number} is cut", origin=self.origin, offset=(number - 1) * self.page_size)
        return data

    @cached_property
    def tables(self) -> tuple[SqliteTable, ...]:
        """The tables, by the schema as it is."""
        found = []
        for row in self.rows(SqliteTable("sqlite_schema", 1, columns_of(_SCHEMA))):
            if len(row.values) == 5 and row.values[0] == "table" and isinstance(row.values[3], int):
                statement = row.values[4] if isinstance(row.values[4], str) else ""
                if columns := columns_of(statement):
                    found.append(SqliteTable(str(row.values[1]), row.values[3], columns))
        return tuple(found)

    def rows(self, table: SqliteTable) -> Iterator[Row]:
        """The rows of a table; pages that cannot be read become faults."""
        for number, data in self.pages(table.root):
            for at in cells(data, number) if data[100 if number == 1 else 0] == LEAF else ():
                row = self.row(data, number, at, self.page)
                if row is not None:
                    yield row

    def pages(self, root: int) -> Iterator[tuple[int, bytes]]:
        """(number, content) of the pages of a table's tree, leaves and those that lead to them."""
        waiting, seen = [(root, 0)], set[int]()
        while waiting:
            number, depth = waiting.pop()
            if number in seen or depth > _MAX_DEPTH:
                self.faults.append(f"page {number} is reached twice")
                continue
            seen.add(number)
            try:
                data = self.page(number)
            except DamagedData as error:
                self.faults.append(str(error))
                continue
            start = 100 if number == 1 else 0
            if data[start] in (LEAF, INTERIOR):
                yield number, data
            if data[start] == INTERIOR:
                children = [int.from_bytes(data[at : at + 4], "big") for at in cells(data, number)]
                children.append(int.from_bytes(data[start + 8 : start + 12], "big"))
                waiting += [(child, depth + 1) for child in reversed(children)]

    @cached_property
    def free_pages(self) -> dict[int, bool]:
        """The pages of the free list by number; True for those whose beginning the list itself has overwritten."""
        found: dict[int, bool] = {}
        trunk = self._first_free
        while trunk and trunk not in found:
            try:
                data = self.page(trunk)
            except DamagedData as error:
                self.faults.append(str(error))
                break
            found[trunk] = True
            following, count = struct.unpack_from(">II", data)
            count = min(count, self.page_size // 4 - 2)
            for number in struct.unpack_from(f">{count}I", data, 8):
                if 0 < number <= self.page_count:
                    found.setdefault(number, False)
            trunk = following
        return found

    def row(self, data: bytes, number: int, at: int, read: Reader) -> Row | None:
        """The row whose cell begins at a place of a leaf page; None when there is none.

        Args:
            data: the page.
            number: of the page.
            at: where the cell begins.
            read: gives overflow pages.
        """
        payload, behind = varint(data, at)
        key, start = varint(data, behind) if behind > 0 else (0, -1)
        if start < 0 or not 0 < payload <= self.page_size * max(self.page_count, 1):
            return None
        size = local_size(payload, self.usable)
        body, complete = self.payload(data, start, payload, size, read)
        found = _values(body, payload, self.encoding)
        return None if found is None else Row(key, found[0], number, at, complete and found[1])

    def payload(self, data: bytes, start: int, payload: int, size: int, read: Reader) -> tuple[bytes, bool]:
        """The bytes of a record and whether all are there; `size` of them lie in the page itself."""
        body = data[start : start + size]
        if len(body) < size or size == payload:
            return body, len(body) == payload
        following = int.from_bytes(data[start + size : start + size + 4], "big")
        seen: set[int] = set()
        while following and len(body) < payload and following not in seen:
            seen.add(following)
            try:
                page = read(following)
            except DamagedData:
                return body, False
            body += page[4 : self.usable][: payload - len(body)]
            following = int.from_bytes(page[:4], "big")
        return body, len(body) == payload and not following


def cells(data: bytes, number: int) -> list[int]:
    """Where the cells of a page begin, as far as that is possible."""
    start = 100 if number == 1 else 0
    count = int.from_bytes(data[start + 3 : start + 5], "big")
    first = start + (12 if data[start] in (INTERIOR, _INDEX_INTERIOR) else 8)
    count = min(count, (len(data) - first) // 2)
    places = struct.unpack_from(f">{count}H", data, first)
    return [place for place in places if first + 2 * count <= place < len(data)]


def _kinds_of(body: bytes) -> tuple[list[int], int] | None:
    """The serial types in the header of a record, and where its values begin; None when it is no header."""
    size, at = varint(body, 0)
    if at < 0 or not at <= size <= len(body):
        return None
    kinds: list[int] = []
    while at < size and len(kinds) < _MAX_VALUES:
        kind, at = varint(body, at)
        if at < 0 or kind in (10, 11):
            return None
        kinds.append(kind)
    return (kinds, size) if at == size else None


def _values(body: bytes, payload: int, encoding: str) -> tuple[tuple[Value, ...], bool] | None:
    """The values of a record, and whether they fill it; None when it is none."""
    found = _kinds_of(body)
    if found is None or found[1] + sum(map(size_of, found[0])) != payload:
        return None
    return values_at(body, found[0], found[1], encoding)


def values_at(body: bytes, kinds: list[int], at: int, encoding: str) -> tuple[tuple[Value, ...], bool]:
    """The values whose bytes begin at a place, as many as there are, the last one cut; and whether they are all."""
    values: list[Value] = []
    for kind in kinds:
        size = size_of(kind)
        part = body[at : at + size]
        if len(part) < size:
            if kind >= 12 and part:
                values.append(value_of(kind, part, encoding))
            return tuple(values), False
        values.append(value_of(kind, part, encoding))
        at += size
    return tuple(values), True
