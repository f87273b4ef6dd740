from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forensics_lib._crc32c import crc32c
from forensics_lib.errors import DamagedData
from forensics_lib.formats.xfs import XfsGeometry
from forensics_lib.formats.xfs_log import LogItem, XfsLog
from forensics_lib.formats.xfs_replay import XfsReplayed
from forensics_lib.formats.xfs_replay_inode import InodeChange
from forensics_lib.model import Origin
from forensics_lib.sources.base import BytesSource
from tests.formats.test_xfs import BLOCK, ignore, superblock

LOG = 32  # blocks from 16 on
START, COMMIT, CONTINUATION = 0x01, 0x02, 0x08
HEADER = b"NART" + bytes(12)


def operation(flags: int, region: bytes = b"", number: int = 7) -> bytes:
    return struct.pack(">IIBBxx", number, len(region), 0x69, flags) + region


def buffer_item(block: int, data: bytes, flags: int = 0, bits: int = 1) -> tuple[bytes, ...]:
    """A change of the first bytes of a buffer of one block, which starts at a basic block."""
    return (struct.pack("<HHHHqII", 0x123C, 2 if data else 1, flags, 8, block, 1, bits), *([data] if data else []))


def transaction(*items: tuple[bytes, ...], number: int = 7, committed: bool = True) -> list[bytes]:
    regions = [region for item in items for region in item]
    parts = [operation(START, number=number), *(operation(0, region, number) for region in (HEADER, *regions))]
    return parts + ([operation(COMMIT, number=number)] if committed else [])


def records(
    *contents: list[bytes], tail: int = 0, block: int = 0, cycle: int = 1, checksums: bool = True, size: int = 32 << 10
) -> bytes:
    """Records one behind the other, whose headers have room for records of a size."""
    log = b""
    for operations in contents:
        data = bytearray(b"".join(operations))
        data += bytes(-len(data) % 512)
        words = bytearray(256)
        for index in range(len(data) // 512):
            words[4 * index : 4 * index + 4] = data[512 * index : 512 * index + 4]
            data[512 * index : 512 * index + 4] = struct.pack(">I", cycle)
        at = block + len(log) // 512
        lsn, oldest = cycle << 32 | at, cycle << 32 | tail
        head = struct.pack(">4sIIIQQIII", b"\xfe\xed\xba\xbe", cycle, 2, len(data), lsn, oldest, 0, 0, len(operations))
        header = bytearray((head + words + struct.pack(">I16sI", 1, b"identifier of it", size)).ljust(512, b"\0"))
        if checksums:
            struct.pack_into("<I", header, 32, crc32c(data, crc32c(header[:328])))
        log += header + struct.pack(">I", cycle).ljust(512, b"\0") * (-(-size // (32 << 10)) - 1) + data
    return log


def file_system(log: bytes, version: int = 5) -> XfsGeometry:
    block = bytearray(superblock(version))
    struct.pack_into(">Q", block, 48, 16)
    struct.pack_into(">I", block, 96, LOG)
    data = bytes(block).ljust(16 * BLOCK, b"\0") + log
    return XfsGeometry(BytesSource(data.ljust(64 * BLOCK, b"\0"), Origin("disk")))


def replayed(log: bytes, faults: list[str] | None = None) -> XfsReplayed:
    report = ignore if faults is None else faults.append
    disk = file_system(log)
    return XfsReplayed(disk, XfsLog(disk, report), report)


def test_committed_transactions_are_applied_in_order() -> None:
    first = transaction(buffer_item(64, b"1" * 128), buffer_item(72, b"2" * 128))
    second = transaction(buffer_item(72, b"3" * 128, bits=2))
    lost = transaction(buffer_item(80, b"4" * 128), number=9, committed=False)
    source = replayed(records(first, second, lost))
    assert source.read_at(64 * 512, 130) == b"1" * 128 + b"\0\0"
    assert source.read_at(72 * 512, 257) == b"2" * 128 + b"3" * 128 + b"\0"
    assert source.read_at(80 * 512, 128) == bytes(128)
    assert source.read_at(64 * 512 - 3, 5) == b"\0\0\0" + b"11"
    assert source.transactions == 2
    assert source.summary() == "the log was replayed in memory: 2 transactions with 3 buffers"


def test_a_header_for_larger_records_than_its_own() -> None:
    """Its blocks are as many as the largest record needs; the checksum is made over those that this one uses."""
    log = records(transaction(buffer_item(64, b"1" * 128)), size=256 << 10)
    assert len(log) == 9 * 512
    faults: list[str] = []
    source = replayed(log, faults)
    assert source.read_at(64 * 512, 128) == b"1" * 128
    assert faults == []


def test_a_region_may_go_on_in_the_next_record() -> None:
    head, data = buffer_item(64, b"x" * 128)
    parts = transaction((head, data[:50]))
    source = replayed(records(parts[:-1], [operation(CONTINUATION, data[50:]), parts[-1]]))
    assert source.read_at(64 * 512, 129) == b"x" * 128 + b"\0"


def test_buffers_that_are_freed_later_are_left_out_until_they_are_used_again() -> None:
    write, free = buffer_item(64, b"old" + bytes(125)), buffer_item(64, b"", flags=2)
    source = replayed(records(transaction(write), transaction(free), transaction(buffer_item(64, b"n" * 128))))
    assert source.read_at(64 * 512, 128) == b"n" * 128
    assert source.skipped == {"buffers that were freed": 1}
    source = replayed(records(transaction(write), transaction(free)))
    assert source.read_at(64 * 512, 128) == bytes(128)


def test_what_is_newer_in_place_stays() -> None:
    newer = b"XDB3".ljust(16, b"\0") + struct.pack(">Q16s", 5 << 32, b"identifier of it")
    log = records(transaction(buffer_item(64, newer.ljust(128, b"\0"))), transaction(buffer_item(64, b"o" * 128)))
    source = replayed(log)
    assert source.read_at(64 * 512, 4) == b"XDB3"
    assert source.skipped == {"buffers that are newer in place": 1}


def test_operations_that_were_not_finished_are_named() -> None:
    begun = (struct.pack("<HHIQ", 0x1236, 1, 0, 99),)
    also = (struct.pack("<HHIQ", 0x1236, 1, 0, 98),)
    done = (struct.pack("<HHIQ", 0x1237, 1, 0, 99),)
    source = replayed(records(transaction(begun, also), transaction(done)))
    assert source.unfinished == {"freeing of extents": 1}
    assert source.summary().endswith("begun and not finished, so not applied: 1 freeing of extents")


def test_a_buffer_that_does_not_fit_is_left_out_and_the_rest_goes_on() -> None:
    wrong = buffer_item(1 << 40, b"w" * 128)
    faults: list[str] = []
    source = replayed(records(transaction(wrong, buffer_item(64, b"1" * 128))), faults)
    assert source.read_at(64 * 512, 1) == b"1"
    assert "a change in the log cannot be applied" in faults[0]


def test_an_incomplete_or_changed_record_ends_the_log() -> None:
    good, torn = transaction(buffer_item(64, b"1" * 128)), transaction(buffer_item(72, b"2" * 128))
    log = bytearray(records(good, torn))
    log[-20] ^= 1
    faults: list[str] = []
    source = replayed(bytes(log), faults)
    assert (source.read_at(64 * 512, 1), source.read_at(72 * 512, 1)) == (b"1", b"\0")
    assert faults == ["the log ends before block 2: the record there is not complete"]


def test_a_log_that_has_gone_round() -> None:
    size = LOG * BLOCK // 512
    old = records(*[transaction(buffer_item(64, b"o" * 128))] * (size // 2), checksums=False)
    last = records(transaction(buffer_item(80, b"e" * 128)), tail=size - 2, block=size - 2)
    new = bytearray(records(transaction(buffer_item(72, b"n" * 128)), tail=0, cycle=2))
    struct.pack_into(">Q", new, 24, 1 << 32 | size - 2)
    struct.pack_into("<I", new, 32, 0)
    source = replayed(bytes(new) + old[len(new) : (size - 2) * 512] + last)
    assert source.read_at(72 * 512, 1) == b"n"
    assert source.read_at(80 * 512, 1) == b"e"
    assert source.read_at(64 * 512, 1) == b"\0"


def test_clean_logs() -> None:
    unmounted = records(transaction(buffer_item(64, b"1" * 128)), [operation(0x20, b"nU" + bytes(6))])
    for data in (b"", unmounted):
        assert XfsLog(file_system(data), ignore).is_clean
    log = XfsLog(file_system(records(transaction(buffer_item(64, b"1" * 128)))), ignore)
    assert not log.is_clean
    assert [record.operations for record in log.records()] == [5]
    with pytest.raises(DamagedData, match="no complete record"):
        XfsLog(file_system(b"\0\0\0\1" + bytes(508)), ignore)


def inode_item(fields: int, core: bytes, *regions: bytes, number: int = 8) -> LogItem:
    head = struct.pack("<HHIHH4xQI12xqii", 0x123B, 2 + len(regions), fields, 0, 0, number, 5 << 18, 8, 8, 0)
    return LogItem(0x123B, "<", [head, core, *regions])


def log_core(version: int = 3, flags2: int = 8, flushes: int = 9) -> bytes:
    core = bytearray(176)
    struct.pack_into("<HHBB", core, 0, 0x494E, 0o100755, version, 2)
    struct.pack_into("<III", core, 8, 1000, 100, 3)
    if version < 3:
        struct.pack_into("<H", core, 30, flushes)
        struct.pack_into("<iI", core, 32, -5, 7)
        return bytes(core[:96])
    struct.pack_into("<QQQQ", core, 32, 11, 12, 13, 4096)
    struct.pack_into("<Q", core, 120, flags2)
    struct.pack_into("<QQ16s", core, 144, 14, 8, b"identifier of it")
    return bytes(core)


def test_an_inode_of_the_log() -> None:
    data = b"D" * 16
    change = InodeChange(inode_item(0x005, log_core(), data))
    inode = bytearray(512)
    inode[4] = 3
    assert (change.number, change.buffer) == (8, (8, 8))
    assert not change.is_older(inode, 5)
    struct.pack_into(">Q", inode, 112, 6)
    assert change.is_older(inode, 5)
    assert not change.is_older(inode, 6)
    change.apply(inode, 9)
    assert struct.unpack_from(">HHBB", inode) == (0x494E, 0o100755, 3, 2)
    assert struct.unpack_from(">III", inode, 8) == (1000, 100, 3)
    assert struct.unpack_from(">QQQQ", inode, 32) == (11, 12, 13, 4096)
    assert struct.unpack_from(">QQ", inode, 112) == (9, 8)
    assert struct.unpack_from(">QQ16s", inode, 144) == (14, 8, b"identifier of it")
    assert inode[176:193] == data + b"\0"


def test_an_old_inode_of_the_log() -> None:
    change = InodeChange(inode_item(0x011, log_core(2)))
    inode = bytearray(256)
    inode[4] = 2
    for there, older in ((9, False), (10, True), (0xFFFF, False)):
        struct.pack_into(">H", inode, 30, there)
        assert change.is_older(inode, 1) is older
    change.apply(inode, 1)
    assert struct.unpack_from(">iI", inode, 32) == (-5, 7)
    assert struct.unpack_from(">I", inode, 100) == (5 << 18,)
    assert inode[30:32] == b"\0\0"


def test_the_root_of_a_tree_is_logged_as_a_block() -> None:
    block = struct.pack(">4sHH", b"BMA3", 1, 2).ljust(72, b"\0") + struct.pack(">QQQQQQ", 0, 50, 0, 1001, 1002, 0)
    inode = bytearray(512)
    InodeChange(inode_item(0x009, log_core(), block)).apply(inode, 1)
    room = (336 - 4) // 16
    assert struct.unpack_from(">HHQQ", inode, 176) == (1, 2, 0, 50)
    assert struct.unpack_from(">QQ", inode, 180 + 8 * room) == (1001, 1002)


@given(st.integers(0, 0xFFFF), st.lists(st.binary(max_size=200), max_size=3), st.binary(min_size=56, max_size=60))
def test_any_inode_item(fields: int, regions: list[bytes], head: bytes) -> None:
    for item in (inode_item(fields, log_core(), *regions), LogItem(0x123B, "<", [head, *regions])):
        inode = bytearray(512)
        try:
            InodeChange(item).apply(inode, 1)
        except DamagedData:
            continue
        assert len(inode) == 512


@settings(max_examples=150)
@given(st.lists(st.tuples(st.integers(0, 2047), st.integers(0, 255)), max_size=20), st.booleans())
def test_any_log(changes: list[tuple[int, int]], checksums: bool) -> None:
    items = [buffer_item(64, b"1" * 128), tuple(inode_item(5, log_core(), b"x" * 16).regions)]
    log = bytearray(records(transaction(*items), transaction(buffer_item(64, b"", flags=2)), checksums=checksums))
    for at, value in changes:
        log[at % len(log)] = value
    try:
        source = replayed(bytes(log))
    except DamagedData:
        return
    assert len(source.read_at(0, source.size)) == source.size
