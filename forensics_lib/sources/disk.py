"""Disk images of any kind: an image file in, the bytes of the disk out."""

from __future__ import annotations

import os
from pathlib import Path

from forensics_lib.errors import DamagedData, ForensicsError, LimitExceeded, MissingExtra, UnsupportedFormat
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.sources.base import Source
from forensics_lib.sources.ewf import Ewf, segments_beside
from forensics_lib.sources.file import FileSource
from forensics_lib.sources.joined import MissingSource
from forensics_lib.sources.qcow2 import Qcow2
from forensics_lib.sources.siblings import Siblings
from forensics_lib.sources.split import open_split
from forensics_lib.sources.vdi import Vdi
from forensics_lib.sources.vhd import Vhd
from forensics_lib.sources.vhdx import Vhdx
from forensics_lib.sources.vmdk import Vmdk
from forensics_lib.sources.volumes import has_volumes

__all__ = ["open_disk"]

_HEAD = 512
_MAX_CHAIN = 64
_MAX_PARENTS = 1000
_ANY_SIZE = 1 << 62
_NOT_READ = {
    b"EVF2\x0d\x0a\x81\x00": "an Ex01 image (version 2 of the Expert Witness format)",
    b"LEF2\x0d\x0a\x81\x00": "an Lx01 logical evidence file",
    b"LVF\x09\x0d\x0a\xff\x00": "an L01 logical evidence file",
    b"AFF10\x0d\x0a\x00": "an AFF image",
    b"QED\x00": "a QED image",
    b"WithoutFreeSpace": "a Parallels image",
    b"WithouFreSpacExt": "a Parallels image",
    b"\xbe\xba\xfe\xca\x00\x00\x00\x00": "a SESPARSE extent of a VMDK image",
}


def open_disk(
    evidence: str | os.PathLike[str] | Source, problems: ProblemLog, *, siblings: Siblings | None = None
) -> Source | None:
    """The bytes of the disk inside an image; None when it is no disk image.

    The format is told by magic numbers, never by the name. Segments, extents, backing files and parents are found
    beside the image (`Siblings` says how). A raw image is recognised by what it holds: a partition table, a file
    system, a physical volume or an encrypted volume.

    Args:
        evidence: an image file, its first segment, or the descriptor of a split image.
        problems: told of what is missing or contradicts itself; the rest is read.
        siblings: where to look for further files, for images that are no files on disk.

    Raises:
        PathNotFound: there is no such file.
        DamagedData: the format was recognised, but too little of the image is there to read anything.
        UnsupportedFormat: the format was recognised and is not read, or a feature of it.
        MissingExtra: the library that decodes the format is not installed.
    """
    source = evidence if isinstance(evidence, Source) else FileSource(evidence)
    return _Opener(problems).open(source, siblings or Siblings(source))


class _Opener:
    """Opens one image and the images below it."""

    def __init__(self, problems: ProblemLog) -> None:
        self.problems = problems
        self.chain: list[Path | None] = []

    def open(self, source: Source, siblings: Siblings) -> Source | None:
        """The disk inside an image, with everything below it."""
        source = open_split(source, self.problems, siblings) or source  # any image can be cut into pieces
        image = self._image(source, siblings)
        return image or (source if has_volumes(source) else None)

    def _image(self, source: Source, siblings: Siblings) -> Source | None:
        head = source.read_some(0, _HEAD) if source.size else b""
        for magic, name in _NOT_READ.items():
            if head.startswith(magic):
                raise UnsupportedFormat(f"{source.origin.label} is {name}, which is not read")
        if head.startswith(Ewf.magic):
            return Ewf(segments_beside(source, siblings), self.problems)
        if head.startswith(Qcow2.magic):
            return self._qcow2(source, siblings)
        if head.startswith(Vmdk.magics):
            return self._vmdk(source, siblings)
        if head.startswith(Vhdx.magic):
            return self._vhdx(source, siblings)
        if head[0x40:0x44] == Vdi.signature:
            return self._vdi(source, siblings)
        return self._vhd(source, siblings) if Vhd.fits(source) else None

    def _qcow2(self, source: Source, siblings: Siblings) -> Source:
        disk = Qcow2(source)
        if disk.corrupt:
            self.problems.add(disk.origin, "the image is marked as corrupt")
        self._name_snapshots(disk)
        backing, data = None, None
        if disk.backing_name is not None:
            # "raw" must not be second-guessed: a guest can write any magic to its own raw disk
            kind = FileSource if disk.backing_format == "raw" else Source
            backing = self._below(disk.backing_name, disk.origin, source, siblings, kind)
        if disk.data_name is not None:
            data = siblings.open(disk.data_name)
            if data is None:
                self.problems.add(disk.origin, f"the external data file {disk.data_name!r} is missing")
        return disk if backing is data is None else Qcow2(source, backing, data=data)

    def _name_snapshots(self, disk: Qcow2) -> None:
        try:
            for one in disk.snapshots:
                when = f" of {one.created:%Y-%m-%d %H:%M:%SZ}" if one.created else ""
                message = f"the image holds the snapshot {one.id} {one.name!r}{when}, which is not examined"
                self.problems.add(disk.origin, UnsupportedFormat(message))
        except DamagedData as error:
            self.problems.add(disk.origin, error)

    def _vmdk(self, source: Source, siblings: Siblings) -> Source:
        disk = Vmdk(source, self.problems, siblings=siblings)
        name, expected = disk.descriptor.parent_name, disk.descriptor.parent_content_id
        if name is None:
            return disk
        parent = self._below(name, disk.origin, source, siblings, Vmdk)
        if isinstance(parent, Vmdk) and parent.descriptor.content_id != expected:
            self.problems.add(disk.origin, f"the parent {name!r} was written to after this snapshot was taken")
        return Vmdk(source, self.problems, parent, siblings)

    def _vdi(self, source: Source, siblings: Siblings) -> Source:
        disk = Vdi(source)
        if disk.parent_uuid is None or disk.kind not in ("undo", "differencing"):
            return disk
        for name in siblings.names()[:_MAX_PARENTS]:
            if (
                name.lower().endswith(".vdi")
                and name != siblings.name
                and _vdi_uuid(siblings, name) == disk.parent_uuid
            ):
                return Vdi(source, self._below(name, disk.origin, source, siblings, Vdi))
        self.problems.add(disk.origin, f"the parent image {disk.parent_uuid} is missing")
        return disk

    def _vhd(self, source: Source, siblings: Siblings) -> Source:
        disk = Vhd(source, self.problems)
        if disk.parent_name is None:
            return disk
        parent = self._below(disk.parent_name, disk.origin, source, siblings, Vhd)
        if isinstance(parent, Vhd) and parent.uuid != disk.parent_uuid:
            self.problems.add(disk.origin, f"{disk.parent_name!r} is another image than the parent")
        return Vhd(source, self.problems, parent)

    def _vhdx(self, source: Source, siblings: Siblings) -> Source:
        disk = Vhdx(source, self.problems)
        if disk.parent_uuid is None:
            return disk
        parent = self._below(disk.parent_name or "", disk.origin, source, siblings, Vhdx)
        return Vhdx(source, self.problems, parent) if isinstance(parent, Vhdx) else disk

    def _below(self, name: str, origin: Origin, source: Source, siblings: Siblings, kind: type[Source]) -> Source:
        """The disk inside the image below; a stand-in that raises where it is read when it cannot be had.

        Args:
            name: as it is recorded.
            origin: of the disk above.
            source: the image above.
            siblings: where to look.
            kind: what the image below has to be: a file that is taken as it is, a reader, or anything.
        """
        try:
            return self._open_below(name, source, siblings, kind)
        except MissingExtra:
            raise
        except ForensicsError as error:
            reason = f"the image below, {name!r}, {error}"
            self.problems.add(origin, reason)
            return MissingSource(_ANY_SIZE, origin, reason)

    def _open_below(self, name: str, source: Source, siblings: Siblings, kind: type[Source]) -> Source:
        self.chain.append(source.path.resolve() if isinstance(source, FileSource) else None)
        file = siblings.open(name)
        if file is None or not file.size:
            raise DamagedData("is missing" if file is None else "is empty")
        if len(self.chain) > _MAX_CHAIN:
            raise LimitExceeded(f"is one of more than {_MAX_CHAIN} images one below the other")
        if isinstance(file, FileSource) and file.path.resolve() in self.chain:
            raise LimitExceeded("lies below itself")
        if kind is FileSource:
            return file
        try:
            disk = self.open(file, Siblings(file, siblings.opened) if isinstance(file, FileSource) else siblings)
        except (DamagedData, UnsupportedFormat) as error:
            raise DamagedData(f"cannot be read: {error}") from error
        if kind is Source:
            return disk or file
        if not isinstance(disk, kind):
            raise DamagedData("is no image of the same format")
        return disk


def _vdi_uuid(siblings: Siblings, name: str) -> str | None:
    file = siblings.open(name)
    if file is None:
        return None
    try:
        return Vdi(file).uuid
    except ForensicsError:
        return None
    finally:
        file.close()
