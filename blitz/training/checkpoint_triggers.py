"""Checkpoints that no count of steps asks for: those by the clock, and those for a machine that is about to be taken.

Rank 0's clock and rank 0's notice decide for all. The ranks ask them together about once a second, after a step that
they have agreed on, so a step itself pays for a comparison of two integers.
"""

import math
import time
from collections.abc import Callable
from enum import IntEnum

import torch

from blitz.training.display import Display
from blitz.training.world import World

_SECONDS_BETWEEN_ASKING = 1.0
_SECONDS_BETWEEN_SAVING = 10.0
"""Once a machine is about to be taken; what was done since the last checkpoint is done again."""


class Notice(IntEnum):
    """What a run has been told of the place that it runs in."""

    NONE = 0
    SAVE = 1
    """A machine is about to be taken; until then go on."""
    LEAVE = 2
    """Save and leave."""


NoticeBoard = Callable[[], Notice]
"""What there is to be told now. On several ranks all look at it equally often."""


def nothing_told() -> Notice:
    """Where nobody gives notice."""
    return Notice.NONE


class SaveCalls:
    """Whether a checkpoint is called for after a step: the same answer on every rank."""

    def __init__(
        self, world: World, board: NoticeBoard, display: Display, *, every_seconds: float | None, first_step: int
    ) -> None:
        self._world, self._board, self._display = world, board, display
        self._every_s = math.inf if every_seconds is None else every_seconds
        self._next_step = first_step + 1
        self._asked_step, self._asked_at = first_step, time.monotonic()
        self._saved_at, self._is_new = time.monotonic(), True

    def after(self, step: int) -> Notice:
        """NONE: none is called for; SAVE: one is; LEAVE: one is, and it is the last."""
        if step < self._next_step:
            return Notice.NONE
        now, told = time.monotonic(), self._board()
        if told == Notice.SAVE and self._is_new:
            self._display.line(f"step {step}: a machine is about to be taken away; saved here, and every few seconds")
        steps_a_second = (step - self._asked_step) / max(now - self._asked_at, 1e-9)
        self._asked_step, self._asked_at = step, now
        wait = max(1, int(min(_SECONDS_BETWEEN_ASKING, self._every_s) * steps_a_second))
        answer = torch.tensor([self._call(told, now), wait]) if self._world.leads else torch.zeros(2, dtype=torch.int64)
        call, wait = self._world.sum(answer).tolist()
        self._next_step = step + wait
        return Notice(call)

    def saved(self) -> None:
        """A checkpoint has been begun."""
        self._saved_at = time.monotonic()

    def _call(self, told: Notice, now: float) -> Notice:
        if told == Notice.LEAVE or (told == Notice.SAVE and self._is_new):
            self._is_new = False
            return told
        every_s = self._every_s if told == Notice.NONE else min(self._every_s, _SECONDS_BETWEEN_SAVING)
        return Notice.SAVE if now - self._saved_at >= every_s else Notice.NONE
