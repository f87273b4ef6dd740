"""One layer: its stored bytes, its members, its damage, and the disk it may use."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

import forensics_lib as fl
from forensics_lib.images.layer import LayerBlob, SpoolPool
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.sources.base import BytesSource
from forensics_lib.sources.decompress import Compression
from forensics_lib.sources.spool import SpoolSource
from tests.imagemaker import compressed
from tests.tarmaker import TarMaker

ORIGIN = Origin("layer.tar")
ARCHIVE = (
    TarMaker().dir("d/").file("d/a", b"1" * 600).file("d/.wh.gone").file("x/.wh..wh..opq").symlink("l", "d/a").end()
)
COMPRESSIONS = ["none", "gzip", "zstd", "xz", "bzip2"]


def blob_of(
    data: bytes, *, problems: ProblemLog | None = None, limits: fl.Limits | None = None, pool: SpoolPool | None = None
) -> LayerBlob:
    return LayerBlob(
        "layer.tar", BytesSource(data, ORIGIN), ORIGIN,
        problems=problems or ProblemLog(strict=True), limits=limits or fl.Limits(), pool=pool or SpoolPool(1 << 30),
    )  # fmt: skip


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_any_compression_is_told_by_the_bytes(compression: str) -> None:
    pool = SpoolPool(1 << 20)
    blob = blob_of(compressed(ARCHIVE, compression), pool=pool)
    assert blob.compression == compression
    assert b"".join(blob.stream()) == ARCHIVE
    archive = blob.archive()
    assert archive.size == len(ARCHIVE)
    assert archive.read_at(512, 512) == ARCHIVE[512:1024]
    assert [entry.name for entry in blob.entries()] == ["d/", "d/a", "d/.wh.gone", "x/.wh..wh..opq", "l"]
    assert next(e for e in blob.entries() if e.name == "d/a").content().read_at(0, 700) == b"1" * 600
    pool.close()


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_what_a_layer_holds_and_where(compression: str) -> None:
    pool = SpoolPool(1 << 20)
    changeset = blob_of(compressed(ARCHIVE, compression), pool=pool).changeset()
    assert [member.node.path for member in changeset.members] == ["/d", "/d/a", "/l"]
    assert [(mark.path, mark.opaque) for mark in changeset.marks] == [("/d/gone", False), ("/x", True)]
    inside = "layer.tar" if compression == "none" else f"layer.tar > {compression}"
    assert [str(mark.origin) for mark in changeset.marks] == [
        f"{inside} > tar header @2048",
        f"{inside} > tar header @2560",
    ]
    assert str(changeset.members[1].node.origin) == f"{inside} > tar header @512"
    assert changeset.members[1].node.read() == b"1" * 600
    pool.close()


def test_a_layer_is_read_once() -> None:
    blob = blob_of(ARCHIVE)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: blob.changeset(), range(32)))
    assert all(one is found[0] for one in found)


def test_a_layer_that_is_empty_or_no_archive() -> None:
    for data in (b"", b"plain text, no archive", b"{}"):
        problems = ProblemLog()
        assert blob_of(data, problems=problems).changeset().members == []
        assert problems.rows
        with pytest.raises(fl.DamagedData):
            blob_of(data).changeset()
    assert blob_of(bytes(1024)).changeset().members == []  # nothing but the end-of-archive marker


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_cut_layer_keeps_what_came_before(compression: str) -> None:
    import random

    maker = TarMaker()
    noise = random.Random(1)
    for number in range(24):
        maker.file(f"f{number:02}", noise.randbytes(100_000))
    data = compressed(maker.end(), compression)
    problems, pool = ProblemLog(), SpoolPool(1 << 30)
    blob = blob_of(data[: len(data) * 3 // 4], problems=problems, pool=pool)
    members = blob.changeset().members
    assert 10 <= len(members) <= 19
    noise = random.Random(1)
    for member in members[:10]:
        assert member.node.read() == noise.randbytes(100_000)
    assert problems.rows
    with pytest.raises(fl.DamagedData):
        members[-1].node.read() if compression == "none" else b"".join(blob.stream())
    pool.close()


def test_bytes_after_the_archive_are_a_problem() -> None:
    problems = ProblemLog()
    blob_of(ARCHIVE + b"hidden data", problems=problems).changeset()
    assert ["11 bytes that are no archive" in problem.message for problem in problems.rows] == [True]
    problems = ProblemLog()
    blob_of(compressed(ARCHIVE, "gzip") + b"hidden data", problems=problems).changeset()
    assert ["no gzip" in problem.message for problem in problems.rows] == [True]


def test_an_archive_behind_the_archive_is_no_part_of_the_tree() -> None:
    problems = ProblemLog()
    changeset = blob_of(ARCHIVE + TarMaker().file("hidden", b"h").end(), problems=problems).changeset()
    assert "/hidden" not in [member.node.path for member in changeset.members]
    assert any("after the end-of-archive marker" in problem.message for problem in problems.rows)


def test_a_bomb_ends_at_a_limit() -> None:
    bomb = compressed(TarMaker().file("zeros", bytes(8 << 20)).end(), "gzip")
    problems = ProblemLog()
    limits = fl.Limits(total=1 << 20)
    blob_of(bomb, problems=problems, limits=limits).changeset()
    assert [type(problem.error) for problem in problems.rows].count(fl.LimitExceeded) == 1


def test_members_are_counted() -> None:
    maker = TarMaker()
    for number in range(50):
        maker.file(f"{number}")
    problems = ProblemLog()
    members = blob_of(maker.end(), problems=problems, limits=fl.Limits(entries=10)).changeset().members
    assert len(members) == 10
    assert any(isinstance(problem.error, fl.LimitExceeded) for problem in problems.rows)


def test_the_pool_gives_the_longest_unused_back() -> None:
    pool = SpoolPool(250_000)
    data = compressed(bytes(100_000), "gzip")
    spools = [SpoolSource(BytesSource(data, ORIGIN), Compression.GZIP, ORIGIN) for _ in range(4)]
    for spool in spools[:3]:
        assert pool.touch(spool).read_at(99_999, 1) == b"\0"
        assert spool.held == 100_000
    pool.touch(spools[0])
    assert [spool.held for spool in spools] == [100_000, 0, 100_000, 0]
    assert pool.touch(spools[1]).read_at(99_999, 1) == b"\0"  # read again
    pool.close()
    assert [spool.held for spool in spools] == [0, 0, 0, 0]


def test_many_layers_with_little_disk() -> None:
    """More than fits is decompressed again when it is asked for, and never wrong."""
    pool = SpoolPool(300_000)
    archives = [TarMaker().file("f", bytes([number]) * 200_000).end() for number in range(6)]
    blobs = [blob_of(compressed(archive, "gzip"), pool=pool) for archive in archives]
    nodes = [blob.changeset().members[0].node for blob in blobs]

    def read(number: int) -> bool:
        return nodes[number % 6].read() == bytes([number % 6]) * 200_000

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(read, range(60)))
    pool.close()
