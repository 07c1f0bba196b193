"""Evaluate a checkpoint of a run: its loss, accuracy, accuracy for each class and confusion matrix.

    python -m jobs.evaluate RUN [flags]

RUN is the run directory that jobs.train printed, a path or a URI; a name alone is looked for in runs/. The figures are
also written to evaluations/<split>-<step>.json in the run.
"""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import tyro

from blitz.data.plan import Plan, Split
from blitz.errors import require
from blitz.launch.launch import launch, place_of
from blitz.launch.scale import Scale
from blitz.metrics import Classification
from blitz.recipe import Recipe
from blitz.training.evaluation import EvaluateJob
from blitz.training.run_directory import RunDirectory
from jobs.command_line import run
from jobs.left_out import list_left_out
from jobs.stored_run import parse_for_run

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
    result = evaluate(directory, settings)
    _print(result, settings.recipe)


def evaluate(directory: RunDirectory, settings: EvaluateSettings) -> dict[str, Any]:
    """Evaluate a run; the content of the evaluation's file.

    Raises:
        UserError: if there is no such checkpoint, or there are no such rows.
    """
    with place_of(settings.scale):
        return _evaluate(directory, settings)


def _evaluate(directory: RunDirectory, settings: EvaluateSettings) -> dict[str, Any]:
    recipe, split = settings.recipe, settings.split
    dataset = recipe.dataset(split)
    list_left_out([dataset], directory)
    rows = min(len(dataset), recipe.max_eval_rows or len(dataset))
    require(rows > 0, f"recipe {recipe.name} has no {split} rows to evaluate on; name other ones with --split")
    plan = Plan.of_evaluation(rows=rows, batch_size=recipe.global_batch_size)
    job = EvaluateJob(recipe, plan, directory, split, directory.checkpoint_step(settings.checkpoint))
    launch(job, {"val": dataset}, settings.scale)
    result = directory.read_json(job.result_file)
    assert result is not None
    return result


def _print(result: dict[str, Any], recipe: Recipe) -> None:
    print(f"step {result['step']}, {result['sums']['rows']} rows of {result['split']}")
    for name, value in result["figures"].items():
        print(f"{name:24} {value:.4f}")
    metrics = recipe.metrics()
    if isinstance(metrics, Classification) and "confusion" in result["sums"]:
        width = max(6, *(len(name) + 1 for name in metrics.classes))
        print(f"\nconfusion matrix: truth down, prediction across\n{'':{width}}", end="")
        print("".join(f"{name:>{width}}" for name in metrics.classes))
        for name, row in zip(metrics.classes, result["sums"]["confusion"], strict=True):
            print(f"{name:{width}}" + "".join(f"{count:>{width}}" for count in row))


if __name__ == "__main__":
    run(main)
