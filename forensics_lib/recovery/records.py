"""Names of Docker's small records that no directory tells any more, from what they hold and what lies beside them.

The digest of a layer and the chain id below it follow from the lists of layers in image configs. Docker writes the
files of one record one after the other, so that they lie in blocks that follow each other: ``diff``, ``size``,
``cache-id`` and ``parent`` of a layer (moby ``layer/filestore.go``), ``mount-id``, ``init-id`` and ``parent`` of a
container's writable layer, the latter behind ``link`` and ``lower`` of its directory.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from forensics_lib.engines.docker.engine import DockerRoot
from forensics_lib.errors import ForensicsError
from forensics_lib.formats.jsondoc import JsonValue, parse_object, parse_time
from forensics_lib.images.digest import chain_ids
from forensics_lib.model import Origin
from forensics_lib.recovery.layer_links import LINK, LOWER, LayerLinks
from forensics_lib.recovery.remnant import Remnant

__all__ = ["Records", "named_by_records"]

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_FOLDER = re.compile(r"[0-9a-f]{64}|[0-9a-z]{25}")
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?Z")
_LIST = re.compile(rb'"diff_ids":\s*\[\s*"sha256:[0-9a-f]{64}"(?:\s*,\s*"sha256:[0-9a-f]{64}"){0,511}\s*\]')
_LISTED = re.compile(rb"sha256:[0-9a-f]{64}")
_MOUNT = re.compile(r"layerdb/mounts/([0-9a-f]{64})/")
_NOWHERE = Origin("image config")
_SHORT = 4096
_MAX_IMAGE = 16 << 20
_SOON = 10**9
_SHOWN = 3
_REPOSITORIES = "repositories.json"


@dataclass(slots=True)
class _Image:
    """What an image's config tells: its layers, its steps, when it was made, and whether the image is still there."""

    diff_ids: list[str]
    history: list[JsonValue]
    created_ns: int | None
    is_live: bool


@dataclass(slots=True)
class Records:
    """What is known of the layers and images of the data roots, those that are there and those that were removed.

    Attributes:
        layers: digest of the archive and chain id of the layer below (empty for a base), by chain id.
        live: chain ids of layers that are there.
        images: by id.
        driver: the storage driver that wrote the records; empty where there are several.
        links: what is known of the layers' directories.
    """

    layers: dict[str, tuple[str, str]] = field(default_factory=dict)
    live: set[str] = field(default_factory=set)
    images: dict[str, _Image] = field(default_factory=dict)
    driver: str = ""
    links: LayerLinks = field(default_factory=LayerLinks)

    @classmethod
    def of(cls, remnants: Sequence[Remnant], dockers: Sequence[DockerRoot]) -> Records:
        """What data roots and recovered configs tell."""
        known = cls(links=LayerLinks.of(remnants, dockers))
        drivers = {driver for docker in dockers for driver in docker.graph_drivers}
        known.driver = drivers.pop() if len(drivers) == 1 else ""
        for docker in dockers:
            for driver in docker.graph_drivers:
                known.live |= set(docker.layer_db(driver).layers)
            for image in docker.images:
                known._add(image.id, image.raw_config or b"", is_live=True)
        for remnant in remnants:
            if remnant.kind == "image" and remnant.content is not None and (remnant.size or 0) <= _MAX_IMAGE:
                try:
                    known._add(f"sha256:{remnant.sha256}" if remnant.complete else "", remnant.read(), is_live=False)
                except ForensicsError:
                    continue
        return known

    def top_of(self, image_id: str) -> str:
        """Chain id of an image's top layer; empty when the image is not known or has none."""
        image = self.images.get(image_id)
        return chain_ids(image.diff_ids)[-1] if image is not None and image.diff_ids else ""

    def named(self, diff_id: str) -> list[str]:
        """Chain ids of the layers whose archive has a digest."""
        return [chain for chain, (diff, _) in self.layers.items() if diff == diff_id]

    def places(self) -> Iterator[tuple[str, str]]:
        """(text, path) of the records of removed layers and images that hold digests."""
        for chain, (diff, parent) in self.layers.items():
            if chain not in self.live:
                yield diff, _layer_file(chain, "diff")
                if parent:
                    yield parent, _layer_file(chain, "parent")
        children: dict[str, list[str]] = {}
        parents = {_steps(image.history, image.diff_ids): image_id for image_id, image in self.images.items()}
        for image_id, image in self.images.items():
            if not image.history:
                continue
            last = image.history[-1]
            is_empty = isinstance(last, dict) and last.get("empty_layer") is True
            below = image.diff_ids if is_empty else image.diff_ids[:-1]
            parent_id = parents.get(_steps(image.history[:-1], below))
            if parent_id is not None and len(image.history) > 1:
                children.setdefault(parent_id, []).append(image_id)
        for parent_id, found in children.items():
            if len(found) == 1 and not self.images[found[0]].is_live:
                yield parent_id, _metadata_file(found[0], "parent")

    def tagged(self, texts: Iterable[str]) -> dict[str, list[str]]:
        """Times when an image got a name, by the path of the file, where one image only was made directly before."""
        found: dict[str, list[str]] = {}
        for text in texts:
            time = parse_time(text)[1]
            fits = [
                image_id
                for image_id, image in self.images.items()
                if None not in (time, image.created_ns) and 0 <= (time or 0) - (image.created_ns or 0) <= _SOON
            ]
            if len(fits) == 1 and not self.images[fits[0]].is_live:
                found.setdefault(_metadata_file(fits[0], "lastUpdated"), []).append(text)
        return found

    def _add(self, image_id: str, data: bytes, *, is_live: bool) -> None:
        for listed in _LIST.finditer(data):  # of a torn config the list may be left
            diff_ids = [text.decode() for text in _LISTED.findall(listed[0])]
            chains = chain_ids(diff_ids)
            self.layers |= dict(zip(chains, zip(diff_ids, ["", *chains[:-1]], strict=True), strict=True))
        try:
            document = parse_object(data, _NOWHERE) if image_id else None
        except ForensicsError:
            return
        if document is None or "rootfs" not in document:
            return
        diff_ids = [one for one in document.object("rootfs").texts("diff_ids") if _DIGEST.fullmatch(one)]
        history = document.get("history")
        known = _Image(diff_ids, list(history) if isinstance(history, list) else [], None, is_live)
        known.created_ns = parse_time(document.text("created"))[1]
        self.images.setdefault(image_id, known)


def named_by_records(
    remnants: Iterable[Remnant], carved: Iterable[Remnant], known: Records, block: int
) -> Iterator[Remnant]:
    """The same remnants; small records without a name have the path below the data root that they had.

    Equal bytes are one remnant, though they may have lain in several places: the others are in the detail.

    Args:
        remnants: what was found, each thing once.
        carved: everything that was found by its form, equal ones as often as they were found.
        known: what is known of layers and images.
        block: bytes of a block, in which each file starts.
    """
    places: dict[str, dict[str, None]] = {}
    beside = list(_beside(carved, known, block))
    for text, path in (*known.places(), *known.links.places(known.layers), *beside):
        places.setdefault(text, {})[path] = None
    found = list(remnants)
    texts = ["" if remnant.path else _text(remnant) for remnant in found]
    for path, times in known.tagged({text for text in texts if _TIME.fullmatch(text)}).items():
        if len(times) == 1:
            places.setdefault(times[0], {})[path] = None
    for remnant, text in zip(found, texts, strict=True):
        if remnant.path == _REPOSITORIES and known.driver:
            yield replace(remnant, path=f"image/{known.driver}/{_REPOSITORIES}")
            continue
        yield _named(remnant, list(places[text])) if text in places else remnant


def _named(remnant: Remnant, places: Sequence[str]) -> Remnant:
    detail = f"{remnant.detail}; named by what it holds and the records beside it".lstrip("; ")
    if others := places[1:]:
        more = f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else ""
        detail += f"; also {', '.join(others[:_SHOWN])}{more}"
    match = _MOUNT.match(places[0])
    return replace(
        remnant, path=places[0], detail=detail, container_id=remnant.container_id or (match[1] if match else "")
    )


def _beside(carved: Iterable[Remnant], known: Records, block: int) -> Iterator[tuple[str, str]]:
    """(text, path) of the files of records that lie in blocks that follow each other; what they tell is noted."""
    spaces: dict[Origin | None, dict[int, Remnant]] = {}
    for one in carved:
        if one.origin.offset is not None and one.complete:
            spaces.setdefault(one.origin.parent, {})[one.origin.offset] = one
    for lying in spaces.values():
        yield from _beside_in(lying, known, block)


def _beside_in(lying: Mapping[int, Remnant], known: Records, block: int) -> Iterator[tuple[str, str]]:
    """The same in one device, by the offsets of what lies there."""
    texts = {offset: text for offset, one in lying.items() if (text := _text(one))}
    for offset, text in texts.items():
        second, third, fourth = (texts.get(offset + block * step, "") for step in (1, 2, 3))
        if _DIGEST.fullmatch(text) and _SIZE.fullmatch(second) and _FOLDER.fullmatch(third):
            chain = _chain(text, fourth, known)
            if chain and chain not in known.live:
                yield text, _layer_file(chain, "diff")
                yield second, _layer_file(chain, "size")
                yield third, _layer_file(chain, "cache-id")
                known.links.caches.setdefault(chain, set()).add(third)
                if chain != text:
                    yield fourth, _layer_file(chain, "parent")
        elif _FOLDER.fullmatch(text) and second == f"{text}-init":
            parent = third if _DIGEST.fullmatch(third) else ""
            container_id = _container(lying, offset + block * (3 if parent else 2), block, parent, known)
            folder = f"layerdb/mounts/{container_id}/" if container_id else ""
            yield text, f"{folder}mount-id"
            yield second, f"{folder}init-id"
            if parent and container_id:
                yield parent, f"{folder}parent"
            known.links.add_mount(text, parent)
            lower, link = texts.get(offset - block, ""), texts.get(offset - 2 * block, "")
            if LOWER.fullmatch(lower) and LINK.fullmatch(link) and text not in known.links.live:
                yield lower, f"{known.links.driver}/{text}/lower"
                yield link, f"{known.links.driver}/{text}/link"
                known.links.lowers.setdefault(text, lower)


def _chain(diff_id: str, parent: str, known: Records) -> str:
    """The chain id of a layer, as its digest and what lies behind its record tell; empty when that is not certain."""
    if _DIGEST.fullmatch(parent):
        above = chain_ids([parent, diff_id])[-1]
        if above in known.layers or not known.named(diff_id):
            return above
    return diff_id if known.layers.get(diff_id) == (diff_id, "") else ""


def _container(lying: Mapping[int, Remnant], offset: int, block: int, parent: str, known: Records) -> str:
    """The container whose settings and record were written directly behind the record of its writable layer."""
    for step in range(2):
        behind = lying.get(offset + step * block)
        if behind is None or behind.kind != "config":
            return ""
        if behind.container_id and behind.path.endswith("/config.v2.json"):
            top = known.top_of(behind.image_id)
            return "" if parent and top and top != parent else behind.container_id
    return ""


def _steps(history: Sequence[JsonValue], diff_ids: Sequence[str]) -> str:
    return json.dumps([history, list(diff_ids)], sort_keys=True)


def _layer_file(chain: str, name: str) -> str:
    return f"layerdb/sha256/{chain.removeprefix('sha256:')}/{name}"


def _metadata_file(image_id: str, name: str) -> str:
    return f"imagedb/metadata/sha256/{image_id.removeprefix('sha256:')}/{name}"


def _text(remnant: Remnant) -> str:
    """A short text; empty for anything else."""
    if remnant.content is None or not remnant.complete or not 0 < (remnant.size or 0) <= _SHORT:
        return ""
    try:
        return remnant.content.read_some(0, _SHORT).decode("ascii")
    except (ForensicsError, UnicodeDecodeError):
        return ""
