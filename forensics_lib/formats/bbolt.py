"""bbolt and BoltDB databases, read for evidence: what is there, what was there, and what contradicts itself.

Reads files of either byte order and any page size, with or without a stored freelist, nested and inline buckets.
The newest transaction is read; when its tree is damaged (a copy taken while the file was written), the one before it.
What the values mean is the business of whoever wrote them.

Specification: the sources of go.etcd.io/bbolt, ``internal/common`` and ``db.go``.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from functools import cached_property

from forensics_lib.errors import DamagedData, LimitExceeded
from forensics_lib.formats.bbolt_meta import Meta
from forensics_lib.formats.bbolt_page import MAX_DEPTH, Element, Page, Pages, Record, State
from forensics_lib.formats.bbolt_stale import stale_records
from forensics_lib.model import ProblemLog
from forensics_lib.sources.base import Source

__all__ = ["Bolt", "Bucket", "Meta", "Record", "State", "Walk"]

_MAX_FAULTS = 1000


class Bolt:
    """One database file.

    Not supported: files of BoltDB's version 1 (before 2014), and single pages of more than 64 MiB.

    Attributes:
        metas: the meta pages that were found: the valid ones first, the newest first.
        meta: the one whose transaction is read.
        root: its root bucket; it holds the buckets of the first level.
        problems: what contradicts the format.
    """

    def __init__(self, source: Source, problems: ProblemLog | None = None) -> None:
        """Find the newest sound transaction; walks its whole tree once.

        Raises:
            UnsupportedFormat: this is no bbolt database.
        """
        self.problems = ProblemLog() if problems is None else problems
        self._pages = Pages(source)
        self.metas = self._pages.metas
        self._tree, self._other = self._choose()
        self.meta = self._tree.meta
        self.root = self._tree.root
        self._report()

    @cached_property
    def previous(self) -> Bucket | None:
        """The root bucket of the other meta page: the database as it was before its last transaction.

        Where the newest transaction is damaged, it is that one. None when there is no second valid meta page.
        """
        if self._other is None:
            return None
        for fault in self._other.faults:
            self._add(fault)
        return self._other.root

    def stale(self) -> Iterator[Record]:
        """Deleted and overwritten records: what only those pages hold that the database does not reach.

        First comes what the other meta page reaches, then all other pages by number, last the keys that only a branch
        page still names (no value, not complete). Repetitions are left out, and what the database still holds in the
        same bucket. Paths in `State.STALE` are inferred, see `bbolt_places`.
        """
        other = self._other.root if self._other else None
        return stale_records(self._pages, bytearray(self._tree.reached), self.root, other, self._report_page)

    def _choose(self) -> tuple[_Tree, _Tree | None]:
        """The tree to read and the other one."""
        trees = [_Tree(self._pages, meta) for meta in self.metas if meta.valid]
        if len(trees) < 2:
            return trees[0] if trees else _Tree(self._pages, self.metas[0]), None
        newest, older = trees
        if newest.faults and not older.faults:
            newest.state = State.NEWER
            self.problems.add(
                newest.meta.origin,
                f"transaction {newest.meta.txid} is damaged, transaction {older.meta.txid} is read instead: "
                f"{newest.faults[0]} ({newest.faults[0].origin})",
            )
            return older, newest
        older.state = State.PREVIOUS
        return newest, older

    def _report(self) -> None:
        """What contradicts the format, whatever is asked later."""
        origin = self._pages.source.origin
        for page in sorted({0, 1} - {meta.page for meta in self.metas if meta.valid}):
            self.problems.add(origin, f"meta page {page} is damaged")
        missing = self.meta.high_water - self._pages.count
        lost = sum(isinstance(fault, _Lost) for fault in self._tree.faults)
        if missing > 0:
            message = f"the file ends {missing} pages before the end of the database"
            self.problems.add(origin, f"{message}; {lost} that are in use are lost" if lost else message)
        for fault in (*self._tree.faults, *self._tree.freelist_faults):
            if not isinstance(fault, _Lost):
                self._add(fault)

    def _report_page(self, error: DamagedData, number: int) -> None:
        self.problems.add(self._pages.origin(number), error)

    def _add(self, fault: DamagedData) -> None:
        self.problems.add(fault.origin or self._pages.source.origin, fault)


class Bucket:
    """A bucket: values and further buckets by key, in byte order.

    What cannot be read is left out; the problems of the database name it.

    Attributes:
        path: names of the buckets around it and its own; empty for the root.
        sequence: its counter; it goes on counting when what it numbered is deleted.
    """

    __slots__ = ("_root", "_tree", "path", "sequence")

    def __init__(self, tree: _Tree, path: tuple[bytes, ...], root: int | Page, sequence: int) -> None:
        """Read from a page, or from the page inside an inline bucket."""
        self._tree = tree
        self._root = root
        self.path = path
        self.sequence = sequence

    def __repr__(self) -> str:
        """Path and place."""
        return f"Bucket({b'/'.join(self.path)!r}, {'inline' if isinstance(self._root, Page) else f'page {self._root}'})"

    @property
    def is_sound(self) -> bool:
        """Whether nothing was found to be wrong with the tree that it is part of."""
        return not self._tree.faults

    def keys(self) -> Iterator[bytes]:
        """The keys of its values."""
        return (key for key, _ in self.items())

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Its keys and values, without the buckets."""
        for page in self._leaves(self._tree.walk()):
            yield from ((e.key, e.value) for e in page.elements if e.complete and not e.is_bucket)

    def buckets(self) -> Iterator[tuple[bytes, Bucket]]:
        """The buckets in it and their names."""
        walk = self._tree.walk()
        for page in self._leaves(walk):
            for element in page.elements:
                bucket = self._open(page, element, walk)
                if bucket is not None:
                    yield element.key, bucket

    def get(self, key: bytes) -> bytes | None:
        """The value of a key; None when there is none, or when it is a bucket."""
        found = self._find(key)
        return found[1].value if found and found[1].complete and not found[1].is_bucket else None

    def bucket(self, *names: bytes) -> Bucket | None:
        """A bucket below this one by its names, outermost first; None when one of them is missing."""
        bucket: Bucket | None = self
        for name in names:
            found = bucket._find(name) if bucket else None
            bucket = bucket._open(*found, self._tree.walk()) if bucket and found else None
        return bucket

    def __contains__(self, key: bytes) -> bool:
        """Whether there is a value or a bucket of that key."""
        return self._find(key) is not None

    def walk(self, visited: bytearray | None = None) -> Iterator[Record]:
        """Every entry of this bucket and of the buckets below it; a bucket comes before what it holds.

        Args:
            visited: one byte for each page of the file, 1 for those to leave out; those that are read are added.
        """
        for bucket, page, element in self.entries(self._tree.walk(visited)):
            yield self._tree.pages.record(page, element, bucket.path, self._tree.state)

    def entries(self, walk: Walk | None = None) -> Iterator[tuple[Bucket, Page, Element]]:
        """As `walk`, as the pages and elements themselves."""
        walk = walk or self._tree.walk()
        for page in self._leaves(walk):
            for element in page.elements:
                yield self, page, element
                bucket = self._open(page, element, walk)
                if bucket is not None:
                    yield from bucket.entries(walk)

    def _leaves(self, walk: Walk) -> Iterator[Page]:
        """The leaf pages in key order."""
        return iter((self._root,)) if isinstance(self._root, Page) else walk.leaves(self._root)

    def _open(self, page: Page, element: Element, walk: Walk) -> Bucket | None:
        """The bucket of an element; None when it is a value or damaged."""
        if not element.is_bucket:
            return None
        try:
            if len(self.path) >= MAX_DEPTH:
                raise LimitExceeded(f"buckets are nested more than {MAX_DEPTH} deep")
            root, sequence = self._tree.pages.bucket_header(element)
            inner = root or self._tree.pages.inline(page, element)
        except DamagedData as error:
            walk.fault(error, page.number, element.offset)
            return None
        if isinstance(inner, Page):
            walk.check(inner, element.offset)
        return Bucket(self._tree, (*self.path, element.key), inner, sequence)

    def _find(self, key: bytes) -> tuple[Page, Element] | None:
        """The entry of a key: by way of the branches in a sound tree, else by reading page after page."""
        if not self.is_sound:
            entries = ((page, e) for page in self._leaves(self._tree.walk()) for e in page.elements)
            return next(((page, element) for page, element in entries if element.key == key), None)
        page = self._root if isinstance(self._root, Page) else self._tree.pages.page(self._root)
        while not page.is_leaf:
            index = bisect_right(page.elements, key, key=_key_of) - 1
            page = self._tree.pages.page(page.elements[max(index, 0)].child)
        index = bisect_left(page.elements, key, key=_key_of)
        found = index < len(page.elements) and page.elements[index].key == key
        return (page, page.elements[index]) if found else None


class _Lost(DamagedData):
    """A page behind the end of a file that was cut, which is one fault whatever lay there."""


class Walk:
    """One walk over a tree: which pages it has visited and what it found wrong. A page is visited once.

    Attributes:
        visited: one byte for each page of the file, 1 for those that were visited.
        faults: what breaks a rule; the first thousand.
    """

    def __init__(self, pages: Pages, end: int, visited: bytearray) -> None:
        """Walk over the pages before `end` that were not visited yet."""
        self.pages = pages
        self.end = end
        self.visited = visited
        self.faults: list[DamagedData] = []

    def leaves(self, number: int, low: bytes = b"", high: bytes | None = None, depth: int = 0) -> Iterator[Page]:
        """The leaf pages below a page, in key order; their keys lie from `low` up to, not including, `high`."""
        page = self._visit(number, depth)
        if page is None:
            return
        keys = [element.key for element in page.elements]
        if keys and (keys[0] < low or (high is not None and keys[-1] >= high)):
            self.fault("its keys do not belong to where the branch page has it", number)
        if page.is_leaf:
            yield page
            return
        for index, element in enumerate(page.elements, 1):
            upper = keys[index] if index < len(keys) else high
            yield from self.leaves(element.child, element.key, upper, depth + 1)

    def check(self, page: Page, offset: int | None = None) -> None:
        """Take over the faults of a page."""
        for message in page.faults:
            self.fault(message, page.number, offset)
        if not page.is_leaf and not page.elements:
            self.fault("a branch page without children", page.number)

    def fault(self, error: DamagedData | str, number: int, offset: int | None = None) -> None:
        """Note what is wrong with a page, or with an element at a byte offset of the file."""
        kind = DamagedData if isinstance(error, str) else type(error)
        if len(self.faults) == _MAX_FAULTS:
            kind, error = LimitExceeded, f"more than {_MAX_FAULTS} faults; no more are listed"
        if len(self.faults) <= _MAX_FAULTS:
            self.faults.append(kind(str(error), origin=self.pages.origin(number, offset), offset=offset))

    def _visit(self, number: int, depth: int) -> Page | None:
        try:
            if depth > MAX_DEPTH:
                raise LimitExceeded(f"branch pages are nested more than {MAX_DEPTH} deep")
            if number >= self.end:
                raise DamagedData("the page lies beyond the end")
            if number >= self.pages.count:
                raise _Lost("the page lies beyond the end of the file")
            if self.visited[number]:
                raise DamagedData("the page is used a second time")
            page = self.pages.page(number, self.pages.room(number, self.visited))
        except DamagedData as error:
            self.fault(error, number)
            return None
        self.visited[number : number + page.span] = b"\1" * page.span
        self.check(page)
        return page


class _Tree:
    """The database of one meta page."""

    def __init__(self, pages: Pages, meta: Meta) -> None:
        self.pages = pages
        self.meta = meta
        self.state = State.LIVE
        self.root = Bucket(self, (), meta.root, meta.sequence)

    def walk(self, visited: bytearray | None = None) -> Walk:
        """A new walk over the pages that were not visited yet."""
        if visited is None:
            visited = bytearray(self.pages.count)
            visited[:2] = b"\1\1"  # the meta pages
        return Walk(self.pages, self.meta.high_water, visited)

    @property
    def faults(self) -> list[DamagedData]:
        """What is wrong with its pages."""
        return self._survey.faults

    @property
    def reached(self) -> bytearray:
        """One byte for each page of the file, 1 for those that belong to it."""
        return self._freelist.visited

    @property
    def freelist_faults(self) -> list[DamagedData]:
        """What is wrong with its list of free pages; nothing that is read depends on it."""
        return self._freelist.faults

    @cached_property
    def _survey(self) -> Walk:
        walk = self.walk()
        for _ in self.root.entries(walk):
            pass
        return walk

    @cached_property
    def _freelist(self) -> Walk:
        walk = Walk(self.pages, self.meta.high_water, bytearray(self._survey.visited))
        number = self.meta.freelist
        if number is None:
            return walk
        try:
            span, free = self.pages.free_pages(number)
        except DamagedData as error:
            walk.fault(error, number)
            return walk
        if any(not 2 <= page < walk.end for page in free):
            walk.fault("lists pages as free that are not there", number)
        if any(page < len(walk.visited) and walk.visited[page] for page in free):
            walk.fault("lists pages as free that are in use", number)
        walk.visited[number : number + span] = b"\1" * span
        return walk


def _key_of(element: Element) -> bytes:
    return element.key
