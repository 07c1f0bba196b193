"""Asynchronous successive halving: trials reach a rung at different times, and each is decided when it gets there."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Self

from blitz.launch.tune.sweep import Sweep
from blitz.training.packed import Rungs


class AsyncHalving:
    """ASHA (Li et al. 2020): a trial continues past a rung if it is among the best that have reached it so far.

    `Rungs` decides where the rungs are and which trials continue, as for the lanes of a pack. Here a rung is
    a number of evaluations rather than steps, because trials may differ in how long a step is.

    Args:
        rungs: In evaluations.
        before: By trial number, the metric at each evaluation so far.
    """

    def __init__(self, rungs: Rungs, before: Mapping[int, Sequence[float]]) -> None:
        self._rungs = rungs
        self._evaluations: Counter[int] = Counter()
        self._reached: dict[int, list[float]] = {}
        self._stopped: set[int] = set()
        for number, values in before.items():
            for value in values:
                self.should_continue(number, value)

    @classmethod
    def of(cls, sweep: Sweep) -> Self:
        """That of a sweep, with the evaluations of all its trials so far."""
        return cls(*halving_state(sweep))

    def has_stopped(self, number: int) -> bool:
        """Whether trial `number` was stopped."""
        return number in self._stopped

    def should_continue(self, number: int, value: float) -> bool:
        """Whether trial `number` continues after one more evaluation, at which the metric is `value`."""
        self._evaluations[number] += 1
        rung = next(step for step in self._rungs.steps() if step >= self._evaluations[number])
        if rung == self._evaluations[number]:
            reached = self._reached.setdefault(rung, [])
            reached.append(value)
            if len(reached) - 1 not in self._rungs.kept(reached):
                self._stopped.add(number)
        return number not in self._stopped


def halving_state(sweep: Sweep) -> tuple[Rungs, dict[int, list[float]]]:
    """The arguments of an `AsyncHalving`, for a new sweep or one that resumes."""
    rungs = sweep.plan.rungs(sweep.goal, evaluate_every_steps=1)
    return rungs, {number: sweep.past_values(number) for number in sorted(sweep.trials)}
