"""The content of every file of the evidence; work on it is done once for each distinct content.

Every layer is read once, from its first byte to its last, so that files which later layers replace or delete, members
stored twice and members behind the end-of-archive marker are seen like all others.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Generic, TypeAlias, TypeVar

from forensics_lib.analysis.hashing import Meter
from forensics_lib.analysis.inventory import Inventory, TarStream
from forensics_lib.errors import DamagedData, ForensicsError, LimitExceeded
from forensics_lib.formats.tar import TarDecoder
from forensics_lib.formats.tar_entry import TarEntry
from forensics_lib.model import Origin, Progress
from forensics_lib.sources.decompress import Limits, decompress
from forensics_lib.sources.stream import BlockStream
from forensics_lib.trees.archive import clean_path, report_faults
from forensics_lib.trees.base import Node, NodeKind

if TYPE_CHECKING:
    import mmap

__all__ = ["IN_MEMORY", "Data", "Sighting", "contents"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

Data: TypeAlias = "bytes | mmap.mmap"
"""A whole content: bytes, or a read-only map of a temporary file where it is larger than what is kept in memory."""

IN_MEMORY = 64 << 20
"""Bytes of the largest content that is kept in memory."""

_BATCH_BYTES = 32 << 20
_BATCH_FILES = 512


@dataclass(frozen=True, slots=True)
class Sighting(Generic[T_co]):
    """One name in the evidence, and what the work found in its content.

    Attributes:
        owner: what it belongs to: a layer's digest, or the evidence's name for what lies beside the layers.
        path: its path there, as stored (a whiteout keeps its ``.wh.``).
        size: bytes of content that were handed to the work; 0 where there is none.
        sha256: of the content; None where there is none, or where only a part of it could be read.
        origin: where it is recorded.
        result: what the work returned; None for what has no content (folders, links, devices) or none to be read.
    """

    owner: str
    path: str
    size: int
    sha256: str | None
    origin: Origin
    result: T_co | None


def contents(
    inventory: Inventory,
    work: Callable[[Data, str], T],
    *,
    by_path: bool = False,
    threads: int | None = None,
    in_memory: int | None = None,
    progress: Progress | None = None,
) -> Iterator[Sighting[T]]:
    """Every name of the evidence with the result of the work on its content.

    What cannot be read becomes a problem and the rest goes on; the readable beginning of a damaged file is worked on.

    Args:
        inventory: what there is.
        work: gets a content and the first path it was seen at; its result is reused for the other paths. The content
            may be a map of a file that is gone when the work returns.
        by_path: the work depends on the path too and is done once for each content and path. A hard link keeps the
            result of the name it links to, because its content has passed when the link comes.
        threads: how many do the work; None for one for each core. Work that holds the interpreter gains nothing.
        in_memory: bytes of the largest content that is kept in memory, `IN_MEMORY` by default; larger ones go through
            a temporary file, at most as large as the limits allow for spooled layers.
        progress: told of stored bytes done and in total; files of folders are not counted.
    """
    known: dict[Hashable, T] = {}
    threads = threads or os.cpu_count() or 1
    reader = _Reader(inventory, by_path, IN_MEMORY if in_memory is None else in_memory, progress)
    with ExitStack() as stack:
        run: Callable[..., Iterator[T]] = map
        if threads > 1:
            from concurrent.futures import ThreadPoolExecutor

            run = stack.enter_context(ThreadPoolExecutor(threads, thread_name_prefix="forensics_lib contents")).map
        for batch in _batches(reader.read()):
            new = {one.key: one for one in reversed(batch) if one.data is not None and one.key not in known}
            results = run(work, [one.data for one in new.values()], [one.path for one in new.values()])
            known.update(zip(new, results, strict=True))
            for one in batch:
                one.release()
            for one in batch:
                yield Sighting(one.owner, one.path, one.size, one.sha256, one.origin, known.get(one.key))


@dataclass(slots=True)
class _Found:
    """A name and, until the work is done, its content. Equal keys have equal results; None has none."""

    owner: str
    path: str
    origin: Origin
    key: Hashable = None
    size: int = 0
    sha256: str | None = None
    data: Data | None = None

    def release(self) -> None:
        """Let go of the content."""
        if self.data is not None and not isinstance(self.data, bytes):
            self.data.close()
        self.data = None


def _batches(found: Iterable[_Found]) -> Iterator[list[_Found]]:
    """Runs that together hold little memory, so that threads have something to share."""
    batch: list[_Found] = []
    held = 0
    for one in found:
        batch.append(one)
        held += one.size if one.data is not None else 0
        if held >= _BATCH_BYTES or len(batch) >= _BATCH_FILES:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


class _Reader:
    """Reads all streams, blobs and trees of an inventory, one after the other."""

    def __init__(self, inventory: Inventory, by_path: bool, in_memory: int, progress: Progress | None) -> None:
        self._inventory = inventory
        self._problems = inventory.problems
        self._by_path = by_path
        self._in_memory = in_memory
        total = sum(job.stored.size for job in inventory.streams) + sum(node.size for node in inventory.blobs)
        self._meter = Meter(progress, total)

    def read(self) -> Iterator[_Found]:
        for job in self._inventory.streams:
            yield from self._archive(job)
        for node in self._inventory.blobs:
            yield self._file(self._inventory.name, node, self._meter.tick, node.path.lstrip("/"))
        for owner, tree in self._inventory.trees:
            for node in tree.walk():
                if node.kind is NodeKind.FILE:
                    yield self._file(owner, node, None, node.path)
                else:
                    yield _Found(owner, node.path, node.origin)
        for origin, error in self._inventory.unreadable:
            self._problems.add(origin, error)

    def _archive(self, job: TarStream) -> Iterator[_Found]:
        """The members of one archive, as far as it can be read."""
        place = job.inside

        def report(error: ForensicsError) -> None:
            self._problems.add(place, error)

        stored = _counted(job.stored.blocks(), self._meter.tick)
        stream = BlockStream(decompress(stored, job.compression, place, job.limits, report))
        decoder = TarDecoder(stream, origin=place, max_entries=job.limits.entries)
        seen: dict[str, _Found] = {}
        members = iter(decoder)
        while True:
            try:
                entry = next(members, None)
                if entry is None:
                    for _ in stream.chunks(1 << 62):
                        pass  # damage behind the last member
                    break
            except ForensicsError as error:
                report(error)
                break
            if entry.typeflag == "g":
                continue  # records for the members that follow; it has no name of its own
            yield self._member(job, place, entry, stream, seen)
        report_faults(decoder, place, self._problems)

    def _member(
        self, job: TarStream, place: Origin, entry: TarEntry, stream: BlockStream, seen: dict[str, _Found]
    ) -> _Found:
        found = _Found(job.owner, clean_path(entry.name)[0], place.to("tar header", entry.header_offset))
        if entry.is_file or entry.stored_size:  # whatever it claims to be: stored bytes are looked at
            self._fill(found, entry.size, lambda: entry.chunks(stream), job.limits)
            if found.sha256 is not None:
                seen[found.path] = _Found("", "", found.origin, found.key, found.size, found.sha256)
        elif entry.typeflag == "1":
            target = seen.get(clean_path(entry.linkname)[0])  # else it is a file of a lower layer, seen there
            if target is not None:
                found.key, found.size, found.sha256 = target.key, target.size, target.sha256
                seen[found.path] = target
        return found

    def _file(self, owner: str, node: Node, tick: Callable[[int], None] | None, path: str) -> _Found:
        found = _Found(owner, path, node.origin)
        self._fill(found, node.size, lambda: _counted(node.source().blocks(), tick), Limits())
        return found

    def _fill(
        self, found: _Found, size: int, chunks: Callable[[], Iterator[bytes | memoryview]], limits: Limits
    ) -> None:
        """Read the content, and report what of it cannot be read."""
        if size > max(self._in_memory, limits.spool):
            message = f"{found.path}: its {size} bytes are more than the limit of {limits.spool}; not examined"
            self._problems.add(found.origin, LimitExceeded(message, origin=found.origin))
            return
        content = _Content(self._in_memory)
        try:
            for chunk in chunks():
                content.add(chunk)
        except ForensicsError as error:
            message = f"{found.path}: {error}; the {content.size} bytes before that were examined"
            self._problems.add(found.origin, DamagedData(message, origin=found.origin))
            found.key = object()  # a part is like no other content
        else:
            found.sha256 = content.sha256.hexdigest()
            found.key = (found.sha256, found.path) if self._by_path else found.sha256
        if content.size or found.sha256 is not None:
            found.size = content.size
            found.data = content.data()


class _Content:
    """Collects a content, in memory as long as it is small."""

    def __init__(self, in_memory: int) -> None:
        self.size = 0
        self.sha256 = hashlib.sha256(usedforsecurity=False)
        self._in_memory = in_memory
        self._parts: list[bytes] = []
        self._file: IO[bytes] | None = None

    def add(self, chunk: bytes | memoryview) -> None:
        self.sha256.update(chunk)
        self.size += len(chunk)
        if self._file is None and self.size > self._in_memory:
            import tempfile

            self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed once it is mapped
            self._file.writelines(self._parts)
            self._parts.clear()
        if self._file is None:
            self._parts.append(bytes(chunk))
        elif chunk == _ZEROS[: len(chunk)]:
            self._file.seek(len(chunk), os.SEEK_CUR)  # holes of sparse files take up no space
        else:
            self._file.write(chunk)

    def data(self) -> Data:
        """The content; to be asked for once."""
        if self._file is None:
            return b"".join(self._parts)
        import mmap

        with self._file as file:
            file.truncate(self.size)
            file.flush()
            return mmap.mmap(file.fileno(), self.size, access=mmap.ACCESS_READ)


_ZEROS = bytes(256 << 10)


def _counted(blocks: Iterator[bytes], tick: Callable[[int], None] | None) -> Iterator[bytes]:
    """The same blocks; their bytes are counted."""
    for block in blocks:
        if tick is not None:
            tick(len(block))
        yield block
