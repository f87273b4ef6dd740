"""Removals, pulls and builds that were interrupted, with what is left of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from forensics_lib.engines.container_parts import ContainerState
from tests.engines.docker.dataroot import digest, hexid
from tests.engines.docker.rootmaker import RUN, Layer, RootMaker
from tests.trees.layers import folder


def host() -> tuple[RootMaker, Layer]:
    root = RootMaker()
    top = root.layer({"/a": b"1"})
    root.container("other", top)
    return root, top


def messages(root: RootMaker, place: Path) -> list[str]:
    with root.opened(place) as ev:
        return [row.message for row in ev.problems]


@pytest.mark.parametrize(
    ("state", "shown"),
    [({"RemovalInProgress": True, "Dead": True}, ContainerState.REMOVING), ({"Dead": True}, ContainerState.DEAD)],
)
def test_a_container_whose_removal_was_interrupted(
    state: dict[str, bool], shown: ContainerState, tmp_path: Path
) -> None:
    root, top = host()
    half = root.container("half", top, {"/w/1": b"123", "/w/2": b"45"}, state=RUN | state)
    root.put(
        f"containers/{half}/{half}-json.log", '{"log":"hello\\n","stream":"stdout","time":"2024-01-01T00:00:00Z"}\n'
    )
    with root.opened(tmp_path) as ev:
        assert {c.name: c.state for c in ev.containers}["half"] is shown
        assert [record.line for record in ev.container("half").logs()] == [b"hello"]
        assert ev.container("half").tree().read("/w/1") == b"123"
        (problem,) = ev.problems
    assert problem.message == (
        f"container half is half removed; left are {half}-json.log, config.v2.json, hostconfig.json; "
        f"its directory {hexid('mount half')} still holds 2 files of 5 bytes"
    )
    assert str(problem.origin).endswith(f"containers/{half}/config.v2.json")


def test_its_directory_is_gone(tmp_path: Path) -> None:
    root, top = host()
    root.container("half", top, state={"Dead": True})
    root.entries = {path: made for path, made in root.entries.items() if f"overlay2/{hexid('mount half')}" not in path}
    (message,) = messages(root, tmp_path)
    assert message.endswith(f"its directory {hexid('mount half')} is gone")


def test_the_record_of_its_layer_is_gone(tmp_path: Path) -> None:
    root, top = host()
    half = root.container("half", top, state={"Dead": True})
    root.entries = {path: made for path, made in root.entries.items() if f"mounts/{half}" not in path}
    (message,) = messages(root, tmp_path)
    assert message.endswith("the record of its writable layer is gone")


def test_the_name_of_its_directory_is_gone(tmp_path: Path) -> None:
    root, top = host()
    half = root.container("half", top, state={"Dead": True})
    del root.entries[f"/docker/image/overlay2/layerdb/mounts/{half}/mount-id"]
    (message,) = messages(root, tmp_path)
    assert message.endswith("which directory held its files is not recorded")


def test_a_layer_of_an_image_whose_removal_was_interrupted(tmp_path: Path) -> None:
    root, _ = host()
    gone = root.layer({"/gone/1": b"1234", "/gone/2": b"5"})
    record = f"/docker/image/overlay2/layerdb/sha256/{gone.chain_id[7:]}"
    root.entries = {
        path.replace(record, f"{record}-{hexid('random')}-removing"): made for path, made in root.entries.items()
    }
    assert messages(root, tmp_path) == [
        f"layer {gone.chain_id} of an image is half removed; diff_id {gone.diff_id}; "
        f"its directory {gone.cache_id} still holds 2 files of 5 bytes"
    ]


def test_a_pull_that_was_interrupted(tmp_path: Path) -> None:
    root, _ = host()
    directory = hexid("unfinished")
    write_set = "image/overlay2/layerdb/tmp/write-set-123"
    root.put(f"{write_set}/tar-split.json.gz", b"")
    assert messages(root, tmp_path) == [
        "a pull or build was interrupted; which directory held its files is not recorded"
    ]
    root.put(f"{write_set}/cache-id", directory)
    root.put(f"{write_set}/diff", digest("new"))
    root.put(f"overlay2/{directory}/diff/part", b"12345678")
    (message,) = messages(root, tmp_path)
    assert message.startswith(f"a pull or build was interrupted; diff_id {digest('new')}; ")
    assert message.endswith(f"its directory {directory} still holds 1 files of 8 bytes")


def test_a_writable_layer_whose_container_is_gone(tmp_path: Path) -> None:
    root, top = host()
    gone = root.container("gone", top, {"/loot": b"123456"})
    root.entries = {path: made for path, made in root.entries.items() if f"containers/{gone}" not in path}
    with root.opened(tmp_path) as ev:
        assert [c.name for c in ev.containers] == ["other"]
        (problem,) = ev.problems
    assert problem.message.startswith(f"writable layer {gone} has no container")
    assert problem.message.endswith(f"its directory {hexid('mount gone')} still holds 1 files of 6 bytes")


def test_a_copy_without_the_containers_says_nothing_of_them(tmp_path: Path) -> None:
    root, _ = host()
    root.entries = {path: made for path, made in root.entries.items() if not path.startswith("/docker/containers")}
    (message,) = messages(root, tmp_path)
    assert message.endswith("missing: containers (containers with their settings and logs)")


def test_a_sound_root_has_none(tmp_path: Path) -> None:
    root, _ = host()
    root.put("image/overlay2/layerdb/tmp", folder())
    assert messages(root, tmp_path) == []
