"""Which of many trials go on, as Ray Tune's ASHAScheduler decides it, for trials in this process.

Asynchronous successive halving (Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning").
"""

from collections.abc import Sequence

import numpy as np


class Rungs:
    """Rungs after `evaluations`: a trial goes on if it is among the best one in `reduction` of those that came so far.

    A trial that has none before it goes on.
    """

    def __init__(self, evaluations: Sequence[int], *, reduction: int, higher_is_better: bool) -> None:
        self._seen: dict[int, list[float]] = {number: [] for number in evaluations}
        self._reduction, self._sign = reduction, 1.0 if higher_is_better else -1.0

    def goes_on(self, evaluation: int, value: float) -> bool:
        """Whether a trial goes on whose figure was `value` in that evaluation, counted from 1; those after it compare."""
        seen = self._seen.get(evaluation)
        if seen is None:
            return True
        score = self._sign * value
        goes_on = not seen or score >= np.nanpercentile(seen, (1 - 1 / self._reduction) * 100)
        seen.append(score)
        return bool(goes_on)


def rung_evaluations(*, grace: int, reduction: int, total: int) -> list[int]:
    """`grace` and its products with powers of `reduction`, below `total`."""
    numbers = []
    while grace < total:
        numbers.append(grace)
        grace *= reduction
    return numbers
