"""VMDK disk images, the format of VMware.

Format: "Virtual Disk Format 5.0" (VMware, 2011). Sparse and compressed extents are decoded by libvmdk.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from struct import Struct
from types import ModuleType
from typing import ClassVar, Protocol

from forensics_lib._optional import require
from forensics_lib.errors import DamagedData, LimitExceeded, UnsupportedFormat
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.sources._bounds import read_exactly
from forensics_lib.sources._libyal import LibyalSource, SourceFile, reason_of
from forensics_lib.sources.base import BytesSource, Source
from forensics_lib.sources.joined import JoinedSource, MissingSource, ZeroSource
from forensics_lib.sources.siblings import Siblings

__all__ = ["Vmdk", "VmdkDescriptor", "VmdkExtent"]

_SPARSE_HEADER = Struct("<4sIIQQQQ")  # magic, version, flags, capacity, grain size, descriptor offset and size
_COMPRESSED = 1 << 16
_SECTOR = 512
_MAX_DESCRIPTOR = 1 << 20
_MAX_EXTENTS = 10_000
_EXTENT = re.compile(
    r"(?:RW|RDONLY|NOACCESS)\s+(?P<sectors>\d{1,15})\s+(?P<kind>[A-Z]+)(?:\s+\"(?P<name>[^\"]*)\"(?:\s+(?P<start>\d{1,15}))?)?.*"
)
_VALUE = re.compile(r"(?P<key>[A-Za-z]+)\s*=\s*\"?(?P<value>[^\"]*)\"?\s*")
_FLAT, _SPARSE = ("FLAT", "VMFS"), ("SPARSE", "VMFSSPARSE")
_NO_PARENT, _PARENT_ID = "ffffffff", "00000001"


@dataclass(frozen=True, slots=True)
class VmdkExtent:
    """One file, or part of a file, that holds a part of the disk.

    Attributes:
        kind: ``FLAT``, ``SPARSE``, ``ZERO``, ``VMFS`` …
        size: in bytes.
        name: recorded name of the file; empty for ``ZERO``.
        start: where a flat extent begins in its file, in bytes.
    """

    kind: str
    size: int
    name: str = ""
    start: int = 0


@dataclass(frozen=True, slots=True)
class VmdkDescriptor:
    """The text that says what a disk consists of.

    Attributes:
        kind: ``monolithicSparse``, ``twoGbMaxExtentSparse``, ``streamOptimized`` …
        content_id: changes whenever the disk is written to for the first time after it was opened.
        parent_content_id: the content id of the disk below at the time of the snapshot; None without one.
        parent_name: recorded name of the disk below; None without one.
        extents: in the order of the disk.
        text: all of it.
    """

    kind: str
    content_id: str
    parent_content_id: str | None
    parent_name: str | None
    extents: tuple[VmdkExtent, ...]
    text: str

    @classmethod
    def parse(cls, data: bytes) -> VmdkDescriptor:
        """Read a descriptor.

        Raises:
            LimitExceeded: it lists more extents than is sensible.
        """
        text = data.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
        values: dict[str, str] = {}
        extents = []
        for line in text.splitlines():
            if match := _EXTENT.fullmatch(line.strip()):
                start = int(match["start"] or 0) * _SECTOR
                extents.append(VmdkExtent(match["kind"], int(match["sectors"]) * _SECTOR, match["name"] or "", start))
                if len(extents) > _MAX_EXTENTS:
                    raise LimitExceeded(f"the VMDK descriptor lists more than {_MAX_EXTENTS} extents")
            elif match := _VALUE.fullmatch(line.strip()):
                values.setdefault(match["key"], match["value"])
        below = values.get("parentCID", _NO_PARENT).lower()
        return cls(
            kind=values.get("createType", ""),
            content_id=values.get("CID", "").lower(),
            parent_content_id=None if below == _NO_PARENT else below,
            parent_name=None if below == _NO_PARENT else values.get("parentFileNameHint", ""),
            extents=tuple(extents),
            text=text,
        )


class Vmdk(JoinedSource):
    """The disk inside a VMDK image.

    Reads monolithic and split, sparse, flat and stream-optimized images, and snapshots (delta links) with their
    parents. An extent that is missing is a problem and raises where it is read. Not read: SESPARSE extents and extents
    that are devices. Needs the extra ``disk`` for sparse extents.

    Args:
        source: the descriptor file, or a sparse image with its descriptor inside.
        problems: told of extents that are missing.
        parent: the disk below a snapshot.
        siblings: where to look for extents; beside `source` by default.
        origin: of the disk; a step below the image by default.

    Attributes:
        descriptor: what the image says of itself.

    Raises:
        DamagedData: the header contradicts the format.
        UnsupportedFormat: it is no VMDK image, or one extent of a split image.
        MissingExtra: libvmdk is not installed.
    """

    format: ClassVar[str] = "vmdk"
    magics: ClassVar[tuple[bytes, ...]] = (b"KDMV", b"COWD", b"# Disk DescriptorFile")

    def __init__(
        self,
        source: Source,
        problems: ProblemLog,
        parent: Source | None = None,
        siblings: Siblings | None = None,
        origin: Origin | None = None,
    ) -> None:
        """Read the descriptor and open the extents."""
        self.source = source
        self.siblings = siblings or Siblings(source)
        origin = origin or source.origin.to(self.format)
        head = read_exactly(source, 0, 4, "the header")
        self.descriptor = _embedded(source, origin) if head in (b"KDMV", b"COWD") else _from_text(source)
        self._inside = head in (b"KDMV", b"COWD")
        if not self.descriptor.extents:
            raise DamagedData("the VMDK descriptor lists no extent", origin=origin)
        parts: list[Source] = []
        start = 0
        for number, extent in enumerate(self.descriptor.extents):
            step = origin.to(f"extent {number + 1} {extent.name}".rstrip(), extent.start)
            below = self._below(parent, start, extent.size, step)
            parts.append(self._open(extent, step, below, problems))
            start += extent.size
        super().__init__(parts, origin)

    def _open(self, extent: VmdkExtent, origin: Origin, below: Source | None, problems: ProblemLog) -> Source:
        def missing(reason: str) -> Source:
            problems.add(origin, reason)
            return MissingSource(extent.size, origin, reason)

        if extent.kind == "ZERO":
            return ZeroSource(extent.size, origin)
        if extent.kind not in (*_FLAT, *_SPARSE):
            return missing(f"extents of the kind {extent.kind} are not read")
        file = self.source if self._inside else self.siblings.open(extent.name)
        if file is None:
            return missing(f"the extent {extent.name!r} of the image is missing")
        if extent.kind in _FLAT:
            if file.size < extent.start + extent.size:
                problems.add(origin, f"the extent {extent.name!r} ends after {file.size} bytes")
            return file.slice(extent.start, extent.size, f"extent {extent.name}")
        try:
            return _SparseExtent(file, extent.size, origin, below)
        except OSError as error:  # how libvmdk fails
            return missing(f"the extent {extent.name!r} cannot be opened: {reason_of(error)}")

    def _below(self, parent: Source | None, start: int, size: int, origin: Origin) -> Source | None:
        """The part of the parent disk that lies below an extent."""
        if self.descriptor.parent_name is None:
            return None
        if parent is None:
            name = self.descriptor.parent_name
            return MissingSource(size, origin, f"nothing is stored for these bytes, and the parent {name!r} is missing")
        there = max(0, min(size, parent.size - start))
        return JoinedSource([parent.slice(start, there, "parent"), ZeroSource(size - there, origin)], origin)


class _SparseExtent(LibyalSource):
    """One sparse extent. libvmdk wants a descriptor, so it gets one that names this extent only."""

    def __init__(self, file: Source, size: int, origin: Origin, below: Source | None) -> None:
        pyvmdk = require("pyvmdk", "disk")
        head = file.read_at(0, _SPARSE_HEADER.size).ljust(_SPARSE_HEADER.size, b"\0")
        kind, disk = "SPARSE", "twoGbMaxExtentSparse"
        if head.startswith(b"COWD"):
            kind, disk = "VMFSSPARSE", "vmfsSparse"
        elif _SPARSE_HEADER.unpack(head)[2] & _COMPRESSED:
            disk = "streamOptimized"
        files = [SourceFile(file)]
        handle = _open_handle(pyvmdk, _description(kind, disk, size, snapshot=below is not None), files[0])
        self._parent: _Handle | None = None  # libvmdk borrows it
        if below is not None:
            files.append(SourceFile(below))
            self._parent = _open_handle(pyvmdk, _description("FLAT", "twoGbMaxExtentFlat", size, _PARENT_ID), files[1])
            handle.set_parent(self._parent)
        super().__init__(handle, files, size, origin)

    def __reduce__(self) -> tuple[object, ...]:
        below = self.files[1].source if len(self.files) > 1 else None
        return (_SparseExtent, (self.files[0].source, self.size, self.origin, below))


class _Handle(Protocol):
    def read_buffer_at_offset(self, size: int, offset: int, /) -> bytes | None: ...
    def set_parent(self, parent: object, /) -> None: ...


def _open_handle(pyvmdk: ModuleType, description: bytes, extent: SourceFile) -> _Handle:
    handle = pyvmdk.handle()
    handle.open_file_object(SourceFile(BytesSource(description, Origin("descriptor"))))
    handle.open_extent_data_files_as_file_objects([extent])
    opened: _Handle = handle
    return opened


def _description(kind: str, disk: str, size: int, own_id: str = "00000002", *, snapshot: bool = False) -> bytes:
    parent = f'parentCID={_PARENT_ID}\nparentFileNameHint="parent"' if snapshot else f"parentCID={_NO_PARENT}"
    start = " 0" if kind == "FLAT" else ""
    return (
        f'# Disk DescriptorFile\nversion=1\nCID={own_id}\n{parent}\ncreateType="{disk}"\n\n# Extent description\n'
        f'RW {size // _SECTOR} {kind} "extent"{start}\n\n# The Disk Data Base\n#DDB\n\nddb.adapterType = "ide"\n'
    ).encode()


def _from_text(source: Source) -> VmdkDescriptor:
    text = source.read_at(0, _MAX_DESCRIPTOR)
    if not text.startswith(b"# Disk DescriptorFile"):
        raise UnsupportedFormat("no VMDK image: it begins with neither a descriptor nor a sparse extent")
    return VmdkDescriptor.parse(text)


def _embedded(source: Source, origin: Origin) -> VmdkDescriptor:
    """The descriptor inside a sparse extent; one is made up for COWD extents, which have none."""
    head = read_exactly(source, 0, _SPARSE_HEADER.size, "the header")
    magic, _, _, capacity, _, offset, sectors = _SPARSE_HEADER.unpack(head)
    if magic == b"COWD":
        extent = VmdkExtent("VMFSSPARSE", int.from_bytes(head[12:16], "little") * _SECTOR)
        return VmdkDescriptor("vmfsSparse", "", None, None, (extent,), "")
    length = min(sectors * _SECTOR, _MAX_DESCRIPTOR) if offset else 0
    descriptor = VmdkDescriptor.parse(read_exactly(source, offset * _SECTOR, length, "the descriptor"))
    if not descriptor.text.strip():
        raise UnsupportedFormat("this is one extent of a split VMDK image; open the descriptor file that lists it")
    if len(descriptor.extents) != 1 or descriptor.extents[0].size > capacity * _SECTOR:
        raise DamagedData("descriptor and header of the VMDK image contradict each other", origin=origin)
    return descriptor
