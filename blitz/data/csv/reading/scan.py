"""The streaming pass that turns a file into an Arrow file, statistics and faults.

A pass assumes what the start of the file suggests: the type of each column, and how it writes numbers. What refutes an
assumption ends the writing, not the pass, so that one more pass knows what all cells of all columns are.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.compute as pc

from blitz.data.csv.reading.arrow_reader import ArrowReader
from blitz.data.csv.reading.assumptions import Assumed, Given
from blitz.data.csv.reading.bad_rows import NOT_A_NUMBER, faults_of
from blitz.data.csv.reading.columns import MAX_CATEGORIES, Categories, Column, ColumnType, NumberColumn
from blitz.data.csv.reading.csv_reader import LONGEST_ROW_BYTES, CsvReader, LongerRow, block_bytes_of
from blitz.data.csv.reading.dialect import NAMELESS, Dialect, Format
from blitz.data.csv.reading.encoding import Guess
from blitz.data.csv.reading.head import like, read_head
from blitz.data.csv.reading.json_reader import JsonReader, json_dialect
from blitz.data.csv.reading.layout import pack, schema_of
from blitz.data.csv.reading.lines import Lines
from blitz.data.csv.reading.quote_faults import take_out
from blitz.data.csv.reading.reader import CsvOptions, ReadBatch, TableReader
from blitz.data.csv.reading.source_files import SourceFile
from blitz.data.csv.reading.typed_cells import as_text
from blitz.errors import DataError

_TEXT: ColumnType = "text"
_HEADER_BYTES = 1 << 13
"""Enough to see the header, where delimiter and quote are known."""


def given_by(options: CsvOptions) -> Given:
    """What the options say about the columns."""
    images = (options.image_column,) if options.image_column else ()
    types = {**options.types, **dict.fromkeys(images, _TEXT)}
    return Given(types, options.label_columns, options.verbatim, options.decimal, options.usual_decimal)


@dataclass(frozen=True)
class FileTask:
    """A pass over one file of a table: the file, and what is assumed of the table's columns."""

    file: SourceFile
    format: Format
    encoding: Guess
    options: CsvOptions
    first: Dialect
    """The dialect of the table's first file, whose marks and columns a further one shares."""
    is_first: bool
    assumed: Assumed

    @property
    def partition(self) -> dict[str, str]:
        """The columns that the file's folders name."""
        return {name: value for name, value in self.file.partition if name not in self.first.names}


@dataclass(frozen=True)
class FileScan:
    """The result of a pass."""

    dialect: Dialect
    columns: Mapping[str, Column]
    rows: int
    total_rows: int
    faults: list[pyarrow.RecordBatch]
    written: bool
    """Whether the index was written: not if a column of this file seems not to be as it was assumed."""
    more: Mapping[str, list[str]]
    """Keys of JSON lines that the first rows of the table lack, and their first cells."""


def scan(task: FileTask, target: Path) -> FileScan:
    """Write the columns of a file, and the line of each row, to an Arrow IPC file.

    Raises:
        DataError: if the file cannot be read, or has other columns than the first of the table.
        WrongQuote: if the quote was guessed, and is wrong.
    """
    dialect = _dialect(task)
    block_bytes = block_bytes_of(dialect)
    while True:
        try:
            # Opened again, because the previous pass may still be reading ahead.
            with _reader(task, dialect, block_bytes) as reader:
                return _Pass(task, dialect, reader).run(target)
        except LongerRow:
            block_bytes = LONGEST_ROW_BYTES


def _dialect(task: FileTask) -> Dialect:
    if task.format == "json":
        # Keys may come later, and in another file.
        return json_dialect(tuple(name for name in task.assumed.types if name not in task.partition))
    dialect = task.first
    if not task.is_first:
        options = like(task.options, task.first)
        dialect = read_head(task.file, options, task.encoding, kind=task.format, size=_HEADER_BYTES).dialect
    _require_same(task, dialect)
    return dialect


def _require_same(task: FileTask, dialect: Dialect) -> None:
    """Refuse a file whose columns are not those of the table.

    Raises:
        DataError: that says how they differ.
    """
    names = [name for name in task.assumed.types if name not in task.partition]
    missing = [name for name in names if name not in dialect.names]
    added = [name for name in dialect.names if name not in names]
    ways = [
        f"{what} {', '.join(repr(name) for name in some[:5])}{' …' if len(some) > 5 else ''}"
        for what, some in (("lacks", missing), ("adds", added))
        if some
    ]
    if not ways and task.options.keep_nameless and dialect.index_column != task.first.index_column:
        ways = ["has a first column without a name" if dialect.index_column else "has no first column without a name"]
    if ways:
        raise DataError(
            f"{task.file.name} {' and '.join(ways)}, unlike other files of the table; files that are read together "
            "have the same columns and marks"
        )


def _reader(task: FileTask, dialect: Dialect, block_bytes: int) -> TableReader:
    if task.format == "csv":
        return CsvReader(task.file, dialect, task.options, block_bytes)
    return JsonReader(task.file, dialect) if task.format == "json" else ArrowReader(task.file, task.format)


class _Pass:
    """One pass over a file under assumptions."""

    def __init__(self, task: FileTask, dialect: Dialect, reader: TableReader) -> None:
        self.name, self.options, self.assumed = task.file.name, task.options, task.assumed
        self.partition, self.dialect, self.reader = task.partition, dialect, reader
        self.given = given_by(task.options)
        self.columns: dict[str, Any] = self.assumed.columns(self.given)
        self.suspects: set[str] = {*self.assumed.doubted}
        """Columns that seem to differ from the assumptions: while there are any, nothing is written."""
        self.faults: list[pyarrow.RecordBatch] = []
        self.rows = 0
        self.keeps_index = dialect.index_column and self.options.keep_nameless
        self.last_lines = np.zeros(0, np.int64)

    def run(self, target: Path) -> FileScan:
        """Write the index of the file; returns what was found."""
        types = {**self.assumed.types, **({NAMELESS: _TEXT} if self.keeps_index else {})}
        schema = schema_of(types)
        with pyarrow.ipc.new_file(str(target), schema) as writer:
            for batch in self.reader.batches():
                columns = self._take(batch)
                if not self.suspects:
                    writer.write_batch(pack(columns, batch.lines, schema))
        for broken, reason in self.reader.at_the_end():
            found = np.flatnonzero(np.isin(self.last_lines, broken))
            first = self.rows - len(self.last_lines)
            self.faults.append(faults_of(self.last_lines[found], None, [""] * len(found), reason, first + found))
        return FileScan(
            dialect=self.dialect,
            columns=self.columns,
            rows=self.rows,
            total_rows=self.rows + self.reader.ragged_rows,
            faults=[*self.faults, *self.reader.ragged],
            written=not self.suspects and not self.reader.more,
            more=self.reader.more,
        )

    def _take(self, batch: ReadBatch) -> dict[str, Any]:
        """The batch's columns in the types of the index; records statistics and faults."""
        rows = len(batch.lines)
        cells = {
            **batch.cells,
            **{name: pyarrow.array([one] * rows, pyarrow.string()) for name, one in self.partition.items()},
        }
        raw = {
            name: cells[name] if isinstance(column, NumberColumn) else as_text(cells[name])
            for name, column in self.columns.items()
        }
        # No number holds such a mark; a category of cells that do would be one more class. Texts stay as they are.
        seen = {name: one for name, one in raw.items() if not isinstance(self.columns[name], NumberColumn)}
        marked = {reason: take_out(mark, seen) for mark, reason in batch.marks.items()}
        parsed = {}
        for name, one in raw.items():
            column = self.columns[name]
            if not (isinstance(column, Categories) and column.too_many):
                parsed[name] = column.add(seen[name] if isinstance(column, Categories) else one)
                if isinstance(column, Categories):
                    column.missing -= sum(found[name].true_count for found in marked.values() if name in found)
            self._check(name, column, one)
        if not self.suspects:
            for reason, mask in batch.wrong.items():
                self._add_faults(None, mask, batch.lines, None, reason)
            self._note_faults(raw, parsed, marked, batch.lines)
        self.last_lines = batch.lines
        self.rows += rows
        return {**parsed, **({NAMELESS: cells[NAMELESS]} if self.keeps_index else {})}

    def _note_faults(
        self, raw: Mapping[str, Any], parsed: Mapping[str, Any], marked: Mapping[str, Mapping[str, Any]], lines: Lines
    ) -> None:
        bad: dict[str, Any] = {}
        for reason, found in marked.items():
            for name, cells in found.items():
                self._add_faults(name, cells, lines, raw[name], reason)
                bad[name] = pc.or_(bad[name], cells) if name in bad else cells
        for name, column in self.columns.items():
            if isinstance(column, NumberColumn) and column.bad_cells is not None:
                bad[name] = column.bad_cells
                self._add_faults(name, column.bad_cells, lines, raw[name], NOT_A_NUMBER)
        # In a first pass over JSON lines a key may still be unknown.
        for name in (name for name in self.options.label_columns if name in self.columns):
            self._add_faults(name, missing(parsed[name], bad.get(name)), lines, raw[name], "expected a label")
        image = self.options.image_column
        if image is not None and image in self.columns:
            self._add_faults(image, pc.equal(raw[image], ""), lines, raw[image], "expected the path of an image")

    def _check(self, name: str, column: Any, cells: pyarrow.Array) -> None:
        """Check that a column still fits its assumptions."""
        declared = name in self.given.types
        suspect = isinstance(column, NumberColumn) and (column.evidence.identifies or not column.is_number)
        if not declared and (suspect or (name in self.suspects and isinstance(column, NumberColumn))):
            column.suspect(cells)
            # In a later pass all cells have been seen.
            if self.assumed.passes == 1:
                self.suspects.add(name)
        if isinstance(column, Categories) and (column.too_many or column.refuted):
            require_few({name: column}, self.given, self.options, self.name)
            self.suspects.add(name)

    def _add_faults(self, name: str | None, bad: Any, lines: Lines, values: Any, reason: str) -> None:
        """Add a fault wherever `bad` is true; `values` are the cells, or None if the whole row is at fault."""
        rows = np.flatnonzero(bad)
        if len(rows):
            cells = [""] * len(rows) if values is None else as_text(values.take(pyarrow.array(rows)))
            self.faults.append(faults_of(lines[rows], name, cells, reason, self.rows + rows))


def require_few(columns: Mapping[str, Column], given: Given, options: CsvOptions, csv: str) -> None:
    """Refuse a declared category, or one to learn, of too many values.

    Raises:
        DataError: that names it.
    """
    for name, column in columns.items():
        declared = name in given.types or name in options.label_columns
        if isinstance(column, Categories) and column.too_many and declared:
            raise DataError(
                f"{csv}: column '{name}' has more than {MAX_CATEGORIES} distinct values, too many for a "
                "category; declare it a number or text"
            )


def missing(cells: Any, bad: Any = None) -> Any:
    """Which cells of an index's column are missing: null numbers, code -1, or no text, save those that are `bad`."""
    if pyarrow.types.is_floating(cells.type):
        return cells.is_null() if bad is None else pc.and_not(cells.is_null(), bad)
    empty = pc.equal(cells, -1) if pyarrow.types.is_integer(cells.type) else pc.equal(cells, "")
    return empty if bad is None else pc.and_not(empty, bad)
