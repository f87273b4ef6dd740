"""The build cache, against databases made here and against what daemons said of theirs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import forensics_lib as fl
from forensics_lib.engines.docker.buildcache import BuildCacheRecord
from forensics_lib.formats.jsondoc import parse_time
from tests.engines.docker.dataroot import (
    CONTAINERD,
    GRAPHDRIVER,
    NO_EVIDENCE,
    Buckets,
    bolt,
    chain,
    digest,
    document,
    stores,
    values,
    write,
)

LAYER = digest("layer")
IMAGE = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [LAYER]}}
IMAGE_ID = digest(json.dumps(IMAGE))
STEP = "5n1cjdkfhtf0r5hr6nekkzqss"
MUTABLE = "9ycxx4nh2b2a2v9h41kyb9n5k"
TWIN = "0zqcpfaeyhnv4lqr5hsgy0abc"
CONTEXT = "lh1k5wqmjq3p4f0yk2ynyf5z7"
MADE = 1_795_281_047_192_057_758


def opened(tmp_path: Path, records: Buckets, snapshots: Buckets, **more: bytes | None) -> fl.Evidence:
    docker = "var/lib/docker"
    write(
        tmp_path,
        {
            **stores(docker),
            f"{docker}/image/overlay2/layerdb/sha256/{LAYER[7:]}/diff": LAYER.encode(),
            f"{docker}/image/overlay2/layerdb/sha256/{LAYER[7:]}/cache-id": STEP.encode(),
            f"{docker}/image/overlay2/imagedb/content/sha256/{IMAGE_ID[7:]}": document(IMAGE),
            f"{docker}/overlay2/{STEP}/diff": None,
            f"{docker}/overlay2/{MUTABLE}/diff": None,
            f"{docker}/buildkit/metadata_v2.db": bolt({"_main": records}),
            f"{docker}/buildkit/snapshots.db": bolt(snapshots),
            **{f"{docker}/{name}": content for name, content in more.items()},
        },
    )
    return fl.open(tmp_path)


def by_id(evidence: fl.Evidence) -> dict[str, BuildCacheRecord]:
    return {record.id: record for record in evidence.build_cache}


def step(**more: Any) -> dict[str, bytes]:
    return values(cache__description="[2/3] RUN make", cache__createdAt=MADE, snapshot__committed=True, **more)


def test_a_record_has_every_field_of_its_bucket(tmp_path: Path) -> None:
    fields = step(
        cache__lastUsedAt=MADE + 1,
        cache__usageCount=3,
        cache__recordType="frontend",
        cache__parent="parent",
        cache__imageRefs=["docker.io/library/alpine:3"],
        cache__diffID=LAYER,
        cache__chainID=chain(digest("base"), LAYER),
        cache__blobChainID=digest("blob"),
        cache__deleted=True,
        snapshot__size=7051,
    )
    with opened(tmp_path, {STEP: fields}, {}) as evidence:
        record = evidence.build_cache[0]
        assert (record.id, record.description, record.record_type) == (STEP, "[2/3] RUN make", "frontend")
        assert (record.created_ns, record.last_used_ns, record.usage_count) == (MADE, MADE + 1, 3)
        assert str(record.created) == "2026-11-21 17:10:47.192057+00:00"
        assert (record.parents, record.image_refs) == (("parent",), ("docker.io/library/alpine:3",))
        assert (record.diff_id, record.blob_chain_id) == (LAYER, digest("blob"))
        assert record.chain_id == chain(digest("base"), LAYER)
        assert (record.size, record.mutable, record.deleted, record.listed) == (7051, False, True, False)
        assert "metadata_v2.db > bbolt page" in str(record.origin)
        assert not evidence.problems


def test_what_is_not_recorded_is_neutral(tmp_path: Path) -> None:
    with opened(tmp_path, {STEP: {}}, {}) as evidence:
        record = evidence.build_cache[0]
    assert (record.description, record.record_type, record.created_ns, record.created) == ("", "regular", None, None)
    assert (record.usage_count, record.parents, record.size, record.snapshot) == (0, (), None, STEP)
    assert (record.mutable, record.deleted, record.listed, record.directory) == (True, False, True, "")


def test_parents_of_a_merge_and_of_a_difference(tmp_path: Path) -> None:
    merge = step(cache__mergeParents=["one", "two"])
    difference = step(cache__lowerDiffParent="low", cache__upperDiffParent="up")
    with opened(tmp_path, {"merge": merge, "difference": difference}, {}) as evidence:
        assert by_id(evidence)["merge"].parents == ("one", "two")
        assert by_id(evidence)["difference"].parents == ("low", "up")


@pytest.mark.parametrize(
    ("snapshot", "snapshots", "directory"),
    [
        (STEP, {STEP: {"parent": b""}}, STEP),
        ("committed", {"committed": {"committed": STEP.encode()}, STEP: {"iscommitted": b""}}, STEP),
        ("layer", {"layer": {"chainid": LAYER.encode(), "committed": b"gone"}}, STEP),
        (LAYER, {LAYER: {}}, STEP),
        (LAYER, {}, STEP),
        ("gone", {"gone": {"committed": b"also-gone"}}, ""),
        ("climbs", {"climbs": {"committed": b"../../../containers"}}, ""),
        ("unknown", {}, ""),
    ],
)
def test_the_directory_is_found_by_way_of_the_snapshot(
    tmp_path: Path, snapshot: str, snapshots: Buckets, directory: str
) -> None:
    with opened(tmp_path, {"record": step(cache__snapshot=snapshot)}, snapshots) as evidence:
        found = evidence.build_cache[0].directory
    assert found == (f"/var/lib/docker/overlay2/{directory}" if directory else "")


def test_two_records_of_the_same_files(tmp_path: Path) -> None:
    records = {
        MUTABLE: values(local__sharedKey="context:context:ctx:2ca3004daa7d4781"),
        TWIN: step(cache__equalMutable=MUTABLE, snapshot__size=28),
        "lost": step(cache__equalMutable="not-there"),
    }
    with opened(tmp_path, records, {MUTABLE: {"parent": b""}}) as evidence:
        found = by_id(evidence)
    assert [(found[name].equal_mutable, found[name].listed) for name in records] == [
        ("", True),
        (MUTABLE, False),
        ("", True),
    ]
    assert found[MUTABLE].directory == found[TWIN].directory == f"/var/lib/docker/overlay2/{MUTABLE}"
    assert found[MUTABLE].size == found[TWIN].size == 28
    assert found[MUTABLE].source == "context:context:ctx:2ca3004daa7d4781"
    assert found[MUTABLE].mutable


def test_layers_of_images_and_what_is_below_them_are_shared(tmp_path: Path) -> None:
    records = {
        "layer": step(cache__parent="below"),
        "below": step(cache__parent="layer"),  # a circle
        "other": step(),
    }
    with opened(tmp_path, records, {"layer": {"chainid": LAYER.encode()}}) as evidence:
        assert {name: record.shared for name, record in by_id(evidence).items()} == {
            "layer": True,
            "below": True,
            "other": False,
        }


def test_the_size_of_a_snapshot_stands_in(tmp_path: Path) -> None:
    records = {"a": step(snapshot__size=-1), "b": step(), "c": step()}
    snapshots = {"a": {"size": b"12"}, "b": {"size": b"twelve"}}
    with opened(tmp_path, records, snapshots) as evidence:
        assert {name: record.size for name, record in by_id(evidence).items()} == {"a": 12, "b": None, "c": None}


def test_old_and_containerd_databases(tmp_path: Path) -> None:
    docker = tmp_path / "var/lib/docker"
    with opened(tmp_path, {}, {}) as evidence:
        assert not evidence.build_cache
    (docker / "buildkit/metadata_v2.db").rename(docker / "buildkit/metadata.db")
    (docker / "buildkit/metadata.db").write_bytes(bolt({"_main": {"old": step()}}))
    write(
        docker,
        {
            "buildkit/containerd-overlayfs/metadata_v2.db": bolt({"_main": {"new": step()}}),
            "buildkit/containerd-overlayfs/metadata.db": bolt({"_main": {"unused": step()}}),
        },
    )
    with fl.open(tmp_path) as evidence:
        assert {name: record.shared for name, record in by_id(evidence).items()} == {"old": False, "new": None}


def test_damage_is_a_problem_and_the_rest_is_read(tmp_path: Path) -> None:
    records = {
        "bad": {"cache.description": b"{", "cache.usageCount": document({"value": 2})},
        "shapes": values(cache__description=[1], cache__usageCount="x", cache__createdAt=1 << 70, cache__parent={}),
        "bare": {"cache.description": document("text"), "cache.createdAt": b""},
    }
    with opened(tmp_path, records, {}) as evidence:
        found = by_id(evidence)
        assert (found["bad"].description, found["bad"].usage_count) == ("", 2)
        assert (found["shapes"].description, found["shapes"].created_ns, found["shapes"].parents) == ("", None, ())
        messages = [problem.message for problem in evidence.problems]
        assert len(messages) == 2
        assert all("JSON" in message for message in messages)


def test_no_database_is_no_problem_and_a_bad_one_is(tmp_path: Path) -> None:
    with opened(tmp_path, {}, {}) as evidence:
        assert not evidence.build_cache
        assert not evidence.problems
    (tmp_path / "var/lib/docker/buildkit/metadata_v2.db").write_bytes(b"no database")
    (tmp_path / "var/lib/docker/buildkit/snapshots.db").unlink()
    with fl.open(tmp_path) as evidence:
        assert not evidence.build_cache
        assert ["metadata_v2.db" in str(problem.origin) for problem in evidence.problems] == [True]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["cache.parent", "cache.equalMutable", "cache.snapshot", "snapshot.size", "cache.createdAt"]),
        st.one_of(st.binary(max_size=40), st.sampled_from(["a", "b", -1, 1e400, None, ["a"], {}]).map(document)),
    ),
    st.dictionaries(st.sampled_from(["chainid", "committed", "size", "parent"]), st.binary(max_size=40)),
)
def test_any_values_give_records(tmp_path: Path, record: dict[str, bytes], snapshot: dict[str, bytes]) -> None:
    folder = tmp_path / "var/lib/docker"
    if not folder.exists():
        opened(tmp_path, {}, {}).close()
    write(
        folder,
        {
            "buildkit/metadata_v2.db": bolt({"_main": {"a": record, "b": record}}),
            "buildkit/snapshots.db": bolt({"a": snapshot, "b": snapshot}),
        },
    )
    with fl.open(tmp_path) as evidence:
        assert sorted(row.id for row in evidence.build_cache) == ["a", "b"]


@pytest.mark.skipif(not GRAPHDRIVER.is_dir(), reason=NO_EVIDENCE)
@pytest.mark.parametrize("base", [GRAPHDRIVER, CONTAINERD], ids=["graphdriver", "containerd"])
@pytest.mark.parametrize("stage", ["2-after-deletion", "5-stopped"])
def test_the_records_are_those_that_the_daemon_listed(base: Path, stage: str) -> None:
    truth = base / "truth" / stage
    usage = json.loads((truth / "api-system-df.json").read_text())["BuildCacheUsage"]["Items"]
    text = (truth / "buildx-du.txt").read_text()
    mutable = {one[1]: one[2] == "true" for one in re.finditer(r"ID:\s+(\w+)\n(?:.*\n)*?Mutable:\s+(\w+)", text)}
    with fl.open(base / "evidence/clean/root.tar") as evidence:
        found = by_id(evidence)
        assert {record.id for record in found.values() if record.listed} == {item["ID"] for item in usage}
        for item in usage:
            record = found[item["ID"]]
            assert record.description == item["Description"]
            assert record.record_type == item["Type"]
            assert record.size == item["Size"]
            assert record.usage_count == item["UsageCount"]
            assert list(record.parents) == item.get(" Parents", [])
            assert record.created_ns == parse_time(item["CreatedAt"])[1]
            assert record.last_used_ns == parse_time(item["LastUsedAt"])[1]
            assert record.mutable == mutable[record.id]
            assert record.shared == (item["Shared"] if base == GRAPHDRIVER else None)
            assert bool(record.directory) == (base == GRAPHDRIVER)
        assert not evidence.problems.where(lambda problem: "buildkit" in str(problem.origin))
