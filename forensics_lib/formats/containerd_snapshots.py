"""A snapshotter's database ``metadata.db``: which directory holds each snapshot, and which one it lies on.

Format: containerd ``core/snapshots/storage/bolt.go``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from forensics_lib.formats.bbolt import Bucket
from forensics_lib.formats.containerd import Folder, load
from forensics_lib.model import Origin, ProblemLog

__all__ = ["Snapshot", "SnapshotKind", "read_snapshots"]


class SnapshotKind(StrEnum):
    """What a snapshot is for."""

    VIEW = "view"
    """Read-only, for as long as somebody looks at it."""
    ACTIVE = "active"
    """Writable: a container's, or one that is being unpacked."""
    COMMITTED = "committed"
    """Finished: a layer of an image."""
    UNKNOWN = "unknown"
    """None of these."""


_KINDS = {b"\1": SnapshotKind.VIEW, b"\2": SnapshotKind.ACTIVE, b"\3": SnapshotKind.COMMITTED}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One snapshot.

    Attributes:
        name: ``<namespace>/<number>/<key>`` as the metadata database calls it.
        id: name of its directory; None when that is damaged.
        kind: what it is for.
        parent: name of the one below it; empty for a base.
        size: bytes it took up on the disk when it was committed, its directories counted; None for others.
        inodes: how many files and directories these were.
        created_ns: when it was made, or committed, nanoseconds since 1970.
        labels: notes of the client.
        origin: the record.
    """

    name: str
    id: int | None
    kind: SnapshotKind
    parent: str
    size: int | None
    inodes: int | None
    created_ns: int | None
    labels: Mapping[str, str]
    origin: Origin

    @property
    def namespace(self) -> str:
        """The first part of the name; empty when it has only one."""
        return self.name.partition("/")[0] if self.name.count("/") > 1 else ""

    @property
    def number(self) -> int:
        """The second part of the name: the higher, the later it was made; 0 when it is no number."""
        number = self.name.split("/")[1] if self.namespace else ""
        return int(number) if number.isdecimal() and number.isascii() and len(number) < 20 else 0

    @property
    def key(self) -> str:
        """The rest of the name: a chain id, the id of a container, whatever the client chose."""
        return self.name.split("/", 2)[2] if self.namespace else self.name


def read_snapshots(root: Bucket, origin: Origin, problems: ProblemLog) -> dict[str, Snapshot]:
    """The snapshots of a database by name.

    Args:
        root: its root bucket.
        origin: the database.
        problems: told of values that are not what they should be.
    """
    snapshots = load(root, origin, problems).folder(b"v1", b"snapshots")
    return {name: _snapshot(name, folder) for name, folder in snapshots.named()}


def _snapshot(name: str, folder: Folder) -> Snapshot:
    return Snapshot(
        name=name,
        id=folder.unsigned(b"id"),
        kind=_KINDS.get(folder.values.get(b"kind", b""), SnapshotKind.UNKNOWN),
        parent=folder.text(b"parent"),
        size=folder.signed(b"size"),
        inodes=folder.signed(b"inodes"),
        created_ns=folder.time_ns(b"createdat"),
        labels=folder.mapping(b"labels"),
        origin=folder.origin,
    )
