"""The btrfs images among the fixtures, and what the kernel that made them said of them."""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from forensics_lib.model import Origin
from forensics_lib.sources.base import Source
from forensics_lib.sources.decompress import decompress, sniff
from forensics_lib.sources.file import FileSource
from forensics_lib.trees.base import Node, NodeKind, Tree

DISKS = Path(__file__).parents[2] / "fixtures" / "disks"
DEVICES = {
    "btrfs": ["btrfs"],
    "btrfs-log": ["btrfs-log"],
    "btrfs-crash": ["btrfs-crash"],
    "btrfs-raid0": [f"btrfs-raid0-{number}" for number in (1, 2, 3)],
    "btrfs-raid10": [f"btrfs-raid10-{number}" for number in (1, 2, 3, 4)],
}
_BLOCK = 4096


class SparseDisk(Source):
    """A disk in memory, of which only the blocks that hold something are kept; single bytes can be changed."""

    def __init__(self, name: str) -> None:
        packed = FileSource(DISKS / f"{name}.img.zst")
        self.origin = Origin(f"{name}.img")
        self.size = 0
        self.blocks_of: dict[int, bytes] = {}
        self.changes: dict[int, int] = {}
        rest = b""
        for piece in decompress(packed.blocks(), sniff(packed.read_at(0, 16)), packed.origin):
            data = rest + piece
            whole = len(data) - len(data) % _BLOCK
            for start in range(0, whole, _BLOCK):
                block = data[start : start + _BLOCK]
                if block.count(0) != _BLOCK:
                    self.blocks_of[(self.size + start) // _BLOCK] = block
            self.size += whole
            rest = data[whole:]
        assert rest == b""

    def changed(self, changes: Mapping[int, int]) -> SparseDisk:
        """The same disk with other bytes at some offsets."""
        other = object.__new__(SparseDisk)
        other.origin, other.size, other.blocks_of = self.origin, self.size, self.blocks_of
        other.changes = {**self.changes, **changes}
        return other

    def written(self, offset: int, data: bytes) -> SparseDisk:
        """The same disk with other bytes from an offset on."""
        return self.changed({offset + index: byte for index, byte in enumerate(data)})

    def read_at(self, offset: int, length: int) -> bytes:
        length = max(0, min(length, self.size - offset))
        first, last = offset // _BLOCK, (offset + length + _BLOCK - 1) // _BLOCK
        data = b"".join(self.blocks_of.get(number, bytes(_BLOCK)) for number in range(first, last))
        part = bytearray(data[offset % _BLOCK : offset % _BLOCK + length])
        for at, byte in self.changes.items():
            if offset <= at < offset + length:
                part[at - offset] = byte
        return bytes(part)


def truth(name: str) -> dict[str, dict[str, Any]]:
    """What the kernel said of every path."""
    rows: dict[str, dict[str, Any]] = json.loads((DISKS / f"{name}.json").read_text())
    return rows


def differences(tree: Tree, wanted: Mapping[str, Mapping[str, Any]], paths: set[str] | None = None) -> list[str]:
    """Paths, and what of them is not as the kernel said."""
    nodes = {node.path: node for node in tree.walk()}
    found = [f"{path!r} is only on one side" for path in sorted(nodes.keys() ^ wanted.keys())]
    for path in sorted(nodes.keys() & wanted.keys() & (paths or wanted.keys())):
        row, own = dict(wanted[path]), _described(nodes[path])
        if row["inode"] == 2:  # an empty directory that the kernel makes up, times included
            row = {key: row[key] for key in ("mode", "uid", "gid")}
            own = {key: own[key] for key in row}
        if row != own:
            found.append(f"{path!r}: {own} is not {row}")
    return found


_TYPES = {
    NodeKind.FILE: stat.S_IFREG,
    NodeKind.DIR: stat.S_IFDIR,
    NodeKind.SYMLINK: stat.S_IFLNK,
    NodeKind.CHAR: stat.S_IFCHR,
    NodeKind.BLOCK: stat.S_IFBLK,
    NodeKind.FIFO: stat.S_IFIFO,
    NodeKind.SOCKET: stat.S_IFSOCK,
}


def _described(node: Node) -> dict[str, Any]:
    row: dict[str, Any] = {
        "mode": _TYPES[node.kind] | node.mode,
        "uid": node.uid,
        "gid": node.gid,
        "nlink": node.nlink,
        "inode": node.inode & (1 << 64) - 1,
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
        row["sha256"] = hashlib.sha256(node.read()).hexdigest()
    if node.target is not None:
        row["target"] = node.target.encode("utf-8", "surrogateescape").hex()
    return row
