from __future__ import annotations

import copy
import json
import pickle
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forensics_lib.errors import DamagedData, ForensicsError, LimitExceeded
from forensics_lib.images.config import Healthcheck, HistoryEntry, ImageConfig
from forensics_lib.images.config_reader import MAX_ITEMS
from forensics_lib.images.inspect import inspect_config
from forensics_lib.model import Origin, ProblemLog

ORIGIN = Origin("image.tar").to("config.json")
DIFF_ID = "sha256:8d96d8f383c0885c37bce9d335a7dd19abad426278bb1a676cf41f29fc5ffad8"

# Modelled on what Docker 20.10's classic builder writes.
CLASSIC: dict[str, Any] = {
    "architecture": "amd64",
    "config": {
        "Hostname": "web01",
        "Domainname": "",
        "User": "1000:1000",
        "AttachStdin": False,
        "AttachStdout": True,
        "AttachStderr": False,
        "ExposedPorts": {"80/tcp": {}, "9000/udp": {}},
        "Tty": False,
        "OpenStdin": False,
        "StdinOnce": False,
        "Env": ["PATH=/bin", "A=b c"],
        "Cmd": ["httpd", "-f"],
        "Healthcheck": {"Test": ["CMD", "/bin/true"], "Interval": 5000000000, "Retries": 2},
        "Image": "sha256:287dcd2f1b6a41d523bd87511b5d5dd064fcf4a79c73fa1d2c0821e177b5bcc3",
        "Volumes": {"/var/cache/acme": {}},
        "WorkingDir": "/www",
        "Entrypoint": None,
        "OnBuild": [],
        "Labels": {"maintainer": "Ops <ops@acme.test>", "team": "shop ünïcode"},
        "StopSignal": "SIGTERM",
        "StopTimeout": 0,
    },
    "container": "e6c3c89f01cb8612a7b9db62ac6317de259580af09d270d814e860bbbc364872",
    "container_config": {"Cmd": ["/bin/sh", "-c", "#(nop) ", 'CMD ["httpd" "-f"]']},
    "created": "2026-11-21T16:16:44.131011682Z",
    "docker_version": "20.10.24+dfsg1",
    "author": "ops",
    "history": [
        {"created": "2026-11-21T16:16:24.580745666+02:00", "comment": "base"},
        {"created_by": '/bin/sh -c #(nop)  CMD ["httpd" "-f"]', "empty_layer": True, "author": "ops"},
    ],
    "os": "windows",
    "os.version": "10.0.17763.1",
    "os.features": ["win32k"],
    "variant": "v8",
    "rootfs": {"type": "layers", "diff_ids": [DIFF_ID]},
    "moby.buildkit.buildinfo.v1": "e30=",
}


def parse(document: object, problems: ProblemLog | None = None) -> ImageConfig:
    return ImageConfig.parse(json.dumps(document).encode(), ORIGIN, problems or ProblemLog(strict=True))


def test_every_value_of_a_configuration() -> None:
    config = parse(CLASSIC)
    assert (config.architecture, config.variant, config.os, config.os_version) == (
        "amd64",
        "v8",
        "windows",
        "10.0.17763.1",
    )
    assert config.os_features == ("win32k",)
    assert config.created == datetime(2026, 11, 21, 16, 16, 44, 131011, UTC)
    assert config.created_ns == 1795277804131011682
    assert (config.author, config.docker_version, config.comment) == ("ops", "20.10.24+dfsg1", "")
    assert config.container.startswith("e6c3c89f01cb")
    assert (config.hostname, config.user, config.working_dir, config.stop_signal) == (
        "web01",
        "1000:1000",
        "/www",
        "SIGTERM",
    )
    assert config.env == ("PATH=/bin", "A=b c")
    assert (config.entrypoint, config.cmd, config.on_build, config.shell) == ((), ("httpd", "-f"), (), ())
    assert config.exposed_ports == ("80/tcp", "9000/udp")
    assert config.volumes == ("/var/cache/acme",)
    assert dict(config.labels) == {"maintainer": "Ops <ops@acme.test>", "team": "shop ünïcode"}
    assert config.stop_timeout == 0
    assert config.healthcheck == Healthcheck(("CMD", "/bin/true"), interval_ns=5 * 10**9, retries=2)
    assert config.attach_stdout
    assert not config.tty
    assert config.diff_ids == (DIFF_ID,)
    assert config.history == (
        HistoryEntry(
            created=datetime(2026, 11, 21, 14, 16, 24, 580745, UTC), created_ns=1795270584580745666, comment="base"
        ),
        HistoryEntry(created_by='/bin/sh -c #(nop)  CMD ["httpd" "-f"]', author="ops", empty_layer=True),
    )
    assert config.raw.text("moby.buildkit.buildinfo.v1") == "e30="
    assert (config.id, config.parent_id, config.size) == ("", "", None)


def test_a_configuration_is_a_value() -> None:
    config = parse(CLASSIC)
    again = pickle.loads(pickle.dumps(config))
    assert again == config == copy.deepcopy(config)
    assert hash(again) == hash(config)
    assert again.raw.raw == config.raw.raw
    with pytest.raises(TypeError):
        config.labels["x"] = "y"  # type: ignore[index]


def test_inspect_as_daemons_before_28_2() -> None:
    assert inspect_config(parse(CLASSIC), legacy=True) == CLASSIC["config"]


def test_inspect_of_an_oci_configuration_as_daemons_before_28_2() -> None:
    answer = inspect_config(parse({"config": {"Env": ["A=b"], "Cmd": []}, "rootfs": {}}), legacy=True)
    assert answer == {
        "Hostname": "",
        "Domainname": "",
        "User": "",
        "AttachStdin": False,
        "AttachStdout": False,
        "AttachStderr": False,
        "Tty": False,
        "OpenStdin": False,
        "StdinOnce": False,
        "Env": ["A=b"],
        "Cmd": [],
        "Image": "",
        "Volumes": None,
        "WorkingDir": "",
        "Entrypoint": None,
        "OnBuild": None,
        "Labels": None,
    }


def test_inspect_as_later_daemons() -> None:
    assert inspect_config(parse(CLASSIC), legacy=False) == {
        "User": "1000:1000",
        "ExposedPorts": {"80/tcp": {}, "9000/udp": {}},
        "Env": ["PATH=/bin", "A=b c"],
        "Cmd": ["httpd", "-f"],
        "Volumes": {"/var/cache/acme": {}},
        "WorkingDir": "/www",
        "Labels": {"maintainer": "Ops <ops@acme.test>", "team": "shop ünïcode"},
        "StopSignal": "SIGTERM",
        "Healthcheck": {"Test": ["CMD", "/bin/true"], "Interval": 5000000000, "Retries": 2},
    }


def test_inspect_without_a_configuration_object() -> None:
    assert inspect_config(parse({"os": "linux", "rootfs": {}}), legacy=True) == {}
    assert inspect_config(parse({"config": None, "rootfs": {}}), legacy=False) == {}


def test_rare_settings() -> None:
    settings = {
        "ArgsEscaped": True,
        "Shell": ["cmd", "/S", "/C"],
        "NetworkDisabled": True,
        "MacAddress": "02:42:ac:11:00:02",
        "Healthcheck": {"Test": ["NONE"], "Timeout": 1, "StartPeriod": 2, "StartInterval": 3},
        "Cmd": "a bare text",
    }
    config = parse({"config": settings, "rootfs": {}})
    assert config.healthcheck == Healthcheck(("NONE",), timeout_ns=1, start_period_ns=2, start_interval_ns=3)
    assert config.cmd == ("a bare text",)
    assert config.shell == ("cmd", "/S", "/C")
    legacy, later = inspect_config(config, legacy=True), inspect_config(config, legacy=False)
    assert legacy["ArgsEscaped"] is later["ArgsEscaped"] is True
    assert legacy["NetworkDisabled"] is True
    assert legacy["MacAddress"] == "02:42:ac:11:00:02"
    assert legacy["Healthcheck"] == later["Healthcheck"] == settings["Healthcheck"]
    assert not {"NetworkDisabled", "MacAddress"} & set(later)


def test_a_layer_document_of_docker_before_1_10() -> None:
    config = parse(
        {
            "id": "1aef00ecb5ee93ada8319f25f27092d409c7fec5ab847a76bfe05d1fa07490bc",
            "parent": "33c294d897894a01e2740ca3aa428c3abe4d06d54ef7ff88c2fba84875c1ddc8",
            "created": "2015-08-01T10:00:00Z",
            "container": "c0ffee",
            "container_config": {"Cmd": ["/bin/sh", "-c", "echo hi > /x"], "Image": "33c294d8"},
            "docker_version": "1.8.3",
            "author": "ops",
            "comment": "note",
            "config": {"Cmd": None, "Env": ["PATH=/bin"]},
            "architecture": "amd64",
            "os": "linux",
            "Size": 3,
        }
    )
    assert config.id.startswith("1aef00ec")
    assert config.parent_id.startswith("33c294d8")
    assert config.size == 3
    assert config.env == ("PATH=/bin",)
    assert config.diff_ids == ()
    assert config.history == (
        HistoryEntry(
            created=datetime(2015, 8, 1, 10, tzinfo=UTC),
            created_ns=1438423200 * 10**9,
            created_by="/bin/sh -c echo hi > /x",
            author="ops",
            comment="note",
        ),
    )


def test_a_v1_compatibility_text_of_a_schema_1_manifest() -> None:
    config = parse(
        {
            "id": "aa",
            "parent": "bb",
            "created": "2016-01-02T03:04:05Z",
            "container_config": {"Cmd": ['/bin/sh -c #(nop) CMD ["sh"]']},
            "throwaway": True,
        }
    )
    assert config.history[0].created_by == '/bin/sh -c #(nop) CMD ["sh"]'
    assert config.history[0].empty_layer


def test_no_history_stays_no_history() -> None:
    assert parse({"id": "x", "rootfs": {"diff_ids": [DIFF_ID]}}).history == ()
    assert parse({"architecture": "amd64", "os": "linux"}).history == ()


def test_wrong_shapes_become_problems_and_neutral_values() -> None:
    problems = ProblemLog()
    config = parse(
        {
            "architecture": 5,
            "created": "yesterday",
            "config": {
                "Env": ["A=b", 7, None],
                "Cmd": {"a": 1},
                "Labels": {"a": "b", "c": 3},
                "ExposedPorts": ["80/tcp"],
                "Tty": "yes",
                "StopTimeout": "10",
                "Healthcheck": {"Test": "CMD", "Interval": 1.5},
            },
            "rootfs": {"diff_ids": [DIFF_ID, 5, "sha256:../../x"]},
            "history": [{"created": "0001-01-01T00:00:00Z"}, "text", {"empty_layer": "no", "comment": ["x"]}],
        },
        problems,
    )
    assert (config.architecture, config.created, config.tty, config.stop_timeout) == ("", None, False, None)
    assert (config.env, config.cmd, config.exposed_ports) == (("A=b",), (), ())
    assert dict(config.labels) == {"a": "b"}
    assert config.healthcheck == Healthcheck()
    assert config.diff_ids == (DIFF_ID, "", "sha256:../../x")  # positions stay
    assert config.history == (HistoryEntry(), HistoryEntry(), HistoryEntry())
    found = {problem.message.removeprefix("image configuration: ").split(" ")[0] for problem in problems.rows}
    assert found == {
        "architecture",
        "created",
        "config.Env",
        "config.Cmd",
        "config.Labels",
        "config.ExposedPorts",
        "config.Tty",
        "config.StopTimeout",
        "config.Healthcheck.Test",
        "config.Healthcheck.Interval",
        "rootfs.diff_ids",
        "rootfs.diff_ids[1]",
        "history",
        "history[2].empty_layer",
        "history[2].comment",
    }
    assert all(problem.origin is ORIGIN and isinstance(problem.error, DamagedData) for problem in problems.rows)


def test_a_strict_log_raises_at_the_first_wrong_shape() -> None:
    with pytest.raises(DamagedData, match=r"config\.Env is not an array"):
        parse({"config": {"Env": "A=b"}})


def test_the_number_of_items_is_bounded() -> None:
    problems = ProblemLog()
    config = parse({"config": {"Env": ["A=b"] * (MAX_ITEMS + 1)}}, problems)
    assert len(config.env) == MAX_ITEMS
    assert isinstance(problems.rows[0].error, LimitExceeded)


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"{", b'"text"', b"\xff\xfe"])
def test_what_is_no_json_object_is_refused(data: bytes) -> None:
    with pytest.raises(DamagedData):
        ImageConfig.parse(data, ORIGIN, ProblemLog())


outer = ["config", "rootfs", "history", "diff_ids", "created", "id", "os", "Size", "container_config", "throwaway"]
inner = ["Env", "Cmd", "Labels", "Healthcheck", "Test", "Interval", "ExposedPorts", "Volumes", "empty_layer"]
names = st.sampled_from([*outer, *inner])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names | st.text(max_size=4), inner, max_size=6),
    max_leaves=20,
)


@given(st.dictionaries(names, values, max_size=12))
def test_any_json_object_gives_a_configuration(document: dict[str, Any]) -> None:
    config = parse(document, ProblemLog())
    assert pickle.loads(pickle.dumps(config)) == config
    for legacy in (True, False):
        answer = inspect_config(config, legacy=legacy)
        assert json.loads(json.dumps(answer)) == answer


@given(st.binary(max_size=200))
def test_any_bytes_give_a_configuration_or_an_error(data: bytes) -> None:
    try:
        ImageConfig.parse(data, ORIGIN, ProblemLog())
    except ForensicsError:
        return
