"""Sampling by class as a pure function of the global order: how often an epoch takes rows of each class.

An epoch is a permutation of its *draws*, so many of each class. Draw k of a class with q draws an epoch is, in epoch e,
the class's draw number e q + k of the run, and a run goes through the rows of a class again and again, each time in
another order. So the rows of a class are drawn equally often, up to one, at every end of an epoch.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from blitz.data.order import Rows, shuffled_rows
from blitz.randomness import Use, key_for, keys_for

Labels = Callable[[Rows], npt.NDArray[np.int64]]
"""Takes row numbers; returns the number of the class of each."""

_ROWS_AT_ONCE = 1 << 16


def draws_of_classes(rows: Sequence[int], frequencies: Sequence[float]) -> tuple[int, ...]:
    """How many of an epoch's draws, as many as there are rows, are of each class.

    Draws are proportional to the frequencies of the classes that have rows, rounded by the largest remainder; equal
    remainders go to the first classes.
    """
    shares = np.where(np.array(rows) > 0, np.array(frequencies, float), 0.0)
    exact = sum(rows) * shares / shares.sum()
    draws = np.floor(exact).astype(np.int64)
    largest = np.argsort(draws - exact, kind="stable")
    draws[largest[: sum(rows) - draws.sum()]] += 1
    return tuple(draws.tolist())


def drawn(draws: Rows, epochs: Rows, *, class_rows: Sequence[int], class_draws: Sequence[int], seed: int) -> Rows:
    """The row of each draw, as its index among all rows in the order of their classes.

    `draws` are below the sum of `class_draws`, the first ones of class 0; all arrays are of shape (draws,).
    """
    ends, starts = np.cumsum(class_draws), np.cumsum([0, *class_rows])
    classes = np.searchsorted(ends, draws, side="right")
    found = np.empty_like(draws)
    for one in np.unique(classes).tolist():
        where, count = classes == one, class_rows[one]
        of_run = epochs[where] * class_draws[one] + draws[where] - (ends[one] - class_draws[one])
        keys = keys_for(key_for(Use.SAMPLING, seed, one), (of_run // count).astype(np.uint64))
        found[where] = starts[one] + shuffled_rows(of_run % count, num_rows=count, keys=keys)
    return found


def count_of_classes(labels: Labels, *, rows: int, classes: int) -> tuple[int, ...]:
    """How many of the first `rows` rows are of each class."""
    counts = sum(np.bincount(labels(some), minlength=classes) for some in _blocks(rows))
    return tuple(np.broadcast_to(counts, classes).tolist())


def rows_in_class_order(labels: Labels, *, rows: int) -> npt.NDArray[np.int32] | Rows:
    """The first `rows` rows, sorted by class and then by number: 4 bytes a row, 8 above 2^31 rows."""
    found = np.concatenate([labels(some) for some in _blocks(rows)])
    smallest = np.min_scalar_type(int(found.max()))
    order: Rows = np.argsort(found.astype(smallest), kind="stable")
    return order.astype(np.int32) if rows < 1 << 31 else order


def _blocks(rows: int) -> list[Rows]:
    return [np.arange(start, min(rows, start + _ROWS_AT_ONCE)) for start in range(0, rows, _ROWS_AT_ONCE)]
