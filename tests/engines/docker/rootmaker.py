"""Makes whole Docker data roots, sound ones and spoiled ones, for tests of what reads them.

    root = RootMaker("overlay2")
    image = root.image(root.layer({"/etc/passwd": b"root"}), tags=["acme/web:1"])
    web = root.container("web", image, {"/etc/passwd": whiteout()})
    with root.opened(tmp_path) as ev: ...

Everything lies in `entries` by absolute path and is easily spoiled before it is written: ``root.entries[path] = b"{"``.
"""

from __future__ import annotations

import base64
import gzip
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import forensics_lib as fl
from forensics_lib.custody import Custody
from forensics_lib.engines.docker.engine import DockerRoot
from forensics_lib.engines.docker.root import find_roots
from forensics_lib.model import ProblemLog
from forensics_lib.sources.decompress import Limits
from forensics_lib.trees.base import NodeKind, join, parent_of
from forensics_lib.trees.documents import DocumentReader
from forensics_lib.trees.index import IndexTree
from forensics_lib.trees.outlet import Outlet
from tests.engines.docker.dataroot import bolt, chain, document, hexid
from tests.imagemaker import digest_of
from tests.tarmaker import Fields, TarMaker
from tests.trees.layers import Entry, file, folder, link, tree

Made = Entry | bytes
Json = dict[str, Any]

SECONDS = 1_700_000_000
CREATED = "2023-11-14T22:13:20.123456789Z"
NEVER = "0001-01-01T00:00:00Z"
INIT: Mapping[str, Made] = {"/.dockerenv": b"", "/etc/hostname": b"", "/etc/hosts": b""}
STATE: Json = {
    "Running": False, "Paused": False, "Restarting": False, "OOMKilled": False, "RemovalInProgress": False,
    "Dead": False, "Pid": 0, "ExitCode": 0, "Error": "", "StartedAt": NEVER, "FinishedAt": NEVER,
}  # fmt: skip
RUN: Json = {"StartedAt": "2023-11-14T22:13:21.5Z", "FinishedAt": "2023-11-14T22:13:22Z", "ExitCode": 3}
_OVERLAYS = ("overlay2", "fuse-overlayfs")


@dataclass(frozen=True)
class Layer:
    """A layer that was put into the root, with all below it.

    Attributes:
        files: what it holds, in the driver's terms.
        archive: the archive it came in.
        cache_id: name of its directory.
        below: the layer under it.
    """

    files: Mapping[str, Made]
    archive: bytes
    cache_id: str
    below: Layer | None = None

    @property
    def diff_id(self) -> str:
        return digest_of(self.archive)

    @property
    def stack(self) -> list[Layer]:
        """This layer and all below, topmost first."""
        return [self, *(self.below.stack if self.below else [])]

    @property
    def diff_ids(self) -> list[str]:
        return [one.diff_id for one in reversed(self.stack)]

    @property
    def chain_id(self) -> str:
        return chain(*self.diff_ids)


class RootMaker:
    """A data root that grows with every call.

    Attributes:
        entries: all of it, by path.
        at: the data root's folder.
        real: path of the data root on the host it seems to come from.
    """

    def __init__(self, driver: str = "overlay2", at: str = "/docker", real: str = "/var/lib/docker") -> None:
        self.driver = driver
        self.at, self.real = at, real
        self.entries: dict[str, Made] = {}
        for name in ("containers", "image", "volumes", "network", driver):
            self.put(name, folder())
        self.repositories: dict[str, dict[str, str]] = {}
        self._layers: dict[str, Layer] = {}

    def path(self, name: str) -> str:
        return f"{self.at}/{name}" if self.at != "/" else f"/{name}"

    def put(self, name: str, made: Made | str) -> None:
        """Something at a path below the root; text stands for a text file."""
        self.entries[self.path(name)] = made.encode() if isinstance(made, str) else made

    def put_json(self, name: str, value: Any) -> None:
        self.put(name, document(value))

    def put_bolt(self, name: str, bucket: str, records: Mapping[str, bytes]) -> None:
        self.put(name, bolt({bucket: dict(records)}))

    # layers and images

    def layer(self, files: Mapping[str, Made], below: Layer | None = None, *, split: bool = True) -> Layer:
        """An image layer: its directory and its record."""
        archive = tar_of(changeset(files))
        made = Layer(files, archive, hexid(f"{self.driver} {len(self._layers)} {digest_of(archive)}"), below)
        self._layers[made.chain_id] = made
        self._directory(made.cache_id, files, [one.cache_id for one in made.stack[1:]], below)
        record = f"image/{self.driver}/layerdb/sha256/{made.chain_id[7:]}"
        self.put(f"{record}/diff", made.diff_id)
        self.put(f"{record}/cache-id", made.cache_id)
        self.put(f"{record}/size", str(size_of(files, links=self.driver in (*_OVERLAYS, "aufs"))))
        if below:
            self.put(f"{record}/parent", below.chain_id)
        if split:
            self.put(f"{record}/tar-split.json.gz", tar_split(archive))
        return made

    def image(self, top: Layer | None, *, tags: Iterable[str] = (), digests: Iterable[str] = (), **config: Any) -> str:
        """An image of all layers down from `top`; its id."""
        diff_ids = top.diff_ids if top else []
        steps = [{"created": CREATED, "created_by": f"step {number}"} for number, _ in enumerate(diff_ids)]
        made: Json = {
            "architecture": "amd64", "os": "linux", "created": CREATED, "config": {"Cmd": ["sh"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids}, "history": steps,
        }  # fmt: skip
        raw = document(made | config)
        image_id = digest_of(raw)
        self.put(f"image/{self.driver}/imagedb/content/sha256/{image_id[7:]}", raw)
        for name in (*tags, *digests):
            repository = name.partition("@")[0].rpartition(":")[0] if "@" not in name else name.partition("@")[0]
            self.repositories.setdefault(repository, {})[name] = image_id
        self.put_json(f"image/{self.driver}/repositories.json", {"Repositories": self.repositories})
        return image_id

    # containers

    def container(
        self,
        name: str,
        top: Layer | None = None,
        upper: Mapping[str, Made] | None = None,
        *,
        state: Mapping[str, object] = RUN,
        host: Mapping[str, object] | None = None,
        **config: Any,
    ) -> str:
        """A container on a layer: its records, its init directory and its own; its id."""
        container_id, mount_id = hexid(f"container {name}"), hexid(f"mount {name}")
        self.put_json(f"containers/{container_id}/config.v2.json", self.record(name, state, config))
        settings = {"LogConfig": {"Type": "json-file", "Config": {}}, "NetworkMode": "default"} | dict(host or {})
        self.put_json(f"containers/{container_id}/hostconfig.json", settings)
        if top is None:
            return container_id
        lower = [one.cache_id for one in top.stack]
        init = f"{mount_id}-init"
        self._directory(init, INIT, lower, top, image=False)
        self._directory(mount_id, upper or {}, [init, *lower], Layer(INIT, b"", init, top), image=False)
        record = f"image/{self.driver}/layerdb/mounts/{container_id}"
        self.put(f"{record}/mount-id", mount_id)
        self.put(f"{record}/init-id", init)
        self.put(f"{record}/parent", top.chain_id)
        return container_id

    def record(self, name: str, state: Mapping[str, object], config: Json) -> Json:
        """A container's ``config.v2.json`` as Docker 20.10 writes it."""
        container_id = hexid(f"container {name}")
        folder = f"{self.real}/containers/{container_id}"
        made: Json = {
            "StreamConfig": {}, "State": STATE | dict(state), "ID": container_id, "Created": CREATED, "Path": "sh",
            "Args": [], "Config": {"Hostname": container_id[:12], "Image": "acme/web:1", "Env": ["PATH=/bin"]},
            "Image": hexid("image"), "NetworkSettings": {"SandboxID": "", "Networks": {}, "Ports": None},
            "LogPath": f"{folder}/{container_id}-json.log", "Name": f"/{name}", "Driver": self.driver, "OS": "linux",
            "RestartCount": 0, "MountPoints": {}, "HostnamePath": f"{folder}/hostname", "MountLabel": "",
            "LocalLogCacheMeta": {"HaveNotifyEnabled": False},
        }  # fmt: skip
        return {key: value for key, value in (made | config).items() if value is not None}

    def edit(self, container_id: str, **changes: Any) -> None:
        """Change keys of a container's record; None takes one away."""
        name = f"containers/{container_id}/config.v2.json"
        raw = self.entries[self.path(name)]
        assert isinstance(raw, bytes)
        self.put_json(name, {key: value for key, value in (json.loads(raw) | changes).items() if value is not None})

    def mount_dir(self, name: str) -> str:
        """The directory of a container's own layer."""
        folder = {"vfs": "vfs/dir", "btrfs": "btrfs/subvolumes", "aufs": "aufs/diff"}.get(self.driver, self.driver)
        return self.path(f"{folder}/{hexid(f'mount {name}')}")

    def layer_dir(self, layer: Layer) -> str:
        """The directory that holds the files of an image layer."""
        folder = {"vfs": "vfs/dir", "btrfs": "btrfs/subvolumes", "aufs": "aufs/diff"}.get(self.driver, self.driver)
        inner = {"overlay": "/root"}.get(self.driver, "/diff" if self.driver in _OVERLAYS else "")
        return self.path(f"{folder}/{layer.cache_id}{inner}")

    # storage drivers

    def _directory(
        self, name: str, files: Mapping[str, Made], lower: list[str], below: Layer | None, *, image: bool = True
    ) -> None:
        home = self.driver
        if home in _OVERLAYS:
            self._fill(f"{home}/{name}/diff", files if image else copied_up(files, merged({}, below)))
            self.put(f"{home}/{name}/link", short(name))
            self.put(f"{home}/l/{short(name)}", link(f"../{name}/diff"))
            if lower:
                self.put(f"{home}/{name}/lower", ":".join(f"l/{short(one)}" for one in lower))
                self.put(f"{home}/{name}/work", folder())
        elif home == "overlay":
            if image:
                self._fill(f"{home}/{name}/root", merged(files, below))
            else:
                own = files if below is None or below.archive else {**below.files, **files}
                self._fill(f"{home}/{name}/upper", own)
                self.put(f"{home}/{name}/lower-id", lower[-len(below.stack)] if below and below.archive else lower[1])
        elif home == "aufs":
            self._fill(f"{home}/diff/{name}", files)
            self.put(f"{home}/layers/{name}", "\n".join(lower))
        elif home in ("vfs", "btrfs"):
            self._fill(f"{home}/{'dir' if home == 'vfs' else 'subvolumes'}/{name}", merged(files, below))

    def _fill(self, place: str, files: Mapping[str, Made]) -> None:
        self.put(place, folder())
        for path, made in files.items():
            self.put(f"{place}{path}", made)

    # what is made of it

    def tree(self) -> IndexTree:
        return tree("host", dict(sorted(self.entries.items())))

    def tar(self) -> bytes:
        return tar_of(self.entries)

    def write(self, place: Path) -> Path:
        """A folder; devices are left out."""
        for node in self.tree().walk():
            path = place / node.path.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            if node.kind is NodeKind.DIR:
                path.mkdir(exist_ok=True)
            elif node.kind is NodeKind.FILE:
                path.write_bytes(node.read())
            elif node.kind is NodeKind.SYMLINK:
                path.symlink_to(node.target or "")
            elif node.kind is NodeKind.FIFO:
                os.mkfifo(path)
        return place

    def opened(self, place: Path, *, strict: bool = False) -> fl.Evidence:
        """Evidence, by way of a tar archive."""
        archive = place / "root.tar"
        archive.write_bytes(self.tar())
        return fl.open(archive, strict=strict)


def docker_root(tree: IndexTree, problems: ProblemLog | None = None) -> DockerRoot:
    """The engine over a tree in memory."""
    log = problems or ProblemLog()
    reader = DocumentReader(tree, log)
    return DockerRoot(reader, find_roots(reader)[0], Limits(), Outlet(Path("host.tar"), None, Custody(), log))


def short(name: str) -> str:
    """The short name of a directory in ``l/``: 26 capitals."""
    return base64.b32encode(hexid(name).encode())[:26].decode()


def merged(files: Mapping[str, Made], below: Layer | None) -> dict[str, Made]:
    """What a driver that copies whole layers stores."""
    found: dict[str, Made] = {}
    for layer in [*reversed(below.stack if below else []), Layer(files, b"", "")]:
        for path, made in layer.files.items():
            if isinstance(made, Entry) and made.kind is NodeKind.CHAR and not made.rdev:
                found = {one: it for one, it in found.items() if one != path and not one.startswith(f"{path}/")}
            else:
                found[path] = made
    return found


def size_of(files: Mapping[str, Made], *, links: bool) -> int:
    """Bytes of files; drivers that look into the directory count the text of symbolic links, too."""
    nodes = [file(made) if isinstance(made, bytes) else made for made in files.values()]
    return sum(node.size for node in nodes) + sum(len(node.target or "") for node in nodes if links)


def changeset(files: Mapping[str, Made]) -> dict[str, Made]:
    """A layer's files as its archive has them: deletions by name."""
    found: dict[str, Made] = {}
    for path, made in files.items():
        if isinstance(made, Entry) and made.kind is NodeKind.CHAR and not made.rdev:
            found[join(parent_of(path), f".wh.{path.rpartition('/')[2]}")] = b""
            continue
        if isinstance(made, Entry) and "trusted.overlay.opaque" in made.xattrs:
            found[f"{path}/.wh..wh..opq"] = b""
            made = replace(made, xattrs={})
        found[path] = made
    return found


def copied_up(files: Mapping[str, Made], lower: Mapping[str, Made]) -> dict[str, Made]:
    """What the kernel stores: directories that were there before get an attribute that says so."""
    before = {parent for path in lower for parent in parents(path)}
    marked = {
        path: folder({"trusted.overlay.origin": b"\0\xfb"}) for one in files for path in parents(one) if path in before
    }
    return {**marked, **files}


def parents(path: str) -> list[str]:
    """The directories above a path, the root left out, topmost first."""
    found = []
    while (path := parent_of(path)) != "/":
        found.append(path)
    return found[::-1]


def tar_of(entries: Mapping[str, Made]) -> bytes:
    """An archive of files; whiteouts are devices 0:0, as in a copy of an overlay directory."""
    archive = TarMaker("pax", mtime=SECONDS)
    named = set()
    for path in sorted(entries):
        for parent in parents(path):
            if parent not in named and parent not in entries:
                archive.dir(parent[1:])
                named.add(parent)
    for path, made in sorted(entries.items()):
        node = file(made) if isinstance(made, bytes) else made
        fields = Fields(mode=node.mode, uid=node.uid, gid=node.gid, mtime=(node.mtime_ns or 0) // 10**9)
        name, xattrs = path[1:], dict(node.xattrs)
        match node.kind:
            case NodeKind.DIR:
                archive.member(f"{name}/", "5", xattrs=xattrs, **fields)
            case NodeKind.FILE:
                archive.file(name, node.read(), xattrs=xattrs, **fields)
            case NodeKind.SYMLINK:
                archive.symlink(name, node.target or "", **fields)
            case NodeKind.FIFO:
                archive.fifo(name, **fields)
            case kind:
                fields |= Fields(major=os.major(node.rdev), minor=os.minor(node.rdev))
                archive.member(name, "3" if kind is NodeKind.CHAR else "4", xattrs=xattrs, **fields)
    return archive.end()


def tar_split(archive: bytes) -> bytes:
    """The tar-split record of an archive."""
    lines: list[Json] = []
    pending, offset = b"", 0

    def segment() -> None:
        lines.append({"type": 2, "payload": base64.b64encode(pending).decode(), "position": len(lines)})

    while archive[offset : offset + 512].strip(b"\0"):
        block = archive[offset : offset + 512]
        size, padded = int(block[124:135], 8), 0
        pending += block
        offset += 512
        padded = -(-size // 512) * 512
        if block[156:157] == b"0":
            segment()
            content = archive[offset : offset + size]
            name = (block[345:500].rstrip(b"\0") + b"/" if block[345:346].strip(b"\0") else b"") + block[:100]
            crc = base64.b64encode(crc64(content).to_bytes(8, "big")).decode() if size else None
            entry: Json = {"type": 1, "name": name.rstrip(b"\0").decode(), "payload": crc, "position": len(lines)}
            lines.append(entry | ({"size": size} if size else {}))
            pending = archive[offset + size : offset + padded]
        else:
            pending += archive[offset : offset + padded]
        offset += padded
    pending += archive[offset:]
    segment()
    return gzip.compress(b"".join(document(line) + b"\n" for line in lines), mtime=0)


def crc64(data: bytes) -> int:
    """CRC-64 of ISO 3309, bit by bit."""
    crc = (1 << 64) - 1
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xD8 << 56 if crc & 1 else 0)
    return crc ^ (1 << 64) - 1


def owned(entry: Made, uid: int, gid: int) -> Entry:
    """The same file or folder with another owner."""
    return replace(file(entry) if isinstance(entry, bytes) else entry, uid=uid, gid=gid)
