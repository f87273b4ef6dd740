"""The log of XFS: which of its records are not written back yet, and the committed transactions in them."""

from __future__ import annotations

from collections.abc import Iterator

from forensics_lib.errors import DamagedData
from forensics_lib.formats.directory import Report
from forensics_lib.formats.xfs import XfsGeometry
from forensics_lib.formats.xfs_log_record import (
    BASIC_BLOCK,
    MAX_RECORD,
    RECORD_MAGIC,
    UNMOUNT,
    LogItem,
    LogRecord,
    LogRing,
    Pending,
    Transaction,
    operations,
)

__all__ = ["BASIC_BLOCK", "LogItem", "LogRecord", "Transaction", "XfsLog"]

_CHUNK = 64  # blocks read at a time while ends are looked for
_MAX_IN_FLIGHT = 8  # records that may be written at the same time, in any order
_MAX_INCOMPLETE = 64  # records looked at for one that is complete
_UNORDERED = _MAX_IN_FLIGHT * MAX_RECORD // BASIC_BLOCK
_FLAGS_AT = 9  # of an operation


class XfsLog(LogRing):
    """The log inside a file system.

    Args:
        geometry: of the file system.
        report: gets what breaks a rule.

    Attributes:
        is_clean: whether everything in it is in place.
        head: block behind the last record.
        tail: block of the first record that is not written back.

    Raises:
        UnsupportedFormat: it is on another device.
        DamagedData: it cannot be read.
    """

    def __init__(self, geometry: XfsGeometry, report: Report) -> None:
        """Find head and tail."""
        super().__init__(geometry)
        self._report = report
        self.head = self.tail = 0
        self.is_clean = True
        if self._size and self._cycle(0):
            self._find_ends()

    def records(self) -> Iterator[LogRecord]:
        """The records that are not written back, oldest first.

        Raises:
            DamagedData: there is none where one has to be.
        """
        block, left = self.tail, self._size
        while left > 0 and block != self.head % self._size:
            record = self._record(block)
            if record is None:
                raise DamagedData(f"no record is at block {block} of the log", offset=self._place(block))
            yield record
            block = (block + record.blocks) % self._size
            left -= record.blocks

    def transactions(self) -> Iterator[Transaction]:
        """The committed transactions that are not written back, in the order of their commits.

        Raises:
            DamagedData: a record cannot be read; those before it were yielded.
        """
        pending: dict[int, Pending] = {}
        for record in self.records():
            for operation in operations(record, self.data(record)):
                if operation.starts:
                    pending[operation.number] = Pending(record.lsn, record.order)
                transaction = pending.get(operation.number)
                if transaction is None:
                    continue  # it began before the tail, so all of it is in place
                transaction.add(operation)
                if operation.commits:
                    del pending[operation.number]
                    yield Transaction(transaction.lsn, transaction.items)

    def _find_ends(self) -> None:
        self.head = self._find_head()
        newest = self._newest_record()
        self.is_clean = self._is_unmount(newest)
        self.tail = self.head % self._size if self.is_clean else newest.tail & 0xFFFFFFFF
        if self.tail >= self._size:
            raise DamagedData(f"the tail of the log is at block {self.tail} of {self._size}", offset=self._start)
        if newest.uuid != self._uuid and not self.is_clean:
            raise DamagedData("the log belongs to another file system", offset=self._start)

    def _find_head(self) -> int:
        """The block behind the newest one, before records are looked at."""
        first, last = self._cycle(0), self._cycle(self._size - 1)
        head, older = self._size, last - 1
        if first != last:
            head, older = self._bisect(last), last
        # The last records were written at the same time: one of them may be missing before others that are there.
        back = min(self._size, _UNORDERED)
        if head >= back:
            return self._first_of_cycle(head - back, head, older)
        hole = self._first_of_cycle(self._size - (back - head), self._size, older - 1)
        return hole if hole < self._size else self._first_of_cycle(0, head, older)

    def _is_unmount(self, record: LogRecord) -> bool:
        data = self._read((record.block + record.headers) % self._size, 1)
        return record.operations == 1 and bool(data[_FLAGS_AT] & UNMOUNT)

    def _bisect(self, last: int) -> int:
        low, high = 0, self._size - 1  # the cycle of `high` is `last`, that of `low` is not
        while high - low > 1:
            middle = (low + high) // 2
            if self._cycle(middle) == last:
                high = middle
            else:
                low = middle
        return high

    def _first_of_cycle(self, start: int, end: int, cycle: int) -> int:
        for block in range(start, end, _CHUNK):
            data = self._read(block, min(_CHUNK, end - block))
            for index in range(len(data) // BASIC_BLOCK):
                if _cycle_of(data, index * BASIC_BLOCK) == cycle:
                    return block + index
        return end

    def _newest_record(self) -> LogRecord:
        """The last record that is sound, with all that were written at the same time before it; `head` is corrected."""
        end, left = self.head, self._size
        good: list[LogRecord] = []
        for _ in range(_MAX_INCOMPLETE):
            record = self._record_before(end) if left > 0 and len(good) < _MAX_IN_FLIGHT else None
            if record is None:
                break
            left -= (end - record.block) % self._size or self._size
            if self._ends_at(record, end) and self._fits(record, self._stamped(record)):
                good.append(record)
            elif good and not self._ends_at(record, end):
                break  # what lies before is older than this pass over the ring
            else:
                self._report(f"the log ends before block {record.block}: the record there is not complete")
                self.head = record.block
                good.clear()
            end = record.block
            if end == record.tail & 0xFFFFFFFF:
                break
        if not good:
            raise DamagedData("no complete record is in the log", offset=self._start)
        return good[0]

    def _ends_at(self, record: LogRecord, end: int) -> bool:
        return (record.block + record.blocks) % self._size == end % self._size

    def _record_before(self, end: int) -> LogRecord | None:
        for done in range(0, self._size, _CHUNK):
            count = min(_CHUNK, self._size - done)
            start = (end - done - count) % self._size
            data = self._read(start, count)
            for index in range(count - 1, -1, -1):
                if data.startswith(RECORD_MAGIC, index * BASIC_BLOCK):
                    record = self._record((start + index) % self._size)
                    if record is not None:
                        return record
        return None

    def _cycle(self, block: int) -> int:
        return _cycle_of(self._read(block, 1), 0)


def _cycle_of(data: bytes, at: int) -> int:
    """The cycle of a block; a header has its magic where others have it."""
    at = at + 4 if data[at : at + 4] == RECORD_MAGIC else at
    return int.from_bytes(data[at : at + 4], "big")
