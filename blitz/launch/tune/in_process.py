"""The trials of a sweep one after another in this process."""

from collections import Counter
from dataclasses import asdict
from functools import partial

from blitz.launch.in_process import run_in_process
from blitz.launch.job import Datasets
from blitz.launch.scale import Scale
from blitz.launch.tune.sweep import Sweep
from blitz.launch.tune.trial_data import TrialData
from blitz.recipe import Recipe
from blitz.recipes import recipe_to_json
from blitz.training.loop import Checkpoints
from blitz.training.open_run import finished_result
from blitz.training.run_directory import RunDirectory
from blitz.training.rungs import Rungs, rung_evaluations
from blitz.training.sweep_directory import Trial
from blitz.training.trial import Figures, GoesOn, TrialJob, figures_of

_MOST_EVALUATIONS = 1 << 30


class Silence:
    """A display that shows nothing: the sweep's own says how far its trials are."""

    def step(self, number: int) -> None: ...
    def loss(self, value: float) -> None: ...
    def line(self, text: str) -> None: ...


def trial_job(recipe: Recipe, datasets: Datasets, run: RunDirectory, goes_on: GoesOn) -> TrialJob | None:
    """The run of a trial, from its newest checkpoint on; None where it has come to its end."""
    plan = recipe.plan(len(datasets["train"]), len(datasets["val"]))
    if finished_result(run, plan) is not None:
        return None
    run.write_json("recipe.json", recipe_to_json(recipe))
    run.write_json("plan.json", asdict(plan))
    return TrialJob(recipe, plan, run, Checkpoints(keep=1), goes_on=goes_on)


def one_after_another(sweep: Sweep, data: TrialData, scale: Scale) -> None:
    """Train every trial that is left, from its newest checkpoint on."""
    asha = _Asha(sweep)
    while (trial := sweep.next()) is not None:
        with sweep.failing(trial):
            recipe, datasets = data.of(trial.settings)
            run = sweep.directory.trial_run(trial)
            job = trial_job(recipe, datasets, run, asha.of(trial))
            if job is not None and asha.replay(trial, job.first_step()):
                run_in_process(job, datasets, scale, display=Silence())
            sweep.end(trial.number, "stopped" if trial.number in asha.stopped else "finished")


class _Asha:
    """What tells a trial whether to go on, and the sweep how it does."""

    def __init__(self, sweep: Sweep) -> None:
        self._sweep, space = sweep, sweep.plan.space
        self.stopped: set[int] = set()
        self._evaluations: Counter[int] = Counter()
        rungs = rung_evaluations(grace=space.grace_evaluations, reduction=space.reduction, total=_MOST_EVALUATIONS)
        self._rungs = Rungs(
            rungs if sweep.plan.scheduler == "asha" else [],
            reduction=space.reduction,
            higher_is_better=sweep.plan.higher_is_better,
        )
        for trial in sweep.trials.values():
            if trial.ended:
                self.replay(trial, trial.step)

    def of(self, trial: Trial) -> GoesOn:
        """What a trial is to ask."""
        return partial(self._measured, trial.number)

    def _measured(self, number: int, step: int, figures: Figures) -> bool:
        value = self._sweep.measured(number, step, figures)
        self._evaluations[number] += 1
        if not self._rungs.goes_on(self._evaluations[number], value):
            self.stopped.add(number)
        return number not in self.stopped

    def replay(self, trial: Trial, step: int) -> bool:
        """Count what a trial did up to a step before this process began; whether it goes on."""
        for line in self._sweep.directory.trial_run(trial).metrics():
            if (figures := figures_of(line)) and line["step"] <= step:
                self._measured(trial.number, line["step"], figures)
        return trial.number not in self.stopped
