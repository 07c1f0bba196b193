"""The rows of a CSV, batch by batch, as text; with the rows that are no rows of a CSV."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow
import pyarrow.compute as pc
import pyarrow.csv

from blitz.data.csv.reading.bad_rows import faults_of
from blitz.data.csv.reading.compressed import CsvBytes
from blitz.data.csv.reading.csv_text import CsvText, read_ahead
from blitz.data.csv.reading.dialect import Dialect
from blitz.data.csv.reading.encoding import REPLACEMENT
from blitz.data.csv.reading.lines import LineCount, Lines, RaggedRow
from blitz.data.csv.reading.quote_faults import QuoteFaults
from blitz.data.csv.reading.reader import CsvOptions, ReadBatch, TableReader
from blitz.data.csv.reading.source_files import SourceFile
from blitz.errors import DataError

LONGEST_ROW_BYTES = 16 << 20
_BLOCK_BYTES = 2 << 20
# A block of a table of thousands of columns should have hundreds of rows rather than a few dozen.
_BLOCK_BYTES_A_COLUMN = 8 << 10


def block_bytes_of(dialect: Dialect) -> int:
    """The bytes that are parsed at once."""
    return min(max(_BLOCK_BYTES, _BLOCK_BYTES_A_COLUMN * len(dialect.names)), LONGEST_ROW_BYTES)


class LongerRow(Exception):
    """A row is longer than a block."""


class CsvReader(TableReader):
    """Reads a CSV once; a context that closes it."""

    def __init__(self, file: SourceFile, dialect: Dialect, options: CsvOptions, block_bytes: int) -> None:
        super().__init__(file)
        self.dialect, self.options, self.block_bytes = dialect, options, block_bytes
        self._lines = LineCount(dialect.header_lines)
        self._bytes = CsvBytes(file.name, file.location)
        self._text = CsvText(self._bytes, dialect, checked=options.encoding is not None)
        self._quotes = QuoteFaults(self._text, dialect.quote, is_guessed=options.quote is None)

    def close(self) -> None:
        """Close the file."""
        self._bytes.close()

    def batches(self) -> Iterator[ReadBatch]:
        """The rows, without ragged and blank ones.

        Raises:
            DataError: if the file cannot be read as a CSV.
            LongerRow: if it can with larger blocks.
            WrongQuote: if the quote was only guessed, and is wrong.
        """
        for batch in read_ahead(self._parsed()):
            yield self._without_blank(batch)

    def at_the_end(self) -> list[tuple[Lines, str]]:
        """Lines of the last batch that turned out to be at fault, with the reason."""
        _, ragged, lines = self._lines.take(None)
        self._add_ragged(ragged, lines)
        return self._quotes.at_the_end(lines, name=self.name, flags=self.options.flags, is_whole=not self.ragged_rows)

    def _parsed(self) -> Iterator[pyarrow.RecordBatch]:
        try:
            yield from pyarrow.csv.open_csv(
                self._text,
                # Only a single thread numbers ragged rows.
                pyarrow.csv.ReadOptions(
                    use_threads=False, block_size=self.block_bytes, column_names=[*self.dialect.cells]
                ),
                pyarrow.csv.ParseOptions(
                    delimiter=self.dialect.delimiter,
                    quote_char=self.dialect.quote,
                    newlines_in_values=True,
                    ignore_empty_lines=False,
                    invalid_row_handler=self._lines.ragged_row,
                ),
                pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(self.dialect.cells, pyarrow.string())),
            )
        except pyarrow.ArrowInvalid as error:
            if str(error) != "Empty CSV file":
                raise self._what_to_do(str(error)) from error
        except UnicodeError as error:
            raise DataError(f"{self.name} is not encoded in {self.dialect.encoding}: {error}") from error

    def _what_to_do(self, complaint: str) -> Exception:
        if "straddl" in complaint and self.block_bytes < LONGEST_ROW_BYTES:
            return LongerRow()
        if "straddl" in complaint:
            mebibytes = LONGEST_ROW_BYTES >> 20
            return DataError(
                f"{self.name}:{self._lines.next_line}: from here on a row is longer than {mebibytes} MiB; "
                f"close the quote {self.dialect.quote} that is left open"
            )
        return DataError(f"{self.name} cannot be read as CSV: {complaint.splitlines()[0]}")

    def _without_blank(self, batch: pyarrow.RecordBatch) -> ReadBatch:
        lines, ragged, ragged_lines = self._lines.take(batch)
        self._add_ragged(ragged, ragged_lines)
        cells = dict(zip(self.dialect.cells, batch.columns, strict=True))
        wrong = {reason: mask for reason, mask in self._wrong_rows(cells, lines, ragged_lines) if mask.any()}
        if blank := self._text.take_blank(self._lines.next_line):
            kept = ~np.isin(lines, blank)
            lines, wrong = lines[kept], {reason: mask[kept] for reason, mask in wrong.items()}
            cells = {name: one.filter(pyarrow.array(kept)) for name, one in cells.items()}
        marks = {}
        if self._text.has_nul:
            marks["\0"] = "expected no NUL character"
        if self._text.has_not_decoded:
            marks[REPLACEMENT] = "expected UTF-8, as other parts of the file are"
        return ReadBatch(cells, lines, wrong, marks)

    def _wrong_rows(self, cells: dict[str, Any], lines: Lines, ragged: Lines) -> Iterator[tuple[str, Any]]:
        """Reasons, each with a mask of the rows that it applies to."""
        broken = self._quotes.among(lines, ragged, next_line=self._lines.next_line)
        if len(broken):
            yield self._quotes.reason, np.isin(lines, broken)
        for name in self.dialect.nameless_at_the_end:
            reason = "the row has a cell below no name in the header"
            yield reason, pc.not_equal(pc.utf8_trim_whitespace(cells[name]), "").to_numpy(zero_copy_only=False)

    def _add_ragged(self, ragged: list[RaggedRow], lines: Lines) -> None:
        if ragged:
            expected, nameless = len(self.dialect.cells), len(self.dialect.cells) > len(self.dialect.names)
            what = f"other rows have {expected}" if nameless else f"the header has {expected}"
            reasons = [f"the row has {row.fields} fields; {what}" for row in ragged]
            self.ragged.append(faults_of(lines, None, [row.text for row in ragged], reasons, None))
            self.ragged_rows += len(ragged)
