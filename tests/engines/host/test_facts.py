from __future__ import annotations

import json
import struct
from base64 import b64encode
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import forensics_lib as fl
from forensics_lib.engines.findings import masked_text
from forensics_lib.engines.host.fact import HostFact
from forensics_lib.engines.host.facts import host_facts
from forensics_lib.model import ProblemLog
from tests.engines.host.hosts import WRITTEN, host_at, write

PASSWORD = b64encode(b"ana:correct horse").decode()
UNIT = "[Service]\nExecStart=/usr/bin/dockerd -H fd://\nEnvironment=HTTP_PROXY=http://u:longpassword@proxy:3128\nType=notify\n"
FILES: dict[str, str | bytes] = {
    "etc/hostname": "build7\n",
    "etc/machine-id": "0123456789abcdef0123456789abcdef\n",
    "etc/timezone": "Europe/Vienna\n",
    "etc/os-release": 'NAME="Debian"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
    "etc/passwd": "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534::/:/usr/sbin/nologin\n"
    "ana:x:1000:1000::/home/ana:/bin/zsh\nci:x:998:998::/var/lib/ci:/usr/sbin/nologin\n",
    "etc/group": "root:x:0:\ndocker:x:998:ana,bob\n",
    "etc/sudoers.d/ops": "# docker\nbob ALL=(root) NOPASSWD: /usr/bin/docker\n",
    "home/ana/.docker/config.json": json.dumps(
        {
            "auths": {"registry.example": {"auth": PASSWORD}, "other.example": {}},
            "credHelpers": {"third.example": "pass"},
            "proxies": {"default": {"httpProxy": "http://u:longpassword@proxy:3128"}},
            "HttpHeaders": {"X-Auth": "secret-header"},
        }
    ),
    "var/lib/ci/.dockercfg": json.dumps({"old.example": {"auth": PASSWORD, "email": "x"}}),
    "home/ana/.docker/buildx/refs/default/default/ref1": json.dumps(
        {"LocalPath": "/src/app", "DockerfilePath": "/src/app/Dockerfile"}
    ),
    "etc/docker/daemon.json": json.dumps(
        {
            "data-root": "/srv/docker",
            "insecure-registries": ["a.example", "b.example"],
            "live-restore": True,
            "proxies": {"http-proxy": "http://u:longpassword@proxy:3128"},
            "authorization-plugins": ["opa"],
            "log-opts": {"splunk-token": "abcdefgh-token"},
        }
    ),
    "etc/default/docker": "# a comment\nDOCKER_OPTS=--insecure-registry=x\n",
    "lib/systemd/system/docker.service": UNIT,
    "etc/systemd/system/docker.service.d/proxy.conf": UNIT.replace("ExecStart", "#"),
    "etc/systemd/system/miner.service": "[Service]\nExecStart=/usr/bin/docker run --rm evil/miner\nUser=root\n",
    "etc/systemd/system/other.service": "[Service]\nExecStart=/usr/bin/true\n",
    "etc/containers/systemd/web.container": "[Container]\nImage=acme/web:1\nEnvironment=DB_PASSWORD=hunter2x\n",
    "etc/crontab": "# docker\n0 3 * * * root docker system prune -f\n5 4 * * * root true\n",
    "var/spool/cron/crontabs/ana": "@daily podman pull x\n",
    "var/lib/dpkg/status": "Package: docker.io\nStatus: installed\nVersion: 20.10.24\n\nPackage: zlib\nVersion: 1\n",
    "var/log/dpkg.log.1": "2025-11-20 10:00:00 install docker.io:amd64 <none> 20.10.24\n"
    "2025-11-20 10:00:01 status installed docker.io:amd64 20.10.24\n2025-11-20 10:00:02 install zlib <none> 1\n",
    "var/log/dpkg.log": "2025-11-21 10:00:00 upgrade runc:amd64 1.1.4 1.1.5\n",
    "lib/apk/db/installed": "P:containerd\nV:1.7.0-r0\n\nP:musl\nV:1\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "host", FILES)


def facts(folder: Path) -> tuple[list[HostFact], ProblemLog]:
    host, _, problems = host_at(folder)
    return list(host_facts(host)), problems


def of(found: list[HostFact], kind: str) -> list[tuple[str, str]]:
    return [(fact.name, fact.value) for fact in found if fact.kind == kind]


def test_who_it_was(folder: Path) -> None:
    found, problems = facts(folder)
    assert of(found, "hostname") == [("", "build7")]
    assert of(found, "machine-id") == [("", "0123456789abcdef0123456789abcdef")]
    assert of(found, "os") == [("", "Debian GNU/Linux 12 (bookworm)")]
    assert of(found, "time zone") == [("", "Europe/Vienna")]
    assert [name for name, _ in of(found, "user")] == ["root", "ana"]
    assert [name for name, _ in of(found, "docker group")] == ["ana", "bob", "ci"]
    assert of(found, "sudo rule") == [("ops", "bob ALL=(root) NOPASSWD: /usr/bin/docker")]
    assert of(found, "package") == [("docker.io", "20.10.24"), ("containerd", "1.7.0-r0")]
    changes = [(fact.name, fact.value, fact.time_ns) for fact in found if fact.kind == "package change"]
    assert changes == [
        ("docker.io", "install 20.10.24", 1_763_629_200 * 10**9),  # ten o'clock in Vienna
        ("runc", "upgrade 1.1.4 to 1.1.5", 1_763_715_600 * 10**9),
    ]
    assert problems.rows == []


def test_a_zone_by_its_link(folder: Path) -> None:
    (folder / "etc/localtime").symlink_to("../usr/share/zoneinfo/Asia/Tokyo")
    assert of(facts(folder)[0], "time zone") == [("", "Asia/Tokyo")]


def test_passwords_of_registries_are_masked(folder: Path) -> None:
    found, _ = facts(folder)
    assert of(found, "registry login") == [
        ("ana at registry.example", "ana, password co****** (13 characters)"),
        ("ana at other.example", "no password stored"),
        ("ana at third.example", "kept by the helper pass"),
        ("ci at old.example", "ana, password co****** (13 characters)"),
    ]
    assert of(found, "client setting") == [
        ("ana: proxies.default.httpProxy", "http://u:lo****** (12 characters)@proxy:3128"),
        ("ana: HttpHeaders.X-Auth", "se****** (13 characters)"),
    ]
    for secret in ("correct horse", "longpassword", "secret-header", "hunter2x", "abcdefgh-token"):
        assert secret not in repr(found)


def test_how_the_engines_were_set_up(folder: Path) -> None:
    found, _ = facts(folder)
    assert of(found, "daemon setting") == [
        ("data-root", "/srv/docker"),
        ("insecure-registries", "a.example"),
        ("insecure-registries", "b.example"),
        ("live-restore", "true"),
        ("proxies.http-proxy", "http://u:lo****** (12 characters)@proxy:3128"),
        ("authorization-plugins", "opa"),
        ("log-opts.splunk-token", "ab****** (14 characters)"),
        ("docker", "DOCKER_OPTS=--insecure-registry=x"),
    ]
    proxy = "HTTP_PROXY=http://u:lo****** (12 characters)@proxy:3128"
    assert of(found, "unit setting") == [
        ("docker.service: Environment", proxy),
        ("miner.service: ExecStart", "/usr/bin/docker run --rm evil/miner"),
        ("docker.service: ExecStart", "/usr/bin/dockerd -H fd://"),
        ("docker.service: Environment", proxy),
        ("web.container", "Image=acme/web:1"),
        ("web.container", "Environment=DB_PASSWORD=hu****** (8 characters)"),
    ]
    assert of(found, "cron") == [
        ("crontab", "0 3 * * * root docker system prune -f"),
        ("ana", "@daily podman pull x"),
    ]
    assert of(found, "build folder") == [("ana: ref1", "/src/app, /src/app/Dockerfile")]
    (row,) = [fact for fact in found if fact.kind == "cron" and fact.name == "crontab"]
    assert row.time_ns == WRITTEN * 10**9
    assert str(row.origin).endswith("etc/crontab > line @9")


def test_starts_and_logins(folder: Path) -> None:
    form = struct.Struct("<hxxi32s4s32s256shhiii16s20x")

    def record(kind: int, line: bytes, user: bytes, host: bytes, seconds: int) -> bytes:
        return form.pack(kind, 1, line, b"", user, host, 0, 0, 0, seconds, 0, b"")

    wtmp = record(2, b"~", b"reboot", b"6.1.0-40", 1_700_000_000) + record(
        7, b"pts/0", b"ana", b"192.0.2.7", 1_700_000_100
    )
    wtmp += record(8, b"pts/0", b"", b"", 1_700_000_150) + record(1, b"~~", b"shutdown", b"6.1.0-40", 1_700_000_200)
    lastlog = (
        bytes(292 * 1000)
        + (1_700_000_100).to_bytes(4, "little")
        + b"pts/0".ljust(32, b"\0")
        + b"192.0.2.7".ljust(256, b"\0")
    )
    write(folder, {"var/log/wtmp": wtmp, "var/log/lastlog": lastlog})
    found, problems = facts(folder)
    rows = [
        (f.kind, f.name, f.value, f.time_ns) for f in found if f.kind in ("boot", "shutdown", "login", "last login")
    ]
    assert rows == [
        ("boot", "reboot", "kernel 6.1.0-40", 1_700_000_000 * 10**9),
        ("login", "ana", "pts/0 from 192.0.2.7, process 1", 1_700_000_100 * 10**9),
        ("shutdown", "shutdown", "kernel 6.1.0-40", 1_700_000_200 * 10**9),
        ("last login", "ana", "pts/0 from 192.0.2.7", 1_700_000_100 * 10**9),
    ]
    assert problems.rows == []


def test_damaged_files_are_problems(folder: Path) -> None:
    (folder / "home/ana/.docker/config.json").write_text("{")
    (folder / "etc/docker/daemon.json").write_bytes(b"\xff")
    (folder / "etc/crontab").unlink()
    (folder / "etc/crontab").symlink_to("/etc/passwd")  # of the evidence, not of the examiner
    found, problems = facts(folder)
    assert len(problems.rows) == 2
    assert [name for name, _ in of(found, "registry login")] == ["ci at old.example"]


def test_the_evidence_answers(folder: Path) -> None:
    with fl.open(folder) as ev:
        assert ev.host.where(kind="hostname")[0].value == "build7"
        assert [row.kind for row in ev.host][:2] == ["hostname", "machine-id"]
        assert [len(table) for table in (ev.commands, ev.daemon_log, ev.audit, ev.journal())] == [0, 0, 0, 0]


def test_a_host_below_the_top_of_a_copy(folder: Path) -> None:
    with fl.open(folder.parent) as ev:
        assert [row.value for row in ev.host.where(kind="hostname")] == ["build7"]
        assert str(ev.host[0].origin).endswith("host/etc/hostname")


def test_an_image_has_no_host() -> None:
    with fl.open(Path(__file__).parents[3] / "fixtures" / "web.tar") as ev:
        assert [len(table) for table in (ev.host, ev.commands, ev.daemon_log, ev.audit, ev.journal())] == [0] * 5


@given(st.text())
def test_any_text_can_be_masked(text: str) -> None:
    masked_text(text)
    assert "hunter2lab" not in masked_text(f"{text} PASSWORD=hunter2lab".replace("'", "").replace('"', ""))
