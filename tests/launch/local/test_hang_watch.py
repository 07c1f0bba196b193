"""A run in this process that hangs is reported, with the stack of each thread, and continues when it can."""

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from blitz.data.arrays import ArrayDataset, Columns
from blitz.data.plan import Split
from blitz.launch.local.in_process import run_in_process
from blitz.launch.scale import Scale
from blitz.recipes.digits import Digits
from blitz.run_files.directory import RunDirectory
from blitz.run_files.goodput import goodput
from blitz.training.loop import TrainJob
from blitz.training.prepared import prepare
from tests.waiting import wait_until

TIMEOUT_S = 4.0
LOCK = threading.Event()


class Deadlocked(ArrayDataset):
    """The rows of the second epoch wait for something that nobody does."""

    fetched = 0

    def __getitems__(self, rows: npt.NDArray[np.int64]) -> Columns:
        self.fetched += 1
        if self.fetched == 3:
            LOCK.wait()
        return super().__getitems__(rows)


@dataclass(frozen=True)
class DeadlockedDigits(Digits):
    def dataset(self, split: Split) -> ArrayDataset:
        made = super().dataset(split)
        return Deadlocked(**made.columns) if split == "train" else made


class Lines:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def step(self, number: int) -> None: ...

    def loss(self, value: float) -> None: ...

    def line(self, text: str) -> None:
        self.lines.append(text)


SMALL: dict[str, Any] = {
    "epochs": 2,
    "max_train_rows": 70,
    "max_eval_rows": 50,
    "global_batch_size": 16,
}


def test_a_deadlock_in_a_data_set_is_reported_and_the_run_continues_when_it_ends(tmp_path: Path) -> None:
    prepared, run, display = prepare(DeadlockedDigits(**SMALL)), RunDirectory.of(str(tmp_path)), Lines()
    prepared.begin(run)
    job = TrainJob(prepared.recipe, prepared.plan, run)

    def release() -> None:
        try:
            wait_until(lambda: any("in __getitems__" in event.get("error", "") for event in run.events()))
        finally:
            LOCK.set()

    releases = threading.Thread(target=release)
    releases.start()
    run_in_process(job, prepared.datasets, Scale(num_workers=0, hang_timeout_s=TIMEOUT_S), display=display)
    releases.join()
    # On a machine that is busy enough the run may seem to hang elsewhere as well.
    (line,) = [line for line in display.lines if "in __getitems__" in line]
    assert "the run hangs at step 5: waiting for data for " in line
    assert "test_hang_watch.py" in line
    assert " in __getitems__; the stack of each thread is in " in line
    assert [line for line in display.lines if "no longer hangs, after" in line]
    text = Path(line.partition("is in ")[2].partition(";")[0]).read_text()
    assert " in __getitems__\n" in text
    assert " in release\n" in text
    lasted = sum(event["hang_seconds"] for event in run.events() if event["what"] == "hang ended")
    spent = goodput(run.events())
    assert spent is not None
    assert spent.seconds["hangs"] == pytest.approx(lasted, abs=0.001)
