"""The rows of Parquet and Arrow files, batch by batch."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow
import pyarrow.fs

from blitz.data.csv.reading.compressed import require_file
from blitz.data.csv.reading.dialect import Dialect, Format, require_names
from blitz.data.csv.reading.reader import ReadBatch, TableReader
from blitz.data.csv.reading.source_files import SourceFile
from blitz.data.csv.reading.typed_cells import as_text, cells_of, is_readable
from blitz.errors import DataError, first_line
from blitz.storage import open_location

_ROWS_AT_ONCE = 1 << 16
_CELLS_AT_ONCE = 1 << 22
_READ_BYTES = 1 << 20
_HEAD_ROWS = 1 << 12


def arrow_head(file: SourceFile, kind: Format) -> tuple[Dialect, list[list[str]]]:
    """The columns of a Parquet or an Arrow file, and its first rows as text.

    Raises:
        DataError: if it is damaged, or has a column without a name, or no column that can be read.
    """
    with ArrowReader(file, kind) as reader:
        batch = next(reader.batches(), None)
        if batch is None:
            return reader.dialect, []
        columns = [as_text(cells.slice(0, _HEAD_ROWS)).to_pylist() for cells in batch.cells.values()]
        return reader.dialect, [list(row) for row in zip(*columns, strict=True)]


class ArrowReader(TableReader):
    """Reads a Parquet or an Arrow file once, a part of a row group at a time; a context that closes it.

    Columns of lists, structures and bytes are left out, as is an index that pandas wrote.
    """

    def __init__(self, file: SourceFile, kind: Format) -> None:
        super().__init__(file)
        self._kind = kind
        files, path = open_location(file.location)
        require_file(file.name, files.get_file_info(path))
        self._file = files.open_input_file(path)
        try:
            with self._explained():
                self._open()
        except BaseException:
            self._file.close()
            raise
        schema = self._schema
        names = [field.name for field in schema if is_readable(field.type) and not _is_index(field.name)]
        self.dialect = Dialect(
            "utf-8",
            ",",
            '"',
            tuple(names),
            ".",
            0,
            format=kind,
            left_out=tuple(name for name in schema.names if name not in names),
        )
        require_names(schema.names, self.name)
        if not names:
            raise DataError(f"{self.name} has no column of numbers, text or times: lists and bytes are not read")

    def _open(self) -> None:
        self._parquet: Any = None
        if self._kind == "parquet":
            # Imported here, because a process that reads CSVs does without.
            from pyarrow.parquet import ParquetFile

            self._parquet = ParquetFile(self._file, buffer_size=_READ_BYTES, pre_buffer=False)
            self._schema = self._parquet.schema_arrow
        elif self._kind == "arrow":
            self._ipc: Any = pyarrow.ipc.open_file(self._file)
            self._schema = self._ipc.schema
        else:
            self._ipc = pyarrow.ipc.open_stream(self._file)
            self._schema = self._ipc.schema

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def batches(self) -> Iterator[ReadBatch]:
        """The rows, in order.

        Raises:
            DataError: if the file is damaged.
        """
        names = self.dialect.names
        most = max(1, min(_ROWS_AT_ONCE, _CELLS_AT_ONCE // len(names)))
        first = 1
        for whole in self._parts([*names], most):
            for start in range(0, len(whole), most):
                part = whole.slice(start, most)
                lines = np.arange(first, first + len(part))
                yield ReadBatch({name: cells_of(part.column(name)) for name in names}, lines)
                first += len(part)

    def _parts(self, names: list[str], most: int) -> Iterator[pyarrow.RecordBatch]:
        with self._explained():
            if self._parquet is not None:
                yield from self._parquet.iter_batches(batch_size=most, columns=names)
            elif self._kind == "arrow":
                yield from (self._ipc.get_batch(number) for number in range(self._ipc.num_record_batches))
            else:
                yield from self._ipc

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (pyarrow.ArrowException, OSError) as error:
            raise DataError(
                f"{self.name} is a damaged or cut {self._kind} file ({first_line(error)}); copy it again"
            ) from error


def _is_index(name: str) -> bool:
    return name.startswith("__index_level_") and name.endswith("__")
