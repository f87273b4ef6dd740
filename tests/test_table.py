from __future__ import annotations

import csv
import json
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from enum import Enum, StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forensics_lib._cells import as_text, plain, readable, shown, storable
from forensics_lib._optional import require
from forensics_lib.errors import DamagedData, MissingExtra, UnsupportedFormat
from forensics_lib.model import Check, EvidenceKind, Origin
from forensics_lib.table import Table

if TYPE_CHECKING:
    from decimal import Decimal


class Change(StrEnum):
    ADDED = "A"
    DELETED = "D"


@dataclass(frozen=True, slots=True)
class Row:
    name: str
    size: int = 0
    _hidden: int = 0

    @property
    def upper(self) -> str:
        return self.name.upper()

    def method(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Wide:
    text: str | None = None
    number: int | None = None
    ratio: float | None = None
    flag: bool | None = None
    data: bytes | None = None
    time: datetime | None = None
    kind: Change | None = None
    origin: Origin | None = None
    tags: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()
    pairs: tuple[tuple[str, str], ...] = ()
    error: Exception | None = None
    labels: Mapping[str, str] | None = None
    anything: object = None


@dataclass(frozen=True, slots=True)
class Cell:
    value: object


WHEN = datetime(2024, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)
FULL = Wide(
    text="naïve",
    number=-(2**63),
    ratio=0.5,
    flag=True,
    data=b"\x00\xffA",
    time=WHEN,
    kind=Change.DELETED,
    origin=Origin("disk.E01").to("partition 2", 1048576),
    tags=("web:1", "web:latest"),
    sizes=(1, 2),
    pairs=(("md5", "00"),),
    error=ValueError("bad magic"),
    labels={"b": "1", "a": "\udcff"},
    anything=Path("x") / "y",
)
HOSTILE = (
    "<script>alert(1)</script>",
    "two\nlines\r\n",
    "\x1b]0;owned\x07\x1b[2J",
    "=1+1",
    "\udcff\udc80.bin",
    "\ud800",
    "a\0b",
)


class Source:
    """Counts how often it is started and how many rows were taken."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.starts = 0
        self.taken = 0

    def __call__(self) -> Iterator[Row]:
        self.starts += 1
        for index in range(self.size):
            self.taken += 1
            yield Row(f"row {index}", index)


def cells(*values: object) -> Table[Cell]:
    return Table(Cell, [Cell(value) for value in values])


# --- reading ---------------------------------------------------------------------------------------------------------


def test_nothing_is_read_before_it_is_asked_for() -> None:
    source = Source(1_000_000)
    table = Table(Row, source)
    assert (source.starts, table.columns) == (0, ("name", "size"))
    assert table
    assert source.taken == 1
    assert table.first() == Row("row 0", 0)
    assert table[4].name == "row 4"
    assert source.taken == 5
    assert source.starts == 1


def test_several_iterators_share_one_reading() -> None:
    source = Source(5)
    table = Table(Row, source)
    pairs = [(one.size, other.size) for one, other in zip(table, table, strict=True)]
    assert pairs == [(0, 0), (1, 1), (2, 2), (3, 3), (4, 4)]
    assert [row.size for row in table] == [0, 1, 2, 3, 4]
    assert (source.starts, source.taken) == (1, 5)


def test_threads_share_one_reading() -> None:
    source = Source(3000)
    table = Table(Row, source)
    found: list[list[Row]] = []
    threads = [threading.Thread(target=lambda: found.append(list(table))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert source.starts == 1
    assert len(found) == 4
    assert all([row.size for row in rows] == list(range(3000)) for rows in found)


def test_length_and_truth() -> None:
    assert len(Table(Row, Source(3))) == 3
    assert not Table(Row, [])
    assert Table(Row, ()).first() is None
    assert list(reversed(Table(Row, Source(2)))) == [Row("row 1", 1), Row("row 0", 0)]
    assert Row("row 1", 1) in Table(Row, Source(2))


def test_one_shot_iterators_are_kept() -> None:
    table = Table(Row, iter([Row("a"), Row("b")]))
    assert [list(table), list(table)] == [[Row("a"), Row("b")]] * 2


def test_indexes_behave_like_those_of_a_list() -> None:
    rows = list(Source(6)())
    table = Table(Row, Source(6))
    assert [table[i] for i in range(-6, 6)] == [rows[i] for i in range(-6, 6)]
    for wrong in (6, -7):
        with pytest.raises(IndexError, match="of a table of 6 rows"):
            table[wrong]


@given(*[st.none() | st.integers(-8, 8)] * 2, st.none() | st.integers(-3, 3).filter(bool))
def test_slices_behave_like_those_of_a_list(start: int | None, stop: int | None, step: int | None) -> None:
    part = Table(Row, Source(5))[start:stop:step]
    assert isinstance(part, Table)
    assert list(part) == list(Source(5)())[start:stop:step]


def test_slices_are_lazy() -> None:
    source = Source(1_000_000)
    part = Table(Row, source)[2:4]
    assert source.taken == 0
    assert [row.size for row in part] == [2, 3]
    assert source.taken == 4


def test_a_failed_reading_is_never_taken_for_the_end() -> None:
    starts: list[int] = []

    def rows() -> Iterator[Row]:
        starts.append(1)
        yield Row("a")
        raise DamagedData("torn page")

    table = Table(Row, rows)
    for _ in range(2):
        with pytest.raises(DamagedData, match="torn page"):
            len(table)
    assert table[0] == Row("a")
    assert len(starts) == 3
    once = Table(Row, rows())
    for _ in range(2):
        with pytest.raises(DamagedData, match="torn page"):
            list(once)
    assert once[0] == Row("a")


def test_an_interrupted_reading_starts_anew() -> None:
    interrupted: list[bool] = []

    def rows() -> Iterator[Row]:
        yield Row("a")
        if not interrupted:
            interrupted.append(True)
            raise KeyboardInterrupt
        yield Row("b")

    table = Table(Row, rows)
    with pytest.raises(KeyboardInterrupt):
        list(table)
    assert list(table) == [Row("a"), Row("b")]


# --- where and columns -----------------------------------------------------------------------------------------------


def test_where_is_lazy_and_combines() -> None:
    source = Source(1_000_000)
    table = Table(Row, source, name="files")
    found = table.where(lambda row: row.size > 2).where(name="row 5")
    assert source.taken == 0
    assert found.first() == Row("row 5", 5)
    assert source.taken == 6
    assert found.name == "files"
    assert table.where(lambda row: row.size == 1, name="row 2")[:0].first() is None
    assert table.where(upper="ROW 7")[0].size == 7


@pytest.mark.parametrize("name", ["nam", "method", "_hidden"])
def test_where_names_the_columns_when_one_is_unknown(name: str) -> None:
    with pytest.raises(AttributeError, match=r"Row has no column '\w+'; its columns are: name, size"):
        Table(Row, []).where(**{name: 1})


def test_enumerations_compare_with_their_text() -> None:
    table = Table(Wide, [Wide(kind=Change.ADDED), Wide(kind=Change.DELETED)])
    assert len(table.where(kind="D")) == 1


class Lazy:
    __table_columns__: ClassVar[tuple[str, ...]] = ("id", "size")

    def __init__(self, identity: str) -> None:
        self.id = identity

    @property
    def size(self) -> int:
        if self.id == "torn":
            raise DamagedData("no config")
        return 7


def test_rows_that_are_no_dataclass_name_their_columns() -> None:
    table = Table(Lazy, [Lazy("a"), Lazy("torn")])
    assert table.columns == ("id", "size")
    assert table.where(id="a")[0].size == 7


def test_a_cell_that_cannot_be_read_shows_its_error(tmp_path: Path) -> None:
    table = Table(Lazy, [Lazy("a"), Lazy("torn")])
    assert "DamagedData: no config" in repr(table)
    assert "DamagedData: no config" in table._repr_html_()
    assert table.save(tmp_path / "x.csv").read_text().splitlines()[2] == "torn,DamagedData: no config"


def test_a_row_type_without_columns_is_refused() -> None:
    with pytest.raises(TypeError, match="rows of int have no columns"):
        Table(int, [1])


# --- cells -----------------------------------------------------------------------------------------------------------


class Port(Enum):
    HTTP = 80


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (b"\xff", b"\xff"),
        (bytearray(b"a"), b"a"),
        (Change.ADDED, "A"),
        (EvidenceKind.OCI_LAYOUT, "oci-layout"),
        (Port.HTTP, 80),
        (Origin("a").to("b", 5), "a > b @5"),
        (WHEN.astimezone(timezone(timedelta(hours=2))), WHEN),
        (WHEN.replace(tzinfo=None), "2024-05-06 07:08:09.123456"),
        (datetime.min.replace(tzinfo=timezone(timedelta(hours=2))), "0001-01-01T00:00:00+02:00"),
        ((1, ("a", None)), [1, ["a", None]]),
        (frozenset({"b", "a"}), ["a", "b"]),
        (DamagedData("torn", offset=3), "DamagedData: torn"),
        ({"a": [{"b": b"\xff"}], 1: WHEN, "f": float("inf")},
         '{"a": [{"b": "\\\\xff"}], "1": "2024-05-06T07:08:09.123456+00:00", "f": "inf"}'),
        ({"k": "\udcff"}, '{"k": "\\udcff"}'),
        (timedelta(seconds=1), "0:00:01"),
    ],
)  # fmt: skip
def test_plain(value: object, expected: object) -> None:
    cell = plain(value)
    assert cell == expected
    assert type(cell) is type(expected)


def test_values_nested_too_deep_do_not_crash() -> None:
    value: object = {}
    for _ in range(sys.getrecursionlimit()):
        value = {"k": [value]}
    assert plain(value) == "(dict nested too deep)"
    assert shown(value, 80) == "(dict nested too deep)"


def test_text_of_cells() -> None:
    parts = ["a", None, True, 5, 0.5, b"\xffz", WHEN, ["x", "y"]]
    assert list(map(as_text, map(plain, parts))) == [
        "a", "", "true", "5", "0.5", "\\xffz", "2024-05-06T07:08:09.123456+00:00", "x, y",
    ]  # fmt: skip


def test_surrogates_become_readable() -> None:
    assert readable("caf\udce9 é \ud800") == "caf\\xe9 é \\ud800"
    assert storable("caf\udce9 é \ud800") == "caf\udce9 é \\ud800"


@given(st.text(st.characters(codec=None)) | st.binary() | st.lists(st.text()), st.integers(2, 60))
def test_what_is_shown_is_short_and_printable(value: object, width: int) -> None:
    text = shown(value, width)
    assert len(text) <= width
    assert text.isprintable()


def test_what_is_shown() -> None:
    assert shown("\x1b[2J\n\u202etxt.exe\udcff", 80) == "\\x1b[2J\\n\\u202etxt.exe\\xff"
    assert shown("x" * 10**6, 10) == "x" * 9 + "…"
    assert shown("é".encode() * 100, 10) == "é" * 9 + "…"
    assert shown("x" * 10, 10) == "x" * 10


# --- display ---------------------------------------------------------------------------------------------------------


def test_repr_reads_few_rows() -> None:
    source = Source(1_000_000)
    text = repr(Table(Row, source, name="files"))
    assert source.taken <= 11
    assert text.splitlines()[:3] == ["files: Table[Row], more than 10 rows", "name   size", "row 0  0"]
    assert len(text.splitlines()) == 12


def test_html_reads_few_rows() -> None:
    source = Source(1_000_000)
    text = Table(Row, source)._repr_html_()
    assert source.taken <= 21
    assert text.count("<tr>") == 21
    assert "Table[Row], more than 20 rows" in text
    assert "<td>row 19</td><td>19</td>" in text


def test_headlines_count_what_is_known() -> None:
    assert repr(Table(Row, Source(1))) == "Table[Row], 1 row\nname   size\nrow 0  0"
    assert repr(Table(Row, [])) == "Table[Row], 0 rows\nname  size"
    table = Table(Row, Source(30))
    assert len(table) == 30
    assert repr(table).startswith("Table[Row], 30 rows\n")
    assert len(repr(table).splitlines()) == 12


def test_lines_of_repr_are_cut() -> None:
    assert max(map(len, repr(Table(Wide, [FULL])).splitlines())) <= 120


@pytest.mark.parametrize("value", HOSTILE)
def test_hostile_cells_stay_inside_their_cell(value: str) -> None:
    table = Table(Row, [Row(value, 1)], name=value)
    text = repr(table)
    assert len(text.splitlines()) == 3
    assert all(line.isprintable() for line in text.splitlines())
    page = table._repr_html_()
    assert page.isprintable()
    assert "<script" not in page
    assert page.count("<td>") == 2


def test_html_escapes_quotes_and_cuts() -> None:
    page = cells("<b>\"'&", "y" * 10**6)._repr_html_()
    assert "<td>&lt;b&gt;&quot;&#x27;&amp;</td>" in page
    assert f"<td>{'y' * 119}…</td>" in page


# --- files -----------------------------------------------------------------------------------------------------------


def read_csv(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return list(csv.reader(file))


def read_jsonl(path: Path) -> list[dict[str, object]]:
    text = path.read_bytes().decode("utf-8", "surrogateescape")
    assert text == "" or text.endswith("\n")
    return [json.loads(line) for line in text.split("\n")[:-1]]


def test_csv_of_all_types(tmp_path: Path) -> None:
    path = Table(Wide, [FULL, Wide()]).save(tmp_path / "wide.CSV")
    header, full, empty = read_csv(path)
    assert tuple(header) == Table(Wide, []).columns
    assert full == [
        "naïve", str(-(2**63)), "0.5", "true", "\0\\xffA", "2024-05-06T07:08:09.123456+00:00", "D",
        "disk.E01 > partition 2 @1048576", "web:1, web:latest", "1, 2", "md5, 00", "ValueError: bad magic",
        '{"b": "1", "a": "\\udcff"}', str(Path("x") / "y"),
    ]  # fmt: skip
    assert empty == [""] * 14


def test_jsonl_of_all_types(tmp_path: Path) -> None:
    full, empty = read_jsonl(Table(Wide, [FULL, Wide()]).save(tmp_path / "wide.jsonl"))
    assert full == {
        "text": "naïve",
        "number": -(2**63),
        "ratio": 0.5,
        "flag": True,
        "data": "\0\\xffA",
        "time": "2024-05-06T07:08:09.123456+00:00",
        "kind": "D",
        "origin": "disk.E01 > partition 2 @1048576",
        "tags": ["web:1", "web:latest"],
        "sizes": [1, 2],
        "pairs": [["md5", "00"]],
        "error": "ValueError: bad magic",
        "labels": '{"b": "1", "a": "\\udcff"}',
        "anything": str(Path("x") / "y"),
    }
    assert list(full) == list(Table(Wide, []).columns)
    assert empty["tags"] == []
    assert empty["labels"] is None


def test_numbers_json_does_not_know_are_text(tmp_path: Path) -> None:
    path = cells(float("nan"), [float("-inf")], 2**70).save(tmp_path / "x.jsonl")
    assert path.read_text() == '{"value": "nan"}\n{"value": ["-inf"]}\n{"value": 1180591620717411303424}\n'


def test_bytes_of_names_come_back(tmp_path: Path) -> None:
    name = b"caf\xe9\xff.txt"
    row = Row(name.decode("utf-8", "surrogateescape"))
    for suffix in (".csv", ".jsonl"):
        assert name in Table(Row, [row]).save(tmp_path / f"x{suffix}").read_bytes()


@settings(max_examples=60)
@given(st.lists(st.text(st.characters(codec=None)) | st.sampled_from(HOSTILE), max_size=5))
def test_any_text_survives_in_files(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    folder = tmp_path_factory.mktemp("files")
    table = Table(Row, [Row(text) for text in texts])
    rows = read_csv(table.save(folder / "x.csv", escape_formulas=False))[1:]
    assert [raw(name) for name, _ in rows] == [raw(text) for text in texts]
    lines = read_jsonl(table.save(folder / "x.jsonl"))
    assert [raw(joined(str(line["name"]))) for line in lines] == [raw(joined(text)) for text in texts]


def raw(text: str) -> bytes:
    """The bytes that a name stands for."""
    return storable(text).encode("utf-8", "surrogateescape")


def joined(text: str) -> str:
    """Pairs of surrogates as the one character they are for JSON."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


@pytest.mark.parametrize("value", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1+1", ("=1", "2"), b"=1"])
def test_csv_takes_formulas_for_text(tmp_path: Path, value: object) -> None:
    table = cells(value)
    text = as_text(plain(value))
    assert read_csv(table.save(tmp_path / "safe.csv"))[1] == ["'" + text]
    assert read_csv(table.save(tmp_path / "exact.csv", escape_formulas=False))[1] == [text]


def test_negative_numbers_are_no_formulas(tmp_path: Path) -> None:
    assert read_csv(cells(-5, -0.5).save(tmp_path / "x.csv"))[1:] == [["-5"], ["-0.5"]]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_files_are_not_overwritten_unless_asked(tmp_path: Path, suffix: str) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    path = tmp_path / f"x{suffix}"
    path.write_bytes(b"older evidence" * 1000)
    source = Source(1)
    with pytest.raises(FileExistsError):
        Table(Row, source).save(path)
    assert source.starts == 0
    assert path.read_bytes() == b"older evidence" * 1000
    assert Table(Row, source).save(str(path), overwrite=True) == path
    assert b"older evidence" not in path.read_bytes()


def test_unknown_suffixes_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    source = Source(1)
    for name in ("x.xlsx", "x", "x.csv.gz"):
        with pytest.raises(UnsupportedFormat, match=r"use \.csv, \.jsonl or \.parquet"):
            Table(Row, source).save(tmp_path / name)
    assert source.starts == 0
    assert list(tmp_path.iterdir()) == []


def test_a_failed_reading_leaves_no_file(tmp_path: Path) -> None:
    def rows() -> Iterator[Row]:
        yield Row("a")
        raise DamagedData("torn page")

    with pytest.raises(DamagedData):
        Table(Row, rows).save(tmp_path / "x.csv")
    assert list(tmp_path.iterdir()) == []


# --- frames ----------------------------------------------------------------------------------------------------------


def test_arrow_types_and_values() -> None:
    pa = pytest.importorskip("pyarrow")
    table = Table(Wide, [FULL, Wide()]).to_arrow()
    types = {name: str(table.schema.field(name).type) for name in table.column_names}
    assert types == {
        "text": "string", "number": "int64", "ratio": "double", "flag": "bool", "data": "binary",
        "time": "timestamp[us, tz=UTC]", "kind": "string", "origin": "string", "tags": "list<item: string>",
        "sizes": "list<item: int64>", "pairs": "list<item: list<item: string>>", "error": "string",
        "labels": "string", "anything": "string",
    }  # fmt: skip
    first = table.to_pylist()[0]
    assert first["data"] == b"\x00\xffA"
    assert first["time"] == WHEN
    assert first["pairs"] == [["md5", "00"]]
    assert table.to_pylist()[1]["number"] is None
    assert pa.table(Table(Wide, [FULL])).num_rows == 1


def test_empty_tables_have_their_columns_and_types() -> None:
    pytest.importorskip("pyarrow")
    schema = Table(Wide, []).to_arrow().schema
    assert [str(kind) for kind in schema.types] == [
        "string", "int64", "double", "bool", "binary", "timestamp[us, tz=UTC]", "string", "string",
        "list<item: string>", "list<item: int64>", "list<item: list<item: string>>", "string", "string", "string",
    ]  # fmt: skip
    assert Table(Lazy, []).to_arrow().schema.names == ["id", "size"]


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ((1, None), "int64", [1, None]),
        ((0, 2**64 - 1), "uint64", [0, 2**64 - 1]),
        ((-1, 2**64 - 1), "string", ["-1", "18446744073709551615"]),
        ((1, 2**64), "string", ["1", "18446744073709551616"]),
        ((-(2**63) - 1,), "string", ["-9223372036854775809"]),
        ((1, 0.5), "double", [1.0, 0.5]),
        ((2**53 + 1, 0.5), "string", ["9007199254740993", "0.5"]),
        ((True, 1), "string", ["true", "1"]),
        (("a", b"\xff", None), "string", ["a", "\\xff", None]),
        (((1,), (2**64,)), "list<item: string>", [["1"], ["18446744073709551616"]]),
        (((1, "a"), ()), "list<item: string>", [["1", "a"], []]),
        ((("a",), "b"), "string", ["a", "b"]),
        (("\udcff", "\ud800é"), "string", ["\\xff", "\\ud800é"]),
        ((("\udcff",),), "list<item: string>", [["\\xff"]]),
        ((datetime.max.replace(tzinfo=UTC),), "timestamp[us, tz=UTC]", [datetime.max.replace(tzinfo=UTC)]),
    ],
)
def test_arrow_types_follow_the_values(values: tuple[object, ...], kind: str, expected: list[object]) -> None:
    pytest.importorskip("pyarrow")
    column = cells(*values).to_arrow().column("value")
    assert str(column.type) == kind
    assert column.to_pylist() == expected


ATOMS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)) | st.binary()
    | st.datetimes(timezones=st.just(UTC)) | st.sampled_from(Change) | st.builds(ValueError, st.text())
)  # fmt: skip
VALUES = st.recursive(ATOMS, lambda inner: st.lists(inner).map(tuple) | st.dictionaries(st.text(), inner), max_leaves=6)


@settings(max_examples=60, deadline=None)
@given(st.lists(VALUES, max_size=6))
def test_any_value_can_be_shown_and_converted(values: list[object]) -> None:
    pytest.importorskip("pyarrow")
    table = cells(*values)
    assert len(table.to_arrow()) == len(values)
    assert len(repr(table).split("\n")) == 2 + len(values)
    assert table._repr_html_().count("<td>") == len(values)


def test_pandas_keeps_numbers_exact_beside_missing_ones() -> None:
    pytest.importorskip("pyarrow")
    pd = pytest.importorskip("pandas")
    nanoseconds = 1_700_000_000_123_456_789
    frame = Table(Wide, [Wide(number=nanoseconds, time=WHEN, data=b"\xff", flag=True), Wide()]).to_pandas()
    assert frame["number"][0] == nanoseconds
    assert frame["number"].isna().tolist() == [False, True]
    assert str(frame["number"].dtype) == "Int64"
    assert str(frame["flag"].dtype) == "boolean"
    assert frame["time"][0] == pd.Timestamp(WHEN)
    assert frame["data"][0] == b"\xff"
    assert list(Table(Row, []).to_pandas().columns) == ["name", "size"]


def test_polars_reads_through_arrow() -> None:
    pytest.importorskip("pyarrow")
    pl = pytest.importorskip("polars")
    table = Table(Wide, [FULL, Wide()])
    frame = table.to_polars()
    assert frame.equals(pl.DataFrame(table))
    assert frame["time"].dtype == pl.Datetime("us", "UTC")
    assert frame["number"].to_list() == [-(2**63), None]
    assert frame["tags"].to_list() == [["web:1", "web:latest"], []]
    assert frame.columns == list(table.columns)


@pytest.mark.parametrize("value", HOSTILE)
def test_hostile_names_reach_every_frame(tmp_path: Path, value: str) -> None:
    pytest.importorskip("pyarrow")
    pytest.importorskip("pandas")
    pytest.importorskip("polars")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = Table(Row, [Row(value)])
    assert table.to_pandas()["name"].tolist() == [readable(value)]
    assert table.to_polars()["name"].to_list() == [readable(value)]
    saved = parquet.read_table(table.save(tmp_path / "x.parquet"))
    assert saved.to_pylist() == [{"name": readable(value), "size": 0}]


def test_annotations_that_cannot_be_resolved_are_no_obstacle() -> None:
    pytest.importorskip("pyarrow")

    @dataclass(frozen=True)
    class Priced:
        price: Decimal | None
        size: int

    assert str(Table(Priced, []).to_arrow().schema.field("size").type) == "string"
    assert str(Table(Priced, [Priced(None, 1)]).to_arrow().schema.field("size").type) == "int64"


def test_there_is_no_interchange_protocol() -> None:
    assert not hasattr(Table(Row, []), "__dataframe__")


# --- optional packages -----------------------------------------------------------------------------------------------


def test_missing_packages_say_how_to_install_them(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingExtra, match=r"no_such_package is not installed: pip install 'forensics_lib\[reports\]'"):
        require("no_such_package.part", "reports")
    assert require("json", "any") is json
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"forensics_lib\[polars\]"):
        Table(Check, []).to_polars()


def test_a_broken_package_is_not_called_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "half_installed.py").write_text("import no_such_dependency\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency") as caught:
        require("half_installed", "any")
    assert not isinstance(caught.value, MissingExtra)
