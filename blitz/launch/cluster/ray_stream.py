"""The rows of a run as one stream through Ray Data, in the global order.

Every (chunk, rank) of the plan is one read task, in that order, and each makes one block of equally many rows. The
tasks fetch and decode on any node's CPUs; with `preserve_order`, `streaming_split` then hands out the blocks in turn,
so that each rank receives its own. One stream spans all epochs and evaluations: the pipeline never drains between them.

Nothing here imports torch, which would cost each process of Ray Data seconds.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import ray
import ray.data
from ray.data import ExecutionOptions
from ray.data.block import BlockAccessor, BlockMetadata
from ray.data.datasource import Datasource, ReadTask
from ray.train import DataConfig

from blitz.data.arrays import FAULT
from blitz.data.plan import Block, Chunk, Plan, Shares, Split, fetch
from blitz.launch.cluster.ray_internals import pausing_callback

STREAM = "rows"
_SECONDS_BETWEEN_POLLS = 0.02
_ROW, _WEIGHT, _FIRST = "_row", "_weight", "_first_batch"
"""Columns of a block beside the fetched ones."""

DatasetRefs = Mapping[Split, "ray.ObjectRef[Any]"]


class RowStream(DataConfig):
    """Ray Train's hook at which the world size is known; called again whenever a group of workers starts.

    The stream starts at the newest checkpoint's step and is dealt to the number of workers at that moment.
    """

    def __init__(
        self, plan: Plan, first_step: Callable[[], int], datasets: DatasetRefs, row_bytes: int, *, task_cpus: float
    ) -> None:
        super().__init__()
        self._plan, self._first_step, self._refs, self._row_bytes = plan, first_step, datasets, row_bytes
        self._task_cpus = task_cpus

    def configure(self, datasets: Any, world_size: int, *_: Any, **__: Any) -> list[dict[str, Any]]:
        """One iterator over blocks for each rank; None where the run has nothing left to consume."""
        shares = Shares.of(self._plan, world_size=world_size, row_bytes=self._row_bytes)
        chunks = list(shares.chunks(self._first_step()))
        if not chunks:
            return [{STREAM: None}] * world_size
        tasks = [
            partial(_read, self._refs[chunk.split], shares, chunk, rank)
            for chunk in chunks
            for rank in range(world_size)
        ]
        block_rows = shares.share * shares.block_batches
        # A larger `override_num_blocks` than there are tasks would split every block.
        dataset = ray.data.read_datasource(
            _Rows(tasks, block_rows, self._row_bytes), num_cpus=self._task_cpus, override_num_blocks=len(tasks)
        )
        dataset.context.execution_options = ExecutionOptions(preserve_order=True)
        dataset.context.custom_execution_callback_classes = [pausing_callback(_SECONDS_BETWEEN_POLLS)]
        # Blocks are equally large, so handing them out in turn is an equal split; `equal=True` would withhold some.
        return [{STREAM: shard} for shard in dataset.streaming_split(world_size, equal=False)]


class _Rows(Datasource):
    def __init__(self, tasks: list[Any], block_rows: int, row_bytes: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._tasks, self._block_rows, self._row_bytes = tasks, block_rows, row_bytes

    def get_name(self) -> str:
        return "Rows"

    def estimate_inmemory_data_size(self) -> int:
        return len(self._tasks) * self._block_rows * self._row_bytes

    def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ReadTask]:
        metadata = BlockMetadata(self._block_rows, self._block_rows * self._row_bytes, None, None)
        return [ReadTask(task, metadata) for task in self._tasks]


def _read(dataset: "ray.ObjectRef[Any]", shares: Shares, chunk: Chunk, rank: int) -> list[Any]:
    block = fetch(ray.get(dataset), shares, chunk, rank)
    first = np.full(len(block.rows), chunk.start)
    columns = {**block.columns, _ROW: block.rows, _WEIGHT: block.weights, _FIRST: first}
    if block.faults is not None:
        columns[FAULT] = block.faults
    return [BlockAccessor.batch_to_block(columns)]


def blocks_of(shard: Any, shares: Shares) -> tuple[int, Iterator[Block]]:
    """The step at which a rank's stream starts, and its blocks.

    The step comes from the stream itself, so a rank never loads another checkpoint than the one its rows start from.
    """
    if shard is None:
        return shares.plan.total_steps, iter(())
    fetched = iter(shard.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=1))
    columns = next(fetched)
    first_step = int(columns[_FIRST][0])
    return first_step, _blocks(chain([columns], fetched), shares, first_step)


def _blocks(fetched: Iterable[dict[str, Any]], shares: Shares, first_step: int) -> Iterator[Block]:
    for chunk, columns in zip(shares.chunks(first_step), fetched, strict=True):
        # Arrays from Ray's object store are read-only, which tensors cannot be.
        faults = columns.pop(FAULT, None)
        arrays = {name: np.require(column, requirements="W") for name, column in columns.items()}
        rows, weights, first = (arrays.pop(name) for name in (_ROW, _WEIGHT, _FIRST))
        assert first[0] == chunk.start
        assert len(rows) == shares.share * shares.block_batches
        yield Block(chunk, shares.share, rows, weights, arrays, faults)
