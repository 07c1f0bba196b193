"""What a run writes while it trains: checkpoints and metrics, on a thread of its own.

Training pays for a copy of the tensors in memory and for nothing else, unless a checkpoint falls due before the last
one is whole: then it waits for that.
"""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self

from blitz.errors import UserError
from blitz.run_files.directory import RunDirectory
from blitz.run_files.tensorboard import begin_event_file, event_record
from blitz.training.checkpoint import Checkpoint

_SECONDS_BETWEEN_METRICS = 10.0

_Line = tuple[float, Mapping[str, Any]]
"""Seconds since 1970, and a line of metrics.jsonl."""


class CheckpointWriter:
    """Writes for the leading rank; what cannot be written is raised by the next call, and at the end at the latest.

    One thing at a time is being written. Leaving the `with` block waits until all is written, also where an exception
    leaves it.
    """

    def __init__(self, run: RunDirectory, *, keep: int) -> None:
        self._run, self._keep, self._appends = run, keep, run.appends
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
        except UserError as lost:
            if error is None:
                raise
            # What ended the run comes first.
            error.add_note(str(lost))
        finally:
            self._thread.shutdown()

    def begin(self, step: int) -> int:
        """Leave in the run only what was so at `step`, as what came after it is about to be made again; the step that
        was reached."""
        reached = self._run.rewind(step)
        self._event_file = begin_event_file(self._run, step, time_s=time.time())
        return reached

    def add_metrics(self, line: Mapping[str, Any]) -> None:
        """Add a line to metrics.jsonl, and what it says to the event file.

        At once where a file can be appended to, else every ten seconds or so.
        """
        self._lines.append((time.time(), line))
        if self._appends:
            lines, self._lines = self._lines, []
            try:
                self._write_metrics(lines)
            except OSError as error:
                raise self._run.refused("written", error) from error
            return
        idle = self._in_flight is None or self._in_flight.done()
        if idle and time.monotonic() - self._lines_written >= _SECONDS_BETWEEN_METRICS:
            self._begin(self._write_metrics)

    def save(self, checkpoint: Checkpoint, *, best: int | None, beside: Mapping[str, Any] | None = None) -> None:
        """Begin to write a checkpoint, and to delete those that are then no longer kept.

        `beside` names JSON files of the run, and what they are to hold.

        Raises:
            UserError: if the storage did not take what was written before.
        """
        # In this order there is never more than one copy.
        self.wait()
        self._begin(self._write_checkpoint, checkpoint.copied(), best, beside or {})

    def finish(self) -> None:
        """Return once everything is written.

        Raises:
            UserError: if the storage did not take it.
        """
        self.wait()
        if self._lines:
            self._begin(self._write_metrics)
            self.wait()

    def wait(self) -> None:
        """Return once what is being written is.

        Raises:
            UserError: if the storage did not take it.
        """
        in_flight, self._in_flight = self._in_flight, None
        try:
            if in_flight:
                in_flight.result()
        except OSError as error:
            # It would not take these either, and a run that goes on makes them again.
            self._lines = []
            raise self._run.refused("written", error) from error

    def _begin(self, write: Callable[..., None], *what: Any) -> None:
        self.wait()
        lines, self._lines = self._lines, []
        self._lines_written = time.monotonic()
        self._in_flight = self._thread.submit(write, lines, *what)

    def _write_metrics(self, lines: list[_Line]) -> None:
        if lines:
            self._run.append_metrics(line for _, line in lines)
            self._run.append(self._event_file, b"".join(event_record(line, time_s=at) for at, line in lines))

    def _write_checkpoint(
        self, lines: list[_Line], checkpoint: Checkpoint, best: int | None, beside: Mapping[str, Any]
    ) -> None:
        # First: a run goes on from its newest checkpoint, and finds the metrics up to there.
        self._write_metrics(lines)
        for path, content in beside.items():
            self._run.write_json(path, content)
        checkpoint.save(self._run)
        steps = self._run.checkpoint_steps()
        for step in set(steps) - {best, *steps[-self._keep :]}:
            self._run.delete_checkpoint(step)
