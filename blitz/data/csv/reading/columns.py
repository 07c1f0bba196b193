"""What the columns of a CSV hold: their types, and statistics that are gathered batch by batch."""

import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow
import pyarrow.compute as pc

ColumnType = Literal["number", "category", "text"]
"""`number` is float64 and at most 3e38, `category` one of at most 10,000 distinct values, `text` anything."""

MAX_CATEGORIES = 10_000

LARGEST_NUMBER = 3e38
"""What a float32 holds, which models compute with; a larger one is a slip of the pen."""

# A number column's cell is missing if it is empty or one of these; in other columns only if it is blank.
MISSING_NUMBERS = (
    "",
    "#N/A",
    "#NA",
    "N/A",
    "n/a",
    "NA",
    "na",
    "NULL",
    "null",
    "NaN",
    "nan",
    "-NaN",
    "-nan",
    "None",
    "?",
)

_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
_WHOLE = re.compile(r"\s*[+-]?[0-9]+\s*")
_MAX_LABELS = 100


@dataclass(frozen=True)
class ColumnReport:
    """A column of a CSV and statistics of its good cells; `count` of them are not missing."""

    name: str
    type: ColumnType
    count: int
    missing: int
    mean: float | None = None
    std: float | None = None
    """The population's standard deviation."""
    min: float | None = None
    max: float | None = None
    values: tuple[str, ...] | None = None
    """Of a category its distinct values: in numeric order if all are whole numbers, else in that of the alphabet."""
    counts: tuple[int, ...] | None = None
    """How often each of `values` occurs."""


def infer_type(cells: list[str], *, is_label: bool, decimal: str) -> ColumnType:
    """The type of a column that begins with `cells`.

    A number where `is_number_column` says so; else a category if its values occur twice on average, or if it is a
    label; else text. A label of few distinct whole numbers is a category. `is_label` is for the only label column, as
    several are coordinates and the like.
    """
    values, bad = parse_numbers(pyarrow.array(cells, pyarrow.string()), decimal)
    present = [cell for cell in cells if cell.strip()]
    distinct = set(present)
    if is_number_column(len(values) - values.null_count, pc.sum(bad).as_py() or 0) or not present:
        few = 0 < len(distinct) <= _MAX_LABELS
        return "category" if is_label and few and are_whole(distinct) else "number"
    return "category" if is_label or 2 * len(distinct) <= len(present) else "text"


def is_number_column(numbers: int, others: int) -> bool:
    """Whether so many cells make a number column with faults: a single one, or one in ten, is a fault."""
    return numbers > others and (others <= 1 or others <= (numbers + others) / 10)


def parse_numbers(cells: pyarrow.StringArray, decimal: str) -> tuple[pyarrow.DoubleArray, pyarrow.BooleanArray]:
    """Cells as numbers, null where missing or bad, and which are bad: neither missing nor a number of up to 3e38."""
    cells = pc.replace_substring(pc.utf8_trim_whitespace(cells), decimal, ".")
    numeric = pc.match_substring_regex(cells, _NUMBER)
    numbers = pc.cast(pc.if_else(numeric, cells, None), pyarrow.float64())
    numbers = pc.if_else(pc.less_equal(pc.abs(numbers), LARGEST_NUMBER), numbers, None)
    missing = pc.is_in(cells, pyarrow.array(MISSING_NUMBERS))
    return numbers, pc.and_(pc.is_null(numbers), pc.invert(missing))


class Numbers:
    """A number column: moments are merged over batches (Chan, Golub & LeVeque 1983)."""

    def __init__(self) -> None:
        self.count = self.missing = self.bad = 0
        self.all_small = True
        """Whether no number so far is infinite, not a number, or beyond what a float32 holds."""
        self._mean = self._squares = 0.0
        self._min, self._max = math.inf, -math.inf

    def add(self, cells: pyarrow.DoubleArray) -> pyarrow.DoubleArray:
        """Take in numbers; null is missing."""
        count = len(cells) - cells.null_count
        self.missing += cells.null_count
        extremes = pc.min_max(cells)
        if count and not max(-extremes["min"].as_py(), extremes["max"].as_py()) <= LARGEST_NUMBER:
            self.all_small = False
        elif count:
            mean, variance = pc.mean(cells).as_py(), pc.variance(cells).as_py()
            total, shift = self.count + count, mean - self._mean
            self._mean += shift * count / total
            self._squares += variance * count + shift**2 * self.count * count / total
            self._min = min(self._min, extremes["min"].as_py())
            self._max = max(self._max, extremes["max"].as_py())
            self.count = total
        return cells

    def report(self, name: str) -> ColumnReport:
        """Mean, standard deviation and extremes; none of a column without numbers."""
        missing = self.missing - self.bad
        if not self.count:
            return ColumnReport(name, "number", 0, missing)
        std = math.sqrt(self._squares / self.count)
        return ColumnReport(name, "number", self.count, missing, self._mean, std, self._min, self._max)


class Categories:
    """A category column: each value gets the next code; a missing one has code -1."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}
        self._counts: Counter[str] = Counter()
        self.missing = 0

    def add(self, cells: pyarrow.StringArray) -> pyarrow.Int32Array:
        """Take in values; their codes, in the order of first occurrence."""
        encoded = cells.dictionary_encode()
        found = encoded.dictionary.to_pylist()
        codes = []
        for value, count in zip(found, np.bincount(encoded.indices, minlength=len(found)).tolist(), strict=True):
            if value.strip():
                codes.append(self._codes.setdefault(value, len(self._codes)))
                self._counts[value] += count
            else:
                codes.append(-1)
                self.missing += count
        return pyarrow.array(codes, pyarrow.int32()).take(encoded.indices)

    @property
    def too_many(self) -> bool:
        """Whether there are more distinct values than a category may have."""
        return len(self._codes) > MAX_CATEGORIES

    @property
    def by_code(self) -> tuple[str, ...]:
        """The value of each code."""
        return tuple(self._codes)

    def report(self, name: str) -> ColumnReport:
        """Distinct values in order, with counts."""
        values = in_order(self._codes)
        counts = tuple(self._counts[value] for value in values)
        return ColumnReport(name, "category", sum(counts), self.missing, values=values, counts=counts)


class Texts:
    """A text column, of which only missing cells are counted."""

    def __init__(self) -> None:
        self.count = self.missing = 0

    def add(self, cells: pyarrow.StringArray) -> pyarrow.StringArray:
        """Take in cells."""
        missing = pc.sum(pc.equal(cells, "")).as_py() or 0
        self.missing += missing
        self.count += len(cells) - missing
        return cells

    def report(self, name: str) -> ColumnReport:
        """Counts alone."""
        return ColumnReport(name, "text", self.count, self.missing)


def in_order(values: Iterable[str]) -> tuple[str, ...]:
    """Values by size if all are whole numbers, else by the alphabet."""
    values = sorted(values)
    return tuple(sorted(values, key=int) if are_whole(values) else values)


def are_whole(values: Iterable[str]) -> bool:
    """Whether all are whole numbers."""
    return all(_WHOLE.fullmatch(value) for value in values)
