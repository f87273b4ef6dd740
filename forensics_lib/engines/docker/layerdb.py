"""The graph drivers' records: which layers there are, which directory holds each, and which belong to a container.

Format: moby ``daemon/internal/layer/filestore.go``: one folder for each layer in ``image/<driver>/layerdb/sha256``,
one for each container in ``layerdb/mounts``, unfinished ones in ``layerdb/tmp``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from forensics_lib.engines.docker.root import DataRoot
from forensics_lib.errors import DamagedData
from forensics_lib.images.layer import LayerBlob
from forensics_lib.model import Origin
from forensics_lib.trees.base import Node, NodeKind, join
from forensics_lib.trees.documents import DocumentReader

__all__ = ["LayerDb", "LayerRecord", "MountRecord"]

_HEX = re.compile(r"[0-9a-f]{64}")
_CACHE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}")


@dataclass(frozen=True, slots=True)
class LayerRecord:
    """A layer of the store.

    Attributes:
        chain_id: its name.
        diff_id: digest of its archive; empty when the file is missing.
        parent: chain id of the layer below; empty for a base.
        cache_id: name of the driver's directory; empty when the file is missing.
        size: bytes of its files as recorded; None when the file is missing.
        path: folder of the record.
        origin: where the record lies.
    """

    chain_id: str
    diff_id: str
    parent: str
    cache_id: str
    size: int | None
    path: str
    origin: Origin


@dataclass(frozen=True, slots=True)
class MountRecord:
    """The writable layer of a container.

    Attributes:
        container_id: whose it is.
        mount_id: name of the driver's directory; empty when the file is missing.
        init_id: name of the directory below it, which holds what Docker puts into every container.
        parent: chain id of the image's top layer; empty for an image without layers.
        origin: where the record lies.
    """

    container_id: str
    mount_id: str
    init_id: str
    parent: str
    origin: Origin


class LayerDb:
    """The layer records of one storage driver; each part is read when it is first asked for."""

    def __init__(self, reader: DocumentReader, root: DataRoot, driver: str) -> None:
        """Read below ``image/<driver>/layerdb``."""
        self._reader = reader
        self.driver = driver
        self.path = root.at("image", driver, "layerdb")

    @cached_property
    def layers(self) -> dict[str, LayerRecord]:
        """All layers by chain id."""
        found = {}
        for node in self._reader.folder(join(self.path, "sha256")):
            if _HEX.fullmatch(node.name) and node.kind is NodeKind.DIR:
                record = self._layer(node, f"sha256:{node.name}")
                found[record.chain_id] = record
        return found

    @cached_property
    def removing(self) -> list[LayerRecord]:
        """Layers whose removal was interrupted (``<chain>-<random>-removing``)."""
        return [
            self._layer(node, f"sha256:{node.name[:64]}")
            for node in self._reader.folder(join(self.path, "sha256"))
            if node.name.endswith("-removing") and _HEX.match(node.name)
        ]

    @cached_property
    def unfinished(self) -> list[LayerRecord]:
        """Layers whose registration was interrupted (``tmp/write-set-…``); they have no chain id yet."""
        return [self._layer(node, "") for node in self._reader.folder(join(self.path, "tmp"))]

    @cached_property
    def mounts(self) -> dict[str, MountRecord]:
        """Writable layers by container id (image mounts have ids of their own)."""
        found = {}
        for node in self._reader.folder(join(self.path, "mounts")):
            if node.kind is NodeKind.DIR:
                found[node.name] = MountRecord(
                    node.name,
                    self._name(node, "mount-id"),
                    self._name(node, "init-id"),
                    self._reader.text(join(node.path, "parent")) or "",
                    node.origin.to(node.path.lstrip("/")),
                )
        return found

    @cached_property
    def by_cache_id(self) -> dict[str, LayerRecord]:
        """Layers by the name of the driver's directory."""
        return {record.cache_id: record for record in self.layers.values() if record.cache_id}

    def chain(self, top: str) -> list[LayerRecord]:
        """The layers from `top` down to the base; cut, with a problem, where one is missing or comes twice."""
        found: list[LayerRecord] = []
        seen: set[str] = set()
        while top:
            record = self.layers.get(top)
            if record is None or top in seen:
                what = "leads in a circle" if record is not None else "is missing"
                self._reader.problems.add(self._reader.origin.to(self.path.lstrip("/")), f"layer {top} {what}")
                break
            seen.add(top)
            found.append(record)
            top = record.parent
        return found

    def archive(self, record: LayerRecord) -> LayerBlob | None:
        """The archive that a layer was unpacked from, where the store keeps it; graph drivers do not."""
        return None

    def _layer(self, node: Node, chain_id: str) -> LayerRecord:
        text = self._reader.text
        size = text(join(node.path, "size")) or ""
        return LayerRecord(
            chain_id,
            text(join(node.path, "diff")) or "",
            text(join(node.path, "parent")) or "",
            self._name(node, "cache-id"),
            int(size) if size.isdecimal() and len(size) < 20 else None,
            node.path,
            node.origin.to(node.path.lstrip("/")),
        )

    def _name(self, node: Node, file: str) -> str:
        """The name of a directory of the driver; anything that could lead elsewhere is refused."""
        text = self._reader.text(join(node.path, file)) or ""
        if text and _CACHE_ID.fullmatch(text) is None:
            origin = node.origin.to(join(node.path, file).lstrip("/"))
            self._reader.problems.add(origin, DamagedData(f"no name of a directory: {text[:100]!a}", origin=origin))
            return ""
        return text
