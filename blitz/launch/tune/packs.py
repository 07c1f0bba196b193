"""Packs of a sweep: trials grouped, trained as one stacked model, and recorded as if each had run by itself."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from blitz.data.plan import Datasets
from blitz.errors import require
from blitz.launch.local.in_process import blocks_here, world_here
from blitz.launch.scale import Scale
from blitz.launch.tune.pack_checkpoint import PackCheckpoint
from blitz.launch.tune.sweep import Sweep
from blitz.launch.tune.trial_data import TrialData
from blitz.project import Code
from blitz.recipe import Recipe
from blitz.recipes import recipe_to_json
from blitz.run_files.code import write_sources
from blitz.run_files.sweep_directory import Goal, Trial, TrialState, each
from blitz.training.checkpoint import Checkpoint
from blitz.training.display import Silence
from blitz.training.packed import LaneEnd, PackJob, PackState, common_part, train_pack
from blitz.training.progress import Progress
from blitz.training.trial import evaluation_metrics
from blitz.training.world import World

_MAX_LANES = 256
_MAX_LANES_WITH_OPTUNA = 10
"""As many trials as Optuna draws at random at first; it learns only from finished trials."""
_PACK_BYTES = 2 << 30
_BYTES_A_PARAMETER = 40
"""Weights, gradients, two optimizer states, and a copy of all of it at the best evaluation, in float32."""

OnEvaluation = Callable[[int, int, dict[str, float]], object]
"""Called with the lane, the step and the metrics of each evaluation."""


def max_lanes(sweep: Sweep, recipe: Recipe, packed: int | str) -> int:
    """How many trials make a pack: `packed`, or for auto as many as 2 GiB hold, capped under Optuna."""
    if isinstance(packed, int):
        return packed
    parameters = sum(one.numel() for one in recipe.build_model().parameters())
    require(parameters > 0, f"the model of recipe {recipe.name} has no parameters")
    cap = _MAX_LANES_WITH_OPTUNA if sweep.plan.search == "optuna" else _MAX_LANES
    return max(1, min(cap, _PACK_BYTES // (_BYTES_A_PARAMETER * parameters)))


def group_into_packs(sweep: Sweep, data: TrialData, trials: list[Trial]) -> Iterator[list[Trial]]:
    """Groups of trials that can share a stack."""
    groups: list[tuple[Recipe, list[Trial]]] = []
    for trial in trials:
        with sweep.recording_failure(trial):
            common = common_part(data.of(trial.settings)[0])
            members = next((members for other, members in groups if other == common), None)
            if members is None:
                groups.append((common, [trial]))
            else:
                members.append(trial)
    yield from (members for _, members in groups)


def pack_job(sweep: Sweep, recipes: tuple[Recipe, ...], datasets: Datasets) -> PackJob:
    """The job of a pack, with the sweep's rungs if its scheduler is asha."""
    plan = recipes[0].plan(len(datasets["train"]), len(datasets["val"]))
    rungs = sweep.plan.rungs(sweep.goal, evaluate_every_steps=plan.evaluate_every_steps)
    return PackJob(recipes, plan, rungs if sweep.plan.scheduler == "asha" else None)


@dataclass
class Lane:
    """The outcome of a trial in a pack."""

    state: TrialState = "running"
    reason: str = ""
    metrics: list[dict[str, Any]] = field(default_factory=list)
    """The lines of its metrics.jsonl."""
    checkpoints: list[Checkpoint] = field(default_factory=list)
    """Those of the best evaluation and of the end; for the pack's best lane only."""


def run_pack(
    job: PackJob, datasets: Datasets, scale: Scale, goal: Goal, on_evaluation: OnEvaluation, checkpoint: PackCheckpoint
) -> list[Lane]:
    """Train a pack in this process, from its checkpoint on if it has one; the outcome of each lane, in order."""
    outcomes = _Outcomes(len(job.recipes), goal, on_evaluation)
    resumed, first_step = checkpoint.load(), 0
    if resumed is not None:
        outcomes.restore(resumed["outcomes"])
        first_step = resumed["pack"]["steps"]

    def evaluated(state: Callable[[], PackState]) -> None:
        checkpoint.evaluated(lambda: {"pack": state(), "outcomes": outcomes.state()})

    with closing(blocks_here(job.recipes[0], job.plan, datasets, first_step=first_step, display=Silence())) as blocks:
        train_pack(
            job,
            blocks,
            world=world_here(scale),
            listener=outcomes,
            resumed=resumed and resumed["pack"],
            evaluated=evaluated,
        )
    return outcomes.lanes


class _Outcomes:
    """Collects the outcome of each lane; keeps the checkpoints of the best finished one."""

    def __init__(self, count: int, goal: Goal, on_evaluation: OnEvaluation) -> None:
        self.lanes = [Lane() for _ in range(count)]
        self._goal, self._on_evaluation, self._best = goal, on_evaluation, -1

    def state(self) -> dict[str, Any]:
        """The outcomes so far."""
        lanes = [{**vars(one), "checkpoints": [vars(each) for each in one.checkpoints]} for one in self.lanes]
        return {"lanes": lanes, "best": self._best}

    def restore(self, state: dict[str, Any]) -> None:
        """Take what `state` gave, and report its evaluations again."""
        self._best = state["best"]
        for number, stored in enumerate(state["lanes"]):
            self.lanes[number] = Lane(**{**stored, "checkpoints": [Checkpoint(**one) for one in stored["checkpoints"]]})
            for values in stored["metrics"]:
                if evaluated := evaluation_metrics(values):
                    self._on_evaluation(number, int(values["step"]), evaluated)

    def step(self, number: int, lanes: int) -> None:
        """Nothing to do: evaluations show the progress."""

    def line(self, lane: int, values: Mapping[str, float]) -> None:
        """Keep a line of metrics.jsonl."""
        self.lanes[lane].metrics.append(dict(values))
        if evaluated := evaluation_metrics(values):
            self._on_evaluation(lane, int(values["step"]), evaluated)

    def lane_ended(self, lane: int, end: LaneEnd) -> None:
        """Keep how it ended; being stopped at a rung is no error."""
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


def checkpoint_of(sweep: Sweep, trials: Sequence[Trial], job: PackJob) -> PackCheckpoint:
    """The checkpoint of a pack of these trials."""
    return PackCheckpoint(sweep.directory.run, f"{trials[0].id}-{len(trials)}", job)


def record_pack(sweep: Sweep, trials: Sequence[Trial], job: PackJob, lanes: Sequence[Lane], *, code: Code) -> None:
    """Write the files that solo runs would have written, end the trials, and delete the pack's checkpoint."""

    def write(one: tuple[Trial, Recipe, Lane]) -> None:
        trial, recipe, lane = one
        run = sweep.directory.trial_run(trial)
        write_sources(run, code.sources)
        run.write_json("recipe.json", recipe_to_json(recipe, code))
        run.write_json("plan.json", asdict(job.plan))
        run.write_metrics(lane.metrics)
        for checkpoint in lane.checkpoints:
            checkpoint.save(run)
        if lane.checkpoints:
            progress = Progress.of(lane.checkpoints[-1].state, World.of(torch.device("cpu")))
            run.write_json("result.json", progress.result(job.plan, patience=recipe.patience))

    together = list(zip(trials, job.recipes, lanes, strict=True))
    each(write, together)
    # The lane with checkpoints first, so that best/ is written once.
    for trial, _, lane in sorted(together, key=lambda one: (not one[2].checkpoints, one[0].number)):
        sweep.end(trial.number, lane.state, error=lane.reason, metrics=lane.metrics)
    checkpoint_of(sweep, trials, job).delete()
