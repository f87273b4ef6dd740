"""Histories of shells: what was typed, with its time where the shell noted it.

Formats: bash and others, a command a line, with ``HISTTIMEFORMAT`` behind a line ``#<seconds>``; zsh, with
``EXTENDED_HISTORY`` as ``: <seconds>:<duration>;<command>``, some bytes escaped; fish, ``- cmd: …`` and ``when: …``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

__all__ = ["TypedCommand", "read_history"]

_BASH_TIME = re.compile(rb"#(\d{9,11})\s*")
_ZSH = re.compile(rb": *(\d{9,11}):\d+;(.*)", re.DOTALL)
_FISH = re.compile(rb"- cmd: (.*)", re.DOTALL)
_FISH_TIME = re.compile(rb"\s+when: (\d{9,11})\s*")
_FISH_ESCAPE = re.compile(rb"\\([\\n])")
_META = 0x83
_MAX_COMMAND = 1 << 20


@dataclass(frozen=True, slots=True)
class TypedCommand:
    """One command of a history.

    Attributes:
        command: what was typed.
        time_ns: when, nanoseconds since 1970; None where the shell did not note it.
        offset: where its line starts.
    """

    command: bytes
    time_ns: int | None
    offset: int


def read_history(lines: Iterable[tuple[int, bytes]], shell: str) -> Iterator[TypedCommand]:
    """The commands of a history.

    Args:
        lines: (byte where it starts, line without its newline) of the file.
        shell: ``fish``, ``zsh``, or another for the form of bash.
    """
    if shell == "fish":
        yield from _fish(lines)
        return
    time: int | None = None
    for offset, line in _continued(lines) if shell == "zsh" else lines:
        if stamp := _BASH_TIME.fullmatch(line):
            time = int(stamp[1]) * 10**9
            continue
        if dated := _ZSH.fullmatch(line):
            time, line = int(dated[1]) * 10**9, dated[2]
        if line:
            yield TypedCommand(_unmeta(line) if shell == "zsh" else line, time, offset)
        time = None


def _continued(lines: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """Lines, those joined that zsh split where a command of several lines has its line breaks."""
    start, held = 0, b""
    for offset, line in lines:
        if not held:
            start = offset
        held += line
        if line.endswith(b"\\") and len(held) < _MAX_COMMAND:
            held = held[:-1] + b"\n"
            continue
        yield start, held
        held = b""
    if held:
        yield start, held


def _unmeta(line: bytes) -> bytes:
    """The command without zsh's escapes."""
    if _META not in line:
        return line
    out, escaped = bytearray(), False
    for byte in line:
        if byte == _META and not escaped:
            escaped = True
            continue
        out.append(byte ^ 32 if escaped else byte)
        escaped = False
    return bytes(out)


def _fish(lines: Iterable[tuple[int, bytes]]) -> Iterator[TypedCommand]:
    offset, command, time = 0, b"", None
    for position, line in lines:
        if found := _FISH.fullmatch(line):
            if command:
                yield TypedCommand(command, time, offset)
            text = _FISH_ESCAPE.sub(lambda escape: b"\n" if escape[1] == b"n" else b"\\", found[1])
            offset, command, time = position, text, None
        elif stamp := _FISH_TIME.fullmatch(line):
            time = int(stamp[1]) * 10**9
    if command:
        yield TypedCommand(command, time, offset)
