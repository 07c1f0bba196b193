"""How long a restart of the workers takes: from the failure that Ray Train has noticed to the next step."""

import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import ray
import ray.train

from blitz.data.plan import Block
from blitz.launch.cluster import IMPORTED_AT
from blitz.launch.cluster.ray_internals import leave_note, take_note
from blitz.run_files.directory import RunDirectory
from blitz.training.display import Display


@dataclass(frozen=True)
class NotesFailures(ray.train.UserCallback):
    """Notes on the cluster when the controller notices that a worker has failed or died."""

    run: RunDirectory

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Leave the time for the workers that are started next."""
        leave_note(_name(self.run), str(time.time()))


def _name(run: RunDirectory) -> str:
    # A note that the controller leaves at its end is not for the next command on the same run.
    return f"blitz-failed {ray.get_runtime_context().get_job_id()} {run}"


@dataclass
class RestartTimes:
    """A display that adds the event `restarted` to the run after the first step, with the seconds of each part.

    `processes` ends when a worker begins to import torch, `torch` with its process group, `restore` with the model and
    the checkpoint, `rows` with the first block, part of whose wait is within `restore`, and `step` with the next step.
    """

    run: RunDirectory
    display: Display
    noticed: float
    """When Ray Train noticed the failure, in seconds since 1970."""
    ended: float
    """When the last part ended, in seconds since 1970."""
    seconds: dict[str, float] = field(default_factory=dict)

    def end(self, part: str, at: float | None = None) -> None:
        """A part ends now, or at that time."""
        at = time.time() if at is None else at
        self.seconds[part], self.ended = round(at - self.ended, 3), at

    def timed(self, blocks: Iterable[Block]) -> Iterator[Block]:
        """Yields the blocks."""
        self.end("restore")
        for block in blocks:
            if "rows" not in self.seconds:
                self.end("rows")
            yield block

    def step(self, number: int) -> None:
        """Report that `number` steps are done."""
        self.display.step(number)
        if "step" not in self.seconds:
            self.end("step")
            event = {"what": "restarted", "time": round(self.ended, 3), "step": number, "seconds": self.seconds}
            with suppress(OSError):
                self.run.add_event(event)

    def loss(self, value: float) -> None:
        """Report the newest mean training loss."""
        self.display.loss(value)

    def line(self, text: str) -> None:
        """Report a line for the user."""
        self.display.line(text)


def restart_times(run: RunDirectory, display: Display) -> RestartTimes | None:
    """The times of this start of the workers, of which two parts have ended; None if it follows no failure."""
    noticed = take_note(_name(run))
    if noticed is None:
        return None
    times = RestartTimes(run, display, float(noticed), float(noticed))
    times.end("processes", IMPORTED_AT)
    times.end("torch")
    return times
