"""Words and values of Dockerfiles, and of the Go values that builders print into an image's history.

Formats: the Dockerfile reference (shell and exec form, escape character, quoting) and Go's ``fmt`` verbs ``%q`` and
``%v``, with which Docker's builders write lists (``["a" "b"]``, ``[a b]``) and durations (``1m30s``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from itertools import islice

__all__ = [
    "duration",
    "escaped",
    "exec_form",
    "is_plain",
    "literal",
    "parse_list",
    "quoted",
    "split_known",
    "split_pairs",
]

_MAX_SPACED = 20
"""Most known items with spaces that `split_known` looks for: evidence decides how many there are."""

# What can end a line, move the cursor or turn the reading direction; and bytes that are no UTF-8 (surrogates).
_CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_NAMED = {"\n": "\\n", "\r": "\\r", "\f": "\\f", "\v": "\\v"}
_BARE = re.compile(r"[\w@%+=:,./-]+")
_KEY = re.compile(r"([^\s=\"'\\$`]+)=")
_NEXT_KEY = re.compile(r" (?=[A-Za-z_][\w./-]*=)")
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{3})|(.))", re.DOTALL)
_SEPARATOR = re.compile(r",?\s*")
_SIMPLE = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


def is_plain(text: str) -> bool:
    """Whether the text is one line that shows as it is: no control, line or direction characters, no broken UTF-8."""
    return _CONTROL.search(text) is None


def escaped(text: str) -> str:
    r"""The text as one line, every character that `is_plain` refuses written as ``\n``, ``\x1b`` or ``\u2028``."""
    return _CONTROL.sub(lambda found: _escape(found[0]), text)


def quoted(value: str, escape: str = "\\") -> str:
    """The value of an ENV, LABEL or ARG: as it is, or in double quotes so that it is read back unchanged."""
    if _BARE.fullmatch(value):
        return value
    special = re.compile(rf'(["${re.escape(escape)}])')
    return '"' + special.sub(lambda found: escape + found[1], value) + '"'


def literal(text: str, escape: str = "\\") -> str:
    """A word outside quotes, with no quote, variable or escape left to be read as one."""
    return re.sub(rf"([\"'${re.escape(escape)}])", lambda found: escape + found[1], text)


def exec_form(arguments: Iterable[str]) -> str:
    """The exec form, a JSON array on one line in which nothing looks like the start of a here-document."""
    values = list(arguments)
    text = json.dumps(values, ensure_ascii=not all(is_plain(value) for value in values))
    return text.replace("<<", r"\u003c\u003c")


def parse_list(text: str) -> tuple[str, ...] | None:
    """The texts of ``["a" "b"]`` (Go) or ``["a", "b"]`` (JSON); None when the text is no such list."""
    if not (text.startswith("[") and text.endswith("]")):
        return None
    values: list[str] = []
    at, end = 1, len(text) - 1
    while at < end:
        found = _STRING.match(text, at, end)
        if found is None:
            return None
        values.append(_ESCAPE.sub(_unescape, found[1]))
        at = found.end()
        separator = _SEPARATOR.match(text, at, end)
        at = separator.end() if separator else at
    return tuple(values)


def split_known(text: str, known: Iterable[str]) -> list[str]:
    """The items of Go's ``[a b c]`` without its brackets: split at spaces, known items with spaces kept whole."""
    spaced = sorted(islice((item for item in known if " " in item), _MAX_SPACED), key=len, reverse=True)
    items: list[str] = []
    at = 0
    while at < len(text):
        end = next((at + len(item) for item in spaced if _stands_at(text, item, at)), -1)
        if end < 0:
            end = text.find(" ", at)
        end = len(text) if end < 0 else end
        if end > at:
            items.append(text[at:end])
        at = end + 1
    return items


def split_pairs(text: str, known: Mapping[str, str]) -> list[tuple[str, str]] | None:
    """The pairs of ``A=1 B=two words``, whose values the builder wrote without quotes; None when it has none.

    Args:
        text: the pairs.
        known: values that are known from the configuration; they settle where a value with spaces ends. Without them
            a value ends where the next word looks like a name with ``=``.
    """
    pairs: list[tuple[str, str]] = []
    at = 0
    while at < len(text):
        name = _KEY.match(text, at)
        if name is None:
            return None
        start = name.end()
        value = known.get(name[1])
        if value is not None and text.startswith(value, start) and _ends_value(text, start + len(value)):
            end = start + len(value)
        else:
            following = _NEXT_KEY.search(text, start)
            end = following.start() if following else len(text)
        pairs.append((name[1], text[start:end]))
        at = end + 1
    return pairs or None


def duration(nanoseconds: int) -> str:
    """A duration as Go prints it: ``500ms``, ``5s``, ``1m30s``, ``1h0m0s``."""
    if nanoseconds < 0:
        return f"-{duration(-nanoseconds)}"
    if nanoseconds == 0:
        return "0s"
    for unit, size in (("ns", 1), ("µs", 10**3), ("ms", 10**6)):
        if nanoseconds < size * 1000:
            return _decimal(nanoseconds, size) + unit
    minutes, rest = divmod(nanoseconds, 60 * 10**9)
    hours, minutes = divmod(minutes, 60)
    seconds = f"{_decimal(rest, 10**9)}s"
    if hours:
        return f"{hours}h{minutes}m{seconds}"
    return f"{minutes}m{seconds}" if minutes else seconds


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return _NAMED.get(character) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


def _unescape(found: re.Match[str]) -> str:
    byte, short, long, octal, simple = found.groups()
    if byte or octal:
        code = int(byte, 16) if byte else int(octal, 8)
        return chr(code) if code < 0x80 else chr(0xDC00 + (code & 0xFF))
    if short or long:
        code = int(short or long, 16)
        return chr(code) if code <= 0x10FFFF else "\ufffd"
    return _SIMPLE.get(simple, simple)


def _stands_at(text: str, item: str, at: int) -> bool:
    return text.startswith(item, at) and text[at + len(item) : at + len(item) + 1] in ("", " ")


def _ends_value(text: str, at: int) -> bool:
    return at == len(text) or _NEXT_KEY.match(text, at) is not None


def _decimal(value: int, unit: int) -> str:
    whole, rest = divmod(value, unit)
    digits = str(rest).zfill(len(str(unit)) - 1).rstrip("0") if rest else ""
    return f"{whole}.{digits}" if digits else str(whole)
