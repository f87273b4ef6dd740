"""The tar decoder: every format, every wrong shape, streams and random access."""

from __future__ import annotations

import os
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forensics_lib.errors import DamagedData, LimitExceeded, NotAFile
from forensics_lib.formats.tar import AFTER_END, TarDecoder
from forensics_lib.sources.base import BytesSource, ExtentSource
from forensics_lib.sources.stream import BlockStream, SourceStream
from tests.tarmaker import Format, TarMaker, base256, header, octal, pax_header
from tests.tarreader import ORIGIN, by_position, entries, in_blocks, one, streamed

SECOND = 10**9
LONG = "longname/" * 30 + "file.txt"


# --- one member, told by its fields -----------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["v7", "ustar", "pax", "gnu", "star"])
def test_the_fields_of_a_plain_header(format: Format) -> None:
    archive = TarMaker(format).file(
        "small.txt", b"Kilts", mode=0o4640, uid=73025, gid=5000, mtime=1244428340, uname="dsymonds", gname="eng"
    )
    entry = one(archive.end())
    assert (entry.name, entry.raw_name, entry.typeflag) == ("small.txt", b"small.txt", "0")
    assert (entry.size, entry.stored_size, entry.mode, entry.uid, entry.gid) == (5, 5, 0o4640, 73025, 5000)
    assert entry.mtime_ns == 1244428340 * SECOND
    assert (entry.uname, entry.gname) == (("", "") if format == "v7" else ("dsymonds", "eng"))
    assert (entry.header_offset, entry.first_offset, entry.data_offset) == (0, 0, 512)
    assert entry.header == bytes(archive)[:512]
    assert entry.sparse is None
    assert entry.anomalies == ()
    assert entry.open().read() == b"Kilts"
    assert str(entry.origin) == "test.tar > tar member small.txt @0"
    assert repr(entry) == "TarEntry('0', 'small.txt', 5 bytes @0)"


@pytest.mark.parametrize(
    ("typeflag", "is_file"),
    [("0", True), ("\0", True), ("7", True), ("S", True), ("1", False), ("2", False), ("5", False), ("D", False)],
)
def test_what_is_a_file(typeflag: str, is_file: bool) -> None:
    parts = {386: octal(0, 12) + octal(1, 12), 483: octal(1, 12)} if typeflag == "S" else {}
    entry = one(TarMaker("gnu").member("a", typeflag, b"1", extra=parts).end())
    assert entry.is_file is is_file
    assert entry.typeflag == (typeflag if typeflag != "\0" else "0")


@pytest.mark.parametrize("step", [512, 1 << 20])
def test_digits_that_are_not_octal_are_no_number(step: int) -> None:
    archive = TarMaker().member("a", "0", size=b"00000000009\0").file("b", b"1").end()
    bad, good = streamed(archive, step).members
    assert (bad.name, bad.size, good.content) == ("a", 0, b"1")
    assert "size field holds no number: b'00000000009\\x00'" in bad.anomalies


@given(st.integers(0, 8), st.data())
@settings(deadline=None)
def test_extended_headers_are_read_the_same_at_hand_and_in_pieces(count: int, draws: st.DataObject) -> None:
    keys = st.sampled_from(["mtime", "atime", "path", "size", "comment", "SCHILY.xattr.user.a", "GNU.sparse.size"])
    values = st.sampled_from([b"", b"1", b"12.5", b"-3", b"x", b"a/b", b"path=c"])
    archive = TarMaker()
    for index in range(count):
        for _ in range(draws.draw(st.integers(0, 2))):
            records = draws.draw(st.one_of(st.binary(max_size=40), st.dictionaries(keys, values, max_size=3)))
            archive.pax(records, draws.draw(st.sampled_from("xxxgX")))
        archive.member(f"m{index}", draws.draw(st.sampled_from("0125")), draws.draw(st.binary(max_size=600)))
    data = bytes(archive.end())
    assert streamed(data, 512) == streamed(data, 1 << 20) == by_position(data)


def test_old_archives_name_folders_with_a_slash() -> None:
    first, second = entries(TarMaker("v7").member("etc/", "\0").file("usr/").end())
    assert (first.typeflag, first.anomalies) == ("5", ())
    assert (second.typeflag, second.is_file) == ("0", False)
    assert second.anomalies == ("regular file whose name ends with a slash (a folder for most tools)",)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (b"0000644\0", 0o644),
        (b"000644 \0", 0o644),
        (b"   644 \0", 0o644),
        (b"644\0\0\0\0\0", 0o644),
        (b"    0644", 0o644),
        (b"00000644", 0o644),
        (b"\0\0\0\0 644", 0o644),
        (b"644\0junk", 0o644),
        (b"        ", 0),
        (bytes(8), 0),
        (b"-0000002", -2),
        (b"\x80" + b"\0" * 6 + b"\x00", 0),
        (base256(0o644, 8), 0o644),
        (base256(1 << 40, 8), 1 << 40),
        (base256(-2, 8), -2),
        (base256(-(1 << 40), 8), -(1 << 40)),
        (b"\xff" * 8, -1),
        (b"\x80" + bytes(7), 0),
    ],
)
def test_numbers_however_they_are_padded(field: bytes, value: int) -> None:
    entry = one(TarMaker("gnu").file("a", b"1", uid=field).end())
    assert entry.uid == value
    assert entry.anomalies == ()


@pytest.mark.parametrize(
    "field", [b"00x0644\0", b"0o17\0\0\0\0", b"1_0\0\0\0\0\0", b"+7\0\0\0\0\0\0", b"0000888\0", b"1 2\0\0\0\0\0"]
)
def test_a_field_that_is_no_number_is_zero_and_an_anomaly(field: bytes) -> None:
    entry = one(TarMaker().file("a", b"1", uid=field, mtime=5).end())
    assert entry.uid == 0
    assert entry.anomalies == (f"uid field holds no number: {field!r}",)
    assert (entry.mtime_ns, entry.open().read()) == (5 * SECOND, b"1")


def test_times_before_1970() -> None:
    entry = one(TarMaker("gnu").file("a", mtime=base256(-1, 12), atime=base256(-5, 12), ctime=7).end())
    assert (entry.mtime_ns, entry.atime_ns, entry.ctime_ns) == (-SECOND, -5 * SECOND, 7 * SECOND)


def test_checksums_of_unsigned_and_of_signed_bytes() -> None:
    name = b"caf\xe9-\xff\xfe"
    for checksum in ("unsigned", "signed"):
        entry = one(TarMaker().file(name, b"1", checksum=checksum).end())
        assert entry.raw_name == name
        assert entry.name == "caf\udce9-\udcff\udcfe"
        assert entry.name.encode("utf-8", "surrogateescape") == name
        assert entry.anomalies == ()


@pytest.mark.parametrize("checksum", [b"0", b"garbage", bytes(8), base256(-1, 8)])
def test_a_wrong_checksum_makes_no_member(checksum: bytes) -> None:
    assert by_position(TarMaker().file("a", checksum=checksum).end()).names == []


def test_links_devices_and_fifos() -> None:
    archive = (
        TarMaker()
        .symlink("s", "../target")
        .hardlink("h", "a/b")
        .device("null", "3", major=1, minor=3, mode=0o666)
        .device("sda", "4", major=8, minor=0)
        .fifo("p")
        .end()
    )
    found = entries(archive)
    assert [(e.name, e.typeflag, e.linkname, e.rdev) for e in found] == [
        ("s", "2", "../target", (0, 0)),
        ("h", "1", "a/b", (0, 0)),
        ("null", "3", "", (1, 3)),
        ("sda", "4", "", (8, 0)),
        ("p", "6", "", (0, 0)),
    ]
    for entry in found:
        with pytest.raises(NotAFile):
            entry.open()


def test_a_file_with_device_numbers() -> None:
    entry = one(TarMaker().file("file", major=1, minor=1).end())
    assert (entry.typeflag, entry.size, entry.rdev, entry.anomalies) == ("0", 0, (1, 1), ())


def test_device_numbers_of_star_records() -> None:
    archive = TarMaker().pax({"SCHILY.devmajor": "4095", "SCHILY.devminor": "1048575"}).device("d", "3")
    assert one(archive.end()).rdev == (4095, 1048575)


def test_what_a_header_holds_in_the_place_of_a_link_is_shown() -> None:
    assert one(TarMaker().file("a", b"1", linkname="left over").end()).linkname == "left over"


def test_ustar_prefix() -> None:
    name = "d" * 120 + "/" + "f" * 99
    assert one(TarMaker("ustar").file(name, b"1").end()).name == name
    assert one(TarMaker("star").file("d" * 100 + "/" + "f" * 99).end()).name == "d" * 100 + "/" + "f" * 99


def test_a_gnu_header_holds_times_where_ustar_has_its_prefix() -> None:
    entry = one(TarMaker("gnu").file("a", atime=1441974501, ctime=1441973436).end())
    assert (entry.name, entry.atime_ns, entry.ctime_ns) == ("a", 1441974501 * SECOND, 1441973436 * SECOND)
    assert one(TarMaker("gnu").file("a").end()).atime_ns is None


def test_gnu_times_that_stand_alone_or_begin_with_nul() -> None:
    entry = one(TarMaker("gnu").file("a", ctime=7).end())
    assert (entry.atime_ns, entry.ctime_ns, entry.plain_metadata()) == (None, 7 * SECOND, None)
    entry = one(TarMaker("gnu").file("a", atime=b"\0" * 5 + b"17").end())
    assert (entry.atime_ns, entry.ctime_ns, entry.plain_metadata()) == (15 * SECOND, None, None)


def test_the_short_way_to_plain_metadata() -> None:
    """`by_position` and `streamed` hold it against the long way for every member of every test."""
    plain = one(TarMaker("pax").file("a", mode=0o640, uid=1, gid=2, mtime="5.5").end())
    assert plain.plain_metadata() == (0o640, 1, 2, 5_500_000_000, None, None)
    for entry in (
        one(TarMaker("pax").file("a", uid=1 << 40).end()),
        one(TarMaker("pax").file("a", xattrs={"user.k": b"v"}).end()),
        one(TarMaker("star").file("a").end()),
        one(TarMaker().file("a/").end()),
        one(TarMaker().file("a", mode=b"   644 \0").end()),
        one(bytes(512) + TarMaker().file("a").end()),
    ):
        assert entry.plain_metadata() is None


@pytest.mark.parametrize("prefix", [b"a" * 90, b"12345671234567/usr", b"123456712345/x/yz"])
def test_the_prefix_that_an_old_go_writer_left_in_gnu_headers(prefix: bytes) -> None:
    entry = one(TarMaker("gnu").file("foo", extra={345: prefix}).end())
    assert entry.raw_name == prefix + b"/foo"
    assert entry.anomalies == ("GNU header with a ustar name prefix",)


def test_star_times() -> None:
    entry = one(TarMaker("star").file("a", mtime=1, atime=2, ctime=3).end())
    assert (entry.mtime_ns, entry.atime_ns, entry.ctime_ns, entry.btime_ns) == (SECOND, 2 * SECOND, 3 * SECOND, None)


# --- GNU long names ---------------------------------------------------------------------------------------------------


def test_long_names_and_links() -> None:
    archive = TarMaker("gnu").symlink(LONG, "to/" + LONG).file("after").end()
    first, second = entries(archive)
    assert (first.name, first.linkname, first.first_offset, first.header_offset) == (LONG, "to/" + LONG, 0, 2048)
    assert (second.name, second.linkname) == ("after", "")


def test_the_last_of_several_long_names_counts() -> None:
    archive = TarMaker("gnu")
    archive.gnu_long("GNU1/GNU1", "GNU3/GNU3").gnu_long("GNU2/GNU2/long-path-name", "GNU4/GNU4/long-linkpath-name")
    entry = one(archive.member("foo", "2", linkname="bar").end())
    assert (entry.name, entry.linkname) == ("GNU2/GNU2/long-path-name", "GNU4/GNU4/long-linkpath-name")


def test_a_long_name_ends_at_its_first_nul() -> None:
    assert one(TarMaker("gnu").gnu_long("0123456789\0more").file("short").end()).name == "0123456789"


def test_an_empty_long_name_is_none() -> None:
    entry = one(TarMaker("gnu").gnu_long("", "").symlink("short", "target").end())
    assert (entry.name, entry.linkname) == ("short", "target")


def test_a_long_name_wins_over_records() -> None:
    assert one(TarMaker("gnu").pax({"path": "record"}).gnu_long("long").file("short").end()).name == "long"


def test_volume_labels_and_incremental_folders() -> None:
    archive = TarMaker("gnu").member("label", "V").member("test2/", "D", b"Yfoo\0Nsparse\0\0").file("test2/foo", b"1")
    label, folder, file = entries(archive.end())
    assert (label.typeflag, label.name) == ("V", "label")
    assert folder.open().read() == b"Yfoo\0Nsparse\0\0"
    assert file.open().read() == b"1"


# --- pax records ------------------------------------------------------------------------------------------------------


def test_records_describe_the_next_member() -> None:
    archive = TarMaker().pax(
        {
            "path": "日本/" + LONG,
            "uid": "4294967296",
            "gid": "-2",
            "uname": "üser",
            "gname": "grüppe",
            "mtime": "1350244992.023960108",
            "atime": "-1.5",
            "ctime": "1350244992.3",
            "LIBARCHIVE.creationtime": "1.000000001",
            "SCHILY.xattr.user.key": "value",
            "comment": "Hello, 世界",
        }
    )
    entry, after = entries(archive.file("short", b"1").file("after").end())
    assert (entry.name, entry.uid, entry.gid, entry.uname, entry.gname) == (
        "日本/" + LONG,
        1 << 32,
        -2,
        "üser",
        "grüppe",
    )
    assert (entry.mtime_ns, entry.atime_ns) == (1350244992023960108, -1_500_000_000)
    assert (entry.ctime_ns, entry.btime_ns) == (1350244992300000000, 1_000_000_001)
    assert entry.xattrs == {"user.key": b"value"}
    assert entry.pax[b"comment"] == "Hello, 世界".encode()
    assert (entry.first_offset, entry.header_offset) == (0, 1536)
    assert entry.anomalies == ()
    assert (after.name, after.uid, after.pax) == ("after", 0, {})


def test_a_deleted_record_leaves_the_header_its_say() -> None:
    archive = TarMaker().pax([("path", "gone"), ("uid", "5"), ("path", ""), ("uid", ""), ("uname", "")])
    entry = one(archive.file("kept", b"1", uid=7, uname="root").end())
    assert (entry.name, entry.uid, entry.uname) == ("kept", 7, "root")
    assert entry.pax == {b"path": b"", b"uid": b"", b"uname": b""}


def test_the_last_of_several_extended_headers_counts() -> None:
    archive = TarMaker().pax({"path": "PAX1", "linkpath": "PAX2"}).pax({"linkpath": "PAX4/PAX4/long-linkpath-name"})
    entry = one(archive.symlink("bar", "short").end())
    assert (entry.name, entry.linkname) == ("bar", "PAX4/PAX4/long-linkpath-name")


def test_records_of_non_ascii_bytes_keep_them() -> None:
    entry = one(TarMaker().pax({"path": b"caf\xe9", "uname": b"\xff"}).file("x").end())
    assert (entry.raw_name, entry.name, entry.uname) == (b"caf\xe9", "caf\udce9", "\udcff")


def test_a_folder_whose_long_name_is_a_record() -> None:
    entry = one(TarMaker("pax").dir("123456789/" * 30).end())
    assert (entry.typeflag, entry.name, entry.anomalies) == ("5", "123456789/" * 30, ())


def test_suns_extended_header() -> None:
    archive = TarMaker().pax({"path": "sun", "mtime": "1310411683.041408671"}, "X").file("short", b"1")
    entry = one(archive.end())
    assert (entry.name, entry.mtime_ns) == ("sun", 1310411683041408671)


@pytest.mark.parametrize("text", ["999", "000000000000000000000999"])
def test_the_size_of_a_record_wins(text: str) -> None:
    data = bytes(range(250)) * 4
    first, second = entries(TarMaker().pax({"size": text}).file("foo", data[:999], size=684).file("after").end())
    assert (first.size, first.anomalies, second.name) == (999, (), "after")
    assert first.open().read() == data[:999]


@pytest.mark.parametrize("text", ["1e3", "abc", "0x10", "1" * 4400])
def test_a_size_record_that_is_no_number_is_an_anomaly(text: str) -> None:
    entry = one(TarMaker().pax({"size": text}).file("foo", b"12345").end())
    assert (entry.size, entry.open().read()) == (5, b"12345")
    assert entry.anomalies == (f"size record holds no number: {text.encode()[:40]!r}",)


def test_other_records_that_hold_nothing_usable_are_anomalies() -> None:
    archive = TarMaker().pax({"mtime": "999xxx9324.432432444444", "uid": "gtgergerger", "SCHILY.xattr.null\0": "x"})
    entry = one(archive.file("foo", mtime=3, uid=4).end())
    assert (entry.mtime_ns, entry.uid) == (3 * SECOND, 4)
    assert entry.anomalies == (
        "mtime record holds no time: b'999xxx9324.432432444444'",
        "uid record holds no number: b'gtgergerger'",
        "key of an extended header record contains NUL",
    )


def test_a_name_with_nul_is_kept_and_an_anomaly() -> None:
    entry = one(TarMaker().pax({"path": b"0123\x00456"}).file("x").end())
    assert (entry.name, entry.anomalies) == ("0123\x00456", ("name contains NUL",))


def test_damaged_records_are_an_anomaly_of_the_member() -> None:
    archive = TarMaker().pax(b"10 uid=77\n400 mtime=1\n").file("foo", b"1")
    entry = one(archive.end())
    assert entry.uid == 77
    assert entry.anomalies == ("extended header record at byte 10 has a wrong length (at 0)",)


def test_records_padded_with_nul() -> None:
    assert one(TarMaker().pax(b"10 uid=77\n" + bytes(90)).file("foo").end()).anomalies == ()


# --- global headers ---------------------------------------------------------------------------------------------------


def test_global_records_describe_all_later_members_unless_overridden_or_deleted() -> None:
    archive = (
        TarMaker()
        .file("before")
        .global_pax({"mtime": "1500000000.5", "uid": "7", "comment": "0123456789abcdef"})
        .file("first")
        .pax({"mtime": "1", "uid": ""})
        .file("second", uid=9)
        .global_pax({"mtime": "", "gname": "staff"})
        .file("third")
        .end()
    )
    found = entries(archive)
    assert [e.typeflag for e in found] == ["0", "g", "0", "0", "g", "0"]
    before, glob, first, second, _, third = found
    assert (before.mtime_ns, before.pax) == (0, {})
    assert glob.pax == {b"mtime": b"1500000000.5", b"uid": b"7", b"comment": b"0123456789abcdef"}
    assert (first.mtime_ns, first.uid) == (1500000000_500000000, 7)
    assert (second.mtime_ns, second.uid, second.pax[b"comment"]) == (SECOND, 9, b"0123456789abcdef")
    assert (third.mtime_ns, third.uid, third.gname) == (0, 7, "staff")
    applied = "records of a global header are applied to it: mtime, uid (container engines would not)"
    assert first.anomalies == (applied,)
    assert second.anomalies == ()


def test_global_records_never_rename_relink_or_resize() -> None:
    """Docker, containerd and Podman read a layer without them; so a layer that uses them to deceive does not."""
    archive = TarMaker().global_pax({"path": "global1", "linkpath": "elsewhere", "size": "1", "GNU.sparse.name": "n"})
    first, second, third = entries(archive.file("file1", b"content").symlink("link", "target").end())[:3]
    assert first.typeflag == "g"
    assert (second.name, second.size, second.open().read()) == ("file1", 7, b"content")
    assert (third.name, third.linkname) == ("link", "target")
    ignored = "records of a global header are not applied to it: path, linkpath, size, GNU.sparse.name (GNU tar would)"
    assert second.anomalies == third.anomalies == (ignored,)


def test_the_comment_of_git_archive_is_no_anomaly() -> None:
    archive = TarMaker().global_pax({"comment": "a" * 40}, mtime=1365654106).dir("project/").end()
    glob, folder = entries(archive)
    assert (glob.name, glob.mtime_ns, glob.size, glob.stored_size) == ("PaxHeaders/x", 1365654106 * SECOND, 0, 52)
    assert glob.content().read_at(0, 99) == b"52 comment=" + b"a" * 40 + b"\n"
    assert folder.anomalies == ()
    assert by_position(archive).faults == ()


def test_a_global_header_does_not_come_between_a_member_and_its_own_headers() -> None:
    archive = TarMaker("gnu").pax({"path": "mine"}).global_pax({"comment": "x"}).file("short").end()
    glob, entry = entries(archive)
    assert (glob.typeflag, glob.first_offset) == ("g", 1024)
    assert (entry.name, entry.first_offset, entry.header_offset) == ("mine", 0, 2048)


def test_damage_in_a_global_header_is_its_own_anomaly() -> None:
    glob, entry = entries(TarMaker().global_pax(b"9 uid=1\n8 uid=1\n").file("a").end())
    assert glob.anomalies == ("extended header record at byte 0 has a wrong length (at 0)",)
    assert entry.anomalies == ()


def test_global_records_end_with_their_archive() -> None:
    joined = TarMaker().global_pax({"uid": "7"}).file("a").end() + TarMaker().file("b").end()
    assert [(e.name, e.uid) for e in entries(joined)][1:] == [("a", 7), ("b", 0)]


def test_the_number_of_global_records_is_bounded() -> None:
    archive = TarMaker().global_pax({f"k{number}": "1" for number in range(2000)}).file("a").end()
    glob, entry = entries(archive)
    assert glob.anomalies == ("more than 1024 records of global headers; the rest is not applied",)
    assert len(entry.pax) == 1024


# --- headers that state a size but need no content --------------------------------------------------------------------


def test_header_only_types_that_state_a_size_without_content() -> None:
    archive = TarMaker()
    for typeflag in "512346":
        archive.member("x" + typeflag, typeflag, size=5)
    found = entries(archive.file("end", b"1").end())
    assert [e.name for e in found] == ["x5", "x1", "x2", "x3", "x4", "x6", "end"]
    assert [(e.size, e.stored_size) for e in found[:6]] == [(5, 0)] * 6
    assert found[1].anomalies == ()  # what old writers did
    assert found[0].anomalies == ("type '5' with a size of 5, but no content follows",)


def test_a_hard_link_with_content_of_its_own() -> None:
    archive = TarMaker().file("a", b"content").hardlink("b", "a", size=7).content(b"content").file("c", b"1").end()
    _, link, after = entries(archive)
    assert (link.typeflag, link.size, link.stored_size, after.name) == ("1", 7, 7, "c")
    assert link.open().read() == b"content"
    assert link.anomalies == ()


def test_a_hard_link_with_a_size_at_the_very_end() -> None:
    archive = TarMaker().hardlink("b", "a", size=700)
    assert one(archive.end()).stored_size == one(bytes(archive)).stored_size == 0


# --- impossible sizes, damage, concatenation --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "size", [base256(-1, 12), base256(1 << 63, 12), base256(1 << 90, 12), b"-0000000001\0", b"no number!!\0"]
)
def test_an_impossible_size_costs_the_content_only(size: bytes) -> None:
    first, second = entries(TarMaker("gnu").file("bad", b"x" * 600, size=size).file("good", b"1").end())
    assert (first.name, first.size, first.stored_size) == ("bad", 0, 0)
    assert "the content cannot be found" in first.anomalies[0]
    assert second.name == "good"
    assert second.anomalies == ("found after 1024 bytes that are no valid archive",)


def test_a_size_beyond_the_end() -> None:
    archive = bytes(TarMaker("gnu").file("a", b"1").file("tmp/16gig.txt", size=16 << 30))
    reading = by_position(archive)
    assert [(m.name, m.size) for m in reading.members] == [("a", 1), ("tmp/16gig.txt", 16 << 30)]
    missing = f"content is cut off: {16 << 30} of {16 << 30} bytes are missing"
    assert reading.members[1].anomalies == (missing,)
    assert reading.faults == ((1024, f"'tmp/16gig.txt': {missing}"), (1536, "no end-of-archive marker"))
    assert not reading.ended
    with pytest.raises(DamagedData, match="17179869184 bytes are declared, only 0 are there"):
        entries(archive)[1].open().read()


@pytest.mark.parametrize("make", [TarMaker("gnu"), TarMaker("pax"), TarMaker("star")], ids=["gnu", "pax", "star"])
def test_members_behind_content_above_8_gib(make: TarMaker) -> None:
    make.file("large", size=9 << 30)
    head, tail = bytes(make), TarMaker().file("after", b"1", mtime=7).end()
    size = len(head) + (9 << 30) + len(tail)
    parts = [(0, 0, len(head)), (size - len(tail), len(head), len(tail))]
    source = ExtentSource(BytesSource(head + tail, ORIGIN), parts, size, ORIGIN)
    decoder = TarDecoder(SourceStream(source), source=source)
    large, after = decoder
    assert (large.size, large.stored_size, large.anomalies) == (9 << 30, 9 << 30, ())
    assert (after.name, after.header_offset, after.open().read()) == ("after", len(head) + (9 << 30), b"1")
    with large.open() as content:
        assert content.seek(-3, os.SEEK_END) == (9 << 30) - 3
        assert content.read() == bytes(3)
    assert decoder.ended


def test_reading_goes_on_at_the_next_valid_header() -> None:
    archive = TarMaker().file("a", b"1").file("broken", b"x" * 700).file("c", b"3")
    data = bytearray(archive.end())
    data[1024 + 150] ^= 0x04  # the checksum of the second header
    reading = by_position(bytes(data))
    assert reading.names == ["a", "c"]
    assert reading.faults == ((1024, "no valid header here; reading goes on at the next one"),)
    assert reading.members[1].anomalies == ("found after 1536 bytes that are no valid archive",)
    assert reading.members[1].content == b"3"


def test_extension_headers_of_a_damaged_member_say_nothing_of_the_next() -> None:
    damaged = bytearray(header("broken", mtime=1))
    damaged[0] ^= 1
    for lost in (bytes(damaged), bytes(512)):
        archive = TarMaker().pax({"path": "not/this/one", "size": "4096"}).gnu_long("nor/this").raw(lost)
        reading = by_position(archive.file("next", b"1").file("last").end())
        assert reading.names == ["next", "last"]
        assert reading.members[0].content == b"1"
        assert (0, "extension header without the member it belongs to") in reading.faults


def test_extension_headers_do_not_reach_into_the_next_archive() -> None:
    reading = by_position(TarMaker().file("a").pax({"path": "lost"}).end() + TarMaker().file("b").end())
    assert reading.names == ["a", "b"]
    assert reading.faults == ((512, "extension header without the member it belongs to"),)


def test_a_lone_zero_block_is_an_anomaly_of_what_follows() -> None:
    reading = by_position(TarMaker().file("a").raw(bytes(512)).file("b").end())
    assert reading.names == ["a", "b"]
    assert reading.members[1].anomalies == ("a lone zero block stands before it",)
    assert reading.ended


def test_concatenated_archives() -> None:
    joined = TarMaker().file("file1").end() + bytes(1024) + TarMaker().pax({"comment": "x"}).file("file2", b"2").end()
    reading = by_position(joined)
    assert reading.names == ["file1", "file2"]
    assert reading.members[1].anomalies == (AFTER_END,)
    assert reading.members[1].content == b"2"
    assert (reading.ended, reading.trailing, reading.faults) == (True, 0, ())


def test_garbage_after_the_end_is_counted() -> None:
    reading = by_position(TarMaker().file("a").end() + b"garbage!" * 200 + bytes(512))
    assert (reading.names, reading.trailing, reading.faults) == (["a"], 2048, ())
    assert by_position(TarMaker().file("a").end() + b"tail").trailing == 4


def test_an_archive_after_garbage_after_the_end() -> None:
    reading = by_position(TarMaker().file("a").end() + b"garbage!" * 64 + TarMaker().file("b").end())
    assert reading.names == ["a", "b"]
    assert reading.members[1].anomalies == ("found after 512 bytes that are no valid archive", AFTER_END)
    assert reading.trailing == 512


@pytest.mark.parametrize("blocks", [0, 1])
def test_a_missing_end_marker_is_a_fault(blocks: int) -> None:
    data = TarMaker().file("a", b"1").end(blocks)
    reading = by_position(data)
    assert (reading.names, reading.ended) == (["a"], False)
    assert reading.faults == ((len(data), "no end-of-archive marker"),)


def test_names_that_come_twice_are_all_there() -> None:
    archive = TarMaker().file("a", b"1").file("./a", b"2").dir("a").file("a", b"4").end()
    assert [(m.name, m.content) for m in by_position(archive).members] == [
        ("a", b"1"),
        ("./a", b"2"),
        ("a", None),
        ("a", b"4"),
    ]


def test_empty_names() -> None:
    assert one(TarMaker().file("", b"1").end()).name == ""


@pytest.mark.parametrize(
    ("data", "recognised", "ended"),
    [
        (b"", False, False),
        (b"text\n", False, False),
        (b"t" * 5000, False, False),
        (bytes(511), False, False),
        (bytes(1024), True, True),
        (bytes(TarMaker().file("a")), True, False),
        (pax_header({"path": "a"}), True, False),  # nothing but a header for a member that never comes
    ],
)
def test_whether_anything_of_an_archive_was_recognised(data: bytes, recognised: bool, ended: bool) -> None:
    reading = by_position(data)
    assert (reading.recognised, reading.ended) == (recognised, ended)


def test_truncation_at_every_byte() -> None:
    archive = TarMaker("gnu").file("a", b"1" * 600).symlink(LONG, "t").pax({"uid": "5"}).file("b", b"2").end()
    whole = by_position(archive)
    for cut in range(0, len(archive), 7):
        reading = by_position(archive[:cut])
        count = len(reading.members)
        assert [m.name for m in whole.members[:count]] == reading.names
        for seen, expected in zip(reading.members[:-1], whole.members, strict=False):
            assert seen == expected
        assert reading.faults or cut >= len(archive) - 512 or (cut % 512 == 0 and reading.ended)
        assert streamed(archive[:cut], 300) == reading


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_more_members_than_allowed() -> None:
    decoder = TarDecoder(
        SourceStream(BytesSource(TarMaker().file("a").file("b").file("c").end(), ORIGIN)), max_entries=2
    )
    members = iter(decoder)
    assert [next(members).name, next(members).name] == ["a", "b"]
    with pytest.raises(LimitExceeded, match="more than 2 members"):
        next(members)


@pytest.mark.parametrize("size", [base256(-5, 12), base256(1 << 70, 12), base256(17 << 20, 12), b"zzz"])
@pytest.mark.parametrize("typeflag", "xgLKX")
def test_extension_headers_of_impossible_size_are_passed_over(size: bytes, typeflag: str) -> None:
    archive = TarMaker().file("a", b"1").raw(header("x", typeflag, size=size)).end()
    for reading in (by_position(archive), streamed(archive)):
        assert reading.names == ["a"]
        assert any("of impossible size" in fault for _, fault in reading.faults)


def test_an_extension_header_of_impossible_size_is_an_anomaly_of_the_member() -> None:
    entry = one(TarMaker().raw(header("x", "x", size=base256(-5, 12))).file("a", b"1").end())
    assert entry.anomalies == ("extension header 'x' of impossible size -5 at 0 is passed over",)


def test_faults_do_not_pile_up_without_end() -> None:
    row = header("x", "x", size=base256(-5, 12))
    assert len(one(row * 3000 + TarMaker().file("a").end()).anomalies) == 20
    reading = by_position((header("x", "x") + b"j" * 512) * 6000)
    assert len(reading.faults) == 10_001
    assert reading.faults[-1][1] == "more than 10000 faults; no more are listed"


def test_ten_thousand_members_take_no_time() -> None:
    archive = TarMaker().file("a", b"1").pax({"mtime": "1.5"}).file("b", b"2")
    data = bytes(archive) * 5000
    start = time.process_time()
    assert len(by_position(data).members) == 10_000
    assert time.process_time() - start < 5


# --- streams ----------------------------------------------------------------------------------------------------------


def test_members_of_a_stream_cannot_be_opened_later() -> None:
    stream = BlockStream(in_blocks(TarMaker().file("a", b"1").end(), 100))
    (entry,) = TarDecoder(stream)
    with pytest.raises(NotAFile, match="its content has passed"):
        entry.content()


def test_what_a_caller_leaves_of_the_content_is_passed_over() -> None:
    data = TarMaker().file("a", b"1" * 2000).file("b", b"2" * 2000).file("c", b"3").end()
    stream = BlockStream(in_blocks(data, 333))
    read = [(entry.name, stream.read(10 if entry.name != "b" else 0)) for entry in TarDecoder(stream)]
    assert read == [("a", b"1" * 10), ("b", b""), ("c", b"3" + bytes(9))]


def test_a_stream_that_ends_inside_a_content_says_so() -> None:
    stream = BlockStream(in_blocks(bytes(TarMaker().file("a", b"1" * 2000))[:1000], 333))
    entry = next(iter(TarDecoder(stream, origin=ORIGIN)))
    with pytest.raises(DamagedData, match="1512 of 2000 bytes are missing") as caught:
        list(entry.chunks(stream))
    assert caught.value.offset == 1000
    assert str(caught.value.origin) == "test.tar > tar member a @0"


NAMES = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20),
    st.binary(min_size=1, max_size=20).filter(lambda name: b"\0" not in name),
    st.sampled_from([LONG, "d/" * 60, "x" * 100, "x" * 101]),
)


@st.composite
def archives(draw: st.DrawFn) -> bytes:
    """Archives of all formats, also mixed, with long names, records, sparse files, several ends and garbage."""
    made = bytearray()
    for _ in range(draw(st.integers(1, 4))):
        maker = TarMaker(draw(st.sampled_from(["pax", "gnu"])))
        numbers = st.integers(-(2**33), 2**33)
        data = draw(st.binary(max_size=1500))
        name = draw(NAMES)
        kind = draw(st.integers(0, 8))
        if kind < 3:
            maker.file(name, data, uid=draw(numbers), mtime=draw(numbers))
        elif kind == 3:
            maker.symlink(name, draw(NAMES)).dir(draw(NAMES))
        elif kind == 4:
            maker.hardlink(name, draw(NAMES), size=draw(st.sampled_from([0, len(data)]))).content(data)
        elif kind == 5:
            maker.gnu_sparse(name, [(512, len(data)), (9000, 0)], 9000, data)
        elif kind == 6:
            version = draw(st.sampled_from(["0.0", "0.1", "1.0"]))
            maker.pax_sparse("sparse", [(512, len(data)), (9000, 0)], 9000, data, version)
        elif kind == 7:
            maker.global_pax(
                {"uid": "1", draw(st.sampled_from(["path", "size", "mtime"])): draw(st.sampled_from("1x"))}
            )
        else:
            maker.raw(draw(st.sampled_from([bytes(512), bytes(1024), b"junk" * 200, b"j"])))
        made += bytes(maker)
    return bytes(made) + bytes(draw(st.sampled_from([0, 512, 1024, 10240])))


@given(archives(), st.integers(1, 3000))
@settings(deadline=None, max_examples=150)
def test_a_stream_gives_what_random_access_gives(data: bytes, step: int) -> None:
    assert streamed(data, step) == by_position(data)


@given(archives(), st.integers(1, 3000), st.data())
@settings(deadline=None, max_examples=300)
def test_damage_raises_nothing_and_both_ways_agree(data: bytes, step: int, draws: st.DataObject) -> None:
    changed = bytearray(data)
    for _ in range(draws.draw(st.integers(0, 5))):
        changed[draws.draw(st.integers(0, len(changed) - 1))] ^= 1 << draws.draw(st.integers(0, 7))
    for _ in range(draws.draw(st.integers(0, 2))):  # numbers and types, with a checksum that fits
        start = draws.draw(st.integers(0, len(changed) // 512 - 1)) * 512 if len(changed) >= 512 else 0
        field = draws.draw(
            st.sampled_from([(100, 8), (124, 12), (136, 12), (156, 1), (257, 8), (345, 100), (386, 110)])
        )
        junk = draws.draw(st.binary(min_size=field[1], max_size=field[1]))
        _rewrite(changed, start, field[0], junk)
    cut = bytes(changed[: draws.draw(st.integers(0, len(changed)))])
    start_time = time.process_time()
    assert streamed(cut, step) == by_position(cut)
    assert time.process_time() - start_time < 2


def _rewrite(data: bytearray, start: int, offset: int, field: bytes) -> None:
    block = bytearray(data[start : start + 512])
    if len(block) == 512:
        block[offset : offset + len(field)] = field
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
        data[start : start + 512] = block


@given(st.binary(max_size=3000))
@settings(deadline=None)
def test_any_bytes_raise_nothing(data: bytes) -> None:
    assert streamed(data, 64) == by_position(data)
