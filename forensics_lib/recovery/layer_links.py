"""Links between the directories of layers, as the drivers overlay2 and fuse-overlayfs write them.

Each directory has a short name in its file ``link``; its file ``lower`` has ``l/<link>`` of the directory below it,
then what the ``lower`` of that one has (moby ``daemon/graphdriver/overlay2``). So one ``lower`` tells the links of all
directories below, where it is known which they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from forensics_lib.engines.docker.engine import DockerRoot
from forensics_lib.errors import ForensicsError
from forensics_lib.recovery.remnant import Remnant

__all__ = ["LINK", "LOWER", "LayerLinks"]

LINK = re.compile(r"[A-Z2-7]{26}")
LOWER = re.compile(r"l/[A-Z2-7]{26}(?::l/[A-Z2-7]{26}){0,140}")
_DRIVERS = ("overlay2", "fuse-overlayfs")
_LONGEST = 4096
_CACHE = re.compile(r"(?:^|/)layerdb/sha256/([0-9a-f]{64})/cache-id")
_FILE = re.compile(r"(?:^|/)(?:overlay2|fuse-overlayfs)/([0-9a-z]{25}|[0-9a-f]{64}(?:-init)?)/lower")


@dataclass(slots=True)
class LayerLinks:
    """What is known of directories of layers.

    Attributes:
        driver: whose they are.
        live: those that are there.
        caches: directories by the chain id of their layer; a layer that was removed and came again had several.
        below: the directories below writable layers and their init layers.
        lowers: text of ``lower``, by directory.
    """

    driver: str = _DRIVERS[0]
    live: set[str] = field(default_factory=set)
    caches: dict[str, set[str]] = field(default_factory=dict)
    below: dict[str, str] = field(default_factory=dict)
    lowers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, remnants: Iterable[Remnant], dockers: Sequence[DockerRoot]) -> LayerLinks:
        """What data roots and files with a name tell."""
        known = cls()
        for docker in dockers:
            for driver in set(docker.graph_drivers) & set(_DRIVERS):
                known.driver = driver
                known._read(docker, driver)
        for remnant in remnants:
            if remnant.content is None or not remnant.complete or (remnant.size or 0) > _LONGEST:
                continue
            cache, lower = _CACHE.search(remnant.path), _FILE.search(remnant.path)
            try:
                text = remnant.read().decode("ascii", "replace") if cache or lower else ""
            except ForensicsError:
                continue
            if cache:
                known.caches.setdefault(f"sha256:{cache[1]}", set()).add(text)
            elif lower and LOWER.fullmatch(text):
                known.lowers.setdefault(lower[1], text)
        return known

    def add_mount(self, folder: str, parent: str) -> None:
        """Note a writable layer.

        Args:
            folder: its directory.
            parent: chain id of the layer below it; empty when it is not known.
        """
        self.below[folder] = f"{folder}-init"
        if len(caches := self.caches.get(parent, set())) == 1:
            self.below[f"{folder}-init"] = next(iter(caches))

    def places(self, layers: Mapping[str, tuple[str, str]]) -> Iterator[tuple[str, str]]:
        """(text, path) of files ``link`` and ``lower`` of removed directories that are told in one way only.

        Args:
            layers: chain ids and for each its digest and the chain id of the layer below.
        """
        one = {chain: next(iter(names)) for chain, names in self.caches.items() if len(names) == 1}
        below = {one[chain]: one[parent] for chain, (_, parent) in layers.items() if chain in one and parent in one}
        below |= self.below
        told: dict[tuple[str, str], set[str]] = {}
        for name, lower in self.lowers.items():
            folder, rest = name, lower
            while rest and (folder := below.get(folder, "")):
                first, _, rest = rest.partition(":")
                told.setdefault((folder, "link"), set()).add(first.removeprefix("l/"))
                if rest:
                    told.setdefault((folder, "lower"), set()).add(rest)
        for (folder, name), texts in told.items():
            if len(texts) == 1 and folder not in self.live:
                yield texts.pop(), f"{self.driver}/{folder}/{name}"

    def _read(self, docker: DockerRoot, driver: str) -> None:
        records = docker.layer_db(driver)
        self.live |= set(docker.driver(driver).directories())
        for chain, record in records.layers.items():
            if record.cache_id:
                self.caches.setdefault(chain, set()).add(record.cache_id)
        for mount in records.mounts.values():
            if mount.mount_id and mount.init_id == f"{mount.mount_id}-init":
                self.add_mount(mount.mount_id, mount.parent)
        for folder in self.live:
            path = docker.root.at(driver, folder, "lower")
            text = docker.reader.text(path) if docker.reader.find(path) is not None else None
            if text and LOWER.fullmatch(text):
                self.lowers[folder] = text
