"""Containers that left nothing but lines in a host's journal, which outlives them.

Format: moby ``daemon/logger/journald/journald.go``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from forensics_lib.engines.container import Container
from forensics_lib.engines.container_parts import ContainerState
from forensics_lib.engines.docker.containers import record_of
from forensics_lib.engines.docker.engine import DockerRoot
from forensics_lib.engines.docker.journald import JournalLog
from forensics_lib.engines.journals import Journals
from forensics_lib.formats.journal import JournalEntry
from forensics_lib.formats.jsondoc import JsonObject, JsonValue
from forensics_lib.model import ProblemLog
from forensics_lib.recovery.forms import CONTAINER_ID
from forensics_lib.recovery.recovered import Recovered, RecoveredParts
from forensics_lib.trees.outlet import Outlet

__all__ = ["journaled_containers"]

_MAX_CONTAINERS = 100_000


def journaled_containers(
    journals: Journals,
    known: Collection[str],
    docker: DockerRoot | None,
    outlet: Outlet | None,
    problems: ProblemLog,
) -> Iterator[Container]:
    """The containers of Docker that no record tells of, only the journal; the newest first.

    They have a name, an image and their log; that is all the journal keeps.

    Args:
        journals: the journals of the evidence.
        known: ids of the containers that records tell of.
        docker: the data root they are taken to have belonged to; None where there is none.
        outlet: the way for copies out of the evidence.
        problems: gets what cannot be read.
    """
    seen: dict[str, list[tuple[int, JournalEntry]]] = {}
    for value, count, first in journals.values("CONTAINER_ID_FULL"):
        container_id = value.decode("ascii", "replace")
        is_other = first.text("_COMM").startswith("conmon") or container_id in known  # of Podman or CRI-O
        has_room = container_id in seen or len(seen) < _MAX_CONTAINERS
        if has_room and not is_other and CONTAINER_ID.fullmatch(container_id):
            seen.setdefault(container_id, []).append((count, first))
    order = sorted(seen.items(), key=lambda one: -_first(one[1]).realtime_us)
    for container_id, found in order:
        yield _container(container_id, found, journals, docker, outlet, problems)


def _container(
    container_id: str,
    found: Sequence[tuple[int, JournalEntry]],
    journals: Journals,
    docker: DockerRoot | None,
    outlet: Outlet | None,
    problems: ProblemLog,
) -> Container:
    first = _first(found)
    config: dict[str, JsonValue] = {
        "ID": container_id,
        "Name": f"/{first.text('CONTAINER_NAME')}",
        "Config": {"Image": first.text("IMAGE_NAME")},
    }
    host: dict[str, JsonValue] = {"LogConfig": {"Type": "journald"}}
    record = record_of(container_id, "/", JsonObject(config), JsonObject(host), first.origin, first.origin)
    since = f"{first.time:%Y-%m-%d %H:%M:%S} UTC" if first.time is not None else "an unknown time"
    count = sum(number for number, _ in found)
    entries = f"{count} entr{'y' if count == 1 else 'ies'}"
    note = f"no record of it is left: only the journal tells of it, in {entries}, the first of {since}"
    parts = replace(record.parts, state=ContainerState.UNKNOWN, state_note=note)
    log = JournalLog(journals, container_id, docker is None or docker.engine.at_least(23))
    return Container(parts, Recovered(RecoveredParts(record), docker, outlet, problems, log))


def _first(found: Sequence[tuple[int, JournalEntry]]) -> JournalEntry:
    return min((entry for _, entry in found), key=lambda entry: entry.realtime_us)
