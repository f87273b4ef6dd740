from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from forensics_lib.errors import DamagedData, ForensicsError, LimitExceeded, UnsupportedFormat
from forensics_lib.formats.journal import Accept, JournalEntry, JournalFile
from forensics_lib.formats.journal_check import check_hashes
from forensics_lib.formats.journal_hash import jenkins64, siphash24
from forensics_lib.formats.journal_header import LONGEST_HEADER, JournalState, decode_header
from forensics_lib.formats.journal_objects import JournalObjects, ObjectKind
from forensics_lib.formats.lz4 import lz4_block
from forensics_lib.model import Origin
from forensics_lib.sources.base import BytesSource
from tests.formats.journals import FORMS, exported, journal, member, row

ORIGIN = Origin("system.journal")
STATE = 16


def open_journal(data: bytes) -> tuple[JournalFile, list[str]]:
    problems: list[str] = []
    source = BytesSource(data, ORIGIN)
    return JournalFile(source, ORIGIN, lambda error: problems.append(str(error))), problems


def read(data: bytes, accept: Accept | None = None) -> tuple[list[JournalEntry], list[str]]:
    file, problems = open_journal(data)
    return list(file.entries(accept)), problems


def changed(data: bytes, offset: int, new: bytes) -> bytes:
    return data[:offset] + new + data[offset + len(new) :]


@pytest.mark.parametrize("form", FORMS)
def test_the_entries_are_those_that_journalctl_reads(form: str) -> None:
    entries, problems = read(member(f"/{form}.journal"))
    assert [row(entry) for entry in entries] == exported(member("/compact-keyed-zstd.export"))
    assert len(entries) == 65
    assert [entry.seqnum for entry in entries] == list(range(1, 66))
    assert all(entry.listed and not entry.lost for entry in entries)
    assert problems == []


@pytest.mark.parametrize("form", FORMS)
def test_a_file_that_was_not_closed_is_read_object_by_object(form: str) -> None:
    entries, problems = read(changed(journal(form), STATE, b"\1"))
    assert entries == read(journal(form))[0]
    assert problems == ["the journal was not closed (its state is online): its last entries may be missing"]


def test_what_the_header_says() -> None:
    features = [open_journal(journal(form))[0].header.features for form in FORMS]
    assert features == [set(), {"xz"}, {"keyed hash", "lz4"}, {"compact", "keyed hash", "zstd"}, {"lz4"}]
    sizes = [open_journal(journal(form))[0].header.header_size for form in FORMS]
    assert sizes == [272, 272, 272, 272, 256]
    header = open_journal(journal("compact-keyed-zstd"))[0].header
    assert (header.state, header.closed, header.compact, header.sealed) == (JournalState.OFFLINE, True, True, False)
    assert (header.entries, header.head_seqnum, header.tail_seqnum) == (65, 1, 65)
    assert (header.head_realtime_us, header.tail_realtime_us) == (1_760_000_000_000_000, 1_760_000_000_064_064)
    assert header.boot_id == "d2289438fe964594b393601f022b754b"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("state", [0, 1])
def test_entries_by_their_fields(form: str, state: int) -> None:
    data = changed(journal(form), STATE, bytes([state]))
    wanted: Accept = {"CONTAINER_ID_FULL": lambda value: value == b"5f" * 32, "UNIT": lambda value: True}
    entries, _ = read(data, wanted)
    everything, _ = read(data)
    assert entries == [e for e in everything if e.get("CONTAINER_ID_FULL") == b"5f" * 32 or e.get("UNIT") is not None]
    assert len(entries) == 60
    assert read(data, {"UNIT": lambda value: False})[0] == []
    assert read(data, {"NO_SUCH_FIELD": lambda value: True})[0] == []


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("state", [0, 1])
def test_entries_without_a_field(form: str, state: int) -> None:
    file, _ = open_journal(changed(journal(form), STATE, bytes([state])))
    accept: Accept = {"_COMM": lambda value: value in (b"dockerd", b"sudo")}
    found = list(file.entries(accept, without="CONTAINER_ID_FULL"))
    assert [entry.text("_COMM") for entry in found] == ["dockerd", "sudo"]
    assert len(list(file.entries(accept, without="NONE"))) == 61


def test_one_file_answers_several_questions() -> None:
    file, _ = open_journal(changed(journal("wide-keyed-lz4"), STATE, b"\1"))
    assert len(list(file.entries({"_COMM": lambda value: value == b"sudo"}))) == 1
    assert len(list(file.entries({"_COMM": lambda value: value == b"cron"}))) == 1
    assert len(list(file.entries({"UNIT": lambda value: True}))) == 1
    assert len(list(file.entries())) == 65


@pytest.mark.parametrize("form", FORMS)
def test_the_values_of_a_field(form: str) -> None:
    file, problems = open_journal(journal(form))
    assert sorted((value, count) for value, count, _ in file.values("_COMM")) == [
        (b"containerd", 1),
        (b"cron", 1),
        (b"dockerd", 60),
        (b"sudo", 1),
        (b"systemd", 1),
    ]
    assert [(value, entry.seqnum) for value, _, entry in file.values("SAME")] == [(b"two", 12), (b"one", 12)]
    assert list(file.values("NONE")) == []
    online, _ = open_journal(changed(journal(form), STATE, b"\1"))
    assert sorted(online.values("_COMM"), key=lambda one: one[0]) == sorted(
        file.values("_COMM"), key=lambda one: one[0]
    )
    assert problems == []


def test_an_entry() -> None:
    entries, _ = read(journal("compact-keyed-zstd"))
    odd = entries[5]
    assert odd.get("MESSAGE") == b"\xff\xfe bytes \x00 and\nlines"
    assert odd.text("MESSAGE") == "\udcff\udcfe bytes \x00 and\nlines"
    assert (odd.get("NONE"), odd.text("NONE")) == (None, "")
    assert odd.time_ns == 1_760_000_000_005_005_000
    assert str(odd.time) == "2025-10-09 08:53:20.005005+00:00"
    assert str(odd.origin) == f"system.journal > entry @{odd.offset}"
    twice = next(entry for entry in entries if entry.get("SAME"))
    assert [value for name, value in twice.fields if name == "SAME"] == [b"one", b"two"]


@pytest.mark.parametrize("form", FORMS)
def test_a_file_that_is_cut_off_gives_what_is_there(form: str) -> None:
    data = journal(form)
    whole, _ = read(data)
    cut = whole[40].offset
    entries, problems = read(data[:cut])
    assert entries == whole[:40]
    assert problems == [
        f"journal of {len(data)} bytes is cut off after {cut}",
        "25 entries lie behind the end of the file and are lost",
    ]
    entries, _ = read(data[:cut], {"CONTAINER_NAME": lambda value: value == b"shop"})
    assert [entry.seqnum for entry in entries] == [e.seqnum for e in whole[:40] if e.text("CONTAINER_NAME") == "shop"]


@pytest.mark.parametrize("form", FORMS)
def test_without_its_index_every_object_is_read(form: str) -> None:
    data = journal(form)
    whole, _ = read(data)
    file, _ = open_journal(data)
    data = changed(data, file.header.entry_array_offset, b"\xff" * 32)
    entries, problems = read(data)
    assert [row(entry) for entry in entries] == [row(entry) for entry in whole]
    assert not any(entry.listed for entry in entries)
    assert problems[0].startswith("the journal's index is damaged, so every object is read: no entry array object is")
    assert problems[-1] == "65 entries are not in the journal's index; they were found by reading on"


def test_an_index_that_leaves_entries_out_is_not_believed() -> None:
    data = journal("wide-jenkins-plain")
    shortened = changed(data, 152, (64).to_bytes(8, "little"))
    entries, problems = read(shortened)
    assert len(entries) == 65
    assert "it names 65 entries, the header counts 64" in problems[0]


def test_a_damaged_stretch_is_passed_over_and_told() -> None:
    data = journal("compact-keyed-zstd")
    whole, _ = read(data)
    start, end = whole[20].offset, whole[24].offset
    entries, problems = read(changed(data, start, b"\xa5" * (end - start)))
    lost = {whole[number].seqnum for number in range(20, 24)}
    assert [entry.seqnum for entry in entries] == [entry.seqnum for entry in whole if entry.seqnum not in lost]
    assert sum("an entry is damaged" in problem for problem in problems) == 4
    online = changed(changed(data, start, b"\xa5" * (end - start)), STATE, b"\1")
    entries, problems = read(online)
    assert {entry.seqnum for entry in whole} - {entry.seqnum for entry in entries} == lost
    assert any("hold no object; they are passed over" in problem for problem in problems)


def test_a_field_that_is_damaged_is_lost_alone() -> None:
    data = journal("wide-jenkins-xz")
    place = data.index(b"\xfd7zXZ")
    entries, problems = read(changed(data, place + 30, bytes(20)))
    (damaged,) = [entry for entry in entries if entry.lost]
    assert damaged.get("CONTAINER_PARTIAL_ORDINAL") == b"1"
    assert damaged.get("MESSAGE") is None
    assert len(problems) == 1
    assert problems[0].startswith("a field of the entry cannot be read: a compressed field is damaged")


@pytest.mark.parametrize("junk", [b"", b"LPKSHHRH", b"\0" * 4096, b"LPKSHHRH" + b"\xff" * 400])
def test_what_is_no_journal_is_refused(junk: bytes) -> None:
    with pytest.raises((DamagedData, UnsupportedFormat)):
        open_journal(junk)


def test_a_newer_form_is_refused() -> None:
    with pytest.raises(UnsupportedFormat, match="not known here"):
        open_journal(changed(journal("wide-jenkins-plain"), 12, b"\x80"))


def test_an_impossible_header_is_refused() -> None:
    with pytest.raises(DamagedData, match="a header of 100000 bytes"):
        decode_header(changed(journal("wide-jenkins-plain"), 88, (100_000).to_bytes(8, "little")), ORIGIN)


@pytest.mark.parametrize("kind", [ObjectKind.ENTRY_ARRAY, ObjectKind.DATA])
def test_a_loop_in_the_index_ends(kind: ObjectKind) -> None:
    data = bytearray(journal("wide-jenkins-plain"))
    file, _ = open_journal(bytes(data))
    objects = JournalObjects(BytesSource(bytes(data), ORIGIN), file.header.header_size, compact=False)
    for found, offset, _ in objects.scan():
        if found is kind:
            at = offset + (16 if kind is ObjectKind.ENTRY_ARRAY else 32)  # next array; next value of the field
            data[at : at + 8] = offset.to_bytes(8, "little")
    entries, problems = read(bytes(data), {"_COMM": lambda value: True})
    assert len(entries) == 64
    assert any("not in order" in problem for problem in problems)


def test_a_field_beyond_the_limit_is_told() -> None:
    data = journal("wide-keyed-lz4")
    objects = JournalObjects(BytesSource(data, ORIGIN), 272, compact=False)
    (packed,) = [offset for kind, offset, _ in objects.scan() if kind is ObjectKind.DATA and data[offset + 1]]
    assert len(objects.payload(packed)) == len("MESSAGE=") + 16384
    fresh = JournalObjects(BytesSource(data, ORIGIN), 272, compact=False)
    with pytest.raises(LimitExceeded):
        fresh.payload(packed, 1000)
    entries, problems = read(changed(data, packed + 64, (1 << 40).to_bytes(8, "little")))
    assert [entry.lost for entry in entries].count(1) == 1
    assert "more than" in problems[0]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("change", [1, 16, 1 << 16])
def test_a_table_of_fields_that_lies_elsewhere_is_not_believed(form: str, change: int) -> None:
    whole = journal(form)
    table = int.from_bytes(whole[120:128], "little")
    entries, problems = read(changed(whole, 120, (table + change).to_bytes(8, "little")), {"CONTAINER_ID_FULL": bool})
    assert len(entries) == 59
    assert problems


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(FORMS), st.data())
def test_no_flipped_bit_ends_the_rest(form: str, data: st.DataObject) -> None:
    whole = journal(form)
    start = whole.index(b"MESSAGE=", len(whole) // 4) if data.draw(st.booleans()) else 0
    flips = data.draw(st.lists(st.tuples(st.integers(start, len(whole) - 1), st.integers(0, 7)), max_size=8))
    torn = bytearray(whole)
    for position, bit in flips:
        torn[position] ^= 1 << bit
    for accept in (None, {"CONTAINER_ID_FULL": lambda value: True}):
        try:
            entries, problems = read(bytes(torn), accept)
        except ForensicsError:
            assert any(position < LONGEST_HEADER for position, _ in flips)
            continue
        wanted = 65 if accept is None else 59
        assert len(entries) >= wanted - len(flips) or problems


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(FORMS), st.floats(0, 1), st.binary(max_size=64))
def test_any_cut_gives_entries_or_a_typed_error(form: str, where: float, tail: bytes) -> None:
    whole = journal(form)
    cut = int(len(whole) * where)
    try:
        entries, problems = read(whole[:cut] + tail)
    except ForensicsError:
        assert cut < LONGEST_HEADER
    else:
        assert problems or len(entries) == 65


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=4096))
def test_objects_in_any_bytes(junk: bytes) -> None:
    objects = JournalObjects(BytesSource(junk, ORIGIN), 0, compact=True)
    for kind, offset, size in objects.scan():
        assert 0 <= offset < offset + size <= len(junk)
        assert kind in ObjectKind


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (b"\x50hello", b"hello"),
        (b"\x1fa\x01\x00\x00\x50hello", b"a" * 20 + b"hello"),
        (b"\xf0\x01" + b"0123456789abcdef", b"0123456789abcdef"),
        (b"\x44abcd\x04\x00\x50hello", b"abcdabcdabcdhello"),
    ],
)
def test_lz4(block: bytes, expected: bytes) -> None:
    assert lz4_block(block, len(expected)) == expected
    for size in (len(expected) - 1, len(expected) + 1):
        with pytest.raises(DamagedData):
            lz4_block(block, size)


@given(st.binary(max_size=200), st.integers(0, 2000))
@example(b"\x0f\x01\x00" + b"\xff" * 100, 1000)
@example(b"\x10a\x00\x00", 10)
def test_lz4_of_any_bytes(block: bytes, size: int) -> None:
    with suppress(DamagedData):
        assert len(lz4_block(block, size)) == size


def test_hashes_of_known_bytes() -> None:
    assert siphash24(bytes(range(15)), bytes(range(16))) == 0xA129CA6149BE45E5  # of the paper
    assert jenkins64(b"") == 0xDEADBEEF_DEADBEEF  # of lookup3.c, as the next
    assert jenkins64(b"Four score and seven years ago") == 0x17770551_CE7226E6


@pytest.mark.parametrize("form", FORMS)
def test_every_stored_hash_is_computed_again(form: str) -> None:
    file, problems = open_journal(journal(form))
    checks = list(check_hashes(file))
    assert [check for check in checks if check.computed != check.stored] == []
    assert [sum(check.what == what for check in checks) for what in ("value", "entry")] == [223, 65]
    assert problems == []


def test_an_altered_value_is_found() -> None:
    data = journal("compact-keyed-zstd")
    place = data.index(b"MESSAGE=line 20 of many")
    file, _ = open_journal(changed(data, place + 8, b"fine"))
    wrong = [check for check in check_hashes(file) if check.computed != check.stored]
    assert [(check.what, check.name) for check in wrong] == [("value", "MESSAGE"), ("entry", "")]
    assert wrong[0].offset == place - 72


def test_a_value_that_does_not_unpack_has_no_hash() -> None:
    data = journal("wide-jenkins-xz")
    place = data.index(b"\xfd7zXZ")
    file, _ = open_journal(changed(data, place + 30, bytes(20)))
    wrong = [check for check in check_hashes(file) if check.computed != check.stored]
    assert [(check.what, check.computed, check.left_out) for check in wrong] == [
        ("value", None, False),
        ("entry", None, False),
    ]
