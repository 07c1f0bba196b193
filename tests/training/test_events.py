"""What a run records beside its metrics: what happened to it, and where its time went."""

import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from blitz.data.arrays import ArrayDataset, Columns
from blitz.data.plan import Split
from blitz.recipes.digits import Digits
from blitz.run_files.directory import RunDirectory
from blitz.training.loop import Checkpoints
from tests.running import goodput_in, train

SMALL = Digits(epochs=2, max_train_rows=70, max_eval_rows=50, global_batch_size=16, log_every_steps=2)
"""Five steps an epoch."""


class Slow(ArrayDataset):
    def __getitems__(self, rows: npt.NDArray[np.int64]) -> Columns:
        time.sleep(0.1)
        return super().__getitems__(rows)


@dataclass(frozen=True)
class SlowDigits(Digits):
    """Rows that take a while to fetch."""

    def dataset(self, split: Split) -> ArrayDataset:
        return Slow(**super().dataset(split).columns)


class Broken(RuntimeError):
    pass


def test_the_seconds_of_all_accounts_come_to_the_whole_run(tmp_path: Path) -> None:
    began = time.perf_counter()
    run = train(SlowDigits(**vars(SMALL)), tmp_path)
    took = time.perf_counter() - began
    lines = [*run.metrics(), *run.events()]
    seconds = {
        account: sum(line.get(f"{account}_seconds", 0) for line in lines)
        for account in ("data", "compute", "evaluation", "checkpoint")
    }
    # Two blocks to train on and two to evaluate on, and a look at the first row of each data set before it begins.
    assert seconds["data"] >= 0.2
    assert seconds["evaluation"] >= 0.2
    assert seconds["checkpoint"] > 0
    assert 0.4 < sum(seconds.values()) <= took - 0.2 + 0.01
    spent = goodput_in(run)["seconds"]
    assert spent["steps that count"] == pytest.approx(seconds["compute"], abs=0.01)
    assert spent["waiting for data"] == pytest.approx(seconds["data"], abs=0.01)
    assert sum(seconds.values()) - 0.01 < sum(spent.values()) <= took


def test_events_tell_what_happened_also_before_a_rewind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = replace(SMALL, max_steps=7)
    train(ends, tmp_path, checkpoints=Checkpoints(every_steps=3))
    # As a kill leaves it that came after step 7 and before its checkpoint was whole.
    run = RunDirectory.of(str(tmp_path))
    run.delete_checkpoint(7)
    calls = 0

    def breaks(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise Broken("no\nmore")

    with monkeypatch.context() as patched:
        patched.setattr(RunDirectory, "append_metrics", breaks)
        with pytest.raises(Broken):
            train(SMALL, tmp_path)
    train(SMALL, tmp_path)
    events = [(event["what"], event["step"], event.get("reached"), event.get("error")) for event in run.events()]
    assert events == [
        ("started", 0, 0, None),
        ("finished", 7, None, None),
        ("resumed", 6, 7, None),
        ("failed", 10, None, "Broken: no"),
        ("resumed", 6, 6, None),
        ("finished", 10, None, None),
    ]
    assert [event["time"] for event in run.events()] == sorted(event["time"] for event in run.events())


def test_a_line_that_was_torn_hides_no_other(tmp_path: Path) -> None:
    run = RunDirectory.of(str(tmp_path))
    run.add_event({"what": "started", "time": 1.0})
    run.append("events.jsonl", b'{"what": "fin')
    run.add_event({"what": "resumed", "time": 1.0})
    run.add_event({"what": "finished", "time": 1.0})
    assert [event["what"] for event in run.events()] == ["started", "resumed", "finished"]
