"""The dialect of a CSV: its encoding, delimiter and quotes, and the names in its header."""

import codecs
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from blitz.data.csv.reading.encoding import NOT_DECODED, REPLACEMENT, Encoding
from blitz.data.csv.reading.readings import QUOTES, Reading, Text, best_reading
from blitz.errors import DataError

Header = Literal["auto", "yes", "no"]
"""Whether the first line names the columns: auto says yes unless all its cells are numbers."""

_NUMBER = re.compile(r"\s*[+-]?(\d+[.,]?\d*|[.,]\d+)([eE][+-]?\d+)?\s*")
_FRACTION = re.compile(r"\s*[+-]?\d*([.,])\d+\s*")
_NEWLINE = re.compile(r"\r\n|\r|\n")
# A line that Excel writes and reads above a table.
_SEP_LINE = re.compile(r"\"?sep=([^\r\n])\"?(?:\r\n|\r|\n)", re.IGNORECASE)

Format = Literal["csv", "json", "parquet", "arrow", "arrow stream"]
_FORMATS: dict[Format, str] = {
    "json": "JSON lines",
    "parquet": "Parquet",
    "arrow": "Arrow",
    "arrow stream": "Arrow, as a stream",
}

NAMELESS = "\0"
"""A name that no header can hold."""


@dataclass(frozen=True)
class DialectOptions:
    """What is given about the dialect of a CSV. Everything else is detected."""

    delimiter: str | None = None
    """One character."""
    quote: str | None = None
    """One character."""
    encoding: Encoding | None = None
    header: Header = "auto"
    comment: str | None = None
    """The start of lines that are left out."""
    skip_lines: tuple[int, ...] = ()
    """Numbers of lines that are left out; the first that is not is the header."""
    flags: str = "--data."
    """The prefix of flags in messages; an index does not depend on it."""


@dataclass(frozen=True)
class Dialect:
    """The dialect of a CSV. A quote within quotes is doubled."""

    encoding: Encoding
    delimiter: str
    quote: str
    names: tuple[str, ...]
    """The names of the columns, from the header."""
    decimal: str
    """A point or a comma."""
    header_lines: int
    """Physical lines down to the header's last."""
    index_column: bool = False
    """Whether rows start with a cell without a name, as pandas writes its index."""
    trailing: int = 0
    """Empty cells at the end of each row, which have no name."""
    header: bool = True
    """Whether the file has a header."""
    comment: str | None = None
    skip_lines: tuple[int, ...] = ()
    format: Format = "csv"
    left_out: tuple[str, ...] = ()
    """Columns of lists, structures or bytes."""

    @property
    def codec(self) -> str:
        """The encoding for pyarrow, which leaves out a byte-order mark by itself, and transcodes all but UTF-8."""
        return "utf-8" if self.encoding == "utf-8-sig" else self.encoding

    @property
    def cells(self) -> tuple[str, ...]:
        """A name for each cell of a row: those without one have `NAMELESS` and a number."""
        trailing = (f"{NAMELESS}{number}" for number in range(1, self.trailing + 1))
        return (*([NAMELESS] if self.index_column else []), *self.names, *trailing)

    @property
    def nameless_at_the_end(self) -> tuple[str, ...]:
        """Those of `cells` after the last name."""
        return self.cells[len(self.cells) - self.trailing :]

    @property
    def options(self) -> DialectOptions:
        """Options to read another CSV, or the same one again, with this dialect."""
        header: Header = "yes" if self.header else "no"
        return DialectOptions(self.delimiter, self.quote, self.encoding, header, self.comment, self.skip_lines)

    def described(self) -> str:
        """Each part of the dialect, given or detected."""
        if self.format != "csv":
            left_out = f", without {', '.join(self.left_out)}" if self.left_out else ""
            return f"{_FORMATS[self.format]}{left_out}"
        parts = [self.encoding, f"delimiter {self.delimiter!r}", f"quote {self.quote}", f"decimal {self.decimal!r}"]
        if not self.header:
            parts.append("no header")
        elif self.header_lines > 1:
            parts.append(f"header down to line {self.header_lines}")
        if self.index_column:
            parts.append("the first column is left out: it has no name")
        if self.trailing:
            parts.append("the delimiter after the last column is left out")
        return ", ".join(parts)


def detect_dialect(
    head: bytes, *, whole: bool, encoding: Encoding, options: DialectOptions, csv_name: str
) -> tuple[Dialect, list[list[str]]]:
    """The dialect of a CSV whose first bytes are `head`, and the whole rows among them after the header.

    The delimiter and the quote are those that `best_reading` finds. Between semicolons numbers have a decimal comma if
    some look so and none has a point.

    Raises:
        DataError: if there is no header: no line, an empty or doubled name, or numbers instead of names; if there is
            only a part of one; or if several dialects fit.
    """
    # Where the encoding is a guess, rows that are not in it are bad rows.
    errors = "surrogateescape" if options.encoding is None and encoding.startswith("utf-8") else "strict"
    try:
        text = codecs.getincrementaldecoder(encoding)(errors).decode(head, final=whole).removeprefix("\ufeff")
    except UnicodeError as error:
        raise DataError(f"{csv_name} is not encoded in {encoding}: {error}") from error
    delimiter = "\t" if options.delimiter == "\\t" else options.delimiter
    quote, flags = options.quote, options.flags
    for what, given in (("delimiter", delimiter), ("quote", quote)):
        if given is not None and (len(given) != 1 or not given.isascii() or given in "\r\n\0"):
            raise DataError(f"{csv_name}: the {what} is given as {given!r}; it must be one ASCII character, or \\t")
    if delimiter is not None and delimiter == (quote or QUOTES[0]):
        raise DataError(f"{csv_name}: the delimiter and the quote are both {delimiter!r}")
    text, above, sep = _below_skipped_lines(NOT_DECODED.sub(REPLACEMENT, text), options, csv_name)
    where = f"{csv_name}:{above + 1}"
    if text and _NEWLINE.match(text):
        raise DataError(
            f"{where}: the file starts with an empty line; its first line must name the columns: leave lines above it "
            f"out with {flags}skip-lines {above + 1}"
        )
    has_header = options.header != "no"
    reading = best_reading(Text(text, whole, has_header, where, flags), delimiter or sep, quote)
    rows = reading.rows
    if not rows or not rows[0]:
        raise HeaderIsCut(f"{where}: the first line must name the columns, and there is none")
    if options.header != "yes":
        _require_no_comment(reading, where, flags)
    names = rows[0][: reading.named] if has_header else [f"column_{number}" for number in range(1, reading.width + 1)]
    index_column = has_header and len(names) > 1 and not names[0].strip()
    names = names[index_column:]
    if has_header:
        _require_header(
            names, rows[1:], index_column=index_column, sure=options.header == "yes", where=where, flags=flags
        )
    trailing = max(0, reading.width - len(names) - index_column) if has_header else 0
    header_lines = above + (1 + sum(len(_NEWLINE.findall(name)) for name in rows[0]) if has_header else 0)
    rows = rows[1:] if has_header else rows
    delimiter, quote = reading.delimiter, reading.quote
    decimal = "," if delimiter == ";" and _has_decimal_commas(rows) else "."
    dialect = Dialect(
        encoding,
        delimiter,
        quote,
        tuple(names),
        decimal,
        header_lines,
        index_column,
        trailing,
        has_header,
        options.comment,
        options.skip_lines,
    )
    if has_header:
        _require_no_units(dialect, rows, where, flags)
    return dialect, rows


class HeaderIsCut(DataError):
    """The bytes that were read end within the first row."""


def _below_skipped_lines(text: str, options: DialectOptions, csv_name: str) -> tuple[str, int, str | None]:
    """The text without skipped lines, the number of those above the header, and the delimiter of a `sep=` line."""
    above, sep = 0, None
    if match := _SEP_LINE.match(text):
        above, sep, text = 1, match[1], text[match.end() :]
    if not options.skip_lines and options.comment is None:
        return text, above, sep
    if options.comment is not None and (not options.comment or not options.comment.isprintable()):
        raise DataError(
            f"{csv_name}: comments are given to start with {options.comment!r}; name at least one character"
        )
    lines = list(_lines_of(text))
    left_out, inside, quote = [], False, options.quote or QUOTES[0]
    for number, line in enumerate(lines, start=above + 1):
        comment = options.comment is not None and not inside and line.startswith(options.comment)
        left_out.append(comment or number in options.skip_lines)
        inside ^= not left_out[-1] and line.count(quote) % 2 == 1
    first = left_out.index(False) if False in left_out else len(lines)
    kept = [line for line, out in zip(lines[first:], left_out[first:], strict=True) if not out]
    return "".join(kept), above + first, sep


def _lines_of(text: str) -> Iterator[str]:
    start = 0
    for end in _NEWLINE.finditer(text):
        yield text[start : end.end()]
        start = end.end()
    if start < len(text):
        yield text[start:]


def _has_decimal_commas(rows: list[list[str]]) -> bool:
    marks = {match[1] for row in rows for cell in row if (match := _FRACTION.fullmatch(cell))}
    return marks == {","}


def _require_no_comment(reading: Reading, where: str, flags: str) -> None:
    """A first line that starts with # may name the columns, unless rows below differ in width or start with # too."""
    rows = reading.rows
    if not rows[0][0].startswith("#"):
        return
    again = bool(reading.body) and reading.body[0][0].startswith("#")
    if again or reading.width == 1 or reading.damage:
        raise DataError(f"{where}: the file starts with a comment; leave such lines out with {flags}comment '#'")


def require_names(names: Sequence[str], file: str) -> None:
    """Refuse names of columns that none can have.

    Raises:
        DataError: if one is blank, holds a NUL, or occurs twice.
    """
    counts = Counter(names)
    for number, name in enumerate(names, start=1):
        if not name.strip():
            raise DataError(f"{file}: column {number} has no name; give it one")
        if NAMELESS in name:
            raise DataError(f"{file}: the name of column {number} holds a NUL; give it another")
        if counts[name] > 1:
            raise DataError(f"{file}: two columns are named '{name}'; give one of them another name")


def _require_header(
    names: list[str], rows: list[list[str]], *, index_column: bool, sure: bool, where: str, flags: str
) -> None:
    advice = f"the first line must name the columns, each once; leave lines above it out with {flags}skip-lines"
    if not names:
        raise DataError(f"{where}: the first line is empty; {advice}")
    for number, name in enumerate(names, start=1 + index_column):
        if not name.strip():
            raise DataError(f"{where}: column {number} has no name; {advice}")
    if not sure:
        flag = f"say whether the first line names the columns with {flags}header yes or no"
        numbers = [name for name in names if _NUMBER.fullmatch(name)]
        if len(numbers) == len(names):
            raise DataError(f"{where}: there may be no header, for it would name a column '{numbers[0]}'; {flag}")
        # Without a header the first line is a row, whose words also occur below.
        words = [(i, name) for i, name in enumerate(names, start=index_column) if name not in numbers]
        again = [name for i, name in words if any(row[i : i + 1] == [name] for row in rows)]
        if again and (numbers or len(again) == len(words)):
            raise DataError(f"{where}: there may be no header, for '{again[0]}' is also a cell of its column; {flag}")
    counts = Counter(names)
    doubled = [name for name in names if counts[name] > 1]
    if doubled:
        raise DataError(f"{where}: two columns are named '{doubled[0]}'; {advice}")
    if any(REPLACEMENT in name for name in names):
        raise DataError(
            f"{where}: a column's name holds bytes that are no UTF-8, as other parts of the file are; save it in "
            f"UTF-8, or name its encoding with {flags}encoding"
        )
    if any(NAMELESS in name for name in names):
        raise DataError(f"{where}: a column's name holds a NUL; {advice}")


def _are_numbers(cells: list[str]) -> bool:
    present = [cell for cell in cells if cell.strip()]
    return bool(present) and all(map(_NUMBER.fullmatch, present))


def _require_no_units(dialect: Dialect, rows: list[list[str]], where: str, flags: str) -> None:
    """Refuse a first row that seems to hold units: its cells are not numbers in columns where all others are."""
    rows = [row for row in rows if len(row) == len(dialect.cells)]
    if len(rows) < 3:
        return
    firsts = {
        name: first
        for name, first, *below in zip(dialect.cells, *rows, strict=True)
        if NAMELESS not in name and first.strip() and _are_numbers(below)
    }
    units = [name for name, first in firsts.items() if not _NUMBER.fullmatch(first)]
    if len(units) > 1 and len(units) == len(firsts):
        line = dialect.header_lines + 1
        raise DataError(
            f"{where}: line {line} seems to hold units, for only there are columns '{units[0]}' and '{units[1]}' no "
            f"numbers; leave it out with {flags}skip-lines {line}"
        )
