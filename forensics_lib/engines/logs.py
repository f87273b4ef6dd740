"""Looking into what a container wrote, whatever engine and driver kept it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta

from forensics_lib.formats.log_record import LogRecord

__all__ = ["LogRecord", "Pattern", "filter_logs"]

Pattern = str | bytes | re.Pattern[str] | re.Pattern[bytes]
"""A regular expression: text is looked for in the text of a line, bytes in its bytes."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def filter_logs(
    records: Iterable[LogRecord],
    pattern: Pattern | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Iterator[LogRecord]:
    """The records that fit, one by one as they are read.

    Args:
        records: all records.
        pattern: has to be found somewhere in the line; a match across two pieces of a long line is not seen.
        since: earliest time, inclusive.
        until: latest time, inclusive; later records do not end the search, because the two streams may be out of order.

    Raises:
        ValueError: a time without zone.
        re.error: the pattern is no regular expression.
    """
    first, last, search = _nanoseconds(since), _nanoseconds(until), _searcher(pattern)
    return (
        record
        for record in records
        if (first is None or record.time_ns >= first)
        and (last is None or record.time_ns <= last)
        and (search is None or search(record))
    )


def _nanoseconds(moment: datetime | None) -> int | None:
    if moment is None:
        return None
    if moment.utcoffset() is None:
        raise ValueError(f"{moment} has no time zone: use an aware datetime, e.g. with tzinfo=UTC")
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000


def _searcher(pattern: Pattern | None) -> Callable[[LogRecord], object] | None:
    if pattern is None:
        return None
    if isinstance(pattern, bytes) or (isinstance(pattern, re.Pattern) and isinstance(pattern.pattern, bytes)):
        in_bytes = re.compile(pattern).search
        return lambda record: in_bytes(record.line)
    in_text = re.compile(pattern).search
    return lambda record: in_text(record.text)
