"""VHD disk images, the older format of Hyper-V and Virtual PC, also used by Azure.

Format: "Virtual Hard Disk Image Format Specification" (Microsoft, 2006). libvhdi reads it correctly as well, but
sector by sector, at a hundredth of the speed.
"""

from __future__ import annotations

import sys
import uuid
from array import array
from dataclasses import dataclass
from struct import Struct
from typing import ClassVar

from forensics_lib.errors import DamagedData, UnsupportedFormat
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.sources._bounds import end_of, read_exactly
from forensics_lib.sources._cache import Cache
from forensics_lib.sources.base import Source
from forensics_lib.sources.joined import MissingSource

__all__ = ["Vhd"]

_FOOTER = Struct(">8sIIQI4s4s4sQQ4sII16s")
_DYNAMIC = Struct(">8sQQIIII16sI4x512s")
_SECTOR = 512
_KINDS = {2: "fixed", 3: "dynamic", 4: "differencing"}
_UNALLOCATED = 0xFFFF_FFFF
_MAX_BLOCK = 256 << 20
_PAGE = 4096  # entries of the block table that are kept together


@dataclass(frozen=True, slots=True)
class _Footer:
    kind: int
    table_header: int
    size: int
    uuid: str


class Vhd(Source):
    """The disk inside a VHD image.

    Reads fixed, dynamic and differencing images. An image whose end is cut off is read by the copy of the footer at its
    start, which only dynamic and differencing images have.

    Args:
        source: the image file.
        problems: told of a footer that is missing or damaged.
        parent: the disk below a differencing image.
        origin: of the disk; a step below the image by default.

    Attributes:
        kind: ``fixed``, ``dynamic`` or ``differencing``.
        uuid: of this image.
        parent_uuid: of the image below; None for an image that stands alone.
        parent_name: recorded name of the image below; None for an image that stands alone.

    Raises:
        DamagedData: a header contradicts the format.
        UnsupportedFormat: it is no VHD image, or of an unknown kind.
    """

    format: ClassVar[str] = "vhd"
    magic: ClassVar[bytes] = b"conectix"

    def __init__(
        self, source: Source, problems: ProblemLog, parent: Source | None = None, origin: Origin | None = None
    ) -> None:
        """Read the footer and the header."""
        self.source = source
        self.origin = origin or source.origin.to(self.format)
        footer = self._footer(problems)
        self.kind = _KINDS.get(footer.kind, "")
        if not self.kind:
            raise UnsupportedFormat(f"VHD image of the unknown kind {footer.kind}")
        self.size = footer.size
        self.uuid = footer.uuid
        self.parent_uuid: str | None = None
        self.parent_name: str | None = None
        self.parent: Source | None = None
        self._pages: Cache[int, array[int]] = Cache(1 << 20)
        if self.kind != "fixed":
            self._read_header(footer.table_header, parent)

    @classmethod
    def fits(cls, source: Source) -> bool:
        """Whether the file is a VHD image: a footer in front, or one with a valid checksum at the end."""
        if source.read_at(0, 8) == cls.magic:
            return True
        data = source.read_at(max(0, source.size - _SECTOR), _SECTOR)
        return data.startswith(cls.magic) and _checksum(data) == int.from_bytes(data[64:68], "big")

    def read_at(self, offset: int, length: int) -> bytes:
        """The bytes at a position; short only at the end.

        Raises:
            DamagedData: a block lies beyond the end of the file or the table, or the parent is missing.
        """
        end = end_of(self, offset, length)
        if offset >= end:
            return b""
        if self.kind == "fixed":
            return read_exactly(self.source, offset, end - offset, "the disk")
        pieces = []
        while offset < end:
            block, inside = divmod(offset, self._block_size)
            count = min(end - offset, self._block_size - inside)
            pieces.append(self._part(block, inside, count))
            offset += count
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _part(self, block: int, inside: int, count: int) -> bytes:
        place = self._place(block)
        if place == _UNALLOCATED:
            return self._below(block * self._block_size + inside, count)
        start = place * _SECTOR
        bitmap = -(-self._block_size // (_SECTOR * 8 * _SECTOR)) * _SECTOR
        if self.parent is None:
            return read_exactly(self.source, start + bitmap + inside, count, f"block {block}")
        stored = read_exactly(self.source, start, bitmap, f"bitmap of block {block}")
        pieces = []
        while count:  # runs of sectors that are stored here, or below
            here = _is_set(stored, inside // _SECTOR)
            end = inside - inside % _SECTOR + _SECTOR
            while end < inside + count and _is_set(stored, end // _SECTOR) == here:
                end += _SECTOR
            size = min(count, end - inside)
            if here:
                pieces.append(read_exactly(self.source, start + bitmap + inside, size, f"block {block}"))
            else:
                pieces.append(self._below(block * self._block_size + inside, size))
            inside += size
            count -= size
        return b"".join(pieces)

    def _below(self, offset: int, count: int) -> bytes:
        if self.parent is None:
            return bytes(count)
        return self.parent.read_at(offset, count).ljust(count, b"\0")

    def _place(self, block: int) -> int:
        """Where a block lies in the file, in sectors."""
        if block >= self._blocks:
            raise DamagedData("the block table is too short for the disk", origin=self.origin, offset=block * 4)
        page, slot = divmod(block, _PAGE)
        table = self._pages.get(page)
        if table is None:
            count = min(_PAGE, self._blocks - page * _PAGE)
            data = self.source.read_at(self._table + page * _PAGE * 4, count * 4)
            table = array("I", data[: len(data) & ~3])
            if sys.byteorder == "little":
                table.byteswap()
            self._pages.put(page, table)
        if slot >= len(table):
            raise DamagedData("the block table is cut off", origin=self.origin, offset=self._table + block * 4)
        return table[slot]

    def _footer(self, problems: ProblemLog) -> _Footer:
        last = max(0, self.source.size - _SECTOR)
        for position in dict.fromkeys((last, last + 1, 0)):  # Virtual PC before 2004 wrote 511 bytes
            data = self.source.read_at(position, _SECTOR)
            if data.startswith(self.magic) and len(data) >= _FOOTER.size:
                if position == 0 and last:
                    problems.add(self.origin, "the image is cut off: its footer is missing, the copy in front was used")
                break
        else:
            raise UnsupportedFormat("no VHD image: it has no footer")
        fields = _FOOTER.unpack_from(data)
        if _checksum(data) != fields[12]:
            problems.add(self.origin.to("footer", position), "checksum of the VHD footer is wrong")
        return _Footer(fields[11], fields[3], fields[9], str(uuid.UUID(bytes=fields[13])))

    def _read_header(self, position: int, parent: Source | None) -> None:
        data = read_exactly(self.source, position, _DYNAMIC.size, "the header")
        magic, _, self._table, _, self._blocks, self._block_size, _, below, _, name = _DYNAMIC.unpack(data)
        if magic != b"cxsparse":
            raise DamagedData("the header of a dynamic disk is missing", origin=self.origin, offset=position)
        if not _SECTOR <= self._block_size <= _MAX_BLOCK or self._block_size & (self._block_size - 1):
            raise DamagedData(f"blocks of {self._block_size} bytes", origin=self.origin, offset=position + 32)
        if self.kind == "differencing":
            self.parent_uuid = str(uuid.UUID(bytes=below))
            self.parent_name = name.decode("utf-16-be", "replace").split("\0", 1)[0]
            reason = f"nothing is stored for these bytes, and the parent image {self.parent_name!r} is missing"
            self.parent = parent or MissingSource(self.size, self.origin, reason)

    def close(self) -> None:
        """Close the image and its parent."""
        self.source.close()
        if self.parent is not None:
            self.parent.close()


def _is_set(bitmap: bytes, sector: int) -> bool:
    return bool(bitmap[sector >> 3] & 0x80 >> (sector & 7))


def _checksum(footer: bytes) -> int:
    """One's complement of the sum of all bytes, the checksum's own four left out."""
    return ~(sum(footer) - sum(footer[64:68])) & 0xFFFF_FFFF
