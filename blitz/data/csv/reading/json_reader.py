"""The rows of JSON lines, batch by batch, as text: each line is an object, whose keys are the columns."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow

from blitz.data.csv.reading.bad_rows import faults_of
from blitz.data.csv.reading.compressed import CsvBytes
from blitz.data.csv.reading.dialect import Dialect, require_names
from blitz.data.csv.reading.reader import ReadBatch, TableReader
from blitz.data.csv.reading.source_files import SourceFile
from blitz.data.csv.reading.typed_cells import json_text
from blitz.errors import DataError

_ROWS_AT_ONCE = 1 << 13
_BLOCK_BYTES = 1 << 20
_HEAD_ROWS = 1 << 10
_KEPT = 100
"""Cells that are kept of a column that the first rows lack."""


def json_dialect(names: tuple[str, ...]) -> Dialect:
    """The dialect of JSON lines with these keys."""
    return Dialect("utf-8", ",", '"', names, ".", 0, format="json")


def json_head(file: SourceFile) -> tuple[Dialect, list[list[str]]]:
    """The keys of the first lines, and their rows.

    Raises:
        DataError: if none of them is an object, or a key is empty.
    """
    records: list[dict[str, Any]] = []
    with CsvBytes(file.name, file.location) as data:
        for _, line in _lines(data):
            record = _record(line)
            if isinstance(record, dict):
                records.append(record)
            if len(records) == _HEAD_ROWS:
                break
    names = tuple(dict.fromkeys(key for record in records for key in record))
    if not names:
        raise DataError(f'{file.name} holds no line that is a JSON object, as {{"text": "good", "label": 1}}')
    require_names(names, file.name)
    return json_dialect(names), [[json_text(record.get(name)) for name in names] for record in records]


class JsonReader(TableReader):
    """Reads JSON lines once; a context that closes the file."""

    def __init__(self, file: SourceFile, dialect: Dialect) -> None:
        super().__init__(file)
        self.dialect = dialect
        # A column that folders name is theirs.
        self._known = {*dialect.names, *(name for name, _ in file.partition)}
        self._bytes = CsvBytes(file.name, file.location)

    def close(self) -> None:
        """Close the file."""
        self._bytes.close()

    def batches(self) -> Iterator[ReadBatch]:
        """The rows whose line is an object; a key that it lacks is a missing cell."""
        names = self.dialect.names
        rows: list[list[str]] = []
        lines: list[int] = []
        has_nul = False
        for number, line in _lines(self._bytes):
            record = _record(line)
            if not isinstance(record, dict):
                self._add_ragged(number, line, record)
                continue
            if not self._known.issuperset(record):
                self._add_more({key: record[key] for key in record if key not in self._known})
            rows.append([json_text(record.get(name)) for name in names])
            lines.append(number)
            has_nul = has_nul or b"\\u0000" in line
            if len(rows) == _ROWS_AT_ONCE:
                yield _batch(names, rows, lines, has_nul=has_nul)
                rows, lines = [], []
        if rows:
            yield _batch(names, rows, lines, has_nul=has_nul)

    def _add_ragged(self, number: int, line: bytes, reason: str) -> None:
        text = line.decode("utf-8", "replace")
        self.ragged.append(faults_of(np.array([number]), None, [text], reason, None))
        self.ragged_rows += 1

    def _add_more(self, cells: dict[str, Any]) -> None:
        require_names([*cells], self.name)
        for key, value in cells.items():
            kept = self.more.setdefault(key, [])
            if len(kept) < _KEPT:
                kept.append(json_text(value))


def _batch(names: tuple[str, ...], rows: list[list[str]], lines: list[int], *, has_nul: bool) -> ReadBatch:
    cells = {name: _texts(column) for name, column in zip(names, map(list, zip(*rows, strict=True)), strict=True)}
    return ReadBatch(cells, np.array(lines), marks={"\0": "expected no NUL character"} if has_nul else {})


def _texts(column: list[str]) -> pyarrow.StringArray:
    try:
        return pyarrow.array(column, pyarrow.string())
    except UnicodeEncodeError:
        # Half of a pair of surrogates, which JSON can escape and UTF-8 cannot hold.
        return pyarrow.array([cell.encode("utf-8", "replace").decode() for cell in column], pyarrow.string())


def _record(line: bytes) -> Any:
    """The object of a line, or why it is none."""
    try:
        record = json.loads(line.decode())
    except UnicodeDecodeError:
        return "expected UTF-8"
    except ValueError as error:
        return f"expected a JSON object: {error}"
    except RecursionError:
        return "expected a JSON object: it is nested too deeply"
    return record if isinstance(record, dict) else f"expected a JSON object; it is a {type(record).__name__}"


def _lines(data: CsvBytes) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, each with its number."""
    held, number, ended = b"", 0, False
    while not ended:
        block = data.read(_BLOCK_BYTES)
        ended = not block
        *whole, held = (held + block).split(b"\n")
        if ended:
            whole, held = [*whole, held], b""
        for line in whole:
            number += 1
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if line.strip():
                yield number, line
