"""How files of a table are read: the options, and what a reader of any format gives."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow

from blitz.data.csv.reading.columns import ColumnType
from blitz.data.csv.reading.dialect import DialectOptions
from blitz.data.csv.reading.numbers import Decimal
from blitz.data.csv.reading.source_files import SourceFile

Mask = npt.NDArray[np.bool_]
Lines = npt.NDArray[np.int64]


@dataclass(frozen=True)
class CsvOptions(DialectOptions):
    """Options for reading a table. Everything that is not given is detected."""

    types: Mapping[str, ColumnType] = field(default_factory=dict)
    """Types by column."""
    label_columns: tuple[str, ...] = ()
    """Columns whose cells may not be missing."""
    image_column: str | None = None
    """Paths or URIs of images; none may be missing, and no image may have two labels."""
    decimal: Decimal | None = None
    """The decimal mark."""
    usual_decimal: Decimal = "."
    """The decimal mark if no cell shows it: that of the CSV which was trained on."""
    verbatim: tuple[str, ...] = ()
    """Category columns of which only blank cells are missing: elsewhere `null`, `n/a` and the like are, too."""
    keep_nameless: bool = False
    """Also index the cells of an index column, as text."""


@dataclass(frozen=True)
class ReadBatch:
    """Some rows of a file."""

    cells: Mapping[str, Any]
    """The cells of each column, as text; those of a column that the file declares to be of numbers as such."""
    lines: Lines
    """The line that each row starts on, or its number."""
    wrong: Mapping[str, Mask] = field(default_factory=dict)
    """Reasons why rows are bad as a whole, and which are."""
    marks: Mapping[str, str] = field(default_factory=dict)
    """Characters that no cell may hold but those of text, and the reason."""


class TableReader(ABC):
    """Reads a file of a table once; a context that closes it."""

    def __init__(self, file: SourceFile) -> None:
        self.name = file.name
        self.ragged: list[pyarrow.RecordBatch] = []
        """Faults of the rows that no batch has, because their cells are of no column."""
        self.ragged_rows = 0
        self.more: dict[str, list[str]] = {}
        """Columns that the first rows lack, and their first cells."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Close the file."""

    @abstractmethod
    def batches(self) -> Iterator[ReadBatch]:
        """The rows, in order.

        Raises:
            DataError: if the file cannot be read, or is damaged.
        """

    def at_the_end(self) -> list[tuple[Lines, str]]:
        """Lines of the last batch that turned out to be at fault, with the reason; by default none do."""
        return []
