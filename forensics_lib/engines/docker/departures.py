"""Where the directory of an image layer is not what the layer's archive says: files that somebody put into it.

The digest of an archive that is put together again does not show them, because it is made of the record's headers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from forensics_lib.engines.docker.archive import archive_headers, members_of
from forensics_lib.engines.docker.drivers import GraphDriver
from forensics_lib.engines.docker.engine import DockerRoot
from forensics_lib.engines.docker.layerdb import LayerRecord
from forensics_lib.errors import DamagedData
from forensics_lib.formats.tar_split import SplitFile
from forensics_lib.model import ProblemLog
from forensics_lib.sources.base import BytesSource
from forensics_lib.sources.decompress import Limits
from forensics_lib.trees.archive import Member, clean_path, read_members
from forensics_lib.trees.base import Node, NodeKind, Tree, join, parent_of

__all__ = ["Departure", "departures"]

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


def departures(docker: DockerRoot, driver: GraphDriver, layer: LayerRecord, limits: Limits) -> Iterator[Departure]:
    """What is in the directory of a layer and not as in its archive; content is not read.

    Raises:
        PathNotFound: the layer has no record of its archive, or no directory.
        DamagedData: a file of the archive is not there, or has another size.
    """
    own = driver.alone(layer.cache_id)

    def check(entry: SplitFile) -> None:
        path = clean_path(entry.name.decode("utf-8", "surrogateescape"))[0]
        if entry.size and ((node := own._lookup(path)) is None or node.size != entry.size):
            raise DamagedData(f"{path} is not the file of {entry.size} bytes that the layer had", origin=layer.origin)

    blob = docker.layer_db(driver.name).archive(layer)
    if blob is not None:
        recorded = members_of(blob)
    else:
        headers = archive_headers(docker, driver, layer, limits, check)
        nothing = BytesSource(b"", layer.origin)
        recorded = dict(read_members(headers, nothing, layer.origin, ProblemLog()))
    folders = {folder for path in recorded for folder in _parents(path)}
    parent = docker.layer_db(driver.name).layers.get(layer.parent)
    below = driver.tree(parent.cache_id) if parent is not None else None
    for node in own.walk():
        member = recorded.get(node.path)
        if member is not None:
            what = _differences(member, node) if driver.name != "fuse-overlayfs" else ()
            if what:
                yield Departure(node, what)
        elif node.path not in folders and _is_added(node, recorded, below):
            yield Departure(node, ("added",))


def _is_added(node: Node, recorded: dict[str, Member], below: Tree | None) -> bool:
    """Whether a path that the archive does not have changes what a container sees."""
    lower = below._lookup(node.path) if below is not None else None
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
