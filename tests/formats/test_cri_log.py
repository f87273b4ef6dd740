from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forensics_lib.errors import DamagedData
from forensics_lib.formats.cri_log import read_cri_log
from forensics_lib.formats.log_record import LogRecord
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.sources.decompress import Limits
from forensics_lib.sources.file import FileSource
from forensics_lib.trees.archive import tar_tree

FILE = Origin("0.log")
PODMAN = Path(os.environ.get("FORENSICS_EVIDENCE", "nowhere")) / "engines" / "podman-root"


def read(data: bytes, size: int = 1 << 16, limit: int = 1 << 20) -> tuple[list[LogRecord], list[DamagedData]]:
    problems: list[DamagedData] = []
    blocks = [data[start : start + size] for start in range(0, len(data), size)]
    return list(read_cri_log(blocks, FILE, problems.append, limit=limit)), problems


def rows(records: list[LogRecord]) -> list[tuple[int, str, bytes, bool]]:
    return [(one.time_ns, one.stream, one.line, one.partial) for one in records]


def test_records_of_containerd_and_conmon() -> None:
    found, problems = read(
        b"2026-11-21T17:07:06.9282157Z stdout F rotation 2 line 1\n"
        b"2026-11-21T17:06:50.832469931+00:00 stdout P partial\n"
        b"2026-11-21T10:06:50.832469931-07:00 stderr F \xff err \r\n"
        b"2026-11-21T17:06:50Z stdout F \n"
        b"2026-11-21T17:06:50Z stdout F\n"
        b"2026-11-21T17:06:50Z stdout P:x:y piece\n"
    )
    assert problems == []
    assert rows(found) == [
        (1795280826_928215700, "stdout", b"rotation 2 line 1", False),
        (1795280810_832469931, "stdout", b"partial", True),
        (1795280810_832469931, "stderr", b"\xff err \r", False),
        (1795280810_000000000, "stdout", b"", False),
        (1795280810_000000000, "stdout", b"", False),
        (1795280810_000000000, "stdout", b"piece", True),
    ]
    assert found[1].offset == 56


def test_a_line_in_the_format_inside_a_line_is_text() -> None:
    inner = b"2026-11-21T17:06:50Z stdout F inner"
    found, problems = read(b"2026-11-21T17:06:51Z stderr F " + inner + b"\n")
    assert [one.line for one in found] == [inner]
    assert problems == []


def test_reading_goes_on_behind_damage() -> None:
    good = b"2026-11-21T17:06:50Z stdout F good\n"
    found, problems = read(
        good + b"2026-11-21T17:06" + good + b"junk\n" + bytes(9) + good + b"2026-99-21T17:06:50Z stdout F x\n"
    )
    assert [(one.line, one.offset) for one in found] == [(b"good", 0), (b"good", 51), (b"good", 100)]
    assert [problem.offset for problem in problems] == [35, 86, 91, 135]


def test_a_last_line_without_newline_is_kept_and_told() -> None:
    found, problems = read(b"2026-11-21T17:06:50Z stdout F cu")
    assert rows(found) == [(1795280810_000000000, "stdout", b"cu", True)]
    assert str(problems[0]) == "no newline ends the record; its line may be cut"


def test_memory_is_bounded() -> None:
    found, problems = read(b"2026-11-21T17:06:50Z stdout F " + b"x" * 5000 + b"\n", size=100, limit=1000)
    assert len(found) == 1
    assert len(problems) > 1


@given(st.binary(max_size=120), st.integers(1, 20))
def test_any_bytes_give_records_or_problems(junk: bytes, size: int) -> None:
    data = junk + b"\n2026-11-21T17:06:50Z stdout F x\n2026-11-21T17:06:50.1Z stderr P" + junk
    found, problems = read(data, size)
    assert b"x" in [one.line for one in found]
    assert all(isinstance(one.time, datetime) for one in found)
    assert all(0 <= (problem.offset or 0) < len(data) for problem in problems)


@given(st.lists(st.binary(max_size=20).map(lambda line: line.replace(b"\n", b"")), max_size=5), st.data())
def test_a_cut_file_gives_the_records_before_the_cut(lines: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(b"2026-11-21T17:06:50Z stdout F " + line + b"\n" for line in lines)
    cut = data.draw(st.integers(0, len(whole)))
    found, problems = read(whole[:cut])
    complete = whole[:cut].count(b"\n")
    assert [one.line for one in found[:complete]] == lines[:complete]
    assert len(found) - complete <= len(problems) <= 1


@pytest.mark.skipif(not PODMAN.is_dir(), reason="FORENSICS_EVIDENCE names no folder with this evidence")
def test_logs_of_podman_equal_what_it_shows() -> None:
    problems = ProblemLog(strict=True)
    tree = tar_tree(FileSource(PODMAN / "evidence" / "host.tar"), problems, Limits())
    base = "/var/lib/containers/storage/overlay-containers"
    compared = 0
    for path in sorted((PODMAN / "truth" / "logs").iterdir()):
        identifier, stream = path.stem, path.suffix[1:]
        log = f"{base}/{identifier}/userdata/ctr.log"
        if log not in tree:
            continue
        records, damage = read(tree.read(log))
        assert damage == []
        assert b"".join(shown(one) for one in records if one.stream == stream) == path.read_bytes()
        compared += bool(path.stat().st_size)
    assert compared >= 4


def shown(record: LogRecord) -> bytes:
    seconds, fraction = divmod(record.time_ns, 10**9)
    stamp = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{stamp}.{fraction:09d}Z ".encode() + record.line + b"\n" * (not record.partial)
