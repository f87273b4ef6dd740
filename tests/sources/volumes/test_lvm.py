"""Logical volumes against LVM, which made them, and groups described by hand."""

from __future__ import annotations

import contextlib
import json
import re
import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forensics_lib.errors import DamagedData, ForensicsError, LimitExceeded
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.sources.base import BytesSource, Source
from forensics_lib.sources.volumes import Volume, VolumeKind, find_volumes, sniff_filesystem
from forensics_lib.sources.volumes.lvm_group import StripedSource
from forensics_lib.sources.volumes.lvm_text import Section, parse
from tests.diskmaker import DISKS, MIB, fixture, noise, numbered, stored

EXTENT = 256 << 10
STRIPE = 64 << 10
PV = {name: stored(name) for name in ("pv0.img", "pv1.img")}


def found(*disks: Source) -> tuple[dict[str, Volume], list[str]]:
    problems = ProblemLog()
    volumes = find_volumes(disks, problems)
    logical = {volume.name: volume for volume in volumes if volume.kind is VolumeKind.LVM}
    return logical, [problem.message for problem in problems.rows]


def extents(name: str, first: int, last: int) -> bytes:
    """What lies in physical extents, the last included."""
    return PV[name][MIB + first * EXTENT : MIB + (last + 1) * EXTENT]


def as_lvs_says() -> dict[str, bytes]:
    """The volumes put together from what ``lvs`` said of their extents."""
    parts: dict[str, list[tuple[int, bytes]]] = {}
    for line in stored("lvs.txt").decode().splitlines():
        name, kind, start, *ranges, _ = line.split()
        pieces = []
        for place in ranges:
            match = re.fullmatch(r"(.+):(\d+)-(\d+)", place)
            assert match
            pieces.append(extents(match[1], int(match[2]), int(match[3])))
        if kind == "striped":
            rows = zip(
                *([piece[at : at + STRIPE] for at in range(0, len(piece), STRIPE)] for piece in pieces), strict=True
            )
            pieces = [stripe for row in rows for stripe in row]
        parts.setdefault(name, []).append((int(start), b"".join(pieces)))
    return {f"forensic/{name}": b"".join(data for _, data in sorted(pieces)) for name, pieces in parts.items()}


# --- groups that LVM made ---------------------------------------------------------------------------------------------


def test_linear_and_striped_volumes_over_two_disks() -> None:
    volumes, problems = found(fixture("pv0.img"), fixture("pv1.img"))
    expected = as_lvs_says()
    assert problems == []
    assert {name: volume.type for name, volume in volumes.items()} == {
        "forensic/root": "linear",
        "forensic/striped": "striped",
        "forensic/home": "linear",
    }
    assert [volume.index for volume in volumes.values()] == [1, 2, 3]
    for name, volume in volumes.items():
        assert volume.size == volume.source.size == len(expected[name])
        assert volume.source.read_at(0, volume.size) == expected[name]
        assert volume.uuid in stored("lvs.txt").decode()
        assert volume.offset is None
        for place in range(0, volume.size, 60_000):
            assert volume.source.read_at(place, 70_001) == expected[name][place : place + 70_001]
    assert len(expected["forensic/root"]) == 16 * EXTENT
    assert noise("pv1.img 12", 16) in expected["forensic/root"]
    assert str(volumes["forensic/root"].origin) == "pv0.img > LVM group forensic > root"


def test_the_order_of_disks_does_not_matter() -> None:
    volumes, _ = found(fixture("pv1.img"), fixture("pv0.img"))
    assert volumes["forensic/root"].source.read_at(0, 1 << 30) == as_lvs_says()["forensic/root"]


def test_the_physical_volumes_are_listed_too() -> None:
    volumes = find_volumes([fixture("pv0.img"), fixture("pv1.img")], ProblemLog())
    assert [(volume.kind, sniff_filesystem(volume.source)) for volume in volumes[:2]] == [
        (VolumeKind.DISK, "LVM2_member")
    ] * 2


def test_physical_volumes_in_partitions() -> None:
    disk = bytearray(MIB) + PV["pv0.img"] + PV["pv1.img"]
    for number, start in enumerate((MIB, MIB + len(PV["pv0.img"]))):
        struct.pack_into("<BxxxBxxxII", disk, 446 + 16 * number, 0, 0x8E, start // 512, len(PV["pv0.img"]) // 512)
    disk[510:512] = b"\x55\xaa"
    volumes, problems = found(BytesSource(bytes(disk), Origin("disk.raw")))
    assert problems == []
    assert volumes["forensic/striped"].source.read_at(0, 1 << 30) == as_lvs_says()["forensic/striped"]


@pytest.mark.parametrize(("present", "lost"), [("pv0.img", "forensic/home"), ("pv1.img", None)])
def test_a_missing_physical_volume(present: str, lost: str | None) -> None:
    volumes, problems = found(fixture(present))
    expected = as_lvs_says()
    assert len(problems) == 1
    assert re.fullmatch(r"physical volume \S{38} \(it was /dev/loop\d+\) is missing", problems[0])
    root, border = volumes["forensic/root"].source, 7 * EXTENT
    there = 0 if present == "pv0.img" else border
    assert root.read_at(there, 1000) == expected["forensic/root"][there : there + 1000]
    with pytest.raises(DamagedData, match="which is missing"):
        root.read_at(border - 1, 2)
    striped = volumes["forensic/striped"].source
    good = 0 if present == "pv0.img" else STRIPE
    assert striped.read_at(good, STRIPE) == expected["forensic/striped"][good : good + STRIPE]
    with pytest.raises(DamagedData):
        striped.read_at(0, 2 * STRIPE)
    if lost is not None:
        with pytest.raises(DamagedData, match="these bytes lie on physical volume"):
            volumes[lost].source.read_at(0, 1)


def damaged(name: str, *places: int) -> Source:
    data = bytearray(PV[name])
    for place in places:
        data[place] ^= 0xFF
    return BytesSource(bytes(data), Origin(name))


def text_place(name: str) -> int:
    return int(4096 + struct.unpack_from("<Q", PV[name], 4096 + 40)[0])


def test_metadata_of_another_member_stands_in() -> None:
    volumes, problems = found(damaged("pv0.img", text_place("pv0.img") + 20), fixture("pv1.img"))
    assert problems == ["checksum of the LVM metadata is wrong"]
    assert volumes["forensic/root"].source.read_at(0, 1 << 30) == as_lvs_says()["forensic/root"]


def test_older_metadata_gives_way_to_newer() -> None:
    old = bytearray(PV["pv0.img"])
    place = text_place("pv0.img")
    length, _ = struct.unpack_from("<QI", old, 4096 + 48)
    text = bytes(old[place : place + length])
    new = re.sub(rb"seqno = (\d)", b"seqno = 1", text, count=1).replace(b"root {", b"boot {")
    assert len(new) == length
    old[place : place + length] = new
    seal(old)
    volumes, problems = found(BytesSource(bytes(old), Origin("pv0.img")), fixture("pv1.img"))
    assert problems == []
    assert "forensic/root" in volumes


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ((512 + 40,), "checksum of the label of an LVM physical volume is wrong"),
        ((4096 + 4,), "the header of the LVM metadata is damaged"),
        ((4096 + 30,), "the header of the LVM metadata is damaged"),
    ],
)
def test_damaged_labels_and_headers(places: tuple[int, ...], message: str) -> None:
    _, problems = found(damaged("pv0.img", *places), fixture("pv1.img"))
    assert message in problems


# --- RAID, mirrors and caches that LVM made ---------------------------------------------------------------------------

RAID = stored("lvm-raid.img")
SIZES: dict[str, int] = json.loads((DISKS / "arrays.json").read_text())["lvm-raid"]["sizes"]
READ = list(SIZES)


def test_raid_has_the_bytes_that_the_kernel_wrote() -> None:
    volumes, problems = found(BytesSource(RAID, Origin("disk")))
    for name in READ:
        source = volumes[f"vg/{name}"].source
        assert source.read_at(0, source.size) == numbered(SIZES[name])
    assert problems == []
    assert list(volumes) == [f"vg/{name}" for name in (*READ, "snap")]
    assert (volumes["vg/snap"].type, volumes["vg/thin"].type) == ("snapshot", "thin")


@pytest.mark.parametrize("missing", [0, 1, 2, 3])
def test_raid_stands_in_for_a_physical_volume(missing: int) -> None:
    label = MIB * (1 + 32 * missing)
    data = RAID[:label] + bytes(MIB) + RAID[label + MIB :]
    volumes, problems = found(BytesSource(data, Origin("disk")))
    assert any(re.fullmatch(r"physical volume \S{38} \(it was \S+\) is missing", text) for text in problems)
    for name in ("raid1", "mirror", "raid4", "raid5", "raid5ra", "raid10"):
        source = volumes[f"vg/{name}"].source
        assert source.read_at(0, source.size) == numbered(SIZES[name])
    with pytest.raises(DamagedData) if missing < 3 else contextlib.nullcontext():  # it lies on three of them
        volumes["vg/raid0"].source.read_at(0, 1 << 20)


def test_an_image_that_was_left_behind() -> None:
    """The metadata of each image of a RAID tell which of them failed."""
    disk = bytearray(RAID)
    places = [match.start() for match in re.finditer(rb"DmRd", RAID)]
    assert len(places) >= 10
    for place in places:
        devices, number = struct.unpack_from("<II", disk, place + 8)
        if (devices, number) == (3, 1):
            struct.pack_into("<Q", disk, place + 16, 0)  # older
        elif devices == 3:
            struct.pack_into("<Q", disk, place + 16, 50)
    volumes, problems = found(BytesSource(bytes(disk), Origin("disk")))
    source = volumes["vg/raid5"].source
    assert source.read_at(0, source.size) == numbered(SIZES["raid5"])
    assert "its image raid5_rimage_1 is not in sync, and not used" in problems


# --- groups described by hand -----------------------------------------------------------------------------------------


def crc(data: bytes) -> int:
    return zlib.crc32(data, 0xF597A6CF ^ 0xFFFFFFFF) ^ 0xFFFFFFFF


def seal(disk: bytearray) -> None:
    """Make the checksums of the metadata right."""
    start, length = struct.unpack_from("<QQ", disk, 4096 + 40)
    size = struct.unpack_from("<Q", disk, 4096 + 32)[0]
    text = (bytes(disk[4096 + start : 4096 + size]) + bytes(disk[4096 + 512 :]))[:length]
    struct.pack_into("<I", disk, 4096 + 56, crc(text))
    struct.pack_into("<I", disk, 4096, crc(bytes(disk[4100 : 4096 + 512])))


def physical(text: str, *, name: str = "a" * 32, start: int = 512, size: int = 2 * MIB) -> bytearray:
    """A physical volume with the given metadata; its extents of 4 KiB begin at 128 KiB and hold their numbers."""
    disk = bytearray(size)
    areas = struct.pack("<32sQQQQQQQQQ", name.encode(), size, 128 << 10, 0, 0, 0, 4096, 64 << 10, 0, 0)
    label = struct.pack("<8sQII8s", b"LABELONE", 1, 0, 32, b"LVM2 001") + areas
    disk[512:1024] = label.ljust(512, b"\0")
    struct.pack_into("<I", disk, 512 + 16, crc(bytes(disk[532:1024])))
    data = text.encode()
    first = data[: (64 << 10) - start]
    disk[4096 + start : 4096 + start + len(first)] = first
    rest = data[len(first) :]
    disk[4096 + 512 : 4096 + 512 + len(rest)] = rest
    struct.pack_into("<I16sIQQ", disk, 4096, 0, b" LVM2 x[5A%r0N*>", 1, 4096, 64 << 10)
    struct.pack_into("<QQII", disk, 4096 + 40, start, len(data), 0, 0)
    for extent in range(100):
        disk[(128 << 10) + extent * 4096 : (128 << 10) + (extent + 1) * 4096] = bytes([extent]) * 4096
    seal(disk)
    return disk


GROUP = """# made by hand
vg {{
id = "vgid"
seqno = 3
extent_size = 8	# 4 Kilobytes
physical_volumes {{ pv0 {{ id = "{uuid}" device = "/dev/\\"sda\\"" pe_start = 256 pe_count = 100 }} }}
logical_volumes {{
{volumes}
}}
}}
contents = "Text Format Volume Group"
version = 1
"""
UUID = "aaaaaa-aaaa-aaaa-aaaa-aaaa-aaaa-aaaaaa"


def group(volumes: str, uuid: str = UUID) -> str:
    return GROUP.format(volumes=volumes, uuid=uuid)


def volume(name: str, *segments: str, status: str = '"READ", "WRITE", "VISIBLE"') -> str:
    parts = "\n".join(f"segment{number} {{ {text} }}" for number, text in enumerate(segments, 1))
    return f'{name} {{ id = "{name}-id" status = [{status}] segment_count = {len(segments)}\n{parts} }}'


def linear(start: int, count: int, at: int, pv: str = "pv0") -> str:
    return f'start_extent = {start} extent_count = {count} type = "striped" stripe_count = 1 stripes = ["{pv}", {at}]'


def by_hand(*volumes: str) -> tuple[dict[str, Volume], list[str]]:
    return found(BytesSource(bytes(physical(group("\n".join(volumes)))), Origin("pv")))


def test_segments_in_any_order_and_hidden_volumes() -> None:
    volumes, problems = by_hand(
        volume("data", linear(2, 1, 9), linear(0, 2, 4)), volume("hidden", linear(0, 1, 1), status='"READ"')
    )
    assert problems == []
    assert list(volumes) == ["vg/data"]
    assert volumes["vg/data"].source.read_at(0, 1 << 20) == b"\4" * 4096 + b"\5" * 4096 + b"\t" * 4096


@pytest.mark.parametrize("start", [512, 60_000, (64 << 10) - 10])
def test_metadata_runs_around_its_ring(start: int) -> None:
    disk = physical(group(volume("data", linear(0, 1, 7))), start=start)
    volumes, problems = found(BytesSource(bytes(disk), Origin("pv")))
    assert problems == []
    assert volumes["vg/data"].source.read_at(0, 10) == b"\7" * 10


@pytest.mark.parametrize("kind", ["vdo", "error", ""])
def test_types_that_are_not_read_are_listed_and_named(kind: str) -> None:
    segment = f'start_extent = 0 extent_count = 5 type = "{kind}"'
    volumes, problems = by_hand(volume("data", segment), volume("other", linear(0, 1, 3)))
    assert volumes["vg/data"].size == 5 * 4096
    assert volumes["vg/data"].type == kind
    assert problems == [f"logical volumes of the type {kind!r} are not read"]
    with pytest.raises(DamagedData, match="are not read"):
        volumes["vg/data"].source.read_at(0, 1)
    assert volumes["vg/other"].source.read_at(0, 1) == b"\3"


def test_the_disk_of_a_virtual_machine_is_a_logical_volume() -> None:
    disk = physical(group(volume("vm-100", linear(0, 40, 1))))
    table = bytearray(512)
    struct.pack_into("<BxxxBxxxII", table, 446, 0, 0x83, 64, 128)
    table[510:512] = b"\x55\xaa"
    start = (128 << 10) + 4096
    disk[start : start + 512] = table
    disk[start + 64 * 512 : start + 64 * 512 + 4] = b"XFSB"
    volumes = find_volumes(BytesSource(bytes(disk), Origin("pv")), ProblemLog())
    assert [(one.kind, one.title) for one in volumes] == [
        (VolumeKind.DISK, ""),
        (VolumeKind.MBR, "vg/vm-100 partition 1"),
    ]
    assert sniff_filesystem(volumes[1].source) == "xfs"


def test_the_store_of_a_snapshot_is_not_its_content() -> None:
    snapshot = 'start_extent = 0 extent_count = 2 type = "snapshot" chunk_size = 8 origin = "data" cow_store = "snap"'
    volumes, problems = by_hand(
        volume("data", linear(0, 2, 1)),
        volume("snap", linear(0, 1, 5)),
        volume("snapshot0", snapshot, status='"READ"'),
    )
    assert volumes["vg/data"].source.read_at(0, 1) == b"\1"
    assert volumes["vg/snap"].type == "snapshot"
    assert problems == ["this snapshot is not read: the store of the snapshot has no header"]


@pytest.mark.parametrize(
    ("segment", "reason"),
    [
        ('type = "raid1"', "it has 0 images"),
        ('type = "raid1" raids = ["m0", "i0", "m1", "i1"]', "none of its images can be used"),
        ('type = "mirror" mirrors = ["data", 0]', "none of its images can be used"),
        ('type = "raid5" raids = ["m0", "other"]', "it has no size of stripes"),
        ('type = "raid5" stripe_size = 8 raids = ["m0", "other"]', "level 5 is impossible with 1 devices"),
        ('type = "raid10" stripe_size = 8 raids = ["m0", "i0"]', "none of its images can be used"),
        ('type = "raid10" stripe_size = 8 raids = ["m0", "i0", "m1", "other"]', "its images hold 4096 bytes"),
        ('type = "raid0" stripe_size = 8 raid0_lvs = ["other"]', "its images hold 4096 bytes, it has 8192"),
        ('type = "raid1" reshape_count = 1 raids = ["m0", "i0"]', "it was being reshaped"),
    ],
)
def test_raid_that_contradicts_itself(segment: str, reason: str) -> None:
    segment = f"start_extent = 0 extent_count = 2 {segment}"
    volumes, problems = by_hand(volume("data", segment), volume("other", linear(0, 1, 3)))
    assert f"a segment of the type {segment.split(chr(34))[1]!r} is not read: {reason}" in ", ".join(problems)
    with pytest.raises(DamagedData, match="is not read"):
        volumes["vg/data"].source.read_at(0, 1)
    assert volumes["vg/other"].source.read_at(0, 1) == b"\3"


def test_what_lies_behind_a_cache() -> None:
    cached = 'start_extent = 0 extent_count = 2 type = "{}" cache_pool = "fast" origin = "slow"'
    pool = 'start_extent = 0 extent_count = 1 type = "cache-pool" cache_mode = "{}"'
    hidden = volume("slow", linear(0, 2, 4), status='"READ"')
    for kind, mode, expected in (
        ("cache", "writethrough", []),
        ("cache", "writeback", ["a cache may hold changes of this volume that are not read"]),
        ("writecache", "", ["a writecache may hold changes of this volume that are not read"]),
    ):
        fast = volume("fast", pool.format(mode), status='"READ"')
        volumes, problems = by_hand(volume("data", cached.format(kind)), fast, hidden)
        assert volumes["vg/data"].source.read_at(0, 1 << 20) == b"\4" * 4096 + b"\5" * 4096
        assert problems == expected
    volumes, problems = by_hand(volume("data", cached.format("cache").replace("slow", "data")))
    assert "'data' is made of itself" in problems


@pytest.mark.parametrize(
    ("segments", "message"),
    [
        ((linear(0, 2, 1), linear(1, 2, 5)), "its segments overlap"),
        ((linear(0, 1, 1), linear(3, 1, 5)), "a segment is missing"),
        ((linear(0, 1, 1, "pv7"),), "a segment lies on 'pv7', which is no physical volume of the group"),
        ((linear(0, 1, 600),), f"a segment ends behind the end of physical volume {UUID}"),
        (('start_extent = 0 extent_count = 1 type = "striped" stripes = []',), "has no stripes"),
        (
            ('start_extent = 0 extent_count = 3 type = "striped" stripe_size = 8 stripes = ["pv0", 1, "pv0", 9]',),
            "stripes",
        ),
        (('start_extent = 0 extent_count = 2 type = "striped" stripes = ["pv0", 1, "pv0", 9]',), "has no stripes"),
    ],
)
def test_segments_that_make_no_sense(segments: tuple[str, ...], message: str) -> None:
    volumes, problems = by_hand(volume("data", *segments))
    assert any(message in problem for problem in problems)
    with pytest.raises(DamagedData):
        b"".join(volumes["vg/data"].source.blocks())


def test_a_group_without_an_extent_size() -> None:
    disk = physical(group("").replace("extent_size = 8", "extent_size = 0"))
    volumes, problems = found(BytesSource(bytes(disk), Origin("pv")))
    assert volumes == {}
    assert problems == ["the LVM group declares no extent size"]


def test_a_physical_volume_of_no_group() -> None:
    disk = physical("")
    assert found(BytesSource(bytes(disk), Origin("pv"))) == ({}, [])


# --- text -------------------------------------------------------------------------------------------------------------


def test_the_text() -> None:
    section = parse(group(volume("data", linear(0, 1, 7))))
    vg = section.section("vg")
    assert (vg.text("id"), vg.number("seqno"), section.text("contents")) == ("vgid", 3, "Text Format Volume Group")
    assert vg.section("physical_volumes").section("pv0").text("device") == '/dev/"sda"'
    data = vg.section("logical_volumes").section("data")
    assert data.list("status") == ["READ", "WRITE", "VISIBLE"]
    assert data.section("segment1").list("stripes") == ["pv0", 7]
    assert parse('a = 1.5 b = -3 c = [] d = "x#y\\\\" # e = 5\n').values == {"a": 1.5, "b": -3, "c": [], "d": "x#y\\"}
    assert parse("a = -3").number("a") == parse("a = 'b'".replace("'", '"')).number("a") == 0
    assert (section.section("none").values, section.text("none"), section.list("version")) == ({}, "", [])


@pytest.mark.parametrize(
    "text", ["a", "a {", "a = ", "a = [1", "a = b", "= 3", "a } b", "a = {", "}", "a = 1e5x", "ä = 1", 'a = "x']
)
def test_text_that_contradicts_the_grammar(text: str) -> None:
    with pytest.raises(DamagedData):
        parse(text)


def test_sections_too_deep() -> None:
    with pytest.raises(LimitExceeded):
        parse("a {" * 100 + "}" * 100)


@given(st.text(alphabet='ab1{}[]=,"# \n\\.-', max_size=60))
def test_any_text_is_parsed_or_damage(text: str) -> None:
    try:
        assert isinstance(parse(text), Section)
    except DamagedData:
        assert text.strip()


# --- striped sources --------------------------------------------------------------------------------------------------


@given(st.integers(1, 5), st.integers(1, 9), st.integers(1, 4), st.integers(0, 200), st.integers(-1, 200))
def test_stripes_take_turns(count: int, width: int, rows: int, offset: int, length: int) -> None:
    parts = [bytes([65 + number]) * (width * rows) for number in range(count)]
    source = StripedSource([BytesSource(part, Origin("part")) for part in parts], width, Origin("whole"))
    whole = b"".join(bytes([65 + number]) * width for _ in range(rows) for number in range(count))
    assert source.size == len(whole)
    assert source.read_at(offset, length) == whole[offset : offset + max(0, length)]


SMALL = bytes(physical(group(volume("data", linear(0, 2, 4), linear(2, 1, 9))), size=512 << 10))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_damage_gives_volumes(draws: st.DataObject) -> None:
    disk = bytearray(SMALL[: draws.draw(st.integers(0, len(SMALL)))])
    for _ in range(draws.draw(st.integers(0, 5))):
        if disk:
            places = st.one_of(st.integers(512, 640), st.integers(4096, 4160), st.integers(4608, 5400))
            disk[draws.draw(places) % len(disk)] = draws.draw(st.integers(0, 255))
    if len(disk) > 70_000 and draws.draw(st.booleans()):
        start, length = struct.unpack_from("<QQ", disk, 4096 + 40)
        if start < len(disk) and length < len(disk):
            seal(disk)
    volumes, _ = found(BytesSource(bytes(disk), Origin("fuzz")))
    for one in volumes.values():
        try:
            one.source.read_at(0, 100_000)
        except ForensicsError:
            continue
