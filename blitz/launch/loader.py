"""The blocks of a run in this process: fetched here, or by other processes where that is faster."""

import os
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Literal

import torch
from torch.utils.data import DataLoader

from blitz.data.plan import Block, Chunk, Shares, fetch
from blitz.errors import UserError
from blitz.launch.job import Datasets
from blitz.training.display import Display

# DataLoader's own default: blocks that each process fetches ahead.
_AHEAD = 2
_PROBE_S = 1.0
_WORTH = 1.05
"""More processes must be so much faster to be worth their memory."""
_LEAST_S = 5.0
"""What takes less to fetch in all is not worth starting processes for."""


@dataclass(frozen=True)
class Loader:
    """Fetches the blocks of a run."""

    datasets: Datasets
    shares: Shares
    row_bytes: int
    pin_memory: bool = False
    """Whether blocks are on their way to a GPU."""

    def blocks(self, first_step: int, *, workers: Literal["auto"] | int, display: Display) -> Iterator[Block]:
        """From `first_step` on, in order."""
        if workers == "auto":
            workers, why = self.best_workers(first_step)
            display.line(f"loader workers: {workers} ({why})")
        return self.fetched(self.shares.chunks(first_step), workers)

    def fetched(self, chunks: Iterable[Chunk], workers: int) -> Iterator[Block]:
        """The blocks of `chunks`, fetched by so many other processes, or by this one."""
        loader: DataLoader[Any] = DataLoader(
            _Blocks(self.datasets, self.shares, shared=workers > 0),  # type: ignore[arg-type]
            sampler=chunks,
            batch_size=None,
            collate_fn=_as_fetched,
            num_workers=workers,
            prefetch_factor=_AHEAD if workers else None,
            pin_memory=self.pin_memory,
        )
        for block in loader:
            if isinstance(block, UserError):
                raise block
            yield block.with_arrays() if isinstance(block, _SharedBlock) else block

    def best_workers(self, first_step: int) -> tuple[int, str]:
        """The fewest processes beyond which more are not faster, and why: what each number was measured to fetch."""
        chunks = self.shares.chunks(first_step)
        total = sum(1 for _ in self.shares.chunks(first_step))
        # Every trial takes other chunks, because files that were read once are read faster.
        rates = {0: self._rate(chunks, 0)}
        block_rows = self.shares.share * self.shares.block_batches
        seconds = total * block_rows / rates[0]
        if seconds < _LEAST_S:
            return 0, f"to fetch all rows takes this process {seconds:.1f} s"
        best, most = 0, self._most_workers(block_rows)
        for workers in _candidates(most):
            rates[workers] = self._rate(chunks, workers)
            if rates[workers] > _WORTH * rates[best]:
                best = workers
            elif workers > best + 1:
                break
        return best, "rows a second: " + ", ".join(f"{rate:.0f} with {number}" for number, rate in rates.items())

    def _rate(self, chunks: Iterator[Chunk], workers: int) -> float:
        """Rows a second, once every process has delivered its first block; 0 where there are no chunks left."""
        blocks = self.fetched(_or_from_start(chunks, self.shares), workers)
        for _ in islice(blocks, max(1, workers * _AHEAD)):
            pass
        began, rows = time.perf_counter(), 0
        for block in blocks:
            rows += len(block.rows)
            if time.perf_counter() - began > _PROBE_S:
                break
        return rows / (time.perf_counter() - began)

    def _most_workers(self, block_rows: int) -> int:
        """As many as there are CPUs, and as blocks in flight fit into half of the shared memory that is free."""
        block_bytes = max(1, block_rows * self.row_bytes)
        free = shutil.disk_usage("/dev/shm").free if os.path.isdir("/dev/shm") else 0
        return min(len(os.sched_getaffinity(0)), int(free / 2 / block_bytes / (_AHEAD + 1)))


def _candidates(most: int) -> list[int]:
    """1, 2, 3, 4, 6, 8, 12, 16 and so on."""
    return sorted(
        {n for power in range(8) for n in (1 << power, 3 << power) if n <= most} | ({most} if most else set())
    )


def _or_from_start(chunks: Iterator[Chunk], shares: Shares) -> Iterator[Chunk]:
    while True:
        yield from chunks
        chunks = shares.chunks(0)


@dataclass(frozen=True)
class _Blocks:
    """What the DataLoader reads from: a chunk asked for is fetched as a block."""

    datasets: Datasets
    shares: Shares
    shared: bool
    """Whether the block goes to another process: tensors do so through shared memory, and arrays do not."""

    def __getitem__(self, chunk: Chunk) -> "Block | _SharedBlock | UserError":
        try:
            block = fetch(self.datasets[chunk.split], self.shares, chunk, rank=0)
        except UserError as error:
            # Raised again in the process that asks: DataLoader would put a trace before the message.
            return error
        return _SharedBlock.of(block) if self.shared else block


@dataclass(frozen=True)
class _SharedBlock:
    block: Block
    tensors: dict[str, torch.Tensor]

    @classmethod
    def of(cls, block: Block) -> "_SharedBlock":
        tensors = {name: torch.from_numpy(column) for name, column in block.columns.items()}
        return cls(replace(block, columns={}), tensors)

    def with_arrays(self) -> Block:
        return replace(self.block, columns={name: tensor.numpy() for name, tensor in self.tensors.items()})


def _as_fetched(block: Any) -> Any:
    return block
