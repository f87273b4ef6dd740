"""What other remnants tell of a removed container, and its record as far as they make up for a lost one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from forensics_lib.engines.docker.engine import DockerRoot
from forensics_lib.engines.fact import Fact, Sureness
from forensics_lib.errors import ForensicsError
from forensics_lib.formats.jsondoc import JsonObject, JsonValue, parse_object
from forensics_lib.images.digest import chain_ids
from forensics_lib.images.image import Image
from forensics_lib.model import Origin
from forensics_lib.recovery.forms import CONTAINER_ID
from forensics_lib.recovery.remnant import Remnant
from forensics_lib.recovery.witnesses import Witnesses, iso

__all__ = [
    "ImagesByTop",
    "completed",
    "disputed",
    "facts_instead",
    "facts_of_files",
    "facts_of_mount",
    "facts_of_networks",
    "settled",
]

_MAX_TEXT = 64 << 10
_MAX_IMAGE = 4 << 20
_HOST_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,252}")
_DIRECTORY = re.compile(r"[0-9a-z]{25,64}(?:-init)?")
_LOG_DRIVERS = (("-json.log", "json-file"), ("local-logs", "local"))
_HOST_PATHS = (("resolv.conf", "ResolvConfPath"), ("hostname", "HostnamePath"), ("hosts", "HostsPath"))
_ENDPOINT, _SANDBOX = "ep_iface", "Cid"
_ORDER = (Sureness.STATED, Sureness.DERIVED, Sureness.LIKELY)


@dataclass(frozen=True, slots=True)
class _Known:
    """An image with the top of its layers, and where it is told of."""

    id: str
    what: str
    origin: Origin


class ImagesByTop:
    """The images of the evidence and those whose configuration was recovered, by the chain id of their top layer."""

    def __init__(self, dockers: Iterable[DockerRoot], remnants: Iterable[Remnant]) -> None:
        """Read the images once."""
        self._known: dict[str, dict[str, _Known]] = {}
        self._images: dict[str, Image] = {}
        for docker in dockers:
            for image in docker.images:
                self._images.setdefault(image.id, image)
                top = image.layers[-1].chain_id if image.layers else None
                if top:
                    known = _Known(image.id, "image that is there", image.origin)
                    self._known.setdefault(top, {})[image.id] = known
        for remnant in remnants:
            if remnant.kind == "image" and remnant.complete and (remnant.size or 0) <= _MAX_IMAGE:
                self._recovered(remnant)

    def of(self, chain_id: str) -> list[_Known]:
        """The images whose top layer has a chain id."""
        return list(self._known.get(chain_id, {}).values())

    def image(self, image_id: str) -> Image | None:
        """An image that is there."""
        return self._images.get(image_id)

    def _recovered(self, remnant: Remnant) -> None:
        image_id = remnant.image_id or f"sha256:{remnant.path.rpartition('/')[2]}"
        try:
            if f"sha256:{remnant.sha256}" != image_id:
                return
            document = parse_object(remnant.read(), remnant.origin)
            chain = chain_ids(document.object("rootfs").texts("diff_ids"))
        except ForensicsError:
            return
        if chain:
            what = f"removed image, whose configuration was recovered by {remnant.method}"
            self._known.setdefault(chain[-1], {}).setdefault(image_id, _Known(image_id, what, remnant.origin))


def facts_of_files(container_id: str, files: Mapping[str, Remnant]) -> Iterator[Fact]:
    """What the files of a container's folder tell by their content and by their being there.

    Args:
        container_id: the container.
        files: the best version of each by its path in the folder.
    """
    hostname = _text(files.get("hostname")).strip()
    if _HOST_NAME.fullmatch(hostname):
        yield _stated("hostname", hostname, files["hostname"], "its file hostname")
    for line in _text(files.get("hosts")).splitlines():
        address, *names = line.split()[:8] or ("",)
        if names and (container_id[:12] in names or (hostname and hostname in names)):
            yield _stated("address", address, files["hosts"], f"its file hosts, with the name {names[0]}")
    for name, remnant in files.items():
        for end, driver in _LOG_DRIVERS:
            if name in (end, f"{container_id}{end}"):
                yield _stated("log driver", driver, remnant, f"the folder had {name}")


def facts_of_mount(files: Mapping[str, Remnant], images: ImagesByTop, below: str) -> Iterator[Fact]:
    """What the record of a container's writable layer tells.

    Args:
        files: ``mount-id``, ``init-id`` and ``parent``, as far as they were found.
        images: the images by their top layers.
        below: chain id of the layer right below, where only the layer itself tells it; else empty.
    """
    mount, parent = files.get("mount-id"), files.get("parent")
    mount_id = _text(mount).strip()
    if mount is not None and _DIRECTORY.fullmatch(mount_id):
        yield _stated("writable layer", mount_id, mount, "its record of layers")
    top = _text(parent).strip()
    source = parent if top else mount
    known = images.of(top or below)
    for one in known:
        sure = Sureness.DERIVED if len(known) == 1 else Sureness.LIKELY
        shared = f", as it is of {len(known) - 1} more" if len(known) > 1 else ""
        detail = f"its layer lies on {top or below}, the top layer of this {one.what}{shared}"
        yield Fact("image", one.id, sure, "layers", detail, source.origin if source is not None else one.origin)


def facts_instead(files: Mapping[str, Remnant], images: ImagesByTop, image_id: str) -> Iterator[Fact]:
    """What stands in for a lost record: when it was made, and what its image asks for.

    Args:
        files: its record of layers, as far as it was found.
        images: the images.
        image_id: its image; empty when it is not known.
    """
    born = [one for one in files.values() if one.modified_ns]
    if born:
        first = min(born, key=lambda one: one.modified_ns or 0)
        detail = "the first file of its record of layers was written then, milliseconds after it was created"
        yield Fact("created", iso(first.modified_ns), Sureness.LIKELY, first.method, detail, first.origin)
    image = images.image(image_id)
    if image is not None:
        for name in image.tags:
            yield Fact("image name", name, Sureness.LIKELY, "image", "a name that its image has now", image.origin)
        yield from _defaults(image)


def _defaults(image: Image) -> Iterator[Fact]:
    """What the image asks for; whoever made the container may have asked for something else."""
    config = image.config
    words = " ".join((*config.entrypoint, *config.cmd))
    shown = (
        ("command of the image", words),
        ("environment of the image", " ".join(config.env)),
        ("working directory of the image", config.working_dir),
        ("user of the image", config.user),
        ("ports of the image", " ".join(map(str, config.exposed_ports))),
        ("volumes of the image", " ".join(config.volumes)),
    )
    for about, value in shown:
        if value:
            detail = "a default, unless the container was given another"
            yield Fact(about, value, Sureness.LIKELY, "image", detail, image.origin)


def facts_of_networks(
    remnants: Iterable[Remnant], dockers: Iterable[DockerRoot], witnesses: Witnesses
) -> Iterator[tuple[str, Fact]]:
    """(container id, fact): names and addresses of endpoints, by the sandbox that they were in or by their own id."""
    records = [*_network_remnants(remnants), *_network_store(dockers)]
    owners = {sandbox: one for sandbox, one in witnesses.sandboxes.items() if CONTAINER_ID.fullmatch(one)}
    for document, _, _, _ in records:
        if CONTAINER_ID.fullmatch(document.text(_SANDBOX)):
            owners[document.text("ID")] = document.text(_SANDBOX)
    seen: set[tuple[str, str, str]] = set()
    for document, owner, method, origin in records:
        name, interface = document.text("name"), document.object(_ENDPOINT)
        sandbox = document.text("sandbox")
        owner = owners.get(sandbox, owner)
        if _ENDPOINT not in document or not owner or name.startswith("gateway_"):
            continue
        detail = f"endpoint {document.text('id')[:12]} was in its sandbox {sandbox[:12]}"
        for about, value in (
            ("name", name),
            ("address", interface.text("addr")),
            ("address", interface.text("addrv6")),
        ):
            if value and (owner, about, value) not in seen:
                seen.add((owner, about, value))
                yield owner, Fact(about, value, Sureness.DERIVED, method, detail, origin)
        told = witnesses.endpoints.get(document.text("id")[:12])
        if told is not None and told[0] != name:
            yield owner, Fact("name", told[0], Sureness.DERIVED, "daemon log", detail, told[1])


def _network_remnants(remnants: Iterable[Remnant]) -> Iterator[tuple[JsonObject, str, str, Origin]]:
    for remnant in remnants:
        if remnant.kind != "record" or remnant.content is None or not remnant.method.startswith("bbolt"):
            continue
        text = _text(remnant)
        if f'"{_ENDPOINT}"' not in text and f'"{_SANDBOX}"' not in text:
            continue
        try:
            yield (
                parse_object(text.encode("utf-8", "surrogateescape"), remnant.origin),
                remnant.container_id,
                remnant.method,
                remnant.origin,
            )
        except ForensicsError:
            continue


def _network_store(dockers: Iterable[DockerRoot]) -> Iterator[tuple[JsonObject, str, str, Origin]]:
    for docker in dockers:
        for kind in ("sandbox", "endpoint"):
            for document, origin in docker.network_store.kind(kind).values():
                yield document, "", "network store", origin


def disputed(facts: Sequence[Fact], about: str) -> list[str]:
    """The values of the surest facts about one thing, if they are several."""
    values = _best(facts, about)
    return values if len(values) > 1 else []


def settled(facts: Sequence[Fact], about: str) -> Fact | None:
    """The fact about one thing that nothing as sure contradicts; None without one."""
    values = _best(facts, about)
    sure = next((sure for sure in _ORDER for one in facts if one.about == about and one.sureness is sure), None)
    return next((f for f in facts if f.about == about and f.sureness is sure), None) if len(values) == 1 else None


def _best(facts: Sequence[Fact], about: str) -> list[str]:
    for sure in _ORDER:
        values = list(dict.fromkeys(one.value for one in facts if one.about == about and one.sureness is sure))
        if values:
            return values
    return []


def completed(
    container_id: str, config: JsonObject, facts: Sequence[Fact], files: Iterable[str], driver: str, real_root: str
) -> tuple[JsonObject, JsonObject, list[Fact]]:
    """A record, its settings and the facts that they are made of, where the record does not have them itself.

    Args:
        container_id: the container.
        config: what is left of its record.
        facts: what is told of it.
        files: names of the files that its folder had.
        driver: its storage driver; empty when it is not known.
        real_root: path of the data root on its host.
    """
    raw: dict[str, JsonValue] = {"ID": container_id, **config.raw}
    host: dict[str, JsonValue] = {}
    used: list[Fact] = []

    def take(about: str) -> str:
        fact = settled(facts, about)
        used.extend([fact] if fact is not None else [])
        return fact.value if fact is not None else ""

    for key, about, start in (("Name", "name", "/"), ("Image", "image", ""), ("Created", "created", "")):
        if key not in raw and (value := take(about)):
            raw[key] = f"{start}{value}"
    if "Config" not in raw and (hostname := take("hostname")):
        raw["Config"] = {"Hostname": hostname}
    if driver:
        raw.setdefault("Driver", driver)
    names = set(files)
    for name, key in _HOST_PATHS:
        if name in names:
            raw.setdefault(key, f"{real_root}/containers/{container_id}/{name}")
    if log_driver := take("log driver"):
        host["LogConfig"] = {"Type": log_driver}
        if log_driver == "json-file":
            raw.setdefault("LogPath", f"{real_root}/containers/{container_id}/{container_id}-json.log")
    return JsonObject(raw), JsonObject(host), used


def _stated(about: str, value: str, remnant: Remnant, detail: str) -> Fact:
    return Fact(about, value, Sureness.STATED, remnant.method, detail, remnant.origin)


def _text(remnant: Remnant | None) -> str:
    if remnant is None or remnant.content is None or not remnant.complete:
        return ""
    try:
        return remnant.content.read_some(0, _MAX_TEXT).rstrip(b"\0").decode("utf-8", "surrogateescape")
    except ForensicsError:
        return ""
