"""Log records in free space, of the drivers ``json-file`` and ``local``: the second pass of carving.

A log has more pieces than one, so it is not carved as a file: records are looked for anywhere, and those that follow
each other without a gap are a run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from forensics_lib.formats.local_log import MAX_RECORD
from forensics_lib.formats.log_record import parse_stamp
from forensics_lib.formats.protobuf import Message

__all__ = ["LOG_HEADS", "LOG_MARK", "Run", "Runs"]

LOG_HEADS = (b'{"log":"', b'{"stream":"')
"""How a log of the driver ``json-file`` begins."""

LOG_MARK = b'"stream":"std'
"""What stands in every record of such a log, and seldom elsewhere."""
_RECORD = re.compile(
    rb'\{(?:"log":"(?>[^"\\\x00-\x1f]|\\.)*+",)?"stream":"[a-z]{0,16}",'
    rb'(?:"attrs":\{(?>"(?>[^"\\\x00-\x1f]|\\.)*+"[:,]?)*\},)?"time":"([0-9T:.Z+-]{20,35})"\}\n?'
)
_LOCAL_MARK = b"\n\x06std"
_LEAP, _LEAP_NS = 50, 30 * 10**9
_SECONDS = 19  # characters of a time without its fraction


@dataclass(slots=True)
class Run:
    """Log records that follow each other without a gap.

    Attributes:
        driver: that wrote them.
        start: where the first begins.
        end: where the last ends.
        count: their number.
        first: time of the first one, as it stands there, or in nanoseconds since 1970.
        last: time of the last one.
        doubt: whether, where two blocks meet, more time passed than elsewhere: the second may be another log's.
    """

    driver: str
    start: int
    end: int
    count: int
    first: bytes | int
    last: bytes | int
    doubt: bool = False

    @property
    def last_ns(self) -> int | None:
        """Time of the last record, nanoseconds since 1970."""
        return _nanoseconds(self.last)

    def leaps(self, time: bytes | int) -> bool:
        """Whether a following record is much later than those before it follow each other."""
        first, last, now = _nanoseconds(self.first), _nanoseconds(self.last), _nanoseconds(time)
        if first is None or last is None or now is None:
            return True
        return now - last > max(_LEAP_NS, _LEAP * (last - first) // max(self.count - 1, 1))


class Runs:
    """Gathers the records of one range after another into runs.

    Args:
        block: bytes of a block; where records of two logs meet, they meet at the border of one.
    """

    def __init__(self, block: int) -> None:
        """Nothing is open yet."""
        self._block = block
        self._open: dict[str, Run] = {}

    def add(self, offset: int, data: bytes, size: int) -> Iterator[Run]:
        """Take the records that start in the first `size` bytes of `data`; gives the runs that are over.

        Args:
            offset: where the data lies.
            data: bytes, with more behind them than the longest record has.
            size: how many of them belong to this step.
        """
        for driver, records in (("json-file", _json_records(data, size)), ("local", _local_records(data, size))):
            for first, last, time in records:
                start, end, run = offset + first, offset + last, self._open.get(driver)
                if run is not None and start < run.end:
                    continue
                follows = run is not None and run.end == start
                border = (end - 1) // self._block * self._block
                if run is not None and follows and not (start <= border and _is_earlier(time, run.last)):
                    run.doubt = run.doubt or (start < border and run.leaps(time))
                    run.end, run.last = end, time
                    run.count += 1
                    continue
                if run is not None and run.count:
                    yield run
                if follows and start < border:  # begins as one log's record and ends as that of another
                    self._open[driver] = Run(driver, end, end, 0, time, time)
                else:
                    self._open[driver] = Run(driver, start, end, 1, time, time)

    def close(self) -> Iterator[Run]:
        """The runs that are open at the end of a range."""
        yield from (run for run in self._open.values() if run.count)
        self._open.clear()


def _is_earlier(time: bytes | int, last: bytes | int) -> bool:
    """Whether a record is older by a second or more than the one before it: where blocks meet, they are of two logs."""
    if isinstance(time, int) or isinstance(last, int):
        return isinstance(time, int) and isinstance(last, int) and time + 10**9 <= last
    return time[:_SECONDS] < last[:_SECONDS]


def _nanoseconds(time: bytes | int) -> int | None:
    return time if isinstance(time, int) else parse_stamp(time.decode("ascii", "replace"))


def _json_records(data: bytes, size: int) -> Iterator[tuple[int, int, bytes]]:
    """(start, end, time) of the records of the ``json-file`` driver that start in the first `size` bytes."""
    before = 0
    mark = data.find(LOG_MARK)
    while mark >= 0:
        start = mark - 1 if data[mark - 1 : mark] == b"{" else data.rfind(LOG_HEADS[0], before, mark)
        if max(start, before) >= size:
            return
        before = mark + len(LOG_MARK)
        if start >= 0 and (match := _RECORD.match(data, start)) is not None:
            yield start, match.end(), match[1]
            before = max(before, match.end())
        mark = data.find(LOG_MARK, before)


def _local_records(data: bytes, size: int) -> Iterator[tuple[int, int, int]]:
    """(start, end, time) of the records of the ``local`` driver."""
    at = data.find(_LOCAL_MARK, 4, size + len(_LOCAL_MARK) + 3)
    while at >= 0:
        end = at + 1
        if data[at + 5 : at + 8] in (b"out", b"err"):
            length = int.from_bytes(data[at - 4 : at], "big")
            if 8 < length <= MAX_RECORD and data[at + length : at + length + 4] == data[at - 4 : at]:
                entry = Message(data[at : at + length])
                if entry.damage is None and entry.signed(2) > 0:
                    end = at + length + 4
                    yield at - 4, end, entry.signed(2)
        at = data.find(_LOCAL_MARK, end, size + len(_LOCAL_MARK) + 3)
