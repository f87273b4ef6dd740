"""Rows that a SQLite database no longer shows: in freed pages, freed parts of pages, and replaced versions of pages.

Of a database with a write-ahead log, the log replaces pages of the file, and newer frames of it older ones.

A freed row keeps its bytes but for the first four of its cell, unless the engine was told to overwrite them
(``secure_delete``). Which table a row was of is told by the page's neighbours or by the types of its values.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from forensics_lib.errors import DamagedData
from forensics_lib.formats.sqlite import INTERIOR, LEAF, Reader, Row, Sqlite, SqliteTable, cells, values_at
from forensics_lib.formats.sqlite_journal import old_pages
from forensics_lib.formats.sqlite_record import Column, Value, fits, local_size, size_of, varint
from forensics_lib.model import Origin
from forensics_lib.sources.base import Source

__all__ = ["Stale", "StaleRow", "stale_rows"]

_MAX_ROWS = 1_000_000
_LEAST_TEXT = 13
_HEADER_SIZE = re.compile(rb"[\x02-\x1f]")
_TELLING = 3  # so many columns tell by their types alone which table a row is of


class Stale(StrEnum):
    """Where a row was found."""

    FREE_PAGE = "SQLite free page"
    FREED = "SQLite freed part of a page"
    FRAME = "SQLite log frame"
    REPLACED = "SQLite page before the log"
    JOURNAL = "SQLite rollback journal"


@dataclass(frozen=True, slots=True)
class StaleRow:
    """A row that is not shown.

    Attributes:
        table: that it was of, by the types of its values where nothing else tells.
        row: the values.
        state: where it was found.
        older: whether the table has a row with its key, with other values.
        origin: the page, and the place in the database or its log.
        checked: whether a checksum of the log proves the bytes.
    """

    table: SqliteTable
    row: Row
    state: Stale
    older: bool
    origin: Origin
    checked: bool = False


@dataclass(frozen=True, slots=True)
class _Version:
    """A page that is not shown, or a part of one."""

    number: int
    data: bytes
    state: Stale
    origin: Origin
    at: int
    checked: bool = False
    table: SqliteTable | None = None
    beside: tuple[Source, dict[int, int]] | None = None


def stale_rows(database: Sqlite, journal: Source | None = None) -> Iterator[StaleRow]:
    """Each different row once, those that are not whole last; rows that the tables still have are left out.

    Args:
        database: the database.
        journal: one of its rollback journals, to be looked at instead of the database.
    """
    live: dict[str, dict[Value, set[tuple[Value, ...]]]] = {}
    owners: dict[int, SqliteTable] = {}
    for table in database.tables:
        known = live.setdefault(table.name, {})
        for number, _ in database.pages(table.root):
            owners[number] = table
        for row in database.rows(table):
            known.setdefault(_key(table, row), set()).add(row.values)
    seen: set[tuple[str, tuple[Value, ...]]] = set()
    whole: dict[Value, set[tuple[Value, ...]]] = {}
    torn: list[StaleRow] = []
    for version in _versions(database, owners) if journal is None else _before(database, owners, journal):
        for table, row in _rows(database, version):
            known = live.get(table.name, {})
            mark = (table.name, row.values)
            if row.values in known.get(_key(table, row), ()) or mark in seen or len(seen) >= _MAX_ROWS:
                continue
            seen.add(mark)
            place = version.origin.to(f"page {row.page}", version.at + row.offset)
            found = StaleRow(table, row, version.state, _key(table, row) in known, place, version.checked)
            if row.complete:
                yield found
                whole.setdefault(_key(table, row), set()).add(row.values)
            else:
                torn.append(found)
    for found in torn:
        key = _key(found.table, found.row)
        if not _is_start(found.row.values, {*live[found.table.name].get(key, ()), *whole.get(key, ())}):
            yield found


def _key(table: SqliteTable, row: Row) -> Value:
    """What tells one row from another: its primary key, else its number."""
    for column, value in zip(table.columns, row.values, strict=False):
        if column.is_key and not column.is_rowid:
            return value
    return row.number


def _is_start(values: tuple[Value, ...], known: set[tuple[Value, ...]]) -> bool:
    """Whether values are the beginning of those of a row that is there."""
    return any(whole[: len(values) - 1] == values[:-1] and _begins(whole, values) for whole in known)


def _begins(whole: tuple[Value, ...], values: tuple[Value, ...]) -> bool:
    last, full = values[-1] if values else None, whole[len(values) - 1] if 0 < len(values) <= len(whole) else None
    if isinstance(last, str) and isinstance(full, str):
        return full.startswith(last)
    return isinstance(last, bytes) and isinstance(full, bytes) and full.startswith(last)


def _versions(database: Sqlite, owners: dict[int, SqliteTable]) -> Iterator[_Version]:
    """The pages that are not shown, and those that are for their freed parts."""
    size = database.page_size
    for number in range(1, database.page_count + 1):
        try:
            data = database.page(number)
        except DamagedData:
            continue
        in_log = database.wal is not None and number in database.wal.pages
        source = database.wal_source if in_log and database.wal_source is not None else database.source
        at = database.wal.pages[number] if in_log and database.wal is not None else (number - 1) * size
        if number in database.free_pages:
            yield _Version(number, data, Stale.FREE_PAGE, source.origin, at)
        elif number in owners:
            yield _Version(number, data, Stale.FREED, source.origin, at, table=owners[number])
        if in_log and number * size <= database.source.size:
            old = database.stored(number)
            yield _Version(number, old, Stale.REPLACED, database.origin, (number - 1) * size, table=owners.get(number))
    if database.wal is not None and database.wal_source is not None:
        shown = set(database.wal.pages.values())
        for frame in database.wal.frames:
            if frame.offset not in shown:
                data = database.wal_source.read_at(frame.offset, size)
                owner = owners.get(frame.page)
                origin = database.wal_source.origin
                yield _Version(frame.page, data, Stale.FRAME, origin, frame.offset, frame.valid, owner)


def _before(database: Sqlite, owners: dict[int, SqliteTable], journal: Source) -> Iterator[_Version]:
    """The pages of a rollback journal."""
    pages = {page.number: page.offset for page in old_pages(journal, database.page_size)}
    for number, offset in pages.items():
        data = journal.read_at(offset, database.page_size)
        yield _Version(number, data, Stale.JOURNAL, journal.origin, offset, True, owners.get(number), (journal, pages))


def _rows(database: Sqlite, version: _Version) -> Iterator[tuple[SqliteTable, Row]]:
    """The rows of a page that is not shown, and of the freed parts of any."""
    data, number = version.data, version.number
    start = 100 if number == 1 else 0
    tables = (version.table,) if version.table is not None else database.tables
    if data[start] not in (LEAF, INTERIOR) and version.state is not Stale.FREE_PAGE:
        return
    read = _reader(database, version)
    taken: list[tuple[int, int]] = []
    places = sorted(set(cells(data, number))) if data[start] == LEAF else []
    for at in places:
        row = database.row(data, number, at, read)
        if row is None:
            continue
        taken.append((at, _end(database, data, at)))
        table = _table_of(row, tables)
        if table is not None and version.state is not Stale.FREED:
            yield table, row
    first = start
    if data[start] in (LEAF, INTERIOR):
        first += (8 if data[start] == LEAF else 12) + 2 * int.from_bytes(data[start + 3 : start + 5], "big")
    if data[start] == INTERIOR:
        taken += [(at, varint(data, at + 4)[1]) for at in cells(data, number)]
    for begin, end in _gaps(taken, first, database.usable):
        yield from _freed(database, version, tables, begin, end)


def _reader(database: Sqlite, version: _Version) -> Reader:
    """Gives overflow pages of what is not shown: those that are free now, others were used again."""

    def read(number: int) -> bytes:
        if version.beside is not None and number in version.beside[1]:
            return version.beside[0].read_at(version.beside[1][number], database.page_size)
        if version.state in (Stale.FRAME, Stale.REPLACED):
            return database.page(number)
        if database.free_pages.get(number) is not False:
            raise DamagedData(f"overflow page {number} was used again", origin=database.origin)
        return database.page(number)

    return read


def _table_of(row: Row, tables: Sequence[SqliteTable]) -> SqliteTable | None:
    """The first table whose columns the values of a row fit."""
    for table in tables:
        if len(row.values) == len(table.columns) and all(
            _fits(value, column) for value, column in zip(row.values, table.columns, strict=True)
        ):
            return table
        if not row.complete and 0 < len(row.values) <= len(table.columns) and len(tables) == 1:
            return table
    return None


def _fits(value: Value, column: Column) -> bool:
    if value is None:
        return not column.required
    if column.is_rowid:
        return False
    if column.affinity == "text":
        return isinstance(value, str) or (isinstance(value, bytes) and not column.is_key)
    return column.affinity != "integer" or isinstance(value, int)


def _end(database: Sqlite, data: bytes, at: int) -> int:
    """The end of a cell in its page."""
    payload, behind = varint(data, at)
    _, start = varint(data, behind) if behind > 0 else (0, -1)
    if start < 0:
        return at
    size = local_size(payload, database.usable)
    return start + size + (4 if size < payload else 0)


def _gaps(taken: list[tuple[int, int]], begin: int, end: int) -> Iterator[tuple[int, int]]:
    """The parts of a page between its cells."""
    for start, stop in sorted(taken):
        if start > begin:
            yield begin, start
        begin = max(begin, stop)
    if begin < end:
        yield begin, end


def _freed(
    database: Sqlite, version: _Version, tables: Sequence[SqliteTable], begin: int, end: int
) -> Iterator[tuple[SqliteTable, Row]]:
    """Rows whose header, but for its first byte perhaps, is left in a freed part of a page."""
    data, at = version.data, begin
    if not data[begin:end].strip(b"\0"):
        return
    for candidate in _candidates(database, data, begin, end):
        if candidate < at:
            continue
        found = _header(database, version, tables, begin, candidate, end)
        found = found or _short(database, version, tables, candidate, end)
        if found is not None:
            table, row, at = found
            yield table, row


def _is_text(values: Sequence[Value]) -> bool:
    """Whether there are texts, and all of them such as people and programs write."""
    texts = [value for value in values if isinstance(value, str)]
    return bool(texts) and all(word.isprintable() for text in texts for word in text.split())


def _candidates(database: Sqlite, data: bytes, begin: int, end: int) -> list[int]:
    """Where the types of a freed row may begin: behind the size of its header, or behind a free block's four bytes."""
    high = min(database.page_size - 1 >> 8, 0xFF)
    block = re.compile(rb"(?=[\0-\x%02x].(?!\0\0)[\0-\x%02x].)" % (high, high), re.DOTALL)
    found = {match.start() + 4 for match in block.finditer(data, begin, end)}
    found |= {match.end() for match in _HEADER_SIZE.finditer(data, begin, end)}
    return sorted(at for at in found if begin < at < end)


def _short(
    database: Sqlite, version: _Version, tables: Sequence[SqliteTable], at: int, end: int
) -> tuple[SqliteTable, Row, int] | None:
    """The short row of a free block, of which the type of the first value is lost, or the first of its two bytes.

    The size of the block tells how long that value, a text, was.
    """
    data, start = version.data, at - 4
    if start < 0:
        return None
    payload = int.from_bytes(data[start + 2 : at], "big") - 2
    if not 4 < payload < 0x80 or start + payload + 2 > end:
        return None
    for table in tables:
        for lost in (1, 2):  # bytes of the type of the first value
            rest, stop = _kinds(data, at + lost - 1, end, len(table.columns) - 1)
            header = stop - at + 2
            length = payload - header - sum(map(size_of, rest))
            first = _LEAST_TEXT + 2 * length
            if len(rest) + 1 != len(table.columns) or length < 1 or (first < 0x80) != (lost == 1):
                continue
            if (lost == 2 and first & 0x7F != data[at]) or not fits((first, *rest), table.columns):
                continue
            values, whole = values_at(data[stop:end], [first, *rest], 0, database.encoding)
            if whole and _is_text(values):
                return table, Row(None, values, version.number, start), start + payload + 2
    return None


def _header(
    database: Sqlite, version: _Version, tables: Sequence[SqliteTable], begin: int, at: int, end: int
) -> tuple[SqliteTable, Row, int] | None:
    """The row whose types begin at a place, with or without the byte in front that tells the header's size."""
    data = version.data
    for table in tables:
        kinds, values_start = _kinds(data, at, end, len(table.columns))
        if not kinds or not fits(kinds, table.columns):
            continue
        header = values_start - at + 1
        payload = header + sum(map(size_of, kinds))
        size = local_size(payload, database.usable)
        if size < header or payload > database.page_size * max(database.page_count, 1) or header > 0x7F:
            continue
        number, proved = _front(data, at, begin, header, payload)
        is_block = at - 4 == begin or _is_free_block(data, at - 4, payload, end)
        if not (proved or (is_block and payload > 0x7F)) and not _tells(kinds, table, data[at - 1 : at], header):
            continue
        start = at - 1
        body, complete = database.payload(data, start, payload, size, _reader(database, version))
        if start + size > end:
            body, complete = body[: end - start], False
        values, whole = values_at(body, list(kinds), header, database.encoding)
        if not _is_text(values):
            continue
        row = Row(number, values, version.number, start, complete and whole)
        return table, row, min(start + size, end)
    return None


def _kinds(data: bytes, at: int, end: int, count: int) -> tuple[tuple[int, ...], int]:
    """So many serial types from a place on, and where they end."""
    kinds = []
    for _ in range(count):
        kind, at = varint(data, at)
        if at < 0 or at > end:
            return (), at
        kinds.append(kind)
    return tuple(kinds), at


def _front(data: bytes, at: int, begin: int, header: int, payload: int) -> tuple[int | None, bool]:
    """The row's number, and whether the numbers in front of its header are those of a cell with this row."""
    if data[at - 1] != header:
        return None, False
    for start in range(max(begin, at - 1 - 18), at - 2):
        size, behind = varint(data, start)
        if size == payload and behind > 0:
            number, stop = varint(data, behind)
            if stop == at - 1:
                return number, True
    return None, False


def _is_free_block(data: bytes, at: int, payload: int, end: int) -> bool:
    """Whether a free block begins at a place, which the first bytes of this row's cell were overwritten by.

    It is larger than the cell where the one behind was freed as well.
    """
    if at < 0:
        return False
    following, size = int.from_bytes(data[at : at + 2], "big"), int.from_bytes(data[at + 2 : at + 4], "big")
    return payload <= size - 3 and at + size <= end and (not following or at + size <= following < len(data))


def _tells(kinds: Sequence[int], table: SqliteTable, before: bytes, header: int) -> bool:
    """Whether the types alone, with the header's size in front of them, tell that this is a row of the table."""
    texts = sum(kind >= _LEAST_TEXT + 2 for kind in kinds)
    return len(kinds) >= _TELLING and texts >= 2 and before == bytes([header]) and len(table.columns) == len(kinds)
