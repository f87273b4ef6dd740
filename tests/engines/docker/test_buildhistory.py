"""The builds that BuildKit remembers, against records made here and against what daemons listed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import forensics_lib as fl
from forensics_lib.engines.docker.buildhistory import BuildRecord, decode_build
from forensics_lib.formats.jsondoc import parse_time
from forensics_lib.model import Origin
from tests.engines.docker.dataroot import (
    CONTAINERD,
    GRAPHDRIVER,
    NO_EVIDENCE,
    bolt,
    digest,
    document,
    hexid,
    message,
    stores,
    write,
)

REF = "le21kyg1kurj1lr1s9ufgllbo"
BEGAN = 1_795_281_047_082_337_106


def pair(name: str, value: str) -> bytes:
    return message((1, name), (2, value))


def descriptor(of: str) -> bytes:
    return message((1, "application/vnd.oci.image.config.v1+json"), (2, digest(of)), (3, 9))


def time(nanoseconds: int) -> bytes:
    return message((1, nanoseconds // 10**9), (2, nanoseconds % 10**9))


FINISHED = message(
    (1, REF),
    (2, "dockerfile.v0"),
    (3, pair("filename", "Dockerfile")),
    (3, pair("build-arg:BUILD_TOKEN", "tok-LAB-12345")),
    (3, pair("build-arg:VERSION", "1.2")),
    (3, pair("target", "release")),
    (4, message((1, "image"), (2, pair("name", "acme/web:1.0,acme/web:latest")), (2, pair("push", "true")))),
    (4, message((1, "local"), (2, pair("dest", "out")))),
    (6, time(BEGAN)),
    (7, time(BEGAN + 2)),
    (8, descriptor("log")),
    (9, pair("containerimage.config", "{}")),
    (10, message((1, descriptor("old")), (2, descriptor("attested")), (3, message((1, 0), (2, descriptor("made")))))),
    (11, message((1, "linux/arm64"), (2, message((3, message((1, 0), (2, descriptor("arm")))))))),
    (13, descriptor("trace")),
    (14, 1),
    (15, 3),
    (16, 8),
    (17, 7),
    (19, 2),
)
FAILED = message((5, message((1, 2), (2, "exit code: 7"))), (6, time(BEGAN - 10**9)))


def decoded(data: bytes) -> BuildRecord:
    record, damage = decode_build(data, REF, Origin("history.db"))
    assert damage is None
    return record


def test_a_record_has_every_field() -> None:
    record = decoded(FINISHED)
    assert (record.ref, record.frontend, record.status, record.error) == (REF, "dockerfile.v0", "completed", "")
    assert (record.created_ns, record.completed_ns) == (BEGAN, BEGAN + 2)
    assert str(record.created) == "2026-11-21 17:10:47.082337+00:00"
    assert dict(record.attrs)["build-arg:BUILD_TOKEN"] == "tok-LAB-12345"
    assert record.build_args == (("BUILD_TOKEN", "tok-LAB-12345"), ("VERSION", "1.2"))
    assert [exporter.type for exporter in record.exporters] == ["image", "local"]
    assert record.images == ("acme/web:1.0", "acme/web:latest")
    assert record.response == (("containerimage.config", "{}"),)
    assert (record.cached_steps, record.completed_steps, record.total_steps, record.warnings) == (3, 7, 8, 2)
    assert record.results == (digest("old"), digest("made"), digest("arm"))
    assert record.attestations == (digest("attested"),)
    assert (record.log_digest, record.trace_digest, record.pinned) == (digest("log"), digest("trace"), True)
    assert (record.context, record.dockerfile) == ("", "Dockerfile")


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ([(6, time(1)), (7, time(2))], "completed"),
        ([(6, time(1))], "running"),
        ([(5, message((1, 2), (2, "exit code: 7"))), (7, time(2))], "error"),
        ([(5, message((1, 1), (2, "context canceled"))), (7, time(2))], "canceled"),
        ([], "running"),
    ],
)
def test_how_a_build_ended(fields: list[tuple[int, bytes]], status: str) -> None:
    record = decoded(message(*fields))
    assert record.status == status
    assert record.ref == REF  # of the key, when the record does not say


def test_times_before_1970_and_missing_ones() -> None:
    record = decoded(message((6, message((1, -2), (2, 5)))))
    assert (record.created_ns, record.completed_ns) == (-2 * 10**9 + 5, None)
    assert decoded(b"").created is None


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("build-arg:DB_PASSWORD", "hunter2hunter2", "hu****** (14 characters)"),
        ("build-arg:X", "AKIAABCDEFGHIJKLMNOP", "AK****** (20 characters)"),
        ("context", "https://joe:geheim@example.org/a.git", "ht****** (36 characters)"),
        ("build-arg:EMPTY_TOKEN", "", ""),
        ("build-arg:VERSION", "1.2", "1.2"),
        ("filename", "Dockerfile", "Dockerfile"),
    ],
)
def test_secrets_are_masked_in_displays_and_kept_in_the_record(name: str, value: str, shown: str) -> None:
    record = decoded(message((3, pair(name, value))))
    assert record.masked_attrs == ((name, shown),)
    assert record.attrs == ((name, value),)


def test_the_table_never_shows_what_is_masked(tmp_path: Path) -> None:
    with history(tmp_path, {REF: FINISHED}) as evidence:
        saved = tmp_path / "builds.csv"
        evidence.build_history.save(saved)
        assert "to****** (13 characters)" in saved.read_text()
        assert "tok-LAB" not in saved.read_text() + repr(evidence.build_history) + evidence.build_history._repr_html_()


def history(tmp_path: Path, records: dict[str, bytes], **more: bytes) -> fl.Evidence:
    write(
        tmp_path / "evidence",
        {
            **stores("var/lib/docker"),
            f"var/lib/docker/image/overlay2/layerdb/sha256/{hexid('x')}/diff": digest("x").encode(),
            "var/lib/docker/buildkit/history.db": bolt({"_records": records, "_version": {"version": b"2"}}),
            **more,
        },
    )
    return fl.open(tmp_path / "evidence")


def test_both_databases_are_read_newest_first(tmp_path: Path) -> None:
    later = message((6, time(BEGAN + 10**9)))
    other = {"var/lib/docker/buildkit/history_c8d.db": bolt({"_records": {"later": later}})}
    with history(tmp_path, {REF: FINISHED, "failed": FAILED}, **other) as evidence:
        assert [build.ref for build in evidence.build_history] == ["later", REF, "failed"]
        assert "history_c8d.db > bbolt page" in str(evidence.build_history[0].origin)
        assert evidence.build_history[2].error == "exit code: 7"
        assert not evidence.problems


def test_a_damaged_record_has_what_came_before_and_a_problem(tmp_path: Path) -> None:
    with history(tmp_path, {REF: FINISHED[:-20], "bad": b"\xff" * 9}) as evidence:
        assert {build.ref: build.images for build in evidence.build_history} == {
            REF: ("acme/web:1.0", "acme/web:latest"),
            "bad": (),
        }
        assert {problem.message.partition(":")[0] for problem in evidence.problems} == {f"build {REF}", "build bad"}


def test_the_notes_of_the_client_tell_the_folder(tmp_path: Path) -> None:
    note = {"Target": "default", "LocalPath": "/srv/web", "DockerfilePath": "/srv/web/Dockerfile.prod"}
    stdin = {"Target": "default", "LocalPath": "-", "DockerfilePath": ""}
    notes = {
        f"home/joe/.docker/buildx/refs/default/default/{REF}": document(note),
        "root/.docker/buildx/refs/default/default/failed": document(stdin),
        "root/.docker/buildx/refs/default/default/bad": b"{",
    }
    with history(tmp_path, {REF: FINISHED, "failed": FAILED}, **notes) as evidence:
        build, failed = evidence.build_history
        assert (build.context, build.dockerfile) == ("/srv/web", "/srv/web/Dockerfile.prod")
        assert build.client is not None
        assert "home/joe/.docker" in str(build.client.origin)
        assert (failed.context, failed.dockerfile) == ("-", "")
        assert ["refs/default/default/bad" in str(problem.origin) for problem in evidence.problems] == [True]


@given(st.binary(max_size=200))
def test_any_bytes_give_a_record(data: bytes) -> None:
    record, _ = decode_build(data, REF, Origin("history.db"))
    assert record.status in ("completed", "error", "canceled", "running")
    assert all(moment is None or moment.tzinfo for moment in (record.created, record.completed))
    assert len(record.masked_attrs) == len(record.attrs) >= len(record.build_args)
    assert isinstance(record.context + record.dockerfile + "".join(record.images), str)


@pytest.mark.skipif(not GRAPHDRIVER.is_dir(), reason=NO_EVIDENCE)
@pytest.mark.parametrize("base", [GRAPHDRIVER, CONTAINERD], ids=["graphdriver", "containerd"])
@pytest.mark.parametrize("stage", ["1-before-deletion", "2-after-deletion", "5-stopped"])
def test_the_builds_are_those_that_the_daemon_listed(base: Path, stage: str) -> None:
    truth = base / "truth" / stage
    listed = [json.loads(line) for line in (truth / "buildx-history.jsonl").read_text().splitlines()]
    refs = [row["ref"].rpartition("/")[2] for row in listed]
    with fl.open(base / "evidence/clean/root.tar") as evidence:
        found = {build.ref: build for build in evidence.build_history}
        assert [ref for ref in found if ref in refs] == refs  # newest first, too
        removed = set(found) - set(refs)
        assert len(removed) == (0 if stage.startswith("1") else 1)  # `history rm` left the record on the disk
        assert all(image.endswith("evil/miner:latest") for ref in removed for image in found[ref].images)
        for row, ref in zip(listed, refs, strict=True):
            build = found[ref]
            assert build.created_ns == parse_time(row["created_at"])[1]
            assert build.completed_ns == parse_time(row["completed_at"])[1]
            assert (build.cached_steps, build.completed_steps) == (row["cached_steps"], row["completed_steps"])
            assert (build.total_steps, build.status) == (row["total_steps"], row["status"].lower())
            assert row["name"].removeprefix("ctx/") in ("", "ctx", Path(build.dockerfile).name)
        for path in (truth / "build-history").iterdir():
            said = json.loads(path.read_text())
            build = found[said["Ref"]]
            attached = {one["Digest"] for one in said.get("Attachments", ())}
            assert {*build.results, *build.attestations} <= attached
            assert bool(build.results or build.attestations) == bool(attached)
            assert build.context.lstrip("/") == said["Context"]
            assert Path(build.dockerfile).name == said["Dockerfile"]
            assert build.build_args == tuple((one["Name"], one["Value"]) for one in said.get("BuildArgs", ()))
            assert build.error == said.get("Error", {}).get("Message", "")
            assert dict(build.attrs).get("platform", "") == ",".join(said.get("Platform", ()))
