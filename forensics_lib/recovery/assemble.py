"""Removed containers, put together again from everything that was found of them.

What belongs together is told by the container's id of 64 digits; a log without a name by the time of its records.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from forensics_lib.engines.container import Container, ContainerState
from forensics_lib.engines.docker.containers import ContainerRecord, record_of
from forensics_lib.engines.docker.engine import DockerRoot
from forensics_lib.errors import ForensicsError
from forensics_lib.formats.jsondoc import MAX_BYTES, JsonObject, JsonValue, parse_beginning, parse_object
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.recovery.forms import CONTAINER_ID, state_rank, state_text
from forensics_lib.recovery.logs import share_logs
from forensics_lib.recovery.recovered import Recovered, RecoveredLayer, RecoveredParts
from forensics_lib.recovery.remnant import Confidence, Remnant
from forensics_lib.trees.outlet import Outlet

__all__ = ["deleted_containers"]

_PLACE = re.compile(r"(?:^|/)containers/([0-9a-f]{64})(?:/(.+))?$")
_MOUNT = re.compile(r"(?:^|/)layerdb/mounts/([0-9a-f]{64})(?:/(mount-id|init-id|parent))?$")
_LAYER_FILE = re.compile(r"(?:^|/)(overlay2|overlay|vfs/dir|aufs/diff|btrfs/subvolumes)/([0-9a-z]{25,64})/(.+)$")
_SNAPSHOT_FILE = re.compile(r"(?:^|/)io\.containerd\.snapshotter\.v1\.([a-z-]+)/snapshots/(\d{1,18})/(.+)$")
_DRIVER = re.compile(r"(?:^|/)image/([^/]+)/layerdb/")
_CHAIN = re.compile(r"(?:^|/)layerdb/sha256/([0-9a-f]{64})(?:-\d+-removing)?/(cache-id|parent)$")
_CONFIG = re.compile(r"(?:\.tmp-)?config\.v2\.json\d*|config\.json")
_HOST = re.compile(r"(?:\.tmp-)?hostconfig\.json\d*")
_TEXT_FIELDS = re.compile(
    rb'"(?:(ID)":"([0-9a-f]{64})|(Image)":"(sha256:[0-9a-f]{64})|(Name)":"(/[^"\\]{1,255})'
    rb'|(Created|Path|Driver)":"([^"\\]{0,4096}))"'
)
_SOON = 10**9
_ADJACENT = 16 << 10
_MAX_CONTAINERS = 100_000
_MAX_GENERATIONS = 200
_MAX_LAYERS = 512
_COMMON = ("bridge", "host", "none")
_OF_LAYER = ("link", "lower")
_INIT_FILE = ".dockerenv"
_FILES = "diff/"
"""Where overlay2 has the files of a layer; other drivers have nothing else in its directory."""
_NOTHING: dict[str, JsonValue] = {}


@dataclass(slots=True)
class _Generation:
    """One version of a document of a container."""

    document: JsonObject
    remnant: Remnant
    whole: bool

    @property
    def rank(self) -> tuple[bool, tuple[int, int, int], int]:
        """Sort key, the newest last; what is torn comes before everything that is whole."""
        return self.whole, state_rank(self.document), self.remnant.modified_ns or 0


@dataclass(slots=True)
class _Sighting:
    """Everything that was found of one container."""

    id: str
    configs: list[_Generation] = field(default_factory=list)
    hosts: list[_Generation] = field(default_factory=list)
    files: dict[str, Remnant] = field(default_factory=dict)
    specification: _Generation | None = None
    removed_ns: int | None = None
    methods: dict[str, None] = field(default_factory=dict)
    first: Origin | None = None


def deleted_containers(
    remnants: Iterable[Remnant],
    dockers: Sequence[DockerRoot],
    problems: ProblemLog,
    outlet: Outlet | None = None,
) -> list[Container]:
    """The containers that were removed, newest first; those that Docker still lists are left out.

    Args:
        remnants: everything that was found, by whatever method.
        dockers: the data roots that are left.
        problems: gets what cannot be told for certain.
        outlet: the way for copies out of the evidence; that of the first data root by default.
    """
    live = {record.id: record for docker in dockers for record in docker.records}
    collected = _Collected(live.keys())
    for remnant in remnants:
        collected.add(remnant)
    found = [_parts(one, collected) for one in collected.sightings.values()]
    _find_layers(found, collected, dockers)
    _find_images(found, dockers)
    share_logs(found, live.values(), collected.logs, problems)
    if outlet is None and dockers:
        outlet = dockers[0].outlet
    containers = [
        Container(parts.record.parts, Recovered(parts, _home(parts.record, dockers), outlet, problems))
        for parts in found
    ]
    return sorted(containers, key=lambda container: (-(container.created_ns or 0), container.id))


class _Collected:
    """The remnants by the container they tell of."""

    def __init__(self, live: Iterable[str]) -> None:
        self._live = frozenset(live)
        self.sightings: dict[str, _Sighting] = {}
        self.logs: list[Remnant] = []
        self.hosts: list[_Generation] = []
        self.layers: dict[str, dict[str, Remnant]] = {}
        self.mounts: dict[str, dict[str, Remnant]] = {}
        self.chains: dict[str, dict[str, Remnant]] = {}

    def add(self, remnant: Remnant) -> None:
        """Sort one remnant in."""
        place, mount = _PLACE.search(remnant.path), _MOUNT.search(remnant.path)
        container_id = place[1] if place else mount[1] if mount else remnant.container_id
        if layer := _LAYER_FILE.search(remnant.path):
            files = self.layers.setdefault(layer[2], {})
            name = layer[3] if layer[1].startswith("overlay") else f"{_FILES}{layer[3]}"
            files[name] = _better(files.get(name), remnant)
        if snapshot := _SNAPSHOT_FILE.search(remnant.path):
            files = self.layers.setdefault(snapshot[2], {})
            name = f"{_FILES}{snapshot[3] if snapshot[1] == 'native' else snapshot[3].removeprefix('fs/')}"
            files[name] = _better(files.get(name), remnant)
        if chain := _CHAIN.search(remnant.path):
            record = self.chains.setdefault(f"sha256:{chain[1]}", {})
            record[chain[2]] = _better(record.get(chain[2]), remnant)
        if not CONTAINER_ID.fullmatch(container_id):
            if remnant.kind == "log" and remnant.content is not None:
                self.logs.append(remnant)
            elif remnant.kind == "config" and (generation := _generation(remnant)) is not None:
                self.hosts.append(generation)
            return
        if container_id in self._live:
            return
        if mount:
            if mount[2]:
                files = self.mounts.setdefault(container_id, {})
                files[mount[2]] = _better(files.get(mount[2]), remnant)
            if mount[2] != "init-id" and not remnant.container_id:
                return  # image mounts and steps of a build have such folders, too
        if container_id not in self.sightings and len(self.sightings) >= _MAX_CONTAINERS:
            return
        sighting = self.sightings.setdefault(container_id, _Sighting(container_id))
        sighting.first = sighting.first or remnant.origin
        sighting.methods[remnant.method] = None
        if remnant.deleted_ns is not None:
            sighting.removed_ns = max(sighting.removed_ns or 0, remnant.deleted_ns)
        self._sort(sighting, (place[2] or "") if place else "", remnant)

    def files_of(self, directory: str) -> dict[str, Remnant]:
        """The recovered files of a layer's directory by their paths in the layer."""
        found = self.layers.get(directory, {})
        return {name.removeprefix(_FILES): one for name, one in found.items() if name.startswith(_FILES)}

    def stack(self, top: str) -> list[RecoveredLayer]:
        """The layers from the top of a removed image down to the last whose record was recovered."""
        found: list[RecoveredLayer] = []
        seen: set[str] = set()
        while top in self.chains and top not in seen and len(seen) < _MAX_LAYERS:
            seen.add(top)
            record = self.chains[top]
            parent = _text(record.get("parent"))
            found.append(RecoveredLayer(top, parent, self.files_of(_text(record.get("cache-id")))))
            top = parent
        return found

    def _sort(self, sighting: _Sighting, name: str, remnant: Remnant) -> None:
        """Put a remnant in its place among those of its container."""
        if _CONFIG.fullmatch(name) or _HOST.fullmatch(name):
            generation = _generation(remnant)
            if generation is None:
                return
            stated = generation.document.text("ID")
            if _CONFIG.fullmatch(name) and stated == sighting.id:
                _keep(sighting.configs, generation)
            elif _HOST.fullmatch(name) and "NetworkMode" in generation.document:
                sighting.hosts = [generation, *sighting.hosts[: _MAX_GENERATIONS - 1]]
        elif name:
            sighting.files[name] = _better(sighting.files.get(name), remnant)
        elif remnant.kind == "record" and remnant.content is not None and (one := _generation(remnant)) is not None:
            if one.document.text("ociVersion"):
                sighting.specification = one
        elif remnant.kind == "log" and remnant.content is not None:
            self.logs.append(remnant)


def _keep(generations: list[_Generation], generation: _Generation) -> None:
    """Add a generation; of equal ones the one that is surer."""
    for index, known in enumerate(generations):
        if known.document.raw == generation.document.raw:
            if _sureness(generation.remnant) > _sureness(known.remnant):
                generations[index] = generation
            return
    if len(generations) < _MAX_GENERATIONS:
        generations.append(generation)


def _better(known: Remnant | None, remnant: Remnant) -> Remnant:
    """The better of two versions of a file."""
    return remnant if known is None or _sureness(remnant) > _sureness(known) else known


def _sureness(remnant: Remnant) -> tuple[bool, bool, bool, int, int]:
    verified = remnant.confidence is Confidence.VERIFIED
    has = remnant.content is not None
    return has, remnant.complete, verified, remnant.modified_ns or 0, remnant.size or 0


def _generation(remnant: Remnant) -> _Generation | None:
    """A document of a remnant; of a torn one what its beginning tells."""
    if remnant.content is None:
        return None
    try:
        data = remnant.content.read_some(0, MAX_BYTES).rstrip(b"\0")
    except ForensicsError:
        return None
    try:
        return _Generation(parse_object(data, remnant.origin), remnant, True)
    except ForensicsError:
        beginning = data.split(b"\0", 1)[0]
        found = parse_beginning(beginning, remnant.origin)
        raw = dict(found) if isinstance(found, dict) else {}
        for match in _TEXT_FIELDS.finditer(beginning):
            key, text = (part.decode("utf-8", "replace") for part in match.groups() if part is not None)
            raw.setdefault(key, text)  # the first is that of the container, later ones are of what it holds
        if "ID" not in raw and "NetworkMode" not in raw:
            return None
        return _Generation(JsonObject(raw), remnant, False)


def _parts(sighting: _Sighting, collected: _Collected) -> RecoveredParts:
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
    record = record_of(sighting.id, "/", config, host_document, origin, host_origin)
    parts = replace(record.parts, state_note=_note(sighting, configs, host))
    if configs and configs[-1] is not shown:  # how it ended is written with its removal
        last = record_of(sighting.id, "/", configs[-1].document, host_document, origin, host_origin).parts
        parts = replace(parts, state=last.state, pid=last.pid)
        if last.finished_ns is not None:
            parts = replace(parts, finished_ns=last.finished_ns, exit_code=last.exit_code)
    elif not configs:
        parts = replace(parts, state=ContainerState.REMOVING)
    found = RecoveredParts(replace(record, parts=parts), dict(sighting.files))
    mount = collected.mounts.get(sighting.id, {})
    found.mount_id, found.top = _text(mount.get("mount-id")), _text(mount.get("parent"))
    places = [match[1] for one in mount.values() if (match := _DRIVER.search(one.path))]
    found.driver = record.parts.storage_driver or next(iter(places), "")
    found.files = collected.files_of(found.mount_id)
    found.lower = collected.stack(found.top)
    return found


def _find_layers(found: Sequence[RecoveredParts], collected: _Collected, dockers: Sequence[DockerRoot]) -> None:
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
        init = files.get(f"{_FILES}{_INIT_FILE}") if name.isdecimal() else None
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


def _find_images(found: Iterable[RecoveredParts], dockers: Iterable[DockerRoot]) -> None:
    """Name the image of a container whose record is lost by the layer that its own lay on."""
    tops = {image.layers[-1].chain_id: image.id for docker in dockers for image in docker.images if image.layers}
    for parts in found:
        record = parts.record
        if not record.parts.image_id and parts.top in tops:
            parts.record = replace(record, parts=replace(record.parts, image_id=tops[parts.top]))


def _as_config(container_id: str, specification: JsonObject) -> JsonObject:
    """The record of a container as far as its runtime specification has it."""
    process = specification.object("process")
    words = process.texts("args")
    raw: dict[str, JsonValue] = {
        "ID": container_id,
        "Path": words[0] if words else "",
        "Args": list(words[1:]),
        "Config": {
            "Hostname": specification.text("hostname"),
            "Env": list(process.texts("env")),
            "WorkingDir": process.text("cwd"),
        },
    }
    return JsonObject(raw)


def _host(config: _Generation | None, hosts: Sequence[_Generation]) -> _Generation | None:
    """The settings that belong to a record: Docker writes them directly before it; else the newest, or the usual."""
    if not hosts:
        return None

    def order(one: _Generation) -> tuple[bool, bool, int, int]:
        here = config.remnant.origin if config is not None else None
        there, ahead = one.remnant.origin, -1
        if here is not None and here.parent == there.parent and None not in (here.offset, there.offset):
            ahead = (here.offset or 0) - (there.offset or 0)
        equal = sum(other.document.raw == one.document.raw for other in hosts)
        return one.whole, 0 < ahead <= _ADJACENT, one.remnant.modified_ns or 0, equal

    return max(hosts, key=order)


def _fitting(config: JsonObject, hosts: Iterable[_Generation]) -> list[_Generation]:
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


def _note(sighting: _Sighting, configs: Sequence[_Generation], host: _Generation | None) -> str:
    """What became of the container and how that is known."""
    states = list(dict.fromkeys(state_text(one.document.object("State")) for one in configs if one.whole))
    history = f"its recovered records: {'; '.join(states)}" if states else "its record was not recovered"
    if configs and not states:
        history = "only the beginning of its record was recovered"
    if sighting.specification is not None and not configs:
        history = "only its runtime specification was recovered"
    missing = "" if host is not None else "; its settings towards the host were not"
    if host is not None and not sighting.hosts:
        missing = "; that the settings towards the host are its own is told by what they fit only"
    newest = configs[-1].remnant if configs else None
    how = f"{newest.confidence} by {newest.method}" if newest is not None else ", ".join(sighting.methods)
    return f"it was removed; {history}{missing} (identity: {how})"


def _text(remnant: Remnant | None) -> str:
    if remnant is None or remnant.content is None:
        return ""
    try:
        return remnant.content.read_some(0, 4096).rstrip(b"\0").decode("ascii", "replace").strip()
    except ForensicsError:
        return ""


def _home(record: ContainerRecord, dockers: Sequence[DockerRoot]) -> DockerRoot | None:
    """The data root that a container belonged to, by the paths of its record; else the first."""
    for docker in dockers:
        if record.config.text("HostnamePath").startswith(f"{docker.real_root}/containers/"):
            return docker
    return dockers[0] if dockers else None
