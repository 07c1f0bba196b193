"""Rows of several files as one number each, and what messages call them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import numpy.typing as npt

_FILE_BITS = 40
"""A row's position is the number of its file times 2^40, plus its line (a row of Parquet has no line, but a number)."""

Unit = Literal["line", "row"]


def positions(file: int, lines: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The positions of lines of a file, of shape (lines,); in the first file they are the lines."""
    return lines + (file << _FILE_BITS) if file else lines


@dataclass(frozen=True)
class RowNames:
    """The files of a table, and how messages name them and their rows."""

    csv: str
    """All of them, as they were given: a path, a URI, a folder or a pattern."""
    files: tuple[str, ...]
    units: tuple[Unit, ...]

    @classmethod
    def single(cls, csv: str) -> Self:
        """Those of one CSV."""
        return cls(csv, (csv,), ("line",))

    def file(self, position: int) -> str:
        """The file of a row."""
        return self.files[position >> _FILE_BITS]

    def line(self, position: int) -> int:
        """The line of a row in its file, or its number, counted from 1."""
        return position & ((1 << _FILE_BITS) - 1)

    def row(self, position: int) -> str:
        """The file and the line of a row, as `train.csv:17` or `train.parquet, row 17`."""
        number, unit = self.line(position), self.units[position >> _FILE_BITS]
        return f"{self.file(position)}{':' if unit == 'line' else ', row '}{number}"

    def beside(self, position: int, other: int) -> str:
        """What the message on one row calls another: `line 3`, with its file if that is another."""
        if position >> _FILE_BITS == other >> _FILE_BITS:
            return f"{self.units[other >> _FILE_BITS]} {self.line(other)}"
        return self.row(other)

    def columns_of(self, found: Sequence[int]) -> tuple[list[str], list[int]]:
        """The files and the lines of rows."""
        return [self.file(one) for one in found], [self.line(one) for one in found]
