"""What a path holds: a folder, a tar archive or a disk, each compressed or not, with the file systems in it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from forensics_lib.errors import DamagedData, ForensicsError, PathNotFound, UnsupportedFormat
from forensics_lib.formats.tar import TarDecoder
from forensics_lib.formats.tar_entry import TarEntry
from forensics_lib.formats.tar_header import checksum_ok
from forensics_lib.model import Origin, ProblemLog, utc_from_ns
from forensics_lib.sources.base import BytesSource, Source
from forensics_lib.sources.decompress import Compression, Limits, sniff
from forensics_lib.sources.file import FileSource
from forensics_lib.sources.spool import SpoolSource
from forensics_lib.sources.stream import BlockStream, SourceStream
from forensics_lib.trees.archive import tar_tree
from forensics_lib.trees.base import Tree
from forensics_lib.trees.directory import DirectoryTree

__all__ = ["FileSystem", "Opened", "begins_tar", "open_path", "tar_entries"]

_LOOKED_AT = 4 << 20
_LAYOUT = ("manifest.json", "oci-layout", "index.json", "repositories")
_MOST_FILES = 256  # of a folder of disk images; each of them is looked into
_PACKED = {b"PK\x03\x04": "a zip archive", b"7z\xbc\xaf\x27\x1c": "a 7z archive", b"Rar!\x1a\x07": "a rar archive"}
_SPOOLED_AT_ONCE = 1 << 30
"""Compressed archives above this size are indexed in a pass of their own, and spooled only when content is read."""


@dataclass(frozen=True, slots=True)
class FileSystem:
    """A file system in the evidence.

    Attributes:
        name: what it was found as: the evidence's name, or a partition or volume of it.
        type: ``folder``, ``tar``, ``ext``, ``xfs``, ``btrfs`` …
        tree: its files.
        origin: where it lies.
        size: bytes; None where it has no size of its own.
        label: its name, as it says itself.
        uuid: its identifier; empty where it has none.
        mounted_ns: when it was mounted last, nanoseconds since 1970; None where it is not recorded.
        state: ``clean``, or what is wrong with it.
    """

    name: str
    type: str
    tree: Tree
    origin: Origin
    size: int | None = None
    label: str = ""
    uuid: str = ""
    mounted_ns: int | None = None
    state: str = "clean"

    __table_columns__ = ("name", "type", "size", "label", "uuid", "mounted", "state", "origin")

    @property
    def mounted(self) -> datetime | None:
        """When it was mounted last (aware UTC)."""
        return utc_from_ns(self.mounted_ns)


@dataclass(slots=True)
class Opened:
    """What was found behind a path.

    Attributes:
        files: the evidence files: one, or the images of several disks; none for a folder that is examined as a tree.
        compression: of the file as a whole.
        content: its bytes, decompressed; None for a folder.
        filesystems: what can be walked, at least one.
        disks: the disk inside each image file, which is the content itself for a raw image; none for other evidence.
    """

    files: list[FileSource] = field(default_factory=list)
    compression: Compression = Compression.NONE
    content: Source | None = None
    filesystems: list[FileSystem] = field(default_factory=list)
    disks: list[Source] = field(default_factory=list)

    @property
    def file(self) -> FileSource | None:
        """The evidence file, if it is one."""
        return self.files[0] if len(self.files) == 1 else None

    @property
    def origin(self) -> Origin:
        """The evidence as the first step of every chain."""
        if len(self.files) > 1:
            return Origin(self.files[0].origin.label.rpartition("/")[0])
        return self.files[0].origin if self.files else self.filesystems[0].origin

    def close(self) -> None:
        """Close files and give temporary disk space back."""
        for source in (*self.disks, *([] if self.content is None else [self.content]), *self.files):
            source.close()


def open_path(path: Path, problems: ProblemLog, limits: Limits, keys: Sequence[str | bytes] = ()) -> Opened:
    """Open a folder or file; what it is, is told by its content.

    Args:
        path: of the evidence.
        problems: told of damage.
        limits: bounds on what the evidence may ask for.
        keys: passphrases, key files or keys to try on encrypted volumes.

    Raises:
        PathNotFound: there is nothing at the path.
        UnsupportedFormat: nothing recognises the content.
        DamagedData: the content is recognised, but damaged beyond reading.
    """
    try:
        if path.is_dir():
            opened = _disks_of_folder(path, problems, keys)
            if opened is not None:
                return opened
            tree = DirectoryTree(path, problems)
            return Opened(filesystems=[FileSystem(tree.origin.label, "folder", tree, tree.origin)])
    except OSError as error:  # a folder above it that may not be entered, a name that is too long
        raise PathNotFound(f"{path}: {error.strerror or error}") from error
    opened = Opened([file := FileSource(path)], content=file)
    try:
        opened.compression = sniff(file.read_at(0, 16))
        if opened.compression is not Compression.NONE:
            origin = file.origin.to(opened.compression)
            opened.content = SpoolSource(file, opened.compression, origin, limits)
        _look_inside(opened, os.fspath(path), problems, limits, keys)
    except ForensicsError:
        opened.close()
        raise
    return opened


def tar_entries(path: str | os.PathLike[str], *, limits: Limits | None = None) -> Iterator[TarEntry]:
    """Every member of a tar archive (also a compressed one), as stored: nothing cleaned, nothing left out.

    Raises:
        PathNotFound: there is no such file.
        DamagedData: a compressed archive is damaged; members before the damage were handed out.
    """
    source: Source = FileSource(path)
    compression = sniff(source.read_at(0, 16))
    if compression is not Compression.NONE:
        source = SpoolSource(source, compression, source.origin.to(compression), limits)
    decoder = TarDecoder(SourceStream(source), source=source, max_entries=(limits or Limits()).entries)
    empty = True
    for entry in decoder:
        empty = False
        yield entry
    if empty and not decoder.recognised:
        raise DamagedData(f"{path} holds no tar archive", origin=source.origin)


def _disks_of_folder(path: Path, problems: ProblemLog, keys: Sequence[str | bytes]) -> Opened | None:
    """The images of disks in a folder that holds nothing but files; None for any other folder."""
    names = _only_files(path)
    if not names:
        return None
    from forensics_lib.disks import find_filesystems, open_disks

    found = open_disks(path, names, problems)
    opened = Opened([file for file, _ in found], disks=[disk for _, disk in found])
    opened.filesystems = find_filesystems(opened.disks, problems, keys) if found else []
    if opened.filesystems:
        return opened
    opened.close()
    return None


def _only_files(path: Path) -> list[str]:
    """The names in a folder of a few files and nothing else; none for an image layout and any other folder."""
    names: list[str] = []
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.name in _LAYOUT or len(names) == _MOST_FILES or not entry.is_file(follow_symlinks=False):
                return []
            names.append(entry.name)
    return sorted(names)


def _look_inside(opened: Opened, path: str, problems: ProblemLog, limits: Limits, keys: Sequence[str | bytes]) -> None:
    source, file = opened.content, opened.file
    if source is None or file is None:
        return
    if not begins_tar(source):  # a disk may hold archives near its start
        from forensics_lib.disks import find_filesystems
        from forensics_lib.sources.disk import open_disk

        disk = open_disk(source, problems)
        if disk is not None:
            opened.disks = [disk]
            opened.filesystems = find_filesystems(opened.disks, problems, keys)
            if not opened.filesystems:
                reasons = "; ".join(problem.message for problem in problems.rows)
                raise UnsupportedFormat(
                    f"{path} is a disk without a file system that is read ({reasons or 'none is there'})"
                )
            return
    if not _looks_like_tar(source):
        if isinstance(source, SpoolSource) and source.error is not None:
            raise source.error  # what came out before the damage need not be what went in
        message = f"{path} is no image archive, layout, tar archive or disk that is read here"
        reasons = "; ".join([*_seen_instead(source), *(problem.message for problem in problems.rows[:3])])
        raise UnsupportedFormat(f"{message} ({reasons})" if reasons else message)
    once = None
    if isinstance(source, SpoolSource) and file.size > _SPOOLED_AT_ONCE:
        once = BlockStream(source.stream(lambda error: problems.add(source.origin, error)))
    tree = tar_tree(source, problems, limits, once)
    opened.filesystems = [FileSystem(file.origin.label, "tar", tree, tree.origin)]


def begins_tar(source: Source) -> bool:
    """Whether the very first bytes are those of a member."""
    head = source.read_some(0, 512)
    return len(head) == 512 and any(head) and checksum_ok(head)


def _seen_instead(source: Source) -> list[str]:
    """What somebody who took it for evidence should know of a file."""
    head = source.read_some(0, _LOOKED_AT)
    if not head:
        return ["it is empty"]
    if not any(head):
        return [f"its first {len(head)} bytes are zeros"]
    return [
        f"it is {name}, which has to be unpacked first" for magic, name in _PACKED.items() if head.startswith(magic)
    ]


def _looks_like_tar(source: Source) -> bool:
    """Whether there is a member near the start, which damage may precede, or nothing but an end-of-archive marker."""
    head = source.read_some(0, _LOOKED_AT)
    decoder = TarDecoder(SourceStream(BytesSource(head, source.origin)))
    if any(True for _ in decoder):
        return True
    return decoder.ended and not decoder.faults and not decoder.trailing and len(head) < _LOOKED_AT
