"""A Dockerfile from an image's configuration and history: what was built, as far as the image tells.

Text of the evidence never becomes a line of its own: what is no instruction, or cannot be written as one without loss,
becomes a comment on one line with its control characters escaped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from forensics_lib.errors import DamagedData
from forensics_lib.images.config import Healthcheck, ImageConfig
from forensics_lib.images.dockertext import (
    duration,
    escaped,
    exec_form,
    is_plain,
    literal,
    parse_list,
    quoted,
    split_known,
    split_pairs,
)
from forensics_lib.images.history import HistoryStep
from forensics_lib.images.instructions import MAX_TEXT, Instruction, list_words, read_instructions
from forensics_lib.images.reference import Reference

__all__ = ["dockerfile"]

_BASE_NAME = "org.opencontainers.image.base.name"
_BASE_DIGEST = "org.opencontainers.image.base.digest"

_CHECKSUM = re.compile("(?:file|dir|multi):[0-9a-f]{64}")
_CLASSIC_COPY = re.compile(rf"(--chown=\S+?)? ?({_CHECKSUM.pattern}|(?<!\S)[^\s-]\S*) in (\S.*)")
_PORT = re.compile(r"\d{1,5}(?:-\d{1,5})?(?:/\w{1,8})?", re.ASCII)
_NAMES = re.compile(r"\w+(?: \w+)*", re.ASCII)
_OLD_PAIR = re.compile(r"([\w./-]+) (.+)")
_QUOTING = re.compile(r"[\"'\\$`]")
_BUILT_ON = re.compile(r"FROM (\S{1,512})")
_IMAGE_ID = re.compile(r"[0-9a-f]{12,64}", re.ASCII)

_Entry = tuple[HistoryStep, Instruction | None]


def dockerfile(config: ImageConfig, steps: Sequence[HistoryStep], annotations: Mapping[str, str] | None = None) -> str:
    """Write the instructions that made an image, oldest first, with a comment wherever something is a guess.

    The base image is part of the history and stays so: where a step looks like the last one of a base image (a CMD or
    ENTRYPOINT that more layers follow), a ``FROM base-1`` begins a new stage and says that it is a guess. A base image
    that buildah recorded in the history, or the manifest in its annotations, is named.

    Args:
        config: the configuration; it settles what the history only hints at (health check, values with spaces), and
            what it holds beyond the history is added as comments at the end.
        steps: the history, oldest first.
        annotations: annotations of the image's manifest, of which ``org.opencontainers.image.base.*`` are used.

    Returns:
        The text of a Dockerfile. It is not the original: names in the build context, comments and other stages are not
        recorded in an image.
    """
    entries: list[_Entry] = list(zip(steps, read_instructions(steps, config.shell), strict=True))
    stages = _stages(entries, annotations or {})
    script = _Script(config, entries)
    lines = ["# escape=`"] if script.escape == "`" else []
    lines.append("# Reconstructed from the history of an image; build context and other stages are not recorded.")
    for number, stage in enumerate(stages, 1):
        label = f" AS base-{number}" if number < len(stages) else ""
        lines += ["", f"# {stage.reason}", f"FROM {stage.base}{label}"]
        for step, instruction in entries[stage.start : stage.end]:
            lines += script.write(step, instruction)
    return "\n".join([*lines, *script.leftovers()]) + "\n"


class _Script:
    """Writes the lines of one image's steps, and remembers what they set.

    Attributes:
        escape: the escape character of the Dockerfile; on Windows the backslash separates paths.
    """

    def __init__(self, config: ImageConfig, entries: Sequence[_Entry]) -> None:
        self.escape = "`" if config.os == "windows" else "\\"
        self._config = config
        self._known = {"ENV": dict(item.partition("=")[::2] for item in config.env), "LABEL": config.labels}
        self._spaced_volumes = [path for path in config.volumes if " " in path]
        checks = [step for step, instruction in entries if instruction and instruction.keyword == "HEALTHCHECK"]
        self._last_check = checks[-1] if checks else None
        self._set: dict[tuple[str, str], str] = {}

    def write(self, step: HistoryStep, instruction: Instruction | None) -> list[str]:
        """The lines of one step: comments and an instruction, or one comment when it cannot be written."""
        lines = self._lines(step, instruction) if instruction else None
        if instruction and lines and self._is_safe(instruction.keyword, lines):
            return lines
        return [_comment(step, instruction)]

    def leftovers(self) -> list[str]:
        """As comments: what the configuration holds although no step set it."""
        missing = [f"#   {escaped(line)}" for key, line in self._settings() if self._set.get(key) != line]
        reason = "# In the configuration, but found in no step (commit --change, build --label, a builder's default …):"
        return ["", reason, *missing] if missing else []

    def _is_safe(self, keyword: str, lines: list[str]) -> bool:
        """Whether a parser reads these lines as the one instruction, and the next line as the next."""
        here_document = keyword in ("ADD", "COPY", "ONBUILD") and "<<" in lines[-1]
        continued = lines[-1].rstrip().endswith(self.escape)
        return not here_document and not continued and all(is_plain(line) for line in lines)

    def _lines(self, step: HistoryStep, instruction: Instruction) -> list[str] | None:
        keyword, text = instruction.keyword, instruction.text
        if keyword == "RUN":
            return self._run(instruction)
        if keyword in ("ADD", "COPY"):
            return self._copy(instruction)
        if keyword == "HEALTHCHECK":
            check = self._config.healthcheck if step is self._last_check else None
            line = _health_line(check) if check else None
            if line is None and text.lstrip("{&").startswith(("NONE", '["NONE"]', "Test:[NONE]")):
                line = "HEALTHCHECK NONE"
            elif step is not self._last_check and text.startswith(("CMD ", "--")):  # a later one took its place
                line = f"HEALTHCHECK {text}"
            return self._note(keyword, "", line) if line else None
        if keyword in ("CMD", "ENTRYPOINT", "SHELL") and text.startswith("["):
            return self._command(keyword, text)
        if keyword == "ONBUILD":
            return self._note(keyword, text, f"ONBUILD {text}")
        if keyword == "MAINTAINER":
            return [f"MAINTAINER {text}"]
        if instruction.written and (_QUOTING.search(text) or keyword in ("CMD", "ENTRYPOINT")):
            return [f"{keyword} {text}"]
        return self._setting(keyword, text)

    def _command(self, keyword: str, text: str) -> list[str]:
        config = self._config
        known = {"CMD": config.cmd, "ENTRYPOINT": config.entrypoint, "SHELL": config.shell}[keyword]
        words, certain = list_words(text, known)
        line = f"{keyword} {exec_form(words)}"
        return self._note(keyword, "", line) if certain else ["# where each word ends is not recorded", line]

    def _setting(self, keyword: str, text: str) -> list[str] | None:
        """An instruction that sets plain values, expanded by the builder."""
        if keyword in ("ENV", "LABEL", "ARG"):
            return self._pairs(keyword, text)
        if keyword == "EXPOSE":
            ports = text.removeprefix("map").strip("[]").replace(":{}", "").split()
            if not ports or not all(_PORT.fullmatch(port) for port in ports):
                return None
            for port in ports:
                self._note(keyword, port if "/" in port else f"{port}/tcp", "")
            return [f"EXPOSE {' '.join(ports)}"]
        if keyword == "VOLUME":
            inner = text.removeprefix("map").removeprefix("[").removesuffix("]").replace(":{}", "")
            paths = parse_list(text) or split_known(inner, self._spaced_volumes)
            for path in paths:
                self._note(keyword, path, "")
            return [f"VOLUME {exec_form(literal(path, self.escape) for path in paths)}"] if paths else None
        if keyword in ("CMD", "ENTRYPOINT", "SHELL"):
            return None
        if keyword in ("USER", "STOPSIGNAL") and text.startswith("[") and text.endswith("]"):
            text = text[1:-1]  # Docker before 1.13
        return self._note(keyword, "", f"{keyword} {literal(text, self.escape)}")

    def _pairs(self, keyword: str, text: str) -> list[str] | None:
        pairs = split_pairs(text, self._known.get(keyword, {}))
        if pairs is None and keyword == "ARG":
            return [f"ARG {text}"] if _NAMES.fullmatch(text) else None
        old = _OLD_PAIR.fullmatch(text) if pairs is None else None
        if old is not None:
            pairs = [(old[1], old[2])]
        words = [(name, f"{name}={quoted(value, self.escape)}") for name, value in pairs or ()]
        for name, word in words:
            self._note(keyword, name, f"{keyword} {word}")
        return [" ".join([keyword, *(word for _, word in words)])] if words else None

    def _run(self, instruction: Instruction) -> list[str]:
        command = instruction.text
        lines = [f"# build arguments: {escaped(instruction.arguments)}"] if instruction.arguments else []
        if instruction.exec_form:
            return [*lines, "# exec form; where each word ends is not recorded", f"RUN {exec_form(command.split())}"]
        bare = command.strip()
        flags_or_list = bare.startswith("--") or (bare.startswith("[") and bare.endswith("]"))
        ambiguous = "\n" in command or "<<" in command or bare.endswith(self.escape)
        if not ambiguous and (instruction.written or not flags_or_list):
            return [*lines, f"RUN {bare}"]
        return lines + _here_document(command)

    def _copy(self, instruction: Instruction) -> list[str] | None:
        keyword, text = instruction.keyword, instruction.text
        classic = None if instruction.written else _CLASSIC_COPY.fullmatch(text)
        if classic is not None:
            flag, source, target = classic.groups()
            flags, words = ([flag] if flag else []), [source, target.strip()]
            note = ["# the name of the source is not recorded, only a checksum"] if _CHECKSUM.match(source) else []
        elif instruction.written and "<<" not in text:
            return [f"{keyword} {text}"]
        else:
            words = text.split()
            flags = [word for word in words if word.startswith("--")]
            note = ["# the text of the here-document is not recorded; the layer has it"] if "<<" in text else []
            words = [word.removeprefix("<<") for word in words if not word.startswith("--")]
        if len(words) < 2:
            return None
        words = [literal(word, self.escape) for word in words]
        paths = exec_form(words) if any(" " in word for word in words) else " ".join(words)
        return [*note, " ".join([keyword, *flags, paths])]

    def _note(self, keyword: str, name: str, line: str) -> list[str]:
        self._set[keyword, name] = line
        return [line]

    def _settings(self) -> Iterator[tuple[tuple[str, str], str]]:
        """What the configuration sets, by the keys and in the words with which `_note` remembers steps."""
        config = self._config
        for keyword, pairs in self._known.items():
            for name, value in pairs.items():
                yield (keyword, name), f"{keyword} {name}={quoted(value, self.escape)}"
        for keyword, names in (("EXPOSE", config.exposed_ports), ("VOLUME", config.volumes)):
            for name in names:
                yield (keyword, name), "" if (keyword, name) in self._set else f"{keyword} {name}"
        for keyword, text in (
            ("STOPSIGNAL", config.stop_signal),
            ("USER", config.user),
            ("WORKDIR", config.working_dir),
        ):
            if text not in ("", "/"):
                yield (keyword, ""), f"{keyword} {literal(text, self.escape)}"
        for keyword, words in (("SHELL", config.shell), ("ENTRYPOINT", config.entrypoint), ("CMD", config.cmd)):
            if words:
                yield (keyword, ""), f"{keyword} {exec_form(words)}"
        for trigger in config.on_build:
            yield ("ONBUILD", trigger), f"ONBUILD {trigger}"
        line = _health_line(config.healthcheck) if config.healthcheck else None
        if line:
            yield ("HEALTHCHECK", ""), line


def _here_document(command: str) -> list[str]:
    """RUN with a command that on one line would be read differently; the shell gets exactly these lines."""
    lines = command.removesuffix("\n").split("\n")
    delimiter, taken = "EOT", set(lines)
    while delimiter in taken:
        delimiter += "_"
    return [f"RUN <<{delimiter}", *lines, delimiter]


def _health_line(check: Healthcheck) -> str | None:
    """The HEALTHCHECK instruction; None for one that a Dockerfile cannot say."""
    kind, arguments = (check.test[0], check.test[1:]) if check.test else ("", ())
    if kind == "NONE":
        return "HEALTHCHECK NONE"
    if kind == "CMD":
        command = exec_form(arguments)
    elif kind == "CMD-SHELL" and len(arguments) == 1 and not arguments[0].startswith("["):
        command = arguments[0]
    else:
        return None
    times = {
        "interval": check.interval_ns,
        "timeout": check.timeout_ns,
        "start-period": check.start_period_ns,
        "start-interval": check.start_interval_ns,
    }
    flags = [f"--{name}={duration(value)}" for name, value in times.items() if value]
    if check.retries:
        flags.append(f"--retries={check.retries}")
    return " ".join(["HEALTHCHECK", *flags, "CMD", command])


def _comment(step: HistoryStep, instruction: Instruction | None) -> str:
    """A step that is not written as an instruction, on one line, with all that is known of it."""
    if instruction is not None:
        reason = "cannot be written without loss"
    elif not step.created_by:
        reason = "no instruction recorded, as by docker import"
    elif not step.empty and (step.author or step.comment):
        reason = "docker commit, or a tool that records no instruction"
    else:
        reason = "no instruction"
    text = step.created_by if len(step.created_by) <= MAX_TEXT else f"{step.created_by[:MAX_TEXT]} …"
    facts = (("author", step.author), ("message", step.comment), ("layer", step.layer))
    known = ", ".join(f"{name} {value}" for name, value in facts if value)
    return escaped(f"# {reason}{': ' if text else ''}{text}{f' ({known})' if known else ''}")


@dataclass(frozen=True, slots=True)
class _Stage:
    """The steps [start, end) that were built on one base image."""

    start: int
    end: int
    base: str
    reason: str


def _stages(entries: Sequence[_Entry], annotations: Mapping[str, str]) -> list[_Stage]:
    recorded = _boundaries(entries)
    annotated = _annotated_base(annotations)
    starts = sorted({0, *recorded})
    stages: list[_Stage] = []
    for start, end in zip(starts, [*starts[1:], len(entries)], strict=True):
        if recorded.get(start):
            base, reason = recorded[start], "The builder recorded this base image; the steps above are its own."
        elif annotated and start == starts[-1]:
            own = "the steps above are probably its own" if start else "which steps below are its own is not recorded"
            base, reason = annotated, f"An annotation of the manifest names this base image; {own}."
        elif start:
            base = f"base-{len(stages)}"
            reason = "A guess: the CMD or ENTRYPOINT above is the last step of a base image that this was built on."
        else:
            base, reason = "scratch", _scratch_reason(entries)
        stages.append(_Stage(start, end, base, reason))
    return stages


def _boundaries(entries: Sequence[_Entry]) -> dict[int, str]:
    """Index of each first step on top of another image: the name of that image as recorded, or "" for a guess."""
    last_layer = max((index for index, (step, _) in enumerate(entries) if not step.empty), default=-1)
    boundaries: dict[int, str] = {}
    below_runs = False
    for index, (step, instruction) in enumerate(entries):
        runs = instruction is not None and instruction.keyword in ("CMD", "ENTRYPOINT")
        name = _recorded_base(step.comment)
        if name or (below_runs and not runs and index <= last_layer):
            boundaries[index] = name or ""
        below_runs = runs
    return boundaries


def _recorded_base(comment: str) -> str | None:
    """The image of buildah's ``FROM name``; a bare id is one of its own intermediate images."""
    found = _BUILT_ON.fullmatch(comment)
    if found is None or found[1] == "scratch" or _IMAGE_ID.fullmatch(found[1]):
        return None
    return _canonical(found[1])


def _annotated_base(annotations: Mapping[str, str]) -> str | None:
    name, digest = annotations.get(_BASE_NAME, ""), annotations.get(_BASE_DIGEST, "")
    exact = _canonical(f"{name}@{digest}") if digest and "@" not in name else None
    return exact or _canonical(name)


def _canonical(name: str) -> str | None:
    try:
        return Reference.parse(name).canonical
    except DamagedData:
        return None


def _scratch_reason(entries: Sequence[_Entry]) -> str:
    first = next((instruction for step, instruction in entries if not step.empty), None)
    if first is not None and first.keyword in ("ADD", "COPY"):
        return f"No base image is recorded; the first layer, by {first.keyword}, brings the root file system."
    return "No base image is recorded."
