"""A file on the examiner's disk, opened for reading only."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

from forensics_lib.errors import DamagedData, EvidenceChanged, NotAFile, PathNotFound
from forensics_lib.model import Origin
from forensics_lib.sources.base import Source

__all__ = ["FileSource"]


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
        except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # a name no file can have is a ValueError
            raise PathNotFound(f"{str(self.path)!r} does not exist") from error
        except OSError as error:
            if isinstance(error, NotAFile):
                raise
            raise DamagedData(f"cannot open {self.path}: {error.strerror or error}", origin=self.origin) from error
        self._stamp = _stamp(os.fstat(self._fd))
        self.size = os.lseek(self._fd, 0, os.SEEK_END)

    def read_at(self, offset: int, length: int) -> bytes:
        """The bytes at a position; short only at the end.

        Raises:
            DamagedData: the disk reports a read error.
        """
        length = min(length, self.size - offset)
        if length <= 0:
            return b""
        try:
            if not hasattr(os, "pread"):  # Windows has no positional read
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

    def _check_kind(self, status: os.stat_result) -> None:
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISBLK(status.st_mode)):
            raise NotAFile(f"{self.path} is no regular file")

    def check_unchanged(self) -> None:
        """Compare size and times with those at opening.

        Raises:
            EvidenceChanged: someone wrote to the file since.
        """
        if _stamp(os.fstat(self._fd)) != self._stamp:
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
        return (_reopen, (self.path, self.origin, self._follow))


def _reopen(path: Path, origin: Origin, follow: bool) -> FileSource:
    return FileSource(path, origin, follow=follow)


def _stamp(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ino
