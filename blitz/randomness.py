"""Keyed randomness: every random choice is a pure function of the numbers that name it.

Nothing here keeps a state, so there is none to save and none to restore.
"""

from collections.abc import Callable
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Protocol, overload

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

Keys = npt.NDArray[np.uint64]

MASK64 = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


class Use(IntEnum):
    """The use of a random number: the first part of every key, so that no two uses draw the same numbers.

    The comments say what follows it in the key. A number that is changed changes what every run of a seed learns.
    """

    ORDER = 1  # (seed, epoch): the permutation of the training rows
    HELD_OUT = 2  # (seed,): which rows of a CSV are evaluated on
    AUGMENTATION = 3  # (seed, epoch, row): what `Recipe.augment` draws
    CHOICES = 4  # (seed, step): what `Recipe.choices` draws
    GENERATORS = 5  # (seed, step, rank): torch's generators, from which dropout draws
    EXAMPLES = 6  # (seed, row): which evaluated rows are shown
    SEARCH = 7  # (search seed, trial): what a sweep tries
    ITEMS = 8  # (seed, epoch, row): the generators that a user's `__getitem__` may draw from
    QUANTILES = 9  # (seed,): which rows of a large CSV the quantiles of its numbers come from
    SAMPLING = 10  # (seed, class, round): the permutation of a class's rows, where classes are sampled
    GENERATION = 11  # (seed, row): which tokens a language model continues a prompt with
    EXPLAINED = 12  # (seed, repeat): which validation rows explain a model, and how their cells are permuted


@overload
def mix64(value: int) -> int: ...
@overload
def mix64(value: Keys) -> Keys: ...
def mix64(value: Any) -> Any:
    """Hash 64 bits to 64 bits, one to one: the finalizer of SplitMix64 (Steele, Lea & Flood 2014).

    Takes a Python int below 2^64 or an array of uint64; both give the same values.
    """
    value = (value + _GOLDEN) & MASK64
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK64
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK64
    return value ^ (value >> 31)


def key_for(use: Use, *parts: int) -> int:
    """A 64-bit key for one use of randomness and what `parts` name, in that order, such as (seed, step, rank)."""
    key = 0
    for part in (use, *parts):
        key = mix64(key ^ (part & MASK64))
    return key


def keys_for(prefix: int, parts: Keys) -> Keys:
    """`key_for(…, part)` for each of `parts` at once, where `prefix` is `key_for(…)`."""
    return mix64(parts ^ np.uint64(prefix))


def uniforms(keys: Keys, count: int) -> npt.NDArray[np.float32]:
    """`count` numbers in [0, 1) for each key, of shape (len(keys), count)."""
    hashes: Keys = mix64(np.add(keys[:, None], np.arange(1, count + 1, dtype=np.uint64), dtype=np.uint64))
    # The upper 24 bits are all that a float32 holds.
    return (hashes >> np.uint64(40)).astype(np.float32) / np.float32(1 << 24)


class Draws(Protocol):
    """Random numbers of the rows of a batch: for each row a function of the seed, the epoch and the row alone."""

    def __call__(self, count: int) -> "Tensor":
        """float32 of shape (batch, count), uniform in [0, 1). Called again it gives the same numbers."""

    @property
    def epoch(self) -> int:
        """The epoch of the rows, from 0."""

    @property
    def partners(self) -> "Tensor":
        """int64 of shape (batch,): the index of the row that each may be mixed with, on any number of workers the same.

        The rows of a global batch are partners two by two; one without a valid partner is its own. Only for a recipe
        with `rows_together = 2`.
        """


StepDraws = Callable[[int], "Tensor"]
"""`draws(count)` gives float32 of shape (count,), uniform in [0, 1): a function of the seed and the step alone, and so
the same on every worker. Called again it gives the same numbers."""
