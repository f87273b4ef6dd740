"""Tar archives, read for evidence: nothing is refused, nothing is hidden.

Reads v7, ustar, GNU (long names, base-256 numbers, old sparse files), pax (local and global records, sparse 0.0, 0.1
and 1.0), star and Solaris headers. Every member is returned, duplicates too, with where it lies; what breaks a rule is
an anomaly of the member. After damage the reader goes on at the next valid header, after the end-of-archive marker it
looks for a further archive.

Specification: POSIX.1-2017 pax, "ustar Interchange Format" and "pax Interchange Format"; GNU tar manual, "Basic Tar
Format" and "Storing Sparse Files"; star(5).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import BinaryIO

from forensics_lib.errors import DamagedData, LimitExceeded, NotAFile
from forensics_lib.formats import pax as _pax
from forensics_lib.formats import tar_sparse
from forensics_lib.formats.tar_header import (
    BLOCK_SIZE,
    checksum_ok,
    has_gnu_prefix,
    number,
    sum_is,
)
from forensics_lib.model import Origin
from forensics_lib.sources.base import ExtentSource, Source
from forensics_lib.sources.stream import Stream

__all__ = ["AFTER_END", "BLOCK_SIZE", "TarDecoder", "TarEntry"]

_ZERO = bytes(BLOCK_SIZE)
_HEADER_ONLY = "123456"
_EXTENSIONS = frozenset(b"xXgLK")
_MAX_EXTENSION = 16 << 20
_MAX_GLOBALS = 1 << 10
_MAX_FAULTS = 10_000
_PLAIN_HEADER = struct.Struct("100s24x11ss12x6s2ss100s88xs")  # name, size, checksum, type, link, first of the prefix
_PLAIN_TYPES = frozenset((b"0", b"1", b"2", b"5"))
_NO_RECORDS: Mapping[bytes, bytes] = MappingProxyType({})
# Records that change how the archive is read; all others only describe the member.
_SPARSE = frozenset((b"GNU.sparse.name", b"GNU.sparse.major", b"GNU.sparse.map"))
_STRUCTURAL = (b"path", b"linkpath", b"size", *sorted(_SPARSE))
_IN_STRUCTURE = re.compile(rb"path=|size=|GNU\.sparse")  # whatever holds none of these has no structural record
_DESCRIBING = (b"mtime", b"atime", b"ctime", b"uid", b"gid", b"uname", b"gname")

AFTER_END = "lies after the end-of-archive marker, where extracting tools do not look"


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

    name: str
    raw_name: bytes
    typeflag: str
    linkname: str
    size: int
    stored_size: int
    header: bytes
    header_offset: int
    first_offset: int
    data_offset: int
    sparse: tuple[tuple[int, int], ...] | None
    _source: Source | None
    _origin: Origin | None
    _faults: list[str] | None
    _pax: Mapping[bytes, bytes]
    _extended: tuple[bytes, int] | None  # the header that `_pax` is read from when somebody asks for it

    def __repr__(self) -> str:
        """Type, name and size."""
        return f"TarEntry({self.typeflag!r}, {self.name!r}, {self.size} bytes @{self.header_offset})"

    @property
    def pax(self) -> Mapping[bytes, bytes]:
        """The extended header records in force for it, as bytes, those of global headers included.

        A global record never changes the name, link or size of a member, because it does so for no container engine.
        """
        if (extended := self._extended) is not None:
            self._pax, fault = _records(*extended)
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
        recorded = _pax.parse_seconds(self.pax[b"mtime"]) if self.pax.get(b"mtime") else None
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
        return _pax.parse_seconds(self.pax.get(b"LIBARCHIVE.creationtime", b""))

    @property
    def uname(self) -> str:
        """Owner's name."""
        return _text(self.pax.get(b"uname") or self._named(265))

    @property
    def gname(self) -> str:
        """Group's name."""
        return _text(self.pax.get(b"gname") or self._named(297))

    @property
    def rdev(self) -> tuple[int, int]:
        """Major and minor number of a device."""
        major = self.pax.get(b"SCHILY.devmajor", b"")
        minor = self.pax.get(b"SCHILY.devminor", b"")
        if self.header[257:262] != b"ustar":
            return (0, 0)
        high, low = _pax.parse_integer(major), _pax.parse_integer(minor)
        return (
            (number(self.header[329:337]) or 0) if high is None else high,
            (number(self.header[337:345]) or 0) if low is None else low,
        )

    @property
    def xattrs(self) -> dict[str, bytes]:
        """Extended attributes by full name, e.g. ``security.capability``."""
        return _pax.xattrs(self.pax) if self.pax else {}

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
                time = _pax.parse_seconds(value)
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

    def content(self) -> Source:
        """The content as a source, holes of a sparse file as zeros.

        Raises:
            NotAFile: the member has no content of its own, or the archive was read as a stream.
        """
        if self._source is None:
            raise NotAFile(f"{self.name!r} was read from a stream; its content has passed")
        if self.typeflag in _HEADER_ONLY and not self.stored_size:
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
        recorded = _pax.parse_integer(self.pax[key]) if key in self.pax else None
        return (number(self.header[start:end]) or 0) if recorded is None else recorded

    def _time(self, key: bytes, gnu: int, star: int) -> int | None:
        recorded = self.pax.get(key)
        if recorded:
            return _pax.parse_seconds(recorded)
        header = self.header
        start = gnu if header[257:263] == b"ustar " else star if header[508:512] == b"tar\0" else 0
        if not start or not header[start : start + 12].strip(b"\0 "):
            return None
        seconds = number(header[start : start + 12])
        return None if seconds is None else seconds * 10**9

    def _named(self, start: int) -> bytes:
        return self.header[start : start + 32].split(b"\0", 1)[0] if self.header[257:262] == b"ustar" else b""


_PLAIN_NUMBERS = re.compile(rb"(?:[0-7]{7}[\0 ]){3}(?:[0-7]{11}[\0 ]){2}")  # as nearly all headers have them
_NUMBERS = (("mode", 100, 108), ("uid", 108, 116), ("gid", 116, 124), ("size", 124, 136), ("mtime", 136, 148))


class TarDecoder:
    """The members of one archive, in order.

    Iterate it once. The stream stands at the content of a member when that is handed out; what the caller does not
    read is passed over.

    Attributes:
        faults: (offset, what) for damage that belongs to no member.
        recognised: whether there is anything of a tar archive: a valid header or an end-of-archive marker.
        ended: whether an end-of-archive marker (two zero blocks) was seen.
        trailing: bytes after that marker that are neither zero nor part of a further archive.
        after_end: members of further archives after that marker.
    """

    def __init__(
        self, stream: Stream, *, source: Source | None = None, origin: Origin | None = None, max_entries: int = 10**7
    ) -> None:
        """Decode from `stream`; with `source` (the same bytes) the members can be opened later."""
        self._stream = stream
        self._source = source
        self._origin = origin or (source.origin if source is not None else None)
        self._max_entries = max_entries
        self.faults: list[tuple[int, str]] = []
        self.recognised = False
        self.ended = False
        self.trailing = 0
        self.after_end = 0

    def __iter__(self) -> Iterator[TarEntry]:
        """The members.

        Raises:
            LimitExceeded: there are more than `max_entries`.
        """
        stream, globals_ = self._stream, dict[bytes, bytes]()
        pending = _Pending()
        zeros = lost = 0
        count = 0
        calm = True  # nothing that stands before the next header has a say in how it is read
        while True:
            entry = self._plain() if calm else None
            if entry is None:
                calm = False
                offset = stream.position
                block = stream.read(BLOCK_SIZE)
                if len(block) < BLOCK_SIZE:
                    if block.strip(b"\0"):
                        self._leftover(offset, len(block), "archive is cut off in the middle of a header")
                    break
                if block == _ZERO:
                    zeros += 1
                    if zeros == 2:
                        self.recognised = self.ended = True
                        globals_.clear()
                    pending = self._without_member(pending)
                    continue
                if not checksum_ok(block):
                    pending = self._without_member(pending)
                    if not lost and not self.ended:
                        self._fault(offset, "no valid header here; reading goes on at the next one")
                    if self.ended:
                        self.trailing += BLOCK_SIZE
                    lost += BLOCK_SIZE
                    zeros = 0
                    continue
                if zeros == 1 and not self.ended:
                    pending.faults.append("a lone zero block stands before it")
                if lost:
                    pending.faults.append(f"found after {lost} bytes that are no valid archive")
                if self.ended and AFTER_END not in pending.faults:
                    pending.faults.append(AFTER_END)
                zeros = lost = 0
                self.recognised = True
                if pending.first is None:
                    pending.first = offset
                size = number(block[124:136])
                if block[156] in _EXTENSIONS:
                    entry = self._extension(block, offset, size, pending, globals_)
                    if entry is None:
                        continue
                else:
                    entry = self._member(block, offset, size, pending, globals_)
                    pending = _Pending()
                    calm = not globals_ and not self.ended
                self.after_end += self.ended
            count += 1
            if count > self._max_entries:
                place = entry.header_offset
                raise LimitExceeded(f"more than {self._max_entries} members", origin=self._origin, offset=place)
            yield entry
            if entry.stored_size:
                self._pass_content(entry)
        if not self.ended and not lost:
            self._fault(stream.position, "no end-of-archive marker")
        self._without_member(pending)

    def _plain(self) -> TarEntry | None:
        """The next member when it is as nearly all are, and its headers are at hand in one block; else None.

        It is what the exact way would make of it, with an extended header before it or without, only sooner.
        """
        block, start, position = self._stream.at_hand()
        if len(block) < start + 3 * BLOCK_SIZE:
            return None
        extended, length = None, BLOCK_SIZE
        try:
            header = block[start : start + BLOCK_SIZE]
            name, digits, after, checksum, close, flag, link, prefix = _PLAIN_HEADER.unpack_from(header)
            if flag == b"x" and after == b"\0" and close == b"\0 " and digits.isdigit():
                extent = int(digits, 8)
                data = block[start + BLOCK_SIZE : start + BLOCK_SIZE + extent]
                if not 0 < extent <= BLOCK_SIZE or _IN_STRUCTURE.search(data) or not sum_is(header, checksum):
                    return None
                extended, length = (data, position), 3 * BLOCK_SIZE
                start += 2 * BLOCK_SIZE
                header = block[start : start + BLOCK_SIZE]
                name, digits, after, checksum, close, flag, link, prefix = _PLAIN_HEADER.unpack_from(header)
            if flag not in _PLAIN_TYPES or prefix != b"\0" or after != b"\0" or close != b"\0 ":
                return None
            size = int(digits, 8) if digits.isdigit() else -1
            if size < 0 or (size and flag != b"0") or not sum_is(header, checksum):
                return None
        except ValueError:  # a digit 8 or 9
            return None
        self._stream.skip(length)
        self.recognised = True
        entry = TarEntry.__new__(TarEntry)
        entry._source = self._source
        entry._origin = self._origin
        entry._faults = None
        entry._pax = _NO_RECORDS
        entry._extended = extended
        entry.header = header
        entry.first_offset = position
        entry.data_offset = position + length
        entry.header_offset = position + length - BLOCK_SIZE
        entry.typeflag = flag.decode()
        entry.linkname = _text(link.split(b"\0", 1)[0]) if link[0] else ""
        entry.size = entry.stored_size = size
        entry.sparse = None
        entry.raw_name = name = name.split(b"\0", 1)[0]
        entry.name = name.decode("utf-8", "surrogateescape")
        return entry

    def _fault(self, offset: int, what: str) -> None:
        if len(self.faults) < _MAX_FAULTS:
            self.faults.append((offset, what))
        elif len(self.faults) == _MAX_FAULTS:
            self.faults.append((offset, f"more than {_MAX_FAULTS} faults; no more are listed"))

    def _without_member(self, pending: _Pending) -> _Pending:
        """Give extension headers up whose member is damaged or missing; they say nothing of the member after that."""
        if pending.first is None:
            return pending
        pending.settle()
        self._fault(pending.first, "extension header without the member it belongs to")
        for fault in pending.faults:
            self._fault(pending.first, fault)
        return _Pending()

    def _leftover(self, offset: int, length: int, what: str) -> None:
        if self.ended:
            self.trailing += length
        else:
            self._fault(offset, what)

    def _pass_content(self, entry: TarEntry) -> None:
        stream = self._stream
        end = entry.data_offset + entry.stored_size
        left = end + -entry.stored_size % BLOCK_SIZE - stream.position
        if left > 0 and stream.skip(left) < left and (missing := end - stream.position) > 0:
            fault = f"content is cut off: {missing} of {entry.stored_size} bytes are missing"
            entry._faults = [*(entry._faults or ()), fault]
            self._fault(entry.header_offset, f"{entry.name!r}: {fault}")

    def _extension(
        self, block: bytes, offset: int, size: int | None, pending: _Pending, globals_: dict[bytes, bytes]
    ) -> TarEntry | None:
        flag = chr(block[156])
        if size is None or size < 0 or size > _MAX_EXTENSION:
            pending.note(f"extension header {flag!r} of impossible size {size} at {offset} is passed over")
            if size is not None and size > 0:
                self._stream.skip(size + -size % BLOCK_SIZE)
            return None
        data = self._stream.read(size + -size % BLOCK_SIZE)[:size]
        if len(data) < size:
            self._fault(offset, "archive is cut off in the middle of an extension header")
            return None
        if flag == "L":
            pending.name = data.split(b"\0", 1)[0]
        elif flag == "K":
            pending.linkname = data.split(b"\0", 1)[0]
        elif flag != "g" and not pending.faults and pending.records is None and not _IN_STRUCTURE.search(data):
            pending.settle()
            pending.extended = data, offset
        else:
            pending.settle()
            records, fault = _records(data, offset)
            if fault:
                pending.note(fault)
            if flag == "g":
                for key, value in records.items():
                    if not value:
                        globals_.pop(key, None)
                    elif key in globals_ or len(globals_) < _MAX_GLOBALS:
                        globals_[key] = value
                    else:
                        pending.note(f"more than {_MAX_GLOBALS} records of global headers; the rest is not applied")
                return self._global(block, offset, size, records, pending)
            pending.records = records
        return None

    def _global(
        self, block: bytes, offset: int, size: int, records: Mapping[bytes, bytes], pending: _Pending
    ) -> TarEntry:
        entry = self._new(block, offset)
        entry.first_offset = offset
        if pending.faults:
            entry._faults, pending.faults = pending.faults, []
        if pending.first == offset:
            pending.first = None
        entry.raw_name = block[:100].split(b"\0", 1)[0]
        entry.name = _text(entry.raw_name)
        entry.size = 0
        entry.stored_size = size
        entry.data_offset = offset + BLOCK_SIZE
        entry._pax = records
        return entry

    def _new(self, block: bytes, offset: int) -> TarEntry:
        entry = TarEntry.__new__(TarEntry)
        entry._source = self._source
        entry._origin = self._origin
        entry._faults = None
        entry._pax = _NO_RECORDS
        entry._extended = None
        entry.header = block
        entry.header_offset = offset
        entry.typeflag = chr(block[156]) if block[156] else "0"
        entry.linkname = ""
        entry.sparse = None
        return entry

    def _member(
        self, block: bytes, offset: int, size: int | None, pending: _Pending, globals_: dict[bytes, bytes]
    ) -> TarEntry:
        entry = self._new(block, offset)
        entry.first_offset = offset if pending.first is None else pending.first
        faults = pending.faults
        if globals_:
            pending.settle()
            entry._pax = globals_ | (pending.records or {})
            faults.extend(_global_faults(globals_, pending.records or {}))
        elif pending.records is not None:
            entry._pax = pending.records
        else:
            entry._extended = pending.extended
        records = pending.records
        name = block[:100].split(b"\0", 1)[0]
        if block[345]:
            if block[257:263] == b"ustar\0":
                prefix = block[345:476] if block[508:512] == b"tar\0" else block[345:500]
                name = prefix.split(b"\0", 1)[0] + b"/" + name
            elif block[257:262] == b"ustar" and has_gnu_prefix(block):
                name = block[345:500].split(b"\0", 1)[0] + b"/" + name
                faults.append("GNU header with a ustar name prefix")
        link = pending.linkname
        if records:
            name = records.get(b"path") or name
            link = link or records.get(b"linkpath")
            if recorded := records.get(b"size"):
                stated = _pax.parse_integer(recorded)
                if stated is None:
                    faults.append(f"size record holds no number: {recorded[:40]!r}")
                else:
                    size = stated
        if size is None or size < 0 or size >= 1 << 63:
            faults.append(f"impossible size {size}; the content cannot be found")
            size = 0
        if pending.name:
            name = pending.name
        if link or block[157]:
            entry.linkname = _text(link or block[157:257].split(b"\0", 1)[0])
        flag = entry.typeflag
        if not block[156] and name.endswith(b"/"):
            entry.typeflag = flag = "5"
        entry.size = entry.stored_size = size
        if size and flag in _HEADER_ONLY and self._no_content():
            entry.stored_size = 0
            if flag != "1":
                faults.append(f"type {flag!r} with a size of {size}, but no content follows")
        if flag == "S" or (records and not _SPARSE.isdisjoint(records)):
            name = (records or _NO_RECORDS).get(b"GNU.sparse.name") or name
            tar_sparse.read_map(entry, records or _NO_RECORDS, self._stream, faults)
        entry.data_offset = self._stream.position
        entry.raw_name = name
        entry.name = _text(name)
        entry._faults = faults or None
        return entry

    def _no_content(self) -> bool:
        """Whether a member that needs no content, but states a size, is followed by the next header at once.

        Old writers state the size of a hard link's target without storing it, pax writers store the content as well.
        """
        following = self._stream.peek(BLOCK_SIZE)
        return len(following) < BLOCK_SIZE or following == _ZERO or checksum_ok(following)


class _Pending:
    """What extension headers say of the member that follows them."""

    __slots__ = ("extended", "faults", "first", "linkname", "name", "records")

    def __init__(self) -> None:
        self.first: int | None = None
        self.name: bytes | None = None
        self.linkname: bytes | None = None
        self.records: dict[bytes, bytes] | None = None
        self.extended: tuple[bytes, int] | None = None  # a header that is not read until somebody needs its records
        self.faults: list[str] = []

    def note(self, fault: str) -> None:
        """Remember what is wrong with an extension header; a long row of them is not told one by one."""
        if len(self.faults) < 20 and fault not in self.faults:
            self.faults.append(fault)

    def settle(self) -> None:
        """Read the extended header that was put off."""
        if self.extended is not None:
            self.records, fault = _records(*self.extended)
            self.extended = None
            if fault:
                self.note(fault)


def _records(data: bytes, offset: int) -> tuple[dict[bytes, bytes], str | None]:
    records, fault = _pax.parse_records(data)
    return records, f"{fault} (at {offset})" if fault else None


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


_NO_TIMES = bytes(24)
_TIMES = frozenset([b"mtime", b"atime", b"ctime"])
_HARMLESS = frozenset([b"path", b"linkpath", b"size", b"uname", b"gname", b"comment", b"charset", b"hdrcharset"])


def _record_faults(records: Mapping[bytes, bytes]) -> Iterator[str]:
    for key in (b"mtime", b"atime", b"ctime"):
        if (value := records.get(key)) and _pax.parse_seconds(value) is None:
            yield f"{key.decode()} record holds no time: {value[:40]!r}"
    for key in (b"uid", b"gid"):
        if (value := records.get(key)) and _pax.parse_integer(value) is None:
            yield f"{key.decode()} record holds no number: {value[:40]!r}"
    if b"\0" in b"".join(records):
        yield "key of an extended header record contains NUL"


def _global_faults(globals_: Mapping[bytes, bytes], records: Mapping[bytes, bytes]) -> Iterator[str]:
    """What of a global header's records the tools that read an archive disagree on."""
    if ignored := [key.decode() for key in _STRUCTURAL if key in globals_ and key not in records]:
        yield f"records of a global header are not applied to it: {', '.join(ignored)} (GNU tar would)"
    if applied := [key.decode() for key in _DESCRIBING if key in globals_ and key not in records]:
        yield f"records of a global header are applied to it: {', '.join(applied)} (container engines would not)"
