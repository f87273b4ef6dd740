"""Carving: what lies in free space and still tells by its form what it is, though nothing describes it any more.

Files start on block boundaries and file systems fill the rest of their last block with zeros. So documents, archives
and databases are looked for at block starts, and a document that is followed by zeros up to the end of its block is
whole. Logs are looked for as records anywhere, for a long log has more pieces than one.

Nothing is carved that lies in several pieces, except logs. A block that was freed may hold a part of something newer
that was freed, too: carved content is what it proves to be by its own form, and no more.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace

from forensics_lib.errors import DamagedData, ForensicsError
from forensics_lib.formats.jsondoc import JsonValue, parse
from forensics_lib.model import ProblemLog, Progress
from forensics_lib.recovery.carve_files import Carved, Reach, file_at
from forensics_lib.recovery.carve_logs import LOG_HEADS, LOG_MARK, Run, Runs
from forensics_lib.recovery.carve_starts import Start, starts
from forensics_lib.recovery.forms import Form, form_of, text_form
from forensics_lib.recovery.free import FreeSpace
from forensics_lib.recovery.remnant import Confidence, Remnant
from forensics_lib.sources.base import Source

__all__ = ["carve"]

_METHOD = "carving"
_WINDOW = 4 << 20
_OVERLAP = 256 << 10
_ZEROS = bytes(_WINDOW + _OVERLAP)
_SMALL, _LARGE = 64 << 10, 4 << 20
_BUDGET = 64 << 20
_MAX_HELD = 100_000
_KNOWN_START = re.compile(
    rb'\{\s*"(?:StreamConfig|State|ID|Binds|ContainerIDFile|ociVersion|architecture|created|config|schemaVersion'
    rb'|mediaType|Repositories|id)"|\[\{"(?:Digest|Config)"'
)
_TEXT = re.compile(rb"[\t\n\x0b\f\r\x1b\x20-\x7e\x80-\xff]{2,}")
_KNOWN_TEXT = re.compile(
    rb"sha256:[0-9a-f]{64}\0|[0-9a-f]{64}(?:-init)?\0|[A-Z2-7]{26}\0|l/[A-Z2-7]{26}|127\.0\.0\.1\tlocalhost\n"
)
_TORN_ID = re.compile(rb'"ID":"([0-9a-f]{64})"')
_FOLDER = re.compile(rb"/containers/([0-9a-f]{64})/")
_REFERENCE = re.compile(rb"sha256:[0-9a-f]{64}")


def carve(
    space: FreeSpace,
    problems: ProblemLog,
    progress: Progress | None = None,
    *,
    known: Collection[str] = (),
) -> Iterator[Remnant]:
    """Documents, logs, short texts, archives and databases in free space, in the order of their places; images last.

    Args:
        space: the free space of a file system.
        problems: gets what cannot be read, and that there is nothing but zeros where that is so.
        progress: told of the bytes that were searched.
        known: digests (``sha256:…``) that prove an image's documents and layers when they are equal to theirs; those
            that carved documents name are added.
    """
    ranges = list(_joined(space.ranges, space.source.size))
    total, done = sum(length for _, length in ranges), 0
    carver = _Carver(space.source, problems, space.block, set(known))
    for start, length in ranges:
        carver.enter(start, start + length)
        for offset in range(start, start + length, _WINDOW):
            size = min(_WINDOW, start + length - offset)
            yield from carver.window(offset, size)
            done += size
            if progress is not None:
                progress(done, total)
        yield from carver.leave()
    if total and not carver.seen and not problems.strict:
        problems.add(space.source.origin.to("free space"), "there are only zeros: never written, wiped or discarded")
    yield from carver.images()


class _Carver:
    """The search over one range after another.

    Attributes:
        seen: whether there was anything but zeros.
    """

    def __init__(self, source: Source, problems: ProblemLog, block: int, known: set[str]) -> None:
        self.seen = False
        self._source = source
        self._problems = problems
        self._block = block
        self._known = known
        self._reach = Reach(source, 0, _BUDGET)
        self._start = self._end = self._bad = 0
        self._taken = 0  # what lies before it belongs to something that was found
        self._data, self._at = b"", 0  # the window
        self._runs = Runs(block)
        self._host: Remnant | None = None
        self._images: list[tuple[Remnant, Carved | None]] = []

    def enter(self, start: int, end: int) -> None:
        """Begin with a range."""
        self._start = self._taken = start
        self._end = self._reach.end = end

    def leave(self) -> Iterator[Remnant]:
        """End a range: what was open is given out."""
        for run in self._runs.close():
            yield self._log(run)
        yield from self._given()

    def images(self) -> Iterator[Remnant]:
        """The images' documents and layers, now that everything that may name them was seen."""
        for remnant, carved in self._images:
            yield self._proved(remnant, carved) if self._known else remnant

    def _proved(self, remnant: Remnant, carved: Carved | None) -> Remnant:
        """The same, verified where its digest, or that of the archive in it, is named elsewhere."""
        content = remnant.content
        if carved is None or content is None:
            digest = remnant.path.rpartition("/")[2]
            return _verified(remnant, "its digest") if f"sha256:{digest}" in self._known else remnant
        if f"sha256:{carved.digest}" in self._known:
            return _verified(remnant, f"the digest sha256:{carved.digest} of the archive in it")
        for size in {carved.size, carved.least or carved.size}:
            part = content if size == carved.size else content.slice(0, size, "archive")
            digest = part.sha256()
            if f"sha256:{digest}" in self._known:
                path = remnant.path or f"blobs/sha256/{digest}"
                return replace(_verified(remnant, "its digest"), path=path, size=size, content=part)
        return remnant

    def window(self, offset: int, size: int) -> Iterator[Remnant]:
        """What starts in one window; blocks that cannot be read are passed."""
        end = offset + size
        while offset < end:
            length = min(end - offset + _OVERLAP, self._end - offset)
            data = self._readable(offset, length)
            if len(data) < min(self._block, length):
                self._report(offset)
            step = min(end - offset, length if len(data) == length else max(len(data) // self._block, 1) * self._block)
            if data and data != (_ZEROS if len(data) == len(_ZEROS) else _ZEROS[: len(data)]):
                yield from self._look(offset, data, min(step, len(data)))
            offset += step

    def _readable(self, at: int, length: int) -> bytes:
        """Bytes, fewer in front of what cannot be read."""
        try:
            return self._source.read_some(at, length)
        except DamagedData:
            return b""

    def _report(self, offset: int) -> None:
        """Say that a block cannot be read, once for neighbouring ones."""
        try:
            self._source.read_at(offset, self._block)
        except DamagedData as error:
            if offset != self._bad:
                self._problems.add(self._source.origin.to("free space", offset), error)
            self._bad = offset + self._block

    def _look(self, offset: int, data: bytes, size: int) -> Iterator[Remnant]:
        self.seen = True
        self._reach.budget += size
        self._data, self._at = data, offset
        found = [(offset + at, list(self._starting(offset + at, start))) for at, start in self._starts(size)]
        found += [(run.start, [self._log(run)]) for run in self._runs.add(offset, data, size)]
        for _, remnants in sorted(found, key=lambda one: one[0]):
            yield from remnants

    # What starts with a block ---------------------------------------------------------------------------------------

    def _starts(self, size: int) -> Iterator[tuple[int, Start]]:
        """The places in the window where something starts that does not belong to what was found before."""
        for at, start in starts(self._data, size, self._block):
            if self._at + at >= self._taken:
                yield at, start

    def _starting(self, at: int, start: Start) -> Iterator[Remnant]:
        if start is not Start.TEXT:
            carved = file_at(start, self._reach, at)
            if carved is not None:
                self._taken = at + carved.size + -carved.size % self._block
                yield from self._file(at, carved)
                return
            if start is not Start.TAR:
                return
        head = self._bytes(at, 256)
        if head.startswith(LOG_HEADS):
            return
        if _KNOWN_START.match(head):
            yield from self._document(at, _LARGE)
        elif _KNOWN_TEXT.match(head) or (_TEXT.match(head) and self._is_start(at)):
            yield from self._document(at, _SMALL)

    def _bytes(self, at: int, length: int) -> bytes:
        """Bytes of the range, fewer in front of what cannot be read; from the window where they lie in it."""
        length = max(min(length, self._end - at), 0)
        first = at - self._at
        if first >= 0 and first + length <= len(self._data):
            return self._data[first : first + length]
        return self._readable(at, length)

    def _is_start(self, at: int) -> bool:
        """Whether the block before it ends with zeros, as the last one of a file does."""
        first = at - 1 - self._at
        byte = self._data[first : first + 1] if first >= 0 else b""
        try:
            byte = byte or (self._source.read_at(at - 1, 1) if at else b"\0")
        except DamagedData:
            return False
        return byte == b"\0"

    def _file(self, at: int, carved: Carved) -> Iterator[Remnant]:
        """An archive or database; layers are held back until it is known which digests are named."""
        remnant = self._remnant(carved.form, at, carved.size, carved.complete, carved.confidence)
        if carved.form.kind != "layer":
            yield remnant
            return
        if len(self._images) < _MAX_HELD:
            self._images.append((remnant, carved))
        else:
            yield remnant

    def _document(self, at: int, limit: int) -> Iterator[Remnant]:
        """A text that ends with its block, or a document that is cut."""
        data = self._until_zero(at, limit)
        padding = -len(data) % self._block
        behind = self._bytes(at + len(data), padding)
        whole = len(behind) == padding and not any(behind)
        whole = whole and (padding > 0 or data.endswith((b"}", b"}\n", b"]")))
        value = self._parsed(data) if data[:1] in (b"{", b"[") else None
        form = form_of(value, data) if value is not None else text_form(data)
        if form is None and value is None and _KNOWN_START.match(data):
            form, whole = _torn(data), False
        if form is None and whole and padding and _is_text(data):
            form = Form("file", detail="JSON" if value is not None else "text with zeros before and behind it")
            if value is None and len(data) > self._block:
                form = replace(form, detail="text; that its blocks belong together is told by their order only")
            if value is None and LOG_MARK in data:
                form, whole = replace(form, detail="the end of a log, or a text with records of one"), False
        if form is None:
            return
        if whole and len(data) > self._block and form.container_id and not _is_of_one(data, form.container_id):
            form, whole = replace(form, detail=f"{form.detail}; parts of it are of another container's record"), False
        if whole or value is not None:
            self._taken = at + len(data) + padding
        yield from self._found(self._remnant(form, at, len(data), whole))

    def _until_zero(self, at: int, limit: int) -> bytes:
        """The bytes up to the first zero, at most `limit`; large ones only as long as they are few."""
        first = at - self._at
        end = self._data.find(b"\0", first, first + _SMALL)
        if end >= 0:
            return self._data[first:end]
        data = self._bytes(at, _SMALL)
        if limit > _SMALL and self._reach.budget > limit:
            self._reach.budget -= limit
            data = self._bytes(at, limit)
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
        if remnant.kind in ("config", "record", "image") and remnant.content is not None:
            self._known.update(match.decode() for match in _REFERENCE.findall(remnant.read()))
        if remnant.kind == "image" and remnant.complete and len(self._images) < _MAX_HELD:
            self._images.append((remnant, None))
            return
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

    # Logs ----------------------------------------------------------------------------------------------------------

    def _log(self, run: Run) -> Remnant:
        """A run of records as a log, whole when it starts with a block and zeros follow it."""
        padding = -run.end % self._block
        tail = self._bytes(run.end, padding)
        starts_here = run.start % self._block == 0 and (run.start > self._start or self._is_start(run.start))
        whole = starts_here and padding > 0 and len(tail) == padding and not any(tail) and not run.doubt
        records = f"{run.count} record{'s' if run.count > 1 else ''} of a log of the driver {run.driver}"
        records += "; between two blocks there is a gap in time" if run.doubt else ""
        form = Form("log", detail=records, modified_ns=run.last_ns)
        return self._remnant(form, run.start, run.end - run.start, whole)

    def _remnant(
        self, form: Form, at: int, size: int, complete: bool, confidence: Confidence = Confidence.CARVED
    ) -> Remnant:
        content = self._source.slice(at, size, f"carved {form.path.rpartition('/')[2] or form.kind}")
        return Remnant(
            kind=form.kind,
            path=form.path,
            container_id=form.container_id,
            image_id=form.image_id,
            method=_METHOD,
            confidence=confidence,
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


def _torn(data: bytes) -> Form | None:
    """The record of a container of which only the beginning is left."""
    match = _TORN_ID.search(data)
    if match is None or not data.startswith(b'{"StreamConfig"'):
        return None
    container_id = match[1].decode()
    path = f"containers/{container_id}/config.v2.json"
    return Form("config", path, container_id, detail="the beginning of a container's record; the rest was overwritten")


def _is_of_one(data: bytes, container_id: str) -> bool:
    """Whether a container's record names no folder but its own, as blocks of two records would."""
    return all(match[1].decode() == container_id for match in _FOLDER.finditer(data))


def _is_text(data: bytes) -> bool:
    """Whether it is text; the end of a JSON document, behind a block that was written anew, is none by itself."""
    if not _TEXT.fullmatch(data) or (data.rstrip().endswith(b"}") and data[:1] not in (b"{", b"[")):
        return False
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _verified(remnant: Remnant, what: str) -> Remnant:
    detail = f"{remnant.detail}; {what} is named elsewhere"
    return replace(remnant, confidence=Confidence.VERIFIED, complete=True, detail=detail)
