"""Records of pages that a bbolt database does not reach any more: what was deleted or written over.

bbolt never writes over a page that is in use: a change goes to other pages, and the old ones keep their content until
they are needed again. Records of the other transaction come with their exact path; for those of all other pages
`bbolt_places` finds out which bucket they belonged to.

Source of the format: go.etcd.io/bbolt, ``node.go`` (spill) and ``internal/freelist``.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from functools import lru_cache
from hashlib import blake2b
from itertools import chain
from typing import TYPE_CHECKING

from forensics_lib.errors import DamagedData
from forensics_lib.formats.bbolt_page import BRANCH, LEAF, MAX_DEPTH, Element, Page, Pages, Record, State
from forensics_lib.formats.bbolt_places import Place, Places

if TYPE_CHECKING:
    from forensics_lib.formats.bbolt import Bucket

__all__ = ["Report", "stale_records"]

_MAX_MARKS = 1_000_000  # of what was given out; some 100 MB

Report = Callable[[DamagedData, int], None]
"""Called with what cannot be read and the number of its page."""


def stale_records(
    pages: Pages, taken: bytearray, live: Bucket, other: Bucket | None, report: Report
) -> Iterator[Record]:
    """What only pages hold that `live` does not reach, without repetitions.

    First the records below `other`, then those of all other pages by number; last the keys that only a branch page
    still names, with values that are empty and not complete.

    Args:
        pages: the file.
        taken: one byte for each page, 1 for those that `live` reaches.
        live: the root bucket of the database.
        other: the root bucket of another transaction.
        report: told about pages that cannot be read.
    """
    news = _News(live)
    if other is not None:
        for record in other.walk(taken):
            if news.is_new(Place(True, record.path), record.key, record.value):
                yield record
    stale = _StalePages(pages, taken, report)
    places = Places(stale, [live] if other is None else [live, other]).by_page
    for page in stale.of_kind(LEAF):
        place = places.get(page.number, Place(False, (), page.number))
        for path, element in _entries(pages, page, place.path):
            record = pages.record(page, element, path, State.STALE, rooted=place.rooted)
            if news.is_new(place._replace(path=path), record.key, record.value):
                yield record
    for page in stale.of_kind(BRANCH):
        place = places.get(page.number, Place(False, (), page.number))
        for element in page.elements:
            if news.is_new_key(place, element.key):
                named = element._replace(complete=False)
                yield pages.record(page, named, place.path, State.STALE, rooted=place.rooted)


class _StalePages:
    """The branch and leaf pages that are not taken, by number."""

    def __init__(self, pages: Pages, taken: bytearray, report: Report) -> None:
        self.pages = pages
        self._taken = taken
        self._report = report
        self._heads = array("Q", (n for n in range(2, pages.count) if not taken[n] and self._kind(n)))

    def __iter__(self) -> Iterator[Page]:
        """All of them."""
        return self.of_kind(LEAF, BRANCH)

    def of_kind(self, *kinds: int) -> Iterator[Page]:
        """Each page with as much of its overflow as no other page lies in."""
        for number, following in zip(self._heads, chain(self._heads[1:], (self.pages.count,)), strict=False):
            if self._kind(number) not in kinds:
                continue
            try:
                yield self.pages.page(number, min(following - number, self.pages.room(number, self._taken)))
            except DamagedData as error:
                self._report(error, number)

    def _kind(self, number: int) -> int:
        try:
            return self.pages.kind(number)
        except DamagedData as error:
            self._report(error, number)
            return 0


class _News:
    """Tells what was not given out before and what a database does not hold."""

    def __init__(self, live: Bucket) -> None:
        self._bucket = lru_cache(maxsize=64)(lambda path: live.bucket(*path) if live.is_sound else None)
        self._marks: set[bytes] = set()
        self._known: set[bytes] = set()
        if not live.is_sound:  # to look up one key may mean to read everything
            for record in live.walk():
                self._known.update(_marks(Place(True, record.path), record.key, record.value))

    def is_new(self, place: Place, key: bytes, value: bytes | None) -> bool:
        """Whether an entry is new; None stands for a bucket."""
        of_key, of_entry = _marks(place, key, value)
        is_new = of_entry not in self._marks and of_entry not in self._known
        if len(self._marks) >= _MAX_MARKS:
            self._marks.clear()
        self._marks.update((of_key, of_entry))
        bucket = self._bucket(place.path) if is_new and place.rooted else None
        return is_new and not (bucket is not None and key in bucket and bucket.get(key) == value)

    def is_new_key(self, place: Place, key: bytes) -> bool:
        """Whether a key is new, whatever it stands for."""
        of_key, _ = _marks(place, key, None)
        is_new = of_key not in self._marks and of_key not in self._known
        self._marks.add(of_key)
        bucket = self._bucket(place.path) if is_new and place.rooted else None
        return is_new and not (bucket is not None and key in bucket)


def _marks(place: Place, key: bytes, value: bytes | None) -> tuple[bytes, bytes]:
    """Digests of a key of a bucket, and of the whole entry."""
    of_key = blake2b(repr((place, key)).encode(), digest_size=16)
    of_entry = of_key.copy()
    of_entry.update(b"bucket" if value is None else b"value" + value)
    return of_key.digest(), of_entry.digest()


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
