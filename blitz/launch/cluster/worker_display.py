"""The progress of a worker, drawn by the driver: one bar for all ranks, as in a run in this process."""

import io
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field

from ray.util.queue import Queue

from blitz.launch.progress_bar import ProgressBar
from blitz.training.display import Display, Silence

_SECONDS_BETWEEN_UPDATES = 0.2


@dataclass
class _Update:
    step: int | None = None
    loss: float | None = None
    lines: list[str] = field(default_factory=list)


class QueueDisplay:
    """Sends updates to the driver through a queue, at most a few times a second."""

    def __init__(self, queue: Queue) -> None:
        self._queue, self._update, self._sent = queue, _Update(), time.monotonic()

    def step(self, number: int) -> None:
        """Report that `number` steps are done."""
        self._update.step = number
        if time.monotonic() - self._sent > _SECONDS_BETWEEN_UPDATES:
            self.send()

    def loss(self, value: float) -> None:
        """Report the newest mean training loss."""
        self._update.loss = value

    def line(self, text: str) -> None:
        """Report a line for the user."""
        self._update.lines.append(text)
        self.send()

    def send(self) -> None:
        """Send the pending update."""
        self._queue.put(self._update)
        self._update, self._sent = _Update(), time.monotonic()


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
    display.send()


@contextmanager
def displayed(queue: Queue, *, first_step: int, total_steps: int) -> Iterator[None]:
    """Draw the updates from `queue` on this terminal."""
    with ProgressBar(first_step=first_step, total_steps=total_steps) as bar:
        thread = threading.Thread(target=_draw, args=(queue, bar), daemon=True)
        thread.start()
        try:
            yield
        finally:
            queue.put(None)
            thread.join()


def _draw(queue: Queue, bar: ProgressBar) -> None:
    while (update := queue.get()) is not None:
        if update.step is not None:
            bar.step(update.step)
        if update.loss is not None:
            bar.loss(update.loss)
        for line in update.lines:
            bar.line(line)
