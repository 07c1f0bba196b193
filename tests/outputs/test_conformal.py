"""Prediction intervals hold the share of rows that theory says, of rows that no model has seen."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import binom

from blitz.errors import UserError
from blitz.outputs.conformal import HeldOutErrors

TRIALS = 4000
"""Each a column of its own: other errors, and a new row."""
CHANCE = 1e-6


@pytest.mark.parametrize(("rows", "level"), [(99, 0.9), (20, 0.5), (19, 0.95)])
def test_a_new_row_lies_within_with_the_probability_of_its_rank(rows: int, level: float) -> None:
    drawn = torch.from_numpy(np.random.default_rng(0).exponential(size=(rows + 1, TRIALS)))
    low, high = HeldOutErrors(drawn[:rows]).bounds(torch.zeros(1, TRIALS), level)
    assert torch.equal(low, -high)
    within = int((drawn[rows] <= high[0]).sum())
    # Of exchangeable errors each rank of the new one is equally likely.
    exact = math.ceil((rows + 1) * level - 1e-9) / (rows + 1)
    assert exact >= level
    assert binom.ppf(CHANCE, TRIALS, exact) <= within <= binom.ppf(1 - CHANCE, TRIALS, exact)


def test_models_of_folds_hold_what_cv_plus_guarantees_and_are_as_it_defines() -> None:
    rows, count, level = 60, 5, 0.9
    targets = torch.from_numpy(np.random.default_rng(0).normal(size=(rows + 1, TRIALS)))
    folds = torch.arange(rows) % count
    # Each model is the mean of the rows that are not in its fold.
    models = torch.stack([targets[:rows][folds != fold].mean(0) for fold in range(count)])
    errors = (targets[:rows] - models[folds]).abs()
    low, high = HeldOutErrors(errors, folds).bounds(models[:, None], level)
    within = int(((low[0] <= targets[rows]) & (targets[rows] <= high[0])).sum())
    assert within >= binom.ppf(CHANCE, TRIALS, 2 * level - 1 - math.sqrt(2 / rows))
    # In fact nearly the level, of models that hardly differ: at most 3 of 61 ranks on either side.
    assert within <= binom.ppf(1 - CHANCE, TRIALS, level + 0.05)
    ends = np.sort((models[folds, 0] - errors[:, 0]).numpy()), np.sort((models[folds, 0] + errors[:, 0]).numpy())
    assert low[0, 0].item() == ends[0][math.floor(0.1 * (rows + 1)) - 1]
    assert high[0, 0].item() == ends[1][math.ceil(0.9 * (rows + 1)) - 1]


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(UserError, match=r"--intervals 0.9 needs at least 9 validation rows, and there are 8"):
        HeldOutErrors(torch.ones(8, 1)).bounds(torch.zeros(1, 1), 0.9)
    assert HeldOutErrors(torch.ones(9, 1)).rank(0.9) == 9
