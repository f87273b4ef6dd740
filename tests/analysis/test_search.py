"""Texts, bytes and patterns, looked for everywhere."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import forensics_lib as fl
from forensics_lib.analysis import contents
from forensics_lib.analysis.inventory import Inventory, TarStream, TextDocument
from forensics_lib.analysis.search import Hit, search
from forensics_lib.errors import LimitExceeded
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.sources.base import BytesSource
from forensics_lib.sources.decompress import Limits, sniff
from tests.imagemaker import CREATED, Recipe, docker_save, hybrid_save, write_tar
from tests.tarmaker import TarMaker

Pattern = str | bytes | re.Pattern[str] | re.Pattern[bytes]


def inventory(*layers: bytes, documents: tuple[TextDocument, ...] = ()) -> Inventory:
    streams = []
    for index, layer in enumerate(layers):
        source = BytesSource(layer, Origin(f"layer{index}"))
        streams.append(TarStream(f"layer{index}", "", source, sniff(layer[:16]), source.origin, Limits()))
    return Inventory("evidence", ProblemLog(), streams=tuple(streams), documents=documents)


def one_file(data: bytes) -> Inventory:
    return inventory(TarMaker().file("f", data).end())


def offsets(data: bytes, pattern: Pattern, *, ignore_case: bool = False) -> list[int | None]:
    return [hit.offset for hit in search(one_file(data), pattern, ignore_case=ignore_case) if hit.where == "content"]


def test_a_hit_says_where() -> None:
    hits = list(search(one_file(b"first line\nthe needle is here\nlast needle"), "needle"))
    assert hits == [
        Hit("layer0", "/f", "content", 15, 2, b"needle", b"the needle is here", hits[0].origin),
        Hit("layer0", "/f", "content", 35, 3, b"needle", b"last needle", hits[0].origin),
    ]
    assert str(hits[0].origin) == "layer0 > tar header @0"


def test_binary_files_have_no_lines() -> None:
    hit = next(iter(search(one_file(b"\0\n" * 100 + b"needle" + b"\n\1" * 100), "needle")))
    assert (hit.offset, hit.line, hit.match) == (200, None, b"needle")
    assert hit.context == b"\0\n" * 40 + b"needle" + b"\n\1" * 40


def test_context_is_bounded() -> None:
    hit = next(iter(search(one_file(b"a" * 500 + b"needle" + b"b" * 500), "needle")))
    assert hit.context == b"a" * 80 + b"needle" + b"b" * 80


def test_long_matches_are_cut() -> None:
    hits = list(search(one_file(b"<" + b"x" * 100_000 + b">"), re.compile(rb"<.*>")))
    assert [(hit.offset, len(hit.match), len(hit.context)) for hit in hits] == [(0, 4096, 4176)]


@pytest.mark.parametrize(
    ("data", "pattern", "ignore_case", "expected"),
    [
        (b"a.b axb", "a.b", False, [0]),
        (b"a.b axb", b"a.b", False, [0]),
        (b"a.b axb", re.compile("a.b"), False, [0, 4]),
        (b"a.b axb", re.compile(rb"a.b"), False, [0, 4]),
        (b"Key KEY key", "key", False, [8]),
        (b"Key KEY key", "kEy", True, [0, 4, 8]),
        (b"Key KEY key", b"key", True, [0, 4, 8]),
        (b"Key KEY key", re.compile("key"), True, [0, 4, 8]),
        (b"Key KEY key", re.compile("KEY", re.IGNORECASE), False, [0, 4, 8]),
        (b"[^]-\\ [^]-\\", "[^]-\\", True, [0, 6]),
        ("Ärger ärger".encode(), "ärger", False, [7]),
        ("Ärger ärger".encode(), "ärger", True, [0, 7]),
        ("Ärger ärger".encode("utf-16-le"), "ärger", True, [0, 12]),
        (b"x" + "Passwort".encode("utf-16-le") + b" Passwort", "Passwort", False, [1, 18]),
        (b"x" + "Passwort".encode("utf-16-le") + b" Passwort", "PASSWORT", True, [1, 18]),
        (b"a\0a", "a", False, [0, 2]),
        (b"aaaa", "aa", False, [0, 2]),
        (b"\xff\xfe", "\udcff\udcfe", False, [0]),
        (b"one\ntwo", re.compile(r"^two$", re.MULTILINE), False, [4]),
    ],
)
def test_patterns(data: bytes, pattern: Pattern, ignore_case: bool, expected: list[int]) -> None:
    assert offsets(data, pattern, ignore_case=ignore_case) == expected


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("", "nothing to search for"),
        (b"", "nothing to search for"),
        (re.compile("a*"), "matches nothing at all"),
        (re.compile(b""), "matches nothing at all"),
        (re.compile("ä"), "not ASCII"),
        (re.compile("\\u00e4"), "does not work on bytes"),
        (re.compile("(?u:a)"), "does not work on bytes"),
    ],
)
def test_patterns_that_are_refused_at_once(pattern: Pattern, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        search(one_file(b"a"), pattern)


def test_a_pattern_that_matches_nothing_somewhere_is_refused_there() -> None:
    with pytest.raises(ValueError, match="matches nothing at all at 2"):
        offsets(b"bba", re.compile("(?=a)"))


@pytest.mark.parametrize("in_memory", [10, 1 << 20])
def test_a_match_may_lie_anywhere_in_a_large_file(in_memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "IN_MEMORY", in_memory)
    lines = b"x" * 99 + b"\n"
    border = len(contents._ZEROS)
    data = bytearray(lines * 20_000)
    places = [0, border - 3, border + 1000, (1 << 20) - 2, len(data) - 6]
    for place in places:
        data[place : place + 6] = b"needle"
    hits = list(search(one_file(bytes(data)), "needle"))
    assert [hit.offset for hit in hits] == places
    assert [hit.line for hit in hits] == [data[:place].count(b"\n") + 1 for place in places]
    spanning = list(search(one_file(bytes(data)), re.compile(rb"needle(?s:.{0,3000000})needle")))
    assert [(hit.offset, hit.match[:6], len(hit.match)) for hit in spanning] == [(0, b"needle", 4096)]


def test_names_are_searched() -> None:
    layer = (
        TarMaker("pax")
        .dir("secret.d")
        .file("a/secret", b"secret")
        .symlink("link-secret", "x")
        .file(".wh.secret")
        .file(b"\xff" + b"n" * 200 + b"secret" + b"n" * 200)
        .end()
    )
    hits = [(hit.path, hit.where, hit.offset, hit.line, hit.match) for hit in search(inventory(layer), "secret")]
    assert hits == [
        ("/secret.d", "name", None, None, b"secret"),
        ("/a/secret", "name", None, None, b"secret"),
        ("/a/secret", "content", 0, 1, b"secret"),
        ("/link-secret", "name", None, None, b"secret"),
        ("/.wh.secret", "name", None, None, b"secret"),
        ("/\udcff" + "n" * 200 + "secret" + "n" * 200, "name", None, None, b"secret"),
    ]
    last = list(search(inventory(layer), "secret"))[-1]
    assert last.context == b"n" * 80 + b"secret" + b"n" * 80


def test_deleted_repeated_and_linked_content_is_found_under_every_name() -> None:
    first = gzip.compress(TarMaker().file("a", b"a needle").hardlink("b", "a").end())
    second = TarMaker().file(".wh.a").file("c", b"a needle").end()
    hits = [(hit.owner, hit.path, hit.offset) for hit in search(inventory(first, second), "needle")]
    assert hits == [("layer0", "/a", 2), ("layer0", "/b", 2), ("layer1", "/c", 2)]


def test_hits_of_one_file_are_limited() -> None:
    what = one_file(b"a" * 10_001)
    assert len(list(search(what, "a"))) == 10_000
    assert [problem.message for problem in what.problems.rows] == ["/f: more than 10000 hits; no more are listed"]
    assert isinstance(what.problems.rows[0].error, LimitExceeded)
    what = one_file(b"a" * 10_000)
    assert len(list(search(what, "a"))) == 10_000
    assert what.problems.rows == []


def test_documents_are_searched() -> None:
    origin = Origin("config")
    documents = (
        TextDocument("image", "env", "TOKEN", "TOKEN=ünsafe", origin),
        TextDocument("image", "label", "odd", "odd=\ud800unsafe", origin),
    )
    hits = list(search(inventory(documents=documents), re.compile("[A-Z]*n?safe")))
    assert [(hit.owner, hit.where, hit.path, hit.offset, hit.line, hit.match) for hit in hits] == [
        ("image", "env", "TOKEN", 8, 1, b"nsafe"),
        ("image", "label", "odd", 8, 1, b"nsafe"),
    ]


@pytest.mark.parametrize("shape", [docker_save, hybrid_save])
def test_everything_an_image_says_is_searched(shape: object, tmp_path: Path) -> None:
    assert callable(shape)
    recipe = Recipe(
        [TarMaker().file("app.conf", b"password = needle\n").end(), TarMaker().file(".wh.app.conf").end()],
        ["acme/web:1.0"],
        config={
            "config": {"Env": ["PATH=/bin", "KEY=needle1"], "Labels": {"note": "needle2"}, "Cmd": ["run", "needle3"]},
            "history": [
                {"created": CREATED, "created_by": "RUN echo a && echo needle4", "comment": "needle5"},
                {"created": CREATED, "created_by": "RUN rm app.conf", "author": "needle6"},
            ],
        },
    )
    archive = write_tar(shape(recipe), tmp_path / "web.tar")
    with fl.open(archive) as evidence:
        image = evidence.images[0]
        table = evidence.search(re.compile(r"needle\d?"))
        found = sorted((hit.where, hit.owner == image.id, hit.path, hit.match.decode()) for hit in table)
        assert found == sorted(
            [("config", True, "configuration", f"needle{number}") for number in range(1, 7)]
            + [
                ("content", False, "/app.conf", "needle"),
                ("env", True, "KEY", "needle1"),
                ("history", True, "step 0", "needle4"),
                ("history", True, "step 0", "needle5"),
                ("history", True, "step 1", "needle6"),
                ("label", True, "note", "needle2"),
            ]
        )
        content = table.where(where="content")[0]
        assert content.owner == image.layers[0].digest or content.owner == image.layers[0].diff_id
        env = table.where(where="env")[0]
        assert str(env.origin).endswith(f"configuration {image.config_digest} > Env[1]")
        for hit in table.where(where="config"):
            assert image.raw_config is not None
            assert hit.offset is not None
            assert image.raw_config[hit.offset :].startswith(hit.match)
        entry = evidence.custody.entries[-1]
        assert entry.action == "search"
        assert "needle" in entry.details
        assert not evidence.problems


@given(st.binary(max_size=300), st.binary(min_size=1, max_size=2))
def test_bytes_are_found_where_python_finds_them(data: bytes, needle: bytes) -> None:
    expected = [match.start() for match in re.finditer(re.escape(needle), data)]
    assert offsets(data, needle) == expected
    assert offsets(data, re.compile(re.escape(needle))) == expected


@given(st.text(st.characters(codec="utf-8"), min_size=2, max_size=6), st.sampled_from(["utf-8", "utf-16-le"]))
def test_text_is_found_in_both_encodings_and_cases(text: str, encoding: str) -> None:
    assume(not any(b"\1" in text.encode(one) for one in ("utf-8", "utf-16-le")))
    data = b"\1\1" + text.encode(encoding) + b"\2\2"
    assert 2 in offsets(data, text)
    assert 2 in offsets(data, text, ignore_case=True)
    swapped = "".join(character.swapcase() for character in text)
    assert 2 in offsets(b"\1\1" + swapped.encode(encoding), text, ignore_case=True)
