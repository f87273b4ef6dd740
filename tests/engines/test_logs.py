from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone

import pytest

from forensics_lib.engines.logs import LogRecord, Pattern, filter_logs
from forensics_lib.model import Origin

NOON = 1795262400_000000000  # 2026-11-21T12:00:00Z
LINES = (b"GET /a", b"get /b", b"caf\xc3\x89 closed", b"\xff\xfe raw")


def records() -> Iterator[LogRecord]:
    for number, line in enumerate(LINES):
        yield LogRecord(NOON + number, "stdout", line, False, (), number, Origin("log"))


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        (None, LINES),
        ("GET", LINES[:1]),
        ("^(?i:get) /[ab]$", LINES[:2]),
        ("(?i)café", LINES[2:3]),
        (rb"\xff.", LINES[3:]),
        (re.compile("É c"), LINES[2:3]),
        (re.compile(rb"^get", re.IGNORECASE), LINES[:2]),
        ("nothing", ()),
    ],
)
def test_patterns(pattern: Pattern | None, wanted: tuple[bytes, ...]) -> None:
    assert tuple(record.line for record in filter_logs(records(), pattern)) == wanted


def test_times_are_inclusive_and_exact() -> None:
    noon = datetime(2026, 11, 21, 12, tzinfo=UTC)
    there = noon.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert [record.offset for record in filter_logs(records(), since=noon)] == [0, 1, 2, 3]
    assert [record.offset for record in filter_logs(records(), until=noon)] == [0]
    assert [record.offset for record in filter_logs(records(), since=there, until=there)] == [0]
    assert list(filter_logs(records(), since=noon + timedelta(microseconds=1))) == []
    assert [record.offset for record in filter_logs(records(), "raw", until=noon + timedelta(microseconds=1))] == [3]


def test_later_records_do_not_end_the_search() -> None:
    mixed = sorted(records(), key=lambda record: -record.time_ns)
    noon = datetime(2026, 11, 21, 12, tzinfo=UTC)
    assert [record.offset for record in filter_logs(mixed, until=noon)] == [0]


def test_mistakes_are_told_at_once() -> None:
    with pytest.raises(ValueError, match="has no time zone"):
        filter_logs(records(), since=datetime(2026, 11, 21))  # noqa: DTZ001 - the mistake under test
    with pytest.raises(re.error):
        filter_logs(records(), "(")


def test_records_are_read_one_by_one() -> None:
    source = records()
    found = filter_logs(source, "get")
    assert next(found).offset == 1
    assert next(source).offset == 2
