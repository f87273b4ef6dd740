"""Deleted records of the engines' databases; the databases are real ones of Docker and containerd."""

from __future__ import annotations

import json
import lzma
from pathlib import Path

from forensics_lib.model import ProblemLog
from forensics_lib.recovery.databases import copied_records, database_remnants
from forensics_lib.recovery.remnant import Confidence
from tests.engines.docker.dataroot import bolt, hexid
from tests.recovery.scene import data_root, remnant

FIXTURES = Path(__file__).parents[2] / "fixtures" / "bolt"
ROOT: dict[str, bytes | str | None] = {"image/overlay2/layerdb": None}
CONTAINERD = "containerd/daemon/io.containerd.metadata.v1.bolt/meta.db"


def fixture(name: str) -> bytes:
    return lzma.decompress((FIXTURES / f"{name}.db.xz").read_bytes())


def test_a_deleted_network(tmp_path: Path) -> None:
    docker = data_root(tmp_path, ROOT | {"network/files/local-kv.db": fixture("local-kv")})
    rows = list(database_remnants(docker))
    (row,) = [row for row in rows if row.kind == "network"]
    assert row.detail.startswith("deleted network c2net (")
    assert json.loads(row.read())["name"] == "c2net"
    assert (row.complete, row.confidence) == (True, Confidence.INTACT)
    assert row.path.endswith("network/files/local-kv.db")
    assert row.modified_ns is not None
    assert "bbolt page" in str(row.origin)
    live = {network.name for network in docker.networks}
    assert live
    assert "c2net" not in live


def test_a_deleted_volume(tmp_path: Path) -> None:
    docker = data_root(tmp_path, ROOT | {"volumes/metadata.db": fixture("volumes")})
    (row,) = database_remnants(docker)
    assert row.kind == "volume"
    assert row.detail.startswith("deleted volume ")
    assert json.loads(row.read())["Name"] in row.detail


def test_containers_of_containerd_by_their_specification(tmp_path: Path) -> None:
    docker = data_root(tmp_path, ROOT | {CONTAINERD: fixture("containerd")})
    rows = list(database_remnants(docker))
    specified = [row for row in rows if row.content is not None]
    assert specified
    for row in specified:
        assert json.loads(row.read())["ociVersion"]
        assert len(row.container_id) == 64
        assert row.detail.startswith("deleted runtime specification of a container: ")
    bare = [row for row in rows if row.content is None]
    assert all(row.confidence is Confidence.METADATA_ONLY for row in bare)
    assert not {row.container_id for row in bare if row.container_id} & {row.container_id for row in specified}


def test_an_older_version_of_a_live_record(tmp_path: Path) -> None:
    name = hexid("network")
    data = bytearray(bolt({"volumes": {"data": b'{"Name":"data","Driver":"local"}', name: b'{"Name":"n"}'}}))
    page = bytes(data[2 * 4096 : 3 * 4096]).replace(b'"local"', b'"other"')  # as a freed page
    freed = page[:8].replace(page[:8], (len(data) // 4096).to_bytes(8, "little")) + page[8:]
    docker = data_root(tmp_path, ROOT | {"volumes/metadata.db": bytes(data) + freed})
    (row,) = database_remnants(docker)
    assert row.detail.startswith("older version of volume data, driver other")


def test_an_older_copy_of_a_database(tmp_path: Path) -> None:
    docker = data_root(tmp_path, ROOT | {"volumes/metadata.db": bolt({"volumes": {"data": b'{"Name":"data"}'}})})
    gone, changed = b'{"Name":"gone","Driver":"local"}', b'{"Name":"data","Driver":"old"}'
    copy = remnant(bolt({"volumes": {"data": changed, "gone": gone}}), complete=False)
    problems = ProblemLog()
    rows = list(copied_records([copy, remnant(b"x" * 9000)], [docker], problems))
    assert [(row.kind, row.method, row.complete) for row in rows] == [("volume", "bbolt copy", False)] * 2
    assert [row.detail.partition(",")[0] for row in rows] == ["older version of volume data", "deleted volume gone"]
    assert problems.rows == []
    assert list(copied_records([remnant(bolt({"volumes": {"data": b'{"Name":"data"}'}}))], [docker], problems)) == []


def test_no_database_and_a_damaged_one(tmp_path: Path) -> None:
    docker = data_root(tmp_path, ROOT | {"volumes/metadata.db": b"x" * 5000, "buildkit/cache.db": b""})
    assert list(database_remnants(docker)) == []
    assert [problem.origin.label for problem in docker.reader.problems.rows] == ["volumes/metadata.db"]
