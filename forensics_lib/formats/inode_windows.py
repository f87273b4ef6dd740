"""The bytes of inodes, which lie in tables and are mostly asked for one after the other."""

from __future__ import annotations

from forensics_lib.sources.base import Source

__all__ = ["InodeWindows"]

_WINDOW = 32 << 10
_MAX_WINDOWS = 256


class InodeWindows:
    """Reads a table of inodes in windows, and keeps the last ones: at most 8 MiB.

    Args:
        source: the file system's bytes.
        size: bytes of an inode, a power of two.
    """

    def __init__(self, source: Source, size: int) -> None:
        """Prepare; nothing is read yet."""
        self._source = source
        self._size = size
        self._windows: dict[int, bytes] = {}

    def at(self, offset: int) -> tuple[bytes, int]:
        """Bytes that hold the inode at a position, and where it begins in them; they may end too early.

        Raises:
            DamagedData: they cannot be read.
        """
        start = offset & -_WINDOW
        window = self._windows.get(start)
        if window is None:
            window = self._source.read_some(start, _WINDOW)
            if len(self._windows) >= _MAX_WINDOWS:
                self._windows.clear()
            self._windows[start] = window
        if offset - start + self._size > len(window):  # there may be damage in front of it
            return self._source.read_at(offset, self._size), 0
        return window, offset - start
