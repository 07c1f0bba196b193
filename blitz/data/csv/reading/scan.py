"""The streaming pass that turns a CSV into an Arrow file, statistics and faults.

A pass assumes what the start of the file suggests: the type of each column, and how it writes numbers. What refutes an
assumption ends the writing, not the pass, so that one more pass knows what all cells of all columns are.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.compute as pc
import pyarrow.csv

from blitz.data.csv.reading.assumptions import Assumed, Given, assumed_after, assumed_from, evidence_of, notes_on
from blitz.data.csv.reading.bad_rows import NOT_A_NUMBER, faults_of
from blitz.data.csv.reading.columns import MAX_CATEGORIES, Categories, ColumnType, NumberColumn
from blitz.data.csv.reading.compressed import CsvBytes
from blitz.data.csv.reading.csv_text import CsvText, read_ahead
from blitz.data.csv.reading.dialect import (
    NAMELESS,
    Dialect,
    DialectOptions,
    HeaderIsCut,
    detect_dialect,
)
from blitz.data.csv.reading.encoding import HEAD_BYTES, REPLACEMENT, EncodingScan, Guess
from blitz.data.csv.reading.layout import pack, schema_of
from blitz.data.csv.reading.lines import LineCount, Lines, RaggedRow
from blitz.data.csv.reading.numbers import Decimal
from blitz.data.csv.reading.quote_faults import QuoteFaults, WrongQuote, take_out
from blitz.data.csv.reading.readings import single_quotes_fit_in_part
from blitz.errors import DataError

_BLOCK_BYTES = 2 << 20
# A block of a table of thousands of columns should have hundreds of rows rather than a few dozen.
_BLOCK_BYTES_A_COLUMN = 8 << 10
_LONGEST_ROW_BYTES = 16 << 20
# With fewer rows, little can be detected.
_HEAD_ROWS = 8


@dataclass(frozen=True)
class CsvOptions(DialectOptions):
    """Options for reading a CSV. Everything that is not given is detected."""

    types: Mapping[str, ColumnType] = field(default_factory=dict)
    """Types by column."""
    label_columns: tuple[str, ...] = ()
    """Columns whose cells may not be missing."""
    image_column: str | None = None
    """Paths or URIs of images; none may be missing, and no image may have two labels."""
    decimal: Decimal | None = None
    """The decimal mark."""
    usual_decimal: Decimal = "."
    """The decimal mark if no cell shows it: that of the CSV which was trained on."""
    verbatim: tuple[str, ...] = ()
    """Category columns of which only blank cells are missing: elsewhere `null`, `n/a` and the like are, too."""
    keep_nameless: bool = False
    """Also index the cells of an index column, as text."""


@dataclass(frozen=True)
class PassResult:
    """The result of a pass; the columns are those of `ColumnReport`."""

    columns: list[dict[str, Any]]
    codes: dict[str, tuple[str, ...]]
    rows: int
    total_rows: int
    writings: dict[str, dict[str, Any]]
    faults: list[pyarrow.RecordBatch]


@dataclass(frozen=True)
class Head:
    """The start of a CSV: its dialect and first rows."""

    dialect: Dialect
    rows: list[list[str]]

    @property
    def columns(self) -> dict[str, list[str]]:
        """The first cells of each column, ragged rows left out."""
        cells = self.dialect.cells
        rows = [row for row in self.rows if len(row) == len(cells)]
        return {name: [row[i] for row in rows] for i, name in enumerate(cells) if NAMELESS not in name}

    def holds_numbers(self, column: str) -> bool:
        """Whether a column seems to be one of numbers."""
        found = evidence_of(self.columns[column])
        return not found.present or found.is_number(found.writing(found.mark or "."))


def read_head(name: str, options: CsvOptions, encoding: Guess | None = None, *, size: int = HEAD_BYTES) -> Head:
    """The dialect of a CSV and its first rows, from `size` bytes or, where rows are long, from more.

    Its encoding is guessed from them if it is not given.

    Raises:
        DataError: if there is no such file, it is no text, or has no header.
    """
    data, whole = b"", False
    with CsvBytes(name) as file:
        while True:
            while not whole and len(data) < size:
                data += (part := file.read(size - len(data)))
                whole = not part
            if not data:
                raise DataError(f"{name} is empty; its first line must name the columns")
            try:
                head = _head(name, data, whole, options, encoding)
                if whole or len(head.rows) >= _HEAD_ROWS or len(data) >= _LONGEST_ROW_BYTES:
                    return head
            except HeaderIsCut:
                if whole or len(data) >= _LONGEST_ROW_BYTES:
                    raise
            size *= 4


def _head(name: str, data: bytes, whole: bool, options: CsvOptions, encoding: Guess | None) -> Head:
    encoding = options.encoding or encoding
    if encoding is None:
        scan = EncodingScan()
        scan.add(data)
        encoding = scan.encoding(whole=whole)
        if encoding is None:
            raise DataError(f"{name} is not text; save the table as CSV, best in UTF-8")
    if encoding == "mixed":
        raise DataError(
            f"{name} holds some characters in UTF-8, and more bytes that are not; save it in UTF-8, or name its "
            f"encoding with {options.flags}encoding"
        )
    dialect, rows = detect_dialect(data, whole=whole, encoding=encoding, options=options, csv_name=name)
    return Head(dialect, rows)


def read_csv(name: str, encoding: Guess, options: CsvOptions, target: Path) -> tuple[Dialect, PassResult]:
    """Write the columns of the CSV `name`, and the line of each row, to an Arrow IPC file.

    Raises:
        DataError: if the CSV has no header or no rows, or lacks a column that `options` name.
    """
    try:
        return _read_csv(name, encoding, options, target)
    except WrongQuote:
        try:
            return _read_csv(name, encoding, replace(options, quote='"'), target)
        except DataError as error:
            raise single_quotes_fit_in_part(name, options.flags) from error


def _read_csv(name: str, encoding: Guess, options: CsvOptions, target: Path) -> tuple[Dialect, PassResult]:
    head = read_head(name, options, encoding)
    dialect = head.dialect
    images = (options.image_column,) if options.image_column else ()
    for column in (*options.types, *options.label_columns, *images):
        if column not in dialect.names:
            raise DataError(f"{name} has no column '{column}'; it has: {', '.join(dialect.names)}")
    types = {**options.types, **dict.fromkeys(images, _TEXT)}
    given = Given(types, options.label_columns, options.verbatim, options.decimal, options.usual_decimal)
    assumed = assumed_from(head.columns, given)
    block_bytes = min(max(_BLOCK_BYTES, _BLOCK_BYTES_A_COLUMN * len(dialect.names)), _LONGEST_ROW_BYTES)
    while True:
        # Opened again, because the previous pass may still be reading ahead.
        with CsvBytes(name) as file:
            text = CsvText(file, dialect, checked=options.encoding is not None)
            try:
                result = _Pass(name, dialect, options, assumed, given, block_bytes, text).run(target)
                return replace(dialect, decimal=assumed.decimal), result
            except _Refuted as refuted:
                assumed = refuted.better
            except _LongerRow:
                block_bytes = _LONGEST_ROW_BYTES


_TEXT: ColumnType = "text"


class _Refuted(Exception):
    """An assumption does not hold; `better` are those of the next pass."""

    def __init__(self, better: Assumed) -> None:
        super().__init__()
        self.better = better


class _LongerRow(Exception):
    """A row is longer than a block."""


class _Pass:
    """One pass over a CSV under assumptions."""

    def __init__(
        self,
        name: str,
        dialect: Dialect,
        options: CsvOptions,
        assumed: Assumed,
        given: Given,
        block_bytes: int,
        text: CsvText,
    ) -> None:
        self.name, self.dialect, self.options, self.assumed, self.given = name, dialect, options, assumed, given
        self.block_bytes, self.text = block_bytes, text
        self.columns = assumed.columns(given)
        self.suspects: set[str] = set()
        """Columns that seem to differ from the assumptions: while there are any, nothing is written."""
        self.lines = LineCount(dialect.header_lines)
        self.faults: list[pyarrow.RecordBatch] = []
        self.rows = self.ragged = 0
        self.keeps_index = dialect.index_column and options.keep_nameless
        self.quotes = QuoteFaults(text, dialect.quote, is_guessed=options.quote is None)
        self.last_lines = np.zeros(0, np.int64)

    def run(self, target: Path) -> PassResult:
        """Write the index of the CSV; returns what was found."""
        types = {**self.assumed.types, **({NAMELESS: _TEXT} if self.keeps_index else {})}
        schema = schema_of(types)
        with pyarrow.ipc.new_file(str(target), schema) as writer:
            for batch in read_ahead(self._batches()):
                columns, lines = self._take(batch)
                if not self.suspects:
                    writer.write_batch(pack(columns, lines, schema))
        _, ragged, lines = self.lines.take(None)
        self._add_ragged(ragged, lines)
        for broken, reason in self.quotes.at_the_end(
            lines, name=self.name, flags=self.options.flags, is_whole=not self.ragged
        ):
            found = np.flatnonzero(np.isin(self.last_lines, broken))
            first = self.rows - len(self.last_lines)
            self.faults.append(faults_of(self.last_lines[found], None, [""] * len(found), reason, first + found))
        if not self.rows + self.ragged:
            raise self._no_rows()
        better = assumed_after(self.assumed, self.columns, self.given)
        if self.suspects and better is self.assumed:
            # The first rows were misleading: over the whole file the assumptions hold.
            better = replace(better, passes=better.passes + 1)
        if better is not self.assumed:
            raise _Refuted(better)
        notes = notes_on(self.assumed, self.columns, self.given)
        numbers = {name for name, one in self.columns.items() if isinstance(one, NumberColumn)}
        reports = [replace(column.report(name), note=notes.get(name)) for name, column in self.columns.items()]
        return PassResult(
            columns=[asdict(report) for report in reports],
            codes={name: one.by_code for name, one in self.columns.items() if isinstance(one, Categories)},
            rows=self.rows,
            total_rows=self.rows + self.ragged,
            writings={name: asdict(self.assumed.writings[name]) for name in self.columns if name in numbers},
            faults=self.faults,
        )

    def _batches(self) -> Iterator[pyarrow.RecordBatch]:
        """The CSV's rows, all cells as text."""
        try:
            yield from pyarrow.csv.open_csv(
                self.text,
                # Only a single thread numbers ragged rows.
                pyarrow.csv.ReadOptions(
                    use_threads=False, block_size=self.block_bytes, column_names=[*self.dialect.cells]
                ),
                pyarrow.csv.ParseOptions(
                    delimiter=self.dialect.delimiter,
                    quote_char=self.dialect.quote,
                    newlines_in_values=True,
                    ignore_empty_lines=False,
                    invalid_row_handler=self.lines.ragged_row,
                ),
                pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(self.dialect.cells, pyarrow.string())),
            )
        except pyarrow.ArrowInvalid as error:
            raise self._what_to_do(str(error)) from error
        except UnicodeError as error:
            raise DataError(f"{self.name} is not encoded in {self.dialect.encoding}: {error}") from error

    def _no_rows(self) -> DataError:
        return DataError(f"{self.name} has a header and no rows")

    def _what_to_do(self, complaint: str) -> Exception:
        if complaint == "Empty CSV file":
            return self._no_rows()
        if "straddl" in complaint and self.block_bytes < _LONGEST_ROW_BYTES:
            return _LongerRow()
        if "straddl" in complaint:
            mebibytes = _LONGEST_ROW_BYTES >> 20
            return DataError(
                f"{self.name}:{self.lines.next_line}: from here on a row is longer than {mebibytes} MiB; "
                f"close the quote {self.dialect.quote} that is left open"
            )
        return DataError(f"{self.name} cannot be read as CSV: {complaint.splitlines()[0]}")

    def _take(self, batch: pyarrow.RecordBatch) -> tuple[dict[str, Any], Lines]:
        """The batch's columns in the types of the index, and their lines; records statistics and faults."""
        lines, ragged, ragged_lines = self.lines.take(batch)
        self._add_ragged(ragged, ragged_lines)
        cells = dict(zip(self.dialect.cells, batch.columns, strict=True))
        wrong = {reason: mask for reason, mask in self._wrong_rows(cells, lines, ragged_lines) if mask.any()}
        if blank := self.text.take_blank(self.lines.next_line):
            kept = ~np.isin(lines, blank)
            lines, wrong = lines[kept], {reason: mask[kept] for reason, mask in wrong.items()}
            cells = {name: one.filter(pyarrow.array(kept)) for name, one in cells.items()}
        raw = {name: cells[name] for name in self.dialect.names}
        # No number holds such a mark; a category of cells that do would be one more class. Texts stay as they are.
        seen = {name: one for name, one in raw.items() if not isinstance(self.columns[name], NumberColumn)}
        marked = {
            reason: take_out(mark, seen)
            for mark, reason, is_there in (
                ("\0", "expected no NUL character", self.text.has_nul),
                (REPLACEMENT, "expected UTF-8, as other parts of the file are", self.text.has_not_decoded),
            )
            if is_there
        }
        parsed = {}
        for name, one in raw.items():
            column = self.columns[name]
            if not (isinstance(column, Categories) and column.too_many):
                parsed[name] = column.add(seen[name] if isinstance(column, Categories) else one)
                if isinstance(column, Categories):
                    column.missing -= sum(found[name].true_count for found in marked.values() if name in found)
            self._check(name, column, one)
        if not self.suspects:
            for reason, mask in wrong.items():
                self._add_faults(None, mask, lines, None, reason)
            self._note_faults(raw, parsed, marked, lines)
        self.last_lines = lines
        self.rows += len(lines)
        return {**parsed, **({NAMELESS: cells[NAMELESS]} if self.keeps_index else {})}, lines

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
        for name in self.options.label_columns:
            self._add_faults(name, missing(parsed[name], bad.get(name)), lines, raw[name], "expected a label")
        image = self.options.image_column
        if image is not None:
            self._add_faults(image, pc.equal(raw[image], ""), lines, raw[image], "expected the path of an image")

    def _wrong_rows(self, cells: Mapping[str, Any], lines: Lines, ragged: Lines) -> Iterator[tuple[str, Any]]:
        """Reasons, each with a mask of the rows that it applies to."""
        broken = self.quotes.among(lines, ragged, next_line=self.lines.next_line)
        if len(broken):
            yield self.quotes.reason, np.isin(lines, broken)
        for name in self.dialect.nameless_at_the_end:
            reason = "the row has a cell below no name in the header"
            yield reason, pc.not_equal(pc.utf8_trim_whitespace(cells[name]), "").to_numpy(zero_copy_only=False)

    def _check(self, name: str, column: Any, cells: pyarrow.StringArray) -> None:
        """Check that a column still fits its assumptions."""
        declared = name in self.given.types
        suspect = isinstance(column, NumberColumn) and (column.evidence.identifies or not column.is_number)
        if not declared and (suspect or (name in self.suspects and isinstance(column, NumberColumn))):
            column.suspect(cells)
            # In a later pass all cells have been seen.
            if self.assumed.passes == 1:
                self.suspects.add(name)
        if isinstance(column, Categories) and (column.too_many or column.refuted):
            if column.too_many and (declared or name in self.options.label_columns):
                raise DataError(
                    f"{self.name}: column '{name}' has more than {MAX_CATEGORIES} distinct values, too many for a "
                    "category; declare it a number or text"
                )
            self.suspects.add(name)

    def _add_faults(self, name: str | None, bad: Any, lines: Lines, values: Any, reason: str) -> None:
        """Add a fault wherever `bad` is true; `values` are the cells, or None if the whole row is at fault."""
        rows = np.flatnonzero(bad)
        if len(rows):
            cells = [""] * len(rows) if values is None else values.take(pyarrow.array(rows))
            self.faults.append(faults_of(lines[rows], name, cells, reason, self.rows + rows))

    def _add_ragged(self, ragged: list[RaggedRow], lines: Lines) -> None:
        if ragged:
            expected, nameless = len(self.dialect.cells), len(self.dialect.cells) > len(self.dialect.names)
            what = f"other rows have {expected}" if nameless else f"the header has {expected}"
            reasons = [f"the row has {row.fields} fields; {what}" for row in ragged]
            self.faults.append(faults_of(lines, None, [row.text for row in ragged], reasons, None))
            self.ragged += len(ragged)


def missing(cells: Any, bad: Any = None) -> Any:
    """Which cells of an index's column are missing: null numbers, code -1, or no text, save those that are `bad`."""
    if pyarrow.types.is_floating(cells.type):
        return cells.is_null() if bad is None else pc.and_not(cells.is_null(), bad)
    empty = pc.equal(cells, -1) if pyarrow.types.is_integer(cells.type) else pc.equal(cells, "")
    return empty if bad is None else pc.and_not(empty, bad)
