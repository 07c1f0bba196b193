"""A sweep in progress: which trials there are, what each has come to, and which is the best."""

import contextlib
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import groupby
from typing import Any

from blitz.launch.tune.search import GridSearch, Search
from blitz.launch.tune.sweep_plan import SweepPlan
from blitz.outputs.metrics import shown_figure
from blitz.runs.sweep_directory import Goal, NotMeasured, SweepDirectory, Trial, TrialState, one_line
from blitz.training.display import Display
from blitz.training.trial import Figures

_SECONDS_BETWEEN_TABLES = 2.0


class Sweep:
    """The trials: the next to begin, and what is known of those that have begun.

    Trials begin in batches, of one or of those that are trained as one. A batch that was cut off begins once more as a
    whole, whatever had ended in it: which of its trials go on may depend on all of them.
    """

    def __init__(
        self, plan: SweepPlan, goal: Goal, directory: SweepDirectory, search: Search, display: Display
    ) -> None:
        self.plan, self.goal, self.directory, self.display = plan, goal, directory, display
        self._search = search
        self.trials = {trial.number: trial for trial in directory.trials()}
        self._began: dict[int, float] = {}
        self._table_written = 0.0
        self._cut_off = _cut_off(self.trials.values())
        beginning = {number for batch in self._cut_off for number in batch}
        for number, trial in self.trials.items():
            if number in beginning:
                search.begun(number, trial.draw)
            else:
                search.tell(number, trial.draw, trial.best)
        self._next = max((trial.batch + trial.batch_size for trial in self.trials.values()), default=0)
        most = len(search) if isinstance(search, GridSearch) else plan.num_trials
        self.total = max(self._next, min(plan.num_trials, most))
        directory.run.write_json(
            "sweep.json", {**plan.to_json(), "metric": goal.metric, "mode": goal.mode, "num_trials": self.total}
        )

    @property
    def left(self) -> int:
        """How many trials have still to begin."""
        return sum(map(len, self._cut_off)) + self.total - self._next

    def next(self) -> Trial | None:
        """The next trial, which has now begun."""
        if self._cut_off:
            first, *others = self._cut_off.pop(0)
            self._cut_off[:0] = [[number] for number in others]
            return self._begin([first])[0]
        return next(iter(self.next_batch(1)), None)

    def next_batch(self, most: int) -> list[Trial]:
        """The next trials that are to be trained together, which have now begun; their numbers are in a row."""
        if self._cut_off:
            return self._begin(self._cut_off.pop(0))
        numbers = list(range(self._next, min(self._next + most, self.total)))
        self._next += len(numbers)
        return self._begin(numbers)

    def _begin(self, numbers: list[int]) -> list[Trial]:
        now = time.monotonic()
        for number in numbers:
            draw = self.trials[number].draw if number in self.trials else self._search.draw(number)
            assert draw is not None
            settings = self.plan.space.settings(draw)
            self.trials[number] = Trial(number, draw, settings, batch=numbers[0], batch_size=len(numbers))
            self._began[number] = now
        begun = [self.trials[number] for number in numbers]
        self.directory.write_trials(begun)
        return begun

    def measured(self, number: int, step: int, figures: Figures) -> float:
        """Note an evaluation; the figure that decides.

        Raises:
            NotMeasured: if that is not among them.
        """
        value = self.goal.of(figures)
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
        """Note how a trial ended; the lines of its metrics are those in its files, if they are not given."""
        run = self.directory.trial_run(self.trials[number])
        trial = self.trials[number].followed(run.metrics() if metrics is None else metrics, self.goal)
        if state == "finished" and trial.best is None:
            state, error = "failed", f"it was never evaluated, so that there is no {self.goal.metric}"
        trial = replace(trial, state=state, error=error, seconds=time.monotonic() - self._began[number])
        self.trials[number] = trial
        self._search.tell(number, trial.draw, None if state == "failed" else trial.best)
        self.directory.write_trials([trial])
        self._keep_the_best(trial, has_files=metrics is None)
        if time.monotonic() - self._table_written > _SECONDS_BETWEEN_TABLES:
            self.write_table()
        self.display.line(self._said_of(trial))

    def before(self, number: int) -> list[float]:
        """The figures that decide of a trial's evaluations up to now, but for those that it is going to make anew."""
        trial, run = self.trials[number], self.directory.trial_run(self.trials[number])
        last = trial.step if trial.ended else max(run.checkpoint_steps(), default=0)
        return [line[self.goal.metric] for line in run.metrics() if self.goal.metric in line and line["step"] <= last]

    @contextlib.contextmanager
    def failing(self, trial: Trial) -> Iterator[None]:
        """Note what the block raises as that trial's end; the others go on."""
        try:
            yield
        except NotMeasured:
            raise
        except Exception as error:
            self.failed(trial.number, one_line(error), traceback.format_exc())

    def failed(self, number: int, error: str, trace: str) -> None:
        """Note that a trial raised."""
        self.directory.run.write(f"trials/{self.trials[number].id}/error.log", trace.encode())
        self.end(number, "failed", error=error)

    def rank(self, trial: Trial) -> tuple[tuple[bool, float], int]:
        """What sorts trials, the best first; the first of equals is better."""
        return self.goal.rank(trial.best), trial.number

    def best(self) -> Trial | None:
        """The best of those that went to their end; None where there are none."""
        finished = [trial for trial in self.trials.values() if trial.state == "finished"]
        return min(finished, key=self.rank, default=None)

    def _keep_the_best(self, trial: Trial, *, has_files: bool) -> None:
        """Have the best trial in best/, and no checkpoints elsewhere."""
        best, run = self.best(), self.directory.trial_run(trial)
        if best is not None and best.number == trial.number:
            self.directory.copy_to_best(trial)
            has_files = True
        if has_files and run.exists("checkpoints"):
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
        figure = "" if trial.best is None else f"  {self.goal.metric} {shown_figure(trial.best)}"
        settings = "  ".join(f"{name} {_brief(value)}" for name, value in trial.settings.items())
        return f"trial {trial.number} {trial.state}{figure}  {settings}{f'  {trial.error}' if trial.error else ''}"


def _cut_off(trials: Iterable[Trial]) -> list[list[int]]:
    """The numbers of each batch that has not ended in all of its trials."""
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
