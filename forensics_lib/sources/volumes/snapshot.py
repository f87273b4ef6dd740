"""Snapshots of the device mapper: an older state of a volume, kept beside it.

Format: drivers/md/dm-snap-persistent.c of Linux.
"""

from __future__ import annotations

from struct import Struct

from forensics_lib.errors import DamagedData, LimitExceeded, UnsupportedFormat
from forensics_lib.model import Origin
from forensics_lib.sources._bounds import end_of, read_exactly
from forensics_lib.sources.base import Source

__all__ = ["SnapshotSource"]

_HEADER = Struct("<4sIII")
_MAGIC = b"SnAp"
_EXCEPTION = Struct("<QQ")
_SECTOR = 512
_MAX_CHUNK = 1 << 26
_MAX_EXCEPTIONS = 1 << 24


class SnapshotSource(Source):
    """What a volume held when its snapshot was taken, with what was written to the snapshot since.

    Args:
        below: the volume as it is now.
        store: where the snapshot keeps what was replaced.
        origin: of the snapshot.

    Attributes:
        chunks: place in the store of each chunk that differs.

    Raises:
        DamagedData: the store contradicts the format, or the snapshot overflowed and lost its state.
        LimitExceeded: it has more than 16 million chunks.
        UnsupportedFormat: of another version.
    """

    def __init__(self, below: Source, store: Source, origin: Origin) -> None:
        """Read what differs."""
        magic, valid, version, sectors = _HEADER.unpack(read_exactly(store, 0, _HEADER.size, "a snapshot"))
        if magic != _MAGIC:
            raise DamagedData("the store of the snapshot has no header", origin=store.origin)
        if not valid:
            raise DamagedData("the snapshot is invalid: its store was too small", origin=store.origin)
        if version != 1:
            raise UnsupportedFormat(f"a snapshot of version {version} is not read")
        self.chunk = sectors * _SECTOR
        if not 0 < self.chunk <= _MAX_CHUNK:
            raise DamagedData(f"the snapshot has chunks of {self.chunk} bytes", origin=store.origin)
        self.below = below
        self.store = store
        self.origin = origin
        self.size = below.size
        self.chunks = self._exceptions()

    def read_at(self, offset: int, length: int) -> bytes:
        """The bytes at a position; short only at the end.

        Raises:
            DamagedData: the volume or the store cannot be read there.
        """
        end = end_of(self, offset, length)
        pieces = []
        while offset < end:
            chunk, inside = divmod(offset, self.chunk)
            count = min(end - offset, self.chunk - inside)
            kept = self.chunks.get(chunk)
            if kept is None:
                pieces.append(read_exactly(self.below, offset, count, "a chunk"))
            else:
                pieces.append(read_exactly(self.store, kept * self.chunk + inside, count, "a chunk of the snapshot"))
            offset += count
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def close(self) -> None:
        """Close the volume and the store."""
        self.below.close()
        self.store.close()

    def _exceptions(self) -> dict[int, int]:
        found: dict[int, int] = {}
        per_area = self.chunk // _EXCEPTION.size
        place = 1
        while place * self.chunk < self.store.size:
            area = read_exactly(self.store, place * self.chunk, self.chunk, "the table of a snapshot")
            for old, new in _EXCEPTION.iter_unpack(area):
                if not new:
                    return found
                found[old] = new
            if len(found) > _MAX_EXCEPTIONS:
                raise LimitExceeded("the snapshot has too many chunks", origin=self.store.origin)
            place += per_area + 1
        return found
