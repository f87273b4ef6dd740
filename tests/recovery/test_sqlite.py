"""What Podman's and kine's SQLite databases still hold of deleted things."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

import forensics_lib as fl
from forensics_lib.model import ProblemLog
from forensics_lib.recovery.remnant import Confidence, Remnant
from forensics_lib.recovery.sqlite import copied_rows, journal_rows, sqlite_remnants
from forensics_lib.trees.directory import DirectoryTree
from tests.engines.docker.dataroot import hexid
from tests.recovery.scene import remnant

WEB, GONE, SHORT = hexid("web"), hexid("gone"), hexid("short-lived")
SCHEMA = """
CREATE TABLE ContainerConfig(ID TEXT PRIMARY KEY NOT NULL, Name TEXT UNIQUE NOT NULL, PodID TEXT, JSON TEXT NOT NULL,
  FOREIGN KEY (ID) REFERENCES IDNamespace(ID) DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE ContainerState(ID TEXT PRIMARY KEY NOT NULL, State INTEGER NOT NULL, ExitCode INTEGER, JSON TEXT NOT NULL,
  CHECK (ExitCode BETWEEN -1 AND 255));
CREATE TABLE ContainerExitCode(ID TEXT PRIMARY KEY NOT NULL, Timestamp INTEGER NOT NULL, ExitCode INTEGER NOT NULL);
CREATE TABLE VolumeConfig(Name TEXT PRIMARY KEY NOT NULL, StorageID TEXT, JSON TEXT NOT NULL);
"""
KINE = """
CREATE TABLE kine (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT, created INTEGER, deleted INTEGER,
  create_revision INTEGER, prev_revision INTEGER, lease INTEGER, value BLOB, old_value BLOB);
"""


def config(name: str) -> bytes:
    spec = {"ociVersion": "1.2.1", "process": {"args": ["sh", "-c", f"run {name}"]}}
    return json.dumps({"spec": spec, "name": name, "rootfsImageName": "localhost/web:1", "pad": "x" * 2000}).encode()


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A host with a database of Podman from which one container was removed, and one of kine."""
    storage = tmp_path / "var/lib/containers/storage"
    storage.mkdir(parents=True)
    with closing(sqlite3.connect(storage / "db.sql")) as base:
        base.execute("PRAGMA secure_delete=0")
        base.executescript(SCHEMA)
        for name in (WEB, GONE):
            base.execute("INSERT INTO ContainerConfig VALUES(?,?,?,?)", (name, f"name-{name[:4]}", None, config(name)))
            state = json.dumps({"startedTime": "2026-01-01T00:00:00Z", "finishedTime": "2026-01-02T00:00:00Z"})
            base.execute("INSERT INTO ContainerState VALUES(?,?,?,?)", (name, 3, 0, state.encode()))
        base.execute("INSERT INTO VolumeConfig VALUES(?,?,?)", ("loot", None, b'{"driver":"local","name":"loot"}'))
        base.execute("INSERT INTO VolumeConfig VALUES(?,?,?)", ("kept", None, b'{"driver":"local","name":"kept"}'))
        base.execute("INSERT INTO ContainerExitCode VALUES(?,?,?)", (SHORT, 1_795_280_856, 137))
        base.commit()
        base.execute("DELETE FROM ContainerConfig WHERE ID=?", (GONE,))
        base.execute("DELETE FROM ContainerState WHERE ID=?", (GONE,))
        base.execute("DELETE FROM VolumeConfig WHERE Name='loot'")
        base.commit()
    folder = tmp_path / "var/lib/rancher/k3s/server/db"
    folder.mkdir(parents=True)
    with closing(sqlite3.connect(folder / "state.db")) as base:
        base.executescript(KINE)
        rows = [
            ("/registry/pods/default/a", 1, 0, b"first"),
            ("/registry/pods/default/a", 0, 0, b"second"),
            ("/registry/pods/default/b", 1, 0, b"was here"),
            ("/registry/pods/default/b", 0, 1, b"was here"),
        ]
        for name, created, deleted, value in rows:
            base.execute("INSERT INTO kine VALUES(NULL,?,?,?,0,0,0,?,NULL)", (name, created, deleted, value))
        base.commit()
    return tmp_path


def remnants(host: Path) -> list[Remnant]:
    problems = ProblemLog(strict=True)
    return list(sqlite_remnants([DirectoryTree(host, problems)], problems))


def test_a_container_that_was_removed_from_podman(host: Path) -> None:
    (row,) = (one for one in remnants(host) if one.kind == "config")
    assert (row.container_id, row.complete, row.confidence) == (GONE, True, Confidence.INTACT)
    assert row.read() == config(GONE)
    assert row.detail.startswith(f"deleted container name-{GONE[:4]} of localhost/web:1: sh -c run {GONE}")
    assert row.path == "/var/lib/containers/storage/db.sql"
    assert row.method.startswith("SQLite free")
    states = [one.detail for one in remnants(host) if "state 3 of container" in one.detail]
    assert len(states) == 1
    assert "finished 2026-01-02T00:00:00Z" in states[0]


def test_a_volume_and_an_exit_code_that_outlived_its_container(host: Path) -> None:
    rows = remnants(host)
    assert [one.detail.partition(", page")[0] for one in rows if one.kind == "volume"] == [
        "deleted volume loot, driver local"
    ]
    (row,) = (one for one in rows if one.kind == "container")
    assert (row.container_id, row.complete) == (SHORT, False)
    assert (
        row.detail == f"container {SHORT[:12]} exited with 137 at 2026-11-21T17:07:36+00:00; the container was removed"
    )


def test_versions_of_keys(host: Path) -> None:
    rows = [one for one in remnants(host) if "key " in one.detail]
    assert [(one.detail.partition(", page")[0], one.read()) for one in rows] == [
        ("older version of key /registry/pods/default/a", b"first"),
        ("deleted key /registry/pods/default/b", b"was here"),
        ("deleted key /registry/pods/default/b", b"was here"),
    ]


def test_the_evidence_has_them_among_its_remnants(host: Path) -> None:
    with fl.open(host) as ev:
        assert {one.container_id for one in ev.remnants()} >= {GONE, SHORT}
        gone = {container.id: container for container in ev.deleted_containers}
        assert set(gone) == {GONE, SHORT}
        assert "exited with 137" in gone[SHORT].state_note


def test_an_older_copy_of_a_database(host: Path) -> None:
    older = host / "older.db"
    with closing(sqlite3.connect(older)) as base:
        base.executescript(SCHEMA)
        base.execute("INSERT INTO ContainerConfig VALUES(?,?,?,?)", (SHORT, "short", None, config("short")))
        base.commit()
    copies = [remnant(older.read_bytes()), remnant(b"SQLite format 3\0" + b"x" * 2000), remnant(b"x" * 2000)]
    problems = ProblemLog()
    (row,) = copied_rows(copies, [DirectoryTree(host, problems)], problems)
    assert (row.kind, row.container_id, row.read(), row.complete) == ("config", SHORT, config("short"), True)
    assert row.detail.startswith("only in an older copy of the database: container short")
    assert len(problems.rows) == 1
    current = host / "var/lib/containers/storage/db.sql"
    assert list(copied_rows([remnant(current.read_bytes())], [DirectoryTree(host, problems)], problems)) == []


def test_a_rollback_journal_tells_what_a_transaction_changed(host: Path) -> None:
    path = host / "var/lib/containers/storage/db.sql"
    with closing(sqlite3.connect(path)) as base:
        base.execute("PRAGMA secure_delete=1")
        base.execute("BEGIN")
        base.execute("DELETE FROM ContainerConfig WHERE ID=?", (WEB,))
        base.execute("DELETE FROM VolumeConfig WHERE Name='kept'")
        journal = path.with_name("db.sql-journal").read_bytes()  # which the commit deletes
        base.commit()
    problems = ProblemLog(strict=True)
    trees = [DirectoryTree(host, problems)]
    rows = list(journal_rows([remnant(journal, "/var/lib/containers/storage/db.sql-journal")], trees, problems))
    found = {one.detail.partition(",")[0].partition(":")[0]: one for one in rows if one.complete}
    assert found[f"deleted container name-{WEB[:4]} of localhost/web"].read() == config(WEB)
    assert found["deleted volume kept"].confidence is Confidence.VERIFIED
    assert {one.method for one in rows} == {"SQLite rollback journal"}
    place = "/var/lib/containers/storage/db.sql-journal"
    torn = bytearray(journal)
    torn[12] ^= 1  # of what the checksums begin with
    for broken in (bytes(torn), journal[:500], b"", b"x" * 9000):
        assert list(journal_rows([remnant(broken, place)], trees, problems)) == []


def test_what_is_no_database_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "db.sql").write_bytes(b"x" * 5000)
    problems = ProblemLog()
    assert list(sqlite_remnants([DirectoryTree(tmp_path, problems)], problems)) == []
    assert [problem.message for problem in problems.rows] == ["this is no SQLite database"]
