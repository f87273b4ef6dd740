"""Verification: whatever a digest covers cannot be changed without a failed check."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

import forensics_lib as fl
from tests.imagemaker import (
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
    v1_save,
    write_folder,
    write_tar,
)
from tests.samples import DIR, DIR_GZIP, DOCKER_SAVE, OCI, OCI_ZSTD, PLATFORMS, UMOCI, WEB, unpack
from tests.tarmaker import TarMaker

BASE = TarMaker().dir("etc/").file("etc/passwd", b"root\n").file("secret", b"key").end()
TOP = TarMaker().file(".wh.secret").file("app", b"1").end()
SHAPES = [docker_save, hybrid_save, oci_layout, image_dir, schema_one_dir]
by_name = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)
Shape = Callable[[Recipe], Files]


def open_files(files: Files, folder: Path) -> fl.Evidence:
    return fl.open(write_tar(files, folder / "evidence.tar"))


def failed(evidence: fl.Evidence) -> list[str]:
    return [check.subject for check in evidence.verify() if not check.ok]


def covered(files: Files) -> list[str]:
    """The files whose digest is stated, by a document or by their own name."""
    return [
        name
        for name in files
        if name.startswith("blobs/")
        or name.endswith("layer.tar")
        or (not name[:64].strip("0123456789abcdef") and "/" not in name)
    ]


@pytest.mark.parametrize(
    "fixture", [WEB, PLATFORMS, DOCKER_SAVE, OCI, OCI_ZSTD, DIR, DIR_GZIP, UMOCI], ids=lambda path: path.name
)
def test_real_archives_are_sound(fixture: Path) -> None:
    with fl.open(fixture) as evidence:
        checks = evidence.verify()
        assert [check.subject for check in checks if not check.ok] == []
        layers = {layer.diff_id for image in evidence.images for layer in image.layers}
        assert layers <= {check.actual for check in checks}
        assert all(check.expected == check.actual for check in checks if "digest" in check.subject)


@by_name
@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_made_archives_are_sound(tmp_path: Path, shape: Shape, compression: str) -> None:
    recipe = Recipe([BASE, TOP], ["a:1"], compression)
    with open_files(shape(recipe), tmp_path) as evidence:
        checks = list(evidence.verify())
        assert [check.subject for check in checks if not check.ok] == []
        if shape is not schema_one_dir:
            subjects = " ".join(check.subject for check in checks)
            assert "layer 0 diff_id" in subjects
            assert "layer 1 diff_id" in subjects
            assert "layer count" in subjects
            assert "chain id" in subjects


def flips(content: bytes) -> Iterator[tuple[int, bytes]]:
    """The content with one bit changed, at both ends and now and then between them."""
    size = len(content)
    for place in sorted({*range(min(12, size)), *range(12, size, max(1, size // 16)), *range(max(0, size - 10), size)}):
        yield place, content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :]


@pytest.mark.parametrize(
    ("shape", "compression"),
    [(docker_save, "none"), *((shape, kind) for shape in SHAPES[1:] for kind in ("gzip", "zstd"))],
)
def test_one_changed_bit_is_never_passed_over(tmp_path: Path, shape: Shape, compression: str) -> None:
    files = shape(Recipe([BASE, TOP], ["a:1"], compression))
    folder = write_folder(files, tmp_path / "evidence")
    assert len(covered(files)) >= 2
    for name in covered(files):
        for place, content in flips(files[name]):
            (folder / name).write_bytes(content)
            with fl.open(folder) as evidence:
                assert failed(evidence), f"byte {place} of {name} was changed"
        (folder / name).write_bytes(files[name])
    with fl.open(folder) as evidence:
        assert failed(evidence) == []


@by_name
def test_truncated_and_longer_blobs(tmp_path: Path, shape: Shape) -> None:
    files = shape(Recipe([BASE, TOP], ["a:1"]))
    folder = write_folder(files, tmp_path / "evidence")
    for name in covered(files):
        content = files[name]
        for changed in (
            b"",
            content[:-1],
            content[: len(content) // 2],
            content + b"\0",
            content + b"hidden",
            content * 2,
        ):
            (folder / name).write_bytes(changed)
            with fl.open(folder) as evidence:
                assert failed(evidence), f"{name} has {len(changed)} bytes instead of {len(content)}"
        (folder / name).write_bytes(content)


@by_name
def test_swapped_layers(tmp_path: Path, shape: Shape) -> None:
    """The content of one layer under the name of another."""
    recipe = Recipe([BASE, TOP], ["a:1"])
    files = shape(recipe)
    names = [
        name
        for name, content in files.items()
        if content in {*recipe.layers, *(compressed(x, "gzip") for x in recipe.layers)}
    ]
    assert len(names) == 2
    one, other = names
    with open_files(files | {one: files[other], other: files[one]}, tmp_path) as evidence:
        assert len([subject for subject in failed(evidence) if "layer" in subject or "digest of" in subject]) >= 2


def test_layers_in_another_order(tmp_path: Path) -> None:
    recipe = Recipe([BASE, TOP], ["a:1"])
    files = docker_save(recipe)
    (entry,) = json.loads(files["manifest.json"])
    entry["Layers"].reverse()
    with open_files(files | {"manifest.json": to_json([entry])}, tmp_path) as evidence:
        subjects = failed(evidence)
        assert len([subject for subject in subjects if "diff_id" in subject]) == 2
        assert len([subject for subject in subjects if "chain id" in subject]) == 1


def test_a_manifest_whose_configuration_is_of_another_image(tmp_path: Path) -> None:
    """Every blob is intact, but the layers are not those that the configuration was made for."""
    layout = Layout()
    mine, other = Recipe([BASE, TOP]), Recipe([BASE, TarMaker().file("backdoor", b"1").end()])
    document = json.loads(layout.blobs[layout.manifest(mine)["digest"]])
    document["layers"] = json.loads(layout.blobs[layout.manifest(other)["digest"]])["layers"]
    layout.name(layout.add(document, MANIFEST), "forged:1")
    with open_files(layout.files(), tmp_path) as evidence:
        assert [subject.partition(" layer ")[2] or "chain" for subject in failed(evidence)] == ["1 diff_id", "chain"]


def test_a_removed_layer(tmp_path: Path) -> None:
    layout = Layout()
    document = json.loads(layout.blobs[layout.manifest(Recipe([BASE, TOP]))["digest"]])
    document["layers"] = document["layers"][:1]
    layout.name(layout.add(document, MANIFEST), "cut:1")
    with open_files(layout.files(), tmp_path) as evidence:
        assert [subject.rpartition(" image ")[2] for subject in failed(evidence)] != []
        assert any("layer count" in subject for subject in failed(evidence))


@pytest.mark.parametrize("size", [0, 1, -1, 1 << 62])
def test_a_wrong_size_in_a_descriptor(tmp_path: Path, size: int) -> None:
    layout = Layout()
    document = json.loads(layout.blobs[layout.manifest(Recipe([BASE]))["digest"]])
    document["layers"][0]["size"] = size
    layout.name(layout.add(document, MANIFEST), "a:1")
    with open_files(layout.files(), tmp_path) as evidence:
        (check,) = [check for check in evidence.verify() if not check.ok]
        assert check.subject == f"layer {document['layers'][0]['digest']} size"
        assert (check.expected, check.actual) == (str(size), str(len(compressed(BASE, "gzip"))))


def test_unreferenced_blobs_are_checked_too(tmp_path: Path) -> None:
    files = oci_layout(Recipe([BASE], ["a:1"]))
    files[f"blobs/sha256/{'0' * 64}"] = b"orphan"
    with open_files(files, tmp_path) as evidence:
        assert failed(evidence) == [f"digest of blobs/sha256/{'0' * 64}"]


def test_an_embedded_document_is_checked(tmp_path: Path) -> None:
    import base64

    for spoil in (b"", b" "):
        layout, recipe = Layout(), Recipe([BASE])
        document = json.loads(layout.blobs[layout.manifest(recipe)["digest"]])
        document["config"]["data"] = base64.b64encode(recipe.configuration() + spoil).decode()
        del layout.blobs[digest_of(recipe.configuration())]
        layout.name(layout.add(document, MANIFEST), "a:1")
        with open_files(layout.files(), tmp_path) as evidence:
            expected = [f"configuration {digest_of(recipe.configuration())} {what}" for what in ("digest", "size")]
            assert failed(evidence) == (expected if spoil else [])


@pytest.mark.parametrize("shape", [docker_save, oci_layout], ids=lambda shape: shape.__name__)
def test_trailing_bytes_behind_a_layers_archive(tmp_path: Path, shape: Shape) -> None:
    """The digests are right, but the layer holds more than its archive."""
    with open_files(shape(Recipe([BASE + b"hidden"], ["a:1"])), tmp_path) as evidence:
        (check,) = [check for check in evidence.verify() if not check.ok]
        assert check.actual == "end-of-archive marker, then 6 bytes of something else"
    with open_files(shape(Recipe([BASE + TarMaker().file("hidden", b"1").end()], ["a:1"])), tmp_path) as evidence:
        assert "/hidden" not in evidence.images[0].tree()
        assert any("where extracting tools do not look" in problem.message for problem in evidence.problems)


def test_a_layer_without_its_end(tmp_path: Path) -> None:
    with open_files(docker_save(Recipe([BASE[:-1024]], ["a:1"])), tmp_path) as evidence:
        (check,) = [check for check in evidence.verify() if not check.ok]
        assert check.subject.startswith("end of archive")
        assert check.actual == "no end-of-archive marker"


def test_trailing_bytes_behind_a_compressed_stream(tmp_path: Path) -> None:
    for compression in ("gzip", "zstd"):
        stored = compressed(BASE, compression) + b"hidden"
        layout = Layout()
        document = json.loads(layout.blobs[layout.manifest(Recipe([BASE], compression=compression))["digest"]])
        document["layers"] = [layout.add(stored, f"application/vnd.oci.image.layer.v1.tar+{compression}")]
        layout.name(layout.add(document, MANIFEST), "a:1")
        with open_files(layout.files(), tmp_path) as evidence:
            assert failed(evidence) == []
            assert any(f"no {compression}" in problem.message for problem in evidence.problems)


def test_v1_archives_state_no_digests(tmp_path: Path) -> None:
    """There is nothing to compare with, and no check pretends that there was."""
    recipe = Recipe([BASE, TOP], ["a:1"])
    with open_files(v1_save(recipe), tmp_path) as evidence:
        assert {check.subject for check in evidence.verify()} == {
            f"end of archive {identity}/layer.tar" for identity in v1_ids(recipe)
        }


def test_the_same_with_processes_and_after_hashing(tmp_path: Path) -> None:
    files = oci_layout(Recipe([BASE, TOP], ["a:1"]))
    name = next(name for name, content in files.items() if content == compressed(TOP, "gzip"))
    files[name] = files[name][:-3]
    path = write_tar(files, tmp_path / "evidence.tar")

    def rows(evidence: fl.Evidence, **options: ProcessPoolExecutor) -> set[tuple[str, str, str, bool, str]]:
        return {(c.subject, c.expected, c.actual, c.ok, str(c.origin)) for c in evidence.verify(**options)}

    with fl.open(path) as first, fl.open(path) as second, fl.open(path) as third:
        expected = rows(first)
        assert not all(ok for *_, ok, _ in expected)
        list(second.hashes())
        assert rows(second) == expected
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
            assert rows(third, executor=executor) == expected


def test_a_changed_evidence_file_is_a_problem(tmp_path: Path) -> None:
    path = write_tar(oci_layout(Recipe([BASE], ["a:1"])), tmp_path / "evidence.tar")
    with fl.open(path) as evidence:
        list(evidence.verify())
        assert list(evidence.problems) == []
        with path.open("ab") as file:
            file.write(b"\0" * 512)
        list(evidence.verify())
        assert [type(problem.error) for problem in evidence.problems] == [fl.EvidenceChanged]


def test_a_changed_byte_in_real_layers(tmp_path: Path) -> None:
    folder = unpack(OCI, tmp_path)
    for blob in sorted((folder / "blobs/sha256").iterdir()):
        content = blob.read_bytes()
        place = len(content) // 2
        blob.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with fl.open(folder) as evidence:
            assert any(blob.name in subject for subject in failed(evidence))
        blob.write_bytes(content)


def test_checks_say_where_the_bytes_are(tmp_path: Path) -> None:
    with open_files(oci_layout(Recipe([BASE], ["a:1"])), tmp_path) as evidence:
        for check in evidence.verify():
            assert str(check.origin).startswith("evidence.tar")
        (entry,) = [entry for entry in evidence.custody.entries if entry.action == "verify"]
        assert json.loads(entry.details)["failed"] == 0


def test_members_after_the_end_marker_fail_the_check(tmp_path: Path) -> None:
    first = TarMaker().file("seen", b"1").end()
    hidden = TarMaker().file("unseen", b"2").end()
    layer = first + hidden
    path = write_folder(oci_layout(Recipe(layers=[layer], compression="gzip")), tmp_path / "layout")
    with fl.open(path) as ev:
        failed = [check for check in ev.verify() if not check.ok]
        assert [check.actual for check in failed] == ["end-of-archive marker, then 1 more members"]
        assert {row.path for row in ev.hashes(kinds={"file"})} == {"/seen", "/unseen"}
        assert "/unseen" not in ev.images[0].tree()


def test_digests_of_layers_that_were_changed_meanwhile_are_not_believed(tmp_path: Path) -> None:
    recipe = Recipe([BASE], compression="none")
    folder = write_folder(oci_layout(recipe), tmp_path / "layout")
    blob = folder / "blobs" / "sha256" / digest_of(BASE)[7:]
    with fl.open(folder) as evidence:
        assert all(check.ok for check in evidence.verify())
        assert len(evidence.problems) == 0
        blob.unlink()
        blob.write_bytes(BASE[:-1] + b"\1")
        failed = [check.subject for check in evidence.verify() if not check.ok]
        assert f"digest of blobs/sha256/{blob.name}" in failed
        assert any(isinstance(problem.error, fl.EvidenceChanged) for problem in evidence.problems)
