"""Digests of everything, against the system's own tools."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import random
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

import pytest

import forensics_lib as fl
from tests.imagemaker import Recipe, compressed, digest_of, oci_layout, write_folder
from tests.samples import CHANGESETS, DIR_GZIP, DOCKER_SAVE, EXPORT, OCI, OCI_ZSTD, PLATFORMS, WEB, archive_tree, unpack
from tests.tarmaker import TarMaker

P = ParamSpec("P")
T = TypeVar("T")
needs_tar = pytest.mark.skipif(
    shutil.which("tar") is None or shutil.which("sha256sum") is None, reason="no tar or sha256sum command"
)


class Inline(Executor):
    """Does the work at once, in the caller's thread."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def system_hashes(archive: Path, folder: Path) -> dict[str, str]:
    """sha256 of every regular file by path, from GNU tar's extraction."""
    folder.mkdir()
    extract = [
        "tar",
        "--no-same-owner",
        "--delay-directory-restore",
        "--warning=no-timestamp",
        "-xf",
        str(archive),
        "-C",
        str(folder),
    ]
    done = subprocess.run(extract, capture_output=True, check=False)
    faults = [line for line in done.stderr.decode().splitlines() if "mknod" not in line and "Exiting" not in line]
    assert faults == []  # only root may make device nodes
    subprocess.run(["chmod", "-R", "u+rwX", folder], check=True)
    names = sorted(os.fsencode(path) for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    found = {}
    for start in range(0, len(names), 100):
        output = subprocess.run(
            ["sha256sum", "-z", *names[start : start + 100]], capture_output=True, check=True
        ).stdout
        for line in output.rstrip(b"\0").split(b"\0"):
            digest, _, name = line.partition(b"  ")
            found["/" + os.fsdecode(os.path.relpath(name, os.fsencode(folder)))] = digest.decode()
    return found


def digests(rows: fl.Table[fl.ArtifactHash]) -> set[tuple[object, ...]]:
    return {
        (row.owner, row.path, row.kind, row.size, row.md5, row.sha1, row.sha256, row.others, str(row.origin))
        for row in rows
    }


@needs_tar
@pytest.mark.parametrize("fixture", [DOCKER_SAVE, OCI, WEB, PLATFORMS], ids=lambda path: path.name)
def test_every_file_of_every_layer_as_the_system_sees_it(fixture: Path, tmp_path: Path) -> None:
    with fl.open(fixture) as evidence:
        rows = list(evidence.hashes(kinds=("file",)))
        layers = {layer.digest or "": layer for image in evidence.images for layer in image.layers}
        assert layers
        for number, (digest, layer) in enumerate(layers.items()):
            archive = tmp_path / f"{number}.tar"
            assert layer.blob is not None
            archive.write_bytes(b"".join(layer.blob.stream()))
            expected = system_hashes(archive, tmp_path / str(number))
            assert {row.path: row.sha256 for row in rows if row.owner == digest} == expected
        assert {row.owner for row in rows} <= set(layers)


@needs_tar
def test_every_file_of_a_file_system_as_the_system_sees_it(tmp_path: Path) -> None:
    if shutil.which("zstd") is None:
        pytest.skip("no zstd command")
    with fl.open(EXPORT) as evidence:
        found = {row.path: row.sha256 for row in evidence.hashes(kinds=("file",))}
    assert found == system_hashes(EXPORT, tmp_path / "export")


def test_other_artifacts_are_named_by_their_digests(tmp_path: Path) -> None:
    folder = unpack(OCI, tmp_path / "oci")
    with fl.open(folder) as evidence:
        rows = evidence.hashes()
        blobs = {row.path: row for row in rows.where(kind="blob")}
        assert set(blobs) == {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
        for path, row in blobs.items():
            content = (folder / path).read_bytes()
            assert (row.size, row.sha256) == (len(content), hashlib.sha256(content).hexdigest())
            if path.startswith("blobs/"):
                assert path == f"blobs/sha256/{row.sha256}"
        layers = {layer.digest: layer.diff_id for image in evidence.images for layer in image.layers}
        assert {row.owner: f"sha256:{row.sha256}" for row in rows.where(kind="layer")} == layers
        assert rows.where(kind="evidence").first() is None  # a folder has no bytes of its own


def test_the_evidence_itself() -> None:
    for fixture in (WEB, DOCKER_SAVE, EXPORT):
        with fl.open(fixture) as evidence:
            (row,) = evidence.hashes(kinds=("evidence",))
            content = fixture.read_bytes()
            assert (row.path.rpartition("/")[2], row.size) == (fixture.name, len(content))
            assert row.sha256 == hashlib.sha256(content).hexdigest()


def test_other_artifacts_get_the_algorithms_that_are_asked_of_their_kind() -> None:
    """The papers of an acquisition may state the md5 of the file, and nothing else."""
    content = OCI.read_bytes()
    with fl.open(OCI) as evidence:
        (row,) = evidence.hashes(("md5", "sha512"), kinds=("evidence",))
        assert (row.md5, row.sha1, row.sha256, row.digest("sha512")) == (
            hashlib.md5(content).hexdigest(), None, hashlib.sha256(content).hexdigest(),
            hashlib.sha512(content).hexdigest(),
        )  # fmt: skip
        for kind in ("blob", "layer"):
            rows = evidence.hashes(("md5",), kinds=(kind, "file")).where(kind=kind)
            known = {row.sha256: row for row in evidence.hashes(kinds=(kind,))}
            assert [row.sha256 for row in rows if row.md5 is None] == []
            assert {row.sha256 for row in rows} == set(known)
            assert {row.md5 for row in known.values()} == {None}
        for layer in evidence.hashes(("md5",), kinds=("layer",)):
            found = next(
                one.blob for i in evidence.images for one in i.layers if one.diff_id == f"sha256:{layer.sha256}"
            )
            assert found is not None
            assert layer.md5 == hashlib.md5(b"".join(found.stream())).hexdigest()
        with archive_tree(OCI) as tree:
            for row in evidence.hashes(("md5",), kinds=("blob",)):
                assert row.md5 == hashlib.md5(tree.read(row.path)).hexdigest()


def test_kinds() -> None:
    with fl.open(PLATFORMS) as evidence:
        every = digests(evidence.hashes())
        for kind in ("evidence", "blob", "layer", "file"):
            one = digests(evidence.hashes(kinds=(kind,)))
            assert one == {row for row in every if row[2] == kind}
            assert one
        assert list(evidence.hashes(kinds=())) == []
        with pytest.raises(ValueError, match="fils"):
            len(evidence.hashes(kinds=("fils",)))


def test_algorithms() -> None:
    names = ("sha512", "md5", "blake2b", "sha3_256")
    with fl.open(PLATFORMS) as evidence:
        rows = {(row.owner, row.path): row for row in evidence.hashes(names, kinds=("file",))}
        stored = {
            (layer.digest, node.path): node.read()
            for image in evidence.images
            for layer in image.layers
            for node in layer.tree().walk()
            if node.kind is fl.NodeKind.FILE
        }
        assert set(rows) == set(stored)
        for key, row in rows.items():
            assert [row.digest(name) for name in names] == [
                hashlib.new(name, stored[key]).hexdigest() for name in names
            ]
            assert (row.sha1, row.sha256) == (None, None)
            assert [name for name, _ in row.others] == ["sha512", "blake2b", "sha3_256"]
        with pytest.raises(ValueError, match="sha9"):
            len(evidence.hashes(("sha9",)))


def test_default_algorithms() -> None:
    with fl.open(PLATFORMS) as evidence:
        content = b"amd64 file\n"
        (row,) = evidence.hashes().where(kind="file", md5=hashlib.md5(content).hexdigest())
        assert (row.path, row.size, row.others) == ("/arch.txt", 11, ())
        assert row.sha1 == hashlib.sha1(content).hexdigest()
        assert row.sha256 == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("fixture", [WEB, DOCKER_SAVE, OCI_ZSTD, EXPORT], ids=lambda path: path.name)
def test_any_executor_gives_the_same_rows(fixture: Path) -> None:
    with fl.open(fixture) as evidence:
        rows = digests(evidence.hashes())
        with Inline() as executor:
            assert digests(evidence.hashes(executor=executor)) == rows


def test_processes_give_the_same_rows() -> None:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as executor:
        for fixture in (OCI, DOCKER_SAVE):
            with fl.open(fixture) as evidence:
                assert digests(evidence.hashes(executor=executor)) == digests(evidence.hashes())
        with fl.open(OCI) as evidence:
            assert all(check.ok for check in evidence.verify(executor=executor))


@pytest.mark.parametrize("executor", [None, Inline()], ids=["threads", "inline"])
@pytest.mark.parametrize("kinds", [None, ("file",), ("blob",), ("layer",), ("evidence",)], ids=str)
@pytest.mark.parametrize("fixture", [DOCKER_SAVE, OCI, EXPORT, DIR_GZIP], ids=lambda path: path.name)
def test_progress_reaches_its_total_exactly(
    fixture: Path, kinds: tuple[str, ...] | None, executor: Executor | None
) -> None:
    calls: list[tuple[int, int]] = []
    with fl.open(fixture, progress=lambda done, total: calls.append((done, total))) as evidence:
        calls.clear()
        rows = len(evidence.hashes(kinds=kinds, executor=executor))
    if not rows:
        assert calls == []
        return
    assert calls == sorted(calls)
    assert len({total for _, total in calls}) == 1
    assert calls[-1][0] == calls[-1][1] > 0
    assert [done for done, total in calls if done == total] == [calls[-1][1]]


def test_progress_of_verification() -> None:
    calls: list[tuple[int, int]] = []
    with fl.open(OCI, progress=lambda done, total: calls.append((done, total))) as evidence:
        calls.clear()
        assert len(evidence.verify())
        assert (
            calls[-1][0]
            == calls[-1][1]
            == sum({x.digest: x.size or 0 for i in evidence.images for x in i.layers}.values())
        )


def test_names_of_one_file_share_its_digest() -> None:
    with fl.open(WEB) as evidence:
        rows = evidence.hashes(kinds=("file",))
        links = {row.path: row.sha256 for row in rows if row.path in ("/special/hard1", "/special/hard2")}
        assert len(links) == 2
        assert len(set(links.values())) == 1


def test_a_name_of_a_lower_layers_file_has_its_row_there(tmp_path: Path) -> None:
    folder = unpack(CHANGESETS, tmp_path)
    with fl.open(folder / "hardlink-lower-layer" / "docker.tar") as evidence:
        assert [row.path for row in evidence.hashes(kinds=("file",))] == ["/a"]
        assert evidence.images[0].tree().read("/b") == b"1"


@needs_tar
def test_sparse_files_are_hashed_with_their_holes(tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    with (files / "sparse").open("wb") as file:
        file.seek(300_000)
        file.write(b"in the middle")
        file.truncate(1_000_000)
    for form in ("gnu", "posix"):
        archive = tmp_path / f"{form}.tar"
        subprocess.run(["tar", f"--format={form}", "--sparse", "-C", files, "-cf", archive, "sparse"], check=True)
        with fl.open(archive) as evidence:
            (row,) = evidence.hashes(kinds=("file",))
            tree = evidence.filesystems[0].tree
            assert tree.read("/sparse") == (files / "sparse").read_bytes()
        assert (row.path, row.size) == ("/sparse", 1_000_000)
        assert row.sha256 == hashlib.sha256((files / "sparse").read_bytes()).hexdigest()
        assert archive.stat().st_size < 20_000


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    """A small layer, and one of 24 files that do not compress."""
    noise, maker = random.Random(1), TarMaker()
    for number in range(24):
        maker.file(f"f{number:02}", noise.randbytes(100_000))
    return Recipe([TarMaker().file("a", b"1").end(), maker.end()])


def damaged_layer(recipe: Recipe, folder: Path) -> tuple[Path, str]:
    """Overwrite a part of the larger layer of a layout."""
    stored = compressed(recipe.layers[1], recipe.compression)
    name = digest_of(stored)[7:]
    layout = write_folder(oci_layout(recipe), folder / "layout")
    place = len(stored) * 3 // 4
    (layout / "blobs/sha256" / name).write_bytes(stored[:place] + b"\xff" * 70_000 + stored[place + 70_000 :])
    return layout, name


@pytest.mark.parametrize("executor", [None, Inline()], ids=["threads", "inline"])
def test_a_damaged_layer_is_a_problem_and_the_rest_is_hashed(
    recipe: Recipe, tmp_path: Path, executor: Executor | None
) -> None:
    layout, name = damaged_layer(recipe, tmp_path)
    stored = (layout / "blobs/sha256" / name).read_bytes()
    with fl.open(layout) as evidence:
        rows = evidence.hashes(executor=executor)
        files = {row.path: row.sha256 for row in rows.where(kind="file")}
        noise = random.Random(1)
        sound = {f"/f{number:02}": hashlib.sha256(noise.randbytes(100_000)).hexdigest() for number in range(24)}
        assert files.pop("/a") == hashlib.sha256(b"1").hexdigest()
        assert 10 <= len(files) <= 18
        assert sum(files[path] != sound[path] for path in files) <= 2  # a checksum of the stream comes at its end
        assert hashlib.sha256(stored).hexdigest() in {row.sha256 for row in rows.where(kind="blob")}
        assert [row.owner for row in rows.where(kind="layer")] == [digest_of(compressed(recipe.layers[0], "gzip"))]
        assert any(name in str(problem.origin) for problem in evidence.problems)


def test_a_strict_reader_stops_at_a_damaged_layer(recipe: Recipe, tmp_path: Path) -> None:
    layout, _ = damaged_layer(recipe, tmp_path)
    with fl.open(layout, strict=True) as evidence, pytest.raises(fl.DamagedData):
        len(evidence.hashes())


def test_rows_are_saved_with_every_column(tmp_path: Path) -> None:
    with fl.open(PLATFORMS) as evidence:
        path = evidence.hashes().save(tmp_path / "hashes.jsonl")
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        assert len(lines) == len(evidence.hashes())
    assert set(lines[0]) == {"owner", "path", "kind", "size", "md5", "sha1", "sha256", "origin", "others"}
