"""What carving costs, against reading and copying the same bytes once in the same run.

`--benchmark-enable` measures; FORENSICS_BENCH_MB sets the size (16 by default). The assertions are about what is found,
never about time; ratios and rates are in the benchmark's extra information.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from forensics_lib.model import Origin, ProblemLog
from forensics_lib.recovery.carve import carve
from forensics_lib.recovery.carve_starts import starts
from forensics_lib.recovery.free import FreeSpace
from forensics_lib.sources.base import Source
from forensics_lib.sources.file import FileSource
from tests.engines.docker.dataroot import hexid
from tests.recovery.scene import config, disk, encoded, line

pytest.importorskip("pytest_benchmark")

MEGABYTES = int(os.environ.get("FORENSICS_BENCH_MB", "16"))
WINDOW = 4 << 20
RECORD = encoded(config(hexid("web"), "web", 1))
LOG = b"".join(line(f"line {number}\n", number / 100) for number in range(500))


def program(draw: random.Random) -> bytes:
    """A MiB of something like machine code."""
    parts = [b"\x48\x8b", b"\0\0\0\0", b"\xe8", b"text of a program\0"]
    return b"".join(draw.choice(parts) + draw.randbytes(3) for _ in range(150_000))[: 1 << 20]


PIECES: dict[str, Callable[[random.Random], bytes]] = {
    "random": lambda draw: draw.randbytes(1 << 20),
    "zeros": lambda draw: bytes(1 << 20),
    "program": program,
}


@pytest.fixture(params=[*PIECES, "mixed"])
def space(request: pytest.FixtureRequest, tmp_path: Path) -> FreeSpace:
    """Free space of one kind, with one container's record and log in it."""
    draw = random.Random(1)
    kinds = list(PIECES) if request.param == "mixed" else [request.param]
    made = [PIECES[kind](draw) for kind in kinds]
    path = tmp_path / "disk"
    with path.open("wb") as file:
        for number in range(MEGABYTES):
            file.write(made[number % len(made)])
        file.write(disk(bytes(1024), RECORD, LOG))
    source = FileSource(path)
    return FreeSpace(source, [(0, source.size)], 1024)


def copied(source: Source) -> int:
    """The floor: every byte read and copied once."""
    return sum(len(bytearray(source.read_at(at, WINDOW))) for at in range(0, source.size, WINDOW))


def first_pass(source: Source) -> int:
    """Reading, and looking at how blocks start."""
    return sum(len(starts(source.read_at(at, WINDOW), WINDOW, 1024)) for at in range(0, source.size, WINDOW))


def fastest(call: Callable[[], object]) -> float:
    """CPU seconds of the quickest of some rounds."""
    times = []
    for _ in range(3):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return max(min(times), 1e-6)


def test_carving_free_space(benchmark, space: FreeSpace) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    source = space.source
    rows = benchmark.pedantic(lambda: list(carve(space, ProblemLog())), rounds=1)
    assert [(row.kind, row.size, row.complete) for row in rows if row.kind != "file"] == [
        ("config", len(RECORD), True),
        ("log", len(LOG), True),
    ]
    if benchmark.enabled:
        floor, first, whole = (
            fastest(call)
            for call in (
                lambda: copied(source),
                lambda: first_pass(source),
                lambda: list(carve(space, ProblemLog())),
            )
        )
        benchmark.extra_info["first pass, GB/s"] = round(source.size / first / 1e9, 2)
        benchmark.extra_info["both passes, GB/s"] = round(source.size / whole / 1e9, 2)
        benchmark.extra_info["first pass / read and copy"] = round(first / floor, 2)
        benchmark.extra_info["both passes / read and copy"] = round(whole / floor, 2)
    source.close()


def test_origin_of_free_space(space: FreeSpace) -> None:
    """What is found says where it lies on the disk."""
    found = list(carve(FreeSpace(space.source, space.ranges, space.block), ProblemLog()))
    config_row = next(row for row in found if row.kind == "config")
    assert config_row.origin.offset == (MEGABYTES << 20) + 1024
    assert config_row.origin != Origin("disk")
    space.source.close()
