"""Unpacking the extents of btrfs: zlib, LZO and zstd.

An extent holds at most 128 KiB of a file, so that each is unpacked whole. Sources: RFC 1950; RFC 8878; Linux
``Documentation/staging/lzo.rst`` for the LZO1X stream, and ``fs/btrfs/lzo.c`` for the frame that btrfs puts around it.
"""

from __future__ import annotations

from forensics_lib.errors import DamagedData, UnsupportedFormat

__all__ = ["LARGEST_EXTENT", "lzo1x", "unpack"]

LARGEST_EXTENT = 1 << 20
"""Bytes that an unpacked extent may have here; Linux never writes more than 128 KiB."""

_ZLIB, _LZO, _ZSTD = 1, 2, 3
_ZSTD_WINDOW_LOG = 20


def unpack(data: bytes, compression: int, size: int, sector_size: int) -> bytes:
    """The bytes of an extent; an extent that gives fewer is filled with zeros, as Linux does.

    Args:
        data: the compressed bytes, and what follows them in the last sector.
        compression: number of the algorithm, as in the extent item.
        size: bytes that it gives.
        sector_size: bytes of a sector of the file system.

    Raises:
        DamagedData: they are no such stream, or the stream is cut off.
        UnsupportedFormat: the algorithm is unknown.
    """
    if size > LARGEST_EXTENT:
        raise DamagedData(f"an extent is said to unpack to {size} bytes")
    if compression == _ZLIB:
        unpacked = _zlib(data, size)
    elif compression == _LZO:
        unpacked = _lzo(data, size, sector_size)
    elif compression == _ZSTD:
        unpacked = _zstd(data, size)
    else:
        raise UnsupportedFormat(f"compression {compression} of btrfs is not known")
    return unpacked.ljust(size, b"\0")


def _zlib(data: bytes, size: int) -> bytes:
    import zlib

    decoder = zlib.decompressobj()
    try:
        unpacked = decoder.decompress(data, max(size, 1))
    except zlib.error as error:
        raise DamagedData(f"zlib extent is damaged: {error}") from error
    if len(unpacked) < size and not decoder.eof:
        raise DamagedData("zlib extent is cut off")
    return unpacked[:size]


def _zstd(data: bytes, size: int) -> bytes:
    from forensics_lib.sources._zstd import DecompressionParameter, ZstdDecompressor, ZstdError

    decoder = ZstdDecompressor(options={DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG})
    try:
        unpacked = decoder.decompress(data, size)
    except ZstdError as error:
        raise DamagedData(f"zstd extent is damaged: {error}") from error
    if len(unpacked) < size and not decoder.eof:
        raise DamagedData("zstd extent is cut off")
    return unpacked


def _lzo(data: bytes, size: int, sector_size: int) -> bytes:
    """Segments of one sector each, behind the length of all and of each; no length crosses a sector's end."""
    total = int.from_bytes(data[:4], "little")
    if not 4 <= total <= len(data):
        raise DamagedData("LZO extent is cut off")
    unpacked = bytearray()
    position = 4
    while position < total and len(unpacked) < size:
        room = -position % sector_size
        if room < 4:
            position += room
        length = int.from_bytes(data[position : position + 4], "little")
        position += 4
        if not 0 < length <= total - position:
            raise DamagedData("LZO extent is damaged: a segment reaches beyond its end")
        unpacked += lzo1x(data[position : position + length], sector_size)
        position += length
    return bytes(unpacked[:size])


def lzo1x(data: bytes, limit: int) -> bytes:
    """The bytes of one LZO1X stream.

    Args:
        data: the stream, its end mark included.
        limit: most bytes that it may give.

    Raises:
        DamagedData: it is no such stream, or gives more.
    """
    try:
        return _lzo1x(data, limit)
    except IndexError:
        raise DamagedData("LZO stream is cut off") from None


def _lzo1x(data: bytes, limit: int) -> bytes:
    out = bytearray()
    position = 0
    literals = 0  # that the last instruction brought along: 0 to 3; 4 after a run of literals
    if data[0] > 17:
        run = data[0] - 17
        out += _slice(data, 1, run)
        position = 1 + run
        literals = min(run, 4)
    while len(out) <= limit:
        code = data[position]
        position += 1
        if code < 16 and not literals:
            length, position = _length(data, position, code, 15)
            out += _slice(data, position, length + 3)
            position += length + 3
            literals = 4
            continue
        if code < 16:
            distance = (data[position] << 2) + (code >> 2) + 1
            length = 2
            if literals == 4:
                distance, length = distance + 2048, 3
            literals = code & 3
            position += 1
        elif code < 64:
            length, position = _length(data, position, code & (7 if code < 32 else 31), 7 if code < 32 else 31)
            low = data[position]
            distance = (data[position + 1] << 6) + (low >> 2)
            position += 2
            literals = low & 3
            length += 2
            if code >= 32:
                distance += 1
            else:
                distance += 16384 + ((code & 8) << 11)
                if distance == 16384:
                    return bytes(out)
        else:
            length = (code >> 5) + 1
            distance = (data[position] << 3) + (code >> 2 & 7) + 1
            position += 1
            literals = code & 3
        if distance > len(out):
            raise DamagedData("LZO stream refers to bytes before its start")
        start = len(out) - distance
        if distance >= length:
            out += out[start : start + length]
        else:
            out += (out[start:] * (length // distance + 1))[:length]
        if literals:
            out += _slice(data, position, literals)
            position += literals
    raise DamagedData(f"LZO stream gives more than {limit} bytes")


def _length(data: bytes, position: int, value: int, largest: int) -> tuple[int, int]:
    """A length that, where its bits are zero, goes on in further bytes; and the position behind them."""
    if value:
        return value, position
    value = largest
    while not data[position]:
        value += 255
        position += 1
    return value + data[position], position + 1


def _slice(data: bytes, position: int, length: int) -> bytes:
    if position + length > len(data):
        raise IndexError
    return data[position : position + length]
