"""A sweep from its plan to its best trial: here is decided where its trials happen."""

import shlex
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from blitz.errors import UserError, require
from blitz.launch.launch import place_of
from blitz.launch.local.in_process import world_here
from blitz.launch.scale import Scale
from blitz.launch.tune.figures import draw_pictures
from blitz.launch.tune.live_table import Lines, board
from blitz.launch.tune.search import search_of
from blitz.launch.tune.sweep import Sweep
from blitz.launch.tune.sweep_plan import SweepPlan, open_sweep
from blitz.launch.tune.trial_data import TrialData
from blitz.launch.tune.trials import in_packs, most_lanes, one_after_another
from blitz.recipe import Recipe
from blitz.runs.directory import RunDirectory
from blitz.runs.open import stored_recipe
from blitz.runs.sweep_directory import Goal, Trial
from blitz.settings import flags_of
from blitz.training.packed import why_not_packable

Packed = Literal["auto", "no"] | int


@dataclass(frozen=True)
class SweepResult:
    """What a sweep came to."""

    directory: RunDirectory
    goal: Goal
    trials: list[Trial]
    best: Trial | None
    pictures: list[str]

    @property
    def best_recipe(self) -> Recipe:
        """The best trial's, complete."""
        return stored_recipe(RunDirectory.of(self.directory.uri, "best"))

    @property
    def command(self) -> str:
        """What trains the best trial once more."""
        recipe = self.best_recipe
        return f"python -m jobs.train {recipe.name} {shlex.join(flags_of(recipe))}"


def run_sweep(
    plan: SweepPlan,
    directory: RunDirectory,
    scale: Scale,
    *,
    packed: Packed = "auto",
    max_concurrent: int | None = None,
) -> SweepResult:
    """Run what is left of a sweep, or all of it.

    Raises:
        UserError: if it can never start, before anything is started.
    """
    plan.check()
    with place_of(scale):
        data = TrialData(plan.recipe)
        goal = plan.space.goal(data.fitted)
        if isinstance(packed, int):
            reason = _why_not_packed(data, scale, packed)
            require(reason is None, f"--packed {packed}: {reason}; use auto or no")
        search = search_of(plan.search, plan.space, seed=plan.seed, mode=goal.mode)
        opened = open_sweep(plan, goal, directory)
        with opened.run.locked():
            sweep = Sweep(plan, goal, opened, search, Lines())
            try:
                with board(sweep):
                    _run(sweep, data, scale, packed=packed, max_concurrent=max_concurrent)
            finally:
                with suppress(OSError, UserError):
                    sweep.write_table()
            best, trials = sweep.finish(), [trial for _, trial in sorted(sweep.trials.items())]
            return SweepResult(directory, goal, trials, best, draw_pictures(sweep))


def _run(sweep: Sweep, data: TrialData, scale: Scale, *, packed: Packed, max_concurrent: int | None) -> None:
    if scale.in_process:
        if packed == "no":
            one_after_another(sweep, data, scale)
        else:
            in_packs(sweep, data, scale, most=most_lanes(sweep, data.fitted, packed))
        return
    # Here, because a sweep in this process has no use for it.
    from blitz.launch.tune.ray_trials import packs_on_ray, tune_on_ray

    reason = _why_not_packed(data, scale, packed)
    if reason is None:
        packs_on_ray(sweep, data, scale, packed=packed, max_concurrent=max_concurrent)
    else:
        if packed != "no":
            sweep.display.line(f"not packed: {reason}")
        tune_on_ray(sweep, data, scale, max_concurrent=max_concurrent)


def _why_not_packed(data: TrialData, scale: Scale, packed: Packed) -> str | None:
    if packed == "no":
        return "--packed no"
    if isinstance(scale.num_workers, int) and scale.num_workers > 0:
        return "with --scale.num-workers each trial has workers of its own"
    return why_not_packable(data.fitted, data.datasets["train"], world=world_here(scale))
