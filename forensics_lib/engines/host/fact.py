"""The row that a host's files give, and what their readers share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from forensics_lib.engines.findings import masked_text
from forensics_lib.engines.host.commands import ABOUT_CONTAINERS
from forensics_lib.engines.host.files import HostFiles, place_of
from forensics_lib.model import Origin, utc_from_ns
from forensics_lib.trees.base import Node

__all__ = ["HostFact", "fact_at", "lines_about", "present", "text_of"]


@dataclass(frozen=True, slots=True)
class HostFact:
    """One thing that a host's files tell.

    Attributes:
        kind: ``hostname``, ``os``, ``kernel``, ``time zone``, ``machine-id``, ``package``,
            ``package change``, ``user``, ``docker group``,
            ``sudo rule``, ``registry login``, ``client setting``, ``build folder``, ``daemon setting``,
            ``unit setting``, ``cron``, ``boot``, ``shutdown``, ``login`` or ``last login``.
        name: whose it is: a user, a registry, a unit, a file.
        value: what it says; passwords masked.
        time_ns: when, nanoseconds since 1970; None where it is not recorded. Of a file's content it is the time the
            file was changed last.
        origin: the file, and the byte where a line or record starts.
    """

    kind: str
    name: str
    value: str
    time_ns: int | None
    origin: Origin

    __table_columns__ = ("kind", "name", "value", "time", "origin")

    @property
    def time(self) -> datetime | None:
        """When (aware UTC)."""
        return utc_from_ns(self.time_ns)


def fact_at(kind: str, name: str, value: str, node: Node, offset: int) -> HostFact:
    """A fact that a line of a file tells; its time is the file's."""
    return HostFact(kind, name, value, node.mtime_ns, place_of(node).to("line", offset))


def lines_about(host: HostFiles, kind: str, name: str, node: Node) -> Iterator[HostFact]:
    """The lines of a file that are about containers, comments left out."""
    for offset, line in host.lines(node):
        if ABOUT_CONTAINERS.search(line) and not line.lstrip().startswith(b"#"):
            yield fact_at(kind, name, masked_text(text_of(line).strip()), node, offset)


def present(host: HostFiles, path: str) -> list[Node]:
    """The file at a path, if there is one."""
    node = host.reader.find(path)
    return [] if node is None else [node]


def text_of(data: bytes) -> str:
    """Bytes of a file as text, those that are no UTF-8 as escapes."""
    return data.decode("utf-8", "backslashreplace")
