"""SQLite databases read without the engine: its rows as the engine shows them, and those that it deleted."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forensics_lib.errors import ForensicsError, UnsupportedFormat
from forensics_lib.formats.sqlite import Sqlite
from forensics_lib.formats.sqlite_record import columns_of, local_size, varint
from forensics_lib.formats.sqlite_stale import Stale, StaleRow, stale_rows
from forensics_lib.formats.sqlite_wal import Wal
from forensics_lib.model import Origin
from forensics_lib.sources.base import BytesSource

ORIGIN = Origin("db.sql")
SCHEMA = (
    "CREATE TABLE C(ID TEXT PRIMARY KEY NOT NULL, Name TEXT UNIQUE NOT NULL, PodID TEXT, JSON TEXT NOT NULL)",
    "CREATE TABLE E(ID TEXT PRIMARY KEY NOT NULL, Timestamp INTEGER NOT NULL, ExitCode INTEGER NOT NULL)",
    "CREATE TABLE k(id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT, x REAL, value BLOB)",
)


class Made:
    """A database, its log, and the rows that were deleted from it."""

    def __init__(self, folder: Path, mode: str, length: int, *, secure: bool = False, page: int = 4096) -> None:
        path, draw = folder / "db.sql", random.Random(length)
        with closing(sqlite3.connect(path)) as base:
            base.execute(f"PRAGMA secure_delete={int(secure)}")
            base.execute(f"PRAGMA page_size={page}")
            if mode != "file":
                base.execute("PRAGMA journal_mode=wal")
                base.execute("PRAGMA wal_autocheckpoint=0")
            for statement in SCHEMA:
                base.execute(statement)
            for number in range(60):
                name = f"{draw.getrandbits(256):064x}"
                document = json.dumps({"id": name, "text": f"x{number}" * (length // 3)})
                base.execute("INSERT INTO C VALUES(?,?,?,?)", (name, f"name{number}", None, document.encode()))
                base.execute("INSERT INTO E VALUES(?,?,?)", (name, 1_700_000_000 + number, number % 3))
                base.execute("INSERT INTO k VALUES(?,?,?,?)", (None, f"/key/{number}", number / 7, b"\0\xff" * number))
                base.commit()
            if mode == "written back":
                base.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self.gone = {table: self.rows(base, table)[10:40] for table in ("C", "E")}
            for table, rows in self.gone.items():
                for row in rows:
                    base.execute(f"DELETE FROM {table} WHERE ID=?", (row[0],))
                    base.commit()
            self.live = {table: self.rows(base, table) for table in ("C", "E", "k")}
            log = folder / "db.sql-wal"
            self.data = path.read_bytes()
            self.log = log.read_bytes() if log.exists() else b""

    def rows(self, base: sqlite3.Connection, table: str) -> list[tuple[object, ...]]:
        return [tuple(row) for row in base.execute(f"SELECT * FROM {table} ORDER BY rowid")]

    def open(self) -> Sqlite:
        log = BytesSource(self.log, Origin("db.sql-wal")) if self.log else None
        return Sqlite(BytesSource(self.data, ORIGIN), log)


@pytest.mark.parametrize("length", [40, 1900, 9000])
@pytest.mark.parametrize("mode", ["file", "log", "written back"])
def test_rows_are_those_that_the_engine_shows(tmp_path: Path, mode: str, length: int) -> None:
    made = Made(tmp_path, mode, length)
    database = made.open()
    for table in database.tables:
        if table.name in made.live:
            rows = [row.values for row in database.rows(table)]
            if table.name == "k":  # the number of a row is not stored among its values
                rows = [(row.number, *row.values[1:]) for row in database.rows(table)]
            assert rows == made.live[table.name]
    assert database.faults == []


@pytest.mark.parametrize("length", [40, 1900, 9000])
@pytest.mark.parametrize("mode", ["file", "log", "written back"])
def test_deleted_rows_come_back_and_no_others(tmp_path: Path, mode: str, length: int) -> None:
    made = Made(tmp_path, mode, length)
    found = list(stale_rows(made.open()))
    raw = made.data + made.log
    for table, rows in made.gone.items():
        whole = {one.row.values for one in found if one.table.name == table and one.row.complete}
        assert whole <= set(rows), "a row that never was"
        for row in rows:
            values = b"".join(
                part.encode() if isinstance(part, str) else part for part in row if isinstance(part, str | bytes)
            )
            if values in raw and table == "C":
                assert row in whole
        assert len(whole) >= (30 if mode != "file" and length < 9000 else 15)
    assert not [one for one in found if one.older and one.table.name in made.gone]


def test_a_row_that_was_changed_is_an_older_version(tmp_path: Path) -> None:
    path = tmp_path / "db.sql"
    with closing(sqlite3.connect(path)) as base:
        base.execute("PRAGMA secure_delete=0")
        base.execute(SCHEMA[0])
        base.execute("INSERT INTO C VALUES('one', 'web', NULL, ?)", ("a" * 3000,))
        base.execute("INSERT INTO C VALUES('two', 'db', NULL, ?)", ("b" * 3000,))
        base.commit()
        base.execute("UPDATE C SET JSON=? WHERE ID='one'", ("c" * 9000,))
        base.commit()
    (row,) = stale_rows(Sqlite(BytesSource(path.read_bytes(), ORIGIN)))
    *names, text = row.row.values
    assert (row.older, names) == (True, ["one", "web", None])
    assert isinstance(text, str)
    assert set(text) == {"a"}
    assert row.row.complete == (len(text) == 3000)
    assert row.state is Stale.FREED
    assert row.origin.offset is not None


def test_what_is_deleted_securely_is_gone(tmp_path: Path) -> None:
    assert list(stale_rows(Made(tmp_path, "file", 1900, secure=True).open())) == []


def test_frames_of_a_log(tmp_path: Path) -> None:
    made = Made(tmp_path, "log", 40)
    wal = Wal(BytesSource(made.log, ORIGIN))
    assert all(frame.valid for frame in wal.frames)
    assert wal.page_count == made.open().page_count
    torn = bytearray(made.log)
    torn[len(torn) // 2] ^= 1
    wal = Wal(BytesSource(bytes(torn), ORIGIN))
    valid = [frame.valid for frame in wal.frames]
    assert valid == sorted(valid, reverse=True)
    assert not all(valid)
    checked = {one.checked for one in stale_rows(made.open()) if one.state is Stale.FRAME}
    assert checked == {True}


@pytest.mark.parametrize("page", [512, 65_536])
def test_sizes_of_pages(tmp_path: Path, page: int) -> None:
    made = Made(tmp_path, "file", 1900, page=page)
    database = made.open()
    assert database.page_size == page
    (table,) = (one for one in database.tables if one.name == "C")
    assert [row.values for row in database.rows(table)] == made.live["C"]


@pytest.mark.parametrize(
    ("statement", "names"),
    [
        ("CREATE TABLE kine (id INTEGER PRIMARY KEY, name INTEGER, old_value BLOB)", ["id", "name", "old_value"]),
        ('CREATE TABLE "t" ("a b" TEXT, [c] INT, `d` REAL, CHECK (a > 1, 2))', ["a b", "c", "d"]),
        ("CREATE TABLE t(a DECIMAL(10,2) DEFAULT (1,2), b)", ["a", "b"]),
        ("CREATE INDEX i ON t(a)", []),
        ("CREATE TABLE t(a", []),
        ("", []),
    ],
)
def test_columns(statement: str, names: list[str]) -> None:
    assert [column.name for column in columns_of(statement)] == names


def test_numbers() -> None:
    assert varint(b"\xff" * 9, 0) == ((1 << 64) - 1, 9)
    assert varint(b"\x80", 0) == (0, -1)
    assert varint(b"", 0) == (0, -1)
    assert local_size(100, 4096) == 100
    assert 489 - 1 <= local_size(10_000, 4096) <= 4061


@pytest.mark.parametrize("data", [b"", b"SQLite format 3\0", b"x" * 5000, b"SQLite format 3\0" + b"\xff" * 5000])
def test_no_database(data: bytes) -> None:
    with pytest.raises(UnsupportedFormat):
        Sqlite(BytesSource(data, ORIGIN))


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Made]:
    found = []
    for mode in ("file", "log"):
        folder = tmp_path_factory.mktemp(mode.replace(" ", "-"))
        found.append(Made(folder, mode, 1900))
        shutil.rmtree(folder)
    return found


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damage_gives_rows_or_an_error(samples: list[Made], data: st.DataObject) -> None:
    made = data.draw(st.sampled_from(samples))
    file, log = bytearray(made.data), bytearray(made.log)
    for target in (file, log):
        for _ in range(data.draw(st.integers(0, 12)) if target else 0):
            page = data.draw(st.integers(0, len(target) // 4096)) * 4096
            target[min(page + data.draw(st.integers(0, 120)), len(target) - 1)] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(file)))
    try:
        database = Sqlite(
            BytesSource(bytes(file[:cut] if data.draw(st.booleans()) else file), ORIGIN),
            BytesSource(bytes(log), ORIGIN) if log else None,
        )
        rows: list[StaleRow] = list(stale_rows(database))
    except ForensicsError:
        return
    assert all(one.row.values for one in rows)
