"""The branch, leaf and freelist pages of bbolt and BoltDB files, and the rows they give.

Every number is checked before it is used; an element that breaks a rule is left out and named in the page's faults.

Source of the format: go.etcd.io/bbolt, ``internal/common`` (page.go, bucket.go, inode.go) and ``node.go``.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from forensics_lib.errors import DamagedData
from forensics_lib.formats.bbolt_meta import find_metas
from forensics_lib.model import Origin
from forensics_lib.sources.base import Source

__all__ = ["BRANCH", "FREELIST", "LEAF", "MAX_DEPTH", "Element", "Page", "Pages", "Record", "State"]

MAX_DEPTH = 32
"""Of nested buckets, and of the branch pages of one; containerd nests seven."""

_NATIVE = "<" if sys.byteorder == "little" else ">"
BRANCH, LEAF, FREELIST = 0x01, 0x02, 0x10
_HEADER = 16
_ELEMENT = 16
_BUCKET_FLAG = 0x01
_MAX_PAGES = 1 << 26  # 256 GiB at 4 KiB; whoever walks keeps one byte for each
_MAX_SPAN = 64 << 20  # bytes of a page with its overflow; containers and Kubernetes keep some MiB at most in one value
_MAX_FAULTS = 4  # of one page
_CACHED_PAGES = 64
_CACHED_BYTES = 64 << 10


class State(StrEnum):
    """Which generation of the database holds a record."""

    LIVE = "live"
    """The transaction that is read: the newest whose tree is sound."""
    PREVIOUS = "previous"
    """Only the transaction before that."""
    NEWER = "newer"
    """Only a newer transaction, whose tree is damaged."""
    STALE = "stale"
    """Neither: a page that was freed, or written and never committed."""


@dataclass(frozen=True, slots=True)
class Record:
    """One entry of a bucket.

    Attributes:
        path: names of the buckets around it, outermost first.
        key: the key, or the name of a bucket.
        value: the value; None for a bucket.
        state: which generation holds it.
        page: number of the page that holds it.
        rooted: whether the path begins at the root; if not, the outer names are not known.
        complete: whether the whole value is there; if not, what follows was overwritten or cut off.
        origin: the page, with the byte offset of the key in the file.
    """

    path: tuple[bytes, ...]
    key: bytes
    value: bytes | None
    state: State
    page: int
    rooted: bool
    complete: bool
    origin: Origin


class Element(NamedTuple):
    """One entry of a page: a key with its value (leaf) or its child page (branch), and the key's offset in the file."""

    key: bytes
    value: bytes
    child: int
    is_bucket: bool
    complete: bool
    offset: int


class Page:
    """A branch or leaf page with its overflow, or the page inside an inline bucket.

    Attributes:
        number: of the page; for an inline bucket, of the page around it.
        is_leaf: leaf or branch.
        span: pages that are taken up; 0 for an inline bucket.
        elements: in page order, without those that lie outside the page.
        faults: what breaks a rule, for a person; the first few.
    """

    __slots__ = ("elements", "faults", "is_leaf", "number", "span")

    def __init__(self, data: bytes, order: str, *, number: int, span: int, base: int) -> None:
        """Decode the page that lies at byte `base` of the file.

        Raises:
            DamagedData: this is no branch or leaf page.
        """
        _, flags, count, _ = _header(data, order)
        if flags not in (BRANCH, LEAF):
            raise DamagedData(f"neither a branch nor a leaf page (flags 0x{flags:x})")
        self.number = number
        self.span = span
        self.is_leaf = flags == LEAF
        self.elements, self.faults = self._decode(data, order, count, base)
        room = self._room(data, order)
        if room < count:
            elements, faults = self._decode(data, order, room, base)
            if len(elements) > len(self.elements):
                self.elements, self.faults = elements, faults
        if count and room != count:
            self.faults.insert(0, f"{count} elements are declared, the first of them leaves room for {room}")

    def fault(self, message: str) -> None:
        """Note what breaks a rule."""
        if len(self.faults) < _MAX_FAULTS:
            self.faults.append(message)

    def _room(self, data: bytes, order: str) -> int:
        """Number of elements between the header and the data of the first one; writers leave no gap."""
        if len(data) < _HEADER + _ELEMENT:
            return 0
        return next(_rows(data[_HEADER : _HEADER + _ELEMENT], order, self.is_leaf))[1] // _ELEMENT

    def _decode(self, data: bytes, order: str, count: int, base: int) -> tuple[list[Element], list[str]]:
        elements: list[Element] = []
        faults: list[str] = []
        start = min(_HEADER + _ELEMENT * count, len(data) - len(data) % _ELEMENT)
        used, previous, size = start, b"", len(data)
        for index, (flags, position, key_size, value_size, child) in enumerate(
            _rows(data[_HEADER:start], order, self.is_leaf)
        ):
            begin = _HEADER + _ELEMENT * index + position
            middle = begin + key_size
            end = min(middle + value_size, size)
            if not start <= begin < middle <= size or used + end - begin > size:
                faults.append(f"element {index} lies outside the data of the page")
                continue
            used += end - begin
            key = data[begin:middle]
            complete = end == middle + value_size
            if not complete:
                faults.append(f"the value of element {index} ends beyond the page")
            if key <= previous:
                faults.append(f"the key of element {index} is out of order")
            if flags & ~_BUCKET_FLAG:
                faults.append(f"element {index} has unknown flags 0x{flags:x}")
            previous = key
            elements.append(Element(key, data[middle:end], child, flags & _BUCKET_FLAG != 0, complete, base + begin))
        return elements, faults[:_MAX_FAULTS]


class Pages:
    """The pages of one file by number; the last ones used are kept.

    Attributes:
        source: the file.
        metas: the meta pages that were found, valid or not, newest first, the valid ones before the others.
        size: bytes of a page.
        count: pages in the file, whatever its meta pages say; the last one may be cut.
        order: byte order, as `struct` writes it.
    """

    def __init__(self, source: Source) -> None:
        """Find the meta pages.

        Raises:
            UnsupportedFormat: there is none.
        """
        self.source = source
        self.order, self.metas = find_metas(source)
        self.size = self.metas[0].page_size
        self.count = min(-(-source.size // self.size), _MAX_PAGES)
        self._cache: dict[int, Page] = {}

    def origin(self, number: int, offset: int | None = None) -> Origin:
        """Where a page is; the offset of the page itself, or of something inside it."""
        return self.source.origin.to(f"bbolt page {number}", number * self.size if offset is None else offset)

    def page(self, number: int, limit: int = _MAX_PAGES) -> Page:
        """A branch or leaf page, with at most `limit` pages of it and its overflow.

        Raises:
            DamagedData: it lies outside the file, or is another page.
        """
        page = self._cache.get(number)
        if page is None or page.span > limit:
            page = self._read(number, limit)
            if not page.faults and page.span * self.size <= _CACHED_BYTES:
                if len(self._cache) >= _CACHED_PAGES:
                    self._cache.clear()
                self._cache[number] = page
        return page

    def inline(self, page: Page, element: Element) -> Page:
        """The page inside the value of an inline bucket.

        Raises:
            DamagedData: there is none.
        """
        base = element.offset + len(element.key) + _HEADER
        inner = Page(element.value[_HEADER:], self.order, number=page.number, span=0, base=base)
        if not inner.is_leaf:
            raise DamagedData("an inline bucket holds a branch page")
        return inner

    def bucket_header(self, element: Element) -> tuple[int, int]:
        """(root page, 0 for an inline bucket; sequence) of a bucket element.

        Raises:
            DamagedData: its value is too short.
        """
        if len(element.value) < _HEADER:
            raise DamagedData(f"the bucket {element.key!r} has no header")
        root, sequence = struct.unpack_from(self.order + "QQ", element.value)
        return root, sequence

    def root_of(self, element: Element) -> int | None:
        """Root page of a bucket element, 0 for an inline bucket; None for a value and for a damaged bucket."""
        return self.bucket_header(element)[0] if element.is_bucket and len(element.value) >= _HEADER else None

    def room(self, number: int, taken: bytearray) -> int:
        """Pages from this one up to the next that is taken, as far as a page can reach."""
        after = taken.find(1, number + 1, number + 1 + _MAX_SPAN // self.size)
        return (after if after > 0 else self.count) - number

    def record(
        self, page: Page, element: Element, path: tuple[bytes, ...], state: State, *, rooted: bool = True
    ) -> Record:
        """An element of a leaf page as a row."""
        value = None if element.is_bucket else element.value
        origin = self.origin(page.number, element.offset)
        return Record(path, element.key, value, state, page.number, rooted, element.complete, origin)

    def kind(self, number: int) -> int:
        """BRANCH, LEAF or FREELIST, if such a page begins here and knows its own number; else 0.

        Raises:
            DamagedData: it cannot be read.
        """
        own, flags, _, _ = self._head(number)
        return flags if own == number and flags in (BRANCH, LEAF, FREELIST) else 0

    def free_pages(self, number: int) -> tuple[int, array[int]]:
        """(pages taken up, numbers of the free pages) of a freelist page.

        Raises:
            DamagedData: this is no freelist page, or it is cut.
        """
        own, flags, count, overflow = self._head(number)
        if own != number or flags != FREELIST:
            raise DamagedData("no freelist page")
        span = self._clamp(number, overflow)
        data = self._bytes(number, span)[_HEADER:]
        skip = 0
        if count == 0xFFFF and len(data) >= 8:
            (count,) = struct.unpack_from(self.order + "Q", data)
            skip = 8
        if count * 8 > len(data) - skip:
            raise DamagedData(f"{count} free pages are declared, the list ends before that")
        free = array("Q", data[skip : skip + count * 8])
        if self.order != _NATIVE:
            free.byteswap()
        return span, free

    def _read(self, number: int, limit: int) -> Page:
        own, flags, count, overflow = self._head(number)
        if own != number:
            raise DamagedData(f"the page says that it is page {own}")
        span = min(self._clamp(number, overflow), limit)
        if span > 1:
            span = min(span, self._needed(number, span, count, flags == LEAF))
        data = self._bytes(number, span)
        page = Page(data, self.order, number=number, span=span, base=number * self.size)
        if len(data) < span * self.size:
            page.fault("the file ends inside the page")
        return page

    def _needed(self, number: int, span: int, count: int, leaf: bool) -> int:
        """Pages up to the end of the last element: the overflow that is declared may be wrong."""
        table = self._bytes(number, min(span, self._round(_HEADER + _ELEMENT * count)))
        table = table[: _HEADER + _ELEMENT * count]
        end = len(table)
        for index, row in enumerate(_rows(table[_HEADER : len(table) - len(table) % _ELEMENT], self.order, leaf)):
            end = max(end, _HEADER + _ELEMENT * index + sum(row[1:4]))
        return self._round(end)

    def _round(self, size: int) -> int:
        return -(-size // self.size)

    def _clamp(self, number: int, overflow: int) -> int:
        return max(1, min(1 + overflow, self.count - number, _MAX_SPAN // self.size))

    def _head(self, number: int) -> tuple[int, int, int, int]:
        if not 0 <= number < self.count:
            raise DamagedData(f"there is no page {number} in the file")
        return _header(self.source.read_at(number * self.size, _HEADER), self.order)

    def _bytes(self, number: int, span: int) -> bytes:
        return self.source.read_at(number * self.size, span * self.size)


def _rows(table: bytes, order: str, leaf: bool) -> Iterator[tuple[int, int, int, int, int]]:
    """(flags, position, key size, value size, child page) of each element, as stored."""
    if leaf:
        return ((*row, 0) for row in struct.iter_unpack(order + "IIII", table))
    return ((0, position, size, 0, child) for position, size, child in struct.iter_unpack(order + "IIQ", table))


def _header(data: bytes, order: str) -> tuple[int, int, int, int]:
    """(number, flags, element count, overflow) of a page."""
    if len(data) < _HEADER:
        raise DamagedData("there is no room for a page header")
    number, flags, count, overflow = struct.unpack_from(order + "QHHI", data)
    return number, flags, count, overflow
