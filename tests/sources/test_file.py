"""Files on the examiner's disk: read only, never anything that could block, and watched for changes."""

from __future__ import annotations

import os
import pickle
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forensics_lib.errors import DamagedData, EvidenceChanged, NotAFile, PathNotFound
from forensics_lib.model import Origin
from forensics_lib.sources.file import FileSource, FolderFile, OpenFiles

DATA = os.urandom(70_000)
posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX files")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("evidence") / "disk.img"
    file.write_bytes(DATA)
    return file


@pytest.fixture(scope="module")
def source(path: Path) -> FileSource:
    return FileSource(path)


@given(st.integers(0, 80_000), st.integers(-1, 80_000))
@settings(deadline=None)
def test_bytes_at_a_position(source: FileSource, offset: int, length: int) -> None:
    assert source.read_at(offset, length) == DATA[offset : offset + max(length, 0)]


def test_what_is_known_of_a_file(path: Path) -> None:
    source = FileSource(path)
    assert (source.size, str(source.origin)) == (70_000, "disk.img")
    assert str(FileSource(path, Origin("exhibit 7")).origin) == "exhibit 7"
    assert b"".join(source.blocks()) == DATA
    assert b"".join(source.blocks(69_990)) == DATA[-10:]
    with source.open() as file:
        assert file.read() == DATA


@pytest.mark.parametrize(("offset", "length"), [(0, 1 << 80), (1 << 80, 1), (1 << 63, 1 << 63), (70_000, 1)])
def test_ranges_that_evidence_may_ask_for(source: FileSource, offset: int, length: int) -> None:
    assert source.read_at(offset, length) == DATA[offset : offset + length]


def test_nothing_before_the_start_is_read(source: FileSource) -> None:
    with pytest.raises(DamagedData):
        source.read_at(-1, 5)


def test_threads_read_at_their_own_positions(source: FileSource) -> None:
    wrong: list[int] = []

    def read(start: int) -> None:
        offsets = range(start, 70_000, 61)
        wrong.extend(offset for offset in offsets if source.read_at(offset, 50) != DATA[offset : offset + 50])

    threads = [threading.Thread(target=read, args=(start,)) for start in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# --- what is refused --------------------------------------------------------------------------------------------------


def test_no_such_file(tmp_path: Path) -> None:
    for name in ("nothing", "nothing/below", "file/below", "nul\0nul", "half \ud800 pair"):
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(PathNotFound, match="does not exist") as caught:
            FileSource(tmp_path / name)
        assert isinstance(caught.value, FileNotFoundError)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(NotAFile, match="is no regular file"):
        FileSource(tmp_path)


@posix
def test_a_fifo_is_refused_at_once_and_never_opened(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    start = time.monotonic()
    with pytest.raises(NotAFile):
        FileSource(fifo)
    with pytest.raises(NotAFile):
        FileSource(fifo, follow=False)
    (tmp_path / "link").symlink_to(fifo)
    with pytest.raises(NotAFile):
        FileSource(tmp_path / "link")
    assert time.monotonic() - start < 5


@posix
def test_a_fifo_that_takes_the_files_place_does_not_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"1")
    before = path.stat()
    path.unlink()
    os.mkfifo(path)
    monkeypatch.setattr(Path, "stat", lambda *_, **__: before)
    with pytest.raises(NotAFile):
        FileSource(path)


@posix
def test_a_socket_and_a_device_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("sock")
        with pytest.raises(NotAFile):
            FileSource(tmp_path / "sock")
    with pytest.raises(NotAFile):
        FileSource("/dev/zero")


@posix
def test_a_link_is_followed_only_where_that_is_allowed(tmp_path: Path, path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(path)
    assert FileSource(link).read_at(0, 9) == DATA[:9]
    with pytest.raises(NotAFile):
        FileSource(link, follow=False)
    assert FileSource(path, follow=False).size == 70_000
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(DamagedData, match="cannot open"):
        FileSource(tmp_path / "loop")


@posix
def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "secret").write_bytes(b"1")
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(DamagedData, match=r"cannot open .*secret: Permission denied"):
        FileSource(tmp_path / "secret")


@posix
def test_a_read_error_of_the_disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = FileSource(path)

    def fail(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "pread", fail)
    with pytest.raises(DamagedData, match="cannot read 10 bytes: Input/output error") as caught:
        source.read_at(100, 10)
    assert (caught.value.origin, caught.value.offset) == (source.origin, 100)


@posix
def test_short_reads_are_completed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, length, offset: real(fd, min(length, 1000), offset))
    assert FileSource(path).read_at(5, 9999) == DATA[5:10_004]


# --- closing, changing, pickling --------------------------------------------------------------------------------------


def test_a_closed_file_cannot_be_read(path: Path) -> None:
    source = FileSource(path)
    source.close()
    source.close()
    with pytest.raises(ValueError, match="was closed"):
        source.read_at(0, 1)
    source.check_unchanged()  # nothing is known of it any more, and nothing raised


def test_evidence_that_is_written_to_while_it_is_open(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(b"12345")
    source = FileSource(path)
    source.check_unchanged()
    path.read_bytes()
    source.check_unchanged()
    with path.open("ab") as file:
        file.write(b"6")
    with pytest.raises(EvidenceChanged, match=r"disk\.img was changed while it was examined"):
        source.check_unchanged()
    assert source.read_at(0, 99) == b"12345"  # what was there when it was opened


def test_evidence_that_is_written_to_without_growing(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(b"12345")
    os.utime(path, ns=(10**18, 10**18))
    source = FileSource(path)
    with path.open("r+b") as file:
        file.write(b"9")
    with pytest.raises(EvidenceChanged):
        source.check_unchanged()


def test_nothing_is_written(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(DATA)
    path.chmod(0o444)
    before = path.stat()
    source = FileSource(path)
    list(source.blocks())
    source.close()
    after = path.stat()
    assert (after.st_mtime_ns, after.st_ctime_ns, after.st_size) == (
        before.st_mtime_ns,
        before.st_ctime_ns,
        before.st_size,
    )


def test_a_source_goes_to_other_processes_by_its_path(path: Path) -> None:
    source = FileSource(path, Origin("exhibit", Origin("case")), follow=False)
    copy = pickle.loads(pickle.dumps(source))
    source.close()
    assert (copy.origin, copy.size, copy.read_at(3, 9)) == (source.origin, 70_000, DATA[3:12])


def test_a_source_that_never_opened_is_released_quietly() -> None:
    with pytest.raises(TypeError):
        FileSource(5)  # type: ignore[arg-type]


def test_a_file_whose_size_cannot_be_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of /proc, which cannot be seeked in."""

    def lseek(*_: int) -> int:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "lseek", lseek)
    with pytest.raises(DamagedData, match="Invalid argument"):
        FileSource(path)


@pytest.mark.parametrize("kind", [FileSource, FolderFile])
def test_a_file_that_is_gone_where_it_is_needed(kind: type[FileSource], tmp_path: Path) -> None:
    """Who reads it learns that; unpickling must not raise, or it would end a pool of workers."""
    path = tmp_path / "x"
    path.write_bytes(DATA)
    packed = pickle.dumps(kind(path, Origin("exhibit")))
    path.unlink()
    copy = pickle.loads(packed)
    assert (copy.origin, copy.size) == (Origin("exhibit"), 70_000)
    with pytest.raises(PathNotFound):
        copy.read_at(0, 1)
    with pytest.raises(PathNotFound):
        list(copy.blocks())


# --- files of a folder ------------------------------------------------------------------------------------------------


def test_more_files_of_a_folder_than_may_be_open(tmp_path: Path) -> None:
    files = OpenFiles()
    for number in range(200):
        (tmp_path / str(number)).write_text(str(number))
    sources = [FolderFile(tmp_path / str(number), Origin(str(number)), files) for number in range(200)]
    for number, source in enumerate(sources):
        assert source.read_at(0, 9) == b"".join(source.blocks()) == str(number).encode()
    assert len(files._idle) == 64


def test_threads_share_a_file_of_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(DATA)
    source = FolderFile(path, Origin("x"))
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda offset: source.read_at(offset, 99), range(200))) == [
            DATA[offset : offset + 99] for offset in range(200)
        ]


def test_a_file_of_a_folder_that_changes(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"12345")
    source = FolderFile(path, Origin("x"))
    with path.open("ab") as file:
        file.write(b"6")
    assert source.read_at(0, 99) == b"12345"  # what was there when it was looked at
    with pytest.raises(EvidenceChanged):
        source.check_unchanged()
    short = tmp_path / "short"
    short.write_bytes(b"1")
    source = FolderFile(path, Origin("x"))  # whose opener has not read it yet
    short.replace(path)
    source._files = OpenFiles()
    with pytest.raises(EvidenceChanged, match="shorter"):
        source.read_at(0, 1)


@pytest.mark.skipif(not hasattr(os, "O_NOFOLLOW"), reason="this system cannot refuse to follow a link")
def test_a_file_of_a_folder_is_never_a_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"secret")
    path = tmp_path / "x"
    path.write_bytes(b"12345")
    source = FolderFile(path, Origin("x"))
    path.unlink()
    path.symlink_to(outside)
    source._files = OpenFiles()
    with pytest.raises(NotAFile):
        source.read_at(0, 1)
    with pytest.raises(NotAFile):
        FolderFile(path, Origin("x"))
