"""Small records without a name get the one that their content and their neighbours tell."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forensics_lib.model import Origin
from forensics_lib.recovery.records import Records, named_by_records
from forensics_lib.recovery.remnant import Remnant
from tests.engines.docker.dataroot import chain, digest, hexid
from tests.recovery.scene import at, config, encoded, remnant

BASE, TOP = digest("base"), digest("top")
CACHE, MOUNT, WEB = hexid("cache"), hexid("mount"), hexid("web")
CHAIN = chain(BASE, TOP).removeprefix("sha256:")
LAYER, MOUNTS = f"layerdb/sha256/{CHAIN}", f"layerdb/mounts/{WEB}"


def image(*diff_ids: str, created: float = 1, **more: Any) -> Remnant:
    rows = [{"created_by": one} for one in diff_ids]
    rootfs = {"type": "layers", "diff_ids": list(diff_ids)}
    document = {"created": at(created), "os": "linux", "rootfs": rootfs, "history": rows, **more}
    return remnant(encoded(document), "imagedb/content/sha256/x", "image")


def lying(*contents: bytes | Remnant, first: int = 8, step: int = 1024, device: str = "disk") -> list[Remnant]:
    """Files in blocks that follow each other."""
    found = []
    for index, one in enumerate(contents):
        row = one if isinstance(one, Remnant) else remnant(one)
        known = {name: getattr(row, name) for name in ("container_id", "image_id")}
        origin = Origin(device).to("carved", (first + index) * step)
        found.append(remnant(row.read(), row.path, row.kind, origin=origin, **known))
    return found


def paths(rows: list[Remnant], *images: Remnant, block: int = 1024) -> list[str]:
    return [one.path for one in named_by_records(rows, rows, Records.of([*images, *rows], []), block)]


def test_digests_by_the_layers_of_a_recovered_image() -> None:
    rows = [remnant(TOP.encode()), remnant(BASE.encode()), remnant(digest("other").encode())]
    base = BASE.removeprefix("sha256:")
    assert paths(rows, image(BASE, TOP)) == [f"{LAYER}/diff", f"layerdb/sha256/{base}/diff", ""]
    assert paths(rows) == ["", "", ""]
    (_, same, _) = named_by_records(rows, rows, Records.of([image(BASE, TOP)], []), 1024)
    assert f"also {LAYER}/parent" in same.detail  # equal bytes of another file
    assert same.confidence is rows[1].confidence


def test_layers_that_are_there_name_nothing() -> None:
    known = Records.of([image(BASE, TOP)], [])
    known.live = set(known.layers)
    rows = lying(TOP.encode(), b"78", CACHE.encode(), BASE.encode())
    assert [one.path for one in named_by_records(rows, rows, known, 1024)] == [""] * 4


def test_the_record_of_a_layer_by_its_order() -> None:
    rows = lying(TOP.encode(), b"78", CACHE.encode(), BASE.encode())
    named = [f"{LAYER}/{name}" for name in ("diff", "size", "cache-id", "parent")]
    assert paths(rows) == named
    assert paths(rows[:3]) == ["", "", ""]  # nothing tells the layer below
    assert paths(rows, block=4096) == [""] * 4
    assert paths([*rows[:2], *lying(CACHE.encode(), BASE.encode(), first=10, device="other")]) == [""] * 4
    lower = lying(BASE.encode(), b"7", hexid("lowest").encode())
    folder = f"layerdb/sha256/{BASE.removeprefix('sha256:')}"
    assert paths(lower, image(BASE, TOP)) == [f"{folder}/{name}" for name in ("diff", "size", "cache-id")]


def test_the_record_of_a_writable_layer_before_that_of_its_container() -> None:
    own = remnant(encoded(config(WEB, "web", 1)), f"containers/{WEB}/config.v2.json", "config", container_id=WEB)
    settings = remnant(b"{}", "hostconfig.json", "config")
    files = [MOUNT.encode(), f"{MOUNT}-init".encode(), TOP.encode()]
    rows = lying(*files, settings, own)
    assert paths(rows)[:3] == [f"{MOUNTS}/{name}" for name in ("mount-id", "init-id", "parent")]
    found = list(named_by_records(rows, rows, Records.of(rows, []), 1024))
    assert {one.container_id for one in found[:3]} == {WEB}
    assert paths(lying(*files, b"x", own))[:3] == ["mount-id", "init-id", ""]  # whose it was is not told
    assert paths(lying(files[0], files[1], own))[:2] == [f"{MOUNTS}/mount-id", f"{MOUNTS}/init-id"]


def test_a_container_of_another_image_is_not_the_owner() -> None:
    other = image(digest("another"))
    image_id = f"sha256:{other.sha256}"
    own = remnant(b"{}", f"containers/{WEB}/config.v2.json", "config", container_id=WEB, image_id=image_id)
    rows = lying(MOUNT.encode(), f"{MOUNT}-init".encode(), TOP.encode(), own)
    assert paths(rows, other)[:2] == ["mount-id", "init-id"]


def test_the_parent_of_an_image_that_was_built_step_by_step() -> None:
    below, above = image(BASE), image(BASE, TOP)
    rows = [remnant(f"sha256:{below.sha256}".encode())]
    assert paths(rows, below, above) == [f"imagedb/metadata/sha256/{above.sha256}/parent"]
    assert paths(rows, below, above, image(BASE, digest("second"))) == [""]


def test_when_an_image_got_its_name() -> None:
    one, path = image(BASE, created=5), "imagedb/metadata/sha256/{}/lastUpdated"
    time, late = (remnant(at(second).encode()) for second in (5.2, 7))
    assert paths([time, late], one) == [path.format(one.sha256), ""]
    assert paths([time], one, image(TOP, created=4.9)) == [""]
    assert paths([time, remnant(at(5.3).encode())], one) == ["", ""]


def test_names_that_are_known_stay() -> None:
    assert paths([remnant(TOP.encode(), "/srv/digest")], image(BASE, TOP)) == ["/srv/digest"]
    assert paths([remnant(TOP.encode(), complete=False)], image(BASE, TOP)) == [""]


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"rootfs":{"diff_ids":[1]},"history":7}', b'"diff_ids": [ "sha'])
def test_configs_that_are_none(data: bytes) -> None:
    assert paths([remnant(TOP.encode())], remnant(data, "x", "image")) == [""]


KNOWN = [TOP.encode(), b"7", CACHE.encode(), f"{CACHE}-init".encode()]


@given(st.lists(st.one_of(st.binary(), st.sampled_from(KNOWN))))
def test_any_content_is_survived(files: list[bytes]) -> None:
    rows = lying(*files)
    assert len(paths(rows, image(BASE, TOP))) == len(rows)


def test_a_list_that_never_ends_costs_no_time() -> None:
    """Every blank between two digests could be read in two ways, were the pattern not strict."""
    listed = b'"diff_ids": [' + b"    ".join([b'"sha256:' + b"a" * 64 + b'"'] * 300)
    start = time.process_time()
    known = Records.of([remnant(listed, kind="image")], [])
    assert time.process_time() - start < 5
    assert known.layers == {}
