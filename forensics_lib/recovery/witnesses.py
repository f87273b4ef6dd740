"""What the logs of a host and the commands typed on it tell of containers that were removed.

Lines of the daemons have the container's id or its name, hardly ever both: dockerd joins an endpoint by the container's
name, containerd starts a process by its id. Where nothing but the time ties the two, a name is given only to the one
container that was started then and has none, and is marked as likely.
Lines: moby ``daemon/libnetwork``, ``daemon/start.go``, ``daemon/server/middleware``; containerd ``core/runtime/v2``.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from forensics_lib.engines.fact import Fact, Sureness
from forensics_lib.engines.host.audit import AuditEvent
from forensics_lib.engines.host.commands import HostCommand
from forensics_lib.engines.host.daemon_log import DaemonLogLine
from forensics_lib.engines.journals import Journals
from forensics_lib.formats.journal import JournalEntry
from forensics_lib.formats.jsondoc import format_time
from forensics_lib.model import Origin
from forensics_lib.recovery.forms import CONTAINER_ID

__all__ = ["Life", "Witnesses", "iso"]

_ID = r"([0-9a-f]{64})"
_NAME = r"([a-zA-Z0-9][a-zA-Z0-9_.-]{1,254})"
_STARTED = re.compile(
    rf'connecting to shim {_ID}".*namespace=moby|starting signal loop".*/moby/{_ID} |EnableService {_ID} START'
)
_ENDED = re.compile(rf'msg="shim disconnected" id={_ID}.*namespace=moby|container={_ID} .*topic=/tasks/delete')
_SEEN = re.compile(rf"\bcontainer={_ID}(?![0-9a-f])")
_FORCED = re.compile(rf'failed to exit within .*using the force" container={_ID}|Container {_ID} failed to exit within')
_JOINED = re.compile(rf"\beid=([0-9a-f]{{12,64}}) ep={_NAME}(?: |$)")
_ENDPOINT = re.compile(rf"connectivity on endpoint {_NAME} \({_ID}\)|addresses for endpoint {_NAME}'s interface")
_ASKED = re.compile(rf"Calling POST (?:/v[\d.]+)?/containers/create\?(?:[^\s\"]*&)?name={_NAME}")
_SANDBOX = re.compile(rf"stale sandbox {_ID} \({_ID}\)")
_LAYER = re.compile(rf"mounted via layerStore: &\{{\S*?/([0-9a-z]{{25,64}})(?:/merged)?[ }}].*container={_ID}")
_TOOL, _VERB = re.compile(r"\b(?:docker|nerdctl)\b"), re.compile(r"\b(?:run|create)\b")
_NAMED = re.compile(rf"\s--name[= ]{_NAME}(?!\S)")
_TO_VERB, _TO_NAME, _TOOLS = 200, 4000, 16  # characters between the words of a command, and commands in one line
_MESSAGE = 16 << 10
"""Characters of a line of the daemon's log that are looked at; real ones are far shorter."""
_SHORT_ID = re.compile(r"(?<![0-9a-f])[0-9a-f]{12,64}(?![0-9a-f])")
_NOT_CONTAINERS = ("gateway_", "ingress-endpoint", "lb-")
_MAX_EVENTS = 1_000_000
_MAX_CANDIDATES = 16
_SECOND = 10**9
_TRUSTED = 3
"""So many containers with known names have to show how far a name and a start lie apart before that is relied on."""
_SLACK = _SECOND // 20


class _Named(NamedTuple):
    """A name at a time."""

    time_ns: int
    name: str
    method: str
    origin: Origin


class _Moment(NamedTuple):
    """A container at a time."""

    time_ns: int
    id: str


class Life(NamedTuple):
    """What records tell of a container.

    Attributes:
        name: empty when it is lost.
        born_ns: when it was created; None when that is lost.
        removed_ns: when it was removed; None for one that was not, or when that is not known.
    """

    name: str
    born_ns: int | None
    removed_ns: int | None


@dataclass
class Witnesses:
    """What lines and commands tell, sorted.

    Args:
        log: lines of the daemons.
        commands: commands about containers.
        audit: what the kernel noted of commands.
        journals: journals, in which containers with the driver ``journald`` have their logs; None where there are none.

    Attributes:
        seen: the containers of Docker that lines name by their id, each with the first line that does.
        logged: the containers of Docker whose logs the journals have.
        sandboxes: container ids by the ids of their network sandboxes.
        endpoints: names by the first 12 digits of the ids of endpoints.
    """

    log: Iterable[DaemonLogLine] = ()
    commands: Iterable[HostCommand] = ()
    audit: Iterable[AuditEvent] = ()
    journals: Journals | None = None
    seen: dict[str, Origin] = field(default_factory=dict)
    logged: set[str] = field(default_factory=set)
    sandboxes: dict[str, str] = field(default_factory=dict)
    endpoints: dict[str, tuple[str, Origin]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Read everything once."""
        self._facts: dict[str, dict[tuple[str, str], Fact]] = {}
        self._starts: list[_Moment] = []
        self._joined: list[_Named] = []
        self._asked: list[_Named] = []
        self._typed: list[_Named] = []
        self._texts: list[tuple[str, str, Origin]] = []
        for line in self.log:
            self._line(line)
        for command in self.commands:
            self._command(command.time_ns, command.command, f"command ({command.source})", command.origin)
        for event in self.audit:
            if event.arguments:
                self._command(event.time_ns, " ".join(event.arguments), "audit", event.origin)
        for value, _, entry in self.journals.values("CONTAINER_ID_FULL") if self.journals is not None else ():
            self._entry(value.decode("ascii", "replace"), entry)

    def facts(self, lives: Mapping[str, Life]) -> dict[str, list[Fact]]:
        """What is told of each container, by its id.

        Args:
            lives: the containers that are there and those that were removed.
        """
        told = {one: list(facts.values()) for one, facts in self._facts.items()}
        births = [_Moment(life.born_ns, one) for one, life in lives.items() if life.born_ns is not None]
        kinds = (
            (self._joined, self._starts, (-2 * _SECOND, 2 * _SECOND), "joined a network"),
            (self._asked, births, (-2 * _SECOND, _SECOND), "was asked for"),
            (self._typed, births, (-10 * _SECOND, _SECOND), "was typed"),
        )
        for names, moments, window, what in kinds:
            for container_id, fact in _paired(names, sorted(moments), lives, window, what):
                told.setdefault(container_id, []).append(fact)
        by_name: dict[str, list[str]] = {}
        for one, life in lives.items():
            by_name.setdefault(life.name, []).append(one)
        ids = sorted(lives)
        for text, method, origin in self._texts:
            for container_id, fact in _commands_about(text, method, origin, ids, by_name):
                told.setdefault(container_id, []).append(fact)
        return told

    def _line(self, line: DaemonLogLine) -> None:
        text = line.message[:_MESSAGE]
        if found := _STARTED.search(text):
            self._tell(_first(found), "started", line)
            if line.time_ns is not None and len(self._starts) < _MAX_EVENTS:
                self._starts.append(_Moment(line.time_ns, _first(found)))
        elif found := _ENDED.search(text):
            self._tell(_first(found), "ended", line)
        elif found := _FORCED.search(text):
            self._tell(_first(found), "killed after it did not stop", line)
        elif found := _LAYER.search(text):
            self._tell(found[2], "writable layer", line, found[1])
        elif found := _SEEN.search(text):
            self.seen.setdefault(found[1], line.origin)
        if found := _SANDBOX.search(text):
            self.sandboxes[found[1]] = found[2]
        if found := _JOINED.search(text):
            self._name(self._joined, found[2], line)
            self.endpoints.setdefault(found[1][:12], (found[2], line.origin))
        elif found := _ENDPOINT.search(text):
            name = found[1] or found[3]
            self._name(self._joined, name, line)
            if found[2]:
                self.endpoints.setdefault(found[2][:12], (name, line.origin))
        elif found := _ASKED.search(text):
            self._name(self._asked, found[1], line)

    def _tell(self, container_id: str, about: str, line: DaemonLogLine, value: str = "") -> None:
        """Keep what a line says of the container whose id it has, of each thing and value the first line."""
        self.seen.setdefault(container_id, line.origin)
        value = value or iso(line.time_ns)
        assumed = f"; the {line.assumed} of its time is assumed" if line.assumed else ""
        fact = Fact(
            about, value, Sureness.STATED, "daemon log", f"the line has its id{assumed}", line.origin, not assumed
        )
        self._facts.setdefault(container_id, {}).setdefault((about, value), fact)

    def _entry(self, container_id: str, entry: JournalEntry) -> None:
        """Keep what an entry of a container's log in the journal says of it; others than Docker write such, too."""
        if not CONTAINER_ID.fullmatch(container_id) or entry.text("_COMM").startswith("conmon"):
            return
        self.logged.add(container_id)
        for about, value in (("name", entry.text("CONTAINER_NAME")), ("image name", entry.text("IMAGE_NAME"))):
            fact = Fact(about, value, Sureness.STATED, "journal", "an entry of its log has its id", entry.origin)
            if value:
                self._facts.setdefault(container_id, {}).setdefault((about, value), fact)

    def _name(self, names: list[_Named], name: str, line: DaemonLogLine) -> None:
        if line.time_ns is not None and not name.startswith(_NOT_CONTAINERS) and len(names) < _MAX_EVENTS:
            names.append(_Named(line.time_ns, name, "daemon log", line.origin))

    def _command(self, time_ns: int | None, text: str, method: str, origin: Origin) -> None:
        if len(self._texts) >= _MAX_EVENTS:
            return
        self._texts.append((text, method, origin))
        if time_ns is not None and (name := _name_given(text)):
            self._typed.append(_Named(time_ns, name, method, origin))


def iso(time_ns: int | None) -> str:
    """A time as Docker writes it; empty when there is none."""
    return "" if time_ns is None else format_time(time_ns)


def _name_given(text: str) -> str:
    """The name that a command gives to a new container; empty when it gives none."""
    for tool in islice(_TOOL.finditer(text), _TOOLS):
        verb = _VERB.search(text, tool.end(), tool.end() + _TO_VERB)
        found = _NAMED.search(text, verb.end()) if verb is not None else None
        if verb is not None and found is not None and found.start() - verb.end() <= _TO_NAME:
            return found[1]
    return ""


def _first(found: re.Match[str]) -> str:
    return next(group for group in found.groups() if group)


def _commands_about(
    text: str, method: str, origin: Origin, ids: Sequence[str], by_name: Mapping[str, Sequence[str]]
) -> Iterator[tuple[str, Fact]]:
    """The containers that a command is about: those whose ids it has, and the only one with the name that it gives."""
    for start in dict.fromkeys(_SHORT_ID.findall(text)):
        fits = ids[bisect_left(ids, start) : bisect_left(ids, f"{start}g")]
        if len(fits) == 1:
            sure = Sureness.STATED if len(start) == len(fits[0]) else Sureness.DERIVED
            yield fits[0], Fact("command", text, sure, method, f"it has the id {start}", origin)
    name = _name_given(text)
    owners = by_name.get(name, ()) if name else ()
    if len(owners) == 1:
        yield owners[0], Fact("command", text, Sureness.LIKELY, method, f"it gives the name {name}", origin)


def _paired(
    names: Sequence[_Named],
    moments: Sequence[_Moment],
    lives: Mapping[str, Life],
    window: tuple[int, int],
    what: str,
) -> Iterator[tuple[str, Fact]]:
    """Names for containers that have none, by time: of a name and a container that fit nobody else.

    Args:
        names: names with their times.
        moments: containers with the times at which their names may have been noted, in order.
        lives: the containers.
        window: how far a name may come after the container's time, from and to, unless containers whose name is known
            show how far that is.
        what: how the two are tied, in words.
    """
    times = [moment.time_ns for moment in moments]

    def around(time_ns: int, reach: tuple[int, int]) -> Sequence[_Moment]:
        low, high = bisect_left(times, time_ns - reach[1]), bisect_right(times, time_ns - reach[0])
        return moments[low : min(high, low + _MAX_CANDIDATES)]

    open_names, lags = [], []
    owners: dict[str, list[str]] = {}
    for container_id, life in lives.items():
        if life.name:
            owners.setdefault(life.name, []).append(container_id)
    for named in names:
        known = [one for one in owners.get(named.name, ()) if _is_alive(lives[one], named.time_ns)]
        if not known:
            open_names.append(named)
        near = [moment for moment in around(named.time_ns, window) if moment.id in known]
        lags += [min((named.time_ns - moment.time_ns for moment in near), key=abs)] if near else []
    reach, shown = window, ""
    if len(lags) >= _TRUSTED:
        reach = (min(lags) - _SLACK, max(lags) + _SLACK)
        shown = (
            f"; {len(lags)} of containers whose name is known came {_seconds(min(lags))} to {_seconds(max(lags))} later"
        )
    fits: dict[str, dict[str, _Named]] = {}
    rivals: dict[str, set[str]] = {}
    for named in open_names:
        nameless = {
            moment.id for moment in around(named.time_ns, reach) if moment.id not in lives or not lives[moment.id].name
        }
        for container_id in nameless:
            fits.setdefault(container_id, {}).setdefault(named.name, named)
            rivals.setdefault(named.name, set()).update(nameless)
    for container_id, candidates in fits.items():
        for name, named in candidates.items():
            others = len(candidates) - 1 + len(rivals[name]) - 1
            detail = f"of the containers without a name only this one fits the time at which the name {what}{shown}"
            if others:
                detail = (
                    f"it fits the time at which the name {what}; {others} other pairs of name and container fit, too"
                )
            yield container_id, Fact("name", name, Sureness.LIKELY, named.method, detail, named.origin)


def _is_alive(life: Life, time_ns: int) -> bool:
    born, removed = life.born_ns, life.removed_ns
    return (born is None or born - _SECOND <= time_ns) and (removed is None or time_ns <= removed + _SECOND)


def _seconds(time_ns: int) -> str:
    return f"{time_ns / _SECOND:.2f} s"
