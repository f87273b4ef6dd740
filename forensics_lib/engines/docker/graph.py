"""Images of Docker before 1.10: ``graph/<id>/json`` and ``repositories-<driver>``; each layer is an image itself."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import partial

from forensics_lib.engines.docker.drivers import GraphDriver
from forensics_lib.engines.docker.root import DataRoot
from forensics_lib.engines.stack import UnpackedLayer, UnpackedStack
from forensics_lib.images.config import HistoryEntry, ImageConfig
from forensics_lib.images.image import Image, ImageParts, LayerSpec
from forensics_lib.images.manifests import familiar, parse_config
from forensics_lib.trees.base import join
from forensics_lib.trees.documents import Document, DocumentReader
from forensics_lib.trees.index import IndexTree

__all__ = ["Graph"]

_HEX = re.compile(r"[0-9a-f]{64}")
_MAX_CHAIN = 512


@dataclass(frozen=True, slots=True)
class _Entry:
    document: Document
    config: ImageConfig
    size: int | None


class Graph:
    """The image store of Docker up to 1.9."""

    def __init__(self, reader: DocumentReader, root: DataRoot, driver: GraphDriver) -> None:
        """Read below ``graph``; the files of the layers lie with the storage driver."""
        self._reader = reader
        self._root = root
        self._driver = driver

    def images(self) -> list[Image]:
        """All images, also intermediate ones, newest first."""
        entries: dict[str, _Entry] = {}
        for node in self._reader.folder(self._root.at("graph")):
            path = join(node.path, "json")
            if _HEX.fullmatch(node.name) and (document := self._reader.document(path)) is not None:
                size = self._reader.text(join(node.path, "layersize")) or ""
                config = parse_config(document, document.origin, self._reader.problems)
                number = int(size) if size.isdecimal() and len(size) < 20 else config.size
                entries[node.name] = _Entry(document, config, number)
        names = self._names()
        found = [self._image(image_id, entries, names.get(image_id, ())) for image_id in entries]
        return sorted(found, key=lambda image: -(image.created_ns or 0))

    def _names(self) -> dict[str, tuple[str, ...]]:
        names: dict[str, tuple[str, ...]] = {}
        node = self._reader.find(self._root.at(f"repositories-{self._driver.name}"))
        document = self._reader.parse(node) if node is not None else None
        if document is not None:
            repositories = document.object.object("Repositories")
            for repository in repositories.raw:
                for tag, image_id in repositories.mapping(repository).items():
                    names[image_id] = (*names.get(image_id, ()), familiar(f"{repository}:{tag}"))
        return names

    def _image(self, image_id: str, entries: dict[str, _Entry], tags: tuple[str, ...]) -> Image:
        entry = entries[image_id]
        chain = self._chain(image_id, entries)
        history: tuple[HistoryEntry, ...] = ()
        layers, specs = [], []
        for one in chain:
            history += entries[one].config.history
            specs.append(LayerSpec(None, None, entries[one].size, "", entries[one].document.origin))
            layers.append(
                UnpackedLayer(
                    merged=partial(self._driver.tree, one),
                    alone=partial(self._driver.alone, one),
                    size=entries[one].size,
                    shares=self._driver.shares,
                )
            )
        size = sum(entries[one].size or 0 for one in chain)
        facts: tuple[tuple[str, object], ...] = (
            ("GraphDriver", self._driver.shown(image_id, None)),
            ("Size", entry.size or 0),
            ("VirtualSize", size),
        )
        return Image(
            ImageParts(
                id=image_id,
                config=replace(entry.config, history=history),
                raw_config=entry.document.raw,
                layers=tuple(specs),
                origin=entry.document.origin,
                tags=tags,
                parent=entry.config.parent_id,
                legacy=True,
                stack=UnpackedStack(layers, IndexTree(entry.document.origin)),
                store_facts=facts,
            ),
            self._reader.problems,
        )

    def _chain(self, image_id: str, entries: dict[str, _Entry]) -> list[str]:
        """The layers of an image, base first; cut, with a problem, where a parent is missing or comes twice."""
        chain: list[str] = []
        current = image_id
        while current:
            if current not in entries or current in chain or len(chain) >= _MAX_CHAIN:
                message = f"image {image_id}: its parent {current} is missing or comes twice"
                self._reader.problems.add(entries[image_id].document.origin, message)
                break
            chain.append(current)
            current = entries[current].config.parent_id
        return chain[::-1]
