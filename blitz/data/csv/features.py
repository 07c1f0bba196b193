"""What is fitted on each kind of column of a table: one class for each."""

import hashlib
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
from torch import Tensor

from blitz.data.csv.reading.columns import ColumnReport, ColumnType, are_whole, in_order
from blitz.data.csv.reading.index import CsvIndex
from blitz.data.csv.reading.numbers import LARGEST_NUMBER, Numbers, Writing
from blitz.data.csv.reading.statistics import kept_batches
from blitz.data.csv.source import Mask
from blitz.errors import DataError

TargetScale = Literal["auto", "linear", "log"]

MOST_WHOLE_CLASSES = 20
FEW_VALUES = 16
"""With no more values than this, each has a code of its own, however rare."""
MOST_VALUES = 1000
"""With more that are not rare, the others are hashed."""
HASHED = 64
"""The codes that they share."""
_LEAST_COUNTED = 5
_MOST_DEVIATIONS = 15.0
"""The largest number of a target that is learned as it is, in standard deviations above the mean."""
_WIDEST = 3.0
"""The largest standard deviation of such a target, in units of its mean: an exponential distribution has 1."""


@dataclass(frozen=True)
class NumberFeature:
    """A number column: moments and quantiles over the training rows, and whether some values are missing."""

    name: str
    mean: float
    std: float
    """3e38 if all numbers are the same, so that only the missing flag is a feature."""
    has_missing: bool
    """Whether some training rows lack a value; then a second feature flags missing values with 1."""
    quantiles: tuple[float, ...]
    """At evenly spaced levels from 0 to 1, including the quartiles: for scaling, and as the bins of embeddings."""
    writing: Writing = Writing()
    """How its cells are written."""

    @classmethod
    def fitted(cls, report: ColumnReport, quantiles: tuple[float, ...], writing: Writing | None = None) -> Self:
        """From the statistics of the training rows, at least one of which has a number, and quantiles of a sample."""
        assert report.mean is not None
        if not quantiles:
            # Numbers are so rare that the sample holds none.
            assert report.min is not None
            assert report.max is not None
            quantiles = (report.min, report.mean, report.mean, report.mean, report.max)
        std = LARGEST_NUMBER if report.is_constant or report.std is None else report.std
        return cls(report.name, report.mean, std, report.missing > 0, quantiles, writing or Writing())

    @property
    def inputs(self) -> int:
        """The number of features of the column: itself, and the missing flag."""
        return 1 + self.has_missing


@dataclass(frozen=True)
class CategoryFeature:
    """A category column: the code of its value i is i + 1, that of a missing, rare or unknown value 0.

    In a column of very many values the less frequent and unknown ones share codes instead, by their hash.
    """

    name: str
    values: tuple[str, ...]
    buckets: int = 0
    """How many codes are shared by hash."""

    @classmethod
    def fitted(cls, report: ColumnReport) -> Self:
        """From the statistics of the training rows, at least one of which has a value."""
        assert report.values
        assert report.counts
        values = report.values
        if len(values) > FEW_VALUES:
            # So that the code of unknown values is trained, too.
            values = tuple(value for value, count in zip(values, report.counts, strict=True) if count > 1)
        if len(values) <= MOST_VALUES:
            return cls(report.name, values)
        counts = dict(zip(report.values, report.counts, strict=True))
        frequent = set(sorted(values, key=lambda value: -counts[value])[:MOST_VALUES])
        return cls(report.name, tuple(value for value in values if value in frequent), HASHED)

    @property
    def codes(self) -> dict[str, int]:
        """The code of each value that has one of its own."""
        return {value: code for code, value in enumerate(self.values, start=1)}

    @property
    def number_of_codes(self) -> int:
        """How many codes there are."""
        return 1 + len(self.values) + self.buckets

    def codes_of(self, values: Iterable[str]) -> dict[str, int]:
        """The code of each of `values`, known or not."""
        own = self.codes
        found = {}
        for value in values:
            shared = 1 + len(own) + _hash(value) % self.buckets if self.buckets else 0
            found[value] = own.get(value, shared)
        return found


def _hash(value: str) -> int:
    return int.from_bytes(hashlib.blake2b(value.encode(), digest_size=8).digest(), "little")


def identifies_rows(report: ColumnReport) -> bool:
    """Whether a category has too many values to be learned from: on average less than two rows have the same."""
    distinct = len(report.values or ())
    return distinct > FEW_VALUES and 2 * distinct > report.count


@dataclass(frozen=True)
class Target:
    """The target: one of `classes`, or if there are none a number, standardised as (number - mean) / std."""

    name: str
    type: ColumnType
    classes: tuple[str, ...] = ()
    mean: float = 0.0
    std: float = 1.0
    log_unit: float = 0.0
    """Unless it is 0, mean and std are those of log(1 + number / log_unit)."""
    highest: float = math.inf
    """Then the largest standardised number of the training rows; a prediction is at most 1 larger."""

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
    def of_numbers(cls, index: CsvIndex, report: ColumnReport, kept: Mask, median: float, scale: TargetScale) -> Self:
        """Mean and deviation of the rows that are `kept`, on which the report and the median are, or of logarithms.

        By `auto` those are taken of numbers from 0 on that are very skewed.

        Raises:
            DataError: if they are all the same number, or `log` is asked for and one is negative.
        """
        if report.mean is None or report.max is None or report.min is None:
            raise _no_row(index, report)
        if report.is_constant:
            raise _same_in_all(index, report, report.mean)
        assert report.std is not None
        if scale == "log" and report.min < 0:
            raise DataError(
                f"{index.csv}: column '{report.name}' holds {report.min:g}, which has no logarithm; "
                "leave out --data.target-scale log"
            )
        far = report.max - report.mean > _MOST_DEVIATIONS * report.std or report.std > _WIDEST * report.mean
        skewed = report.min >= 0 and far
        if scale == "linear" or (scale == "auto" and not skewed):
            return cls(report.name, "number", mean=report.mean, std=report.std)
        unit, numbers = median or report.mean, Numbers()
        for batch in kept_batches(index, [report.name], kept):
            numbers.add(pc.log1p(pc.divide(batch[report.name], unit)))
        return cls(
            report.name,
            "number",
            mean=numbers.mean,
            std=numbers.std,
            log_unit=unit,
            highest=(numbers.max - numbers.mean) / numbers.std,
        )

    def standardised(self, numbers: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        """Numbers of the column as a model learns them, of the same shape."""
        if self.log_unit:
            # A number below 0 in other rows is learned, and judged, as 0.
            numbers = np.log1p(np.maximum(numbers, 0) / self.log_unit)
        return ((numbers - self.mean) / self.std).astype(np.float32)

    def undone(self, outputs: Tensor) -> Tensor:
        """What a model predicts, in the unit of the column, of the same shape."""
        if not self.log_unit:
            return outputs * self.std + self.mean
        return (outputs.clamp(max=self.highest + 1) * self.std + self.mean).expm1() * self.log_unit


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


def seem_to_count(index: CsvIndex, target: Target, kept: Mask) -> bool:
    """Whether classes that are whole numbers look like a count or a rating.

    There are five or more without a gap, and the frequent ones are in the middle: a class that is four times as
    frequent as another, and to either side of the most frequent fewer and fewer, but for chance.
    """
    if not are_whole(target.classes) or any(str(int(name)) != name for name in target.classes):
        return False
    numbers = [int(name) for name in target.classes]
    if len(numbers) < _LEAST_COUNTED or numbers[-1] - numbers[0] + 1 != len(numbers):
        return False
    found: Counter[str] = Counter()
    for batch in kept_batches(index, [target.name], kept):
        for one in pc.value_counts(batch[target.name].drop_null()).to_pylist():
            is_code = target.type == "category"
            found[index.codes[target.name][one["values"]] if is_code else str(int(one["values"]))] += one["counts"]
    counts = np.array([found[name] for name in target.classes])
    peak, chance = int(counts.argmax()), 3 * np.sqrt(counts + 1)
    rises = (np.diff(counts) >= -chance[1:])[:peak].all()
    falls = (np.diff(counts) <= chance[:-1])[peak:].all()
    return bool(rises and falls and counts.max() >= 4 * counts.min())
