"""The physical lines that rows of a CSV start on, also after quoted line breaks, blank lines and ragged rows."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow
import pyarrow.compute as pc

Lines = npt.NDArray[np.int64]

_NEWLINE = r"\r\n|\r|\n"


@dataclass(frozen=True)
class RaggedRow:
    """A row with another number of fields than the header; `text` is the row in the file."""

    position: int
    """Among all rows below the header: good, ragged and blank."""
    fields: int
    text: str
    newlines: int


class LineCount:
    """Counts lines while a CSV is read, batch by batch.

    pyarrow reports the number of a row, not its line, and only for ragged rows. But as blank lines are read as rows,
    every line belongs to some row, so that only the line breaks in cells and in ragged rows have to be added.
    """

    def __init__(self, header_lines: int) -> None:
        self.next_line = header_lines + 1
        self._next_position = 0
        self._ragged: list[RaggedRow] = []

    def ragged_row(self, row: Any) -> str:
        """For `pyarrow.csv.ParseOptions.invalid_row_handler`: skips the row, and keeps it for `take`."""
        newlines = pc.count_substring_regex(row.text, _NEWLINE).as_py()
        self._ragged.append(RaggedRow(row.number - 1, row.actual_columns, row.text, newlines))
        return "skip"

    def take(self, batch: pyarrow.RecordBatch | None) -> tuple[Lines, list[RaggedRow], Lines]:
        """Lines of the next batch's rows, the ragged rows before the last of these, and the lines of those.

        With None instead of a batch: the ragged rows that are left at the end.
        """
        columns = [] if batch is None else [column for column in batch.columns if _has_newline(column)]
        rows = 0 if batch is None else len(batch)
        if not columns and not self._ragged:
            first, self.next_line = self.next_line, self.next_line + rows
            self._next_position += rows
            return np.arange(first, self.next_line), [], np.zeros(0, np.int64)
        newlines = sum(
            (pc.count_substring_regex(column, _NEWLINE).to_numpy() for column in columns), np.zeros(rows, int)
        )
        positions = np.array([row.position for row in self._ragged], np.int64) - self._next_position
        # pyarrow reads ahead, so ragged rows of later batches may have been reported already.
        before = (positions - np.arange(len(positions)) < rows) | (batch is None)
        ragged, self._ragged = self._ragged[: before.sum()], self._ragged[before.sum() :]
        is_ragged = np.zeros(rows + len(ragged), bool)
        is_ragged[positions[before]] = True
        spans = np.ones(len(is_ragged), np.int64)
        spans[~is_ragged] += newlines
        spans[is_ragged] += np.array([row.newlines for row in ragged], np.int64)
        ends = self.next_line + np.cumsum(spans)
        self._next_position += len(spans)
        self.next_line += int(spans.sum())
        starts = ends - spans
        return starts[~is_ragged], ragged, starts[is_ragged]


def _has_newline(column: pyarrow.Array) -> bool:
    """Whether a cell may hold a line break. A column that was read as numbers cannot."""
    text = column.buffers()[2] if pyarrow.types.is_string(column.type) else None
    if text is None:
        return False
    data = np.frombuffer(text, np.uint8)
    return bool((data == ord("\n")).any() or (data == ord("\r")).any())
