"""Rollback journals: the pages that the engine saved, whatever else lies in the file."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from forensics_lib.formats.sqlite_journal import JOURNAL_MAGIC, old_pages
from forensics_lib.model import Origin
from forensics_lib.sources.base import BytesSource

SIZE = 1024


def pages_of(data: bytes) -> dict[int, bytes]:
    return {one.number: data[one.offset : one.offset + SIZE] for one in old_pages(BytesSource(data, Origin("j")), SIZE)}


def test_pages_are_those_before_the_transaction(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with closing(sqlite3.connect(path)) as base:
        base.execute(f"PRAGMA page_size={SIZE}")
        base.execute("CREATE TABLE t(a TEXT)")
        base.executemany("INSERT INTO t VALUES(?)", [("x" * 300,)] * 30)
        base.commit()
        before = path.read_bytes()
        base.execute("BEGIN")
        base.execute("DELETE FROM t")
        journal = path.with_name("a.db-journal").read_bytes()
        base.rollback()
    found = pages_of(journal)
    assert len(found) > 2
    assert all(page == before[(number - 1) * SIZE : number * SIZE] for number, page in found.items())
    assert pages_of(JOURNAL_MAGIC + journal[8:]) == found
    assert pages_of(journal[: 512 + SIZE]) == {}
    assert list(old_pages(BytesSource(journal, Origin("j")), 4096)) == []


@given(st.binary(max_size=200), st.binary(max_size=3000))
def test_any_bytes(head: bytes, rest: bytes) -> None:
    start = JOURNAL_MAGIC + head
    data = (start[:20] + (512).to_bytes(4, "big") + SIZE.to_bytes(4, "big") + start[28:]).ljust(512, b"\0") + rest
    assert all(len(page) == SIZE for page in pages_of(data).values())
    assert pages_of(head) == {}
