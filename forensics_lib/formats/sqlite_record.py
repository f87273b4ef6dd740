"""Records of SQLite databases: what a row of a table is in bytes.

Specification: https://www.sqlite.org/fileformat2.html, "Record Format" and "B-tree Pages".
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Column", "Value", "columns_of", "fits", "local_size", "size_of", "value_of", "varint"]

Value = None | int | float | str | bytes

_MAX_VARINT = 9
_WIDTHS = (0, 1, 2, 3, 4, 6, 8, 8, 0, 0)
_TABLE = re.compile(r"\s*CREATE\s+TABLE\s+.*?\((.*)\)[^)]*", re.IGNORECASE | re.DOTALL)
_CONSTRAINT = re.compile(r"(?:CONSTRAINT|PRIMARY|UNIQUE|CHECK|FOREIGN)\b", re.IGNORECASE)
_NAME = re.compile(r'"([^"]+)"|`([^`]+)`|\[([^]]+)\]|(\w+)')
_MAX_COLUMNS = 2000


@dataclass(frozen=True, slots=True)
class Column:
    """A column as the statement that made its table declares it.

    Attributes:
        name: of the column.
        affinity: ``text``, ``integer``, ``blob`` or ``numeric``.
        required: whether it is declared NOT NULL.
        is_rowid: whether it is the number of the row, which is not stored with it.
        is_key: whether it is the primary key by itself.
    """

    name: str
    affinity: str
    required: bool = False
    is_rowid: bool = False
    is_key: bool = False


def columns_of(statement: str) -> tuple[Column, ...]:
    """The columns that a CREATE TABLE statement declares; none when it is none.

    >>> [column.name for column in columns_of("CREATE TABLE t(ID TEXT NOT NULL, n INTEGER, PRIMARY KEY (n))")]
    ['ID', 'n']
    """
    match = _TABLE.fullmatch(statement)
    found: list[Column] = []
    for text in _parts(match[1]) if match else ():
        name = _NAME.match(text)
        if name is None or _CONSTRAINT.match(text) or len(found) >= _MAX_COLUMNS:
            continue
        declared = text[name.end() :].upper()
        is_key = "PRIMARY KEY" in declared
        of_type = re.split(r"PRIMARY|NOT\s+NULL|DEFAULT|UNIQUE|REFERENCES|CHECK|COLLATE", declared)[0].strip()
        found.append(
            Column(
                next(part for part in name.groups() if part is not None),
                _affinity(of_type),
                "NOT NULL" in declared and not (is_key and of_type == "INTEGER"),
                is_key and of_type == "INTEGER",
                is_key,
            )
        )
    return tuple(found)


def _parts(text: str) -> list[str]:
    """The parts between commas outside of brackets."""
    parts, depth, start = [], 0, 0
    for index, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if character == "," and not depth:
            parts.append(text[start:index].strip())
            start = index + 1
    return [*parts, text[start:].strip()]


def _affinity(declared: str) -> str:
    if "INT" in declared:
        return "integer"
    if any(word in declared for word in ("CHAR", "CLOB", "TEXT")):
        return "text"
    return "blob" if "BLOB" in declared or not declared else "numeric"


def varint(data: bytes, at: int) -> tuple[int, int]:
    """(value, position behind it) of a number of variable length; -1 as position when it is cut.

    >>> varint(bytes([0x81, 0x0D]), 0)
    (141, 2)
    """
    value = 0
    for index in range(_MAX_VARINT):
        if at + index >= len(data):
            return 0, -1
        byte = data[at + index]
        if index == _MAX_VARINT - 1:
            return value << 8 | byte, at + index + 1
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + index + 1
    return 0, -1


def size_of(kind: int) -> int:
    """Bytes of a value by its serial type."""
    return _WIDTHS[kind] if kind < len(_WIDTHS) else max(kind - 12, 0) // 2


def fits(kinds: Sequence[int], columns: Sequence[Column]) -> bool:
    """Whether serial types can be those of a row of a table."""
    return len(kinds) == len(columns) and all(map(_can_be, kinds, columns))


def _can_be(kind: int, column: Column) -> bool:
    if kind in (10, 11):
        return False
    if column.is_rowid:
        return kind == 0
    if kind == 0:
        return not column.required
    if column.affinity == "text":
        return kind >= 12 and (kind % 2 == 1 or not column.is_key)
    if column.affinity == "integer":
        return kind < 10
    return True


def value_of(kind: int, data: bytes, encoding: str) -> Value:
    """A value by its serial type and bytes."""
    if kind == 0:
        return None
    if kind in (8, 9):
        return kind - 8
    if kind == 7:
        return float(struct.unpack(">d", data)[0])
    if kind < 7:
        return int.from_bytes(data, "big", signed=True)
    return data.decode(encoding, "replace") if kind % 2 else data


def local_size(payload: int, usable: int) -> int:
    """How many bytes of a row of a table lie in its leaf page; the rest lies in overflow pages."""
    if payload <= usable - 35:
        return payload
    least = (usable - 12) * 32 // 255 - 23
    size = least + (payload - least) % (usable - 4)
    return size if size <= usable - 35 else least
