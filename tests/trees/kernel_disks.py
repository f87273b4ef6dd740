"""File systems that the kernel filled, and what it said of every path."""

from __future__ import annotations

import hashlib
import json
import stat
from pathlib import Path
from typing import Any

from forensics_lib.sources.decompress import decompress, sniff
from forensics_lib.sources.file import FileSource
from forensics_lib.trees.base import NodeKind, Tree

DISKS = Path(__file__).parents[2] / "fixtures" / "disks"


def unpacked(name: str, folder: Path) -> Path:
    packed = FileSource(DISKS / f"{name}.img.zst")
    path = folder / f"{name}.img"
    with path.open("wb") as file:
        for block in decompress(packed.blocks(), sniff(packed.read_at(0, 16)), packed.origin):
            if block.strip(b"\0"):
                file.write(block)
            else:
                file.seek(len(block), 1)
        file.truncate()
    return path


def truth(name: str) -> dict[str, dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = json.loads((DISKS / f"{name}.json").read_text())
    return rows


def assert_as_the_kernel_said(name: str, tree: Tree) -> None:
    """Names, metadata, attributes and content of everything."""
    assert_as_listed(truth(name), tree)


def assert_as_listed(wanted: dict[str, dict[str, Any]], tree: Tree) -> None:
    """The same, against a listing."""
    nodes = {node.path: node for node in tree.walk()}
    assert nodes.keys() == wanted.keys()
    for place, row in wanted.items():
        node = nodes[place]
        found: dict[str, Any] = {
            "mode": stat.S_IMODE(row["mode"]),
            "uid": node.uid,
            "gid": node.gid,
            "nlink": node.nlink,
            "mtime_ns": node.mtime_ns,
            "ctime_ns": node.ctime_ns,
            "rdev": node.rdev if node.kind in (NodeKind.CHAR, NodeKind.BLOCK) else 0,
            "xattrs": {key: value.hex() for key, value in node.xattrs.items()},
        }
        if node.kind is NodeKind.FILE:
            found |= {"size": node.size, "sha256": hashlib.sha256(node.read()).hexdigest()}
        if node.kind is NodeKind.SYMLINK:
            assert node.target is not None
            found["target"] = node.target.encode("utf-8", "surrogateescape").hex()
        assert node.mode == found["mode"]
        assert found == row | {"mode": found["mode"]}, place
