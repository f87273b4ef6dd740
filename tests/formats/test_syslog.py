from __future__ import annotations

import time
from datetime import UTC, date
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forensics_lib.formats.syslog import LocalStamp, SyslogLine, YearCounter, logfmt, ns_of, parse_syslog


def stamp(month: int, day: int, second: int = 0) -> LocalStamp:
    return LocalStamp(None, month, day, second, 0)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            b"Nov 21 10:00:01 build7 dockerd[77]: level=info msg=x",
            SyslogLine(None, LocalStamp(None, 11, 21, 36001, 0), "build7", "dockerd", 77, b"level=info msg=x"),
        ),
        (
            b"<30>Jan  2 00:00:00.25 h systemd: Started.",
            SyslogLine(None, LocalStamp(None, 1, 2, 0, 250_000_000), "h", "systemd", None, b"Started."),
        ),
        (
            b"Nov 21 10:00:01 h kernel: [  1.2] docker0: up",
            SyslogLine(None, LocalStamp(None, 11, 21, 36001, 0), "h", "kernel", None, b"[  1.2] docker0: up"),
        ),
        (
            b"Nov 21 10:00:01 last message repeated 2 times",
            SyslogLine(None, LocalStamp(None, 11, 21, 36001, 0), "", "", None, b"last message repeated 2 times"),
        ),
        (
            b"2025-11-21T10:00:00.123456+01:00 h containerd[1]: x",
            SyslogLine(1_763_715_600_123_456_000, None, "h", "containerd", 1, b"x"),
        ),
        (b"2025-11-21 10:00:00+0100 h cron[1]: x", SyslogLine(1_763_715_600 * 10**9, None, "h", "cron", 1, b"x")),
        (
            b'<34>1 2003-10-11T22:14:15.003Z h app 12 ID47 [a@1 b="c\\]"][d]  hi',
            SyslogLine(1_065_910_455_003_000_000, None, "h", "app", 12, b"hi"),
        ),
        (b"<34>1 - - - - - -", SyslogLine(None, None, "", "", None, b"")),
        (
            b'time="1970-01-01T00:00:01.5Z" level=info msg="API"',
            SyslogLine(1_500_000_000, None, "", "", None, b'time="1970-01-01T00:00:01.5Z" level=info msg="API"'),
        ),
        (
            b"2014/01/02 03:04:05 POST /v1.8/containers",
            SyslogLine(None, LocalStamp(2014, 1, 2, 11045, 0), "", "", None, b"POST /v1.8/containers"),
        ),
    ],
)
def test_forms(line: bytes, expected: SyslogLine) -> None:
    assert parse_syslog(line) == expected


@pytest.mark.parametrize("line", [b"", b"goroutine 1 [running]:", b"Nov 99 10:00:00 h x: y", b"time=never", b"<1>1 x"])
def test_what_is_no_such_line(line: bytes) -> None:
    assert parse_syslog(line) is None


@given(st.binary(max_size=300))
def test_any_bytes(junk: bytes) -> None:
    parse_syslog(junk)
    parse_syslog(b"Nov 21 10:00:01 " + junk)
    logfmt(junk)


def test_the_pairs_of_a_message() -> None:
    line = b'time="2025" level=warning msg="a \\"b\\" c\\n" container=5f error=""'
    assert logfmt(line) == {"time": "2025", "level": "warning", "msg": 'a "b" c\n', "container": "5f", "error": ""}
    assert logfmt(b'msg="not closed') == {"msg": "not closed"}


def test_a_message_made_to_be_slow_is_not() -> None:
    start = time.process_time()
    for junk in (b'a="\\' * 20_000, b"a" * 60_000, b"a=" * 30_000, b'a="b' * 15_000):
        logfmt(junk)
        parse_syslog(b"Nov 21 10:00:01 h x: " + junk)
    assert time.process_time() - start < 5


def years(stamps: list[LocalStamp], end: date) -> list[int]:
    turns = YearCounter()
    for one in stamps:
        turns.feed(one)
    last, counter = turns.year(end), YearCounter()
    return [last - turns.last + counter.feed(one) for one in stamps]


@pytest.mark.parametrize(
    ("stamps", "end", "expected"),
    [
        ([stamp(11, 1), stamp(11, 20)], date(2025, 11, 21), [2025, 2025]),
        ([stamp(12, 30), stamp(1, 2)], date(2026, 1, 3), [2025, 2026]),
        ([stamp(12, 30), stamp(1, 2), stamp(12, 31), stamp(1, 3)], date(2026, 2, 1), [2025, 2026, 2025, 2026]),
        ([stamp(3, 1), stamp(12, 1), stamp(1, 1)], date(2026, 6, 1), [2025, 2025, 2026]),
        ([stamp(11, 20)], date(2026, 1, 3), [2025]),
        ([stamp(8, 1), stamp(5, 1)], date(2026, 6, 1), [2025, 2026]),
        ([stamp(2, 1), stamp(1, 31), stamp(2, 1)], date(2026, 6, 1), [2026, 2026, 2026]),
        ([stamp(1, 1)], date(2025, 12, 31), [2026]),  # it was the next year already where the host stands
        ([stamp(12, 31)], date(2026, 1, 1), [2025]),
    ],
)
def test_years(stamps: list[LocalStamp], end: date, expected: list[int]) -> None:
    assert years(stamps, end) == expected


def test_times_in_the_hosts_zone() -> None:
    assert ns_of(stamp(1, 1, 5), 1970, UTC) == 5 * 10**9
    assert ns_of(stamp(7, 1), 2025, ZoneInfo("Europe/Vienna")) == 1_751_320_800 * 10**9
    assert ns_of(stamp(2, 29), 2025, UTC) is None
