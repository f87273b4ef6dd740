"""Networks of containers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from forensics_lib.model import Origin, utc_from_ns

__all__ = ["Network"]


@dataclass(frozen=True, slots=True)
class Network:
    """A network as the engine recorded it.

    Attributes:
        id: full id.
        name: name.
        driver: e.g. ``bridge``.
        scope: ``local``, ``global`` or ``swarm``.
        created_ns: when it was made, nanoseconds since 1970; None when not recorded.
        subnets: its address ranges.
        gateways: its gateways, in the same order; empty text where there is none.
        internal: whether it has no way to the outside.
        labels: (name, value) pairs.
        options: (name, value) pairs for the driver.
        origin: the record.
    """

    id: str
    name: str
    driver: str
    scope: str
    created_ns: int | None
    subnets: tuple[str, ...]
    gateways: tuple[str, ...]
    internal: bool
    labels: tuple[tuple[str, str], ...]
    options: tuple[tuple[str, str], ...]
    origin: Origin
    _inspect: Callable[[], dict[str, object]]

    __table_columns__ = ("id", "name", "driver", "scope", "created", "subnets", "origin")

    @property
    def created(self) -> datetime | None:
        """When it was made (aware UTC)."""
        return utc_from_ns(self.created_ns)

    def inspect(self) -> dict[str, object]:
        """The network as ``docker network inspect`` shows it."""
        return self._inspect()
