from __future__ import annotations

import base64
import hashlib
import json
import lzma
import os
import re
import shutil
import struct
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forensics_lib.errors import DamagedData, ForensicsError, LimitExceeded, UnsupportedFormat
from forensics_lib.formats.bbolt import Bolt, Bucket, Record, State
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.sources.base import BytesSource

FIXTURES = Path(__file__).parents[2] / "fixtures" / "bolt"
ROOT = Path(os.environ.get("FORENSICS_EVIDENCE", "nowhere"))
NONE = 2**64 - 1

# --- a small writer of its own -------------------------------------------------------------------------------------

Item = tuple[bytes, bytes] | tuple[bytes, bytes, int]


def leaf(number: int, items: list[Item], overflow: int = 0, order: str = "<", count: int | None = None) -> bytes:
    """Items are (key, value) or (key, value, flags)."""
    table, data = b"", b""
    for index, (key, value, *flags) in enumerate(items):
        position = 16 * (len(items) - index) + len(data)
        table += struct.pack(order + "IIII", flags[0] if flags else 0, position, len(key), len(value))
        data += key + value
    return struct.pack(order + "QHHI", number, 2, len(items) if count is None else count, overflow) + table + data


def branch(number: int, children: list[tuple[bytes, int]], order: str = "<") -> bytes:
    table, data = b"", b""
    for index, (key, child) in enumerate(children):
        table += struct.pack(order + "IIQ", 16 * (len(children) - index) + len(data), len(key), child)
        data += key
    return struct.pack(order + "QHHI", number, 1, len(children), 0) + table + data


def bucket(name: bytes, page: int, sequence: int = 0, order: str = "<") -> Item:
    return name, struct.pack(order + "QQ", page, sequence), 1


def inline(name: bytes, items: list[Item], sequence: int = 0, order: str = "<") -> Item:
    return name, struct.pack(order + "QQ", 0, sequence) + leaf(0, items, order=order), 1


def freelist(number: int, free: list[int], order: str = "<", long: bool = False) -> bytes:
    numbers = [len(free), *free] if long else free
    return struct.pack(order + "QHHI", number, 0x10, 0xFFFF if long else len(free), 0) + struct.pack(
        f"{order}{len(numbers)}Q", *numbers
    )


def fnv(data: bytes) -> int:
    value = 0xCBF29CE484222325
    for byte in data:
        value = ((value ^ byte) * 0x100000001B3) % 2**64
    return value


def meta(
    number: int, root: int, txid: int, high: int, free: int = NONE, size: int = 4096, order: str = "<", version: int = 2
) -> bytes:
    body = struct.pack(order + "IIIIQQQQQ", 0xED0CDAED, version, size, 0, root, 0, free, high, txid)
    return struct.pack(order + "QHHI", number, 4, 0, 0) + body + struct.pack(order + "Q", fnv(body))


def build(*pages: bytes, size: int = 4096) -> bytes:
    """Each part begins on the page after the one before."""
    return b"".join(page + bytes(-len(page) % size) for page in pages)


def database(*pages: bytes, root: int = 2, older: int | None = None, size: int = 4096, order: str = "<") -> bytes:
    """Pages from 2 on; transaction 6 with that root, transaction 5 with the older one."""
    high = 2 + sum(-(-len(page) // size) for page in pages)
    newest = meta(0, root, 6, high, size=size, order=order)
    before = meta(1, root if older is None else older, 5, high, size=size, order=order)
    return build(newest, before, *pages, size=size)


def bolt(data: bytes, problems: ProblemLog | None = None) -> Bolt:
    return Bolt(BytesSource(data, Origin("db")), problems)


def messages(database: Bolt) -> list[str]:
    return [f"{problem.origin.label}: {problem.message}" for problem in database.problems.rows]


def entries(root: Bucket | None) -> list[tuple[bytes, bytes | None]]:
    assert root is not None
    return [(b"/".join((*record.path, record.key)), record.value) for record in root.walk()]


def rows(records: Iterator[Record]) -> list[tuple[str, bytes, bytes | None, int]]:
    """(state or ``?`` for a path without its beginning, path, value, page), what is not complete marked."""
    return [
        (
            ("" if r.rooted else "?") + r.state + ("" if r.complete else "!"),
            b"/".join((*r.path, r.key)),
            r.value,
            r.page,
        )
        for r in records
    ]


@cache
def fixture(name: str) -> bytes:
    return lzma.decompress((FIXTURES / f"{name}.db.xz").read_bytes())


# --- real databases ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "count", "digest"),
    [  # what bbolt's own library finds: fixtures/bolt/make.go
        ("volumes", 5, "8d03fccec57baea5d6b9301ca46b4992cbacdac98bbb8f9bc973ee7a406742b9"),
        ("local-kv", 42, "6ccfb499cbf1d7fa1a8cb635fc7709119d94bf6d185de64780212ca04869460e"),
        ("containerd", 5, "033aba553e9918d9086ec268f8e401929580c96c3fe7833887bd28969e296693"),
        ("nested", 210, "3f867d6d4858dcb70c2882933fcfed1b1d91d09a2c2bef0e40420615874b3fd9"),
    ],
)
def test_live_records_are_those_of_the_original_library(name: str, count: int, digest: str) -> None:
    database = bolt(fixture(name), ProblemLog(strict=True))
    listing = hashlib.sha256()
    records = list(database.root.walk())
    for record in records:
        if record.value is None:
            inner = database.root.bucket(*record.path, record.key)
            assert inner is not None
            value = f"#{inner.sequence}"
        else:
            value = f"={record.value.hex()}"
        path = "/".join(name.hex() for name in record.path)
        listing.update(f"{path} {record.key.hex()} {value}\n".encode())
    assert (len(records), listing.hexdigest()) == (count, digest)


@pytest.mark.parametrize("name", ["volumes", "local-kv", "containerd", "nested"])
def test_every_record_lies_where_its_origin_says(name: str) -> None:
    data = fixture(name)
    database = bolt(data)
    size = database.meta.page_size
    for record in (*database.root.walk(), *database.stale()):
        offset = record.origin.offset
        assert offset is not None
        assert data[offset : offset + len(record.key)] == record.key
        if record.value and record.complete:
            assert data[offset + len(record.key) :][: len(record.value)] == record.value
        assert record.page * size <= offset < record.page * size + 64 * size
        assert str(record.origin) == f"db > bbolt page {record.page} @{offset}"


@pytest.mark.parametrize("name", ["volumes", "local-kv", "containerd", "nested"])
def test_stale_records_are_new_and_unique(name: str) -> None:
    database = bolt(fixture(name))
    live = {(record.path, record.key, record.value) for record in database.root.walk()}
    stale = [(record.path, record.key, record.value, record.rooted) for record in database.stale()]
    assert not live & {(path, key, value) for path, key, value, rooted in stale if rooted}
    rooted = [row for row in stale if row[3]]
    assert len(set(rooted)) == len(rooted)
    assert list(database.stale()) == list(database.stale())


def test_reading_by_name() -> None:
    root = bolt(fixture("nested")).root
    assert [name for name, _ in root.buckets()] == [b"deep", b"many", b"small", b"void"]
    assert list(root.keys()) == []
    many, small, void = (root.bucket(name) for name in (b"many", b"small", b"void"))
    assert many is not None
    assert small is not None
    assert void is not None
    assert many.sequence == 300
    assert small.sequence == 7
    assert list(void.items()) == []
    assert list(small.items()) == [(b"inline", b"changed"), (b"last", b"word"), (b"no value", b"")]
    assert list(many.keys()) == [b"key-%04d" % i for i in (*range(100), *range(200, 300))]
    assert many.get(b"key-0299") == b"value 299 " + b"x" * 19
    assert many.get(b"key-0150") is None
    assert many.get(b"") is None
    assert many.get(b"zzz") is None
    assert small.get(b"no value") == b""
    assert root.get(b"many") is None
    assert b"many" in root
    assert b"large" not in root
    assert root.bucket() is root
    below = root.bucket(b"deep", b"below-2")
    assert below is not None
    assert below.path == (b"deep", b"below-2")
    assert below.sequence == 2
    assert below.bucket(b"below-3") is None
    assert root.bucket(b"deep", b"level") is None
    assert root.bucket(b"deep", b"nothing", b"at all") is None
    assert repr(below) == "Bucket(b'deep/below-2', inline)"
    assert re.fullmatch(r"Bucket\(b'many', page \d+\)", repr(many))


def test_the_transaction_before() -> None:
    database = bolt(fixture("nested"))
    assert [(meta.page, meta.txid, meta.valid) for meta in database.metas] == [(0, 4, True), (1, 3, True)]
    assert database.meta is database.metas[0]
    previous = database.previous
    assert previous is not None
    assert database.previous is previous
    large = previous.bucket(b"large")
    assert large is not None
    assert large.get(b"overflow") == b"0123456789abcdef" * 330
    assert large.get(b"k" * 400) == b"long key"
    states = {(record.path, record.key): record.state for record in database.stale()}
    assert states[(b"large",), b"overflow"] is State.PREVIOUS
    assert {record.state for record in previous.walk()} == {State.PREVIOUS}


def test_deleted_records_with_the_buckets_around_them() -> None:
    data = fixture("nested")
    found = {(record.path, record.key): record for record in bolt(data).stale()}
    present = 0
    for i in range(100, 200):
        key, value = b"key-%04d" % i, b"value %d %s" % (i, b"x" * (i % 40))
        if key + value not in data:  # the page has been used anew
            continue
        present += 1
        record = found[(b"many",), key]
        assert (record.value, record.state) == (value, State.STALE)
        assert (record.rooted, record.complete) == (True, True)
    assert present == 89
    deep = (b"deep", *(b"below-%d" % level for level in range(2, 10)))
    for i in range(20):
        assert found[deep, b"treasure-%02d" % i].value == b"gold " * 10
    assert found[deep[:-1], b"level"].value == b"8"
    assert found[deep[:2], b"below-3"].value is None
    assert found[(b"small",), b"inline"].value == b"yes"


def test_a_removed_network_is_on_a_freed_page() -> None:
    """Its id is what `docker network inspect` said before `docker network rm c2net`."""
    (record,) = bolt(fixture("local-kv")).stale()
    network = "e9ca6ad96426a4f24146b0cef7c4d1d87aaf8e6caa3b291830eee23fe6cc795a"
    assert record.path == (b"libnetwork",)
    assert record.key == f"docker/network/v1.0/network/{network}/".encode()
    assert record.value is not None
    assert json.loads(record.value[8:])["name"] == "c2net"
    assert json.loads(record.value[8:])["id"] == network
    assert (record.page, record.state) == (2, State.PREVIOUS)


def test_a_removed_volume() -> None:
    (record,) = bolt(fixture("volumes")).stale()
    assert (record.path, record.key) == ((b"volumes",), b"loot")
    assert record.value == b'{"Name":"loot","Driver":"local","Labels":{},"Options":{}}'


def test_removed_containers_get_their_own_paths() -> None:
    """Nothing of them is live; the runtime specification of each names the container in its cgroup."""
    specifications = [
        record for record in bolt(fixture("containerd")).stale() if record.key == b"spec" and record.value
    ]
    assert len(specifications) == 7
    rooted = 0
    for record in specifications:
        match = re.search(rb'"cgroupsPath":"[^"]*?([0-9a-f]{64})"', record.value or b"")
        assert match is not None
        if record.rooted:
            assert record.path == (b"v1", b"moby", b"containers", match[1])
            rooted += 1
    assert rooted == 6


# --- meta pages ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("size", [512, 1000, 4096, 16384, 65536])
def test_both_byte_orders_and_any_page_size(order: str, size: int) -> None:
    data = database(
        leaf(2, [bucket(b"big", 3, 9, order), inline(b"in", [(b"a", b"1")], 4, order)], order=order),
        branch(3, [(b"a", 4), (b"m", 5)], order=order),
        leaf(4, [(b"a", b"first")], order=order),
        leaf(5, [(b"m", b"x" * 3 * size)], overflow=3, order=order),
        size=size,
        order=order,
    )
    database_ = bolt(data, ProblemLog(strict=True))
    assert entries(database_.root) == [
        (b"big", None),
        (b"big/a", b"first"),
        (b"big/m", b"x" * 3 * size),
        (b"in", None),
        (b"in/a", b"1"),
    ]
    big = database_.root.bucket(b"big")
    assert big is not None
    assert big.sequence == 9
    assert big.get(b"m") == b"x" * 3 * size
    assert database_.meta.page_size == size
    # the page size has to be found without the first meta page, which works for all sizes a system can have
    lost = bytes(size) + data[size:]
    if size == 1000:
        with pytest.raises(UnsupportedFormat):
            bolt(lost)
    else:
        assert entries(bolt(lost).root) == entries(database_.root)
        assert messages(bolt(lost)) == ["db: meta page 0 is damaged"]


def test_the_newest_valid_meta_page_counts() -> None:
    old, new = leaf(2, [inline(b"old", [])]), leaf(3, [inline(b"new", [])])
    data = build(meta(0, 3, 8, 4), meta(1, 2, 7, 4), old, new)
    assert entries(bolt(data).root) == [(b"new", None)]
    assert entries(bolt(data).previous) == [(b"old", None)]
    torn = bytearray(data)
    torn[40] ^= 1
    database_ = bolt(bytes(torn))
    assert entries(database_.root) == [(b"old", None)]
    assert database_.previous is None
    assert messages(database_) == ["db: meta page 0 is damaged"]
    assert [(m.page, m.valid) for m in database_.metas] == [(1, True), (0, False)]
    # what the damaged meta page would have reached is found all the same
    assert rows(database_.stale()) == [("?stale", b"new", None, 3)]


def test_meta_pages_with_wrong_checksums_are_the_last_resort() -> None:
    data = bytearray(database(leaf(2, [inline(b"b", [(b"k", b"v")])])))
    data[72:80] = bytes(8)  # early versions of BoltDB wrote none
    data[4096 + 72] ^= 0xFF
    database_ = bolt(bytes(data))
    assert entries(database_.root) == [(b"b", None), (b"b/k", b"v")]
    assert messages(database_) == ["db: meta page 0 is damaged", "db: meta page 1 is damaged"]
    assert database_.meta.checksum == 0


@pytest.mark.parametrize(
    "data",
    [b"", b"\0" * 100, b"SQLite format 3\0" * 4096, meta(0, 2, 1, 4)[:79], meta(0, 2, 1, 4, size=1 << 30)],
)
def test_what_is_no_database(data: bytes) -> None:
    with pytest.raises(UnsupportedFormat):
        bolt(data)


def test_meta_fields() -> None:
    data = build(meta(0, 3, 2, 5, free=2), meta(1, 3, 1, 5), freelist(2, [4]), leaf(3, []), leaf(4, []))
    first, second = bolt(data, ProblemLog(strict=True)).metas
    assert (first.root, first.freelist, first.high_water, first.page_size) == (3, 2, 5, 4096)
    assert second.freelist is None
    assert str(second.origin) == "db > bbolt page 1 @4096"


# --- damage --------------------------------------------------------------------------------------------------------


def test_a_torn_copy_falls_back_to_the_transaction_before() -> None:
    data = build(
        meta(0, 4, 6, 6),
        meta(1, 2, 5, 6),
        leaf(2, [bucket(b"b", 3)]),
        leaf(3, [(b"k", b"old")]),
        leaf(4, [bucket(b"b", 5), inline(b"c", [(b"new", b"1")])]),
        bytes(4096),  # this page was not yet written when it was copied
    )
    database_ = bolt(data)
    assert database_.meta.txid == 5
    assert entries(database_.root) == [(b"b", None), (b"b/k", b"old")]
    assert messages(database_) == [
        "bbolt page 0: transaction 6 is damaged, transaction 5 is read instead: "
        "the page says that it is page 0 (db > bbolt page 5 @20480)"
    ]
    assert rows(database_.stale()) == [("newer", b"c", None, 4), ("newer", b"c/new", b"1", 4)]
    assert entries(database_.previous) == [(b"b", None), (b"c", None), (b"c/new", b"1")]
    assert len(messages(database_)) == 2  # asked for, so its damage is told
    with pytest.raises(DamagedData):
        bolt(data, ProblemLog(strict=True))


def test_a_database_damaged_in_both_transactions_is_read_as_far_as_it_goes() -> None:
    database_ = bolt(database(leaf(2, [bucket(b"a", 3), bucket(b"b", 4)]), bytes(4096), leaf(4, [(b"k", b"v")])))
    assert database_.meta.txid == 6
    assert entries(database_.root) == [(b"a", None), (b"b", None), (b"b/k", b"v")]
    assert messages(database_) == ["bbolt page 3: the page says that it is page 0"]


def faults(*pages: bytes, root: int = 2, older: int | None = None) -> tuple[Bolt, str]:
    """The database and its only problem; reading it in every way ends."""
    database_ = bolt(database(*pages, root=root, older=older))
    exercise(database_)
    (message,) = messages(database_)
    return database_, message


def exercise(database_: Bolt) -> None:
    for root in (database_.root, database_.previous):
        if root is None:
            continue
        for record in root.walk():
            inner = root.bucket(*record.path)
            assert inner is None or record.key in inner
        for _, inner in root.buckets():
            list(inner.items())
            list(inner.keys())
            inner.get(b"nothing")
    list(database_.stale())


def test_a_page_that_is_used_twice() -> None:
    database_, message = faults(leaf(2, [bucket(b"a", 3), bucket(b"b", 3)]), leaf(3, [(b"k", b"v")]))
    assert message == "bbolt page 3: the page is used a second time"
    assert entries(database_.root) == [(b"a", None), (b"a/k", b"v"), (b"b", None)]


def test_cycles() -> None:
    database_, message = faults(leaf(2, [bucket(b"self", 2)]))
    assert message == "bbolt page 2: the page is used a second time"
    assert entries(database_.root) == [(b"self", None)]
    database_, message = faults(branch(2, [(b"a", 3), (b"c", 2)]), leaf(3, [(b"a", b"1")]))
    assert message == "bbolt page 2: the page is used a second time"
    assert entries(database_.root) == [(b"a", b"1")]
    assert faults(leaf(2, [bucket(b"meta", 1)]))[1] == "bbolt page 1: the page is used a second time"


def test_pages_beyond_the_end() -> None:
    data = build(meta(0, 2, 6, 3), meta(1, 2, 5, 3), leaf(2, [bucket(b"a", 3)]), leaf(3, [(b"k", b"v")]))
    assert messages(bolt(data)) == ["bbolt page 3: the page lies beyond the end"]
    assert rows(bolt(data).stale()) == [("?stale", b"k", b"v", 3)]
    assert faults(leaf(2, [bucket(b"a", 2**63)]))[1] == f"bbolt page {2**63}: the page lies beyond the end"


def test_keys_out_of_order() -> None:
    database_, message = faults(leaf(2, [inline(b"b", []), inline(b"a", [])]))
    assert message == "bbolt page 2: the key of element 1 is out of order"
    assert database_.root.bucket(b"a") is not None
    database_, message = faults(
        leaf(2, [bucket(b"x", 3)]), branch(3, [(b"a", 4), (b"m", 5)]), leaf(4, [(b"a", b"1")]), leaf(5, [(b"b", b"2")])
    )
    assert message == "bbolt page 5: its keys do not belong to where the branch page has it"
    inner = database_.root.bucket(b"x")
    assert inner is not None
    assert inner.get(b"b") == b"2"


def test_elements_outside_the_page() -> None:
    page = bytearray(leaf(2, [inline(b"a", []), inline(b"b", [])]))
    struct.pack_into("<I", page, 16 + 8, 5000)  # size of the first key
    database_, message = faults(bytes(page))
    assert message == "bbolt page 2: element 0 lies outside the data of the page"
    assert entries(database_.root) == [(b"b", None)]


def test_a_value_that_ends_beyond_the_page() -> None:
    page = leaf(3, [(b"k", b"v" * 5000)])[:4096]
    database_, message = faults(leaf(2, [bucket(b"b", 3)]), page)
    assert message == "bbolt page 3: the value of element 0 ends beyond the page"
    record = list(database_.root.walk())[-1]
    assert record.value == b"v" * 4063
    assert not record.complete
    inner = database_.root.bucket(b"b")
    assert inner is not None
    assert inner.get(b"k") is None
    assert list(inner.items()) == []


@pytest.mark.parametrize("count", [0x41, 0xFFFF])
def test_a_wrong_number_of_elements(count: int) -> None:
    items: list[Item] = [inline(b"a", [(b"k", b"1")]), inline(b"b", [])]
    database_ = bolt(database(leaf(2, items, count=count)))
    exercise(database_)
    assert f"bbolt page 2: {count} elements are declared, the first of them leaves room for 2" in messages(database_)
    assert entries(database_.root) == [(b"a", None), (b"a/k", b"1"), (b"b", None)]


def test_hidden_elements_are_told() -> None:
    assert faults(leaf(2, [inline(b"a", []), inline(b"b", [])], count=1))[1] == (
        "bbolt page 2: 1 elements are declared, the first of them leaves room for 2"
    )


@pytest.mark.parametrize(
    ("page", "message"),
    [
        (leaf(9, []), "bbolt page 2: the page says that it is page 9"),
        (b"\2" + leaf(2, [])[1:8] + b"\4" + leaf(2, [])[9:], "bbolt page 2: neither a branch nor a leaf page"),
        (branch(2, []), "bbolt page 2: a branch page without children"),
        (leaf(2, [(b"short", b"123", 1)]), "bbolt page 2: the bucket b'short' has no header"),
        (leaf(2, [(b"short", bytes(20), 1)]), "bbolt page 2: there is no room for a page header"),
        (leaf(2, [(b"b", bytes(16) + branch(0, []), 1)]), "bbolt page 2: an inline bucket holds a branch page"),
        (leaf(2, [(b"b", bytes(16) + leaf(0, [])[:8] + bytes(8), 1)]), "bbolt page 2: neither a branch nor a leaf"),
        (leaf(2, [inline(b"b", [(b"x", b"", 6)])]), "bbolt page 2: element 0 has unknown flags 0x6"),
    ],
)
def test_damaged_pages(page: bytes, message: str) -> None:
    assert faults(page)[1].startswith(message)


def test_depth_is_limited() -> None:
    pages = [leaf(number, [bucket(b"n", number + 1)]) for number in range(2, 60)]
    database_, message = faults(*pages)
    assert "buckets are nested more than 32 deep" in message
    assert isinstance(database_.problems.rows[0].error, LimitExceeded)
    assert len(entries(database_.root)) == 33
    pages = [branch(number, [(b"n", number + 1)]) for number in range(2, 60)]
    assert "branch pages are nested more than 32 deep" in faults(*pages)[1]


def test_faults_are_limited() -> None:
    page = branch(2, [(b"%05d" % i, 2) for i in range(1500)])
    data = build(meta(0, 2, 6, 3, size=65536), meta(1, 2, 5, 3, size=65536), page, size=65536)
    database_ = bolt(data)
    assert len(database_.problems.rows) == 2  # one problem is kept once
    assert database_.problems.rows[1].message == "more than 1000 faults; no more are listed"


def test_a_truncated_file() -> None:
    data = fixture("nested")
    database_ = bolt(data[: 30 * 1024])
    exercise(database_)
    assert any(re.match(r"db: the file ends \d+ pages before the end", message) for message in messages(database_))
    page = leaf(3, [(b"k", b"v" * 100), (b"l", b"w" * 3000)])
    cut = database(leaf(2, [bucket(b"b", 3)]), page)[: 3 * 4096 + 200]
    assert messages(bolt(cut)) == [
        "bbolt page 3: the value of element 1 ends beyond the page",
        "bbolt page 3: the file ends inside the page",
    ]


def test_freelists() -> None:
    def log(page: bytes) -> list[str]:
        return messages(
            bolt(build(meta(0, 3, 6, 6, free=2), meta(1, 3, 5, 6), page, leaf(3, []), leaf(4, []), leaf(5, [])))
        )

    assert log(freelist(2, [4, 5])) == []
    assert log(freelist(2, [4, 5], long=True)) == []
    assert log(freelist(2, [3, 4])) == ["bbolt page 2: lists pages as free that are in use"]
    assert log(freelist(2, [1, 4])) == [
        "bbolt page 2: lists pages as free that are not there",
        "bbolt page 2: lists pages as free that are in use",
    ]
    assert log(freelist(2, [99])) == ["bbolt page 2: lists pages as free that are not there"]
    assert log(leaf(2, [])) == ["bbolt page 2: no freelist page"]
    assert log(struct.pack("<QHHIQ", 2, 0x10, 0xFFFF, 0, 2**60)) == [
        f"bbolt page 2: {2**60} free pages are declared, the list ends before that"
    ]


class Meter(BytesSource):
    """Counts what is read."""

    total = largest = 0

    def read_at(self, offset: int, length: int) -> bytes:
        self.total += length
        self.largest = max(self.largest, length)
        return super().read_at(offset, length)


def test_declared_overflow_costs_nothing() -> None:
    pages = [leaf(number, [(b"k%d" % number, b"v")], overflow=2**31) for number in range(3, 300)]
    root = leaf(2, [bucket(b"%03d" % number, number) for number in range(3, 80)], overflow=2**32 - 1)
    source = Meter(database(root, *pages), Origin("db"))
    exercise(Bolt(source))
    assert source.largest <= 3 * 4096
    assert source.total < 200 * source.size


# --- stale pages ---------------------------------------------------------------------------------------------------


def test_a_page_without_parents_has_no_path_but_inline_buckets_have_a_name() -> None:
    data = database(leaf(2, []), leaf(3, [(b"k", b"v"), inline(b"labels", [(b"app", b"web")])]))
    assert rows(bolt(data).stale()) == [
        ("?stale", b"k", b"v", 3),
        ("?stale", b"labels", None, 3),
        ("?stale", b"labels/app", b"web", 3),
    ]


def test_stale_parents_give_the_path() -> None:
    data = database(
        leaf(2, [bucket(b"top", 7)]),
        leaf(3, [bucket(b"top", 4)]),  # an older root page
        leaf(4, [(b"same", b"value"), bucket(b"x", 5)]),
        branch(5, [(b"a", 6), (b"m", 8)]),
        leaf(6, [(b"a", b"1"), (b"b", b"2")]),
        leaf(7, [(b"same", b"value")]),
        leaf(8, [(b"n", b"this page has been used anew since")]),
    )
    assert rows(bolt(data).stale()) == [
        ("stale", b"top/x", None, 4),
        ("stale", b"top/x/a", b"1", 6),
        ("stale", b"top/x/b", b"2", 6),
        ("?stale", b"n", b"this page has been used anew since", 8),
        ("stale!", b"top/x/m", b"", 5),
    ]


def test_contradicting_parents_leave_what_they_agree_on() -> None:
    data = database(
        leaf(2, []),
        leaf(3, [(b"a", b"1"), bucket(b"inner", 5)]),
        leaf(4, [(b"b", b"2"), bucket(b"inner", 5)]),
        leaf(5, [(b"k", b"v")]),
        leaf(6, [(b"c", b"3"), bucket(b"other", 8)]),
        leaf(7, [(b"d", b"4"), bucket(b"another", 8)]),
        leaf(8, [(b"l", b"w")]),
    )
    assert [row for row in rows(bolt(data).stale()) if row[3] in (5, 8)] == [
        ("?stale", b"inner/k", b"v", 5),
        ("?stale", b"l", b"w", 8),
    ]


def test_an_older_version_is_known_by_what_it_has_in_common() -> None:
    data = database(
        leaf(2, [bucket(b"one", 3), bucket(b"two", 4)]),
        leaf(3, [(b"a", b"alpha"), (b"b", b"beta")]),
        leaf(4, [(b"a", b"other"), (b"b", b"more")]),
        leaf(5, [(b"a", b"alpha"), (b"b", b"beta"), (b"gone", b"gamma")]),
        leaf(6, [(b"a", b"alpha"), (b"b", b"contradicts"), (b"gone", b"delta")]),
    )
    assert rows(bolt(data).stale()) == [
        ("stale", b"one/gone", b"gamma", 5),
        ("?stale", b"a", b"alpha", 6),
        ("?stale", b"b", b"contradicts", 6),
        ("?stale", b"gone", b"delta", 6),
    ]


def test_overflow_that_was_used_anew_is_cut() -> None:
    value = b"0123456789abcdef" * 1024
    first = leaf(3, [(b"k", value)], overflow=4)[:4096]
    data = database(leaf(2, []), first, leaf(4, [(b"new", b"page")]), bytes(4096), bytes(4096), bytes(4096))
    whole, cut = list(bolt(data).stale())[::-1]
    assert (whole.key, whole.complete) == (b"new", True)
    assert (cut.key, cut.complete, cut.value) == (b"k", False, value[:4063])


def test_the_same_record_is_given_once() -> None:
    old = [(b"a", b"alpha"), (b"gone", b"gamma")]
    data = database(leaf(2, [bucket(b"b", 3)]), leaf(3, [(b"a", b"alpha")]), *(leaf(n, list(old)) for n in range(4, 9)))
    assert rows(bolt(data).stale()) == [("stale", b"b/gone", b"gamma", 4)]


def test_pages_behind_the_last_one_are_read() -> None:
    data = database(leaf(2, [])) + build(leaf(3, [(b"k", b"never committed")]))
    assert rows(bolt(data).stale()) == [("?stale", b"k", b"never committed", 3)]


def test_no_stale_pages() -> None:
    assert list(bolt(database(leaf(2, [inline(b"b", [(b"k", b"v")])]))).stale()) == []


def test_a_page_that_cannot_be_read_is_a_problem() -> None:
    class Broken(BytesSource):
        def read_at(self, offset: int, length: int) -> bytes:
            if offset == 3 * 4096:
                raise DamagedData("bad sector")
            return super().read_at(offset, length)

    database_ = Bolt(Broken(database(leaf(2, []), leaf(3, []), leaf(4, [(b"k", b"v")])), Origin("db")))
    assert [row[1] for row in rows(database_.stale())] == [b"k"]
    assert messages(database_) == ["bbolt page 3: bad sector"]


# --- anything at all -----------------------------------------------------------------------------------------------

bounded = settings(
    max_examples=60,
    deadline=timedelta(seconds=20),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def read_everything(data: bytes) -> None:
    try:
        database_ = bolt(data)
    except ForensicsError:
        return
    exercise(database_)


@bounded
@given(flips=st.lists(st.tuples(st.integers(0, 65535), st.integers(1, 255)), min_size=1, max_size=20))
def test_changed_bytes(flips: list[tuple[int, int]]) -> None:
    data = bytearray(fixture("nested"))
    for position, mask in flips:
        data[position] ^= mask
    read_everything(bytes(data))


@bounded
@given(
    flips=st.lists(st.tuples(st.integers(2, 59), st.integers(0, 200), st.sampled_from((1, 2, 64, 255))), max_size=40)
)
def test_changed_headers(flips: list[tuple[int, int, int]]) -> None:
    data = bytearray(fixture("nested"))
    for page, position, mask in flips:
        data[page * 1024 + position] ^= mask
    read_everything(bytes(data))


@bounded
@given(size=st.integers(0, 65536))
def test_cut_anywhere(size: int) -> None:
    read_everything(fixture("nested")[:size])


def any_page(number: int) -> st.SearchStrategy[bytes]:
    number_of_page = st.integers(0, 14)
    keys = st.binary(max_size=4)
    item: st.SearchStrategy[Item] = st.one_of(
        st.tuples(keys, st.binary(max_size=20)),
        st.builds(bucket, keys, number_of_page),
        st.builds(inline, keys, st.lists(st.tuples(keys, keys), max_size=3)),
        st.tuples(keys, st.binary(max_size=60), st.integers(0, 3)),
    )
    return st.one_of(
        st.builds(leaf, st.just(number), st.lists(item, max_size=8), st.sampled_from((0, 0, 1, 2**32 - 1))),
        st.builds(branch, st.just(number), st.lists(st.tuples(keys, number_of_page), max_size=8)),
        st.builds(freelist, st.just(number), st.lists(number_of_page)),
        st.binary(max_size=600),
    )


@bounded
@given(pages=st.tuples(*(any_page(number) for number in range(2, 12))), root=st.integers(2, 6), older=st.integers(2, 6))
def test_any_pages(pages: tuple[bytes, ...], root: int, older: int) -> None:
    parts = [(page + bytes(1024))[:1024] for page in pages]
    read_everything(database(*parts, root=root, older=older, size=1024))


@bounded
@given(data=st.binary(max_size=3000))
def test_any_bytes_after_the_meta_pages(data: bytes) -> None:
    read_everything(build(meta(0, 2, 2, 9, size=512), meta(1, 3, 1, 9, size=512), data, size=512))


# --- evidence of whole hosts ---------------------------------------------------------------------------------------

needs_evidence = [
    pytest.mark.skipif(
        not all(
            (ROOT / name).is_dir() for name in ("docker-small", "docker29-graphdriver", "docker29-containerd-store")
        ),
        reason="FORENSICS_EVIDENCE names no folder with this evidence",
    ),
    pytest.mark.skipif(shutil.which("tar") is None, reason="no tar command"),
]


def databases(archive: Path, to: Path) -> dict[str, bytes]:
    subprocess.run(["tar", "-xf", archive, "-C", to, "--wildcards", "*.db"], check=True)
    return {path.relative_to(to).as_posix(): path.read_bytes() for path in to.rglob("*.db")}


def shown(value: bytes) -> tuple[object, str]:
    """A value as the independent dump writes it."""
    for offset in (0, 8):
        try:
            return json.loads(value[offset:]), f"u64={int.from_bytes(value[:8], 'little')}" if offset else ""
        except ValueError:
            continue
    return text(value[:200]), ""


def text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return "b64:" + base64.b64encode(value).decode()


@pytest.mark.parametrize("scenario", ["docker29-graphdriver", "docker29-containerd-store"])
class TestHosts:
    pytestmark = needs_evidence

    def test_live_records_are_those_of_an_independent_dump(self, scenario: str, tmp_path: Path) -> None:
        (base,) = (ROOT / scenario).iterdir()
        found = databases(base / "evidence/clean/root.tar", tmp_path)
        dumps = sorted((base / "truth/bolt").iterdir())
        assert len(dumps) >= 6
        for dump in dumps:
            first, _, rest = dump.name.removesuffix(".jsonl").partition("_")
            (name,) = (path for path in found if path.replace("/", "_") == f"var_lib_{first}_{rest}")
            listed = [json.loads(line) for line in dump.read_text().splitlines()][1:]
            expected = [
                (row["key"], row["value"], row["libkv_index"])
                for row in listed
                if "key" in row and "freed_page" not in row
            ]
            database_ = bolt(found[name], ProblemLog(strict=True))
            records = [record for record in database_.root.walk() if record.value is not None]
            actual = [([*map(text, (*r.path, r.key))], *shown(r.value or b"")) for r in records]
            assert actual == expected, name


class TestDeletedContainers:
    pytestmark = needs_evidence

    def test_they_are_containers_that_there_were(self, tmp_path: Path) -> None:
        (base,) = (ROOT / "docker-small").iterdir()
        there_were = {path.stem for path in base.glob("truth/*/containers/*.json")}
        found = databases(base / "evidence/clean/var-lib-docker.tar", tmp_path)
        (data,) = (data for path, data in found.items() if path.endswith("io.containerd.metadata.v1.bolt/meta.db"))
        names = {r.key.decode() for r in bolt(data).stale() if r.path == (b"v1", b"moby", b"containers")}
        assert len(names & there_were) == 10
        assert len(names - there_were) == 1  # a container of a build, which lives for a moment only
