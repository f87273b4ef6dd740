"""File systems that only The Sleuth Kit reads here: FAT, exFAT, NTFS, HFS+ and ISO 9660, for finding things in them."""

from __future__ import annotations

import calendar
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from forensics_lib.errors import DamagedData, ForensicsError, UnsupportedFormat
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.sources.base import BLOCK, Source
from forensics_lib.trees.base import Node, NodeKind, Tree, byte_order, parent_of

__all__ = ["KIT_TYPES", "KitTree"]

KIT_TYPES = {"vfat": "FAT", "exfat": "EXFAT", "ntfs": "NTFS", "hfsplus": "HFS", "iso9660": "ISO9660"}
"""What the kit calls the types of file systems, by the names of ``blkid``."""
_LOCAL_TIMES = ("vfat", "exfat", "iso9660")  # which keep what a clock on the wall showed
_KINDS = {
    1: NodeKind.FILE,
    2: NodeKind.DIR,
    3: NodeKind.FIFO,
    4: NodeKind.CHAR,
    5: NodeKind.BLOCK,
    6: NodeKind.SYMLINK,
    8: NodeKind.SOCKET,
}
_VIRTUAL = (10, 11)  # what the kit adds itself
_IN_USE = 1
_NTFS_DATA, _NTFS_VOLUME_NAME, _NTFS_VOLUME = 128, 96, 3
_NTFS_OWN_FILES = 64  # their numbers are below
_VOLUME_LABEL = b" (Volume Label Entry)"
_MAX_KEPT = 100_000  # names of directories that are kept
_MAX_NAMES = 1_000_000  # of one directory
_SECOND = 1_000_000_000
_Kit: TypeAlias = Any  # pytsk3 has no types
_FAULTS = (OSError, SystemError, ValueError, OverflowError, RuntimeError)  # how the kit fails on damaged bytes


class _Entry(NamedTuple):
    """A name in a directory, and what the kit says of its inode."""

    inode: int
    parent: int
    kind: NodeKind
    mode: int
    uid: int
    gid: int
    size: int
    times: tuple[int | None, int | None, int | None, int | None]
    nlink: int
    target: str | None
    stream: int | None = None


@dataclass(frozen=True, slots=True)
class _Content:
    tree: KitTree
    entry: _Entry
    origin: Origin

    def source(self) -> Source:
        return _FileSource(self.tree, self.entry, self.origin)


class KitTree(Tree):
    """A file system that The Sleuth Kit reads: names in use, times, sizes and content.

    FAT, exFAT and ISO 9660 keep times without saying of which zone (or the kit does not look); they are given as if it
    was UTC. Streams of NTFS beside a file's content are files named ``file:stream``; those of the file system's own
    files, whose names begin with ``$``, are not shown. Owners and modes are as the kit makes them up where the file
    system has none. A directory is listed at the first path that leads to it only.

    Not supported: extended attributes, permissions of NTFS, links of NTFS, Rock Ridge beyond names, deleted files.

    Args:
        source: the file system's bytes.
        problems: gets damage.
        kind: its type, one of `KIT_TYPES`.

    Attributes:
        label: the file system's name, as it is kept beside the superblock; empty where it is not.
        volume_size: bytes of the volume that holds it.

    Raises:
        UnsupportedFormat: the kit does not read this type.
        DamagedData: no such file system, or damaged beyond opening.
    """

    def __init__(self, source: Source, problems: ProblemLog, kind: str) -> None:
        """Open the file system."""
        import pytsk3

        if kind not in KIT_TYPES:
            raise UnsupportedFormat(f"{kind} is not read")
        self.origin = source.origin
        self._problems = problems
        self._kind = kind
        self.volume_size = source.size
        self._lock = threading.RLock()
        detect = f"TSK_FS_TYPE_{KIT_TYPES[kind]}"
        self._image = _image(source)
        with self._failing("the file system cannot be opened"):
            number = getattr(pytsk3, f"{detect}_DETECT", None) or getattr(pytsk3, detect)
            self._fs = pytsk3.FS_Info(self._image, offset=0, type=number)
            self._top = int(self._fs.info.root_inum)
        self._folders: dict[int, dict[str, _Entry]] = {}
        self._names_kept = 0
        self._homes: dict[int, int] = {self._top: self._top}
        self.label = ""
        self.label = self._label()
        if kind == "iso9660" and _has_rock_ridge(source):
            message = "owners, modes, links and long times of Rock Ridge are not read, its names are"
            problems.add(self.origin, UnsupportedFormat(message))

    def read_file(self, inode: int, stream: int | None, offset: int, length: int) -> bytes:
        """Bytes of a file, or of a stream of it.

        Raises:
            DamagedData: they cannot be read.
        """
        with self._failing(f"inode {inode} cannot be read at {offset}"):
            file = self._fs.open_meta(inode=inode)
            if stream is None:
                return bytes(file.read_random(offset, length))
            return bytes(file.read_random(offset, length, _NTFS_DATA, stream))

    def _children(self, path: str) -> Iterator[Node]:
        prefix = path if path == "/" else f"{path}/"
        for name, entry in self._folder(path).items():
            yield self._node(prefix + name, entry)

    def _names(self, path: str) -> Iterable[str]:
        return self._folder(path)

    def _lookup(self, path: str) -> Node | None:
        if path == "/":
            return self._root_node()
        entry = self._folder(parent_of(path)).get(path.rpartition("/")[2])
        return None if entry is None else self._node(path, entry)

    def _root_node(self) -> Node:
        times: tuple[int | None, ...] = (None,) * 4
        try:
            with self._failing("the root directory cannot be read"):
                times = self._times(self._fs.open_meta(inode=self._top).info.meta)
        except DamagedData as error:
            self._problems.add(self.origin, error)
        atime, mtime, ctime, btime = times
        return Node("/", NodeKind.DIR, 0o755, 0, 0, 0, mtime, self.origin, atime, ctime, btime, inode=self._top)

    def _node(self, path: str, entry: _Entry) -> Node:
        origin = self.origin.to(f"inode {entry.inode}")
        is_file = entry.kind is NodeKind.FILE
        atime, mtime, ctime, btime = entry.times
        return Node(
            path,
            entry.kind,
            entry.mode,
            entry.uid,
            entry.gid,
            entry.size if is_file else 0,
            mtime,
            origin,
            atime,
            ctime,
            btime,
            entry.target,
            nlink=entry.nlink,
            inode=entry.inode,
            content=_Content(self, entry, origin) if is_file else None,
        )

    def _folder(self, path: str) -> dict[str, _Entry]:
        """The names of the directory at exactly this path."""
        number = self._top
        for name in filter(None, path.split("/")):
            entry = self._listed(number).get(name)
            if entry is None or entry.kind is not NodeKind.DIR:
                return {}
            number = entry.inode
        return self._listed(number)

    def _listed(self, number: int) -> dict[str, _Entry]:
        with self._lock:
            known = self._folders.get(number)
            if known is None:
                known = dict(sorted(self._read_folder(number), key=lambda one: byte_order(one[0])))
                self._names_kept += 1 + len(known)
                if self._names_kept > _MAX_KEPT:
                    self._folders.clear()
                    self._names_kept = 1 + len(known)
                self._folders[number] = known
            return known

    def _read_folder(self, number: int) -> Iterator[tuple[str, _Entry]]:
        origin = self.origin.to(f"inode {number}")
        seen: set[bytes] = set()
        count = 0
        try:
            with self._failing(f"directory {number} cannot be read"):
                for entry in self._fs.open_dir(inode=number):
                    count += 1
                    if count > _MAX_NAMES:
                        raise DamagedData(f"directory with more than {_MAX_NAMES} names", origin=origin)
                    name = bytes(entry.info.name.name or b"")
                    if int(entry.info.name.flags) & _IN_USE and name not in (b".", b".."):
                        for text, found in self._entries(number, name, entry, origin):
                            if text not in seen:
                                seen.add(text)
                                yield text.decode("utf-8", "surrogateescape"), found
        except DamagedData as error:
            self._problems.add(origin, error)

    def _entries(self, parent: int, name: bytes, entry: _Kit, origin: Origin) -> Iterator[tuple[bytes, _Entry]]:
        """What one entry of a directory names: a file, and the streams beside its content."""
        meta = entry.info.meta
        text = name.decode("utf-8", "backslashreplace")
        if meta is None:
            self._problems.add(origin, f"{text}: its metadata cannot be read")
            return
        type_ = int(meta.type)
        if type_ in _VIRTUAL or (self._kind in ("vfat", "exfat") and name.endswith(_VOLUME_LABEL)):
            return
        if not name or b"/" in name or b"\0" in name:
            self._problems.add(origin, f"directory with an impossible name {name!r}")
            return
        kind, inode = _KINDS.get(type_), int(meta.addr)
        if kind is None:
            self._problems.add(origin, f"{text}: inode {inode} is of unknown type {type_}")
            return
        if kind is NodeKind.DIR and self._homes.setdefault(inode, parent) != parent:
            self._problems.add(origin, f"{text}: directory {inode} belongs to another place; it is left out here")
            return
        link = meta.link if kind is NodeKind.SYMLINK else None
        found = _Entry(
            inode,
            parent,
            kind,
            int(meta.mode) & 0xFFF,
            int(meta.uid),
            int(meta.gid),
            max(int(meta.size), 0),
            self._times(meta),
            max(int(meta.nlink), 1),
            None if link is None else bytes(link).decode("utf-8", "surrogateescape"),
        )
        yield name, found
        if self._kind == "ntfs" and inode >= _NTFS_OWN_FILES:
            for attribute in entry:
                info = attribute.info
                if int(info.type) == _NTFS_DATA and info.name:
                    stream = found._replace(kind=NodeKind.FILE, size=max(int(info.size), 0), stream=int(info.id))
                    yield name + b":" + bytes(info.name), stream

    def _times(self, meta: _Kit) -> tuple[int | None, int | None, int | None, int | None]:
        """Access, change of content, change of the record and creation."""
        pairs = (
            (meta.atime, meta.atime_nano),
            (meta.mtime, meta.mtime_nano),
            (meta.ctime, meta.ctime_nano),
            (meta.crtime, meta.crtime_nano),
        )
        return (self._time(*pairs[0]), self._time(*pairs[1]), self._time(*pairs[2]), self._time(*pairs[3]))

    def _time(self, seconds: int, nanoseconds: int) -> int | None:
        if not seconds:
            return None
        if self._kind in _LOCAL_TIMES:  # the kit took the clock on the wall for one in the examiner's own zone
            try:
                seconds = calendar.timegm(time.localtime(seconds))
            except (OverflowError, ValueError, OSError):
                return None
        return int(seconds) * _SECOND + int(nanoseconds)

    def _label(self) -> str:
        try:
            if self._kind == "ntfs":
                with self._failing("the volume's name cannot be read"):
                    file = self._fs.open_meta(inode=_NTFS_VOLUME)
                    for attribute in file:
                        if int(attribute.info.type) == _NTFS_VOLUME_NAME and 0 < int(attribute.info.size) <= 512:
                            size, number = int(attribute.info.size), int(attribute.info.id)
                            data = bytes(file.read_random(0, size, _NTFS_VOLUME_NAME, number))
                            return data.decode("utf-16-le", "replace")
            if self._kind in ("vfat", "exfat"):
                with self._failing("the volume's name cannot be read"):
                    for entry, _ in zip(self._fs.open_dir(inode=self._top), range(_MAX_NAMES), strict=False):
                        name = bytes(entry.info.name.name or b"")
                        if name.endswith(_VOLUME_LABEL) and int(entry.info.name.flags) & _IN_USE:
                            return name.removesuffix(_VOLUME_LABEL).decode("utf-8", "replace").rstrip()
        except DamagedData as error:
            self._problems.add(self.origin, error)
        return ""

    def _failing(self, message: str) -> _Failing:
        return _Failing(self, message)


class _Failing:
    """Only one thread asks the kit at a time, and its failures become damage."""

    def __init__(self, tree: KitTree, message: str) -> None:
        self._tree = tree
        self._message = message

    def __enter__(self) -> None:
        self._tree._lock.acquire()
        self._tree._image.error = None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        below = self._tree._image.error
        self._tree._lock.release()
        if isinstance(error, _FAULTS) and not isinstance(error, ForensicsError):
            reason = below or str(error).partition("error: ")[2] or error
            raise DamagedData(f"{self._message}: {reason}", origin=self._tree.origin) from error


class _FileSource(Source):
    """A file's content, or a stream beside it."""

    def __init__(self, tree: KitTree, entry: _Entry, origin: Origin) -> None:
        self._tree = tree
        self._entry = entry
        self.size = entry.size
        self.origin = origin

    @property
    def stored_size(self) -> int:
        return min(self.size, self._tree.volume_size)

    def read_at(self, offset: int, length: int) -> bytes:
        if offset < 0:
            raise DamagedData(f"position {offset} lies before the start", origin=self.origin, offset=offset)
        end = min(offset + length, self.size)
        pieces = []
        while offset < end:
            piece = self._tree.read_file(self._entry.inode, self._entry.stream, offset, min(end - offset, 16 * BLOCK))
            if not piece:
                raise DamagedData(f"only {offset} of {self.size} bytes are there", origin=self.origin, offset=offset)
            pieces.append(piece)
            offset += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _image(source: Source) -> _Kit:
    """The source as an image of the kit, which calls back for every read."""
    import pytsk3

    class Image(pytsk3.Img_Info):  # type: ignore[misc]
        def __init__(self) -> None:
            self.error: ForensicsError | None = None
            super().__init__(url="", type=pytsk3.TSK_IMG_TYPE_EXTERNAL)

        def close(self) -> None: ...

        def read(self, offset: int, size: int) -> bytes:
            try:
                return source.read_at(offset, size)
            except ForensicsError as error:
                self.error = error
                return b""

        def get_size(self) -> int:
            return source.size

    return Image()


def _has_rock_ridge(source: Source) -> bool:
    """Whether the root directory of an ISO 9660 file system begins with the mark of the system use area."""
    try:
        place = int.from_bytes(source.read_at(0x8000 + 158, 4), "little") * 2048
        return b"SP\x07\x01\xbe\xef" in source.read_at(place, 256)
    except DamagedData:
        return False
