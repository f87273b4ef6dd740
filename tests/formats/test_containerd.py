"""containerd's databases, against what ``ctr`` said and value by value."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forensics_lib.errors import DamagedData, ForensicsError
from forensics_lib.formats.bbolt import Bolt
from forensics_lib.formats.containerd import load, signed_varint, time_ns, unsigned_varint
from forensics_lib.formats.containerd_meta import Namespace, read_namespaces
from forensics_lib.formats.containerd_snapshots import Snapshot, SnapshotKind, read_snapshots
from forensics_lib.formats.jsondoc import format_time
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.sources.base import BytesSource
from tests.engines.docker.dataroot import CONTAINERD, NO_EVIDENCE, Buckets, bolt, message
from tests.samples import DOCKER_CONTAINERD, archive_tree

ORIGIN = Origin("meta.db")
STORE = "/var/lib/containerd"
TIME = bytes.fromhex("010000000ee293b7c23548abc2ffff")  # of a real database


def opened(buckets: Buckets, problems: ProblemLog | None = None) -> Bolt:
    return Bolt(BytesSource(bolt(buckets), ORIGIN), problems)


def namespaces(buckets: Buckets, problems: ProblemLog | None = None) -> dict[str, Namespace]:
    return read_namespaces(opened(buckets).root, ORIGIN, problems or ProblemLog(strict=True))


def snapshots(buckets: Buckets, problems: ProblemLog | None = None) -> dict[str, Snapshot]:
    return read_snapshots(opened(buckets).root, ORIGIN, problems or ProblemLog(strict=True))


# Values --------------------------------------------------------------------------------------------------------------


def test_a_time() -> None:
    assert format_time(time_ns(TIME)) == "2026-11-21T16:03:14.89395501Z"
    assert time_ns(b"\1" + bytes(12) + b"\xff\xff") is None
    assert time_ns(b"\2" + TIME[1:] + b"\0") == time_ns(TIME)


@given(st.integers(-62135500000, 253402300799), st.integers(0, 10**9 - 1))
def test_every_time(whole: int, nanoseconds: int) -> None:
    data = struct.pack(">Bqih", 1, whole + 62135596800, nanoseconds, -1)
    assert time_ns(data) == whole * 10**9 + nanoseconds


@pytest.mark.parametrize("data", [b"", b"\1", TIME[:-1], TIME + b"\0", b"\3" + TIME[1:], b"\1" + b"\xff" * 14])
def test_no_time(data: bytes) -> None:
    with pytest.raises(DamagedData, match="no time"):
        time_ns(data)


def varint(value: int) -> bytes:
    data = b""
    while value > 0x7F:
        data += bytes([value & 0x7F | 0x80])
        value >>= 7
    return data + bytes([value])


@given(st.integers(0, (1 << 64) - 1))
def test_numbers(value: int) -> None:
    data = varint(value)
    assert unsigned_varint(data) == value
    assert signed_varint(data) == (value // 2 if value % 2 == 0 else -(value // 2) - 1)
    for damaged in (data[:-1], data + b"\0"):
        with pytest.raises(DamagedData):
            unsigned_varint(damaged)


def test_numbers_are_no_longer_than_64_bits() -> None:
    for data in (b"\xff" * 9 + b"\2", b"\x80" * 20):
        with pytest.raises(DamagedData, match="no number"):
            unsigned_varint(data)


@given(st.binary(max_size=20))
def test_any_bytes_are_a_value_or_damage(data: bytes) -> None:
    for decode in (time_ns, unsigned_varint, signed_varint):
        try:
            assert decode(data) is None or isinstance(decode(data), int)
        except DamagedData as error:
            assert str(error).startswith("no ")  # noqa: PT017


def test_a_bucket_with_all_that_is_in_it() -> None:
    database = opened({"a": {"b": {"key": b"value"}, "empty": {}}, "other": {}})
    folder = load(database.root, ORIGIN, ProblemLog(strict=True))
    assert folder.folder(b"a", b"b").text(b"key") == "value"
    assert folder.folder(b"a", b"nowhere", b"b").text(b"key") == ""
    assert dict(folder.folder(b"a").named()).keys() == {"b", "empty"}


# Records -------------------------------------------------------------------------------------------------------------


def test_all_kinds_of_records() -> None:
    target: Buckets = {"digest": b"sha256:aa", "mediatype": b"application/x", "size": varint(2 * 856)}
    spec = message((1, "types.containerd.io/opencontainers/runtime-spec/1/Spec"), (2, b'{"ociVersion":"1.2.0"}'))
    space = namespaces(
        {
            "v1": {
                "version": varint(8),
                "k8s.io": {
                    "labels": {"a": b"b"},
                    "images": {"docker.io/library/x:1": {"createdat": TIME, "updatedat": TIME, "target": target}},
                    "content": {
                        "blob": {"sha256:aa": {"size": varint(2 * 856), "labels": {"containerd.io/gc.root": b"1"}}},
                        "ingests": {"layer-sha256:bb": {"ref": b"k8s.io/4/layer-sha256:bb", "expected": b"sha256:bb"}},
                    },
                    "snapshots": {
                        "overlayfs": {
                            "c": {"name": b"k8s.io/3/c", "parent": b"sha256:cc", "children": {"d": b"", "e": b""}}
                        }
                    },
                    "containers": {
                        "c": {
                            "image": b"x", "snapshotter": b"overlayfs", "snapshotKey": b"c", "sandboxid": b"s",
                            "runtime": {"name": b"io.containerd.runc.v2"}, "spec": spec,
                            "extensions": {"io.cri": message((1, "type"), (2, b"{}"))},
                        }
                    },
                    "leases": {
                        "l": {
                            "createdat": TIME, "content": {"sha256:aa": b""}, "ingests": {"r": b""},
                            "snapshots": {"overlayfs": {"c": b""}},
                        }
                    },
                },
            }
        }
    )["k8s.io"]  # fmt: skip
    image = space.images["docker.io/library/x:1"]
    assert (image.digest, image.media_type, image.size) == ("sha256:aa", "application/x", 856)
    assert image.created_ns == image.updated_ns == time_ns(TIME)
    assert dict(space.labels) == {"a": "b"}
    assert (space.content["sha256:aa"].size, dict(space.content["sha256:aa"].labels)) == (
        856,
        {"containerd.io/gc.root": "1"},
    )
    assert space.ingests["layer-sha256:bb"].expected == "sha256:bb"
    snapshot = space.snapshots["overlayfs", "c"]
    assert (snapshot.name, snapshot.parent, snapshot.children) == ("k8s.io/3/c", "sha256:cc", ("d", "e"))
    container = space.containers["c"]
    assert (container.runtime, container.snapshot_key, container.sandbox_id) == ("io.containerd.runc.v2", "c", "s")
    assert json.loads(container.spec) == {"ociVersion": "1.2.0"}
    assert dict(container.extensions) == {"io.cri": ("type", b"{}")}
    assert set(space.leases["l"].resources) == {
        ("content", "sha256:aa"),
        ("ingests", "r"),
        ("snapshots/overlayfs", "c"),
    }


def test_ingests_of_the_first_releases() -> None:
    space = namespaces({"v1": {"moby": {"content": {"ingest": {"ref": {"ref": b"moby/1/ref"}}}}}})["moby"]
    assert space.ingests["ref"].name == "moby/1/ref"


def test_a_damaged_value_is_a_problem_and_the_rest_is_read() -> None:
    problems = ProblemLog()
    space = namespaces(
        {"v1": {"moby": {"images": {"x": {"createdat": b"?", "target": {"digest": b"d", "size": b"\x80"}}}}}}, problems
    )["moby"]
    assert (space.images["x"].digest, space.images["x"].size, space.images["x"].created_ns) == ("d", None, None)
    assert sorted(row.message[:9] for row in problems.rows) == ["createdat", "size: no "]


def test_snapshots() -> None:
    found = snapshots(
        {
            "v1": {
                "snapshots": {
                    "moby/2/sha256:aa": {
                        "id": varint(300), "kind": b"\3", "size": varint(2 * 4096), "inodes": varint(2),
                    },
                    "moby/3/a/b": {"id": b"\2", "kind": b"\2", "parent": b"moby/2/sha256:aa", "labels": {"k": b"v"}},
                    "odd": {"kind": b"\7"},
                },
                "parents": {},
            }
        }
    )  # fmt: skip
    base, active, odd = found["moby/2/sha256:aa"], found["moby/3/a/b"], found["odd"]
    assert (base.id, base.kind, base.size, base.inodes, base.parent) == (300, SnapshotKind.COMMITTED, 4096, 1, "")
    assert (active.namespace, active.number, active.key) == ("moby", 3, "a/b")
    assert (active.kind, active.parent, dict(active.labels)) == (SnapshotKind.ACTIVE, base.name, {"k": "v"})
    assert (odd.id, odd.kind, odd.namespace, odd.number, odd.key) == (None, SnapshotKind.UNKNOWN, "", 0, "odd")


# Real databases ------------------------------------------------------------------------------------------------------


def real(path: str) -> Bolt:
    with archive_tree(DOCKER_CONTAINERD) as tree:
        return Bolt(BytesSource(tree.read(f"{STORE}/{path}"), ORIGIN))


def test_a_real_metadata_database() -> None:
    spaces = read_namespaces(real("io.containerd.metadata.v1.bolt/meta.db").root, ORIGIN, ProblemLog(strict=True))
    assert {name: (len(one.images), len(one.content), len(one.snapshots)) for name, one in spaces.items()} == {
        "moby": (12, 79, 150), "moby_history": (0, 94, 0),
    }  # fmt: skip


@pytest.mark.skipif(not CONTAINERD.exists(), reason=NO_EVIDENCE)
def test_snapshots_are_those_that_ctr_listed() -> None:
    database = real("io.containerd.snapshotter.v1.overlayfs/metadata.db")
    found = {one.key: one for one in read_snapshots(database.root, ORIGIN, ProblemLog(strict=True)).values()}
    text = (CONTAINERD / "truth/5-stopped/ctr/moby-snapshots.jsonl").read_text()
    listed: list[dict[str, Any]] = [json.loads(line) for line in text.splitlines()]
    assert {one["Name"] for one in listed} == set(found)
    for row in listed:
        own = found[row["Name"]]
        parent = own.parent.split("/", 2)[-1]
        assert (str(own.kind).title(), parent) == (row["Kind"], row.get("Parent", ""))
        if row["mounts"]:
            assert f"/snapshots/{own.id}/fs" in row["mounts"] or own.kind is SnapshotKind.VIEW


@given(st.binary(max_size=400), st.integers(0, 5 * 4096))
def test_damage_is_a_problem_or_a_typed_error(noise: bytes, at: int) -> None:
    data = bytearray(bolt({"v1": {"moby": {"images": {"x": {"target": {"digest": b"d"}}}}, "snapshots": {"a": {}}}}))
    data[at : at + len(noise)] = noise
    try:
        root = Bolt(BytesSource(bytes(data), ORIGIN)).root
    except ForensicsError:
        return
    read_namespaces(root, ORIGIN, ProblemLog())
    read_snapshots(root, ORIGIN, ProblemLog())
