"""Where containerd's root lies."""

from __future__ import annotations

import pytest

from forensics_lib.engines.containerd.root import CONTENT, METADATA, find_containerd, is_containerd
from forensics_lib.model import ProblemLog
from forensics_lib.trees.documents import DocumentReader
from forensics_lib.trees.index import IndexTree
from tests.trees.layers import Entry, folder, link, tree

FOUND = {"/etc/hostname": b"host"}


def host(*roots: str, **more: bytes) -> IndexTree:
    entries: dict[str, Entry | bytes] = {**FOUND, **{path.replace("__", "/"): data for path, data in more.items()}}
    for root in roots:
        entries[f"{root}/{METADATA}"] = b"db"
    return tree("host", entries)


def paths(of: IndexTree, near: tuple[tuple[str, str], ...] = ()) -> list[tuple[str, str]]:
    return [(root.path, root.found_by) for root in find_containerd(DocumentReader(of, ProblemLog(strict=True)), near)]


def test_the_shape_of_a_root() -> None:
    assert is_containerd(host("/x"), "/x")
    assert is_containerd(tree("host", {f"/x/{CONTENT}": folder()}), "/x")
    assert is_containerd(tree("host", {"/x/io.containerd.snapshotter.v1.native/metadata.db": b"db"}), "/x")
    assert not is_containerd(tree("host", {"/x/io.containerd.snapshotter.v1.native/other": b"db"}), "/x")
    assert not is_containerd(host("/x"), "/")
    assert not is_containerd(host("/x"), "/nowhere")


@pytest.mark.parametrize(
    "place",
    [
        "/var/lib/containerd",
        "/var/lib/rancher/k3s/agent/containerd",
        "/var/snap/microk8s/common/var/lib/containerd",
        "/home/eve/.local/share/containerd",
        "/root/.local/share/containerd",
    ],
)
def test_usual_places(place: str) -> None:
    assert [path for path, _ in paths(host(place))] == [place]


def test_configured_places_come_first() -> None:
    config = b'version = 2\nroot = "/data/ctr"\n[plugins."io.containerd.grpc.v1.cri"]\nroot = "/no"\n'
    both = host("/data/ctr", "/var/lib/containerd", **{"/etc/containerd/config.toml": config})
    assert paths(both) == [("/data/ctr", "config.toml"), ("/var/lib/containerd", "default path")]
    unit = b"[Service]\nExecStart=/usr/bin/containerd --log-level info --root=/data/ctr\n"
    assert paths(host("/data/ctr", **{"/etc/systemd/system/containerd.service": unit})) == [("/data/ctr", "systemd")]


def test_likely_places_come_before_all_others() -> None:
    near = (("/docker/containerd/daemon", "inside the data root"),)
    both = host("/docker/containerd/daemon", "/var/lib/containerd")
    assert [path for path, _ in paths(both, near)] == ["/docker/containerd/daemon", "/var/lib/containerd"]


def test_a_link_leads_to_the_same_root() -> None:
    linked = tree("host", {f"/data/ctr/{METADATA}": b"db", "/var/lib/containerd": link("/data/ctr")})
    assert [path for path, _ in paths(linked)] == ["/data/ctr"]


def test_a_configured_place_without_a_root_is_a_problem() -> None:
    problems = ProblemLog()
    reader = DocumentReader(host(**{"/etc/containerd/config.toml": b"root = '/gone'\n"}), problems)
    assert find_containerd(reader) == []
    assert [row.message for row in problems.rows] == [
        "config.toml names /gone as containerd's root; nothing of containerd is there"
    ]
