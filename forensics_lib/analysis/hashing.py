"""Digests of every artifact of the evidence, in one pass over it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from forensics_lib.analysis.digests import (
    FILE_ALGORITHMS,
    StreamDigests,
    artifact_hash,
    digest_source,
    digest_stream,
    rows,
)
from forensics_lib.analysis.inventory import Inventory, TarStream
from forensics_lib.errors import DamagedData, EvidenceChanged, ForensicsError
from forensics_lib.model import ArtifactHash, Origin, Progress
from forensics_lib.sources.file import FolderFile
from forensics_lib.trees.base import Node, NodeKind

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future

__all__ = ["FILE_ALGORITHMS", "KINDS", "Meter", "digest_streams", "hash_artifacts", "is_unchanged", "report_stream"]

KINDS = ("evidence", "media", "blob", "layer", "file")
_STORED = ("sha256",)
_WORTH_PROCESSES = 32 << 20
"""Stored bytes from which on starting processes costs less than it saves."""


class Meter:
    """Adds up progress from several threads and tells the caller."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        """Tell `progress` of done and `total` bytes."""
        self._progress = progress
        self._total = total
        self._done = 0
        self._lock = threading.Lock()

    @property
    def tick(self) -> Callable[[int], None] | None:
        """To be called with bytes done; None when nobody wants to know."""
        return None if self._progress is None else self.add

    def add(self, count: int) -> None:
        """Count bytes."""
        if self._progress is not None:
            with self._lock:
                self._done = min(self._total, self._done + count)
                self._progress(self._done, self._total)


def hash_artifacts(
    inventory: Inventory,
    algorithms: Sequence[str] | None,
    kinds: Collection[str] | None,
    executor: Executor | None,
    progress: Progress | None,
    keep: Callable[[TarStream, StreamDigests], None],
) -> Iterator[ArtifactHash]:
    """Rows for every artifact, archive after archive as they are finished.

    Args:
        inventory: what there is.
        algorithms: for files; None for `FILE_ALGORITHMS`. Other artifacts get sha256, and those named here too when
            `kinds` names their kind.
        kinds: which of `KINDS`; None for all.
        executor: does the work; None uses all cores.
        progress: told of bytes done and in total.
        keep: told of each archive's own digests, so that verification need not read it again.
    """
    from concurrent.futures import ThreadPoolExecutor

    wanted = frozenset(KINDS if kinds is None else kinds)
    if unknown := wanted.difference(KINDS):
        raise ValueError(f"unknown kinds of artifact: {', '.join(sorted(unknown))}; known are {', '.join(KINDS)}")
    thorough = _STORED if kinds is None else tuple(dict.fromkeys((*_STORED, *(algorithms or ()))))
    algorithms = FILE_ALGORITHMS if algorithms is None else tuple(algorithms)
    streams = [s for s in inventory.streams if wanted & {s.kind, "file", *(["layer"] if s.is_layer else [])}]
    blobs = inventory.blobs if "blob" in wanted else ()
    media = inventory.media if "media" in wanted else ()
    evidence = [one for one in inventory.evidence if "evidence" in wanted or one in media]
    total = sum(s.stored.size for s in streams) + sum(node.size for node in blobs)
    single = {id(source): source.size for source in (*evidence, *media)}
    meter = Meter(progress, total + sum(single.values()))
    for node in blobs:
        yield from _hash_whole(inventory, _digester(node, thorough, meter), node.path, "blob", node.origin)
    beside = ThreadPoolExecutor(1, thread_name_prefix="forensics_lib evidence")
    wholes = [(one, beside.submit(digest_source, one, thorough, meter.tick)) for one in evidence]
    beside.shutdown(wait=False)
    file_algorithms = algorithms if "file" in wanted else ()
    stored = thorough if wanted & {s.kind for s in streams} else _STORED
    layer = thorough if "layer" in wanted else _STORED
    for job, digests in digest_streams(streams, file_algorithms, executor, meter, stored, layer):
        keep(job, digests)
        report_stream(job, digests, inventory)
        if job.kind in wanted and digests.stored:
            owner = inventory.name
            yield artifact_hash(owner, job.path, job.kind, digests.stored_size, digests.stored, job.origin)
        if "layer" in wanted and digests.uncompressed:
            place = job.origin.to(job.compression)
            yield artifact_hash(job.owner, job.path, "layer", digests.size, digests.uncompressed, place)
        yield from rows(job, digests.files, file_algorithms)
    if "file" in wanted:
        for owner, tree in inventory.trees:
            for node in tree.walk():
                if node.kind is NodeKind.FILE:
                    yield from _hash_node(inventory, owner, node, algorithms)
    for one, whole in wholes:
        for kind in ("evidence", "media") if one in media else ("evidence",):
            if kind in wanted:
                yield from _hash_whole(inventory, whole.result, one.origin.label, kind, one.origin)
    for one, disk in zip(inventory.evidence, media, strict=False):
        if disk is not one:
            compute = partial(digest_source, disk, thorough, meter.tick)
            yield from _hash_whole(inventory, compute, one.origin.label, "media", disk.origin)
    for origin, error in inventory.unreadable:
        inventory.problems.add(origin, error)


def digest_streams(
    streams: Sequence[TarStream],
    algorithms: Sequence[str],
    executor: Executor | None,
    meter: Meter,
    stored_algorithms: Sequence[str] = _STORED,
    layer_algorithms: Sequence[str] = _STORED,
) -> Iterator[tuple[TarStream, StreamDigests]]:
    """Run `digest_stream` over archives, the largest first, and hand out each as it is finished.

    Without an executor it uses all cores: processes where there is work enough for several, else threads.
    """
    jobs = sorted(streams, key=lambda job: -job.stored.size)
    wanted = (algorithms, stored_algorithms, layer_algorithms)
    if executor is not None:
        futures = {executor.submit(digest_stream, job, *wanted): job for job in jobs}
        for future in _completed(futures):
            meter.add(futures[future].stored.size)
            yield futures.pop(future), future.result()
        return
    from concurrent.futures import ThreadPoolExecutor

    from forensics_lib.analysis.workers import Seats, can_move

    cores = os.cpu_count() or 1
    movable = [job.stored.size for job in jobs if can_move(job.stored)]
    many = len(jobs) == len(movable) >= cores > 1 and sum(movable) >= _WORTH_PROCESSES
    with Seats(cores if many else 1) as seats, ThreadPoolExecutor(cores, thread_name_prefix="forensics_lib") as pool:
        if many:
            futures = {pool.submit(seats.run, job, wanted, meter.tick): job for job in jobs}
        else:
            ahead = len(jobs) < cores
            futures = {pool.submit(digest_stream, job, *wanted, ahead=ahead, tick=meter.tick): job for job in jobs}
        try:
            for future in _completed(futures):
                yield futures.pop(future), future.result()
        finally:
            for future in futures:
                future.cancel()


def _completed(futures: dict[Future[StreamDigests], TarStream]) -> Iterator[Future[StreamDigests]]:
    """Futures as they finish; executors of other libraries may not work with `as_completed`."""
    from concurrent.futures import as_completed

    try:
        yield from as_completed(list(futures))
    except AttributeError:
        yield from list(futures)


def is_unchanged(job: TarStream, inventory: Inventory) -> bool:
    """Whether an archive in a folder is still the file that was there at first; a problem tells when it is not."""
    if isinstance(job.stored, FolderFile):
        try:
            job.stored.check_unchanged()
        except EvidenceChanged as error:
            inventory.problems.add(job.origin, error)
            return False
    return True


def report_stream(job: TarStream, digests: StreamDigests, inventory: Inventory) -> None:
    """Turn what a pass found wrong into problems."""
    is_unchanged(job, inventory)
    for error in digests.errors:
        inventory.problems.add(job.origin, error)
    for offset, fault in digests.faults:
        inventory.problems.add(job.origin, DamagedData(fault, origin=job.origin, offset=offset))
    if digests.after_end:
        inventory.problems.add(job.origin, f"{digests.after_end} members lie after the end-of-archive marker")
    if digests.trailing:
        message = f"{digests.trailing} bytes that are no archive follow the end-of-archive marker"
        inventory.problems.add(job.origin, message)


def _digester(node: Node, algorithms: Sequence[str], meter: Meter) -> Callable[[], tuple[dict[str, str], int]]:
    return lambda: digest_source(node.source(), algorithms, meter.tick)


def _hash_whole(
    inventory: Inventory, compute: Callable[[], tuple[dict[str, str], int]], path: str, kind: str, origin: Origin
) -> Iterator[ArtifactHash]:
    try:
        digests, size = compute()
    except ForensicsError as error:
        inventory.problems.add(origin, error)
        return
    yield artifact_hash(inventory.name, path.lstrip("/"), kind, size, digests, origin)


def _hash_node(inventory: Inventory, owner: str, node: Node, algorithms: Sequence[str]) -> Iterator[ArtifactHash]:
    try:
        digests, size = digest_source(node.source(), algorithms)
    except ForensicsError as error:
        inventory.problems.add(node.origin, error)
        return
    yield artifact_hash(owner, node.path, "file", size, digests, node.origin)
