"""The first rows of a file, which show its format, its dialect and its columns."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from blitz.data.csv.reading.arrow_reader import arrow_head
from blitz.data.csv.reading.assumptions import evidence_of
from blitz.data.csv.reading.compressed import CsvBytes
from blitz.data.csv.reading.csv_reader import LONGEST_ROW_BYTES
from blitz.data.csv.reading.dialect import (
    NAMELESS,
    Dialect,
    Format,
    HeaderIsCut,
    detect_dialect,
)
from blitz.data.csv.reading.encoding import HEAD_BYTES, EncodingScan, Guess
from blitz.data.csv.reading.json_reader import json_head
from blitz.data.csv.reading.reader import CsvOptions
from blitz.data.csv.reading.source_files import SourceFile
from blitz.errors import DataError

# With fewer rows, little can be detected.
_HEAD_ROWS = 8
_START_BYTES = 1 << 10
_Start = tuple[Dialect, list[list[str]]]
_PARQUET, _ARROW, _STREAM, _FEATHER_1 = b"PAR1", b"ARROW1", b"\xff\xff\xff\xff", b"FEA1"


@dataclass(frozen=True)
class Head:
    """The start of a file: its dialect and first rows."""

    dialect: Dialect
    rows: list[list[str]]
    partition: Mapping[str, str] = field(default_factory=dict)
    """Columns that the file's folders name, and the value of all their cells."""

    @property
    def columns(self) -> dict[str, list[str]]:
        """The first cells of each column, ragged rows left out."""
        cells = self.dialect.cells
        rows = [row for row in self.rows if len(row) == len(cells)]
        own = {name: [row[i] for row in rows] for i, name in enumerate(cells) if NAMELESS not in name}
        return own | {name: [value] * len(rows) for name, value in self.partition.items()}

    def holds_numbers(self, column: str) -> bool:
        """Whether a column seems to be one of numbers."""
        found = evidence_of(self.columns[column])
        return not found.present or found.is_number(found.writing(found.mark or "."))


def format_of(file: SourceFile) -> Format:
    """The format of a file, by its first bytes.

    Raises:
        DataError: if there is no such file, or it is of a format that is not read.
    """
    with CsvBytes(file.name, file.location) as data:
        start, compression = data.read(_START_BYTES), data.compression
    formats: dict[bytes, Format] = {_PARQUET: "parquet", _ARROW: "arrow", _STREAM: "arrow stream"}
    for magic, kind in formats.items():
        if start.startswith(magic):
            if compression is not None:
                raise DataError(f"{file.name} is a {kind} file within {compression}; unpack it, as it has its own")
            return kind
    if start.startswith(_FEATHER_1):
        raise DataError(f"{file.name} is of Feather's first version; write it again as version 2, or as Parquet")
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"[") and text[1:].lstrip().startswith(b"{"):
        raise DataError(f"{file.name} is one JSON array; write one object a line, as pandas' to_json(lines=True) does")
    if text.startswith(b"[") and file.name.lower().endswith((".jsonl", ".ndjson", ".json")):
        raise DataError(f'{file.name} holds JSON arrays; write one object a line, as {{"text": "good", "label": 1}}')
    is_object = text.startswith(b"{") and text[1:].lstrip().startswith((b'"', b"}"))
    return "json" if is_object else "csv"


def read_head(
    file: SourceFile,
    options: CsvOptions,
    encoding: Guess | None = None,
    *,
    kind: Format | None = None,
    size: int = HEAD_BYTES,
) -> Head:
    """The dialect of a file and its first rows, of a CSV from `size` bytes or, where rows are long, from more.

    A CSV's encoding is guessed from them if it is not given.

    Raises:
        DataError: if there is no such file, it is no text, or has no header.
    """
    kind = kind or format_of(file)
    if kind == "csv":
        dialect, rows = _csv_head(file, options, encoding, size)
    else:
        dialect, rows = json_head(file) if kind == "json" else arrow_head(file, kind)
    return Head(dialect, rows, {name: value for name, value in file.partition if name not in dialect.names})


def like(options: CsvOptions, dialect: Dialect) -> CsvOptions:
    """The options to read a CSV beside one of that dialect, whose marks it shares."""
    if dialect.format != "csv":
        return options
    return replace(options, delimiter=dialect.delimiter, quote=dialect.quote, header="yes" if dialect.header else "no")


def _csv_head(file: SourceFile, options: CsvOptions, encoding: Guess | None, size: int) -> _Start:
    data, whole = b"", False
    with CsvBytes(file.name, file.location) as stream:
        while True:
            while not whole and len(data) < size:
                data += (part := stream.read(size - len(data)))
                whole = not part
            if not data:
                raise DataError(f"{file.name} is empty; its first line must name the columns")
            try:
                dialect, rows = _head(file.name, data, whole, options, encoding)
                if whole or len(rows) >= _HEAD_ROWS or len(data) >= LONGEST_ROW_BYTES:
                    return dialect, rows
            except HeaderIsCut:
                if whole or len(data) >= LONGEST_ROW_BYTES:
                    raise
            size *= 4


def _head(name: str, data: bytes, whole: bool, options: CsvOptions, encoding: Guess | None) -> _Start:
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
    return detect_dialect(data, whole=whole, encoding=encoding, options=options, csv_name=name)
