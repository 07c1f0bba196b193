"""Exact evaluation: sums over rows, added up over blocks and ranks, each row counted once."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from blitz.data.plan import Block, Plan, Split
from blitz.errors import DataError
from blitz.metrics import Sums
from blitz.recipe import Batch, Recipe
from blitz.training.batches import laid_out, on_device
from blitz.training.checkpoint import Checkpoint
from blitz.training.display import Display
from blitz.training.faults import Faults
from blitz.training.model import Forward, build_model, forward_and_loss
from blitz.training.notice import NoticeBoard, nothing_told
from blitz.training.run_directory import RunDirectory
from blitz.training.world import World

ROWS_A_FORWARD = 1024
"""Where the recipe names no micro-batch."""


def evaluated(
    block: Block, recipe: Recipe, device: torch.device, *, most_rows: int = ROWS_A_FORWARD
) -> tuple[bool, Iterator[Batch]]:
    """Whether any row of a block counts, and its preprocessed rows in parts for a forward pass; pad rows are left out.

    Every rank is to add up the same names: of a block that is all padding it is one row, to be counted as none.
    """
    counted = block.weights > 0
    counts = bool(counted.any())
    taken = counted if counts else np.arange(len(counted)) < 1
    columns = {name: column[taken] for name, column in block.columns.items()}
    batch = laid_out(recipe, recipe.preprocess(on_device(columns, device)))
    size = recipe.micro_batch_size or most_rows
    starts = range(0, int(taken.sum()), size)
    return counts, ({name: column[start : start + size] for name, column in batch.items()} for start in starts)


class Evaluation:
    """One pass over the evaluation rows."""

    def __init__(self, recipe: Recipe, model: nn.Module, world: World) -> None:
        self._recipe, self._world = recipe, world
        self._forward = Forward(recipe, model)
        self._metrics = recipe.metrics()
        self._sums: Sums = {}
        # A recipe may have frozen a part of its model: it goes on as it was.
        self._modes = [(module, module.training) for module in model.modules()]
        world.share_buffers(model)
        model.eval()

    @torch.no_grad()
    def add(self, block: Block) -> None:
        """Add up a block's rows; pad rows are left out."""
        counts, parts = evaluated(block, self._recipe, self._world.device)
        for part in parts:
            outputs, losses = forward_and_loss(self._recipe, self._forward, part, self._world.device)
            rows = torch.tensor(len(losses), device=losses.device)
            sums = {"rows": rows, "loss": losses.double().sum(), **self._metrics.sums(outputs, part)}
            for name, value in sums.items():
                self._sums[name] = self._sums.get(name, torch.zeros_like(value)) + value * counts

    def finish(self) -> tuple[Sums, dict[str, float]]:
        """The sums over all rows and ranks, on the CPU, and the figures: the mean `loss` and the metrics' own.

        Raises:
            DataError: if none of the rows is of use.
        """
        for module, training in self._modes:
            module.training = training
        sums = {name: self._world.sum(value) for name, value in sorted(self._sums.items())}
        if not sums["rows"]:
            raise DataError("of the rows to evaluate on, none is of use")
        return sums, {"loss": sums["loss"].item() / sums["rows"].item(), **self._metrics.figures(sums)}


@dataclass(frozen=True)
class EvaluateJob:
    """One checkpoint of a run on one split, as it is handed to where it happens; it leaves `result_file` in the run."""

    recipe: Recipe
    plan: Plan
    run: RunDirectory
    split: Split
    step: int

    @property
    def result_file(self) -> str:
        """`evaluations/<split>-<step>.json`."""
        return f"evaluations/{self.split}-{self.step}.json"

    def first_step(self) -> int:
        """0: an evaluation begins at the beginning."""
        return 0

    def start(
        self,
        blocks: Iterable[Block],
        *,
        world: World,
        first_step: int,
        display: Display,
        board: NoticeBoard = nothing_told,
    ) -> None:
        """Evaluate."""
        model = build_model(self.recipe, world)
        model.load_state_dict(Checkpoint.load(self.run, self.step).weights)
        evaluation = Evaluation(self.recipe, model, world)
        faults = Faults(self.recipe, self.plan, self.run, world=world, display=display)
        for block in blocks:
            faults.note(block)
            evaluation.add(block)
        sums, figures = evaluation.finish()
        if world.leads:
            counts = {name: value.tolist() for name, value in sums.items()}
            result = {"split": self.split, "step": self.step, "figures": figures, "sums": counts}
            self.run.write_json(self.result_file, result)
