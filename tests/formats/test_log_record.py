from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forensics_lib.formats.log_record import LogRecord, parse_stamp, split_lines
from forensics_lib.model import Origin
from forensics_lib.table import Table


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2026-11-21T16:17:10.242497479Z", 1795277830_242497479),
        ("2026-11-21T16:17:10.2424Z", 1795277830_242400000),
        ("2026-11-21T16:17:10Z", 1795277830_000000000),
        ("2026-11-21T17:17:10.5+01:00", 1795277830_500000000),
        ("2026-11-21T09:17:10.000000001-07:00", 1795277830_000000001),
        ("2026-11-21T16:17:10.2424974799999Z", 1795277830_242497479),
        ("1969-12-31T23:59:59.999999999Z", -1),
        ("0001-01-01T00:00:00Z", -62135596800_000000000),
    ],
)
def test_times_are_exact(text: str, nanoseconds: int) -> None:
    assert parse_stamp(text) == nanoseconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Z",
        "yesterday",
        "2026-11-21",
        "2026-13-21T16:17:10Z",
        "2026-11-21T16:17:61.5Z",
        "2026-11-21T16:17:10",
        "2026-11-21T16:17:10.Z",
        "2026-11-21T16:17:10.1_0Z",
        "2026-11-21T16:17:10.²Z",
        "2026-11-21T16:17:10.٣Z",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
    ],
)
def test_what_is_no_time(text: str) -> None:
    assert parse_stamp(text) is None


@given(st.text())
def test_any_text_is_a_time_or_none(text: str) -> None:
    assert parse_stamp(text) is None or isinstance(parse_stamp(text), int)


@given(st.integers(-(2**62), 2**62))
def test_times_come_back(nanoseconds: int) -> None:
    seconds, fraction = divmod(nanoseconds, 10**9)
    moment = datetime.fromtimestamp(0, UTC).timestamp() + seconds
    text = datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    assert parse_stamp(f"{text}.{fraction:09d}Z") == nanoseconds
    assert parse_stamp(f"{text}.{fraction:09d}".rstrip("0").rstrip(".") + "Z") == nanoseconds


@given(st.binary(max_size=60), st.integers(1, 9))
def test_lines_do_not_depend_on_the_blocks(data: bytes, size: int) -> None:
    data = data.replace(b"a", b"\n")
    blocks = [data[start : start + size] for start in range(0, len(data), size)]
    lines = list(split_lines(blocks))
    assert lines == list(split_lines([data]))
    assert b"".join(line + b"\n" * ended for _, line, ended in lines) == data
    assert all(data[offset : offset + len(line)] == line for offset, line, _ in lines)


def test_a_line_without_end_comes_in_pieces() -> None:
    blocks = [b"x" * 8] * 10
    pieces = list(split_lines([*blocks, b"\nlast"], limit=20))
    assert [(offset, len(line), ended) for offset, line, ended in pieces] == [
        (0, 24, False),
        (24, 24, False),
        (48, 24, False),
        (72, 8, True),
        (81, 4, False),
    ]


def test_a_record_as_a_row() -> None:
    file = Origin("a.tar").to("x-json.log")
    record = LogRecord(1795277830_242497479, "stdout", b"caf\xc3\xa9 \xff", False, (("tier", "web"),), 17, file)
    assert record.time == datetime(2026, 11, 21, 16, 17, 10, 242497, UTC)
    assert record.text == "café \udcff"
    assert str(record.origin) == "a.tar > x-json.log > record @17"
    table = Table(LogRecord, [record])
    assert table.columns == ("time", "stream", "text", "partial", "attrs", "time_ns", "origin")
    assert len(table.where(stream="stdout", line=b"caf\xc3\xa9 \xff")) == 1
