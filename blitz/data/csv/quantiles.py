"""Quantiles of number columns, from a sample of bounded size."""

from collections.abc import Mapping, Sequence

import numpy as np

from blitz.data.csv.reading.statistics import Batches, kept_batches
from blitz.data.csv.source import Mask
from blitz.data.order import shuffled_rows
from blitz.randomness import Use, key_for

LEVELS = 48
"""Quantiles at 0/48, 1/48, …, 48/48: as many bins as `rtdl_num_embeddings` has by default, quartiles among them."""

_MOST_ROWS = 1 << 15
"""Rows of the sample: enough that its quantiles are almost surely within 0.01 of their level."""

_COLUMNS_AT_ONCE = 256


def sample_of(kept: Mask, seed: int) -> Mask:
    """The rows that are `kept`, or of many a sample of them, of shape (rows of the index,)."""
    rows = np.flatnonzero(kept)
    if len(rows) > _MOST_ROWS:
        keys = np.full(_MOST_ROWS, key_for(Use.QUANTILES, seed), np.uint64)
        rows = rows[shuffled_rows(np.arange(_MOST_ROWS), num_rows=len(rows), keys=keys)]
    sample = np.zeros(len(kept), bool)
    sample[rows] = True
    return sample


def quantiles_of(index: Batches, columns: Sequence[str], kept: Mask, seed: int) -> Mapping[str, tuple[float, ...]]:
    """For each column its quantiles at `LEVELS` + 1 even levels, over `kept` rows; none if all are missing.

    Of many rows a sample is taken, which `seed` draws. Memory is that of the sample, for some columns at a time.
    """
    sample = sample_of(kept, seed)
    found: dict[str, tuple[float, ...]] = {}
    for first in range(0, len(columns), _COLUMNS_AT_ONCE):
        some = columns[first : first + _COLUMNS_AT_ONCE]
        parts: dict[str, list[np.ndarray]] = {name: [] for name in some}
        for batch in kept_batches(index, some, sample):
            for name, cells in parts.items():
                cells.append(batch[name].drop_null().to_numpy())
        for name, cells in parts.items():
            numbers = np.concatenate(cells) if cells else np.zeros(0)
            levels = np.linspace(0, 1, LEVELS + 1)
            found[name] = tuple(np.quantile(numbers, levels).tolist()) if len(numbers) else ()
    return found
