"""The stream of Ray Data: windows, groups of ranks, restarts, and a node that is lost in the middle of a window."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import ray

from blitz.data.plan import Block, Plan, Shares
from blitz.launch.cluster.connection import connected
from blitz.launch.cluster.feeds import StreamFeed, feed_of
from tests.clusters import env_of_driver

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

pytestmark = pytest.mark.cluster

PLAN = Plan(train_rows=1000, eval_rows=100, global_batch_size=32, total_steps=60, evaluate_every_steps=20, seed=3)
SHARES = Shares(PLAN, world_size=2, block_batches=2)
"""36 blocks a rank: 8 windows of 10 tasks for two ranks, and 3 processes of 30 tasks or more."""


class Rows:
    """Rows that say on which node they were fetched."""

    def __len__(self) -> int:
        return 1000

    def __getitems__(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        node = int(ray.get_runtime_context().get_node_id()[:8], 16)
        return {"inputs": rows * 10, "node": np.full(len(rows), node)}


@pytest.fixture
def feed(ray_runtime: None) -> StreamFeed:
    made = feed_of("stream", {"train": Rows(), "val": Rows()}, row_bytes=16, task_cpus=0.5)
    assert isinstance(made, StreamFeed)
    return replace(made, tasks_per_window=10)


def test_a_closed_feed_leaves_no_process_of_the_driver(feed: StreamFeed) -> None:
    feed.close()
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(feed.first.take.remote(0, 0, None))


def expected(rank: int, first_step: int = 0) -> list[list[int]]:
    return [SHARES.rows_of(chunk, rank)[0].tolist() for chunk in SHARES.chunks(first_step)]


def rows(blocks: Iterator[Block]) -> list[list[int]]:
    found = list(blocks)
    assert all((block.columns["inputs"] == block.rows * 10).all() for block in found)
    return [block.rows.tolist() for block in found]


@pytest.mark.parametrize(("ranks_per_stream", "tasks_per_stream"), [(8, 1000), (1, 1000), (8, 30)])
def test_each_rank_gets_its_blocks_over_many_windows_and_processes_from_any_step_on(
    feed: StreamFeed, ranks_per_stream: int, tasks_per_stream: int
) -> None:
    feed = replace(feed, ranks_per_stream=ranks_per_stream, tasks_per_stream=tasks_per_stream)
    # The second start finds the first one unfinished.
    list(islice(feed.blocks(SHARES, 0, 0, start=1), 3))
    for start, first_step in ((2, 0), (3, 33)):
        blocks = [feed.blocks(SHARES, first_step, rank, start=start) for rank in range(2)]
        taken: Any = list(zip(*blocks, strict=True))
        for rank, each in enumerate(zip(*taken, strict=True)):
            assert rows(iter(each)) == expected(rank, first_step)


@pytest.mark.slow
def test_a_node_that_is_killed_in_the_middle_of_a_window_takes_no_block_along(cluster: "Cluster") -> None:
    program = subprocess.Popen(
        [sys.executable, "-m", "tests.launch.cluster.test_ray_stream"],
        env=env_of_driver(cluster.address),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert program.stdin is not None
    assert program.stdout is not None
    assert program.stdout.readline() == "the stream has begun\n"
    # Only now, so that the stream itself is on another node.
    node = cluster.add_node(num_cpus=1)
    try:
        assert program.stdout.readline() == "both nodes have fetched\n"
    finally:
        cluster.remove_node(node, allow_graceful=False)
    print(file=program.stdin, flush=True)
    assert program.communicate()[0] == "all blocks are there\n"


def _main() -> None:
    """Take blocks until two nodes have fetched some, wait for a line, and take as many as three windows hold."""
    shares = Shares(replace(PLAN, total_steps=10**9), world_size=1, block_batches=1)
    with connected(os.environ["RAY_ADDRESS"]):
        stream = feed_of("stream", {"train": Rows(), "val": Rows()}, row_bytes=16, task_cpus=0.5)
        assert isinstance(stream, StreamFeed)
        blocks = stream.blocks(shares, 0, 0, start=1)
        taken = [next(blocks)]
        print("the stream has begun", flush=True)
        while len({int(block.columns["node"][0]) for block in taken}) < 2:
            taken.append(next(blocks))
        print("both nodes have fetched", flush=True)
        input()
        taken.extend(islice(blocks, 3 * stream.tasks_per_window))
    chunks = islice(shares.chunks(0), len(taken))
    assert rows(iter(taken)) == [shares.rows_of(chunk, 0)[0].tolist() for chunk in chunks]
    print("all blocks are there")


if __name__ == "__main__":
    _main()
