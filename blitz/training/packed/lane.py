"""What a pack reports of each lane."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from blitz.training.checkpoint import Checkpoint

Ending = Literal["finished", "stopped", "failed"]
"""`stopped` is stopped at a rung; `failed` is a loss or gradient that was not finite."""


@dataclass(frozen=True)
class LaneEnd:
    """How a lane ended."""

    state: Ending
    step: int
    """Optimizer steps that it took, including the one that failed."""
    reason: str | None
    """Why it ended before the plan did."""
    last: Checkpoint | None
    """The checkpoint that the solo run would write after its last step; None if the lane failed."""
    best: Checkpoint | None
    """The checkpoint of the best evaluation; may be `last` itself. None before any evaluation."""


class Listener(Protocol):
    """Receives the reports of a pack; lanes are numbered by their index in `PackJob.recipes`."""

    def step(self, number: int, lanes: int) -> None:
        """`number` steps are done, and `lanes` lanes are left."""

    def line(self, lane: int, values: Mapping[str, float]) -> None:
        """The line that the solo run would append to metrics.jsonl: `step`, `epoch`, and `train/loss` …, or `val/…`."""

    def lane_ended(self, lane: int, end: LaneEnd) -> None:
        """The lane has ended; called once for every lane."""
