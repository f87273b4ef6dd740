"""Opening evidence, and asking it."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from forensics_lib.analysis.digests import StreamDigests
from forensics_lib.analysis.hashing import FILE_ALGORITHMS, hash_artifacts
from forensics_lib.analysis.inventory import Inventory, TarStream, inventory_of
from forensics_lib.analysis.verify import verify_images
from forensics_lib.custody import Custody
from forensics_lib.errors import PathNotFound
from forensics_lib.holdings import find_holdings, image_root
from forensics_lib.images.image import Artifact, Image
from forensics_lib.images.layer import SpoolPool
from forensics_lib.images.lookup import find_image
from forensics_lib.images.store import ImageStore
from forensics_lib.model import ArtifactHash, Check, EvidenceKind, Origin, Problem, ProblemLog, Progress
from forensics_lib.opening import FileSystem, open_path
from forensics_lib.sources.decompress import Limits
from forensics_lib.table import Table
from forensics_lib.trees.base import Tree
from forensics_lib.trees.directory import DirectoryTree
from forensics_lib.trees.extract import Extracted
from forensics_lib.trees.outlet import Outlet

if TYPE_CHECKING:
    import re
    from concurrent.futures import Executor

    from forensics_lib.analysis.identify import Identified
    from forensics_lib.analysis.scan import CompiledRules, Match
    from forensics_lib.analysis.search import Hit
    from forensics_lib.engines.container import Container
    from forensics_lib.engines.docker.buildcache import BuildCacheRecord
    from forensics_lib.engines.docker.buildhistory import BuildRecord
    from forensics_lib.engines.docker.ownership import Owner
    from forensics_lib.engines.docker.pulls import PullRecord
    from forensics_lib.engines.host.audit import AuditEvent
    from forensics_lib.engines.host.commands import HostCommand
    from forensics_lib.engines.host.daemon_log import DaemonLogLine
    from forensics_lib.engines.host.fact import HostFact
    from forensics_lib.engines.network import Network
    from forensics_lib.engines.volume import Volume
    from forensics_lib.formats.journal import JournalEntry
    from forensics_lib.recovery.find import Recovery
    from forensics_lib.recovery.remnant import Remnant

__all__ = ["Evidence", "open_evidence"]

T = TypeVar("T")


class Evidence:
    """One piece of evidence: an image archive, a layout, or a file system in an archive or folder.

    It is a context manager; leaving it closes files and gives temporary disk space back.

    Attributes:
        path: what was opened.
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
        keys: Sequence[str | bytes] = (),
    ) -> None:
        """Recognise the evidence and read its documents; see `open_evidence`."""
        if not os.fspath(path):  # Path("") would be the present folder
            raise PathNotFound("an empty path names no evidence")
        limits = limits or Limits()
        self.path = Path(path)
        self.custody = Custody()
        self._progress = progress
        self._problems = ProblemLog(strict=strict)
        self._pool = SpoolPool(limits.spool)
        self._opened = open_path(self.path, self._problems, limits, keys)
        self._outlet = Outlet(self.path, self._opened.files, self.custody, self._problems)
        shared = DirectoryTree(shared_blobs, self._problems) if shared_blobs is not None else None
        root = self._opened.filesystems[0].tree
        tree = root if self._opened.disks else image_root(root)
        store = ImageStore(tree, self._problems, limits, self._pool, shared)
        self._holdings = find_holdings(self._opened, store, self._outlet)
        self._digests: dict[str, StreamDigests] = {}
        size = sum(file.size for file in self._opened.files) if self._opened.files else None
        self.custody.record("open", str(self.path), kind=str(self.kind), size=size)

    def __repr__(self) -> str:
        """Path and kind."""
        return f"Evidence({str(self.path)!r}, {self.kind}, {len(self._holdings.travelling)} images)"

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
    def kind(self) -> EvidenceKind:
        """What it was recognised as."""
        return self._holdings.kind

    @property
    def origin(self) -> Origin:
        """The evidence as the first step of every chain."""
        return self._opened.origin

    @property
    def problems(self) -> Table[Problem]:
        """What could not be read or contradicts itself, as far as the evidence has been read."""
        return Table(Problem, list(self._problems.rows), name="problems")

    # What is in it

    @property
    def filesystems(self) -> Table[FileSystem]:
        """The file systems of the evidence; an image archive has none."""
        found = [] if self._holdings.is_image_evidence else self._opened.filesystems
        return Table(FileSystem, found, name="file systems")

    @property
    def images(self) -> Table[Image]:
        """The images: one for each platform manifest that is present."""
        return Table(Image, lambda: self._holdings.images, name="images")

    @property
    def containers(self) -> Table[Container]:
        """The containers, newest first as ``docker ps -a``, Docker's before others; an image archive has none."""
        from forensics_lib.engines.container import Container

        return Table(
            Container, lambda: [c for engine in self._holdings.engines for c in engine.containers], name="containers"
        )

    @property
    def volumes(self) -> Table[Volume]:
        """The volumes, by name; an image archive has none."""
        from forensics_lib.engines.volume import Volume

        return Table(Volume, lambda: [v for docker in self._holdings.dockers for v in docker.volumes], name="volumes")

    @property
    def networks(self) -> Table[Network]:
        """The networks, by name; an image archive has none."""
        from forensics_lib.engines.network import Network

        return Table(
            Network, lambda: [n for docker in self._holdings.dockers for n in docker.networks], name="networks"
        )

    @property
    def artifacts(self) -> Table[Artifact]:
        """Manifests that are no images and belong to none: signatures, reports, attestations of absent images."""
        return Table(Artifact, self._holdings.artifacts, name="artifacts")

    def image(self, name: str) -> Image:
        """An image by name, full id or unique start of an id or digest.

        A name without a tag means ``latest``, or the only tag there is; a full one (``docker.io/library/debian:12``) is
        taken for the short one.

        Raises:
            NotFound: there is no such image.
            AmbiguousName: it fits several.
        """
        return find_image(self._holdings.images, name)

    def container(self, name: str) -> Container:
        """A container by name, full id or unique start of an id.

        Raises:
            NotFound: there is no such container.
            AmbiguousName: it fits several.
        """
        from forensics_lib.engines.lookup import find_container

        return find_container(list(self.containers), name)

    # What builds, pulls and pushes left, and whose a path is

    @property
    def build_cache(self) -> Table[BuildCacheRecord]:
        """What builds left behind, as ``docker buildx du``, oldest first; also records that it does not list."""
        from forensics_lib.engines.docker.buildcache import BuildCacheRecord

        return Table(
            BuildCacheRecord,
            lambda: [r for d in self._holdings.dockers for r in d.build_cache.records],
            name="build cache",
        )

    @property
    def build_history(self) -> Table[BuildRecord]:
        """The builds with their arguments and results, newest first as ``docker buildx history ls``."""
        from forensics_lib.engines.docker.buildhistory import BuildRecord

        return Table(BuildRecord, lambda: [b for d in self._holdings.dockers for b in d.build_history], name="builds")

    @property
    def pull_history(self) -> Table[PullRecord]:
        """The layers that were pulled from registries and pushed to them, also of images that were removed since."""
        from forensics_lib.engines.docker.pulls import PullRecord

        return Table(
            PullRecord, lambda: [p for d in self._holdings.dockers for p in d.pull_history], name="pulls and pushes"
        )

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

        return Table(Owner, find_owners(self._holdings.dockers, path_or_id), name="owners")

    # What the hosts tell

    @property
    def host(self) -> Table[HostFact]:
        """What the hosts' own files tell: name, system, users, logins (masked), settings, units, cron, boots."""
        from forensics_lib.engines.host.fact import HostFact
        from forensics_lib.engines.host.facts import host_facts

        return Table(HostFact, lambda: chain.from_iterable(map(host_facts, self._holdings.host_files)), name="host")

    @property
    def commands(self) -> Table[HostCommand]:
        """Commands about containers that users typed, gave to sudo or had cron start; passwords masked in displays."""
        from forensics_lib.engines.host.commands import HostCommand, host_commands

        return Table(
            HostCommand, lambda: host_commands(self._holdings.host_files, self._holdings.journals), name="commands"
        )

    @property
    def daemon_log(self) -> Table[DaemonLogLine]:
        """What the engines' daemons wrote, and systemd and the kernel about them: journals and system logs."""
        from forensics_lib.engines.host.daemon_log import DaemonLogLine, daemon_log

        return Table(
            DaemonLogLine, lambda: daemon_log(self._holdings.host_files, self._holdings.journals), name="daemon log"
        )

    @property
    def audit(self) -> Table[AuditEvent]:
        """What the kernel's audit wrote about containers, each event out of all its records."""
        from forensics_lib.engines.host.audit import AuditEvent, audit_events

        return Table(AuditEvent, lambda: audit_events(self._holdings.host_files, self._holdings.journals), name="audit")

    def journal(self, **fields: str) -> Table[JournalEntry]:
        """Entries of the hosts' systemd journals, in the order in which they were written; see `engines.journals`.

        Args:
            fields: what their fields have to hold, as ``journalctl FIELD=value``: ``_SYSTEMD_UNIT="docker.service"``,
                ``CONTAINER_NAME="web"``; all of them have to fit. None gives all entries.
        """
        from forensics_lib.formats.journal import JournalEntry

        def rows() -> Iterator[JournalEntry]:
            if self._holdings.journals is not None:
                yield from self._holdings.journals.matching(fields)

        return Table(JournalEntry, rows, name="journal")

    # What was deleted

    def remnants(self) -> Table[Remnant]:
        """Everything deleted or orphaned that can be found, with how sure it is; found once, then kept.

        In image evidence: manifests, configurations and layers that nothing names any more. In a copy of Docker's
        data: directories, layers and records without an owner, half-removed containers, and what databases no longer
        reach. On a disk also deleted files and what free space holds, which reads all of it.
        """
        from forensics_lib.recovery.remnant import Remnant

        return Table(Remnant, lambda: self._recovery.remnants, name="remnants")

    @property
    def deleted_containers(self) -> Table[Container]:
        """Removed containers, put together again from the remnants, the newest first; then those only journals know.

        They answer as those that are there do, as far as anything was recovered; their `state_note` says from what.
        """
        from forensics_lib.engines.container import Container

        return Table(Container, lambda: self._recovery.containers(), name="deleted containers")

    # Whether it is intact, and what its contents are

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
                for all. A single name may stand for itself, here and in `algorithms`.
            executor: any `concurrent.futures.Executor` to do the work; None uses all cores.
        """
        algorithms = (algorithms,) if isinstance(algorithms, str) else algorithms  # a str is a sequence of letters
        kinds = (kinds,) if isinstance(kinds, str) else kinds

        def rows() -> Iterator[ArtifactHash]:
            inventory = self._inventory
            evidence: dict[str, str] = {}
            for row in hash_artifacts(inventory, algorithms, kinds, executor, self._progress, self._keep_digests):
                if row.kind == "evidence" and row.sha256 is not None:
                    evidence["sha256"] = row.sha256
                yield row
            self._outlet.done(
                "hash", algorithms=",".join(FILE_ALGORITHMS if algorithms is None else algorithms), **evidence
            )

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
            self._outlet.done("verify", checks=total, failed=failed)

        return Table(Check, rows, name="checks")

    def identify(self) -> Table[Identified]:
        """What every file holds, told by its content; see `analysis.identify.identify`.

        Raises:
            UnsupportedFormat: libmagic is missing; the message says what to install.
        """
        from forensics_lib.analysis.identify import Identified, identify

        rows = identify(self._inventory, progress=self._progress)
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

        rows = scan(self._inventory, rules, timeout=timeout, progress=self._progress)
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

        images = {image.id: image for image in self._holdings.images}
        documents = tuple(document for image in images.values() for document in image_documents(image))
        inventory = replace(self._inventory, documents=documents)
        rows = search(inventory, pattern, ignore_case=ignore_case, progress=self._progress)
        return Table(Hit, self._recorded(rows, "search", pattern=repr(pattern), ignore_case=ignore_case), name="hits")

    # Taking it along

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

    def _checks(self, executor: Executor | None) -> Iterator[Check]:
        if self._opened.disks:
            from forensics_lib.analysis.media import verify_media

            for disk in self._opened.disks:
                yield from verify_media(disk)
        yield from self._holdings.checks()
        if not self._holdings.engines:
            yield from verify_images(
                self._holdings.store,
                self._holdings.travelling,
                self._inventory,
                executor,
                self._progress,
                self._keep_digests,
                self._digests,
            )

    @property
    def _inventory(self) -> Inventory:
        return inventory_of(self._holdings, self.path.name)

    @cached_property
    def _recovery(self) -> Recovery:
        from forensics_lib.recovery.find import Recovery

        return Recovery(self._holdings, self._outlet, self._progress)

    def _keep_digests(self, job: TarStream, digests: StreamDigests) -> None:
        self._digests[job.path] = digests

    def _recorded(self, rows: Iterator[T], action: str, **details: str | int) -> Iterator[T]:
        yield from rows
        self._outlet.done(action, **details)


def open_evidence(
    path: str | os.PathLike[str],
    *,
    strict: bool = False,
    progress: Progress | None = None,
    limits: Limits | None = None,
    shared_blobs: str | os.PathLike[str] | None = None,
    keys: Sequence[str | bytes] = (),
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
        keys: what to try on encrypted volumes: passphrases, as text or as the bytes of a key file, or the key of a
            volume itself; they are kept nowhere.

    Raises:
        PathNotFound: there is nothing at the path.
        UnsupportedFormat: nothing recognises the content.
        DamagedData: the content is recognised, but damaged beyond reading.
    """
    return Evidence(path, strict=strict, progress=progress, limits=limits, shared_blobs=shared_blobs, keys=keys)
