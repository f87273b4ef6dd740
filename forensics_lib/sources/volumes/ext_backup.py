"""File systems of the ext family whose first superblock is lost: they are read by one of its copies.

Copies lie at the start of groups 1, 3, 5, 7 and others, each followed by a copy of the group descriptors. They are as
old as the last resize or repair, so what changes with every mount is not in them; where everything lies is.

Format: Linux Documentation/filesystems/ext4, "Super Block" and "Block Group Descriptors".
"""

from __future__ import annotations

from struct import Struct

from forensics_lib._crc32c import crc32c
from forensics_lib.errors import DamagedData
from forensics_lib.model import Origin
from forensics_lib.sources.base import Source
from forensics_lib.sources.patched import PAGE, PatchedSource

__all__ = ["by_backup"]

_FIRST, _SIZE = 1024, 1024
_GROUPS = (1, 3, 5, 7, 9, 25, 27)
_HAS_JOURNAL, _RECOVER, _META_BG, _64BIT, _CHECKSUMS = 0x4, 0x4, 0x10, 0x80, 0x400
_U16, _U32 = Struct("<H"), Struct("<I")
_MAX_DESCRIPTORS = 64 << 20


def by_backup(source: Source) -> tuple[PatchedSource, Origin] | None:
    """A volume with its superblock, and the group descriptors that are lost too, put back from a copy; where that lies.

    None where the first superblock is there, or no copy is.
    """
    if _at(source, _FIRST + 56, 2) == b"\x53\xef":
        return None
    for shift in range(7):
        for group in _GROUPS:
            block_size = 1024 << shift
            place = (group * 8 * block_size + (shift == 0)) * block_size
            if place + _SIZE > source.size:
                break
            copy = _at(source, place, _SIZE)
            if _is_copy(copy, shift, group):
                pages = _pages(source, bytearray(copy), place, block_size)
                return PatchedSource(source, pages, source.origin), source.origin.to("superblock", place)
    return None


def _is_copy(copy: bytes, shift: int, group: int) -> bool:
    if len(copy) < _SIZE or copy[56:58] != b"\x53\xef" or _U16.unpack_from(copy, 90)[0] != group:
        return False
    if _U32.unpack_from(copy, 24)[0] != shift or _U32.unpack_from(copy, 32)[0] != 8 * (1024 << shift):
        return False
    checked = _U32.unpack_from(copy, 100)[0] & _CHECKSUMS
    return not checked or crc32c(copy[:1020]) ^ 0xFFFFFFFF == _U32.unpack_from(copy, 1020)[0]


def _pages(source: Source, superblock: bytearray, place: int, block_size: int) -> dict[int, bytes]:
    """The pages that put the superblock, and descriptors that tell other places than their copies, back."""
    incompatible = _U32.unpack_from(superblock, 96)[0]
    start = block_size * (2 if block_size == 1024 else 1)
    copies = b"" if incompatible & _META_BG else _at(source, place + block_size, _length(superblock, incompatible))
    if _U32.unpack_from(superblock, 92)[0] & _HAS_JOURNAL:
        incompatible |= _RECOVER  # copies do not say whether it must be replayed; a journal that need not is empty
    _U32.pack_into(superblock, 96, incompatible)
    _U16.pack_into(superblock, 90, 0)
    size = 64 if incompatible & _64BIT else 32
    patch = {_FIRST: bytes(superblock)}
    for at in range(0, len(copies) - size + 1, size):
        copy = copies[at : at + size]
        if _places(_at(source, start + at, size)) != _places(copy):
            patch[start + at] = copy[:18] + bytes(2) + copy[20:]  # without flags: they are of an empty file system
    pages: dict[int, bytearray] = {}
    for at, data in patch.items():
        for page in range(at // PAGE, (at + len(data) - 1) // PAGE + 1):
            content = pages.setdefault(page, bytearray(_at(source, page * PAGE, PAGE).ljust(PAGE, b"\0")))
            begin, end = max(at, page * PAGE), min(at + len(data), page * PAGE + PAGE)
            content[begin - page * PAGE : end - page * PAGE] = data[begin - at : end - at]
    return {page: bytes(content) for page, content in pages.items()}


def _length(superblock: bytearray, incompatible: int) -> int:
    """Bytes of all group descriptors."""
    blocks, per_group = _U32.unpack_from(superblock, 4)[0], _U32.unpack_from(superblock, 32)[0]
    if incompatible & _64BIT:
        blocks |= _U32.unpack_from(superblock, 336)[0] << 32
    return int(min(-(-blocks // per_group) * (64 if incompatible & _64BIT else 32), _MAX_DESCRIPTORS))


def _places(descriptor: bytes) -> tuple[bytes, bytes]:
    """Where a group's bitmaps and inodes lie, which never changes."""
    return descriptor[:12], descriptor[32:44]


def _at(source: Source, offset: int, length: int) -> bytes:
    try:
        return source.read_at(offset, length)
    except DamagedData:
        return b""
