"""What a copy of a data root shows of removed things."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import forensics_lib as fl
from forensics_lib.recovery.orphans import orphans
from forensics_lib.recovery.remnant import Confidence, Remnant
from tests.engines.docker.dataroot import HALF_REMOVED, NO_EVIDENCE, bolt, chain, digest, document, hexid
from tests.recovery.scene import config, data_root, encoded, host_config, line

BASE, GONE = digest("base"), digest("gone")
BASE_CHAIN, GONE_CHAIN = chain(BASE), chain(GONE)
IMAGE = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [BASE]}}
IMAGE_ID = digest(json.dumps(IMAGE))
WEB, DEAD, GHOST, LOST = hexid("web"), hexid("dead"), hexid("ghost"), hexid("lost")
BASE_DIR, GONE_DIR, GHOST_DIR, ORPHAN = hexid("base directory"), hexid("gone directory"), hexid("g"), hexid("orphan")
REMOVING = f"{digest('half')[7:]}-123456-removing"
LINK = "L" * 26
DB = "image/overlay2/layerdb"
PULLED = digest("pulled")

FILES: dict[str, bytes | str | None] = {
    f"containers/{WEB}/config.v2.json": encoded(config(WEB, "web", 1)),
    f"containers/{WEB}/hostconfig.json": encoded(host_config()),
    f"containers/{WEB}/.tmp-config.v2.json123": b'{"half',
    f"containers/{DEAD}/config.v2.json": encoded(config(DEAD, "dying", 1, Dead=True)),
    f"containers/{DEAD}/hostconfig.json": encoded(host_config()),
    f"containers/{LOST}/{LOST}-json.log": line("lost\n", 2),
    f"containers/{LOST}/hostname": b"host\n",
    f"{DB}/sha256/{BASE_CHAIN[7:]}/diff": BASE.encode(),
    f"{DB}/sha256/{BASE_CHAIN[7:]}/cache-id": BASE_DIR.encode(),
    f"{DB}/sha256/{GONE_CHAIN[7:]}/diff": GONE.encode(),
    f"{DB}/sha256/{GONE_CHAIN[7:]}/cache-id": GONE_DIR.encode(),
    f"{DB}/sha256/{REMOVING}/cache-id": hexid("removing directory").encode(),
    f"{DB}/tmp/write-set-42/diff": digest("unfinished").encode(),
    f"{DB}/mounts/{GHOST}/mount-id": GHOST_DIR.encode(),
    f"{DB}/mounts/{GHOST}/init-id": f"{GHOST_DIR}-init".encode(),
    f"{DB}/mounts/{GHOST}/parent": BASE_CHAIN.encode(),
    f"image/overlay2/imagedb/content/sha256/{IMAGE_ID[7:]}": json.dumps(IMAGE).encode(),
    f"image/overlay2/imagedb/metadata/sha256/{digest('rmi')[7:]}/lastUpdated": b"2026-11-21T17:10:58Z",
    "image/overlay2/repositories.json": document({"Repositories": {"acme/web": {"acme/web:1": IMAGE_ID}}}),
    f"image/overlay2/distribution/v2metadata-by-diffid/sha256/{PULLED[7:]}": document(
        [{"Digest": digest("compressed"), "SourceRepository": "docker.io/library/alpine"}]
    ),
    f"overlay2/{BASE_DIR}/diff/etc/passwd": b"root",
    f"overlay2/{BASE_DIR}/link": LINK.encode(),
    f"overlay2/l/{LINK}": f"../{BASE_DIR}/diff",
    f"overlay2/{GONE_DIR}/diff/x": b"x",
    f"overlay2/{GHOST_DIR}/diff/dropped": b"dropped",
    f"overlay2/{GHOST_DIR}-init/diff/.dockerenv": b"",
    f"overlay2/{ORPHAN}/diff/etc/hostname": b"mailer\n",
    f"overlay2/{ORPHAN}/lower": f"l/{LINK}".encode(),
    f"overlay2/{ORPHAN}-init/committed": b"",
    "volumes/metadata.db": bolt({"volumes": {"loot": b'{"Name":"loot","Driver":"local"}'}}),
    "volumes/kept/_data/file": b"kept",
}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Remnant]:
    return list(orphans(data_root(tmp_path_factory.mktemp("root"), FILES)))


def one(rows: list[Remnant], path: str) -> Remnant:
    (row,) = [row for row in rows if row.path.endswith(path)]
    return row


def test_half_removed_container(rows: list[Remnant]) -> None:
    row = one(rows, DEAD)
    assert (row.kind, row.container_id, row.confidence) == ("container", DEAD, Confidence.METADATA_ONLY)
    assert "dying is half removed (dead); left are config.v2.json, hostconfig.json" in row.detail


def test_folder_without_records(rows: list[Remnant]) -> None:
    assert one(rows, f"containers/{LOST}").detail.endswith("2 files are left")
    log = one(rows, f"{LOST}-json.log")
    assert (log.kind, log.container_id, log.complete) == ("log", LOST, True)
    assert log.read() == line("lost\n", 2)


def test_newer_generation(rows: list[Remnant]) -> None:
    row = one(rows, ".tmp-config.v2.json123")
    assert (row.kind, row.container_id, row.complete, row.read()) == ("config", WEB, False, b'{"half')


def test_layers_by_their_records(rows: list[Remnant]) -> None:
    assert "half removed" in one(rows, REMOVING).detail
    assert digest("unfinished") in one(rows, "write-set-42").detail
    gone = one(rows, GONE_CHAIN[7:]).detail
    assert gone.startswith("layer of a removed image; ")
    assert gone.endswith(f"its directory {GONE_DIR} holds 1 files of 1 bytes")
    assert not [row for row in rows if row.path.endswith(BASE_CHAIN[7:])]


def test_writable_layer_without_container(rows: list[Remnant]) -> None:
    row = one(rows, f"mounts/{GHOST}")
    assert (row.container_id, row.image_id) == (GHOST, IMAGE_ID)
    assert "1 files of 7 bytes; newest /dropped" in row.detail


def test_directory_without_record(rows: list[Remnant]) -> None:
    row = one(rows, f"overlay2/{ORPHAN}")
    assert row.image_id == IMAGE_ID
    assert row.detail.startswith("writable layer of a container that no record names")
    assert "host name mailer" in row.detail
    assert one(rows, f"overlay2/{ORPHAN}-init").detail.startswith("init layer of a container")
    assert not [row for row in rows if row.path.endswith((f"overlay2/{GHOST_DIR}", f"overlay2/{BASE_DIR}"))]


def test_image_notes_and_pulls(rows: list[Remnant]) -> None:
    assert one(rows, digest("rmi")[7:]).image_id == digest("rmi")
    pull = one(rows, PULLED[7:])
    assert pull.detail.startswith("pull from docker.io/library/alpine of ")
    assert pull.complete


def test_volumes(rows: list[Remnant]) -> None:
    assert "record, but no folder" in one(rows, "volumes/loot").detail
    assert "folder with 1 files, but no record" in one(rows, "volumes/kept").detail


def test_nothing_is_orphaned_in_a_sound_root(tmp_path: Path) -> None:
    sound = {name: made for name, made in FILES.items() if WEB in name and ".tmp" not in name}
    assert list(orphans(data_root(tmp_path, sound))) == []


@pytest.mark.skipif(not HALF_REMOVED.is_dir(), reason=NO_EVIDENCE)
@pytest.mark.parametrize(
    ("archive", "kinds"),
    [("2-killed-during-rm", ["container"]), ("5-after-restart", ["container", "layer"])],
)
def test_half_removed_evidence(archive: str, kinds: list[str]) -> None:
    with fl.open(HALF_REMOVED / f"evidence/{archive}.tar") as evidence:
        list(evidence.containers)
        found = [row for docker in evidence._holdings.dockers for row in orphans(docker)]
        assert [row.kind for row in found] == kinds
        assert "container half is half removed" in found[0].detail
