"""The index of a table: its files as memory-mapped Arrow files, and the report on all of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow
import pyarrow.compute as pc

from blitz.data.csv.reading.bad_rows import BadRows
from blitz.data.csv.reading.columns import ColumnReport
from blitz.data.csv.reading.dialect import Dialect
from blitz.data.csv.reading.layout import LINE, unpack
from blitz.data.csv.reading.numbers import Decimal, Writing
from blitz.data.csv.reading.reader import CsvOptions
from blitz.data.csv.reading.row_names import RowNames, Unit, positions
from blitz.data.csv.reading.source_files import SourceFile
from blitz.errors import DataError


@dataclass(frozen=True)
class IndexedFile:
    """A file of a table, and its index."""

    file: SourceFile
    path: str
    """The Arrow IPC file. Bad rows are in it, too, except for ragged ones."""
    rows: int
    unit: Unit
    """Whether its rows are counted by lines."""
    codes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """For category columns whose codes differ from the table's: the table's code of each of its own."""

    def batches(self, *, mapped: bool = True) -> Iterator[pyarrow.RecordBatch]:
        """The index in the layout of its file (see `layout.py`), memory-mapped or read."""
        with pyarrow.memory_map(self.path) if mapped else pyarrow.OSFile(self.path) as source:
            reader = pyarrow.ipc.open_file(source)
            for number in range(reader.num_record_batches):
                yield reader.get_batch(number)

    def faults(self) -> pyarrow.Table:
        """Its bad rows, with lines and rows of this file."""
        return pyarrow.ipc.open_file(pyarrow.memory_map(beside_index(self.path, ".bad.arrow"))).read_all()


@dataclass(frozen=True)
class CsvIndex:
    """A table that has been read: the indexes of its files, one after the other, and the report on all of them."""

    csv: str
    """The path, URI, folder, pattern or list as it was given, which messages name."""
    path: str
    """The report, as JSON."""
    files: tuple[IndexedFile, ...]
    dialect: Dialect
    """That of the first file, with the names of all columns."""
    columns: tuple[ColumnReport, ...]
    """Statistics of all good cells, in bad rows or not."""
    codes: Mapping[str, tuple[str, ...]]
    """For each category column the value of each of its codes."""
    rows: int
    """Rows in the index."""
    total_rows: int
    """Rows in the files, ragged ones included."""
    content: str
    """SHA-256 of the bytes, decompressed, hexadecimal; of several files of theirs."""
    options: CsvOptions
    """The options with which it was read."""
    compression: str | None = None
    """How the first file is compressed."""
    writings: Mapping[str, Writing] = field(default_factory=dict)
    """How the numbers of each number column are written."""

    def described(self) -> str:
        """The number of files, and the compression and dialect of the first, given or detected."""
        files = [f"{len(self.files):,} files"] if len(self.files) > 1 else []
        return ", ".join([*files, *filter(None, [self.compression]), self.dialect.described()])

    @property
    def decimal(self) -> Decimal:
        """The decimal mark."""
        return "," if self.dialect.decimal == "," else "."

    @property
    def names(self) -> RowNames:
        """What messages call its files and rows."""
        return RowNames(self.csv, tuple(one.file.name for one in self.files), tuple(one.unit for one in self.files))

    @cached_property
    def first_rows(self) -> npt.NDArray[np.int64]:
        """The row of the index that each file starts at, and the number of all rows, of shape (files + 1,)."""
        return np.cumsum([0, *(one.rows for one in self.files)])

    def column(self, name: str) -> ColumnReport:
        """The column of that name.

        Raises:
            DataError: if there is none.
        """
        for column in self.columns:
            if column.name == name:
                return column
        raise DataError(f"{self.csv} has no column '{name}'; it has: {', '.join(self.dialect.names)}")

    def batches(self, columns: Sequence[str], *, mapped: bool = True) -> Iterator[pyarrow.RecordBatch]:
        """Columns of the index, or `LINE`, batch by batch: null is a missing number, code -1 a missing category.

        `LINE` is the position of a row, which `names` explains.
        """
        for number, file in enumerate(self.files):
            for batch in file.batches(mapped=mapped):
                yield self._of_table(unpack(batch, columns), number, file)

    def _of_table(self, batch: pyarrow.RecordBatch, number: int, file: IndexedFile) -> pyarrow.RecordBatch:
        """A batch of a file with the table's codes and positions."""
        for i, name in enumerate(batch.schema.names):
            if name in file.codes:
                code_of = np.array([*file.codes[name], -1], np.int32)
                batch = batch.set_column(i, name, pyarrow.array(code_of[batch.column(i).to_numpy()]))
            elif name == LINE and number:
                batch = batch.set_column(i, name, pyarrow.array(positions(number, batch.column(i).to_numpy())))
        return batch

    def positions(self) -> npt.NDArray[np.int64]:
        """The position of every row, of shape (rows,)."""
        return np.concatenate([batch[LINE].to_numpy() for batch in self.batches([LINE])])

    def text_of(self, column: str, cells: pyarrow.Array) -> pyarrow.Array:
        """Cells of a category or a text column of a batch as text, null where a category is missing."""
        if column not in self.codes:
            return cells
        codes = pc.if_else(pc.less(cells, 0), None, cells)
        return pyarrow.DictionaryArray.from_arrays(codes, pyarrow.array(self.codes[column], pyarrow.string()))

    def table(self) -> pyarrow.Table:
        """All columns of the index, in memory."""
        return pyarrow.Table.from_batches(list(self.batches([*self.dialect.names, LINE])))

    def bad_rows(self) -> BadRows:
        """Ragged rows, cells that are not numbers, missing labels and image paths, and images with two labels."""
        found = []
        for number, (file, first) in enumerate(zip(self.files, self.first_rows.tolist(), strict=False)):
            faults = file.faults()
            if number and len(faults):
                lines = pyarrow.array(positions(number, faults["line"].to_numpy()))
                faults = faults.set_column(0, "line", lines).set_column(4, "row", pc.add(faults["row"], first))
            found.append(faults)
        conflicts = beside_index(self.path, ".bad.arrow")
        if Path(conflicts).exists():
            found.append(pyarrow.ipc.open_file(pyarrow.memory_map(conflicts)).read_all())
        return BadRows(self.names, pyarrow.concat_tables(found))


def beside_index(path: str, suffix: str) -> str:
    """The path of another file of the same index."""
    return str(Path(path).with_suffix("")) + suffix
