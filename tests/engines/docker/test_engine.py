"""A whole data root in every form of acquisition, sound and spoiled: each fault is a problem, the rest is answered."""

from __future__ import annotations

import gzip
import json
import lzma
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import forensics_lib as fl
from forensics_lib.engines.container import Container
from forensics_lib.engines.volume import Volume
from forensics_lib.errors import AmbiguousName, DamagedData, NotFound
from forensics_lib.images.image import Image
from forensics_lib.model import ProblemLog
from forensics_lib.trees.base import NodeKind
from forensics_lib.trees.documents import DocumentReader
from tests.engines.docker.dataroot import bolt, document, hexid
from tests.engines.docker.rootmaker import CREATED, Made, RootMaker, docker_root
from tests.trees.layers import device, entry, folder, link, tree

WEB, DB, APP = (hexid(f"container {name}") for name in ("web", "db", "app"))
NETWORK = hexid("appnet")


def host(at: str = "/docker") -> RootMaker:
    """Three containers, two images, a network and a volume, of Docker 20.10."""
    root = RootMaker(at=at)
    base = root.layer({"/etc/passwd": b"root", "/bin/sh": b"elf"})
    top = root.layer({"/srv/a": b"1"}, base)
    image_id = root.image(top, tags=["acme/web:1"])
    root.image(base, tags=["acme/base:1"])
    point = {"Type": "volume", "Name": "data", "Driver": "local", "Destination": "/data", "RW": True}
    root.container("web", top, {"/new": b"1"}, Image=image_id, MountPoints={"/data": point})
    root.container("db", base, {"/etc/passwd": b"changed"}, Created="2024-01-01T00:00:00Z")
    root.container("app", host={"Links": ["/db:/app/database"]}, state={})
    for one in (WEB, DB):
        record = {"log": "hello\n", "stream": "stdout", "time": CREATED}
        root.put(f"containers/{one}/{one}-json.log", document(record) + b"\n")
    root.put("volumes/data/_data/file", b"in the volume")
    root.put("volumes/metadata.db", bolt({"volumes": {"data": document({"Name": "data", "Driver": "local"})}}))
    network = document({"id": NETWORK, "name": "appnet", "networkType": "bridge", "created": CREATED})
    key = f"docker/network/v1.0/network/{NETWORK}/"
    root.put("network/files/local-kv.db", bolt({"libnetwork": {key: bytes(8) + network}}))
    return root


def answers(ev: fl.Evidence) -> dict[str, Any]:
    """All that was asked in the order of the questions; an error is an answer, too."""
    found: dict[str, Any] = {}

    def ask(question: str, call: Callable[..., Any], *of: Any) -> None:
        try:
            found[question] = call(*of)
        except fl.ForensicsError as error:
            found[question] = type(error).__name__

    for c in ev.containers:
        name = c.name or c.id
        found[f"{name} state"] = (str(c.state), c.command, c.exit_code)
        ask(f"{name} inspect", c.inspect)
        ask(f"{name} diff", _changes, c)
        ask(f"{name} logs", _log, c)
        ask(f"{name} files", _files, c)
    for image in ev.images:
        found[f"{image.tags} history"] = [step.created_by for step in image.history()]
        ask(f"{image.tags} files", _files, image)
    for volume in ev.volumes:
        ask(f"{volume.name} volume", _files, volume)
    for network in ev.networks:
        ask(f"{network.name} network", network.inspect)
    return found


def _changes(container: Container) -> list[tuple[str, str]]:
    return [(str(one.kind), one.path) for one in container.diff()]


def _log(container: Container) -> list[bytes]:
    return [one.line for one in container.logs()]


def _files(noun: Container | Image | Volume) -> dict[str, bytes]:
    return {node.path: node.read() if node.kind is NodeKind.FILE else b"" for node in noun.tree().walk()}


def sound(place: Path) -> dict[str, Any]:
    place.mkdir()
    with host().opened(place, strict=True) as ev:
        return answers(ev)


def spoiled(root: RootMaker, place: Path) -> tuple[dict[str, Any], list[str]]:
    """The answers that differ from those of the sound root, and the problems."""
    with root.opened(place) as ev:
        before, after = sound(place / "sound"), answers(ev)
        keys = {**before, **after}
        changed = {key: after.get(key) for key in keys if before.get(key) != after.get(key)}
        return changed, [f"{row.origin}: {row.message}" for row in ev.problems]


def test_all_questions(tmp_path: Path) -> None:
    with host().opened(tmp_path, strict=True) as ev:
        assert ev.kind is fl.EvidenceKind.DOCKER_ROOT
        assert sorted(c.name for c in ev.containers) == ["app", "db", "web"]
        assert ev.containers[0].name == "db"  # the newest
        assert ev.container("web").id == ev.container("/web").id == ev.container(WEB[:12]).id == WEB
        assert ev.container("app/database").id == DB
        assert {tag for image in ev.images for tag in image.tags} == {"acme/web:1", "acme/base:1"}
        assert [(volume.name, volume.tree().read("/file")) for volume in ev.volumes] == [("data", b"in the volume")]
        assert [(network.name, network.id) for network in ev.networks] == [("appnet", NETWORK)]
        assert ev.container("web").mount("/data").read("/file") == b"in the volume"
        assert [(str(one.kind), one.path) for one in ev.container("web").diff()] == [("A", "/new")]
        assert [one.line for one in ev.container("web").logs()] == [b"hello"]
        with pytest.raises(NotFound, match="web"):
            ev.container("nobody")
        with pytest.raises(NotFound):
            ev.container("")
        assert list(ev.problems) == []


def test_a_prefix_that_fits_several(tmp_path: Path) -> None:
    root = RootMaker()
    names = [f"c{number}" for number in range(17)]  # two of them start with the same digit
    for name in names:
        root.container(name)
    starts = [hexid(f"container {name}")[0] for name in names]
    double = next(start for start in starts if starts.count(start) > 1)
    with root.opened(tmp_path) as ev, pytest.raises(AmbiguousName) as caught:
        ev.container(double)
    assert len(caught.value.candidates) == starts.count(double)


@pytest.mark.parametrize("name", ["root.tar.gz", "root.tar.xz", "root.tar.zst"])
def test_a_compressed_tar(name: str, tmp_path: Path) -> None:
    data = host().tar()
    if name.endswith("zst"):
        zstd = pytest.importorskip("backports.zstd")
        packed = zstd.compress(data)
    else:
        packed = gzip.compress(data) if name.endswith("gz") else lzma.compress(data)
    (tmp_path / name).write_bytes(packed)
    with fl.open(tmp_path / name, strict=True) as ev:
        assert answers(ev) == sound(tmp_path / "sound")


def test_a_folder(tmp_path: Path) -> None:
    with fl.open(host().write(tmp_path / "host")) as ev:
        found, expected = answers(ev), sound(tmp_path / "sound")
        assert {key for key in expected if found[key] != expected[key]} == set()


@pytest.mark.parametrize("at", ["/", "/var/lib/docker", "/cases/7/mnt/var/lib/docker"])
def test_the_copy_starts_anywhere(at: str, tmp_path: Path) -> None:
    with host(at).opened(tmp_path, strict=True) as ev:
        assert answers(ev) == sound(tmp_path / "sound")


def test_several_drivers_over_time(tmp_path: Path) -> None:
    """A host that went from aufs to vfs to overlay2: all are listed, the files of each are read by its own driver."""
    entries: dict[str, Made] = {}
    for name in ("aufs", "vfs", "overlay2"):
        root = RootMaker(name)
        base = root.layer({"/bin/sh": b"elf", f"/{name}/a": b"1"})
        again = root.layer({"/same": b"in all of them"})
        root.image(again, tags=["acme/same:1"])
        root.container(f"on-{name}", base, {"/new": name.encode()}, Image=root.image(base, tags=[f"acme/{name}:1"]))
        entries |= root.entries
    root.entries = entries
    with root.opened(tmp_path, strict=True) as ev:
        assert {c.name for c in ev.containers} == {"on-aufs", "on-vfs", "on-overlay2"}
        for c in ev.containers:
            driver = c.name.removeprefix("on-")
            assert (c.storage_driver, c.tree().read("/new")) == (driver, driver.encode())
            assert c.tree().read(f"/{driver}/a") == b"1"
            assert _changes(c) == [("A", "/new")]
            assert c.inspect()["GraphDriver"]["Name"] == driver  # type: ignore[index]
            assert ev.image(f"acme/{driver}:1").id == c.image_id
            assert ev.image(f"acme/{driver}:1").tree().read("/bin/sh") == b"elf"
            assert [str(owner.kind) for owner in ev.owner(c.id)] == ["container"]
        assert len(ev.images) == 4, "an image that several drivers have is one"
        assert all(check.ok for check in ev.verify())
        assert list(ev.remnants()) == []


def test_a_data_root_on_a_file_system_of_its_own() -> None:
    root = host("/")
    points = {"/conf": {"Type": "bind", "Source": "/srv/conf", "Destination": "/conf"}}
    root.edit(DB, MountPoints=points)
    docker = docker_root(root.tree())
    (db,) = [c for c in docker.containers if c.name == "db"]
    with pytest.raises(NotFound, match="/srv/conf of the host is not in the evidence"):
        db.mount("/conf")
    other = tree("disk 2", {"/srv/conf/a": b"another host's"})
    system = tree("disk 1", {"/srv/conf/a": b"1", "/var/lib/docker": folder()})
    docker.hosts = [DocumentReader(one, ProblemLog()) for one in (docker.reader.tree, other, system)]
    assert db.mount("/conf").read("/a") == b"1"


def test_several_hosts_in_one_folder(tmp_path: Path) -> None:
    root, other = host("/one/docker"), RootMaker(at="/two/docker")
    other.container("elsewhere")
    root.entries |= other.entries
    with root.opened(tmp_path) as ev:
        assert {c.name for c in ev.containers} == {"web", "db", "app", "elsewhere"}


@pytest.mark.parametrize("starts", ["above it", "at it"])
@pytest.mark.parametrize(
    ("part", "counts", "missing"),
    [
        ("containers", (3, 0, 0, 0), ["image", "volumes", "network", "overlay2"]),
        ("containers/" + WEB, (1, 0, 0, 0), ["image", "volumes", "network", "overlay2"]),
        ("image", (0, 2, 0, 0), ["containers", "volumes", "network", "overlay2"]),
        ("volumes", (0, 0, 1, 0), ["containers", "image", "network"]),
        ("network", (0, 0, 0, 1), ["containers", "image", "volumes"]),
        ("overlay2", (0, 0, 0, 0), ["containers", "image", "volumes", "network"]),
    ],
)
def test_a_copy_of_a_part(part: str, counts: tuple[int, ...], missing: list[str], starts: str, tmp_path: Path) -> None:
    root, whole = host(), f"/docker/{part}/"
    above = part.rpartition("/")[0] if starts == "above it" else part
    below = f"/docker/{above}".rstrip("/")
    root.entries = {path[len(below) :]: made for path, made in root.entries.items() if path.startswith(whole)}
    if starts == "above it" and "/" not in part:
        root.entries = {path: made for path, made in root.entries.items() if path.startswith(f"/{part}/")}
    with root.opened(tmp_path) as ev:
        assert ev.kind is fl.EvidenceKind.DOCKER_ROOT
        assert tuple(map(len, (ev.containers, ev.images, ev.volumes, ev.networks))) == counts
        (message,) = [row.message for row in ev.problems if "not all of the Docker data root" in row.message]
        assert [name.partition(" ")[0] for name in re.split(r", (?!and)", message.partition("missing: ")[2])] == missing
        expected = sound(tmp_path / "sound")
        for c in ev.containers:
            assert c.inspect()["State"] == expected[f"{c.name} inspect"]["State"]
            assert _log(c) == expected[f"{c.name} logs"]
            with pytest.raises(DamagedData, match="its writable layer is not recorded"):
                c.tree()
        for image in ev.images:
            assert [step.created_by for step in image.history()] == expected[f"{image.tags} history"]
            assert all(step.size is not None for step in image.history())
            with pytest.raises(fl.ForensicsError, match="is not in the evidence"):
                image.tree()
        for volume in ev.volumes:
            assert _files(volume) == expected[f"{volume.name} volume"]
        for network in ev.networks:
            assert network.inspect() == expected[f"{network.name} network"]
        assert (len(ev.remnants()) > 0) == (part in ("overlay2", "image"))


def test_containers_without_records_have_logs_and_files(tmp_path: Path) -> None:
    root = host()
    root.put(f"containers/{WEB}/config.v2.json", b"{")
    root.put(f"containers/{WEB}/hostconfig.json", b"\xff")
    changed, problems = spoiled(root, tmp_path)
    assert {key.split()[0] for key in changed} == {"web", WEB}
    expected = sound(tmp_path / "again")
    for question in ("logs", "diff", "files"):
        assert changed[f"{WEB} {question}"] == expected[f"web {question}"]
    assert changed[f"{WEB} state"] == ("unknown", (), None)
    assert changed[f"{WEB} inspect"]["State"]["Status"] == "unknown"
    assert any("neither config.v2.json nor hostconfig.json can be read" in problem for problem in problems)


FIFO = entry(NodeKind.FIFO, 0o600, None)


@pytest.mark.parametrize(
    "made",
    [b"{", b"\xff\xfe", b"[]", FIFO, link("/etc/passwd"), device(1, 3)],
    ids=["cut", "no text", "list", "fifo", "link", "device"],
)
def test_one_config_that_cannot_be_read(made: Any, tmp_path: Path) -> None:
    root = host()
    root.put(f"containers/{DB}/config.v2.json", made)
    changed, problems = spoiled(root, tmp_path)
    assert {key.split()[0] for key in changed} == {"db", DB}
    assert changed[f"{DB} logs"] == [b"hello"]
    (problem,) = [one for one in problems if "config.v2.json" in one]
    assert DB in problem


def test_a_fifo_in_a_folder_is_never_opened(tmp_path: Path) -> None:
    root = host()
    for name in ("config.v2.json", "hostconfig.json", f"{DB}-json.log"):
        root.put(f"containers/{DB}/{name}", FIFO)
    root.put(f"image/overlay2/layerdb/mounts/{WEB}/mount-id", FIFO)
    root.put("volumes/metadata.db", FIFO)
    root.put("image/overlay2/repositories.json", FIFO)
    with fl.open(root.write(tmp_path / "host")) as ev:  # reading one would wait for ever
        found = answers(ev)
        assert found["web logs"] == [b"hello"]
        assert list(ev.problems)


@pytest.mark.parametrize("made", [None, b"", b"../../../../etc", FIFO, link("/etc/passwd")])
def test_a_missing_mount_id(made: Any, tmp_path: Path) -> None:
    root = host()
    name = f"image/overlay2/layerdb/mounts/{WEB}/mount-id"
    if made is None:
        del root.entries[root.path(name)]
    else:
        root.put(name, made)
    changed, _ = spoiled(root, tmp_path)
    assert set(changed) == {"web diff", "web files", "web inspect"}
    assert changed["web diff"] == changed["web files"] == "DamagedData"
    assert changed["web inspect"]["GraphDriver"] == {"Data": None, "Name": "overlay2"}


@pytest.mark.parametrize("cut", [0, 100, 4096, 5000, 8192, -4096])
@pytest.mark.parametrize("name", ["volumes/metadata.db", "network/files/local-kv.db"])
def test_a_truncated_database(name: str, cut: int, tmp_path: Path) -> None:
    root = host()
    raw = root.entries[root.path(name)]
    assert isinstance(raw, bytes)
    root.put(name, raw[:cut])
    changed, problems = spoiled(root, tmp_path)
    assert set(changed) <= {"appnet network"}
    assert any(name in problem for problem in problems)


def test_a_database_whose_newest_transaction_is_torn(tmp_path: Path) -> None:
    root = host()
    raw = root.entries[root.path("network/files/local-kv.db")]
    assert isinstance(raw, bytes)
    newest = 4096 + 16  # the second meta page; the checksum no longer fits
    root.put("network/files/local-kv.db", raw[:newest] + struct.pack("<Q", 0) + raw[newest + 8 :])
    changed, problems = spoiled(root, tmp_path)
    assert changed == {}
    assert len(problems) <= 1


def test_the_examiners_own_files_are_never_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret.json"
    secret.write_text(
        json.dumps({"Name": "/mine", "Env": ["TOKEN=mine"], "Repositories": {"mine": {"mine:1": "sha256:1"}}})
    )
    root = host()
    for name in (
        f"containers/{DB}/config.v2.json",
        f"containers/{WEB}/hostconfig.json",
        f"containers/{WEB}/{WEB}-json.log",
        "image/overlay2/repositories.json",
        "volumes/metadata.db",
        "volumes/data/_data/file",
        "network/files/local-kv.db",
    ):
        root.put(name, link(str(secret)))
    with fl.open(root.write(tmp_path / "host")) as ev:
        assert "mine" not in repr(answers(ev))
        assert secret.read_text() not in repr(list(ev.problems))


def test_many_faults_at_once_leave_the_rest(tmp_path: Path) -> None:
    root = host()
    root.put(f"containers/{DB}/config.v2.json", b"{")
    root.put("volumes/metadata.db", b"no database")
    root.put("network/files/local-kv.db", b"")
    root.put("image/overlay2/repositories.json", b"[")
    root.put(f"image/overlay2/imagedb/content/sha256/{hexid('bad')}", b"{")
    changed, problems = spoiled(root, tmp_path)
    assert not any(key.startswith("web") for key in changed)
    assert "data volume" not in changed
    for name in ("config.v2.json", "metadata.db", "local-kv.db", "repositories.json", hexid("bad")):
        assert any(name in problem for problem in problems)


def test_strict_raises_at_the_first_fault(tmp_path: Path) -> None:
    root = host()
    root.put(f"containers/{DB}/config.v2.json", b"{")
    with pytest.raises(DamagedData), root.opened(tmp_path, strict=True) as ev:
        list(ev.containers)


def test_every_row_says_where_it_is_from(tmp_path: Path) -> None:
    with host().opened(tmp_path) as ev:
        origins = [str(row.origin) for table in (ev.containers, ev.images, ev.volumes, ev.networks) for row in table]
    assert len(origins) == 7
    assert all(origin.startswith("root.tar > ") for origin in origins)
    assert any(f"containers/{WEB}/config.v2.json" in origin for origin in origins)
    assert any("local-kv.db" in origin for origin in origins)


def test_a_containerd_store_is_said_to_be_elsewhere(tmp_path: Path) -> None:
    root = host()
    root.container("new", Driver="overlayfs")
    with root.opened(tmp_path) as ev:
        assert ev.container("new").inspect()["GraphDriver"] == {"Data": None, "Name": "overlayfs"}
        with pytest.raises(fl.ForensicsError, match="overlayfs"):
            ev.container("new").tree()
        assert any("/var/lib/containerd" in problem.message for problem in ev.problems)


def test_docker_29_names_the_snapshotter_elsewhere(tmp_path: Path) -> None:
    root = host()
    root.container("new", Driver="overlayfs", WritableCgroups=False)
    with root.opened(tmp_path) as ev:
        answer = ev.container("new").inspect()
    assert answer["Storage"] == {"RootFS": {"Snapshot": {"Name": "overlayfs"}}}
    assert "GraphDriver" not in answer
