"""The feeds of ranks on Ray side by side, without training: start, speed, CPU time and memory.

    python -m bench.stream [--blocks 1000 100000 10000000] [--take 1000] [--ranks 1 2 4] [--rows small large]
                           [--feeds memory stream tasks]

For plans of so many blocks a rank, each feed starts at the first step and in the middle; every rank then takes some
blocks from there as fast as they come. Small rows are of 72 bytes, 4,096 a block; large ones of 150 KB, 32 a block.
CPU time is that of all processes of Ray, memory what a process alone uses (USS), each at the first block and at the
last. A line is one measurement; the last lines are a table for docs/costs.md.
"""

import argparse
import logging
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any, get_args

import numpy as np
import psutil
import ray

from blitz.data.arrays import ArrayDataset
from blitz.data.plan import Plan, Shares
from blitz.launch.cluster.feeds import Feed, feed_of
from blitz.launch.job import row_bytes_of
from blitz.launch.scale import FeedName

_SHARE = 32
"""Rows of a batch that a rank takes."""
_ROWS = {"small": (64, 100_000), "large": (150_528, 400)}
"""Bytes of a row, and rows of the data set."""


@dataclass(frozen=True)
class Measured:
    """One feed at one length, from one step on."""

    first_s: float
    """Seconds until every rank has its first block."""
    blocks_per_s: float
    """Over all ranks."""
    cpu_ms: Mapping[str, float]
    """CPU milliseconds a block, by kind of process."""
    memory_mb: Mapping[str, tuple[float, float]]
    """Memory at the first and the last block of the largest process of each kind."""

    def __str__(self) -> str:
        cpu = ", ".join(f"{kind} {ms:.1f}" for kind, ms in self.cpu_ms.items())
        memory = ", ".join(f"{kind} {first:.0f} → {last:.0f}" for kind, (first, last) in self.memory_mb.items())
        total = sum(self.cpu_ms.values())
        return (
            f"first block {self.first_s:.2f} s, {self.blocks_per_s:.0f} blocks a second, "
            f"CPU ms a block {total:.1f} ({cpu}), memory MB ({memory})"
        )


class Rank:
    """A process that takes blocks as a worker does, and drops them."""

    def start(self, feed: Feed, shares: Shares, first_step: int, rank: int, start: int) -> None:
        """Return once the first block is there."""
        self._blocks: Iterator[Any] = feed.blocks(shares, first_step, rank, start=start)
        next(self._blocks)

    def take(self, count: int) -> int:
        """Take up to `count` more; how many there were."""
        return sum(1 for _ in islice(self._blocks, count))


def _kind(process: psutil.Process) -> str:
    name = " ".join(process.cmdline()[:1])
    marks = {
        "ranks": "ray::Rank",
        "stream": "ray::RowStream",
        "tasks": "ray::",
        "raylet": "raylet",
        "GCS": "gcs_server",
    }
    return next((kind for kind, mark in marks.items() if mark in name), "other")


def _processes() -> dict[int, tuple[str, float, float]]:
    """Kind, CPU seconds and MB of every process of Ray, by its id."""
    found = {}
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            cpu = process.cpu_times()
            memory = process.memory_full_info().uss / 2**20
            found[process.pid] = (_kind(process), cpu.user + cpu.system, memory)
    return found


def measure(feed_name: FeedName, *, rows: str, ranks: int, blocks: int, take: int, middle: bool) -> Measured:
    """Start a feed, and take blocks from it."""
    row_bytes, count = _ROWS[rows]
    inputs = np.zeros((count, row_bytes), np.uint8)
    dataset = ArrayDataset(inputs=inputs, targets=np.zeros(count, np.int64))
    size = row_bytes_of({"train": dataset})
    plan = Plan(count, 0, _SHARE * ranks, total_steps=10**15, evaluate_every_steps=10**15, seed=0)
    block_batches = Shares.of(plan, world_size=ranks, row_bytes=size).block_batches
    steps = blocks * block_batches
    plan = Plan(count, 0, _SHARE * ranks, total_steps=steps, evaluate_every_steps=steps, seed=0)
    shares = Shares(plan, ranks, block_batches)
    actor: Any = ray.remote(num_cpus=0)(Rank)
    consumers = [actor.remote() for _ in range(ranks)]
    ray.get([one.__ray_ready__.remote() for one in consumers])

    began = time.perf_counter()
    feed = feed_of(feed_name, {"train": dataset}, row_bytes=size, task_cpus=1.0)
    first_step = blocks // 2 * block_batches if middle else 0
    calls = [one.start.remote(feed, shares, first_step, rank, 1) for rank, one in enumerate(consumers)]
    ray.get(calls)
    first_s = time.perf_counter() - began

    before, started = _processes(), time.perf_counter()
    taken = sum(ray.get([one.take.remote(take) for one in consumers]))
    seconds, after = time.perf_counter() - started, _processes()
    cpu: dict[str, float] = defaultdict(float)
    memory: dict[str, tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))
    for pid, (kind, used, last) in after.items():
        _, used_before, first = before.get(pid, (kind, 0.0, last))
        cpu[kind] += (used - used_before) * 1000 / taken
        memory[kind] = max(memory[kind], (first, last), key=lambda each: each[1])
    return Measured(first_s, taken / seconds, dict(sorted(cpu.items())), dict(sorted(memory.items())))


def main() -> None:
    """Measure every combination, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, nargs="+", default=[1000, 100_000, 10_000_000])
    parser.add_argument("--take", type=int, default=1000, help="blocks a rank")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--rows", nargs="+", choices=_ROWS, default=[*_ROWS])
    names = [name for name in get_args(FeedName) if name != "auto"]
    parser.add_argument("--feeds", nargs="+", choices=names, default=names)
    options = parser.parse_args()
    columns = ["rows", "ranks", "feed", "first block", "from the middle", "blocks per second", "CPU ms per block"]
    table = [columns, ["---"] * len(columns)]
    for rows in options.rows:
        for ranks in options.ranks:
            for name in options.feeds:
                found: dict[bool, list[Measured]] = {False: [], True: []}
                for blocks in options.blocks:
                    for middle, measured in found.items():
                        # A cluster of its own, so that no process is warm.
                        ray.init("local", num_cpus=ranks + 1, log_to_driver=False, logging_level=logging.ERROR)
                        take = min(options.take, blocks // 2 - 1)
                        one = measure(name, rows=rows, ranks=ranks, blocks=blocks, take=take, middle=middle)
                        ray.shutdown()
                        measured.append(one)
                        where = "the middle" if middle else "the beginning"
                        print(f"{rows} rows, {ranks} ranks, {name}, {blocks} blocks from {where}: {one}", flush=True)
                starts = [" · ".join(f"{one.first_s:.1f}" for one in each) + " s" for each in found.values()]
                every = [*found[False], *found[True]]
                rate = statistics.median(one.blocks_per_s for one in every)
                cpu = statistics.median(sum(one.cpu_ms.values()) for one in every)
                table.append([rows, str(ranks), name, *starts, f"{rate:.0f}", f"{cpu:.1f}"])
    for line in table:
        print(f"| {' | '.join(line)} |")
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    print(f"{os.cpu_count()} cores, load {load}; plans of {' · '.join(map(str, options.blocks))} blocks a rank")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
