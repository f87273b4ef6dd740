"""Disk images of any kind, opened by what is in them."""

from __future__ import annotations

import hashlib
import itertools
import pickle
import shutil
from pathlib import Path

import pytest

from forensics_lib.errors import DamagedData, PathNotFound, UnsupportedFormat
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.sources._cache import Cache
from forensics_lib.sources.base import BytesSource, Source
from forensics_lib.sources.disk import open_disk
from forensics_lib.sources.file import FileSource
from forensics_lib.sources.qcow2 import Qcow2
from forensics_lib.sources.siblings import Siblings
from forensics_lib.sources.vdi import Vdi
from forensics_lib.sources.volumes import find_volumes
from tests.diskmaker import MIB, SIZE, content, convert, noise, raw_file, run, stored, unpack

IMAGES = {
    "v2.qcow2": ("Qcow2", ()),
    "zstd.qcow2": ("Qcow2", ()),
    "dynamic.vdi": ("Vdi", ()),
    "monolithicSparse.vmdk": ("Vmdk", ()),
    "streamOptimized.vmdk": ("Vmdk", ()),
    "monolithicFlat.vmdk": ("Vmdk", ("monolithicFlat-flat.vmdk",)),
    "twoGbMaxExtentSparse.vmdk": ("Vmdk", ("twoGbMaxExtentSparse-s001.vmdk",)),
    "dynamic.vhd": ("Vhd", ()),
    "fixed.vhd": ("Vhd", ()),
    "dynamic.vhdx": ("Vhdx", ()),
    "best.E01": ("Ewf", ()),
    "smart.s01": ("Ewf", ()),
    "split.E01": ("Ewf", ("split.E02", "split.E03", "split.E04")),
}
NEEDS = {"Vmdk": "pyvmdk", "Vhdx": "pyvhdi"}


def opened(evidence: Path | Source) -> tuple[Source, list[str]]:
    problems = ProblemLog()
    disk = open_disk(evidence, problems)
    assert disk is not None
    return disk, [problem.message for problem in problems.rows]


@pytest.mark.parametrize("name", IMAGES)
def test_the_same_disk_in_every_format(tmp_path: Path, name: str) -> None:
    reader, others = IMAGES[name]
    if reader in NEEDS:
        pytest.importorskip(NEEDS[reader])
    path = unpack(tmp_path, name, *others)
    disk, problems = opened(path)
    assert problems == []
    assert type(disk).__name__ == reader
    assert hashlib.sha256(b"".join(disk.blocks())).digest() == hashlib.sha256(content()).digest()
    assert str(disk.origin).startswith(f"{name} > ")
    assert pickle.loads(pickle.dumps(disk)).read_at(5000, 100_000) == content()[5000:105_000]
    disk.close()


def test_the_name_does_not_matter(tmp_path: Path) -> None:
    path = unpack(tmp_path, "zlib.qcow2").rename(tmp_path / "disk.vmdk")
    assert isinstance(opened(path)[0], Qcow2)


@pytest.mark.parametrize("name", ["mbr.img", "gpt.img", "pv0.img"])
def test_a_raw_image_is_known_by_what_it_holds(tmp_path: Path, name: str) -> None:
    path = unpack(tmp_path, name)
    disk, problems = opened(path)
    assert isinstance(disk, FileSource)
    assert problems == []


@pytest.mark.parametrize("data", [b"", b"x", b"\0" * 100_000, noise("random", 100_000), content()])
def test_what_is_no_disk(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "file").write_bytes(data)
    assert open_disk(tmp_path / "file", ProblemLog()) is None


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(PathNotFound):
        open_disk(tmp_path / "none", ProblemLog())


@pytest.mark.parametrize(
    ("magic", "message"),
    [
        (b"EVF2\x0d\x0a\x81\x00", "an Ex01 image"),
        (b"LVF\x09\x0d\x0a\xff\x00", "an L01 logical evidence file"),
        (b"QED\x00", "a QED image"),
        (b"WithoutFreeSpace", "a Parallels image"),
        (b"QFI\xfb\0\0\0\1", "version 1"),
    ],
)
def test_formats_that_are_named_but_not_read(magic: bytes, message: str) -> None:
    with pytest.raises(UnsupportedFormat, match=message):
        open_disk(BytesSource(magic.ljust(2000, b"\0"), Origin("disk")), ProblemLog())


@pytest.mark.parametrize("inside", ["raw", "qcow2"])
def test_any_image_can_be_cut_into_pieces(tmp_path: Path, inside: str) -> None:
    data = stored("gpt.img") if inside == "raw" else stored("zlib.qcow2")
    step = 4 * MIB if inside == "raw" else 20_000
    for number, start in enumerate(range(0, len(data), step), 1):
        (tmp_path / f"disk.{number:03}").write_bytes(data[start : start + step])
    disk, problems = opened(tmp_path / "disk.001")
    assert problems == []
    expected = data if inside == "raw" else content()
    assert disk.read_at(0, disk.size) == expected
    assert str(disk.origin) == "disk.001 > split image" + (" > qcow2" if inside == "qcow2" else "")


def test_images_with_numbers_in_their_names_are_no_pieces(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"disk.{number:02}").write_bytes(stored("zlib.qcow2"))
    disk, problems = opened(tmp_path / "disk.00")
    assert problems == []
    assert str(disk.origin) == "disk.00 > qcow2"
    assert disk.read_at(0, SIZE) == content()


# --- images below images ----------------------------------------------------------------------------------------------


def chained_content() -> bytes:
    disk = bytearray(content().ljust(5 * MIB, b"\0"))
    disk[65_000:66_000] = b"\x62" * 1000
    disk[3500 << 10 : (3500 << 10) + 1024] = b"\x63" * 1024
    disk[65_500:65_600] = b"\x64" * 100
    disk[MIB : MIB + 4096] = bytes(4096)
    return bytes(disk)


def test_backing_files_are_found_beside_the_image(tmp_path: Path) -> None:
    disk, problems = opened(unpack(tmp_path, "top.qcow2", "middle.qcow2", "base.qcow2"))
    assert problems == []
    assert disk.read_at(0, disk.size) == chained_content()


def test_a_missing_backing_file(tmp_path: Path) -> None:
    disk, problems = opened(unpack(tmp_path, "top.qcow2", "middle.qcow2"))
    assert problems == ["the image below, 'base.qcow2', is missing"]
    assert disk.read_at(65_536, 64) == b"\x64" * 64
    with pytest.raises(DamagedData, match=r"the image below, 'base\.qcow2', is missing"):
        disk.read_at(2 * MIB, 1)
    with pytest.raises(DamagedData, match="is missing"):
        open_disk(tmp_path / "top.qcow2", ProblemLog(strict=True))


def test_images_in_a_circle(tmp_path: Path) -> None:
    unpack(tmp_path, "top.qcow2", "middle.qcow2")
    (tmp_path / "base.qcow2").write_bytes(stored("top.qcow2"))
    disk, problems = opened(tmp_path / "top.qcow2")
    assert problems[0].endswith("lies below itself") or "one below the other" in problems[0]
    assert disk.read_at(65_536, 64) == b"\x64" * 64


def overlay(folder: Path, name: str, backing: str, kind: str = "qcow2") -> Path:
    run("qemu-img", "create", "-q", "-f", "qcow2", name, "4M", cwd=folder)
    run("qemu-img", "rebase", "-u", "-f", "qcow2", "-b", backing, "-F", kind, name, cwd=folder)
    return folder / name


def test_an_image_below_itself(tmp_path: Path) -> None:
    disk, problems = opened(overlay(tmp_path, "a.qcow2", "a.qcow2"))
    assert problems == ["the image below, 'a.qcow2', lies below itself"]
    with pytest.raises(DamagedData, match="lies below itself"):
        disk.read_at(0, 1)


def test_a_chain_that_is_too_long(tmp_path: Path) -> None:
    first = overlay(tmp_path, "0.qcow2", "1.qcow2")
    data = first.read_bytes()
    for number in range(1, 80):
        (tmp_path / f"{number}.qcow2").write_bytes(data.replace(b"1.qcow2", b"%d.qcow2" % (number + 1)))
    place = data.index(b"1.qcow2")
    for number in range(9, 80):  # the name is longer by a digit
        path = tmp_path / f"{number}.qcow2"
        image = bytearray(data)
        image[16:20] = (8).to_bytes(4, "big")
        image[place : place + 8] = b"%d.qcow2" % (number + 1)
        path.write_bytes(image)
    _, problems = opened(first)
    assert any("one below the other" in problem for problem in problems)


def test_a_raw_backing_file_is_not_looked_into(tmp_path: Path) -> None:
    """A guest can write the header of an image to its raw disk, and would so read the examiner's files."""
    (tmp_path / "secret").write_bytes(b"s" * MIB)
    inner = overlay(tmp_path, "base.raw", "secret", "raw")
    disk, problems = opened(overlay(tmp_path, "top.qcow2", "base.raw", "raw"))
    assert problems == []
    assert disk.read_at(0, 1000) == inner.read_bytes()[:1000]


@pytest.mark.parametrize("backing", ["../secret.qcow2", "/etc/passwd", "json:{}", "nbd://host/x", "link.qcow2", ".."])
def test_backing_files_elsewhere_are_not_opened(tmp_path: Path, backing: str) -> None:
    folder = tmp_path / "evidence"
    folder.mkdir()
    unpack(tmp_path, "base.qcow2").rename(tmp_path / "secret.qcow2")
    (folder / "link.qcow2").symlink_to(tmp_path / "secret.qcow2")
    path = folder / "top.qcow2"
    run("qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", "x" * len(backing), "-F", "qcow2", path, "4M")
    path.write_bytes(path.read_bytes().replace(b"x" * len(backing), backing.encode()))
    disk, problems = opened(path)
    assert problems == [f"the image below, {backing!r}, is missing"]
    with pytest.raises(DamagedData):
        disk.read_at(0, 1)


def test_a_backing_file_that_was_moved_beside_the_image(tmp_path: Path) -> None:
    unpack(tmp_path, "base.qcow2")
    disk, problems = opened(overlay(tmp_path, "top.qcow2", "/var/lib/libvirt/images/base.qcow2"))
    assert problems == []
    assert disk.read_at(0, SIZE) == content()


def test_a_backing_file_of_another_format(tmp_path: Path) -> None:
    unpack(tmp_path, "dynamic.vdi")
    assert opened(overlay(tmp_path, "top.qcow2", "dynamic.vdi", "vdi"))[0].read_at(0, SIZE) == content()


def test_a_backing_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "base.qcow2").write_bytes(b"QFI\xfb\0\0\0\x09" + bytes(200))
    (tmp_path / "empty").write_bytes(b"")
    _, problems = opened(overlay(tmp_path, "top.qcow2", "base.qcow2"))
    assert problems == [
        "the image below, 'base.qcow2', cannot be read: QCOW2 version 9 is unknown; versions 2 and 3 are read"
    ]
    _, problems = opened(overlay(tmp_path, "top.qcow2", "empty"))
    assert problems == ["the image below, 'empty', is empty"]


def test_a_snapshot_of_vmware(tmp_path: Path) -> None:
    pytest.importorskip("pyvmdk")
    disk, problems = opened(unpack(tmp_path, "snapshot.vmdk", "monolithicSparse.vmdk"))
    expected = bytearray(content())
    expected[65_000:66_000] = b"\x65" * 1000
    assert problems == []
    assert disk.read_at(0, SIZE) == expected
    parent = tmp_path / "monolithicSparse.vmdk"
    data = parent.read_bytes()
    start = data.index(b"CID=") + 4
    parent.write_bytes(data[:start] + b"01234567" + data[start + 8 :])
    _, problems = opened(tmp_path / "snapshot.vmdk")
    assert problems == ["the parent 'monolithicSparse.vmdk' was written to after this snapshot was taken"]
    parent.write_bytes(stored("mbr.img"))
    _, problems = opened(tmp_path / "snapshot.vmdk")
    assert problems == ["the image below, 'monolithicSparse.vmdk', is no image of the same format"]


def test_a_differencing_vdi_finds_its_parent_by_uuid(tmp_path: Path) -> None:
    parent = Vdi(FileSource(unpack(tmp_path, "dynamic.vdi", "static.vdi")))
    image = bytearray(stored("dynamic.vdi"))
    image[0x4C] = 4
    image[0x1A8:0x1B8] = image[0x188:0x198]
    image[0x188:0x198] = bytes(range(16))
    place = int.from_bytes(image[0x154:0x158], "little")
    image[place : place + 16] = b"\xff" * 16
    (tmp_path / "diff.vdi").write_bytes(image)
    disk, problems = opened(tmp_path / "diff.vdi")
    assert problems == []
    assert disk.read_at(0, SIZE) == content()
    (tmp_path / "dynamic.vdi").unlink()
    _, problems = opened(tmp_path / "diff.vdi")
    assert problems == [f"the parent image {parent.uuid} is missing"]


def test_a_differencing_vhd_finds_its_parent_by_name(tmp_path: Path) -> None:
    parent, _ = opened(unpack(tmp_path, "dynamic.vhd"))
    image = bytearray(stored("dynamic.vhd"))
    for place in (0, len(image) - 512):
        image[place + 60 : place + 64] = (4).to_bytes(4, "big")
        total = ~(sum(image[place : place + 512]) - sum(image[place + 64 : place + 68])) & 0xFFFF_FFFF
        image[place + 64 : place + 68] = total.to_bytes(4, "big")
    image[512 + 40 : 512 + 56] = image[68:84]
    name = "C:\\vm\\dynamic.vhd".encode("utf-16-be")
    image[512 + 64 : 512 + 64 + len(name)] = name
    image[1536:1544] = b"\xff" * 8
    (tmp_path / "diff.vhd").write_bytes(image)
    disk, problems = opened(tmp_path / "diff.vhd")
    assert problems == []
    assert disk.read_at(0, SIZE) == parent.read_at(0, SIZE) == content()
    shutil.copy(unpack(tmp_path, "fixed.vhd"), tmp_path / "dynamic.vhd")
    _, problems = opened(tmp_path / "diff.vhd")
    assert problems == ["'C:\\\\vm\\\\dynamic.vhd' is another image than the parent"]


# --- real disks -------------------------------------------------------------------------------------------------------


def test_a_partitioned_disk_in_every_format_of_qemu(tmp_path: Path) -> None:
    raw = raw_file(tmp_path, stored("gpt.img"))
    kinds = [("qcow2", "-c"), ("qcow2",), ("vdi",), ("vpc", "-o", "force_size=on"), ("vmdk",), ("vhdx",)]
    expected = [
        (volume.index, volume.offset, volume.size, volume.name) for volume in find_volumes(opened(raw)[0], ProblemLog())
    ]
    assert len(expected) == 3
    for number, (kind, *options) in enumerate(kinds):
        if kind in ("vmdk", "vhdx"):
            pytest.importorskip({"vmdk": "pyvmdk", "vhdx": "pyvhdi"}[kind])
        disk, problems = opened(convert(raw, tmp_path / f"disk{number}", kind, *options))
        assert problems == []
        volumes = find_volumes(disk, ProblemLog())
        assert [(volume.index, volume.offset, volume.size, volume.name) for volume in volumes] == expected


# --- siblings and cache -----------------------------------------------------------------------------------------------


def test_siblings_of_what_is_no_file() -> None:
    siblings = Siblings(BytesSource(b"", Origin("disk.vmdk")))
    assert siblings.names() == ()
    assert siblings.open("disk-flat.vmdk") is None
    assert siblings.name == "disk.vmdk"


@pytest.mark.parametrize("name", ["", ".", "..", "/", "a\0b", "x" * 5000, "folder"])
def test_names_that_no_sibling_can_have(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "disk").write_bytes(b"")
    assert Siblings(FileSource(tmp_path / "disk")).open(name) is None


def test_a_folder_that_is_a_link_itself(tmp_path: Path) -> None:
    (tmp_path / "real" / "sub").mkdir(parents=True)
    (tmp_path / "real" / "disk").write_bytes(b"")
    (tmp_path / "real" / "sub" / "x").write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    found = Siblings(FileSource(tmp_path / "link" / "disk")).open("sub/x")
    assert found is not None
    assert str(found.origin) == "sub/x"


def test_the_cache_keeps_what_was_used_last() -> None:
    cache: Cache[int, bytes] = Cache(10)
    for key in range(3):
        cache.put(key, b"1234")
    assert [cache.get(key) for key in range(3)] == [None, b"1234", b"1234"]
    cache.get(1)
    cache.put(3, b"1234")
    assert [cache.get(key) is None for key in range(4)] == [True, False, True, False]
    cache.put(4, b"x" * 100)
    assert [cache.get(key) is None for key in range(5)] == [True, True, True, True, False]
    for key in itertools.repeat(5, 20):
        cache.put(key, b"1234")
    cache.put(6, b"1234")
    assert cache.get(5) == b"1234"
    assert pickle.loads(pickle.dumps(cache)).get(6) is None
