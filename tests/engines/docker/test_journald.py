from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

import forensics_lib as fl
from forensics_lib.engines.docker.journald import JournalLog
from forensics_lib.engines.docker.logs import container_logs
from forensics_lib.engines.journals import Journals
from forensics_lib.engines.logs import LogRecord
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.sources.decompress import Limits
from forensics_lib.trees.directory import DirectoryTree
from forensics_lib.trees.documents import DocumentReader
from tests.engines.docker.test_logs import local_line
from tests.formats.journals import HOST, exported, journal, row
from tests.samples import archive_tree

NAMES = ("plain", "long", "binary", "terminal", "many", "half", "other")
CONTAINER = "5f" * 32
BEFORE_23 = {"IMAGE_NAME", "CONTAINER_PARTIAL_ID", "CONTAINER_PARTIAL_LAST", "CONTAINER_PARTIAL_MESSAGE"}
BEFORE_23 |= {"CONTAINER_PARTIAL_ORDINAL"}


@pytest.fixture(scope="module")
def evidence() -> Iterator[fl.Evidence]:
    with fl.open(HOST) as ev:
        yield ev


@pytest.fixture(scope="module")
def truth() -> dict[str, bytes]:
    """What the daemon and journalctl said, by the name of the file."""
    with archive_tree(HOST) as tree:
        return {node.name: node.read() for node in tree.children("/truth")}


def shown(name: str, truth: dict[str, bytes]) -> Iterator[tuple[str, bytes, dict[str, str], bytes]]:
    """(stream, time, attributes, text) of what ``docker logs -t --details`` showed."""
    data = truth[f"{name}.raw"]
    has_terminal = json.loads(truth[f"{name}.json"])[0]["Config"]["Tty"]
    lines = []
    while data:
        if has_terminal:
            end = data.index(b"\n") + 1
            lines.append(("stdout", data[:end]))
        else:
            end = 8 + int.from_bytes(data[4:8], "big")
            lines.append(("stdout" if data[0] == 1 else "stderr", data[8:end]))
        data = data[end:]
    for stream, line in lines:
        time, details, text = line.split(b" ", 2)
        pairs = (pair.partition("=") for pair in details.decode().split(",") if pair)
        yield stream, time, {unquote(key): unquote(value) for key, _, value in pairs}, text


@pytest.mark.parametrize("name", NAMES)
def test_the_records_are_what_docker_showed(evidence: fl.Evidence, truth: dict[str, bytes], name: str) -> None:
    records, said = list(evidence.container(name).logs()), list(shown(name, truth))
    assert records
    assert [record.stream for record in records] == [stream for stream, _, _, _ in said]
    times = [f"{record.time:%Y-%m-%dT%H:%M:%S}.{record.time_ns % 10**9:09}Z".encode() for record in records]
    assert times == [time for _, time, _, _ in said]
    assert [record.line + b"\n" * (not record.partial) for record in records] == [text for _, _, _, text in said]
    wanted = [{key: value for key, value in attrs.items() if key not in BEFORE_23} for _, _, attrs, _ in said]
    assert [dict(record.attrs) for record in records] == wanted


def test_all_journals_together_are_what_journalctl_shows(evidence: fl.Evidence, truth: dict[str, bytes]) -> None:
    assert [row(entry) for entry in evidence.journal()] == exported(truth["export"])


def test_records_lie_in_the_rotated_the_unclean_and_the_present_file(evidence: fl.Evidence) -> None:
    records = list(evidence.container("many").logs())
    assert len(records) == 1200
    files = dict.fromkeys(record.file.label.rpartition("/")[2].partition("@")[0] for record in records)
    assert list(files) == ["system", "system.journal"]
    assert len({record.file for record in records}) == 3
    assert str(records[0].origin).endswith(f".journal > record @{records[0].offset}")


def test_what_is_said_of_the_journals(evidence: fl.Evidence) -> None:
    list(evidence.container("plain").logs())
    messages = [problem.message for problem in evidence.problems]
    assert "the journal was not closed (its state is online): its last entries may be missing" in messages
    assert any("2 empty lines of the journal are left out, as Docker before 23 does" in text for text in messages)


def test_the_journal_of_a_removed_container(evidence: fl.Evidence) -> None:
    assert [c.name for c in evidence.containers if c.name == "gone"] == []
    (entry,) = evidence.journal(CONTAINER_NAME="gone")
    assert entry.text("MESSAGE") == "removed, and still in the journal"
    assert entry.time is not None
    (container,) = evidence.deleted_containers
    assert (container.name, container.image, container.state) == ("gone", "lab/base:1", "unknown")
    note = "no record of it is left: only the journal tells of it, in 1 entry, the first of"
    assert container.state_note == f"{note} {entry.time:%Y-%m-%d %H:%M:%S} UTC"
    assert [record.text for record in container.logs()] == ["removed, and still in the journal"]
    assert container.inspect()["Name"] == "/gone"
    assert container.origin == entry.origin
    empty = evidence.journal(CONTAINER_NAME="plain", MESSAGE="")
    assert len(empty) == 2


def test_an_altered_line_fails_the_verification(tmp_path: Path) -> None:
    data = journal("wide-jenkins-plain")
    write(tmp_path, "var/log/journal/m/system.journal", data)
    write(tmp_path, "var/log/journal/m/system@1.journal", data.replace(b"MESSAGE=first", b"MESSAGE=Fifth"))
    with fl.open(tmp_path) as ev:
        checks = [(check.subject, check.ok) for check in ev.verify()]
    assert checks == [
        ("journal system.journal, hashes", True),
        ("journal system@1.journal, value MESSAGE hash", False),
        ("journal system@1.journal, entry hash", False),
        ("journal system@1.journal, hashes", False),
    ]


def reader(folder: Path, log: ProblemLog) -> DocumentReader:
    return DocumentReader(DirectoryTree(folder, log), log)


def write(folder: Path, name: str, data: bytes) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


def logs(folder: Path, driver: str = "journald", *, empty_lines: bool = True) -> tuple[list[LogRecord], list[str]]:
    log = ProblemLog()
    host = reader(folder, log)
    found = JournalLog(Journals([host]), CONTAINER, empty_lines)
    records = list(container_logs(host.tree, "/c", CONTAINER, driver, "", log, Limits(), found))
    return records, [problem.message for problem in log.rows]


def test_docker_28(tmp_path: Path) -> None:
    write(tmp_path, "var/log/journal/m/system.journal", journal("compact-keyed-zstd"))
    for empty_lines in (True, False):
        records, problems = logs(tmp_path, empty_lines=empty_lines)
        assert [record.line for record in records[:4]] == [
            b"first",
            b"on stderr",
            b"",
            b"\xff\xfe bytes \x00 and\nlines",
        ]
        assert [record.stream for record in records[:3]] == ["stdout", "stderr", "stdout"]
        assert [(len(record.line), record.partial) for record in records[4:6]] == [(16384, True), (20, False)]
        assert {record.attrs for record in records} == {(("COM_ACME_TEAM", "shop"),)}
        assert len(records) == 59
        assert problems == []


def test_a_journal_without_any_data_root_tells_of_containers(tmp_path: Path) -> None:
    write(tmp_path, "var/log/journal/m/system.journal", journal("compact-keyed-zstd"))
    write(tmp_path, "var/log/journal/m/system@1.journal~", journal("wide-keyed-lz4"))
    with fl.open(tmp_path) as ev:
        assert len(ev.containers) == 0
        (container,) = ev.deleted_containers
        assert (container.name, container.id, container.image) == ("shop", CONTAINER, "acme/shop:2")
        assert len(container.logs()) == 59
        assert list(ev.problems) == []


def test_an_entry_that_lies_in_two_files_comes_once(tmp_path: Path) -> None:
    write(tmp_path, "var/log/journal/m/system.journal", journal("compact-keyed-zstd"))
    write(tmp_path, "run/log/journal/m/system.journal", journal("wide-keyed-lz4"))
    write(tmp_path, "var/log/journal/m/system@x.journal~", journal("wide-jenkins-xz"))
    records, problems = logs(tmp_path)
    assert len(records) == 59
    assert problems == []


@pytest.mark.parametrize("place", ["log/journal", "journal", "run/log/journal", "var/log/journal"])
def test_where_journals_are_found(tmp_path: Path, place: str) -> None:
    write(tmp_path, f"{place}/system.journal", journal("compact-keyed-zstd"))
    assert len(logs(tmp_path)[0]) == 59


def test_the_reason_when_there_is_no_journal(tmp_path: Path) -> None:
    records, problems = logs(tmp_path)
    assert (records, problems) == (
        [],
        [f"container {CONTAINER}: its log went to the host's journal, which is not in this evidence"],
    )
    write(tmp_path, "var/log/journal/m/system.journal", journal("compact-keyed-zstd")[:300_000])
    _, problems = logs(tmp_path)
    assert problems[-1] == f"container {CONTAINER}: its log went to the host's journal, which has no line of it"
    assert logs(tmp_path, "fluentd")[1] == [f"container {CONTAINER}: its log driver fluentd keeps no log in its folder"]


def test_a_journal_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    write(tmp_path, "var/log/journal/m/system.journal", b"no journal at all")
    write(tmp_path, "var/log/journal/m/user-1000.journal", b"")
    records, problems = logs(tmp_path)
    assert records == []
    assert problems[0] == "is no journal: its signature is missing"


def test_the_log_of_the_folder_comes_before_the_journal(tmp_path: Path) -> None:
    write(tmp_path, "var/log/journal/m/system.journal", journal("compact-keyed-zstd"))
    write(tmp_path, "c/container-cached.log", local_line("cached"))
    records, problems = logs(tmp_path)
    assert [record.text for record in records] == ["cached"]
    assert problems == [f"container {CONTAINER}: the journal has its log as well; the one of its folder is read"]


def test_a_driver_that_is_not_known_is_looked_for_in_the_journal(tmp_path: Path) -> None:
    write(tmp_path, "var/log/journal/m/system.journal", journal("compact-keyed-zstd"))
    assert len(logs(tmp_path, "")[0]) == 59
    assert logs(tmp_path, "json-file") == ([], [])


def test_another_containers_lines_are_not_taken(tmp_path: Path) -> None:
    write(tmp_path, "var/log/journal/m/system.journal", journal("wide-jenkins-plain"))
    log = ProblemLog()
    records = list(JournalLog(Journals([reader(tmp_path, log)]), CONTAINER[:-1], True).records(Origin("c"), log))
    assert records == []
    assert log.rows == []
