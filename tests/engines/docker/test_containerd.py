"""Docker 29 with containerd's store: what its daemon said, and what can still be said when a part is missing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import forensics_lib as fl
from forensics_lib.engines.docker.engine import DockerRoot
from forensics_lib.engines.docker.ownership import OwnerKind
from forensics_lib.errors import ForensicsError
from forensics_lib.recovery.containerd import store_remnants
from forensics_lib.trees.base import NodeKind
from tests.engines.docker.answers import differences, document, flat
from tests.engines.docker.dataroot import CONTAINERD, NO_EVIDENCE
from tests.engines.docker.storehost import BLOBS, META, OVERLAY, STORE, WEB, WEB_IMAGE, Host
from tests.samples import DOCKER_CONTAINERD, FIXTURES, unpack

BASE = "sha256:96a2e5af9143160d4016800f85e7b13bff3454cf0e07ed933b7fea56e844b0a5"
ARM = "sha256:fdcd4bbd23dd84d2aa2d801249d73cf28392712730eed1fe51b17e536b1bf8b5"
MULTI = "sha256:8a601122e61eea58f96a3e7f1738f4cceb1273377bbdff43917c744ce3fbfebe"
CONF = f"{OVERLAY}/snapshots/45/fs/etc/acme/app.conf"  # the layer that holds nothing else
ALL = {
    "ps", "inspect", "diff", "logs", "export", "images", "image-inspect", "history", "volume-inspect", "volume-files",
    "network-inspect",
}  # fmt: skip


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack(FIXTURES / "truth" / "docker-containerd.tar.zst", tmp_path_factory.mktemp("truth"))


@pytest.fixture(scope="module")
def evidence() -> Iterator[fl.Evidence]:
    with fl.open(DOCKER_CONTAINERD) as opened:
        yield opened


# What the daemon said ------------------------------------------------------------------------------------------------


def test_all_answers(evidence: fl.Evidence, truth: Path) -> None:
    found, asked = differences(evidence, truth)
    assert found == []
    assert asked == ALL


def test_sizes_of_containers_are_blocks_of_the_disk(evidence: fl.Evidence, truth: Path) -> None:
    said = {one.stem: document(one) for one in (truth / "containers").glob("*.json")}
    want = {key: (one["SizeRw"], one["SizeRootFs"]) for key, one in said.items()}
    assert {c.id: (c.size_rw, c.size_root_fs) for c in evidence.containers} == want


def test_sizes_of_images_are_those_of_the_list(evidence: fl.Evidence, truth: Path) -> None:
    listed = {row["Id"]: row for row in json.loads((truth / "api-images-manifests.json").read_text())}
    shown = {image.id: image.size + lacking(image) for image in reversed(list(evidence.images))}  # the host's counts
    assert shown == {key: row["Size"] for key, row in listed.items()}
    arm = next(image for image in evidence.images if image.id == MULTI and image.manifest_digest == ARM)
    assert arm.size == next(row for row in listed[MULTI]["Manifests"] if row["ID"] == ARM)["Size"]["Total"]


def lacking(image: fl.Image) -> int:
    """Bytes of the layers whose blobs the fixture lacks."""
    layers = json.loads(image.raw_manifest or b"{}")["layers"]
    return sum(said["size"] for said, layer in zip(layers, image.layers, strict=True) if layer.size is None)


def test_other_platforms_are_inspected_as_if_they_were_asked_for(evidence: fl.Evidence, truth: Path) -> None:
    first, second = (image for image in evidence.images if image.id == MULTI)
    assert (first.platform, second.platform) == ("linux/amd64", "linux/arm64")
    (answer,) = json.loads((truth / f"images/{MULTI.removeprefix('sha256:')}.linux-arm64.inspect").read_text())
    assert flat(second.inspect()) == flat(answer)


def test_names_and_digests(evidence: fl.Evidence) -> None:
    image = evidence.image("acme/web:latest")
    assert image.id == image.index_digest == WEB_IMAGE
    assert image.tags == ("acme/web:1.1", "acme/web:latest", "registry.lab.test:5000/acme/web:prod")
    assert image.digests == (f"acme/web@{WEB_IMAGE}", f"registry.lab.test:5000/acme/web@{WEB_IMAGE}")
    assert [artifact.artifact_type for artifact in image.attestations] == ["attestation-manifest"]
    (dangling,) = (one for one in evidence.images if not one.tags)
    assert (dangling.digests, dangling.inspect()["RepoTags"]) == ((), [])


def test_every_version_of_a_file(evidence: fl.Evidence) -> None:
    image = evidence.image("acme/web:1.1")
    first, last = image.versions("/root/.ssh/id_rsa")
    assert (str(first.kind), str(last.kind), last.node) == ("A", "D", None)
    assert first.read().startswith(b"-----BEGIN")
    assert {hidden.path for hidden in image.hidden()} >= {"/root/.ssh/id_rsa", "/opt/deleted-later.txt"}
    assert image.layers[1].compression == "gzip"
    assert any(
        entry.name == "special/weird" or entry.name.startswith("special/") for entry in image.layers[1].entries()
    )


def test_layers_that_are_not_unpacked_are_read_from_their_archives(evidence: fl.Evidence) -> None:
    arm = next(image for image in evidence.images if image.manifest_digest == ARM)
    assert sorted(node.path for node in arm.tree().walk())[1:]
    assert [step.size for step in arm.history() if not step.empty] == [0, 0]


def test_a_mounted_image_is_a_snapshot_of_its_own(evidence: fl.Evidence) -> None:
    assert "/bin/busybox" in evidence.container("modern").mount("/img")


def test_a_container_is_saved_with_the_layers_of_its_image(evidence: fl.Evidence, tmp_path: Path) -> None:
    """But for the one whose blob the fixture lacks, which is made anew."""
    saved = evidence.container("web").save(tmp_path / "web.tar")
    image = evidence.image(WEB_IMAGE)
    assert saved.replaced == (image.layers[0].diff_id,)
    assert list(saved.layers[1:-1]) == [layer.diff_id for layer in image.layers[1:]]
    with fl.open(tmp_path / "web.tar") as opened:
        assert opened.images[0].tree().read("/www/index.html") == evidence.container("web").tree().read(
            "/www/index.html"
        )
        assert all(check.ok for check in opened.verify())


def test_verification_names_what_the_fixture_lacks_and_nothing_else(evidence: fl.Evidence) -> None:
    failed = [check for check in evidence.verify() if not check.ok]
    blobs = [check for check in failed if check.actual == "missing"]
    assert len(blobs) == 21
    assert [check.actual for check in failed if check not in blobs] == ["/opt/sparse.bin has another content"] * 2


def test_owners(evidence: fl.Evidence) -> None:
    def kinds(text: str) -> set[tuple[str, str]]:
        return {(str(owner.kind), owner.name) for owner in evidence.owner(text)}

    assert kinds(f"{OVERLAY}/snapshots/126/fs/www/login.php") == {("container", "web")}
    assert kinds(f"{OVERLAY}/snapshots/125") == {("container-init", "web")}
    assert ("image-layer", "acme/committed:1") in kinds(f"{OVERLAY}/snapshots/63")
    assert kinds(f"{OVERLAY}/snapshots/161") == {("image-mount", "acme/tool:1")}
    (build,) = evidence.owner(f"{OVERLAY}/snapshots/27")
    assert (build.kind, build.detail[:12]) == (OwnerKind.BUILD_CACHE, "mount / from")
    assert kinds(f"{BLOBS}/64b16f6603ac3fc38b61e5e1bfee11b1d8f4738e525305a203f1bc5de7e7e51c") == {
        ("image", "acme/web:1.0")
    }
    assert {str(owner.kind) for owner in evidence.owner(META)} == {"engine"}
    (nobody,) = evidence.owner(f"{OVERLAY}/snapshots/999999")
    assert (nobody.kind, "not in the evidence" in nobody.detail) == (OwnerKind.ORPHAN, True)


def test_no_directory_is_without_an_owner(evidence: fl.Evidence) -> None:
    assert {str(row.kind) for row in evidence.remnants() if row.method == "orphan"} == set()
    assert all(record.directory for record in evidence.build_cache)


def test_removed_images_are_still_named(evidence: fl.Evidence) -> None:
    rows = [row for row in evidence.remnants() if row.kind == "image"]
    miner = "sha256:d67a29c9c53f1f0977b8d81ccd7755483a8ab02ea65c99a03acc371bc2527220"
    assert {row.method for row in rows if row.image_id == miner} == {"build history", "identity cache"}
    assert any("evil/miner:latest" in row.detail for row in rows)
    assert {row.image_id for row in rows}.isdisjoint(image.id for image in evidence.images)


def test_the_runtime_specification_of_a_removed_container(evidence: fl.Evidence) -> None:
    rows = [row for row in evidence.remnants() if row.detail.find("runtime specification") >= 0 and row.content]
    assert any(b"DELLOCAL" in row.read() for row in rows)


# What is changed -----------------------------------------------------------------------------------------------------


def test_each_changed_file_is_named() -> None:
    host, lower = Host(), f"{OVERLAY}/snapshots/43/fs"
    before = {(check.subject, check.actual) for check in host.failed()}
    host.write(f"{lower}/evil", b"x")
    old = host.read(CONF)
    host.write(CONF, old[::-1])
    host.change(f"{OVERLAY}/snapshots/44/fs/www/index.html", mode=0o4777)
    host.remove(f"{OVERLAY}/snapshots/46/fs/root/.ssh/id_rsa")
    found = {check.actual for check in host.failed() if (check.subject, check.actual) not in before}
    assert found >= {
        "/evil is not in the archive", "/etc/acme/app.conf has another content", "/www/index.html has another mode",
        "/root/.ssh/id_rsa is missing",
    }  # fmt: skip


def test_a_deletion_that_was_taken_back_is_named() -> None:
    host = Host()
    (mark,) = (
        node.path
        for node in host.tree.walk(f"{OVERLAY}/snapshots/51")
        if node.name == "deleted-later.txt" and not node.rdev
    )
    host.remove(mark)
    found = [check.actual for check in host.failed()]
    assert "/opt/deleted-later.txt is deleted by the archive, but not in the directory" in found


def test_a_changed_blob_is_named_and_the_rest_answers() -> None:
    host, name = Host(), "896987ee82dc2a4083437231b62e677a752d6f6ad52970afb9f8b6d5bf4844d3"
    data = bytearray(host.read(f"{BLOBS}/{name}"))
    data[len(data) // 2] ^= 1
    host.write(f"{BLOBS}/{name}", bytes(data))
    subjects = {check.subject for check in host.failed()}
    assert f"blob sha256:{name} digest" in subjects
    docker = host.docker()
    assert len(docker.images) == 11
    assert len(list(docker.containers[0].tree().walk())) > 80


# What is missing -----------------------------------------------------------------------------------------------------


def answers(host: Host) -> tuple[int, int, int]:
    """How many images, images with files and containers with files there are."""
    docker = host.docker()

    def has_files(noun: Any) -> bool:
        try:
            return len(list(noun.tree().walk())) > 1
        except ForensicsError:
            return False

    return len(docker.images), sum(map(has_files, docker.images)), sum(map(has_files, docker.containers))


def test_without_the_store_containers_answer_and_one_problem_says_why() -> None:
    host = Host()
    host.remove(STORE)
    assert answers(host) == (0, 0, 0)
    docker = host.docker()
    assert [docker.containers[0].inspect()["Driver"], len(docker.containers)] == ["overlayfs", 20]
    (problem,) = host.problems.rows
    assert "/var/lib/containerd" in problem.message


def test_a_lost_manifest_takes_its_image_only() -> None:
    host = Host()
    host.remove(f"{BLOBS}/64b16f6603ac3fc38b61e5e1bfee11b1d8f4738e525305a203f1bc5de7e7e51c")
    assert answers(host) == (10, 10, 20)
    said = "; ".join(host.said(host.docker()))
    assert "acme/web:1.0 stands for" in said
    assert "blob sha256:64b16f66" in said


def test_a_lost_configuration_leaves_the_files() -> None:
    host = Host()
    host.remove(f"{BLOBS}/2c4a115d4e06e7282ef41036ecac9a9aee4ffb5ac62f1e6ac30462e24e335a8d")
    docker = host.docker()
    assert any("(configuration of acme/web:1.0)" in said for said in host.said(docker))
    (image,) = (one for one in docker.images if "acme/web:1.0" in one.tags)
    assert (image.raw_config, len(image.layers)) == (None, 15)


def test_a_snapshot_without_its_directory_is_made_up_for_by_the_archive() -> None:
    whole, host = Host().docker(), Host()
    host.remove(f"{OVERLAY}/snapshots/45")
    docker = host.docker()

    def files(of: DockerRoot) -> list[list[tuple[str, int, bytes]]]:
        nouns: list[Any]
        nouns = [*of.images, *(one for one in of.containers if one.id == WEB)]
        return [[(n.path, n.mode, n.read()) for n in noun.tree().walk() if n.kind is NodeKind.FILE] for noun in nouns]

    assert files(docker) == files(whole)
    said = host.said(docker)
    assert [one for one in said if "has a record, but its directory 45 is missing" in one]
    assert [one for one in said if "its archive and those of the layers below are read" in one]


def test_without_any_blob_containers_answer() -> None:
    host = Host()
    host.remove(BLOBS)
    docker = host.docker()
    assert len(list(docker.containers[0].tree().walk())) > 1
    said = host.said(docker)
    assert len([one for one in said if one.startswith("none of the ") and "is in the content store" in one]) == 1
    assert not [one for one in said if "has a record, but is not in the content store" in one]


def test_without_any_directory_images_are_read_from_their_archives() -> None:
    host = Host()
    host.remove(f"{OVERLAY}/snapshots")
    assert answers(host)[2] == 0
    docker = host.docker()
    multi = [image for image in docker.images if image.id == MULTI]
    assert [len(list(image.tree().walk())) > 1 for image in multi] == [True, True]
    assert [one for one in host.said(docker) if "none of the 150 snapshots" in one]


@pytest.mark.parametrize("what", ["missing", "zeros", "torn"])
def test_without_metadata_images_have_no_names(what: str) -> None:
    host = Host()
    data = host.read(META)
    if what == "missing":
        host.remove(META)
    else:
        host.write(META, bytes(len(data)) if what == "zeros" else data[: len(data) // 3])
    images, readable, containers = answers(host)
    assert (images, readable, containers) == (15, 15, 20)
    assert sum("meta.db is" in row.message for row in host.problems.rows) == 1
    assert not any(image.tags for image in host.docker().images)


def test_without_the_snapshotters_database_nothing_tells_whose_a_directory_is() -> None:
    host = Host()
    host.remove(f"{OVERLAY}/metadata.db")
    assert answers(host)[2] == 0
    assert [row for row in host.problems.rows if "whose the directories of the snapshots are" in row.message]


def test_a_directory_without_a_record_is_a_remnant() -> None:
    host = Host()
    host.copy(f"{OVERLAY}/snapshots/126", f"{OVERLAY}/snapshots/999")
    (orphan,) = host.docker().orphans()
    assert (orphan.id, orphan.driver) == ("999", "overlayfs")


def test_a_blob_without_a_record_is_a_remnant() -> None:
    host, name = Host(), "6d1b6e1e5a2e0c4c1a3a5a5d6b8f5f2a4f9b7f6a1f0e9d8c7b6a5f4e3d2c1b0a"
    host.write(f"{BLOBS}/{name}", b'{"schemaVersion": 2, "layers": []}')
    (row,) = (one for one in store_remnants(host.docker()) if one.method == "orphan")
    assert (row.kind, row.complete, row.read()[:2]) == ("image", False, b'{"')
    assert "its digest is another" in row.detail


def test_an_unfinished_download_is_a_remnant() -> None:
    host, folder = Host(), f"{STORE}/io.containerd.content.v1.content/ingest/{'a' * 64}"
    host.write(f"{folder}/data", b"\x1f\x8b partial")
    host.write(f"{folder}/ref", b"moby/7/layer-sha256:" + b"b" * 64)
    host.write(f"{folder}/total", b"4096")
    (row,) = (one for one in store_remnants(host.docker()) if one.method == "orphan")
    assert (row.kind, row.size, row.complete) == ("layer", 10, False)
    assert f"layer-sha256:{'b' * 64}, 10 of 4096 bytes" in row.detail


# Where the store lies ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("moves", "config"),
    [
        ([(STORE, "/var/lib/docker/containerd/daemon")], b""),
        ([(STORE, "/data/ctr")], b'version = 3\n  root = "/data/ctr"\n[plugins]\n  root = "/nowhere"\n'),
        ([("/var/lib/docker", "/docker"), (STORE, "/containerd")], b""),
        (
            [
                ("/var/lib/docker", "/home/eve/.local/share/docker"),
                (STORE, "/home/eve/.local/share/containerd"),
            ],
            b"",
        ),
    ],
    ids=["managed", "configured", "beside", "rootless"],
)
def test_places(moves: list[tuple[str, str]], config: bytes) -> None:
    host = Host()
    for source, target in moves:
        host.move(source, target)
    if config:
        host.write("/etc/containerd/config.toml", config)
    assert answers(host) == (11, 11, 20)
    assert host.problems.rows == []


def test_a_configured_place_that_is_not_there_is_a_problem() -> None:
    host = Host()
    host.write("/etc/containerd/config.toml", b'root = "/mnt/elsewhere"\n')
    assert answers(host) == (11, 11, 20)
    assert [row.message for row in host.problems.rows] == [
        "config.toml names /mnt/elsewhere as containerd's root; nothing of containerd is there"
    ]


# Whatever happens to the databases -----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [META, f"{OVERLAY}/metadata.db"], ids=["meta", "snapshots"])
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_damaged_databases_never_raise(path: str, data: st.DataObject) -> None:
    host = Host()
    content = bytearray(host.read(path))
    for _ in range(data.draw(st.integers(1, 40))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    host.write(path, bytes(content[: data.draw(st.integers(0, len(content)))]))
    docker = host.docker()
    for image in docker.images:
        image.inspect()
    for container in docker.containers[:3]:
        container.inspect()
        try:
            list(container.diff())
        except ForensicsError:
            continue


@pytest.mark.skipif(not CONTAINERD.exists(), reason=NO_EVIDENCE)
@pytest.mark.parametrize("name", ["root.tar", "disk.raw"])
def test_the_whole_host(name: str) -> None:
    with fl.open(CONTAINERD / "evidence/clean" / name) as opened:
        found, asked = differences(opened, CONTAINERD / "truth/5-stopped")
        assert found == []
        assert asked == ALL
        assert [check for check in opened.verify() if not check.ok] == []
        assert {c.name: c.size_rw for c in opened.containers}["web"] == 26624
        assert opened.container(WEB).size_root_fs == 6427648


def test_a_copy_without_attributes_does_not_tell_sizes(tmp_path: Path) -> None:
    with fl.open(unpack(DOCKER_CONTAINERD, tmp_path / "host")) as ev:
        assert (ev.container("web").size_rw, ev.container("twonets").size_rw) == (None, 1024)
        messages = [problem.message for problem in ev.problems]
    assert any("how many blocks of the disk" in message for message in messages)
    for what in ("extended attributes", "whiteouts", "device nodes", "owners", "times of change"):
        assert any(f"the copy lost metadata: {what}" in message for message in messages), what
