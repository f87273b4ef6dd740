"""The structures of btrfs against values that are known from elsewhere."""

from __future__ import annotations

import contextlib
import random
import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forensics_lib.errors import DamagedData, ForensicsError, UnsupportedFormat
from forensics_lib.formats import btrfs_items as items
from forensics_lib.formats.btrfs import BtrfsVolume, is_btrfs
from forensics_lib.formats.btrfs_checksum import CHECKSUMS, xxhash64
from forensics_lib.formats.btrfs_chunks import Chunk, ChunkMap, Piece, Stripe, parse_chunk
from forensics_lib.formats.btrfs_compression import LARGEST_EXTENT, lzo1x, unpack
from forensics_lib.formats.btrfs_content import BtrfsContent
from forensics_lib.formats.btrfs_items import ExtentKind, FileExtent
from forensics_lib.formats.btrfs_node import BtrfsNode
from forensics_lib.formats.btrfs_super import read_superblock
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.sources.base import BytesSource

ORIGIN = Origin("disk.img")
STRIPE = 64 << 10
END = b"\x11\0\0"  # of an LZO stream


def chunk(kind: int, devices: int, sub_stripes: int = 1, length: int = 1 << 30) -> bytes:
    """A chunk item whose parts begin at 1 MiB of device 1, 2 MiB of device 2 …"""
    item = struct.pack("<QQQQIIIHH", length, 2, STRIPE, kind, STRIPE, STRIPE, 4096, devices, sub_stripes)
    return item + b"".join(struct.pack("<QQ16s", number, number << 20, b"") for number in range(1, devices + 1))


def source(data: bytes) -> BytesSource:
    return BytesSource(data, ORIGIN)


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"", 0xEF46DB3751D8E999),
        (b"abc", 0x44BC2CF5AD770999),
        (b"Nobody inspects the spammish repetition", 0xFBCEA83C8A378BF1),
    ],
)
def test_xxhash_of_published_examples(data: bytes, value: int) -> None:
    assert xxhash64(data) == value


def test_checksums_of_published_examples() -> None:
    assert CHECKSUMS[0](b"123456789") == 0xE3069283.to_bytes(4, "little")
    assert CHECKSUMS[2](b"abc").hex().startswith("ba7816bf8f01cfea")
    assert CHECKSUMS[3](b"abc").hex().startswith("bddd813c634239723171ef3fee98579b")


@pytest.mark.parametrize(
    ("kind", "devices", "sub", "mirrors", "places"),
    [  # places: (number of the stripe-sized part, mirror) -> (device, parts before it on that device)
        (0x1, 1, 1, 1, {(0, 0): (1, 0), (7, 0): (1, 7)}),
        (0x22, 2, 1, 2, {(3, 0): (1, 3), (3, 1): (2, 3)}),
        (0x11, 2, 1, 2, {(5, 0): (1, 5), (5, 1): (2, 5)}),
        (0x201, 3, 1, 3, {(5, 2): (3, 5)}),
        (0x9, 3, 1, 1, {(0, 0): (1, 0), (1, 0): (2, 0), (2, 0): (3, 0), (3, 0): (1, 1), (7, 0): (2, 2)}),
        (
            0x41,
            4,
            2,
            2,
            {(0, 0): (1, 0), (0, 1): (2, 0), (1, 0): (3, 0), (1, 1): (4, 0), (2, 0): (1, 1), (3, 1): (4, 1)},
        ),
        (
            0x81,
            3,
            1,
            1,
            {(0, 0): (1, 0), (1, 0): (2, 0), (2, 0): (2, 1), (3, 0): (3, 1), (4, 0): (3, 2), (5, 0): (1, 2)},
        ),
        (
            0x101,
            4,
            1,
            1,
            {(0, 0): (1, 0), (1, 0): (2, 0), (2, 0): (2, 1), (3, 0): (3, 1), (6, 0): (4, 3), (7, 0): (1, 3)},
        ),
    ],
    ids=["single", "DUP", "RAID1", "RAID1C3", "RAID0", "RAID10", "RAID5", "RAID6"],
)
def test_profiles(
    kind: int, devices: int, sub: int, mirrors: int, places: dict[tuple[int, int], tuple[int, int]]
) -> None:
    data = chunk(kind, devices, sub)
    parsed, size = parse_chunk(1 << 40, data + b"more")
    assert (parsed.start, parsed.mirrors, size) == (1 << 40, mirrors, len(data))
    for (number, mirror), (device, row) in places.items():
        piece = parsed.piece(number * STRIPE + 5, 1000, mirror)
        assert piece == Piece(device, (device << 20) + row * STRIPE + 5, 1000)


def test_a_range_is_cut_at_stripes_and_chunks() -> None:
    chunks = ChunkMap({}, ORIGIN)
    chunks.add(parse_chunk(0, chunk(0x9, 2, length=2 * STRIPE))[0])
    chunks.add(parse_chunk(2 * STRIPE, chunk(0x1, 1, length=STRIPE))[0])
    assert list(chunks.pieces(STRIPE - 10, STRIPE + 30)) == [
        Piece(1, (1 << 20) + STRIPE - 10, 10),
        Piece(2, 2 << 20, STRIPE),
        Piece(1, 1 << 20, 20),
    ]
    with pytest.raises(DamagedData, match="belongs to no chunk"):
        list(chunks.pieces(3 * STRIPE - 1, 2))
    with pytest.raises(DamagedData, match="overlaps"):
        chunks.add(parse_chunk(STRIPE, chunk(0x1, 1))[0])
    with pytest.raises(DamagedData, match="device 1 is missing"):
        chunks.read(0, 1)


def test_the_first_copy_that_can_be_read_is_taken() -> None:
    data = bytes(2 << 20) + b"copy" * 100
    chunks = ChunkMap({2: source(data)}, ORIGIN)
    chunks.add(parse_chunk(0, chunk(0x11, 2))[0])
    assert chunks.read(4, 8) == b"copycopy"
    with pytest.raises(DamagedData, match="cut off"):
        chunks.read(396, 8)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        chunk(0x1, 1)[:-1],
        chunk(0x1, 1, length=0),
        chunk(0x81, 1),
        chunk(0x181, 4),
        chunk(0x41, 3, 2),
        chunk(0x41, 4, 0),
        chunk(0x9, 2)[:16] + bytes(8) + chunk(0x9, 2)[24:],
        chunk(0x1, 1)[:44] + bytes(2) + chunk(0x1, 1)[46:],
    ],
)
def test_impossible_chunks(data: bytes) -> None:
    with pytest.raises(DamagedData):
        parse_chunk(0, data)


@pytest.mark.parametrize(
    ("stream", "data"),
    [
        (END, b""),
        (b"\x16hello" + END, b"hello"),
        (b"\x15abcd" + b"\x26\x0c\x00" + END, b"abcd" * 3),  # 8 bytes from 4 before
        (b"\x12a" + b"\x28\x00\x00" + END, b"a" * 11),  # 10 bytes from 1 before
        (b"\x15abcd" + b"\x21\x0d\x00!" + END, b"abcdabc!"),  # 3 bytes from 4 before, then one literal
        (b"\x15abcd" + b"\x6d\x00" + b"z" + END, b"abcdabcdz"),  # short form: 4 bytes from 4 before, one literal
        (b"\x01wxyz" + END, b"wxyz"),  # a run that begins without a short first byte
        (b"\x00\x02" + b"q" * 20 + END, b"q" * 20),
        (b"\x15abcd" + b"\x20\x00\x05\x0c\x00" + END, b"abcd" + (b"abcd" * 80)[: 2 + 31 + 255 + 5]),
    ],
)
def test_lzo_streams(stream: bytes, data: bytes) -> None:
    assert lzo1x(stream, 4096) == data


def test_lzo_from_far_behind() -> None:
    noise = random.Random(1).randbytes(2100)
    run = b"\x00" + b"\x00" * 8 + bytes([len(noise) - 18 - 8 * 255]) + noise
    near = run + b"\x05\x01" + b"!" + END  # after a run: 3 bytes from 2,049 + (1 << 2) + 1 before, one literal
    assert lzo1x(near, 4096) == noise + noise[2100 - 2054 :][:3] + b"!"
    with pytest.raises(DamagedData, match="more than 2000 bytes"):
        lzo1x(near, 2000)


@pytest.mark.parametrize("stream", [b"", b"\x16hel", b"\x15abcd\x26", b"\x15abcd\x26\xff\x00" + END, b"\0" * 50])
def test_damaged_lzo_streams(stream: bytes) -> None:
    with pytest.raises(DamagedData):
        lzo1x(stream, 4096)


def framed(*segments: bytes) -> bytes:
    """The frame of btrfs around LZO streams, with the gap in front of a sector's end."""
    out = bytearray(4)
    for segment in segments:
        if -len(out) % 4096 < 4:
            out += bytes(-len(out) % 4096)
        out += len(segment).to_bytes(4, "little") + segment
    out[:4] = len(out).to_bytes(4, "little")
    return bytes(out)


def test_lzo_frames() -> None:
    data = framed(b"\x16hello" + END, b"\x16world" + END)
    assert unpack(data + bytes(100), 2, 12, 4096) == b"helloworld\0\0"
    noise = random.Random(2).randbytes(4066)
    stream = b"\x00" + bytes(15) + bytes([len(noise) - 18 - 15 * 255]) + noise + END
    data = framed(stream, b"\x16after" + END)
    assert data[4092:4100] == END[-1:] * 4 + b"\x09\0\0\0"  # two bytes are left over, too few for a length
    assert unpack(data, 2, len(noise) + 5, 4096) == noise + b"after"
    for cut in (3, 10, len(data) - 1):
        with pytest.raises(DamagedData):
            unpack(data[:cut], 2, 10_000, 4096)


def test_zlib_extents() -> None:
    data = zlib.compress(b"text " * 1000)
    assert unpack(data + bytes(50), 1, 5000, 4096) == b"text " * 1000
    assert unpack(data, 1, 10, 4096) == b"text text "
    assert unpack(data, 1, 5003, 4096) == b"text " * 1000 + bytes(3)
    with pytest.raises(DamagedData, match="cut off"):
        unpack(data[:-10], 1, 5000, 4096)
    with pytest.raises(DamagedData, match="damaged"):
        unpack(b"no zlib", 1, 5000, 4096)


def test_impossible_extents() -> None:
    with pytest.raises(DamagedData, match="said to unpack"):
        unpack(b"", 1, LARGEST_EXTENT + 1, 4096)
    with pytest.raises(UnsupportedFormat, match="compression 9"):
        unpack(b"", 9, 10, 4096)
    with pytest.raises(DamagedData):
        unpack(b"no zstd", 3, 10, 4096)


@given(st.binary(max_size=200), st.integers(0, 4), st.integers(0, 10_000))
@settings(max_examples=200, deadline=None)
def test_any_compressed_bytes(data: bytes, compression: int, size: int) -> None:
    with contextlib.suppress(ForensicsError):
        assert len(unpack(data, compression, size, 4096)) == size


def extent(kind: ExtentKind, length: int, **fields: int | bytes | bool) -> FileExtent:
    values: dict[str, int | bytes | bool] = {
        "generation": 1,
        "compression": 0,
        "encoded": False,
        "unpacked": length,
        "inline": b"",
        "logical": 0,
        "stored": length,
        "offset": 0,
    }
    return FileExtent(kind=kind, length=length, **(values | fields))  # type: ignore[arg-type]


def test_content_is_put_together() -> None:
    device = bytes(range(256)) * 64
    chunks = ChunkMap({1: source(device)}, ORIGIN)
    chunks.add(Chunk(1 << 20, 16384, 1, STRIPE, (Stripe(1, 0, b""),), 1))
    content = BtrfsContent(
        chunks,
        [
            (0, extent(ExtentKind.REGULAR, 100, logical=1 << 20, stored=4096, offset=10)),
            (200, extent(ExtentKind.PREALLOCATED, 50, logical=1 << 20)),
            (250, extent(ExtentKind.REGULAR, 50)),
            (300, extent(ExtentKind.INLINE, 5, inline=b"hello")),
        ],
        310,
        4096,
        ORIGIN,
    )
    whole = bytes(range(10, 110)) + bytes(200) + b"hello" + bytes(5)
    assert b"".join(content.blocks()) == whole
    assert content.read_at(90, 20) == whole[90:110]
    assert content.read_at(305, 100) == bytes(5)
    assert content.read_at(400, 1) == b""
    with pytest.raises(DamagedData):
        content.read_at(-1, 1)


@pytest.mark.parametrize(
    "wrong",
    [
        extent(ExtentKind.REGULAR, 100, logical=1 << 20, stored=50),
        extent(ExtentKind.REGULAR, 100, logical=1 << 30),
        extent(ExtentKind.REGULAR, 100, logical=1 << 20, compression=1, stored=LARGEST_EXTENT + 1),
        extent(ExtentKind.INLINE, 100, inline=b"short"),
        extent(ExtentKind.INLINE, 100, inline=b"short", encoded=True),
        extent(ExtentKind.INLINE, 100, inline=b"short", compression=7),
    ],
)
def test_content_that_cannot_be_read(wrong: FileExtent) -> None:
    chunks = ChunkMap({1: source(bytes(8192))}, ORIGIN)
    chunks.add(Chunk(1 << 20, 8192, 1, STRIPE, (Stripe(1, 0, b""),), 1))
    with pytest.raises(ForensicsError, match="extent at 0 cannot be read"):
        BtrfsContent(chunks, [(0, wrong)], 100, 4096, ORIGIN).read_at(0, 100)


@given(st.binary(max_size=600))
@settings(max_examples=300, deadline=None)
def test_any_item(data: bytes) -> None:
    for parse in (
        items.parse_inode,
        items.parse_root,
        items.parse_root_reference,
        items.parse_extent,
        lambda data: list(items.parse_directory(data)),
        lambda data: list(items.parse_references(256, data)),
        lambda data: list(items.parse_extended_references(data)),
        lambda data: parse_chunk(0, data),
    ):
        try:
            parse(data)
        except DamagedData:
            continue


@given(st.binary(max_size=600), st.integers(0, 20), st.integers(0, 9))
@settings(max_examples=200, deadline=None)
def test_any_tree_block(body: bytes, count: int, level: int) -> None:
    header = bytes(96) + struct.pack("<IB", count, level)
    try:
        node = BtrfsNode(header + body, source(b""), 0)
    except DamagedData:
        return
    assert len(node.keys) == count
    assert node.keys == sorted(set(node.keys))
    for index in range(count if not level else 0):
        assert len(node.item(index).data) <= len(body)


def test_a_root_item_of_an_old_kernel_has_no_uuid() -> None:
    old = bytes(160) + struct.pack("<QQQQQQQI", 7, 256, 4096, 0, 0, 0, 1, 1) + bytes(17) + bytes([0, 2])
    root = items.parse_root(old)
    assert (root.generation, root.directory, root.logical, root.level, root.references) == (7, 256, 4096, 2, 1)
    assert (root.read_only, root.dead, root.uuid, root.otime_ns) == (True, False, bytes(16), None)
    newer = struct.pack("<Q16s16s16sQQQQqIqI", 6, b"u" * 16, b"", b"", 0, 0, 0, 0, 1, 2, 3, 4) + bytes(88)
    assert items.parse_root(old + newer).uuid == bytes(16)  # an old kernel wrote it since
    known = items.parse_root(old + struct.pack("<Q", 7) + newer[8:])
    assert (known.uuid, known.ctime_ns, known.otime_ns) == (b"u" * 16, 1_000_000_002, 3_000_000_004)


def superblock(fields: bytes, chunks: bytes) -> bytes:
    """A superblock with a right checksum around any fields."""
    data = bytearray(4096)
    data[0x30:0x40] = (64 << 10).to_bytes(8, "little") + bytes(8)
    data[0x48 : 0x48 + len(fields)] = fields
    data[0x40:0x48] = b"_BHRfS_M"
    data[0x90:0x98] = struct.pack("<II", 4096, 16384)
    data[0xA0:0xA4] = len(chunks).to_bytes(4, "little")
    data[0xC4:0xC6] = bytes(2)
    data[0x32B : 0x32B + len(chunks)] = chunks
    data[:4] = CHECKSUMS[0](bytes(data[32:]))
    return bytes(STRIPE) + bytes(data)


@given(st.binary(max_size=0x7C), st.binary(max_size=300))
@settings(max_examples=100, deadline=None)
def test_any_superblock(fields: bytes, chunks: bytes) -> None:
    disk = source(superblock(fields, chunks) + bytes(STRIPE))
    assert is_btrfs(disk)
    assert read_superblock(disk).node_size == 16384
    with pytest.raises(ForensicsError):
        BtrfsVolume(disk, ProblemLog())


def test_what_is_no_superblock() -> None:
    disk = bytearray(superblock(b"", b""))
    assert not is_btrfs(source(b""))
    assert not is_btrfs(source(bytes(1 << 20)))
    for data in (b"", bytes(1 << 20), bytes(disk[:-1]), bytes(disk[:-1]) + b"x"):
        with pytest.raises(DamagedData):
            read_superblock(source(data))
    for at, value in ((0x90, 3), (0x94, 5), (0xA1, 0xFF), (0xC4, 77), (0x30, 1)):
        wrong = bytearray(disk)
        wrong[STRIPE + at] = value
        wrong[STRIPE : STRIPE + 4] = CHECKSUMS[0](bytes(wrong[STRIPE + 32 :]))
        with pytest.raises(DamagedData):
            read_superblock(source(bytes(wrong)))


def test_unknown_features_are_named() -> None:
    fields = bytearray(0x7C)
    fields[0xBC - 0x48 : 0xC4 - 0x48] = (0x4000 | 1 << 40).to_bytes(8, "little")
    problems = ProblemLog()
    with pytest.raises(DamagedData):
        BtrfsVolume(source(superblock(bytes(fields), b"") + bytes(STRIPE)), problems)
    assert [problem.message.split(" is ")[0] for problem in problems.rows] == [
        "RAID stripe tree",
        "feature 0x10000000000",
    ]
