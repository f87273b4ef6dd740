"""Small disks and data roots for the tests of the recovery."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from forensics_lib.custody import Custody
from forensics_lib.engines.docker.engine import DockerRoot
from forensics_lib.engines.docker.root import find_roots
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.recovery.remnant import Confidence, Remnant
from forensics_lib.sources.base import BytesSource
from forensics_lib.sources.decompress import Limits
from forensics_lib.trees.directory import DirectoryTree
from forensics_lib.trees.documents import DocumentReader
from forensics_lib.trees.outlet import Outlet
from tests.engines.docker.dataroot import write

BLOCK = 1024
NEVER = "0001-01-01T00:00:00Z"
ORIGIN = Origin("disk")


def at(second: float) -> str:
    """A time of the day on which everything happens."""
    return f"2026-11-21T16:00:{second:012.9f}Z"


def nanoseconds(second: float) -> int:
    return 1795276800 * 10**9 + round(second * 10**9)


def config(container_id: str, name: str, created: float, **state: Any) -> dict[str, Any]:
    """A container's record."""
    known = {"Running": False, "RemovalInProgress": False, "Dead": False, "Pid": 0, "ExitCode": 0}
    return {
        "StreamConfig": {},
        "State": {**known, "StartedAt": NEVER, "FinishedAt": NEVER, **state},
        "ID": container_id,
        "Created": at(created),
        "Path": "sh",
        "Args": ["-c", name],
        "Config": {"Hostname": container_id[:12], "Image": "acme/web:1", "Env": ["A=1"]},
        "Image": f"sha256:{'1' * 64}",
        "NetworkSettings": {"Networks": {"bridge": {"IPAddress": ""}}},
        "Name": f"/{name}",
        "Driver": "overlay2",
        "HostnamePath": f"/var/lib/docker/containers/{container_id}/hostname",
        "MountPoints": {},
    }


def host_config(**changes: Any) -> dict[str, Any]:
    known = {"Binds": None, "LogConfig": {"Type": "json-file", "Config": {}}, "NetworkMode": "default"}
    return {**known, "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0}, **changes}


def encoded(document: Any) -> bytes:
    """As Go's encoder writes it."""
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"


def line(text: str, second: float, stream: str = "stdout") -> bytes:
    """A record of the driver json-file."""
    return encoded({"log": text, "stream": stream, "time": at(second)})


def disk(*files: bytes) -> bytes:
    """Files one after the other, each from the start of a block and filled up with zeros."""
    return b"".join(file + bytes(-len(file) % BLOCK) for file in files)


def remnant(content: bytes | None, path: str = "", kind: str = "file", **changes: Any) -> Remnant:
    """A remnant as an undelete gives it."""
    known: dict[str, Any] = {
        "kind": kind,
        "path": path,
        "container_id": "",
        "image_id": "",
        "method": "test",
        "confidence": Confidence.INTACT if content is not None else Confidence.METADATA_ONLY,
        "complete": content is not None,
        "size": None if content is None else len(content),
        "origin": ORIGIN.to(path or kind),
        "content": None if content is None else BytesSource(content, ORIGIN.to(path or kind)),
    }
    return Remnant(**{**known, **changes})


def data_root(folder: Path, files: Mapping[str, bytes | str | None]) -> DockerRoot:
    """A data root of files, opened."""
    write(folder, files)
    problems = ProblemLog()
    reader = DocumentReader(DirectoryTree(folder, problems), problems)
    outlet = Outlet(folder, None, Custody(), problems)
    return DockerRoot(reader, find_roots(reader)[0], Limits(), outlet)
