"""The logs that Docker keeps in a container's folder, read in the order in which they were written.

``json-file``: ``ID-json.log``; ``local``: ``local-logs/container.log``; drivers that cannot be read back:
``container-cached.log``, if the cache is on; ``journald``: the host's journal. Rotation makes ``.1`` (the newest) to
``.N`` of each file, and ``.gz`` of those where compression is on. Source: moby
``daemon/logger/loggerutils/logfile.go`` and ``daemon/container``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, pairwise

from forensics_lib.engines.docker.journald import JournalLog
from forensics_lib.engines.logs import LogRecord, Pattern, filter_logs
from forensics_lib.errors import DamagedData, ForensicsError, NotAFile, PathNotFound
from forensics_lib.formats.json_log import read_json_log
from forensics_lib.formats.local_log import read_local_log
from forensics_lib.formats.log_record import OnProblem
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.sources.base import BLOCK, Source
from forensics_lib.sources.decompress import Compression, Limits, decompress, sniff
from forensics_lib.trees.base import Node, NodeKind, Tree, join, parent_of

__all__ = ["container_logs"]

_JSON_FILE, _LOCAL, _JOURNALD = "json-file", "local", "journald"
_ROTATED = re.compile(r"\.([1-9][0-9]{0,8})(\.gz)?")

_Decoder = Callable[[Iterable[bytes], Origin, OnProblem], Iterator[LogRecord]]


@dataclass(frozen=True, slots=True)
class _Log:
    """A log and its rotated files: where they lie, and which driver writes it (others use the cache: empty)."""

    driver: str
    directory: str
    name: str
    decoder: _Decoder


def container_logs(
    tree: Tree,
    folder: str,
    container_id: str,
    driver: str,
    log_path: str,
    problems: ProblemLog,
    limits: Limits,
    journal: JournalLog | None = None,
    *,
    pattern: Pattern | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Iterator[LogRecord]:
    """Every record of every log that lies in the container's folder, oldest file first: what ``docker logs`` reads.

    The files are found by name whatever `log_path` says. A log of another driver than the container's follows its own
    and is a problem. What cannot be read is a problem, and reading goes on behind it. FIFOs and devices are not opened.

    Args:
        tree: the file system that holds the container's folder.
        folder: the folder (``…/containers/ID``) in the tree.
        container_id: its full id, which the names of ``json-file`` logs start with.
        driver: the log driver of its configuration; empty when it is not known.
        log_path: ``LogPath`` of its configuration; read as well when it leads elsewhere in the tree.
        problems: gets what could not be read.
        limits: bounds on decompression.
        journal: the container's log in the journals of the evidence.
        pattern: see `filter_logs`, as the two that follow.
        since: earliest time, inclusive.
        until: latest time, inclusive.

    Raises:
        ValueError: a time without zone.
        re.error: the pattern is no regular expression.
    """
    records = _all_records(tree, folder, container_id, driver, log_path, problems, limits)
    if driver not in (_JSON_FILE, _LOCAL, "none"):
        records = _or_kept_elsewhere(
            records, journal, container_id, driver, tree.origin.to(folder.strip("/")), problems
        )
    return filter_logs(records, pattern, since, until)


def _all_records(
    tree: Tree, folder: str, container_id: str, driver: str, log_path: str, problems: ProblemLog, limits: Limits
) -> Iterator[LogRecord]:
    logs = [
        _Log(_JSON_FILE, folder, f"{container_id}-json.log", read_json_log),
        _Log(_LOCAL, join(folder, "local-logs"), "container.log", read_local_log),
        _Log("", folder, "container-cached.log", read_local_log),
    ]
    if log_path.startswith("/") and not log_path.endswith(f"/{container_id}/{logs[0].name}"):
        logs += _elsewhere(tree, logs[0], log_path, problems)
    own = driver if driver in (_JSON_FILE, _LOCAL) else ""
    for log in sorted(logs, key=lambda log: log.driver != own):
        for file in _files(tree, log, problems):
            if log.driver != own and driver and file.size:
                problems.add(_at(file), f"log of another driver than {driver}, which the container is configured for")
            yield from _records(file, log.decoder, problems, limits)


def _or_kept_elsewhere(
    in_folder: Iterator[LogRecord],
    journal: JournalLog | None,
    container_id: str,
    driver: str,
    origin: Origin,
    problems: ProblemLog,
) -> Iterator[LogRecord]:
    """The records of the container's folder; where it has none, those of the journal, or the reason why not."""
    has_own = False
    for record in in_folder:
        has_own = True
        yield record
    in_journal = journal.records(origin, problems) if journal is not None and driver in ("", _JOURNALD) else iter(())
    first = next(in_journal, None)
    if first is not None and has_own:
        problems.add(
            origin, f"container {container_id}: the journal has its log as well; the one of its folder is read"
        )
    elif first is not None:
        yield first
        yield from in_journal
    elif driver == _JOURNALD and not has_own:
        reason = "has no line of it" if journal is not None and journal.journals.files else "is not in this evidence"
        problems.add(origin, f"container {container_id}: its log went to the host's journal, which {reason}")
    elif driver and not has_own:
        problems.add(origin, f"container {container_id}: its log driver {driver} keeps no log in its folder")


def _elsewhere(tree: Tree, usual: _Log, log_path: str, problems: ProblemLog) -> Iterator[_Log]:
    """The log that `log_path` names, unless it leads to the usual one."""
    place = join(usual.directory, usual.name)
    try:
        found = tree.node(log_path)
        if found.kind is NodeKind.DIR:
            raise NotAFile(f"{found.path} is a folder")
    except ForensicsError as error:
        problems.add(_place(tree, usual), f"LogPath {log_path} leads to no log in this evidence: {error}")
        return
    if place not in tree or tree.node(place).path != found.path:
        yield _Log(_JSON_FILE, parent_of(found.path), found.name, read_json_log)


def _files(tree: Tree, log: _Log, problems: ProblemLog) -> Iterator[Node]:
    """The files of a log, oldest first."""
    try:
        nodes = [node for node in tree.children(log.directory) if node.name.startswith(log.name)]
    except PathNotFound:
        return
    except ForensicsError as error:
        problems.add(_place(tree, log), error)
        return
    files: dict[int, list[Node]] = {}  # by number of rotation, the uncompressed one first
    for node in nodes:
        suffix = node.name[len(log.name) :]
        rotated = _ROTATED.fullmatch(suffix)
        if suffix and rotated is None:
            problems.add(_at(node), "has no name that Docker gives a log; not read")
        else:
            files.setdefault(int(rotated[1]) if rotated else 0, []).extend(_regular_file(tree, node, problems))
    for newer, older in pairwise(sorted({-1, *files})):
        if older > newer + 1:
            missing = log.name if newer < 0 else f"{log.name}.{newer + 1}"
            problems.add(_place(tree, log, missing), "is missing, though rotation left older files")
    for _, same in sorted(files.items(), reverse=True):
        yield from same[:1]
        for copy in same[1:]:
            message = "left out: the same log lies beside it uncompressed, as when compression was interrupted"
            problems.add(_at(copy), message)


def _place(tree: Tree, log: _Log, name: str = "") -> Origin:
    return tree.origin.to(join(log.directory, name).strip("/"))


def _at(node: Node) -> Origin:
    return node.origin.to(node.path.lstrip("/"))


def _regular_file(tree: Tree, node: Node, problems: ProblemLog) -> Iterator[Node]:
    try:
        file = tree.resolve(node.path) if node.kind is NodeKind.SYMLINK else node
    except ForensicsError as error:
        problems.add(_at(node), f"link to {node.target} leads to no file in this evidence: {error}")
        return
    if file.kind is NodeKind.FILE:
        yield file
    else:
        problems.add(_at(node), f"stands in the place of a log but is a {file.kind}; not opened")


def _records(file: Node, decoder: _Decoder, problems: ProblemLog, limits: Limits) -> Iterator[LogRecord]:
    origin = _at(file)

    def no_record(error: DamagedData) -> None:
        problems.add(origin.to("record", error.offset), error)

    def unreadable(error: ForensicsError) -> None:
        problems.add(_at(file), error)

    try:
        with closing(file.source()) as source:
            blocks: Iterator[bytes] = _until_damage(_blocks(source), unreadable)
            first = next(blocks, b"")
            compression = sniff(first)
            blocks = chain((first,), blocks)
            if compression is not Compression.NONE:
                origin = origin.to(compression)
                blocks = _until_damage(decompress(blocks, compression, origin, limits, unreadable), unreadable)
            elif file.path.endswith(".gz") and file.size:
                problems.add(origin, "is named .gz but is not compressed; read as it is")
            yield from decoder(blocks, origin, no_record)
    except ForensicsError as error:  # there is no source
        unreadable(error)


def _until_damage(blocks: Iterable[bytes], on_problem: Callable[[ForensicsError], None]) -> Iterator[bytes]:
    """The blocks up to damage, which is reported and ends them."""
    try:
        yield from blocks
    except ForensicsError as error:
        on_problem(error)


def _blocks(source: Source) -> Iterator[bytes]:
    """The bytes of a file; before damage, such as the end of a cut archive, up to the last byte that can be read."""
    offset, step = 0, BLOCK
    while offset < source.size:
        try:
            block = source.read_at(offset, step)
        except DamagedData:
            if step == 1:
                raise
            step //= 2
            continue
        if not block:
            return
        yield block
        offset += len(block)
