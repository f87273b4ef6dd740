"""How Linux' software RAID (MD) spreads bytes over its devices.

Format: drivers/md/raid0.c, raid10.c and raid5.c of Linux; md(4).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence

from forensics_lib.errors import DamagedData, UnsupportedFormat
from forensics_lib.model import Origin
from forensics_lib.sources._bounds import end_of, read_exactly
from forensics_lib.sources.base import Source

__all__ = ["ChunkedSource", "MirroredSource", "MirroredStripes", "ParityStripes", "Stripes"]

_Place = tuple[int, int]
"""A device and a byte offset in its data."""

_OFFSET, _FAR_SETS = 1 << 16, 1 << 17


class ChunkedSource(Source):
    """An array whose devices take turns, a chunk at a time; subclasses tell where each chunk is.

    Args:
        devices: the data of each device, in the order of their roles; None where one is missing.
        chunk: bytes of a turn.
        size: of the array.
        origin: of the array.
    """

    def __init__(self, devices: Sequence[Source | None], chunk: int, size: int, origin: Origin) -> None:
        """Serve the array as one run of bytes."""
        self.devices = tuple(devices)
        self.chunk = chunk
        self.size = size
        self.origin = origin

    def read_at(self, offset: int, length: int) -> bytes:
        """The bytes at a position; short only at the end.

        Raises:
            DamagedData: they lie on a device that is missing or cannot be read, and nothing replaces them.
        """
        end = end_of(self, offset, length)
        pieces = []
        while offset < end:
            number, inside = divmod(offset, self.chunk)
            count = min(end - offset, self.chunk - inside)
            pieces.append(self._read(number, inside, count))
            offset += count
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def close(self) -> None:
        """Close every device."""
        for device in self.devices:
            if device is not None:
                device.close()

    @abstractmethod
    def _read(self, number: int, inside: int, count: int) -> bytes:
        """Bytes of one chunk of the array."""

    def _from(self, place: _Place, inside: int, count: int) -> bytes:
        device, start = place
        source = self.devices[device]
        if source is None:
            raise DamagedData(f"these bytes lie on device {device} of the array, which is missing", origin=self.origin)
        return read_exactly(source, start + inside, count, "a chunk")


class MirroredSource(Source):
    """Copies of the same bytes; where one cannot be read, the next is asked.

    Args:
        copies: at least one; all as large as the smallest.
        origin: of the bytes.
    """

    def __init__(self, copies: Sequence[Source], origin: Origin) -> None:
        """Serve the first copy."""
        self.copies = tuple(copies)
        self.origin = origin
        self.size = min(copy.size for copy in copies)

    def read_at(self, offset: int, length: int) -> bytes:
        """The bytes at a position; short only at the end.

        Raises:
            DamagedData: no copy can be read there.
        """
        length = end_of(self, offset, length) - offset
        if length <= 0:
            return b""
        error: DamagedData | None = None
        for copy in self.copies:
            try:
                return read_exactly(copy, offset, length, "a copy")
            except DamagedData as fault:
                error = error or fault
        raise error or DamagedData("there is no copy", origin=self.origin, offset=offset)

    def close(self) -> None:
        """Close every copy."""
        for copy in self.copies:
            copy.close()


class Stripes(ChunkedSource):
    """Level 0: chunks in turn over all devices, then over those that are larger.

    Args:
        devices: the data of each, all of them.
        chunk: bytes of a turn.
        layout: 1 or 2, how turns are counted where some devices are full; 0 when it is not known.
        origin: of the array.

    Raises:
        UnsupportedFormat: the devices differ in size, and the layout is not known.
    """

    def __init__(self, devices: Sequence[Source], chunk: int, layout: int, origin: Origin) -> None:
        """Find the zones: runs over the same devices."""
        sizes = [device.size // chunk for device in devices]
        self.layout = layout
        self.zones: list[tuple[int, int, int, tuple[int, ...]]] = []  # first chunk, behind the last, row, devices
        first = row = 0
        for limit in sorted(set(sizes)):
            members = tuple(index for index, size in enumerate(sizes) if size > row)
            if members:
                count = (limit - row) * len(members)
                self.zones.append((first, first + count, row, members))
                first, row = first + count, limit
        if len(self.zones) > 1 and layout not in (1, 2):
            raise UnsupportedFormat("its devices differ in size, and the superblocks do not tell how they take turns")
        super().__init__(devices, chunk, first * chunk, origin)

    def _read(self, number: int, inside: int, count: int) -> bytes:
        first, _, row, members = next(zone for zone in self.zones if number < zone[1])
        turn = number if self.layout == 1 else number - first
        place = members[turn % len(members)], (row + (number - first) // len(members)) * self.chunk
        return self._from(place, inside, count)


class MirroredStripes(ChunkedSource):
    """Level 10: chunks in turn, each several times: near each other, far behind, or in the next row.

    Args:
        devices: the data of each, all of the same size; None where one is missing.
        chunk: bytes of a turn.
        layout: of the superblock.
        origin: of the array.

    Raises:
        UnsupportedFormat: of another layout.
        DamagedData: the layout is impossible.
    """

    def __init__(self, devices: Sequence[Source | None], chunk: int, layout: int, origin: Origin) -> None:
        """Work out the layout."""
        self.near, self.far = layout & 0xFF, layout >> 8 & 0xFF
        self.in_next_row = bool(layout & _OFFSET)
        count = len(devices)
        if layout >> 17 and layout >> 17 != 1:
            raise UnsupportedFormat(f"the layout {layout:#x} of level 10 is not read")
        copies = self.near * self.far
        if not 0 < copies <= count:
            raise DamagedData(f"the layout {layout:#x} of level 10 is impossible with {count} devices")
        self.set_size = count // self.far if layout & _FAR_SETS else count
        rows = min(device.size for device in devices if device is not None) // chunk
        chunks = rows // self.far * count // self.near
        used = -(-chunks * copies // count)
        self.stride = chunk if self.in_next_row else used // self.far * chunk
        super().__init__(devices, chunk, chunks * chunk, origin)

    def lost(self) -> bool:
        """Whether bytes lie on missing devices only."""
        numbers = range(min(len(self.devices), self.size // self.chunk))
        return any(all(self.devices[device] is None for device, _ in self._places(number)) for number in numbers)

    def _read(self, number: int, inside: int, count: int) -> bytes:
        error: DamagedData | None = None
        for place in self._places(number):
            try:
                return self._from(place, inside, count)
            except DamagedData as fault:
                error = error or fault
        raise error or DamagedData("a chunk has no place", origin=self.origin)

    def _places(self, number: int) -> Iterator[_Place]:
        row, device = divmod(number * self.near, len(self.devices))
        start = row * (self.far if self.in_next_row else 1) * self.chunk
        for _ in range(self.near):
            copy, place = device, start
            yield copy, place
            for _ in range(1, self.far):
                first = copy // self.set_size * self.set_size
                copy = first + (copy - first + self.near) % min(self.set_size, len(self.devices) - first)
                place += self.stride
                yield copy, place
            device += 1
            if device == len(self.devices):
                device, start = 0, start + self.chunk


class ParityStripes(ChunkedSource):
    """Levels 4, 5 and 6: rows of chunks with their parity; what lies on one missing device is computed.

    Args:
        devices: the data of each, all of the same size; None where one is missing.
        chunk: bytes of a turn.
        level: 4, 5 or 6.
        layout: of the superblock.
        origin: of the array.

    Raises:
        UnsupportedFormat: of another layout.
        DamagedData: there are too few devices.
    """

    def __init__(self, devices: Sequence[Source | None], chunk: int, level: int, layout: int, origin: Origin) -> None:
        """Work out the layout."""
        self.level = level
        self.layout = 5 if level == 4 else layout
        known = range(6) if level != 6 else (*range(6), 8, 9, 10, *range(16, 21))
        if self.layout not in known:
            raise UnsupportedFormat(f"the layout {layout} of level {level} is not read")
        self.data = len(devices) - (2 if level == 6 else 1)
        if self.data < 1:
            raise DamagedData(f"level {level} is impossible with {len(devices)} devices")
        rows = min(device.size for device in devices if device is not None) // chunk
        super().__init__(devices, chunk, rows * self.data * chunk, origin)

    def _read(self, number: int, inside: int, count: int) -> bytes:
        row, index = divmod(number, self.data)
        device, second = self._device(row, index)
        try:
            return self._from((device, row * self.chunk), inside, count)
        except DamagedData as fault:
            others = [other for other in range(len(self.devices)) if other not in (device, second)]
            if any(self.devices[other] is None for other in others):
                raise fault from None
            total = 0
            for other in others:
                total ^= int.from_bytes(self._from((other, row * self.chunk), inside, count), "little")
            return total.to_bytes(count, "little")

    def _device(self, row: int, index: int) -> tuple[int, int | None]:
        """The device of a chunk, and the one with the second parity of its row."""
        count, layout = len(self.devices), self.layout
        if self.level == 6 and layout in (0, 1, 2, 3, 8, 9, 10):
            return self._with_two(row, index)
        second: int | None = None
        if self.level == 6:  # a row of level 5, and the second parity at its side
            if layout >= 16:
                second, count = count - 1, count - 1
            else:
                second = 1 if layout == 4 else count - 1
            layout %= 16
        if layout == 4:
            return index + (2 if second == 1 else 1), second
        if layout == 5:
            return index, second
        parity = row % count if layout & 1 else count - 1 - row % count
        if layout >= 2:
            return (parity + 1 + index) % count, second
        return index + (index >= parity), second

    def _with_two(self, row: int, index: int) -> tuple[int, int]:
        count, layout = len(self.devices), self.layout
        parity = row % count if layout in (1, 3, 8) else count - 1 - (row + (layout == 9)) % count
        if layout in (2, 3):
            return (parity + 2 + index) % count, (parity + 1) % count
        if layout == 10:
            return (parity + 1 + index) % count, (parity - 1) % count
        if parity == count - 1:
            return index + 1, 0
        return index + (2 if index >= parity else 0), parity + 1
