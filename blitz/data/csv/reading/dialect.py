"""How a CSV is written: its encoding, delimiter and quotes, and the names in its header."""

import codecs
import csv
import io
import re
from dataclasses import dataclass
from itertools import product
from typing import Literal

from blitz.errors import DataError

Encoding = Literal["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252", "latin-1"]

# Below csv.field_size_limit(), so that an unclosed quote cannot exceed it.
HEAD_BYTES = 1 << 17

_DELIMITERS = ",;\t|"
_QUOTES = "\"'"
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")
_FRACTION = re.compile(r"\s*[+-]?\d*([.,])\d+\s*")
_NEWLINE = re.compile(r"\r\n|\r|\n")
# Only where a whole cell stands in single quotes may they be the file's: elsewhere they are apostrophes.
_SINGLE_QUOTED = re.compile(rf"(^|[{_DELIMITERS}])'[^'\r\n]*'([{_DELIMITERS}\r\n]|$)", re.MULTILINE)
_UNDEFINED_IN_CP1252 = b"\x81\x8d\x8f\x90\x9d"


@dataclass(frozen=True)
class Dialect:
    """How a CSV is written. A quote within quotes is doubled."""

    encoding: Encoding
    delimiter: str
    quote: str
    names: tuple[str, ...]
    """The columns, as the header names them."""
    decimal: str
    """A point or a comma."""
    header_lines: int
    """Physical lines that the header takes: more than one if a name holds a line break."""

    @property
    def codec(self) -> str:
        """The encoding for pyarrow, which leaves out a byte-order mark by itself, and transcodes all but UTF-8."""
        return "utf-8" if self.encoding == "utf-8-sig" else self.encoding


class EncodingScan:
    """Tells a file's encoding from all of its bytes, handed over in order."""

    def __init__(self) -> None:
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        self._is_utf8 = True
        self._is_cp1252 = True
        self._start = b""

    def add(self, data: bytes) -> None:
        """Take note of the next bytes."""
        self._start = self._start or data[:HEAD_BYTES]
        if data.isascii() and not self._utf8.getstate()[0]:
            return
        if self._is_utf8:
            self._is_utf8 = _decodes(self._utf8, data)
        self._is_cp1252 = self._is_cp1252 and not any(byte in data for byte in _UNDEFINED_IN_CP1252)

    def encoding(self, *, whole: bool = True) -> Encoding | None:
        """The encoding, or None for bytes that are no text; unless they are the `whole` file, a letter may be cut."""
        if self._start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return "utf-16"
        if b"\0" in self._start:
            return _utf16_without_bom(self._start)
        if self._is_utf8 and _decodes(self._utf8, b"", final=whole):
            return "utf-8-sig" if self._start.startswith(codecs.BOM_UTF8) else "utf-8"
        return "cp1252" if self._is_cp1252 else "latin-1"


def _decodes(decoder: codecs.IncrementalDecoder, data: bytes, *, final: bool = False) -> bool:
    try:
        decoder.decode(data, final)
    except UnicodeDecodeError:
        return False
    return True


def _utf16_without_bom(start: bytes) -> Encoding | None:
    """ASCII characters, of which every text has some, have their zero byte on one side."""
    even, odd = start[::2].count(0), start[1::2].count(0)
    if odd > 0.2 * len(start) and even == 0:
        return "utf-16-le"
    return "utf-16-be" if even > 0.2 * len(start) and odd == 0 else None


def detect_dialect(
    head: bytes, *, whole: bool, encoding: Encoding, delimiter: str | None, quote: str | None, csv_name: str
) -> tuple[Dialect, list[list[str]]]:
    """The dialect of a CSV whose first bytes are `head`, and the whole rows among them after the header.

    Of all delimiters and quotes (or the one given), those win under which the most rows have as many fields as the
    header, then those that leave the fewest cells in quotes. Between semicolons numbers have a decimal comma if some
    look so and none has a point.

    Raises:
        DataError: if there is no header: no line, an empty or doubled name, or numbers in place of names.
    """
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(head, final=whole).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise DataError(f"{csv_name} is not encoded in {encoding}: {error}") from error
    delimiter = "\t" if delimiter == "\\t" else delimiter
    for what, given in (("delimiter", delimiter), ("quote", quote)):
        if given is not None and (len(given) != 1 or not given.isascii() or given in "\r\n"):
            raise DataError(f"{csv_name}: the {what} is to be {given!r}; it must be one ASCII character, or \\t")
    if delimiter is not None and delimiter == (quote or _QUOTES[0]):
        raise DataError(f"{csv_name}: the delimiter and the quote are both {delimiter!r}")
    quotes = quote or (_QUOTES if _SINGLE_QUOTED.search(text) else _QUOTES[0])
    choices = product(delimiter or _DELIMITERS, quotes)
    rows, best = max(
        ((_rows(text, *choice, whole=whole), choice) for choice in choices), key=lambda found: _fit(found[0])
    )
    if not rows or not rows[0]:
        raise DataError(f"{csv_name}:1: the file begins with an empty line; its first line must name the columns")
    names = rows[0]
    _require_header(names, csv_name)
    header_lines = 1 + sum(len(_NEWLINE.findall(name)) for name in names)
    delimiter, quote = best
    decimal = "," if delimiter == ";" and _has_decimal_commas(rows[1:]) else "."
    return Dialect(encoding, delimiter, quote, tuple(names), decimal, header_lines), rows[1:]


def _rows(text: str, delimiter: str, quote: str, *, whole: bool) -> list[list[str]]:
    rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quotechar=quote))
    # The last row of a part of a file is cut off.
    return rows if whole or len(rows) == 1 else rows[:-1]


def _has_decimal_commas(rows: list[list[str]]) -> bool:
    marks = {match[1] for row in rows for cell in row if (match := _FRACTION.fullmatch(cell))}
    return marks == {","}


def _fit(rows: list[list[str]]) -> tuple[float, int, int]:
    rows = [row for row in rows if row]
    if not rows or len(rows[0]) == 1:
        return 0.0, 0, 0
    width = len(rows[0])
    agreeing = sum(len(row) == width for row in rows)
    in_quotes = sum(len(cell) > 1 and cell[0] == cell[-1] and cell[0] in _QUOTES for row in rows for cell in row)
    return agreeing / len(rows), -in_quotes, width


def _require_header(names: list[str], csv_name: str) -> None:
    advice = "the first line must name the columns, each once"
    for place, name in enumerate(names, start=1):
        if not name.strip():
            raise DataError(f"{csv_name}:1: column {place} has no name; {advice}")
    numbers = [name for name in names if _NUMBER.fullmatch(name)]
    # A fraction is no name; whole numbers may be, as where tables of pixels number their columns.
    if len(numbers) == len(names) or any(not number.strip().isdecimal() for number in numbers):
        raise DataError(f"{csv_name}:1: there is no header, for it would name a column '{numbers[0]}'; {advice}")
    doubled = [name for name in names if names.count(name) > 1]
    if doubled:
        raise DataError(f"{csv_name}:1: two columns are named '{doubled[0]}'; {advice}")
