"""How a rank on Ray gets its blocks: by slicing rows in memory, from a stream of Ray Data, or by tasks of its own.

The order of the rows is a pure function of the plan, so every feed gives the same blocks, from any step on, and holds
and plans only what is consumed next.
"""

import functools
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import ray
from ray.data.block import BlockAccessor

from blitz.data.arrays import FAULT, in_memory
from blitz.data.plan import Block, Chunk, Datasets, Shares, Split, fetch
from blitz.launch.cluster.connection import on_the_drivers_node
from blitz.launch.cluster.node_task import stack_group
from blitz.launch.cluster.ray_stream import NO_EVENTS, ROW, WEIGHT, RowStream, Source, local_dataset
from blitz.launch.scale import FeedName
from blitz.launch.stacks import can_dump_stacks

_BLOCKS_AHEAD = 3
"""Blocks that a rank requests before it needs them."""
_RANKS_PER_STREAM = 8
"""So many ranks share a stream, as many as the largest common nodes have GPUs."""
_TASKS_PER_WINDOW = 256
"""Few enough that a window starts within half a second, and many enough that it costs little more than its tasks."""
_TASKS_PER_STREAM = 16_384
"""After so many a stream continues in a new process: Ray Data keeps up to some kilobytes for each block."""
_TASKS_TO_START = 512
"""So many before the end the next process is started, which takes it some seconds."""

DatasetRefs = Mapping[Split, "ray.ObjectRef[Any]"]


class Feed(Protocol):
    """Gives each rank its blocks; every rank is sent a copy."""

    def blocks(self, shares: Shares, first_step: int, rank: int, *, start: int) -> Iterator[Block]:
        """The blocks of a rank from `first_step` on; `start` is a number that tells this start of the ranks apart."""

    def close(self) -> None:
        """End the processes that it started, once no rank needs it; by default there are none."""
        return


def feed_of(name: FeedName, datasets: Datasets, *, row_bytes: int, task_cpus: float) -> Feed:
    """The feed of that name, or for auto the one that suits the data sets, which go into Ray's object store.

    `task_cpus` are the CPUs that a task reserves.
    """
    if name == "auto":
        name = "memory" if all(map(in_memory, datasets.values())) else "stream"
    refs = {split: ray.put(dataset) for split, dataset in datasets.items()}
    match name:
        case "memory":
            return MemoryFeed(refs)
        case "tasks":
            return TaskFeed(refs, task_cpus)
        case "stream":
            # Started here, while the workers are: it imports Ray Data for seconds. If its node is lost, Ray starts it
            # on another, and the workers that are restarted then begin it again.
            return StreamFeed(refs, row_bytes, task_cpus, _stream_actor(max_restarts=-1))


@dataclass(frozen=True)
class MemoryFeed(Feed):
    """Every rank slices its rows from arrays in the object store, which the ranks of a node share without a copy."""

    datasets: DatasetRefs

    def blocks(self, shares: Shares, first_step: int, rank: int, *, start: int) -> Iterator[Block]:
        """Fetched in this process when they are needed."""
        datasets = {split: ray.get(ref) for split, ref in self.datasets.items()}
        for chunk in shares.chunks(first_step):
            yield _writable(fetch(datasets[chunk.split], shares, chunk, rank))


@dataclass(frozen=True)
class TaskFeed(Feed):
    """Every rank has its blocks fetched by plain tasks, on any node."""

    datasets: DatasetRefs
    task_cpus: float

    def blocks(self, shares: Shares, first_step: int, rank: int, *, start: int) -> Iterator[Block]:
        """Requested some blocks ahead."""
        task: Any = ray.remote(num_cpus=self.task_cpus, **NO_EVENTS)(_fetch)
        requested: deque[ray.ObjectRef[Block]] = deque()
        for chunk in shares.chunks(first_step):
            # In a list, as Ray would otherwise pass the data set itself, read anew for each task.
            requested.append(task.remote([self.datasets[chunk.split]], shares, chunk, rank))
            if len(requested) > _BLOCKS_AHEAD:
                yield _next(requested)
        while requested:
            yield _next(requested)


def _fetch(dataset: "list[ray.ObjectRef[Any]]", shares: Shares, chunk: Chunk, rank: int) -> Block:
    can_dump_stacks(stack_group())
    return fetch(local_dataset(dataset[0]), shares, chunk, rank)


def _next(requested: "deque[ray.ObjectRef[Block]]") -> Block:
    _start_to_copy(requested)
    return _writable(ray.get(requested.popleft()))


@dataclass(frozen=True)
class StreamFeed(Feed):
    """The ranks take their blocks from streams of Ray Data, one for every `ranks_per_stream` ranks."""

    datasets: DatasetRefs
    row_bytes: int
    task_cpus: float
    first: Any
    """The actor of the first stream."""
    ranks_per_stream: int = _RANKS_PER_STREAM
    tasks_per_window: int = _TASKS_PER_WINDOW
    tasks_per_stream: int = _TASKS_PER_STREAM

    def blocks(self, shares: Shares, first_step: int, rank: int, *, start: int) -> Iterator[Block]:
        """Taken from the streams of the rank's group as they are ready."""
        group, index = divmod(rank, self.ranks_per_stream)
        ranks = range(rank - index, min(rank - index + self.ranks_per_stream, shares.world_size))
        source = Source(self.datasets, shares, ranks, self.row_bytes, self.task_cpus, self.tasks_per_window)
        to_start = max(1, min(_TASKS_TO_START, self.tasks_per_stream // 2) // len(ranks))
        parts = enumerate(_parts(shares, first_step, -(-self.tasks_per_stream // len(ranks))))

        def begin_next() -> "_Part | None":
            for number, (step, count) in parts:
                is_first = group == number == 0
                stream = self.first if is_first else _stream_of_group(f"blitz-rows-{start}-{group}-{number}")
                # The group's first call begins it.
                return _Part(stream, stream.begin.remote(start, source, step, count), step, count)
            return None

        part = begin_next()
        while part is not None:
            following: _Part | None = None
            ready: deque[ray.ObjectRef[Any]] = deque()
            requested = part.stream.take.remote(start, index, part.begun)
            for number, chunk in zip(range(part.count), shares.chunks(part.first_step), strict=False):
                if number == max(0, part.count - to_start):
                    following = begin_next()
                if not ready:
                    ready.extend(ray.get(requested))
                    requested = part.stream.take.remote(start, index, part.begun)
                    _start_to_copy(ready)
                yield _block(ray.get(ready.popleft()), chunk, shares)
            part = following

    def close(self) -> None:
        """End the actor of the first stream, which a driver that lives on would otherwise keep; ranks end theirs."""
        with suppress(ray.exceptions.RayError):
            ray.kill(self.first)


@dataclass(frozen=True)
class _Part:
    """Consecutive chunks, and the stream that they come from."""

    stream: Any
    begun: "ray.ObjectRef[None]"
    first_step: int
    count: int


def _parts(shares: Shares, first_step: int, least: int) -> Iterator[tuple[int, int]]:
    """Cut the chunks from `first_step` on into parts of at least so many: the first step of each, and its length."""
    step, count = first_step, 0
    for chunk in shares.chunks(first_step):
        # `Shares.chunks` cannot start within the evaluation passes of a training run.
        if count >= least and (chunk.split == "train" or shares.plan.total_steps == 0):
            yield step, count
            step, count = chunk.start, 0
        count += 1
    if count:
        yield step, count


# Of two streams a rank may still take blocks: from that which ends, and from that which follows it.
@functools.lru_cache(maxsize=2)
def _stream_of_group(name: str) -> Any:
    """The stream that the ranks of a group share: made by the first to ask, and ended by that rank."""
    return _stream_actor(name=name, get_if_exists=True)


def _stream_actor(**options: Any) -> Any:
    # A call waits for each rank, and when ranks are restarted theirs must get past those of the dead.
    options |= {"max_concurrency": 3 * _RANKS_PER_STREAM, "scheduling_strategy": on_the_drivers_node(), **NO_EVENTS}
    return ray.remote(num_cpus=0)(RowStream).options(**options).remote()


def _start_to_copy(blocks: "deque[ray.ObjectRef[Any]]") -> None:
    """Have Ray copy blocks that are ready on other nodes to this one, without waiting for them."""
    ray.wait(list(blocks), num_returns=len(blocks), timeout=0)


def _block(table: Any, chunk: Chunk, shares: Shares) -> Block:
    columns = dict(BlockAccessor.for_block(table).to_batch_format("numpy"))
    faults = columns.pop(FAULT, None)
    rows, weights = columns.pop(ROW), columns.pop(WEIGHT)
    return _writable(Block(chunk, shares.share, rows, weights, columns, faults))


def _writable(block: Block) -> Block:
    """A block whose arrays can be tensors: those in the object store are read-only."""
    columns = {name: np.require(column, requirements="W") for name, column in block.columns.items()}
    rows, weights = np.require(block.rows, requirements="W"), np.require(block.weights, requirements="W")
    return replace(block, rows=rows, weights=weights, columns=columns)
