"""What hashing and listing an image cost, against the floor in the same run: inflating and hashing without any parsing.

`--benchmark-enable` measures; FORENSICS_BENCH_MB sets the size of the image (16 by default). The assertions are about
what is found, never about time; the ratios are in the benchmark's extra information.
"""

from __future__ import annotations

import hashlib
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from pathlib import Path

import pytest

import forensics_lib as fl
from forensics_lib.analysis.digests import Hasher
from forensics_lib.sources.decompress import Compression, decompress, sniff
from forensics_lib.sources.file import FileSource
from tests.imagemaker import Recipe, oci_layout, write_folder
from tests.tarmaker import TarMaker

pytest.importorskip("pytest_benchmark")

MEGABYTES = int(os.environ.get("FORENSICS_BENCH_MB", "16"))


class Inline(Executor):
    """Runs everything at once, in the caller's thread: the cost of one worker."""

    def submit(self, fn, /, *args, **kwargs):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN002, ANN003, ANN201
        future: Future[object] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def layout(folder: Path, layers: int, compression: str) -> Path:
    """An OCI layout of files of many sizes, half of them compressible."""
    rng = random.Random(1)
    archives = []
    for _ in range(layers):
        tar = TarMaker("pax", mtime="1700000000.123456789")
        total = 0
        while total < (MEGABYTES << 20) // layers:
            size = int(min(rng.paretovariate(0.6) * 300, 4 << 20))
            data = (rng.randbytes(size // 2) + b"forensics " * (size // 20 + 1))[:size]
            tar.file(f"usr/share/{rng.randrange(50)}/{total}.bin", data)
            total += size
        archives.append(tar.end())
    return write_folder(oci_layout(Recipe(layers=archives, compression=compression)), folder)


def floor(path: Path) -> int:
    """Decompress and hash everything, one thread, no parsing."""
    total = 0
    for blob in sorted((path / "blobs" / "sha256").iterdir()):
        source = FileSource(blob)
        compression = sniff(source.read_at(0, 16))
        digest, diff_id = hashlib.sha256(), hashlib.sha256()
        files = [hashlib.md5(), hashlib.sha1(), hashlib.sha256()]

        def stored(source: FileSource = source, digest: Hasher = digest) -> Iterator[bytes]:
            for block in source.blocks():
                digest.update(block)
                yield block

        for block in decompress(stored(), compression, source.origin):
            diff_id.update(block)
            for one in files:
                one.update(block)
            total += len(block)
    return total


def cpu_ratio(work: Callable[[], object], against: Callable[[], object], rounds: int = 3) -> float:
    """CPU of one over CPU of the other, the median of paired rounds."""

    def cost(call: Callable[[], object]) -> float:
        start = time.process_time()
        call()
        return time.process_time() - start

    return statistics.median(cost(work) / max(cost(against), 1e-6) for _ in range(rounds))


@pytest.mark.parametrize(
    ("layers", "compression"),
    [(8, "gzip"), (8, "none"), (8, "zstd"), (1, "gzip")],
    ids=["gzip", "plain", "zstd", "fat"],
)
def test_hashes(benchmark, tmp_path: Path, layers: int, compression: str) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    path = layout(tmp_path / "layout", layers, compression)

    def hash_all(executor: Executor | None = None) -> list[fl.ArtifactHash]:
        with fl.open(path) as ev:
            assert {layer.compression for layer in ev.images[0].layers} == {Compression(compression)}
            return list(ev.hashes(executor=executor))

    rows = benchmark(hash_all)
    benchmark.extra_info["files"] = sum(row.kind == "file" for row in rows)
    benchmark.extra_info["one worker, CPU / floor"] = round(
        cpu_ratio(lambda: hash_all(Inline()), lambda: floor(path)), 2
    )
    assert sorted(row.sha256 or "" for row in rows) == sorted(row.sha256 or "" for row in hash_all(Inline()))
    assert sum(row.kind == "layer" for row in rows) == layers


def test_opening_and_listing(benchmark, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    path = layout(tmp_path / "layout", 8, "gzip")

    def walk() -> int:
        with fl.open(path) as ev:
            return sum(1 for _ in ev.images[0].tree().walk())

    def inflate() -> int:
        total = 0
        for blob in (path / "blobs" / "sha256").iterdir():
            source = FileSource(blob)
            total += sum(map(len, decompress(source.blocks(), sniff(source.read_at(0, 16)), source.origin)))
        return total

    nodes = benchmark(walk)
    benchmark.extra_info["CPU / inflate alone"] = round(cpu_ratio(walk, inflate), 2)
    assert nodes > 100
    assert inflate() > MEGABYTES << 20
