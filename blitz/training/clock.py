"""How a run spends its time: every moment is counted for one account."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Literal

from blitz.data.plan import Block

Account = Literal["data", "compute", "evaluation", "checkpoint"]


class Clock:
    """Seconds of this process by account, since the last `lap`.

    `data` is waiting for rows to train on, `checkpoint` the time that the loop spends on writing, and `compute`
    everything else. On a GPU the loop runs ahead of the device, and waits for it where it reads the loss: that too is
    `compute`.
    """

    def __init__(self) -> None:
        self.rows = 0
        """Rows trained on since the last `lap`."""
        self._account: Account = "compute"
        self._since = time.perf_counter()
        self._seconds: dict[Account, float] = {"data": 0.0, "compute": 0.0, "evaluation": 0.0, "checkpoint": 0.0}

    def _switch_to(self, account: Account, *, spent: Account | None = None) -> None:
        now = time.perf_counter()
        self._seconds[spent or self._account] += now - self._since
        self._account, self._since = account, now

    @contextmanager
    def on(self, account: Account) -> Iterator[None]:
        """Count the time spent in this context for `account`."""
        before = self._account
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

    def lap(self) -> dict[str, float]:
        """`examples_per_second` of training, without evaluation and checkpoints, and `<account>_seconds`; then reset
        them."""
        self._switch_to(self._account)
        trained = self._seconds["data"] + self._seconds["compute"]
        rate = {"examples_per_second": round(self.rows / trained, 1)} if self.rows else {}
        seconds = {f"{account}_seconds": round(spent, 4) for account, spent in self._seconds.items()}
        self.rows, self._seconds = 0, dict.fromkeys(self._seconds, 0.0)
        return {**rate, **seconds}
