"""Opening evidence of every shape, by what it holds, and never falling over it."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import random
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import forensics_lib as fl
from tests.imagemaker import (
    Files,
    Layout,
    Recipe,
    compressed,
    docker_save,
    hybrid_save,
    image_dir,
    oci_layout,
    schema_one_dir,
    to_tar,
    v1_save,
    write_folder,
    write_tar,
)
from tests.samples import DIR, DIR_GZIP, DOCKER_SAVE, EXPORT, OCI, OCI_ZSTD, PLATFORMS, UMOCI, WEB, unpack
from tests.tarmaker import TarMaker

BASE = TarMaker().dir("etc/").file("etc/passwd", b"root\n").file("secret", b"key").end()
TOP = TarMaker().file(".wh.secret").file("app", b"1").end()
RECIPE = Recipe([BASE, TOP], ["acme/web:1.0"])
SHAPES: dict[Callable[[Recipe], Files], str] = {
    v1_save: "docker-archive",
    docker_save: "docker-archive",
    hybrid_save: "docker-archive",
    oci_layout: "oci-layout",
    image_dir: "image-dir",
    schema_one_dir: "image-dir",
}
COMPRESSIONS = ["none", "gzip", "zstd", "xz", "bzip2"]


@pytest.mark.parametrize(
    ("fixture", "kind", "tags"),
    [
        (WEB, "docker-archive", [("acme/web:1.0",)]),
        (PLATFORMS, "docker-archive", [("acme/multi:1",)] * 2),
        (DOCKER_SAVE, "docker-archive", [(f"acme/{n}",) for n in ("shop:1.0", "shop:1.1", "tool:1", "committed:1")]),
        (OCI, "oci-layout", [("1.0",), ("scratch",)]),
        (OCI_ZSTD, "oci-layout", [("1.0",)]),
        (UMOCI, "oci-layout", [("1.0",), ("scratch",), ("repacked",)]),
        (DIR, "image-dir", [()]),
        (DIR_GZIP, "image-dir", [()]),
        (EXPORT, "filesystem-tree", []),
    ],
    ids=lambda value: value.name if isinstance(value, Path) else "",
)  # fmt: skip
def test_real_evidence(fixture: Path, kind: str, tags: list[tuple[str, ...]]) -> None:
    with fl.open(fixture) as evidence:
        assert evidence.kind == kind
        assert [image.tags for image in evidence.images] == tags
        assert len(evidence.filesystems) == (kind == "filesystem-tree")
        assert evidence.path == fixture
        assert str(evidence.origin).startswith(fixture.name)
        assert repr(evidence) == f"Evidence({str(fixture)!r}, {kind}, {len(tags)} images)"
        assert len(evidence.containers) == len(evidence.volumes) == len(evidence.networks) == 0


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)
@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("prefix", ["", "./"])
def test_every_shape_in_every_compression(
    tmp_path: Path, shape: Callable[[Recipe], Files], compression: str, prefix: str
) -> None:
    path = write_tar(shape(RECIPE), tmp_path / "no-telling-suffix", compression, prefix)
    before = path.read_bytes()
    with fl.open(path, strict=True) as evidence:
        assert evidence.kind == SHAPES[shape]
        (image,) = evidence.images
        assert [node.path for node in image.tree().walk()] == ["/", "/app", "/etc", "/etc/passwd"]
        assert all(check.ok for check in evidence.verify())
        assert {row.path for row in evidence.hashes(kinds=("file",))} == {
            "/etc/passwd",
            "/secret",
            "/app",
            "/.wh.secret",
        }
        assert list(evidence.problems) == []
    assert path.read_bytes() == before


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)
def test_every_shape_as_a_folder(tmp_path: Path, shape: Callable[[Recipe], Files]) -> None:
    with fl.open(write_folder(shape(RECIPE), tmp_path / "evidence"), strict=True) as evidence:
        assert evidence.kind == SHAPES[shape]
        (image,) = evidence.images
        assert [node.path for node in image.tree().walk()] == ["/", "/app", "/etc", "/etc/passwd"]
        assert all(check.ok for check in evidence.verify())


def test_a_file_system_in_an_archive_and_in_a_folder(tmp_path: Path) -> None:
    with fl.open(EXPORT) as archive, fl.open(unpack(EXPORT, tmp_path / "export")) as folder:
        assert archive.kind == folder.kind == fl.EvidenceKind.FILESYSTEM_TREE
        for evidence in (archive, folder):
            (found,) = evidence.filesystems
            assert found.tree.read("/www/shell.php") == b"<?php /* WEBSHELL-TEST */ ?>\n"
            assert list(evidence.images) == []
            assert all(check.ok for check in evidence.verify())
            with pytest.raises(fl.NotFound, match="none has a name"):
                evidence.image("web")
        rows = [{(row.path, row.sha256) for row in e.hashes(kinds=("file",))} for e in (archive, folder)]
        assert rows[0] == rows[1]
        assert archive.filesystems[0].tree.node("/special/hard2").nlink == 1


def test_an_empty_archive_is_an_empty_file_system(tmp_path: Path) -> None:
    path = tmp_path / "empty.tar"
    path.write_bytes(bytes(10240))
    with fl.open(path) as evidence:
        assert evidence.kind is fl.EvidenceKind.FILESYSTEM_TREE
        assert [node.path for node in evidence.filesystems[0].tree.walk()] == ["/"]
    with fl.open(tmp_path) as evidence:
        assert [node.path for node in evidence.filesystems[0].tree.walk()] == ["/", "/empty.tar"]


# names


@pytest.fixture
def several(tmp_path: Path) -> fl.Evidence:
    recipes = [
        Recipe([BASE], ["acme/web:1.0"]),
        Recipe([TOP], ["acme/web:latest", "registry.example.com:5000/acme/web:prod"]),
        Recipe([BASE, TOP], ["tool:2"]),
        Recipe([TOP, BASE], []),
    ]
    return fl.open(write_tar(docker_save(*recipes), tmp_path / "several.tar"))


def test_images_by_name(several: fl.Evidence) -> None:
    with several as evidence:
        one, latest, tool, nameless = evidence.images
        assert evidence.image("acme/web:1.0") is one
        assert evidence.image("acme/web") is evidence.image("acme/web:latest") is latest
        assert evidence.image("registry.example.com:5000/acme/web:prod") is latest
        assert evidence.image("registry.example.com:5000/acme/web") is latest
        assert evidence.image("tool") is evidence.image("tool:2") is tool
        assert evidence.image("docker.io/library/tool:2") is evidence.image("library/tool") is tool
        assert evidence.image("docker.io/acme/web:1.0") is one
        for image in (one, latest, tool, nameless):
            for name in (image.id, image.id.removeprefix("sha256:"), image.id[:19], image.id[7:15]):
                assert evidence.image(name) is image


@pytest.mark.parametrize(
    "name", ["web", "acme", "acme/web:2", "1.0", "", "sha256:", "zz", "sha256:ffffffffffff", "acme/web:1.0x"]
)
def test_names_that_fit_nothing(several: fl.Evidence, name: str) -> None:
    with several as evidence:
        with pytest.raises(fl.NotFound) as caught:
            evidence.image(name)
        assert "acme/web:1.0, acme/web:latest" in str(caught.value)
        assert isinstance(caught.value, KeyError)


def test_a_start_that_fits_several_images(tmp_path: Path) -> None:
    recipes = [Recipe([TarMaker().file(str(number)).end()]) for number in range(17)]
    with fl.open(write_tar(docker_save(*recipes), tmp_path / "many.tar")) as evidence:
        starts = [image.id[7:8] for image in evidence.images]
        common = next(start for start in starts if starts.count(start) > 1)
        with pytest.raises(fl.AmbiguousName) as caught:
            evidence.image(common)
        assert set(caught.value.candidates) == {image.id for image in evidence.images if image.id[7:8] == common}


def test_an_empty_name_fits_no_tag_without_a_name(tmp_path: Path) -> None:
    """An OCI layout may name an image only "1.0"."""
    with fl.open(write_tar(oci_layout(Recipe([BASE], ["1.0"])), tmp_path / "oci.tar")) as evidence:
        assert evidence.image("1.0").tags == ("1.0",)
        with pytest.raises(fl.NotFound):
            evidence.image("")


def test_a_name_of_two_images_is_ambiguous(tmp_path: Path) -> None:
    recipes = [Recipe([BASE], ["web:1"]), Recipe([TOP], ["web:2"])]
    with fl.open(write_tar(docker_save(*recipes), tmp_path / "two.tar")) as evidence, pytest.raises(fl.AmbiguousName):
        evidence.image("web")


def test_one_name_for_two_different_images(tmp_path: Path) -> None:
    """A forged index can give one tag to two images of one platform; neither may win silently."""
    layout = Layout()
    for layer in (BASE, TOP):
        layout.name(layout.manifest(Recipe([layer])), "web:1")
    with fl.open(write_tar(layout.files(), tmp_path / "forged.tar")) as evidence, pytest.raises(fl.AmbiguousName):
        evidence.image("web:1")


# what is no evidence


@pytest.mark.parametrize(
    "content",
    [b"", b"\0", b"x", b"plain text\n" * 100, b"{}", random.Random(1).randbytes(5000), b"\0" * 100,
     b"PK\x03\x04" + bytes(600), b"hsqs" + bytes(8188), b"#!/usr/bin/env run-singularity\n" + bytes(40_000),
     b"\x1f\x8b",
     compressed(b"no archive", "gzip"), compressed(b"", "xz"), b"BZh9 is text here", b"(\xb5/\xfd"],
    ids=lambda content: repr(content[:12]),
)  # fmt: skip
def test_a_file_that_is_nothing(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "nothing"
    path.write_bytes(content)
    with pytest.raises((fl.UnsupportedFormat, fl.DamagedData)) as caught:
        fl.open(path)
    assert "nothing" in str(caught.value) or "nothing" in str(getattr(caught.value, "origin", ""))


def test_what_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path / "missing" / "deeper", tmp_path / ("n" * 300)):
        with pytest.raises(fl.PathNotFound):
            fl.open(path)
        with pytest.raises(FileNotFoundError):
            fl.open(str(path))
    (tmp_path / "dangling").symlink_to("nowhere")
    for name in ("", str(tmp_path / "dangling")):
        with pytest.raises(fl.PathNotFound):
            fl.open(name)


@pytest.mark.skipif(sys.platform == "win32", reason="no FIFOs")
def test_a_fifo_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(fl.NotAFile):
        fl.open(tmp_path / "pipe")


def test_a_link_that_the_examiner_names_is_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(PLATFORMS)
    with fl.open(tmp_path / "link") as evidence:
        assert len(evidence.images) == 2


# strict


def spoiled(name: str, content: bytes) -> Files:
    return docker_save(RECIPE) | {name: content}


@pytest.mark.parametrize(
    "files",
    [
        spoiled("manifest.json", b"{"),
        spoiled("manifest.json", b"[7]"),
        {name: content for name, content in docker_save(RECIPE).items() if not name.endswith("layer.tar")},
        {name: content for name, content in oci_layout(RECIPE).items() if name != "oci-layout"},
        oci_layout(RECIPE) | {"index.json": b"[]"},
    ],
    ids=["no JSON", "wrong shape", "no layers", "no mark", "no index"],
)
def test_strict_raises_at_the_first_problem(tmp_path: Path, files: Files) -> None:
    path = write_tar(files, tmp_path / "evidence.tar")
    with fl.open(path) as evidence:
        assert evidence.problems

    def read() -> None:
        with fl.open(path, strict=True) as strict:
            for image in strict.images:
                image.tree()

    with pytest.raises(fl.ForensicsError):
        read()


def test_strict_raises_while_reading_layers(tmp_path: Path) -> None:
    path = write_tar(docker_save(Recipe([BASE[:-1024], TOP])), tmp_path / "evidence.tar")
    with fl.open(path, strict=True) as evidence:
        (image,) = evidence.images
        with pytest.raises(fl.DamagedData):
            image.tree()
        with pytest.raises(fl.DamagedData):
            list(evidence.verify())


# change, closing, threads, pickling


def test_evidence_that_changes_while_it_is_open(tmp_path: Path) -> None:
    path = write_tar(docker_save(RECIPE), tmp_path / "evidence.tar")
    with fl.open(path) as evidence:
        with path.open("r+b") as file:
            file.seek(600)
            file.write(b"x")
        os.utime(path, ns=(0, 0))
        list(evidence.hashes())
        assert [type(problem.error) for problem in evidence.problems] == [fl.EvidenceChanged]
    with fl.open(path, strict=True) as evidence:
        os.utime(path, ns=(5, 5))
        with pytest.raises(fl.EvidenceChanged):
            list(evidence.hashes())


def test_evidence_that_is_cut_while_it_is_open(tmp_path: Path) -> None:
    path = write_tar(docker_save(RECIPE), tmp_path / "evidence.tar")
    with fl.open(path) as evidence:
        os.truncate(path, 3000)
        list(evidence.hashes())
        list(evidence.verify())
        assert any(isinstance(problem.error, fl.EvidenceChanged) for problem in evidence.problems)
        assert any(isinstance(problem.error, fl.DamagedData) for problem in evidence.problems)


def test_problems_and_custody_outlive_the_evidence(tmp_path: Path) -> None:
    path = write_tar(spoiled("manifest.json", b"[7]"), tmp_path / "evidence.tar")
    with fl.open(path) as evidence:
        list(evidence.hashes())
    assert evidence.problems
    assert [entry.action for entry in evidence.custody.entries][-2:] == ["open", "hash"]
    evidence.close()  # twice does no harm


@pytest.mark.parametrize("files", [docker_save(RECIPE), {"etc/passwd": b"root"}], ids=["image", "file system"])
def test_the_custody_holds_the_digest_of_what_was_hashed(tmp_path: Path, files: Files) -> None:
    path = write_tar(files, tmp_path / "web.tar")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with fl.open(path) as evidence:
        len(evidence.hashes())
        len(evidence.hashes(kinds={"blob"}))
    details = [json.loads(entry.details) for entry in evidence.custody.entries if entry.action == "hash"]
    assert [one.get("sha256") for one in details] == [digest, None]


@pytest.mark.parametrize("compression", ["gzip", "xz", "bzip2"])
def test_an_archive_whose_compressed_bytes_are_damaged(tmp_path: Path, compression: str) -> None:
    """Everything before the damage is read, or the damage is the error; it is never taken for something else."""
    path = write_tar(oci_layout(RECIPE), tmp_path / "web.tar", compression)
    sound = path.read_bytes()
    read = 0
    for place in range(20, len(sound), 17):
        path.write_bytes(sound[:place] + bytes([sound[place] ^ 4]) + sound[place + 1 :])
        try:
            with fl.open(path) as evidence:
                read += len(evidence.images)
                if not evidence.problems:  # bzip2 has tables that not every block uses
                    assert compression == "bzip2"
                    assert all(check.ok for check in evidence.verify())
        except fl.DamagedData as error:
            assert f"{compression} stream is damaged" in str(error)  # noqa: PT017
    assert read or compression == "bzip2"  # whose blocks are all or nothing


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "it is empty"),
        (bytes(5 << 20), "its first 4194304 bytes are zeros"),
        (b"PK\x03\x04" + bytes(99), "it is a zip archive, which has to be unpacked first"),
    ],
)
def test_what_is_taken_for_evidence_by_mistake(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(fl.UnsupportedFormat, match=said):
        fl.open(tmp_path / "file")


def test_a_single_name_of_an_algorithm_or_kind_stands_for_itself() -> None:
    with fl.open(WEB) as evidence:
        alone, listed = evidence.hashes("md5", "file"), evidence.hashes(("md5",), ("file",))
        assert set(alone) == set(listed)
        assert {row.kind for row in alone} == {"file"}


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd", "xz"])
@pytest.mark.parametrize("shape", [docker_save, oci_layout])
def test_closed_evidence_answers_no_question_in_part(
    tmp_path: Path, shape: Callable[[Recipe], Files], compression: str
) -> None:
    with fl.open(write_tar(shape(RECIPE), tmp_path / "web.tar", compression)) as evidence:
        (image,) = evidence.images
        lazy = evidence.hashes()
        seen, *_ = evidence.verify()
    questions: list[Callable[[], object]] = [
        lambda: list(lazy),
        lambda: list(evidence.hashes()),
        lambda: list(evidence.search("root")),
        lambda: list(evidence.identify()),
        lambda: list(image.history()),
        image.tree,
        lambda: image.layers[0].changes()[0],
    ]
    for question in questions:
        with pytest.raises(ValueError, match="was closed"):
            question()
    assert seen.ok  # what was read is kept
    assert len(evidence.problems) == 0


def test_every_answer_says_what_it_is() -> None:
    with fl.open(WEB) as evidence:
        (image,) = evidence.images
        for answer in (evidence, image, image.tree(), image.layers[0], evidence.custody, evidence.images):
            assert " object at 0x" not in repr(answer)


def test_names_of_the_evidence_do_nothing_to_a_screen(tmp_path: Path) -> None:
    name = "web\x1b[2J\u202e:1"
    with fl.open(write_folder(oci_layout(Recipe(RECIPE.layers, [name])), tmp_path / "layout")) as evidence:
        assert evidence.images[0].tags == (name,)
        with pytest.raises(fl.NotFound) as caught:
            evidence.image("other")
        for text in (repr(evidence.images[0]), repr(evidence.images), str(caught.value)):
            assert r"web\x1b[2J\u202e:1" in text
            assert "\x1b" not in text


def test_nothing_is_left_open(tmp_path: Path) -> None:
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        pytest.skip("the system does not list open files")
    gc.collect()
    before = len(list(folder.iterdir()))
    for fixture in (WEB, DOCKER_SAVE, OCI_ZSTD, EXPORT):
        with fl.open(fixture) as evidence:
            for image in evidence.images:
                image.tree().read("/etc/passwd") if "/etc/passwd" in image.tree() else None
            list(evidence.hashes())
    for content in (b"", b"nothing", compressed(b"nothing", "gzip")):
        (tmp_path / "nothing").write_bytes(content)
        with pytest.raises(fl.ForensicsError):
            fl.open(tmp_path / "nothing")
    assert len(list(folder.iterdir())) <= before


def test_threads_may_share_evidence() -> None:
    with fl.open(DOCKER_SAVE) as evidence:

        def ask(number: int) -> tuple[int, ...]:
            image = evidence.images[number % 4]
            nodes = [node for node in image.tree().walk() if node.kind is fl.NodeKind.FILE]
            return (number % 4, len(nodes), sum(len(node.read()) for node in nodes), len(image.hidden()))

        expected = {ask(number) for number in range(4)}
        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(ask, range(64))) == expected


def test_tar_entries_lists_what_is_stored(tmp_path: Path) -> None:
    path = tmp_path / "layer.tar.gz"
    path.write_bytes(compressed(TarMaker().file("a", b"1").file("a", b"22").file("./.wh.b").end(), "gzip"))
    assert [(entry.name, entry.size) for entry in fl.tar_entries(path)] == [("a", 1), ("a", 2), ("./.wh.b", 0)]
    with pytest.raises(fl.PathNotFound):
        list(fl.tar_entries(tmp_path / "missing"))
    (tmp_path / "nothing").write_bytes(b"nothing at all")
    with pytest.raises(fl.DamagedData):
        list(fl.tar_entries(tmp_path / "nothing"))


# whole archives, damaged at random: problems or errors of the library, never anything else


def examine(path: Path) -> tuple[list[str], list[str]]:
    """Ask everything; what failed, and the problems."""
    try:
        with fl.open(path) as evidence:
            for image in evidence.images:
                assert repr(image)
                image.inspect()
                image.dockerfile()
                len(image.history())
                for node in image.tree().walk():
                    if node.kind is fl.NodeKind.FILE:
                        try:
                            node.read()
                        except fl.ForensicsError:
                            continue
                len(image.hidden())
            for found in evidence.filesystems:
                for _ in found.tree.walk():
                    pass
            len(evidence.hashes())
            failed = [check.subject for check in evidence.verify() if not check.ok]
            return failed, [problem.message for problem in evidence.problems]
    except fl.ForensicsError as error:
        return [], [str(error)]


ARCHIVES = {shape.__name__: to_tar(shape(RECIPE)) for shape in (docker_save, oci_layout, hybrid_save, v1_save)}
ARCHIVES["docker_save gzip"] = compressed(ARCHIVES["docker_save"], "gzip")
any_damage = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("name", ARCHIVES)
@any_damage
@given(data=st.data())
def test_bytes_changed_at_random(tmp_path: Path, name: str, data: st.DataObject) -> None:
    content = bytearray(ARCHIVES[name])
    for place, value in data.draw(
        st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), max_size=12)
    ):
        content[place] = value
    path = tmp_path / "damaged.tar"
    path.write_bytes(content)
    examine(path)


@pytest.mark.parametrize("name", ARCHIVES)
@any_damage
@given(data=st.data())
def test_cut_and_pasted_at_random(tmp_path: Path, name: str, data: st.DataObject) -> None:
    content = ARCHIVES[name]
    places = st.integers(0, len(content))
    start, end, to = data.draw(places), data.draw(places), data.draw(places)
    path = tmp_path / "damaged.tar"
    path.write_bytes(content[:to] + content[start:end] + data.draw(st.binary(max_size=20)))
    examine(path)


@pytest.mark.parametrize("name", ["docker_save", "oci_layout", "docker_save gzip"])
def test_a_cut_archive_is_never_taken_for_a_whole_one(tmp_path: Path, name: str) -> None:
    content = ARCHIVES[name]
    path = tmp_path / "cut.tar"
    path.write_bytes(content)
    assert examine(path) == ([], [])
    lengths = {*range(0, len(content) - 1024, 509), *range(0, len(content) - 1024, 1024), 1, 511, 513}
    for length in sorted(lengths) if name != "docker_save gzip" else range(0, len(content), 41):
        path.write_bytes(content[:length])
        assert any(examine(path)), f"nothing is said of an archive of {length} bytes"


@pytest.mark.parametrize("shape", [docker_save, oci_layout], ids=lambda shape: shape.__name__)
def test_whatever_a_digest_covers_is_reported_when_it_changes(tmp_path: Path, shape: Callable[[Recipe], Files]) -> None:
    """Each bit of every layer and configuration, where they lie in the archive."""
    files = shape(RECIPE)
    archive = to_tar(files)
    path = tmp_path / "changed.tar"
    generator = random.Random(7)
    for name, content in files.items():
        if name.endswith(("VERSION", "/json", "repositories", "index.json", "oci-layout")) or name == "manifest.json":
            continue  # no digest covers them
        start = archive.index(content)
        for _ in range(12):
            place = start + generator.randrange(len(content))
            changed = bytearray(archive)
            changed[place] ^= 1 << generator.randrange(8)
            path.write_bytes(changed)
            failed, problems = examine(path)
            assert failed or problems, f"byte {place - start} of {name}"
            assert failed, f"byte {place - start} of {name}: {problems}"
