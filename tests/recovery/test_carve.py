"""Carving: documents at block starts, logs as records, short texts, gzip files; no error, whatever lies there."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import random
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forensics_lib.model import Origin, ProblemLog
from forensics_lib.recovery.carve import carve
from forensics_lib.recovery.free import FreeSpace
from forensics_lib.recovery.remnant import Confidence, Remnant
from forensics_lib.sources.base import BytesSource, Source
from tests.engines.docker.dataroot import digest, hexid, message
from tests.recovery.scene import BLOCK, at, config, disk, encoded, host_config, line, nanoseconds
from tests.tarmaker import TarMaker

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

FIXTURES = Path(__file__).parents[2] / "fixtures" / "bolt"

WEB, DB = hexid("web"), hexid("db")
RANDOM = random.Random(1).randbytes(BLOCK)


def found(data: bytes, free: list[tuple[int, int]] | None = None, known: frozenset[str] = frozenset()) -> list[Remnant]:
    problems = ProblemLog(strict=True)
    source = BytesSource(data, Origin("disk"))
    return list(carve(FreeSpace(source, free or [(0, len(data))], BLOCK), problems, known=known))


def local(text: bytes, second: float, stream: str = "stdout") -> bytes:
    """A record of the driver local."""
    entry = message((1, stream), (2, nanoseconds(second)), (3, text))
    length = len(entry).to_bytes(4, "big")
    return length + entry + length


def test_the_record_of_a_container() -> None:
    record = encoded(config(WEB, "web", 1, Running=True, Pid=437, StartedAt=at(2)))
    (row,) = found(disk(RANDOM, record, RANDOM))
    assert row.read() == record
    assert (row.kind, row.container_id, row.path) == ("config", WEB, f"containers/{WEB}/config.v2.json")
    assert row.image_id == f"sha256:{'1' * 64}"
    assert (row.complete, row.confidence, row.method) == (True, Confidence.CARVED, "carving")
    assert row.origin.offset == BLOCK
    assert row.modified_ns == nanoseconds(2)
    assert "running as process 437" in row.detail


def test_settings_before_a_record_are_its_containers() -> None:
    settings_, record = encoded(host_config()), encoded(config(WEB, "web", 1))
    alone = encoded(host_config(Privileged=True))
    rows = found(disk(settings_, record, alone, RANDOM, encoded(config(DB, "db", 2))))
    assert [(row.path, row.container_id) for row in rows] == [
        (f"containers/{WEB}/hostconfig.json", WEB),
        (f"containers/{WEB}/config.v2.json", WEB),
        ("hostconfig.json", ""),
        (f"containers/{DB}/config.v2.json", DB),
    ]


def test_a_record_of_which_the_end_was_overwritten() -> None:
    record = encoded(config(WEB, "web", 1) | {"Labels": "x" * 2 * BLOCK})
    (row,) = found(disk(record[:BLOCK], RANDOM))
    assert (row.container_id, row.complete) == (WEB, False)


def test_a_record_whose_second_block_is_another_ones() -> None:
    pad = {"Labels": "x" * BLOCK}
    first, second = (encoded(config(name, "web", 1) | pad) for name in (WEB, DB))
    record = encoded({**config(WEB, "web", 1), **pad, "LogPath": f"/d/containers/{DB}/x"})
    (row,) = found(disk(record))
    assert (row.container_id, row.complete) == (WEB, False)
    assert "another container" in row.detail
    assert [row.complete for row in found(disk(first, RANDOM, second))] == [True, True]


def test_a_record_at_the_end_of_its_block_exactly() -> None:
    record = encoded(config(WEB, "web", 1) | {"Labels": ""})
    record = encoded(config(WEB, "web", 1) | {"Labels": "x" * (2 * BLOCK - len(record))})
    assert len(record) == 2 * BLOCK
    (row,) = found(record + RANDOM + bytes(BLOCK), [(0, 2 * BLOCK)])
    assert row.complete
    assert row.size == 2 * BLOCK


def test_only_free_space_is_searched() -> None:
    data = disk(encoded(config(WEB, "web", 1)), encoded(config(DB, "db", 2)))
    assert [row.container_id for row in found(data, [(BLOCK, BLOCK)])] == [DB]
    assert found(data, [(len(data), BLOCK), (-BLOCK, BLOCK)]) == []


def test_a_whole_log() -> None:
    log = line("one\n", 1) + line("two <b> \u00fc\n", 2, "stderr") + line("no newline", 3)
    (row,) = found(disk(RANDOM, log, RANDOM))
    assert row.read() == log
    assert (row.kind, row.complete, row.modified_ns) == ("log", True, nanoseconds(3))
    assert row.detail == "3 records of a log of the driver json-file"


def test_the_end_of_a_log_is_no_text() -> None:
    log = b"".join(line(f"line {number}\n", number) for number in range(40))
    rows = found(disk(bytes(BLOCK), log[BLOCK : 2 * BLOCK] + b"the end of another file\n"))
    assert [(row.kind, row.complete) for row in rows] == [("file", False), ("log", False)]
    assert "the end of a log" in rows[0].detail


def test_records_between_torn_ones() -> None:
    log = b"".join(line(f"line {number}\n", number) for number in range(40))
    start = 2 * BLOCK
    rows = found(RANDOM + log[start : start + BLOCK] + RANDOM)
    (row,) = rows
    assert not row.complete
    text = row.read()
    assert text.startswith(b'{"log":"line ')
    assert text.endswith(b"}\n")
    assert text in log
    assert text.count(b"\n") >= log[start : start + BLOCK].count(b"\n") - 1


def test_a_log_whose_end_may_lie_elsewhere_is_not_complete() -> None:
    log = b"".join(line("x" * 17 + "\n", 1) for _ in range(100))
    padded = log[: len(log) // BLOCK * BLOCK]
    (row,) = found(padded + RANDOM)
    assert not row.complete


def test_a_log_with_attributes_and_one_without_text() -> None:
    log = encoded({"log": "a\n", "stream": "stdout", "attrs": {"app": 'w"eb'}, "time": at(1)})
    log += encoded({"stream": "stderr", "time": at(2)})
    (row,) = found(disk(log))
    assert row.read() == log


def test_a_log_of_the_local_driver() -> None:
    log = local(b"one", 1) + local(b"\xff\0two", 2, "stderr")
    (row,) = found(disk(RANDOM, log, bytes(BLOCK)))
    assert row.read() == log
    assert (row.kind, row.complete, row.modified_ns) == ("log", True, nanoseconds(2))


def test_a_log_longer_than_a_window() -> None:
    log = b"".join(line(f"{number} {'x' * 16000}\n", number / 20) for number in range(600))
    (row,) = found(disk(RANDOM, log))
    assert row.size == len(log) > 9 << 20
    assert row.complete


def test_image_documents_are_verified_by_what_names_them() -> None:
    image = encoded({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}).strip()
    name = f"sha256:{hashlib.sha256(image).hexdigest()}"
    (row,) = found(disk(image))
    assert (row.kind, row.image_id, row.confidence) == ("image", name, Confidence.CARVED)
    assert found(disk(image), known=frozenset([name]))[0].confidence is Confidence.VERIFIED
    record = encoded(config(WEB, "web", 1) | {"Image": name})
    both = found(disk(image, record))
    assert [row.confidence for row in both] == [Confidence.CARVED, Confidence.VERIFIED]
    manifest = encoded({"schemaVersion": 2, "config": {"digest": name}, "layers": []})
    (row,) = found(disk(manifest))
    assert (row.image_id, row.path) == (name, f"blobs/sha256/{hashlib.sha256(manifest).hexdigest()}")


def test_a_runtime_specification_names_its_container() -> None:
    specification = {
        "ociVersion": "1.0.2",
        "process": {"args": ["sh", "-c", "id"]},
        "root": {"path": f"/var/lib/docker/overlay2/{hexid('layer')}/merged"},
        "linux": {"cgroupsPath": f"/docker/{WEB}"},
        "mounts": [{"source": f"/var/lib/docker/containers/{WEB}/hosts"}],
    }
    (row,) = found(disk(encoded(specification)))
    assert (row.kind, row.container_id) == ("record", WEB)
    assert row.detail == "runtime specification: sh -c id"


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (digest("layer").encode(), "record"),
        (hexid("directory").encode(), "record"),
        (hexid("directory").encode() + b"-init", "record"),
        (b'[{"Digest":"sha256:1","SourceRepository":"docker.io/library/alpine"}]', "record"),
        (b'{"Repositories":{"acme/web":{}}}', "record"),
        (b'{"some":"document"}', "file"),
        (b"#!/bin/sh\necho dropped\n", "file"),
    ],
)
def test_small_files(content: bytes, kind: str) -> None:
    (row,) = found(disk(bytes(BLOCK), content))
    assert (row.kind, row.read(), row.complete) == (kind, content, True)


def test_text_behind_a_block_that_does_not_end_with_zeros_has_no_known_start() -> None:
    assert found(disk(RANDOM[:-1] + b"x", b"the rest of a longer text\n")) == []


def test_a_gzip_file_is_proved_by_its_checksum() -> None:
    packed = gzip.compress(b'{"type":1,"entry":1}\n' * 500, mtime=0)
    (row,) = found(disk(RANDOM, packed, RANDOM))
    assert row.read() == packed
    assert (row.kind, row.confidence, row.complete) == ("layer", Confidence.VERIFIED, True)
    broken = bytearray(packed)
    broken[len(packed) // 2] ^= 1
    assert found(disk(RANDOM, bytes(broken), RANDOM)) == []


def test_progress_and_what_cannot_be_read() -> None:
    class Bad(BytesSource):
        def read_at(self, offset: int, length: int) -> bytes:
            from forensics_lib.errors import DamagedData

            if offset <= 3 * BLOCK + 7 < offset + length:
                raise DamagedData("bad sector", origin=self.origin, offset=offset)
            return super().read_at(offset, length)

    data = disk(encoded(config(DB, "db", 1)), RANDOM, RANDOM, encoded(config(WEB, "web", 1)))
    data = data[: 4 * BLOCK].ljust(4 << 20, b"\0") + data[3 * BLOCK :] + disk(line("x\n", 1))
    problems, steps = ProblemLog(), list[tuple[int, int]]()
    source: Source = Bad(data, Origin("disk"))
    rows = list(carve(FreeSpace(source, [(0, len(data))], BLOCK), problems, lambda *step: steps.append(step)))
    assert [(row.kind, row.container_id) for row in rows] == [("config", DB), ("config", WEB), ("log", "")]
    assert steps[-1] == (len(data), len(data))
    assert [row.message for row in problems.rows] == ["bad sector"]


def archive(*members: tuple[str, bytes]) -> bytes:
    """A tar archive as Go writes it: two zero blocks at its end."""
    tar = TarMaker("pax")
    for name, content in members:
        tar.file(name, content)
    return tar.end()


def test_a_tar_archive_is_one_finding() -> None:
    tar = archive(("etc/passwd", b"root:x:0:0\n"), ("var/loot.txt", b"text of a file\n" * 100))
    (row,) = found(disk(RANDOM, tar, RANDOM))
    assert (row.kind, row.complete, row.confidence) == ("layer", True, Confidence.CARVED)
    assert row.read() == tar
    assert row.detail == "tar archive of 2 members: etc/passwd, var/loot.txt"


def test_a_tar_archive_whose_last_file_ends_in_zeros_shows_no_end() -> None:
    (row,) = found(disk(RANDOM, archive(("a", b"text\n"), ("b", b"x" * 600 + bytes(2000))), bytes(4096)))
    assert not row.complete
    assert "its last file ends in zeros" in row.detail
    (row,) = found(disk(RANDOM, archive(("b", bytes(2000)), ("a", b"text\n")), RANDOM))
    assert row.complete


def test_a_tar_archive_whose_end_was_overwritten() -> None:
    tar = archive(("a", b"x" * 3000), ("b", b"y" * 3000))
    (row,) = found(disk(tar[: 4 * BLOCK], RANDOM))
    assert not row.complete
    assert row.detail.endswith("its end was overwritten")


def test_layers_are_verified_by_what_names_them() -> None:
    tar = archive(("etc/passwd", b"root\n"))
    name = f"sha256:{hashlib.sha256(tar).hexdigest()}"
    image = encoded({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [name]}}).strip()
    rows = found(disk(tar, bytes(20 * BLOCK), gzip.compress(tar, mtime=0), image))
    layers = [row for row in rows if row.kind == "layer"]
    assert [(row.confidence, "named elsewhere" in row.detail) for row in layers] == [(Confidence.VERIFIED, True)] * 2
    assert layers[0].read() == tar
    assert layers[0].path == f"blobs/{name.replace(':', '/')}"


@pytest.mark.parametrize("checksum", [True, False])
def test_a_zstd_file(checksum: bool) -> None:
    text = b'{"log":"x\\n","stream":"stdout"}\n' * 100
    packed = zstd.compress(text, options={zstd.CompressionParameter.checksum_flag: checksum})
    (row,) = found(disk(RANDOM, packed + packed, RANDOM))
    assert row.read() == packed + packed
    assert (row.kind, row.complete) == ("log", True)
    assert row.confidence is (Confidence.VERIFIED if checksum else Confidence.CARVED)
    assert found(disk(packed[:-1])) == []


def test_a_database_is_whole_when_its_pages_say_so() -> None:
    bolt = lzma.decompress((FIXTURES / "volumes.db.xz").read_bytes())
    (row,) = (one for one in found(disk(RANDOM, bolt, RANDOM)) if "bbolt" in one.detail)
    assert (row.kind, row.complete) == ("record", True)
    assert bolt.startswith(row.read())


def test_records_of_two_logs_that_meet_at_a_block_are_not_one_log() -> None:
    late = b"".join(line(f"late {number:05}\n", 40 + number / 100) for number in range(60))
    early = b"".join(line(f"early {number:05}\n", number / 100) for number in range(60))
    cut = 2 * BLOCK
    for first, second in ((late, early), (early, late)):
        rows = [row for row in found(first[:cut] + second[cut : 3 * BLOCK] + RANDOM) if row.kind == "log"]
        assert not any(row.complete for row in rows)
    rows = found(late[:cut] + early[cut : 3 * BLOCK] + RANDOM)
    assert len(rows) == 2  # time goes back, so that the record across the border is none of both
    assert all(row.read() in (late if b"late" in row.read() else early) for row in rows)


def test_nothing_but_zeros_is_said() -> None:
    problems = ProblemLog()
    assert list(carve(FreeSpace(BytesSource(bytes(9 << 20), Origin("disk")), [(0, 9 << 20)], BLOCK), problems)) == []
    assert ["only zeros" in row.message for row in problems.rows] == [True]


def test_cancelling_leaves_what_was_found() -> None:
    data = disk(encoded(config(WEB, "web", 1))) + bytes(8 << 20) + disk(encoded(config(DB, "db", 2)))
    rows: list[Remnant] = []

    def stop(done: int, total: int) -> None:
        if done < total:
            raise KeyboardInterrupt

    with suppress(KeyboardInterrupt):
        rows.extend(carve(FreeSpace(BytesSource(data, Origin("disk")), [(0, len(data))], BLOCK), ProblemLog(), stop))
    assert [row.container_id for row in rows] == [WEB]


PIECES = [
    b'{"log":"',
    b'\\"',
    b'","stream":"stdout","time":"',
    at(1).encode(),
    b'"}\n',
    b'{"StreamConfig":{},"State":{',
    b'"ID":"' + WEB.encode() + b'"',
    b"\0",
    b"\n\x06stdout",
    b"\0\0\0\x10",
    b"\x1f\x8b\x08\0\0\0\0\0\0\xff",
    b"}",
    b"{",
    b'"',
    b"sha256:",
    bytes(BLOCK),
    b"x" * 700,
    archive(("a", b"x" * 700)),
    archive(("b", b""))[:512],
    zstd.compress(b"{}" * 200),
    b"SQLite format 3\0\x04\0\x01\x01\0\x40\x20\x20\0\0\0\x01\0\0\0\x02" + bytes(60) + b"\0\0\0\x01" + bytes(8),
    bytes(16) + b"\xed\xda\x0c\xed\x02\0\0\0\0\x10\0\0",
    lzma.decompress((FIXTURES / "volumes.db.xz").read_bytes()),
]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(PIECES) | st.binary(max_size=40), max_size=60), st.integers(0, 3))
def test_any_bytes_give_remnants_that_can_be_read(pieces: list[bytes], skipped: int) -> None:
    data = b"".join(disk(piece) if len(piece) > 100 else piece for piece in pieces)
    data = disk(data)
    rows = found(data, [(skipped * BLOCK, len(data))])
    assert len(rows) <= len(data)
    for row in rows:
        assert row.size == len(row.read())
        assert row.origin.offset is not None
        assert data[row.origin.offset :][: row.size] == row.read()


def test_hostile_starts_stay_linear() -> None:
    block = (b'{"StreamConfig":"' + b"a" * BLOCK)[:BLOCK]
    rows = found(block * 4000)
    assert rows == []
    assert found(b'{"log":"' * 200_000) == []
