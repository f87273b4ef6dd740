"""BuildKit's cache: what each build step, build context and cache mount left behind, and where its files lie.

Formats: buildkit ``cache/metadata.go`` (``metadata_v2.db``, before it ``metadata.db``: a bucket of JSON values for each
record) and moby ``daemon/internal/builder-next/adapters/snapshot/snapshot.go`` (``snapshots.db``: which directory of
the storage driver a record's snapshot is).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING

from forensics_lib.errors import ForensicsError
from forensics_lib.formats.bbolt import Bolt
from forensics_lib.formats.jsondoc import JsonObject, JsonValue, parse_object
from forensics_lib.model import Origin, utc_from_ns
from forensics_lib.sources.base import SliceSource
from forensics_lib.trees.base import NodeKind

if TYPE_CHECKING:
    from forensics_lib.engines.docker.engine import DockerRoot

__all__ = ["BuildCache", "BuildCacheRecord", "BuildSnapshot"]

_DIRECTORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}")
_PARENTS = ("cache.parent", "cache.mergeParents", "cache.lowerDiffParent", "cache.upperDiffParent")


@dataclass(frozen=True, slots=True)
class BuildCacheRecord:
    """One record of the build cache, as ``docker buildx du`` lists it; also those it leaves out.

    Whether a build was using it is only in the daemon's memory.

    Attributes:
        id: BuildKit's name for it.
        description: the step, e.g. ``[2/3] RUN make``, ``local source for context`` or ``pulled from …``.
        record_type: ``regular``, ``source.local``, ``exec.cachemount``, ``frontend``, ``internal`` …
        created_ns: when it was made, nanoseconds since 1970.
        last_used_ns: when a build last used it.
        usage_count: how many builds used it.
        parents: records it lies on; several after a merge or a difference of steps.
        size: bytes of its own files; None when that was never measured.
        source: which folder of the client it holds (``context:…:<folder>:<id of the client>``), or a cache mount's id.
        image_refs: names of the images it was pulled with.
        diff_id: digest of its archive; empty when it is no layer of an image.
        chain_id: digest that names it on top of its parents.
        blob_chain_id: the same of the compressed layers.
        snapshot: key of its files in ``snapshots.db``, or in containerd's snapshotter.
        directory: where its files lie in the tree; empty when they are not there.
        equal_mutable: the record that has its files; this one is then not listed.
        mutable: whether the next build goes on writing into it.
        deleted: whether its removal was begun.
        shared: whether an image has it too, so that it outlives ``docker builder prune``; None with containerd's store.
        origin: the bucket of the record.
    """

    id: str
    description: str
    record_type: str
    created_ns: int | None
    last_used_ns: int | None
    usage_count: int
    parents: tuple[str, ...]
    size: int | None
    source: str
    image_refs: tuple[str, ...]
    diff_id: str
    chain_id: str
    blob_chain_id: str
    snapshot: str
    directory: str
    equal_mutable: str
    mutable: bool
    deleted: bool
    shared: bool | None
    origin: Origin

    __table_columns__ = (
        "id",
        "description",
        "record_type",
        "created",
        "last_used",
        "usage_count",
        "size",
        "parents",
        "source",
        "directory",
        "listed",
        "mutable",
        "deleted",
        "shared",
        "diff_id",
        "chain_id",
        "origin",
    )

    @property
    def created(self) -> datetime | None:
        """When it was made (aware UTC)."""
        return utc_from_ns(self.created_ns)

    @property
    def last_used(self) -> datetime | None:
        """When a build last used it (aware UTC)."""
        return utc_from_ns(self.last_used_ns)

    @property
    def listed(self) -> bool:
        """Whether ``docker buildx du`` would show it."""
        return not self.equal_mutable and not self.deleted


@dataclass(frozen=True, slots=True)
class BuildSnapshot:
    """Files of the build cache in a storage driver.

    Attributes:
        key: its name; a chain id when it is nothing but a layer of an image.
        chain_id: the layer it was made into; empty when it was not.
        committed: name of the directory, where it differs from the key; empty otherwise.
        parent: key of the snapshot below it.
        size: bytes of its own files; None when that was never measured.
        directory: where the files lie in the tree; empty when they are not there.
        origin: the bucket of the snapshot.
    """

    key: str
    chain_id: str
    committed: str
    parent: str
    size: int | None
    directory: str
    origin: Origin


class BuildCache:
    """The build cache of a data root, with a graph driver or in containerd's store; read when it is first asked for."""

    def __init__(self, docker: DockerRoot) -> None:
        """Nothing is read yet."""
        self._docker = docker
        self._reader = docker.reader

    @cached_property
    def snapshots(self) -> dict[str, BuildSnapshot]:
        """The snapshots in the graph driver by key; containerd's store has them elsewhere."""
        found = {}
        path = self._docker.root.at("buildkit", "snapshots.db")
        for name, (values, origin) in self._buckets(path).items():
            chain = _text(values, "chainid") or _chain(name)
            committed, size = _text(values, "committed"), _text(values, "size")
            found[name] = BuildSnapshot(
                key=name,
                chain_id=chain,
                committed=committed,
                parent=_text(values, "parent"),
                size=int(size) if size.isdecimal() and len(size) < 20 else None,
                directory=self._directory(name, chain, committed),
                origin=origin,
            )
        return found

    @cached_property
    def records(self) -> list[BuildCacheRecord]:
        """The records, oldest first."""
        found: list[BuildCacheRecord] = []
        for path, containerd in self._databases():
            drafts = {
                name: _Draft(name, self._values(values, origin), origin)
                for name, (values, origin) in self._buckets(path, b"_main").items()
            }
            twins = {draft.equal_mutable: draft for draft in drafts.values() if draft.equal_mutable in drafts}
            shared = None if containerd else self._shared(drafts)
            found += [self._record(draft, drafts, twins, shared) for draft in drafts.values()]
        return sorted(found, key=lambda record: (record.created_ns or 0, record.id))

    def _databases(self) -> Iterator[tuple[str, bool]]:
        """Paths of the records' databases, and whether containerd keeps their files."""
        root = self._docker.root
        folders = [root.at("buildkit")]
        folders += [
            node.path
            for node in self._reader.folder(root.at("buildkit"))
            if node.kind is NodeKind.DIR and node.name.startswith("containerd-")
        ]
        for folder in folders:
            for name in ("metadata_v2.db", "metadata.db"):
                if self._reader.find(f"{folder}/{name}") is not None:
                    yield f"{folder}/{name}", folder != folders[0]
                    break

    def _buckets(self, path: str, *above: bytes) -> dict[str, tuple[dict[str, bytes], Origin]]:
        """The buckets of a database, or of one of its buckets, with their values; damage becomes a problem."""
        found: dict[str, tuple[dict[str, bytes], Origin]] = {}
        node = self._reader.find(path)
        if node is None:
            return found
        origin = node.origin.to(path.lstrip("/"))
        try:
            source = node.source()
            top = Bolt(SliceSource(source, 0, source.size, origin), self._reader.problems).root.bucket(*above)
            for record in top.walk() if top is not None else ():
                if record.value is None and record.path == above:
                    found[_name(record.key)] = ({}, record.origin)
                elif record.value is not None and len(record.path) == len(above) + 1:
                    values, _ = found.setdefault(_name(record.path[-1]), ({}, record.origin))
                    values[_name(record.key)] = record.value
        except ForensicsError as error:
            self._reader.problems.add(origin, error)
        return found

    def _values(self, values: Mapping[str, bytes], origin: Origin) -> JsonObject:
        """The values of a record, each out of its own document (``{"value":…,"index":…}``); no bytes is no value."""
        found: dict[str, JsonValue] = {}
        for key, data in values.items():
            try:
                if data:
                    found[key] = parse_object(data, origin).get("value")
            except ForensicsError as error:
                self._reader.problems.add(origin, error)
        return JsonObject(found)

    def _record(
        self,
        draft: _Draft,
        drafts: Mapping[str, _Draft],
        twins: Mapping[str, _Draft],
        shared: Collection[str] | None,
    ) -> BuildCacheRecord:
        values = draft.values
        mutable = drafts.get(draft.equal_mutable)
        return BuildCacheRecord(
            id=draft.id,
            description=values.text("cache.description"),
            record_type=values.text("cache.recordType") or "regular",
            created_ns=values.integer("cache.createdAt"),
            last_used_ns=values.integer("cache.lastUsedAt"),
            usage_count=values.integer("cache.usageCount") or 0,
            parents=draft.parents,
            size=self._size(draft, twins.get(draft.id)),
            source=values.text("local.sharedKey") or values.text("cache-dir"),
            image_refs=values.texts("cache.imageRefs"),
            diff_id=values.text("cache.diffID"),
            chain_id=values.text("cache.chainID"),
            blob_chain_id=values.text("cache.blobChainID"),
            snapshot=draft.snapshot,
            directory=self._directory_of(draft.snapshot) or (self._directory_of(mutable.snapshot) if mutable else ""),
            equal_mutable=mutable.id if mutable else "",
            mutable=not values.flag("snapshot.committed"),
            deleted=values.flag("cache.deleted"),
            shared=None if shared is None else draft.id in shared,
            origin=draft.origin,
        )

    def _size(self, draft: _Draft, twin: _Draft | None) -> int | None:
        """Bytes as measured for the record, for the one that has the same files, or for the snapshot."""
        for one in (draft, twin):
            size = one.values.integer("snapshot.size") if one is not None else None
            if size is not None and size >= 0:
                return size
        snapshot = self.snapshots.get(draft.snapshot)
        return snapshot.size if snapshot is not None else None

    def _shared(self, drafts: Mapping[str, _Draft]) -> set[str]:
        """Ids of the records that are layers of images, and of all below them."""
        chains = {layer.chain_id for image in self._docker.images for layer in image.layers}
        wanted = [draft.id for draft in drafts.values() if self._chain_of(draft.snapshot) in chains]
        shared: set[str] = set()
        while wanted:
            name = wanted.pop()
            if name not in shared and name in drafts:
                shared.add(name)
                wanted += drafts[name].parents
        return shared

    def _chain_of(self, key: str) -> str:
        """Chain id of the layer that a snapshot was made into; empty when it was not."""
        snapshot = self.snapshots.get(key)
        return snapshot.chain_id if snapshot is not None else _chain(key)

    def _directory_of(self, key: str) -> str:
        """The directory of a snapshot by its key."""
        snapshot = self.snapshots.get(key)
        if snapshot is None and (directory := self._in_store(key)):
            return directory
        return snapshot.directory if snapshot is not None else self._directory("", _chain(key), "")

    def _in_store(self, key: str) -> str:
        """The directory of a snapshot in containerd's store; empty when it is not there."""
        store = self._docker.store
        for name in store.snapshotters if store is not None else ():
            directory = store.layer_db(name).directory(key) if store is not None else ""
            driver = self._docker.driver(name)
            if directory and driver.exists(directory):
                return driver.folder(directory)
        return ""

    def _directory(self, key: str, chain: str, committed: str) -> str:
        """The directory of the layer that a snapshot was made into, else its own; only when it is there."""
        for name in self._docker.storage_drivers:
            layer = self._docker.layer_db(name).layers.get(chain)
            for directory in (layer.cache_id if layer is not None else "", committed, key):
                if _DIRECTORY.fullmatch(directory):
                    path = self._docker.driver(name).folder(directory)
                    if path in self._reader.tree:
                        return path
        return ""


@dataclass(frozen=True, slots=True)
class _Draft:
    """The values of a record before they are set against those of others."""

    id: str
    values: JsonObject
    origin: Origin

    @property
    def parents(self) -> tuple[str, ...]:
        return tuple(name for key in _PARENTS for name in self.values.texts(key) if name)

    @property
    def snapshot(self) -> str:
        """Key of the files; the oldest releases did not write it down."""
        return self.values.text("cache.snapshot") or self.id

    @property
    def equal_mutable(self) -> str:
        return self.values.text("cache.equalMutable")


def _chain(key: str) -> str:
    return key if key.startswith("sha256:") else ""


def _text(values: Mapping[str, bytes], key: str) -> str:
    return _name(values.get(key, b""))


def _name(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
