"""Volumes: folders with and without a record, records with and without a folder, and their time of creation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forensics_lib.engines.docker.root import DataRoot
from forensics_lib.engines.docker.version import Engine
from forensics_lib.engines.docker.volumes import decode_volumes, list_volumes
from forensics_lib.engines.volume import Volume
from forensics_lib.errors import PathNotFound, UnsupportedFormat
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.trees.documents import DocumentReader
from tests.engines.docker.dataroot import bolt, document, hexid
from tests.engines.docker.rootmaker import Made, RootMaker
from tests.trees.layers import folder, link, tree

SECOND = 10**9
V20, V23 = Engine(20, 10), Engine(23)
WRITTEN = 1_700_000_000 * SECOND


def listed(
    entries: Mapping[str, Made], records: Mapping[str, Any] | None = None, engine: Engine = V20
) -> tuple[dict[str, Volume], list[str]]:
    """The volumes of a root, and the problems."""
    problems = ProblemLog()
    reader = DocumentReader(tree("host", {f"/volumes/{name}": made for name, made in entries.items()}), problems)
    rows = [(name.encode(), document(value), Origin("metadata.db").to(name)) for name, value in (records or {}).items()]
    root = DataRoot("/", "test")
    volumes = list_volumes(reader, root, "/data/docker", decode_volumes(rows, reader), engine, WRITTEN)
    return {volume.name: volume for volume in volumes}, [row.message for row in problems.rows]


def record(name: str, driver: str = "local", **changes: Any) -> dict[str, Any]:
    return {"Name": name, "Driver": driver, "Labels": None, "Options": None} | changes


def test_everything() -> None:
    volumes, problems = listed(
        {"data/_data/file": b"1", "data/_data": folder(ctime_ns=WRITTEN + SECOND // 2)},
        {"data": record("data", Labels={"owner": "eve"}, Options={"type": "tmpfs", "device": "tmpfs"})},
    )
    volume = volumes["data"]
    assert volume.inspect() == {
        "CreatedAt": "2023-11-14T22:13:20Z", "Driver": "local", "Labels": {"owner": "eve"},
        "Mountpoint": "/data/docker/volumes/data/_data", "Name": "data",
        "Options": {"type": "tmpfs", "device": "tmpfs"}, "Scope": "local",
    }  # fmt: skip
    assert (volume.driver, volume.mountpoint, volume.anonymous) == ("local", "/data/docker/volumes/data/_data", False)
    assert volume.labels == (("owner", "eve"),)
    assert volume.options == (("type", "tmpfs"), ("device", "tmpfs"))
    assert volume.created_ns == WRITTEN + SECOND // 2
    assert volume.tree().read("/file") == b"1"
    assert str(volume.origin) == "metadata.db > data"
    assert problems == []


@pytest.mark.parametrize(
    ("name", "labels", "anonymous"),
    [
        (hexid("x"), None, True),
        ("data", {"com.docker.volume.anonymous": ""}, True),
        (hexid("x")[:63], None, False),
        ("data", {"owner": "eve"}, False),
    ],
)
def test_anonymous(name: str, labels: dict[str, str] | None, anonymous: bool) -> None:
    volumes, _ = listed({f"{name}/_data": folder()}, {name: record(name, Labels=labels)})
    assert volumes[name].anonymous is anonymous


@pytest.mark.parametrize(("engine", "seconds"), [(V20, 20), (V23, 23)])
def test_the_folder_that_tells_the_time_depends_on_the_version(engine: Engine, seconds: int) -> None:
    base = WRITTEN // SECOND * SECOND - 3600 * SECOND
    entries = {"data": folder(ctime_ns=base + 23 * SECOND), "data/_data": folder(ctime_ns=base + 20 * SECOND)}
    volumes, problems = listed(entries, {"data": record("data")}, engine)
    assert volumes["data"].created_ns == base + seconds * SECOND
    assert problems == []


def test_times_of_the_copy_are_not_those_of_the_volume() -> None:
    changed, copied = WRITTEN - 3600 * SECOND, WRITTEN + 3600 * SECOND
    names = ["one", "two"]
    entries = {f"{name}/_data": folder(ctime_ns=copied, mtime_ns=changed) for name in names}
    volumes, problems = listed(entries, {name: record(name) for name in names})
    assert {volume.created_ns for volume in volumes.values()} == {changed}
    assert len(problems) == 1  # once for all volumes
    assert "change times are those of the copy" in problems[0]


def test_no_times_no_creation() -> None:
    volumes, problems = listed({"data/_data": folder()}, {"data": record("data")})
    assert volumes["data"].created is None
    assert "CreatedAt" not in volumes["data"].inspect()
    assert problems == []


def test_a_folder_without_record() -> None:
    volumes, problems = listed({"data/_data/file": b"1"})
    assert volumes["data"].tree().read("/file") == b"1"
    assert volumes["data"].inspect()["Labels"] is None
    assert problems == ["volume data has a folder, but no record"]


@pytest.mark.parametrize("driver", ["local", ""])
def test_a_record_without_folder(driver: str) -> None:
    volumes, problems = listed({}, {"data": record("data", driver)})
    assert volumes == {}
    assert problems == ["volume data has a record, but no folder: it was removed or not copied"]


def test_a_volume_of_a_plugin_has_only_a_record() -> None:
    volumes, problems = listed({}, {"share": record("share", "vieux/sshfs")})
    assert (volumes["share"].driver, volumes["share"].mountpoint) == ("vieux/sshfs", "")
    with pytest.raises(UnsupportedFormat, match="vieux/sshfs"):
        volumes["share"].tree()
    assert problems == []


@pytest.mark.parametrize("entries", [{"junk/file": b"1"}, {"metadata.db": b""}, {"backingFsBlockDev": b""}])
def test_what_is_no_volume(entries: dict[str, Made]) -> None:
    assert listed(entries) == ({}, [])


def test_a_volume_with_options_that_was_never_mounted() -> None:
    volumes, _ = listed({"share/opts.json": document({"MountType": "nfs"})}, {"share": record("share")})
    with pytest.raises(PathNotFound):
        volumes["share"].tree()


def test_a_volume_that_is_a_link_to_the_examiners_disk(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "evil").write_bytes(b"1")
    root = RootMaker()
    root.container("web")
    root.put("volumes/data/_data", link(str(outside)))
    with root.opened(tmp_path) as ev, pytest.raises(PathNotFound):
        ev.volumes[0].tree().read("/evil")


def test_damaged_records_hide_no_volume() -> None:
    problems = ProblemLog()
    reader = DocumentReader(tree("host", {}), problems)
    rows = [
        (b"bad", b"{", Origin("db").to("bad")),
        (b"list", b"[]", Origin("db").to("list")),
        (b"unnamed", b"{}", Origin("db").to("unnamed")),
        (b"caf\xe9", document({"Driver": "x"}), Origin("db")),
    ]
    assert set(decode_volumes(rows, reader)) == {"unnamed", "caf\udce9"}
    assert [str(row.origin) for row in problems.rows] == ["db > bad", "db > list"]


def test_by_name_from_the_database(tmp_path: Path) -> None:
    root = RootMaker()
    root.container("web")
    names = ["web", "app", "db"]
    for name in names:
        root.put(f"volumes/{name}/_data/file", name)
    root.put("volumes/metadata.db", bolt({"volumes": {name: document(record(name)) for name in names}}))
    with root.opened(tmp_path, strict=True) as ev:
        assert [volume.name for volume in ev.volumes] == ["app", "db", "web"]
        assert [volume.tree().read("/file") for volume in ev.volumes] == [b"app", b"db", b"web"]
        assert {volume.mountpoint for volume in ev.volumes} >= {"/var/lib/docker/volumes/web/_data"}


VALUES = st.none() | st.integers() | st.text(max_size=4) | st.dictionaries(st.text(max_size=2), st.text(max_size=2))


@given(st.dictionaries(st.sampled_from(["Name", "Driver", "Labels", "Options"]), VALUES), st.integers() | st.none())
def test_any_record_is_a_volume(values: dict[str, Any], time: int | None) -> None:
    data = replace(folder(), ctime_ns=time)
    volumes, problems = listed({"data/_data": data}, {"data": values})
    assert volumes or problems
    for volume in volumes.values():
        assert volume.inspect()["Name"] == volume.name
