"""Random access to what is inside compressed bytes."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from forensics_lib.errors import DamagedData, ForensicsError, LimitExceeded
from forensics_lib.model import Origin
from forensics_lib.sources.base import BLOCK, Source
from forensics_lib.sources.decompress import Compression, Limits, decompress

if TYPE_CHECKING:
    import tempfile

__all__ = ["SpoolSource"]


class SpoolSource(Source):
    """Random access to compressed bytes.

    They are decompressed once, as far as a read needs, into an anonymous temporary file; the next read continues from
    there. A file was chosen over seek points because it serves every compression alike, needs no decoder internals and
    keeps memory constant; small streams never leave memory. The file has no name and is gone with the process.

    Args:
        parent: the compressed bytes.
        compression: as `sniff` told.
        origin: of the decompressed bytes.
        limits: bounds on the output.
    """

    _IN_MEMORY = 1 << 20

    def __init__(self, parent: Source, compression: Compression, origin: Origin, limits: Limits | None = None) -> None:
        """Prepare; nothing is decompressed yet."""
        self.parent = parent
        self.compression = compression
        self.origin = origin
        self.limits = limits or Limits()
        self.error: ForensicsError | None = None
        self._lock = threading.RLock()
        self._blocks: Iterator[bytes] | None = None
        self._spool: tempfile.SpooledTemporaryFile[bytes] | None = None
        self._release: Callable[[], object] | None = None
        self._done = False
        self._length = 0

    @property
    def size(self) -> int:  # type: ignore[override]
        """Number of decompressed bytes; asking decompresses everything."""
        with self._lock:
            self._fill(None)
            return self._length

    @property
    def held(self) -> int:
        """Bytes that the spool holds at present."""
        return self._length

    def read_at(self, offset: int, length: int) -> bytes:
        """The bytes at a position; short only at the end.

        Raises:
            DamagedData: the range lies behind the place where the compressed stream is damaged.
            OSError: the disk for temporary files is full; a later read begins anew.
        """
        if offset < 0:
            raise DamagedData(f"position {offset} lies before the start", origin=self.origin, offset=offset)
        if length <= 0:
            return b""
        with self._lock:
            self._fill(offset + length)
            if offset + length > self._length and self.error is not None:
                raise self.error
            if self._spool is None or offset >= self._length:
                return b""
            self._spool.seek(offset)
            return self._spool.read(min(length, self._length - offset))

    def blocks(self, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """The bytes from a position on; a full pass from the start streams and spools nothing."""
        if offset == 0 and length is None and not self._done:
            yield from self.stream()
            return
        while length is None or length > 0:
            data = self.read_some(offset, BLOCK if length is None else min(BLOCK, length))
            if not data:
                return
            yield data
            offset += len(data)
            length = None if length is None else length - len(data)

    def stream(self, on_problem: Callable[[ForensicsError], None] | None = None) -> Iterator[bytes]:
        """One pass over the decompressed bytes without keeping them."""
        return decompress(self.parent.blocks(), self.compression, self.origin, self.limits, on_problem)

    def _fill(self, end: int | None) -> None:
        if self._done or (end is not None and end <= self._length):
            return
        if self._blocks is None:
            self._blocks = self.stream()
        if self._spool is None:
            import tempfile

            self._spool = tempfile.SpooledTemporaryFile(max_size=self._IN_MEMORY)  # noqa: SIM115 - lives with the source
            # no __del__: of garbage that refers to itself the file might go first, with a ResourceWarning
            self._release = weakref.finalize(self, self._spool.close)
        self._spool.seek(0, os.SEEK_END)
        try:
            for block in self._blocks:
                if self._length + len(block) > self.limits.spool:
                    raise LimitExceeded(
                        f"decompressed stream is larger than the spool limit of {self.limits.spool} bytes",
                        origin=self.origin,
                    )
                self._spool.write(block)
                self._length += len(block)
                if end is not None and self._length >= end:
                    return
        except ForensicsError as error:
            self.error = error
        except BaseException:  # a full disk or an interruption: what is spooled lacks a block, so begin anew next time
            self.close()
            raise
        self._done = True
        self._blocks = None

    def close(self) -> None:
        """Give the spool back; a later read decompresses again."""
        with self._lock:
            if self._release is not None:
                self._release()
            self._release = self._spool = self._blocks = None
            self._done = False
            self._length = 0
            self.error = None

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle without the spool."""
        return (SpoolSource, (self.parent, self.compression, self.origin, self.limits))
