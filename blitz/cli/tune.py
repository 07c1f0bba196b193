"""Try many settings of a recipe, and find the best: a sweep, in this process or on Ray.

    python -m jobs.tune SPACE [flags]

SPACE is a file of tune_spaces/. The same command again goes on with a sweep that was stopped, and one with more
--num-trials extends it; `python -m jobs.tune SPACE --help` names every flag.
"""

import shlex
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from blitz.api.write_report import report_at_the_end
from blitz.cli.command_line import parse
from blitz.errors import require
from blitz.launch.placement import Placement
from blitz.launch.scale import Scale
from blitz.launch.tune.run_sweep import Packed, SweepResult, run_sweep
from blitz.launch.tune.space import SchedulerName, SearchName, Space
from blitz.launch.tune.sweep_plan import SweepPlan
from blitz.recipe import Recipe
from blitz.runs.directory import RunDirectory
from blitz.runs.open import require_name
from blitz.settings import setting_types, setting_value, shown_words
from blitz.trackers.tracked import tracked_sweep
from blitz.trackers.tracker import TrackerName, require_clients
from tune_spaces import about, find_space, space_names

PROG = "python -m jobs.tune"


@dataclass(frozen=True)
class TuneSettings:
    """What `jobs.tune` is told: the recipe's fields are flags of their own, and hold for all trials."""

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


def main(words: list[str]) -> None:
    """Tune as the command line says."""
    if not words or words[0] in ("-h", "--help"):
        print(f"{__doc__}\nSpaces:")
        for name in space_names():
            print(f"  {name:12} {about(name)}")
        return
    require(not words[0].startswith("-"), f"name a space first: {PROG} SPACE [flags]")
    space = find_space(words[0])
    command = shlex.join(["python", "-m", "jobs.tune", *words])
    tune(words[0], space, read_settings(words[0], space, words[1:]), command=command)


def read_settings(name: str, space: Space, flags: list[str]) -> TuneSettings:
    """What the command line says over what the space has."""
    default = TuneSettings(space.base(), num_trials=space.num_trials, search=space.search, scheduler=space.scheduler)
    return parse(default, flags, prog=f"{PROG} {name}", description=about(name))


def tune(name: str, space: Space, settings: TuneSettings, *, command: str = "") -> SweepResult:
    """Run a sweep, or go on with it, and print what it came to; `command` is what was typed for it.

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
    with tracked_sweep(directory, settings.track, say=print):
        result = run_sweep(
            plan,
            directory,
            Placement(settings.scale),
            packed=settings.packed,
            max_concurrent=settings.max_concurrent,
        )
        _summarise(result)
        if settings.report and (written := report_at_the_end(directory, command=command)):
            print(f"report: {written}")
    return result


def _summarise(result: SweepResult) -> None:
    failed = [trial for trial in result.trials if trial.state == "failed"]
    print(f"sweep: {result.directory}")
    print(f"{len(result.trials)} trials in trials.csv, pictures in pictures/: {', '.join(result.pictures)}")
    if failed:
        print(f"{len(failed)} failed; the first: trial {failed[0].number}: {failed[0].error}")
    best = result.best
    if best is None:
        print("no trial came to its end, so that none is the best")
        return
    print(
        f"\nbest: trial {best.number}, {result.goal.metric} {best.best:.6g} (last {best.last:.6g} at step {best.step})"
    )
    recipe = result.best_recipe
    for setting in setting_types(type(recipe)):
        marker = "*" if setting in best.settings else " "
        print(f"{marker} {setting:24} {' '.join(shown_words(setting_value(recipe, setting)))}".rstrip())
    print(f"\nrepeat it: {result.command}")
    best_run = RunDirectory.of(result.directory.uri, "best")
    print(f"evaluate it: python -m jobs.evaluate {shlex.quote(str(best_run))}")
