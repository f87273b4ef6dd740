"""Layers in memory, for tests of trees that are merged from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import strategies as st

from forensics_lib.errors import DamagedData
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.sources.base import BytesSource, Source
from forensics_lib.trees.base import Node, NodeKind, Tree, device_number
from forensics_lib.trees.index import IndexTree
from forensics_lib.trees.overlay import Marks, OverlayTree

MTIME = 1_700_000_000_000_000_000

OPAQUE = {"trusted.overlay.opaque": b"y"}
METACOPY = {"trusted.overlay.metacopy": b""}


def redirect(path: str, **more: bytes) -> dict[str, bytes]:
    return {"trusted.overlay.redirect": path.encode()} | {f"trusted.overlay.{name}": v for name, v in more.items()}


@dataclass(frozen=True, slots=True)
class Bytes:
    """Content in memory; `owner` tells copies of the same bytes apart."""

    data: bytes
    owner: str

    def source(self) -> Source:
        return BytesSource(self.data, Origin(self.owner))


@dataclass(frozen=True, slots=True)
class Unread:
    """Content that must not be read."""

    def source(self) -> Source:
        raise DamagedData("this content must not be read")


Entry = Node  # a node whose path and origin are filled in by `tree`


def entry(kind: NodeKind, mode: int, xattrs: Mapping[str, bytes] | None, size: int = 0) -> Entry:
    return Node("", kind, mode, 0, 0, size, MTIME, Origin(""), xattrs=xattrs or {})


def file(data: bytes = b"", xattrs: Mapping[str, bytes] | None = None, **changes: Any) -> Entry:
    made = replace(entry(NodeKind.FILE, 0o644, xattrs, len(data)), content=Bytes(data, ""))
    return replace(made, **changes)


def folder(xattrs: Mapping[str, bytes] | None = None, **changes: Any) -> Entry:
    return replace(entry(NodeKind.DIR, 0o755, xattrs), **changes)


def link(target: str, **changes: Any) -> Entry:
    return replace(entry(NodeKind.SYMLINK, 0o777, None), target=target, **changes)


def device(major: int, minor: int, kind: NodeKind = NodeKind.CHAR) -> Entry:
    return replace(entry(kind, 0o600, None), rdev=device_number(major, minor))


def whiteout() -> Entry:
    return replace(entry(NodeKind.CHAR, 0, None), rdev=0)


def tree(name: str, entries: Mapping[str, Entry | bytes]) -> IndexTree:
    """A layer: bytes stand for a file; parents are directories with mode 0755 unless they are named."""
    layer = IndexTree(Origin(name))
    for path, made in entries.items():
        node = file(made) if isinstance(made, bytes) else made
        origin = Origin(name).to(f"member {path}")
        content = node.content
        if isinstance(content, Bytes):
            content = Bytes(content.data, f"{name}:{path}")
        layer.put(replace(node, path=path, origin=origin, content=content))
    return layer


def overlay(
    *layers: Mapping[str, Entry | bytes] | Tree,
    marks: Marks | None = Marks.TRUSTED,
    data_only: Mapping[str, Entry | bytes] | None = None,
) -> tuple[OverlayTree, ProblemLog]:
    """Layers merged, topmost first, and what was wrong with them."""
    problems = ProblemLog()
    trees = [each if isinstance(each, Tree) else tree(f"layer{index}", each) for index, each in enumerate(layers)]
    merged = OverlayTree(
        [(each, "/") for each in trees],
        data_only=[] if data_only is None else [(tree("data", data_only), "/")],
        problems=problems,
        origin=Origin("container"),
        marks=marks,
    )
    return merged, problems


def shown(merged: Tree) -> dict[str, bytes | str]:
    """Every path but the root with its content; the kind for what has none, the error for what cannot be read."""
    found: dict[str, bytes | str] = {}
    for node in merged.walk():
        if node.path == "/":
            continue
        try:
            found[node.path] = node.read() if node.kind is NodeKind.FILE else str(node.kind)
        except DamagedData:
            found[node.path] = "unreadable"
    return found


# Random layers; names are few, so that layers meet

NAMES = st.sampled_from("abc")
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(lambda names: "/" + "/".join(names))
REDIRECTS = st.none() | NAMES | PATHS


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    kind = draw(st.sampled_from(["file", "file", "dir", "dir", "opaque", "marked", "gone", "empty", "meta"]))
    xattrs = {}
    if (to := draw(REDIRECTS)) is not None and kind in ("dir", "opaque", "meta"):
        xattrs = redirect(to)
    if kind == "file":
        return file(draw(st.sampled_from([b"1", b"2", b"3"])))
    if kind == "gone":
        return whiteout()
    if kind == "empty":
        return file(b"", {"trusted.overlay.whiteout": b""})
    if kind == "meta":
        return file(b"\0", METACOPY | xattrs)
    mark = {"opaque": b"y", "marked": b"x"}.get(kind)
    return folder(xattrs if mark is None else {**xattrs, "trusted.overlay.opaque": mark}, mode=draw(st.just(0o700)))


LAYERS = st.lists(st.dictionaries(PATHS, entries(), max_size=8), min_size=1, max_size=4)
