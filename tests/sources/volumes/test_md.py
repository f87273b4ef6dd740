"""Linux' software RAID against the kernel and mdadm, which made the arrays."""

from __future__ import annotations

import contextlib
import json
import re
import struct
from collections.abc import Iterator
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import forensics_lib as fl
from forensics_lib.errors import DamagedData, ForensicsError, UnsupportedFormat
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.sources.base import BytesSource, Source
from forensics_lib.sources.joined import MissingSource
from forensics_lib.sources.volumes import Volume, VolumeKind, find_volumes, read_superblock, sniff_filesystem
from forensics_lib.sources.volumes.md import MdMember
from forensics_lib.sources.volumes.md_array import arrays
from forensics_lib.sources.volumes.md_layout import MirroredSource, MirroredStripes, ParityStripes, Stripes
from tests.diskmaker import DISKS, MIB, assert_same, numbered, stored

MADE: dict[str, Any] = json.loads((DISKS / "arrays.json").read_text())
ARRAYS = sorted(name for name in MADE if name.startswith("md-"))
SPARES = dict.fromkeys(ARRAYS, 0) | {"md-raid4": 1, "md-raid10-n2": 1, "md-raid10-f2": 1, "md-raid10-o2": 1}
SPARES |= {name: 1 for name in ARRAYS if name.startswith(("md-raid1-", "md-raid5", "md-raid6"))}
"""How many members can be missing."""


@cache
def members(name: str) -> tuple[bytes, ...]:
    """The partitions of a disk, which are the members of its array."""
    disk = BytesSource(stored(f"{name}.img"), Origin(name))
    parts = (part for part in find_volumes(disk, ProblemLog()) if part.kind is VolumeKind.GPT)
    return tuple(part.source.read_at(0, part.size) for part in parts)


def exported(lines: list[str]) -> dict[str, str]:
    return dict(line.split("=", 1) for line in lines)


def disk(data: bytes, name: str = "x") -> BytesSource:
    return BytesSource(data, Origin(name))


def found(*parts: bytes) -> tuple[list[Volume], list[str]]:
    problems = ProblemLog()
    volumes = find_volumes([disk(part, f"disk{index}") for index, part in enumerate(parts)], problems)
    return [one for one in volumes if one.kind is VolumeKind.MD], [row.message for row in problems.rows]


# --- arrays that the kernel made --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ARRAYS)
def test_superblocks_say_what_mdadm_says(name: str) -> None:
    array = exported(MADE[name]["detail"])
    for number, (data, lines) in enumerate(zip(members(name), MADE[name]["members"], strict=True), 1):
        said = exported(lines)
        member = MdMember.read(disk(data))
        assert member is not None
        assert member.is_sound
        assert member.uuid.replace("-", "") == said["MD_UUID"].replace(":", "")
        assert (member.version, member.kind) == (array["MD_METADATA"], said["MD_LEVEL"])
        assert (member.devices, str(member.events)) == (int(said["MD_DEVICES"]), said["MD_EVENTS"])
        assert member.name == said.get("MD_NAME", "")
        role = array[f"MD_DEVICE_dev_loop0p{number}_ROLE"]
        assert role in ("spare", str(member.role))
        superblock = read_superblock(disk(data))
        assert superblock is not None
        assert (superblock.type, superblock.uuid) == ("linux_raid_member", member.uuid)


@pytest.mark.parametrize("name", [name for name in ARRAYS if name not in ("md-raid1-stale", "md-raid1-parts")])
def test_an_array_has_the_bytes_that_the_kernel_wrote(name: str) -> None:
    problems = ProblemLog()
    volumes = find_volumes(disk(stored(f"{name}.img"), name), problems)
    (array,) = (one for one in volumes if one.kind is VolumeKind.MD)
    said = exported(MADE[name]["detail"])
    assert (array.type, array.size) == (said["MD_LEVEL"], MADE[name]["size"])
    assert array.title == said.get("MD_NAME", array.uuid)
    assert_same(array.source, numbered(array.size), count=60)
    expected = ["it is a spare, faulty or journal device"] * (name == "md-raid1-1.2")
    assert [row.message.rpartition(": ")[2] for row in problems.rows] == expected


@pytest.mark.parametrize("name", [name for name in ARRAYS if name not in ("md-raid1-stale", "md-raid1-parts")])
def test_members_that_are_missing(name: str) -> None:
    parts = members(name)[:2] if name == "md-raid1-1.2" else members(name)
    for missing in range(len(parts)):
        volumes, problems = found(*reversed(parts[:missing] + parts[missing + 1 :]))
        if SPARES[name]:
            (array,) = volumes
            size = MADE[name]["size"]
            assert array.source.read_at(0, size) == numbered(size)
            expected = 0 if array.type == "raid1" else 1
            assert len([text for text in problems if f"device {missing} of the array" in text]) == expected
        elif "linear" in name and missing == len(parts) - 1:
            (array,) = volumes
            assert array.source.read_at(0, array.size) == numbered(MADE[name]["size"])[: array.size]
            assert f"device {missing} of the array" in problems[0]
        else:
            assert volumes == []
            assert re.search(r"of \d devices \(roles that are there: [\d, ]+\) is not read: .* missing", problems[-1])


@pytest.mark.parametrize("name", ["md-raid10-n2", "md-raid6-left-symmetric"])
def test_two_members_that_are_missing(name: str) -> None:
    parts = members(name)
    whole = numbered(MADE[name]["size"])
    opened = {}
    for pair in combinations(range(4), 2):
        volumes, _ = found(*(parts[role] for role in pair))
        opened[pair] = bool(volumes)
        assert all(one.source.read_at(0, one.size) == whole for one in volumes)
    pairs = {(0, 2), (0, 3), (1, 2), (1, 3)} if "raid10" in name else set()
    assert {pair for pair, is_open in opened.items() if is_open} == pairs


def test_a_member_that_was_left_behind() -> None:
    new, old = members("md-raid1-stale")
    for parts in ((new, old), (old, new), (new,)):
        (array,), problems = found(*parts)
        assert array.source.read_at(3 * 4096, 13) == b"written later"
        assert len(problems) == (len(parts) == 2)
        assert all("it is out of date" in text for text in problems)
    (array,), problems = found(old)  # nothing tells
    assert array.source.read_at(0, array.size) == numbered(array.size)


def test_partitions_of_an_array(tmp_path: Path) -> None:
    parts = members("md-raid1-parts")
    folder = tmp_path / "case"
    folder.mkdir()
    for number, data in enumerate(parts):
        (folder / f"disk{number}.img").write_bytes(data)
    with fl.open(folder) as ev:
        (filesystem,) = ev.filesystems
        assert (filesystem.name, filesystem.label) == ("disk0.img srv1:raid1-parts partition 1", "inmd")
        assert str(filesystem.origin).startswith("case/disk0.img > MD srv1:raid1-parts > partition 1 @1048576")
        assert [node.path for node in filesystem.tree.walk()] == ["/", "/lost+found"]
        assert [row.message for row in ev.problems] == [
            "srv1:raid1-parts partition 2 (type 0x83) of 1048576 bytes holds nothing that is recognised"
        ]
    with fl.open(folder / "disk1.img") as ev:
        (filesystem,) = ev.filesystems
        assert filesystem.name == "srv1:raid1-parts partition 1"


def test_partitions_of_an_array_whose_superblock_is_at_the_end() -> None:
    """The disk begins with the table of its array; it is the array that has the partitions."""
    inside = MdMember.read(disk(members("md-raid1-parts")[0]))
    assert inside is not None
    data = members("md-raid1-parts")[0][inside.data_offset :]
    member = bytearray(members("md-raid1-1.0")[0])
    assert len(data) <= len(member) - 8192
    member[: len(data)] = data
    volumes = find_volumes(disk(bytes(member)), ProblemLog())
    assert [(one.kind, one.index) for one in volumes] == [
        (VolumeKind.DISK, 0),
        (VolumeKind.MBR, 1),
        (VolumeKind.MBR, 2),
    ]


@pytest.mark.parametrize("name", ["md-raid1-1.0", "md-raid1-0.90"])
def test_a_last_partition_that_ends_where_the_disk_ends(name: str) -> None:
    part = members(name)[0]
    table = bytearray(MIB)
    struct.pack_into("<BxxxBxxxII", table, 446, 0, 0xFD, MIB // 512, len(part) // 512)
    table[510:512] = b"\x55\xaa"
    volumes = find_volumes(disk(bytes(table) + part), ProblemLog())
    assert [one.kind for one in volumes] == [VolumeKind.MBR, VolumeKind.MD]
    assert volumes[1].size == MADE[name]["size"]


def test_what_an_array_at_the_beginning_holds_is_not_taken_from_its_member() -> None:
    """A file system in level 0 begins on its first member, whose superblock is at the end."""
    first = bytearray(members("md-linear-0.90")[0])
    first[0:4] = b"XFSB"
    assert sniff_filesystem(disk(bytes(first))) == "linux_raid_member"
    (array,), _ = found(bytes(first))
    assert sniff_filesystem(array.source) == "xfs"


def test_a_physical_volume_over_a_former_member() -> None:
    for size, kind in ((6 * MIB, "LVM2_member"), (5 * MIB, "linux_raid_member")):
        data = bytearray(members("md-raid1-1.0")[0])
        data[512:1024] = struct.pack("<8sQII8s32sQ", b"LABELONE", 1, 0, 32, b"LVM2 001", b"u" * 32, size).ljust(
            512, b"\0"
        )
        assert sniff_filesystem(disk(bytes(data))) == kind


@pytest.mark.parametrize("name", ["md-raid1-1.0", "md-raid5-0.90"])
def test_a_file_system_over_a_former_member(name: str) -> None:
    """It is as large as the partition; what lies in an array ends before the superblock, or is larger than a member."""
    for blocks, kind in ((6 * 1024, "ext2"), (5 * 1024, "linux_raid_member"), (11 * 1024, "linux_raid_member")):
        data = bytearray(members(name)[0])
        data[1024:2048] = bytes(1024)
        struct.pack_into("<II", data, 1024, 100, blocks)
        data[1024 + 56 : 1024 + 58] = b"\x53\xef"
        assert sniff_filesystem(disk(bytes(data))) == kind
        volumes, problems = found(bytes(data))
        is_left_over = any("is left over: the ext2 there takes up its place" in text for text in problems)
        assert is_left_over == (kind == "ext2")
        assert len(volumes) == (kind != "ext2" and "raid1" in name)


def test_the_same_member_twice() -> None:
    first, second, third = members("md-raid0")
    (array,), (problem,) = found(first, second, third, second)
    assert array.source.read_at(0, array.size) == numbered(array.size)
    assert "disk1 has the same role" in problem


# --- damage -----------------------------------------------------------------------------------------------------------


def patched(data: bytes, offset: int, layout: str, *values: int, place: int = 4096, seal: bool = True) -> bytes:
    """A member with other values in its superblock of version 1."""
    changed = bytearray(data)
    struct.pack_into(layout, changed, place + offset, *values)
    if seal:
        count = 256 + 2 * min(int.from_bytes(changed[place + 220 : place + 224], "little"), 1920)
        changed[place + 216 : place + 220] = bytes(4)
        words = changed[place : place + count].ljust(-(-count // 4) * 4, b"\0")
        total = sum(word for (word,) in struct.iter_unpack("<I", words))
        struct.pack_into("<I", changed, place + 216, (total & 0xFFFFFFFF) + (total >> 32) & 0xFFFFFFFF)
    return bytes(changed)


def test_a_wrong_checksum() -> None:
    first, second = (patched(data, 192, "<Q", 1, seal=False) for data in members("md-raid1-1.2")[:2])
    (array,), problems = found(first, second)
    assert array.source.read_at(0, array.size) == numbered(array.size)
    assert len([text for text in problems if "checksum of a superblock" in text]) == 2
    parts = members("md-raid5-left-symmetric")
    (array,), problems = found(patched(parts[0], 88, "<I", 8, seal=False), *parts[1:])
    assert array.source.read_at(0, array.size) == numbered(array.size)
    assert "is not used: the checksum of its superblock is wrong" in problems[0]


NOT_READ: dict[str, tuple[str, tuple[int, str, int], str]] = {
    "reshape": ("md-raid5-left-symmetric", (8, "<I", 4), "it was being rebuilt or reshaped"),
    "level": ("md-raid1-1.2", (72, "<i", 77), "the array level 77 srv1:raid1-1.2"),
    "multipath": ("md-raid1-1.2", (72, "<i", -4), "is not read: its level"),
    "devices": ("md-raid0", (92, "<I", 1 << 20), "has 1048576 devices"),
    "chunk": ("md-raid0", (88, "<I", 0), "has chunks of 0 bytes"),
    "layout of level 10": ("md-raid10-n2", (76, "<I", 1 << 20 | 258), "the layout 0x100102 of level 10 is not read"),
    "copies": ("md-raid10-n2", (76, "<I", 0), "the layout 0x0 of level 10 is impossible"),
    "layout of level 5": ("md-raid5-left-symmetric", (76, "<I", 7), "the layout 7 of level 5 is not read"),
    "no layout of level 0": ("md-raid0-uneven", (8, "<I", 0), "do not tell how they take turns"),
}


@pytest.mark.parametrize("case", NOT_READ)
def test_what_is_not_read_is_named(case: str) -> None:
    name, change, message = NOT_READ[case]
    volumes, problems = found(*(patched(data, *change) for data in members(name)))
    assert volumes == []
    assert any(message in text for text in problems)


def test_data_that_end_behind_their_end() -> None:
    part = patched(members("md-raid1-1.2")[0], 80, "<Q", 100 * MIB // 512)
    (array,), (problem,) = found(part)
    assert "end behind its end" in problem
    assert array.source.read_at(0, 4096) == numbered(4096)
    with pytest.raises(DamagedData):
        array.source.read_at(50 * MIB, 1)


def test_a_mirror_stands_in_for_what_cannot_be_read() -> None:
    first, second = members("md-raid1-1.2")[:2]
    cut = disk(first[: 2 * MIB], "cut")  # as an image whose end is missing
    problems = ProblemLog()
    known = [MdMember.read(cut), MdMember.read(disk(second))]
    (array,) = arrays([one for one in known if one is not None], problems)
    assert array.source.read_at(0, array.size) == numbered(array.size)
    assert "end behind its end" in problems.rows[0].message


def test_layouts_with_nothing_to_read() -> None:
    gone = MissingSource(4096, Origin("x"), "gone")
    with pytest.raises(DamagedData, match="gone"):
        MirroredSource([gone, gone], Origin("x")).read_at(0, 1)
    with pytest.raises(DamagedData, match="gone"):
        ParityStripes([gone, gone, gone], 512, 5, 2, Origin("x")).read_at(0, 1)
    with pytest.raises(UnsupportedFormat):
        Stripes([disk(bytes(1024)), disk(bytes(2048))], 512, 0, Origin("x"))
    with pytest.raises(DamagedData, match="impossible with 1 devices"):
        ParityStripes([disk(bytes(1024))], 512, 5, 2, Origin("x"))
    assert Stripes([disk(b"")], 512, 0, Origin("x")).read_at(0, 10) == b""
    assert MirroredStripes([gone, disk(bytes(4096))], 512, 0x102, Origin("x")).read_at(0, 4096) == bytes(4096)


# --- any bytes --------------------------------------------------------------------------------------------------------

FIELDS = [(8, "<I"), (72, "<i"), (76, "<I"), (80, "<Q"), (88, "<I"), (92, "<I"), (128, "<Q"), (136, "<Q"), (160, "<I")]
FIELDS += [(200, "<Q"), (220, "<I"), (256, "<H"), (258, "<H")]
VALUES = st.sampled_from([0, 1, 2, 3, 7, 127, 128, 0x7FFF, 0xFFFE, 0x10102, 0x20102, 0x7FFFFFFF]) | st.integers(
    0, 2**31 - 1
)


@st.composite
def changed_members(draw: st.DrawFn) -> list[bytes]:
    name = draw(
        st.sampled_from(["md-raid1-1.2", "md-linear", "md-raid0-uneven", "md-raid10-f2", "md-raid6-left-symmetric"])
    )
    parts = list(members(name))
    changes = draw(st.lists(st.tuples(st.sampled_from(FIELDS), VALUES), min_size=1, max_size=3))
    everywhere = draw(st.booleans())
    for index, part in enumerate(parts):
        for (offset, layout), value in changes if everywhere or index == 0 else ():
            part = patched(part, offset, layout, value & 0x7FFF if layout == "<H" else value)
        parts[index] = part[: draw(st.integers(0, len(part)))] if draw(st.integers(0, 9)) == 0 else part
    return parts


def probes(source: Source) -> Iterator[int]:
    yield from (0, 65_530, source.size // 2, source.size - 5)


@settings(max_examples=60)
@given(changed_members())
def test_any_superblocks_make_an_array_or_a_problem(parts: list[bytes]) -> None:
    problems = ProblemLog()
    known = [MdMember.read(disk(part)) for part in parts]
    volumes = list(arrays([one for one in known if one is not None], problems))
    assert volumes or problems.rows or not any(known)
    for volume in volumes:
        for place in probes(volume.source):
            with contextlib.suppress(ForensicsError):
                assert len(volume.source.read_at(max(place, 0), 100)) <= 100


@given(st.sampled_from(["md-raid1-0.90", "md-raid1-1.0", "md-raid1-1.1"]), st.data())
def test_any_damage_of_a_superblock(name: str, data: st.DataObject) -> None:
    part = bytearray(members(name)[0])
    member = MdMember.read(disk(bytes(part)))
    assert member is not None
    for _ in range(data.draw(st.integers(1, 4))):
        part[member.place + data.draw(st.integers(0, 600))] ^= data.draw(st.integers(1, 255))
    volumes, problems = found(bytes(part))
    assert volumes or problems or sniff_filesystem(disk(bytes(part))) != "linux_raid_member"
