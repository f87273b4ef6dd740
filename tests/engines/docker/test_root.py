"""Where Docker data roots are found in a tree, and where not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import forensics_lib as fl
from forensics_lib.engines.docker.root import DataRoot, find_roots
from forensics_lib.engines.docker.shape import is_root
from forensics_lib.errors import DamagedData
from forensics_lib.model import ProblemLog
from forensics_lib.trees.documents import DocumentReader
from tests.engines.docker.dataroot import document, hexid
from tests.engines.docker.rootmaker import Made, RootMaker
from tests.trees.layers import folder, link, tree

ID = hexid("container")


def roots(entries: Mapping[str, Made]) -> tuple[list[DataRoot], list[str]]:
    """The roots of a tree, and the problems."""
    problems = ProblemLog()
    return find_roots(DocumentReader(tree("host", entries), problems)), [row.message for row in problems.rows]


def found(entries: Mapping[str, Made]) -> list[tuple[str, str]]:
    data_roots, problems = roots(entries)
    assert not problems
    return [(root.path, root.found_by) for root in data_roots]


def data_root(at: str) -> dict[str, Made]:
    """The least that is one."""
    return {f"{at}/containers/{ID}/config.v2.json": b"{}"}


@pytest.mark.parametrize(
    "settings",
    [
        "/etc/docker/daemon.json",
        "/var/snap/docker/current/config/daemon.json",
        "/root/.config/docker/daemon.json",
        "/home/eve/.config/docker/daemon.json",
    ],
)
@pytest.mark.parametrize("key", ["data-root", "graph"])
def test_configuration_of_the_daemon(settings: str, key: str) -> None:
    entries = data_root("/srv/a/b/c/d/e/f/g/h/docker") | {settings: document({key: "/srv/a/b/c/d/e/f/g/h/docker"})}
    assert found(entries) == [("/srv/a/b/c/d/e/f/g/h/docker", "daemon.json")]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/etc/systemd/system/docker.service", b"[Service]\nExecStart=/usr/bin/dockerd --data-root=/data/d -H fd://\n"),
        ("/lib/systemd/system/docker.service", b"ExecStart=/usr/bin/dockerd -H fd:// --data-root /data/d\n"),
        ("/usr/lib/systemd/system/docker.service", b"ExecStart=/usr/bin/docker daemon --graph='/data/d'\n"),
        ("/etc/systemd/system/docker.service.d/10-root.conf", b"ExecStart=\nExecStart=dockerd -g /data/d\n"),
        ("/etc/default/docker", b'DOCKER_OPTS="--dns 8.8.8.8 -g /data/d"\n'),
        ("/etc/sysconfig/docker", b'OPTIONS="--graph=/data/d"\n'),
    ],
)
def test_systemd_units(path: str, text: bytes) -> None:
    assert found(data_root("/data/d") | {path: text}) == [("/data/d", "systemd")]


@pytest.mark.parametrize("path", ["/var/lib/docker", "/var/snap/docker/common/var-lib-docker"])
def test_default_path(path: str) -> None:
    assert found(data_root(path)) == [(path, "default path")]


@pytest.mark.parametrize("at", ["", "/docker", "/evidence/host-1/var/lib/docker", "/1/2/3/4/5/6/docker"])
def test_shape(at: str) -> None:
    path = at or "/"
    assert found(data_root(at)) == [(path, "shape")]


@pytest.mark.parametrize(
    "entries",
    [
        {"/d/image/overlay2/layerdb/sha256": folder()},
        {"/d/containers/" + ID + "/hostconfig.json": b"{}"},
        {"/d/containers/" + ID + "/config.json": b"{}", "/d/graph": folder()},
        {"/d/volumes/metadata.db": b"", "/d/containers": folder(), "/d/overlay2": folder()},
        {"/d/network/files/local-kv.db": b"", "/d/plugins": folder(), "/d/swarm": folder()},
        {"/d/buildkit/cache.db": b"", "/d/containers": folder(), "/d/tmp": folder()},
        {"/d/graph/_tmp": folder(), "/d/aufs": folder(), "/d/volumes": folder()},
    ],
)
def test_each_store_proves_a_root(entries: dict[str, Made]) -> None:
    assert found(entries) == [("/d", "shape")]


@pytest.mark.parametrize(
    "entries",
    [
        {},
        {"/containers": folder(), "/image": folder(), "/volumes": folder()},
        {"/srv/containers/web/config.v2.json": b"{}"},
        {f"/srv/containers/{ID[:63]}/config.v2.json": b"{}"},
        {f"/srv/containers/{ID.upper()}/config.v2.json": b"{}"},
        {f"/srv/containers/{ID}": b"a file"},
        {f"/srv/containers/{ID}/notes.txt": b""},
        {"/srv/image/cat/layerdb.png": b""},
        {"/srv/image": b"", "/srv/volumes/notes": b""},
        {"/srv/network/files": folder()},
        {f"/srv/overlay/{ID}/diff": folder(), f"/srv/overlay/{ID}/link": b"L", "/srv/overlay/l": folder()},
        {
            f"/srv/vfs/dir/{ID}": folder(),
            "/srv/vfs-layers": folder(),
            "/srv/storage.lock": b"",
            "/srv/vfs-images": folder(),
        },
        {"/aufs/diff": folder(), "/aufs/layers": folder()},
        {"/diff": folder(), "/layers/1": folder()},
        {"/srv/containers": link("/elsewhere"), f"/elsewhere/{ID}/config.v2.json": b"{}"},
    ],
)
def test_no_false_positives(entries: dict[str, Made]) -> None:
    assert found(entries) == []


def test_several_roots_each_once_the_configured_first() -> None:
    entries = {
        **data_root("/var/lib/docker"),
        **data_root("/mnt/old/docker"),
        **data_root("/data/docker"),
        **data_root("/home/eve/.local/share/docker"),
        "/etc/docker/daemon.json": document({"data-root": "/data/docker", "graph": "/data/docker"}),
    }
    assert found(entries) == [
        ("/data/docker", "daemon.json"),
        ("/var/lib/docker", "default path"),
        ("/mnt/old/docker", "shape"),
        ("/home/eve/.local/share/docker", "shape"),
    ]


def test_a_root_behind_a_link_is_found_once() -> None:
    entries = data_root("/data/docker") | {"/var/lib/docker": link("/data/docker")}
    assert found(entries) == [("/data/docker", "default path")]


def test_nothing_is_searched_below_a_root() -> None:
    nested = "/var/lib/docker/overlay2/x/diff/var/lib/docker"
    assert found(data_root("/var/lib/docker") | data_root(nested)) == [("/var/lib/docker", "default path")]


def test_roots_of_user_namespaces() -> None:
    entries = {
        **data_root("/var/lib/docker"),
        **data_root("/var/lib/docker/100000.100000"),
        **data_root("/var/lib/docker/231072.231072"),
        "/var/lib/docker/1.2/notes": b"no root",
        "/var/lib/docker/tmp": folder(),
    }
    assert found(entries) == [
        ("/var/lib/docker", "default path"),
        ("/var/lib/docker/100000.100000", "user namespace of default path"),
        ("/var/lib/docker/231072.231072", "user namespace of default path"),
    ]


def test_the_only_root_is_that_of_a_user_namespace() -> None:
    assert [path for path, _ in found(data_root("/var/lib/docker/100000.100000"))] == ["/var/lib/docker/100000.100000"]


@pytest.mark.parametrize("at", ["/", "/case/7"])
@pytest.mark.parametrize(
    ("part", "inside"),
    [
        ("overlay2", {f"/{ID}/diff": folder(), f"/{ID}/link": b"LINK", f"/{ID}-init/diff": folder(), "/l": folder()}),
        ("vfs", {f"/dir/{ID}": folder()}),
        ("btrfs", {f"/subvolumes/{ID}": folder()}),
        ("aufs", {"/diff": folder(), f"/layers/{ID}": b""}),
        ("devicemapper", {"/devicemapper": folder(), "/metadata": folder()}),
        ("volumes", {"/metadata.db": b"", "/data/_data": folder()}),
        ("network", {"/files/local-kv.db": b""}),
        ("image", {"/overlay2/imagedb": folder()}),
        ("containers", {f"/{ID}/{ID}-json.log": b""}),
    ],
)
def test_a_part_alone(part: str, inside: dict[str, Made], at: str) -> None:
    """A copy of one folder, under its own name anywhere, or with the folder as its start."""
    (root,), problems = roots({f"{at.rstrip('/')}/{part}{name}": made for name, made in inside.items()})
    assert (root.path, root.at(part), problems) == (at, f"{at.rstrip('/')}/{part}", [])
    (root,), problems = roots(inside)
    assert (root.path, root.found_by, root.parts, problems) == ("/", "shape of a part", {part: "/"}, [])
    assert root.at(part, "a", "b") == "/a/b"


@pytest.mark.parametrize(
    "files",
    [
        {"/config.v2.json": document({"ID": ID}), "/hostname": b""},
        {"/hostconfig.json": b"{}", f"/{ID}-json.log": b""},
        {"/config.v2.json": b"{", f"/{ID}-json.log": b""},
        {f"/{ID}-json.log": b""},
    ],
)
def test_the_folder_of_one_container(files: dict[str, Made]) -> None:
    problems = ProblemLog()
    reader = DocumentReader(tree("host", files), problems)
    (root,) = find_roots(reader)
    assert [(name, node.path) for name, node in root.containers(reader).items()] == [(ID, "/")]
    assert root.at("containers", ID, "hostname") == "/hostname"
    assert root.at("image", "overlay2") not in reader.tree


@pytest.mark.parametrize(
    "files", [{"/config.json": document({"ID": ID})}, {"/config.v2.json": b"{}"}, {"/config.v2.json": document([ID])}]
)
def test_no_folder_of_a_container(files: dict[str, Made]) -> None:
    assert roots(files) == ([], [])


def test_a_whole_root_hides_parts() -> None:
    assert found({**data_root("/d"), "/x/volumes/metadata.db": b""}) == [("/d", "shape")]


def test_a_root_that_the_configuration_names_and_nobody_copied() -> None:
    data_roots, problems = roots(data_root("/d") | {"/etc/docker/daemon.json": document({"data-root": "/mnt/data"})})
    assert [root.path for root in data_roots] == ["/d"]
    assert problems == ["daemon.json names /mnt/data as data root; no Docker data is there"]


@pytest.mark.parametrize("value", [b"{", b"[]", b'{"data-root": 1}', b'{"data-root": "relative"}', b"\xff"])
def test_damaged_configuration_hides_no_root(value: bytes) -> None:
    data_roots, _ = roots(data_root("/var/lib/docker") | {"/etc/docker/daemon.json": value})
    assert [(root.path, root.found_by) for root in data_roots] == [("/var/lib/docker", "default path")]


def test_a_configured_root_never_leads_outside() -> None:
    data_roots, problems = roots({"/etc/docker/daemon.json": document({"data-root": "/../../var/lib/docker"})})
    assert data_roots == []
    assert len(problems) == 1


@pytest.mark.parametrize("at", ["/docker", "/var/lib/docker"])
def test_a_root_that_could_not_be_read_is_reported(at: str) -> None:
    data_roots, problems = roots({at: folder(mode=0o710)})
    assert data_roots == []
    (message,) = problems
    assert "copied without the right to read it" in message
    assert "mode 0710" in message


@pytest.mark.parametrize(
    "entries", [{"/docker": folder(mode=0o755)}, {"/docker": folder(mode=0o710), "/docker/x": b""}]
)
def test_an_open_or_filled_folder_is_no_locked_root(entries: dict[str, Made]) -> None:
    assert found(entries) == []


def test_the_locked_root_is_a_problem_of_the_evidence(tmp_path: Path) -> None:
    root = RootMaker()
    root.entries = {"/docker": folder(mode=0o710)}
    with root.opened(tmp_path) as ev:
        assert ev.kind is fl.EvidenceKind.FILESYSTEM_TREE
        assert not ev.containers
        (problem,) = ev.problems
        assert isinstance(problem.error, DamagedData)
        assert "Docker data root" in problem.message


def test_roots_of_a_loop_of_links() -> None:
    assert found({"/var/lib/docker": link("/var/lib/docker"), "/a": link("/b"), "/b": link("/a")}) == []


NAMES = st.sampled_from(
    ["containers", "image", "overlay2", "layerdb", "volumes", "metadata.db", "network", "graph", ID]
)
PATHS = st.lists(NAMES, min_size=1, max_size=5).map(lambda names: "/" + "/".join(names))


@given(st.dictionaries(PATHS, st.just(b"{}") | st.builds(folder) | st.builds(link, PATHS), max_size=8))
def test_any_tree_is_searched(entries: dict[str, Made]) -> None:
    data_roots, _ = roots(entries)
    host = tree("host", entries)
    assert len({root.path for root in data_roots}) == len(data_roots)
    whole = [root.path for root in data_roots if root.found_by != "shape of a part"]
    assert all(is_root(host, path) for path in whole)
    assert not whole or len(whole) == len(data_roots)
