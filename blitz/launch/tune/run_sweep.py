"""A sweep from its plan to its best trial, and the choice of how its trials run."""

import shlex
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from blitz.errors import UserError, require
from blitz.extras import require_extra
from blitz.launch.launch import placed
from blitz.launch.local.in_process import world_here
from blitz.launch.placement import Placement
from blitz.launch.tune.figures import draw_pictures
from blitz.launch.tune.live_table import Lines, live_table
from blitz.launch.tune.local_trials import in_packs, one_after_another
from blitz.launch.tune.packs import max_lanes
from blitz.launch.tune.search import search_of
from blitz.launch.tune.sweep import Sweep
from blitz.launch.tune.sweep_plan import SweepPlan, open_sweep
from blitz.launch.tune.trial_data import TrialData
from blitz.recipe import Recipe
from blitz.recipes import reference_of
from blitz.run_files.directory import RunDirectory
from blitz.run_files.open import stored_recipe
from blitz.run_files.sweep_directory import Goal, Trial
from blitz.settings import flags_of
from blitz.training.packed import why_not_packable

Packed = Literal["auto", "no"] | int


@dataclass(frozen=True)
class SweepResult:
    """The outcome of a sweep."""

    directory: RunDirectory
    goal: Goal
    trials: list[Trial]
    best: Trial | None
    pictures: list[str]

    @property
    def best_recipe(self) -> Recipe:
        """The complete recipe of the best trial."""
        return stored_recipe(RunDirectory.of(self.directory.uri, "best"))

    @property
    def command(self) -> str:
        """The command that trains the best trial again."""
        recipe = self.best_recipe
        return f"blitz train {shlex.join([reference_of(type(recipe)), *flags_of(recipe)])}"


def run_sweep(
    plan: SweepPlan,
    directory: RunDirectory,
    placement: Placement,
    *,
    packed: Packed = "auto",
    max_concurrent: int | None = None,
    resume_changed_code: bool = False,
) -> SweepResult:
    """Run a sweep, or what is left of it.

    Raises:
        UserError: if it can never start, before anything is started.
    """
    plan.check()
    # All that a sweep needs by its end: it must not fail there after hours.
    require_extra("sweeps", "optuna", "rich", "matplotlib", what="a sweep")
    with placed(placement):
        data = TrialData(plan.recipe)
        plan = plan.with_initial_weights(data.fitted, directory)
        goal = plan.space.goal(data.fitted, data.class_counts())
        if isinstance(packed, int):
            reason = _why_not_packed(data, placement, packed)
            require(reason is None, f"--packed {packed}: {reason}; use auto or no")
        search = search_of(plan.search, plan.space, seed=plan.seed, mode=goal.mode)
        opened = open_sweep(plan, goal, directory, resume_changed_code=resume_changed_code)
        with opened.run.locked():
            sweep = Sweep(plan, goal, opened, search, Lines())
            try:
                with live_table(sweep):
                    _train_all(sweep, data, placement, packed=packed, max_concurrent=max_concurrent)
            finally:
                with suppress(OSError, UserError):
                    sweep.write_table()
            best, trials = sweep.finish(), [trial for _, trial in sorted(sweep.trials.items())]
            return SweepResult(directory, goal, trials, best, draw_pictures(sweep))


def _train_all(
    sweep: Sweep, data: TrialData, placement: Placement, *, packed: Packed, max_concurrent: int | None
) -> None:
    if placement.in_process:
        if packed == "no":
            one_after_another(sweep, data, placement.scale)
        else:
            in_packs(sweep, data, placement.scale, max_lanes=max_lanes(sweep, data.fitted, packed))
        return
    # Imported here because a sweep in this process does not need Ray's trainers.
    from blitz.launch.tune.ray_packs import packs_on_ray
    from blitz.launch.tune.ray_trials import tune_on_ray

    reason = _why_not_packed(data, placement, packed)
    if reason is None:
        packs_on_ray(sweep, data, placement, packed=packed, max_concurrent=max_concurrent)
    else:
        if packed != "no":
            sweep.display.line(f"not packed: {reason}")
        tune_on_ray(sweep, data, placement, max_concurrent=max_concurrent)


def _why_not_packed(data: TrialData, placement: Placement, packed: Packed) -> str | None:
    scale = placement.scale
    if packed == "no":
        return "--packed no"
    if isinstance(scale.num_workers, int) and scale.num_workers > 0:
        return "with --scale.num-workers each trial has workers of its own"
    return why_not_packable(data.fitted, data.datasets["train"], world=world_here(scale))
