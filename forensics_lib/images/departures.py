"""Where the directory that a layer was unpacked into is not what the layer's archive says; content is not read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from forensics_lib.formats.tar import TarDecoder
from forensics_lib.images.layer import LayerBlob
from forensics_lib.model import ProblemLog
from forensics_lib.sources.stream import SourceStream
from forensics_lib.trees.archive import Member, read_members
from forensics_lib.trees.base import Node, NodeKind, Tree, join, parent_of

__all__ = ["Departure", "departures_from", "members_of"]

_CAPABILITY = "security.capability"


@dataclass(frozen=True, slots=True)
class Departure:
    """A path of a layer's directory that is not as in the layer's archive.

    Attributes:
        node: what the directory holds.
        what: ``added`` when the archive does not have it and no lower layer either; else which of ``kind``, ``mode``,
            ``target``, ``rdev`` and ``capability`` differ. Owners and times are not compared, for copies lose them.
    """

    node: Node
    what: tuple[str, ...]


def members_of(blob: LayerBlob) -> dict[str, Member]:
    """The members of an archive that is kept, by path, the last of each; their content is read from it.

    Raises:
        ForensicsError: it is not there or damaged.
    """
    archive = blob.archive()
    decoder = TarDecoder(SourceStream(archive), source=archive, origin=blob.origin, max_entries=blob.limits.entries)
    return dict(read_members(decoder, archive, blob.origin, ProblemLog()))


def departures_from(
    recorded: Mapping[str, Member], own: Tree, below: Tree | None, *, attributes: bool = True
) -> Iterator[Departure]:
    """What is in the directory of a layer and not as in its archive.

    Args:
        recorded: the members of the archive.
        own: the directory.
        below: the layers below, merged; None for a base.
        attributes: whether the directory shows each file's own; fuse-overlayfs keeps them elsewhere.
    """
    folders = {folder for path in recorded for folder in _parents(path)}
    for node in own.walk():
        member = recorded.get(node.path)
        if member is not None:
            what = _differences(member, node) if attributes else ()
            if what:
                yield Departure(node, what)
        elif node.path not in folders and _is_added(node, recorded, below):
            yield Departure(node, ("added",))


def _is_added(node: Node, recorded: Mapping[str, Member], below: Tree | None) -> bool:
    """Whether a path that the archive does not have changes what a container sees."""
    lower = below.find(node.path) if below is not None else None
    if node.kind is NodeKind.CHAR and not node.rdev:  # a deletion
        return lower is not None and join(parent_of(node.path), f".wh.{node.name}") not in recorded
    return lower is None and node.kind is not NodeKind.SOCKET and "/.wh..wh." not in node.path


def _differences(member: Member, node: Node) -> tuple[str, ...]:
    said = member.node
    if said.kind is not node.kind:
        return ("kind",)
    found = []
    if said.mode != node.mode and node.kind is not NodeKind.SYMLINK and member.link is None:
        found.append("mode")
    if said.target != node.target:
        found.append("target")
    if said.rdev != node.rdev:
        found.append("rdev")
    if said.xattrs.get(_CAPABILITY) != node.xattrs.get(_CAPABILITY) and member.link is None:
        found.append("capability")
    return tuple(found)


def _parents(path: str) -> Iterator[str]:
    while (path := parent_of(path)) != "/":
        yield path
    yield "/"
