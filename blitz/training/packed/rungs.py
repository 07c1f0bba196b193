"""Successive halving: the steps of the rungs, and which trials continue past one."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from blitz.errors import require


@dataclass(frozen=True)
class Rungs:
    """The rungs of successive halving (Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning").

    The first rung is the first evaluation after `grace_steps` or more steps, the next that after `reduction_factor`
    times as many, and so on; at each, one in `reduction_factor` continues, rounded up. The lanes of a pack reach a rung
    together; trials that reach it one by one are compared with those that have reached it before.
    """

    metric: str
    """A metric of an evaluation, such as `val/loss`."""
    higher_is_better: bool
    grace_steps: int
    reduction_factor: int = 3

    def __post_init__(self) -> None:
        require(self.grace_steps >= 1, f"the first rung is after {self.grace_steps} steps; it must be at least 1")
        require(self.reduction_factor >= 2, f"the reduction factor is {self.reduction_factor}; it must be at least 2")

    def steps(self) -> Iterator[int]:
        """The number of steps at each rung, without end."""
        step = self.grace_steps
        while True:
            yield step
            step *= self.reduction_factor

    def kept(self, values: Sequence[float]) -> list[int]:
        """Indices of the values that continue, ascending; NaN is the worst, and the first of equals is better."""

        def rank(index: int) -> tuple[bool, float]:
            value = values[index]
            return math.isnan(value), -value if self.higher_is_better else value

        count = -(-len(values) // self.reduction_factor)
        return sorted(sorted(range(len(values)), key=rank)[:count])
