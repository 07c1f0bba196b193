"""The files of a sweep, on any storage that a run can have.

    <storage>/<sweep>/
      sweep.json             what was asked for: space, recipe, what varies, metric, search, scheduler, seed, trials
      trials.csv             a row a trial: what varied, state, last and best value, step, seconds, error
      trials/<number>/       recipe.json, metrics.jsonl, and trial.json, which is written at its start and end
      best/                  the best trial as an ordinary run
      packs/                 checkpoints of the packs that are trained now
      importance.json        how much each parameter decides
      pictures/              the same, loss curves, and the metric against each setting

trials.csv is made of the trial.json files, so that what ends a sweep at any moment leaves it as they say.
"""

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Self, TypeVar

from blitz.errors import UserError
from blitz.run_files.directory import RunDirectory
from blitz.settings import shown_words

TrialState = Literal["running", "finished", "stopped", "failed"]

PACKS = "packs"
_THREADS = 16

Item = TypeVar("Item")
Done = TypeVar("Done")
_FIRST_COLUMNS, _LAST_COLUMNS = ("trial",), ("state", "last", "best", "step", "seconds", "error")


Mode = Literal["min", "max"]


class NotMeasured(UserError):
    """The deciding metric is not among those of an evaluation: no trial would have it."""


@dataclass(frozen=True)
class Goal:
    """The deciding metric, as `val/accuracy`, and whether a lower or higher value is better."""

    metric: str
    mode: Mode

    @property
    def higher_is_better(self) -> bool:
        """Whether a higher value is better."""
        return self.mode == "max"

    def of(self, metrics: Mapping[str, float]) -> float:
        """The deciding metric of an evaluation.

        Raises:
            NotMeasured: if it is not among them.
        """
        if self.metric not in metrics:
            raise NotMeasured(f"the space's metric {self.metric} is not among {', '.join(metrics)}")
        return metrics[self.metric]

    def rank(self, value: float | None) -> tuple[bool, float]:
        """A sort key: the best value first, None and NaN last."""
        missing = value is None or math.isnan(value)
        return missing, 0.0 if value is None or missing else -value if self.higher_is_better else value


@dataclass(frozen=True)
class Trial:
    """One trial of a sweep."""

    number: int
    """Counted from 0."""
    draw: dict[str, Any]
    """The values that the search drew, by its own names."""
    settings: dict[str, Any]
    """The settings that differ from the sweep's recipe, by names such as `optim.lr`."""
    state: TrialState = "running"
    """running: also if it was cut off; stopped: ended early, because others did better."""
    last: float | None = None
    """The deciding metric, at the newest evaluation."""
    best: float | None = None
    """The best value of the deciding metric so far."""
    step: int = 0
    seconds: float = 0.0
    error: str = ""
    """Why it failed, in one line."""
    batch: int = 0
    """The number of the first trial of its batch, those that are trained together."""
    batch_size: int = 1

    @property
    def id(self) -> str:
        """The name of its folder."""
        return f"{self.number:04d}"

    @property
    def ended(self) -> bool:
        """Whether it is over."""
        return self.state != "running"

    def measured(self, step: int, value: float, goal: Goal) -> Self:
        """This trial after another evaluation."""
        best = value if self.best is None else min(self.best, value, key=goal.rank)
        return replace(self, step=step, last=value, best=best)

    def followed(self, metrics: Iterable[Mapping[str, Any]], goal: Goal) -> Self:
        """This trial, with its state taken from the lines of its metrics.jsonl."""
        trial = replace(self, step=0, last=None, best=None)
        for line in metrics:
            if goal.metric in line:
                trial = trial.measured(line["step"], line[goal.metric], goal)
        return trial


@dataclass(frozen=True)
class SweepDirectory:
    """A sweep's files."""

    run: RunDirectory
    names: list[str] = field(default_factory=list)
    """The settings that vary, which are columns of trials.csv."""

    def trial_run(self, trial: Trial) -> RunDirectory:
        """The folder of a trial: an ordinary run, whose checkpoints may be gone."""
        return self.run.part(f"trials/{trial.id}")

    @property
    def best(self) -> RunDirectory:
        """The best trial as an ordinary run."""
        return self.run.part("best")

    def write_trials(self, trials: Iterable[Trial]) -> None:
        """Write the trial.json of each trial."""
        each(lambda trial: self.run.write_json(f"trials/{trial.id}/trial.json", asdict(trial)), trials)

    def trials(self) -> list[Trial]:
        """All trials that were started, in order."""
        numbers = self.run.names("trials")
        found = each(lambda name: self.run.read_json(f"trials/{name}/trial.json"), sorted(numbers))
        return [_trial(stored) for stored in found if stored is not None]

    def write_table(self, trials: Iterable[Trial]) -> None:
        """Write trials.csv."""
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow([*_FIRST_COLUMNS, *self.names, *_LAST_COLUMNS])
        for trial in trials:
            settings = [" ".join(shown_words(trial.settings[n])) if n in trial.settings else "" for n in self.names]
            values = ["" if value is None else repr(value) for value in (trial.last, trial.best)]
            ended = [trial.state, *values, trial.step, round(trial.seconds, 3), trial.error]
            table.writerow([trial.number, *settings, *ended])
        self.run.write("trials.csv", text.getvalue().encode())

    def copy_to_best(self, trial: Trial) -> None:
        """Copy a trial's run to `best`; result.json is written last, so the copy is complete once that exists."""
        source, best = self.trial_run(trial), self.best
        best.delete()
        # To a tracker the best run is no other run than the trial.
        copied = (path for path in source.paths() if not path.startswith("trackers/"))
        paths = sorted(copied, key=lambda path: path == "result.json")
        assert paths[-1] == "result.json"
        for path in paths:
            best.write(path, source.read(path))

    def best_trial(self) -> int | None:
        """The number of the trial in `best`, if that is whole."""
        best = self.best
        stored = best.read_json("trial.json") if best.exists("result.json") else None
        return stored["number"] if stored else None


def each(function: Callable[[Item], Done], items: Iterable[Item]) -> list[Done]:
    """`function` of each item, on threads: object stores have high latency, and answer many requests at once."""
    with ThreadPoolExecutor(_THREADS) as threads:
        return list(threads.map(function, items))


def _trial(stored: Mapping[str, Any]) -> Trial:
    return Trial(**{**stored, "settings": {name: _untupled(value) for name, value in stored["settings"].items()}})


def _untupled(value: Any) -> Any:
    """JSON has no tuples, and a setting no lists."""
    return tuple(map(_untupled, value)) if isinstance(value, list) else value


def one_line(error: BaseException) -> str:
    """An error as one line of a table."""
    text = str(error).strip().splitlines()
    return json.dumps(f"{type(error).__name__}: {text[0]}" if text else type(error).__name__, ensure_ascii=False)[1:-1]
