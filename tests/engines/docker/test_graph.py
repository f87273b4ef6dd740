"""Images of Docker before 1.10, and the containers that lay beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from forensics_lib.images.image import Image
from forensics_lib.model import ProblemLog
from tests.engines.docker.dataroot import hexid
from tests.engines.docker.rootmaker import CREATED, RUN, STATE, RootMaker, docker_root
from tests.trees.layers import folder

BASE, TOP, WEB = hexid("base image"), hexid("top image"), hexid("container web")


def entry(image_id: str, parent: str = "", command: str = "/bin/sh", **changes: Any) -> dict[str, Any]:
    settings = {"Cmd": ["/bin/sh", "-c", command], "Image": parent}
    made = {
        "id": image_id, "parent": parent, "created": CREATED, "container": hexid("build"), "container_config": settings,
        "docker_version": "1.9.1", "config": {"Cmd": ["bash"], "Env": ["A=1"]}, "architecture": "amd64", "os": "linux",
    }  # fmt: skip
    return {key: value for key, value in (made | changes).items() if value}


def host() -> RootMaker:
    """A root of Docker 1.9 with aufs: two layers and a container."""
    root = RootMaker("aufs")
    root.put_json(f"graph/{BASE}/json", entry(BASE, command="#(nop) ADD file:1 in /"))
    root.put_json(f"graph/{TOP}/json", entry(TOP, BASE, "make"))
    for image_id, size in ((BASE, 1000), (TOP, 5)):
        root.put(f"graph/{image_id}/layersize", str(size))
    root.put("graph/_tmp", folder())
    root.put_json(
        "repositories-aufs", {"Repositories": {"acme/web": {"1.0": TOP, "latest": TOP}, "docker.io/x": {"1": BASE}}}
    )
    settings = {
        "State": {"Running": False, "StartedAt": RUN["StartedAt"], "FinishedAt": RUN["FinishedAt"], "ExitCode": 3},
        "ID": WEB, "Created": CREATED, "Path": "bash", "Args": [], "Config": {"Image": "acme/web:1.0"}, "Image": TOP,
        "Name": "/web", "Driver": "aufs", "ExecDriver": "native-0.2", "NetworkSettings": {"Ports": None},
    }  # fmt: skip
    root.put_json(f"containers/{WEB}/config.json", settings)
    root.put_json(f"containers/{WEB}/hostconfig.json", {"Privileged": True})
    for name, path, below in (
        (BASE, "/etc/passwd", []),
        (TOP, "/srv/a", [BASE]),
        (f"{WEB}-init", "/.dockerinit", [TOP, BASE]),
        (WEB, "/mine", [f"{WEB}-init", TOP, BASE]),
    ):
        root.put(f"aufs/diff/{name}{path}", name)
        root.put(f"aufs/layers/{name}", "\n".join(below))
    return root


def images(root: RootMaker, problems: ProblemLog) -> dict[str, Image]:
    return {image.id: image for image in docker_root(root.tree(), problems).images}


def test_images() -> None:
    found = images(host(), ProblemLog(strict=True))
    assert set(found) == {BASE, TOP}
    top = found[TOP]
    assert top.tags == ("acme/web:1.0", "acme/web:latest")
    assert (top.config.cmd, top.config.env) == (("bash",), ("A=1",))
    assert [(step.created_by, step.size) for step in top.history()] == [
        ("/bin/sh -c make", 5),
        ("/bin/sh -c #(nop) ADD file:1 in /", 1000),
    ]
    assert {node.path for node in top.tree().walk()} == {"/", "/etc", "/etc/passwd", "/srv", "/srv/a"}
    shown = top.inspect()
    assert {key: shown[key] for key in ("Id", "Parent", "Size", "VirtualSize", "DockerVersion")} == {
        "Id": TOP, "Parent": BASE, "Size": 5, "VirtualSize": 1005, "DockerVersion": "1.9.1",
    }  # fmt: skip


def test_container(tmp_path: Path) -> None:
    with host().opened(tmp_path, strict=True) as ev:
        web = ev.container("web")
        assert (web.image, web.image_id, web.exit_code, web.privileged) == ("acme/web:1.0", TOP, 3, True)
        assert [(str(change.kind), change.path) for change in web.diff()] == [("A", "/mine")]
        assert {node.path for node in web.tree().walk()} == {
            *("/", "/.dockerinit", "/etc", "/etc/passwd", "/mine", "/srv", "/srv/a"),
        }
        assert web.inspect()["Name"] == "/web"


def test_driver_without_a_file_of_names() -> None:
    root = host()
    del root.entries[root.path("repositories-aufs")]
    found = images(root, ProblemLog(strict=True))
    assert {image_id: image.tags for image_id, image in found.items()} == {BASE: (), TOP: ()}


@pytest.mark.parametrize("parent", [TOP, hexid("gone"), "../../etc"])
def test_a_parent_that_is_missing_or_comes_twice(parent: str) -> None:
    root = host()
    root.put_json(f"graph/{BASE}/json", entry(BASE, parent))
    problems = ProblemLog()
    found = images(root, problems)
    assert len(found[TOP].history()) == 2
    assert any(f"its parent {parent} is missing or comes twice" in row.message for row in problems.rows)


@pytest.mark.parametrize("raw", [b"{", b"", b"\xff"])
def test_a_damaged_record_hides_no_other(raw: bytes) -> None:
    root = host()
    root.put(f"graph/{hexid('bad')}/json", raw)
    problems = ProblemLog()
    assert set(images(root, problems)) == {BASE, TOP}
    assert len(problems.rows) == 1


def test_size_from_the_record_when_the_file_is_missing() -> None:
    root = host()
    del root.entries[root.path(f"graph/{TOP}/layersize")]
    root.put_json(f"graph/{TOP}/json", entry(TOP, BASE, Size=77))
    assert images(root, ProblemLog())[TOP].inspect()["Size"] == 77


def test_other_names_are_no_images() -> None:
    root = host()
    root.put_json("graph/notes/json", {"id": "notes"})
    root.put_json(f"graph/{BASE[:63]}/json", {})
    assert set(images(root, ProblemLog(strict=True))) == {BASE, TOP}


def test_ids_before_1_10_are_no_digests(tmp_path: Path) -> None:
    with host().opened(tmp_path, strict=True) as ev:
        assert not [check for check in ev.verify() if not check.ok]


def test_both_stores_of_a_root_that_was_migrated() -> None:
    root = host()
    layer = root.layer({"/new": b"1"})
    new = root.image(layer, tags=["acme/web:2"])
    root.container("after", layer, state=STATE)
    found = images(root, ProblemLog(strict=True))
    assert set(found) == {BASE, TOP, new}
