"""The records of the log of XFS, and how transactions are put together from them.

Format: XFS Algorithms & Data Structures (kernel.org), "Journaling Log". The log is a ring of basic blocks of 512 bytes;
every pass over it has its own cycle number, which is stamped on each block in place of its first four bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from forensics_lib._crc32c import crc32c
from forensics_lib.errors import DamagedData, UnsupportedFormat
from forensics_lib.formats.xfs import XfsGeometry

__all__ = [
    "BASIC_BLOCK",
    "MAX_RECORD",
    "RECORD_MAGIC",
    "UNMOUNT",
    "LogItem",
    "LogRecord",
    "LogRing",
    "Operation",
    "Pending",
    "Transaction",
    "operations",
]

BASIC_BLOCK = 512
"""Bytes of the blocks that the log counts in."""

RECORD_MAGIC = b"\xfe\xed\xba\xbe"
MAX_RECORD = 256 << 10
_HEADER = struct.Struct(">4sIIIQQIII")  # up to the words that were stamped over
_STAMPED_AT, _STAMPED = 44, 64
_CHECKSUM_AT = 32
_FORMAT_AT = 300
_HEADER_SIZES = (328, 324)  # that a checksum is made over: of 64 and of 32 bits
_EXTENSION_SIZE = 260
_COVERED = 32 << 10  # bytes of data whose stamped words one header holds
_LITTLE_ENDIAN = 1

_OPERATION = struct.Struct(">IIBBxx")
_START, _COMMIT, _CONTINUES, _IS_CONTINUATION, UNMOUNT = 0x01, 0x02, 0x04, 0x08, 0x20
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

    @property
    def uuid(self) -> bytes:
        """Identifier of the file system."""
        return self.header[_FORMAT_AT + 4 : _FORMAT_AT + 20]


class LogItem(NamedTuple):
    """One change of a transaction.

    Attributes:
        kind: as the format numbers kinds.
        order: byte order, as `struct` names it.
        regions: its parts; the first says what it is about.
        at: where it starts in the file system, in bytes.
    """

    kind: int
    order: str
    regions: list[bytes]
    at: int = 0


@dataclass(frozen=True, slots=True)
class Transaction:
    """A transaction that was committed.

    Attributes:
        lsn: of the record in which it starts.
        items: its changes.
    """

    lsn: int
    items: list[LogItem]


class LogRing:
    """The blocks of the log inside a file system.

    Args:
        geometry: of the file system.

    Raises:
        UnsupportedFormat: it is on another device.
        DamagedData: it is not inside the file system.
    """

    def __init__(self, geometry: XfsGeometry) -> None:
        """Nothing is read yet."""
        if not geometry.log_start:
            raise UnsupportedFormat("the log is on another device")
        self._source = geometry.source
        self._start = geometry.block_offset(geometry.log_start, geometry.log_blocks)
        self._size = geometry.log_blocks * geometry.block_size // BASIC_BLOCK
        self._uuid = geometry.log_uuid

    def data(self, record: LogRecord) -> bytes:
        """The data of a record, with the words back in place that were stamped over.

        Raises:
            DamagedData: it is not what was written.
        """
        stamped = self._stamped(record)
        if not self._fits(record, stamped):
            raise DamagedData("the checksum of a record of the log does not fit", offset=self._place(record.block))
        return self._unstamped(record, stamped)

    def _unstamped(self, record: LogRecord, stamped: bytes) -> bytes:
        """Blocks of a record's data, from its first on, with the words back in place."""
        data = bytearray(stamped)
        words = record.header[_STAMPED_AT : _STAMPED_AT + 4 * _STAMPED]
        for extension in range(1, record.headers):
            at = extension * BASIC_BLOCK + 4
            words += record.header[at : at + 4 * _STAMPED]
        for index in range(min(len(data) // BASIC_BLOCK, len(words) // 4)):
            data[index * BASIC_BLOCK : index * BASIC_BLOCK + 4] = words[index * 4 : index * 4 + 4]
        return bytes(data[: record.length])

    def _stamped(self, record: LogRecord) -> bytes:
        return self._read((record.block + record.headers) % self._size, record.blocks - record.headers)

    def _record(self, block: int) -> LogRecord | None:
        header = self._read(block, 1)
        magic, _, version, length, lsn, tail, checksum, _, operations = _HEADER.unpack_from(header)
        order, _, size = struct.unpack_from(">I16sI", header, _FORMAT_AT)
        if magic != RECORD_MAGIC or not version & 3 or not 0 < length <= MAX_RECORD:
            return None
        headers = 1
        if version & 2 and max(size, length) > _COVERED:
            headers = -(-min(max(size, length), MAX_RECORD) // _COVERED)
            header = self._read(block, headers)
        code = "<" if order == _LITTLE_ENDIAN else ">"
        return LogRecord(block, lsn, tail, headers, length, operations, code, checksum, header)

    def _fits(self, record: LogRecord, data: bytes) -> bool:
        if not record.checksum:
            return True  # mkfs writes none, and nor do old systems
        stored = int.from_bytes(record.checksum.to_bytes(4, "big"), "little")
        start = crc32c(bytes(4), crc32c(record.header[:_CHECKSUM_AT]))
        for size in _HEADER_SIZES:
            value = crc32c(record.header[_CHECKSUM_AT + 4 : size], start)
            for extension in range(1, min(record.headers, -(-record.length // _COVERED))):  # the others are empty
                at = extension * BASIC_BLOCK
                value = crc32c(record.header[at : at + _EXTENSION_SIZE], value)
            if crc32c(data[: record.length], value) == stored:
                return True
        return False

    def _place(self, block: int) -> int:
        return self._start + block * BASIC_BLOCK

    def _read(self, block: int, count: int) -> bytes:
        """Blocks of the ring, which goes on at its start."""
        first = min(count, self._size - block)
        data = self._source.read_at(self._place(block), first * BASIC_BLOCK)
        if len(data) < first * BASIC_BLOCK:
            raise DamagedData("the log is not all there", offset=self._place(block))
        return data if first == count else data + self._read(0, count - first)


class Operation(NamedTuple):
    """A piece of a transaction.

    Attributes:
        number: of its transaction.
        flags: where in the transaction it stands, and whether it is a whole region.
        region: its bytes.
        at: where it starts in the data of its record.
    """

    number: int
    flags: int
    region: bytes
    at: int

    @property
    def starts(self) -> bool:
        """Whether a transaction starts with it."""
        return bool(self.flags & _START)

    @property
    def commits(self) -> bool:
        """Whether its transaction is committed with it."""
        return bool(self.flags & _COMMIT)

    @property
    def is_continuation(self) -> bool:
        """Whether its region goes on with that of the operation before it, for which the record had no room."""
        return bool(self.flags & _IS_CONTINUATION)

    @property
    def continues(self) -> bool:
        """Whether its region goes on in the next operation of the transaction."""
        return bool(self.flags & _CONTINUES)


def operations(record: LogRecord, data: bytes) -> Iterator[Operation]:
    """The operations in a record.

    Args:
        record: its header.
        data: its data, with the stamped words back in place.

    Raises:
        DamagedData: there are fewer than it declares; those before were yielded.
    """
    at = 0
    for _ in range(record.operations):
        if at + _OPERATION.size > len(data):
            raise DamagedData(f"{record.operations} operations are declared in a record of the log, fewer are there")
        number, length, _, flags = _OPERATION.unpack_from(data, at)
        at += _OPERATION.size
        if at + length > len(data):
            raise DamagedData("an operation does not end inside its record of the log")
        yield Operation(number, flags, data[at : at + length], at)
        at += length


class Pending:
    """A transaction that is being put together.

    Args:
        lsn: of the record in which it starts.
        order: byte order of what it logs.

    Attributes:
        lsn: as given.
        items: its changes so far.
    """

    def __init__(self, lsn: int, order: str) -> None:
        """Start with nothing."""
        self.lsn = lsn
        self.items: list[LogItem] = []
        self._order = order
        self._header = b""
        self._missing = 0

    def add(self, operation: Operation, at: int = 0) -> None:
        """The next operation; `at` is where its region lies in the file system."""
        region = operation.region
        if not region:
            return
        if operation.is_continuation:  # what did not fit into the record before
            if len(self._header) < _TRANSACTION_HEADER:
                self._header += region
            elif self.items:
                self.items[-1].regions[-1] += region
        elif len(self._header) < _TRANSACTION_HEADER:
            self._header += region
        else:
            if not self._missing:
                kind, count = struct.unpack_from(f"{self._order}HH", region.ljust(4, b"\0"))
                self.items.append(LogItem(kind, self._order, [], at))
                self._missing = min(max(count, 1), _MAX_REGIONS)
            self.items[-1].regions.append(region)
            self._missing -= 1
