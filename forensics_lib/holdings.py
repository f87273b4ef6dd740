"""What a piece of evidence holds: images as they travel, the data of engines, systemd journals, files of hosts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from forensics_lib.images.docker_archive import DockerArchive, is_docker_archive
from forensics_lib.images.image import Artifact, Image, ImageParts
from forensics_lib.images.manifests import ManifestReader
from forensics_lib.images.oci_layout import (
    is_cut_layout,
    is_image_dir,
    is_oci_layout,
    kept_apart,
    ordered,
    read_image_dir,
    read_oci_layout,
)
from forensics_lib.images.store import ImageStore
from forensics_lib.model import Check, EvidenceKind
from forensics_lib.opening import Opened
from forensics_lib.trees.base import NodeKind, Tree
from forensics_lib.trees.documents import DocumentReader
from forensics_lib.trees.outlet import Outlet
from forensics_lib.trees.subtree import Subtree

if TYPE_CHECKING:
    from forensics_lib.engines.containerd.engine import ContainerdEngine
    from forensics_lib.engines.containerd.store import Containerd
    from forensics_lib.engines.docker.engine import DockerRoot
    from forensics_lib.engines.host.files import HostFiles
    from forensics_lib.engines.journals import Journals

__all__ = ["Holdings", "find_holdings", "image_root"]

_MOST_WRAPPED = 4  # folders around an image, each in the other


@dataclass(slots=True)
class Holdings:
    """What was found in opened evidence.

    Attributes:
        opened: the evidence's files, disks and file systems.
        store: the documents and layers of image evidence; empty for other evidence.
        kind: what it was recognised as.
        travelling: the images of an archive or layout; none where engines keep images.
        artifacts: manifests of an archive or layout that are no images and belong to none.
        dockers: Docker's data roots.
        containerds: the roots of containerd.
        hosts: readers of the file systems of hosts.
        journals: the hosts' systemd journals; None for image evidence, which has no hosts.
    """

    opened: Opened
    store: ImageStore
    kind: EvidenceKind = EvidenceKind.FILESYSTEM_TREE
    travelling: list[Image] = field(default_factory=list)
    artifacts: list[Artifact] = field(default_factory=list)
    dockers: list[DockerRoot] = field(default_factory=list)
    containerds: list[ContainerdEngine] = field(default_factory=list)
    hosts: list[DocumentReader] = field(default_factory=list)
    journals: Journals | None = None

    @property
    def is_image_evidence(self) -> bool:
        """Whether it is an archive or layout of images, and not something that file systems were found in."""
        return self.kind in (EvidenceKind.DOCKER_ARCHIVE, EvidenceKind.OCI_LAYOUT, EvidenceKind.IMAGE_DIR)

    @property
    def engines(self) -> list[DockerRoot | ContainerdEngine]:
        """Every engine that has images or containers here, Docker's first."""
        return [*self.dockers, *self.containerds]

    @property
    def images(self) -> list[Image]:
        """The images, those of engines one engine after another."""
        return self.travelling or [image for engine in self.engines for image in engine.images]

    @property
    def docker_stores(self) -> list[Containerd]:
        """The roots of containerd in which Docker keeps its images."""
        return [docker.store.containerd for docker in self.dockers if docker.store is not None]

    @property
    def host_files(self) -> list[HostFiles]:
        """The text files of each host."""
        from forensics_lib.engines.host.files import HostFiles

        return [HostFiles(reader, self.store.limits) for reader in self.hosts]

    def checks(self) -> Iterator[Check]:
        """Everything that journals and engines state about their own data, recomputed."""
        if self.journals is not None:
            yield from self.journals.verify()
        if not self.engines:
            return
        from forensics_lib.engines.containerd.unpacked import verify_unpacked
        from forensics_lib.engines.containerd.verify import verify_content
        from forensics_lib.engines.docker.verify import verify_root

        for docker in self.dockers:
            yield from verify_root(docker, self.store.limits)
        checked = self.docker_stores
        for engine in self.containerds:
            if engine.spaces and engine.containerd not in checked:
                yield from verify_content(engine.containerd)
            for space in engine.spaces:
                yield from verify_unpacked(space)


def image_root(tree: Tree) -> Tree:
    """Where an image lies in a tree: at its root, or in the one folder that holds everything else."""
    below = tree
    for _ in range(_MOST_WRAPPED):
        if is_image_dir(below) or is_docker_archive(below) or is_oci_layout(below):
            return below
        held = list(islice(below.children(), 2))
        if len(held) != 1 or held[0].kind is not NodeKind.DIR:
            break
        below = Subtree(below, held[0].path)
    return tree


def find_holdings(opened: Opened, store: ImageStore, outlet: Outlet) -> Holdings:
    """Recognise evidence by its content and read the documents that tell what it holds.

    Args:
        opened: the evidence's files, disks and file systems.
        store: looks things up in its first file system.
        outlet: the way for copies out of it.
    """
    holdings = Holdings(opened, store)
    tree = store.tree
    if opened.disks:
        holdings.kind = EvidenceKind.DISK_IMAGE
        _find_engines(holdings, outlet)
    elif is_image_dir(tree):
        reader = read_image_dir(store)
        _take(holdings, EvidenceKind.IMAGE_DIR, reader, ordered(reader.images.values()))
    elif is_docker_archive(tree):
        archive = DockerArchive(store)
        _take(holdings, EvidenceKind.DOCKER_ARCHIVE, archive.reader, archive.images)
    elif is_oci_layout(tree):
        reader = read_oci_layout(store)
        _take(holdings, EvidenceKind.OCI_LAYOUT, reader, ordered(reader.images.values()))
    else:
        _find_engines(holdings, outlet)
        if holdings.engines:
            holdings.kind = EvidenceKind.DOCKER_ROOT if holdings.dockers else EvidenceKind.CONTAINERD_ROOT
        elif is_cut_layout(tree):
            reader = read_oci_layout(store)
            _take(holdings, EvidenceKind.OCI_LAYOUT, reader, ordered(reader.images.values()))
    return holdings


def _take(holdings: Holdings, kind: EvidenceKind, reader: ManifestReader, images: Iterable[ImageParts]) -> None:
    holdings.kind = kind
    holdings.travelling = [Image(one, holdings.store.problems) for one in images]
    holdings.artifacts = kept_apart(reader)


def _find_engines(holdings: Holdings, outlet: Outlet) -> None:
    """Look for data of engines; their readers are only loaded here, where there may be some."""
    from forensics_lib.engines.containerd.engine import ContainerdEngine
    from forensics_lib.engines.docker.acquisition import report_losses
    from forensics_lib.engines.docker.containerd import find_stores
    from forensics_lib.engines.docker.engine import DockerRoot
    from forensics_lib.engines.docker.leftovers import report_leftovers
    from forensics_lib.engines.docker.root import find_roots
    from forensics_lib.engines.hosts import find_hosts
    from forensics_lib.engines.journals import Journals

    limits, problems = holdings.store.limits, holdings.store.problems
    readers = [DocumentReader(filesystem.tree, problems) for filesystem in holdings.opened.filesystems]
    roots = [(reader, root) for reader in readers for root in find_roots(reader)]
    for reader in readers:
        holdings.hosts += find_hosts(reader, [root.path for own, root in roots if own is reader])
    journals = holdings.journals = Journals(holdings.hosts)
    stores = find_stores(readers, [root for _, root in roots], limits, holdings.store.pool)
    dockers = holdings.dockers = [
        DockerRoot(reader, root, limits, outlet, stores, journals, holdings.hosts) for reader, root in roots
    ]
    for docker in dockers:
        problems.defer(partial(report_losses, docker, limits))
        problems.defer(partial(report_leftovers, docker))
    engines = [ContainerdEngine(store, outlet, partial(_answered, holdings, store)) for store in stores]
    holdings.containerds = engines if dockers else [one for one in engines if one.is_used]


def _answered(holdings: Holdings, containerd: Containerd) -> set[str]:
    """The namespaces of a root of containerd that Docker answers for."""
    stores = [docker.store for docker in holdings.dockers if docker.store is not None]
    own = {store.namespace.name for store in stores if store.containerd is containerd}
    names = containerd.namespaces if holdings.dockers else ()
    return own | {name for name in names if name.partition("-")[0] in ("moby", "plugins.moby", "moby_history")}
