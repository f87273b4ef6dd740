"""What an examiner should look at first, secrets masked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forensics_lib.engines.container_parts import ContainerParts, ContainerState, Mount
from forensics_lib.engines.findings import Finding, findings_of, mask
from forensics_lib.model import Origin
from tests.engines.docker.rootmaker import RootMaker

CONFIG, HOST = Origin("config"), Origin("host")
PLAIN = ContainerParts("1" * 64, "web", "acme/web", "sha256:1", 0, ContainerState.EXITED, "", CONFIG)


def findings(**changes: Any) -> list[Finding]:
    return list(findings_of(replace(PLAIN, **changes), CONFIG, HOST))


def kinds(**changes: Any) -> list[str]:
    return [finding.kind for finding in findings(**changes)]


def test_an_ordinary_container_has_none() -> None:
    assert kinds(
        path="nginx",
        args=("-g", "daemon off;"),
        env=("PATH=/usr/bin", "NGINX_VERSION=1.25", "KEYBOARD=de", "EMPTY_PASSWORD="),
        mounts=(Mount("volume", "/var/lib/docker/volumes/x/_data", "/data"), Mount("bind", "/srv/site", "/site")),
        network_mode="bridge", pid_mode="", ipc_mode="private", uts_mode="", userns_mode="",
        cap_drop=("ALL",), security_opt=("no-new-privileges", "seccomp=/etc/profile.json", "label=type:x"),
    ) == []  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"privileged": True}, "privileged", "root"),
        ({"network_mode": "host"}, "host-namespace", "network"),
        ({"pid_mode": "host"}, "host-namespace", "pid"),
        ({"ipc_mode": "host"}, "host-namespace", "ipc"),
        ({"uts_mode": "host"}, "host-namespace", "uts"),
        ({"userns_mode": "host"}, "host-namespace", "user namespace"),
        ({"cap_add": ("SYS_ADMIN",)}, "capability-added", "strong capability SYS_ADMIN"),
        ({"cap_add": ("cap_sys_ptrace",)}, "capability-added", "strong capability cap_sys_ptrace"),
        ({"cap_add": ("ALL",)}, "capability-added", "strong capability ALL"),
        ({"cap_add": ("CHOWN",)}, "capability-added", "capability CHOWN"),
        ({"security_opt": ("seccomp=unconfined",)}, "protection-disabled", "seccomp is unconfined"),
        ({"security_opt": ("apparmor:unconfined",)}, "protection-disabled", "apparmor is unconfined"),
        ({"security_opt": ("label=disable",)}, "protection-disabled", "label is disable"),
        ({"devices": ("/dev/sda:/dev/sda:rwm",)}, "device", "/dev/sda"),
    ],
)
def test_rights(changes: dict[str, Any], kind: str, words: str) -> None:
    (finding,) = findings(**changes)
    assert (finding.kind, finding.origin) == (kind, HOST)
    assert words in finding.detail


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("/", "host-root-mounted"),
        ("/var/run/docker.sock", "socket-mounted"),
        ("/run/user/1000/podman.sock", "socket-mounted"),
        ("/var/run", "socket-mounted"),
        ("/etc", "host-path-mounted"),
        ("/etc/shadow", "host-path-mounted"),
        ("/root/.ssh", "host-path-mounted"),
        ("/var/lib/docker", "host-path-mounted"),
        ("/proc", "host-path-mounted"),
    ],
)
@pytest.mark.parametrize(("read_only", "access"), [(True, "read-only"), (False, "read and write")])
def test_mounts(source: str, kind: str, read_only: bool, access: str) -> None:
    (finding,) = findings(mounts=(Mount("bind", source, "/mnt", read_only=read_only),))
    assert (finding.kind, finding.detail, finding.origin) == (kind, f"{source} at /mnt, {access}", CONFIG)


@pytest.mark.parametrize(
    "mount", [Mount("tmpfs", "", "/etc"), Mount("volume", "/etc", "/x"), Mount("bind", "/etcetera", "/x")]
)
def test_mounts_of_no_interest(mount: Mount) -> None:
    assert kinds(mounts=(mount,)) == []


SECRETS = [
    ("DB_PASSWORD", "hunter2-hunter2"),
    ("MYSQL_ROOT_PASSWORD", "short"),
    ("API_KEY", "0123456789abcdef"),
    ("GITHUB_TOKEN", "ghp_" + "a" * 36),
    ("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
    ("anything", "AKIA" + "ABCDEFGHIJKLMNOP"),
    ("anything", "-----BEGIN RSA PRIVATE KEY-----\nMIIE"),
    ("DATABASE_URL", "postgres://app:s3cret-pw@db/app"),
]


@pytest.mark.parametrize(("name", "value"), SECRETS)
def test_secrets_in_the_environment_are_masked(name: str, value: str) -> None:
    (finding,) = findings(env=(f"{name}={value}",))
    assert (finding.kind, finding.origin) == ("secret-in-environment", CONFIG)
    assert finding.detail.startswith(f"{name}=")
    assert value not in finding.detail
    assert value[2:] not in finding.detail


@pytest.mark.parametrize(
    "value", [value for name, value in SECRETS if name in ("anything", "GITHUB_TOKEN", "DATABASE_URL")]
)
def test_secrets_in_the_command_are_masked(value: str) -> None:
    (finding,) = findings(path="tool", args=("--connect", value))
    assert finding.kind == "secret-in-command"
    assert value[2:] not in finding.detail


@pytest.mark.parametrize(
    ("secret", "shown"),
    [
        ("", "********"),
        ("1234567", "********"),
        ("12345678", "12****** (8 characters)"),
        ("p" * 40, "pp****** (40 characters)"),
    ],
)
def test_mask(secret: str, shown: str) -> None:
    assert mask(secret) == shown


@given(st.text(min_size=3))
def test_a_mask_never_shows_more_than_two_characters(secret: str) -> None:
    shown = secret[:2] if len(secret) >= 8 else ""
    assert mask(secret).startswith(f"{shown}******")
    assert set(mask(secret)[len(shown) :].partition(" ")[0]) == {"*"}


def test_the_gravest_first_with_the_files_that_say_so(tmp_path: Path) -> None:
    root = RootMaker()
    web = root.container(
        "web",
        host={"Privileged": True, "CapAdd": ["NET_ADMIN"]},
        Config={"Env": ["DB_PASSWORD=correct horse battery"]},
        MountPoints={"/host": {"Type": "bind", "Source": "/", "Destination": "/host", "RW": True}},
    )
    with root.opened(tmp_path, strict=True) as ev:
        rows = [(row.kind, str(row.origin).rpartition("/")[2]) for row in ev.container(web).findings]
        assert rows == [
            ("privileged", "hostconfig.json"),
            ("host-root-mounted", "config.v2.json"),
            ("capability-added", "hostconfig.json"),
            ("secret-in-environment", "config.v2.json"),
        ]
        assert "horse" not in repr(list(ev.container(web).findings))


TEXTS = st.text(max_size=12)


@given(st.lists(TEXTS, max_size=3), st.lists(TEXTS, max_size=3), st.lists(TEXTS, max_size=2))
def test_any_setting(env: list[str], options: list[str], args: list[str]) -> None:
    for finding in findings(env=tuple(env), security_opt=tuple(options), cap_add=tuple(options), args=tuple(args)):
        assert finding.kind
