"""Files of a tree, copied out to the examiner's disk with their digests; what the evidence says stays data there."""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from forensics_lib.errors import DamagedData, ForensicsError, LimitExceeded, UnsupportedFormat
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.trees.base import Node, NodeKind, Tree, parent_of

__all__ = ["Extracted", "extract", "is_safe", "substitute"]

T = TypeVar("T")

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_ATTEMPTS = 16
_REFUSED = frozenset({errno.EEXIST, errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, errno.ENOENT})
"""What systems say of a name that they cannot hold, or hold already (``A`` and ``a`` may be one)."""
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
_WINDOWS = re.compile(
    r'[<>:"|?*\\/\x00-\x1f]|[. ]$|^(?:con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])(?: *\.|$)',
    re.IGNORECASE,
)
"""Names that Windows takes for devices, streams or paths, or changes without saying so (Microsoft, "Naming Files")."""


@dataclass(frozen=True, slots=True)
class Extracted:
    """What became of one node of a tree.

    Attributes:
        path: its path in the tree.
        to: where it is now; None when nothing was made.
        kind: what it is in the tree.
        size: bytes that were written.
        md5: of these; None for what is no file.
        sha1: the same.
        sha256: the same.
        note: what is not as in the tree, and why; empty when all is.
        origin: where the tree records it.
    """

    path: str
    to: Path | None
    kind: NodeKind
    size: int
    md5: str | None
    sha1: str | None
    sha256: str | None
    note: str
    origin: Origin


def extract(
    tree: Tree, path: str, to: str | os.PathLike[str], problems: ProblemLog, *, symlinks: bool = False
) -> Iterator[Extracted]:
    """Copy a file, or a folder with everything below it, into a folder, with a row for each.

    Nothing is written outside of that folder, nothing that exists is followed or replaced. Files get mode 0600 and
    folders 0700, whatever the evidence says, and their time of last change. Devices, FIFOs and sockets are never made.
    A name that the disk cannot hold, or that would be another file's here, gets a substitute of a part of its sha256
    and its safe characters, and a note. Of a damaged file the readable beginning is kept under a name with
    ``.partial``. Links between files become copies.

    Args:
        tree: where to copy from; an extracted root is the folder itself, everything else lies in it by its name.
        path: what to copy; links in its parents are followed inside the tree, a link itself is one to be listed.
        to: the folder; it must be empty or not exist.
        problems: gets what could not be copied.
        symlinks: make symbolic links too, with the targets that the evidence gives them, after everything else. They
            can point at files of the examiner, which other programs will follow.

    Raises:
        PathNotFound: no such path in the tree.
        FileExistsError: the folder is not empty, or is no folder.
        OSError: the disk is full, or cannot be written.
    """
    return _Extraction(Path(to), problems, symlinks).run(tree, path)


class _Extraction:
    """One copying; remembers where each folder of the tree lies on disk."""

    def __init__(self, to: Path, problems: ProblemLog, symlinks: bool) -> None:
        self._to = to
        self._problems = problems
        self._symlinks = symlinks
        self._folders: dict[str, Path] = {}

    def run(self, tree: Tree, path: str) -> Iterator[Extracted]:
        first = tree.node(path)
        to = self._to
        if os.path.lexists(to) and (to.is_symlink() or not to.is_dir() or any(to.iterdir())):
            raise FileExistsError(errno.EEXIST, "not an empty folder", str(to))
        to.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folders["/" if first.path == "/" else parent_of(first.path)] = to
        links, folders = [], []
        for node in tree.walk(first.path):
            if node.kind is NodeKind.SYMLINK and self._symlinks:
                links.append(node)
                continue
            row = self._copy(node)
            if node.kind is NodeKind.DIR and row.to is not None:
                folders.append((row.to, node))
            yield row
        for node in links:  # last, so that nothing can be written through one
            yield self._copy(node)
        for folder, node in reversed(folders):  # last, because what is made in a folder changes its time
            self._set_time(folder, node)

    def _copy(self, node: Node) -> Extracted:
        try:
            match node.kind:
                case NodeKind.FILE:
                    return self._file(node)
                case NodeKind.DIR:
                    return self._folder(node)
                case NodeKind.SYMLINK if self._symlinks:
                    return self._link(node)
                case NodeKind.SYMLINK:
                    return _row(node, None, f"symbolic link to {node.target}; not made")
                case kind:
                    return _row(node, None, f"a {kind} is never made")
        except ForensicsError as error:
            self._problems.add(node.origin, error)
            return _row(node, None, str(error))

    def _folder(self, node: Node) -> Extracted:
        if node.path == "/":
            return _row(node, self._to, "")
        place, _, note = self._make(node.path, lambda place: place.mkdir(mode=0o700))
        self._folders[node.path] = place
        return _row(node, place, note)

    def _file(self, node: Node) -> Extracted:
        import shutil  # it brings every compression with it

        free = shutil.disk_usage(self._to).free
        if node.size > free:
            raise LimitExceeded(f"{node.path}: its {node.size} bytes are more than the {free} that the disk has free")
        place, descriptor, note = self._make(node.path, _create)
        digests = [hashlib.new(name, usedforsecurity=False) for name in ("md5", "sha1", "sha256")]
        size = 0
        try:
            with os.fdopen(descriptor, "wb") as file:
                for block in node.source().blocks():
                    file.write(block)
                    size += len(block)
                    for digest in digests:
                        digest.update(block)
        except ForensicsError as error:
            place, note = self._keep_part(node, place, size, error)
        except BaseException:  # the disk is full, Ctrl-C …
            place.unlink()
            raise
        self._set_time(place, node)
        md5, sha1, sha256 = (digest.hexdigest() for digest in digests)
        return Extracted(node.path, place, node.kind, size, md5, sha1, sha256, note, node.origin)

    def _keep_part(self, node: Node, place: Path, size: int, error: ForensicsError) -> tuple[Path, str]:
        """Mark a file of which only the beginning can be read.

        Raises:
            ForensicsError: nothing of it can, and it is removed again.
        """
        try:
            if not size:
                raise DamagedData(f"{node.path}: {error}", origin=node.origin) from error
            note = f"only the first {size} of {node.size} bytes can be read: {error}"
            self._problems.add(node.origin, DamagedData(f"{node.path}: {note}", origin=node.origin))
            part, descriptor, _ = self._make(f"{node.path}.partial", _create)
            os.close(descriptor)
            return place.replace(part), note
        except BaseException:  # a strict log, a full disk …
            place.unlink(missing_ok=True)
            raise

    def _link(self, node: Node) -> Extracted:
        try:
            place, _, note = self._make(node.path, lambda place: place.symlink_to(node.target or ""))
        except OSError as error:  # a disk without links, a right that is missing
            message = f"{node.path}: symbolic link to {node.target} cannot be made: {error}"
            raise UnsupportedFormat(message) from error
        return _row(node, place, note)

    def _make(self, path: str, create: Callable[[Path], T]) -> tuple[Path, T, str]:
        """Create something under the first name that the disk takes; what `create` returned, and what is unusual.

        Raises:
            UnsupportedFormat: it takes none.
        """
        reason: Exception | None = None
        for place, note in self._places(path):
            try:
                return place, create(place), note
            except ValueError as error:  # a NUL, or a surrogate that stands for no byte
                reason = error
            except OSError as error:
                if error.errno not in _REFUSED:
                    raise
                reason = error
        raise UnsupportedFormat(f"{path}: cannot be made here: {reason}")

    def _places(self, path: str) -> Iterator[tuple[Path, str]]:
        folder, name = self._folders.get(parent_of(path)), path.rpartition("/")[2]
        if folder is not None:
            if is_safe(name):
                yield folder / name, ""
            for attempt in range(_ATTEMPTS):
                yield folder / substitute(name, attempt), "renamed: the disk cannot hold the name"
        for attempt in range(_ATTEMPTS):
            yield self._to / substitute(path, attempt), "moved: the disk cannot hold the path"

    def _set_time(self, place: Path, node: Node) -> None:
        if node.mtime_ns is None:
            return
        try:
            os.utime(place, ns=(node.mtime_ns if node.atime_ns is None else node.atime_ns, node.mtime_ns))
        except (OSError, OverflowError) as error:
            self._problems.add(node.origin, f"{node.path}: the disk does not take its time: {error}")


def is_safe(name: str, *, windows: bool = os.name == "nt") -> bool:
    """Whether a name can be tried on disk: it names something in its folder and nothing else."""
    return name not in ("", ".", "..") and not (windows and _WINDOWS.search(name))


def substitute(name: str, attempt: int) -> str:
    """A name that every disk can hold, told from others by a part of the original's sha256.

    >>> substitute("con:fig", 0)
    '7b3e550bee9c~con_fig'
    """
    digest = hashlib.sha256(f"{name}{attempt or ''}".encode("utf-8", "surrogatepass")).hexdigest()
    return f"{digest[:12]}~{_UNSAFE.sub('_', name)[-100:].rstrip('.')}"


def _create(place: Path) -> int:
    return os.open(place, _FLAGS, 0o600)


def _row(node: Node, to: Path | None, note: str) -> Extracted:
    return Extracted(node.path, to, node.kind, 0, None, None, None, note, node.origin)
