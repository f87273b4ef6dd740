"""One pass over one archive: digests of its stored bytes, of its uncompressed bytes and of every file in it.

This is the work that is handed to executors, so everything that goes in and comes out can be pickled.
"""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from forensics_lib.analysis.inventory import TarStream
from forensics_lib.errors import ForensicsError, LimitExceeded
from forensics_lib.formats.tar import TarDecoder
from forensics_lib.model import ArtifactHash, Origin
from forensics_lib.sources.base import Source
from forensics_lib.sources.decompress import Compression, Limits, decompress
from forensics_lib.sources.stream import BlockStream
from forensics_lib.trees.archive import clean_path

__all__ = ["StreamDigests", "digest_source", "digest_stream", "hashers"]

_INLINE = 16 << 10
"""Files up to this size are hashed in one call; the calls' own cost outweighs the copy."""

Tick = Callable[[int], None]


class Hasher(Protocol):
    """A running digest of hashlib."""

    def update(self, data: bytes | memoryview, /) -> None: ...
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
        files: a row for every regular file and every hard link to one.
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
    files: list[ArtifactHash] = field(default_factory=list)

    @property
    def diff_id(self) -> str | None:
        """What names a layer by its uncompressed bytes; None when they could not all be decoded."""
        return f"sha256:{self.uncompressed['sha256']}" if self.uncompressed else None


def hashers(algorithms: Sequence[str]) -> list[Callable[..., Hasher]]:
    """A constructor for each algorithm.

    Raises:
        ValueError: hashlib does not know one of them.
    """
    found: list[Callable[..., Hasher]] = []
    for name in algorithms:
        if name not in hashlib.algorithms_available or name.startswith("shake"):
            raise ValueError(f"unknown digest algorithm {name!r}")
        constructor = getattr(hashlib, name, None) or partial(hashlib.new, name)
        found.append(partial(constructor, usedforsecurity=False))
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
    try:
        if algorithms:
            result.files = _digest_files(job, decoder, stream, algorithms, result.errors)
        else:
            for _ in decoder:
                pass
        for _ in stream.chunks(1 << 62):
            pass
        if job.is_layer:
            result.uncompressed = _by_name(layer_algorithms, uncompressed.hashers)
    except _Interrupted as error:
        result.errors.append(error.reason)
        result.files = error.files
    except ForensicsError as error:
        result.errors.append(error)
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


class _Interrupted(Exception):
    """Carries the files that were hashed before an archive turned out to be damaged."""

    def __init__(self, reason: ForensicsError, files: list[ArtifactHash]) -> None:
        super().__init__(str(reason))
        self.reason = reason
        self.files = files


def _digest_files(
    job: TarStream,
    decoder: TarDecoder,
    stream: BlockStream,
    algorithms: Sequence[str],
    problems: list[ForensicsError],
) -> list[ArtifactHash]:
    constructors = hashers(algorithms)
    here = job.origin if job.compression is Compression.NONE else job.origin.to(job.compression)
    make = _row_maker(job.owner, here, algorithms)
    rows: list[ArtifactHash] = []
    by_path: dict[str, ArtifactHash] = {}
    try:
        for entry in decoder:
            if entry.is_file or (entry.stored_size and entry.typeflag not in "gVMN"):
                path = clean_path(entry.name)[0]
                if entry.sparse is not None and _is_bomb(entry.size, entry.stored_size, job.limits):
                    message = f"{path}: {entry.stored_size} bytes stand for {entry.size}; the holes are not hashed"
                    problems.append(LimitExceeded(message, origin=here, offset=entry.header_offset))
                    continue
                if entry.stored_size <= _INLINE and entry.sparse is None:
                    data = stream.read(entry.stored_size)
                    if len(data) < entry.stored_size:
                        continue  # cut off; the decoder reports it
                    digests = [new(data).hexdigest() for new in constructors]
                else:
                    running = [new() for new in constructors]
                    for chunk in entry.chunks(stream):
                        for one in running:
                            one.update(chunk)
                    digests = [one.hexdigest() for one in running]
                row = make(path, entry.size, digests, entry.header_offset)
            elif entry.typeflag == "1":
                target = by_path.get(clean_path(entry.linkname)[0])
                if target is None:
                    continue  # its content is a file of a lower layer, which has a row there
                path = clean_path(entry.name)[0]
                row = ArtifactHash(
                    target.owner, path, "file", target.size, target.md5, target.sha1, target.sha256,
                    Origin("tar header", here, entry.header_offset), target.others,
                )  # fmt: skip
            else:
                continue
            by_path[path] = row
            rows.append(row)
    except ForensicsError as error:
        raise _Interrupted(error, rows) from error
    return rows


def _is_bomb(size: int, stored: int, limits: Limits) -> bool:
    """Whether a sparse file would take far longer to hash than its bytes are worth."""
    return size > limits.ratio_from and size > limits.ratio * max(stored, 1 << 20)


def _row_maker(
    owner: str, origin: Origin, algorithms: Sequence[str]
) -> Callable[[str, int, list[str], int], ArtifactHash]:
    """A function that makes rows without asking for each which algorithm stands where."""
    if tuple(algorithms) == ("md5", "sha1", "sha256"):

        def plain(path: str, size: int, digests: list[str], offset: int) -> ArtifactHash:
            md5, sha1, sha256 = digests
            return ArtifactHash(owner, path, "file", size, md5, sha1, sha256, Origin("tar header", origin, offset))

        return plain

    def general(path: str, size: int, digests: list[str], offset: int) -> ArtifactHash:
        values = dict(zip(algorithms, digests, strict=True))
        return artifact_hash(owner, path, "file", size, values, Origin("tar header", origin, offset))

    return general


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
