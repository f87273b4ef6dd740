"""Docker's volumes: folders below ``volumes`` and the records of ``volumes/metadata.db``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from forensics_lib.engines.docker.root import DataRoot
from forensics_lib.engines.docker.version import Engine
from forensics_lib.engines.volume import Volume
from forensics_lib.errors import ForensicsError, UnsupportedFormat
from forensics_lib.formats.jsondoc import JsonObject, parse_object
from forensics_lib.model import Origin, utc_from_ns
from forensics_lib.trees.base import Node, NodeKind, Tree, join
from forensics_lib.trees.documents import DocumentReader
from forensics_lib.trees.subtree import Subtree

__all__ = ["decode_volumes", "list_volumes"]

_MARGIN = 60 * 10**9
_ANONYMOUS = "com.docker.volume.anonymous"


def decode_volumes(
    items: Iterable[tuple[bytes, bytes, Origin]], reader: DocumentReader
) -> dict[str, tuple[JsonObject, Origin]]:
    """The records of the database's bucket by name; what cannot be decoded becomes a problem."""
    found = {}
    for key, value, origin in items:
        try:
            document = parse_object(value, origin)
        except ForensicsError as error:
            reader.problems.add(origin, error)
            continue
        found[document.text("Name") or key.decode("utf-8", "surrogateescape")] = (document, origin)
    return found


def list_volumes(
    reader: DocumentReader,
    root: DataRoot,
    real_root: str,
    records: Mapping[str, tuple[JsonObject, Origin]],
    engine: Engine,
    last_written_ns: int,
    *,
    complete: bool = True,
) -> list[Volume]:
    """The volumes by name: every folder that is one, and those of plugins, which only have a record.

    A volume without a record is a problem where the records are `complete`.
    """
    found: list[Volume] = []

    def add(name: str, node: Node | None, document: JsonObject, origin: Origin) -> None:
        created_ns = None if node is None else _shown_as_creation(reader, node, engine, last_written_ns)
        found.append(_volume(reader, name, node, real_root, document, origin, created_ns))

    folders = {}
    for node in reader.folder(root.at("volumes")):
        if node.kind is NodeKind.DIR and _is_volume(reader.tree, node):
            folders[node.name] = node
    for name, (document, origin) in records.items():
        if name not in folders and document.text("Driver") in ("local", ""):
            reader.problems.add(origin, f"volume {name} has a record, but no folder: it was removed or not copied")
        elif name not in folders:
            add(name, None, document, origin)
    for name, node in folders.items():
        document, origin = records.get(name, (JsonObject({}), node.origin.to(node.path.lstrip("/"))))
        if name not in records and complete:
            reader.problems.add(origin, f"volume {name} has a folder, but no record")
        add(name, node, document, origin)
    return sorted(found, key=lambda volume: volume.name)


def _is_volume(tree: Tree, node: Node) -> bool:
    return join(node.path, "_data") in tree or join(node.path, "opts.json") in tree


def _shown_as_creation(reader: DocumentReader, node: Node, engine: Engine, last_written_ns: int) -> int | None:
    """Docker shows a change time as creation: until 22 that of the files' folder, then that of the volume's.

    A copy of the folder has change times of its own, later than anything the daemon wrote. The time of the content's
    last change then stands in, which is the same unless only owner or mode were changed after it.
    """
    folder = node if engine.at_least(23) else reader.tree.find(join(node.path, "_data"))
    if folder is None or folder.ctime_ns is None:
        return None
    copied = folder.ctime_ns > last_written_ns + _MARGIN and (folder.mtime_ns or 0) <= last_written_ns + _MARGIN
    if not copied:
        return folder.ctime_ns
    message = "change times are those of the copy; volumes show the last change of their content as creation instead"
    reader.problems.add(reader.origin, message)
    return folder.mtime_ns


def _volume(
    reader: DocumentReader,
    name: str,
    node: Node | None,
    real_root: str,
    document: JsonObject,
    origin: Origin,
    created_ns: int | None,
) -> Volume:
    driver = document.text("Driver") or "local"
    mountpoint = f"{join(real_root, 'volumes')}/{name}/_data" if driver == "local" else ""

    def inspect() -> dict[str, object]:
        answer: dict[str, object] = {
            "Driver": driver,
            "Labels": document.get("Labels"),
            "Mountpoint": mountpoint,
            "Name": name,
            "Options": document.get("Options"),
            "Scope": "local",
        }
        moment = utc_from_ns(created_ns)
        if moment is not None:
            answer["CreatedAt"] = moment.strftime("%Y-%m-%dT%H:%M:%SZ")
        return answer

    def tree() -> Tree:
        if node is None:
            raise UnsupportedFormat(f"the files of volume {name} are kept by the plugin {driver}")
        return Subtree(reader.tree, join(node.path, "_data"))

    labels = document.mapping("Labels")
    return Volume(
        name=name,
        driver=driver,
        mountpoint=mountpoint,
        created_ns=created_ns,
        labels=tuple(labels.items()),
        options=tuple(document.mapping("Options").items()),
        anonymous=_ANONYMOUS in labels or (len(name) == 64 and not set(name) - set("0123456789abcdef")),
        origin=origin,
        _inspect=inspect,
        _tree=tree,
    )
