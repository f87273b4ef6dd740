"""Tar archives as file systems: every member with its cleaned path, and the tree that extracting them would give."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from forensics_lib.errors import DamagedData, ForensicsError, LimitExceeded, UnsupportedFormat
from forensics_lib.formats.tar import AFTER_END, TarDecoder
from forensics_lib.formats.tar_entry import TarEntry
from forensics_lib.formats.tar_sparse import extents
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.sources.base import ExtentSource, Source
from forensics_lib.sources.decompress import Limits
from forensics_lib.sources.stream import SourceStream, Stream
from forensics_lib.trees.base import NO_XATTRS, Content, Node, NodeKind, device_number
from forensics_lib.trees.index import IndexTree

__all__ = [
    "Member",
    "MissingContent",
    "TarContent",
    "clean_path",
    "read_members",
    "report_faults",
    "resolve_link",
    "tar_tree",
]

_KINDS = {
    "0": NodeKind.FILE,
    "7": NodeKind.FILE,
    "S": NodeKind.FILE,
    "1": NodeKind.FILE,
    "2": NodeKind.SYMLINK,
    "3": NodeKind.CHAR,
    "4": NodeKind.BLOCK,
    "5": NodeKind.DIR,
    "D": NodeKind.DIR,
    "6": NodeKind.FIFO,
}


_DEVICES = frozenset([NodeKind.CHAR, NodeKind.BLOCK])
_NOT_IN_TREE = frozenset("gVMN")  # global records, volume labels, continuations, old long names


@dataclass(frozen=True, slots=True)
class TarContent:
    """Where a member's bytes lie in its archive (which may itself be compressed)."""

    archive: Source
    offset: int
    stored: int
    size: int
    sparse: tuple[tuple[int, int], ...] | None
    origin: Origin

    def source(self) -> Source:
        """The bytes, holes of a sparse file as zeros."""
        stored = self.archive.slice(self.offset, self.stored, "content")
        if self.sparse is None:
            return stored
        return ExtentSource(stored, extents(self.sparse), self.size, stored.origin)


@dataclass(frozen=True, slots=True)
class MissingContent:
    """The content of a hard link whose target is not there."""

    message: str
    origin: Origin

    def source(self) -> Source:
        """Always raises: there is nothing to read."""
        raise DamagedData(self.message, origin=self.origin)


@dataclass(frozen=True, slots=True)
class Member:
    """A member as a node of a tree; `link` is the cleaned path a hard link names, None for all others."""

    node: Node
    link: str | None


def clean_path(name: str) -> tuple[str, str | None]:
    """A member's name as an absolute path inside the tree, and what was unusual about it.

    >>> clean_path("./usr//bin/")
    ('/usr/bin', None)
    >>> clean_path("../../etc/passwd")
    ('/etc/passwd', 'name leads out of the archive; it is kept inside the root')
    """
    parts: list[str] = []
    fault = None
    if ".." not in name and "//" not in name and "./" not in name and name[-1:] != ".":
        return "/" + name.strip("/"), None
    for part in name.split("/"):
        if part in ("", "."):
            continue
        if part == "..":
            if parts:
                parts.pop()
                fault = fault or "name contains '..'"
            else:
                fault = "name leads out of the archive; it is kept inside the root"
            continue
        parts.append(part)
    return "/" + "/".join(parts), fault


def read_members(
    decoder: Iterable[TarEntry], archive: Source, origin: Origin, problems: ProblemLog
) -> Iterator[tuple[str, Member]]:
    """Each member as (cleaned path, member), duplicates included; everything unusual becomes a problem."""
    for entry in decoder:
        here = Origin("tar header", origin, entry.header_offset)
        plain = entry.plain_metadata()
        if plain is None:
            anomalies = entry.anomalies
            for anomaly in anomalies:
                problems.add(here, f"{entry.name!r}: {anomaly}")
            if AFTER_END in anomalies:
                continue
        if entry.typeflag in _NOT_IN_TREE:
            continue
        kind = _KINDS.get(entry.typeflag)
        if kind is None:
            message = f"{entry.name!r}: member of unknown type {entry.typeflag!r} is shown as a file"
            problems.add(here, UnsupportedFormat(message))
            kind = NodeKind.FILE
        path, fault = clean_path(entry.name)
        if kind is NodeKind.FILE and entry.typeflag != "1" and entry.raw_name.endswith(b"/"):
            kind = NodeKind.DIR
        if fault is not None or not entry.name:
            problems.add(here, f"{entry.name!r}: {fault or 'member without a name'}")
        link = clean_path(entry.linkname)[0] if entry.typeflag == "1" else None
        content: Content | None = None
        size = 0
        if kind is NodeKind.FILE and (link is None or entry.stored_size):
            size = entry.size
            content = TarContent(archive, entry.data_offset, entry.stored_size, size, entry.sparse, here)
        rdev = device_number(*entry.rdev) if kind in _DEVICES else 0
        target = entry.linkname if kind is NodeKind.SYMLINK else None
        btime, xattrs = None, NO_XATTRS
        if plain is None:
            plain = (entry.mode, entry.uid, entry.gid, entry.mtime_ns, entry.atime_ns, entry.ctime_ns)
            btime, xattrs = entry.btime_ns, entry.xattrs or NO_XATTRS
        mode, uid, gid, mtime, atime, ctime = plain
        inode = entry.header_offset + 1
        yield path, Member(
            Node(
                path, kind, mode & 0o7777, uid, gid, size, mtime, here, atime, ctime, btime, target, rdev, 1, inode,
                xattrs, content,
            ),
            link,
        )  # fmt: skip


def resolve_link(member: Member, target: Node | None) -> Node:
    """The node of a hard link, once it is known what its target was when the link was made."""
    node = member.node
    if node.content is not None and node.size:
        return node  # a pax writer stored the content with the link as well
    if target is None or target.kind is NodeKind.DIR:
        message = f"hard link to {member.link}, which is not there"
        return replace(node, content=MissingContent(message, node.origin))
    return replace(target, path=node.path, origin=node.origin)


def tar_tree(archive: Source, problems: ProblemLog, limits: Limits, stream: Stream | None = None) -> IndexTree:
    """The tree that extracting the archive would give: the last of several members of one name wins.

    Damage that ends the archive early becomes a problem; what was read before it is in the tree.

    Args:
        archive: the archive, for reading content later.
        problems: gets everything unusual.
        limits: bounds on the number of members.
        stream: the same bytes for one pass, where that is cheaper than random access.
    """
    tree = IndexTree(archive.origin)
    decoder = TarDecoder(stream or SourceStream(archive), origin=archive.origin, max_entries=limits.entries)
    try:
        _fill(tree, read_members(decoder, archive, archive.origin, problems), problems)
    except ForensicsError as error:
        problems.add(archive.origin, error)
    tree.count_links()
    report_faults(decoder, archive.origin, problems)
    return tree


def _fill(tree: IndexTree, members: Iterable[tuple[str, Member]], problems: ProblemLog) -> None:
    for path, member in members:
        node = member.node
        if member.link is not None:
            node = resolve_link(member, tree.find(member.link))
            tree.linked = True
            if isinstance(node.content, MissingContent):
                problems.add(node.origin, f"{path}: {node.content.message}")
        if path == "/" and node.kind is not NodeKind.DIR:
            problems.add(node.origin, "a member would replace the root itself; it is left out")
            continue
        try:
            tree.put(node)
        except LimitExceeded as error:
            problems.add(node.origin, error)


def report_faults(decoder: TarDecoder, origin: Origin, problems: ProblemLog) -> None:
    """Turn what the decoder found wrong with the archive as a whole into problems."""
    for offset, fault in decoder.faults:
        problems.add(origin, DamagedData(fault, origin=origin, offset=offset))
    if decoder.trailing:
        problems.add(origin, f"{decoder.trailing} bytes that are no archive follow the end-of-archive marker")
