"""A sweep in progress: which trials there are, what each has come to, and which is the best."""

import contextlib
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from blitz.errors import UserError, require
from blitz.launch.tune.search import GridSearch, Search, search_of
from blitz.launch.tune.space import Mode, SchedulerName, SearchName, Space
from blitz.recipe import Recipe
from blitz.recipes import recipe_to_json, setting_value, with_settings
from blitz.training.display import Display
from blitz.training.open_run import require_lasting
from blitz.training.run_directory import RunDirectory
from blitz.training.sweep_directory import SweepDirectory, Trial, TrialState, one_line
from blitz.training.trial import Figures

_TRIED_DRAWS = 100
_SECONDS_BETWEEN_TABLES = 2.0


@dataclass(frozen=True)
class SweepPlan:
    """A sweep as it was asked for."""

    space_name: str
    space: Space
    recipe: Recipe
    """What all trials share."""
    search: SearchName = "random"
    scheduler: SchedulerName = "none"
    seed: int = 0
    num_trials: int = 16

    @property
    def metric(self) -> str:
        """The figure that decides."""
        return self.space.decides(self.recipe)[0]

    @property
    def mode(self) -> Mode:
        """Whether less or more of it is better."""
        return self.space.decides(self.recipe)[1]

    @property
    def higher_is_better(self) -> bool:
        """Whether more of it is better."""
        return self.mode == "max"

    def to_json(self) -> dict[str, Any]:
        """What sweep.json holds."""
        metric, mode = self.space.decides(self.recipe)
        return {
            "space": self.space_name,
            "recipe": recipe_to_json(self.recipe),
            "parameters": self.space.text(),
            "metric": metric,
            "mode": mode,
            "search": self.search,
            "scheduler": self.scheduler,
            "seed": self.seed,
            "num_trials": self.num_trials,
        }

    def check(self) -> Search:
        """What draws; the settings of the first trials were made and go together.

        Raises:
            UserError: if they do not, or if a flag sets what the space varies.
        """
        default = with_settings(type(self.recipe)(), self.space.overrides)
        for name in self.space.names:
            flag = f"--{name.replace('_', '-')}"
            same = setting_value(self.recipe, name) == setting_value(default, name)
            require(same, f"{flag}: the space {self.space_name} varies it; leave it out, or edit the space")
        search = search_of(self.search, self.space, seed=self.seed, mode=self.mode)
        # Optuna's draws depend on what trials come to; any others tell as well what does not go together.
        trying = search_of("random", self.space, seed=self.seed, mode=self.mode) if self.search == "optuna" else search
        for number in range(min(self.num_trials, _TRIED_DRAWS)):
            if (draw := trying.draw(number)) is None:
                break
            try:
                with_settings(self.recipe, self.space.settings(draw))
            except UserError as error:
                raise UserError(
                    f"trial {number} of the space {self.space_name} would have {self.space.settings(draw)}: {error}; "
                    "let settings that depend on each other be choices of dictionaries"
                ) from error
        return search


def open_sweep(plan: SweepPlan, directory: RunDirectory) -> SweepDirectory:
    """The directory of a sweep, new or one that is continued; it is there and can be written.

    Raises:
        UserError: if it cannot, or if what is there is another sweep or a run.
    """
    require_lasting(directory)
    stored, now = directory.read_json("sweep.json"), plan.to_json()
    require(stored is not None or not directory.exists("recipe.json"), f"{directory} is a run; name another with --run")
    if stored is not None:
        changed = [name for name in now if name != "num_trials" and _as_stored(now[name]) != stored.get(name)]
        require(
            not changed,
            f"{directory} is a sweep of another {' and '.join(changed)}; repeat its settings to go on with it, or name "
            "another with --run",
        )
    directory.probe()
    directory = replace(directory, patient=True)
    return SweepDirectory(directory, plan.space.names)


def _as_stored(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _as_stored(inner) for name, inner in value.items()}
    return [_as_stored(inner) for inner in value] if isinstance(value, tuple | list) else value


class Sweep:
    """The trials: the next to begin, and what is known of those that have begun."""

    def __init__(self, plan: SweepPlan, directory: SweepDirectory, search: Search, display: Display) -> None:
        self.plan, self.directory, self.display = plan, directory, display
        self._search = search
        self.trials = {trial.number: trial for trial in directory.trials()}
        self._began: dict[int, float] = {}
        self._table_written = 0.0
        for trial in self.trials.values():
            if trial.ended:
                search.tell(trial.number, trial.draw, trial.best)
            else:
                search.begun(trial.number, trial.draw)
        self._unfinished = [trial for trial in self.trials.values() if not trial.ended]
        most = len(search) if isinstance(search, GridSearch) else plan.num_trials
        self.total = max(len(self.trials), min(plan.num_trials, most))
        directory.run.write_json("sweep.json", {**plan.to_json(), "num_trials": self.total})

    def next(self) -> Trial | None:
        """The next trial, which has now begun; first those that were cut off."""
        if self._unfinished:
            trial = replace(self._unfinished.pop(0), last=None, best=None, step=0)
        else:
            number = len(self.trials)
            draw = self._search.draw(number) if number < self.total else None
            if draw is None:
                return None
            trial = Trial(number, draw, self.plan.space.settings(draw))
        self.trials[trial.number] = trial
        self._began[trial.number] = time.monotonic()
        self.directory.write_trial(trial)
        return trial

    def measured(self, number: int, step: int, figures: Figures) -> float:
        """Note an evaluation; the figure that decides.

        Raises:
            UserError: if that is not among them.
        """
        metric = self.plan.metric
        require(metric in figures, f"the space's metric {metric} is not among {', '.join(figures)}")
        trial = self.trials[number]
        self.trials[number] = trial.measured(step, figures[metric], higher_is_better=self.plan.higher_is_better)
        return figures[metric]

    def end(self, number: int, state: TrialState, *, error: str = "") -> None:
        """Note how a trial ended; its figures are those in its files."""
        trial = replace(self.trials[number], last=None, best=None)
        for line in self.directory.trial_run(trial).metrics():
            if self.plan.metric in line:
                value = line[self.plan.metric]
                trial = trial.measured(line["step"], value, higher_is_better=self.plan.higher_is_better)
        if state == "finished" and trial.best is None:
            state, error = "failed", f"it was never evaluated, so that there is no {self.plan.metric}"
        seconds = time.monotonic() - self._began[number]
        trial = replace(trial, state=state, error=error, seconds=trial.seconds + seconds)
        self.trials[number] = trial
        self._search.tell(number, trial.draw, None if state == "failed" else trial.best)
        self.directory.write_trial(trial)
        if time.monotonic() - self._table_written > _SECONDS_BETWEEN_TABLES:
            self.write_table()
        self._keep_the_best(trial)
        self.display.line(self._said_of(trial))

    @contextlib.contextmanager
    def failing(self, trial: Trial) -> Iterator[None]:
        """Note what the block raises as that trial's end; the others go on."""
        try:
            yield
        except Exception as error:
            self.failed(trial.number, one_line(error), traceback.format_exc())

    def failed(self, number: int, error: str, trace: str) -> None:
        """Note that a trial raised."""
        self.directory.run.write(f"trials/{self.trials[number].id}/error.log", trace.encode())
        self.end(number, "failed", error=error)

    def best(self) -> Trial | None:
        """The best of those that went to their end, the first of equals; None where there are none."""
        sign = -1 if self.plan.higher_is_better else 1
        finished = [trial for trial in self.trials.values() if trial.state == "finished" and trial.best is not None]
        return min(finished, key=lambda trial: (sign * (trial.best or 0.0), trial.number), default=None)

    def _keep_the_best(self, trial: Trial) -> None:
        """Have the best trial in best/, and no checkpoints elsewhere."""
        best = self.best()
        if best is not None and best.number == trial.number:
            self.directory.copy_to_best(trial)
        run = self.directory.trial_run(trial)
        if run.exists("checkpoints"):
            run.delete_folder("checkpoints")

    def finish(self) -> Trial | None:
        """The best trial, whose run is in best/."""
        best = self.best()
        # A kill may have come between a trial's end and its copy.
        if best is not None and self.directory.best_trial() != best.number:
            self.directory.copy_to_best(best)
        self.write_table()
        return best

    def write_table(self) -> None:
        """Write trials.csv."""
        self._table_written = time.monotonic()
        self.directory.write_table(self.trials[number] for number in sorted(self.trials))

    def _said_of(self, trial: Trial) -> str:
        figure = "" if trial.best is None else f"  {self.plan.metric} {trial.best:.4f}"
        settings = "  ".join(f"{name} {_brief(value)}" for name, value in trial.settings.items())
        return f"trial {trial.number} {trial.state}{figure}  {settings}{f'  {trial.error}' if trial.error else ''}"


def _brief(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
