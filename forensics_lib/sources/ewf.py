"""Expert Witness (E01) images, the format of EnCase, FTK Imager and ewfacquire.

Format: "Expert Witness Compression Format specification" of the libewf project (EWF version 1).

libewf itself is not used: it answers a damaged chunk with zeros, and when the index of one segment is lost it hands out
the data of later segments at wrong positions, both without an error. Here, both are damage that is named.
"""

from __future__ import annotations

import bisect
import re
import zlib
from array import array
from collections.abc import Sequence
from typing import ClassVar

from forensics_lib.errors import DamagedData
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.sources._bounds import end_of, read_exactly
from forensics_lib.sources._cache import Cache
from forensics_lib.sources.base import Source
from forensics_lib.sources.ewf_segments import MAGIC, MAX_CHUNK, ChunkTable, Segments, adler
from forensics_lib.sources.siblings import Siblings

__all__ = ["Ewf", "segments_beside"]

_SEGMENT_NAME = re.compile(r"(?P<stem>.+)\.(?P<first>[EeSs])(?:\d\d|[A-Za-z]{2})", re.DOTALL)

_MAX_SEGMENTS = 14_971  # E01 to ZZZ
_COMPRESSED = 1 << 31


class Ewf(Source):
    """The disk inside an E01 image, which may be split over many segment files.

    Reads the EWF-E01 and EWF-S01 (SMART) formats as EnCase 1 to 7, FTK Imager, linen and ewfacquire write them,
    compressed or not. A missing or truncated segment leaves a hole of known place and size; the rest is read, also
    chunks whose index is lost: they are found again one behind the other. Not read: logical evidence files (L01) and
    the second version of the format (Ex01).

    A damaged compressed chunk raises; an uncompressed one whose checksum is wrong is handed out as it is stored, and
    the mismatch recorded as a problem.

    Args:
        segments: the segment files, in any order; `segments_beside` finds them.
        problems: told of missing segments, damaged sections, and wrong checksums while reading.
        origin: of the disk; a step below the first segment by default.

    Attributes:
        stored_hashes: (``md5`` or ``sha1``, hexadecimal) of the whole disk as computed at acquisition.
        acquisition: (name, value) of what the examiner and the tool noted down then, e.g. ``case_number``.
        read_errors: (first sector, number) of sectors that could not be read from the original disk.
        chunk_size: bytes that are stored, and can be damaged, together.

    Raises:
        DamagedData: the geometry of the disk is in none of the segments, or contradicts the format.
        UnsupportedFormat: the files are no E01 segments, or of a kind that is not read.
    """

    format: ClassVar[str] = "ewf"
    magic: ClassVar[bytes] = MAGIC

    def __init__(self, segments: Sequence[Source], problems: ProblemLog, origin: Origin | None = None) -> None:
        """Read the structure of every segment; the index of the chunks is read as needed."""
        found = Segments(segments, problems, origin)
        self.problems = problems
        self.segments, self.origin = found.segments, found.origin
        self.stored_hashes = found.stored_hashes
        self.acquisition = found.acquisition
        self.read_errors = found.read_errors
        self.size, self.chunk_size = found.size, found.chunk_size
        self._tables = found.placed()
        self._starts = [first for first, _ in self._tables]
        self._indexes: Cache[int, array[int]] = Cache(1 << 18)  # of 8 bytes each
        self._cache: Cache[int, bytes] = Cache(4 << 20)
        if self.read_errors:
            count = sum(number for _, number in self.read_errors)
            message = f"{count} sectors could not be read at acquisition; the image has filler for them"
            problems.add(self.origin, message)

    def read_at(self, offset: int, length: int) -> bytes:
        """The bytes at a position; short only at the end.

        Raises:
            DamagedData: a chunk is damaged, or lies in a segment that is missing.
        """
        end = end_of(self, offset, length)
        pieces = []
        while offset < end:
            number, inside = divmod(offset, self.chunk_size)
            piece = self._chunk(number)[inside : inside + end - offset]
            pieces.append(piece)
            offset += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def __getstate__(self) -> dict[str, object]:
        """Pickle without the log, which stays with its process."""
        return {name: value for name, value in vars(self).items() if name != "problems"}

    def __setstate__(self, state: dict[str, object]) -> None:
        """In the other process nobody would see a problem, so there a wrong checksum raises."""
        vars(self).update(state, problems=ProblemLog(strict=True))

    def _chunk(self, number: int) -> bytes:
        data = self._cache.get(number)
        if data is None:
            data = self._read_chunk(number, min(self.chunk_size, self.size - number * self.chunk_size))
            self._cache.put(number, data)
        return data

    def _read_chunk(self, number: int, length: int) -> bytes:
        place = bisect.bisect_right(self._starts, number) - 1
        first, table = self._tables[place] if place >= 0 else (0, None)
        if table is None or number - first >= table.entries:
            message = f"chunk {number} lies in a segment or part of a segment that is missing"
            raise DamagedData(message, origin=self.origin, offset=number * self.chunk_size)
        index = self._index(place, table)
        position, packed = index[number - first] >> 1, index[number - first] & 1
        if not packed:
            data = read_exactly(table.segment, position, length, f"chunk {number}")
            # The last chunk of a disk is stored in full by some tools and cut by others, its checksum behind it.
            if adler(data) != table.segment.read_at(position + length, 4) and length == self.chunk_size:
                message = f"checksum of chunk {number} is wrong; its bytes are used as they are stored"
                self.problems.add(table.segment.origin.to(f"chunk {number}", position), message)
            return data
        end = index[number - first + 1] >> 1 if number - first + 1 < table.entries else table.end
        stored = table.segment.read_at(position, min(max(end - position, 0), 2 * self.chunk_size + 1024))
        decoder = zlib.decompressobj()
        try:
            data = decoder.decompress(stored, self.chunk_size)
            if len(data) < length:
                raise zlib.error("it ends too early")
            if not decoder.eof:
                decoder.decompress(decoder.unconsumed_tail, 1)  # reads the checksum at the end
        except zlib.error as error:
            message = f"chunk {number} is damaged: {error}"
            origin = table.segment.origin.to(f"chunk {number}", position)
            raise DamagedData(message, origin=origin, offset=position) from error
        return data[:length]

    def _index(self, place: int, table: ChunkTable) -> array[int]:
        index = table.index or self._indexes.get(place)
        if index is None:
            raw = array("I", read_exactly(table.segment, table.position, table.entries * 4, "a table of chunks"))
            index = _positions(raw, table.base)
            self._indexes.put(place, index)
        return index

    def close(self) -> None:
        """Close every segment."""
        for segment in self.segments:
            segment.close()


def segments_beside(first: Source, siblings: Siblings | None = None) -> list[Source]:
    """All segments of an E01 image that lie beside one of them, that one included.

    Segments are named ``disk.E01`` to ``disk.E99``, then ``disk.EAA`` to ``disk.ZZZ``.
    """
    siblings = siblings or Siblings(first)
    match = _SEGMENT_NAME.fullmatch(siblings.name) or re.fullmatch(
        r"(?P<stem>.+)\.(?P<first>[F-Zf-z])[A-Za-z]{2}", siblings.name, re.DOTALL
    )
    found = [first]
    if match is None:
        return found
    start = "S" if match["first"] in "Ss" else "E"
    wanted = re.compile(
        rf"{re.escape(match['stem'])}\.(?:{start}\d\d|[{start}-Z][A-Z]{{2}})", re.IGNORECASE | re.DOTALL
    )
    for name in siblings.names():
        if name != siblings.name and wanted.fullmatch(name) and len(found) < _MAX_SEGMENTS:
            source = siblings.open(name)
            if source is not None and source.read_at(0, 8) == Ewf.magic:
                found.append(source)
            elif source is not None:
                source.close()
    return found


def _positions(raw: array[int], base: int) -> array[int]:
    """Places in the segment, doubled, plus one for compressed chunks.

    The highest bit of an entry means compressed. Where a segment grew beyond 2 GiB, EnCase 6.7 and later went on
    counting into that bit; from there on no chunk is compressed.
    """
    index = array("Q")
    overflow = False
    before = 0
    for entry in raw:
        place = entry if overflow else entry & ~_COMPRESSED
        if not overflow and place < before <= entry and before > _COMPRESSED - MAX_CHUNK:
            overflow, place = True, entry
        index.append((base + place) << 1 | (entry >= _COMPRESSED and not overflow))
        before = place
    return index
