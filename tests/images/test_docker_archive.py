"""`docker save` archives of every age, sound and contradictory."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import forensics_lib as fl
from tests.imagemaker import (
    CREATED,
    Files,
    Layout,
    Recipe,
    compressed,
    digest_of,
    docker_save,
    hybrid_save,
    oci_layout,
    to_json,
    to_tar,
    v1_ids,
    v1_save,
    write_folder,
    write_tar,
)
from tests.samples import DOCKER_SAVE
from tests.tarmaker import TarMaker

BASE = TarMaker().dir("etc/").file("etc/passwd", b"root\n").file("secret", b"key").end()
TOP = TarMaker().file(".wh.secret").file("app", b"1").end()
OTHER = TarMaker().file("other", b"22").end()
Writer = Callable[[Files, Path], Path]


def as_tar(files: Files, path: Path) -> Path:
    return write_tar(files, path / "archive.tar")


def as_folder(files: Files, path: Path) -> Path:
    return write_folder(files, path / "archive")


@pytest.fixture(params=[as_tar, as_folder], ids=["tar", "folder"])
def write(request: pytest.FixtureRequest) -> Writer:
    writer: Writer = request.param
    return writer


def messages(evidence: fl.Evidence) -> list[str]:
    return [problem.message for problem in evidence.problems]


@pytest.mark.parametrize("shape", [v1_save, docker_save, hybrid_save], ids=lambda shape: shape.__name__)
def test_every_age(tmp_path: Path, write: Writer, shape: Callable[..., Files]) -> None:
    recipe = Recipe([BASE, TOP], ["acme/web:1.0", "acme/web:latest", "host:5000/acme/web:prod"])
    with fl.open(write(shape(recipe), tmp_path)) as evidence:
        assert evidence.kind is fl.EvidenceKind.DOCKER_ARCHIVE
        (image,) = evidence.images
        assert sorted(image.tags) == sorted(recipe.tags)
        assert (image.platform, image.architecture, image.os) == ("linux/amd64", "amd64", "linux")
        assert [node.path for node in image.tree().walk()] == ["/", "/app", "/etc", "/etc/passwd"]
        assert [(step.created_by, step.size) for step in image.history()] == [("step 1", 1), ("step 0", 8)]
        assert image.alignment is fl.Alignment.EXACT
        assert messages(evidence) == []
        assert [check.subject for check in evidence.verify() if not check.ok] == []


def test_ids_and_layers_of_an_archive_with_a_manifest(tmp_path: Path, write: Writer) -> None:
    recipe = Recipe([BASE, TOP], ["acme/web:1.0"])
    with fl.open(write(docker_save(recipe), tmp_path)) as evidence:
        (image,) = evidence.images
        assert image.raw_config == recipe.configuration()
        assert image.id == image.config_digest == digest_of(recipe.configuration())
        assert (image.manifest_digest, image.index_digest, image.raw_manifest) == (None, None, None)
        for layer, content, identity in zip(image.layers, recipe.layers, v1_ids(recipe), strict=True):
            assert layer.diff_id == layer.digest == digest_of(content)
            assert layer.size == len(content)
            assert layer.compression is fl.Compression.NONE
            assert f"{identity}/layer.tar" in str(layer.origin)


def test_ids_of_the_oldest_archives(tmp_path: Path, write: Writer) -> None:
    recipe = Recipe([BASE, TOP], ["acme/web:1.0"])
    with fl.open(write(v1_save(recipe), tmp_path)) as evidence:
        (image,) = evidence.images
        assert image.id == v1_ids(recipe)[-1]
        assert evidence.image(image.id[:12]) is image
        assert image.config_digest is None
        assert [layer.diff_id for layer in image.layers] == [None, None]
        assert image.inspect()["Parent"] == v1_ids(recipe)[0]
        assert image.created is not None
        assert image.created.isoformat().startswith("2024-02-29T12:34:56.123456")


def test_digests_of_a_hybrid_archive(tmp_path: Path, write: Writer) -> None:
    recipe = Recipe([BASE, TOP], ["acme/web:1.0"])
    with fl.open(write(hybrid_save(recipe), tmp_path)) as evidence:
        (image,) = evidence.images
        assert image.raw_manifest is not None
        assert image.manifest_digest == digest_of(image.raw_manifest)
        assert image.digests == (f"acme/web@{image.manifest_digest}",)
        assert [layer.digest for layer in image.layers] == [digest_of(compressed(x, "gzip")) for x in recipe.layers]
        assert [layer.diff_id for layer in image.layers] == [digest_of(x) for x in recipe.layers]
        assert {layer.compression for layer in image.layers} == {fl.Compression.GZIP}
        assert evidence.image(image.digests[0]) is evidence.image(image.manifest_digest) is image


def test_several_images_share_layers(tmp_path: Path, write: Writer) -> None:
    first, second = Recipe([BASE], ["acme/base:1"]), Recipe([BASE, TOP], ["acme/web:1"])
    for shape in (docker_save, hybrid_save, v1_save):
        with fl.open(write(shape(first, second), tmp_path / shape.__name__)) as evidence:
            assert [image.tags for image in evidence.images] == [("acme/base:1",), ("acme/web:1",)]
            assert [len(image.layers) for image in evidence.images] == [1, 2]
            layers = [row.sha256 for row in evidence.hashes(kinds=("layer",))]
            expected = {digest_of(BASE)[7:], digest_of(TOP)[7:]}
            assert set(layers) == expected
            assert messages(evidence) == []


@pytest.fixture(autouse=True)
def folders(tmp_path: Path) -> None:
    for shape in ("docker_save", "hybrid_save", "v1_save"):
        (tmp_path / shape).mkdir()


def test_shared_layers_are_symbolic_links_inside_the_archive(tmp_path: Path) -> None:
    first, second = Recipe([BASE], ["a:1"]), Recipe([BASE, TOP], ["b:1"])
    files = docker_save(first, second)
    shared, kept = f"{v1_ids(second)[0]}/layer.tar", f"{v1_ids(first)[0]}/layer.tar"
    assert files.pop(shared) == files[kept]
    path = tmp_path / "links.tar"
    path.write_bytes(to_tar(files, links={shared: f"../{kept}"}))
    with fl.open(path) as evidence:
        image = evidence.image("b:1")
        assert [node.path for node in image.tree().walk()] == ["/", "/app", "/etc", "/etc/passwd"]
        assert image.layers[0].blob is evidence.image("a:1").layers[0].blob
        assert all(check.ok for check in evidence.verify())
        assert messages(evidence) == []


@pytest.mark.parametrize("target", ["../../../../../../etc/passwd", "/etc/passwd", "../nowhere/layer.tar", "layer.tar"])
def test_a_layer_that_is_a_link_out_of_the_archive_is_missing(tmp_path: Path, target: str) -> None:
    recipe = Recipe([BASE], ["a:1"])
    files = docker_save(recipe)
    layer = f"{v1_ids(recipe)[0]}/layer.tar"
    del files[layer]
    path = tmp_path / "links.tar"
    path.write_bytes(to_tar(files, links={layer: target}))
    with fl.open(path) as evidence:
        (image,) = evidence.images
        assert image.layers[0].unreadable is not None
        assert list(image.layers[0].tree().walk())[1:] == []
        assert list(evidence.hashes(kinds=("file",))) == []
        assert [check.actual for check in evidence.verify() if "diff_id" in check.subject] == ["missing"]
        assert any(layer in message for message in messages(evidence))


def test_real_archive_with_symbolic_links() -> None:
    with fl.open(DOCKER_SAVE) as evidence:
        shop, following = evidence.image("acme/shop:1.0"), evidence.image("acme/shop:1.1")
        assert [x.diff_id for x in shop.layers] == [x.diff_id for x in following.layers[: len(shop.layers)]]
        assert len({id(layer.blob) for image in evidence.images for layer in image.layers}) == len(
            {layer.diff_id for image in evidence.images for layer in image.layers}
        )


def test_images_without_a_name(tmp_path: Path, write: Writer) -> None:
    for shape in (docker_save, hybrid_save, v1_save):
        with fl.open(write(shape(Recipe([BASE, TOP])), tmp_path / shape.__name__)) as evidence:
            (image,) = evidence.images
            assert image.tags == ()
            assert "/app" in image.tree()
            assert messages(evidence) == []


def test_a_bare_tag_as_name_is_kept(tmp_path: Path, write: Writer) -> None:
    with fl.open(write(docker_save(Recipe([BASE], ["web:1"])), tmp_path)) as evidence:
        assert evidence.image("web").tags == evidence.image("web:1").tags == ("web:1",)


@pytest.mark.parametrize(
    "document",
    [b"", b"{", b"[]", b"{}", b"null", b"7", b"[7, null]", b'[{"Config": 7, "Layers": {"a": 1}, "RepoTags": [1]}]',
     b"\xff\xfe", b"[" * 10_000, b'[{"Config": "../../etc/passwd", "Layers": ["../../etc/passwd", "/dev/zero", ""]}]',
     b'[{"Config":"\xff.json"}]'],
    ids=lambda document: repr(document[:20]),
)  # fmt: skip
def test_a_broken_manifest_is_a_problem(tmp_path: Path, write: Writer, document: bytes) -> None:
    files = docker_save(Recipe([BASE], ["a:1"])) | {"manifest.json": document}
    with fl.open(write(files, tmp_path)) as evidence:
        assert evidence.kind is fl.EvidenceKind.DOCKER_ARCHIVE
        for image in evidence.images:
            image.inspect()
            list(image.tree().walk())
        list(evidence.hashes())
        list(evidence.verify())
        assert messages(evidence)


def test_a_missing_configuration(tmp_path: Path, write: Writer) -> None:
    recipe = Recipe([BASE, TOP], ["a:1"])
    files = docker_save(recipe)
    name = f"{digest_of(recipe.configuration())[7:]}.json"
    del files[name]
    with fl.open(write(files, tmp_path)) as evidence:
        (image,) = evidence.images
        assert (image.id, image.raw_config, image.tags) == (digest_of(recipe.configuration()), None, ("a:1",))
        assert [node.path for node in image.tree().walk()] == ["/", "/app", "/etc", "/etc/passwd"]
        assert image.alignment is fl.Alignment.MISSING
        assert any(name in message for message in messages(evidence))


def test_fewer_diff_ids_than_layers_are_not_paired(tmp_path: Path, write: Writer) -> None:
    config = {"rootfs": {"type": "layers", "diff_ids": [digest_of(BASE)]}}
    with fl.open(write(docker_save(Recipe([BASE, TOP], ["a:1"], config=config)), tmp_path)) as evidence:
        (image,) = evidence.images
        assert [layer.diff_id for layer in image.layers] == [None, None]
        assert any("names 1 layers, the manifest 2" in message for message in messages(evidence))
        failed = [check.subject for check in evidence.verify() if not check.ok]
        assert any("layer count" in subject for subject in failed)


def test_diff_ids_that_are_no_digests(tmp_path: Path, write: Writer) -> None:
    config = {"rootfs": {"type": "layers", "diff_ids": ["sha256:../../etc", "md5:00"]}}
    with fl.open(write(docker_save(Recipe([BASE, TOP], ["a:1"], config=config)), tmp_path)) as evidence:
        (image,) = evidence.images
        assert [layer.chain_id for layer in image.layers] == [None, None]
        assert "/app" in image.tree()
        assert any("no valid digest" in message for message in messages(evidence))
        assert not any(check.ok for check in evidence.verify() if "diff_id" in check.subject)


def test_manifest_and_index_that_disagree(tmp_path: Path, write: Writer) -> None:
    recipe = Recipe([BASE, TOP], ["a:1"])
    files = hybrid_save(recipe)
    (entry,) = json.loads(files["manifest.json"])
    entry["Layers"] = entry["Layers"][:1]
    files["manifest.json"] = to_json([entry])
    with fl.open(write(files, tmp_path)) as evidence:
        (image,) = evidence.images
        assert len(image.layers) == 1  # as `docker load` sees it
        assert any("manifest.json names 1 layers, the OCI manifest 2" in message for message in messages(evidence))


def test_an_image_that_only_one_of_manifest_and_index_names(tmp_path: Path, write: Writer) -> None:
    one, two = Recipe([BASE], ["a:1"]), Recipe([OTHER], ["b:1"])
    files = hybrid_save(one, two)
    entries = json.loads(files["manifest.json"])
    index = json.loads(files["index.json"])
    only_index = files | {"manifest.json": to_json(entries[:1])}
    with fl.open(write(only_index, tmp_path / "docker_save")) as evidence:
        assert [image.tags for image in evidence.images] == [("a:1",), ("b:1",)]
        assert messages(evidence) == [
            f"index.json names image {digest_of(two.configuration())}, manifest.json does not"
        ]
    only_manifest = files | {"index.json": to_json(index | {"manifests": index["manifests"][:1]})}
    with fl.open(write(only_manifest, tmp_path / "hybrid_save")) as evidence:
        assert [image.tags for image in evidence.images] == [("a:1",), ("b:1",)]
        assert any("index.json does not" in message for message in messages(evidence))
        assert evidence.image("b:1").tree().read("/other") == b"22"


def test_names_on_which_manifest_and_index_disagree(tmp_path: Path, write: Writer) -> None:
    files = hybrid_save(Recipe([BASE], ["a:1"]))
    (entry,) = json.loads(files["manifest.json"])
    renamed = files | {"manifest.json": to_json([entry | {"RepoTags": ["b:2"]}])}
    with fl.open(write(renamed, tmp_path / "docker_save")) as evidence:
        (image,) = evidence.images
        assert image.tags == ("b:2",)  # as `docker load` names it
        told = sorted(
            message.partition(" does not")[0].split(digest_of(image.raw_config or b""))
            for message in messages(evidence)
        )
        assert told == [
            ["index.json names image ", " a:1, manifest.json"],
            ["manifest.json names image ", " b:2, index.json"],
        ]
    unnamed = files | {"manifest.json": to_json([entry | {"RepoTags": None}])}
    with fl.open(write(unnamed, tmp_path / "hybrid_save")) as evidence:
        assert [image.tags for image in evidence.images] == [("a:1",)]
        assert any("a:1, manifest.json does not" in message for message in messages(evidence))


def test_a_broken_index_beside_a_good_manifest(tmp_path: Path, write: Writer) -> None:
    files = hybrid_save(Recipe([BASE], ["a:1"])) | {"index.json": b"{"}
    with fl.open(write(files, tmp_path)) as evidence:
        assert evidence.image("a:1").tree().read("/etc/passwd") == b"root\n"
        assert any("no valid JSON" in message for message in messages(evidence))


def test_a_broken_manifest_beside_a_good_index(tmp_path: Path, write: Writer) -> None:
    files = hybrid_save(Recipe([BASE], ["a:1"])) | {"manifest.json": b"{"}
    with fl.open(write(files, tmp_path)) as evidence:
        assert evidence.image("a:1").tree().read("/etc/passwd") == b"root\n"
        assert any("no valid JSON" in message for message in messages(evidence))


def test_the_loader_prefers_the_manifest_over_v1_folders(tmp_path: Path, write: Writer) -> None:
    recipe = Recipe([BASE, TOP], ["a:1"])
    files = docker_save(recipe)
    files["repositories"] = to_json({"other": {"tag": v1_ids(recipe)[-1]}})
    with fl.open(write(files, tmp_path)) as evidence:
        (image,) = evidence.images
        assert image.tags == ("a:1",)


def test_v1_parents_in_a_circle(tmp_path: Path, write: Writer) -> None:
    recipe = Recipe([BASE, TOP], ["a:1"])
    files = v1_save(recipe)
    first, second = v1_ids(recipe)
    files[f"{first}/json"] = to_json({"id": first, "parent": second})
    with fl.open(write(files, tmp_path)) as evidence:
        (image,) = evidence.images
        assert len(image.layers) == 2
        assert any("circle" in message for message in messages(evidence))


def test_v1_layers_that_are_all_each_others_parent(tmp_path: Path, write: Writer) -> None:
    recipe = Recipe([BASE, TOP])
    files = v1_save(recipe)
    first, second = v1_ids(recipe)
    files[f"{first}/json"] = to_json({"id": first, "parent": second})
    with fl.open(write(files, tmp_path)) as evidence:
        (image,) = evidence.images
        assert {layer.origin.label.partition("/")[0] for layer in image.layers} == {first, second}
        assert any("circle" in message for message in messages(evidence))


def test_a_v1_layer_whose_bytes_are_missing(tmp_path: Path, write: Writer) -> None:
    recipe = Recipe([BASE, TOP], ["a:1"])
    for missing in v1_ids(recipe):
        files = {name: content for name, content in v1_save(recipe).items() if name != f"{missing}/layer.tar"}
        (folder := tmp_path / missing).mkdir()
        with fl.open(write(files, folder)) as evidence:
            (image,) = evidence.images
            assert (image.tags, len(image.layers), image.os) == (("a:1",), 2, "linux")
            assert [layer.unreadable is None for layer in image.layers] == [x != missing for x in v1_ids(recipe)]
            (message,) = messages(evidence)
            assert f"{missing}/layer.tar is missing" in message
            assert [check.actual for check in evidence.verify() if not check.ok] == ["missing"]


def test_a_v1_parent_that_is_missing(tmp_path: Path, write: Writer) -> None:
    recipe = Recipe([BASE, TOP], ["a:1"])
    files = {name: content for name, content in v1_save(recipe).items() if not name.startswith(v1_ids(recipe)[0])}
    with fl.open(write(files, tmp_path)) as evidence:
        (image,) = evidence.images
        assert [node.path for node in image.tree().walk()] == ["/", "/app"]
        assert any("is missing" in message for message in messages(evidence))


def test_repositories_that_name_a_missing_layer(tmp_path: Path, write: Writer) -> None:
    files = v1_save(Recipe([BASE], ["a:1"])) | {
        "repositories": to_json({"gone": {"1": "f" * 64}, "odd": 7, "e": {"1": 7}})
    }
    with fl.open(write(files, tmp_path)) as evidence:
        assert [image.tags for image in evidence.images] == [()]
        assert any(f"names layer {'f' * 64}, which is missing" in message for message in messages(evidence))
        assert "2 names of repositories stand for no layer" in messages(evidence)


def test_repositories_that_are_no_object(tmp_path: Path, write: Writer) -> None:
    with fl.open(write(v1_save(Recipe([BASE], ["a:1"])) | {"repositories": b"[]"}, tmp_path)) as evidence:
        assert [image.tags for image in evidence.images] == [()]
        assert messages(evidence) == ["repositories is no object"]


def test_layer_sources_declare_what_a_layer_is(tmp_path: Path, write: Writer) -> None:
    recipe = Recipe([BASE], ["a:1"])
    files = docker_save(recipe)
    (entry,) = json.loads(files["manifest.json"])
    foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    source = {"mediaType": foreign, "size": 7, "digest": digest_of(BASE), "urls": ["https://example.com/layer"]}
    entry["LayerSources"] = {digest_of(BASE): source}
    del files[entry["Layers"][0]]
    files["manifest.json"] = to_json([entry])
    with fl.open(write(files, tmp_path)) as evidence:
        (image,) = evidence.images
        assert isinstance(image.layers[0].unreadable, fl.UnsupportedFormat)
        assert any("https://example.com/layer" in message for message in messages(evidence))
        assert [check.subject for check in evidence.verify() if not check.ok] == []


def test_podmans_archive_names_layers_by_their_digest(tmp_path: Path, write: Writer) -> None:
    recipe = Recipe([BASE, TOP], ["localhost/web:1"])
    config = recipe.configuration()
    layers = {f"{digest_of(layer)[7:]}.tar": layer for layer in recipe.layers}
    entry = {"Config": f"{digest_of(config)[7:]}.json", "RepoTags": ["localhost/web:1"], "Layers": list(layers)}
    files: Files = {**layers, entry["Config"]: config, "manifest.json": to_json([entry])}  # type: ignore[dict-item]
    with fl.open(write(files, tmp_path)) as evidence:
        (image,) = evidence.images
        assert [layer.digest for layer in image.layers] == [digest_of(layer) for layer in recipe.layers]
        assert "/app" in image.tree()
        checked = {check.subject for check in evidence.verify()}
        assert {f"digest of {name}" for name in layers} <= checked


def test_a_layout_is_no_docker_archive(tmp_path: Path, write: Writer) -> None:
    layout = Layout()
    layout.name(layout.manifest(Recipe([BASE])), "1")
    with fl.open(write(layout.files(), tmp_path)) as evidence:
        assert evidence.kind is fl.EvidenceKind.OCI_LAYOUT


def test_members_may_start_with_a_dot(tmp_path: Path) -> None:
    for shape in (v1_save, docker_save, hybrid_save, oci_layout):
        path = write_tar(shape(Recipe([BASE], ["a:1"])), tmp_path / "dots.tar", prefix="./")
        with fl.open(path) as evidence:
            assert evidence.image("a:1").tree().read("/etc/passwd") == b"root\n"
            assert messages(evidence) == []


def test_history_that_kaniko_left_out_is_not_paired(tmp_path: Path, write: Writer) -> None:
    step = {"created": CREATED, "created_by": "kaniko"}
    cases = {
        fl.Alignment.EXACT: [step, {**step, "empty_layer": True}, step],
        fl.Alignment.MISSING: None,
        fl.Alignment.MISMATCH: [step],
    }
    for alignment, history in cases.items():
        folder = tmp_path / alignment
        folder.mkdir()
        with fl.open(write(docker_save(Recipe([BASE, TOP], ["a:1"], config={"history": history})), folder)) as evidence:
            (image,) = evidence.images
            assert image.alignment is alignment
            steps = list(image.history())
            named = [step.layer for step in steps if step.layer]
            assert named == ([] if alignment is fl.Alignment.MISMATCH else [digest_of(TOP), digest_of(BASE)])
            assert any("not paired" in m for m in messages(evidence)) == (alignment is fl.Alignment.MISMATCH)
            failed = [check.subject for check in evidence.verify() if not check.ok]
            assert [("layers in history" in subject) for subject in failed] == [True] * (
                alignment is fl.Alignment.MISMATCH
            )


@pytest.mark.parametrize(
    ("index_time", "record", "expected"),
    [
        (1700000000, b'"OnBuild":null,', {"User": "", "AttachStdin": False, "Image": ""}),  # Docker 25 to 27
        (0, b'"OnBuild":null,', {"User": "", "AttachStdin": None, "Image": None}),  # 28
        (0, b"", {"User": None, "AttachStdin": None, "Image": None}),  # 29
    ],
)
def test_which_fields_the_docker_that_saved_an_image_shows(
    tmp_path: Path, index_time: int, record: bytes, expected: dict[str, object]
) -> None:
    files = hybrid_save(Recipe([BASE], ["a:1"]))
    v1 = b'{"id":"x","container_config":{"Hostname":"",' + record + b'"Labels":null},"os":"linux"}'
    files |= {f"blobs/sha256/{digest_of(v1)[7:]}": v1, "repositories": to_json({"a": {"1": "x"}})}
    archive = TarMaker()
    for name, content in files.items():
        archive.file(name, content, mtime=index_time if name == "index.json" else 0)
    (path := tmp_path / "a.tar").write_bytes(archive.end())
    with fl.open(path) as evidence:
        shown = evidence.image("a:1").inspect()
    config = shown["Config"]
    assert isinstance(config, dict)
    assert {key: config.get(key) for key in expected} == expected
    assert "ContainerConfig" not in shown
