"""Access control lists as Linux gives them to programs, from what file systems store.

Format: Linux ``include/uapi/linux/posix_acl_xattr.h``, ``fs/ext4/acl.h`` and ``fs/xfs/libxfs/xfs_format.h``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

__all__ = ["acl_of_ext", "acl_of_xfs"]

_VERSION, _EXT_VERSION = 2, 1
_ENTRY = struct.Struct("<HHI")
_EXT_SHORT, _EXT_ID = struct.Struct("<HH"), struct.Struct("<I")
_XFS_ENTRY = struct.Struct(">IIHxx")
_USER, _GROUP = 0x02, 0x08
_NO_ID = 0xFFFFFFFF


def acl_of_ext(stored: bytes) -> bytes:
    """A list as ext2, ext3 and ext4 store it; what contradicts itself is given back as it is stored."""
    if stored[:4] != struct.pack("<I", _EXT_VERSION):
        return stored
    entries = []
    position = 4
    while position < len(stored):
        if position + _EXT_SHORT.size > len(stored):
            return stored
        tag, permissions = _EXT_SHORT.unpack_from(stored, position)
        position += _EXT_SHORT.size
        owner = _NO_ID
        if tag in (_USER, _GROUP):
            if position + _EXT_ID.size > len(stored):
                return stored
            (owner,) = _EXT_ID.unpack_from(stored, position)
            position += _EXT_ID.size
        entries.append((tag, permissions, owner))
    return _packed(entries)


def acl_of_xfs(stored: bytes) -> bytes:
    """A list as XFS stores it, as far as it goes."""
    (count,) = struct.unpack_from(">I", stored.ljust(4, b"\0"))
    entries = []
    for index in range(min(count, (len(stored) - 4) // _XFS_ENTRY.size)):
        tag, owner, permissions = _XFS_ENTRY.unpack_from(stored, 4 + index * _XFS_ENTRY.size)
        entries.append((tag & 0xFFFF, permissions, owner if tag in (_USER, _GROUP) else _NO_ID))
    return _packed(entries)


def _packed(entries: Iterable[tuple[int, int, int]]) -> bytes:
    return struct.pack("<I", _VERSION) + b"".join(_ENTRY.pack(*entry) for entry in entries)
