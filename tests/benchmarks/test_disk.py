"""What walking and reading file systems of disks cost, beside the same done by other libraries and by plain reads.

`--benchmark-enable` measures, and puts ratios of processor time into the benchmark's extra information. The assertions
are about what is found, never about time.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from forensics_lib.model import ProblemLog
from forensics_lib.sources.file import FileSource
from forensics_lib.trees.base import NodeKind, Tree
from forensics_lib.trees.btrfs import BtrfsTree
from forensics_lib.trees.ext import ExtTree
from forensics_lib.trees.xfs import XfsTree
from tests.diskmaker import MIB, noise, run, tool

pytest.importorskip("pytest_benchmark")

FILES_OF_A_FOLDER = 15
SECOND = 10**9
TREES = {"ext4": ExtTree, "xfs": XfsTree, "btrfs": BtrfsTree}


def filled(folder: Path, folders: int) -> int:
    """Fill a folder; returns how many names a walk has to find, the root included."""
    for number in range(folders):
        place = folder / f"d{number % 30:02}" / f"e{number:05}"
        place.mkdir(parents=True)
        for name in range(FILES_OF_A_FOLDER):
            (place / f"file-{name:03}.txt").write_bytes(b"x" * (name * 257))
        (place / "link").symlink_to("file-000.txt")
    return 1 + min(folders, 30) + folders * (2 + FILES_OF_A_FOLDER)


def made(kind: str, folder: Path, image: Path, size: int) -> Path:
    """A file system of the content of a folder, made without being mounted."""
    with image.open("wb") as file:
        file.truncate(size)
    if kind == "ext4":
        run("mkfs.ext4", "-q", "-d", folder, image)
    elif kind == "btrfs":
        run("mkfs.btrfs", "-q", "-r", folder, image)
    else:
        prototype = image.with_suffix(".proto")
        prototype.write_text("/nothing\n0 0\nd--755 0 0\n" + "\n".join(_prototype(folder)) + "\n$\n$\n")
        run("mkfs.xfs", "-q", "-f", "-p", prototype, image)
    return image


def _prototype(folder: Path) -> Iterator[str]:
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.is_symlink():
            yield f"{entry.name} l--777 0 0 {Path(entry.path).readlink()}"
        elif entry.is_dir():
            yield f"{entry.name} d--755 0 0"
            yield from _prototype(Path(entry.path))
            yield "$"
        else:
            yield f"{entry.name} ---644 0 0 {entry.path}"


def ratio(ours: Callable[[], object], theirs: Callable[[], object], rounds: int = 7) -> float:
    """Processor time of the quickest of some rounds of both, which take turns."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for call, kept in zip((ours, theirs), times, strict=True):
            start = time.process_time()
            call()
            kept.append(time.process_time() - start)
    return round(min(times[0]) / max(min(times[1]), 1e-9), 2)


def walk(kind: str, image: Path) -> int:
    return sum(1 for _ in TREES[kind](FileSource(image), ProblemLog(strict=True)).walk())


def walk_with_the_sleuth_kit(image: Path) -> int:
    """The same fields of the same names in the same order, straight from pytsk3."""
    import pytsk3

    kit = pytsk3.FS_Info(pytsk3.Img_Info(str(image)))
    kinds = {1: "file", 2: "dir", 3: "fifo", 4: "char", 5: "block", 6: "symlink", 8: "socket"}

    def below(prefix: str, inode: int) -> Iterator[tuple[Any, ...]]:
        rows = []
        for entry in kit.open_dir(inode=inode):
            info = entry.info.name
            name, meta = info.name, entry.info.meta
            if name in (b".", b"..", b"$OrphanFiles") or not int(info.flags) & 1 or meta is None:
                continue
            kind = kinds[int(meta.type)]
            node = (
                prefix + name.decode("utf-8", "surrogateescape"),
                kind,
                int(meta.mode) & 0xFFF,
                meta.uid,
                meta.gid,
                meta.size if kind == "file" else 0,
                meta.mtime * SECOND + meta.mtime_nano,
                meta.atime * SECOND + meta.atime_nano,
                meta.ctime * SECOND + meta.ctime_nano,
                meta.crtime * SECOND + meta.crtime_nano,
                meta.link.decode("utf-8", "surrogateescape") if kind == "symlink" else None,
                meta.nlink,
                meta.addr,
            )
            rows.append((name, node))
        rows.sort()
        for _, node in rows:
            yield node
            if node[1] == "dir":
                yield from below(node[0] + "/", node[-1])

    return 1 + sum(1 for _ in below("/", 2))


def walk_with_libfsxfs(image: Path) -> int:
    """The same fields of the same names in the same order, straight from libfsxfs."""
    pyfsxfs = pytest.importorskip("pyfsxfs")
    volume = pyfsxfs.volume()
    volume.open(str(image))
    kinds = {0x8000: "file", 0x4000: "dir", 0xA000: "symlink"}

    def below(prefix: str, above: Any) -> Iterator[tuple[Any, ...]]:
        rows = []
        for entry in above.sub_file_entries:
            mode = entry.file_mode
            kind = kinds[mode & 0xF000]
            node = (
                prefix + entry.name,
                kind,
                mode & 0xFFF,
                entry.owner_identifier,
                entry.group_identifier,
                entry.size if kind == "file" else 0,
                entry.get_modification_time_as_integer(),
                entry.get_access_time_as_integer(),
                entry.get_inode_change_time_as_integer(),
                entry.get_creation_time_as_integer(),
                entry.symbolic_link_target if kind == "symlink" else None,
                entry.number_of_links,
                entry.inode_number,
                entry.number_of_extended_attributes,
            )
            rows.append((entry.name, entry, node))
        rows.sort(key=lambda row: row[0])
        for _, entry, node in rows:
            yield node
            if node[1] == "dir":
                yield from below(node[0] + "/", entry)

    return 1 + sum(1 for _ in below("/", volume.get_root_directory()))


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> tuple[Path, int]:
    folder = tmp_path_factory.mktemp("content")
    return folder, filled(folder, 1500 if request.config.getoption("benchmark_enable") else 60)


@pytest.mark.parametrize("kind", TREES)
def test_walking(kind: str, content: tuple[Path, int], tmp_path: Path, benchmark: Any) -> None:
    tool(f"mkfs.{kind}")
    folder, count = content
    image = made(kind, folder, tmp_path / "disk", 512 * MIB)
    lost_and_found = kind == "ext4"
    assert benchmark(walk, kind, image) == count + lost_and_found
    others = {"ext4": walk_with_the_sleuth_kit, "xfs": walk_with_libfsxfs}
    if kind in others:
        other = others[kind]
        assert other(image) == count + lost_and_found
        if benchmark.enabled:
            benchmark.extra_info["CPU beside " + other.__name__] = ratio(
                lambda: walk(kind, image), lambda: other(image)
            )


@pytest.mark.parametrize("kind", TREES)
def test_reading_a_large_file(kind: str, tmp_path: Path, benchmark: Any) -> None:
    tool(f"mkfs.{kind}")
    folder = tmp_path / "content"
    folder.mkdir()
    data = noise("large file", MIB) * (100 if benchmark.enabled else 3)  # an extent of an allocation group
    (folder / "large").write_bytes(data)
    image = made(kind, folder, tmp_path / "disk", 512 * MIB)
    tree: Tree = TREES[kind](FileSource(image), ProblemLog(strict=True))
    node = tree.node("/large")
    assert (node.kind, node.size) == (NodeKind.FILE, len(data))
    assert node.read() == data

    def ours() -> int:
        return sum(map(len, node.source().blocks()))

    descriptor = os.open(image, os.O_RDONLY)

    def plain() -> int:
        done = 0
        while done < len(data):
            done += len(os.pread(descriptor, 64 << 10, done))
        return done

    try:
        assert benchmark(ours) == plain() == len(data)
        if benchmark.enabled:
            benchmark.extra_info["pace beside plain reads of the image"] = ratio(plain, ours)
    finally:
        os.close(descriptor)
