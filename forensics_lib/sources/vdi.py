"""VDI disk images, the native format of VirtualBox.

Format: src/VBox/Storage/VDICore.h of VirtualBox; block/vdi.c of QEMU agrees.
"""

from __future__ import annotations

import sys
import uuid
from array import array
from struct import Struct
from typing import ClassVar

from forensics_lib.errors import DamagedData, UnsupportedFormat
from forensics_lib.model import Origin
from forensics_lib.sources._bounds import end_of, read_exactly
from forensics_lib.sources._cache import Cache
from forensics_lib.sources.base import Source
from forensics_lib.sources.joined import MissingSource

__all__ = ["Vdi"]

_PREHEADER = Struct("<II")  # at 0x40: signature, version
_HEADER = Struct("<II4x256xII20xQIIII16s16s16s16s")  # at 0x48
_VERSION_1_1 = 0x0001_0001
_KINDS = {1: "dynamic", 2: "static", 3: "undo", 4: "differencing"}
_UNALLOCATED, _DISCARDED = 0xFFFF_FFFF, 0xFFFF_FFFE
_MAX_BLOCK = 256 << 20
_PAGE = 4096  # entries of the block map that are kept together


class Vdi(Source):
    """The disk inside a VDI image.

    Reads version 1.1, dynamic, static and differencing images; the parent of a differencing image is only known by
    its UUID and has to be given.

    Args:
        source: the image file.
        parent: the disk that unallocated blocks of a differencing image are read from.
        origin: of the disk; a step below the image by default.

    Attributes:
        kind: ``dynamic``, ``static``, ``undo`` or ``differencing``.
        block_size: in bytes.
        uuid: of this image.
        parent_uuid: of the image below; None for an image that stands alone.

    Raises:
        DamagedData: the header contradicts the format.
        UnsupportedFormat: the version is another one.
    """

    format: ClassVar[str] = "vdi"
    signature: ClassVar[bytes] = b"\x7f\x10\xda\xbe"

    def __init__(self, source: Source, parent: Source | None = None, origin: Origin | None = None) -> None:
        """Read the header."""
        self.source = source
        self.origin = origin or source.origin.to(self.format)
        head = read_exactly(source, 0x40, _PREHEADER.size + _HEADER.size, "the header")
        if not head.startswith(self.signature):
            raise UnsupportedFormat("no VDI image: its signature is missing")
        _, version = _PREHEADER.unpack_from(head)
        if version != _VERSION_1_1:
            raise UnsupportedFormat(f"VDI version {version >> 16}.{version & 0xFFFF} is not read, only 1.1")
        fields = _HEADER.unpack_from(head, _PREHEADER.size)
        _, kind, self._map_offset, self._data_offset, self.size, self.block_size, self._extra, self._blocks = fields[:8]
        self.kind = _KINDS.get(kind, "unknown")
        if self.kind == "unknown":
            raise UnsupportedFormat(f"VDI image of the unknown kind {kind}")
        if not 512 <= self.block_size <= _MAX_BLOCK or self.block_size & (self.block_size - 1):
            raise DamagedData(f"blocks of {self.block_size} bytes", origin=self.origin, offset=0x178)
        self.uuid = str(uuid.UUID(bytes_le=fields[9]))
        below = uuid.UUID(bytes_le=fields[11])
        self.parent_uuid = str(below) if below.int else None
        self.parent = parent
        if parent is None and self.kind in ("undo", "differencing"):
            reason = f"nothing is stored for these bytes, and the parent image {self.parent_uuid} is missing"
            self.parent = MissingSource(self.size, self.origin, reason)
        self._map: Cache[int, array[int]] = Cache(1 << 20)

    def read_at(self, offset: int, length: int) -> bytes:
        """The bytes at a position; short only at the end.

        Raises:
            DamagedData: a block lies beyond the end of the file or the block map, or the parent is missing.
        """
        end = end_of(self, offset, length)
        pieces = []
        while offset < end:
            block, inside = divmod(offset, self.block_size)
            count = min(end - offset, self.block_size - inside)
            pieces.append(self._part(block, inside, count))
            offset += count
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _part(self, block: int, inside: int, count: int) -> bytes:
        place = self._place(block)
        if place == _DISCARDED:
            return bytes(count)
        if place == _UNALLOCATED:
            if self.parent is None:
                return bytes(count)
            return self.parent.read_at(block * self.block_size + inside, count).ljust(count, b"\0")
        start = self._data_offset + place * (self.block_size + self._extra) + self._extra + inside
        return read_exactly(self.source, start, count, f"block {block}")

    def _place(self, block: int) -> int:
        if block >= self._blocks:
            raise DamagedData("the block map is too short for the disk", origin=self.origin, offset=block * 4)
        page, slot = divmod(block, _PAGE)
        table = self._map.get(page)
        if table is None:
            count = min(_PAGE, self._blocks - page * _PAGE)
            data = self.source.read_at(self._map_offset + page * _PAGE * 4, count * 4)
            table = array("I", data[: len(data) & ~3])
            if sys.byteorder == "big":
                table.byteswap()
            self._map.put(page, table)
        if slot >= len(table):
            raise DamagedData("the block map is cut off", origin=self.origin, offset=self._map_offset + block * 4)
        return table[slot]

    def close(self) -> None:
        """Close the image and its parent."""
        self.source.close()
        if self.parent is not None:
            self.parent.close()
