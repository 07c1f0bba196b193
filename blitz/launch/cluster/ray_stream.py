"""The rows of a run as a stream through Ray Data, for a group of ranks.

Every (chunk, rank) of the plan is one read task, in that order, and each makes one block of equally many rows. The
tasks fetch and decode on any node's CPUs, and with `preserve_order` their blocks come out in that order.

Ray Data plans a whole data set before its first block flows, and remembers each of its blocks. So the stream is cut
into windows of some hundred tasks, each a data set of its own, and the next is started while one is consumed: neither
the start nor memory depends on the length of the run.

Nothing here imports torch, which would cost each process of Ray Data seconds.
"""

import functools
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import ray
import ray.data
from ray.data import DataContext, ExecutionOptions
from ray.data.block import BlockAccessor, BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from blitz.data.arrays import FAULT
from blitz.data.plan import Chunk, Shares, Split, fetch
from blitz.launch.cluster.node_task import stack_group
from blitz.launch.cluster.ray_internals import pausing_callback
from blitz.launch.stacks import can_dump_stacks

ROW, WEIGHT = "_row", "_weight"
"""Columns of a block beside the fetched ones."""
NO_EVENTS: dict[str, Any] = {"enable_task_events": False}
"""Options of a task: Ray would keep 4 KB about each of the last 100,000."""
_READY = 4
"""Blocks that are kept ready for each rank, beside those that Ray Data keeps."""
_SECONDS_BETWEEN_POLLS = 0.02


class RowStream:
    """An actor from which the ranks of a group take their blocks.

    It outlives the ranks: when they are restarted they begin it again, and no process has to start for that.
    """

    def __init__(self) -> None:
        context = DataContext.get_current()
        # Its progress bars would overwrite ours.
        context.enable_progress_bars = False
        context.execution_options = ExecutionOptions(preserve_order=True)
        context.custom_execution_callback_classes = [pausing_callback(_SECONDS_BETWEEN_POLLS)]
        self._changed = threading.Condition()
        self._start: int | None = None
        self._ready: list[deque[ray.ObjectRef[Any]]] = []
        self._ended = False
        self._error: BaseException | None = None

    def begin(self, start: int, source: "Source", first_step: int, count: int) -> None:
        """Begin the stream of `count` chunks at `first_step`, unless another rank has for this `start` of the ranks."""
        with self._changed:
            if self._start == start:
                return
            self._start, self._ended, self._error = start, False, None
            self._ready = [deque() for _ in source.ranks]
            self._changed.notify_all()
        threading.Thread(target=self._fill, args=(start, source.blocks(first_step, count)), daemon=True).start()

    def take(self, start: int, index: int, begun: None) -> "list[ray.ObjectRef[Any]]":
        """The blocks that are ready for the rank of that index in the group: at least one, until its last is taken.

        `begun` is what the rank's `begin` has returned, so that Ray runs this after it.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._start != start or self._ready[index] or self._ended)
            if self._start != start:
                # The rank is no more, or this actor was restarted with an empty memory.
                raise RuntimeError("the stream that the rank took its rows from has ended")
            if self._error is not None and not self._ready[index]:
                raise self._error
            taken = list(self._ready[index])
            self._ready[index].clear()
            self._changed.notify_all()
            return taken

    def _fill(self, start: int, blocks: "Iterator[ray.ObjectRef[Any]]") -> None:
        error: BaseException | None = None
        try:
            for number, block in enumerate(blocks):
                with self._changed:
                    if self._start != start:
                        return
                    ready = self._ready[number % len(self._ready)]
                    self._changed.wait_for(lambda: self._start != start or len(ready) < _READY)  # noqa: B023
                    ready.append(block)
                    self._changed.notify_all()
        except BaseException as failure:
            error = failure
        with self._changed:
            if self._start == start:
                self._ended, self._error = True, error
                self._changed.notify_all()


@dataclass(frozen=True)
class Source:
    """What a stream gives to its ranks, fetched by Ray Data window by window."""

    datasets: Mapping[Split, "ray.ObjectRef[Any]"]
    shares: Shares
    ranks: range
    row_bytes: int
    task_cpus: float
    """Reserved by a task."""
    tasks_per_window: int

    def blocks(self, first_step: int, count: int) -> "Iterator[ray.ObjectRef[Any]]":
        """The blocks of `count` chunks from `first_step` on: of each one for each rank, in their order."""
        tasks = ((chunk, rank) for chunk in islice(self.shares.chunks(first_step), count) for rank in self.ranks)
        windows = iter(lambda: list(islice(tasks, self.tasks_per_window)), [])
        with ThreadPoolExecutor(1) as ahead:
            first = next(windows, None)
            following = ahead.submit(self._window, first) if first else None
            while following is not None:
                window, following = following.result(), None
                for number, block in enumerate(entry.ref for bundle in window for entry in bundle.blocks):
                    # The first block of the next window is then fetched before the last of this one is consumed.
                    if number == self.tasks_per_window // 2 and (tasks_of_next := next(windows, None)):
                        following = ahead.submit(self._window, tasks_of_next)
                    yield block

    def _window(self, tasks: list[tuple[Chunk, int]]) -> Iterator[Any]:
        """The blocks of some tasks, once the first is there."""
        rows = self.shares.share * self.shares.block_batches
        metadata = BlockMetadata(rows, rows * self.row_bytes, None, None)
        reads = [
            ReadTask(partial(_read, self.datasets[chunk.split], self.shares, chunk, rank), metadata)
            for chunk, rank in tasks
        ]
        # A larger `override_num_blocks` than there are tasks would split every block.
        dataset = ray.data.read_datasource(
            _Rows(reads, metadata),
            num_cpus=self.task_cpus,
            ray_remote_args=NO_EVENTS,
            override_num_blocks=len(reads),
        )
        bundles: Iterator[Any] = dataset.iter_internal_ref_bundles()
        return bundles


class _Rows(Datasource):
    def __init__(self, reads: list[ReadTask], metadata: BlockMetadata) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._reads, self._metadata = reads, metadata

    def get_name(self) -> str:
        return "Rows"

    def estimate_inmemory_data_size(self) -> int:
        return len(self._reads) * (self._metadata.size_bytes or 0)

    def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ReadTask]:
        return self._reads


def _read(dataset: "ray.ObjectRef[Any]", shares: Shares, chunk: Chunk, rank: int) -> list[Any]:
    can_dump_stacks(stack_group())
    block = fetch(local_dataset(dataset), shares, chunk, rank)
    columns = {**block.columns, ROW: block.rows, WEIGHT: block.weights}
    if block.faults is not None:
        columns[FAULT] = block.faults
    return [BlockAccessor.batch_to_block(columns)]


@functools.lru_cache(maxsize=2)
def local_dataset(dataset: "ray.ObjectRef[Any]") -> Any:
    """A data set of the object store, read once in a process that fetches block after block."""
    return ray.get(dataset)
