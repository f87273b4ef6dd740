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

from forensics_lib.errors import LimitExceeded
from forensics_lib.formats import pax, tar_sparse
from forensics_lib.formats.tar_entry import HEADER_ONLY, NO_RECORDS, TarEntry, as_text, read_records
from forensics_lib.formats.tar_header import BLOCK_SIZE, checksum_ok, has_gnu_prefix, number, sum_is
from forensics_lib.model import Origin
from forensics_lib.sources.base import Source
from forensics_lib.sources.stream import Stream

__all__ = ["AFTER_END", "BLOCK_SIZE", "TarDecoder"]

_ZERO = bytes(BLOCK_SIZE)
_EXTENSIONS = frozenset(b"xXgLK")
_MAX_EXTENSION = 16 << 20
_MAX_GLOBALS = 1 << 10
_MAX_FAULTS = 10_000
_PLAIN_HEADER = struct.Struct("100s24x11ss12x6s2ss100s88xs")  # name, size, checksum, type, link, first of the prefix
_PLAIN_TYPES = frozenset((b"0", b"1", b"2", b"5"))
# Records that change how the archive is read; all others only describe the member.
_SPARSE = frozenset((b"GNU.sparse.name", b"GNU.sparse.major", b"GNU.sparse.map"))
_STRUCTURAL = (b"path", b"linkpath", b"size", *sorted(_SPARSE))
_IN_STRUCTURE = re.compile(rb"path=|size=|GNU\.sparse")  # whatever holds none of these has no structural record
_DESCRIBING = (b"mtime", b"atime", b"ctime", b"uid", b"gid", b"uname", b"gname")

AFTER_END = "lies after the end-of-archive marker, where extracting tools do not look"


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
        return TarEntry(
            header,
            position + length - BLOCK_SIZE,
            position,
            position + length,
            flag.decode(),
            name.split(b"\0", 1)[0],
            as_text(link.split(b"\0", 1)[0]) if link[0] else "",
            size,
            self._source,
            self._origin,
            extended,
        )

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
            entry.note(fault)
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
            records, fault = read_records(data, offset)
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
        faults, pending.faults = pending.faults, []
        if pending.first == offset:
            pending.first = None
        name = block[:100].split(b"\0", 1)[0]
        entry = TarEntry(
            block,
            offset,
            offset,
            offset + BLOCK_SIZE,
            "g",
            name,
            "",
            0,
            self._source,
            self._origin,
            None,
            records,
            faults,
        )
        entry.stored_size = size
        return entry

    def _member(
        self, block: bytes, offset: int, size: int | None, pending: _Pending, globals_: dict[bytes, bytes]
    ) -> TarEntry:
        faults = pending.faults
        if globals_:
            pending.settle()
            faults.extend(_global_faults(globals_, pending.records or {}))
        records: Mapping[bytes, bytes] = pending.records or NO_RECORDS
        name = block[:100].split(b"\0", 1)[0]
        if block[345]:
            if block[257:263] == b"ustar\0":
                prefix = block[345:476] if block[508:512] == b"tar\0" else block[345:500]
                name = prefix.split(b"\0", 1)[0] + b"/" + name
            elif block[257:262] == b"ustar" and has_gnu_prefix(block):
                name = block[345:500].split(b"\0", 1)[0] + b"/" + name
                faults.append("GNU header with a ustar name prefix")
        name = pending.name or records.get(b"path") or name
        link = pending.linkname or records.get(b"linkpath") or block[157:257].split(b"\0", 1)[0]
        if recorded := records.get(b"size"):
            stated = pax.parse_integer(recorded)
            if stated is None:
                faults.append(f"size record holds no number: {recorded[:40]!r}")
            else:
                size = stated
        if size is None or size < 0 or size >= 1 << 63:
            faults.append(f"impossible size {size}; the content cannot be found")
            size = 0
        flag = chr(block[156] or ord("0"))
        if not block[156] and name.endswith(b"/"):
            flag = "5"
        is_sparse = flag == "S" or not _SPARSE.isdisjoint(records)
        entry = TarEntry(
            block,
            offset,
            offset if pending.first is None else pending.first,
            self._stream.position,
            flag,
            (is_sparse and records.get(b"GNU.sparse.name")) or name,
            as_text(link),
            size,
            self._source,
            self._origin,
            pending.extended,
            globals_ | dict(records) if globals_ else records,
            faults,
        )
        if size and flag in HEADER_ONLY and self._no_content():
            entry.stored_size = 0
            if flag != "1":
                faults.append(f"type {flag!r} with a size of {size}, but no content follows")
        if is_sparse:
            tar_sparse.read_map(entry, records, self._stream, faults)
            entry.data_offset = self._stream.position
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
            self.records, fault = read_records(*self.extended)
            self.extended = None
            if fault:
                self.note(fault)


def _global_faults(globals_: Mapping[bytes, bytes], records: Mapping[bytes, bytes]) -> Iterator[str]:
    """What of a global header's records the tools that read an archive disagree on."""
    if ignored := [key.decode() for key in _STRUCTURAL if key in globals_ and key not in records]:
        yield f"records of a global header are not applied to it: {', '.join(ignored)} (GNU tar would)"
    if applied := [key.decode() for key in _DESCRIBING if key in globals_ and key not in records]:
        yield f"records of a global header are applied to it: {', '.join(applied)} (container engines would not)"
