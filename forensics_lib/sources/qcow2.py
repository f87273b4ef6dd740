"""QCOW2 disk images, the native format of QEMU and KVM.

Format: docs/interop/qcow2.rst of QEMU, https://www.qemu.org/docs/master/interop/qcow2.html
"""

from __future__ import annotations

import copy
import sys
import zlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from struct import Struct
from typing import ClassVar

from forensics_lib.errors import DamagedData, LimitExceeded, UnsupportedFormat
from forensics_lib.model import Origin, utc_from_ns
from forensics_lib.sources._bounds import end_of, read_exactly
from forensics_lib.sources._cache import Cache
from forensics_lib.sources.base import Source
from forensics_lib.sources.joined import MissingSource

__all__ = ["Qcow2", "Qcow2Snapshot"]

_HEADER = Struct(">4sIQIIQIIQQIIQ")
_FEATURES = Struct(">QQQII")  # version 3: incompatible, compatible, autoclear, refcount order, header length
_SNAPSHOT = Struct(">QIHHIIQII")
_VERSION_2_HEADER = 72
_COMPRESSION_TYPE = 104

_DIRTY, _CORRUPT, _EXTERNAL_DATA, _COMPRESSION, _EXTENDED_L2 = (1 << bit for bit in range(5))
_KNOWN_FEATURES = _DIRTY | _CORRUPT | _EXTERNAL_DATA | _COMPRESSION | _EXTENDED_L2
_ENCRYPTION = {1: "AES", 2: "LUKS"}
_BACKING_FORMAT, _DATA_FILE = 0xE2792ACA, 0x44415441

_OFFSET_MASK = 0x00FF_FFFF_FFFF_FE00
_COMPRESSED_FLAG = 1 << 62
_ZERO_FLAG = 1

# The bounds that QEMU itself keeps.
_MAX_L1_BYTES = 32 << 20
_MAX_SNAPSHOTS = 65_536
_MAX_SNAPSHOT_EXTRA = 1024
_MAX_NAME = 1023
_MAX_EXTENSIONS = 64 << 10
_ANY_SIZE = 1 << 62

_UNALLOCATED, _ZERO, _DATA, _COMPRESSED = range(4)


@dataclass(frozen=True, slots=True)
class Qcow2Snapshot:
    """An internal snapshot: the disk as it was at an earlier time, kept inside the same image.

    Attributes:
        id: unique id inside the image, usually a number.
        name: as the operator called it.
        created_ns: host's clock, nanoseconds since 1970.
        vm_clock_ns: how long the guest had been running, in nanoseconds.
        vm_state_size: bytes of saved machine state (memory); 0 when the machine was off.
        disk_size: bytes of the disk at that time.
    """

    id: str
    name: str
    created_ns: int
    vm_clock_ns: int
    vm_state_size: int
    disk_size: int
    _l1_offset: int
    _l1_entries: int

    @property
    def created(self) -> datetime | None:
        """When the snapshot was taken, by the host's clock."""
        return utc_from_ns(self.created_ns)


class Qcow2(Source):
    """The disk inside a QCOW2 image.

    Reads versions 2 and 3, zlib and zstd clusters, extended L2 entries (subclusters), backing files, external data
    files and internal snapshots. Not read: encrypted images, which are named when the image is opened.

    Args:
        source: the image file.
        backing: the disk that unallocated clusters are read from. Without it they are zeros, or damage if the image
            names a backing file.
        data: the external data file. Without it its clusters are damage if the image keeps them there.
        origin: of the disk; a step below the image by default.

    Attributes:
        version: 2 or 3.
        cluster_size: in bytes.
        compression: ``zlib`` or ``zstd``, the method of compressed clusters.
        backing_name: recorded name of the backing file; None for an image that stands alone.
        data_name: recorded name of the external data file; empty when none is recorded, None for an image without one.
        backing_format: recorded format of the backing file, e.g. ``raw``; None when none is recorded.
        dirty: the image was not closed properly; its disk is complete all the same.
        corrupt: QEMU had marked the image as corrupt.

    Raises:
        DamagedData: the header contradicts the format.
        UnsupportedFormat: the image is encrypted or uses an unknown feature.
    """

    format: ClassVar[str] = "qcow2"
    magic: ClassVar[bytes] = b"QFI\xfb"

    def __init__(
        self,
        source: Source,
        backing: Source | None = None,
        origin: Origin | None = None,
        data: Source | None = None,
    ) -> None:
        """Read the header and the first-level table."""
        self.source = source
        self.origin = origin or source.origin.to(self.format)
        fields = _HEADER.unpack(read_exactly(source, 0, _HEADER.size, "the header"))
        magic, self.version, backing_offset, backing_length, cluster_bits, self.size, encryption = fields[:7]
        l1_entries, l1_offset, _, _, self._snapshot_count, self._snapshot_table = fields[7:]
        if magic != self.magic:
            raise UnsupportedFormat("no QCOW2 image: it does not begin with its magic")
        if self.version not in (2, 3):
            raise UnsupportedFormat(f"QCOW2 version {self.version} is unknown; versions 2 and 3 are read")
        if not 9 <= cluster_bits <= 21:
            raise self._damage(f"clusters of 2**{cluster_bits} bytes are not allowed", 20)
        if encryption:
            name = _ENCRYPTION.get(encryption, f"method {encryption}")
            raise UnsupportedFormat(f"the QCOW2 image is encrypted ({name}); decrypt it with qemu-img first")
        self._cluster_bits = cluster_bits
        self.cluster_size = 1 << cluster_bits
        self._read_features()
        self.backing_name = self._backing_name(backing_offset, backing_length)
        self.backing = backing
        if backing is None and self.backing_name is not None:
            reason = f"nothing is stored for these bytes, and the backing file {self.backing_name!r} is missing"
            self.backing = MissingSource(_ANY_SIZE, self.origin, reason)
        self.data_name = self._data_name(backing_offset) if self._external else None
        self.data = data or source
        if data is None and self._external:
            reason = f"these bytes lie in the external data file {self.data_name!r}, which is missing"
            self.data = MissingSource(_ANY_SIZE, self.origin, reason)
        self._l1 = self._first_level(l1_offset, l1_entries)
        self._tables: Cache[int, array[int]] = Cache(4 << 20)  # of 8 bytes each
        self._clusters: Cache[int, bytes] = Cache(8 << 20)

    # --- reading ---------------------------------------------------------------------------------

    def read_at(self, offset: int, length: int) -> bytes:
        """The bytes at a position; short only at the end.

        Raises:
            DamagedData: a table or cluster contradicts the format or lies beyond the end of the file, or the backing
                file is missing.
        """
        end = end_of(self, offset, length)
        pieces = []
        while offset < end:
            piece = self._run(offset, end - offset)
            pieces.append(piece)
            offset += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _run(self, offset: int, length: int) -> bytes:
        """The next bytes that lie together: at least one, at most `length`."""
        index, inside = offset >> self._table_bits, offset & self._table_mask
        table = self._second_level(index, offset)
        if table is None:
            return self._below(offset, min(length, (1 << self._table_bits) - inside))
        unit, skip = inside >> self._unit_bits, inside & self._unit_mask
        last = min(inside + length - 1, self._table_mask) >> self._unit_bits
        kind, place = self._locate(table, unit, offset)
        if kind == _COMPRESSED:
            start = offset & (self.cluster_size - 1)
            return self._decompressed(place, offset)[start : start + length]
        unit_size = self._unit_mask + 1
        count = 1
        while unit + count <= last:
            following = (kind, place + count * unit_size if kind == _DATA else 0)
            if self._locate(table, unit + count, offset) != following:
                break
            count += 1
        length = min(length, count * unit_size - skip)
        if kind == _DATA:
            return read_exactly(self.data, place + skip, length, f"the cluster of disk offset {offset}")
        return bytes(length) if kind == _ZERO else self._below(offset, length)

    def _locate(self, table: array[int], unit: int, offset: int) -> tuple[int, int]:
        """What a unit (cluster or subcluster) of a table is, and where its data lies in the file."""
        if not self._extended:
            entry = table[unit]
            if entry & _COMPRESSED_FLAG:
                return _COMPRESSED, entry
            if entry & _ZERO_FLAG:
                if self.version < 3:
                    raise self._damage("a version 2 image has a zero cluster, which version 3 brought", offset)
                return _ZERO, 0
            place = entry & _OFFSET_MASK
            kind = _DATA if place or self._is_at_zero(entry) else _UNALLOCATED
        else:
            slot, sub = unit >> 5 << 1, unit & 31
            entry, bitmap = table[slot], table[slot + 1]
            if entry & _COMPRESSED_FLAG:
                return _COMPRESSED, entry
            allocated, zero = bitmap >> sub & 1, bitmap >> 32 + sub & 1
            place = entry & _OFFSET_MASK
            if allocated and (zero or not (place or self._is_at_zero(entry))):
                raise self._damage("a subcluster is marked as allocated and as zero, or lies nowhere", offset)
            kind = _ZERO if zero else _DATA if allocated else _UNALLOCATED
        if place & (self.cluster_size - 1):
            raise self._damage(f"a cluster at {place} does not begin at a cluster's start", offset)
        return (kind, place + (sub << self._unit_bits if self._extended else 0)) if kind == _DATA else (kind, 0)

    def _is_at_zero(self, entry: int) -> bool:
        """Whether an entry without a place means the very first cluster, as only an external data file has one."""
        return self._external and bool(entry >> 63)

    def _below(self, offset: int, length: int) -> bytes:
        """What unallocated clusters show: the backing disk, and zeros behind its end."""
        if self.backing is None:
            return bytes(length)
        return self.backing.read_at(offset, length).ljust(length, b"\0")

    def _second_level(self, index: int, offset: int) -> array[int] | None:
        """A second-level table; None when nothing in its range is allocated."""
        if index >= len(self._l1):
            raise self._damage("the first-level table is too short for the disk", offset)
        place = self._l1[index] & _OFFSET_MASK
        if not place:
            return None
        table = self._tables.get(place)
        if table is None:
            if place & (self.cluster_size - 1):
                raise self._damage(f"a second-level table at {place} does not begin at a cluster's start", offset)
            table = _big_endian(read_exactly(self.source, place, self.cluster_size, "a second-level table"))
            self._tables.put(place, table)
        return table

    def _decompressed(self, entry: int, offset: int) -> bytes:
        """A compressed cluster; its entry tells the place and the number of 512-byte sectors it touches."""
        data = self._clusters.get(entry)
        if data is None:
            sector_bits = 62 - (self._cluster_bits - 8)
            place = entry & ((1 << sector_bits) - 1)
            sectors = ((entry & (_COMPRESSED_FLAG - 1)) >> sector_bits) + 1
            packed = self.source.read_at(place, sectors * 512 - (place & 511))
            try:
                data = self._inflate(packed)
            except (zlib.error, ValueError) as error:
                raise self._damage(f"a compressed cluster at {place} is damaged: {error}", offset) from error
            if len(data) < self.cluster_size:
                raise self._damage(f"a compressed cluster at {place} is cut off after {len(data)} bytes", offset)
            self._clusters.put(entry, data)
        return data

    def _inflate(self, packed: bytes) -> bytes:
        if self.compression == "zlib":
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, self.cluster_size)
        from forensics_lib.sources._zstd import ZstdDecompressor, ZstdError

        try:
            return ZstdDecompressor().decompress(packed, self.cluster_size)
        except ZstdError as error:
            raise ValueError(str(error)) from error

    # --- snapshots -------------------------------------------------------------------------------

    @property
    def snapshots(self) -> tuple[Qcow2Snapshot, ...]:
        """The internal snapshots, oldest first as a rule.

        Raises:
            DamagedData: the table of snapshots is cut off or contradicts the format.
        """
        if self._snapshot_count > _MAX_SNAPSHOTS:
            raise LimitExceeded(f"{self._snapshot_count} snapshots are more than QEMU allows", origin=self.origin)
        return tuple(self._read_snapshots())

    def _read_snapshots(self) -> Iterator[Qcow2Snapshot]:
        position = self._snapshot_table
        for _ in range(self._snapshot_count):
            head = read_exactly(self.source, position, _SNAPSHOT.size, "the snapshot table")
            l1_offset, l1_entries, id_length, name_length, seconds, nanoseconds, clock, state, extra = _SNAPSHOT.unpack(
                head
            )
            if extra > _MAX_SNAPSHOT_EXTRA:
                raise self._damage(f"a snapshot declares {extra} bytes of extra data", position)
            length = extra + id_length + name_length
            rest = read_exactly(self.source, position + _SNAPSHOT.size, length, "the snapshot table")
            more = rest[:extra]
            yield Qcow2Snapshot(
                id=rest[extra : extra + id_length].decode("utf-8", "surrogateescape"),
                name=rest[extra + id_length :].decode("utf-8", "surrogateescape"),
                created_ns=seconds * 1_000_000_000 + nanoseconds,
                vm_clock_ns=clock,
                vm_state_size=int.from_bytes(more[:8], "big") if extra >= 8 else state,
                disk_size=int.from_bytes(more[8:16], "big") if extra >= 16 else self.size,
                _l1_offset=l1_offset,
                _l1_entries=l1_entries,
            )
            position += (_SNAPSHOT.size + length + 7) & ~7

    def at_snapshot(self, snapshot: Qcow2Snapshot) -> Qcow2:
        """The disk as it was when a snapshot was taken.

        Raises:
            DamagedData: its first-level table contradicts the format.
        """
        disk = copy.copy(self)  # shares the caches: they are keyed by places in the file
        disk.origin = self.origin.to(f"snapshot {snapshot.id}", snapshot._l1_offset)
        disk.size = snapshot.disk_size
        disk._snapshot_count = 0
        disk._l1 = disk._first_level(snapshot._l1_offset, snapshot._l1_entries)
        return disk

    def close(self) -> None:
        """Close the image, its data file and its backing files."""
        self.source.close()
        if self.data is not self.source:
            self.data.close()
        if self.backing is not None:
            self.backing.close()

    # --- header ----------------------------------------------------------------------------------

    def _read_features(self) -> None:
        features = 0
        self._header_length = _VERSION_2_HEADER
        self.compression = "zlib"
        if self.version >= 3:
            data = read_exactly(self.source, _VERSION_2_HEADER, _FEATURES.size, "the header")
            features, _, _, _, self._header_length = _FEATURES.unpack(data)
        self._external = bool(features & _EXTERNAL_DATA)
        if features & ~_KNOWN_FEATURES:
            raise UnsupportedFormat(f"the QCOW2 image uses unknown features ({features & ~_KNOWN_FEATURES:#x})")
        if features & _COMPRESSION:
            method = self.source.read_at(_COMPRESSION_TYPE, 1) if self._header_length > _COMPRESSION_TYPE else b"\0"
            if method not in (b"\0", b"\1"):
                raise UnsupportedFormat(f"compression method {method.hex()} of the QCOW2 image is unknown")
            self.compression = ("zlib", "zstd")[method[0]]
        self.dirty, self.corrupt = bool(features & _DIRTY), bool(features & _CORRUPT)
        self._extended = bool(features & _EXTENDED_L2)
        if self._extended and self._cluster_bits < 14:
            raise self._damage("clusters are too small for 32 subclusters", 20)
        self._unit_bits = self._cluster_bits - 5 * self._extended
        self._unit_mask = (1 << self._unit_bits) - 1
        self._table_bits = 2 * self._cluster_bits - 3 - self._extended
        self._table_mask = (1 << self._table_bits) - 1

    def _backing_name(self, offset: int, length: int) -> str | None:
        self.backing_format: str | None = None
        if not offset:
            return None
        if length > _MAX_NAME:
            raise self._damage(f"the backing file's name has {length} bytes", 16)
        for kind, data in self._extensions(offset):
            if kind == _BACKING_FORMAT:
                self.backing_format = data.decode("utf-8", "surrogateescape")
        return read_exactly(self.source, offset, length, "the backing file's name").decode("utf-8", "surrogateescape")

    def _data_name(self, backing_offset: int) -> str:
        end = backing_offset or self.cluster_size
        return next(
            (data.decode("utf-8", "surrogateescape") for kind, data in self._extensions(end) if kind == _DATA_FILE), ""
        )

    def _extensions(self, end: int) -> Iterator[tuple[int, bytes]]:
        position = self._header_length
        end = min(end, position + _MAX_EXTENSIONS)
        while position + 8 <= end:
            head = read_exactly(self.source, position, 8, "a header extension")
            kind, length = int.from_bytes(head[:4], "big"), int.from_bytes(head[4:], "big")
            if not kind or length > end - position:
                return
            yield kind, self.source.read_at(position + 8, length)
            position += 8 + (length + 7 & ~7)

    def _first_level(self, offset: int, entries: int) -> array[int]:
        entries = min(entries, (self.size + self._table_mask) >> self._table_bits)  # saved memory lies behind the disk
        if entries * 8 > _MAX_L1_BYTES:
            raise LimitExceeded(f"a first-level table of {entries} entries", origin=self.origin, offset=offset)
        return _big_endian(self.source.read_at(offset, entries * 8))

    def _damage(self, message: str, offset: int) -> DamagedData:
        return DamagedData(message, origin=self.origin, offset=offset)


def _big_endian(data: bytes) -> array[int]:
    table = array("Q", data[: len(data) & ~7])
    if sys.byteorder == "little":
        table.byteswap()
    return table
