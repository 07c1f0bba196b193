"""One trial of a sweep, wherever it runs."""

from collections.abc import Callable
from dataclasses import asdict

from blitz.launch.job import Datasets
from blitz.recipe import Recipe
from blitz.recipes import recipe_to_json
from blitz.runs.directory import RunDirectory
from blitz.runs.open import finished_result
from blitz.training.initial_weights import resolve_initial_weights
from blitz.training.loop import Checkpoints
from blitz.training.trial import ShouldContinue, TrialJob


def train_trial(
    recipe: Recipe,
    datasets: Datasets,
    run: RunDirectory,
    launch: Callable[[TrialJob], None],
    *,
    should_continue: ShouldContinue,
    was_stopped: bool = False,
) -> bool:
    """Train a trial from its newest checkpoint on; whether it has reached the end of its plan.

    Args:
        recipe: Fitted.
        datasets: Its rows.
        run: The trial's directory.
        launch: Runs the job.
        should_continue: Asked after each evaluation.
        was_stopped: Whether the scheduler stopped the trial before the sweep was resumed.
    """
    plan = recipe.plan(len(datasets["train"]), len(datasets["val"]))
    if finished_result(run, plan) is not None:
        return True
    if was_stopped:
        return False
    recipe, initial = resolve_initial_weights(recipe)
    if initial is not None and not run.checkpoint_steps():
        initial.write(run)
    run.write_json("recipe.json", recipe_to_json(recipe))
    run.write_json("plan.json", asdict(plan))
    launch(TrialJob(recipe, plan, run, Checkpoints(keep=1), should_continue=should_continue))
    return finished_result(run, plan) is not None
