"""Decompression by magic: members, frames and streams, cuts, garbage, bombs, and random access over a spool."""

from __future__ import annotations

import bz2
import gc
import gzip
import io
import lzma
import os
import pickle
import random
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import forensics_lib as fl
from forensics_lib.errors import DamagedData, ForensicsError, LimitExceeded, UnsupportedFormat
from forensics_lib.model import Origin
from forensics_lib.sources.base import BytesSource
from forensics_lib.sources.decompress import Compression, Limits, decompress, sniff
from forensics_lib.sources.spool import SpoolSource
from tests.tarmaker import TarMaker
from tests.tarreader import in_blocks, tool

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ORIGIN = Origin("layer.tar.gz")
TEXT = b"".join(b"%d bottles of beer on the wall\n" % number for number in range(3000))
NOISE = random.Random(5).randbytes(20_000)

CODECS: dict[Compression, Callable[[bytes], bytes]] = {
    Compression.GZIP: lambda data: gzip.compress(data, mtime=0),
    Compression.ZSTD: lambda data: zstd.compress(data, options={zstd.CompressionParameter.checksum_flag: 1}),
    Compression.XZ: lzma.compress,
    Compression.BZIP2: bz2.compress,
}
codecs = pytest.mark.parametrize("codec", CODECS, ids=str)


def inflate(
    data: bytes, codec: Compression, step: int = 1 << 20, limits: Limits | None = None
) -> tuple[bytes, list[str]]:
    """What comes out, and what was told on the way."""
    told: list[ForensicsError] = []
    out = b"".join(decompress(in_blocks(data, step), codec, ORIGIN, limits, told.append))
    return out, [str(error) for error in told]


def until_damage(data: bytes, codec: Compression, step: int = 1 << 20) -> tuple[bytes, ForensicsError | None]:
    """What came out before the error, and the error."""
    out = bytearray()
    try:
        for block in decompress(in_blocks(data, step), codec, ORIGIN):
            out += block
    except ForensicsError as error:
        return bytes(out), error
    return bytes(out), None


def skippable(data: bytes, number: int = 0) -> bytes:
    return bytes([0x50 + number, 0x2A, 0x4D, 0x18]) + len(data).to_bytes(4, "little") + data


# --- sniffing ---------------------------------------------------------------------------------------------------------


@codecs
@pytest.mark.parametrize("data", [b"", b"x", TEXT])
def test_the_magic_tells(codec: Compression, data: bytes) -> None:
    assert sniff(CODECS[codec](data)[:16]) is codec


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\x1f",
        b"\x1f\x8b\x00",
        b"BZh",
        b"BZh9 is how this text begins",
        b"BZhx1AY&SY",
        bytes(512),
        b"etc/passwd",
        b"PK\3\4",
    ],
)
def test_what_is_not_compressed(head: bytes) -> None:
    assert sniff(head) is Compression.NONE


def test_a_skippable_frame_may_come_first() -> None:
    for number in range(16):
        assert sniff(skippable(b"", number)) is Compression.ZSTD


def test_uncompressed_blocks_pass_through() -> None:
    assert list(decompress([b"a", b"", b"b"], Compression.NONE, ORIGIN)) == [b"a", b"", b"b"]


# --- what is right ----------------------------------------------------------------------------------------------------


@given(
    st.sampled_from(list(CODECS)),
    st.lists(st.sampled_from([b"", b"x", TEXT[:999], TEXT, NOISE]), min_size=1, max_size=4),
    st.integers(0, 40),
    st.integers(1, 5000),
)
@settings(deadline=None)
def test_members_padding_and_any_block_size(codec: Compression, parts: list[bytes], zeros: int, step: int) -> None:
    data = bytes(zeros).join(CODECS[codec](part) for part in parts) + bytes(zeros)
    assert inflate(data, codec, step) == (b"".join(parts), [])


@codecs
def test_one_byte_at_a_time(codec: Compression) -> None:
    data = CODECS[codec](TEXT[:3000]) + CODECS[codec](b"") + bytes(20) + CODECS[codec](NOISE[:100])
    assert inflate(data, codec, 1) == (TEXT[:3000] + NOISE[:100], [])


def test_gzip_headers_with_every_field() -> None:
    body = zlib.compressobj(9, zlib.DEFLATED, -15)
    deflated = body.compress(TEXT) + body.flush()
    tail = zlib.crc32(TEXT).to_bytes(4, "little") + len(TEXT).to_bytes(4, "little")
    header = b"\x1f\x8b\x08\x1e" + bytes(6) + b"\x04\0Ap\0\0" + b"name\0" + b"a comment\0"
    header += (zlib.crc32(header) & 0xFFFF).to_bytes(2, "little")
    for step in (1, 7, 10_000):
        assert inflate((header + deflated + tail) * 2, Compression.GZIP, step) == (TEXT * 2, [])
        out, error = until_damage(header[:-5], Compression.GZIP, step)
        assert (out, "is cut off" in str(error)) == (b"", True)


def test_a_gzip_name_without_end_is_no_reason_to_keep_everything() -> None:
    out, error = until_damage(b"\x1f\x8b\x08\x08" + bytes(6) + b"n" * (5 << 20), Compression.GZIP, 1 << 18)
    assert out == b""
    assert isinstance(error, DamagedData)


def test_zstd_frames_with_skippable_ones_between() -> None:
    """As zstd:chunked and pzstd write them."""
    frame = CODECS[Compression.ZSTD]
    data = skippable(b"first") + frame(TEXT) + skippable(b"", 15) + frame(NOISE) + skippable(b"toc" * 900, 3)
    for step in (1, 3, 100, 1 << 20):
        assert inflate(data, Compression.ZSTD, step) == (TEXT + NOISE, [])
    assert inflate(skippable(b"alone"), Compression.ZSTD) == (b"", [])


def test_many_small_members_take_no_time() -> None:
    """As estargz writes them: one for each file. Decoders copy the input behind a member's end."""
    data = gzip.compress(b"", mtime=0) * 50_000
    start = time.process_time()
    assert inflate(data, Compression.GZIP) == (b"", [])
    assert time.process_time() - start < 5


def test_blocks_come_out_in_bounded_size() -> None:
    data = gzip.compress(bytes(64 << 20), 1, mtime=0)
    sizes = [len(block) for block in decompress([data], Compression.GZIP, ORIGIN)]
    assert sum(sizes) == 64 << 20
    assert max(sizes) <= 1032 * (64 << 10)  # what deflate can make of one piece of input


@pytest.mark.parametrize(
    ("command", "codec"),
    [
        (["gzip", "-9c"], Compression.GZIP),
        (["pigz", "-c"], Compression.GZIP),
        (["zstd", "-19", "-c"], Compression.ZSTD),
        (["zstd", "--fast", "-c"], Compression.ZSTD),
        (["xz", "-9c", "--check=sha256"], Compression.XZ),
        (["xz", "-0c", "--check=none"], Compression.XZ),
        (["xz", "-c", "--block-size=10000"], Compression.XZ),
        (["bzip2", "-1c"], Compression.BZIP2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_output_of_the_usual_tools(command: list[str], codec: Compression) -> None:
    data = subprocess.run([tool(command[0]), *command[1:]], input=TEXT, capture_output=True, check=True).stdout
    assert sniff(data[:16]) is codec
    assert inflate(data + data, codec, 1000) == (TEXT * 2, [])


# --- what is wrong ----------------------------------------------------------------------------------------------------


@codecs
@pytest.mark.parametrize("garbage", [b"garbage", b"\x1f", b"\xfdx", b"(", b"B", b"PK\3\4" * 100])
@pytest.mark.parametrize("zeros", [0, 5])
@pytest.mark.parametrize("step", [1, 50, 1 << 20])
def test_garbage_after_the_end_is_told_and_passed_over(
    codec: Compression, garbage: bytes, zeros: int, step: int
) -> None:
    member = CODECS[codec](TEXT)
    data = member + bytes(zeros) + garbage
    magics = {Compression.GZIP: b"\x1f\x8b", Compression.ZSTD: b"(", Compression.XZ: b"\xfd7", Compression.BZIP2: b"B"}
    if magics[codec].startswith(garbage):
        out, error = until_damage(data, codec, step)  # the first byte of a member that was cut off
        assert out == TEXT
        assert "is cut off" in str(error)
        return
    told: list[ForensicsError] = []
    assert b"".join(decompress(in_blocks(data, step), codec, ORIGIN, None, told.append)) == TEXT
    (problem,) = told
    assert isinstance(problem, DamagedData)
    assert str(problem) == f"bytes after the end of the {codec} stream are no {codec}"
    assert (problem.origin, problem.offset) == (ORIGIN, len(member) + zeros)
    assert b"".join(decompress([data], codec, ORIGIN)) == TEXT


def test_garbage_is_read_to_its_end() -> None:
    """So that whoever hashes the compressed bytes on their way sees all of them."""
    blocks = iter([gzip.compress(TEXT), b"garbage", b"more", gzip.compress(b"never")])
    assert b"".join(decompress(blocks, Compression.GZIP, ORIGIN)) == TEXT
    assert list(blocks) == []


def test_garbage_after_an_empty_member() -> None:
    assert inflate(gzip.compress(b"") + bytes(10) + b"garbage", Compression.GZIP)[1]


@codecs
def test_a_stream_cut_off_at_every_byte(codec: Compression) -> None:
    data = CODECS[codec](TEXT[:2000]) + CODECS[codec](b"") + CODECS[codec](NOISE[:300])
    ends = {len(CODECS[codec](TEXT[:2000])), len(CODECS[codec](TEXT[:2000]) + CODECS[codec](b"")), len(data)}
    for cut in range(1, len(data) + 1):
        out, error = until_damage(data[:cut], codec, 64)
        assert (TEXT[:2000] + NOISE[:300]).startswith(out)
        if cut in ends:
            assert error is None
        else:
            assert isinstance(error, DamagedData), cut
            assert "is cut off" in str(error)
            assert (error.origin, error.offset) == (ORIGIN, cut)


@codecs
def test_everything_before_the_cut_comes_out(codec: Compression) -> None:
    noise = random.Random(6).randbytes(3 << 20)
    data = CODECS[codec](noise)
    out, error = until_damage(data[: len(data) * 3 // 4], codec)
    assert isinstance(error, DamagedData)
    assert noise.startswith(out)
    assert len(out) > 1 << 20


@pytest.mark.parametrize("codec", [Compression.GZIP, Compression.XZ, Compression.BZIP2])
@pytest.mark.parametrize("step", [1, 1000, 1 << 20])
def test_a_wrong_checksum_costs_nothing_of_what_it_covers(codec: Compression, step: int) -> None:
    """It is found at the very end, where archives have their table of contents."""
    data = bytearray(CODECS[codec](TEXT[:70_000]))
    data[-8 if codec is Compression.GZIP else -40 if codec is Compression.XZ else 10] ^= (
        1  # of gzip, the block's, bzip2
    )
    out, error = until_damage(bytes(data), codec, step)
    assert isinstance(error, DamagedData)
    assert TEXT[:70_000].startswith(out)
    assert len(out) > 70_000 - (16 << 10)


@codecs
def test_every_byte_that_is_not_what_it_was(codec: Compression) -> None:
    data = CODECS[codec](TEXT[:700])
    harmless = set()
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 0xFF
        out, error = until_damage(bytes(changed), codec)
        if error is None and out != TEXT[:700]:
            pytest.fail(f"byte {position} changed the output unnoticed")
        if error is None:
            harmless.add(position)
    allowed = {Compression.GZIP: {4, 5, 6, 7, 8, 9}, Compression.BZIP2: {len(data) - 1}}  # time, system; unused bits
    assert harmless <= allowed.get(codec, set())


@given(st.sampled_from(list(CODECS)), st.integers(1, 3000), st.data())
@settings(deadline=None, max_examples=300)
def test_damage_raises_nothing_but_errors_of_the_library(codec: Compression, step: int, draws: st.DataObject) -> None:
    data = bytearray(CODECS[codec](TEXT[:5000]) + CODECS[codec](NOISE[:2000]))
    for _ in range(draws.draw(st.integers(1, 6))):
        data[draws.draw(st.integers(0, len(data) - 1))] = draws.draw(st.integers(0, 255))
    until_damage(bytes(data), codec, step)


@given(st.sampled_from(list(CODECS)), st.binary(max_size=400), st.integers(1, 50))
@settings(deadline=None)
def test_any_bytes_behind_a_magic(codec: Compression, junk: bytes, step: int) -> None:
    until_damage(CODECS[codec](b"x")[:12] + junk, codec, step)
    until_damage(junk, codec, step)


# --- bombs ------------------------------------------------------------------------------------------------------------


@codecs
def test_a_bomb_ends_at_the_ratio(codec: Compression) -> None:
    data = CODECS[codec](bytes(4 << 20))
    limits = Limits(ratio=20, ratio_from=1 << 20)
    with pytest.raises(LimitExceeded, match=f"decompression bomb: {len(data) - 8} bytes gave more than"):
        inflate(data, codec, limits=limits)
    assert len(inflate(data, codec, limits=Limits(ratio=20, ratio_from=4 << 20))[0]) == 4 << 20


@codecs
def test_a_stream_that_is_larger_than_allowed(codec: Compression) -> None:
    data = CODECS[codec](NOISE)
    with pytest.raises(LimitExceeded, match="more than 19999 decompressed bytes"):
        inflate(data, codec, limits=Limits(total=19_999))
    assert inflate(data, codec, limits=Limits(total=20_000))[0] == NOISE


def test_a_bomb_of_many_members() -> None:
    data = gzip.compress(bytes(1 << 20), mtime=0) * 8
    with pytest.raises(LimitExceeded):
        inflate(data, Compression.GZIP, limits=Limits(ratio=50, ratio_from=1 << 20))


def test_a_zstd_window_that_is_too_large() -> None:
    options: dict[int, int] = {zstd.CompressionParameter.window_log: 28, zstd.CompressionParameter.content_size_flag: 0}
    data = zstd.ZstdCompressor(options=options)
    frame = data.compress(TEXT) + data.flush()
    with pytest.raises(UnsupportedFormat, match="asks for more memory than is allowed"):
        inflate(frame, Compression.ZSTD)


def test_an_xz_dictionary_that_is_too_large() -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 29, "preset": 0}]
    try:
        data = lzma.compress(TEXT, filters=filters)
    except MemoryError:
        pytest.skip("not enough memory to make one")
    with pytest.raises(UnsupportedFormat, match="asks for more memory than is allowed"):
        inflate(data, Compression.XZ)


# --- random access ----------------------------------------------------------------------------------------------------


class CountingSource(BytesSource):
    """Counts how often its bytes were read from the start."""

    passes = 0

    def read_at(self, offset: int, length: int) -> bytes:
        self.passes += offset == 0
        return super().read_at(offset, length)


def spool(data: bytes, codec: Compression = Compression.GZIP, limits: Limits | None = None) -> SpoolSource:
    return SpoolSource(BytesSource(data, ORIGIN), codec, ORIGIN.to(codec), limits)


@given(
    st.sampled_from(list(CODECS)),
    st.lists(st.tuples(st.integers(0, 25_000), st.integers(-1, 25_000)), min_size=1, max_size=6),
)
@settings(deadline=None)
def test_a_spool_reads_what_the_bytes_are(codec: Compression, reads: list[tuple[int, int]]) -> None:
    source = spool(CODECS[codec](NOISE), codec)
    for offset, length in reads:
        assert source.read_at(offset, length) == NOISE[offset : offset + max(length, 0)]
    assert source.size == len(NOISE)
    assert source.read_at(0, 1 << 62) == NOISE
    with pytest.raises(DamagedData):
        source.read_at(-1, 5)
    source.close()


def test_what_was_decompressed_is_not_decompressed_again() -> None:
    parent = CountingSource(gzip.compress(NOISE * 100), ORIGIN)
    source = SpoolSource(parent, Compression.GZIP, ORIGIN)
    for offset in range(0, 2_000_000, 5000):
        assert source.read_at(offset, 7) == NOISE[offset % 20_000 :][:7]
    assert parent.passes == 1
    source.close()


def test_only_as_much_is_decompressed_as_is_needed() -> None:
    source = spool(gzip.compress(os.urandom(8 << 20), 1))
    assert source.held == 0
    source.read_at(0, 10)
    assert 0 < source.held < 4 << 20
    assert b"".join(source.blocks(8 << 20)) == b""
    assert source.held == 8 << 20
    source.close()


def test_a_full_pass_spools_nothing() -> None:
    source = spool(gzip.compress(TEXT))
    assert b"".join(source.blocks()) == TEXT
    assert source.held == 0
    assert b"".join(source.blocks(5, 100)) == TEXT[5:105]
    assert b"".join(source.blocks(5)) == TEXT[5:]
    assert b"".join(source.blocks()) == TEXT


def test_a_closed_spool_begins_anew() -> None:
    source = spool(gzip.compress(TEXT))
    assert source.read_at(100, 5) == TEXT[100:105]
    source.close()
    assert source.held == 0
    assert source.read_at(50_000, 5) == TEXT[50_000:50_005]
    source.close()


def test_what_lies_before_the_damage_can_be_read_again_and_again() -> None:
    noise = random.Random(7).randbytes(3 << 20)
    data = gzip.compress(noise)
    source = spool(data[: len(data) // 2])
    whole = until_damage(data[: len(data) // 2], Compression.GZIP)[0]
    assert source.size == len(whole)
    for _ in range(2):
        assert source.read_at(1000, 1000) == noise[1000:2000]
        with pytest.raises(DamagedData, match="is cut off"):
            source.read_at(len(whole) - 5, 100)
    got = bytearray()
    error = None
    try:
        for block in source.blocks(10):
            got += block
    except DamagedData as caught:
        error = caught
    assert (bytes(got), error is source.error) == (whole[10:], True)
    source.close()


def test_the_spool_has_a_limit() -> None:
    noise = random.Random(3).randbytes(3 << 20)
    source = spool(gzip.compress(noise, 1), limits=Limits(spool=1 << 20))
    assert source.read_at(0, 100) == noise[:100]
    with pytest.raises(LimitExceeded, match="larger than the spool limit of 1048576 bytes"):
        source.read_at(2 << 20, 1)
    source.close()


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_full_disk_or_an_interruption_leaves_no_gap(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = random.Random(8).randbytes(5 << 20)
    source = spool(gzip.compress(noise, 1))
    source.read_at(0, 10)
    assert source._spool is not None
    monkeypatch.setattr(source._spool, "write", _raiser(error))
    with pytest.raises(type(error)):
        source.read_at(4 << 20, 10)
    assert source.read_at(4 << 20, 10) == noise[4 << 20 : (4 << 20) + 10]
    assert b"".join(source.blocks(1)) == noise[1:]
    source.close()


def _raiser(error: BaseException) -> Callable[[bytes], int]:
    def write(_: bytes) -> int:
        raise error

    return write


def test_a_spool_that_nobody_closed_is_given_back() -> None:
    """Also as a part of garbage that refers to itself, where the order of the clearing is anybody's guess."""
    source = spool(gzip.compress(bytes(3 << 20)))
    source.read_at(0, 2 << 20)
    file = source._spool
    assert file is not None
    source.itself = source  # type: ignore[attr-defined]
    del source
    gc.collect()
    assert file.closed


def test_threads_share_a_spool() -> None:
    noise = random.Random(9).randbytes(2 << 20)
    source = spool(gzip.compress(noise, 1))
    wrong: list[int] = []

    def read(seed: int) -> None:
        draws = random.Random(seed)
        offsets = [draws.randrange(2 << 20) for _ in range(200)]
        wrong.extend(o for o in offsets if source.read_at(o, 100) != noise[o : o + 100])

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    source.close()


def test_a_spool_goes_to_other_processes_without_its_bytes() -> None:
    source = spool(gzip.compress(TEXT), limits=Limits(total=1 << 20))
    source.read_at(5, 5)
    copy = pickle.loads(pickle.dumps(source))
    assert (copy.held, copy.limits, str(copy.origin)) == (0, source.limits, "layer.tar.gz > gzip")
    assert copy.read_at(70, 9) == TEXT[70:79]
    copy.close()
    source.close()


def test_a_spool_as_a_file() -> None:
    source = spool(gzip.compress(TEXT))
    with source.open() as file, io.TextIOWrapper(file) as text:
        assert text.readline() == "0 bottles of beer on the wall\n"
    source.close()


# --- archives ---------------------------------------------------------------------------------------------------------


@codecs
def test_members_of_a_compressed_archive(codec: Compression, tmp_path: Path) -> None:
    archive = TarMaker("pax").file("a", TEXT).file("b", NOISE).gnu_sparse("c", [(5, 3)], 10, b"xyz").end()
    path = tmp_path / "archive"
    path.write_bytes(CODECS[codec](archive[:5000]) + CODECS[codec](archive[5000:]))
    found = list(fl.tar_entries(path))
    contents = [(entry.name, entry.open().read()) for entry in found]
    assert contents == [("a", TEXT), ("b", NOISE), ("c", b"\0\0\0\0\0xyz\0\0")]
    assert str(found[1].content().origin).startswith(f"archive > {codec} > content of b @")


@codecs
def test_a_damaged_archive_gives_the_members_before_the_damage(codec: Compression, tmp_path: Path) -> None:
    maker = TarMaker()
    for number in range(40):
        maker.file(f"{number}", random.Random(number).randbytes(60_000))
    data = CODECS[codec](maker.end())
    path = tmp_path / "archive"
    path.write_bytes(data[: len(data) * 2 // 3])
    decoded = until_damage(path.read_bytes(), codec)[0]
    members = fl.tar_entries(path)
    there = (len(decoded) + 60_928 - 512) // 60_928  # headers that came out whole
    assert there > 10
    assert [next(members).name for _ in range(there)] == [str(number) for number in range(there)]
    with pytest.raises(DamagedData, match="is cut off"):
        next(members)
