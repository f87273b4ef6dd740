"""Logs in the format of the container runtime interface: kubelet, containerd, CRI-O, and Podman's ``k8s-file``.

A line is ``<RFC 3339 time> <stdout|stderr> <tags> <bytes>``. The first tag is ``F`` for a full line, or ``P`` for a
piece of one whose rest follows. Source of the format: the Kubernetes design "CRI: Log management for container stdout
and stderr streams".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from forensics_lib.errors import DamagedData
from forensics_lib.formats.log_record import MAX_LINE, LogRecord, OnProblem, excerpt, parse_stamp, split_lines
from forensics_lib.model import Origin

__all__ = ["read_cri_log"]

_HEAD = re.compile(
    rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)) (stdout|stderr) ([FP])(?::[^ \n]*)?(?: |\Z)"
)


def read_cri_log(
    blocks: Iterable[bytes], origin: Origin, on_problem: OnProblem, *, limit: int = MAX_LINE
) -> Iterator[LogRecord]:
    """The records, in the order of the file.

    Bytes that are no record are told to `on_problem`; when a record follows on the same line, as after a torn write,
    reading goes on there. A last line that no newline ends is a record and a problem: it may be cut.

    Args:
        blocks: the bytes of the file, decompressed.
        origin: named in problems.
        on_problem: told of every place that is no record.
        limit: longest line that is kept in memory.
    """
    for offset, line, ended in split_lines(blocks, limit):
        head = _HEAD.match(line) or _HEAD.search(line)
        time_ns = None if head is None else parse_stamp(head[1].decode())
        if head is None or time_ns is None:
            if line:
                message = f"{len(line)} bytes are no record: {excerpt(line)}"
                on_problem(DamagedData(message, origin=origin, offset=offset))
            continue
        start = head.start()
        if start:
            message = f"{start} bytes before the record on its line: {excerpt(line[:start])}"
            on_problem(DamagedData(message, origin=origin, offset=offset))
        if not ended:
            message = "no newline ends the record; its line may be cut"
            on_problem(DamagedData(message, origin=origin, offset=offset + start))
        partial = head[3] == b"P" or not ended
        yield LogRecord(time_ns, head[2].decode(), line[head.end() :], partial, (), offset + start, origin)
