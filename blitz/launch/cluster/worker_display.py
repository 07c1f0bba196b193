"""The progress of a worker, drawn by the driver: one bar for all ranks, as in a run in this process."""

import io
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any, Protocol

import ray
from ray.util.queue import Empty, Queue

from blitz.launch.progress_bar import ProgressBar
from blitz.training.display import Display, Silence

_SECONDS_BETWEEN_UPDATES = 0.2
_SECONDS_BETWEEN_LOOKS = 2.0
"""Between looks at the heartbeats, while nothing arrives."""


_Update = tuple[int | None, float | None, list[str]]
"""Step, loss and lines: the queue's process reads it too, and would import torch for a class of this module."""


class Watch(Protocol):
    """Judges heartbeats of the ranks."""

    def receive(self, beat: Mapping[str, Any]) -> None:
        """A rank has sent one."""

    def look(self, display: Display) -> None:
        """Report what is to be reported; called again and again."""


class QueueDisplay:
    """Sends updates to the driver through a queue, at most a few times a second."""

    def __init__(self, queue: Queue) -> None:
        self._queue, self._sent = queue, time.monotonic()
        self._step: int | None = None
        self._loss: float | None = None
        self._lines: list[str] = []

    def step(self, number: int) -> None:
        """Report that `number` steps are done."""
        self._step = number
        if time.monotonic() - self._sent > _SECONDS_BETWEEN_UPDATES:
            self.send()

    def loss(self, value: float) -> None:
        """Report the newest mean training loss."""
        self._loss = value

    def line(self, text: str) -> None:
        """Report a line for the user."""
        self._lines.append(text)
        self.send()

    def send(self) -> Any:
        """Send the pending update without waiting for it to arrive; returns what to wait for."""
        update: _Update = self._step, self._loss, self._lines
        self._step, self._loss, self._lines, self._sent = None, None, [], time.monotonic()
        # Not `Queue.put`, which waits for the answer: training would wait for a process that is starting.
        return self._queue.actor.put_nowait.remote(update)  # type: ignore[attr-defined]


class _Lines(io.TextIOBase):
    """A text stream whose lines go to a display."""

    def __init__(self, display: Display) -> None:
        self._display, self._rest = display, ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._display.line(line)
        return len(text)


@contextmanager
def worker_display(queue: Queue, *, leads: bool) -> Iterator[Display]:
    """The display of a worker; the leading one's standard output goes to the driver too."""
    if not leads:
        yield Silence()
        return
    display = QueueDisplay(queue)
    with redirect_stdout(_Lines(display)):
        yield display
    ray.get(display.send())


@contextmanager
def displayed(queue: Queue, watches: Sequence[Watch], *, first_step: int, total_steps: int) -> Iterator[None]:
    """Draw the updates from `queue` on this terminal, and let `watches` judge the heartbeats from it."""
    with ProgressBar(first_step=first_step, total_steps=total_steps) as bar:
        thread = threading.Thread(target=_draw, args=(queue, bar, watches), daemon=True)
        thread.start()
        try:
            yield
        finally:
            queue.put(None)
            thread.join()


def _draw(queue: Queue, bar: ProgressBar, watches: Sequence[Watch]) -> None:
    while (update := _next_update(queue, _SECONDS_BETWEEN_LOOKS if watches else None)) is not None:
        for watch in watches:
            if isinstance(update, dict):
                watch.receive(update)
            watch.look(bar)
        if isinstance(update, tuple) and update:
            _draw_one(update, bar)


def _draw_one(update: _Update, bar: ProgressBar) -> None:
    step, loss, lines = update
    if step is not None:
        bar.step(step)
    if loss is not None:
        bar.loss(loss)
    for line in lines:
        bar.line(line)


def _next_update(queue: Queue, timeout_s: float | None) -> Any:
    """An update, a heartbeat, or within the timeout neither; None at the end."""
    try:
        return queue.get(timeout=timeout_s)
    except Empty:
        return ()
