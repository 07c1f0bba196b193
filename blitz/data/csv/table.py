"""Rows of a CSV for training: a map-style data set over its memory-mapped index."""

import platform
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow

from blitz.data.arrays import Columns, MapStyleDataset
from blitz.data.csv.reading.bad_rows import BadRows, faults_of, join_faults
from blitz.data.csv.reading.index import CsvIndex
from blitz.data.csv.reading.scan import LINE, missing
from blitz.errors import DataError
from blitz.storage import absolute

Rows = npt.NDArray[np.int64]


class InputRows(MapStyleDataset, Protocol):
    """Rows of a CSV to predict for: all those of an index, bad ones included."""

    @property
    def index(self) -> CsvIndex:
        """Where they are."""

    @property
    def left_out(self) -> BadRows:
        """Those that nothing can be said about."""


class CsvTable:
    """Columns of a CSV's index, all its rows `without` some (ascending); it pickles as a path and is opened again.

    A number column gives float64, NaN where missing; a text column objects of str; a category column int64, the place
    of the value among `categories[name]`, by default among the column's own values in order, or -1 where it is missing
    or not among them.
    """

    def __init__(
        self,
        index: CsvIndex,
        columns: Sequence[str],
        *,
        categories: Mapping[str, Sequence[str]] | None = None,
        without: Rows | None = None,
    ) -> None:
        self.index = replace(index, csv=absolute(index.csv))
        without = np.zeros(0, np.int64) if without is None else without
        self._kept_before = without - np.arange(len(without))
        self._rows = index.rows - len(without)
        # What takes a code to its category's place; the last entry is that of code -1.
        self._places: dict[str, Rows | None] = {}
        for name in columns:
            report = index.column(name)
            if report.type == "category":
                values = (categories or {}).get(name, report.values or ())
                place_of = {value: place for place, value in enumerate(values)}
                self._places[name] = np.array([*(place_of.get(v, -1) for v in index.codes[name]), -1], np.int64)
            else:
                self._places[name] = None
        self._batches: list[pyarrow.RecordBatch] | None = None
        self._ends = np.zeros(0, np.int64)

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, row: int) -> Columns:
        """One row: each column of shape ()."""
        return {name: column[0] for name, column in self.__getitems__(np.array([row])).items()}

    def __getitems__(self, rows: Rows) -> Columns:
        """A whole batch at once: each column of shape (len(rows),), in the order of `rows`."""
        taken = self._take([*self._places], rows)
        return {name: self._values(name, taken[name]) for name in self._places}

    def lines(self, rows: Rows) -> Rows:
        """The physical lines of the CSV that rows begin on, of shape (len(rows),)."""
        lines: Rows = self._take([LINE], rows)[LINE].to_numpy()
        return lines

    def index_rows(self, rows: Rows) -> Rows:
        """Which rows of the index they are, of shape (len(rows),)."""
        # Rows that are left out move later ones up: row i of those kept comes after as many of them.
        found: Rows = rows + np.searchsorted(self._kept_before, rows, side="right")
        return found

    def _take(self, columns: list[str], rows: Rows) -> pyarrow.Table:
        if self._batches is None:
            batches = self._open().to_batches()
            self._ends = np.cumsum([len(batch) for batch in batches])
            self._batches = batches
        rows = self.index_rows(rows)
        # Batch by batch: to take from a whole column, pyarrow first copies all of it.
        numbers = np.searchsorted(self._ends, rows, side="right")
        order = np.argsort(numbers, kind="stable")
        parts = []
        for places in np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1):
            batch = self._batches[numbers[places[0]]]
            first = self._ends[numbers[places[0]]] - len(batch)
            parts.append(batch.select(columns).take(pyarrow.array(rows[places] - first)))
        return pyarrow.Table.from_batches(parts).take(pyarrow.array(np.argsort(order)))

    def _open(self) -> pyarrow.Table:
        try:
            return self.index.on_this_node().table()
        except DataError as error:
            raise DataError(f"on {platform.node()}: {error}") from error

    def _values(self, name: str, cells: pyarrow.ChunkedArray) -> npt.NDArray[Any]:
        places = self._places[name]
        values: npt.NDArray[Any] = cells.to_numpy()
        return values if places is None else places[values]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_batches": None, "_ends": np.zeros(0, np.int64)}


def unknown_labels(index: CsvIndex, column: str, known: Collection[str], known_in: str) -> BadRows:
    """Rows whose label, in a category or a number column, is not among `known`, those of `known_in`."""
    codes = index.codes.get(column)
    labels = [float(one) for one in known] if codes is None else [i for i, one in enumerate(codes) if one in known]
    faults = []
    first = 0
    for batch in index.table().select([column, LINE]).to_batches():
        found = batch[column].to_numpy(zero_copy_only=False)
        unknown = ~np.isin(found, labels) & ~missing(batch[column]).to_numpy(zero_copy_only=False)
        places = np.flatnonzero(unknown)
        values = [f"{cell:g}" if codes is None else codes[cell] for cell in found[places]]
        reason = f"expected a label that occurs in {known_in}"
        faults.append(faults_of(batch[LINE].to_numpy()[places], column, values, reason, first + places))
        first += len(batch)
    return join_faults(index.csv, faults)
