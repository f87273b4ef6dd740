from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from forensics_lib.engines.docker.logs import container_logs
from forensics_lib.engines.logs import LogRecord
from forensics_lib.errors import DamagedData
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.sources.base import BytesSource, Source
from forensics_lib.sources.decompress import Limits
from forensics_lib.sources.file import FileSource
from forensics_lib.trees.archive import tar_tree
from forensics_lib.trees.base import Node, NodeKind
from forensics_lib.trees.directory import DirectoryTree
from forensics_lib.trees.index import IndexTree

ID = "5c" * 32
NAME = f"{ID}-json.log"
PLACE = f"/docker/containers/{ID}"
LOG_PATH = f"/var/lib/docker/containers/{ID}/{NAME}"


def json_line(text: str) -> bytes:
    members = {"log": f"{text}\n", "stream": "stdout", "time": "2026-11-21T16:17:10.5Z"}
    return json.dumps(members, separators=(",", ":")).encode() + b"\n"


def json_lines(*texts: str) -> bytes:
    return b"".join(map(json_line, texts))


def local_line(text: str) -> bytes:
    payload = b"\n\x06stderr\x10\x05\x1a" + bytes([len(text)]) + text.encode()
    length = len(payload).to_bytes(4, "big")
    return length + payload + length


def docker_gzip(data: bytes) -> bytes:
    """A member whose extra field is JSON and no RFC 1952 subfield, as Docker writes it."""
    extra = b'{"lastTime":"2026-11-21T16:17:10.242495336Z"}'
    head = b"\x1f\x8b\x08\x04" + bytes(4) + b"\x00\xff" + len(extra).to_bytes(2, "little") + extra
    deflated = zlib.compressobj(wbits=-15)
    tail = zlib.crc32(data).to_bytes(4, "little") + len(data).to_bytes(4, "little")
    return head + deflated.compress(data) + deflated.flush() + tail


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "evidence" / PLACE[1:]
    folder.mkdir(parents=True)
    return folder


def read(folder: Path, driver: str = "json-file", log_path: str = LOG_PATH) -> tuple[list[str], list[str]]:
    """The lines, and the problems without the steps above the container's folder."""
    records, problems = read_records(folder, driver, log_path)
    return [record.text for record in records], problems


def read_records(folder: Path, driver: str, log_path: str) -> tuple[list[LogRecord], list[str]]:
    log = ProblemLog()
    tree = DirectoryTree(folder.parents[2], log)
    records = list(container_logs(tree, PLACE, ID, driver, log_path, log, Limits()))
    return records, [f"{problem.origin} | {problem.message}".partition(ID)[2].lstrip("/") for problem in log.rows]


def test_rotated_files_come_first_the_highest_number_before_the_others(folder: Path) -> None:
    (folder / NAME).write_bytes(json_lines("f", "g"))
    (folder / f"{NAME}.1").write_bytes(json_lines("e"))
    (folder / f"{NAME}.2.gz").write_bytes(docker_gzip(json_lines("c", "d")))
    for number in range(3, 11):
        (folder / f"{NAME}.{number}.gz").write_bytes(gzip.compress(json_lines(str(number))))
    (folder / "hostname").write_text("no log")
    assert read(folder) == (["10", *"9876543cdefg"], [])


@pytest.mark.parametrize("log_path", ["", LOG_PATH, "C:\\ProgramData\\docker\\x-json.log", "relative"])
@pytest.mark.parametrize("driver", ["json-file", ""])
def test_the_log_is_found_whatever_the_log_path(folder: Path, driver: str, log_path: str) -> None:
    (folder / NAME).write_bytes(json_lines("a"))
    assert read(folder, driver, log_path) == (["a"], [])


def test_the_origin_leads_to_the_record(folder: Path) -> None:
    (folder / NAME).write_bytes(json_lines("a", "b"))
    (folder / f"{NAME}.1.gz").write_bytes(docker_gzip(json_lines("y", "z")))
    records, _ = read_records(folder, "json-file", "")
    offset = len(json_line("a"))
    assert [str(record.origin) for record in records if record.offset] == [
        f"evidence > {PLACE[1:]}/{NAME}.1.gz > gzip > record @{offset}",
        f"evidence > {PLACE[1:]}/{NAME} > record @{offset}",
    ]


def test_no_log_at_all(folder: Path) -> None:
    assert read(folder, "none", "") == ([], [])
    folder.rmdir()
    assert read(folder) == ([], [])


def test_the_local_driver(folder: Path) -> None:
    (folder / "local-logs").mkdir()
    (folder / "local-logs" / "container.log").write_bytes(local_line("c") + local_line("d"))
    (folder / "local-logs" / "container.log.1.gz").write_bytes(docker_gzip(local_line("b")))
    (folder / "local-logs" / "container.log.2").write_bytes(local_line("a"))
    assert read(folder, "local", "") == ([*"abcd"], [])


def test_the_cache_of_a_driver_that_cannot_be_read_back(folder: Path) -> None:
    (folder / "container-cached.log").write_bytes(local_line("b"))
    (folder / "container-cached.log.1.gz").write_bytes(docker_gzip(local_line("a")))
    assert read(folder, "fluentd", "") == ([*"ab"], [])


def test_logs_of_other_drivers_follow_and_are_told(folder: Path) -> None:
    (folder / NAME).write_bytes(json_lines("other"))
    (folder / "container-cached.log").write_bytes(b"")
    (folder / "local-logs").mkdir()
    (folder / "local-logs" / "container.log").write_bytes(local_line("own"))
    lines, problems = read(folder, "local", "")
    assert lines == ["own", "other"]
    assert problems == [f"{NAME} | log of another driver than local, which the container is configured for"]


def test_of_a_log_and_its_half_made_compressed_copy_the_log_counts(folder: Path) -> None:
    (folder / NAME).write_bytes(json_lines("c"))
    (folder / f"{NAME}.1").write_bytes(json_lines("a", "b"))
    (folder / f"{NAME}.1.gz").write_bytes(docker_gzip(json_lines("a", "b"))[:70])
    lines, problems = read(folder)
    assert lines == [*"abc"]
    assert problems == [
        f"{NAME}.1.gz | left out: the same log lies beside it uncompressed, as when compression was interrupted"
    ]


def test_a_cut_gzip_gives_what_is_left_of_it(folder: Path) -> None:
    texts = [os.urandom(40).hex() for _ in range(2000)]
    (folder / f"{NAME}.1.gz").write_bytes(docker_gzip(json_lines(*texts))[:60_000])
    (folder / NAME).write_bytes(json_lines("last"))
    lines, problems = read(folder)
    assert 500 < len(lines) < 2000
    assert lines == [*texts[: len(lines) - 1], "last"]
    assert problems[0].startswith(f"{NAME}.1.gz | gzip stream is cut off: ")
    assert [f"{NAME}.1.gz > gzip > record @" in problem for problem in problems[1:]] == [True] * len(problems[1:])


def test_the_content_tells_whether_a_file_is_compressed(folder: Path) -> None:
    (folder / f"{NAME}.2.gz").write_bytes(json_lines("a"))
    (folder / f"{NAME}.1").write_bytes(docker_gzip(json_lines("b")))
    (folder / NAME).write_bytes(b"")
    lines, problems = read(folder)
    assert lines == ["a", "b"]
    assert problems == [f"{NAME}.2.gz | is named .gz but is not compressed; read as it is"]


def test_damage_in_one_file_does_not_end_the_reading(folder: Path) -> None:
    (folder / f"{NAME}.1").write_bytes(json_lines("a") + b'{"log":"torn')
    (folder / NAME).write_bytes(bytes(512) + json_lines("b") + b'{"log":"to' + json_lines("c"))
    lines, problems = read(folder)
    assert lines == [*"abc"]
    start = len(json_line("a"))
    assert problems == [
        f'{NAME}.1 > record @{start} | 12 bytes are no complete record: b\'{{"log":"torn\'',
        f"{NAME} > record @0 | 512 NUL bytes where a record should be, as a power loss leaves them",
        f'{NAME} > record @{512 + start} | 10 bytes are no complete record: b\'{{"log":"to\'',
    ]


def test_a_gap_in_the_rotation_is_told(folder: Path) -> None:
    (folder / f"{NAME}.1").write_bytes(json_lines("b"))
    (folder / f"{NAME}.999999999").write_bytes(json_lines("a"))
    lines, problems = read(folder)
    assert lines == ["a", "b"]
    assert problems == [
        f"{NAME} | is missing, though rotation left older files",
        f"{NAME}.2 | is missing, though rotation left older files",
    ]


def test_names_that_docker_does_not_give_are_told(folder: Path) -> None:
    (folder / NAME).write_bytes(json_lines("a"))
    for suffix in (".bak", ".0", ".01", ".1.gz.tmp", ".1234567890", "2", ".²"):
        (folder / f"{NAME}{suffix}").write_bytes(json_lines("b"))
    lines, problems = read(folder)
    assert lines == ["a"]
    assert len(problems) == 7
    assert all("has no name that Docker gives a log; not read" in problem for problem in problems)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no FIFOs")
def test_a_fifo_is_never_opened(folder: Path) -> None:
    os.mkfifo(folder / NAME)
    (folder / f"{NAME}.1").write_bytes(json_lines("a"))
    (folder / f"{NAME}.2").mkdir()
    lines, problems = read(folder)
    assert lines == ["a"]
    assert problems == [
        f"{NAME} | stands in the place of a log but is a fifo; not opened",
        f"{NAME}.2 | stands in the place of a log but is a dir; not opened",
    ]


def test_links_are_followed_inside_the_evidence_only(folder: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.log"
    secret.write_bytes(json_lines("of the examiner"))
    moved = folder.parents[2] / "srv" / "moved.log"
    moved.parent.mkdir()
    moved.write_bytes(json_lines("moved"))
    (folder / NAME).symlink_to("/srv/moved.log")
    (folder / f"{NAME}.1").symlink_to(secret)
    (folder / f"{NAME}.2").symlink_to(f"{NAME}.2")
    lines, problems = read(folder)
    assert lines == ["moved"]
    assert [problem.partition(" leads to no file")[0] for problem in problems] == [
        f"{NAME}.1 | link to {secret}",
        f"{NAME}.2 | link to {NAME}.2",
    ]


def test_a_log_path_elsewhere_is_read_in_the_evidence(folder: Path, tmp_path: Path) -> None:
    elsewhere = folder.parents[2] / "srv" / "logs"
    elsewhere.mkdir(parents=True)
    (elsewhere / "web.log").write_bytes(json_lines("b"))
    (elsewhere / "web.log.1.gz").write_bytes(docker_gzip(json_lines("a")))
    assert read(folder, log_path="/srv/logs/web.log") == (["a", "b"], [])
    (tmp_path / "secret.log").write_bytes(json_lines("of the examiner"))
    for path in (f"{tmp_path}/secret.log", "/../secret.log", "/srv/logs/none.log", "/srv/logs", "/srv/..", "/"):
        lines, problems = read(folder, log_path=path)
        assert lines == []
        assert len(problems) == 1
        assert problems[0].startswith(f" | LogPath {path} leads to no log in this evidence: ")


def test_a_log_path_that_leads_to_the_folder_in_another_way_is_not_read_twice(folder: Path) -> None:
    (folder / NAME).write_bytes(json_lines("a"))
    (folder.parents[2] / "link").symlink_to("docker/containers")
    (folder.parents[2] / "here").symlink_to(PLACE)
    assert read(folder, log_path=f"/here/{NAME}") == (["a"], [])


def test_an_id_from_hostile_evidence_leads_nowhere(folder: Path) -> None:
    (folder.parent / "x-json.log").write_bytes(json_lines("a"))
    tree = DirectoryTree(folder.parents[2], ProblemLog(strict=True))
    found = container_logs(tree, PLACE, "../x", "json-file", "", ProblemLog(strict=True), Limits())
    assert list(found) == []


def test_filters_apply(folder: Path) -> None:
    (folder / NAME).write_bytes(json_lines("error 1", "fine", "error 2"))
    tree = DirectoryTree(folder.parents[2], ProblemLog())
    moment = datetime(2026, 11, 21, 16, 17, 10, 500_000, UTC)
    found = container_logs(
        tree, PLACE, ID, "json-file", "", ProblemLog(), Limits(), pattern="error", since=moment, until=moment
    )
    assert [record.text for record in found] == ["error 1", "error 2"]


def test_a_strict_log_of_problems_ends_the_reading(folder: Path) -> None:
    (folder / NAME).write_bytes(json_lines("a") + b"junk\n" + json_lines("b"))
    problems = ProblemLog(strict=True)
    tree = DirectoryTree(folder.parents[2], problems)
    found = container_logs(tree, PLACE, ID, "json-file", "", problems, Limits())
    assert next(found).text == "a"
    with pytest.raises(DamagedData, match="no complete record"):
        next(found)


@dataclass(frozen=True)
class Stored:
    """Content as an archive holds it that is cut in the middle of the file, or nothing at all."""

    data: bytes | None
    declared: int

    def source(self) -> Source:
        if self.data is None:
            raise DamagedData("nothing to read")
        return BytesSource(self.data, Origin("archive")).slice(0, self.declared, "content")


@pytest.mark.parametrize("kept", [0, 5, 100, 1000, 262_143, 262_144, 262_150, 300_000])
def test_a_file_that_is_cut_off_is_read_to_its_last_byte(kept: int) -> None:
    texts = [f"{number:06}" for number in range(6000)]
    whole = json_lines(*texts)
    tree, problems = IndexTree(Origin("root.tar")), ProblemLog()
    path, content = f"{PLACE}/{NAME}", Stored(whole[:kept], len(whole))
    tree.put(Node(path, NodeKind.FILE, 0o640, 0, 0, len(whole), None, Origin("root.tar").to(NAME), content=content))
    found = [record.text for record in container_logs(tree, PLACE, ID, "json-file", "", problems, Limits())]
    # the last record is whole without its newline
    assert found == texts[: (kept + 1) // len(json_line("000000"))]
    assert f"{len(whole)} bytes are declared, only {kept} are there" in [problem.message for problem in problems.rows]


def test_a_file_without_content_does_not_end_the_reading() -> None:
    tree, problems = IndexTree(Origin("root.tar")), ProblemLog()
    for name, content in ((f"{NAME}.1", Stored(None, 9)), (NAME, Stored(json_line("a"), len(json_line("a"))))):
        tree.put(Node(f"{PLACE}/{name}", NodeKind.FILE, 0, 0, 0, 9, None, Origin(name), content=content))
    found = container_logs(tree, PLACE, ID, "json-file", "", problems, Limits())
    assert [record.text for record in found] == ["a"]
    assert [problem.message for problem in problems.rows] == ["nothing to read"]


# What live daemons answered to `docker logs --timestamps`, against the data roots that were copied afterwards.

EVIDENCE = Path(os.environ.get("FORENSICS_EVIDENCE", "nowhere"))
CASES = (
    ("docker-small/small-ext4-overlay2", "clean/var-lib-docker.tar", "5-stopped", 15),
    ("docker-small/small-ext4-overlay2", "crash/var-lib-docker.tar", "3-at-crash", 15),
    ("docker-vfs/vfs", "clean/var-lib-docker.tar", "5-stopped", 14),
    ("docker29-graphdriver/modern-graphdriver-nocrash", "clean/root.tar", "5-stopped", 16),
    ("docker29-containerd-store/modern-containerd-store-nocrash", "clean/root.tar", "5-stopped", 16),
)


def shown(records: Iterator[LogRecord]) -> dict[str, bytes]:
    streams = {"stdout": bytearray(), "stderr": bytearray()}
    for record in records:
        seconds, fraction = divmod(record.time_ns, 10**9)
        moment = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        streams[record.stream] += f"{moment}.{fraction:09d}Z ".encode() + record.line + b"\n" * (not record.partial)
    return {name: bytes(text) for name, text in streams.items()}


@pytest.mark.parametrize(("base", "archive", "stage", "with_text"), CASES)
def test_logs_equal_what_the_daemon_showed(base: str, archive: str, stage: str, with_text: int) -> None:
    evidence, truth = EVIDENCE / base / "evidence" / archive, EVIDENCE / base / "truth" / stage / "logs"
    if not evidence.is_file():
        pytest.skip("FORENSICS_EVIDENCE names no folder with this evidence")
    problems = ProblemLog()
    with closing(FileSource(evidence)) as source:
        tree = tar_tree(source, problems, Limits())
        containers = next(node.path for node in tree.walk() if node.path.endswith("docker/containers"))
        compared = 0
        for folder in tree.children(containers):
            config = json.loads(tree.read(f"{folder.path}/config.v2.json"))
            driver = json.loads(tree.read(f"{folder.path}/hostconfig.json"))["LogConfig"]["Type"]
            found = container_logs(
                tree, folder.path, config["ID"], driver, config["LogPath"], ProblemLog(strict=True), Limits()
            )
            for stream, text in shown(found).items():
                if driver != "none":  # the daemon answers with an error
                    expected = (truth / f"{config['ID']}.{stream}").read_bytes()
                    assert text == expected
                    compared += bool(expected)
    assert compared == with_text
