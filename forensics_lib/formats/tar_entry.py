"""One member of a tar archive: its fields, its extended records, its content, and what breaks a rule of the format."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import BinaryIO

from forensics_lib.errors import DamagedData, NotAFile
from forensics_lib.formats import pax, tar_sparse
from forensics_lib.formats.tar_header import number
from forensics_lib.model import Origin
from forensics_lib.sources.base import ExtentSource, Source
from forensics_lib.sources.stream import Stream

__all__ = ["HEADER_ONLY", "NO_RECORDS", "TarEntry", "as_text", "read_records"]

HEADER_ONLY = "123456"
"""Types of members that need no content."""
NO_RECORDS: Mapping[bytes, bytes] = MappingProxyType({})
_PLAIN_NUMBERS = re.compile(rb"(?:[0-7]{7}[\0 ]){3}(?:[0-7]{11}[\0 ]){2}")  # as nearly all headers have them
_NUMBERS = (("mode", 100, 108), ("uid", 108, 116), ("gid", 116, 124), ("size", 124, 136), ("mtime", 136, 148))
_NO_TIMES = bytes(24)
_TIMES = frozenset([b"mtime", b"atime", b"ctime"])
_HARMLESS = frozenset([b"path", b"linkpath", b"size", b"uname", b"gname", b"comment", b"charset", b"hdrcharset"])


class TarEntry:
    """One member of a tar archive.

    Attributes:
        name: as the archive says (a long name resolved), undecodable bytes as surrogates; not cleaned.
        raw_name: the same as bytes.
        typeflag: one character, as POSIX names them; "0" also where an old archive has NUL.
        linkname: target of a link; for other types what their header has in its place, mostly nothing.
        size: bytes of content, holes of a sparse file included.
        stored_size: bytes of content in the archive.
        header: the 512 bytes of its header block.
        header_offset: where that block lies in the archive.
        first_offset: where its first extension header lies; `header_offset` when it has none.
        data_offset: where its content lies.
        sparse: (offset, length) of each stored part of a sparse file; None for others.
    """

    __slots__ = (
        "_extended",
        "_faults",
        "_origin",
        "_pax",
        "_source",
        "data_offset",
        "first_offset",
        "header",
        "header_offset",
        "linkname",
        "name",
        "raw_name",
        "size",
        "sparse",
        "stored_size",
        "typeflag",
    )

    def __init__(
        self,
        header: bytes,
        header_offset: int,
        first_offset: int,
        data_offset: int,
        typeflag: str,
        raw_name: bytes,
        linkname: str,
        size: int,
        source: Source | None,
        origin: Origin | None,
        extended: tuple[bytes, int] | None = None,
        records: Mapping[bytes, bytes] = NO_RECORDS,
        faults: list[str] | None = None,
    ) -> None:
        """Only decoders make one: from its attributes, the archive to open its content in and the place of that.

        An extended header comes with the offset it lies at and is not read before somebody asks for its records.
        """
        self.header = header
        self.header_offset = header_offset
        self.first_offset = first_offset
        self.data_offset = data_offset
        self.typeflag = typeflag
        self.raw_name = raw_name
        self.name = raw_name.decode("utf-8", "surrogateescape")
        self.linkname = linkname
        self.size = self.stored_size = size
        self.sparse: tuple[tuple[int, int], ...] | None = None
        self._source = source
        self._origin = origin
        self._extended = extended
        self._pax = records
        self._faults = faults

    def __repr__(self) -> str:
        """Type, name and size."""
        return f"TarEntry({self.typeflag!r}, {self.name!r}, {self.size} bytes @{self.header_offset})"

    @property
    def pax(self) -> Mapping[bytes, bytes]:
        """The extended header records in force for it, as bytes, those of global headers included.

        A global record never changes the name, link or size of a member, because it does so for no container engine.
        """
        if (extended := self._extended) is not None:
            self._pax, fault = read_records(*extended)
            if fault and fault not in (self._faults or ()):
                self._faults = [fault, *(self._faults or ())]
            self._extended = None
        return self._pax

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file with content of its own (a hard link is not)."""
        return self.typeflag in "07S" and not (self.typeflag == "0" and self.raw_name.endswith(b"/"))

    @property
    def mode(self) -> int:
        """Permission bits (the archive's field may hold file type bits too)."""
        return number(self.header[100:108]) or 0

    @property
    def uid(self) -> int:
        """Owner's number."""
        return self._decimal(b"uid", 108, 116)

    @property
    def gid(self) -> int:
        """Group's number."""
        return self._decimal(b"gid", 116, 124)

    @property
    def mtime_ns(self) -> int:
        """Time of last change of the content, nanoseconds since 1970."""
        recorded = pax.parse_seconds(self.pax[b"mtime"]) if self.pax.get(b"mtime") else None
        return (number(self.header[136:148]) or 0) * 10**9 if recorded is None else recorded

    @property
    def atime_ns(self) -> int | None:
        """Time of last access, nanoseconds since 1970; None when not recorded."""
        return self._time(b"atime", 345, 476)

    @property
    def ctime_ns(self) -> int | None:
        """Time of last change of the inode, nanoseconds since 1970; None when not recorded."""
        return self._time(b"ctime", 357, 488)

    @property
    def btime_ns(self) -> int | None:
        """Time of creation (a libarchive record), nanoseconds since 1970; None when not recorded."""
        return pax.parse_seconds(self.pax.get(b"LIBARCHIVE.creationtime", b""))

    @property
    def uname(self) -> str:
        """Owner's name."""
        return as_text(self.pax.get(b"uname") or self._named(265))

    @property
    def gname(self) -> str:
        """Group's name."""
        return as_text(self.pax.get(b"gname") or self._named(297))

    @property
    def rdev(self) -> tuple[int, int]:
        """Major and minor number of a device."""
        major = self.pax.get(b"SCHILY.devmajor", b"")
        minor = self.pax.get(b"SCHILY.devminor", b"")
        if self.header[257:262] != b"ustar":
            return (0, 0)
        high, low = pax.parse_integer(major), pax.parse_integer(minor)
        return (
            (number(self.header[329:337]) or 0) if high is None else high,
            (number(self.header[337:345]) or 0) if low is None else low,
        )

    @property
    def xattrs(self) -> dict[str, bytes]:
        """Extended attributes by full name, e.g. ``security.capability``."""
        return pax.xattrs(self.pax) if self.pax else {}

    def plain_metadata(self) -> tuple[int, int, int, int, int | None, int | None] | None:
        """Mode, uid, gid and mtime, atime and ctime in nanoseconds, when all is as most writers write it; else None.

        Nothing that this returns has an anomaly. It exists because an archive has a million members.
        """
        header, records = self.header, self.pax
        if self._faults or not _PLAIN_NUMBERS.fullmatch(header, 100, 148) or header[508:512] == b"tar\0":
            return None
        if header[345:369] != _NO_TIMES and header[257:263] == b"ustar ":
            return None
        raw_name = self.raw_name
        if b"\0" in raw_name or (raw_name[-1:] == b"/" and self.typeflag != "5"):
            return None
        mtime, atime, ctime = int(header[136:147], 8) * 10**9, None, None
        for key, value in records.items():
            if key in _TIMES:
                time = pax.parse_seconds(value)
                if time is None:
                    return None
                if key == b"mtime":
                    mtime = time
                elif key == b"atime":
                    atime = time
                else:
                    ctime = time
            elif key not in _HARMLESS:
                return None
        return int(header[100:107], 8), int(header[108:115], 8), int(header[116:123], 8), mtime, atime, ctime

    @property
    def anomalies(self) -> tuple[str, ...]:
        """What breaks a rule of the format, in words; empty for a clean member."""
        records = self.pax  # reading them may find faults
        found = list(self._faults or ())
        if not _PLAIN_NUMBERS.fullmatch(self.header, 100, 148):
            for label, start, end in _NUMBERS:
                if number(self.header[start:end]) is None:
                    found.append(f"{label} field holds no number: {self.header[start:end]!r}")
        if records:
            found.extend(_record_faults(records))
        if b"\0" in self.raw_name:
            found.append("name contains NUL")
        if self.typeflag == "0" and self.raw_name.endswith(b"/"):
            found.append("regular file whose name ends with a slash (a folder for most tools)")
        return tuple(found)

    @property
    def origin(self) -> Origin:
        """Where the member lies."""
        return (self._origin or Origin("tar")).to(f"tar member {self.name}", self.header_offset)

    def note(self, fault: str) -> None:
        """Add an anomaly that only showed after the headers."""
        self._faults = [*(self._faults or ()), fault]

    def content(self) -> Source:
        """The content as a source, holes of a sparse file as zeros.

        Raises:
            NotAFile: the member has no content of its own, or the archive was read as a stream.
        """
        if self._source is None:
            raise NotAFile(f"{self.name!r} was read from a stream; its content has passed")
        if self.typeflag in HEADER_ONLY and not self.stored_size:
            raise NotAFile(f"{self.name!r} has no content of its own")
        stored = self._source.slice(self.data_offset, self.stored_size, f"content of {self.name}")
        if self.sparse is None:
            return stored
        return ExtentSource(stored, tar_sparse.extents(self.sparse), self.size, stored.origin)

    def open(self) -> BinaryIO:
        """The content as a binary file.

        Raises:
            NotAFile: as `content`.
        """
        return self.content().open()

    def chunks(self, stream: Stream) -> Iterator[bytes | memoryview]:
        """The content from a stream that stands at `data_offset`, piece by piece, holes as zeros.

        Raises:
            DamagedData: the archive ends before the content does.
        """
        if self.sparse is not None:
            yield from tar_sparse.expand(stream, self.sparse, self.size)
            return
        left = self.stored_size
        for chunk in stream.chunks(left):
            left -= len(chunk)
            yield chunk
        if left:
            raise DamagedData(
                f"content is cut off: {left} of {self.stored_size} bytes are missing",
                origin=self.origin,
                offset=self.data_offset + self.stored_size - left,
            )

    def _decimal(self, key: bytes, start: int, end: int) -> int:
        recorded = pax.parse_integer(self.pax[key]) if key in self.pax else None
        return (number(self.header[start:end]) or 0) if recorded is None else recorded

    def _time(self, key: bytes, gnu: int, star: int) -> int | None:
        recorded = self.pax.get(key)
        if recorded:
            return pax.parse_seconds(recorded)
        header = self.header
        start = gnu if header[257:263] == b"ustar " else star if header[508:512] == b"tar\0" else 0
        if not start or not header[start : start + 12].strip(b"\0 "):
            return None
        seconds = number(header[start : start + 12])
        return None if seconds is None else seconds * 10**9

    def _named(self, start: int) -> bytes:
        return self.header[start : start + 32].split(b"\0", 1)[0] if self.header[257:262] == b"ustar" else b""


def read_records(data: bytes, offset: int) -> tuple[dict[bytes, bytes], str | None]:
    """The records of an extended header that lies at `offset`, and what is wrong with them."""
    records, fault = pax.parse_records(data)
    return records, f"{fault} (at {offset})" if fault else None


def as_text(name: bytes) -> str:
    """A name as text, undecodable bytes as surrogates."""
    return name.decode("utf-8", "surrogateescape")


def _record_faults(records: Mapping[bytes, bytes]) -> Iterator[str]:
    for key in (b"mtime", b"atime", b"ctime"):
        if (value := records.get(key)) and pax.parse_seconds(value) is None:
            yield f"{key.decode()} record holds no time: {value[:40]!r}"
    for key in (b"uid", b"gid"):
        if (value := records.get(key)) and pax.parse_integer(value) is None:
            yield f"{key.decode()} record holds no number: {value[:40]!r}"
    if b"\0" in b"".join(records):
        yield "key of an extended header record contains NUL"
