"""The segment files of an Expert Witness (E01) image: their sections, and what these tell of the disk.

Format: "Expert Witness Compression Format specification" of the libewf project (EWF version 1).
"""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from struct import Struct

from forensics_lib.errors import DamagedData, ForensicsError, LimitExceeded, UnsupportedFormat
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.sources._bounds import read_exactly
from forensics_lib.sources.base import Source

__all__ = ["MAGIC", "MAX_CHUNK", "ChunkTable", "Segments", "adler"]

MAGIC = b"EVF\x09\x0d\x0a\xff\x00"
_FILE_HEADER = Struct("<8sBHH")
_SECTION = Struct("<16sQQ40xI")
_VOLUME = Struct("<B3xIIIQ")  # media type, chunks, sectors per chunk, bytes per sector, sectors
_VOLUME_SMART = Struct("<4xIIII")
_SMART_LENGTH = 94
_TABLE = Struct("<I4xQ4xI")

_MAX_SECTIONS = 1 << 20
MAX_CHUNK = 64 << 20
_MAX_TEXT = 1 << 20
_MAX_ERRORS = 4096
_NAMES = {
    "a": "description",
    "c": "case_number",
    "n": "evidence_number",
    "e": "examiner",
    "t": "notes",
    "m": "acquired",
    "u": "system_date",
    "av": "software_version",
    "ov": "operating_system",
    "md": "model",
    "sn": "serial_number",
    "l": "device_label",
}


@dataclass(frozen=True, slots=True)
class ChunkTable:
    """Where a run of chunks is indexed; the index itself is read when it is needed.

    Attributes:
        segment: the file.
        position: of the index in it.
        entries: how many chunks it has.
        base: what its places are counted from.
        end: where the last chunk ends.
        checked: whether its checksums are right.
        index: the places, doubled, plus one for compressed chunks, of chunks whose index is lost; None for others.
    """

    segment: Source
    position: int
    entries: int
    base: int
    end: int
    checked: bool
    index: array[int] | None = None


@dataclass(frozen=True, slots=True)
class _Section:
    kind: str
    start: int
    end: int


class Segments:
    """All segments of one image, read in the order of their numbers.

    Args:
        segments: the files, in any order.
        problems: gets missing segments and damaged sections.
        origin: of the disk; a step below the first segment by default.

    Attributes:
        segments: those that are used, in order.
        origin: of the disk.
        stored_hashes: as `Ewf` has them; so are the next two.
        acquisition: what was noted down when the disk was acquired.
        read_errors: sectors that could not be read then.
        chunk_size: bytes of a chunk.
        size: bytes of the disk.

    Raises:
        DamagedData: the geometry of the disk is in none of the segments, or contradicts the format.
        UnsupportedFormat: the files are no E01 segments, or of a kind that is not read.
    """

    def __init__(self, segments: Sequence[Source], problems: ProblemLog, origin: Origin | None = None) -> None:
        """Read the structure of every segment."""
        self._problems = problems
        numbered = self._ordered(segments)
        self.segments = tuple(numbered.values())
        self.origin = origin or self.segments[0].origin.to("ewf")
        self.stored_hashes: tuple[tuple[str, str], ...] = ()
        self.acquisition: tuple[tuple[str, str], ...] = ()
        self.read_errors: tuple[tuple[int, int], ...] = ()
        self._chunks = self.chunk_size = self.size = 0
        self._runs, self._complete = self._read_segments(numbered)
        if not self.chunk_size:
            raise DamagedData("no segment holds the geometry of the disk", origin=self.origin)
        if self.size > self._chunks * self.chunk_size:
            message = f"the disk is declared with {self.size} bytes, its chunks hold {self._chunks * self.chunk_size}"
            self._note(self.origin, message)

    def _ordered(self, segments: Sequence[Source]) -> dict[int, Source]:
        """The segments by the numbers in their headers, ascending."""
        numbered: dict[int, Source] = {}
        for segment in segments:
            magic, _, number, _ = _FILE_HEADER.unpack(read_exactly(segment, 0, _FILE_HEADER.size, "the header"))
            if magic == b"LVF\x09\x0d\x0a\xff\x00":
                raise UnsupportedFormat("a logical evidence file (L01) holds files, not a disk; it is not read")
            if magic != MAGIC:
                raise UnsupportedFormat("no E01 segment: it does not begin with its magic")
            if numbered.setdefault(number, segment) is not segment:
                self._note(segment.origin, f"a second segment with number {number}; it is not used")
        if not numbered:
            raise UnsupportedFormat("an E01 image needs at least one segment")
        return dict(sorted(numbered.items()))

    def _read_segments(self, numbered: dict[int, Source]) -> tuple[list[ChunkTable | None], bool]:
        """The tables of all segments in order with None for each gap, and whether the last segment is there."""
        runs: list[ChunkTable | None] = []
        expected, ended = 1, ""
        for number, segment in numbered.items():
            if number != expected:
                which = (
                    f"segment {expected} is" if number == expected + 1 else f"segments {expected} to {number - 1} are"
                )
                self._note(segment.origin, f"{which} missing")
                runs.append(None)
            tables, ended = self._read_segment(segment)
            runs.extend(tables)
            if ended not in ("next", "done"):
                runs.append(None)
            expected = number + 1
        if ended == "next":
            self._note(self.origin, f"segment {expected} is missing, and all after it")
        return runs, ended == "done"

    def _read_segment(self, segment: Source) -> tuple[list[ChunkTable], str]:
        """The tables of one segment, and the name of its last section."""
        tables: list[ChunkTable] = []
        last = ""
        data: _Section | None = None  # whose table was not seen yet
        data_end = 0
        try:
            for section in self._sections(segment):
                last = section.kind
                if last == "sectors":
                    data, data_end = section, section.end
                elif last == "table":
                    tables.append(self._table(segment, section, data_end))
                    data = None
                elif last == "table2" and tables and not tables[-1].checked:
                    again = self._table(segment, section, data_end)
                    if again.checked:
                        tables[-1] = again
                else:
                    self._describe(segment, section)
        except ForensicsError as error:
            self._problems.add(segment.origin, error)
            last = ""
            if data is not None and self.chunk_size:
                tables.append(self._rebuilt(segment, data))
        for table in tables:
            if not table.checked:
                self._note(segment.origin.to("table", table.position), "checksum of a table of chunks is wrong")
        return tables, last

    def _sections(self, segment: Source) -> Iterator[_Section]:
        position = _FILE_HEADER.size
        for _ in range(_MAX_SECTIONS):
            head = read_exactly(segment, position, _SECTION.size, "a section")
            name, following, size, checksum = _SECTION.unpack(head)
            if zlib.adler32(head[:-4]) != checksum:
                raise DamagedData("checksum of a section is wrong", origin=segment.origin, offset=position)
            kind = name.rstrip(b"\0").decode("ascii", "replace")
            start = position + _SECTION.size
            if kind in ("next", "done"):
                yield _Section(kind, start, start)
                return
            if following <= position:
                raise DamagedData("sections run in a circle", origin=segment.origin, offset=position)
            yield _Section(kind, start, max(start, following if size == 0 else position + size))
            position = following
        raise LimitExceeded(f"more than {_MAX_SECTIONS} sections", origin=segment.origin)

    def _table(self, segment: Source, section: _Section, data_end: int) -> ChunkTable:
        head = read_exactly(segment, section.start, _TABLE.size, "a table of chunks")
        count, base, checksum = _TABLE.unpack(head)
        position = section.start + _TABLE.size
        checked = zlib.adler32(head[:-4]) == checksum and count * 4 <= max(0, section.end - position)
        if count * 4 > max(0, section.end - position):
            raise DamagedData(f"a table declares {count} chunks", origin=segment.origin, offset=section.start)
        data = read_exactly(segment, position, count * 4, "a table of chunks")
        after = position + count * 4
        if section.end - after == 4:  # SMART and the first EnCase have no checksum here, but chunks or nothing
            checked = checked and segment.read_at(after, 4) == adler(data)
        base = min(base, segment.size)  # a damaged one would not fit the index; its chunks are missing all the same
        return ChunkTable(segment, position, count, base, data_end if data_end > base else section.end, checked)

    def _rebuilt(self, segment: Source, data: _Section) -> ChunkTable:
        """The table of chunks whose index is lost: each begins where the one before it ends."""
        index = array("Q")
        position = data.start
        end = min(data.end, segment.size)
        while position < end:
            stored = segment.read_at(position, min(2 * self.chunk_size + 1024, end - position))
            decoder = zlib.decompressobj()
            try:
                whole = len(decoder.decompress(stored, self.chunk_size + 1)) == self.chunk_size and decoder.eof
            except zlib.error:
                whole = False
            size = self.chunk_size
            if whole:
                index.append(position << 1 | 1)
                position += len(stored) - len(decoder.unused_data)
            elif adler(stored[:size]) == stored[size : size + 4]:
                index.append(position << 1)
                position += size + 4
            else:
                break
        self._note(segment.origin, f"an index of chunks is lost; {len(index)} chunks were found without it")
        return ChunkTable(segment, data.start, len(index), 0, position, checked=True, index=index)

    def _describe(self, segment: Source, section: _Section) -> None:
        """Take over what sections beside the chunks tell."""
        length = min(section.end - section.start, _MAX_TEXT)
        if section.kind in ("volume", "disk", "data"):
            self._geometry(segment.read_at(section.start, length), section.start)
        elif section.kind in ("header", "header2"):
            self.acquisition = self.acquisition or _noted(segment.read_at(section.start, length))
        elif section.kind == "hash":
            self._add_hashes((("md5", segment.read_at(section.start, 16)),))
        elif section.kind == "digest":
            data = segment.read_at(section.start, 36)
            self._add_hashes((("md5", data[:16]), ("sha1", data[16:36])))
        elif section.kind == "error2":
            count = int.from_bytes(segment.read_at(section.start, 4), "little")
            data = segment.read_at(section.start + 520, min(count, _MAX_ERRORS) * 8)
            self.read_errors = tuple(Struct("<II").iter_unpack(data[: len(data) & ~7]))

    def _geometry(self, data: bytes, position: int) -> None:
        if self.chunk_size:
            return  # repeated in later segments
        if len(data) == _SMART_LENGTH:
            chunks, per_chunk, sector, sectors = _VOLUME_SMART.unpack_from(data)
        elif len(data) >= _VOLUME.size:
            _, chunks, per_chunk, sector, sectors = _VOLUME.unpack_from(data)
        else:
            raise DamagedData("the geometry of the disk is cut off", origin=self.segments[0].origin, offset=position)
        if not 0 < per_chunk * sector <= MAX_CHUNK:
            message = f"chunks of {per_chunk} sectors of {sector} bytes"
            raise DamagedData(message, origin=self.segments[0].origin, offset=position)
        self._chunks, self.chunk_size, self.size = chunks, per_chunk * sector, sectors * sector

    def _add_hashes(self, found: Iterable[tuple[str, bytes]]) -> None:
        known = dict(self.stored_hashes)
        for name, digest in found:
            if any(digest):
                known.setdefault(name, digest.hex())
        self.stored_hashes = tuple(known.items())

    def placed(self) -> list[tuple[int, ChunkTable]]:
        """Each table with the number of its first chunk.

        Chunks are numbered through. Before the first gap they are counted from the start of the disk, behind the last
        gap from its end; tables between two gaps cannot be placed.
        """
        runs, total = self._runs, self._chunks
        gaps = [index for index, run in enumerate(runs) if run is None]
        front = runs[: gaps[0]] if gaps else runs
        back = runs[gaps[-1] + 1 :] if gaps and self._complete else []
        placed, number = [], 0
        for table in front:
            if table is not None:
                placed.append((number, table))
                number += table.entries
        behind = total - sum(table.entries for table in back if table is not None)
        if gaps and behind < number:
            self._note(self.origin, "the segments hold more chunks than the disk has; those behind a gap are not used")
            back, behind = [], total
        if behind > number or not gaps:
            self._note_missing(number, behind if gaps else total)
        number = behind
        for table in back:
            if table is not None:
                placed.append((number, table))
                number += table.entries
        if len(placed) < len(runs) - len(gaps):
            lost = len(runs) - len(gaps) - len(placed)
            self._note(self.origin, f"{lost} tables of chunks lie between missing parts and cannot be placed")
        return placed

    def _note_missing(self, first: int, end: int) -> None:
        if end > first:
            size = self.chunk_size
            message = f"chunks {first} to {end - 1} of {self._chunks} are missing: bytes {first * size} to {end * size}"
            self._note(self.origin, message)

    def _note(self, origin: Origin, message: str) -> None:
        self._problems.add(origin, message)


def adler(data: bytes) -> bytes:
    """The checksum that stands behind data, as stored."""
    return zlib.adler32(data).to_bytes(4, "little")


def _noted(packed: bytes) -> tuple[tuple[str, str], ...]:
    """The values of a header section: a line of keys and a line of values below the word ``main``."""
    try:
        data = zlib.decompressobj().decompress(packed, _MAX_TEXT)
    except zlib.error:
        return ()
    text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "latin-1", "replace")
    lines = text.splitlines()
    if "main" not in lines[:-2]:
        return ()
    start = lines.index("main")
    pairs = zip(lines[start + 1].split("\t"), lines[start + 2].split("\t"), strict=False)
    return tuple((_NAMES.get(key, key), value) for key, value in pairs if value and key not in ("p", "r", "pid"))
