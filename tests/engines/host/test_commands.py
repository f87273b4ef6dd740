from __future__ import annotations

from pathlib import Path

import pytest

import forensics_lib as fl
from forensics_lib.engines.findings import masked_text
from forensics_lib.engines.host.commands import HostCommand, host_commands
from tests.engines.host.hosts import host_at, write
from tests.formats.journals import journal
from tests.formats.test_audit import HOST

FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/bash\nci:x:998:998::/var/lib/ci:/bin/sh\nx:x:9:9::/:/bin/sh\n",
    "etc/timezone": "UTC\n",
    "root/.bash_history": "ls\n#1700000000\ndocker run -v /:/host alpine\ncat /etc/passwd\n",
    "home/ana/.zsh_history": ": 1700000100:0;kubectl get pods\n: 1700000200:0;vim x\n",
    "home/ana/.local/share/fish/fish_history": "- cmd: podman ps\n  when: 1700000300\n",
    "var/lib/ci/.ash_history": "curl --unix-socket /var/run/docker.sock http://x/containers/json\n",
    "var/log/auth.log": "Nov 21 10:00:06 h sudo:  ana : TTY=pts/0 ; PWD=/home/ana ; COMMAND=/usr/bin/docker ps\n"
    "Nov 21 10:00:07 h sudo:  ana : TTY=pts/0 ; PWD=/home/ana ; COMMAND=/usr/bin/apt update\n"
    "Nov 21 10:00:08 h sudo:  bob : command not allowed ; TTY=pts/1 ; PWD=/ ; COMMAND=/usr/bin/docker rm x\n"
    "Nov 21 10:00:09 h sshd[1]: docker\n",
    "var/log/syslog": "2025-11-21T10:00:00+00:00 h CRON[3]: (root) CMD (docker exec db pg_dump)\n",
}


def read(folder: Path) -> list[HostCommand]:
    host, journals, problems = host_at(folder)
    found = list(host_commands([host], journals))
    assert problems.rows == []
    return found


def test_commands_of_users_sudo_and_cron(tmp_path: Path) -> None:
    found = read(write(tmp_path, FILES))
    assert [(one.user, one.source, one.command[:22], one.time_ns, one.assumed) for one in found] == [
        ("root", "bash", "docker run -v /:/host ", 1_700_000_000 * 10**9, ""),
        ("ci", "sh", "curl --unix-socket /va", None, ""),
        ("ana", "zsh", "kubectl get pods", 1_700_000_100 * 10**9, ""),
        ("ana", "fish", "podman ps", 1_700_000_300 * 10**9, ""),
        ("ana", "sudo", "/usr/bin/docker ps", 1_763_719_206 * 10**9, "year"),
        ("bob", "sudo", "/usr/bin/docker rm x", 1_763_719_208 * 10**9, "year"),
        ("root", "cron", "docker exec db pg_dump", 1_763_719_200 * 10**9, ""),
    ]
    assert str(found[0].origin).endswith("root/.bash_history > line @15")


def test_homes_and_logs_on_file_systems_of_their_own(tmp_path: Path) -> None:
    root = write(tmp_path / "root", {"etc/timezone": "Asia/Tokyo\n", "etc/hostname": "h\n"})
    home = write(tmp_path / "home", {"ana/.bash_history": "docker ps\n", "lost+found/x": "docker\n"})
    var = write(tmp_path / "var", {"log/auth.log": FILES["var/log/auth.log"]})
    hosts = [host_at(one)[0] for one in (root, home, var)]
    found = list(host_commands(hosts, None))
    assert [(one.user, one.source, one.assumed) for one in found] == [
        ("ana", "bash", ""),
        ("ana", "sudo", "year and zone"),
        ("bob", "sudo", "year and zone"),
    ]
    assert found[1].time_ns == 1_763_686_806 * 10**9  # nine hours before the same in UTC


def test_sudo_in_the_journal(tmp_path: Path) -> None:
    (found,) = read(write(tmp_path, {"var/log/journal/m/system.journal": journal("wide-keyed-lz4")}))
    assert (found.user, found.source) == ("root", "sudo")
    assert found.command == "/usr/bin/docker run -v /:/host alpine"
    assert "entry @" in str(found.origin)


def test_what_bash_and_zsh_wrote() -> None:
    with fl.open(HOST) as ev:
        found = list(ev.commands)
        assert "hunter2" not in repr(ev.commands)
    assert [(one.source, one.command) for one in found] == [
        ("bash", "docker ps -a"),
        ("bash", "docker run -v /:/host --rm -it alpine chroot /host"),
        ("bash", "docker login -u ci -p hunter2-lab registry.lab.test"),
        ("zsh", "kubectl get pods -A"),
        ("zsh", "docker exec -it web sh"),
        ("zsh", "docker run \\\n  --privileged ünï alpine"),
    ]
    assert all(one.time is not None for one in found)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("docker login -u x -p hunter2-lab r", "docker login -u x -p hu****** (11 characters) r"),
        ("docker login --password=hunter2-lab", "docker login --password=hu****** (11 characters)"),
        ("docker run -p 8080:80 -e DB_PASSWORD=pa55 x", "docker run -p 8080:80 -e DB_PASSWORD=******** x"),
        ("docker run -e 'TOKEN=a b c d e f' x", "docker run -e 'TOKEN=a ****** (11 characters)' x"),
        ("http://u:longpassword@proxy:3128", "http://u:lo****** (12 characters)@proxy:3128"),
        ("PROXY_AUTH=http://u:longpassword@proxy", "PROXY_AUTH=http://u:lo****** (12 characters)@proxy"),
        (
            "kubectl create secret --from-literal=password=hunter2x",
            "kubectl create secret --from-literal=password=hu****** (8 characters)",
        ),
        ("run -e TOKEN=\"a 'b' c d\" x", 'run -e TOKEN="a ****** (9 characters)" x'),
        ("run -e TOKEN='not closed", "run -e TOKEN='no****** (10 characters)"),
        ("docker ps -a", "docker ps -a"),
    ],
)
def test_secrets_are_masked(text: str, shown: str) -> None:
    assert masked_text(text) == shown
