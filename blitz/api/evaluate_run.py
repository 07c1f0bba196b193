"""Evaluating a checkpoint of a run, for the command line and for Python."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

import torch
import tyro

from blitz.api.bad_row_summary import list_left_out
from blitz.data.csv.tabular import CsvRows
from blitz.data.plan import Plan, Split
from blitz.errors import StorageError, require
from blitz.extras import MissingExtra
from blitz.launch.launch import launch, placed
from blitz.launch.placement import Placement
from blitz.launch.scale import Scale
from blitz.outputs.class_tables import accuracies_csv, confusion_csv
from blitz.outputs.metrics import Classification, Sums
from blitz.recipe import Recipe
from blitz.run_files.checkpoint_files import Which
from blitz.run_files.directory import RunDirectory
from blitz.training.best_plot import draw
from blitz.training.evaluation import EvaluateJob, ResultNotWritten
from blitz.training.explanation import explain


@dataclass(frozen=True)
class EvaluateSettings:
    """The settings of an evaluation. The recipe is the run's; its data may have moved."""

    recipe: Annotated[Recipe, tyro.conf.arg(name="")]
    checkpoint: Which = "best"
    """Which checkpoint: the best, the newest, or that of a step."""
    split: Split = "val"
    """The rows to evaluate on."""
    explain: bool = False
    """Of a table: also what each column contributes, the worst rows, and calibration or prediction intervals; they are
    shown in the report."""
    scale: Scale = field(default_factory=Scale)


def warn(line: str) -> None:
    """Print a line to standard error."""
    print(line, file=sys.stderr)


def evaluate(
    directory: RunDirectory, settings: EvaluateSettings, *, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Evaluate a run; returns the content of the evaluation's file.

    Raises:
        UserError: if there is no such checkpoint, or there are no such rows.
    """
    placement = Placement(settings.scale)
    with placed(placement):
        return evaluate_placed(directory, settings, placement, say=say)


def evaluate_placed(
    directory: RunDirectory, settings: EvaluateSettings, placement: Placement, *, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Like `evaluate`, for a placement that is already checked and connected."""
    recipe, split = settings.recipe, settings.split
    require(
        split in recipe.splits,
        f"--split {split}: recipe {recipe.name} has no such rows; it has {', '.join(recipe.splits)}",
    )
    dataset = recipe.dataset(split)
    unwritten: StorageError | None = None
    try:
        list_left_out([dataset], directory, say=say)
    except StorageError as error:
        unwritten = error
    require(
        not settings.explain or isinstance(dataset, CsvRows),
        f"--explain is for the columns of a table; recipe {recipe.name} has none",
    )
    rows = min(len(dataset), recipe.max_eval_rows or len(dataset))
    require(rows > 0, f"recipe {recipe.name} has no {split} rows to evaluate on; name others with --split")
    plan = Plan.of_evaluation(rows=rows, batch_size=recipe.global_batch_size)
    job = EvaluateJob(recipe, plan, directory, split, directory.checkpoint_step(settings.checkpoint, report=warn))
    launch(job, {"val": dataset}, placement)
    result = directory.read_json(job.result_file)
    assert result is not None
    try:
        if isinstance(metrics := recipe.metrics(), Classification):
            _classes(directory, job, metrics, result)
        draw(recipe, directory, step=job.step, split=split)
        if settings.explain:
            result["explanation"] = explain(recipe, directory, step=job.step, split=split)
    except MissingExtra as missing:
        warn(str(missing))
    except StorageError as error:
        unwritten = error
    if unwritten is not None:
        raise ResultNotWritten(str(unwritten), result) from unwritten
    return result


def _classes(directory: RunDirectory, job: EvaluateJob, metrics: Classification, result: dict[str, Any]) -> None:
    """Write the accuracy of each class and the confusion matrix beside the evaluation's file."""
    stem, _, _ = job.result_file.rpartition(".")
    directory.write(f"{stem}.classes.csv", accuracies_csv(metrics.by_class(sums_of(result))))
    if "confusion" in result["sums"]:
        directory.write(f"{stem}.confusion.csv", confusion_csv(metrics.classes, result["sums"]["confusion"]))


def sums_of(result: dict[str, Any]) -> Sums:
    """The sums that an evaluation's file holds."""
    return {name: torch.tensor(value) for name, value in result["sums"].items()}
