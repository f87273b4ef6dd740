"""Owners of files in data roots of daemons that shift them, and of daemons without root."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from tests.engines.docker.rootmaker import Made, RootMaker, docker_root, owned
from tests.trees.layers import folder

REMAPPED, ROOTLESS = "/var/lib/docker/231072.100000", "/home/eve/.local/share/docker"


def owners(
    at: str, files: Mapping[str, Made], host: Mapping[str, Made], real: str | None = None
) -> dict[str, tuple[int, int]]:
    """The owners of what a container wrote."""
    root = RootMaker(at=at, real=real or at)
    root.entries[at] = replace(folder(), uid=1000, gid=1001)
    root.container("web", root.layer({"/bin/sh": owned(b"sh", 231_072, 100_000)}), files)
    root.entries |= host
    (web,) = docker_root(root.tree()).containers
    assert {change.path for change in web.diff()} >= set(files)
    return {path: (node.uid, node.gid) for path in files for node in [web.tree().node(path)]}


@pytest.mark.parametrize("at", [REMAPPED, "/case/231072.100000", "/copied"])
def test_a_remapped_root_by_its_name_or_its_own_word(at: str) -> None:
    files = {"/root": owned(b"", 231_072, 100_000), "/app": owned(b"", 232_072, 101_000), "/host": owned(b"", 0, 0)}
    assert owners(at, files, {}, REMAPPED) == {"/root": (0, 0), "/app": (1000, 1000), "/host": (65534, 65534)}


def test_several_ranges_of_one_account() -> None:
    host: dict[str, Made] = {
        "/etc/subuid": b"eve:100000:65536\ndockremap:400000:10\ndockremap:231072:65536\nbad\nx:y:z\n",
        "/etc/subgid": b"",
    }
    files = {"/a": owned(b"", 231_072 + 65_535, 100_005), "/b": owned(b"", 400_003, 0), "/c": owned(b"", 400_010, 0)}
    assert owners(REMAPPED, files, host) == {"/a": (65_535, 5), "/b": (65_539, 65534), "/c": (65534, 65534)}


def test_a_daemon_without_root() -> None:
    host: dict[str, Made] = {
        "/etc/passwd": b"root:x:0:0::/root:/bin/sh\neve:x:1000:1000::/home/eve:/bin/sh\n",
        "/etc/subuid": b"joe:100000:65536\neve:165536:65536\n",
        "/etc/subgid": b"1000:165536:65536\n",
    }
    files = {"/root": owned(b"", 1000, 1001), "/app": owned(b"", 166_535, 165_536), "/joe": owned(b"", 100_000, 0)}
    assert owners(ROOTLESS, files, host) == {"/root": (0, 0), "/app": (1000, 1), "/joe": (65534, 65534)}


def test_a_daemon_without_root_whose_ranges_were_not_copied() -> None:
    files = {"/root": owned(b"", 1000, 1001), "/app": owned(b"", 166_535, 165_536)}
    assert owners(ROOTLESS, files, {}) == {"/root": (0, 0), "/app": (166_535, 165_536)}


def test_owners_of_others_are_those_on_the_disk() -> None:
    files = {"/root": owned(b"", 0, 0), "/app": owned(b"", 231_072, 100_000)}
    assert owners("/var/lib/docker", files, {"/etc/subuid": b"dockremap:231072:65536\n"}) == {
        "/root": (0, 0), "/app": (231_072, 100_000),
    }  # fmt: skip
