"""Logs of Docker's ``local`` driver, and the cache that Docker keeps beside a driver that cannot be read back.

A record is a length (32 bit, big-endian), a protobuf ``LogEntry`` of that many bytes, and the length again. LogEntry:
1 source, 2 time_nano, 3 line without newline, 4 partial, 5 partial_log_metadata {1 last, 2 id, 3 ordinal},
6 attrs {1 key, 2 value}. Source of the format: moby ``daemon/logger/local`` and ``logdriver/entry.proto``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from forensics_lib.errors import DamagedData
from forensics_lib.formats.log_record import LogRecord, OnProblem, excerpt
from forensics_lib.formats.protobuf import Message
from forensics_lib.model import Origin

__all__ = ["MAX_RECORD", "read_local_log"]

MAX_RECORD = 1_000_000
"""Bytes of the largest entry that Docker's own reader takes."""

_LENGTH = 4
_FIRST_FIELD = re.compile(rb"\n\x06std(?:out|err)")  # the source


def read_local_log(blocks: Iterable[bytes], origin: Origin, on_problem: OnProblem) -> Iterator[LogRecord]:
    """The records, in the order of the file; their lines are the bytes as they were written.

    After damage reading goes on at the next place where two equal lengths enclose an entry. A last record of which
    only the closing length is cut is given, and told to `on_problem` all the same.

    Args:
        blocks: the bytes of the file, decompressed.
        origin: named in problems.
        on_problem: told of every place that is no record.
    """
    window = _Window(blocks)
    while window.fill(1):
        offset = window.offset
        payload = window.record()
        fault = ""
        if payload is None:
            payload, fault = window.passed()
        entry = None if payload is None else Message(payload)
        if entry is not None and entry.damage is not None:
            fault = f"entry is damaged: {entry.damage}: {excerpt(payload or b'')}"
        if fault:
            on_problem(DamagedData(fault, origin=origin, offset=offset))
        if entry is not None and entry.damage is None:
            yield _record(entry, offset, origin)


def _record(entry: Message, offset: int, origin: Origin) -> LogRecord:
    partial = entry.flag(4) and not entry.message(5).flag(1)
    attrs = tuple((pair.text(1), pair.text(2)) for pair in entry.messages(6)) if 6 in entry else ()
    return LogRecord(entry.signed(2), entry.text(1), entry.data(3), partial, attrs, offset, origin)


class _Window:
    """The part of the file that is looked at."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        self._blocks = filter(None, blocks)
        self._data = b""
        self._base = self._position = 0

    @property
    def offset(self) -> int:
        """Where the window starts in the file."""
        return self._base + self._position

    def fill(self, length: int) -> int:
        """Have that many bytes in the window; how many there are, fewer only at the end of the file."""
        while len(self._data) - self._position < length and (block := next(self._blocks, None)):
            self._data = self._data[self._position :] + block
            self._base += self._position
            self._position = 0
        return min(length, len(self._data) - self._position)

    def record(self) -> bytes | None:
        """Pass the record that starts here; its entry, or None when none does."""
        length = self._framed()
        if not length:
            return None
        payload = self._bytes(_LENGTH, length)
        self._position += length + 2 * _LENGTH
        return payload

    def passed(self) -> tuple[bytes | None, str]:
        """Pass what is no record: the entry of a cut last record if there is one, and what is wrong."""
        offset, beginning = self.offset, self._bytes(0, self.fill(256))
        length = self._length()
        if length and _LENGTH + length <= self.fill(length + 2 * _LENGTH) < length + 2 * _LENGTH:
            payload = self._bytes(_LENGTH, length)
            self._position = len(self._data)
            return payload, "the file ends within the closing length of its last record"
        self._find_record()
        return None, f"{self.offset - offset} bytes are no record: {excerpt(beginning[: self.offset - offset])}"

    def _find_record(self) -> None:
        self._position += 1
        while self.fill(_LENGTH + 8) == _LENGTH + 8:
            found = _FIRST_FIELD.search(self._data, self._position + _LENGTH)
            if found is None:
                self._position = len(self._data) - _LENGTH - 7
                continue
            self._position = found.start() - _LENGTH
            if self._framed():
                return
            self._position += 1
        self._position = len(self._data)

    def _framed(self) -> int:
        """Length of the entry that two equal lengths enclose here; 0 when none is."""
        length = self._length()
        whole = length + 2 * _LENGTH
        if not length or self.fill(whole) < whole:
            return 0
        return length if self._bytes(0, _LENGTH) == self._bytes(_LENGTH + length, _LENGTH) else 0

    def _length(self) -> int:
        """The length that stands here; 0 when no entry has it (a run of NUL bytes is no run of empty entries)."""
        if self.fill(_LENGTH) < _LENGTH:
            return 0
        length = int.from_bytes(self._bytes(0, _LENGTH), "big")
        return length if length <= MAX_RECORD else 0

    def _bytes(self, at: int, length: int) -> bytes:
        start = self._position + at
        return self._data[start : start + length]
