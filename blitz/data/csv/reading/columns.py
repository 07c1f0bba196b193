"""The columns of a CSV: their types, and statistics that are gathered batch by batch."""

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pyarrow
import pyarrow.compute as pc

from blitz.data.csv.reading.numbers import (
    MISSING_NUMBERS,
    MISSING_WORDS,
    Evidence,
    NumberReader,
    Numbers,
    Writing,
)
from blitz.data.csv.reading.typed_cells import as_text

ColumnType = Literal["number", "category", "text"]
"""`number` is float64 and at most 3e38, `category` one of at most 10,000 distinct values, `text` anything."""

MAX_CATEGORIES = 10_000

_WHOLE = re.compile(r"\s*[+-]?[0-9]+\s*")
MAX_LABELS = 100
# A range below this share of a column's magnitude is rounding.
_CONSTANT = 1e-9


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
    """The distinct values of a category: in numeric order if all are whole numbers, else alphabetical."""
    counts: tuple[int, ...] | None = None
    """How often each of `values` occurs."""
    note: str | None = None
    """How its cells were read, if that is not obvious."""

    @property
    def is_constant(self) -> bool:
        """Whether it has at most one value, or numbers that differ by no more than their rounding."""
        if self.min is None or self.max is None:
            return self.type != "text" and len(self.values or ()) <= 1
        return self.max - self.min <= _CONSTANT * max(abs(self.min), abs(self.max))

    @property
    def numbers_rows(self) -> bool:
        """Whether it seems to number the rows, as 1 to n: of such numbers mean and deviation are known."""
        if self.min is None or self.max is None or self.mean is None or self.std is None or self.missing:
            return False
        n = self.count
        as_counted = math.sqrt((n * n - 1) / 12)
        return (
            n > 2
            and self.max - self.min == n - 1
            and math.isclose(self.mean, (self.min + self.max) / 2, rel_tol=1e-9)
            and math.isclose(self.std, as_counted, rel_tol=1 / n)
        )


def infer_type(cells: Sequence[str], evidence: Evidence, writing: Writing, *, is_label: bool) -> ColumnType:
    """The type of a column whose first cells are `cells`.

    A number where most cells are and they identify nothing; else a category if its values occur twice on average, or if
    it is a label; else text. A label of few distinct whole numbers is a category. `is_label` is for the only label
    column, as several are coordinates and the like.
    """
    numbers = evidence.is_number(writing)
    present = [cell for cell in cells if not is_missing(cell, among_numbers=numbers or not evidence.other)]
    distinct = set(present)
    if not present or (numbers and not evidence.identifies):
        few = 0 < len(distinct) <= MAX_LABELS
        return "category" if is_label and few and are_whole(distinct) else "number"
    return words_type(len(present), len(distinct), is_label=is_label)


def words_type(present: int, distinct: int, *, is_label: bool) -> ColumnType:
    """The type of a column that is not one of numbers, by its cells and its distinct values."""
    return "category" if is_label or 2 * distinct <= present else "text"


def is_missing(cell: str, *, among_numbers: bool) -> bool:
    """Whether a cell of a category stands for a missing value."""
    word = cell.strip().lower()
    return not word or word in (MISSING_NUMBERS if among_numbers else MISSING_WORDS)


class NumberColumn:
    """A number column, read with its own notation of numbers."""

    def __init__(self, writing: Writing) -> None:
        self._reader, self._numbers = NumberReader(writing), Numbers()
        self.bad_cells: pyarrow.BooleanArray | None = None
        """Which of the cells last added are bad; None if none is."""
        self.bad = 0
        self._distinct: pyarrow.StringArray | None = None
        self._suspected = 0

    def add(self, cells: pyarrow.StringArray) -> pyarrow.DoubleArray:
        """Add cells; returns them as numbers, null where missing or bad."""
        numbers, self.bad_cells = self._reader.read(cells)
        self.bad += 0 if self.bad_cells is None else self.bad_cells.true_count
        self._numbers.add(numbers)
        return numbers

    @property
    def evidence(self) -> Evidence:
        """How the cells so far are written."""
        return self._reader.evidence

    @property
    def is_number(self) -> bool:
        """Whether the cells so far make it a number column."""
        return self.evidence.is_number(self._reader.writing) or not self.evidence.present

    def suspect(self, cells: pyarrow.Array) -> None:
        """Record the distinct values of a column that seems not to be one of numbers."""
        cells = as_text(cells)
        self._suspected += len(cells) - (pc.sum(pc.equal(cells, "")).as_py() or 0)
        if self._distinct is None or len(self._distinct) <= MAX_CATEGORIES:
            self._add_distinct(pc.unique(cells))

    def _add_distinct(self, found: pyarrow.StringArray) -> None:
        both = found if self._distinct is None else pyarrow.concat_arrays([self._distinct, found])
        self._distinct = pc.unique(both).slice(0, MAX_CATEGORIES + 2)

    @property
    def is_known(self) -> bool:
        """Whether the values of all cells were recorded, not only those since it was suspected."""
        return self._suspected >= self.evidence.present

    def merge(self, other: "NumberColumn") -> None:
        """Take in the cells of the same column of another file."""
        self.evidence.merge(other.evidence)
        self._numbers.merge(other._numbers)
        self.bad += other.bad
        self._suspected += other._suspected
        if other._distinct is not None:
            self._add_distinct(other._distinct)

    @property
    def state(self) -> dict[str, Any]:
        """What `restored` needs, as JSON has it."""
        distinct = None if self._distinct is None else self._distinct.to_pylist()
        return {
            "writing": asdict(self._reader.writing),
            "evidence": asdict(self.evidence),
            "numbers": self._numbers.state,
            "bad": self.bad,
            "distinct": distinct,
            "suspected": self._suspected,
        }

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> "NumberColumn":
        """The column of a state."""
        made = cls(Writing(**state["writing"]))
        made._reader.evidence = Evidence(**state["evidence"])
        made._numbers, made.bad, made._suspected = Numbers.restored(state["numbers"]), state["bad"], state["suspected"]
        if state["distinct"] is not None:
            made._distinct = pyarrow.array(state["distinct"], pyarrow.string())
        return made

    def other_type(self, *, is_label: bool) -> ColumnType:
        """Its type if it is not one of numbers."""
        distinct = 0 if self._distinct is None else len(self._distinct)
        if distinct > MAX_CATEGORIES + 1 and not is_label:
            return "text"
        return words_type(self._suspected, distinct, is_label=is_label)

    def report(self, name: str) -> ColumnReport:
        """Mean, standard deviation and extremes; None without numbers."""
        return number_report(name, self._numbers, bad=self.bad)


def number_report(name: str, numbers: Numbers, *, bad: int = 0) -> ColumnReport:
    """A report on numbers; `bad` of those that count as missing are bad cells."""
    missing = numbers.missing - bad
    if not numbers.count:
        return ColumnReport(name, "number", 0, missing)
    moments = numbers.mean, numbers.std, numbers.min, numbers.max
    return ColumnReport(name, "number", numbers.count, missing, *moments)


class Categories:
    """A category column: each value gets the next code; a missing one has code -1.

    In a category of `words` some cells are values that would stand for missing among numbers; in a `verbatim` one, all
    cells but blank ones are values.
    """

    def __init__(self, *, words: bool = False, verbatim: bool = False) -> None:
        self._codes: dict[str, int] = {}
        self._counts: Counter[str] = Counter()
        self.words, self._verbatim = words, verbatim
        self.refuted = False
        """Whether a cell was read as missing among numbers, and the category turned out to have words."""
        self._doubtful = False
        self.missing = 0

    def add(self, cells: pyarrow.StringArray) -> pyarrow.Int32Array:
        """Add values; returns their codes, in the order of first occurrence."""
        encoded = cells.dictionary_encode()
        found = encoded.dictionary.to_pylist()
        self._look(found)
        codes = []
        for value, count in zip(found, np.bincount(encoded.indices, minlength=len(found)).tolist(), strict=True):
            if self._is_missing(value):
                codes.append(-1)
                self.missing += count
            else:
                codes.append(self._codes.setdefault(value, len(self._codes)))
                self._counts[value] += count
        return pyarrow.array(codes, pyarrow.int32()).take(encoded.indices)

    def _look(self, found: list[str]) -> None:
        """Update whether there are words, from new values."""
        if self.words or self._verbatim:
            return
        new = [value for value in found if value not in self._codes and not is_missing(value, among_numbers=True)]
        self.words = bool(new) and are_words(new)
        self.refuted = self.words and self._doubtful
        self._doubtful = self._doubtful or any(
            is_missing(value, among_numbers=True) and not is_missing(value, among_numbers=False) for value in found
        )

    def _is_missing(self, value: str) -> bool:
        return not value.strip() if self._verbatim else is_missing(value, among_numbers=not self.words)

    def merge(self, other: "Categories") -> list[int]:
        """Take in the values of the same column of another file; returns the code of each of its codes."""
        codes = [self._codes.setdefault(value, len(self._codes)) for value in other._codes]
        self._counts.update(other._counts)
        self.missing += other.missing
        words, doubtful = self.words or other.words, self._doubtful or other._doubtful
        # One file's cells were read as missing, and another's values are words.
        apart = (self.words and other._doubtful) or (other.words and self._doubtful)
        self.refuted = self.refuted or other.refuted or apart
        self.words, self._doubtful = words, doubtful
        return codes

    @property
    def state(self) -> dict[str, Any]:
        """What `restored` needs, as JSON has it."""
        return {
            "values": list(self._codes),
            "counts": [self._counts[value] for value in self._codes],
            "words": self.words,
            "verbatim": self._verbatim,
            "refuted": self.refuted,
            "doubtful": self._doubtful,
            "missing": self.missing,
        }

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> "Categories":
        """The column of a state."""
        made = cls(words=state["words"], verbatim=state["verbatim"])
        made._codes = {value: code for code, value in enumerate(state["values"])}
        made._counts = Counter(dict(zip(state["values"], state["counts"], strict=True)))
        made.refuted, made._doubtful, made.missing = state["refuted"], state["doubtful"], state["missing"]
        return made

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
    """A text column; only missing cells are counted."""

    def __init__(self) -> None:
        self.count = self.missing = 0

    def add(self, cells: pyarrow.StringArray) -> pyarrow.StringArray:
        """Add cells."""
        missing = pc.sum(pc.equal(cells, "")).as_py() or 0
        self.missing += missing
        self.count += len(cells) - missing
        return cells

    def merge(self, other: "Texts") -> None:
        """Take in the counts of the same column of another file."""
        self.count, self.missing = self.count + other.count, self.missing + other.missing

    @property
    def state(self) -> dict[str, Any]:
        """What `restored` needs, as JSON has it."""
        return {"count": self.count, "missing": self.missing}

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> "Texts":
        """The column of a state."""
        made = cls()
        made.count, made.missing = state["count"], state["missing"]
        return made

    def report(self, name: str) -> ColumnReport:
        """The counts."""
        return ColumnReport(name, "text", self.count, self.missing)


def are_words(values: Collection[str]) -> bool:
    """Whether any of a category's values is not a number."""
    reader = NumberReader(Writing())
    reader.read_each(pyarrow.array(list(values), pyarrow.string()))
    return reader.evidence.other > 0


def are_identifiers(values: Collection[str]) -> bool:
    """Whether whole numbers identify something: some have leading zeros, or are too long for float64."""
    reader = NumberReader(Writing())
    reader.read_each(pyarrow.array(list(values), pyarrow.string()))
    return reader.evidence.identifies


def in_order(values: Iterable[str]) -> tuple[str, ...]:
    """Values by size if all are whole numbers, else alphabetically."""
    values = sorted(values)
    return tuple(sorted(values, key=int) if are_whole(values) else values)


def are_whole(values: Iterable[str]) -> bool:
    """Whether all are whole numbers."""
    return all(_WHOLE.fullmatch(value) for value in values)


Column = NumberColumn | Categories | Texts
_KINDS: dict[str, type[NumberColumn] | type[Categories] | type[Texts]] = {
    "number": NumberColumn,
    "category": Categories,
    "text": Texts,
}


def states_of(columns: Mapping[str, Column]) -> list[dict[str, Any]]:
    """Columns as JSON has them."""
    kinds = {made: kind for kind, made in _KINDS.items()}
    return [{"name": name, "type": kinds[type(column)], **column.state} for name, column in columns.items()]


def restored(states: Iterable[Mapping[str, Any]]) -> dict[str, Column]:
    """The columns of such states."""
    return {state["name"]: _KINDS[state["type"]].restored(state) for state in states}
