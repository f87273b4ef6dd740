"""Extended attributes of XFS: in the inode, in leaves of a hash tree, and in blocks of their own.

Format: XFS Algorithms & Data Structures (kernel.org), "Extended Attributes"; the names are those that Linux shows.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from forensics_lib.errors import DamagedData
from forensics_lib.formats.directory import Report
from forensics_lib.formats.posix_acl import acl_of_xfs
from forensics_lib.formats.xfs import XfsGeometry
from forensics_lib.formats.xfs_fork import Extent, fork_extents, fork_source
from forensics_lib.formats.xfs_inode import ForkFormat, XfsInode
from forensics_lib.formats.xfs_remote import remote_value
from forensics_lib.model import Origin
from forensics_lib.sources.base import Source

__all__ = ["Attribute", "linux_xattrs", "read_attributes"]

_MAX_BYTES = 64 << 20  # of one inode
_MAX_LEVELS = 16
_LOCAL, _ROOT, _SECURE, _PARENT, _INCOMPLETE = 0x01, 0x02, 0x04, 0x08, 0x80
_ENTRY = struct.Struct(">4xHBx")
_REMOTE = struct.Struct(">IIB")
_CHILD = struct.Struct(">4xI")
# By magic: where the number of entries is, and where the entries start.
_LEAVES = {0xFBEE: (12, 32), 0x3BEE: (56, 80)}
_NODES = {0xFEBE: (12, 16), 0x3EBE: (56, 64)}

_ACL_NAMES = {b"SGI_ACL_FILE": "system.posix_acl_access", b"SGI_ACL_DEFAULT": "system.posix_acl_default"}


class Attribute(NamedTuple):
    """An extended attribute as it is stored.

    Attributes:
        flags: its namespace and state, as the format defines them.
        name: without the namespace.
        value: the value.
    """

    flags: int
    name: bytes
    value: bytes


def linux_xattrs(attributes: Iterator[Attribute]) -> dict[str, bytes]:
    """The attributes by the names under which Linux shows them.

    An access control list is there twice, as on Linux: as it is stored and as the interface for such lists gives it.
    Parent pointers, and attributes whose writing was not completed, are left out.
    """
    found = {}
    for flags, name, value in attributes:
        if flags & (_PARENT | _INCOMPLETE):
            continue
        text = name.decode("utf-8", "surrogateescape")
        if flags & _SECURE:
            found[f"security.{text}"] = value
        elif flags & _ROOT:
            found[f"trusted.{text}"] = value
            if name in _ACL_NAMES:
                found[_ACL_NAMES[name]] = acl_of_xfs(value)
        else:
            found[f"user.{text}"] = value
    return found


def read_attributes(geometry: XfsGeometry, inode: XfsInode, report: Report) -> Iterator[Attribute]:
    """The extended attributes of an inode; what breaks a rule is reported and left out.

    Raises:
        DamagedData: nothing of them can be read.
    """
    if not inode.has_attributes:
        return
    if inode.attribute_format == ForkFormat.LOCAL:
        yield from _short_form(inode.attribute_fork, report)
        return
    total = 0
    for attribute in _Fork(geometry, inode, report).attributes():
        total += len(attribute.name) + len(attribute.value)
        if total > _MAX_BYTES:
            report(f"more than {_MAX_BYTES} bytes of extended attributes; the rest is not read")
            return
        yield attribute


def _short_form(data: bytes, report: Report) -> Iterator[Attribute]:
    if len(data) < 4:
        return
    at = 4
    for _ in range(data[2]):
        if at + 3 > len(data):
            break
        name_end = at + 3 + data[at]
        end = name_end + data[at + 1]
        if end > len(data):
            break
        yield Attribute(data[at + 2], data[at + 3 : name_end], data[name_end:end])
        at = end
    else:
        return
    report("extended attributes do not end inside the inode; those that follow are not shown")


class _Fork:
    """An attribute fork with blocks. Every block is read once, so cycles end."""

    def __init__(self, geometry: XfsGeometry, inode: XfsInode, report: Report) -> None:
        self._geometry = geometry
        self._report = report
        self._extents: Sequence[Extent] = fork_extents(geometry, inode, report, attribute=True)
        end = max((extent.offset + extent.length for extent in self._extents), default=0)
        origin = Origin(f"attributes of inode {inode.number}", None, inode.offset)
        self._source: Source = fork_source(geometry, self._extents, end * geometry.block_size, origin)
        self._seen: set[int] = set()

    def attributes(self) -> Iterator[Attribute]:
        yield from self._below(0, _MAX_LEVELS)

    def _below(self, number: int, levels: int) -> Iterator[Attribute]:
        try:
            if number in self._seen or not levels:
                raise DamagedData("it is there twice" if levels else "too many levels are above it")
            self._seen.add(number)
            size = self._geometry.block_size
            data = self._source.read_at(number * size, size)
            magic = struct.unpack_from(">8xH", data)[0] if data else 0
            if magic not in _LEAVES and magic not in _NODES:
                raise DamagedData("it is neither a node nor a leaf")
        except DamagedData as error:
            self._report(f"block {number} of the extended attributes cannot be used: {error}")
            return
        if magic in _LEAVES:
            yield from self._leaf(number, data, *_LEAVES[magic])
            return
        count_at, start = _NODES[magic]
        for at in self._places(number, data, count_at, start):
            yield from self._below(_CHILD.unpack_from(data, at)[0], levels - 1)

    def _places(self, number: int, data: bytes, count_at: int, start: int) -> range:
        """Where the entries of a block are, which have eight bytes each."""
        (count,) = struct.unpack_from(">H", data, count_at)
        room = (len(data) - start) // 8
        if count > room:
            self._report(f"block {number} of the extended attributes declares {count} entries, and has room for {room}")
        return range(start, start + 8 * min(count, room), 8)

    def _leaf(self, number: int, data: bytes, count_at: int, start: int) -> Iterator[Attribute]:
        for place in self._places(number, data, count_at, start):
            at, flags = _ENTRY.unpack_from(data, place)
            try:
                if flags & _INCOMPLETE:
                    continue
                yield self._local(data, at, flags) if flags & _LOCAL else self._remote(data, at, flags)
            except (DamagedData, struct.error) as error:
                self._report(f"an extended attribute in block {number} cannot be read: {error}")

    def _local(self, data: bytes, at: int, flags: int) -> Attribute:
        length, name_length = struct.unpack_from(">HB", data, at)
        name_end = at + 3 + name_length
        if name_end + length > len(data):
            raise DamagedData("it does not end inside its block")
        return Attribute(flags, data[at + 3 : name_end], data[name_end : name_end + length])

    def _remote(self, data: bytes, at: int, flags: int) -> Attribute:
        block, length, name_length = _REMOTE.unpack_from(data, at)
        name_end = at + 9 + name_length
        if name_end > len(data):
            raise DamagedData("its name does not end inside its block")
        return Attribute(flags, data[at + 9 : name_end], remote_value(self._geometry, self._extents, block, length))
