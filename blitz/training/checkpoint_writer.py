"""Writes checkpoints and metrics while a run trains, on a separate thread.

Training only pays for a copy of the tensors in memory, unless a checkpoint is due before the last one is complete:
then it waits for that.
"""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self

from blitz.errors import UserError
from blitz.run_files.directory import RunDirectory
from blitz.run_files.tensorboard import begin_event_file, event_record
from blitz.training.checkpoint import Checkpoint
from blitz.training.sharding import WHOLE, Part

_SECONDS_BETWEEN_METRICS = 10.0

_Line = tuple[float, Mapping[str, Any]]
"""Seconds since 1970, and a line of metrics.jsonl."""


class CheckpointWriter:
    """Writes for rank 0, or each rank's `part`; an error while writing is raised by the next call, at the latest at
    the end.

    Writes happen one at a time. Leaving the `with` block waits until everything is written, also after an exception.
    """

    def __init__(self, run: RunDirectory, *, keep: int, part: Part = WHOLE) -> None:
        self.run, self._keep, self._appends, self._part = run, keep, run.appends, part
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._in_flight: Future[None] | None = None
        self._lines: list[_Line] = []
        self._lines_written = time.monotonic()
        self._event_file = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        try:
            self.finish()
        except (UserError, RuntimeError) as lost:
            # A RuntimeError is torch's, where a rank that wrote its part is gone.
            if error is None:
                raise
            # The error that ended the run comes first.
            error.add_note(str(lost))
        finally:
            self._thread.shutdown()

    def begin(self, step: int) -> int:
        """Delete what the run has after `step`, which will be made again; returns the step that was reached."""
        reached = self.run.rewind(step)
        self._event_file = begin_event_file(self.run, step, time_s=time.time())
        return reached

    def add_metrics(self, line: Mapping[str, Any]) -> None:
        """Add a line to metrics.jsonl and to the event file.

        Written at once if the storage can append, else about every ten seconds.
        """
        self._lines.append((time.time(), line))
        if self._appends:
            lines, self._lines = self._lines, []
            try:
                self._write_metrics(lines)
            except OSError as error:
                raise self.run.refused("written", error) from error
            return
        idle = self._in_flight is None or self._in_flight.done()
        if idle and time.monotonic() - self._lines_written >= _SECONDS_BETWEEN_METRICS:
            self._begin(self._write_metrics)

    def save(self, checkpoint: Checkpoint, *, best: int | None, beside: Mapping[str, Any] | None = None) -> None:
        """Start writing a checkpoint, and then deleting those that are no longer kept.

        `beside` maps names of JSON files of the run to their new content.

        Raises:
            UserError: if an earlier write failed.
        """
        # In this order there is never more than one copy.
        self.wait()
        copy = checkpoint.copied(leads=self._part.rank == 0)
        self._begin(self._write_checkpoint, copy, best, beside or {})

    def finish(self) -> None:
        """Return once everything is written.

        Raises:
            UserError: if the storage could not be written.
        """
        self.wait()
        if self._lines:
            self._begin(self._write_metrics)
            self.wait()

    def wait(self) -> None:
        """Return once the write in progress is done.

        Raises:
            UserError: if the storage could not be written.
        """
        in_flight, self._in_flight = self._in_flight, None
        try:
            if in_flight:
                in_flight.result()
        except OSError as error:
            # They could not be written either, and a resumed run makes them again.
            self._lines = []
            raise self.run.refused("written", error) from error

    def _begin(self, write: Callable[..., None], *what: Any) -> None:
        self.wait()
        lines, self._lines = self._lines, []
        self._lines_written = time.monotonic()
        self._in_flight = self._thread.submit(write, lines, *what)

    def _write_metrics(self, lines: list[_Line]) -> None:
        if lines:
            self.run.append_metrics(line for _, line in lines)
            self.run.append(self._event_file, b"".join(event_record(line, time_s=at) for at, line in lines))

    def _write_checkpoint(
        self, lines: list[_Line], checkpoint: Checkpoint, best: int | None, beside: Mapping[str, Any]
    ) -> None:
        # First the metrics: a run that resumes from this checkpoint must find the metrics up to there.
        self._write_metrics(lines)
        for path, content in beside.items():
            self.run.write_json(path, content)
        checkpoint.save(self.run, self._part)
        if self._part.rank:
            return
        steps = self.run.checkpoint_steps()
        for step in set(steps) - {best, *steps[-self._keep :]}:
            self.run.delete_checkpoint(step)
