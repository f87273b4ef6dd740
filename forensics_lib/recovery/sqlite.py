"""Deleted and older rows of the engines' SQLite databases: Podman's ``db.sql``, and ``state.db`` of kine (k3s).

Podman keeps containers with their runtime specification, pods, volumes and exit codes; the exit code of a container
outlives it for some minutes or longer. kine keeps keys of Kubernetes, all versions of each until it tidies up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

from forensics_lib.errors import ForensicsError
from forensics_lib.formats.jsondoc import JsonObject, parse_object
from forensics_lib.formats.sqlite import MAGIC, Row, Sqlite, SqliteTable
from forensics_lib.formats.sqlite_record import Value
from forensics_lib.formats.sqlite_stale import StaleRow, stale_rows
from forensics_lib.model import Origin, ProblemLog, utc_from_ns
from forensics_lib.recovery.forms import CONTAINER_ID
from forensics_lib.recovery.remnant import Confidence, Remnant
from forensics_lib.sources.base import BytesSource
from forensics_lib.trees.base import Node, NodeKind, Tree, join

__all__ = ["copied_rows", "journal_rows", "live_rows", "sqlite_remnants"]

_PODMAN = ("libpod/db.sql", "db.sql")
_HOSTS = ("var/lib/containers/storage", "run/containers/storage", "root/.local/share/containers/storage", "storage")
_IN_HOME = ".local/share/containers/storage"
_KINE = ("var/lib/rancher/k3s/server/db/state.db", "server/db/state.db", "db/state.db", "state.db")
_MAX_HOMES = 10_000
_MAX_TEXT = 200
_MAX_COPIES = 100
_MAX_JOURNALS = 1000
_LEAST, _LARGEST = 1024, 256 << 20
_MAX_SECONDS = 1 << 33
_EXITS, _CONTAINERS = "ContainerExitCode", "ContainerConfig"


def sqlite_remnants(trees: Iterable[Tree], problems: ProblemLog) -> Iterator[Remnant]:
    """What the databases in some trees no longer show, database by database.

    Args:
        trees: file systems of hosts, or copies of a storage folder.
        problems: gets databases that cannot be read.
    """
    for tree in trees:
        for path in _paths(tree):
            node = tree.node(path)
            if node.kind is not NodeKind.FILE or not node.size:
                continue
            try:
                database = _opened(tree, node)
                yield from _rows(_Database(path, database))
                for fault in database.faults:
                    problems.add(node.origin.to(path.lstrip("/")), fault)
            except ForensicsError as error:
                problems.add(node.origin.to(path.lstrip("/")), error)


def copied_rows(copies: Iterable[Remnant], trees: Iterable[Tree], problems: ProblemLog) -> Iterator[Remnant]:
    """What recovered copies of such databases hold that the databases as they are do not.

    Args:
        copies: remnants, SQLite databases among them.
        trees: file systems with the databases as they are.
        problems: gets copies that cannot be read.
    """
    known: set[tuple[str, tuple[Value, ...]]] | None = None
    for copy in islice((one for one in copies if _is_database(one)), _MAX_COPIES):
        if copy.content is None:
            continue
        if known is None:
            known = _known(trees)
        try:
            found = _Database(copy.path, Sqlite(copy.content))
            if not any(table.name in _DESCRIBED for table in found.database.tables):
                continue
            for table in found.database.tables:
                for row in found.database.rows(table) if table.name in _DESCRIBED else ():
                    if (table.name, row.values) not in known:
                        known.add((table.name, row.values))
                        page = (row.page - 1) * found.database.page_size
                        origin = copy.content.origin.to(f"page {row.page}", page + row.offset)
                        what = "only in an older copy of the database: "
                        yield _remnant_of(found, table, row, what, "SQLite copy", origin, copy)
        except ForensicsError as error:
            problems.add(copy.origin, error)


def journal_rows(journals: Iterable[Remnant], trees: Iterable[Tree], problems: ProblemLog) -> Iterator[Remnant]:
    """What recovered rollback journals hold of rows that their databases no longer have.

    Args:
        journals: remnants, journals with their path among them.
        trees: file systems with the databases as they are.
        problems: gets what cannot be read.
    """
    databases = {path: tree for tree in trees for path in _paths(tree)}
    seen: set[bytes] = set()
    for journal in islice((one for one in journals if one.path.endswith("-journal")), _MAX_JOURNALS):
        path = journal.path.removesuffix("-journal")
        tree = databases.get(path) or databases.get(f"/{path}")
        if tree is None or journal.content is None:
            continue
        try:
            found = _Database(path, _opened(tree, tree.node(path)))
            for stale in stale_rows(found.database, journal.content):
                row = _stale(found, stale)
                mark = f"{stale.table.name} {stale.row.values!r}".encode("utf-8", "surrogatepass")
                if mark not in seen:
                    seen.add(mark)
                    yield row
        except ForensicsError as error:
            problems.add(journal.origin, error)


def live_rows(trees: Iterable[Tree], name: str) -> Iterator[tuple[Value, ...]]:
    """The rows that a table of the databases in some trees has now; none of what cannot be read."""
    for tree in trees:
        for path in _paths(tree):
            with suppress(ForensicsError):  # which is told where the database itself is read
                database = _opened(tree, tree.node(path))
                for table in database.tables:
                    if table.name == name:
                        yield from (row.values for row in database.rows(table))


def _known(trees: Iterable[Tree]) -> set[tuple[str, tuple[Value, ...]]]:
    """The rows of all databases as they are."""
    known: set[tuple[str, tuple[Value, ...]]] = set()
    for tree in trees:
        for path in _paths(tree):
            with suppress(ForensicsError):  # which is told where the database itself is read
                database = _opened(tree, tree.node(path))
                known |= {(table.name, row.values) for table in database.tables for row in database.rows(table)}
    return known


def _is_database(remnant: Remnant) -> bool:
    if remnant.content is None or not _LEAST <= (remnant.size or 0) <= _LARGEST:
        return False
    try:
        return remnant.content.read_some(0, len(MAGIC)) == MAGIC
    except ForensicsError:
        return False


def _opened(tree: Tree, node: Node) -> Sqlite:
    """A database with its log."""
    path = f"{node.path}-wal"
    log = tree.node(path) if path in tree else None
    return Sqlite(node.source(), log.source() if log is not None and log.size else None)


def _paths(tree: Tree) -> Iterator[str]:
    """Where such databases lie."""
    homes = [""]
    try:
        children = tree.children("/home") if "/home" in tree else ()
        homes += [join(node.path, _IN_HOME) for _, node in zip(range(_MAX_HOMES), children, strict=False)]
    except ForensicsError:
        pass
    folders = ["", *(f"/{name}" for name in _HOSTS), *homes[1:]]
    places = [f"{folder}/{name}" for folder in folders for name in _PODMAN] + [f"/{name}" for name in _KINE]
    for place in dict.fromkeys(places):
        if place in tree:
            yield place


@dataclass(frozen=True, slots=True)
class _Database:
    """One database and where it lies, or lay."""

    path: str
    database: Sqlite

    def remnant(
        self,
        kind: str,
        detail: str,
        method: str,
        origin: Origin,
        content: bytes | None,
        *,
        container_id: str = "",
        confidence: Confidence = Confidence.INTACT,
        complete: bool = True,
    ) -> Remnant:
        """A row as a remnant."""
        source = None if content is None else BytesSource(content, origin)
        return Remnant(
            kind=kind,
            path=self.path,
            container_id=container_id if CONTAINER_ID.fullmatch(container_id) else "",
            image_id="",
            method=method,
            confidence=confidence if source is not None else Confidence.METADATA_ONLY,
            complete=complete and source is not None,
            size=None if source is None else source.size,
            origin=origin,
            detail=detail,
            content=source,
        )


def _rows(found: _Database) -> Iterator[Remnant]:
    yield from _still_there(found)
    yield from (_stale(found, stale) for stale in stale_rows(found.database))


def _stale(found: _Database, stale: StaleRow) -> Remnant:
    what = "older version of " if stale.older else "deleted "
    method = stale.state.value
    return _remnant_of(found, stale.table, stale.row, what, method, stale.origin, checked=stale.checked)


def _remnant_of(
    found: _Database,
    table: SqliteTable,
    row: Row,
    what: str,
    method: str,
    origin: Origin,
    copy: Remnant | None = None,
    *,
    checked: bool = False,
) -> Remnant:
    """A row as a remnant; of a copy of a database it is no surer than that."""
    named = _named(table, row)
    value = named.get("value" if table.name == "kine" else "JSON")
    content = value.encode() if isinstance(value, str) else value if isinstance(value, bytes) else None
    kind, words = _DESCRIBED.get(table.name, _other)(named, _parsed(content))
    words = words if table.name in _DESCRIBED else f"row of the table {table.name}: {words}"
    whole = row.complete and _is_valid(table, content) and (copy is None or copy.complete)
    detail = f"{what}{words}, page {row.page}" + ("" if row.complete else "; its end was overwritten")
    sure = Confidence.VERIFIED if checked else Confidence.INTACT
    container_id = named.get("ContainerID") or (named.get("ID") if table.name != "PodConfig" else "")
    return found.remnant(
        kind,
        detail,
        method,
        origin,
        content,
        container_id=str(container_id or ""),
        confidence=sure if whole else Confidence.CARVED,
        complete=whole,
    )


def _still_there(found: _Database) -> Iterator[Remnant]:
    """Rows that tell of something deleted although they are there."""
    tables = {table.name: table for table in found.database.tables}
    method, size = "SQLite row", found.database.page_size
    if _EXITS in tables and _CONTAINERS in tables:
        known = {row.values[0] for row in found.database.rows(tables[_CONTAINERS]) if row.values}
        for row in found.database.rows(tables[_EXITS]):
            if len(row.values) == 3 and row.values[0] not in known:
                detail = f"{_exit(_named(tables[_EXITS], row), JsonObject({}))[1]}; the container was removed"
                origin = found.database.origin.to(f"page {row.page}", (row.page - 1) * size + row.offset)
                yield found.remnant("container", detail, method, origin, None, container_id=str(row.values[0]))
    if "kine" in tables:
        yield from _versions(found, tables["kine"], method)


def _versions(found: _Database, table: SqliteTable, method: str) -> Iterator[Remnant]:
    """Versions of keys that are not their newest, and the last ones of deleted keys."""
    newest: dict[Value, tuple[int, Value]] = {}
    for row in found.database.rows(table):
        named = _named(table, row)
        if (row.number or 0) > newest.get(named.get("name"), (0, 0))[0]:
            newest[named.get("name")] = (row.number or 0, named.get("deleted"))
    for row in found.database.rows(table):
        named = _named(table, row)
        last, is_deleted = newest.get(named.get("name"), (0, 0))
        value = named.get("value")
        if (row.number == last and not is_deleted) or not isinstance(value, bytes | str) or not value:
            continue
        what = "deleted" if is_deleted else "older version of"
        origin = found.database.origin.to(f"page {row.page}", (row.page - 1) * found.database.page_size + row.offset)
        content = value.encode() if isinstance(value, str) else value
        yield found.remnant(
            "record",
            f"{what} key {_text(named.get('name'))}, page {row.page}",
            method,
            origin,
            content,
            complete=row.complete,
        )


def _named(table: SqliteTable, row: Row) -> dict[str, Value]:
    named = {column.name: value for column, value in zip(table.columns, row.values, strict=False)}
    return named | {column.name: row.number for column in table.columns if column.is_rowid}


def _parsed(content: bytes | None) -> JsonObject:
    try:
        return parse_object(content or b"", Origin("row"))
    except ForensicsError:
        return JsonObject({})


def _is_valid(table: SqliteTable, content: bytes | None) -> bool:
    """Whether a document is one, in tables that hold documents."""
    return content is None or table.columns[-1].name != "JSON" or bool(_parsed(content).raw)


def _text(value: Value) -> str:
    return str(value if value is not None else "?")[:_MAX_TEXT]


def _container(named: dict[str, Value], document: JsonObject) -> tuple[str, str]:
    words = " ".join(document.object("spec").object("process").texts("args"))[:_MAX_TEXT]
    image = document.text("rootfsImageName")
    return "config", f"container {_text(named.get('Name'))}{f' of {image}' if image else ''}: {words}"


def _state(named: dict[str, Value], document: JsonObject) -> tuple[str, str]:
    started, finished = document.text("startedTime"), document.text("finishedTime")
    times = f", started {started}, finished {finished}" if started else ""
    return "record", f"state {_text(named.get('State'))} of container {_text(named.get('ID'))[:12]}{times}"


def _volume(named: dict[str, Value], document: JsonObject) -> tuple[str, str]:
    return "volume", f"volume {_text(named.get('Name'))}, driver {document.text('driver') or 'unknown'}"


def _pod(named: dict[str, Value], document: JsonObject) -> tuple[str, str]:
    return "record", f"pod {_text(named.get('Name'))}"


def _exit(named: dict[str, Value], document: JsonObject) -> tuple[str, str]:
    time = named.get("Timestamp")
    when = utc_from_ns(time * 10**9) if isinstance(time, int) and abs(time) < _MAX_SECONDS else None
    at = f" at {when.isoformat()}" if when is not None else ""
    return "record", f"container {_text(named.get('ID'))[:12]} exited with {_text(named.get('ExitCode'))}{at}"


def _other(named: dict[str, Value], document: JsonObject) -> tuple[str, str]:
    words = ", ".join(f"{name} {_text(value)}" for name, value in named.items() if not isinstance(value, bytes))
    return "record", words[:_MAX_TEXT]


def _key(named: dict[str, Value], document: JsonObject) -> tuple[str, str]:
    return "record", f"key {_text(named.get('name'))}"


_Describe = Callable[[dict[str, Value], JsonObject], tuple[str, str]]
_DESCRIBED: dict[str, _Describe] = {
    _CONTAINERS: _container,
    "ContainerState": _state,
    "VolumeConfig": _volume,
    "PodConfig": _pod,
    _EXITS: _exit,
    "kine": _key,
}
