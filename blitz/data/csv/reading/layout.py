"""The layout of rows in the Arrow file of an index: numbers as one matrix, codes of categories as another.

A row's numbers lie side by side, so that a batch of random rows of thousands of columns is gathered row by row.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow

from blitz.data.csv.reading.columns import ColumnType

# Names that no header may hold: the line of each row, and the matrices.
LINE = ""
_MATRICES = {"number": " ", "category": "  "}

_ITEMS = {"number": pyarrow.float64(), "category": pyarrow.int32()}
_NAMES = b"names"


def schema_of(types: Mapping[str, ColumnType]) -> pyarrow.Schema:
    """The schema of the index of columns of these types."""
    fields = {name: pyarrow.string() for name, kind in types.items() if kind == "text"}
    names = {kind: [name for name, one in types.items() if one == kind] for kind in _MATRICES}
    for kind, field in _MATRICES.items():
        if names[kind]:
            fields[field] = pyarrow.list_(_ITEMS[kind], len(names[kind]))
    fields[LINE] = pyarrow.int64()
    return pyarrow.schema(fields).with_metadata({_NAMES: json.dumps(names)})


def pack(columns: Mapping[str, Any], lines: npt.NDArray[np.int64], schema: pyarrow.Schema) -> pyarrow.RecordBatch:
    """Rows in the layout of the index: number columns (float64), categories (int32) and texts, each an Arrow array."""
    names = _names(schema)
    packed: dict[str, Any] = {name: columns[name] for name in schema.names if name in columns}
    for kind, field in _MATRICES.items():
        if names[kind]:
            item = _ITEMS[kind]
            matrix = np.empty((len(lines), len(names[kind])), item.to_pandas_dtype())
            for i, name in enumerate(names[kind]):
                # A null number becomes NaN.
                matrix[:, i] = columns[name].to_numpy(zero_copy_only=False)
            packed[field] = pyarrow.FixedSizeListArray.from_arrays(
                pyarrow.array(matrix.ravel()), type=schema.field(field).type
            )
    packed[LINE] = pyarrow.array(lines)
    return pyarrow.record_batch([packed[name] for name in schema.names], schema=schema)


def unpack(batch: pyarrow.RecordBatch, columns: Sequence[str]) -> pyarrow.RecordBatch:
    """Columns of a batch of the index, each an array of its own: a missing number is null."""
    names = _names(batch.schema)
    arrays: dict[str, Any] = {}
    for kind in _MATRICES:
        index_of = {name: i for i, name in enumerate(names[kind])}
        wanted = [name for name in columns if name in index_of]
        if wanted:
            # Transposed at once: each column by itself would read all of the matrix.
            matrix = np.ascontiguousarray(matrix_of(batch, kind)[:, [index_of[name] for name in wanted]].T)
            arrays |= {name: pyarrow.array(row, from_pandas=True) for name, row in zip(wanted, matrix, strict=True)}
    return pyarrow.RecordBatch.from_arrays(
        [arrays[name] if name in arrays else batch.column(batch.schema.get_field_index(name)) for name in columns],
        list(columns),
    )


def indices_of(schema: pyarrow.Schema, kind: str, columns: Sequence[str]) -> npt.NDArray[np.int64]:
    """The indices of columns of a type in its matrix, of shape (len(columns),)."""
    index_of = {name: i for i, name in enumerate(_names(schema)[kind])}
    return np.array([index_of[name] for name in columns], np.int64)


def matrix_of(batch: pyarrow.RecordBatch, kind: str) -> npt.NDArray[Any]:
    """The matrix of a type, of shape (rows, columns of the type), without a copy."""
    lists = batch.column(batch.schema.get_field_index(_MATRICES[kind]))
    matrix: npt.NDArray[Any] = lists.flatten().to_numpy().reshape(len(lists), lists.type.list_size)
    return matrix


def _names(schema: pyarrow.Schema) -> dict[str, list[str]]:
    names: dict[str, list[str]] = json.loads(schema.metadata[_NAMES])
    return names
