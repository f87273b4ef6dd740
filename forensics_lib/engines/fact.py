"""What places other than its own record tell of a container."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from forensics_lib.engines.findings import masked_text
from forensics_lib.model import Origin

__all__ = ["Fact", "Sureness"]


class Sureness(StrEnum):
    """How a fact is tied to the container."""

    STATED = "stated"
    """The place has the container's full id, or lies in its own folder."""
    DERIVED = "derived"
    """It follows from ids alone: of a layer, a sandbox, an endpoint."""
    LIKELY = "likely"
    """Only a time, an order or a default speaks for it."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that one place tells of a container; places that disagree give a row each.

    Attributes:
        about: what: ``name``, ``image``, ``image name``, ``created``, ``started``, ``ended``, ``hostname``,
            ``address``, ``log driver``, ``log path``, ``storage driver``, ``writable layer``, ``command`` …
        value: what it says; times as ISO 8601 in UTC. `masked` hides passwords.
        sureness: how it is tied to the container.
        method: what kind of place says so, e.g. ``daemon log``.
        detail: how it was joined, in words.
        origin: the place.
        is_exact: whether the value is as the place has it; not so of a time of which year or zone are assumed.
    """

    about: str
    value: str
    sureness: Sureness
    method: str
    detail: str
    origin: Origin
    is_exact: bool = True

    __table_columns__ = ("about", "masked", "sureness", "method", "detail", "origin")

    @property
    def masked(self) -> str:
        """The value with the secrets in it masked."""
        return masked_text(self.value)
