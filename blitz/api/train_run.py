"""Training a run, for the command line and for Python."""

import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from torch import nn

from blitz.api.bad_row_summary import list_left_out
from blitz.api.evaluate_run import EvaluateSettings, evaluate_placed
from blitz.api.run import Run
from blitz.api.write_report import report_at_the_end
from blitz.errors import first_line, require
from blitz.extras import MissingExtra
from blitz.launch.launch import launch, placed
from blitz.launch.placement import Placement
from blitz.launch.scale import Scale
from blitz.objects import MetricsChoice, ObjectRecipe, Objects
from blitz.outputs.row_loss import LossFunction
from blitz.recipe import Batch, Recipe
from blitz.recipes import find_recipe
from blitz.run_files.directory import RunDirectory
from blitz.run_files.open import Resume, changed_schedule, code_change, finished_result, open_run, require_name
from blitz.settings import require_settings, require_type, with_settings
from blitz.trackers.tracked import tracked
from blitz.trackers.tracker import TrackerName, require_clients
from blitz.training.after_evaluation import Callback, require_callback
from blitz.training.best_plot import draw
from blitz.training.explanation import explain
from blitz.training.loop import Checkpoints, TrainJob
from blitz.training.prepared import Prepared, prepare

Say = Callable[[str], None]
"""Prints a line for the user."""


@dataclass(frozen=True)
class TrainSettings:
    """The settings of `blitz train`, beside the fields of the recipe."""

    recipe: Annotated[Recipe, tyro.conf.arg(name="")]
    run: str | None = None
    """Name of the run. By default the recipe's, with a hash of its settings: the same command finds the same run."""
    storage: str = "runs"
    """Where runs lie: a folder, or a URI such as s3://bucket/runs."""
    resume: Resume = "auto"
    """auto continues the run if there is one, never begins a new one, must refuses to begin one."""
    resume_changed_code: bool = False
    """Continue a run although its recipe's code has changed since."""
    report: bool = True
    """Write report.html into the run at its end."""
    find_lr: bool = False
    """Instead of training, take 100 steps at learning rates from 1e-7 to 10 and propose one."""
    find_batch_size: bool = False
    """Instead of training, measure the rows a second of micro-batches of 2, 4, 8 and more rows on this machine."""
    track: tuple[TrackerName, ...] = ()
    """Send the run to these trackers too; each is configured by its own environment variables."""
    checkpoint: Checkpoints = field(default_factory=Checkpoints)
    scale: Scale = field(default_factory=Scale)

    def __post_init__(self) -> None:
        require_name(self.run)
        require_clients(self.track)


@dataclass(frozen=True)
class Trained:
    """The outcome of training."""

    run: RunDirectory
    result: dict[str, Any]
    """The content of result.json."""
    report: str | None
    """The path of the report, if one was written."""
    recipe: Recipe
    """The recipe, fitted to its training data."""


def train_run(
    settings: TrainSettings,
    *,
    command: str = "",
    address: str | None = None,
    say: Say = print,
    after_evaluation: Callback | None = None,
) -> Trained:
    """Train, or resume; `command` is the command line; `after_evaluation` is called after the recipe's own.

    Raises:
        UserError: if it can never start, before anything is started.
    """
    began = time.time()
    placement = Placement(settings.scale, address) if address else Placement(settings.scale)
    with placed(placement):
        prepared = prepare(settings.recipe)
        run = open_run(
            prepared.recipe,
            storage=settings.storage,
            run=settings.run,
            resume=settings.resume,
            resume_changed_code=settings.resume_changed_code,
        )
        say(f"run: {run}")
        result = finished_result(run, prepared.plan, patience=prepared.recipe.patience)
        if result is not None:
            prepared.complete(run)
            # The run was killed before its test, or test rows were added after it finished.
            if prepared.recipe.is_tested and "test_metrics" not in result:
                with run.locked():
                    result = _with_test(run, prepared.recipe, placement, result)
            if settings.track:
                # Sends what a tracker missed while it was down.
                with run.locked(), tracked(run, settings.track, say=say):
                    pass
            say(_finished(run, prepared.recipe))
            return Trained(run, result, None, prepared.recipe)
        return _train(prepared, run, placement, settings, command, say, after_evaluation, began)


def _train(
    prepared: Prepared[Recipe],
    run: RunDirectory,
    placement: Placement,
    settings: TrainSettings,
    command: str,
    say: Say,
    after_evaluation: Callback | None,
    began: float,
) -> Trained:
    recipe = prepared.recipe
    changes = {
        "schedule changed": changed_schedule(run, recipe, prepared.plan),
        "code changed": code_change(run, recipe),
    }
    with run.locked():
        prepared.begin(run)
        list_left_out(prepared.datasets.values(), run, say=say)
        job = TrainJob(recipe, prepared.plan, run, settings.checkpoint, command, after_evaluation, began)
        if step := job.first_step():
            say(f"continues from step {step} of {prepared.plan.total_steps}")
            for what, change in changes.items():
                if change:
                    say(f"from here on: {change}")
                    run.add_event({"what": what, "time": round(time.time(), 3), "step": step, "change": change})
        elif prepared.initial is not None:
            say("\n".join(prepared.initial.lines()))
        with tracked(run, settings.track, say=say):
            launch(job, prepared.datasets, placement)
            result = run.read_json("result.json")
            assert result is not None
            result = _with_test(run, recipe, placement, result)
            try:
                if picture := draw(recipe, run, step=result["best_checkpoint"], split="val"):
                    say(f"picture: {picture}")
            except MissingExtra as missing:
                say(str(missing))
            if settings.report:
                _explain(recipe, run, result["best_checkpoint"], say)
            # Before the trackers end, so that they get the report too.
            return Trained(run, result, report_at_the_end(run, say=say) if settings.report else None, recipe)


def _with_test(run: RunDirectory, recipe: Recipe, placement: Placement, result: dict[str, Any]) -> dict[str, Any]:
    """The content of result.json with the best checkpoint's metrics on the test rows, which are computed if missing."""
    if not recipe.is_tested or "test_metrics" in result:
        return result
    settings = EvaluateSettings(recipe, checkpoint=result["best_checkpoint"], split="test", scale=placement.scale)
    found = evaluate_placed(run, settings, placement)
    result = {**result, "test_metrics": {f"test/{name}": value for name, value in found["figures"].items()}}
    run.write_json("result.json", result)
    return result


def _explain(recipe: Recipe, run: RunDirectory, step: int, say: Say) -> None:
    """Explain the best checkpoint of a table for its report; the run has finished, whether that succeeds or not."""
    try:
        explain(recipe, run, step=step, split="val")
    except Exception as error:
        say(f"the columns are not explained ({first_line(error)}); try blitz evaluate {shlex.quote(run.uri)} --explain")


def _finished(run: RunDirectory, recipe: Recipe) -> str:
    """How to train a finished run further."""
    for name, optim in recipe.schedules().items():
        return (
            f"It is finished, and so is its {optim.schedule} schedule. To train longer give another --run, with "
            f"--init-from {shlex.quote(run.uri)} to begin with these weights; or raise --epochs and "
            f"--{name}.schedule-epochs, and the learning rate goes up again to where it is on the longer schedule."
        )
    return "It is finished; to train on raise --epochs, to train anew give another --run or --resume never."


def train(
    recipe: str | Path | Recipe | type[Recipe] | None = None,
    *,
    model: Callable[[], nn.Module] | nn.Module | None = None,
    train: Any = None,
    val: Any = None,
    loss: LossFunction | None = None,
    metrics: MetricsChoice | None = None,
    forward: Callable[[nn.Module, Batch], Any] | None = None,
    collate_fn: Callable[[list[Any]], Any] | None = None,
    target: str | None = None,
    after_evaluation: Callback | None = None,
    run: str | None = None,
    storage: str | Path = "runs",
    resume: Resume = "auto",
    resume_changed_code: bool = False,
    report: bool = True,
    track: TrackerName | Sequence[TrackerName] = (),
    checkpoint: Checkpoints | None = None,
    num_workers: Literal["auto"] | int | None = None,
    use_gpu: Literal["auto", "yes", "no"] | None = None,
    max_failures: int | None = None,
    scale: Scale | None = None,
    address: str | None = None,
    **settings: Any,
) -> Run:
    """Train a recipe, or plain objects, or continue a run; the same call again resumes it.

    Args:
        recipe: what `blitz train` takes, as `"digits"`, `"flowers.py"` or `"package.flowers:Flowers"`; or a recipe, or
            its class.
        model: instead of a recipe: a class or function that makes the model, or a model, whose weights it starts with.
        train: the rows to train on: a map-style data set whose items are `(inputs, targets)` or dictionaries.
        val: the rows to evaluate on after each epoch, if any.
        loss: a module or function of `(outputs, targets)`. Its reduction is switched off: it gives a number a row.
        metrics: `"classification"` or `"regression"`, which the usual losses imply; or a function of
            `(outputs, targets)` that gives named tensors with a number for each row.
        forward: what to do with a batch, a dictionary of tensors, where that is not `model(inputs)`.
        collate_fn: what makes a batch of a list of items, where torch's own does not.
        target: the key of the targets in items that are dictionaries; by default one of the usual names.
        after_evaluation: a function of `(model, metrics, run)` that is called after each evaluation, as
            `Recipe.after_evaluation` is; False stops the run.
        run: the name of the run; by default it follows from the settings.
        storage: where runs lie: a folder, or a URI such as `s3://bucket/runs`.
        resume: `auto` continues a run that is there, `never` starts a new one, `must` refuses to start one.
        resume_changed_code: whether to continue a run although its code has changed since.
        report: whether to write report.html at the end.
        track: trackers that the run is sent to too: `mlflow`, `wandb`, `trackio`, `comet`.
        checkpoint: when checkpoints are written, and which are kept.
        num_workers: 0 for this process, N for N workers on Ray; by default 0 unless a cluster is named.
        use_gpu: `auto` uses GPUs where there are some.
        max_failures: on Ray: restarts after failures.
        scale: all settings of where it runs, instead of the three above.
        address: the Ray cluster: `auto`, `HOST:PORT`, or `ray://HOST:PORT` by Ray Client; by default RAY_ADDRESS.
        settings: fields of the recipe by their names: `epochs=5`, `optim=blitz.Optim(lr=0.1)`, `**{"optim.lr": 0.1}`.

    Raises:
        UserError: if it can never start, before anything is started.
        RunFailed: if it stops before its end; the same call resumes it.
    """
    if after_evaluation is not None:
        require_callback(after_evaluation)
    given: dict[str, Any] = {"num_workers": num_workers, "use_gpu": use_gpu, "max_failures": max_failures}
    given = {name: value for name, value in given.items() if value is not None}
    arguments = {"run": run, "resume": resume, "checkpoint": checkpoint, "scale": scale, "address": address, **given}
    for name, value in arguments.items():
        require_type(name, value, _ARGUMENTS[name])
    require(scale is None or not given, f"scale= sets where it runs; pass {', '.join(given)} in it")
    where = scale or Scale(**given)
    require_name(run)
    chosen = recipe_of(recipe, Objects(model, train, val, loss, metrics, forward, collate_fn, target), settings)
    made = TrainSettings(
        chosen,
        run=run,
        storage=str(storage),
        resume=resume,
        resume_changed_code=resume_changed_code,
        report=report,
        track=(track,) if isinstance(track, str) else tuple(track),
        checkpoint=checkpoint or Checkpoints(),
        scale=where,
    )
    trained = train_run(made, address=address, after_evaluation=after_evaluation)
    return Run(trained.run, trained.recipe)


_ARGUMENTS = {
    "run": str | None,
    "resume": Resume,
    "checkpoint": Checkpoints | None,
    "scale": Scale | None,
    "address": str | None,
    "num_workers": Literal["auto"] | int,
    "use_gpu": Literal["auto", "yes", "no"],
    "max_failures": int,
}
"""Types of arguments that would otherwise fail late if they were wrong."""


def recipe_of(recipe: str | Path | Recipe | type[Recipe] | None, objects: Objects, settings: dict[str, Any]) -> Recipe:
    """The recipe of a call of `train`, with these settings.

    Raises:
        UserError: if it is none, or has no such setting.
    """
    if recipe is None:
        require_settings(ObjectRecipe, settings)
        groups = {name: value for name, value in settings.items() if "." not in name}
        made: Recipe = ObjectRecipe.of(objects, **groups)
        return with_settings(made, {name: value for name, value in settings.items() if "." in name})
    names = [spec.name for spec in fields(objects) if getattr(objects, spec.name) is not None]
    require(not names, f"{', '.join(f'{name}=' for name in names)}: a recipe has its own; give either")
    if isinstance(recipe, str | Path):
        recipe = find_recipe(str(recipe))
    is_one = isinstance(recipe, Recipe) or (isinstance(recipe, type) and issubclass(recipe, Recipe))
    require(is_one, f"recipe is {_called(recipe)}; give a name, a file, or a blitz.Recipe; a module is model=")
    made = recipe() if isinstance(recipe, type) else recipe
    require_settings(type(made), settings)
    return with_settings(made, settings)


def _called(value: Any) -> str:
    return f"class {value.__name__}" if isinstance(value, type) else type(value).__name__
