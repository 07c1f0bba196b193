"""Training a run, as the command line and Python both ask for it."""

import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

import tyro

from blitz.api.bad_row_summary import list_left_out
from blitz.api.write_report import report_at_the_end
from blitz.launch.launch import launch, placed
from blitz.launch.placement import Placement
from blitz.launch.scale import Scale
from blitz.recipe import Recipe
from blitz.runs.directory import RunDirectory
from blitz.runs.open import Resume, changed_schedule, finished_result, open_run, require_name
from blitz.trackers.tracked import tracked
from blitz.trackers.tracker import TrackerName, require_clients
from blitz.training.best_plot import draw
from blitz.training.loop import Checkpoints, TrainJob
from blitz.training.prepare import Prepared, prepare

Say = Callable[[str], None]
"""Where a line for the user goes."""


@dataclass(frozen=True)
class TrainSettings:
    """What `blitz train` takes: the recipe's fields are flags of their own."""

    recipe: Annotated[Recipe, tyro.conf.arg(name="")]
    run: str | None = None
    """Name of the run. By default the recipe's, with a hash of its settings: the same command finds the same run."""
    storage: str = "runs"
    """Where runs lie: a folder, or a URI such as s3://bucket/runs."""
    resume: Resume = "auto"
    """auto continues the run if there is one, never begins a new one, must refuses to begin one."""
    report: bool = True
    """Write report.html into the run at its end."""
    track: tuple[TrackerName, ...] = ()
    """Send the run to these trackers too; each is configured by its own environment variables."""
    checkpoint: Checkpoints = field(default_factory=Checkpoints)
    scale: Scale = field(default_factory=Scale)

    def __post_init__(self) -> None:
        require_name(self.run)
        require_clients(self.track)


@dataclass(frozen=True)
class Trained:
    """What training came to."""

    run: RunDirectory
    result: dict[str, Any]
    """The content of result.json."""
    report: str | None
    """Where the report is, if one was written."""


def train_run(settings: TrainSettings, *, command: str = "", say: Say = print) -> Trained:
    """Train, or resume; `command` is what was typed for it.

    Raises:
        UserError: if it can never start, before anything is started.
    """
    placement = Placement(settings.scale)
    with placed(placement):
        prepared = prepare(settings.recipe)
        run = open_run(prepared.recipe, storage=settings.storage, run=settings.run, resume=settings.resume)
        say(f"run: {run}")
        result = finished_result(run, prepared.plan)
        if result is not None:
            prepared.complete(run)
            if settings.track:
                # What a tracker that was down has missed.
                with run.locked(), tracked(run, settings.track, say=say):
                    pass
            say(_finished(run, prepared.recipe))
            return Trained(run, result, None)
        return _train(prepared, run, placement, settings, command, say)


def _train(
    prepared: Prepared[Recipe],
    run: RunDirectory,
    placement: Placement,
    settings: TrainSettings,
    command: str,
    say: Say,
) -> Trained:
    recipe = prepared.recipe
    change = changed_schedule(run, recipe, prepared.plan)
    with run.locked():
        prepared.begin(run)
        list_left_out(prepared.datasets.values(), run, say=say)
        job = TrainJob(recipe, prepared.plan, run, settings.checkpoint, command)
        if step := job.first_step():
            say(f"continues from step {step} of {prepared.plan.total_steps}")
            if change:
                say(f"from here on: {change}")
                run.add_event(
                    {"what": "schedule changed", "time": round(time.time(), 3), "step": step, "change": change}
                )
        elif prepared.initial is not None:
            say("\n".join(prepared.initial.lines()))
        with tracked(run, settings.track, say=say):
            launch(job, prepared.datasets, placement)
            result = run.read_json("result.json")
            assert result is not None
            picture = draw(recipe, run, step=result["best_checkpoint"], split="val")
            if picture:
                say(f"picture: {picture}")
            return Trained(run, result, report_at_the_end(run, say=say) if settings.report else None)


def _finished(run: RunDirectory, recipe: Recipe) -> str:
    """What to do with a run that is finished."""
    for name, optim in recipe.schedules().items():
        return (
            f"It is finished, and so is its {optim.schedule} schedule. To train longer give another --run, with "
            f"--init-from {shlex.quote(run.uri)} to begin with these weights; or raise --epochs and "
            f"--{name}.schedule-epochs, and the learning rate goes up again to where it is on the longer schedule."
        )
    return "It is finished; to train on raise --epochs, to train anew give another --run or --resume never."
