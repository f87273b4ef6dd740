"""Every content of the evidence, handed to the work once."""

from __future__ import annotations

import gzip
import hashlib
import mmap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import forensics_lib as fl
from forensics_lib.analysis.contents import Data, Sighting, contents
from forensics_lib.analysis.inventory import Inventory, TarStream
from forensics_lib.errors import DamagedData, ForensicsError, LimitExceeded, UnsupportedFormat
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.sources.base import BytesSource
from forensics_lib.sources.decompress import Limits, sniff
from forensics_lib.trees.directory import DirectoryTree
from tests.imagemaker import Recipe, compressed, docker_save, hybrid_save, write_tar
from tests.tarmaker import TarMaker

SMALL = Limits(spool=1 << 20)


def stream(data: bytes, name: str = "layer", limits: Limits = SMALL) -> TarStream:
    source = BytesSource(data, Origin(name))
    return TarStream(name, name, source, sniff(data[:16]), source.origin, limits)


def inventory(*layers: bytes, strict: bool = False) -> Inventory:
    streams = tuple(stream(layer, f"layer{index}") for index, layer in enumerate(layers))
    return Inventory("evidence", ProblemLog(strict=strict), streams=streams)


def whole(data: Data, path: str) -> bytes:
    return data[:]


def found(what: Inventory, in_memory: int = 1 << 20) -> dict[tuple[str, str], bytes | None]:
    rows = list(contents(what, whole, threads=1, in_memory=in_memory))
    assert len({(row.owner, row.path) for row in rows}) == len(rows)
    return {(row.owner, row.path): row.result for row in rows}


def messages(what: Inventory) -> list[str]:
    return [problem.message for problem in what.problems.rows]


class Work:
    """Counts what it is given."""

    def __init__(self) -> None:
        self.calls: list[tuple[bytes, str]] = []
        self._lock = threading.Lock()

    def __call__(self, data: Data, path: str) -> int:
        with self._lock:
            self.calls.append((data[:], path))
        return len(data)


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd", "xz", "bzip2"])
def test_content_is_worked_on_once_whatever_its_names(compression: str) -> None:
    first = TarMaker().dir("etc").file("etc/a", b"same").file("b", b"other").end()
    second = TarMaker().file("c", b"same").hardlink("d", "c").end()
    work = Work()
    rows = list(contents(inventory(compressed(first, compression), compressed(second, compression)), work))
    assert sorted(work.calls) == [(b"other", "/b"), (b"same", "/etc/a")]
    assert [(row.owner, row.path, row.size, row.result) for row in rows] == [
        ("layer0", "/etc", 0, None),
        ("layer0", "/etc/a", 4, 4),
        ("layer0", "/b", 5, 5),
        ("layer1", "/c", 4, 4),
        ("layer1", "/d", 4, 4),
    ]
    same = hashlib.sha256(b"same").hexdigest()
    assert [row.sha256 for row in rows] == [None, same, hashlib.sha256(b"other").hexdigest(), same, same]


def test_origin_leads_to_the_header() -> None:
    plain = TarMaker().file("a", b"1").file("b", b"2").end()
    rows = list(contents(inventory(plain, gzip.compress(plain)), whole))
    assert [str(row.origin) for row in rows if row.path == "/b"] == [
        "layer0 > tar header @1024",
        "layer1 > gzip > tar header @1024",
    ]


def test_what_no_container_sees_is_seen() -> None:
    layer = (
        TarMaker()
        .file("twice", b"first")
        .file("twice", b"second")
        .file(".wh.gone")
        .member("folder/", "5", b"smuggled in a folder")
        .member("strange", "Z", b"of unknown type")
        .end()
    )
    layer += TarMaker().file("after", b"behind the end").end()
    rows = [(row.path, row.result) for row in contents(inventory(layer), whole)]
    assert rows == [
        ("/twice", b"first"),
        ("/twice", b"second"),
        ("/.wh.gone", b""),
        ("/folder", b"smuggled in a folder"),
        ("/strange", b"of unknown type"),
        ("/after", b"behind the end"),
    ]


def test_names_without_content_have_no_result() -> None:
    layer = (
        TarMaker()
        .global_pax({"comment": "no member"})
        .dir("d")
        .symlink("s", "target")
        .fifo("f")
        .device("c", "3", major=1, minor=3)
        .hardlink("h", "in/a/lower/layer")
        .end()
    )
    rows = list(contents(inventory(layer), whole))
    assert [(row.path, row.size, row.sha256, row.result) for row in rows] == [
        (path, 0, None, None) for path in ("/d", "/s", "/f", "/c", "/h")
    ]


@pytest.mark.parametrize("in_memory", [0, 1, 999, 1000])
def test_large_content_goes_through_a_file(in_memory: int) -> None:
    data = bytes(range(250)) * 4
    kinds: set[type] = set()

    def work(content: Data, path: str) -> bytes:
        kinds.add(type(content))
        return content[:]

    rows = list(contents(inventory(TarMaker().file("big", data).end()), work, in_memory=in_memory))
    assert rows[0].result == data
    assert rows[0].sha256 == hashlib.sha256(data).hexdigest()
    assert kinds == ({bytes} if in_memory >= 1000 else {mmap.mmap})


@pytest.mark.parametrize("in_memory", [100, 1 << 20])
def test_sparse_content_has_its_holes(in_memory: int) -> None:
    layer = TarMaker().pax_sparse("s", [(300_000, 3), (600_000, 0)], 600_000, b"abc").end()
    data = bytes(300_000) + b"abc" + bytes(299_997)
    rows = list(contents(inventory(layer), whole, in_memory=in_memory))
    assert [(row.size, row.sha256, row.result == data) for row in rows] == [
        (600_000, hashlib.sha256(data).hexdigest(), True)
    ]


def test_content_beyond_the_limit_is_a_problem_and_the_rest_goes_on() -> None:
    layer = TarMaker().pax_sparse("bomb", [(1 << 40, 0)], 1 << 40, b"").file("next", b"1").end()
    what = inventory(layer)
    assert found(what) == {("layer0", "/bomb"): None, ("layer0", "/next"): b"1"}
    assert [type(problem.error) for problem in what.problems.rows] == [LimitExceeded]
    assert "/bomb: its 1099511627776 bytes are more than the limit of 1048576" in messages(what)[0]


def test_work_by_path_is_done_for_every_path() -> None:
    layer = TarMaker().file("a", b"same").file("b", b"same").hardlink("c", "b").end()
    work = Work()
    rows = list(contents(inventory(layer, layer), work, by_path=True))
    assert sorted(work.calls) == [(b"same", "/a"), (b"same", "/b")]  # the second layer has nothing new
    assert [row.result for row in rows] == [4] * 6


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_cut_archive_gives_what_was_readable(compression: str) -> None:
    noise = b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(40_000))
    layer = compressed(TarMaker().file("first", b"1").file("cut", noise).file("lost", b"2").end(), compression)
    what = inventory(layer[: len(layer) // 2])
    rows = {row.path: row for row in contents(what, whole)}
    assert list(rows) == ["/first", "/cut"]
    assert rows["/first"].result == b"1"
    part = rows["/cut"]
    assert part.result is not None
    assert 0 < part.size == len(part.result) < len(noise)
    assert noise.startswith(part.result)
    assert part.sha256 is None  # the digest of a part is the digest of nothing that exists
    assert any(f"the {part.size} bytes before that were examined" in message for message in messages(what))


def test_damage_between_members_is_a_problem() -> None:
    layer = bytes(TarMaker().file("a", b"1")) + b"\xff" * 512 + TarMaker().file("b", b"2").end()
    what = inventory(layer)
    assert found(what) == {("layer0", "/a"): b"1", ("layer0", "/b"): b"2"}
    assert any("no valid header here" in message for message in messages(what))


def test_damage_behind_the_last_member_is_a_problem() -> None:
    what = inventory(gzip.compress(TarMaker().file("a", b"1").end()) + b"garbage")
    assert found(what) == {("layer0", "/a"): b"1"}
    assert messages(what) == ["bytes after the end of the gzip stream are no gzip"]


def test_strict_raises() -> None:
    with pytest.raises(DamagedData):
        list(contents(inventory(b"\xff" * 512, strict=True), whole))


def test_unreadable_layers_are_problems() -> None:
    what = Inventory("e", ProblemLog(), unreadable=((Origin("layer"), UnsupportedFormat("it is encrypted")),))
    assert list(contents(what, whole)) == []
    assert messages(what) == ["it is encrypted"]


def test_folders_are_walked(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a").write_bytes(b"1")
    (tmp_path / "b").write_bytes(b"1" * 2000)
    (tmp_path / "link").symlink_to("/etc/passwd")
    problems = ProblemLog()
    what = Inventory("e", problems, trees=(("folder", DirectoryTree(tmp_path, problems)),))
    rows = {row.path: row for row in contents(what, whole, in_memory=1000)}
    assert {path: row.result for path, row in rows.items()} == {
        "/": None,
        "/b": b"1" * 2000,
        "/link": None,
        "/sub": None,
        "/sub/a": b"1",
    }
    assert {row.owner for row in rows.values()} == {"folder"}
    assert problems.rows == []


@pytest.mark.parametrize("shape", [docker_save, hybrid_save])
def test_contents_are_those_that_are_hashed(shape: object, tmp_path: Path) -> None:
    assert callable(shape)
    layers = [
        TarMaker().file("etc/passwd", b"root").file("a", b"1" * 70_000).hardlink("b", "a").end(),
        TarMaker().file(".wh.a").file("etc/passwd", b"toor").end(),
    ]
    archive = write_tar(shape(Recipe(layers, ["acme/web:1.0"])) | {"planted": b"beside the layers"}, tmp_path / "x.tar")
    with fl.open(archive) as evidence:
        rows = list(contents(evidence._inventory, whole))
        seen = {(row.owner, row.path, row.size, row.sha256) for row in rows if row.result is not None}
        hashed = {(row.owner, row.path, row.size, row.sha256) for row in evidence.hashes(kinds=("file",))}
        assert hashed <= seen
        beside = {path: size for owner, path, size, _ in seen if owner == "x.tar"}
        assert beside["planted"] == 17
        assert "manifest.json" in beside
        assert len(seen) == len(hashed) + len(beside)


def test_progress_reaches_the_total() -> None:
    told: list[tuple[int, int]] = []
    layer = gzip.compress(TarMaker().file("a", bytes(1 << 20)).end())
    list(contents(inventory(layer, layer), whole, progress=lambda done, total: told.append((done, total))))
    assert told[-1] == (2 * len(layer), 2 * len(layer))
    assert told == sorted(told)


def test_threads_change_nothing() -> None:
    layer = TarMaker()
    for number in range(2000):
        layer.file(f"f{number}", b"%d" % (number % 700) * 10)
    alone, together = (list(contents(inventory(layer.end()), whole, threads=count)) for count in (1, 4))
    assert alone == together
    assert len(alone) == 2000


def test_stopping_early_is_clean() -> None:
    rows: Iterator[Sighting[bytes]] = contents(inventory(TarMaker().file("a", b"1" * 5000).end()), whole, in_memory=10)
    assert next(rows).size == 5000
    before = threading.active_count()
    rows.close()  # type: ignore[attr-defined]  # it is a generator
    assert threading.active_count() <= before


def test_errors_of_the_work_are_not_swallowed() -> None:
    def work(data: Data, path: str) -> int:
        raise ZeroDivisionError(path)

    with pytest.raises(ZeroDivisionError, match="/a"):
        list(contents(inventory(TarMaker().file("a", b"1").end()), work))


@given(st.binary(max_size=2000))
def test_any_bytes_give_rows_or_problems(data: bytes) -> None:
    what = inventory(data)
    for row in contents(what, whole, threads=1):
        assert row.result is None or len(row.result) == row.size
    assert all(isinstance(problem.error, ForensicsError) for problem in what.problems.rows)


LAYER = (
    TarMaker("pax").file("ä" * 60, b"1" * 700).gnu_sparse("s", [(0, 3), (4096, 3)], 5000, b"abcdef").hardlink("h", "s")
).end()


@given(st.integers(0, len(LAYER) - 1), st.binary(min_size=1, max_size=8), st.sampled_from(["none", "gzip"]))
def test_any_damage_gives_rows_or_problems(offset: int, data: bytes, compression: str) -> None:
    stored = compressed(LAYER, compression)
    offset %= len(stored)
    what = inventory(stored[:offset] + data + stored[offset + len(data) :])
    for row in contents(what, whole, threads=1, in_memory=600):
        assert row.result is None or len(row.result) == row.size
