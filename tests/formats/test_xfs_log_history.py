"""What is left in the log of XFS behind its head: wrapped, overwritten in part, torn."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forensics_lib.errors import DamagedData, UnsupportedFormat
from forensics_lib.formats.xfs_log_buffer import buffer_header, buffer_regions
from forensics_lib.formats.xfs_log_history import LogHistory
from forensics_lib.formats.xfs_log_record import LogItem, Transaction
from forensics_lib.sources.base import Source
from tests.formats.test_xfs import BLOCK, ignore
from tests.formats.test_xfs_log import (
    CONTINUATION,
    LOG,
    buffer_item,
    file_system,
    inode_item,
    log_core,
    operation,
    records,
    transaction,
)

CONTINUES = 0x04
UNMOUNTED = [operation(0x20, b"nU" + bytes(6))]
SIZE = LOG * BLOCK // 512


def transactions(log: bytes, faults: list[str] | None = None) -> list[Transaction]:
    return list(LogHistory(file_system(log), ignore if faults is None else faults.append).transactions())


def written(found: list[Transaction]) -> list[bytes]:
    """The first byte of each buffer that was logged."""
    return [data[:1] for one in found for item in one.items for _, data in buffer_regions(item, BLOCK)]


def test_what_was_written_back_long_ago_is_still_there() -> None:
    log = records(transaction(buffer_item(64, b"1" * 128)), transaction(buffer_item(64, b"2" * 128)), UNMOUNTED)
    found = transactions(log)
    assert [one.lsn for one in found] == [1 << 32, 1 << 32 | 2]
    assert written(found) == [b"1", b"2"]


def test_an_item_tells_where_it_lies() -> None:
    geometry = file_system(records(transaction(buffer_item(64, b"1" * 128))))
    (found,) = LogHistory(geometry, ignore).transactions()
    assert geometry.source.read_at(found.items[0].at, 4) == struct.pack("<HH", 0x123C, 2)


def test_a_log_that_has_gone_round_is_in_order() -> None:
    old = records(*[transaction(buffer_item(64, b"o" * 128))] * (SIZE // 2), checksums=False)
    new = records(transaction(buffer_item(72, b"n" * 128)), cycle=2)
    found = written(transactions(new + old[len(new) :]))
    assert found == [b"o"] * (SIZE // 2 - 1) + [b"n"]


def test_a_record_may_go_on_at_the_start_of_the_ring() -> None:
    log = bytearray(records(transaction(buffer_item(64, b"e" * 128)), block=SIZE - 1))
    struct.pack_into(">I", log, 512, 2)  # the blocks behind the end have the next cycle
    struct.pack_into("<I", log, 32, 0)
    assert written(transactions(bytes(log[512:]).ljust((SIZE - 1) * 512, b"\0") + bytes(log[:512]))) == [b"e"]


def test_a_record_that_was_overwritten_counts_as_far_as_it_is_its_own() -> None:
    parts = transaction(buffer_item(64, b"1" * 128), buffer_item(72, b"2" * 128))
    log = bytearray(records(parts[:4], parts[4:], checksums=False))
    assert written(transactions(bytes(log))) == [b"1", b"2"]
    many = [part for block in range(8) for part in transaction(buffer_item(64 + 8 * block, b"%d" % block * 128))]
    log = bytearray(records(many, checksums=False))
    struct.pack_into(">I", log, 512 * 3, 9)  # of another cycle
    found = written(transactions(bytes(log)))
    assert 0 < len(found) < 8
    assert found == [b"%d" % block for block in range(len(found))]


def test_changes_whose_transaction_began_in_a_lost_record_count_from_the_next_one_on() -> None:
    inode = tuple(inode_item(0x005, log_core(), b"D" * 16).regions)
    parts = transaction(buffer_item(64, b"1" * 128), inode, buffer_item(72, b"2" * 128))
    assert transactions(records(parts[4:], block=7)) == []  # it is not where its header says
    log = bytes(7 * 512) + records(parts[3:], block=7)  # the first buffer's header and part of its data are gone
    (one,) = transactions(log)
    assert [item.kind for item in one.items] == [0x123B, 0x123C]
    assert one.items[0].regions == list(inode)


def test_a_missing_record_takes_the_change_with_it_that_it_had_a_part_of() -> None:
    head, data = buffer_item(72, b"x" * 128)
    parts = [
        *transaction(buffer_item(64, b"1" * 128), committed=False),
        operation(0, head),
        operation(CONTINUES, data[:50]),
    ]
    rest = [operation(CONTINUATION, data[50:]), *transaction(buffer_item(80, b"2" * 128))[2:]]
    whole = records(parts, rest)
    assert written(transactions(whole)) == [b"1", b"x", b"2"]
    gap = records(parts) + bytes(512)
    log = gap + records(rest, block=len(gap) // 512)
    assert written(transactions(log)) == [b"1", b"2"]


def test_what_was_not_committed_is_counted_and_left_out() -> None:
    log = records(transaction(buffer_item(64, b"1" * 128)), transaction(buffer_item(64, b"2" * 128), committed=False))
    history = LogHistory(file_system(log), ignore)
    assert written(list(history.transactions())) == [b"1"]
    assert history.unfinished == 1


def test_records_that_cannot_be_true_are_left_out() -> None:
    good = records(transaction(buffer_item(64, b"1" * 128)), transaction(buffer_item(72, b"2" * 128)))
    faults: list[str] = []
    changed = bytearray(good)
    changed[-20] ^= 1
    assert written(transactions(bytes(changed), faults)) == [b"1"]
    assert faults == ["the checksum of the record at block 2 of the log does not fit; it is left out"]
    other = bytearray(good)
    other[304:320] = b"of another system"[:16]
    assert written(transactions(bytes(other))) == [b"2"]


def test_of_a_very_long_log_the_newest_records_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forensics_lib.formats.xfs_log_history.MAX_BYTES", 1024)
    faults: list[str] = []
    log = records(*[transaction(buffer_item(64, b"%d" % number * 128)) for number in range(4)])
    assert written(transactions(log, faults)) == [b"2", b"3"]
    assert faults == ["the oldest 2 records of the log are not used"]


def test_a_log_on_another_device() -> None:
    geometry = file_system(b"")
    geometry.log_start = 0
    with pytest.raises(UnsupportedFormat):
        LogHistory(geometry, ignore)


def test_progress_is_told_of_every_record() -> None:
    told: list[tuple[int, int]] = []
    log = records(*[transaction(buffer_item(64, b"1" * 128))] * 3)
    history = LogHistory(file_system(log), ignore, lambda done, total: told.append((done, total)))
    assert len(list(history.transactions())) == 3
    assert told == [(1, 3), (2, 3), (3, 3)]


@settings(max_examples=150)
@given(st.lists(st.tuples(st.integers(0, 4095), st.integers(0, 255)), max_size=30), st.booleans(), st.integers(0, 3))
def test_any_log(changes: list[tuple[int, int]], checksums: bool, missing: int) -> None:
    items = [buffer_item(64, b"1" * 128), tuple(inode_item(5, log_core(), b"x" * 16).regions)]
    parts = transaction(*items, *items)
    log = bytearray(records(parts[:5], parts[5:], *[transaction(*items)] * 3, checksums=checksums))
    for at, value in changes:
        log[at % len(log)] = value
    for found in transactions(bytes(log[missing * 512 :])):
        for item in found.items:
            buffer_header(item)
            assert item.regions


@given(st.binary(max_size=200), st.lists(st.binary(max_size=300), max_size=4))
def test_any_buffer(head: bytes, regions: list[bytes]) -> None:
    try:
        found = list(buffer_regions(LogItem(0x123C, "<", [head, *regions]), BLOCK))
    except DamagedData:
        return
    assert all(at >= 0 and at + len(data) <= BLOCK for at, data in found)


def test_the_log_is_not_read_again_and_again() -> None:
    geometry = file_system(records(transaction(buffer_item(64, b"1" * 128))))
    counted = Counted(geometry.source)
    geometry.source = counted
    list(LogHistory(geometry, ignore).transactions())
    assert counted.bytes < 3 * LOG * BLOCK


class Counted(Source):
    """Counts what is read."""

    def __init__(self, source: Source) -> None:
        self._source, self.size, self.origin = source, source.size, source.origin
        self.bytes = 0

    def read_at(self, offset: int, length: int) -> bytes:
        self.bytes += length
        return self._source.read_at(offset, length)
