"""One pass over one archive: digests of its stored bytes, of its uncompressed bytes and of every file in it.

This is the work that is handed to executors, so everything that goes in and comes out can be pickled.
"""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from forensics_lib._frozen import maker
from forensics_lib.analysis.inventory import TarStream
from forensics_lib.errors import ForensicsError, LimitExceeded
from forensics_lib.formats.tar import TarDecoder
from forensics_lib.formats.tar_entry import TarEntry
from forensics_lib.model import ArtifactHash, Origin, make_origin
from forensics_lib.sources.base import Source
from forensics_lib.sources.decompress import Limits, decompress
from forensics_lib.sources.stream import BlockStream
from forensics_lib.trees.archive import clean_path

__all__ = ["FILE_ALGORITHMS", "StreamDigests", "artifact_hash", "digest_source", "digest_stream", "hashers", "rows"]

FILE_ALGORITHMS = ("md5", "sha1", "sha256")
"""What files get unless others are asked for."""

_row = maker(ArtifactHash)
Tick = Callable[[int], None]
FileDigests = tuple[str, int, int, *tuple[bytes, ...]]
"""A file's name, its size, where its header lies, and its digests: less than a row, as there are millions."""


class Hasher(Protocol):
    """A running digest of hashlib."""

    def update(self, data: bytes | memoryview, /) -> None: ...
    def digest(self) -> bytes: ...
    def hexdigest(self) -> str: ...


@dataclass(slots=True)
class StreamDigests:
    """What one pass over an archive found.

    Attributes:
        stored: digest of the stored bytes by algorithm.
        stored_size: their number.
        uncompressed: digest of the uncompressed bytes by algorithm; empty when they could not all be decoded.
        size: number of uncompressed bytes.
        ended: whether the archive has its end marker.
        trailing: bytes after it that are neither zero nor an archive.
        after_end: members of a further archive after it, where extracting tools do not look.
        faults: (offset, what) of damage that belongs to no member.
        errors: what ended the decoding early, and bytes that no decoder wanted.
        files: every regular file and every hard link to one; `rows` makes rows of them.
    """

    stored: dict[str, str] = field(default_factory=dict)
    stored_size: int = 0
    uncompressed: dict[str, str] = field(default_factory=dict)
    size: int = 0
    ended: bool = False
    trailing: int = 0
    after_end: int = 0
    faults: list[tuple[int, str]] = field(default_factory=list)
    errors: list[ForensicsError] = field(default_factory=list)
    files: list[FileDigests] = field(default_factory=list)

    @property
    def diff_id(self) -> str | None:
        """What names a layer by its uncompressed bytes; None when they could not all be decoded."""
        return f"sha256:{self.uncompressed['sha256']}" if self.uncompressed else None


def hashers(algorithms: Sequence[str]) -> list[Callable[[], Hasher]]:
    """What starts a digest, for each algorithm. It copies one that was set up once: to set one up takes twice as long.

    Raises:
        ValueError: hashlib does not know one of them.
    """
    found: list[Callable[[], Hasher]] = []
    for name in algorithms:
        if name not in hashlib.algorithms_available or name.startswith("shake"):
            raise ValueError(f"unknown digest algorithm {name!r}")
        found.append(hashlib.new(name, usedforsecurity=False).copy)
    return found


def digest_source(source: Source, algorithms: Sequence[str], tick: Tick | None = None) -> tuple[dict[str, str], int]:
    """Digests of all bytes of a source, and their number.

    Raises:
        ForensicsError: they cannot all be read.
    """
    running = [new() for new in hashers(algorithms)]
    size = 0
    for block in source.blocks():
        size += len(block)
        for one in running:
            one.update(block)
        if tick is not None:
            tick(len(block))
    return _by_name(algorithms, running), size


def digest_stream(
    job: TarStream,
    algorithms: Sequence[str] = (),
    stored_algorithms: Sequence[str] = ("sha256",),
    layer_algorithms: Sequence[str] = ("sha256",),
    *,
    ahead: bool = False,
    tick: Tick | None = None,
) -> StreamDigests:
    """Read an archive once and hash what is asked for.

    Args:
        job: the archive.
        algorithms: for each file; none of them skips the files.
        stored_algorithms: for the stored bytes.
        layer_algorithms: for the uncompressed bytes of a layer; sha256 must be among them.
        ahead: decode in a thread of its own, so that one large archive keeps two cores busy.
        tick: told of each block of stored bytes.
    """
    result = StreamDigests()
    stored = _Tee(job.stored.blocks(), [new() for new in hashers(stored_algorithms)], tick)
    decoded = decompress(stored, job.compression, job.origin, job.limits, result.errors.append)
    uncompressed = _Tee(decoded, [new() for new in hashers(layer_algorithms)] if job.is_layer else [], None)
    blocks: Iterator[bytes] = iter(uncompressed)
    stream = BlockStream(_read_ahead(blocks) if ahead else blocks)
    decoder = TarDecoder(stream, origin=job.origin, max_entries=job.limits.entries)
    files = _Files(algorithms)
    try:
        if algorithms:
            _digest_files(job, decoder, stream, files, result.errors)
        else:
            for _ in decoder:
                pass
        for _ in stream.chunks(1 << 62):
            pass
        if job.is_layer:
            result.uncompressed = _by_name(layer_algorithms, uncompressed.hashers)
    except ForensicsError as error:
        result.errors.append(error)
    result.files = files.all()
    try:
        for _ in stored:
            pass  # what the decoder left, so that the digest of the stored bytes covers all of them
        result.stored = _by_name(stored_algorithms, stored.hashers)
    except ForensicsError as error:
        result.errors.append(error)
    result.stored_size = stored.size
    result.size = uncompressed.size
    result.ended, result.trailing, result.faults = decoder.ended, decoder.trailing, decoder.faults
    result.after_end = decoder.after_end
    return result


def _by_name(algorithms: Sequence[str], running: Sequence[Hasher]) -> dict[str, str]:
    return {name: one.hexdigest() for name, one in zip(algorithms, running, strict=True)}


def _digest_files(
    job: TarStream, decoder: TarDecoder, stream: BlockStream, files: _Files, problems: list[ForensicsError]
) -> None:
    for entry in decoder:
        size = entry.stored_size
        if entry.is_file or (size and entry.typeflag not in "gVMN"):
            if entry.sparse is None:
                content = stream.view(size)
                if content is not None:
                    files.put_off(entry, content)
                    continue
            elif _is_bomb(entry.size, size, job.limits):
                message = f"{clean_path(entry.name)[0]}: {size} bytes stand for {entry.size}; the holes are not hashed"
                problems.append(LimitExceeded(message, origin=job.inside, offset=entry.header_offset))
                continue
            files.add(entry, entry.chunks(stream))
        elif entry.typeflag == "1":
            files.link(entry)


class _Files:
    """The files of one archive, hashed.

    Files that are at hand as a whole are hashed together, some at a time: to decode headers and to hash by turns would
    drive each out of the processor's caches before the other.
    """

    def __init__(self, algorithms: Sequence[str]) -> None:
        self._start = hashers(algorithms)
        self._found: list[FileDigests] = []
        self._held: list[tuple[TarEntry, memoryview]] = []
        self._block: object = None
        self._by_path: dict[str, FileDigests] = {}
        self._indexed = 0

    def put_off(self, entry: TarEntry, content: memoryview) -> None:
        """Hash a file soon."""
        if content.obj is not self._block:
            self._flush()
            self._block = content.obj
        self._held.append((entry, content))

    def add(self, entry: TarEntry, chunks: Iterable[bytes | memoryview]) -> None:
        """Hash a file that arrives in pieces."""
        self._flush()
        running = [start() for start in self._start]
        for chunk in chunks:
            for one in running:
                one.update(chunk)
        self._found.append((entry.name, entry.size, entry.header_offset, *[one.digest() for one in running]))

    def link(self, entry: TarEntry) -> None:
        """Another name of a file of this archive; what else it may name is a file of a lower layer, found there."""
        self._flush()
        for found in self._found[self._indexed :]:
            self._by_path[clean_path(found[0])[0]] = found
        self._indexed = len(self._found)
        target = self._by_path.get(clean_path(entry.linkname)[0])
        if target is not None:
            self._found.append((entry.name, target[1], entry.header_offset, *target[3:]))

    def all(self) -> list[FileDigests]:
        """What was found, in the order of the archive."""
        self._flush()
        return self._found

    def _flush(self) -> None:
        held, self._held = self._held, []
        for entry, content in held:
            digests = []
            for start in self._start:
                running = start()
                running.update(content)
                digests.append(running.digest())
            self._found.append((entry.name, entry.size, entry.header_offset, *digests))


def _is_bomb(size: int, stored: int, limits: Limits) -> bool:
    """Whether a sparse file would take far longer to hash than its bytes are worth."""
    return size > limits.ratio_from and size > limits.ratio * max(stored, 1 << 20)


def rows(job: TarStream, files: Iterable[FileDigests], algorithms: Sequence[str]) -> Iterator[ArtifactHash]:
    """A row for each file of an archive."""
    inside, owner = job.inside, job.owner
    usual = tuple(algorithms) == FILE_ALGORITHMS
    for name, size, offset, *digests in files:
        origin = make_origin("tar header", inside, offset)
        path = clean_path(name)[0]
        texts = [digest.hex() for digest in digests]
        if usual:
            yield _row(owner, path, "file", size, texts[0], texts[1], texts[2], origin)
        else:
            yield artifact_hash(owner, path, "file", size, dict(zip(algorithms, texts, strict=True)), origin)


def artifact_hash(owner: str, path: str, kind: str, size: int, digests: dict[str, str], origin: Origin) -> ArtifactHash:
    """A row from digests by algorithm."""
    others = tuple((name, value) for name, value in digests.items() if name not in ("md5", "sha1", "sha256"))
    return ArtifactHash(
        owner, path, kind, size, digests.get("md5"), digests.get("sha1"), digests.get("sha256"), origin, others
    )


class _Tee:
    """Passes blocks on and hashes them on the way; can be iterated on after an interruption."""

    def __init__(self, blocks: Iterable[bytes], hashers: list[Hasher], tick: Tick | None) -> None:
        self._blocks = iter(blocks)
        self._tick = tick
        self.hashers = hashers
        self.size = 0

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        block = next(self._blocks)
        self.size += len(block)
        for one in self.hashers:
            one.update(block)
        if self._tick is not None:
            self._tick(len(block))
        return block


def _read_ahead(blocks: Iterator[bytes], depth: int = 8) -> Iterator[bytes]:
    """The same blocks, produced in a thread up to `depth` blocks ahead."""
    ready: queue.Queue[bytes | BaseException | None] = queue.Queue(depth)
    stop = threading.Event()

    def put(item: bytes | BaseException | None) -> None:
        while not stop.is_set():
            try:
                ready.put(item, timeout=0.2)
                return
            except queue.Full:
                continue

    def produce() -> None:
        try:
            for block in blocks:
                put(block)
                if stop.is_set():
                    return
            put(None)
        except BaseException as error:
            put(error)

    thread = threading.Thread(target=produce, name="forensics_lib read-ahead", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        thread.join()
