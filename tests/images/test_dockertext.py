from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forensics_lib.images.dockertext import (
    duration,
    escaped,
    exec_form,
    is_plain,
    literal,
    parse_list,
    quoted,
    split_known,
    split_pairs,
)

anything = st.text(st.characters(exclude_categories=())) | st.text(alphabet="ab \"'\\$`\n=", max_size=12)


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0s"),
        (1, "1ns"),
        (1500, "1.5µs"),
        (500 * 10**6, "500ms"),
        (5 * 10**9, "5s"),
        (1500 * 10**6, "1.5s"),
        (90 * 10**9, "1m30s"),
        (60 * 10**9, "1m0s"),
        (3600 * 10**9, "1h0m0s"),
        (3661 * 10**9 + 1, "1h1m1.000000001s"),
        (-(5 * 10**9), "-5s"),
    ],
)
def test_durations_as_go_prints_them(nanoseconds: int, text: str) -> None:
    assert duration(nanoseconds) == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", ()),
        ('["/bb"]', ("/bb",)),
        ('["httpd" "-f" "two words"]', ("httpd", "-f", "two words")),
        ('["httpd", "-f"]', ("httpd", "-f")),
        (r'["a\"b" "c\\d" "\x02\n\u20ac\U0001f40b" "\xe9"]', ('a"b', "c\\d", "\x02\n€🐋", "\udce9")),
        ("[/bin/sh -c]", None),
        ('["a"', None),
        ('["a" b]', None),
        ('"a"', None),
        ("", None),
        ("]", None),
    ],
)
def test_lists_as_go_and_json_print_them(text: str, words: tuple[str, ...] | None) -> None:
    assert parse_list(text) == words


def test_pairs_end_where_the_configuration_says() -> None:
    text = "title=acme web version=1.0 team=shop x=y z"
    assert split_pairs(text, {}) == [("title", "acme web"), ("version", "1.0"), ("team", "shop"), ("x", "y z")]
    assert split_pairs(text, {"team": "shop x=y z"})[-1:] == [("team", "shop x=y z")]  # type: ignore[index]
    assert split_pairs(text, {"title": "acme"})[0] == ("title", "acme web")  # type: ignore[index]
    assert split_pairs("OPTS=-Da=1 -Db=2 B=", {}) == [("OPTS", "-Da=1 -Db=2"), ("B", "")]
    assert split_pairs("key value", {}) is None
    assert split_pairs("", {}) is None


def test_known_items_keep_their_spaces() -> None:
    assert split_known("/a b /c", ["/c", "/a b"]) == ["/a b", "/c"]
    assert split_known("/a bc /c", ["/a b"]) == ["/a", "bc", "/c"]
    assert split_known("  /a  /b ", []) == ["/a", "/b"]


def test_quoting() -> None:
    assert quoted("a-b_c.d:/e,f@g%h+i=j") == "a-b_c.d:/e,f@g%h+i=j"
    assert quoted("") == '""'
    assert quoted('say "$HOME" C:\\') == r'"say \"\$HOME\" C:\\"'
    assert quoted("C:\\a `b`", "`") == '"C:\\a ``b``"'
    assert literal("/a$b'c\\") == r"/a\$b\'c\\"
    assert exec_form(["a", 'b"c', "ü"]) == '["a", "b\\"c", "ü"]'


def test_control_characters_are_shown() -> None:
    assert escaped("a\nFROM x\r\x1b[2J\t\u2028\u202e\x85\udce9") == "a\\nFROM x\\r\\x1b[2J\t\\u2028\\u202e\\x85\\xe9"
    assert not is_plain("a\nb")
    assert is_plain("tab\tand ü 🐋")


def unquote(word: str) -> str:
    """The Dockerfile rule: inside double quotes a backslash escapes a double quote, a dollar and itself."""
    if not word.startswith('"'):
        assert not set(word) & set("\"'\\$ \t")
        return word
    value, rest = "", word[1:-1]
    while rest:
        if rest[0] == "\\" and rest[1] in '"$\\':
            value, rest = value + rest[1], rest[2:]
        else:
            assert rest[0] not in '"$'
            value, rest = value + rest[0], rest[1:]
    return value


@given(anything)
def test_a_quoted_value_is_read_back(value: str) -> None:
    assert unquote(quoted(value)) == value


@given(anything)
def test_escaped_text_is_one_plain_line(text: str) -> None:
    line = escaped(text)
    assert is_plain(line)
    assert len(line.splitlines()) <= 1
    line.encode()
    assert line == text or not is_plain(text)


@given(st.lists(anything, max_size=5))
def test_the_exec_form_is_one_plain_line_of_json(words: list[str]) -> None:
    line = exec_form(words)
    assert is_plain(line)
    assert json.loads(line) == words


@given(st.dictionaries(st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,4}", fullmatch=True), anything, max_size=5))
def test_pairs_whose_values_are_known_are_split_exactly(known: dict[str, str]) -> None:
    text = " ".join(f"{name}={value}" for name, value in known.items())
    assert dict(split_pairs(text, known) or ()) == known


@given(anything, st.lists(anything, max_size=4))
def test_readers_take_any_text(text: str, known: list[str]) -> None:
    parse_list(text)
    parse_list(f"[{text}]")
    assert "".join(split_known(text, known)).replace(" ", "") == text.replace(" ", "")
    for name, value in split_pairs(text, {"a": "b c"}) or ():
        assert f"{name}={value}" in text


@given(st.integers(min_value=0, max_value=10**15))
def test_a_duration_adds_up(nanoseconds: int) -> None:
    units = {"ns": 1, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
    total, number, text = 0, "", duration(nanoseconds)
    while text:
        if text[0].isdigit() or text[0] == ".":
            number, text = number + text[0], text[1:]
            continue
        unit = next(name for name in ("ns", "µs", "ms", "s", "m", "h") if text.startswith(name))
        whole, _, fraction = number.partition(".")
        total += int(whole) * units[unit] + (int(fraction) * units[unit] // 10 ** len(fraction) if fraction else 0)
        number, text = "", text[len(unit) :]
    assert total == nanoseconds
