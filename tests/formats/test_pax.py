"""Extended header records: length, key, value, newline."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forensics_lib.formats.pax import parse_integer, parse_records, parse_seconds, xattrs
from tests.tarmaker import pax_record

KEYS = st.binary(min_size=1, max_size=40).filter(lambda key: b"=" not in key and not key.startswith(b"GNU.sparse."))


@pytest.mark.parametrize(
    ("data", "records"),
    [
        (b"", {}),
        (b"6 k=1\n", {b"k": b"1"}),
        (b"9 a=name\n", {b"a": b"name"}),
        (b"10 a=name\n", {b"a": b"name"}),  # two lengths fit, as each counts its own digits
        (b"30 mtime=1350244992.023960108\n", {b"mtime": b"1350244992.023960108"}),
        (b"18 k=two\nlines\n=x\n", {b"k": b"two\nlines\n=x"}),
        (b"13 key1=haha\n13 key2=nana\n13 key3=kaka\n", {b"key1": b"haha", b"key2": b"nana", b"key3": b"kaka"}),
        (b"13 key1=val1\n13 key2=val2\n8 key1=\n", {b"key1": b"", b"key2": b"val2"}),
        (b"6 k=1\n6 k=2\n", {b"k": b"2"}),
        (b"6 k=1\n" + bytes(40), {b"k": b"1"}),
        (b"006 k=1\n", None),
        (b"008 k=1\n", {b"k": b"1"}),
        (b"8 k=\xff\0\xfe\n", {b"k": b"\xff\0\xfe"}),
    ],
)
def test_records(data: bytes, records: dict[bytes, bytes] | None) -> None:
    found, fault = parse_records(data)
    if records is None:
        assert fault is not None
    else:
        assert (found, fault) == (records, None)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"3 somelongkey=\n", "wrong length"),
        (b"50 tooshort=\n", "wrong length"),
        (b"0 k=1\n", "wrong length"),
        (b"2 k=1\n", "wrong length"),
        (b"7 k=12", "wrong length"),
        (b"99999999999999999999999 k=1\n", "no length"),
        (b"k=1\n", "no length"),
        (b" 6 k=1\n", "no length"),
        (b"-6 k=1\n", "no length"),
        (b"\xb2 k=1\n", "no length"),  # a superscript two is no digit
        (b"6 k=1\njunk", "no length"),
        (b"5 =1\n", "no key"),
        (b"4 k\n", "no key"),
    ],
)
def test_what_is_wrong_with_records_is_said_and_those_before_are_kept(data: bytes, what: str) -> None:
    records, fault = parse_records(b"11 ok=fine\n" + data)
    assert records == {b"ok": b"fine"} | ({b"k": b"1"} if b"junk" in data else {})
    assert fault is not None
    assert what in fault


def test_sparse_pairs_are_gathered_in_order() -> None:
    records, fault = parse_records(
        b"22 GNU.sparse.size=10\n26 GNU.sparse.numblocks=2\n"
        b"23 GNU.sparse.offset=1\n25 GNU.sparse.numbytes=2\n"
        b"23 GNU.sparse.offset=3\n25 GNU.sparse.numbytes=4\n"
    )
    assert fault is None
    assert records == {b"GNU.sparse.size": b"10", b"GNU.sparse.numblocks": b"2", b"GNU.sparse.map": b"1,2,3,4"}


def test_the_number_of_records_is_bounded() -> None:
    data = b"".join(pax_record(str(number), "") for number in range(70_000))
    records, fault = parse_records(data)
    assert len(records) == 65_536
    assert fault == "more than 65536 extended header records"


@given(st.dictionaries(KEYS, st.binary(max_size=120), max_size=8))
@settings(deadline=None)
def test_what_is_written_is_read(records: dict[bytes, bytes]) -> None:
    written = b"".join(pax_record(key, value) for key, value in records.items())
    assert parse_records(written) == (records, None)


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_no_bytes_raise(data: bytes) -> None:
    records, fault = parse_records(data)
    assert isinstance(records, dict)
    assert fault is None or fault


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        (b"0", 0),
        (b"1350244992", 1350244992 * 10**9),
        (b"1350244992.3", 1350244992300000000),
        (b"1350244992.023960108", 1350244992023960108),
        (b"1350244992.0239601089", 1350244992023960108),
        (b"1350244992.", 1350244992 * 10**9),
        (b".5", 500_000_000),
        (b"-1", -(10**9)),
        (b"-1.5", -1_500_000_000),
        (b"-0.000000001", -1),
        (b"-.5", -500_000_000),
        (b"1.5e3", None),
        (b"1,5", None),
        (b"--1", None),
        (b"1.-5", None),
        (b"+1", None),
        (b" 1", None),
        (b".", None),
        (b"-", None),
        (b"", None),
        (b"\xd9\xa1", None),  # an Arabic digit
        (b"9" * 4500, None),
    ],
)
def test_seconds(text: bytes, nanoseconds: int | None) -> None:
    assert parse_seconds(text) == nanoseconds


@given(st.integers(-(2**62), 2**62))
@settings(deadline=None)
def test_seconds_keep_every_nanosecond(nanoseconds: int) -> None:
    sign = "-" if nanoseconds < 0 else ""
    whole, fraction = divmod(abs(nanoseconds), 10**9)
    assert parse_seconds(f"{sign}{whole}.{fraction:09}".encode()) == nanoseconds


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (b"0", 0),
        (b"000000000000000000000999", 999),
        (b"-12", -12),
        (b"9223372036854775808", 1 << 63),
        (b"", None),
        (b"-", None),
        (b"1_0", None),
        (b"+5", None),
        (b" 5", None),
        (b"0x10", None),
        (b"1.0", None),
        (b"1" * 5000, None),
    ],
)
def test_integers(text: bytes, number: int | None) -> None:
    assert parse_integer(text) == number


def test_extended_attributes_of_three_writers() -> None:
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    assert xattrs(
        {
            b"mtime": b"1",
            b"SCHILY.xattr.security.capability": capability,
            b"SCHILY.xattr.user.caf\xe9": b"",
            b"LIBARCHIVE.xattr.user.k%3dey": base64.b64encode(b"\0\xff value").rstrip(b"="),
            b"RHT.security.selinux": b"system_u:object_r:etc_t:s0",
        }
    ) == {
        "security.capability": capability,
        "user.caf\udce9": b"",
        "user.k=ey": b"\0\xff value",
        "security.selinux": b"system_u:object_r:etc_t:s0",
    }


def test_star_attributes_win_over_encoded_copies_whatever_their_order() -> None:
    pairs = [(b"SCHILY.xattr.user.a", b"raw"), (b"LIBARCHIVE.xattr.user.a", base64.b64encode(b"encoded"))]
    assert xattrs(dict(pairs)) == xattrs(dict(reversed(pairs))) == {"user.a": b"raw"}


@given(st.dictionaries(st.sampled_from([b"LIBARCHIVE.xattr.", b"SCHILY.xattr.", b"RHT.security.selinux"]), st.binary()))
@settings(deadline=None)
def test_attributes_of_any_shape_raise_nothing(records: dict[bytes, bytes]) -> None:
    assert len(xattrs({key + b"%zz\xff": value for key, value in records.items()})) <= len(records)
