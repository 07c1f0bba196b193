"""Detecting the delimiter and quote of a text: those under which its first rows are the most consistent.

As in van den Burg, Nazábal & Sutton 2019, "Wrangling messy CSV files by detecting row and type patterns", the text is
read with each candidate, and the results are compared. If two that differ both fit, neither is guessed.
"""

import csv
import io
import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property

from blitz.data.csv.reading.quotes import QuoteScan
from blitz.errors import DataError

DELIMITERS = ",;\t|"
QUOTES = "\"'"

# With a larger share of rows that do not fit, it is not the delimiter.
_MOST_DAMAGED = 0.5
# With fewer rows whose width differs from the header's, these rows may be wrong instead.
_FEW_ROWS = 3
_NUMBER = re.compile(r"\s*[+-]?[\d.,'\u00a0\u202f ]*\d\s*%?\s*")


@dataclass(frozen=True)
class Reading:
    """Rows of a text under one delimiter and quote, the header first if there is one; a blank line has no cells."""

    delimiter: str
    quote: str
    rows: list[list[str]]
    broken_quotes: int
    """Cells with more after their closing quote, or without one."""
    has_header: bool

    @cached_property
    def body(self) -> list[list[str]]:
        """The rows below the header that are not blank."""
        return [row for row in self.rows[self.has_header :] if row]

    @cached_property
    def named(self) -> int:
        """Cells of the header up to the last that is not blank."""
        header = self.rows[0] if self.rows else []
        return max((number for number, name in enumerate(header, start=1) if name.strip()), default=0)

    @cached_property
    def width(self) -> int:
        """Cells of a row: those of the header, unless most rows are that but for empty cells at their end."""
        header = len(self.rows[0]) if self.rows else 0
        if not self.has_header:
            return Counter(map(len, self.body)).most_common(1)[0][0] if self.body else header
        full = [row for row in self.body if any(row)]
        widths = Counter(
            len(row) for row in full if len(row) >= self.named and not any(map(str.strip, row[self.named :]))
        )
        if not widths or self.named == 0:
            return header
        width, count = widths.most_common(1)[0]
        return width if 2 * count > len(full) else header

    @cached_property
    def damage(self) -> float:
        """The share of the rows that do not fit."""
        ragged = sum(len(row) != self.width for row in self.body)
        return (ragged + self.broken_quotes) / max(1, len(self.body))

    @cached_property
    def quotes_left(self) -> int:
        """Quotes within cells, which a wrong delimiter leaves when it cuts a quoted cell in two."""
        return sum(cell.count(mark) for row in self.rows for cell in row for mark in QUOTES)

    @cached_property
    def is_wide(self) -> bool:
        """Whether it has several columns, however damaged they are."""
        several = sum(len(row) > 1 for row in self.body)
        return self.width > 1 and (self.damage < _MOST_DAMAGED or 2 * several > len(self.body))

    def explains_commas(self) -> bool:
        """Whether all commas below the header are in cells that are numbers."""
        cells = [cell for row in self.body for cell in row if "," in cell]
        return bool(cells) and all(_NUMBER.fullmatch(cell) for cell in cells)


@dataclass(frozen=True)
class Text:
    """The start of a CSV; unless it is the `whole` file, its last row is cut off."""

    text: str
    whole: bool
    has_header: bool
    where: str
    """The start of messages: file and line."""
    flags: str
    """The prefix of flags in messages."""


def read_as(head: Text, delimiter: str, quote: str) -> Reading:
    """A text's rows, without one that is cut."""
    text, whole = head.text, head.whole
    csv.field_size_limit(max(csv.field_size_limit(), len(text) + 1))
    rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quotechar=quote))
    scan = QuoteScan(delimiter, quote)
    scan.add(text.encode())
    if whole:
        scan.finish()
    broken = len(scan.strays) + (whole and scan.inside)
    return Reading(delimiter, quote, rows if whole else rows[:-1], broken, head.has_header)


def best_reading(head: Text, delimiter: str | None, quote: str | None) -> Reading:
    """The reading of a text under the given delimiter and quote, or those that fit best.

    Raises:
        DataError: if several fit, and they read the rows differently, or if there are lines above the header.
    """
    found = [_quoted(head, each, quote) for each in (delimiter or DELIMITERS) if each != quote]
    wide = [reading for reading in found if reading.is_wide]
    if not wide:
        narrow = min(found, key=lambda reading: (reading.damage, reading.width, *map(len, reading.rows[:1])))
        _require_first_line_above_rows(found, head)
        return narrow
    least = min((reading.damage, reading.quotes_left) for reading in wide)
    best = [reading for reading in wide if (reading.damage, reading.quotes_left) == least]
    if len(best) > 1:
        # The commas are decimal marks rather than delimiters.
        best = [reading for reading in best if reading.delimiter != "," and reading.explains_commas()] or best
    if len(best) > 1 and best[0].body:
        marks = " and ".join(repr(reading.delimiter) for reading in best)
        raise DataError(f"{head.where}: {marks} both fit as the delimiter; give it with {head.flags}delimiter")
    _require_first_line_above_rows(best, head)
    if head.has_header and delimiter is None and best[0].named == 1 and best[0].body:
        mark = repr(best[0].delimiter)
        raise DataError(
            f"{head.where}: of one column, rows end with {mark}, which may be a delimiter or part of the cells; "
            f"say which with {head.flags}delimiter"
        )
    return best[0]


def _require_first_line_above_rows(found: list[Reading], head: Text) -> None:
    """Refuse a title, or the like, above a table."""
    flags = head.flags
    for reading in found:
        widths = Counter(len(row) for row in reading.body)
        width, count = widths.most_common(1)[0] if widths else (1, 0)
        if 1 < width != reading.width and count >= _FEW_ROWS and 2 * count > len(reading.body):
            first, rows = reading.rows[0], len(reading.body)
            comment = f", or all such lines with {flags}comment '#'" if first[0].startswith("#") else ""
            raise DataError(
                f"{head.where}: the first line has {len(first)} cells between {reading.delimiter!r}, and {count} of "
                f"the {rows} rows below have {width}; the first line must name the columns: leave lines above it out "
                f"with {flags}skip-lines{comment}, or say how cells are delimited with {flags}delimiter"
            )


def _quoted(head: Text, delimiter: str, quote: str | None) -> Reading:
    """The reading under a delimiter; single quotes are apostrophes unless that does not fit."""
    double = read_as(head, delimiter, quote or '"')
    if quote is not None or "'" not in head.text:
        return double
    single = read_as(head, delimiter, "'")
    if single.broken_quotes or single.rows == double.rows or not single.rows or not double.rows:
        return double
    first = delimiter.join("'" + cell.replace("'", "''") + "'" for cell in single.rows[0])
    if single.damage < double.damage:
        return single
    if head.has_header and head.text.startswith(first):
        if all(not cell.strip() or _wrapped(cell) or _NUMBER.fullmatch(cell) for row in double.body for cell in row):
            return single
        raise ambiguous_quotes(head.where, head.flags)
    if single.damage == double.damage:
        scan = QuoteScan(delimiter, "'", always_loop=True)
        scan.add(head.text.encode())
        scan.finish()
        columns = zip(*(row for row in double.body if len(row) == double.width), strict=True)
        whole_column = any(any(cells) and all(_wrapped(cell) for cell in cells if cell) for cells in columns)
        all_quoted = scan.needed + scan.needless == sum(map(len, single.rows))
        if whole_column or all_quoted or (scan.needed and not scan.needless):
            raise ambiguous_quotes(head.where, head.flags)
    return double


def ambiguous_quotes(where: str, flags: str) -> DataError:
    """The error for single quotes that may be either."""
    return DataError(
        f"{where}: cells such as 'it''s' are in single quotes, which may be the file's or a part of the cells; "
        f"say which are its quotes with {flags}quote \"'\" or {flags}quote '\"'"
    )


def single_quotes_fit_in_part(name: str, flags: str) -> DataError:
    """The error if the first rows are in single quotes, others are not, and without quotes nothing fits."""
    return DataError(
        f"{name}: single quotes fit the first rows as the file's, but not all; say with {flags}quote \"'\" that they "
        f"are and that the others are bad rows, or with {flags}quote '\"' that they are not"
    )


def _wrapped(cell: str) -> bool:
    return len(cell) > 1 and cell[0] == cell[-1] == "'"
