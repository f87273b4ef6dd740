"""Records of pages that no transaction of a bbolt database reaches any more, and the bucket each one belonged to.

bbolt never writes over a page that is in use: a change goes to other pages, and the old ones keep their content until
they are needed again. Such a page does not say which bucket it is from. Two things tell:

* Entries in common: a page is an older version of the bucket with which it shares more entries than it contradicts, if
  there is just one such bucket.
* Pointers: a page of a known bucket names it as the root of an inner bucket, or is a branch page whose key and range
  agree with its keys. A page may have been used anew since it was pointed to; where pointers contradict each other,
  only the inner names that all of them give are kept.

Both are inferences, to be confirmed by what the records say. A path that does not reach up to the root says so.

Source of the format: go.etcd.io/bbolt, ``node.go`` (spill) and ``internal/freelist``.
"""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from functools import lru_cache
from hashlib import blake2b
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, NamedTuple

from forensics_lib.errors import DamagedData
from forensics_lib.formats.bbolt_page import MAX_DEPTH, Element, Page, Pages, Record, State

if TYPE_CHECKING:
    from forensics_lib.formats.bbolt import Bucket

__all__ = ["stale_records"]

_MAX_ENTRIES = 250_000  # that are compared with each other; some 100 MB
_MAX_MARKS = 1_000_000  # of what was given out; some 100 MB
_MAX_SHARED = 4  # an entry that more buckets have in common tells nothing
_MAX_POINTERS = 64  # to one page that are looked at
_MAX_CANDIDATES = 8  # buckets that a page is compared with
_TOLERANCE = 1 / 4  # entries that an older version of a bucket may contradict, for each one that it shares
_MAX_ROUNDS = 2 * MAX_DEPTH


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
            if news.is_new(_Place(True, record.path), record.key, record.value):
                yield record
    stale = _StalePages(pages, taken)
    places = _Places(stale, [live] if other is None else [live, other]).places
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


class _Place(NamedTuple):
    """A bucket: by its path from the root, or by the known names below an unknown bucket, which a page stands for."""

    rooted: bool
    path: tuple[bytes, ...]
    page: int = 0


class _Entry(NamedTuple):
    """Hashes of a key, and of what of its element stays as it is while the elements beside it change."""

    key: int
    whole: int


class _Pointer(NamedTuple):
    """From a page to another: by the name of a bucket (parent to child), or as a branch (None; either way)."""

    page: int
    name: bytes | None


class _Branch(NamedTuple):
    """An element of a branch page: from its key up to the following one."""

    page: int
    key: bytes
    following: bytes | None


class _StalePages:
    """The branch and leaf pages that are not taken, by number."""

    def __init__(self, pages: Pages, taken: bytearray) -> None:
        self.pages = pages
        self._taken = taken
        self._heads = array("Q", (n for n in range(2, pages.count) if not taken[n] and pages.is_head(n)))

    def __iter__(self) -> Iterator[Page]:
        """Each page with as much of its overflow as neither another page nor a taken one lies in."""
        for number, following in zip(self._heads, chain(self._heads[1:], (self.pages.count,)), strict=False):
            try:
                yield self.pages.page(number, min(following - number, self.pages.room(number, self._taken)))
            except DamagedData:
                continue  # a freelist


class _Places:
    """Finds out which bucket each stale page belonged to.

    Attributes:
        places: by page number.
    """

    def __init__(self, stale: _StalePages, known: Iterable[Bucket]) -> None:
        self.places: dict[int, _Place] = {}
        self._pages = stale.pages
        self._entries: dict[int, list[_Entry]] = {}
        self._pointers: dict[int, list[_Pointer]] = defaultdict(list)
        self._shared: dict[int, list[_Place]] = {}  # by hash of a whole entry: the buckets that hold it
        self._held: set[int] = set()  # hashes of (bucket, key)
        self._splits: set[int] = set()  # hashes of the keys with which second and later pages begin
        self._outside: dict[int, list[_Branch]] = defaultdict(list)  # by child, which is no stale page
        self._read(stale)
        self._compare_with(known)
        self._settle(tolerance=0)
        self._settle(tolerance=_TOLERANCE)
        for number in self._open():
            if not self._pointers[number]:
                self._assign(number, self._alike(number, _TOLERANCE) or _Place(False, (), number))
        self._settle(tolerance=_TOLERANCE)
        for number in self._open():
            names = _common_end([place.path for place in self._pointed(number)])
            self._assign(number, self._alike(number, _TOLERANCE) or _Place(False, names, number))

    def _read(self, stale: _StalePages) -> None:
        ends: dict[int, tuple[bytes, bytes] | None] = {}
        budget = _MAX_ENTRIES
        for page in stale:
            ends[page.number] = _ends(page)
            self._entries[page.number] = []
            if not page.is_leaf:
                self._splits.update(hash(element.key) for element in page.elements[1:])
            elif len(page.elements) <= budget:
                budget -= len(page.elements)
                self._entries[page.number] = [_entry(self._pages, element) for element in page.elements]
        for page in stale:
            if page.is_leaf:
                for element in page.elements:
                    child = self._pages.root_of(element) or 0
                    self._name(page.number, element.key, child, ends.get(child))
                continue
            for element, following in zip_longest(page.elements, page.elements[1:]):
                branch = _Branch(page.number, element.key, following.key if following else None)
                if element.child in ends:
                    self._branch_off(branch, element.child, ends[element.child])
                else:
                    self._outside[element.child].append(branch)

    def _compare_with(self, known: Iterable[Bucket]) -> None:
        keys = {entry.key for entries in self._entries.values() for entry in entries}
        for root in known:
            for bucket, page, element in root.entries():
                place = _Place(True, bucket.path)
                if page.span and page.number in self._outside:
                    self.places[page.number] = place
                    for branch in self._outside.pop(page.number):
                        self._branch_off(branch, page.number, _ends(page))
                if hash(element.key) in keys:
                    self._learn(place, _entry(self._pages, element))

    def _name(self, parent: int, name: bytes, child: int, ends: tuple[bytes, bytes] | None) -> None:
        """A leaf page names a page as the root of a bucket: not so, if that is a second or later page of one."""
        if ends and hash(ends[0]) not in self._splits:
            self._point(child, _Pointer(parent, name))

    def _branch_off(self, branch: _Branch, child: int, ends: tuple[bytes, bytes] | None) -> None:
        """A branch page has a page as its child: so it is, if that has these keys."""
        if ends and ends[0] == branch.key and (branch.following is None or ends[1] < branch.following):
            self._point(child, _Pointer(branch.page, None))
            self._point(branch.page, _Pointer(child, None))

    def _point(self, number: int, pointer: _Pointer) -> None:
        if number != pointer.page and len(self._pointers[number]) < _MAX_POINTERS:
            self._pointers[number].append(pointer)

    def _learn(self, place: _Place, entry: _Entry) -> None:
        self._held.add(hash((place, entry.key)))
        places = self._shared.setdefault(entry.whole, [])
        if len(places) <= _MAX_SHARED and place not in places:
            places.append(place)

    def _open(self) -> list[int]:
        return [number for number in self._entries if number not in self.places]

    def _settle(self, tolerance: float) -> None:
        """Go from what is known to what follows from it, until nothing does."""
        for _ in range(_MAX_ROUNDS):
            before = len(self.places)
            for number in self._open():
                place = self._infer(number, tolerance)
                if place is not None:
                    self._assign(number, place)
            if len(self.places) == before:
                return

    def _infer(self, number: int, tolerance: float) -> _Place | None:
        alike, pointed = self._alike(number, tolerance), self._pointed(number)
        rooted = {place for place in pointed if place.rooted}
        if alike is not None and (not tolerance or not rooted or alike in rooted):
            return alike
        best = rooted or pointed
        return next(iter(best)) if len(best) == 1 else None

    def _assign(self, number: int, place: _Place) -> None:
        self.places[number] = place
        for entry in self._entries[number]:
            self._learn(place, entry)

    def _alike(self, number: int, tolerance: float) -> _Place | None:
        """The bucket that a page shares entries with, and contradicts in no more than a part of them.

        None when there is none, or no single best one.
        """
        telling = []
        for entry in self._entries[number]:
            places = self._shared.get(entry.whole, [])
            if len(places) <= _MAX_SHARED:
                telling.append((entry.key, places))
        votes = Counter(place for _, places in telling for place in places)
        scores: Counter[_Place] = Counter()
        for place, same in votes.most_common(_MAX_CANDIDATES):
            other = sum(place not in places and hash((place, key)) in self._held for key, places in telling)
            if other <= tolerance * same:
                scores[place] = same - other
        best = scores.most_common(2)
        return best[0][0] if best and (len(best) == 1 or best[0][1] > best[1][1]) else None

    def _pointed(self, number: int) -> set[_Place]:
        """The buckets that the pages around a page make it part of, as far as they are known themselves."""
        found = set()
        for pointer in self._pointers[number]:
            place = self.places.get(pointer.page)
            if place is not None and len(place.path) < MAX_DEPTH:
                found.add(place if pointer.name is None else place._replace(path=(*place.path, pointer.name)))
        return found


class _News:
    """Tells what was not given out before and what a database does not hold."""

    def __init__(self, live: Bucket) -> None:
        self._bucket = lru_cache(maxsize=64)(lambda path: live.bucket(*path))
        self._marks: set[bytes] = set()

    def is_new(self, place: _Place, key: bytes, value: bytes | None) -> bool:
        """Whether an entry is new; None stands for a bucket."""
        self._mark(place, key)
        bucket = self._bucket(place.path) if place.rooted else None
        if bucket is not None and key in bucket and bucket.get(key) == value:
            return False
        return self._mark(place, key, value if value is None else blake2b(value).digest())

    def is_new_key(self, place: _Place, key: bytes) -> bool:
        """Whether a key is new."""
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
        if element.is_bucket and pages.root_of(element) == 0 and len(path) < MAX_DEPTH:
            try:
                inner = pages.inline(page, element)
            except DamagedData:
                continue
            yield from _entries(pages, inner, (*path, element.key))


def _ends(page: Page) -> tuple[bytes, bytes] | None:
    return (page.elements[0].key, page.elements[-1].key) if page.elements else None


def _entry(pages: Pages, element: Element) -> _Entry:
    has_pages = bool(pages.root_of(element))  # which are other ones whenever something in them changes
    return _Entry(hash(element.key), hash((element.key, element.is_bucket, None if has_pages else element.value)))


def _common_end(paths: list[tuple[bytes, ...]]) -> tuple[bytes, ...]:
    """The names in which all paths end."""
    length = 0
    for names in zip(*(reversed(path) for path in paths), strict=False):
        if len(set(names)) > 1:
            break
        length += 1
    return paths[0][len(paths[0]) - length :] if length else ()
