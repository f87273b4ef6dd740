"""Removed containers, put together again from everything that was found of them.

What belongs together is told by the container's id of 64 digits; a log without a name by the time of its records.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from forensics_lib.engines.container import Container
from forensics_lib.engines.container_parts import ContainerState
from forensics_lib.engines.docker.containers import ContainerRecord, record_of
from forensics_lib.engines.docker.engine import DockerRoot
from forensics_lib.engines.fact import Fact, Sureness
from forensics_lib.formats.jsondoc import JsonObject, JsonValue, parse_time
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.recovery.facts import (
    ImagesByTop,
    completed,
    disputed,
    facts_instead,
    facts_of_files,
    facts_of_mount,
    facts_of_networks,
    settled,
)
from forensics_lib.recovery.forms import CONTAINER_ID, state_rank, state_text
from forensics_lib.recovery.logs import share_logs
from forensics_lib.recovery.recovered import DEFAULT_ROOT, Recovered, RecoveredParts
from forensics_lib.recovery.remnant import Remnant
from forensics_lib.recovery.sightings import FILES, Collected, Generation, Sighting, text_of
from forensics_lib.recovery.witnesses import Life, Witnesses
from forensics_lib.trees.outlet import Outlet

__all__ = ["deleted_containers"]

_DRIVER = re.compile(r"(?:^|/)image/([^/]+)/layerdb/")
_VOLUME = re.compile(r"/volumes/([a-zA-Z0-9][a-zA-Z0-9_.-]{0,254})/_data$")
_NAMES = ("io.kubernetes.cri.container-name", "nerdctl/name")
_IMAGES = ("io.kubernetes.cri.image-name",)
_SOON = 10**9
_ADJACENT = 16 << 10
_COMMON = ("bridge", "host", "none")
_OF_LAYER = ("link", "lower")
_INIT_FILE = ".dockerenv"
_SHOWN = 3
_NOTHING: dict[str, JsonValue] = {}


def deleted_containers(
    remnants: Iterable[Remnant],
    dockers: Sequence[DockerRoot],
    problems: ProblemLog,
    outlet: Outlet | None = None,
    witnesses: Witnesses | None = None,
) -> list[Container]:
    """The containers that were removed, newest first; those that Docker still lists are left out.

    Args:
        remnants: everything that was found, by whatever method.
        dockers: the data roots that are left.
        problems: gets what cannot be told for certain.
        outlet: the way for copies out of the evidence; that of the first data root by default.
        witnesses: what the logs of the hosts and the commands typed there tell.
    """
    witnesses = witnesses or Witnesses()
    live = {record.id: record for docker in dockers for record in docker.records}
    collected = Collected(live.keys())
    for remnant in remnants:
        collected.add(remnant)
    if any(docker.root.at("containers") in docker.reader.tree for docker in dockers):  # else nothing tells who is there
        for container_id, origin in witnesses.seen.items():
            if container_id not in witnesses.logged:  # of such a one the journal tells more
                collected.add_seen(container_id, origin)
    told = _facts(collected, live, dockers, witnesses)
    root = dockers[0].real_root if dockers else DEFAULT_ROOT
    found = [_parts(one, collected, told.get(one.id, []), root) for one in collected.sightings.values()]
    _find_layers(found, collected, dockers)
    logs = [
        (record, container.logs)
        for docker in dockers
        for record, container in zip(docker.records, docker.containers, strict=True)
    ]
    share_logs(found, logs, collected.logs, problems)
    if outlet is None and dockers:
        outlet = dockers[0].outlet
    containers = [
        Container(parts.record.parts, Recovered(parts, _home(parts.record, dockers), outlet, problems))
        for parts in found
    ]
    return sorted(containers, key=lambda container: (-(container.created_ns or 0), container.id))


def _facts(
    collected: Collected, live: Mapping[str, ContainerRecord], dockers: Sequence[DockerRoot], witnesses: Witnesses
) -> dict[str, list[Fact]]:
    """What is told of each container by places other than its own record."""
    images = ImagesByTop(dockers, collected.images)
    told: dict[str, list[Fact]] = {one: [] for one in collected.sightings}
    for one, fact in facts_of_networks(collected.network_records, dockers, witnesses):
        if one in told:
            told[one].append(fact)
    lives = {one: Life(record.parts.name, record.parts.created_ns, None) for one, record in live.items()}
    for one, sighting in collected.sightings.items():
        mount = collected.mounts.get(one, {})
        told[one] += facts_of_files(one, sighting.files)
        told[one] += facts_of_mount(mount, images, collected.layer_below(text_of(mount.get("mount-id")), dockers))
        if not any(generation.whole for generation in sighting.configs):
            image = settled(told[one], "image")
            told[one] += facts_instead(mount, images, image.value if image is not None else "")
        lives[one] = _life(sighting, mount, told[one])
    for one, facts in witnesses.facts(lives).items():
        if one in told:
            told[one] += facts
    _drop_rivals(told, lives)
    return told


def _life(sighting: Sighting, mount: Mapping[str, Remnant], facts: Iterable[Fact]) -> Life:
    """A container's name and times, from its newest record, else from what is as sure."""
    newest = max(sighting.configs, key=lambda one: one.rank, default=None)
    born = [one.modified_ns for one in mount.values() if one.modified_ns]
    name = next((one.value for one in facts if one.about == "name"), "")
    created = min(born, default=None)
    if newest is not None:
        name = newest.document.text("Name").removeprefix("/") or name
        created = parse_time(newest.document.text("Created"))[1] or created
    return Life(name, created, sighting.removed_ns)


def _drop_rivals(told: Mapping[str, list[Fact]], lives: Mapping[str, Life]) -> None:
    """Mark likely names that are as likely of another container, so that none of the two gets it."""
    owners: dict[str, set[str]] = {}
    for one, facts in told.items():
        for fact in facts:
            if fact.about == "name" and fact.sureness is Sureness.LIKELY and not lives[one].name:
                owners.setdefault(fact.value, set()).add(one)
    for one, facts in told.items():
        told[one][:] = [
            replace(fact, about="possible name")
            if fact.about == "name" and fact.sureness is Sureness.LIKELY and len(owners.get(fact.value, ())) > 1
            else fact
            for fact in facts
        ]


def _parts(sighting: Sighting, collected: Collected, facts: list[Fact], root: str) -> RecoveredParts:
    """A container from what was found of it: its record before the removal, which takes back its addresses."""
    configs = sorted(sighting.configs, key=lambda one: one.rank)
    before = [one for one in configs if one.whole and not state_rank(one.document)[0]]
    shown = before[-1] if before else configs[-1] if configs else sighting.specification
    config, origin = JsonObject(_NOTHING), sighting.first or Origin("nothing")
    if shown is not None:
        config, origin = shown.document, shown.remnant.origin
        if shown is sighting.specification:
            config = _as_config(sighting.id, shown.document)
    host = _host(shown, sighting.hosts or _fitting(config, collected.hosts))
    host_document, host_origin = (host.document, host.remnant.origin) if host else (JsonObject(_NOTHING), origin)
    mount = collected.mounts.get(sighting.id, {})
    places = [match[1] for one in mount.values() if (match := _DRIVER.search(one.path))]
    is_whole = shown is not None and shown.whole and shown is not sighting.specification
    used: list[Fact] = []
    if not is_whole:
        driver = next(iter(places), "")
        config, partial, used = completed(sighting.id, config, facts, sighting.files, driver, root)
        host_document = host_document if host else partial
    record = record_of(sighting.id, "/", config, host_document, origin, host_origin)
    note = _note(sighting, configs, host) + _note_of_facts(facts, used, record)
    parts = replace(record.parts, state_note=note, facts=tuple(facts))
    if "State" not in config:
        started, finished = _run(facts)
        parts = replace(parts, started_ns=started, finished_ns=finished)
    if configs and configs[-1] is not shown:  # how it ended is written with its removal
        last = record_of(sighting.id, "/", configs[-1].document, host_document, origin, host_origin).parts
        parts = replace(parts, state=last.state, pid=last.pid)
        if last.finished_ns is not None:
            parts = replace(parts, finished_ns=last.finished_ns, exit_code=last.exit_code)
    elif not configs:
        parts = replace(parts, state=ContainerState.REMOVING if sighting.methods else ContainerState.UNKNOWN)
    found = RecoveredParts(replace(record, parts=parts), dict(sighting.files), is_whole=is_whole)
    found.is_specified = shown is not None and shown is sighting.specification
    found.mount_id, found.top = text_of(mount.get("mount-id")), text_of(mount.get("parent"))
    found.driver = record.parts.storage_driver or next(iter(places), "")
    found.files = collected.files_of(found.mount_id)
    found.lower = collected.stack(found.top)
    return found


def _run(facts: Iterable[Fact]) -> tuple[int | None, int | None]:
    """When it was last started and when that ended, by lines of logs whose time is told and not assumed."""
    times: dict[str, int] = {}
    for fact in facts:
        time_ns = parse_time(fact.value)[1] if fact.about in ("started", "ended") and fact.is_exact else None
        if time_ns is not None:
            times[fact.about] = max(times.get(fact.about, time_ns), time_ns)
    started, ended = times.get("started"), times.get("ended")
    return started, ended if ended is not None and ended >= (started or 0) else None


def _note_of_facts(facts: Sequence[Fact], used: Sequence[Fact], record: ContainerRecord) -> str:
    """Which of what is shown is not from a record, and who says something else."""
    words = [f"{one.about} {one.value} ({one.sureness}, {one.method}: {one.detail})" for one in used]
    note = f"; from elsewhere: {'; '.join(words)}" if words else ""
    for about, own in (("name", record.parts.name), ("image", record.parts.image_id)):
        values = disputed(facts, about)
        if not own and values:
            note += f"; its {about} is disputed: {' or '.join(values[:_SHOWN])}"
        others = {one.value for one in facts if one.about == about and one.sureness is not Sureness.LIKELY} - {own}
        if own and others:
            note += f"; elsewhere its {about} is {', '.join(sorted(others)[:_SHOWN])}"
    return note


def _find_layers(found: Sequence[RecoveredParts], collected: Collected, dockers: Sequence[DockerRoot]) -> None:
    """Give writable layers whose owner is not recorded to the containers that were created when they were."""
    taken = {parts.mount_id for parts in found}
    for docker in dockers:
        for name in docker.storage_drivers:
            taken |= set(docker.driver(name).directories())
    born = {
        name: min(times)
        for name, files in collected.layers.items()
        if name not in taken
        and (times := [f.modified_ns for p, f in files.items() if p in _OF_LAYER and f.modified_ns])
    }
    for name, files in collected.layers.items():  # a snapshot of containerd comes right after that of its init layer
        init = files.get(f"{FILES}{_INIT_FILE}") if name.isdecimal() else None
        if init is not None and init.modified_ns and name not in taken and (own := str(int(name) + 1)) not in taken:
            born[own] = init.modified_ns
    pairs = sorted(
        (time - parts.record.parts.created_ns, index, name)
        for index, parts in enumerate(found)
        for name, time in born.items()
        if parts.record.parts.created_ns is not None and 0 <= time - parts.record.parts.created_ns <= _SOON
        if not parts.mount_id
    )
    for _, index, name in pairs:
        parts = found[index]
        if parts.mount_id or name in taken:
            continue
        taken.add(name)
        parts.mount_id, parts.files = name, collected.files_of(name)
        note = f"{parts.record.parts.state_note}; that {name} is its writable layer is told by the time only"
        parts.record = replace(parts.record, parts=replace(parts.record.parts, state_note=note))


def _as_config(container_id: str, specification: JsonObject) -> JsonObject:
    """The record of a container as far as its runtime specification has it."""
    process, annotations = specification.object("process"), specification.object("annotations")
    words, hostname = process.texts("args"), specification.text("hostname")
    own: dict[str, JsonValue] = {
        "Hostname": hostname,
        "Env": [one for one in process.texts("env") if one != f"HOSTNAME={hostname}"],  # the daemon adds it
        "WorkingDir": process.text("cwd"),
    }
    raw: dict[str, JsonValue] = {"ID": container_id, "Path": words[0] if words else "", "Args": list(words[1:])}
    called = "" if CONTAINER_ID.fullmatch(container_id) else container_id  # ctr has no other name for it
    name = next(filter(None, map(annotations.text, _NAMES)), called)
    image = next(filter(None, map(annotations.text, _IMAGES)), "")
    raw |= {"Name": f"/{name}"} if name else {}
    own |= {"Image": image} if image else {}
    mounts = [mount for mount in specification.objects("mounts") if _is_asked_for(mount)]
    points: dict[str, JsonValue] = {mount.text("destination"): _point(mount) for mount in mounts}
    raw |= {"Config": own, "MountPoints": points}
    return JsonObject(raw)


def _is_asked_for(mount: JsonObject) -> bool:
    """Whether somebody asked for a mount; engines add their own, out of the container's folder."""
    source = mount.text("source")
    own = any(CONTAINER_ID.fullmatch(part) for part in source.partition("/volumes/")[0].split("/"))
    return source.startswith("/") and mount.text("type") == "bind" and not own


def _point(mount: JsonObject) -> dict[str, JsonValue]:
    source = mount.text("source")
    volume = _VOLUME.search(source)
    point: dict[str, JsonValue] = {"Type": "volume" if volume else "bind", "Source": source}
    point |= {"Name": volume[1], "Driver": "local"} if volume else {}
    return point | {"Destination": mount.text("destination"), "RW": "ro" not in mount.texts("options")}


def _host(config: Generation | None, hosts: Sequence[Generation]) -> Generation | None:
    """The settings that belong to a record: Docker writes them directly before it; else the newest, or the usual."""
    if not hosts:
        return None

    def order(one: Generation) -> tuple[bool, bool, int, int]:
        here = config.remnant.origin if config is not None else None
        there, ahead = one.remnant.origin, -1
        if here is not None and here.parent == there.parent and None not in (here.offset, there.offset):
            ahead = (here.offset or 0) - (there.offset or 0)
        equal = sum(other.document.raw == one.document.raw for other in hosts)
        return one.whole, 0 < ahead <= _ADJACENT, one.remnant.modified_ns or 0, equal

    return max(hosts, key=order)


def _fitting(config: JsonObject, hosts: Iterable[Generation]) -> list[Generation]:
    """Settings that name no container, if they fit a record by more than defaults, and all that fit are equal."""
    settings, points = config.object("NetworkSettings"), config.object("MountPoints")
    networks = set(settings.object("Networks").raw)
    if not networks:
        return []
    fits = []
    for one in hosts:
        mode = one.document.text("NetworkMode").replace("default", "bridge")
        places = {bind.split(":")[1] for bind in one.document.texts("Binds") if ":" in bind}
        telling = bool(places) or mode not in _COMMON
        if telling and mode in networks and places == set(points.raw) and not _contradicts(config, one.document):
            fits.append(one)
    return fits if all(one.document.raw == fits[0].document.raw for one in fits) else []


def _contradicts(config: JsonObject, host: JsonObject) -> bool:
    json_log = config.text("LogPath").endswith("-json.log")
    return json_log and host.object("LogConfig").text("Type") not in ("", "json-file")


def _note(sighting: Sighting, configs: Sequence[Generation], host: Generation | None) -> str:
    """What became of the container and how that is known."""
    states = list(dict.fromkeys(state_text(one.document.object("State")) for one in configs if one.whole))
    history = f"its recovered records: {'; '.join(states)}" if states else "its record was not recovered"
    if not sighting.methods:
        history = "only lines of logs tell of it"
    if configs and not states:
        history = "only the beginning of its record was recovered"
    if sighting.specification is not None and not configs:
        history = "only its runtime specification was recovered"
    missing = "" if host is not None else "; its settings towards the host were not"
    if host is not None and not sighting.hosts:
        missing = "; that the settings towards the host are its own is told by what they fit only"
    newest = configs[-1].remnant if configs else None
    how = f"{newest.confidence} by {newest.method}" if newest is not None else ", ".join(sighting.methods or ["log"])
    return f"it was removed; {history}{missing} (identity: {how})"


def _home(record: ContainerRecord, dockers: Sequence[DockerRoot]) -> DockerRoot | None:
    """The data root that a container belonged to, by the paths of its record; else the first."""
    for docker in dockers:
        if record.config.text("HostnamePath").startswith(f"{docker.real_root}/containers/"):
            return docker
    return dockers[0] if dockers else None
