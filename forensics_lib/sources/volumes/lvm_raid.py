"""Logical volumes that LVM2 spreads or mirrors over others: RAID and mirrors.

Format: segment types of lib/raid/raid.c and lib/mirror of LVM2; drivers/md/dm-raid.c of Linux for what they stand for.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct

from forensics_lib.errors import DamagedData
from forensics_lib.model import Origin
from forensics_lib.sources.base import Source
from forensics_lib.sources.volumes.lvm_text import Section
from forensics_lib.sources.volumes.md_layout import MirroredSource, MirroredStripes, ParityStripes, Stripes

__all__ = ["RAID_TYPES", "left_behind", "raid_names", "raid_source"]

_FIVE = {"": 2, "_la": 0, "_ra": 1, "_ls": 2, "_rs": 3, "_n": 5}
_SIX = {"": 8, "_zr": 8, "_nr": 9, "_nc": 10, "_0_6": 20, "_n_6": 5, "_la_6": 16, "_ra_6": 17, "_ls_6": 18, "_rs_6": 19}
_PARITY = {
    "raid4": (5, 4),
    **{f"raid5{name}": (5, layout) for name, layout in _FIVE.items()},
    **{f"raid6{name}": (6, layout) for name, layout in _SIX.items()},
}
_NEAR = 0x100
RAID_TYPES = frozenset({"mirror", "raid0", "raid0_meta", "raid1", "raid10", "raid10_near", *_PARITY})
"""Types of segments that are read."""

_META = Struct("<4s4xIIQQQ")
_META_MAGIC = b"DmRd"
_IN_SYNC = 0xFFFF_FFFF_FFFF_FFFF
_MAX_IMAGES = 64


def raid_names(segment: Section) -> tuple[list[str], list[str]]:
    """The logical volumes of a segment: those with its bytes, and those that tell whether they are in sync.

    Raises:
        DamagedData: none, or too many.
    """
    names = [str(name) for name in segment.list("raids")]
    images, metadata = names[1::2], names[0::2]
    if not names:
        listed = segment.list("raid0_lvs") or segment.list("mirrors")[0::2]
        images, metadata = [str(name) for name in listed], []
    if not 0 < len(images) <= _MAX_IMAGES:
        raise DamagedData(f"it has {len(images)} images")
    return images, metadata


def left_behind(metadata: Sequence[Source]) -> set[int]:
    """The images that failed, or were not yet synchronised: their numbers."""
    told: dict[int, tuple[int, int, int]] = {}
    for index, source in enumerate(metadata):
        try:
            head = source.read_at(0, _META.size)
        except DamagedData:
            continue
        if head.startswith(_META_MAGIC) and len(head) == _META.size:
            _, _, _, events, failed, recovered = _META.unpack(head)
            told[index] = (events, failed, recovered)
    newest = max(told.values(), default=(0, 0, _IN_SYNC))
    failed = {index for index in range(len(metadata)) if newest[1] >> index & 1}
    late = {index for index, one in told.items() if one[0] + 1 < newest[0] or one[2] != _IN_SYNC}
    return failed | late


def raid_source(kind: str, images: Sequence[Source | None], segment: Section, size: int, origin: Origin) -> Source:
    """The bytes of a segment.

    Args:
        kind: its type.
        images: what holds its bytes; None where it is not to be used.
        segment: its description.
        size: of the segment.
        origin: of the volume.

    Raises:
        DamagedData: its description is impossible, or too many images cannot be used.
        UnsupportedFormat: of another layout.
    """
    there = [image for image in images if image is not None]
    stripe = segment.number("stripe_size") * 512
    if not there:
        raise DamagedData("none of its images can be used")
    if kind in ("raid1", "mirror"):
        whole: Source = MirroredSource(there, origin)
    elif not 0 < stripe <= 1 << 30:
        raise DamagedData("it has no size of stripes")
    elif kind in ("raid0", "raid0_meta"):
        if len(there) < len(images):
            raise DamagedData("an image cannot be used")
        whole = Stripes(there, stripe, 0, origin)
    elif kind in _PARITY:
        if len(images) - len(there) > 1:
            raise DamagedData("two images cannot be used")
        level, layout = _PARITY[kind]
        whole = ParityStripes(images, stripe, level, layout, origin)
    else:
        copies = segment.number("data_copies") or 2
        mirrored = MirroredStripes(images, stripe, _NEAR | copies & 0xFF, origin)
        if mirrored.lost():
            raise DamagedData("images with the same bytes cannot be used")
        whole = mirrored
    if whole.size < size:
        raise DamagedData(f"its images hold {whole.size} bytes, it has {size}")
    return whole if whole.size == size else whole.slice(0, size, "segment")
