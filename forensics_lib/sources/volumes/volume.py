"""The one row type of volume systems."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from forensics_lib.model import Origin
from forensics_lib.sources.base import Source

__all__ = ["Volume", "VolumeKind"]


class VolumeKind(StrEnum):
    """What made a volume."""

    DISK = "whole disk"
    MBR = "mbr"
    GPT = "gpt"
    LVM = "lvm"
    LUKS = "luks"
    MD = "md"
    BCACHE = "bcache"


@dataclass(frozen=True, slots=True)
class Volume:
    """A run of bytes that can hold a file system.

    Attributes:
        index: number of a partition as Linux counts them (logical ones from 5 on), of a logical volume inside its
            group from 1 on; of its carrier for a LUKS volume; 0 for a whole disk or array.
        kind: what made it.
        offset: byte offset inside the disk, or of an opened LUKS volume or bcache device inside its carrier; None for
            logical volumes and arrays.
        size: declared bytes; less may be there.
        type: partition type (``0x83``, or a GUID), segment type of a logical volume, version of LUKS, level of an
            array; empty otherwise.
        name: partition name of a GPT, ``group/volume`` of LVM, name or UUID of an array; empty otherwise.
        uuid: of the partition (as in Linux' PARTUUID), logical volume, LUKS volume or array; empty when there is none.
        source: the bytes.
        origin: where they are.
        within: title of the array or logical volume that a partition lies in, or of what a LUKS volume lies in;
            empty for a disk.
    """

    index: int
    kind: VolumeKind
    offset: int | None
    size: int
    type: str
    name: str
    uuid: str
    source: Source
    origin: Origin
    within: str = ""

    @property
    def title(self) -> str:
        """What to call it: ``partition 2``, ``group/volume``, name of an array; empty for a whole disk."""
        if self.kind in (VolumeKind.MBR, VolumeKind.GPT):
            return f"{self.within} partition {self.index}".lstrip()
        return self.name if self.kind in (VolumeKind.LVM, VolumeKind.MD) else self.within
