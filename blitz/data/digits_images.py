"""The handwritten digits that ship with the project (digits.csv; source and licence in digits.LICENSE.txt)."""

from pathlib import Path

import numpy as np
import pyarrow.csv

from blitz.data.arrays import ArrayDataset
from blitz.data.plan import Split

SIDE = 8
_CSV = Path(__file__).with_name("digits.csv")


def digits(split: Split) -> ArrayDataset:
    """`inputs` uint8 of shape (rows, 1, 8, 8), values 0 to 16, and `targets` int64 of shape (rows,).

    Every fifth row is held out: 1,438 to train on and 359 to test.
    """
    table = np.column_stack([column.to_numpy() for column in pyarrow.csv.read_csv(_CSV).columns])
    held_out = np.arange(len(table)) % 5 == 4
    rows = table[held_out if split == "val" else ~held_out]
    return ArrayDataset(inputs=rows[:, :-1].reshape(-1, 1, SIDE, SIDE).astype(np.uint8), targets=rows[:, -1])
