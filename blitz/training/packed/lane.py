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
    """Optimizer steps that it took; where it failed, the one that failed is the last of them."""
    reason: str | None
    """Why it ended before the plan did."""
    last: Checkpoint | None
    """As the solo run would write it after its last step; none of a lane that failed."""
    best: Checkpoint | None
    """The checkpoint of the best evaluation; may be `last` itself. None before any evaluation."""


class Listener(Protocol):
    """Receives the reports of a pack; lanes are numbered by their index in `PackJob.recipes`."""

    def step(self, number: int, lanes: int) -> None:
        """So many steps are done, and so many lanes are left."""

    def line(self, lane: int, values: Mapping[str, float]) -> None:
        """What the solo run would append to metrics.jsonl: `step`, `epoch`, and `train/loss` and others, or `val/…`."""

    def lane_ended(self, lane: int, end: LaneEnd) -> None:
        """The lane's last sign; every lane ends once."""
