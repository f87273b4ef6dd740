from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forensics_lib.formats.log_record import split_lines
from forensics_lib.formats.shell_history import TypedCommand, read_history


def read(data: bytes, shell: str) -> list[TypedCommand]:
    return list(read_history(((offset, line) for offset, line, _ in split_lines([data])), shell))


def test_bash() -> None:
    found = read(b"ls\n#1700000000\ndocker ps\n\n# a comment\n#1700000001\ndocker \\\n run\n", "bash")
    assert found == [
        TypedCommand(b"ls", None, 0),
        TypedCommand(b"docker ps", 1_700_000_000 * 10**9, 15),
        TypedCommand(b"# a comment", None, 26),
        TypedCommand(b"docker \\", 1_700_000_001 * 10**9, 50),
        TypedCommand(b" run", None, 59),
    ]


def test_zsh() -> None:
    data = b": 1700000100:0;kubectl get pods\nplain\n: 1700000200:3;docker run \\\\\n --rm x\necho \x83\xa3\n"
    assert read(data, "zsh") == [
        TypedCommand(b"kubectl get pods", 1_700_000_100 * 10**9, 0),
        TypedCommand(b"plain", None, 32),
        TypedCommand(b"docker run \\\n --rm x", 1_700_000_200 * 10**9, 38),
        TypedCommand(b"echo \x83", None, 75),
    ]


def test_fish() -> None:
    data = b"- cmd: docker ps\n  when: 1700000000\n  paths:\n    - /x\n- cmd: echo a\\nb \\\\n\n"
    data += b"- cmd: last\n  when: 1700000001\n"
    assert read(data, "fish") == [
        TypedCommand(b"docker ps", 1_700_000_000 * 10**9, 0),
        TypedCommand(b"echo a\nb \\n", None, 54),
        TypedCommand(b"last", 1_700_000_001 * 10**9, 75),
    ]


@given(st.binary(max_size=300), st.sampled_from(["bash", "zsh", "fish", "sh"]))
def test_any_bytes(junk: bytes, shell: str) -> None:
    for found in read(junk, shell):
        assert 0 <= found.offset < len(junk)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_an_empty_history(shell: str) -> None:
    assert read(b"", shell) == []
