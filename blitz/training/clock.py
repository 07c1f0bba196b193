"""How a run spends its time: every moment is counted for one account."""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from blitz.data.plan import Block

Account = Literal["start", "data", "compute", "evaluation", "checkpoint"]
_STEPS_BETWEEN_SAMPLES = 10
_SECONDS_BETWEEN_MEASUREMENTS = 2.0
_COUNTED: tuple[Account, ...] = ("data", "compute", "evaluation", "checkpoint")


@dataclass(frozen=True)
class StepParts:
    """Mean seconds of a step of this rank."""

    steps: int
    """The number of steps."""
    data_s: float
    """Waiting for rows."""
    own_s: float
    """Computing."""
    others_s: float
    """Waiting for other ranks, in the last step in which torch measured it."""


class Clock:
    """Seconds of this process by account, since the last `lap`.

    `start` lasts until training begins and is not in a lap. `data` is waiting for rows to train on, `checkpoint` the
    time that the loop spends on writing, and `compute` everything else. On a GPU the loop runs ahead of the device, and
    waits for it where it reads the loss: that too is `compute`.

    Another thread may read `account`, `steps`, `since` and `longest_s` to see whether training makes progress.
    """

    def __init__(self) -> None:
        self.account: Account = "start"
        self.steps = 0
        """Steps done."""
        self.since = time.perf_counter()
        """When training last made progress: a step was done, or another account began."""
        self.longest_s = 0.0
        """The longest that a part of a step has taken, the first step apart."""
        self._replica: Any = None
        self._others_s, self._asked = 0.0, self.since
        self._rows = 0
        self._lap = dict.fromkeys(_COUNTED, 0.0)
        self._before_lap = dict.fromkeys(_COUNTED, 0.0)

    def _switch_to(self, account: Account, *, spent: Account | None = None) -> None:
        now, spent = time.perf_counter(), spent or self.account
        seconds = now - self.since
        if spent != "start":
            self._lap[spent] += seconds
        if seconds > self.longest_s and self.steps and spent in ("data", "compute"):
            self.longest_s = seconds
        self.account, self.since = account, now

    @contextmanager
    def on(self, account: Account) -> Iterator[None]:
        """Count the time spent in this context for `account`."""
        before = self.account
        self._switch_to(account)
        yield
        self._switch_to(before)

    def timed(self, blocks: Iterable[Block]) -> Iterator[Block]:
        """Yields `blocks`; waiting for a block of evaluation rows counts as evaluation."""
        self._switch_to("data")
        for block in blocks:
            self._switch_to("compute", spent="data" if block.chunk.split == "train" else "evaluation")
            yield block
            self._switch_to("data")
        self._switch_to("compute")

    def step(self, rows: int) -> None:
        """Count a step that is done, on so many rows."""
        self._switch_to(self.account)
        self.steps += 1
        self._rows += rows
        if self._replica is not None and self.since - self._asked > _SECONDS_BETWEEN_MEASUREMENTS:
            self._others_s, self._asked = _wait_for_others(self._replica), self.since

    def lap(self) -> dict[str, float]:
        """`examples_per_second` of training, without evaluation and checkpoints, and `<account>_seconds`; then reset
        them."""
        self._switch_to(self.account)
        trained = self._lap["data"] + self._lap["compute"]
        rate = {"examples_per_second": round(self._rows / trained, 1)} if self._rows else {}
        seconds = {f"{account}_seconds": round(spent, 4) for account, spent in self._lap.items()}
        self._before_lap = self.total
        self._rows, self._lap = 0, dict.fromkeys(_COUNTED, 0.0)
        return {**rate, **seconds}

    @property
    def total(self) -> dict[Account, float]:
        """The seconds of each account over all laps, and before `resume_from`."""
        return {account: self._before_lap[account] + spent for account, spent in self._lap.items()}

    def measure(self, replica: Any) -> None:
        """Measure how long this rank waits for the others, if the model is a DistributedDataParallel one."""
        if hasattr(replica, "_get_ddp_logging_data"):
            replica._set_ddp_runtime_logging_sample_rate(_STEPS_BETWEEN_SAMPLES)
            self._replica = replica

    def parts_since(self, before: "ClockReading") -> tuple[StepParts | None, "ClockReading"]:
        """The parts of the steps since another reading, and a new one; called by another thread."""
        now = ClockReading(self.steps, self.total["data"], self.total["compute"])
        steps = now.steps - before.steps
        if not steps:
            return None, before
        data_s, compute_s = (now.data_s - before.data_s) / steps, (now.compute_s - before.compute_s) / steps
        others_s = min(max(0.0, compute_s), self._others_s)
        return StepParts(steps, max(0.0, data_s), max(0.0, compute_s - others_s), others_s), now

    def resume_from(self, total: Mapping[str, float]) -> None:
        """Count from the `total` of the checkpoint that the run resumes from."""
        self._before_lap = {account: total.get(account, 0.0) for account in _COUNTED}


@dataclass(frozen=True)
class ClockReading:
    """What a clock has counted so far."""

    steps: int = 0
    data_s: float = 0.0
    compute_s: float = 0.0


def _wait_for_others(replica: Any) -> float:
    """Seconds between this rank's last gradient and the end of averaging, in the last step that torch has measured."""
    measured = replica._get_ddp_logging_data()
    computed, averaged = measured.get("backward_compute_time_end", 0), measured.get("backward_comm_time_end", 0)
    return max(0.0, (averaged - computed) / 1e9) if computed else 0.0
