"""Offline forensic examination of containers and their images.

>>> import forensics_lib as fl
>>> with fl.open("fixtures/web.tar") as ev:  # doctest: +SKIP
...     print(ev.image("acme/web:1.0").history())
"""

from __future__ import annotations

from forensics_lib._version import __version__
from forensics_lib.analysis.identify import Identified
from forensics_lib.analysis.scan import Match
from forensics_lib.analysis.search import Hit
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
from forensics_lib.evidence import Evidence, tar_entries
from forensics_lib.evidence import open_evidence as open
from forensics_lib.formats.tar import TarEntry
from forensics_lib.images.config import Healthcheck, HistoryEntry, ImageConfig
from forensics_lib.images.history import Alignment, HistoryStep
from forensics_lib.images.image import Artifact, Image
from forensics_lib.images.layer import Layer
from forensics_lib.images.reference import Reference
from forensics_lib.images.stack import FileVersion, HiddenFile
from forensics_lib.model import ArtifactHash, Check, EvidenceKind, Origin, Problem
from forensics_lib.opening import FileSystem
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
    "Change",
    "ChangeKind",
    "Check",
    "Compression",
    "DamagedData",
    "Evidence",
    "EvidenceChanged",
    "EvidenceKind",
    "Extracted",
    "FileSystem",
    "FileVersion",
    "ForensicsError",
    "Healthcheck",
    "HiddenFile",
    "HistoryEntry",
    "HistoryStep",
    "Hit",
    "Identified",
    "Image",
    "ImageConfig",
    "Layer",
    "LimitExceeded",
    "Limits",
    "Match",
    "MissingExtra",
    "Node",
    "NodeKind",
    "NotAFile",
    "NotFound",
    "Origin",
    "PathNotFound",
    "Problem",
    "Reference",
    "Table",
    "TarEntry",
    "Tree",
    "UnsupportedFormat",
    "VerificationFailed",
    "__version__",
    "open",
    "tar_entries",
]
