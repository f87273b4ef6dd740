"""Opening evidence, and asking it."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from forensics_lib.analysis.digests import StreamDigests
from forensics_lib.analysis.hashing import FILE_ALGORITHMS, hash_artifacts
from forensics_lib.analysis.inventory import Inventory, TarStream
from forensics_lib.analysis.verify import verify_images
from forensics_lib.custody import Custody
from forensics_lib.errors import AmbiguousName, DamagedData, NotFound, PathNotFound
from forensics_lib.formats.tar import TarDecoder, TarEntry
from forensics_lib.images.docker_archive import DockerArchive, is_docker_archive
from forensics_lib.images.image import Artifact, Image
from forensics_lib.images.layer import SpoolPool
from forensics_lib.images.manifests import familiar
from forensics_lib.images.oci_layout import (
    is_image_dir,
    is_oci_layout,
    kept_apart,
    ordered,
    read_image_dir,
    read_oci_layout,
)
from forensics_lib.images.store import ImageStore
from forensics_lib.model import ArtifactHash, Check, EvidenceKind, Origin, Problem, ProblemLog, Progress
from forensics_lib.opening import FileSystem, open_path
from forensics_lib.sources.base import Source
from forensics_lib.sources.decompress import Compression, Limits, SpoolSource, sniff
from forensics_lib.sources.file import FileSource
from forensics_lib.sources.stream import SourceStream
from forensics_lib.table import Table
from forensics_lib.trees.base import Tree
from forensics_lib.trees.directory import DirectoryTree
from forensics_lib.trees.documents import DocumentReader
from forensics_lib.trees.extract import Extracted
from forensics_lib.trees.outlet import Outlet

if TYPE_CHECKING:
    import re
    from concurrent.futures import Executor

    from forensics_lib.analysis.identify import Identified
    from forensics_lib.analysis.scan import CompiledRules, Match
    from forensics_lib.analysis.search import Hit
    from forensics_lib.engines.container import Container
    from forensics_lib.engines.containerd.engine import ContainerdEngine
    from forensics_lib.engines.containerd.store import Containerd
    from forensics_lib.engines.docker.buildcache import BuildCacheRecord
    from forensics_lib.engines.docker.buildhistory import BuildRecord
    from forensics_lib.engines.docker.engine import DockerRoot
    from forensics_lib.engines.docker.ownership import Owner
    from forensics_lib.engines.docker.pulls import PullRecord
    from forensics_lib.engines.host.audit import AuditEvent
    from forensics_lib.engines.host.commands import HostCommand
    from forensics_lib.engines.host.daemon_log import DaemonLogLine
    from forensics_lib.engines.host.fact import HostFact
    from forensics_lib.engines.host.files import HostFiles
    from forensics_lib.engines.journals import Journals
    from forensics_lib.engines.network import Network
    from forensics_lib.engines.volume import Volume
    from forensics_lib.formats.journal import JournalEntry
    from forensics_lib.recovery.find import Found
    from forensics_lib.recovery.remnant import Remnant

__all__ = ["Evidence", "open_evidence", "tar_entries"]

T = TypeVar("T")

_FILES = (
    EvidenceKind.FILESYSTEM_TREE,
    EvidenceKind.DOCKER_ROOT,
    EvidenceKind.CONTAINERD_ROOT,
    EvidenceKind.DISK_IMAGE,
)


class Evidence:
    """One piece of evidence: an image archive, a layout, or a file system in an archive or folder.

    It is a context manager; leaving it closes files and gives temporary disk space back.

    Attributes:
        path: what was opened.
        kind: what it was recognised as.
        custody: what was done to it, when, with which versions: append-only and hash-chained.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        strict: bool = False,
        progress: Progress | None = None,
        limits: Limits | None = None,
        shared_blobs: str | os.PathLike[str] | None = None,
        keys: Sequence[str] = (),
    ) -> None:
        """Recognise the evidence and read its documents; see `open_evidence`."""
        if not os.fspath(path):  # Path("") would be the present folder
            raise PathNotFound("an empty path names no evidence")
        self.path = Path(path)
        self.custody = Custody()
        self._problems = ProblemLog(strict=strict)
        self._progress = progress
        self._limits = limits or Limits()
        self._pool = SpoolPool(self._limits.spool)
        self._digests: dict[str, StreamDigests] = {}
        self._opened = open_path(self.path, self._problems, self._limits, keys)
        self._file = self._opened.file
        self._outlet = Outlet(self.path, self._opened.files, self.custody, self._problems)
        shared = DirectoryTree(shared_blobs, self._problems) if shared_blobs is not None else None
        self._store = ImageStore(self._opened.filesystems[0].tree, self._problems, self._limits, self._pool, shared)
        self._dockers: list[DockerRoot] = []
        self._containerds: list[ContainerdEngine] = []
        self._hosts: list[DocumentReader] = []
        self._journals: Journals | None = None
        self._images, self._artifacts, self.kind = self._recognise()
        self.custody.record("open", str(self.path), kind=str(self.kind), size=self._stored_size())

    def __repr__(self) -> str:
        """Path and kind."""
        return f"Evidence({str(self.path)!r}, {self.kind}, {len(self._images)} images)"

    def __enter__(self) -> Evidence:
        """The evidence itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Close files and give temporary disk space back. Problems and custody stay readable."""
        self._pool.close()
        self._opened.close()

    @property
    def origin(self) -> Origin:
        """The evidence as the first step of every chain."""
        return self._opened.origin

    @property
    def images(self) -> Table[Image]:
        """The images: one for each platform manifest that is present."""
        return Table(Image, self._all_images, name="images")

    @property
    def containers(self) -> Table[Container]:
        """The containers, newest first as ``docker ps -a``, Docker's before others; an image archive has none."""
        from forensics_lib.engines.container import Container

        engines: list[DockerRoot | ContainerdEngine] = [*self._dockers, *self._containerds]
        return Table(Container, lambda: [c for engine in engines for c in engine.containers], name="containers")

    @property
    def volumes(self) -> Table[Volume]:
        """The volumes, by name; an image archive has none."""
        from forensics_lib.engines.volume import Volume

        return Table(Volume, lambda: [v for docker in self._dockers for v in docker.volumes], name="volumes")

    @property
    def networks(self) -> Table[Network]:
        """The networks, by name; an image archive has none."""
        from forensics_lib.engines.network import Network

        return Table(Network, lambda: [n for docker in self._dockers for n in docker.networks], name="networks")

    @property
    def build_cache(self) -> Table[BuildCacheRecord]:
        """What builds left behind, as ``docker buildx du``, oldest first; also records that it does not list."""
        from forensics_lib.engines.docker.buildcache import BuildCacheRecord

        return Table(
            BuildCacheRecord, lambda: [r for d in self._dockers for r in d.build_cache.records], name="build cache"
        )

    @property
    def build_history(self) -> Table[BuildRecord]:
        """The builds with their arguments and results, newest first as ``docker buildx history ls``."""
        from forensics_lib.engines.docker.buildhistory import BuildRecord

        return Table(BuildRecord, lambda: [b for d in self._dockers for b in d.build_history], name="builds")

    @property
    def pull_history(self) -> Table[PullRecord]:
        """The layers that were pulled from registries and pushed to them, also of images that were removed since."""
        from forensics_lib.engines.docker.pulls import PullRecord

        return Table(PullRecord, lambda: [p for d in self._dockers for p in d.pull_history], name="pulls and pushes")

    @property
    def artifacts(self) -> Table[Artifact]:
        """Manifests that are no images and belong to none: signatures, reports, attestations of absent images."""
        return Table(Artifact, self._artifacts, name="artifacts")

    @property
    def host(self) -> Table[HostFact]:
        """What the hosts' own files tell: name, system, users, logins (masked), settings, units, cron, boots."""
        from forensics_lib.engines.host.fact import HostFact
        from forensics_lib.engines.host.facts import host_facts

        return Table(HostFact, lambda: chain.from_iterable(map(host_facts, self._host_files())), name="host")

    @property
    def commands(self) -> Table[HostCommand]:
        """Commands about containers that users typed, gave to sudo or had cron start; passwords masked in displays."""
        from forensics_lib.engines.host.commands import HostCommand, host_commands

        return Table(HostCommand, lambda: host_commands(self._host_files(), self._journals), name="commands")

    @property
    def daemon_log(self) -> Table[DaemonLogLine]:
        """What the engines' daemons wrote, and systemd and the kernel about them: journals and system logs."""
        from forensics_lib.engines.host.daemon_log import DaemonLogLine, daemon_log

        return Table(DaemonLogLine, lambda: daemon_log(self._host_files(), self._journals), name="daemon log")

    @property
    def audit(self) -> Table[AuditEvent]:
        """What the kernel's audit wrote about containers, each event out of all its records."""
        from forensics_lib.engines.host.audit import AuditEvent, audit_events

        return Table(AuditEvent, lambda: audit_events(self._host_files(), self._journals), name="audit")

    def journal(self, **fields: str) -> Table[JournalEntry]:
        """Entries of the hosts' systemd journals, in the order in which they were written; see `engines.journals`.

        Args:
            fields: what their fields have to hold, as ``journalctl FIELD=value``: ``_SYSTEMD_UNIT="docker.service"``,
                ``CONTAINER_NAME="web"``; all of them have to fit. None gives all entries.
        """
        from forensics_lib.formats.journal import JournalEntry

        def rows() -> Iterator[JournalEntry]:
            if self._journals is not None:
                yield from self._journals.matching(fields)

        return Table(JournalEntry, rows, name="journal")

    @property
    def filesystems(self) -> Table[FileSystem]:
        """The file systems of the evidence; an image archive has none."""
        found = self._opened.filesystems if self.kind in _FILES else []
        return Table(FileSystem, found, name="file systems")

    @property
    def problems(self) -> Table[Problem]:
        """What could not be read or contradicts itself, as far as the evidence has been read."""
        return Table(Problem, list(self._problems.rows), name="problems")

    def image(self, name: str) -> Image:
        """An image by name, full id or unique start of an id or digest.

        A name without a tag means ``latest``, or the only tag there is; a full one (``docker.io/library/debian:12``) is
        taken for the short one.

        Raises:
            NotFound: there is no such image.
            AmbiguousName: it fits several.
        """
        images = self._all_images()
        for candidates in _candidates(images, name):
            if len(candidates) > 1 and len({image.id for image in candidates}) > 1:
                platforms = {image.id: image.platform for image in candidates if name in image.tags}
                if len(set(platforms.values())) == len({image.id for image in candidates}):
                    return candidates[0]  # the platforms of one name; the host's comes first
                raise AmbiguousName(f"{name!r} fits {len(candidates)} images", tuple(image.id for image in candidates))
            if candidates:
                return candidates[0]
        known = ", ".join(tag for image in images for tag in image.tags) or "none has a name"
        raise NotFound(f"no image {name!r}; there are: {known}")

    def container(self, name: str) -> Container:
        """A container by name, full id or unique start of an id.

        Raises:
            NotFound: there is no such container.
            AmbiguousName: it fits several.
        """
        containers = list(self.containers)
        wanted = name.removeprefix("/")
        for found in (
            [container for container in containers if container.id == wanted],
            [container for container in containers if container.name == wanted],
            [container for container in containers if wanted and container.id.startswith(wanted)],
            [container for container in containers if wanted in container.other_names],
        ):
            if len(found) > 1:
                raise AmbiguousName(f"{name!r} fits {len(found)} containers", tuple(one.id for one in found))
            if found:
                return found[0]
        known = ", ".join(container.name for container in containers) or "none"
        raise NotFound(f"no container {name!r}; there are: {known}")

    def owner(self, path_or_id: str) -> Table[Owner]:
        """Everybody to whom a path or an id belongs: containers, images, builds, volumes, networks, or nobody.

        Args:
            path_or_id: a path in the evidence, on the host or below the data root (``overlay2/<id>/diff/…``), an id,
                the unique start of one, or a name.

        Raises:
            AmbiguousName: it is the start of several ids.
        """
        from forensics_lib.engines.docker.owner import find_owners
        from forensics_lib.engines.docker.ownership import Owner

        return Table(Owner, find_owners(self._dockers, path_or_id), name="owners")

    def remnants(self) -> Table[Remnant]:
        """Everything deleted or orphaned that can be found, with how sure it is; found once, then kept.

        In image evidence: manifests, configurations and layers that nothing names any more. In a copy of Docker's
        data: directories, layers and records without an owner, half-removed containers, and what databases no longer
        reach. On a disk also deleted files and what free space holds, which reads all of it.
        """
        from forensics_lib.recovery.remnant import Remnant

        return Table(Remnant, lambda: iter(self._found.remnants), name="remnants")

    @property
    def deleted_containers(self) -> Table[Container]:
        """Removed containers, put together again from the remnants, the newest first; then those only journals know.

        They answer as those that are there do, as far as anything was recovered; their `state_note` says from what.
        """
        from forensics_lib.engines.container import Container
        from forensics_lib.recovery.assemble import deleted_containers
        from forensics_lib.recovery.journaled import journaled_containers

        def rows() -> Iterator[Container]:
            known = {record.id for docker in self._dockers for record in docker.records}
            for found in deleted_containers(self._found.sightings, self._dockers, self._problems, self._outlet):
                known.add(found.id)
                yield found
            if self._journals is not None:
                docker = next(iter(self._dockers), None)
                yield from journaled_containers(self._journals, known, docker, self._outlet, self._problems)

        return Table(Container, rows, name="deleted containers")

    @cached_property
    def _found(self) -> Found:
        from forensics_lib.recovery.find import Found, find_remnants

        trees = [one.tree for one in self._opened.filesystems]
        disks = trees if self._opened.disks else []
        found = Found([], [])
        try:
            own = [docker.store.containerd for docker in self._dockers if docker.store is not None]
            others = [
                one for one in self._containerds if not self._dockers or (one.is_used and one.containerd not in own)
            ]
            find_remnants(self._store, trees, disks, self._dockers, self._problems, self._progress, found, others)
        except BaseException:
            message = "the search for what was deleted was broken off; what was found before is kept"
            self.__dict__["_found"] = found
            if not self._problems.strict:
                self._problems.add(self._opened.origin, message)
            raise
        self._finish("recover", remnants=len(found.remnants))
        return found

    def hashes(
        self,
        algorithms: Sequence[str] | None = None,
        kinds: Collection[str] | None = None,
        executor: Executor | None = None,
    ) -> Table[ArtifactHash]:
        """The digests of every artifact, each thing once, in one pass over the evidence.

        Args:
            algorithms: for files, by hashlib's names; None for md5, sha1 and sha256. The evidence file, blobs and
                layers get sha256, and those named here too when `kinds` names their kind.
            kinds: which of ``evidence``, ``media`` (the disk in an image file), ``blob``, ``layer`` (a layer's
                uncompressed bytes) and ``file`` (every regular file of every layer, also what later layers hide); None
                for all.
            executor: any `concurrent.futures.Executor` to do the work; None uses all cores.
        """

        def rows() -> Iterator[ArtifactHash]:
            inventory = self._inventory()
            evidence: dict[str, str] = {}
            for row in hash_artifacts(inventory, algorithms, kinds, executor, self._progress, self._keep_digests):
                if row.kind == "evidence" and row.sha256 is not None:
                    evidence["sha256"] = row.sha256
                yield row
            self._finish("hash", algorithms=",".join(FILE_ALGORITHMS if algorithms is None else algorithms), **evidence)

        return Table(ArtifactHash, rows, name="artifact hashes")

    def verify(self, executor: Executor | None = None) -> Table[Check]:
        """Every digest, size and count that the evidence states about itself, recomputed.

        Args:
            executor: any `concurrent.futures.Executor` to do the work; None uses all cores.
        """

        def rows() -> Iterator[Check]:
            failed = total = 0
            for check in self._checks(executor):
                total += 1
                failed += not check.ok
                yield check
            self._finish("verify", checks=total, failed=failed)

        return Table(Check, rows, name="checks")

    def _checks(self, executor: Executor | None) -> Iterator[Check]:
        if self._opened.disks:
            from forensics_lib.analysis.media import verify_media

            for disk in self._opened.disks:
                yield from verify_media(disk)
        if self._journals is not None:
            yield from self._journals.verify()
        if self._dockers or self._containerds:
            from forensics_lib.engines.containerd.unpacked import verify_unpacked
            from forensics_lib.engines.containerd.verify import verify_content
            from forensics_lib.engines.docker.verify import verify_root

            for docker in self._dockers:
                yield from verify_root(docker, self._limits)
            checked = [docker.store.containerd for docker in self._dockers if docker.store is not None]
            for engine in self._containerds:
                if engine.spaces and engine.containerd not in checked:
                    yield from verify_content(engine.containerd)
                for space in engine.spaces:
                    yield from verify_unpacked(space)
            return
        yield from verify_images(
            self._store,
            self._images,
            self._inventory(),
            executor,
            self._progress,
            self._keep_digests,
            self._digests,
        )

    def identify(self) -> Table[Identified]:
        """What every file holds, told by its content; see `analysis.identify.identify`.

        Raises:
            UnsupportedFormat: libmagic is missing; the message says what to install.
        """
        from forensics_lib.analysis.identify import Identified, identify

        rows = identify(self._inventory(), progress=self._progress)
        return Table(Identified, self._recorded(rows, "identify"), name="identified files")

    def scan(self, rules: str | os.PathLike[str] | CompiledRules, *, timeout: int = 60) -> Table[Match]:
        """Every match of YARA rules with every file; see `analysis.scan.scan`.

        Args:
            rules: text of rules, a path of a file or folder of rules or of compiled ones, or ``yara.Rules``.
            timeout: seconds for one content.

        Raises:
            PathNotFound: no rules at that path.
            DamagedData: no rules compile; the message says why.
            UnsupportedFormat: a folder without rules, or rules that another version of YARA compiled.
        """
        from forensics_lib.analysis.scan import Match, rules_name, scan

        rows = scan(self._inventory(), rules, timeout=timeout, progress=self._progress)
        return Table(Match, self._recorded(rows, "scan", rules=rules_name(rules), timeout=timeout), name="matches")

    def search(
        self, pattern: str | bytes | re.Pattern[str] | re.Pattern[bytes], *, ignore_case: bool = False
    ) -> Table[Hit]:
        """Every place in files, names and the images' documents that holds a text; see `analysis.search.search`.

        Args:
            pattern: text or bytes as they stand, or a regular expression from ``re.compile``.
            ignore_case: take upper and lower case for the same.

        Raises:
            ValueError: the pattern can match nothing at all, or is a regular expression of text beyond ASCII.
        """
        from forensics_lib.analysis.search import Hit, image_documents, search

        images = {image.id: image for image in self._all_images()}
        documents = tuple(document for image in images.values() for document in image_documents(image))
        inventory = replace(self._inventory(), documents=documents)
        rows = search(inventory, pattern, ignore_case=ignore_case, progress=self._progress)
        return Table(Hit, self._recorded(rows, "search", pattern=repr(pattern), ignore_case=ignore_case), name="hits")

    def extract(self, tree: Tree, path: str, to: str | os.PathLike[str], *, symlinks: bool = False) -> Table[Extracted]:
        """Copy a file or folder out to the disk, now; see `trees.extract.extract`. The custody records each file.

        Args:
            tree: where to copy from, e.g. ``ev.image("web").tree()``.
            path: what to copy.
            to: the folder that gets it; it must be empty or not exist.
            symlinks: make symbolic links too.

        Raises:
            PathNotFound: no such path in the tree.
            FileExistsError: the folder is not empty.
            ValueError: the folder lies inside the evidence.
        """
        return self._outlet.extract(tree, path, to, symlinks=symlinks)

    def _recorded(self, rows: Iterator[T], action: str, **details: str | int) -> Iterator[T]:
        yield from rows
        self._finish(action, **details)

    def _stored_size(self) -> int | None:
        return sum(file.size for file in self._opened.files) if self._opened.files else None

    def _recognise(self) -> tuple[list[Image], list[Artifact], EvidenceKind]:
        store = self._store
        tree = store.tree
        if self._opened.disks:
            self._find_engines()
            return [], [], EvidenceKind.DISK_IMAGE
        if is_image_dir(tree):
            reader = read_image_dir(store)
            kind = EvidenceKind.IMAGE_DIR
            parts = ordered(reader.images.values())
        elif is_docker_archive(tree):
            archive = DockerArchive(store)
            reader = archive.reader
            kind = EvidenceKind.DOCKER_ARCHIVE
            parts = archive.images
        elif is_oci_layout(tree):
            reader = read_oci_layout(store)
            kind = EvidenceKind.OCI_LAYOUT
            parts = ordered(reader.images.values())
        elif self._find_engines():
            return [], [], EvidenceKind.DOCKER_ROOT if self._dockers else EvidenceKind.CONTAINERD_ROOT
        else:
            return [], [], EvidenceKind.FILESYSTEM_TREE
        return [Image(one, self._problems) for one in parts], kept_apart(reader), kind

    def _find_engines(self) -> bool:
        """Whether the tree holds data of an engine; the readers of engines are only loaded when it may."""
        from forensics_lib.engines.containerd.engine import ContainerdEngine
        from forensics_lib.engines.docker.acquisition import report_losses
        from forensics_lib.engines.docker.containerd import find_stores
        from forensics_lib.engines.docker.engine import DockerRoot
        from forensics_lib.engines.docker.leftovers import report_leftovers
        from forensics_lib.engines.docker.root import find_roots
        from forensics_lib.engines.hosts import find_hosts
        from forensics_lib.engines.journals import Journals

        readers = [DocumentReader(filesystem.tree, self._problems) for filesystem in self._opened.filesystems]
        roots = [(reader, root) for reader in readers for root in find_roots(reader)]
        for reader in readers:
            self._hosts += find_hosts(reader, [root.path for own, root in roots if own is reader])
        self._journals = Journals(self._hosts)
        stores = find_stores(readers, [root for _, root in roots], self._limits, self._pool)
        self._dockers = [
            DockerRoot(reader, root, self._limits, self._outlet, stores, self._journals, self._hosts)
            for reader, root in roots
        ]
        for docker in self._dockers:
            self._problems.defer(partial(report_losses, docker, self._limits))
            self._problems.defer(partial(report_leftovers, docker))
        engines = [ContainerdEngine(store, self._outlet, partial(self._answered, store)) for store in stores]
        self._containerds = engines if self._dockers else [one for one in engines if one.is_used]
        return bool(self._dockers or self._containerds)

    def _answered(self, containerd: Containerd) -> set[str]:
        """The namespaces of a containerd that Docker answers for."""
        stores = [docker.store for docker in self._dockers if docker.store is not None]
        own = {store.namespace.name for store in stores if store.containerd is containerd}
        names = containerd.namespaces if self._dockers else ()
        return own | {name for name in names if name.partition("-")[0] in ("moby", "plugins.moby", "moby_history")}

    def _all_images(self) -> list[Image]:
        engines: list[DockerRoot | ContainerdEngine] = [*self._dockers, *self._containerds]
        return self._images or [image for engine in engines for image in engine.images]

    def _inventory(self) -> Inventory:
        name = self.path.name
        if self.kind in _FILES:
            opened = self._opened
            if self._file is None or opened.disks:
                trees = tuple((filesystem.name, filesystem.tree) for filesystem in self._opened.filesystems)
                return Inventory(
                    name, self._problems, trees=trees, evidence=tuple(opened.files), media=tuple(opened.disks)
                )
            compression = self._opened.compression
            stream = TarStream(name, name, self._file, compression, self._file.origin, self._limits, "evidence", False)
            return Inventory(name, self._problems, streams=(stream,))
        layers = {path: blob for path, blob in self._store.layers.items() if blob.unreadable is None}
        owners = {
            layer.blob.path: layer.digest or layer.diff_id
            for image in self._images
            for layer in image.layers
            if layer.blob is not None
        }
        streams = tuple(
            TarStream(
                owners.get(blob.path) or blob.path, blob.path, blob.stored, blob.compression, blob.origin, self._limits
            )
            for blob in layers.values()
            if blob.stored is not None
        )
        return Inventory(
            name,
            self._problems,
            streams=streams,
            blobs=tuple(node for node in self._store.files() if node.path not in layers),
            evidence=tuple(self._opened.files),
            unreadable=tuple((b.origin, b.unreadable) for b in self._store.layers.values() if b.unreadable is not None),
        )

    def _keep_digests(self, job: TarStream, digests: StreamDigests) -> None:
        self._digests[job.path] = digests

    def _host_files(self) -> list[HostFiles]:
        from forensics_lib.engines.host.files import HostFiles

        return [HostFiles(reader, self._limits) for reader in self._hosts]

    def _finish(self, action: str, **details: str | int) -> None:
        self._outlet.done(action, **details)


def _candidates(images: Sequence[Image], name: str) -> Iterator[list[Image]]:
    """Images that a name fits, the strongest kind of fit first."""
    yield [image for image in images if name in (image.id, image.manifest_digest, image.index_digest, *image.digests)]
    yield [image for image in images if name in image.tags]
    yield [image for image in images if f"{name}:latest" in image.tags]
    start = name.removeprefix("sha256:")
    if start and all(character in "0123456789abcdef" for character in start):
        ids = [(image, (image.id, image.manifest_digest, image.index_digest)) for image in images]
        yield [i for i, names in ids if any((n or "").removeprefix("sha256:").startswith(start) for n in names)]
    yield [image for image in images if name and any(tag.rpartition(":")[0] == name for tag in image.tags)]
    if (short := familiar(name)) != name:  # docker.io/library/debian
        yield from _candidates(images, short)


def open_evidence(
    path: str | os.PathLike[str],
    *,
    strict: bool = False,
    progress: Progress | None = None,
    limits: Limits | None = None,
    shared_blobs: str | os.PathLike[str] | None = None,
    keys: Sequence[str] = (),
) -> Evidence:
    """Open evidence; what it is, is told by its content.

    Args:
        path: a ``docker save`` archive, an OCI layout (folder or tar), a skopeo ``dir:`` folder, a ``docker export`` or
            any other tar archive, each also compressed as a whole with gzip, zstd, xz or bzip2; a disk image (raw, also
            in pieces, EWF, QCOW2, VMDK, VHD, VHDX or VDI), named by its first file; or a folder. A folder of files and
            nothing else, some of them disk images, is opened as all these disks: of several hosts, or of one whose
            logical volumes or btrfs span them.
        strict: raise at the first problem instead of keeping it in `Evidence.problems`.
        progress: called with bytes done and in total during long work.
        limits: bounds on what the evidence may ask for.
        shared_blobs: folder of blobs that several layouts share.
        keys: passphrases to try on encrypted volumes; they are kept nowhere.

    Raises:
        PathNotFound: there is nothing at the path.
        UnsupportedFormat: nothing recognises the content.
        DamagedData: the content is recognised, but damaged beyond reading.
    """
    return Evidence(path, strict=strict, progress=progress, limits=limits, shared_blobs=shared_blobs, keys=keys)


def tar_entries(path: str | os.PathLike[str], *, limits: Limits | None = None) -> Iterator[TarEntry]:
    """Every member of a tar archive (also a compressed one), as stored: nothing cleaned, nothing left out.

    Raises:
        PathNotFound: there is no such file.
        DamagedData: a compressed archive is damaged; members before the damage were handed out.
    """
    source: Source = FileSource(path)
    compression = sniff(source.read_at(0, 16))
    if compression is not Compression.NONE:
        source = SpoolSource(source, compression, source.origin.to(compression), limits)
    decoder = TarDecoder(SourceStream(source), source=source, max_entries=(limits or Limits()).entries)
    empty = True
    for entry in decoder:
        empty = False
        yield entry
    if empty and not decoder.recognised:
        raise DamagedData(f"{path} holds no tar archive", origin=source.origin)
