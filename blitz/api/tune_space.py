"""Sweeps, as the command line and Python both ask for them."""

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
from blitz.settings import with_settings
from tune_spaces import find_space


@dataclass(frozen=True)
class TuneSettings:
    """What `blitz tune` takes: the recipe's fields are flags of their own, and hold for all trials."""

    recipe: Annotated[Recipe, tyro.conf.arg(name="")]
    num_trials: int = 16
    """Trials in all, with those that a sweep which is continued has already."""
    search: SearchName = "random"
    """random draws at random; grid tries every combination; optuna draws where trials so far promise most."""
    scheduler: SchedulerName = "none"
    """asha stops trials early that do worse than others did (asynchronous successive halving)."""
    packed: Packed = "auto"
    """Train up to so many trials as one stacked model; auto does where it can, no trains each by itself."""
    max_concurrent: int | None = None
    """On Ray: so many trials at a time; by default as many as there is room for."""
    search_seed: int = 0
    """Decides what is drawn; `--seed` is the trials' own."""
    run: str | None = None
    """Name of the sweep. By default the space's, with a hash of its settings: the same command finds the same sweep."""
    storage: str = "runs"
    """Where runs and sweeps lie: a folder, or a URI such as s3://bucket/runs."""
    resume_changed_code: bool = False
    """Continue a sweep although its recipe's code has changed since."""
    report: bool = True
    """Write report.html into the sweep at its end."""
    scale: Scale = field(default_factory=Scale)

    def __post_init__(self) -> None:
        require_name(self.run)
        packed, most = self.packed, self.max_concurrent
        require(self.num_trials >= 1, f"--num-trials is {self.num_trials}; it must be 1 or more")
        require(isinstance(packed, str) or packed >= 1, f"--packed is {packed}; it must be auto, no, or 1 or more")
        require(most is None or most >= 1, f"--max-concurrent is {most}; it must be 1 or more")
        require(0 <= self.search_seed < 1 << 63, f"--search-seed is {self.search_seed}; it must be in [0, 2^63)")
        require(self.scale.max_workers is None, "--scale.max-workers is for one run; give --scale.num-workers")


def tune_space(name: str, space: Space, settings: TuneSettings, *, address: str | None = None) -> SweepResult:
    """Run a sweep, or what is left of it; `name` is what its default directory begins with.

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
    return run_sweep(
        plan,
        directory,
        placement,
        packed=settings.packed,
        max_concurrent=settings.max_concurrent,
        resume_changed_code=settings.resume_changed_code,
    )


class Sweep:
    """A sweep that has ended: its trials, and the best of them."""

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
        """The run of the best trial; None where no trial came to its end."""
        return None if self._result.best is None else Run(RunDirectory.of(self.uri, "best"))

    @property
    def best_settings(self) -> dict[str, Any]:
        """What the best trial varied, by names such as `optim.lr`; empty where no trial came to its end."""
        return {} if self._result.best is None else dict(self._result.best.settings)

    def report(self) -> str | None:
        """Write the sweep's page; its path."""
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
        space: what `blitz tune` takes, as `"digits"`, `"space.py"` or `"package.space:SPACE"`; or a `blitz.Space`.
        num_trials: trials in all; this and what is None below is by default what the space says.
        run: the name of the sweep; by default it follows from the settings.
        storage: where runs and sweeps lie: a folder, or a URI.
        scale: where trials run.
        address: the Ray cluster; by default RAY_ADDRESS.
        report: whether to write report.html at the end.
        search: `random`, `grid` or `optuna`.
        scheduler: `asha` stops trials early that do worse than others did; `none` does not.
        packed: train up to so many trials as one stacked model; `auto` where it can, `no` never.
        max_concurrent: on Ray: so many trials at a time.
        search_seed: decides what is drawn.
        resume_changed_code: whether to continue a sweep although its recipe's code has changed since.
        settings: fields of the recipe that all trials have, by their names.

    Raises:
        UserError: if it can never start, before anything is started.
    """
    found = space if isinstance(space, Space) else find_space(str(space))
    base = with_settings(found.base(), settings)
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
        scale=scale or Scale(),
    )
    sweep = Sweep(tune_space(name, found, made, address=address))
    if report:
        sweep.report()
    return sweep
