"""The remnants by the container that they tell of."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

from forensics_lib.engines.docker.engine import DockerRoot
from forensics_lib.errors import ForensicsError
from forensics_lib.formats.jsondoc import MAX_BYTES, JsonObject, parse_beginning, parse_object
from forensics_lib.model import Origin
from forensics_lib.recovery.forms import CONTAINER_ID, state_rank
from forensics_lib.recovery.recovered import RecoveredLayer
from forensics_lib.recovery.remnant import Confidence, Remnant

__all__ = ["FILES", "Collected", "Generation", "Sighting", "text_of"]

_PLACE = re.compile(r"(?:^|/)containers/([0-9a-f]{64})(?:/(.+))?$")
_MOUNT = re.compile(r"(?:^|/)layerdb/mounts/([0-9a-f]{64})(?:/(mount-id|init-id|parent))?$")
_LAYER_FILE = re.compile(r"(?:^|/)(overlay2|overlay|vfs/dir|aufs/diff|btrfs/subvolumes)/([0-9a-z]{25,64})/(.+)$")
_SNAPSHOT_FILE = re.compile(r"(?:^|/)io\.containerd\.snapshotter\.v1\.([a-z-]+)/snapshots/(\d{1,18})/(.+)$")
_CHAIN = re.compile(r"(?:^|/)layerdb/sha256/([0-9a-f]{64})(?:-\d+-removing)?/(cache-id|parent)$")
_CONFIG = re.compile(r"(?:\.tmp-)?config\.v2\.json\d*|config\.json")
_HOST = re.compile(r"(?:\.tmp-)?hostconfig\.json\d*")
_TEXT_FIELDS = re.compile(
    rb'"(?:(ID)":"([0-9a-f]{64})|(Image)":"(sha256:[0-9a-f]{64})|(Name)":"(/[^"\\]{1,255})'
    rb'|(Created|Path|Driver)":"([^"\\]{0,4096}))"'
)
_MAX_CONTAINERS = 100_000
_MAX_GENERATIONS = 200
_MAX_LAYERS = 512
FILES = "diff/"
"""Where overlay2 has the files of a layer; other drivers have nothing else in its directory."""


@dataclass(slots=True)
class Generation:
    """One version of a document of a container."""

    document: JsonObject
    remnant: Remnant
    whole: bool

    @property
    def rank(self) -> tuple[bool, tuple[int, int, int], int]:
        """Sort key, the newest last; what is torn comes before everything that is whole."""
        return self.whole, state_rank(self.document), self.remnant.modified_ns or 0


@dataclass(slots=True)
class Sighting:
    """Everything that was found of one container."""

    id: str
    configs: list[Generation] = field(default_factory=list)
    hosts: list[Generation] = field(default_factory=list)
    files: dict[str, Remnant] = field(default_factory=dict)
    specification: Generation | None = None
    removed_ns: int | None = None
    methods: dict[str, None] = field(default_factory=dict)
    first: Origin | None = None


class Collected:
    """The remnants by the container they tell of."""

    def __init__(self, live: Iterable[str]) -> None:
        """Nothing is sorted in yet; `live` are the ids of containers that are there."""
        self._live = frozenset(live)
        self.sightings: dict[str, Sighting] = {}
        self.logs: list[Remnant] = []
        self.hosts: list[Generation] = []
        self.layers: dict[str, dict[str, Remnant]] = {}
        self.mounts: dict[str, dict[str, Remnant]] = {}
        self.chains: dict[str, dict[str, Remnant]] = {}
        self.images: list[Remnant] = []
        self.network_records: list[Remnant] = []

    def add_seen(self, container_id: str, origin: Origin) -> None:
        """Note a container that a line of a log names; those that are there are left out."""
        if container_id not in self._live and (container_id in self.sightings or len(self.sightings) < _MAX_CONTAINERS):
            sighting = self.sightings.setdefault(container_id, Sighting(container_id))
            sighting.first = sighting.first or origin

    def add(self, remnant: Remnant) -> None:
        """Sort one remnant in."""
        place, mount = _PLACE.search(remnant.path), _MOUNT.search(remnant.path)
        if remnant.kind == "image":
            self.images.append(remnant)
        if remnant.kind == "record" and remnant.method.startswith("bbolt"):
            self.network_records.append(remnant)
        container_id = place[1] if place else mount[1] if mount else remnant.container_id
        if layer := _LAYER_FILE.search(remnant.path):
            files = self.layers.setdefault(layer[2], {})
            name = layer[3] if layer[1].startswith("overlay") else f"{FILES}{layer[3]}"
            files[name] = _better(files.get(name), remnant)
        if snapshot := _SNAPSHOT_FILE.search(remnant.path):
            files = self.layers.setdefault(snapshot[2], {})
            name = f"{FILES}{snapshot[3] if snapshot[1] == 'native' else snapshot[3].removeprefix('fs/')}"
            files[name] = _better(files.get(name), remnant)
        if chain := _CHAIN.search(remnant.path):
            record = self.chains.setdefault(f"sha256:{chain[1]}", {})
            record[chain[2]] = _better(record.get(chain[2]), remnant)
        if not CONTAINER_ID.fullmatch(container_id):
            if remnant.kind == "log" and remnant.content is not None:
                self.logs.append(remnant)
            elif remnant.kind == "config" and (generation := _generation(remnant)) is not None:
                self.hosts.append(generation)
            if not (container_id and remnant.kind == "record" and remnant.method.startswith("bbolt")):
                return  # clients of containerd may call a container what they like
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
        sighting = self.sightings.setdefault(container_id, Sighting(container_id))
        sighting.first = sighting.first or remnant.origin
        sighting.methods[remnant.method] = None
        if remnant.deleted_ns is not None:
            sighting.removed_ns = max(sighting.removed_ns or 0, remnant.deleted_ns)
        self._sort(sighting, (place[2] or "") if place else "", remnant)

    def files_of(self, directory: str) -> dict[str, Remnant]:
        """The recovered files of a layer's directory by their paths in the layer."""
        found = self.layers.get(directory, {})
        return {name.removeprefix(FILES): one for name, one in found.items() if name.startswith(FILES)}

    def layer_below(self, directory: str, dockers: Iterable[DockerRoot]) -> str:
        """The chain id of the image's layer below a writable layer, as its file ``lower`` tells; empty without."""
        lower = text_of(self.layers.get(directory, {}).get("lower")).split(":")
        for link in lower[:2]:  # the first leads to the layer that Docker puts below each container
            if (chain_id := self._removed_by_link.get(link)) is not None:
                return chain_id
            for docker in dockers:
                record = docker.layer_of_link("overlay2", link)
                if record is not None:
                    return record.chain_id
        return ""

    @cached_property
    def _removed_by_link(self) -> dict[str, str]:
        """Chain ids of removed layers by the links to their directories."""
        chains = {text_of(record.get("cache-id")): chain_id for chain_id, record in self.chains.items()}
        return {
            f"l/{text_of(files['link'])}": chains[name]
            for name, files in self.layers.items()
            if "link" in files and name in chains
        }

    def stack(self, top: str) -> list[RecoveredLayer]:
        """The layers from the top of a removed image down to the last whose record was recovered."""
        found: list[RecoveredLayer] = []
        seen: set[str] = set()
        while top in self.chains and top not in seen and len(seen) < _MAX_LAYERS:
            seen.add(top)
            record = self.chains[top]
            parent = text_of(record.get("parent"))
            found.append(RecoveredLayer(top, parent, self.files_of(text_of(record.get("cache-id")))))
            top = parent
        return found

    def _sort(self, sighting: Sighting, name: str, remnant: Remnant) -> None:
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


def _keep(generations: list[Generation], generation: Generation) -> None:
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


def _generation(remnant: Remnant) -> Generation | None:
    """A document of a remnant; of a torn one what its beginning tells."""
    if remnant.content is None:
        return None
    try:
        data = remnant.content.read_some(0, MAX_BYTES).rstrip(b"\0")
    except ForensicsError:
        return None
    try:
        return Generation(parse_object(data, remnant.origin), remnant, True)
    except ForensicsError:
        beginning = data.split(b"\0", 1)[0]
        found = parse_beginning(beginning, remnant.origin)
        raw = dict(found) if isinstance(found, dict) else {}
        for match in _TEXT_FIELDS.finditer(beginning):
            key, text = (part.decode("utf-8", "replace") for part in match.groups() if part is not None)
            raw.setdefault(key, text)  # the first is that of the container, later ones are of what it holds
        if "ID" not in raw and "NetworkMode" not in raw:
            return None
        return Generation(JsonObject(raw), remnant, False)


def text_of(remnant: Remnant | None) -> str:
    """A short text that Docker keeps in a file; empty without one."""
    if remnant is None or remnant.content is None:
        return ""
    try:
        return remnant.content.read_some(0, 4096).rstrip(b"\0").decode("ascii", "replace").strip()
    except ForensicsError:
        return ""
