"""The systemd journals of the evidence, read as one: every machine's, kept on the disk or in memory, rotated or not."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from heapq import merge

from forensics_lib.engines.host.files import place_of
from forensics_lib.errors import DamagedData, ForensicsError
from forensics_lib.formats.journal import Accept, JournalEntry, JournalFile
from forensics_lib.formats.journal_check import check_hashes
from forensics_lib.model import Check, Origin, ProblemLog
from forensics_lib.trees.base import Node, NodeKind
from forensics_lib.trees.documents import DocumentReader

__all__ = ["Journals"]

_FOLDERS = ("/var/log/journal", "/run/log/journal", "/log/journal", "/journal")
"""On a host; on a file system that is mounted at ``/var`` or ``/run``; in a copy of ``/var/log``."""

_SUFFIXES = (".journal", ".journal~")
_REMEMBERED = 65_536
_SHOWN = 1000


class Journals:
    """All journal files of some hosts: found when they are first asked for, then kept.

    Args:
        hosts: readers of the hosts' file systems.
    """

    def __init__(self, hosts: Sequence[DocumentReader]) -> None:
        """Nothing is read yet."""
        self._hosts = hosts

    @cached_property
    def files(self) -> list[JournalFile]:
        """The files that can be read; each of the others is a problem."""
        found: dict[Origin, JournalFile] = {}
        for host in self._hosts:
            for folder in _FOLDERS:
                for node in _files(host, folder):
                    origin = place_of(node)
                    if origin not in found and (file := _open(node, origin, host.problems)) is not None:
                        found[origin] = file
        return list(found.values())

    def entries(self, accept: Accept | None = None, *, without: str = "") -> Iterator[JournalEntry]:
        """The entries in the order in which they were written, each once, be it in several files.

        Files that count their entries together follow that count; others are put in order by the clock.

        Args:
            accept: which ones: those with a field of that name whose value the function accepts; None for all.
            without: name of a field that they must not have; looked at only beside `accept`.
        """
        writers: dict[str, list[JournalFile]] = {}
        for file in self.files:
            writers.setdefault(file.header.seqnum_id, []).append(file)
        streams = [
            merge(*(file.entries(accept, without=without) for file in files), key=lambda entry: entry.seqnum)
            for files in writers.values()
        ]
        yield from _distinct(merge(*streams, key=lambda entry: entry.realtime_us))

    def values(self, field: str) -> Iterator[tuple[bytes, int, JournalEntry]]:
        """(value, number of entries, the first of them) of every value of a field, file after file."""
        for file in self.files:
            yield from file.values(field)

    def verify(self) -> Iterator[Check]:
        """The hashes of all values and entries, computed again: a row for each file, and one for each that is wrong.

        Values longer than 1 MiB are left out, and with them their entries.
        """
        for file in self.files:
            right = total = shown = 0
            name = file.origin.label.rpartition("/")[2]
            try:
                for one in check_hashes(file):
                    total += not one.left_out
                    right += one.computed == one.stored
                    if not one.left_out and one.computed != one.stored and shown < _SHOWN:
                        shown += 1
                        subject = f"journal {name}, {one.what}{one.name and ' '}{one.name} hash"
                        actual = "unreadable" if one.computed is None else f"{one.computed:016x}"
                        origin = file.origin.to(one.what, one.offset)
                        yield Check(subject, f"{one.stored:016x}", actual, False, origin)
            except ForensicsError as error:
                self._hosts[0].problems.add(file.origin, error)
            yield Check(f"journal {name}, hashes", str(total), str(right), right == total, file.origin)

    def matching(self, fields: Mapping[str, str]) -> Iterator[JournalEntry]:
        """The entries whose fields hold all of some values; all entries when there are none."""
        wanted = [(name, value.encode("utf-8", "surrogateescape")) for name, value in fields.items()]
        accept = {name: value.__eq__ for name, value in wanted[:1]}
        for entry in self.entries(accept or None):
            if all(pair in entry.fields for pair in wanted):
                yield entry


def _files(host: DocumentReader, folder: str) -> Iterator[Node]:
    """Journal files of a folder and of the folders of machines in it."""
    for node in host.folder(folder):
        if node.kind is NodeKind.FILE and node.name.endswith(_SUFFIXES):
            yield node
        elif node.kind is NodeKind.DIR:
            for below in host.folder(node.path):
                if below.kind is NodeKind.FILE and below.name.endswith(_SUFFIXES):
                    yield below


def _open(node: Node, origin: Origin, problems: ProblemLog) -> JournalFile | None:
    def damaged(error: DamagedData) -> None:
        problems.add(origin if error.offset is None else origin.to("journal", error.offset), error)

    if not node.size:
        return None
    try:
        return JournalFile(node.source(), origin, damaged)
    except ForensicsError as error:
        problems.add(origin, error)
        return None


def _distinct(entries: Iterator[JournalEntry]) -> Iterator[JournalEntry]:
    """The entries without those that another file has as well, such as what was moved from memory to the disk."""
    seen: OrderedDict[tuple[str, int, int, int], Origin] = OrderedDict()
    for entry in entries:
        key = (entry.boot_id, entry.monotonic_us, entry.realtime_us, entry.xor_hash)
        if seen.setdefault(key, entry.file) == entry.file:
            yield entry
        if len(seen) > _REMEMBERED:
            seen.popitem(last=False)
