"""What is inside compressed bytes, block by block; spool.py gives random access to it.

The compression is told by its magic, never by a media type or a file name. Reads gzip (several members; RFC 1952),
zstd (several and skippable frames, so zstd:chunked too; RFC 8878), xz and bzip2 (several streams). A bomb ends at a
limit; damaged or cut input yields what could be decoded and then says what is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, cast

from forensics_lib.errors import DamagedData, ForensicsError, LimitExceeded, UnsupportedFormat
from forensics_lib.model import Origin
from forensics_lib.sources.base import BLOCK

__all__ = ["Compression", "Limits", "decompress", "sniff"]


class Compression(StrEnum):
    """How bytes are compressed, as their magic tells."""

    NONE = "none"
    GZIP = "gzip"
    ZSTD = "zstd"
    XZ = "xz"
    BZIP2 = "bzip2"


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what evidence may ask for.

    Attributes:
        ratio: decompressed bytes per compressed byte, looked at only beyond `ratio_from` bytes.
        ratio_from: decompressed bytes below which any ratio is fine.
        total: decompressed bytes of one stream.
        spool: bytes of decompressed layers that are kept on disk at a time for random access.
        entries: members of one archive.
    """

    ratio: int = 1000
    ratio_from: int = 1 << 30
    total: int = 1 << 40
    spool: int = 16 << 30
    entries: int = 10_000_000


_MAGICS = {
    Compression.GZIP: (b"\x1f\x8b\x08",),
    Compression.ZSTD: (b"\x28\xb5\x2f\xfd", *(bytes([low]) + b"\x2a\x4d\x18" for low in range(0x50, 0x60))),
    Compression.XZ: (b"\xfd7zXZ\x00",),
    Compression.BZIP2: tuple(b"BZh%d" % level for level in range(1, 10)),
}
_NOT_ZERO = re.compile(rb"[^\0]")
_ZSTD_WINDOW_LOG = 27  # 128 MiB, what `zstd -d` accepts without being told otherwise
_XZ_MEMORY = 256 << 20
_FAST_STEP = 256 << 10
_SLOW_STEP = 16 << 10
_GZIP_INPUT = 64 << 10
_SMALL = 4 << 10
_LONGEST_HEADER = 1 << 20
_TRAILER = 8  # of a gzip member: checksum and length


def sniff(head: bytes) -> Compression:
    """The compression by the first bytes (16 are enough)."""
    for compression, magics in _MAGICS.items():
        if head.startswith(magics):
            if compression is Compression.BZIP2 and head[4:10] not in (b"1AY&SY", b"\x17rE8P\x90"):
                break  # text can start like the magic
            return compression
    return Compression.NONE


class _Member(Protocol):
    """One gzip member, zstd frame, xz or bzip2 stream."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def feed(self, data: bytes) -> Iterator[bytes]: ...


class _GzipMember:
    """A gzip member, inflated by isal."""

    def __init__(self) -> None:
        from isal import isal_zlib

        self._decoder = isal_zlib.decompressobj(31)
        self._rest = b""

    @property
    def eof(self) -> bool:
        return self._decoder.eof

    @property
    def unused_data(self) -> bytes:
        return self._decoder.unused_data + self._rest

    def feed(self, data: bytes) -> Iterator[bytes]:
        # No max_length: it makes isal a quarter slower, and deflate cannot give more than 1,032 times a small input.
        for start in range(0, len(data), _GZIP_INPUT):
            yield self._decoder.decompress(data[start : start + _GZIP_INPUT])
            if self._decoder.eof:
                self._rest = data[start + _GZIP_INPUT :]
                return


class _PullDecoder(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = ...) -> bytes: ...


class _PullMember:
    """The interface that bz2, lzma and zstd share: input is kept inside until output was asked for.

    Where the data is damaged, what the decoder made since it was last asked is lost: `step` bytes at most.
    """

    def __init__(self, decoder: _PullDecoder, step: int) -> None:
        self._decoder = decoder
        self._step = step

    @property
    def eof(self) -> bool:
        return self._decoder.eof

    @property
    def unused_data(self) -> bytes:
        return self._decoder.unused_data

    def feed(self, data: bytes) -> Iterator[bytes]:
        yield self._decoder.decompress(data, self._step)
        while not self._decoder.eof and not self._decoder.needs_input:
            block = self._decoder.decompress(b"", self._step)
            if not block:
                return
            yield block


def _zstd_member() -> _Member:
    from forensics_lib.sources._zstd import DecompressionParameter, ZstdDecompressor

    decoder = ZstdDecompressor(options={DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG})
    return _PullMember(decoder, _FAST_STEP)


def _xz_member() -> _Member:
    import lzma

    return _PullMember(lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY), _SLOW_STEP)


def _bzip2_member() -> _Member:
    import bz2

    return _PullMember(bz2.BZ2Decompressor(), _SLOW_STEP)


_MEMBERS: dict[Compression, Callable[[], _Member]] = {
    Compression.GZIP: _GzipMember,
    Compression.ZSTD: _zstd_member,
    Compression.XZ: _xz_member,
    Compression.BZIP2: _bzip2_member,
}


def decompress(
    blocks: Iterable[bytes],
    compression: Compression,
    origin: Origin,
    limits: Limits | None = None,
    on_problem: Callable[[ForensicsError], None] | None = None,
) -> Iterator[bytes]:
    """The decompressed bytes, block by block.

    Args:
        blocks: the compressed bytes.
        compression: as `sniff` told; NONE passes the blocks through.
        origin: named in errors.
        limits: bounds on the output.
        on_problem: told of bytes after the end that are no further member, which are then passed over.

    Raises:
        DamagedData: the input is cut or corrupt; everything decoded before it was yielded.
        LimitExceeded: a bomb.
        UnsupportedFormat: the stream needs more memory than is allowed.
    """
    if compression is Compression.NONE:
        yield from blocks
        return
    limits = limits or Limits()
    errors = _decoder_errors(compression)
    member: _Member | None = None
    started = trailing = False
    held = b""
    window = BLOCK
    consumed = produced = 0
    for data in _end_apart(blocks):
        consumed += len(data)
        if trailing:
            continue  # whoever hashes the compressed bytes on their way wants all of them
        data = held + data
        position, held = 0, b""
        while position < len(data):
            if member is None:
                if started:
                    position = _past_zeros(data, position)
                    found = _starts(data[position : position + 6], compression)
                    if found is None:
                        held = data[position:]
                        break
                    if not found:
                        trailing = True
                        if on_problem is not None:
                            message = f"bytes after the end of the {compression} stream are no {compression}"
                            on_problem(DamagedData(message, origin=origin, offset=consumed - len(data) + position))
                        break
                    window = _SMALL
                if compression is Compression.GZIP and not _holds_header(data, position):
                    held = data[position:]
                    break
                member = _MEMBERS[compression]()
            piece = data[position : position + window]
            try:
                for block in member.feed(piece):
                    if block:
                        produced += len(block)
                        _check(produced, consumed, limits, origin)
                        yield block
            except errors as error:
                raise _translated(error, compression, origin, consumed - len(data) + position) from error
            position += len(piece)
            if member.eof:
                position -= len(member.unused_data)
                member, started = None, True
            else:
                # decoders copy the input behind a member's end: that must not be much for each of many small members
                window = min(2 * window, BLOCK)
    if member is not None or held:
        raise DamagedData(
            f"{compression} stream is cut off: it ends after {consumed} bytes in the middle of its data",
            origin=origin,
            offset=consumed,
        )


def _end_apart(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes, the last ones in a block of their own: isal keeps what it made of a block whose end is wrong.

    A checksum that does not fit is found there, and would cost an archive its end, where its table of contents is.
    """
    last = b""
    for block in blocks:
        if len(block) < _TRAILER:
            last += block
        else:
            if last:
                yield last
            last = block
    yield last[:-_TRAILER]
    yield last[-_TRAILER:]


def _past_zeros(data: bytes, position: int) -> int:
    found = _NOT_ZERO.search(data, position)
    return found.start() if found else len(data)


def _starts(head: bytes, compression: Compression) -> bool | None:
    """Whether a further member starts here; None when these are too few bytes to tell."""
    magics = _MAGICS[compression]
    if head.startswith(magics):
        return True
    return None if any(magic.startswith(head) for magic in magics) else False


def _holds_header(data: bytes, position: int) -> bool:
    """Whether all of a gzip member's header is there (RFC 1952, 2.3); isal misreads one that comes in pieces."""
    flags = data[position + 3] if len(data) > position + 3 else 0
    end = position + 10
    if flags & 0x04:
        end += 2 + int.from_bytes(data[end : end + 2], "little")
    for _ in range((flags & 0x08) // 0x08 + (flags & 0x10) // 0x10):  # name, comment
        end = data.find(b"\0", end) + 1 or len(data) + 1
    if flags & 0x02:
        end += 2
    return end <= len(data) or len(data) - position > _LONGEST_HEADER


def _check(produced: int, consumed: int, limits: Limits, origin: Origin) -> None:
    if produced > limits.total:
        raise LimitExceeded(f"more than {limits.total} decompressed bytes", origin=origin)
    if produced > limits.ratio_from and produced > limits.ratio * consumed:
        raise LimitExceeded(f"decompression bomb: {consumed} bytes gave more than {produced}", origin=origin)


def _decoder_errors(compression: Compression) -> tuple[type[Exception], ...]:
    if compression is Compression.GZIP:
        from isal.isal_zlib import IsalError

        return (cast("type[Exception]", IsalError), ValueError)  # its stub declares an instance
    if compression is Compression.ZSTD:
        from forensics_lib.sources._zstd import ZstdError

        return (ZstdError, ValueError)
    import lzma

    return (lzma.LZMAError, OSError, EOFError, ValueError)


def _translated(error: Exception, compression: Compression, origin: Origin, offset: int) -> ForensicsError:
    text = str(error)
    if "too much memory" in text or "Memory usage limit" in text:
        return UnsupportedFormat(f"{compression} stream asks for more memory than is allowed: {text}")
    return DamagedData(f"{compression} stream is damaged: {text}", origin=origin, offset=offset)
