"""Evaluation of all lanes at once: the metrics of each are those of its solo run."""

import warnings
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap
from torch.utils._pytree import tree_map

from blitz.data.plan import Block
from blitz.errors import DataError
from blitz.outputs.metrics import Sums
from blitz.recipe import Batch, Recipe
from blitz.training.evaluation import evaluated
from blitz.training.packed.stack import Stack
from blitz.training.world import World

_LANE_ROWS_A_FORWARD = 4096
"""Rows times lanes; fits the caches and the memory of any machine."""


class StackedEvaluation:
    """One pass over the evaluation rows."""

    def __init__(self, recipe: Recipe, stack: Stack, lanes: int, world: World) -> None:
        self._recipe, self._stack, self._lanes, self._world = recipe, stack, lanes, world
        self._metrics = recipe.evaluated_metrics()
        self._sums: Sums = {}
        # A recipe may have frozen a part of its model, which stays in eval mode afterwards.
        self._modes = [(module, module.training) for module in stack.model.modules()]
        stack.model.eval()

    @torch.no_grad()
    def add(self, block: Block) -> None:
        """Add up a block's rows; pad rows are left out."""
        most_rows = max(1, _LANE_ROWS_A_FORWARD // self._lanes)
        counts, parts = evaluated(block, self._recipe, self._world.device, most_rows=most_rows)
        for part in parts:
            outputs, losses = self._stack.outputs(part.batch)
            rows = torch.full((self._lanes,), losses.shape[1], device=losses.device)
            sums = {"rows": rows, "loss": losses.double().sum(1), **self._metric_sums(outputs, part.batch)}
            for name, value in sums.items():
                self._sums[name] = self._sums.get(name, torch.zeros_like(value)) + value * counts

    def _metric_sums(self, outputs: Any, batch: Batch) -> Sums:
        """The sums of the metrics, each (lanes, …)."""
        try:
            with warnings.catch_warnings():
                # vmap has no batched rule for counts of classes, and computes them lane by lane.
                warnings.filterwarnings("ignore", message="There is a performance drop")
                stacked: Sums = vmap(lambda one: self._metrics.sums(one, batch))(outputs)
        except RuntimeError:
            # The metrics have shapes that depend on the outputs, which vmap does not support.
            lanes = [self._metrics.sums(tree_map(lambda one, n=n: one[n], outputs), batch) for n in range(self._lanes)]
            stacked = {name: torch.stack([sums[name] for sums in lanes]) for name in lanes[0]}
        return stacked

    def finish(self) -> list[tuple[Sums, dict[str, float]]]:
        """The sums and the metrics of each lane.

        Raises:
            DataError: if none of the rows is valid.
        """
        for module, training in self._modes:
            module.training = training
        if not self._sums["rows"].any():
            raise DataError("of the rows to evaluate on, none is valid")
        lanes: dict[str, tuple[Tensor, ...]] = {name: one.cpu().unbind() for name, one in self._sums.items()}
        sums = [{name: one[n] for name, one in lanes.items()} for n in range(self._lanes)]
        return [(each, self._values(each)) for each in sums]

    def _values(self, sums: Sums) -> dict[str, float]:
        return {"loss": sums["loss"].item() / sums["rows"].item(), **self._metrics.compute(sums)}
