"""Docker's ``json-file`` logs: one JSON object a line.

Keys: ``log`` (the text with its newline; left out when empty), ``stream``, ``attrs`` (only with labels or variables in
the log options), ``time``. Source of the format: moby ``daemon/logger/jsonfilelog``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from itertools import chain, pairwise

from forensics_lib.errors import DamagedData
from forensics_lib.formats.jsondoc import JsonObject
from forensics_lib.formats.log_record import MAX_LINE, LogRecord, OnProblem, excerpt, parse_stamp, split_lines
from forensics_lib.model import Origin

__all__ = ["ZERO_TIME_NS", "read_json_log"]

ZERO_TIME_NS = -62_135_596_800 * 10**9
"""Go's zero time, year 1: the time of a record that tells none, and what ``docker logs`` prints for it."""

# Inside a string of a record the quotes are escaped, so this is where a record starts, whatever stands before it.
_START = re.compile(rb'(?<!"attrs":)\{"(?:log|stream)":"')
_SURROGATE = re.compile("[\ud800-\udc7f\udd00-\udfff]")  # half a pair that stands for no byte
_BLANK = b" \t\r"
_decode = json.JSONDecoder().raw_decode


def read_json_log(
    blocks: Iterable[bytes], origin: Origin, on_problem: OnProblem, *, limit: int = MAX_LINE
) -> Iterator[LogRecord]:
    """The records, in the order of the file.

    The line is the UTF-8 of the decoded text. Bytes of the file that are no UTF-8 (Docker writes none) are kept as
    they are; an escape that is half a surrogate pair becomes U+FFFD, as ``docker logs`` prints it. A torn record or a
    run of NUL bytes, as a power loss leaves them, is told to `on_problem`, and reading goes on at the next record,
    also in the middle of a line.

    Args:
        blocks: the bytes of the file, decompressed.
        origin: named in problems.
        on_problem: told of every place that is no record.
        limit: longest line that is kept in memory.
    """
    for offset, line, _ in split_lines(blocks, limit):
        record = _usual(line, offset, origin) if line else None
        if record is not None:
            yield record
        elif line:
            yield from _damaged(line, offset, origin, on_problem)


def _usual(line: bytes, offset: int, origin: Origin) -> LogRecord | None:
    """A record exactly as Docker writes it; None for everything that needs a closer look."""
    try:
        text = line.decode()
        record, end = _decode(text)
        log = record["log"]
        time_ns = parse_stamp(record["time"])
        if end != len(text) or time_ns is None or type(record["stream"]) is not str:
            return None
        attrs = _attrs(record["attrs"]) if "attrs" in record else ()
        if log[-1:] == "\n":
            return LogRecord(time_ns, record["stream"], log[:-1].encode(), False, attrs, offset, origin)
        return LogRecord(time_ns, record["stream"], log.encode(), True, attrs, offset, origin)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


def _damaged(line: bytes, offset: int, origin: Origin, on_problem: OnProblem) -> Iterator[LogRecord]:
    """The records of a line that is not exactly one of them."""
    starts = (match.start() for match in _START.finditer(line))
    for start, end in pairwise(chain((0,), starts, (len(line),))):
        piece = line[start:end].lstrip(b"\0")
        nulls = end - start - len(piece)
        if nulls:
            message = f"{nulls} NUL bytes where a record should be, as a power loss leaves them"
            on_problem(DamagedData(message, origin=origin, offset=offset + start))
        if not piece.strip(_BLANK):
            continue
        try:
            yield _unusual(piece, offset + start + nulls, origin, on_problem)
        except (ValueError, RecursionError):
            message = f"{len(piece)} bytes are no complete record: {excerpt(piece)}"
            on_problem(DamagedData(message, origin=origin, offset=offset + start + nulls))


def _unusual(piece: bytes, offset: int, origin: Origin, on_problem: OnProblem) -> LogRecord:
    text = piece.strip(_BLANK).decode("utf-8", "surrogateescape")
    value, end = _decode(text)
    record = JsonObject(value if isinstance(value, dict) else {})
    log, stream, stamp = record.get("log"), record.get("stream"), record.get("time")
    if not any(isinstance(member, str) for member in (log, stream, stamp)):
        raise ValueError("JSON, but no record of a log")
    time_ns = parse_stamp(stamp) if isinstance(stamp, str) else None
    if time_ns is None:
        on_problem(DamagedData(f"record without a valid time: {excerpt(piece)}", origin=origin, offset=offset))
        time_ns = ZERO_TIME_NS
    if rest := text[end:].strip(" \t\r"):
        told = excerpt(rest.encode("utf-8", "surrogateescape"))
        message = f"{len(rest)} characters follow the record on its line: {told}"
        on_problem(DamagedData(message, origin=origin, offset=offset))
    line = log if isinstance(log, str) else ""
    stream = stream if isinstance(stream, str) else ""
    partial = line[-1:] != "\n"
    return LogRecord(
        time_ns, stream, _bytes(line.removesuffix("\n")), partial, _attrs(record.get("attrs")), offset, origin
    )


def _attrs(value: object) -> tuple[tuple[str, str], ...]:
    members = value.items() if isinstance(value, dict) else ()
    return tuple((key, text) for key, text in members if isinstance(text, str))


def _bytes(text: str) -> bytes:
    return _SURROGATE.sub("\ufffd", text).encode("utf-8", "surrogateescape")
