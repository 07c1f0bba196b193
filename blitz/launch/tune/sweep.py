"""A sweep in progress: its trials, their results, and which is the best."""

import contextlib
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import groupby
from typing import Any

from blitz.launch.tune.search import GridSearch, Search
from blitz.launch.tune.sweep_plan import SweepPlan
from blitz.outputs.metrics import format_metric
from blitz.project import digests
from blitz.recipes import SOURCE_KEY
from blitz.run_files.code import write_sources
from blitz.run_files.sweep_directory import PACKS, Goal, NotMeasured, SweepDirectory, Trial, TrialState, one_line
from blitz.training.display import Display
from blitz.training.trial import MetricValues

_SECONDS_BETWEEN_TABLES = 2.0


class Sweep:
    """Hands out the trials to train, and records what becomes of them.

    Trials start in batches: of one, or of those that are trained as one pack. An interrupted batch restarts as a whole,
    whatever had ended in it, because which of its trials continue may depend on all of them.
    """

    def __init__(
        self, plan: SweepPlan, goal: Goal, directory: SweepDirectory, search: Search, display: Display
    ) -> None:
        self.plan, self.goal, self.directory, self.display = plan, goal, directory, display
        self._search = search
        self.trials = {trial.number: trial for trial in directory.trials()}
        self._started: dict[int, float] = {}
        self._table_written = 0.0
        self._interrupted = _interrupted(self.trials.values())
        restarting = {number for batch in self._interrupted for number in batch}
        for number, trial in self.trials.items():
            if number in restarting:
                search.add_running(number, trial.draw)
            else:
                search.tell(number, trial.draw, trial.best)
        self._next = max((trial.batch + trial.batch_size for trial in self.trials.values()), default=0)
        available = len(search) if isinstance(search, GridSearch) else plan.num_trials
        self.total = max(self._next, min(plan.num_trials, available))
        sources = plan.recipe.sources()
        write_sources(directory.run, sources)
        stored = {**plan.to_json(), "metric": goal.metric, "mode": goal.mode, "num_trials": self.total}
        directory.run.write_json("sweep.json", {**stored, **({SOURCE_KEY: digests(sources)} if sources else {})})

    @property
    def left(self) -> int:
        """How many trials have yet to start."""
        return sum(map(len, self._interrupted)) + self.total - self._next

    def next(self) -> Trial | None:
        """Start the next trial; None if there is none."""
        if self._interrupted:
            first, *others = self._interrupted.pop(0)
            self._interrupted[:0] = [[number] for number in others]
            return self._start([first])[0]
        return next(iter(self.next_batch(1)), None)

    def next_batch(self, size: int) -> list[Trial]:
        """Start the next trials, at most `size`, which are trained together; their numbers are consecutive."""
        if self._interrupted:
            return self._start(self._interrupted.pop(0))
        numbers = list(range(self._next, min(self._next + size, self.total)))
        self._next += len(numbers)
        return self._start(numbers)

    def _start(self, numbers: list[int]) -> list[Trial]:
        now = time.monotonic()
        for number in numbers:
            draw = self.trials[number].draw if number in self.trials else self._search.draw(number)
            assert draw is not None
            settings = self.plan.space.settings(draw)
            self.trials[number] = Trial(number, draw, settings, batch=numbers[0], batch_size=len(numbers))
            self._started[number] = now
        started = [self.trials[number] for number in numbers]
        self.directory.write_trials(started)
        return started

    def record(self, number: int, step: int, metrics: MetricValues) -> float:
        """Record an evaluation; the value of the sweep's metric.

        Raises:
            NotMeasured: if the evaluation does not have that metric.
        """
        value = self.goal.of(metrics)
        self.trials[number] = self.trials[number].measured(step, value, self.goal)
        return value

    def end(
        self,
        number: int,
        state: TrialState,
        *,
        error: str = "",
        metrics: Iterable[Mapping[str, Any]] | None = None,
    ) -> None:
        """Record how a trial ended; without `metrics`, the lines of its metrics.jsonl are read."""
        run = self.directory.trial_run(self.trials[number])
        trial = self.trials[number].followed(run.metrics() if metrics is None else metrics, self.goal)
        if state == "finished" and trial.best is None:
            state, error = "failed", f"it was never evaluated, so there is no {self.goal.metric}"
        trial = replace(trial, state=state, error=error, seconds=time.monotonic() - self._started[number])
        self.trials[number] = trial
        self._search.tell(number, trial.draw, None if state == "failed" else trial.best)
        self.directory.write_trials([trial])
        self._keep_the_best(trial, has_files=metrics is None)
        if time.monotonic() - self._table_written > _SECONDS_BETWEEN_TABLES:
            self.write_table()
        self.display.line(self._summary(trial))

    def past_values(self, number: int) -> list[float]:
        """The sweep's metric at each evaluation of a trial so far, except those that it will repeat when it resumes."""
        trial, run = self.trials[number], self.directory.trial_run(self.trials[number])
        last = trial.step if trial.ended else max(run.checkpoint_steps(), default=0)
        return [line[self.goal.metric] for line in run.metrics() if self.goal.metric in line and line["step"] <= last]

    @contextlib.contextmanager
    def recording_failure(self, trial: Trial) -> Iterator[None]:
        """Within this context an exception ends the trial as failed; the sweep continues."""
        try:
            yield
        except NotMeasured:
            raise
        except Exception as error:
            self.fail(trial.number, one_line(error), traceback.format_exc())

    def fail(self, number: int, error: str, trace: str) -> None:
        """Record that a trial failed."""
        self.directory.run.write(f"trials/{self.trials[number].id}/error.log", trace.encode())
        self.end(number, "failed", error=error)

    def rank(self, trial: Trial) -> tuple[tuple[bool, float], int]:
        """A sort key that puts the best trial first, and the lower number first among equals."""
        return self.goal.rank(trial.best), trial.number

    def best(self) -> Trial | None:
        """The best finished trial; None if none has finished."""
        finished = [trial for trial in self.trials.values() if trial.state == "finished"]
        return min(finished, key=self.rank, default=None)

    def _keep_the_best(self, trial: Trial, *, has_files: bool) -> None:
        """Keep the best trial in best/, and checkpoints nowhere else."""
        best, run = self.best(), self.directory.trial_run(trial)
        if best is not None and best.number == trial.number:
            self.directory.copy_to_best(trial)
            has_files = True
        if has_files and run.exists("checkpoints"):
            run.delete_folder("checkpoints")

    def finish(self) -> Trial | None:
        """Write the final table; the best trial, whose run is then in best/."""
        best = self.best()
        # The sweep may have been killed between a trial's end and its copy.
        if best is not None and self.directory.best_trial() != best.number:
            self.directory.copy_to_best(best)
        if self.directory.run.exists(PACKS):
            # Of a pack that was recorded and then killed.
            self.directory.run.delete_folder(PACKS)
        self.write_table()
        return best

    def write_table(self) -> None:
        """Write trials.csv."""
        self._table_written = time.monotonic()
        self.directory.write_table(self.trials[number] for number in sorted(self.trials))

    def _summary(self, trial: Trial) -> str:
        best = "" if trial.best is None else f"  {self.goal.metric} {format_metric(trial.best)}"
        settings = "  ".join(f"{name} {_brief(value)}" for name, value in trial.settings.items())
        return f"trial {trial.number} {trial.state}{best}  {settings}{f'  {trial.error}' if trial.error else ''}"


def _interrupted(trials: Iterable[Trial]) -> list[list[int]]:
    """The trial numbers of each batch in which not all trials have ended."""
    batches = [
        (first, list(members))
        for first, members in groupby(sorted(trials, key=lambda trial: trial.number), key=lambda trial: trial.batch)
    ]
    return [
        list(range(first, first + members[0].batch_size))
        for first, members in batches
        if len(members) < members[0].batch_size or not all(trial.ended for trial in members)
    ]


def _brief(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
