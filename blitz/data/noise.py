"""Random noise: inputs and targets that are independent, so that a model can only overfit them."""

import numpy as np

from blitz.data.arrays import ArrayDataset


def noise(*, rows: int, inputs: int, targets: int, seed: int) -> ArrayDataset:
    """`inputs` (rows, inputs) and `targets` (rows, targets): independent standard normal float32, drawn from `seed`."""
    random = np.random.default_rng(seed)
    x, y = (random.standard_normal((rows, width), dtype=np.float32) for width in (inputs, targets))
    return ArrayDataset(inputs=x, targets=y)
