"""Which file system a volume holds, told by its magic numbers, with what its superblock says of it.

Type names are those of ``blkid``, so that they can be compared with what the system itself said.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from struct import Struct

from forensics_lib.errors import DamagedData
from forensics_lib.sources.base import Source
from forensics_lib.sources.volumes.bcache import BCACHE_MAGIC
from forensics_lib.sources.volumes.md import MdMember

__all__ = ["LUKS2_PLACES", "Superblock", "read_superblock", "sniff_filesystem"]

LUKS2_PLACES = tuple(size << 10 for size in (16, 32, 64, 128, 256, 512, 1024, 2048, 4096))
"""Where the second header of LUKS 2 can begin, which is how large each of the two can be."""

_U16, _U32, _U64 = Struct("<H"), Struct("<I"), Struct("<Q")
_PAGE_SIZES = (4096, 8192, 16384, 65536)
_HEAD = 0x11000  # far enough for the superblock of btrfs
_ZFS_UBERBLOCKS = 128 << 10
_ZFS_DESCRIPTION = 16 << 10
_ZFS_NAME = re.compile(rb"\0\0\0\x04name\0\0\0\x09\0\0\0\x01(....)", re.DOTALL)  # name and value of a pair, as XDR
_ZFS_GUID = re.compile(rb"\0\0\0\x09pool_guid\0\0\0\0\0\0\x08\0\0\0\x01(.{8})", re.DOTALL)
_ZFS_MAGICS = (b"\x0c\xb1\xba\x00\x00\x00\x00\x00", b"\x00\x00\x00\x00\x00\xba\xb1\x0c")

# Incompatible and read-only compatible features of ext that neither ext2 nor ext3 knows.
_EXT_JOURNAL_DEVICE = 0x8
_EXT4_INCOMPATIBLE = 0x40 | 0x80 | 0x100 | 0x200 | 0x400 | 0x1000 | 0x2000 | 0x4000 | 0x8000 | 0x10000 | 0x20000
_EXT4_READ_ONLY = 0x8 | 0x10 | 0x20 | 0x40 | 0x100 | 0x200 | 0x400 | 0x2000 | 0x8000
_EXT_64BIT = 0x80


@dataclass(frozen=True, slots=True)
class Superblock:
    """What a superblock says of its file system.

    Attributes:
        type: ``ext4``, ``xfs``, ``LVM2_member`` …, as ``blkid`` names it.
        label: given by whoever made it; empty when there is none.
        uuid: as the system shows it; empty when there is none.
        size: bytes it takes up; None when it does not say.
    """

    type: str
    label: str = ""
    uuid: str = ""
    size: int | None = None


def sniff_filesystem(source: Source) -> str | None:
    """The type of the file system that a volume holds, or ``swap``, ``LVM2_member`` …; None if it is unknown."""
    found = read_superblock(source)
    return None if found is None else found.type


def read_superblock(source: Source) -> Superblock | None:
    """The superblock of the file system that a volume holds; None if none is known, or nothing can be read."""
    member = MdMember.read(source)
    head = _head(source, 0, _HEAD)
    found = next((found for read in _READERS if (found := read(head)) is not None), None)
    if member is not None and not (found is not None and _is_left_over(member, found)):
        return Superblock("linux_raid_member", member.name, member.uuid)  # an array can begin where its member does
    if found is not None:
        return found
    for name, places in _MAGICS.items():
        if any(head.startswith(magic, offset) for offset, magic in places):
            return Superblock(name)
    label = _head(source, 0, 2 * _ZFS_UBERBLOCKS)
    if any(label.startswith(_ZFS_MAGICS, place) for place in range(_ZFS_UBERBLOCKS, len(label), 1024)):
        return _zfs(label[_ZFS_DESCRIPTION:_ZFS_UBERBLOCKS])
    return _far_away(source) or _second_luks(source)


_VMFS = 1 << 20
_MAGICS = {
    "BitLocker": ((3, b"-FVE-FS-"),),
    "DM_integrity": ((0, b"integrt\0"),),
    "DM_verity_hash": ((0, b"verity\0\0"),),
    "LVM1_member": ((0, b"HM\1\0"), (0, b"HM\2\0")),
    "ReFS": ((3, b"ReFS\0\0\0\0"),),
    "apfs": ((32, b"NXSB"),),
    "ceph_bluestore": ((0, b"bluestore block device"),),
    "erofs": ((1024, b"\xe2\xe1\xf5\xe0"),),
    "f2fs": ((1024, b"\x10\x20\xf5\xf2"),),
    "gfs2": ((0x10000, b"\x01\x16\x19\x70"),),
    "hfs": ((1024, b"BD\0"),),
    "jfs": ((0x8000, b"JFS1"),),
    "ocfs2": tuple((2 * size, b"OCFSV2") for size in (512, 1024, 2048, 4096)),
    "reiserfs": ((0x10034, b"ReIsEr"),),
    "stratis": ((512, b"!Stra0tis\x86\xff\x02"), (4608, b"!Stra0tis\x86\xff\x02")),
    "swsuspend": tuple((size - 10, b"S1SUSPEND") for size in _PAGE_SIZES),
    "ufs": tuple(
        (place + 1372, magic)
        for place, number in ((8192, 0x00011954), (65536, 0x19540119))
        for magic in (number.to_bytes(4, "little"), number.to_bytes(4, "big"))
    ),
    "bcache": ((4096 + 24, BCACHE_MAGIC),),
    "vdo": ((0, b"dmvdo001"),),
    "bcachefs": ((4096 + 24, b"\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef"),),
}


def _is_left_over(member: MdMember, found: Superblock) -> bool:
    """Whether a file system was made over a former member: it takes up what the array would leave to its superblock."""
    return member.data_offset == 0 and member.size < (found.size or 0) <= member.source.size


def _zfs(description: bytes) -> Superblock:
    """A device of a pool of ZFS, with name and number of the pool."""
    name, guid = _ZFS_NAME.search(description), _ZFS_GUID.search(description)
    length = int.from_bytes(name[1], "big") if name is not None else 0
    label = _text(description[name.end() : name.end() + length]) if name is not None and length <= 256 else ""
    return Superblock("zfs_member", label, str(int.from_bytes(guid[1], "big")) if guid is not None else "")


def _far_away(source: Source) -> Superblock | None:
    """What only tells itself far from the beginning: VMFS, and members of the RAID of mainboards and controllers."""
    if _head(source, _VMFS, 4) == b"\x0d\xd0\x01\xc0":
        return Superblock("VMFS_volume_member")
    last = _head(source, source.size - 1024, 1024) if source.size >= 1024 else b""
    if last.startswith(b"Intel Raid ISM Cfg Sig. "):
        return Superblock("isw_raid_member")
    return Superblock("ddf_raid_member") if last.startswith(b"\xde\x11\xde\x11", 512) else None


def _second_luks(source: Source) -> Superblock | None:
    """A LUKS volume of version 2 whose first header is gone; the second says itself where it lies."""
    for place in LUKS2_PLACES:
        head = _head(source, place, 512)
        if head.startswith(b"SKUL\xba\xbe\0\2") and int.from_bytes(head[256:264], "big") == place:
            return _luks(head)
    return None


def _head(source: Source, offset: int, length: int) -> bytes:
    data = b""
    try:
        while len(data) < length and (more := source.read_some(offset + len(data), length - len(data))):
            data += more
    except DamagedData:
        pass  # whoever reads the volume meets it again and tells
    return data


def _luks(head: bytes) -> Superblock | None:
    if not head.startswith((b"LUKS\xba\xbe", b"SKUL\xba\xbe")):
        return None
    label = _text(head[24:72]) if head[6:8] == b"\0\2" else ""
    return Superblock("crypto_LUKS", label, _text(head[168:208]))


def _lvm(head: bytes) -> Superblock | None:
    for sector in range(0, 2048, 512):
        if head.startswith(b"LABELONE", sector) and head.startswith(b"LVM2 001", sector + 24):
            place = sector + int.from_bytes(head[sector + 20 : sector + 24], "little")
            size = int.from_bytes(head[place + 32 : place + 40], "little")
            return Superblock("LVM2_member", "", _lvm_uuid(head[place : place + 32]), size or None)
    return None


def _lvm_uuid(data: bytes) -> str:
    text = data.decode("ascii", "replace")
    return "-".join(
        text[start:end] for start, end in zip((0, 6, 10, 14, 18, 22, 26), (6, 10, 14, 18, 22, 26, 32), strict=True)
    )


def _xfs(head: bytes) -> Superblock | None:
    if not head.startswith(b"XFSB") or len(head) < 512:
        return None
    size = int.from_bytes(head[4:8], "big") * int.from_bytes(head[8:16], "big")
    return Superblock("xfs", _text(head[108:120]), _uuid(head[32:48]), size)


def _ext(head: bytes) -> Superblock | None:
    block = head[1024:2048]
    if block[56:58] != b"\x53\xef" or len(block) < 1024:
        return None
    (blocks,), (shift,) = _U32.unpack_from(block, 4), _U32.unpack_from(block, 24)
    compatible, incompatible, read_only = Struct("<III").unpack_from(block, 92)
    if not any(block[:4]) or not blocks or shift > 6 or _U32.unpack_from(block, 76)[0] > 1:
        return None  # two bytes of magic are few
    if incompatible & _EXT_64BIT:
        blocks |= _U32.unpack_from(block, 0x150)[0] << 32
    if incompatible & _EXT_JOURNAL_DEVICE:
        kind = "jbd"
    elif incompatible & _EXT4_INCOMPATIBLE or read_only & _EXT4_READ_ONLY:
        kind = "ext4"
    else:
        kind = "ext3" if compatible & 4 else "ext2"
    return Superblock(kind, _text(block[120:136]), _uuid(block[104:120]), blocks << 10 + shift)


def _btrfs(head: bytes) -> Superblock | None:
    if not head.startswith(b"_BHRfS_M", 0x10040):
        return None
    label = _text(head[0x1012B : 0x1012B + 256])
    return Superblock("btrfs", label, _uuid(head[0x10020:0x10030]), _U64.unpack_from(head, 0x10070)[0])


def _swap(head: bytes) -> Superblock | None:
    for size in _PAGE_SIZES:
        if head.startswith((b"SWAPSPACE2", b"SWAP-SPACE"), size - 10):
            pages = _U32.unpack_from(head, 1028)[0] + 1
            return Superblock("swap", _text(head[1052:1068]), _uuid(head[1036:1052]), pages * size)
    return None


def _iso9660(head: bytes) -> Superblock | None:
    if not head.startswith(b"CD001", 0x8001):
        return None
    blocks, size = _U32.unpack_from(head, 0x8050)[0], _U16.unpack_from(head, 0x8080)[0]
    return Superblock("iso9660", _text(head[0x8028:0x8048]).rstrip(), "", blocks * size)


def _squashfs(head: bytes) -> Superblock | None:
    if not head.startswith((b"hsqs", b"sqsh")) or len(head) < 96:
        return None
    return Superblock("squashfs", "", "", _U64.unpack_from(head, 40)[0])


def _ntfs(head: bytes) -> Superblock | None:
    if not head.startswith(b"NTFS    ", 3) or len(head) < 512:
        return None
    size = _U16.unpack_from(head, 11)[0] * (_U64.unpack_from(head, 40)[0] + 1)
    return Superblock("ntfs", "", f"{_U64.unpack_from(head, 72)[0]:016X}", size)


def _exfat(head: bytes) -> Superblock | None:
    if not head.startswith(b"EXFAT   ", 3) or len(head) < 512:
        return None
    size = _U64.unpack_from(head, 72)[0] << head[108] if head[108] <= 12 else None
    return Superblock("exfat", "", _serial(_U32.unpack_from(head, 100)[0]), size)


def _vfat(head: bytes) -> Superblock | None:
    """A boot sector whose parameter block makes sense; its type strings are only a hint."""
    if head[510:512] != b"\x55\xaa" or head[:1] not in (b"\xeb", b"\xe9"):
        return None
    sector, per_cluster, reserved, tables, _, small = Struct("<HBHBHH").unpack_from(head, 11)
    if sector not in (512, 1024, 2048, 4096) or per_cluster.bit_count() != 1 or not reserved:
        return None
    if not 1 <= tables <= 4 or head[21] < 0xF0:
        return None
    wide = _U16.unpack_from(head, 22)[0] == 0  # FAT32 counts the sectors of a table elsewhere
    serial, label = (67, 71) if wide else (39, 43)
    known = head[serial - 1] in (0x28, 0x29)
    name = head[label : label + 11].decode("latin-1").rstrip() if known and head[serial - 1] == 0x29 else ""
    sectors = small or _U32.unpack_from(head, 32)[0]
    label_text = "" if name == "NO NAME" else name
    return Superblock("vfat", label_text, _serial(_U32.unpack_from(head, serial)[0]) if known else "", sectors * sector)


def _hfsplus(head: bytes) -> Superblock | None:
    block = head[1024:1536]
    if not block.startswith((b"H+\0\4", b"HX\0\5")) or len(block) < 512:
        return None
    size = int.from_bytes(block[40:44], "big") * int.from_bytes(block[44:48], "big")
    return Superblock("hfsplus", "", "", size)


_READERS: tuple[Callable[[bytes], Superblock | None], ...] = (
    _luks,
    _lvm,
    _xfs,
    _ext,
    _btrfs,
    _swap,
    _iso9660,
    _squashfs,
    _ntfs,
    _exfat,
    _vfat,
    _hfsplus,
)


def _text(data: bytes) -> str:
    return data.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def _uuid(data: bytes) -> str:
    return str(uuid.UUID(bytes=data)) if len(data) == 16 and any(data) else ""


def _serial(number: int) -> str:
    return f"{number >> 16:04X}-{number & 0xFFFF:04X}"
