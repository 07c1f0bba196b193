"""Successive halving: at each rung only the best lanes go on."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from blitz.errors import require


@dataclass(frozen=True)
class Rungs:
    """Which lanes of a pack go on: ASHA's rungs (Li et al. 2020), where all lanes of a pack come to a rung together.

    The first rung is the first evaluation after `grace_steps` or more steps, the next that after `reduction_factor`
    times as many, and so on; at each, one lane in `reduction_factor` goes on, rounded up.
    """

    metric: str
    """A figure of an evaluation, such as `val/loss`."""
    higher_is_better: bool
    grace_steps: int
    reduction_factor: int = 3

    def __post_init__(self) -> None:
        require(self.grace_steps >= 1, f"the first rung is after {self.grace_steps} steps; it must be at least 1")
        require(self.reduction_factor >= 2, f"the reduction factor is {self.reduction_factor}; it must be at least 2")

    def steps(self) -> Iterator[int]:
        """After how many steps there is a rung, without end."""
        step = self.grace_steps
        while True:
            yield step
            step *= self.reduction_factor

    def kept(self, figures: Sequence[float]) -> list[int]:
        """Places of the figures whose lanes go on, in their order; a figure that is no number is the worst."""

        def rank(place: int) -> tuple[bool, float]:
            figure = figures[place]
            return math.isnan(figure), -figure if self.higher_is_better else figure

        count = -(-len(figures) // self.reduction_factor)
        return sorted(sorted(range(len(figures)), key=rank)[:count])
