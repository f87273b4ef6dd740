from __future__ import annotations

from pathlib import Path

import forensics_lib as fl
from forensics_lib.engines.host.audit import AuditEvent, audit_events
from forensics_lib.model import ProblemLog
from tests.engines.host.hosts import host_at, write
from tests.formats.journals import journal
from tests.formats.test_audit import HOST


def read(folder: Path) -> tuple[list[AuditEvent], ProblemLog]:
    host, journals, problems = host_at(folder)
    return list(audit_events([host], journals)), problems


def call(serial: int, pid: int, ppid: int, exe: str, more: str = "") -> str:
    text = f'success=yes ppid={ppid} pid={pid} auid=1000 uid=0 tty=pts0 comm="x" exe="{exe}" {more}'
    return f"type=SYSCALL msg=audit(1700000300.123:{serial}): {text}\n"


def test_events_of_containers() -> None:
    with fl.open(HOST) as ev:
        events = list(ev.audit)
        assert list(ev.problems) == []
    raw, enriched = events[:18], events[18:]
    assert len(enriched) == 18
    first, second = raw[0], enriched[0]
    assert first.arguments == second.arguments
    assert first.arguments[:4] == ("docker", "run", "--rm", "--network")
    assert (first.exe, first.cwd, first.key, first.success) == ("/usr/bin/docker", "/root", "docker", True)
    assert (first.user, second.user, first.uid, second.uid) == ("1", "daemon", "root", "root")
    assert "s3cr3t-lab" in raw[1].arguments[8]
    assert "s3cr3t" not in repr(fl.Table(AuditEvent, raw))
    (inside,) = [event for event in enriched if event.key == "inside"]
    assert inside.command == 'sh -c id; echo "$TOKEN"'
    assert inside.reason.startswith("descends from a container's process")
    assert inside.types == ("SYSCALL", "EXECVE", "CWD", "PATH", "PROCTITLE")
    assert "audit.log > line @" in str(inside.origin)


def test_processes_of_containers_are_followed(tmp_path: Path) -> None:
    log = call(1, 100, 1, "/usr/bin/containerd-shim-runc-v2")
    log += call(2, 101, 100, "/bin/sh") + call(3, 102, 101, "/bin/nc") + call(4, 200, 1, "/bin/nc")
    events, problems = read(write(tmp_path, {"var/log/audit/audit.log": log}))
    assert [(event.serial, event.reason) for event in events] == [
        (1, "SYSCALL exe names containerd"),
        (2, "descends from a container's process (100)"),
        (3, "descends from a container's process (101)"),
    ]
    assert (events[1].pid, events[1].ppid, events[1].terminal) == (101, 100, "pts0")
    assert problems.rows == []


def test_security_modules_say_what_is_inside(tmp_path: Path) -> None:
    log = 'type=AVC msg=audit(1700000300.123:5): apparmor="DENIED" operation="open" profile="docker-default" '
    log += 'name="/proc/kcore" pid=7 comm="cat"\n'
    log += "type=AVC msg=audit(1700000300.123:6): avc: denied { read } "
    log += "scontext=system_u:system_r:container_t:s0:c1 tclass=file\n"
    log += (
        "type=AVC msg=audit(1700000300.123:7): avc: denied { read } scontext=system_u:system_r:httpd_t:s0 tclass=file\n"
    )
    events, _ = read(write(tmp_path, {"var/log/audit/audit.log": log}))
    assert [event.reason for event in events] == [
        "profile docker-default",
        "scontext system_u:system_r:container_t:s0:c1",
    ]
    assert events[0].command.startswith("apparmor=DENIED operation=open profile=docker-default name=/proc/kcore")
    assert events[0].time_ns == 1_700_000_300_123_000_000


def test_an_event_over_two_files_is_one(tmp_path: Path) -> None:
    older = call(1, 1, 1, "/usr/bin/docker")
    newer = 'type=EXECVE msg=audit(1700000300.123:1): argc=2 a0="docker" a1="ps"\n'
    events, _ = read(write(tmp_path, {"var/log/audit/audit.log.1": older, "var/log/audit/audit.log": newer}))
    assert [(event.command, event.types) for event in events] == [("docker ps", ("SYSCALL", "EXECVE"))]


def test_sudo(tmp_path: Path) -> None:
    log = 'type=USER_CMD msg=audit(1700000300.123:6): pid=3 uid=1000 auid=4294967295 msg=\'cwd="/root" '
    log += 'cmd=646F636B6572207073 exe="/usr/bin/sudo" terminal=pts/0 res=failed\'\n'
    ((event,), _) = read(
        write(tmp_path, {"var/log/audit/audit.log": log, "etc/passwd": "ana:x:1000:1000::/h:/bin/sh\n"})
    )
    assert (event.command, event.cwd, event.user, event.uid) == ("docker ps", "/root", "", "ana")
    assert (event.terminal, event.success) == ("pts/0", False)


def test_the_journals_records(tmp_path: Path) -> None:
    ((event,), problems) = read(write(tmp_path, {"var/log/journal/m/system.journal": journal("wide-jenkins-xz")}))
    assert (event.serial, event.types, event.reason) == (77, ("AVC",), "profile docker-default")
    assert event.time is not None
    assert problems.rows == []


def test_what_is_no_record_is_a_problem(tmp_path: Path) -> None:
    events, problems = read(
        write(tmp_path, {"var/log/audit/audit.log": "torn line\n\n" + call(1, 1, 1, "/usr/bin/runc")})
    )
    assert len(events) == 1
    assert [problem.message for problem in problems.rows] == ["is no record of the audit log"]
