"""Image archives that are written blob by blob."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import forensics_lib as fl
from forensics_lib.errors import DamagedData, LimitExceeded
from forensics_lib.images.docker_save import ImageArchive, to_json
from forensics_lib.images.reference import Reference
from tests.imagemaker import digest_of
from tests.tarmaker import TarMaker

LAYER = bytes(TarMaker().file("a", b"1").end())


def config(*layers: bytes) -> bytes:
    diff_ids = [digest_of(layer) for layer in layers]
    return to_json({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}})


def damaged() -> Iterator[bytes]:
    yield LAYER[:100]
    raise DamagedData("a bad sector")


def test_an_image(tmp_path: Path) -> None:
    path = tmp_path / "image.tar"
    other = bytes(TarMaker().file("b", b"2").end())
    with path.open("x+b") as file:
        archive = ImageArchive(file, path)
        digests = [archive.layer(len(data), [data[:700], data[700:]]) for data in (LAYER, other, LAYER)]
        image_id = archive.finish(config(LAYER, other, LAYER), digests, Reference.parse("localhost:5000/x:1"))
    assert digests == [digest_of(data) for data in (LAYER, other, LAYER)]
    assert sum(entry.name.startswith("blobs/sha256/") and entry.is_file for entry in fl.tar_entries(path)) == 4
    with fl.open(path) as evidence:
        (image,) = evidence.images
        assert (image.id, image.tags) == (image_id, ("localhost:5000/x:1",))
        assert [layer.diff_id for layer in image.layers] == digests
        assert image.tree().read("/b") == b"2"
        assert all(check.ok for check in evidence.verify())
        assert len(evidence.problems) == 0


@pytest.mark.parametrize(
    ("size", "chunks", "message"),
    [
        (len(LAYER), damaged(), "a bad sector"),
        (len(LAYER), [LAYER[:-1]], "fewer than the"),
        (len(LAYER) - 1, [LAYER], "more than the"),
    ],
)
def test_nothing_stays_of_a_layer_that_cannot_be_read(
    size: int, chunks: Iterator[bytes] | list[bytes], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "image.tar"
    with path.open("x+b") as file:
        archive = ImageArchive(file, path)
        before = file.tell()
        with pytest.raises(DamagedData, match=message):
            archive.layer(size, chunks)
        assert file.tell() == before
        archive.finish(config(LAYER), [archive.layer(len(LAYER), [LAYER])], None)
    with fl.open(path) as evidence:
        assert evidence.images[0].tree().read("/a") == b"1"
        assert all(check.ok for check in evidence.verify())


def test_a_layer_that_does_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "image.tar"
    with path.open("x+b") as file:
        archive = ImageArchive(file, path)
        assert archive.room > 0
        with pytest.raises(LimitExceeded, match="more than the disk has free"):
            archive.layer(1 << 62, damaged())


def test_documents_are_written_as_they_were() -> None:
    assert to_json({"b": ["é", "\udcff"], "a": 1}) == b'{"a":1,"b":["\xc3\xa9","\xff"]}'
