"""Exact evaluation: sums over rows, added up over blocks and ranks, each row counted once."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from blitz.data.order import Rows
from blitz.data.plan import Block, Plan, Split
from blitz.errors import DataError, StorageError, UserError
from blitz.outputs.best import deciding_metric
from blitz.outputs.metrics import Classification, Sums
from blitz.recipe import Batch, Recipe
from blitz.run_files.directory import RunDirectory
from blitz.training.bad_row_log import BadRowLog
from blitz.training.batches import laid_out, on_device
from blitz.training.checkpoint import Checkpoint
from blitz.training.example_rows import Examples
from blitz.training.model import Forward, build_forward, forward_and_loss
from blitz.training.model import forward as run_forward
from blitz.training.session import Session
from blitz.training.world import World

ROWS_A_FORWARD = 1024
"""Rows a forward pass if the recipe has no `micro_batch_size`."""


@dataclass(frozen=True)
class Part:
    """Rows of a block that go through one forward pass."""

    rows: Rows
    """Their row numbers."""
    fetched: Batch
    """Their columns on the device, as they were fetched."""
    batch: Batch
    """The same, preprocessed."""


def evaluated(
    block: Block, recipe: Recipe, device: torch.device, *, most_rows: int = ROWS_A_FORWARD
) -> tuple[bool, Iterator[Part]]:
    """Whether any row of a block counts, and its rows in parts for a forward pass; pad rows are left out.

    Every rank must add up the same names, so a block that is all padding yields one row, with a count of 0.
    """
    counted = block.weights > 0
    counts = bool(counted.any())
    taken = counted if counts else np.arange(len(counted)) < 1
    columns = {name: column[taken] for name, column in block.columns.items()}
    fetched = on_device(columns, device)
    batch, numbers = laid_out(recipe, recipe.preprocess(fetched)), block.rows[taken]
    size = recipe.micro_batch_size or most_rows
    slices = [slice(start, start + size) for start in range(0, len(numbers), size)]
    return counts, (Part(numbers[rows], _cut(fetched, rows), _cut(batch, rows)) for rows in slices)


def join_passes(forward: Forward, batch: Batch, world: World, *, done: int, share: int) -> None:
    """Run on a row of `batch` as often as other ranks may still run on theirs, of up to `share` rows.

    Every rank of a sharded model takes part whenever one of them makes its weights whole.
    """
    size = forward.recipe.micro_batch_size or ROWS_A_FORWARD
    for _ in range(done, -(-share // size)) if world.sharded else ():
        run_forward(forward, _cut(batch, slice(1)), world.device)


def _cut(batch: Batch, rows: slice) -> Batch:
    return {name: column[rows] for name, column in batch.items()}


class ResultNotWritten(UserError):
    """An evaluation whose result cannot be written into its run: the disk is full or read-only."""

    def __init__(self, message: str, result: dict[str, Any]) -> None:
        super().__init__(message, result)
        self.result = result
        """What the evaluation's file would hold."""

    def __str__(self) -> str:
        return str(self.args[0])


class Evaluation:
    """One pass over the evaluation rows."""

    def __init__(self, forward: Forward, world: World) -> None:
        recipe, model = forward.recipe, forward.model
        self._recipe, self._world, self._forward = recipe, world, forward
        self._metrics, self._all = recipe.metrics(), recipe.evaluated_metrics()
        self._sums: Sums = {}
        self._examples = Examples(forward, world)
        # A recipe may have frozen a part of its model, which stays in eval mode afterwards.
        self._modes = [(module, module.training) for module in model.modules()]
        world.share_buffers(model)
        model.eval()

    @torch.no_grad()
    def add(self, block: Block) -> None:
        """Add up a block's rows; pad rows are left out."""
        counts, parts = evaluated(block, self._recipe, self._world.device)
        taken = list(parts)
        for part in taken:
            outputs, losses = forward_and_loss(self._recipe, self._forward, part.batch, self._world.device)
            if counts:
                self._examples.add(part.fetched, part.rows, outputs, losses, part.batch)
            count = torch.tensor(len(losses), device=losses.device)
            sums = {"rows": count, "loss": losses.double().sum(), **self._all.sums(outputs, part.batch)}
            for name, value in sums.items():
                self._sums[name] = self._sums.get(name, torch.zeros_like(value)) + value * counts
        join_passes(self._forward, taken[0].batch, self._world, done=len(taken), share=len(block.weights))

    def finish(self) -> tuple[Sums, dict[str, float]]:
        """The sums over all rows and ranks, on the CPU, and the metrics: the mean `loss` and those of the recipe.

        Raises:
            DataError: if none of the rows is valid.
        """
        sums = {name: self._world.sum(value) for name, value in sorted(self._sums.items())}
        if not sums["rows"]:
            raise DataError("of the rows to evaluate on, none is valid")
        return sums, {"loss": sums["loss"].item() / sums["rows"].item(), **self._all.compute(sums)}

    def record(
        self,
        sums: Sums,
        values: dict[str, float],
        *,
        split: Split,
        step: int,
        threshold: dict[str, Any] | None = None,
        intervals: bool = False,
    ) -> dict[str, Any]:
        """What a file in evaluations/ holds of the pass; must be called on every rank.

        The first entry of `by_class` is that of all rows; `interval` is that of the accuracy. `threshold` is
        what other rows chose between two classes; by default these rows do. With `intervals`, those of other metrics.
        """
        ranking = self._all.ranking
        at = ranking.at_threshold(sums, threshold) if ranking is not None and "threshold" in ranking.names else None
        if at is not None and ranking is not None:
            values = {**values, "threshold": at["probability"], "f1_at_threshold": ranking.f1_of(at)}
        metrics, deciding = self._metrics, deciding_metric(self._recipe.best, self._metrics, sums)
        by_class = [metrics.total(sums), *metrics.by_class(sums)] if isinstance(metrics, Classification) else []
        return {
            "split": split,
            "step": step,
            "best": deciding.metric,
            "why_best": deciding.why,
            "figures": values,
            **({"threshold": at} if at else {}),
            **({"intervals": self._all.intervals(sums)} if intervals else {}),
            "sums": {name: value.tolist() for name, value in sums.items() if name != "scores"},
            "by_class": [{**asdict(one), "interval": one.interval if one.rows else None} for one in by_class],
            "examples": self._examples.found(),
        }

    def close(self) -> None:
        """Leave the model as it was before the pass."""
        for module, training in self._modes:
            module.training = training


@dataclass(frozen=True)
class EvaluateJob:
    """The evaluation of one checkpoint on one split, ready to be launched; it writes `result_file` into the run."""

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
        """Always 0: an evaluation covers all rows."""
        return 0

    def start(self, blocks: Iterable[Block], session: Session) -> None:
        """Evaluate.

        Raises:
            ResultNotWritten: if the result cannot be written into the run.
        """
        world = session.world
        forward = build_forward(self.recipe, world)
        model = forward.model
        Checkpoint.load(self.run, self.step, model.state_dict(), weights_only=True).give_weights(model, self.run)
        evaluation = Evaluation(forward, world)
        bad_rows = BadRowLog(
            self.recipe, self.plan, self.run, world=world, display=session.display, must_be_written=False
        )
        for block in blocks:
            bad_rows.note(block)
            evaluation.add(block)
        sums, values = evaluation.finish()
        chosen = self._threshold() if world.leads else None
        result = evaluation.record(
            sums, values, split=self.split, step=self.step, threshold=chosen, intervals=world.leads
        )
        if world.leads:
            self._write(result, bad_rows.unwritten)

    def _threshold(self) -> dict[str, Any] | None:
        """The threshold that the validation rows chose, for other rows; None if there is none or it is to be chosen."""
        names = ("best", f"val-{self.step}") if self.split != "val" else ()
        stored = [one for name in names if (one := self.run.read_json(f"evaluations/{name}.json"))]
        chosen = [one["threshold"] for one in stored if one["step"] == self.step and "threshold" in one]
        return chosen[-1] if chosen else None

    def _write(self, result: dict[str, Any], unwritten: StorageError | None) -> None:
        try:
            self.run.write_json(self.result_file, result)
        except OSError as error:
            refused = error if isinstance(error, StorageError) else None
            unwritten = refused or self.run.refused_file("written", self.result_file, error)
        if unwritten is not None:
            raise ResultNotWritten(str(unwritten), result) from unwritten
