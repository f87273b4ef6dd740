"""Image layers put together again from their records and files: what was changed after the pull is named."""

from __future__ import annotations

from pathlib import Path

import pytest

import forensics_lib as fl
from forensics_lib.engines.docker.drivers import DRIVERS
from forensics_lib.model import Check
from tests.engines.docker.dataroot import digest
from tests.engines.docker.rootmaker import Layer, RootMaker, tar_split
from tests.trees.layers import link, whiteout


def host(driver: str = "overlay2") -> tuple[RootMaker, Layer]:
    root = RootMaker(driver)
    base = root.layer(
        {"/bin/sh": b"\x7fELF" + bytes(5000), "/bin/ls": b"\x7fELF", "/etc/empty": b"", "/sh": link("bin/sh")}
    )
    gone = {"/bin/ls": whiteout()} if driver != "aufs" else {"/bin/.wh.ls": b""}
    top = root.layer({"/srv/a": b"12345", "/srv/b": b"6", **gone}, base)
    root.image(top, tags=["acme/web:1"])
    root.container("web", top)
    return root, top


def checks(root: RootMaker, place: Path) -> tuple[list[Check], list[str]]:
    """The checks, and the problems met."""
    with root.opened(place) as ev:
        return list(ev.verify()), [problem.message for problem in ev.problems]


def failed(root: RootMaker, place: Path) -> list[tuple[str, str]]:
    """What failed: the last words of the subject, and what was found."""
    found, _ = checks(root, place)
    return [(check.subject.rpartition(" ")[2], check.actual) for check in found if not check.ok]


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_sound_root(driver: str, tmp_path: Path) -> None:
    root, top = host(driver)
    found, problems = checks(root, tmp_path)
    kinds = ["chain id", "size", "archive"]
    subjects = {f"layer {layer.chain_id} {kind}" for layer in top.stack for kind in kinds}
    image_id = root.repositories["acme/web"]["acme/web:1"]
    assert {check.subject for check in found} == {*subjects, f"image {image_id} configuration"}
    assert all(check.ok for check in found)
    assert all(check.expected == check.actual for check in found)
    assert problems == []


@pytest.mark.parametrize("driver", DRIVERS)
def test_one_changed_byte_names_exactly_that_file(driver: str, tmp_path: Path) -> None:
    root, top = host(driver)
    place = f"{root.layer_dir(top)}/srv/a"
    root.entries[place] = b"12X45"
    found = failed(root, tmp_path)
    assert [kind for kind, _ in found] == ["archive", "file"]
    assert found[1] == ("file", "/srv/a has another content")


def test_every_file_that_differs_is_named(tmp_path: Path) -> None:
    root, top = host()
    folder = root.layer_dir(top.stack[1])
    root.entries[f"{folder}/bin/sh"] = b"\x7fELF" + bytes(4999) + b"\1"
    root.entries[f"{folder}/bin/ls"] = b"\x7fELF and more"
    assert failed(root, tmp_path)[2:] == [
        ("file", "/bin/ls has 13 bytes instead of 4"),
        ("file", "/bin/sh has another content"),
    ]


@pytest.mark.parametrize("made", [None, link("/etc/passwd")])
def test_a_missing_file_is_named(made: bytes | None, tmp_path: Path) -> None:
    root, top = host()
    place = f"{root.layer_dir(top)}/srv/a"
    if made is None:
        del root.entries[place]
    else:
        root.entries[place] = made
    found = failed(root, tmp_path)
    assert ("file", "srv/a is missing") in found
    assert not any("srv/b" in what for _, what in found)


def test_a_file_that_was_put_into_a_layer_is_named(tmp_path: Path) -> None:
    root, top = host()
    root.entries[f"{root.layer_dir(top)}/srv/implant"] = b"evil"
    assert failed(root, tmp_path) == [("size", "10"), ("file", "/srv/implant is not in the archive")]


def test_a_changed_configuration(tmp_path: Path) -> None:
    root, _ = host()
    image_id = root.repositories["acme/web"]["acme/web:1"]
    path = root.path(f"image/overlay2/imagedb/content/sha256/{image_id[7:]}")
    raw = root.entries[path]
    assert isinstance(raw, bytes)
    root.entries[path] = raw.replace(b'"sh"', b'"nc"')
    found, problems = checks(root, tmp_path)
    (bad,) = [check for check in found if not check.ok]
    assert (bad.subject, bad.expected) == (f"image {image_id} configuration", image_id)
    assert any("its configuration now has the digest" in message for message in problems)


def test_a_changed_diff_id(tmp_path: Path) -> None:
    root, top = host()
    root.put(f"image/overlay2/layerdb/sha256/{top.chain_id[7:]}/diff", digest("another"))
    assert [kind for kind, _ in failed(root, tmp_path)] == ["id", "archive"]


@pytest.mark.parametrize("diff_id", ["", "sha256:1", "../../x"])
def test_a_diff_id_that_is_none(diff_id: str, tmp_path: Path) -> None:
    root, top = host()
    root.put(f"image/overlay2/layerdb/sha256/{top.chain_id[7:]}/diff", diff_id)
    kinds = [kind for kind, _ in failed(root, tmp_path)]
    assert kinds == ["id", "archive"]


def test_a_changed_size(tmp_path: Path) -> None:
    root, top = host()
    root.put(f"image/overlay2/layerdb/sha256/{top.chain_id[7:]}/size", "7")
    assert failed(root, tmp_path) == [("size", "6")]


@pytest.mark.parametrize("record", [None, b"", b"no gzip", tar_split(bytes(1024))[:30], b"\x1f\x8b"])
def test_a_layer_whose_record_is_missing_or_damaged(record: bytes | None, tmp_path: Path) -> None:
    root, top = host()
    path = f"/docker/image/overlay2/layerdb/sha256/{top.chain_id[7:]}/tar-split.json.gz"
    if record is None:
        del root.entries[path]
    else:
        root.entries[path] = record
    found, problems = checks(root, tmp_path)
    bad = [check for check in found if not check.ok]
    assert {check.subject.partition(" ")[2].partition(" ")[0] for check in bad} == {top.chain_id}
    below = [check for check in found if top.stack[1].chain_id in check.subject]
    assert len(below) == 3
    if record is None:
        assert any("has no tar-split record" in message for message in problems)


def test_a_layer_without_directory(tmp_path: Path) -> None:
    root, top = host()
    root.entries = {path: made for path, made in root.entries.items() if f"overlay2/{top.cache_id}" not in path}
    found, problems = checks(root, tmp_path)
    (bad,) = [check for check in found if not check.ok]
    assert bad.actual.startswith("cannot be put together")
    assert any(top.cache_id in message for message in problems)


@pytest.mark.parametrize("driver", ["devicemapper", "zfs"])
def test_layers_whose_files_are_elsewhere(driver: str, tmp_path: Path) -> None:
    root = RootMaker(driver)
    top = root.layer({"/a": b"1"})
    root.image(top)
    found, _ = checks(root, tmp_path)
    assert {check.subject.rpartition(" ")[2]: check.ok for check in found} == {
        "configuration": True, "id": True, "archive": False,
    }  # fmt: skip


def test_bytes_that_were_appended_to_a_file_are_found(tmp_path: Path) -> None:
    root, top = host()
    root.entries[f"{root.layer_dir(top)}/srv/b"] = b"6" + bytes(1 << 20)
    assert failed(root, tmp_path) == [("size", "1048582"), ("file", "/srv/b has 1048577 bytes instead of 1")]


def test_layers_of_buildkit_record_the_size_of_their_archive(tmp_path: Path) -> None:
    root = RootMaker()
    top = root.layer({"/a": b"123", "/link": link("a" * 50)})
    record = f"image/overlay2/layerdb/sha256/{top.chain_id[7:]}"
    short = "k" * 25
    root.entries = {path.replace(top.cache_id, short): made for path, made in root.entries.items()}
    root.put(f"{record}/cache-id", short)
    root.put(f"{record}/size", "3")
    found, _ = checks(root, tmp_path)
    assert all(check.ok for check in found)


def test_strict_evidence_is_verified_as_well(tmp_path: Path) -> None:
    root, _ = host()
    with root.opened(tmp_path, strict=True) as ev:
        assert isinstance(ev.verify(), fl.Table)
        assert all(check.ok for check in ev.verify())
