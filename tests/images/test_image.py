"""Images of real archives, against what the daemons that wrote them said."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import forensics_lib as fl
from tests.samples import DIR, DIR_GZIP, DOCKER_SAVE, OCI, OCI_ZSTD, PLATFORMS, UMOCI, WEB, history_lines, inspected

ONLY_THE_STORE_KNOWS = {"GraphDriver", "Metadata", "Descriptor", "Identity"}
SHOP = ("acme/shop:1.0", "acme/shop:1.1", "acme/tool:1", "acme/committed:1")


@pytest.fixture(scope="module")
def classic() -> Iterator[fl.Evidence]:
    with fl.open(DOCKER_SAVE) as evidence:
        yield evidence


@pytest.fixture(scope="module")
def modern() -> Iterator[fl.Evidence]:
    with fl.open(WEB) as evidence:
        yield evidence


@pytest.fixture(scope="module")
def committed(classic: fl.Evidence) -> fl.Image:
    return classic.image("acme/committed:1")


def without(answer: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in answer.items() if key not in {*keys, *ONLY_THE_STORE_KNOWS}}


def lines_of(image: fl.Image) -> list[dict[str, str]]:
    """The history as `docker history --no-trunc --human=false` prints it."""
    return [
        {
            "Comment": step.comment,
            "CreatedAt": step.created.strftime("%Y-%m-%dT%H:%M:%SZ") if step.created else "",
            "CreatedBy": step.created_by.replace("\t", " "),
            "Size": str(step.size),
        }
        for step in image.history()
    ]


def truth_of(identity: str, *, sizes: bool = True) -> list[dict[str, str]]:
    wanted = ("Comment", "CreatedAt", "CreatedBy", *(["Size"] if sizes else []))
    answers = []
    for line in history_lines(identity):
        answer = {key: line[key] for key in wanted}
        answer["CreatedAt"] = answer["CreatedAt"].replace("+00:00", "Z")
        answers.append(answer)
    return answers


@pytest.mark.parametrize("name", SHOP)
def test_inspect_equals_docker_of_before_25(classic: fl.Evidence, name: str) -> None:
    image = classic.image(name)
    # the parent is an image of the daemon that is not in the archive
    assert without(image.inspect(), "Parent") == without(inspected(image.id), "Parent")


@pytest.mark.parametrize("name", SHOP)
def test_history_equals_docker_of_before_25(classic: fl.Evidence, name: str) -> None:
    image = classic.image(name)
    assert lines_of(image) == truth_of(image.id)
    assert image.alignment is fl.Alignment.EXACT


def test_inspect_equals_docker_with_containerd_store(modern: fl.Evidence) -> None:
    image = modern.image("acme/web:1.0")
    assert image.index_digest is not None
    # that store shows the digest of the index as id
    assert without(image.inspect(), "Id") == without(inspected(image.index_digest), "Id")
    assert image.inspect()["Id"] == image.config_digest == image.id


def test_history_equals_docker_with_containerd_store(modern: fl.Evidence) -> None:
    image = modern.image("acme/web:1.0")
    assert image.index_digest is not None
    lines = lines_of(image)
    for line in lines:
        del line["Size"]  # that store counts blocks of a snapshot, not bytes of files
    assert lines == truth_of(image.index_digest, sizes=False)


def test_every_platform_is_inspected() -> None:
    with fl.open(PLATFORMS) as evidence:
        host, other = evidence.images
        assert (host.platform, other.platform) == ("linux/amd64", "linux/arm64")
        assert host.tags == other.tags == ("acme/multi:1",)
        assert evidence.image("acme/multi:1") is host
        assert host.index_digest is not None
        assert other.manifest_digest is not None
        assert without(host.inspect(), "Id") == without(inspected(host.index_digest), "Id")
        assert without(other.inspect(), "Id") == without(inspected(other.manifest_digest), "Id")
        assert host.tree().read("/arch.txt") == b"amd64 file\n"
        assert other.tree().read("/arch.txt") == b"arm64 file\n"
        assert {a.artifact_type for image in evidence.images for a in image.attestations} == {"attestation-manifest"}
        assert [a.subject for image in evidence.images for a in image.attestations] == [
            host.manifest_digest,
            other.manifest_digest,
        ]
        assert len(evidence.artifacts) == 0


def test_ids_are_the_digests_of_the_exact_bytes(classic: fl.Evidence, modern: fl.Evidence) -> None:
    for image in (*classic.images, *modern.images):
        assert image.raw_config is not None
        assert image.id == image.config_digest == f"sha256:{hashlib.sha256(image.raw_config).hexdigest()}"
    (web,) = modern.images
    assert web.raw_manifest is not None
    assert web.manifest_digest == f"sha256:{hashlib.sha256(web.raw_manifest).hexdigest()}"
    assert [layer["digest"] for layer in json.loads(web.raw_manifest)["layers"]] == [x.digest for x in web.layers]
    assert web.config.diff_ids == tuple(layer.diff_id for layer in web.layers)


def test_the_same_image_in_every_shape(classic: fl.Evidence) -> None:
    """What skopeo and umoci made of an image holds the same files and the same history."""
    original = classic.image("acme/shop:1.0")
    files = list(files_of(original))
    assert len(files) > 30
    for path, name in ((OCI, "1.0"), (OCI_ZSTD, "1.0"), (UMOCI, "1.0"), (DIR, None), (DIR_GZIP, None)):
        with fl.open(path) as evidence:
            image = evidence.image(name) if name else evidence.images[0]
            assert [x.diff_id for x in image.layers] == [x.diff_id for x in original.layers]
            assert [x.chain_id for x in image.layers] == [x.chain_id for x in original.layers]
            assert list(files_of(image)) == files
            assert lines_of(image) == lines_of(original)
            assert image.created == original.created
            assert image.config.env == original.config.env
            assert evidence.verify().where(ok=False).first() is None


def files_of(image: fl.Image) -> Iterator[tuple[object, ...]]:
    for node in image.tree().walk():
        content = hashlib.sha256(node.read()).hexdigest() if node.kind is fl.NodeKind.FILE else None
        yield (node.path, node.kind, node.mode, node.uid, node.gid, node.size, node.mtime_ns, node.target, node.rdev,
               node.nlink, dict(node.xattrs), content)  # fmt: skip


def test_what_is_rare_in_a_file_system(committed: fl.Image) -> None:
    tree = committed.tree()
    assert tree.node("/special/setuid").mode == 0o4755
    assert (
        tree.node("/special/capable").xattrs["security.capability"].hex() == "0100000200240000000000000000000000000000"
    )
    assert (tree.node("/special/capable").uid, tree.node("/special/capable").gid) == (1_234_567, 3_000_000)
    assert tree.node("/special/escaping").target == "../../../../../../etc/shadow"
    assert tree.read("/special/absolute") == tree.read("/etc/passwd")
    assert tree.read("/special/latin1-\udce9") == b"latin1\n"
    assert tree.read("/special/ünïcode-名前") == b"unicode\n"
    assert tree.read(f"/special/long-{'n' * 60}/long-{'m' * 100}/{'f' * 120}") == b"long\n"
    assert tree.node("/special/hard2").nlink == 1  # its other name is a directory now
    assert tree.read("/special/hard2") == b"hard\n"
    assert tree.node("/opt/pipe").kind is fl.NodeKind.FIFO
    zero = tree.node("/opt/zero")
    assert (zero.kind, zero.rdev) == (fl.NodeKind.CHAR, 0x105)
    assert tree.node("/tmp").mode == 0o1777
    assert tree.node("/opt/keep/k.txt").read() == b"k\n"
    assert tree.node("/opt/keep/k-hard.txt").read() == b"k\nchanged\n"


def test_versions_of_a_deleted_key(committed: fl.Image) -> None:
    added, deleted = committed.versions("/root/.ssh/id_rsa")
    assert (added.kind, added.layer, added.size, added.visible) == (fl.ChangeKind.ADDED, 4, 384, False)
    assert (deleted.kind, deleted.layer, deleted.size, deleted.visible) == (fl.ChangeKind.DELETED, 6, None, False)
    key = (Path(__file__).parents[2] / "fixtures" / "context" / "id_rsa").read_bytes()
    assert added.read() == added.open().read() == key
    assert added.sha256 == hashlib.sha256(key).hexdigest()
    assert deleted.note == "whiteout"
    assert str(deleted.origin).endswith("/layer.tar > tar header @1024")
    assert deleted.sha256 is None
    with pytest.raises(fl.PathNotFound):
        deleted.open()
    assert "/root/.ssh/id_rsa" not in committed.tree()


def test_versions_of_a_changed_file(committed: fl.Image) -> None:
    first, second = committed.versions("www/index.html")
    assert [first.visible, second.visible] == [False, True]
    assert first.read() == b"<html><body>Acme shop v1</body></html>\n"
    assert second.read() == first.read() + b"<p>v1.1</p>\n" == committed.tree().read("/www/index.html")
    assert second.path == "/www/index.html"


@pytest.mark.parametrize(
    ("path", "note"),
    [
        ("/opt/app/one.txt", "opaque directory /opt/app"),
        ("/opt/old/sub/old.txt", "whiteout of /opt/old"),
        ("/special/sticky/inside", "/special/sticky is a file now"),
        ("/www/login.php", "whiteout"),
    ],
)
def test_versions_say_how_a_path_was_deleted(committed: fl.Image, path: str, note: str) -> None:
    versions = committed.versions(path)
    assert [version.kind for version in versions] == ["A", "D"]
    assert versions[-1].note == note
    assert "tar header @" in str(versions[-1].origin).rpartition("layer.tar")[2]


def test_versions_of_a_directory_that_a_later_layer_repeats(committed: fl.Image) -> None:
    versions = [(version.layer, version.kind, version.visible) for version in committed.versions("/root/.ssh")]
    assert versions == [(4, "A", False), (6, "C", True)]


def test_versions_of_what_never_was(committed: fl.Image) -> None:
    with pytest.raises(fl.PathNotFound):
        committed.versions("/never/there")


def test_hidden_files_and_what_they_waste(committed: fl.Image) -> None:
    hidden = {(row.path, row.size, row.layer, row.hidden_by) for row in committed.hidden()}
    assert hidden == {
        ("/special/sticky/inside", 7, 1, 9),
        ("/www/css/main.css", 17, 2, 12),
        ("/www/index.html", 39, 2, 12),
        ("/www/login.php", 23, 2, 13),
        ("/root/.ssh/id_rsa", 384, 4, 6),
        ("/opt/app/one.txt", 4, 5, 7),
        ("/opt/deleted-later.txt", 4, 5, 7),
        ("/opt/old/sub/old.txt", 4, 5, 8),
        ("/opt/app/new.txt", 9, 7, 13),
    }
    assert committed.wasted == sum(row.size for row in committed.hidden()) == 491
    assert [layer.wasted for layer in committed.layers] == [0, 7, 79, 0, 384, 12, 0, 9, 0, 0, 0, 0, 0, 0]
    assert {row.path for row in committed.hidden() if row.node.read()} == {path for path, *_ in hidden}


def test_nothing_of_an_image_is_both_hidden_and_visible(classic: fl.Evidence, modern: fl.Evidence) -> None:
    for image in (*classic.images, *modern.images):
        for row in image.hidden():
            visible = [version.layer for version in image.versions(row.path) if version.visible]
            assert row.layer not in visible
            assert row.hidden_by >= row.layer


def test_tree_of_the_first_layers(committed: fl.Image) -> None:
    assert committed.tree(5).read("/root/.ssh/id_rsa").startswith(b"-----BEGIN")
    assert "/root/.ssh/id_rsa" not in committed.tree(7)
    assert [node.path for node in committed.tree(0).walk()] == ["/"]
    assert [n.path for n in committed.tree(99).walk()] == [n.path for n in committed.tree().walk()]
    before = {node.path for node in committed.tree(12).walk()}
    after = {node.path for node in committed.tree(13).walk()}
    changes = {change.path: change.kind for change in committed.layers[12].changes()}
    assert after - before == {path for path, kind in changes.items() if kind is fl.ChangeKind.ADDED}
    assert before - after == {path for path, kind in changes.items() if kind is fl.ChangeKind.DELETED}


def test_changes_of_the_intrusion(committed: fl.Image) -> None:
    changes = [change for change in committed.layers[-1].changes() if change.what != ("mtime",)]
    assert [f"{change.kind} {change.path}" for change in changes] == [
        "A /opt/app/i.txt",
        "D /opt/app/new.txt",
        "A /tmp/.hidden",
        "A /tmp/.hidden/p",
        "D /www/login.php",
        "A /www/shell.php",
    ]
    assert changes[-1].node is not None
    assert changes[-1].node.read() == b"<?php /* WEBSHELL-TEST */ ?>\n"


def test_layers_by_name(committed: fl.Image) -> None:
    for layer in committed.layers:
        assert layer.diff_id is not None
        assert committed.layer(layer.index) is committed.layer(layer.diff_id) is committed.layer(layer.diff_id[7:27])
    assert committed.layer(-1) is committed.layers[-1]
    for missing in (14, -15, "sha256:0000", "nothing"):
        with pytest.raises(fl.NotFound):
            committed.layer(missing)


def test_a_start_that_fits_several_layers_is_ambiguous(committed: fl.Image) -> None:
    starts = [layer.diff_id[7:8] for layer in committed.layers if layer.diff_id]
    common = next(start for start in starts if starts.count(start) > 1)
    with pytest.raises(fl.AmbiguousName):
        committed.layer(common)


def test_sizes(committed: fl.Image, modern: fl.Evidence) -> None:
    assert committed.size == inspected(committed.id)["Size"]
    assert committed.size == sum(layer.content_size or 0 for layer in committed.layers)
    web = modern.image("acme/web:1.0")
    assert web.stored_size == sum(layer.size or 0 for layer in web.layers) < web.size


def test_the_dockerfile_tells_the_story(committed: fl.Image, modern: fl.Evidence) -> None:
    for text in (committed.dockerfile(), modern.images[0].dockerfile()):
        for part in (
            "HEALTHCHECK",
            'VOLUME ["/var/cache/acme"]',
            "EXPOSE 80/tcp 9000/udp",
            "ONBUILD RUN true",
            "id_rsa",
        ):
            assert part in text


def test_images_are_a_table(classic: fl.Evidence) -> None:
    assert [image.tags for image in classic.images] == [(name,) for name in SHOP]
    assert "acme/tool:1" in repr(classic.images)
    assert classic.images.where(id=classic.image("acme/tool:1").id)[0] is classic.image("acme/tool:1")
    assert repr(classic.images[0]).startswith("Image(acme/shop:1.0, sha256:")


def test_nothing_real_is_a_problem(classic: fl.Evidence, modern: fl.Evidence) -> None:
    for evidence in (classic, modern):
        for image in evidence.images:
            image.tree()
        assert list(evidence.problems) == []


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="no skopeo command")
def test_skopeo_sees_the_same_configuration(modern: fl.Evidence) -> None:
    source = f"docker-archive:{WEB}:acme/web:1.0"
    shown = subprocess.run(["skopeo", "inspect", "--config", "--raw", source], capture_output=True, check=True).stdout
    assert modern.images[0].raw_config == shown.removesuffix(b"\n")
