"""JSON documents from evidence: bounded, never trusted to have the shape they should.

`parse` turns bytes into a `JsonObject`; its readers return what is there in the right type, or a neutral value, and
never raise on a wrong shape, because a wrong shape in evidence is a finding and not a bug of the reader.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from forensics_lib.errors import DamagedData, LimitExceeded
from forensics_lib.model import Origin

__all__ = [
    "MAX_BYTES",
    "JsonObject",
    "JsonValue",
    "format_time",
    "iter_objects",
    "parse",
    "parse_beginning",
    "parse_object",
    "parse_time",
    "to_bytes",
]

JsonValue = None | bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"]

MAX_BYTES = 32 << 20
"""Largest document that is parsed; real configs and manifests are some kilobytes, the largest seen a few megabytes."""
_ESCAPE = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],]', re.DOTALL)


class JsonObject:
    """One JSON object, read by key with the type that the caller needs.

    Keys are matched exactly first and then without regard to case, as Go's decoder does.

    Attributes:
        raw: the parsed mapping itself.
    """

    __slots__ = ("raw",)

    def __init__(self, raw: dict[str, JsonValue]) -> None:
        """Wrap a parsed mapping."""
        self.raw = raw

    def __contains__(self, key: str) -> bool:
        """Whether the key is there, whatever its value."""
        return key in self.raw

    def get(self, key: str) -> JsonValue:
        """The value as it was parsed; None when the key is missing."""
        if key in self.raw:
            return self.raw[key]
        folded = key.casefold()
        return next((value for name, value in self.raw.items() if name.casefold() == folded), None)

    def text(self, key: str, default: str = "") -> str:
        """The string under the key, else the default."""
        value = self.get(key)
        return value if isinstance(value, str) else default

    def integer(self, key: str) -> int | None:
        """The whole number of at most 64 bits under the key (also when it was written as 5.0), else None."""
        value = self.get(key)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            return None
        return value if -(1 << 63) <= value < 1 << 64 else None

    def flag(self, key: str) -> bool:
        """Whether the key holds true."""
        return self.get(key) is True

    def object(self, key: str) -> JsonObject:
        """The object under the key, else an empty one."""
        value = self.get(key)
        return JsonObject(value if isinstance(value, dict) else {})

    def objects(self, key: str) -> list[JsonObject]:
        """The objects of the array under the key; items of other types are left out."""
        value = self.get(key)
        return [JsonObject(item) for item in value if isinstance(item, dict)] if isinstance(value, list) else []

    def texts(self, key: str) -> tuple[str, ...]:
        """The strings of the array under the key; a bare string counts as an array of one."""
        value = self.get(key)
        if isinstance(value, str):
            return (value,)
        return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()

    def mapping(self, key: str) -> dict[str, str]:
        """The string-to-string pairs of the object under the key."""
        value = self.get(key)
        return {k: v for k, v in value.items() if isinstance(v, str)} if isinstance(value, dict) else {}


def parse(data: bytes, origin: Origin, *, limit: int = MAX_BYTES) -> JsonValue:
    """Parse one JSON document.

    Bytes that are no UTF-8 are kept as surrogates; a byte order mark is skipped. An escape for half a surrogate pair
    becomes U+FFFD, as Go's decoder has it: no text or file name could hold it.

    Raises:
        LimitExceeded: the document is larger than `limit` bytes or nested too deep.
        DamagedData: the bytes are no JSON.
    """
    if len(data) > limit:
        raise LimitExceeded(f"JSON document of {len(data)} bytes; the limit is {limit}", origin=origin)
    text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    if "\\ud" in text or "\\uD" in text:
        text = _ESCAPE.sub(lambda escape: "\\ufffd" if escape[1] else escape[0], text)
    try:
        value: JsonValue = json.loads(text, parse_constant=_no_constant)
    except RecursionError as error:
        raise LimitExceeded("JSON document is nested too deep", origin=origin) from error
    except ValueError as error:
        offset = error.pos if isinstance(error, json.JSONDecodeError) else None
        raise DamagedData(f"no valid JSON: {error}", origin=origin, offset=offset) from error
    return value


def parse_beginning(data: bytes, origin: Origin) -> JsonValue:
    """What the beginning of a document tells whose end is missing or something else; None when nothing.

    The last value that is whole ends it; what is open around that is closed.

    >>> parse_beginning(b'{"a":{"b":[1,2,{"c":"tor', Origin("disk"))
    {'a': {'b': [1, 2]}}
    """
    try:
        return parse(data, origin)
    except LimitExceeded:
        return None
    except DamagedData as error:
        text = data.decode("utf-8", "surrogateescape")[: error.offset or 0]
    open_brackets: list[str] = []
    end, closing = 0, ""
    for match in _TOKEN.finditer(text):
        token = match[0]
        if token in "{[":
            open_brackets.append("}" if token == "{" else "]")
        elif token in "}]":
            if not open_brackets or open_brackets.pop() != token or not open_brackets:
                break
        elif token == ",":
            end, closing = match.start(), "".join(reversed(open_brackets))
    if not end:
        return None
    try:
        return parse((text[:end] + closing).encode("utf-8", "surrogateescape"), origin)
    except DamagedData:
        return None


def parse_object(data: bytes, origin: Origin, *, limit: int = MAX_BYTES) -> JsonObject:
    """Parse a document that has to be an object.

    Raises:
        LimitExceeded: as `parse`.
        DamagedData: no JSON, or JSON of another type.
    """
    value = parse(data, origin, limit=limit)
    if not isinstance(value, dict):
        raise DamagedData(f"expected a JSON object, found {type(value).__name__}", origin=origin)
    return JsonObject(value)


def iter_objects(value: JsonValue) -> Iterator[JsonObject]:
    """The objects of a parsed array."""
    if isinstance(value, list):
        for item in value:
            if isinstance(item, dict):
                yield JsonObject(item)


def to_bytes(text: str) -> bytes:
    """The bytes of a string of a document, whatever surrogates it holds."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")  # an escape such as "\\ud800" that stands for no byte


def parse_time(text: str) -> tuple[datetime | None, int | None]:
    """An RFC 3339 time as (aware UTC datetime, nanoseconds since 1970); Go's zero time and no time are (None, None)."""
    try:
        head, _, rest = text.partition(".")
        digits = ""
        if rest:
            digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
            head += rest[len(digits) :]
        moment = datetime.fromisoformat(head)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        moment = moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None, None
    if moment.year == 1 or not text.isascii():
        return None, None
    fraction = int(digits.ljust(9, "0")[:9] or "0")
    whole = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)
    return moment + timedelta(microseconds=fraction // 1000), whole * 10**9 + fraction


def format_time(nanoseconds: int | None) -> str:
    """A time since 1970 as Go writes it into a document; Go's zero time for None and for years it cannot write.

    >>> format_time(1_500_000_000), format_time(0), format_time(None)
    ('1970-01-01T00:00:01.5Z', '1970-01-01T00:00:00Z', '0001-01-01T00:00:00Z')
    """
    if nanoseconds is None:
        return "0001-01-01T00:00:00Z"
    seconds, fraction = divmod(nanoseconds, 10**9)
    try:
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    except OverflowError:
        return format_time(None)
    return f"{moment:%Y-%m-%dT%H:%M:%S}{f'.{fraction:09}'.rstrip('.0')}Z"


def _no_constant(name: str) -> JsonValue:
    raise ValueError(f"{name} is no JSON value")
