"""Real container stores for tests of merged trees.

FORENSICS_EVIDENCE names a folder that holds docker-small/, docker29-graphdriver/ and engines/.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import forensics_lib as fl
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.trees.base import Node, NodeKind, Tree, join
from forensics_lib.trees.overlay import Marks, OverlayTree

ROOT = Path(os.environ.get("FORENSICS_EVIDENCE", "nowhere"))
SMALL = ROOT / "docker-small/small-ext4-overlay2"
MODERN = ROOT / "docker29-graphdriver/modern-graphdriver-nocrash"
FUSE = ROOT / "engines/fuse-overlayfs"
NEEDED = (SMALL, MODERN, FUSE)
REASON = "FORENSICS_EVIDENCE names no folder with this evidence"


@dataclass(frozen=True)
class Case:
    """A container's file system before and after, and where the engine's own answers stand."""

    name: str
    before: Tree
    after: OverlayTree
    diff: Path
    export: Path


def cases() -> Iterator[Case]:
    """Every container of the evidence; a problem met on the way raises."""
    with fl.open(SMALL / "evidence/clean/var-lib-docker.tar") as opened:
        yield from docker(SMALL, opened.filesystems[0].tree, "/docker")
    with fl.open(MODERN / "evidence/clean/root.tar") as opened:
        yield from docker(MODERN, opened.filesystems[0].tree, "/var/lib/docker")
    with fl.open(FUSE / "evidence/host.tar") as opened:
        yield from fuse(opened.filesystems[0].tree)


def docker(base: Path, disk: Tree, root: str) -> Iterator[Case]:
    truth = base / "truth/5-stopped"
    driver = f"{root}/overlay2"

    def merged(name: str) -> OverlayTree:
        lower = disk.read(f"{driver}/{name}/lower").decode().split(":")
        return overlay(disk, [f"{driver}/{name}/diff", *(f"{driver}/{link}" for link in lower)], Marks.TRUSTED)

    for path in sorted((truth / "containers").glob("*.json")):
        mounts = f"{root}/image/overlay2/layerdb/mounts/{path.stem}"
        before, after = (merged(disk.read(f"{mounts}/{name}").decode()) for name in ("init-id", "mount-id"))
        answers = (truth / folder / f"{path.stem}.jsonl" for folder in ("diff", "export"))
        yield Case(f"{base.name} {path.stem[:12]}", before, after, *answers)


def fuse(disk: Tree) -> Iterator[Case]:
    for name, marks in (("plain", Marks.FUSE), ("xattrperm", Marks.FUSE), ("userxattr", Marks.USER)):
        after = overlay(disk, [f"/var/lib/fuse-overlayfs/{name}/{layer}" for layer in ("upper", "lower")], marks)
        answers = (FUSE / "truth" / folder / f"{name}.jsonl" for folder in ("diff", "export"))
        yield Case(f"fuse {name}", after.below(1), after, *answers)
    storage = "/var/lib/containers/storage/overlay"
    for container in json.loads(disk.read(f"{storage}-containers/containers.json")):
        layer, ident = container["layer"], container["id"]
        lower = disk.read(f"{storage}/{layer}/lower").decode().split(":")
        layers = [f"{storage}/{layer}/diff", *(f"{storage}/{link}" for link in lower)]
        after = overlay(disk, layers, Marks.FUSE)
        answers = (FUSE / "truth" / folder / f"{ident}.jsonl" for folder in ("diff-full", "export"))
        yield Case(f"podman {ident[:12]}", after.below(1), after, *answers)


def overlay(disk: Tree, layers: list[str], marks: Marks) -> OverlayTree:
    problems = ProblemLog(strict=True)
    return OverlayTree([(disk, path) for path in layers], problems=problems, origin=Origin("container"), marks=marks)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def path_of(row: dict[str, Any]) -> str:
    raw = base64.b64decode(row["path_b64"]) if "path_b64" in row else row["path"].encode()
    return join("/", raw.decode("utf-8", "surrogateescape").strip("/"))


def exported(row: dict[str, Any]) -> dict[str, Any]:
    """What an export says of one path; what tar cannot say is left out."""
    kind = "file" if row["type"] == "hardlink" else row["type"]
    said = {"kind": kind, "owner": (row["uid"], row["gid"])}
    if kind == "symlink":
        return said | {"target": row["link"], "seconds": row["mtime"]}
    said["mode"] = int(row["mode"], 8) & 0o7777
    if kind == "dir" or row["type"] == "hardlink":
        return said
    said["seconds"] = row["mtime"]
    if kind == "file":
        return said | {"sha256": row["sha256"], "size": row["size"]}
    return said | ({"device": row["dev"]} if "dev" in row else {})


def shown(node: Node, said: dict[str, Any]) -> dict[str, Any]:
    """A node, in the words of `exported`."""
    facts: dict[str, Any] = {
        "kind": str(node.kind),
        "mode": node.mode,
        "owner": (node.uid, node.gid),
        "target": node.target,
        "size": node.size,
        "seconds": None if node.mtime_ns is None else node.mtime_ns // 10**9,
        "device": [os.major(node.rdev), os.minor(node.rdev)],
    }
    if "sha256" in said and node.kind is NodeKind.FILE:
        facts["sha256"] = hashlib.sha256(node.read()).hexdigest()
    return {name: facts.get(name) for name in said}
