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
from blitz.training.display import Silence
from blitz.training.loop import Checkpoints
from blitz.training.open_run import finished_result
from blitz.training.packed import Rungs
from blitz.training.run_directory import RunDirectory
from blitz.training.sweep_directory import Trial
from blitz.training.trial import Figures, GoesOn, TrialJob, figures_of


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
            early = job is not None and sweep.trials[trial.number].step < job.plan.total_steps
            sweep.end(trial.number, "stopped" if early else "finished")


class _Asha:
    """What tells a trial whether to go on, and the sweep how it does.

    The rungs of packs, at which each trial goes on that is among the best of those that came before it.
    """

    def __init__(self, sweep: Sweep) -> None:
        self._sweep, space = sweep, sweep.plan.space
        self.stopped: set[int] = set()
        self._evaluations: Counter[int] = Counter()
        # In evaluations rather than steps: trials may differ in what a step is.
        self._rungs = Rungs(
            sweep.plan.metric,
            higher_is_better=sweep.plan.higher_is_better,
            grace_steps=space.grace_evaluations,
            reduction_factor=space.reduction,
        )
        self._seen: dict[int, list[float]] = {}
        for trial in sweep.trials.values():
            if trial.ended:
                self.replay(trial, trial.step)

    def of(self, trial: Trial) -> GoesOn:
        """What a trial is to ask."""
        return partial(self._measured, trial.number)

    def _measured(self, number: int, step: int, figures: Figures) -> bool:
        value = self._sweep.measured(number, step, figures)
        self._evaluations[number] += 1
        if self._sweep.plan.scheduler == "asha" and not self._goes_on(self._evaluations[number], value):
            self.stopped.add(number)
        return number not in self.stopped

    def _goes_on(self, evaluation: int, value: float) -> bool:
        rung = next(step for step in self._rungs.steps() if step >= evaluation)
        if rung != evaluation:
            return True
        seen = self._seen.setdefault(rung, [])
        seen.append(value)
        return len(seen) - 1 in self._rungs.kept(seen)

    def replay(self, trial: Trial, step: int) -> bool:
        """Count what a trial did up to a step before this process began; whether it goes on."""
        for line in self._sweep.directory.trial_run(trial).metrics():
            if (figures := figures_of(line)) and line["step"] <= step:
                self._measured(trial.number, line["step"], figures)
        return trial.number not in self.stopped
