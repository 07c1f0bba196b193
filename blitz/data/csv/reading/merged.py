"""The passes over the files of a table, and what they found put together.

Each file is read under the same assumptions; what all of its cells show is added up over the files, and decides if
another pass is needed. A table of several files is so read as one file of all their rows would be.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from blitz.data.csv.reading.assumptions import Assumed, Given, assumed_after, assumed_from, notes_on
from blitz.data.csv.reading.columns import Categories, Column, NumberColumn, restored
from blitz.data.csv.reading.dialect import Dialect, Format
from blitz.data.csv.reading.encoding import Guess
from blitz.data.csv.reading.head import Head, like, read_head
from blitz.data.csv.reading.quote_faults import WrongQuote
from blitz.data.csv.reading.reader import CsvOptions
from blitz.data.csv.reading.readings import single_quotes_fit_in_part
from blitz.data.csv.reading.scan import FileTask, given_by, require_few
from blitz.data.csv.reading.source_files import SourceFile
from blitz.data.parallel_map import parallel_map
from blitz.errors import DataError

_HEAD_CELLS = 1 << 14
_MOST_HEADS = 16


@dataclass(frozen=True)
class Examined:
    """A file whose bytes were read once."""

    file: SourceFile
    read: SourceFile
    """What is read: the same, or the CSV equivalent to class folders."""
    content: str
    """SHA-256 of its bytes, decompressed, hexadecimal."""
    encoding: Guess
    compression: str | None
    format: Format


@dataclass(frozen=True)
class FileReport:
    """What the pass over a file found, as JSON has it."""

    key: str
    """The name of its index."""
    columns: list[dict[str, Any]]
    rows: int
    total_rows: int
    written: bool
    more: dict[str, list[str]]


RunPass = Callable[[tuple[FileTask, str]], FileReport]
"""Reads a file, given the hash of its content, or takes what an earlier pass found."""


@dataclass(frozen=True)
class TableScan:
    """What the passes over a table found, as JSON has it."""

    dialect: dict[str, Any]
    columns: list[dict[str, Any]]
    codes: dict[str, tuple[str, ...]]
    files: list[dict[str, Any]]
    """For each file the name of its index, its rows, and the table's codes of its own where they differ."""
    rows: int
    total_rows: int
    writings: dict[str, dict[str, Any]]
    """How the numbers of each number column are written."""


def scan_table(csv: str, sources: Sequence[Examined], options: CsvOptions, run: RunPass) -> TableScan:
    """Read the files of a table until what is assumed of its columns holds.

    Raises:
        DataError: if there is no header or no row, if a column is missing that `options` name, or if files differ.
    """
    try:
        return _scan_table(csv, sources, options, run)
    except WrongQuote:
        try:
            return _scan_table(csv, sources, replace(options, quote='"'), run)
        except DataError as error:
            raise single_quotes_fit_in_part(csv, options.flags) from error


def _scan_table(csv: str, sources: Sequence[Examined], options: CsvOptions, run: RunPass) -> TableScan:
    heads = _heads(sources, options)
    cells = _first_cells(heads)
    images = (options.image_column,) if options.image_column else ()
    named = (*options.types, *options.label_columns, *images)
    if all(one.format != "json" for one in sources):
        _require_columns(csv, named, cells)
    given = given_by(options)
    assumed = assumed_from(cells, given)
    while True:
        tasks = (
            (
                FileTask(one.read, one.format, one.encoding, options, heads[0].dialect, number == 0, assumed),
                one.content,
            )
            for number, one in enumerate(sources)
        )
        found = _Merged(map(run, tasks) if len(sources) == 1 else parallel_map(run, tasks))
        if found.more:
            assumed = _with_more(assumed, found.more, given)
            continue
        # Keys of JSON lines may come later than the first rows.
        _require_columns(csv, named, assumed.types)
        if not found.total_rows:
            what = "a header and no rows" if heads[0].dialect.format == "csv" else "no rows"
            raise DataError(f"{csv} has {what}")
        require_few(found.columns, given, options, csv)
        better = assumed_after(assumed, found.columns, given, several_files=len(sources) > 1)
        if better is assumed and found.written:
            return found.scan(heads[0].dialect, assumed, given)
        if better is assumed:
            # Some rows were misleading: over all of them the assumptions hold.
            better = replace(better, passes=better.passes + 1)
        assumed = better


def _require_columns(csv: str, named: Iterable[str], there: Iterable[str]) -> None:
    known = [*there]
    for column in named:
        if column not in known:
            raise DataError(f"{csv} has no column '{column}'; it has: {', '.join(known)}")


def _heads(sources: Sequence[Examined], options: CsvOptions) -> list[Head]:
    """The heads of the first files, of as many as show some rows."""
    heads: list[Head] = []
    cells = 0
    for one in sources[:_MOST_HEADS]:
        among = like(options, heads[0].dialect) if heads else options
        heads.append(read_head(one.read, among, one.encoding, kind=one.format))
        cells += sum(map(len, heads[-1].rows))
        if cells > _HEAD_CELLS:
            break
    return heads


def _first_cells(heads: Iterable[Head]) -> dict[str, list[str]]:
    cells: dict[str, list[str]] = {}
    for number, head in enumerate(heads):
        for name, column in head.columns.items():
            # Only JSON lines may have further columns; whoever reads another file refuses it.
            if name in cells or number == 0 or head.dialect.format == "json":
                cells.setdefault(name, []).extend(column)
    return cells


def _with_more(assumed: Assumed, more: dict[str, list[str]], given: Given) -> Assumed:
    """The assumptions with columns that the first rows lack."""
    new = assumed_from(more, given)
    return replace(
        assumed,
        types={**assumed.types, **new.types},
        writings={**assumed.writings, **new.writings},
        words=assumed.words | new.words,
    )


class _Merged:
    """The reports on the files of a table, added up."""

    def __init__(self, reports: Iterable[FileReport]) -> None:
        self.columns: dict[str, Column] = {}
        self.more: dict[str, list[str]] = {}
        self.files: list[dict[str, Any]] = []
        self.total_rows, self.written = 0, True
        for report in reports:
            self.total_rows += report.total_rows
            self.written = self.written and report.written
            for name, cells in report.more.items():
                self.more.setdefault(name, []).extend(cells)
            codes = self._add(restored(report.columns))
            self.files.append({"key": report.key, "rows": report.rows, "codes": codes})

    def _add(self, columns: dict[str, Column]) -> dict[str, list[int]]:
        """Take in the columns of a file; returns the table's codes of its categories, where they differ."""
        if not self.columns:
            self.columns = columns
            return {}
        differing = {}
        for name, column in columns.items():
            codes = self.columns[name].merge(column)  # type: ignore[arg-type]
            if codes is not None and codes != list(range(len(codes))):
                differing[name] = codes
        return differing

    def scan(self, dialect: Dialect, assumed: Assumed, given: Given) -> TableScan:
        """The result."""
        notes = notes_on(assumed, self.columns, given)
        reports = [replace(column.report(name), note=notes.get(name)) for name, column in self.columns.items()]
        return TableScan(
            dialect=asdict(replace(dialect, names=tuple(self.columns), decimal=assumed.decimal)),
            columns=[asdict(report) for report in reports],
            codes={name: one.by_code for name, one in self.columns.items() if isinstance(one, Categories)},
            files=self.files,
            rows=sum(one["rows"] for one in self.files),
            total_rows=self.total_rows,
            writings={
                name: asdict(assumed.writings[name])
                for name, one in self.columns.items()
                if isinstance(one, NumberColumn)
            },
        )
