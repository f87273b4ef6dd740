"""Ordinary user code; it has to pass the type checkers, it is not run."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import forensics_lib as fl


def report(path: Path) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    with fl.open(path, strict=False, limits=fl.Limits(total=1 << 34)) as ev:
        kind: fl.EvidenceKind = ev.kind
        found["kind"] = kind.value
        for image in ev.images:
            image_id: str = image.id
            tags: tuple[str, ...] = image.tags
            created: datetime | None = image.created
            config: fl.ImageConfig = image.config
            layers: tuple[fl.Layer, ...] = image.layers
            for step in image.history():
                size: int | None = step.size
                found[step.created_by] = str(size)
            for layer in layers:
                for change in layer.changes().where(kind="D"):
                    previous: fl.Node | None = change.previous
                    found[change.path] = previous.path if previous else None
            for version in image.versions("/etc/passwd"):
                data: bytes = version.read()
                found[image_id] = f"{len(data)} {version.sha256} {tags} {created} {config.env}"
            tree: fl.Tree = image.tree()
            for node in tree.walk("/etc"):
                found[node.path] = str(node.mtime_ns)
        hashes: fl.Table[fl.ArtifactHash] = ev.hashes(algorithms=("md5", "sha512"), kinds={"file"})
        first: fl.ArtifactHash | None = hashes.first()
        found["first"] = first.digest("sha512") if first else None
        failed: fl.Table[fl.Check] = ev.verify().where(ok=False)
        found["failed"] = str(len(failed))
        for fact in ev.host.where(kind="registry login"):
            found[fact.name] = fact.value
        for command in ev.commands:
            typed: datetime | None = command.time
            found[command.masked] = str(typed)
        for line in ev.daemon_log.where(level="error"):
            found[line.container_id] = line.message
        for event in ev.audit:
            arguments: tuple[str, ...] = event.arguments
            found[event.command] = str((arguments, event.success, event.time_ns))
        for entry in ev.journal(_SYSTEMD_UNIT="docker.service"):
            message: bytes | None = entry.get("MESSAGE")
            found[entry.text("PRIORITY")] = str(message)
        for problem in ev.problems:
            origin: fl.Origin = problem.origin
            found[str(origin)] = problem.message
    return found


def raw(path: Path) -> list[int]:
    return [entry.header_offset for entry in fl.tar_entries(path) if entry.anomalies]
