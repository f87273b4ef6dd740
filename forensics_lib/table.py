"""Table: the lazy, typed table that every answer with more than one row is."""

from __future__ import annotations

import csv
import errno
import html
import json
import operator
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, is_dataclass
from itertools import count, islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Generic, SupportsIndex, TypeVar, get_type_hints, overload

from forensics_lib._cells import arrow_array, as_json, as_text, plain, shown, storable
from forensics_lib._optional import require
from forensics_lib.errors import ForensicsError, UnsupportedFormat

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

__all__ = ["Table"]

T_co = TypeVar("T_co", covariant=True)

_REPR_ROWS, _REPR_CELL, _REPR_LINE = 10, 32, 120
_HTML_ROWS, _HTML_CELL = 20, 120
_FORMULA_STARTS = tuple("=+-@\t\r\n＝＋－＠")


# No subclass of Sequence, though it has its methods: polars would take the rows one by one instead of through Arrow.
class Table(Generic[T_co]):
    """Rows of one type, read from the evidence when they are asked for and kept from then on.

    Iterating reads row by row; ``len()``, negative indexes and the conversions read all. Slices and `where` are lazy
    tables themselves. Threads may share a table. A reading that failed or was interrupted starts anew at the next
    use, so that a part is never taken for the whole.

    Args:
        row_type: a dataclass, or a class whose ``__table_columns__`` names the attributes to show.
        rows: the rows, or a function that returns them; it is called once, at the first use.
        name: what the table lists, for display.

    Raises:
        TypeError: `row_type` has no columns.

    Example:
        >>> from forensics_lib.model import Check, Origin
        >>> checks = Table(Check, lambda: [Check("layer 0", "sha256:1", "sha256:2", False, Origin("web.tar"))])
        >>> checks.where(ok=False).first().subject
        'layer 0'
    """

    def __init__(
        self, row_type: type[T_co], rows: Callable[[], Iterable[T_co]] | Iterable[T_co], *, name: str = ""
    ) -> None:
        """Remember where the rows come from; nothing is read yet."""
        self.name = name
        self._row_type = row_type
        self._columns = _columns_of(row_type)
        self._source = rows
        self._iterator: Iterator[T_co] | None = None
        self._read: list[T_co] = []
        self._complete = False
        self._failure: BaseException | None = None
        self._lock = threading.RLock()

    @property
    def row_type(self) -> type[T_co]:
        """The class of the rows."""
        return self._row_type

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns, in the order they are shown and saved."""
        return self._columns

    def __iter__(self) -> Iterator[T_co]:
        """The rows, each read from the evidence when it is reached."""
        return iter(self._read) if self._complete else self._walk()

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle with all rows, which are read for it."""
        return (_kept, (self._row_type, tuple(self), self.name))

    def __len__(self) -> int:
        """The number of rows; reads all of them."""
        return len(self._rows())

    def __bool__(self) -> bool:
        """Whether there is any row; reads no more than the first."""
        return bool(self._rows(1))

    @overload
    def __getitem__(self, index: SupportsIndex) -> T_co: ...
    @overload
    def __getitem__(self, index: slice) -> Table[T_co]: ...
    def __getitem__(self, index: SupportsIndex | slice) -> T_co | Table[T_co]:
        """One row, or a lazy table of a slice; reads no further than it has to."""
        if isinstance(index, slice):
            return Table(self._row_type, lambda: self._sliced(index), name=self.name)
        position = operator.index(index)
        rows = self._rows(position + 1 if position >= 0 else None)
        try:
            return rows[position]
        except IndexError:
            raise IndexError(f"row {position} of a table of {len(rows)} rows") from None

    def first(self) -> T_co | None:
        """The first row; None when there is none."""
        return next(iter(self), None)

    def where(self, predicate: Callable[[T_co], bool] | None = None, /, **equal: object) -> Table[T_co]:
        """The rows that the function accepts and whose columns equal the given values, as a lazy table.

        Besides columns, any other public attribute or property of the row's class can be compared.

        Raises:
            AttributeError: at once, when a name is no column; the message lists the columns.
        """
        for column in equal:
            if column not in self._columns and not _is_attribute(self._row_type, column):
                known = ", ".join(self._columns)
                raise AttributeError(f"{self._row_type.__name__} has no column {column!r}; its columns are: {known}")
        wanted = tuple(equal.items())

        def matching() -> Iterator[T_co]:
            for row in self:
                equals = all(getattr(row, column) == value for column, value in wanted)
                if equals and (predicate is None or predicate(row)):
                    yield row

        return Table(self._row_type, matching, name=self.name)

    def to_arrow(self) -> pyarrow.Table:
        r"""All rows as a pyarrow Table.

        Times are UTC in microseconds, bytes stay bytes, tuples are lists, an Origin is its text. Bytes of a name that
        are no UTF-8 are shown as ``\xff``. Numbers beyond 64 bit and columns of mixed types are strings.

        Raises:
            MissingExtra: pyarrow is not installed.
        """
        return self._arrow("arrow")

    def to_pandas(self) -> pandas.DataFrame:
        """All rows as a pandas DataFrame, typed as in `to_arrow`.

        Whole numbers and truth values get pandas' nullable types: a missing value must not turn a column of offsets
        or nanoseconds into floating point numbers.

        Raises:
            MissingExtra: pandas or pyarrow is not installed.
        """
        pd = require("pandas", "pandas")
        pa = require("pyarrow", "pandas")
        nullable = {pa.int64(): pd.Int64Dtype(), pa.uint64(): pd.UInt64Dtype(), pa.bool_(): pd.BooleanDtype()}
        return self._arrow("pandas").to_pandas(types_mapper=nullable.get)

    def to_polars(self) -> polars.DataFrame:
        """All rows as a polars DataFrame, typed as in `to_arrow`.

        Raises:
            MissingExtra: polars or pyarrow is not installed.
        """
        frame: polars.DataFrame = require("polars", "polars").DataFrame(self._arrow("polars"))
        return frame

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """All rows through the Arrow PyCapsule interface, which DuckDB, polars, pandas and others read directly."""
        return self._arrow("arrow").__arrow_c_stream__(requested_schema)

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False, escape_formulas: bool = True) -> Path:
        """Write all rows to a ``.csv``, ``.jsonl`` or ``.parquet`` file and return its path.

        CSV and JSON lines are UTF-8 in which the bytes of names that are no UTF-8 come back as they were (read them
        with ``errors="surrogateescape"``); cells of bytes are text there, with backslash escapes for what is no UTF-8,
        and times are ISO 8601. CSV joins lists by ``, ``. For Parquet see `to_arrow`.

        Args:
            path: the file to write; its suffix chooses the format.
            overwrite: replace a file that exists.
            escape_formulas: CSV only: put ``'`` before text that starts with ``=``, ``+``, ``-``, ``@``, a tab or a
                line break, because a spreadsheet would run it as a formula. False keeps the text exactly.

        Raises:
            UnsupportedFormat: another suffix.
            FileExistsError: the file exists and `overwrite` is not set.
            MissingExtra: pyarrow is needed for Parquet and not installed.
        """
        target = Path(path)
        suffix = target.suffix.lower()
        if suffix not in (".csv", ".jsonl", ".parquet"):
            raise UnsupportedFormat(f"cannot save a table as {target.name!r}: use .csv, .jsonl or .parquet")
        if not overwrite and target.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
        mode = "w" if overwrite else "x"
        if suffix == ".parquet":
            arrow, parquet = self.to_arrow(), require("pyarrow.parquet", "arrow")
            with target.open(mode + "b") as binary:
                parquet.write_table(arrow, binary)
            return target
        self._rows()  # what fails while reading leaves no half a file behind
        with target.open(mode, encoding="utf-8", errors="surrogateescape", newline="") as file:
            if suffix == ".csv":
                self._write_csv(file, escape_formulas)
            else:
                self._write_json_lines(file)
        return target

    def __repr__(self) -> str:
        """The first ten rows, cut to the width of a screen; control characters are escaped."""
        grid = [self._columns, *self._preview(_REPR_ROWS, _REPR_CELL)]
        widths = [max(map(len, cells)) for cells in zip(*grid, strict=True)]
        lines = ["  ".join(map(str.ljust, cells, widths)).rstrip() for cells in grid]
        return "\n".join([self._headline(), *(shown(line, _REPR_LINE) for line in lines)])

    def _repr_html_(self) -> str:
        """The first twenty rows as static HTML for notebooks; every cell is escaped and cut."""
        body = "".join(_html_row("td", cells) for cells in self._preview(_HTML_ROWS, _HTML_CELL))
        caption, head = html.escape(self._headline()), _html_row("th", self._columns)
        return f"<table><caption>{caption}</caption><thead>{head}</thead><tbody>{body}</tbody></table>"

    def _walk(self) -> Iterator[T_co]:
        for index in count():
            rows = self._rows(index + 1)
            if index >= len(rows):
                return
            yield rows[index]

    def _rows(self, wanted: int | None = None) -> list[T_co]:
        """The rows read so far, after reading on until there are as many as wanted (None: all) or no more come."""
        if self._complete:
            return self._read
        rows = self._read
        if wanted is not None and len(rows) >= wanted:
            return rows
        with self._lock:
            while (wanted is None or len(self._read) < wanted) and self._read_one():
                pass
            return self._read

    def _read_one(self) -> bool:
        if self._complete:
            return False
        if self._failure is not None:
            raise self._failure
        try:
            if self._iterator is None:
                self._iterator = iter(self._source() if callable(self._source) else self._source)
            for row in self._iterator:
                self._read.append(row)
                return True
        except BaseException as error:  # also Ctrl-C: a generator that was left this way would pass for one at its end
            if isinstance(self._source, Iterator):
                self._failure = error
            else:
                self._read, self._iterator = [], None
            raise
        self._complete, self._iterator, self._source = True, None, ()
        return False

    def _sliced(self, index: slice) -> Iterable[T_co]:
        if any(part is not None and part < 0 for part in (index.start, index.stop, index.step)):
            return self._rows()[index]
        return islice(self, index.start, index.stop, index.step)

    def _preview(self, rows: int, width: int) -> list[tuple[str, ...]]:
        """The cells of the first rows for display; one row more is read, to know whether there are more."""
        first = self._rows(rows + 1)[:rows]
        return [tuple(shown(_value(row, column), width) for column in self._columns) for row in first]

    def _headline(self) -> str:
        name = f"{shown(self.name, _HTML_CELL)}: " if self.name else ""
        known = len(self._read)
        rows = f"{known} row{'' if known == 1 else 's'}" if self._complete else f"more than {known - 1} rows"
        return f"{name}Table[{self._row_type.__name__}], {rows}"

    def _write_csv(self, file: IO[str], escape_formulas: bool) -> None:
        writer = csv.writer(file)
        writer.writerow(self._columns)
        for row in self:
            writer.writerow([_csv_text(_value(row, column), escape_formulas) for column in self._columns])

    def _write_json_lines(self, file: IO[str]) -> None:
        for row in self:
            cells = {column: as_json(plain(_value(row, column))) for column in self._columns}
            file.write(storable(json.dumps(cells, ensure_ascii=False)) + "\n")

    def _arrow(self, extra: str) -> pyarrow.Table:
        pa = require("pyarrow", extra)
        hints, rows = _annotations(self._row_type, self._columns), self._rows()
        columns = [arrow_array(pa, (_value(row, name) for row in rows), hints.get(name)) for name in self._columns]
        return pa.table(columns, names=list(self._columns))


def _kept(row_type: type[T_co], rows: tuple[T_co, ...], name: str) -> Table[T_co]:
    return Table(row_type, rows, name=name)


def _columns_of(row_type: type) -> tuple[str, ...]:
    named = getattr(row_type, "__table_columns__", None)
    if named is not None:
        return tuple(named)
    if not is_dataclass(row_type):
        raise TypeError(f"rows of {row_type.__name__} have no columns: neither a dataclass nor __table_columns__")
    return tuple(field.name for field in fields(row_type) if not field.name.startswith("_"))


def _is_attribute(row_type: type, name: str) -> bool:
    return not name.startswith("_") and hasattr(row_type, name) and not callable(getattr(row_type, name))


def _annotations(row_type: type, columns: Iterable[str]) -> dict[str, object]:
    """The types of the columns, be they fields or properties, as far as they can be told."""
    hints = _resolved(row_type)
    for column in columns:
        if isinstance(attribute := getattr(row_type, column, None), property):
            hints[column] = _resolved(attribute.fget).get("return")
    return hints


def _resolved(annotated: object) -> dict[str, object]:
    """Annotations as types; none where one cannot be resolved, e.g. imported for type checkers only."""
    try:
        return dict(get_type_hints(annotated))
    except (NameError, TypeError, AttributeError):
        return {}


def _value(row: object, column: str) -> object:
    """The value of a cell; where reading it fails, its cell says how and the rest of the table is there."""
    try:
        value: object = getattr(row, column)
    except ForensicsError as error:
        return error
    return value


def _csv_text(value: object, escape_formulas: bool) -> str:
    cell = plain(value)
    text = storable(as_text(cell))
    is_formula = text.startswith(_FORMULA_STARTS) and not isinstance(cell, (int, float))
    return "'" + text if escape_formulas and is_formula else text


def _html_row(tag: str, cells: tuple[str, ...]) -> str:
    return f"<tr>{''.join(f'<{tag}>{html.escape(cell)}</{tag}>' for cell in cells)}</tr>"
