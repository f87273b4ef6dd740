"""What the decoders of log files share: the record they give, lines out of blocks, and exact times."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import ClassVar

from forensics_lib.errors import DamagedData
from forensics_lib.model import Origin

__all__ = ["MAX_LINE", "LogRecord", "OnProblem", "excerpt", "parse_stamp", "split_lines"]

OnProblem = Callable[[DamagedData], None]
"""Told of what could not be read; the offset of the error is a byte offset in the file."""

MAX_LINE = 64 << 20
"""Longest line that is kept whole; Docker cuts lines at 16 KiB, before 17.10 it did not cut them."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_STAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)", re.ASCII)
_EXCERPT = 80


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One record of a container's log.

    A record is not always a line: engines cut long lines into pieces, and pieces of both streams may alternate.

    Attributes:
        time_ns: when the engine received it, nanoseconds since 1970; pieces of one line share the time of the first.
            Out of a journal: when the journal received it, each piece on its own.
        stream: ``stdout`` or ``stderr`` (a terminal gives everything as ``stdout``); empty when nothing tells.
        line: what was written, without the newline; a terminal's carriage return is part of it.
        partial: no newline followed: a piece of a longer line, or the end of the output.
        attrs: (name, value) of the labels and variables that the log options asked for.
        offset: byte offset in the log file (in its decompressed bytes where it is compressed).
        file: the log file.
    """

    __table_columns__: ClassVar[tuple[str, ...]] = ("time", "stream", "text", "partial", "attrs", "time_ns", "origin")

    time_ns: int
    stream: str
    line: bytes
    partial: bool
    attrs: tuple[tuple[str, str], ...]
    offset: int
    file: Origin

    @property
    def time(self) -> datetime:
        """When the engine received it: aware UTC, cut to microseconds (`time_ns` is exact)."""
        return _EPOCH + timedelta(microseconds=self.time_ns // 1000)

    @property
    def text(self) -> str:
        """The line as text, bytes that are no UTF-8 as surrogates."""
        return self.line.decode("utf-8", "surrogateescape")

    @property
    def origin(self) -> Origin:
        """Where the record lies."""
        return self.file.to("record", self.offset)


def split_lines(blocks: Iterable[bytes], limit: int = MAX_LINE) -> Iterator[tuple[int, bytes, bool]]:
    """Lines as (byte offset, line without newline, whether a newline ended it).

    What is longer than `limit` comes in pieces, so that memory stays bounded whatever the file holds.
    """
    held: list[bytes] = []
    offset = length = 0
    for block in blocks:
        *lines, rest = block.split(b"\n")
        for line in lines:
            if held:
                line = b"".join((*held, line))
                held.clear()
                length = 0
            yield offset, line, True
            offset += len(line) + 1
        if rest:
            held.append(rest)
            length += len(rest)
        if length > limit:
            yield offset, b"".join(held), False
            offset += length
            held.clear()
            length = 0
    if held:
        yield offset, b"".join(held), False


def parse_stamp(text: str) -> int | None:
    """Nanoseconds since 1970 of an RFC 3339 time; None when it is none. Digits after the ninth are cut, as Go does.

    >>> parse_stamp("1970-01-01T00:00:01.5Z")
    1500000000
    """
    fraction = text[20:-1]
    if text[19:20] == "." and text[-1] == "Z" and fraction.isdecimal() and text.isascii():
        second = _second(text[:19])  # as Docker writes it
    else:
        match = _STAMP.fullmatch(text)
        if match is None:
            return None
        second = _second(match[1] + match[3])
        fraction = match[2] or ""
    return None if second is None else second * 1_000_000_000 + int(fraction[:9].ljust(9, "0"))


def excerpt(data: bytes) -> str:
    """The beginning of bytes that could not be read as a record, for a message."""
    return f"{data[:_EXCERPT]!r}{'…' if len(data) > _EXCERPT else ''}"


@lru_cache(maxsize=1024)
def _second(text: str) -> int | None:
    """Seconds since 1970; log lines come many to a second."""
    try:
        moment = datetime.fromisoformat(text)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return (moment - _EPOCH) // timedelta(seconds=1)
