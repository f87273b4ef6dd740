"""Files in free space that tell by themselves where they end: gzip, zstd, tar, databases.

Each is taken to lie in one piece. A checksum proves that it does; the headers of a tar archive, and the numbers that
the pages of a bbolt database carry, show it for all but the content between them.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from forensics_lib.errors import ForensicsError
from forensics_lib.formats.bbolt import Bolt
from forensics_lib.formats.bbolt_meta import find_metas
from forensics_lib.formats.tar import BLOCK_SIZE, TarDecoder
from forensics_lib.formats.tar_entry import TarEntry
from forensics_lib.formats.tar_header import checksum_ok, number
from forensics_lib.model import ProblemLog
from forensics_lib.recovery.carve_logs import LOG_HEADS
from forensics_lib.recovery.carve_starts import Start
from forensics_lib.recovery.forms import Form
from forensics_lib.recovery.remnant import Confidence
from forensics_lib.sources._zstd import ZstdDecompressor, ZstdError
from forensics_lib.sources.base import SliceSource, Source
from forensics_lib.sources.stream import SourceStream

__all__ = ["Carved", "Reach", "file_at"]

_STEP = 64 << 10
_LARGE = 4 << 20
_MAX_UNPACKED = 1 << 30
_MAX_MEMBERS = 100_000
_SHOWN = 3
_TAR_RECORD, _TAR_END = 20 * BLOCK_SIZE, 2 * BLOCK_SIZE
_CHECKED_FRAME = 0x04
_WITHOUT_CONTENT = frozenset(b"123456")


@dataclass(slots=True)
class Reach:
    """The bytes that a carved file may consist of: those of one free range.

    Attributes:
        source: where they lie.
        end: of the range.
        budget: bytes that may still be looked at for files that may turn out to be none.
    """

    source: Source
    end: int
    budget: int

    def read(self, at: int, length: int) -> bytes:
        """Bytes of the range, fewer at its end; they count."""
        length = max(min(length, self.end - at), 0)
        self.budget -= length
        return self.source.read_at(at, length)


@dataclass(frozen=True, slots=True)
class Carved:
    """A file that was found by its form.

    Attributes:
        form: what it is.
        size: its bytes.
        confidence: how sure it is.
        complete: whether its end was found.
        digest: sha256 of what is packed in it, when that is an archive; empty when it is none.
        least: its size without what may be padding; 0 where that is the same.
    """

    form: Form
    size: int
    confidence: Confidence = Confidence.CARVED
    complete: bool = True
    digest: str = ""
    least: int = 0


def file_at(start: Start, reach: Reach, at: int) -> Carved | None:
    """The file of a kind that begins at a place; None when it turns out to be none."""
    reader = _READERS.get(start)
    try:
        return None if reader is None or reach.budget <= 0 else reader(reach, at)
    except ForensicsError:
        return None


@dataclass(slots=True)
class _Unpacked:
    """What comes out of a packed file."""

    first: bytes = b""
    size: int = 0
    digest: Any = field(default_factory=hashlib.sha256)

    def add(self, data: bytes) -> None:
        """Take some."""
        if len(self.first) < BLOCK_SIZE:
            self.first = (self.first + data)[:BLOCK_SIZE]
        self.size += len(data)
        self.digest.update(data)

    def file(self, size: int, packing: str, confidence: Confidence) -> Carved:
        """The packed file."""
        is_archive = self.first[257:262] == Start.TAR.value
        return Carved(
            _unpacked(self.first, packing), size, confidence, True, self.digest.hexdigest() if is_archive else ""
        )


def _gzip(reach: Reach, at: int) -> Carved | None:
    """A gzip file whose own checksum is right."""
    unpacker, position, unpacked = zlib.decompressobj(31), at, _Unpacked()
    try:
        while not unpacker.eof and unpacked.size < _MAX_UNPACKED and reach.budget > 0:
            packed = reach.read(position, _STEP)
            if not packed:
                return None
            position += len(packed)
            while packed and unpacked.size < _MAX_UNPACKED:
                data = unpacker.decompress(packed, _LARGE)
                unpacked.add(data)
                reach.budget -= len(data) // 8
                packed = unpacker.unconsumed_tail
    except zlib.error:
        return None
    if not unpacker.eof:
        return None
    return unpacked.file(position - len(unpacker.unused_data) - at, "gzip", Confidence.VERIFIED)


def _zstd(reach: Reach, at: int) -> Carved | None:
    """A file of one or more zstd frames; those with a checksum prove themselves."""
    position, unpacked, proved = at, _Unpacked(), True
    while (head := reach.read(position, 5)).startswith(Start.ZSTD.value) and len(head) == 5:
        end = _zstd_frame(reach, position, unpacked)
        if end is None:
            break
        proved = proved and bool(head[4] & _CHECKED_FRAME)
        position = end
    if position == at:
        return None
    return unpacked.file(position - at, "zstd", Confidence.VERIFIED if proved else Confidence.CARVED)


def _zstd_frame(reach: Reach, position: int, unpacked: _Unpacked) -> int | None:
    """The end of a frame; None when it is damaged or does not end."""
    unpacker = ZstdDecompressor()
    try:
        while not unpacker.eof and unpacked.size < _MAX_UNPACKED and reach.budget > 0:
            packed = reach.read(position, _STEP) if unpacker.needs_input else b""
            if unpacker.needs_input and not packed:
                return None
            position += len(packed)
            data = unpacker.decompress(packed, _LARGE)
            unpacked.add(data)
            reach.budget -= len(data) // 8
    except ZstdError:
        return None
    return position - len(unpacker.unused_data) if unpacker.eof else None


def _unpacked(first: bytes, packing: str) -> Form:
    """What a packed file holds, by its first bytes."""
    if first.startswith((b'{"type":1', b'{"type":2')):
        return Form("layer", "tar-split.json.gz", detail="what the archive of a layer consists of, without the content")
    if first.startswith(LOG_HEADS):
        return Form("log", detail="rotated log of the driver json-file, compressed")
    if first[4:8] == b"\n\x06st":
        return Form("log", detail="rotated log of the driver local, compressed")
    if first[257:262] == Start.TAR.value:
        return Form("layer", detail=f"tar archive, compressed with {packing}")
    return Form("file", detail=packing)


def _tar(reach: Reach, at: int) -> Carved | None:
    """A tar archive as far as its headers follow each other; complete when they lead to its end."""
    part = reach.source.slice(at, reach.end - at, "archive")
    end = _headers(reach, part)
    if not end:
        return None
    least = end + _TAR_END
    padded = least + -least % _TAR_RECORD
    rest = part.read_at(end, padded - end)
    complete = len(rest) >= _TAR_END and not any(rest[:_TAR_END])
    if complete:
        end = padded if len(rest) == padded - end and not any(rest) else least
    end = min(end, part.size)
    found = SliceSource(part, 0, end, part.origin)
    entries = list(islice(TarDecoder(SourceStream(found), source=found), _MAX_MEMBERS))
    shown = ", ".join(entry.name for entry in entries[:_SHOWN]) + ("…" if len(entries) > _SHOWN else "")
    detail = f"tar archive of {len(entries)} member{'s' if len(entries) != 1 else ''}: {shown}"
    if complete and _ends_in_zeros(entries, part):
        complete = False
        detail += "; its last file ends in zeros, as free space does, so that nothing shows where it ends"
    elif not complete:
        detail += "; its end was overwritten"
    return Carved(Form("layer", detail=detail), end, complete=complete, least=least if complete else 0)


def _ends_in_zeros(entries: Sequence[TarEntry], part: Source) -> bool:
    """Whether the last content ends in a block of zeros: then it may lie elsewhere, and zeros in its place."""
    last = next((entry for entry in reversed(entries) if entry.stored_size), None)
    if last is None or any(entry.stored_size == 0 and entry.header_offset > last.header_offset for entry in entries):
        return False
    tail = (last.stored_size - 1) % BLOCK_SIZE + 1
    return not any(part.read_at(last.data_offset + last.stored_size - tail, tail))


def _headers(reach: Reach, part: Source) -> int:
    """Where the content of the last of the headers that follow each other ends."""
    count = end = 0
    while end < part.size and count < _MAX_MEMBERS and reach.budget > 0:
        block = part.read_at(end, BLOCK_SIZE)
        size = number(block[124:136]) if len(block) == BLOCK_SIZE and checksum_ok(block) else None
        if size is None or size < 0:
            break
        reach.budget -= BLOCK_SIZE
        count, end = count + 1, end + BLOCK_SIZE
        if block[156:157] == b"S":
            more = block[482]
            while more and end < part.size and reach.budget > 0:
                more = part.read_at(end + 504, 1)[:1] > b"\0"
                end, reach.budget = end + BLOCK_SIZE, reach.budget - BLOCK_SIZE
        if block[156] not in _WITHOUT_CONTENT:
            end += -(-size // BLOCK_SIZE) * BLOCK_SIZE
    return end


def _bolt(reach: Reach, at: int) -> Carved | None:
    """A bbolt database all of whose pages bear their numbers."""
    part = reach.source.slice(at, reach.end - at, "database")
    metas = find_metas(part)[1]
    size = metas[0].page_size * metas[0].high_water if metas else 0
    if not metas or not metas[0].valid or size > min(part.size, reach.budget):
        return None
    reach.budget -= size
    problems = ProblemLog()
    bolt = Bolt(SliceSource(part, 0, size, part.origin), problems)
    names = ", ".join(name.decode("utf-8", "backslashreplace") for name, _ in bolt.root.buckets())
    complete = not problems.rows and bolt.root.is_sound
    return Carved(Form("record", detail=f"bbolt database with {names or 'no buckets'}"), size, complete=complete)


def _sqlite(reach: Reach, at: int) -> Carved | None:
    """An SQLite database; nothing but their order says that its pages belong together."""
    head = reach.read(at, 100)
    if len(head) < 100:
        return None
    page, pages = int.from_bytes(head[16:18], "big"), int.from_bytes(head[28:32], "big")
    page = 65_536 if page == 1 else page
    if page < 512 or page & (page - 1) or not pages or head[24:28] != head[92:96]:
        return None
    size = page * pages
    detail = f"SQLite database of {pages} pages, taken to lie in one piece"
    if at + size > reach.end:
        detail += "; its end was overwritten"
    return Carved(Form("record", detail=detail), min(size, reach.end - at), complete=False)


_READERS: dict[Start, Callable[[Reach, int], Carved | None]] = {
    Start.GZIP: _gzip,
    Start.ZSTD: _zstd,
    Start.TAR: _tar,
    Start.BOLT: _bolt,
    Start.SQLITE: _sqlite,
}
