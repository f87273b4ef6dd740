"""Values of XFS that do not fit into an inode: targets of long symbolic links, large extended attributes.

Format: XFS Algorithms & Data Structures (kernel.org), "Symbolic Links" and "Remote Attribute Values".
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from forensics_lib.errors import DamagedData
from forensics_lib.formats.directory import Report
from forensics_lib.formats.xfs import XfsGeometry
from forensics_lib.formats.xfs_fork import Extent, fork_extents, fork_source
from forensics_lib.formats.xfs_inode import ForkFormat, XfsInode
from forensics_lib.model import Origin

__all__ = ["link_target", "remote_value"]

_LINK, _VALUE = b"XSLM", b"XARM"
_HEADER = 56  # before version 5 there is none
_MAX_TARGET = 1024
_MAX_VALUE = 64 << 10


def link_target(geometry: XfsGeometry, inode: XfsInode, report: Report) -> bytes:
    """What a symbolic link says.

    Raises:
        DamagedData: it cannot be read.
    """
    if inode.format == ForkFormat.LOCAL:
        return inode.data_fork[: inode.size]
    if inode.size > _MAX_TARGET:
        raise DamagedData(f"inode {inode.number}: a link of {inode.size} bytes", offset=inode.offset)
    target = b""
    for extent in fork_extents(geometry, inode, report):
        if extent.block is None or len(target) >= inode.size:
            break
        data = geometry.read_blocks(
            extent.block, min(extent.length, -(-(_MAX_TARGET + _HEADER) // geometry.block_size))
        )
        target += _payload(data, _LINK, geometry.version)
    if len(target) < inode.size:
        raise DamagedData(f"inode {inode.number}: of {inode.size} bytes {len(target)} are there", offset=inode.offset)
    return target[: inode.size]


def remote_value(geometry: XfsGeometry, extents: Sequence[Extent], block: int, length: int) -> bytes:
    """The value of an extended attribute that has blocks of its own.

    Args:
        geometry: of the file system.
        extents: of the attribute fork.
        block: where the value starts in the fork.
        length: its bytes.

    Raises:
        DamagedData: it cannot be read.
    """
    if length > _MAX_VALUE:
        raise DamagedData(f"a value of {length} bytes, more than an attribute can have")
    size = geometry.block_size
    room = size - _HEADER if geometry.version == 5 else size
    count = -(-length // room)
    source = fork_source(geometry, extents, (block + count) * size, Origin(f"value in block {block} of the attributes"))
    data = source.read_at(block * size, count * size)
    parts = (data[at : at + size] for at in range(0, len(data), size))
    value = b"".join(_payload(part, _VALUE, geometry.version) for part in parts)
    if len(value) < length:
        raise DamagedData(f"a value of {length} bytes, of which {len(value)} are there")
    return value[:length]


def _payload(data: bytes, magic: bytes, version: int) -> bytes:
    """What a block holds behind its header."""
    if version < 5:
        return data
    found, _, length = struct.unpack_from(">4sII", data)
    if found != magic:
        raise DamagedData(f"a block of a {'link' if magic == _LINK else 'value'} does not start as such")
    return data[_HEADER : _HEADER + min(length, len(data) - _HEADER)]
