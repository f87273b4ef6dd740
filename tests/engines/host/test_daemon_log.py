from __future__ import annotations

import gzip
import lzma
import struct
from datetime import UTC, datetime
from pathlib import Path

import pytest

import forensics_lib as fl
from forensics_lib.engines.host.daemon_log import DaemonLogLine, daemon_log
from forensics_lib.model import ProblemLog
from tests.engines.host.hosts import host_at, write
from tests.formats.journals import journal
from tests.formats.test_audit import HOST

CONTAINER = "5c" * 32
SYSLOG = f"""\
Nov 21 10:00:00 build7 dockerd[77]: time="2025-11-21T09:00:00.123456789Z" level=warning msg="gone" container={CONTAINER}
Nov 21 10:00:01 build7 cron[1]: docker is not meant here
Nov 21 10:00:02 build7 systemd[1]: docker-{CONTAINER}.scope: Deactivated successfully.
Nov 21 10:00:03 build7 kernel: [ 12.1] docker0: port 1(veth6823d93) entered disabled state
Nov 21 10:00:04 build7 kernel: [ 12.2] usb 1-1: new device
Nov 21 10:00:05 build7 containerd-shim-runc-v2: starting signal loop
no line of a log
Nov 21 10:00:06 build7 sudo: root : TTY=pts/0 ; PWD=/root ; USER=root ; COMMAND=/usr/bin/docker ps
"""


def read(folder: Path) -> tuple[list[DaemonLogLine], ProblemLog]:
    host, journals, problems = host_at(folder)
    return list(daemon_log([host], journals)), problems


def moment(line: DaemonLogLine) -> str:
    return f"{line.time:%Y-%m-%d %H:%M:%S}" if line.time is not None else ""


def test_lines_of_daemons_and_about_them(tmp_path: Path) -> None:
    lines, problems = read(write(tmp_path, {"var/log/syslog": SYSLOG, "etc/timezone": "Europe/Vienna\n"}))
    assert [(line.program, line.pid, line.level, moment(line), line.assumed) for line in lines] == [
        ("dockerd", 77, "warning", "2025-11-21 09:00:00", ""),  # its own time is exact
        ("systemd", 1, "", "2025-11-21 09:00:02", "year"),
        ("kernel", None, "", "2025-11-21 09:00:03", "year"),
        ("containerd-shim-runc-v2", None, "", "2025-11-21 09:00:05", "year"),
    ]
    assert lines[0].time_ns == 1_763_715_600_123_456_789
    assert [line.container_id for line in lines] == [CONTAINER, CONTAINER, "", ""]
    assert {line.host for line in lines} == {"build7"}
    assert str(lines[1].origin).endswith(f"var/log/syslog > line @{SYSLOG.index('Nov 21 10:00:02')}")
    assert problems.rows == []


def test_a_copy_of_the_log_folder_alone(tmp_path: Path) -> None:
    lines, problems = read(write(tmp_path, {"syslog": SYSLOG, "journal/m/system.journal": journal("wide-jenkins-xz")}))
    assert [line.source for line in lines] == ["journal"] * 3 + ["syslog"] * 4
    assert problems.rows == []


def test_what_is_not_known_of_the_time_is_said(tmp_path: Path) -> None:
    files = {
        "var/log/syslog": "Nov 21 10:00:00 h dockerd[1]: x\n",
        "var/log/docker.log": "2014/01/02 03:04:05 GET /v1.8\n",
    }
    lines, _ = read(write(tmp_path, files))
    assert [(moment(line), line.assumed) for line in lines] == [
        ("2025-11-21 10:00:00", "year and zone"),
        ("2014-01-02 03:04:05", "zone"),
    ]


def test_years_of_rotated_logs(tmp_path: Path) -> None:
    """By the date in the name, by the time in gzip's header, by the file's own time; with the turn of the year."""
    files: dict[str, str | bytes] = {
        "var/log/syslog": "Dec 30 10:00:00 h dockerd[1]: a\nJan  2 10:00:00 h dockerd[1]: b\n",
        "var/log/syslog.1": "Dec 20 10:00:00 h dockerd[1]: c\n",
        "var/log/syslog.2.gz": gzip.compress(b"Dec 10 10:00:00 h dockerd[1]: d\n", mtime=1_670_700_000),
        "var/log/messages-20240105.xz": lzma.compress(
            b"Dec 31 23:00:00 h dockerd[1]: e\nJan  4 0:00:00 h x: dockerd\n"
        ),
        "var/log/messages-2024-01-12": "Jan 11 10:00:00 h dockerd[1]: f\n",
        "var/log/syslog.old.swp": "Jan 11 10:00:00 h dockerd[1]: no log\n",
    }
    lines, problems = read(write(tmp_path, files, written=1_767_400_000))  # 3 January 2026
    assert [(line.message, moment(line)[:10]) for line in lines] == [
        ("e", "2023-12-31"),
        ("f", "2024-01-11"),
        ("d", "2022-12-10"),
        ("c", "2025-12-20"),
        ("a", "2025-12-30"),
        ("b", "2026-01-02"),
    ]
    assert problems.rows == []


def test_the_zone_of_the_evidence_is_used(tmp_path: Path) -> None:
    zone = struct.pack(">4sc15x6l", b"TZif", b"\0", 0, 0, 0, 0, 1, 4) + struct.pack(">lbb", 7200, 0, 0) + b"LAB\0"
    lines, problems = read(
        write(tmp_path, {"etc/localtime": zone, "var/log/syslog": "Nov 21 10:00:00 h dockerd[1]: x\n"})
    )
    assert [(moment(line), line.assumed) for line in lines] == [("2025-11-21 08:00:00", "year")]
    assert problems.rows == []


def test_a_zone_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        "etc/localtime": b"TZif",
        "etc/timezone": "Mars/Base",
        "var/log/syslog": "Nov 21 10:00:00 h dockerd: x\n",
    }
    lines, problems = read(write(tmp_path, files))
    assert lines[0].assumed == "year and zone"
    assert len(problems.rows) == 2


def test_a_daemons_own_log_is_taken_whole(tmp_path: Path) -> None:
    log = 'time="2025-11-21T09:00:00Z" level=fatal msg="no space"\npanic: runtime error\n\n'
    lines, _ = read(write(tmp_path, {"var/log/docker.log": log, "var/log/upstart/docker.log.1": log}))
    assert [(line.program, line.level, line.message[:5], line.time is None) for line in lines] == [
        ("docker", "fatal", "time=", False),
        ("docker", "", "panic", True),
    ] * 2


def test_the_journals_lines_but_not_what_containers_wrote(tmp_path: Path) -> None:
    lines, problems = read(write(tmp_path, {"var/log/journal/m/system.journal": journal("compact-keyed-zstd")}))
    assert [(line.program, line.unit, line.level, line.source) for line in lines] == [
        ("systemd", "docker.service", "", "journal"),
        ("dockerd", "docker.service", "info", "journal"),
        ("containerd", "", "", "journal"),
    ]
    assert lines[1].pid == 812
    assert lines[1].time == datetime(2025, 10, 9, 8, 53, 20, 1001, tzinfo=UTC)
    assert problems.rows == []


def test_three_forms_of_one_log() -> None:
    with fl.open(HOST) as ev:
        lines = list(ev.daemon_log)
        forms = {
            name: [line for line in lines if name in str(line.origin)] for name in ("syslog", "messages", "daemon.log")
        }
        assert len(forms["syslog"]) == 136
        assert [line.message for line in forms["syslog"]] == [line.message for line in forms["messages"]]
        assert [line.message for line in forms["daemon.log"]] == [line.message for line in forms["messages"]]
        assert [line.time_ns for line in forms["daemon.log"]] == [line.time_ns for line in forms["messages"]]
        for short, full in zip(forms["syslog"], forms["messages"], strict=True):
            assert full.time_ns is not None
            assert short.time_ns is not None
            assert abs(short.time_ns - full.time_ns) < 10**9
            assert full.assumed == ""
        assert {line.assumed for line in forms["syslog"] if "time=" not in line.message} <= {"year"}
        assert list(ev.problems) == []


def test_a_damaged_log_is_a_problem(tmp_path: Path) -> None:
    data = gzip.compress(b"Nov 21 10:00:00 h dockerd[1]: x\n" * 2000)
    lines, problems = read(write(tmp_path, {"var/log/syslog.2.gz": data[:-30], "var/log/syslog": SYSLOG}))
    assert len(lines) > 4
    assert len(problems.rows) == 1


PROGRAMS = """docker dockerd docker-proxy dockerd-rootless.sh containerd containerd-shim-runc-v2 cri-dockerd podman
buildah buildkitd crio cri-o conmon conmonrs kubelet k3s k0s runc crun youki kata-runtime nerdctl crictl
netavark aardvark-dns
rootlesskit slirp4netns fuse-overlayfs kubelet.service"""


def test_no_program_is_passed_over(tmp_path: Path) -> None:
    names = PROGRAMS.split()
    log = "".join(f"2025-11-21T10:00:00Z h {name}[1]: x\n" for name in (*names, "cron", "dockerish", "sshd"))
    lines, _ = read(write(tmp_path, {"var/log/syslog": log}))
    assert [line.program for line in lines] == names


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "America", "a\0b", "\udcff", "x" * 5000, "Europe/Vienna/x"]
)
def test_a_zone_with_a_hostile_name_is_a_problem(tmp_path: Path, name: str) -> None:
    files: dict[str, str | bytes] = {
        "etc/timezone": name.encode("utf-8", "surrogateescape"),
        "var/log/syslog": "Nov 21 10:00:00 h dockerd: x\n",
    }
    lines, problems = read(write(tmp_path, files))
    assert (moment(lines[0]), lines[0].assumed) == ("2025-11-21 10:00:00", "year and zone")
    assert len(problems.rows) == 1
