"""Archives that other tools write, against what the file system says of the same files."""

from __future__ import annotations

import hashlib
import json
import os
import random
import stat
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import pytest

import forensics_lib as fl
from forensics_lib.formats.tar_entry import TarEntry
from tests.tarmaker import TarMaker
from tests.tarreader import by_position, entries, gnu_tar, one, streamed, tool

SECOND = 10**9
LONG = "longname/" * 30 + "file.txt"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Files of every kind that needs no special rights, short names only."""
    if sys.platform == "win32":
        pytest.skip("POSIX files")
    root = tmp_path_factory.mktemp("tar")
    random_bytes = random.Random(1).randbytes
    (root / "etc").mkdir()
    (root / "etc" / "passwd").write_bytes(b"root:x:0:0\n")
    (root / "etc" / "block").write_bytes(random_bytes(512))
    (root / "etc" / "large").write_bytes(random_bytes(100_001))
    (root / "empty").write_bytes(b"")
    (root / "link").symlink_to("etc/passwd")
    (root / "dangling").symlink_to("/no/such/file")
    (root / "hard").hardlink_to(root / "etc" / "large")
    os.mkfifo(root / "fifo")
    (root / "setuid").write_bytes(b"#!")
    (root / "setuid").chmod(0o6751)
    (root / "tmp").mkdir()
    (root / "tmp").chmod(0o1777)
    for number, path in enumerate(sorted(root.rglob("*"))):
        os.utime(path, ns=(10**18, 10**18 + number * 123_456_789), follow_symlinks=False)
    yield root
    (root / "tmp").chmod(0o755)


def add_hard_names(root: Path) -> None:
    """Names and targets that need an extension."""
    deep = root / ("d" * 90) / ("e" * 90)
    deep.mkdir(parents=True)
    (deep / ("f" * 200)).write_bytes(b"deep")
    (root / "long-link").symlink_to("x/" * 120)
    (root / "日本語").write_bytes(b"utf-8")
    try:
        with open(os.fsencode(root) + b"/caf\xe9-\xff", "wb") as file:  # noqa: PTH123 - no path holds such a name
            file.write(b"latin-1")
    except OSError:  # file systems that insist on UTF-8
        return


def check_against(root: Path, found: list[TarEntry], *, fraction: bool, missing: Collection[str] = ()) -> None:
    """Names, content and metadata must be those that the file system tells."""
    inodes: dict[int, str] = {}
    files = {entry.name: entry for entry in found if entry.name != "./"}
    paths = [os.fsdecode(path) for path in sorted(map(os.fsencode, root.rglob("*")))]
    relative = {os.path.relpath(path, root): path for path in paths}
    assert {name.removeprefix("./").rstrip("/") for name in files} == set(relative).difference(missing)
    for name, entry in files.items():
        short = name.removeprefix("./").rstrip("/")
        path = relative[short]
        status = os.lstat(path)
        assert entry.anomalies == ()
        assert entry.raw_name.removeprefix(b"./").rstrip(b"/") == os.fsencode(short)
        if entry.typeflag == "1":
            target = entry.linkname.removeprefix("./")
            assert os.lstat(relative[target]).st_ino == status.st_ino
            continue
        assert stat.S_IMODE(status.st_mode) == entry.mode & 0o7777
        assert (status.st_uid, status.st_gid) == (entry.uid, entry.gid)
        assert entry.mtime_ns == (status.st_mtime_ns if fraction else status.st_mtime_ns // SECOND * SECOND)
        kinds: dict[str, Callable[[int], bool]] = {
            "0": stat.S_ISREG,
            "S": stat.S_ISREG,
            "2": stat.S_ISLNK,
            "5": stat.S_ISDIR,
            "6": stat.S_ISFIFO,
        }
        assert kinds[entry.typeflag](status.st_mode)
        if entry.typeflag == "2":
            assert entry.linkname == os.readlink(path)  # noqa: PTH115 - the name may be no UTF-8
        if entry.is_file:
            assert status.st_ino not in inodes
            inodes[status.st_ino] = short
            with open(path, "rb") as file:  # noqa: PTH123 - the name may be no UTF-8
                assert entry.open().read() == file.read()


@pytest.mark.parametrize("format", ["v7", "oldgnu", "gnu", "ustar", "pax"])
def test_archives_of_gnu_tar(format: str, folder: Path) -> None:
    command = [gnu_tar(), "-C", str(folder), f"--format={format}", "-cf", "-", "."]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == (2 if format == "v7" else 0)  # v7 has no FIFO
    check_against(folder, entries(done.stdout), fraction=format == "pax", missing=["fifo"] * (format == "v7"))
    assert streamed(done.stdout) == by_position(done.stdout)


@pytest.mark.parametrize("format", ["gnu", "oldgnu", "pax"])
def test_hard_names_in_archives_of_gnu_tar(format: str, tmp_path: Path) -> None:
    add_hard_names(tmp_path)
    command = [gnu_tar(), "-C", str(tmp_path), f"--format={format}", "-cf", "-", "."]
    data = subprocess.run(command, capture_output=True, check=True).stdout
    check_against(tmp_path, entries(data), fraction=format == "pax")
    assert streamed(data) == by_position(data)


@pytest.mark.parametrize("format", ["ustar", "gnutar", "pax", "v7"])
def test_archives_of_bsdtar(format: str, folder: Path) -> None:
    command = [tool("bsdtar"), "-C", str(folder), "--format", format, "-cf", "-", "."]
    done = subprocess.run(command, capture_output=True, check=False)
    check_against(folder, entries(done.stdout), fraction=format == "pax", missing=["fifo"] * (format == "v7"))
    assert streamed(done.stdout) == by_position(done.stdout)


def test_hard_names_in_archives_of_bsdtar(tmp_path: Path) -> None:
    add_hard_names(tmp_path)
    command = [tool("bsdtar"), "-C", str(tmp_path), "--format", "pax", "-cf", "-", "."]
    data = subprocess.run(command, capture_output=True, check=True, env=os.environ | {"LC_ALL": "C.UTF-8"}).stdout
    check_against(tmp_path, entries(data), fraction=True)


@pytest.mark.parametrize("format", ["tar", "ustar"])
def test_archives_of_cpio(format: str, folder: Path) -> None:
    names = b"\0".join(sorted(os.fsencode(path.relative_to(folder)) for path in folder.rglob("*")))
    command = [tool("cpio"), "-o", "-0", "-H", format, "--quiet"]
    data = subprocess.run(command, cwd=folder, input=names, capture_output=True, check=True).stdout
    found = entries(data)
    assert all(entry.anomalies == () for entry in found)
    assert {e.name.rstrip("/") for e in found} >= {os.fsdecode(name) for name in names.split(b"\0")} - {"fifo"}


def test_extended_attributes(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"1")
    values = {"user.plain": b"value", "user.bytes": bytes(range(256)), "user.empty": b""}
    try:
        for name, value in values.items():
            os.setxattr(file, name, value)
    except (AttributeError, OSError):
        pytest.skip("no extended attributes here")
    made = {"gnu tar": [gnu_tar(), "--xattrs", "--format=pax"], "bsdtar": [tool("bsdtar"), "--xattrs", "--format=pax"]}
    for who, command in made.items():
        data = subprocess.run([*command, "-C", tmp_path, "-cf", "-", "file"], capture_output=True, check=True).stdout
        user = {name: value for name, value in one(data).xattrs.items() if name.startswith("user.")}
        assert user == values, who


def test_other_tools_read_what_the_tests_make(tmp_path: Path) -> None:
    """The maker of test archives is itself held against an independent reader."""
    archive = TarMaker("pax").file(LONG, b"one", mtime="1.5", uid=3_000_000).symlink("s", LONG).hardlink("h", LONG)
    plain = TarMaker("gnu").file(LONG, b"one").symlink("s", "t" * 120).gnu_long("n" * 150).file("short", b"1")
    for number, data in enumerate(
        (archive.end(), plain.end(), TarMaker("star").file("a", b"1", atime=1, ctime=2).end())
    ):
        path = tmp_path / f"{number}.tar"
        path.write_bytes(data)
        for command in (gnu_tar(), tool("bsdtar")):
            done = subprocess.run([command, "-tf", path], capture_output=True, check=True, text=True)
            assert done.stdout.split() == [entry.name for entry in entries(data)]
            assert done.stderr == ""


def test_what_go_reads_from_published_archives() -> None:
    """Needs FORENSICS_EVIDENCE/public/tar with archives of other projects and what Go's reader made of them."""
    root = Path(os.environ.get("FORENSICS_EVIDENCE", "nowhere")) / "public" / "tar"
    expected = root / "expected" / "tar-rs.jsonl"
    if not expected.is_file():
        pytest.skip("FORENSICS_EVIDENCE names no folder with public/tar")
    compared = 0
    for line in expected.read_text().splitlines():
        row = json.loads(line)
        go = next(value for key, value in row.items() if key.startswith("go"))
        if go.get("error"):
            continue
        found = list(fl.tar_entries(root / row["file"]))
        assert [(e.name, e.size, e.mode & 0o7777, e.uid, e.mtime_ns // SECOND) for e in found] == [
            (e["name"], e["size"], e["mode"] & 0o7777, e.get("Uid", 0), e["mtime"]) for e in go["entries"]
        ], row["file"]
        for entry, e in zip(found, go["entries"], strict=True):
            if entry.is_file and entry.size < 1 << 20:
                assert hashlib.sha256(entry.open().read()).hexdigest() == e["sha256"], row["file"]
        compared += 1
    assert compared
