"""Which version of the engine wrote a data root, as far as its records tell.

The disk does not name the version; keys of its documents came with certain releases (moby ``container.go`` by tag).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from forensics_lib.formats.jsondoc import JsonObject

__all__ = ["Engine", "engine_of"]


@dataclass(frozen=True, slots=True)
class Engine:
    """The oldest release that can have written the records.

    Attributes:
        major: major version (20 stands for 20.10).
        minor: minor version, where the records tell.
    """

    major: int
    minor: int = 0

    @property
    def is_legacy(self) -> bool:
        """Whether it shows every field of an image's configuration (API before 1.50)."""
        return not self.at_least(28, 2)

    @property
    def shows_unset(self) -> bool:
        """Whether it shows some fields of an image that are not set (API 1.50 and 1.51)."""
        return not self.is_legacy and not self.at_least(29)

    def at_least(self, major: int, minor: int = 0) -> bool:
        """Whether the records are of this release or a later one."""
        return (self.major, self.minor) >= (major, minor)


_NOT_TOLD = Engine(20, 10)
_KEYS = (
    ("OS", Engine(17, 12)),
    ("Platform", Engine(17, 9)),
    ("ConfigReferences", Engine(17, 6)),
    ("SecretReferences", Engine(1, 13)),
    ("Managed", Engine(1, 12)),
)


def engine_of(configs: Iterable[JsonObject], *, engine_id: bool, networks: Iterable[JsonObject] = ()) -> Engine:
    """The release that the newest of the records needs; without a container 20.10, or what other records tell.

    Args:
        configs: the containers' records.
        engine_id: whether the root has an ``engine-id`` file (23 and later).
        networks: the networks' records.
    """
    found = [_of_container(config) for config in configs if config.raw]
    oldest = Engine(1, 10) if found else _NOT_TOLD
    newest = max([Engine(23) if engine_id else oldest, *found], key=lambda engine: (engine.major, engine.minor))
    for network in networks:
        if "enableIPv4" in network:
            newest = max(newest, Engine(28), key=lambda engine: (engine.major, engine.minor))
    return newest


def _of_container(config: JsonObject) -> Engine:
    state, settings = config.object("State"), config.object("NetworkSettings")
    if "WritableCgroups" in config and "Bridge" not in settings:
        return Engine(29)
    if "ImagePlatform" in config:
        return Engine(28, 0 if "RemovalInProgress" in state else 2)
    networks = settings.object("Networks")
    if any("DNSNames" in networks.object(name) for name in networks.raw):
        return Engine(25)
    if "ImageManifest" in config:
        return Engine(24)
    if "LocalLogCacheMeta" in config:
        return Engine(20, 10)
    return next((engine for key, engine in _KEYS if key in config), Engine(1, 10))
