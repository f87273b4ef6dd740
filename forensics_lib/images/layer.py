"""One layer of an image: its stored bytes, what they hold, and its place in the stack."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from forensics_lib.errors import ForensicsError, NotFound, UnsupportedFormat
from forensics_lib.formats.tar import TarDecoder
from forensics_lib.formats.tar_entry import TarEntry
from forensics_lib.formats.tar_header import checksum_ok
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.sources.base import Source
from forensics_lib.sources.decompress import Compression, Limits, decompress, sniff
from forensics_lib.sources.spool import SpoolSource
from forensics_lib.sources.stream import BlockStream, SourceStream
from forensics_lib.table import Table
from forensics_lib.trees.archive import report_faults
from forensics_lib.trees.base import Tree
from forensics_lib.trees.layered import Change, Changeset, read_changeset

if TYPE_CHECKING:
    from forensics_lib.images.stack import FileVersion, HiddenFile

__all__ = ["Layer", "LayerBlob", "SpoolPool", "Stack"]


_HEAD = 2048
_FILE_SYSTEMS = ((0, b"hsqs", "squashfs"), (1024, b"\xe2\xe1\xf5\xe0", "EROFS"))  # offset and magic of each


class Stack(Protocol):
    """The layers of one image, one over the other, however they are stored."""

    def unreadable(self, index: int) -> ForensicsError | None:
        """Why one layer cannot be read; None when it can."""
        ...

    def content_size(self, index: int) -> int | None:
        """Bytes of one layer's files; None where that is neither recorded nor can be counted."""
        ...

    def alone(self, index: int) -> Tree:
        """What one layer holds."""
        ...

    def tree(self, count: int | None = None) -> Tree:
        """All layers merged, or the first `count`."""
        ...

    def changes(self, index: int) -> list[Change]:
        """What one layer adds, changes and deletes."""
        ...

    def hidden(self) -> list[HiddenFile]:
        """Files that no container sees."""
        ...

    def versions(self, path: str) -> Iterator[FileVersion]:
        """Every version of a path, base first."""
        ...


class SpoolPool:
    """Keeps the disk that random access to compressed layers uses below a limit: the longest unused gives way."""

    def __init__(self, limit: int) -> None:
        """Allow `limit` bytes."""
        self.limit = limit
        self._used: dict[int, SpoolSource] = {}
        self._lock = threading.Lock()

    def touch(self, spool: SpoolSource) -> SpoolSource:
        """Note a use, and close others when all together hold too much."""
        with self._lock:
            self._used.pop(id(spool), None)
            self._used[id(spool)] = spool
            while sum(one.held for one in self._used.values()) > self.limit and len(self._used) > 1:
                self._used.pop(next(iter(self._used))).close()
        return spool

    def close(self) -> None:
        """Give all of it back."""
        with self._lock:
            for spool in self._used.values():
                spool.close()
            self._used.clear()


class LayerBlob:
    """The stored bytes of a layer; shared by every image of the evidence that lists it.

    Attributes:
        path: where it lies in the evidence.
        origin: the same as a chain.
        stored: the bytes as stored; None when they are missing.
        compression: told by the bytes themselves.
        unreadable: why it cannot be read; None when it can.
    """

    def __init__(
        self,
        path: str,
        stored: Source | None,
        origin: Origin,
        *,
        problems: ProblemLog,
        limits: Limits,
        pool: SpoolPool,
        unreadable: ForensicsError | None = None,
    ) -> None:
        """Look at the first bytes; nothing else is read yet."""
        self.path = path
        self.origin = origin
        self.stored = stored
        self.limits = limits
        self.unreadable = unreadable
        self.compression = Compression.NONE
        self._problems = problems
        self._pool = pool
        self._lock = threading.Lock()
        self._changeset: Changeset | None = None
        if stored is None:
            self.unreadable = unreadable or NotFound(f"{path} is missing from the evidence")
        elif unreadable is None:
            try:
                head = stored.read_at(0, _HEAD)
                self.compression = sniff(head[:16])
                _refuse_file_systems(head, path)
            except ForensicsError as error:
                self.unreadable = error
                problems.add(origin, error)
        self._random: Source | None = stored
        if stored is not None and self.compression is not Compression.NONE:
            self._random = SpoolSource(stored, self.compression, self._inside, limits)

    def stream(self, on_problem: Callable[[ForensicsError], None] | None = None) -> Iterator[bytes]:
        """One pass over the uncompressed archive.

        Raises:
            ForensicsError: the layer is unreadable or damaged.
        """
        return decompress(self._readable().blocks(), self.compression, self._inside, self.limits, on_problem)

    def archive(self) -> Source:
        """The uncompressed archive for random access; a compressed one is decompressed once, as far as reads need.

        Raises:
            ForensicsError: the layer is unreadable.
        """
        self._readable()
        return _Spooled(self._random, self._pool) if isinstance(self._random, SpoolSource) else self._readable()

    def entries(self) -> Iterator[TarEntry]:
        """The members as they are stored: names not cleaned, whiteouts and duplicates included.

        Raises:
            ForensicsError: the layer is unreadable or damaged.
        """
        archive = self.archive()
        stream = SourceStream(archive)
        return iter(TarDecoder(stream, source=archive, origin=self._inside, max_entries=self.limits.entries))

    def changeset(self) -> Changeset:
        """What the layer holds. Damage becomes a problem, and what was readable before it is returned."""
        with self._lock:
            if self._changeset is None:
                self._changeset = self._read()
            return self._changeset

    def _read(self) -> Changeset:
        changeset = Changeset()
        if self.unreadable is not None:
            return changeset
        archive, here = self.archive(), self._inside
        add = self._problems.add
        compressed = self.compression is not Compression.NONE
        stream = BlockStream(self.stream(lambda e: add(here, e))) if compressed else SourceStream(archive)
        decoder = TarDecoder(stream, origin=here, max_entries=self.limits.entries)
        try:
            read_changeset(decoder, archive, here, self._problems, changeset)
            for _ in stream.chunks(1 << 62):
                pass
        except ForensicsError as error:
            if self._problems.strict:
                raise
            add(here, error)
        report_faults(decoder, here, self._problems)
        return changeset

    @property
    def _inside(self) -> Origin:
        """The uncompressed archive as a step of the chain."""
        return self.origin if self.compression is Compression.NONE else self.origin.to(self.compression)

    def _readable(self) -> Source:
        if self.unreadable is not None or self.stored is None:
            raise self.unreadable or UnsupportedFormat(f"{self.path} cannot be read")
        return self.stored


def _refuse_file_systems(head: bytes, path: str) -> None:
    """Some engines store a layer as the image of a file system, which is no archive to be searched for members."""
    for offset, magic, name in _FILE_SYSTEMS:
        if head.startswith(magic, offset) and not (len(head) >= 512 and checksum_ok(head[:512])):
            raise UnsupportedFormat(f"layer {path} is a {name} file system and no tar archive")


class _Spooled(Source):
    """A spooled layer that tells the pool of each use."""

    def __init__(self, spool: SpoolSource, pool: SpoolPool) -> None:
        self._spool = spool
        self._pool = pool
        self.origin = spool.origin

    @property
    def size(self) -> int:  # type: ignore[override]
        return self._pool.touch(self._spool).size

    def read_at(self, offset: int, length: int) -> bytes:
        return self._pool.touch(self._spool).read_at(offset, length)

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle without the pool: another process spools for itself."""
        return self._spool.__reduce__()


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer at its place in an image.

    Attributes:
        index: position in the image, 0 is the base.
        digest: digest of the stored (compressed) bytes as the evidence states it; None where it states none.
        diff_id: digest of the uncompressed archive as the image's configuration states it; None where it states none.
        chain_id: digest that names this layer on top of those below it; None without diff_ids.
        size: bytes as stored; of a layer that an engine unpacked the bytes of its files; None when they are missing.
        media_type: as declared; empty where nothing is.
        origin: where the layer lies.
        blob: the stored bytes; None for a layer that an engine unpacked.
    """

    index: int
    digest: str | None
    diff_id: str | None
    chain_id: str | None
    size: int | None
    media_type: str
    origin: Origin
    blob: LayerBlob | None = field(repr=False)
    _stack: Stack = field(repr=False)

    __table_columns__ = ("index", "digest", "diff_id", "chain_id", "size", "media_type", "compression", "origin")

    @property
    def compression(self) -> Compression:
        """How the stored bytes are compressed, as they tell themselves."""
        return Compression.NONE if self.blob is None else self.blob.compression

    @property
    def unreadable(self) -> ForensicsError | None:
        """Why the layer cannot be read (missing, foreign, encrypted); None when it can."""
        return self._stack.unreadable(self.index)

    @property
    def content_size(self) -> int | None:
        """Bytes of the files that the layer stores, as `docker history` shows.

        An engine's records tell them even where the files are not in the evidence; None where nothing does.
        """
        return self._stack.content_size(self.index)

    @property
    def wasted(self) -> int:
        """Bytes of this layer's files that layers above it delete or replace, so that no container sees them."""
        return sum(hidden.size for hidden in self._stack.hidden() if hidden.layer == self.index)

    def entries(self) -> Iterator[TarEntry]:
        """The members of the layer's archive as stored: whiteouts, duplicates and damage included.

        Raises:
            UnsupportedFormat: the layer is no archive any more, because an engine unpacked it.
            ForensicsError: the layer cannot be read.
        """
        if self.blob is None:
            raise UnsupportedFormat("an unpacked layer has no archive; its files are in tree()")
        return self.blob.entries()

    def tree(self) -> Tree:
        """What this layer alone holds; whiteouts are no part of it (see `changes`)."""
        return self._stack.alone(self.index)

    def changes(self) -> Table[Change]:
        """What this layer adds, changes and deletes, compared with the layers below it."""
        return Table(Change, lambda: self._stack.changes(self.index), name=f"changes of layer {self.index}")
