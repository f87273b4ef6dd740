from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forensics_lib.errors import DamagedData, LimitExceeded
from forensics_lib.formats.protobuf import Message, read_fields

# Examples of the specification ("Encoding" at protobuf.dev), and of its wire types.
EXAMPLES = [
    ("089601", [(1, 150)]),
    ("120774657374696e67", [(2, b"testing")]),
    ("1a03089601", [(3, b"\x08\x96\x01")]),
    ("08feffffffffffffffff01", [(1, 2**64 - 2)]),
    ("0d0000803f", [(1, 0x3F800000)]),
    ("09000000000000f03f", [(1, 0x3FF0000000000000)]),
    ("08010802", [(1, 1), (1, 2)]),
    ("f8ffffff0f00", [(2**29 - 1, 0)]),
    ("", []),
]


@pytest.mark.parametrize(("data", "fields"), EXAMPLES)
def test_fields(data: str, fields: list[tuple[int, int | bytes]]) -> None:
    assert list(read_fields(bytes.fromhex(data))) == fields


@pytest.mark.parametrize(
    ("data", "offset", "message"),
    [
        ("08", 0, "number is cut off or longer than 64 bits"),
        ("0801 1205 61", 2, "field 2 has 5 bytes, only 1 are there"),
        ("0801 0d 0000", 2, "field 1 has 4 bytes, only 2 are there"),
        ("0801 0b 0c", 2, "field 1 has wire type 3, which is not read"),
        ("0c", 0, "field 1 has wire type 4, which is not read"),
        ("0e", 0, "field 1 has wire type 6, which is not read"),
        ("0000", 0, "field number 0 is not allowed"),
        ("808080801000", 0, "field number 536870912 is not allowed"),
        ("08ffffffffffffffffff02", 0, "number is cut off or longer than 64 bits"),
        ("08ffffffffffffffffffff01", 0, "number is cut off or longer than 64 bits"),
        ("12ffffffffffffffffff01", 0, f"field 2 has {2**64 - 1} bytes, only 0 are there"),
    ],
)
def test_damage(data: str, offset: int, message: str) -> None:
    raw = bytes.fromhex(data)
    with pytest.raises(DamagedData, match=message) as caught:
        list(read_fields(raw))
    assert caught.value.offset == offset
    damage = Message(raw).damage
    assert damage is not None
    assert str(damage) == message
    assert (1 in Message(raw)) == (offset > 0)  # what stands before the damage is there


def test_the_number_of_fields_is_bounded() -> None:
    with pytest.raises(LimitExceeded):
        list(read_fields(b"\x08\x01" * 11, limit=10))
    assert len(list(read_fields(b"\x08\x01" * 10, limit=10))) == 10


def test_a_message_by_its_schema() -> None:
    pair = "0a016b 120176"
    message = Message(bytes.fromhex(f"0801 08ffffffffffffffffff01 1203caffe9 1a06{pair} 1a00 2202c3a9 0a0178 3001"))
    assert message.damage is None
    assert message.numbers == (1, 2, 3, 4, 6)
    assert message.integer(1) == 2**64 - 1
    assert message.signed(1) == -1
    assert message.data(2) == b"\xca\xff\xe9"
    assert message.text(2) == "\udcca\udcff\udce9"
    assert message.text(4) == "é"
    assert message.texts(4) == ("é",)
    assert message.flag(6)
    assert [(one.text(1), one.text(2)) for one in message.messages(3)] == [("k", "v"), ("", "")]
    assert message.message(3).numbers == ()  # of several the last counts
    assert Message(bytes.fromhex(f"1a06{pair}")).mapping(3) == {"k": "v"}


def test_missing_fields_and_other_wire_types_read_as_defaults() -> None:
    message = Message(bytes.fromhex("0801 120161"))
    assert (message.data(1), message.text(1), message.texts(1)) == (b"", "", ())
    assert (message.integer(2), message.signed(2), message.flag(2)) == (0, 0, False)
    assert (message.integer(9), message.data(9), message.mapping(9), message.message(9).numbers) == (0, b"", {}, ())
    assert 9 not in message


@given(st.binary(max_size=60))
def test_any_bytes_are_a_message(data: bytes) -> None:
    message = Message(data)
    for number in message.numbers:
        message.signed(number)
        message.text(number)
        message.mapping(number)
    if message.damage is not None:
        assert 0 <= (message.damage.offset or 0) < len(data)


@given(st.lists(st.tuples(st.integers(1, 2**29 - 1), st.integers(0, 2**64 - 1) | st.binary(max_size=300))))
def test_what_is_written_comes_back(fields: list[tuple[int, int | bytes]]) -> None:
    data = b"".join(field(number, value) for number, value in fields)
    assert list(read_fields(data)) == fields


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
