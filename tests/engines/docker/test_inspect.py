"""``docker inspect`` as the versions of the engine answer it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forensics_lib.engines.docker.containers import read_containers
from forensics_lib.engines.docker.inspect import inspect_container
from forensics_lib.engines.docker.root import DataRoot
from forensics_lib.engines.docker.version import Engine, engine_of
from forensics_lib.formats.jsondoc import JsonObject
from forensics_lib.model import ProblemLog
from forensics_lib.trees.documents import DocumentReader
from tests.engines.docker.dataroot import bolt, document, hexid
from tests.engines.docker.rootmaker import CREATED, NEVER, RUN, STATE, RootMaker
from tests.trees.layers import tree

ID = hexid("container web")
RUNNING = STATE | RUN | {"Running": True, "Pid": 4711}
V20, V25, V28, V28_2, V29 = Engine(20, 10), Engine(25), Engine(28), Engine(28, 2), Engine(29)
ENDPOINT = {
    "IPAMConfig": None, "Links": None, "Aliases": ["web"], "NetworkID": "n1", "EndpointID": "e1",
    "Gateway": "172.17.0.1", "IPAddress": "172.17.0.7", "IPPrefixLen": 16, "IPv6Gateway": "",
    "GlobalIPv6Address": "", "GlobalIPv6PrefixLen": 0, "MacAddress": "02:42:ac:11:00:07",
    "DriverOpts": None, "IPAMOperational": False,
}  # fmt: skip
TAKEN_BACK = {
    "EndpointID": "", "Gateway": "", "IPAddress": "", "IPPrefixLen": 0, "IPv6Gateway": "", "GlobalIPv6Address": "",
    "GlobalIPv6PrefixLen": 0, "MacAddress": "",
}  # fmt: skip
OLD = {
    "Bridge", "HairpinMode", "LinkLocalIPv6Address", "LinkLocalIPv6PrefixLen", "SecondaryIPAddresses",
    "SecondaryIPv6Addresses", *TAKEN_BACK,
}  # fmt: skip
CURRENT = {"Networks", "Ports", "SandboxID", "SandboxKey"}


def answer(
    engine: Engine,
    state: dict[str, Any] | None = None,
    *,
    reloaded: bool = False,
    driver: dict[str, object] | None = None,
    log_path: str = "",
    **config: Any,
) -> dict[str, Any]:
    record = RootMaker().record("web", state or RUN, config)
    files = {"config.v2.json": document(record), "hostconfig.json": document({"NetworkMode": "default"})}
    host = tree("host", {f"/containers/{ID}/{name}": raw for name, raw in files.items()})
    (read,) = read_containers(DocumentReader(host, ProblemLog(strict=True)), DataRoot("/", "test"))
    return inspect_container(read, engine, "/data/docker", driver, log_path, reloaded=reloaded)


def networked(engine: Engine, state: dict[str, Any], *, reloaded: bool = False) -> dict[str, Any]:
    settings = {"SandboxID": "s1", "SandboxKey": "/run/s1", "Networks": {"bridge": ENDPOINT}, "Ports": {"80/tcp": None}}
    found: dict[str, Any] = answer(engine, state, reloaded=reloaded, NetworkSettings=settings)["NetworkSettings"]
    return found


def test_everything_of_20_10() -> None:
    folder = f"/var/lib/docker/containers/{ID}"
    data: dict[str, object] = {"Name": "overlay2", "Data": {"UpperDir": "/u"}}
    assert answer(V20, RUN | {"Health": {"Status": "healthy"}}, driver=data, ProcessLabel="") == {
        "Id": ID, "Created": CREATED, "Path": "sh", "Args": [], "Image": hexid("image"), "Name": "/web",
        "HostnamePath": f"{folder}/hostname", "LogPath": f"{folder}/{ID}-json.log", "RestartCount": 0,
        "Driver": "overlay2", "Platform": "linux", "MountLabel": "", "ProcessLabel": "", "ExecIDs": None,
        "State": {
            "Status": "exited", "Running": False, "Paused": False, "Restarting": False, "OOMKilled": False,
            "Dead": False, "Pid": 0, "ExitCode": 3, "Error": "", "StartedAt": RUN["StartedAt"],
            "FinishedAt": RUN["FinishedAt"], "Health": {"Status": "healthy"},
        },
        "HostConfig": {"NetworkMode": "default"}, "GraphDriver": data, "Mounts": [],
        "Config": {"Hostname": ID[:12], "Image": "acme/web:1", "Env": ["PATH=/bin"]},
        "NetworkSettings": {
            "SandboxID": "", "SandboxKey": "", "Ports": {}, "Networks": {}, "Bridge": "", "HairpinMode": False,
            "LinkLocalIPv6Address": "", "LinkLocalIPv6PrefixLen": 0, "SecondaryIPAddresses": None,
            "SecondaryIPv6Addresses": None, **TAKEN_BACK,
        },
    }  # fmt: skip


@pytest.mark.parametrize(("engine", "more"), [(V20, OLD), (V25, OLD), (V28, OLD), (V28_2, OLD), (V29, set[str]())])
def test_fields_of_network_settings_by_version(engine: Engine, more: set[str]) -> None:
    assert set(networked(engine, RUNNING)) == CURRENT | more


@pytest.mark.parametrize("engine", [V20, V25, V28, V29])
def test_a_running_container_keeps_its_addresses(engine: Engine) -> None:
    settings = networked(engine, RUNNING)
    shown = {key: value for key, value in ENDPOINT.items() if key != "IPAMOperational"}
    assert settings["Networks"]["bridge"] == shown
    assert (settings["SandboxID"], settings["Ports"]) == ("s1", {"80/tcp": None})


@pytest.mark.parametrize(
    ("engine", "state", "reloaded", "released"),
    [
        (V20, STATE, False, True),  # a start that failed was undone in memory
        (V20, STATE, True, False),  # and read from the disk again
        (V20, RUN, False, False),
        (V20, RUN, True, False),
        (V25, STATE, False, True),
        (V25, RUN, True, False),
        (V28, RUN, False, True),
        (V28, RUN, True, True),
        (V29, STATE, True, True),
    ],
)
def test_addresses_that_were_released(engine: Engine, state: dict[str, Any], reloaded: bool, released: bool) -> None:
    settings = networked(engine, state, reloaded=reloaded)
    address = settings["Networks"]["bridge"]["IPAddress"]
    assert address == ("" if released else "172.17.0.7")
    if engine != V29:
        assert settings["IPAddress"] == address
    assert settings["Ports"] == ({} if released else {"80/tcp": None})  # a crash leaves those of the last run
    assert settings["Networks"]["bridge"]["Aliases"] == ["web"]
    assert settings["SandboxKey"] == ("" if engine.at_least(27) else "/run/s1")


def test_addresses_of_other_networks_are_not_those_of_the_default_network() -> None:
    settings = {"Networks": {"front": ENDPOINT}}
    shown = answer(V20, RUNNING, NetworkSettings=settings)["NetworkSettings"]
    assert (shown["IPAddress"], shown["IPPrefixLen"]) == ("", 0)


def test_data_of_28_and_containerd() -> None:
    descriptor = {"digest": "sha256:1", "size": 5}
    platform = {"os": "windows", "architecture": "amd64"}
    shown = answer(V28_2, ImageManifest=descriptor, OS=None, ImagePlatform=platform)
    assert shown["ImageManifestDescriptor"] == descriptor | {"platform": platform}
    assert shown["Platform"] == "windows"
    assert shown["Storage"] == {"RootFS": {"Snapshot": {"Name": "overlay2"}}}
    assert "GraphDriver" not in shown


def test_removal_is_no_part_of_the_state() -> None:
    state = answer(V20, {"RemovalInProgress": True})["State"]
    assert state["Status"] == "removing"
    assert "RemovalInProgress" not in state


@pytest.mark.parametrize(("stored", "found", "shown"), [("/l/a.log", "/x", "/l/a.log"), ("", "/x", "/x"), ("", "", "")])
def test_log_path(stored: str, found: str, shown: str) -> None:
    assert answer(V20, log_path=found, LogPath=stored)["LogPath"] == shown


def test_the_log_that_a_record_does_not_name_is_found(tmp_path: Path) -> None:
    root = RootMaker(real="/data/docker")
    named = root.container("named", LogPath="")
    unnamed = root.container("unnamed", LogPath="")
    local = root.container("local", LogPath="", host={"LogConfig": {"Type": "local"}})
    for one in (named, local):
        root.put(f"containers/{one}/{one}-json.log", b"")
    with root.opened(tmp_path) as ev:
        assert ev.container(named).inspect()["LogPath"] == f"/data/docker/containers/{named}/{named}-json.log"
        assert ev.container(unnamed).inspect()["LogPath"] == ""
        assert ev.container(local).inspect()["LogPath"] == ""


@pytest.mark.parametrize(
    ("point", "source"),
    [
        ({"Name": "data", "Driver": "local"}, "/data/docker/volumes/data/_data"),
        ({"Name": "data", "Driver": "local", "Source": "/elsewhere"}, "/elsewhere"),
        ({"Name": "data", "Driver": "nfs"}, ""),
        ({"Source": "/srv"}, "/srv"),
    ],
)
def test_path_of_a_volume(point: dict[str, Any], source: str) -> None:
    (mount,) = answer(V20, MountPoints={"/data": point | {"RW": True}})["Mounts"]
    assert mount["Source"] == source
    assert ("Name" in mount) == ("Name" in point)
    assert mount["Type"] == ("volume" if "Name" in point else "bind")


def test_mounts() -> None:
    point = {
        "Type": "bind", "Source": "/etc", "Destination": "/conf", "RW": False, "Relabel": "ro",
        "Propagation": "rprivate", "Name": "", "Driver": "", "Spec": {"Type": "bind"}, "SkipMountpointCreation": False,
    }  # fmt: skip
    assert answer(V20, MountPoints={"/conf": point})["Mounts"] == [
        {"Type": "bind", "Source": "/etc", "Destination": "/conf", "Mode": "ro", "RW": False, "Propagation": "rprivate"}
    ]


@pytest.mark.parametrize(
    ("engine", "config", "platform", "type_"),
    [
        (Engine(1, 10), {"OS": None}, None, None),
        (Engine(1, 13), {"OS": None}, None, "volume"),
        (Engine(17, 9), {"OS": None, "Platform": "linux"}, "linux", "volume"),
        (Engine(17, 12), {"OS": None}, "linux", "volume"),
        (Engine(17, 12), {"OS": "windows"}, "windows", "volume"),
    ],
)
def test_what_older_releases_did_not_show(
    engine: Engine, config: dict[str, Any], platform: str | None, type_: str | None
) -> None:
    shown = answer(engine, MountPoints={"/d": {"Name": "data", "Driver": "local", "Destination": "/d"}}, **config)
    assert (shown.get("Platform"), shown["Mounts"][0].get("Type")) == (platform, type_)


@pytest.mark.parametrize(
    ("config", "engine_id", "engine"),
    [
        ({}, False, V20),  # of no container nothing is known
        ({"Name": "/web"}, False, Engine(1, 10)),
        ({"Managed": False}, False, Engine(1, 12)),
        ({"Managed": False, "SecretReferences": None}, False, Engine(1, 13)),
        ({"SecretReferences": None, "ConfigReferences": None}, False, Engine(17, 6)),
        ({"ConfigReferences": None, "Platform": "linux"}, False, Engine(17, 9)),
        ({"OS": "linux"}, False, Engine(17, 12)),
        ({"LocalLogCacheMeta": {}}, False, V20),
        ({"LocalLogCacheMeta": {}}, True, Engine(23)),
        ({"ImageManifest": None}, True, Engine(24)),
        ({"NetworkSettings": {"Networks": {"bridge": {"DNSNames": None}}}}, True, V25),
        ({"ImagePlatform": {}, "State": {"RemovalInProgress": False}}, True, V28),
        ({"ImagePlatform": {}, "State": {}}, True, V28_2),
        ({"WritableCgroups": None, "ImagePlatform": {}, "NetworkSettings": {"Bridge": ""}}, True, V28_2),
        ({"WritableCgroups": None, "NetworkSettings": {}}, True, V29),
        ({"NetworkSettings": {"Networks": 5}}, False, Engine(1, 10)),
    ],
)
def test_the_engine_is_told_by_its_records(config: dict[str, Any], engine_id: bool, engine: Engine) -> None:
    assert engine_of([JsonObject(config)], engine_id=engine_id) == engine
    assert engine_of([JsonObject({}), JsonObject(config)], engine_id=engine_id) == engine


def test_the_engine_is_told_by_its_networks() -> None:
    assert engine_of([], engine_id=True, networks=[JsonObject({"enableIPv4": True})]) == V28


def test_containers_of_before_and_after_the_daemon_started(tmp_path: Path) -> None:
    """The default network is made at each start of the daemon, so it tells when that was."""
    root = RootMaker()
    settings = {"SandboxID": "s", "Networks": {"bridge": ENDPOINT}}
    before = root.container("before", state={}, NetworkSettings=settings, Created="2024-01-01T00:00:00Z")
    after = root.container("after", state={}, NetworkSettings=settings, Created="2024-01-03T00:00:00Z")
    network = {"id": "n1", "name": "bridge", "networkType": "bridge", "created": "2024-01-02T00:00:00Z"}
    key = "docker/network/v1.0/network/n1/"
    root.put("network/files/local-kv.db", bolt({"libnetwork": {key: bytes(8) + document(network)}}))
    with root.opened(tmp_path) as ev:
        shown = {one: json.dumps(ev.container(one).inspect()) for one in (before, after)}
    assert "172.17.0.7" in shown[before]
    assert "172.17.0.7" not in shown[after]


def test_times_that_never_were_are_passed_on() -> None:
    assert answer(V20, STATE)["State"]["StartedAt"] == NEVER


KEYS = ["State", "NetworkSettings", "MountPoints", "LogPath", "OS", "ImagePlatform", "Config", "ImageManifest"]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)


@given(
    st.sampled_from([V20, V25, V28, V29]),
    st.dictionaries(st.sampled_from(KEYS), VALUES.filter(lambda v: v is not None)),
)
def test_any_record_has_an_answer(engine: Engine, config: dict[str, Any]) -> None:
    state = config.pop("State", None)
    shown = answer(engine, state if isinstance(state, dict) and state else None, **config)
    assert shown["Id"] == ID


def test_ulimits_of_the_daemon_are_shown_beside_those_of_the_container(tmp_path: Path) -> None:
    def limit(name: str, value: int) -> dict[str, Any]:
        return {"Name": name, "Hard": value, "Soft": value}

    root = RootMaker(at="/var/lib/docker")
    root.container("web", host={"Ulimits": [limit("core", 0)]})
    root.container("db", host={"Ulimits": None})
    settings = {"default-ulimits": {name: limit(name, 9) for name in ("core", "nofile")}}
    root.entries["/etc/docker/daemon.json"] = document(settings)
    with root.opened(tmp_path) as ev:
        answers: dict[str, dict[str, Any]] = {c.name: c.inspect() for c in ev.containers}
    shown = {name: answer["HostConfig"]["Ulimits"] for name, answer in answers.items()}
    assert shown == {"web": [limit("core", 0), limit("nofile", 9)], "db": [limit("core", 9), limit("nofile", 9)]}
