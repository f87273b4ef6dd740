"""JSON of evidence: bounded, of any shape, with Go's habits."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forensics_lib.errors import DamagedData, LimitExceeded
from forensics_lib.formats.jsondoc import (
    JsonObject,
    JsonValue,
    iter_objects,
    parse,
    parse_beginning,
    parse_object,
    parse_time,
)
from forensics_lib.model import Origin

ORIGIN = Origin("config.json")
VALUES: st.SearchStrategy[JsonValue] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def read(text: str | bytes) -> JsonValue:
    return parse(text.encode() if isinstance(text, str) else text, ORIGIN)


def document(text: str) -> JsonObject:
    return parse_object(text.encode(), ORIGIN)


# --- parsing ----------------------------------------------------------------------------------------------------------


@given(VALUES)
@settings(deadline=None)
def test_what_json_writes_is_read(value: JsonValue) -> None:
    assert read(json.dumps(value)) == value


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_any_bytes_give_a_value_or_an_error_of_the_library(data: bytes) -> None:
    try:
        parse(data, ORIGIN)
    except DamagedData as error:
        caught = error
    else:
        return
    assert caught.origin is ORIGIN


@given(st.text('{}[]",:0123456789.eE+-\\udDfFtrulasn \n\x00', max_size=40))
@settings(deadline=None)
def test_almost_json_gives_a_value_or_an_error_of_the_library(text: str) -> None:
    try:
        value = read(text)
    except DamagedData:
        return
    json.dumps(value).encode()


@pytest.mark.parametrize(
    "data", [b"", b"{", b"nul", b"[1,]", b"{'a': 1}", b"NaN", b"[Infinity]", b"-Infinity", b"\x00"]
)
def test_what_is_no_json(data: bytes) -> None:
    with pytest.raises(DamagedData, match="no valid JSON") as caught:
        parse(data, ORIGIN)
    assert caught.value.origin is ORIGIN
    assert not isinstance(caught.value, LimitExceeded)


def test_where_the_damage_lies() -> None:
    with pytest.raises(DamagedData) as caught:
        read('{"a": 1, b}')
    assert caught.value.offset == 9


def test_bytes_that_are_no_utf_8_are_kept() -> None:
    value = parse_object(b'{"Name": "caf\xe9"}', ORIGIN).text("Name")
    assert value == "caf\udce9"
    assert value.encode("utf-8", "surrogateescape") == b"caf\xe9"


def test_a_byte_order_mark_is_passed_over() -> None:
    assert read(b"\xef\xbb\xbf[1]") == [1]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r'"\ud800"', "\ufffd"),
        (r'"\uDBFFx"', "\ufffdx"),
        (r'"\udc80"', "\ufffd"),
        (r'"\udfff\ud83d"', "\ufffd\ufffd"),
        (r'"\ud83d\u0041"', "\ufffdA"),
        (r'"\ud83d\ude00"', "😀"),
        (r'"\uD83D\uDE00\ud83d"', "😀\ufffd"),
        (r'"\\ud800"', r"\ud800"),
        (r'"\\\ud800"', "\\\ufffd"),
        (r'"\u0000\ud800\n"', "\0\ufffd\n"),
    ],
)
def test_half_a_surrogate_pair_becomes_the_replacement_character(text: str, value: str) -> None:
    """As in Go; Python's own reader makes a string of it that nothing can encode."""
    assert read(text) == value


@given(st.text(st.characters(), max_size=30))
@settings(deadline=None)
def test_escaped_text_can_always_be_stored(text: str) -> None:
    value = read(json.dumps(text))
    assert isinstance(value, str)
    value.encode()
    assert value == text or any("\ud800" <= letter <= "\udfff" for letter in text)


def test_documents_are_bounded() -> None:
    with pytest.raises(LimitExceeded, match="JSON document of 12 bytes; the limit is 11"):
        parse(b" " * 11 + b"1", ORIGIN, limit=11)
    assert parse(b" " * 10 + b"1", ORIGIN, limit=11) == 1
    with pytest.raises(LimitExceeded, match="nested too deep"):
        parse(b"[" * 200_000, ORIGIN)
    with pytest.raises(LimitExceeded, match="nested too deep"):
        parse(b'{"a":' * 200_000, ORIGIN)
    with pytest.raises(DamagedData):
        parse(b"1" * 5000, ORIGIN)  # more digits than Python makes a number of


def test_a_document_that_has_to_be_an_object() -> None:
    assert parse_object(b'{"a": 1}', ORIGIN).raw == {"a": 1}
    with pytest.raises(DamagedData, match="expected a JSON object, found list"):
        parse_object(b"[]", ORIGIN)
    with pytest.raises(DamagedData, match="expected a JSON object, found NoneType"):
        parse_object(b"null", ORIGIN)


# --- reading ----------------------------------------------------------------------------------------------------------


def test_values_in_the_type_that_is_needed() -> None:
    it = document(
        '{"text": "t", "number": 5, "float": 5.0, "half": 5.5, "yes": true, "none": null,'
        ' "list": ["a", 1, {"k": "v"}, null, "b"], "map": {"a": "1", "b": 2, "c": "3"}}'
    )
    assert (it.text("text"), it.text("number"), it.text("missing", "default")) == ("t", "", "default")
    assert (it.integer("number"), it.integer("float"), it.integer("half"), it.integer("yes")) == (5, 5, None, None)
    assert (it.integer("text"), it.integer("missing")) == (None, None)
    assert (it.flag("yes"), it.flag("number"), it.flag("missing")) == (True, False, False)
    assert it.object("map").mapping("a") == {}
    assert it.mapping("map") == {"a": "1", "c": "3"}
    assert it.object("list").raw == {}
    assert [item.raw for item in it.objects("list")] == [{"k": "v"}]
    assert (it.texts("list"), it.texts("text"), it.texts("number")) == (("a", "b"), ("t",), ())
    assert ("none" in it, it.get("none"), "missing" in it) == (True, None, False)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("9223372036854775807", 2**63 - 1),
        ("18446744073709551615", 2**64 - 1),
        ("18446744073709551616", None),
        ("-9223372036854775808", -(2**63)),
        ("-9223372036854775809", None),
        ("1e300", None),
        ("1e400", None),
        ("1e3", 1000),
        ("-0.0", 0),
    ],
)
def test_whole_numbers_have_64_bits(text: str, number: int | None) -> None:
    assert document(f'{{"size": {text}}}').integer("size") == number


def test_keys_match_exactly_before_they_match_without_case() -> None:
    it = document('{"ID": "upper", "id": "lower", "Created": "then"}')
    assert (it.text("id"), it.text("ID"), it.text("Id")) == ("lower", "upper", "upper")
    assert it.text("created") == "then"
    assert "created" not in it


def test_of_keys_that_come_twice_the_last_counts() -> None:
    assert document('{"a": 1, "a": 2}').integer("a") == 2


@given(VALUES, st.text(max_size=3))
@settings(deadline=None)
def test_readers_take_any_shape(value: JsonValue, key: str) -> None:
    it = JsonObject({key: value})
    assert isinstance(it.text(key), str)
    assert isinstance(it.texts(key), tuple)
    assert isinstance(it.mapping(key), dict)
    assert all(isinstance(item, JsonObject) for item in (it.object(key), *it.objects(key), *iter_objects(value)))
    assert it.integer(key) is None or isinstance(it.integer(key), int)
    assert it.flag(key) in (True, False)


# --- times ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2016-05-03T17:22:40.123456789Z", 1462296160123456789),
        ("2016-05-03T17:22:40.1Z", 1462296160100000000),
        ("2016-05-03T19:22:40.123456789+02:00", 1462296160123456789),
        ("2016-05-03T12:52:40.000000001-04:30", 1462296160000000001),
        ("2016-05-03T17:22:40.1234567899Z", 1462296160123456789),
        ("1969-12-31T23:59:59.999999999Z", -1),
        ("1969-12-31T23:59:59Z", -(10**9)),
        ("9999-12-31T23:59:59.999999999Z", 253402300799999999999),
        ("0001-01-01T00:00:00Z", None),
        ("0001-01-01T00:00:00+05:00", None),
        ("", None),
        ("yesterday", None),
        ("2016-13-03T17:22:40Z", None),
        ("2016-05-03T17:22:60Z", None),
        ("2016-05-03T17:22:40.Z", 1462296160000000000),
        ("٢٠١٦-05-03T17:22:40Z", None),
        ("9999-12-31T23:59:59-23:59", None),
    ],
)
def test_times(text: str, nanoseconds: int | None) -> None:
    moment, exact = parse_time(text)
    assert exact == nanoseconds
    if nanoseconds is None:
        assert moment is None
    else:
        assert moment == datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=nanoseconds // 1000)
        assert moment.tzinfo is UTC


@given(
    st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1)),  # noqa: DTZ001 - the zone is drawn apart
    st.integers(-1439, 1439),
    st.integers(0, 999),
)
@settings(deadline=None)
def test_every_nanosecond_of_every_zone(naive: datetime, minutes: int, nanoseconds: int) -> None:
    moment = naive.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    sign, offset = ("-" if minutes < 0 else "+"), f"{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"
    text = f"{naive:%Y-%m-%dT%H:%M:%S}".zfill(19) + f".{naive.microsecond:06}{nanoseconds:03}{sign}{offset}"
    micros = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    assert parse_time(text) == (moment, micros * 1000 + nanoseconds)


@given(st.text(max_size=40) | st.from_regex(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{0,20}[Z+-]?[0-9:]{0,6}"))
@settings(deadline=None)
def test_any_text_is_a_time_or_none(text: str) -> None:
    moment, nanoseconds = parse_time(text)
    assert (moment is None) is (nanoseconds is None)


DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)


def begins(part: object, whole: object) -> bool:
    """Whether a value is the beginning of another one."""
    if isinstance(part, dict) and isinstance(whole, dict):
        keys = list(part)
        return keys == list(whole)[: len(keys)] and all(
            part[key] == whole[key] or (key == keys[-1] and begins(part[key], whole[key])) for key in keys
        )
    if isinstance(part, list) and isinstance(whole, list):
        return part[:-1] == whole[: max(len(part) - 1, 0)] and (
            not part or (len(part) <= len(whole) and begins(part[-1], whole[len(part) - 1]))
        )
    return part == whole


@given(st.dictionaries(st.text(max_size=3), DOCUMENTS, max_size=5), st.data())
@settings(deadline=None)
def test_the_beginning_of_a_document_tells_what_stands_in_it(document: dict[str, object], data: st.DataObject) -> None:
    encoded = json.dumps(document).encode()
    cut = data.draw(st.integers(0, len(encoded) - 1))
    found = parse_beginning(encoded[:cut], ORIGIN)
    assert found is None or begins(found, document)
    assert parse_beginning(encoded[:cut] + b"\0 something else", ORIGIN) == found
    assert parse_beginning(encoded, ORIGIN) == document


@given(st.binary(max_size=80) | st.text('{}[],:"\\ab1', max_size=80).map(str.encode))
@settings(deadline=None)
def test_any_bytes_have_a_beginning_or_none(data: bytes) -> None:
    parse_beginning(data, ORIGIN)
