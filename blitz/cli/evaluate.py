"""Evaluate a checkpoint of a run: loss and metrics; for classes also each one's accuracy and the confusion matrix.

    blitz evaluate RUN [flags]

RUN is the run directory that blitz train printed, a path or a URI; a name alone is looked for in runs/. The metrics are
also written to evaluations/<split>-<step>.json in the run, and those of classes to CSVs beside it; a recipe that draws
leaves its picture in pictures/. With --explain it shows which columns of a table the predictions depend on.
"""

from typing import Any

from blitz.api.evaluate_run import EvaluateSettings, evaluate, sums_of
from blitz.cli.stored_run import parse_for_run
from blitz.errors import require
from blitz.outputs.class_tables import accuracies, confusion
from blitz.outputs.explained import explained
from blitz.outputs.metrics import Classification, format_metric
from blitz.recipe import Recipe
from blitz.training.evaluation import ResultNotWritten
from blitz.visible import visible

PROG = "blitz evaluate"


def main(words: list[str]) -> None:
    """The command `evaluate`."""
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


def _print(result: dict[str, Any], recipe: Recipe) -> None:
    metrics = recipe.metrics()
    explanation = result.get("explanation")
    print(f"step {result['step']}, {result['sums']['rows']} rows of {result['split']}")
    for name, value in result["figures"].items():
        if not (isinstance(metrics, Classification) and name.startswith("accuracy/")):
            low_high = result.get("intervals", {}).get(name)
            shown = f"   95 % interval {format_metric(low_high[0])} to {format_metric(low_high[1])}" if low_high else ""
            print(f"{visible(name):24} {format_metric(value)}{shown}")
    if isinstance(metrics, Classification):
        sums = sums_of(result)
        print(f"\n{accuracies(metrics.total(sums), metrics.by_class(sums))}")
        if "confusion" in sums:
            print(f"\n{confusion(metrics.classes, result['sums']['confusion'])}")
        if at := result.get("threshold"):
            name = visible(at["class"])
            print(f"\npredicting {name} from a probability of {at['probability']:.4f}, chosen on the validation rows:")
            print(confusion(metrics.classes, at["confusion"]))
    if explanation is not None:
        print(f"\n{explained(explanation)}")
