"""Docker's storage drivers: where the files of a layer lie, and how layers make up a container's file system.

Formats: moby ``daemon/graphdriver/*``. Everything is looked up in the evidence's tree; nothing is mounted.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property

from forensics_lib.engines.docker.layerdb import LayerDb
from forensics_lib.engines.docker.root import DataRoot
from forensics_lib.engines.docker.usernamespace import as_in_containers
from forensics_lib.errors import DamagedData, ForensicsError, PathNotFound, UnsupportedFormat
from forensics_lib.model import Origin
from forensics_lib.trees.base import NodeKind, Tree, join
from forensics_lib.trees.documents import DocumentReader
from forensics_lib.trees.overlay import AufsTree, Marks, OverlayTree
from forensics_lib.trees.subtree import Subtree

__all__ = ["DRIVERS", "GRAPH_DRIVERS", "GraphDriver", "driver_of"]

_MAX_LAYERS = 512


class GraphDriver(ABC):
    """One storage driver of one data root.

    Attributes:
        name: as Docker calls it.
        shares: whether a layer stores only what it changes; otherwise it is a whole copy.
    """

    name: str
    shares = True

    def __init__(self, name: str, reader: DocumentReader, root: DataRoot, layers: LayerDb, real_root: str) -> None:
        """Look things up below the root; `real_root` is its path on the host it was copied from.

        Owners are those that containers saw, also where a user namespace shifted them.
        """
        self.name = name
        self._reader = reader
        self._tree = as_in_containers(reader, root.path, real_root)
        self._layers = layers
        self.home = root.at(name)
        self._real_home = join(real_root, name)

    @abstractmethod
    def tree(self, cache_id: str) -> Tree:
        """The merged file system of a layer and all below it.

        Raises:
            PathNotFound: its directory is not in the evidence.
            UnsupportedFormat: this driver keeps files where the evidence does not reach.
        """

    @abstractmethod
    def alone(self, cache_id: str) -> Tree:
        """What the layer's own directory holds.

        Raises:
            PathNotFound: its directory is not in the evidence.
            UnsupportedFormat: as `tree`.
        """

    def shown(self, cache_id: str, container_id: str | None) -> dict[str, object]:
        """``GraphDriver`` of ``docker inspect``; `container_id` is given for containers of Docker 28 and later."""
        return {"Data": None, "Name": self.name}

    def directories(self) -> Iterator[str]:
        """Names of all layer directories, whoever they belong to."""
        for node in self._reader.folder(self.folder_of_layers):
            if node.kind is NodeKind.DIR and node.name not in self.not_layers:
                yield node.name

    def holds(self, cache_id: str) -> bool:
        """Whether the directory of a layer is in the evidence with its files."""
        try:
            self.alone(cache_id)
        except ForensicsError:
            return False
        return True

    def _once(self, cache_id: str, own: str, lower: Sequence[str], named: Sequence[str]) -> list[str]:
        """The lower layers without those that a list names again; what is wrong with the list is a problem."""
        distinct = [folder for folder in dict.fromkeys(lower) if folder != own]
        if len(distinct) < len(lower):
            message = f"its list of {len(named)} lower layers leads in a circle; each is taken once"
            self._reader.problems.add(self._origin(cache_id), message)
        elif len(lower) < len(named):
            message = f"its list has {len(named)} lower layers; {len(lower)} are merged"
            self._reader.problems.add(self._origin(cache_id), message)
        return distinct

    def folder(self, cache_id: str) -> str:
        """The directory of a layer."""
        return join(self.folder_of_layers, cache_id)

    def exists(self, cache_id: str) -> bool:
        """Whether the directory of a layer is in the evidence."""
        return _is_name(cache_id) and bool(cache_id) and self.folder(cache_id) in self._tree

    @property
    def folder_of_layers(self) -> str:
        """The directory that holds those of the layers."""
        return self.home

    not_layers: frozenset[str] = frozenset()

    def _existing(self, *parts: str) -> str:
        """The path of a directory that has to be there.

        Raises:
            PathNotFound: it is not; an empty name never is.
        """
        path = self.folder_of_layers
        for part in parts:
            path = join(path, part)
        if not all(map(_is_name, parts)) or path not in self._tree:
            raise PathNotFound(f"{path.lstrip('/')} is not in the evidence")
        return path

    def _origin(self, cache_id: str) -> Origin:
        return self._reader.origin.to(self.folder(cache_id).lstrip("/"))


class _Overlay2(GraphDriver):
    """overlay2 and fuse-overlayfs: ``<id>/diff`` over the directories that ``<id>/lower`` names by short links."""

    not_layers = frozenset(["l"])

    def tree(self, cache_id: str) -> Tree:
        """The merged file system of a layer and all below it."""
        self._existing(cache_id, "diff")
        folders = [one for one in self.stack(cache_id) if one in self._tree]
        layers = [(self._tree, folder) for folder in folders]
        return OverlayTree(layers, problems=self._reader.problems, origin=self._origin(cache_id), marks=self._marks)

    @property
    def _marks(self) -> Marks:
        if self.name == "fuse-overlayfs":
            return Marks.FUSE
        rootless = "/.local/share/docker/" in self._real_home  # mounted with userxattr
        return Marks.USER if rootless else Marks.TRUSTED

    def alone(self, cache_id: str) -> Tree:
        """What the layer's own directory holds, whiteouts as the driver stores them."""
        return Subtree(self._tree, self._existing(cache_id, "diff"))

    def shown(self, cache_id: str, container_id: str | None) -> dict[str, object]:
        """``GraphDriver`` of ``docker inspect``."""
        home = join(self._real_home, cache_id)
        data: dict[str, object] = {
            "MergedDir": f"{home}/merged",
            "UpperDir": f"{home}/diff",
            "WorkDir": f"{home}/work",
        }
        if container_id is not None:
            data["ID"] = container_id
        lower = [self._real_home + folder.removeprefix(self.home) for folder in self.stack(cache_id)[1:]]
        if lower:
            data["LowerDir"] = ":".join(lower)
        return {"Data": data, "Name": self.name}

    def stack(self, cache_id: str) -> list[str]:
        """The ``diff`` directories of a layer and those below it, topmost first."""
        own = join(self.folder(cache_id), "diff")
        text = self._reader.text(join(self.folder(cache_id), "lower"))
        if text is None:
            return [own, *self._from_records(cache_id)]
        links = [link for link in text.split(":") if link]
        return [own, *self._once(cache_id, own, [self._behind(cache_id, link) for link in links[:_MAX_LAYERS]], links)]

    def _behind(self, cache_id: str, link: str) -> str:
        """The directory behind a short link ``l/<name>``; a missing link is found again by the layers' own ``link``."""
        name = link.removeprefix("l/")
        tree = self._tree
        path = join(join(self.home, "l"), name)
        if "/" not in name and path in tree and (target := tree.node(path).target) is not None:
            parts = target.split("/")
            if len(parts) == 3 and parts[0] == ".." and parts[2] == "diff" and _is_name(parts[1]):
                folder = join(self.folder(parts[1]), "diff")
                if folder not in tree:
                    self._missing(cache_id, folder)
                return folder
        owner = self._owners_of_links.get(name)
        if owner is None:
            self._missing(cache_id, f"the directory behind {link}")
            return join(self.folder(name), "diff")
        return join(self.folder(owner), "diff")

    @cached_property
    def _owners_of_links(self) -> dict[str, str]:
        """Directories by the short name they say they have."""
        found = {}
        for name in self.directories():
            link = self._reader.text(join(self.folder(name), "link"))
            if link:
                found[link] = name
        return found

    def _from_records(self, cache_id: str) -> list[str]:
        """The lower directories by the layer records, for a directory whose ``lower`` is missing (a base has none)."""
        record = self._layers.by_cache_id.get(cache_id)
        below = record.parent if record is not None else ""
        if record is None:
            for mount in self._layers.mounts.values():
                if cache_id == mount.mount_id and mount.init_id:
                    init = join(self.folder(mount.init_id), "diff")
                    return [init, *self.stack(mount.init_id)[1:]] if init in self._tree else []
                if cache_id == mount.init_id:
                    below = mount.parent
        if not below:
            return []
        if self.folder(cache_id) in self._tree:
            message = "its list of lower layers is missing; the records are used"
            self._reader.problems.add(self._origin(cache_id), message)
        return [join(self.folder(layer.cache_id), "diff") for layer in self._layers.chain(below) if layer.cache_id]

    def _missing(self, cache_id: str, what: str) -> None:
        error = DamagedData(f"layer {cache_id}: {what} is missing; the rest is merged")
        self._reader.problems.add(self._origin(cache_id), error)


class _Overlay1(GraphDriver):
    """overlay (until Docker 23): images are whole copies in ``root``, a container is ``upper`` over one of them."""

    shares = False

    def tree(self, cache_id: str) -> Tree:
        """The merged file system."""
        if join(self.folder(cache_id), "root") in self._tree:
            return Subtree(self._tree, self._existing(cache_id, "root"))
        layers = [(self._tree, self._existing(cache_id, "upper"))]
        name = self._lower(cache_id)
        lower = join(self.folder(name), "root")
        if _is_name(name) and lower in self._tree:
            layers.append((self._tree, lower))
        else:
            self._reader.problems.add(self._origin(cache_id), f"lower layer {name[:100]!a} is missing")
        return OverlayTree(layers, problems=self._reader.problems, origin=self._origin(cache_id))

    def alone(self, cache_id: str) -> Tree:
        """What the layer's own directory holds."""
        own = "root" if join(self.folder(cache_id), "root") in self._tree else "upper"
        return Subtree(self._tree, self._existing(cache_id, own))

    def shown(self, cache_id: str, container_id: str | None) -> dict[str, object]:
        """``GraphDriver`` of ``docker inspect``."""
        home = join(self._real_home, cache_id)
        data: dict[str, object] = {"RootDir": f"{home}/root"}
        if join(self.folder(cache_id), "root") not in self._tree:
            data = {
                "LowerDir": f"{join(self._real_home, self._lower(cache_id))}/root",
                "MergedDir": f"{home}/merged",
                "UpperDir": f"{home}/upper",
                "WorkDir": f"{home}/work",
            }
        return {"Data": data, "Name": self.name}

    def _lower(self, cache_id: str) -> str:
        return self._reader.text(join(self.folder(cache_id), "lower-id")) or ""


class _Aufs(GraphDriver):
    """aufs (until Docker 23): ``diff/<id>`` over the directories that ``layers/<id>`` lists."""

    @property
    def folder_of_layers(self) -> str:
        """The directory that holds those of the layers."""
        return join(self.home, "diff")

    def tree(self, cache_id: str) -> Tree:
        """The merged file system of a layer and all below it."""
        layers = [(self._tree, self._existing(cache_id))]
        names = (self._reader.text(join(join(self.home, "layers"), cache_id)) or "").split()
        for name in self._once(cache_id, cache_id, names[:_MAX_LAYERS], names):
            folder = self.folder(name)
            if _is_name(name) and folder in self._tree:
                layers.append((self._tree, folder))
            else:
                self._reader.problems.add(self._origin(cache_id), f"lower layer {name[:100]!a} is missing")
        return AufsTree(layers, problems=self._reader.problems, origin=self._origin(cache_id))

    def alone(self, cache_id: str) -> Tree:
        """What the layer's own directory holds, whiteouts as the driver stores them."""
        return Subtree(self._tree, self._existing(cache_id))


class _Copies(GraphDriver):
    """vfs and btrfs: each layer is a whole copy (or snapshot) of the one below it."""

    shares = False

    @property
    def folder_of_layers(self) -> str:
        """The directory that holds those of the layers."""
        return join(self.home, "dir" if self.name == "vfs" else "subvolumes")

    def tree(self, cache_id: str) -> Tree:
        """The file system of a layer.

        Raises:
            PathNotFound: its directory is not in the evidence.
            DamagedData: it is empty, and the layer was not: a copy that stays in one file system, such as that of
                ``tar --one-file-system``, leaves out what is in a btrfs subvolume.
        """
        tree = Subtree(self._tree, self._existing(cache_id))
        if not any(tree.names("/")) and not self._may_be_empty(cache_id):
            message = f"{self.folder(cache_id).lstrip('/')} is empty, and the layer was not: the copy did not enter it"
            raise DamagedData(message, origin=self._origin(cache_id))
        return tree

    def _may_be_empty(self, cache_id: str) -> bool:
        """Docker puts files into every container, so that only an image's first layer may be empty."""
        record = self._layers.by_cache_id.get(cache_id)
        return record is not None and not record.size and not record.parent

    def alone(self, cache_id: str) -> Tree:
        """The same: a copy holds everything."""
        return self.tree(cache_id)


def _is_name(text: str) -> bool:
    """Whether a text of the evidence names something in a directory and leads nowhere else."""
    return text not in ("", ".", "..") and "/" not in text


_WHERE = {
    "devicemapper": "thin volumes of a block device pool (devicemapper/devicemapper/data or an LVM pool)",
    "zfs": "datasets of a ZFS pool",
}


class _Unreachable(GraphDriver):
    """devicemapper and zfs keep files on block devices or in pools, and unknown drivers nobody knows where."""

    def tree(self, cache_id: str) -> Tree:
        """Always raises."""
        raise self._why(cache_id)

    def alone(self, cache_id: str) -> Tree:
        """Always raises."""
        raise self._why(cache_id)

    def _why(self, cache_id: str) -> UnsupportedFormat:
        where = _WHERE.get(self.name, "places that only the driver knows")
        return UnsupportedFormat(f"the storage driver {self.name} keeps the files of layer {cache_id} in {where}")


DRIVERS: dict[str, type[GraphDriver]] = {
    "overlay2": _Overlay2,
    "fuse-overlayfs": _Overlay2,
    "overlay": _Overlay1,
    "aufs": _Aufs,
    "vfs": _Copies,
    "btrfs": _Copies,
}
GRAPH_DRIVERS = frozenset([*DRIVERS, "devicemapper", "zfs", "windowsfilter", "lcow"])
"""All there are, also those whose layers are no directories; other names are those of snapshotters."""


def driver_of(name: str, reader: DocumentReader, root: DataRoot, layers: LayerDb, real_root: str) -> GraphDriver:
    """The reader of a storage driver's layers."""
    return DRIVERS.get(name, _Unreachable)(name, reader, root, layers, real_root)
