"""Everything the log of XFS still holds, also long after it was written back.

Mounting replays a log from its tail to its head. Behind the head lie older records until new ones overwrite them, and
with them older states of inodes and directories. They are found by looking at every block of the ring.

Format: XFS Algorithms & Data Structures (kernel.org), "Journaling Log".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from forensics_lib.errors import DamagedData, LimitExceeded
from forensics_lib.formats.directory import Report
from forensics_lib.formats.xfs import XfsGeometry
from forensics_lib.formats.xfs_log_record import (
    BASIC_BLOCK,
    RECORD_MAGIC,
    LogRecord,
    LogRing,
    Operation,
    Pending,
    Transaction,
    operations,
)
from forensics_lib.model import Progress

__all__ = ["MAX_BYTES", "LogHistory"]

MAX_BYTES = 512 << 20
"""Of records that are used, the newest ones; a log has up to 2 GiB."""
_WINDOW = 1 << 20
_TRANSACTION_HEADER = 16
_INODE, _BUFFER, _CREATE = 0x123B, 0x123C, 0x123F
_INODE_HEADERS = (52, 56)
_BUFFER_HEADER = 20
_CREATION_SIZE = 28


class LogHistory(LogRing):
    """All transactions of a log that were committed, whether they are written back or not.

    A record counts when its checksum is right. One that was overwritten in part counts as far as the cycle numbers on
    its blocks say that they are its own. Of a transaction that began in a record which is gone, the changes count that
    begin behind it.

    Args:
        geometry: of the file system.
        report: gets what breaks a rule.
        progress: called with the bytes of the log that were looked at.

    Attributes:
        unfinished: number of transactions without an end, which are left out; known once all were asked for.

    Raises:
        UnsupportedFormat: the log is on another device.
        DamagedData: it is not inside the file system.
    """

    def __init__(self, geometry: XfsGeometry, report: Report, progress: Progress | None = None) -> None:
        """Find the records."""
        super().__init__(geometry)
        self._report = report
        self._progress = progress
        self.unfinished = 0
        self._records = self._newest(sorted(self._found(), key=lambda record: record.lsn))

    def transactions(self) -> Iterator[Transaction]:
        """They, in the order of their commits; each item tells where it lies."""
        pending: dict[int, _Remembered] = {}
        end = -1
        for done, record in enumerate(self._records):
            if record.block != end:
                for transaction in pending.values():
                    transaction.interrupt()
            end = (record.block + record.blocks) % self._size
            data = self._own(record)
            if len(data) < record.length:
                end = -1
            try:
                for operation in operations(record, data):
                    if operation.starts or operation.number not in pending:
                        started = _Remembered(record.lsn, record.order, complete=operation.starts)
                        pending[operation.number] = started
                    transaction = pending[operation.number]
                    transaction.take(operation, self._offset(record, operation))
                    if operation.commits:
                        del pending[operation.number]
                        if transaction.items:
                            yield Transaction(transaction.lsn, transaction.items)
            except DamagedData as error:
                end = -1
                if len(data) == record.length:
                    self._report(f"the record at block {record.block} of the log is used in part: {error}")
            if self._progress is not None:
                self._progress(done + 1, len(self._records))
        self.unfinished = sum(bool(transaction.items) for transaction in pending.values())

    def _found(self) -> Iterator[LogRecord]:
        """The headers that are left, in the order of their places."""
        for start in range(0, self._size, _WINDOW // BASIC_BLOCK):
            try:
                data = self._read(start, min(_WINDOW // BASIC_BLOCK, self._size - start))
            except DamagedData as error:
                self._report(f"a part of the log cannot be read: {error}")
                continue
            at = data.find(RECORD_MAGIC)
            while at >= 0:
                if at % BASIC_BLOCK == 0:
                    record = self._header(start + at // BASIC_BLOCK)
                    if record is not None:
                        yield record
                at = data.find(RECORD_MAGIC, at + 1)

    def _newest(self, records: list[LogRecord]) -> list[LogRecord]:
        """As many of the newest records as are used."""
        left = MAX_BYTES
        for index in range(len(records) - 1, -1, -1):
            left -= records[index].length
            if left < 0:
                self._report(str(LimitExceeded(f"the oldest {index + 1} records of the log are not used")))
                return records[index + 1 :]
        return records

    def _header(self, block: int) -> LogRecord | None:
        try:
            record = self._record(block)
        except DamagedData:
            return None
        if record is None or record.lsn & 0xFFFFFFFF != block or not record.lsn >> 32 or record.uuid != self._uuid:
            return None
        return record if record.blocks < self._size else None

    def _own(self, record: LogRecord) -> bytes:
        """The data of a record as far as nothing later overwrote it."""
        try:
            stamped = self._stamped(record)
        except DamagedData as error:
            self._report(f"the record at block {record.block} of the log cannot be read: {error}")
            return b""
        first = record.block + record.headers
        for index in range(len(stamped) // BASIC_BLOCK):
            cycle = (record.lsn >> 32) + (first + index >= self._size)
            if struct.unpack_from(">I", stamped, index * BASIC_BLOCK)[0] != cycle & 0xFFFFFFFF:
                return self._unstamped(record, stamped[: index * BASIC_BLOCK])
        if not self._fits(record, stamped):
            self._report(f"the checksum of the record at block {record.block} of the log does not fit; it is left out")
            return b""
        return self._unstamped(record, stamped)

    def _offset(self, record: LogRecord, operation: Operation) -> int:
        block = record.block + record.headers + operation.at // BASIC_BLOCK
        return self._place(block % self._size) + operation.at % BASIC_BLOCK


class _Remembered(Pending):
    """A transaction of which parts may be gone."""

    def __init__(self, lsn: int, order: str, *, complete: bool) -> None:
        super().__init__(lsn, order)
        self._lost = not complete
        self._continues = False

    def take(self, operation: Operation, at: int) -> None:
        """The next operation that is left; those that belong to a lost change are not used."""
        if operation.region:
            if self._lost:
                if operation.is_continuation or not _starts_item(operation.region, self._order):
                    return
                self._lost = False
                self._header = bytes(_TRANSACTION_HEADER)
            self.add(operation, at)
            self._continues = operation.continues

    def interrupt(self) -> None:
        """A record is missing here."""
        if self.items and (self._missing or self._continues):
            self.items.pop()
        self._missing = 0
        self._continues = False
        self._lost = True


def _starts_item(region: bytes, order: str) -> bool:
    """Whether a region can be the first one of a change of a kind that matters."""
    if len(region) < _BUFFER_HEADER:
        return False
    kind, count = struct.unpack_from(f"{order}HH", region)
    if kind == _INODE:
        return len(region) in _INODE_HEADERS and 2 <= count <= 4
    if kind == _CREATE:
        return len(region) == _CREATION_SIZE and count == 1
    if kind != _BUFFER or not count:
        return False
    (words,) = struct.unpack_from(f"{order}I", region, 16)
    return bool(0 <= len(region) - _BUFFER_HEADER - 4 * words <= 4)
