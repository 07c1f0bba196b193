"""Data sets in memory, as one array a column."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

# Arrays rather than tensors: Ray shares them between the processes of a node without a copy, and a process that only
# fetches rows starts without importing torch, which takes seconds.
Columns = Mapping[str, npt.NDArray[Any]]

FAULT = "_fault"
"""An optional column of str: empty, or for an invalid row the reason, as a line of bad_rows.csv. An invalid row gets
weight 0, like padding."""


_new: ContextVar[Callable[..., npt.NDArray[Any]]] = ContextVar("new_column", default=np.empty)


def new_column(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """An array for a large column, in memory that the consuming process reads, so that it is not copied.

    Uninitialised, like `np.empty`. Columns that are made in another way are copied.
    """
    return _new.get()(shape, dtype)


@contextmanager
def new_columns_by(how: Callable[..., npt.NDArray[Any]]) -> Iterator[None]:
    """Within this context `new_column` returns what `how` does, which has the signature of `np.empty`."""
    token = _new.set(how)
    try:
        yield
    finally:
        _new.reset(token)


@runtime_checkable
class MapStyleDataset(Protocol):
    """A recipe's data set: a map-style `torch.utils.data.Dataset` that fetches a whole batch at once."""

    def __len__(self) -> int:
        """Number of rows."""

    def __getitems__(self, rows: npt.NDArray[np.int64]) -> Columns:
        """The rows of a batch: each column of shape (len(rows), …), in the order of `rows`, which are distinct."""


@runtime_checkable
class EpochDataset(MapStyleDataset, Protocol):
    """A data set whose rows differ from epoch to epoch, such as one that augments what it reads."""

    def rows_at(self, rows: npt.NDArray[np.int64], epochs: npt.NDArray[np.int64]) -> Columns:
        """The rows of a batch, each for its epoch; both of shape (rows,), and pairs may repeat."""


@runtime_checkable
class LabeledDataset(MapStyleDataset, Protocol):
    """A data set of classes that tells the class of a row without fetching the rest of it."""

    def labels(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The number of the class of each row, of shape (rows,)."""


class SampledDataset(LabeledDataset, Protocol):
    """A data set of classes whose rows can be sampled by class."""

    rows_in_class_order: npt.NDArray[np.int32] | npt.NDArray[np.int64]
    """The numbers of the rows to train on, sorted by class and then by number."""


def in_memory(dataset: MapStyleDataset) -> bool:
    """Whether fetching rows only slices arrays in memory, as the data set's attribute `in_memory` states."""
    return bool(getattr(dataset, "in_memory", False))


class ArrayDataset:
    """Columns of equal length, each an array of shape (rows, …).

    Raises:
        ValueError: if the columns differ in length.
    """

    in_memory = True

    def __init__(self, **columns: npt.NDArray[Any]) -> None:
        lengths = {name: len(column) for name, column in columns.items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"columns of different lengths: {lengths}")
        self.columns = columns

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, row: int) -> Columns:
        """One row: each column of shape (…)."""
        return {name: column[row] for name, column in self.columns.items()}

    def __getitems__(self, rows: npt.NDArray[np.int64]) -> Columns:
        """A whole batch at once: each column of shape (len(rows), …), in the order of `rows`."""
        return {name: column[rows] for name, column in self.columns.items()}

    def labels(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The column `targets` of some rows, which are classes.

        Raises:
            KeyError: if there is no such column.
        """
        found: npt.NDArray[np.int64] = self.columns["targets"][rows].astype(np.int64)
        return found
