import os
import signal
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from blitz.data.arrays import FAULT, ArrayDataset, Columns, MapStyleDataset, new_column
from blitz.data.csv.image_source import ImageCsvData
from blitz.data.order import Rows
from blitz.data.plan import Block, Plan, Shares
from blitz.errors import DataError, RunFailed
from blitz.launch.job import row_bytes_of
from blitz.launch.local.loader import Loader, fewest, measured
from blitz.recipes.image_csv import ImageCsv


@dataclass(frozen=True)
class Numbers:
    """Rows of numbers, of which row 5 is invalid, and the process that fetched them."""

    rows: int = 50
    width: int = 3

    def __len__(self) -> int:
        return self.rows

    def __getitems__(self, rows: Rows) -> Columns:
        inputs = new_column((len(rows), self.width), np.float32)
        inputs[:] = rows[:, None] + np.arange(self.width)
        columns = {"inputs": inputs, "targets": rows % 7, "process": np.full(len(rows), os.getpid())}
        return {**columns, FAULT: np.where(rows == 5, "line,5", "")}


class Fails(Numbers):
    def __getitems__(self, rows: Rows) -> Columns:
        if 7 in rows:
            raise DataError("rows.csv:9: column 'age' holds 'abc'; expected a number")
        return super().__getitems__(rows)


@dataclass(frozen=True)
class FailsElsewhere(Numbers):
    here: int = 0

    def __getitems__(self, rows: Rows) -> Columns:
        if os.getpid() != self.here:
            raise DataError("it fails elsewhere")
        return super().__getitems__(rows)


class FailsByABug(Numbers):
    def __getitems__(self, rows: Rows) -> Columns:
        return super().__getitems__(rows) if 7 not in rows else {"inputs": rows.no_such_attribute}  # type: ignore[attr-defined]


class Wider(Numbers):
    """Its first row alone, from which the room for a block is estimated, is narrow."""

    def __getitems__(self, rows: Rows) -> Columns:
        return replace(Numbers(), width=3 if len(rows) == 1 else 3000).__getitems__(rows)


class Shown:
    """A display."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def step(self, number: int) -> None:
        pass

    def loss(self, value: float) -> None:
        pass

    def line(self, text: str) -> None:
        self.lines.append(text)


def loader_of(
    dataset: MapStyleDataset, *, batch: int = 8, steps: int = 20, eval_rows: int = 0, trial_s: float = 0.6
) -> Loader:
    plan = Plan(len(dataset), eval_rows, batch, total_steps=steps, evaluate_every_steps=9, seed=3)
    row_bytes = row_bytes_of({"train": dataset})
    shares = replace(Shares.of(plan, world_size=1, row_bytes=row_bytes), block_batches=2)
    return Loader({"train": dataset, "val": dataset}, shares, row_bytes, trial_s)


def contents(loader: Loader, workers: int, first_step: int = 0) -> list[object]:
    """All that blocks hold, as bytes: their columns are used again."""
    return [
        (
            block.chunk,
            block.rows.tobytes(),
            block.weights.tobytes(),
            {name: (one.dtype, one.shape, one.tobytes()) for name, one in block.columns.items() if name != "process"},
            block.new_faults(),
            block.digests(),
        )
        for block in loader.fetched(loader.shares.chunks(first_step), workers)
    ]


def children() -> list[psutil.Process]:
    """Processes that were forked off this one; servers of other tests do not count."""
    this = psutil.Process()
    return [child for child in this.children() if child.cmdline() == this.cmdline()]


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("dataset", [Numbers(), Wider(), ArrayDataset(inputs=np.arange(50.0))])
def test_blocks_are_the_same_whoever_fetches_them(dataset: MapStyleDataset, workers: int) -> None:
    loader = loader_of(dataset, eval_rows=13)
    expected = contents(loader, 0)
    assert contents(loader, workers) == expected
    assert contents(loader, workers, first_step=4) == contents(loader, 0, first_step=4)
    assert children() == []


def test_images_are_the_same_whoever_decodes_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(12):
        Image.fromarray(rng.integers(0, 255, (40 + number, 50, 3), np.uint8)).save(tmp_path / f"{number}.jpg")
    # Its head and end are sound, and what lies between is not.
    whole = (tmp_path / "4.jpg").read_bytes()
    (tmp_path / "4.jpg").write_bytes(whole[:200] + whole[-2:])
    lines = [f"{number}.jpg,{'ab'[number % 2]}" for number in range(12)]
    (tmp_path / "rows.csv").write_text("\n".join(["image,label", *lines]))
    data = ImageCsvData(str(tmp_path / "rows.csv"), bad_rows="skip", max_bad_fraction=0.5, size=32, resize=32)
    data = replace(data, cache=str(tmp_path / "cache"))
    dataset = ImageCsv(data=data).fitted().dataset("train")
    loader = loader_of(dataset, batch=5, steps=6)
    expected = contents(loader, 0)
    assert contents(loader, 2) == expected
    faults = [fault for block in loader.fetched(loader.shares.chunks(0), 2) for fault in block.new_faults()]
    assert faults
    assert all("4.jpg" in fault for fault in faults)


def test_a_block_lasts_until_the_next_but_one_is_asked_for() -> None:
    loader = loader_of(Numbers())
    expected = [block.columns["inputs"] for block in loader.fetched(loader.shares.chunks(0), 0)]
    with closing(loader.fetched(loader.shares.chunks(0), 2)) as blocks:
        before = next(blocks)
        for number, block in enumerate(blocks):
            np.testing.assert_array_equal(before.columns["inputs"], expected[number])
            before = block


@pytest.mark.parametrize("workers", [1, 2])
def test_a_mistake_that_a_loader_process_finds_is_reported_in_one_line(workers: int) -> None:
    loader = loader_of(Fails())
    with pytest.raises(DataError) as caught:
        contents(loader, workers)
    assert str(caught.value) == "rows.csv:9: column 'age' holds 'abc'; expected a number"
    assert children() == []


def test_a_bug_in_a_loader_process_keeps_its_trace() -> None:
    with pytest.raises(AttributeError, match="no_such_attribute") as caught:
        contents(loader_of(FailsByABug()), 2)
    assert "__getitems__" in str(caught.value.__cause__)


@pytest.mark.parametrize("victim", [0, 1])
def test_a_loader_process_that_is_killed_ends_the_run(victim: int) -> None:
    loader = loader_of(Numbers(), steps=10_000)
    blocks = loader.fetched(loader.shares.chunks(0), 2)
    processes = [int(next(blocks).columns["process"][0]) for _ in range(2)]
    assert os.getpid() not in processes
    os.kill(processes[victim], signal.SIGKILL)
    with pytest.raises(RunFailed, match="a loader process was ended by SIGKILL"):
        for _ in blocks:
            pass
    assert children() == []


def test_what_is_left_early_leaves_no_process() -> None:
    loader = loader_of(Numbers(), steps=10_000)
    with closing(loader.fetched(loader.shares.chunks(0), 2)) as blocks:
        next(blocks)
        assert len(children()) == 2
    assert children() == []


def test_loader_processes_end_with_the_process_that_is_killed() -> None:
    reads, writes = os.pipe()
    parent = os.fork()
    if parent == 0:
        try:
            os.close(reads)
            loader = loader_of(Numbers(), steps=10_000)
            blocks = loader.fetched(loader.shares.chunks(0), 2)
            next(blocks)
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    os.close(writes)
    os.waitpid(parent, 0)
    # Its end comes once nobody holds the other end open: neither the process that was killed nor those it forked.
    assert os.read(reads, 1) == b""
    os.close(reads)


def test_auto_fetches_what_takes_no_time_in_this_process() -> None:
    shown = Shown()
    blocks: Iterator[Block] = loader_of(Numbers()).blocks(0, workers="auto", display=shown)
    assert {int(block.columns["process"][0]) for block in blocks} == {os.getpid()}
    (shown_line,) = shown.lines
    assert shown_line.startswith("loader workers: 0 (to fetch all rows takes this process ")


def test_auto_of_a_run_that_is_done_fetches_nothing() -> None:
    loader = loader_of(Numbers())
    assert loader.best_workers(20) == (0, "there is nothing to fetch")
    assert list(loader.fetched(loader.shares.chunks(20), 2)) == []


def test_auto_names_what_it_measured_and_leaves_no_process() -> None:
    loader = loader_of(Numbers(), steps=1_000_000_000, trial_s=0.01)
    best, why = loader.best_workers(0)
    assert children() == []
    assert why.startswith("rows a second: ")
    measured = [int(one.rpartition(" with ")[2]) for one in why.split(", ")]
    assert measured[:2] == [0, 1]
    assert best in measured


def test_auto_that_fails_leaves_no_process() -> None:
    loader = loader_of(FailsElsewhere(here=os.getpid()), steps=1_000_000_000, trial_s=0.01)
    with pytest.raises(DataError, match="elsewhere"):
        loader.best_workers(0)
    assert children() == []


@pytest.mark.parametrize(
    ("rates", "tried", "best"),
    [
        ({0: 100, 1: 90, 2: 170, 4: 172, 8: 170}, [0, 1, 2, 4, 8], 2),
        ({0: 100, 1: 60, 2: 80, 4: 500, 8: 500}, [0, 1, 2], 0),
        ({0: 100, 1: 95, 2: 190, 4: 380, 8: 760}, [0, 1, 2, 4, 8], 8),
        ({0: 100}, [0], 0),
    ],
)
def test_auto_takes_the_fewest_that_are_about_as_fast_as_any(
    rates: dict[int, float], tried: list[int], best: int
) -> None:
    found = measured(rates.__getitem__, [workers for workers in rates if workers], here=rates[0])
    assert list(found) == tried
    assert fewest(found) == best


def test_a_trial_that_was_disturbed_is_made_up_for_by_another() -> None:
    trials = {0: [100.0], 1: [100.0], 2: [170.0, 205.0, 190.0], 4: [206.0, 180.0, 200.0]}
    found = measured(lambda workers: trials[workers].pop(0), [1, 2, 4], here=100.0)
    assert fewest(found) == 2
