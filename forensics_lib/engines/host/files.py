"""Line by line through a host's text files and logs, also rotated and compressed ones."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime

from forensics_lib.errors import ForensicsError
from forensics_lib.formats.log_record import split_lines
from forensics_lib.model import Origin, utc_from_ns
from forensics_lib.sources.decompress import Compression, Limits, decompress, sniff
from forensics_lib.trees.base import Node, NodeKind
from forensics_lib.trees.documents import DocumentReader

__all__ = ["LOG_FOLDERS", "HostFiles", "place_of"]

LOG_FOLDERS = ("/var/log", "/log", "/")
"""Where logs lie: on a host, on a file system that is mounted at ``/var``, in a copy of ``/var/log``."""

_MAX_LINE = 1 << 20
_ROTATED = re.compile(r"[.-](?:(\d{1,4})|(\d{4})-?(\d\d)-?(\d\d)(?:[-_T.]?\d{1,10}){0,3})(?:\.(?:gz|xz|zst|bz2))?\Z")


class HostFiles:
    """Text files of one host.

    Attributes:
        reader: reads the host's file system.
        limits: bounds on decompression.
    """

    def __init__(self, reader: DocumentReader, limits: Limits) -> None:
        """Nothing is read yet."""
        self.reader = reader
        self.limits = limits

    def lines(self, node: Node) -> Iterator[tuple[int, bytes]]:
        """(byte where it starts, line) of a file, also of a compressed one; damage is a problem and ends them."""
        try:
            source = node.source()
            blocks = decompress(source.blocks(), sniff(source.read_at(0, 16)), place_of(node), self.limits)
            for offset, line, _ in split_lines(blocks, _MAX_LINE):
                yield offset, line.rstrip(b"\r")
        except ForensicsError as error:
            self.reader.problems.add(place_of(node), error)

    def logs(self, folder: str, names: re.Pattern[str]) -> list[Node]:
        """The logs of a folder with their rotated files, the oldest of each log first.

        Args:
            folder: where they lie.
            names: fits the name of a log before rotation adds to it.
        """
        found = []
        for node in self.reader.folder(folder):
            match = names.match(node.name)
            if match and node.kind is NodeKind.FILE:
                suffix = node.name[match.end() :]
                rotated = _ROTATED.fullmatch(suffix)
                if rotated or not suffix:
                    found.append((match[0], _age(rotated), node.name, node))
        return [node for *_, node in sorted(found, key=lambda one: one[:3])]

    def written(self, node: Node) -> date | None:
        """The day on which a log was written last: by its name when rotation put it there, else by the file's time.

        A compressed file keeps the time of what was compressed, which a copy leaves alone.
        """
        rotated = _ROTATED.search(node.name)
        if rotated and rotated[2]:
            try:
                return date(int(rotated[2]), int(rotated[3]), int(rotated[4]))
            except ValueError:
                pass
        moments = [moment for moment in (utc_from_ns(node.mtime_ns), self._before_compression(node)) if moment]
        return min(moments).date() if moments else None

    def _before_compression(self, node: Node) -> datetime | None:
        try:
            head = node.source().read_at(0, 16)
        except ForensicsError:
            return None
        seconds = int.from_bytes(head[4:8], "little") if sniff(head) is Compression.GZIP else 0
        return datetime.fromtimestamp(seconds, UTC) if seconds else None


def place_of(node: Node) -> Origin:
    """Where a file lies; the path is not said twice where the host is a folder of a copied folder."""
    return node.origin if node.origin.label.endswith(node.path) else node.origin.to(node.path.lstrip("/"))


def _age(rotated: re.Match[str] | None) -> tuple[int, str]:
    """Sorts rotated files, the oldest first: those with a date, then the highest number, then the log itself."""
    if rotated is None:
        return (1, "")
    if rotated[1]:
        return (0, f"~{10_000 - int(rotated[1]):05}")
    return (0, "".join(rotated.group(2, 3, 4)) + rotated[0])
