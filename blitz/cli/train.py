"""Train a recipe, in this process or on Ray, or continue a run that was stopped.

    blitz train RECIPE [flags]

The same command again continues a run; `blitz train RECIPE --help` names every flag of a recipe.
"""

import shlex
import sys
from typing import Any

from blitz.api.find_batch_size import find_batch_sizes, size_lines
from blitz.api.find_rate import find_rate, proposal
from blitz.api.train_run import TrainSettings, train_run
from blitz.cli.command_line import parse
from blitz.errors import require
from blitz.outputs.metrics import format_metric
from blitz.recipes import all_recipe_names, find_recipe
from blitz.report.record import read_record
from blitz.report.terminal_summary import summary_lines
from blitz.run_files.directory import RunDirectory
from blitz.visible import visible

PROG = "blitz train"
_MOST_METRICS = 30
"""With more metrics than this, those of single classes are left to blitz evaluate."""


def main(words: list[str]) -> None:
    """The command `train`."""
    if words[:1] in (["-h"], ["--help"]):
        print(f"{__doc__}\nRecipes: {', '.join(all_recipe_names())}")
        return
    settings = read_settings(words, prog=PROG)
    if settings.find_lr:
        found, _ = find_rate(settings)
        print("\n".join(proposal(found)))
    if settings.find_batch_size:
        print("\n".join(size_lines(find_batch_sizes(settings))))
    if not (settings.find_lr or settings.find_batch_size):
        train(settings, command=shlex.join(["blitz", "train", *words]))


def read_settings(words: list[str], *, prog: str) -> TrainSettings:
    """Parse the words of a command line; the first names a recipe."""
    require(
        bool(words) and not words[0].startswith("-"),
        f"name a recipe first: {prog} RECIPE [flags], where RECIPE is one of {', '.join(all_recipe_names())}",
    )
    recipe_class, flags = find_recipe(words[0]), words[1:]
    default = TrainSettings(recipe_class())
    description = (recipe_class.__doc__ or "").strip()
    return parse(default, flags, prog=f"{prog} {words[0]}", description=description)


def train(settings: TrainSettings, *, command: str = "") -> dict[str, Any]:
    """Train or resume, and print a summary; returns the content of result.json. `command` is the command line.

    Raises:
        UserError: if it can never start, before anything is started.
    """
    trained = train_run(settings, command=command)
    _summarise(trained.run, trained.result, trained.report)
    return trained.result


def _metric_lines(result: dict[str, Any]) -> list[str]:
    """The metrics of the best checkpoint, with those of the last step beside them, and those on the test rows."""
    best, last = result["metrics"], result.get("last_metrics", {})
    lines = _aligned(result, best, last) if best else []
    tested = _shown(result.get("test_metrics", {}))
    if tested:
        lines.append(f"test rows, step {result['best_checkpoint']}")
    return [*lines, *(f"{visible(name):24} {format_metric(value)}" for name, value in tested.items())]


def _shown(metrics: dict[str, float]) -> dict[str, float]:
    """The metrics, without those of single classes if there are too many."""
    few = len(metrics) <= _MOST_METRICS
    return {name: value for name, value in metrics.items() if few or name.count("/") == 1}


def _aligned(result: dict[str, Any], best: dict[str, float], last: dict[str, float]) -> list[str]:
    names = _shown(best)
    if result["best_checkpoint"] == result["steps"]:
        heads, columns = ["best and last step"], [best]
    else:
        heads, columns = [f"best, step {result['best_checkpoint']}", f"last, step {result['steps']}"], [best, last]
    rows = [[format_metric(each[name]) if name in each else "" for each in columns] for name in names]
    labels = ["", *map(visible, names)]
    return [
        f"{label:24} {'  '.join(f'{cell:16}' for cell in cells)}".rstrip()
        for label, cells in zip(labels, [heads, *rows], strict=True)
    ]


def _summarise(directory: RunDirectory, result: dict[str, Any], report: str | None) -> None:
    for line in _metric_lines(result):
        print(line)
    for line in summary_lines(read_record(directory), plain=not (sys.stdout.encoding or "").lower().startswith("utf")):
        print(line)
    if planned := result.get("stopped_before"):
        patience = result.get("patience")
        why = f"no improvement of {result['best_metric']} in {patience} evaluations" if patience else "after_evaluation"
        print(f"{why} ended it at step {result['steps']} of {planned}")
    print(f"{result['steps']} steps, best checkpoint {result['best_checkpoint']}, rows_digest {result['rows_digest']}")
    if report:
        print(f"report: {report}")
    print(f"evaluate it: blitz evaluate {shlex.quote(str(directory))}")
