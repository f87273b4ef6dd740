"""Volumes: storage that outlives containers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from forensics_lib.model import Origin, utc_from_ns
from forensics_lib.trees.base import Tree

__all__ = ["Volume"]


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume as the engine recorded it.

    Attributes:
        name: name; 64 hexadecimal digits when the engine chose it.
        driver: ``local`` or a plugin.
        mountpoint: where its files lay on the host.
        created_ns: change time of its folder, which is what engines show as creation; None when not recorded.
        labels: (name, value) pairs.
        options: (name, value) pairs for the driver.
        anonymous: whether the engine chose the name.
        origin: the record, or the folder where there is no record.
    """

    name: str
    driver: str
    mountpoint: str
    created_ns: int | None
    labels: tuple[tuple[str, str], ...]
    options: tuple[tuple[str, str], ...]
    anonymous: bool
    origin: Origin
    _inspect: Callable[[], dict[str, object]]
    _tree: Callable[[], Tree]

    __table_columns__ = ("name", "driver", "mountpoint", "created", "labels", "origin")

    @property
    def created(self) -> datetime | None:
        """What engines show as creation (aware UTC)."""
        return utc_from_ns(self.created_ns)

    def inspect(self) -> dict[str, object]:
        """The volume as ``docker volume inspect`` shows it."""
        return self._inspect()

    def tree(self) -> Tree:
        """Its files.

        Raises:
            PathNotFound: its folder is not in the evidence.
            UnsupportedFormat: a plugin kept its files elsewhere.
        """
        return self._tree()
