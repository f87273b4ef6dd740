"""Whose numbers the owners of a data root's files are: the host's, where a user namespace shifts those of containers.

A daemon with ``userns-remap`` keeps everything in ``<uid>.<gid>``, named after the host's numbers of the containers'
root, and shifts back whatever it exports (moby ``pkg/idtools``); what it cannot shift, such as files of a container
with ``--userns=host``, it leaves out, which is not done here. A daemon without root runs in a namespace of its own, in
which its user is root and the numbers of ``/etc/subuid`` follow.
"""

from __future__ import annotations

import re

from forensics_lib.errors import ForensicsError
from forensics_lib.trees.base import Tree
from forensics_lib.trees.documents import DocumentReader
from forensics_lib.trees.owners import IdMap, OwnersTree

__all__ = ["USERNS", "as_in_containers"]

USERNS = re.compile(r"(\d{1,10})\.(\d{1,10})")
_ROOTLESS = "/.local/share/docker"
_MAX_RANGES = 1024


def as_in_containers(reader: DocumentReader, root: str, real_root: str) -> Tree:
    """The evidence's tree with owners as containers of a data root saw them; the tree itself where they are the same.

    Args:
        reader: reads the evidence.
        root: path of the data root in it.
        real_root: path of the data root on its host.
    """
    names = (path.rpartition("/")[2] for path in (real_root, root))
    remapped = next((match for name in names if (match := USERNS.fullmatch(name))), None)
    if remapped is not None:
        users = _of_remap(_ranges(reader, "/etc/subuid"), int(remapped[1]))
        return OwnersTree(reader.tree, users, _of_remap(_ranges(reader, "/etc/subgid"), int(remapped[2])))
    if not real_root.endswith(_ROOTLESS):
        return reader.tree
    try:
        folder = reader.tree.node(root)
    except ForensicsError:
        return reader.tree
    if not folder.uid:  # a copy that lost its owners
        return reader.tree
    name = next((line[0] for line in _lines(reader, "/etc/passwd") if line[2:3] == [str(folder.uid)]), str(folder.uid))
    users = _of_rootless(_ranges(reader, "/etc/subuid"), folder.uid, (name, str(folder.uid)))
    groups = _of_rootless(_ranges(reader, "/etc/subgid"), folder.gid, (name, str(folder.uid)))
    return OwnersTree(reader.tree, users, groups)


def _of_remap(ranges: list[tuple[str, int, int]], first: int) -> IdMap:
    """All ranges of the account whose first one starts at a number, one after the other; else one without end.

    They come as they stand in the file; older releases sorted them.
    """
    for name in dict.fromkeys(name for name, _, _ in ranges):
        own = [(start, count) for one, start, count in ranges if one == name]
        for ordered in (own, sorted(own)):
            if ordered[0][0] == first:
                return IdMap(tuple(_after_another(ordered, 0)))
    return IdMap(((0, first, None),))


def _of_rootless(ranges: list[tuple[str, int, int]], own: int, names: tuple[str, ...]) -> IdMap:
    """The account itself as root, then its ranges."""
    allotted = [(start, count) for one, start, count in ranges if one in names]
    if not allotted:
        return IdMap(((0, own, 1),), other=None)
    return IdMap(((0, own, 1), *_after_another(allotted, 1)))


def _after_another(ranges: list[tuple[int, int]], inside: int) -> list[tuple[int, int, int | None]]:
    found: list[tuple[int, int, int | None]] = []
    for start, count in ranges[:_MAX_RANGES]:
        found.append((inside, start, count))
        inside += count
    return found


def _ranges(reader: DocumentReader, path: str) -> list[tuple[str, int, int]]:
    """The lines ``name:first:count`` of a file of the host."""
    lines = [line for line in _lines(reader, path) if len(line) == 3]
    return [(name, int(start), int(count)) for name, start, count in lines if _is_id(start) and _is_id(count)]


def _lines(reader: DocumentReader, path: str) -> list[list[str]]:
    return [line.strip().split(":") for line in (reader.text(path) or "").splitlines()]


def _is_id(text: str) -> bool:
    return text.isdecimal() and len(text) <= 10
