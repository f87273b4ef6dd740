"""Docker's images in the graph drivers' store: ``image/<driver>/imagedb`` and ``repositories.json``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial

from forensics_lib.engines.docker.drivers import GraphDriver
from forensics_lib.engines.docker.layerdb import LayerDb, LayerRecord
from forensics_lib.engines.docker.root import DataRoot
from forensics_lib.engines.docker.version import Engine
from forensics_lib.engines.stack import UnpackedLayer, UnpackedStack
from forensics_lib.errors import DamagedData, ForensicsError
from forensics_lib.images.digest import chain_ids
from forensics_lib.images.image import Image, ImageParts, LayerSpec
from forensics_lib.images.manifests import parse_config
from forensics_lib.trees.base import join
from forensics_lib.trees.documents import Document, DocumentReader
from forensics_lib.trees.index import IndexTree

__all__ = ["ImageDb"]

_HEX = re.compile(r"[0-9a-f]{64}")
_NEVER = "0001-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True)
class _Names:
    tags: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()


class ImageDb:
    """The images of one storage driver."""

    def __init__(
        self, reader: DocumentReader, root: DataRoot, layers: LayerDb, driver: GraphDriver, engine: Engine
    ) -> None:
        """Read below ``image/<driver>``."""
        self._reader = reader
        self._path = root.at("image", layers.driver)
        self._layers = layers
        self._driver = driver
        self._engine = engine

    def images(self) -> list[Image]:
        """All images, also dangling and intermediate ones, newest first as ``docker images -a``."""
        names = self._names()
        found = []
        for node in self._reader.folder(join(self._path, "imagedb/content/sha256")):
            if _HEX.fullmatch(node.name) and (document := self._reader.parse(node)) is not None:
                image_id = f"sha256:{node.name}"
                if document.digest != image_id:
                    message = f"image {image_id}: its configuration now has the digest {document.digest}"
                    self._reader.problems.add(document.origin, DamagedData(message, origin=document.origin))
                found.append(self._image(image_id, document, names.pop(image_id, _Names())))
        for image_id, lost in names.items():
            message = f"{', '.join(lost.tags + lost.digests)} names image {image_id}, which is not in the store"
            self._reader.problems.add(self._reader.origin.to(self._path.lstrip("/")), message)
        return sorted(found, key=lambda image: -(image.created_ns or 0))

    def _names(self) -> dict[str, _Names]:
        path = join(self._path, "repositories.json")
        document = self._reader.document(path) if self._reader.find(path) is not None else None
        names: dict[str, _Names] = {}
        if document is None:
            return names
        repositories = document.object.object("Repositories")
        for repository in repositories.raw:
            for reference, image_id in repositories.mapping(repository).items():
                known = names.get(image_id, _Names())
                if "@" in reference:
                    names[image_id] = _Names(known.tags, (*known.digests, reference))
                else:
                    names[image_id] = _Names((*known.tags, reference), known.digests)
        return names

    def _image(self, image_id: str, document: Document, names: _Names) -> Image:
        problems = self._reader.problems
        config = parse_config(document, document.origin, problems)
        records = self._records(config.diff_ids, document)
        metadata = join(self._path, f"imagedb/metadata/sha256/{image_id.removeprefix('sha256:')}")
        specs = tuple(
            LayerSpec(None, None, record.size if record else None, "", record.origin if record else document.origin)
            for record in records
        )
        facts: list[tuple[str, object]] = []
        if not records:
            facts.append(("GraphDriver", {"Data": None, "Name": self._driver.name}))
        elif (top := records[-1]) is not None:
            facts.append(("GraphDriver", self._driver.shown(top.cache_id, None)))
        tagged = self._reader.text(join(metadata, "lastUpdated"))
        if tagged or self._engine.at_least(17, 12):
            facts.append(("Metadata", {"LastTagTime": tagged or _NEVER}))
        facts.append(("Size", sum(record.size or 0 for record in records if record)))
        if not self._engine.at_least(25):
            facts.append(("VirtualSize", facts[-1][1]))
        return Image(
            ImageParts(
                id=image_id,
                config=config,
                raw_config=document.raw,
                config_digest=image_id,
                layers=specs,
                origin=document.origin,
                tags=names.tags,
                digests=names.digests,
                parent=self._reader.text(join(metadata, "parent")) or "",
                legacy=self._engine.is_legacy,
                without_container=self._engine.at_least(25),
                shows_unset=self._engine.shows_unset,
                stack=self._stack(records, document),
                store_facts=tuple(facts),
            ),
            problems,
        )

    def _records(self, diff_ids: tuple[str, ...], document: Document) -> list[LayerRecord | None]:
        try:
            chains = chain_ids(diff_ids, origin=document.origin)
        except ForensicsError as error:
            self._reader.problems.add(document.origin, error)
            return [None] * len(diff_ids)
        records = [self._layers.layers.get(chain) for chain in chains]
        for chain, record in zip(chains, records, strict=True):
            if record is None:
                self._reader.problems.add(document.origin, f"layer {chain} has no record in the store")
        return records

    def _stack(self, records: list[LayerRecord | None], document: Document) -> UnpackedStack:
        driver = self._driver
        layers = []
        for record in records:
            cache_id = record.cache_id if record is not None else ""
            layers.append(
                UnpackedLayer(
                    merged=partial(driver.tree, cache_id),
                    alone=partial(driver.alone, cache_id),
                    size=record.size if record is not None else None,
                    shares=driver.shares,
                )
            )
        return UnpackedStack(layers, IndexTree(document.origin))
