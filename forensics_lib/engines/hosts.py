"""Where the file systems of hosts start in a tree: at its top, or at folders that hold copies of them."""

from __future__ import annotations

from collections.abc import Iterable

from forensics_lib.errors import ForensicsError
from forensics_lib.trees.base import NodeKind
from forensics_lib.trees.documents import DocumentReader
from forensics_lib.trees.subtree import Subtree

__all__ = ["find_hosts"]

_PLACES = ("/var/lib/docker", "/var/snap/docker", "/var/lib/containerd", "/var/lib/containers")
_SIGNS = ("etc/hostname", "etc/os-release", "etc/passwd", "var/log/journal")


def find_hosts(reader: DocumentReader, data_roots: Iterable[str]) -> list[DocumentReader]:
    """Readers of the hosts' file systems in a tree, the one of the whole tree first.

    Args:
        reader: reads the tree.
        data_roots: paths of the engines' data that was found in it: a host starts where their usual place starts.
    """
    starts: dict[str, None] = {}
    for path in data_roots:
        for place in _PLACES:
            start, found, _ = path.partition(place)
            if found and start:
                starts[start] = None
    for node in reader.folder("/"):
        is_host = node.name == "@home" or any(f"{node.path}/{sign}" in reader.tree for sign in _SIGNS)
        if node.kind is NodeKind.DIR and is_host:
            starts[node.path] = None
    found_hosts = [reader]
    for start in starts:
        try:
            found_hosts.append(DocumentReader(Subtree(reader.tree, start), reader.problems))
        except ForensicsError as error:
            reader.problems.add(reader.origin.to(start.lstrip("/")), error)
    return found_hosts
