"""Processes that hash beside this one, and what happens when they cannot."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import forensics_lib as fl
from forensics_lib.analysis import hashing, workers
from forensics_lib.analysis.digests import StreamDigests, digest_stream
from forensics_lib.analysis.inventory import TarStream
from forensics_lib.analysis.workers import Seats, can_move
from forensics_lib.model import Origin
from forensics_lib.sources.base import BytesSource
from forensics_lib.sources.decompress import Compression, Limits
from forensics_lib.sources.file import FileSource
from forensics_lib.sources.spool import SpoolSource
from tests.samples import OCI, WEB

WANTED = (("md5", "sha256"), ("sha256",), ("sha256",))
SCRIPT = """
import forensics_lib as fl
from forensics_lib.analysis import hashing
hashing._WORTH_PROCESSES = 0
import os; os.cpu_count = lambda: 2
with fl.open({path!r}) as evidence:
    print(len(evidence.hashes()))
"""


@pytest.fixture
def job() -> Iterator[TarStream]:
    source = FileSource(WEB)
    yield TarStream("owner", "path", source, Compression.NONE, Origin("archive"), Limits())
    source.close()


def same(one: StreamDigests, other: StreamDigests) -> bool:
    return (one.stored, one.uncompressed, one.files) == (other.stored, other.uncompressed, other.files)


def test_another_process_finds_the_same(job: TarStream) -> None:
    ticks: list[int] = []
    with Seats(2) as seats:
        assert seats.count == 2
        here = seats.run(job, WANTED, None)
        there = seats.run(job, WANTED, ticks.append)
        assert seats._free.qsize() == 2
    assert same(here, digest_stream(job, *WANTED))
    assert same(there, here)
    assert sum(ticks) == job.stored.size


@pytest.mark.parametrize("fixture", [OCI, WEB], ids=lambda path: path.name)
def test_evidence_is_hashed_alike_with_and_without_processes(fixture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hashed() -> set[tuple[object, ...]]:
        with fl.open(fixture) as evidence:
            assert all(check.ok for check in evidence.verify())
            return {(row.owner, row.path, row.kind, row.sha256, row.md5) for row in evidence.hashes()}

    asked = []
    ask = workers._ask

    def noted(worker: subprocess.Popen[bytes], job: TarStream, *rest: Any) -> StreamDigests | None:
        asked.append(job)
        return ask(worker, job, *rest)

    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(workers, "_ask", noted)
    threads = hashed()
    assert asked == []
    monkeypatch.setattr(hashing, "_WORTH_PROCESSES", 0)
    assert hashed() == threads
    assert asked


def test_a_process_that_died_is_replaced_by_this_one(job: TarStream) -> None:
    with Seats(2) as seats:
        seats._workers[0].kill()
        seats._workers[0].wait()
        results = [seats.run(job, WANTED, None) for _ in range(3)]
    assert all(same(one, digest_stream(job, *WANTED)) for one in results)


def test_an_error_of_the_job_arrives(job: TarStream) -> None:
    with Seats(2) as seats:
        for _ in range(2):
            with pytest.raises(ValueError, match="unknown digest algorithm"):
                seats.run(job, (("nonsense",), (), ()), None)


@pytest.mark.parametrize("executable", ["", "/usr/sbin/uwsgi", "/nowhere/python3"])
def test_an_interpreter_that_cannot_be_started_again(monkeypatch: pytest.MonkeyPatch, executable: str) -> None:
    monkeypatch.setattr(sys, "executable", executable)
    with Seats(4) as seats:
        assert seats.count == 1


def test_a_script_needs_no_guard(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(path=str(OCI)))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, check=True)
    with fl.open(OCI) as evidence:
        assert done.stdout.split() == [str(len(evidence.hashes()))]
    assert done.stderr == ""


def test_only_files_are_read_by_other_processes(job: TarStream) -> None:
    source = BytesSource(b"", Origin("memory"))
    assert can_move(job.stored)
    assert can_move(job.stored.slice(0, 10, "part").slice(0, 5, "part"))
    assert not can_move(source)
    assert not can_move(SpoolSource(job.stored, Compression.GZIP, Origin("spool")).slice(0, 1, "part"))
