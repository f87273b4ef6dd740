"""Carving: what lies in free space and still tells by its form what it is, though nothing describes it any more.

Files start on block boundaries and file systems fill the rest of their last block with zeros. So documents are looked
for at block starts, and a document that is followed by zeros up to the end of its block is whole. Logs are looked for
as records anywhere, for a long log has more pieces than one.

Nothing is carved that lies in several pieces, except logs. A block that was freed may hold a part of something newer
that was freed, too: carved content is what it proves to be by its own form, and no more.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace

from forensics_lib.errors import DamagedData, ForensicsError
from forensics_lib.formats.jsondoc import JsonValue, parse
from forensics_lib.formats.local_log import MAX_RECORD
from forensics_lib.formats.log_record import parse_stamp
from forensics_lib.formats.protobuf import Message
from forensics_lib.model import ProblemLog, Progress
from forensics_lib.recovery.forms import Form, form_of
from forensics_lib.recovery.free import FreeSpace
from forensics_lib.recovery.remnant import Confidence, Remnant
from forensics_lib.sources.base import Source

__all__ = ["carve"]

_METHOD = "carving"
_WINDOW = 4 << 20
_OVERLAP = 256 << 10
_SMALL, _LARGE = 64 << 10, 4 << 20
_BUDGET = 64 << 20
_MAX_UNPACKED = 1 << 30
_MAX_HELD = 100_000
_KNOWN_START = re.compile(
    rb'\{\s*"(?:StreamConfig|State|ID|Binds|ContainerIDFile|ociVersion|architecture|created|config|schemaVersion'
    rb'|mediaType|Repositories|id)"|\[\{"Digest"'
)
_INTERESTING = re.compile(rb"[\t\n\r\x1b-\x7e\x80-\xff]")
_TEXT = re.compile(rb"[\t\n\x0b\f\r\x1b\x20-\x7e\x80-\xff]{2,}")
_RECORD = re.compile(
    rb'\{(?:"log":"(?>[^"\\\x00-\x1f]|\\.)*+",)?"stream":"[a-z]{0,16}",'
    rb'(?:"attrs":\{(?>"(?>[^"\\\x00-\x1f]|\\.)*+"[:,]?)*\},)?"time":"[0-9T:.Z+-]{20,35}"\}\n?'
)
_HEADS = (b'{"log":"', b'{"stream":"')
_LOCAL_HEAD = b"\n\x06std"
_DIGEST = re.compile(rb"sha256:[0-9a-f]{64}")
_LAYER_ID = re.compile(rb"[0-9a-f]{64}(?:-init)?|[0-9a-z]{25}")
_KNOWN_TEXT = re.compile(
    rb"sha256:[0-9a-f]{64}\0|[0-9a-f]{64}(?:-init)?\0|[A-Z2-7]{26}\0|l/[A-Z2-7]{26}|127\.0\.0\.1\tlocalhost\n"
)
_TORN_ID = re.compile(rb'"ID":"([0-9a-f]{64})"')
_REFERENCE = re.compile(rb"sha256:[0-9a-f]{64}")


def carve(
    space: FreeSpace,
    problems: ProblemLog,
    progress: Progress | None = None,
    *,
    known: Collection[str] = (),
) -> Iterator[Remnant]:
    """Documents, logs, short texts and gzip files in free space, in the order of their places; image configs last.

    Args:
        space: the free space of a file system.
        problems: gets what cannot be read.
        progress: told of the bytes that were searched.
        known: digests (``sha256:…``) that prove an image's documents when they are equal to theirs; those that carved
            documents name are added.
    """
    source, block = space.source, space.block
    ranges = list(_joined(space.ranges, source.size))
    total, done = sum(length for _, length in ranges), 0
    carver = _Carver(source, problems, block, set(known))
    for start, length in ranges:
        carver.enter(start, start + length)
        for offset in range(start, start + length, _WINDOW):
            size = min(_WINDOW, start + length - offset)
            try:
                yield from carver.window(offset, size)
            except DamagedData as error:
                problems.add(source.origin.to("free space", offset), error)
            done += size
            if progress is not None:
                progress(done, total)
        yield from carver.leave()
    yield from carver.images()


@dataclass(slots=True)
class _Run:
    """Log records that follow each other without a gap."""

    kind: str
    start: int
    end: int
    count: int
    first_ns: int
    last_ns: int


class _Carver:
    """The search over one range after another."""

    def __init__(self, source: Source, problems: ProblemLog, block: int, known: set[str]) -> None:
        self._source = source
        self._problems = problems
        self._block = block
        self._known = known
        self._budget = _BUDGET
        self._start = self._end = 0
        self._taken = 0  # what lies before it belongs to something that was found
        self._runs: dict[str, _Run] = {}
        self._host: Remnant | None = None
        self._images: list[Remnant] = []

    def enter(self, start: int, end: int) -> None:
        """Begin with a range."""
        self._start = self._taken = start
        self._end = end

    def leave(self) -> Iterator[Remnant]:
        """End a range: what was open is given out."""
        for kind in list(self._runs):
            yield from self._closed(self._runs.pop(kind))
        yield from self._given()

    def images(self) -> Iterator[Remnant]:
        """The images' documents, now that everything that may name them was seen."""
        for remnant in self._images:
            digest = f"sha256:{remnant.path.rpartition('/')[2]}"
            if digest in self._known:
                detail = f"{remnant.detail}; its digest is named elsewhere"
                remnant = replace(remnant, confidence=Confidence.VERIFIED, detail=detail)
            yield remnant

    def window(self, offset: int, size: int) -> Iterator[Remnant]:
        """What starts in one window."""
        self._budget += size
        data = self._source.read_at(offset, min(size + _OVERLAP, self._end - offset))
        found = [*self._blocks(offset, data, size), *self._logs(offset, data, size)]
        for _, remnants in sorted(found, key=lambda one: one[0]):
            yield from remnants

    # What starts with a block ---------------------------------------------------------------------------------------

    def _blocks(self, offset: int, data: bytes, size: int) -> Iterator[tuple[int, list[Remnant]]]:
        """What is told by the first bytes of a block; these are looked at in one go for all blocks of the window."""
        firsts = data[: size : self._block]
        for match in _INTERESTING.finditer(firsts):
            at = offset + match.start() * self._block
            if at < self._taken:
                continue
            head = data[at - offset : at - offset + 256]
            found = list(self._at(at, head, data[at - offset - 1 : at - offset]))
            if found:
                yield at, found

    def _at(self, at: int, head: bytes, before: bytes) -> Iterator[Remnant]:
        if head[:3] == b"\x1f\x8b\x08":
            yield from self._gzip(at)
        elif head.startswith(_HEADS):
            return
        elif _KNOWN_START.match(head):
            yield from self._document(at, _LARGE)
        elif _KNOWN_TEXT.match(head) or (_TEXT.match(head) and self._is_start(at, before)):
            yield from self._document(at, _SMALL)

    def _is_start(self, at: int, before: bytes) -> bool:
        """Whether the block before it ends with zeros, as the last one of a file does."""
        byte = before or (self._source.read_at(at - 1, 1) if at else b"\0")
        return byte == b"\0"

    def _document(self, at: int, limit: int) -> Iterator[Remnant]:
        """A text that ends with its block, or a document that is cut."""
        data = self._until_zero(at, limit)
        padding = -len(data) % self._block
        whole = at + len(data) + padding <= self._end
        whole = whole and not any(self._source.read_at(at + len(data), padding))
        whole = whole and (padding > 0 or data.endswith((b"}", b"}\n", b"]")))
        value = self._parsed(data) if data[:1] in (b"{", b"[") else None
        form = form_of(value, data) if value is not None else _short(data)
        if form is None and value is None and _KNOWN_START.match(data):
            form, whole = _torn(data), False
        if form is None and whole and padding and _is_text(data):
            form = Form("file", detail="JSON" if value is not None else "text")
        if form is None:
            return
        if whole or value is not None:
            self._taken = at + len(data) + padding
        yield from self._found(self._remnant(form, at, len(data), whole))

    def _until_zero(self, at: int, limit: int) -> bytes:
        """The bytes up to the first zero, at most `limit`; large ones only as long as they are few."""
        data = self._source.read_at(at, min(_SMALL, self._end - at))
        end = data.find(b"\0")
        if end < 0 and limit > _SMALL and self._budget > limit:
            self._budget -= limit
            data = self._source.read_at(at, min(limit, self._end - at))
            end = data.find(b"\0")
        return data if end < 0 else data[:end]

    def _parsed(self, data: bytes) -> JsonValue:
        try:
            return parse(data, self._source.origin)
        except ForensicsError:
            return None

    def _found(self, remnant: Remnant) -> Iterator[Remnant]:
        """Give out a document; settings are held back until it is known whose they are, images until the end.

        Docker writes a container's settings directly before its record.
        """
        if remnant.kind == "image" and remnant.complete and len(self._images) < _MAX_HELD:
            self._images.append(remnant)
            return
        if remnant.kind == "config" and remnant.content is not None:
            self._known.update(match.decode() for match in _REFERENCE.findall(remnant.read()))
        host, self._host = self._host, None
        if host is not None:
            if remnant.container_id and remnant.kind == "config" and self._after(host) == remnant.origin.offset:
                detail = f"{host.detail}; it lies directly before the record of this container"
                path = f"containers/{remnant.container_id}/hostconfig.json"
                host = replace(
                    host,
                    path=path,
                    container_id=remnant.container_id,
                    detail=detail,
                    modified_ns=remnant.modified_ns,
                )
            yield host
        if remnant.path == "hostconfig.json":
            self._host = remnant
        else:
            yield remnant

    def _given(self) -> Iterator[Remnant]:
        if self._host is not None:
            yield self._host
            self._host = None

    def _after(self, remnant: Remnant) -> int:
        """The first block behind it."""
        end = (remnant.origin.offset or 0) + (remnant.size or 0)
        return end + -end % self._block

    def _gzip(self, at: int) -> Iterator[Remnant]:
        """A gzip file whose own checksum is right."""
        unpacker, position, unpacked, first = zlib.decompressobj(31), at, 0, b""
        try:
            while not unpacker.eof and position < self._end and unpacked < _MAX_UNPACKED and self._budget > 0:
                packed = self._source.read_at(position, min(_SMALL, self._end - position))
                position += len(packed)
                self._budget -= len(packed)
                if not packed:
                    return
                while packed and unpacked < _MAX_UNPACKED:
                    data = unpacker.decompress(packed, _LARGE)
                    first = first or data[:512]
                    unpacked += len(data)
                    self._budget -= len(data) // 8
                    packed = unpacker.unconsumed_tail
        except zlib.error:
            return
        if unpacker.eof:
            size = position - len(unpacker.unused_data) - at
            self._taken = at + size + -size % self._block
            yield replace(self._remnant(_unpacked(first), at, size, True), confidence=Confidence.VERIFIED)

    # Logs ----------------------------------------------------------------------------------------------------------

    def _logs(self, offset: int, data: bytes, size: int) -> Iterator[tuple[int, list[Remnant]]]:
        for kind, records in (("json-file", _json_records(data, size)), ("local", _local_records(data, size))):
            for start, end, time_ns in records:
                run = self._runs.get(kind)
                if run is not None and run.end == offset + start:
                    run.end, run.last_ns = offset + end, time_ns
                    run.count += 1
                    continue
                if run is not None and offset + start < run.end:
                    continue
                self._runs[kind] = _Run(kind, offset + start, offset + end, 1, time_ns, time_ns)
                if run is not None:
                    yield run.start, list(self._closed(run))

    def _closed(self, run: _Run) -> Iterator[Remnant]:
        """A run of records as a log, whole when it starts with a block and zeros follow it."""
        padding = -run.end % self._block
        tail = self._source.read_at(run.end, min(padding, self._end - run.end))
        starts = run.start % self._block == 0 and (run.start > self._start or self._is_start(run.start, b""))
        whole = starts and padding > 0 and len(tail) == padding and not any(tail)
        records = f"{run.count} record{'s' if run.count > 1 else ''} of a log of the driver {run.kind}"
        form = Form("log", detail=records, modified_ns=run.last_ns)
        yield self._remnant(form, run.start, run.end - run.start, whole)

    def _remnant(self, form: Form, at: int, size: int, complete: bool) -> Remnant:
        content = self._source.slice(at, size, f"carved {form.path.rpartition('/')[2] or form.kind}")
        return Remnant(
            kind=form.kind,
            path=form.path,
            container_id=form.container_id,
            image_id=form.image_id,
            method=_METHOD,
            confidence=Confidence.CARVED,
            complete=complete,
            size=size,
            origin=content.origin,
            detail=form.detail,
            modified_ns=form.modified_ns,
            content=content,
        )


def _joined(ranges: Iterable[tuple[int, int]], end: int) -> Iterator[tuple[int, int]]:
    """Neighbouring ranges as one, within the source."""
    start = stop = -1
    for offset, length in ranges:
        length = min(length, end - offset)
        if offset < 0 or length <= 0:
            continue
        if offset == stop:
            stop += length
            continue
        if stop > start:
            yield start, stop - start
        start, stop = offset, offset + length
    if stop > start:
        yield start, stop - start


def _json_records(data: bytes, size: int) -> Iterator[tuple[int, int, int]]:
    """(start, end, time) of the records of the ``json-file`` driver that start in the first `size` bytes."""
    for head in _HEADS:
        at = data.find(head, 0, size + len(head) - 1)
        while at >= 0:
            match = _RECORD.match(data, at)
            time_ns = _time(data, match) if match is not None else None
            if match is not None and time_ns is not None:
                yield at, match.end(), time_ns
            at = data.find(head, match.end() if match is not None else at + 1, size + len(head) - 1)


def _time(data: bytes, match: re.Match[bytes]) -> int | None:
    start = data.rfind(b'"time":"', match.start(), match.end()) + 8
    return parse_stamp(data[start : data.find(b'"', start)].decode("ascii", "replace"))


def _local_records(data: bytes, size: int) -> Iterator[tuple[int, int, int]]:
    """(start, end, time) of the records of the ``local`` driver."""
    at = data.find(_LOCAL_HEAD, 4, size + len(_LOCAL_HEAD) + 3)
    while at >= 0:
        end = at + 1
        if data[at + 5 : at + 8] in (b"out", b"err"):
            length = int.from_bytes(data[at - 4 : at], "big")
            if 8 < length <= MAX_RECORD and data[at + length : at + length + 4] == data[at - 4 : at]:
                entry = Message(data[at : at + length])
                if entry.damage is None and entry.signed(2) > 0:
                    end = at + length + 4
                    yield at - 4, end, entry.signed(2)
        at = data.find(_LOCAL_HEAD, end, size + len(_LOCAL_HEAD) + 3)


def _short(data: bytes) -> Form | None:
    """The small files of Docker's layer records."""
    if _DIGEST.fullmatch(data):
        return Form("record", detail=f"digest of a layer, its parent or an image: {data.decode()}")
    if _LAYER_ID.fullmatch(data):
        return Form("record", detail=f"name of a layer's directory: {data.decode()}")
    return None


def _torn(data: bytes) -> Form | None:
    """The record of a container of which only the beginning is left."""
    match = _TORN_ID.search(data)
    if match is None or not data.startswith(b'{"StreamConfig"'):
        return None
    container_id = match[1].decode()
    path = f"containers/{container_id}/config.v2.json"
    return Form("config", path, container_id, detail="the beginning of a container's record; the rest was overwritten")


def _unpacked(first: bytes) -> Form:
    """What a gzip file holds, by its first bytes."""
    if first.startswith((b'{"type":1', b'{"type":2')):
        return Form("layer", "tar-split.json.gz", detail="what the archive of a layer consists of, without the content")
    if first.startswith(_HEADS):
        return Form("log", detail="rotated log of the driver json-file, compressed")
    if first[257:262] == b"ustar":
        return Form("layer", detail="tar archive, compressed with gzip")
    return Form("file", detail="gzip")


def _is_text(data: bytes) -> bool:
    """Whether it is text; the end of a JSON document, behind a block that was written anew, is none by itself."""
    if not _TEXT.fullmatch(data) or (data.rstrip().endswith(b"}") and data[:1] not in (b"{", b"[")):
        return False
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
