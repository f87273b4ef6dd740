"""OCI image layouts and skopeo's `dir:` folders, sound and hostile."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import forensics_lib as fl
from tests.imagemaker import (
    CONFIG,
    INDEX,
    LAYER,
    MANIFEST,
    Files,
    Layout,
    Recipe,
    compressed,
    digest_of,
    docker_save,
    hybrid_save,
    image_dir,
    oci_layout,
    schema_one_dir,
    to_json,
    v1_ids,
    write_folder,
    write_tar,
)
from tests.samples import DIR, DIR_GZIP, OCI, OCI_ZSTD, UMOCI, unpack
from tests.tarmaker import TarMaker

BASE = TarMaker().dir("etc/").file("etc/passwd", b"root\n").file("secret", b"key").end()
TOP = TarMaker().file(".wh.secret").file("app", b"1").end()
EMPTY = "application/vnd.oci.empty.v1+json"
ARM = ("linux", "arm64")


def write(files: Files, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_folder(files, path)


def messages(evidence: fl.Evidence) -> list[str]:
    return [problem.message for problem in evidence.problems]


def failed(evidence: fl.Evidence) -> list[str]:
    return [check.subject for check in evidence.verify() if not check.ok]


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd", "xz", "bzip2"])
@pytest.mark.parametrize("shape", [oci_layout, image_dir], ids=lambda shape: shape.__name__)
@pytest.mark.parametrize("form", ["folder", "tar"])
def test_layers_of_every_compression(
    tmp_path: Path, compression: str, shape: Callable[[Recipe], Files], form: str
) -> None:
    recipe = Recipe([BASE, TOP], compression=compression)
    files = shape(recipe)
    path = write(files, tmp_path / "layout") if form == "folder" else write_tar(files, tmp_path / "layout.tar")
    with fl.open(path) as evidence:
        (image,) = evidence.images
        assert evidence.kind == ("oci-layout" if shape is oci_layout else "image-dir")
        assert {layer.compression for layer in image.layers} == {fl.Compression(compression)}
        assert [layer.digest for layer in image.layers] == [
            digest_of(compressed(x, compression)) for x in recipe.layers
        ]
        assert [layer.diff_id for layer in image.layers] == [digest_of(layer) for layer in recipe.layers]
        assert [layer.size for layer in image.layers] == [len(compressed(x, compression)) for x in recipe.layers]
        assert [node.path for node in image.tree().walk()] == ["/", "/app", "/etc", "/etc/passwd"]
        assert image.manifest_media_type == MANIFEST
        assert image.raw_manifest is not None
        assert image.manifest_digest == digest_of(image.raw_manifest)
        assert (messages(evidence), failed(evidence)) == ([], [])


def test_names_of_a_layout(tmp_path: Path) -> None:
    layout = Layout()
    first, second = layout.manifest(Recipe([BASE])), layout.manifest(Recipe([TOP]))
    layout.name(first, "1.0", "example.com/acme/web:1.0")
    layout.manifests.append(second | {"annotations": {
        "org.opencontainers.image.ref.name": "2", "io.containerd.image.name": "docker.io/library/web:2",
    }})  # fmt: skip
    with fl.open(write(layout.files(), tmp_path / "layout")) as evidence:
        one, two = evidence.images
        assert one.tags == ("1.0", "example.com/acme/web:1.0")
        assert two.tags == ("web:2",)
        assert evidence.image("1.0") is evidence.image("example.com/acme/web") is one
        assert evidence.image("web") is evidence.image(two.id[7:19]) is two


def test_an_index_of_platforms(tmp_path: Path) -> None:
    layout = Layout()
    arm = layout.manifest(Recipe([BASE], platform=ARM))
    amd = layout.manifest(Recipe([BASE, TOP]))
    layout.name(layout.add({"schemaVersion": 2, "mediaType": INDEX, "manifests": [arm, amd]}, INDEX), "web:1")
    with fl.open(write(layout.files(), tmp_path / "layout")) as evidence:
        assert [image.platform for image in evidence.images] == ["linux/amd64", "linux/arm64"]
        assert {image.tags for image in evidence.images} == {("web:1",)}
        assert {image.index_digest for image in evidence.images} == {layout.manifests[0]["digest"]}
        assert evidence.image("web:1").platform == "linux/amd64"
        assert (messages(evidence), failed(evidence)) == ([], [])


def test_an_index_inside_an_index(tmp_path: Path) -> None:
    layout = Layout()
    inner = layout.add({"schemaVersion": 2, "mediaType": INDEX, "manifests": [layout.manifest(Recipe([BASE]))]}, INDEX)
    middle = layout.add({"schemaVersion": 2, "mediaType": INDEX, "manifests": [inner]}, INDEX)
    layout.name(middle, "deep:1")
    with fl.open(write(layout.files(), tmp_path / "layout")) as evidence:
        assert [image.tags for image in evidence.images] == [("deep:1",)]
        assert "/etc/passwd" in evidence.images[0].tree()


def test_an_index_nested_too_deep(tmp_path: Path) -> None:
    layout = Layout()
    descriptor = layout.manifest(Recipe([BASE]))
    for _ in range(40):
        descriptor = layout.add({"schemaVersion": 2, "manifests": [descriptor]}, INDEX)
    layout.name(descriptor)
    with fl.open(write(layout.files(), tmp_path / "layout")) as evidence:
        assert list(evidence.images) == []
        assert any(isinstance(problem.error, fl.LimitExceeded) for problem in evidence.problems)


def test_a_few_indexes_that_make_many_ways(tmp_path: Path) -> None:
    """Twelve levels, each naming the next one six times, make two thousand million ways to one image."""
    layout = Layout()
    descriptor = layout.manifest(Recipe([BASE]))
    for level in range(12):
        more = {"annotations": {"level": str(level)}}
        descriptor = layout.add({"schemaVersion": 2, "manifests": [descriptor, descriptor | more] * 3}, INDEX)
    layout.name(descriptor)
    layout.name(layout.manifest(Recipe([TOP])), "after:1")
    with fl.open(write(layout.files(), tmp_path / "layout")) as evidence:
        assert [image.tags for image in evidence.images] == [(), ("after:1",)]
        assert messages(evidence) == []


def test_an_index_that_leads_to_itself(tmp_path: Path) -> None:
    # Its digest cannot be right, so the blob lies under the digest it names.
    layout = Layout()
    own = "sha256:" + "a" * 64
    layout.blobs[own] = to_json({"schemaVersion": 2, "manifests": [{"mediaType": INDEX, "digest": own, "size": 1}]})
    layout.manifests.append({"mediaType": INDEX, "digest": own, "size": len(layout.blobs[own])})
    layout.name(layout.manifest(Recipe([BASE])), "good:1")
    with fl.open(write(layout.files(), tmp_path / "layout")) as evidence:
        assert [image.tags for image in evidence.images] == [("good:1",)]
        assert any("leads to itself" in message for message in messages(evidence))
        assert any(own in subject for subject in failed(evidence))


@pytest.mark.parametrize("part", ["manifest", "config", "layer"])
def test_a_missing_blob(tmp_path: Path, part: str) -> None:
    layout = Layout()
    recipe = Recipe([BASE, TOP])
    descriptor = layout.manifest(recipe)
    layout.name(descriptor, "web:1")
    gone = {
        "manifest": descriptor["digest"],
        "config": digest_of(recipe.configuration()),
        "layer": digest_of(compressed(TOP, "gzip")),
    }[part]
    del layout.blobs[gone]
    with fl.open(write(layout.files(), tmp_path / "layout")) as evidence:
        assert any(gone in message and "missing" in message for message in messages(evidence))
        assert any(gone in subject for subject in failed(evidence))
        if part == "manifest":
            assert list(evidence.images) == []
            return
        (image,) = evidence.images
        assert len(image.layers) == 2
        if part == "config":
            assert image.raw_config is None
            assert "/app" in image.tree()
        else:
            assert image.layers[1].unreadable is not None
            assert image.layers[1].size is None
            assert [node.path for node in image.tree().walk()] == ["/", "/etc", "/etc/passwd", "/secret"]
            assert "undecodable" not in [check.actual for check in evidence.verify()]


def test_a_foreign_layer(tmp_path: Path) -> None:
    layout = Layout()
    recipe = Recipe([BASE, TOP])
    document = json.loads(layout.blobs[layout.manifest(recipe)["digest"]])
    document["layers"][0] |= {
        "mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "urls": ["https://example.com/base"],
    }
    del layout.blobs[document["layers"][0]["digest"]]
    layout.name(layout.add(document, MANIFEST), "windows:1")
    with fl.open(write(layout.files(), tmp_path / "layout")) as evidence:
        (image,) = evidence.images
        assert isinstance(image.layers[0].unreadable, fl.UnsupportedFormat)
        assert [node.path for node in image.tree().walk()] == ["/", "/app"]
        assert any("https://example.com/base" in message for message in messages(evidence))
        assert failed(evidence) == []


def test_an_encrypted_layer(tmp_path: Path) -> None:
    layout = Layout()
    recipe = Recipe([BASE, TOP])
    document = json.loads(layout.blobs[layout.manifest(recipe)["digest"]])
    cipher = bytes(range(256)) * 4
    document["layers"][1] = layout.add(
        cipher, LAYER + "+gzip+encrypted", annotations={"org.opencontainers.image.enc.keys.jwe": "x"}
    )
    layout.name(layout.add(document, MANIFEST), "secret:1")
    with fl.open(write(layout.files(), tmp_path / "layout")) as evidence:
        (image,) = evidence.images
        assert isinstance(image.layers[1].unreadable, fl.UnsupportedFormat)
        assert image.layers[1].size == len(cipher)
        assert "/secret" in image.tree()
        assert [message for message in messages(evidence) if "encrypted" in message]
        assert failed(evidence) == []
        blobs = {row.sha256 for row in evidence.hashes(kinds=("blob",))}
        assert digest_of(cipher)[7:] in blobs


@pytest.mark.parametrize(
    ("content", "name"), [(b"hsqs" + bytes(92), "squashfs"), (bytes(1024) + b"\xe2\xe1\xf5\xe0", "EROFS")]
)
def test_a_layer_that_is_a_file_system(tmp_path: Path, content: bytes, name: str) -> None:
    with fl.open(write(oci_layout(Recipe([BASE, content], compression="none")), tmp_path / "layout")) as evidence:
        (image,) = evidence.images
        assert isinstance(image.layers[1].unreadable, fl.UnsupportedFormat)
        assert [message.endswith(f"is a {name} file system and no tar archive") for message in messages(evidence)] == [
            True
        ]
        assert "/secret" in image.tree()
        assert [(check.subject[-15:], check.actual) for check in evidence.verify() if not check.ok] == [
            ("layer 1 diff_id", "undecodable")
        ]


def test_a_layer_whose_first_name_looks_like_a_file_system(tmp_path: Path) -> None:
    layer = TarMaker().file("hsqs", b"1").end()
    with fl.open(write(oci_layout(Recipe([layer], compression="none")), tmp_path / "layout")) as evidence:
        assert evidence.images[0].tree().read("/hsqs") == b"1"
        assert messages(evidence) == []


@pytest.mark.parametrize("shape", [oci_layout, image_dir, docker_save], ids=lambda shape: shape.__name__)
@pytest.mark.parametrize("form", ["folder", "tar"])
def test_an_image_inside_folders(tmp_path: Path, shape: Callable[[Recipe], Files], form: str) -> None:
    """As ``tar czf web.tgz web/`` packs a layout."""
    plain = shape(Recipe([BASE, TOP], ["web:1"]))
    files = {f"case 7/web/{name}": content for name, content in plain.items()}
    with (
        fl.open(write(plain, tmp_path / "plain")) as expected,
        fl.open(
            write(files, tmp_path / "layout") if form == "folder" else write_tar(files, tmp_path / "layout.tar", "gzip")
        ) as evidence,
    ):
        assert evidence.kind is expected.kind
        (image,) = evidence.images
        assert (image.id, image.tags) == (expected.images[0].id, expected.images[0].tags)
        assert image.tree().read("/app") == b"1"
        assert (failed(evidence), messages(evidence)) == ([], [])
        assert len(evidence.verify()) == len(expected.verify())
        found, known = ({row.path: row.sha256 for row in one.hashes(kinds="blob")} for one in (evidence, expected))
        assert found == known
        assert len(evidence.remnants()) == 0


def test_attestations_hang_on_their_image(tmp_path: Path) -> None:
    layout = Layout()
    image = layout.manifest(Recipe([BASE]))
    predicate = "https://slsa.dev/provenance/v1"
    annotations = {"in-toto.io/predicate-type": predicate}
    statement = layout.add(b'{"predicate":{}}', "application/vnd.in-toto+json", annotations=annotations)
    document = {"schemaVersion": 2, "mediaType": MANIFEST, "config": layout.add(b"{}", CONFIG), "layers": [statement]}
    annotations = {"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": image["digest"]}
    platform = {"os": "unknown", "architecture": "unknown"}
    attestation = layout.add(document, MANIFEST, platform=platform, annotations=annotations)
    layout.name(layout.add({"schemaVersion": 2, "mediaType": INDEX, "manifests": [image, attestation]}, INDEX), "web:1")
    with fl.open(write(layout.files(), tmp_path / "layout")) as evidence:
        (found,) = evidence.images
        (artifact,) = found.attestations
        assert (artifact.artifact_type, artifact.subject) == ("attestation-manifest", found.manifest_digest)
        assert artifact.contents == ((predicate, statement["digest"]),)
        assert b"".join(artifact.blobs[0].blocks()) == layout.blobs[statement["digest"]]
        assert list(evidence.artifacts) == []
        assert failed(evidence) == []


def test_artifacts_with_and_without_their_subject(tmp_path: Path) -> None:
    layout = Layout()
    image = layout.manifest(Recipe([BASE]))
    layout.name(image, "web:1")
    empty = layout.add(b"{}", EMPTY)
    for number, subject in enumerate((image["digest"], "sha256:" + "b" * 64, None)):
        more = {"subject": {"mediaType": MANIFEST, "digest": subject, "size": 1}} if subject else {}
        report = layout.add(f"report {number}".encode(), "text/plain")
        document = {"schemaVersion": 2, "artifactType": f"report/{number}", "config": empty, "layers": [report], **more}
        layout.name(layout.add(document, MANIFEST))
    chart = layout.add(b"{}", "application/vnd.cncf.helm.config.v1+json")
    layout.name(layout.add({"schemaVersion": 2, "config": chart, "layers": []}, MANIFEST), "chart:1")
    with fl.open(write(layout.files(), tmp_path / "layout")) as evidence:
        (found,) = evidence.images
        assert [artifact.artifact_type for artifact in found.attestations] == ["report/0"]
        assert [(a.artifact_type, a.subject) for a in evidence.artifacts] == [
            ("report/1", "sha256:" + "b" * 64),
            ("report/2", None),
            ("application/vnd.cncf.helm.config.v1+json", None),
        ]
        assert failed(evidence) == []


def test_a_document_inside_its_descriptor(tmp_path: Path) -> None:
    import base64

    layout = Layout()
    recipe = Recipe([BASE])
    document = json.loads(layout.blobs[layout.manifest(recipe)["digest"]])
    config = recipe.configuration()
    document["config"]["data"] = base64.b64encode(config).decode()
    del layout.blobs[digest_of(config)]
    layout.name(layout.add(document, MANIFEST), "web:1")
    with fl.open(write(layout.files(), tmp_path / "layout")) as evidence:
        assert evidence.images[0].raw_config == config
        assert (messages(evidence), failed(evidence)) == ([], [])
    document["config"]["data"] = base64.b64encode(config + b" ").decode()
    layout.name(layout.add(document, MANIFEST), "forged:1")
    with fl.open(write(layout.files(), tmp_path / "forged")) as evidence:
        assert evidence.image("forged:1").raw_config is None
        assert messages(evidence)


def test_a_layout_without_its_index(tmp_path: Path) -> None:
    files = oci_layout(Recipe([BASE, TOP], ["web:1"]))
    for broken in ({}, {"index.json": b"{"}):
        rest = {name: content for name, content in files.items() if name != "index.json"} | broken
        with fl.open(write(rest, tmp_path / str(len(broken)))) as evidence:
            assert evidence.kind is fl.EvidenceKind.OCI_LAYOUT
            (image,) = evidence.images
            assert image.tags == ()
            assert "/app" in image.tree()
            assert messages(evidence)


def test_a_layout_without_its_mark(tmp_path: Path) -> None:
    files = oci_layout(Recipe([BASE]))
    del files["oci-layout"]
    with fl.open(write(files, tmp_path / "layout")) as evidence:
        assert evidence.kind is fl.EvidenceKind.OCI_LAYOUT
        assert len(evidence.images) == 1
        assert any("no oci-layout file" in message for message in messages(evidence))


def test_a_layout_of_another_version(tmp_path: Path) -> None:
    files = oci_layout(Recipe([BASE])) | {"oci-layout": b'{"imageLayoutVersion": "2.0.0"}'}
    with fl.open(write(files, tmp_path / "layout")) as evidence:
        assert len(evidence.images) == 1
        assert any("'2.0.0'" in message for message in messages(evidence))


def test_digests_that_are_paths(tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b'{"config": {}, "layers": []}')
    layout = Layout()
    for digest in ("sha256:../../../outside", "../../outside", "sha256:" + "A" * 64, "md5:" + "0" * 32, "", "sha256:"):
        layout.manifests.append({"mediaType": MANIFEST, "digest": digest, "size": 28})
    layout.name(layout.manifest(Recipe([BASE])), "good:1")
    with fl.open(write(layout.files(), tmp_path / "layout")) as evidence:
        assert [image.tags for image in evidence.images] == [("good:1",)]
        assert len([message for message in messages(evidence) if "no valid digest" in message]) == 6
        assert len(failed(evidence)) == 6


def test_a_blob_of_sha512(tmp_path: Path) -> None:
    import hashlib

    layout = Layout()
    document = layout.blobs.pop(layout.manifest(Recipe([BASE]))["digest"])
    digest = f"sha512:{hashlib.sha512(document).hexdigest()}"
    layout.blobs[digest] = document
    layout.manifests.append({"mediaType": MANIFEST, "digest": digest, "size": len(document)})
    with fl.open(write(layout.files(), tmp_path / "layout")) as evidence:
        assert evidence.images[0].manifest_digest == digest
        assert (messages(evidence), failed(evidence)) == ([], [])
    layout.blobs[digest] = document + b" "
    with fl.open(write(layout.files(), tmp_path / "layout")) as evidence:
        assert any(digest in subject for subject in failed(evidence))


def test_shared_blobs_beside_the_layout(tmp_path: Path) -> None:
    files = oci_layout(Recipe([BASE, TOP], ["web:1"]))
    write({name: content for name, content in files.items() if not name.startswith("blobs/")}, tmp_path / "layout")
    write({n.removeprefix("blobs/"): c for n, c in files.items() if n.startswith("blobs/")}, tmp_path / "shared")
    with fl.open(tmp_path / "layout") as evidence:
        assert list(evidence.images) == []
        assert failed(evidence)
    with fl.open(tmp_path / "layout", shared_blobs=tmp_path / "shared") as evidence:
        assert "/app" in evidence.image("web:1").tree()
        assert (messages(evidence), failed(evidence)) == ([], [])


def test_media_types_that_lie(tmp_path: Path) -> None:
    layout = Layout()
    document = json.loads(layout.blobs[layout.manifest(Recipe([BASE], compression="zstd"))["digest"]])
    document["layers"][0]["mediaType"] = LAYER + "+gzip"
    layout.name(layout.add(document, MANIFEST), "liar:1")
    with fl.open(write(layout.files(), tmp_path / "layout")) as evidence:
        assert evidence.images[0].layers[0].compression is fl.Compression.ZSTD
        assert "/etc/passwd" in evidence.images[0].tree()
        assert any("its compression is zstd" in message for message in messages(evidence))


def test_documents_that_break_the_schema_are_read_all_the_same(tmp_path: Path) -> None:
    layout = Layout()
    document = json.loads(layout.blobs[layout.manifest(Recipe([BASE]))["digest"]])
    document["layers"][0]["size"] = "many"
    layout.name(layout.add(document, MANIFEST), "odd:1")
    with fl.open(write(layout.files(), tmp_path / "layout")) as evidence:
        assert "/etc/passwd" in evidence.image("odd:1").tree()
        assert any("breaks the OCI schema" in message for message in messages(evidence))


@pytest.mark.parametrize("value", [{}, [], None, 7, "x", {"manifests": {}}, {"manifests": [None, 7, {"digest": 7}]},
                                   {"manifests": [{"digest": "sha256:" + "0" * 64, "size": -1, "annotations": []}]}],
                         ids=lambda value: json.dumps(value)[:30])  # fmt: skip
def test_an_index_of_the_wrong_shape(tmp_path: Path, value: Any) -> None:
    files = oci_layout(Recipe([BASE])) | {"index.json": to_json(value)}
    with fl.open(write(files, tmp_path / "layout")) as evidence:
        for image in evidence.images:
            image.inspect()
        list(evidence.hashes())
        list(evidence.verify())
        assert messages(evidence)


def test_seekable_zstd_and_gzip_with_an_index_at_their_end(tmp_path: Path) -> None:
    """zstd:chunked and eStargz put what they need for themselves behind or between the parts of the layer."""
    skippable = b"\x50\x2a\x4d\x18" + (40).to_bytes(4, "little") + b"zstd:chunked manifest, made up, 40 bytes"
    assert len(skippable) == 48
    halves = [compressed(BASE[:1024], "zstd"), skippable, compressed(BASE[1024:], "zstd"), skippable]
    footer = compressed(b"", "gzip")
    stargz = [compressed(BASE[:1024], "gzip"), compressed(BASE[1024:], "gzip"), footer]
    for parts, suffix in ((halves, "+zstd"), ([skippable, *halves], "+zstd"), (stargz, "+gzip")):
        layout = Layout()
        document = json.loads(layout.blobs[layout.manifest(Recipe([BASE]))["digest"]])
        document["layers"] = [layout.add(b"".join(parts), LAYER + suffix)]
        layout.name(layout.add(document, MANIFEST), "lazy:1")
        with fl.open(write(layout.files(), tmp_path / f"layout{len(parts)}{suffix}")) as evidence:
            (image,) = evidence.images
            assert image.tree().read("/etc/passwd") == b"root\n"
            assert (messages(evidence), failed(evidence)) == ([], [])


def test_estargz_keeps_its_table_of_contents_as_a_member(tmp_path: Path) -> None:
    layer = TarMaker().file("a", b"1").file("stargz.index.json", b'{"version":1}').end()
    with fl.open(write(oci_layout(Recipe([layer])), tmp_path / "layout")) as evidence:
        assert {node.path for node in evidence.images[0].tree().walk()} == {"/", "/a", "/stargz.index.json"}


# skopeo's dir:


def test_dir_of_an_index(tmp_path: Path) -> None:
    layout = Layout()
    manifests = [layout.manifest(Recipe([BASE])), layout.manifest(Recipe([BASE, TOP], platform=ARM))]
    documents = {f"{m['digest'][7:]}.manifest.json": layout.blobs.pop(m["digest"]) for m in manifests}
    files = {digest[7:]: content for digest, content in layout.blobs.items()} | documents
    files |= {"version": b"Directory Transport Version: 1.1\n"}
    files["manifest.json"] = to_json({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests})
    with fl.open(write(files, tmp_path / "dir")) as evidence:
        assert evidence.kind is fl.EvidenceKind.IMAGE_DIR
        assert [image.platform for image in evidence.images] == ["linux/amd64", "linux/arm64"]
        assert (messages(evidence), failed(evidence)) == ([], [])
    del files[next(iter(documents))]
    shutil.rmtree(tmp_path / "dir")
    with fl.open(write(files, tmp_path / "dir")) as evidence:
        assert [image.platform for image in evidence.images] == ["linux/arm64"]
        assert any("is missing" in message for message in messages(evidence))


def test_dir_of_schema_one(tmp_path: Path) -> None:
    recipe = Recipe([BASE, TOP])
    with fl.open(write(schema_one_dir(recipe), tmp_path / "dir")) as evidence:
        (image,) = evidence.images
        assert image.tags == ("library/old:1",)
        assert image.id == v1_ids(recipe)[-1]
        assert [layer.digest for layer in image.layers] == [digest_of(compressed(x, "gzip")) for x in recipe.layers]
        assert [node.path for node in image.tree().walk()] == ["/", "/app", "/etc", "/etc/passwd"]
        assert [step.created_by for step in image.history()] == ["step 1", "step 0"]
        assert image.config.env == ("OLD=1",)
        assert (messages(evidence), failed(evidence)) == ([], [])


@pytest.mark.parametrize("fixture", [OCI, OCI_ZSTD, DIR_GZIP, UMOCI], ids=lambda path: path.name)
def test_real_ones_are_sound_as_tar_and_as_folder(fixture: Path, tmp_path: Path) -> None:
    with fl.open(fixture) as one, fl.open(unpack(fixture, tmp_path)) as other:
        for evidence in (one, other):
            for image in evidence.images:
                image.tree()
            assert (messages(evidence), failed(evidence)) == ([], [])
        assert [image.id for image in one.images] == [image.id for image in other.images]
        rows = [{(r.kind, r.owner, r.path, r.sha256) for r in e.hashes(kinds=("file", "layer"))} for e in (one, other)]
        assert rows[0] == rows[1]


def test_a_real_dir_with_layers_that_are_not_what_they_are_declared_as() -> None:
    with fl.open(DIR) as evidence:
        assert {layer.compression for layer in evidence.images[0].layers} == {fl.Compression.NONE}
        assert all("its compression is none" in message for message in messages(evidence))
        assert failed(evidence) == []


def test_what_umoci_changed() -> None:
    with fl.open(UMOCI) as evidence:
        before, after = evidence.image("1.0"), evidence.image("repacked")
        assert len(after.layers) == len(before.layers) + 1
        changes = {c.path: str(c.kind) for c in after.layers[-1].changes() if c.what != ("mtime",)}
        assert changes == {"/added.txt": "A", "/www/index.html": "D"}
        assert after.tree().node("/added.txt").xattrs == {"user.lab": b"x"}
        assert [version.kind for version in after.versions("/www/index.html")] == ["A", "D"]
        assert after.config.author == "umoci lab"
        assert "UM=1" in after.config.env
        assert after.alignment is fl.Alignment.EXACT


# Independent tools, where they are installed


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="no skopeo command")
@pytest.mark.parametrize("name", ["1.0", "repacked"])
def test_skopeo_sees_the_same_documents(name: str, tmp_path: Path) -> None:
    folder = unpack(UMOCI, tmp_path / "layout")

    def skopeo(*arguments: str) -> bytes:
        return subprocess.run(
            ["skopeo", "inspect", *arguments, f"oci:{folder}:{name}"], capture_output=True, check=True
        ).stdout

    with fl.open(folder) as evidence:
        image = evidence.image(name)
        assert image.raw_manifest == skopeo("--raw")
        assert image.raw_config is not None
        assert image.raw_config.rstrip() == skopeo("--raw", "--config").rstrip()
        shown = json.loads(skopeo())
        assert shown["Digest"] == image.manifest_digest
        assert shown["Layers"] == [layer.digest for layer in image.layers]
        assert (shown["Architecture"], shown["Os"]) == (image.architecture, image.os)
        assert shown["Env"] == list(image.config.env)
        assert shown["Labels"] == dict(image.config.labels)
        assert shown["Created"] == image.inspect()["Created"]


@pytest.mark.skipif(shutil.which("umoci") is None, reason="no umoci command")
@pytest.mark.parametrize("name", ["1.0", "repacked"])
def test_umoci_unpacks_the_same_files(name: str, tmp_path: Path) -> None:
    folder, bundle = unpack(UMOCI, tmp_path / "layout"), tmp_path / "bundle"
    done = subprocess.run(
        ["umoci", "unpack", "--rootless", "--image", f"{folder}:{name}", bundle], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"umoci cannot unpack here: {done.stderr.decode()[-200:]}")
    with fl.open(folder) as evidence, fl.open(bundle / "rootfs") as unpacked:
        tree = evidence.image(name).tree()
        expected = {node.path: node for node in unpacked.filesystems[0].tree.walk()}
        found = {node.path: node for node in tree.walk()}
        assert set(found) == set(expected)
        for path, node in found.items():
            other = expected[path]
            if node.kind in (fl.NodeKind.CHAR, fl.NodeKind.BLOCK):
                continue  # only root may make device nodes; umoci makes files instead
            assert (node.kind, node.size, node.target) == (other.kind, other.size, other.target)
            if path != "/" and node.kind is not fl.NodeKind.SYMLINK:
                assert (path, node.mode) == (path, other.mode)
            if node.kind is fl.NodeKind.FILE:
                assert node.read() == other.read()
                assert node.nlink == other.nlink
                assert node.mtime_ns == other.mtime_ns


def test_an_archive_that_is_cut_off_behind_its_blobs(tmp_path: Path) -> None:
    """``index.json`` and ``manifest.json`` come last; what the blobs tell is still an image."""
    recipe = Recipe([BASE, TOP], ["web:1"])
    for shape in (oci_layout, hybrid_save):
        blobs = {name: content for name, content in shape(recipe).items() if name.startswith("blobs/")}
        for path in (write(blobs, tmp_path / shape.__name__), write_tar(blobs, tmp_path / f"{shape.__name__}.tar")):
            with fl.open(path) as evidence:
                assert evidence.kind is fl.EvidenceKind.OCI_LAYOUT
                (image,) = evidence.images
                assert (image.id, image.tags) == (digest_of(recipe.configuration()), ())
                assert image.tree().read("/app") == b"1"
                assert failed(evidence) == []
                assert messages(evidence) == ["index.json is missing", "the layout has no oci-layout file"]
