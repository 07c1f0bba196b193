"""Rows that pyarrow accepts although they have misplaced quotes or a cell with a NUL."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow
import pyarrow.compute as pc

from blitz.data.csv.reading.csv_text import CsvText
from blitz.data.csv.reading.lines import Lines
from blitz.data.csv.reading.readings import ambiguous_quotes


class WrongQuote(Exception):
    """Single quotes were read as the file's quotes, and are apostrophes."""


def _no_lines() -> Lines:
    return np.zeros(0, np.int64)


def take_out_nul(columns: dict[str, Any]) -> dict[str, Any]:
    """Empty the cells that hold a NUL, so that none becomes a category; returns a mask for each column that has any."""
    found = {}
    for name, cells in columns.items():
        if pyarrow.types.is_string(cells.type) and (holds := pc.match_substring(cells, "\0")).true_count:
            found[name] = holds
            columns[name] = pc.if_else(holds, "", cells)
    return found


@dataclass
class QuoteFaults:
    """Finds the rows with misplaced quotes, batch by batch."""

    text: CsvText
    quote: str
    is_guessed: bool
    _lines: Lines = field(default_factory=_no_lines)
    _ragged: Lines = field(default_factory=_no_lines)

    @property
    def reason(self) -> str:
        """The reason for the rows that `among` returns."""
        return f"a cell continues after its closing quote {self.quote}; one within it must be doubled"

    def among(self, lines: Lines, ragged: Lines, *, next_line: int) -> Lines:
        """The lines of faulty rows in a batch whose rows and ragged rows start on `lines` and `ragged`.

        Raises:
            WrongQuote: if there are any and the quote was only guessed to be a single one.
        """
        self._lines, self._ragged = lines, ragged
        return self._rows_of(self.text.take_strays(next_line))

    def at_the_end(self, ragged: Lines, *, name: str, flags: str, is_whole: bool) -> list[tuple[Lines, str]]:
        """Lines of faulty rows of the last batch, with the reason; `ragged` are those of ragged rows after it.

        A quote that is left open takes in all rows after it. `is_whole` is whether no row was ragged.

        Raises:
            WrongQuote: as `among` does.
            DataError: if no row shows whether single quotes are the file's.
        """
        self._ragged = np.concatenate([self._ragged, ragged])
        single = self.text.apostrophes
        may_be_single = single is not None and not single.inside and single.needed and not single.needless
        if self.is_guessed and is_whole and may_be_single:
            raise ambiguous_quotes(name, flags)
        open_line = self.text.scan.open_line
        return [
            (self._rows_of(self.text.take_strays(None)), self.reason),
            (
                self._rows_of([] if open_line is None else [open_line]),
                f"a quote {self.quote} is opened and not closed",
            ),
        ]

    def _rows_of(self, lines: list[int]) -> Lines:
        """The first lines of the rows that contain `lines`, without ragged rows, which are bad already."""
        starts = np.sort(np.concatenate([self._lines, self._ragged]))
        if not lines or not len(starts):
            return _no_lines()
        if self.quote == "'" and self.is_guessed:
            raise WrongQuote
        found = starts[np.maximum(np.searchsorted(starts, lines, side="right") - 1, 0)]
        rows: Lines = np.setdiff1d(found, self._ragged)
        return rows
