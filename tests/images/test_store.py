"""Finding documents, blobs and layers in a tree of files."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

import forensics_lib as fl
from forensics_lib.formats.jsondoc import JsonObject
from forensics_lib.images.layer import LayerBlob, SpoolPool
from forensics_lib.images.store import Descriptor, ImageStore
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.sources.base import BytesSource
from forensics_lib.trees.archive import tar_tree
from forensics_lib.trees.directory import DirectoryTree
from tests.imagemaker import LAYER, Files, Recipe, digest_of, oci_layout, to_tar, write_folder
from tests.tarmaker import TarMaker

ORIGIN = Origin("evidence.tar")
LAYER_TAR = TarMaker().file("a", b"1").end()


def store_of(files: Files, links: dict[str, str] | None = None, *, strict: bool = False) -> ImageStore:
    problems = ProblemLog(strict=strict)
    tree = tar_tree(BytesSource(to_tar(files, links=links), ORIGIN), problems, fl.Limits())
    return ImageStore(tree, problems, fl.Limits(), SpoolPool(1 << 20))


def named(data: bytes, **more: object) -> Descriptor:
    return Descriptor.parse(JsonObject({"digest": digest_of(data), "size": len(data), **more}), ORIGIN)  # type: ignore[dict-item]


def test_a_descriptor() -> None:
    found = Descriptor.parse(
        JsonObject(
            {
                "digest": "sha256:1",
                "size": 5.0,
                "mediaType": "m",
                "platform": {"os": "linux", "architecture": "arm", "variant": "v7"},
                "annotations": {"a": "b", "c": 7},
                "urls": ["u", 7],
                "artifactType": "t",
                "data": "aGk=",
            }
        ),
        ORIGIN,
    )
    assert found == Descriptor("sha256:1", 5, "m", ORIGIN, "linux/arm/v7", {"a": "b"}, ("u",), "t", b"hi")


@pytest.mark.parametrize("data", ["not base64!", "aGk", "\ud800", 7, None])
def test_embedded_data_that_is_none(data: object) -> None:
    assert Descriptor.parse(JsonObject({"data": data}), ORIGIN).data is None  # type: ignore[dict-item]


def test_blobs_lie_in_a_layout_or_beside_the_manifest() -> None:
    digest = digest_of(b"x")
    for path in (f"blobs/sha256/{digest[7:]}", digest[7:]):
        node = store_of({path: b"x"}).blob(digest)
        assert node is not None
        assert (node.path, node.read()) == (f"/{path}", b"x")
    assert store_of({}).blob(digest) is None


@pytest.mark.parametrize("digest", ["", "sha256:", "sha256:../x", "sha1:" + "0" * 40, "SHA256:" + "0" * 64])
def test_what_is_no_digest_is_never_made_a_path(digest: str) -> None:
    store = store_of({"x": b"1", "blobs/x": b"1"})
    assert store.blob(digest) is None
    assert ["no valid digest" in problem.message for problem in store.problems.rows] == [True]


def test_blobs_of_a_shared_folder(tmp_path: Path) -> None:
    digest = digest_of(b"x")
    for name in (f"sha256/{digest[7:]}", f"blobs/sha256/{digest[7:]}"):
        shared = write_folder({name: b"x"}, tmp_path / name.replace("/", "-"))
        problems = ProblemLog()
        tree = tar_tree(BytesSource(to_tar({}), ORIGIN), problems, fl.Limits())
        store = ImageStore(tree, problems, fl.Limits(), SpoolPool(1), DirectoryTree(shared, problems))
        node = store.blob(digest)
        assert node is not None
        assert node.read() == b"x"
        assert [node.path for node in store.files()] == [f"/{name}"]


def test_a_document() -> None:
    store = store_of({"d.json": b'{"a": 1}'})
    document = store.document("/d.json")
    assert document is not None
    assert (document.raw, document.value, document.object.integer("a")) == (b'{"a": 1}', {"a": 1}, 1)
    assert document.digest == f"sha256:{hashlib.sha256(document.raw).hexdigest()}"
    assert str(document.origin).startswith("evidence.tar > ")
    assert "d.json" in str(document.origin)


def test_origins_name_each_place_once(tmp_path: Path) -> None:
    folder = write_folder(
        {"manifest.json": b"{}", f"blobs/sha256/{digest_of(LAYER_TAR)[7:]}": LAYER_TAR}, tmp_path / "x"
    )
    problems = ProblemLog(strict=True)
    store = ImageStore(DirectoryTree(folder, problems), problems, fl.Limits(), SpoolPool(1))
    document = store.document("/manifest.json")
    assert document is not None
    assert str(document.origin) == "x > manifest.json"
    assert str(store.layer("", named(LAYER_TAR)).origin) == f"x > blobs/sha256/{digest_of(LAYER_TAR)[7:]}"
    packed = store_of({"manifest.json": b"{}"}).document("/manifest.json")
    assert packed is not None
    assert str(packed.origin) == "evidence.tar > tar header @0 > manifest.json"


@pytest.mark.parametrize(
    ("files", "error"),
    [
        ({}, fl.PathNotFound),
        ({"d.json": b"{"}, fl.DamagedData),
        ({"d.json": b"[" * 100_000}, fl.LimitExceeded),
        ({"d.json/below": b""}, fl.PathNotFound),
    ],
)
def test_a_document_that_cannot_be_read(files: Files, error: type[fl.ForensicsError]) -> None:
    store = store_of(files)
    assert store.document("/d.json") is None
    assert [type(problem.error) for problem in store.problems.rows] == [error]
    assert "d.json" in str(store.problems.rows[0].origin)
    with pytest.raises(error):
        store_of(files, strict=True).document("/d.json")


def test_links_are_followed_inside_the_evidence_only() -> None:
    store = store_of({"real/file": b"1"}, {"link": "real/file", "absolute": "/real/file", "out": "../../../etc/passwd"})
    for path in ("/link", "/absolute"):
        node = store.find(path)
        assert node is not None
        assert node.read() == b"1"
    assert store.find("/out") is None
    assert store.find("/real") is None


def test_a_circle_of_links_is_a_problem() -> None:
    store = store_of({}, {"a": "b", "b": "a"})
    assert store.find("/a") is None
    assert [type(problem.error) for problem in store.problems.rows] == [fl.LimitExceeded]


def test_one_layer_for_one_file() -> None:
    store = store_of({"one/layer.tar": LAYER_TAR}, {"two/layer.tar": "../one/layer.tar"})
    assert store.layer("/one/layer.tar") is store.layer("/two/layer.tar")
    assert list(store.layers) == ["/one/layer.tar"]


def test_a_layer_by_its_descriptor() -> None:
    store = store_of({f"blobs/sha256/{digest_of(LAYER_TAR)[7:]}": LAYER_TAR})
    layer = store.layer("", named(LAYER_TAR))
    assert layer.unreadable is None
    assert [entry.name for entry in layer.entries()] == ["a"]


def test_a_missing_layer_is_kept_with_the_reason() -> None:
    store = store_of({})
    layer = store.layer("", named(LAYER_TAR))
    assert isinstance(layer.unreadable, fl.NotFound)
    assert [digest_of(LAYER_TAR) in problem.message for problem in store.problems.rows] == [True]
    with pytest.raises(fl.NotFound):
        layer.entries()
    assert layer.changeset().members == []


@pytest.mark.parametrize("present", [True, False])
def test_an_encrypted_layer(present: bool) -> None:
    files = {f"blobs/sha256/{digest_of(b'cipher')[7:]}": b"cipher"} if present else {}
    store = store_of(files)
    layer = store.layer("", named(b"cipher", mediaType=LAYER + "+encrypted"))
    assert isinstance(layer.unreadable, fl.UnsupportedFormat)
    assert "encrypted" in store.problems.rows[0].message


def test_a_foreign_layer_that_is_there_is_read() -> None:
    media_type = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    store = store_of({f"blobs/sha256/{digest_of(LAYER_TAR)[7:]}": LAYER_TAR})
    assert store.layer("", named(LAYER_TAR, mediaType=media_type)).unreadable is None
    assert store.problems.rows == []
    missing = store_of({}).layer("", named(LAYER_TAR, mediaType=media_type, urls=["https://example.com/x"]))
    assert "https://example.com/x" in str(missing.unreadable)


def test_files_lists_every_regular_file() -> None:
    store = store_of({"b": b"", "a/c": b""}, {"link": "b"})
    assert [node.path for node in store.files()] == ["/a/c", "/b"]


def test_a_folder_with_files_that_may_not_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of the image is there, and each of them is a problem."""
    layers = [TarMaker().file("a", b"1").end(), TarMaker().file("b", b"2").end()]
    folder = write_folder(oci_layout(Recipe(layers, tags=["acme/web:1.0"], compression="none")), tmp_path / "layout")
    locked = folder / "blobs/sha256" / digest_of(layers[0])[7:]
    opened = os.open

    def refuse(path: Path, *more: int) -> int:
        if path == locked:
            raise PermissionError(13, "Permission denied")
        return opened(path, *more)

    monkeypatch.setattr(os, "open", refuse)
    with fl.open(folder) as evidence:
        image = evidence.image("acme/web:1.0")
        assert [layer.unreadable is None for layer in image.layers] == [False, True]
        assert [node.path for node in image.tree().walk()] == ["/", "/b"]
        assert [f"cannot open {locked}: Permission denied"] == [problem.message for problem in evidence.problems]
        assert not all(check.ok for check in evidence.verify())
        assert "b" in [row.path.lstrip("/") for row in evidence.hashes()]


def test_a_layer_whose_bytes_cannot_be_read_is_a_problem() -> None:
    problems = ProblemLog()
    cut = BytesSource(b"", ORIGIN).slice(0, 1024, "layer")
    blob = LayerBlob("layer", cut, ORIGIN, problems=problems, limits=fl.Limits(), pool=SpoolPool(1))
    assert isinstance(blob.unreadable, fl.DamagedData)
    assert [problem.error for problem in problems.rows] == [blob.unreadable]
