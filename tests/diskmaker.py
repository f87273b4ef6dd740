"""A disk whose bytes are known, and what compares a reader with it."""

from __future__ import annotations

import hashlib
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from forensics_lib.errors import DamagedData, ForensicsError
from forensics_lib.model import Origin
from forensics_lib.sources._zstd import ZstdDecompressor
from forensics_lib.sources.base import BytesSource, Source

DISKS = Path(__file__).parents[1] / "fixtures" / "disks"
SIZE = (3 << 20) + 1536
MIB = 1 << 20


def noise(seed: str, length: int) -> bytes:
    """Bytes that do not compress, the same everywhere."""
    blocks = (hashlib.sha256(f"{seed} {number}".encode()).digest() for number in range(-(-length // 32)))
    return b"".join(blocks)[:length]


def content(size: int = SIZE, seed: str = "disk") -> bytes:
    """A disk of text, noise and zeros, with something on both sides of the borders of clusters and grains."""
    disk = bytearray(size)
    text = b"".join(b"%s line %d of the disk\n" % (seed.encode(), number) for number in range(70_000 // 20))
    disk[: len(text)] = text
    for number, place in enumerate((3 * 65_536 - 700, MIB - 750, 2 * MIB - 10)):
        disk[place : place + 1500] = noise(f"{seed} {number}", 1500)
    disk[2 * MIB + 100_000 : 2 * MIB + 140_000] = text[:40_000]
    disk[-1500:] = noise(f"{seed} end", 1500)
    return bytes(disk[:size])


def numbered(size: int) -> bytes:
    """Blocks of 4 KiB, each of which begins with its number from 1 on: what arrays among the fixtures hold."""
    return b"".join((block + 1).to_bytes(8, "little").ljust(4096, b"\0") for block in range(size // 4096))


def big_content(size: int = 12 * MIB + 512, seed: int = 1) -> bytes:
    """A larger disk of random runs of text, noise and zeros."""
    draw = random.Random(seed)
    disk = bytearray()
    while len(disk) < size:
        length = draw.choice((300, 5000, 66_000, 700_000))
        kind = draw.random()
        if kind < 0.35:
            disk += bytes(length)
        elif kind < 0.7:
            disk += draw.randbytes(length)
        else:
            disk += (b"%d the quick brown fox\n" % len(disk) * (length // 20 + 1))[:length]
    return bytes(disk[:size])


def stored(name: str) -> bytes:
    """A fixture, decompressed."""
    return ZstdDecompressor().decompress((DISKS / f"{name}.zst").read_bytes())


def fixture(name: str) -> BytesSource:
    """A fixture as a source."""
    return BytesSource(stored(name), Origin(name))


def unpack(folder: Path, *names: str) -> Path:
    """Fixtures as files in a folder; the first of them is returned."""
    for name in names:
        (folder / name).write_bytes(stored(name))
    return folder / names[0]


def assert_same(source: Source, disk: bytes, *, border: int = 65_536, count: int = 150, seed: int = 1) -> None:
    """The source has the bytes of the disk, whole, at random places and across borders; zeros may follow."""
    size = source.size
    assert len(disk) <= size < len(disk) + 2 * MIB
    disk = disk.ljust(size, b"\0")
    assert b"".join(source.blocks()) == disk
    draw = random.Random(seed)
    for number in range(count):
        if number % 2:
            place = max(0, draw.randrange(1 + size // border) * border - draw.choice((0, 1, 511, 3000)))
        else:
            place = draw.randrange(size)
        length = draw.choice((1, 2, 512, 4097, border, border + 1, 3 * border + 17))
        assert source.read_at(place, length) == disk[place : place + length], (place, length)
    assert source.read_at(size, 10) == b""
    assert source.read_at(size - 3, 10) == disk[-3:]
    with pytest.raises(DamagedData):
        source.read_at(-1, 1)


def read_or_damage(source: Source, step: int = 100_000) -> None:
    """Read a source whose image is damaged: bytes or an error of this library, never another one."""
    for place in range(0, min(source.size, 8 * MIB), step):
        try:
            assert len(source.read_at(place, step)) <= step
        except ForensicsError:
            continue


def tool(name: str) -> str:
    """Path of a program; the test is skipped without it."""
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def run(program: str, *arguments: str | Path, cwd: Path | None = None, stdin: bytes = b"") -> bytes:
    """Run a program, or skip the test without it."""
    command = [tool(program), *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, cwd=cwd, input=stdin).stdout


def convert(raw: Path, image: Path, kind: str, *options: str) -> Path:
    """The disk as an image of another format, by qemu-img."""
    run("qemu-img", "convert", "-O", kind, *options, raw, image)
    return image


def raw_file(folder: Path, disk: bytes | None = None) -> Path:
    """The disk as a file."""
    path = folder / "disk.raw"
    path.write_bytes(content() if disk is None else disk)
    return path
