"""Statistics of columns of an index over some of its rows."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import pyarrow

from blitz.data.csv.reading.columns import ColumnReport, in_order, number_report
from blitz.data.csv.reading.index import CsvIndex
from blitz.data.csv.reading.numbers import Numbers
from blitz.data.csv.source import Mask


class Batches(Protocol):
    """An index, or columns that are computed from one."""

    def batches(self, columns: Sequence[str]) -> Iterator[pyarrow.RecordBatch]:
        """Columns of all rows, batch by batch."""


def kept_batches(index: Batches, columns: Sequence[str], kept: Mask) -> Iterator[pyarrow.RecordBatch]:
    """The rows that are `kept`, batch by batch."""
    first = 0
    for batch in index.batches(columns):
        yield batch.filter(pyarrow.array(kept[first : first + len(batch)]))
        first += len(batch)


def statistics_of(index: CsvIndex, columns: Sequence[str], kept: Mask) -> dict[str, ColumnReport]:
    """Statistics of each of `columns` over the rows that are `kept`; for a text column over all rows."""
    by_name = {column.name: column for column in index.columns}
    reports = {name: by_name.get(name) or index.column(name) for name in columns}
    numbers = {name: Numbers() for name, report in reports.items() if report.type == "number"}
    counts = {name: np.zeros(len(index.codes[name]), np.int64) for name in columns if name in index.codes}
    for batch in kept_batches(index, [*numbers, *counts], kept):
        for name, number in numbers.items():
            number.add(batch[name])
        for name, count in counts.items():
            codes = batch[name].to_numpy()
            count += np.bincount(codes[codes >= 0], minlength=len(count))
    reports |= {name: replace(number_report(name, number), note=reports[name].note) for name, number in numbers.items()}
    for name, count in counts.items():
        times = {value: number for value, number in zip(index.codes[name], count.tolist(), strict=True) if number}
        values = in_order(times)
        missing, counts_of = int(kept.sum() - count.sum()), tuple(times[value] for value in values)
        reports[name] = ColumnReport(
            name, "category", int(count.sum()), missing, values=values, counts=counts_of, note=reports[name].note
        )
    return reports
