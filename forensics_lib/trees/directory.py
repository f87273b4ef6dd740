"""A folder on the examiner's disk as a file system. Nothing outside of it is ever reached through it."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from forensics_lib.errors import DamagedData, PathNotFound
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.sources.base import Source
from forensics_lib.sources.file import FolderFile, OpenFiles
from forensics_lib.trees.base import Node, NodeKind, Tree

__all__ = ["DirectoryTree"]

_KINDS = {
    stat.S_IFREG: NodeKind.FILE,
    stat.S_IFDIR: NodeKind.DIR,
    stat.S_IFLNK: NodeKind.SYMLINK,
    stat.S_IFCHR: NodeKind.CHAR,
    stat.S_IFBLK: NodeKind.BLOCK,
    stat.S_IFIFO: NodeKind.FIFO,
    stat.S_IFSOCK: NodeKind.SOCKET,
}


@dataclass(frozen=True, slots=True)
class _FileContent:
    """The bytes of a file in the folder; opened without following a link, and never when it is a FIFO or device."""

    path: Path
    origin: Origin
    files: OpenFiles

    def source(self) -> Source:
        """The bytes."""
        return FolderFile(self.path, self.origin, self.files)


class DirectoryTree(Tree):
    """A folder as it lies on disk; its symbolic links are read, never followed by the operating system.

    Args:
        folder: the folder.
        problems: gets what cannot be listed or read.

    Raises:
        PathNotFound: there is no such folder.
    """

    def __init__(self, folder: str | os.PathLike[str], problems: ProblemLog) -> None:
        """Remember the folder; nothing is read yet."""
        self.folder = Path(folder)
        self.origin = Origin(self.folder.name or str(self.folder))
        self._problems = problems
        self._files = OpenFiles()
        if not self.folder.is_dir():
            raise PathNotFound(f"{self.folder} is no folder")

    def _lookup(self, path: str) -> Node | None:
        place = self.folder / path.lstrip("/") if path != "/" else self.folder
        try:
            status = place.stat() if path == "/" else place.lstat()
            target = str(place.readlink()) if stat.S_ISLNK(status.st_mode) else None
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return None
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                return None  # a name that no disk can hold, asked for by a link or a document of the evidence
            origin = self.origin.to(path)
            self._problems.add(origin, DamagedData(f"cannot be looked at: {error.strerror or error}", origin=origin))
            return None
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), NodeKind.FILE)
        is_file = kind is NodeKind.FILE
        return Node(
            path,
            kind,
            stat.S_IMODE(status.st_mode),
            status.st_uid,
            status.st_gid,
            status.st_size if is_file else 0,
            status.st_mtime_ns,
            self.origin.to(path.lstrip("/")) if path != "/" else self.origin,
            atime_ns=status.st_atime_ns,
            ctime_ns=status.st_ctime_ns,
            target=target,
            rdev=getattr(status, "st_rdev", 0) if kind in (NodeKind.CHAR, NodeKind.BLOCK) else 0,
            nlink=status.st_nlink,
            inode=status.st_ino,
            xattrs=self._xattrs(place),
            content=_FileContent(place, self.origin.to(path.lstrip("/")), self._files) if is_file else None,
        )

    def _names(self, path: str) -> Iterable[str]:
        place = self.folder / path.lstrip("/") if path != "/" else self.folder
        try:
            return os.listdir(place)  # noqa: PTH208 - names as they are, not paths
        except OSError as error:
            origin = self.origin.to(path)
            self._problems.add(origin, DamagedData(f"cannot be listed: {error.strerror or error}", origin=origin))
            return ()

    def _xattrs(self, place: Path) -> dict[str, bytes]:
        if not hasattr(os, "listxattr"):
            return {}
        try:
            names = os.listxattr(place, follow_symlinks=False)
            return {name: os.getxattr(place, name, follow_symlinks=False) for name in names}
        except OSError:
            return {}  # not every file system has them
