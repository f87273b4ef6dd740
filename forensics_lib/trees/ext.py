"""ext2, ext3 and ext4 file systems, read from their bytes: no mount, no root."""

from __future__ import annotations

import stat
import struct
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from forensics_lib.errors import DamagedData, UnsupportedFormat
from forensics_lib.formats.ext4 import EXTENTS, INLINE_DATA, ExtGeometry
from forensics_lib.formats.ext4_inode import ExtInode
from forensics_lib.formats.jbd2 import Journal, JournalBlock
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.sources.base import BytesSource, ExtentSource, SliceSource, Source
from forensics_lib.sources.file import FileSource
from forensics_lib.trees.base import Node, NodeKind, Tree, device_number, parent_of

__all__ = ["ExtTree", "ReplayedSource"]

_KINDS = {
    stat.S_IFREG: NodeKind.FILE,
    stat.S_IFDIR: NodeKind.DIR,
    stat.S_IFLNK: NodeKind.SYMLINK,
    stat.S_IFCHR: NodeKind.CHAR,
    stat.S_IFBLK: NodeKind.BLOCK,
    stat.S_IFIFO: NodeKind.FIFO,
    stat.S_IFSOCK: NodeKind.SOCKET,
}
_ROOT = 2
_ENCRYPTED = 0x800
_KNOWN_FOLDERS = 4096


@dataclass(frozen=True, slots=True)
class ExtContent:
    """The bytes of a file of the file system."""

    tree: ExtTree
    inode: int
    size: int
    origin: Origin

    def source(self) -> Source:
        """The bytes, holes as zeros."""
        return self.tree.content(self.inode, self.size, self.origin)


class ExtTree(Tree):
    """A file system of the ext family.

    Names and the content of files come from The Sleuth Kit; modes, owners, times, device numbers and extended
    attributes from the inodes themselves, because it does not give all of them. A journal that was not written back is
    replayed in memory.

    Not supported: encrypted files (their names and content are shown as stored), orphan inodes (see the recovery).

    Args:
        source: the file system's bytes.
        problems: gets damage, and what the replay of the journal did.

    Attributes:
        geometry: the superblock.
        replayed: blocks that were taken from the journal.

    Raises:
        DamagedData: no such file system, or damaged beyond opening.
    """

    def __init__(self, source: Source, problems: ProblemLog) -> None:
        """Read the superblock, and the journal when it has to be replayed."""
        import pytsk3

        self.origin = source.origin
        self._problems = problems
        self.geometry = ExtGeometry(source)
        self.replayed = 0
        self._source = self._replay(source) if self.geometry.needs_recovery else source
        if self._source is not source:
            self.geometry = ExtGeometry(self._source)
        self._lock = threading.RLock()
        try:
            self._image, offset = _open_image(self._source)
            self._fs = pytsk3.FS_Info(self._image, offset=offset)
        except OSError as error:
            raise DamagedData(f"file system cannot be opened: {error}", origin=source.origin) from error
        self._folders: dict[int, dict[str, int]] = {}
        self._numbers: dict[str, int] = {"/": _ROOT}

    @property
    def source(self) -> Source:
        """The file system's bytes, the replayed journal laid over them."""
        return self._source

    @property
    def label(self) -> str:
        """Name of the file system."""
        return self.geometry.label

    def content(self, number: int, size: int, origin: Origin) -> Source:
        """The bytes of a file by inode number.

        Raises:
            DamagedData: the inode contradicts itself.
        """
        inode = self.geometry.inode(number)
        if inode.flags & INLINE_DATA:
            rest = self.geometry.xattrs(inode).get("system.data", b"")
            return BytesSource((inode.block + rest)[:size], origin)
        if inode.flags & EXTENTS:
            block = self.geometry.block_size
            extents = sorted((at * block, to * block, count * block) for at, to, count in self.geometry.extents(inode))
            return ExtentSource(self._source, extents, size, origin)
        return _TskContent(self, number, size, origin)

    def read_file(self, number: int, offset: int, length: int) -> bytes:
        """Bytes of a file by inode number, read by The Sleuth Kit.

        Raises:
            DamagedData: they cannot be read.
        """
        with self._lock:
            try:
                data = self._fs.open_meta(inode=number).read_random(offset, length)
            except OSError as error:
                raise DamagedData(f"inode {number}: {error}", origin=self.origin, offset=offset) from error
            return bytes(data)

    def _children(self, path: str) -> Iterator[Node]:
        number = self._number(path)
        prefix = path if path == "/" else f"{path}/"
        for name, child in () if number is None else self._folder(number).items():
            node = self._node(prefix + name, child)
            if node is not None:
                yield node

    def _lookup(self, path: str) -> Node | None:
        number = self._number(path)
        return None if number is None else self._node(path, number)

    def _names(self, path: str) -> Iterable[str]:
        number = self._number(path)
        return () if number is None else self._folder(number)

    def _number(self, path: str) -> int | None:
        """The inode number of exactly this path."""
        number = self._numbers.get(path)
        if number is None:
            above = self._number(parent_of(path))
            number = None if above is None else self._folder(above).get(path.rpartition("/")[2])
        return number

    def _folder(self, number: int) -> dict[str, int]:
        """Inode numbers by name of a directory, in byte order of the names."""
        with self._lock:
            known = self._folders.get(number)
            if known is None:
                known = self._read_folder(number)
                if len(self._folders) >= _KNOWN_FOLDERS:
                    self._folders.clear()
                self._folders[number] = known
            return known

    def _read_folder(self, number: int) -> dict[str, int]:
        import pytsk3

        found: list[tuple[bytes, int]] = []
        allocated = int(pytsk3.TSK_FS_NAME_FLAG_ALLOC)
        try:
            for entry in self._fs.open_dir(inode=number):
                info = entry.info.name
                name = info.name
                if int(info.flags) & allocated and name not in (b".", b"..") and b"/" not in name:
                    found.append((name, int(info.meta_addr)))
        except OSError as error:
            origin = self.origin.to(f"inode {number}", self._offset(number))
            self._problems.add(origin, DamagedData(f"directory cannot be read: {error}", origin=origin))
        names = {name.decode("utf-8", "surrogateescape"): child for name, child in sorted(found)}
        if number == _ROOT:
            names.pop("$OrphanFiles", None)
        return names

    def _offset(self, number: int) -> int | None:
        try:
            return self.geometry.inode_offset(number)
        except DamagedData:
            return None

    def _node(self, path: str, number: int) -> Node | None:
        try:
            inode = self.geometry.inode(number)
        except DamagedData as error:
            self._problems.add(self.origin.to(path.lstrip("/")), error)
            return None
        origin = self.origin.to(f"inode {number}", inode.offset)
        kind = _KINDS.get(stat.S_IFMT(inode.mode))
        if kind is None:
            self._problems.add(origin, f"{path}: inode of unknown type {inode.mode:o}")
            return None
        if kind is NodeKind.DIR:
            self._numbers[path] = number
        is_file = kind is NodeKind.FILE
        if inode.flags & _ENCRYPTED:
            message = f"{path} is encrypted; names and content are shown as stored"
            self._problems.add(origin, UnsupportedFormat(message))
        return Node(
            path,
            kind,
            stat.S_IMODE(inode.mode),
            inode.uid,
            inode.gid,
            inode.size if is_file else 0,
            inode.mtime_ns,
            origin,
            inode.atime_ns,
            inode.ctime_ns,
            inode.btime_ns,
            self._target(inode, origin) if kind is NodeKind.SYMLINK else None,
            device_number(*inode.rdev) if kind in (NodeKind.CHAR, NodeKind.BLOCK) else 0,
            inode.nlink,
            number,
            self._xattrs(inode, origin),
            ExtContent(self, number, inode.size, origin) if is_file else None,
        )

    def _xattrs(self, inode: ExtInode, origin: Origin) -> dict[str, bytes]:
        if not inode.acl_block and not inode.tail[:4].strip(b"\0"):
            return {}
        try:
            found = self.geometry.xattrs(inode)
        except DamagedData as error:
            self._problems.add(origin, error)
            return {}
        return {name: value for name, value in found.items() if name != "system.data"}

    def _target(self, inode: ExtInode, origin: Origin) -> str:
        if inode.size < 60 and not inode.flags & (EXTENTS | INLINE_DATA):
            data = inode.block[: inode.size]
        else:
            try:
                data = self.content(inode.number, inode.size, origin).read_at(0, min(inode.size, 4096))
            except DamagedData as error:
                self._problems.add(origin, error)
                data = b""
        return data.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")

    def _replay(self, source: Source) -> Source:
        geometry = self.geometry
        try:
            inode = geometry.inode(geometry.journal_inode)
            size = geometry.block_size
            if inode.flags & EXTENTS:
                extents = sorted((at * size, to * size, count * size) for at, to, count in geometry.extents(inode))
                log: Source = ExtentSource(source, extents, inode.size, source.origin.to("journal"))
            else:
                log = _mapped(source, geometry, inode)
            journal = Journal(lambda number: log.read_at(number * size, size), log.origin)
        except (DamagedData, struct.error) as error:
            message = (
                f"the journal was not written back and cannot be read ({error}); the file system is shown without it"
            )
            self._problems.add(source.origin, DamagedData(message, origin=source.origin))
            return source
        self.replayed = len(journal.blocks)
        message = f"the journal was replayed in memory: {journal.transactions} transactions, {self.replayed} blocks"
        if journal.fast_commits:
            message += "; fast commits are not read"
        self._problems.add(source.origin, message)
        return ReplayedSource(source, log, journal.blocks, size)


class ReplayedSource(Source):
    """A file system with the newer blocks of its journal laid over it."""

    def __init__(self, parent: Source, log: Source, blocks: dict[int, JournalBlock], block_size: int) -> None:
        """Lay `blocks`, which lie in `log`, over `parent`."""
        self._parent = parent
        self._log = log
        self._blocks = blocks
        self._block_size = block_size
        self.size = parent.size
        self.origin = parent.origin

    def read_at(self, offset: int, length: int) -> bytes:
        """The bytes at a position; short only at the end."""
        data = bytearray(self._parent.read_at(offset, length))
        size = self._block_size
        for number in range(offset // size, (offset + len(data) + size - 1) // size):
            block = self._blocks.get(number)
            if block is not None:
                content = self._log.read_at(block.at * size, size)
                if block.escaped:
                    content = b"\xc0\x3b\x39\x98" + content[4:]
                start = number * size - offset
                begin, end = max(start, 0), min(start + size, len(data))
                data[begin:end] = content[begin - start : end - start]
        return bytes(data)


class _TskContent(Source):
    """A file without an extent tree (ext2 and ext3)."""

    def __init__(self, tree: ExtTree, number: int, size: int, origin: Origin) -> None:
        self._tree = tree
        self._number = number
        self.size = size
        self.origin = origin

    def read_at(self, offset: int, length: int) -> bytes:
        length = min(length, self.size - offset)
        return self._tree.read_file(self._number, offset, length) if length > 0 else b""


def _mapped(source: Source, geometry: ExtGeometry, inode: ExtInode) -> Source:
    """The journal of an ext3 file system: direct and indirect block numbers."""
    size, per = geometry.block_size, geometry.block_size // 4
    wanted = min((inode.size + size - 1) // size, geometry.block_count)
    numbers = list(struct.unpack_from("<12I", inode.block))

    def table(number: int) -> list[int]:
        data = source.read_at(number * size, size) if number else b""
        return list(struct.unpack(f"<{per}I", data)) if len(data) == size else [0] * per

    single, double, triple = struct.unpack_from("<3I", inode.block, 48)
    numbers += table(single)
    for outer in table(double) if len(numbers) < wanted else ():
        numbers += table(outer)
        if len(numbers) >= wanted:
            break
    for outermost in table(triple) if len(numbers) < wanted else ():
        for outer in table(outermost):
            numbers += table(outer)
            if len(numbers) >= wanted:
                break
    extents = [(index * size, number * size, size) for index, number in enumerate(numbers[:wanted]) if number]
    return ExtentSource(source, extents, inode.size, source.origin.to("journal"))


def _open_image(source: Source):  # type: ignore[no-untyped-def]  # noqa: ANN202 - pytsk3 has no types
    """The source as an image of The Sleuth Kit, and the offset of the file system in it.

    A plain file is opened by the kit itself, which is faster than calling back for every block.
    """
    import pytsk3

    offset = 0
    inner = source
    while isinstance(inner, SliceSource):
        offset += inner.offset
        inner = inner.parent
    if isinstance(inner, FileSource):
        return pytsk3.Img_Info(str(inner.path)), offset

    class Image(pytsk3.Img_Info):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(url="", type=pytsk3.TSK_IMG_TYPE_EXTERNAL)

        def close(self) -> None: ...

        def read(self, offset: int, size: int) -> bytes:
            return source.read_at(offset, size)

        def get_size(self) -> int:
            return source.size

    return Image(), 0
