"""The log of XFS: which of its records are not written back yet, and the committed transactions in them.

Format: XFS Algorithms & Data Structures (kernel.org), "Journaling Log". The log is a ring of basic blocks of 512 bytes;
every pass over it has its own cycle number, which is stamped on each block in place of its first four bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from forensics_lib.errors import DamagedData, UnsupportedFormat
from forensics_lib.formats.crc32c import crc32c
from forensics_lib.formats.directory import Report
from forensics_lib.formats.xfs import XfsGeometry

__all__ = ["BASIC_BLOCK", "LogItem", "LogRecord", "Transaction", "XfsLog"]

BASIC_BLOCK = 512
"""Bytes of the blocks that the log counts in."""

_MAGIC = b"\xfe\xed\xba\xbe"
_HEADER = struct.Struct(">4sIIIQQIII")  # up to the words that were stamped over
_STAMPED_AT, _STAMPED = 44, 64
_CHECKSUM_AT = 32
_FORMAT_AT = 300
_HEADER_SIZES = (328, 324)  # that a checksum is made over: of 64 and of 32 bits
_EXTENSION_SIZE = 260
_COVERED = 32 << 10  # bytes of data whose stamped words one header holds
_LITTLE_ENDIAN = 1
_CHUNK = 64  # blocks read at a time while ends are looked for
_MAX_RECORD = 256 << 10
_MAX_IN_FLIGHT = 8  # records that may be written at the same time, in any order
_MAX_INCOMPLETE = 64  # records looked at for one that is complete
_UNORDERED = _MAX_IN_FLIGHT * _MAX_RECORD // BASIC_BLOCK

_OPERATION = struct.Struct(">IIBBxx")
_START, _COMMIT, _IS_CONTINUATION, _UNMOUNT = 0x01, 0x02, 0x08, 0x20
_TRANSACTION_HEADER = 16
_MAX_REGIONS = 1 << 12


class LogRecord(NamedTuple):
    """The header of a record.

    Attributes:
        block: where it lies in the log.
        lsn: cycle and block as one number.
        tail: of the oldest change that was not in place when it was written.
        headers: blocks of its header and the extensions of that.
        length: bytes of its data.
        operations: how many are in the data.
        order: byte order of what is logged, as `struct` names it.
        checksum: over header and data.
        header: its bytes, extensions included.
    """

    block: int
    lsn: int
    tail: int
    headers: int
    length: int
    operations: int
    order: str
    checksum: int
    header: bytes

    @property
    def blocks(self) -> int:
        """Blocks that it takes up."""
        return self.headers + -(-self.length // BASIC_BLOCK)


class LogItem(NamedTuple):
    """One change of a transaction.

    Attributes:
        kind: as the format numbers kinds.
        order: byte order, as `struct` names it.
        regions: its parts; the first says what it is about.
    """

    kind: int
    order: str
    regions: list[bytes]


@dataclass(frozen=True, slots=True)
class Transaction:
    """A transaction that was committed.

    Attributes:
        lsn: of the record in which it starts.
        items: its changes.
    """

    lsn: int
    items: list[LogItem]


class XfsLog:
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
        if not geometry.log_start:
            raise UnsupportedFormat("the log is on another device")
        self._source = geometry.source
        self._start = geometry.block_offset(geometry.log_start, geometry.log_blocks)
        self._size = geometry.log_blocks * geometry.block_size // BASIC_BLOCK
        self._uuid = geometry.log_uuid
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

    def data(self, record: LogRecord) -> bytes:
        """The data of a record, with the words back in place that were stamped over.

        Raises:
            DamagedData: it is not what was written.
        """
        stamped = self._stamped(record)
        if not self._fits(record, stamped):
            raise DamagedData("the checksum of a record of the log does not fit", offset=self._place(record.block))
        data = bytearray(stamped)
        words = record.header[_STAMPED_AT : _STAMPED_AT + 4 * _STAMPED]
        for extension in range(1, record.headers):
            at = extension * BASIC_BLOCK + 4
            words += record.header[at : at + 4 * _STAMPED]
        for index in range(min(len(data) // BASIC_BLOCK, len(words) // 4)):
            data[index * BASIC_BLOCK : index * BASIC_BLOCK + 4] = words[index * 4 : index * 4 + 4]
        return bytes(data[: record.length])

    def transactions(self) -> Iterator[Transaction]:
        """The committed transactions that are not written back, in the order of their commits.

        Raises:
            DamagedData: a record cannot be read; those before it were yielded.
        """
        pending: dict[int, _Pending] = {}
        for record in self.records():
            for number, flags, region in _operations(record, self.data(record)):
                if flags & _START:
                    pending[number] = _Pending(record.lsn, record.order)
                transaction = pending.get(number)
                if transaction is None:
                    continue  # it began before the tail, so all of it is in place
                if region and not flags & _IS_CONTINUATION:
                    transaction.add(region)
                elif region:
                    transaction.extend(region)
                if flags & _COMMIT:
                    del pending[number]
                    yield Transaction(transaction.lsn, transaction.items)

    def _find_ends(self) -> None:
        self.head = self._find_head()
        newest = self._newest_record()
        self.is_clean = newest.operations == 1 and self._is_unmount(newest)
        self.tail = self.head % self._size if self.is_clean else newest.tail & 0xFFFFFFFF
        if self.tail >= self._size:
            raise DamagedData(f"the tail of the log is at block {self.tail} of {self._size}", offset=self._start)
        if newest.header[_FORMAT_AT + 4 : _FORMAT_AT + 20] != self._uuid and not self.is_clean:
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

    def _stamped(self, record: LogRecord) -> bytes:
        return self._read((record.block + record.headers) % self._size, record.blocks - record.headers)

    def _record_before(self, end: int) -> LogRecord | None:
        for done in range(0, self._size, _CHUNK):
            count = min(_CHUNK, self._size - done)
            start = (end - done - count) % self._size
            data = self._read(start, count)
            for index in range(count - 1, -1, -1):
                if data.startswith(_MAGIC, index * BASIC_BLOCK):
                    record = self._record((start + index) % self._size)
                    if record is not None:
                        return record
        return None

    def _record(self, block: int) -> LogRecord | None:
        header = self._read(block, 1)
        magic, _, version, length, lsn, tail, checksum, _, operations = _HEADER.unpack_from(header)
        order, _, size = struct.unpack_from(">I16sI", header, _FORMAT_AT)
        if magic != _MAGIC or not version & 3 or not 0 < length <= _MAX_RECORD:
            return None
        headers = 1
        if version & 2 and max(size, length) > _COVERED:
            headers = -(-min(max(size, length), _MAX_RECORD) // _COVERED)
            header = self._read(block, headers)
        code = "<" if order == _LITTLE_ENDIAN else ">"
        return LogRecord(block, lsn, tail, headers, length, operations, code, checksum, header)

    def _is_unmount(self, record: LogRecord) -> bool:
        data = self._read((record.block + record.headers) % self._size, 1)
        return bool(_OPERATION.unpack_from(data)[3] & _UNMOUNT)

    def _fits(self, record: LogRecord, data: bytes) -> bool:
        if not record.checksum:
            return True  # mkfs writes none, and nor do old systems
        stored = int.from_bytes(record.checksum.to_bytes(4, "big"), "little")
        start = crc32c(bytes(4), crc32c(record.header[:_CHECKSUM_AT]))
        for size in _HEADER_SIZES:
            value = crc32c(record.header[_CHECKSUM_AT + 4 : size], start)
            for extension in range(1, record.headers):
                at = extension * BASIC_BLOCK
                value = crc32c(record.header[at : at + _EXTENSION_SIZE], value)
            if crc32c(data[: record.length], value) == stored:
                return True
        return False

    def _cycle(self, block: int) -> int:
        return _cycle_of(self._read(block, 1), 0)

    def _place(self, block: int) -> int:
        return self._start + block * BASIC_BLOCK

    def _read(self, block: int, count: int) -> bytes:
        """Blocks of the ring, which goes on at its start."""
        first = min(count, self._size - block)
        data = self._source.read_at(self._place(block), first * BASIC_BLOCK)
        if len(data) < first * BASIC_BLOCK:
            raise DamagedData("the log is not all there", offset=self._place(block))
        return data if first == count else data + self._read(0, count - first)


class _Pending:
    """A transaction that is being put together."""

    def __init__(self, lsn: int, order: str) -> None:
        self.lsn = lsn
        self.items: list[LogItem] = []
        self._order = order
        self._header = b""
        self._missing = 0

    def add(self, region: bytes) -> None:
        """The next region."""
        if len(self._header) < _TRANSACTION_HEADER:
            self._header += region
            return
        if not self._missing:
            kind, count = struct.unpack_from(f"{self._order}HH", region.ljust(4, b"\0"))
            self.items.append(LogItem(kind, self._order, []))
            self._missing = min(max(count, 1), _MAX_REGIONS)
        self.items[-1].regions.append(region)
        self._missing -= 1

    def extend(self, region: bytes) -> None:
        """What did not fit into the record before."""
        if len(self._header) < _TRANSACTION_HEADER:
            self._header += region
        elif self.items:
            self.items[-1].regions[-1] += region


def _operations(record: LogRecord, data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Transaction number, flags and region of the operations in a record."""
    at = 0
    for _ in range(record.operations):
        if at + _OPERATION.size > len(data):
            raise DamagedData(f"{record.operations} operations are declared in a record of the log, fewer are there")
        number, length, _, flags = _OPERATION.unpack_from(data, at)
        at += _OPERATION.size
        if at + length > len(data):
            raise DamagedData("an operation does not end inside its record of the log")
        yield number, flags, data[at : at + length]
        at += length


def _cycle_of(data: bytes, at: int) -> int:
    """The cycle of a block; a header has its magic where others have it."""
    at = at + 4 if data[at : at + 4] == _MAGIC else at
    return int.from_bytes(data[at : at + 4], "big")
