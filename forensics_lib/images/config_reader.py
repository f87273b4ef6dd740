"""Values of an image configuration, read with their faults named."""

from __future__ import annotations

from datetime import datetime
from itertools import islice
from typing import TypeVar

from forensics_lib.errors import DamagedData, LimitExceeded
from forensics_lib.formats.jsondoc import JsonObject, JsonValue, parse_time
from forensics_lib.images.digest import parse_digest
from forensics_lib.model import Origin, ProblemLog

__all__ = ["MAX_ITEMS", "ConfigReader"]

_T = TypeVar("_T")

MAX_ITEMS = 10_000
"""Most items that are read of one array or object; engines refuse images of more than some hundred layers."""


class ConfigReader:
    """Reads the values of one object; a wrong type becomes a problem and the neutral value."""

    __slots__ = ("_origin", "_problems", "_where", "fields")

    def __init__(self, fields: JsonObject, where: str, origin: Origin, problems: ProblemLog) -> None:
        """`where` is the path of the object in its document, with a dot at its end; empty for the whole."""
        self.fields = fields
        self._where = where
        self._origin = origin
        self._problems = problems

    def text(self, key: str) -> str:
        """A text; empty when there is none."""
        return self._field(key, str, "a text") or ""

    def flag(self, key: str) -> bool:
        """True or false; false when there is nothing."""
        return self._field(key, bool, "true or false") or False

    def integer(self, key: str) -> int | None:
        """A whole number."""
        value = self.fields.integer(key)
        if value is None and self.fields.get(key) is not None:
            self._problem(key, "is not a whole number")
        return value

    def time(self, key: str) -> tuple[datetime | None, int | None]:
        """A time (aware UTC), and as nanoseconds since 1970; None for both when there is none, or Go's zero time."""
        text = self.text(key)
        moment, nanoseconds = parse_time(text)
        if moment is None and text and not text.startswith("0001-01-01T00:00:00"):
            self._problem(key, f"is not a time: {text[:60]!a}")
        return moment, nanoseconds

    def object(self, key: str) -> ConfigReader:
        """An object; an empty one when there is none."""
        return self._child(self._field(key, dict, "an object"), key)

    def objects(self, key: str) -> list[ConfigReader]:
        """The objects of an array; an item of another type is an empty object, so that positions stay."""
        found = self._items(key, dict, "an object")
        return [self._child(item, f"{key}[{index}]") for index, item in enumerate(found)]

    def texts(self, key: str) -> tuple[str, ...]:
        """The texts of an array; items of another type are left out."""
        return tuple(text for text in self._items(key, str, "a text") if text is not None)

    def positions(self, key: str) -> tuple[str, ...]:
        """The texts of an array where the position counts: an item of another type is ""."""
        return tuple(text or "" for text in self._items(key, str, "a text"))

    def command(self, key: str) -> tuple[str, ...]:
        """The texts of an array, or one text in its place, as Docker reads a command line."""
        value = self.fields.get(key)
        return (value,) if isinstance(value, str) else self.texts(key)

    def names(self, key: str) -> tuple[str, ...]:
        """The names of a set, which Go writes as an object of empty objects."""
        return tuple(self._members(key))

    def pairs(self, key: str) -> tuple[tuple[str, str], ...]:
        """The texts of an object, as (name, value)."""
        members = self._members(key)
        pairs = tuple((name, value) for name, value in members.items() if isinstance(value, str))
        if len(pairs) < len(members):
            self._problem(key, f"has {len(members) - len(pairs)} values that are not a text")
        return pairs

    def digests(self, key: str) -> tuple[str, ...]:
        """The texts of an array that has to hold digests; the first that is none becomes a problem."""
        texts = self.positions(key)
        for index, text in enumerate(texts):
            try:
                parse_digest(text)
            except DamagedData as error:
                self._problem(f"{key}[{index}]", str(error))
                break  # one finding is enough: a forged list would flood the log
        return texts

    def _child(self, fields: dict[str, JsonValue] | None, name: str) -> ConfigReader:
        return ConfigReader(JsonObject(fields or {}), f"{self._where}{name}.", self._origin, self._problems)

    def _field(self, key: str, wanted: type[_T], name: str) -> _T | None:
        value = self.fields.get(key)
        if isinstance(value, wanted):
            return value
        if value is not None:
            self._problem(key, f"is not {name}")
        return None

    def _items(self, key: str, wanted: type[_T], name: str) -> list[_T | None]:
        values: list[JsonValue] = self._field(key, list, "an array") or []
        found = [value if isinstance(value, wanted) else None for value in values[: self._bound(key, len(values))]]
        if None in found:
            self._problem(key, f"has {found.count(None)} items that are not {name}, first at {found.index(None)}")
        return found

    def _members(self, key: str) -> dict[str, JsonValue]:
        members: dict[str, JsonValue] = self._field(key, dict, "an object") or {}
        return dict(islice(members.items(), self._bound(key, len(members))))

    def _bound(self, key: str, count: int) -> int:
        if count > MAX_ITEMS:
            text = f"image configuration: {self._where}{key} has {count} items; the first {MAX_ITEMS} are read"
            self._problems.add(self._origin, LimitExceeded(text, origin=self._origin))
        return MAX_ITEMS

    def _problem(self, key: str, message: str) -> None:
        text = f"image configuration: {self._where}{key} {message}"
        self._problems.add(self._origin, DamagedData(text, origin=self._origin))
