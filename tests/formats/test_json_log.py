from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forensics_lib.errors import DamagedData
from forensics_lib.formats.json_log import ZERO_TIME_NS, read_json_log
from forensics_lib.formats.log_record import LogRecord
from forensics_lib.model import Origin

FILE = Origin("x-json.log")
T0 = 1795277830_242497479  # 2026-11-21T16:17:10.242497479Z


def read(data: bytes, size: int = 1 << 16) -> tuple[list[LogRecord], list[DamagedData]]:
    problems: list[DamagedData] = []
    blocks = [data[start : start + size] for start in range(0, len(data), size)]
    return list(read_json_log(blocks, FILE, problems.append)), problems


def stamp(time_ns: int) -> str:
    text = datetime.fromtimestamp(time_ns // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{time_ns % 10**9:09d}".rstrip("0").rstrip(".") + "Z"


def record(log: str, stream: str = "stdout", time_ns: int = T0) -> bytes:
    members = {"log": log, "stream": stream, "time": stamp(time_ns)}
    return json.dumps(members, separators=(",", ":")).encode() + b"\n"


def rows(records: Iterable[LogRecord]) -> list[tuple[int, str, bytes, bool]]:
    return [(one.time_ns, one.stream, one.line, one.partial) for one in records]


def test_records_as_docker_writes_them() -> None:
    data = (
        b'{"log":"plain\\n","stream":"stdout","time":"2026-11-21T16:17:10.242497479Z"}\n'
        b'{"log":"tty\\r\\n","stream":"stdout","time":"2026-11-21T16:17:10.2424Z"}\n'
        b'{"log":"json \\"q\\" back\\\\slash \\u003ctag\\u003e \\u0026 \\u0009 \\u0000\\n","stream":"stderr",'
        b'"attrs":{"env":"prod","tier":"logs"},"time":"2026-11-21T16:17:10Z"}\n'
        b'{"log":"no newline","stream":"stdout","time":"2026-11-21T16:17:11Z"}\n'
        b'{"stream":"stdout","time":"2026-11-21T16:17:11Z"}\n'
    )
    found, problems = read(data)
    assert problems == []
    assert rows(found) == [
        (T0, "stdout", b"plain", False),
        (1795277830_242400000, "stdout", b"tty\r", False),
        (1795277830_000000000, "stderr", b'json "q" back\\slash <tag> & \t \0', False),
        (1795277831_000000000, "stdout", b"no newline", True),
        (1795277831_000000000, "stdout", b"", True),
    ]
    assert [one.attrs for one in found[1:4]] == [(), (("env", "prod"), ("tier", "logs")), ()]
    assert [data[one.offset : one.offset + 2] for one in found] == [b'{"'] * 5
    assert str(found[1].origin) == "x-json.log > record @76"


def test_unicode_becomes_the_bytes_that_docker_logs_prints() -> None:
    start, end = b'{"log":"', b'","stream":"stdout","time":"2026-11-21T16:17:10Z"}\n'
    texts = [b"\xe2\x82\xac \xf0\x9f\x90\x8b", rb"\u20ac \ud83d\udc0b", rb"\ufffd", rb"half \ud83d.", b"raw \xff\xc3"]
    found, problems = read(b"".join(start + text + end for text in texts))
    assert problems == []
    assert [one.line for one in found] == [
        "€ 🐋".encode(),
        "€ 🐋".encode(),
        b"\xef\xbf\xbd",
        b"half \xef\xbf\xbd.",
        b"raw \xff\xc3",
    ]


def test_only_the_last_newline_is_taken_off() -> None:
    found, _ = read(record("two\nlines\n\n") + record("\n"))
    assert [one.line for one in found] == [b"two\nlines\n", b""]


def test_a_torn_last_record_is_a_problem() -> None:
    whole, torn = record("first\n"), b'{"log":"second\\n","stream":"std'
    found, problems = read(whole + torn)
    assert rows(found) == [(T0, "stdout", b"first", False)]
    assert [(problem.offset, str(problem)) for problem in problems] == [
        (len(whole), f"31 bytes are no complete record: {torn!r}")
    ]
    assert problems[0].origin == FILE


def test_a_last_record_without_its_line_end_is_whole() -> None:
    found, problems = read(record("first\n") + record("second\n").rstrip(b"\n"))
    assert [one.line for one in found] == [b"first", b"second"]
    assert problems == []


def test_reading_goes_on_in_the_middle_of_a_line_after_a_torn_write() -> None:
    torn, labelled = (
        b'{"log":"to',
        b'{"log":"a\\n","stream":"stdout","attrs":{"log":"x"},"time":"2026-11-21T16:17:10Z"}',
    )
    found, problems = read(torn + labelled + record("b\n") + record("c\n"))
    assert [one.line for one in found] == [b"a", b"b", b"c"]
    assert found[0].attrs == (("log", "x"),)
    assert [one.offset for one in found[:2]] == [len(torn), len(torn + labelled)]
    assert [problem.offset for problem in problems] == [0]


def test_nul_runs_of_a_power_loss_are_passed_over() -> None:
    first, last = record("first\n"), record("last\n")
    found, problems = read(first + bytes(4096) + last + bytes(100), size=1000)
    assert [(one.line, one.offset) for one in found] == [(b"first", 0), (b"last", len(first) + 4096)]
    assert [(problem.offset, str(problem).partition(" where")[0]) for problem in problems] == [
        (len(first), "4096 NUL bytes"),
        (len(first) + 4096 + len(last), "100 NUL bytes"),
    ]


def test_a_line_longer_than_the_limit_does_not_hide_the_record_behind_it() -> None:
    problems: list[DamagedData] = []
    blocks = [b"\0" * 4096] * 30 + [record("found\n")]
    found = list(read_json_log(blocks, FILE, problems.append, limit=10_000))
    assert [(one.line, one.offset) for one in found] == [(b"found", 30 * 4096)]
    assert {problem.offset for problem in problems} == set(range(0, 30 * 4096, 3 * 4096))


@pytest.mark.parametrize(
    "time", [b"", b',"time":"soon"', b',"time":5', b',"time":null', b',"time":"2026-02-30T00:00:00Z"']
)
def test_a_record_without_a_time_is_kept_with_the_time_docker_shows(time: bytes) -> None:
    found, problems = read(b'{"log":"x\\n","stream":"stderr"' + time + b"}\n")
    assert rows(found) == [(ZERO_TIME_NS, "stderr", b"x", False)]
    assert found[0].time == datetime(1, 1, 1, tzinfo=UTC)
    assert "record without a valid time" in str(problems[0])


def test_keys_are_found_whatever_their_case_as_docker_does() -> None:
    found, problems = read(b'{"Log":"x\\n","STREAM":"stderr","Time":"2026-11-21T16:17:10Z"}\n')
    assert rows(found) == [(1795277830_000000000, "stderr", b"x", False)]
    assert problems == []


@pytest.mark.parametrize(
    "line",
    [
        b"[]",
        b"5",
        b'"log"',
        b"{}",
        b'{"log":5}',
        b'{"other":"x"}',
        b"not json",
        b"[" * 100_000,
        b'{"log":' * 50_000,
        b'{"log":' + b"9" * 5000 + b"}",
        b'{"log":"raw \x01 control","stream":"stdout","time":"2026-11-21T16:17:10Z"}',
    ],
    ids=str,
)
def test_what_is_no_record_is_one_problem(line: bytes) -> None:
    found, problems = read(line + b"\n" + record("next\n"))
    assert [one.line for one in found] == [b"next"]
    assert [problem.offset for problem in problems] == [0]
    assert len(str(problems[0])) < 500


def test_members_of_wrong_types_read_as_empty() -> None:
    found, _ = read(b'{"log":["x"],"stream":1,"attrs":{"a":1,"b":"c"},"time":"2026-11-21T16:17:10Z"}\n')
    assert rows(found) == [(1795277830_000000000, "", b"", True)]
    assert found[0].attrs == (("b", "c"),)


def test_what_follows_a_record_on_its_line_is_a_problem() -> None:
    found, problems = read(record("x\n").rstrip(b"\n") + b" tail\n")
    assert [one.line for one in found] == [b"x"]
    assert str(problems[0]) == "4 characters follow the record on its line: b'tail'"


def test_empty_lines_and_blanks_are_nothing() -> None:
    assert read(b"\n\r\n \t\n\n") == ([], [])


texts = st.text(st.characters(codec="utf-8"), max_size=12)
entries = st.lists(st.tuples(texts, st.sampled_from(["stdout", "stderr"]), st.integers(0, 2**62)), max_size=6)


@given(entries, st.booleans(), st.integers(1, 50))
def test_what_is_written_comes_back(wanted: list[tuple[str, str, int]], escaped: bool, size: int) -> None:
    data = b"".join(
        json.dumps({"log": log, "stream": stream, "time": stamp(time_ns)}, ensure_ascii=escaped).encode() + b"\n"
        for log, stream, time_ns in wanted
    )
    found, problems = read(data, size)
    assert problems == []
    assert [(one.line + b"\n" * (not one.partial), one.stream, one.time_ns) for one in found] == [
        (log.encode(), stream, time_ns) for log, stream, time_ns in wanted
    ]


@given(entries, st.data())
def test_a_cut_file_gives_the_records_before_the_cut(wanted: list[tuple[str, str, int]], data: st.DataObject) -> None:
    whole = b"".join(record(*entry) for entry in wanted)
    expected, _ = read(whole)
    cut = data.draw(st.integers(0, len(whole)))
    found, problems = read(whole[:cut])
    assert found == expected[: len(found)]
    assert len(found) + len(problems) in (whole[:cut].count(b"\n"), whole[:cut].count(b"\n") + 1)


@given(st.lists(texts, min_size=1, max_size=6), st.data())
def test_a_flipped_bit_harms_no_other_line(wanted: list[str], data: st.DataObject) -> None:
    lines = [record(text + "\n", time_ns=T0 + number) for number, text in enumerate(wanted)]
    number = data.draw(st.integers(0, len(lines) - 1))
    place = data.draw(st.integers(0, len(lines[number]) - 2))
    damaged = bytearray(lines[number])
    damaged[place] ^= 1 << data.draw(st.integers(0, 7))
    found, _ = read(b"".join([*lines[:number], bytes(damaged), *lines[number + 1 :]]))
    others = {text.encode() for index, text in enumerate(wanted) if index != number}
    assert others <= {one.line for one in found}


@given(
    st.binary(max_size=200),
    st.lists(st.sampled_from([b'{"log":"', b'"}', b"\n", b"\0", b"\\n", b'"time":"']), max_size=9),
)
def test_any_bytes_give_records_or_problems(junk: bytes, parts: list[bytes]) -> None:
    data = junk[:50].join(parts) + junk
    found, problems = read(data, 7)
    assert [one.text.encode("utf-8", "surrogateescape") for one in found] == [one.line for one in found]
    assert all(1 <= one.time.year <= 9999 for one in found)
    assert all(0 <= (problem.offset or 0) <= len(data) for problem in problems)
