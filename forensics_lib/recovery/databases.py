"""Deleted and overwritten records of the engines' databases: what freed pages of bbolt files still hold.

Docker keeps its networks in ``network/files/local-kv.db`` and its volumes in ``volumes/metadata.db``, containerd its
containers with their runtime specifications in ``meta.db``, BuildKit its cache in ``buildkit/*.db``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import chain, islice
from typing import TypeAlias

from forensics_lib.engines.containerd.root import METADATA
from forensics_lib.engines.containerd.snapshotter import FOLDER
from forensics_lib.engines.containerd.store import Containerd
from forensics_lib.engines.docker.engine import DockerRoot
from forensics_lib.errors import DamagedData, ForensicsError
from forensics_lib.formats.bbolt import Bolt
from forensics_lib.formats.containerd import unsigned_varint
from forensics_lib.formats.jsondoc import JsonObject, iter_objects, parse, parse_object, parse_time, to_bytes
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.recovery.database import BoltDatabase
from forensics_lib.recovery.forms import CONTAINER_ID, form_of
from forensics_lib.recovery.remnant import Remnant
from forensics_lib.trees.base import Node, join, parent_of
from forensics_lib.trees.documents import DocumentReader

__all__ = ["containerd_remnants", "copied_records", "database_remnants"]

_NETWORK_KEY = re.compile(r"docker/network/v1\.0/([a-z_-]+)/(.+?)/?")
_INDEX = 8
_SPECIFICATION = b'{"ociVersion"'
_MAX_NAME = 200
_MAX_COPIES = 100
_LEAST, _LARGEST = 4 * 1024, 64 << 20
_MAGIC = (b"\xed\xda\x0c\xed", b"\xed\x0c\xda\xed")


_Reader: TypeAlias = "Callable[[BoltDatabase], Iterator[Remnant]]"


def database_remnants(docker: DockerRoot) -> Iterator[Remnant]:
    """What the databases of a data root, and of the containerd beside it, no longer reach; database by database.

    A record that is still live with the same value is left out; of one that is live with another value the detail says
    that it is an older version. What cannot be read becomes a problem.
    """
    yield from _read(_databases(docker), docker.reader.problems)


def containerd_remnants(containerd: Containerd) -> Iterator[Remnant]:
    """What the databases of a containerd no longer reach; as `database_remnants`."""
    yield from _read(_of_containerd(containerd.root.path, containerd.reader), containerd.reader.problems)


def _read(databases: Iterable[tuple[Node, _Reader]], problems: ProblemLog) -> Iterator[Remnant]:
    for node, reader in databases:
        try:
            database = BoltDatabase(node.path, Bolt(node.source(), problems))
            yield from reader(database)
        except ForensicsError as error:
            problems.add(node.origin.to(node.path.lstrip("/")), error)


def copied_records(
    copies: Iterable[Remnant],
    dockers: Iterable[DockerRoot],
    problems: ProblemLog,
    containerds: Iterable[Containerd] = (),
) -> Iterator[Remnant]:
    """What recovered copies of such databases hold that the databases as they are do not.

    Args:
        copies: remnants, bbolt databases among them.
        dockers: the data roots that are left.
        problems: gets copies that cannot be read.
        containerds: those that are left and that no data root uses.
    """
    known: dict[tuple[bytes, ...], int] | None = None
    for copy in islice((one for one in copies if _is_database(one)), _MAX_COPIES):
        if copy.content is None:
            continue
        if known is None:
            known = _known(dockers, containerds)
        try:
            bolt = Bolt(copy.content, ProblemLog())
            reader = next((read for names, read in _BY_BUCKET if bolt.root.bucket(*names) is not None), _others)
            yield from reader(BoltDatabase(copy.path, bolt, known, copy.complete))
        except ForensicsError as error:
            problems.add(copy.origin, error)


def _known(dockers: Iterable[DockerRoot], containerds: Iterable[Containerd]) -> dict[tuple[bytes, ...], int]:
    """The records of all databases as they are."""
    known: dict[tuple[bytes, ...], int] = {}
    own = (_of_containerd(one.root.path, one.reader) for one in containerds)
    for node, _ in chain(*(_databases(docker) for docker in dockers), *own):
        with suppress(ForensicsError):  # which is told where the database itself is read
            known |= BoltDatabase(node.path, Bolt(node.source(), ProblemLog())).live
    return known


def _is_database(remnant: Remnant) -> bool:
    if remnant.content is None or not _LEAST <= (remnant.size or 0) <= _LARGEST:
        return False
    try:
        return remnant.content.read_some(16, 4) in _MAGIC
    except ForensicsError:
        return False


def _databases(docker: DockerRoot) -> Iterator[tuple[Node, _Reader]]:
    root, reader = docker.root, docker.reader
    places = [
        (root.at("network", "files", "local-kv.db"), _networks),
        (root.at("volumes", "metadata.db"), _volumes),
    ]
    if docker.store is not None:
        store = docker.store.containerd
        roots = {store.root.path: store.reader}
    else:  # with a graph driver, containerd only knows the containers that ran
        roots = {root.at("containerd", "daemon"): reader, join(parent_of(root.path), "containerd"): reader}
    for home, its in roots.items():
        yield from _of_containerd(home, its)
    for folder in (root.at("buildkit"),):
        places += [(node.path, _others) for node in reader.folder(folder) if node.name.endswith(".db")]
    yield from _present(reader, places)


def _of_containerd(home: str, reader: DocumentReader) -> Iterator[tuple[Node, _Reader]]:
    snapshotters = [node.path for node in reader.folder(home) if node.name.startswith(FOLDER)]
    places = [(join(home, METADATA), _containerd), *((join(one, "metadata.db"), _snapshots) for one in snapshotters)]
    yield from _present(reader, places)


def _present(reader: DocumentReader, places: Iterable[tuple[str, _Reader]]) -> Iterator[tuple[Node, _Reader]]:
    for path, read in places:
        node = reader.find(path)
        if node is not None and node.size:
            yield node, read


def _networks(database: BoltDatabase) -> Iterator[Remnant]:
    """Networks, and what connected containers to them."""
    owners = dict(_sandboxes(database))
    for record in database.gone:
        match = _NETWORK_KEY.fullmatch(record.key.decode("utf-8", "surrogateescape"))
        if match is None or record.value is None:
            continue
        kind, content = match[1], record.value[_INDEX:]
        document = _parsed(content, record.origin)
        valid = document is not None
        document = document or JsonObject({})
        container_id = document.text("Cid") if kind == "sandbox" else owners.get(document.text("sandbox"), "")
        yield database.remnant(
            record,
            "network" if kind == "network" else "record",
            database.was(record, _network_words(kind, match[2], document, record.origin)),
            content=content,
            container_id=container_id if CONTAINER_ID.fullmatch(container_id) else "",
            valid=valid,
            modified_ns=parse_time(document.text("created"))[1],
        )


def _sandboxes(database: BoltDatabase) -> Iterator[tuple[str, str]]:
    """Container ids by the ids of their sandboxes, the deleted ones first, so that live ones count."""
    for record in (*database.gone, *database.bolt.root.walk()):
        if record.value is not None and b"/sandbox/" in record.key:
            document = _parsed(record.value[_INDEX:], record.origin) or JsonObject({})
            yield document.text("ID"), document.text("Cid")


def _network_words(kind: str, key: str, document: JsonObject, origin: Origin) -> str:
    name, identifier = document.text("name"), document.text("id") or document.text("ID")
    match kind:
        case "network":
            subnets = ", ".join(_subnets(document, origin))
            return f"network {name} ({identifier}), driver {document.text('networkType')}, subnets {subnets or 'none'}"
        case "endpoint":
            interface = document.object("ep_iface")
            address = interface.text("addr") or "no address"
            return f"endpoint of container {name} in network {key.partition('/')[0]}: {address} {interface.text('mac')}"
        case "sandbox":
            return f"sandbox of container {document.text('Cid')}"
        case _:
            return f"{kind} {key}"


def _subnets(document: JsonObject, origin: Origin) -> Iterator[str]:
    """Address ranges, which are JSON inside JSON inside JSON."""
    for version in ("4", "6"):
        wanted = _nested(document.text(f"ipamV{version}Config"), origin)
        asked = [one.text("PreferredPool") for one in wanted if one.text("PreferredPool")]
        given = [
            data.text("Pool")
            for one in _nested(document.text(f"ipamV{version}Info"), origin)
            for data in _nested(one.text("IPAMData"), origin)
            if data.text("Pool")
        ]
        yield from asked or given


def _nested(text: str, origin: Origin) -> list[JsonObject]:
    try:
        value = parse(to_bytes(text), origin) if text else None
    except ForensicsError:
        return []
    return list(iter_objects(value if isinstance(value, list) else [value]))


def _volumes(database: BoltDatabase) -> Iterator[Remnant]:
    for record in database.gone:
        if record.value is None:
            continue
        document = _parsed(record.value, record.origin)
        valid, document = document is not None, document or JsonObject({})
        name = document.text("Name") or _text(record.key)
        labels = ", ".join(f"{key}={value}" for key, value in document.mapping("Labels").items())
        words = f"volume {name}, driver {document.text('Driver') or 'unknown'}, labels {labels or 'none'}"
        yield database.remnant(record, "volume", database.was(record, words), content=record.value, valid=valid)


def _containerd(database: BoltDatabase) -> Iterator[Remnant]:
    """Objects of containerd: of containers their runtime specification, of others that they existed."""
    told: set[tuple[bytes, ...]] = set()
    specified: set[str] = set()
    later = []
    for record in database.gone:
        place = (*record.path, record.key)
        container_id = _container_in(place)
        start = record.value.find(_SPECIFICATION, 0, 4096) if record.value else -1
        if record.value is not None and start >= 0:
            document = _parsed(record.value[start:], record.origin)
            valid, document = document is not None, document or JsonObject({})
            form = form_of(document.raw, b"")
            container_id = container_id or (form.container_id if form is not None else "")
            words = " ".join(document.object("process").texts("args"))[:_MAX_NAME]
            detail = database.was(record, f"runtime specification of a container: {words}")
            specified.add(container_id)
            yield database.remnant(
                record, "record", detail, content=record.value[start:], container_id=container_id, valid=valid
            )
        elif record.rooted and len(place) >= 4 and place[:4] not in told and place[:4] not in database.live:
            told.add(place[:4])
            later.append(record)
    for record in later:
        place = (*record.path, record.key)[:4]
        name, kind = _text(place[3]), _text(place[2])
        is_container = kind == "containers"
        if not (is_container and name in specified):
            detail = f"deleted object of containerd: {kind} {name[:_MAX_NAME]}, page {record.page}"
            yield database.remnant(record, "record", detail, container_id=name if is_container else "")


def _container_in(place: tuple[bytes, ...]) -> str:
    """The id of the container that a record is of: 64 digits, or whatever its client called it."""
    full = next((_text(one) for one in reversed(place) if CONTAINER_ID.fullmatch(_text(one))), "")
    if not full and b"containers" in place[:-1]:
        return _text(place[place.index(b"containers") + 1])[:_MAX_NAME]
    return full


def _snapshots(database: BoltDatabase) -> Iterator[Remnant]:
    """Snapshots by name, each once: what tells in which directory a removed container's files lay."""
    told: set[bytes] = set()
    directories: dict[bytes, str] = {}
    for record in database.gone:
        if record.key == b"id" and record.value and record.path:
            with suppress(DamagedData):
                directories.setdefault(record.path[-1], str(unsigned_varint(record.value)))
    for record in database.gone:
        names = (*record.path, record.key)
        name = next((one for one in names if one.count(b"/") > 1), b"")
        if not name or name in told or (b"v1", b"snapshots", name) in database.live:
            continue
        told.add(name)
        key = _text(name.split(b"/", 2)[2])
        container_id = key[:64] if CONTAINER_ID.fullmatch(key[:64]) else ""
        directory = f", directory {directories[name]}" if name in directories else ""
        detail = f"deleted snapshot {key[:_MAX_NAME]}{directory}, page {record.page}"
        yield database.remnant(record, "record", detail, container_id=container_id)


def _others(database: BoltDatabase) -> Iterator[Remnant]:
    for record in database.gone:
        if record.value is not None:
            words = "/".join(_text(one) for one in (*record.path, record.key))
            detail = database.was(record, f"record {words[:_MAX_NAME]}")
            yield database.remnant(record, "record", detail, content=record.value)


def _parsed(data: bytes, origin: Origin) -> JsonObject | None:
    try:
        return parse_object(data, origin)
    except ForensicsError:
        return None


def _text(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")


_BY_BUCKET: tuple[tuple[tuple[bytes, ...], _Reader], ...] = (
    ((b"libnetwork",), _networks),
    ((b"volumes",), _volumes),
    ((b"v1", b"snapshots"), _snapshots),
    ((b"v1",), _containerd),
)
