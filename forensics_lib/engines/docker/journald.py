"""What a container with the log driver ``journald`` wrote, out of the host's journal.

Format: moby ``daemon/logger/journald/journald.go`` for how it is written, ``read.go`` for what ``docker logs`` shows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from forensics_lib.engines.journals import Journals
from forensics_lib.engines.logs import LogRecord
from forensics_lib.formats.journal import JournalEntry
from forensics_lib.model import Origin, ProblemLog

__all__ = ["JournalLog"]

_STREAMS = {"3": "stderr", "6": "stdout"}
_KNOWN = frozenset(
    (
        "MESSAGE",
        "MESSAGE_ID",
        "PRIORITY",
        "CODE_FILE",
        "CODE_LINE",
        "CODE_FUNC",
        "ERRNO",
        "SYSLOG_FACILITY",
        "SYSLOG_IDENTIFIER",
        "SYSLOG_PID",
        "SYSLOG_TIMESTAMP",
        "CONTAINER_NAME",
        "CONTAINER_ID",
        "CONTAINER_ID_FULL",
        "CONTAINER_TAG",
        "IMAGE_NAME",
        "CONTAINER_PARTIAL_ID",
        "CONTAINER_PARTIAL_ORDINAL",
        "CONTAINER_PARTIAL_LAST",
        "CONTAINER_PARTIAL_MESSAGE",
        "CONTAINER_LOG_EPOCH",
        "CONTAINER_LOG_ORDINAL",
    )
)
"""Fields that are no labels or variables which the log options asked for."""


@dataclass(frozen=True, slots=True)
class JournalLog:
    """The log of one container in the journals of the evidence.

    Attributes:
        journals: the journals.
        container_id: full id of the container.
        empty_lines: whether its daemon shows empty lines: Docker does since 23.
    """

    journals: Journals
    container_id: str
    empty_lines: bool

    def records(self, origin: Origin, problems: ProblemLog) -> Iterator[LogRecord]:
        """The records in the journal's order.

        Their time is when the journal received them, in microseconds, as ``docker logs -t`` shows; Docker's own time
        stands in the field ``SYSLOG_TIMESTAMP`` of the entry since Docker 24. The journal keeps no sign of whether a
        newline ended the last line.

        Args:
            origin: the container.
            problems: told of lines that are left out.
        """
        empty = 0
        for entry in self.journals.entries({"CONTAINER_ID_FULL": self._is_own}):
            line = entry.get("MESSAGE")
            if line or (line is not None and (self.empty_lines or entry.get("CONTAINER_LOG_EPOCH"))):
                yield _record(entry, line)
            else:
                empty += line is not None
        if empty:
            message = f"container {self.container_id}: {empty} empty lines of the journal are left out"
            problems.add(origin, f"{message}, as Docker before 23 does; Evidence.journal has them")

    def _is_own(self, container_id: bytes) -> bool:
        return container_id == self.container_id.encode("ascii", "surrogateescape")


def _record(entry: JournalEntry, line: bytes) -> LogRecord:
    attrs = (
        (name, value.decode("utf-8", "surrogateescape"))
        for name, value in entry.fields
        if not name.startswith("_") and name not in _KNOWN
    )
    return LogRecord(
        time_ns=entry.time_ns,
        stream=_STREAMS.get(entry.text("PRIORITY"), ""),
        line=line,
        partial=entry.get("CONTAINER_PARTIAL_MESSAGE") == b"true",
        attrs=tuple(sorted(attrs)),
        offset=entry.offset,
        file=entry.file,
    )
