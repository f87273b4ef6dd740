from __future__ import annotations

import gzip
import json
from base64 import b64encode
from pathlib import Path

import pytest

import forensics_lib as fl
from forensics_lib.engines.host import HostFact, host_facts
from forensics_lib.model import ProblemLog
from forensics_lib.sources.decompress import Limits
from forensics_lib.trees.directory import DirectoryTree
from forensics_lib.trees.documents import DocumentReader

FILES = {
    "etc/hostname": "build7\n",
    "etc/timezone": "Europe/Vienna\n",
    "etc/os-release": 'NAME="Debian"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
    "etc/passwd": "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534::/:/usr/sbin/nologin\n"
    "ana:x:1000:1000::/home/ana:/bin/zsh\n",
    "etc/group": "root:x:0:\ndocker:x:998:ana,bob\n",
    "root/.bash_history": "ls\n#1700000000\ndocker run -v /:/host alpine\ncat /etc/passwd\n",
    "home/ana/.zsh_history": ": 1700000100:0;kubectl get pods\n: 1700000200:0;vim x\n",
    "home/ana/.docker/config.json": json.dumps(
        {"auths": {"registry.example": {"auth": b64encode(b"ana:correct horse").decode()}, "other.example": {}}}
    ),
    "var/log/syslog": "Nov 21 10:00:00 build7 dockerd[77]: level=info msg=started\nNov 21 10:00:01 build7 cron[1]: x\n",
    "var/log/audit/audit.log": 'type=SYSCALL msg=audit(1700000300.123:45): exe="/usr/bin/runc"\n',
}


@pytest.fixture
def host(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "host" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "host/var/log/syslog.2.gz").write_bytes(gzip.compress(b"Nov 20 containerd[5]: older\n"))
    return tmp_path / "host"


def facts(host: Path) -> tuple[list[HostFact], ProblemLog]:
    problems = ProblemLog()
    return list(host_facts(DocumentReader(DirectoryTree(host, problems), problems), Limits())), problems


def of(found: list[HostFact], kind: str) -> list[tuple[str, str, int | None]]:
    return [(fact.name, fact.value, fact.time_ns) for fact in found if fact.kind == kind]


def test_who_it_was(host: Path) -> None:
    found, problems = facts(host)
    assert of(found, "hostname") == [("", "build7", None)]
    assert of(found, "os") == [("", "Debian GNU/Linux 12 (bookworm)", None)]
    assert of(found, "time zone") == [("", "Europe/Vienna", None)]
    assert [name for name, _, _ in of(found, "user")] == ["root", "ana"]
    assert [name for name, _, _ in of(found, "docker group")] == ["ana", "bob"]
    assert problems.rows == []


def test_passwords_of_registries_are_masked(host: Path) -> None:
    found, _ = facts(host)
    logins = of(found, "registry login")
    assert [(name, value) for name, value, _ in logins] == [
        ("ana at registry.example", "ana, password co****** (13 characters)"),
        ("ana at other.example", "no password stored"),
    ]
    assert "correct horse" not in repr(found)


def test_commands_with_the_time_the_shell_noted(host: Path) -> None:
    found, _ = facts(host)
    assert of(found, "shell history") == [
        ("root", "docker run -v /:/host alpine", 1_700_000_000 * 10**9),
        ("ana", "kubectl get pods", 1_700_000_100 * 10**9),
    ]
    line = next(fact for fact in found if fact.value.startswith("docker run"))
    assert str(line.origin).endswith(".bash_history > line @15")


def test_lines_of_the_engines_in_logs_also_compressed_ones(host: Path) -> None:
    found, _ = facts(host)
    assert [(name, value[-11:]) for name, value, _ in of(found, "log")] == [
        ("syslog", "msg=started"),
        ("syslog.2.gz", "d[5]: older"),
    ]
    assert of(found, "audit")[0][2] == 1_700_000_300_123_000_000


def test_damaged_files_are_problems(host: Path) -> None:
    (host / "var/log/syslog.2.gz").write_bytes(gzip.compress(b"Nov 20 containerd[5]: older\n")[:-9])
    (host / "home/ana/.docker/config.json").write_text("{")
    (host / "root/.bash_history").unlink()
    (host / "root/.bash_history").symlink_to("/etc/passwd")
    found, problems = facts(host)
    assert len(problems.rows) == 2
    assert [name for name, _, _ in of(found, "shell history")] == ["ana"]


def test_the_evidence_answers(host: Path) -> None:
    with fl.open(host) as ev:
        assert ev.host.where(kind="hostname")[0].value == "build7"
        assert [row.kind for row in ev.host][:2] == ["hostname", "time zone"]
