"""Images of the graph drivers' store: names, dangling and intermediate ones, and what contradicts itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import forensics_lib as fl
from forensics_lib.errors import PathNotFound
from forensics_lib.images.image import Image
from forensics_lib.model import ProblemLog
from tests.engines.docker.dataroot import digest, document, hexid
from tests.engines.docker.rootmaker import CREATED, Layer, RootMaker, docker_root
from tests.trees.layers import whiteout

CONTENT = "image/overlay2/imagedb/content/sha256"
METADATA = "image/overlay2/imagedb/metadata/sha256"


def host() -> tuple[RootMaker, Layer]:
    root = RootMaker()
    root.container("any")
    base = root.layer({"/etc/passwd": b"root", "/etc/key": b"secret"})
    return root, root.layer({"/etc/key": whiteout(), "/srv/a": b"12345"}, base)


def listed(root: RootMaker, *, strict: bool = False) -> tuple[dict[str, Image], list[str]]:
    """The images by id, and the problems."""
    problems = ProblemLog(strict=strict)
    images = {image.id: image for image in docker_root(root.tree(), problems).images}
    return images, [row.message for row in problems.rows]


def test_an_image(tmp_path: Path) -> None:
    root, top = host()
    manifest = f"acme/web@{digest('manifest')}"
    image_id = root.image(top, tags=["acme/web:1.0", "acme/web:latest"], digests=[manifest])
    root.put(f"{METADATA}/{image_id[7:]}/lastUpdated", "2024-01-02T03:04:05.6Z")
    with root.opened(tmp_path, strict=True) as ev:
        image = ev.image("acme/web")
        assert (image.id, image.config_digest) == (image_id, image_id)
        assert (image.tags, image.digests) == (("acme/web:1.0", "acme/web:latest"), (manifest,))
        assert ev.image(manifest).id == ev.image(image_id[7:19]).id == image_id
        assert [layer.diff_id for layer in image.layers] == top.diff_ids
        assert [layer.chain_id for layer in image.layers] == [top.stack[1].chain_id, top.chain_id]
        assert [(step.created_by, step.size) for step in image.history()] == [("step 1", 5), ("step 0", 10)]
        assert {node.path for node in image.tree().walk()} == {"/", "/etc", "/etc/passwd", "/srv", "/srv/a"}
        kinds = [str(version.kind) for version in image.versions("/etc/key")]
        assert kinds == ["A", "D"]
        assert [(row.path, row.size, row.layer, row.hidden_by, row.node.read()) for row in image.hidden()] == [
            ("/etc/key", 6, 0, 1, b"secret")
        ]


def test_inspect(tmp_path: Path) -> None:
    root, top = host()
    root.image(top, tags=["acme/web:1.0"], author="eve")
    home = "/var/lib/docker/overlay2"
    with root.opened(tmp_path, strict=True) as ev:
        shown = ev.images[0].inspect()
    own, below = (f"{home}/{layer.cache_id}" for layer in top.stack)
    assert shown["GraphDriver"] == {
        "Name": "overlay2",
        "Data": {
            "LowerDir": f"{below}/diff", "MergedDir": f"{own}/merged", "UpperDir": f"{own}/diff",
            "WorkDir": f"{own}/work",
        },
    }  # fmt: skip
    facts = {key: shown[key] for key in ("RepoTags", "Size", "VirtualSize", "Created", "Author", "RootFS", "Metadata")}
    assert facts == {
        "RepoTags": ["acme/web:1.0"], "Size": 15, "VirtualSize": 15, "Created": CREATED, "Author": "eve",
        "RootFS": {"Type": "layers", "Layers": top.diff_ids}, "Metadata": {"LastTagTime": "0001-01-01T00:00:00Z"},
    }  # fmt: skip


def test_dangling_and_intermediate_images() -> None:
    root, top = host()
    named = root.image(top, tags=["acme/web:1"])
    dangling = root.image(top, author="dangling")
    intermediate = root.image(top.stack[1], author="intermediate")
    empty = root.image(None)
    root.put(f"{METADATA}/{named[7:]}/parent", intermediate)
    images, _ = listed(root, strict=True)
    assert set(images) == {named, dangling, intermediate, empty}
    assert images[dangling].tags == ()
    assert images[named].inspect()["Parent"] == intermediate
    assert (images[empty].layers, images[empty].size) == ((), 0)
    assert [node.path for node in images[empty].tree().walk()] == ["/"]
    assert images[empty].inspect()["GraphDriver"] == {"Data": None, "Name": "overlay2"}


def test_newest_first() -> None:
    root, top = host()
    days = [2, 3, 1]
    made = {day: root.image(top, created=f"2024-01-0{day}T00:00:00Z") for day in days}
    assert list(listed(root)[0]) == [made[3], made[2], made[1]]


def test_a_name_of_an_image_that_is_gone() -> None:
    root, top = host()
    image_id = root.image(top, tags=["acme/web:1", "acme/web:2"], digests=[f"acme/web@{digest('m')}"])
    del root.entries[root.path(f"{CONTENT}/{image_id[7:]}")]
    images, problems = listed(root)
    assert images == {}
    assert problems == [
        f"acme/web:1, acme/web:2, acme/web@{digest('m')} names image {image_id}, which is not in the store"
    ]


def test_a_configuration_that_was_changed() -> None:
    root, top = host()
    image_id = root.image(top, tags=["acme/web:1"])
    path = root.path(f"{CONTENT}/{image_id[7:]}")
    raw = root.entries[path]
    assert isinstance(raw, bytes)
    root.entries[path] = raw.replace(b'"sh"', b'"nc"')
    images, problems = listed(root)
    assert images[image_id].config.cmd == ("nc",)
    (message,) = problems
    assert message.startswith(f"image {image_id}: its configuration now has the digest sha256:")


@pytest.mark.parametrize("raw", [b"{", b"", b"\xff\xfe", b"{" * 100_000])
def test_a_configuration_that_cannot_be_read_hides_no_other(raw: bytes) -> None:
    root, top = host()
    good = root.image(top, tags=["acme/web:1"])
    root.put(f"{CONTENT}/{hexid('bad')}", raw)
    images, problems = listed(root)
    assert set(images) == {good}
    assert len(problems) == 1


def test_a_missing_layer_record() -> None:
    root, top = host()
    image_id = root.image(top, tags=["acme/web:1"])
    record = f"layerdb/sha256/{top.stack[1].chain_id[7:]}"
    root.entries = {path: made for path, made in root.entries.items() if record not in path}
    images, problems = listed(root)
    assert problems == [f"layer {top.stack[1].chain_id} has no record in the store"]
    image = images[image_id]
    assert [layer.diff_id for layer in image.layers] == top.diff_ids
    assert image.tree().read("/srv/a") == b"12345"  # the directory of the top layer still names the one below
    with pytest.raises(PathNotFound):
        image.layers[0].tree()


def test_a_missing_directory_of_the_top_layer() -> None:
    root, top = host()
    image_id = root.image(top, tags=["acme/web:1"])
    root.entries = {path: made for path, made in root.entries.items() if f"overlay2/{top.cache_id}" not in path}
    images, _ = listed(root)
    assert [step.created_by for step in images[image_id].history()] == ["step 1", "step 0"]
    assert images[image_id].layers[0].tree().read("/etc/key") == b"secret"
    with pytest.raises(PathNotFound):
        images[image_id].tree()


@pytest.mark.parametrize("diff_id", ["sha256:../../etc", "x", "", "sha256:" + "1" * 63])
def test_diff_ids_that_are_none(diff_id: str) -> None:
    root, _ = host()
    image_id = root.image(None, rootfs={"type": "layers", "diff_ids": [diff_id]})
    images, problems = listed(root)
    assert images[image_id].tags == ()
    assert any("no valid digest" in message for message in problems)


@pytest.mark.parametrize("value", [b"{", b"[]", b'{"Repositories": 5}', b'{"Repositories": {"a": {"a:1": 5}}}'])
def test_damaged_names_hide_no_image(value: bytes) -> None:
    root, top = host()
    image_id = root.image(top, tags=["acme/web:1"])
    root.put("image/overlay2/repositories.json", value)
    images, _ = listed(root)
    assert images[image_id].tags == ()


@pytest.mark.parametrize("name", ["notes", "1" * 63, "A" * 64])
def test_other_names_are_no_images(name: str) -> None:
    root, _ = host()
    root.put(f"{CONTENT}/{name}", b"{}")
    assert listed(root, strict=True)[0] == {}


def test_an_image_in_the_stores_of_two_drivers_is_listed_once() -> None:
    one, two = RootMaker("overlay2"), RootMaker("vfs")
    for root in (one, two):
        root.image(root.layer({"/a": b"1"}), tags=["acme/web:1"])
    one.container("any")
    one.entries |= two.entries
    assert len(listed(one)[0]) == 1


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)
KEYS = ["rootfs", "history", "config", "created", "container_config", "os", "parent", "Size"]


@given(
    st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=4), st.dictionaries(st.text(max_size=3), VALUES, max_size=2)
)
def test_any_shape_is_an_image(config: dict[str, Any], names: dict[str, Any]) -> None:
    root, top = host()
    image_id = root.image(top, **config)
    root.put("image/overlay2/repositories.json", document({"Repositories": names}))
    image = listed(root)[0][image_id]
    for question in (image.inspect, image.history, image.dockerfile, image.tree):
        try:
            question()
        except fl.ForensicsError:
            continue
