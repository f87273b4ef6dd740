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


@dataclass(frozen=True, slots=True)
class Volume:
    """A run of bytes that can hold a file system.

    Attributes:
        index: number of a partition as Linux counts them (logical ones from 5 on), of a logical volume inside its
            group from 1 on; 0 for a whole disk.
        kind: what made it.
        offset: byte offset inside the disk, or of an opened LUKS volume inside its carrier; None for logical volumes.
        size: declared bytes; less may be there.
        type: partition type (``0x83``, or a GUID), segment type of a logical volume, version of LUKS; empty otherwise.
        name: partition name of a GPT, ``group/volume`` of LVM; empty otherwise.
        uuid: of the partition (as in Linux' PARTUUID), logical volume or LUKS volume; empty when there is none.
        source: the bytes.
        origin: where they are.
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
