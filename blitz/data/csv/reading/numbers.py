"""Reading cells of number columns: the definition of a number, of a missing one, and of the notations of a file.

A number is an optional sign, ASCII digits with at most one decimal mark, and an optional exponent; it is at most 3e38.
`inf`, `0x10`, `1_000` and full-width digits are none. Blanks around a cell do not count. In a column that agrees on it,
thousands may be grouped, as in `1,234` or `1 234`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow
import pyarrow.compute as pc

from blitz.data.csv.reading.typed_cells import is_numeric
from blitz.data.csv.reading.units import Unit, without_unit

Decimal = Literal[".", ","]

_Array = npt.NDArray[Any]

LARGEST_NUMBER = 3e38
"""The largest number, which a float32 holds; a larger one counts as a mistake."""

MISSING_WORDS = frozenset({"nan", "+nan", "-nan", "n/a", "#n/a", "#na", "<na>", "null", "?"})
"""Cells that stand for a missing value in all columns but text, in upper or lower case."""

MISSING_NUMBERS = MISSING_WORDS | {"", "na", "none", "-", "--", "–", "—"}
"""The same for number columns. Among words the additional ones may be values: a country `NA`, classes + and -."""

PLAIN = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_SPACE = "[ \u00a0\u2009\u202f'’]"
_GROUPED = r"^[+-]?[1-9][0-9]{0,2}(,[0-9]{3})+(\.[0-9]*)?$"
_SPACED = rf"^[+-]?[1-9][0-9]{{0,2}}({_SPACE}[0-9]{{3}})+(\.[0-9]*)?$"
# Numbers under either decimal mark: `1.234` and `1,234`.
_EITHER = r"^[+-]?[1-9][0-9]{0,2}\.[0-9]{3}$"
_EITHER_GROUPED = r"^[+-]?[1-9][0-9]{0,2},[0-9]{3}$"
# Numbers only if the comma is the decimal mark.
_FOREIGN = r"^[+-]?[0-9]*,[0-9]+([eE][+-]?[0-9]+)?$"
_FOREIGN_LONG = r"^[+-]?[0-9]{4,},"
_FOREIGN_GROUPED = r"^[+-]?[1-9][0-9]{0,2}((\.[0-9]{3})+,[0-9]*|(\.[0-9]{3}){2,})$"
_FOREIGN_SPACED = rf"^[+-]?[1-9][0-9]{{0,2}}({_SPACE}[0-9]{{3}})+,[0-9]*$"
_ZERO_LED = r"^0[0-9]+$"
_LONG_WHOLE = r"^[+-]?[0-9]{16,}$"
# From here on float64 merges neighbours.
_EXACT = 2.0**53
# After so many cells the decimal mark is certain, and the costly check of each cell ends.
_PROVEN = 1000

_SWAPPED = np.arange(256, dtype=np.uint8)
_SWAPPED[[ord("."), ord(",")]] = [ord(","), ord(".")]


@dataclass(frozen=True)
class Writing:
    """The notation of numbers in a column."""

    decimal: Decimal = "."
    grouping: Literal["", "mark", "space"] = ""
    """Whether thousands are grouped, and by the other mark or by a blank (or an apostrophe)."""
    unit: Unit = ""

    @property
    def groups(self) -> tuple[str, str] | None:
        """Patterns of a number whose thousands are grouped, and of the separator, both under the decimal mark `.`."""
        return {"": None, "mark": (_GROUPED, ","), "space": (_SPACED, _SPACE)}[self.grouping]

    def __str__(self) -> str:
        separator = {"": None, "mark": "," if self.decimal == "." else ".", "space": " "}[self.grouping]
        grouped = "" if separator is None else f", thousands '{separator}'"
        return f"decimal '{self.decimal}'{grouped}" + (f", read without its {self.unit} sign" if self.unit else "")


@dataclass
class Evidence:
    """Counts of the cells of a column, by how they could be read; `decimal` is the mark under which they were."""

    decimal: Decimal
    plain: int = 0
    dots: int = 0
    """Plain numbers with a decimal mark; of them `either` look like `1.234`."""
    either: int = 0
    grouped: int = 0
    """Thousands grouped by the other mark; of them `either_grouped` look like `1,234`."""
    either_grouped: int = 0
    spaced: int = 0
    """Thousands grouped by blanks; of them `spaced_fractions` have a decimal mark."""
    spaced_fractions: int = 0
    foreign: int = 0
    """Numbers under the other decimal mark alone; of some thousands are grouped by this one or by blanks."""
    foreign_grouped: int = 0
    foreign_spaced: int = 0
    other: int = 0
    """Cells that are neither numbers nor missing."""
    long: bool = False
    """Whether a number from 1000 on has no groups, if read under `decimal`, and under the other mark."""
    long_foreign: bool = False
    zero_led: bool = False
    """Whether there is a `007`."""
    inexact: bool = False
    """Whether there is a whole number that float64 does not hold."""

    def merge(self, other: "Evidence") -> None:
        """Add the counts of other cells of the column, which were read under the same mark."""
        for spec in fields(self):
            mine, more = getattr(self, spec.name), getattr(other, spec.name)
            if isinstance(mine, bool):
                setattr(self, spec.name, mine or more)
            elif isinstance(mine, int):
                setattr(self, spec.name, mine + more)

    @property
    def present(self) -> int:
        """Cells that are not missing."""
        return self.plain + self.grouped + self.spaced + self.foreign + self.other

    def proofs(self, decimal: Decimal) -> int:
        """Cells that are numbers under this decimal mark alone."""
        if decimal != self.decimal:
            return self.foreign
        return self.dots - self.either + self.grouped - self.either_grouped + self.spaced_fractions

    @property
    def mark(self) -> Decimal | None:
        """The decimal mark that most cells prove, if any does."""
        points, commas = self.proofs("."), self.proofs(",")
        return None if points == commas else "." if points > commas else ","

    def writing(self, decimal: Decimal) -> Writing:
        """How the column writes numbers under a decimal mark: grouped thousands only where all are grouped."""
        if decimal == self.decimal:
            marked, spaced, long = self.grouped, self.spaced, self.long
        else:
            marked = self.either + self.foreign_grouped
            spaced, long = self.spaced - self.spaced_fractions + self.foreign_spaced, self.long_foreign
        if long or not marked + spaced:
            return Writing(decimal)
        return Writing(decimal, "mark" if marked >= spaced else "space")

    def numbers(self, writing: Writing) -> int:
        """Cells that are numbers if so written."""
        marked, spaced = writing.grouping == "mark", writing.grouping == "space"
        if writing.decimal == self.decimal:
            return self.plain + marked * self.grouped + spaced * self.spaced
        fractions = self.either_grouped + self.foreign - self.foreign_grouped - self.foreign_spaced
        wholes = self.plain - self.dots + spaced * (self.spaced - self.spaced_fractions + self.foreign_spaced)
        return wholes + fractions + marked * (self.either + self.foreign_grouped)

    def is_number(self, writing: Writing) -> bool:
        """Whether the column is one of numbers, with faults."""
        numbers = self.numbers(writing)
        return is_number_column(numbers, self.present - numbers)

    @property
    def identifies(self) -> bool:
        """Whether it is one of identifiers, such as zip codes: whole, with leading zeros or too long for float64."""
        fractions = self.dots + self.grouped + self.foreign
        return (self.zero_led or self.inexact) and fractions <= self.plain / 10


def is_number_column(numbers: int, others: int) -> bool:
    """Whether a column with these counts is one of numbers: at most one other cell, or one in ten, is a fault."""
    return numbers > others and (others <= 1 or others <= (numbers + others) / 10)


def decimal_of(columns: Mapping[str, Evidence], *, given: Decimal | None, usual: Decimal) -> Decimal:
    """The decimal mark of a file: the one `given`, else that of most number columns that show one, else `usual`."""
    shown = marks_shown(columns)
    return given or (usual if not shown else "," if 2 * shown.count(",") > len(shown) else ".")


def marks_shown(columns: Mapping[str, Evidence]) -> list[Decimal]:
    """The decimal mark of each number column that shows which it has."""
    return [one.mark for one in columns.values() if one.mark is not None and one.is_number(one.writing(one.mark))]


def writing_of(evidence: Evidence, file: Decimal, given: Decimal | None) -> Writing:
    """How a column writes its numbers: under its own decimal mark if its cells show one, else under the file's."""
    return evidence.writing(given or evidence.mark or file)


class NumberReader:
    """Reads the cells of a number column, batch by batch, and keeps evidence of how they are written."""

    def __init__(self, writing: Writing) -> None:
        self.writing = writing
        self.evidence = Evidence(writing.decimal)

    def read(self, cells: pyarrow.StringArray) -> tuple[pyarrow.DoubleArray, pyarrow.BooleanArray | None]:
        """Cells as numbers, null where missing or bad, and which are bad; None if none is.

        Most batches are converted at once. Where that fails, or gives what is no number here, cells are looked at by
        `read_each`, which decides. Cells of a column that its file declares to be of numbers are taken as such.
        """
        if is_numeric(cells.type):
            return self._read_typed(cells)
        cells = without_unit(cells, self.writing.unit)
        text = cells if self.writing.decimal == "." else _swapped(cells)
        missing = None
        try:
            numbers = pc.cast(text, pyarrow.float64())
        except pyarrow.ArrowInvalid:
            text = pc.utf8_trim_whitespace(text)
            missing = pc.is_in(pc.utf8_lower(text), _MISSING)
            try:
                numbers = pc.cast(pc.if_else(missing, None, text), pyarrow.float64())
            except pyarrow.ArrowInvalid:
                return self._read_each(text, missing)
        values = numbers.to_numpy(zero_copy_only=False)
        largest = float(np.max(np.abs(values), initial=0.0, where=~np.isnan(values)))
        nulls = numbers.null_count
        if largest > LARGEST_NUMBER or np.count_nonzero(np.isnan(values)) != nulls:
            text = pc.utf8_trim_whitespace(text)
            return self._read_each(text, pc.is_in(pc.utf8_lower(text), _MISSING))
        self._note_plain(text if missing is None else pc.if_else(missing, None, text), values, largest)
        self.evidence.plain += len(numbers) - nulls
        return numbers, None

    def _read_typed(self, cells: Any) -> tuple[pyarrow.DoubleArray, pyarrow.BooleanArray | None]:
        whole = pyarrow.types.is_integer(cells.type)
        values = pc.cast(cells, pyarrow.float64(), safe=False).to_numpy(zero_copy_only=False)
        magnitudes = np.abs(values)
        bad = magnitudes > LARGEST_NUMBER
        numbers = pyarrow.array(np.where(bad, np.nan, values) if bad.any() else values, from_pandas=True)
        evidence = self.evidence
        evidence.plain += len(numbers) - numbers.null_count
        evidence.other += int(bad.sum())
        evidence.inexact |= whole and bool((magnitudes > _EXACT).any())
        evidence.long |= bool((magnitudes >= 1000).any())
        evidence.long_foreign |= evidence.long
        return numbers, pyarrow.array(bad) if bad.any() else None

    def read_each(self, cells: pyarrow.StringArray) -> tuple[pyarrow.DoubleArray, pyarrow.BooleanArray | None]:
        """The same, with every cell matched by patterns: the definition."""
        cells = without_unit(cells, self.writing.unit)
        text = pc.utf8_trim_whitespace(cells if self.writing.decimal == "." else _swapped(cells))
        return self._read_each(text, pc.is_in(pc.utf8_lower(text), _MISSING))

    def _read_each(
        self, text: pyarrow.StringArray, missing: pyarrow.BooleanArray
    ) -> tuple[pyarrow.DoubleArray, pyarrow.BooleanArray | None]:
        evidence = self.evidence
        plain = pc.match_substring_regex(text, PLAIN)
        numbers = pc.cast(pc.if_else(plain, text, None), pyarrow.float64())
        numbers = pc.if_else(pc.less_equal(pc.abs(numbers), LARGEST_NUMBER), numbers, None)
        values = numbers.to_numpy(zero_copy_only=False)
        largest = float(np.max(np.abs(values), initial=0.0, where=~np.isnan(values)))
        self._note_plain(pc.if_else(numbers.is_valid(), text, None), values, largest)
        evidence.plain += len(numbers) - numbers.null_count
        rest = pc.and_not(numbers.is_null(), missing)
        others = np.flatnonzero(rest)
        if not len(others):
            return numbers, None
        strange = text.take(pyarrow.array(others))
        grouped, spaced = _matches(strange, _GROUPED), _matches(strange, _SPACED)
        fractions, marked, apart = (
            _matches(strange, pattern) & ~grouped for pattern in (_FOREIGN, _FOREIGN_GROUPED, _FOREIGN_SPACED)
        )
        evidence.grouped += int(grouped.sum())
        evidence.either_grouped += int(_matches(strange, _EITHER_GROUPED).sum())
        evidence.spaced += int(spaced.sum())
        evidence.spaced_fractions += int((spaced & _matches(strange, r"\.")).sum())
        evidence.foreign += int((fractions | marked | apart).sum())
        evidence.foreign_grouped += int(marked.sum())
        evidence.foreign_spaced += int(apart.sum())
        evidence.other += int((~(grouped | spaced | fractions | marked | apart)).sum())
        evidence.long_foreign |= bool((fractions & _matches(strange, _FOREIGN_LONG)).any())
        accepted = {"mark": grouped, "space": spaced}.get(self.writing.grouping)
        if accepted is not None and accepted.any():
            assert self.writing.groups is not None
            _, separator = self.writing.groups
            chosen = strange.filter(pyarrow.array(accepted))
            found = pc.cast(pc.replace_substring_regex(chosen, separator, ""), pyarrow.float64()).to_numpy()
            values = np.array(values)
            values[others[accepted]] = found
            numbers = pyarrow.array(values, from_pandas=True)
            rest = pc.and_not(numbers.is_null(), missing)
        return numbers, rest if rest.true_count else None

    def _note_plain(self, text: pyarrow.StringArray, values: _Array, largest: float) -> None:
        """Evidence of cells that are all numbers without groups, or null."""
        evidence = self.evidence
        if text.null_count:
            text, values = text.drop_null(), values[~np.isnan(values)]
        data, starts, ends = _letters(text)
        # A plain number has one point at most.
        dots = int(np.count_nonzero(data == ord(".")))
        if dots:
            if evidence.dots - evidence.either < _PROVEN:
                evidence.either += int(_matches(text, _EITHER).sum())
            evidence.dots += dots
        if largest >= 1000:
            evidence.long = True
            with np.errstate(invalid="ignore"):
                evidence.long_foreign |= bool(((np.abs(values) >= 1000) & (values % 1 == 0)).any())
        if not evidence.inexact and largest > _EXACT:
            evidence.inexact = bool(_matches(text, _LONG_WHOLE)[np.abs(values) > _EXACT].any())
        if not evidence.zero_led:
            longer = np.flatnonzero(ends - starts > 1)
            first, second = data[starts[longer]], data[starts[longer] + 1]
            # Most that start with a zero are like `0.5`.
            led = longer[(first == ord("0")) & (second != ord("."))]
            evidence.zero_led = bool(len(led)) and bool(_matches(text.take(pyarrow.array(led)), _ZERO_LED).any())


_MISSING = pyarrow.array(sorted(MISSING_NUMBERS))


def _matches(text: pyarrow.StringArray, pattern: str) -> _Array:
    found = pc.fill_null(pc.match_substring_regex(text, pattern), False)
    matches: _Array = found.to_numpy(zero_copy_only=False)
    return matches


def _letters(text: pyarrow.StringArray) -> tuple[_Array, _Array, _Array]:
    """The bytes of all cells, and the start and end of each cell in them."""
    _, offsets, data = text.buffers()
    bounds = (
        np.frombuffer(offsets, np.int32)[text.offset : text.offset + len(text) + 1] if len(text) else np.zeros(1, int)
    )
    letters = np.zeros(0, np.uint8) if data is None else np.frombuffer(data, np.uint8)[bounds[0] : bounds[-1]]
    bounds = bounds - bounds[0]
    return letters, bounds[:-1], bounds[1:]


def _swapped(cells: pyarrow.StringArray) -> pyarrow.StringArray:
    """Cells whose points are commas and whose commas are points."""
    validity, offsets, data = cells.buffers()
    if data is None:
        return cells
    swapped = pyarrow.py_buffer(_SWAPPED[np.frombuffer(data, np.uint8)])
    return pyarrow.Array.from_buffers(cells.type, len(cells), [validity, offsets, swapped], -1, cells.offset)


class Numbers:
    """Moments and extremes of numbers, merged over batches (Chan, Golub & LeVeque 1983)."""

    def __init__(self) -> None:
        self.count = self.missing = 0
        self.mean = self._squares = 0.0
        self.min, self.max = math.inf, -math.inf

    def add(self, cells: pyarrow.DoubleArray) -> None:
        """Take in numbers; null is missing."""
        count = len(cells) - cells.null_count
        self.missing += cells.null_count
        if count:
            extremes = pc.min_max(cells)
            mean, variance = pc.mean(cells).as_py(), pc.variance(cells).as_py()
            self._merge(count, mean, variance * count, extremes["min"].as_py(), extremes["max"].as_py())

    def merge(self, other: "Numbers") -> None:
        """Take in the numbers of another."""
        self._merge(other.count, other.mean, other._squares, other.min, other.max)
        self.missing += other.missing

    def _merge(self, count: int, mean: float, squares: float, least: float, largest: float) -> None:
        if count:
            total, shift = self.count + count, mean - self.mean
            self.mean += shift * count / total
            self._squares += squares + shift**2 * self.count * count / total
            self.min, self.max, self.count = min(self.min, least), max(self.max, largest), total

    @property
    def state(self) -> list[float]:
        """What `restored` needs."""
        return [self.count, self.missing, self.mean, self._squares, self.min, self.max]

    @classmethod
    def restored(cls, state: list[float]) -> "Numbers":
        """The numbers of a state."""
        made = cls()
        count, missing, made.mean, made._squares, made.min, made.max = state
        made.count, made.missing = int(count), int(missing)
        return made

    @property
    def std(self) -> float:
        """The population's standard deviation; 0 without numbers."""
        return math.sqrt(self._squares / self.count) if self.count else 0.0
