"""Removed containers of Podman: events, exit codes, rows, torn documents of the bolt state, files on a disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import forensics_lib as fl
from forensics_lib.engines.container import Container
from forensics_lib.engines.container_parts import ContainerState
from forensics_lib.errors import PathNotFound, UnsupportedFormat
from forensics_lib.model import ProblemLog
from forensics_lib.recovery.libpod import PodmanStates
from forensics_lib.recovery.podman import podman_containers
from forensics_lib.recovery.remnant import Confidence, Remnant
from forensics_lib.trees.directory import DirectoryTree
from tests.diskmaker import DISKS
from tests.engines.docker.dataroot import Buckets, bolt, hexid, write
from tests.recovery.scene import at, encoded, nanoseconds, remnant
from tests.trees.kernel_disks import unpacked

LIVE, GONE, LAYER = hexid("live"), hexid("gone"), hexid("layer")
STORAGE = "var/lib/containers/storage"
BOLT = f"{STORAGE}/libpod/bolt_state.db"


def config(container_id: str, name: str, **changes: Any) -> dict[str, Any]:
    return {
        "spec": {
            "process": {"args": ["/bin/sh", "-c", "echo x"], "env": ["A=1"], "cwd": "/"},
            "hostname": container_id[:12],
            "mounts": [
                {"type": "bind", "source": "/srv/loot", "destination": "/loot", "options": ["ro"]},
                {"type": "proc", "source": "proc", "destination": "/proc"},
            ],
        },
        "id": container_id,
        "name": name,
        "lockID": 5,
        "CreateCommand": ["podman", "run", "--name", name, "acme/web"],
        "rootfsImageID": "5" * 64,
        "rootfsImageName": "docker.io/acme/web:1",
        "command": ["/bin/sh", "-c", "echo x"],
        "newPortMappings": [{"host_ip": "", "container_port": 80, "host_port": 8080, "protocol": "tcp"}],
        "namedVolumes": [{"volumeName": "data", "dest": "/data", "options": ["rprivate"]}],
        "createdTime": at(1),
        "logDriver": "k8s-file",
        "runtime": "crun",
        **changes,
    }


def state(container_id: str, number: int) -> dict[str, Any]:
    home = f"/var/lib/containers/storage/overlay-containers/{container_id}"
    return {"state": number, "configPath": f"{home}/userdata/config.json", "startedTime": at(2), "pid": 7, "x": 1}


def event(status: str, second: float, container_id: str = GONE, **changes: Any) -> bytes:
    known = {"ID": container_id, "Image": "docker.io/acme/web:1", "Name": "gone", "Status": status, "Time": at(second)}
    return encoded({**known, "Type": "container", **changes})


EVENTS = b"".join(
    (event("create", 1.1), event("start", 2), event("died", 3, ContainerExitCode=137), event("remove", 4))
) + event("create", 5, LIVE, Name="live")


def database(after: bytes = b"") -> bytes:
    """A state with one container, the exit code of another, and what pages that are free hold."""
    live: Buckets = {
        "config": json.dumps(config(LIVE, "live")).encode(),
        "state": json.dumps(state(LIVE, 3)).encode(),
    }
    buckets: Buckets = {
        "ctr": {LIVE: live},
        "exit-code": {GONE: b"137"},
        "exit-code-time-stamp": {GONE: at(3).encode()},
    }
    return bolt(buckets) + after + bytes(-len(after) % 4096)


def states(folder: Path, files: dict[str, bytes | str | None]) -> PodmanStates:
    write(folder, files)
    problems = ProblemLog()
    return PodmanStates([DirectoryTree(folder, problems)], None, problems)


def found(remnants: list[Remnant], known: PodmanStates) -> list[Container]:
    return podman_containers([*known.remnants(), *remnants], known, known.problems, None)


def test_what_events_and_exit_codes_tell(tmp_path: Path) -> None:
    (container,) = found([], states(tmp_path, {BOLT: database(), "run/libpod/events/events.log": EVENTS}))
    assert (container.id, container.name, container.image) == (GONE, "gone", "docker.io/acme/web:1")
    assert (container.created_ns, container.finished_ns, container.exit_code) == (nanoseconds(1.1), nanoseconds(3), 137)
    assert f"remove {at(4).replace('.000000000', '')}" in container.state_note
    assert "exited with 137" in container.state_note
    assert container.inspect() == {"Id": GONE, "Name": "gone", "ImageName": "docker.io/acme/web:1"}
    assert ("removed", "libpod events") in {(fact.about, fact.method) for fact in container.facts}
    assert list(container.logs()) == []
    with pytest.raises(UnsupportedFormat):
        container.tree()
    with pytest.raises(PathNotFound):
        container.mount("/data")


def test_a_container_that_the_state_has_is_not_listed_and_one_that_was_not_removed_neither(tmp_path: Path) -> None:
    assert not found([], states(tmp_path, {"run/libpod/events/events.log": event("create", 1)}))
    (container,) = found([], states(tmp_path, {"run/libpod/events/events.log": event("remove", 1)}))
    assert container.id == GONE


def test_a_container_that_the_storage_still_lists_is_not_removed(tmp_path: Path) -> None:
    home = f"{STORAGE}/overlay-containers"
    older = encoded([{"id": GONE, "names": ["pod"], "layer": LAYER}, {"id": LIVE, "names": ["app"], "layer": LAYER}])
    now = encoded([{"id": LIVE, "names": ["app"], "layer": LAYER}])
    known = states(tmp_path, {f"{home}/containers.json": now, f"{home}/volatile-containers.json": b"{torn"})
    assert [one.id for one in found([remnant(older, f"{home}/containers.json")], known)] == [GONE]


def test_the_later_part_of_a_configuration_in_a_free_page(tmp_path: Path) -> None:
    whole = json.dumps(config(GONE, "gone"), separators=(",", ":")).encode()
    part = whole[whole.index(b',"id":"') :]
    page = b'","/bin/sh"]}}' + part + b"state" + json.dumps(state(GONE, 3), separators=(",", ":")).encode()
    known = states(tmp_path, {BOLT: database(page)})
    rows = list(known.remnants())
    assert {(row.kind, row.confidence, row.complete) for row in rows if row.content is not None} == {
        ("config", Confidence.CARVED, False),
        ("record", Confidence.CARVED, False),
    }
    assert part[1:] in {row.read() for row in rows if row.content is not None}
    (container,) = found([], known)
    assert (container.name, container.image_id, container.created_ns) == ("gone", "5" * 64, nanoseconds(1))
    assert container.command == ("/bin/sh", "-c", "echo x")
    assert (container.state, container.started_ns) == (ContainerState.RUNNING, nanoseconds(2))
    answer = container.inspect()
    own = answer["Config"]
    assert isinstance(own, dict)
    assert own["CreateCommand"][:3] == ["podman", "run", "--name"]
    assert "Hostname" not in own  # it stood in the part that is lost


def test_a_whole_configuration_with_its_files(tmp_path: Path) -> None:
    home = f"{STORAGE}/overlay-containers"
    listed = [{"id": GONE, "names": ["gone"], "image": "5" * 64, "layer": LAYER, "metadata": '{"image-name":"x"}'}]
    rows = [
        remnant(json.dumps(config(GONE, "gone", privileged=True)).encode(), f"{STORAGE}/db.sql", "config"),
        remnant(json.dumps(listed).encode(), f"{home}/containers.json"),
        remnant(f"{at(2)} stdout F hello\n".encode(), f"{home}/{GONE}/userdata/ctr.log"),
        remnant(b"loot", f"{STORAGE}/overlay/{LAYER}/diff/tmp/loot"),
        remnant(b"other", f"{STORAGE}/overlay/{hexid('other')}/diff/tmp/other"),
        remnant(json.dumps(config(LIVE, "live")).encode(), f"{STORAGE}/db.sql", "config"),
    ]
    (container,) = found(rows, states(tmp_path, {BOLT: database()}))
    assert [record.text for record in container.logs()] == ["hello"]
    assert container.tree().read("/tmp/loot") == b"loot"
    assert "/tmp/other" not in container.tree()
    assert [change.path for change in container.diff()] == ["/tmp", "/tmp/loot"]
    assert [(mount.type, mount.destination, mount.read_only) for mount in container.mounts] == [
        ("volume", "/data", False),
        ("bind", "/loot", True),
    ]
    assert (container.ports[0].port, container.ports[0].host_port) == (80, 8080)
    assert "privileged" in {finding.kind for finding in container.findings}
    assert container.inspect()["Path"] == "/bin/sh"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(st.data())
def test_damaged_states_give_problems_at_most(tmp_path: Path, data: st.DataObject) -> None:
    part = json.dumps(config(GONE, "gone"), separators=(",", ":")).encode()
    content = bytearray(database(part[part.index(b',"id":"') :]))
    events = bytearray(EVENTS)
    for target in (content, events):
        for place in data.draw(st.lists(st.integers(0, len(target) - 1), max_size=12)):
            target[place] ^= 1 << data.draw(st.integers(0, 7))
    del content[data.draw(st.integers(0, len(content))) :]
    known = states(tmp_path, {BOLT: bytes(content), "run/libpod/events/events.log": bytes(events)})
    for container in found([], known):
        assert isinstance(container.inspect(), dict)
        assert len(container.id) == 64


def leaves(value: object, path: str = "") -> dict[str, object]:
    """Single answers by their path."""
    if isinstance(value, dict):
        return {k: v for key, inner in value.items() for k, v in leaves(inner, f"{path}.{key}").items()}
    if isinstance(value, list) and value:
        return {k: v for i, inner in enumerate(value) for k, v in leaves(inner, f"{path}[{i}]").items()}
    return {path: value}


def test_a_removed_container_on_a_real_disk(tmp_path: Path) -> None:
    truth = json.loads((DISKS / "podman.json").read_text())
    with fl.open(unpacked("podman", tmp_path)) as ev:
        (container,) = ev.deleted_containers
        wanted = truth["inspect"]
        assert (container.id, container.name, container.image_id) == (wanted["Id"], "victim", wanted["Image"])
        assert (container.command, container.exit_code) == (("/program", "with", "arguments"), 137)
        assert [(record.stream, record.line) for record in container.logs()] == [
            ("stdout", b"said on stdout"),
            ("stderr", b"said on stderr"),
        ]
        assert container.tree().read("/tmp/loot") == b"loot of the container\n"
        right = leaves(wanted)
        told = {path: value for path, value in leaves(container.inspect()).items() if not path.startswith(".State")}
        assert len(told) > 50
        assert {path: value for path, value in told.items() if right.get(path) != value} == {}
        assert truth["kept"] not in {one.id for one in ev.deleted_containers}
