"""The XFS images among the fixtures, and what the kernels that made them said of them."""

from __future__ import annotations

import functools
import hashlib
import json
import stat
from collections.abc import Mapping
from typing import Any

from forensics_lib.model import ProblemLog
from forensics_lib.sources.decompress import decompress, sniff
from forensics_lib.sources.file import FileSource
from forensics_lib.trees.base import Node, NodeKind
from forensics_lib.trees.xfs import XfsTree
from tests.trees.btrfs_disks import DISKS, SparseDisk

NAMES = ("xfs-v5", "xfs-1k", "xfs-v4", "xfs-v5-crash", "xfs-v4-crash")
_LARGE = 1 << 30
_TYPES = {
    NodeKind.FILE: stat.S_IFREG,
    NodeKind.DIR: stat.S_IFDIR,
    NodeKind.SYMLINK: stat.S_IFLNK,
    NodeKind.CHAR: stat.S_IFCHR,
    NodeKind.BLOCK: stat.S_IFBLK,
    NodeKind.FIFO: stat.S_IFIFO,
    NodeKind.SOCKET: stat.S_IFSOCK,
}


@functools.cache
def disk(name: str) -> SparseDisk:
    """An image; not to be changed, `changed` and `written` give others."""
    return SparseDisk(name)


@functools.cache
def truth(name: str) -> dict[str, dict[str, Any]]:
    """What the kernel said of every path."""
    packed = FileSource(DISKS / f"{name}.json.zst")
    data = b"".join(decompress(packed.blocks(), sniff(packed.read_at(0, 16)), packed.origin))
    rows: dict[str, dict[str, Any]] = json.loads(data)
    return rows


def described(node: Node) -> dict[str, Any]:
    """A node as the listings describe it."""
    row: dict[str, Any] = {
        "mode": _TYPES[node.kind] | node.mode,
        "uid": node.uid,
        "gid": node.gid,
        "nlink": node.nlink,
        "inode": node.inode,
        "atime_ns": node.atime_ns,
        "mtime_ns": node.mtime_ns,
        "ctime_ns": node.ctime_ns,
    }
    if node.xattrs:
        row["xattrs"] = {name: value.hex() for name, value in node.xattrs.items()}
    if node.kind in (NodeKind.CHAR, NodeKind.BLOCK):
        row["rdev"] = node.rdev
    if node.kind is NodeKind.FILE:
        row["size"] = node.size
        row["sha256"] = hashlib.sha256(node.read()).hexdigest() if node.size <= _LARGE else None
    if node.target is not None:
        row["target"] = node.target.encode("utf-8", "surrogateescape").hex()
    return row


def differences(tree: XfsTree, wanted: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Paths, and what of them is not as the kernel said."""
    nodes = {node.path: node for node in tree.walk()}
    found = [f"{path!r} is only on one side" for path in sorted(nodes.keys() ^ wanted.keys())]
    for path in sorted(nodes.keys() & wanted.keys()):
        own = described(nodes[path])
        if own != wanted[path]:
            found.append(f"{path!r}: {own} is not {wanted[path]}")
    return found


def messages(problems: ProblemLog) -> str:
    """All problems as lines."""
    return "\n".join(f"{problem.origin}: {problem.message}" for problem in problems.rows)
