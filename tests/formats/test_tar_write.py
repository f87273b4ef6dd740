"""Archives that are written: read again by our own reader, by GNU tar and by bsdtar."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from forensics_lib.errors import DamagedData, UnsupportedFormat
from forensics_lib.formats.tar_entry import TarEntry
from forensics_lib.formats.tar_write import END_OF_ARCHIVE, TarMember, archive, header, padding
from tests.tarmaker import TarMaker
from tests.tarreader import by_position, entries, gnu_tar, one, streamed, tool

SECOND = 10**9
MOMENT = 1_700_000_000
CAPABILITY = b"\x01\0\0\x02\0\x20\0\0" + bytes(12)


def written(*members: TarMember | tuple[TarMember, bytes]) -> bytes:
    pairs = (member if isinstance(member, tuple) else (member, b"") for member in members)
    return b"".join(archive((member, [content] if content else []) for member, content in pairs))


def test_a_plain_file_byte_by_byte() -> None:
    data = written((TarMember("etc/hostname", size=4, mode=0o640, uid=1, gid=2, mtime_ns=MOMENT * SECOND), b"web\n"))
    fields = {
        0: b"etc/hostname",
        100: b"0000640\0",
        108: b"0000001\0",
        116: b"0000002\0",
        124: b"00000000004\0",
        136: b"14524770400\0",
        148: b"011554\0 ",
        156: b"0",
        257: b"ustar\x0000",
        329: b"0000000\0",
        337: b"0000000\0",
        512: b"web\n",
    }
    expected = bytearray(4 * 512)
    for offset, value in fields.items():
        expected[offset : offset + len(value)] = value
    assert data == bytes(expected)


@pytest.mark.parametrize(
    "name", ["a", "d/" + "x" * 98, "p" * 155 + "/" + "x" * 100, "p/" * 77 + "q/" + "x" * 99, "x" * 99 + "/"]
)
def test_names_that_fit_need_no_extended_header(name: str) -> None:
    data = written(TarMember(name, "5" if name.endswith("/") else "0"))
    assert len(data) == 3 * 512
    assert one(data).name == name


@pytest.mark.parametrize(
    ("name", "charset"),
    [
        ("x" * 101, None),
        ("x" * 100 + "/", None),
        ("p" * 156 + "/x", None),
        ("p/" + "x" * 101, None),
        ("é", None),
        ("caf\udce9", b"BINARY"),
        ("long/" * 900, None),
    ],
)
def test_other_names_have_one(name: str, charset: bytes | None) -> None:
    entry = one(written(TarMember(name)))
    assert entry.name == name
    assert entry.pax[b"path"] == name.encode("utf-8", "surrogateescape")
    assert entry.pax.get(b"hdrcharset") == charset
    assert entry.header[:100].rstrip(b"\0").isascii()


def test_links_devices_and_the_rest() -> None:
    found = entries(
        written(
            TarMember("link", "2", linkname="t" * 101),
            TarMember("short", "2", linkname="/etc/passwd", mode=0o777),
            TarMember("hard", "1", linkname="ümlaut"),
            TarMember("null", "3", rdev=(1, 3), mode=0o666),
            TarMember("sda", "4", rdev=(8, 1 << 20)),
            TarMember("huge", "4", rdev=(1 << 24, 3)),
            TarMember("pipe", "6"),
            TarMember("dir/", "5", mode=0o1777),
        )
    )
    assert [entry.typeflag for entry in found] == list("22134465")
    assert [entry.linkname for entry in found][:3] == ["t" * 101, "/etc/passwd", "ümlaut"]
    assert [entry.rdev for entry in found if entry.typeflag in "34"] == [(1, 3), (8, 1 << 20), (1 << 24, 3)]
    assert found[-1].mode == 0o1777
    assert all(entry.anomalies == () for entry in found)


@pytest.mark.parametrize(
    ("time", "record"),
    [
        (0, None),
        (MOMENT * SECOND, None),
        (8**11 * SECOND - SECOND, None),
        (8**11 * SECOND, b"8589934592"),
        (1, b"0.000000001"),
        (MOMENT * SECOND + 120_000_000, b"1700000000.12"),
        (-SECOND, b"-1"),
        (-1_500_000_000, b"-1.5"),
    ],
)
def test_times(time: int, record: bytes | None) -> None:
    entry = one(written(TarMember("x", mtime_ns=time)))
    assert entry.pax.get(b"mtime") == record
    assert entry.mtime_ns == time


def test_numbers_beyond_the_octal_fields() -> None:
    assert one(written(TarMember("x", uid=8**7 - 1, gid=8**7 - 1))).pax == {}
    entry = one(written(TarMember("x", uid=8**7, gid=2**32 - 2)))
    assert (entry.uid, entry.gid) == (8**7, 2**32 - 2)
    assert entry.pax == {b"uid": b"2097152", b"gid": b"4294967294"}
    blocks = header(TarMember("x", size=8**11))
    assert len(blocks) == 3 * 512
    assert b"19 size=8589934592\n" in blocks


def test_extended_attributes() -> None:
    xattrs = {"security.capability": CAPABILITY, "user.a=b": b"1\n", "user.empty": b"", "user.\udcff": b"\0"}
    entry = one(written(TarMember("x", xattrs=xattrs)))
    assert entry.xattrs == xattrs
    assert entry.pax[b"SCHILY.xattr.security.capability"] == CAPABILITY
    assert entry.pax[b"LIBARCHIVE.xattr.user.a%3Db"] == b"MQo="


@pytest.mark.parametrize("length", [5, 90, 91, 980, 981, 9800, 65536])
def test_the_length_of_a_record_counts_itself(length: int) -> None:
    entry = one(written(TarMember("x", xattrs={"user.x": bytes(length)})))
    assert entry.xattrs == {"user.x": bytes(length)}


@pytest.mark.parametrize("member", [TarMember(""), TarMember("a\0b"), TarMember("a", "2", linkname="\0")])
def test_what_no_archive_can_hold(member: TarMember) -> None:
    with pytest.raises(UnsupportedFormat, match="no archive can hold"):
        header(member)


@pytest.mark.parametrize(("pieces", "fault"), [([b"12", b"3"], "1 bytes are missing"), ([b"12345"], "there is more")])
def test_content_of_another_size(pieces: list[bytes], fault: str) -> None:
    with pytest.raises(DamagedData, match=fault):
        list(archive([(TarMember("x", size=4), pieces)]))


def test_an_empty_archive_is_its_end() -> None:
    assert written() == END_OF_ARCHIVE == bytes(1024)
    assert [len(padding(size)) for size in (0, 1, 512, 513)] == [0, 511, 0, 511]


def test_the_same_as_another_writer() -> None:
    ours = written(
        TarMember("etc/", "5", mode=0o755, mtime_ns=SECOND),
        (TarMember("etc/passwd", size=5, mtime_ns=SECOND), b"root\n"),
        TarMember("link", "2", mode=0o777, linkname="etc/passwd", mtime_ns=SECOND),
    )
    maker = TarMaker("ustar", mtime=1).dir("etc/").file("etc/passwd", b"root\n").symlink("link", "etc/passwd")
    assert ours == bytes(maker.end())


# --- any member -------------------------------------------------------------------------------------------------------

names = st.binary(min_size=1, max_size=300).map(lambda name: name.replace(b"\0", b"_")).map(os.fsdecode)
texts = names if sys.platform != "win32" else st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)
numbers = st.integers(0, 8**7 + 10) | st.integers(0, 2**32)
xattr_names = texts.map(lambda name: f"user.{name}")


@st.composite
def members(draw: st.DrawFn) -> tuple[TarMember, bytes]:
    typeflag = draw(st.sampled_from("0123456"))
    name = draw(texts).rstrip("/") or "x"
    content = draw(st.binary(max_size=1500)) if typeflag == "0" else b""
    return (
        TarMember(
            f"{name}/" if typeflag == "5" else name,
            typeflag,
            len(content),
            draw(st.integers(0, 0o7777)),
            draw(numbers),
            draw(numbers),
            draw(st.integers(-(2**62), 2**65)),
            draw(texts) if typeflag in "12" else "",
            draw(st.tuples(numbers, numbers)) if typeflag in "34" else (0, 0),
            draw(st.dictionaries(xattr_names, st.binary(max_size=300), max_size=3)),
        ),
        content,
    )


@given(st.lists(members(), max_size=6))
@example([(TarMember("0" * 100 + "/", "5"), b"")])
def test_what_is_written_is_read_again(wanted: list[tuple[TarMember, bytes]]) -> None:
    data = written(*wanted)
    assert data == written(*wanted)
    assert streamed(data) == by_position(data)
    assert by_position(data).faults == ()
    for (member, content), entry in zip(wanted, entries(data), strict=True):
        assert entry.anomalies == ()
        assert as_member(entry) == member
        assert not content or entry.open().read() == content


def as_member(entry: TarEntry) -> TarMember:
    return TarMember(
        entry.name,
        entry.typeflag,
        entry.size,
        entry.mode,
        entry.uid,
        entry.gid,
        entry.mtime_ns,
        entry.linkname,
        entry.rdev,
        entry.xattrs,
    )


# --- other tools ------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX files")
@pytest.mark.parametrize("program", ["gnu tar", "bsdtar"])
def test_other_tools_unpack_it(program: str, tmp_path: Path) -> None:
    command = gnu_tar() if program == "gnu tar" else tool("bsdtar")
    data = b"".join(archive((member, [content] if content else []) for member, content in unpackable()))
    subprocess.run(
        [command, "-C", str(tmp_path), "-xpf", "-"],
        input=data,
        check=True,
        capture_output=True,
        env=os.environ | {"LC_ALL": "C.UTF-8"},
    )
    first: dict[str, int] = {}
    for member, content in unpackable():
        path = tmp_path / member.name
        status = path.lstat()
        first.setdefault(member.name, status.st_ino)
        if member.typeflag == "1":
            assert status.st_ino == first[member.linkname]
            continue
        assert status.st_mtime_ns == member.mtime_ns
        if member.typeflag == "2":
            assert os.readlink(path) == member.linkname  # noqa: PTH115 - the name may be no UTF-8
            continue
        assert stat.S_IMODE(status.st_mode) == member.mode
        if member.typeflag == "0":
            assert path.read_bytes() == content
    assert stat.S_ISFIFO((tmp_path / "pipe").lstat().st_mode)


def unpackable() -> Iterable[tuple[TarMember, bytes]]:
    """Members that need no special rights; folders after what is in them keep their time."""
    uid, gid = os.getuid(), os.getgid()
    deep = "/".join(["d" * 60] * 5)
    for name, content in {"plain": b"1", "ümlaut": b"2", deep: b"3" * 1000, "n" * 200: b""}.items():
        yield TarMember(name, size=len(content), mtime_ns=MOMENT * SECOND + 123_456_789, uid=uid, gid=gid), content
    if sys.platform == "linux":
        yield TarMember("caf\udce9", mtime_ns=5 * SECOND, uid=uid, gid=gid), b""
    yield TarMember("hard", "1", linkname="plain", uid=uid, gid=gid), b""
    yield TarMember("long-link", "2", linkname="t/" * 60, mtime_ns=7 * SECOND, mode=0o777, uid=uid, gid=gid), b""
    yield TarMember("pipe", "6", mode=0o600, mtime_ns=8 * SECOND, uid=uid, gid=gid), b""
    yield TarMember("dir/", "5", mode=0o1750, mtime_ns=9 * SECOND, uid=uid, gid=gid), b""
