"""Removed containers whose record is lost: what the rest of the evidence tells, and that nothing else is made up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from forensics_lib.engines.container import Container
from forensics_lib.engines.container_parts import ContainerState
from forensics_lib.engines.docker.engine import DockerRoot
from forensics_lib.engines.fact import Fact, Sureness
from forensics_lib.formats.jsondoc import JsonObject
from forensics_lib.images.digest import chain_ids
from forensics_lib.model import ProblemLog
from forensics_lib.recovery.assemble import deleted_containers
from forensics_lib.recovery.facts import completed, disputed, settled
from forensics_lib.recovery.remnant import Remnant
from forensics_lib.recovery.witnesses import Witnesses
from tests.engines.docker.dataroot import digest, hexid
from tests.recovery.scene import ORIGIN, at, config, data_root, encoded, nanoseconds, remnant
from tests.recovery.test_witnesses import ENDPOINT, joined, line, started

WEB, DB, LAYER = hexid("web"), hexid("db"), hexid("layer")
FOLDER, MOUNT = f"var/lib/docker/containers/{WEB}", f"var/lib/docker/image/overlay2/layerdb/mounts/{WEB}"
DIFF_IDS = [digest("base"), digest("top")]
TOP = chain_ids(DIFF_IDS)[-1]


def image(**changes: Any) -> Remnant:
    """The recovered configuration of a removed image."""
    content = json.dumps({"rootfs": {"diff_ids": DIFF_IDS}, "architecture": "amd64", **changes}).encode()
    found = remnant(content, kind="image")
    return remnant(content, f"imagedb/content/sha256/{found.sha256}", "image", image_id=f"sha256:{found.sha256}")


def one(remnants: list[Remnant], witnesses: Witnesses | None = None) -> Container:
    found = deleted_containers(remnants, [], ProblemLog(strict=True), witnesses=witnesses)
    (container,) = [container for container in found if container.id == WEB]
    return container


def lost_record() -> list[Remnant]:
    return [
        remnant(LAYER.encode(), f"{MOUNT}/mount-id", container_id=WEB, modified_ns=nanoseconds(1.013)),
        remnant(TOP.encode(), f"{MOUNT}/parent", container_id=WEB, modified_ns=nanoseconds(1.014)),
        remnant(None, f"{FOLDER}/config.v2.json", "config"),
        remnant(None, f"{FOLDER}/{WEB}-json.log", "log"),
        remnant(f"{WEB[:12]}\n".encode(), f"{FOLDER}/hostname"),
        remnant(f"127.0.0.1\tlocalhost\n172.17.0.8\t{WEB[:12]}\n".encode(), f"{FOLDER}/hosts"),
    ]


def test_what_the_rest_tells_stands_in_for_the_record() -> None:
    known = image()
    container = one([*lost_record(), known], Witnesses([started(WEB, 1.1), joined("web", 1.2)]))
    assert (container.name, container.image_id, container.hostname) == ("web", known.image_id, WEB[:12])
    assert (container.created_ns, container.log_driver) == (nanoseconds(1.013), "json-file")
    facts = {(fact.about, fact.value): fact.sureness for fact in container.facts}
    assert facts["name", "web"] is Sureness.LIKELY
    assert facts["image", known.image_id] is Sureness.DERIVED
    assert facts["address", "172.17.0.8"] is Sureness.STATED
    assert facts["writable layer", LAYER] is Sureness.STATED
    assert "name web (likely, daemon log" in container.state_note
    assert "its record was not recovered" in container.state_note


def test_inspect_has_no_key_of_which_nothing_is_known() -> None:
    folder = f"/{FOLDER}"
    assert one([*lost_record(), image()]).inspect() == {
        "Id": WEB,
        "Created": at(1.013).replace("000000Z", "Z"),
        "Image": image().image_id,
        "Config": {"Hostname": WEB[:12]},
        "Driver": "overlay2",
        "HostnamePath": f"{folder}/hostname",
        "HostsPath": f"{folder}/hosts",
        "LogPath": f"{folder}/{WEB}-json.log",
        "HostConfig": {"LogConfig": {"Type": "json-file"}},
        "GraphDriver": {"Name": "overlay2", "Data": None},
    }
    bare = one([remnant(None, f"{FOLDER}/config.v2.json", "config")])
    assert bare.inspect() == {"Id": WEB}
    assert (bare.name, bare.state) == ("", ContainerState.REMOVING)


def test_two_images_with_the_same_layers_are_both_named_and_none_is_taken() -> None:
    images = [image(author="a"), image(author="b")]
    container = one([*lost_record(), *images])
    assert container.image_id == ""
    found = [fact for fact in container.facts if fact.about == "image"]
    assert {fact.value for fact in found} == {known.image_id for known in images}
    assert {fact.sureness for fact in found} == {Sureness.LIKELY}
    assert "its image is disputed" in container.state_note


def test_an_image_configuration_whose_digest_is_another_is_no_witness() -> None:
    known = image()
    forged = remnant(known.read() + b" ", known.path, "image", image_id=known.image_id)
    assert one([*lost_record(), forged]).image_id == ""


def test_the_image_by_the_file_lower_and_a_link_that_is_still_there(tmp_path: Path) -> None:
    parent = f"image/overlay2/layerdb/sha256/{TOP[7:]}"
    base = f"image/overlay2/layerdb/sha256/{DIFF_IDS[0][7:]}"
    image_config = json.dumps(
        {"rootfs": {"type": "layers", "diff_ids": DIFF_IDS}, "os": "linux", "config": {}}
    ).encode()
    image_id = remnant(image_config).sha256
    docker = data_root(
        tmp_path,
        {
            f"image/overlay2/imagedb/content/sha256/{image_id}": image_config,
            f"{parent}/cache-id": hexid("cache").encode(),
            f"{parent}/diff": DIFF_IDS[1].encode(),
            f"{parent}/parent": DIFF_IDS[0].encode(),
            f"{base}/cache-id": hexid("base cache").encode(),
            f"{base}/diff": DIFF_IDS[0].encode(),
            f"overlay2/{hexid('cache')}/link": b"B" * 26,
            f"overlay2/l/{'B' * 26}": f"../{hexid('cache')}/diff",
        },
    )
    rows = [
        remnant(LAYER.encode(), f"{MOUNT}/mount-id", container_id=WEB),
        remnant(f"l/{'A' * 26}:l/{'B' * 26}".encode(), f"overlay2/{LAYER}/lower"),
    ]
    (container,) = deleted_containers(rows, [docker], ProblemLog())
    assert container.image_id == f"sha256:{image_id}"


def test_names_by_endpoint_sandbox_and_container() -> None:
    endpoint = {
        "id": f"{ENDPOINT}{'0' * 52}",
        "name": "web",
        "sandbox": hexid("s"),
        "ep_iface": {"addr": "172.17.0.2/16"},
    }
    rows = [
        remnant(None, f"{FOLDER}/config.v2.json", "config"),
        remnant(encoded(endpoint), "network/files/local-kv.db", "record", method="bbolt page"),
    ]
    assert one(rows).name == ""
    sandbox = remnant(encoded({"ID": hexid("s"), "Cid": WEB}), "local-kv.db", "record", method="bbolt page")
    container = one([*rows, sandbox])
    assert (container.name, [fact.sureness for fact in container.facts]) == ("web", [Sureness.DERIVED] * 2)
    stale = Witnesses([line(f'msg="Removing stale sandbox {hexid("s")} ({WEB})"', 1)])
    assert one(rows, stale).name == "web"
    renamed = Witnesses([joined("older", 1)])
    found = one([*rows, sandbox], renamed)
    assert found.name == ""
    assert "its name is disputed: web or older" in found.state_note


def test_a_container_of_which_only_lines_of_logs_tell(tmp_path: Path) -> None:
    docker = data_root(tmp_path, {"containers": None, "image/overlay2/layerdb": None, "overlay2": None})
    told = Witnesses([started(WEB, 1), joined("web", 1.1)])
    (container,) = deleted_containers([], [docker], ProblemLog(), witnesses=told)
    assert (container.name, container.state) == ("web", ContainerState.UNKNOWN)
    assert container.inspect() == {"Id": WEB, "Name": "/web"}
    assert "only lines of logs tell of it" in container.state_note
    assert str(container.origin).startswith("docker.log")


def test_without_the_folders_of_containers_nothing_tells_which_were_removed(tmp_path: Path) -> None:
    docker = data_root(tmp_path, {"image/overlay2/layerdb": None, "overlay2": None})
    none: list[DockerRoot] = []
    for dockers in (none, [docker]):
        assert not deleted_containers([], dockers, ProblemLog(), witnesses=Witnesses([started(WEB, 1)]))


def test_a_name_that_fits_two_is_given_to_none() -> None:
    log = [started(WEB, 1), started(DB, 1.2), joined("web", 1.3)]
    rows = [remnant(None, f"containers/{one}/config.v2.json", "config") for one in (WEB, DB)]
    found = deleted_containers(rows, [], ProblemLog(strict=True), witnesses=Witnesses(log))
    assert [container.name for container in found] == ["", ""]
    assert {fact.about for container in found for fact in container.facts} == {"started", "possible name"}


def test_a_whole_record_is_shown_as_it_is_and_others_are_only_reported() -> None:
    document = config(WEB, "web", 1, StartedAt=at(2), FinishedAt=at(9))
    endpoint = {"id": ENDPOINT, "name": "former", "sandbox": hexid("s"), "ep_iface": {}}
    rows = [
        remnant(encoded(document), f"{FOLDER}/config.v2.json", "config"),
        remnant(encoded({"ID": hexid("s"), "Cid": WEB}), "local-kv.db", "record", method="bbolt page"),
        remnant(encoded(endpoint), "local-kv.db", "record", method="bbolt page"),
    ]
    container = one(rows)
    assert container.name == "web"
    assert "elsewhere its name is former" in container.state_note
    assert container.inspect()["Name"] == "/web"
    assert "HostConfig" in container.inspect()


def fact(about: str, value: str, sureness: Sureness) -> Fact:
    return Fact(about, value, sureness, "test", "", ORIGIN)


def test_the_surest_fact_counts_and_equal_ones_that_differ_do_not() -> None:
    facts = [
        fact("name", "a", Sureness.LIKELY),
        fact("name", "b", Sureness.DERIVED),
        fact("name", "b", Sureness.DERIVED),
    ]
    assert settled(facts, "name") is facts[1]
    assert disputed(facts, "name") == []
    facts.append(fact("name", "c", Sureness.DERIVED))
    assert settled(facts, "name") is None
    assert disputed(facts, "name") == ["b", "c"]
    assert settled(facts, "image") is None
    made, host, used = completed(WEB, JsonObject({"Name": "/torn"}), facts, [], "", "/var/lib/docker")
    assert (made.raw, host.raw, used) == ({"ID": WEB, "Name": "/torn"}, {}, [])


def test_times_of_runs_are_those_of_the_logs_unless_they_are_assumed() -> None:
    ended = f'level=info msg="shim disconnected" id={WEB} namespace=moby'
    container = one(lost_record(), Witnesses([started(WEB, 1.1), line(ended, 5), line(ended, 9, assumed="zone")]))
    assert (container.started_ns, container.finished_ns) == (nanoseconds(1.1), nanoseconds(5))
    assert [fact.is_exact for fact in container.facts if fact.about == "ended"] == [True, False]


def test_a_runtime_specification_stands_in_without_what_the_daemon_adds_to_it() -> None:
    specification = {
        "ociVersion": "1.0",
        "process": {"args": ["sh"], "env": ["PATH=/bin", f"HOSTNAME={WEB[:12]}", "A=1"], "cwd": "/"},
        "hostname": WEB[:12],
        "mounts": [
            {"type": "bind", "source": "/var/lib/docker/volumes/data/_data", "destination": "/data", "options": ["ro"]},
            {"type": "bind", "source": f"/{FOLDER}/hosts", "destination": "/etc/hosts", "options": []},
            {"type": "proc", "source": "proc", "destination": "/proc"},
        ],
    }
    row = remnant(encoded(specification), "meta.db", "record", method="bbolt page", container_id=WEB)
    container = one([row])
    assert container.env == ("PATH=/bin", "A=1")
    assert [(mount.name, mount.destination, mount.read_only) for mount in container.mounts] == [("data", "/data", True)]
    answer = container.inspect()
    assert answer["Config"] == {"Hostname": WEB[:12]}
    source = "/var/lib/docker/volumes/data/_data"
    point = {"Type": "volume", "Name": "data", "Source": source, "Destination": "/data", "Driver": "local", "RW": False}
    assert answer["Mounts"] == [point]
    assert "State" not in answer
