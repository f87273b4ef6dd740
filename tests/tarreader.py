"""What the decoder makes of an archive, in the two ways it reads: by position and as one stream."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from forensics_lib.errors import ForensicsError
from forensics_lib.formats.tar import TarDecoder
from forensics_lib.formats.tar_entry import TarEntry
from forensics_lib.model import Origin
from forensics_lib.sources.base import BytesSource
from forensics_lib.sources.stream import BlockStream, SourceStream

__all__ = ["Reading", "Seen", "by_position", "entries", "gnu_tar", "in_blocks", "one", "streamed", "tool"]

LARGEST = 1 << 20
ORIGIN = Origin("test.tar")


@dataclass(frozen=True, slots=True)
class Seen:
    """Everything that is known of one member."""

    name: str
    typeflag: str
    size: int
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    linkname: str
    uname: str
    gname: str
    times: tuple[int | None, int | None, int | None]
    rdev: tuple[int, int]
    xattrs: tuple[tuple[str, bytes], ...]
    pax: tuple[tuple[bytes, bytes], ...]
    header: bytes
    offsets: tuple[int, int, int, int]
    sparse: tuple[tuple[int, int], ...] | None
    anomalies: tuple[str, ...]
    content: bytes | None


@dataclass(frozen=True, slots=True)
class Reading:
    """A whole archive as it was read."""

    members: tuple[Seen, ...]
    faults: tuple[tuple[int, str], ...]
    ended: bool
    recognised: bool
    trailing: int

    @property
    def names(self) -> list[str]:
        return [member.name for member in self.members]


def by_position(data: bytes) -> Reading:
    """Read with positional reads; content is opened after everything was listed."""
    source = BytesSource(data, ORIGIN)
    decoder = TarDecoder(SourceStream(source), source=source)
    found = list(decoder)
    return _reading(decoder, found, [_content(entry) for entry in found])


def streamed(data: bytes, step: int = 700) -> Reading:
    """Read as blocks of `step` bytes come along, each member's content as it passes."""
    stream = BlockStream(in_blocks(data, step))
    decoder = TarDecoder(stream)
    found, contents = [], []
    for entry in decoder:
        found.append(entry)
        wanted = entry.size <= LARGEST and entry.is_file
        contents.append(_joined(entry.chunks(stream)) if wanted else None)
    return _reading(decoder, found, contents)


def entries(data: bytes) -> list[TarEntry]:
    """The members themselves."""
    source = BytesSource(data, ORIGIN)
    return list(TarDecoder(SourceStream(source), source=source))


def one(data: bytes) -> TarEntry:
    """The only member of an archive."""
    (entry,) = entries(data)
    return entry


def in_blocks(data: bytes, step: int) -> Iterator[bytes]:
    """The bytes in pieces."""
    return (data[start : start + step] for start in range(0, len(data), step))


def tool(name: str) -> str:
    """Path of a command; skips the test where it is missing."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"no {name} command")
    return found


def gnu_tar() -> str:
    """Path of GNU tar; skips the test where tar is another one."""
    found = tool("tar")
    if b"GNU tar" not in subprocess.run([found, "--version"], capture_output=True, check=False).stdout:
        pytest.skip("tar is not GNU tar")
    return found


def _content(entry: TarEntry) -> bytes | None:
    if not entry.is_file or entry.size > LARGEST:
        return None
    try:
        return b"".join(entry.content().blocks())
    except ForensicsError:
        return None


def _joined(chunks: Iterator[bytes | memoryview]) -> bytes | None:
    try:
        return b"".join(chunks)
    except ForensicsError:
        return None


def _reading(decoder: TarDecoder, found: list[TarEntry], contents: list[bytes | None]) -> Reading:
    members = tuple(_seen(entry, content) for entry, content in zip(found, contents, strict=True))
    return Reading(members, tuple(decoder.faults), decoder.ended, decoder.recognised, decoder.trailing)


def _check_short_way(entry: TarEntry) -> None:
    plain = entry.plain_metadata()
    if plain is not None:
        long_way = (entry.mode, entry.uid, entry.gid, entry.mtime_ns, entry.atime_ns, entry.ctime_ns)
        assert (plain, entry.anomalies, entry.xattrs, entry.btime_ns) == (long_way, (), {}, None)


def _seen(entry: TarEntry, content: bytes | None) -> Seen:
    _check_short_way(entry)
    return Seen(
        entry.name,
        entry.typeflag,
        entry.size,
        entry.mode,
        entry.uid,
        entry.gid,
        entry.mtime_ns,
        entry.linkname,
        entry.uname,
        entry.gname,
        (entry.atime_ns, entry.ctime_ns, entry.btime_ns),
        entry.rdev,
        tuple(entry.xattrs.items()),
        tuple(entry.pax.items()),
        entry.header,
        (entry.first_offset, entry.header_offset, entry.data_offset, entry.stored_size),
        entry.sparse,
        entry.anomalies,
        content,
    )
