"""Successive halving that begins with what the trials before have come to."""

from pathlib import Path
from typing import Any

import pytest
from ray.tune.experiment import Trial as RaysTrial
from ray.tune.schedulers import TrialScheduler

from blitz.launch.tune.asha import Halving
from blitz.launch.tune.ray_trials import Asha
from blitz.launch.tune.search import search_of
from blitz.launch.tune.sweep import Sweep
from blitz.launch.tune.sweep_plan import SweepPlan, open_sweep
from blitz.recipes.parabola import Parabola
from blitz.runs.directory import RunDirectory
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


@pytest.mark.parametrize(("figure", "goes_on"), [(0.05, True), (0.3, False)])
def test_a_trial_is_measured_against_those_of_the_time_before(sweep: Sweep, figure: float, goes_on: bool) -> None:
    assert sweep.plan.space.grace_evaluations == 1
    halving = Halving.of(sweep)
    assert halving.goes_on(2, figure) == goes_on
    assert halving.has_stopped(2) == (not goes_on)

    scheduler, trial = Asha(sweep), RaysTrial("new", stub=True)
    controller: Any = None
    assert scheduler.set_search_properties("figure", sweep.goal.mode)
    scheduler.on_trial_add(controller, trial)
    action = scheduler.on_trial_result(controller, trial, {"evaluation": 1, "figure": figure})
    assert action == (TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP)
