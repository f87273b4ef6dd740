"""Reading a systemd journal file.

Format: systemd ``docs/JOURNAL_FILE_FORMAT.md``. Values are looked up through the file's own index when the file was
closed and its index holds together; else every object is read in a row, so that a file that was cut off, damaged, or
copied while it was open gives all that is there.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from heapq import merge
from itertools import groupby

from forensics_lib.errors import DamagedData, LimitExceeded
from forensics_lib.formats.journal_header import LONGEST_HEADER, JournalHeader, decode_header
from forensics_lib.formats.journal_index import LONGEST_LOOKED_FOR, BadIndex, JournalIndex
from forensics_lib.formats.journal_objects import LARGEST_VALUE, JournalObjects, ObjectKind
from forensics_lib.formats.log_record import OnProblem
from forensics_lib.model import Origin, utc_from_ns
from forensics_lib.sources.base import Source

__all__ = ["Accept", "JournalEntry", "JournalFile"]

Accept = Mapping[str, Callable[[bytes], object]]
"""Which entries are wanted: those with a field of that name whose value the function accepts."""

_ENTRY = struct.Struct("<16xQQQ16sQ")  # number, realtime, monotonic, boot, hash
_PAIR = struct.Struct("<QQ")
_LARGEST_ENTRY = 4 * LARGEST_VALUE
_MAX_ITEMS = 65_536
_KEPT, _KEPT_SIZE = 8192, 512


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One entry of a journal.

    Attributes:
        seqnum: its number among the files of one writer.
        realtime_us: when the journal received it, microseconds since 1970.
        monotonic_us: the same since the machine started.
        boot_id: which start of the machine.
        fields: (name, value) as they are stored; a name may come twice. The journal itself set those with ``_``.
        lost: number of fields that could not be read.
        xor_hash: hash of all its fields, as stored.
        listed: whether the file's index names it; others were found by reading object by object.
        offset: where it lies in the file.
        file: the file.
    """

    seqnum: int
    realtime_us: int
    monotonic_us: int
    boot_id: str
    fields: tuple[tuple[str, bytes], ...]
    lost: int
    xor_hash: int
    listed: bool
    offset: int
    file: Origin

    __table_columns__ = ("time", "seqnum", "boot_id", "fields", "lost", "listed", "origin")

    @property
    def time_ns(self) -> int:
        """When the journal received it, nanoseconds since 1970 (whole microseconds: it keeps no more)."""
        return self.realtime_us * 1000

    @property
    def time(self) -> datetime | None:
        """When the journal received it (aware UTC)."""
        return utc_from_ns(self.time_ns)

    @property
    def origin(self) -> Origin:
        """Where it lies."""
        return self.file.to("entry", self.offset)

    def get(self, name: str) -> bytes | None:
        """The first value of a field; None when the entry has no such field."""
        return next((value for field, value in self.fields if field == name), None)

    def text(self, name: str) -> str:
        """The same as text, bytes that are no UTF-8 as surrogates; empty when there is none."""
        return (self.get(name) or b"").decode("utf-8", "surrogateescape")


class JournalFile:
    """One journal file: of any machine, whole, open, cut off or damaged.

    Reads the compact and the wide form, with both hashes, values packed with XZ, LZ4 and zstd, and headers of any
    length (compared with journalctl on files of systemd 247, 252 and 254). Seals are not verified, for their key is not
    in the file. Memory grows by nothing but the places of the entries that are asked for.

    Attributes:
        header: what the file says of itself.
        objects: its objects.
        origin: the file.
    """

    def __init__(self, source: Source, origin: Origin, on_problem: OnProblem) -> None:
        """Read the header.

        Args:
            source: the bytes of the file.
            origin: the file.
            on_problem: told of what cannot be read.

        Raises:
            DamagedData: it is no journal, or its header is damaged.
            UnsupportedFormat: a newer form of the file.
        """
        self.origin = origin
        self.header: JournalHeader = decode_header(source.read_some(0, LONGEST_HEADER), origin)
        self.objects = JournalObjects(source, self.header.header_size, compact=self.header.compact)
        self._index = JournalIndex(self.objects, self.header)
        self._on_problem = on_problem
        self._place = struct.Struct("<I" if self.header.compact else "<Q")
        self._item_size = 4 if self.header.compact else 16
        self._source_size = source.size
        self._fields: dict[int, tuple[str, bytes]] = {}
        self._last_lookup: tuple[tuple[str, ...], list[tuple[str, bytes, array[int]]]] | None = None

    def entries(self, accept: Accept | None = None, *, without: str = "") -> Iterator[JournalEntry]:
        """The entries in the order in which they were written.

        Args:
            accept: which ones; None for all.
            without: name of a field that they must not have; looked at only beside `accept`.
        """
        offsets = self._indexed(accept, without) if self._is_whole else None
        if offsets is not None:
            for offset in offsets:
                yield from self._entry(offset, True)
            return
        for offset, listed in self._scanned(accept, without):
            yield from self._entry(offset, listed)

    def values(self, field: str) -> Iterator[tuple[bytes, int, JournalEntry]]:
        """(value, number of entries, the first of them) of every value that a field has in the file."""
        for value, places in self._places(field):
            for entry in self._entry(places[0], True):
                yield value, len(places), entry

    def _places(self, field: str) -> list[tuple[bytes, array[int]]]:
        """Every value that a field has, with the places of its entries."""
        if self._is_whole:
            try:
                found = [
                    (value, array("Q", self._index.entries_of(place))) for place, value in self._index.values(field)
                ]
                return [(value, places) for value, places in found if places]
            except (BadIndex, DamagedData) as error:
                self._report_index(error)
        return [(value, places) for _, value, places in self._look_up((field,)) if places]

    @cached_property
    def _is_whole(self) -> bool:
        header = self.header
        if header.header_size + header.arena_size > self._source_size:
            declared = header.header_size + header.arena_size
            self._report(f"journal of {declared} bytes is cut off after {self._source_size}", self._source_size)
            return False
        if not header.closed:
            state = header.state
            self._report(f"the journal was not closed (its state is {state}): its last entries may be missing", 16)
        return header.closed

    def _indexed(self, accept: Accept | None, without: str) -> Iterable[int] | None:
        """Places of entries by the file's index; None, reported, when it does not hold together."""
        try:
            if accept is None:
                return self._all_listed
            found: set[int] = set()
            for name, accepts in accept.items():
                for offset, value in self._index.values(name):
                    if accepts(value):
                        found.update(self._index.entries_of(offset))
            for offset, _ in self._index.values(without) if without and found else ():
                found.difference_update(self._index.entries_of(offset))
            return sorted(found)
        except (BadIndex, DamagedData) as error:
            self._report_index(error)
            return None

    @cached_property
    def _all_listed(self) -> array[int]:
        found = array("Q", self._index.entries())
        if len(found) != self.header.entries:
            raise BadIndex(f"it names {len(found)} entries, the header counts {self.header.entries}")
        return found

    def _scanned(self, accept: Accept | None, without: str) -> Iterator[tuple[int, bool]]:
        """(place, whether the index names it) of entries, found by reading every object."""
        found = self.entry_places if accept is None else self._found(accept, without)
        listed = self._listed_as_far_as_it_goes
        unlisted = 0
        for offset in found:
            position = bisect_left(listed, offset)
            is_listed = position < len(listed) and listed[position] == offset
            unlisted += not is_listed
            yield offset, is_listed
        if unlisted:
            self._report(f"{unlisted} entries are not in the journal's index; they were found by reading on", 0)

    def _found(self, accept: Accept, without: str) -> list[int]:
        """Places of the entries that have a wanted value, by reading every object."""
        lookup = self._look_up(tuple(sorted({*accept, without} - {""})))
        found = set[int]().union(*(places for name, value, places in lookup if name in accept and accept[name](value)))
        return sorted(found.difference(*(places for name, _, places in lookup if name == without)))

    def _look_up(self, names: tuple[str, ...]) -> list[tuple[str, bytes, array[int]]]:
        """(name, value, places of its entries) of every value that one of some fields has, by reading every object.

        The last answer is kept: the next container's log asks for the same field.
        """
        if self._last_lookup is not None and self._last_lookup[0] == names:
            return self._last_lookup[1]
        values: dict[int, tuple[str, bytes, array[int]]] = {}
        starts = tuple(f"{name}=".encode("ascii", "surrogateescape") for name in names)
        self._read_all(lambda offset: self._note_value(offset, starts, values))
        for entry in self.entry_places:
            try:
                for place in self.items_of(entry):
                    if place in values:
                        values[place][2].append(entry)
            except DamagedData:
                continue  # told of when it is read
        self._last_lookup = (names, list(values.values()))
        return self._last_lookup[1]

    def _note_value(
        self, offset: int, starts: tuple[bytes, ...], values: dict[int, tuple[str, bytes, array[int]]]
    ) -> None:
        """Keep a value that starts with the name of a wanted field."""
        try:
            if not self.objects.may_start(offset, starts):
                return
            payload = self.objects.payload(offset, LONGEST_LOOKED_FOR)
        except DamagedData:
            return  # told of when an entry is read that has it
        if payload.startswith(starts):
            field, _, value = payload.partition(b"=")
            values[offset] = (field.decode("ascii", "surrogateescape"), value, array("Q"))

    @cached_property
    def entry_places(self) -> array[int]:
        """Places of all entries, by reading every object."""
        return self._read_all(lambda offset: None)

    def _read_all(self, on_value: Callable[[int], None]) -> array[int]:
        """Read every object: told of each value's place, it gives the places of the entries, also of listed ones."""
        found = array("Q")
        for kind, offset, _ in self.objects.scan():
            if kind is ObjectKind.ENTRY:
                found.append(offset)
            elif kind is ObjectKind.DATA:
                on_value(offset)
        if self.objects.skipped is not None:
            first, total = self.objects.skipped
            self._report(f"{total} bytes of the journal, from {first} on, hold no object; they are passed over", first)
        both = merge(self._listed_as_far_as_it_goes, sorted(found))
        self.__dict__["entry_places"] = places = array("Q", (offset for offset, _ in groupby(both)))
        return places

    @cached_property
    def _listed_as_far_as_it_goes(self) -> array[int]:
        """Places of the entries in the index, up to the first fault in it."""
        listed, lost = array("Q"), 0
        try:
            for offset in self._index.entries():
                if offset < self._source_size:
                    listed.append(offset)
                else:
                    lost += 1
        except (BadIndex, DamagedData) as error:
            self._report_index(error)
        if lost:
            self._report(f"{lost} entries lie behind the end of the file and are lost", self._source_size)
        return listed

    def items_of(self, offset: int) -> list[int]:
        """Places of an entry's fields."""
        _, size = self.objects.head(offset, ObjectKind.ENTRY)
        count = (size - 64) // self._item_size
        if count > _MAX_ITEMS:
            raise LimitExceeded(f"an entry of {count} fields; the limit is {_MAX_ITEMS}", offset=offset)
        data = self.objects.read(offset + 64, count * self._item_size)
        if self.header.compact:
            return [place for (place,) in self._place.iter_unpack(data)]
        return [place for place, _ in _PAIR.iter_unpack(data)]

    def _entry(self, offset: int, listed: bool) -> Iterator[JournalEntry]:
        """The entry at a place; none, reported, when it cannot be read."""
        try:
            items = self.items_of(offset)
            seqnum, realtime, monotonic, boot, xor = _ENTRY.unpack(self.objects.read(offset, _ENTRY.size))
            if not seqnum or not realtime:
                raise DamagedData("an entry without number or time")
        except DamagedData as error:
            self._report(f"an entry is damaged: {error}", offset)
            return
        fields: list[tuple[str, bytes]] = []
        room, lost = _LARGEST_ENTRY, 0
        for place in items:
            field = self._fields.get(place)
            if field is None:
                try:
                    field = self._field(place, min(room, LARGEST_VALUE))
                except DamagedData as error:
                    lost += 1
                    self._report(f"a field of the entry cannot be read: {error}", offset)
                    continue
            room -= len(field[1])
            fields.append(field)
        yield JournalEntry(
            seqnum, realtime, monotonic, boot.hex(), tuple(fields), lost, xor, listed, offset, self.origin
        )

    def _field(self, place: int, limit: int) -> tuple[str, bytes]:
        """(name, value) of a data object; short ones are kept, for most of them are shared by many entries."""
        name, found, value = self.objects.payload(place, limit).partition(b"=")
        if not found:
            raise DamagedData(f"a field without name at {place}", offset=place)
        field = (name.decode("ascii", "surrogateescape"), value)
        if len(value) <= _KEPT_SIZE:
            if len(self._fields) >= _KEPT:
                self._fields.clear()
            self._fields[place] = field
        return field

    def _report_index(self, error: Exception) -> None:
        self._report(f"the journal's index is damaged, so every object is read: {error}", 0)

    def _report(self, message: str, offset: int) -> None:
        self._on_problem(DamagedData(message, origin=self.origin, offset=offset))
