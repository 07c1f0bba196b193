"""Train a recipe, in this process or on Ray, or continue a run that was stopped.

    python -m jobs.train RECIPE [flags]

The same command again continues a run; `python -m jobs.train RECIPE --help` names every flag of a recipe.
"""

import shlex
import sys
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

import tyro

from blitz.errors import require
from blitz.launch.job import Datasets
from blitz.launch.launch import launch, place_of
from blitz.launch.scale import Scale
from blitz.metrics import shown_figure
from blitz.recipe import Recipe
from blitz.recipes import find_recipe, recipe_names, recipe_to_json
from blitz.report.closing import closing_lines
from blitz.report.record import read_record
from blitz.training.initial_weights import take_over
from blitz.training.loop import Checkpoints, TrainJob
from blitz.training.open_run import Resume, finished_result, open_run, require_name
from blitz.training.pictures import draw
from blitz.training.run_directory import RunDirectory
from jobs.command_line import parse, run
from jobs.left_out import list_left_out
from jobs.report import report_at_the_end

PROG = "python -m jobs.train"
_MOST_FIGURES = 30
"""Where there are more, those for single classes are left to jobs.evaluate."""


@dataclass(frozen=True)
class TrainSettings:
    """What `jobs.train` is told: the recipe's fields are flags of their own."""

    recipe: Annotated[Recipe, tyro.conf.arg(name="")]
    run: str | None = None
    """Name of the run. By default the recipe's, with a hash of its settings: the same command finds the same run."""
    storage: str = "runs"
    """Where runs lie: a folder, or a URI such as s3://bucket/runs."""
    resume: Resume = "auto"
    """auto continues the run if there is one, never begins a new one, must refuses to begin one."""
    report: bool = True
    """Write report.html into the run at its end."""
    checkpoint: Checkpoints = field(default_factory=Checkpoints)
    scale: Scale = field(default_factory=Scale)

    def __post_init__(self) -> None:
        require_name(self.run)


def main(words: list[str]) -> None:
    """Train as the command line says."""
    if words[:1] in (["-h"], ["--help"]):
        print(f"{__doc__}\nRecipes: {', '.join(recipe_names())}")
        return
    train(read_settings(words, prog=PROG), command=shlex.join(["python", "-m", "jobs.train", *words]))


def read_settings(words: list[str], *, prog: str) -> TrainSettings:
    """What the words of a command line say, the first of which names a recipe."""
    require(
        bool(words) and not words[0].startswith("-"),
        f"name a recipe first: {prog} RECIPE [flags], where RECIPE is one of {', '.join(recipe_names())}",
    )
    recipe_class, flags = find_recipe(words[0]), words[1:]
    default = TrainSettings(recipe_class())
    description = (recipe_class.__doc__ or "").strip()
    return parse(default, flags, prog=f"{prog} {words[0]}", description=description)


def train(settings: TrainSettings, *, command: str = "") -> dict[str, Any]:
    """Train, or continue, and print how; the content of the run's result.json. `command` is what was typed for it.

    Raises:
        UserError: if it can never start, before anything is started.
    """
    with place_of(settings.scale):
        return _train(settings, command)


def _train(settings: TrainSettings, command: str) -> dict[str, Any]:
    recipe = settings.recipe.fitted()
    datasets: Datasets = {"train": recipe.dataset("train"), "val": recipe.dataset("val")}
    plan = recipe.plan(len(datasets["train"]), len(datasets["val"]))
    recipe, initial = take_over(recipe)
    directory = open_run(recipe, storage=settings.storage, run=settings.run, resume=settings.resume)
    print(f"run: {directory}")
    written: str | None = None
    result = finished_result(directory, plan)
    asked_for = {"recipe.json": recipe_to_json(recipe), "plan.json": asdict(plan)}
    if result is not None:
        for name in asked_for:
            # A damaged one may have been deleted.
            if not directory.exists(name):
                directory.write_json(name, asked_for[name])
        print("It is finished; to train on raise --epochs, to train anew give another --run or --resume never.")
    else:
        with directory.locked():
            for name in asked_for:
                directory.write_json(name, asked_for[name])
            list_left_out(datasets.values(), directory)
            job = TrainJob(recipe, plan, directory, settings.checkpoint, command)
            if step := job.first_step():
                print(f"continues from step {step} of {plan.total_steps}")
            elif initial is not None:
                initial.write(directory)
                print("\n".join(initial.lines()))
            launch(job, datasets, settings.scale)
        result = directory.read_json("result.json")
        assert result is not None
        picture = draw(recipe, directory, step=result["best_checkpoint"], split="val")
        if picture:
            print(f"picture: {picture}")
        if settings.report:
            written = report_at_the_end(directory)
    _summarise(directory, result, written)
    return result


def _summarise(directory: RunDirectory, result: dict[str, Any], report: str | None) -> None:
    figures = result["metrics"]
    for name in figures if len(figures) <= _MOST_FIGURES else [name for name in figures if name.count("/") == 1]:
        print(f"{name:24} {shown_figure(figures[name])}")
    for line in closing_lines(read_record(directory), plain=not (sys.stdout.encoding or "").lower().startswith("utf")):
        print(line)
    print(f"{result['steps']} steps, best checkpoint {result['best_checkpoint']}, rows_digest {result['rows_digest']}")
    if report:
        print(f"report: {report}")
    print(f"evaluate it: python -m jobs.evaluate {shlex.quote(str(directory))}")


if __name__ == "__main__":
    run(main, goes_on=True)
