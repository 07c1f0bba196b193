"""The streaming pass that turns a CSV into an Arrow file, statistics and faults.

A pass assumes what the file's beginning suggests: the type of each column, and that number columns hold numbers alone,
which are converted fastest. What refutes an assumption ends the pass, and another one begins without it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.compute as pc
import pyarrow.csv

from blitz.data.csv.bad_rows import NOT_A_NUMBER, faults_of
from blitz.data.csv.columns import (
    MAX_CATEGORIES,
    MISSING_NUMBERS,
    Categories,
    ColumnType,
    Numbers,
    Texts,
    infer_type,
    is_number_column,
    parse_numbers,
)
from blitz.data.csv.compressed import CsvBytes
from blitz.data.csv.csv_text import CsvText, read_ahead
from blitz.data.csv.dialect import (
    HEAD_BYTES,
    NAMELESS,
    Dialect,
    DialectOptions,
    Encoding,
    EncodingScan,
    HeaderIsCut,
    detect_dialect,
)
from blitz.data.csv.lines import LineCount, Lines, RaggedRow
from blitz.data.csv.quote_faults import QuoteFaults, WrongQuote, take_out_nul
from blitz.data.csv.readings import single_quotes_fit_in_part
from blitz.errors import DataError

# The index's column of line numbers: a name that no header may hold.
LINE = ""

_BLOCK_BYTES = 2 << 20
_LONGEST_ROW_BYTES = 16 << 20
# Of fewer, little can be told.
_HEAD_ROWS = 8


@dataclass(frozen=True)
class CsvOptions(DialectOptions):
    """What a CSV is said to be. All that is left out is detected."""

    types: Mapping[str, ColumnType] = field(default_factory=dict)
    """Types by column."""
    label_columns: tuple[str, ...] = ()
    """Columns whose cells may not be missing."""
    image_column: str | None = None
    """Paths or URIs of images; none may be missing, and no image may have two labels."""
    keep_nameless: bool = False
    """Also index the cells of an index column, as text."""


@dataclass(frozen=True)
class PassResult:
    """What a pass found; the columns are those of `ColumnReport`."""

    columns: list[dict[str, Any]]
    codes: dict[str, tuple[str, ...]]
    rows: int
    total_rows: int
    faults: list[pyarrow.RecordBatch]


@dataclass(frozen=True)
class Head:
    """How a CSV begins."""

    dialect: Dialect
    rows: list[list[str]]

    @property
    def columns(self) -> dict[str, list[str]]:
        """The first cells of each column, ragged rows left out."""
        cells = self.dialect.cells
        rows = [row for row in self.rows if len(row) == len(cells)]
        return {name: [row[place] for row in rows] for place, name in enumerate(cells) if NAMELESS not in name}

    def holds_numbers(self, column: str) -> bool:
        """Whether a column seems to be one of numbers."""
        return infer_type(self.columns[column], is_label=False, decimal=self.dialect.decimal) == "number"


def read_head(name: str, options: CsvOptions, encoding: Encoding | None = None, *, size: int = HEAD_BYTES) -> Head:
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


def _head(name: str, data: bytes, whole: bool, options: CsvOptions, encoding: Encoding | None) -> Head:
    encoding = options.encoding or encoding
    if encoding is None:
        scan = EncodingScan()
        scan.add(data)
        encoding = scan.encoding(whole=whole)
        if encoding is None:
            raise DataError(f"{name} is not text; save the table as CSV, best in UTF-8")
    dialect, rows = detect_dialect(data, whole=whole, encoding=encoding, options=options, csv_name=name)
    return Head(dialect, rows)


def read_csv(name: str, encoding: Encoding, options: CsvOptions, target: Path) -> tuple[Dialect, PassResult]:
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


def _read_csv(name: str, encoding: Encoding, options: CsvOptions, target: Path) -> tuple[Dialect, PassResult]:
    head = read_head(name, options, encoding)
    dialect = head.dialect
    images = (options.image_column,) if options.image_column else ()
    for column in (*options.types, *options.label_columns, *images):
        if column not in dialect.names:
            raise DataError(f"{name} has no column '{column}'; it has: {', '.join(dialect.names)}")
    assumed = _Assumed(_types(head, options))
    while True:
        # Opened anew: the pass before may still be reading ahead.
        with CsvBytes(name) as file:
            text = CsvText(file, dialect, checked=options.encoding is not None)
            try:
                return dialect, _Pass(name, dialect, options, assumed, text).run(target)
            except _Refuted as refuted:
                assumed = refuted.better


def _types(head: Head, options: CsvOptions) -> dict[str, ColumnType]:
    types: dict[str, ColumnType] = {}
    for name, cells in head.columns.items():
        types[name] = infer_type(cells, is_label=options.label_columns == (name,), decimal=head.dialect.decimal)
    types.update(options.types)
    if options.image_column:
        types[options.image_column] = "text"
    return types


@dataclass(frozen=True)
class _Assumed:
    """What a pass takes for granted."""

    types: Mapping[str, ColumnType]
    only_numbers: bool = True
    """Number columns hold finite numbers and missing cells alone."""
    block_bytes: int = _BLOCK_BYTES
    """No row is longer."""

    def with_type(self, column: str, kind: ColumnType) -> "_Assumed":
        """Another type for a column."""
        return replace(self, types={**self.types, column: kind})


class _Refuted(Exception):
    """An assumption does not hold; `better` is what the next pass assumes."""

    def __init__(self, better: _Assumed) -> None:
        super().__init__()
        self.better = better


class _Pass:
    """One pass over a CSV under assumptions."""

    def __init__(self, name: str, dialect: Dialect, options: CsvOptions, assumed: _Assumed, text: CsvText) -> None:
        self.name, self.dialect, self.options, self.assumed, self.text = name, dialect, options, assumed, text
        kinds = {"number": Numbers, "category": Categories, "text": Texts}
        self.columns: dict[str, Any] = {name: kinds[assumed.types[name]]() for name in dialect.names}
        self.lines = LineCount(dialect.header_lines)
        self.faults: list[pyarrow.RecordBatch] = []
        self.rows = self.ragged = 0
        self.keeps_index = dialect.index_column and options.keep_nameless
        self.quotes = QuoteFaults(text, dialect.quote, is_guessed=options.quote is None)
        self.last_lines = np.zeros(0, np.int64)

    def run(self, target: Path) -> PassResult:
        """Write the index of the text."""
        arrow = {"number": pyarrow.float64(), "category": pyarrow.int32(), "text": pyarrow.string()}
        fields = {name: arrow[self.assumed.types[name]] for name in self.dialect.names}
        if self.keeps_index:
            fields[NAMELESS] = pyarrow.string()
        schema = pyarrow.schema(fields | {LINE: pyarrow.int64()})
        with pyarrow.ipc.new_file(str(target), schema) as writer:
            for batch in read_ahead(self._batches()):
                writer.write_batch(pyarrow.record_batch(self._take(batch), schema=schema))
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
        return PassResult(
            columns=[asdict(column.report(name)) for name, column in self.columns.items()],
            codes={name: one.by_code for name, one in self.columns.items() if isinstance(one, Categories)},
            rows=self.rows,
            total_rows=self.rows + self.ragged,
            faults=self.faults,
        )

    def _batches(self) -> Iterator[pyarrow.RecordBatch]:
        """The CSV's rows: numbers as float64 if they are assumed to be numbers alone, all else as text."""
        plain = self.assumed.only_numbers
        types = {
            name: pyarrow.float64() if plain and kind == "number" else pyarrow.string()
            for name, kind in self.assumed.types.items()
        }
        types |= {name: pyarrow.string() for name in self.dialect.cells if name not in types}
        try:
            yield from pyarrow.csv.open_csv(
                self.text,
                # Only a single thread numbers ragged rows.
                pyarrow.csv.ReadOptions(
                    use_threads=False, block_size=self.assumed.block_bytes, column_names=[*self.dialect.cells]
                ),
                pyarrow.csv.ParseOptions(
                    delimiter=self.dialect.delimiter,
                    quote_char=self.dialect.quote,
                    newlines_in_values=True,
                    ignore_empty_lines=False,
                    invalid_row_handler=self.lines.ragged_row,
                ),
                pyarrow.csv.ConvertOptions(
                    column_types=types, null_values=MISSING_NUMBERS, decimal_point=self.dialect.decimal
                ),
            )
        except pyarrow.ArrowInvalid as error:
            raise self._what_to_do(str(error)) from error
        except UnicodeDecodeError as error:
            raise DataError(f"{self.name} is not encoded in {self.dialect.encoding}: {error}") from error

    def _no_rows(self) -> DataError:
        return DataError(f"{self.name} has a header and no rows")

    def _what_to_do(self, complaint: str) -> Exception:
        if complaint == "Empty CSV file":
            return self._no_rows()
        if "conversion error to double" in complaint:
            return _Refuted(replace(self.assumed, only_numbers=False))
        if "straddl" in complaint and self.assumed.block_bytes < _LONGEST_ROW_BYTES:
            return _Refuted(replace(self.assumed, block_bytes=_LONGEST_ROW_BYTES))
        if "straddl" in complaint:
            mebibytes = _LONGEST_ROW_BYTES >> 20
            return DataError(
                f"{self.name}:{self.lines.next_line}: from here on a row is longer than {mebibytes} MiB; "
                f"close the quote {self.dialect.quote} that is left open"
            )
        return DataError(f"{self.name} cannot be read as CSV: {complaint.splitlines()[0]}")

    def _take(self, batch: pyarrow.RecordBatch) -> list[Any]:
        """The batch's columns as the index holds them, once their statistics and faults are noted."""
        lines, ragged, ragged_lines = self.lines.take(batch)
        self._add_ragged(ragged, ragged_lines)
        cells = dict(zip(self.dialect.cells, batch.columns, strict=True))
        raw = {name: cells[name] for name in self.dialect.names}
        parsed, bad = dict(raw), {}
        if not self.assumed.only_numbers:
            for name, kind in self.assumed.types.items():
                if kind == "number":
                    parsed[name], bad[name] = parse_numbers(raw[name], self.dialect.decimal)
        if self.text.has_nul:
            bad |= take_out_nul(parsed)
        wrong = {reason: mask for reason, mask in self._wrong_rows(cells, lines, ragged_lines) if mask.any()}
        blank = _blank_rows(parsed, bad)
        if blank is not None:
            kept = pc.invert(blank).to_numpy(zero_copy_only=False) | np.any([*wrong.values()], axis=0)
            lines, wrong = lines[kept], {reason: mask[kept] for reason, mask in wrong.items()}
            raw, parsed, bad, cells = (
                {name: one.filter(pyarrow.array(kept)) for name, one in each.items()}
                for each in (raw, parsed, bad, cells)
            )
        for reason, mask in wrong.items():
            self._add_faults(None, mask, lines, None, reason)
        for name, one in parsed.items():
            column = self.columns[name]
            parsed[name] = column.add(one)
            if name in bad:
                self._add_bad(name, bad[name], lines, raw[name])
            self._check(name, column)
        for name in self.options.label_columns:
            self._add_faults(name, missing(parsed[name], bad.get(name)), lines, None, "expected a label")
        image = self.options.image_column
        if image is not None:
            self._add_faults(image, pc.equal(raw[image], ""), lines, None, "expected the path of an image")
        self.last_lines = lines
        self.rows += len(lines)
        return [*parsed.values(), *([cells[NAMELESS]] if self.keeps_index else []), lines]

    def _add_bad(self, name: str, bad: Any, lines: Lines, cells: Any) -> None:
        column = self.columns[name]
        if isinstance(column, Numbers):
            column.bad += self._add_faults(name, bad, lines, cells, NOT_A_NUMBER)
        else:
            found = self._add_faults(name, bad, lines, cells, "expected no NUL character")
            column.missing -= found if isinstance(column, Categories) else 0

    def _wrong_rows(self, cells: Mapping[str, Any], lines: Lines, ragged: Lines) -> Iterator[tuple[str, Any]]:
        """Reasons and which rows they are true of."""
        broken = self.quotes.among(lines, ragged, next_line=self.lines.next_line)
        if len(broken):
            yield self.quotes.reason, np.isin(lines, broken)
        for name in self.dialect.nameless_at_the_end:
            reason = "the row has a cell below no name in the header"
            yield reason, pc.not_equal(pc.utf8_trim_whitespace(cells[name]), "").to_numpy(zero_copy_only=False)

    def _check(self, name: str, column: Any) -> None:
        """Whether a column still is what it is assumed to be."""
        declared = name in self.options.types
        if isinstance(column, Numbers):
            if self.assumed.only_numbers and not column.all_small:
                raise _Refuted(replace(self.assumed, only_numbers=False))
            if not declared and column.bad and not is_number_column(column.count, column.bad):
                raise _Refuted(self.assumed.with_type(name, "category"))
        if isinstance(column, Categories) and column.too_many:
            if declared or name in self.options.label_columns:
                raise DataError(
                    f"{self.name}: column '{name}' has more than {MAX_CATEGORIES} distinct values, too many for a "
                    "category; declare it a number or text"
                )
            raise _Refuted(self.assumed.with_type(name, "text"))

    def _add_faults(self, name: str | None, bad: Any, lines: Lines, values: Any, reason: str) -> int:
        """Note a fault wherever `bad` is true; `values` are the cells, or None where they are empty. The number."""
        places = np.flatnonzero(bad)
        if len(places):
            cells = [""] * len(places) if values is None else values.take(pyarrow.array(places))
            self.faults.append(faults_of(lines[places], name, cells, reason, self.rows + places))
        return len(places)

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


def _blank_rows(parsed: Mapping[str, Any], bad: Mapping[str, Any]) -> Any:
    """Which rows have no value at all, as blank lines do; None if no row."""
    blank = None
    for name, cells in parsed.items():
        empty = missing(cells, bad.get(name))
        blank = empty if blank is None else pc.and_(blank, empty)
        if not blank.true_count:
            return None
    return blank
