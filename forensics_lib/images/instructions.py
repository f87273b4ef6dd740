"""The Dockerfile instruction behind each step of an image's history, whichever builder wrote it.

=================  =============================================================================================
builder            what it writes as ``created_by``
=================  =============================================================================================
Docker's classic   ``/bin/sh -c #(nop)  CMD ["x"]``; for RUN ``/bin/sh -c command``, ``|1 A=b /bin/sh -c command``
BuildKit           ``CMD ["x"]``; ``RUN /bin/sh -c command # buildkit``, ``RUN |1 A=b /bin/sh -c command # buildkit``
buildah, podman    as the classic builder, with ``FROM image`` as the comment of the first step
kaniko             the line of the Dockerfile
docker commit      the command line of the container: no instruction
=================  =============================================================================================

With another shell (SHELL) or on Windows (``cmd /S /C``) that shell stands in place of ``/bin/sh -c``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from forensics_lib.images.dockertext import parse_list
from forensics_lib.images.history import HistoryStep

__all__ = ["MAX_TEXT", "Instruction", "list_words", "read_instructions"]

MAX_TEXT = 1 << 17
"""Longest text of one step that is read as an instruction; Linux runs no command with a longer argument (128 KiB)."""

_DEFAULT_SHELLS = ("/bin/sh -c", "cmd /S /C")
_BUILDKIT_MARK = " # buildkit"

_INSTRUCTION = re.compile(
    r"(ADD|ARG|CMD|COPY|ENTRYPOINT|ENV|EXPOSE|HEALTHCHECK|LABEL|MAINTAINER|ONBUILD|RUN|SHELL|STOPSIGNAL|USER|VOLUME"
    r"|WORKDIR)[ \t]+(\S.*)",
    re.DOTALL,
)
_BUILD_ARGUMENTS = re.compile(r"\|(\d{1,4}) ")


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction.

    Attributes:
        keyword: ``RUN``, ``COPY`` …
        text: what follows it; of a RUN only the command, without shell and build arguments.
        written: the text is as a person wrote it; otherwise the builder has expanded variables and dropped quotes.
        exec_form: a RUN without a shell, its words joined by spaces.
        arguments: the build arguments a RUN saw, ``A=1 B=2``.
    """

    keyword: str
    text: str
    written: bool = False
    exec_form: bool = False
    arguments: str = ""


def read_instructions(steps: Iterable[HistoryStep], shell: Sequence[str] = ()) -> list[Instruction | None]:
    """The instruction of every step; None for a step that is none, or is longer than 128 KiB.

    Args:
        steps: the history, oldest first.
        shell: the shell of the configuration; it helps where the step that set it is not in the history.
    """
    shells = [" ".join(shell), *_DEFAULT_SHELLS] if shell else [*_DEFAULT_SHELLS]
    instructions: list[Instruction | None] = []
    for step in steps:
        instruction = _read(step, shells) if len(step.created_by) <= MAX_TEXT else None
        if instruction is not None and instruction.keyword == "SHELL":
            shells = [" ".join(list_words(instruction.text, shell)[0])]
        instructions.append(instruction)
    return instructions


def list_words(text: str, known: Sequence[str]) -> tuple[Sequence[str], bool]:
    """The words of a list that a builder printed, and whether it is certain where each ends.

    ``["a" "b"]`` and ``["a", "b"]`` are certain; Go's ``[a b]`` is when it is what `known` would print as.
    """
    words = parse_list(text)
    if words is not None:
        return words, True
    inner = text.removeprefix("[").removesuffix("]")
    return (known, True) if known and inner == " ".join(known) else (inner.split(), False)


def _read(step: HistoryStep, shells: Sequence[str]) -> Instruction | None:
    text = step.created_by
    for shell in (*shells, *_DEFAULT_SHELLS):
        if text.startswith(f"{shell} #(nop) "):
            return _instruction(text[len(shell) + len(" #(nop) ") :].strip(" "), written=False)
    if _BUILD_ARGUMENTS.match(text) or _after_shell(text, shells) is not None:
        return _run(text, shells, written=False)
    plain = text.removesuffix(_BUILDKIT_MARK)
    written = plain == text and not step.comment.startswith("buildkit.")
    instruction = _instruction(plain, written=written)
    if instruction is not None and instruction.keyword == "RUN":
        return _run(instruction.text, shells, written=written)
    return instruction


def _instruction(text: str, *, written: bool) -> Instruction | None:
    found = _INSTRUCTION.fullmatch(text)
    return Instruction(found[1], found[2], written) if found else None


def _run(text: str, shells: Sequence[str], *, written: bool) -> Instruction | None:
    arguments, command = _build_arguments(text, shells)
    body = _after_shell(command, shells)
    if body is not None:
        return Instruction("RUN", body, arguments=arguments)
    if not command.strip():
        return None
    return Instruction("RUN", command, written, exec_form=not written, arguments=arguments)


def _after_shell(text: str, shells: Sequence[str]) -> str | None:
    """The command that the shell was given; None when the text does not begin with a shell and a command."""
    bodies = (text[len(shell) + 1 :] for shell in shells if text.startswith(f"{shell} "))
    return next((body for body in bodies if body.strip()), None)


def _build_arguments(text: str, shells: Sequence[str]) -> tuple[str, str]:
    """The ``A=1 B=2`` of ``|2 A=1 B=2 /bin/sh -c command``, and the command with its shell."""
    found = _BUILD_ARGUMENTS.match(text)
    if found is None:
        return "", text
    start = found.end()
    ends = [at for at in (text.find(f" {shell} ", start - 1) for shell in shells) if at >= 0]
    if ends:
        return text[start : min(ends)], text[min(ends) + 1 :]
    words = text[start:].split(" ")
    count = int(found[1])
    return " ".join(words[:count]), " ".join(words[count:])
