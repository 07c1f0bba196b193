"""Successive halving that takes earlier trials into account."""

from pathlib import Path

import pytest

from blitz.launch.tune.asha import AsyncHalving
from blitz.launch.tune.search import search_of
from blitz.launch.tune.sweep import Sweep
from blitz.launch.tune.sweep_plan import SweepPlan, open_sweep
from blitz.recipes.parabola import Parabola
from blitz.run_files.directory import RunDirectory
from blitz.training.display import Silence
from tune_spaces.optimizers import SPACE


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    """Of two trials that have ended, at 0.1 and 0.2."""
    plan = SweepPlan("optimizers", SPACE, Parabola(), "random", "asha", seed=0, num_trials=4)
    goal = SPACE.goal(plan.recipe)
    search = search_of("random", SPACE, seed=0, mode=goal.mode)
    directory = open_sweep(plan, goal, RunDirectory.of(str(tmp_path)))
    begun = Sweep(plan, goal, directory, search, Silence())
    for value in (0.1, 0.2):
        trial = begun.next()
        assert trial is not None
        directory.trial_run(trial).write_metrics([{"step": 32, "val/loss": value, goal.metric: value}])
        begun.end(trial.number, "stopped")
    return Sweep(plan, goal, directory, search, Silence())


@pytest.mark.parametrize(("value", "continues"), [(0.05, True), (0.3, False)])
def test_a_trial_is_compared_with_those_that_ended_before_the_sweep_was_resumed(
    sweep: Sweep, value: float, continues: bool
) -> None:
    assert sweep.plan.space.grace_evaluations == 1
    halving = AsyncHalving.of(sweep)
    assert halving.should_continue(2, value) == continues
    assert halving.has_stopped(2) == (not continues)
