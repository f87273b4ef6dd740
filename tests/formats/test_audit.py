from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forensics_lib.formats.audit import AuditGroup, AuditRecord, join_records, parse_record
from forensics_lib.model import Origin
from tests.samples import FIXTURES, archive_tree

HOST = FIXTURES / "host" / "host.tar.zst"
ORIGIN = Origin("audit.log")
LOGS = ("audit.log.1", "audit.log")  # raw, enriched


def records(data: bytes) -> list[AuditRecord]:
    found = [parse_record(line, ORIGIN) for line in data.splitlines()]
    assert None not in found
    return [record for record in found if record is not None]


@pytest.fixture(scope="module")
def host() -> dict[str, bytes]:
    with archive_tree(HOST) as tree:
        logs = {f"{name}": tree.read(f"/host/var/log/audit/{name}") for name in LOGS}
        return logs | {f"{name}.txt": tree.read(f"/truth/{name}.txt") for name in LOGS}


@pytest.mark.parametrize("name", LOGS)
def test_commands_are_what_ausearch_shows(host: dict[str, bytes], name: str) -> None:
    said = re.findall(rb"^type=EXECVE msg=audit\([^)]*:(\d+)\) : argc=\d+ (.*?) ?$", host[f"{name}.txt"], re.MULTILINE)
    groups = [group for group in join_records(records(host[name])) if group.arguments]
    whole = {
        int(serial): b" ".join(arguments.split(b" ")).decode()
        for serial, arguments in said
        if b"_len=" not in arguments
    }
    mine = {
        group.key[1]: " ".join(f"a{number}={value}" for number, value in enumerate(group.arguments)) for group in groups
    }
    assert len(whole) >= 17
    assert {serial: mine[serial] for serial in whole if serial in mine} == {
        serial: text for serial, text in whole.items() if serial in mine
    }
    assert len(mine) == 18
    long = next(group.arguments for group in groups if len("".join(group.arguments)) > 9000)
    assert long == ("docker", "run", "--rm", "--network", "none", "lab/base:1", "echo", "x" * 9000)


@pytest.mark.parametrize("name", LOGS)
def test_titles_are_what_ausearch_shows(host: dict[str, bytes], name: str) -> None:
    said = re.findall(
        rb"^type=PROCTITLE msg=audit\([^)]*:(\d+)\) : proctitle=(.*?) ?$", host[f"{name}.txt"], re.MULTILINE
    )
    mine = [(r.serial, r.get("proctitle").rstrip()) for r in records(host[name]) if r.type == "PROCTITLE"]
    assert mine == [(int(serial), title.decode().rstrip()) for serial, title in said]


def test_an_enriched_log_has_names(host: dict[str, bytes]) -> None:
    (call,) = [r for r in records(host["audit.log"]) if r.type == "SYSCALL" and r.get("key") == "inside"]
    assert dict(call.names)["SYSCALL"] == "execve"
    assert (call.get("uid"), call.get("comm"), call.get("exe")) == ("12345", "sh", "/bin/busybox")


def test_a_message_inside_the_message() -> None:
    line = b"""node=h type=USER_CMD msg=audit(1700000300.123:46): pid=1 auid=1000 msg='cwd="/root" """
    line += b"""cmd=646F636B6572207073 exe="/usr/bin/sudo" terminal=pts/0 res=success'\x1dUID="ana" AUID="ana\""""
    record = parse_record(line, ORIGIN)
    assert record is not None
    assert (record.type, record.time_ns, record.serial, record.node) == ("USER_CMD", 1_700_000_300_123_000_000, 46, "h")
    assert (record.get("cmd"), record.get("cwd"), record.get("res")) == ("docker ps", "/root", "success")
    assert record.names == (("UID", "ana"), ("AUID", "ana"))


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        (b'key="docker"', "key", "docker"),
        (b"key=646F636B657201657865", "key", "docker, exe"),
        (b"key=(null)", "key", ""),
        (b"proctitle=646F636B6572007073", "proctitle", "docker ps"),
        (b'name="CAFE"', "name", "CAFE"),
        (b"exit=12", "exit", "12"),
        (b"name=C3BC", "name", "ü"),
        (b"name=FF", "name", "\\xff"),
        (b'comm="not closed', "comm", "not closed"),
    ],
)
def test_values(text: bytes, field: str, value: str) -> None:
    record = parse_record(b"type=PATH msg=audit(1700000300.123:45): item=0 " + text, ORIGIN)
    assert record is not None
    assert record.get(field) == value


def line(kind: str, serial: int, text: str = "", second: int = 300) -> AuditRecord:
    record = parse_record(f"type={kind} msg=audit(1700000{second}.123:{serial}): {text}".encode(), ORIGIN)
    assert record is not None
    return record


def test_events_are_joined_though_others_lie_between() -> None:
    found = list(
        join_records(
            [
                line("SYSCALL", 1),
                line("SYSCALL", 2),
                line("EXECVE", 1, 'argc=3 a0="a" a1_len=4 a1[0]=6262 a1[1]=6363'),
                line("EXECVE", 1, "a2=64"),
                line("EOE", 2),
                line("PROCTITLE", 1),
                line("SYSCALL", 9, second=399),
            ]
        )
    )
    assert [(group.key[1], [r.type for r in group.records]) for group in found] == [
        (2, ["SYSCALL"]),
        (1, ["SYSCALL", "EXECVE", "EXECVE", "PROCTITLE"]),
        (9, ["SYSCALL"]),
    ]
    assert found[1].arguments == ("a", "bbcc", "d")
    assert found[1].first("PATH", "PROCTITLE") is found[1].records[3]
    assert found[0].first("EXECVE") is None


def test_events_without_end_are_handed_out() -> None:
    many = list(join_records(line("SYSCALL", serial) for serial in range(1000)))
    assert [group.key[1] for group in many] == list(range(1000))


@pytest.mark.parametrize("junk", [b"", b"type=SYSCALL", b"type=SYSCALL msg=audit(x:1): a=b", b"\0" * 40])
def test_what_is_no_record(junk: bytes) -> None:
    assert parse_record(junk, ORIGIN) is None


@given(st.binary(max_size=300))
def test_any_bytes(junk: bytes) -> None:
    parse_record(junk, ORIGIN)
    record = parse_record(b"type=EXECVE msg=audit(1700000300.123:45): " + junk.replace(b"\n", b""), ORIGIN)
    assert record is not None
    assert len(AuditGroup((0, 0, ""), [record]).arguments) <= 32_768
