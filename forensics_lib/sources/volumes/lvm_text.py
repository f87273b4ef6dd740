"""The text that LVM2 describes a volume group with.

Format: ``section { key = value }`` with strings, integers, floating-point numbers and lists of them, as in lvm.conf(5).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from forensics_lib.errors import DamagedData, LimitExceeded

__all__ = ["Section", "Value", "parse"]

Value = str | int | float | list[str | int | float]
"""What a key can have."""

_TOKEN = re.compile(
    r"""\s+ | \#[^\n]*
    | (?P<string>"(?:[^"\\]|\\.)*")
    | (?P<number>-?\d+(?:\.\d+)?(?![A-Za-z0-9_]))
    | (?P<name>[A-Za-z0-9_.+][A-Za-z0-9_.+\-/@]*)
    | (?P<mark>[{}\[\]=,])
    """,
    re.VERBOSE | re.DOTALL,
)
_MAX_DEPTH = 16
_MAX_DIGITS = 20


class Section:
    """One section: values and further sections, by name.

    Attributes:
        values: by key.
        sections: by name, in the order of the text.
    """

    __slots__ = ("sections", "values")

    def __init__(self) -> None:
        """Start empty."""
        self.values: dict[str, Value] = {}
        self.sections: dict[str, Section] = {}

    def section(self, name: str) -> Section:
        """A section inside this one; an empty one when there is none of that name."""
        return self.sections.get(name) or Section()

    def text(self, key: str) -> str:
        """A string; empty when there is none."""
        value = self.values.get(key)
        return value if isinstance(value, str) else ""

    def number(self, key: str) -> int:
        """An integer that is not negative; 0 when there is none."""
        value = self.values.get(key)
        return value if isinstance(value, int) and value > 0 else 0

    def list(self, key: str) -> list[str | int | float]:
        """A list; empty when there is none."""
        value = self.values.get(key)
        return value if isinstance(value, list) else []


def parse(text: str) -> Section:
    """The text as sections and values.

    Raises:
        DamagedData: it contradicts the grammar.
        LimitExceeded: sections lie too deep inside each other.
    """
    stack = [Section()]
    tokens = _tokens(text)
    for kind, token in tokens:
        if kind == "mark" and token == "}" and len(stack) > 1:
            stack.pop()
            continue
        if kind not in ("name", "string", "number"):
            raise DamagedData(f"{token!r} where a name was expected in the LVM metadata")
        _, mark = next(tokens, ("", ""))
        if mark == "{":
            if len(stack) > _MAX_DEPTH:
                raise LimitExceeded("sections of the LVM metadata lie too deep inside each other")
            stack.append(stack[-1].sections.setdefault(token, Section()))
        elif mark == "=":
            stack[-1].values[token] = _value(tokens)
        else:
            raise DamagedData(f"{mark!r} behind the name {token!r} in the LVM metadata")
    if len(stack) > 1:
        raise DamagedData("the LVM metadata ends inside a section")
    return stack[0]


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise DamagedData(f"an unknown character in the LVM metadata: {text[position]!r}")
        if match.lastgroup is not None:
            yield match.lastgroup, match[match.lastgroup]
        position = match.end()


def _value(tokens: Iterator[tuple[str, str]]) -> Value:
    kind, token = next(tokens, ("", ""))
    if kind != "mark" or token != "[":
        return _scalar(kind, token)
    items: list[str | int | float] = []
    for kind, token in tokens:
        if kind == "mark" and token == "]":
            return items
        if kind != "mark" or token != ",":
            items.append(_scalar(kind, token))
    raise DamagedData("the LVM metadata ends inside a list")


def _scalar(kind: str, token: str) -> str | int | float:
    if kind == "string":
        return re.sub(r"\\(.)", r"\1", token[1:-1], flags=re.DOTALL)
    if kind == "number" and len(token) <= _MAX_DIGITS:
        return float(token) if "." in token else int(token)
    raise DamagedData(f"{token!r} where a value was expected in the LVM metadata")
