"""Parses dates and times in cells of text to seconds since 1970, and detects the order of day, month and year."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow
import pyarrow.compute as pc

from blitz.data.csv.reading.numbers import MISSING_NUMBERS, is_number_column

DateOrder = Literal["ymd", "dmy", "mdy"]
"""The order of year, month and day."""

Seconds = npt.NDArray[np.float64]

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_TIME = (
    r"(?:(?:t|,?\s+)(?P<hour>[0-9]{1,2}):(?P<minute>[0-9]{2})(?::(?P<second>[0-9]{2}(?:\.[0-9]+)?))?"
    r"(?:\s*(?P<half>am|pm))?(?:\s*(?P<zone>z|utc|gmt|[+-][0-9]{2}:?[0-9]{2}))?)?\s*$"
)
_DAY, _WORD = r"(?P<day>[0-9]{1,2})", r"(?P<word>jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?"
_MONTH, _YEAR, _MARK = r"(?P<month>[0-9]{1,2})", r"(?P<year>[0-9]{4}|[0-9]{2})", r"\s*[-/. ]\s*"
PATTERNS: dict[DateOrder, tuple[str, ...]] = {
    "ymd": (rf"^\s*(?P<year>[0-9]{{4}})[-/.]{_MONTH}[-/.]{_DAY}{_TIME}",),
    "dmy": (
        rf"^\s*{_DAY}[-/.]{_MONTH}[-/.]{_YEAR}{_TIME}",
        rf"^\s*(?:[a-z]+,?\s+)?{_DAY}{_MARK}{_WORD}{_MARK}{_YEAR}{_TIME}",
    ),
    "mdy": (
        rf"^\s*{_MONTH}[-/.]{_DAY}[-/.]{_YEAR}{_TIME}",
        rf"^\s*(?:[a-z]+,?\s+)?{_WORD}\s+{_DAY}(?:st|nd|rd|th)?,?\s+{_YEAR}{_TIME}",
    ),
}
"""Regular expressions of a cell in lower case, whose groups are the parts of a date."""
_MISSING = pyarrow.array(sorted(MISSING_NUMBERS))
_CENTURY_TURNS = 69
"""Two-digit years from here on belong to the 20th century, as in POSIX."""


def seconds_of(cells: pyarrow.Array, order: DateOrder) -> Seconds:
    """The seconds since 1970-01-01 00:00, in UTC where a zone is given, of shape (cells,); NaN for other cells."""
    encoded = cells.dictionary_encode()
    codes = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False)
    # Missing cells have code -1, which selects the last.
    of_value: Seconds = np.append(_each(encoded.dictionary, order), np.nan)
    found: Seconds = of_value[codes]
    return found


def _each(values: pyarrow.StringArray, order: DateOrder) -> Seconds:
    text = pc.utf8_lower(values)
    found: Seconds = np.full(len(text), np.nan)
    for pattern in PATTERNS[order]:
        where = np.flatnonzero(pc.match_substring_regex(text, pattern).to_numpy(zero_copy_only=False))
        if len(where):
            found[where] = _seconds(pc.extract_regex(text.take(pyarrow.array(where)), pattern))
    return found


def _seconds(parts: Any) -> Seconds:
    """The seconds of matched cells; NaN if a part is out of range, such as 30 February."""
    names = {field.name for field in parts.type}

    def numbers(name: str) -> Seconds:
        if name not in names:
            return np.zeros(len(parts))
        cells = parts.field(name)
        read: Seconds = pc.cast(pc.if_else(pc.equal(cells, ""), "0", cells), pyarrow.float64()).to_numpy()
        return read

    year, day, hour, minute, second = map(numbers, ("year", "day", "hour", "minute", "second"))
    if "word" in names:
        month = pc.index_in(parts.field("word"), pyarrow.array(_MONTHS)).to_numpy(zero_copy_only=False) + 1.0
    else:
        month = numbers("month")
    short = pc.equal(pc.utf8_length(parts.field("year")), 2).to_numpy(zero_copy_only=False)
    year = np.where(short, year + np.where(year >= _CENTURY_TURNS, 1900, 2000), year)
    half = parts.field("half").to_numpy(zero_copy_only=False)
    twelve = half != ""
    valid = (month >= 1) & (month <= 12) & (day >= 1) & (minute < 60) & (second < 61)
    valid &= np.where(twelve, (hour >= 1) & (hour <= 12), hour <= 24)
    hour = np.where(twelve, hour % 12 + 12 * (half == "pm"), hour)
    first = ((year - 1970) * 12 + np.where(valid, month, 1) - 1).astype(np.int64).astype("datetime64[M]")
    start = first.astype("datetime64[D]")
    valid &= day <= ((first + 1).astype("datetime64[D]") - start).astype(np.int64)
    seconds = start.astype(np.float64) * 86400.0 + (day - 1) * 86400 + hour * 3600 + minute * 60 + second
    return np.where(valid, seconds - _offsets(parts.field("zone")), np.nan)


def _offsets(zones: pyarrow.StringArray) -> Seconds:
    """Seconds by which each zone, such as +05:30, is ahead of UTC."""
    seconds = {}
    for zone in pc.unique(zones).to_pylist():
        digits = zone[1:].replace(":", "") if zone[:1] in ("+", "-") else "0000"
        sign = -1 if zone.startswith("-") else 1
        seconds[zone] = sign * (int(digits[:2]) * 3600 + int(digits[2:]) * 60)
    return np.array([seconds[zone] for zone in zones.to_pylist()], np.float64)


DatePart = Literal["year", "month", "weekday", "hour", "elapsed"]

PARTS: tuple[DatePart, ...] = ("year", "month", "weekday", "hour", "elapsed")


def parts_of(seconds: Seconds, parts: Sequence[DatePart]) -> npt.NDArray[np.float64]:
    """Numbers of each date, of shape (dates, parts), NaN where there is none.

    The weekday is 0 on Mondays, the hour has fractions, and elapsed are the days since 1970.
    """
    missing = np.isnan(seconds)
    filled = np.where(missing, 0, seconds)
    days = np.floor(filled / 86400)
    months = days.astype(np.int64).astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)
    numbers = {
        "year": 1970 + months // 12,
        "month": 1 + months % 12,
        # 1970 began on a Thursday.
        "weekday": (days + 3) % 7,
        "hour": filled % 86400 / 3600,
        "elapsed": filled / 86400,
    }
    found = np.stack([numbers[part].astype(np.float64) for part in parts], 1) if parts else np.empty((len(seconds), 0))
    found[missing] = np.nan
    return found


class DateEvidence:
    """Counts of a column's cells, by the orders under which they are dates."""

    def __init__(self) -> None:
        self._dates: Counter[DateOrder] = Counter()
        self._present = 0

    def add(self, cells: pyarrow.Array) -> None:
        """Count cells of text, some of them missing; skipped once the column has turned out to hold no dates."""
        orders = [order for order in PATTERNS if self._may_be(order)]
        if not orders:
            return
        encoded = cells.dictionary_encode()
        codes = encoded.indices.drop_null().to_numpy(zero_copy_only=False)
        counts = np.bincount(codes, minlength=len(encoded.dictionary))
        words = pc.utf8_lower(pc.utf8_trim_whitespace(encoded.dictionary))
        missing = pc.is_in(words, _MISSING).to_numpy(zero_copy_only=False)
        self._present += int(counts[~missing].sum())
        for order in orders:
            self._dates[order] += int(counts[~np.isnan(_each(encoded.dictionary, order))].sum())

    def _may_be(self, order: DateOrder) -> bool:
        return not self._present or is_number_column(self._dates[order], self._present - self._dates[order])

    @property
    def order(self) -> DateOrder | None:
        """The order under which most cells are dates; None if the column is not one of dates.

        A column of numbers is one if at most one cell, or one in ten, is no number; so is one of dates.
        """
        found = [order for order in PATTERNS if self._present and self._may_be(order)]
        # Ties go to the first order, because most of the world writes the day first.
        return max(found, key=lambda order: self._dates[order], default=None)

    @property
    def is_ambiguous(self) -> bool:
        """Whether every cell fits both day first and month first."""
        return self.order in ("dmy", "mdy") and self._dates["dmy"] == self._dates["mdy"]
