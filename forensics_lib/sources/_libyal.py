"""What the libyal readers share: they read through a file object, one call at a time, and fail with OSError."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import Protocol

from forensics_lib.errors import DamagedData, ForensicsError
from forensics_lib.model import Origin
from forensics_lib.sources._bounds import end_of
from forensics_lib.sources.base import Source

__all__ = ["LibyalSource", "SourceFile", "reason_of"]

_STEP = 4 << 20  # bytes asked of the library at a time


class SourceFile:
    """A source as the file object that libyal reads from. An error of the source is kept, as libyal loses its type."""

    def __init__(self, source: Source) -> None:
        """Start at the beginning."""
        self.source = source
        self.position = 0
        self.error: ForensicsError | None = None

    def read(self, size: int) -> bytes:
        """The next bytes."""
        try:
            data = self.source.read_at(self.position, size)
        except ForensicsError as error:
            self.error = error
            raise OSError(str(error)) from error
        self.position += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self.position, os.SEEK_END: self.source.size}[whence]
        self.position = base + offset
        return self.position

    def tell(self) -> int:
        """The position."""
        return self.position

    def get_size(self) -> int:
        """Number of bytes, asked for by libyal under this name."""
        return self.source.size


class _Handle(Protocol):
    def read_buffer_at_offset(self, size: int, offset: int) -> bytes | None: ...


class LibyalSource(Source):
    """Bytes that a libyal handle decodes; reads wait for each other.

    Args:
        handle: an open handle.
        files: what the handle reads from.
        size: of the decoded bytes.
        origin: of the decoded bytes.
    """

    def __init__(self, handle: _Handle, files: Sequence[SourceFile], size: int, origin: Origin) -> None:
        """Serve what the handle decodes."""
        self.handle = handle
        self.files = tuple(files)
        self.size = size
        self.origin = origin
        self._lock = threading.Lock()

    def read_at(self, offset: int, length: int) -> bytes:
        """The bytes at a position; short only at the end.

        Raises:
            DamagedData: the library cannot decode them.
        """
        end = end_of(self, offset, length)
        pieces = []
        while offset < end:
            pieces.append(self._read(offset, min(end - offset, _STEP)))
            offset += len(pieces[-1])
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _read(self, offset: int, length: int) -> bytes:
        with self._lock:
            for file in self.files:
                file.error = None
            try:
                data = self.handle.read_buffer_at_offset(length, offset)
            except (OSError, ValueError, OverflowError) as error:
                for file in self.files:
                    if isinstance(file.error, DamagedData):
                        raise file.error from error
                raise DamagedData(
                    f"cannot be decoded: {reason_of(error)}", origin=self.origin, offset=offset
                ) from error
        if not data:
            raise DamagedData("nothing is stored for these bytes", origin=self.origin, offset=offset)
        return data

    def close(self) -> None:
        """Close the files that the handle reads from."""
        for file in self.files:
            file.source.close()


def reason_of(error: Exception) -> str:
    """The innermost of the messages that libyal strings together."""
    steps = [step.strip() for step in str(error).split(". ") if step.strip()]
    return steps[min(1, len(steps) - 1)].rstrip(".") if steps else type(error).__name__
