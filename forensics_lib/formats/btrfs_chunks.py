"""Where the logical addresses of a btrfs file system lie on its devices.

Format: Linux ``include/uapi/linux/btrfs_tree.h`` (struct btrfs_chunk); the btrfs manual, *profiles*.
"""

from __future__ import annotations

import bisect
import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from forensics_lib.errors import DamagedData
from forensics_lib.formats.btrfs_parity import rebuilt
from forensics_lib.model import Origin
from forensics_lib.sources.base import Source

__all__ = ["Chunk", "ChunkMap", "Piece", "Stripe", "parse_chunk"]

_CHUNK = struct.Struct("<QQQQIIIHH")
_STRIPE = struct.Struct("<QQ16s")
_RAID0, _RAID10, _RAID5, _RAID6 = 0x8, 0x40, 0x80, 0x100
_STRIPED = _RAID0 | _RAID10 | _RAID5 | _RAID6
_PARITIES = {_RAID5: 1, _RAID6: 2}
_SHORTEST_STRIPE = 4096  # Linux writes 65,536


@dataclass(frozen=True, slots=True)
class Stripe:
    """The part of a chunk that lies on one device.

    Attributes:
        device: the device's number.
        offset: where on it the part begins.
        device_uuid: the device's 16 bytes.
    """

    device: int
    offset: int
    device_uuid: bytes


class Piece(NamedTuple):
    """A run of bytes on one device.

    Attributes:
        device: the device's number.
        offset: where on it the run begins.
        length: bytes.
    """

    device: int
    offset: int
    length: int


class Row(NamedTuple):
    """The pieces that lie in one row of RAID 5 or 6.

    Attributes:
        data: in the order of their addresses.
        parity: P, and Q with RAID 6.
        column: which piece of the data was asked for.
    """

    data: tuple[Piece, ...]
    parity: tuple[Piece, ...]
    column: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """A run of logical addresses that share a profile (single, DUP, RAID …).

    Attributes:
        start: first logical address.
        length: bytes.
        kind: what it holds and its profile, as flags.
        stripe_length: bytes that lie together on a device before the next one follows.
        stripes: its parts.
        mirrors: how many copies there are.
    """

    start: int
    length: int
    kind: int
    stripe_length: int
    stripes: tuple[Stripe, ...]
    mirrors: int

    @property
    def is_striped(self) -> bool:
        """Whether neighbouring addresses lie on different devices."""
        return bool(self.kind & _STRIPED)

    @property
    def has_parity(self) -> bool:
        """Whether what lies on a missing device can be told by the others."""
        return bool(self.kind & (_RAID5 | _RAID6))

    @property
    def copies(self) -> int:
        """How many ways there are to read it."""
        return 2 if self.has_parity else self.mirrors

    @property
    def device_length(self) -> int:
        """Bytes that it takes of each of its devices."""
        parities = _PARITIES.get(self.kind & (_RAID5 | _RAID6), 0)
        return self.length // ((len(self.stripes) - parities) // self.mirrors) if self.is_striped else self.length

    def piece(self, offset: int, length: int, mirror: int) -> Piece:
        """Where a copy of the byte at an offset of this chunk lies, and how many bytes follow it there."""
        if not self.kind & _STRIPED:
            stripe = self.stripes[mirror]
            return Piece(stripe.device, stripe.offset + offset, min(length, self.length - offset))
        if self.has_parity:
            row_ = self.row(offset, length)
            return row_.data[row_.column]
        number, within = divmod(offset, self.stripe_length)
        row, column = divmod(number, len(self.stripes) // self.mirrors)
        stripe = self.stripes[column * self.mirrors + mirror]
        at = stripe.offset + row * self.stripe_length + within
        return Piece(stripe.device, at, min(length, self.stripe_length - within, self.length - offset))

    def row(self, offset: int, length: int) -> Row:
        """The pieces that lie in one row with the byte at an offset, in a chunk with parity."""
        number, within = divmod(offset, self.stripe_length)
        count = len(self.stripes) - _PARITIES[self.kind & (_RAID5 | _RAID6)]
        row, column = divmod(number, count)
        length = min(length, self.stripe_length - within, self.length - offset)
        start = row % len(self.stripes)
        pieces = tuple(
            Piece(stripe.device, stripe.offset + row * self.stripe_length + within, length)
            for stripe in self.stripes[start:] + self.stripes[:start]
        )
        return Row(pieces[:count], pieces[count:], column)


def parse_chunk(start: int, data: bytes) -> tuple[Chunk, int]:
    """A chunk by its item, and the bytes that the item takes.

    Args:
        start: first logical address, which is the offset of the item's key.
        data: begins with the item.

    Raises:
        DamagedData: it contradicts itself.
    """
    if len(data) < _CHUNK.size:
        raise DamagedData(f"chunk {start} is cut off")
    length, _owner, stripe_length, kind, _align, _width, _sector, count, sub_stripes = _CHUNK.unpack_from(data)
    size = _CHUNK.size + count * _STRIPE.size
    if len(data) < size or not count or not length:
        raise DamagedData(f"chunk {start} is cut off")
    if kind & _RAID10:
        mirrors = sub_stripes
    elif kind & (_RAID0 | _RAID5 | _RAID6):
        mirrors = 1
    else:
        mirrors = count
    parities = _PARITIES.get(kind & (_RAID5 | _RAID6), 0)
    if not mirrors or count % mirrors or count <= parities or (kind & _STRIPED and stripe_length < _SHORTEST_STRIPE):
        raise DamagedData(f"chunk {start} has impossible stripes")
    if kind & _RAID5 and kind & _RAID6:
        raise DamagedData(f"chunk {start} has two profiles")
    stripes = tuple(Stripe(*_STRIPE.unpack_from(data, _CHUNK.size + index * _STRIPE.size)) for index in range(count))
    return Chunk(start, length, kind, stripe_length, stripes, mirrors), size


class ChunkMap:
    """Reads logical addresses.

    Args:
        devices: what there is of the devices, by number.
        origin: named in errors.
        stale: devices that missed the last transactions; they are read only where there is no other copy.

    Attributes:
        chunks: by first address.
    """

    def __init__(self, devices: Mapping[int, Source], origin: Origin, stale: Collection[int] = ()) -> None:
        """Begin without chunks."""
        self._stale = stale
        self.devices = devices
        self.origin = origin
        self.chunks: dict[int, Chunk] = {}
        self._starts: list[int] = []

    def add(self, chunk: Chunk) -> None:
        """Add a chunk, or take it in place of one that starts at the same address.

        Raises:
            DamagedData: it overlaps another one.
        """
        if chunk.start not in self.chunks:
            index = bisect.bisect_left(self._starts, chunk.start)
            before = self.chunks[self._starts[index - 1]] if index else None
            after = self._starts[index] if index < len(self._starts) else None
            if (before is not None and before.start + before.length > chunk.start) or (
                after is not None and chunk.start + chunk.length > after
            ):
                raise DamagedData(f"chunk {chunk.start} overlaps another", origin=self.origin)
            self._starts.insert(index, chunk.start)
        self.chunks[chunk.start] = chunk

    def chunk(self, logical: int) -> Chunk:
        """The chunk of a logical address.

        Raises:
            DamagedData: there is none.
        """
        index = bisect.bisect_right(self._starts, logical) - 1
        chunk = self.chunks[self._starts[index]] if index >= 0 else None
        if chunk is None or logical >= chunk.start + chunk.length:
            raise DamagedData(f"logical address {logical} belongs to no chunk", origin=self.origin)
        return chunk

    def pieces(self, logical: int, length: int, mirror: int = 0) -> Iterator[Piece]:
        """Where a copy of a range lies.

        Args:
            logical: first address.
            length: bytes.
            mirror: which copy; chunks that have fewer give their last.

        Raises:
            DamagedData: part of the range belongs to no chunk.
        """
        while length > 0:
            chunk = self.chunk(logical)
            piece = chunk.piece(logical - chunk.start, length, min(mirror, chunk.mirrors - 1))
            yield piece
            logical += piece.length
            length -= piece.length

    def read(self, logical: int, length: int) -> bytes:
        """A range of logical addresses; of each part the first copy that can be read, or what parity tells of it.

        Raises:
            DamagedData: part of the range cannot be read, or its only copy lies on a device that is missing.
        """
        data = []
        while length > 0:
            chunk = self.chunk(logical)
            if chunk.has_parity:
                data.append(self._with_parity(chunk, logical - chunk.start, length))
                logical += len(data[-1])
                length -= len(data[-1])
                continue
            copies = [chunk.piece(logical - chunk.start, length, mirror) for mirror in range(chunk.mirrors)]
            if self._stale:
                copies.sort(key=lambda copy: copy.device in self._stale)
            data.append(self._read_any(copies))
            logical += copies[0].length
            length -= copies[0].length
        return data[0] if len(data) == 1 else b"".join(data)

    def read_copy(self, logical: int, length: int, copy: int) -> bytes:
        """A range of logical addresses as one copy has it; where there is parity, the second is what that tells.

        Raises:
            DamagedData: part of it cannot be read, or lies on a device that is missing.
        """
        data = []
        for piece in self.pieces(logical, length, copy):
            chunk = self.chunk(logical)
            if chunk.has_parity:
                data.append(self._with_parity(chunk, logical - chunk.start, piece.length, from_others=copy > 0))
            else:
                data.append(self.read_piece(piece))
            logical += piece.length
        return b"".join(data)

    def _with_parity(self, chunk: Chunk, offset: int, length: int, *, from_others: bool = False) -> bytes:
        """What lies at an offset of a chunk up to the end of a stripe, by the other stripes where it cannot be read."""
        row = chunk.row(offset, length)
        own = row.data[row.column]
        if not from_others and (data := self._try(own)) is not None:
            return data
        others = [None if piece is own else self._try(piece) for piece in row.data]
        found = rebuilt(others, [self._try(piece) for piece in row.parity], row.column)
        return self.read_piece(own) if found is None else found

    def _try(self, piece: Piece) -> bytes | None:
        """A piece of a row; None where it cannot be read, or its device missed transactions."""
        try:
            return None if piece.device in self._stale else self.read_piece(piece)
        except DamagedData:
            return None

    def place(self, logical: int) -> tuple[Source, int, int] | None:
        """The device of an address's first copy, where on it, and how many bytes lie together from there on.

        None where copies are striped, devices missed transactions, or the device is missing.

        Raises:
            DamagedData: the address belongs to no chunk.
        """
        chunk = self.chunk(logical)
        device = self.devices.get(chunk.stripes[0].device)
        if chunk.kind & _STRIPED or self._stale or device is None:
            return None
        inside = logical - chunk.start
        return device, chunk.stripes[0].offset + inside, chunk.length - inside

    def _read_any(self, copies: Sequence[Piece]) -> bytes:
        """The first of several copies that can be read."""
        for copy in copies[:-1]:
            try:
                return self.read_piece(copy)
            except DamagedData:
                continue
        return self.read_piece(copies[-1])

    def read_piece(self, piece: Piece) -> bytes:
        """A run of bytes of one device.

        Raises:
            DamagedData: it cannot be read, or the device is missing.
        """
        device = self.devices.get(piece.device)
        if device is None:
            raise DamagedData(f"device {piece.device} is missing", origin=self.origin, offset=piece.offset)
        data = device.read_at(piece.offset, piece.length)
        if len(data) < piece.length:
            raise DamagedData(f"device {piece.device} is cut off", origin=device.origin, offset=piece.offset)
        return data
