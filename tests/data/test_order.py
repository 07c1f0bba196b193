import time

import numpy as np
import pytest
from scipy.stats import chisquare

from blitz.data.order import shuffled_row, shuffled_rows
from blitz.randomness import Use, key_for, keys_for

POWERS = [2**k + d for k in (1, 2, 3, 4, 7, 10, 13) for d in (-1, 0, 1)]
PRIMES = [2, 3, 5, 7, 11, 13, 97, 101, 997, 7919]


def permutation(num_rows: int, key: int) -> np.ndarray:
    return shuffled_rows(np.arange(num_rows), num_rows=num_rows, keys=np.full(num_rows, key, np.uint64))


@pytest.mark.parametrize("num_rows", sorted({1, *POWERS, *PRIMES}))
@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_the_order_is_a_permutation(num_rows: int, seed: int) -> None:
    assert np.array_equal(np.sort(permutation(num_rows, key_for(Use.ORDER, seed, 0))), np.arange(num_rows))


@pytest.mark.parametrize("num_rows", [1, 2, 3, 17, 1000, 10**13])
def test_one_row_and_many_rows_are_the_same_permutation(num_rows: int) -> None:
    positions = np.unique(np.linspace(0, num_rows - 1, 50).astype(np.int64))
    many = shuffled_rows(positions, num_rows=num_rows, keys=np.full(len(positions), key_for(Use.ORDER, 7), np.uint64))
    assert many.tolist() == [shuffled_row(int(p), num_rows=num_rows, key=key_for(Use.ORDER, 7)) for p in positions]


def test_another_seed_or_epoch_gives_another_order() -> None:
    orders = {tuple(permutation(100, key_for(Use.ORDER, seed, epoch))) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25


@pytest.mark.parametrize("num_rows", [2, 3, 4, 5, 6, 7, 8, 9, 13, 16, 17, 33, 50])
def test_rows_and_pairs_of_rows_are_uniform_over_seeds(num_rows: int) -> None:
    keys = keys_for(key_for(Use.ORDER, 0), np.arange(20_000, dtype=np.uint64))
    first, second = (
        shuffled_rows(np.full(len(keys), position), num_rows=num_rows, keys=keys) for position in (0, num_rows - 1)
    )
    assert chisquare(np.bincount(first, minlength=num_rows)).pvalue > 1e-4
    pairs = np.bincount(first * num_rows + second, minlength=num_rows**2).reshape(num_rows, num_rows)
    assert np.diagonal(pairs).sum() == 0
    assert chisquare(pairs[~np.eye(num_rows, dtype=bool)]).pvalue > 1e-4


@pytest.mark.parametrize("num_rows", [1000, 4097])
def test_positions_within_one_order_are_uniform(num_rows: int) -> None:
    order = permutation(num_rows, key_for(Use.ORDER, 3, 1))
    tenths = order * 10 // num_rows, np.arange(num_rows) * 10 // num_rows
    assert chisquare(np.bincount(tenths[0] * 10 + tenths[1], minlength=100)).pvalue > 1e-4


def test_any_row_of_a_huge_order_is_found_without_the_others() -> None:
    started = time.perf_counter()
    rows = [shuffled_row(10**12 + i, num_rows=10**13, key=key_for(Use.ORDER, 0)) for i in range(1000)]
    seconds_a_row = (time.perf_counter() - started) / 1000
    assert len(set(rows)) == 1000
    assert max(rows) < 10**13
    # Some 5 µs here. The bound is not a benchmark: whatever walked or stored the rows would take days.
    assert seconds_a_row < 0.01


@pytest.mark.parametrize("position", [-1, 10])
def test_a_position_outside_the_rows_is_refused(position: int) -> None:
    with pytest.raises(ValueError, match="10 rows"):
        shuffled_row(position, num_rows=10, key=0)
    with pytest.raises(ValueError, match="10 rows"):
        shuffled_rows(np.array([position]), num_rows=10, keys=np.zeros(1, np.uint64))
