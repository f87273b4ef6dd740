from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forensics_lib.errors import DamagedData
from forensics_lib.formats.local_log import MAX_RECORD, read_local_log
from forensics_lib.formats.log_record import LogRecord
from forensics_lib.model import Origin

FILE = Origin("container.log")
# The first two records of a log of Docker 20.10.
REAL = bytes.fromhex(
    "00000028 0a06 7374646f7574 10e48c9291bdf586f518 1a14 6462207374617274696e6720757365723d617070 00000028"
    "0000002f 0a06 7374646f7574 109593a191bdf586f518 1a1b 717565727920302053454c454354202a2046524f4d207573657273"
    "0000002f"
)


def read(data: bytes, size: int = 1 << 16) -> tuple[list[LogRecord], list[DamagedData]]:
    problems: list[DamagedData] = []
    blocks = [data[start : start + size] for start in range(0, len(data), size)]
    return list(read_local_log(blocks, FILE, problems.append)), problems


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def framed(payload: bytes) -> bytes:
    return len(payload).to_bytes(4, "big") + payload + len(payload).to_bytes(4, "big")


def record(line: bytes, time_ns: int = 1, stream: bytes = b"stdout", more: bytes = b"") -> bytes:
    time = varint(time_ns & (2**64 - 1))
    return framed(b"\n" + varint(len(stream)) + stream + b"\x10" + time + b"\x1a" + varint(len(line)) + line + more)


def lines(records: list[LogRecord]) -> list[bytes]:
    return [one.line for one in records]


@pytest.mark.parametrize("size", [1, 7, 1 << 16])
def test_records_of_docker(size: int) -> None:
    found, problems = read(REAL, size)
    assert problems == []
    assert found == [
        LogRecord(1795277826_239530596, "stdout", b"db starting user=app", False, (), 0, FILE),
        LogRecord(1795277826_239777173, "stdout", b"query 0 SELECT * FROM users", False, (), 48, FILE),
    ]


def test_bytes_are_preserved() -> None:
    found, problems = read(record(b"\xff\0\r", stream=b"stderr") + record(b"", -5))
    assert [(one.line, one.stream, one.time_ns) for one in found] == [(b"\xff\0\r", "stderr", 1), (b"", "stdout", -5)]
    assert problems == []


def test_only_the_last_piece_of_a_long_line_ends_it() -> None:
    partial, metadata = b"\x20\x01", b"\x2a\x04\x12\x02id"
    last = b"\x2a\x08\x08\x01\x12\x02id\x18\x02"
    found, _ = read(
        record(b"a", more=partial + metadata) + record(b"b", more=partial) + record(b"c", more=partial + last)
    )
    assert [(one.line, one.partial) for one in found] == [(b"a", True), (b"b", True), (b"c", False)]


def test_attributes() -> None:
    found, _ = read(record(b"a", more=b"\x32\x09\x0a\x04tier\x12\x01x" + b"\x32\x03\x0a\x01y"))
    assert found[0].attrs == (("tier", "x"), ("y", ""))


def test_reading_goes_on_behind_damage() -> None:
    first, torn, last = record(b"first"), record(b"torn torn torn")[:17], record(b"last")
    for middle in (torn, bytes(5000), b"\xff" * 40, record(b"bad")[:-1] + b"\x99", b"\x7f\xff\xff\xff"):
        for size in (3, 1 << 16):
            found, problems = read(first + middle + last, size)
            assert [(one.line, one.offset) for one in found] == [
                (b"first", 0),
                (b"last", len(first + middle)),
            ]
            assert [problem.offset for problem in problems] == [len(first)]
            assert str(problems[0]).startswith(f"{len(middle)} bytes are no record: ")


def test_a_torn_last_record() -> None:
    whole = REAL[48:]
    for cut in range(1, len(whole)):
        found, problems = read(REAL[:48] + whole[:cut])
        assert [problem.offset for problem in problems] == [48]
        if cut >= len(whole) - 4:  # only the closing length is cut
            assert lines(found) == [b"db starting user=app", b"query 0 SELECT * FROM users"]
        else:
            assert lines(found) == [b"db starting user=app"]


def test_a_damaged_entry_in_an_intact_frame_costs_only_itself() -> None:
    damaged = framed(b"\n\x06stdout\x10\x01\x1a\x7fshort")
    found, problems = read(record(b"a") + damaged + record(b"b"))
    assert lines(found) == [b"a", b"b"]
    assert "entry is damaged: field 3 has 127 bytes, only 5 are there" in str(problems[0])
    assert problems[0].offset == len(record(b"a"))


def test_nul_bytes_are_no_records() -> None:
    found, problems = read(bytes(64))
    assert found == []
    assert [problem.offset for problem in problems] == [0]


def test_lengths_are_bounded() -> None:
    found, problems = read(record(b"x" * MAX_RECORD) + record(b"next"))
    assert lines(found) == [b"next"]
    assert len(problems) == 1
    assert len(str(problems[0])) < 500


def test_overlapping_beginnings_of_records_are_not_looked_at_again_and_again() -> None:
    head = MAX_RECORD.to_bytes(4, "big") + b"\n\x06stdout"
    found, problems = read(head * 100_000 + record(b"next"))
    assert lines(found) == [b"next"]
    assert len(problems) == 1


entries = st.lists(st.tuples(st.binary(max_size=20), st.integers(-(2**63), 2**63 - 1)), min_size=1, max_size=6)


@given(entries, st.integers(1, 60))
def test_what_is_written_comes_back(wanted: list[tuple[bytes, int]], size: int) -> None:
    found, problems = read(b"".join(record(*entry) for entry in wanted), size)
    assert [(one.line, one.time_ns) for one in found] == wanted
    assert problems == []


@given(entries, st.data())
def test_a_cut_file_gives_the_records_before_the_cut(wanted: list[tuple[bytes, int]], data: st.DataObject) -> None:
    parts = [record(*entry) for entry in wanted]
    cut = data.draw(st.integers(0, sum(map(len, parts))))
    found, problems = read(b"".join(parts)[:cut])
    ends = list(accumulate(map(len, parts), initial=0))
    assert [(one.line, one.time_ns) for one in found] == wanted[: sum(cut >= end - 4 for end in ends[1:])]
    assert [problem.offset for problem in problems] == ([] if cut in ends else [max(end for end in ends if end < cut)])


@given(st.lists(st.text("abc", min_size=1, max_size=20), min_size=1, max_size=6), st.data())
def test_a_flipped_bit_harms_no_other_record(texts: list[str], data: st.DataObject) -> None:
    parts = [record(f"{number} {text}".encode()) for number, text in enumerate(texts)]
    number = data.draw(st.integers(0, len(parts) - 1))
    damaged = bytearray(parts[number])
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    found, _ = read(b"".join([*parts[:number], bytes(damaged), *parts[number + 1 :]]))
    others = {f"{index} {text}".encode() for index, text in enumerate(texts) if index != number}
    assert others <= set(lines(found))


@given(st.binary(max_size=100), st.binary(max_size=30), st.integers(1, 40))
def test_any_bytes_give_records_or_problems(junk: bytes, payload: bytes, size: int) -> None:
    data = junk + framed(b"\n\x06stdout" + payload) + junk
    found, problems = read(data, size)
    assert [one.text.encode("utf-8", "surrogateescape") for one in found] == lines(found)
    assert all(1677 <= one.time.year <= 2262 for one in found)
    assert all(0 <= (problem.offset or 0) < len(data) for problem in problems)
