"""What the value of a table's cell becomes on its way out: text, JSON, Arrow, or a safe few characters on a screen."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from enum import Enum
from itertools import chain
from types import ModuleType, NoneType, UnionType
from typing import TYPE_CHECKING, TypeAlias, Union, get_args, get_origin

if TYPE_CHECKING:
    import pyarrow

__all__ = ["Cell", "arrow_array", "as_json", "as_text", "plain", "readable", "shown", "storable"]

Cell: TypeAlias = "bool | int | float | str | bytes | datetime | list[Cell] | None"

_ALREADY_PLAIN = frozenset({NoneType, bool, int, float, str, bytes})
_SURROGATE = re.compile("[\ud800-\udfff]")
_SURROGATE_OF_NO_BYTE = re.compile("[\ud800-\udc7f\udd00-\udfff]")
_EXACT_IN_FLOAT = 2**53


def plain(value: object) -> Cell:
    """Any value of a row as one of the few types every output knows.

    Enumerations become their value, times aware UTC, tuples and sets lists, mappings JSON text, exceptions
    ``TypeName: message``, anything else (an Origin, a time without zone) its ``str``. Surrogates are kept.
    """
    if type(value) in _ALREADY_PLAIN:
        return value  # type: ignore[return-value]  # the test above says which types these are
    try:
        return _plain(value)
    except RecursionError:
        return f"({type(value).__name__} nested too deep)"


def as_text(cell: Cell) -> str:
    """A cell as text: bytes with backslash escapes for what is no UTF-8, times in ISO 8601, lists joined by ``, ``."""
    match cell:
        case str():
            return cell
        case None:
            return ""
        case bool():
            return "true" if cell else "false"
        case bytes():
            return cell.decode("utf-8", "backslashreplace")
        case datetime():
            return cell.isoformat()
        case list():
            return ", ".join(map(as_text, cell))
        case _:
            return str(cell)


def as_json(value: object) -> object:
    """A value as ``json.dumps`` takes it; bytes, times and numbers that JSON does not know become text."""
    match value:
        case Mapping():
            return {as_text(plain(key)): as_json(item) for key, item in value.items()}
        case list() | tuple():
            return [as_json(item) for item in value]
    cell = plain(value)
    match cell:
        case bytes() | datetime():
            return as_text(cell)
        case float() if not math.isfinite(cell):
            return as_text(cell)
        case _:
            return cell


def storable(text: str) -> str:
    r"""Text that UTF-8 with surrogateescape can write: a surrogate that stands for no byte becomes ``\ud800``."""
    return _SURROGATE_OF_NO_BYTE.sub(_escape, text)


def readable(text: str) -> str:
    r"""Text that any UTF-8 writer takes: a byte that was no UTF-8 becomes ``\xff``."""
    if text.isascii() or not _SURROGATE.search(text):
        return text
    return storable(text).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def shown(value: object, width: int) -> str:
    """At most `width` characters for a screen; control, direction and other invisible characters are escaped."""
    if isinstance(value, (str, bytes, list, tuple)):
        value = value[: 4 * width + 4]  # a log line may have megabytes; a character has at most four bytes
    text = readable(as_text(plain(value))[: width + 1])
    if not text.isprintable():
        text = "".join(char if char.isprintable() else _unicode_escape(char) for char in text)
    return text if len(text) <= width else text[: width - 1] + "…"


def arrow_array(pa: ModuleType, values: Iterable[object], hint: object) -> pyarrow.Array:
    """A column as Arrow array; the cells decide its type, the annotation `hint` does where there are none.

    Whole numbers beyond 64 bit and mixed columns become strings.
    """
    cells = [plain(value) for value in values]
    kind = _arrow_type(pa, cells, hint)
    if pa.types.is_string(kind) or pa.types.is_list(kind):
        cells = [_fitted(pa, cell, kind) for cell in cells]
    return pa.array(cells, type=kind)


def _plain(value: object) -> Cell:
    match value:
        case Enum():
            return plain(value.value)
        case int():
            return int(value)
        case float():
            return float(value)
        case bytes() | bytearray() | memoryview():
            return bytes(value)
        case datetime() if value.tzinfo is not None:
            return _utc(value)
        case BaseException():
            return f"{type(value).__name__}: {value}"
        case Mapping():
            # Surrogates as JSON escapes: the text stays valid JSON wherever it is written.
            text = json.dumps(as_json(value), ensure_ascii=False)
            return text.encode("utf-8", "backslashreplace").decode("utf-8")
        case list() | tuple():
            return [plain(item) for item in value]
        case AbstractSet():
            return sorted(map(plain, value), key=as_text)
        case _:
            return str(value)


def _utc(moment: datetime) -> Cell:
    try:
        return moment.astimezone(UTC)
    except OverflowError:  # within hours of the years 1 or 9999
        return moment.isoformat()


def _escape(match: re.Match[str]) -> str:
    return _unicode_escape(match.group())


def _unicode_escape(text: str) -> str:
    return text.encode("unicode_escape").decode("ascii")


def _arrow_type(pa: ModuleType, cells: Iterable[Cell], hint: object) -> pyarrow.DataType:
    cells = [cell for cell in cells if cell is not None]
    kinds = set(map(type, cells))
    if not kinds:
        return _hinted_type(pa, hint)
    if kinds == {list}:
        items = chain.from_iterable(cell for cell in cells if isinstance(cell, list))
        return pa.list_(_arrow_type(pa, items, _item_hint(hint)))
    numbers = [cell for cell in cells if isinstance(cell, int)]
    if kinds == {int}:
        if min(numbers) >= -(2**63) and max(numbers) < 2**63:
            return pa.int64()
        return pa.uint64() if min(numbers) >= 0 and max(numbers) < 2**64 else pa.string()
    if kinds == {int, float} and all(abs(number) <= _EXACT_IN_FLOAT for number in numbers):
        return pa.float64()
    return _simple_type(pa, kinds.pop()) if len(kinds) == 1 else pa.string()


def _hinted_type(pa: ModuleType, hint: object) -> pyarrow.DataType:
    hint = _not_none(hint)
    if get_origin(hint) in (list, tuple):
        return pa.list_(_hinted_type(pa, _item_hint(hint)))
    return _simple_type(pa, hint)


def _simple_type(pa: ModuleType, kind: object) -> pyarrow.DataType:
    if kind is datetime:
        return pa.timestamp("us", tz="UTC")
    makers = {bool: pa.bool_, int: pa.int64, float: pa.float64, bytes: pa.binary}
    return next((make() for known, make in makers.items() if kind is known), pa.string())


def _not_none(hint: object) -> object:
    if get_origin(hint) not in (Union, UnionType):
        return hint
    others = [option for option in get_args(hint) if option is not NoneType]
    return others[0] if len(others) == 1 else None


def _item_hint(hint: object) -> object:
    """What ``list[X]`` or ``tuple[X, ...]`` holds; None for everything else."""
    hint = _not_none(hint)
    items = {item for item in get_args(hint) if item is not Ellipsis} if get_origin(hint) in (list, tuple) else set()
    return items.pop() if len(items) == 1 else None


def _fitted(pa: ModuleType, cell: Cell, kind: pyarrow.DataType) -> Cell:
    """The cell with its text made readable, and everything made text where the column is one of strings."""
    if cell is None:
        return None
    if isinstance(cell, list) and pa.types.is_list(kind):
        return [_fitted(pa, item, kind.value_type) for item in cell]
    return readable(as_text(cell)) if pa.types.is_string(kind) else cell
