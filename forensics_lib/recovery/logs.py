"""Recovered logs: whose those without a name are, and one log out of many pieces."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
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

__all__ = ["LiveLog", "LogOwner", "log_records", "merged", "share_logs"]

_LIMITS = Limits()
_MAX_MERGED = 4_000_000
_MARGIN = 5 * 10**9
_LOCAL_HEAD = b"\n\x06st"
_LOCAL_FILES = 5  # what the driver keeps when it is not told
_SHAPED, _SHAPE = 256, 64  # lines looked at, and bytes of each
_NUMBER = re.compile(rb"(?<![A-Za-z_0-9])\d+")  # one in a word, as in web2, tells whose a line is

_RecordKey = tuple[int, str, bytes]
LiveLog = tuple[ContainerRecord, Callable[[], Iterable[LogRecord]]]


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
    found: Sequence[LogOwner], live: Iterable[LiveLog], logs: Sequence[Remnant], problems: ProblemLog
) -> None:
    """Give each log without a name to the container that ran when its records were written.

    Of several, the one whose log reads alike, else the one that was started last. A log that is whole needs nothing.

    Args:
        found: the removed containers.
        live: the records of the others with their logs; only one that rotates its log has pieces of it in free space.
        logs: what has no name.
        problems: gets what could be another's as well.
    """
    quiet = ProblemLog()
    spans = [(bounds, log) for log in logs if (bounds := _bounds(log, quiet)) is not None]
    spans.sort(key=lambda one: one[0].first)  # what begins a log tells whose the rest is
    wanted = {bound for bounds, _ in spans for bound in (bounds.first, bounds.last)}
    known = _known_records(found, wanted, quiet)
    by_id = {parts.record.id: parts for parts in found}
    is_whole = cache(lambda container_id: _is_whole(by_id[container_id], quiet))
    candidates = [_Candidate.removed(parts, quiet) for parts in found] if logs else []
    candidates += [_Candidate.living(*one) for one in live if _Keeping.of(one[0]).files > 1] if logs else []
    learned = {one.id: one.shapes for one in candidates}
    for bounds, log in spans:
        if log.container_id in by_id:
            learned[log.container_id] |= bounds.shapes
            if not is_whole(log.container_id):
                by_id[log.container_id].fragments.append(log)
            continue
        if known.get(bounds.first, set()) & known.get(bounds.last, set()):
            continue  # the same records stand in a log that has a name
        fits = sorted((one.rank(bounds), one.id) for one in candidates if one.fits(bounds))
        if fits:
            learned[fits[0][1]] |= bounds.shapes
        if not fits or fits[0][1] not in by_id:
            continue
        if is_whole(fits[0][1]):
            continue
        by_id[fits[0][1]].fragments.append(log)
        if len(fits) > 1:
            others = ", ".join(one[1][:12] for one in fits[1:4])
            problems.add(log.origin, f"log of container {fits[0][1][:12]} by its times; it could be of {others}, too")


def _is_whole(parts: LogOwner, problems: ProblemLog) -> bool:
    """Whether every file that Docker kept of a log was recovered, so that older records are those it threw away.

    The files have to follow each other: of an earlier rotation one would hold what a later one, or none of them, has.
    """
    keeping = _Keeping.of(parts.record)
    if keeping.files == 1:
        return False
    last: int | None = None
    for number in reversed(range(keeping.files)):
        names = (keeping.name(number), f"{keeping.name(number)}.gz")
        file = next((parts.named[name] for name in names if name in parts.named and parts.named[name].complete), None)
        times = [record.time_ns for record in log_records(file, problems)] if file is not None else []
        if file is None or (times and last is not None and min(times) < last):
            return False
        last = max(times, default=last)
    return True


@dataclass(frozen=True, slots=True)
class _Keeping:
    """How a container's log is kept.

    Attributes:
        id: of the container.
        driver: the log driver; empty when it is not known.
        files: how many files there are at most; 1 of a log that only grows.
        compresses: whether all but the newest are compressed.
    """

    id: str
    driver: str
    files: int
    compresses: bool

    @classmethod
    def of(cls, record: ContainerRecord) -> _Keeping:
        """What the container's configuration says."""
        driver, options = record.parts.log_driver, record.host_config.object("LogConfig").object("Config")
        is_json = driver in ("json-file", "")
        files, compress = options.text("max-file"), options.text("compress")
        count = int(files) if files.isdecimal() and len(files) < 4 else 1 if is_json else _LOCAL_FILES
        if is_json and not options.text("max-size"):
            count = 1
        return cls(record.id, driver, max(count, 1), compress == "true" if is_json else compress != "false")

    def name(self, number: int) -> str:
        """The name of a file of the log, in the container's folder; 0 is the one that is written to."""
        name = "local-logs/container.log" if self.driver == "local" else f"{self.id}-json.log"
        return f"{name}.{number}" if number else name


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A container that may have written a log.

    Attributes:
        record: the container.
        keeping: how its log is kept.
        shapes: what lines of its log look like, as far as it is known; more with every piece that is found.
        end: time of the last record in a log that only grew, nanoseconds; a piece of it can only follow.
    """

    record: ContainerRecord
    keeping: _Keeping
    shapes: set[bytes]
    end: int | None = None

    @property
    def id(self) -> str:
        return self.record.id

    @classmethod
    def removed(cls, parts: LogOwner, problems: ProblemLog) -> _Candidate:
        keeping, shapes, end = _Keeping.of(parts.record), set[bytes](), None
        for name, remnant in parts.named.items():
            if "-json.log" not in name and not name.startswith("local-logs/"):
                continue
            for record in islice(log_records(remnant, problems), _SHAPED):
                shapes.add(_shape(record.line))
            if keeping.files == 1 and remnant.complete and name == keeping.name(0):
                end = max((record.time_ns for record in log_records(remnant, problems)), default=None)
        return cls(parts.record, keeping, shapes, end)

    @classmethod
    def living(cls, record: ContainerRecord, logs: Callable[[], Iterable[LogRecord]]) -> _Candidate:
        try:
            shapes = {_shape(one.line) for one in islice(logs(), _SHAPED)}
        except ForensicsError:
            shapes = set()
        return cls(record, _Keeping.of(record), shapes)

    def fits(self, bounds: _Bounds) -> bool:
        """Whether it ran when the records were written, with that driver."""
        parts = self.record.parts
        if parts.log_driver not in (bounds.driver, "") or parts.created_ns is None:
            return False
        first, last = bounds.first[0], bounds.last[0]
        if first < parts.created_ns or (self.end is not None and first < self.end):
            return False
        if bounds.is_rotated and not (self.keeping.files > 1 and self.keeping.compresses):
            return False
        finished = parts.finished_ns
        over = finished is not None and (parts.started_ns or 0) <= finished
        return not (over and finished is not None and (first > finished or last > finished + _MARGIN))

    def rank(self, bounds: _Bounds) -> tuple[int, int]:
        """How well it fits, the best first: whether its log reads alike, and the time from its start.

        Of a container whose record is lost nothing tells when it ran; where others fit, it gets only what reads alike.
        """
        alike = 0 if self.shapes & bounds.shapes else 2 if self.shapes else 1
        alike += 2 if alike and "State" not in self.record.config else 0
        parts, first = self.record.parts, bounds.first[0]
        started = parts.started_ns if parts.started_ns is not None and parts.started_ns <= first else parts.created_ns
        return alike, first - (started or 0)


@dataclass(frozen=True, slots=True)
class _Bounds:
    """What a log without a name tells: driver, first and last record, looks, and whether it was compressed."""

    driver: str
    first: _RecordKey
    last: _RecordKey
    shapes: frozenset[bytes]
    is_rotated: bool


def _shape(line: bytes) -> bytes:
    """What a line looks like without its numbers."""
    return _NUMBER.sub(b"0", line[:_SHAPE])


def _bounds(log: Remnant, problems: ProblemLog) -> _Bounds | None:
    first = last = None
    shapes: set[bytes] = set()
    for record in log_records(log, problems):
        last = _key(record)
        first = first or last
        if len(shapes) < _SHAPED:
            shapes.add(_shape(record.line))
    if first is None or last is None or log.content is None:
        return None
    head = log.content.read_some(0, 64)
    is_rotated = sniff(head) is not Compression.NONE
    driver = "local" if head[4:8] == _LOCAL_HEAD or (is_rotated and _holds_local(log)) else "json-file"
    return _Bounds(driver, first, last, frozenset(shapes), is_rotated)


def _holds_local(log: Remnant) -> bool:
    """Whether a compressed log is of the driver ``local``."""
    assert log.content is not None
    head = log.content.read_some(0, 64)
    blocks = decompress(log.content.blocks(), sniff(head), log.origin, _LIMITS, lambda error: None)
    return next(iter(blocks), b"")[4:8] == _LOCAL_HEAD


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
