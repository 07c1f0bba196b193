"""When to write checkpoints other than every so many steps: by the clock, and before a machine is preempted.

Rank 0's clock and rank 0's poll decide for all ranks. The ranks exchange them about once a second, after a step that
they have agreed on, so every other step pays only for a comparison of two integers.
"""

import math
import time

import torch

from blitz.training.session import Preemption, Session

_SECONDS_BETWEEN_POLLS = 1.0
_SECONDS_BETWEEN_SAVES = 10.0
"""Once preemption is announced; work since the last checkpoint is lost and repeated."""


class CheckpointTrigger:
    """Whether to write a checkpoint after a step: the same answer on every rank."""

    def __init__(self, session: Session, *, every_seconds: float | None) -> None:
        self._world, self._poll, self._display = session.world, session.preemption, session.display
        self._every_s = math.inf if every_seconds is None else every_seconds
        self._next_step = session.first_step + 1
        self._polled_step, self._polled_at = session.first_step, time.monotonic()
        self._saved_at, self._is_new = time.monotonic(), True

    def after(self, step: int) -> Preemption:
        """NONE: write none; SAVE: write one; STOP: write one and stop."""
        if step < self._next_step:
            return Preemption.NONE
        now, polled = time.monotonic(), self._poll()
        if polled == Preemption.SAVE and self._is_new:
            self._display.line(f"step {step}: a machine is about to be preempted; saved now, and every few seconds")
        steps_a_second = (step - self._polled_step) / max(now - self._polled_at, 1e-9)
        self._polled_step, self._polled_at = step, now
        wait = max(1, int(min(_SECONDS_BETWEEN_POLLS, self._every_s) * steps_a_second))
        answer = (
            torch.tensor([self._decide(polled, now), wait]) if self._world.leads else torch.zeros(2, dtype=torch.int64)
        )
        decision, wait = self._world.sum(answer).tolist()
        self._next_step = step + wait
        return Preemption(decision)

    def saved(self) -> None:
        """Note that a checkpoint has been started."""
        self._saved_at = time.monotonic()

    def _decide(self, polled: Preemption, now: float) -> Preemption:
        if polled == Preemption.STOP or (polled == Preemption.SAVE and self._is_new):
            self._is_new = False
            return polled
        every_s = self._every_s if polled == Preemption.NONE else min(self._every_s, _SECONDS_BETWEEN_SAVES)
        return Preemption.SAVE if now - self._saved_at >= every_s else Preemption.NONE
