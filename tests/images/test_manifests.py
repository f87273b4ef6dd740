"""From a descriptor to images and artifacts; the shapes of whole layouts are in test_oci_layout."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import forensics_lib as fl
from forensics_lib.formats.jsondoc import JsonObject, JsonValue
from forensics_lib.images.layer import SpoolPool
from forensics_lib.images.manifests import IMAGE_NAME, REF_NAME, ManifestReader, familiar, parse_config, tags_of
from forensics_lib.images.store import Descriptor, Document, ImageStore
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.sources.base import BytesSource
from forensics_lib.trees.archive import tar_tree
from tests.imagemaker import (
    CONFIG,
    INDEX,
    LAYER,
    MANIFEST,
    Files,
    Layout,
    Recipe,
    digest_of,
    to_json,
    to_tar,
    write_folder,
)
from tests.tarmaker import TarMaker

ORIGIN = Origin("test")
BASE = TarMaker().file("a", b"1").end()


def store_of(files: Files, problems: ProblemLog | None = None) -> ImageStore:
    problems = problems or ProblemLog()
    tree = tar_tree(BytesSource(to_tar(files), ORIGIN), problems, fl.Limits())
    return ImageStore(tree, problems, fl.Limits(), SpoolPool(1 << 20))


def document_of(value: JsonValue) -> Document:
    return Document(to_json(value), value, ORIGIN)


def descriptor(**annotations: str) -> Descriptor:
    return Descriptor("sha256:" + "0" * 64, 1, MANIFEST, ORIGIN, annotations=annotations)


@pytest.mark.parametrize(
    ("annotations", "tags"),
    [
        ({}, ()),
        ({REF_NAME: "1.0"}, ("1.0",)),
        ({REF_NAME: "docker.io/library/web:1.0"}, ("web:1.0",)),
        ({REF_NAME: "1.0", IMAGE_NAME: "docker.io/acme/web:1.0"}, ("acme/web:1.0",)),
        ({IMAGE_NAME: "host:5000/acme/web:1.0"}, ("host:5000/acme/web:1.0",)),
        ({IMAGE_NAME: "", REF_NAME: ""}, ()),
        ({REF_NAME: "no valid/Name"}, ("no valid/Name",)),
    ],
)
def test_names_that_an_index_gives(annotations: dict[str, str], tags: tuple[str, ...]) -> None:
    assert tags_of(descriptor(**annotations)) == tags


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("docker.io/library/web:1", "web:1"),
        ("index.docker.io/acme/web:1", "acme/web:1"),
        ("localhost/web:1", "localhost/web:1"),
        ("latest", "latest"),
        ("../../etc:passwd", "../../etc:passwd"),
    ],
)
def test_familiar_names(name: str, shown: str) -> None:
    assert familiar(name) == shown


def test_a_configuration_that_is_none_is_a_problem() -> None:
    problems = ProblemLog()
    config = parse_config(Document(b"[]", [], ORIGIN), ORIGIN, problems)
    assert (config.diff_ids, config.architecture) == ((), "")
    assert len(problems.rows) == 1
    with pytest.raises(fl.DamagedData):
        parse_config(Document(b"[]", [], ORIGIN), ORIGIN, ProblemLog(strict=True))
    assert parse_config(None, ORIGIN, ProblemLog(strict=True)).diff_ids == ()


def test_every_descriptor_is_kept_for_verification() -> None:
    layout = Layout()
    layout.name(layout.manifest(Recipe([BASE])), "1")
    store = store_of(layout.files())
    reader = ManifestReader(store)
    index = store.document("/index.json")
    assert index is not None
    reader.index(index)
    assert [role for role, _ in store.references] == ["manifest", "configuration", "layer"]
    assert {reference.digest for _, reference in store.references} == set(layout.blobs)
    (image,) = reader.images.values()
    assert image.tags == ("1",)
    assert image.annotations == ((REF_NAME, "1"),)


def test_names_of_one_manifest_are_put_together() -> None:
    layout = Layout()
    found = layout.manifest(Recipe([BASE]))
    layout.name(found, "1", "2", "1")
    layout.manifests.append({"mediaType": CONFIG, "digest": found["digest"], "size": found["size"]})
    store = store_of(layout.files())
    reader = ManifestReader(store)
    index = store.document("/index.json")
    assert index is not None
    reader.index(index)
    assert [image.tags for image in reader.images.values()] == [("1", "2")]


def test_the_media_type_of_a_manifest_that_declares_none() -> None:
    layout = Layout()
    document = json.loads(layout.blobs[layout.manifest(Recipe([BASE]))["digest"]])
    del document["mediaType"]
    docker = json.loads(json.dumps(document))
    docker["config"]["mediaType"] = "application/vnd.docker.container.image.v1+json"
    for value, expected in ((document, MANIFEST), (docker, "application/vnd.docker.distribution.manifest.v2+json")):
        reader = ManifestReader(store_of(layout.files()))
        reader.manifest(document_of(value))
        (image,) = reader.images.values()
        assert image.manifest_media_type == expected
        assert image.manifest_digest == digest_of(to_json(value))


def test_annotations_of_manifest_and_descriptor() -> None:
    layout = Layout()
    layout.name(layout.manifest(Recipe([BASE]), annotations={"k": "manifest"}) | {}, "1")
    store = store_of(layout.files())
    reader = ManifestReader(store)
    index = store.document("/index.json")
    assert index is not None
    reader.index(index)
    (image,) = reader.images.values()
    assert image.annotations == (("k", "manifest"), (REF_NAME, "1"))


def test_the_platform_of_the_index_stands_in_for_a_missing_configuration() -> None:
    layout = Layout()
    recipe = Recipe([BASE], platform=("linux", "riscv64"))
    layout.name(layout.manifest(recipe), "1")
    del layout.blobs[digest_of(recipe.configuration())]
    store = store_of(layout.files())
    reader = ManifestReader(store)
    index = store.document("/index.json")
    assert index is not None
    reader.index(index)
    (image,) = reader.images.values()
    assert (image.platform, image.config.architecture) == ("linux/riscv64", "")


def test_the_subject_is_taken_from_the_exact_bytes() -> None:
    subject: JsonValue = {"mediaType": MANIFEST, "digest": "sha256:" + "1" * 64, "size": 3}
    value: JsonValue = {"schemaVersion": 2, "artifactType": "a/b", "config": {}, "layers": [], "subject": subject}
    reader = ManifestReader(store_of({}))
    reader.manifest(document_of(value))
    (artifact,) = reader.artifacts.values()
    assert (artifact.subject, artifact.artifact_type) == ("sha256:" + "1" * 64, "a/b")
    assert artifact.raw_manifest == to_json(value)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_keys = st.sampled_from(
    ["schemaVersion", "config", "layers", "manifests", "mediaType", "digest", "size", "fsLayers", "history", "blobSum",
     "v1Compatibility", "annotations", "subject", "artifactType", "platform", "urls", "data", "blobs", "name", "tag"]
)  # fmt: skip
_values = st.sampled_from([1, 2, "sha256:" + "0" * 64, MANIFEST, LAYER + "+gzip+encrypted", "eyI=", [], {}]) | _json
_manifest = st.recursive(
    st.dictionaries(_keys, _values, max_size=6),
    lambda inner: st.dictionaries(_keys, _values | inner | st.lists(inner, max_size=3), max_size=8),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(_manifest)
def test_any_document_gives_images_artifacts_or_problems(value: dict[str, JsonValue]) -> None:
    problems = ProblemLog()
    reader = ManifestReader(store_of({}, problems))
    try:
        reader.manifest(document_of(value))
        reader.index(document_of(value))
    except fl.ForensicsError as error:
        pytest.fail(f"a log that is not strict raised {error!r}")
    assert isinstance(problems.rows, list)
    for image in reader.images.values():
        assert isinstance(image.platform, str)


@settings(max_examples=60, deadline=None)
@given(_manifest)
def test_any_descriptor_is_read(value: dict[str, JsonValue]) -> None:
    found = Descriptor.parse(JsonObject(value), ORIGIN)
    assert isinstance(found.digest, str)
    assert found.size is None or isinstance(found.size, int)
    assert all(isinstance(text, str) for pair in found.annotations.items() for text in pair)


@pytest.mark.parametrize(
    ("tag", "media_type"),
    [
        ("sig", "application/vnd.dev.cosign.simplesigning.v1+json"),
        ("att", "application/vnd.dsse.envelope.v1+json"),
        ("sbom", "text/spdx+json"),
        ("sbom", "application/vnd.cyclonedx+xml"),
    ],
)
@pytest.mark.parametrize("of_index", [False, True])
def test_what_cosign_stores_is_no_image(tmp_path: Path, tag: str, media_type: str, of_index: bool) -> None:
    layout = Layout()
    image = layout.manifest(Recipe([BASE]))
    about = layout.add({"schemaVersion": 2, "mediaType": INDEX, "manifests": [image]}, INDEX) if of_index else image
    layout.name(about, "1")
    document = layout.add(b"{}", media_type)
    layout.name(layout.manifest(Recipe([]), layers=[document]), f"sha256-{about['digest'][7:]}.{tag}")
    with fl.open(write_folder(layout.files(), tmp_path / "layout")) as evidence:
        (shown,) = evidence.images
        (attestation,) = shown.attestations
        assert (attestation.artifact_type, attestation.subject) == (media_type, about["digest"])
        assert [blob.read_at(0, 9) for blob in attestation.blobs] == [b"{}"]
        assert len(evidence.artifacts) == len(evidence.problems) == 0
        assert all(check.ok for check in evidence.verify())


def test_without_an_index_the_indexes_among_the_blobs_tell_what_is_an_image(tmp_path: Path) -> None:
    layout = Layout()
    image = layout.manifest(Recipe([BASE]))
    statement = layout.add(b"{}", "application/vnd.in-toto+json")
    said = {"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": image["digest"]}
    attestation = layout.manifest(Recipe([], platform=("unknown", "unknown")), layers=[statement])
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [image, attestation | {"annotations": said}]}
    named = layout.add(index, INDEX)
    lonely = layout.manifest(Recipe([BASE, BASE]))
    files = layout.files()
    del files["index.json"]
    with fl.open(write_folder(files, tmp_path / "layout")) as evidence:
        found = {one.manifest_digest: one for one in evidence.images}
        assert set(found) == {image["digest"], lonely["digest"]}
        assert found[image["digest"]].index_digest == named["digest"]
        assert [one.digest for one in found[image["digest"]].attestations] == [attestation["digest"]]
        assert [problem.message for problem in evidence.problems] == ["index.json is missing"]


def test_artifact_manifests_are_not_held_against_the_schema_of_images(tmp_path: Path) -> None:
    layout = Layout()
    image = layout.manifest(Recipe([BASE]))
    layout.name(image, "1")
    kind = "application/vnd.oci.artifact.manifest.v1+json"
    blob = layout.add(b"{}", "text/plain")
    layout.name(layout.add({"mediaType": kind, "artifactType": "a/b", "blobs": [blob], "subject": image}, kind))
    with fl.open(write_folder(layout.files(), tmp_path / "layout")) as evidence:
        assert [one.artifact_type for one in evidence.image("1").attestations] == ["a/b"]
        assert len(evidence.problems) == 0


def test_documents_that_no_registry_takes_are_not_compared_with_the_schema() -> None:
    problems = ProblemLog()
    index: JsonValue = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [], "filler": "x" * (4 << 20)}
    ManifestReader(store_of({}, problems)).index(document_of(index))
    assert [problem.message.partition(":")[2] for problem in problems.rows] == [
        " too large to be compared with the OCI schema"
    ]
