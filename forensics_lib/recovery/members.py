"""The files in recovered archives: layers of removed images, and whatever else was packed with tar."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice

from forensics_lib.errors import ForensicsError
from forensics_lib.formats.tar import TarDecoder
from forensics_lib.formats.tar_entry import TarEntry
from forensics_lib.model import ProblemLog
from forensics_lib.recovery.remnant import Confidence, Remnant
from forensics_lib.sources.base import Source
from forensics_lib.sources.decompress import Compression, Limits, sniff
from forensics_lib.sources.spool import SpoolSource
from forensics_lib.sources.stream import BlockStream, SourceStream

__all__ = ["archive_members"]

_LEAST = 512
_MAX_ARCHIVES = 10_000
_MAX_MEMBERS = 100_000
_MAX_IN_ALL = 1_000_000
_MAX_UNPACKED = 64 << 30
_LIMITS = Limits(ratio_from=64 << 20, total=8 << 30, spool=2 << 30)
_MAGIC = b"ustar"


def archive_members(remnants: Iterable[Remnant], problems: ProblemLog) -> Iterator[Remnant]:
    """The regular files in every recovered tar archive, compressed or not; of equal archives those of one.

    A member is as sure and as complete as its archive. Its path is that in the archive.

    Args:
        remnants: what was found.
        problems: gets archives that are damaged, and those of which not all members are listed.
    """
    seen: set[str] = set()
    left, bytes_left = _MAX_IN_ALL, _MAX_UNPACKED
    archives = ((remnant, found) for remnant in remnants if (found := _unpacked(remnant)) is not None)
    for remnant, (source, stream) in islice(archives, _MAX_ARCHIVES):
        digest = remnant.sha256 if remnant.complete else None
        if digest in seen:
            continue
        seen.update([digest] if digest is not None else [])
        count = 0
        try:
            decoder = TarDecoder(stream, source=source, origin=remnant.origin)
            for entry in decoder:
                if not entry.is_file:
                    continue
                if count >= min(_MAX_MEMBERS, left) or stream.position > bytes_left:
                    problems.add(remnant.origin, f"the archive has more files; {count} are listed as remnants")
                    break
                count += 1
                yield _member(remnant, entry)
        except ForensicsError as error:
            if remnant.complete:  # of others it is known that something is missing
                problems.add(remnant.origin, error)
        left -= count
        bytes_left -= stream.position if isinstance(stream, BlockStream) else 0


def _unpacked(remnant: Remnant) -> tuple[Source, SourceStream | BlockStream] | None:
    """The bytes of an archive: for reading a member at any time, and for one pass over all."""
    source = remnant.content
    if source is None or (remnant.size or 0) < _LEAST // 4:
        return None
    try:
        head = source.read_some(0, _LEAST)
        if head[257:262] == _MAGIC:
            return source, SourceStream(source)
        compression = sniff(head[:16])
        if compression is Compression.NONE:
            return None
        spool = SpoolSource(source, compression, remnant.origin, _LIMITS)
        first = next(iter(spool.stream()), b"")
        return (spool, BlockStream(spool.stream())) if first[257:262] == _MAGIC else None
    except ForensicsError:  # whatever is wrong with it is told where it was found
        return None


def _member(archive: Remnant, entry: TarEntry) -> Remnant:
    """A file of an archive."""
    name = archive.path or archive.detail.partition(";")[0]
    return replace(
        archive,
        kind="file",
        path=entry.name.removeprefix("./").lstrip("/"),
        method=f"{archive.method} > tar",
        confidence=archive.confidence if entry.size else Confidence.METADATA_ONLY,
        size=entry.size,
        origin=entry.origin,
        detail=f"in the archive {name}" if name else "in an archive",
        modified_ns=entry.mtime_ns,
        content=entry.content() if entry.size else None,
        complete=archive.complete and bool(entry.size),
    )
