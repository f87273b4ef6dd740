"""One thing that was deleted or lost its owner, and how sure it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import BinaryIO

from forensics_lib.errors import ForensicsError, NotAFile
from forensics_lib.model import Origin, utc_from_ns
from forensics_lib.sources.base import Source

__all__ = ["Confidence", "Remnant", "trace"]


class Confidence(StrEnum):
    """How sure the content of a remnant is."""

    VERIFIED = "verified"
    """A checksum or a digest known from elsewhere proves the bytes."""
    INTACT = "intact"
    """All its blocks are still free, and its format is valid."""
    CARVED = "carved"
    """Content without a name, found by its form."""
    METADATA_ONLY = "metadata-only"
    """It existed: name, times or owner; its content is gone."""


@dataclass(frozen=True, slots=True)
class Remnant:
    """Something deleted, orphaned or half removed that was found.

    Attributes:
        kind: ``container``, ``config``, ``log``, ``file``, ``layer``, ``image``, ``volume``, ``network`` or ``record``.
        path: where it lay, as far as that is known; empty when it is not.
        container_id: the container it belonged to; empty when unknown or none.
        image_id: the image it belonged to; empty when unknown or none.
        method: how it was found, e.g. ``orphan``, ``ext4 journal``, ``carving``, ``bbolt page``; two methods that agree
            are joined by `` + ``.
        confidence: how sure its content is.
        complete: whether all of its bytes are there and none of them can belong to something newer.
        size: bytes of its content; None when unknown.
        origin: where it was found.
        detail: what else is known, in words.
        deleted_ns: when it was deleted, nanoseconds since 1970; None when unknown.
        modified_ns: when its content was last changed, nanoseconds since 1970; None when unknown.
    """

    kind: str
    path: str
    container_id: str
    image_id: str
    method: str
    confidence: Confidence
    complete: bool
    size: int | None
    origin: Origin
    detail: str = ""
    deleted_ns: int | None = None
    modified_ns: int | None = None
    content: Source | None = field(default=None, repr=False, compare=False)

    __table_columns__ = (
        "kind",
        "path",
        "container_id",
        "image_id",
        "method",
        "confidence",
        "complete",
        "size",
        "deleted",
        "detail",
        "origin",
    )

    @property
    def deleted(self) -> datetime | None:
        """When it was deleted (aware UTC)."""
        return utc_from_ns(self.deleted_ns)

    @property
    def sha256(self) -> str | None:
        """Digest of the recovered bytes, computed when asked for; None when there are none, or not all can be read."""
        try:
            return None if self.content is None else self.content.sha256()
        except ForensicsError:
            return None

    def open(self) -> BinaryIO:
        """The recovered bytes.

        Raises:
            NotAFile: there are none.
        """
        if self.content is None:
            raise NotAFile(f"{self.path or self.kind}: nothing but metadata was found")
        return self.content.open()

    def read(self) -> bytes:
        """All recovered bytes.

        Raises:
            NotAFile: there are none.
        """
        with self.open() as file:
            return file.read()


def trace(
    kind: str,
    path: str,
    method: str,
    origin: Origin,
    detail: str,
    *,
    container_id: str = "",
    image_id: str = "",
    deleted_ns: int | None = None,
    modified_ns: int | None = None,
) -> Remnant:
    """A remnant of which nothing is left but that it existed; the arguments are fields of `Remnant`."""
    return Remnant(
        kind=kind,
        path=path,
        container_id=container_id,
        image_id=image_id,
        method=method,
        confidence=Confidence.METADATA_ONLY,
        complete=False,
        size=None,
        origin=origin,
        detail=detail,
        deleted_ns=deleted_ns,
        modified_ns=modified_ns,
    )
