"""Labels, of which a row may have any number: columns of 0 and 1, or one column of lists."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from blitz.data.csv.reading.bad_rows import BadRows, faults_of, join_faults
from blitz.data.csv.reading.columns import ColumnType
from blitz.data.csv.reading.index import CsvIndex
from blitz.data.csv.reading.layout import LINE
from blitz.data.csv.reading.statistics import kept_batches
from blitz.data.csv.source import Mask
from blitz.data.csv.table import CsvTable
from blitz.data.order import Rows
from blitz.errors import DataError

MOST_LABELS = 10_000
_VALUES = {"0": 0, "0.0": 0, "false": 0, "no": 0, "1": 1, "1.0": 1, "true": 1, "yes": 1}


@dataclass(frozen=True)
class Labels:
    """The labels that are learned, and the columns that hold them."""

    names: tuple[str, ...]
    column: str = ""
    """The column of lists; without one each label is a column."""
    separator: str = ""
    """Between the labels of a list. Brackets around it and quotes around a label are left out."""

    @classmethod
    def of_columns(cls, index: CsvIndex, columns: Sequence[str]) -> Self:
        """Columns of 0 and 1, of false and true, or of no and yes.

        Raises:
            DataError: if one holds anything else.
        """
        for name in columns:
            other = [value for value in index.codes[name] if value.strip().lower() not in _VALUES]
            if other:
                raise DataError(
                    f"{index.csv}: column '{name}' holds '{other[0]}'; a column that is one of several labels holds "
                    "0 and 1, false and true, or no and yes"
                )
        return cls(tuple(columns))

    @classmethod
    def of_lists(cls, index: CsvIndex, column: str, separator: str, kept: Mask) -> Self:
        """The labels that occur in the rows that are `kept`, in alphabetical order.

        Raises:
            DataError: if there are none, or more than 10,000.
        """
        found: set[str] = set()
        for batch in kept_batches(index, [column], kept):
            found.update(label for cell in batch[column].to_pylist() for label in _listed(cell, separator))
            if len(found) > MOST_LABELS:
                raise DataError(
                    f"{index.csv}: the lists in column '{column}' hold more than {MOST_LABELS:,} labels; "
                    f"check that they are separated by '{separator}'"
                )
        if not found:
            raise DataError(f"{index.csv}: the lists in column '{column}' are empty in all rows")
        return cls(tuple(sorted(found)), column, separator)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that hold them."""
        return (self.column,) if self.column else self.names

    @property
    def types(self) -> dict[str, ColumnType]:
        """The types of these columns."""
        return {self.column: "text"} if self.column else dict.fromkeys(self.names, "category")

    @property
    def label_columns(self) -> tuple[str, ...]:
        """Those that may not be empty: a list may."""
        return () if self.column else self.names

    def unknown(self, index: CsvIndex, known_in: str) -> BadRows:
        """Rows of another CSV with labels that are not among these, those of `known_in`."""
        faults, first = [], 0
        for batch in index.batches([*self.columns, LINE]):
            for name in self.columns:
                cells = self._cells(index, name, batch[name].to_pylist())
                wrong = [number for number, cell in enumerate(cells) if cell is not None and self._unknown(cell)]
                where, values = np.array(wrong, np.int64), [cells[number] or "" for number in wrong]
                reason = f"expected labels that occur in {known_in}" if self.column else "expected 0 or 1"
                faults.append(faults_of(batch[LINE].to_numpy()[where], name, values, reason, first + where))
            first += len(batch)
        return join_faults(index.names, faults)

    def _cells(self, index: CsvIndex, name: str, cells: list[str] | list[int]) -> list[str | None]:
        codes = index.codes.get(name)
        # Code -1 is a missing cell.
        return [*cells] if codes is None else [codes[cell] if cell >= 0 else None for cell in cells]  # type: ignore[operator,index]

    def _unknown(self, cell: str) -> bool:
        if not self.column:
            return cell.strip().lower() not in _VALUES
        return not {*_listed(cell, self.separator)} <= {*self.names}


class LabelRows:
    """The labels of rows of a CSV, all but those `without`; like `CsvTable` it pickles as a path."""

    def __init__(self, index: CsvIndex, labels: Labels, without: Rows) -> None:
        self._labels = labels
        self._numbers = {name: number for number, name in enumerate(labels.names)}
        known = {name: _known(index.codes[name]) for name in labels.label_columns}
        self._table = CsvTable(index, labels.columns, categories=known, without=without)

    def targets(self, rows: Rows) -> npt.NDArray[np.float32]:
        """0 or 1 for each label, of shape (rows, labels)."""
        if not self._labels.column:
            return self._table.category_matrix(rows).astype(np.float32)
        found = np.zeros((len(rows), len(self._numbers)), np.float32)
        for row, cell in enumerate(self._table.__getitems__(rows)[self._labels.column]):
            found[row, [self._numbers[label] for label in _listed(cell, self._labels.separator)]] = 1
        return found


def _known(values: Sequence[str]) -> Mapping[str, int]:
    return {value: _VALUES[value.strip().lower()] for value in values if value.strip().lower() in _VALUES}


def _listed(cell: str | None, separator: str) -> Iterator[str]:
    """The labels of a list such as `a;b`, `['a', 'b']` or `["a", "b"]`."""
    text = (cell or "").strip()
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    for part in text.split(separator):
        label = part.strip()
        if len(label) > 1 and label[0] == label[-1] and label[0] in "'\"":
            label = label[1:-1]
        if label:
            yield label
