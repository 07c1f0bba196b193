"""Sampling by class: how often an epoch takes rows of each class, and which."""

from collections import Counter
from itertools import chain

import numpy as np
import pytest

from blitz.data.arrays import ArrayDataset
from blitz.data.plan import Plan, Shares, fetch
from blitz.data.sampling import count_of_classes, draws_of_classes, rows_in_class_order

LABELS = np.array([2, 0, 0, 1, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0])
"""13 rows of class 0, one of class 1, two of class 2."""
ROWS = count_of_classes(lambda rows: LABELS[rows], rows=16, classes=4)
DRAWS = draws_of_classes(ROWS, [1, 1, 1, 1])
PLAN = Plan(16, 0, 5, total_steps=4 * 13, evaluate_every_steps=52, seed=3, class_rows=ROWS, class_draws=DRAWS)
"""13 epochs of four steps."""


def dataset() -> ArrayDataset:
    rows = ArrayDataset(targets=LABELS)
    rows.rows_in_class_order = rows_in_class_order(rows.labels, rows=16)  # type: ignore[attr-defined]
    return rows


def consumed(world_size: int, first_step: int = 0) -> list[list[int]]:
    """The rows of each step."""
    rows, shares = dataset(), Shares.of(PLAN, world_size=world_size, row_bytes=1 << 19)
    steps = []
    for chunk in shares.chunks(first_step):
        blocks = [fetch(rows, shares, chunk, rank) for rank in range(world_size)]
        assert all(np.array_equal(block.columns["targets"], LABELS[block.rows]) for block in blocks)
        for number in range(chunk.stop - chunk.start):
            part = slice(number * shares.share, (number + 1) * shares.share)
            steps.append([int(row) for one in blocks for row in one.rows[part][one.weights[part] > 0]])
    return steps


@pytest.mark.parametrize("world_size", [2, 3, 7])
@pytest.mark.parametrize("first_step", [0, 9, 51])
def test_sampled_rows_are_the_same_at_any_world_size_and_from_any_step(world_size: int, first_step: int) -> None:
    assert consumed(world_size, first_step) == consumed(1)[first_step:]


def test_each_class_is_drawn_as_often_in_each_epoch_and_each_of_its_rows_over_the_run() -> None:
    assert (ROWS, DRAWS) == ((13, 1, 2, 0), (6, 5, 5, 0))
    steps = consumed(1)
    epochs = [list(chain.from_iterable(steps[start : start + 4])) for start in range(0, 52, 4)]
    assert all(np.bincount(LABELS[epoch], minlength=4).tolist() == [*DRAWS] for epoch in epochs)
    # 6 x 13 draws of class 0 are 6 of each of its rows; 65 of class 2 are 32 and 33.
    times = Counter(chain.from_iterable(epochs))
    assert {times[row] for row in np.flatnonzero(LABELS == 0).tolist()} == {6}
    assert sorted(times[row] for row in np.flatnonzero(LABELS == 2).tolist()) == [32, 33]
    # Draws of one class are not next to each other, and another epoch has another order.
    assert len({tuple(LABELS[epoch]) for epoch in epochs}) == 13


def test_draws_are_proportional_to_the_frequencies_of_the_classes_that_occur() -> None:
    assert draws_of_classes([10, 20, 70], [1, 1, 2]) == (25, 25, 50)
    assert draws_of_classes([10, 0, 90], [1, 5, 3]) == (25, 0, 75)
    assert draws_of_classes([5, 5, 1], [1, 1, 1]) == (4, 4, 3)
    assert draws_of_classes([5, 5], [0, 1]) == (0, 10)


def test_rows_beyond_the_first_ones_are_not_in_the_order() -> None:
    assert rows_in_class_order(lambda rows: LABELS[rows], rows=7).tolist() == [1, 2, 4, 5, 3, 0, 6]
