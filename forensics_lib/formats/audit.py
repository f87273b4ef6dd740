"""The Linux audit log: its lines taken apart, and the lines of one event put together.

Format: the ``auparse`` library of the audit userspace: ``type=NAME msg=audit(SECONDS.MILLIS:SERIAL): …``, raw or
enriched (names of users and the like behind a byte 0x1d). Values without quotes of fields that a user can choose are
hexadecimal; long arguments come in pieces.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from forensics_lib.model import Origin

__all__ = ["AuditGroup", "AuditRecord", "join_records", "parse_record"]

_LINE = re.compile(
    rb"(?:node=(?P<node>\S+) )?type=(?P<type>[A-Z0-9_\[\]]{1,64}) "
    rb"msg=audit\((?P<seconds>\d{9,11})\.(?P<millis>\d{3}):(?P<serial>\d{1,20})\): ?(?P<rest>.*)",
    re.DOTALL,
)
_PAIR = re.compile(rb"""([A-Za-z0-9_\[\]:-]{1,64})=("[^"]*+"?|'[^']*+'?|[^\s'"]*)""")
_HEX = re.compile(rb"(?:[0-9A-F]{2})+")
_ARGUMENT = re.compile(r"a(\d{1,5})(?:\[(\d{1,5})\])?")
_ENCODED = frozenset(
    (
        "acct",
        "cmd",
        "comm",
        "cwd",
        "data",
        "dir",
        "exe",
        "file",
        "grp",
        "key",
        "name",
        "ocomm",
        "path",
        "proctitle",
        "vm",
    )
)
_ENRICHED = b"\x1d"
_MAX_ARGUMENTS = 32_768
_MAX_OPEN = 256
_MAX_BYTES = 1 << 22
_MAX_AGE_NS = 10 * 10**9


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One line.

    Attributes:
        type: ``SYSCALL``, ``EXECVE``, ``PATH``, ``PROCTITLE`` …
        time_ns: when, nanoseconds since 1970 (whole milliseconds).
        serial: number of the event.
        node: the machine, where the line names it.
        fields: (name, value), decoded; those of a message inside the message too.
        names: (name, value) of an enriched line: ``AUID``, ``UID``, ``SYSCALL`` …
        origin: the line.
    """

    type: str
    time_ns: int
    serial: int
    node: str
    fields: tuple[tuple[str, str], ...]
    names: tuple[tuple[str, str], ...]
    origin: Origin

    def get(self, name: str) -> str:
        """The first value of a field; empty when there is none."""
        return next((value for field, value in self.fields if field == name), "")


@dataclass(slots=True)
class AuditGroup:
    """The records of one event, in the order in which they were written.

    Attributes:
        key: (time, number, machine) that they share.
        records: the records.
    """

    key: tuple[int, int, str]
    records: list[AuditRecord] = field(default_factory=list)

    @property
    def arguments(self) -> tuple[str, ...]:
        """The arguments of the command that was executed, those joined that came in pieces or in several records."""
        found: dict[int, list[str]] = {}
        for name, value in (pair for record in self.records if record.type == "EXECVE" for pair in record.fields):
            match = _ARGUMENT.fullmatch(name)
            if match and int(match[1]) < _MAX_ARGUMENTS:
                found.setdefault(int(match[1]), []).append(value)
        return tuple("".join(found[number]) for number in sorted(found))

    def first(self, *types: str) -> AuditRecord | None:
        """The first record of one of some types."""
        return next((record for record in self.records if record.type in types), None)


def parse_record(line: bytes, origin: Origin) -> AuditRecord | None:
    """One line of the log; None when it is none."""
    match = _LINE.fullmatch(line)
    if match is None:
        return None
    plain, _, names = match["rest"].partition(_ENRICHED)
    kind = match["type"].decode()
    return AuditRecord(
        type=kind,
        time_ns=int(match["seconds"]) * 10**9 + int(match["millis"]) * 10**6,
        serial=int(match["serial"]),
        node=(match["node"] or b"").decode("utf-8", "backslashreplace"),
        fields=tuple(_fields(plain, kind)),
        names=tuple((name, _text(value)) for name, value in _pairs(names)),
        origin=origin,
    )


def join_records(records: Iterable[AuditRecord]) -> Iterator[AuditGroup]:
    """The events of a log: their records may lie between those of others, and in the next file.

    An event is handed out when an ``EOE`` record ends it, when much later ones came, or at the end.
    """
    waiting: OrderedDict[tuple[int, int, str], AuditGroup] = OrderedDict()
    for record in records:
        key = (record.time_ns, record.serial, record.node)
        if record.type == "EOE":
            if key in waiting:
                yield waiting.pop(key)
            continue
        waiting.setdefault(key, AuditGroup(key)).records.append(record)
        while waiting:
            oldest = next(iter(waiting))
            if len(waiting) <= _MAX_OPEN and record.time_ns - oldest[0] <= _MAX_AGE_NS:
                break
            yield waiting.pop(oldest)
    yield from waiting.values()


def _fields(data: bytes, kind: str) -> Iterator[tuple[str, str]]:
    for name, value in _pairs(data):
        if name == "msg" and value[:1] == b"'":
            yield from _fields(value.strip(b"'"), kind)
        else:
            yield name, _decoded(name, value, kind)


def _pairs(data: bytes) -> Iterator[tuple[str, bytes]]:
    for name, value in _PAIR.findall(data[:_MAX_BYTES]):
        yield name.decode(), value


def _decoded(name: str, value: bytes, kind: str) -> str:
    """A value without its quotes, or out of its hexadecimal form where the field has one."""
    if value[:1] in (b'"', b"'"):
        return _text(value)
    if value in (b"(null)", b"(none)"):
        return ""
    may_be_hex = name in _ENCODED or (kind == "EXECVE" and _ARGUMENT.fullmatch(name) is not None)
    if may_be_hex and _HEX.fullmatch(value):
        decoded = bytes.fromhex(value.decode())
        if name == "proctitle":
            decoded = decoded.rstrip(b"\0").replace(b"\0", b" ")
        elif name == "key":
            decoded = decoded.replace(b"\1", b", ")
        return decoded.decode("utf-8", "backslashreplace")
    return value.decode("utf-8", "backslashreplace")


def _text(value: bytes) -> str:
    quote = value[:1]
    if quote in (b'"', b"'"):
        value = value[1:-1] if value.endswith(quote) and len(value) > 1 else value[1:]
    return value.decode("utf-8", "backslashreplace")
