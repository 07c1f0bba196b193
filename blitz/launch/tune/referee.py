"""Who says which trials go on at the rungs of packs: those that are among the best of those that came before them."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from blitz.launch.tune.plan import rungs_of
from blitz.launch.tune.sweep import Sweep
from blitz.training.packed import Rungs
from blitz.training.sweep_directory import Goal
from blitz.training.trial import Figures


class Halving:
    """Asynchronous successive halving, as Ray Tune's ASHAScheduler does it.

    Rungs are counted in evaluations rather than steps: trials may differ in what a step is.
    """

    def __init__(self, rungs: Rungs) -> None:
        self._rungs = rungs
        self._evaluations: Counter[int] = Counter()
        self._seen: dict[int, list[float]] = {}

    def goes_on(self, number: int, value: float) -> bool:
        """Whether trial `number` goes on after one more evaluation, whose figure is `value`."""
        self._evaluations[number] += 1
        rung = next(step for step in self._rungs.steps() if step >= self._evaluations[number])
        if rung != self._evaluations[number]:
            return True
        seen = self._seen.setdefault(rung, [])
        seen.append(value)
        return len(seen) - 1 in self._rungs.kept(seen)


@dataclass(frozen=True)
class Referee:
    """The halving of trials in other processes: an actor of Ray's."""

    actor: Any
    goal: Goal

    @classmethod
    def on_ray(cls, sweep: Sweep) -> "Referee":
        """A new one, that lives as long as this process."""
        import ray

        rungs = rungs_of(sweep.plan, sweep.goal, evaluate_every_steps=1)
        return cls(ray.remote(Halving).options(num_cpus=0).remote(rungs), sweep.goal)

    def goes_on(self, number: int, step: int, figures: Figures) -> bool:
        """Whether trial `number` goes on after an evaluation."""
        import ray

        return bool(ray.get(self.actor.goes_on.remote(number, figures[self.goal.metric])))
