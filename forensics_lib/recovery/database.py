"""One bbolt database with everything that it holds and held."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import chain

from forensics_lib.formats.bbolt import Bolt, Record, State
from forensics_lib.recovery.remnant import Confidence, Remnant
from forensics_lib.sources.base import BytesSource

__all__ = ["BoltDatabase"]

_METHODS = {
    State.PREVIOUS: "bbolt previous transaction",
    State.NEWER: "bbolt newer transaction",
    State.STALE: "bbolt page",
    State.LIVE: "bbolt copy",
}
_MAX_RECORDS = 1_000_000


@dataclass(frozen=True)
class BoltDatabase:
    """One database with everything that it holds and held.

    Attributes:
        path: where it lies, or lay.
        bolt: its content.
        known: of a copy, the records of the databases as they are; None for one of these.
        sound: whether all of its bytes are known to be its own.
    """

    path: str
    bolt: Bolt
    known: dict[tuple[bytes, ...], int] | None = None
    sound: bool = True

    @cached_property
    def live(self) -> dict[tuple[bytes, ...], int]:
        """Hashes of the values by the names of the buckets and the key; only compared with each other."""
        if self.known is not None:
            return self.known
        found = {}
        for count, record in enumerate(self.bolt.root.walk()):
            if count >= _MAX_RECORDS:
                break
            found[(*record.path, record.key)] = hash(record.value)
        return found

    @cached_property
    def _pairs(self) -> set[tuple[bytes, int]]:
        return {(place[-1], value) for place, value in self.live.items()}

    @cached_property
    def _ends(self) -> set[tuple[bytes, ...]]:
        """The ends of the places of live records: what the known part of a place can be equal to."""
        return {place[start:] for place in self.live for start in range(len(place))}

    @cached_property
    def gone(self) -> list[Record]:
        """The records that are not live, whatever bucket they are thought to have been in."""
        found = []
        copied = () if self.known is None else self.bolt.root.walk()
        for record in chain(copied, self.bolt.stale()):
            if record.state is State.LIVE and self.live.get((*record.path, record.key)) == hash(record.value):
                continue
            if record.value is not None and not record.rooted and (record.key, hash(record.value)) in self._pairs:
                continue
            found.append(record)
            if len(found) >= _MAX_RECORDS:
                break
        return found

    def was(self, record: Record, what: str) -> str:
        """What became of a record, in words."""
        own = (*record.path, record.key)
        live = own in self.live or (not record.rooted and own in self._ends)
        where = "" if record.rooted or not record.path else "; which bucket it was in is inferred"
        return f"{'older version of' if live else 'deleted'} {what}, page {record.page}{where}"

    def remnant(
        self,
        record: Record,
        kind: str,
        detail: str,
        *,
        content: bytes | None = None,
        container_id: str = "",
        valid: bool = True,
        modified_ns: int | None = None,
    ) -> Remnant:
        """A record as a remnant; `valid` tells whether its value is what such records hold."""
        source = None if content is None else BytesSource(content, record.origin)
        sure = Confidence.INTACT if valid and record.complete and self.sound else Confidence.CARVED
        return Remnant(
            kind=kind,
            path=self.path,
            container_id=container_id,
            image_id="",
            method=_METHODS[record.state],
            confidence=Confidence.METADATA_ONLY if source is None else sure,
            complete=source is not None and record.complete and valid and self.sound,
            size=None if source is None else source.size,
            origin=record.origin,
            detail=detail,
            modified_ns=modified_ns,
            content=source,
        )
