"""A sweep from its plan to its best trial: here is decided where its trials happen."""

import hashlib
import json
import shlex
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from blitz.errors import UserError
from blitz.launch.launch import place_of
from blitz.launch.scale import Scale
from blitz.launch.tune.board import Lines, board
from blitz.launch.tune.in_process import one_after_another
from blitz.launch.tune.pictures import draw_pictures
from blitz.launch.tune.sweep import Sweep, SweepPlan, open_sweep
from blitz.launch.tune.trial_data import TrialData
from blitz.recipe import Recipe
from blitz.recipes import flags_of
from blitz.training.open_run import stored_recipe
from blitz.training.run_directory import RunDirectory
from blitz.training.sweep_directory import Trial

Packed = Literal["auto", "no"] | int


@dataclass(frozen=True)
class SweepResult:
    """What a sweep came to."""

    directory: RunDirectory
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


def default_name(plan: SweepPlan) -> str:
    """`<space>-<hash>`, where the hash is of all but the number of trials: more of them extend the same sweep."""
    asked = {name: value for name, value in plan.to_json().items() if name != "num_trials"}
    return f"{plan.space_name}-{hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:6]}"


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
    search = plan.check()
    with place_of(scale):
        data = TrialData(plan.recipe)
        opened = open_sweep(plan, directory)
        with opened.run.locked():
            lines = Lines()
            sweep = Sweep(plan, opened, search, lines)
            with board(sweep, lines):
                try:
                    _run(sweep, data, scale, packed=packed, max_concurrent=max_concurrent)
                finally:
                    with suppress(UserError):
                        sweep.write_table()
            best, trials = sweep.finish(), sorted(sweep.trials.values(), key=lambda trial: trial.number)
            return SweepResult(directory, trials, best, draw_pictures(plan, opened, trials))


def _run(sweep: Sweep, data: TrialData, scale: Scale, *, packed: Packed, max_concurrent: int | None) -> None:
    one_after_another(sweep, data, scale)
