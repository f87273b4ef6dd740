"""What was pulled and pushed, by the notes that outlive the images."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import forensics_lib as fl
from forensics_lib.engines.docker.pulls import PullKind, PullRecord
from tests.engines.docker.dataroot import digest, document, stores, write

LAYER, OTHER = digest("layer"), digest("other layer")
BLOB, BLOB2, BLOB3 = digest("blob"), digest("second blob"), digest("third blob")
ALPINE = "docker.io/library/alpine"
IMAGE = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [LAYER]}}
IMAGE_ID = digest(json.dumps(IMAGE))
FOLDER = "image/overlay2/distribution"
BY_LAYER, BY_BLOB = f"{FOLDER}/v2metadata-by-diffid/sha256", f"{FOLDER}/diffid-by-digest/sha256"


def note(blob: str, repository: str = "", code: str = "") -> dict[str, str]:
    return {"Digest": blob, "SourceRepository": repository, "HMAC": code}


def code_of(blob: str, repository: str, credentials: str) -> str:
    """The authentication code of a push: its key is the digest of the credentials' JSON document, as text."""
    key = f"sha256:{hashlib.sha256(credentials.encode()).hexdigest()}"
    return hmac.new(key.encode(), f"{blob}{repository}".encode(), hashlib.sha256).hexdigest()


def opened(tmp_path: Path, *notes: dict[str, str], **files: bytes) -> fl.Evidence:
    write(
        tmp_path,
        {
            **stores("docker"),
            f"docker/image/overlay2/layerdb/sha256/{LAYER[7:]}/diff": LAYER.encode(),
            f"docker/image/overlay2/imagedb/content/sha256/{IMAGE_ID[7:]}": document(IMAGE),
            **({f"docker/{BY_LAYER}/{LAYER[7:]}": document(notes)} if notes else {}),
            **{f"docker/{FOLDER}/{name}": content for name, content in files.items()},
        },
    )
    return fl.open(tmp_path)


def pulls(tmp_path: Path, *notes: dict[str, str], **files: bytes) -> list[PullRecord]:
    with opened(tmp_path, *notes, **files) as evidence:
        return list(evidence.pull_history)


def test_a_pull(tmp_path: Path) -> None:
    (record,) = pulls(tmp_path, note(BLOB, ALPINE))
    assert (record.kind, record.repository, record.digest, record.diff_id) == (PullKind.PULL, ALPINE, BLOB, LAYER)
    assert record.with_credentials is None
    assert record.images == (IMAGE_ID,)
    assert str(record.origin).endswith(f"docker/{BY_LAYER}/{LAYER[7:]}")


def test_the_note_outlives_the_image(tmp_path: Path) -> None:
    removed = {f"v2metadata-by-diffid/sha256/{OTHER[7:]}": document([note(BLOB, ALPINE)])}
    (record,) = pulls(tmp_path, **removed)
    assert (record.repository, record.diff_id, record.images) == (ALPINE, OTHER, ())


@pytest.mark.parametrize(
    ("credentials", "with_credentials"),
    [("{}", False), ('{"username":"joe","password":"geheim"}', True), ('{"identitytoken":"x"}', True)],
)
def test_a_push_tells_whether_there_were_credentials(tmp_path: Path, credentials: str, with_credentials: bool) -> None:
    repository = "registry.example.org/acme/web"
    (record,) = pulls(tmp_path, note(BLOB, repository, code_of(BLOB, repository, credentials)))
    assert (record.kind, record.repository) == (PullKind.PUSH, repository)
    assert record.with_credentials is with_credentials


def test_a_build_notes_no_repository(tmp_path: Path) -> None:
    (record,) = pulls(tmp_path, note(BLOB))
    assert (record.kind, record.repository, record.with_credentials) == (PullKind.BUILD, "", None)


def test_a_digest_without_a_repository_is_kept(tmp_path: Path) -> None:
    files = {f"diffid-by-digest/sha256/{BLOB[7:]}": LAYER.encode(), f"diffid-by-digest/sha256/{BLOB2[7:]}": b""}
    first, second = sorted(pulls(tmp_path, **files), key=lambda record: record.digest != BLOB)
    assert (first.kind, first.digest, first.diff_id, first.images) == (PullKind.UNKNOWN, BLOB, LAYER, (IMAGE_ID,))
    assert (second.digest, second.diff_id, second.images) == (BLOB2, "", ())


def test_times_are_those_of_the_digests_files_and_order_the_records(tmp_path: Path) -> None:
    notes = (note(BLOB, ALPINE), note(BLOB2, "docker.io/library/busybox"), note(BLOB3, "docker.io/library/debian"))
    files = {f"diffid-by-digest/sha256/{blob[7:]}": LAYER.encode() for blob in (BLOB, BLOB2)}
    opened(tmp_path, *notes, **files).close()
    times = {f"{BY_LAYER}/{LAYER[7:]}": 3 * 10**9, f"{BY_BLOB}/{BLOB[7:]}": 2 * 10**9, f"{BY_BLOB}/{BLOB2[7:]}": 10**9}
    for name, nanoseconds in times.items():
        os.utime(tmp_path / "docker" / name, ns=(nanoseconds, nanoseconds))
    with fl.open(tmp_path) as evidence:
        found = evidence.pull_history
        assert [(record.digest, record.recorded_ns) for record in found] == [
            (BLOB2, 10**9),
            (BLOB, 2 * 10**9),
            (BLOB3, 3 * 10**9),
        ]
        assert str(found[0].recorded) == "1970-01-01 00:00:01+00:00"


def test_damage_is_a_problem_and_the_rest_is_read(tmp_path: Path) -> None:
    files = {
        f"v2metadata-by-diffid/sha256/{'0' * 64}": b"[{",
        f"v2metadata-by-diffid/sha256/{'1' * 64}": b"{}",
        f"v2metadata-by-diffid/sha256/{'2' * 64}": document([7, {"Digest": 5}, note(BLOB2, ALPINE)]),
        "v2metadata-by-diffid/sha256/.tmp-123": b"[",
    }
    with opened(tmp_path, note(BLOB, ALPINE), **files) as evidence:
        assert {record.digest for record in evidence.pull_history} == {BLOB, BLOB2, ""}
        places = [str(problem.origin)[-64:] for problem in evidence.problems]
        assert sorted(places) == ["0" * 64, "1" * 64]


def test_nothing_was_pulled(tmp_path: Path) -> None:
    assert pulls(tmp_path) == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(st.binary(max_size=60) | st.lists(st.dictionaries(st.sampled_from(list(note(""))), st.text())).map(document))
def test_any_note_gives_records_or_a_problem(tmp_path: Path, content: bytes) -> None:
    with opened(tmp_path, **{f"v2metadata-by-diffid/sha256/{OTHER[7:]}": content}) as evidence:
        assert all(record.diff_id == OTHER for record in evidence.pull_history)
