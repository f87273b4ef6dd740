"""A file on the examiner's disk, opened for reading only."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from forensics_lib.errors import DamagedData, EvidenceChanged, ForensicsError, NotAFile, PathNotFound
from forensics_lib.model import Origin
from forensics_lib.sources.base import Source

__all__ = ["FileSource", "FolderFile", "OpenFiles"]

_PREAD = hasattr(os, "pread")
_KEPT_OPEN = 64  # far below the 256 files (macOS) to 1,024 (Linux) that a process may have open


class FileSource(Source):
    """The bytes of one regular file (or block device).

    A FIFO or socket is refused before it is opened, because opening it could block. The source pickles by its path, so
    that workers in other processes open it again.

    Args:
        path: the file.
        origin: defaults to the file's name.
        follow: whether a symbolic link may be followed; only for the path an examiner named, never inside evidence.

    Raises:
        PathNotFound: there is no such file.
        NotAFile: it is a folder, FIFO or socket, or a link that must not be followed.
        DamagedData: it exists but cannot be opened.
    """

    _fd = -1

    def __init__(self, path: str | os.PathLike[str], origin: Origin | None = None, *, follow: bool = True) -> None:
        """Open the file for reading."""
        self.path = Path(path)
        self.origin = origin or Origin(self.path.name or str(self.path))
        self._follow = follow
        self._lock = threading.Lock()
        flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
        if not follow:
            flags |= getattr(os, "O_NOFOLLOW", 0)
        try:
            self._check_kind(self.path.stat() if follow else self.path.lstat())
            # not to wait for a writer, should a FIFO have taken the file's place meanwhile
            self._fd = os.open(self.path, flags | getattr(os, "O_NONBLOCK", 0))
            self._check_kind(os.fstat(self._fd))
            self._stamp = _stamp(os.fstat(self._fd))
            self.size = os.lseek(self._fd, 0, os.SEEK_END)
        except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # a name no file can have is a ValueError
            raise PathNotFound(f"{str(self.path)!r} does not exist") from error
        except OSError as error:
            if isinstance(error, NotAFile):
                raise
            raise DamagedData(f"cannot open {self.path}: {error.strerror or error}", origin=self.origin) from error

    def read_at(self, offset: int, length: int) -> bytes:
        """The bytes at a position; short only at the end.

        Raises:
            DamagedData: the disk reports a read error.
            ValueError: the evidence was closed, which is no fault of the evidence.
        """
        length = min(length, self.size - offset)
        if length <= 0:
            return b""
        if self._fd < 0:
            raise ValueError(f"{self.path} was closed: ask while the evidence is open, tables read when they are used")
        try:
            if not _PREAD:  # Windows has no positional read
                with self._lock:
                    os.lseek(self._fd, offset, os.SEEK_SET)
                    return os.read(self._fd, length)
            data = os.pread(self._fd, length, offset)
            while len(data) < length and (more := os.pread(self._fd, length - len(data), offset + len(data))):
                data += more
        except OSError as error:
            raise DamagedData(
                f"cannot read {length} bytes: {error.strerror or error}", origin=self.origin, offset=offset
            ) from error
        return data

    @property
    def is_open(self) -> bool:
        """Whether it can still be read."""
        return self._fd >= 0

    @property
    def is_in_place(self) -> bool:
        """Whether its path still leads to it, no link followed."""
        try:
            return _stamp(self.path.lstat())[2] == self._stamp[2]
        except OSError:
            return False

    def _check_kind(self, status: os.stat_result) -> None:
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISBLK(status.st_mode)):
            raise NotAFile(f"{self.path} is no regular file")

    def check_unchanged(self) -> None:
        """Compare size and times with those at opening.

        Raises:
            EvidenceChanged: someone wrote to the file since.
        """
        if self._fd >= 0 and _stamp(os.fstat(self._fd)) != self._stamp:
            raise EvidenceChanged(f"{self.path} was changed while it was examined")

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __del__(self) -> None:
        """Close a file that nobody closed."""
        self.close()

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by path."""
        return (_reopen, (self.path, self.origin, self._follow, self.size))


class OpenFiles:
    """Lends files of a folder; of those that came back a few are kept open for the next time."""

    def __init__(self) -> None:
        """Nothing is open yet."""
        self._idle: dict[Path, FileSource] = {}
        self._lock = threading.Lock()

    @contextmanager
    def lend(self, path: Path, origin: Origin) -> Iterator[FileSource]:
        """A file for the borrower alone; a symbolic link is not followed.

        Raises:
            PathNotFound: there is no such file.
            NotAFile: it is a folder, link, FIFO or socket.
            DamagedData: it exists but cannot be opened.
        """
        with self._lock:
            file = self._idle.pop(path, None)
        if file is not None and not file.is_in_place:
            file.close()  # an open file outlives its name, and would answer for the one that took its place
            file = None
        if file is None:
            file = FileSource(path, origin, follow=False)
        try:
            yield file
        finally:
            self._take_back(path, file)

    def _take_back(self, path: Path, file: FileSource) -> None:
        with self._lock:
            surplus = [self._idle.pop(path)] if path in self._idle else []
            self._idle[path] = file
            while len(self._idle) > _KEPT_OPEN:
                surplus.append(self._idle.pop(next(iter(self._idle))))
        for one in surplus:
            one.close()

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle without the files: another process opens its own."""
        return (OpenFiles, ())


class FolderFile(FileSource):
    """A file of a folder that may hold more files than a process may have open; it is open while it is read.

    Args:
        path: the file; a symbolic link is not followed.
        origin: where it is.
        files: who opens it.

    Raises:
        PathNotFound: there is no such file.
        NotAFile: it is a folder, link, FIFO or socket.
        DamagedData: it exists but cannot be opened.
    """

    def __init__(self, path: Path, origin: Origin, files: OpenFiles | None = None) -> None:
        """Look at the file."""
        self.path = path
        self.origin = origin
        self._files = files or OpenFiles()
        with self._files.lend(path, origin) as file:
            self.size = file.size
            self._stamp = file._stamp

    def read_at(self, offset: int, length: int) -> bytes:
        """The bytes at a position; short only at the end.

        Raises:
            EvidenceChanged: the file is shorter than it was.
            DamagedData: the disk reports a read error.
            PathNotFound: the file is gone.
        """
        with self._files.lend(self.path, self.origin) as file:
            if file.size < self.size:
                raise EvidenceChanged(f"{self.path} was changed while it was examined: it is shorter now")
            return file.read_at(offset, min(length, self.size - offset))

    def check_unchanged(self) -> None:
        """Compare size and times with those at the start.

        Raises:
            EvidenceChanged: someone wrote to the file since, put another one in its place, or took it away.
        """
        try:
            unchanged = _stamp(self.path.lstat()) == self._stamp
        except OSError:
            unchanged = False
        if not unchanged:
            raise EvidenceChanged(f"{self.path} was changed while it was examined")

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by path."""
        return (_reopen_folder_file, (self.path, self.origin, self.size))


class _Gone(Source):
    """A file that could not be opened again; who reads it learns why."""

    def __init__(self, origin: Origin, size: int, reason: ForensicsError) -> None:
        self.origin = origin
        self.size = size
        self._reason = reason

    def read_at(self, offset: int, length: int) -> bytes:
        raise self._reason


def _reopen(path: Path, origin: Origin, follow: bool, size: int) -> Source:
    try:
        return FileSource(path, origin, follow=follow)
    except ForensicsError as error:  # an exception here would break the pool of workers that unpickles
        return _Gone(origin, size, error)


def _reopen_folder_file(path: Path, origin: Origin, size: int) -> Source:
    try:
        return FolderFile(path, origin)
    except ForensicsError as error:
        return _Gone(origin, size, error)


def _stamp(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ino
