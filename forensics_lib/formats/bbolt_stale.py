"""Records of pages that a bbolt database does not reach any more: what was deleted or written over.

bbolt never writes over a page that is in use: a change goes to other pages, and the old ones keep their content until
they are needed again. Records of the other transaction come with their exact path; for those of all other pages
`bbolt_places` finds out which bucket they belonged to.

Source of the format: go.etcd.io/bbolt, ``node.go`` (spill) and ``internal/freelist``.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from functools import lru_cache
from hashlib import blake2b
from itertools import chain
from typing import TYPE_CHECKING

from forensics_lib.errors import DamagedData
from forensics_lib.formats.bbolt_page import MAX_DEPTH, Element, Page, Pages, Record, State
from forensics_lib.formats.bbolt_places import Place, Places

if TYPE_CHECKING:
    from forensics_lib.formats.bbolt import Bucket

__all__ = ["stale_records"]

_MAX_MARKS = 1_000_000  # of what was given out; some 100 MB


def stale_records(pages: Pages, taken: bytearray, live: Bucket, other: Bucket | None) -> Iterator[Record]:
    """What only pages hold that `live` does not reach, without repetitions.

    First the records below `other`, then those of all other pages by number; last the keys that only a branch page
    still names, with values that are empty and not complete.

    Args:
        pages: the file.
        taken: one byte for each page, 1 for those that `live` reaches.
        live: the root bucket of the database.
        other: the root bucket of another transaction.
    """
    news = _News(live)
    if other is not None:
        for record in other.walk(taken):
            if news.is_new(Place(True, record.path), record.key, record.value):
                yield record
    stale = _StalePages(pages, taken)
    places = Places(stale, [live] if other is None else [live, other]).by_page
    for page in stale:
        place = places[page.number]
        for path, element in _entries(pages, page, place.path) if page.is_leaf else ():
            record = pages.record(page, element, path, State.STALE, rooted=place.rooted)
            if news.is_new(place._replace(path=path), record.key, record.value):
                yield record
    for page in stale:
        place = places[page.number]
        for element in () if page.is_leaf else page.elements:
            if news.is_new_key(place, element.key):
                named = element._replace(complete=False)
                yield pages.record(page, named, place.path, State.STALE, rooted=place.rooted)


class _StalePages:
    """The branch and leaf pages that are not taken, by number."""

    def __init__(self, pages: Pages, taken: bytearray) -> None:
        self.pages = pages
        self._taken = taken
        self._heads = array("Q", (n for n in range(2, pages.count) if not taken[n] and pages.is_head(n)))

    def __iter__(self) -> Iterator[Page]:
        """Each page with as much of its overflow as no other page lies in."""
        for number, following in zip(self._heads, chain(self._heads[1:], (self.pages.count,)), strict=False):
            try:
                yield self.pages.page(number, min(following - number, self.pages.room(number, self._taken)))
            except DamagedData:
                continue  # a freelist


class _News:
    """Tells what was not given out before and what a database does not hold."""

    def __init__(self, live: Bucket) -> None:
        self._bucket = lru_cache(maxsize=64)(lambda path: live.bucket(*path))
        self._marks: set[bytes] = set()

    def is_new(self, place: Place, key: bytes, value: bytes | None) -> bool:
        """Whether an entry is new; None stands for a bucket."""
        self._mark(place, key)
        bucket = self._bucket(place.path) if place.rooted else None
        if bucket is not None and key in bucket and bucket.get(key) == value:
            return False
        return self._mark(place, key, value if value is None else blake2b(value).digest())

    def is_new_key(self, place: Place, key: bytes) -> bool:
        """Whether a key is new, whatever it stands for."""
        bucket = self._bucket(place.path) if place.rooted else None
        return self._mark(place, key) and not (bucket is not None and key in bucket)

    def _mark(self, *what: object) -> bool:
        """Remember; whether it is the first time."""
        if len(self._marks) >= _MAX_MARKS:
            self._marks.clear()
        before = len(self._marks)
        self._marks.add(blake2b(repr(what).encode(), digest_size=16).digest())
        return len(self._marks) > before


def _entries(pages: Pages, page: Page, path: tuple[bytes, ...]) -> Iterator[tuple[tuple[bytes, ...], Element]]:
    """The elements of a leaf page and of the inline buckets in it, each with the path of its bucket."""
    for element in page.elements:
        yield path, element
        if pages.root_of(element) == 0 and len(path) < MAX_DEPTH:
            try:
                inner = pages.inline(page, element)
            except DamagedData:
                continue
            yield from _entries(pages, inner, (*path, element.key))
