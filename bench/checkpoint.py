"""The cost of a checkpoint to training, in steps: written in the background, or with the loop waiting for it.

    python -m bench.checkpoint [--megabytes 64] [--rounds 5] [--storage s3://bucket/bench]

An MLP whose weights have so many megabytes, with Adam, so a checkpoint has three times as many, in this process. After
every 40 steps there is one; in one and the same run they are written in turn in the background and with the loop
waiting. On a local disk, and on the storage that is named, by default moto's S3 server on this machine, which takes CPU
time from training as a real one would not.

All is in steps: medians of the 20 steps before a save, which nothing disturbs. The stall is how much longer than one of
them the step after the save takes; the whole cost is how much longer all 40 steps after it take, which has in it what
they lose beside an upload. Each number is the median over checkpoints, with the minimum and the maximum beside it.
"""

import argparse
import itertools
import math
import statistics
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from blitz.data.arrays import ArrayDataset
from blitz.data.plan import Shares, Split, fetch
from blitz.optim import Optim
from blitz.recipe import Batch, Recipe
from blitz.run_files.directory import RunDirectory
from blitz.training.checkpoint import Checkpoint
from blitz.training.checkpoint_writer import CheckpointWriter
from blitz.training.loop import Checkpoints, TrainJob, train
from blitz.training.session import Session
from blitz.training.world import World
from tests.object_store import s3_server, uri_of

EVERY, BEFORE = 40, 20


@dataclass(frozen=True)
class Mlp(Recipe):
    """One hidden layer that holds nearly all weights, on noise."""

    global_batch_size: int = 64
    log_every_steps: int = 1000
    optim: Optim = Optim(name="adam", lr=1e-4)
    width: int = 1024
    steps: int = 400

    def dataset(self, split: Split) -> ArrayDataset:
        """Noise, with as many rows as the steps take."""
        rows, random = self.steps * self.global_batch_size, np.random.default_rng(0)
        inputs = random.normal(size=(rows, 64)).astype(np.float32)
        return ArrayDataset(inputs=inputs, targets=random.normal(size=(rows, 1)).astype(np.float32))

    def build_model(self) -> nn.Module:
        """64 → width → width → 1."""
        width = self.width
        return nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Squared error."""
        return (outputs - batch["targets"]).square().mean(1)


class AlternatingWriter(CheckpointWriter):
    """Writes every second checkpoint in the background, and returns from the others once they are whole."""

    def save(self, checkpoint: Checkpoint, *, best: int | None, beside: Mapping[str, Any] | None = None) -> None:
        """Write it."""
        super().save(checkpoint, best=best, beside=beside)
        if checkpoint.step // EVERY % 2:
            self.wait()


class StepTimes:
    """A display that records when each step is done."""

    def __init__(self) -> None:
        self._times: list[float] = []

    def step(self, number: int) -> None:
        """Record the time."""
        self._times.append(time.perf_counter())

    def loss(self, value: float) -> None:
        """Does nothing."""

    def line(self, text: str) -> None:
        """Does nothing."""

    def seconds(self) -> list[float]:
        """Seconds from the end of each step to that of the next."""
        return [after - before for before, after in itertools.pairwise(self._times)]


def step_seconds(recipe: Mlp, storage: str) -> list[float]:
    """Train; the seconds from each step to the next, the first of which is from step 1 to 2."""
    run = RunDirectory.of(storage, f"run-{time.monotonic_ns()}")
    run.probe()
    dataset = recipe.dataset("train")
    plan = recipe.plan(len(dataset), 0)
    shares = Shares.of(plan, world_size=1, row_bytes=260)
    blocks = [fetch(dataset, shares, chunk, rank=0) for chunk in shares.chunks(0)]
    job = TrainJob(recipe, plan, run, Checkpoints(every_steps=EVERY))
    times, world = StepTimes(), World(0, 1, torch.device("cpu"))
    with AlternatingWriter(run, keep=2) as writer:
        train(job, blocks, writer, Session(world, 0, times))
    run.delete_folder("")
    return times.seconds()


def measure(name: str, recipe: Mlp, storage: str) -> None:
    """Print what checkpoints cost on a storage."""
    seconds = step_seconds(recipe, storage)
    print(f"\n{name}: a step takes {statistics.median(seconds) * 1e3:.0f} ms ({torch.get_num_threads()} threads)")
    print(f"  {'checkpoints':20} {'stall, steps':>24} {'whole cost, steps':>24}")
    stalls = []
    for kind, first in (("in the background", 2 * EVERY), ("waiting for them", EVERY)):
        stall, cost = [], []
        for save in range(first, recipe.steps, 2 * EVERY):
            step = statistics.median(seconds[save - 1 - BEFORE : save - 1])
            stall.append(seconds[save - 1] / step - 1)
            cost.append(sum(seconds[save - 1 : save - 1 + EVERY]) / step - EVERY)
        print(f"  {kind:20} {_spread(stall):>24} {_spread(cost):>24}")
        stalls.append(statistics.median(stall))
    print(f"  a stall in the background is {stalls[0] / stalls[1]:.3f} × one of waiting")


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--storage")
    arguments = parser.parse_args()
    # One of each kind a round, and steps to measure after the last.
    steps = (2 * arguments.rounds + 1) * EVERY
    recipe = Mlp(width=math.isqrt(arguments.megabytes * 10**6 // 4), steps=steps)
    with ExitStack() as stack:
        measure("local disk", recipe, stack.enter_context(tempfile.TemporaryDirectory()))
        storage = arguments.storage or uri_of(stack.enter_context(s3_server()), "bench")
        measure(arguments.storage or "moto's S3 server on this machine", recipe, storage)


if __name__ == "__main__":
    main()
