"""Who says which trials go on at their rungs: those that are among the best of those that came before them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from blitz.launch.tune.sweep import Sweep
from blitz.launch.tune.sweep_plan import rungs_of
from blitz.runs.sweep_directory import Goal
from blitz.training.packed import Rungs
from blitz.training.trial import Figures


class Halving:
    """Asynchronous successive halving, as Ray Tune's ASHAScheduler does it.

    Rungs are counted in evaluations rather than steps: trials may differ in what a step is.

    Args:
        rungs: Where they lie.
        before: By the numbers of trials, the figures of their evaluations so far.
    """

    def __init__(self, rungs: Rungs, before: Mapping[int, Sequence[float]]) -> None:
        self._rungs = rungs
        self._evaluations: Counter[int] = Counter()
        self._seen: dict[int, list[float]] = {}
        self._stopped: set[int] = set()
        for number, values in before.items():
            for value in values:
                self.goes_on(number, value)

    @classmethod
    def of(cls, sweep: Sweep) -> Self:
        """That of a sweep, as far as it has come."""
        return cls(*_so_far(sweep))

    def has_stopped(self, number: int) -> bool:
        """Whether trial `number` is over."""
        return number in self._stopped

    def goes_on(self, number: int, value: float) -> bool:
        """Whether trial `number` goes on after one more evaluation, whose figure is `value`."""
        self._evaluations[number] += 1
        rung = next(step for step in self._rungs.steps() if step >= self._evaluations[number])
        if rung == self._evaluations[number]:
            seen = self._seen.setdefault(rung, [])
            seen.append(value)
            if len(seen) - 1 not in self._rungs.kept(seen):
                self._stopped.add(number)
        return number not in self._stopped


def _so_far(sweep: Sweep) -> tuple[Rungs, dict[int, list[float]]]:
    """What a halving is made of, where it begins and where it goes on."""
    rungs = rungs_of(sweep.plan, sweep.goal, evaluate_every_steps=1)
    return rungs, {number: sweep.before(number) for number in sorted(sweep.trials)}


@dataclass(frozen=True)
class Referee:
    """The halving of trials in other processes: an actor of Ray's."""

    actor: Any
    goal: Goal

    @classmethod
    def on_ray(cls, sweep: Sweep) -> "Referee":
        """A new one, that lives as long as this process."""
        import ray

        return cls(ray.remote(Halving).options(num_cpus=0).remote(*_so_far(sweep)), sweep.goal)

    def goes_on(self, number: int, step: int, figures: Figures) -> bool:
        """Whether trial `number` goes on after an evaluation."""
        import ray

        return bool(ray.get(self.actor.goes_on.remote(number, self.goal.of(figures))))

    def has_stopped(self, number: int) -> bool:
        """Whether trial `number` is over."""
        import ray

        return bool(ray.get(self.actor.has_stopped.remote(number)))
