"""Sweeps, for the command line and for Python."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from blitz.api.run import Run
from blitz.api.write_report import report_at_the_end
from blitz.errors import require
from blitz.launch.placement import Placement
from blitz.launch.scale import Scale
from blitz.launch.tune.run_sweep import Packed, SweepResult, run_sweep
from blitz.launch.tune.space import SchedulerName, SearchName, Space
from blitz.launch.tune.sweep_plan import SweepPlan
from blitz.recipe import Recipe
from blitz.run_files.directory import RunDirectory
from blitz.run_files.open import require_name
from blitz.run_files.sweep_directory import Trial
from blitz.settings import require_settings, with_settings
from blitz.trackers.tracked import Say, tracked_sweep
from blitz.trackers.tracker import TrackerName, require_clients
from tune_spaces import find_space


@dataclass(frozen=True)
class TuneSettings:
    """The settings of a sweep: the recipe's fields are flags of their own, and apply to all trials."""

    recipe: Annotated[Recipe, tyro.conf.arg(name="")]
    num_trials: int = 16
    """Trials in all, including those that a resumed sweep has already."""
    search: SearchName = "random"
    """random draws at random; grid tries every combination; optuna learns from the finished trials."""
    scheduler: SchedulerName = "none"
    """asha stops trials early that perform worse than others (asynchronous successive halving)."""
    packed: Packed = "auto"
    """Train up to so many trials as one stacked model; auto does so where possible, no trains each by itself."""
    max_concurrent: int | None = None
    """On Ray: trials at a time; by default as many as the cluster has room for."""
    search_seed: int = 0
    """Seed of the search; `--seed` is that of the trials."""
    run: str | None = None
    """Name of the sweep. By default the space's, with a hash of its settings: the same command finds the same sweep."""
    storage: str = "runs"
    """The directory of runs and sweeps, or a URI such as s3://bucket/runs."""
    resume_changed_code: bool = False
    """Continue a sweep although its recipe's code has changed since."""
    report: bool = True
    """Write report.html into the sweep at its end."""
    track: tuple[TrackerName, ...] = ()
    """Send the trials to these trackers too; each is configured by its own environment variables."""
    scale: Scale = field(default_factory=Scale)

    def __post_init__(self) -> None:
        require_name(self.run)
        require_clients(self.track)
        packed, most = self.packed, self.max_concurrent
        require(self.num_trials >= 1, f"--num-trials is {self.num_trials}; it must be 1 or more")
        require(isinstance(packed, str) or packed >= 1, f"--packed is {packed}; it must be auto, no, or 1 or more")
        require(most is None or most >= 1, f"--max-concurrent is {most}; it must be 1 or more")
        require(0 <= self.search_seed < 1 << 63, f"--search-seed is {self.search_seed}; it must be in [0, 2^63)")
        require(self.scale.max_workers is None, "--scale.max-workers is for one run; give --scale.num-workers")


def tune_space(
    name: str,
    space: Space,
    settings: TuneSettings,
    *,
    address: str | None = None,
    finish: Callable[[SweepResult], object] | None = None,
    say: Say = print,
) -> SweepResult:
    """Run or resume a sweep; `name` is the start of its default directory's name.

    `finish` is called with the result before the trackers end, so that they also send the report it writes.

    Raises:
        UserError: if it can never start, before anything is started.
    """
    plan = SweepPlan(
        name,
        space,
        settings.recipe,
        search=settings.search,
        scheduler=settings.scheduler,
        seed=settings.search_seed,
        num_trials=settings.num_trials,
    )
    directory = RunDirectory.of(settings.storage, settings.run or plan.default_name())
    placement = Placement(settings.scale, address) if address else Placement(settings.scale)
    with tracked_sweep(directory, settings.track, say=say):
        result = run_sweep(
            plan,
            directory,
            placement,
            packed=settings.packed,
            max_concurrent=settings.max_concurrent,
            resume_changed_code=settings.resume_changed_code,
        )
        if finish is not None:
            finish(result)
    return result


class Sweep:
    """The trials of a finished sweep, and the best of them."""

    def __init__(self, result: SweepResult) -> None:
        self._result = result

    @property
    def uri(self) -> str:
        """The sweep's directory: an absolute path or a URI."""
        return self._result.directory.uri

    @property
    def trials(self) -> list[Trial]:
        """All trials by number, with their `settings`, `state`, `best` and `last` metric."""
        return self._result.trials

    @property
    def best(self) -> Run | None:
        """The run of the best trial; None if no trial finished."""
        return None if self._result.best is None else Run(RunDirectory.of(self.uri, "best"))

    @property
    def best_settings(self) -> dict[str, Any]:
        """The varied settings of the best trial, by names such as `optim.lr`; empty if no trial finished."""
        return {} if self._result.best is None else dict(self._result.best.settings)

    def report(self) -> str | None:
        """Write the sweep's report; returns its path."""
        return report_at_the_end(self._result.directory)

    def __repr__(self) -> str:
        best, goal = self._result.best, self._result.goal
        what = "no trial finished" if best is None else f"best {goal.metric} {best.best:.6g}"
        return f"<Sweep {self.uri}  {len(self.trials)} trials, {what}>"


def tune(
    space: str | Path | Space,
    *,
    num_trials: int | None = None,
    run: str | None = None,
    storage: str | Path = "runs",
    scale: Scale | None = None,
    address: str | None = None,
    report: bool = True,
    track: Sequence[TrackerName] = (),
    search: SearchName | None = None,
    scheduler: SchedulerName | None = None,
    packed: Packed = "auto",
    max_concurrent: int | None = None,
    search_seed: int = 0,
    resume_changed_code: bool = False,
    **settings: Any,
) -> Sweep:
    """Try many settings of a recipe; the same call again resumes the sweep, and more trials extend it.

    Args:
        space: as for `blitz tune`, such as `"digits"`, `"space.py"` or `"package.space:SPACE"`; or a `blitz.Space`.
        num_trials: trials in all; for this and whatever is None below the default is the space's.
        run: the name of the sweep; by default it follows from the settings.
        storage: the folder or URI of runs and sweeps.
        scale: where trials run.
        address: the Ray cluster; by default RAY_ADDRESS.
        report: whether to write report.html at the end.
        track: trackers that receive the trials: `mlflow`, `wandb`, `trackio`, `comet`.
        search: `random`, `grid` or `optuna`.
        scheduler: `asha` stops trials early that perform worse than others; `none` does not.
        packed: train up to so many trials as one stacked model; `auto` where possible, `no` never.
        max_concurrent: on Ray: trials at a time.
        search_seed: seed of the search.
        resume_changed_code: whether to continue a sweep although its recipe's code has changed since.
        settings: fields of the recipe, by name, for all trials.

    Raises:
        UserError: if it can never start, before anything is started.
    """
    found = space if isinstance(space, Space) else find_space(str(space))
    base = found.base()
    require_settings(type(base), settings)
    base = with_settings(base, settings)
    name = base.name if isinstance(space, Space) else Path(str(space).partition(":")[0]).stem
    made = TuneSettings(
        base,
        num_trials=num_trials or found.num_trials,
        search=search or found.search,
        scheduler=scheduler or found.scheduler,
        packed=packed,
        max_concurrent=max_concurrent,
        search_seed=search_seed,
        resume_changed_code=resume_changed_code,
        run=run,
        storage=str(storage),
        report=report,
        track=tuple(track),
        scale=scale or Scale(),
    )

    def finish(result: SweepResult) -> None:
        if report:
            Sweep(result).report()

    return Sweep(tune_space(name, found, made, address=address, finish=finish))
