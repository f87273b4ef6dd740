"""What Podman's state and its events tell of containers that were removed.

Podman before 5 keeps its state in ``libpod/bolt_state.db``: a bucket for each container with ``config`` and ``state``,
and exit codes that outlive the container. (`recovery.sqlite` reads its successor ``db.sql``.) Events are lines of a
file or entries of the journal, and outlive it as well.
Format: podman ``libpod/boltdb_state_internal.go``, ``libpod/events``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice

from forensics_lib.engines.journals import Journals
from forensics_lib.errors import ForensicsError
from forensics_lib.formats.bbolt import Bolt, State
from forensics_lib.formats.jsondoc import MAX_BYTES, JsonObject, iter_objects, parse, parse_object, parse_time
from forensics_lib.formats.log_record import split_lines
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.recovery.database import BoltDatabase
from forensics_lib.recovery.forms import CONTAINER_ID
from forensics_lib.recovery.remnant import Confidence, Remnant
from forensics_lib.recovery.sqlite import live_rows
from forensics_lib.sources.base import BytesSource
from forensics_lib.trees.base import Node, NodeKind, Tree, join

__all__ = ["PodmanEvent", "PodmanStates", "is_config"]

_STORAGE = (
    "/var/lib/containers/storage",
    "/root/.local/share/containers/storage",
    "/storage",
    "",
)
_IN_HOME = ".local/share/containers/storage"
_BOLT = ("libpod/bolt_state.db", "bolt_state.db")
_LISTS = tuple(
    f"{driver}-containers/{name}.json"
    for driver in ("overlay", "vfs", "btrfs", "zfs")
    for name in ("containers", "volatile-containers")
)
_EVENTS = ("/run/libpod/events/events.log", "/run/podman/events/events.log", "/events.log", "/events/events.log")
_CONTAINERS, _CODES, _TIMES = b"ctr", b"exit-code", b"exit-code-time-stamp"
_LATER_PART = re.compile(rb',"id":"([0-9a-f]{64})","name":"')
_STATE = re.compile(rb'\{"state":\d,"configPath":"[^"]{0,200}-containers/([0-9a-f]{64})/')
_PAGE = 4096
_LARGEST, _MAX_DOCUMENT = 64 << 20, 1 << 20
_MAX_HOMES = 10_000
_MAX_LINE = 1 << 20
_MAX_EVENTS = 1_000_000
_MAX_RECORDS = 1_000_000


@dataclass(frozen=True, slots=True)
class PodmanEvent:
    """Something that happened to a container of Podman.

    Attributes:
        time_ns: when; None when it is not noted.
        id: the container.
        name: its name then.
        image: its image by name.
        what: ``create``, ``start``, ``died``, ``remove`` …
        exit_code: of ``died``; None with others.
        method: ``libpod events`` or ``journal``.
        origin: the line or the entry.
    """

    time_ns: int | None
    id: str
    name: str
    image: str
    what: str
    exit_code: int | None
    method: str
    origin: Origin


def is_config(document: JsonObject) -> bool:
    """Whether a document is a container's configuration as Podman writes it, or the later part of one."""
    is_of_container = CONTAINER_ID.fullmatch(document.text("id")) is not None and bool(document.text("name"))
    return is_of_container and ("lockID" in document or ("spec" in document and "createdTime" in document))


@dataclass
class PodmanStates:
    """The states and events of every Podman of the evidence.

    Args:
        trees: file systems of hosts, or copies of a storage folder.
        journals: the hosts' journals; None where there are none.
        problems: gets what cannot be read.
    """

    trees: Iterable[Tree]
    journals: Journals | None
    problems: ProblemLog
    _databases: list[tuple[Node, BoltDatabase]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Find the databases."""
        self.trees = list(self.trees)
        for tree in self.trees:
            for path in _places(tree):
                node = tree.node(path)
                try:
                    self._databases.append((node, BoltDatabase(path, Bolt(node.source(), self.problems))))
                except ForensicsError as error:
                    self.problems.add(_origin(node), error)

    def remnants(self) -> Iterator[Remnant]:
        """What the databases no longer reach, and exit codes of containers that they do not have any more."""
        for node, database in self._databases:
            try:
                yield from _gone(database)
                yield from _codes(database)
                yield from _torn(_origin(node), node.source().read_some(0, _LARGEST), node.path, self.live)
            except ForensicsError as error:
                self.problems.add(_origin(node), error)

    @cached_property
    def live(self) -> set[str]:
        """Ids of the containers that the states have, and those that the storage lists: of CRI-O and Buildah, too."""
        found = {str(row[0]) for row in live_rows(self.trees, "ContainerConfig") if row}
        for _, database in self._databases:
            for key, _ in _children(database):
                found.add(key.decode("ascii", "replace"))
        for tree in self.trees:
            found.update(_listed(tree))
        return found

    @cached_property
    def is_known(self) -> bool:
        """Whether the evidence has a state, so that a container which it does not have was removed."""
        return bool(self._databases) or any(True for _ in live_rows(self.trees, "DBConfig"))

    @cached_property
    def events(self) -> list[PodmanEvent]:
        """What happened to containers, file after file, then journals; bounded."""
        return list(islice(self._all_events(), _MAX_EVENTS))

    def _all_events(self) -> Iterator[PodmanEvent]:
        for tree in self.trees:
            for path in _EVENTS:
                if path in tree and (node := tree.node(path)).kind is NodeKind.FILE:
                    yield from _of_file(node, self.problems)
        if self.journals is not None:
            for entry in self.journals.entries({"PODMAN_ID": lambda value: True}):
                code = entry.text("PODMAN_EXIT_CODE")
                if entry.text("PODMAN_TYPE") == "container" and CONTAINER_ID.fullmatch(entry.text("PODMAN_ID")):
                    yield PodmanEvent(
                        entry.time_ns,
                        entry.text("PODMAN_ID"),
                        entry.text("PODMAN_NAME"),
                        entry.text("PODMAN_IMAGE"),
                        entry.text("PODMAN_EVENT"),
                        int(code) if code.isdecimal() and len(code) < 6 else None,
                        "journal",
                        entry.origin,
                    )


def _folders(tree: Tree) -> list[str]:
    """Where storage may lie."""
    try:
        children = tree.children("/home") if "/home" in tree else ()
        homes = [join(node.path, _IN_HOME) for node in islice(children, _MAX_HOMES)]
    except ForensicsError:
        homes = []
    return [*_STORAGE, *homes]


def _places(tree: Tree) -> Iterator[str]:
    """Where databases lie."""
    for place in dict.fromkeys(f"{folder}/{name}" for folder in _folders(tree) for name in _BOLT):
        if place in tree and (node := tree.node(place)).kind is NodeKind.FILE and node.size:
            yield place


def _listed(tree: Tree) -> Iterator[str]:
    """Ids of the containers that storage has now."""
    for place in (f"{folder}/{name}" for folder in _folders(tree) for name in _LISTS):
        with suppress(ForensicsError):
            if place in tree and tree.node(place).size <= MAX_BYTES:
                value = parse(tree.read(place), tree.origin)
                yield from (one.text("id") for one in iter_objects(value if isinstance(value, list) else []))


def _children(database: BoltDatabase) -> Iterator[tuple[bytes, object]]:
    bucket = database.bolt.root.bucket(_CONTAINERS)
    if bucket is not None:
        yield from islice(bucket.buckets(), _MAX_RECORDS)


def _gone(database: BoltDatabase) -> Iterator[Remnant]:
    """Configurations and states of containers that are not live with the same value."""
    for record in database.gone:
        if record.value is None:
            continue
        try:
            document = parse_object(record.value, record.origin)
        except ForensicsError:
            continue
        if is_config(document):
            words = " ".join(document.object("spec").object("process").texts("args"))[:200]
            image = document.text("rootfsImageName")
            detail = f"container {document.text('name')}{f' of {image}' if image else ''}: {words}"
            yield database.remnant(
                record, "config", database.was(record, detail), content=record.value, container_id=document.text("id")
            )
        elif record.key == b"state" and "state" in document:
            owner = next((name.decode() for name in reversed(record.path) if _is_id(name)), "")
            detail = database.was(record, f"state of container {owner[:12] or 'unknown'}")
            yield database.remnant(record, "record", detail, content=record.value, container_id=owner)


def _codes(database: BoltDatabase) -> Iterator[Remnant]:
    """Exit codes of containers that are not there any more."""
    bucket, times = database.bolt.root.bucket(_CODES), database.bolt.root.bucket(_TIMES)
    live = {key for key, _ in _children(database)}
    for record in islice(bucket.walk(), _MAX_RECORDS) if bucket is not None else ():
        if record.state is State.LIVE and record.value is not None and _is_id(record.key) and record.key not in live:
            owner, code = record.key.decode(), record.value[:8].decode("ascii", "replace")
            stamp = (times.get(record.key) or b"").decode("ascii", "replace")[:40] if times is not None else ""
            detail = f"container {owner[:12]} exited with {code}{f' at {stamp}' if stamp else ''}"
            detail += "; the container was removed"
            ended_ns = parse_time(stamp)[1] if stamp else None
            row = database.remnant(record, "container", detail, container_id=owner, modified_ns=ended_ns)
            yield replace(row, method="bbolt row")


def _torn(origin: Origin, data: bytes, path: str, live: Collection[str]) -> Iterator[Remnant]:
    """Documents of removed containers whose beginning was overwritten: long ones lie over several pages."""
    for pattern, kind in ((_LATER_PART, "config"), (_STATE, "record")):
        for match in islice(pattern.finditer(data), _MAX_RECORDS):
            owner, start = match[1].decode(), match.start() + (kind == "config")
            content = data[start : _end(data, start, kind == "config")]
            if owner in live:
                continue
            what = "later part of the configuration" if kind == "config" else "state"
            yield Remnant(
                kind=kind,
                path=path,
                container_id=owner,
                image_id="",
                method="bbolt page",
                confidence=Confidence.CARVED,
                complete=False,
                size=len(content),
                origin=origin.to(f"page {start // _PAGE}", start),
                detail=f"{what} of container {owner[:12]}; the page before was overwritten",
                content=BytesSource(content, origin),
            )


def _end(data: bytes, start: int, is_inside: bool) -> int:
    """Where a document ends of which all or, from inside it, the rest is there; of a torn one where its text does."""
    text = data[start : start + _MAX_DOCUMENT].decode("latin-1")
    try:
        return start + json.JSONDecoder().raw_decode("{" * is_inside + text)[1] - is_inside
    except (ValueError, RecursionError):
        torn = text.find("\0")
        return start + (torn if torn >= 0 else len(text))


def _origin(node: Node) -> Origin:
    return node.origin.to(node.path.lstrip("/"))


def _is_id(name: bytes) -> bool:
    return len(name) == 64 and CONTAINER_ID.fullmatch(name.decode("ascii", "replace")) is not None


def _of_file(node: Node, problems: ProblemLog) -> Iterator[PodmanEvent]:
    place = _origin(node)
    try:
        for offset, line, _ in split_lines(node.source().blocks(), _MAX_LINE):
            if not line.strip():
                continue
            origin = place.to("line", offset)
            try:
                event = parse_object(line, origin)
            except ForensicsError as error:
                problems.add(origin, error)
                continue
            if event.text("Type") == "container" and CONTAINER_ID.fullmatch(event.text("ID")):
                yield PodmanEvent(
                    parse_time(event.text("Time"))[1],
                    event.text("ID"),
                    event.text("Name"),
                    event.text("Image"),
                    event.text("Status"),
                    event.integer("ContainerExitCode"),
                    "libpod events",
                    origin,
                )
    except ForensicsError as error:
        problems.add(place, error)
