"""Offline forensic examination of containers and their images.

>>> import forensics_lib as fl
>>> with fl.open("fixtures/web.tar") as ev:  # doctest: +SKIP
...     print(ev.image("acme/web:1.0").history())

A name is loaded when it is first used, so importing the library costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from forensics_lib._version import __version__

if TYPE_CHECKING:
    from forensics_lib.analysis.identify import Identified
    from forensics_lib.analysis.scan import Match
    from forensics_lib.analysis.search import Hit
    from forensics_lib.engines.container import Container
    from forensics_lib.engines.container_parts import ContainerState, Endpoint, Mount, Port
    from forensics_lib.engines.docker.buildcache import BuildCacheRecord
    from forensics_lib.engines.docker.buildhistory import BuildRecord
    from forensics_lib.engines.docker.ownership import Owner, OwnerKind
    from forensics_lib.engines.docker.pulls import PullKind, PullRecord
    from forensics_lib.engines.fact import Fact, Sureness
    from forensics_lib.engines.findings import Finding
    from forensics_lib.engines.host.audit import AuditEvent
    from forensics_lib.engines.host.commands import HostCommand
    from forensics_lib.engines.host.daemon_log import DaemonLogLine
    from forensics_lib.engines.host.fact import HostFact
    from forensics_lib.engines.network import Network
    from forensics_lib.engines.volume import Volume
    from forensics_lib.errors import (
        AmbiguousName,
        DamagedData,
        EvidenceChanged,
        ForensicsError,
        LimitExceeded,
        MissingExtra,
        NotAFile,
        NotFound,
        PathNotFound,
        UnsupportedFormat,
        VerificationFailed,
    )
    from forensics_lib.evidence import Evidence
    from forensics_lib.evidence import open_evidence as open
    from forensics_lib.formats.journal import JournalEntry
    from forensics_lib.formats.log_record import LogRecord
    from forensics_lib.formats.tar_entry import TarEntry
    from forensics_lib.images.config import Healthcheck, HistoryEntry, ImageConfig
    from forensics_lib.images.history import Alignment, HistoryStep
    from forensics_lib.images.image import Artifact, Image
    from forensics_lib.images.layer import Layer
    from forensics_lib.images.reference import Reference
    from forensics_lib.images.stack import FileVersion, HiddenFile
    from forensics_lib.model import ArtifactHash, Check, EvidenceKind, Origin, Problem
    from forensics_lib.opening import FileSystem, tar_entries
    from forensics_lib.recovery.remnant import Confidence, Remnant
    from forensics_lib.sources.decompress import Compression, Limits
    from forensics_lib.table import Table
    from forensics_lib.trees.base import Node, NodeKind, Tree
    from forensics_lib.trees.extract import Extracted
    from forensics_lib.trees.layered import Change, ChangeKind

__all__ = [
    "Alignment",
    "AmbiguousName",
    "Artifact",
    "ArtifactHash",
    "AuditEvent",
    "BuildCacheRecord",
    "BuildRecord",
    "Change",
    "ChangeKind",
    "Check",
    "Compression",
    "Confidence",
    "Container",
    "ContainerState",
    "DaemonLogLine",
    "DamagedData",
    "Endpoint",
    "Evidence",
    "EvidenceChanged",
    "EvidenceKind",
    "Extracted",
    "Fact",
    "FileSystem",
    "FileVersion",
    "Finding",
    "ForensicsError",
    "Healthcheck",
    "HiddenFile",
    "HistoryEntry",
    "HistoryStep",
    "Hit",
    "HostCommand",
    "HostFact",
    "Identified",
    "Image",
    "ImageConfig",
    "JournalEntry",
    "Layer",
    "LimitExceeded",
    "Limits",
    "LogRecord",
    "Match",
    "MissingExtra",
    "Mount",
    "Network",
    "Node",
    "NodeKind",
    "NotAFile",
    "NotFound",
    "Origin",
    "Owner",
    "OwnerKind",
    "PathNotFound",
    "Port",
    "Problem",
    "PullKind",
    "PullRecord",
    "Reference",
    "Remnant",
    "Sureness",
    "Table",
    "TarEntry",
    "Tree",
    "UnsupportedFormat",
    "VerificationFailed",
    "Volume",
    "__version__",
    "open",
    "tar_entries",
]

_HOMES = {
    "analysis.identify": ("Identified",),
    "analysis.scan": ("Match",),
    "analysis.search": ("Hit",),
    "engines.container": ("Container",),
    "engines.container_parts": ("ContainerState", "Endpoint", "Mount", "Port"),
    "engines.docker.buildcache": ("BuildCacheRecord",),
    "engines.docker.buildhistory": ("BuildRecord",),
    "engines.docker.ownership": ("Owner", "OwnerKind"),
    "engines.docker.pulls": ("PullKind", "PullRecord"),
    "engines.fact": ("Fact", "Sureness"),
    "engines.findings": ("Finding",),
    "engines.host.audit": ("AuditEvent",),
    "engines.host.commands": ("HostCommand",),
    "engines.host.daemon_log": ("DaemonLogLine",),
    "engines.host.fact": ("HostFact",),
    "engines.network": ("Network",),
    "engines.volume": ("Volume",),
    "errors": (
        "AmbiguousName",
        "DamagedData",
        "EvidenceChanged",
        "ForensicsError",
        "LimitExceeded",
        "MissingExtra",
        "NotAFile",
        "NotFound",
        "PathNotFound",
        "UnsupportedFormat",
        "VerificationFailed",
    ),
    "evidence": ("Evidence",),
    "formats.journal": ("JournalEntry",),
    "formats.log_record": ("LogRecord",),
    "formats.tar_entry": ("TarEntry",),
    "images.config": ("Healthcheck", "HistoryEntry", "ImageConfig"),
    "images.history": ("Alignment", "HistoryStep"),
    "images.image": ("Artifact", "Image"),
    "images.layer": ("Layer",),
    "images.reference": ("Reference",),
    "images.stack": ("FileVersion", "HiddenFile"),
    "model": ("ArtifactHash", "Check", "EvidenceKind", "Origin", "Problem"),
    "opening": ("FileSystem", "tar_entries"),
    "recovery.remnant": ("Confidence", "Remnant"),
    "sources.decompress": ("Compression", "Limits"),
    "table": ("Table",),
    "trees.base": ("Node", "NodeKind", "Tree"),
    "trees.extract": ("Extracted",),
    "trees.layered": ("Change", "ChangeKind"),
}

if not TYPE_CHECKING:  # type checkers know the names from above, and that there are no others

    def __getattr__(name: str) -> object:
        from importlib import import_module

        home = next((home for home, names in _HOMES.items() if name in names), "evidence" if name == "open" else None)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{home}"), "open_evidence" if name == "open" else name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return [*globals(), *__all__]
