"""Containers' records: states, leftovers of interrupted writes, damage, and what the typed attributes say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forensics_lib.engines.container_parts import ContainerState, Endpoint, Mount, Port
from forensics_lib.engines.docker.containers import ContainerRecord, read_containers, state_of
from forensics_lib.engines.docker.root import DataRoot
from forensics_lib.formats.jsondoc import JsonObject
from forensics_lib.model import ProblemLog
from forensics_lib.trees.base import NodeKind
from forensics_lib.trees.documents import DocumentReader
from tests.engines.docker.dataroot import document, hexid
from tests.engines.docker.rootmaker import CREATED, NEVER, RUN, STATE, Made, RootMaker
from tests.trees.layers import entry, file, folder, link, tree

ID = hexid("container web")
RECORD = RootMaker().record("web", RUN, {})


def read(files: Mapping[str, Made], container_id: str = ID) -> tuple[list[ContainerRecord], list[str]]:
    """The containers of a folder of files, and the problems."""
    problems = ProblemLog()
    host = tree("host", {f"/containers/{container_id}/{name}": made for name, made in files.items()})
    records = read_containers(DocumentReader(host, problems), DataRoot("/", "test"))
    return records, [row.message for row in problems.rows]


def one(config: object = RECORD, host: object = None) -> ContainerRecord:
    files = {"config.v2.json": document(config), "hostconfig.json": document(host or {})}
    (record,), problems = read(files)
    assert not problems
    return record


@pytest.mark.parametrize(
    ("changes", "state", "noted"),
    [
        ({}, ContainerState.CREATED, False),
        ({"StartedAt": CREATED}, ContainerState.EXITED, False),
        ({"StartedAt": CREATED, "ExitCode": 137, "OOMKilled": True}, ContainerState.EXITED, False),
        ({"Running": True, "Pid": 7}, ContainerState.RUNNING, True),
        ({"Running": True, "Paused": True}, ContainerState.PAUSED, True),
        ({"Running": True, "Restarting": True}, ContainerState.RESTARTING, True),
        ({"Running": True, "Paused": True, "Restarting": True}, ContainerState.PAUSED, True),
        ({"Paused": True, "StartedAt": CREATED}, ContainerState.EXITED, False),
        ({"RemovalInProgress": True}, ContainerState.REMOVING, True),
        ({"RemovalInProgress": True, "Dead": True}, ContainerState.REMOVING, True),
        ({"Dead": True}, ContainerState.DEAD, True),
        ({"Running": "yes", "StartedAt": 5}, ContainerState.CREATED, False),
    ],
)
def test_state(changes: dict[str, object], state: ContainerState, noted: bool) -> None:
    found, note = state_of(JsonObject(json.loads(json.dumps(STATE | changes))))
    assert (found, bool(note)) == (state, noted)


def test_the_note_names_the_stale_process() -> None:
    assert "process 4711" in state_of(JsonObject({"Running": True, "Pid": 4711}))[1]


def test_everything_typed() -> None:
    config: dict[str, Any] = {
        "Path": "/bin/sh", "Args": ["-c", "true"], "RestartCount": 2, "Image": "sha256:" + "1" * 64,
        "State": STATE | RUN | {"Error": "oci runtime error"},
        "Config": {
            "Image": "acme/web:1", "Env": ["A=1", "B="], "Labels": {"owner": "eve"}, "WorkingDir": "/srv",
            "User": "www:www", "Hostname": "web-1",
        },
    }  # fmt: skip
    host = {
        "LogConfig": {"Type": "local"}, "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 5},
        "Privileged": True, "ReadonlyRootfs": True, "AutoRemove": True, "CapAdd": ["SYS_ADMIN"], "CapDrop": ["ALL"],
        "Devices": [{"PathOnHost": "/dev/sda", "PathInContainer": "/dev/xvda", "CgroupPermissions": "rwm"}],
        "SecurityOpt": ["seccomp=unconfined"], "NetworkMode": "host", "PidMode": "host", "IpcMode": "private",
        "UTSMode": "host", "UsernsMode": "host", "CgroupnsMode": "private",
    }  # fmt: skip
    parts = one(RECORD | config, host).parts
    assert {field.name: getattr(parts, field.name) for field in fields(parts)} == {
        "id": ID, "name": "web", "image": "acme/web:1", "image_id": "sha256:" + "1" * 64,
        "created_ns": 1_700_000_000_123_456_789, "state": ContainerState.EXITED, "state_note": "",
        "origin": parts.origin, "path": "/bin/sh", "args": ("-c", "true"), "env": ("A=1", "B="),
        "labels": (("owner", "eve"),), "working_dir": "/srv", "user": "www:www", "hostname": "web-1",
        "ports": (), "mounts": (), "networks": (), "started_ns": 1_700_000_001_500_000_000,
        "finished_ns": 1_700_000_002_000_000_000, "exit_code": 3, "pid": 0, "error": "oci runtime error",
        "restart_count": 2, "restart_policy": "on-failure:5", "log_driver": "local", "storage_driver": "overlay2",
        "privileged": True, "read_only": True, "auto_remove": True, "cap_add": ("SYS_ADMIN",), "cap_drop": ("ALL",),
        "devices": ("/dev/sda:/dev/xvda:rwm",), "security_opt": ("seccomp=unconfined",), "network_mode": "host",
        "pid_mode": "host", "ipc_mode": "private", "uts_mode": "host", "userns_mode": "host",
        "cgroupns_mode": "private", "other_names": (), "facts": (),
    }  # fmt: skip
    assert str(parts.origin) == f"host > member /containers/{ID}/config.v2.json > containers/{ID}/config.v2.json"


def test_a_container_that_never_ran_has_no_exit_code() -> None:
    parts = one(RECORD | {"State": STATE}).parts
    assert (parts.exit_code, parts.started_ns, parts.finished_ns) == (None, None, None)


@pytest.mark.parametrize(
    ("name", "count", "shown"), [("no", 0, "no"), ("always", 0, "always"), ("on-failure", 0, "on-failure")]
)
def test_restart_policies_without_a_count(name: str, count: int, shown: str) -> None:
    host = {"RestartPolicy": {"Name": name, "MaximumRetryCount": count}}
    assert one(host=host).parts.restart_policy == shown


def test_ports_as_bound_as_asked_for_and_merely_exposed() -> None:
    config = RECORD | {
        "Config": {"ExposedPorts": {"9000/tcp": {}, "80/tcp": {}}},
        "NetworkSettings": {
            "Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::", "HostPort": "8080"}]}
        },
    }
    host = {
        "PortBindings": {
            "80/tcp": [{"HostIp": "", "HostPort": ""}],
            "53/udp": [{"HostIp": "10.0.0.1", "HostPort": "5353"}],
        }
    }
    assert one(config, host).parts.ports == (
        Port(80, "tcp", "0.0.0.0", 8080),
        Port(80, "tcp", "::", 8080),
        Port(53, "udp", "10.0.0.1", 5353),
        Port(9000, "tcp"),
    )


@pytest.mark.parametrize("name", ["x/tcp", "", "123456/tcp", "-1/tcp", "٣/tcp"])
def test_ports_that_are_none(name: str) -> None:
    ports = one(RECORD | {"Config": {"ExposedPorts": {name: {}, "1": {}}}}).parts.ports
    assert Port(1, "tcp") in ports
    assert all(port.port < 100_000 for port in ports)


def test_mounts_of_every_type() -> None:
    config = RECORD | {
        "MountPoints": {
            "/data": {
                "Type": "volume", "Name": "data", "Source": "/v/data/_data", "Destination": "/data", "Driver": "local",
                "RW": True, "Relabel": "z",
            },
            "/conf": {"Type": "bind", "Source": "/etc/site", "Destination": "/conf", "RW": False, "Relabel": "ro"},
            "/old": {"Name": "before-1.13", "Driver": "local", "RW": True},
            "/older": {"Source": "/srv", "RW": True},
        }
    }  # fmt: skip
    assert one(config, {"Tmpfs": {"/tmp": "size=1m", "/ro": "ro,noexec"}}).parts.mounts == (
        Mount("volume", "/v/data/_data", "/data", "data", "local", False, "z"),
        Mount("bind", "/etc/site", "/conf", read_only=True, options="ro"),
        Mount("volume", "", "/old", "before-1.13", "local"),
        Mount("bind", "/srv", "/older"),
        Mount("tmpfs", "", "/tmp", options="size=1m"),
        Mount("tmpfs", "", "/ro", options="ro,noexec", read_only=True),
    )


def test_networks() -> None:
    networks = {
        "front": {
            "NetworkID": "n1", "IPAddress": "172.20.0.2", "GlobalIPv6Address": "fd00::2", "Aliases": ["web", "www"],
            "MacAddress": "02:42:ac:14:00:02", "Gateway": "172.20.0.1",
        },
        "back": {"NetworkID": "n2"},
        "odd": None,
    }  # fmt: skip
    assert one(RECORD | {"NetworkSettings": {"Networks": networks}}).parts.networks == (
        Endpoint("front", "n1", "172.20.0.2", "fd00::2", "02:42:ac:14:00:02", "172.20.0.1", ("web", "www")),
        Endpoint("back", "n2"),
        Endpoint("odd", ""),
    )


def test_record_of_docker_before_1_10() -> None:
    config = {
        "State": {"Running": False, "StartedAt": CREATED, "FinishedAt": CREATED, "ExitCode": 0}, "ID": ID,
        "Created": CREATED, "Path": "sh", "Args": [], "Config": {"Image": "debian"}, "Image": "1" * 64, "Name": "/web",
        "Driver": "aufs", "ExecDriver": "native-0.2", "Volumes": {}, "VolumesRW": {},
        "NetworkSettings": {"IPAddress": "172.17.0.5", "Gateway": "172.17.42.1", "MacAddress": "02:42:ac:11:00:05"},
    }  # fmt: skip
    (record,), problems = read({"config.json": document(config), "hostconfig.json": b"{}"})
    assert not problems
    assert (record.parts.name, record.parts.image_id, record.parts.storage_driver) == ("web", "1" * 64, "aufs")
    assert record.parts.networks == (Endpoint("bridge", "", "172.17.0.5", "", "02:42:ac:11:00:05", "172.17.42.1"),)


def test_an_upgraded_folder_holds_both_records() -> None:
    (record,), _ = read({"config.json": document({"Name": "/old"}), "config.v2.json": document({"Name": "/new"})})
    assert record.parts.name == "new"


def test_an_interrupted_write_that_was_whole_is_the_newest_version() -> None:
    files = {
        "config.v2.json": document(RECORD),
        ".tmp-config.v2.json123456": document(RECORD | {"Name": "/renamed"}),
        "hostconfig.json": document({"Privileged": False}),
        ".tmp-hostconfig.json9": document({"Privileged": True}),
    }
    (record,), problems = read(files)
    assert (record.parts.name, record.parts.privileged) == ("renamed", True)
    assert record.config_origin.label.endswith(".tmp-config.v2.json123456")
    assert problems == ["an interrupted write left a newer version, which is used"] * 2


def health(end: str) -> dict[str, Any]:
    return {"State": STATE | RUN | {"Health": {"Log": [{"End": CREATED}, {"End": end}]}}}


@pytest.mark.parametrize(
    ("record", "leftover", "used"),
    [
        (({}, 20), ({}, 10), False),
        (({}, 10), ({}, 20), True),
        (({}, None), ({}, 10), True),
        ((health("2024-01-01T00:00:02Z"), 10), (health("2024-01-01T00:00:01Z"), 20), False),
        ((health("2024-01-01T00:00:01Z"), 20), (health("2024-01-01T00:00:02Z"), 10), True),
        ((health("2024-01-01T00:00:01Z"), 10), ({"State": []}, 20), False),
    ],
)
def test_what_a_crash_left_may_be_older_than_the_record(
    record: tuple[dict[str, Any], int | None], leftover: tuple[dict[str, Any], int | None], used: bool
) -> None:
    """By the times that the versions tell, else by those of the files: the daemon that starts again goes on writing."""
    (old, old_ns), (new, new_ns) = record, leftover
    files: dict[str, Made] = {
        "config.v2.json": replace(file(document(RECORD | old)), mtime_ns=old_ns),
        ".tmp-config.v2.json123456": replace(file(document(RECORD | new | {"Name": "/left"})), mtime_ns=new_ns),
        "hostconfig.json": b"{}",
    }
    (read_record,), problems = read(files)
    assert read_record.parts.name == ("left" if used else "web")
    words = "a newer version, which is used" if used else "a version older than the record, which is not used"
    assert problems == [f"an interrupted write left {words}"]


@pytest.mark.parametrize("half", [b"", b'{"Name": "/ren', b"[]", b"\0" * 512])
def test_an_interrupted_write_that_was_not_whole(half: bytes) -> None:
    (record,), problems = read(
        {"config.v2.json": document(RECORD), "hostconfig.json": b"{}", ".tmp-config.v2.json1": half}
    )
    assert record.parts.name == "web"
    assert "an interrupted write left an incomplete newer version" in problems


@pytest.mark.parametrize("name", [".tmp-config.v2.json1.bak", ".tmp-other.json1", "tmp-config.v2.json1"])
def test_other_names_are_no_leftovers(name: str) -> None:
    (record,), problems = read(
        {"config.v2.json": document(RECORD), "hostconfig.json": b"{}", name: b'{"Name": "/evil"}'}
    )
    assert (record.parts.name, problems) == ("web", [])


def test_a_leftover_that_is_a_link_or_a_pipe_is_left_alone() -> None:
    files: dict[str, Made] = {
        "config.v2.json": document(RECORD),
        "hostconfig.json": b"{}",
        ".tmp-config.v2.json1": link("/etc/passwd"),
        ".tmp-config.v2.json2": entry(NodeKind.FIFO, 0o600, None),
    }
    (record,), problems = read(files)
    assert (record.parts.name, problems) == ("web", [])


def test_config_missing() -> None:
    (record,), problems = read({"hostconfig.json": document({"Privileged": True})})
    assert (record.id, record.parts.name, record.parts.privileged) == (ID, "", True)
    assert problems == [f"container {ID}: its config.v2.json is missing; little is known of it"]


def test_host_config_missing_is_a_record_with_neutral_settings() -> None:
    (record,), problems = read({"config.v2.json": document(RECORD)})
    assert (record.parts.name, record.host_config.raw, record.parts.privileged) == ("web", {}, False)
    assert problems == []  # the daemon takes it for empty settings


def test_neither_record_can_be_read() -> None:
    (record,), problems = read({"config.v2.json": b"{", "hostconfig.json": b"", "x.log": b""})
    assert (record.id, record.parts.name, record.parts.state) == (ID, "", ContainerState.UNKNOWN)
    assert record.parts.state_note == "no record of its state can be read"
    (message,) = [message for message in problems if "neither" in message]
    assert message.startswith(f"container {ID}: neither config.v2.json nor hostconfig.json can be read")


@pytest.mark.parametrize(
    ("image", "listed"),
    [
        ({}, True),  # nothing tells that it was removed
        ({"/image/vfs/layerdb/mounts/" + ID: folder()}, True),
        ({"/image/vfs/layerdb/mounts": folder(), "/image/overlay2/layerdb/mounts/" + ID: folder()}, True),
        ({"/image/vfs/layerdb/mounts": folder()}, False),  # a removal takes the record of its layer first
        ({"/image/vfs/layerdb/mounts/" + hexid("other"): folder()}, False),
    ],
)
def test_both_records_are_missing(image: dict[str, Made], listed: bool) -> None:
    problems = ProblemLog()
    host = tree("host", {f"/containers/{ID}/{ID}-json.log": b"", **image})
    records = read_containers(DocumentReader(host, problems), DataRoot("/", "test"))
    assert [record.id for record in records] == ([ID] if listed else [])
    (message,) = [row.message for row in problems.rows]
    assert message.startswith(f"container {ID}: neither config.v2.json nor hostconfig.json is there; ")
    assert message.endswith("it is listed by its id, with its logs and files" if listed else "it was being removed")


@pytest.mark.parametrize(
    "made",
    [
        document(RECORD)[:200],
        b"\xff\xfe\0",
        b"null",
        b'"text"',
        folder(),
        entry(NodeKind.FIFO, 0o600, None),
        link("/etc/passwd"),
    ],
    ids=["cut", "no JSON", "null", "text", "folder", "pipe", "link"],
)
def test_a_config_that_cannot_be_read_leaves_the_container_listed(made: Made) -> None:
    (record,), problems = read({"config.v2.json": made, "hostconfig.json": document({"LogConfig": {"Type": "local"}})})
    assert (record.id, record.parts.name, record.parts.log_driver) == (ID, "", "local")
    assert len(problems) == 1


def test_text_that_is_no_utf_8_is_kept() -> None:
    raw = document(RECORD | {"Name": "/caf?", "Config": {"Env": ["A=?"]}}).replace(b"?", b"\xe9")
    (record,), problems = read({"config.v2.json": raw, "hostconfig.json": b"{}"})
    assert (record.parts.name, record.parts.env) == ("caf\udce9", ("A=\udce9",))
    assert problems == []


def test_a_record_that_names_another_container() -> None:
    other = hexid("other")
    (record,), problems = read({"config.v2.json": document(RECORD | {"ID": other}), "hostconfig.json": b"{}"})
    assert record.id == ID
    assert problems == [f"the record in folder {ID} says it is container {other}"]


@pytest.mark.parametrize("name", [ID[:63], ID.upper(), ID + "0", "mounts"])
def test_folders_that_are_no_containers(name: str) -> None:
    assert read({"config.v2.json": document(RECORD)}, name) == ([], [])


def test_newest_first() -> None:
    ids = [hexid(str(number)) for number in range(3)]
    host = tree(
        "host",
        {
            f"/containers/{one}/config.v2.json": document({"ID": one, "Created": f"2024-01-0{day}T00:00:00Z"})
            for one, day in zip(ids, (2, 3, 1), strict=True)
        },
    )
    records = read_containers(DocumentReader(host, ProblemLog()), DataRoot("/", "test"))
    assert [record.id for record in records] == [ids[1], ids[0], ids[2]]


KEYS = st.text(max_size=3) | st.sampled_from([*RECORD, "Networks", "Ports"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just(NEVER) | st.just(CREATED),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)
HOST_KEYS = ["LogConfig", "RestartPolicy", "Devices", "CapAdd", "PortBindings", "Tmpfs", "Privileged"]


@given(
    st.dictionaries(st.sampled_from([*RECORD]), VALUES, max_size=6),
    st.dictionaries(st.sampled_from(HOST_KEYS), VALUES, max_size=4),
)
def test_any_shape_is_a_container(config: dict[str, Any], host: dict[str, Any]) -> None:
    (record,), _ = read({"config.v2.json": document(RECORD | config), "hostconfig.json": document(host)})
    assert record.parts.id == ID
    assert isinstance(record.parts.state, ContainerState)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_container_or_a_problem(raw: bytes) -> None:
    records, problems = read({"config.v2.json": raw})
    assert records or problems
