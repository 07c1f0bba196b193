"""One trial of a sweep, wherever it runs."""

from collections.abc import Callable

from blitz.data.plan import Datasets
from blitz.project import Code
from blitz.recipe import Recipe
from blitz.run_files.directory import RunDirectory
from blitz.run_files.open import finished_result
from blitz.training.loop import Checkpoints
from blitz.training.prepared import prepared
from blitz.training.trial import ShouldContinue, TrialJob


def train_trial(
    recipe: Recipe,
    datasets: Datasets,
    run: RunDirectory,
    launch: Callable[[TrialJob], None],
    *,
    code: Code | None = None,
    should_continue: ShouldContinue,
    was_stopped: bool = False,
) -> bool:
    """Train a trial from its newest checkpoint on; whether it has reached the end of its plan.

    Args:
        recipe: Fitted.
        datasets: Its rows.
        run: The trial's directory.
        launch: Runs the job.
        code: The recipe's, where it cannot be looked up here.
        should_continue: Asked after each evaluation.
        was_stopped: Whether the scheduler stopped the trial before the sweep was resumed.
    """
    plan = recipe.plan(len(datasets["train"]), len(datasets["val"]))
    if finished_result(run, plan, patience=recipe.patience) is not None:
        return True
    if was_stopped:
        return False
    # Only now: the weights that it is initialised from may be gone once it is finished.
    trial = prepared(recipe, datasets, code=code)
    trial.begin(run)
    launch(TrialJob(trial.recipe, trial.plan, run, Checkpoints(keep=1), should_continue=should_continue))
    return finished_result(run, trial.plan, patience=recipe.patience) is not None
