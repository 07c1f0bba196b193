"""Evaluate a checkpoint of a run: its loss and figures; of classes each one's accuracy and the confusion matrix.

    python -m jobs.evaluate RUN [flags]

RUN is the run directory that jobs.train printed, a path or a URI; a name alone is looked for in runs/. The figures are
also written to evaluations/<split>-<step>.json in the run, and those of classes to CSVs beside it; a recipe that draws
leaves its picture in pictures/.
"""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import torch
import tyro

from blitz.api.bad_row_summary import list_left_out
from blitz.cli.class_tables import accuracies, accuracies_csv, confusion, confusion_csv
from blitz.cli.stored_run import chosen_checkpoint, parse_for_run
from blitz.data.plan import Plan, Split
from blitz.errors import StorageError, require
from blitz.launch.launch import launch, placed
from blitz.launch.placement import Placement
from blitz.launch.scale import Scale
from blitz.outputs.metrics import Classification, Sums, shown_figure
from blitz.recipe import Recipe
from blitz.runs.directory import RunDirectory
from blitz.training.best_plot import draw
from blitz.training.evaluation import EvaluateJob, ResultNotWritten
from blitz.visible import visible

PROG = "python -m jobs.evaluate"


@dataclass(frozen=True)
class EvaluateSettings:
    """What `jobs.evaluate` is told. The recipe is the run's; its data may lie elsewhere by now."""

    recipe: Annotated[Recipe, tyro.conf.arg(name="")]
    checkpoint: Literal["best", "last"] | int = "best"
    """Which checkpoint: the best, the newest, or that of a step."""
    split: Split = "val"
    """Which rows."""
    scale: Scale = field(default_factory=Scale)


def main(words: list[str]) -> None:
    """Evaluate as the command line says."""
    if words[:1] in (["-h"], ["--help"]):
        print(f"{__doc__}\nFlags: those of `{PROG} RUN --help`, which depend on the run's recipe.")
        return
    require(bool(words) and not words[0].startswith("-"), f"name a run first: {PROG} RUN [flags]")
    directory, settings = parse_for_run(EvaluateSettings, words, prog=PROG, description=__doc__ or "")
    try:
        result = evaluate(directory, settings)
    except ResultNotWritten as error:
        _print(error.result, settings.recipe)
        raise
    _print(result, settings.recipe)


def evaluate(directory: RunDirectory, settings: EvaluateSettings) -> dict[str, Any]:
    """Evaluate a run; the content of the evaluation's file.

    Raises:
        UserError: if there is no such checkpoint, or there are no such rows.
    """
    with placed(Placement(settings.scale)):
        return _evaluate(directory, settings)


def _evaluate(directory: RunDirectory, settings: EvaluateSettings) -> dict[str, Any]:
    recipe, split = settings.recipe, settings.split
    require(
        split in recipe.splits,
        f"--split {split}: recipe {recipe.name} has no such rows; it has {', '.join(recipe.splits)}",
    )
    dataset = recipe.dataset(split)
    unwritten: StorageError | None = None
    try:
        list_left_out([dataset], directory)
    except StorageError as error:
        unwritten = error
    rows = min(len(dataset), recipe.max_eval_rows or len(dataset))
    require(rows > 0, f"recipe {recipe.name} has no {split} rows to evaluate on; name other ones with --split")
    plan = Plan.of_evaluation(rows=rows, batch_size=recipe.global_batch_size)
    job = EvaluateJob(recipe, plan, directory, split, chosen_checkpoint(directory, settings.checkpoint))
    launch(job, {"val": dataset}, Placement(settings.scale))
    result = directory.read_json(job.result_file)
    assert result is not None
    try:
        if isinstance(metrics := recipe.metrics(), Classification):
            _classes(directory, job, metrics, result)
        draw(recipe, directory, step=job.step, split=split)
    except StorageError as error:
        unwritten = error
    if unwritten is not None:
        raise ResultNotWritten(str(unwritten), result) from unwritten
    return result


def _classes(directory: RunDirectory, job: EvaluateJob, metrics: Classification, result: dict[str, Any]) -> None:
    """Write what is known of single classes beside the evaluation's file."""
    place, _, _ = job.result_file.rpartition(".")
    directory.write(f"{place}.classes.csv", accuracies_csv(metrics.by_class(_sums(result))))
    if "confusion" in result["sums"]:
        directory.write(f"{place}.confusion.csv", confusion_csv(metrics.classes, result["sums"]["confusion"]))


def _sums(result: dict[str, Any]) -> Sums:
    return {name: torch.tensor(value) for name, value in result["sums"].items()}


def _print(result: dict[str, Any], recipe: Recipe) -> None:
    metrics = recipe.metrics()
    print(f"step {result['step']}, {result['sums']['rows']} rows of {result['split']}")
    for name, value in result["figures"].items():
        if not (isinstance(metrics, Classification) and name.startswith("accuracy/")):
            print(f"{visible(name):24} {shown_figure(value)}")
    if isinstance(metrics, Classification):
        sums = _sums(result)
        print(f"\n{accuracies(metrics.total(sums), metrics.by_class(sums))}")
        if "confusion" in sums:
            print(f"\n{confusion(metrics.classes, result['sums']['confusion'])}")
