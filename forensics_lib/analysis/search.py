"""A text, bytes or a pattern, looked for in everything the evidence holds."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from heapq import merge
from itertools import islice
from typing import NamedTuple, TypeAlias

from forensics_lib.analysis.contents import Data, contents
from forensics_lib.analysis.inventory import Inventory, TextDocument
from forensics_lib.errors import LimitExceeded
from forensics_lib.images.image import Image
from forensics_lib.model import Origin, ProblemLog, Progress

__all__ = ["Hit", "image_documents", "search"]

_MAX_HITS = 10_000
_MAX_MATCH = 4096
_CONTEXT = 80
_TOLD_BY = 8192  # bytes in which a NUL makes a file binary, as grep and git have it
_STEP = 1 << 20

_Finder: TypeAlias = "Callable[[Data], Iterator[tuple[int, int]]]"


@dataclass(frozen=True, slots=True)
class Hit:
    """One place where the pattern was found.

    Attributes:
        owner: a layer's digest for its files, an image's id for its documents, the evidence's name for what lies
            beside the layers.
        path: path inside the owner; for documents which one it is: the variable, label or step.
        where: ``content`` or ``name`` of a file, ``config``, ``env``, ``history`` or ``label`` of an image.
        offset: bytes from the start of the content or of the document's text in UTF-8; None for names.
        line: number of its line, 1 for the first; None for names and in binary files.
        match: the bytes that were found, the first 4,096 of them.
        context: the same with up to 80 bytes before and after; in text no further than its line.
        origin: where the content, name or document is recorded.
    """

    owner: str
    path: str
    where: str
    offset: int | None
    line: int | None
    match: bytes
    context: bytes
    origin: Origin


def search(
    inventory: Inventory,
    pattern: str | bytes | re.Pattern[str] | re.Pattern[bytes],
    *,
    ignore_case: bool = False,
    progress: Progress | None = None,
) -> Iterator[Hit]:
    r"""A row for every place where the pattern is found, also in files that later layers hide.

    Looked through are the contents and names of all files, every name that layers store (whiteouts too, which name
    what they delete), and the documents of images. At most 10,000 hits are listed of one file; that there are more is
    a problem of its path.

    Args:
        inventory: what there is.
        pattern: text is looked for as it stands, in UTF-8 and UTF-16 (little endian, as Windows writes it); bytes as
            they stand; for a regular expression give ``re.compile(...)``. One of text works on the bytes all the same:
            it has to be ASCII, and ``\w`` and its like know ASCII only.
        ignore_case: take upper and lower case for the same.
        progress: told of stored bytes done and in total.

    A match may be of any length and lie anywhere: contents are searched as a whole, large ones through a temporary
    file, so memory is bounded. The time that a regular expression takes is not: one that backtracks without end
    (``(a+)+b``) does so on hostile data, and Python cannot interrupt it.

    Raises:
        ValueError: the pattern can match nothing at all, or is a regular expression of text beyond ASCII. Told at
            once, except for a pattern that matches nothing only in certain surroundings (``(?=a)``).
    """
    return _hits(inventory, _finder(pattern, ignore_case), progress)


def image_documents(image: Image) -> Iterator[TextDocument]:
    """What can be searched of an image besides its files; history steps are counted from 0, the oldest."""
    config = image.config
    origin = image.origin.to(f"configuration {image.config_digest or image.id}")

    def document(kind: str, name: str, text: str, place: str) -> TextDocument:
        return TextDocument(image.id, kind, name, text, origin.to(place) if place else origin)

    if image.raw_config is not None:
        yield document("config", "configuration", image.raw_config.decode("utf-8", "surrogateescape"), "")
    for index, variable in enumerate(config.env):
        yield document("env", variable.partition("=")[0], variable, f"Env[{index}]")
    for name, value in config.label_pairs:
        yield document("label", name, f"{name}={value}", f"Labels[{name}]")
    for index, step in enumerate(config.history):
        for field, text in (("created_by", step.created_by), ("comment", step.comment), ("author", step.author)):
            if text:
                yield document("history", f"step {index}", text, f"history[{index}].{field}")


class _Place(NamedTuple):
    """A hit, without what is said of its file."""

    offset: int
    line: int | None
    match: bytes
    context: bytes


class _Places(NamedTuple):
    found: tuple[_Place, ...]
    more: bool = False


def _hits(inventory: Inventory, find: _Finder, progress: Progress | None) -> Iterator[Hit]:
    known = set()
    beside = {node.path.lstrip("/") for node in inventory.blobs}
    for document in inventory.documents:
        text = _encoded(document.text)
        known.add(hashlib.sha256(text).hexdigest())
        places = _places(find, text, "")
        yield from _rows(document.owner, document.name, document.kind, document.origin, places, inventory.problems)
    work = partial(_places, find)
    for seen in contents(inventory, work, threads=1, progress=progress):
        name = _encoded(seen.path)
        for place in _places(find, name, "").found[:1]:
            yield Hit(seen.owner, seen.path, "name", None, None, place.match, place.context, seen.origin)
        if seen.sha256 in known and seen.owner == inventory.name and seen.path in beside:
            continue  # a configuration, which was shown as what it is
        if seen.result is not None:
            yield from _rows(seen.owner, seen.path, "content", seen.origin, seen.result, inventory.problems)


def _rows(owner: str, path: str, where: str, origin: Origin, places: _Places, problems: ProblemLog) -> Iterator[Hit]:
    for place in places.found:
        yield Hit(owner, path, where, *place, origin)
    if places.more:
        problems.add(origin, LimitExceeded(f"{path}: more than {_MAX_HITS} hits; no more are listed", origin=origin))


_NOWHERE = _Places(())


def _places(find: _Finder, data: Data, path: str) -> _Places:
    """Where the pattern is found in one content."""
    spans = list(islice(find(data), _MAX_HITS + 1))
    if not spans:
        return _NOWHERE
    is_text = b"\0" not in data[:_TOLD_BY]
    found = []
    line, counted = 1, 0
    for start, end in spans[:_MAX_HITS]:
        before, after = max(0, start - _CONTEXT), min(end, start + _MAX_MATCH)
        context = data[before : after + _CONTEXT]
        if is_text:
            line += _count_lines(data, counted, start)
            counted = start
            left = context.rfind(b"\n", 0, start - before) + 1
            right = context.find(b"\n", after - before)
            context = context[left : None if right < 0 else right]
        found.append(_Place(start, line if is_text else None, data[start:after], context))
    return _Places(tuple(found), len(spans) > _MAX_HITS)


def _count_lines(data: Data, start: int, end: int) -> int:
    return sum(data[at : min(at + _STEP, end)].count(b"\n") for at in range(start, end, _STEP))


def _finder(pattern: str | bytes | re.Pattern[str] | re.Pattern[bytes], ignore_case: bool) -> _Finder:
    """A function that finds (start, end) of every match that does not overlap the one before."""
    if isinstance(pattern, re.Pattern):
        compiled = _on_bytes(pattern, ignore_case)
        if compiled.search(b"") is not None:
            raise ValueError(f"the pattern {pattern.pattern!r} also matches nothing at all, which is everywhere")
        return partial(_find_pattern, compiled)
    if not pattern:
        raise ValueError("nothing to search for")
    if not ignore_case:
        needles = {pattern} if isinstance(pattern, bytes) else {_encoded(pattern), _utf16(pattern)}
        shortest = min(needles, key=len)  # "a" is found in UTF-16 as well; that is one place, not two
        return partial(_find_bytes, [one for one in needles if one == shortest or shortest not in one])
    if isinstance(pattern, bytes):
        return partial(_find_pattern, re.compile(re.escape(pattern), re.IGNORECASE))
    spellings = ("".join(_any_case(pattern, encode)) for encode in (_encoded, _utf16))
    return partial(_find_pattern, re.compile("|".join(spellings).encode("latin-1"), re.DOTALL))


def _on_bytes(pattern: re.Pattern[str] | re.Pattern[bytes], ignore_case: bool) -> re.Pattern[bytes]:
    text, flags = pattern.pattern, pattern.flags
    if isinstance(text, str):
        if not text.isascii():
            raise ValueError(f"the pattern {text!r} is not ASCII: files are bytes, so give a pattern of bytes")
        text, flags = text.encode(), flags & ~re.UNICODE
    try:
        return re.compile(text, flags | re.IGNORECASE if ignore_case else flags)
    except re.error as error:
        raise ValueError(f"the pattern {pattern.pattern!r} does not work on bytes: {error}") from error


def _find_pattern(pattern: re.Pattern[bytes], data: Data) -> Iterator[tuple[int, int]]:
    for match in pattern.finditer(data):
        start, end = match.span()
        if start == end:
            raise ValueError(f"the pattern {pattern.pattern!r} matches nothing at all at {start}, and so everywhere")
        yield start, end


def _find_bytes(needles: Iterable[bytes], data: Data) -> Iterator[tuple[int, int]]:
    def every(needle: bytes) -> Iterator[tuple[int, int]]:
        at = data.find(needle)
        while at >= 0:
            yield at, at + len(needle)
            at = data.find(needle, at + len(needle))

    return merge(*map(every, needles))


def _any_case(text: str, encode: Callable[[str], bytes]) -> Iterator[str]:
    """A pattern for each character, in which its bytes stand for themselves (as Latin-1)."""
    for character in text:
        forms = sorted({character, character.lower(), character.upper()})
        if character.isascii():  # sets are three times as fast as alternatives
            yield f"[{re.escape(''.join(forms))}]{encode(character)[1:].decode('latin-1')}"
        else:
            yield f"(?:{'|'.join(re.escape(encode(form).decode('latin-1')) for form in forms)})"


def _encoded(text: str) -> bytes:
    """The bytes a text was decoded from; a surrogate that stands for no byte (JSON can hold one) as it would be."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def _utf16(text: str) -> bytes:
    return text.encode("utf-16-le", "surrogatepass")
