"""VMDK images against the disk that is inside them, and against qemu-img."""

from __future__ import annotations

import pickle
import random
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forensics_lib.errors import DamagedData, ForensicsError, LimitExceeded, UnsupportedFormat
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.sources.base import BytesSource, Source
from forensics_lib.sources.file import FileSource
from forensics_lib.sources.vmdk import Vmdk, VmdkDescriptor, VmdkExtent
from tests.diskmaker import (
    MIB,
    SIZE,
    assert_same,
    big_content,
    content,
    convert,
    fixture,
    raw_file,
    read_or_damage,
    run,
    stored,
    unpack,
)

pytest.importorskip("pyvmdk")

GRAIN = 65_536
DESCRIPTOR = """# Disk DescriptorFile
version=1
CID=0badcafe
parentCID=ffffffff
createType="{kind}"

# Extent description
{extents}

# The Disk Data Base
#DDB

ddb.adapterType = "lsilogic"
"""


def opened(source: Source | Path, parent: Source | None = None) -> tuple[Vmdk, list[str]]:
    problems = ProblemLog()
    disk = Vmdk(FileSource(source) if isinstance(source, Path) else source, problems, parent)
    return disk, [problem.message for problem in problems.rows]


def described(folder: Path, *extents: str, kind: str = "custom") -> Path:
    path = folder / "disk.vmdk"
    path.write_text(DESCRIPTOR.format(kind=kind, extents="\n".join(extents)))
    return path


# --- the disk inside --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["monolithicSparse", "streamOptimized"])
def test_an_image_in_one_file(name: str) -> None:
    disk, problems = opened(fixture(f"{name}.vmdk"))
    assert problems == []
    assert disk.size == SIZE
    assert disk.descriptor.kind == name
    assert disk.descriptor.parent_name is None
    assert_same(disk, content(), border=GRAIN)


@pytest.mark.parametrize("name", ["monolithicFlat", "twoGbMaxExtentSparse"])
def test_a_descriptor_and_its_extent(tmp_path: Path, name: str) -> None:
    extent = f"{name}-{'flat' if 'Flat' in name else 's001'}.vmdk"
    disk, problems = opened(unpack(tmp_path, f"{name}.vmdk", extent))
    assert problems == []
    assert disk.descriptor.extents == (VmdkExtent("FLAT" if "Flat" in name else "SPARSE", SIZE, extent),)
    assert_same(disk, content(), border=GRAIN)
    assert pickle.loads(pickle.dumps(disk)).read_at(0, SIZE) == content()


@pytest.mark.parametrize(
    "kind", ["monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat", "streamOptimized"]
)
def test_images_of_qemu_img(tmp_path: Path, kind: str) -> None:
    disk = big_content()
    image = convert(raw_file(tmp_path, disk), tmp_path / "disk.vmdk", "vmdk", "-o", f"subformat={kind}")
    assert_same(opened(image)[0], disk, border=GRAIN)


def test_extents_of_every_kind_together(tmp_path: Path) -> None:
    unpack(tmp_path, "twoGbMaxExtentSparse-s001.vmdk")
    (tmp_path / "flat.bin").write_bytes(b"?" * 1024 + b"f" * 5120)
    sectors = SIZE // 512
    extents = ('RW 7 FLAT "flat.bin" 2', "RW 3 ZERO", f'RW {sectors} SPARSE "twoGbMaxExtentSparse-s001.vmdk"')
    disk, problems = opened(described(tmp_path, *extents, 'RDONLY 1 VMFS "flat.bin" 0'))
    assert problems == []
    assert_same(disk, b"f" * 3584 + bytes(1536) + content() + b"?" * 512, border=512)


def test_random_writes_into_a_sparse_image(tmp_path: Path) -> None:
    image, raw = tmp_path / "disk.vmdk", tmp_path / "disk.raw"
    run("qemu-img", "create", "-q", "-f", "vmdk", image, str(40 * MIB))
    draw = random.Random(5)
    for number in range(40):
        place = draw.randrange(39 * MIB)
        run("qemu-io", "-c", f"write -P {number + 1} {place} {draw.randrange(1, 200_000)}", image)
    run("qemu-img", "convert", "-O", "raw", image, raw)
    assert_same(opened(image)[0], raw.read_bytes(), border=GRAIN)


def test_an_esx_extent() -> None:
    """A COWD extent, made by its description: one grain of 512 bytes in 8."""
    grains = [b"%d" % number * 512 for number in range(3)]
    header = struct.pack("<4s9I", b"COWD", 1, 3, 4096 * 2, 1, 4, 2, 9, 0, 0).ljust(4 * 512, b"\0")
    directory = struct.pack("<II", 5, 0).ljust(512, b"\0")
    table = struct.pack("<4096I", 0, 37, 0, 38, *[0] * 4090, 39, 0).ljust(32 * 512, b"\0")
    data = header + directory + table + b"".join(grains)
    disk, problems = opened(BytesSource(data, Origin("esx.vmdk")))
    assert problems == []
    expected = bytearray(4096 * 2 * 512)
    for grain, place in zip(grains, (1, 3, 4094), strict=True):
        expected[place * 512 : place * 512 + 512] = grain
    assert_same(disk, bytes(expected), border=512)


# --- snapshots --------------------------------------------------------------------------------------------------------


def test_a_snapshot_on_its_parent() -> None:
    parent, _ = opened(fixture("monolithicSparse.vmdk"))
    disk, problems = opened(fixture("snapshot.vmdk"), parent)
    assert problems == []
    assert disk.descriptor.parent_name == "monolithicSparse.vmdk"
    assert disk.descriptor.parent_content_id == parent.descriptor.content_id
    expected = bytearray(content())
    expected[65_000:66_000] = b"\x65" * 1000
    assert_same(disk, bytes(expected), border=GRAIN)
    assert pickle.loads(pickle.dumps(disk)).read_at(0, SIZE) == expected


def test_a_parent_of_any_kind_that_is_too_short() -> None:
    disk, _ = opened(fixture("snapshot.vmdk"), BytesSource(b"p" * 200_000, Origin("parent")))
    assert disk.read_at(199_990, 30) == b"p" * 10 + bytes(20)
    assert disk.read_at(MIB, 30) == bytes(30)


def test_a_parent_that_is_missing_is_no_zeros() -> None:
    disk, _ = opened(fixture("snapshot.vmdk"))
    assert disk.read_at(65_000, 1000) == b"\x65" * 1000
    with pytest.raises(DamagedData, match=r"parent 'monolithicSparse\.vmdk' is missing"):
        disk.read_at(MIB, 10)


# --- missing and damaged parts ----------------------------------------------------------------------------------------


def test_an_extent_that_is_missing(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"a" * 1024)
    path = described(tmp_path, 'RW 2 FLAT "a.bin" 0', 'RW 8 SPARSE "b.vmdk"', 'RW 2 FLAT "a.bin" 0')
    disk, problems = opened(path)
    assert problems == ["the extent 'b.vmdk' of the image is missing"]
    assert disk.read_at(0, 1024) == disk.read_at(5120, 1024) == b"a" * 1024
    with pytest.raises(DamagedData, match=r"the extent 'b\.vmdk' of the image is missing"):
        disk.read_at(1000, 100)


def test_an_extent_that_is_cut_off(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"a" * 1000)
    disk, problems = opened(described(tmp_path, 'RW 2 FLAT "a.bin" 0'))
    assert problems == ["the extent 'a.bin' ends after 1000 bytes"]
    assert disk.read_at(0, 1000) == b"a" * 1000
    with pytest.raises(DamagedData, match="1024 bytes are declared, only 1000 are there"):
        disk.read_at(0, 1001)


@pytest.mark.parametrize("kind", ["SESPARSE", "VMFSRDM"])
def test_extents_that_are_not_read(tmp_path: Path, kind: str) -> None:
    disk, problems = opened(described(tmp_path, f'RW 2 {kind} "a.bin"'))
    assert problems == [f"extents of the kind {kind} are not read"]
    with pytest.raises(DamagedData, match="are not read"):
        disk.read_at(0, 1)


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/passwd", "C:\\disks\\..\\secret", "link", "sub/../../secret", "folder/secret"]
)
def test_extents_outside_the_folder_are_not_opened(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret").write_bytes(b"s" * 512)
    (tmp_path / "evidence").mkdir()
    (tmp_path / "evidence" / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "evidence" / "folder").symlink_to(tmp_path, target_is_directory=True)
    _, problems = opened(described(tmp_path / "evidence", f'RW 1 FLAT "{name}" 0'))
    assert problems == [f"the extent {name!r} of the image is missing"]


@pytest.mark.parametrize("name", ["/vmfs/volumes/a/b.bin", "C:\\vm\\b.bin", "sub/b.bin", "./b.bin", "[store] vm/b.bin"])
def test_extents_are_found_beside_the_image(tmp_path: Path, name: str) -> None:
    (tmp_path / "b.bin").write_bytes(b"b" * 512)
    disk, problems = opened(described(tmp_path, f'RW 1 FLAT "{name}" 0'))
    assert problems == []
    assert disk.read_at(0, 512) == b"b" * 512


def test_a_cut_image_shows_what_is_left() -> None:
    data = stored("monolithicSparse.vmdk")
    disk, _ = opened(BytesSource(data[: len(data) // 2], Origin("cut.vmdk")))
    assert disk.read_at(0, GRAIN) == content()[:GRAIN]
    with pytest.raises(DamagedData, match="cannot be decoded"):
        disk.read_at(SIZE - 100, 100)


def test_an_error_of_the_file_below_is_handed_on() -> None:
    class Broken(BytesSource):
        def read_at(self, offset: int, length: int) -> bytes:
            if offset + length > 200_000:
                raise DamagedData("bad sector", origin=self.origin, offset=offset)
            return super().read_at(offset, length)

    disk, _ = opened(Broken(stored("monolithicSparse.vmdk"), Origin("disk.vmdk")))
    with pytest.raises(DamagedData, match="bad sector"):
        disk.read_at(SIZE - 100, 100)


def test_what_is_no_image() -> None:
    for data, error, message in (
        (b"# Disk Something", UnsupportedFormat, "no VMDK image"),
        (stored("twoGbMaxExtentSparse-s001.vmdk"), UnsupportedFormat, "one extent of a split VMDK"),
        (DESCRIPTOR.format(kind="x", extents="").encode(), DamagedData, "lists no extent"),
        (stored("monolithicSparse.vmdk")[:600], DamagedData, "descriptor lies beyond the end"),
    ):
        with pytest.raises(error, match=message):
            opened(BytesSource(data, Origin("x.vmdk")))


def test_a_descriptor_with_more_extents_than_is_sensible() -> None:
    with pytest.raises(LimitExceeded, match="more than 10000 extents"):
        VmdkDescriptor.parse(b"RW 1 ZERO\n" * 10_001)


SMALL = {name: stored(name)[: 200 << 10] for name in ("monolithicSparse.vmdk", "streamOptimized.vmdk", "snapshot.vmdk")}


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(SMALL)), st.data())
def test_any_damage_gives_bytes_or_an_error_of_ours(name: str, draws: st.DataObject) -> None:
    data = bytearray(SMALL[name][: draws.draw(st.integers(0, len(SMALL[name])))])
    for _ in range(draws.draw(st.integers(0, 4))):
        if data:
            place = draws.draw(st.one_of(st.integers(0, min(1500, len(data) - 1)), st.integers(0, len(data) - 1)))
            data[place] = draws.draw(st.integers(0, 255))
    try:
        disk, _ = opened(BytesSource(bytes(data), Origin("fuzz.vmdk")))
    except ForensicsError:
        return
    read_or_damage(disk, 500_000)


@given(st.binary(max_size=300))
def test_any_text_is_a_descriptor_or_an_error_of_ours(text: bytes) -> None:
    assert len(VmdkDescriptor.parse(text).extents) <= text.count(b"RW") + text.count(b"R") + text.count(b"NO")
