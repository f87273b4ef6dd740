"""What the engines' daemons, and the system about them, wrote to the journal and to the system's logs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo

from forensics_lib.engines.host.files import LOG_FOLDERS, HostFiles, place_of
from forensics_lib.engines.host.zone import zones_of
from forensics_lib.engines.journals import Journals
from forensics_lib.formats.journal import Accept, JournalEntry
from forensics_lib.formats.log_record import parse_stamp
from forensics_lib.formats.syslog import LocalStamp, SyslogLine, YearCounter, logfmt, ns_of, parse_syslog
from forensics_lib.model import Origin, utc_from_ns
from forensics_lib.trees.base import Node

__all__ = ["ENGINE_PROGRAMS", "DaemonLogLine", "daemon_log", "timed_lines"]

ENGINE_PROGRAMS = re.compile(
    r"(docker|dockerd|docker-[\w-]+|dockerd-[\w.-]+|containerd|containerd-[\w-]+|cri-dockerd|podman|buildah|buildkitd|crio|"
    r"cri-o|conmon|conmonrs|kubelet|k3s|k0s|runc|crun|youki|kata-\w+|nerdctl|crictl|netavark|aardvark-dns|rootlesskit|"
    r"slirp4netns|fuse-overlayfs)(\.service)?"
)
"""Programs of container engines, by the name they log with."""

_ABOUT = re.compile(rb"docker|containerd|podman|libpod|kubepods|kubelet|\bcri-?o\b|crio-|\brunc\b")
_UNITS = re.compile(rb"docker|containerd|podman|libpod|kubepods|kubelet|crio|buildkit|k3s|rke2")
_KERNEL = re.compile(rb"docker|containerd|libpod|podman|kubepods|crio-|\bveth[0-9a-f]{6,8}\b|\bbr-[0-9a-f]{12}\b")
_MAYBE = re.compile(
    rb"docker|containerd|podman|libpod|kube|cri-?o|runc|build|conmon|k[03]s|crun|youki|kata-|nerdctl|crictl|netavark|aardvark|"
    rb"rootlesskit|slirp4netns|fuse-overlayfs|veth|br-[0-9a-f]{12}"
)
"""In every line that may be wanted: looked for before a line is taken apart."""
_NOT_THESE = frozenset(("sudo", "su", "CRON", "cron", "crond", "sshd", "audit", "auditd"))
_SHARED = re.compile(r"syslog|messages|daemon\.log|kern\.log|user\.log|everything\.log|system\.log")
_OWN = re.compile(r"(docker|dockerd|containerd|kubelet|crio|podman)(\.log)?")
_CONTAINER = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_LEVELS = ("emerg", "alert", "crit", "error", "warning", "notice", "info", "debug")
_MAX_LINES = 1_000_000


@dataclass(frozen=True, slots=True)
class DaemonLogLine:
    """One line of a daemon, or of the system about one.

    Attributes:
        time_ns: when, nanoseconds since 1970; None where nothing tells.
        assumed: what of the time the line does not say: ``year`` (taken from the log's name or the file's time, by
            the turns of the year in it), ``zone`` (taken from another file system of the evidence when one zone is
            known, else for UTC), both, or empty.
        program: which program wrote it.
        pid: its process.
        level: ``error``, ``warning``, ``info`` …; empty when none is given.
        message: what it says.
        container_id: the first full id of a container, or of an image, that it names.
        unit: the unit that it is of or about; in the journal only.
        host: the host's name in it.
        source: ``journal`` or ``syslog``.
        origin: the entry or the line.
    """

    time_ns: int | None
    assumed: str
    program: str
    pid: int | None
    level: str
    message: str
    container_id: str
    unit: str
    host: str
    source: str
    origin: Origin

    __table_columns__ = (
        "time",
        "program",
        "level",
        "message",
        "container_id",
        "unit",
        "pid",
        "host",
        "assumed",
        "source",
        "time_ns",
        "origin",
    )

    @property
    def time(self) -> datetime | None:
        """When (aware UTC)."""
        return utc_from_ns(self.time_ns)


def daemon_log(hosts: Sequence[HostFiles], journals: Journals | None) -> Iterator[DaemonLogLine]:
    """Lines of dockerd, containerd, Podman, CRI-O and the kubelet, and of systemd and the kernel about them.

    First those of the journals, in their order, then those of each log file, the oldest file first; a host may keep
    both, and then a line comes twice. What containers wrote is not among them: see `Container.logs`.
    """
    if journals is not None:
        yield from _of_journals(journals)
    zones = zones_of([host.reader for host in hosts])
    for host, (zone, is_known) in zip(hosts, zones, strict=True):
        for folder in (*LOG_FOLDERS, "/var/log/upstart"):
            for node in host.logs(folder, _SHARED):
                yield from _limited(host, node, _of_file(host, node, zone, is_known, ""))
            for node in host.logs(folder, _OWN):
                program = node.name.partition(".")[0]
                yield from _limited(host, node, _of_file(host, node, zone, is_known, program))


def timed_lines(
    host: HostFiles, node: Node, zone: tzinfo, *, zone_is_known: bool, wanted: re.Pattern[bytes] | None = None
) -> Iterator[tuple[int, bytes, SyslogLine | None, int | None, str]]:
    """(byte where it starts, line, the same taken apart, its time, what of it is assumed) of the lines of a log.

    Lines without a year need the number of the turns of the year in the file, for which it is read twice.

    Args:
        host: the host.
        node: the log.
        zone: the host's.
        zone_is_known: whether its files tell it.
        wanted: has to be found in a line; None for all lines.
    """
    turns = YearCounter()
    for _, line in host.lines(node):
        _feed(turns, line)
    end = host.written(node)
    last_year = turns.year(end) if end is not None and turns.stamp is not None else None
    counter = YearCounter()
    for offset, line in host.lines(node):
        turn = _feed(counter, line)
        if wanted is not None and not wanted.search(line):
            continue
        parsed = parse_syslog(line)
        if parsed is None or parsed.local is None:
            yield offset, line, parsed, parsed.time_ns if parsed is not None else None, ""
        else:
            year = parsed.local.year or (None if last_year is None else last_year - turns.last + turn)
            time, assumed = _moment(parsed.local, year, zone, zone_is_known, parsed.message)
            yield offset, line, parsed, time, assumed


def _feed(counter: YearCounter, line: bytes) -> int:
    """Count the turns of the year up to a line; only the first line of a day has to be taken apart for that."""
    day = line[line.find(b">") + 1 :][:6] if line.startswith(b"<") else line[:6]
    if day != counter.day:
        counter.day = day
        parsed = parse_syslog(line[:80])
        if parsed is not None and parsed.local is not None and parsed.local.year is None:
            counter.feed(parsed.local)
    return counter.last


def _moment(
    stamp: LocalStamp, year: int | None, zone: tzinfo, zone_is_known: bool, message: bytes
) -> tuple[int | None, str]:
    """(time of a line in the host's zone, what of it is assumed); Docker's own lines say it exactly themselves."""
    if message.startswith(b"time="):
        own = parse_stamp(logfmt(message).get("time", ""))
        if own is not None:
            return own, ""
    if year is None:
        return None, ""
    assumed = " and ".join(("year",) * (stamp.year is None) + ("zone",) * (not zone_is_known))
    return ns_of(stamp, year, zone), assumed


def _of_file(host: HostFiles, node: Node, zone: tzinfo, zone_is_known: bool, own: str) -> Iterator[DaemonLogLine]:
    """The lines of a log; all of them when the log is a daemon's own."""
    wanted = None if own else _MAYBE
    lines = timed_lines(host, node, zone, zone_is_known=zone_is_known, wanted=wanted)
    for offset, line, parsed, time, assumed in lines:
        origin = place_of(node).to("line", offset)
        if parsed is None:
            if own and line:
                yield _line(time, assumed, own, None, "", line, "", "", "syslog", origin)
        elif own or _is_wanted(parsed):
            yield _line(
                time, assumed, parsed.program or own, parsed.pid, "", parsed.message, "", parsed.host, "syslog", origin
            )


def _is_wanted(line: SyslogLine) -> bool:
    if ENGINE_PROGRAMS.fullmatch(line.program):
        return True
    if line.program == "kernel":
        return _KERNEL.search(line.message) is not None
    return line.program not in _NOT_THESE and _ABOUT.search(line.message) is not None


def _of_journals(journals: Journals) -> Iterator[DaemonLogLine]:
    def is_engine(value: bytes) -> bool:
        return value == b"kernel" or ENGINE_PROGRAMS.fullmatch(value.decode("utf-8", "replace")) is not None

    accept: Accept = {
        "_SYSTEMD_UNIT": _UNITS.search,
        "_SYSTEMD_USER_UNIT": _UNITS.search,
        "UNIT": _UNITS.search,
        "USER_UNIT": _UNITS.search,
        "SYSLOG_IDENTIFIER": is_engine,
        "_COMM": is_engine,
    }
    for entry in journals.entries(accept, without="CONTAINER_ID_FULL"):
        if not _is_other_kernel_line(entry):
            yield _of_entry(entry)


def _is_other_kernel_line(entry: JournalEntry) -> bool:
    is_kernel = entry.get("SYSLOG_IDENTIFIER") == b"kernel" and entry.get("_TRANSPORT") == b"kernel"
    return is_kernel and _KERNEL.search(entry.get("MESSAGE") or b"") is None


def _of_entry(entry: JournalEntry) -> DaemonLogLine:
    priority, pid = entry.text("PRIORITY"), entry.text("_PID") or entry.text("SYSLOG_PID")
    return _line(
        entry.time_ns,
        "",
        entry.text("SYSLOG_IDENTIFIER") or entry.text("_COMM"),
        int(pid) if pid.isdecimal() and len(pid) < 11 else None,
        _LEVELS[int(priority)] if priority in set("01234567") else "",
        entry.get("MESSAGE") or b"",
        entry.text("UNIT") or entry.text("USER_UNIT") or entry.text("_SYSTEMD_UNIT"),
        entry.text("_HOSTNAME"),
        "journal",
        entry.origin,
    )


def _line(
    time: int | None,
    assumed: str,
    program: str,
    pid: int | None,
    level: str,
    message: bytes,
    unit: str,
    host: str,
    source: str,
    origin: Origin,
) -> DaemonLogLine:
    text = message.decode("utf-8", "backslashreplace")
    named = _CONTAINER.search(text) or _CONTAINER.search(unit)
    own_level = logfmt(message[:4096]).get("level", "") if b"level=" in message else ""
    return DaemonLogLine(
        time, assumed, program, pid, own_level or level, text, named[0] if named else "", unit, host, source, origin
    )


def _limited(host: HostFiles, node: Node, lines: Iterator[DaemonLogLine]) -> Iterator[DaemonLogLine]:
    for count, line in enumerate(lines):
        if count >= _MAX_LINES:
            host.reader.problems.add(place_of(node), f"more than {_MAX_LINES} lines of the engines; no more are listed")
            return
        yield line
