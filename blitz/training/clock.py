"""How a run spends its time: every moment is counted for one account."""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

from blitz.data.plan import Block

Account = Literal["start", "data", "compute", "evaluation", "checkpoint"]
_COUNTED: tuple[Account, ...] = ("data", "compute", "evaluation", "checkpoint")


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

    def resume_from(self, total: Mapping[str, float]) -> None:
        """Count from the `total` of the checkpoint that the run resumes from."""
        self._before_lap = {account: total.get(account, 0.0) for account in _COUNTED}
