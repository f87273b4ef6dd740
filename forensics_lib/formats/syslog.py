"""Lines of system logs: the traditional form (RFC 3164), the one with full times, RFC 5424, and the daemons' own.

The traditional form has neither year nor zone. `YearCounter` gives years by the turns of the year within a file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo

from forensics_lib.formats.log_record import parse_stamp

__all__ = ["LocalStamp", "SyslogLine", "YearCounter", "logfmt", "ns_of", "parse_syslog"]

_MONTHS = (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec")
_TRADITIONAL = re.compile(
    rb"(?:<\d{1,3}>)?(%s) +(\d{1,2}) (\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))? +(.*)" % b"|".join(_MONTHS), re.DOTALL
)
_FULL = re.compile(rb"(?:<\d{1,3}>)?(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d\S*) +(.*)", re.DOTALL)
_RFC_5424 = re.compile(rb"<\d{1,3}>1 (\S+) (\S+) (\S+) (\S+) \S+ (?:-|(?:\[(?:[^\]\\]|\\.)*\])+)(?: (.*))?", re.DOTALL)
_HOST_AND_TAG = re.compile(rb"(\S+) ([^\s:\[\]]{1,128})(?:\[(\d{1,10})\])?:(?: (.*))?", re.DOTALL)
_OLD_GO = re.compile(rb"(\d{4})/(\d\d)/(\d\d) (\d\d):(\d\d):(\d\d) (.*)", re.DOTALL)
_LOGFMT = re.compile(rb'([A-Za-z_][\w.-]{0,63})=("(?:[^"\\]|\\.)*+"?|[^\s"]*)', re.DOTALL)  # linear in the line
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ZONE = re.compile(r"([+-]\d\d)(\d\d)$")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATE = 7
"""Days by which a line may stand behind a later one without a turn of the year between them."""


@dataclass(frozen=True, slots=True)
class LocalStamp:
    """A time in the host's zone, as a line has it.

    Attributes:
        year: None where the line has none.
        month: 1 to 12.
        day: of the month.
        second: of the day.
        nanosecond: of the second.
    """

    year: int | None
    month: int
    day: int
    second: int
    nanosecond: int


@dataclass(frozen=True, slots=True)
class SyslogLine:
    """One line, taken apart.

    Attributes:
        time_ns: when, nanoseconds since 1970; None where the line's own time does not tell.
        local: the line's time where it lacks the zone; None otherwise.
        host: name of the host that wrote it; empty when there is none.
        program: which program; empty when the line names none.
        pid: its process; None when it is not named.
        message: the rest.
    """

    time_ns: int | None
    local: LocalStamp | None
    host: str
    program: str
    pid: int | None
    message: bytes


def parse_syslog(line: bytes) -> SyslogLine | None:
    """A line of a system log; None when it has none of the known forms.

    A program's own line (``time="…" level=… msg="…"``, as Docker's and containerd's are) is one as well.
    """
    if match := _RFC_5424.fullmatch(line):
        stamp, host, program, pid, message = match.groups()
        return SyslogLine(_full(stamp), None, _name(host), _name(program), _number(pid), (message or b"").lstrip(b" "))
    if match := _TRADITIONAL.fullmatch(line):
        month, day, hour, minute, second, fraction, rest = match.groups()
        local = _local(None, _MONTHS.index(month) + 1, day, hour, minute, second, fraction)
        return None if local is None else _tagged(None, local, rest)
    if match := _FULL.fullmatch(line):
        time = _full(match[1])
        return None if time is None else _tagged(time, None, match[2])
    if match := _OLD_GO.fullmatch(line):
        year, month, day, hour, minute, second, message = match.groups()
        local = _local(int(year), int(month), day, hour, minute, second, None)
        return None if local is None else SyslogLine(None, local, "", "", None, message)
    if line.startswith(b"time="):
        time = parse_stamp(logfmt(line).get("time", ""))
        return None if time is None else SyslogLine(time, None, "", "", None, line)
    return None


def logfmt(message: bytes) -> dict[str, str]:
    """The ``name=value`` pairs of a message of Docker, containerd or Podman; the first of each name."""
    found: dict[str, str] = {}
    for name, value in _LOGFMT.findall(message[:65_536]):
        text = value.decode("utf-8", "backslashreplace")
        if text.startswith('"'):
            text = text[1:-1] if text.endswith('"') and len(text) > 1 else text[1:]
            text = _ESCAPE.sub(lambda escape: {"n": "\n", "t": "\t"}.get(escape[1], escape[1]), text)
        found.setdefault(name.decode(), text)
    return found


class YearCounter:
    """Years for lines without one, by the turns of the year between them.

    Feed it all lines of a file in a first pass; then `last` says how many turns there were, and a second counter, fed
    the same lines, says which of them a line follows.

    Attributes:
        last: turns of the year so far.
        stamp: the latest line's time; None before the first.
        day: the latest day, as it is written.
    """

    def __init__(self) -> None:
        """Before the first line."""
        self.last = 0
        self.stamp: LocalStamp | None = None
        self.day = b""

    def feed(self, stamp: LocalStamp) -> int:
        """The number of turns of the year between the first line and this one."""
        if self.stamp is not None:
            days = (stamp.month - self.stamp.month) * 31 + stamp.day - self.stamp.day
            if days < -_LATE:
                self.last += 1
            elif days > 365 - _LATE:
                self.last -= 1  # a line of before the turn that was written late
        self.stamp = stamp
        return self.last

    def year(self, end: date) -> int:
        """The year of the latest line, when the file was written last on `end`: the last that is not after it."""
        tomorrow = end + timedelta(days=1)  # the zone of the line is not that of the file's time
        is_later = self.stamp is not None and (self.stamp.month, self.stamp.day) > (tomorrow.month, tomorrow.day)
        return tomorrow.year - is_later


def ns_of(stamp: LocalStamp, year: int, zone: tzinfo) -> int | None:
    """Nanoseconds since 1970 of a local time; None when that year has no such day."""
    try:
        moment = datetime(year, stamp.month, stamp.day, tzinfo=zone) + timedelta(seconds=stamp.second)
        return (moment.astimezone(UTC) - _EPOCH) // timedelta(seconds=1) * 10**9 + stamp.nanosecond
    except (ValueError, OverflowError):
        return None


def _tagged(time: int | None, local: LocalStamp | None, rest: bytes) -> SyslogLine:
    match = _HOST_AND_TAG.fullmatch(rest)
    if match is None:
        return SyslogLine(time, local, "", "", None, rest)
    host, program, pid, message = match.groups()
    return SyslogLine(time, local, _name(host), _name(program), _number(pid), message or b"")


def _local(
    year: int | None, month: int, day: bytes, hour: bytes, minute: bytes, second: bytes, fraction: bytes | None
) -> LocalStamp | None:
    seconds = int(hour) * 3600 + int(minute) * 60 + int(second)
    if not 1 <= month <= 12 or not 1 <= int(day) <= 31 or seconds >= 86_401:
        return None
    return LocalStamp(year, month, int(day), seconds, int((fraction or b"0").ljust(9, b"0")))


def _full(stamp: bytes) -> int | None:
    text = stamp.decode("ascii", "replace").replace(" ", "T", 1)
    return parse_stamp(_ZONE.sub(r"\1:\2", text))


def _name(data: bytes) -> str:
    return "" if data == b"-" else data.decode("utf-8", "backslashreplace")


def _number(data: bytes | None) -> int | None:
    return int(data) if data is not None and data.isdigit() and len(data) < 11 else None
