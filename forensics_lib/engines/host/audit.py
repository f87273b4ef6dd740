"""What the kernel's audit wrote about containers, in its own log and in the journal."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from forensics_lib.engines.findings import masked_text
from forensics_lib.engines.host.files import LOG_FOLDERS, HostFiles, place_of
from forensics_lib.engines.host.users import users_of
from forensics_lib.engines.journals import Journals
from forensics_lib.formats.audit import AuditGroup, AuditRecord, join_records, parse_record
from forensics_lib.formats.journal import JournalEntry
from forensics_lib.model import Origin, utc_from_ns
from forensics_lib.trees.base import join

__all__ = ["AuditEvent", "audit_events"]

_LOG = re.compile(r"audit\.log")
_NAMES = re.compile(
    r"docker|containerd|podman|libpod|buildah|\b(?:runc|crun|youki|crio|cri-o|conmon|nerdctl|ctr|crictl|kubectl|kubelet|"
    r"skopeo|buildkitd)\b|kubepods"
)
_SHIM = re.compile(r"containerd-shim|conmon|runc:\[")
_INSIDE = re.compile(
    r"docker-default|crio|cri-containerd|container_t\b|container_file_t|spc_t\b|svirt_lxc|containers-default"
)
_NO_USER = "4294967295"
_REMEMBERED = 65_536


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One audited event, out of all its records.

    Attributes:
        time_ns: when, nanoseconds since 1970 (whole milliseconds).
        serial: its number.
        types: the types of its records, in their order.
        arguments: the command, where one was executed, as it was given.
        exe: the program that did it.
        comm: the program's short name.
        cwd: the folder it was in.
        paths: paths that it touched.
        user: who had logged in: name where the log or the host's accounts have it, else number; empty for nobody.
        uid: as whom it ran, likewise.
        pid: its process.
        ppid: the process that started it.
        terminal: where.
        key: the rule that caught it.
        success: whether it was allowed and done; None where the records do not say.
        reason: why it is listed: what names a container engine, or what shows that it happened in a container.
        text: what else its records say, e.g. the denial of a security module.
        origin: its first record.
    """

    time_ns: int
    serial: int
    types: tuple[str, ...]
    arguments: tuple[str, ...]
    exe: str
    comm: str
    cwd: str
    paths: tuple[str, ...]
    user: str
    uid: str
    pid: int | None
    ppid: int | None
    terminal: str
    key: str
    success: bool | None
    reason: str
    text: str
    origin: Origin

    __table_columns__ = (
        "time",
        "serial",
        "command",
        "user",
        "uid",
        "exe",
        "success",
        "key",
        "reason",
        "types",
        "paths",
        "pid",
        "ppid",
        "time_ns",
        "origin",
    )

    @property
    def time(self) -> datetime | None:
        """When (aware UTC)."""
        return utc_from_ns(self.time_ns)

    @property
    def command(self) -> str:
        """The command on one line with the secrets in it masked; of an event without one, what its records say."""
        return masked_text(" ".join(self.arguments) or self.text)


def audit_events(hosts: Sequence[HostFiles], journals: Journals | None) -> Iterator[AuditEvent]:
    """The events that have to do with containers: of each host's audit log, the oldest first, then of the journals.

    An event is one of those when it names a container engine or its files, when a security module says that it happened
    in a container, or when it descends from the process that an engine runs a container with.
    """
    for host in hosts:
        inside, accounts = _Inside(), {user.uid: user.name for user in users_of(host.reader) if user.uid}
        for group in join_records(_of_files(host)):
            yield from _event(group, inside, accounts)
    if journals is not None:
        inside = _Inside()
        for group in join_records(_of_journals(journals)):
            yield from _event(group, inside, {})


class _Inside:
    """Processes that run in containers, as far as the log shows who started whom."""

    def __init__(self) -> None:
        self._pids: OrderedDict[int, None] = OrderedDict()

    def holds(self, group: AuditGroup, call: AuditRecord | None) -> int | None:
        """The process by which an event belongs to a container; None when it does not. Notes the event's own."""
        if call is None:
            return None
        pid, ppid = _number(call.get("pid")), _number(call.get("ppid"))
        by = next((one for one in (ppid, pid) if one is not None and one in self._pids), None)
        starts = _SHIM.search(call.get("exe")) or _SHIM.search(call.get("comm"))
        if pid is not None and (starts or by is not None):
            self._pids[pid] = None
            self._pids.move_to_end(pid)
            if len(self._pids) > _REMEMBERED:
                self._pids.popitem(last=False)
        return None if starts else by


def _of_files(host: HostFiles) -> Iterator[AuditRecord]:
    for folder in LOG_FOLDERS:
        for node in host.logs(join(folder, "audit"), _LOG):
            for offset, line in host.lines(node):
                record = parse_record(line, place_of(node).to("line", offset))
                if record is not None:
                    yield record
                elif line.strip(b"\0 "):
                    host.reader.problems.add(place_of(node).to("line", offset), "is no record of the audit log")


def _of_journals(journals: Journals) -> Iterator[AuditRecord]:
    for entry in journals.entries({"_TRANSPORT": b"audit".__eq__}):
        record = _of_entry(entry)
        if record is not None:
            yield record


def _of_entry(entry: JournalEntry) -> AuditRecord | None:
    """The record that an entry was made of: its text lost its start, which is kept in fields."""
    kind, serial = entry.get("_AUDIT_TYPE_NAME") or b"", entry.get("_AUDIT_ID") or b"0"
    stamp = entry.text("_SOURCE_REALTIME_TIMESTAMP")
    micros = int(stamp) if stamp.isdecimal() and len(stamp) < 17 else entry.realtime_us
    text = (entry.get("MESSAGE") or b"").removeprefix(kind + b" ")
    head = b"type=%s msg=audit(%d.%03d:%s): " % (kind, micros // 1_000_000, micros // 1000 % 1000, serial)
    return parse_record(head + text, entry.origin)


def _event(group: AuditGroup, inside: _Inside, accounts: Mapping[str, str]) -> Iterator[AuditEvent]:
    """The event of a group of records, when it has to do with containers."""
    call = group.first("SYSCALL") or (group.records[0] if group.records else None)
    by = inside.holds(group, call)
    reason = _reason(group)
    if not reason and by is not None:
        reason = f"descends from a container's process ({by})"
    if call is None or not reason:
        return
    folder, title = group.first("CWD"), group.first("PROCTITLE")
    command = group.arguments
    if not command and (given := call.get("cmd")):
        command = (given,)
    if not command and title is not None and title.get("proctitle"):
        command = (title.get("proctitle"),)
    names = dict(call.names)
    names.setdefault("AUID", accounts.get(call.get("auid"), ""))
    names.setdefault("UID", accounts.get(call.get("uid"), ""))
    yield AuditEvent(
        time_ns=group.key[0],
        serial=group.key[1],
        types=tuple(record.type for record in group.records),
        arguments=command,
        exe=call.get("exe"),
        comm=call.get("comm"),
        cwd=folder.get("cwd") if folder is not None else call.get("cwd"),
        paths=tuple(dict.fromkeys(r.get("name") for r in group.records if r.type == "PATH" and r.get("name"))),
        user=_user(call, names, "auid", "AUID"),
        uid=_user(call, names, "uid", "UID"),
        pid=_number(call.get("pid")),
        ppid=_number(call.get("ppid")),
        terminal=call.get("tty") or call.get("terminal"),
        key=call.get("key"),
        success=_success(call),
        reason=reason,
        text=" ".join(f"{name}={value}" for name, value in group.records[0].fields),
        origin=group.records[0].origin,
    )


def _reason(group: AuditGroup) -> str:
    """What of the records has to do with containers."""
    for record in group.records:
        for name, value in record.fields:
            if name in ("subj", "profile", "scontext", "tcontext", "label") and _INSIDE.search(value):
                return f"{name} {value}"
    for record in group.records:
        for name, value in record.fields:
            if found := _NAMES.search(value):
                return f"{record.type} {name} names {found[0]}"
    return ""


def _user(record: AuditRecord, names: dict[str, str], field: str, enriched: str) -> str:
    number = record.get(field)
    if number == _NO_USER or names.get(enriched) == "unset":
        return ""
    return names.get(enriched) or number


def _success(record: AuditRecord) -> bool | None:
    for name in ("success", "res"):
        value = record.get(name)
        if value in ("yes", "success", "1"):
            return True
        if value in ("no", "failed", "0"):
            return False
    return None


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() and len(text) < 11 else None
