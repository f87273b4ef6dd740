"""Docker data roots in a tar archive, made layer by layer, and easily spoiled before they are opened."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.tarmaker import BLOCK, TarMaker

DOCKER = "var/lib/docker"
CREATED = "2024-02-29T12:00:00.5Z"
STARTED = "2024-02-29T12:00:01.000000001Z"
FINISHED = "2024-02-29T13:00:00Z"
SECOND = 10**9
BIRTH = 1_700_000_000
LATER = 1_700_000_100


@dataclass(frozen=True)
class Entry:
    """What a path holds."""

    typeflag: str
    data: bytes = b""
    fields: Mapping[str, Any] = field(default_factory=dict)


Entries = Mapping[str, Entry]


def file(data: bytes = b"", **fields: Any) -> Entry:
    return Entry("0", data, {"mtime": BIRTH} | fields)


def folder(**fields: Any) -> Entry:
    return Entry("5", b"", {"mtime": BIRTH, "mode": 0o755} | fields)


def symlink(target: str) -> Entry:
    return Entry("2", b"", {"mtime": BIRTH, "mode": 0o777, "linkname": target})


def hardlink(target: str) -> Entry:
    return Entry("1", b"", {"mtime": BIRTH, "linkname": target})


GONE = Entry("3", b"", {"mtime": BIRTH, "mode": 0})
"""A whiteout as overlay file systems store it."""


class ImageRoot:
    """One image and one container of it.

    Attributes:
        members: the whole archive by path; to be changed at will.
        layers: the image's layers as archives, base first.
        config: of the image.
        record: of the container.
    """

    def __init__(self, driver: str = "overlay2") -> None:
        self.driver = driver
        self.members: dict[str, Entry] = {}
        self.layers: list[bytes] = []
        self.config: dict[str, Any] = {
            "architecture": "amd64",
            "os": "linux",
            "created": CREATED,
            "config": {"Cmd": ["/bin/sh"], "Env": ["PATH=/bin"]},
            "history": [],
        }
        self.container = hashlib.sha256(b"container").hexdigest()
        self.record: dict[str, Any] = {
            "ID": self.container,
            "Name": "/web",
            "Created": CREATED,
            "State": {"StartedAt": STARTED, "FinishedAt": FINISHED, "ExitCode": 1},
            "Path": "/bin/httpd",
            "Args": ["-p", "80"],
            "Config": {"Cmd": ["-p", "80"], "Entrypoint": ["/bin/httpd"], "Env": ["PATH=/bin", "X=1"], "Image": "web"},
            "Driver": driver,
            "OS": "linux",
            "MountPoints": {},
        }
        self.host_config: dict[str, Any] = {}
        self._merged: dict[str, Entry] = {}
        self._folders: list[str] = []
        self._chain = ""

    # what the daemon would have done

    def layer(self, entries: Entries) -> ImageRoot:
        """Put a layer on the image."""
        number = len(self.layers)
        archive, split = as_layer(entries)
        diff_id = digest_of(archive)
        parent, self._chain = self._chain, digest_of(f"{self._chain} {diff_id}".encode()) if self._chain else diff_id
        record = self.layer_record(self._chain)
        self.put(record, {"diff": diff_id, "cache-id": f"layer{number}", "size": str(size_of(entries))})
        self.members[f"{record}/tar-split.json.gz"] = file(gzip.compress(split, mtime=0))
        if parent:
            self.put(record, {"parent": parent})
        self._store(f"layer{number}", entries)
        self.layers.append(archive)
        self.config["history"].append({"created": CREATED, "created_by": f"step {number}"})
        return self

    def run(self, entries: Entries, *, init: Entries | None = None) -> ImageRoot:
        """Create the container, which then changes something; the image is complete."""
        init = {"etc": folder(), "etc/hosts": file(mtime=LATER), ".dockerenv": file()} if init is None else init
        self._store("own-init", init)
        self._store("own", entries)
        mounts = f"{DOCKER}/image/{self.driver}/layerdb/mounts/{self.container}"
        self.put(mounts, {"mount-id": "own", "init-id": "own-init", "parent": self._chain})
        return self

    def tar(self) -> bytes:
        """The archive, with the documents as they are now."""
        diff_ids = [digest_of(layer) for layer in self.layers]
        config = to_json(self.config | {"rootfs": {"type": "layers", "diff_ids": diff_ids}})
        image = f"{DOCKER}/image/{self.driver}"
        documents = {
            f"{image}/imagedb/content/sha256/{digest_of(config)[7:]}": config,
            f"{image}/repositories.json": to_json({"Repositories": {"web": {"web:1": digest_of(config)}}}),
            f"{DOCKER}/containers/{self.container}/config.v2.json": to_json({"Image": digest_of(config)} | self.record),
            f"{DOCKER}/containers/{self.container}/hostconfig.json": to_json(self.host_config),
        }
        maker = TarMaker("pax")
        for name, entry in (self.members | {name: file(data) for name, data in documents.items()}).items():
            maker.member(name, entry.typeflag, entry.data, **entry.fields)
        return bytes(maker.end())

    def write(self, path: Path) -> Path:
        path.write_bytes(self.tar())
        return path

    # where things are

    def layer_record(self, chain: str) -> str:
        return f"{DOCKER}/image/{self.driver}/layerdb/sha256/{chain[7:]}"

    def record_of(self, number: int) -> str:
        """The folder of a layer's record."""
        chain = ""
        for layer in self.layers[: number + 1]:
            chain = digest_of(f"{chain} {digest_of(layer)}".encode()) if chain else digest_of(layer)
        return self.layer_record(chain)

    def place(self, name: str, path: str = "") -> str:
        """Where the driver keeps a path of a layer (``layer0`` …), ``own-init`` or ``own``."""
        home = f"{DOCKER}/{self.driver}"
        folder = f"{home}/dir/{name}" if self.driver == "vfs" else f"{home}/{name}/diff"
        return f"{folder}/{path}" if path else folder

    def put(self, folder: str, texts: Mapping[str, str]) -> None:
        for name, text in texts.items():
            self.members[f"{folder}/{name}"] = file(text.encode())

    def remove(self, path: str) -> None:
        """Take a path and all below it away."""
        self.members = {k: v for k, v in self.members.items() if k != path and not k.startswith(f"{path}/")}

    def _store(self, name: str, entries: Entries) -> None:
        if self.driver == "vfs":
            merge(self._merged, entries)
            entries = self._merged
        else:
            below = ":".join(f"l/{one.upper()}" for one in reversed(self._folders))
            home = f"{DOCKER}/{self.driver}"
            self.put(f"{home}/{name}", {"link": name.upper()} | ({"lower": below} if below else {}))
            self.members[f"{home}/l/{name.upper()}"] = symlink(f"../{name}/diff")
            self._folders.append(name)
        self.members[self.place(name)] = folder(mtime=LATER)
        for path, entry in entries.items():
            if entry.typeflag == "1":
                entry = hardlink(self.place(name, entry.fields["linkname"]))
            elif entry.typeflag == "5" and name == "own" and self.driver != "vfs":
                entry = folder(**{"xattrs": {"trusted.overlay.origin": b"\0\xfb\x1d"}} | dict(entry.fields))
            self.members[self.place(name, path)] = entry


def merge(merged: dict[str, Entry], entries: Entries) -> None:
    for path, entry in entries.items():
        for old in [old for old in merged if old.startswith(f"{path}/") and entry.typeflag != "5"]:
            del merged[old]
        merged.pop(path, None)
        if entry is not GONE:
            merged[path] = entry


def as_layer(entries: Entries) -> tuple[bytes, bytes]:
    """The archive of a layer and its tar-split record."""
    archive = b""
    lines: list[bytes] = []

    def segment(data: bytes) -> None:
        nonlocal archive
        archive += data
        lines.append(to_json({"type": 2, "payload": base64.b64encode(data).decode(), "position": len(lines)}))

    for path, entry in entries.items():
        parent, _, name = path.rpartition("/")
        name = (f"{parent}/" if parent else "") + (f".wh.{name}" if entry is GONE else name)
        typeflag = "0" if entry is GONE else entry.typeflag
        raw = bytes(TarMaker("pax").member(name, typeflag, **{"size": len(entry.data)} | dict(entry.fields)).raw(b""))
        segment(raw)
        archive += entry.data
        lines.append(to_json({"type": 1, "name": name, "size": len(entry.data), "position": len(lines)}))
        segment(bytes(-len(entry.data) % BLOCK))
    segment(bytes(2 * BLOCK))
    return archive, b"\n".join(lines) + b"\n"


def size_of(entries: Entries) -> int:
    targets = (len(entry.fields["linkname"]) for entry in entries.values() if entry.typeflag == "2")
    return sum(len(entry.data) for entry in entries.values()) + sum(targets)


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def to_json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
