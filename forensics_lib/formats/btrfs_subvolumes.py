"""The subvolumes and snapshots of a btrfs file system."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from forensics_lib.errors import DamagedData, NotFound
from forensics_lib.formats.btrfs import TOP_LEVEL, BtrfsVolume
from forensics_lib.formats.btrfs_items import NameReference, RootItem, parse_root
from forensics_lib.formats.btrfs_node import Item, located
from forensics_lib.model import Origin, ProblemLog

__all__ = ["Subvolume", "list_subvolumes"]

_UNREADABLE = RootItem(0, 0, 0, 0, 1, 0, False, False, b"", b"", b"", None, None)


@dataclass(frozen=True, slots=True)
class Subvolume:
    """A subvolume or snapshot.

    Attributes:
        id: its number; 5 is the top level.
        name: in the directory that it is mounted in; empty for the top level, and for deleted ones.
        path: from the top level on; None where it is mounted nowhere, as deleted ones are.
        parent: number of the subvolume that it is mounted in; None for the top level, and for deleted ones.
        generation: the transaction that changed it last.
        created_ns: nanoseconds since 1970; None where it is not recorded.
        uuid: as people write it; empty where it has none.
        parent_uuid: of the subvolume that it is a snapshot of; empty for others.
        received_uuid: of the subvolume that it was sent from; empty for others.
        read_only: it may not be written to.
        deleted: it was deleted, and what it held is not all given back yet.
        origin: where its root item lies.
    """

    id: int
    name: str
    path: str | None
    parent: int | None
    generation: int
    created_ns: int | None
    uuid: str
    parent_uuid: str
    received_uuid: str
    read_only: bool
    deleted: bool
    origin: Origin


def list_subvolumes(volume: BtrfsVolume, problems: ProblemLog) -> list[Subvolume]:
    """The top level, then all subvolumes and snapshots by number, deleted ones that are still there included."""
    items = dict(volume.subvolumes())
    mounts: dict[int, tuple[int, NameReference]] = {}
    for number in items:
        try:
            mount = volume.mount(number)
        except DamagedData as error:
            problems.add(error.origin or volume.origin, error)
            continue
        if mount is not None:
            mounts[number] = mount
    return [_subvolume(volume, problems, item, mounts) for item in items.values()]


def _subvolume(
    volume: BtrfsVolume, problems: ProblemLog, item: Item, mounts: Mapping[int, tuple[int, NameReference]]
) -> Subvolume:
    number = item.key.objectid
    origin = volume.origin.to(f"subvolume {number}", item.at)
    parent, place = mounts.get(number, (None, None))
    try:
        with located(item):
            root = parse_root(item.data)
    except DamagedData as error:
        problems.add(origin, error)
        root = _UNREADABLE
    return Subvolume(
        number,
        _text(place.name) if place else "",
        _path(volume, number, mounts),
        parent,
        root.generation,
        root.otime_ns,
        _uuid(root.uuid),
        _uuid(root.parent_uuid),
        _uuid(root.received_uuid),
        root.read_only,
        root.dead or not root.references,
        origin,
    )


def _path(volume: BtrfsVolume, number: int, mounts: Mapping[int, tuple[int, NameReference]]) -> str | None:
    """The path of a subvolume from the top level on."""
    path = ""
    seen = set()
    while number != TOP_LEVEL:
        if number not in mounts or number in seen:
            return None
        seen.add(number)
        number, place = mounts[number]
        try:
            above = volume.files(number).path_of(place.directory, volume.root(number).directory)
        except (DamagedData, NotFound):
            return None
        if above is None:
            return None
        path = f"{above}/{_text(place.name)}{path}"
    return path or "/"


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _uuid(data: bytes) -> str:
    return str(uuid.UUID(bytes=data)) if any(data) else ""
