"""Raw images that were cut into several files, named ``disk.001``, ``disk.002`` … or ``disk.aa``, ``disk.ab`` … ."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from string import ascii_lowercase
from typing import NamedTuple

from forensics_lib.model import ProblemLog
from forensics_lib.sources.base import Source
from forensics_lib.sources.joined import JoinedSource, MissingSource
from forensics_lib.sources.siblings import Siblings

__all__ = ["open_split"]

_NUMBERED = re.compile(r"(?P<stem>.*?)(?P<suffix>(?<=\.)\d{2,5})", re.DOTALL)
_LETTERED = re.compile(r"(?P<stem>.*?)(?P<suffix>(?<=[.x])[a-z]{2,4})", re.DOTALL)
_MAX_SEGMENTS = 100_000
_MAGIC_LENGTH = 8


class _Scheme(NamedTuple):
    """How the segments of one image are named."""

    stem: str
    width: int
    numbered: bool

    def place(self, name: str) -> int | None:
        """Place of a file in the row of segments; None when it is none of them."""
        suffix = name.removeprefix(self.stem)
        if len(suffix) != self.width or len(suffix) + len(self.stem) != len(name):
            return None
        if self.numbered:
            return int(suffix) if suffix.isascii() and suffix.isdigit() else None
        if any(letter not in ascii_lowercase for letter in suffix):
            return None
        place = 0
        for letter in suffix:
            place = place * 26 + ascii_lowercase.index(letter)
        return place

    def name(self, place: int) -> str:
        """Name of the segment at a place."""
        if self.numbered:
            return f"{self.stem}{place:0{self.width}}"
        letters = ""
        for _ in range(self.width):
            place, rest = divmod(place, 26)
            letters = ascii_lowercase[rest] + letters
        return self.stem + letters


def open_split(first: Source, problems: ProblemLog, siblings: Siblings | None = None) -> Source | None:
    """The image behind the first segment of a split one; None when the file is no such segment.

    Every segment but the last has the size of the first, as the tools cut them. So a segment that is missing in
    between leaves a hole of known size, which is a problem and raises where it is read; that the last ones are missing
    cannot be seen here. A segment that is shorter than the first leaves a hole as well.

    Args:
        first: the segment with the lowest number, 0 or 1 (``.000``, ``.001``, ``.00``, ``.aa``).
        problems: told of missing and short segments.
        siblings: where to look for the others; beside `first` by default.
    """
    siblings = siblings or Siblings(first)
    scheme = _scheme(siblings.name)
    start = None if scheme is None else scheme.place(siblings.name)
    if scheme is None or start is None or start > int(scheme.numbered) or not first.size:
        return None
    places = {place for name in siblings.names() if (place := scheme.place(name)) is not None}
    if start > min(places, default=start) or not start < max(places, default=start) <= _MAX_SEGMENTS:
        return None
    if _is_image(first, siblings.open(scheme.name(min(place for place in places if place > start)))):
        return None
    origin = first.origin.to("split image")
    return JoinedSource([first, *_rest(scheme, start, places, first, siblings.open, problems)], origin)


def _rest(
    scheme: _Scheme,
    start: int,
    places: set[int],
    first: Source,
    open_file: Callable[[str], Source | None],
    problems: ProblemLog,
) -> Iterator[Source]:
    last = max(places)
    for place in range(start + 1, last + 1):
        name = scheme.name(place)
        source = open_file(name) if place in places else None
        if source is None:
            reason = f"segment {name!r} of the image is missing"
            problems.add(first.origin, reason)
            yield MissingSource(first.size, first.origin, reason)
            continue
        yield source
        if source.size < first.size and place != last:
            reason = f"segment {name!r} has {source.size} bytes, {first.size} were expected"
            problems.add(source.origin, reason)
            yield MissingSource(first.size - source.size, source.origin, reason)


def _is_image(first: Source, following: Source | None) -> bool:
    """Whether both files begin with the same magic, so that each is an image by itself."""
    if following is None:
        return False
    try:
        head = first.read_at(0, _MAGIC_LENGTH)
        return any(head) and head == following.read_at(0, _MAGIC_LENGTH)
    finally:
        following.close()


def _scheme(name: str) -> _Scheme | None:
    for numbered, pattern in ((True, _NUMBERED), (False, _LETTERED)):
        match = pattern.fullmatch(name)
        if match:
            return _Scheme(match["stem"], len(match["suffix"]), numbered)
    return None
