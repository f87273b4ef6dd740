"""Recovered logs: whose those without a name are, and one log out of many pieces."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from forensics_lib.engines.docker.containers import ContainerRecord
from forensics_lib.engines.logs import LogRecord
from forensics_lib.errors import DamagedData, ForensicsError
from forensics_lib.formats.json_log import read_json_log
from forensics_lib.formats.local_log import read_local_log
from forensics_lib.formats.log_record import OnProblem
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.recovery.remnant import Remnant
from forensics_lib.sources.decompress import Compression, Limits, decompress, sniff

__all__ = ["LogOwner", "log_records", "merged", "share_logs"]

_LIMITS = Limits()
_MAX_MERGED = 4_000_000
_MARGIN = 5 * 10**9
_LOCAL_HEAD = b"\n\x06st"

_RecordKey = tuple[int, str, bytes]


class LogOwner(Protocol):
    """A removed container: its record, the named files of its folder, and pieces of its logs."""

    record: ContainerRecord
    named: dict[str, Remnant]
    fragments: list[Remnant]


def log_records(remnant: Remnant, problems: ProblemLog) -> Iterator[LogRecord]:
    """The records of a recovered log of either driver, compressed or not."""
    if remnant.content is None:
        return

    def no_record(error: DamagedData) -> None:
        problems.add(remnant.origin.to("record", error.offset), error)

    try:
        head = remnant.content.read_some(0, 64)
        blocks: Iterable[bytes] = remnant.content.blocks()
        compression = sniff(head)
        if compression is not Compression.NONE:
            blocks = decompress(blocks, compression, remnant.origin, _LIMITS, lambda error: None)
            blocks = iter(blocks)
            head = next(blocks, b"")
            blocks = _chained(head, blocks)
        yield from _decoded(head, blocks, remnant.origin, no_record)
    except ForensicsError as error:
        problems.add(remnant.origin, error)


def _chained(first: bytes, rest: Iterable[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _decoded(head: bytes, blocks: Iterable[bytes], origin: Origin, no_record: OnProblem) -> Iterator[LogRecord]:
    decoder = read_local_log if head[4:8] == _LOCAL_HEAD else read_json_log
    return decoder(blocks, origin, no_record)


def merged(named: Iterable[LogRecord], fragments: Sequence[Remnant], problems: ProblemLog) -> list[LogRecord]:
    """The records of all sources in the order of their time, each as often as the source has it that has it most.

    Pieces of one long line can be equal in everything, so that a record may come more than once in one log.
    """
    records = list(named)
    counted = Counter(map(_key, records))
    for fragment in fragments:
        own: Counter[tuple[int, str, bytes]] = Counter()
        for record in log_records(fragment, problems):
            key = _key(record)
            own[key] += 1
            if own[key] > counted[key] and len(records) < _MAX_MERGED:
                counted[key] += 1
                records.append(record)
    return sorted(records, key=lambda record: record.time_ns)


def _key(record: LogRecord) -> tuple[int, str, bytes]:
    return record.time_ns, record.stream, record.line


def share_logs(
    found: Sequence[LogOwner], live: Iterable[ContainerRecord], logs: Sequence[Remnant], problems: ProblemLog
) -> None:
    """Give each log without a name to the container that ran when its records were written."""
    quiet = ProblemLog()
    spans = [(_bounds(log, quiet), log) for log in logs]
    known = _known_records(found, {bound for bounds, _ in spans if bounds for bound in bounds[1:]}, quiet)
    by_id = {parts.record.id: parts for parts in found}
    everybody = [*(parts.record for parts in found), *live]
    for bounds, log in spans:
        if bounds is None:
            continue
        driver, first, last = bounds
        if log.container_id in by_id:
            by_id[log.container_id].fragments.append(log)
            continue
        owners = known.get(first, set()) & known.get(last, set())
        if owners:  # the same records stand in a log that has a name
            continue
        fits = sorted(_fits(everybody, driver, first[0], last[0]), key=lambda one: one[0])
        if not fits or fits[0][1] not in by_id:
            continue
        by_id[fits[0][1]].fragments.append(log)
        if len(fits) > 1:
            others = ", ".join(one[1][:12] for one in fits[1:4])
            problems.add(log.origin, f"log of container {fits[0][1][:12]} by its times; it could be of {others}, too")


def _bounds(log: Remnant, problems: ProblemLog) -> tuple[str, _RecordKey, _RecordKey] | None:
    """Driver, first and last record of a log."""
    first = last = None
    for record in log_records(log, problems):
        last = _key(record)
        first = first or last
    if first is None or last is None or log.content is None:
        return None
    return "local" if log.content.read_some(4, 4) == _LOCAL_HEAD else "json-file", first, last


def _known_records(
    found: Iterable[LogOwner], wanted: set[_RecordKey], problems: ProblemLog
) -> dict[_RecordKey, set[str]]:
    """Containers by those of some records that stand in their named logs."""
    known: dict[_RecordKey, set[str]] = {}
    for parts in found:
        for name, remnant in parts.named.items():
            if "-json.log" in name or name.startswith("local-logs/"):
                for record in log_records(remnant, problems):
                    key = _key(record)
                    if key in wanted:
                        known.setdefault(key, set()).add(parts.record.id)
    return known


def _fits(records: Iterable[ContainerRecord], driver: str, first: int, last: int) -> Iterator[tuple[int, str]]:
    """(nanoseconds from its start to the first record, id) of each container that may have written a log."""
    for record in records:
        parts = record.parts
        if parts.log_driver not in (driver, "") or parts.created_ns is None or first < parts.created_ns:
            continue
        finished = parts.finished_ns
        over = finished is not None and (parts.started_ns or 0) <= finished
        if over and finished is not None and last > finished + _MARGIN:
            continue
        started = parts.started_ns if parts.started_ns is not None and parts.started_ns <= first else parts.created_ns
        yield first - started, record.id
