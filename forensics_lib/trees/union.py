"""Several directories shown as one file system: the merge that overlay, fuse-overlayfs and AUFS have in common.

The order of events is that of the kernel's overlay file system (fs/overlayfs/namei.c): a name is followed from the
topmost layer down until something ends the search. What a layer's marks look like on disk is the business of the
layer; see overlay.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from forensics_lib.errors import DamagedData, ForensicsError, LimitExceeded, PathNotFound
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.sources.base import Source
from forensics_lib.trees.base import Node, NodeKind, Tree, byte_order, join
from forensics_lib.trees.union_layer import GONE, Gone, Layer

__all__ = ["Place", "UnionTree", "find_directories"]

_MAX_DEPTH = 2048  # as deep as a path of Linux (4,096 bytes) can be
_MAX_PATH = 64 << 10
_MAX_DIRECTORIES = 2_000_000  # redirects can show one lower directory many times over


class Place(NamedTuple):
    """A node of one layer; the layer is a number in the stack, 0 is the topmost."""

    layer: int
    node: Node


@dataclass(frozen=True, slots=True)
class _Merged:
    """What a path shows: the node, the layer it comes from and, for a directory, the places that are merged."""

    node: Node
    layer: int
    places: tuple[Place, ...] = ()


@dataclass(slots=True)
class _Trail:
    """What to look for in the next layer: a name beside the directory or, after an absolute redirect, a whole path."""

    steps: list[str]
    absolute: bool = False
    ended: bool = False


@dataclass(frozen=True, slots=True)
class _NoContent:
    """The content of a file whose data was to come from a layer that does not have it."""

    message: str
    origin: Origin

    def source(self) -> Source:
        """Always raises: zeros would be a lie."""
        raise DamagedData(self.message, origin=self.origin)


class UnionTree(Tree):
    """Layers merged into one tree, computed directory by directory as it is asked for.

    Nodes keep the numbers of the layer they come from: `inode` tells hard links inside a layer, `nlink` is what the
    layer says, as a mounted overlay shows it. The last step of a node's origin is its path in its layer.

    Args:
        layers: topmost first; None for one that is missing.
        data_only: directories that only lend content to files which name it by an absolute redirect.
        problems: gets marks that contradict themselves and content that is nowhere.
        origin: what was merged.

    Raises:
        PathNotFound: not one layer is there.
    """

    def __init__(
        self,
        layers: Sequence[Layer | None],
        *,
        data_only: Sequence[tuple[Tree, Node]] = (),
        problems: ProblemLog,
        origin: Origin,
    ) -> None:
        """Only the root directories are looked at."""
        self.origin = origin
        self._layers = tuple(layers)
        self._data_only = tuple(data_only)
        self._problems = problems
        self._trees = list(dict.fromkeys(id(layer.tree) for layer in self._layers if layer is not None))
        roots: list[Place] = []
        for index, layer in enumerate(self._layers):
            if layer is not None:
                roots.append(Place(index, layer.root))
                if layer.hides_all_below():
                    break
        if not roots:
            raise PathNotFound("none of the layers is there")
        self._roots = tuple(roots)
        top = self._roots[0]
        self._directories = {"/": _Merged(self._shown(top, "/"), top.layer, self._roots)}
        self._below: dict[int, UnionTree] = {}

    def layer_of(self, path: str) -> int:
        """The number of the layer that a path's node comes from, 0 for the topmost.

        Raises:
            PathNotFound: the merged tree has no such path.
        """
        merged = self._entry(self.node(path).path)
        if merged is None:
            raise PathNotFound(f"{path} does not exist")
        return merged.layer

    def below(self, count: int) -> UnionTree:
        """The merged tree without its topmost layers: what was there before they were put on top.

        Raises:
            PathNotFound: no layer is left.
        """
        if count not in self._below:
            origin = self.origin.to(f"without the {count} topmost layers")
            self._below[count] = UnionTree(
                self._layers[count:], data_only=self._data_only, problems=self._problems, origin=origin
            )
        return self._below[count]

    def previous(self, path: str) -> Node | None:
        """What a path held before the layer that has it now, or the one that deleted it, was put on top.

        None if nothing: the path is new, or it never existed.
        """
        try:
            return self._held(path, self.layer_of(path) + 1)
        except PathNotFound:
            versions = (self._held(path, count) for count in range(1, len(self._layers)))
            return next((node for node in versions if node is not None), None)

    def shared_with(self, other: UnionTree) -> Callable[[str], bool]:
        """A question for paths: is all below this directory the same in both, being taken from the same layers?"""
        pairs = list(zip(reversed(self._layers), reversed(other._layers), strict=False))
        same = [mine.same(theirs) if mine and theirs else mine is theirs for mine, theirs in pairs]
        common = same.index(False) if False in same else len(same)
        if [(id(tree), root.path) for tree, root in self._data_only] != [
            (id(tree), root.path) for tree, root in other._data_only
        ]:
            common = 0

        def shared(path: str) -> bool:
            mine, theirs = self._from_bottom(path), other._from_bottom(path)
            return bool(mine) and mine == theirs and mine[0][0] <= common

        return shared

    def _from_bottom(self, path: str) -> list[tuple[int, str]]:
        """The places of a directory, layers counted from the bottom."""
        merged = self._entry(path)
        return [(len(self._layers) - place.layer, place.node.path) for place in merged.places] if merged else []

    def _held(self, path: str, count: int) -> Node | None:
        try:
            return self.below(count).node(path)
        except (PathNotFound, LimitExceeded):
            return None

    def _lookup(self, path: str) -> Node | None:
        merged = self._entry(path)
        return None if merged is None else merged.node

    def _names(self, path: str) -> Iterable[str]:
        return (node.name for node in self._children(path))

    def _children(self, path: str) -> Iterator[Node]:
        directory = self._entry(path)
        if directory is None:
            return
        listings = [self._layer(place).listing(place.node) for place in directory.places]
        topmost: dict[str, tuple[int, Node | Gone]] = {}
        for place, listing in zip(directory.places, listings, strict=True):
            for name, node in listing.items():
                if name not in topmost:
                    topmost[name] = place.layer, node
        for name in sorted(topmost, key=byte_order):
            layer, node = topmost[name]
            if node is GONE:
                continue
            if node.kind is not NodeKind.DIR and not node.xattrs:  # as most are: no mark, so nothing more to look for
                yield self._shown(Place(layer, node), join(path, name))
            elif (merged := self._merge(directory, name, listings)) is not None:
                yield merged.node

    def _layer(self, place: Place) -> Layer:
        layer = self._layers[place.layer]
        assert layer is not None, "places are made of layers that are there"
        return layer

    def _entry(self, path: str) -> _Merged | None:
        """What exactly this path shows."""
        names = []
        while (merged := self._directories.get(path)) is None:
            path, _, name = path.rpartition("/")
            path = path or "/"
            names.append(name)
        for name in reversed(names):
            child = self._merge(merged, name)
            if child is None:
                return None
            merged = child
        return merged

    def _merge(
        self, directory: _Merged, name: str, listings: Sequence[Mapping[str, Node | Gone]] | None = None
    ) -> _Merged | None:
        """Follow one name of a merged directory down the layers; `listings` holds what its places list."""
        trail = _Trail([name])
        found: list[Place] = []
        places = directory.places
        position = 0
        while position < len(places) and not trail.ended:
            layer = places[position].layer
            node = listings[position].get(trail.steps[0]) if listings else self._descend(places[position], trail)
            position += 1
            if node is GONE:
                break
            if node is None:
                continue
            if found and (node.kind is not found[0].node.kind or node.kind not in (NodeKind.DIR, NodeKind.FILE)):
                break
            found.append(Place(layer, node))
            self._read_marks(found[-1], trail)
            if trail.absolute:
                places = tuple(place for place in self._roots if place.layer > layer)
                position = 0
                listings = None
        if not found:
            return None
        path = join(directory.node.path, name)
        top = found[0]
        if top.node.kind is NodeKind.DIR:
            return self._remember(_Merged(self._shown(top, path), top.layer, tuple(found)))
        if top.node.kind is NodeKind.FILE and self._layer(top).borrows(top.node):
            return _Merged(self._shown(self._with_data(found, trail), path), top.layer)
        return _Merged(self._shown(top, path), top.layer)

    def _descend(self, place: Place, trail: _Trail) -> Node | Gone | None:
        """Look a trail up in one layer, and note where the next layers hold it."""
        layer = self._layer(place)
        directory = place.node
        above = _Trail([], absolute=True)
        for index, step in enumerate(trail.steps[:-1]):
            node = layer.find(directory, step)
            if node is None:
                trail.steps = above.steps + trail.steps[index:]
                trail.ended = above.ended
                return None
            if node is GONE or node.kind is not NodeKind.DIR:
                trail.ended = True
                return None
            above.steps = [*above.steps, step]
            self._read_marks(Place(place.layer, node), above)
            directory = node
        trail.steps = [*above.steps, trail.steps[-1]]
        trail.ended = above.ended
        return layer.find(directory, trail.steps[-1])

    def _read_marks(self, place: Place, trail: _Trail) -> None:
        """Let a node that was found say whether, and where, the search goes on below."""
        layer, node = self._layer(place), place.node
        if node.kind is NodeKind.DIR:
            if layer.opaque(node):
                trail.ended = True
                return
        elif node.kind is not NodeKind.FILE or not layer.borrows(node):
            trail.ended = True
            return
        redirect = layer.redirect(node)
        if redirect is None:
            return
        steps = _redirect_steps(redirect)
        if steps is None or len(trail.steps) + len(steps) > _MAX_DEPTH:
            message = f"{node.path}: redirect to {redirect[:100]!r} leads nowhere; no layer below is merged"
            self._problems.add(node.origin, message)
            trail.ended = True
        elif redirect.startswith("/"):
            trail.steps, trail.absolute, trail.ended = steps, True, False
        else:
            trail.steps = [*trail.steps[:-1], *steps]

    def _with_data(self, found: Sequence[Place], trail: _Trail) -> Place:
        """A file that borrows its content, with the content of the layer that has it."""
        top, last = found[0], found[-1]
        data: Node | None = last.node
        if self._layer(last).borrows(last.node):
            data = self._find_data(trail.steps) if trail.absolute else None
        if data is None:
            message = f"{top.node.path}: the layer below that holds its content is not there"
            self._problems.add(top.node.origin, message)
            return Place(top.layer, replace(top.node, content=_NoContent(message, top.node.origin)))
        if data.size != top.node.size:
            message = f"{top.node.path}: {top.node.size} bytes by its own record, {data.size} where its content is"
            self._problems.add(top.node.origin, message)
        return Place(top.layer, replace(top.node, content=data.content))

    def _find_data(self, steps: Sequence[str]) -> Node | None:
        for tree, root in self._data_only:
            node: Node | None = root
            for step in steps:
                if node is None or node.kind is not NodeKind.DIR:
                    node = None
                    break
                node = tree.find(join(node.path, step))
            if node is not None and node.kind is NodeKind.FILE:
                return node
        return None

    def _shown(self, place: Place, path: str) -> Node:
        """A layer's node under its path in the merged tree."""
        layer, node = self._layer(place), place.node
        origin, where = node.origin, node.path
        if origin.label.lstrip("/") != where[1:]:
            origin = origin.to(where)
        if node.xattrs:
            node = layer.shown(node)
        inode = node.inode
        if inode and len(self._trees) > 1:  # numbers of different file systems must not meet
            inode = inode * len(self._trees) + self._trees.index(id(layer.tree))
        return Node(
            path,
            node.kind,
            node.mode,
            node.uid,
            node.gid,
            node.size,
            node.mtime_ns,
            origin,
            node.atime_ns,
            node.ctime_ns,
            node.btime_ns,
            node.target,
            node.rdev,
            node.nlink,
            inode,
            node.xattrs,
            node.content,
        )

    def _remember(self, merged: _Merged) -> _Merged:
        """Keep a directory, so that what is below it is found without climbing again."""
        path = merged.node.path
        if (known := self._directories.get(path)) is not None:
            return known
        crowded = len(self._directories) >= _MAX_DIRECTORIES
        if crowded or len(path) > _MAX_PATH or path.count("/") > _MAX_DEPTH:
            bound = f"{_MAX_DIRECTORIES} directories" if crowded else f"a depth of {_MAX_DEPTH}"
            error = LimitExceeded(f"{path[:100]}: beyond {bound}, shown empty", origin=merged.node.origin)
            self._problems.add(merged.node.origin, error)
            return replace(merged, places=())
        self._directories[path] = merged
        return merged


def find_directories(layers: Iterable[tuple[Tree, str]], problems: ProblemLog) -> list[tuple[Tree, Node] | None]:
    """The directories of layers, links to them followed inside their trees; None, and a problem, for a missing one."""
    found: list[tuple[Tree, Node] | None] = []
    for tree, path in layers:
        try:
            root = tree.resolve(path)
            if root.kind is not NodeKind.DIR:
                raise PathNotFound(f"layer {path} is no directory")
            found.append((tree, root))
        except ForensicsError as error:
            problems.add(tree.origin.to(path), error)
            found.append(None)
    return found


def _redirect_steps(redirect: str) -> list[str] | None:
    """The names of a redirect; None if it is not one that an overlay file system writes."""
    steps = redirect[1:].split("/") if redirect.startswith("/") else [redirect]
    if any(step in ("", ".", "..") or "/" in step for step in steps):
        return None
    return steps
