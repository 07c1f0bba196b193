"""Columns of dates in a table: found, and turned into columns of numbers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow

from blitz.data.csv.dates import PARTS, DateEvidence, DateOrder, DatePart, parts_of, seconds_of
from blitz.data.csv.reading.columns import ColumnReport, number_report
from blitz.data.csv.reading.index import CsvIndex
from blitz.data.csv.reading.numbers import Numbers
from blitz.data.csv.reading.statistics import kept_batches
from blitz.data.csv.splits import Mask
from blitz.data.csv.table import CsvTable
from blitz.data.order import Rows


@dataclass(frozen=True)
class DateFeature:
    """A column of dates, and which numbers of each date are learned from."""

    name: str
    order: DateOrder
    parts: tuple[DatePart, ...]

    @property
    def names(self) -> dict[str, DatePart]:
        """The columns of numbers that it gives, such as `when: year`."""
        return {f"{self.name}: {part}": part for part in self.parts}


def date_columns(index: CsvIndex, columns: Sequence[str], kept: Mask) -> dict[str, DateEvidence]:
    """Those of `columns`, of categories or text, that hold dates in the rows that are `kept`."""
    found = {name: DateEvidence() for name in columns}
    for batch in kept_batches(index, columns, kept):
        for name, evidence in found.items():
            evidence.add(index.text_of(name, batch[name]))
    return {name: evidence for name, evidence in found.items() if evidence.order is not None}


class DateNumbers:
    """The columns of numbers that columns of dates give, for all rows of an index."""

    def __init__(self, index: CsvIndex, features: Sequence[DateFeature]) -> None:
        self._index, self._features = index, features

    def batches(self, columns: Sequence[str]) -> Iterator[pyarrow.RecordBatch]:
        """See `Batches`."""
        wanted = {one.name: one for one in self._features if set(columns) & set(one.names)}
        for batch in self._index.batches(list(wanted)):
            numbers: dict[str, npt.NDArray[np.float64]] = {}
            for name, one in wanted.items():
                seconds = seconds_of(self._index.text_of(name, batch[name]), one.order)
                numbers |= zip(one.names, parts_of(seconds, one.parts).T, strict=True)
            yield pyarrow.record_batch({name: pyarrow.array(numbers[name], from_pandas=True) for name in columns})


def date_features(
    index: CsvIndex, found: dict[str, DateEvidence], kept: Mask
) -> tuple[list[DateFeature], dict[str, ColumnReport]]:
    """The features of columns of dates without what is the same in all rows, and the statistics of their numbers."""
    whole = [DateFeature(name, one.order, PARTS) for name, one in found.items() if one.order is not None]
    numbers = {name: Numbers() for one in whole for name in one.names}
    if whole:
        for batch in kept_batches(DateNumbers(index, whole), list(numbers), kept):
            for name, number in numbers.items():
                number.add(batch[name])
    reports = {name: number_report(name, number) for name, number in numbers.items()}
    reports = {name: report for name, report in reports.items() if report.count and not report.is_constant}
    features = [
        DateFeature(one.name, one.order, tuple(part for name, part in one.names.items() if name in reports))
        for one in whole
    ]
    return [one for one in features if one.parts], reports


class DateRows:
    """The numbers of dates in rows of a CSV, all but those `without`; like `CsvTable` it pickles as a path."""

    def __init__(self, index: CsvIndex, features: Sequence[DateFeature], without: Rows) -> None:
        self._features = features
        self._table = CsvTable(index, [one.name for one in features], without=without)
        values = {name: index.codes[name] for name in self._table.categories}
        self._seconds = {
            one.name: np.append(
                # In the order of the table's indices; the last is that of a missing one.
                seconds_of(pyarrow.array(index.column(one.name).values or (), pyarrow.string()), one.order),
                np.nan,
            )
            for one in features
            if one.name in values
        }

    def numbers(self, rows: Rows) -> npt.NDArray[np.float64]:
        """Of shape (rows, numbers of all features), NaN where missing."""
        cells = self._table.__getitems__(rows)
        parts = []
        for one in self._features:
            column = cells[one.name]
            if one.name in self._seconds:
                seconds = self._seconds[one.name][column]
            else:
                seconds = seconds_of(pyarrow.array(column, pyarrow.string()), one.order)
            parts.append(parts_of(seconds, one.parts))
        return np.concatenate(parts, 1)
