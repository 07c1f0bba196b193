"""Rows of a table for training: a map-style data set over its memory-mapped index."""

import platform
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import pyarrow

from blitz.data.arrays import Columns, MapStyleDataset
from blitz.data.csv.reading.bad_rows import BadRows, faults_of, join_faults
from blitz.data.csv.reading.index import CsvIndex, on_this_node
from blitz.data.csv.reading.layout import LINE, indices_of, matrix_of
from blitz.data.csv.reading.row_names import positions
from blitz.data.csv.reading.scan import missing
from blitz.errors import DataError

Rows = npt.NDArray[np.int64]


@runtime_checkable
class InputRows(MapStyleDataset, Protocol):
    """Rows of a CSV to predict for: all those of an index, bad ones included."""

    @property
    def index(self) -> CsvIndex:
        """The index of the CSV."""

    @property
    def left_out(self) -> BadRows:
        """The rows that get no prediction."""


class CsvTable:
    """Columns of a CSV's index, all its rows `without` some (ascending); it pickles as a path and is opened again.

    A number column gives float64, NaN where missing; a text column objects of str; a category column int64, the index
    of the value in `categories[name]`, or what that maps it to, by default its index among the column's own values in
    order; -1 where it is missing or not among them.
    """

    def __init__(
        self,
        index: CsvIndex,
        columns: Sequence[str],
        *,
        categories: Mapping[str, Sequence[str] | Mapping[str, int]] | None = None,
        without: Rows | None = None,
    ) -> None:
        self.index = index
        without = np.zeros(0, np.int64) if without is None else without
        self._kept_before = without - np.arange(len(without))
        self._rows = index.rows - len(without)
        self.numbers: list[str] = []
        self.categories: list[str] = []
        self.texts: list[str] = []
        # Maps each of the table's codes to its category's index; the last entry is that of code -1.
        self._indices: list[Rows] = []
        # Those of the codes of each file, made when it is opened.
        self._indices_in: dict[int, list[Rows]] = {}
        reports = {report.name: report for report in index.columns}
        for name in columns:
            report = reports.get(name) or index.column(name)
            {"number": self.numbers, "category": self.categories, "text": self.texts}[report.type].append(name)
            if report.type == "category":
                values = (categories or {}).get(name, report.values or ())
                index_of = values if isinstance(values, Mapping) else {value: i for i, value in enumerate(values)}
                self._indices.append(np.array([*(index_of.get(v, -1) for v in index.codes[name]), -1], np.int64))
        self._columns = list(columns)
        self._opened_index: _OpenIndex | None = None

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, row: int) -> Columns:
        """One row: each column of shape ()."""
        return {name: column[0] for name, column in self.__getitems__(np.array([row])).items()}

    def __getitems__(self, rows: Rows) -> Columns:
        """A whole batch at once: each column of shape (len(rows),), in the order of `rows`."""
        cells: dict[str, npt.NDArray[Any]] = dict(zip(self.numbers, self.number_matrix(rows).T, strict=True))
        cells |= zip(self.categories, self.category_matrix(rows).T, strict=True)
        if self.texts:
            taken = self._take(self.texts, rows)
            cells |= {name: taken[name].to_numpy() for name in self.texts}
        return {name: cells[name] for name in self._columns}

    def number_matrix(self, rows: Rows) -> npt.NDArray[np.float64]:
        """The columns `numbers`, of shape (len(rows), numbers)."""
        found = np.empty((len(rows), len(self.numbers)))
        for where, _, matrix in self._gathered("number", self.numbers, rows):
            if len(where) == len(rows) and len(self.index.files) == 1:
                return matrix
            found[where] = matrix
        return found

    def category_matrix(self, rows: Rows) -> npt.NDArray[np.int64]:
        """The columns `categories` as indices, of shape (len(rows), categories)."""
        indices = np.empty((len(rows), len(self.categories)), np.int64)
        for where, file, codes in self._gathered("category", self.categories, rows):
            for column, index_of in enumerate(self._indices_of(file)):
                indices[where, column] = index_of[codes[:, column]]
        return indices

    def lines(self, rows: Rows) -> Rows:
        """The positions of rows, of shape (len(rows),): in a single CSV the physical lines that they start on."""
        lines: Rows = self._take([LINE], rows)[LINE].to_numpy()
        return lines

    def index_rows(self, rows: Rows) -> Rows:
        """Which rows of the index they are, of shape (len(rows),)."""
        # Adds to each row the number of rows left out before it.
        found: Rows = rows + np.searchsorted(self._kept_before, rows, side="right")
        return found

    def _gathered(self, kind: str, columns: list[str], rows: Rows) -> Iterator[tuple[Rows, int, npt.NDArray[Any]]]:
        """For each file that holds some of `rows`: their indices in `rows`, its number, and its cells in `columns`."""
        if not columns or not len(rows):
            return
        index = self._opened()
        for where, number, local in index.of_files(self.index_rows(rows)):
            file = index.file(number)
            chosen = file.column_indices(kind, columns)
            gathered = file.gathered(kind, local)
            whole = len(chosen) == gathered.shape[1] and (np.diff(chosen) == 1).all()
            yield where, number, gathered if whole else gathered[:, chosen]

    def _indices_of(self, file: int) -> list[Rows]:
        """For each of `categories` the index of each code of a file; the last entry is that of code -1."""
        if file not in self._indices_in:
            codes = self.index.files[file].codes
            self._indices_in[file] = [
                index_of[[*codes[name], -1]] if name in codes else index_of
                for name, index_of in zip(self.categories, self._indices, strict=True)
            ]
        return self._indices_in[file]

    def _take(self, columns: list[str], rows: Rows) -> pyarrow.Table:
        # Batch by batch: to take from a whole column, pyarrow first copies all of it.
        taken, order = [], []
        index = self._opened()
        for where, number, local in index.of_files(self.index_rows(rows)):
            for inner, batch in index.file(number).taken(columns, local):
                if number and LINE in columns:
                    at = positions(number, batch[LINE].to_numpy())
                    batch = batch.set_column(columns.index(LINE), LINE, pyarrow.array(at))
                taken.append(batch)
                order.append(where[inner])
        return pyarrow.Table.from_batches(taken).take(pyarrow.array(np.argsort(np.concatenate(order))))

    def _opened(self) -> "_OpenIndex":
        if self._opened_index is None:
            try:
                self._opened_index = _OpenIndex(on_this_node(self.index))
            except DataError as error:
                raise DataError(f"on {platform.node()}: {error}") from error
        return self._opened_index

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened_index": None, "_indices_in": {}}


class _OpenIndex:
    """An index whose files are opened when a row of theirs is wanted."""

    def __init__(self, index: CsvIndex) -> None:
        self._index = index
        self._files: dict[int, _File] = {}

    def file(self, number: int) -> "_File":
        """A file, opened."""
        if number not in self._files:
            self._files[number] = _File(self._index.files[number].path)
        return self._files[number]

    def of_files(self, rows: Rows) -> Iterator[tuple[Rows, int, Rows]]:
        """For each file that holds some of `rows`: their indices in `rows`, its number, and its rows."""
        if len(self._index.files) == 1:
            yield np.arange(len(rows)), 0, rows
        else:
            yield from _by_part(rows, self._index.first_rows[1:])


def _by_part(rows: Rows, ends: Rows) -> Iterator[tuple[Rows, int, Rows]]:
    """For each part that holds some of `rows`: their indices in `rows`, its number, and their indices in it."""
    numbers = np.searchsorted(ends, rows, side="right")
    order = np.argsort(numbers, kind="stable")
    for where in np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1):
        if len(where):
            number = int(numbers[where[0]])
            yield where, number, rows[where] - (ends[number - 1] if number else 0)


class _File:
    """The index of a file, opened."""

    def __init__(self, path: str) -> None:
        packed = pyarrow.ipc.open_file(pyarrow.memory_map(path)).read_all()
        self._batches = packed.to_batches()
        self._ends = np.cumsum([len(batch) for batch in self._batches])
        self._schema = packed.schema
        self._column_indices: dict[str, Rows] = {}
        self._matrices: dict[tuple[int, str], npt.NDArray[Any]] = {}

    def column_indices(self, kind: str, columns: list[str]) -> Rows:
        """Indices of columns in the matrix of a type; for each type they are always the same columns."""
        if kind not in self._column_indices:
            self._column_indices[kind] = indices_of(self._schema, kind, columns)
        return self._column_indices[kind]

    def gathered(self, kind: str, rows: Rows) -> npt.NDArray[Any]:
        """The matrix of a type in some rows, of shape (rows, columns of the type)."""
        found: npt.NDArray[Any] | None = None
        for where, number, local in _by_part(rows, self._ends):
            matrix = self._matrix(number, kind)
            if found is None:
                found = np.empty((len(rows), matrix.shape[1]), matrix.dtype)
            found[where] = matrix[local]
        assert found is not None
        return found

    def taken(self, columns: list[str], rows: Rows) -> Iterator[tuple[Rows, pyarrow.RecordBatch]]:
        """Columns of some rows, batch by batch, with their indices in `rows`."""
        for where, number, local in _by_part(rows, self._ends):
            yield where, self._batches[number].select(columns).take(pyarrow.array(local))

    def _matrix(self, number: int, kind: str) -> npt.NDArray[Any]:
        """The matrix of a batch, a view of the file."""
        key = number, kind
        if key not in self._matrices:
            self._matrices[key] = matrix_of(self._batches[number], kind)
        return self._matrices[key]


def unknown_labels(index: CsvIndex, column: str, known: Collection[str], known_in: str) -> BadRows:
    """Rows whose label, in a category or a number column, is not among `known`, those of `known_in`."""
    codes = index.codes.get(column)
    labels = [float(one) for one in known] if codes is None else [i for i, one in enumerate(codes) if one in known]
    faults = []
    first = 0
    for batch in index.batches([column, LINE]):
        found = batch[column].to_numpy(zero_copy_only=False)
        unknown = ~np.isin(found, labels) & ~missing(batch[column]).to_numpy(zero_copy_only=False)
        where = np.flatnonzero(unknown)
        values = [f"{cell:.17g}" if codes is None else codes[cell] for cell in found[where]]
        reason = f"expected a label that occurs in {known_in}"
        faults.append(faults_of(batch[LINE].to_numpy()[where], column, values, reason, first + where))
        first += len(batch)
    return join_faults(index.names, faults)
