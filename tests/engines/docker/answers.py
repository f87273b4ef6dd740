"""What a daemon answered, captured before its disk was copied, against what the library answers from the copy."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Callable, Collection, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import forensics_lib as fl
from forensics_lib.engines.container import Container
from forensics_lib.engines.network import Network
from forensics_lib.engines.volume import Volume
from forensics_lib.images.image import Image
from forensics_lib.trees.base import Node, NodeKind, join

NOT_ON_DISK = {"ExecIDs", "SizeRw", "SizeRootFs"}
UNORDERED = (".Mounts", ".RepoTags", ".RepoDigests")
Differences = list[str]


def differences(ev: fl.Evidence, truth: Path, skip: Collection[str] = ()) -> tuple[Differences, set[str]]:
    """What differs between the evidence and one capture of its daemon, and the questions that were asked."""
    found: Differences = []
    asked: set[str] = set()

    def compare(question: str, subject: str, want: Any, have: Callable[..., Any], *of: Any) -> None:
        if question in skip:
            return
        asked.add(question)
        try:
            got = have(*of)
        except fl.ForensicsError as error:
            got = repr(error)
        if want == got:
            return
        if isinstance(want, dict) and isinstance(got, dict):
            keys = [key for key in {**want, **got} if want.get(key) != got.get(key)]
            found.extend(f"{question} {subject} {key}: {want.get(key)!r:.200} / {got.get(key)!r:.200}" for key in keys)
        else:
            found.append(f"{question} {subject}: {want!r:.300} / {got!r:.300}")

    _containers(ev, truth, compare)
    _images(ev, truth, compare)
    _volumes_and_networks(ev, truth, compare)
    return found, asked


Compare = Callable[..., None]


def _containers(ev: fl.Evidence, truth: Path, compare: Compare) -> None:
    listed = {row["ID"]: row["State"] for row in rows(truth / "ps.jsonl")}
    compare("ps", "", listed, lambda: {c.id: str(c.state) for c in ev.containers})
    for path in sorted((truth / "containers").glob("*.json")):
        c, want = ev.container(path.stem), document(path)
        compare("inspect", c.name, flat(want), inspected, c)
        if (diff := truth / "diff" / f"{c.id}.jsonl").exists():
            changes = {(row["kind"], path_of(row)) for row in rows(diff)}
            compare("diff", c.name, changes, changed, c)
        logged = want["HostConfig"]["LogConfig"]["Type"] != "none"
        for stream in ("stdout", "stderr"):
            text = truth / "logs" / f"{c.id}.{stream}"
            if logged and text.exists():
                compare("logs", f"{c.name} {stream}", text.read_bytes(), printed, c, stream)
        if (export := truth / "export" / f"{c.id}.jsonl").exists():
            compare("export", c.name, exports(export), contained, c, False)


def _images(ev: fl.Evidence, truth: Path, compare: Compare) -> None:
    paths = sorted((truth / "images").glob("*.json"))
    compare("images", "", {f"sha256:{path.stem}" for path in paths}, lambda: {image.id for image in ev.images})
    for path in paths:
        image, name = ev.image(f"sha256:{path.stem}"), path.stem[:12]
        compare("image-inspect", name, flat(document(path)), inspected, image)
        steps = [
            (row["CreatedBy"], row["CreatedAt"], int(row["Size"]), row["Comment"])
            for row in rows(truth / "history" / path.with_suffix(".jsonl").name)
        ]
        have = [
            (
                step.created_by.replace("\t", " "),
                f"{step.created:%Y-%m-%dT%H:%M:%SZ}" if step.created else "",
                step.size,
                step.comment,
            )
            for step in image.history()
        ]
        compare("history", name, steps, list, have)


def _volumes_and_networks(ev: fl.Evidence, truth: Path, compare: Compare) -> None:
    volumes = {volume.name: volume for volume in ev.volumes}
    for path in sorted((truth / "volumes").glob("*.json")):
        want = document(path)
        volume = volumes[want["Name"]]
        compare("volume-inspect", volume.name, flat(want), inspected, volume)
        files = listing(path.with_suffix(".files.jsonl"), stated)
        compare("volume-files", volume.name, files, contained, volume, True)
    networks = {network.id: network for network in ev.networks}
    for path in sorted((truth / "networks").glob("*.json")):
        network, want = networks[path.stem], document(path)
        want.pop("Status", None)  # computed from the running kernel
        compare("network-inspect", network.name, flat(want), inspected, network)


def rows(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text().splitlines() if path.exists() else ():
        if line.strip():
            yield json.loads(line)


def document(path: Path) -> dict[str, Any]:
    value = json.loads(path.read_text())
    found: dict[str, Any] = value[0] if isinstance(value, list) else value
    return found


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """Values by path; null and empty are the same, and the order of what has none does not count."""
    found: dict[str, Any] = {}
    if isinstance(value, dict):
        for key in value.keys() - NOT_ON_DISK:
            found |= flat(value[key], f"{path}.{key}")
    elif isinstance(value, list):
        items = sorted(value, key=lambda item: json.dumps(item, sort_keys=True)) if path.endswith(UNORDERED) else value
        for index, item in enumerate(items):
            found |= flat(item, f"{path}[{index}]")
    elif value is not None:
        found[path] = value
    return found


def inspected(noun: Container | Image | Volume | Network) -> dict[str, Any]:
    return flat(noun.inspect())


def changed(container: Container) -> set[tuple[str, str]]:
    return {(str(one.kind), one.path) for one in container.diff()}


def printed(container: Container, stream: str) -> bytes:
    """One stream of ``docker logs --timestamps``."""
    out = bytearray()
    for record in container.logs():
        if str(record.stream) == stream:
            seconds, nanoseconds = divmod(record.time_ns, 10**9)
            out += f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{nanoseconds:09d}Z ".encode()
            out += record.line + (b"" if record.partial else b"\n")
    return bytes(out)


def path_of(row: dict[str, Any]) -> str:
    raw = base64.b64decode(row["path_b64"]) if "path_b64" in row else row["path"].encode()
    return join("/", raw.decode("utf-8", "surrogateescape").strip("/")) if raw != b"." else "/"


def listing(path: Path, said: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    return {path_of(row): said(row) for row in rows(path) if path_of(row) != "/"}


def exports(path: Path) -> dict[str, Any]:
    """An export; names of a file that came before have its content."""
    content = {path_of(row): row.get("sha256") for row in rows(path)}

    def said(row: dict[str, Any]) -> Any:
        first = row if row["type"] != "hardlink" else {"sha256": content[join("/", row["link"].strip("/"))]}
        return (
            "file" if row["type"] == "hardlink" else row["type"],
            (row["uid"], row["gid"]),
            None if row["type"] == "symlink" else int(row["mode"], 8) & 0o7777,
            row.get("link") if row["type"] == "symlink" else None,
            None if row["type"] == "dir" else row["mtime"],
            tuple(row.get("dev", (0, 0))),
            first.get("sha256"),
        )

    return listing(path, said)


def stated(row: dict[str, Any]) -> Any:
    return (
        row["type"],
        (row["uid"], row["gid"]),
        None if row["type"] == "symlink" else int(row["mode"], 8) & 0o7777,
        row.get("target"),
        None if row["type"] == "dir" else row["mtime_ns"],
        row.get("sha256"),
    )


def contained(noun: Container | Volume, exact: bool) -> dict[str, Any]:
    """Its files, in the words of `stated` (exact) or `exports`."""
    return {node.path: _shown(node, exact=exact) for node in noun.tree().walk() if node.path != "/"}


def _shown(node: Node, *, exact: bool) -> Any:
    time = None if node.kind is NodeKind.DIR else (node.mtime_ns or 0) // (1 if exact else 10**9)
    mode = None if node.kind is NodeKind.SYMLINK else node.mode
    content = hashlib.sha256(node.read()).hexdigest() if node.kind is NodeKind.FILE else None
    facts = (str(node.kind), (node.uid, node.gid), mode, node.target, time)
    return (*facts, content) if exact else (*facts, (os.major(node.rdev), os.minor(node.rdev)), content)
