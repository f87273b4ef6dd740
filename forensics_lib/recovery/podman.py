"""Removed containers of Podman, put together again from rows and pages of its state, from events and from files.

Formats: podman ``libpod/container_config.go``, ``libpod/container.go`` (states), ``libpod/container_inspect.go``;
containers/storage ``containers.json``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

from forensics_lib.engines.container import Container
from forensics_lib.engines.container_parts import ContainerParts, ContainerState, Mount, Port
from forensics_lib.engines.fact import Fact, Sureness
from forensics_lib.engines.findings import Finding, findings_of
from forensics_lib.engines.logs import LogRecord, Pattern, filter_logs
from forensics_lib.engines.save import Saving
from forensics_lib.errors import DamagedData, ForensicsError, PathNotFound, UnsupportedFormat
from forensics_lib.formats.cri_log import read_cri_log
from forensics_lib.formats.jsondoc import (
    MAX_BYTES,
    JsonObject,
    iter_objects,
    parse,
    parse_beginning,
    parse_object,
    parse_time,
)
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.recovery.forms import CONTAINER_ID
from forensics_lib.recovery.libpod import PodmanEvent, PodmanStates, is_config
from forensics_lib.recovery.recovered import recovered_tree
from forensics_lib.recovery.remnant import Remnant
from forensics_lib.recovery.witnesses import iso
from forensics_lib.trees.base import Tree
from forensics_lib.trees.changes import diff
from forensics_lib.trees.index import IndexTree
from forensics_lib.trees.layered import Change
from forensics_lib.trees.outlet import Outlet

__all__ = ["podman_containers"]

_FILE = re.compile(r"(?:^|/)(?:overlay|vfs|btrfs)-containers/([0-9a-f]{64})/userdata/(.+)$")
_LAYER_FILE = re.compile(r"(?:^|/)overlay/([0-9a-f]{64})/diff/(.+)$")
_STORED = re.compile(r"(?:^|/)(?:overlay|vfs|btrfs)-containers/(?:\.tmp-)?(?:volatile-)?containers\.json\d*$")
_STATES = (
    ContainerState.UNKNOWN,
    ContainerState.CREATED,  # configured
    ContainerState.CREATED,  # initialized
    ContainerState.RUNNING,
    ContainerState.EXITED,  # stopped
    ContainerState.PAUSED,
    ContainerState.EXITED,
    ContainerState.REMOVING,
    ContainerState.EXITED,  # stopping
)
_REMOVING = 7
_TIMES = {"create": "created", "start": "started", "died": "ended", "remove": "removed"}
_MAX_CONTAINERS = 100_000
_MAX_STORED = 16 << 20
_KINDS = ("config", "record", "container")
_DATABASES = ("db.sql", "bolt_state.db")


@dataclass(slots=True)
class _Sighting:
    """Everything that was found of one container."""

    id: str
    configs: list[tuple[JsonObject, Remnant]] = field(default_factory=list)
    states: list[tuple[JsonObject, Remnant]] = field(default_factory=list)
    rows: list[Remnant] = field(default_factory=list)
    stored: list[tuple[JsonObject, Remnant]] = field(default_factory=list)
    files: dict[str, Remnant] = field(default_factory=dict)
    events: list[PodmanEvent] = field(default_factory=list)


def podman_containers(
    remnants: Iterable[Remnant], states: PodmanStates, problems: ProblemLog, outlet: Outlet | None
) -> list[Container]:
    """The containers that Podman removed, newest first; those that its state still has are left out.

    Args:
        remnants: everything that was found, by whatever method.
        states: Podman's state and events.
        problems: gets what cannot be read.
        outlet: the way for copies out of the evidence.
    """
    sightings: dict[str, _Sighting] = {}
    layers: dict[str, dict[str, Remnant]] = {}

    def of(container_id: str) -> _Sighting | None:
        if container_id in states.live or not CONTAINER_ID.fullmatch(container_id):
            return None
        if container_id not in sightings and len(sightings) >= _MAX_CONTAINERS:
            return None
        return sightings.setdefault(container_id, _Sighting(container_id))

    for remnant in remnants:
        if place := _FILE.search(remnant.path):
            if (sighting := of(place[1])) is not None:
                known = sighting.files.get(place[2])
                if known is None or (remnant.complete, remnant.size or 0) > (known.complete, known.size or 0):
                    sighting.files[place[2]] = remnant
        elif place := _LAYER_FILE.search(remnant.path):
            layers.setdefault(place[1], {}).setdefault(place[2], remnant)
        elif _STORED.search(remnant.path):
            for entry in _stored(remnant):
                if (sighting := of(entry.text("id"))) is not None:
                    sighting.stored.append((entry, remnant))
        else:
            _sort(remnant, of)
    removed = {event.id for event in states.events if event.what == "remove"}
    for event in states.events:
        is_gone = event.id in sightings or event.id in removed or states.is_known
        if is_gone and (sighting := of(event.id)) is not None:
            sighting.events.append(event)
    found = [Container(*_put_together(one, layers, problems, outlet)) for one in sightings.values()]
    return sorted(found, key=lambda container: (-(container.created_ns or 0), container.id))


def _sort(remnant: Remnant, of: Callable[[str], _Sighting | None]) -> None:
    """Put a row of a state, or a document that looks like one, to its container."""
    is_row = remnant.path.endswith(_DATABASES)
    if remnant.kind not in _KINDS or (remnant.content is None and not is_row):
        return
    document = _document(remnant) if remnant.content is not None else None
    if document is not None and is_config(document):
        if (sighting := of(document.text("id"))) is not None:
            sighting.configs.append((document, remnant))
    elif is_row and remnant.container_id and (sighting := of(remnant.container_id)) is not None:
        if document is not None and document.integer("state") is not None:
            sighting.states.append((document, remnant))
        else:
            sighting.rows.append(remnant)


def _document(remnant: Remnant) -> JsonObject | None:
    """A document; of one whose beginning is lost what the rest tells."""
    try:
        data = remnant.content.read_some(0, MAX_BYTES) if remnant.content is not None else b""
    except ForensicsError:
        return None
    if not data.startswith((b"{", b'"id":"')):
        return None
    found = parse_beginning(data if data.startswith(b"{") else b"{" + data, remnant.origin)
    return JsonObject(found) if isinstance(found, dict) else None


def _stored(remnant: Remnant) -> Iterator[JsonObject]:
    """The entries of a recovered ``containers.json``."""
    if remnant.content is None or not remnant.complete or (remnant.size or 0) > _MAX_STORED:
        return
    try:
        value = parse(remnant.read(), remnant.origin)
    except ForensicsError:
        return
    yield from iter_objects(value if isinstance(value, list) else [])


def _put_together(
    one: _Sighting, layers: dict[str, dict[str, Remnant]], problems: ProblemLog, outlet: Outlet | None
) -> tuple[ContainerParts, _Recovered]:
    configs = sorted(one.configs, key=lambda pair: pair[1].complete)
    config, source = configs[-1] if configs else (JsonObject({}), None)
    if not config.object("spec").raw and (specification := _specification(one.files.get("config.json"))) is not None:
        config = JsonObject({**config.raw, "spec": specification.raw})
    states = sorted(one.states, key=lambda pair: (pair[0].integer("state") != _REMOVING, _changed(pair[0])))
    state = states[-1][0] if states else JsonObject({})
    facts = list({(fact.about, fact.value): fact for fact in reversed(list(_facts(one)))}.values())[::-1]
    stored = one.stored[-1][0] if one.stored else JsonObject({})
    origins = [source.origin if source is not None else None, *(remnant.origin for remnant in one.rows)]
    origins += [event.origin for event in one.events[:1]] + [remnant.origin for _, remnant in one.stored[:1]]
    origins += [remnant.origin for remnant in one.files.values()]
    origin = next((origin for origin in origins if origin is not None), Origin("nothing"))
    parts = _parts(one.id, config, state, facts, origin, _note(one, source))
    layer = stored.text("layer")
    recovered = _Recovered(parts, config, state, one.files, layer, layers.get(layer, {}), problems, outlet)
    return parts, recovered


def _specification(remnant: Remnant | None) -> JsonObject | None:
    """The runtime specification that Podman wrote for the container's last start."""
    document = _document(remnant) if remnant is not None and remnant.complete else None
    return document if document is not None and document.text("ociVersion") else None


def _facts(one: _Sighting) -> Iterator[Fact]:
    """What places other than its configuration tell."""
    for event in one.events:
        detail = f"event {event.what} has its id"
        for about, value in (
            ("name", event.name),
            ("image name", event.image),
            (_TIMES.get(event.what, ""), iso(event.time_ns)),
        ):
            if about and value:
                yield Fact(about, value, Sureness.STATED, event.method, detail, event.origin)
        if event.exit_code is not None:
            yield Fact("exit code", str(event.exit_code), Sureness.STATED, event.method, detail, event.origin)
    for entry, remnant in one.stored:
        metadata = _inner(entry.text("metadata"), remnant.origin)
        found = [("name", name) for name in entry.texts("names")[:1]]
        found += [("image", entry.text("image")), ("image name", metadata.text("image-name"))]
        found += [("writable layer", entry.text("layer")), ("created", entry.text("created"))]
        for about, value in found:
            if value:
                yield Fact(about, value, Sureness.STATED, remnant.method, "a former list of containers", remnant.origin)
    for remnant in one.rows:
        yield Fact("record", remnant.detail, Sureness.STATED, remnant.method, "a row with its id", remnant.origin)


def _inner(text: str, origin: Origin) -> JsonObject:
    try:
        return parse_object(text.encode("utf-8", "surrogateescape"), origin) if text else JsonObject({})
    except ForensicsError:
        return JsonObject({})


def _told(facts: Iterable[Fact], about: str) -> str:
    """What the last fact about one thing says: events come in the order in which things happened."""
    return next((fact.value for fact in reversed(list(facts)) if fact.about == about), "")


def _parts(
    container_id: str, config: JsonObject, state: JsonObject, facts: list[Fact], origin: Origin, note: str
) -> ContainerParts:
    specification = config.object("spec")
    process = specification.object("process")
    words = process.texts("args") or (*config.texts("entrypoint"), *config.texts("command"))
    number = state.integer("state")
    is_known = number is not None and 0 <= number < len(_STATES)
    code = _told(facts, "exit code")
    ended = parse_time(state.text("finishedTime"))[1] or parse_time(_told(facts, "ended"))[1]
    exit_code = state.integer("exitCode") if ended is not None else None
    return ContainerParts(
        id=container_id,
        name=config.text("name") or _told(facts, "name"),
        image=config.text("rootfsImageName") or _told(facts, "image name"),
        image_id=config.text("rootfsImageID") or _told(facts, "image"),
        created_ns=parse_time(config.text("createdTime") or _told(facts, "created"))[1],
        state=_STATES[number] if is_known and number is not None else ContainerState.UNKNOWN,
        state_note=note,
        origin=origin,
        path=words[0] if words else "",
        args=words[1:],
        env=process.texts("env"),
        labels=tuple(config.mapping("labels").items()),
        working_dir=process.text("cwd"),
        user=config.text("user"),
        hostname=specification.text("hostname"),
        ports=tuple(_ports(config)),
        mounts=tuple(_mounts(config)),
        started_ns=parse_time(state.text("startedTime") or _told(facts, "started"))[1],
        finished_ns=ended,
        exit_code=exit_code if exit_code is not None else int(code) if code.isdecimal() else None,
        pid=state.integer("pid") or 0,
        restart_count=state.integer("restartCount") or 0,
        restart_policy=config.text("restart_policy"),
        log_driver=config.text("logDriver"),
        privileged=config.flag("privileged"),
        read_only=specification.object("root").flag("readonly"),
        facts=tuple(facts),
    )


def _ports(config: JsonObject) -> Iterator[Port]:
    for entry in config.objects("newPortMappings") or config.objects("portMappings"):
        port = entry.integer("container_port") or entry.integer("containerPort")
        host = entry.integer("host_port") or entry.integer("hostPort")
        if port is not None and 0 < port < 1 << 16:
            address = entry.text("host_ip") or entry.text("hostIP")
            yield Port(port, entry.text("protocol") or "tcp", address, host)


def _mounts(config: JsonObject) -> Iterator[Mount]:
    """The mounts that were asked for: of the specification those that Podman does not make itself, and volumes."""
    for volume in config.objects("namedVolumes"):
        options = volume.texts("options")
        yield Mount(
            "volume", "", volume.text("dest"), volume.text("volumeName"), "local", "ro" in options, ",".join(options)
        )
    for mount in config.object("spec").objects("mounts"):
        if mount.text("type") == "bind" and mount.text("source").startswith("/"):
            options = mount.texts("options")
            yield Mount(
                "bind", mount.text("source"), mount.text("destination"), "", "", "ro" in options, ",".join(options)
            )


def _changed(state: JsonObject) -> int:
    times = (state.text("startedTime"), state.text("finishedTime"))
    return max((time for _, time in map(parse_time, times) if time is not None), default=0)


def _note(one: _Sighting, source: Remnant | None) -> str:
    history = "; ".join(f"{event.what} {iso(event.time_ns)}" for event in one.events if event.what in _TIMES)
    rows = "; ".join(remnant.detail for remnant in one.rows[:3])
    how = f"{source.confidence} by {source.method}" if source is not None else "its configuration was not recovered"
    return "it was removed; " + "; ".join(filter(None, (history, rows, f"(identity: {how})")))


@dataclass(frozen=True, slots=True)
class _Recovered:
    """Answers of one removed container of Podman, as far as they were recovered."""

    parts: ContainerParts
    config: JsonObject
    state: JsonObject
    named: dict[str, Remnant]
    layer: str
    files: dict[str, Remnant]
    problems: ProblemLog
    copies: Outlet | None

    @property
    def outlet(self) -> Outlet:
        """The way for copies out of the evidence."""
        if self.copies is None:
            raise UnsupportedFormat("nothing can be copied out")
        return self.copies

    def inspect(self) -> dict[str, object]:
        """What ``podman inspect`` said, as far as the configuration and the state tell; other keys are not there."""
        parts, config, state = self.parts, self.config, self.state
        answer: dict[str, object] = {"Id": parts.id}
        if parts.name:
            answer["Name"] = parts.name
        if parts.image:
            answer["ImageName"] = parts.image
        if parts.image_id:
            answer["Image"] = parts.image_id
        if config.text("createdTime"):  # an event follows some milliseconds later
            answer["Created"] = config.text("createdTime")
        if config.raw:
            answer |= _of_config(parts, config)
        if state.raw:
            answer["State"] = _of_state(state)
            answer["RestartCount"] = parts.restart_count
        return answer

    def logs(self, pattern: Pattern | None, since: datetime | None, until: datetime | None) -> Iterator[LogRecord]:
        """What it wrote with the driver ``k8s-file``, as far as its file was recovered."""
        return filter_logs(self._records(), pattern, since, until)

    def _records(self) -> Iterator[LogRecord]:
        remnant = self.named.get("ctr.log")
        if remnant is None or remnant.content is None:
            return

        def no_record(error: DamagedData) -> None:
            self.problems.add(remnant.origin.to("record", error.offset), error)

        yield from read_cri_log(remnant.content.blocks(), remnant.origin, no_record)

    def tree(self) -> Tree:
        """The files that it wrote, as far as they were recovered; not those of its image."""
        if not self.files:
            message = "no file that it wrote was recovered, or which layer held them is not known"
            raise UnsupportedFormat(f"container {self.parts.id}: {message}")
        return recovered_tree(self.files, self.parts.origin)

    def diff(self) -> Iterator[Change]:
        """What it wrote; what it changed shows as added, for the layers of its image are not compared."""
        self.problems.add(self.parts.origin, "the image of the removed container is not compared: all shows as added")
        yield from diff(IndexTree(self.parts.origin), self.tree())

    def hidden_changes(self) -> Iterator[Change]:
        """None: its image is not compared."""
        yield from ()

    def findings(self) -> Iterator[Finding]:
        """What to look at first."""
        yield from findings_of(self.parts, self.parts.origin, self.parts.origin)

    def mount(self, destination: str) -> Tree:
        """Mounts of removed containers of Podman are not followed."""
        raise PathNotFound(f"container {self.parts.id} was removed; what was mounted at {destination} is not followed")

    def sizes(self) -> tuple[int | None, int | None]:
        """Not known of a removed container."""
        return None, None

    def saving(self) -> Saving:
        """A removed container cannot be written as an image: its owners, modes and deletions are not known."""
        raise UnsupportedFormat(f"container {self.parts.id} was removed; too little is left for an image of it")


def _of_config(parts: ContainerParts, config: JsonObject) -> dict[str, object]:
    """The keys of which the configuration tells; of a torn one the specification or other parts are missing."""
    specification = config.object("spec")
    answer: dict[str, object] = {"Path": parts.path, "Args": list(parts.args)} if parts.path else {}
    own: dict[str, object] = {"Image": parts.image} if parts.image else {}
    host: dict[str, object] = {}
    if specification.raw:
        process = specification.object("process")
        own |= {"Hostname": parts.hostname, "Env": list(parts.env), "WorkingDir": parts.working_dir}
        own |= {"Tty": process.flag("terminal")}
        own |= {"Annotations": specification.get("annotations")} if "annotations" in specification else {}
        host["ReadonlyRootfs"] = parts.read_only
    copied = (
        (answer, "Pod", "pod"),
        (answer, "StaticDir", "staticDir"),
        (answer, "ProcessLabel", "ProcessLabel"),
        (answer, "MountLabel", "MountLabel"),
        (answer, "ConmonPidFile", "conmonPidFile"),
        (answer, "OCIRuntime", "runtime"),
        (own, "User", "user"),
        (own, "Cmd", "command"),
        (own, "Labels", "labels"),
        (own, "CreateCommand", "CreateCommand"),
        (own, "StopTimeout", "stopTimeout"),
        (own, "Umask", "umask"),
        (host, "Privileged", "privileged"),
        (host, "ShmSize", "shmSize"),
    )
    for target, key, name in copied:
        if name in config:
            target[key] = config.get(name)
    if "logDriver" in config:
        host["LogConfig"] = {"Type": parts.log_driver, "Path": config.text("logPath")}
    return answer | {"Config": own, "HostConfig": host}


def _of_state(state: JsonObject) -> dict[str, object]:
    number = state.integer("state")
    names = ("unknown", "configured", "created", "running", "stopped", "paused", "exited", "removing", "stopping")
    shown: dict[str, object] = {
        "Status": names[number] if number is not None and 0 <= number < len(names) else "unknown",
        "Running": number == 3,
        "Paused": number == 5,
        "Pid": state.integer("pid") or 0,
        "ConmonPid": state.integer("conmonPid") or 0,
        "ExitCode": state.integer("exitCode") or 0,
        "OOMKilled": state.flag("oomKilled"),
        "StartedAt": state.text("startedTime"),
        "FinishedAt": state.text("finishedTime"),
    }
    return shown
