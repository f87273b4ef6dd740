"""Opening evidence, and asking it."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from forensics_lib.analysis.digests import StreamDigests
from forensics_lib.analysis.hashing import hash_artifacts
from forensics_lib.analysis.inventory import Inventory, TarStream
from forensics_lib.analysis.verify import verify_images
from forensics_lib.custody import Custody
from forensics_lib.errors import AmbiguousName, DamagedData, ForensicsError, NotFound, PathNotFound, UnsupportedFormat
from forensics_lib.formats.tar import TarDecoder, TarEntry
from forensics_lib.images.docker_archive import DockerArchive, is_docker_archive
from forensics_lib.images.image import Artifact, Image
from forensics_lib.images.layer import SpoolPool
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
from forensics_lib.sources.base import BytesSource, Source
from forensics_lib.sources.decompress import Compression, Limits, SpoolSource, sniff
from forensics_lib.sources.file import FileSource
from forensics_lib.sources.stream import BlockStream, SourceStream
from forensics_lib.table import Table
from forensics_lib.trees.archive import tar_tree
from forensics_lib.trees.base import Tree
from forensics_lib.trees.directory import DirectoryTree

if TYPE_CHECKING:
    from concurrent.futures import Executor

__all__ = ["Evidence", "FileSystem", "open_evidence", "tar_entries"]

_LOOKED_AT = 4 << 20
_SPOOLED_AT_ONCE = 1 << 30
"""Compressed archives above this size are indexed in a pass of their own, and spooled only when content is read."""
_DEFAULT_ALGORITHMS = ("md5", "sha1", "sha256")


@dataclass(frozen=True, slots=True)
class FileSystem:
    """A file system in the evidence.

    Attributes:
        name: what it was found as.
        tree: its files.
        origin: where it lies.
    """

    name: str
    tree: Tree
    origin: Origin


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
    ) -> None:
        """Recognise the evidence and read its documents; see `open_evidence`."""
        self.path = Path(path)
        self.custody = Custody()
        self._problems = ProblemLog(strict=strict)
        self._progress = progress
        self._limits = limits or Limits()
        self._pool = SpoolPool(self._limits.spool)
        self._file: FileSource | None = None
        self._outer: Source | None = None
        self._compression = Compression.NONE
        self._digests: dict[str, StreamDigests] = {}
        self._tree = self._open_tree()
        shared = DirectoryTree(shared_blobs, self._problems) if shared_blobs is not None else None
        self._store = ImageStore(self._tree, self._problems, self._limits, self._pool, shared)
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
        if self._outer is not None and self._outer is not self._file:
            self._outer.close()
        if self._file is not None:
            self._file.close()

    @property
    def origin(self) -> Origin:
        """The evidence as the first step of every chain."""
        return self._tree.origin

    @property
    def images(self) -> Table[Image]:
        """The images: one for each platform manifest that is present."""
        return Table(Image, self._images, name="images")

    @property
    def artifacts(self) -> Table[Artifact]:
        """Manifests that are no images and belong to none: signatures, reports, attestations of absent images."""
        return Table(Artifact, self._artifacts, name="artifacts")

    @property
    def filesystems(self) -> Table[FileSystem]:
        """The file systems of the evidence; an image archive has none."""
        found = []
        if self.kind is EvidenceKind.FILESYSTEM_TREE:
            found.append(FileSystem(self.path.name, self._tree, self._tree.origin))
        return Table(FileSystem, found, name="file systems")

    @property
    def problems(self) -> Table[Problem]:
        """What could not be read or contradicts itself, as far as the evidence has been read."""
        return Table(Problem, list(self._problems.rows), name="problems")

    def image(self, name: str) -> Image:
        """An image by name, full id or unique start of an id or digest.

        A name without a tag means ``latest``, or the only tag there is.

        Raises:
            NotFound: there is no such image.
            AmbiguousName: it fits several.
        """
        for candidates in _candidates(self._images, name):
            if len(candidates) > 1 and len({image.id for image in candidates}) > 1:
                same_tag = [image for image in candidates if name in image.tags]
                if len(same_tag) == len(candidates):
                    return candidates[0]  # the platforms of one name; the host's comes first
                raise AmbiguousName(f"{name!r} fits {len(candidates)} images", tuple(image.id for image in candidates))
            if candidates:
                return candidates[0]
        known = ", ".join(tag for image in self._images for tag in image.tags) or "none has a name"
        raise NotFound(f"no image {name!r}; there are: {known}")

    def hashes(
        self,
        algorithms: Sequence[str] = _DEFAULT_ALGORITHMS,
        kinds: Collection[str] | None = None,
        executor: Executor | None = None,
    ) -> Table[ArtifactHash]:
        """The digests of every artifact, each thing once, in one pass over the evidence.

        Args:
            algorithms: for files, by hashlib's names; the evidence file, blobs and layers get sha256.
            kinds: which of ``evidence``, ``blob``, ``layer`` (a layer's uncompressed bytes) and ``file`` (every
                regular file of every layer, also what later layers hide); None for all.
            executor: any `concurrent.futures.Executor` to do the work; None uses a thread for each core.
        """

        def rows() -> Iterator[ArtifactHash]:
            inventory = self._inventory()
            yield from hash_artifacts(inventory, tuple(algorithms), kinds, executor, self._progress, self._keep_digests)
            self._finish("hash", algorithms=",".join(algorithms))

        return Table(ArtifactHash, rows, name="artifact hashes")

    def verify(self, executor: Executor | None = None) -> Table[Check]:
        """Every digest, size and count that the evidence states about itself, recomputed.

        Args:
            executor: any `concurrent.futures.Executor` to do the work; None uses a thread for each core.
        """

        def rows() -> Iterator[Check]:
            failed = total = 0
            for check in verify_images(
                self._store,
                self._images,
                self._inventory(),
                executor,
                self._progress,
                self._keep_digests,
                self._digests,
            ):
                total += 1
                failed += not check.ok
                yield check
            self._finish("verify", checks=total, failed=failed)

        return Table(Check, rows, name="checks")

    def _stored_size(self) -> int | None:
        return None if self._file is None else self._file.size

    def _open_tree(self) -> Tree:
        if self.path.is_dir():
            return DirectoryTree(self.path, self._problems)
        if not self.path.exists() and not self.path.is_symlink():
            raise PathNotFound(f"{self.path} does not exist")
        self._file = FileSource(self.path)
        source: Source = self._file
        self._compression = sniff(source.read_at(0, 16))
        if self._compression is not Compression.NONE:
            source = SpoolSource(source, self._compression, source.origin.to(self._compression), self._limits)
        self._outer = source
        try:
            if not _looks_like_tar(source):
                raise UnsupportedFormat(f"{self.path} is no image archive, layout or tar archive that is read here")
            once = None
            if isinstance(source, SpoolSource) and self._file.size > _SPOOLED_AT_ONCE:
                once = BlockStream(source.stream(lambda error: self._problems.add(source.origin, error)))
            return tar_tree(source, self._problems, self._limits, once)
        except ForensicsError:
            self.close()
            raise

    def _recognise(self) -> tuple[list[Image], list[Artifact], EvidenceKind]:
        tree, store = self._tree, self._store
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
        else:
            return [], [], EvidenceKind.FILESYSTEM_TREE
        return [Image(one, self._problems) for one in parts], kept_apart(reader), kind

    def _inventory(self) -> Inventory:
        name = self.path.name
        if self.kind is EvidenceKind.FILESYSTEM_TREE:
            if self._file is None:
                return Inventory(name, self._problems, trees=((name, self._tree),))
            stream = TarStream(
                name, name, self._file, self._compression, self._file.origin, self._limits, "evidence", False
            )
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
            evidence=self._file,
            unreadable=tuple((b.origin, b.unreadable) for b in self._store.layers.values() if b.unreadable is not None),
        )

    def _keep_digests(self, job: TarStream, digests: StreamDigests) -> None:
        self._digests[job.path] = digests

    def _finish(self, action: str, **details: str | int) -> None:
        if self._file is not None:
            try:
                self._file.check_unchanged()
            except ForensicsError as error:
                self._problems.add(self.origin, error)
        self.custody.record(action, str(self.path), **details)


def _looks_like_tar(source: Source) -> bool:
    """Whether there is a member near the start, which damage may precede, or nothing but an end-of-archive marker."""
    head = source.read_at(0, _LOOKED_AT)
    decoder = TarDecoder(SourceStream(BytesSource(head, source.origin)))
    if any(True for _ in decoder):
        return True
    return decoder.ended and not decoder.trailing and len(head) < _LOOKED_AT


def _candidates(images: Sequence[Image], name: str) -> Iterator[list[Image]]:
    """Images that a name fits, the strongest kind of fit first."""
    yield [image for image in images if name in (image.id, image.manifest_digest, image.index_digest, *image.digests)]
    yield [image for image in images if name in image.tags]
    yield [image for image in images if f"{name}:latest" in image.tags]
    start = name.removeprefix("sha256:")
    if start and all(character in "0123456789abcdef" for character in start):
        ids = [(image, (image.id, image.manifest_digest, image.index_digest)) for image in images]
        yield [i for i, names in ids if any((n or "").removeprefix("sha256:").startswith(start) for n in names)]
    yield [image for image in images if any(tag.rpartition(":")[0] == name for tag in image.tags)]


def open_evidence(
    path: str | os.PathLike[str],
    *,
    strict: bool = False,
    progress: Progress | None = None,
    limits: Limits | None = None,
    shared_blobs: str | os.PathLike[str] | None = None,
) -> Evidence:
    """Open evidence; what it is, is told by its content.

    Args:
        path: a ``docker save`` archive, an OCI layout (folder or tar), a skopeo ``dir:`` folder, a ``docker export`` or
            any other tar archive, each also compressed as a whole with gzip, zstd, xz or bzip2; or a folder.
        strict: raise at the first problem instead of keeping it in `Evidence.problems`.
        progress: called with bytes done and in total during long work.
        limits: bounds on what the evidence may ask for.
        shared_blobs: folder of blobs that several layouts share.

    Raises:
        PathNotFound: there is nothing at the path.
        UnsupportedFormat: nothing recognises the content.
        DamagedData: the content is recognised, but damaged beyond reading.
    """
    return Evidence(path, strict=strict, progress=progress, limits=limits, shared_blobs=shared_blobs)


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
    if empty and not decoder.ended:
        raise DamagedData(f"{path} holds no tar archive", origin=source.origin)
