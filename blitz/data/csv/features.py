"""What is fitted on each kind of column of a table: one class for each."""

from dataclasses import dataclass
from typing import Self

import pyarrow.compute as pc

from blitz.data.csv.reading.columns import ColumnReport, ColumnType, in_order
from blitz.data.csv.reading.index import CsvIndex
from blitz.data.csv.reading.numbers import LARGEST_NUMBER
from blitz.data.csv.reading.statistics import kept_batches
from blitz.data.csv.source import Mask
from blitz.errors import DataError

MOST_WHOLE_CLASSES = 20


@dataclass(frozen=True)
class NumberFeature:
    """A number column: moments and quantiles over the training rows, and whether some values are missing."""

    name: str
    mean: float
    std: float
    """3e38 if all numbers are the same, so that only the missing flag is a feature."""
    has_missing: bool
    """Whether some training rows lack a value; then a second feature flags missing values with 1."""
    quantiles: tuple[float, ...] = ()
    """At evenly spaced levels from 0 to 1, including the quartiles: for scaling, and as the bins of embeddings."""

    @classmethod
    def fitted(cls, report: ColumnReport, quantiles: tuple[float, ...]) -> Self:
        """From the statistics of the training rows, at least one of which has a number, and quantiles of a sample."""
        assert report.mean is not None
        if not quantiles:
            # Numbers are so rare that the sample holds none.
            assert report.min is not None
            assert report.max is not None
            quantiles = (report.min, report.mean, report.mean, report.mean, report.max)
        std = LARGEST_NUMBER if report.is_constant or report.std is None else report.std
        return cls(report.name, report.mean, std, report.missing > 0, quantiles)

    @property
    def inputs(self) -> int:
        """The number of features of the column: itself, and the missing flag."""
        return 1 + self.has_missing


@dataclass(frozen=True)
class CategoryFeature:
    """A category column: the code of its value i is i + 1, that of a missing or unknown value 0."""

    name: str
    values: tuple[str, ...]

    @classmethod
    def fitted(cls, report: ColumnReport) -> Self:
        """From the statistics of the training rows, at least one of which has a value."""
        assert report.values
        return cls(report.name, report.values)

    @property
    def codes(self) -> dict[str, int]:
        """The code of each value."""
        return {value: code for code, value in enumerate(self.values, start=1)}


Feature = NumberFeature | CategoryFeature


def feature_of(report: ColumnReport, quantiles: tuple[float, ...]) -> Feature | None:
    """The feature of a column; None for text and empty columns, which are not used."""
    if report.mean is not None:
        return NumberFeature.fitted(report, quantiles)
    return CategoryFeature.fitted(report) if report.values else None


@dataclass(frozen=True)
class Target:
    """The target: one of `classes`, or if there are none a number, standardised as (number - mean) / std."""

    name: str
    type: ColumnType
    classes: tuple[str, ...] = ()
    mean: float = 0.0
    std: float = 1.0

    @classmethod
    def of_classes(cls, index: CsvIndex, report: ColumnReport, labeled: Mask) -> Self:
        """The classes of the rows that are `labeled`, on which the report is: values of a category, or whole numbers.

        Raises:
            DataError: if there are less than two.
        """
        classes = whole_numbers(index, report.name, labeled) if report.type == "number" else report.values
        if not classes:
            raise _no_row(index, report)
        if len(classes) == 1:
            raise _same_in_all(index, report, classes[0])
        return cls(report.name, report.type, classes)

    @classmethod
    def of_numbers(cls, index: CsvIndex, report: ColumnReport) -> Self:
        """Mean and deviation of the training rows, on which the report is.

        Raises:
            DataError: if they are all the same number.
        """
        if report.mean is None:
            raise _no_row(index, report)
        if report.is_constant:
            raise _same_in_all(index, report, report.mean)
        assert report.std is not None
        return cls(report.name, "number", mean=report.mean, std=report.std)


def _no_row(index: CsvIndex, report: ColumnReport) -> DataError:
    return DataError(f"{index.csv} has no row to train on whose '{report.name}' is there")


def _same_in_all(index: CsvIndex, report: ColumnReport, value: str | float) -> DataError:
    return DataError(
        f"{index.csv}: column '{report.name}' holds {value} in all rows to train on; there must be at least two values"
    )


def whole_numbers(index: CsvIndex, column: str, kept: Mask) -> tuple[str, ...] | None:
    """Distinct values of a number column if they are whole and few, in order."""
    found: set[float] = set()
    for batch in kept_batches(index, [column], kept):
        found.update(pc.unique(batch[column].drop_null()).to_pylist())
        if len(found) > MOST_WHOLE_CLASSES or not all(value.is_integer() for value in found):
            return None
    return in_order(str(int(value)) for value in found)
