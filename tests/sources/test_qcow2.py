"""QCOW2 images against the disk that is inside them, and against qemu-img."""

from __future__ import annotations

import itertools
import pickle
import random
import re
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forensics_lib.errors import DamagedData, ForensicsError, LimitExceeded, UnsupportedFormat
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.sources.base import BytesSource, Source
from forensics_lib.sources.disk import open_disk
from forensics_lib.sources.file import FileSource
from forensics_lib.sources.qcow2 import Qcow2
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

CLUSTER_KINDS = ("v2.qcow2", "zlib.qcow2", "zstd.qcow2", "subclusters.qcow2", "base.qcow2")


def chain() -> Qcow2:
    """Three images, each on top of the one before; the upper ones are larger."""
    return Qcow2(fixture("top.qcow2"), Qcow2(fixture("middle.qcow2"), Qcow2(fixture("base.qcow2"))))


def chained_content() -> bytes:
    """What the commands that made the chain say it shows."""
    disk = bytearray(content().ljust(5 * MIB, b"\0"))
    disk[65_000:66_000] = b"\x62" * 1000
    disk[3500 << 10 : (3500 << 10) + 1024] = b"\x63" * 1024
    disk[65_500:65_600] = b"\x64" * 100
    disk[MIB : MIB + 4096] = bytes(4096)
    return bytes(disk)


def patched(name: str, *patches: tuple[int, bytes]) -> BytesSource:
    data = bytearray(stored(name))
    for place, new in patches:
        data[place : place + len(new)] = new
    return BytesSource(bytes(data), Origin(name))


# --- the disk inside --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CLUSTER_KINDS)
def test_every_kind_of_cluster(name: str) -> None:
    disk = Qcow2(fixture(name))
    assert_same(disk, content(), border=disk.cluster_size)
    assert str(disk.origin) == f"{name} > qcow2"


def test_what_the_header_says() -> None:
    old, new = Qcow2(fixture("v2.qcow2")), Qcow2(fixture("zstd.qcow2"))
    assert (old.version, old.cluster_size, old.compression, old.size) == (2, 4096, "zlib", SIZE)
    assert (new.version, new.cluster_size, new.compression, new.size) == (3, 16_384, "zstd", SIZE)
    assert (new.backing_name, new.backing_format, new.dirty, new.corrupt) == (None, None, False, False)


OPTIONS = [
    ["-o", "compat=0.10,cluster_size=512"],
    ["-o", "compat=0.10"],
    ["-c", "-o", "compat=0.10"],
    ["-o", "cluster_size=2M"],
    ["-c", "-o", "cluster_size=2M"],
    ["-c", "-o", "cluster_size=512"],
    ["-c"],
    ["-c", "-o", "compression_type=zstd"],
    ["-c", "-o", "compression_type=zstd,cluster_size=1M"],
    ["-o", "extended_l2=on,cluster_size=2M"],
    ["-c", "-o", "extended_l2=on,cluster_size=32k"],
    ["-o", "preallocation=metadata"],
    ["-S", "0"],
]


@pytest.mark.parametrize("options", OPTIONS, ids=" ".join)
def test_images_of_qemu_img(tmp_path: Path, options: list[str]) -> None:
    disk = big_content()
    image = convert(raw_file(tmp_path, disk), tmp_path / "disk.qcow2", "qcow2", *options)
    opened = Qcow2(FileSource(image))
    assert_same(opened, disk, border=opened.cluster_size)


@pytest.mark.parametrize(
    "options", ["cluster_size=4k", "extended_l2=on,cluster_size=16k", "compat=0.10,cluster_size=1k"]
)
@pytest.mark.parametrize("seed", range(3))
def test_random_writes(tmp_path: Path, options: str, seed: int) -> None:
    """Writes, zeros and discards in random order, as a guest leaves them."""
    draw = random.Random(seed)
    image = tmp_path / "disk.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", options, image, str(4 * MIB))
    commands = []
    for number in range(120):
        place, length = draw.randrange(4 * MIB - 70_000), draw.randrange(1, 70_000)
        action = draw.choice((f"write -P {number + 1}", "write -z", "write -z -u", "discard"))
        commands += ["-c", f"{action} {place} {length}"]
    run("qemu-io", "-d", "unmap", *commands, image)
    raw = tmp_path / "disk.raw"
    run("qemu-img", "convert", "-O", "raw", image, raw)
    assert_same(Qcow2(FileSource(image)), raw.read_bytes(), border=4096)


def test_threads_do_not_disturb_each_other() -> None:
    disk = Qcow2(fixture("zlib.qcow2"))
    expected = content()

    def read(seed: int) -> bool:
        draw = random.Random(seed)
        places = [draw.randrange(SIZE) for _ in range(60)]
        return all(disk.read_at(place, 9000) == expected[place : place + 9000] for place in places)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read, range(8)))


def test_it_can_be_sent_to_another_process() -> None:
    again = pickle.loads(pickle.dumps(chain()))
    assert again.read_at(0, 5 * MIB) == chained_content()


# --- backing files ----------------------------------------------------------------------------------------------------


def test_a_chain_of_three() -> None:
    disk = chain()
    assert (disk.backing_name, disk.backing_format) == ("middle.qcow2", "qcow2")
    assert_same(disk, chained_content(), border=4096)


def test_zeros_behind_the_end_of_a_backing_file() -> None:
    base = BytesSource(b"x" * 200_500, Origin("base"))
    disk = Qcow2(fixture("middle.qcow2"), base)
    assert disk.read_at(200_000, 3000) == b"x" * 500 + bytes(2500)
    assert disk.read_at(300_000, 10) == bytes(10)


def test_a_backing_file_that_is_missing_is_no_zeros() -> None:
    disk = Qcow2(fixture("middle.qcow2"))
    assert disk.read_at(65_536, 400) == b"\x62" * 400
    with pytest.raises(DamagedData, match=r"'base\.qcow2' is missing") as caught:
        disk.read_at(200_000, 10)
    assert caught.value.offset == 200_000
    assert str(caught.value.origin) == "middle.qcow2 > qcow2"


# --- snapshots --------------------------------------------------------------------------------------------------------


def test_a_snapshot_shows_the_disk_before() -> None:
    disk = Qcow2(fixture("snapshot.qcow2"))
    changed = bytearray(content())
    changed[4090:4190] = b"\x61" * 100
    changed[MIB : MIB + 65_536] = bytes(65_536)
    assert_same(disk, bytes(changed), border=4096)
    (snapshot,) = disk.snapshots
    assert (snapshot.id, snapshot.name, snapshot.disk_size, snapshot.vm_state_size) == ("1", "before", SIZE, 0)
    assert snapshot.created is not None
    assert snapshot.created.year >= 2024
    assert snapshot.created_ns % 1_000_000_000
    before = disk.at_snapshot(snapshot)
    assert_same(before, content(), border=4096)
    assert str(before.origin).startswith("snapshot.qcow2 > qcow2 > snapshot 1 @")
    assert before.snapshots == ()


def test_snapshots_of_a_disk_that_grew(tmp_path: Path) -> None:
    image = convert(raw_file(tmp_path), tmp_path / "disk.qcow2", "qcow2", "-o", "cluster_size=16k")
    for name in ("one", "tué", "three"):
        run("qemu-img", "snapshot", "-c", name, image)
        run("qemu-img", "resize", image, "+1M")
        run("qemu-io", "-c", f"write -P {len(name)} 100000 50000", image)
    disk = Qcow2(FileSource(image))
    assert disk.size == SIZE + 3 * MIB
    assert [(one.name, one.disk_size - SIZE) for one in disk.snapshots] == [
        ("one", 0),
        ("tué", MIB),
        ("three", 2 * MIB),
    ]
    for number, snapshot in enumerate(disk.snapshots):
        raw = tmp_path / f"{number}.raw"
        run("qemu-img", "convert", "-l", f"snapshot.id={snapshot.id}", "-O", "raw", image, raw)
        assert_same(disk.at_snapshot(snapshot), raw.read_bytes()[: snapshot.disk_size], border=16_384)


# --- what is not read -------------------------------------------------------------------------------------------------


def test_encryption_is_named() -> None:
    with pytest.raises(UnsupportedFormat, match=r"encrypted \(LUKS\)"):
        Qcow2(patched("base.qcow2", (32, b"\0\0\0\2")))


@pytest.mark.parametrize("options", ["", ",data_file_raw=on", ",extended_l2=on,cluster_size=16k"])
def test_an_external_data_file(tmp_path: Path, options: str) -> None:
    raw, image, data = raw_file(tmp_path), tmp_path / "disk.qcow2", tmp_path / "disk.data"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", f"data_file={data}{options}", image, str(raw.stat().st_size))
    run("qemu-img", "convert", "-n", "-O", "qcow2", raw, image)
    assert Qcow2(FileSource(image)).data_name == str(data)
    problems = ProblemLog()
    disk = open_disk(image, problems)
    assert disk is not None
    assert_same(disk, raw.read_bytes())
    assert not problems.rows
    data.rename(tmp_path / "elsewhere")
    disk = open_disk(image, problems)
    assert disk is not None
    with pytest.raises(DamagedData, match=r"external data file .* is missing"):
        disk.read_at(0, 512)
    assert [problem.message for problem in problems.rows] == [f"the external data file '{data}' is missing"]


def test_snapshots_are_named_when_a_disk_is_opened(tmp_path: Path) -> None:
    problems = ProblemLog()
    assert open_disk(unpack(tmp_path, "snapshot.qcow2"), problems) is not None
    (problem,) = problems.rows
    time = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ"
    assert re.fullmatch(rf"the image holds the snapshot 1 'before' of {time}, which is not examined", problem.message)


@pytest.mark.parametrize(
    ("place", "new", "error", "message"),
    [
        (0, b"QFI\0", UnsupportedFormat, "magic"),
        (4, b"\0\0\0\1", UnsupportedFormat, "version 1"),
        (4, b"\0\0\0\4", UnsupportedFormat, "version 4"),
        (20, b"\0\0\0\x08", DamagedData, "2\\*\\*8"),
        (20, b"\0\0\0\x16", DamagedData, "2\\*\\*22"),
        (32, b"\0\0\0\1", UnsupportedFormat, "AES"),
        (32, b"\0\0\0\7", UnsupportedFormat, "method 7"),
        (72, b"\x80", UnsupportedFormat, "unknown features"),
        (24, b"\x7f" + b"\xff" * 7, LimitExceeded, "first-level table"),
    ],
)
def test_headers_that_make_no_sense(place: int, new: bytes, error: type[ForensicsError], message: str) -> None:
    patches = [(place, new)] if place != 24 else [(place, new), (36, b"\xff" * 4)]
    with pytest.raises(error, match=message):
        Qcow2(patched("base.qcow2", *patches))


def test_an_unknown_compression_method() -> None:
    with pytest.raises(UnsupportedFormat, match="compression method 02"):
        Qcow2(patched("zstd.qcow2", (104, b"\2")))


def test_marks_of_an_image_that_was_not_closed() -> None:
    disk = Qcow2(patched("base.qcow2", (79, b"\3")))
    assert disk.dirty
    assert disk.corrupt
    assert disk.read_at(0, SIZE) == content()


# --- damage -----------------------------------------------------------------------------------------------------------


def l2_place(name: str) -> int:
    data = stored(name)
    (l1,) = struct.unpack_from(">Q", data, 40)
    (entry,) = struct.unpack_from(">Q", data, l1)
    return int(entry & 0x00FF_FFFF_FFFF_FE00)


def test_a_zero_cluster_of_version_2_is_damage() -> None:
    disk = Qcow2(patched("v2.qcow2", (l2_place("v2.qcow2") + 7, b"\1")))
    with pytest.raises(DamagedData, match="zero cluster"):
        disk.read_at(0, 10)
    assert disk.read_at(4096, 4096) == content()[4096:8192]


def test_a_cluster_that_begins_inside_another() -> None:
    place = l2_place("base.qcow2")
    disk = Qcow2(patched("base.qcow2", (place, struct.pack(">Q", 1 << 63 | 4096 * 9 + 512))))
    with pytest.raises(DamagedData, match="does not begin at a cluster's start"):
        disk.read_at(0, 10)


def test_a_subcluster_that_is_both() -> None:
    place = l2_place("subclusters.qcow2")
    disk = Qcow2(patched("subclusters.qcow2", (place + 8, b"\xff" * 8)))
    with pytest.raises(DamagedData, match="as allocated and as zero"):
        disk.read_at(0, 10)


@pytest.mark.parametrize("name", ["zlib.qcow2", "zstd.qcow2"])
def test_a_compressed_cluster_that_is_damaged(name: str) -> None:
    place = l2_place(name)
    (entry,) = struct.unpack_from(">Q", stored(name), place)
    start = entry & (1 << 62 - 4 - (2 if name == "zstd.qcow2" else 0)) - 1
    disk = Qcow2(patched(name, (start, b"\xff" * 40)))
    with pytest.raises(DamagedData, match="a compressed cluster at"):
        disk.read_at(0, 10)
    assert disk.read_at(MIB - 800, 1600) == content()[MIB - 800 : MIB + 800]


def test_a_cut_image_shows_what_is_left() -> None:
    whole = stored("base.qcow2")
    disk = Qcow2(BytesSource(whole[: len(whole) // 2], Origin("cut")))
    good = sum(not isinstance(one, ForensicsError) for one in attempts(disk, 4096))
    assert 0 < good < SIZE // 4096
    with pytest.raises(DamagedData, match="beyond the end of the file"):
        disk.read_at(SIZE - 100, 100)


def attempts(source: Source, step: int) -> list[bytes | ForensicsError]:
    found: list[bytes | ForensicsError] = []
    for place in range(0, source.size, step):
        try:
            found.append(source.read_at(place, step))
        except ForensicsError as error:
            found.append(error)
    return found


def test_a_first_level_table_beyond_the_end() -> None:
    disk = Qcow2(patched("base.qcow2", (40, struct.pack(">Q", 1 << 40))))
    with pytest.raises(DamagedData, match="first-level table is too short"):
        disk.read_at(0, 1)


@pytest.mark.parametrize(
    ("count", "message"), [(65_537, "65537 snapshots"), (2, "snapshot table|bytes of extra data|beyond the end")]
)
def test_a_snapshot_table_that_makes_no_sense(count: int, message: str) -> None:
    disk = Qcow2(patched("snapshot.qcow2", (60, struct.pack(">IQ", count, len(stored("snapshot.qcow2")) - 50))))
    with pytest.raises(DamagedData, match=message):
        list(disk.snapshots)
    assert len(disk.read_at(0, SIZE)) == SIZE


SMALL = {name: stored(name)[: 160 << 10] for name in (*CLUSTER_KINDS, "top.qcow2", "snapshot.qcow2")}


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(SMALL)), st.data())
def test_any_damage_gives_bytes_or_an_error_of_ours(name: str, draws: st.DataObject) -> None:
    data = bytearray(SMALL[name][: draws.draw(st.integers(0, len(SMALL[name])))])
    for _ in range(draws.draw(st.integers(0, 6))):
        if data:
            places = st.one_of(st.integers(0, min(120, len(data) - 1)), st.integers(0, len(data) - 1))
            data[draws.draw(places)] = draws.draw(st.integers(0, 255))
    try:
        disk = Qcow2(BytesSource(bytes(data), Origin("fuzz")))
    except ForensicsError:
        return
    read_or_damage(disk)
    try:
        snapshots = disk.snapshots
    except ForensicsError:
        return
    for snapshot in itertools.islice(snapshots, 3):
        read_or_damage(disk.at_snapshot(snapshot))
