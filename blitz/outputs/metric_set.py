"""All metrics of an evaluation: the recipe's own, those that are asked for, and means over rows that it names."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from blitz.outputs.extra_metrics import Extra, Ranking, extra_metrics
from blitz.outputs.metrics import Classification, Means, Metrics, Sums

RowMetrics = Callable[[Any, Mapping[str, Tensor]], Mapping[str, Tensor]]
"""Takes outputs and a batch; returns named tensors with a number for each row."""

_RESAMPLES = 200
_MOST_CELLS = 1 << 14


@dataclass(frozen=True)
class MetricSet:
    """The metrics of a recipe and those beside them; `sums` and `compute` are as those of `Metrics`."""

    own: Metrics
    extra: tuple[Extra, ...]
    rows: Means

    @classmethod
    def of(cls, own: Metrics, names: Sequence[str], row_metrics: RowMetrics) -> Self:
        """The metrics of a recipe, those of these names, and the means of `row_metrics`.

        Raises:
            UserError: if a name is not known for such outputs.
        """
        return cls(own, tuple(extra_metrics(names, own)), Means(row_metrics, targets=lambda batch: batch))

    def reported(self) -> tuple[str, ...] | None:
        """Names that `compute` may give, without means over rows; None if the recipe's own declare none."""
        # A subclass with a `compute` of its own may give more than it has inherited the names of.
        kinds = type(self.own).__mro__
        computes, declares = (
            next((one for one in kinds if what in vars(one)), None) for what in ("compute", "reported")
        )
        if computes is not declares:
            return None
        own: tuple[str, ...] = self.own.reported()  # type: ignore[attr-defined]
        return (*own, *(name for each in self.extra for name in each.reported()))

    def sums(self, outputs: Any, batch: Mapping[str, Tensor]) -> Sums:
        """Sums over the rows of a batch."""
        sums = dict(self.own.sums(outputs, batch))
        for each in self.extra:
            sums |= each.sums(outputs, batch)
        means = self.rows.sums(outputs, batch)
        # `count` too is a sum of the recipe's own, if those are means.
        return sums | {f"rows/{name}": value for name, value in means.items()} if len(means) > 1 else sums

    def compute(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """The metrics by name."""
        values = self.own.compute(sums)
        for each in self.extra:
            values |= each.compute(sums)
        means = {name.removeprefix("rows/"): value for name, value in sums.items() if name.startswith("rows/")}
        return values | (self.rows.compute(means) if means else {})

    @property
    def ranking(self) -> Ranking | None:
        """The metric that counts scores, if it is among them."""
        return next((each for each in self.extra if isinstance(each, Ranking)), None)

    def intervals(self, sums: Mapping[str, Tensor]) -> dict[str, tuple[float, float]]:
        """95 % intervals of metrics of integer counts, by drawing the counts 200 times with replacement.

        That is the bootstrap over rows (Efron 1979): such metrics do not depend on which rows make up a count.
        """
        values: list[dict[str, float]] = []
        for name, metrics in (("confusion", self.own), ("scores", self.ranking)):
            counts = sums.get(name)
            if counts is None or metrics is None or int((counts > 0).sum()) > _MOST_CELLS:
                continue
            if name == "scores":
                # Each row is in the counts of every class, of which the draws would have to agree.
                if len(counts) > 1:
                    continue
                counts = counts[:, :, counts.sum((0, 1)) > 0]
            elif not isinstance(metrics, Classification):
                continue
            drawn = [metrics.compute({**sums, name: each}) for each in _resampled(counts)]
            kept = [key for key in drawn[0] if "/" not in key and key not in _NOT_OF_COUNTS]
            values += [{key: one[key] for key in kept if key in one} for one in drawn]
        names = dict.fromkeys(key for one in values for key in one)
        found = {key: [one[key] for one in values if key in one] for key in names}
        return {key: _interval(each) for key, each in found.items()}


_NOT_OF_COUNTS = frozenset({"accuracy", "threshold", "f1_at_threshold", "top_5_accuracy"})
"""Accuracy has an exact interval; each sample would choose a threshold of its own; the other is not of these counts."""


def _resampled(counts: Tensor) -> list[Tensor]:
    random, flat = np.random.default_rng(0), counts.flatten().numpy()
    cells = np.flatnonzero(flat)
    rows, found = int(flat.sum()), []
    for drawn in random.multinomial(rows, flat[cells] / rows, size=_RESAMPLES):
        each = np.zeros_like(flat)
        each[cells] = drawn
        found.append(torch.from_numpy(each).reshape(counts.shape))
    return found


def _interval(values: Sequence[float]) -> tuple[float, float]:
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
