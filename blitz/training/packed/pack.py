"""The loop of a pack: that of a solo run, with a stack of models instead of one."""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from blitz.data.plan import Block, Plan
from blitz.errors import require
from blitz.optim import Optim
from blitz.outputs.best import deciding_metric
from blitz.outputs.metrics import Sums
from blitz.randomness import MASK64, Use, key_for
from blitz.recipe import Recipe
from blitz.training.batches import StepBatch, step_batches
from blitz.training.checkpoint import Checkpoint, Tensors
from blitz.training.model import oom_hint
from blitz.training.packed.lane import Ending, LaneEnd, Listener
from blitz.training.packed.lane_evaluation import StackedEvaluation
from blitz.training.packed.optimizers import StackedOptimizer, kind_of, why_not_stacked
from blitz.training.packed.rungs import Rungs
from blitz.training.packed.stack import Stack
from blitz.training.progress import Progress
from blitz.training.world import World


def common_part(recipe: Recipe) -> Recipe:
    """The recipe without the settings that lanes may differ in: recipes that are equal otherwise can share a pack."""
    return replace(recipe, optim=recipe.optim if why_not_stacked(recipe.optim) else Optim(), init_seed=None)


@dataclass(frozen=True)
class PackJob:
    """Trials to train as one; `recipes` are fitted."""

    recipes: tuple[Recipe, ...]
    plan: Plan
    rungs: Rungs | None = None

    def __post_init__(self) -> None:
        common = [common_part(recipe) for recipe in self.recipes]
        if any(one != common[0] for one in common):
            raise ValueError("the recipes of a pack may differ in `optim` and `init_seed` alone")
        halves = self.rungs is not None
        require(self.plan.eval_rows > 0 or not halves, "lanes can be stopped only where there are rows to evaluate on")


PackState = dict[str, Any]
"""The state of a pack after an evaluation: tensors, numbers and text in dictionaries and lists."""


def train_pack(
    job: PackJob,
    blocks: Iterable[Block],
    *,
    world: World,
    listener: Listener,
    resumed: PackState | None = None,
    evaluated: Callable[[Callable[[], PackState]], None] = lambda state: None,
) -> None:
    """Train all lanes to the end of the plan, or until the last of them ends.

    `blocks` are those of a run on one rank from step 0 on, or from the step of the state that the pack is `resumed`
    from; no more are fetched than are needed. Equal jobs on the same device and number of threads give the same bits.
    After each evaluation but the last, `evaluated` is called with a function that gives the state.

    Raises:
        UserError: if the recipe's loss is not one number a row.
        RunFailed: if memory runs out.
    """
    pack = _Pack(job, world, listener)
    if resumed is not None:
        pack.restore(resumed)
    for block in blocks:
        if block.chunk.split == "train":
            for batch in step_batches(block, job.plan, world):
                pack.step(batch)
        else:
            pack.evaluate(block)
            if block.chunk.ends_pass and pack.lanes and pack.steps < job.plan.total_steps:
                evaluated(pack.state)
        if not pack.lanes:
            return
    pack.finish()


@dataclass(frozen=True)
class _Snapshot:
    """A copy of a lane's state after some step."""

    progress: Progress
    weights: Tensor
    fixed: Tensors
    optimizer: Tensors
    counts_steps: bool

    @classmethod
    def of(cls, stored: Mapping[str, Any], device: torch.device) -> "_Snapshot":
        """What `asdict` gives of one."""
        tensors = {name: {key: one.to(device) for key, one in stored[name].items()} for name in ("fixed", "optimizer")}
        progress, weights = Progress.stored(stored["progress"]), stored["weights"].to(device)
        return cls(progress, weights, tensors["fixed"], tensors["optimizer"], stored["counts_steps"])

    def checkpoint(self, stack: Stack) -> Checkpoint:
        """The checkpoint that the solo run would write."""
        step = self.progress.step
        optimizer = {
            f"{key}/{name}": part for key, row in self.optimizer.items() for name, part in stack.named(row).items()
        }
        if self.counts_steps:
            optimizer |= {f"step/{name}": torch.tensor(float(step)) for name in stack.named(self.weights)}
        weights = stack.state_dict(self.weights, self.fixed)
        return Checkpoint(step, weights, optimizer, asdict(self.progress)).copied()


_COUNTED = ("loss_sum", "failed_at", "failing_loss", "steps", "digest", "loss_rows")
"""Attributes of a pack that are stored as they are."""


class _Pack:
    """The state of a pack in progress: each list and tensor has an entry for each lane that is left."""

    def __init__(self, job: PackJob, world: World, listener: Listener) -> None:
        self.job, self.world, self.listener = job, world, listener
        self.recipe, self.metrics = job.recipes[0], job.recipes[0].metrics()
        self.lanes = sorted(range(len(job.recipes)), key=lambda lane: kind_of(job.recipes[lane].optim))
        recipes = [job.recipes[lane] for lane in self.lanes]
        self.stack = Stack(recipes, world)
        settings = [recipe.optim for recipe in recipes]
        self.optimizer = StackedOptimizer(settings, self.stack.weights.detach(), job.plan)
        self.progress = [Progress() for _ in recipes]
        self.best: list[_Snapshot | None] = [None] * len(recipes)
        self.loss_sum = torch.zeros(len(recipes), dtype=torch.float64, device=world.device)
        # The first step that was not finite, counted from 1, and its loss.
        self.failed_at = torch.zeros(len(recipes), dtype=torch.int64, device=world.device)
        self.failing_loss = torch.zeros_like(self.loss_sum)
        self.evaluation: StackedEvaluation | None = None
        self.steps, self.digest, self.loss_rows = 0, 0, 0
        self.rungs = job.rungs.steps() if job.rungs else iter(())
        self.next_rung = next(self.rungs, None)
        self.logged_at = time.perf_counter()

    def state(self) -> PackState:
        """The state after an evaluation."""
        best = [None if one is None else {**vars(one), "progress": asdict(one.progress)} for one in self.best]
        return {
            "lanes": self.lanes,
            "weights": self.stack.weights.detach(),
            "fixed": self.stack.fixed,
            "optimizer": self.optimizer.state(),
            "progress": [asdict(one) for one in self.progress],
            "best": best,
            **{name: getattr(self, name) for name in _COUNTED},
        }

    def restore(self, state: PackState) -> None:
        """Continue from what `state` gave."""
        self._keep([self.lanes.index(lane) for lane in state["lanes"]])
        with torch.no_grad():
            self.stack.weights.copy_(state["weights"])
            for name, one in self.stack.fixed.items():
                one.copy_(state["fixed"][name])
        self.optimizer.restore(state["optimizer"])
        self.progress = [Progress.stored(one) for one in state["progress"]]
        device = self.world.device
        self.best = [None if one is None else _Snapshot.of(one, device) for one in state["best"]]
        for name in _COUNTED:
            value = state[name]
            setattr(self, name, value.to(device) if isinstance(value, Tensor) else value)
        if self.next_rung is not None and self.next_rung <= self.steps:
            self.next_rung = next(step for step in self.rungs if step > self.steps)

    def step(self, batch: StepBatch) -> None:
        """One step of every lane; the lines of those that are logged."""
        if not self.lanes:
            return
        weights = self.stack.weights
        self.world.seed_generators(key_for(Use.GENERATORS, self.recipe.seed, self.steps, self.world.rank))
        total = torch.zeros_like(self.loss_sum)
        micro_batches, choices = list(batch.micro_batches(self.recipe)), self.recipe.choices(batch.step_draws)
        for columns, row_weights in micro_batches:
            with oom_hint(len(row_weights)):
                total += self.stack.backward(columns, row_weights, choices)
        gradients = weights.grad
        assert gradients is not None
        self.steps += 1
        self._look_for_failures(total, gradients)
        self.optimizer.step(gradients, self.steps - 1)
        weights.grad = None
        self.loss_sum.add_(total, alpha=batch.rows)
        self.loss_rows += batch.rows
        self.digest = (self.digest + batch.digest) & MASK64
        self.listener.step(self.steps, len(self.lanes))
        if self.steps % self.recipe.log_every_steps == 0 or self.steps == self.job.plan.total_steps:
            self.log()

    def _look_for_failures(self, losses: Tensor, gradients: Tensor) -> None:
        # A lane that has failed continues until it is dropped: its NaN does not leave its row.
        largest = gradients.abs().amax(1)
        failed = (losses + largest).isfinite().logical_not_() & (self.failed_at == 0)
        self.failed_at.masked_fill_(failed, self.steps)
        self.failing_loss = torch.where(failed, losses, self.failing_loss)

    def _drop_failed(self) -> None:
        """End the lanes whose loss, gradient or weights were not finite."""
        finite = self.stack.weights.detach().isfinite().all(1).tolist()
        failed_at, losses = self.failed_at.tolist(), self.failing_loss.tolist()
        reasons: dict[int, tuple[int, str]] = {}
        for row, step in enumerate(failed_at):
            if step:
                what = (
                    "the gradient is not finite"
                    if math.isfinite(losses[row])
                    else f"the training loss is {losses[row]}"
                )
                reasons[row] = step, f"{what} at step {step}"
            elif not finite[row]:
                reasons[row] = self.steps, f"the weights are not finite after step {self.steps}"
        for row, (step, reason) in reasons.items():
            self._end(row, "failed", step, reason)
        self._keep([row for row in range(len(self.lanes)) if row not in reasons])

    def log(self) -> None:
        """Write the mean training loss of each lane since the last logged step."""
        self._drop_failed()
        now = time.perf_counter()
        rate = round(self.loss_rows / (now - self.logged_at), 1)
        rates = self.optimizer.rates(self.steps - 1).flatten().tolist() if self.lanes else []
        for lane, loss, lr in zip(self.lanes, (self.loss_sum / max(1, self.loss_rows)).tolist(), rates, strict=True):
            self._write(lane, {"train/loss": loss, "lr": lr, "examples_per_second": rate, "world_size": 1})
        self.loss_sum.zero_()
        self.loss_rows, self.logged_at = 0, now

    def _write(self, lane: int, values: dict[str, float]) -> None:
        epoch = round(self.steps / self.job.plan.steps_per_epoch, 4)
        self.listener.line(lane, {"step": self.steps, "epoch": epoch, **values})

    def evaluate(self, block: Block) -> None:
        """Add a block of evaluation rows to the pass in progress, or start one."""
        if self.evaluation is None:
            self._drop_failed()
            if not self.lanes:
                return
            self.evaluation = StackedEvaluation(self.recipe, self.stack, len(self.lanes), self.world)
        self.evaluation.add(block)
        if block.chunk.ends_pass:
            evaluated, self.evaluation = self.evaluation.finish(), None
            self._update_best(evaluated)
            if self.steps < self.job.plan.total_steps:
                self._end_early()

    def _update_best(self, evaluated: Sequence[tuple[Sums, dict[str, float]]]) -> None:
        """Write the metrics of each lane, and update its best."""
        for row, (lane, (sums, values)) in enumerate(zip(self.lanes, evaluated, strict=True)):
            progress = self.progress[row]
            progress.step, progress.rows_digest = self.steps, self.digest
            deciding = deciding_metric(self.recipe.best, self.metrics, sums)
            if progress.evaluated(values, deciding, min_delta=self.recipe.min_delta):
                self.best[row] = self._snapshot(row)
            self._write(lane, progress.metrics)

    def _end_early(self) -> None:
        """End the lanes that are out of patience, which are finished, and those that do not pass a rung."""
        patience = self.recipe.patience
        losers = self._halve() if self.next_rung and self.next_rung <= self.steps else {}
        done = {row for row, one in enumerate(self.progress) if one.is_out_of_patience(patience, self.job.plan)}
        for row in range(len(self.lanes)):
            if row in done:
                self._end(row, "finished", self.steps, f"no improvement in {patience} evaluations")
            elif row in losers:
                self._end(row, "stopped", self.steps, losers[row])
        self._keep([row for row in range(len(self.lanes)) if row not in done and row not in losers])

    def _halve(self) -> dict[int, str]:
        """The lanes that do not pass the rung that is reached, and why."""
        rungs = self.job.rungs
        assert rungs is not None
        values = [self._value(progress, rungs.metric) for progress in self.progress]
        kept = rungs.kept(values)
        among = f"is not among the best {len(kept)} of {len(values)} at step {self.steps}"
        self.next_rung = next(step for step in self.rungs if step > self.steps)
        losers = sorted({*range(len(values))} - {*kept})
        return {row: f"{rungs.metric} {values[row]:.6g} {among}" for row in losers}

    def _value(self, progress: Progress, metric: str) -> float:
        require(metric in progress.metrics, f"there is no metric {metric!r}; there are {', '.join(progress.metrics)}")
        return progress.metrics[metric]

    def _snapshot(self, row: int) -> _Snapshot:
        progress = replace(
            self.progress[row],
            step=self.steps,
            rows_digest=self.digest,
            loss_sum=self.loss_sum[row].item(),
            loss_rows=self.loss_rows,
        )
        return _Snapshot(
            progress,
            self.stack.weights[row].detach().clone(),
            {name: one[row].clone() for name, one in self.stack.fixed.items()},
            {name: one.clone() for name, one in self.optimizer.state_of(row).items()},
            self.optimizer.counts_steps(row),
        )

    def _end(self, row: int, state: Ending, step: int, reason: str | None) -> None:
        best = self.best[row]
        last = None if state == "failed" else self._snapshot(row).checkpoint(self.stack)
        if best is None:
            best_checkpoint = None
        elif last is not None and best.progress.step == last.step:
            best_checkpoint = last
        else:
            best_checkpoint = best.checkpoint(self.stack)
        self.listener.lane_ended(self.lanes[row], LaneEnd(state, step, reason, last, best_checkpoint))

    def _keep(self, rows: list[int]) -> None:
        """Keep only these lanes; the work of a step falls with their number."""
        if len(rows) == len(self.lanes):
            return
        self.lanes = [self.lanes[row] for row in rows]
        self.progress, self.best = [self.progress[row] for row in rows], [self.best[row] for row in rows]
        self.stack.keep(rows)
        self.optimizer.keep(rows, self.stack.weights.detach())
        self.loss_sum, self.failed_at = self.loss_sum[rows], self.failed_at[rows]
        self.failing_loss = self.failing_loss[rows]

    def finish(self) -> None:
        """End the lanes that are left."""
        for row in range(len(self.lanes)):
            self._end(row, "finished", self.steps, None)
