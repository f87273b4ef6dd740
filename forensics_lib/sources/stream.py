"""Forward reading with exact lengths, over blocks that arrive one by one or over a source that can be jumped in."""

from __future__ import annotations

from collections.abc import Iterator

from forensics_lib.sources.base import Source

__all__ = ["BlockStream", "SourceStream", "Stream"]


class Stream:
    """A reader that moves forward only and knows where it is.

    Decoders read through this, so that one decoder serves both a layer that is being inflated and an archive on disk.
    """

    __slots__ = ("_base", "_block", "_pos")

    def __init__(self) -> None:
        """Start before the first block."""
        self._block: bytes = b""
        self._pos = 0
        self._base = 0

    @property
    def position(self) -> int:
        """Bytes passed so far."""
        return self._base + self._pos

    def _next(self) -> bytes:
        """The next block; empty at the end."""
        raise NotImplementedError

    def read(self, length: int) -> bytes:
        """The next bytes; short only at the end."""
        end = self._pos + length
        if end <= len(self._block):
            data = self._block[self._pos : end]
            self._pos = end
            return data
        parts = [bytes(part) for part in self.chunks(length)]
        return b"".join(parts)

    def at_hand(self) -> tuple[bytes, int, int]:
        """The block that was read last, where in it the stream stands, and the position: a look ahead for nothing."""
        return self._block, self._pos, self._base + self._pos

    def view(self, length: int) -> memoryview | None:
        """The next bytes without a copy when they all are at hand, else None and nothing is passed."""
        start = self._pos
        end = start + length
        if end > len(self._block):
            return None
        self._pos = end
        return memoryview(self._block)[start:end]

    def peek(self, length: int) -> bytes:
        """The next bytes without passing them; short only at the end."""
        while len(self._block) - self._pos < length:
            block = self._next()
            if not block:
                break
            self._base += self._pos
            self._block = self._block[self._pos :] + block
            self._pos = 0
        return self._block[self._pos : self._pos + length]

    def chunks(self, length: int) -> Iterator[bytes | memoryview]:
        """The next bytes in pieces as they arrive; fewer only at the end."""
        while length > 0:
            available = len(self._block) - self._pos
            if not available:
                self._base += self._pos
                self._pos = 0
                self._block = b""
                self._block = self._next()
                if not self._block:
                    return
                continue
            take = min(length, available)
            start = self._pos
            self._pos += take
            length -= take
            yield memoryview(self._block)[start : start + take]

    def skip(self, length: int) -> int:
        """Pass bytes; how many there were."""
        if self._pos + length <= len(self._block):
            self._pos += length
            return length
        return sum(map(len, self.chunks(length)))


class BlockStream(Stream):
    """A stream over blocks that an iterator yields, such as a layer that is being inflated."""

    __slots__ = ("_blocks",)

    def __init__(self, blocks: Iterator[bytes]) -> None:
        """Read from `blocks`."""
        super().__init__()
        self._blocks = blocks

    def _next(self) -> bytes:
        for block in self._blocks:
            if block:
                return block
        return b""


class SourceStream(Stream):
    """A stream over a source, whose skips cost nothing."""

    __slots__ = ("_readahead", "_source")

    def __init__(self, source: Source, offset: int = 0, readahead: int = 32 << 10) -> None:
        """Read from `offset` on."""
        super().__init__()
        self._source = source
        self._base = offset
        self._readahead = readahead

    def _next(self) -> bytes:
        return self._source.read_some(self._base + len(self._block), self._readahead)

    def skip(self, length: int) -> int:
        """Pass bytes; how many there were."""
        if self._pos + length <= len(self._block):
            self._pos += length
            return length
        start = self.position
        target = start + length
        if not self._source.read_at(target - 1, 1):  # beyond the end: only then is the size worth asking for
            target = max(start, self._source.size)
        self._base = target
        self._block = b""
        self._pos = 0
        return target - start
