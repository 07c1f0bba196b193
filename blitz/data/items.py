"""Any map-style `torch.utils.data.Dataset` as columns of arrays: tuples, dictionaries, nested ones, images."""

import os
import random
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from blitz.data.arrays import Columns
from blitz.data.order import Rows
from blitz.errors import DataError, UserError, first_line, require
from blitz.randomness import Use, key_for

INPUTS, TARGETS = "inputs", "targets"
_TARGET_KEYS = ("targets", "target", "labels", "label", "y")

Collate = Callable[[list[Any]], Any]


class ItemDataset:
    """The items of a data set as columns, one for each tensor, number or image in an item.

    An item `(x, y)` gives the columns `inputs` and `targets`, one of more parts `inputs/0`, `inputs/1`, … and
    `targets`. A dictionary gives a column for each key, with `/` between nested ones; its target, which is named
    `target` or by one of the usual names, becomes `targets`. Python's floats become float32, its integers int64, and
    images uint8 of shape (channels, height, width).

    What an item draws from the global generators of torch, NumPy and `random` is a function of the seed, the epoch and
    the row: they are seeded before each item and restored afterwards. Generators of the data set's own are not.

    Args:
        items: any object with `__len__` and `__getitem__`. One with a `__getitems__` too, as Hugging Face's data sets
            have, is called once for each batch, unless it draws random numbers.
        collate_fn: turns a list of items into a batch, as for `DataLoader`. It gets the rows of several steps at once,
            and the first dimension of every tensor that it returns must be these rows.

    Raises:
        DataError: if the first item does not give columns of numbers.
    """

    def __init__(
        self, items: Any, *, what: str, seed: int = 0, collate_fn: Collate | None = None, target: str | None = None
    ) -> None:
        kind = type(items).__name__
        require(
            not isinstance(items, DataLoader),
            f"{what}={kind}: pass its data set, {what}=loader.dataset, and its batch size as global_batch_size=",
        )
        if isinstance(items, Mapping):
            first = next(iter(items), "…")
            raise UserError(f"{what}={kind} is a dictionary; pass one data set of it, as {what}=…[{first!r}]")
        require(
            not isinstance(items, IterableDataset) and hasattr(items, "__getitem__"),
            f"{what}={kind} is not a map-style data set: it must have __len__ and __getitem__, so that any row can be "
            "fetched in any order",
        )
        require(hasattr(items, "__len__"), f"{what}={kind} has no __len__: the number of its rows must be known")
        self._items, self._collate, self._seed, self._what, self._target = items, collate_fn, seed, what, target
        self._draws = False
        try:
            rows = len(items)
        except Exception as error:
            raise DataError(f"{what}={kind}: its __len__ fails: {type(error).__name__}: {error}") from error
        require(rows > 0, f"{what}={kind} is empty")
        self.names = tuple(self.__getitems__(np.arange(1)))

    def __len__(self) -> int:
        return len(self._items)

    @property
    def in_memory(self) -> bool:
        """Whether the rows are slices of tensors rather than items that are fetched one by one."""
        # Not a subclass, which may override __getitem__.
        return type(self._items) is TensorDataset and self._collate is None

    def __getitems__(self, rows: Rows) -> Columns:
        """The rows of a batch, with the random numbers of the first epoch."""
        return self.rows_at(rows, np.zeros(len(rows), np.int64))

    def rows_at(self, rows: Rows, epochs: Rows) -> Columns:
        """The rows of a batch, each with the random numbers of its epoch; both arguments have shape (rows,)."""
        if self.in_memory:
            chosen = torch.from_numpy(rows)
            batch: Any = tuple(tensor[chosen] for tensor in self._items.tensors)
            return self._named(batch, len(rows), stacked=True)
        items = self._fetch(rows, epochs)
        if self._collate is not None:
            return self._named(self._collate(items), len(rows), stacked=True)
        return self._named(items, len(rows), stacked=False)

    def _fetch(self, rows: Rows, epochs: Rows) -> list[Any]:
        with generators_restored():
            if not self._draws:
                # Seeding often takes longer than an item, so it is skipped until an item has drawn a random number.
                before = _generators()
                fetched = self._batch(rows.tolist())
                if _same(before, _generators()):
                    return fetched
                self._draws = True
            found = []
            for row, epoch in zip(rows.tolist(), epochs.tolist(), strict=True):
                _seed_generators(key_for(Use.ITEMS, self._seed, epoch, row))
                found += self._batch([row])
        return found

    def _batch(self, rows: list[int]) -> list[Any]:
        if not hasattr(self._items, "__getitems__"):
            return [self._item(row) for row in rows]
        found = self._items.__getitems__(rows)
        if isinstance(found, Mapping):
            # A dictionary of columns, as blitz's own data sets return.
            return [{name: column[at] for name, column in found.items()} for at in range(len(rows))]
        return list(found)

    def _item(self, row: int) -> Any:
        try:
            item = self._items[row]
        except (UserError, OSError):
            # Left as it is: a file or connection that fails now may work when the task is retried.
            raise
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{os.path.basename(last.filename)}:{last.lineno}"
            raise DataError(
                f"{self._what}={type(self._items).__name__}: row {row} cannot be read ({where}): "
                f"{type(error).__name__}: {first_line(error)}"
            ) from error
        require(item is not None, f"{self._what}={type(self._items).__name__}: row {row} is None")
        return item

    def _named(self, values: Any, rows: int, *, stacked: bool) -> Columns:
        columns: dict[str, npt.NDArray[Any]] = {}
        first = values if stacked else values[0]
        for path in _paths(first):
            parts = [_at(values, path)] if stacked else [self._part(item, path) for item in values]
            column = self._column(path, parts, stacked=stacked)
            if column is not None:
                columns[self._name(path, first)] = column
        for name, column in columns.items():
            require(
                column.ndim > 0 and len(column) == rows,
                f"{self._what}: '{name}' has shape {column.shape} for {rows} rows; the first dimension of all that "
                "collate_fn returns must be the rows",
            )
        require(bool(columns), f"{self._what}: an item is {type(first).__name__}, which holds no tensors or numbers")
        return columns

    def _part(self, item: Any, path: tuple[Any, ...]) -> Any:
        try:
            return _at(item, path)
        except (LookupError, TypeError) as error:
            raise DataError(
                f"{self._what}: items differ: the first of a batch has {'/'.join(map(str, path))}, another has not; "
                "give all the same parts, or a collate_fn"
            ) from error

    def _column(self, path: tuple[Any, ...], parts: list[Any], *, stacked: bool) -> npt.NDArray[Any] | None:
        try:
            arrays = [_array(part) for part in parts]
        except TypeError as error:
            if isinstance(parts[0], str) and path and isinstance(path[0], str):
                return None  # a text beside tokens, as Hugging Face's data sets keep it
            where = "/".join(map(str, path)) or "an item"
            raise DataError(
                f"{self._what}: {where} is {error}; give tensors, arrays or numbers, or a collate_fn that makes them"
            ) from error
        if stacked:
            return arrays[0]
        shapes = {array.shape for array in arrays}
        if len(shapes) > 1:
            raise DataError(
                f"{self._what}: {'/'.join(map(str, path)) or 'items'} differ in shape, as "
                f"{' and '.join(map(str, sorted(shapes)[:2]))}; resize or pad them alike, or give a collate_fn"
            )
        return np.stack(arrays)

    def _name(self, path: tuple[Any, ...], item: Any) -> str:
        if isinstance(item, Mapping):
            is_target = path[0] == self._target if self._target else path[0] in _TARGET_KEYS
            return "/".join(map(str, (TARGETS, *path[1:]) if is_target else path))
        if not isinstance(item, Sequence | tuple) or not path:
            return INPUTS
        last = len(item) - 1
        if path[0] == last and last > 0:
            return "/".join(map(str, (TARGETS, *path[1:])))
        return "/".join(map(str, (INPUTS, *(path if last > 1 else path[1:]))))


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths to the leaves of an item: keys of mappings and indices of tuples."""
    if isinstance(value, Mapping):
        for key in value:
            yield from _paths(value[key], (*path, key))
    elif isinstance(value, tuple) or (isinstance(value, list) and not _is_numbers(value)):
        for index, part in enumerate(value):
            yield from _paths(part, (*path, index))
    elif value is not None:
        yield path


def _is_numbers(value: list[Any]) -> bool:
    """Whether a list holds only numbers or nested lists of numbers, and thus is one array."""
    return bool(value) and all(
        _is_numbers(one) if isinstance(one, list) else isinstance(one, int | float) for one in value
    )


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for part in path:
        value = value[part]
    return value


def _array(value: Any) -> npt.NDArray[Any]:
    if isinstance(value, Tensor):
        value = value.detach()
        numpy: npt.NDArray[Any] = (value.float() if value.dtype == torch.bfloat16 else value).numpy()
        return numpy
    if isinstance(value, bool | int):
        return np.asarray(value)
    if isinstance(value, float) or (isinstance(value, list) and _is_numbers(value)):
        array = np.asarray(value)
        single: npt.NDArray[Any] = array.astype(np.float32) if array.dtype == np.float64 else array
        return single
    if hasattr(value, "getbands"):
        # A PIL image, as torchvision's data sets return without a transform.
        pixels = np.asarray(value)
        return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))
    found: npt.NDArray[Any] = np.asarray(value)
    if found.dtype.kind not in "biuf":
        raise TypeError(type(value).__name__)
    return found


def _generators() -> tuple[Tensor, Any, Any]:
    """The states of the generators of torch, NumPy and Python."""
    return torch.get_rng_state(), np.random.get_state(legacy=False), random.getstate()


def _same(one: tuple[Tensor, Any, Any], other: tuple[Tensor, Any, Any]) -> bool:
    numpy_one, numpy_other = one[1], other[1]
    return (
        torch.equal(one[0], other[0])
        and one[2] == other[2]
        and numpy_one["state"]["pos"] == numpy_other["state"]["pos"]
        and numpy_one["has_gauss"] == numpy_other["has_gauss"]
        and np.array_equal(numpy_one["state"]["key"], numpy_other["state"]["key"])
    )


@contextmanager
def generators_restored() -> Iterator[None]:
    """Restore the generators of torch, NumPy and Python at the end."""
    torch_state, numpy_state, python_state = _generators()
    try:
        yield
    finally:
        torch.set_rng_state(torch_state)
        np.random.set_state(numpy_state)
        random.setstate(python_state)


def _seed_generators(key: int) -> None:
    torch.default_generator.manual_seed(key)
    np.random.seed(key & 0xFFFFFFFF)
    random.seed(key)


def nested(batch: Mapping[str, Tensor], name: str) -> Any:
    """The part of a batch below `name`, nested as in an item: a tensor, a tuple or a dictionary."""
    if name in batch:
        return batch[name]
    below = {key.removeprefix(f"{name}/"): value for key, value in batch.items() if key.startswith(f"{name}/")}
    heads = list(dict.fromkeys(key.partition("/")[0] for key in below))
    parts = {head: nested(below, head) for head in heads}
    if heads and all(head.isdecimal() for head in heads):
        return tuple(parts[head] for head in sorted(heads, key=int))
    return parts
