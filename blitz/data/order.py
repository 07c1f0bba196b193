"""The global order: a seeded permutation of the rows with random access.

Row `i` of the permutation costs O(1) time and no memory, whatever the number of rows, so nothing is ever shuffled,
stored or skipped: the rows of any step of any epoch can be computed directly.
"""

from typing import Any, overload

import numpy as np
import numpy.typing as npt

from blitz.randomness import Keys, mix64

Rows = npt.NDArray[np.int64]

# Luby & Rackoff (1988) need four rounds; at four, and with halves of one or two bits, small permutations fail the
# χ² test of tests/data/test_order.py. Five rounds over a domain of at least 256 pass it at every size.
_ROUNDS = 5
_MIN_HALF_BITS = 4


def shuffled_row(position: int, *, num_rows: int, key: int) -> int:
    """Row at `position` of a seeded permutation of `range(num_rows)`, in O(1).

    A Feistel network over the next even power of two, walked until the value falls below `num_rows`
    (Black & Rogaway 2002, "Ciphers with arbitrary finite domains"); at most 4 walks are expected from 64 rows on.

    Raises:
        ValueError: if `position` is not in `range(num_rows)`.
    """
    if not 0 <= position < num_rows:
        raise ValueError(f"position {position} is outside the {num_rows} rows")
    half_bits = _half_bits(num_rows)
    row = _feistel(position, half_bits, key)
    while row >= num_rows:
        row = _feistel(row, half_bits, key)
    return row


def shuffled_rows(positions: Rows, *, num_rows: int, keys: Keys) -> Rows:
    """`shuffled_row` for many positions at once: `keys` holds one key a position, both of shape (n,).

    Raises:
        ValueError: if a position is not in `range(num_rows)`.
    """
    if positions.size and not 0 <= positions.min() <= positions.max() < num_rows:
        raise ValueError(f"positions {positions.min()} to {positions.max()} are not all in the {num_rows} rows")
    half_bits = _half_bits(num_rows)
    rows = _feistel(positions.astype(np.uint64), half_bits, keys)
    while (outside := np.flatnonzero(rows >= num_rows)).size:
        rows[outside] = _feistel(rows[outside], half_bits, keys[outside])
    return rows.astype(np.int64)


def _half_bits(num_rows: int) -> int:
    return max(_MIN_HALF_BITS, ((num_rows - 1).bit_length() + 1) // 2)


@overload
def _feistel(value: int, half_bits: int, key: int) -> int: ...
@overload
def _feistel(value: Keys, half_bits: int, key: Keys) -> Keys: ...
def _feistel(value: Any, half_bits: int, key: Any) -> Any:
    """One pass of the network: a bijection of `range(4 ** half_bits)`."""
    half_mask = (1 << half_bits) - 1
    left, right = value >> half_bits, value & half_mask
    for round_number in range(_ROUNDS):
        # The round's number goes above the half's bits, so that no round repeats another.
        mixed = mix64(right ^ key ^ (round_number << 56))
        left, right = right, left ^ (mixed >> (64 - half_bits))
    return (left << half_bits) | right
