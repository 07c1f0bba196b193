"""Writing a CSV with columns appended: all of its rows in their order, including invalid ones."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pyarrow

from blitz.data.csv.formulas import escaped
from blitz.data.csv.reading.bad_rows import BadRows
from blitz.data.csv.reading.dialect import NAMELESS, Dialect
from blitz.data.csv.reading.index import CsvIndex, again
from blitz.data.csv.reading.layout import LINE
from blitz.errors import DataError
from blitz.storage import written_whole

_ROWS_AT_ONCE = 1 << 16

ERROR = "error"
"""The last column: why the other appended ones are empty."""


def write_appended(
    index: CsvIndex,
    target: str,
    columns: Iterable[str],
    values: Iterable[pyarrow.Table],
    bad: BadRows,
    *,
    escape_formulas: bool = False,
) -> tuple[int, int]:
    """Write a CSV with `columns` and `error` appended, in UTF-8; returns the number of rows and of errors.

    `values` are tables of `columns` and `error`, in the order of the rows of `index`, where `error` is empty or a
    reason; `bad` are rows that have a reason already. The CSV's own cells are written unchanged, or with
    `escape_formulas` escaped so that no spreadsheet reads one as a formula; appended cells are always escaped.
    """
    # With the dialect of the first reading, guesses included; all cells as text, also those of an index column.
    options = replace(
        index.options,
        **{**asdict(index.dialect.options), "encoding": index.options.encoding},
        types=dict.fromkeys(index.dialect.names, "text"),
        label_columns=(),
        image_column=None,
        keep_nameless=True,
    )
    texts = again(index, options)
    if texts.content != index.content:
        raise DataError(f"{index.csv} has changed while predictions were made for it; predict again")
    reasons = bad.by_line() | texts.bad_rows().by_line()
    rows = errors = 0
    names = [*columns]
    own = len(texts.dialect.names) if escape_formulas else 0
    with written_whole(target) as write:
        header = ["" if name == NAMELESS else name for name in _columns(texts)]
        write(_lines(_own_escaped([[*header, *names, ERROR]], own), texts.dialect))
        for cells in _merged(texts, index, names, values, reasons):
            write(_lines(_own_escaped(cells, own), texts.dialect))
            rows += len(cells)
            errors += sum(1 for row in cells if row[-1])
    return rows, errors


def _own_escaped(rows: Iterable[Sequence[str]], own: int) -> Iterator[list[str]]:
    """Rows with their first `own` cells escaped."""
    for row in rows:
        yield [*map(escaped, row[:own]), *row[own:]]


def _columns(texts: CsvIndex) -> tuple[str, ...]:
    """The columns to write, including an index column, without empty cells at the end of rows."""
    cells = texts.dialect.cells
    return cells[: len(cells) - texts.dialect.trailing]


def _merged(
    texts: CsvIndex, index: CsvIndex, names: list[str], values: Iterable[pyarrow.Table], reasons: Mapping[int, str]
) -> Iterator[list[list[str]]]:
    """Rows of the file to write, some at a time, by line."""
    predicted_lines = index.positions()
    nothing = [""] * len(names)
    # Ragged rows are not in the index.
    cells_of = {fault["line"]: fault["value"] for fault in texts.bad_rows().faults.to_pylist()}
    ragged = np.setdiff1d(np.array(list(reasons), np.int64), texts.positions()).tolist()
    stream = _Rows(values)
    for batch in _few_rows(texts.batches([*_columns(texts), LINE])):
        lines = batch[LINE].to_pylist()
        cells = zip(*(batch[name].to_pylist() for name in _columns(texts)), strict=True)
        rows = {line: [*each, *nothing, ""] for line, each in zip(lines, cells, strict=True)}
        first, last = np.searchsorted(predicted_lines, [lines[0], lines[-1] + 1])
        appended = stream.take(int(last - first))
        columns = (appended[name].to_pylist() for name in (*names, ERROR))
        for line, *one, error in zip(predicted_lines[first:last].tolist(), *columns, strict=True):
            reason = reasons.get(line) or error
            rows[line][-len(one) - 1 :] = [*nothing, reason] if reason else [*(_text(each, index) for each in one), ""]
        while ragged and ragged[0] < lines[-1]:
            line = ragged.pop(0)
            rows[line] = [*_ragged(texts, cells_of[line]), *nothing, reasons[line]]
        yield [rows[line] for line in sorted(rows)]
    yield [[*_ragged(texts, cells_of[line]), *nothing, reasons[line]] for line in ragged]


def _few_rows(batches: Iterable[pyarrow.RecordBatch]) -> Iterator[pyarrow.RecordBatch]:
    """The same rows, at most `_ROWS_AT_ONCE` at a time."""
    for batch in batches:
        for start in range(0, len(batch), _ROWS_AT_ONCE):
            yield batch.slice(start, _ROWS_AT_ONCE)


def _ragged(texts: CsvIndex, text: str) -> list[str]:
    """The first cells of a ragged row, as many as there are columns; a line that is no JSON has none."""
    if texts.dialect.format != "csv":
        return [""] * len(_columns(texts))
    (cells,) = csv.reader([text], delimiter=texts.dialect.delimiter, quotechar=texts.dialect.quote)
    width = len(_columns(texts))
    return [*cells, *[""] * width][:width]


def _text(value: Any, index: CsvIndex) -> str:
    if isinstance(value, float):
        return f"{value:.6g}".replace(".", index.dialect.decimal)
    return escaped(str(value))


class _Rows:
    """Takes rows off a stream of tables."""

    def __init__(self, tables: Iterable[pyarrow.Table]) -> None:
        self._tables = iter(tables)
        self._rest: pyarrow.Table | None = None

    def take(self, count: int) -> pyarrow.Table:
        parts = [] if self._rest is None else [self._rest]
        while sum(map(len, parts)) < count or not parts:
            parts.append(next(self._tables))
        table = pyarrow.concat_tables(parts)
        self._rest = table.slice(count)
        return table.slice(0, count)


def _lines(rows: Iterable[Sequence[str]], dialect: Dialect) -> bytes:
    text = io.StringIO()
    plain = csv.writer(text, delimiter=dialect.delimiter, lineterminator="\n")
    # Python does not quote a carriage return that is not in the line terminator.
    quoting = csv.writer(text, delimiter=dialect.delimiter, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for row in rows:
        (quoting if any("\r" in cell for cell in row) else plain).writerow(row)
    return text.getvalue().encode()
