"""What logs and commands tell of removed containers: by ids, and by times where nothing else ties a name to an id."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forensics_lib.engines.fact import Fact, Sureness
from forensics_lib.engines.host.audit import AuditEvent
from forensics_lib.engines.host.commands import HostCommand
from forensics_lib.engines.host.daemon_log import DaemonLogLine
from forensics_lib.model import Origin
from forensics_lib.recovery.witnesses import Life, Witnesses, iso
from tests.engines.docker.dataroot import hexid
from tests.recovery.scene import nanoseconds

WEB, DB, JOB = hexid("web"), hexid("db"), hexid("job")
ENDPOINT = "ad7c1125a3b8"


def line(message: str, second: float, assumed: str = "") -> DaemonLogLine:
    origin = Origin("docker.log").to("line", round(second * 1000))
    return DaemonLogLine(nanoseconds(second), assumed, "dockerd", None, "", message, "", "", "", "syslog", origin)


def started(container_id: str, second: float) -> DaemonLogLine:
    address = "unix:///run/containerd/s/1"
    message = f'level=info msg="connecting to shim {container_id}" address="{address}" namespace=moby protocol=ttrpc'
    return line(message, second)


def joined(name: str, second: float, endpoint: str = ENDPOINT) -> DaemonLogLine:
    return line(f'level=info msg="sbJoin: gwep4" eid={endpoint} ep={name} net=bridge nid=04e647a4e9bf', second)


def typed(command: str, second: float | None) -> HostCommand:
    time_ns = None if second is None else nanoseconds(second)
    return HostCommand(time_ns, "", "root", command, "bash", Origin(".bash_history"))


def names(facts: list[Fact]) -> list[str]:
    return [fact.value for fact in facts if fact.about == "name"]


def test_what_lines_state_of_an_id() -> None:
    task = f"/run/x/io.containerd.runtime.v2.task/moby/{DB}"
    old = f'level=info msg="starting signal loop" namespace=moby path={task} pid=7'
    witnesses = Witnesses(
        [
            started(WEB, 1),
            line(f'level=info msg="shim disconnected" id={WEB} namespace=moby', 2, assumed="zone"),
            line(f'msg="cleaning up after shim disconnected" id={WEB} namespace=moby', 2.1),
            line(f'msg="ignoring event" container={WEB} module=libcontainerd topic=/tasks/delete type="*events"', 3),
            line(f'msg="Container failed to exit within 10s of signal 15 - using the force" container={WEB}', 1.5),
            line(old, 4),
            line(f'msg="Health check" container={JOB}', 5),
            line(
                f'msg="mounted via layerStore: &{{/var/lib/docker/overlay2/{hexid("l")}/merged 0x1}}" container={DB}', 4
            ),
            line(f'msg="shim disconnected" id={hexid("pod")} namespace=k8s.io', 6),
        ]
    )
    facts = witnesses.facts({})
    assert [(fact.about, fact.value) for fact in facts[WEB]] == [
        ("started", iso(nanoseconds(1))),
        ("ended", iso(nanoseconds(2))),
        ("ended", iso(nanoseconds(3))),
        ("killed after it did not stop", iso(nanoseconds(1.5))),
    ]
    assert "zone of its time is assumed" in facts[WEB][1].detail
    assert {fact.sureness for fact in facts[WEB]} == {Sureness.STATED}
    assert [(fact.about, fact.value) for fact in facts[DB]][1] == ("writable layer", hexid("l"))
    assert set(witnesses.seen) == {WEB, DB, JOB}


def test_a_name_goes_to_the_only_container_without_one() -> None:
    lives = {DB: Life("db", nanoseconds(1), None), WEB: Life("", nanoseconds(3), nanoseconds(9))}
    log = [started(DB, 1), joined("db", 1.1), started(WEB, 3), joined("web", 3.1)]
    (fact,) = [fact for fact in Witnesses(log).facts(lives)[WEB] if fact.about == "name"]
    assert (fact.value, fact.sureness, fact.method) == ("web", Sureness.LIKELY, "daemon log")
    assert fact.origin.offset == 3100


def test_two_containers_and_two_names_at_one_time_are_only_candidates() -> None:
    lives = {WEB: Life("", None, None), DB: Life("", None, None)}
    log = [started(WEB, 3), started(DB, 3.2), joined("web", 3.3), joined("db", 3.4)]
    facts = Witnesses(log).facts(lives)
    assert sorted(names(facts[WEB])) == sorted(names(facts[DB])) == ["db", "web"]
    assert "other pairs of name and container fit" in facts[WEB][-1].detail


def test_known_containers_show_how_far_a_name_follows() -> None:
    known = {hexid(f"k{index}"): Life(f"k{index}", nanoseconds(index), None) for index in range(10, 14)}
    log = [started(one, life.born_ns / 1e9 - nanoseconds(0) / 1e9) for one, life in known.items() if life.born_ns]
    log += [joined(f"k{index}", index + 0.1) for index in range(10, 14)]
    log += [started(WEB, 30), started(DB, 30.3), joined("web", 30.11), joined("db", 30.41)]
    facts = Witnesses(log).facts({**known, WEB: Life("", None, None), DB: Life("", None, None)})
    assert (names(facts[WEB]), names(facts[DB])) == (["web"], ["db"])
    assert "4 of containers whose name is known came 0.10 s to 0.10 s later" in facts[WEB][-1].detail


def test_a_name_that_was_somebody_else_s_at_that_time_is_not_given_away() -> None:
    log = [started(WEB, 3), joined("web", 3.1)]
    taken = {DB: Life("web", nanoseconds(1), nanoseconds(5)), WEB: Life("", None, None)}
    assert not names(Witnesses(log).facts(taken)[WEB])
    later = {DB: Life("web", nanoseconds(20), None), WEB: Life("", None, None)}
    assert names(Witnesses(log).facts(later)[WEB]) == ["web"]


def test_requests_and_typed_commands_are_tied_by_the_time_of_creation() -> None:
    lives = {WEB: Life("", nanoseconds(10.4), None)}
    asked = line('level=debug msg="Calling POST /v1.41/containers/create?name=web"', 10.3)
    assert names(Witnesses([asked]).facts(lives)[WEB]) == ["web"]
    run = typed("docker run -d --name shop acme/web:1", 8)
    assert names(Witnesses(commands=[run]).facts(lives)[WEB]) == ["shop"]
    assert names(Witnesses(commands=[typed("docker run --name=shop x", None)]).facts(lives).get(WEB, [])) == []
    command = ("docker", "create", "--name", "cron", "x")
    where = Origin("audit.log")
    event = AuditEvent(nanoseconds(9), 1, (), command, "", "", "", (), "", "", None, None, "", "", True, "", "", where)
    assert names(Witnesses(audit=[event]).facts(lives)[WEB]) == ["cron"]


def test_commands_about_a_container() -> None:
    lives = {WEB: Life("web", None, None), DB: Life("db", None, None)}
    commands = [typed(f"docker rm -f {WEB[:12]}", None), typed("docker run --name web -e PASSWORD=geheim1 x", 3)]
    facts = Witnesses(commands=commands).facts(lives)
    assert [(fact.about, fact.sureness) for fact in facts[WEB]] == [
        ("command", Sureness.DERIVED),
        ("command", Sureness.LIKELY),
    ]
    assert "geheim1" in facts[WEB][1].value
    assert "geheim1" not in facts[WEB][1].masked
    assert DB not in facts


def test_a_command_without_a_name_is_not_about_a_container_without_one() -> None:
    assert Witnesses(commands=[typed("docker run -d x", None)]).facts({WEB: Life("", None, None)}) == {}


@pytest.mark.parametrize("text", ["docker run ", f'connecting to shim {"a" * 64}"', "failed to exit within "])
def test_long_lines_cost_no_time(text: str) -> None:
    start = time.process_time()
    witnesses = Witnesses([line(text * 20_000, 1)], commands=[typed(text * 20_000, 1)])
    assert not any(
        fact.about == "name" for found in witnesses.facts({WEB: Life("", None, None)}).values() for fact in found
    )
    assert time.process_time() - start < 5


def test_sandboxes_and_endpoints() -> None:
    log = [
        line(f'msg="Removing stale sandbox {hexid("s")} ({WEB})"', 1),
        joined("web", 2),
        line(f'msg="Programming external connectivity on endpoint old ({hexid("e")})"', 2),
        joined("gateway_118694d3cf88", 2, "0" * 12),
    ]
    witnesses = Witnesses(log)
    assert witnesses.sandboxes == {hexid("s"): WEB}
    assert witnesses.endpoints[ENDPOINT][0] == "web"
    assert witnesses.endpoints[hexid("e")[:12]][0] == "old"


@given(st.lists(st.tuples(st.text(max_size=200), st.integers(-(2**70), 2**70) | st.none())))
def test_any_line_is_read(rows: list[tuple[str, int | None]]) -> None:
    lines = [
        DaemonLogLine(
            time, "", "", None, "", f"{text} ep=a eid={ENDPOINT} container={WEB}", "", "", "", "", Origin("l")
        )
        for text, time in rows
    ]
    facts = Witnesses(lines, [HostCommand(1, "", "", text, "", Origin("h")) for text, _ in rows]).facts({})
    assert set(facts) <= {WEB}


def test_times_are_written_as_docker_writes_them() -> None:
    assert iso(nanoseconds(3.5)) == "2026-11-21T16:00:03.5Z"
    assert iso(nanoseconds(10)) == "2026-11-21T16:00:10Z"
    assert iso(None) == ""
