"""Trials that are trained as one stacked model, and what becomes of their lanes."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from blitz.data.plan import Datasets
from blitz.launch.local.in_process import blocks_here, world_here
from blitz.launch.scale import Scale
from blitz.launch.tune.sweep import Sweep
from blitz.recipe import Recipe
from blitz.recipes import recipe_to_json
from blitz.runs.sweep_directory import Goal, Trial, TrialState, each
from blitz.training.checkpoint import Checkpoint
from blitz.training.display import Silence
from blitz.training.loop import Progress
from blitz.training.packed import LaneEnd, PackJob, train_pack
from blitz.training.trial import figures_of
from blitz.training.world import World

Told = Callable[[int, int, dict[str, float]], object]
"""Told the lane, the step and the figures of each evaluation."""


@dataclass
class Lane:
    """What became of a trial in a pack."""

    state: TrialState = "running"
    reason: str = ""
    metrics: list[dict[str, Any]] = field(default_factory=list)
    """The lines of its metrics.jsonl."""
    checkpoints: list[Checkpoint] = field(default_factory=list)
    """Of the pack's best alone: that of its best evaluation, and its last."""


class _Lanes:
    """Notes what a pack tells, and keeps the checkpoints of the best of those that went to their end."""

    def __init__(self, count: int, goal: Goal, told: Told) -> None:
        self.lanes = [Lane() for _ in range(count)]
        self._goal, self._told, self._best = goal, told, -1

    def step(self, number: int, lanes: int) -> None:
        """Nothing: evaluations tell how far it is."""

    def line(self, lane: int, figures: Mapping[str, float]) -> None:
        """A line of metrics.jsonl."""
        self.lanes[lane].metrics.append(dict(figures))
        if evaluated := figures_of(figures):
            self._told(lane, int(figures["step"]), evaluated)

    def lane_ended(self, lane: int, end: LaneEnd) -> None:
        """How it ended; stopped at a rung is no error."""
        ended = self.lanes[lane]
        ended.state, ended.reason = end.state, end.reason if end.state == "failed" and end.reason else ""
        if end.state == "finished" and (self._best < 0 or self._rank(lane) < self._rank(self._best)):
            if self._best >= 0:
                self.lanes[self._best].checkpoints = []
            kept = {one.step: one for one in (end.best, end.last) if one is not None}
            self._best, ended.checkpoints = lane, list(kept.values())

    def _rank(self, lane: int) -> tuple[tuple[bool, float], int]:
        values = [line[self._goal.metric] for line in self.lanes[lane].metrics if self._goal.metric in line]
        return min(map(self._goal.rank, values), default=self._goal.rank(None)), lane


def run_pack(job: PackJob, datasets: Datasets, scale: Scale, goal: Goal, told: Told) -> list[Lane]:
    """Train a pack in this process; what became of its lanes, in their order."""
    lanes = _Lanes(len(job.recipes), goal, told)
    with closing(blocks_here(job.recipes[0], job.plan, datasets, first_step=0, display=Silence())) as blocks:
        train_pack(job, blocks, world=world_here(scale), listener=lanes)
    return lanes.lanes


def record_pack(sweep: Sweep, trials: Sequence[Trial], job: PackJob, lanes: Sequence[Lane]) -> None:
    """Write what the solo runs would have written, and end the trials."""

    def write(one: tuple[Trial, Recipe, Lane]) -> None:
        trial, recipe, lane = one
        run = sweep.directory.trial_run(trial)
        run.write_json("recipe.json", recipe_to_json(recipe))
        run.write_json("plan.json", asdict(job.plan))
        run.write_metrics(lane.metrics)
        for checkpoint in lane.checkpoints:
            checkpoint.save(run)
        if lane.checkpoints:
            progress = Progress.of(lane.checkpoints[-1].state, World.of(torch.device("cpu")))
            run.write_json("result.json", progress.result(job.plan))

    together = list(zip(trials, job.recipes, lanes, strict=True))
    each(write, together)
    # The one with checkpoints first: best/ is then written once.
    for trial, _, lane in sorted(together, key=lambda one: (not one[2].checkpoints, one[0].number)):
        sweep.end(trial.number, lane.state, error=lane.reason, metrics=lane.metrics)
