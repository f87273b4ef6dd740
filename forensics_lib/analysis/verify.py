"""Is the evidence still what it was? Every stored digest, size and count, recomputed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from forensics_lib.analysis.digests import StreamDigests, digest_source
from forensics_lib.analysis.hashing import Meter, digest_streams, is_unchanged, report_stream
from forensics_lib.analysis.inventory import Inventory, TarStream
from forensics_lib.errors import DamagedData, ForensicsError
from forensics_lib.images.digest import chain_ids, parse_digest
from forensics_lib.images.image import Image
from forensics_lib.images.store import ImageStore
from forensics_lib.model import Check, Progress
from forensics_lib.trees.base import Node

if TYPE_CHECKING:
    from concurrent.futures import Executor

__all__ = ["verify_images"]

_MISSING = "missing"
_NOT_TO_BE_READ = ("foreign", "nondistributable", "+encrypted")
"""Words in the media types of layers that an image rightly does not hold, or not in the clear."""


class _Blobs:
    """Digest and size of every file of the evidence that something names by digest, each computed once."""

    def __init__(self, store: ImageStore, inventory: Inventory) -> None:
        self._store = store
        self._inventory = inventory
        self._known: dict[tuple[str, str], str] = {}
        self.sizes: dict[str, int] = {}

    def add(self, path: str, stored: dict[str, str], size: int) -> None:
        self.sizes["/" + path.lstrip("/")] = size
        for algorithm, value in stored.items():
            self._known["/" + path.lstrip("/"), algorithm] = value

    def digest(self, node: Node, algorithm: str) -> str:
        key = (node.path, algorithm)
        if key not in self._known:
            try:
                digests, size = digest_source(node.source(), (algorithm,))
            except ForensicsError as error:
                self._inventory.problems.add(node.origin, error)
                return f"unreadable: {error}"
            self.add(node.path, digests, size)
        return self._known[key]

    def find(self, digest: str) -> Node | None:
        return self._store.blob(digest)


def verify_images(
    store: ImageStore,
    images: Sequence[Image],
    inventory: Inventory,
    executor: Executor | None,
    progress: Progress | None,
    keep: Callable[[TarStream, StreamDigests], None],
    known: dict[str, StreamDigests],
) -> Iterator[Check]:
    """Checks of everything that an archive or layout states about itself; nothing stops at the first mismatch.

    Args:
        store: where the evidence's documents and blobs are.
        images: its images.
        inventory: its artifacts.
        executor: does the work; None uses all cores.
        progress: told of bytes done and in total.
        keep: told of each archive's digests.
        known: digests of archives that were read before, by path.
    """
    known = {
        one.path: known[one.path] for one in inventory.streams if one.path in known and is_unchanged(one, inventory)
    }
    meter = Meter(progress, sum(job.stored.size for job in inventory.streams if job.path not in known))
    missing = [job for job in inventory.streams if job.path not in known]
    streams = {job.path: (job, known[job.path]) for job in inventory.streams if job.path in known}
    for job, digests in digest_streams(missing, (), executor, meter):
        report_stream(job, digests, inventory)
        keep(job, digests)
        streams[job.path] = (job, digests)
    blobs = _Blobs(store, inventory)
    for job, digests in streams.values():
        blobs.add(job.path, digests.stored, digests.stored_size)
    yield from _check_names(store, blobs)
    yield from _check_references(store, blobs)
    for image in images:
        yield from _check_image(image, streams)
    for job, digests in streams.values():
        yield _check_end(job, digests)


def _check_names(store: ImageStore, blobs: _Blobs) -> Iterator[Check]:
    """Files that are named by their digest, whether or not anything refers to them."""
    for node in store.files():
        stated = _digest_in_path(node.path)
        if stated is not None:
            algorithm, encoded = parse_digest(stated)
            actual = f"{algorithm}:{blobs.digest(node, algorithm)}"
            yield Check(
                f"digest of {node.path.lstrip('/')}", stated, actual, actual == f"{algorithm}:{encoded}", node.origin
            )


def _check_references(store: ImageStore, blobs: _Blobs) -> Iterator[Check]:
    """What documents say of the blobs they name."""
    seen: set[tuple[str, str, int | None]] = set()
    for role, descriptor in store.references:
        key = (role, descriptor.digest, descriptor.size)
        if key in seen:
            continue
        seen.add(key)
        subject = f"{role} {descriptor.digest}"
        try:
            algorithm, _ = parse_digest(descriptor.digest)
        except DamagedData:
            yield Check(f"{subject} digest", descriptor.digest, "no valid digest", False, descriptor.origin)
            continue
        node = store.find("/" + role.removeprefix("configuration ")) if role.startswith("configuration ") else None
        node = node or blobs.find(descriptor.digest)
        if node is None:
            if descriptor.data is None:
                if not descriptor.urls:
                    yield Check(f"{subject} present", descriptor.digest, _MISSING, False, descriptor.origin)
                continue
            actual = f"{algorithm}:{hashlib.new(algorithm, descriptor.data).hexdigest()}"
            size, origin = len(descriptor.data), descriptor.origin
        else:
            actual = f"{algorithm}:{blobs.digest(node, algorithm)}"
            size, origin = blobs.sizes.get(node.path, node.size), node.origin
        yield Check(f"{subject} digest", descriptor.digest, actual, actual == descriptor.digest, origin)
        if descriptor.size is not None:
            yield Check(f"{subject} size", str(descriptor.size), str(size), size == descriptor.size, descriptor.origin)


def _check_image(image: Image, streams: dict[str, tuple[TarStream, StreamDigests]]) -> Iterator[Check]:
    name = f"image {image.id}"
    stated = image.config.diff_ids
    if stated or image.raw_config is not None:
        if stated:
            count, expected = len(image.layers), len(stated)
            yield Check(f"{name} layer count", str(expected), str(count), count == expected, image.origin)
        made = sum(not entry.empty_layer for entry in image.config.history)
        if image.config.history and made != len(image.layers):
            yield Check(f"{name} layers in history", str(made), str(len(image.layers)), False, image.origin)
    computed: list[str] = []
    for index, layer in enumerate(image.layers):
        found = streams.get(layer.blob.path) if layer.blob is not None else None
        actual = found[1].diff_id if found is not None else None
        expected_id = stated[index] if index < len(stated) else None
        if actual is not None:
            computed.append(actual)
        if found is None and any(word in layer.media_type for word in _NOT_TO_BE_READ):
            continue  # the problems say so
        if expected_id is None:
            if found is None and layer.digest is None and layer.blob is not None:
                yield Check(f"{name} layer {index} present", layer.blob.path, _MISSING, False, layer.origin)
            continue
        is_stored = found is not None or (layer.blob is not None and layer.blob.stored is not None)
        value = actual or ("undecodable" if is_stored else _MISSING)
        yield Check(f"{name} layer {index} diff_id", expected_id, value, value == expected_id, layer.origin)
    if stated and len(computed) == len(stated) and image.layers and image.layers[-1].chain_id is not None:
        expected_chain, actual_chain = image.layers[-1].chain_id, chain_ids(computed)[-1]
        subject = f"{name} chain id of the top layer"
        yield Check(subject, expected_chain, actual_chain, expected_chain == actual_chain, image.origin)


def _check_end(job: TarStream, digests: StreamDigests) -> Check:
    actual = "end-of-archive marker" if digests.ended else "no end-of-archive marker"
    if digests.after_end:
        actual += f", then {digests.after_end} more members"
    if digests.trailing:
        actual += f", then {digests.trailing} bytes of something else"
    subject = f"end of archive {job.path}"
    return Check(subject, "end-of-archive marker", actual, actual == "end-of-archive marker", job.origin)


def _digest_in_path(path: str) -> str | None:
    """The digest that a path states, by the conventions of layouts, ``docker save`` and skopeo; else None."""
    parts = path.strip("/").split("/")
    name = parts[-1]
    if len(parts) >= 3 and parts[-3] == "blobs":
        stated = f"{parts[-2]}:{name}"
    elif len(parts) == 1:
        stem, _, suffix = name.partition(".")
        stated = f"sha256:{stem}" if suffix in ("", "json", "tar") else ""
    else:
        return None
    try:
        parse_digest(stated)
    except DamagedData:
        return None
    return stated
