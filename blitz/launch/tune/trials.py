"""The trials of a sweep in this process: packed where they can be, else one after another."""

from collections.abc import Iterator
from dataclasses import asdict
from functools import partial

from blitz.data.plan import Datasets
from blitz.errors import require
from blitz.launch.local.in_process import run_in_process, world_here
from blitz.launch.scale import Scale
from blitz.launch.tune.asha import Halving
from blitz.launch.tune.packs import record_pack, run_pack
from blitz.launch.tune.sweep import Sweep
from blitz.launch.tune.sweep_plan import rungs_of
from blitz.launch.tune.trial_data import TrialData
from blitz.recipe import Recipe
from blitz.recipes import recipe_to_json
from blitz.runs.directory import RunDirectory
from blitz.runs.open import finished_result
from blitz.runs.sweep_directory import NotMeasured, Trial, one_line
from blitz.training.display import Silence
from blitz.training.initial_weights import take_over
from blitz.training.loop import Checkpoints
from blitz.training.packed import PackJob, common_part, why_not_packable
from blitz.training.trial import Figures, GoesOn, TrialJob


def trial_job(recipe: Recipe, datasets: Datasets, run: RunDirectory, goes_on: GoesOn) -> TrialJob | None:
    """The run of a trial, from its newest checkpoint on; None where it has come to its end."""
    plan = recipe.plan(len(datasets["train"]), len(datasets["val"]))
    if finished_result(run, plan) is not None:
        return None
    recipe, initial = take_over(recipe)
    if initial is not None and not run.checkpoint_steps():
        initial.write(run)
    run.write_json("recipe.json", recipe_to_json(recipe))
    run.write_json("plan.json", asdict(plan))
    return TrialJob(recipe, plan, run, Checkpoints(keep=1), goes_on=goes_on)


def one_after_another(sweep: Sweep, data: TrialData, scale: Scale) -> None:
    """Train every trial that is left, from its newest checkpoint on."""
    alone = Alone(sweep, data, scale)
    while (trial := sweep.next()) is not None:
        alone.train(trial)


def in_packs(sweep: Sweep, data: TrialData, scale: Scale, *, most: int) -> None:
    """Train the trials that are left in packs of at most so many; what cannot be packed, one after another."""
    alone, said = Alone(sweep, data, scale), set()
    while trials := sweep.next_batch(most):
        for pack in packs_of(sweep, data, trials):
            if (reason := _why_not_trained(sweep, data, scale, pack)) is not None:
                if reason not in said:
                    sweep.display.line(f"not packed: {reason}")
                    said.add(reason)
                for trial in pack:
                    alone.train(trial)


def _why_not_trained(sweep: Sweep, data: TrialData, scale: Scale, pack: list[Trial]) -> str | None:
    """Train a pack, or say why it is not to be one."""
    if len(pack) == 1:
        return "a trial that shares its model with no other"
    numbers = [trial.number for trial in pack]

    def told(lane: int, step: int, figures: Figures) -> None:
        sweep.measured(numbers[lane], step, figures)

    try:
        recipes = tuple(data.of(trial.settings)[0] for trial in pack)
        datasets = data.datasets
        if reason := why_not_packable(recipes[0], datasets["train"], world=world_here(scale)):
            return reason
        job = pack_job(sweep, recipes, datasets)
        lanes = run_pack(job, datasets, scale, sweep.goal, told)
    except NotMeasured:
        raise
    except Exception as error:
        # By itself each trial tells whether it is to blame.
        return one_line(error)
    record_pack(sweep, pack, job, lanes)
    return None


def packs_of(sweep: Sweep, data: TrialData, trials: list[Trial]) -> Iterator[list[Trial]]:
    """Trials in groups that can share a stack."""
    groups: list[tuple[Recipe, list[Trial]]] = []
    for trial in trials:
        with sweep.failing(trial):
            common = common_part(data.of(trial.settings)[0])
            members = next((members for other, members in groups if other == common), None)
            if members is None:
                groups.append((common, [trial]))
            else:
                members.append(trial)
    yield from (members for _, members in groups)


def pack_job(sweep: Sweep, recipes: tuple[Recipe, ...], datasets: Datasets) -> PackJob:
    """The recipes of trials as one."""
    plan = recipes[0].plan(len(datasets["train"]), len(datasets["val"]))
    halving = rungs_of(sweep.plan, sweep.goal, evaluate_every_steps=plan.evaluate_every_steps)
    return PackJob(recipes, plan, halving if sweep.plan.scheduler == "asha" else None)


class Alone:
    """Trains trials by themselves."""

    def __init__(self, sweep: Sweep, data: TrialData, scale: Scale) -> None:
        self._sweep, self._data, self._scale = sweep, data, scale
        self._halving = Halving.of(sweep) if sweep.plan.scheduler == "asha" else None

    def train(self, trial: Trial) -> None:
        """Train a trial from its newest checkpoint on, and note its end."""
        sweep = self._sweep
        with sweep.failing(trial):
            recipe, datasets = self._data.of(trial.settings)
            job = trial_job(recipe, datasets, sweep.directory.trial_run(trial), partial(self._goes_on, trial.number))
            if job is not None and not (self._halving and self._halving.has_stopped(trial.number)):
                run_in_process(job, datasets, self._scale, display=Silence())
            early = job is not None and finished_result(job.run, job.plan) is None
            sweep.end(trial.number, "stopped" if early else "finished")

    def _goes_on(self, number: int, step: int, figures: Figures) -> bool:
        value = self._sweep.measured(number, step, figures)
        return self._halving is None or self._halving.goes_on(number, value)


def most_lanes(sweep: Sweep, recipe: Recipe, asked: int | str) -> int:
    """How many trials make a pack: as many as were asked for, or as some memory takes; few where draws learn."""
    if isinstance(asked, int):
        return asked
    parameters = sum(one.numel() for one in recipe.build_model().parameters())
    require(parameters > 0, f"the model of recipe {recipe.name} has no parameters")
    most = _MOST_DRAWN if sweep.plan.search == "optuna" else _MOST_LANES
    return max(1, min(most, _PACK_BYTES // (_BYTES_A_PARAMETER * parameters)))


_MOST_LANES = 256
_MOST_DRAWN = 10
"""With Optuna, which learns of trials that have ended alone: as many as it draws at random at first."""
_PACK_BYTES = 2 << 30
_BYTES_A_PARAMETER = 40
"""Weights, gradients, two states of the optimizer, and a copy of all of it at the best evaluation, in float32."""
