"""Superblocks of Linux' software RAID (MD), versions 0.90, 1.0, 1.1 and 1.2.

Format: include/uapi/linux/raid/md_p.h of Linux; md(4).
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from struct import Struct

from forensics_lib.errors import DamagedData
from forensics_lib.sources._bounds import read_exactly
from forensics_lib.sources.base import Source

__all__ = ["LEVELS", "MdMember"]

LEVELS = {-1: "linear", 0: "raid0", 1: "raid1", 4: "raid4", 5: "raid5", 6: "raid6", 10: "raid10", -4: "multipath"}

_MAGIC = b"\xfc\x4e\x2b\xa9"
_SECTOR = 512
_NEW = Struct("<8xI4x16s32s8xiIQII32xQQQ8xI36xQ8xII")
_ROLES = 256
_MAX_ROLES = 1920
_OLD_SIZE = 4096
_OLD = Struct("<1024I")
_ROUNDING = 1 << 20  # of the size, to whole chunks
_RECOVERING, _RESHAPING, _REPLACEMENT, _JOURNAL, _LAYOUT_OF_RAID0 = 0x2, 0x4, 0x10, 0x200, 0x1000
_FIRST_SPECIAL = 0xFFFD  # journal, faulty, spare
_ACTIVE = 0x6  # active and in sync


@dataclass(frozen=True, slots=True)
class MdMember:
    """One device of an array, as its superblock describes it. Sizes and offsets are bytes.

    Attributes:
        source: the whole device.
        version: ``0.90``, ``1.0``, ``1.1`` or ``1.2``.
        place: byte offset of the superblock.
        is_sound: whether its checksum is right.
        uuid: of the array, as the system shows it.
        name: given to the array, mostly with the host it was made on; empty in version 0.90.
        level: 0, 1, 4, 5, 6, 10, -1 for linear.
        layout: of levels 5, 6 and 10; of level 0 when it is known.
        chunk: what is written to one device before the next one's turn.
        devices: how many the array has, without spares.
        role: which of them this is; None for a spare, faulty or journal device.
        events: how often the superblock was written; less than on other members if this one was left behind.
        data_offset: where its data begin.
        size: of what the array uses of each device; the data of this device where the level takes them all.
        is_whole: whether its data are complete: not being rebuilt or moved.
        has_journal: whether a journal device belongs to the array.
    """

    source: Source
    version: str
    place: int
    is_sound: bool
    uuid: str
    name: str
    level: int
    layout: int
    chunk: int
    devices: int
    role: int | None
    events: int
    data_offset: int
    size: int
    is_whole: bool
    has_journal: bool

    @property
    def kind(self) -> str:
        """Name of the level."""
        return LEVELS.get(self.level, f"level {self.level}")

    @property
    def title(self) -> str:
        """Name of the array, or its UUID."""
        return self.name or self.uuid

    @classmethod
    def read(cls, source: Source) -> MdMember | None:
        """The member that a device is; None when it has no superblock."""
        at_the_end = (source.size - 16 * _SECTOR) // (8 * _SECTOR) * (8 * _SECTOR)
        for version, place in (("1.2", 4096), ("1.1", 0), ("1.0", at_the_end)):
            if (member := _new(source, version, place)) is not None:
                return member
        return _old(source, (source.size & ~0xFFFF) - 0x10000)


def _new(source: Source, version: str, place: int) -> MdMember | None:
    head = _bytes(source, place, _ROLES) if place >= 0 else b""
    if not head.startswith(_MAGIC) or head[4:8] != b"\1\0\0\0":
        return None
    features, array, name, level, layout, size, chunk, devices, *rest = _NEW.unpack_from(head)
    data_offset, data_size, position, number, events, checksum, roles = rest
    if position * _SECTOR != place:
        return None  # of the last partition, which ends where the disk ends
    roles = min(roles, _MAX_ROLES)
    words = head + _bytes(source, place + _ROLES, 2 * roles)
    whole = len(words) == _ROLES + 2 * roles
    role = int.from_bytes(words[_ROLES + 2 * number :][:2], "little") if number < roles else 0xFFFF
    return MdMember(
        source,
        version,
        place,
        whole and _sum(words[:216] + bytes(4) + words[220:]) == checksum,
        str(uuid.UUID(bytes=array)),
        name.split(b"\0", 1)[0].decode("utf-8", "surrogateescape"),
        level,
        layout if level != 0 or features & _LAYOUT_OF_RAID0 else 0,
        chunk * _SECTOR,
        devices,
        role if role < _FIRST_SPECIAL else None,
        events,
        data_offset * _SECTOR,
        (data_size if level in (0, -1) else size) * _SECTOR,
        not features & (_RECOVERING | _RESHAPING | _REPLACEMENT),
        bool(features & _JOURNAL),
    )


def _old(source: Source, place: int) -> MdMember | None:
    """Version 0.90, as machines of the little-endian kind write it."""
    data = _bytes(source, place, _OLD_SIZE) if place > 0 else b""
    if not data.startswith(_MAGIC) or len(data) < _OLD_SIZE:
        return None
    words = _OLD.unpack(data)
    level = words[7] - (1 << 32) if words[7] >> 31 else words[7]
    size = place if level in (0, -1) else words[8] << 10
    if words[1] != 0 or not 0 <= place - size < _ROUNDING:
        return None  # of the last partition, which ends where the disk ends
    array = b"".join(words[index].to_bytes(4, "big") for index in (5, 13, 14, 15))
    return MdMember(
        source,
        "0.90",
        place,
        _sum(data[:152] + bytes(4) + data[156:]) == words[38],
        str(uuid.UUID(bytes=array)),
        "",
        level,
        words[64],
        words[65],
        words[10],
        words[995] if words[996] & _ACTIVE == _ACTIVE and not words[996] & 1 else None,
        words[40] << 32 | words[39],
        0,
        size,
        words[2] < 91,  # while an array is reshaped it counts as version 0.91
        False,
    )


def _bytes(source: Source, offset: int, length: int) -> bytes:
    try:
        return read_exactly(source, offset, length, "a superblock of MD")
    except DamagedData:
        return b""


def _sum(data: bytes) -> int:
    """The words of 32 bits added up, with what is carried over; a word of 16 bits may follow."""
    whole = len(data) // 4 * 4
    words: int = sum(word for (word,) in Struct("<I").iter_unpack(data[:whole])) + int.from_bytes(
        data[whole:], "little"
    )
    return (words & 0xFFFF_FFFF) + (words >> 32) & 0xFFFF_FFFF
